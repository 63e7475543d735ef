"""Files that are whole or absent, and errors that say what to do."""

import errno
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from semagent.errors import RecordError
from semagent.session.storage import (
    RESERVE_BYTES,
    Journal,
    mapped_errors,
    require_space,
    write_whole,
)

needs_file_limit = pytest.mark.skipif(
    sys.platform == "win32", reason="Windows has no limit on the size of a file"
)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let the system refuse every byte beyond ``size`` in any file, as a full disk does."""
    import resource  # noqa: PLC0415 - does not exist on Windows
    import signal  # noqa: PLC0415

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (errno.ENOSPC, "disk is full"),
        (errno.EDQUOT, "quota"),
        (errno.EFBIG, "name another disk"),
        (errno.ENAMETOOLONG, "name a shorter one"),
        (errno.EACCES, "no permission"),
        (errno.EPERM, "virus scanners"),
        (errno.EROFS, "no permission"),
        (errno.EEXIST, "there already"),
        (errno.EIO, "check that the disk or network share is still there"),
    ],
)
def test_system_errors_name_the_file_and_say_what_to_do(code: int, advice: str) -> None:
    cause = OSError(code, os.strerror(code))

    with pytest.raises(RecordError, match=advice) as caught, mapped_errors(Path("some/file")):
        raise cause

    assert str(Path("some/file")) in str(caught.value)
    assert caught.value.__cause__ is cause


def test_a_file_where_a_folder_is_needed_is_named_as_such(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.touch()
    path = file / "deep" / "memory.yaml"

    with pytest.raises(RecordError) as caught, mapped_errors(path):
        path.parent.mkdir(parents=True)

    assert f"{file} is a file, not a folder" in str(caught.value)
    assert "network share" not in str(caught.value)


def test_other_errors_pass_unchanged() -> None:
    with pytest.raises(KeyError), mapped_errors(Path("file")):
        raise KeyError


@pytest.mark.parametrize("sync", [True, False])
def test_a_file_is_written_whole_and_replaces_what_was_there(tmp_path: Path, sync: bool) -> None:
    path = tmp_path / "file"
    write_whole(path, b"one", sync=sync)
    write_whole(path, b"two", sync=sync)

    assert path.read_bytes() == b"two"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("held", "fails"), [(3, False), (100, True)])
def test_a_file_that_somebody_reads_is_waited_for_but_not_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: int, fails: bool
) -> None:
    tries: list[Path] = []
    replace = Path.replace

    def refuse(partial: Path, path: Path) -> Path:
        tries.append(partial)
        if len(tries) <= held:
            raise PermissionError(errno.EACCES, "used by another process")  # as on Windows
        return replace(partial, path)

    monkeypatch.setattr(Path, "replace", refuse)
    path = tmp_path / "file"
    with pytest.raises(PermissionError) if fails else nullcontext():
        write_whole(path, b"data", sync=False)

    assert list(tmp_path.iterdir()) == ([] if fails else [path])
    assert len(tries) == (5 if fails else held + 1)


@needs_file_limit
def test_a_file_that_does_not_fit_leaves_nothing_and_spoils_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_whole(path, b"before", sync=False)

    with largest_file(1000), pytest.raises(OSError, match="large"):
        write_whole(path, bytes(100_000), sync=False)

    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_sync_reaches_the_device_before_the_name_appears(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    there_at_sync: list[bool] = []
    fsync = os.fsync

    def spy(descriptor: int) -> None:
        there_at_sync.append(path.exists())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", spy)
    write_whole(path, b"data", sync=False)
    assert there_at_sync == []
    path.unlink()

    write_whole(path, b"data", sync=True)

    folder_synced = [True] if os.name == "posix" else []
    assert there_at_sync == [False, *folder_synced]


@pytest.mark.parametrize(("code", "fails"), [(errno.EINVAL, False), (errno.EIO, True)])
@pytest.mark.skipif(os.name != "posix", reason="only POSIX synchronises folders")
def test_file_systems_that_cannot_sync_a_folder_are_tolerated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, fails: bool
) -> None:
    calls: list[int] = []

    def spy(_descriptor: int) -> None:
        calls.append(1)
        if len(calls) == 2:  # the first is the file itself
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", spy)
    path = tmp_path / "file"
    if fails:
        with pytest.raises(OSError, match=os.strerror(code)):
            write_whole(path, b"data", sync=True)
    else:
        write_whole(path, b"data", sync=True)
    assert path.read_bytes() == b"data"


def test_room_is_asked_of_the_disk_the_folder_will_be_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []

    def usage(path: Path) -> SimpleNamespace:
        asked.append(path)
        return SimpleNamespace(free=RESERVE_BYTES + 1000)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    folder = tmp_path / "not" / "there" / "yet"

    require_space(folder, 1000)

    with pytest.raises(RecordError, match="free space, record to another disk") as caught:
        require_space(folder, 1001)
    assert str(folder) in str(caught.value)
    assert asked == [tmp_path, tmp_path]


def test_a_drive_may_not_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def usage(path: Path) -> None:
        raise FileNotFoundError(errno.ENOENT, "no such drive", path)

    monkeypatch.setattr(Path, "exists", lambda _: False)  # as on Windows, where drives come and go
    monkeypatch.setattr(shutil, "disk_usage", usage)
    with pytest.raises(FileNotFoundError):
        require_space(tmp_path / "not" / "there", 0)


def test_a_journal_keeps_lines(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    journal = Journal(path)
    journal.append("one")
    assert path.read_bytes() == b"one\n"  # with the operating system already
    journal.append("two", sync=True)
    journal.close(sync=True)

    assert path.read_bytes() == b"one\ntwo\n"


def test_a_journal_never_overwrites(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"precious")

    with pytest.raises(RecordError, match="lines"):
        Journal(path)

    assert path.read_bytes() == b"precious"


@needs_file_limit
@pytest.mark.parametrize("fits_of_second", [0, 5])
def test_a_line_that_does_not_fit_is_taken_back_and_none_follows(
    tmp_path: Path, fits_of_second: int
) -> None:
    path = tmp_path / "lines"
    journal = Journal(path)
    journal.append("first")

    with largest_file(6 + fits_of_second), pytest.raises(RecordError, match="lines"):
        journal.append("x" * 100)
    with pytest.raises(RecordError, match=r"an earlier line is missing: .* large"):
        journal.append("there is room again")
    journal.close(sync=False)

    assert path.read_bytes() == b"first\n"


def test_a_failed_close_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path / "lines")

    def fail(_descriptor: int) -> None:
        raise OSError(errno.EIO, "gone")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(RecordError, match="gone"):
        journal.close(sync=True)
