"""What a driver needs that ``pip install semagent`` does not bring, as a record to look at.

A driver's module may carry it as ``DRIVER``, so that ``semagent drivers`` and ``semagent doctor``
can say what is missing and how to get it without opening anything::

    DRIVER = DriverFacts(
        verified_on=None,
        requirements=(
            PythonPackage("vendor_sdk", get="comes with the microscope's software, folder sdk/"),
        ),
    )
"""

import importlib.util
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class Requirement(Protocol):
    """One thing a driver needs."""

    @property
    def name(self) -> str:
        """What it is, for people."""
        ...

    @property
    def get(self) -> str:
        """How to get it."""
        ...

    def is_met(self) -> bool:
        """Whether it is here. Never connects to anything and never imports a vendor's code."""
        ...


@dataclass(frozen=True, slots=True)
class PythonPackage:
    """A package that can be imported."""

    module: str
    get: str

    @property
    def name(self) -> str:
        """See `Requirement`."""
        return f"Python package {self.module}"

    def is_met(self) -> bool:
        """See `Requirement`."""
        if self.module in sys.modules:
            return True
        try:
            return importlib.util.find_spec(self.module) is not None
        except ImportError:  # a parent package is missing
            return False


@dataclass(frozen=True, slots=True)
class OperatingSystem:
    """An operating system, by the name `platform.system` gives."""

    system: str
    get: str

    @property
    def name(self) -> str:
        """See `Requirement`."""
        return self.system

    def is_met(self) -> bool:
        """See `Requirement`."""
        return platform.system() == self.system


@dataclass(frozen=True, slots=True)
class ComServer:
    """A COM class registered on a Windows machine, by its ProgID."""

    prog_id: str
    get: str

    @property
    def name(self) -> str:
        """See `Requirement`."""
        return f"COM server {self.prog_id}"

    def is_met(self) -> bool:
        """See `Requirement`."""
        if platform.system() != "Windows":
            return False
        import winreg  # noqa: PLC0415 - exists on Windows only

        try:
            winreg.CloseKey(winreg.OpenKey(winreg.HKEY_CLASSES_ROOT, self.prog_id))  # type: ignore[attr-defined,unused-ignore]
        except OSError:
            return False
        return True


@dataclass(frozen=True, slots=True)
class DriverFacts:
    """What can be said of a driver without opening it.

    Attributes:
        verified_on: as in `Capabilities`.
        requirements: what has to be there, in the order to get it.
    """

    verified_on: str | None
    requirements: tuple[Requirement, ...] = ()

    def missing(self) -> tuple[Requirement, ...]:
        """What is not there."""
        return tuple(each for each in self.requirements if not each.is_met())


def explain(what: str, missing: Sequence[Requirement]) -> str:
    """One sentence for people: what is not there and how to get it."""
    needs = "; ".join(f"{each.name} ({each.get})" for each in missing)
    return f"{what} needs what is not here: {needs}"
