"""The pages that have an entry in the navigation: name and path, in order."""

LINKS: tuple[tuple[str, str], ...] = (("Live", "/"),)
