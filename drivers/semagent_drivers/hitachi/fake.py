"""A fake Hitachi SEM PC, to rehearse with: it calls the port and saves its images to a folder.

::

    python -m semagent_drivers.hitachi.fake --folder hitachi-images
"""

import argparse
import contextlib
import socket
import struct
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from semagent.types import Optics, Scan, StagePosition
from semagent_drivers.fakes import Bench, Stage, Trip, questions, until_ctrl_c

FIELD_MM = 127.0
STAGE_LIMITS = (0, 110_000_000, 0, 110_000_000, 1_500_000, 40_000_000, -5_000, 70_000)
"""Ends of x, y, z (nm) and tilt (mdeg)."""

_RETRY_S = 0.02
_WD_UM = (1500, 40000)


class FakeSem:
    """A SEM PC that calls ``port`` again and again. Every question may trip through ``trip``.

    Its habits:

    * Only whole numbers and single spaces; anything else is a PARAMERROR.
    * Focus, stigmators and stage are refused (NG) while the image is frozen, in the
      low-magnification mode and in spot mode.
    * OK means that it has begun: it is PROCESSING for a while afterwards. The stage begins late,
      and is IDLE until then.
    * A capture overwrites the image before, appears late and in two parts, and leaves the image
      frozen. One that is frozen on its way saves nothing.
    * ``deaf``: it says OK to focus and does not take it.

    Args:
        port: that it calls on this machine.
        folder: for its images.
        shape: (height, width) of a capture.
    """

    def __init__(self, port: int, folder: Path, shape: tuple[int, int] = (960, 1280)) -> None:
        self.port = port
        self.trip = Trip()
        self.closing = threading.Event()
        self.capture_s = 0.0
        self.late_s = 0.0
        self.settle_s = 0.0
        self.start_s = 0.0
        self.move_s = 0.0
        self.deaf = False
        self.frozen = False
        self.low_mag = False
        self.scan_mode = 0
        self.wd_um = 5000
        self.stigmator = [32768 + 655, 32768 - 983]
        self.stage = Stage([55_000_000, 50_000_000, 10_000_000, 2_000, 90_000])
        self.magnification = 20_000
        self.voltages = 5000, 0
        self.rotation: tuple[int, int] | None = (0, 300)
        self.focus_um = 5020
        self.calls: list[str] = []
        self._file = folder / "C_Image_1.bmp"
        self._shape = shape
        self._busy_until_s = 0.0
        self._capturing = False
        self._written: list[tuple[float, bytes]] = []
        self._bench = Bench(
            focus_m=self.focus_um * 1e-6,
            astigmatism_um=(0.3, -0.3),
            home=StagePosition(x_m=0.055, y_m=0.05, z_m=0.01),
        )
        self._thread = threading.Thread(target=self._call, name="fake SEM PC")
        folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Self:
        self._picture()  # the first one draws the specimen
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self.trip.disarm()
        self._thread.join()

    @property
    def position(self) -> list[int]:
        """Where the stage is, in nm and mdeg."""
        return [round(each) for each in self.stage.position]

    def optics(self) -> Optics:
        """What it is really set to, in SI units."""
        x, y = ((value - 32768) / 32768 for value in self.stigmator)
        return Optics(working_distance_m=self.wd_um / 1e6, stigmator_x=x, stigmator_y=y)

    # -- the link -----------------------------------------------------------------------------

    def _call(self) -> None:
        while not self.closing.is_set():
            try:
                connection = socket.create_connection(("127.0.0.1", self.port), timeout=1.0)
            except OSError:
                self.closing.wait(_RETRY_S)
                continue
            with connection, contextlib.suppress(OSError, EOFError):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._serve(connection)

    def _serve(self, connection: socket.socket) -> None:
        for line, failing in questions(connection, self.trip, self.closing, self._work):
            answer = self._answer(line, failing=failing)
            connection.sendall(answer.encode("ascii") + b"\r\n")

    def _work(self) -> None:
        """What happens by itself: a capture ends, the second half of its file is written."""
        if self._written and time.perf_counter() >= self._written[0][0]:
            _, data = self._written.pop(0)
            with self._file.open("wb" if data.startswith(b"BM") else "ab") as file:
                file.write(data)
        if self._capturing and time.perf_counter() >= self._busy_until_s:
            self._capturing = False
            self.frozen = True
            data = bitmap(self._picture())
            half, lands_s = len(data) // 2, time.perf_counter() + self.late_s
            self._written += [(lands_s, data[:half]), (lands_s, data[half:])]

    # -- questions ----------------------------------------------------------------------------

    def _answer(self, line: str, *, failing: bool) -> str:
        head, kind, main, sub, *data = line.split(" ")[2:]
        asked = f"{kind} {main} {sub}"
        self.calls.append(" ".join([asked, *data]))
        assert head == "0000"  # noqa: S101 - a fake may be blunt
        if kind == "Get":
            late = time.perf_counter() < self._busy_until_s
            busy = self._capturing or late or self.stage.moving
            status = "NG" if failing else "PROCESSING" if busy else "IDLE"
            return f"0303 0300 0000 {asked} {self._told(main, sub)} {status}"
        given = data[0] if len(data) == 1 else ""
        status = "NG" if failing else self._take(main, sub, given)
        return f"0303 0300 0000 {asked} {given} {status}"

    def _told(self, main: str, sub: str) -> str:
        match main, sub:
            case "InstructName", "ALL":
                return "FAKE-SU8230"
            case "WD", "NOW":
                return str(self.wd_um)
            case "STIGMAXY", "NOW":
                return ",".join(map(str, self.stigmator))
            case "MAGNIFICATION", "NOW":
                return f"{int(self.low_mag)},{self.magnification}"
            case "HVCONTROL", "VACC":
                return "{},{}".format(*self.voltages)
            case "RROTATION", "NOW" if self.rotation is not None:
                return "{},{}".format(*self.rotation)
            case "SCAN", "NOW":
                return "FREEZE" if self.frozen else "RUN"
            case "SCAN", "SCANMODE":
                return str(self.scan_mode)
            case "STAGEUNIT", "MOVEXYZTR2":
                return ",".join(map(str, self.position))
            case "STAGESETTING", "LIMIT2":
                return ",".join(map(str, (*STAGE_LIMITS, 1)))
            case "DETECTOR", "SIGNAL":
                return "SE,*,*,*"
        return "?"

    def _take(self, main: str, sub: str, given: str) -> str:
        if (main, sub) == ("SCAN", "EXECUTE"):
            self._capturing = False
            self._busy_until_s = 0.0
            self.frozen = given != "0"
            return "OK"
        if self._capturing or (self.frozen and main != "STAGE") or self.scan_mode:
            return "NG"
        try:
            return self._take_numbers(main, sub, given)
        except ValueError:
            return "PARAMERROR"

    def _take_numbers(self, main: str, sub: str, given: str) -> str:
        self._busy_until_s = time.perf_counter() + self.settle_s
        match main, sub:
            case "WD", "HM":
                value = int(given)
                if self.low_mag:
                    return "NG"
                if not _WD_UM[0] <= value <= _WD_UM[1]:
                    return "PARAMERROR"
                if not self.deaf:
                    self.wd_um = value
            case "STIGMAXY", "EXECUTE":
                x, y = (int(part) for part in given.split(","))
                if not (0 <= x <= 65535 and 0 <= y <= 65535):
                    return "PARAMERROR"
                self.stigmator = [x, y]
            case "STAGEUNIT", "MOVEXYZTR":
                x, y, z, tilt, rotation = (int(part) for part in given.split(","))
                self.stage.move([x, y, z, tilt, rotation], self.start_s, self.move_s)
            case "CAPTURESAVE", "EXECUTE":
                self._busy_until_s = time.perf_counter() + self.capture_s
                self._capturing = True
            case "STAGE", "STOP":
                self._busy_until_s = 0.0
                self.stage.halt()
            case _:
                return "PARAMERROR"
        return "OK"

    def _picture(self) -> Any:
        height, width = self._shape
        scan = Scan(
            width_px=width,
            height_px=height,
            bit_depth=8,
            pixel_size_m=FIELD_MM / 1e3 / self.magnification / width,
            dwell_s=1e-6,
        )
        x, y, z = (value * 1e-9 for value in self.position[:3])
        return self._bench.expose(self.optics(), scan, StagePosition(x_m=x, y_m=y, z_m=z))


def bitmap(pixels: Any) -> bytes:
    """A bitmap of 8 bits: rows from the bottom, each padded to four bytes."""
    height, width = pixels.shape
    rows = np.zeros((height, (width + 3) // 4 * 4), np.uint8)
    rows[:, :width] = pixels[::-1]
    palette = bytes(value for grey in range(256) for value in (grey, grey, grey, 0))
    offset = 54 + len(palette)
    file = struct.pack("<2sIHHI", b"BM", offset + rows.size, 0, 0, offset)
    image = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 0, rows.size, 0, 0, 256, 0)
    return file + image + palette + rows.tobytes()


def main(arguments: Sequence[str] | None = None) -> None:
    """``python -m semagent_drivers.hitachi.fake``: call until Ctrl-C."""
    parser = argparse.ArgumentParser(description="A fake Hitachi SEM PC to rehearse with.")
    parser.add_argument("--port", type=int, default=3000, help="that it calls (%(default)s)")
    parser.add_argument("--folder", type=Path, default=Path("hitachi-images"), help="%(default)s")
    given = parser.parse_args(arguments)
    with FakeSem(given.port, given.folder):
        print(f"fake SEM PC calls 127.0.0.1:{given.port}; images in {given.folder}", flush=True)
        until_ctrl_c()


if __name__ == "__main__":
    main()
