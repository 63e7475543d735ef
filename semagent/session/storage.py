"""Writing files so that each is either whole or absent, and saying clearly why one cannot be."""

import contextlib
import errno
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from semagent.errors import RecordError, SemagentError
from semagent.session.layout import PARTIAL

RESERVE_BYTES = 64 * 2**20
"""Kept free on the disk, so that a full one still takes the last events and the manifest."""

_HELD_S = (0.01, 0.03, 0.1, 0.2)
"""Pauses before a rename is tried again: on Windows, whoever reads a file keeps others from it."""


@contextlib.contextmanager
def mapped_errors(path: Path, kind: type[SemagentError] = RecordError) -> Iterator[None]:
    """Turn an `OSError` into one of ours that names ``path`` and says what to do."""
    try:
        yield
    except OSError as error:
        raise kind(f"cannot write {path}: {_advice(path, error)}") from error


def file_above(path: Path) -> Path | None:
    """The file that stands where ``path`` needs a folder, if one can be seen there."""
    with contextlib.suppress(OSError):
        return next((each for each in path.parents if each.exists() and not each.is_dir()), None)
    return None


def _advice(path: Path, error: OSError) -> str:
    # Not by its number: Windows says that there is no such path.
    if (file := file_above(path)) is not None:
        return f"{file} is a file, not a folder; name a path outside it"
    if error.errno == errno.EEXIST:
        return "it is there already; name a new one"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full or the quota is used up; free space or name another disk"
    if error.errno == errno.EFBIG:
        return "no file may be that large on this disk or for this user; name another disk"
    if error.errno == errno.ENAMETOOLONG:
        return "the path is too long; name a shorter one"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return (
            "no permission; name a folder you may write to, and keep virus scanners and "
            "synchronising clients away from it"
        )
    return f"{error.strerror or error}; check that the disk or network share is still there"


def require_space(folder: Path, needed_bytes: int) -> None:
    """Make sure ``needed_bytes`` fit on the disk ``folder`` is or will be on, above the reserve.

    Raises:
        RecordError: they do not.
        OSError: the disk does not say.
    """
    places = (folder, *folder.absolute().parents)
    # On Windows not even the drive need be there.
    existing = next((path for path in places if path.exists()), places[-1])
    free = shutil.disk_usage(existing).free
    if free < needed_bytes + RESERVE_BYTES:
        raise RecordError(
            f"{folder}: {free / 1e6:.1f} MB are free, but {needed_bytes / 1e6:.1f} MB are needed "
            f"and {RESERVE_BYTES / 1e6:.1f} MB are kept in reserve; free space, record to "
            "another disk or record fewer frames"
        )


def write_whole(path: Path, data: bytes | memoryview, *, sync: bool) -> None:
    """Write a file under a passing name and rename it when it is complete.

    A process that dies on the way leaves ``path`` as it was. With ``sync`` the data are on the
    device before the rename and the rename before the return, so a machine that dies does too.

    Raises:
        OSError: the file cannot be written; what there was of it is gone.
    """
    partial = path.with_name(path.name + PARTIAL)
    try:
        with partial.open("wb") as file:
            file.write(data)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        rename(partial, path)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
    if sync:
        sync_folder(path.parent)


def rename(partial: Path, path: Path) -> None:
    """Give a file or folder that is complete its name; who holds it for a moment is waited for.

    Raises:
        OSError: it cannot be renamed.
    """
    for pause_s in _HELD_S:
        try:
            partial.replace(path)
        except PermissionError:
            time.sleep(pause_s)
        else:
            return
    partial.replace(path)


def sync_folder(folder: Path) -> None:
    """Have the device take the names in ``folder``.

    POSIX wants a folder synchronised by itself; Windows cannot, and its file systems log names.
    """
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # what network file systems without the call answer
            raise
    finally:
        os.close(descriptor)


class Journal:
    """A file that grows by whole lines, each with the operating system when `append` returns."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with mapped_errors(path):
            self._file = path.open("xb", buffering=0)
        self._length = 0
        self._failure = ""

    def append(self, line: str, *, sync: bool = False) -> None:
        """Write one line.

        Raises:
            RecordError: it cannot be written, or an earlier one could not: a torn line is only
                ever the last.
        """
        if self._failure:
            raise RecordError(f"{self._path}: an earlier line is missing: {self._failure}")
        data = memoryview(line.encode("ascii") + b"\n")
        length = self._length + len(data)
        try:
            with mapped_errors(self._path):
                while data:
                    data = data[self._file.write(data) :]
                if sync:
                    os.fsync(self._file.fileno())
        except RecordError as error:
            self._failure = str(error)
            with contextlib.suppress(OSError):
                self._file.truncate(self._length)
            raise
        self._length = length

    def require(self) -> None:
        """Make sure that the file is where it was made; POSIX lets others take it away.

        Raises:
            RecordError: it is not.
        """
        with mapped_errors(self._path):
            self._path.stat()

    def close(self, *, sync: bool) -> None:
        """Let go of the file.

        Raises:
            RecordError: the last lines could not be brought to the device, or the file is gone.
        """
        with mapped_errors(self._path):
            try:
                if sync:
                    os.fsync(self._file.fileno())
            finally:
                self._file.close()
        self.require()
