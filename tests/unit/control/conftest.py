"""A search that is going on, for the tests of what may interrupt it."""

import pytest

from semagent.types import StartAutofocus

from .bench import OPTIONS, Bench


@pytest.fixture
def bench() -> Bench:
    """Three frames into a search that has moved away from its start."""
    bench = Bench(focus=25.0, options=OPTIONS)
    bench.arm()
    bench.request(StartAutofocus())
    bench.run(3)
    assert bench.offset != 0
    return bench
