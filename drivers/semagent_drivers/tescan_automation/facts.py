"""What this driver needs."""

from semagent.requirements import DriverFacts, PythonPackage

DRIVER = DriverFacts(
    verified_on=None,
    requirements=(
        PythonPackage(
            "tescanautomation",
            get="comes with a licence of TESCAN Automation (Essence), not from PyPI: install its "
            "wheel into the Python that runs semagent",
        ),
    ),
)
