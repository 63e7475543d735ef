"""Drivers and engines by name, through entry points, so that a lab can ship its own."""

import importlib
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from semagent.clock import Clock
from semagent.errors import ConfigError, FrameTooSmallError, MicroscopeError, SemagentError
from semagent.options import Options
from semagent.ports import Engine, Microscope, OpenEngine, OpenMicroscope
from semagent.requirements import DriverFacts
from semagent.types import Capabilities, Frame, MicroscopeAction, MicroscopeState, Scan

DRIVERS = "semagent.drivers"
ENGINES = "semagent.engines"
TOOLS = "semagent.tools"


def names(group: str) -> list[str]:
    """Names of what is installed for a group, sorted."""
    return sorted({point.name for point in entry_points(group=group)})


def find(group: str, name: str) -> EntryPoint:
    """The one entry point of that name.

    Raises:
        ConfigError: there is none, or two packages offer the same name.
    """
    # An editable install beside a wheel lists the same object twice; that is one offer.
    found = {point.value: point for point in entry_points(group=group, name=name)}
    if not found:
        raise ConfigError(
            f"no {_noun(group)} is called {name!r} (installed: {', '.join(names(group)) or 'none'})"
        )
    if len(found) > 1:
        offers = " and ".join(sorted(found))
        raise ConfigError(f"two packages offer a {_noun(group)} called {name!r}: {offers}")
    return next(iter(found.values()))


def open_microscope(name: str, options: Mapping[str, Any], *, clock: Clock) -> Microscope:
    """Open a microscope through the driver called ``name``.

    What the driver did not foresee, in this call or later ones, becomes a `MicroscopeError`.

    Raises:
        ConfigError: there is no such driver, its software is missing, or its options are wrong.
        MicroscopeError: the microscope cannot be reached.
    """
    with _foreseen(name):
        return _Foreseen(name, opener(name)(options, clock=clock))


def opener(name: str) -> OpenMicroscope:
    """What the driver called ``name`` opens its microscopes with.

    Raises:
        ConfigError: there is no such driver, or its software is missing.
    """
    found: OpenMicroscope = _load(DRIVERS, name)
    return found


def driver_facts(name: str) -> DriverFacts | None:
    """What the driver's module says of itself, ``None`` if it says nothing.

    Raises:
        ConfigError: there is no such driver, or its software is missing.
    """
    facts = getattr(_module(DRIVERS, name), "DRIVER", None)
    return facts if isinstance(facts, DriverFacts) else None


def options_schema(group: str, name: str) -> type[Options] | None:
    """What a driver or an engine takes as its options, ``None`` if its module does not say.

    It is the subclass of `Options` that the module of the entry point names, the most derived one
    if it names several.

    Raises:
        ConfigError: there is no such driver or engine, or its software is missing.
    """
    named = {
        each
        for each in vars(_module(group, name)).values()
        if isinstance(each, type) and issubclass(each, Options) and each is not Options
    }
    derived = [each for each in named if not any(each in other.__mro__[1:] for other in named)]
    return derived[0] if len(derived) == 1 else None


def open_engine(name: str, options: Mapping[str, Any]) -> Engine:
    """Load the engine called ``name``.

    Raises:
        ConfigError: there is no such engine, its software is missing, or its options are wrong.
        EngineError: it cannot run here.
    """
    opener: OpenEngine = _load(ENGINES, name)
    return opener(options)


def open_engine_for(scan: Scan, name: str, options: Mapping[str, Any]) -> Engine:
    """Load an engine that is to look at frames of this scan.

    Raises:
        ConfigError: see `open_engine`.
        FrameTooSmallError: it cannot look at any of them.
        EngineError: see `open_engine`.
    """
    engine = open_engine(name, options)
    try:
        require_size(scan, engine.smallest_px, engine.name)
    except FrameTooSmallError:
        engine.close()
        raise
    return engine


def require_size(scan: Scan, smallest_px: int, engine: str) -> None:
    """Find out before a run begins whether the engine can look at its frames.

    Args:
        scan: how they are scanned.
        smallest_px: of the engine; see `semagent.ports.Engine`.
        engine: its name, for the error.

    Raises:
        FrameTooSmallError: it cannot.
    """
    if min(scan.width_px, scan.height_px) < smallest_px:
        raise FrameTooSmallError(
            f"frames of {scan.width_px} x {scan.height_px} pixels are too small for the engine "
            f"{engine}: {smallest_px} x {smallest_px} are needed without information bar; scan "
            "a larger region, or with more pixels"
        )


def run_tool(name: str, arguments: Sequence[str]) -> None:
    """Run a command that lives outside the core, such as training, with its own arguments.

    Raises:
        ConfigError: there is no such tool, or its software is missing.
        SemagentError: the tool failed.
    """
    with _installed(TOOLS, name) as point:
        tool: Callable[[Sequence[str]], None] = point.load()
        tool(arguments)


@contextmanager
def _foreseen(driver: str) -> Iterator[None]:
    """Let out no error of a driver's own, so that whoever calls it can do what is to be done then.

    Raises:
        MicroscopeError: in place of an error that is none of semagent's.
    """
    try:
        yield
    except SemagentError:
        raise
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        raise MicroscopeError(
            f"the driver {driver} failed with {type(error).__name__}: {error} "
            f"({Path(place.filename).name}, line {place.lineno})"
        ) from error


class _Foreseen:
    """A microscope whose errors are all semagent's; whatever else it offers is there, too."""

    def __init__(self, driver: str, microscope: Microscope) -> None:
        self._driver = driver
        self._microscope = microscope

    @property
    def capabilities(self) -> Capabilities:
        return self._microscope.capabilities

    def read_state(self) -> MicroscopeState:
        with _foreseen(self._driver):
            return self._microscope.read_state()

    def acquire(self, timeout_s: float) -> Frame:
        with _foreseen(self._driver):
            return self._microscope.acquire(timeout_s)

    def apply(self, action: MicroscopeAction) -> None:
        with _foreseen(self._driver):
            self._microscope.apply(action)

    def stop(self) -> None:
        with _foreseen(self._driver):
            self._microscope.stop()

    def close(self) -> None:
        with _foreseen(self._driver):
            self._microscope.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._microscope, name)


def _load(group: str, name: str) -> Any:
    with _installed(group, name) as point:
        return point.load()


def _module(group: str, name: str) -> ModuleType:
    with _installed(group, name) as point:
        return importlib.import_module(point.module)


@contextmanager
def _installed(group: str, name: str) -> Iterator[EntryPoint]:
    point = find(group, name)
    try:
        yield point
    except ImportError as error:
        raise ConfigError(
            f"the {_noun(group)} {name!r} needs software that is not installed: {error}"
        ) from error


def _noun(group: str) -> str:
    return group.removeprefix("semagent.").removesuffix("s")
