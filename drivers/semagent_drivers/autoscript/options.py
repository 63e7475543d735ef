"""The options of the driver for AutoScript."""

from typing import Annotated, Literal

from msgspec import Meta

from semagent_drivers.adapter import AdapterOptions, Port, Settling


class AutoScriptOptions(AdapterOptions, frozen=True, kw_only=True):
    """How to reach an AutoScript server, and what its interface does not tell.

    Attributes:
        host: machine the AutoScript server runs on; usually the microscope PC itself.
        port: of the server.
        view: the quad (1 to 4) in which the electron beam is imaged.
        bit_depth: of the frames.
        focus_settle_s: time the beam takes to settle after focus, stigmators or beam shift.
        degauss_settle_s: time focus takes to settle where every change degausses the lens.
        max_frame_averages: most scans integrated into a frame.
        smallest_region: smallest edge of a region, relative to the field.
        sdk: Python package of the client; the fake's name rehearses without a microscope.
    """

    host: str = "localhost"
    port: Port = 7520
    view: Annotated[int, Meta(ge=1, le=4)] = 1
    bit_depth: Literal[8, 16] = 8
    focus_settle_s: Settling = 0.1
    degauss_settle_s: Settling = 2.0
    max_frame_averages: Annotated[int, Meta(ge=1, le=256)] = 16
    smallest_region: Annotated[float, Meta(gt=0, le=1)] = 0.1
    sdk: str = "autoscript_sdb_microscope_client"
