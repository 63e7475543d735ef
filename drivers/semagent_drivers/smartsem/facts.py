"""What this driver needs."""

from semagent.requirements import ComServer, DriverFacts, OperatingSystem, PythonPackage

PROG_ID = "CZ.EMApiCtrl.1"

CONTROL = ComServer(
    PROG_ID,
    get="comes with a licence of the SmartSEM remote API from ZEISS: install it, and register its "
    "control with regsvr32 CZEMApi.ocx, as administrator",
)
DRIVER = DriverFacts(
    verified_on=None,
    requirements=(
        OperatingSystem(
            "Windows",
            get="run it on the PC with SmartSEM, for an agent elsewhere with `semagent serve`",
        ),
        PythonPackage("win32com", get='pip install "semagent[smartsem]"'),
        PythonPackage("tifffile", get='pip install "semagent[smartsem]"'),
        PythonPackage("cv2", get='pip install "semagent[smartsem]"'),
        CONTROL,
    ),
)
