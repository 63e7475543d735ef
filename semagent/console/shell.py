"""The frame around every page: head, navigation, sign-in."""

import html
from pathlib import Path

_HERE = Path(__file__).parent

Links = tuple[tuple[str, str], ...]
"""The entries of the navigation: name and path, in order."""

SESSIONS = ("Sessions", "/sessions")
LINKS: Links = (("Live", "/"), SESSIONS)
"""While a run goes on."""

BROWSING: Links = (SESSIONS,)
"""Without a run."""


def body(name: str) -> str:
    """The body of a page from its file, with the picture and its tools where it has one."""
    text = (_HERE / name).read_text(encoding="utf-8")
    return text.replace("<!-- stage -->", (_HERE / "stage.html").read_text(encoding="utf-8"))


def page(
    title: str, inside: str, *, here: str, scripts: tuple[str, ...] = (), links: Links = LINKS
) -> str:
    """A whole page.

    Args:
        title: of the page.
        inside: the HTML of its body; whoever makes it escapes what comes from elsewhere.
        here: path of the page, to mark it in the navigation.
        scripts: names of ES modules under ``static``.
        links: the navigation.
    """
    ways = "".join(
        f'<a href="{path}"{" aria-current=page" if path == here else ""}>{html.escape(name)}</a>'
        for name, path in links
    )
    modules = "".join(f'<script type="module" src="/static/{name}"></script>' for name in scripts)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)} · semagent</title>"
        '<link rel="icon" href="/static/icon.svg"><link rel="stylesheet" href="/static/style.css">'
        f"{modules}</head><body>"
        '<header class="bar"><a class="brand" href="/">semagent</a>'
        f'<nav aria-label="Pages">{ways}</nav><div id="bar" class="bar-rest"></div></header>'
        f"{inside}"
        '<div class="toasts" id="toasts" role="status" aria-live="assertive"></div></body></html>'
    )


def again_page() -> str:
    """Asks for itself once more."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="color-scheme" content="dark"><title>semagent</title>'
        '<script src="/static/again.js"></script></head></html>'
    )


def login_page(*, wrong: bool = False) -> str:
    """Asks for a token."""
    note = '<p class="bad" role="alert">That token opens nothing here.</p>' if wrong else ""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<title>Sign in · semagent</title>"
        '<link rel="icon" href="/static/icon.svg"><link rel="stylesheet" href="/static/style.css">'
        '</head><body class="login"><main><h1>semagent</h1>'
        "<p>Open the link that was printed in the terminal where semagent was started, or paste "
        f"its token here.</p>{note}"
        '<form method="post" action="/login"><label for="token">Token</label>'
        '<input id="token" name="token" type="password" autocomplete="off" autofocus required>'
        '<button class="primary">Sign in</button></form></main></body></html>'
    )
