"""The suites every driver and engine has to pass, for adapters kept outside this repository too.

Subclass one in a test file and say how yours is opened::

    from semagent.testing import MicroscopeConformance

    class TestOurMicroscope(MicroscopeConformance):
        driver = "our-microscope"

Needs pytest; ``docs/new-driver.md`` and ``docs/new-engine.md`` walk through it.
"""

import pytest

pytest.register_assert_rewrite(
    "semagent.testing.engines", "semagent.testing.faults", "semagent.testing.microscopes"
)

from semagent.testing.engines import EngineConformance  # noqa: E402 - after the line above
from semagent.testing.faults import Injector, MicroscopeFaults, Rig  # noqa: E402
from semagent.testing.microscopes import MicroscopeConformance  # noqa: E402

__all__ = ["EngineConformance", "Injector", "MicroscopeConformance", "MicroscopeFaults", "Rig"]
