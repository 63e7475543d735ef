"""The pages that have an entry in the navigation: name and path, in order."""

Links = tuple[tuple[str, str], ...]

SESSIONS = ("Sessions", "/sessions")
LINKS: Links = (("Live", "/"), SESSIONS)
"""While a run goes on."""

BROWSING: Links = (SESSIONS,)
"""Without a run."""
