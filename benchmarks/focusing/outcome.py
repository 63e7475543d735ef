"""What is kept of one trial with one method: a line of JSON."""

import msgspec


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a method ended.

    Lengths are in half depths of field, astigmatism in pixels of blur.

    Attributes:
        status: what the method says of itself; peers that cannot say so are always ``focused``.
        verified: whether ``focused`` claims half a depth of field.
        frames: frames exposed, the verifying one included.
        moves: changes of the working distance asked for.
        dose: electrons a pixel of the field received.
        start: defocus at the start.
        final: defocus at the end.
        start_astigmatism_px: at the start.
        final_astigmatism_px: at the end.
        covered: whether the last 90 % interval holds the true focus, ``None`` without one.
        sigma: standard deviation that the method states at the end.
        decide_s: time of estimator and policy for each frame.
        put_back: whether the working distance is what it was at the start.
        wall_s: time of the whole trial, the simulation included.
        held_frames: hold mode: frames within half a depth of field.
        extra_dose: hold mode: electrons a pixel received beyond those of the frames anyway taken.
        reason: in words.
    """

    experiment: str
    method: str
    number: int
    source: str
    real: bool
    trial_dose: int
    status: str
    frames: int
    moves: int
    dose: float
    start: float
    final: float
    start_astigmatism_px: float
    final_astigmatism_px: float
    wall_s: float
    covered: bool | None = None
    sigma: float | None = None
    decide_s: list[float] = []
    verified: bool = True
    put_back: bool = False
    held_frames: int | None = None
    extra_dose: float | None = None
    reason: str = ""

    @property
    def success(self) -> bool:
        """Within half a depth of field of focus."""
        return abs(self.final) <= 1

    @property
    def worse(self) -> bool:
        """See `is_worse`."""
        return is_worse(self.start, self.final)


def is_worse(start: float, final: float) -> bool:
    """Whether it ended visibly out of focus and further from it than it began."""
    return abs(final) > max(1.0, abs(start) + 0.1)
