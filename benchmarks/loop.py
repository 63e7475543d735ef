"""What the loop itself costs: time per frame, frames per second, memory.

    python benchmarks/loop.py latency      # one process and several, 1024 x 768, p50 and p99
    python benchmarks/loop.py throughput   # frames per second the bus carries to a reader
    python benchmarks/loop.py memory       # resident memory while frames come as fast as they can
    python benchmarks/loop.py latency --driver sharksem   # or micromanager: over a vendor's wire

Latency is measured by the control role itself: from the end of a frame's exposure to the
answer to the command it led to, less the time the engine took. The microscope is a recorded
stack held in memory, so that neither a simulation nor a detector is in the figure; everything
else is what `semagent run` runs: sanity checks, gate, engine, bus, real sockets. The only
stand-in is the policy, which commands after every frame.

With ``--driver`` the microscope is a vendor's driver, and behind real sockets, in a process of its
own, the fake that ships with it. The figure then holds the driver's setting of focus, its wait
until the optics have settled, and its read-back, as the fake answers them. Rendering is not in it:
frames are so far apart that no command waits for the next one to be drawn.
"""

import argparse
import contextlib
import json
import multiprocessing
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import msgspec
import numpy as np
import psutil

from semagent import registry
from semagent.bus import LocalBus, LocalHub
from semagent.bus.zeromq import Endpoints, ZmqBus
from semagent.channels import Role
from semagent.clock import SystemClock
from semagent.config import Part, RunConfig, find_config, load_config
from semagent.control import Controller, Decision
from semagent.parts import make_acquire
from semagent.roles import ControlRole, InferRole
from semagent.safety import AxisLimits
from semagent.stack import as_recorded, config_for_stack
from semagent.testing.engines import specimen
from semagent.types import (
    Arm,
    Basis,
    Capabilities,
    Command,
    FrameAnalysis,
    Issuer,
    Reply,
    SetWorkingDistance,
)
from semagent_drivers.micromanager.fake import FakeCore, FakeMicroManager
from semagent_drivers.sharksem.fake import FakeSharkSem

TOKEN = "benchmark"  # noqa: S105 - of this program alone
HEIGHT, WIDTH = 768, 1024
FRAME_INTERVAL_S = 0.05
MEMORY_S = 60.0
STEP_M = 2e-6


class Subject(NamedTuple):
    """What is measured: a microscope, and where its focus is sent to and fro."""

    config: RunConfig
    capabilities: Capabilities
    targets_m: tuple[float, float]
    interval_s: float = FRAME_INTERVAL_S


class EveryFrame(Controller):
    """Commands after every frame and notes how long each answer took."""

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject.config.control, subject.capabilities)
        self._targets_m = subject.targets_m
        self._asked: dict[int, FrameAnalysis] = {}
        self.latencies_s: list[float] = []

    def analysed(self, analysis: FrameAnalysis) -> Decision:
        decision = super().analysed(analysis)
        header = analysis.header
        target_m = self._targets_m[header.sequence % 2]
        self._asked[header.sequence] = analysis
        return msgspec.structs.replace(
            decision,
            actions=(SetWorkingDistance(working_distance_m=target_m),),
            basis=Basis(sequence=header.sequence, settings_rev=header.settings_rev),
        )

    def replied(self, reply: Reply) -> Decision:
        basis = reply.command.basis
        if basis is not None:
            analysis = self._asked.pop(basis.sequence)
            total_ns = time.perf_counter_ns() - analysis.header.monotonic_ns
            self.latencies_s.append(total_ns / 1e9 - analysis.latency_s)
        return super().replied(reply)


def make_stack(folder: Path) -> None:
    """Two frames of one field, as a stack."""
    rows = ["file,working_distance_um"]
    for index, blur_px in enumerate((1.0, 3.0)):
        cv2.imwrite(str(folder / f"{index}.png"), specimen(HEIGHT, WIDTH, blur_px=blur_px))
        rows.append(f"{index}.png,{5000 + 4 * index}")
    (folder / "stack.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")


def recorded(folder: Path) -> Subject:
    """The stack in a folder."""
    options = {"stack": str(folder)}
    microscope = registry.open_microscope("recorded", options, clock=SystemClock())
    config = config_for_stack(as_recorded(microscope), Part(name="sharpness"))
    config = msgspec.structs.replace(config, driver=Part(name="recorded", options=options))
    range_m = microscope.capabilities.working_distance_range_m
    assert range_m is not None
    return Subject(config, microscope.capabilities, range_m)


def through(driver: str, options: dict[str, Any]) -> Subject:
    """The microscope a vendor's driver reaches with its shipped configuration."""
    config = load_config(find_config(driver))
    part = Part(name=driver, options={**config.driver.options, **options})
    microscope = registry.open_microscope(driver, part.options, clock=SystemClock())
    at_m = microscope.read_state().optics.working_distance_m
    started_s = time.perf_counter()
    microscope.acquire(60.0)
    frame_s = time.perf_counter() - started_s
    microscope.close()
    # Its own limits would end the travel of so many commands.
    limits = AxisLimits(
        min=at_m - 2 * STEP_M, max=at_m + 2 * STEP_M, max_step=4 * STEP_M, max_travel=1e6
    )
    safety = msgspec.structs.replace(
        config.safety, working_distance_m=limits, heartbeat_timeout_s=60.0
    )
    config = msgspec.structs.replace(config, driver=part, safety=safety)
    targets_m = (at_m - STEP_M, at_m + STEP_M)
    return Subject(config, microscope.capabilities, targets_m, FRAME_INTERVAL_S + 2 * frame_s)


def fake(driver: str, link: Connection) -> None:
    """The fake microscope, in a process of its own, until it is told to end."""
    server: Any
    match driver:
        case "micromanager":
            server = FakeMicroManager(core=FakeCore(size_px=(WIDTH, HEIGHT)))
        case _:
            server = FakeSharkSem()
    with server:
        ports = {"port": server.port}
        if driver == "sharksem":
            ports["data_port"] = server.data_port
        link.send(ports)
        link.recv()


@contextlib.contextmanager
def faked(driver: str) -> Iterator[Subject]:
    """A driver over its fake."""
    context = multiprocessing.get_context("spawn")
    link, far = context.Pipe()
    process = context.Process(target=fake, args=(driver, far))
    process.start()
    try:
        yield through(driver, link.recv())
    finally:
        link.send("end")
        process.join(20)


def arm() -> Command:
    """What the operator sends first."""
    return Command(id="arm", issuer=Issuer.OPERATOR, action=Arm())


def in_one_process(subject: Subject, frames: int) -> list[float]:
    """Latencies in seconds with all roles in this process."""
    clock, config = SystemClock(), subject.config
    microscope = registry.open_microscope(config.driver.name, config.driver.options, clock=clock)
    hub = LocalHub(clock)
    controller = EveryFrame(subject)
    control = ControlRole(LocalBus(hub, Role.CONTROL), controller, clock, command_lifetime_s=60)
    engine = registry.open_engine("sharpness", {})
    infer = InferRole(LocalBus(hub, Role.INFER), engine, config.infer, clock)
    acquire = make_acquire(LocalBus(hub, Role.ACQUIRE), config, microscope, clock)
    LocalBus(hub, Role.CONSOLE).send("command", arm())
    acquire.serve()
    for _ in range(frames):
        acquire.step()
        infer.step()
        control.step()
        acquire.serve()
        control.step()
    infer.close()
    acquire.close()
    return controller.latencies_s


def child(
    role: Role, subject: Subject, interval_s: float, seconds: float, link: Connection
) -> None:
    """One role in a process of its own; sends what it measured."""
    clock = SystemClock()
    serves = {Role.ACQUIRE: "command", Role.CONTROL: "request"}.get(role)
    bus = ZmqBus(role, TOKEN, serves=serves)
    acquire = msgspec.structs.replace(subject.config.acquire, frame_interval_s=interval_s)
    config = msgspec.structs.replace(subject.config, acquire=acquire)
    controller = EveryFrame(subject)
    loop: Any
    match role:
        case Role.ACQUIRE:
            driver = config.driver
            microscope = registry.open_microscope(driver.name, driver.options, clock=clock)
            loop = make_acquire(bus, config, microscope, clock)
        case Role.INFER:
            engine = registry.open_engine("sharpness", {})
            loop = InferRole(bus, engine, config.infer, clock)
        case _:
            loop = ControlRole(bus, controller, clock, command_lifetime_s=60)
    link.send(bus.endpoints)
    bus.connect(link.recv())
    if role is Role.CONTROL:
        time.sleep(0.5)
        bus.send("command", arm())
    link.send("ready")
    link.recv()
    rss: list[int] = []
    next_rss_s = 0.0
    started_s = now_s = time.perf_counter()
    while now_s < started_s + seconds:
        if not loop.step():
            bus.wait(0.01)
        now_s = time.perf_counter()
        if now_s >= next_rss_s:
            rss.append(psutil.Process().memory_info().rss)
            next_rss_s = now_s + 1.0
    frames = loop.frames if role is Role.ACQUIRE else 0
    link.send({"latencies_s": controller.latencies_s, "rss": rss, "frames": frames})
    link.recv()
    loop.close()
    bus.close()


def across_processes(subject: Subject, interval_s: float, seconds: float) -> dict[Role, Any]:
    """What each role measured, with every role in a process of its own."""
    context = multiprocessing.get_context("spawn")
    roles = (Role.ACQUIRE, Role.INFER, Role.CONTROL)
    links, processes = {}, []
    for role in roles:
        links[role], far = context.Pipe()
        process = context.Process(target=child, args=(role, subject, interval_s, seconds, far))
        process.start()
        processes.append(process)
    endpoints: dict[Role, Endpoints] = {role: links[role].recv() for role in roles}
    for step in (endpoints, "go"):
        for role in roles:
            links[role].send(step)
        if step is endpoints:
            for role in roles:
                links[role].recv()
    measured = {role: links[role].recv() for role in roles}
    for role in roles:
        links[role].send("end")
    for process in processes:
        process.join(20)
    return measured


def milliseconds(latencies_s: list[float]) -> dict[str, float]:
    """p50, p99 and largest of some latencies, the first tenth left out as warm-up."""
    values_ms = np.array(latencies_s[len(latencies_s) // 10 :]) * 1e3
    return {
        "frames": len(values_ms),
        "p50_ms": round(float(np.percentile(values_ms, 50)), 2),
        "p99_ms": round(float(np.percentile(values_ms, 99)), 2),
        "max_ms": round(float(values_ms.max()), 2),
    }


def latency(subject: Subject, frames: int) -> None:
    """Print the latencies in one process and across processes."""
    name = subject.config.driver.name
    figures = milliseconds(in_one_process(subject, frames))
    print(json.dumps({"driver": name, "one process": figures}))
    interval_s = subject.interval_s
    measured = across_processes(subject, interval_s, frames * interval_s)
    figures = milliseconds(measured[Role.CONTROL]["latencies_s"])
    print(json.dumps({"driver": name, "across processes": figures}))


def main() -> None:
    """Run what was asked for and print one JSON line a figure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["latency", "throughput", "memory"])
    parser.add_argument("--frames", type=int)
    parser.add_argument("--driver", choices=["micromanager", "sharksem"], help="latency only")
    arguments = parser.parse_args()
    if arguments.driver:
        if arguments.what != "latency":
            parser.error("--driver: the fake's rendering would be what is measured")
        with faked(arguments.driver) as subject:
            latency(subject, arguments.frames or 200)
        return
    with tempfile.TemporaryDirectory() as name:
        make_stack(Path(name))
        subject = recorded(Path(name))
        match arguments.what:
            case "latency":
                latency(subject, arguments.frames or 600)
            case "throughput":
                seconds = 20.0
                measured = across_processes(subject, 0.0, seconds)
                figures = {
                    "frames_per_s": round(measured[Role.ACQUIRE]["frames"] / seconds, 1),
                    "decided_per_s": round(len(measured[Role.CONTROL]["latencies_s"]) / seconds, 1),
                }
                print(json.dumps({"throughput": figures}))
            case "memory":
                measured = across_processes(subject, 0.0, MEMORY_S)
                for role, result in measured.items():
                    rss = np.array(result["rss"]) / 2**20
                    tenth = max(1, len(rss) // 10)
                    figures = {
                        "frames": measured[Role.ACQUIRE]["frames"],
                        "second_tenth_mib": round(float(rss[tenth : 2 * tenth].mean()), 1),
                        "last_tenth_mib": round(float(rss[-tenth:].mean()), 1),
                    }
                    print(json.dumps({f"memory {role}": figures}))


if __name__ == "__main__":
    main()
