"""The command line. Exit codes, options and JSON records are stable; see ``docs/cli.md``."""

import argparse
import glob
import io
import math
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

# As in the roles of a run, so that matrix products of the same numbers are the same when it is
# replayed. Numpy, which is loaded after this, reads it once.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from semagent import __version__
from semagent.cli import exits
from semagent.cli.interrupt import InsistedError
from semagent.cli.output import PLAIN, LostError, Output, UnreadError
from semagent.errors import SemagentError, UsageError
from semagent.signals import handled, ignore
from semagent.types import Mode

_DEFAULT_ENGINE = "onnxruntime"
_DEMO = "simulated"
_MOST = 10**9  # frames: more than anybody can take

Command = Callable[[argparse.Namespace, Output], int]
Add = Callable[[str, Command, str], argparse.ArgumentParser]
"""Adds a command, by its name, what it calls and what it is about."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed, or a program without a console
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - to the end
        elif isinstance(stream, io.TextIOWrapper):
            # On Windows a log file or a pipe may not know every sign; that must not end a run.
            stream.reconfigure(errors=PLAIN)
    arguments = _parser().parse_args(argv)
    output = Output(json=getattr(arguments, "json", False))
    command: Command = arguments.command
    try:
        with handled(signal.default_int_handler):
            code = command(arguments, output)
        if output.lost and code == exits.DONE:
            raise LostError(output.lost)
        return code
    except SemagentError as error:
        output.fail(str(error))
        return exits.code_for(error)
    except InsistedError:
        ignore()
        output.fail(
            "interrupted again, before it was certain that focus and stigmators are back where "
            "they were: check them"
        )
        return exits.FAILED
    except KeyboardInterrupt:
        ignore()  # everything has been brought down; who insists must not change the exit code
        output.fail("interrupted")
        return exits.INTERRUPTED
    except LostError as error:
        output.fail(str(error))
        return exits.FAILED
    except (UnreadError, BrokenPipeError):  # the latter from tools that print for themselves
        # Whoever read our output has enough, as with `| head`.
        sys.stderr.close()
        return exits.DONE
    except OSError as error:
        # Whoever opens a path of the user's names it; this is for the one that was forgotten.
        if error.filename is None:
            raise
        output.fail(f"{error.filename}: cannot be used ({error.strerror})")
        return exits.USAGE


# Each command imports what it needs when it runs: `semagent --help` stays quick.


def _demo(arguments: argparse.Namespace, output: Output) -> int:
    from semagent.cli import live
    from semagent.config import find_config, load_config

    return live.run(
        load_config(find_config(_DEMO)),
        mode=Mode.HOLD,
        arm=True,
        record=None,
        frames=arguments.frames,
        duration_s=arguments.duration,
        console=not arguments.no_console,
        output=output,
    )


def _run(arguments: argparse.Namespace, output: Output) -> int:
    from semagent.cli import live, survey
    from semagent.config import find_config, load_config

    if arguments.positions is not None:
        if arguments.mode not in (None, Mode.HOLD) or arguments.frames or arguments.duration:
            raise UsageError("--positions goes with neither --mode, --frames nor --duration")
        return survey.run(
            arguments.config,
            positions=arguments.positions,
            arm=arguments.arm,
            record=arguments.record,
            output=output,
        )
    return live.run(
        load_config(find_config(arguments.config)),
        mode=None if arguments.mode is None else Mode(arguments.mode),
        arm=arguments.arm,
        record=arguments.record,
        frames=arguments.frames,
        duration_s=arguments.duration,
        console=not arguments.no_console,
        output=output,
    )


def _autofocus(arguments: argparse.Namespace, output: Output) -> int:
    from semagent.cli import focus

    return focus.autofocus(
        arguments.config,
        max_frames=arguments.max_frames,
        stigmation=not arguments.no_stigmation,
        arm=arguments.arm,
        record=arguments.record,
        output=output,
    )


def _calibrate(arguments: argparse.Namespace, output: Output) -> int:
    from semagent.cli import calibrate

    return calibrate.run(
        arguments.config, arm=arguments.arm, output_file=arguments.output, output=output
    )


def _simulate(arguments: argparse.Namespace, output: Output) -> int:
    from semagent.cli import focus

    start_um: float | None = arguments.start_um
    return focus.simulate(
        arguments.stack,
        start_working_distance_m=None if start_um is None else start_um * 1e-6,
        max_frames=arguments.max_frames,
        engine=arguments.engine,
        seed=arguments.seed,
        console=arguments.console,
        record=arguments.record,
        output=output,
    )


def _estimate(arguments: argparse.Namespace, output: Output) -> int:
    from semagent.cli import estimate

    return estimate.estimate(
        arguments.stack,
        frames=arguments.frames,
        engine=arguments.engine,
        record=arguments.record,
        output=output,
    )


def _score(arguments: argparse.Namespace, output: Output) -> int:
    from semagent.cli import images

    return images.score(_files(arguments.images), engine=arguments.engine, output=output)


def _restore(arguments: argparse.Namespace, output: Output) -> int:
    from semagent.cli import images

    return images.restore(
        _files(arguments.images),
        folder=arguments.output,
        engine=arguments.engine,
        artefact=arguments.artefact,
        consistency_map=arguments.consistency_map,
        output=output,
    )


def _replay(arguments: argparse.Namespace, output: Output) -> int:
    from semagent.cli import sessions

    return sessions.replay(arguments.session, compare=arguments.compare, output=output)


def _report(arguments: argparse.Namespace, output: Output) -> int:
    from semagent.cli import sessions

    return sessions.report(arguments.session, target=arguments.output, output=output)


def _export(arguments: argparse.Namespace, output: Output) -> int:
    from semagent.cli import sessions
    from semagent.export import Target

    return sessions.export(
        arguments.session,
        target=arguments.output,
        to=Target(arguments.to),
        derived=arguments.derived,
        output=output,
    )


def _browse(arguments: argparse.Namespace, output: Output) -> int:
    from semagent.cli import sessions

    return sessions.browse(arguments.folder, port=arguments.port, output=output)


def _drivers(_arguments: argparse.Namespace, output: Output) -> int:
    from semagent.cli import setup

    return setup.drivers(output)


def _doctor(arguments: argparse.Namespace, output: Output) -> int:
    from semagent.cli import setup

    return setup.doctor(arguments.config, output)


def _check(arguments: argparse.Namespace, output: Output) -> int:
    from semagent.cli import setup

    if arguments.schema:
        return setup.schema(output)
    if arguments.config is None:
        raise UsageError("check: name a configuration, or give --schema")
    return setup.check(arguments.config, output)


def _keys(arguments: argparse.Namespace, output: Output) -> int:
    from semagent.cli import setup

    return setup.keys(arguments.folder, output)


def _serve(arguments: argparse.Namespace, output: Output) -> int:
    from semagent.cli import setup

    return setup.serve(
        arguments.config,
        bind=arguments.bind,
        keys=arguments.keys,
        arm=arguments.arm,
        output=output,
    )


def _engine(arguments: argparse.Namespace, _output: Output) -> int:
    from semagent.cli import setup

    if arguments.verb == "list":
        parser = argparse.ArgumentParser(
            prog="semagent engine list", description="which engines are installed"
        )
        _add_json(parser)
        return setup.engines(Output(json=parser.parse_args(arguments.rest).json))
    return setup.run_tool(arguments.verb, arguments.rest)


def _train(arguments: argparse.Namespace, _output: Output) -> int:
    from semagent.cli import setup

    return setup.run_tool("train", [arguments.stage, *arguments.rest])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="semagent",
        description="Live focus, stigmation and restoration beside a scanning electron microscope.",
        epilog="Exit codes: 0 done, 2 wrong usage or input, 3 microscope, driver or engine failed, "
        "4 held for lack of evidence, 5 refused by the safety envelope, 130 interrupted.",
    )
    parser.add_argument("--version", action="version", version=f"semagent {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(name: str, command: Command, about: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=about, description=about)
        sub.set_defaults(command=command)
        return sub

    _add_microscope_commands(add)
    _add_image_commands(add)
    _add_session_commands(add)
    _add_model_commands(add)
    _add_setup_commands(add)
    return parser


def _add_microscope_commands(add: Add) -> None:
    sub = add("demo", _demo, "simulated microscope, agent and console in one go")
    _add_end(sub)
    _add_json(sub)

    sub = add("run", _run, "the live loop beside the microscope")
    _add_config(sub)
    sub.add_argument(
        "--mode",
        choices=[str(mode) for mode in Mode],
        help="look, propose, or focus and follow; default: the configuration's",
    )
    _add_arm(sub)
    _add_record(sub)
    sub.add_argument(
        "--positions",
        metavar="FILE|grid",
        help="a tile scan: a CSV with x_um, y_um, or the configuration's section scan",
    )
    _add_end(sub)
    _add_json(sub)

    sub = add("autofocus", _autofocus, "focus once, then exit")
    _add_config(sub)
    _add_most(sub)
    sub.add_argument("--no-stigmation", action="store_true", help="leave the stigmators alone")
    _add_arm(sub)
    _add_record(sub)
    _add_json(sub)

    sub = add("calibrate", _calibrate, "measure what focus, stigmators, beam shift and stage do")
    _add_config(sub)
    _add_arm(sub)
    sub.add_argument("--output", type=Path, metavar="FILE", help="default: the memory file")
    _add_json(sub)


def _add_image_commands(add: Add) -> None:
    sub = add("simulate", _simulate, "autofocus over a recorded stack as if it were the microscope")
    sub.add_argument("stack", help="folder, glob, OME-TIFF or recorded session")
    sub.add_argument("--start-um", type=_finite, metavar="WD", help="where to start, in µm")
    _add_most(sub)
    sub.add_argument("--seed", type=int, metavar="N", help="without --start-um: start at random")
    sub.add_argument("--console", action="store_true", help="watch it in the console, until Ctrl-C")
    _add_record(sub)
    _add_engine(sub)
    _add_json(sub)

    sub = add("estimate", _estimate, "where is focus, from these frames only")
    sub.add_argument("stack", help="folder, glob, OME-TIFF or recorded session")
    sub.add_argument("--frames", type=_indices, metavar="I,J,…", help="counted from 0")
    _add_record(sub)
    _add_engine(sub)
    _add_json(sub)

    sub = add("score", _score, "focus score and blur ellipse of each image")
    sub.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    _add_engine(sub)
    _add_json(sub)

    sub = add("restore", _restore, "restored copies, marked as derived")
    sub.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    sub.add_argument("--output", type=Path, required=True, metavar="DIR")
    _add_engine(sub)
    sub.add_argument("--artefact", type=Path, metavar="DIR", help="default: the model that ships")
    sub.add_argument(
        "--consistency-map", action="store_true", help="where each copy explains its raw frame"
    )
    _add_json(sub)


def _add_session_commands(add: Add) -> None:
    sub = add("replay", _replay, "a recorded session through the unmodified loop")
    sub.add_argument("session", type=Path, help="folder of a recorded session")
    sub.add_argument("--compare", action="store_true", help="fail when a command differs")
    _add_json(sub)

    sub = add("report", _report, "a recorded session as a page: seen, believed, done, refused")
    sub.add_argument("session", type=Path, help="folder of a recorded session")
    sub.add_argument("--output", type=Path, metavar="FILE.html", help="default: SESSION.html")

    sub = add("browse", _browse, "look through recorded sessions in a web browser")
    sub.add_argument("folder", type=Path, help="with sessions in it, or one session")
    sub.add_argument("--port", type=_port, metavar="N", help="default: 8642, or any free one")

    sub = add("export", _export, "a recorded session for Fiji, napari, HyperSpy and others")
    sub.add_argument("session", type=Path, help="folder of a recorded session")
    sub.add_argument("--to", required=True, choices=["ome-tiff", "ome-zarr"])
    sub.add_argument("output", type=Path, metavar="OUT", help="NAME.ome.tif or NAME.ome.zarr")
    sub.add_argument("--derived", action="store_true", help="restored frames too, as extra images")
    _add_json(sub)


def _add_model_commands(add: Add) -> None:
    sub = add("train", _train, "train the model, or adapt it to an instrument")
    sub.add_argument("stage", choices=["pretrain", "finetune", "measure", "adapt"])
    sub.add_argument("rest", nargs=argparse.REMAINDER, metavar="…", help="see train STAGE --help")

    sub = add(
        "engine", _engine, "which engines are installed; export, compile, compare and time a model"
    )
    sub.add_argument("verb", choices=["list", "export", "compile", "compare", "bench", "quality"])
    sub.add_argument("rest", nargs=argparse.REMAINDER, metavar="…", help="see engine VERB --help")


def _add_setup_commands(add: Add) -> None:
    _add_json(add("drivers", _drivers, "what is installed"))

    sub = add("doctor", _doctor, "try everything a run needs; nothing moves")
    sub.add_argument("config", nargs="?", help="also try this microscope")
    _add_json(sub)

    sub = add("check", _check, "is the configuration right")
    sub.add_argument("config", nargs="?")
    sub.add_argument("--schema", action="store_true", help="print its JSON schema, for editors")
    _add_json(sub)

    sub = add("keys", _keys, "make CURVE keys for a remote microscope")
    sub.add_argument("folder", type=Path, metavar="DIR")

    sub = add("serve", _serve, "offer this machine's microscope to an agent on another one")
    sub.add_argument("config")
    sub.add_argument("--bind", default="tcp://127.0.0.1:5556", help="default: %(default)s")
    sub.add_argument("--keys", type=Path, metavar="DIR", help="needed beyond this machine")
    _add_arm(sub)


def _add_config(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("config", help="file, or name of a configuration that ships with semagent")


def _add_arm(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--arm", action="store_true", help="let commands through the safety gate")


def _add_record(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--record", type=Path, metavar="DIR", help="record the session in a new DIR")


def _add_engine(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--engine", default=_DEFAULT_ENGINE, help="default: %(default)s")


def _add_most(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--max-frames", type=_count, metavar="N", help="use at most N frames")


def _add_end(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--frames", type=_count, metavar="N", help="end after N frames")
    sub.add_argument("--duration", type=_positive, metavar="S", help="end after S seconds")
    sub.add_argument("--no-console", action="store_true", help="terminal view only")


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON object a line on stdout")


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= _MOST:
        raise argparse.ArgumentTypeError(f"{text}: a whole number, at least 1 and at most {_MOST}")
    return int(text)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text}: a whole number from 0, any free one, to 65535")
    return int(text)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text}: a positive number")
    return value


def _finite(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text}: a finite number")
    return value


def _files(named: Sequence[Path]) -> list[Path]:
    """The files, with wildcards filled in: shells on Windows leave that to the program."""
    found: list[Path] = []
    for path in named:
        matches = [] if path.exists() else sorted(glob.glob(str(path)))  # noqa: PTH207 - any folder
        found += map(Path, matches or [str(path)])
    return found


def _indices(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: numbers of frames, as in 0,3,7") from None


if __name__ == "__main__":
    sys.exit(main())
