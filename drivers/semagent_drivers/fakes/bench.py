"""One specimen under a real beam for all fakes: pictures that blur as focus and stigmators say."""

from typing import Any

import msgspec

from semagent.clock import ManualClock
from semagent.types import (
    MoveStage,
    Optics,
    Pixels,
    Scan,
    SetBeamShift,
    SetBlanked,
    SetScan,
    SetStigmator,
    SetWorkingDistance,
    StagePosition,
)
from semagent_drivers.simulated import SimulatedMicroscope
from semagent_drivers.simulated import open_microscope as open_simulated

_NOWHERE = StagePosition()
_HOME = StagePosition(x_m=0.0, y_m=0.0, z_m=0.01)
_WIDE_DWELL_US = (0.001, 1e6)


class Bench:
    """The simulated SEM without its own settings: they come with each exposure, in SI units.

    Args:
        focus_m: working distance that focuses the specimen with the stage at ``home``.
        astigmatism_um: the column's own, which the stigmators have to cancel, at 20 um for their
            full range.
        home: where the stage is at first.
        seed: of specimen and noise.
        options: anything else of the simulated microscope, as in ``docs/simulated-sem.md``.
    """

    def __init__(
        self,
        *,
        focus_m: float = 5.0e-3,
        astigmatism_um: tuple[float, float] = (0.0, 0.0),
        home: StagePosition = _HOME,
        seed: int = 1,
        options: dict[str, Any] | None = None,
    ) -> None:
        self._focus_mm = focus_m * 1e3
        self._astigmatism_um = list(astigmatism_um)
        self._home = home
        self._seed = seed
        self._options = options or {}
        self._microscope: SimulatedMicroscope | None = None
        self._scan: Scan | None = None

    def expose(self, optics: Optics, scan: Scan, stage: StagePosition = _NOWHERE) -> Pixels:
        """A picture with these settings, shape (height, width) of the scanned region.

        ``scan.width_px`` and ``height_px`` are those of the whole field; ``pixel_size_m`` and
        ``dwell_s`` have to be given. Working distances from 1 to 100 mm can be imaged.
        """
        microscope = self._opened(scan)
        microscope.apply(SetWorkingDistance(working_distance_m=optics.working_distance_m))
        microscope.apply(SetStigmator(x=optics.stigmator_x or 0.0, y=optics.stigmator_y or 0.0))
        microscope.apply(
            SetBeamShift(x_m=optics.beam_shift_x_m or 0.0, y_m=optics.beam_shift_y_m or 0.0)
        )
        microscope.apply(SetBlanked(blanked=bool(optics.blanked)))
        microscope.apply(MoveStage(**msgspec.structs.asdict(stage)))
        microscope.apply(
            SetScan(dwell_s=scan.dwell_s, frame_averages=scan.frame_averages, region=scan.region)
        )
        return microscope.acquire(float("inf")).pixels.copy()

    def _opened(self, scan: Scan) -> SimulatedMicroscope:
        """The microscope for this field; another field size or pixel size needs another one."""
        same = ("width_px", "height_px", "pixel_size_m", "bit_depth")
        known = self._scan is not None and all(
            getattr(scan, name) == getattr(self._scan, name) for name in same
        )
        if self._microscope is None or not known:
            self._scan = scan
            self._microscope = open_simulated(self._described(scan), clock=ManualClock())
        return self._microscope

    def _described(self, scan: Scan) -> dict[str, Any]:
        home = {
            "x_mm": (self._home.x_m or 0.0) * 1e3,
            "y_mm": (self._home.y_m or 0.0) * 1e3,
            "z_mm": (self._home.z_m or 0.0) * 1e3,
        }
        pixel_size_nm = (scan.pixel_size_m or 10e-9) * 1e9
        described: dict[str, Any] = {
            "seed": self._seed,
            "speed": 0,
            "scan": {
                "width_px": scan.width_px,
                "height_px": scan.height_px,
                "bit_depth": scan.bit_depth,
                "pixel_size_nm": pixel_size_nm,
                "dwell_us": (scan.dwell_s or 1e-6) * 1e6,
                "dwell_range_us": _WIDE_DWELL_US,
            },
            "column": {
                "working_distance_mm": self._focus_mm,
                "working_distance_range_mm": (1.0, 100.0),
                "astigmatism_um": self._astigmatism_um,
                "beam_shift_range_um": 1000.0,
                "lens_hysteresis_um": 0.0,
            },
            "stage": {
                **home,
                "x_range_mm": (-500.0, 500.0),
                "y_range_mm": (-500.0, 500.0),
                "z_range_mm": (-500.0, 500.0),
                "backlash_um": 0.0,
            },
            # Features of some twenty pixels at any magnification: there is something to focus on.
            "specimen": {
                "working_distance_mm": self._focus_mm,
                "feature_size_nm": 20 * pixel_size_nm,
                "tile_px": 512,
            },
        }
        for section, more in self._options.items():
            mine = described.get(section)
            described[section] = {**mine, **more} if isinstance(mine, dict) else more
        return described
