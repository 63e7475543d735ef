"""The console as a role: the bus on its own thread, the web server on another."""

from semagent.bus import Bus
from semagent.clock import Clock
from semagent.console.access import Tokens
from semagent.console.app import Live, make_app
from semagent.console.desk import Desk
from semagent.console.facts import Board, RunFacts
from semagent.console.library import Library
from semagent.console.listener import Listener
from semagent.console.pages import metrics
from semagent.console.pages.sessions import SessionPages
from semagent.console.web import WebServer


class Console:
    """Serves the pages; see `semagent.roles.RoleLoop`.

    Args:
        bus: not yet connected.
        listener: a bound socket; closed together with the console.
        run: what the run is.
        tokens: who is let in.
        clock: what time it is.
    """

    def __init__(
        self, bus: Bus, listener: Listener, run: RunFacts, tokens: Tokens, clock: Clock
    ) -> None:
        self._bus = bus
        self._board = Board(bus, run, clock)
        self._desk = Desk(bus, clock, run.config.acquire.frame_timeout_s)
        self._live = Live(self._board, self._desk, clock)
        session = run.session
        recorded = Library(session.parent, growing=session.name) if session else Library(None)
        self._sessions = SessionPages(recorded, live=True)
        pages = (*self._sessions.routes(), *metrics.routes(self._board))
        app = make_app([*self._live.routes(), *pages], tokens, listener)
        self._web = WebServer(app, listener, self._live.update)

    @property
    def heard(self) -> int:
        """Grows whenever the pages have taken in news."""
        return self._board.version

    def step(self) -> bool:
        """See `RoleLoop`.

        Raises:
            RoleError: the web server has ended.
        """
        self._web.check()
        self._desk.step()
        if self._board.pending():
            self._web.wake()
        header = self._board.header
        self._bus.beat(
            busy=False,
            processed=0 if header is None else header.sequence - self._board.skipped,
            skipped=self._board.skipped,
        )
        return False

    def close(self) -> None:
        """See `RoleLoop`."""
        self._sessions.close()
        self._web.close()
