"""The options of the simulated microscope, with their units in their names."""

import math
from typing import Annotated, Literal

from msgspec import Meta, structs

from semagent.options import Count, NotNegative, Options, Positive

Fraction = Annotated[float, Meta(ge=0, le=1)]
Pair = tuple[float, float]
Matrix = tuple[Pair, Pair]

Kernel = Literal["disc", "gaussian"]
SpecimenKind = Literal[
    "particles", "fibres", "grains", "porous", "fracture", "target", "flat", "image"
]

MIN_FRAME_PX = 16
"""Smallest edge of a scanned region: below it there is nothing to see."""

MOST_AVERAGES = 256


class Section(Options, frozen=True, kw_only=True):
    """Base of every section: numbers have to be finite."""

    def __post_init__(self) -> None:
        for name, value in structs.asdict(self).items():
            if not _is_finite(value):
                raise ValueError(f"{name}: {value} is not a finite number")


def _is_finite(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, tuple):
        return all(_is_finite(item) for item in value)
    return True


def _require_range(name: str, limits: Pair, unit: str) -> None:
    if not limits[0] < limits[1]:
        raise ValueError(
            f"{name}: the lower end {limits[0]} {unit} is not below {limits[1]} {unit}"
        )


def _require_within(name: str, value: float, limits: Pair, unit: str) -> None:
    if not limits[0] <= value <= limits[1]:
        raise ValueError(f"{name}: {value} {unit} is outside {limits[0]} to {limits[1]} {unit}")


class ScanOptions(Section, frozen=True, kw_only=True):
    """How frames are scanned at the start.

    Attributes:
        line_overhead_us: fly-back and settling of the scan at the end of each line.
        info_bar_px: rows of a burnt-in information bar at the bottom of full-field frames.
    """

    width_px: Annotated[int, Meta(ge=MIN_FRAME_PX, le=16384)] = 1024
    height_px: Annotated[int, Meta(ge=MIN_FRAME_PX, le=16384)] = 768
    bit_depth: Literal[8, 16] = 8
    pixel_size_nm: Positive = 10.0
    dwell_us: Positive = 0.5
    dwell_range_us: Pair = (0.025, 1000.0)
    frame_averages: Annotated[int, Meta(ge=1, le=MOST_AVERAGES)] = 1
    line_overhead_us: NotNegative = 10.0
    info_bar_px: Annotated[int, Meta(ge=0)] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_range("dwell_range_us", self.dwell_range_us, "us")
        _require_within("dwell_us", self.dwell_us, self.dwell_range_us, "us")
        if self.dwell_range_us[0] <= 0:
            raise ValueError("dwell_range_us: the lower end must be above 0 us")
        if self.info_bar_px and not MIN_FRAME_PX <= self.info_bar_px <= self.height_px // 2:
            raise ValueError(
                f"info_bar_px: {self.info_bar_px} is neither 0 nor {MIN_FRAME_PX} to "
                f"{self.height_px // 2}, half of height_px"
            )


class ColumnOptions(Section, frozen=True, kw_only=True):
    """The electron column.

    Attributes:
        convergence_mrad: half-angle of the beam cone.
        probe_sigma_nm: standard deviation of the focused probe.
        astigmatism_um: the column's own (a1, a2), which the stigmators have to cancel.
        stigmator_um_per_unit: astigmatism that a stigmator makes at full range.
        stigmator_coupling: (a1, a2) per (stigmator_x, stigmator_y), times the strength above.
        stigmator_shift_nm_per_unit: image shift (rows x, y) per stigmator (columns x, y).
        focus_shift_nm_per_um: image shift (x, y) per change of the working distance.
        focus_brightness_per_mm: change of the grey offset, as a fraction of full scale.
        focus_contrast_per_mm: relative change of the collected signal.
        lens_hysteresis_um: half-width of the play between the set and the true focus.
    """

    working_distance_mm: Positive = 5.0
    working_distance_range_mm: Pair = (1.0, 25.0)
    accelerating_voltage_kv: Positive = 5.0
    beam_current_pa: Positive = 100.0
    convergence_mrad: Positive = 5.0
    probe_sigma_nm: NotNegative = 7.0
    kernel: Kernel = "disc"
    astigmatism_um: Pair = (0.0, 0.0)
    stigmator_x: Annotated[float, Meta(ge=-1, le=1)] = 0.0
    stigmator_y: Annotated[float, Meta(ge=-1, le=1)] = 0.0
    stigmator_um_per_unit: Positive = 20.0
    stigmator_coupling: Matrix = ((1.0, 0.0), (0.0, 1.0))
    stigmator_shift_nm_per_unit: Matrix = ((0.0, 0.0), (0.0, 0.0))
    focus_shift_nm_per_um: Pair = (0.0, 0.0)
    focus_brightness_per_mm: float = 0.0
    focus_contrast_per_mm: float = 0.0
    lens_hysteresis_um: NotNegative = 0.1
    lens_settle_ms: NotNegative = 50.0
    stigmator_settle_ms: NotNegative = 10.0
    beam_shift_x_um: float = 0.0
    beam_shift_y_um: float = 0.0
    beam_shift_range_um: Positive = 15.0
    beam_settle_ms: NotNegative = 1.0
    blanked: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        limits = self.working_distance_range_mm
        _require_range("working_distance_range_mm", limits, "mm")
        _require_within("working_distance_mm", self.working_distance_mm, limits, "mm")
        shift = (-self.beam_shift_range_um, self.beam_shift_range_um)
        _require_within("beam_shift_x_um", self.beam_shift_x_um, shift, "um")
        _require_within("beam_shift_y_um", self.beam_shift_y_um, shift, "um")
        (a, b), (c, d) = self.stigmator_coupling
        if abs(a * d - b * c) < 1e-6:
            raise ValueError(
                f"stigmator_coupling: {self.stigmator_coupling} is singular, so no setting of "
                "the stigmators could correct every astigmatism"
            )


class SpecimenOptions(Section, frozen=True, kw_only=True):
    """What lies under the beam.

    Attributes:
        path: image file; required with ``kind: image`` and only there.
        image_pixel_size_nm: pixel size of that file; without it, that of the scan.
        image_bin: average this many pixels by as many first, to get rid of the file's own blur.
        crop_bottom_px: rows of the file to leave out; without it, those of an information bar,
            if the file has one.
        working_distance_mm: where a specimen at the stage's start position is in focus.
        feature_size_nm: typical size of a particle, fibre, grain or pore.
        tile_px: edge of the procedural specimen before it repeats, mirrored.
        contrast: contrast of the specimen, 1 as drawn.
        mount_tilt_x_deg: slope of the mounted specimen along x, rising towards +x.
        mount_tilt_y_deg: slope along y, rising towards +y.
        relief_um: height from the lowest to the highest point of the specimen.
        height_map: grey image to take the heights from, white is high; without it, the
            heights the procedural specimen was drawn with, or the brightness of an image.
    """

    kind: SpecimenKind = "particles"
    path: str | None = None
    image_pixel_size_nm: Positive | None = None
    image_bin: Annotated[int, Meta(ge=1, le=16)] = 1
    crop_bottom_px: Annotated[int, Meta(ge=0)] | None = None
    working_distance_mm: Positive = 5.0
    feature_size_nm: Positive = 300.0
    tile_px: Annotated[int, Meta(ge=64, le=8192)] = 2048
    contrast: Annotated[float, Meta(ge=0, le=1)] = 1.0
    mount_tilt_x_deg: Annotated[float, Meta(ge=-60, le=60)] = 0.0
    mount_tilt_y_deg: Annotated[float, Meta(ge=-60, le=60)] = 0.0
    relief_um: NotNegative = 0.0
    height_map: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.kind == "image") != (self.path is not None):
            raise ValueError("path: needed with kind 'image', and allowed with no other kind")


class DetectorOptions(Section, frozen=True, kw_only=True):
    """From electrons to grey values.

    Attributes:
        yield_dark: electrons detected per primary where the specimen is darkest.
        yield_bright: the same where it is brightest.
        black_level: grey value without any signal, as a fraction of full scale.
        white_level: grey value of the brightest specimen.
        bandwidth_mhz: -3 dB bandwidth of the detector and its amplifier.
        read_noise: standard deviation per pixel and scan, as a fraction of full scale.
        line_noise: standard deviation of the offset common to a line.
        line_jitter_px: standard deviation of the displacement of a line along the fast axis.
        brightness_drift: step, per frame, of a random walk of the grey offset, as a fraction of
            full scale: contamination, charging, somebody at the knobs.
        contrast_drift: step of a random walk of the logarithm of the collected signal.
    """

    name: str = "SE"
    yield_dark: NotNegative = 0.15
    yield_bright: Positive = 0.9
    black_level: Fraction = 0.06
    white_level: Fraction = 0.9
    bandwidth_mhz: Positive = 10.0
    read_noise: NotNegative = 0.01
    line_noise: NotNegative = 0.002
    line_jitter_px: NotNegative = 0.1
    brightness_drift: NotNegative = 0.0
    contrast_drift: NotNegative = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_range("yield_dark, yield_bright", (self.yield_dark, self.yield_bright), "")
        _require_range("black_level, white_level", (self.black_level, self.white_level), "")


class StageOptions(Section, frozen=True, kw_only=True):
    """The specimen stage.

    Attributes:
        backlash_um: play of x, y and z between the reported and the true position.
        settle_ms: time the driver waits after a move.
        creep_fraction: part of a move that is only reached afterwards, exponentially.
        creep_time_s: time constant of that.
    """

    x_mm: float = 0.0
    y_mm: float = 0.0
    z_mm: float = 10.0
    rotation_deg: float = 0.0
    tilt_deg: float = 0.0
    x_range_mm: Pair = (-50.0, 50.0)
    y_range_mm: Pair = (-50.0, 50.0)
    z_range_mm: Pair = (0.0, 30.0)
    rotation_range_deg: Pair = (-360.0, 360.0)
    tilt_range_deg: Pair = (-10.0, 60.0)
    speed_mm_per_s: Positive = 1.0
    rotation_speed_deg_per_s: Positive = 10.0
    backlash_um: NotNegative = 0.3
    settle_ms: NotNegative = 300.0
    creep_fraction: Annotated[float, Meta(ge=0, le=0.1)] = 0.0
    creep_time_s: Positive = 5.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for axis, unit in (
            ("x", "mm"),
            ("y", "mm"),
            ("z", "mm"),
            ("rotation", "deg"),
            ("tilt", "deg"),
        ):
            limits: Pair = getattr(self, f"{axis}_range_{unit}")
            _require_range(f"{axis}_range_{unit}", limits, unit)
            _require_within(f"{axis}_{unit}", getattr(self, f"{axis}_{unit}"), limits, unit)
        _require_within("tilt_range_deg", self.tilt_range_deg[0], (-75.0, 75.0), "deg")
        _require_within("tilt_range_deg", self.tilt_range_deg[1], (-75.0, 75.0), "deg")


class DriftOptions(Section, frozen=True, kw_only=True):
    """How the specimen moves by itself; z is the focus, positive towards the pole piece."""

    x_nm_per_s: float = 0.3
    y_nm_per_s: float = 0.2
    z_nm_per_s: float = 0.0
    walk_xy_nm_per_sqrt_s: NotNegative = 0.0
    walk_z_nm_per_sqrt_s: NotNegative = 0.0


class ChargingOptions(Section, frozen=True, kw_only=True):
    """Shadows that bright, charged features draw along the fast axis.

    Attributes:
        strength: depth of the shadow relative to the feature; negative makes it bright.
        length_px: length over which the charge leaks away.
    """

    strength: Annotated[float, Meta(ge=-1, le=1)] = 0.0
    length_px: Positive = 40.0


class Fault(Section, frozen=True, kw_only=True):
    """When something goes wrong.

    Attributes:
        at: numbers, from 1, of the exposures (or commands) it happens to.
        probability: chance that it happens to any other one.
    """

    at: tuple[Count, ...] = ()
    probability: Fraction = 0.0


class LateFault(Fault, frozen=True, kw_only=True):
    """A frame that is handed over late, by ``delay_s`` of the clock, not of simulated time."""

    delay_s: Positive = 2.0


class IncompleteFault(Fault, frozen=True, kw_only=True):
    """A frame of which only the first ``fraction`` of the rows arrived."""

    fraction: Annotated[float, Meta(gt=0, lt=1)] = 0.5


class FaultOptions(Section, frozen=True, kw_only=True):
    """Faults on demand. ``refused`` and ``ignored`` strike commands, the others exposures."""

    frozen: Fault = Fault()
    incomplete: IncompleteFault = IncompleteFault()
    saturated: Fault = Fault()
    blank: Fault = Fault()
    wrong_size: Fault = Fault()
    late: LateFault = LateFault()
    disconnect: Fault = Fault()
    refused: Fault = Fault()
    ignored: Fault = Fault()


class SimulatedOptions(Section, frozen=True, kw_only=True):
    """Everything the driver ``simulated`` takes.

    Attributes:
        seed: of the specimen, the noise, the drift and the faults.
        speed: 1 is real time, 10 ten times as fast, 0 as fast as the machine can. Simulated
            time, and with it drift, always advances by the nominal duration of what was done.
    """

    seed: Annotated[int, Meta(ge=0)] = 0
    speed: NotNegative = 1.0
    scan: ScanOptions = ScanOptions()
    column: ColumnOptions = ColumnOptions()
    specimen: SpecimenOptions = SpecimenOptions()
    detector: DetectorOptions = DetectorOptions()
    stage: StageOptions = StageOptions()
    drift: DriftOptions = DriftOptions()
    charging: ChargingOptions = ChargingOptions()
    faults: FaultOptions = FaultOptions()
