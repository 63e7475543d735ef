"""What this driver needs."""

from semagent.requirements import DriverFacts, PythonPackage

_GET = (
    "comes with a licence of AutoScript from Thermo Fisher Scientific, not from PyPI: install the "
    "wheels of your AutoScript release into the Python that runs semagent"
)

DRIVER = DriverFacts(
    verified_on=None,
    requirements=(
        PythonPackage("autoscript_sdb_microscope_client", get=_GET),
        PythonPackage("autoscript_core", get=_GET),
    ),
)
