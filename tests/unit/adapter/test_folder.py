"""The folder of another machine: shares that go away, files that somebody holds."""

import errno
import os
import threading

import pytest

from semagent.clock import ManualClock
from semagent.errors import AcquisitionStoppedError, MicroscopeTimeoutError
from semagent_drivers.adapter import ImageFolder, Wait


@pytest.fixture
def share(tmp_path):
    share = tmp_path / "share"
    share.mkdir()
    (share / "frame.bmp").write_bytes(b"old")
    return share


def read(path):
    return path.read_bytes()


def soon(clock=None):
    return Wait(clock or ManualClock(), 1.0, threading.Event())


def away(share):
    return share.rename(share.with_name("away"))


def test_an_old_image_is_none_because_its_share_was_away(share):
    folder = ImageFolder(share, "*.bmp")
    folder.stamps(soon())
    gone = away(share)
    with pytest.raises(
        MicroscopeTimeoutError, match=r"no folder of images \(.*share.*\) within 1 s"
    ):
        folder.stamps(soon())
    gone.rename(share)
    assert folder.newer(folder.stamps(soon()), read) is None


def test_an_old_image_is_none_because_its_share_was_empty(share):
    folder = ImageFolder(share, "*.bmp")
    folder.stamps(soon())
    gone = away(share)
    share.mkdir()  # where it is mounted
    before = folder.stamps(soon())
    share.rmdir()
    gone.rename(share)
    assert folder.newer(before, read) is None
    (share / "frame.bmp").write_bytes(b"newer")
    assert folder.newer(before, read) == b"newer"


def test_a_share_that_is_away_before_an_exposure_is_waited_for(share):
    class Back(ManualClock):
        def sleep(self, seconds):
            super().sleep(seconds)
            if self.monotonic_ns() > 1.5e9 and gone.exists():
                gone.rename(share)

    folder, gone = ImageFolder(share, "*.bmp"), away(share)
    assert list(folder.stamps(soon(Back()))) == [share / "frame.bmp"]


def test_a_share_that_is_away_is_not_waited_for_after_a_stop(share):
    folder, wait = ImageFolder(share, "*.bmp"), soon()
    away(share)
    wait.stopped.set()
    with pytest.raises(AcquisitionStoppedError):
        folder.stamps(wait)


def test_a_share_that_is_away_for_a_moment_is_waited_for(share):
    folder = ImageFolder(share, "*.bmp")
    before = folder.stamps(soon())
    gone = away(share)
    assert folder.newer(before, read) is None
    (gone / "frame.bmp").write_bytes(b"newer")
    gone.rename(share)
    assert folder.newer(before, read) == b"newer"


@pytest.mark.parametrize("code", [errno.EACCES, errno.EBUSY, errno.ENOENT])
def test_a_file_that_is_being_written_is_waited_for(share, code):
    def held(_):
        raise OSError(code, os.strerror(code))

    folder = ImageFolder(share, "*.bmp")
    before = folder.stamps(soon())
    (share / "frame.bmp").write_bytes(b"newer")
    assert folder.newer(before, held) is None
    assert folder.newer(before, read) == b"newer"


@pytest.mark.parametrize("code", [None, errno.EBUSY])
def test_a_file_that_is_not_whole_hides_none_that_is(share, code):
    """A thumbnail, or what another program writes there."""

    def whole(path):
        if path.name != "frame.bmp":
            if code is not None:
                raise OSError(code, os.strerror(code))
            return None
        return path.read_bytes()

    folder = ImageFolder(share, "*.bmp")
    before = folder.stamps(soon())
    (share / "a.bmp").write_bytes(b"half")
    assert folder.newer(before, whole) is None
    (share / "frame.bmp").write_bytes(b"newer")
    assert folder.newer(before, whole) == b"newer"


def test_a_file_that_is_written_while_it_is_read_is_read_again(share):
    path = share / "frame.bmp"

    def overtaken(_):
        begun = path.read_bytes()
        path.write_bytes(b"newest of all")
        return begun

    folder = ImageFolder(share, "*.bmp")
    before = folder.stamps(soon())
    path.write_bytes(b"newer")
    assert folder.newer(before, overtaken) is None
    assert folder.newer(before, read) == b"newest of all"
