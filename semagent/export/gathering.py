"""Which frames become one image, and what is said of each."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from semagent.dose import DoseMeter
from semagent.errors import InputFileError
from semagent.session import SessionReader
from semagent.session.jsontext import to_json
from semagent.session.omexml import (
    DERIVED_NAMESPACE,
    DOSE_NAMESPACE,
    HEADER_NAMESPACE,
    OmeImage,
    OmePlane,
)
from semagent.types import FrameHeader, Pixels

_RAW = "Raw frames as the microscope delivered them."
_DERIVED = (
    "DERIVED DATA, not raw micrographs: restored by an engine from the raw frames of this session; "
    "each frame names its own. Do not measure grey values here."
)


class Sink(Protocol):
    """What writes an export."""

    def add(self, image: int, time: int, header: FrameHeader, pixels: Pixels) -> int | None:
        """Write a frame as the one at place ``time`` of image number ``image``.

        Returns:
            The number of its page, ``None`` where there are no pages.
        """
        ...

    def finish(self, images: Sequence[OmeImage]) -> None:
        """Write what is known of the images once all frames are there."""
        ...

    def close(self) -> None:
        """Let go of the file. May be called twice."""
        ...


class Kind(NamedTuple):
    """What frames of one image have in common; the pixel size is that of the first of them."""

    derived: bool
    shape: tuple[int, int]
    pixel_type: str
    pixel_size_m: float | None
    detector: str


class Gathering:
    """Passes frames on to a sink and remembers them.

    Attributes:
        left_out: why a frame is not among them, one sentence a frame.
    """

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._planes: dict[Kind, list[OmePlane]] = {}
        self._pixel_sizes_m: dict[int, float | None] = {}
        self.left_out: list[str] = []

    def take(
        self, session: SessionReader, *, derived: bool, progress: Callable[[int, int], None]
    ) -> None:
        """Pass on all frames of a session, raw ones first; what cannot be read is left out.

        Raises:
            InputFileError: not one raw frame can be read.
        """
        records = session.frame_records
        restored = session.derived_records if derived else []
        total = len(records) + len(restored)
        meter = DoseMeter()
        for done, record in enumerate(records, start=1):
            header = record.header
            meter.add(header)
            try:
                pixels = session.frame(header.sequence, verify=True).pixels
            except InputFileError as error:
                self.left_out.append(str(error))
            else:
                notes = {
                    HEADER_NAMESPACE: to_json(header),
                    DOSE_NAMESPACE: to_json(meter.reading()),
                }
                self._add(header, pixels, notes, derived=False)
            progress(done, total)
        if not self._planes:
            raise InputFileError(f"{session.folder}: none of its {len(records)} frames can be read")
        headers = {record.header.sequence: record.header for record in records}
        for done, made in enumerate(restored, start=len(records) + 1):
            raw = headers.get(made.sequence)
            try:
                if raw is None:
                    raise InputFileError(f"{made.file}: its raw frame is not in the session")
                pixels, figures = session.restored(made)
            except InputFileError as error:
                self.left_out.append(str(error))
            else:
                about = {"record": made, "figures": figures}
                notes = {HEADER_NAMESPACE: to_json(raw), DERIVED_NAMESPACE: to_json(about)}
                self._add(raw, pixels, notes, derived=True)
            progress(done, total)

    def images(self) -> list[OmeImage]:
        """The images, in the order of their first frames."""
        return [
            OmeImage(
                name=f"{kind.detector}, {'restored (derived, not raw)' if kind.derived else 'raw'}",
                description=_DERIVED if kind.derived else _RAW,
                shape=kind.shape,
                pixel_type=kind.pixel_type,
                planes=planes,
                derived=kind.derived,
            )
            for kind, planes in self._planes.items()
        ]

    def _add(
        self, header: FrameHeader, pixels: Pixels, notes: dict[str, str], *, derived: bool
    ) -> None:
        height, width = pixels.shape
        # On some columns the field follows the focus, with nobody changing the settings.
        size_m = self._pixel_sizes_m.setdefault(header.settings_rev, header.scan.pixel_size_m)
        kind = Kind(derived, (height, width), pixels.dtype.name, size_m, header.detector)
        planes = self._planes.setdefault(kind, [])
        image = list(self._planes).index(kind)
        page = self._sink.add(image, len(planes), header, pixels)
        planes.append(OmePlane(header, page, notes))
