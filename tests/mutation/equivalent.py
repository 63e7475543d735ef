"""Mutants that no test can catch, because they behave like the original, and why."""

_INIT = "semagent.safety.gate SafetyGate.__init__: "
_SET_BY_ARMING = "arming sets it, and before arming the gate is shut whatever it holds"

EQUIVALENT = {
    f"{_INIT}self._heartbeat_ns = 0  ->  self._heartbeat_ns = 1": _SET_BY_ARMING,
    f"{_INIT}self._heartbeat_ns = 0  ->  self._heartbeat_ns = -1": _SET_BY_ARMING,
    f"{_INIT}self._evidence_after_ns = 0  ->  pass": _SET_BY_ARMING,
    f"{_INIT}self._evidence_after_ns = 0  ->  self._evidence_after_ns = 1": _SET_BY_ARMING,
    f"{_INIT}self._evidence_after_ns = 0  ->  self._evidence_after_ns = -1": _SET_BY_ARMING,
    f"{_INIT}self._blanked_by_command = False  ->  pass": _SET_BY_ARMING,
    f"{_INIT}self._blanked_by_command = False  ->  self._blanked_by_command = True": _SET_BY_ARMING,
}
