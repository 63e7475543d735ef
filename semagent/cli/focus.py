"""``autofocus`` and ``simulate``: one focusing, frame by frame, in this process."""

import contextlib
import random
import time
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Group
from rich.live import Live
from rich.table import Table

from semagent import registry
from semagent.calibration.learn import learn
from semagent.cli import exits, live
from semagent.cli.interrupt import Interrupt, caught_interrupts
from semagent.cli.ledger import Ledger, Row
from semagent.cli.output import Output, counted
from semagent.cli.view import FOCUS_ROWS, focus_panel, is_utf8
from semagent.clock import Clock, SystemClock
from semagent.config import Part, RunConfig, find_config, load_config, save_memory
from semagent.control import forbids, not_begun
from semagent.control.ending import DISARMED
from semagent.errors import (
    CommandRefusedError,
    FrameTooSmallError,
    InputFileError,
    MicroscopeError,
    RoleError,
    SemagentError,
    UsageError,
)
from semagent.health import HealthMonitor
from semagent.lengths import show_distance, show_length
from semagent.lockstep import Lockstep
from semagent.memory import load_memory
from semagent.parts import open_beside
from semagent.ports import Microscope
from semagent.safety import Code
from semagent.stack import as_recorded, config_for_stack, without_scale
from semagent.types import (
    Arm,
    Cancel,
    FocusResult,
    FrameAnalysis,
    GateStatus,
    Mode,
    Outcome,
    SetMode,
    SetWorkingDistance,
    StartAutofocus,
)

_FRAMES_WITHOUT_RESULT = 1000
_WATCHED_INTERVAL_S = 0.2
_FRAME_ROWS = 5  # that the table takes beside its frames, and the cursor below
_NO_LIMIT = {"microscope", Code.SETTINGS_CHANGED}
"""Refusals that are none of the safety envelope: by the driver, or because of a hand."""


def autofocus(
    name: str,
    *,
    max_frames: int | None,
    stigmation: bool,
    arm: bool,
    record: Path | None,
    output: Output,
) -> int:
    """Focus the microscope of a configuration once and return the exit code."""
    config = load_config(find_config(name))
    clock = SystemClock()
    microscope = registry.open_microscope(config.driver.name, config.driver.options, clock=clock)
    output.warn_unverified(microscope.capabilities)
    if not arm:
        with contextlib.closing(microscope):
            start_m = microscope.read_state().optics.working_distance_m
        _report(not_begun(start_m, DISARMED), 0.0, output)
        output.fail("a focusing moves focus and stigmators: give --arm")
        return exits.REFUSED
    request = StartAutofocus(max_frames=max_frames, stigmation=stigmation)
    # A configuration that ships with semagent is for trying things: it learns nothing.
    memory = Path(config.memory) if config.memory and Path(name).is_file() else None
    return _focus(config, microscope, clock, request, record=record, output=output, memory=memory)


def simulate(
    stack: str,
    *,
    start_working_distance_m: float | None,
    max_frames: int | None,
    engine: str,
    seed: int | None,
    console: bool,
    record: Path | None,
    output: Output,
) -> int:
    """Focus over a recorded stack as if it were the microscope and return the exit code.

    Without a starting point it begins at the first frame of the stack or, given a seed, at a
    place picked at random. With ``console`` it is a live run: the agent focuses, holds, and obeys
    the console until Ctrl-C.
    """
    clock = SystemClock()
    options: dict[str, Any] = {"stack": stack}
    microscope = registry.open_microscope("recorded", options, clock=clock)
    start_m = start_working_distance_m
    if start_m is None and seed is not None:
        low_m, high_m = microscope.capabilities.working_distance_range_m or (0.0, 0.0)
        start_m = random.Random(seed).uniform(low_m, high_m)  # noqa: S311 - not a secret
    if start_m is not None:
        try:
            microscope.apply(SetWorkingDistance(working_distance_m=start_m))
        except CommandRefusedError as error:
            microscope.close()
            raise UsageError(f"--start-um: {error}") from error
        options["start_working_distance_m"] = start_m
    recorded = as_recorded(microscope)
    config = config_for_stack(recorded, Part(name=engine))
    if console:
        microscope.close()
        return _watched(config, options, max_frames, record, output)
    lacks = without_scale(recorded, config)
    request = StartAutofocus(max_frames=max_frames)
    try:
        code = _focus(config, microscope, clock, request, record=record, output=output)
    except FrameTooSmallError as error:
        raise InputFileError(f"{stack}: {error}") from error
    if code == exits.HELD and lacks:
        output.warn(lacks)
    return code


def _watched(
    config: RunConfig,
    options: dict[str, Any],
    max_frames: int | None,
    record: Path | None,
    output: Output,
) -> int:
    control = config.control
    if max_frames is not None:
        control = msgspec.structs.replace(
            control, autofocus=msgspec.structs.replace(control.autofocus, max_frames=max_frames)
        )
    watched = msgspec.structs.replace(
        config,
        driver=Part(name="recorded", options=options),
        acquire=msgspec.structs.replace(config.acquire, frame_interval_s=_WATCHED_INTERVAL_S),
        control=control,
        restoration=Part(name="onnxruntime", options={"threads": 1}),
    )
    return live.run(
        watched,
        mode=Mode.HOLD,
        arm=True,
        record=record,
        frames=None,
        duration_s=None,
        console=True,
        output=output,
    )


def _focus(
    config: RunConfig,
    microscope: Microscope,
    clock: Clock,
    request: StartAutofocus,
    *,
    record: Path | None,
    output: Output,
    memory: Path | None = None,
) -> int:
    engine, recorder = open_beside(microscope, config, record, clock)
    started_s = time.perf_counter()
    lockstep = Lockstep(config, microscope, engine, clock, recorder)
    table = _Table(output, config)
    monitor = HealthMonitor(config, microscope.capabilities, clock)
    ledger = table.ledger = Ledger(lockstep.listen, output, table.add, monitor)
    ledger.says_result = True
    # A move that is cut short disarms the gate, and then nothing could be put back. To the end, as
    # the exit code has to say how it ended.
    end_exposure = lockstep.acquire.end_exposure
    with caught_interrupts(output, end_exposure, moved=ledger.has_commands) as interrupt:
        with lockstep, table:
            start = microscope.read_state()
            start_m = start.optics.working_distance_m
            tolerance_m = config.safety.tolerance("working_distance_m")
            unaffordable = forbids(start, config.control.autofocus.max_dose_e_nm2)
            if unaffordable:
                _report(not_begun(start_m, unaffordable), time.perf_counter() - started_s, output)
                return exits.HELD
            reply = lockstep.operate(Arm())
            if reply.outcome is not Outcome.APPLIED:
                output.fail(f"not armed: {reply.reason}")
                return exits.REFUSED
            lockstep.request(SetMode(mode=Mode.HOLD))
            lockstep.request(request)
            try:
                found = _follow(lockstep, ledger, interrupt)
            except Exception as error:
                # Nobody will look at another frame, whatever went wrong: back to where it began.
                lockstep.settle()
                ledger.update()
                if ledger.result is None:
                    lockstep.request(Cancel(reason=str(error)))
                    lockstep.settle()
                    ledger.update()
                ledger.flush()
                table.close()
                if ledger.result is not None:
                    result = _as_it_is(ledger.result, start_m, microscope, tolerance_m)
                    _report(result, time.perf_counter() - started_s, output, ledger.ended)
                raise
            gate = lockstep.gate
            result = _as_it_is(found, start_m, microscope, tolerance_m)
        ended = ledger.ended if result.reason == found.reason else ""
        _report(result, time.perf_counter() - started_s, output, ended)
        if record is not None:
            output.say(f"recorded in {record}")
        if result.verified and memory is not None:
            _remember(memory, config, table.analyses, result, output)
        return _exit_code(result, ledger, gate, interrupt, tolerance_m)


def _follow(lockstep: Lockstep, ledger: Ledger, interrupt: Interrupt) -> FocusResult:
    """Expose frames until there is a result."""
    while lockstep.acquire.frames < _FRAMES_WITHOUT_RESULT:
        if interrupt.pressed:
            lockstep.request(Cancel(reason=interrupt.reason))
        ledger.update()
        ledger.flush()
        if ledger.result is not None:
            return ledger.result
        lockstep.cycle()
    raise RoleError(f"no result after {_FRAMES_WITHOUT_RESULT} frames")


def _as_it_is(
    result: FocusResult, start_m: float, microscope: Microscope, tolerance_m: float
) -> FocusResult:
    """The result with the working distances the microscope itself reported.

    Focus that somebody has turned away from since the last frame is not reported as found.
    """
    found_m = result.final_working_distance_m
    try:
        left_m = microscope.read_state().optics.working_distance_m
    except MicroscopeError:
        left_m = found_m
    if result.status == "focused" and abs(left_m - found_m) > tolerance_m:
        reason = (
            f"focus was found at {show_distance(found_m)}, but since the last frame the working "
            f"distance was changed to {show_distance(left_m)} by hand or by the microscope itself; "
            "left as it is"
        )
        result = msgspec.structs.replace(result, status="failed", reason=reason)
    return msgspec.structs.replace(
        result, start_working_distance_m=start_m, final_working_distance_m=left_m
    )


def _report(result: FocusResult, wall_s: float, output: Output, ended: str = "") -> None:
    """Say how it ended; people are told in the words of ``ended``, if there are any."""
    output.record({"event": "result", **msgspec.to_builtins(result), "wall_s": wall_s})
    known = result.status == "focused" and result.sigma_m is not None
    uncertainty = f" ± {show_length(result.sigma_m)}" if known else ""
    output.say(
        f"{ended or f'{result.status}: {result.reason}'}\n"
        f"working distance {show_distance(result.start_working_distance_m)} → "
        f"{show_distance(result.final_working_distance_m)}{uncertainty}, "
        f"{counted(result.frames_used, 'frame')}, {counted(result.moves, 'move')}, {wall_s:.1f} s"
    )


def _remember(
    path: Path,
    config: RunConfig,
    analyses: list[FrameAnalysis],
    result: FocusResult,
    output: Output,
) -> None:
    """Keep what the focusing has taught of the instrument."""
    try:
        memory = learn(
            load_memory(path), analyses, result.final_working_distance_m, config.control.scale
        )
        if memory is not None:
            save_memory(path, msgspec.structs.replace(memory, instrument=config.instrument))
    except SemagentError as error:
        output.warn(f"nothing was learned from this focusing: {error}")


def _exit_code(
    result: FocusResult, ledger: Ledger, gate: GateStatus, interrupt: Interrupt, tolerance_m: float
) -> int:
    if result.status == "focused":
        return exits.DONE
    if interrupt.pressed:
        away_m = abs(result.final_working_distance_m - result.start_working_distance_m)
        left = ledger.not_put_back or away_m > tolerance_m
        return exits.FAILED if left else exits.INTERRUPTED
    refused = any(
        outcome is Outcome.REFUSED and code not in _NO_LIMIT for outcome, code in ledger.refusals
    )
    failed = ledger.failed or gate.code == Code.MOVED_BY_HAND
    if (refused or not gate.armed) and not failed:
        return exits.REFUSED
    return exits.HELD if result.status == "held" and not ledger.failed else exits.FAILED


class _Table:
    """A JSON line, or a row of a table that grows, for each frame; below it how things stand."""

    def __init__(self, output: Output, config: RunConfig) -> None:
        self._output = output
        self._config = config
        self.ledger: Ledger | None = None
        self.analyses: list[FrameAnalysis] = []
        self._rows: list[list[str]] = []
        self._live = Live(_frames([]), console=output.people, auto_refresh=False)

    def __enter__(self) -> "_Table":
        if not self._output.json:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Show all of it for good; further calls do nothing."""
        if not self._live.is_started:
            return
        if self._rows:
            self._show(self._rows)
        self._live.stop()
        if not self._output.people.is_terminal:
            self._output.say("")  # what is not a terminal gets the table without an end of line

    def add(self, row: Row) -> None:
        """Show one frame."""
        if row.analysis is not None:
            self.analyses.append(row.analysis)
        self._output.record(row.record())
        if self._output.json:
            return
        self._rows.append(
            [
                str(row.header.sequence),
                show_distance(row.header.optics.working_distance_m),
                "unusable" if row.analysis is None else f"{row.analysis.focus_score:.3f}",
                show_distance(None if row.belief is None else row.belief.focus_m),
                show_length(None if row.belief is None else row.belief.sigma_m),
                _next(row.action),
            ]
        )
        # What does not fit on the screen comes at the end.
        self._show(self._rows[-max(1, self._output.people.height - FOCUS_ROWS - _FRAME_ROWS) :])

    def _show(self, rows: list[list[str]]) -> None:
        shown: Table | Group = _frames(rows)
        ledger, console = self.ledger, self._output.people
        if ledger is not None and ledger.monitor is not None and console.is_terminal:
            health, wide = ledger.monitor.snapshot(), console.width
            panel = focus_panel(ledger, self._config, health, columns=wide, utf8=is_utf8(console))
            shown = Group(shown, panel)
        self._live.update(shown, refresh=True)


def _frames(rows: list[list[str]]) -> Table:
    table = Table()
    for column in ("frame", "working distance", "score", "focus", "±", "next"):
        table.add_column(column, no_wrap=column not in ("working distance", "next"))
    for row in rows:
        table.add_row(*row)
    return table


def _next(action: dict[str, Any] | None) -> str:
    if action is None:
        return ""
    if action["type"] == "set_working_distance":
        return f"to {show_distance(action['working_distance_m'])}"
    return str(action["type"]).replace("_", " ")
