"""What displaces the image: one linear model of all frames, fitted by weighted least squares.

The displacement of the content, in metres in the specimen plane, is taken to be linear in the
true focus, the stigmators, the beam shift and the true stage position, with a steady drift. Focus
and stage lag behind what was commanded by a play, whose sign is the direction of the last move.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from semagent.types import FrameHeader, ImageShift

Floats = npt.NDArray[np.float64]

_SCALE_ERROR = 0.002  # of an effect: what defocus does to registration, on simulated specimens

CAUSES = ("focus", "stigmator_x", "stigmator_y", "beam_x", "beam_y", "stage_x", "stage_y")


@dataclass(frozen=True, slots=True)
class Shot:
    """One frame of a calibration.

    Attributes:
        header: the settings measured with it.
        shift: where its content lies.
        directions: sign of the last move of ``focus``, ``stage_x`` and ``stage_y``.
        run_m: how far focus has moved since it last turned round.
    """

    header: FrameHeader
    shift: ImageShift | None
    directions: Mapping[str, int] = field(default_factory=dict)
    run_m: float = math.inf

    def setting(self, cause: str) -> float:
        """How a cause was set; 0 where it is not reported."""
        optics, stage = self.header.optics, self.header.stage
        value = {
            "focus": optics.working_distance_m,
            "stigmator_x": optics.stigmator_x,
            "stigmator_y": optics.stigmator_y,
            "beam_x": optics.beam_shift_x_m,
            "beam_y": optics.beam_shift_y_m,
            "stage_x": stage.x_m,
            "stage_y": stage.y_m,
        }[cause]
        return value or 0.0

    def lag_m(self, play_m: float) -> float:
        """How far focus is behind, with this half-width of play."""
        return self.directions.get("focus", 0) * min(play_m, self.run_m - play_m)


@dataclass(frozen=True, slots=True)
class Effect:
    """Displacement (x, y) in metres per unit of a cause, and the standard deviation of each."""

    x: float
    y: float
    sigma: float


@dataclass(frozen=True, slots=True)
class ShiftFit:
    """The fitted effects.

    Attributes:
        effects: by cause; causes that were not varied are missing.
        jumps: by axis with play, the displacement between the directions, halved.
        residual_m: root mean square of what is left, along one axis.
    """

    effects: dict[str, Effect]
    jumps: dict[str, Effect]
    residual_m: float


def fit_shifts(shots: Sequence[Shot], pixel_size_m: float) -> ShiftFit | None:
    """Fit the model to all frames that were registered; ``None`` if they are too few.

    The frame the others were registered against lies where it lies by definition, and is left out.
    """
    seen = [shot for shot in shots if shot.shift is not None and shot.shift.sigma_px > 0]
    names, columns = _design(seen) if seen else ([], [])
    if len(seen) < len(columns) + 3:
        return None
    design = np.stack(columns, axis=1)
    found = [(shot.shift.x_px, shot.shift.y_px, shot.shift.sigma_px) for shot in seen if shot.shift]
    shifts = np.array(found) * pixel_size_m
    weight = 1 / shifts[:, 2]
    scaled = design * weight[:, np.newaxis]
    # Columns of such different size have to be brought to one before they are inverted.
    norm = np.linalg.norm(scaled, axis=0)
    solution, *_ = np.linalg.lstsq(scaled / norm, shifts[:, :2] * weight[:, np.newaxis], rcond=None)
    solution /= norm[:, np.newaxis]
    left = shifts[:, :2] - design @ solution
    freedom = 2 * (len(seen) - len(columns))
    excess = max(1.0, float(((left * weight[:, np.newaxis]) ** 2).sum()) / freedom)
    normal = (scaled / norm).T @ (scaled / norm)
    sigmas = np.sqrt(np.diag(np.linalg.pinv(normal)) * excess) / norm
    effects = {
        name: Effect(float(x), float(y), math.hypot(sigma, _SCALE_ERROR * math.hypot(x, y)))
        for name, (x, y), sigma in zip(names, solution, sigmas, strict=True)
    }
    return ShiftFit(
        effects={name: effects[name] for name in CAUSES if name in effects},
        jumps={
            name.removeprefix("jump "): effect
            for name, effect in effects.items()
            if name.startswith("jump ")
        },
        residual_m=math.sqrt(float((left**2).sum()) / freedom),
    )


def _design(shots: Sequence[Shot]) -> tuple[list[str], list[Floats]]:
    """Names and columns of what varied."""
    times_ns = np.array([shot.header.monotonic_ns for shot in shots], np.float64)
    names, columns = ["drift"], [(times_ns - times_ns[0]) * 1e-9]
    # Where registration has begun anew on the way, frames count from another first one.
    first = np.array([shot.shift and shot.shift.reference_sequence for shot in shots])
    for reference in np.unique(first):
        names.append(f"start {reference}")
        columns.append((first == reference).astype(np.float64))
    for cause in CAUSES:
        values = np.array([shot.setting(cause) for shot in shots])
        if np.ptp(values) > 0:
            names.append(cause)
            columns.append(values - values[0])
        directions = np.array([shot.directions.get(cause, 0) for shot in shots], np.float64)
        if np.ptp(directions) > 0:
            names.append(f"jump {cause}")
            columns.append(directions)
    return names, columns
