"""A fake AutoScript, to rehearse with: an object model with the same names, units and habits.

It stands for ``autoscript_sdb_microscope_client`` where the driver's option ``sdk`` says
``semagent_drivers.autoscript.fake``. Instruments are reached by host name; any name that nobody
has given to one is a new instrument.
"""

from typing import Any

from semagent_drivers.autoscript.fake.common import ApiException, ApplicationServerException
from semagent_drivers.autoscript.fake.instrument import Instrument
from semagent_drivers.autoscript.fake.model import client
from semagent_drivers.fakes import wired

__all__ = ["INSTRUMENTS", "Instrument", "SdbMicroscopeClient"]

INSTRUMENTS: dict[str, Instrument] = {}
"""The instruments there are, by host."""


class SdbMicroscopeClient:
    """A client, connected or not."""

    def __init__(self) -> None:
        self._connected: Any = None

    def connect(self, host: str = "localhost", port: int = 7520) -> None:
        """Connect to a server."""
        if not host:
            raise ApiException(f"No server at {host}:{port}.")
        if host not in INSTRUMENTS:
            INSTRUMENTS[host] = Instrument()
        instrument = INSTRUMENTS[host]
        wire = wired(
            client(instrument),
            instrument.trip,
            fail=lambda name: ApplicationServerException(f"{name} failed."),
            drop=lambda name: ConnectionResetError(f"{name}: the server has gone."),
        )
        wire.imaging.get_active_view()
        self._connected = wire

    def disconnect(self) -> None:
        """Leave the server."""
        self._connected = None

    def __getattr__(self, name: str) -> Any:
        if self._connected is None:
            raise ApiException("The client is not connected.")
        return getattr(self._connected, name)
