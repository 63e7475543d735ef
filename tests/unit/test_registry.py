"""Drivers and engines are found by name, and nothing else is loaded."""

import sys
from importlib.metadata import EntryPoint, EntryPoints
from typing import Any

import pytest

from semagent import registry
from semagent.clock import SystemClock
from semagent.errors import ConfigError, FrameTooSmallError, MicroscopeError, UsageError
from semagent.types import Scan


def test_what_ships_is_listed():
    assert {"simulated", "recorded", "remote"} <= set(registry.names(registry.DRIVERS))
    assert "sharpness" in registry.names(registry.ENGINES)


def test_an_unknown_name_lists_what_there_is():
    with pytest.raises(ConfigError, match=r"no driver is called 'simulatde'.*simulated"):
        registry.open_microscope("simulatde", {}, clock=SystemClock())
    with pytest.raises(ConfigError, match=r"no engine is called 'x'.*sharpness"):
        registry.open_engine("x", {})


def offer(monkeypatch: pytest.MonkeyPatch, *points: EntryPoint) -> None:
    def entry_points(*, group: str, name: str | None = None) -> EntryPoints:
        found = EntryPoints(points).select(group=group)
        return found if name is None else found.select(name=name)

    monkeypatch.setattr(registry, "entry_points", entry_points)


def test_two_offers_of_one_name_are_an_error(monkeypatch: pytest.MonkeyPatch):
    offer(
        monkeypatch,
        EntryPoint("sem", "one:open", registry.DRIVERS),
        EntryPoint("sem", "two:open", registry.DRIVERS),
    )
    with pytest.raises(ConfigError, match="one:open and two:open"):
        registry.find(registry.DRIVERS, "sem")


def test_the_same_offer_listed_twice_is_one(monkeypatch: pytest.MonkeyPatch):
    point = EntryPoint("sem", "one:open", registry.DRIVERS)
    offer(monkeypatch, point, EntryPoint("sem", "one:open", registry.DRIVERS))
    assert registry.find(registry.DRIVERS, "sem") == point


def test_missing_software_is_named(monkeypatch: pytest.MonkeyPatch):
    offer(monkeypatch, EntryPoint("sem", "no_such_sdk_at_all:open", registry.DRIVERS))
    with pytest.raises(ConfigError, match=r"'sem' needs software.*no_such_sdk_at_all"):
        registry.open_microscope("sem", {}, clock=SystemClock())


def test_training_without_its_software_says_so_and_sees_mistakes_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setitem(sys.modules, "semagent_engines.train.stages", None)
    whole = ["pretrain", "images", "--output", "run", "--validation", "steel", "--steps"]
    with pytest.raises(UsageError, match="--steps 0 is not 1 or more"):
        registry.run_tool("train", [*whole, "0"])
    with pytest.raises(ConfigError, match=r"the tool 'train' needs software.*train\.stages"):
        registry.run_tool("train", [*whole, "1"])


@pytest.mark.parametrize(("name", "least"), [("sharpness", 64), ("onnxruntime", 128)])
def test_an_engine_for_frames_that_it_cannot_look_at_is_refused(name: str, least: int):
    scan = Scan(width_px=least, height_px=least, bit_depth=8)
    registry.open_engine_for(scan, name, {}).close()
    small = Scan(width_px=1024, height_px=least - 1, bit_depth=8)
    with pytest.raises(FrameTooSmallError, match=f"{least} x {least} are needed"):
        registry.open_engine_for(small, name, {})


class Brittle:
    """A driver that did not foresee what its vendor raises."""

    capabilities = "as the driver says"
    serial = 7

    def __init__(self, *_: object, **options: object) -> None:
        if options.get("absent"):
            raise OSError("no such port")

    def __getattr__(self, name: str) -> object:
        def fails(*_: object) -> None:
            raise ValueError("0x8001")

        return fails


@pytest.mark.parametrize("name", ["acquire", "apply", "read_state", "stop", "close"])
def test_an_error_that_no_driver_should_let_out_is_one_of_the_microscope(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "opener", lambda _: lambda *_, **__: Brittle())
    microscope: Any = registry.open_microscope("brittle", {}, clock=SystemClock())
    assert (microscope.capabilities, microscope.serial) == ("as the driver says", 7)
    told = r"the driver brittle failed with ValueError: 0x8001 \(test_registry.py, line \d+\)"
    with pytest.raises(MicroscopeError, match=told):
        getattr(microscope, name)(*[1.0] * (name in {"acquire", "apply"}))


def test_so_is_one_that_comes_while_it_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "opener", lambda _: lambda *_, **__: Brittle(absent=True))
    with pytest.raises(MicroscopeError, match="the driver brittle failed with OSError: no such"):
        registry.open_microscope("brittle", {}, clock=SystemClock())
