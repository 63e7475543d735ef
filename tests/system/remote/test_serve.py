"""`semagent serve`: from a configuration to a microscope that others can use."""

import logging
import os
import subprocess
import sys
import threading
import time

import msgspec
import pytest
import yaml

from semagent.cli import exits, main
from semagent.config import RunConfig, find_config, load_config
from semagent.errors import CommandRefusedError, ConfigError, MicroscopeError
from semagent.keys import make_keys
from semagent.remote.serve import serve
from semagent.types import SetStigmator
from semagent_drivers.sharksem.fake import FakeSharkSem

SMALL = {"speed": 0, "scan": {"width_px": 96, "height_px": 64}}


def simulated(**safety) -> RunConfig:
    config = load_config(find_config("simulated"))
    return msgspec.structs.replace(
        config,
        driver=msgspec.structs.replace(config.driver, options=SMALL),
        safety=msgspec.structs.replace(config.safety, **safety),
    )


@pytest.fixture
def served(caplog, eventually):
    """Serves a configuration in a thread and says where; ends it after the test."""
    caplog.set_level(logging.INFO, "semagent.remote")
    stop, threads = threading.Event(), []

    def start(config, *, keys=None, armed=False):
        arguments = {"bind": "tcp://127.0.0.1:*", "keys": keys, "armed": armed, "stop": stop}
        threads.append(threading.Thread(target=serve, args=(config,), kwargs=arguments))
        threads[-1].start()
        eventually(lambda: "listens on" in caplog.text)
        return next(word for word in caplog.text.split() if word.startswith("tcp://")).rstrip(",")

    yield start
    stop.set()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


def test_the_simulated_microscope_from_afar(served, connect):
    near = connect(served(simulated(), armed=True))
    assert near.capabilities.driver == "simulated"
    assert near.capabilities.simulated
    frame = near.acquire(5.0)
    assert frame.pixels.shape == (64, 96)
    near.apply(SetStigmator(x=0.1, y=0.0))
    assert near.read_state().optics.stigmator_x == pytest.approx(0.1)
    assert near.acquire(5.0).header.sequence == 2


def test_it_boots_disarmed(served, connect):
    near = connect(served(simulated()))
    with pytest.raises(CommandRefusedError, match="disarmed: not armed"):
        near.apply(SetStigmator(x=0.1, y=0.0))


def test_where_it_is_disarmed_the_agent_arms_in_vain_and_exposes_nothing(served, tmp_path, capsys):
    endpoint = served(simulated())
    config = yaml.safe_load(find_config("simulated").read_text(encoding="utf-8"))
    config["driver"] = {"name": "remote", "options": {"endpoint": endpoint}}
    config["engine"] = {"name": "sharpness"}
    path = tmp_path / "remote.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    assert main(["doctor", str(path), "--json"]) == exits.DONE
    assert "none for now: the safety gate of the microscope PC is dis" in capsys.readouterr().out
    assert main(["autofocus", str(path), "--arm", "--json"]) == exits.REFUSED
    said = capsys.readouterr()
    assert "not armed: the safety gate of the microscope PC is disarmed: not armed" in said.err
    assert said.out == ""


def test_with_keys_from_a_folder(served, connect, tmp_path):
    make_keys(tmp_path)
    endpoint = served(simulated(), keys=tmp_path / "microscope")
    with pytest.raises(MicroscopeError, match="one has keys and the other has none"):
        connect(endpoint)
    near = connect(
        endpoint,
        client_key=str(tmp_path / "agent" / "client.key_secret"),
        server_key=str(tmp_path / "agent" / "server.key"),
    )
    assert near.acquire(5.0).header.sequence == 1


def test_the_network_needs_keys_before_the_microscope_is_opened():
    config = simulated()
    config = msgspec.structs.replace(
        config, driver=msgspec.structs.replace(config.driver, name="not-installed")
    )
    with pytest.raises(ConfigError, match=r"^--bind: .*semagent keys DIR"):
        serve(config, bind="tcp://*:5555", keys=None, armed=False, stop=threading.Event())


def test_it_does_not_start_armed_outside_the_envelope():
    limits = msgspec.structs.replace(simulated().safety.working_distance_m, min=0.0055)
    with pytest.raises(CommandRefusedError, match="working distance"):
        serve(
            simulated(working_distance_m=limits),
            bind="tcp://127.0.0.1:*",
            keys=None,
            armed=True,
            stop=threading.Event(),
        )


def test_many_clients_after_each_other(served, connect):
    endpoint = served(simulated())
    begun_s = time.perf_counter()
    for _ in range(40):
        near = connect(endpoint)
        assert near.acquire(5.0).header.sequence == 1
        near.close()
    assert time.perf_counter() - begun_s < 20


_BARE = """
import sys

LITTLE = {"numpy", "zmq", "msgspec", "yaml", "rich", "pygments", "markdown_it", "mdurl"}

class Bare:
    # A Python in which nothing else is installed.
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in LITTLE | {"semagent", "semagent_drivers"} or top in sys.stdlib_module_names:
            return None
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Bare())
from semagent.cli import main

sys.exit(main(sys.argv[1:]))
"""


def test_the_microscope_pc_needs_little(connect, tmp_path):
    """What ``docs/remote.md`` says to install there is enough to lend out a microscope."""
    with FakeSharkSem() as fake:
        shipped = find_config("sharksem").read_text(encoding="utf-8")
        own = shipped.replace(" port: 8300", f" port: {fake.port}")
        own = own.replace(" data_port: null", f" data_port: {fake.data_port}")
        path = tmp_path / "sem.yaml"
        path.write_text(own, encoding="utf-8")
        arguments = ["serve", str(path), "--bind", "tcp://127.0.0.1:*"]
        server = subprocess.Popen(
            [sys.executable, "-c", _BARE, *arguments], stderr=subprocess.PIPE, text=True
        )
        try:
            assert server.stderr is not None
            said = []
            for line in server.stderr:
                said.append(line)
                if "Ctrl-C ends" in line:
                    break
            address = next(line for line in said if "listens on" in line)
            assert "never been run on its hardware" in "".join(said)
            assert "type arm to arm the gate" in said[-1]
            endpoint = next(word for word in address.split() if word.startswith("tcp://"))
            near = connect(endpoint.rstrip(","))
            assert near.capabilities.driver == "sharksem"
            assert near.acquire(20.0).pixels.any()
            near.close()
        finally:
            server.terminate()
            server.communicate(timeout=30)


def test_a_doctor_for_a_microscope_pc_names_what_is_missing():
    done = subprocess.run(
        [sys.executable, "-c", _BARE, "doctor", "smartsem"],
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
        env={**os.environ, "COLUMNS": "400", "PYTHONUTF8": "1"},
    )
    assert done.returncode == exits.FAILED
    assert not done.stderr
    said = {line.split("│")[1].strip(): line for line in done.stdout.splitlines() if "│" in line}
    for module in ("cv2", "tifffile", "imagecodecs"):
        assert "only serves its microscope needs it not" in said[module]
    assert 'pip install "semagent[smartsem]"' in said["Python package tifffile"]
    assert "regsvr32" in said["COM server CZ.EMApiCtrl.1"]
    assert "driver smartsem needs what is not here" in said["driver"]
