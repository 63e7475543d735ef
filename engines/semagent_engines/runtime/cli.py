"""``semagent engine compile | compare | bench | quality``: their arguments, and what they do."""

import argparse
import importlib
import json
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import psutil

from semagent.errors import EngineError, UsageError
from semagent.images import read_image
from semagent.options import parse_options
from semagent_engines.runtime.artefact import DEFAULT, GRAPHS, Artefact, open_artefact
from semagent_engines.runtime.golden import deviations
from semagent_engines.runtime.model_engine import ModelEngine, Runtime
from semagent_engines.runtime.opening import CpuOptions, bare_frame, synthetic_frame
from semagent_engines.runtime.unsupervised import FEWEST, unsupervised

if TYPE_CHECKING:
    from semagent_engines.runtime.plans import Gpu

RUNTIMES = ("onnxruntime", "openvino", "tensorrt")
FRAME_SHAPE = (768, 1024)
_BACKENDS = "semagent_engines.runtime.backends"


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One line of ``compare``.

    Attributes:
        runtime: name of the entry point.
        precision: of the restoration.
        deviation: largest difference from the golden tensors, relative to their deviation.
        tolerance: what is allowed.
        score_ms: median time to read one frame.
        restore_ms: median time to read and restore it.
        missing: why this runtime could not be tried; the figures are then ``None``.
    """

    runtime: str
    precision: str
    deviation: float | None = None
    tolerance: float | None = None
    score_ms: float | None = None
    restore_ms: float | None = None
    missing: str = ""

    @property
    def right(self) -> bool:
        """Whether it ran and reproduced the golden tensors."""
        return (
            self.deviation is not None
            and self.tolerance is not None
            and self.deviation <= self.tolerance
        )


def compile_main(argv: Sequence[str]) -> None:
    """``semagent engine compile``.

    Raises:
        UsageError: the artefact cannot be used.
        EngineError: no compiler is installed, or it refuses a graph.
    """
    parser = _parser("compile", "compile an artefact's graphs for a GPU, which need not be here")
    parser.add_argument("--capability", help="e.g. SM89; the GPU of this machine if left out")
    parser.add_argument("--precision", choices=("fp16", "fp32"), default="fp16")
    parser.add_argument("--cache", type=Path, default=Path("plans"), help="folder of the plans")
    options = parser.parse_args(argv)
    plans = importlib.import_module("semagent_engines.runtime.plans")
    artefact = open_artefact(options.artefact)
    gpu = plans.Gpu(options.capability) if options.capability else _gpu_here()
    for graph in GRAPHS:
        began = time.perf_counter()
        plan = plans.cached_plan(
            artefact, graph, options.cache, gpu=gpu, precision=options.precision
        )
        line = {
            "graph": graph,
            "gpu": gpu.name or gpu.capability,
            "precision": options.precision,
            "bytes": len(plan),
            "seconds": round(time.perf_counter() - began, 2),
        }
        _print(options, line, "{graph}: {bytes} bytes for {gpu}, {precision}, {seconds} s")


def compare_main(argv: Sequence[str]) -> None:
    """``semagent engine compare``: parity and speed of every installed runtime, side by side.

    Raises:
        EngineError: a runtime does not reproduce the golden tensors.
    """
    parser = _parser("compare", "parity and speed of all installed runtimes, side by side")
    parser.add_argument("--repeats", type=_count, default=10, help="frames to time")
    options = parser.parse_args(argv)
    artefact = open_artefact(options.artefact)
    wrong = []
    for found in compare(artefact, options.repeats):
        shape = (
            "{runtime} {precision}: {missing}"
            if found.missing
            else "{runtime} {precision}: deviation {deviation:.1e} of {tolerance:.0e} allowed; "
            "score {score_ms:.0f} ms, with restoration {restore_ms:.0f} ms"
        )
        _print(options, asdict(found), shape)
        if not found.missing and not found.right:
            wrong.append(f"{found.runtime} {found.precision}")
    if wrong:
        raise EngineError(f"{', '.join(wrong)}: further from the golden tensors than allowed")


def compare(artefact: Artefact, repeats: int) -> Iterator[Compared]:
    """Try every runtime in every precision of the artefact."""
    frame = synthetic_frame(FRAME_SHAPE)
    for name in RUNTIMES:
        gpu = name == "tensorrt"
        for precision in ("fp16", "fp32") if gpu else artefact.precisions:
            try:
                runtime = _open(name, artefact, precision)
            except (ImportError, EngineError) as error:
                yield Compared(runtime=name, precision=precision, missing=str(error))
                continue
            engine = ModelEngine(runtime, artefact, tiles=CpuOptions().tiles)
            yield Compared(
                runtime=name,
                precision=precision,
                deviation=max(deviations(runtime, artefact).values()),
                tolerance=artefact.manifest.tolerance[precision],
                score_ms=_median_ms(partial(engine.analyse, frame), repeats),
                restore_ms=_median_ms(partial(engine.analyse, frame, restore=True), repeats),
            )
            engine.close()


def bench_main(argv: Sequence[str]) -> None:
    """``semagent engine bench``: time and memory by frame size.

    Raises:
        UsageError: a size cannot be read or is too small.
        EngineError: the engine is missing or failed.
    """
    parser = _parser("bench", "time and memory of one engine by frame size")
    parser.add_argument("--engine", choices=RUNTIMES, default="onnxruntime")
    parser.add_argument("--precision", choices=("int8", "fp16", "fp32"))
    parser.add_argument("--repeats", type=_count, default=10, help="frames to time")
    parser.add_argument(
        "--sizes", nargs="+", default=["512x512", "1024x768", "2048x1536"], metavar="WIDTHxHEIGHT"
    )
    options = parser.parse_args(argv)
    artefact = open_artefact(options.artefact)
    shapes = [_shape(size, artefact.manifest.smallest_tile_px) for size in options.sizes]
    runtime = _opened(options.engine, artefact, options.precision)
    engine = ModelEngine(runtime, artefact, tiles=CpuOptions().tiles)
    for shape in shapes:
        frame = synthetic_frame(shape)
        line: dict[str, object] = {"engine": engine.name, "width": shape[1], "height": shape[0]}
        for restore in (False, True):
            kind = "restore" if restore else "score"
            times = _times_ms(partial(engine.analyse, frame, restore=restore), options.repeats)
            for percent in (50, 99):
                line[f"{kind}_p{percent}_ms"] = round(float(np.percentile(times, percent)), 1)
        line["memory_mib"] = round(psutil.Process().memory_info().rss / 2**20)
        _print(
            options,
            line,
            "{width} x {height}: score {score_p50_ms} ms (p99 {score_p99_ms}), with restoration "
            "{restore_p50_ms} ms (p99 {restore_p99_ms}), process {memory_mib} MiB",
        )
    engine.close()


def quality_main(argv: Sequence[str]) -> None:
    """``semagent engine quality``: how good restorations of one instrument are, without a truth.

    Raises:
        UsageError: a file cannot be read, or the frames are too few, unlike or the same.
        EngineError: the engine is missing or failed.
    """
    parser = argparse.ArgumentParser(
        prog="semagent engine quality",
        description="quality of the restoration from repeated frames of one field (uMSE, uPSNR)",
    )
    parser.add_argument("frames", type=Path, nargs="+", help=f"at least {FEWEST} repeats")
    parser.add_argument("--artefact", type=Path, default=DEFAULT, help="folder")
    parser.add_argument("--engine", choices=RUNTIMES, default="onnxruntime")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    options = parser.parse_args(argv)
    images = [read_image(path) for path in options.frames]
    frames = [bare_frame(image.pixels, info_bar_px=image.info_bar_px) for image in images]
    artefact = open_artefact(options.artefact)
    engine = ModelEngine(
        _opened(options.engine, artefact, None), artefact, tiles=CpuOptions().tiles
    )
    found = unsupervised(engine, frames)
    engine.close()
    values = {
        "frames": len(frames),
        "upsnr_db": found.upsnr_db,
        "upsnr_raw_db": found.upsnr_raw_db,
        "umse": found.umse,
        "umse_error": found.umse_error,
        "engine": engine.name,
    }
    restored = "too good to tell" if found.upsnr_db is None else f"{found.upsnr_db:.2f} dB"
    shape = f"re-blurred restoration {restored}, raw frame {found.upsnr_raw_db:.2f} dB"
    _print(options, values, shape + " against the noise-free frame ({frames} frames, {engine})")


def _parser(verb: str, about: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"semagent engine {verb}", description=about)
    parser.add_argument(
        "artefact",
        type=Path,
        nargs="?",
        default=DEFAULT,
        help="folder; the shipped one if left out",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line on stdout")
    return parser


def _open(name: str, artefact: Artefact, precision: str | None) -> Runtime:
    backend: ModuleType = importlib.import_module(f"{_BACKENDS}.{name}")
    options = {} if precision is None else {"precision": precision}
    chosen = parse_options(options, backend.OPTIONS, where=f"engine {name}")
    with warnings.catch_warnings():
        # Whoever compares or times an engine is finding out whether it works.
        warnings.simplefilter("ignore")
        runtime: Runtime = backend.open_runtime(artefact, chosen)
    return runtime


def _gpu_here() -> "Gpu":
    try:
        backend = importlib.import_module(f"{_BACKENDS}.tensorrt")
    except ImportError as error:
        raise EngineError(
            f"no GPU can be looked for ({error}): give --capability, such as SM89"
        ) from error
    found: Gpu = backend.gpu_of(0)
    return found


def _opened(name: str, artefact: Artefact, precision: str | None) -> Runtime:
    try:
        return _open(name, artefact, precision)
    except ImportError as error:
        raise EngineError(f"engine {name}: not installed: {error}") from error


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: a whole number, at least 1")
    return int(text)


def _shape(size: str, smallest_px: int) -> tuple[int, int]:
    width, _, height = size.partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise UsageError(f"size {size!r} is not WIDTHxHEIGHT in pixels, e.g. 1024x768")
    if min(int(height), int(width)) < smallest_px:
        raise UsageError(f"size {size!r} is too small: {smallest_px}x{smallest_px} are needed")
    return int(height), int(width)


def _times_ms(run: Callable[[], object], repeats: int) -> list[float]:
    run()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        run()
        times.append(1e3 * (time.perf_counter() - began))
    return times


def _median_ms(run: Callable[[], object], repeats: int) -> float:
    return float(np.median(_times_ms(run, repeats)))


def _print(options: argparse.Namespace, values: Mapping[str, object], shape: str) -> None:
    print(json.dumps(values) if options.json else shape.format(**values), flush=True)
