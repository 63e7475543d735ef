"""``run --positions``: a tile scan with a map of focus, in this process."""

import time
from dataclasses import asdict
from pathlib import Path

import msgspec
from rich.progress import Progress

from semagent import registry
from semagent.cli import exits
from semagent.cli.interrupt import Interrupt, caught_interrupts
from semagent.cli.output import Output, metres
from semagent.clock import SystemClock
from semagent.config import RunConfig, find_config, load_config
from semagent.errors import CommandRefusedError, UsageError
from semagent.lockstep import Lockstep
from semagent.parts import make_recorder
from semagent.places import Place, ScanOptions, read_places
from semagent.survey import Found, NoMapError, Pilot, Survey, Visit
from semagent.survey.files import describe, write_results
from semagent.survey.pilot import for_survey
from semagent.types import FocusResult, FrameHeader

GRID = "grid"
_PLAYS = 3.0  # times the measured play that stage moves go too far


class _InterruptedError(Exception):
    """Ctrl-C was pressed: raised at a frame boundary, after which everything is put back."""


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
    try:
        engine = registry.open_engine(config.engine.name, config.engine.options)
        recorder = make_recorder(record, config, microscope.capabilities, engine.name, clock)
    except BaseException:
        microscope.close()
        raise
    try:
        with (
            Lockstep(config, microscope, engine, clock, recorder) as lockstep,
            # A stage move that is cut short disarms the gate, and then nothing could be put back:
            # the scan ends at the next frame.
            caught_interrupts() as interrupt,
            _Bar(output, interrupt) as bar,
        ):
            pilot = Pilot(
                lockstep,
                config,
                clock,
                approach_m=_PLAYS * _play_m(config)
                if options.approach_m is None
                else options.approach_m,
                on_frame=bar.step,
            )
            found = _scan(pilot, config, options, listed, bar)
            frames = lockstep.acquire.frames
    except _InterruptedError:
        output.fail("interrupted; stage and focus were put back")
        return exits.INTERRUPTED
    except CommandRefusedError as error:
        output.fail(str(error))
        return exits.REFUSED
    except NoMapError as error:
        output.fail(str(error))
        return exits.HELD
    finally:
        recorder.close()
    files = write_results(record, found)
    _report(found, files, record, frames, time.perf_counter() - started_s, output)
    return exits.DONE


def _options(config: RunConfig, positions: str) -> tuple[ScanOptions, tuple[Place, ...] | None]:
    options = config.scan or ScanOptions()
    if positions != GRID:
        return options, read_places(Path(positions))
    if options.grid is None and options.positions_m is None:
        raise UsageError(
            "--positions grid: the configuration has no section scan with grid or positions_m "
            "(docs/focus-maps.md)"
        )
    return options, None


def _play_m(config: RunConfig) -> float:
    """The largest play of the stage that any calibration of this instrument has found."""
    plays = [
        entry.calibration.stage_backlash_m.value
        for entry in config.remembered.entries
        if entry.calibration is not None and entry.calibration.stage_backlash_m is not None
    ]
    return max(plays, default=0.0)


def _scan(
    pilot: Pilot,
    config: RunConfig,
    options: ScanOptions,
    listed: tuple[Place, ...] | None,
    bar: "_Bar",
) -> Found:
    pilot.arm()
    first = pilot.look().header
    places = listed or options.places(first)
    bar.total = len(places)
    survey = Survey(
        pilot, config, options, first, places, on_focus=bar.focused, on_visit=bar.visited
    )
    return survey.run()


class _Bar:
    """How far it is."""

    def __init__(self, output: Output, interrupt: Interrupt) -> None:
        self._output = output
        self._interrupt = interrupt
        self._progress = Progress(console=output.people, disable=output.json, transient=True)
        self._task = self._progress.add_task("focusing", total=None)
        self.total = 0

    def __enter__(self) -> "_Bar":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def step(self, _header: FrameHeader) -> None:
        """One frame more."""
        if self._interrupt.pressed:
            self._interrupt.pressed = False  # asked for once; the way back takes frames too
            raise _InterruptedError

    def focused(self, index: int, result: FocusResult) -> None:
        """One focusing more."""
        self._output.record({"event": "focus", "index": index, **msgspec.to_builtins(result)})

    def visited(self, visit: Visit) -> None:
        """One position more."""
        x_m, y_m = visit.place
        values = {key: value for key, value in asdict(visit).items() if key != "place"}
        self._output.record({"event": "position", "x_m": x_m, "y_m": y_m, **values})
        self._progress.update(
            self._task, description="acquiring", total=self.total, completed=visit.index + 1
        )


def _report(
    found: Found,
    files: tuple[Path, ...],
    record: Path,
    frames: int,
    wall_s: float,
    output: Output,
) -> None:
    how = [visit.how for visit in found.visits]
    output.record(
        {
            "event": "summary",
            "frames": frames,
            "positions": len(how),
            "focusings": len(found.focused),
            "held": how.count("held"),
            "map": describe(found),
            "files": [str(path) for path in files],
            "record": str(record),
            "wall_s": wall_s,
        }
    )
    surface = found.surface
    x, y = surface.tilt
    rejected = len(surface.rejected)
    output.say(
        f"{len(how)} positions, {frames} frames, focused at {len(found.focused)} places"
        + (f", {rejected} left out as they contradict the others" if rejected else "")
        + f"\nfocus rises by {x * 1e3:+.2f} µm per mm along x and {y * 1e3:+.2f} along y; "
        f"the fit leaves {metres(surface.residual_m)}; drift "
        f"{surface.drift_m_per_s * 60e6:+.2f} µm a minute\n"
        + "\n".join(f"wrote {path}" for path in files)
    )
