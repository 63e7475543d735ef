"""What is looked at before a run: `semagent drivers`, `engine`, `doctor`, `check` and `keys`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from semagent import cli
from semagent.config import find_config
from semagent.types import MicroscopeAction
from semagent_drivers.simulated.microscope import SimulatedMicroscope

Run = Callable[..., Any]
Config = Callable[..., Path]


def test_what_is_installed_is_listed(semagent: Run):
    drivers = semagent("drivers", "--json")
    assert {"simulated", "recorded", "remote"} <= {each["name"] for each in drivers.records}
    engines = semagent("engine", "list", "--json")
    assert "sharpness" in {each["name"] for each in engines.records}
    assert semagent("engine", "list", "--jsno").code == 2


def test_what_a_driver_needs_is_said_once_for_what_comes_together(semagent: Run):
    listed = semagent("drivers").out
    (needs,) = [line for line in listed.splitlines() if line.startswith("autoscript needs ")]
    assert "autoscript_core" in needs
    assert needs.count("licence of AutoScript") == 1


def test_doctor_tries_everything_and_moves_nothing(
    simulated_config: Config,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    moves: list[MicroscopeAction] = []
    monkeypatch.setattr(SimulatedMicroscope, "apply", lambda _, action: moves.append(action))
    assert cli.main(["doctor", str(simulated_config(speed=0)), "--json"]) == 0
    checks = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert all(check["ok"] for check in checks)
    details = {check["check"]: check["detail"] for check in checks}
    assert {"driver", "one frame", "engine"} <= set(details)
    assert details["what it reports"] == (
        "working distance 5.0300 mm, field width 5.12 µm, pixel size 10 nm, voltage 5 kV, "
        "stigmators +0.0000 and +0.0000"
    )
    assert moves == []


def test_doctor_waits_for_a_frame_as_long_as_the_configuration_says(
    semagent: Run, simulated_config: Config
):
    config = simulated_config(scan={"dwell_us": 50.0}, _acquire={"frame_timeout_s": 0.1})
    run = semagent("doctor", config, "--json")
    assert run.code == 3
    (frame,) = [check for check in run.records if not check["ok"]]
    assert "0.1 s" in frame["detail"]


def test_doctor_names_what_fails(semagent: Run, simulated_config: Config):
    config = simulated_config(speed=0, faults={"disconnect": {"at": [1]}})
    run = semagent("doctor", config, "--json")
    assert run.code == 3
    assert [check["check"] for check in run.records if not check["ok"]] == ["one frame"]


def test_check_needs_no_microscope(semagent: Run):
    assert semagent("doctor", "autoscript").code == 3
    run = semagent("check", "autoscript", "--json")
    assert run.code == 0, run.err
    (record,) = run.records
    assert record == {
        "path": str(find_config("autoscript")),
        "instrument": "Thermo Fisher SEM",
        "ok": True,
    }


def test_check_names_the_line_of_a_drivers_option(semagent: Run, simulated_config: Config):
    path = simulated_config(scan={"width_px": "wide"})
    run = semagent("check", path)
    line = 1 + path.read_text(encoding="utf-8").splitlines().index("      width_px: wide")
    assert run.code == 2
    assert f"{path}:{line}: driver.options.scan.width_px: 'wide': Expected `int`" in run.err


def test_check_refuses_a_console_that_other_machines_could_listen_in_on(
    semagent: Run, simulated_config: Config
):
    pytest.importorskip("starlette", reason="the extra 'console' is not installed")
    path = simulated_config(_console={"host": "192.0.2.1"})
    run = semagent("check", path)
    assert run.code == 2
    assert f"{path}: console: host: 192.0.2.1 can be reached from other machines" in run.err


def test_check_prints_the_schema_for_editors(semagent: Run):
    run = semagent("check", "--schema")
    assert run.code == 0
    assert json.loads(run.out)["$schema"].startswith("https://json-schema.org/")
    assert semagent("check", "--schema", "--json").records == [json.loads(run.out)]
    assert semagent("check").code == 2


def test_keys_are_made_once(semagent: Run, tmp_path: Path):
    folder = tmp_path / "keys"
    assert semagent("keys", folder).code == 0
    assert any(folder.rglob("*"))
    again = semagent("keys", folder)
    assert again.code == 2
    assert str(folder) in again.err
