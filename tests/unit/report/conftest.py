"""A real session of the simulated SEM: two focusings, and a command that the gate refuses."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from semagent import registry
from semagent.clock import ManualClock
from semagent.config import RunConfig, find_config, load_config
from semagent.lockstep import Lockstep
from semagent.parts import make_recorder
from semagent.types import Arm, Disarm, Mode, SetMode, StartAutofocus

MAX_FRAMES = 40


def configuration() -> RunConfig:
    config = load_config(find_config("simulated"))
    options: dict[str, Any] = {
        **config.driver.options,
        "speed": 1.0,
        "scan": {"width_px": 320, "height_px": 240, "pixel_size_nm": 10, "dwell_us": 0.2},
        "specimen": {"kind": "particles", "tile_px": 512},
        "drift": {},
    }
    driver = msgspec.structs.replace(config.driver, options=options)
    hold = msgspec.structs.replace(config.control.hold, follow=False)
    control = msgspec.structs.replace(config.control, hold=hold)
    return msgspec.structs.replace(config, driver=driver, control=control)


@pytest.fixture(scope="session")
def session(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report") / "morning"
    config, clock = configuration(), ManualClock()
    microscope = registry.open_microscope("simulated", config.driver.options, clock=clock)
    engine = registry.open_engine("sharpness", {})
    recorder = make_recorder(folder, config, microscope.capabilities, engine.name, clock)
    with Lockstep(config, microscope, engine, clock, recorder) as lockstep:
        lockstep.operate(Arm())
        lockstep.request(SetMode(mode=Mode.HOLD))
        results = lockstep.listen("result")
        lockstep.request(StartAutofocus())
        for _ in range(MAX_FRAMES):
            lockstep.cycle()
            if results.take() is not None:
                break
        lockstep.request(StartAutofocus())
        lockstep.cycle()
        lockstep.operate(Disarm(reason="somebody opened the chamber <b>"))
        for _ in range(MAX_FRAMES):
            lockstep.cycle()
            if results.take() is not None:
                break
    return folder
