"""Where the console listens, and which addresses it may listen on."""

import ipaddress
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

from semagent.config import ConsoleOptions
from semagent.errors import ConfigError

DEFAULT_PORT = 8642
_LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")


@dataclass(frozen=True, slots=True)
class Listener:
    """A bound socket.

    Attributes:
        url: what to type into a browser on this machine, without a token.
        hosts: values of the header ``Host`` that are answered: a page of another name that was
            made to point here must not reach the microscope.
        tls: with certificate and key, ``None`` for plain HTTP.
    """

    socket: socket.socket
    url: str
    port: int
    hosts: frozenset[str]
    tls: ssl.SSLContext | None

    def close(self) -> None:
        """Stop listening. May be called twice."""
        self.socket.close()


def listen(options: ConsoleOptions, earlier_port: int | None = None) -> Listener:
    """Bind the address the options give.

    Args:
        options: section ``console`` of the configuration.
        earlier_port: where an earlier process of this run listened, to be found there again.

    Raises:
        ConfigError: the address leaves this machine without TLS, the certificate cannot be used,
            or the port is taken.
    """
    tls = check_access(options)
    port = options.port if options.port is not None else earlier_port
    bound = _bind(options.host, DEFAULT_PORT if port is None else port, or_any=port is None)
    port = bound.getsockname()[1]
    scheme = "http" if tls is None else "https"
    shown = "127.0.0.1" if options.host in ("0.0.0.0", "::") else options.host  # noqa: S104
    shown = f"[{shown}]" if ":" in shown else shown
    return Listener(
        socket=bound,
        url=f"{scheme}://{shown}:{port}",
        port=port,
        hosts=frozenset(
            [f"{name}:{port}" for name in (*_LOOPBACK_NAMES, shown)]
            + [name.lower() for name in options.names]
        ),
        tls=tls,
    )


def check_access(options: ConsoleOptions) -> ssl.SSLContext | None:
    """TLS with certificate and key, ``None`` for plain HTTP on this machine.

    Raises:
        ConfigError: the address leaves this machine without TLS, or the certificate cannot be used.
    """
    tls = _tls(options)
    if not _is_loopback(options.host) and tls is None:
        raise ConfigError(
            f"console: host: {options.host} can be reached from other machines, where tokens and "
            "commands could be read on their way. Give certificate and key for TLS, or stay at "
            "127.0.0.1 and put a reverse proxy with TLS in front (docs/console.md says how)"
        )
    return tls


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        raise ConfigError(
            f"console: host: {host!r} is no address to listen on; give one such as 127.0.0.1, "
            "and names under which browsers come in console: names"
        ) from None


def _tls(options: ConsoleOptions) -> ssl.SSLContext | None:
    if options.certificate is None and options.key is None:
        return None
    if options.certificate is None or options.key is None:
        missing = "certificate" if options.certificate is None else "key"
        raise ConfigError(f"console: {missing}: is missing; TLS needs both certificate and key")
    files = Path(options.certificate), Path(options.key)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        tls.load_cert_chain(*files)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"console: certificate {files[0]} with key {files[1]} cannot be used: {error}"
        ) from error
    return tls


def _bind(host: str, port: int, *, or_any: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=64)
    except OSError as error:
        if or_any:
            return _bind(host, 0, or_any=False)
        raise ConfigError(
            f"console: port: {host}:{port} cannot be listened on: {error}; give another port, or "
            "0 for any free one"
        ) from error
