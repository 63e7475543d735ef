"""The recorded sessions of one folder, found by name and never by path.

What a browser asks for is looked up among what lies in the folder, so no name leads out of it.
"""

import threading
from dataclasses import dataclass
from pathlib import Path

import msgspec

from semagent.console.recorded import describe
from semagent.errors import InputFileError
from semagent.report import read_story
from semagent.session import Manifest, SessionReader, is_session, read_manifest
from semagent.session.layout import EVENTS, FRAMES

_KEPT = 2


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """A session as the list shows it.

    Attributes:
        manifest: ``None`` where it cannot be read.
        frames: recorded so far.
        trouble: what is wrong with it, empty if nothing is.
    """

    name: str
    manifest: Manifest | None
    frames: int
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Told:
    """A session that has been read.

    Attributes:
        session: for its pixels.
        record: all but its pixels, see `describe`, as JSON.
    """

    session: SessionReader
    record: msgspec.Raw


class Library:
    """Sessions beside each other in a folder.

    Args:
        root: the folder; ``None`` if there is none, as in a run that is not recorded.
        only: name of the one session that is shown; all without it.
        growing: name of the one that is being recorded now.
    """

    def __init__(
        self, root: Path | None, only: str | None = None, growing: str | None = None
    ) -> None:
        self.root = None if root is None else root.resolve()
        self._only = only
        self._growing = growing
        self._told: dict[str, tuple[tuple[int, int], Told]] = {}
        self._lock = threading.Lock()

    def find(self, name: str) -> Path | None:
        """The session of this name."""
        return next((folder for folder in self._folders() if folder.name == name), None)

    def listing(self) -> list[Listed]:
        """All sessions, the newest first."""
        listed = [_listed(folder, self.grows(folder)) for folder in self._folders()]
        return sorted(listed, key=lambda one: _started_ns(one.manifest), reverse=True)

    def grows(self, folder: Path) -> bool:
        """Whether the session is being recorded now."""
        return folder.name == self._growing

    def told(self, folder: Path, sequence: int | None = None) -> Told:
        """What can be read of a session; kept until more is recorded.

        Args:
            folder: the session.
            sequence: number of the only frame that is asked for. What was kept of a session that
                grows is enough if that frame is in it: reading hours anew takes half a minute.

        Raises:
            InputFileError: nothing can be read.
        """
        try:
            found = (folder / EVENTS).stat()
        except OSError as error:
            raise InputFileError(f"{folder}: is no longer there") from error
        state = (found.st_size, found.st_mtime_ns)
        with self._lock:
            kept = self._told.pop(folder.name, None)
            enough = kept is not None and (
                kept[0] == state or (self.grows(folder) and sequence in kept[1].session)
            )
            if kept is None or not enough:
                story = read_story(folder, salvage=True)
                record = msgspec.Raw(msgspec.json.encode(describe(story)))
                kept = (state, Told(story.session, record))
            self._told[folder.name] = kept
            while len(self._told) > _KEPT:
                del self._told[next(iter(self._told))]
        return kept[1]

    def _folders(self) -> list[Path]:
        if self.root is None or not self.root.is_dir():
            return []
        inside = [self.root / self._only] if self._only is not None else self.root.iterdir()
        return [
            path
            for path in inside
            if _is_text(path.name) and is_session(path) and path.resolve() == path
        ]


def regular(path: Path) -> Path | None:
    """``path`` if it is a file and no link to another place."""
    return path if path.is_file() and path.resolve() == path else None


def _is_text(name: str) -> bool:
    """Whether a name can stand in a link: on Linux one may hold bytes that are no text."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _listed(folder: Path, grows: bool) -> Listed:
    frames = sum(path.name.endswith(".tif") for path in (folder / FRAMES).glob("frame-*"))
    try:
        manifest = read_manifest(folder)
    except InputFileError as error:
        return Listed(name=folder.name, manifest=None, frames=frames, trouble=str(error))
    unfinished = manifest.failure or ("being recorded" if grows else "not closed")
    trouble = "" if manifest.complete else unfinished
    return Listed(name=folder.name, manifest=manifest, frames=frames, trouble=trouble)


def _started_ns(manifest: Manifest | None) -> int:
    return 0 if manifest is None else manifest.started_wall_ns
