"""A microscope served by one command and focused by another."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

Run = Callable[..., Any]
Config = Callable[..., Path]


@contextmanager
def served(config: Path, *arguments: str) -> Iterator[Path]:
    """Serve a microscope; gives the configuration with which to reach it."""
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    server = subprocess.Popen(
        [sys.executable, "-m", "semagent", "serve", str(config), "--bind", endpoint, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stderr is not None
        assert any("listens on" in line for line in server.stderr)
        raw = yaml.safe_load(config.read_text(encoding="utf-8"))
        raw["driver"] = {"name": "remote", "options": {"endpoint": endpoint}}
        here = config.with_name("here.yaml")
        here.write_text(yaml.safe_dump(raw), encoding="utf-8")
        yield here
    finally:
        server.send_signal(signal.SIGINT if os.name != "nt" else signal.SIGTERM)
        server.communicate(timeout=20)
    assert os.name == "nt" or server.returncode == 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_microscope_is_served_and_focused_from_elsewhere(semagent: Run, simulated_config: Config):
    with served(simulated_config(speed=0), "--arm") as here:
        run = semagent("autofocus", here, "--arm", "--json")
    assert run.code == 0, run.err
    assert abs(run.records[-1]["final_working_distance_m"] - 5.0e-3) < 2e-6


def test_what_cannot_be_served_is_exit_2_and_not_said_to_be_served(
    semagent: Run, simulated_config: Config
):
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        endpoint = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        run = semagent("serve", simulated_config(), "--bind", endpoint)
    assert run.code == 2
    assert run.out == ""
    assert run.err.startswith(f"error: bind: {endpoint} cannot be listened on: ")


@pytest.mark.skipif(os.name == "nt", reason="the shell there cannot close it")
def test_a_microscope_is_served_without_standard_input(simulated_config: Config):
    command = 'exec "$0" -m semagent serve "$1" --bind "tcp://127.0.0.1:*" <&-'
    server = subprocess.Popen(
        ["/bin/sh", "-c", command, sys.executable, simulated_config()],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert server.stderr is not None
    said = [server.stderr.readline(), server.stderr.readline()]
    server.terminate()
    said.append(server.communicate(timeout=20)[1])
    assert "listens on" in said[0]
    assert "Traceback" not in "".join(said)
    assert server.returncode == 0


def test_a_refusal_by_the_gate_at_the_microscope_is_one(semagent: Run, simulated_config: Config):
    narrow = {"min": 0.004, "max": 0.006, "max_step": 1e-6, "max_travel": 0.02}
    with served(simulated_config(speed=0, _safety={"working_distance_m": narrow}), "--arm") as here:
        raw = yaml.safe_load(here.read_text(encoding="utf-8"))
        raw["safety"]["working_distance_m"]["max_step"] = 200e-6
        here.write_text(yaml.safe_dump(raw), encoding="utf-8")
        run = semagent("autofocus", here, "--arm", "--json")
    assert run.code == 5
    assert "refused by the safety gate of the microscope PC (step_too_large)" in run.err
    assert run.records[-1]["final_working_distance_m"] == pytest.approx(5.03e-3, abs=1e-9)
