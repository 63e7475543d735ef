"""What a SharkSEM microscope can do: asked once, when it is opened."""

import re
from typing import NamedTuple

from semagent.errors import ConfigError
from semagent.types import Capabilities
from semagent_drivers.adapter import Limits, Range, Raster
from semagent_drivers.adapter.raster import MOST_AVERAGES
from semagent_drivers.adapter.units import DEGREES, MICROMETRES, MILLIMETRES
from semagent_drivers.sharksem.link import SharkLink
from semagent_drivers.sharksem.options import SharkSemOptions

STAGE = {
    "x_m": MILLIMETRES,
    "y_m": MILLIMETRES,
    "z_m": MILLIMETRES,
    "rotation_rad": DEGREES,
    "tilt_rad": DEGREES,
}
"""Axes in the order in which all stage functions take and give them."""

_SOFT_LIMITS = 1
# A function the microscope's version does not have is never answered, so it must not be asked.
_KNOWS_STAGE_LIMITS = (2, 0, 22)
_KNOWS_BEAM_CURRENT = (3, 0, 0)


class Described(NamedTuple):
    """What was found out."""

    capabilities: Capabilities
    limits: Limits
    stigmator: int | None
    rotation: int | None
    beam_current: bool


def describe(
    link: SharkLink, options: SharkSemOptions, raster: Raster, verified_on: str | None
) -> Described:
    """Ask the microscope what it is.

    Raises:
        ConfigError: ``stigmator_centering`` is not one of its centerings.
        MicroscopeError: it does not answer as it should.
    """
    version = _version(link.ask("TcpGetVersion").text())
    name = link.ask("TcpGetDevice").text()
    stigmator = _stigmator(property_map(link.ask("EnumCenterings").text()), options)
    axes = _stage(link) if version >= _KNOWS_STAGE_LIMITS else {}
    distances = MILLIMETRES.range_to_si(options.working_distance_range_mm)
    shift_m = MICROMETRES.to_si(options.beam_shift_range_um or 0.0)
    return Described(
        Capabilities(
            driver="sharksem",
            microscope=f"TESCAN {name}",
            verified_on=verified_on,
            stigmator=stigmator is not None,
            beam_shift=options.beam_shift_range_um is not None,
            stage_axes=tuple(axes),
            blanker=options.blanker is not None,
            scan_control=True,
            working_distance_range_m=distances,
        ),
        Limits(
            working_distance_m=distances,
            beam_shift_m=(-shift_m, shift_m),
            stage=axes,
            dwell_s=raster.dwell_range_s,
            frame_averages=MOST_AVERAGES,
            smallest_region=raster.smallest_region,
        ),
        stigmator,
        rotation=_only(property_map(link.ask("EnumGeometries").text()), "rot"),
        beam_current=version >= _KNOWS_BEAM_CURRENT,
    )


def property_map(text: str) -> dict[int, dict[str, str]]:
    """``kind.N.key=value`` lines, as ``{N: {key: value}}``."""
    found: dict[int, dict[str, str]] = {}
    for index, key, value in re.findall(r"^\w+\.(\d+)\.(\w+)=(.*?)\s*$", text, re.MULTILINE):
        found.setdefault(int(index), {})[key] = value
    return found


def _version(text: str) -> tuple[int, ...]:
    # Old ones run on into the name of the device: "2.0.210300USB..."; 2.0.2 is meant at least.
    found = re.match(r"(\d+)\.(\d+)\.(\d{1,2})", text)
    return tuple(map(int, found.groups())) if found else (0, 0, 0)


def _stigmator(centerings: dict[int, dict[str, str]], options: SharkSemOptions) -> int | None:
    index = options.stigmator_centering
    if index is None:
        # Two could be those of two lenses; only a person knows which one is meant.
        return _only(centerings, "stig")
    if index not in centerings:
        names = {number: centering.get("name", "") for number, centering in centerings.items()}
        raise ConfigError(
            f"driver sharksem: stigmator_centering {index} is not one of the microscope's "
            f"centerings: {names}"
        )
    return index


def _only(entries: dict[int, dict[str, str]], part: str) -> int | None:
    """The index of the entry with ``part`` in its name; ``None`` without one, or with several."""
    found = [index for index, entry in entries.items() if part in entry.get("name", "").lower()]
    return found[0] if len(found) == 1 else None


def _stage(link: SharkLink) -> dict[str, Range]:
    """Ranges of the motorised axes in SI units: the others have both limits at 0."""
    limits = link.ask("StgGetLimits", _SOFT_LIMITS).numbers()
    pairs = zip(limits[::2], limits[1::2], strict=False)
    return {
        axis: unit.range_to_si(ends)
        for (axis, unit), ends in zip(STAGE.items(), pairs, strict=False)
        if ends[0] < ends[1]
    }
