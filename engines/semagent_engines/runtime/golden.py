"""Does a runtime reproduce what the artefact's graphs gave where they were exported?"""

import numpy as np

from semagent_engines.runtime.artefact import GRAPHS, Artefact
from semagent_engines.runtime.model_engine import Runtime

FARTHEST = float(np.finfo(np.float32).max)
"""Difference of what is not a number: a number all the same, as JSON has no other."""


def deviations(runtime: Runtime, artefact: Artefact) -> dict[str, float]:
    """Largest difference of every output from its golden tensor.

    Returns:
        ``graph/output`` to the difference, relative to the golden tensor's standard deviation or,
        where that is smaller, to one thousandth of its largest value.
    """
    found = {}
    with np.load(artefact.golden) as golden:
        for graph in GRAPHS:
            prefix = f"{graph}/in/"
            inputs = {
                name.removeprefix(prefix): golden[name]
                for name in golden.files
                if name.startswith(prefix)
            }
            for name, value in runtime.run(graph, inputs).items():
                expected = golden[f"{graph}/out/{name}"]
                scale = max(float(expected.std()), 1e-3 * float(np.abs(expected).max()), 1e-9)
                difference = float(np.abs(value - expected).max()) / scale
                # In this order: whatever is not a number is not less than the first.
                found[f"{graph}/{name}"] = min(FARTHEST, difference)
    return found
