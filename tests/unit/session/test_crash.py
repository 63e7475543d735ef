"""A writer that is killed leaves every acknowledged frame readable."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from semagent.session import ProblemKind, SessionReader, verify

WRITER = Path(__file__).with_name("record_until_killed.py")

# What the moment of death may leave behind; anything else is a loss.
ALLOWED = {
    ProblemKind.NOT_CLOSED,
    ProblemKind.TORN_LINE,
    ProblemKind.UNACKNOWLEDGED,
    ProblemKind.LEFTOVER,
}


def kill_after(folder: Path, frames: int, sync: str) -> int:
    """Kill a writer some time after it acknowledged so many frames; return how many it had."""
    command = [sys.executable, str(WRITER), str(folder), sync]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        for expected in range(1, frames + 1):
            line = child.stdout.readline()
            assert line == b"%d\n" % expected, child.stderr.read().decode()
        child.kill()
        return frames + child.stdout.read().count(b"\n")


@pytest.mark.parametrize("sync", ["sync", "no-sync"])
@pytest.mark.parametrize("frames_before", [1, 4, 17, 40])
def test_every_acknowledged_frame_outlives_a_kill(
    tmp_path: Path, sync: str, frames_before: int
) -> None:
    folder = tmp_path / "session"

    acknowledged = kill_after(folder, frames_before, sync)

    reader = SessionReader(folder)
    frames = list(reader.frames(verify=True))
    # One more may be whole and in the events, but not yet acknowledged.
    assert acknowledged <= len(frames) <= acknowledged + 1
    for sequence, frame in enumerate(frames, start=1):
        rng = np.random.default_rng(sequence)
        assert frame.header.sequence == sequence
        assert np.array_equal(frame.pixels, rng.integers(0, 65536, (384, 512), dtype=np.uint16))
    assert {problem.kind for problem in verify(folder)} <= ALLOWED
    assert not reader.manifest.complete
    # Whatever a plain user finds there opens.
    for path in (folder / "frames").glob("*.ome.tif"):
        assert tifffile.imread(path).shape == (384, 512)
