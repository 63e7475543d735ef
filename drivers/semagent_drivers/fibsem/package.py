"""The package fibsem, as far as this driver uses it."""

import contextlib
import importlib
import sys
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from semagent.errors import ConfigError, SemagentError
from semagent_drivers.adapter import load_sdk
from semagent_drivers.fibsem.facts import DRIVER
from semagent_drivers.fibsem.options import FibsemOptions

_MODELS = {
    "ThermoFisher": ("fibsem.microscope", "ThermoMicroscope", 7520),
    "Tescan": ("fibsem.microscopes.tescan", "TescanMicroscope", 8300),
    "Odemis": ("fibsem.microscopes.odemis_microscope", "OdemisThermoMicroscope", 0),
    "Demo": ("fibsem.microscopes.simulator", "DemoMicroscope", 7520),
}

T = TypeVar("T")


class FibsemError(Exception):
    """OpenFIBSEM, or the vendor's package below it, raised something."""


class Package(NamedTuple):
    """What is needed of it: one microscope, not yet connected, and the types to talk to it."""

    structures: Any
    electron: Any
    microscope: Any
    manufacturer: str
    host: str
    port: int


def load(options: FibsemOptions) -> Package:
    """Import the package and make the microscope's object.

    Raises:
        ConfigError: software is missing, or the configuration file is wrong.
    """
    # It prints as it is imported, and the standard output belongs to --json.
    with contextlib.redirect_stdout(sys.stderr):
        utils = load_sdk("fibsem.utils", "fibsem", DRIVER)
        structures = load_sdk("fibsem.structures", "fibsem", DRIVER)
        try:
            system = translated(
                lambda: utils.load_microscope_configuration(options.configuration).system
            )
            if options.host is not None:
                system.info.ip_address = options.host
            if options.manufacturer is not None:
                system.info.manufacturer = options.manufacturer
            maker, port = _model(options.model, system.info.manufacturer)
            microscope = translated(lambda: maker(system))
        except (FibsemError, OSError) as error:
            raise ConfigError(f"driver fibsem: OpenFIBSEM cannot be set up: {error}") from error
    return Package(
        structures,
        structures.BeamType.ELECTRON,
        microscope,
        system.info.manufacturer,
        system.info.ip_address,
        port,
    )


def translated(call: Callable[[], T]) -> T:
    """Call into OpenFIBSEM, which raises bare exceptions of any kind.

    Raises:
        FibsemError: it failed.
        OSError, EOFError: the link is gone.
    """
    try:
        return call()
    except (OSError, EOFError, SemagentError):
        raise
    except Exception as error:
        raise FibsemError(str(error) or type(error).__name__) from error


def _model(named: str | None, manufacturer: str) -> tuple[Callable[[Any], Any], int]:
    if named is not None:
        module, _, name = named.partition(":")
        port = 0
    elif manufacturer in _MODELS:
        module, name, port = _MODELS[manufacturer]
    else:
        raise ConfigError(
            f"driver fibsem: manufacturer: {manufacturer!r} is none of {', '.join(_MODELS)}"
        )
    try:
        maker: Callable[[Any], Any] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"driver fibsem: {module}:{name} cannot be loaded: {error}") from error
    return maker, port
