"""The ZMQ bridge of a running Micro-Manager: the wire of PyJavaZ, version 5.

A request is JSON in one part over REQ; a reply is JSON, followed by a pair of parts (identity and
bytes) for each array in it, whose place in the JSON holds ``@`` and the identity in hexadecimal.

The client that comes with pycro-manager waits for answers without end, in destructors too, so a
Micro-Manager that hangs would take semagent with it. Here every wait has a deadline.
"""

import json
import time
from typing import Any

import numpy as np
import zmq

from semagent.errors import DisconnectedError, MicroscopeTimeoutError
from semagent_drivers.micromanager.core import Argument, CoreError, Image, Rectangle

VERSION = "5"
CORE = "mmcorej.CMMCore"

# What Java's overloads accept of what Python has; wider types last.
_ACCEPTS: dict[str, tuple[type, ...]] = {
    "java.lang.String": (str,),
    "boolean": (bool,),
    "int": (int,),
    "long": (int,),
    "double": (float, int),
    "float": (float, int),
}

Json = dict[str, Any]


class BridgeCore:
    """The core of a Micro-Manager whose ZMQ server is on.

    Args:
        host: its machine.
        port: of the server.
        timeout_s: for the connection.

    Raises:
        DisconnectedError: nobody answers there, the bridge is of another major version, or it
            makes no core.
    """

    def __init__(self, host: str, port: int, timeout_s: float) -> None:
        self._where = f"Micro-Manager at {host}:{port}"
        self._gone: str | None = None
        self._owed = False
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.REQ)
        self._socket.linger = 0
        self._socket.connect(f"tcp://{host}:{port}")
        try:
            self._connect(timeout_s)
        except CoreError as error:
            self.close()
            raise DisconnectedError(f"{self._where} makes no {CORE}: {error}") from error
        except (KeyError, TypeError) as error:
            self.close()
            raise DisconnectedError(f"{self._where} speaks another language: {error!r}") from error
        except BaseException:
            self.close()
            raise

    def call(self, name: str, *arguments: Argument, timeout_s: float) -> Any:
        """See `Core`."""
        return _value(self._method(name, arguments, timeout_s))

    def post(self, name: str, *arguments: Argument) -> None:
        """See `Core`. The answer is taken up, and thrown away, before the next question."""
        if self._gone is None and not self._owed:
            types = _overload(name, self._methods.get(name, []), arguments)
            self._send(_run(self._hash, name, types, arguments))
            self._owed = True

    def pop_image(self, *, timeout_s: float) -> Image:
        """See `Core`."""
        image = self.call("popNextImage", timeout_s=timeout_s)
        if not isinstance(image, np.ndarray):
            raise CoreError(f"popNextImage returned {type(image).__name__}, not grey pixels")
        return image

    def roi(self, *, timeout_s: float) -> Rectangle:
        """See `Core`. The core returns a Java rectangle, of which only a reference comes."""
        rectangle = self._method("getROI", (), timeout_s)
        reference = rectangle["hash-code"]
        x, y, width, height = (
            int(
                _value(
                    self._ask(
                        {"command": "get-field", "hash-code": reference, "name": field}, timeout_s
                    )
                )
            )
            for field in ("x", "y", "width", "height")
        )
        self._forget(reference, timeout_s)
        return x, y, width, height

    def close(self) -> None:
        """See `Core`."""
        if self._gone is None and hasattr(self, "_hash"):
            try:
                self._forget(self._hash, 1.0)
            except (CoreError, DisconnectedError, MicroscopeTimeoutError):
                self._gone = "closed"
        self._gone = self._gone or "closed"
        self._socket.close()
        self._context.term()

    def _connect(self, timeout_s: float) -> None:
        try:
            welcome = self._ask({"command": "connect", "debug": False}, timeout_s)
        except MicroscopeTimeoutError as error:
            raise DisconnectedError(
                f"{self._where} does not answer: is it running, with Tools > Options > "
                "Run server on port switched on?"
            ) from error
        version = str(welcome.get("version", "before 3"))
        if version.partition(".")[0] != VERSION:
            raise DisconnectedError(
                f"{self._where} speaks version {version} of its bridge, not {VERSION}; install a "
                "nightly build of Micro-Manager 2.0 from 2023 or later"
            )
        constructors = self._ask({"command": "get-constructors", "classpath": CORE}, timeout_s)
        if not any(each["name"] == CORE for each in constructors["api"]):
            raise DisconnectedError(f"{self._where} offers no {CORE}")
        core = self._ask(
            {
                "command": "constructor",
                "classpath": CORE,
                "argument-types": [],
                "argument-deserialization-types": [],
                "arguments": [],
            },
            timeout_s,
        )
        self._hash = core["hash-code"]
        self._methods: dict[str, list[list[str]]] = {}
        for method in core["api"]:
            self._methods.setdefault(method["name"], []).append(method["arguments"])

    def _method(self, name: str, arguments: tuple[Argument, ...], timeout_s: float) -> Json:
        types = _overload(name, self._methods.get(name, []), arguments)
        return self._ask(_run(self._hash, name, types, arguments), timeout_s)

    def _forget(self, reference: str, timeout_s: float) -> None:
        """Let Java collect an object."""
        self._ask(
            {"command": "destructor", "hash-code": reference, "java_class_name": CORE}, timeout_s
        )

    def _ask(self, request: Json, timeout_s: float) -> Json:
        """One question and its answer.

        Raises:
            CoreError: the answer is an exception.
            MicroscopeTimeoutError: none came in time.
            DisconnectedError: the link is gone.
        """
        if self._gone is not None:
            raise DisconnectedError(f"{self._where}: {self._gone}")
        what = str(request.get("name", request["command"]))
        deadline_s = time.perf_counter() + timeout_s
        if self._owed:
            self._receive(what, timeout_s, deadline_s)
            self._owed = False
        self._send(request)
        reply = self._receive(what, timeout_s, deadline_s)
        if reply.get("type") == "exception":
            raise CoreError(str(reply.get("value") or reply.get("message")).partition("\n")[0])
        return reply

    def _send(self, request: Json) -> None:
        try:
            self._socket.send(json.dumps(request).encode("iso-8859-1"), zmq.NOBLOCK)
        except zmq.ZMQError as error:
            raise self._lose(str(error)) from error

    def _receive(self, what: str, timeout_s: float, deadline_s: float) -> Json:
        left_ms = round(max(0.0, deadline_s - time.perf_counter()) * 1e3)
        try:
            if not self._socket.poll(left_ms):
                # The answer may still come, and the socket takes no other question before it.
                self._gone = f"no answer to {what} within {timeout_s:g} s"
                raise MicroscopeTimeoutError(f"{self._where}: {self._gone}")
            return _decode(self._socket.recv_multipart())
        except zmq.ZMQError as error:
            raise self._lose(str(error)) from error
        except ValueError as error:
            raise self._lose(f"an answer that cannot be read: {error}") from error

    def _lose(self, reason: str) -> DisconnectedError:
        self._gone = reason
        return DisconnectedError(f"{self._where}: {reason}")


def _run(reference: str, name: str, types: list[str], arguments: tuple[Argument, ...]) -> Json:
    return {
        "command": "run-method",
        "static": False,
        "hash-code": reference,
        "java_class_name": CORE,
        "name": name,
        "argument-types": types,
        "argument-deserialization-types": types,
        "arguments": [
            float(value) if java in ("double", "float") else value
            for value, java in zip(arguments, types, strict=True)
        ],
    }


def _overload(name: str, overloads: list[list[str]], arguments: tuple[Argument, ...]) -> list[str]:
    """Java types of the overload that takes these arguments."""
    for types in overloads:
        if len(types) == len(arguments) and all(
            # A bool is an int to Python, not to Java.
            isinstance(value, _ACCEPTS.get(java, ()))
            and isinstance(value, bool) == (java == "boolean")
            for value, java in zip(arguments, types, strict=True)
        ):
            return types
    given = ", ".join(type(value).__name__ for value in arguments)
    raise CoreError(f"this Micro-Manager has no {name}({given})")


def _decode(parts: list[bytes]) -> Json:
    reply = json.loads(parts[0].decode("iso-8859-1"))
    if not isinstance(reply, dict):
        raise ValueError(f"{type(reply).__name__} where an object is expected")
    arrays = {
        f"@{int.from_bytes(identity, 'little'):x}": data
        for identity, data in zip(parts[1::2], parts[2::2], strict=True)
    }
    value = reply.get("value")
    if isinstance(value, str) and value in arrays:
        reply["value"] = arrays[value]
    return reply


def _value(reply: Json) -> Any:
    """What a reply means to Python."""
    match reply.get("type"):
        case "null" | "none":
            return None
        case "primitive" | "string":
            return reply["value"]
        case "byte-array":
            return np.frombuffer(reply["value"], np.uint8)
        case "short-array":
            return np.frombuffer(reply["value"], np.uint16)
        case kind:
            raise CoreError(f"an answer of type {kind}")
