"""The microscope port for a vendor's interface: everything that does not depend on the vendor."""

import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import MappingProxyType
from typing import Annotated, ClassVar, NamedTuple

import msgspec

from semagent.clock import Clock
from semagent.errors import (
    AcquisitionStoppedError,
    CommandRefusedError,
    DisconnectedError,
    MicroscopeError,
    NotReadyError,
    SemagentError,
)
from semagent.options import Options, Seconds
from semagent.types import (
    Capabilities,
    Frame,
    FrameFault,
    FrameHeader,
    MicroscopeAction,
    MicroscopeState,
    MoveStage,
    Optics,
    Pixels,
    Scan,
    SetBeamShift,
    SetBlanked,
    SetScan,
    SetStigmator,
    SetWorkingDistance,
    StagePosition,
)
from semagent_drivers.adapter.limits import (
    Limits,
    axis_in_words,
    in_words,
    require_region,
    require_within,
)
from semagent_drivers.adapter.settings import Revisions, Settings, same_beam
from semagent_drivers.adapter.waiting import Wait

Settling = Annotated[float, msgspec.Meta(ge=0, le=60)]
"""Seconds that are always waited, where the vendor gives no sign of having settled."""

Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]

_STIGMATOR_FLICKER = 2e-3


class AdapterOptions(Options, frozen=True, kw_only=True):
    """Options every adapter has.

    Attributes:
        call_timeout_s: longest time the vendor may take to answer one call.
        settle_timeout_s: longest time until focus, stigmators, beam or scan have settled.
        move_timeout_s: longest time a stage move may take.

    A pair whose name has ``_range_`` in it is a range: its lower end comes first.
    """

    call_timeout_s: Seconds = 5.0
    settle_timeout_s: Seconds = 10.0
    move_timeout_s: Seconds = 120.0

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            ends = getattr(self, name)
            if (
                "_range_" in name
                and isinstance(ends, tuple)
                and not -math.inf < ends[0] < ends[1] < math.inf
            ):
                raise ValueError(f"{name}: {ends} is not a finite range, lower end first")


class Readings(NamedTuple):
    """The settings as read from the instrument.

    ``rotation_rad`` is how far the scan is turned, ``None`` where the instrument does not say.
    """

    scan: Scan
    optics: Optics
    stage: StagePosition
    rotation_rad: float | None = None

    @property
    def settings(self) -> Settings:
        """What frames have to have in common to be compared."""
        return Settings.of(self.scan, self.optics, self.rotation_rad)


class Picture(NamedTuple):
    """One exposure: pixels of shape (height, width) that nobody else holds, and their detector.

    ``faults`` is for what the driver knows to be wrong with it, such as pixels that never came.
    ``scan`` is how it really was scanned, where only the picture tells.
    """

    pixels: Pixels
    detector: str
    info_bar_px: int = 0
    faults: tuple[FrameFault, ...] = ()
    scan: Scan | None = None


class Adapter(ABC):
    """A microscope over a vendor's interface; implements `semagent.ports.Microscope`.

    A subclass connects in its ``__init__`` or opener, and fills in the methods below that begin
    with an underscore: those marked abstract, and one setter for each capability. They speak SI
    units, may raise the vendor's exceptions, and are called one at a time, with values that are
    within ``limits``. Sequence numbers, stamps, revisions, refusals, deadlines, mapping of errors
    and the life of the link are dealt with here.

    Args:
        capabilities: see `Microscope`; it decides which setters can be called.
        limits: what the instrument takes.
        options: the time-outs.
        clock: for stamps and waits.
    """

    refusals: tuple[type[Exception], ...] = ()
    """Exceptions by which the vendor says no, with nothing changed."""

    failures: tuple[type[Exception], ...] = ()
    """Exceptions by which the vendor says that something failed."""

    losses: ClassVar[tuple[type[Exception], ...]] = (OSError, EOFError)
    """Exceptions that mean that the link is gone."""

    settings_tolerance: ClassVar[float] = 0.01
    """Relative change of a measured setting that is still the same setting: voltages flicker."""

    focus_flicker_m: float = 0.2e-6
    """Change of the working distance, while a frame is exposed, that nobody has made."""

    stage_skip: Mapping[str, float] = MappingProxyType({})
    """Moves of an axis that are not worth the anti-backlash motion they would start."""

    def __init__(
        self, capabilities: Capabilities, limits: Limits, options: AdapterOptions, clock: Clock
    ) -> None:
        self._capabilities = capabilities
        self.limits = limits
        self._options = options
        self._clock = clock
        self._stopped = threading.Event()
        self._lock = threading.RLock()
        self._closed = False
        self._lost: str | None = None
        self._sequence = 0
        self._stamp_ns = 0
        self._revisions = Revisions(self.settings_tolerance)

    # -- what a subclass fills in -------------------------------------------------------------

    @abstractmethod
    def _read(self) -> Readings:
        """Read everything back from the instrument, never from memory."""

    @abstractmethod
    def _expose(self, readings: Readings, wait: Wait) -> Picture:
        """Expose one frame with the settings just read, the beam not blanked.

        Puts back what it changes for that.
        """

    @abstractmethod
    def _disconnect(self) -> None:
        """Let go of the instrument, leaving it as it is."""

    def _abort(self) -> None:  # noqa: B027 - many vendors offer no way to
        """End an exposure or a move. Called from another thread, and perhaps while idle."""

    def _set_working_distance(self, distance_m: float, wait: Wait) -> None:
        """Focus, and return when settled."""
        raise NotImplementedError

    def _set_stigmator(self, x: float, y: float, wait: Wait) -> None:
        """Set both stigmators (fractions of the full range), and return when settled."""
        raise NotImplementedError

    def _set_beam_shift(self, x_m: float, y_m: float, wait: Wait) -> None:
        """Shift the beam, and return when settled."""
        raise NotImplementedError

    def _move_stage(self, moves: dict[str, float], here: StagePosition, wait: Wait) -> None:
        """Move the axes named in ``moves`` and no other, and return when they have arrived.

        ``here`` is where the stage is, for vendors whose call takes all axes at once.
        """
        raise NotImplementedError

    def _set_blanked(self, blanked: bool, wait: Wait) -> None:
        """Keep the beam off the specimen or let it on, and make sure of it."""
        raise NotImplementedError

    def _set_scan(self, change: SetScan, wait: Wait) -> None:
        """Change the fields of the scan that are not ``None``."""
        raise NotImplementedError

    # -- the port -----------------------------------------------------------------------------

    @property
    def capabilities(self) -> Capabilities:
        """See `semagent.ports.Microscope`."""
        return self._capabilities

    def read_state(self) -> MicroscopeState:
        """See `semagent.ports.Microscope`."""
        with self.edge("read its settings"):
            readings = self._read()
        return self._state(readings)

    def acquire(self, timeout_s: float) -> Frame:
        """See `semagent.ports.Microscope`."""
        with self.edge("expose a frame"):
            self._stopped.clear()
            wait = Wait(self._clock, timeout_s, self._stopped)
            wait.check("frame")
            readings = self._read()
            wait.check("frame")
            if readings.optics.blanked:
                # Some systems would expose the specimen all the same.
                raise NotReadyError("the beam is blanked: unblank it before a frame is taken")
            picture = self._expose(readings, wait)
            wait.check("frame")
            # Two frames within one tick of the clock still have an order.
            self._stamp_ns = max(self._clock.monotonic_ns(), self._stamp_ns + 1)
            wall_ns = self._clock.wall_ns()
            readings = readings._replace(scan=picture.scan or readings.scan)
            held = self._held(readings, self._read())
        self._sequence += 1
        state = self._state(readings, picture.detector)
        header = FrameHeader(
            sequence=self._sequence,
            monotonic_ns=self._stamp_ns,
            wall_ns=wall_ns,
            detector=picture.detector,
            scan=state.scan,
            optics=state.optics,
            stage=state.stage,
            settings_rev=state.settings_rev,
            info_bar_px=picture.info_bar_px,
            faults=picture.faults if held else (*picture.faults, FrameFault.CHANGED),
        )
        return Frame(header, picture.pixels)

    def apply(self, action: MicroscopeAction) -> None:
        """See `semagent.ports.Microscope`."""
        with self.edge(_verb(action), changes=True):
            self._stopped.clear()
            settle = Wait(self._clock, self._options.settle_timeout_s, self._stopped)
            match action:
                case SetWorkingDistance(working_distance_m=distance_m):
                    require_within(
                        "working distance", distance_m, self.limits.working_distance_m, "m"
                    )
                    self._set_working_distance(distance_m, settle)
                case SetStigmator(x=x, y=y):
                    self._require(self._capabilities.stigmator, "stigmators cannot be set")
                    require_within("stigmator x", x, (-1.0, 1.0), "of full range")
                    require_within("stigmator y", y, (-1.0, 1.0), "of full range")
                    self._set_stigmator(x, y, settle)
                case SetBeamShift(x_m=x_m, y_m=y_m):
                    self._require(self._capabilities.beam_shift, "the beam shift cannot be set")
                    require_within("beam shift x", x_m, self.limits.beam_shift_m, "m")
                    require_within("beam shift y", y_m, self.limits.beam_shift_m, "m")
                    self._set_beam_shift(x_m, y_m, settle)
                case SetBlanked(blanked=blanked):
                    self._require(self._capabilities.blanker, "the beam cannot be blanked")
                    self._set_blanked(blanked, settle)
                case SetScan():
                    self._check_scan(action)
                    self._set_scan(action, settle)
                case MoveStage():
                    self._check_and_move(action)

    def stop(self) -> None:
        """See `semagent.ports.Microscope`."""
        self._stopped.set()
        if not self._closed and self._lost is None:
            try:
                self._abort()
            except self._foreign as error:
                raise MicroscopeError(f"{self._name} could not be stopped: {error}") from error

    def close(self) -> None:
        """See `semagent.ports.Microscope`."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._stopped.set()
            # It was to be let go, and it is: nothing depends on an error any more.
            with suppress(MicroscopeError, *self._foreign):
                self._disconnect()

    # -- for subclasses -----------------------------------------------------------------------

    @contextmanager
    def edge(self, verb: str, *, changes: bool = False) -> Iterator[None]:
        """One operation on the link: nobody else's meanwhile, and no error of the vendor leaves.

        Args:
            verb: what is being done, for messages: "read its settings".
            changes: a refusal of the vendor means that nothing has changed.

        Raises:
            CommandRefusedError: the vendor refused a change.
            DisconnectedError: the link is gone, now or since before.
            MicroscopeError: the vendor failed.
        """
        with self._lock:
            if self._closed:
                raise DisconnectedError(f"{self._name} was closed; open it again")
            if self._lost is not None:
                raise DisconnectedError(f"{self._name}: {self._lost}; open it again")
            try:
                yield
            except DisconnectedError as error:
                self._lost = str(error)
                raise
            except SemagentError:
                raise
            except self.refusals as error:
                kind = CommandRefusedError if changes else MicroscopeError
                raise kind(f"{self._name} refused to {verb}: {error}") from error
            except self.failures as error:
                raise MicroscopeError(f"{self._name} failed to {verb}: {error}") from error
            except self.losses as error:
                self._lost = f"the link is gone: {str(error) or type(error).__name__}"
                raise DisconnectedError(f"{self._name}: {self._lost}") from error

    def require_beam(self, on: bool, says: str) -> None:
        """Before a frame; ``says`` is how the vendor puts it.

        Raises:
            NotReadyError: the beam is not on.
        """
        if not on:
            raise NotReadyError(
                f"{self._name}: the beam is not on ({says}); switch it on at the microscope"
            )

    def arrived(self, what: str, asked: float, reads: float, tolerance: float, unit: str) -> None:
        """Compare a read-back with what was asked for.

        Raises:
            MicroscopeError: they differ by more than ``tolerance``.
        """
        if not abs(reads - asked) <= tolerance:
            said, read = in_words(unit, asked, reads)
            raise MicroscopeError(
                f"{self._name} accepted {what} {said} but reads back {read}; look at the microscope"
            )

    def stage_arrived(
        self, moves: Mapping[str, float], there: StagePosition, tolerance: Mapping[str, float]
    ) -> None:
        """Compare the axes named in ``moves`` with what was asked for.

        A rotation that differs by whole turns is the same.

        Args:
            moves: where they were sent.
            there: where they are; an axis that is not reported has not arrived.
            tolerance: how far off each may be, in its SI unit.

        Raises:
            MicroscopeError: one is farther off than that.
        """
        for axis, asked in moves.items():
            name, unit = axis_in_words(axis)
            off = _off(axis, asked, there)
            self.arrived(name, asked, asked + off, tolerance[axis], unit)

    def stage_arrives(
        self,
        moves: Mapping[str, float],
        position: Callable[[], StagePosition],
        tolerance: Mapping[str, float],
        wait: Wait,
        *,
        moving: Callable[[], bool],
        patience_s: float,
    ) -> None:
        """Wait until the axes named in ``moves`` rest where they were sent; see `stage_arrived`.

        Args:
            moves: where they were sent.
            position: where they are.
            tolerance: how far off each may be, in its SI unit.
            wait: the longest time a move may take.
            moving: whether the stage says that it moves.
            patience_s: the longest rest before a move or on its way; see `await_rest`.

        Raises:
            AcquisitionStoppedError: ``stop`` was called.
            MicroscopeTimeoutError: the stage does not come to rest.
            MicroscopeError: it rests elsewhere.
        """

        def there() -> bool:
            now = position()
            return all(abs(_off(each, to, now)) <= tolerance[each] for each, to in moves.items())

        self.await_rest(there, "end of the move", wait, moving=moving, patience_s=patience_s)
        self.stage_arrived(moves, position(), tolerance)

    def await_rest(
        self,
        there: Callable[[], bool],
        what: str,
        wait: Wait,
        *,
        moving: Callable[[], bool],
        patience_s: float,
    ) -> None:
        """Wait until something that was moved rests where it was sent, or elsewhere for long.

        What has not begun to move yet rests too, some things pause on their way, and of some it is
        told late where they are: so only a rest of ``patience_s`` seconds elsewhere is the end.

        Args:
            there: whether it is where it was sent.
            what: is waited for, for messages.
            wait: the longest time it may take.
            moving: whether it moves, as it says itself.
            patience_s: see above.

        Raises:
            AcquisitionStoppedError: ``stop`` was called.
            MicroscopeTimeoutError: it does not come to rest.
        """
        rest = Wait(self._clock, patience_s, wait.stopped)

        def rests() -> bool:
            nonlocal rest
            if moving():
                rest = Wait(self._clock, patience_s, wait.stopped)
                return False
            return there() or not rest.left_s

        wait.until(rests, what, every_s=0.02)

    @contextmanager
    def halting(self, halt: Callable[[], object]) -> Iterator[None]:
        """A move of the block: halted if it is stopped, late or fails, not if it is refused.

        What goes wrong in ``halt`` is not told: the error of the move is.
        """
        wrong: tuple[type[Exception], ...] = (MicroscopeError, *self.failures)
        try:
            yield
        except wrong:
            with suppress(MicroscopeError, *self._foreign):
                halt()
            raise

    def obeyed(self, blanked: bool, reads: bool) -> None:
        """Compare the read-back of the blanker with what was asked for.

        Raises:
            MicroscopeError: they differ.
        """
        if reads != blanked:
            raise MicroscopeError(
                f"{self._name} accepted to {'blank' if blanked else 'unblank'} the beam, but it is "
                "not; look at the microscope"
            )

    # -- within -------------------------------------------------------------------------------

    @property
    def _name(self) -> str:
        return self._capabilities.microscope

    @property
    def _foreign(self) -> tuple[type[Exception], ...]:
        return self.losses + self.failures + self.refusals

    def _require(self, able: bool, otherwise: str) -> None:
        if not able:
            raise CommandRefusedError(f"{self._name}: {otherwise} through this interface")

    def _check_scan(self, change: SetScan) -> None:
        self._require(self._capabilities.scan_control, "the scan cannot be set")
        limits = self.limits
        if change.dwell_s is not None:
            self._require(limits.dwell_s is not None, "the dwell cannot be set")
            require_within("dwell", change.dwell_s, limits.dwell_s or (0.0, 0.0), "s")
        if change.frame_averages is not None:
            most = (1, limits.frame_averages)
            require_within("frame averages", change.frame_averages, most, "scans")
        if change.region is not None:
            self._require(limits.smallest_region is not None, "a region cannot be scanned")
            require_region(change.region, limits.smallest_region or 1.0)

    def _check_and_move(self, action: MoveStage) -> None:
        named: dict[str, float | None] = msgspec.structs.asdict(action)
        moves = {axis: value for axis, value in named.items() if value is not None}
        for axis, value in moves.items():
            self._require(
                axis in self._capabilities.stage_axes, f"the stage axis {axis} cannot be moved"
            )
            name, unit = axis_in_words(axis)
            require_within(name, value, self.limits.stage[axis], unit)
        here = self._read().stage
        for axis in tuple(moves):
            now = getattr(here, axis)
            if now is not None and abs(moves[axis] - now) <= self.stage_skip.get(axis, 0.0):
                del moves[axis]
        if moves:
            wait = Wait(self._clock, self._options.move_timeout_s, self._stopped)
            try:
                self._move_stage(moves, here, wait)
            except AcquisitionStoppedError as error:
                raise MicroscopeError(
                    f"{error}: the stage was stopped on its way; read back where it is"
                ) from error

    def _state(self, readings: Readings, detector: str | None = None) -> MicroscopeState:
        return MicroscopeState(
            scan=readings.scan,
            optics=readings.optics,
            stage=readings.stage,
            settings_rev=self._revisions.count(readings.settings, detector),
        )

    def _held(self, then: Readings, now: Readings) -> bool:
        """Whether nobody has changed, in between, what a frame is judged by."""
        return then.settings.same(now.settings, self.settings_tolerance) and same_beam(
            then.optics,
            now.optics,
            focus_m=self.focus_flicker_m,
            stigmator=_STIGMATOR_FLICKER,
        )


def _off(axis: str, asked: float, there: StagePosition) -> float:
    """How far an axis is from where it was sent; NaN if it is not reported."""
    reads: float | None = getattr(there, axis)
    off = math.nan if reads is None else reads - asked
    return math.remainder(off, 2 * math.pi) if axis == "rotation_rad" else off


def _verb(action: MicroscopeAction) -> str:
    fields = {
        name: value for name, value in msgspec.structs.asdict(action).items() if value is not None
    }
    shown = ", ".join(f"{name} {value}" for name, value in fields.items())
    return f"{str(type(action).__struct_config__.tag).replace('_', ' ')} ({shown})"
