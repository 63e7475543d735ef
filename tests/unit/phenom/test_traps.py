"""The Phenom's traps, and those that other programs have fallen into."""

import numpy as np
import pytest

from semagent import registry
from semagent.clock import ManualClock
from semagent.errors import (
    CommandRefusedError,
    ConfigError,
    MicroscopeError,
    MicroscopeTimeoutError,
)
from semagent.types import (
    MoveStage,
    Region,
    SetBlanked,
    SetScan,
    SetStigmator,
    SetWorkingDistance,
)
from semagent_drivers.phenom import fake
from semagent_drivers.phenom.options import PhenomOptions

OPTIONS = {
    "sdk": "semagent_drivers.phenom.fake",
    "address": "unit",
    "x_range_mm": (-10.0, 10.0),
    "y_range_mm": (-10.0, 10.0),
    "scan": {"width_px": 192, "height_px": 128},
}
HALF = Region(left=0.25, top=0.25, width=0.5, height=0.5)


@pytest.fixture
def instrument():
    instrument = fake.Instrument()
    fake.INSTRUMENTS["unit"] = instrument
    yield instrument
    instrument.switch_off()
    del fake.INSTRUMENTS["unit"]


def opened(**options):
    return registry.open_microscope("phenom", {**OPTIONS, **options}, clock=ManualClock())


@pytest.fixture
def microscope(instrument):
    microscope = opened()
    yield microscope
    microscope.close()


def test_without_the_sdk_people_are_told_how_to_get_it():
    with pytest.raises(ConfigError, match=r"driver phenom needs .*PyPhenom.*licence"):
        opened(sdk="PyPhenom")


@pytest.mark.parametrize("mode", [fake.OperationalMode.Loadpos, fake.OperationalMode.LiveNavCam])
def test_it_starts_in_live_sem_mode_only_and_does_not_go_there(instrument, mode):
    instrument.mode = mode
    with pytest.raises(MicroscopeError, match=f"in mode {mode}, not live SEM"):
        opened()
    assert instrument.mode == mode


def test_a_scan_that_is_turned_is_another(microscope, instrument):
    first = microscope.read_state().settings_rev
    instrument.rotation_rad = 0.1
    assert microscope.read_state().settings_rev == first + 1


def test_an_operator_who_goes_to_the_camera_is_noticed(microscope, instrument):
    instrument.mode = fake.OperationalMode.LiveNavCam
    for attempt in (
        microscope.read_state,
        lambda: microscope.acquire(10.0),
        lambda: microscope.apply(SetWorkingDistance(working_distance_m=6.01e-3)),
        lambda: microscope.apply(SetScan(frame_averages=2)),
    ):
        with pytest.raises(MicroscopeError, match="not live SEM"):
            attempt()
    assert instrument.distance_m == 6.0e-3


def test_at_the_end_nothing_is_unloaded(microscope, instrument):
    microscope.close()
    assert instrument.unloaded == 0
    assert instrument.mode == fake.OperationalMode.LiveSem


def test_unblanking_unblanks(microscope, instrument):
    microscope.apply(SetBlanked(blanked=True))
    assert instrument.scan_mode == fake.ScanMode.Blank
    microscope.apply(SetBlanked(blanked=False))
    assert instrument.scan_mode == fake.ScanMode.Imaging


def test_without_a_blanking_that_reads_back_there_is_none(instrument, monkeypatch):
    monkeypatch.delattr(fake.ScanMode, "Blank")
    microscope = opened()
    assert not microscope.capabilities.blanker
    with pytest.raises(CommandRefusedError, match="cannot be blanked"):
        microscope.apply(SetBlanked(blanked=True))
    microscope.close()


@pytest.mark.parametrize(
    "action",
    [
        SetWorkingDistance(working_distance_m=6.01e-3),
        SetStigmator(x=0.1, y=0.1),
        SetBlanked(blanked=True),
    ],
)
def test_what_is_accepted_and_not_done_does_not_pass_as_done(microscope, instrument, action):
    instrument.deaf = True
    with pytest.raises(MicroscopeError, match="accepted"):
        microscope.apply(action)


def test_a_refusal_leaves_both_stigmators(microscope, instrument):
    with pytest.raises(CommandRefusedError, match="refused the stigmator: stigmate out of range"):
        microscope.apply(SetStigmator(x=0.1, y=0.9))
    assert (instrument.stigmator.x, instrument.stigmator.y) == (0.01, 0.02)


def test_stigmators_are_fractions_of_the_range_that_is_configured(instrument):
    microscope = opened(stigmator_full_range=0.5)
    microscope.apply(SetStigmator(x=0.5, y=-1.0))
    assert (instrument.stigmator.x, instrument.stigmator.y) == (0.25, -0.5)
    assert microscope.read_state().optics.stigmator_y == -1.0
    microscope.close()


def test_metres_stay_metres_and_one_axis_leaves_the_other(microscope, instrument):
    microscope.apply(MoveStage(x_m=3e-3))
    assert (instrument.position.x, instrument.position.y) == (3e-3, -2e-3)
    assert microscope.read_state().stage.x_m == 3e-3


def test_a_stage_without_a_range_does_not_move(instrument):
    microscope = opened(x_range_mm=None, y_range_mm=None)
    assert microscope.capabilities.stage_axes == ()
    assert microscope.read_state().stage.x_m == 1e-3
    microscope.close()


def test_the_voltage_is_positive(microscope):
    assert microscope.read_state().optics.accelerating_voltage_v == 10e3


def test_the_field_follows_the_focus_and_that_voids_nothing(microscope):
    before = microscope.read_state()
    microscope.apply(SetWorkingDistance(working_distance_m=6.05e-3))
    after = microscope.read_state()
    assert after.scan.pixel_size_m > before.scan.pixel_size_m
    assert after.settings_rev == before.settings_rev


def test_a_frame_is_scanned_as_it_was_asked_for(instrument, monkeypatch):
    scans, expose = [], instrument.expose
    monkeypatch.setattr(instrument, "expose", lambda scan: scans.append(scan) or expose(scan))
    microscope = opened(detector="Sed")
    microscope.apply(SetScan(dwell_s=2e-6, frame_averages=3, region=HALF))
    frame = microscope.acquire(10.0)
    microscope.close()
    (scan,) = scans
    assert (scan.dwellTime, scan.nFrames, scan.detector) == (2e-6, 3, "Sed")
    assert (scan.size.width, scan.size.height, scan.scale) == (96, 64, 0.5)
    assert frame.header.scan.pixel_size_m == pytest.approx(10.24e-6 / 192)


def test_frames_that_cannot_end_in_time_are_not_begun(microscope):
    microscope.apply(SetScan(dwell_s=0.2e-3, frame_averages=8))
    with pytest.raises(MicroscopeTimeoutError, match=r"takes at least 39\.3 s, and 10 s are left"):
        microscope.acquire(10.0)


@pytest.mark.parametrize(
    "action", [SetWorkingDistance(working_distance_m=6.01e-3), SetStigmator(x=0.1, y=0.1)]
)
def test_the_beam_has_time_to_settle(instrument, action):
    clock = ManualClock()
    given = {**OPTIONS, "focus_settle_s": 0.25}
    microscope = registry.open_microscope("phenom", given, clock=clock)
    before_ns = clock.monotonic_ns()
    microscope.apply(action)
    assert clock.monotonic_ns() - before_ns >= 0.25e9
    microscope.close()


def test_a_part_of_the_field_has_the_same_pixels(microscope):
    whole = microscope.acquire(10.0)
    microscope.apply(SetScan(region=HALF))
    part = microscope.acquire(10.0)
    assert part.pixels.shape == (64, 96)
    assert part.header.scan.pixel_size_m == whole.header.scan.pixel_size_m
    middle = whole.pixels[32:96, 48:144].astype(float)
    assert np.corrcoef(middle.ravel(), part.pixels.astype(float).ravel())[0, 1] > 0.5


def test_a_part_that_is_off_the_centre_is_refused(microscope):
    with pytest.raises(CommandRefusedError, match="around the centre"):
        microscope.apply(SetScan(region=Region(left=0.0, top=0.25, width=0.5, height=0.5)))
    assert microscope.read_state().scan.region is None


def test_sixteen_bits(instrument):
    microscope = opened(scan={"width_px": 192, "height_px": 128, "bit_depth": 16})
    assert microscope.acquire(10.0).pixels.dtype == np.uint16
    microscope.close()


def test_an_unknown_detector_is_named(instrument):
    with pytest.raises(ConfigError, match="'ETD' is no DetectorMode"):
        opened(detector="ETD")


def test_the_password_comes_from_a_file(tmp_path, instrument):
    path = tmp_path / "licence"
    path.write_text("unit\nuser\nwrong\n", encoding="utf-8")
    with pytest.raises(MicroscopeError, match="Invalid credentials") as raised:
        opened(credentials=str(path))
    assert "user" not in str(raised.value)
    path.write_text("unit\nuser\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="has 2 lines, not 3"):
        opened(credentials=str(path))
    with pytest.raises(ConfigError, match=r"credentials: .*none"):
        opened(credentials=str(tmp_path / "none"))
    assert PhenomOptions().login() == ()
