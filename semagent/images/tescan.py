"""TESCAN: TIFF tag 50431, or the same text in a ``.hdr`` file beside the image.

The tag is a row of blocks, each with its length (4 bytes, counting the type but not itself),
its type (2 bytes) and its data: a thumbnail, then ``key=value`` lines for the image and for
each column. A header file, and some programs' tags, have the lines under ``[MAIN]`` and
``[SEM]`` instead.
"""

import struct
from collections.abc import Mapping

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

_BLOCK_SECTIONS = {2: "MAIN", 3: "SEM"}
_BLOCK_HEADER = struct.Struct("<IH")
_TYPE_BYTES = 2


def read_tescan(data: bytes, image_height: int) -> ImageMetadata | None:
    """Read a tag or a header file; ``None`` if it is neither.

    Lengths are metres, times seconds, voltages volts, currents amperes and angles degrees. The
    scale of the stigmators is not written down anywhere, so they are left out.
    """
    sections = _blocks(data) or _ini(data.decode("latin-1"))
    main, sem = sections.get("MAIN", {}), sections.get("SEM", {})
    if not main and not sem:
        return None

    bar = to_si(main.get("ImageStripSize"), FRACTION)
    averages = to_si(main.get("AccFrames"), FRACTION)
    return ImageMetadata(
        vendor="TESCAN",
        instrument=text(main.get("DeviceModel")) or text(main.get("Device")),
        working_distance_m=positive(to_si(sem.get("WD"), LENGTH, "m")),
        pixel_size_m=positive(to_si(main.get("PixelSizeX"), LENGTH, "m")),
        pixel_height_m=positive(to_si(main.get("PixelSizeY"), LENGTH, "m")),
        dwell_s=positive(to_si(sem.get("DwellTime"), TIME, "s")),
        frame_averages=None if averages is None else max(1, int(averages)),
        accelerating_voltage_v=positive(to_si(sem.get("HV"), VOLTAGE, "v")),
        beam_current_a=positive(to_si(sem.get("BeamCurrent"), CURRENT, "a"))
        or positive(to_si(sem.get("PredictedBeamCurrent"), CURRENT, "a")),
        stage=StagePosition(
            x_m=to_si(sem.get("StageX"), LENGTH, "m"),
            y_m=to_si(sem.get("StageY"), LENGTH, "m"),
            z_m=to_si(sem.get("StageZ"), LENGTH, "m"),
            rotation_rad=to_si(sem.get("StageRotation"), ANGLE, "deg"),
            tilt_rad=to_si(sem.get("StageTilt"), ANGLE, "deg"),
        ),
        magnification=positive(to_si(main.get("Magnification"), MAGNIFICATION)),
        detector=text(sem.get("Detector")) or text(sem.get("Detector0")),
        info_bar_px=int(bar) if bar is not None and 0 <= bar < image_height / 2 else None,
    )


def _blocks(data: bytes) -> dict[str, Mapping[str, str]]:
    """The text blocks by section; empty if ``data`` is not a row of blocks."""
    sections: dict[str, Mapping[str, str]] = {}
    start = 0
    while start + _BLOCK_HEADER.size <= len(data):
        length, kind = _BLOCK_HEADER.unpack_from(data, start)
        end = start + _BLOCK_HEADER.size - _TYPE_BYTES + length
        if length < _TYPE_BYTES or end > len(data):
            return {}
        if kind in _BLOCK_SECTIONS:
            lines = data[start + _BLOCK_HEADER.size : end].decode("latin-1")
            sections[_BLOCK_SECTIONS[kind]] = _ini(f"[]\n{lines}")[""]
        start = end
    return sections


def _ini(lines: str) -> dict[str, dict[str, str]]:
    """Sections of ``key=value`` lines; what comes before the first section is skipped."""
    sections: dict[str, dict[str, str]] = {}
    section: dict[str, str] | None = None
    for line in lines.splitlines():
        stripped = line.strip("\0 \t")
        if stripped.startswith("[") and stripped.endswith("]"):
            section = sections.setdefault(stripped[1:-1], {})
        elif section is not None and "=" in stripped:
            key, _, value = stripped.partition("=")
            section[key.strip()] = value.strip()
    return sections
