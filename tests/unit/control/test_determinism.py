"""The same observations give the same decisions, bit for bit, also after a trip over the wire."""

import ast
from pathlib import Path

import msgspec
import pytest

import semagent.control
from semagent.control import Controller, ControlOptions, Decision
from semagent.errors import ConfigError
from semagent.options import parse_options
from semagent.types import Mode, StartAutofocus

from .bench import CAPABILITIES, Bench


class Recorder(Controller):
    """Keeps every call, to be repeated."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)
        self.calls: list[tuple[str, object, Decision]] = []

    def __getattribute__(self, name: str) -> object:
        method = super().__getattribute__(name)
        if name not in ("analysed", "replied", "requested", "gate_changed", "ticked", "flagged"):
            return method

        def call(argument: object) -> Decision:
            decision = method(argument)
            self.calls.append((name, argument, decision))
            return decision

        return call


def over_the_wire(argument: object) -> object:
    return msgspec.msgpack.decode(msgspec.msgpack.encode(argument), type=type(argument))


@pytest.mark.parametrize("follow", [True, False])
def test_replay_gives_the_same_decisions(follow: bool) -> None:
    options = ControlOptions(
        mode=Mode.HOLD, hold=msgspec.convert({"follow": follow}, type(ControlOptions().hold))
    )
    bench = Bench(focus=17.0, drift=0.03, options=options)
    bench.controller = Recorder(options, CAPABILITIES)
    bench.arm()
    bench.request(StartAutofocus())
    bench.run(60)
    bench.flagged()
    assert len(bench.commands) >= 5

    again = Controller(options, CAPABILITIES)
    for name, argument, decision in bench.controller.calls:
        assert getattr(again, name)(over_the_wire(argument)) == decision
    assert again.state == bench.controller.state
    assert again.belief == bench.controller.belief


def test_control_is_pure() -> None:
    """No clock, no socket, no thread, no chance; values, ports, options and errors only."""
    allowed = {"semagent.types", "semagent.ports", "semagent.options", "semagent.errors"}
    allowed |= {"semagent.legs", "semagent.lengths", "semagent.dose"}
    allowed |= {"semagent.memory"}  # its values, read by others
    allowed |= {"semagent.signature", "semagent.spectrum", "semagent.transfer"}
    outside = {"numpy", "numpy.typing", "msgspec"}
    plain = {"collections", "collections.abc", "dataclasses", "functools", "itertools", "math"}
    plain |= {"typing"}
    for path in Path(semagent.control.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                assert name in allowed | outside | plain or name.startswith("semagent.control")
            assert not (isinstance(node, ast.Attribute) and node.attr == "random"), path


def test_options_name_what_is_wrong() -> None:
    with pytest.raises(ConfigError, match=r"x\.yaml.*max_frames.*control|x\.yaml.*max_frames"):
        parse_options({"autofocus": {"max_frames": 2}}, ControlOptions, where="x.yaml")
    with pytest.raises(ConfigError, match="steps"):
        parse_options({"hold": {"steps": 2}}, ControlOptions, where="x.yaml")
    options = parse_options({"mode": "advise"}, ControlOptions, where="x.yaml")
    assert options == ControlOptions(mode=Mode.ADVISE)
