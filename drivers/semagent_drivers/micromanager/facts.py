"""What this driver needs."""

from semagent.requirements import DriverFacts, PythonPackage

DRIVER = DriverFacts(
    verified_on=None,
    requirements=(
        PythonPackage(
            "pymmcore",
            get="pip install 'semagent[micromanager]', in the release whose device interface "
            "number is that of your Micro-Manager; not needed with backend: java",
        ),
    ),
)
