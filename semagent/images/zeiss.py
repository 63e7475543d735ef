"""ZEISS SmartSEM: TIFF tag 34118, parsed into a dictionary by tifffile."""

from collections.abc import Mapping
from typing import Any

from semagent.images.metadata import ImageMetadata
from semagent.images.units import (
    ANGLE,
    CURRENT,
    FRACTION,
    LENGTH,
    MAGNIFICATION,
    TIME,
    VOLTAGE,
    positive,
    text,
    to_si,
)
from semagent.types import StagePosition

# The tag begins with unnamed numbers: 0, 0, then one block for each of four image zones:
# zone, pixel size, magnification, -, voltage, filament current, probe current, working distance.
_ZONES_START, _ZONE_FIELDS, _ZONE_WORKING_DISTANCE = 2, 8, 7

# The named working distance is rounded to 0.1 mm, with some margin for what it is rounded from.
_WORKING_DISTANCE_ROUNDING_M = 0.06e-3

# Shown where the probe current has not been measured.
_PROBE_CURRENT_PLACEHOLDER_A = 200e-9


def read_zeiss(tag: Mapping[str, Any], image_width: int) -> ImageMetadata:
    """Read what tifffile made of tag 34118.

    Args:
        tag: key in lower case to (label, value) or (label, value, unit); the key "" holds the
            unnamed numbers.
        image_width: columns of the image.
    """

    def get(key: str, units: Mapping[str, float]) -> float | None:
        entry = tag.get(key, ())
        return to_si(" ".join(str(part) for part in entry[1:]), units)

    def name(key: str) -> str | None:
        entry = tag.get(key, ())
        return text(entry[1]) if len(entry) > 1 else None

    # AP_PIXEL_SIZE is the pixel of a 1024-column screen, not that of the stored image.
    field_width_m = get("ap_width", LENGTH)
    pixel_size_m = get("ap_image_pixel_size", LENGTH)
    if pixel_size_m is None and field_width_m is not None:
        pixel_size_m = field_width_m / image_width

    averages = _averages(tag)
    current_a = get("ap_iprobe", CURRENT)
    if current_a == _PROBE_CURRENT_PLACEHOLDER_A:
        current_a = None
    return ImageMetadata(
        vendor="ZEISS",
        instrument=name("sv_serial_number"),
        working_distance_m=positive(_working_distance_m(tag, get("ap_wd", LENGTH))),
        pixel_size_m=positive(pixel_size_m),
        dwell_s=_dwell_s(tag, get("dp_dwell_time", TIME), get("ap_line_time", TIME), image_width),
        frame_averages=averages,
        accelerating_voltage_v=get("ap_actualkv", VOLTAGE) or get("ap_manualkv", VOLTAGE),
        beam_current_a=positive(current_a),
        stigmator_x=get("ap_stig_x", FRACTION),
        stigmator_y=get("ap_stig_y", FRACTION),
        stage=StagePosition(
            x_m=get("ap_stage_at_x", LENGTH),
            y_m=get("ap_stage_at_y", LENGTH),
            z_m=get("ap_stage_at_z", LENGTH),
            rotation_rad=get("ap_stage_at_r", ANGLE),
            tilt_rad=get("ap_stage_at_t", ANGLE),
        ),
        magnification=get("ap_mag", MAGNIFICATION),
        detector=name("dp_detector_channel"),
    )


def _working_distance_m(tag: Mapping[str, Any], rounded_m: float | None) -> float | None:
    """The working distance to the nanometre, if the unnamed numbers agree with the named one.

    The named value has steps of 0.1 mm, far more than a depth of field.
    """
    numbers = tag.get("", ())
    zone = _number(tag, "dp_zone") or 0
    start = _ZONES_START + int(zone) * _ZONE_FIELDS
    block = numbers[start : start + _ZONE_FIELDS]
    if rounded_m is None or len(block) < _ZONE_FIELDS or block[0] != zone:
        return rounded_m
    exact_m = to_si(block[_ZONE_WORKING_DISTANCE], LENGTH, "m")
    if exact_m is None or abs(exact_m - rounded_m) > _WORKING_DISTANCE_ROUNDING_M:
        return rounded_m
    return exact_m


def _number(tag: Mapping[str, Any], key: str) -> float | None:
    """A dimensionless entry."""
    entry = tag.get(key, ())
    return to_si(entry[1], FRACTION) if len(entry) > 1 else None


def _averages(tag: Mapping[str, Any]) -> int | None:
    """How often each pixel was scanned; the counters of modes that are off keep their values."""
    entry = tag.get("dp_noise_reduction", ())
    mode = str(entry[1]).lower() if len(entry) > 1 else ""
    for word, counter in (
        ("line avg", "ap_line_average_count"),
        ("line int", "ap_line_int_count"),
        ("frame avg", "ap_frame_average_count"),
        ("frame int", "ap_frame_int_count"),
    ):
        if word in mode:
            return max(1, int(_number(tag, counter) or 1))
    return 1 if "pixel avg" in mode else None


def _dwell_s(
    tag: Mapping[str, Any], base_s: float | None, line_s: float | None, width: int
) -> float | None:
    """The dwell time, if it fits the line time.

    DP_DWELL_TIME is that of the fastest scan; each step of the scan speed doubles it. A line
    takes its pixels' dwell and the fly-back, so a shorter line, or one of more than one and a
    half times that, shows that the rule does not hold on this instrument.
    """
    speed = _number(tag, "dp_scanrate")
    if base_s is None or line_s is None or speed is None or not 1 <= speed <= 20:
        return None
    entry = tag.get("dp_noise_reduction", ())
    lines = (_averages(tag) or 1) if len(entry) > 1 and "line" in str(entry[1]).lower() else 1
    dwell_s = base_s * 2.0 ** (speed - 1)
    return dwell_s if width * dwell_s <= line_s / lines <= 1.5 * width * dwell_s else None
