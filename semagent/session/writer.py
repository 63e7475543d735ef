"""Recording a session as it happens."""

import contextlib
import functools
import platform
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import distributions
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from semagent import __version__
from semagent.clock import Clock
from semagent.errors import RecordError, UsageError
from semagent.session import ometiff
from semagent.session.jsontext import to_json
from semagent.session.layout import (
    DERIVED,
    DERIVED_CHANNEL,
    EVENT_CHANNEL,
    EVENTS,
    FORMAT,
    FORMAT_VERSION,
    FRAME_CHANNEL,
    FRAMES,
    MANIFEST,
    DerivedRecord,
    EngineRecord,
    FrameRecord,
    Manifest,
    configuration_sha256,
    derived_file,
    frame_file,
    pixels_sha256,
)
from semagent.session.storage import (
    Journal,
    file_above,
    mapped_errors,
    require_space,
    sync_folder,
    write_whole,
)
from semagent.types import (
    Capabilities,
    Event,
    Frame,
    FrameAnalysis,
    FrameHeader,
    Level,
    Pixels,
    Value,
)


class SessionWriter:
    """Writes one session into a new folder. Belongs to one thread.

    What a method has taken when it returns outlives the end of the process; a frame, and
    everything written before it, outlives the end of the machine too unless ``sync`` is off.

    A frame is on the disk before its line in the events, and its line before `write_frame`
    returns; so a line without a whole frame never exists. After a failure no further frame is
    taken: the record has no hole in it, only an end.

    Args:
        folder: where to; may exist if it is empty.
        configuration: the whole configuration as used.
        capabilities: what the driver says its microscope can do.
        engine: what analyses the frames.
        clock: for the wall times in the manifest and the stamps of the writer's own events.
        sync: wait for the device, not just the operating system, after every frame.

    Raises:
        UsageError: the folder holds something already, or cannot be made.
        RecordError: the disk has too little room, or a file cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        *,
        configuration: Mapping[str, Any],
        capabilities: Capabilities,
        engine: EngineRecord,
        clock: Clock,
        sync: bool = True,
    ) -> None:
        self.folder = folder
        self._clock = clock
        self._sync = sync
        self._next_sequence = 1
        self._frames = 0
        self._failure: str | None = None
        self._closed = False
        self._started_ns = clock.monotonic_ns()
        self._manifest = _new_manifest(configuration, clock.wall_ns(), capabilities, engine)
        with mapped_errors(folder, UsageError):
            if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
                raise UsageError(
                    f"{folder}: there is something here already, and a session never overwrites; "
                    "name a new folder"
                )
            if (file := file_above(folder)) is not None:
                raise UsageError(f"{folder}: {file} is a file, not a folder; name a new folder")
            require_space(folder, 0)
            new = [each for each in (folder, *folder.parents) if not each.exists()]
            (folder / FRAMES).mkdir(parents=True, exist_ok=True)
            (folder / DERIVED).mkdir(exist_ok=True)
            for each in new if sync else ():
                sync_folder(each.parent)
        # Whoever makes this file owns the folder: of two writers at once the second fails.
        self._journal = Journal(folder / EVENTS)
        try:
            self._write_manifest()
        except RecordError:
            self._journal.close(sync=False)
            raise

    def write_frame(self, frame: Frame) -> Path:
        """Record one raw frame; it is safe when this returns its file.

        Raises:
            RecordError: the frame does not follow the last one, or cannot be written; the events
                say why, and no further frame is taken.
        """
        self._require_open()
        if self._failure is not None:
            raise RecordError(f"{self._failure}; no more frames are taken")
        header = frame.header
        name = frame_file(header.sequence)
        path = self.folder / name
        with self._failure_recorded(header.sequence):
            if header.sequence != self._next_sequence:
                raise RecordError(
                    f"{self.folder}: frame {header.sequence} came where frame "
                    f"{self._next_sequence} was due; the record would have a gap"
                )
            self._write_file(path, ometiff.encode_raw(frame))
            self._journal.require()
            record = FrameRecord(file=name, sha256=pixels_sha256(frame.pixels), header=header)
            self._write_line(FRAME_CHANNEL, record, header.monotonic_ns, sync=self._sync)
        self._next_sequence += 1
        self._frames += 1
        return path

    def write_value(self, channel: str, value: Value, monotonic_ns: int) -> None:
        """Record one value of a channel other than the frames.

        Args:
            channel: its name in the table of channels.
            value: of the channel's type.
            monotonic_ns: when it came to be, on the acquiring machine's clock.

        Raises:
            RecordError: it cannot be written.
        """
        self._require_open()
        if channel in (FRAME_CHANNEL, DERIVED_CHANNEL):
            raise ValueError(f"channel {channel!r} has pixels: use write_{channel}")
        with self._failure_recorded(self._next_sequence - 1):
            self._write_line(channel, value, monotonic_ns)

    def write_derived(
        self,
        header: FrameHeader,
        pixels: Pixels,
        figures: FrameAnalysis,
        parameters: Mapping[str, Any],
    ) -> Path:
        """Record a restored frame beside the raw ones and return its file.

        Args:
            header: of the raw frame it was made from, which must have been recorded.
            pixels: shape (height, width), uint8 or uint16.
            figures: what the engine said of the raw frame.
            parameters: the options of that engine.

        Raises:
            RecordError: there is no such raw frame, it has a restored frame already, or the
                file cannot be written.
        """
        self._require_open()
        name = derived_file(header.sequence)
        path = self.folder / name
        record = DerivedRecord(
            file=name,
            sha256=pixels_sha256(pixels),
            raw_file=frame_file(header.sequence),
            sequence=header.sequence,
            engine=figures.engine,
        )
        with self._failure_recorded(header.sequence):
            if not (self.folder / record.raw_file).exists():
                raise RecordError(f"{path}: raw frame {header.sequence} has not been recorded")
            if path.exists():
                raise RecordError(f"{path}: there already, and nothing is ever overwritten")
            data = ometiff.encode_derived(header, pixels, record, figures, parameters)
            self._write_file(path, data)
            self._write_line(DERIVED_CHANNEL, record, header.monotonic_ns)
        return path

    def close(self, summary: Mapping[str, Any] | None = None, failure: str | None = None) -> None:
        """End the session and mark it complete, unless something could not be recorded.

        Further calls do nothing.

        Args:
            summary: what the run has to say of itself, for the manifest.
            failure: why something of the run is missing that never came here.

        Raises:
            RecordError: the last lines or the manifest cannot be written.
        """
        if self._closed:
            return
        self._closed = True
        self._failure = self._failure or failure
        self._journal.close(sync=self._sync)
        ended_ns = self._clock.wall_ns()
        self._manifest = msgspec.structs.replace(
            self._manifest,
            complete=self._failure is None,
            ended=_iso(ended_ns),
            ended_wall_ns=ended_ns,
            lasted_ns=self._clock.monotonic_ns() - self._started_ns,
            frames=self._frames,
            failure=self._failure,
            summary=None if summary is None else dict(summary),
        )
        self._write_manifest()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close; a run that ended with an exception says so in the summary."""
        self.close({"error": f"{kind.__name__}: {error}"} if kind else None)

    def _require_open(self) -> None:
        if self._closed:
            raise RecordError(f"{self.folder}: the session is closed")

    def _write_file(self, path: Path, data: memoryview) -> None:
        with mapped_errors(path), data:
            require_space(self.folder, data.nbytes)
            write_whole(path, data, sync=self._sync)

    def _write_line(
        self, channel: str, value: Value, monotonic_ns: int, *, sync: bool = False
    ) -> None:
        line = {"channel": channel, "monotonic_ns": monotonic_ns, "value": value}
        self._journal.append(to_json(line), sync=sync)

    def _write_manifest(self) -> None:
        path = self.folder / MANIFEST
        try:
            data = to_json(self._manifest, indent=2).encode("ascii") + b"\n"
        except ValueError as error:
            raise RecordError(f"{path}: cannot be recorded as JSON: {error}") from error
        with mapped_errors(path):
            write_whole(path, data, sync=self._sync)

    @contextlib.contextmanager
    def _failure_recorded(self, sequence: int) -> Iterator[None]:
        """When the record cannot go on, say in it why, if it still takes that, and raise."""
        try:
            yield
        except (RecordError, ValueError) as error:
            message = str(error)
            self._failure = self._failure or message
            event = Event(
                kind="record_failed",
                role="record",
                message=message,
                monotonic_ns=self._clock.monotonic_ns(),
                wall_ns=self._clock.wall_ns(),
                level=Level.ERROR,
                data={"sequence": sequence},
            )
            with contextlib.suppress(RecordError):
                self._write_line(EVENT_CHANNEL, event, event.monotonic_ns, sync=self._sync)
            if isinstance(error, ValueError):
                raise RecordError(f"{self.folder}: cannot be recorded: {message}") from error
            raise


def _new_manifest(
    configuration: Mapping[str, Any],
    started_ns: int,
    capabilities: Capabilities,
    engine: EngineRecord,
) -> Manifest:
    try:
        digest = configuration_sha256(configuration)
    except ValueError as error:
        raise RecordError(f"the configuration cannot be recorded as JSON: {error}") from error
    return Manifest(
        format=FORMAT,
        format_version=FORMAT_VERSION,
        semagent_version=__version__,
        started=_iso(started_ns),
        started_wall_ns=started_ns,
        capabilities=capabilities,
        engine=engine,
        configuration=dict(configuration),
        configuration_sha256=digest,
        platform={
            "system": platform.platform(),
            "machine": platform.machine(),
            "python": platform.python_version(),
        },
        packages=_packages(),
    )


@functools.cache
def _packages() -> dict[str, str]:
    """Name and version of every installed Python package, sorted by name."""
    found = {}
    for each in distributions():
        # One that pip could not remove, because a file of it was open, may have no metadata any
        # more; who looks for it may be the package importlib_metadata, which raises for that.
        with contextlib.suppress(FileNotFoundError):
            if "Name" in each.metadata:
                found[each.metadata["Name"]] = each.version
    return dict(sorted(found.items()))


def _iso(wall_ns: int) -> str:
    return datetime.fromtimestamp(wall_ns // 10**9, UTC).isoformat()
