"""What is remembered of an instrument: calibrations, and optics learned while focusing.

One YAML file an instrument, for people to read and, with care, to edit. It holds an entry for
each combination of beam energy, aperture and magnification, and of working distance where the
instrument reports no convergence angle. Whoever needs prior knowledge asks for the entry that fits
a frame::

    entry = config.remembered.at(header)
    if entry is not None:
        slope = entry.slope_px_per_m(header)        # Measure(value, sigma) or None
        if entry.calibration is not None:
            entry.calibration.image_shift_per_focus     # Vector or None: m of image per m of focus
            entry.calibration.astigmatism_per_stigmator  # Matrix or None: (a1, a2) in m per unit

Blur and shifts are stored in metres in the specimen plane, so that an entry serves neighbouring
magnifications too. Image shifts are displacements of the *content* of a frame, as in `ImageShift`.
"""

import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec
import yaml

from semagent.errors import ConfigError
from semagent.options import NotNegative, Options, Positive
from semagent.types import FrameHeader
from semagent.yamltext import read_yaml

FORMAT = 1

_ENERGY_RATIO = 1.05
_ANGLE_RATIO = 1.15
_CURRENT_RATIO = 1.5
_MAGNIFICATION_RATIO = 4.0
_LEAST_RELATIVE_SIGMA = 0.02  # of learned values: apertures and specimens differ by as much
_SHARED_RELATIVE_SIGMA = 0.04  # error that searches of one instrument share: more do not lessen it
_CERTAIN = 0.1  # relative error below which an angle is as good as one that a microscope reports
_MOST_FOCUSINGS = 20  # weight of what was learned before; more would never change again


class _Numbers(Options, frozen=True, kw_only=True):
    """Numbers that are finite, all of them."""

    def __post_init__(self) -> None:
        for name, number in msgspec.structs.asdict(self).items():
            if not math.isfinite(number):
                raise ValueError(f"{name} is {number:g}; it has to be a finite number")


class Measure(_Numbers, frozen=True, kw_only=True):
    """A number and its standard deviation, in the unit of the field it stands in."""

    value: float
    sigma: NotNegative


class Vector(_Numbers, frozen=True, kw_only=True):
    """An effect along x and y of one cause, per unit of it; ``sigma`` is that of each."""

    x: float
    y: float
    sigma: NotNegative


class Matrix(_Numbers, frozen=True, kw_only=True):
    """Effects of two causes: ``xy`` is the effect along x of the cause y; ``sigma`` of each."""

    xx: float
    xy: float
    yx: float
    yy: float
    sigma: NotNegative

    def __matmul__(self, cause: tuple[float, float]) -> tuple[float, float]:
        x, y = cause
        return self.xx * x + self.xy * y, self.yx * x + self.yy * y

    def solve(self, effect: tuple[float, float]) -> tuple[float, float]:
        """The causes that have this effect.

        Raises:
            ZeroDivisionError: there are none, as the matrix is singular.
        """
        x, y = effect
        determinant = self.xx * self.yy - self.xy * self.yx
        return (
            (self.yy * x - self.xy * y) / determinant,
            (self.xx * y - self.yx * x) / determinant,
        )


class Calibration(Options, frozen=True, kw_only=True):
    """What ``semagent calibrate`` measured; ``None`` where it could not, or was not to.

    Attributes:
        date: when, UTC, ISO 8601.
        frames: number of frames it rests on.
        blur_per_focus: standard deviation of the blur in metres per metre of defocus, half the
            convergence half-angle; over the pixel size it is the slope α/2p.
        astigmatism_per_stigmator: (a1, a2) in metres per unit of stigmator (x, y).
        focus_per_stigmator: change of the focal working distance in metres per unit.
        focus_hysteresis_m: half-width of the play between the set and the true focus.
        image_shift_per_focus: metres per metre of working distance.
        image_shift_per_stigmator: metres per unit of stigmator.
        image_shift_per_beam_shift: metres per metre of beam shift.
        image_shift_per_stage: metres per metre of stage x, y.
        stage_backlash_m: play of the stage between its two directions.
        residual_blur: root mean square of what the fit of the blur leaves, as logarithm of the
            power.
        residual_shift_m: the same of the fits of the image shifts.
    """

    date: str
    frames: int
    blur_per_focus: Measure | None = None
    astigmatism_per_stigmator: Matrix | None = None
    focus_per_stigmator: Vector | None = None
    focus_hysteresis_m: Measure | None = None
    image_shift_per_focus: Vector | None = None
    image_shift_per_stigmator: Matrix | None = None
    image_shift_per_beam_shift: Matrix | None = None
    image_shift_per_stage: Matrix | None = None
    stage_backlash_m: Measure | None = None
    residual_blur: NotNegative | None = None
    residual_shift_m: NotNegative | None = None

    def __post_init__(self) -> None:
        _check_blur(self.blur_per_focus)


class Learned(Options, frozen=True, kw_only=True):
    """What successful focusings taught.

    Attributes:
        date: of the last one, UTC, ISO 8601.
        focusings: how many.
        blur_per_focus: as in `Calibration`.
    """

    date: str
    focusings: int
    blur_per_focus: Measure

    def __post_init__(self) -> None:
        _check_blur(self.blur_per_focus)


class Settings(Options, frozen=True, kw_only=True):
    """The settings an entry is for; what the instrument does not report is ``None``."""

    accelerating_voltage_v: Positive | None = None
    convergence_angle_rad: Positive | None = None
    beam_current_a: Positive | None = None
    working_distance_m: Positive | None = None
    magnification: Positive | None = None
    pixel_size_m: Positive | None = None

    @classmethod
    def of(cls, header: FrameHeader) -> "Settings":
        """The settings of a frame."""
        optics = header.optics
        return cls(
            accelerating_voltage_v=optics.accelerating_voltage_v or None,
            convergence_angle_rad=optics.convergence_angle_rad or None,
            beam_current_a=optics.beam_current_a or None,
            # Recorded stacks may count it from anywhere.
            working_distance_m=max(optics.working_distance_m, 0.0) or None,
            magnification=optics.magnification or None,
            pixel_size_m=header.scan.pixel_size_m or None,
        )

    def distance(self, other: "Settings") -> float | None:
        """How different the magnifications are, as a logarithm; ``None`` if the beams differ.

        Beams are told apart by energy, and by convergence angle or, where that is not reported,
        by what it goes with: beam current, which stands for the aperture, and working distance.
        What one side does not know agrees.
        """
        if not _alike(self.accelerating_voltage_v, other.accelerating_voltage_v, _ENERGY_RATIO):
            return None
        if self.convergence_angle_rad and other.convergence_angle_rad:
            if not _alike(self.convergence_angle_rad, other.convergence_angle_rad, _ANGLE_RATIO):
                return None
        elif not (
            _alike(self.beam_current_a, other.beam_current_a, _CURRENT_RATIO)
            and _alike(self.working_distance_m, other.working_distance_m, _ANGLE_RATIO)
        ):
            return None
        scales = (self.magnification, other.magnification)
        if None in scales:
            scales = (self.pixel_size_m, other.pixel_size_m)
        first, second = scales
        return abs(math.log(first / second)) if first and second else 0.0


class Entry(Options, frozen=True, kw_only=True):
    """What is known at one combination of settings."""

    settings: Settings
    calibration: Calibration | None = None
    learned: Learned | None = None

    def slope_px_per_m(self, header: FrameHeader) -> Measure | None:
        """Blur in pixels of the frame per metre of defocus, α/2p; the more certain source."""
        blur, pixel_size_m = self._blur_per_focus, header.scan.pixel_size_m
        if blur is None or not pixel_size_m:
            return None
        return Measure(value=blur.value / pixel_size_m, sigma=blur.sigma / pixel_size_m)

    @property
    def convergence_angle_rad(self) -> float | None:
        """The half-angle of the beam that its blur shows; ``None`` where that is not certain."""
        blur = self._blur_per_focus
        return 2 * blur.value if blur and blur.sigma < _CERTAIN * blur.value else None

    @property
    def _blur_per_focus(self) -> Measure | None:
        measures = (part.blur_per_focus for part in (self.calibration, self.learned) if part)
        known = [measure for measure in measures if measure is not None]
        return min(known, key=lambda measure: measure.sigma, default=None)


class Memory(Options, frozen=True, kw_only=True):
    """Everything that is remembered of one instrument.

    Attributes:
        semagent_memory: version of this format, 1.
        instrument: as in the configuration.
    """

    semagent_memory: int = FORMAT
    instrument: str = ""
    entries: tuple[Entry, ...] = ()

    def at(self, header: FrameHeader) -> Entry | None:
        """What is known for the settings of a frame: same beam, nearest magnification.

        Calibration and what was learned may come from two entries. ``None`` if there is none for
        this beam within a factor of four in magnification.
        """
        settings, reach = Settings.of(header), math.log(_MAGNIFICATION_RATIO)
        calibrated = self._nearest(settings, reach, "calibration")
        learned = self._nearest(settings, reach, "learned")
        nearest = self._nearest(settings, reach)
        if nearest is None:
            return None
        return Entry(
            settings=nearest.settings,
            calibration=calibrated.calibration if calibrated else None,
            learned=learned.learned if learned else None,
        )

    def with_angle(self, header: FrameHeader) -> FrameHeader:
        """The header, with the convergence angle of these settings where it carries none.

        For whoever works with it, not for the record: no microscope has reported it.
        """
        entry = None if header.optics.convergence_angle_rad else self.at(header)
        if entry is None or entry.convergence_angle_rad is None:
            return header
        optics = msgspec.structs.replace(
            header.optics, convergence_angle_rad=entry.convergence_angle_rad
        )
        return msgspec.structs.replace(header, optics=optics)

    def lens_play_m(self, header: FrameHeader) -> float:
        """Half-width of the play of the lens at the settings of a frame; 0 if none is known."""
        entry = self.at(header)
        play = entry.calibration.focus_hysteresis_m if entry and entry.calibration else None
        return play.value if play else 0.0

    def with_calibration(self, settings: Settings, calibration: Calibration) -> "Memory":
        """This memory with a new calibration in place of the one for these settings."""
        entry = self._nearest(settings, math.log(1.1)) or Entry(settings=settings)
        return self._with(
            entry, msgspec.structs.replace(entry, settings=settings, calibration=calibration)
        )

    def with_focusing(self, settings: Settings, blur_per_focus: Measure, date: str) -> "Memory":
        """This memory with what one more successful focusing taught.

        Values are averaged as logarithms, each focusing with the weight of its certainty.
        """
        entry = self._nearest(settings, math.log(1.1)) or Entry(settings=settings)
        before = entry.learned
        count = before.focusings if before else 0
        old_blur = before.blur_per_focus if before else None
        learned = Learned(
            date=date,
            focusings=count + 1,
            blur_per_focus=_pooled(old_blur, blur_per_focus, count),
        )
        return self._with(entry, msgspec.structs.replace(entry, learned=learned))

    def _nearest(
        self,
        settings: Settings,
        reach: float,
        part: Literal["calibration", "learned"] | None = None,
    ) -> Entry | None:
        """The nearest entry that is near enough, and has this part."""
        found: list[tuple[float, Entry]] = []
        for entry in self.entries:
            distance = entry.settings.distance(settings)
            has_it = part is None or getattr(entry, part) is not None
            if has_it and distance is not None and distance <= reach:
                found.append((distance, entry))
        return min(found, key=lambda pair: pair[0])[1] if found else None

    def _with(self, old: Entry, new: Entry) -> "Memory":
        kept = tuple(entry for entry in self.entries if entry is not old)
        return msgspec.structs.replace(self, entries=(*kept, new))


def load_memory(path: Path) -> Memory:
    """Read a memory file; one that does not exist yet is empty.

    Raises:
        ConfigError: it cannot be read, or a key or value is wrong; the message names the line.
    """
    if not path.exists():
        return Memory()
    if not path.is_file():  # a device may have no end
        raise ConfigError(f"{path}: is no file; a memory is one")
    memory = read_yaml(path, Memory)
    if memory.semagent_memory != FORMAT:
        raise ConfigError(
            f"{path}: semagent_memory: {memory.semagent_memory} is a format this release does "
            f"not know; it reads {FORMAT}"
        )
    return memory


def as_text(memory: Memory) -> str:
    """The memory as it stands in its file."""
    plain = _rounded(msgspec.to_builtins(memory))
    text = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)
    return (
        f"# What semagent remembers of this instrument; see docs/calibration.md. SI units.\n{text}"
    )


def date_of(wall_ns: int) -> str:
    """A moment of the wall clock as it stands in the file."""
    return datetime.fromtimestamp(wall_ns // 10**9, UTC).isoformat().replace("+00:00", "Z")


def _check_blur(measure: Measure | None) -> None:
    if measure is not None and measure.value <= 0:
        raise ValueError(f"blur_per_focus.value is {measure.value:g}; it has to be above 0")


def _alike(first: float | None, second: float | None, ratio: float) -> bool:
    return not first or not second or abs(math.log(first / second)) <= math.log(ratio)


def _pooled(before: Measure | None, new: Measure, count: int) -> Measure:
    """The mean of logarithms of what was known and what is new, weighted by certainty.

    What focusings have in common does not count as certainty, and stays in the result.
    """
    relative = max(new.sigma / new.value, _LEAST_RELATIVE_SIGMA)
    if before is None:
        return Measure(
            value=new.value, sigma=math.hypot(relative, _SHARED_RELATIVE_SIGMA) * new.value
        )
    own = math.sqrt(max(0.0, (before.sigma / before.value) ** 2 - _SHARED_RELATIVE_SIGMA**2))
    known = max(own, relative / math.sqrt(min(count, _MOST_FOCUSINGS)))
    weight = known**2 / (known**2 + relative**2)
    value = before.value * (new.value / before.value) ** weight
    sigma = known * relative / math.hypot(known, relative)
    return Measure(value=value, sigma=math.hypot(sigma, _SHARED_RELATIVE_SIGMA) * value)


def _rounded(plain: object) -> object:
    """Six digits: more would only pretend."""
    if isinstance(plain, float):
        return float(f"{plain:.6g}")
    if isinstance(plain, dict):
        return {key: _rounded(value) for key, value in plain.items() if value is not None}
    if isinstance(plain, list | tuple):
        return [_rounded(value) for value in plain]
    return plain
