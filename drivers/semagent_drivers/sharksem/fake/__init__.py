"""A fake TESCAN microscope that speaks SharkSEM, to rehearse with.

``python -m semagent_drivers.sharksem.fake`` starts it.

It has the habits of the real one: most functions answer nothing and, where they cannot do as
told, do nothing; focus is clamped and settles while it reads back its old value; the field
follows the focus; packets of pixels repeat, and late ones of the scan before turn up; a function
it does not have is never answered.
"""

from semagent_drivers.sharksem.fake.instrument import FOCUS_MM, Instrument
from semagent_drivers.sharksem.fake.server import FakeSharkSem

__all__ = ["FOCUS_MM", "FakeSharkSem", "Instrument"]
