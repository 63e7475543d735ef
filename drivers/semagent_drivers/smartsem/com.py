"""SmartSEM's COM control: every call either does what it says or raises."""

import math
from typing import Any

from semagent.errors import DisconnectedError, MicroscopeError

# Names as in ZEISS's table of the interface's errors.
_MEANINGS = {
    1000: "there is no such parameter",
    1001: "an analogue value cannot be read",
    1002: "a state cannot be read",
    1003: "that parameter cannot be read",
    1004: "there is no such parameter",
    1005: "a state cannot be set",
    1006: "a value cannot be set",
    1007: "the value is too low",
    1008: "the value is too high",
    1009: "the value is of the wrong type",
    1010: "that parameter cannot be set",
    1011: "there is no such command",
    1012: "the command failed",
    1015: "the command is not implemented",
    1016: "the image could not be grabbed",
    1017: "the stage position cannot be read",
    1018: "the stage could not be moved",
    1019: "the interface is not initialised",
}
_LOST = {
    0x800706BA,  # the RPC server is unavailable: SmartSEM has ended
    0x800706BE,  # the remote procedure call failed
    0x80010108,  # the object has disconnected from its clients
    0x80010007,  # the server may have died
}
_NOT_REGISTERED = {
    0x800401F3,  # there is no class of this name
    0x80040154,  # or none behind its name
}


class Refused(Exception):  # noqa: N818 - it is caught where it is raised, never shown
    """The interface answered with a code that is not success."""

    def __init__(self, what: str, code: object) -> None:
        known = _MEANINGS.get(code) if isinstance(code, int) else None
        super().__init__(f"{what}: code {code}{f', {known}' if known else ''}")


class Control:
    """The control, on the thread it was made on.

    Args:
        client: ``win32com.client`` or what stands for it.
        prog_id: of the control.

    Raises:
        Refused: it does not initialise.
    """

    def __init__(self, client: Any, prog_id: str) -> None:
        self._variant = client.VARIANT
        self._pythoncom = client.pythoncom
        self._api = client.Dispatch(prog_id)
        _succeeded("InitialiseRemoting", self._api.InitialiseRemoting())

    def number(self, key: str) -> float:
        """An ``AP_`` parameter, in its unit."""
        value = self._get(key)
        if not _is_number(value):
            raise MicroscopeError(f"SmartSEM gives {value!r} for {key}, not a number")
        return float(value)

    def state(self, key: str) -> str:
        """A ``DP_`` parameter, as SmartSEM writes it."""
        value = self._get(key)
        if value is None or value == "":
            raise MicroscopeError(f"SmartSEM gives nothing for {key}")
        return str(value)

    def set(self, key: str, value: float) -> None:
        """Set an ``AP_`` or ``DP_`` parameter.

        Always as a 32-bit float, in which a working distance is in metres: a string would be
        taken as millimetres.
        """
        answer = self._api.Set(key, self._variant(self._pythoncom.VT_R4, value))
        _succeeded(f"Set {key} to {value:.9g}", _code(answer))

    def execute(self, command: str) -> None:
        """Execute a ``CMD_`` command."""
        _succeeded(f"Execute {command}", _code(self._api.Execute(command)))

    def grab(self, path: str) -> None:
        """Save the whole frozen image: the size is in units of 1024 x 768, whatever it has."""
        _succeeded("Grab", _code(self._api.Grab(0, 0, 1024, 768, 0, path)))

    def stage_position(self) -> tuple[float, ...]:
        """x, y, z in metres, tilt and rotation in degrees, and M."""
        values = _values("GetStagePosition", self._api.GetStagePosition())[:6]
        if len(values) < 6 or not all(map(_is_number, values)):
            raise MicroscopeError(f"SmartSEM gives {values} for the stage position")
        return tuple(map(float, values))

    def move_stage(self, position: tuple[float, ...]) -> None:
        """Start a move of all six axes, as `stage_position` gives them."""
        variants = [self._variant(self._pythoncom.VT_R4, each) for each in position]
        _succeeded("MoveStage", _code(self._api.MoveStage(*variants)))

    def close(self) -> None:
        """End remote control."""
        self._api.ClosingControl()

    def _get(self, key: str) -> Any:
        values = _values(f"Get {key}", self._api.Get(key, 0))
        return values[0] if values else None


def is_lost(error: BaseException) -> bool:
    """Whether an exception of COM means that SmartSEM has gone."""
    return _hresult(error) in _LOST


def is_not_registered(error: BaseException) -> bool:
    """Whether an exception of COM means that the control is not installed."""
    return _hresult(error) in _NOT_REGISTERED


def lost(error: BaseException) -> DisconnectedError:
    """What such an exception becomes."""
    return DisconnectedError(f"SmartSEM has gone: {error}")


def _hresult(error: BaseException) -> int | None:
    code = getattr(error, "hresult", None)
    return code & 0xFFFFFFFF if isinstance(code, int) else None


def _is_number(value: Any) -> bool:
    is_one = isinstance(value, int | float) and not isinstance(value, bool)
    return is_one and math.isfinite(value)


def _values(what: str, answer: Any) -> tuple[Any, ...]:
    """What came with success; nothing came with a bare code."""
    _succeeded(what, _code(answer))
    return tuple(answer[1:]) if isinstance(answer, tuple | list) else ()


def _code(answer: Any) -> Any:
    """The code of an answer, which is the answer itself or the first of several values."""
    return answer[0] if isinstance(answer, tuple | list) and answer else answer


def _succeeded(what: str, code: Any) -> None:
    # Not `if code`: an answer that is no code at all, such as None, is no success.
    if isinstance(code, bool) or not isinstance(code, int | float) or code != 0:
        raise Refused(what, code)
