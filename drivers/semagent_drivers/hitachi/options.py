"""The options of the driver for Hitachi microscopes."""

import ipaddress
from typing import Annotated

from msgspec import Meta

from semagent.options import Positive, Seconds
from semagent_drivers.adapter import AdapterOptions, Port, Settling


class HitachiOptions(AdapterOptions, frozen=True, kw_only=True):
    """Where the SEM PC calls, where its images lie, and what its interface does not tell.

    Attributes:
        folder: the SEM PC's image folder (``SemImage/temp`` on its drive D) as this machine
            sees it.
        images: names of the images in it, with ``*`` for what varies.
        bind: address of this machine on which the SEM PC's call is awaited.
        port: where; the SEM PC is set to the same one.
        peer: IP address of the SEM PC; calls from elsewhere are turned away. Required unless
            ``bind`` is loopback: the interface knows no password.
        connect_timeout_s: how long the call is awaited.
        width_px: columns of a capture, as chosen at the microscope.
        height_px: rows of a capture, information bar included.
        info_bar_px: rows of a burnt-in information bar at the bottom.
        field_mm: width of the field in millimetres times the magnification.
        working_distance_range_mm: what may be asked of the focus.
        stage_settle_s: how long after a command the stage may still say that it does not move.
    """

    folder: str
    images: str = "*.bmp"
    bind: str = "127.0.0.1"
    port: Port = 3000
    peer: str | None = None
    connect_timeout_s: Seconds = 60.0
    width_px: Annotated[int, Meta(ge=64, le=16384)] = 1280
    height_px: Annotated[int, Meta(ge=64, le=16384)] = 960
    info_bar_px: Annotated[int, Meta(ge=0)] = 0
    field_mm: Positive = 127.0
    working_distance_range_mm: tuple[Positive, Positive] = (1.5, 40.0)
    stage_settle_s: Settling = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        peer = self.bind if self.peer is None else self.peer
        for key, address in (("bind", self.bind), ("peer", peer)):
            try:
                ipaddress.ip_address(address)
            except ValueError as error:
                raise ValueError(f"{key}: {error}") from error
        if not ipaddress.ip_address(self.bind).is_loopback and self.peer is None:
            raise ValueError(
                f"bind {self.bind} can be reached from the network: peer has to name the SEM PC"
            )
        if self.info_bar_px >= self.height_px:
            raise ValueError(f"info_bar_px {self.info_bar_px} leaves no row of {self.height_px}")
