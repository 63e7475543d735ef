"""``python -m semagent_drivers.sharksem.fake``."""

from semagent_drivers.fakes import rehearse
from semagent_drivers.sharksem.fake import FakeSharkSem

if __name__ == "__main__":
    rehearse(FakeSharkSem, vendor="TESCAN microscope that speaks SharkSEM", port=8300)
