"""The microscope of a trial: the driver ``simulated``, with everything that moves switched on."""

import math
import time
from typing import Any

import numpy as np
import numpy.typing as npt

from focusing.outcome import Outcome
from focusing.trials import HEIGHT_PX, WIDTH_PX, Trial, image_size
from semagent.clock import Clock, ManualClock
from semagent.ports import Microscope
from semagent.types import Frame, SetStigmator, SetWorkingDistance
from semagent_drivers.simulated import SimulatedMicroscope, SimulationTruth, open_microscope

Image = npt.NDArray[np.float32]

START_M = 10e-3
DWELL_S = 0.2e-6
LINE_OVERHEAD_S = 10e-6
FRAME_S = HEIGHT_PX * (WIDTH_PX * DWELL_S + LINE_OVERHEAD_S)
ELEMENTARY_CHARGE_C = 1.602176634e-19

STIGMATOR_RANGE = 16.0
"""Astigmatism, in half depths of field, that a stigmator makes at full range."""

HOLD_DRIFT = 0.1
"""Half depths of field a frame: one depth of field in 20 frames."""


def driver_options(trial: Trial) -> dict[str, Any]:
    """Options of the driver ``simulated`` for this trial."""
    rng = trial.generator()
    pixel_nm, unit_um = trial.pixel_nm, trial.unit_m * 1e6
    toward = rng.uniform(0, 2 * math.pi)
    shift_nm_per_um = rng.uniform(0, 0.5) * pixel_nm / unit_um
    hold = trial.experiment == "hold"
    drift = math.copysign(HOLD_DRIFT, rng.uniform(-1, 1)) if hold else rng.uniform(-0.02, 0.02)
    # With hysteresis the read-back, hence what a method is told, is off by up to this much.
    play = rng.uniform(0, 0.1)
    brightness, contrast = rng.uniform(-0.05, 0.05), rng.uniform(-0.2, 0.2)
    return {
        "seed": trial.seed,
        "speed": 1.0,
        "scan": {
            "width_px": WIDTH_PX,
            "height_px": HEIGHT_PX,
            "pixel_size_nm": pixel_nm,
            "dwell_us": DWELL_S * 1e6,
            "line_overhead_us": LINE_OVERHEAD_S * 1e6,
        },
        "column": {
            "working_distance_mm": START_M * 1e3,
            "convergence_mrad": trial.convergence_mrad,
            "probe_sigma_nm": rng.uniform(0.4, 0.9) * pixel_nm,
            "beam_current_pa": trial.dose * ELEMENTARY_CHARGE_C / DWELL_S * 1e12,
            "astigmatism_um": [part * unit_um for part in trial.astigmatism],
            "stigmator_um_per_unit": STIGMATOR_RANGE * unit_um,
            "stigmator_shift_nm_per_unit": (rng.uniform(-20, 20, (2, 2)) * pixel_nm).tolist(),
            "focus_shift_nm_per_um": [
                shift_nm_per_um * math.cos(toward),
                shift_nm_per_um * math.sin(toward),
            ],
            "focus_brightness_per_mm": brightness / (40 * unit_um * 1e-3),
            "focus_contrast_per_mm": contrast / (40 * unit_um * 1e-3),
            "lens_hysteresis_um": play * unit_um,
            "lens_settle_ms": 0.0 if hold else 50.0,
            **_beam_shift(trial, rng),
        },
        "specimen": _specimen(trial, rng),
        "detector": {"brightness_drift": 0.01, "contrast_drift": 0.03},
        "drift": {
            "x_nm_per_s": rng.normal(0, 0.3) * pixel_nm / FRAME_S,
            "y_nm_per_s": rng.normal(0, 0.3) * pixel_nm / FRAME_S,
            "z_nm_per_s": drift * trial.unit_m * 1e9 / FRAME_S,
            "walk_xy_nm_per_sqrt_s": 0.5 * pixel_nm / math.sqrt(FRAME_S),
        },
    }


def _beam_shift(trial: Trial, rng: np.random.Generator) -> dict[str, float]:
    """Look at a place of the specimen picked at random, not always at its middle."""
    if trial.image is None:
        reach_px = np.array([256.0, 256.0])
    else:
        reach_px = np.maximum(np.subtract(image_size(trial.image), (WIDTH_PX, HEIGHT_PX)) / 2, 0)
    x_um, y_um = (rng.uniform(-1, 1, 2) * reach_px * trial.pixel_nm * 1e-3).tolist()
    return {"beam_shift_x_um": x_um, "beam_shift_y_um": y_um, "beam_shift_range_um": 100.0}


def _specimen(trial: Trial, rng: np.random.Generator) -> dict[str, Any]:
    focus_mm = (START_M - trial.start * trial.unit_m) * 1e3
    feature_px, contrast = float(np.exp(rng.uniform(np.log(8), np.log(40)))), rng.uniform(0.4, 1)
    drawn = {
        "working_distance_mm": focus_mm,
        "tile_px": 1024,
        "feature_size_nm": feature_px * trial.pixel_nm,
    }
    match trial.source:
        case "noise":
            return {"kind": "flat", **drawn}
        case "featureless":
            return {"kind": "particles", "contrast": 0.01, **drawn}
        case kind if trial.image is None:
            return {"kind": kind, "contrast": contrast, **drawn}
        case _:
            return {
                "kind": "image",
                "path": str(trial.image),
                "crop_bottom_px": 0,
                "contrast": contrast,
                "working_distance_mm": focus_mm,
            }


class Scope:
    """What a peer's method is given: a working distance to set, two stigmators, frames.

    Positions are in half depths of field from the start; stigmators in half depths of field of
    astigmatism, so that every peer is given a perfect calibration.

    Attributes:
        limit: no method looks further than this from the start, either way.
        frames: frames exposed so far.
        moves: changes of the working distance so far.
    """

    limit = 48.0

    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        self.frames = 0
        self.moves = 0
        self._started_s = time.perf_counter()
        self.microscope, self.clock, self._start_m = self._open()
        self._start = self.error
        self._start_astigmatism_px = self.astigmatism_px

    def _open(self) -> tuple[Microscope, Clock, float]:
        """The microscope, its clock, and the working distance of the start."""
        clock = ManualClock()
        options = driver_options(self.trial)
        return open_microscope(options, clock=clock), clock, START_M

    def close(self) -> None:
        """Let go of the microscope."""
        self.microscope.close()

    # -- for the method -----------------------------------------------------------------------

    @property
    def position(self) -> float:
        """Where the working distance reads back."""
        return (self._working_distance_m - self._start_m) / self.trial.unit_m

    def go(self, position: float) -> None:
        """Set the working distance; what lies beyond the limit is cut off, as every peer does."""
        position = min(max(position, -self.limit), self.limit)
        if abs(position - self.position) < 1e-9:
            return
        self.moves += 1
        target_m = self._start_m + position * self.trial.unit_m
        self.microscope.apply(SetWorkingDistance(working_distance_m=target_m))

    def stigmate(self, a1: float, a2: float) -> None:
        """Change the astigmatism by this much."""
        optics = self.microscope.read_state().optics
        x = (optics.stigmator_x or 0.0) + a1 / STIGMATOR_RANGE
        y = (optics.stigmator_y or 0.0) + a2 / STIGMATOR_RANGE
        self.microscope.apply(SetStigmator(x=min(max(x, -1), 1), y=min(max(y, -1), 1)))

    def frame(self) -> Frame:
        """Expose a frame."""
        self.frames += 1
        return self.microscope.acquire(60.0)

    def image(self) -> Image:
        """Expose a frame and return its grey values, 0 to 255."""
        return self.frame().pixels.astype(np.float32)

    # -- for the record -----------------------------------------------------------------------

    @property
    def error(self) -> float:
        """Defocus, in half depths of field."""
        return self._truth().defocus_m / self.trial.unit_m

    @property
    def focus_m(self) -> float:
        """The working distance that would be in focus, as it reads back."""
        return self._working_distance_m - self.error * self.trial.unit_m

    @property
    def astigmatism_px(self) -> float:
        """Residual astigmatism as blur, in pixels."""
        truth = self._truth()
        return truth.slope_px_per_m * math.hypot(truth.a1_m, truth.a2_m)

    @property
    def dose(self) -> float:
        """Electrons a pixel of the whole field has received."""
        return self._truth().total_dose_e / (WIDTH_PX * HEIGHT_PX)

    @property
    def _working_distance_m(self) -> float:
        return self.microscope.read_state().optics.working_distance_m

    def _truth(self) -> SimulationTruth:
        assert isinstance(self.microscope, SimulatedMicroscope)
        return self.microscope.truth()

    def outcome(self, method: str) -> Outcome:
        """How a peer that ends here has done; the verifying frame is exposed first."""
        self.frame()
        trial = self.trial
        return Outcome(
            experiment=trial.experiment,
            method=method,
            number=trial.number,
            source=trial.source,
            real=trial.image is not None,
            trial_dose=trial.dose,
            status="focused",
            frames=self.frames,
            moves=self.moves,
            dose=self.dose,
            start=self._start,
            final=self.error,
            start_astigmatism_px=self._start_astigmatism_px,
            final_astigmatism_px=self.astigmatism_px,
            wall_s=time.perf_counter() - self._started_s,
        )
