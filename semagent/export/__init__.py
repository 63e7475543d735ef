"""A recorded session as one OME-TIFF file or one OME-Zarr folder, for other programs.

Frames go through one at a time, so a session may be larger than the memory. What other programs
hold as one image are frames of one size, depth, pixel size and detector; a session with several
such kinds becomes several images. Restored frames are images of their own, and only on request.
"""

import contextlib
import shutil
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

import msgspec

from semagent.errors import UsageError
from semagent.export.gathering import Gathering, Sink
from semagent.session import SessionReader
from semagent.session.layout import PARTIAL
from semagent.session.omexml import OmeImage
from semagent.session.storage import RESERVE_BYTES, mapped_errors, rename

__all__ = ["Exported", "ExportedImage", "Target", "export_session"]


class Target(StrEnum):
    """What a session can be exported to."""

    OME_TIFF = "ome-tiff"
    OME_ZARR = "ome-zarr"


_ENDINGS = {
    Target.OME_TIFF: (".ome.tif", ".ome.tiff"),
    Target.OME_ZARR: (".zarr",),
}


class ExportedImage(msgspec.Struct, frozen=True, kw_only=True):
    """One image of an export.

    Attributes:
        dtype: ``uint8`` or ``uint16``, as recorded.
        derived: made by an engine, not by the microscope.
    """

    name: str
    frames: int
    width_px: int
    height_px: int
    dtype: str
    detector: str
    pixel_size_m: float | None
    derived: bool


class Exported(msgspec.Struct, frozen=True, kw_only=True):
    """What an export has written.

    Attributes:
        frames: raw ones.
        left_out: why a frame of the session is not in it, one sentence a frame.
    """

    output: str
    to: Target
    frames: int
    images: tuple[ExportedImage, ...]
    left_out: tuple[str, ...]


def export_session(
    session: SessionReader,
    output: Path,
    target: Target,
    *,
    derived: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Exported:
    """Export a session. The pixels of every raw frame are compared with their recorded hash.

    Args:
        session: what to export; of a salvaged one, what could be read.
        output: a new file or folder with the ending of its kind.
        target: which kind.
        derived: whether restored frames come along, as images of their own.
        progress: is told how many frames of how many are done.

    Raises:
        InputFileError: none of its frames can be read.
        UsageError: the output is there already, has another ending or cannot be written, or what
            writes it is not installed.
    """
    endings = _ENDINGS[target]
    if not output.name.lower().endswith(endings):
        raise UsageError(f"{output}: does not end in {' or '.join(endings)}")
    if output.exists():
        raise UsageError(f"{output}: is there already; nothing is overwritten")
    partial = output.with_name(output.name + PARTIAL)
    try:
        with mapped_errors(output, UsageError):
            _remove(partial)  # an export that was killed has left it
            smaller_ones = 4 / 3 if target is Target.OME_ZARR else 1  # half the size, a quarter, …
            _require_room(session, output, (2 if derived else 1) * smaller_ones)
            with contextlib.closing(_open(target, partial, session)) as sink:
                gathering = Gathering(sink)
                gathering.take(session, derived=derived, progress=progress or _silent)
                images = gathering.images()
                sink.finish(images)
            rename(partial, output)
    finally:
        _remove(partial)
    return Exported(
        output=str(output),
        to=target,
        frames=sum(len(image.planes) for image in images if not image.derived),
        images=tuple(_described(image) for image in images),
        left_out=tuple(gathering.left_out),
    )


def _require_room(session: SessionReader, output: Path, copies: float) -> None:
    """A full disk would end the recording of a run that goes on."""
    needed = copies * sum(
        record.header.scan.width_px
        * record.header.scan.height_px
        * record.header.scan.bit_depth
        // 8
        for record in session.frame_records
    )
    free = shutil.disk_usage(output.absolute().parent).free
    if free < needed + RESERVE_BYTES:
        raise UsageError(
            f"{output}: {needed / 1e9:.2f} GB are needed, {free / 1e9:.2f} GB are free, and "
            f"{RESERVE_BYTES / 1e9:.2f} GB are kept in reserve; export to another disk"
        )


def _open(target: Target, partial: Path, session: SessionReader) -> Sink:
    if target is Target.OME_TIFF:
        from semagent.export.tiff import TiffSink  # noqa: PLC0415 - each needs its own library

        return TiffSink(partial, session.frame_records)
    try:
        from semagent.export.zarr import ZarrSink  # noqa: PLC0415 - zarr is an extra
    except ModuleNotFoundError as error:
        raise UsageError(
            f"OME-Zarr needs {error.name}: install the extra, pip install 'semagent[zarr]'"
        ) from error
    return ZarrSink(partial)


def _described(image: OmeImage) -> ExportedImage:
    header = image.planes[0].header
    return ExportedImage(
        name=image.name,
        frames=len(image.planes),
        width_px=image.shape[1],
        height_px=image.shape[0],
        dtype=image.pixel_type,
        detector=header.detector,
        pixel_size_m=header.scan.pixel_size_m,
        derived=image.derived,
    )


def _silent(done: int, total: int) -> None:
    pass


def _remove(partial: Path) -> None:
    if partial.is_dir():
        shutil.rmtree(partial)
    else:
        partial.unlink(missing_ok=True)
