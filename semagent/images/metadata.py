"""What the file of a micrograph says about how it was taken."""

from typing import Any

import msgspec

from semagent.types import StagePosition, Value


class ImageMetadata(Value, frozen=True, kw_only=True):
    """A micrograph's acquisition settings; ``None`` where the file does not say.

    Attributes:
        vendor: whose format the settings were written in, e.g. ``ZEISS``.
        instrument: model or serial number, as the vendor writes it.
        working_distance_m: distance from the pole piece to the plane in focus.
        pixel_size_m: width of a pixel (fast scan axis) in the specimen plane.
        pixel_height_m: height of a pixel (slow scan axis), where the file says it.
        dwell_s: time the beam spends on a pixel in one scan.
        frame_averages: how often each pixel was scanned, by lines or by frames.
        accelerating_voltage_v: landing energy in volts.
        beam_current_a: current on the specimen.
        stigmator_x: fraction of the full range, -1 to 1.
        stigmator_y: fraction of the full range, -1 to 1.
        stage: position of the stage.
        magnification: as the vendor reports it.
        detector: name of the detector.
        info_bar_px: rows of information bar at the bottom; 0 if the file says there are none.
    """

    vendor: str | None = None
    instrument: str | None = None
    working_distance_m: float | None = None
    pixel_size_m: float | None = None
    pixel_height_m: float | None = None
    dwell_s: float | None = None
    frame_averages: int | None = None
    accelerating_voltage_v: float | None = None
    beam_current_a: float | None = None
    stigmator_x: float | None = None
    stigmator_y: float | None = None
    stage: StagePosition = StagePosition()
    magnification: float | None = None
    detector: str | None = None
    info_bar_px: int | None = None


def merge(*sources: ImageMetadata) -> ImageMetadata:
    """Take every field from the first source that has it."""
    fields: dict[str, Any] = {}
    for source in sources:
        for name, value in msgspec.structs.asdict(source).items():
            if fields.get(name) in (None, StagePosition()):
                fields[name] = value
    return ImageMetadata(**fields)


def bar_below(image_rows: int, specimen_rows: int | None) -> int | None:
    """Rows of information bar in an image that is taller than its scan.

    A bar that is drawn over the scan leaves the height as it was, so equal heights say
    nothing; and a height below that of the scan means that the image was scaled.
    """
    if specimen_rows is None or not 0 < specimen_rows < image_rows < 2 * specimen_rows:
        return None
    return image_rows - specimen_rows
