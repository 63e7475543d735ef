"""The live loop with every role in a process of its own: real processes, sockets and signals."""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from semagent.channels import CHANNELS
from semagent.cli import live as command
from semagent.cli.ledger import Ledger
from semagent.cli.output import Output
from semagent.config import load_config
from semagent.session import ProblemKind, SessionReader, verify
from semagent.signals import ENDING
from semagent.supervisor import Supervisor
from semagent.types import Mode

Run = Callable[..., Any]
Config = Callable[..., Path]


def test_hold_follows_the_drift_and_the_record_replays(
    semagent: Run, simulated_config: Config, tmp_path: Path
):
    config = simulated_config(speed=4.0, drift={"z_nm_per_s": 400}, column={"convergence_mrad": 8})
    record = tmp_path / "session"
    arguments = ("--arm", "--mode", "hold", "--frames", 200, "--record", record, "--json")
    run = semagent("run", "--no-console", config, *arguments)
    assert run.code == 0, run.err
    assert "come to its end" not in run.err
    *frames, summary = run.records
    assert summary["event"] == "summary"
    assert summary["frames"] == 200
    assert summary["refused"] == 0
    scores = [frame["focus_score"] for frame in frames if frame["event"] == "frame"]
    assert min(scores[-50:]) > 0.8 * max(scores)
    assert scores[0] < 0.7 * max(scores)

    reader = SessionReader(record)
    sequences = [line.header.sequence for line in reader.frame_records]
    assert sequences == list(range(1, 201))
    assert reader.manifest.complete
    assert verify(record) == []

    again = semagent("replay", record, "--compare", "--json")
    assert again.code == 0, again.err
    replayed = again.records[-1]
    assert replayed["differences"] == 0
    assert replayed["commands"] == summary["commands"] > 5


def test_a_record_that_was_tampered_with_does_not_replay(
    semagent: Run, simulated_config: Config, tmp_path: Path
):
    record = tmp_path / "session"
    config = simulated_config(speed=0)
    run = semagent(
        "run", "--no-console", config, "--arm", "--mode", "hold", "--frames", 30, "--record", record
    )
    assert run.code == 0, run.err
    events = record / "events.jsonl"
    lines = events.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        entry = json.loads(line)
        if entry["channel"] == "command" and entry["value"]["issuer"] == "agent":
            entry["value"]["action"]["working_distance_m"] += 1e-9
            lines[number] = json.dumps(entry)
            break
    events.write_text("\n".join(lines) + "\n", encoding="utf-8")
    again = semagent("replay", record, "--compare", "--json")
    assert again.code == 3
    assert again.records[-1]["differences"] == 1


def test_nothing_moves_without_arming(semagent: Run, simulated_config: Config):
    config = simulated_config(speed=0)
    run = semagent("run", "--no-console", config, "--mode", "hold", "--frames", 60, "--json")
    assert run.code == 0, run.err
    *frames, summary = run.records
    assert len(frames) >= 3  # of 20: what is not looked at in time is dropped
    assert summary["commands"] == 0
    (stayed_m,) = {frame["working_distance_m"] for frame in frames}
    assert stayed_m == pytest.approx(5.03e-3, abs=1e-12)


def test_advise_proposes_and_does_not_move(semagent: Run, simulated_config: Config):
    config = simulated_config(speed=0)
    run = semagent(
        "run", "--no-console", config, "--arm", "--mode", "advise", "--frames", 20, "--json"
    )
    assert run.code == 0, run.err
    assert run.records[-1]["commands"] == 0


def test_an_existing_record_is_never_overwritten(
    semagent: Run, simulated_config: Config, tmp_path: Path
):
    record = tmp_path / "session"
    record.mkdir()
    (record / "precious.txt").write_text("a month of work", encoding="utf-8")
    run = semagent(
        "run", "--no-console", simulated_config(speed=0), "--frames", 5, "--record", record
    )
    assert run.code == 2
    assert str(record) in run.err
    assert [path.name for path in record.iterdir()] == ["precious.txt"]


def test_a_session_is_a_stack_too(semagent: Run, simulated_config: Config, tmp_path: Path):
    record = tmp_path / "session"
    run = semagent("autofocus", simulated_config(speed=0), "--arm", "--record", record)
    assert run.code == 0, run.err
    estimate = semagent("estimate", record, "--json")
    assert estimate.code == 0, estimate.err
    assert abs(estimate.records[0]["focus_working_distance_m"] - 5.0e-3) < 4e-6


def spawned(supervisor: int) -> list[psutil.Process]:
    """The processes of roles that are there by now, and no longer copies of their supervisor."""
    found = []
    for child in psutil.Process(supervisor).children():
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended meanwhile
            if "spawn_main" in " ".join(child.as_dict(["cmdline"])["cmdline"] or ()):  # no zombie
                found.append(child)
    return found


class Started:
    """A run that is going on, whose processes can be found and hurt."""

    def __init__(
        self, press_ctrl_c: Callable[[subprocess.Popen[str]], None], *arguments: object
    ) -> None:
        self._press_ctrl_c = press_ctrl_c
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "semagent",
                "run",
                *map(str, arguments),
                "--no-console",
                "--json",
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )

    def press_ctrl_c(self) -> None:
        self._press_ctrl_c(self.process)

    def wait_for_frames(self, number: int) -> list[dict[str, Any]]:
        assert self.process.stdout is not None
        frames = []
        for line in self.process.stdout:
            frames.append(json.loads(line))
            if len(frames) == number:
                return frames
        raise AssertionError(f"the run ended: {self.finish()[1]}")

    def wait_until_moved(self) -> None:
        """Into the first search: focus has left the start and is not found yet."""
        (first,) = self.wait_for_frames(1)
        for _ in range(200):
            (frame,) = self.wait_for_frames(1)
            if frame["working_distance_m"] != first["working_distance_m"]:
                return
        raise AssertionError("it never moved")

    def children(self) -> dict[str, psutil.Process]:
        """The role processes, by what they have open: the order in which they were started."""
        found = spawned(self.process.pid)
        found.sort(key=lambda child: child.create_time())
        names = ("record", "acquire", "infer", "control")
        return dict(zip(names[len(names) - len(found) :], found, strict=True))

    def finish(self) -> tuple[int, str]:
        out, err = self.process.communicate(timeout=60.0)
        self.out = out
        return self.process.returncode, err


@pytest.fixture
def live(simulated_config: Config, press_ctrl_c: Any) -> Any:
    started: list[Started] = []

    def start(*arguments: object, **changes: Any) -> Started:
        config = simulated_config(speed=1.0, **changes)
        started.append(Started(press_ctrl_c, config, *arguments))
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            each.process.kill()
            each.process.communicate()


@pytest.mark.skipif(os.name == "nt", reason="sends POSIX signals; Windows has others")
@pytest.mark.parametrize("number", ENDING)
def test_an_interrupt_puts_focus_back_and_ends_cleanly(live: Any, number: signal.Signals):
    run = live("--arm", "--mode", "hold")
    run.wait_until_moved()
    roles = list(run.children().values())
    for process in (*roles, psutil.Process(run.process.pid)):
        process.send_signal(number)  # terminals and service managers tell all of them
    code, _ = run.finish()
    assert code == 130
    last = [json.loads(line) for line in run.out.splitlines()]
    frames = [each for each in last if each["event"] == "frame"]
    assert frames[-1]["working_distance_m"] == pytest.approx(0.00503, abs=1e-9)
    assert not psutil.wait_procs(roles, timeout=5)[1]


@pytest.mark.skipif(os.name == "nt", reason="sends POSIX signals; Windows has others")
def test_an_interrupt_that_cannot_put_focus_back_says_so(live: Any):
    refused = {"refused": {"at": list(range(3, 60))}}
    run = live("--arm", "--mode", "hold", scan={"dwell_us": 4.0}, faults=refused)
    run.wait_until_moved()
    run.process.send_signal(signal.SIGTERM)
    code, err = run.finish()
    assert code == 3, err
    assert "could not be put back to 5.0300 mm" in err


def test_ctrl_c_waits_for_a_slow_frame_to_put_focus_back(live: Any, tmp_path: Path):
    record = tmp_path / "session"
    # More than a second a frame: the command home is carried out when the frame has ended.
    run = live("--arm", "--mode", "hold", "--record", record, scan={"dwell_us": 7.0})
    frames = run.wait_for_frames(5)
    assert frames[-1]["working_distance_m"] != frames[0]["working_distance_m"]
    run.press_ctrl_c()
    code, err = run.finish()
    assert code == 130, err
    assert left_at_m(record) == pytest.approx(0.00503, abs=1e-9)


def test_a_second_ctrl_c_on_the_way_back_does_not_say_that_focus_is_back(live: Any):
    run = live("--arm", "--mode", "hold", scan={"dwell_us": 7.0})
    run.wait_until_moved()
    run.press_ctrl_c()
    time.sleep(0.1)  # two signals of one kind at once may come as one
    run.press_ctrl_c()
    code, err = run.finish()
    assert code == 3, err
    assert "check them" in err


@pytest.mark.parametrize(
    ("lost", "expected"), [("control", 3), (None, 130)], ids=["failed", "done"]
)
def test_ctrl_c_while_roles_are_brought_down_hides_no_failure(
    live: Any, lost: str | None, expected: int
):
    run = live("--arm", "--mode", "hold", *(() if lost else ("--duration", 4)))
    run.wait_for_frames(3)
    roles = run.children()
    roles["infer"].suspend()  # as an engine that hangs: it is waited for
    if lost:
        roles[lost].kill()
    assert not psutil.wait_procs([roles["acquire"]], timeout=30)[1]
    run.press_ctrl_c()
    code, err = run.finish()
    assert code == expected, err
    assert "Traceback" not in err
    assert not psutil.wait_procs(list(roles.values()), timeout=5)[1]


def left_at_m(record: Path) -> float:
    """The working distance that was read back last."""
    types = {name: channel.type for name, channel in CHANNELS.items()}
    replies = [
        entry.value for entry in SessionReader(record).events(types) if entry.channel == "reply"
    ]
    return float(replies[-1].state.optics.working_distance_m)


def test_a_reader_of_the_output_who_goes_away_counts_as_ctrl_c(live: Any, tmp_path: Path):
    record = tmp_path / "session"
    # Slow frames: the search must not be over before anybody notices.
    run = live("--arm", "--mode", "hold", "--record", record, scan={"dwell_us": 4.0})
    run.wait_until_moved()
    run.process.stdout.close()  # as with `| head`, or with `| tee` that Ctrl-C has ended
    run.process.stdout = None
    code, err = run.finish()
    assert code == 130, err
    assert "Traceback" not in err
    assert left_at_m(record) == pytest.approx(0.00503, abs=1e-9)


@pytest.mark.skipif(os.name == "nt", reason="sends POSIX signals; Windows has others")
@pytest.mark.parametrize("roles", [1, 3])
def test_ctrl_c_in_a_terminal_during_the_start_ends_everything(
    simulated_config: Config, roles: int
):
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "semagent",
            "run",
            str(simulated_config()),
            "--arm",
            "--no-console",
            "--json",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    started: list[psutil.Process] = []
    while len(started) < roles:
        assert process.poll() is None
        started = spawned(process.pid)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: all processes get it
    try:
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert out == ""
    assert not psutil.wait_procs(started, timeout=5)[1]


def test_a_second_ctrl_c_insists(live: Any):
    run = live("--mode", "observe")
    run.wait_for_frames(3)
    roles = run.children()
    roles["acquire"].suspend()  # as a vendor call that hangs
    run.press_ctrl_c()
    run.press_ctrl_c()
    while run.process.poll() is None:
        run.press_ctrl_c()
        with contextlib.suppress(subprocess.TimeoutExpired):
            run.process.wait(0.5)
    code, err = run.finish()
    assert code == 130, err
    assert not psutil.wait_procs(list(roles.values()), timeout=5)[1]


def test_arming_waits_for_the_end_of_a_frame(
    simulated_config: Config, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(command, "_ANSWER_S", 0.3)  # a frame takes four times as long
    config = load_config(simulated_config(speed=1.0, scan={"dwell_us": 7.0}))
    supervisor = Supervisor(config)
    output = Output(json=True)
    ledger = Ledger(supervisor.bus.subscribe, output, lambda _row: None)
    try:
        supervisor.start()
        while not ledger.frames:
            supervisor.bus.wait(0.1)
            ledger.update()
        command._Session(supervisor, ledger, config, output).begin(Mode.OBSERVE, arm=True)
    finally:
        supervisor.close()


def test_a_start_outside_the_envelope_is_refused(semagent: Run, simulated_config: Config):
    limits = {"min": 0.001, "max": 0.002, "max_step": 0.0002, "max_travel": 0.02}
    config = simulated_config(speed=0, _safety={"working_distance_m": limits})
    run = semagent("run", "--no-console", config, "--arm", "--frames", 3, "--json")
    assert run.code == 5
    assert "not armed" in run.err


def test_an_infer_role_that_dies_is_started_again(live: Any):
    run = live("--mode", "observe")
    run.wait_for_frames(3)
    run.children()["infer"].kill()
    run.wait_for_frames(5)
    run.press_ctrl_c()
    code, err = run.finish()
    assert code == 130
    assert "infer role" in err
    assert "starting it again" in err


def test_ctrl_c_does_not_wait_for_a_role_that_is_being_started_again(live: Any):
    run = live("--arm", "--mode", "hold")
    run.wait_until_moved()
    before = set(spawned(run.process.pid))
    run.children()["infer"].kill()
    while not (again := set(spawned(run.process.pid)) - before):
        assert run.process.poll() is None
    for process in again:
        process.suspend()  # as an engine that takes minutes to open
    run.press_ctrl_c()
    code, err = run.finish()
    assert code == 130, err
    assert "starting it again" in err
    assert not psutil.wait_procs(list(again), timeout=5)[1]


@pytest.mark.parametrize("role", ["acquire", "control"])
def test_another_role_that_dies_ends_the_run(live: Any, role: str):
    run = live("--mode", "observe")
    run.wait_for_frames(3)
    roles = run.children()
    roles[role].kill()
    code, err = run.finish()
    assert code == 3
    assert f"the {role} role died" in err
    assert not psutil.wait_procs(list(roles.values()), timeout=5)[1]


@pytest.mark.parametrize("lost", ["infer", "record"])
def test_focus_is_put_back_when_the_run_ends_because_a_role_died(
    live: Any, tmp_path: Path, lost: str
):
    record = ("--record", tmp_path / "session") if lost == "record" else ()
    run = live("--arm", "--mode", "hold", *record, _infer={"max_restarts": 0})
    run.wait_until_moved()
    roles = run.children()
    roles[lost].kill()
    code, err = run.finish()
    assert code == 3
    assert f"the {lost} role died" in err
    assert "left at working distance 5.0300 mm" in err
    assert "not put back" not in err
    assert not psutil.wait_procs(list(roles.values()), timeout=5)[1]


def test_focus_is_put_back_when_the_run_ends_because_of_a_fault_of_its_own(
    simulated_config: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def update(view: command.LiveView) -> None:
        if view._ledger.commands:
            raise ValueError("a fault of the view")

    monkeypatch.setattr(command.LiveView, "update", update)
    live: dict[str, Any] = {"record": None, "frames": None, "duration_s": None, "console": False}
    config = load_config(simulated_config(speed=1.0))
    with pytest.raises(ValueError, match="a fault of the view"):
        command.run(config, mode=Mode.HOLD, arm=True, output=Output(json=True), **live)
    assert "left at working distance 5.0300 mm" in capsys.readouterr().err


def test_where_focus_was_left_is_read_when_nobody_can_put_it_back(live: Any, tmp_path: Path):
    record = tmp_path / "session"
    run = live("--arm", "--mode", "hold", "--record", record)
    run.wait_until_moved()
    run.children()["control"].kill()
    code, err = run.finish()
    assert code == 3
    assert "were not put back to where the agent began" in err
    assert f"left at working distance {left_at_m(record) * 1e3:.4f} mm" in err


def test_a_role_that_hangs_counts_as_lost(live: Any):
    run = live("--mode", "observe")
    run.wait_for_frames(3)
    infer, control = (run.children()[role] for role in ("infer", "control"))
    infer.suspend()
    run.wait_for_frames(2)
    control.suspend()
    code, err = run.finish()
    assert code == 3
    assert "the infer role has given no sign of life for 5 s; starting it again" in err
    assert "the control role has given no sign of life" in err


def test_roles_end_when_their_supervisor_is_killed(live: Any):
    run = live("--mode", "observe")
    run.wait_for_frames(3)
    roles = list(run.children().values())
    run.process.kill()
    run.finish()
    assert not psutil.wait_procs(roles, timeout=15)[1]


def test_roles_put_focus_back_when_their_supervisor_is_killed(live: Any, tmp_path: Path):
    record = tmp_path / "session"
    run = live("--arm", "--mode", "hold", "--record", record, scan={"dwell_us": 4.0})
    run.wait_until_moved()
    roles = list(run.children().values())
    run.process.kill()
    run.finish()
    assert not psutil.wait_procs(roles, timeout=30)[1]
    assert left_at_m(record) == pytest.approx(0.00503, abs=1e-9)
    (problem,) = verify(record)
    assert problem.kind is ProblemKind.NOT_CLOSED
    assert "the process that watched over the run was killed" in problem.message


@pytest.mark.skipif(os.name != "nt", reason="elsewhere a signal says so")
def test_roles_put_focus_back_when_their_window_is_closed(live: Any, tmp_path: Path):
    """Windows tells each process in a thread of its own, and ends it when that returns."""
    record = tmp_path / "session"
    run = live("--arm", "--mode", "hold", "--record", record, scan={"dwell_us": 2.0})
    run.wait_until_moved()
    roles = list(run.children().values())
    for role in roles:
        close_window(role.pid)
    run.process.kill()  # the launcher of a virtual environment takes Python with it
    run.finish()
    assert not psutil.wait_procs(roles, timeout=30)[1]
    assert left_at_m(record) == pytest.approx(0.00503, abs=1e-9)


def close_window(pid: int) -> None:
    """As Windows does; it offers no call for that."""
    kernel: Any = ctypes.WinDLL("kernel32")  # type: ignore[attr-defined, unused-ignore]
    base: Any = ctypes.WinDLL("kernelbase")  # type: ignore[attr-defined, unused-ignore]
    kernel.OpenProcess.restype = kernel.CreateRemoteThread.restype = ctypes.c_void_p
    process = ctypes.c_void_p(kernel.OpenProcess(0x1FFFFF, 0, pid))
    assert kernel.CreateRemoteThread(
        *(process, None, ctypes.c_size_t(0)),
        *(base.CtrlRoutine, ctypes.c_void_p(2), 0, None),
    )


def test_a_microscope_that_fails_ends_the_run_with_the_reason(
    semagent: Run, simulated_config: Config
):
    config = simulated_config(speed=0, faults={"disconnect": {"at": [10]}})
    run = semagent("run", "--no-console", config, "--json")
    assert run.code == 3
    assert "acquire role" in run.err


@pytest.mark.parametrize(
    "command", [["run", "--no-console"], ["autofocus", "--arm"]], ids=lambda each: each[0]
)
def test_a_scan_too_small_for_the_engine_is_refused_before_a_frame_is_taken(
    command: list[str], semagent: Run, simulated_config: Config
):
    config = simulated_config(
        speed=0, scan={"width_px": 120, "height_px": 100}, _engine={"name": "onnxruntime"}
    )
    run = semagent(*command, config, "--json")
    assert run.code == 3
    assert run.err.count("frames of 120 x 100 pixels are too small") == 1
    assert not run.records


@pytest.mark.parametrize("end", ["frames", "ctrl-c"])
def test_a_run_whose_gate_closed_because_a_command_was_ignored_has_failed(live: Any, end: str):
    ignored = {"ignored": {"at": [1]}}
    run = live(
        "--arm", "--mode", "hold", *(("--frames", 30) if end == "frames" else ()), faults=ignored
    )
    run.wait_for_frames(5)
    if end == "ctrl-c":
        run.press_ctrl_c()
    code, err = run.finish()
    assert "not carried out as commanded" in err
    assert code == 3, err


def test_a_run_that_comes_to_its_end_in_a_search_puts_focus_back_and_is_done(
    live: Any, tmp_path: Path
):
    record = tmp_path / "session"
    run = live("--arm", "--mode", "hold", "--frames", 3, "--record", record, scan={"dwell_us": 4.0})
    code, err = run.finish()
    assert code == 0, err
    assert "held: the run has come to its end" in err
    assert left_at_m(record) == pytest.approx(0.00503, abs=1e-9)


def test_a_wrong_driver_option_is_exit_2(semagent: Run, simulated_config: Config):
    run = semagent("run", "--no-console", simulated_config(sped=1), "--json")
    assert run.code == 2
    assert "sped" in run.err


def test_bad_frames_are_counted_recorded_and_not_used(
    semagent: Run, simulated_config: Config, tmp_path: Path
):
    record = tmp_path / "session"
    config = simulated_config(speed=0, faults={"blank": {"at": [4, 5]}, "frozen": {"at": [9]}})
    run = semagent("run", "--no-console", config, "--frames", 15, "--record", record, "--json")
    assert run.code == 0, run.err
    assert run.records[-1]["flagged"] == 3
    faults = [
        list(line.header.faults)
        for line in SessionReader(record).frame_records
        if line.header.faults
    ]
    black = ["saturated", "blank"]
    assert faults == [black, ["frozen", *black], ["frozen"]]
    bad = [each for each in run.records if each["event"] == "frame" and each["faults"]]
    assert [each["focus_score"] for each in bad] == [None] * 3


def test_a_replay_adds_up_with_as_many_threads_as_a_run() -> None:
    """The displacement of a frame is a sum by numpy, which reads how many once, when loaded."""
    watch = (
        "import os, sys\n"
        "class Watch:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'numpy':\n"
        "            print(os.environ.get('OPENBLAS_NUM_THREADS'))\n"
        "sys.meta_path.insert(0, Watch())\n"
        "import semagent.cli\n"
    )
    environment = {**os.environ}
    environment.pop("OPENBLAS_NUM_THREADS", None)
    shown = subprocess.run(
        [sys.executable, "-c", watch], env=environment, capture_output=True, text=True, check=True
    )
    assert shown.stdout.split() == ["1"]
