"""FEI and Thermo Fisher: TIFF tags 34680 and 34682, parsed into sections by tifffile."""

from collections.abc import Mapping
from typing import Any

from semagent.images.metadata import ImageMetadata, bar_below
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

Sections = Mapping[str, Mapping[str, Any]]


def read_thermo(tag: Sections, image_width: int, image_height: int) -> ImageMetadata:
    """Read what tifffile made of tag 34680 or 34682; all numbers are SI but those of XL columns.

    Args:
        tag: section to key to value.
        image_width: columns of the image.
        image_height: rows of the image, information bar included.
    """
    if "Vector" in tag:
        return _read_xl(tag, image_width, image_height)
    return _read_xt(tag, image_height)


def _read_xt(tag: Sections, image_height: int) -> ImageMetadata:
    """The sections of xT, from Quanta to Helios 5."""
    beam = tag.get("Beam", {})
    column = tag.get(str(beam.get("Beam", "EBeam")), {})
    scan, stage, image = tag.get("Scan", {}), tag.get("Stage", {}), tag.get("Image", {})
    canvas_m = to_si(image.get("MagCanvasRealWidth"), LENGTH, "m")
    field_m = positive(to_si(scan.get("HorFieldsize"), LENGTH, "m"))
    landing_v = to_si(tag.get("EBeamDeceleration", {}).get("LandingEnergy"), VOLTAGE, "v")
    working_distance_m = to_si(column.get("WD"), LENGTH, "m")
    if working_distance_m is None:
        working_distance_m = to_si(stage.get("WorkingDistance"), LENGTH, "m")
    return ImageMetadata(
        vendor="Thermo Fisher",
        instrument=text(tag.get("System", {}).get("SystemType")),
        working_distance_m=positive(working_distance_m),
        pixel_size_m=positive(to_si(scan.get("PixelWidth"), LENGTH, "m")),
        pixel_height_m=positive(to_si(scan.get("PixelHeight"), LENGTH, "m")),
        dwell_s=positive(to_si(scan.get("Dwelltime"), TIME, "s")),
        frame_averages=_averages(image),
        accelerating_voltage_v=positive(landing_v) or to_si(beam.get("HV"), VOLTAGE, "v"),
        beam_current_a=positive(to_si(column.get("BeamCurrent"), CURRENT, "a")),
        stigmator_x=to_si(beam.get("StigmatorX"), FRACTION),
        stigmator_y=to_si(beam.get("StigmatorY"), FRACTION),
        stage=StagePosition(
            x_m=to_si(stage.get("StageX"), LENGTH, "m"),
            y_m=to_si(stage.get("StageY"), LENGTH, "m"),
            z_m=to_si(stage.get("StageZ"), LENGTH, "m"),
            rotation_rad=to_si(stage.get("StageR"), ANGLE, "rad"),
            tilt_rad=to_si(stage.get("StageT"), ANGLE, "rad"),
        ),
        magnification=canvas_m / field_m if canvas_m and field_m else None,
        detector=text(tag.get("Detectors", {}).get("Name")),
        info_bar_px=_info_bar_px(tag, image_height),
    )


def _averages(image: Mapping[str, Any]) -> int | None:
    """Scans in the frame: one of the two counters is above 0 if frames were combined."""
    counts = [to_si(image.get(key), FRACTION) for key in ("Average", "Integrate")]
    known = [int(count) for count in counts if count is not None]
    return max(1, *known) if known else None


def _info_bar_px(tag: Sections, image_height: int) -> int | None:
    """Rows below the scan; DatabarHeight stays in the file when the bar was not saved."""
    rows = to_si(tag.get("Image", {}).get("ResolutionY"), FRACTION)
    if rows is not None and int(rows) == image_height:
        return 0
    return bar_below(image_height, None if rows is None else int(rows))


def _read_xl(tag: Sections, image_width: int, image_height: int) -> ImageMetadata:
    """The older format of XL and SFEG columns: millimetres, and a pixel that is not square.

    ``ImageDevice.SizeY`` is the height in millimetres, and ``RatioXY`` times it the width, that
    the magnification refers to; the drawn micron bars agree with that. The scale of the
    stigmators and of the stage is not known to us, so they are left out.
    """
    vector, device = tag["Vector"], tag.get("ImageDevice", {})
    magnification = positive(to_si(vector.get("Magnification"), MAGNIFICATION))
    device_height_m = to_si(device.get("SizeY"), LENGTH, "mm")
    aspect = to_si(device.get("RatioXY"), FRACTION)
    pixel_size_m = pixel_height_m = None
    if magnification and device_height_m and aspect:
        pixel_size_m = device_height_m * aspect / magnification / image_width
        pixel_height_m = device_height_m / magnification / image_height
    return ImageMetadata(
        vendor="FEI",
        working_distance_m=positive(to_si(vector.get("FWD"), LENGTH, "mm")),
        pixel_size_m=positive(pixel_size_m),
        pixel_height_m=positive(pixel_height_m),
        accelerating_voltage_v=positive(to_si(vector.get("HighTension"), VOLTAGE, "v")),
        magnification=magnification,
    )
