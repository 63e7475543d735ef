"""The procedure: which knobs are turned, in which order, and what is concluded."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from typing import Annotated

import msgspec
import numpy as np

from semagent.calibration.blur import MOST_RESIDUAL, BlurFit, fit_blur
from semagent.calibration.hands import Hands
from semagent.calibration.shifts import Effect, Floats, ShiftFit, Shot, fit_shifts
from semagent.config import RunConfig
from semagent.control.intervention import require_same_settings
from semagent.control.stigmation import TELLING
from semagent.errors import GateRefusedError, SemagentError
from semagent.legs import and_back, legs, pair_legs, put_back
from semagent.lengths import show_distances, show_length
from semagent.memory import Calibration, Matrix, Measure, Settings, Vector, date_of
from semagent.options import Options, Positive
from semagent.registrar import Registrar
from semagent.safety import AXES, check_places
from semagent.signature import quadratic_of, signature_of
from semagent.spectrum import measure_spectrum
from semagent.types import (
    Capabilities,
    Frame,
    FrameHeader,
    MicroscopeState,
    MoveStage,
    SetBeamShift,
    SetStigmator,
    SetWorkingDistance,
    Signature,
)

_APPROACH = 4.0  # half depths of field below a target that it is approached from
_AROUND = ((1, 0), (0, 1), (-1, 0), (0, -1))  # in this order no axis moves two steps at once
_STIGMATOR_STEPS, _BEAM_STEPS, _STAGE_STEPS = 8, 4, 12  # that an axis moves in all, at most
_ROUNDING = 1e-9
_MOST_SIGMA = 0.05  # of what beam shift or stage do: less certain is not kept
_MOST_STIGMATOR_SIGMA = 1 / TELLING  # of what the stigmators do: no search acts on less
_JUMPED = "the specimen jumped; let it come to rest and calibrate again"
_UNTOLD = "the field does not tell; calibrate again with more light or structure in all directions"
_JUMP = 8.0  # standard deviations of a jump of focus; without one there are up to 6
_AHEAD = 5.0  # standard deviations by which no play of a lens is negative
_CERTAIN = 1.0  # half depths of field: focus has to be known this well


class CalibrationOptions(Options, frozen=True, kw_only=True):
    """How far each knob is turned; all but focus less where ``max_travel`` does not suffice.

    Attributes:
        focus_half_depths: largest defocus either way, in half depths of field.
        focus_steps: places of the focus sweep, each visited in both directions.
        stigmator_step: change of each stigmator either way, as a fraction of its range.
        beam_shift_fraction: beam shift either way, as a fraction of the width of the field.
        stage_fraction: the same of stage moves.
    """

    focus_half_depths: Positive = 10.0
    focus_steps: Annotated[int, msgspec.Meta(ge=7, le=41)] = 11
    stigmator_step: Positive = 0.15
    beam_shift_fraction: Positive = 0.08
    stage_fraction: Positive = 0.05


class Stage(StrEnum):
    """What is being measured."""

    FOCUS = "focus"
    STIGMATORS = "stigmators"
    BEAM_SHIFT = "beam shift"
    STAGE = "stage"


@dataclass(frozen=True, slots=True)
class Taken:
    """A frame with all that is kept of it."""

    shot: Shot
    signature: Signature
    quadratic: Floats


class NotCalibratedError(SemagentError):
    """The frames do not say what was to be measured; the message says what to do."""


def calibrate(
    hands: Hands,
    config: RunConfig,
    capabilities: Capabilities,
    options: CalibrationOptions,
    progress: Callable[[Stage, FrameHeader], None] = lambda _stage, _header: None,
    left_out: Callable[[str], None] = lambda _why: None,
) -> tuple[Settings, Calibration]:
    """Measure the instrument from where it stands now, and put everything back.

    What the instrument cannot do, or the envelope does not allow at all, is left out. What it
    does not allow far enough is refused after the first frame, which says how far that is. The
    gate has to be armed.

    Args:
        hands: on the microscope.
        config: its configuration.
        capabilities: of the microscope.
        options: how far the knobs are turned.
        progress: told of every frame; may raise to end the procedure.
        left_out: told in a sentence what was measured and is not certain enough to be kept.

    Raises:
        NotCalibratedError: focus is not within the sweep, or there is nothing to see.
        CommandRefusedError: the envelope has too little room, or the gate or the microscope
            refused a move.
        MicroscopeError: it failed.
    """
    first = hands.expose()
    work = _Work(hands, config, first, options, progress)
    stigmators = capabilities.stigmator and work.allows("stigmator")
    beam_shift = capabilities.beam_shift and work.allows("beam_shift_m")
    stage = {"x_m", "y_m"} <= set(capabilities.stage_axes) and work.allows("stage_x_m", "stage_y_m")
    work.require_room(stigmators=stigmators, beam_shift=beam_shift, stage=stage)
    with and_back(work.put_back, check="working distance, stigmators, beam shift and stage"):
        work.focus()
        if stigmators:
            work.stigmators()
        if beam_shift:
            work.beam_shift()
        if stage:
            work.stage()
    return Settings.of(first.header), work.conclude(left_out)


class _Work:
    """One calibration that is going on."""

    def __init__(
        self,
        hands: Hands,
        config: RunConfig,
        first: Frame,
        options: CalibrationOptions,
        progress: Callable[[Stage, FrameHeader], None],
    ) -> None:
        self._hands = hands
        self._safety = config.safety
        self._options = options
        self._progress = progress
        self._first = first.header
        self._home: MicroscopeState = first.header.settings
        header, scan = config.remembered.with_angle(first.header), first.header.scan
        self._unit_m = config.control.scale.half_depth_of(header)
        # Without a pixel size the half depth of field stands for it, as everywhere.
        angle_rad = header.optics.convergence_angle_rad
        angle_rad = angle_rad or config.control.scale.assumed_convergence_angle_rad
        self._pixel_m = scan.pixel_size_m or self._unit_m * angle_rad
        self._field_m = self._pixel_m * scan.width_px
        self._registrar = Registrar()
        self._registrar.register(first)
        beam_m, stage_m = (
            fraction * self._field_m
            for fraction in (options.beam_shift_fraction, options.stage_fraction)
        )
        self._focus_reach_m = options.focus_half_depths * self._unit_m
        self._stigmator_step = self._affordable(
            options.stigmator_step, _STIGMATOR_STEPS, "stigmator"
        )
        self._beam_step_m = self._affordable(beam_m, _BEAM_STEPS, "beam_shift_m")
        self._stage_step_m = self._affordable(stage_m, _STAGE_STEPS, "stage_x_m", "stage_y_m")
        self._directions: dict[str, int] = {}
        optics = self._home.optics
        self._at = {"focus": optics.working_distance_m}
        self._turned_m = optics.working_distance_m
        self._stigmators_home = optics.stigmator_x or 0.0, optics.stigmator_y or 0.0
        self._stigmators_at = self._stigmators_home
        self._beam_home_m = optics.beam_shift_x_m or 0.0, optics.beam_shift_y_m or 0.0
        self._beam_at_m = self._beam_home_m
        self._taken: list[Taken] = []
        self._focus_m = math.nan
        self._begun: set[Stage] = set()

    def allows(self, *keys: str) -> bool:
        """Whether these settings may be changed, and read back, so that they can be put back."""
        return all(
            self._safety.limits(axis.key) is not None and axis.read(self._home) is not None
            for axis in AXES
            if axis.key in keys
        )

    def require_room(self, *, stigmators: bool, beam_shift: bool, stage: bool) -> None:
        """Find out before anything moves whether the envelope reaches as far as is needed.

        Raises:
            GateRefusedError: it does not.
        """
        sweep_m = self._focus_reach_m
        room = {"working_distance_m": (-sweep_m - _APPROACH * self._unit_m, sweep_m)}
        if stigmators:
            room["stigmator"] = -self._stigmator_step, self._stigmator_step
        if beam_shift:
            room["beam_shift_m"] = -self._beam_step_m, self._beam_step_m
        if stage:
            room["stage_x_m"] = room["stage_y_m"] = -2 * self._stage_step_m, 2 * self._stage_step_m
        here = {axis: axis.read(self._home) for axis in AXES}
        places = {
            axis: [start + way for way in room[axis.key]]
            for axis, start in here.items()
            if start is not None and axis.key in room
        }
        refusal = check_places(self._safety, places)
        if refusal is not None:
            raise GateRefusedError(
                f"nothing was moved: the calibration goes too far. {refusal.reason}"
            )

    def _affordable(self, step: float, count: int, *keys: str) -> float:
        """The step, or less of it where ``max_travel`` does not suffice for ``count`` of them."""
        limits = [self._safety.limits(key) for key in keys]
        travel = min((each.max_travel for each in limits if each is not None), default=math.inf)
        return min(step, (1 - _ROUNDING) * travel / count)

    # -- what is done ---------------------------------------------------------------------------

    def focus(self) -> None:
        """Sweep focus up and down around the start, then find it."""
        start_m = self._home.optics.working_distance_m
        count = self._options.focus_steps
        places = [
            start_m + self._focus_reach_m * (2 * step / (count - 1) - 1) for step in range(count)
        ]
        self._focus_to(places[0] - _APPROACH * self._unit_m)
        for place_m in (*places, *reversed(places[:-1])):
            self._focus_to(place_m)
            self._take(Stage.FOCUS)
        fit = self._fit_blur()
        focus_m, sigma_m = fit.focus_m
        if not sigma_m < _CERTAIN * self._unit_m or not places[0] < focus_m < places[-1]:
            between = show_distances(places[0], places[-1], between="and")
            raise NotCalibratedError(
                f"no focus between {between}: focus on a field with structure first, then calibrate"
            )
        _require_beam(fit)
        self._focus_m = focus_m

    def stigmators(self) -> None:
        """Turn each stigmator either way, on both sides of focus."""
        self._begun.add(Stage.STIGMATORS)
        (x, y), step = self._stigmators_home, self._stigmator_step
        for side in (-1, 1):
            self._focus_from_below(self._focus_m + side * 0.6 * self._focus_reach_m)
            for dx, dy in _AROUND:
                self._stigmators_to((x + dx * step, y + dy * step))
                self._take(Stage.STIGMATORS)
            self._stigmators_to((x, y))
        self._focus_from_below(self._focus_m)

    def beam_shift(self) -> None:
        """Shift the beam either way."""
        self._begun.add(Stage.BEAM_SHIFT)
        (x_m, y_m), step_m = self._beam_home_m, self._beam_step_m
        for dx, dy in ((0, 0), *_AROUND):
            self._beam_to((x_m + dx * step_m, y_m + dy * step_m))
            self._take(Stage.BEAM_SHIFT)
        self._beam_to((x_m, y_m))

    def stage(self) -> None:
        """Move the stage along x and y, in both directions, turning round outside."""
        step_m = self._stage_step_m
        for axis in ("x_m", "y_m"):
            start_m: float = getattr(self._home.stage, axis)
            for step in (-2, -1, 0, 1, 2, 1, 0, -1):
                self._stage_to(axis, start_m + step * step_m)
                if abs(step) < 2:
                    self._take(Stage.STAGE)
            self._stage_to(axis, start_m - 2 * step_m)
            self._stage_to(axis, start_m)

    def put_back(self) -> None:
        """Restore what was changed, each from the side that leaves no play where it can be.

        Raises:
            MicroscopeError: what could not be restored; the others were tried too.
        """
        put_back(
            self._focus_back,
            self._stigmators_back,
            self._beam_back,
            partial(self._stage_back, "x_m"),
            partial(self._stage_back, "y_m"),
        )

    def _focus_back(self, straight: bool) -> None:
        home_m = self._home.optics.working_distance_m
        if straight:
            self._focus_to(home_m)
        elif self._directions.get("focus"):
            self._focus_from_below(home_m)

    def _stigmators_back(self, _straight: bool) -> None:
        if Stage.STIGMATORS in self._begun:
            self._stigmators_to(self._stigmators_home)

    def _beam_back(self, _straight: bool) -> None:
        if Stage.BEAM_SHIFT in self._begun:
            self._beam_to(self._beam_home_m)

    def _stage_back(self, axis: str, straight: bool) -> None:
        home_m: float = getattr(self._home.stage, axis) or 0.0
        if axis in self._at and self._at[axis] != home_m:
            if not straight:
                self._stage_to(axis, home_m - 2 * self._stage_step_m)
            self._stage_to(axis, home_m)

    # -- what follows ---------------------------------------------------------------------------

    def conclude(self, left_out: Callable[[str], None]) -> Calibration:
        """All fits, from all frames.

        Raises:
            NotCalibratedError: something changed meanwhile that the fit does not know of.
        """
        blur = self._fit_blur()
        _require_beam(blur)
        _require_no_jump(blur, self._unit_m)
        shots = [self._without_play(taken.shot, blur) for taken in self._taken]
        shifts = fit_shifts(shots, self._pixel_m)
        calibration = Calibration(
            date=date_of(self._first.wall_ns),
            frames=self._hands.frames,
            blur_per_focus=_scaled(blur.slope_px_per_m, self._pixel_m),
            focus_hysteresis_m=Measure(
                value=max(0.0, blur.hysteresis_m[0]), sigma=blur.hysteresis_m[1]
            ),
            residual_blur=blur.residual,
        )
        if math.isfinite(blur.per_stigmator_sigma_m):
            (xx, xy), (yx, yy) = blur.per_stigmator_m
            x, y = blur.focus_per_stigmator_m
            calibration = msgspec.structs.replace(
                calibration,
                astigmatism_per_stigmator=Matrix(
                    xx=xx, xy=xy, yx=yx, yy=yy, sigma=blur.per_stigmator_sigma_m
                ),
                focus_per_stigmator=Vector(x=x, y=y, sigma=blur.focus_per_stigmator_sigma_m),
            )
        if shifts is not None:
            calibration = _with_shifts(calibration, shifts)
        return _certain(calibration, left_out)

    def _fit_blur(self) -> BlurFit:
        # The stage moves far across the specimen: what differs there is specimen, not beam.
        frames = [
            taken
            for taken in self._taken
            if not {"stage_x", "stage_y"} & set(taken.shot.directions)
        ]
        return fit_blur(
            [taken.shot for taken in frames],
            [taken.signature for taken in frames],
            unit_m=self._unit_m,
            quadratics=[taken.quadratic for taken in frames],
        )

    @staticmethod
    def _without_play(shot: Shot, blur: BlurFit) -> Shot:
        """The shot at the true focus, so that the play is not fitted twice."""
        optics = shot.header.optics
        true_m = optics.working_distance_m - shot.lag_m(max(0.0, blur.hysteresis_m[0]))
        header = msgspec.structs.replace(
            shot.header, optics=msgspec.structs.replace(optics, working_distance_m=true_m)
        )
        directions = {name: way for name, way in shot.directions.items() if name != "focus"}
        return replace(shot, header=header, directions=directions)

    # -- moves ----------------------------------------------------------------------------------

    def _take(self, stage: Stage) -> None:
        frame = self._hands.expose()
        require_same_settings(self._first, frame.header)
        run_m = abs(self._at["focus"] - self._turned_m)
        shot = Shot(frame.header, self._registrar.register(frame), dict(self._directions), run_m)
        spectrum = measure_spectrum(frame.specimen)
        self._taken.append(Taken(shot, signature_of(spectrum), quadratic_of(spectrum)))
        self._progress(stage, frame.header)

    def _focus_to(self, place_m: float) -> None:
        before_m = self._at["focus"]
        way = 1 if place_m > before_m else -1
        step_m = self._safety.longest_step("working_distance_m")
        for leg_m in legs(before_m, place_m, max_step=step_m):
            self._hands.do(SetWorkingDistance(working_distance_m=leg_m))
            self._at["focus"] = leg_m
            if self._directions.get("focus") != way:
                self._directions["focus"], self._turned_m = way, before_m

    def _focus_from_below(self, place_m: float) -> None:
        self._focus_to(place_m - _APPROACH * self._unit_m)
        self._focus_to(place_m)

    def _stigmators_to(self, target: tuple[float, float]) -> None:
        step = self._safety.longest_step("stigmator")
        for x, y in pair_legs(self._stigmators_at, target, step):
            self._hands.do(SetStigmator(x=x, y=y))
            self._stigmators_at = x, y

    def _beam_to(self, target_m: tuple[float, float]) -> None:
        step_m = self._safety.longest_step("beam_shift_m")
        for x_m, y_m in pair_legs(self._beam_at_m, target_m, step_m):
            self._hands.do(SetBeamShift(x_m=x_m, y_m=y_m))
            self._beam_at_m = x_m, y_m

    def _stage_to(self, axis: str, place_m: float) -> None:
        before_m = self._at.get(axis, getattr(self._home.stage, axis))
        step_m = self._safety.longest_step(f"stage_{axis}")
        for leg_m in legs(before_m, place_m, max_step=step_m):
            self._hands.do(MoveStage(**{axis: leg_m}))
            self._at[axis] = leg_m
            self._directions[f"stage_{axis[0]}"] = 1 if place_m > before_m else -1


def _require_beam(fit: BlurFit) -> None:
    if not fit.residual < MOST_RESIDUAL:
        raise NotCalibratedError(
            "blur does not change with working distance and stigmators as that of a beam does: "
            f"the fit leaves {fit.residual:.2g} of the logarithm of the power, and may leave "
            f"{MOST_RESIDUAL:g}; let the microscope come to rest and calibrate again, on another "
            "field, with enough light for some noise"
        )
    play_m, sigma_m = fit.hysteresis_m
    if play_m < -_AHEAD * sigma_m:
        raise NotCalibratedError(
            f"focus is {show_length(-play_m)} ahead of the working distance that is set, where a "
            "lens lags behind: it or the specimen moved meanwhile; let the microscope come to rest "
            "and calibrate again"
        )


def _require_no_jump(fit: BlurFit, unit_m: float) -> None:
    jump_m, sigma_m = fit.jump_m
    if abs(jump_m) > max(_JUMP * sigma_m, unit_m):
        raise NotCalibratedError(
            f"between two frames focus jumped, by about {show_length(abs(jump_m))}: the lens or "
            "the specimen moved; let the microscope come to rest and calibrate again"
        )


def _scaled(measured: tuple[float, float], factor: float) -> Measure:
    return Measure(value=measured[0] * factor, sigma=measured[1] * factor)


def _with_shifts(calibration: Calibration, fit: ShiftFit) -> Calibration:
    effects, changes = fit.effects, {"residual_shift_m": fit.residual_m}
    found: dict[str, Vector | Matrix | Measure] = {}
    if "focus" in effects:
        focus = effects["focus"]
        found["image_shift_per_focus"] = Vector(x=focus.x, y=focus.y, sigma=focus.sigma)
    for field, cause in (
        ("image_shift_per_stigmator", "stigmator"),
        ("image_shift_per_beam_shift", "beam"),
        ("image_shift_per_stage", "stage"),
    ):
        if {f"{cause}_x", f"{cause}_y"} <= set(effects):
            found[field] = _matrix(effects[f"{cause}_x"], effects[f"{cause}_y"])
    plays = [
        _play(fit.jumps[axis], effects[axis])
        for axis in ("stage_x", "stage_y")
        if axis in fit.jumps and axis in effects
    ]
    if plays:
        found["stage_backlash_m"] = max(plays, key=lambda play: play.value)
    return msgspec.structs.replace(calibration, **changes, **found)


def _certain(calibration: Calibration, left_out: Callable[[str], None]) -> Calibration:
    """The calibration without what corrections would have to divide by, and cannot.

    A knob that does nothing, a specimen that jumped on the way, or one that does not show all
    directions, gives numbers too.
    """
    for field, with_it, most, why in (
        ("astigmatism_per_stigmator", "focus_per_stigmator", _MOST_STIGMATOR_SIGMA, _UNTOLD),
        ("image_shift_per_beam_shift", None, _MOST_SIGMA, _JUMPED),
        ("image_shift_per_stage", "stage_backlash_m", _MOST_SIGMA, _JUMPED),
    ):
        matrix: Matrix | None = getattr(calibration, field)
        if matrix is None or matrix.sigma <= most * _weakest(matrix):
            continue
        gone = dict.fromkeys(filter(None, (field, with_it)))
        calibration = msgspec.structs.replace(calibration, **gone)
        left_out(
            f"{field} is not kept, its uncertainty is {matrix.sigma:.2g} and may be "
            f"{most * _weakest(matrix):.2g}: either the knob does nothing, or {why}"
        )
    return calibration


def _weakest(matrix: Matrix) -> float:
    """The least displacement per unit of the causes, in whatever direction."""
    return float(np.linalg.norm([[matrix.xx, matrix.xy], [matrix.yx, matrix.yy]], -2))


def _matrix(x: Effect, y: Effect) -> Matrix:
    return Matrix(xx=x.x, xy=y.x, yx=x.y, yy=y.y, sigma=max(x.sigma, y.sigma))


def _play(jump: Effect, per_metre: Effect) -> Measure:
    """The full play of an axis: half of it, against the last move, displaces the image."""
    size2 = per_metre.x**2 + per_metre.y**2
    along = -(jump.x * per_metre.x + jump.y * per_metre.y) / size2
    return Measure(value=max(0.0, 2 * along), sigma=2 * jump.sigma / math.sqrt(size2))
