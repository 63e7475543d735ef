"""RemCon's traps, over a byte stream."""

import itertools
import math
import os
import socket
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from serial import serial_for_url

from semagent import registry
from semagent.clock import SystemClock
from semagent.errors import (
    AcquisitionStoppedError,
    CommandRefusedError,
    ConfigError,
    DisconnectedError,
    MicroscopeError,
    MicroscopeTimeoutError,
)
from semagent.types import MoveStage, SetBeamShift, SetBlanked, SetStigmator, SetWorkingDistance
from semagent_drivers.zeiss_remcon.fake import FakeRemCon
from semagent_drivers.zeiss_remcon.wire import Line, RemConError, RemConRefusalError

RANGES = {
    "x_range_mm": (0.0, 130.0),
    "tilt_range_deg": (0.0, 60.0),
    "rotation_range_deg": (-360.0, 360.0),
}


@pytest.fixture
def fake(tmp_path, monkeypatch):
    # pyserial gives a server time after closing, which this one does not need.
    monkeypatch.setattr("serial.urlhandler.protocol_socket.time", SimpleNamespace(sleep=id))
    with FakeRemCon(tmp_path, (96, 128)) as fake:
        yield fake


def opened(fake, folder, **options):
    given = {
        "port": f"socket://127.0.0.1:{fake.port}",
        "folder": str(folder),
        "width_px": 128,
        "height_px": 96,
        "focus_settle_s": 0,
        "stage_settle_s": 0,
        **RANGES,
        **options,
    }
    return registry.open_microscope("zeiss-remcon", given, clock=SystemClock())


@pytest.fixture
def microscope(fake, tmp_path):
    microscope = opened(fake, tmp_path)
    yield microscope
    microscope.close()


# -- the line -----------------------------------------------------------------------------------


def test_everything_it_says_is_in_si_units(microscope):
    state = microscope.read_state()
    optics, there = state.optics, state.stage
    assert (optics.accelerating_voltage_v, optics.magnification) == (5000.0, 20_000.0)
    assert (there.x_m, there.y_m, there.z_m) == pytest.approx((0.0651, 0.0602, 0.0101))
    assert there.tilt_rad == pytest.approx(math.pi / 6)
    assert there.rotation_rad == pytest.approx(math.pi / 2)


@pytest.mark.parametrize(
    "action", [SetWorkingDistance(working_distance_m=5.01e-3), SetStigmator(x=0.1, y=0.1)]
)
def test_the_beam_has_time_to_settle(fake, tmp_path, action):
    microscope = opened(fake, tmp_path, focus_settle_s=0.1)
    started_s = time.perf_counter()
    microscope.apply(action)
    assert time.perf_counter() - started_s >= 0.1
    microscope.close()


class Port:
    """A port of pyserial whose other end says what it was told to, whatever comes."""

    def __init__(self, *answers):
        self._answers = list(answers)
        self.waiting = b""
        self.written = b""
        self.closed = False

    @property
    def in_waiting(self):
        return len(self.waiting)

    def read(self, size):
        data, self.waiting = self.waiting[:size], self.waiting[size:]
        return data

    def write(self, data):
        self.written += data
        self.waiting += self._answers.pop(0)

    def close(self):
        self.closed = True


def test_a_command_is_a_line_accepted_and_then_answered():
    port = Port(b"@\r\n>4.5012\r\n")
    assert Line(port, "COM3", 0.1).numbers("FOC?", 1) == [4.5012]
    assert port.written == b"FOC?\r\n"


@pytest.mark.parametrize("answer", [b"#\r\n", b"#\r\n* 600\r\n"])
def test_a_rejection_with_and_without_a_reason(answer):
    line = Line(Port(answer, b"@\r\n>1\r\n"), "COM3", 0.1)
    with pytest.raises(RemConRefusalError, match=r"STI\? was rejected"):
        line.ask("STI?")
    assert line.ask("BBL?") == "1"


@pytest.mark.parametrize(
    ("code", "kind", "says"),
    [
        ("603", RemConRefusalError, "error 603, parameter out of range"),
        (" 614", RemConRefusalError, "error 614, that option is not fitted"),
        ("604", RemConError, "error 604, the command timed out"),
        ("605", RemConError, "error 605, catastrophic"),
        ("777", RemConError, "error 777"),
        ("", RemConError, "error "),
    ],
)
def test_a_failure_says_which(code, kind, says):
    line = Line(Port(b"@\r\n*" + code.encode() + b"\r\n"), "COM3", 0.1)
    with pytest.raises(kind, match=says):
        line.ask("FOCS 200")


@pytest.mark.parametrize("answer", ["", "4.5", "4.5 6 7", "4.5 mm", "nan 1", "inf 1"])
def test_what_are_no_numbers_are_not_taken_for_some(answer):
    line = Line(Port(f"@\r\n>{answer}\r\n".encode()), "COM3", 0.1)
    with pytest.raises(RemConError, match="not 2 numbers"):
        line.numbers("STI?", 2)


def test_what_came_unasked_is_no_answer():
    port = Port(b"@\r\n>1\r\n>2\r\n", b"@\r\n>3\r\n")
    line = Line(port, "COM3", 0.1)
    assert line.ask("A?") == "1"
    port.waiting += b">4\r\n"
    assert line.ask("B?") == "3"


def test_after_a_time_out_the_line_is_closed_for_good():
    port = Port(b"@\r\n", b"@\r\n>1\r\n")
    line = Line(port, "COM3", 0.05)
    with pytest.raises(MicroscopeTimeoutError, match="RemCon on COM3 did not answer in time"):
        line.ask("FOC?")
    assert port.closed
    with pytest.raises(DisconnectedError, match="open the microscope again"):
        line.ask("FOC?")
    assert port.written == b"FOC?\r\n"


@pytest.mark.parametrize("answer", [b"FOC?\r\n", b"@\r\nFOC?\r\n", b"\xff\xfe\r\n"])
def test_a_line_that_echoes_or_garbles_is_no_remcon(answer):
    port = Port(answer)
    with pytest.raises(DisconnectedError, match=r"FOC\? was answered with"):
        Line(port, "COM3", 0.1).ask("FOC?")
    assert port.closed


def test_an_answer_that_was_not_awaited_is_not_that_of_the_next_command():
    port = Port(b"@\r\n", b"@\r\n>5.0\r\n")
    line = Line(port, "COM3", 0.1)
    stopped = threading.Event()
    stopped.set()
    with pytest.raises(AcquisitionStoppedError):
        line.ask("MAC 1", timeout_s=10.0, stopped=stopped)
    port.waiting += b">\r\n"
    assert line.ask("FOC?") == "5.0"


def test_a_port_that_is_not_there(tmp_path):
    options = {"port": "/dev/no-such-port", "folder": str(tmp_path)}
    with pytest.raises(DisconnectedError, match="/dev/no-such-port cannot be opened"):
        registry.open_microscope("zeiss-remcon", options, clock=SystemClock())


def test_a_port_that_another_program_has_open():
    tty = pytest.importorskip("tty", reason="Windows has no pseudo terminals")
    ours, theirs = os.openpty()
    tty.setraw(theirs)
    line = Line.opened(serial_for_url, os.ttyname(theirs), 9600, 1.0)
    with pytest.raises(DisconnectedError, match="cannot be opened"):
        Line.opened(serial_for_url, os.ttyname(theirs), 9600, 1.0)
    line.close()
    os.close(theirs)
    os.close(ours)


def test_a_loop_that_answers_itself_is_no_microscope(tmp_path):
    options = {"port": "loop://", "folder": str(tmp_path), "call_timeout_s": 0.2}
    with pytest.raises(DisconnectedError, match=r"VER\? was answered with 'VER\?'"):
        registry.open_microscope("zeiss-remcon", options, clock=SystemClock())


def test_over_a_serial_port_of_the_system(fake, tmp_path):
    termios = pytest.importorskip("termios", reason="Windows has no pseudo terminals")
    tty = pytest.importorskip("tty", reason="Windows has no pseudo terminals")
    ours, theirs = os.openpty()
    tty.setraw(theirs)
    name = os.ttyname(theirs)
    link = socket.create_connection(("127.0.0.1", fake.port))

    def pump(read, write):
        try:
            while data := read(4096):
                write(data)
        except OSError:
            return

    pumps = [
        threading.Thread(target=pump, args=(lambda size: os.read(ours, size), link.sendall)),
        threading.Thread(target=pump, args=(link.recv, lambda data: os.write(ours, data))),
    ]
    for each in pumps:
        each.start()
    try:
        microscope = opened(fake, tmp_path, port=name)
        rate = termios.tcgetattr(theirs)[4]
        microscope.apply(SetWorkingDistance(working_distance_m=5.01e-3))
        assert microscope.acquire(10.0).pixels.shape == (96, 128)
        microscope.close()
    finally:
        os.close(theirs)  # ends the reading of the other side
        link.shutdown(socket.SHUT_RDWR)
        for each in pumps:
            each.join(5.0)
        link.close()
        os.close(ours)
    assert rate == termios.B9600
    assert fake.focus_mm == 5.01


def test_an_adapter_that_is_pulled_out_is_a_lost_link():
    tty = pytest.importorskip("tty", reason="Windows has no pseudo terminals")
    ours, theirs = os.openpty()
    tty.setraw(theirs)
    line = Line.opened(serial_for_url, os.ttyname(theirs), 9600, 0.5)
    os.close(theirs)
    os.close(ours)
    with pytest.raises(OSError):  # noqa: PT011 - as every lost link of the system's
        line.ask("FOC?")
    line.close()


def test_the_folder_has_to_be_there(fake, tmp_path):
    with pytest.raises(ConfigError, match="there is no folder"):
        opened(fake, tmp_path / "none")


def test_noise_behind_an_answer_does_no_harm(microscope, fake):
    fake.noise = b">9.0\r\n"
    assert microscope.read_state().optics.working_distance_m == 5e-3
    microscope.apply(SetWorkingDistance(working_distance_m=5.01e-3))
    assert fake.focus_mm == 5.01


# -- focus, stigmators, blanker -------------------------------------------------------------------


def test_working_distances_are_millimetres_to_the_nanometre(microscope, fake):
    microscope.apply(SetWorkingDistance(working_distance_m=5.012345e-3))
    assert "FOCS 5.012345" in fake.calls
    assert microscope.read_state().optics.working_distance_m == pytest.approx(5.012345e-3, abs=1e-8)


def test_remcon_takes_any_focus_but_the_driver_does_not(microscope, fake):
    with pytest.raises(CommandRefusedError, match=r"500 mm is outside 1 mm to 50 mm"):
        microscope.apply(SetWorkingDistance(working_distance_m=0.5))
    assert fake.focus_mm == 5.0


@pytest.mark.parametrize(
    "action",
    [
        SetWorkingDistance(working_distance_m=5.01e-3),
        SetStigmator(x=0.1, y=0.1),
        SetBlanked(blanked=True),
    ],
)
def test_what_is_accepted_and_not_done_does_not_pass_as_done(microscope, fake, action):
    fake.deaf = True
    with pytest.raises(MicroscopeError, match="accepted"):
        microscope.apply(action)


def test_stigmators_are_percent(microscope, fake):
    assert microscope.read_state().optics.stigmator_y == -0.015
    microscope.apply(SetStigmator(x=0.05, y=-1.0))
    assert fake.stigmator == [5.0, -100.0]


def test_what_cannot_be_read_back_is_not_offered(microscope):
    assert not microscope.capabilities.beam_shift
    with pytest.raises(CommandRefusedError, match="beam shift cannot be set"):
        microscope.apply(SetBeamShift(x_m=0.0, y_m=0.0))


@pytest.mark.parametrize("wordless", [False, True])
def test_an_older_remcon_has_no_stigmators(fake, tmp_path, wordless):
    fake.has_stigmator, fake.wordless = False, wordless
    microscope = opened(fake, tmp_path)
    assert not microscope.capabilities.stigmator
    assert microscope.read_state().optics.stigmator_x is None
    with pytest.raises(CommandRefusedError, match="stigmators cannot be set"):
        microscope.apply(SetStigmator(x=0.0, y=0.0))
    microscope.close()


def test_a_focus_that_was_set_and_cannot_be_read_back_is_not_refused(microscope, fake, monkeypatch):
    told = fake._told
    monkeypatch.setattr(fake, "_told", lambda each: 616 if each == "FOC?" else told(each))
    with pytest.raises(MicroscopeError, match=r"FOC\?: error 616") as raised:
        microscope.apply(SetWorkingDistance(working_distance_m=5.01e-3))
    assert fake.focus_mm == 5.01
    assert not isinstance(raised.value, CommandRefusedError)


# -- frames -------------------------------------------------------------------------------------


def test_a_pixel_of_remcon_is_one_of_a_screen_of_1024(microscope):
    assert microscope.read_state().scan.pixel_size_m == pytest.approx(10e-9)


def test_a_scan_that_is_turned_is_another(microscope, fake):
    first = microscope.read_state().settings_rev
    fake.rotation_deg = 30.0
    assert microscope.read_state().settings_rev == first + 1


@pytest.mark.parametrize("wordless", [False, True])
def test_a_remcon_that_does_not_tell_the_rotation_works_without(fake, tmp_path, wordless):
    fake.rotation_deg, fake.wordless = None, wordless
    microscope = opened(fake, tmp_path)
    assert microscope.acquire(10.0).header.faults == ()
    microscope.close()


def test_an_image_counts_once_it_is_whole_and_new(microscope, tmp_path):
    (tmp_path / "older.tif").write_bytes(b"II*\0 of another day")
    first = microscope.acquire(10.0)
    second = microscope.acquire(10.0)
    assert first.pixels.shape == (96, 128)
    assert not np.array_equal(first.pixels, second.pixels)
    assert first.header.detector == "InLens"


@pytest.mark.parametrize(
    ("patient", "stopped"),
    [(False, False), (False, True), (True, True)],  # a patient one that is late loses the line
)
def test_an_image_that_nobody_waited_for_is_not_taken_for_the_next(
    fake, tmp_path, monkeypatch, patient, stopped
):
    scene = np.arange(96 * 128, dtype=np.uint16).reshape(96, 128)
    numbers = itertools.count()
    monkeypatch.setattr(fake, "_picture", lambda: (scene + next(numbers)).astype(np.uint8))
    microscope = opened(fake, tmp_path)
    fake.patient, fake.capture_s = patient, 0.3
    timer = threading.Timer(0.05, microscope.stop if stopped else int)
    timer.start()
    with pytest.raises(AcquisitionStoppedError if stopped else MicroscopeTimeoutError):
        microscope.acquire(10.0 if stopped else 0.1)
    timer.join()
    assert [microscope.acquire(10.0).pixels[0, 0] for _ in range(2)] == [1, 2]
    microscope.close()


def test_an_image_that_never_comes_is_not_waited_for_for_ever(fake, tmp_path):
    microscope = opened(fake, tmp_path, macro_timeout_s=0.3)
    fake.capture_s = 3600.0
    with pytest.raises(MicroscopeTimeoutError, match="no whole image"):
        microscope.acquire(0.1)
    fake.capture_s = 0.0
    fake._captures_s.clear()  # the macro has failed
    assert microscope.acquire(10.0).pixels.std() > 5
    microscope.close()


def test_no_image_is_a_time_out_that_names_the_folder(fake, tmp_path):
    microscope = opened(fake, tmp_path)
    fake.capture_s = 3600.0
    with pytest.raises(MicroscopeTimeoutError, match=r"no whole image in .* within"):
        microscope.acquire(0.3)
    microscope.read_state()
    microscope.close()


def test_a_macro_that_is_not_there_says_so(fake, tmp_path):
    microscope = opened(fake, tmp_path, macro=7)
    with pytest.raises(MicroscopeError, match="MAC 7: error 616, that command cannot be executed"):
        microscope.acquire(10.0)
    microscope.close()


def test_an_image_of_another_size_is_refused(microscope, fake):
    fake.wrong_image = np.zeros((64, 96), np.uint8)
    with pytest.raises(MicroscopeError, match=r"96 x 64 pixels of uint8, not 128 x 96"):
        microscope.acquire(10.0)


# -- the stage ----------------------------------------------------------------------------------


def test_a_move_of_one_axis_leaves_the_tilt(microscope, fake):
    microscope.apply(MoveStage(x_m=66e-3))
    assert fake.position == [66.0, 60.2, 10.1, 30.0, 90.0, 0.0]


def test_an_axis_without_a_range_does_not_move(microscope):
    with pytest.raises(CommandRefusedError, match="stage axis z_m cannot be moved"):
        microscope.apply(MoveStage(z_m=11e-3))
    assert microscope.read_state().stage.z_m == pytest.approx(10.1e-3)


def test_a_stage_that_has_not_begun_yet_has_not_arrived(fake, tmp_path):
    microscope = opened(fake, tmp_path, stage_settle_s=0.2)
    fake.start_s, fake.move_s = 0.1, 0.3
    before = len(fake.calls)
    microscope.apply(MoveStage(x_m=66e-3))
    assert fake.calls[before:].count("C95?") > 3
    microscope.close()


def test_a_stage_that_begins_too_late_is_stopped(fake, tmp_path):
    microscope = opened(fake, tmp_path, stage_settle_s=0.1)
    fake.start_s, fake.move_s = 0.5, 0.5
    with pytest.raises(MicroscopeError, match="accepted stage x"):
        microscope.apply(MoveStage(x_m=66e-3))
    time.sleep(0.6)
    assert fake.position[0] == 65.1
    microscope.close()


def test_a_stage_that_does_not_end_is_stopped(fake, tmp_path):
    microscope = opened(fake, tmp_path, move_timeout_s=0.2)
    fake.move_s = 3600.0
    with pytest.raises(MicroscopeTimeoutError, match=r"no end of the move within 0\.2 s"):
        microscope.apply(MoveStage(x_m=66e-3))
    assert fake.calls[-1] == "ABO"
    microscope.close()


@pytest.mark.parametrize("failure", [600, 604])
def test_a_stage_that_nobody_can_watch_any_more_is_stopped(microscope, fake, monkeypatch, failure):
    told = fake._told

    def lost_sight(command):
        moves = command == "C95?" and any(call.startswith("C95 ") for call in fake.calls)
        return failure if moves else told(command)

    monkeypatch.setattr(fake, "_told", lost_sight)
    with pytest.raises(MicroscopeError) as raised:
        microscope.apply(MoveStage(x_m=66e-3))
    assert not isinstance(raised.value, CommandRefusedError)  # it has moved
    assert fake.calls[-1] == "ABO"


@pytest.mark.parametrize("name", ["working_distance_range_mm", "x_range_mm", "tilt_range_deg"])
@pytest.mark.parametrize("ends", [(50.0, 1.0), (1.0, math.inf)])
def test_ranges_have_two_ends(tmp_path, name, ends):
    options = {"port": "loop://", "folder": str(tmp_path), name: ends}
    with pytest.raises(ConfigError, match=rf"{name}: .* is not a finite range|<= .*{name}"):
        registry.open_microscope("zeiss-remcon", options, clock=SystemClock())
