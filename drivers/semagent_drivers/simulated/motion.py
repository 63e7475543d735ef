"""What moves: stage with backlash and creep, lens with hysteresis, drift of specimen and signal."""

import math

import msgspec
import numpy as np

from semagent.types import MoveStage, StagePosition
from semagent_drivers.adapter.limits import axis_in_words, require_within
from semagent_drivers.simulated.options import DetectorOptions, DriftOptions, StageOptions

LENGTH_AXES = ("x_m", "y_m", "z_m")
AXES = (*LENGTH_AXES, "rotation_rad", "tilt_rad")


class Play:
    """The play operator: the output rests until the input has crossed the play.

    It is backlash in a gear, and as the elementary operator of the Prandtl-Ishlinskii model the
    simplest hysteresis of a magnetic lens (Visintin, Differential Models of Hysteresis, 1994).
    """

    def __init__(self, value: float, half_width: float) -> None:
        self.value = value
        self._half_width = half_width

    def follow(self, command: float) -> None:
        """Take the input to ``command``."""
        lowest, highest = command - self._half_width, command + self._half_width
        self.value = min(max(self.value, lowest), highest)


class Stage:
    """A stage that reports its motors while the specimen lags behind them."""

    def __init__(self, options: StageOptions) -> None:
        self._options = options
        self._ranges: dict[str, tuple[float, float]] = {}
        self._reported: dict[str, float] = {}
        for axis in AXES:
            name, unit = axis.rsplit("_", 1)
            # Divisors, not factors: 4.5 mm has to read back as 0.0045 m.
            written, divisor = ("mm", 1e3) if unit == "m" else ("deg", 180 / math.pi)
            low, high = getattr(options, f"{name}_range_{written}")
            self._ranges[axis] = (low / divisor, high / divisor)
            self._reported[axis] = getattr(options, f"{name}_{written}") / divisor
        half = options.backlash_um * 1e-6 / 2
        self._true = {axis: Play(self._reported[axis], half) for axis in LENGTH_AXES}
        self._creep = dict.fromkeys(LENGTH_AXES, 0.0)

    @property
    def position(self) -> StagePosition:
        """Where the stage says it is."""
        return StagePosition(**self._reported)

    def true_m(self, axis: str) -> float:
        """Where the specimen is along one of the length axes."""
        return self._true[axis].value + self._creep[axis]

    def targets(self, move: MoveStage) -> dict[str, float]:
        """The axes a command names, and where to.

        Raises:
            CommandRefusedError: one is not finite or out of range; nothing has moved.
        """
        named: dict[str, float | None] = msgspec.structs.asdict(move)
        wanted = {axis: float(value) for axis, value in named.items() if value is not None}
        for axis, value in wanted.items():
            name, unit = axis_in_words(axis)
            require_within(name, value, self._ranges[axis], unit)
        return wanted

    def travel_time_s(self, targets: dict[str, float]) -> float:
        """Duration of a move; all axes run at once."""
        speed = dict.fromkeys(LENGTH_AXES, self._options.speed_mm_per_s * 1e-3)
        turn = math.radians(self._options.rotation_speed_deg_per_s)
        return max(
            (
                abs(value - self._reported[axis]) / speed.get(axis, turn)
                for axis, value in targets.items()
            ),
            default=0.0,
        )

    def go(self, targets: dict[str, float], fraction: float = 1.0) -> None:
        """Arrive at the targets, or, if the move was stopped, after a ``fraction`` of the way."""
        for axis, value in targets.items():
            start = self._reported[axis]
            # The end is taken as it was asked for: start + (value - start) may differ by rounding.
            end = value if fraction >= 1 else start + fraction * (value - start)
            self._reported[axis] = end
            if axis in self._true:
                play = self._true[axis]
                before = play.value
                play.follow(end)
                self._creep[axis] -= self._options.creep_fraction * (play.value - before)

    def advance(self, duration_s: float) -> None:
        """Let the creep settle."""
        left = math.exp(-duration_s / self._options.creep_time_s)
        for axis in self._creep:
            self._creep[axis] *= left


class Drift:
    """Steady drift and a random walk of the specimen; z is positive towards the pole piece."""

    def __init__(self, options: DriftOptions, seed: int) -> None:
        self._velocity = 1e-9 * np.array(
            [options.x_nm_per_s, options.y_nm_per_s, options.z_nm_per_s]
        )
        walk_xy, walk_z = options.walk_xy_nm_per_sqrt_s, options.walk_z_nm_per_sqrt_s
        self._walk = 1e-9 * np.array([walk_xy, walk_xy, walk_z])
        self._rng = np.random.Generator(
            np.random.SFC64(np.random.SeedSequence(seed, spawn_key=(2,)))
        )
        self._position = np.zeros(3)

    @property
    def position_m(self) -> tuple[float, float, float]:
        """How far the specimen has drifted along the fast axis, the slow axis and z."""
        x, y, z = self._position
        return float(x), float(y), float(z)

    def advance(self, duration_s: float) -> None:
        """Let simulated time pass."""
        step = self._rng.standard_normal(3) * math.sqrt(duration_s)
        self._position = self._position + self._velocity * duration_s + self._walk * step


class SignalDrift:
    """Random walks of brightness and contrast from one exposure to the next.

    Args:
        options: how far they step.
        rng: source of the steps, two numbers an exposure.

    Attributes:
        offset: change of the grey offset since the first frame, as a fraction of full scale.
        gain: collected signal relative to the first frame.
    """

    def __init__(self, options: DetectorOptions, rng: np.random.Generator) -> None:
        self._options = options
        self._rng = rng
        self.offset = 0.0
        self.gain = 1.0

    def advance(self) -> None:
        """Let one exposure pass."""
        offset, gain = self._rng.standard_normal(2).tolist()
        self.offset += self._options.brightness_drift * offset
        self.gain *= math.exp(self._options.contrast_drift * gain)
