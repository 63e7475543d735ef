"""The object model of AutoScript's client, over the fake instrument."""

from collections.abc import Callable
from typing import Any

from semagent_drivers.autoscript.fake import instrument as its
from semagent_drivers.autoscript.fake.common import ApplicationServerException
from semagent_drivers.autoscript.fake.enumerations import CoordinateSystem
from semagent_drivers.autoscript.fake.instrument import Instrument, require
from semagent_drivers.autoscript.fake.structures import (
    AdornedImage,
    GrabFrameSettings,
    Limits,
    Limits2d,
    Point,
    StagePosition,
)


class Node:
    """An object with members: what `semagent_drivers.fakes.wired` follows."""

    WIRED = True

    def __init__(self, **members: Any) -> None:
        self.__dict__.update(members)


class Value(Node):
    """A property of the microscope: ``.value`` and ``.limits``."""

    def __init__(
        self, read: Callable[[], Any], write: Callable[[Any], None] | None, limits: Any = None
    ) -> None:
        self._read, self._write, self.limits = read, write, limits

    @property
    def value(self) -> Any:
        """What it is."""
        return self._read()

    @value.setter
    def value(self, value: Any) -> None:
        if self._write is None:
            raise ApplicationServerException("The value is read-only.")
        self._write(value)


class WorkingDistance(Value):
    """Setting ``.value`` degausses."""

    def __init__(self, instrument: Instrument) -> None:
        super().__init__(
            lambda: instrument.distance_m,
            lambda distance_m: instrument.focus(distance_m, degauss=True),
            Limits(*its.DISTANCE_LIMITS_M),
        )


class GentleWorkingDistance(WorkingDistance):
    """As newer systems have it."""

    def __init__(self, instrument: Instrument) -> None:
        super().__init__(instrument)
        self.set_value_no_degauss = lambda distance_m: instrument.focus(distance_m, degauss=False)


class ElectronBeam(Node):
    """``beams.electron_beam``."""

    def __init__(self, instrument: Instrument) -> None:
        self._instrument = instrument
        gentle = instrument.has_no_degauss
        self.working_distance = (GentleWorkingDistance if gentle else WorkingDistance)(instrument)
        self.stigmator = _pair(instrument, "stigmator", its.STIGMATOR_LIMIT)
        self.beam_shift = _pair(instrument, "shift", its.SHIFT_LIMIT_M)
        self.horizontal_field_width = Value(lambda: instrument.field_width_m, None)
        self.high_voltage = Value(lambda: instrument.voltage_v, None)
        self.beam_current = Value(lambda: instrument.current_a, None)
        self.scanning = Node(
            resolution=Value(lambda: instrument.resolution, None),
            rotation=Value(lambda: instrument.rotation_rad, None),
            dwell_time=Value(lambda: instrument.dwell_s, None, Limits(*its.DWELL_LIMITS_S)),
        )

    @property
    def is_on(self) -> bool:
        """Whether there is a beam."""
        return self._instrument.on

    @property
    def is_blanked(self) -> bool:
        """Whether the beam is kept off the specimen."""
        return self._instrument.blanked

    def blank(self) -> None:
        """Keep it off."""
        self._instrument.blanked = True

    def unblank(self) -> None:
        """Let it on."""
        self._instrument.blanked = False


class Stage(Node):
    """``specimen.stage``."""

    is_installed = True

    def __init__(self, instrument: Instrument) -> None:
        self._instrument = instrument
        self._raw = False

    @property
    def current_position(self) -> StagePosition:
        """In the default coordinate system."""
        return StagePosition(**self._instrument.seen(raw=self._raw))

    def set_default_coordinate_system(self, system: str) -> None:
        """Of positions from now on."""
        self._raw = system == CoordinateSystem.RAW

    def get_axis_limits(self, axis: str) -> Limits:
        """Of an axis that has an end."""
        if axis not in its.STAGE_LIMITS:
            raise ApplicationServerException(f"The axis {axis} has no limits.")
        return Limits(*its.STAGE_LIMITS[axis])

    def absolute_move(self, position: StagePosition) -> None:
        """Move, and return when there."""
        target = {axis: value for axis, value in vars(position).items() if value is not None}
        self._instrument.move(target, raw=self._raw)


class Imaging(Node):
    """``imaging``: one active view for whoever uses the connection."""

    def __init__(self, instrument: Instrument) -> None:
        self._instrument = instrument

    def get_active_view(self) -> int:
        """The selected quad."""
        return self._instrument.active_view

    def set_active_view(self, view: int) -> None:
        """Select a quad."""
        if view not in self._instrument.views:
            raise ApplicationServerException(f"There is no view {view}.")
        self._instrument.active_view = view

    def get_active_device(self) -> int:
        """What the selected quad shows."""
        return self._instrument.views[self._instrument.active_view]

    def set_active_device(self, device: int) -> None:
        """Let the selected quad show something else."""
        self._instrument.views[self._instrument.active_view] = device

    def grab_frame(self, settings: GrabFrameSettings) -> AdornedImage:
        """Expose what the selected quad shows."""
        return self._instrument.grab(settings)


def client(instrument: Instrument) -> Node:
    """Everything a connected client offers."""
    electrons = ElectronBeam(instrument)
    return Node(
        beams=Node(electron_beam=electrons),
        specimen=Node(stage=Stage(instrument)),
        imaging=Imaging(instrument),
        detector=Node(
            type=Value(
                lambda: "ETD" if instrument.views[instrument.active_view] == 1 else "?", None
            )
        ),
        service=Node(system=Node(name="Fake Helios", version="30.0")),
    )


def _pair(instrument: Instrument, name: str, limit: float) -> Value:
    def write(point: Point) -> None:
        require(name, point.x, (-limit, limit))
        require(name, point.y, (-limit, limit))
        setattr(instrument, name, point)

    edge = Limits(-limit, limit)
    return Value(lambda: getattr(instrument, name), write, Limits2d(edge, edge))
