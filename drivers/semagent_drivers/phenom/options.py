"""The options of the driver for Phenom microscopes."""

from pathlib import Path

from msgspec import field

from semagent.errors import ConfigError
from semagent.options import Positive
from semagent_drivers.adapter import AdapterOptions, Range, RasterOptions, Settling

_LINES = 3


class PhenomOptions(AdapterOptions, frozen=True, kw_only=True):
    """How to reach a Phenom, and what its interface does not tell.

    Attributes:
        address: IP address or name of the instrument, or ``Simulator``; with an empty one the
            instrument of the licence is taken.
        credentials: file of three lines, the instrument's name, user and password of its
            licence; ``None`` where the licence is installed on this machine.
        detector: a ``DetectorMode`` of PyPhenom, such as ``All`` or ``Sed``.
        scan: how frames are scanned; the interface is told with each.
        stigmator_full_range: value of a stigmator, in the interface's unit, that counts as the
            full range.
        x_range_mm: travel of the stage that may be asked for; ``None`` if it is not to move.
        y_range_mm: the same for y.
        focus_settle_s: time the beam takes to settle after focus or stigmators.
        sdk: Python package; the fake's name rehearses without a microscope.
    """

    address: str = ""
    credentials: str | None = None
    detector: str = "All"
    scan: RasterOptions = field(default_factory=RasterOptions)
    stigmator_full_range: Positive = 1.0
    x_range_mm: Range | None = None
    y_range_mm: Range | None = None
    focus_settle_s: Settling = 0.3
    sdk: str = "PyPhenom"

    def login(self) -> tuple[str, ...]:
        """What the interface is given to connect.

        Raises:
            ConfigError: the file of the credentials cannot be used.
        """
        if self.credentials is None:
            return (self.address, "", "") if self.address else ()
        path = Path(self.credentials)
        try:
            lines = path.read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"driver phenom: credentials: {path}: {error}") from error
        given = [line.strip() for line in lines if line.strip()]
        if len(given) != _LINES:
            raise ConfigError(
                f"driver phenom: credentials: {path} has {len(given)} lines, not {_LINES}: name of "
                "the instrument, user, password"
            )
        return (self.address or given[0], given[1], given[2])
