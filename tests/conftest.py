"""Fixtures every test may use."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from semagent.signals import ENDING
from semagent.types import Frame, SetScan
from semagent_drivers.simulated.microscope import SimulatedMicroscope


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--screenshots",
        metavar="FOLDER",
        help="browser tests keep the pictures of the documents there",
    )


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real micrographs; tests that use it skip where it is absent."""
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("SEMAGENT_DATA", default))
    if not (folder / "test").is_dir():
        pytest.skip(f"no real micrographs at {folder} (set SEMAGENT_DATA)")
    return folder


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """A command that was interrupted ignores signals as it ends; what tests start would inherit it.

    Programs that can no longer be asked to end hang those who wait for it.
    """
    before = {number: signal.getsignal(number) for number in ENDING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def change_scan(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, str], None]:
    """Have somebody change the dwell of the simulated microscope beside its n-th frame."""

    def change_at(number: int, when: str) -> None:
        acquire, seen = SimulatedMicroscope.acquire, 0

        def change_and_acquire(self: SimulatedMicroscope, timeout_s: float) -> Frame:
            nonlocal seen
            seen += 1
            if when == "before the frame" and seen == number:
                self.apply(SetScan(dwell_s=1e-6))
            exposed = acquire(self, timeout_s)
            if when == "after the frame" and seen == number:
                self.apply(SetScan(dwell_s=1e-6))
            return exposed

        monkeypatch.setattr(SimulatedMicroscope, "acquire", change_and_acquire)

    return change_at
