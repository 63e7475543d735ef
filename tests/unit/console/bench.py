"""A console over a bus in this process, spoken to over real sockets."""

import http.client
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from semagent.bus import LocalBus, LocalHub
from semagent.channels import Role
from semagent.types import (
    Command,
    Event,
    Frame,
    MicroscopeState,
    Outcome,
    Reply,
)

pytest.importorskip("starlette", reason="the extra 'console' is not installed")

from semagent.console import Console, Tokens

TOKENS = Tokens(operator="operator-secret", viewer="viewer-secret")


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Served:
    """What listens on a port of this machine."""

    port: int

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def fetch(
        self,
        path: str,
        method: str = "GET",
        body: bytes | None = None,
        **headers: str,
    ) -> Answer:
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            link.request(method, path, body, named)
            answer = link.getresponse()
            lowered = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, lowered, answer.read())
        finally:
            link.close()

    def cookie(self, token: str) -> str:
        answer = self.fetch(f"/?token={token}")
        assert answer.status == 303
        return answer.headers["set-cookie"].partition(";")[0]


@dataclass
class Run(Served):
    """A console and the ends of the bus it listens to."""

    hub: LocalHub
    acquire: LocalBus
    infer: LocalBus
    control: LocalBus
    console: Console
    commands: list[Command] = field(default_factory=list)
    requests: list[Any] = field(default_factory=list)
    refuse: str = ""
    read_back: MicroscopeState | None = None

    def wish(self, wish: dict[str, Any], token: str = TOKENS.operator, **headers: str) -> Answer:
        given = {
            "Origin": self.origin,
            "Content_Type": "application/json",
            "Cookie": self.cookie(token),
            **headers,
        }
        return self.fetch("/api/wish", "POST", json.dumps(wish).encode(), **given)

    def say(self, role: str, channel: str, value: Any, pixels: Any = None) -> None:
        """Let a role say something, and wait until the console has heard it."""
        version = self.console.heard
        LocalBus(self.hub, Role(role)).publish(channel, value, pixels)
        self.until(lambda: self.console.heard > version)

    def expose(self, frame: Frame, **optics: float) -> None:
        """Let the acquire role publish a frame."""
        header = frame.header
        if optics:
            changed = msgspec.structs.replace(header.optics, **optics)
            header = msgspec.structs.replace(header, optics=changed)
        self.say("acquire", "frame", header, frame.pixels)

    @staticmethod
    def until(done: Callable[[], bool]) -> None:
        deadline_s = time.perf_counter() + 10
        while not done():
            assert time.perf_counter() < deadline_s
            time.sleep(0.001)

    def serve(self) -> None:
        """Answer as acquire and control would."""
        for delivered in self.acquire.deliveries():
            self.commands.append(delivered.value)
            outcome = Outcome.REFUSED if self.refuse else Outcome.APPLIED
            reply = Reply(
                command=delivered.value,
                outcome=outcome,
                monotonic_ns=1,
                next_sequence=1,
                code="range" if self.refuse else "",
                reason=self.refuse,
                state=self.read_back,
            )
            self.acquire.publish("reply", reply)
            delivered.answer(reply)
        for delivered in self.control.deliveries():
            self.requests.append(delivered.value)
            kind = "request_refused" if self.refuse else "request_taken"
            delivered.answer(
                Event(kind=kind, role="control", message=self.refuse, monotonic_ns=1, wall_ns=1)
            )
