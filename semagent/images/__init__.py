"""Reading micrographs: pixels, acquisition settings of every major vendor, information bar."""

from semagent.images.infobar import find_info_bar
from semagent.images.metadata import ImageMetadata, merge
from semagent.images.reader import (
    ImageFile,
    ImageHeader,
    in_words,
    read_detectors,
    read_headers,
    read_image,
)

__all__ = [
    "ImageFile",
    "ImageHeader",
    "ImageMetadata",
    "find_info_bar",
    "in_words",
    "merge",
    "read_detectors",
    "read_headers",
    "read_image",
]
