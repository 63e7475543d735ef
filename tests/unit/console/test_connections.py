"""A process can have but so many connections, and whoever wants STOP needs one."""

import asyncio
import json
import socket
import ssl
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack

import pytest
from websockets.sync.client import connect

from semagent.config import ConsoleOptions
from semagent.console import RunFacts, web

from .bench import TOKENS, Run
from .conftest import served

Begun = Callable[[socket.socket], object]


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "_IDLE_S", 0.1)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "_MOST_IDLE", 2)


def connected(run: Run) -> socket.socket:
    return socket.create_connection(("127.0.0.1", run.port), timeout=4)


def a_request(run: Run) -> bytes:
    return b"GET / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % run.port


def nothing(_: socket.socket) -> None:
    """Say nothing at all."""


def a_letter(link: socket.socket) -> None:
    link.sendall(b"G")


def half_a_request(link: socket.socket) -> None:
    host = b"127.0.0.1:%d" % link.getpeername()[1]
    head = b"POST /login HTTP/1.1\r\nHost: %s\r\nOrigin: http://%s\r\n" % (host, host)
    link.sendall(head + b"Content-Length: 9\r\n\r\nt")


def half_a_hello(link: socket.socket) -> None:
    link.sendall(b"\x16\x03\x01\x02\x00\x01")


def secured(link: socket.socket) -> ssl.SSLSocket:
    return trusting().wrap_socket(link)


def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def rest(link: socket.socket) -> bytes:
    """All that comes until it is closed, by the book or not."""
    parts = []
    try:
        while part := link.recv(4096):
            parts.append(part)
    except ConnectionError:
        pass
    return b"".join(parts)


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("begin", [nothing, a_letter, half_a_request])
def test_one_that_does_not_ask_in_time_is_closed(run: Run, begin: Begun):
    with connected(run) as idle:
        begin(idle)
        assert rest(idle) == b""


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("begin", [nothing, half_a_hello])
def test_one_that_does_not_come_to_tls_in_time_is_closed(secure_run: Run, begin: Begun):
    with connected(secure_run) as idle:
        begin(idle)
        assert rest(idle) == b""


def test_one_that_does_not_ask_in_time_after_tls_is_closed(
    secure_run: Run, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(web, "_IDLE_S", 1.0)  # TLS takes its time on a busy machine
    with secured(connected(secure_run)) as idle:
        assert rest(idle) == b""


@pytest.mark.usefixtures("hasty")
def test_one_that_asks_half_a_second_time_is_closed(run: Run):
    with connected(run) as link:
        link.sendall(a_request(run))
        assert link.recv(12) == b"HTTP/1.1 401"
        link.sendall(b"G")
        rest(link)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("begin", [nothing, a_letter])
def test_where_there_are_too_many_the_longest_idle_gives_way(run: Run, begin: Begun):
    with ExitStack() as links:
        first, *_, last = [links.enter_context(connected(run)) for _ in range(3)]
        for link in (first, last):
            begin(link)
        assert rest(first) == b""
        last.sendall(a_request(run)[1 if begin is a_letter else 0 :])
        assert last.recv(12) == b"HTTP/1.1 401"


@pytest.mark.usefixtures("small")
def test_where_too_many_do_not_come_to_tls_the_longest_idle_gives_way(secure_run: Run):
    with ExitStack() as links:
        first, *_ = [links.enter_context(connected(secure_run)) for _ in range(3)]
        assert rest(first) == b""
        last = links.enter_context(secured(connected(secure_run)))
        last.sendall(a_request(secure_run))
        assert last.recv(12) == b"HTTP/1.1 401"


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("kind", ["run", "secure_run"])
def test_who_looks_on_keeps_the_connection(
    kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(web, "_IDLE_S", 1.0)  # TLS takes its time on a busy machine
    run: Run = request.getfixturevalue(kind)
    scheme, tls = ("ws", None) if kind == "run" else ("wss", trusting())
    headers = {"Authorization": f"Bearer {TOKENS.viewer}"}
    url = f"{scheme}://127.0.0.1:{run.port}/live"
    with connect(url, additional_headers=headers, ssl=tls) as socket, ExitStack() as links:
        for _ in range(5):
            links.enter_context(connected(run))
        time.sleep(1.5)
        assert "hello" in json.loads(socket.recv(timeout=10))
        socket.ping().wait(10)


def test_a_request_that_comes_together_with_the_end_of_tls_is_answered(secure_run: Run):
    said, heard = ssl.MemoryBIO(), ssl.MemoryBIO()
    link = trusting().wrap_bio(heard, said)
    with connected(secure_run) as raw:
        while True:
            try:
                link.do_handshake()
                break
            except ssl.SSLWantReadError:
                raw.sendall(said.read())
                heard.write(raw.recv(4096))
        link.write(a_request(secure_run))
        raw.sendall(said.read())
        answer = b""
        while b"HTTP/1.1 401" not in answer:
            heard.write(raw.recv(4096))
            try:
                answer += link.read(4096)
            except ssl.SSLWantReadError:
                continue


def test_the_cookie_of_a_console_with_tls_never_travels_without(secure_run: Run):
    request = a_request(secure_run).replace(b"GET /", f"GET /?token={TOKENS.viewer}".encode())
    with secured(connected(secure_run)) as link:
        link.sendall(request)
        assert b"; secure" in link.recv(4096).lower()


def answers(run: Run, path: str, **headers: str) -> bytes:
    """All that comes of three requests in a row, the last of which asks for the end."""
    lines = [
        f"{name}: {value}" for name, value in {"Host": f"127.0.0.1:{run.port}", **headers}.items()
    ]
    request = "\r\n".join([f"GET {path} HTTP/1.1", *lines])
    with connected(run) as link:
        link.sendall(f"{request}\r\n\r\n".encode() * 2)
        link.sendall(f"{request}\r\nConnection: close\r\n\r\n".encode())
        return rest(link)


@pytest.mark.parametrize("path", ["/", "/static/style.css", "/?token=wrong"])
def test_who_is_not_signed_in_gets_one_answer_a_connection(run: Run, path: str):
    assert answers(run, path).count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize("path", ["/api/facts", "/static/style.css"])
def test_who_is_signed_in_gets_an_answer_to_all_requests(run: Run, path: str):
    signed_in = answers(run, path, Authorization=f"Bearer {TOKENS.viewer}")
    assert signed_in.count(b"HTTP/1.1 200") == 3


def test_who_asks_and_asks_without_waiting_for_answers_is_sent_away(run: Run):
    """What comes meanwhile is kept until its turn comes; much of it has STOP wait."""
    head = f"GET /static/live.js HTTP/1.1\r\nHost: 127.0.0.1:{run.port}\r\n"
    request = f"{head}Authorization: Bearer {TOKENS.viewer}\r\n\r\n".encode()

    def ask() -> None:
        link.sendall(request * 100_000)
        while sys.platform == "win32" and link.recv(4096):  # it takes all of it before it looks
            pass

    with connected(run) as link, pytest.raises(ConnectionError):
        ask()


def test_it_does_not_run_on_the_loop_that_is_usual_on_windows(
    facts: RunFacts, monkeypatch: pytest.MonkeyPatch
):
    def proactor() -> None:
        pytest.fail("it stops listening after a client that gave up: python/cpython#93821")

    monkeypatch.setattr(asyncio, "new_event_loop", proactor)
    monkeypatch.setattr(asyncio.events, "new_event_loop", proactor)
    with served(facts, ConsoleOptions(port=0)) as run, connected(run):
        pass
