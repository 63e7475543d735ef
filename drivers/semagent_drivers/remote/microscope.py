"""The microscope port over a network."""

import os
import socket
from collections.abc import Mapping
from typing import Any

import msgspec

from semagent.clock import Clock
from semagent.errors import MicroscopeError
from semagent.options import parse_options
from semagent.remote.protocol import Acquire, Apply, Bye, Done, Hello, Picture, ReadState, State
from semagent.types import Capabilities, Frame, MicroscopeAction, MicroscopeState
from semagent_drivers.remote.link import Link
from semagent_drivers.remote.options import RemoteOptions

_PINGS_AT_OPEN = 8
_GOODBYE_S = 1.0


class RemoteMicroscope:
    """Another machine's microscope, its stamps put on this machine's clock; see `Microscope`.

    Once the link is gone, everything raises `DisconnectedError`; nothing is tried again.
    """

    def __init__(self, options: RemoteOptions, clock: Clock) -> None:
        self._options = options
        self._clock = clock
        self._last_stamp_ns = 0
        self._frames = 0
        self._link = Link(
            options.endpoint,
            options.load_keys(),
            clock=clock,
            silence_timeout_s=options.silence_timeout_s,
        )
        try:
            who = f"{socket.gethostname()}, process {os.getpid()}"
            welcome = self._link.open(Hello(who=who), options.connect_timeout_s)
            for _ in range(_PINGS_AT_OPEN):
                self._link.ping(options.connect_timeout_s)
        except BaseException:
            self._link.close()
            raise
        far = welcome.capabilities
        self._capabilities = msgspec.structs.replace(
            far, microscope=f"{far.microscope} at {options.endpoint}"
        )

    @property
    def capabilities(self) -> Capabilities:
        """See `Microscope`: as the far driver says."""
        return self._capabilities

    @property
    def clock_error_s(self) -> float:
        """Bound of the error of ``monotonic_ns`` of a frame: half a round trip, and drift since."""
        return self._link.far_clock.error_ns(self._clock.monotonic_ns()) / 1e9

    def read_state(self) -> MicroscopeState:
        """See `Microscope`."""
        result, _ = self._link.ask(ReadState(), self._options.answer_timeout_s)
        if not isinstance(result, State):
            raise _out_of_turn(result)
        return result.state

    def acquire(self, timeout_s: float) -> Frame:
        """See `Microscope`."""
        result, pixels = self._link.ask(
            Acquire(timeout_s=timeout_s), timeout_s + self._options.answer_timeout_s
        )
        if not isinstance(result, Picture) or pixels is None:
            raise _out_of_turn(result)
        stamp_ns = self._link.far_clock.to_here(
            result.header.monotonic_ns, self._clock.monotonic_ns()
        )
        # A better estimate of the offset must not make the frames go back in time.
        self._last_stamp_ns = max(stamp_ns, self._last_stamp_ns + 1)
        # The far microscope goes on counting from client to client.
        self._frames += 1
        header = msgspec.structs.replace(
            result.header, sequence=self._frames, monotonic_ns=self._last_stamp_ns
        )
        return Frame(header, pixels)

    def apply(self, action: MicroscopeAction) -> None:
        """See `Microscope`."""
        result, _ = self._link.ask(Apply(action=action), self._options.move_timeout_s)
        if not isinstance(result, Done):
            raise _out_of_turn(result)

    def stop(self) -> None:
        """See `Microscope`. Sent at once and not waited for; what it ends says so."""
        self._link.stop()

    def close(self) -> None:
        """See `Microscope`."""
        self._link.close(Bye(), _GOODBYE_S)


def open_microscope(options: Mapping[str, Any], *, clock: Clock) -> RemoteMicroscope:
    """Connect to ``semagent serve`` on another machine.

    Raises:
        ConfigError: an option or a key file is wrong, or the endpoint is on another machine and
            there are no keys.
        DisconnectedError: nobody answers there, or the keys do not fit.
        MicroscopeError: the microscope is in use by another client.
    """
    parsed = parse_options(options, RemoteOptions, where="driver remote")
    return RemoteMicroscope(parsed, clock)


def _out_of_turn(result: object) -> MicroscopeError:
    return MicroscopeError(f"the microscope PC answered with {type(result).__name__}, out of turn")
