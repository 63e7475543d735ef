"""What this driver needs."""

from semagent.requirements import DriverFacts, PythonPackage

_GET = 'pip install "semagent[zeiss-remcon]"'

DRIVER = DriverFacts(
    verified_on=None,
    requirements=(
        PythonPackage("serial", get=_GET),
        PythonPackage("tifffile", get=_GET),
        PythonPackage("cv2", get=_GET),
    ),
)
