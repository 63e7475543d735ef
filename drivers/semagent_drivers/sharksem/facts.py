"""What this driver needs."""

from semagent.requirements import DriverFacts

# Nothing to install: the protocol is spoken directly. On the microscope, remote control has to
# be licensed and switched on, which only an attempt to connect can tell.
DRIVER = DriverFacts(verified_on=None)
