"""Who gets in, and what may be reached from outside this machine."""

import logging
import shutil
import socket

import pytest
import zmq

from semagent.clock import ManualClock
from semagent.errors import ConfigError, DisconnectedError
from semagent.keys import load_server_keys, make_keys
from semagent.remote.protocol import VERSION
from semagent.types import SetStigmator
from semagent_drivers.remote import open_microscope


@pytest.fixture
def folder(tmp_path):
    make_keys(tmp_path / "keys")
    return tmp_path / "keys"


@pytest.fixture
def far(serving, folder):
    return serving(keys=load_server_keys(folder / "microscope"))


def client_options(folder):
    return {
        "client_key": str(folder / "agent" / "client.key_secret"),
        "server_key": str(folder / "agent" / "server.key"),
    }


def test_the_right_keys_open(far, folder, connect, caplog):
    caplog.set_level(logging.INFO, "semagent.remote")
    near = connect(far.endpoint, **client_options(folder))
    near.apply(SetStigmator(x=0.1, y=0.0))
    assert near.acquire(1.0).pixels.shape == (24, 32)
    assert "(key agent) has the microscope" in caplog.text


def test_an_unknown_client_key_is_refused(far, folder, connect, tmp_path, caplog):
    make_keys(tmp_path / "other")
    options = client_options(folder) | {
        "client_key": str(tmp_path / "other" / "agent" / "client.key_secret")
    }
    with pytest.raises(DisconnectedError, match="not among those the server lets in"):
        connect(far.endpoint, **options)
    assert "turned away a client from 127.0.0.1" in caplog.text
    connect(far.endpoint, **client_options(folder))


def test_a_server_that_is_not_the_one_meant_is_refused(far, folder, connect, tmp_path):
    make_keys(tmp_path / "other")
    options = client_options(folder) | {
        "server_key": str(tmp_path / "other" / "agent" / "server.key")
    }
    with pytest.raises(DisconnectedError, match="do not trust each other"):
        connect(far.endpoint, **options)


def test_a_client_without_keys_is_refused_by_a_server_with_keys(far, connect):
    with pytest.raises(DisconnectedError, match="one has keys and the other has none"):
        connect(far.endpoint)


def test_a_server_without_keys_is_refused_by_a_client_with_keys(serving, connect, folder):
    with pytest.raises(DisconnectedError, match="one has keys and the other has none"):
        connect(serving().endpoint, **client_options(folder))


def test_a_second_machine_is_let_in_once_its_public_key_is_there(
    serving, connect, folder, tmp_path
):
    make_keys(tmp_path / "second")
    shutil.copy(
        tmp_path / "second" / "microscope" / "clients" / "agent.key",
        folder / "microscope" / "clients" / "second.key",
    )
    far = serving(keys=load_server_keys(folder / "microscope"))
    options = client_options(folder) | {
        "client_key": str(tmp_path / "second" / "agent" / "client.key_secret")
    }
    assert connect(far.endpoint, **options).read_state() == far.microscope.state


@pytest.mark.parametrize("bind", ["tcp://0.0.0.0:*", "tcp://*:5555", "tcp://eth0:5555"])
def test_a_server_without_keys_stays_on_this_machine(serving, bind):
    with pytest.raises(ConfigError, match="semagent keys DIR"):
        serving(bind=bind)


def test_a_server_with_keys_may_listen_to_the_network(serving, connect, folder):
    far = serving(bind="tcp://*:*", keys=load_server_keys(folder / "microscope"))
    port = far.endpoint.rpartition(":")[2]
    assert (
        connect(f"tcp://127.0.0.1:{port}", **client_options(folder)).read_state()
        == far.microscope.state
    )


@pytest.mark.parametrize("endpoint", ["tcp://192.168.1.20:5555", "tcp://sem-pc:5555"])
def test_a_client_without_keys_stays_on_this_machine(endpoint):
    with pytest.raises(ConfigError, match=r"endpoint: .*semagent keys DIR"):
        open_microscope({"endpoint": endpoint}, clock=ManualClock())


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({}, "endpoint"),
        ({"endpoint": "tcp://127.0.0.1:1", "port": 3}, "port"),
        ({"endpoint": "127.0.0.1:1"}, "not of the form tcp://host:port"),
        ({"endpoint": "ipc:///tmp/x"}, "not of the form tcp://host:port"),
        ({"endpoint": "tcp://127.0.0.1:1", "move_timeout_s": 0}, "move_timeout_s"),
        ({"endpoint": "tcp://127.0.0.1:1", "server_key": "a.key"}, "client_key is missing"),
        ({"endpoint": "tcp://127.0.0.1:1", "client_key": "a.key"}, "server_key is missing"),
        (
            {"endpoint": "tcp://127.0.0.1:1", "client_key": "no.key", "server_key": "no.key"},
            "no.key: cannot be read",
        ),
    ],
)
def test_wrong_options_say_what_is_wrong(options, complaint):
    with pytest.raises(ConfigError, match=complaint):
        open_microscope(options, clock=ManualClock())


def test_ipv6_loopback(serving, connect):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    far = serving(bind="tcp://[::1]:*")
    assert connect(far.endpoint).read_state() == far.microscope.state


def test_nonsense_from_a_stranger_costs_the_client_nothing(serving, connect):
    far = serving()
    near = connect(far.endpoint)
    no_text = b"\x82\xa2id\x01\xa3ask\x81\xa4type\xa4\xff\xff\xff\xff"
    with zmq.Context() as context, context.socket(zmq.DEALER) as stranger:
        stranger.connect(far.endpoint)
        for body in (no_text, b"\x81\xa1x" + b"\x91" * 60_000):
            stranger.send_multipart([VERSION, body])
            assert stranger.poll(5000)
            _, answer = stranger.recv_multipart()
            assert b"cannot be read" in answer
    near.apply(SetStigmator(x=0.1, y=0.0))
    assert len(far.microscope.applied) == 1
