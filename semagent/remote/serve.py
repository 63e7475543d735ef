"""What ``semagent serve`` does on the microscope PC."""

import logging
import threading
from pathlib import Path

from semagent import registry
from semagent.clock import SystemClock
from semagent.config import RunConfig
from semagent.health import unverified
from semagent.keys import check_endpoint, load_server_keys
from semagent.remote.server import MicroscopeServer

_log = logging.getLogger(__name__)


def serve(
    config: RunConfig,
    *,
    bind: str,
    keys: Path | None,
    armed: bool,
    stop: threading.Event,
    arm_again: threading.Event | None = None,
) -> None:
    """Open the microscope of ``config`` and lend it out until ``stop`` is set.

    Only ``driver`` and ``safety`` of the configuration are used.

    Args:
        config: says which microscope, and within which limits.
        bind: ``tcp://host:port`` to listen on.
        keys: folder of the server's keys, as `semagent.keys.make_keys` makes it; may be
            ``None`` on loopback only.
        armed: a person at the microscope lets commands through from the start.
        stop: set by whoever wants it to end.
        arm_again: set when that person wants to arm once more; cleared when it was looked at.

    Raises:
        ConfigError: the driver, its options, ``bind`` or a key file is wrong, or one cannot
            listen at ``bind``.
        CommandRefusedError: ``armed``, but the microscope stands outside the envelope.
        MicroscopeError: the microscope cannot be reached, or its connection is gone.
        RoleError: the thread that listens has died.
    """
    check_endpoint(bind, has_keys=keys is not None, where="--bind")
    server_keys = None if keys is None else load_server_keys(keys)
    clock = SystemClock()
    microscope = registry.open_microscope(config.driver.name, config.driver.options, clock=clock)
    try:
        server = MicroscopeServer(
            microscope, config.safety, bind=bind, keys=server_keys, clock=clock
        )
        try:
            if armed:
                server.arm()
            _log.info(
                "%s: %s listens on %s, %s",
                config.instrument,
                microscope.capabilities.microscope,
                server.endpoint,
                "encrypted" if server_keys else "this machine only",
            )
            warning = unverified(microscope.capabilities)
            if warning is not None:
                _log.warning("warning: %s", warning)
            if arm_again is not None:
                _log.info("type arm to arm the gate, Ctrl-C ends")
            server.run(stop, arm_again)
        finally:
            server.close()
    finally:
        microscope.close()
