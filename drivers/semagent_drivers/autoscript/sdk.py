"""The names of AutoScript's Python package that are used here, imported late."""

from typing import Any, NamedTuple

from semagent_drivers.adapter import load_sdk
from semagent_drivers.autoscript.facts import DRIVER

_REAL = "autoscript_sdb_microscope_client"
_CORE = "autoscript_core.common"


class Sdk(NamedTuple):
    """What the driver uses of the package."""

    client: Any
    structures: Any
    enumerations: Any
    failures: tuple[type[Exception], ...]


def load(package: str) -> Sdk:
    """Import the package, or a fake of the same layout whose ``common`` holds the exceptions.

    Raises:
        ConfigError: it cannot be imported; says what is missing and how to get it.
    """

    def part(name: str) -> Any:
        return load_sdk(name, "autoscript", DRIVER)

    core = part(_CORE if package == _REAL else f"{package}.common")
    return Sdk(
        client=part(package).SdbMicroscopeClient,
        structures=part(f"{package}.structures"),
        enumerations=part(f"{package}.enumerations"),
        failures=(core.ApplicationServerException, core.ApiException, RuntimeError),
    )
