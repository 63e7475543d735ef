"""``calibrate``: what the knobs of this instrument do, measured and remembered."""

import math
from pathlib import Path

import msgspec
from rich.progress import Progress

from semagent import registry
from semagent.calibration import CalibrationOptions, NotCalibratedError, Stage, calibrate
from semagent.calibration.hands import Hands
from semagent.cli import exits
from semagent.cli.interrupt import EndedAtFrameError, Interrupt, caught_interrupts
from semagent.cli.output import Output
from semagent.clock import SystemClock
from semagent.config import RunConfig, find_config, load_config, save_memory
from semagent.errors import GateRefusedError, RecordError, UsageError
from semagent.memory import Calibration, Matrix, Measure, Settings, Vector, load_memory
from semagent.types import FrameHeader


def run(name: str, *, arm: bool, output_file: Path | None, output: Output) -> int:
    """Calibrate the microscope of a configuration and return the exit code."""
    config = load_config(find_config(name))
    path = output_file or Path(config.memory or "")
    known = load_memory(path)
    if not arm:
        output.fail("a calibration moves focus, stigmators, beam shift and stage: give --arm")
        return exits.REFUSED
    try:
        save_memory(path, known)  # what cannot be written must not cost anybody a calibration
    except RecordError as error:
        raise UsageError(str(error)) from error
    clock = SystemClock()
    microscope = registry.open_microscope(config.driver.name, config.driver.options, clock=clock)
    output.warn_unverified(microscope.capabilities)
    with (
        # A stage move that is cut short disarms the gate, and then nothing could be put back:
        # the procedure ends at the next frame.
        caught_interrupts(output) as interrupt,
        Hands(config, microscope, clock) as hands,
        output.progress() as bars,
    ):
        bar = _Bar(output, bars, interrupt)
        try:
            hands.arm()
            settings, calibration = calibrate(
                hands, config, microscope.capabilities, CalibrationOptions(), bar.step, output.warn
            )
        except EndedAtFrameError:
            output.fail("interrupted; everything was put back")
            return exits.INTERRUPTED
        except GateRefusedError as error:
            output.fail(str(error))
            return exits.REFUSED
        except NotCalibratedError as error:
            output.fail(str(error))
            return exits.HELD
    kept = False
    try:
        _keep(path, config, settings, calibration)
        kept = True
    finally:
        _report(path if kept else None, calibration, output)
    return exits.DONE


def _keep(path: Path, config: RunConfig, settings: Settings, calibration: Calibration) -> None:
    memory = load_memory(path).with_calibration(settings, calibration)
    save_memory(path, msgspec.structs.replace(memory, instrument=config.instrument))


class _Bar:
    """How far it is."""

    def __init__(self, output: Output, bars: Progress, interrupt: Interrupt) -> None:
        self._output = output
        self._interrupt = interrupt
        self._progress = bars
        self._task = bars.add_task("calibrating", total=None)

    def step(self, stage: Stage, header: FrameHeader) -> None:
        """One frame more."""
        if self._interrupt.pressed:
            raise EndedAtFrameError
        optics, position = header.optics, header.stage
        self._output.record(
            {
                "event": "frame",
                "stage": stage,
                "working_distance_m": optics.working_distance_m,
                "stigmator": [optics.stigmator_x, optics.stigmator_y],
                "beam_shift_m": [optics.beam_shift_x_m, optics.beam_shift_y_m],
                "stage_m": [position.x_m, position.y_m],
            }
        )
        self._progress.update(self._task, description=f"calibrating: {stage}", advance=1)


def _report(path: Path | None, calibration: Calibration, output: Output) -> None:
    """Say what was measured, and in which file it is remembered, if it is."""
    values = {
        field: value
        for field, value in msgspec.to_builtins(calibration).items()
        if value is not None
    }
    output.record({"event": "calibration", **values, "memory": path and str(path)})
    rows = [
        _row(field, getattr(calibration, field))
        for field in Calibration.__struct_fields__
        if isinstance(getattr(calibration, field), Measure | Vector | Matrix)
    ]
    output.table(f"calibration, {calibration.frames} frames", ["", "measured", "±", "is"], rows)
    if path is not None:
        output.say(f"remembered in {path}")


def _row(field: str, value: Measure | Vector | Matrix) -> list[str]:
    """Name, values and standard deviation in the unit of the name, and what a matrix does."""
    name, factor = field.removesuffix("_m").replace("_", " "), 1.0
    if field.endswith(("_m", "_per_stigmator")):
        name, factor = f"{name}, µm", 1e6
    decimals = max(0, 1 - math.floor(math.log10(max(value.sigma * factor, 1e-9))))

    def show(*numbers: float) -> str:
        return ", ".join(f"{number * factor:.{decimals}f}" for number in numbers)

    sigma = show(value.sigma)
    if isinstance(value, Measure):
        return [name, show(value.value), sigma, ""]
    if isinstance(value, Vector):
        numbers, size = show(value.x, value.y), math.hypot(value.x, value.y)
        what = f"{show(size)} at {math.degrees(math.atan2(value.y, value.x)):.1f}°"
    else:
        # A rotation and a scale, as far as the matrix is one.
        numbers = f"{show(value.xx, value.xy)}; {show(value.yx, value.yy)}"
        size = math.hypot(value.yx - value.xy, value.xx + value.yy) / 2
        turn = math.degrees(math.atan2(value.yx - value.xy, value.xx + value.yy))
        what = f"{show(size)} turned by {turn:.1f}°"
    return [name, numbers, sigma, what if size > 2 * value.sigma else "none to be seen"]
