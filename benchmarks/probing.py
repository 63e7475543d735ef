"""What frames with a shorter dwell or of a smaller area would save a search, and what they cost it.

    python benchmarks/probing.py --data DATA --split train --trials 60

semagent takes all frames of a search with the operator's own scan. Here the frames between the
first and the verifying one are made cheaper, on the states of the microscope of
``benchmarks/autofocus.py`` (the same trials and seeds for every row) with frames of 1024 x 768
pixels, by a microscope that changes the scan behind the agent's back:

- *dwell*: a fraction of the operator's dwell time, whenever focus is not known yet; all frames go
  into one estimate. *Where rich* does so only if the first frame shows much structure.
- *area*: the search has only the middle of the field. A spectrum of another size cannot be
  compared, so that the first and the verifying frame, both whole, count on top.

What setting the scan takes on an instrument is not counted. Dose and time are those of the
microscope: electrons a square nanometre of the middle of the field, and seconds of exposure,
fly-back and settling.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from focusing import ours, scope
from focusing.outcome import is_worse
from focusing.trials import Fields, Trial, make_trial

from semagent import registry
from semagent.clock import ManualClock
from semagent.dose import dose_of
from semagent.lockstep import Lockstep
from semagent.types import (
    Arm,
    Capabilities,
    FocusBelief,
    Frame,
    MicroscopeAction,
    MicroscopeState,
    Mode,
    Region,
    SetMode,
    SetScan,
    StartAutofocus,
)

WIDTH_PX, HEIGHT_PX = 1024, 768
RICH = 4.0
"""Structure over noise in the first frame from which a quarter of the dwell is still plenty."""


@dataclass(frozen=True)
class Probe:
    """How frames that do not verify are taken: fractions of the operator's dwell and area."""

    name: str
    dwell: float = 1.0
    area: float = 1.0
    structure: float = 0.0


PROBES = (
    Probe("the operator's scan"),
    Probe("dwell 1/2", dwell=1 / 2),
    Probe("dwell 1/4", dwell=1 / 4),
    Probe("dwell 1/8", dwell=1 / 8),
    Probe("dwell 1/4 where rich", dwell=1 / 4, structure=RICH),
    Probe("area 1/4", area=1 / 4),
)


class Probing:
    """A microscope that scans as ``scan`` says before each frame, and does not tell."""

    def __init__(self, microscope: Any, scan: Callable[[], SetScan]) -> None:
        self._microscope, self._scan = microscope, scan
        self.dose_e_nm2, self.frames, self.cheap = 0.0, 0, 0

    @property
    def capabilities(self) -> Capabilities:
        return self._microscope.capabilities

    def read_state(self) -> MicroscopeState:
        return msgspec.structs.replace(self._microscope.read_state(), settings_rev=1)

    def acquire(self, timeout_s: float) -> Frame:
        self._microscope.apply(self._scan())
        frame = self._microscope.acquire(timeout_s)
        self.dose_e_nm2 += dose_of(frame.header) or 0.0
        self.frames += 1
        return Frame(msgspec.structs.replace(frame.header, settings_rev=1), frame.pixels)

    def apply(self, action: MicroscopeAction) -> None:
        self._microscope.apply(action)

    def stop(self) -> None:
        self._microscope.stop()

    def close(self) -> None:
        self._microscope.close()


@dataclass(frozen=True)
class Ending:
    """How one trial ended; lengths in half depths of field."""

    start: float
    final: float
    frames: int
    dose_e_nm2: float
    time_s: float
    held: bool


def run(trial: Trial, probe: Probe) -> Ending:
    """One search."""
    options = scope.driver_options(trial)
    options["scan"] |= {
        "width_px": WIDTH_PX,
        "height_px": HEIGHT_PX,
        "dwell_range_us": (0.01, 1000.0),
    }
    clock = ManualClock()
    microscope: Any = registry.open_microscope("simulated", options, clock=clock)
    whole_s, unit_m = microscope.read_state().scan.dwell_s, trial.unit_m
    side, beliefs, structures = probe.area**0.5, [None], []
    edge = (1 - side) / 2
    middle = Region(left=edge, top=edge, width=side, height=side)
    field = Region(left=0.0, top=0.0, width=1.0, height=1.0)

    def scan() -> SetScan:
        here_m = microscope.read_state().optics.working_distance_m
        cheap = (
            bool(structures)
            and structures[0] >= probe.structure
            and not _known(beliefs[-1], here_m, unit_m)
        )
        dwell_s = whole_s * probe.dwell if cheap else whole_s
        return SetScan(dwell_s=dwell_s, region=middle if probe.area < 1 else None)

    probing = Probing(microscope, scan)
    config = ours.run_config(trial, {"name": "sharpness"}, {"hold": {"follow": False}})
    config = msgspec.structs.replace(config, remembered=ours.calibrated(trial))
    start = microscope.truth().defocus_m / unit_m
    if probe.area < 1:
        probing.dose_e_nm2 += dose_of(microscope.acquire(60.0).header) or 0.0
    engine = registry.open_engine("sharpness", {})
    with Lockstep(config, probing, engine, clock) as lockstep:
        heard = {name: lockstep.listen(name) for name in ("belief", "analysis", "result")}
        lockstep.operate(Arm())
        lockstep.request(SetMode(mode=Mode.HOLD))
        lockstep.request(StartAutofocus(stigmation=True))
        while (result := heard["result"].take()) is None:
            lockstep.cycle()
            while (belief := heard["belief"].take()) is not None:
                beliefs.append(belief.value)
            while (analysis := heard["analysis"].take()) is not None:
                structures.append(analysis.value.structure)
        frames, held = probing.frames, result.value.status != "focused"
        last_s = microscope.read_state().scan.dwell_s
        if not held and (probe.area < 1 or last_s != whole_s):
            microscope.apply(SetScan(dwell_s=whole_s, region=field))
            probing.dose_e_nm2 += dose_of(microscope.acquire(60.0).header) or 0.0
            frames += 1
        truth = microscope.truth()
    return Ending(
        start=start,
        final=truth.defocus_m / unit_m,
        frames=frames + (probe.area < 1),
        dose_e_nm2=probing.dose_e_nm2,
        time_s=truth.elapsed_s,
        held=held,
    )


def _known(belief: FocusBelief | None, here_m: float, unit_m: float) -> bool:
    """Whether the next frame, taken here, may be the verifying one."""
    if belief is None or belief.interval90_m is None:
        return False
    low_m, high_m = belief.interval90_m
    return here_m - unit_m <= low_m and high_m <= here_m + unit_m


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and test/")
    parser.add_argument("--split", choices=("test", "train"), default="train")
    parser.add_argument("--cache", type=Path, default=Path("build/autofocus-fields"))
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--seed", type=int, default=11)
    options = parser.parse_args()
    fields = Fields(options.data, options.split, options.cache)
    trials = [make_trial("focus", i, fields, options.seed) for i in range(options.trials)]
    print(
        "| frames of the search | electrons a pixel | success | worse | held | frames, mean", end=""
    )
    print(" (95 %) | dose, of the operator's scan | time, of the operator's scan |")
    print("|---|---|---|---|---|---|---|---|")
    plain: list[Ending] = []
    for probe in PROBES:
        endings = [run(trial, probe) for trial in trials]
        plain = plain or endings
        for doses in ((400, 100, 40, 20), (400, 100), (40, 20)):
            chosen = [i for i, trial in enumerate(trials) if trial.dose in doses]
            if chosen:
                _row(probe, doses, [endings[i] for i in chosen], [plain[i] for i in chosen])


def _row(probe: Probe, doses: tuple[int, ...], mine: list[Ending], plain: list[Ending]) -> None:
    frames = np.array([ending.frames for ending in mine])
    # Pixels differ in size between trials: a mean of electrons would be that of the smallest.
    dose = np.mean([a.dose_e_nm2 / b.dose_e_nm2 for a, b in zip(mine, plain, strict=True)])
    time = np.sum([ending.time_s for ending in mine]) / np.sum([ending.time_s for ending in plain])
    success = sum(abs(ending.final) <= 1 for ending in mine)
    worse = sum(is_worse(ending.start, ending.final) for ending in mine)
    print(
        f"| {probe.name} | {', '.join(map(str, doses))} | {success} of {len(mine)} "
        f"| {worse} | {sum(ending.held for ending in mine)} "
        f"| {frames.mean():.2f} ({np.percentile(frames, 95):.0f}) | {dose:.2f} | {time:.2f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
