"""``run --positions``: a tile scan with a map of focus, in this process."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import msgspec
from rich.progress import Progress

from semagent import registry
from semagent.cli import exits
from semagent.cli.interrupt import EndedAtFrameError, Interrupt, caught_interrupts
from semagent.cli.output import Output
from semagent.clock import SystemClock
from semagent.config import RunConfig, find_config, load_config
from semagent.errors import GateRefusedError, MicroscopeError, RecordError, UsageError
from semagent.lengths import show_length
from semagent.lockstep import Lockstep
from semagent.parts import open_beside
from semagent.places import Place, ScanOptions, read_places
from semagent.safety import STAGE_X, STAGE_Y, Envelope, check_places
from semagent.survey import Found, NoMapError, Pilot, Survey, Visit, for_survey, usual_approach_m
from semagent.survey.files import describe, write_results, write_tables
from semagent.types import FocusResult, FrameHeader

GRID = "grid"
_BESIDE = "results"


def run(name: str, *, positions: str, arm: bool, record: Path | None, output: Output) -> int:
    """Scan the positions and return the exit code."""
    config = for_survey(load_config(find_config(name)))
    options, listed = _options(config, positions)
    if record is None:
        raise UsageError("a tile scan is recorded: say where with --record DIR")
    if not arm:
        output.fail("a tile scan moves stage and focus: give --arm")
        return exits.REFUSED
    started_s = time.perf_counter()
    clock = SystemClock()
    microscope = registry.open_microscope(config.driver.name, config.driver.options, clock=clock)
    output.warn_unverified(microscope.capabilities)
    engine, recorder = open_beside(microscope, config, record, clock)
    survey: Survey | None = None
    code, kept = exits.DONE, True
    try:
        with (
            # A stage move that is cut short disarms the gate, and then nothing could be put back:
            # the scan ends at the next frame.
            caught_interrupts(output) as interrupt,
            Lockstep(config, microscope, engine, clock, recorder) as lockstep,
            output.progress() as bars,
        ):
            bar = _Bar(output, bars, interrupt)
            pilot = Pilot(
                lockstep,
                config,
                clock,
                approach_m=usual_approach_m(config)
                if options.approach_m is None
                else options.approach_m,
                on_frame=bar.step,
            )
            survey = _begin(pilot, config, options, listed, bar, record)
            survey.run()
    except EndedAtFrameError:
        output.fail("interrupted; stage and focus were put back")
        code = exits.INTERRUPTED
    except GateRefusedError as error:
        output.fail(str(error))
        code = exits.REFUSED
    except NoMapError as error:
        output.fail(str(error))
        code = exits.HELD
    finally:
        if survey is not None and survey.found is not None:
            frames, wall_s = lockstep.acquire.frames, time.perf_counter() - started_s
            kept = _keep(survey.found, bar.total, record, frames, wall_s, output)
    return code if kept else exits.FAILED


def _options(config: RunConfig, positions: str) -> tuple[ScanOptions, tuple[Place, ...] | None]:
    options = config.scan or ScanOptions()
    if positions != GRID:
        listed = read_places(Path(positions))
        _require_inside(listed, positions, config.safety)
        return options, listed
    if options.grid is None and options.positions_m is None:
        raise UsageError(
            "--positions grid: the configuration has no section scan with grid or positions_m "
            "(docs/focus-maps.md)"
        )
    return options, None


def _require_inside(places: Sequence[Place], source: str, safety: Envelope) -> None:
    """Find out before anything moves whether all positions are within the limits of the stage.

    Raises:
        UsageError: one is not.
    """
    for number, place in enumerate(places, 1):
        refusal = check_places(safety, {STAGE_X: (place.x_m,), STAGE_Y: (place.y_m,)})
        if refusal is not None:
            raise UsageError(f"{source}, position {number} of {len(places)}: {refusal.reason}")


def _begin(
    pilot: Pilot,
    config: RunConfig,
    options: ScanOptions,
    listed: tuple[Place, ...] | None,
    bar: "_Bar",
    record: Path,
) -> Survey:
    """Arm and take the first frame; nothing moves yet."""
    pilot.arm()
    first = pilot.look()
    if first.analysis is None:
        raise MicroscopeError(f"the first frames cannot be used: {first.fault}")
    places = listed or options.places(first.header)
    if listed is None:
        _require_inside(places, "scan.grid" if options.grid else "scan.positions_m", config.safety)
    bar.total = len(places)

    def visited(visit: Visit) -> None:
        bar.visited(visit)
        if survey.found is not None:
            bar.keep(record, survey.found)

    survey = Survey(
        pilot, config, options, first.header, places, on_focus=bar.focused, on_visit=visited
    )
    return survey


def _keep(
    found: Found, planned: int, record: Path, frames: int, wall_s: float, output: Output
) -> bool:
    """Write what was found, and say so; whether it could be written.

    What another program has opened it may not give back, and what was found is needed now.
    """
    try:
        try:
            files = write_results(record, found)
        except RecordError as error:
            output.warn(f"{error}; all results are in {record / _BESIDE} instead")
            files = write_results(record / _BESIDE, found)
    except RecordError as error:
        output.fail(str(error))
        return False
    _report(found, planned, files, record, frames, wall_s, output)
    return True


class _Bar:
    """How far it is."""

    def __init__(self, output: Output, bars: Progress, interrupt: Interrupt) -> None:
        self._output = output
        self._interrupt = interrupt
        self._progress = bars
        self._task = bars.add_task("focusing", total=None)
        self._unkept = False
        self._ended = False
        self._reached = 0  # positions; some are visited again
        self.total = 0

    def step(self, _header: FrameHeader) -> None:
        """One frame more."""
        if self._interrupt.pressed and not self._ended:
            self._ended = True  # asked for once; the way back takes frames too
            raise EndedAtFrameError

    def focused(self, index: int, result: FocusResult) -> None:
        """One focusing more."""
        self._output.record({"event": "focus", "index": index, **msgspec.to_builtins(result)})

    def visited(self, visit: Visit) -> None:
        """One position more."""
        x_m, y_m = visit.place
        values = {key: value for key, value in asdict(visit).items() if key != "place"}
        self._output.record({"event": "position", "x_m": x_m, "y_m": y_m, **values})
        self._reached = max(self._reached, visit.index + 1)
        self._progress.update(
            self._task, description="acquiring", total=self.total, completed=self._reached
        )

    def keep(self, record: Path, found: Found) -> None:
        """Have on disk what a program that dies would take along.

        The scan goes on without: somebody may have opened the table in another program.
        """
        try:
            write_tables(record, found)
        except RecordError as error:
            if not self._unkept:
                self._output.warn(f"{error}; it is written when the scan ends")
            self._unkept = True


def _report(
    found: Found,
    planned: int,
    files: tuple[Path, ...],
    record: Path,
    frames: int,
    wall_s: float,
    output: Output,
) -> None:
    how = [visit.how for visit in found.visits]
    held = [visit.index for visit in found.visits if visit.how == "held"]
    output.record(
        {
            "event": "summary",
            "frames": frames,
            "planned": planned,
            "positions": len(how),
            "focusings": len(found.focused),
            "held": len(held),
            "unusable": how.count("unusable"),
            "doubtful": list(found.doubtful),
            "map": describe(found),
            "files": [str(path) for path in files],
            "record": str(record),
            "wall_s": wall_s,
        }
    )
    surface = found.surface
    x, y = surface.tilt
    step_m = abs(surface.step[2]) if surface.step else None
    rejected, unusable = len(surface.rejected), how.count("unusable")
    if found.doubtful:
        output.warn(
            f"{len(found.doubtful)} predicted positions may be out of focus, as focus found "
            f"elsewhere contradicts the prediction: {', '.join(map(str, found.doubtful))}"
        )
    if held:
        output.warn(
            f"{len(held)} positions may be out of focus, as it was looked for there and not "
            f"found: {', '.join(map(str, held))}"
        )
    output.say(
        f"{len(how)} of {planned} positions"
        + (f", {unusable} without frames that can be used" if unusable else "")
        + f", {frames} frames, focused at {len(found.focused)} places"
        + (f", {rejected} left out as they contradict the others" if rejected else "")
        + f"\nfocus changes by {x * 1e3:+.2f} µm per mm along x and {y * 1e3:+.2f} along y; "
        f"the fit leaves {show_length(surface.residual_m)}; drift "
        f"{surface.drift_m_per_s * 60e6:+.2f} µm a minute"
        + ("" if step_m is None else f"; over an edge focus steps by {show_length(step_m)}")
        + "\n"
        + "\n".join(f"wrote {path}" for path in files)
    )
