"""Stands for ``autoscript_core.common``: what AutoScript raises."""


class ApiException(Exception):  # noqa: N818 - AutoScript's name
    """The client could not do it."""


class ApplicationServerException(Exception):  # noqa: N818 - AutoScript's name
    """The server refused, or failed: it does not say which."""
