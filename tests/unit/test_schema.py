"""The JSON schema for editors: in step with the types, and right about what ships."""

import copy
import json
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from semagent import registry
from semagent.schema import as_json, attributes, config_schema
from semagent.yamltext import read_source
from semagent_drivers.micromanager import MicroManagerOptions

CONFIG = Path(__file__).parents[2] / "config"
SHIPPED = CONFIG / "semagent.schema.json"


@pytest.fixture(scope="module")
def schema():
    return json.loads(SHIPPED.read_text(encoding="utf-8"))


def everywhere(schema):
    """Without what depends on a library that many machines lack."""
    schema = copy.deepcopy(schema)
    config = schema["$defs"]["ConfigFile"]["properties"]
    for key in ("engine", "restoration"):
        config[key]["oneOf"] = [
            each
            for each in config[key]["oneOf"]
            if each.get("properties", {}).get("name") != {"const": "tensorrt"}
        ]
    schema["$defs"].pop("TensorRtOptions", None)
    return schema


def test_what_ships_is_what_the_types_say(schema):
    assert everywhere(schema) == everywhere(json.loads(as_json(config_schema()))), (
        "make it again: semagent check --schema > config/semagent.schema.json"
    )


def test_it_is_a_schema(schema):
    Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("path", sorted(CONFIG.glob("*.yaml")), ids=lambda path: path.stem)
def test_it_accepts_every_configuration_that_ships(schema, path: Path):
    raw = json.loads(json.dumps(read_source(path).raw))
    errors = list(Draft202012Validator(schema).iter_errors(raw))
    assert not errors, errors[0].message


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("port: 4827", "prot: 4827"),
        ("port: 4827", "port: 70000"),
        ("backend: java", "backend: javascript"),
        ("name: micromanager", "name: micro-manager"),
        ("mode: advise", "mode: autopilot"),
        ("allow_unblank: false", "allow_unblank: perhaps"),
    ],
)
def test_it_refuses_what_the_agent_refuses(schema, old: str, new: str):
    text = (CONFIG / "micromanager.yaml").read_text(encoding="utf-8")
    assert text.count(old) == 1
    raw = json.loads(json.dumps(yaml.safe_load(text.replace(old, new))))
    assert list(Draft202012Validator(schema).iter_errors(raw))


def test_every_driver_is_in_it_with_its_options(schema):
    choices = schema["$defs"]["ConfigFile"]["properties"]["driver"]["oneOf"]
    named = {each["properties"]["name"]["const"]: each["properties"]["options"] for each in choices}
    assert sorted(named) == registry.names(registry.DRIVERS)
    without = {name for name, options in named.items() if "$ref" not in options}
    assert without == {"zen-em"}  # it is not supported, so it takes any


def test_editors_are_told_what_the_docstrings_say(schema):
    properties = schema["$defs"]["MicroManagerOptions"]["properties"]
    assert "the drive does not say" in properties["focus_range_um"]["description"]
    assert "remembered" not in schema["$defs"]["ConfigFile"]["properties"]


def test_attributes_come_from_bases_too():
    said = attributes(MicroManagerOptions)
    assert said["call_timeout_s"].startswith("longest time the vendor")
    assert said["host"] == "machine of the running Micro-Manager (`java`)."
