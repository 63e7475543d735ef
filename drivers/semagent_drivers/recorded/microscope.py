"""The microscope port over a recorded focus stack."""

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event
from typing import Any

from semagent.clock import Clock
from semagent.errors import (
    AcquisitionStoppedError,
    CommandRefusedError,
    ConfigError,
    DisconnectedError,
    InputFileError,
    MicroscopeError,
    MicroscopeTimeoutError,
)
from semagent.images import ImageFile, in_words, read_image
from semagent.options import Options, parse_options
from semagent.requirements import DriverFacts
from semagent.types import (
    Capabilities,
    Frame,
    FrameHeader,
    MicroscopeAction,
    MicroscopeState,
    Optics,
    Scan,
    SetStigmator,
    SetWorkingDistance,
)
from semagent_drivers.recorded.stack import Stack, StackEntry, load_stack

DRIVER = DriverFacts(verified_on="recorded frames need no hardware")

_CACHED_FRAMES = 8
_SETTINGS_REV = 1  # all frames of a stack are taken with the same settings


class RecordedOptions(Options, frozen=True, kw_only=True):
    """Options of the driver.

    Attributes:
        stack: path or glob of the stack, see `load_stack`.
        start_working_distance_m: where to begin; the first recorded frame's if not given.
    """

    stack: str
    start_working_distance_m: float | None = None


def open_microscope(options: Mapping[str, Any], *, clock: Clock) -> "RecordedMicroscope":
    """Open a recorded stack as a microscope.

    Raises:
        ConfigError: an option is unknown, missing or out of range.
        InputFileError: the stack cannot be used; the message names the file.
    """
    parsed = parse_options(options, RecordedOptions, where="driver recorded")
    microscope = RecordedMicroscope(load_stack(Path(parsed.stack)), clock)
    if parsed.start_working_distance_m is not None:
        try:
            microscope.apply(SetWorkingDistance(working_distance_m=parsed.start_working_distance_m))
        except CommandRefusedError as error:
            raise ConfigError(f"driver recorded: start_working_distance_m: {error}") from error
    return microscope


class RecordedMicroscope:
    """A microscope that has been everywhere it can go.

    A request for a working distance or a stigmator setting selects the nearest recorded frame,
    and, of several, the one where the other is nearest to what was last asked for. What
    is read back is where that frame was taken: it differs from the request by up to half a step
    of the stack. Frames recorded at the same setting take turns.

    Beside the port, ``stack`` and `frame` give access to every frame without moving.
    """

    def __init__(self, stack: Stack, clock: Clock) -> None:
        self.stack = stack
        self._clock = clock
        self._target = _Setting.of(stack.entries[0])
        self._selected = _nearest(stack, self._target)
        self._turn = 0
        self._sequence = 0
        self._cache: OrderedDict[int, ImageFile] = OrderedDict()
        self._stopped = Event()
        self._closed = False
        self.capabilities = Capabilities(
            driver="recorded",
            microscope=f"recorded stack {in_words(stack.path.name)}",
            verified_on=DRIVER.verified_on,
            simulated=True,
            stigmator=stack.varies_stigmator,
            repeats_frames=True,
            working_distance_range_m=stack.working_distance_range_m,
        )

    def read_state(self) -> MicroscopeState:
        """See `semagent.ports.Microscope`: where the selected frame was recorded."""
        self._check_open()
        entry = self.stack.entries[self._index()]
        return MicroscopeState(
            scan=_scan(entry),
            optics=_optics(entry),
            stage=entry.header.metadata.stage,
            settings_rev=_SETTINGS_REV,
        )

    def acquire(self, timeout_s: float) -> Frame:
        """See `semagent.ports.Microscope`: the selected frame, as a copy."""
        self._check_open()
        if not timeout_s > 0:
            raise MicroscopeTimeoutError(f"no frame can be read within {timeout_s} s")
        self._stopped.clear()
        index = self._index()
        try:
            image = self._read(index)
        except InputFileError as error:
            raise MicroscopeError(f"a recorded frame can no longer be read: {error}") from error
        if self._stopped.is_set():
            raise AcquisitionStoppedError("stopped while a recorded frame was read")
        self._turn += 1
        return self._frame(index, image)

    def frame(self, index: int) -> Frame:
        """Return one frame by its place in ``stack.entries``, without moving.

        It is counted like an acquired one.

        Raises:
            InputFileError: there is no such frame, or its file cannot be read any more.
            DisconnectedError: the microscope is closed.
        """
        self._check_open()
        count = len(self.stack.entries)
        if not 0 <= index < count:
            raise InputFileError(
                f"{self.stack.path}: there is no frame {index}; frames are 0 to {count - 1}"
            )
        return self._frame(index, self._read(index))

    def apply(self, action: MicroscopeAction) -> None:
        """See `semagent.ports.Microscope`: select the nearest recorded frame."""
        self._check_open()
        match action:
            case SetWorkingDistance(working_distance_m=distance_m):
                recorded = [entry.working_distance_m * 1e6 for entry in self.stack.entries]
                _check_recorded("working distance", "µm", distance_m * 1e6, recorded)
                target = replace(self._target, working_distance_m=distance_m)
            case SetStigmator(x=x, y=y) if self.capabilities.stigmator:
                settings = [_Setting.of(entry) for entry in self.stack.entries]
                _check_recorded("stigmator x", "", x, [each.stigmator_x for each in settings])
                _check_recorded("stigmator y", "", y, [each.stigmator_y for each in settings])
                target = replace(self._target, stigmator_x=x, stigmator_y=y)
            case _:
                able = "working distance"
                able += " and stigmators" if self.capabilities.stigmator else ""
                raise CommandRefusedError(
                    f"{type(action).__name__}: this recorded stack varies {able} only"
                )
        self._target = target
        self._selected = _nearest(
            self.stack, target, stigmator_first=isinstance(action, SetStigmator)
        )
        self._turn = 0

    def stop(self) -> None:
        """See `semagent.ports.Microscope`."""
        self._stopped.set()

    def close(self) -> None:
        """See `semagent.ports.Microscope`."""
        self._closed = True
        self._cache.clear()

    def _check_open(self) -> None:
        if self._closed:
            raise DisconnectedError(f"the recorded stack {self.stack.path} is closed")

    def _index(self) -> int:
        """Place of the frame whose turn it is."""
        return self._selected[self._turn % len(self._selected)]

    def _read(self, index: int) -> ImageFile:
        """Decode a frame, or take it from the last few that were."""
        if index not in self._cache:
            header = self.stack.entries[index].header
            self._cache[index] = read_image(header.path, header.page)
        self._cache.move_to_end(index)
        if len(self._cache) > _CACHED_FRAMES:
            self._cache.popitem(last=False)
        return self._cache[index]

    def _frame(self, index: int, image: ImageFile) -> Frame:
        entry = self.stack.entries[index]
        known_bar_px = entry.header.metadata.info_bar_px
        self._sequence += 1
        header = FrameHeader(
            sequence=self._sequence,
            monotonic_ns=self._clock.monotonic_ns(),
            wall_ns=self._clock.wall_ns(),
            detector=entry.header.metadata.detector or "unknown",
            scan=_scan(entry),
            optics=_optics(entry),
            stage=entry.header.metadata.stage,
            settings_rev=_SETTINGS_REV,
            info_bar_px=image.info_bar_px if known_bar_px is None else known_bar_px,
            source=entry.source,
        )
        return Frame(header, image.pixels.copy())


@dataclass(frozen=True, slots=True)
class _Setting:
    """What a stack can vary; a stigmator that is not known counts as 0."""

    working_distance_m: float
    stigmator_x: float
    stigmator_y: float

    @classmethod
    def of(cls, entry: StackEntry) -> "_Setting":
        return cls(entry.working_distance_m, entry.stigmator_x or 0.0, entry.stigmator_y or 0.0)


def _nearest(stack: Stack, target: _Setting, *, stigmator_first: bool = False) -> tuple[int, ...]:
    """Places of the frames recorded nearest to a setting.

    What was asked for comes first, the other quantity decides between equals. On a complete
    grid that makes no difference; elsewhere a request is met as well as it can be.
    """
    settings = [_Setting.of(entry) for entry in stack.entries]

    def distance(each: _Setting) -> tuple[float, float]:
        focus = abs(each.working_distance_m - target.working_distance_m)
        stigmator = math.hypot(
            each.stigmator_x - target.stigmator_x, each.stigmator_y - target.stigmator_y
        )
        return (stigmator, focus) if stigmator_first else (focus, stigmator)

    best = min(settings, key=distance)
    return tuple(index for index, each in enumerate(settings) if each == best)


def _check_recorded(name: str, unit: str, value: float, recorded: Sequence[float]) -> None:
    """Refuse a request that is more than half a step outside what was recorded.

    Raises:
        CommandRefusedError: it is, or it is not a number.
    """
    steps = sorted(set(recorded))
    low, high = steps[0], steps[-1]
    below = (steps[1] - low) / 2 if len(steps) > 1 else 0.0
    above = (high - steps[-2]) / 2 if len(steps) > 1 else 0.0
    rounding = 1e-9 * max(abs(low), abs(high))
    if low - below - rounding <= value <= high + above + rounding:
        return
    raise CommandRefusedError(
        f"{name} {value:g} {unit}".rstrip()
        + f" is outside what was recorded, {low:g} to {high:g} {unit}".rstrip()
        + "; at most half a step beyond it is allowed"
    )


def _scan(entry: StackEntry) -> Scan:
    header, metadata = entry.header, entry.header.metadata
    return Scan(
        width_px=header.width,
        height_px=header.height,
        bit_depth=16 if header.bit_depth == 16 else 8,
        pixel_size_m=metadata.pixel_size_m,
        dwell_s=metadata.dwell_s,
        frame_averages=metadata.frame_averages or 1,
    )


def _optics(entry: StackEntry) -> Optics:
    metadata = entry.header.metadata
    return Optics(
        working_distance_m=entry.working_distance_m,
        stigmator_x=entry.stigmator_x,
        stigmator_y=entry.stigmator_y,
        accelerating_voltage_v=metadata.accelerating_voltage_v,
        beam_current_a=metadata.beam_current_a,
        magnification=metadata.magnification,
    )
