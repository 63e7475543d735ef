"""JEOL and Hitachi: a text file beside the image, with its name and the ending ``.txt``."""

import codecs
import re
from pathlib import Path

from semagent.images.metadata import ImageMetadata, bar_below
from semagent.images.tescan import read_tescan
from semagent.images.units import (
    CURRENT,
    LENGTH,
    MAGNIFICATION,
    VOLTAGE,
    positive,
    text,
    to_si,
)
from semagent.types import StagePosition

_HITACHI_SECTION = "[SemImageFile]"
_SIZE = re.compile(r"(\d+)\s*[xX ]\s*(\d+)")
_MAX_BYTES = 1 << 20  # a text file of settings has a few kilobytes


def read_sidecar(image: Path, image_height: int) -> ImageMetadata | None:
    """Read the settings that lie beside an image; ``None`` if there are none.

    TESCAN's ``name-tif.hdr`` is read too, which is where images other than TIFF have them.

    Raises:
        OSError: a file is there and cannot be read.
    """
    for candidate in (image.with_suffix(".txt"), image.with_suffix(".TXT")):
        if candidate.is_file() and candidate.stat().st_size <= _MAX_BYTES:
            lines = _decode(candidate.read_bytes())
            if _HITACHI_SECTION in lines:
                return _read_hitachi(lines, image_height)
            if "$CM_" in lines or "$$SM_" in lines:
                return _read_jeol(lines, image_height)
    header = image.with_name(f"{image.stem}-{image.suffix[1:]}.hdr")
    if header.is_file() and header.stat().st_size <= _MAX_BYTES:
        return read_tescan(header.read_bytes(), image_height)
    return None


def _decode(data: bytes) -> str:
    """The text in the encodings these programs use, recognised by mark or by zero bytes."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", errors="replace")
    if data[1:2] == b"\0":
        return data.decode("utf-16-le", errors="replace")
    if data[:1] == b"\0":
        return data.decode("utf-16-be", errors="replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace")


def _rows(size: str | None) -> int | None:
    """The rows in ``1280x960`` or ``1280 960``."""
    match = _SIZE.match(size or "")
    return int(match[2]) if match else None


def _read_jeol(lines: str, image_height: int) -> ImageMetadata:
    """``$CM_`` and ``$$SM_`` keys: kilovolts, and millimetres but for the micron marker."""
    keys: dict[str, str] = {}
    for line in lines.splitlines():
        key, _, value = line.strip().partition(" ")
        keys[key] = value.strip()

    marker_m = to_si(keys.get("$$SM_MICRON_MARKER"), LENGTH)
    marker_px = positive(to_si(keys.get("$$SM_MICRON_BAR"), {"": 1.0}))
    stage = [to_si(part, LENGTH, "mm") for part in keys.get("$CM_STAGE_POS", "").split()[:3]]
    x_m, y_m, z_m = stage if len(stage) == 3 else (None, None, None)
    return ImageMetadata(
        vendor="JEOL",
        instrument=text(keys.get("$CM_INSTRUMENT")),
        working_distance_m=positive(to_si(keys.get("$$SM_WD"), LENGTH, "mm")),
        pixel_size_m=positive(marker_m / marker_px) if marker_m and marker_px else None,
        accelerating_voltage_v=positive(to_si(keys.get("$CM_ACCEL_VOLT"), VOLTAGE, "kv")),
        # The order of rotation and tilt differs between models.
        stage=StagePosition(x_m=x_m, y_m=y_m, z_m=z_m),
        magnification=positive(to_si(keys.get("$CM_MAG"), MAGNIFICATION)),
        detector=text(keys.get("$CM_SIGNAL")),
        info_bar_px=bar_below(image_height, _rows(keys.get("$CM_FULL_SIZE"))),
    )


def _read_hitachi(lines: str, image_height: int) -> ImageMetadata:
    """``key=value`` lines: micrometres for working distance, nanometres for pixel and stage."""
    keys: dict[str, str] = {}
    for line in lines[lines.index(_HITACHI_SECTION) :].splitlines():
        key, separator, value = line.partition("=")
        if separator:
            keys[key.strip()] = value.strip()

    working_distance_m = to_si(keys.get("WorkingDistance"), LENGTH, "um")
    voltage_v = to_si(keys.get("AcceleratingVoltage"), VOLTAGE, "v")
    # Older models have them only in the line that is printed into the image.
    for word in keys.get("Condition", "").split():
        name, _, value = word.partition("=")
        if name == "WD" and working_distance_m is None:
            working_distance_m = to_si(value, LENGTH, "mm")
        if name == "Vacc" and voltage_v is None:
            voltage_v = to_si(value, VOLTAGE, "kv")
    return ImageMetadata(
        vendor="Hitachi",
        instrument=text(keys.get("InstructName")),
        working_distance_m=positive(working_distance_m),
        pixel_size_m=positive(to_si(keys.get("PixelSize"), LENGTH, "nm")),
        accelerating_voltage_v=positive(voltage_v),
        beam_current_a=positive(to_si(keys.get("ProbeCurrent"), CURRENT)),
        stage=StagePosition(
            x_m=to_si(keys.get("StagePositionX"), LENGTH, "nm"),
            y_m=to_si(keys.get("StagePositionY"), LENGTH, "nm"),
            z_m=to_si(keys.get("StagePositionZ"), LENGTH, "nm"),
        ),
        magnification=positive(to_si(keys.get("Magnification"), MAGNIFICATION)),
        detector=text(keys.get("SignalName")),
        info_bar_px=bar_below(image_height, _rows(keys.get("DataSize"))),
    )
