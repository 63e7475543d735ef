"""What this driver needs."""

from semagent.requirements import DriverFacts, PythonPackage

DRIVER = DriverFacts(
    verified_on=None,
    requirements=(
        PythonPackage(
            "PyPhenom",
            get="comes with a licence of the Phenom Programming Interface (PPI) from Thermo Fisher "
            "Scientific, not from PyPI: install it into the Python that runs semagent",
        ),
    ),
)
