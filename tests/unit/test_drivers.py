"""Every driver that ships is complete: page, fake, suites, and the truth about its hardware."""

import ast
import importlib
import re
import threading
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from semagent import registry
from semagent.clock import ManualClock
from semagent.errors import ConfigError
from semagent_drivers import fakes

ROOT = Path(__file__).parents[2]
OURS = {"recorded", "remote", "simulated"}
UNSUPPORTED = {"zen-em"}
VENDORS = sorted(set(registry.names(registry.DRIVERS)) - OURS - UNSUPPORTED)


@pytest.mark.parametrize("name", VENDORS)
def test_it_has_never_met_its_hardware_and_says_so(name: str):
    facts = registry.driver_facts(name)
    assert facts is not None
    assert facts.verified_on is None
    assert all(each.get for each in facts.requirements)


@pytest.mark.parametrize("name", VENDORS)
def test_its_page_goes_from_nothing_to_a_first_autofocus(name: str):
    page = (ROOT / "docs/drivers" / f"{name}.md").read_text(encoding="utf-8")
    for section in ("## What you need", "## First autofocus", "Limits of the interface"):
        assert section in page
    assert "Never run on" in page
    assert "semagent doctor" in page
    assert "semagent autofocus" in page
    index = (ROOT / "docs/drivers/README.md").read_text(encoding="utf-8")
    assert f"]({name}.md)" in index


@pytest.mark.parametrize("name", VENDORS)
def test_its_configuration_shows_every_option(name: str):
    text = (ROOT / "config" / f"{name}.yaml").read_text(encoding="utf-8")
    options = registry.options_schema(registry.DRIVERS, name)
    assert options is not None
    shown = set(re.findall(r"^    (?:# )?(\w+):", text, re.MULTILINE))
    assert set(options.__struct_fields__) <= shown


@pytest.mark.parametrize("name", VENDORS)
def test_it_has_a_fake(name: str):
    package = registry.find(registry.DRIVERS, name).module
    if name == "fibsem":
        pytest.importorskip("fibsem")
    assert importlib.import_module(f"{package}.fake").__doc__


def test_a_fake_sleeps_until_ctrl_c(monkeypatch):
    def ctrl_c(_):
        raise KeyboardInterrupt

    def deaf(*_):
        pytest.fail("Windows lets no Ctrl-C through")

    monkeypatch.setattr("semagent_drivers.fakes.server.time", SimpleNamespace(sleep=ctrl_c))
    monkeypatch.setattr(threading.Event, "wait", deaf)
    fakes.rehearse(
        lambda port: nullcontext(SimpleNamespace(port=port)), vendor="Vendor", port=1, arguments=[]
    )


@pytest.mark.parametrize("name", VENDORS)
def test_it_passes_both_suites(name: str):
    passed = set()
    for path in (ROOT / "tests/conformance").glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and f'driver = "{name}"' in ast.unparse(node).replace(
                "'", '"'
            ):
                passed |= {ast.unparse(base) for base in node.bases}
    assert {"MicroscopeConformance", "MicroscopeFaults"} <= passed


@pytest.mark.parametrize("name", sorted(UNSUPPORTED))
def test_what_is_not_supported_says_so_wherever_one_looks(name: str):
    facts = registry.driver_facts(name)
    assert facts is not None
    (missing,) = facts.missing()
    assert "is not supported" in missing.get
    with pytest.raises(ConfigError, match="is not supported"):
        registry.open_microscope(name, {}, clock=ManualClock())
    assert "is not supported" in (ROOT / "docs/drivers/zeiss.md").read_text(encoding="utf-8")
