"""The console stays on this machine unless it can be trusted beyond it."""

import socket
from pathlib import Path

import msgspec
import pytest

from semagent.config import ConsoleOptions
from semagent.console import listen
from semagent.errors import ConfigError


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::"])
def test_other_machines_need_tls(host: str):
    with pytest.raises(ConfigError, match=r"certificate and key .*reverse proxy"):
        listen(ConsoleOptions(host=host, port=0))


def test_a_name_is_no_address():
    with pytest.raises(ConfigError, match="sem3"):
        listen(ConsoleOptions(host="sem3", port=0))


@pytest.mark.parametrize("given", ["certificate", "key"])
def test_half_a_certificate_is_none(given: str):
    with pytest.raises(ConfigError, match="both"):
        listen(ConsoleOptions(**{given: "server.pem"}))


def test_a_certificate_that_cannot_be_used_is_named(tmp_path: Path):
    path = tmp_path / "server.pem"
    path.write_text("no certificate", encoding="ascii")
    with pytest.raises(ConfigError, match=r"server\.pem"):
        listen(ConsoleOptions(certificate=str(path), key=str(path)))


def test_a_port_that_is_taken_is_an_error_when_it_was_asked_for():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"{port}"):
            listen(ConsoleOptions(port=port))


def test_without_a_port_it_takes_a_free_one():
    first = listen(ConsoleOptions())
    second = listen(ConsoleOptions())
    try:
        assert first.port != second.port
        assert f"127.0.0.1:{second.port}" in second.hosts
    finally:
        first.close()
        second.close()


def test_names_of_a_proxy_are_answered_to():
    listener = listen(ConsoleOptions(port=0, names=("SEM3.example.org",)))
    listener.close()
    assert "sem3.example.org" in listener.hosts


def test_with_tls_it_may_listen_everywhere(tls_options: ConsoleOptions):
    listener = listen(msgspec.structs.replace(tls_options, host="0.0.0.0"))
    listener.close()
    assert listener.url.startswith("https://127.0.0.1:")
