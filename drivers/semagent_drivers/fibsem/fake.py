"""OpenFIBSEM's own demo microscope with a specimen that blurs, to rehearse with.

It stands where the driver's option ``model`` says ``semagent_drivers.fibsem.fake:Model``.
Instruments are reached by ``host``; any that nobody has named is a new one. The demo that comes
with the package answers all calls, but shows the same picture at any focus.
"""

import threading
from typing import Any

import numpy as np
from fibsem.microscopes.simulator import DemoMicroscope
from fibsem.structures import BeamType, FibsemImage, ImageSettings

from semagent.types import Optics, Scan, StagePosition
from semagent_drivers.fakes import Bench, Trip, wired

_FOCUS_M = 4.02e-3
_FIELD_M = 15.36e-6


class Instrument:
    """One microscope: its faults, its habits and what is under its beam.

    Attributes:
        trip: makes its calls go wrong.
        deaf: it accepts all settings and changes none.
        realtime: a frame takes as long as its dwell says.
        demo: OpenFIBSEM's object, once somebody has connected.
    """

    def __init__(self) -> None:
        self.trip = Trip()
        self.deaf = False
        self.realtime = False
        self.off = threading.Event()
        self.bench = Bench(focus_m=_FOCUS_M, home=StagePosition(x_m=0.0, y_m=0.0, z_m=0.0))
        self.demo: Any = None

    def optics(self) -> Optics:
        """What focus, stigmators and blanker really are at."""
        system = self.demo.electron_system
        beam = system.beam
        return Optics(
            working_distance_m=beam.working_distance,
            stigmator_x=beam.stigmation.x,
            stigmator_y=beam.stigmation.y,
            beam_shift_x_m=beam.shift.x,
            beam_shift_y_m=beam.shift.y,
            blanked=system.blanked,
        )

    def switch_off(self) -> None:
        """End what is going on."""
        self.off.set()
        self.trip.disarm()


INSTRUMENTS: dict[str, Instrument] = {}


class _Demo(DemoMicroscope):  # type: ignore[misc,unused-ignore]
    """The demo, with pictures from the bench and no delays but those asked for."""

    def __init__(self, system: Any, its: Instrument) -> None:
        self._its = its
        super().__init__(system)
        # At its 150 um everything within 20 um of focus looks sharp.
        self.electron_system.beam.hfw = _FIELD_M

    def acquire_image(
        self, image_settings: ImageSettings | None = None, beam_type: BeamType | None = None
    ) -> Any:
        asked = image_settings
        assert asked is not None, "the driver always says how"  # noqa: S101
        width, height = asked.resolution
        if self._its.realtime and self._its.off.wait(asked.dwell_time * width * height):
            raise RuntimeError("switched off")
        scan = Scan(
            width_px=width,
            height_px=height,
            bit_depth=8,
            pixel_size_m=asked.hfw / width,
            dwell_s=asked.dwell_time,
        )
        place = self.stage_system.position
        stage = StagePosition(x_m=place.x, y_m=place.y, z_m=place.z)
        return FibsemImage(
            np.ascontiguousarray(self._its.bench.expose(self._its.optics(), scan, stage))
        )

    def _get(self, key: str, beam_type: BeamType | None = None) -> Any:
        if key == "stage_position":
            return self.stage_system.position
        return super()._get(key, beam_type)

    def _set(self, key: str, value: Any, beam_type: BeamType | None = None) -> None:
        if not self._its.deaf:
            super()._set(key, value, beam_type)

    def move_stage_absolute(self, position: Any) -> Any:
        for axis in "xyzrt":
            if getattr(position, axis) is not None:
                setattr(self.stage_system.position, axis, getattr(position, axis))
        return self.get_stage_position()


def Model(system: Any) -> Any:  # noqa: N802 - stands for a class
    """OpenFIBSEM's object for the instrument at ``system.info.ip_address``."""
    its = INSTRUMENTS.get(system.info.ip_address) or Instrument()
    if its.demo is None:
        its.demo = _Demo(system, its)
    return wired(
        its.demo,
        its.trip,
        fail=lambda name: RuntimeError(f"{name}: the server failed"),
        drop=lambda name: ConnectionResetError(f"{name}: connection lost"),
    )
