"""Every driver that ships passes the suite third parties are given."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import pytest

from semagent import registry
from semagent.clock import SystemClock
from semagent.testing import MicroscopeConformance
from semagent.testing.engines import specimen
from semagent.types import SetStigmator

_SMALL = {"width_px": 256, "height_px": 192, "dwell_us": 0.1}


class TestSimulated(MicroscopeConformance):
    driver = "simulated"
    options = {"speed": 0, "scan": _SMALL}
    slow_options = {"speed": 1.0, "scan": {**_SMALL, "dwell_us": 500.0}}


class TestRecorded(MicroscopeConformance):
    driver = "recorded"
    working_distance_step_m = 4e-6
    working_distance_tolerance_m = 1e-6

    @pytest.fixture
    def driver_options(self, tmp_path: Path) -> Mapping[str, Any]:
        lines = ["file,working_distance_um"]
        for index in range(11):
            defocus_um = 2.0 * (index - 5)
            pixels = specimen(128, 160, blur_px=0.5 + 0.3 * abs(defocus_um), seed=3)
            cv2.imwrite(str(tmp_path / f"{index}.png"), pixels)
            lines.append(f"{index}.png,{5000 + defocus_um}")
        (tmp_path / "stack.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return {"stack": str(tmp_path), "start_working_distance_m": 0.005}


def test_a_driver_that_mixes_up_the_stigmators_does_not_pass(monkeypatch: pytest.MonkeyPatch):
    microscope = registry.open_microscope(
        "simulated", {"speed": 0, "scan": _SMALL}, clock=SystemClock()
    )
    apply = microscope.apply

    def mixed_up(action: Any) -> None:
        apply(SetStigmator(x=action.y, y=action.x) if isinstance(action, SetStigmator) else action)

    monkeypatch.setattr(microscope, "apply", mixed_up)
    with pytest.raises(AssertionError):
        MicroscopeConformance().test_stigmators(microscope)
    microscope.close()
