"""The electron column: focus, stigmators, beam shift and blanker, and what they do to the beam."""

import numpy as np
import numpy.typing as npt

from semagent.dose import ELEMENTARY_CHARGE_C
from semagent.types import Optics
from semagent_drivers.adapter.limits import require_within
from semagent_drivers.simulated.beam import Beam
from semagent_drivers.simulated.motion import Play
from semagent_drivers.simulated.options import ColumnOptions

_POLAROID_M = 0.127
"""Width of the picture that magnification refers to, by convention."""


class Column:
    """The column's settings, changed by checked setters, and the beam they make."""

    def __init__(self, options: ColumnOptions, pixel_size_m: float, width_px: int) -> None:
        self._options = options
        self._pixel_size_m = pixel_size_m
        self._magnification = _POLAROID_M / (width_px * pixel_size_m)
        self._working_distance_m = self._first_m = options.working_distance_mm / 1e3
        self._focus = Play(self._working_distance_m, options.lens_hysteresis_um / 1e6)
        self._stigmator = (options.stigmator_x, options.stigmator_y)
        self._beam_shift_m = (options.beam_shift_x_um / 1e6, options.beam_shift_y_um / 1e6)
        self.blanked = options.blanked
        coupling = np.array(options.stigmator_coupling) * options.stigmator_um_per_unit * 1e-6
        self._astigmatism_per_unit_m = coupling
        self._own_astigmatism_m = np.array(options.astigmatism_um) * 1e-6

    @property
    def working_distance_range_m(self) -> tuple[float, float]:
        """Limits of the working distance."""
        low, high = self._options.working_distance_range_mm
        return low / 1e3, high / 1e3

    @property
    def optics(self) -> Optics:
        """The settings as they read back."""
        options = self._options
        return Optics(
            working_distance_m=self._working_distance_m,
            stigmator_x=self._stigmator[0],
            stigmator_y=self._stigmator[1],
            beam_shift_x_m=self._beam_shift_m[0],
            beam_shift_y_m=self._beam_shift_m[1],
            accelerating_voltage_v=options.accelerating_voltage_kv * 1e3,
            beam_current_a=options.beam_current_pa / 1e12,
            convergence_angle_rad=options.convergence_mrad / 1e3,
            magnification=self._magnification,
            blanked=self.blanked,
        )

    @property
    def focus_m(self) -> float:
        """Where the beam is really focused: the lens lags behind the set working distance."""
        return self._focus.value

    def check_working_distance(self, working_distance_m: float) -> None:
        """Refuse a working distance out of range."""
        limits = self.working_distance_range_m
        require_within("working distance", working_distance_m, limits, "m")

    def set_working_distance(self, working_distance_m: float) -> None:
        """Take the lens to a checked working distance."""
        self._working_distance_m = working_distance_m
        self._focus.follow(working_distance_m)

    def check_stigmator(self, x: float, y: float) -> None:
        """Refuse stigmator values beyond their full range."""
        require_within("stigmator x", x, (-1.0, 1.0), "of full range")
        require_within("stigmator y", y, (-1.0, 1.0), "of full range")

    def set_stigmator(self, x: float, y: float) -> None:
        """Set both stigmators to checked values."""
        self._stigmator = (x, y)

    def check_beam_shift(self, x_m: float, y_m: float) -> None:
        """Refuse a beam shift out of range."""
        reach = self._options.beam_shift_range_um / 1e6
        require_within("beam shift x", x_m, (-reach, reach), "m")
        require_within("beam shift y", y_m, (-reach, reach), "m")

    def set_beam_shift(self, x_m: float, y_m: float) -> None:
        """Set the beam shift to checked values."""
        self._beam_shift_m = (x_m, y_m)

    def beam(self) -> Beam:
        """The beam as it is set now."""
        options, pixel_m = self._options, self._pixel_size_m
        a1, a2 = self._own_astigmatism_m + self._astigmatism_per_unit_m @ self._stigmator
        return Beam(
            slope_px_per_m=options.convergence_mrad / 1e3 / (2 * pixel_m),
            sigma0_px=options.probe_sigma_nm / 1e9 / pixel_m,
            a1_m=float(a1),
            a2_m=float(a2),
            kernel=options.kernel,
        )

    def stigmator_solution(self) -> tuple[float, float]:
        """The stigmator setting that leaves no astigmatism; it may be out of range."""
        x, y = np.linalg.solve(self._astigmatism_per_unit_m, -self._own_astigmatism_m)
        return float(x), float(y)

    def image_shift_m(self) -> npt.NDArray[np.float64]:
        """How far beam shift, focus and stigmators shift the view along the scan axes, (x, y)."""
        options = self._options
        focus_um = (self.focus_m - self._first_m) * 1e6
        by_stigmator_nm = np.array(options.stigmator_shift_nm_per_unit) @ self._stigmator
        by_focus_nm = np.array(options.focus_shift_nm_per_um) * focus_um
        return np.asarray(self._beam_shift_m + 1e-9 * (by_stigmator_nm + by_focus_nm), np.float64)

    def collection(self) -> float:
        """Signal collected at this focus, relative to the first one."""
        change_mm = (self.focus_m - self._first_m) * 1e3
        return max(0.0, 1.0 + self._options.focus_contrast_per_mm * change_mm)

    def offset(self) -> float:
        """Change of the grey offset at this focus, as a fraction of full scale."""
        return self._options.focus_brightness_per_mm * (self.focus_m - self._first_m) * 1e3

    def primaries(self, dwell_s: float) -> float:
        """Mean number of electrons that land while the beam dwells on a pixel."""
        if self.blanked:
            return 0.0
        return self._options.beam_current_pa / 1e12 * dwell_s / ELEMENTARY_CHARGE_C
