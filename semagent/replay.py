"""A recorded session through the unmodified infer and control roles.

The record says what control took up, and in which order (`Heard`). Each of these is presented
again: frames to the engine, everything else as it was recorded. What the agent then commands
has to be what it commanded.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import takewhile, zip_longest
from pathlib import Path
from typing import Any

import msgspec

from semagent import registry
from semagent.bus import LocalBus, LocalHub
from semagent.channels import CHANNELS, Role
from semagent.clock import ManualClock
from semagent.config import RunConfig
from semagent.errors import InputFileError
from semagent.parts import make_control
from semagent.roles import CONTROL_IDS, InferRole
from semagent.roles.base import Announcer
from semagent.session import SessionReader
from semagent.types import Command, FrameHeader, GateStatus, Heard, Issuer, Reply, Value


class Difference(Value, frozen=True, kw_only=True):
    """A command that came out differently; ``None`` where one side gave none."""

    recorded: Command | None
    replayed: Command | None


class Replay:
    """One recorded session, ready to be run again.

    Args:
        folder: the session.

    Raises:
        InputFileError: it is not a session, or was recorded without what a replay needs.
    """

    def __init__(self, folder: Path) -> None:
        self._reader = SessionReader(folder)
        manifest = self._reader.manifest
        try:
            self._config = msgspec.convert(manifest.configuration, RunConfig)
        except msgspec.ValidationError as error:
            raise InputFileError(
                f"{folder}: recorded with a configuration this release cannot use: {error}"
            ) from error
        self._heard: list[Heard] = []
        self._recorded: list[Command] = []
        self._replies: dict[str, Reply] = {}
        self._gates: dict[int, GateStatus] = {}
        self._flagged: dict[int, FrameHeader] = {}
        self._requests: list[Any] = []
        self._analysed: deque[int] = deque()
        self._sort_record()
        if not manifest.complete:
            # Its last lines may speak of what has not got into it any more.
            self._heard = list(takewhile(self._is_recorded, self._heard))
        if not self._heard:
            raise InputFileError(f"{folder}: no frame reached the control role; nothing to replay")

        self._clock = ManualClock(start_ns=0)
        hub = LocalHub(self._clock)
        self._acquire = LocalBus(hub, Role.ACQUIRE)
        self._operator = LocalBus(hub, Role.CONSOLE)
        self._control = make_control(
            LocalBus(hub, Role.CONTROL),
            self._config,
            manifest.capabilities,
            self._clock,
        )
        engine = self._config.engine
        self._infer = InferRole(
            LocalBus(hub, Role.INFER),
            registry.open_engine(engine.name, engine.options),
            self._config.infer,
            self._clock,
        )
        self._acquire.serve("command")
        self._say = Announcer(self._acquire, self._clock)
        self.replayed: list[Command] = []

    def __len__(self) -> int:
        return len(self._heard)

    def run(self) -> Iterator[Heard]:
        """Present everything in order, saying each time what comes next.

        Raises:
            InputFileError: a frame is missing from the record or damaged.
        """
        for heard in self._heard:
            yield heard
            self._present(heard)
            self.replayed.extend(each.value for each in self._acquire.deliveries())

    def differences(self) -> list[Difference]:
        """Commands of the agent that came out differently, compared in order by content.

        Of a record that breaks off, what came after its end is not compared.
        """
        pairs: Iterable[tuple[Command | None, Command | None]]
        if self._reader.manifest.complete:
            pairs = zip_longest(self._recorded, self.replayed)
        else:
            pairs = zip(self._recorded, self.replayed, strict=False)
        return [
            Difference(recorded=before, replayed=after)
            for before, after in pairs
            if before != after
        ]

    def _sort_record(self) -> None:
        types = {name: channel.type for name, channel in CHANNELS.items()}
        for entry in self._reader.events(types):
            value = entry.value
            match entry.channel:
                case "heard":
                    self._heard.append(value)
                case "command" if value.issuer is Issuer.AGENT and value.id.startswith(CONTROL_IDS):
                    self._recorded.append(value)
                case "reply":
                    self._replies[value.command.id] = value
                case "gate":
                    self._gates[value.monotonic_ns] = value
                case "request":
                    self._requests.append(value)
                case "event" if (header := value.flagged) is not None:
                    self._flagged[header.sequence] = header
                case "analysis":
                    self._analysed.append(value.header.sequence)

    def _is_recorded(self, heard: Heard) -> bool:
        """Whether the record has what control heard."""
        match heard.kind:
            case "analysis":
                return int(heard.key) in self._reader
            case "flagged":
                return int(heard.key) in self._flagged
            case "reply":
                return str(heard.key) in self._replies
            case "gate":
                return int(heard.key) in self._gates
            case "request":
                return int(heard.key) <= len(self._requests)
            case "tick":
                return True

    def _present(self, heard: Heard) -> None:
        if heard.tick_ns > self._clock.monotonic_ns():
            self._clock.move_to(heard.tick_ns)
        self._control.step()
        match heard.kind:
            case "analysis":
                self._analyse_until(int(heard.key))
            case "flagged":
                self._say.flagged(self._flagged[int(heard.key)])
            case "reply":
                self._acquire.publish("reply", self._replies[str(heard.key)])
            case "gate":
                self._acquire.publish("gate", self._gates[int(heard.key)])
            case "request":
                self._operator.send("request", self._requests[int(heard.key) - 1])
            case "tick":
                pass
        self._control.step()

    def _analyse_until(self, sequence: int) -> None:
        """Show the engine a frame, after those that control had skipped.

        What is said of a frame depends on the ones before: its shift is counted from another.
        """
        while self._analysed and self._analysed[0] <= sequence:
            frame = self._reader.frame(self._analysed.popleft())
            self._acquire.publish("frame", frame.header, frame.pixels)
            self._infer.step()

    def close(self) -> None:
        """Free the engine. May be called twice."""
        self._infer.close()
