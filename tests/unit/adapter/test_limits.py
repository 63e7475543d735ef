"""What is outside of an instrument's limits is refused, and never clipped."""

import math

import pytest

from semagent.errors import CommandRefusedError
from semagent.types import Region
from semagent_drivers.adapter.limits import require_region, require_within


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan, math.inf, -math.inf])
def test_only_what_is_within_passes(value: float):
    for limit in (0.0, 1.0):
        require_within("focus", limit, (0.0, 1.0), "m")
    with pytest.raises(CommandRefusedError, match=r"focus .* is outside"):
        require_within("focus", value, (0.0, 1.0), "m")


def test_without_a_limit_infinity_does_not_pass_either():
    with pytest.raises(CommandRefusedError, match=r"focus .* is outside"):
        require_within("focus", math.inf, (0.0, math.inf), "m")


@pytest.mark.parametrize(
    "edges",
    [
        (-0.1, 0.0, 0.5, 0.5),
        (0.0, -0.1, 0.5, 0.5),
        (0.6, 0.0, 0.5, 0.5),
        (0.0, 0.6, 0.5, 0.5),
        (0.0, 0.0, 0.0, 0.5),
        (0.0, 0.0, 0.5, math.nan),
        (0.0, 0.0, 0.2, 0.5),
        (0.0, 0.0, 0.5, 0.2),
    ],
)
def test_a_region_lies_within_the_field_and_is_large_enough(
    edges: tuple[float, float, float, float],
):
    require_region(Region(left=0.5, top=0.75, width=0.5, height=0.25), 0.25)
    left, top, width, height = edges
    with pytest.raises(CommandRefusedError, match=r"^region "):
        require_region(Region(left=left, top=top, width=width, height=height), 0.25)
