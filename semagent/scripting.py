"""semagent inside a program of one's own: the same gate and record, asked for one thing at a time.

See ``docs/scripting.md``.
"""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from semagent import registry
from semagent.clock import Clock, SystemClock
from semagent.config import RunConfig, find_config, load_config
from semagent.control import forbids, not_begun
from semagent.control.ending import DISARMED
from semagent.errors import GateRefusedError
from semagent.health import unverified
from semagent.lockstep import Lockstep
from semagent.parts import open_beside
from semagent.places import Place
from semagent.ports import Microscope
from semagent.safety import STAGE_X, STAGE_Y, check_places
from semagent.safety.axes import WORKING_DISTANCE, Axis
from semagent.signals import handled
from semagent.survey import Pilot, for_survey, usual_approach_m
from semagent.types import (
    FocusResult,
    Frame,
    FrameAnalysis,
    FrameHeader,
    MicroscopeState,
    StartAutofocus,
)


class Seen(NamedTuple):
    """A frame, and what it shows.

    Attributes:
        frame: header and raw pixels.
        analysis: focus score, blur ellipse and noise; ``None`` if the frame is not fit for use.
        fault: why it is not; empty if it is.
    """

    frame: Frame
    analysis: FrameAnalysis | None
    fault: str


@contextmanager
def open_agent(
    config: str | Path | RunConfig,
    *,
    arm: bool = False,
    record: Path | None = None,
    microscope: Microscope | None = None,
) -> Iterator["Agent"]:
    """The agent for one microscope. Nothing is exposed and nothing moves unless it is asked to.

    Ctrl-C waits for the frame or the move in hand, has focus put back if it is being looked for,
    and is raised then; pressed twice it is raised at once. At the end the microscope is closed;
    stage and focus stay where they are.

    Args:
        config: a file, the name of a configuration that ships with semagent, or what
            `load_config` made of one.
        arm: let commands through the safety gate, in the name of the person who runs the program.
        record: folder of a new session that takes every raw frame and everything that is done.
        microscope: use this one, not the driver of the configuration; it is closed at the end.

    Warns:
        UserWarning: the driver was never run on its hardware.

    Raises:
        GateRefusedError: the gate cannot be armed where the microscope stands.
        SemagentError: the configuration, the microscope, the engine or the record is at fault.
    """
    if not isinstance(config, RunConfig):
        config = load_config(find_config(str(config)))
    config, clock = for_survey(config), SystemClock()
    if microscope is None:
        driver = config.driver
        microscope = registry.open_microscope(driver.name, driver.options, clock=clock)
    warning = unverified(microscope.capabilities)
    if warning is not None:
        warnings.warn(warning, stacklevel=3)
    engine, recorder = open_beside(microscope, config, record, clock)
    with Lockstep(config, microscope, engine, clock, recorder) as lockstep:
        yield Agent(lockstep, config, microscope, clock, arm=arm)


class Agent:
    """What a program may ask for; made by `open_agent`, for one thread.

    All moves pass the safety gate. Once it has closed, because somebody turned a knob for example,
    it stays closed, and everything that moves raises: a person has to look before the program is
    started again.
    """

    def __init__(
        self,
        lockstep: Lockstep,
        config: RunConfig,
        microscope: Microscope,
        clock: Clock,
        *,
        arm: bool,
    ) -> None:
        self._lockstep = lockstep
        self._config = config
        self._microscope = microscope
        self._pressed = False
        self._frames = lockstep.listen("frame")
        self._pilot = Pilot(
            lockstep,
            config,
            clock,
            approach_m=usual_approach_m(config),
            on_frame=self._at_frame,
        )
        if arm:
            self._pilot.arm()

    @property
    def state(self) -> MicroscopeState:
        """The settings of the microscope, read now.

        Raises:
            MicroscopeError: they cannot be read.
        """
        return self._microscope.read_state()

    def acquire(self) -> Seen:
        """Expose a frame: up to five, until one is fit for use.

        Raises:
            MicroscopeError: there are no frames.
        """
        with self._at_work():
            look = self._pilot.look()
        message = self._frames.take()
        assert message is not None  # noqa: S101 - the look was at this one
        return Seen(Frame(look.header, message.pixels), look.analysis, look.fault)

    def autofocus(self, *, max_frames: int | None = None, stigmation: bool = True) -> FocusResult:
        """Find focus here, as ``semagent autofocus`` does; focus goes back if it is not found.

        Args:
            max_frames: instead of the configuration's.
            stigmation: correct astigmatism too, where that can be done.

        Returns:
            How it ended: ask for `FocusResult.status`, or for `FocusResult.verified`.

        Raises:
            GateRefusedError: the gate is disarmed.
            MicroscopeError: there are no frames.
        """
        request = StartAutofocus(max_frames=max_frames, stigmation=stigmation)
        with self._at_work(moving=True):
            here = self.state
            unaffordable = forbids(here, self._config.control.autofocus.max_dose_e_nm2)
            if unaffordable:
                return not_begun(here.optics.working_distance_m, unaffordable)
            result, _ = self._pilot.focus(request)
        return result

    def move_stage(self, x_m: float, y_m: float) -> None:
        """Move the stage, always arriving from the same side.

        A working distance that the stage drags along is set again. A move rests on a frame that is
        not old, and takes one first where there is none.

        Raises:
            CommandRefusedError: the gate or the microscope refused a move. Outside the limits of
                the envelope nothing has moved; else a way of several legs may have begun.
            MicroscopeError: one failed.
        """
        self._require_inside({STAGE_X: x_m, STAGE_Y: y_m})
        with self._at_work(moving=True):
            self._pilot.go(Place(x_m, y_m), self.state.optics.working_distance_m)

    def set_working_distance(self, working_distance_m: float) -> None:
        """Set the working distance, arriving from below. See `move_stage` for frames and errors."""
        self._require_inside({WORKING_DISTANCE: working_distance_m})
        with self._at_work(moving=True):
            self._pilot.go(None, working_distance_m)

    def _require_inside(self, target: dict[Axis, float]) -> None:
        places = {axis: (there,) for axis, there in target.items()}
        refusal = check_places(self._config.safety, places)
        if refusal is not None:
            raise GateRefusedError(refusal.reason)

    @contextmanager
    def _at_work(self, *, moving: bool = False) -> Iterator[None]:
        """Raise Ctrl-C where things can be put back; no move is cut short by it.

        Raises:
            GateRefusedError: the gate is disarmed, and something is going to move.
        """
        self._lockstep.wake()
        gate = self._lockstep.gate
        if moving and not gate.armed:
            raise GateRefusedError(f"{DISARMED}: {gate.reason}")
        if threading.current_thread() is not threading.main_thread():
            yield  # no signal gets here
            return
        self._pressed = False
        with handled(self._press):
            yield
        if self._pressed:
            raise KeyboardInterrupt

    def _press(self, _number: int, _frame: FrameType | None) -> None:
        if self._pressed:
            raise KeyboardInterrupt
        self._pressed = True
        # Not in here: the handler interrupts code that may hold the lock this needs.
        threading.Thread(target=self._lockstep.acquire.end_exposure, daemon=True).start()

    def _at_frame(self, _header: FrameHeader) -> None:
        if self._pressed:
            raise KeyboardInterrupt
