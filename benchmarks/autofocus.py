"""Autofocus and stigmation compared: every method on the same states of the microscope.

    python benchmarks/autofocus.py --data DATA --split train --trials 100 --methods ours
    python benchmarks/autofocus.py --data DATA --results DIR --part 1/2 &      # all of it, on two
    python benchmarks/autofocus.py --data DATA --results DIR --part 2/2        # cores
    python benchmarks/autofocus.py --results DIR                               # the tables alone
    python benchmarks/autofocus.py --results DIR --publish docs/benchmarks.md  # with plots

A trial is a state of the simulated SEM: a real micrograph or a drawn specimen, out of focus by up
to 40 half depths of field (p / alpha), with up to two depths of field of astigmatism, 400 to 20
electrons a pixel, and brightness, contrast, specimen and focus that wander from frame to frame. All
methods start from the same state with the same seed and drive the same driver. What each of them
does, and how it differs from its original, is said in ``benchmarks/focusing/``.

Results are added to files in ``--results``; what is there already is not run again. Develop with
``--split train``; the published figures use ``test``.
"""

import argparse
import json
import math
import sys
import time
from pathlib import Path

from focusing import beads, summary
from focusing.methods import Context, Method, methods
from focusing.results import Results, Settings, read, read_settings
from focusing.trials import EXPERIMENTS, Fields, make_trial

TRIALS = {
    "focus": 2000,
    "noise": 500,
    "featureless": 200,
    "hold": 60,
    "beads": 40,
    "uncalibrated": 400,
}
"""Trials of ours; peers run the first of them, see `PEER_TRIALS`."""

PEER_TRIALS = {"focus": 40, "noise": 40, "featureless": 20, "beads": 40}


def main() -> int:
    """Run what is asked for and print the tables."""
    arguments = _arguments()
    folder = arguments.results or Path("build") / f"autofocus-{arguments.split}"
    if arguments.data is not None:
        run(arguments, folder)
    outcomes = read(folder) if folder.exists() else []
    if not outcomes:
        print(f"{folder} holds no results; give --data to make some", file=sys.stderr)
        return 2
    if arguments.publish is None:
        print(summary.overview(outcomes))
    else:
        from focusing import publish  # noqa: PLC0415 - matplotlib is an extra

        timed = outcomes if arguments.times is None else read(arguments.times)
        for path in publish.write(outcomes, timed, read_settings(folder), arguments.publish):
            print(path)
    return 0


def run(arguments: argparse.Namespace, folder: Path) -> None:
    """Run the trials that are still missing."""
    cache = arguments.cache
    fields = Fields(arguments.data, arguments.split, cache)
    settings = Settings(
        split=arguments.split,
        seed=arguments.seed,
        engine=arguments.engine,
        control=arguments.control,
    )
    results = Results(folder, settings, arguments.part)
    context = Context(
        data=arguments.data, cache=cache, engine=arguments.engine, control=arguments.control
    )
    known = methods(context)
    for name in arguments.methods or known:
        if name not in known:
            raise SystemExit(f"{name}: no such method; there are {', '.join(known)}")
        for experiment in arguments.experiments:
            if experiment not in known[name].experiments:
                continue
            if experiment == "beads" and not beads.available():
                print("beads left out: pip install pymmcore mm-test-adapters", file=sys.stderr)
            else:
                run_method(name, known[name], experiment, fields, results, arguments)


def run_method(
    name: str,
    method: Method,
    experiment: str,
    fields: Fields,
    results: Results,
    arguments: argparse.Namespace,
) -> None:
    """One method on its trials of one experiment."""
    planned = (TRIALS if name == "ours" else PEER_TRIALS)[experiment]
    if arguments.trials is not None:
        planned = min(planned, math.ceil(arguments.trials * TRIALS[experiment] / TRIALS["focus"]))
    part, parts = arguments.part
    wanted = [
        number
        for number in range(part - 1, planned, parts)
        if not results.has(experiment, method.name, number)
    ]
    if not wanted:
        return
    call = method.make()
    started_s = time.perf_counter()
    for done, number in enumerate(wanted, 1):
        results.add(call(make_trial(experiment, number, fields, arguments.seed)))
        if done % 20 == 0 or done == len(wanted):
            each_s = (time.perf_counter() - started_s) / done
            left_min = each_s * (len(wanted) - done) / 60
            print(
                f"{experiment}, {name}: {done} of {len(wanted)}, {each_s:.2f} s each, "
                f"{left_min:.1f} min to go",
                file=sys.stderr,
                flush=True,
            )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder with train/ and test/")
    parser.add_argument("--split", choices=("test", "train"), default="test")
    parser.add_argument("--results", type=Path, help="default: build/autofocus-SPLIT")
    parser.add_argument(
        "--publish", type=Path, metavar="FILE", help="write tables and plots: docs/benchmarks.md"
    )
    parser.add_argument(
        "--times", type=Path, metavar="DIR", help="publish the times of these results instead"
    )
    parser.add_argument("--methods", type=_names, help="comma-separated; default: all")
    parser.add_argument(
        "--experiments", type=_names, default=EXPERIMENTS, help="default: %(default)s"
    )
    parser.add_argument(
        "--trials", type=int, help="so many of focus, and of the others in proportion"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--part", type=_part, default=(1, 1), metavar="K/N")
    parser.add_argument("--engine", default="sharpness", help="of ours (default: %(default)s)")
    parser.add_argument(
        "--control", type=json.loads, default={}, help="of ours: section control, as JSON"
    )
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path.home() / ".cache" / "semagent-benchmarks",
        help="prepared micrographs and trained networks (default: %(default)s)",
    )
    return parser.parse_args()


def _names(text: str) -> list[str]:
    return text.split(",")


def _part(text: str) -> tuple[int, int]:
    part, parts = (int(number) for number in text.split("/"))
    if not 1 <= part <= parts:
        raise argparse.ArgumentTypeError(f"{text}: K/N with 1 <= K <= N")
    return part, parts


if __name__ == "__main__":
    sys.exit(main())
