"""What the simulation knows and no microscope tells: for benchmarks and tests only."""

from dataclasses import dataclass

from semagent_drivers.simulated.beam import Covariance


@dataclass(frozen=True, slots=True)
class SimulationTruth:
    """The truth about the next frame, were it exposed now.

    Attributes:
        focal_working_distance_m: true focus that makes the scanned region sharp: at the field
            centre of a plane specimen, the mean over the region of a rough one.
        focus_m: where the beam is really focused; the read-back differs by the hysteresis.
        lens_lag_m: ``focus_m`` minus the working distance that reads back.
        defocus_m: ``focus_m`` minus ``focal_working_distance_m``; positive is over-focus, the
            beam is focused below the surface.
        defocus_range_m: smallest and largest defocus within the scanned region.
        a1_m: residual astigmatism on the axes, column and stigmators together.
        a2_m: residual astigmatism at 45 degrees.
        stigmator_solution: stigmator setting without residual astigmatism.
        slope_px_per_m: alpha / 2p, blur in pixels per metre of defocus.
        sigma0_px: standard deviation of the focused probe.
        blur: covariance of the blur at ``defocus_m``, in square pixels.
        half_depth_m: half depth of field p / alpha.
        view_m: point of the specimen at the field centre, from the stage's start, (x, y).
        dose_per_pixel_e: electrons a pixel receives in one frame.
        total_dose_e: electrons the specimen has received since the microscope was opened.
        elapsed_s: simulated time since then.
    """

    focal_working_distance_m: float
    focus_m: float
    lens_lag_m: float
    defocus_m: float
    defocus_range_m: tuple[float, float]
    a1_m: float
    a2_m: float
    stigmator_solution: tuple[float, float]
    slope_px_per_m: float
    sigma0_px: float
    blur: Covariance
    half_depth_m: float
    view_m: tuple[float, float]
    dose_per_pixel_e: float
    total_dose_e: float
    elapsed_s: float
