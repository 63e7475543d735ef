"""``autofocus`` in this process: hands that turn focus away, failures, and a second Ctrl-C."""

import io
import itertools
import json
import signal
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import yaml
from rich.console import Console

from semagent import registry
from semagent.bus import LocalBus, LocalHub
from semagent.channels import Role
from semagent.cli import exits, focus, main
from semagent.cli.ledger import Ledger, Row
from semagent.cli.output import Output
from semagent.clock import ManualClock
from semagent.config import find_config, load_config
from semagent.errors import MicroscopeError
from semagent.health import HealthMonitor
from semagent.lockstep import Lockstep
from semagent.signals import handled
from semagent.testing.engines import frame_of
from semagent.types import Capabilities, Frame, SetWorkingDistance
from semagent_drivers.simulated.microscope import SimulatedMicroscope
from semagent_engines.sharpness.engine import SharpnessEngine


def small_microscope(folder: Path) -> Path:
    """The configuration of a microscope that is quick to simulate."""
    plain = yaml.safe_load(find_config("simulated").read_text(encoding="utf-8"))
    plain["driver"]["options"] |= {
        "speed": 0,
        "scan": {"width_px": 256, "height_px": 192, "pixel_size_nm": 10, "dwell_us": 0.5},
        "specimen": {"kind": "particles", "working_distance_mm": 5.0, "tile_px": 1024},
    }
    plain["engine"] = {"name": "sharpness"}
    path = folder / "sem.yaml"
    path.write_text(yaml.safe_dump(plain), encoding="utf-8")
    return path


@pytest.mark.parametrize(("turned_m", "code"), [(0.0, 0), (50e-9, 0), (2e-6, 3)])
def test_focus_that_was_turned_away_from_since_the_last_frame_is_not_reported_as_found(
    turned_m: float,
    code: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[Any] = []
    open_microscope, follow = registry.open_microscope, focus._follow

    def opening(*arguments: Any, **options: Any) -> Any:
        opened.append(open_microscope(*arguments, **options))
        return opened[0]

    def following(*arguments: Any) -> Any:
        result = follow(*arguments)
        here_m = opened[0].read_state().optics.working_distance_m
        opened[0].apply(SetWorkingDistance(working_distance_m=here_m + turned_m))
        return result

    monkeypatch.setattr(registry, "open_microscope", opening)
    monkeypatch.setattr(focus, "_follow", following)
    assert main(["autofocus", str(small_microscope(tmp_path)), "--arm", "--json"]) == code
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["status"] == ("failed" if code else "focused")
    assert ("left as it is" in result["reason"]) == bool(code)
    assert result["final_working_distance_m"] == pytest.approx(5e-3 + turned_m, abs=1.5e-6)


@pytest.mark.parametrize(
    ("after_a_frame", "code", "said"), [(True, 3, "check them"), (False, 130, "interrupted")]
)
def test_a_second_ctrl_c_leaves_focus_in_doubt_only_where_something_was_moved(
    after_a_frame: bool,
    code: int,
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cycle = Lockstep.cycle

    def cycle_and_press(lockstep: Lockstep) -> None:
        if after_a_frame:
            cycle(lockstep)
        for _ in "12":
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Lockstep, "cycle", cycle_and_press)
    with handled(signal.default_int_handler):  # afterwards they are as the tests need them
        assert main(["autofocus", str(small_microscope(tmp_path)), "--arm", "--json"]) == code
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("command", ["autofocus", "run --positions grid"])
def test_a_record_that_cannot_be_made_leaves_neither_engine_nor_microscope_open(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[type] = []
    for each in (SimulatedMicroscope, SharpnessEngine):
        monkeypatch.setattr(each, "close", lambda opened: closed.append(type(opened)))
    config = yaml.safe_load(small_microscope(tmp_path).read_text(encoding="utf-8"))
    config["scan"] = {"grid": {"rows": 2, "columns": 2, "pitch_m": [40e-6, 40e-6]}}
    path = tmp_path / "grid.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    verb, *options = command.split()
    # The folder is not empty: the configuration stands in it.
    assert main([verb, str(path), *options, "--arm", "--record", str(tmp_path)]) == exits.USAGE
    assert closed == [SharpnessEngine, SimulatedMicroscope]


def test_a_lens_that_does_not_follow_is_no_limit_of_the_envelope(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SimulatedMicroscope, "apply", lambda _microscope, _action: None)
    config = str(small_microscope(tmp_path))
    assert main(["autofocus", config, "--arm", "--json"]) == exits.FAILED
    reason = json.loads(capsys.readouterr().out.splitlines()[-1])["reason"]
    assert "not carried out as commanded" in reason


def test_a_reading_that_differs_is_told_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SimulatedMicroscope, "apply", lambda _microscope, _action: None)
    main(["autofocus", str(small_microscope(tmp_path)), "--arm"])
    said = capsys.readouterr()
    assert said.err.count("not carried out as commanded") == 1
    assert "not carried out as commanded" not in said.out
    assert "failed: the safety gate has closed; could not be put back to 5.0300 mm" in said.out


@pytest.mark.parametrize(("call", "number"), [("acquire", 1), ("acquire", 2), ("apply", 1)])
def test_a_microscope_that_fails_is_no_limit_of_the_envelope(
    call: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, calls = getattr(SimulatedMicroscope, call), itertools.count(1)

    def failing(microscope: SimulatedMicroscope, *arguments: Any) -> Any:
        if next(calls) == number:
            raise MicroscopeError("the supply of the lens has tripped")
        return method(microscope, *arguments)

    monkeypatch.setattr(SimulatedMicroscope, call, failing)
    assert main(["autofocus", str(small_microscope(tmp_path)), "--arm"]) == exits.FAILED


def test_where_a_microscope_that_is_gone_was_left_is_not_known_before_the_first_frame(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: Any) -> Any:
        raise MicroscopeError("the supply of the lens has tripped")

    def acquire(microscope: SimulatedMicroscope, _timeout_s: float) -> Frame:
        monkeypatch.setattr(SimulatedMicroscope, "read_state", failing)
        return failing()

    monkeypatch.setattr(SimulatedMicroscope, "acquire", acquire)
    assert main(["autofocus", str(small_microscope(tmp_path)), "--arm"]) == exits.FAILED
    assert "working distance 5.0300 mm → -, 0 frames" in capsys.readouterr().out


def test_whatever_goes_wrong_in_an_engine_focus_is_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else's engine may raise anything."""
    analyse, apply = SharpnessEngine.analyse, SimulatedMicroscope.apply
    seen_m: list[float] = []
    moved_m: list[float] = []

    def failing(engine: SharpnessEngine, frame: Frame, **options: Any) -> Any:
        seen_m.append(frame.header.optics.working_distance_m)
        if len(seen_m) == 3:
            raise ZeroDivisionError("of an engine")
        return analyse(engine, frame, **options)

    def applied(microscope: SimulatedMicroscope, action: Any) -> None:
        apply(microscope, action)
        moved_m.append(microscope.read_state().optics.working_distance_m)

    monkeypatch.setattr(SharpnessEngine, "analyse", failing)
    monkeypatch.setattr(SimulatedMicroscope, "apply", applied)
    with pytest.raises(ZeroDivisionError):
        main(["autofocus", str(small_microscope(tmp_path)), "--arm"])
    assert seen_m[2] != pytest.approx(seen_m[0], abs=1e-7)
    assert moved_m[-1] == pytest.approx(seen_m[0], abs=1e-8)


def test_a_microscope_that_is_gone_is_told_once_and_the_result_says_where_it_was_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = small_microscope(tmp_path)
    plain = yaml.safe_load(path.read_text(encoding="utf-8"))
    plain["driver"]["options"]["faults"] = {"disconnect": {"at": [2]}}
    path.write_text(yaml.safe_dump(plain), encoding="utf-8")
    assert main(["autofocus", str(path), "--arm", "--json"]) == exits.FAILED
    said = capsys.readouterr()
    frame, result = map(json.loads, said.out.splitlines())
    assert result["status"] == "failed"
    assert result["final_working_distance_m"] == frame["action"]["working_distance_m"]
    gone = "the link is gone (injected fault); open the driver again"
    assert [line for line in said.err.splitlines() if gone in line] == [
        f"warning: no frame could be taken: {gone}",
        f"error: {gone}",
    ]


def test_the_newest_frames_fit_on_the_screen() -> None:
    config = load_config(find_config("simulated"))
    output = Output(json=False)
    output.people = Console(file=io.StringIO(), force_terminal=True, width=80, height=24)
    hub = LocalHub(ManualClock())
    table = focus._Table(output, config)
    monitor = HealthMonitor(
        config, Capabilities(driver="d", microscope="m", verified_on=None), ManualClock()
    )
    table.ledger = Ledger(LocalBus(hub, Role.SUPERVISOR).subscribe, output, table.add, monitor)
    with table:
        for sequence in range(1, 31):
            header = frame_of(np.zeros((64, 64), np.uint8)).header
            action = {"type": "set_working_distance", "working_distance_m": 4.9891e-3}
            header = msgspec.structs.replace(header, sequence=sequence)
            table.add(Row(header=header, action=action))
        lines = output.people.render_lines(table._live.get_renderable())
        text = ["".join(segment.text for segment in line) for line in lines]
        assert len(lines) < 24
        assert any("│ 30 " in line and "to 4.9891 mm" in line for line in text)
    assert len(output.people.render_lines(table._live.get_renderable())) > 30
