"""How far the estimate of focus can be trusted where a lens is not as the model has it.

    python benchmarks/other_beams.py --data DATA --split train --trials 60

The states of the microscope are those of ``benchmarks/autofocus.py``, the same for every row; what
differs is how blur grows with defocus, counted in half depths of field. An exponent leaves the blur
at four half depths of field as it is.
"""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

import numpy as np
from focusing.outcome import Outcome
from focusing.sample import Sample

from semagent_drivers.simulated.beam import Beam, Covariance

Bend = Callable[[float], float]


def exponent(power: float) -> Bend:
    """Blur that grows with a power of defocus."""
    return lambda z: math.copysign(4 * abs(z / 4) ** power, z)


def lopsided(share: float) -> Bend:
    """Blur that is so much more above focus, and less below."""
    return lambda z: z * (1 + math.copysign(share, z))


LENSES = {
    "as in the model": exponent(1.0),
    "exponent 0.8": exponent(0.8),
    "exponent 1.3": exponent(1.3),
    "5 % more on one side, less on the other": lopsided(0.05),
    "10 %": lopsided(0.1),
    "20 %": lopsided(0.2),
}


def lens(bend: Bend) -> AbstractContextManager[Any]:
    """Such a lens in the place of the model's."""
    straight = Beam.geometric

    def bent(beam: Beam, defocus_m: float) -> Covariance:
        half_depth_m = 0.5 / beam.slope_px_per_m
        return straight(beam, bend(defocus_m / half_depth_m) * half_depth_m)

    return patch.object(Beam, "geometric", bent)


def row(name: str, outcomes: list[Outcome]) -> str:
    """One line of the table."""
    sure = [each for each in outcomes if each.status == "focused" and each.verified]
    success, right = (100 * np.mean([e.success for e in some]) for some in (outcomes, sure))
    covered = 100 * np.mean([each.covered for each in sure])
    most = max(abs(each.final) for each in sure)
    frames = np.mean([each.frames for each in outcomes])
    return f"| {name} | {success:.0f} | {right:.0f} | {most:.1f} | {covered:.0f} | {frames:.1f} |"


def main() -> None:
    """Print the table."""
    sample = Sample(__doc__)
    print(
        "| blur | success % | right where it says so % | furthest off then, half depths of field "
        "| 90 % interval holds % | frames |\n|---|---|---|---|---|---|"
    )
    for name, bend in LENSES.items():
        with lens(bend):
            print(row(name, sample.outcomes()), flush=True)


if __name__ == "__main__":
    main()
