"""``run``, ``demo`` and ``simulate --console``: the live loop, each role in its own process."""

import importlib.util
import time
from pathlib import Path
from typing import TypeVar

from semagent.channels import Role
from semagent.cli import exits
from semagent.cli.drain import LOST_S, Drain
from semagent.cli.interrupt import Interrupt, caught_interrupts
from semagent.cli.ledger import Ledger
from semagent.cli.output import Output, counted
from semagent.cli.view import LiveView
from semagent.clock import SystemClock
from semagent.config import RunConfig
from semagent.errors import CommandRefusedError, RoleError, SemagentError
from semagent.health import HealthMonitor
from semagent.lengths import show_distance
from semagent.signals import ignore
from semagent.supervisor import Supervisor
from semagent.types import (
    Arm,
    Cancel,
    Command,
    Disarm,
    Event,
    Issuer,
    Mode,
    Outcome,
    Reply,
    Request,
    SetMode,
)

_CONSOLE_NEEDS = ("starlette", "uvicorn", "websockets")
_POLL_S = 0.05
_ANSWER_S = 10.0
# Kinds of event after a cancel that say: control gives no more commands.
_AT_REST = {"autofocus_done", "hold_ended", "paused", "request_refused"}
# What control does while nothing has to be put back.
_IDLE = {"watching", "paused"}


def run(
    config: RunConfig,
    *,
    mode: Mode | None,
    arm: bool,
    record: Path | None,
    frames: int | None,
    duration_s: float | None,
    console: bool,
    output: Output,
) -> int:
    """Run the agent beside a microscope until it is told to end, and return the exit code."""
    supervisor = Supervisor(
        config,
        frames=frames,
        session=record,
        console=console and _has_console(output),
        on_trouble=output.warn,
    )
    ledger = Ledger(supervisor.bus.subscribe, output, lambda row: output.record(row.record()))
    put_back = True
    try:
        # Until here nothing has moved: Ctrl-C ends the start at once.
        supervisor.start()
        _say_where(supervisor, output)
        with caught_interrupts(output, moved=ledger.has_commands) as interrupt:
            session = _Session(supervisor, ledger, config, output)
            session.begin(mode or config.control.mode, arm=arm)
            try:
                session.loop(interrupt, frames, duration_s)
            except Exception as error:
                session.rescue(error)
                raise
            if interrupt.pressed:
                put_back = session.put_back(Cancel(reason=interrupt.reason))
            elif session.moving:
                end = Cancel(reason="the run has come to its end", planned=True)
                put_back = session.put_back(end)
            session.report(record)
    except CommandRefusedError as error:
        output.fail(str(error))
        return exits.REFUSED
    finally:
        hurried = _close(supervisor)
    if not put_back or ledger.not_put_back or session.failed:
        return exits.FAILED
    return exits.INTERRUPTED if interrupt.pressed or hurried else exits.DONE


def _close(supervisor: Supervisor) -> bool:
    """End the roles, and say whether Ctrl-C has hurried that; it hides no failure."""
    try:
        supervisor.close()
    except KeyboardInterrupt:
        ignore()
        return True
    return False


def _has_console(output: Output) -> bool:
    """Whether the console's libraries are installed; says how to get them if not."""
    missing = [name for name in _CONSOLE_NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        output.warn(
            f"no console: {', '.join(missing)} missing. `pip install 'semagent[console]'` brings "
            "it; --no-console leaves it out without this warning"
        )
    return not missing


def _say_where(supervisor: Supervisor, output: Output) -> None:
    links = supervisor.console_links
    if links is not None:
        output.say(f"console:   {links[0]}\nview only: {links[1]}")


_Answer = TypeVar("_Answer", Reply, Event)


class _Session:
    """One run, seen from the operator's terminal."""

    def __init__(
        self, supervisor: Supervisor, ledger: Ledger, config: RunConfig, output: Output
    ) -> None:
        self._supervisor = supervisor
        self._ledger = ledger
        self._config = config
        self._output = output
        self._started_s = time.perf_counter()
        output.warn_unverified(supervisor.capabilities)
        ledger.monitor = HealthMonitor(
            config, supervisor.capabilities, SystemClock(), supervisor.roles
        )

    def begin(self, mode: Mode, *, arm: bool) -> None:
        """Arm if asked to, and set the mode.

        Raises:
            CommandRefusedError: the gate will not be armed.
            RoleError: a role does not answer.
        """
        if arm:
            reply = self._command(Arm())
            if reply.outcome is not Outcome.APPLIED:
                raise CommandRefusedError(f"not armed: {reply.reason}")
        self._ask(SetMode(mode=mode))

    def loop(self, interrupt: Interrupt, frames: int | None, duration_s: float | None) -> None:
        """Follow the run to its end."""
        supervisor = self._supervisor
        view = LiveView(
            self._output,
            self._ledger,
            self._config,
            supervisor.capabilities,
            supervisor.engine,
            supervisor.console_links,
        )
        drain: Drain | None = None
        with view:
            while not interrupt.pressed:
                supervisor.watch(0.0)
                supervisor.bus.wait(_POLL_S)
                self._ledger.update()
                view.update()
                now_s = time.perf_counter()
                if duration_s is not None and now_s - self._started_s >= duration_s:
                    break
                if drain is None and self._exposed(frames):
                    drain = Drain(self._ledger, SystemClock())
                if drain is not None and drain.done():
                    break
        self._ledger.flush()

    @property
    def moving(self) -> bool:
        """Whether the agent may be on its way somewhere."""
        gate = self._ledger.gate
        return self._ledger.mode is Mode.HOLD and gate is not None and gate.armed

    @property
    def failed(self) -> bool:
        """Whether the gate, which was armed, stands closed because the microscope failed."""
        gate = self._ledger.gate
        closed = gate is not None and not gate.armed and gate.monotonic_ns > 0
        return closed and self._ledger.failed

    def put_back(self, cancel: Cancel) -> bool:
        """Have control put focus and stigmators back where its task began; ``False`` if it is late.

        Commands are carried out between frames, so this may take as long as one.
        """
        self._ledger.update()
        self._ledger.news.clear()
        self._ask(cancel)
        until_s = time.perf_counter() + self._frame_s + _ANSWER_S
        drain: Drain | None = None
        while time.perf_counter() < until_s and not (drain is not None and drain.done()):
            self._supervisor.watch(0.0)
            self._supervisor.bus.wait(_POLL_S)
            self._ledger.update()
            if drain is None and any(event.kind in _AT_REST for event in self._ledger.news):
                drain = Drain(self._ledger, SystemClock())
                until_s = time.perf_counter() + LOST_S  # frames may go on for ever
        self._ledger.flush()
        if drain is None:
            self._output.warn("focus was not put back in time: check the working distance")
        return drain is not None

    def rescue(self, error: Exception) -> None:
        """The run ends because of ``error``: put focus back if there is still somebody to do it.

        Then say where it was left, as it is read once nothing can move any more.
        """
        self._ledger.update()
        intent, read = self._ledger.intent, None
        put_back = intent is None or intent.doing in _IDLE
        try:
            if self._supervisor.works(Role.ACQUIRE):
                if self.moving and self._supervisor.works(Role.CONTROL):
                    put_back = self.put_back(Cancel(reason=f"the run ends: {error}"))
                read = self._command(Disarm(reason="the run ends")).state
        except SemagentError as again:
            self._output.warn(str(again))
        self._ledger.update()
        if not put_back:
            self._output.warn(
                "focus and stigmators were not put back to where the agent began: check them"
            )
        state = read or self._ledger.state
        if state is not None:
            where = show_distance(state.optics.working_distance_m)
            self._output.say(f"{'left' if read else 'last read'} at working distance {where}")

    def report(self, record: Path | None) -> None:
        """Say how it went."""
        ledger = self._ledger
        ledger.update()
        state = ledger.state
        beat = ledger.beats.get(Role.ACQUIRE)
        frames = beat.processed if beat else ledger.frames
        engine = ledger.beats.get(Role.INFER)
        analysed = engine.processed if engine else ledger.frames - ledger.flagged
        self._output.record(
            {
                "event": "summary",
                "frames": frames,
                "analysed": analysed,
                "flagged": ledger.flagged,
                "commands": ledger.commands,
                "refused": ledger.refusals.total(),
                "record": None if record is None else str(record),
                "wall_s": time.perf_counter() - self._started_s,
            }
        )
        self._output.say(
            f"{counted(frames, 'frame')}, {ledger.flagged} unusable, "
            f"{counted(ledger.commands, 'command')}, {ledger.refusals.total()} refused or failed"
            + (
                ""
                if state is None
                else f"; working distance {show_distance(state.optics.working_distance_m)}"
            )
            + ("" if record is None else f"; recorded in {record}")
        )

    @property
    def _frame_s(self) -> float:
        """How long a command may have to wait for the end of a frame."""
        return self._config.acquire.frame_timeout_s

    def _exposed(self, frames: int | None) -> bool:
        beat = self._ledger.beats.get(Role.ACQUIRE)
        return frames is not None and beat is not None and beat.processed >= frames

    def _command(self, action: Arm | Disarm) -> Reply:
        """Do something as the operator and return what became of it, when the frame has ended."""
        name = f"operator-{type(action).__name__.lower()}"
        command = Command(id=name, issuer=Issuer.OPERATOR, action=action)
        self._supervisor.bus.send("command", command)
        return self._answer(Reply, self._frame_s + _ANSWER_S)

    def _ask(self, request: Request) -> None:
        """Ask control for something and wait until it was taken up; a refusal comes as news."""
        self._supervisor.bus.send("request", request)
        self._answer(Event, _ANSWER_S)

    def _answer(self, kind: type[_Answer], within_s: float) -> _Answer:
        until_s = time.perf_counter() + within_s
        while time.perf_counter() < until_s:
            for answer in self._supervisor.bus.answers():
                if isinstance(answer, kind):
                    return answer
            self._supervisor.watch(0.0)
            self._supervisor.bus.wait(_POLL_S)
        raise RoleError(f"no answer within {within_s:g} s")
