"""Keys: made once, for their owner only, and refused with the reason when something is wrong."""

import os
import stat

import pytest
import zmq
import zmq.auth
from hypothesis import given
from hypothesis import strategies as st

from semagent.errors import ConfigError, UsageError
from semagent.keys import check_endpoint, load_client_keys, load_server_keys, make_keys

posix_only = pytest.mark.skipif(os.name != "posix", reason="this system has no such permissions")


@pytest.fixture
def folder(tmp_path):
    make_keys(tmp_path)
    return tmp_path


def server(folder):
    return load_server_keys(folder / "microscope")


def client(folder):
    return load_client_keys(folder / "agent" / "client.key_secret", folder / "agent" / "server.key")


def test_the_two_folders_fit_together(folder):
    mine, theirs = client(folder), server(folder)
    assert mine.server == theirs.public
    assert theirs.clients == {mine.public: "agent"}
    assert zmq.curve_public(mine.secret) == mine.public
    assert zmq.curve_public(theirs.secret) == theirs.public


def test_it_says_which_files_it_made(tmp_path):
    made = make_keys(tmp_path / "new" / "folder")
    assert sorted(path.name for path in made) == [
        "agent.key",
        "client.key_secret",
        "server.key",
        "server.key_secret",
    ]
    assert all(path.is_file() for path in made)


def test_each_machine_gets_only_its_own_secret(folder):
    secrets = {"microscope": server(folder).secret, "agent": client(folder).secret}
    for machine, own in secrets.items():
        texts = b"".join(p.read_bytes() for p in (folder / machine).rglob("*") if p.is_file())
        assert own in texts
        assert not any(other in texts for other in secrets.values() if other != own)


def test_other_zeromq_tools_read_the_files(folder):
    public, secret = zmq.auth.load_certificate(folder / "agent" / "client.key_secret")
    assert (public, secret) == (client(folder).public, client(folder).secret)


def test_two_sets_of_keys_differ(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    make_keys(other)
    assert client(other).secret != client(folder).secret
    assert server(other).secret != server(folder).secret


@posix_only
def test_secrets_are_for_their_owner_only(folder):
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*.key*")}
    assert modes["server.key_secret"] == modes["client.key_secret"] == 0o600


@pytest.mark.parametrize("name", ["microscope/server.key_secret", "agent/server.key"])
def test_nothing_is_overwritten_nor_half_made(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    path.write_text("precious")
    with pytest.raises(UsageError, match="exists already"):
        make_keys(tmp_path)
    assert path.read_text() == "precious"
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [path]


def test_a_file_that_somebody_makes_meanwhile_is_not_overwritten(tmp_path, monkeypatch):
    path = tmp_path / "microscope" / "server.key_secret"
    path.parent.mkdir()
    path.write_text("precious")
    monkeypatch.setattr("pathlib.Path.exists", lambda _path: False)
    with pytest.raises(UsageError, match=r"server\.key_secret: cannot be written"):
        make_keys(tmp_path)
    assert path.read_text() == "precious"


def test_all_of_them_are_made_or_none(tmp_path):
    (tmp_path / "agent").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        make_keys(tmp_path)
    assert not [path for path in (tmp_path / "microscope").rglob("*") if path.is_file()]


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"cannot be written: [^\[]*$"):
        make_keys(tmp_path / "file")


def test_secrets_do_not_show(folder):
    for keys in (server(folder), client(folder)):
        assert keys.secret.decode() not in repr(keys)
        assert keys.secret.decode() not in str(keys)


# -- what is wrong is named ---------------------------------------------------------------------


def test_a_missing_file_says_how_to_make_it(tmp_path):
    with pytest.raises(ConfigError, match=r"server\.key_secret: cannot be read.*semagent keys DIR"):
        load_server_keys(tmp_path)


def test_a_server_nobody_may_connect_to(folder):
    (folder / "microscope" / "clients" / "agent.key").unlink()
    with pytest.raises(ConfigError, match=r"clients: holds no \*\.key file"):
        server(folder)


def test_the_same_client_twice(folder):
    clients = folder / "microscope" / "clients"
    (clients / "copy.key").write_bytes((clients / "agent.key").read_bytes())
    with pytest.raises(ConfigError, match=r"copy\.key: holds the same key as agent\.key"):
        server(folder)


def test_a_secret_where_a_public_key_belongs(folder):
    secret = folder / "agent" / "client.key_secret"
    with pytest.raises(ConfigError, match="must stay on the machine"):
        load_client_keys(secret, secret)
    (folder / "microscope" / "clients" / "agent.key").write_bytes(secret.read_bytes())
    with pytest.raises(ConfigError, match="must stay on the machine"):
        server(folder)


def test_a_public_key_where_a_secret_belongs(folder):
    public = folder / "agent" / "server.key"
    with pytest.raises(ConfigError, match="holds no secret-key"):
        load_client_keys(public, public)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (b"", "no ZeroMQ certificate"),
        (b"\xff\xfe\x00garbage", "no ZeroMQ certificate"),
        (b'public-key = "short"', "5 characters, not 40"),
        (b'public-key = "123"', "is no key"),
        (b'public-key = "' + b"\x7f" * 40 + b'"', "is no key"),
        (b'public-key = "' + "é".encode() * 20 + b'"', "is no key"),
    ],
)
def test_a_file_that_is_no_key(folder, text, complaint):
    path = folder / "agent" / "server.key"
    path.write_bytes(text)
    with pytest.raises(ConfigError, match=rf"server\.key: .*{complaint}"):
        client(folder)


@pytest.mark.parametrize("secret", [b"short", b"\x7f" * 40, b"0" * 39])
def test_a_secret_that_is_no_key(folder, secret):
    path = folder / "agent" / "client.key_secret"
    path.write_bytes(path.read_bytes().replace(client(folder).secret, secret))
    with pytest.raises(ConfigError, match="its secret-key is no key"):
        client(folder)


def test_two_halves_that_do_not_belong_together(folder):
    path = folder / "agent" / "client.key_secret"
    path.write_bytes(path.read_bytes().replace(client(folder).secret, server(folder).secret))
    with pytest.raises(ConfigError, match="do not belong together"):
        client(folder)


@posix_only
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_a_secret_that_others_can_read(folder, mode):
    path = folder / "agent" / "client.key_secret"
    path.chmod(mode)
    with pytest.raises(ConfigError, match=r"other users can read this secret; `chmod 600"):
        client(folder)


# -- endpoints ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "endpoint",
    [
        "tcp://127.0.0.1:5555",
        "tcp://127.9.8.7:1",
        "tcp://localhost:65535",
        "tcp://[::1]:5555",
        "tcp://127.0.0.1:*",
    ],
)
def test_loopback_needs_no_keys(endpoint):
    check_endpoint(endpoint, has_keys=False, where="test")


@pytest.mark.parametrize(
    "endpoint",
    [
        "tcp://*:5555",
        "tcp://0.0.0.0:5555",
        "tcp://[::]:5555",
        "tcp://192.168.0.7:5555",
        "tcp://128.0.0.1:5555",
        "tcp://eth0:5555",
        "tcp://localhost.example:5555",
        "tcp://127.0.0.1.example:5555",
        "tcp://[fe80::1]:5555",
    ],
)
def test_anything_else_needs_keys(endpoint):
    with pytest.raises(ConfigError, match=r"^--bind: .*without keys.*semagent keys DIR"):
        check_endpoint(endpoint, has_keys=False, where="--bind")
    check_endpoint(endpoint, has_keys=True, where="--bind")


@pytest.mark.parametrize(
    "endpoint",
    [
        "",
        "127.0.0.1:5555",
        "tcp://127.0.0.1",
        "tcp://127.0.0.1:0",
        "tcp://127.0.0.1:65536",
        "tcp://127.0.0.1:port",
        "tcp://:5555",
        "tcp://-sem-pc:5555",
        "tcp://.:5555",
        "tcp://::1:5555",
        "udp://127.0.0.1:5555",
        "tcp://127.0.0.1:5555/x",
        "tcp://127.0.0.1:5555;tcp://0.0.0.0:5555",
        "tcp://eth0;127.0.0.1:5555",
        " tcp://127.0.0.1:5555",
    ],
)
def test_what_is_no_endpoint(endpoint):
    with pytest.raises(ConfigError, match="not of the form tcp://host:port"):
        check_endpoint(endpoint, has_keys=True, where="test")


@given(st.text(max_size=30))
def test_no_text_is_taken_for_loopback_by_mistake(text):
    try:
        check_endpoint(f"tcp://{text}:5555", has_keys=False, where="test")
    except ConfigError:
        return
    assert text == "localhost" or text.startswith(("127.", "["))
