"""A microscope reduced to a through-focus curve, in lockstep with a `Controller`."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import msgspec
import numpy as np

from semagent.control import Controller, ControlOptions, Decision, Notice
from semagent.control.options import DeadlineOptions, HoldOptions
from semagent.memory import Memory
from semagent.signature import BINS, SECTORS, geometry_of
from semagent.transfer import log_disc_transfer
from semagent.types import (
    Arm,
    Capabilities,
    Command,
    FocusResult,
    FrameAnalysis,
    FrameFault,
    FrameHeader,
    GateStatus,
    Issuer,
    MicroscopeAction,
    MicroscopeState,
    Mode,
    Optics,
    Outcome,
    Reply,
    Request,
    Scan,
    SetStigmator,
    SetWorkingDistance,
    Signature,
    StagePosition,
)

STIGMATORS = (0.1, -0.1)
UNIT_M = 2e-6  # 10 nm pixels at 5 mrad
SCAN = Scan(width_px=1024, height_px=768, bit_depth=8, pixel_size_m=10e-9)
CAPABILITIES = Capabilities(
    driver="bench", microscope="bench", verified_on=None, simulated=True, stigmator=True
)
OPTIONS = ControlOptions(
    mode=Mode.HOLD,
    hold=HoldOptions(follow=False),
    deadlines=DeadlineOptions(reply_s=10, frame_s=30, task_s=300),
)


@dataclass
class Curve:
    """Log sharpness against defocus in half depths of field."""

    width: float = 5.0
    gain: float = 1.0
    flat: bool = False

    def __call__(self, defocus: float) -> float:
        if self.flat:
            return 0.0
        u = defocus / self.width
        return float(-self.gain * np.log(1 + u * u))


_GEOMETRY = geometry_of(256)
_FILLED = _GEOMETRY.share > 0
_MODES = np.where(_FILLED, _GEOMETRY.share, 1.0) * 150e3 / 2

_ANOTHER = np.random.default_rng(1).normal(size=BINS)
_ANOTHER += np.tile(np.random.default_rng(2).normal(size=SECTORS), BINS // SECTORS)


@dataclass
class Spectrum:
    """What the beam leaves of a specimen whose spectrum is a power law.

    Attributes:
        slope: of the logarithm of the power against that of the frequency.
        log_noise: logarithm of the power of the noise; that of the specimen is 0 at k = 1.
        spot_px: standard deviation of the focused beam.
        pixels_a_half_depth: blur for each half depth of field of defocus, in pixels.
        flat: nothing depends on the working distance.
        scatter: standard deviation of the log power that no model knows of.
        grooves: there is structure along one direction only.
        moved: standard deviation of what the log power of each bin changes by with another field.
    """

    slope: float = -2.0
    log_noise: float = 0.0
    spot_px: float = 0.7
    pixels_a_half_depth: float = 0.5
    flat: bool = False
    scatter: float = 0.01
    grooves: bool = False
    moved: float = 0.0

    def __call__(
        self, defocus: float, astigmatism: tuple[float, float], random: np.random.Generator
    ) -> Signature:
        """The signature of a frame, at a defocus and astigmatism in half depths of field."""
        along, cosine, sine = _GEOMETRY.quadratic
        z = 0.0 if self.flat else defocus
        a1, a2 = astigmatism
        reach = (z * z + a1 * a1 + a2 * a2) * along + 2 * z * (a1 * cosine + a2 * sine)
        transfer, _ = log_disc_transfer(self.pixels_a_half_depth**2 * reach)
        signal = np.exp(self.slope * _GEOMETRY.log_k + transfer - self.spot_px**2 * along)
        signal *= np.exp(self.moved * _ANOTHER)
        if self.grooves:
            signal[np.arange(BINS) % SECTORS > 0] = 0.0
        power = signal + np.exp(self.log_noise)
        noise = np.exp(self.log_noise) / power
        relative = np.sqrt(noise * (2 - noise) / _MODES + self.scatter**2)
        log_power = np.log(power) + relative * random.normal(size=len(power))
        return Signature(
            tile_px=256,
            pixels=150e3,
            log_power=tuple(np.where(_FILLED, log_power, 0.0).tolist()),
            log_noise=tuple(np.where(_FILLED, self.log_noise, 0.0).tolist()),
        )


@dataclass
class Bench:
    """Acquires, analyses, asks the controller and carries out its commands, one after the other.

    Attributes:
        astigmatism: (a1, a2) at the start, in half depths of field.
        coils: change of astigmatism, rows (a1, a2), by a unit of the stigmators (x, y).
        memory: what is remembered of the instrument.
        focus: where focus is, in half depths of field from ``origin_m``.
        drift: half depths of field that focus moves every frame.
        noise: standard deviation of log sharpness the engine knows of.
        scatter: the same that it does not know of.
        play: half-width of the hysteresis of the lens, in half depths of field.
        answer: changes a reply before it is given, to break things; ``None`` swallows it.
    """

    options: ControlOptions = field(default_factory=lambda: ControlOptions(mode=Mode.HOLD))
    capabilities: Capabilities = CAPABILITIES
    curve: Curve = field(default_factory=Curve)
    spectrum: Spectrum = field(default_factory=Spectrum)
    astigmatism: tuple[float, float] = (0.0, 0.0)
    coils: tuple[tuple[float, float], ...] = ((0.0, 0.0), (0.0, 0.0))
    memory: Memory | None = None
    focus: float = 0.0
    drift: float = 0.0
    noise: float = 0.02
    scatter: float = 0.01
    structure: float = 5.0
    play: float = 0.0
    grid_m: float = 0.0
    seed: int = 0
    origin_m: float = 5e-3
    frame_s: float = 1.0
    convergence_angle_rad: float | None = 5e-3
    scan: Scan = SCAN
    beam_current_a: float | None = None
    answer: Callable[[Reply], Reply | None] = lambda reply: reply

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)
        self.controller = Controller(self.options, self.capabilities, memory=self.memory)
        self.optics = Optics(
            working_distance_m=self.origin_m,
            stigmator_x=STIGMATORS[0],
            stigmator_y=STIGMATORS[1],
            convergence_angle_rad=self.convergence_angle_rad,
            beam_current_a=self.beam_current_a,
        )
        self.stage = StagePosition(x_m=0.0, y_m=0.0, z_m=0.0)
        self.settings_rev = 1
        self.lens_m = self.origin_m
        self.sequence = 0
        self.now_ns = 0
        self.armed = False
        self.commands: list[Command] = []
        self.events: list[Notice] = []
        self.results: list[FocusResult] = []
        self.errors: list[float] = []

    # -- what a test does ---------------------------------------------------------------------

    def arm(self, armed: bool = True, reason: str = "test", code: str = "") -> None:
        self.armed = armed
        status = GateStatus(armed=armed, reason=reason, monotonic_ns=self.now_ns, code=code)
        self.follow(self.controller.gate_changed(status))

    def request(self, request: Request) -> None:
        self.follow(self.controller.requested(request))

    def tick(self, seconds: float = 0.0) -> None:
        self.now_ns += round(seconds * 1e9)
        self.follow(self.controller.ticked(self.now_ns))

    def frame(self) -> None:
        """Expose a frame, analyse it and follow the decision to its end."""
        self.tick(self.frame_s)
        self.follow(self.controller.analysed(self.analysis()))

    def flagged(self) -> None:
        self.tick(self.frame_s)
        faults = (FrameFault.SATURATED,)
        self.follow(self.controller.flagged(msgspec.structs.replace(self.header(), faults=faults)))

    def run(self, frames: int) -> None:
        for _ in range(frames):
            self.frame()

    def run_until_result(self) -> FocusResult:
        for _ in range(60):
            if self.results:
                return self.results[-1]
            self.frame()
        raise AssertionError("no result within 60 frames")

    def operator(self, action: MicroscopeAction) -> None:
        self.carry_out(action)
        self.follow(self.controller.replied(self.reply(action, Issuer.OPERATOR)))

    def beam_up(self, times: float) -> None:
        """Let the beam current grow, as it may without anything else being changed."""
        current_a = self.optics.beam_current_a
        assert current_a is not None
        self.optics = msgspec.structs.replace(self.optics, beam_current_a=times * current_a)

    # -- what a microscope does ---------------------------------------------------------------

    @property
    def offset(self) -> float:
        """Where the lens really is, in half depths of field from ``origin_m``."""
        return (self.lens_m - self.origin_m) / UNIT_M

    @property
    def left(self) -> tuple[float, float]:
        """The astigmatism there is now, in half depths of field."""
        x, y = self.stigmators
        by_x, by_y = np.array(self.coils) @ (x - STIGMATORS[0], y - STIGMATORS[1])
        return self.astigmatism[0] + by_x, self.astigmatism[1] + by_y

    @property
    def stigmators(self) -> tuple[float, float]:
        """Where the stigmators are."""
        x, y = self.optics.stigmator_x, self.optics.stigmator_y
        assert x is not None
        assert y is not None
        return x, y

    @property
    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]

    @property
    def positions(self) -> list[float]:
        """Working distances commanded, in half depths of field from ``origin_m``."""
        return [
            (command.action.working_distance_m - self.origin_m) / UNIT_M
            for command in self.commands
            if isinstance(command.action, SetWorkingDistance)
        ]

    def header(self) -> FrameHeader:
        self.sequence += 1
        self.focus += self.drift
        self.errors.append(self.offset - self.focus)
        return FrameHeader(
            sequence=self.sequence,
            monotonic_ns=self.now_ns,
            wall_ns=self.now_ns,
            detector="SE",
            scan=self.scan,
            optics=self.optics,
            stage=self.stage,
            settings_rev=self.settings_rev,
        )

    def analysis(self) -> FrameAnalysis:
        header = self.header()
        noise = self.random.normal(0.0, np.hypot(self.noise, self.scatter))
        defocus = self.offset - self.focus
        blur = math.copysign(math.hypot(defocus, *self.left), defocus)
        sharpness = self.curve(blur) + noise
        flat = self.spectrum.flat or getattr(self.curve, "flat", False)
        return FrameAnalysis(
            header=header,
            engine="bench",
            focus_score=float(np.clip(np.exp(sharpness), 0, 1)),
            sharpness=sharpness,
            sharpness_sigma=self.noise,
            structure=self.structure,
            noise=0.05,
            latency_s=0.01,
            signature=replace(self.spectrum, flat=flat)(defocus, self.left, self.random),
        )

    def follow(self, decision: Decision) -> None:
        """Carry out commands and report back until there are none."""
        self.events += decision.events
        if decision.result is not None:
            self.results.append(decision.result)
        assert len(decision.actions) <= 1
        for action in decision.actions:
            assert self.controller.state.pending is not None
            command = Command(
                id=str(len(self.commands)),
                issuer=Issuer.AGENT,
                action=action,
                basis=decision.basis,
            )
            self.commands.append(command)
            reply = self.answer(self.reply(action, Issuer.AGENT))
            if reply is None:
                return
            if reply.outcome is Outcome.APPLIED:
                self.carry_out(action)
                state = reply.state and self.state()
                reply = msgspec.structs.replace(reply, state=state)
            self.follow(self.controller.replied(reply))

    def carry_out(self, action: MicroscopeAction) -> None:
        match action:
            case SetWorkingDistance(working_distance_m=target_m):
                if self.grid_m:
                    target_m = self.origin_m + self.grid_m * round(
                        (target_m - self.origin_m) / self.grid_m
                    )
                play_m = self.play * UNIT_M
                self.lens_m = min(max(self.lens_m, target_m - play_m), target_m + play_m)
                self.optics = msgspec.structs.replace(self.optics, working_distance_m=target_m)
            case SetStigmator(x=x, y=y):
                self.optics = msgspec.structs.replace(self.optics, stigmator_x=x, stigmator_y=y)

    def state(self) -> MicroscopeState:
        return MicroscopeState(
            scan=self.scan, optics=self.optics, stage=self.stage, settings_rev=self.settings_rev
        )

    def reply(self, action: MicroscopeAction | Arm, issuer: Issuer) -> Reply:
        outcome = Outcome.APPLIED
        if issuer is Issuer.AGENT and not self.armed:
            outcome = Outcome.REFUSED
        return Reply(
            command=Command(id="x", issuer=issuer, action=action),
            outcome=outcome,
            monotonic_ns=self.now_ns,
            next_sequence=self.sequence + 1,
            code="" if outcome is Outcome.APPLIED else "disarmed",
            reason="" if outcome is Outcome.APPLIED else "the gate is disarmed",
            state=self.state(),
        )
