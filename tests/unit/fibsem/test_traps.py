"""What OpenFIBSEM does that a user would not expect."""

import pytest

from semagent import registry
from semagent.clock import ManualClock
from semagent.errors import ConfigError, DisconnectedError, MicroscopeError, NotReadyError
from semagent.types import MoveStage, SetBlanked, SetScan, SetStigmator, SetWorkingDistance

pytest.importorskip("fibsem", reason="OpenFIBSEM is not installed: pip install 'semagent[fibsem]'")

OPTIONS = {
    "host": "unit",
    "manufacturer": "Demo",
    "model": "semagent_drivers.fibsem.fake:Model",
    "working_distance_range_mm": (2.0, 20.0),
    "x_range_mm": (-10.0, 10.0),
    "y_range_mm": (-10.0, 10.0),
    "scan": {"width_px": 192, "height_px": 128},
}


@pytest.fixture
def instrument():
    from semagent_drivers.fibsem import fake  # noqa: PLC0415

    instrument = fake.Instrument()
    fake.INSTRUMENTS["unit"] = instrument
    yield instrument
    instrument.switch_off()
    del fake.INSTRUMENTS["unit"]


def opened(**options):
    return registry.open_microscope("fibsem", {**OPTIONS, **options}, clock=ManualClock())


@pytest.fixture
def microscope(instrument):
    microscope = opened()
    yield microscope
    microscope.close()


def test_what_it_says_is_the_electron_beams_and_the_stages(microscope, instrument):
    system, place = instrument.demo.electron_system, instrument.demo.stage_system.position
    system.beam.voltage, system.beam.beam_current = 3000.0, 25e-12
    place.x, place.y, place.z, place.r, place.t = 1e-3, -2e-3, 4e-3, 0.3, 0.05
    state = microscope.read_state()
    optics, there = state.optics, state.stage
    assert (optics.accelerating_voltage_v, optics.beam_current_a) == (3000.0, 25e-12)
    assert (there.x_m, there.y_m, there.z_m) == (1e-3, -2e-3, 4e-3)
    assert (there.rotation_rad, there.tilt_rad) == (0.3, 0.05)
    assert state.scan.pixel_size_m == pytest.approx(15.36e-6 / 192)


def test_connecting_leaves_the_operators_beam_shift_alone(microscope, instrument):
    instrument.demo.electron_system.beam.shift.x = 3e-6
    again = opened()
    try:
        assert again.read_state().optics.beam_shift_x_m == 3e-6
    finally:
        again.close()


def test_a_scan_that_is_turned_is_another(microscope, instrument):
    first = microscope.read_state().settings_rev
    instrument.demo.electron_system.beam.scan_rotation = 0.1
    assert microscope.read_state().settings_rev == first + 1


def test_without_a_beam_no_frame_is_taken(microscope, instrument):
    instrument.demo.electron_system.on = False
    with pytest.raises(NotReadyError, match="the beam is not on"):
        microscope.acquire(10.0)
    instrument.demo.electron_system.on = None  # not known
    microscope.acquire(10.0)


def test_a_setting_that_is_accepted_and_not_made_is_told(microscope, instrument):
    instrument.deaf = True
    with pytest.raises(MicroscopeError, match=r"accepted working distance 4\.01 mm but reads"):
        microscope.apply(SetWorkingDistance(working_distance_m=4.01e-3))
    with pytest.raises(MicroscopeError, match="accepted to blank the beam, but it is not"):
        microscope.apply(SetBlanked(blanked=True))


def test_stigmators_of_a_tescan_are_refused_at_once():
    with pytest.raises(ConfigError, match="cannot set the stigmators of a TESCAN"):
        opened(manufacturer="Tescan", stigmator_full_range=1.0)


def test_without_a_full_range_the_stigmators_are_neither_told_nor_set(microscope):
    assert microscope.read_state().optics.stigmator_x is None
    with pytest.raises(MicroscopeError, match="stigmators cannot be set"):
        microscope.apply(SetStigmator(x=0.1, y=0.1))


def test_a_move_along_x_leaves_tilt_and_rotation_where_they_are(microscope, instrument):
    place = instrument.demo.stage_system.position
    place.t, place.r, place.z = 0.3, 1.0, 4e-3
    microscope.apply(MoveStage(x_m=1e-3))
    assert (place.x, place.t, place.r, place.z) == (1e-3, 0.3, 1.0, 4e-3)


def test_a_move_is_in_the_coordinates_that_are_read(microscope, instrument, monkeypatch):
    asked, move = [], instrument.demo.move_stage_absolute
    monkeypatch.setattr(
        instrument.demo, "move_stage_absolute", lambda to: asked.append(to) or move(to)
    )
    microscope.apply(MoveStage(y_m=1e-3))
    (target,) = asked
    assert (target.x, target.y, target.coordinate_system) == (None, 1e-3, "RAW")


def test_a_frame_is_scanned_as_it_was_asked_for(microscope, instrument, monkeypatch):
    asked, acquire = [], instrument.demo.acquire_image
    monkeypatch.setattr(
        instrument.demo, "acquire_image", lambda scan: asked.append(scan) or acquire(scan)
    )
    microscope.apply(SetScan(dwell_s=2e-6))
    microscope.acquire(10.0)
    (scan,) = asked
    assert (scan.dwell_time, scan.hfw) == (2e-6, 15.36e-6)


def test_averages_are_made_here(microscope):
    microscope.apply(SetScan(frame_averages=3))
    frame = microscope.acquire(10.0)
    assert frame.pixels.shape == (128, 192)
    assert frame.header.scan.frame_averages == 3


def test_pixels_of_another_kind_are_an_error_that_says_what_to_set(instrument):
    microscope = opened(scan={"width_px": 192, "height_px": 128, "bit_depth": 16})
    try:
        with pytest.raises(MicroscopeError, match=r"gave uint8 .* of 16 bits; set scan"):
            microscope.acquire(5.0)
    finally:
        microscope.close()


def test_a_lost_link_is_a_lost_link(microscope, instrument):
    instrument.trip.arm("drop", 1)
    with pytest.raises(DisconnectedError, match="connection lost"):
        microscope.read_state()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"configuration": "/nowhere.yaml"}, "OpenFIBSEM cannot be set up: .*nowhere"),
        ({"model": "semagent_drivers.fibsem.fake:Nobody"}, "fake:Nobody cannot be loaded"),
        ({"model": None, "manufacturer": "ThermoFisher"}, "Autoscript .* not installed"),
        ({"manufacturer": "Zeiss"}, "manufacturer"),
    ],
)
def test_what_is_wrong_with_the_options_is_named(options, message):
    with pytest.raises(ConfigError, match=message):
        opened(**options)


def test_the_package_does_not_speak_on_standard_output(capfd, instrument):
    opened().close()
    assert capfd.readouterr().out == ""
