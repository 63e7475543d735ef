"""Every engine that ships passes the suite third parties are given."""

import pytest

from semagent.testing import EngineConformance
from semagent.testing.engines import figures_of
from semagent.types import Analysis, Frame


class TestSharpness(EngineConformance):
    engine = "sharpness"


class TestOnnxRuntime(EngineConformance):
    engine = "onnxruntime"


class TestOpenVino(EngineConformance):
    engine = "openvino"


class Idle:
    """Says the same of every frame, and restores none though it says so."""

    name = "idle"
    restores = True
    smallest_px = 1

    def analyse(self, frame: Frame, *, restore: bool = False) -> Analysis:
        return Analysis(figures_of(frame.header, engine=self.name))

    def close(self) -> None: ...


def test_the_suite_finds_an_engine_that_does_nothing() -> None:
    suite, idle = EngineConformance(), Idle()
    for test in (
        suite.test_sharper_frames_of_one_field_score_higher,
        suite.test_the_raw_frame_is_left_alone,
    ):
        with pytest.raises(AssertionError):
            test(idle)
