"""Keys for connections between machines: CurveZMQ certificates in plain files.

Two machines, two folders, written together by `make_keys`::

    DIR/microscope/server.key_secret     secret key of the microscope PC
    DIR/microscope/clients/agent.key     public keys of those who may connect
    DIR/agent/client.key_secret          secret key of the machine the agent runs on
    DIR/agent/server.key                 public key of the microscope PC

The files have the layout of ZeroMQ certificates, so that other ZeroMQ tools read them. CurveZMQ
(rfc.zeromq.org/spec/26) encrypts both ways and lets each side prove who it is; nothing in it
depends on the network between the two.
"""

import ipaddress
import os
import re
import stat
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import zmq
import zmq.auth

from semagent.errors import ConfigError, UsageError

SERVER_FOLDER = "microscope"
CLIENT_FOLDER = "agent"
_HOW_TO_MAKE = (
    f"make keys with `semagent keys DIR`, then bring DIR/{SERVER_FOLDER} to the microscope PC "
    f"and DIR/{CLIENT_FOLDER} to the machine of the agent"
)
_ENDPOINT = re.compile(
    r"tcp://(?P<host>\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z][0-9A-Za-z._-]*|\*):(?P<port>[0-9]{1,5}|\*)"
)


@dataclass(frozen=True, slots=True)
class ServerKeys:
    """What the microscope PC needs; keys are Z85 text of 40 characters.

    Attributes:
        clients: name of each client that may connect, by its public key.
    """

    public: bytes
    secret: bytes
    clients: Mapping[bytes, str]

    def __repr__(self) -> str:
        return f"ServerKeys(public={self.public!r}, clients={list(self.clients.values())})"


@dataclass(frozen=True, slots=True)
class ClientKeys:
    """What the agent's machine needs; keys are Z85 text of 40 characters."""

    public: bytes
    secret: bytes
    server: bytes

    def __repr__(self) -> str:
        return f"ClientKeys(public={self.public!r}, server={self.server!r})"


def make_keys(folder: Path) -> list[Path]:
    """Make the keys of one microscope PC and one client in ``folder``; returns the files.

    All of them are made, or none.

    Secret files can be read by their owner only, where the operating system has such
    permissions; on Windows they inherit those of the folder.

    Raises:
        UsageError: one of the files exists already, which is never overwritten, or the folder
            cannot be written to.
    """
    server_public, server_secret = zmq.curve_keypair()
    client_public, client_secret = zmq.curve_keypair()
    files: dict[Path, tuple[bytes, bytes | None]] = {
        folder / SERVER_FOLDER / "server.key_secret": (server_public, server_secret),
        folder / SERVER_FOLDER / "clients" / "agent.key": (client_public, None),
        folder / CLIENT_FOLDER / "client.key_secret": (client_public, client_secret),
        folder / CLIENT_FOLDER / "server.key": (server_public, None),
    }
    for path in files:
        if path.exists():
            raise UsageError(
                f"{path}: exists already, and keys are never overwritten; name another folder"
            )
    with ExitStack() as half_made:
        for path, (public, secret) in files.items():
            _write(path, public, secret, half_made)
        half_made.pop_all()
    return list(files)


def load_server_keys(folder: Path) -> ServerKeys:
    """Read the folder of the microscope PC, ``server.key_secret`` and ``clients/*.key``.

    Raises:
        ConfigError: a file is missing, is no certificate, can be read by other users, or nobody
            is allowed to connect; the message names the file.
    """
    public, secret = _read_secret(folder / "server.key_secret")
    clients: dict[bytes, str] = {}
    for path in sorted((folder / "clients").glob("*.key")):
        key = _read_public(path)
        if key in clients:
            raise ConfigError(f"{path}: holds the same key as {clients[key]}.key; remove one")
        clients[key] = path.stem
    if not clients:
        raise ConfigError(
            f"{folder / 'clients'}: holds no *.key file, so nobody could connect; {_HOW_TO_MAKE}"
        )
    return ServerKeys(public, secret, clients)


def load_client_keys(secret: Path, server: Path) -> ClientKeys:
    """Read the client's secret certificate and the server's public one.

    Raises:
        ConfigError: a file is missing, is no certificate or can be read by other users; the
            message names the file.
    """
    public_key, secret_key = _read_secret(secret)
    return ClientKeys(public_key, secret_key, _read_public(server))


def check_endpoint(endpoint: str, *, has_keys: bool, where: str) -> None:
    """Refuse an endpoint that is none, or that leaves this machine without keys.

    Args:
        endpoint: ``tcp://host:port``; the port may be ``*`` where one binds.
        has_keys: whether the connection will be encrypted and authenticated.
        where: option or argument the endpoint was given in, to begin the message with.

    Raises:
        ConfigError: see above; the message says how to make keys.
    """
    found = _ENDPOINT.fullmatch(endpoint)
    if found is None or (found["port"] != "*" and not 0 < int(found["port"]) < 65536):
        raise ConfigError(f"{where}: {endpoint!r} is not of the form tcp://host:port")
    if not has_keys and not _is_loopback(found["host"].strip("[]")):
        raise ConfigError(
            f"{where}: {endpoint} can be reached from other machines, and without keys anybody "
            f"there could drive the microscope. Use tcp://127.0.0.1:{found['port']}, or "
            f"{_HOW_TO_MAKE}"
        )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        # A name may point anywhere, and to somewhere else tomorrow.
        return False


def _write(path: Path, public: bytes, secret: bytes | None, half_made: ExitStack) -> None:
    lines = [
        "#   ZeroMQ CURVE certificate made by semagent.",
        "#   SECRET: keep it on one machine, readable by one user." if secret else "#   Public.",
        "metadata",
        "curve",
        f'    public-key = "{public.decode()}"',
    ]
    if secret:
        lines.append(f'    secret-key = "{secret.decode()}"')
    mode = stat.S_IRUSR | stat.S_IWUSR
    if secret is None:
        mode |= stat.S_IRGRP | stat.S_IROTH
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Created with its permissions, so that there is no moment in which others could read
        # it, and never over a file that somebody has made meanwhile.
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        half_made.callback(path.unlink)
        with open(handle, "w", encoding="ascii") as file:  # noqa: PTH123 - of a descriptor
            file.write("\n".join(lines) + "\n")
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror or error}") from error


def _read_secret(path: Path) -> tuple[bytes, bytes]:
    public, secret = _read(path)
    if secret is None:
        raise ConfigError(f"{path}: holds no secret-key; it is a public certificate")
    try:
        matches = zmq.curve_public(secret) == public
    except (zmq.ZMQError, ValueError) as error:
        raise ConfigError(f"{path}: its secret-key is no key: {error}") from error
    if not matches:
        raise ConfigError(f"{path}: its two keys do not belong together; make new keys")
    if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(
            f"{path}: other users can read this secret; `chmod 600 {path}`, and make new keys if "
            "somebody may have"
        )
    return public, secret


def _read_public(path: Path) -> bytes:
    public, secret = _read(path)
    if secret is not None:
        raise ConfigError(
            f"{path}: holds a secret-key, which must stay on the machine it belongs to; a public "
            "certificate (*.key) is expected here"
        )
    return public


def _read(path: Path) -> tuple[bytes, bytes | None]:
    try:
        public, secret = zmq.auth.load_certificate(path)
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read: {error.strerror or error}; {_HOW_TO_MAKE}"
        ) from error
    except ValueError as error:
        raise ConfigError(f"{path}: is no ZeroMQ certificate: {error}") from error
    try:
        whole = len(zmq.utils.z85.decode(public)) == 32
    except (KeyError, ValueError) as error:
        raise ConfigError(f"{path}: its public-key is no key: {error!r}") from error
    if not whole:
        raise ConfigError(f"{path}: its public-key has {len(public)} characters, not 40")
    return public, secret
