"""What this driver needs: nothing that can be installed on this side."""

from semagent.requirements import DriverFacts

DRIVER = DriverFacts(verified_on=None)
