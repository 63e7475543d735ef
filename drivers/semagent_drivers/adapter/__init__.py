"""What every vendor adapter is built from: see ``docs/drivers/README.md``."""

from semagent_drivers.adapter.base import (
    Adapter,
    AdapterOptions,
    Picture,
    Port,
    Readings,
    Settling,
)
from semagent_drivers.adapter.folder import ImageFolder, Stamp
from semagent_drivers.adapter.limits import Limits, Range, require_within
from semagent_drivers.adapter.raster import Raster, RasterOptions, Window
from semagent_drivers.adapter.restore import put_back
from semagent_drivers.adapter.sdk import SdkThread, load_sdk
from semagent_drivers.adapter.software import SdkAdapter, opening
from semagent_drivers.adapter.stream import TcpStream
from semagent_drivers.adapter.waiting import Wait

__all__ = [
    "Adapter",
    "AdapterOptions",
    "ImageFolder",
    "Limits",
    "Picture",
    "Port",
    "Range",
    "Raster",
    "RasterOptions",
    "Readings",
    "SdkAdapter",
    "SdkThread",
    "Settling",
    "Stamp",
    "TcpStream",
    "Wait",
    "Window",
    "load_sdk",
    "opening",
    "put_back",
    "require_within",
]
