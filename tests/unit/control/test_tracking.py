"""Where focus is while a specimen drifts: jumps, and what frames from before one still tell."""

import msgspec
import numpy as np
import pytest

from semagent.control import tracking
from semagent.control.situation import Seen, Track
from semagent.control.tracking import Told

from .bench import Spectrum

SIGNATURE = Spectrum()(0.0, (0.0, 0.0), np.random.default_rng(0))
AGES = np.arange(20.0)[::-1]
BESIDE = 0.3 * (-1) ** np.arange(20)


def frames(defocus: list[float], std: float = 0.05) -> list[Seen]:
    """Frames without astigmatism, all in one place but for a small step to either side."""
    return [
        Seen(
            time_ns=index,
            place=float(beside),
            signature=SIGNATURE,
            change=(0.8 * (u + float(beside)) ** 2, 0.0, 0.0),
            covariance=tuple((std**2 * np.eye(3)).ravel().tolist()),
        )
        for index, (u, beside) in enumerate(zip(defocus, BESIDE, strict=True))
    ]


def expected(std: float, rate: float = 0.0) -> Track:
    return Track(focus=0.0, rate=rate, covariance=(std**2, 0.0, 0.01**2))


@pytest.mark.parametrize("jump", [1.8, -1.2, 3.0])
def test_a_jump_is_told_where_focus_was_known(jump: float) -> None:
    seen = frames([0.0] * 19 + [jump])
    assert tracking.has_jumped(Told(seen, AGES), expected(0.1))
    assert not tracking.has_jumped(Told(seen, AGES), expected(0.8))


def test_a_step_that_nobody_sees_is_no_jump() -> None:
    """However well focus seemed to be known."""
    seen = frames([0.0] * 19 + [-0.5], std=0.01)
    assert not tracking.has_jumped(Told(seen, AGES), expected(0.03))


def test_after_a_jump_focus_may_be_on_either_side_and_drifts_as_before() -> None:
    seen = frames([0.0] * 19 + [1.5])
    kept = [msgspec.structs.replace(each, focus=0.0) for each in seen[:-1]] + seen[-1:]
    begun = tracking.after_jump(expected(0.1, rate=0.1))
    track = tracking.update(Told(kept, AGES), begun, 0.0, begun)
    assert abs(track.focus - seen[-1].place) < 0.3
    assert track.std == pytest.approx(1.2, abs=0.2)
    assert track.rate == pytest.approx(0.1, abs=0.01)


def test_frames_from_before_a_jump_tell_how_blurred_those_after_it_are() -> None:
    """The second frame after it, taken in another place, tells to which side focus has jumped."""
    seen = frames([0.0] * 18 + [1.5, 1.5])
    kept = [msgspec.structs.replace(each, focus=0.0) for each in seen[:-2]] + seen[-2:]
    begun = tracking.after_jump(expected(0.1))
    track = tracking.update(Told(kept, AGES), begun, 1.0, begun)
    assert track.focus == pytest.approx(-1.5, abs=0.3)
    assert track.std < 0.4
