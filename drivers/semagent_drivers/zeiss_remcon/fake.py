"""A fake SmartSEM behind RemCon's serial line, to rehearse with: the same lines, over TCP.

::

    python -m semagent_drivers.zeiss_remcon.fake --folder remcon-images

The driver reaches it as ``port: socket://127.0.0.1:4001``.
"""

import argparse
import io
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import tifffile

from semagent.types import Optics, Scan, StagePosition
from semagent_drivers.fakes import Bench, FakeServer, Stage, questions, until_ctrl_c

_SLICE_S = 0.005
_MACRO = "1"
UNKNOWN, WRONG_NUMBER, OUT_OF_RANGE, TIMED_OUT, CANNOT_EXECUTE = 600, 601, 603, 604, 616


class FakeRemCon(FakeServer):
    """A SmartSEM PC at the other end of a line. Every command may trip through ``trip``.

    Its habits:

    * Each command is accepted first and answered later, in pieces.
    * ``FOCS`` takes any number, whatever the column can do.
    * ``C95`` moves all axes, is answered at once, and the stage says that it does not move for a
      while before it does.
    * A macro that does not exist cannot be executed. The one that does saves its image late and
      in two parts, over the one before. One that has begun goes on to its end, and the next one
      begins then.
    * Without stigmators or, with ``rotation_deg`` at ``None``, a rotation, it does not know the
      question.
    * ``wordless``: it says no more than that it rejects an unknown command.
    * ``patient``: it answers the macro only when that has ended.
    * ``deaf``: it accepts focus, stigmators and blanking and does not take them.

    Args:
        folder: for its images.
        shape: (height, width) of an image.
        port: to listen on; 0 takes any free one.
    """

    def __init__(self, folder: Path, shape: tuple[int, int] = (768, 1024), port: int = 0) -> None:
        super().__init__(port)
        self.has_stigmator = True
        self.rotation_deg: float | None = 0.0
        self.wordless = False
        self.patient = False
        self.deaf = False
        self.wrong_image: Any = None
        self.capture_s = 0.0
        self.start_s = 0.0
        self.move_s = 0.0
        self.focus_mm = 5.0
        self.stigmator = [2.0, -1.5]
        self.blanked = False
        self.stage = Stage([65.1, 60.2, 10.1, 30.0, 90.0, 0.0])
        self.calls: list[str] = []
        self.noise = b""
        self._file = folder / "remcon.tif"
        self._shape = shape
        self._pixel_nm = 10.0 * shape[1] / 1024
        self._captures_s: list[float] = []
        self._rest = b""
        x_m, y_m, z_m = (value * 1e-3 for value in self.position[:3])
        self._bench = Bench(
            focus_m=5.02e-3,
            astigmatism_um=(0.3, -0.2),
            home=StagePosition(x_m=x_m, y_m=y_m, z_m=z_m),
        )
        folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Self:
        self._picture()  # the first one draws the specimen
        return super().__enter__()

    @property
    def position(self) -> list[float]:
        """Where the stage is."""
        return self.stage.position

    def optics(self) -> Optics:
        """What it is really set to, in SI units."""
        return Optics(
            working_distance_m=self.focus_mm / 1e3,
            stigmator_x=self.stigmator[0] / 100,
            stigmator_y=self.stigmator[1] / 100,
            blanked=self.blanked,
        )

    # -- the line -----------------------------------------------------------------------------

    def serve(self, connection: socket.socket) -> None:
        """See `FakeServer`."""
        for line, failing in questions(connection, self.trip, self.closing, self._work):
            self._answer(connection, line, failing=failing)

    def _answer(self, connection: socket.socket, line: str, *, failing: bool) -> None:
        self.calls.append(line)
        command, *given = line.split()
        outcome = TIMED_OUT if failing else self._outcome(command, given)
        if outcome == UNKNOWN:
            reason = b"" if self.wordless else b"* 600\r\n"
            self.send(connection, b"#\r\n" + reason)
            return
        self.send(connection, b"@\r")
        self.send(connection, b"\n")
        while self.patient and self._captures_s and not self.closing.is_set():
            time.sleep(_SLICE_S)
            self._work()
        text = f"*{outcome}" if isinstance(outcome, int) else f">{outcome}"
        self.send(connection, text.encode("ascii") + b"\r\n" + self.noise)

    def _work(self) -> None:
        """What happens by itself: a macro ends, the second half of its file is written."""
        if self._rest:
            with self._file.open("ab") as file:
                file.write(self._rest)
            self._rest = b""
        if self._captures_s and time.perf_counter() >= self._captures_s[0]:
            del self._captures_s[0]
            image = io.BytesIO()
            tifffile.imwrite(image, self._picture())
            data = image.getvalue()
            half = len(data) // 2
            self._file.write_bytes(data[:half])
            self._rest = data[half:]

    # -- commands -----------------------------------------------------------------------------

    def _outcome(self, command: str, given: list[str]) -> str | int:
        if command.endswith("?"):
            return self._told(command)
        counts = {"FOCS": 1, "STIM": 2, "BBLK": 1, "C95": 6, "MAC": 1, "ABO": 0}
        if command not in counts or (command == "STIM" and not self.has_stigmator):
            return UNKNOWN
        if len(given) != counts[command]:
            return WRONG_NUMBER
        return self._take(command, given)

    def _told(self, command: str) -> str | int:
        known = {
            "VER?": "SmartSEM Remote Control V01.23",
            "FOC?": f"{self.focus_mm:.5f}",
            "BBL?": str(int(self.blanked)),
            "MAG?": "20000",
            "PIX?": f"{self._pixel_nm:G}",
            "EHT?": "5.0",
            "DET?": "InLens",
            "C95?": " ".join(f"{value:.5f}" for value in self.position)
            + f" {float(self.stage.moving)}",
        }
        if self.has_stigmator:
            known["STI?"] = "{:.3f} {:.3f}".format(*self.stigmator)
        if self.rotation_deg is not None:
            known["SRO?"] = f"{self.rotation_deg:.1f}"
        return known.get(command, UNKNOWN)

    def _take(self, command: str, given: list[str]) -> str | int:
        match command:
            case "MAC":
                if given != [_MACRO]:
                    return CANNOT_EXECUTE
                begins_s = max([time.perf_counter(), *self._captures_s])
                self._captures_s.append(begins_s + self.capture_s)
                return ""
            case "ABO":
                self.stage.halt()
                return ""
        values = [float(each) for each in given]
        if command == "C95":
            self.stage.move(values, self.start_s, self.move_s)
        elif command == "STIM" and max(map(abs, values)) > 100:
            return OUT_OF_RANGE
        elif not self.deaf:
            if command == "FOCS":
                self.focus_mm = values[0]
            elif command == "STIM":
                self.stigmator = values
            else:
                self.blanked = bool(values[0])
        return ""

    def _picture(self) -> Any:
        if self.wrong_image is not None:
            return self.wrong_image
        height, width = self._shape
        scan = Scan(width_px=width, height_px=height, bit_depth=8, pixel_size_m=10e-9, dwell_s=1e-6)
        x_m, y_m, z_m = (value * 1e-3 for value in self.position[:3])
        return self._bench.expose(self.optics(), scan, StagePosition(x_m=x_m, y_m=y_m, z_m=z_m))


def main(arguments: Sequence[str] | None = None) -> None:
    """``python -m semagent_drivers.zeiss_remcon.fake``: serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description="A fake RemCon to rehearse with.")
    parser.add_argument("--port", type=int, default=4001, help="where to listen (%(default)s)")
    parser.add_argument("--folder", type=Path, default=Path("remcon-images"), help="%(default)s")
    given = parser.parse_args(arguments)
    with FakeRemCon(given.folder, port=given.port) as fake:
        print(
            f"fake RemCon on socket://127.0.0.1:{fake.port}; images in {given.folder}", flush=True
        )
        until_ctrl_c()


if __name__ == "__main__":
    main()
