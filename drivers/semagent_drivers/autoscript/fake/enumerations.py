"""Stands for ``autoscript_sdb_microscope_client.enumerations``."""


class ImagingDevice:
    """What a view shows."""

    ELECTRON_BEAM = 1
    ION_BEAM = 2
    CCD_CAMERA = 3


class CoordinateSystem:
    """Of stage positions."""

    RAW = "Raw"
    SPECIMEN = "Specimen"
