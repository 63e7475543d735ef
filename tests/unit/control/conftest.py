"""A search that is going on, for the tests of what may interrupt it."""

import pytest

from semagent.types import StartAutofocus

from .bench import OPTIONS, Bench, Spectrum


@pytest.fixture
def bench() -> Bench:
    """Three frames into a long search: blur does not tell where focus is."""
    bench = Bench(focus=25.0, spectrum=Spectrum(flat=True), options=OPTIONS)
    bench.arm()
    bench.request(StartAutofocus())
    bench.run(3)
    assert bench.offset != 0
    return bench
