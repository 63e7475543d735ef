"""When all that was said of the frames of a run has come through."""

from semagent.channels import Role
from semagent.cli.ledger import Ledger
from semagent.clock import Clock

LOST_S = 1.0
"""What has not come after so long in which nobody was busy will not come."""

_ON_ITS_WAY_S = 0.1  # longer than a message takes from one role to the next and back


class Drain:
    """Follows the frames that are exposed by now, through an engine that may take its time.

    A frame has come through when the ledger knows it, control has thought about it, and all roles
    have given a sign of life since.

    Args:
        ledger: kept up to date by the caller.
        clock: the one the roles stamp with.
    """

    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock
        self._busy_ns = self._waiting_ns = clock.monotonic_ns()

    def done(self) -> bool:
        """Whether everything has come through, or will not come any more."""
        ledger, now_ns = self._ledger, self._clock.monotonic_ns()
        acquire, infer, control = (
            ledger.beats.get(role) for role in (Role.ACQUIRE, Role.INFER, Role.CONTROL)
        )
        if acquire is None or infer is None or control is None:
            return False
        if infer.busy_since_ns is not None or control.busy_since_ns is not None:
            self._busy_ns = now_ns
        heard = control.processed + control.skipped
        if ledger.sequence < acquire.processed or heard < ledger.analyses:
            self._waiting_ns = now_ns
        oldest_ns = min(beat.monotonic_ns for beat in (acquire, infer, control))
        through = oldest_ns > self._waiting_ns + round(_ON_ITS_WAY_S * 1e9)
        return through or now_ns > self._busy_ns + round(LOST_S * 1e9)
