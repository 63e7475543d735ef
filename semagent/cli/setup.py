"""What is there, and does it work: ``drivers``, ``doctor``, ``check``, ``keys``, ``serve``."""

import importlib
import logging
import platform
import sys
import threading
from itertools import groupby
from pathlib import Path

from semagent import __version__, registry
from semagent.cli import exits
from semagent.cli.output import Output
from semagent.clock import SystemClock
from semagent.config import RunConfig, check_parts, find_config, load_config
from semagent.errors import CommandRefusedError, ConfigError, EngineError, SemagentError
from semagent.keys import CLIENT_FOLDER, SERVER_FOLDER, make_keys
from semagent.lengths import show_distance, show_length
from semagent.remote.serve import serve as serve_microscope
from semagent.schema import as_json, config_schema
from semagent.signals import handled
from semagent.types import FrameHeader

_MODULES = ("numpy", "zmq", "msgspec")
_MODULES_OF_THE_AGENT = ("cv2", "tifffile", "imagecodecs")
"""What a PC that only serves its microscope does without."""


def drivers(output: Output) -> int:
    """List the drivers that are installed, what each needs and whether it met its hardware."""
    rows, needs = [], []
    for name in registry.names(registry.DRIVERS):
        point = registry.find(registry.DRIVERS, name)
        about = _about(point.module)
        try:
            facts = registry.driver_facts(name)
            missing = facts.missing() if facts else ()
            wants = [
                f"needs {', '.join(each.name for each in same)}: {get}"
                for get, same in groupby(missing, key=lambda each: each.get)
            ]
        except ConfigError as error:
            facts, missing, wants = None, (), [str(error)]
        verified = facts and (facts.verified_on or "never run on its hardware")
        output.record(
            {
                "name": name,
                "object": point.value,
                "state": "; ".join(wants) or "ready",
                "verified_on": facts and facts.verified_on,
                "missing": [{"name": each.name, "get": each.get} for each in missing],
                "about": about,
            }
        )
        rows.append([name, about, verified or "does not say", "see below" if wants else "ready"])
        needs += [f"{name} {each}" for each in wants]
    output.table("drivers", ["name", "about", "verified on", "state"], rows)
    if not output.json:
        for line in needs:
            output.say(line)
    return exits.DONE


def engines(output: Output) -> int:
    """List the engines that are installed and whether each can be loaded."""
    rows = []
    for name in registry.names(registry.ENGINES):
        point = registry.find(registry.ENGINES, name)
        try:
            point.load()
            state = "ready"
        except ImportError as error:
            state = f"needs software that is not installed: {error}"
        about = _about(point.module)
        output.record({"name": name, "object": point.value, "state": state, "about": about})
        rows.append([name, state, about])
    output.table("engines", ["name", "state", "about"], rows)
    return exits.DONE


def _about(module: str) -> str:
    try:
        documentation = importlib.import_module(module).__doc__ or ""
    except ImportError:
        return ""
    return documentation.strip().partition("\n")[0].replace("``", "")


def run_tool(name: str, arguments: list[str]) -> int:
    """Hand over to a tool outside the core; it prints for itself."""
    registry.run_tool(name, arguments)
    return exits.DONE


def check(name: str, output: Output) -> int:
    """Check a configuration without touching the microscope.

    Raises:
        ConfigError: it is wrong; the message says where.
    """
    path = find_config(name)
    config = load_config(path)
    check_parts(path, config)
    _check_console(path, config)
    output.record({"path": str(path), "instrument": config.instrument, "ok": True})
    output.say(
        f"{path}: right. {config.instrument}: driver {config.driver.name}, "
        f"engine {config.engine.name}"
    )
    return exits.DONE


def _check_console(path: Path, config: RunConfig) -> None:
    try:
        from semagent.console import check_access  # noqa: PLC0415 - the extra may be missing
    except ImportError:
        return
    try:
        check_access(config.console)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def schema(output: Output) -> int:
    """Print the JSON schema of configurations, with all drivers and engines installed here."""
    if output.json:
        output.record(config_schema())
    else:
        output.write(as_json(config_schema()))
    return exits.DONE


def doctor(name: str | None, output: Output) -> int:
    """Try everything a run needs, one thing after the other, and return the exit code."""
    checks: list[tuple[str, bool, str]] = [
        ("semagent", True, __version__),
        ("python", True, f"{platform.python_version()} on {platform.system()}"),
    ]
    checks += [_module(module, "install semagent again") for module in _MODULES]
    advice = "pip install semagent brings it; a PC that only serves its microscope needs it not"
    checks += [_module(module, advice) for module in _MODULES_OF_THE_AGENT]
    if name is not None:
        checks += _microscope(name)
    for what, fine, detail in checks:
        output.record({"check": what, "ok": fine, "detail": detail})
    rows = [[what, "ok" if fine else "FAILS", detail] for what, fine, detail in checks]
    output.table("doctor", ["what", "", "detail"], rows)
    return exits.DONE if all(fine for _, fine, _ in checks) else exits.FAILED


def _module(name: str, advice: str) -> tuple[str, bool, str]:
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        return name, False, f"cannot be imported: {error}; {advice}"
    return name, True, str(getattr(module, "__version__", "present"))


def _microscope(name: str) -> list[tuple[str, bool, str]]:
    """Open the microscope and the engine, take one frame and look at it; nothing moves."""
    config = load_config(find_config(name))
    checks = [("configuration", True, config.instrument)]
    facts = registry.driver_facts(config.driver.name)
    needs = facts.requirements if facts else ()
    checks += [(each.name, True, "present") for each in needs if each.is_met()]
    missing = [each for each in needs if not each.is_met()]
    try:
        microscope = registry.open_microscope(
            config.driver.name, config.driver.options, clock=SystemClock()
        )
    except SemagentError as error:
        checks += [(each.name, False, each.get) for each in missing]
        return [*checks, ("driver", False, str(error))]
    checks += [(each.name, True, "not here, and not needed here") for each in missing]
    try:
        capabilities = microscope.capabilities
        verified = capabilities.verified_on or "never run on its hardware"
        checks.append(("driver", True, f"{capabilities.microscope}; verified on: {verified}"))
        frame = microscope.acquire(config.acquire.frame_timeout_s)
        height, width = frame.pixels.shape
        checks.append(("one frame", True, f"{width} x {height} {frame.pixels.dtype}"))
        checks.append(("what it reports", True, _reported(frame.header)))
        if barred := microscope.read_state().barred:
            checks.append(("moves", True, f"none for now: {barred}"))
        engine = registry.open_engine(config.engine.name, config.engine.options)
        figures = engine.analyse(frame).figures
        engine.close()
        detail = f"{figures.engine}: score {figures.focus_score:.3f} in {figures.latency_s:.3f} s"
        checks.append(("engine", True, detail))
    except SemagentError as error:
        of_engine = isinstance(error, EngineError | ConfigError)
        checks.append(("engine" if of_engine else "one frame", False, str(error)))
    finally:
        microscope.close()
    return checks


def _reported(header: FrameHeader) -> str:
    """What came with a frame, to be compared with what the microscope shows."""
    scan, optics = header.scan, header.optics
    pixel_m, voltage_v = scan.pixel_size_m, optics.accelerating_voltage_v
    x, y = optics.stigmator_x, optics.stigmator_y
    values = {
        "working distance": show_distance(optics.working_distance_m),
        "field width": pixel_m and show_length(pixel_m * scan.width_px),
        "pixel size": pixel_m and show_length(pixel_m),
        "voltage": voltage_v and f"{voltage_v / 1e3:g} kV",
        "stigmators": None if x is None or y is None else f"{x:+.4f} and {y:+.4f}",
    }
    return ", ".join(f"{name} {value or 'not reported'}" for name, value in values.items())


def keys(folder: Path, output: Output) -> int:
    """Make CURVE keys for a remote microscope in ``folder``.

    Raises:
        UsageError: there are keys already.
    """
    make_keys(folder)
    output.say(
        f"keys made: bring {folder / SERVER_FOLDER} to the microscope PC and "
        f"{folder / CLIENT_FOLDER} to the machine of the agent; keep the secret ones secret"
    )
    return exits.DONE


def serve(name: str, *, bind: str, keys: Path | None, arm: bool, output: Output) -> int:
    """Offer this machine's microscope to an agent on another one until Ctrl-C.

    A person at this machine who types ``arm`` arms again after the gate has disarmed.
    """
    config = load_config(find_config(name))
    stop, arm_again = threading.Event(), threading.Event()
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s")
    threading.Thread(target=_listen_for_arm, args=(arm_again,), daemon=True).start()
    try:
        with handled(lambda *_: stop.set()):
            serve_microscope(
                config, bind=bind, keys=keys, armed=arm, stop=stop, arm_again=arm_again
            )
    except CommandRefusedError as error:
        output.fail(str(error))
        return exits.REFUSED
    return exits.DONE


def _listen_for_arm(arm_again: threading.Event) -> None:
    for line in sys.stdin or ():  # nothing is there to be read where it was closed
        if line.strip() == "arm":
            arm_again.set()
