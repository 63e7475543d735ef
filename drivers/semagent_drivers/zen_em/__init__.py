"""ZEISS microscopes through ZEN EM: not supported.

There is a name for it, so that whoever looks for it is told; see ``docs/drivers/zeiss.md``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from semagent.clock import Clock
from semagent.errors import ConfigError
from semagent.requirements import DriverFacts, explain

__all__ = ["DRIVER", "open_microscope"]


@dataclass(frozen=True, slots=True)
class _Unwritten:
    """What nobody can install."""

    name: str
    get: str

    def is_met(self) -> bool:
        """See `semagent.requirements.Requirement`."""
        return False


DRIVER = DriverFacts(
    verified_on=None,
    requirements=(
        _Unwritten(
            "a driver that is not written",
            get="ZEN EM is not supported: the client stubs of its gRPC interface are not on PyPI; "
            "use smartsem or zeiss-remcon, or write an adapter with the stubs from ZEISS",
        ),
    ),
)


def open_microscope(
    options: Mapping[str, Any],  # noqa: ARG001 - as every driver has
    *,
    clock: Clock,  # noqa: ARG001
) -> NoReturn:
    """Say that it is not supported.

    Raises:
        ConfigError: always.
    """
    raise ConfigError(explain("driver zen-em", DRIVER.requirements))
