"""A folder to which the microscope's PC saves its images, and how to tell a new one."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

T = TypeVar("T")


class Stamp(NamedTuple):
    """By what a file that was written again is told from the one before."""

    modified_ns: int
    size: int


class ImageFolder:
    """A folder in which each image may overwrite the last one of its name."""

    def __init__(self, folder: Path, pattern: str) -> None:
        self._folder, self._pattern = folder, pattern

    def stamps(self) -> dict[Path, Stamp]:
        """The images there are.

        Raises:
            OSError: the folder cannot be read.
        """
        stamps = {}
        for path in sorted(self._folder.glob(self._pattern)):
            with suppress(FileNotFoundError):  # it is being replaced
                facts = path.stat()
                stamps[path] = Stamp(facts.st_mtime_ns, facts.st_size)
        return stamps

    def newer(self, before: dict[Path, Stamp], read: Callable[[Path], T | None]) -> T | None:
        """The image that has been written since, if one has and it is whole.

        Args:
            before: what there was.
            read: reads an image; ``None`` while it is not whole.

        Raises:
            OSError: the folder cannot be read.
        """
        for path, stamp in self.stamps().items():
            if before.get(path) != stamp:
                try:
                    return read(path)
                except (FileNotFoundError, PermissionError):  # Windows, while it is written
                    return None
        return None
