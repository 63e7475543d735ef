"""The way from the web pages to the bus: what is asked there is sent by the role's own thread."""

import asyncio
import itertools
import queue
import secrets
from collections import deque
from concurrent.futures import Future
from typing import Any

from semagent.bus import Bus
from semagent.clock import Clock
from semagent.errors import RoleError
from semagent.types import Action, Command, Event, Issuer, Reply, Request

ANSWER_S = 15.0
_BEGIN_S = 10.0


def longest_wait_s(frame_timeout_s: float) -> float:
    """How long after it was asked for a command is answered at the latest.

    Args:
        frame_timeout_s: longest time a frame may take; commands wait for its end.
    """
    return frame_timeout_s + ANSWER_S


class Desk:
    """Sends commands and requests and finds the answers that belong to them.

    `command` and `request` belong to the web server's thread, `step` to the role's.

    Args:
        bus: where both go.
        clock: the clock the acquire role stamps with.
        frame_timeout_s: longest time a frame may take.
    """

    def __init__(self, bus: Bus, clock: Clock, frame_timeout_s: float) -> None:
        self._bus = bus
        self._clock = clock
        self._frame_s = frame_timeout_s
        self._out: queue.SimpleQueue[tuple[str, Any, Future[Any]]] = queue.SimpleQueue()
        self._commands: dict[str, Future[Any]] = {}
        # Requests carry no name; they are answered in the order in which they were sent.
        self._requests: deque[Future[Any]] = deque()
        self._run = secrets.token_hex(4)  # a console that was started again must not repeat ids
        self._ids = itertools.count(1)

    async def command(self, action: Action, asked_ns: int) -> Reply:
        """Do something as the operator, who asked for it at ``asked_ns``.

        It is void before it counts as not answered, so that nothing of it happens later.

        Raises:
            RoleError: no answer came in time.
        """
        command = Command(
            id=f"operator-{self._run}-{next(self._ids)}",
            issuer=Issuer.OPERATOR,
            action=action,
            expires_ns=asked_ns + round((self._frame_s + _BEGIN_S) * 1e9),
        )
        waited_s = (self._clock.monotonic_ns() - asked_ns) / 1e9
        answer: Reply = await self._ask(
            "command",
            command,
            "the acquire role",
            longest_wait_s(self._frame_s) - waited_s,
            late="; what has not begun by now is void",
        )
        return answer

    async def request(self, request: Request) -> Event:
        """Ask something of control; whether it does it stands in the event's kind.

        Raises:
            RoleError: no answer came in time.
        """
        answer: Event = await self._ask("request", request, "the control role", ANSWER_S)
        return answer

    def step(self) -> None:
        """Send what was asked and hand out what was answered. Never waits."""
        while not self._out.empty():
            channel, value, future = self._out.get()
            try:
                self._bus.send(channel, value)
            except RoleError as error:
                future.set_exception(error)
                continue
            if channel == "command":
                self._commands[value.id] = future
            else:
                self._requests.append(future)
        for answer in self._bus.answers():
            if isinstance(answer, Reply):
                self._resolve(self._commands.pop(answer.command.id, None), answer)
            elif self._requests:
                self._resolve(self._requests.popleft(), answer)
        # Whoever asked has given up; a later answer must not be taken for another one's.
        if any(future.cancelled() for future in self._requests):
            self._requests.clear()
        self._commands = {
            name: future for name, future in self._commands.items() if not future.cancelled()
        }

    async def _ask(
        self, channel: str, value: Any, whom: str, within_s: float, late: str = ""
    ) -> Any:
        future: Future[Any] = Future()
        self._out.put((channel, value, future))
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), within_s)
        except TimeoutError:
            raise RoleError(f"{whom} has not answered within {within_s:.0f} s{late}") from None

    @staticmethod
    def _resolve(future: "Future[Any] | None", answer: Any) -> None:
        if future is not None and future.set_running_or_notify_cancel():
            future.set_result(answer)
