"""The recorded sessions of one folder, found by name and never by path.

What a browser asks for is looked up among what lies in the folder, so no name leads out of it.
"""

import contextlib
import threading
from pathlib import Path

import msgspec

from semagent.console.recorded import Chronicle
from semagent.errors import InputFileError
from semagent.session import Manifest, is_session, read_manifest
from semagent.session.layout import FRAMES

_KEPT = 3
_READ_ON_S = 2.0


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
        self._chronicles: dict[str, Chronicle] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        if self.root is not None and growing is not None:
            given = (self.root / growing,)
            threading.Thread(
                target=self._read_on, args=given, name="console-library", daemon=True
            ).start()

    def close(self) -> None:
        """Leave the session that grows. May be called twice."""
        self._closed.set()

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

    def chronicle(self, folder: Path) -> Chronicle:
        """What can be read of a session by now; what was read before is kept.

        Raises:
            InputFileError: nothing can be read.
        """
        with self._lock:
            kept = self._chronicles.get(folder.name)
            if kept is None or not kept.read_on():
                kept = Chronicle(folder, grows=self.grows(folder))
                kept.read_on()
            self._chronicles.pop(folder.name, None)
            self._chronicles[folder.name] = kept  # the last one
            while len(self._chronicles) > _KEPT:
                del self._chronicles[next(iter(self._chronicles))]
        return kept

    def _read_on(self, folder: Path) -> None:
        """Keep up with the session that grows: after hours its page would wait for all of it."""
        while not self._closed.wait(_READ_ON_S):
            with contextlib.suppress(InputFileError):
                self.chronicle(folder)

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
    try:
        manifest = read_manifest(folder)
    except InputFileError as error:
        frames = _frame_files(folder)
        return Listed(name=folder.name, manifest=None, frames=frames, trouble=str(error))
    frames = _frame_files(folder) if manifest.frames is None else manifest.frames
    unfinished = manifest.failure or ("being recorded" if grows else "not closed")
    trouble = "" if manifest.complete else unfinished
    return Listed(name=folder.name, manifest=manifest, frames=frames, trouble=trouble)


def _frame_files(folder: Path) -> int:
    return sum(path.name.endswith(".tif") for path in (folder / FRAMES).glob("frame-*"))


def _started_ns(manifest: Manifest | None) -> int:
    return 0 if manifest is None else manifest.started_wall_ns
