"""What the fake shares between its modules, as ``tescanautomation.Common`` does."""

from dataclasses import dataclass
from enum import Enum
from typing import Any


class Bpp(Enum):
    """Bits of a pixel."""

    Grayscale_8_bit = 8
    Grayscale_16_bit = 16


class Error(Exception):
    """Whatever the matter is."""


@dataclass
class Document:
    """An image."""

    Image: Any
    Header: dict[str, dict[str, str]]
