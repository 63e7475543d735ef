"""What this driver needs."""

from semagent.requirements import DriverFacts, PythonPackage

DRIVER = DriverFacts(
    verified_on=None,
    requirements=(
        PythonPackage(
            "fibsem",
            get="pip install 'semagent[fibsem]', and beside it the vendor's own package that "
            "OpenFIBSEM needs for your microscope, such as AutoScript",
        ),
    ),
)
