"""A folder to which the microscope's PC saves its images, and how to tell a new one."""

from collections.abc import Callable
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple, TypeVar

from semagent_drivers.adapter.waiting import Wait

T = TypeVar("T")


class Stamp(NamedTuple):
    """By what a file that was written again is told from the one before."""

    modified_ns: int
    size: int


class ImageFolder:
    """A folder in which each image may overwrite the last one of its name.

    It may be a share, which is away now and then: what is missing then is no new image when it
    is back.
    """

    def __init__(self, folder: Path, pattern: str) -> None:
        self._folder, self._pattern = folder, pattern
        self._known: dict[Path, Stamp] = {}
        self._abandoned: tuple[dict[Path, Stamp], Wait] | None = None

    def stamps(self, wait: Wait) -> dict[Path, Stamp]:
        """The images there are, and those there have been.

        Raises:
            AcquisitionStoppedError: ``wait`` says so.
            MicroscopeTimeoutError: the folder cannot be read before ``wait`` is over.
        """
        while True:
            try:
                self._known |= self._listed()
            except OSError as error:
                wait.sleep(0.02, f"folder of images ({error})")
            else:
                return dict(self._known)

    def newer(self, before: dict[Path, Stamp], read: Callable[[Path], T | None]) -> T | None:
        """The first image that has been written since and is whole, if there is one.

        Args:
            before: what there was.
            read: reads an image; ``None`` while it is not whole.
        """
        with suppress(OSError):
            for path, stamp in self._listed().items():
                if before.get(path) == stamp:
                    continue
                # While it is written, Windows lets nobody read it, and a share says it is busy.
                with suppress(OSError):
                    image = read(path)
                    if image is not None and _stamp(path) == stamp:
                        return image
        return None

    def abandon(self, before: dict[Path, Stamp], ends: Wait) -> None:
        """Nobody waits any more for an image that may come until ``ends``."""
        self._abandoned = before, ends

    def await_abandoned(self, read: Callable[[Path], object], wait: Wait) -> None:
        """Let an abandoned image come, which must not pass for the next one.

        Raises:
            AcquisitionStoppedError: ``wait`` says so.
            MicroscopeTimeoutError: ``wait`` is over.
        """
        if self._abandoned is not None:
            before, ends = self._abandoned
            while ends.left_s and self.newer(before, read) is None:
                wait.sleep(0.02, "image of the frame before")
            self._abandoned = None

    def _listed(self) -> dict[Path, Stamp]:
        # Not `glob`, to which a folder that is not there is an empty one.
        paths = sorted(path for path in self._folder.iterdir() if fnmatch(path.name, self._pattern))
        stamps = {}
        for path in paths:
            with suppress(FileNotFoundError, PermissionError):  # it is being replaced
                stamps[path] = _stamp(path)
        return stamps


def _stamp(path: Path) -> Stamp:
    facts = path.stat()
    return Stamp(facts.st_mtime_ns, facts.st_size)
