"""The folder of another machine: shares that go away, files that somebody holds."""

import errno
import os

import pytest

from semagent.errors import MicroscopeError
from semagent_drivers.adapter import ImageFolder


@pytest.fixture
def share(tmp_path):
    share = tmp_path / "share"
    share.mkdir()
    (share / "frame.bmp").write_bytes(b"old")
    return share


def read(path):
    return path.read_bytes()


def away(share):
    return share.rename(share.with_name("away"))


def test_an_old_image_is_none_because_its_share_was_away(share):
    folder = ImageFolder(share, "*.bmp")
    folder.stamps()
    gone = away(share)
    with pytest.raises(MicroscopeError, match="share cannot be read"):
        folder.stamps()
    gone.rename(share)
    assert folder.newer(folder.stamps(), read) is None


def test_an_old_image_is_none_because_its_share_was_empty(share):
    folder = ImageFolder(share, "*.bmp")
    folder.stamps()
    gone = away(share)
    share.mkdir()  # where it is mounted
    before = folder.stamps()
    share.rmdir()
    gone.rename(share)
    assert folder.newer(before, read) is None
    (share / "frame.bmp").write_bytes(b"newer")
    assert folder.newer(before, read) == b"newer"


def test_a_share_that_is_away_for_a_moment_is_waited_for(share):
    folder = ImageFolder(share, "*.bmp")
    before = folder.stamps()
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
    before = folder.stamps()
    (share / "frame.bmp").write_bytes(b"newer")
    assert folder.newer(before, held) is None
    assert folder.newer(before, read) == b"newer"


def test_a_file_that_is_written_while_it_is_read_is_read_again(share):
    path = share / "frame.bmp"

    def overtaken(_):
        begun = path.read_bytes()
        path.write_bytes(b"newest of all")
        return begun

    folder = ImageFolder(share, "*.bmp")
    before = folder.stamps()
    path.write_bytes(b"newer")
    assert folder.newer(before, overtaken) is None
    assert folder.newer(before, read) == b"newest of all"
