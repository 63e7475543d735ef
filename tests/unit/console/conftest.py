"""A console over a bus in this process, served by real sockets."""

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from semagent.bus import LocalBus, LocalHub
from semagent.channels import Role
from semagent.clock import SystemClock
from semagent.config import ConsoleOptions, find_config, load_config
from semagent.types import Capabilities

pytest.importorskip("starlette", reason="the extra 'console' is not installed")

from semagent.console import Console, RunFacts, listen

from .bench import TOKENS, Run


@pytest.fixture
def facts() -> RunFacts:
    return RunFacts(
        config=load_config(find_config("simulated")),
        capabilities=Capabilities(driver="simulated", microscope="test", verified_on=None),
        engine="sharpness",
        session=None,
    )


@pytest.fixture(scope="session")
def tls_options(tmp_path_factory: pytest.TempPathFactory) -> ConsoleOptions:
    """A console with a certificate of its own."""
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = str(folder / "key.pem"), str(folder / "cert.pem")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=sem", "-keyout", key, "-out", certificate]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=60)
    except FileNotFoundError:
        pytest.skip("no openssl to make a certificate with")
    return ConsoleOptions(port=0, certificate=certificate, key=key)


@pytest.fixture
def run(facts: RunFacts) -> Iterator[Run]:
    with served(facts, ConsoleOptions(port=0)) as made:
        yield made


@pytest.fixture
def secure_run(facts: RunFacts, tls_options: ConsoleOptions) -> Iterator[Run]:
    with served(facts, tls_options) as made:
        yield made


@contextmanager
def served(facts: RunFacts, options: ConsoleOptions) -> Iterator[Run]:
    clock = SystemClock()
    hub = LocalHub(clock)
    acquire, infer = LocalBus(hub, Role.ACQUIRE), LocalBus(hub, Role.INFER)
    control = LocalBus(hub, Role.CONTROL)
    acquire.serve("command")
    control.serve("request")
    listener = listen(options)
    bus = LocalBus(hub, Role.CONSOLE)
    console = Console(bus, listener, facts, TOKENS, clock)
    made = Run(listener.port, hub, acquire, infer, control, console)
    ending = threading.Event()

    def loop() -> None:
        while not ending.is_set():
            made.serve()
            console.step()
            ending.wait(0.002)  # on the bus it would hear its own heartbeats, and never rest

    thread = threading.Thread(target=loop)
    thread.start()
    yield made
    ending.set()
    thread.join(10)
    console.close()


@pytest.fixture
def pixels() -> Any:
    return np.random.default_rng(1).integers(0, 256, (48, 64), dtype=np.uint8)
