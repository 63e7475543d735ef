"""What the loop itself costs: time per frame, frames per second, memory.

    python benchmarks/loop.py latency      # one process and several, 1024 x 768, p50 and p99
    python benchmarks/loop.py throughput   # frames per second the bus carries to a reader
    python benchmarks/loop.py memory       # resident memory while frames come as fast as they can

Latency is measured by the control role itself: from the end of a frame's exposure to the
answer to the command it led to, less the time the engine took. The microscope is a recorded
stack held in memory, so that neither a simulation nor a detector is in the figure; everything
else is what `semagent run` runs: sanity checks, gate, engine, bus, real sockets. The only
stand-in is the policy, which commands after every frame.
"""

import argparse
import json
import multiprocessing
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import psutil

from semagent import registry
from semagent.bus import LocalBus, LocalHub
from semagent.bus.zeromq import Endpoints, ZmqBus
from semagent.channels import Role
from semagent.clock import SystemClock
from semagent.config import Part, RunConfig
from semagent.control import Controller, ControlOptions, Decision
from semagent.parts import make_acquire
from semagent.ports import Microscope
from semagent.roles import ControlRole, InferRole
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

TOKEN = "benchmark"  # noqa: S105 - of this program alone
HEIGHT, WIDTH = 768, 1024
FRAME_INTERVAL_S = 0.05
MEMORY_S = 60.0


class EveryFrame(Controller):
    """Commands after every frame and notes how long each answer took."""

    def __init__(self, options: ControlOptions, capabilities: Capabilities) -> None:
        super().__init__(options, capabilities)
        self._low_m, self._high_m = capabilities.working_distance_range_m or (0.0, 0.0)
        self._asked: dict[int, FrameAnalysis] = {}
        self.latencies_s: list[float] = []

    def analysed(self, analysis: FrameAnalysis) -> Decision:
        decision = super().analysed(analysis)
        header = analysis.header
        target_m = self._high_m if header.sequence % 2 else self._low_m
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


def open_all(folder: Path, interval_s: float) -> tuple[Microscope, RunConfig]:
    """The stack as a microscope, and its configuration."""
    microscope = registry.open_microscope("recorded", {"stack": str(folder)}, clock=SystemClock())
    config = config_for_stack(as_recorded(microscope), Part(name="sharpness"))
    acquire = msgspec.structs.replace(config.acquire, frame_interval_s=interval_s)
    return microscope, msgspec.structs.replace(config, acquire=acquire)


def arm() -> Command:
    """What the operator sends first."""
    return Command(id="arm", issuer=Issuer.OPERATOR, action=Arm())


def in_one_process(folder: Path, frames: int) -> list[float]:
    """Latencies in seconds with all roles in this process."""
    microscope, config = open_all(folder, 0.0)
    clock = SystemClock()
    hub = LocalHub(clock)
    controller = EveryFrame(config.control, microscope.capabilities)
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


def child(role: Role, folder: str, interval_s: float, seconds: float, link: Connection) -> None:
    """One role in a process of its own; sends what it measured."""
    clock = SystemClock()
    serves = {Role.ACQUIRE: "command", Role.CONTROL: "request"}.get(role)
    bus = ZmqBus(role, TOKEN, serves=serves)
    microscope, config = open_all(Path(folder), interval_s)
    controller = EveryFrame(config.control, microscope.capabilities)
    loop: Any
    match role:
        case Role.ACQUIRE:
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
    bus.close()
    microscope.close()


def across_processes(folder: Path, interval_s: float, seconds: float) -> dict[Role, Any]:
    """What each role measured, with every role in a process of its own."""
    context = multiprocessing.get_context("spawn")
    roles = (Role.ACQUIRE, Role.INFER, Role.CONTROL)
    links, processes = {}, []
    for role in roles:
        links[role], far = context.Pipe()
        process = context.Process(target=child, args=(role, str(folder), interval_s, seconds, far))
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


def main() -> None:
    """Run what was asked for and print one JSON line a figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["latency", "throughput", "memory"])
    parser.add_argument("--frames", type=int)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_stack(folder)
        match arguments.what:
            case "latency":
                frames = arguments.frames or 600
                print(json.dumps({"one process": milliseconds(in_one_process(folder, frames))}))
                measured = across_processes(folder, FRAME_INTERVAL_S, frames * FRAME_INTERVAL_S)
                latencies_s = measured[Role.CONTROL]["latencies_s"]
                print(json.dumps({"across processes": milliseconds(latencies_s)}))
            case "throughput":
                seconds = 20.0
                measured = across_processes(folder, 0.0, seconds)
                figures = {
                    "frames_per_s": round(measured[Role.ACQUIRE]["frames"] / seconds, 1),
                    "decided_per_s": round(len(measured[Role.CONTROL]["latencies_s"]) / seconds, 1),
                }
                print(json.dumps({"throughput": figures}))
            case "memory":
                measured = across_processes(folder, 0.0, MEMORY_S)
                for role, result in measured.items():
                    rss = np.array(result["rss"]) / 2**20
                    tenth = max(1, len(rss) // 10)
                    figures = {
                        "frames": measured[Role.ACQUIRE]["frames"],
                        "first_tenth_mib": round(float(rss[tenth : 2 * tenth].mean()), 1),
                        "last_tenth_mib": round(float(rss[-tenth:].mean()), 1),
                    }
                    print(json.dumps({f"memory {role}": figures}))


if __name__ == "__main__":
    main()
