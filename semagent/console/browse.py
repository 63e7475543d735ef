"""The session browser alone, without a run."""

from pathlib import Path

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from semagent.console.access import Tokens
from semagent.console.app import make_app
from semagent.console.library import Library
from semagent.console.listener import Listener
from semagent.console.pages.sessions import SessionPages
from semagent.console.shell import SESSIONS
from semagent.console.web import WebServer
from semagent.errors import InputFileError
from semagent.session import is_session


class Browser:
    """Serves the sessions of a folder from the moment it is made.

    Args:
        folder: with sessions in it, or one session.
        listener: a bound socket; closed together with the browser.
        tokens: who is let in.

    Raises:
        InputFileError: there is no such folder.
        RoleError: the web server does not start.
    """

    def __init__(self, folder: Path, listener: Listener, tokens: Tokens) -> None:
        self._pages = SessionPages(library_of(folder), live=False)
        app = make_app([Route("/", _go), *self._pages.routes()], tokens, listener)
        self._web = WebServer(app, listener)

    def check(self) -> None:
        """Raise `RoleError` if the server has ended."""
        self._web.check()

    def close(self) -> None:
        """End. May be called twice."""
        self._pages.close()
        self._web.close()


def library_of(folder: Path) -> Library:
    """The sessions in a folder, or the one session that it is.

    Raises:
        InputFileError: there is no such folder, or it cannot be read.
    """
    try:
        folder = folder.resolve()
        if not folder.is_dir():
            raise InputFileError(f"{folder}: is no folder")
        any(folder.iterdir())
        return Library(folder.parent, folder.name) if is_session(folder) else Library(folder)
    except (OSError, RuntimeError) as error:  # the latter for links that lead back to themselves
        raise InputFileError(f"{folder}: cannot be read ({error})") from error


def _go(_request: Request) -> Response:
    return RedirectResponse(SESSIONS[1])
