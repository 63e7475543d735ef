"""The configuration as a JSON schema, for editors that complete, explain and check as one types.

It is made from the types that read the configuration, so it cannot disagree with them; rules over
several keys are not in it, `semagent check` knows them.
"""

import inspect
import json
import re
from typing import Any

import msgspec

from semagent import registry
from semagent.config import ConfigFile
from semagent.errors import ConfigError
from semagent.options import Options

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_REFERENCE = "#/$defs/{name}"

Json = dict[str, Any]


def config_schema() -> Json:
    """The schema of a run configuration, with the options of all drivers and engines installed."""
    parts = {
        group: {name: _options(group, name) for name in registry.names(group)}
        for group in (registry.DRIVERS, registry.ENGINES)
    }
    roots: list[type[Options]] = [ConfigFile]
    roots += {schema for named in parts.values() for schema in named.values() if schema is not None}
    roots = [roots[0], *sorted(roots[1:], key=lambda each: each.__name__)]
    references, definitions = msgspec.json.schema_components(roots, ref_template=_REFERENCE)
    by_root = dict(zip(roots, references, strict=True))
    structs = _structs(roots)
    for name, definition in definitions.items():
        _explain(definition, structs.get(name))
    config = definitions["ConfigFile"]["properties"]
    for key, group in (
        ("driver", registry.DRIVERS),
        ("engine", registry.ENGINES),
        ("restoration", registry.ENGINES),
    ):
        about = config[key].get("description")
        choices = [_part(name, by_root.get(schema)) for name, schema in parts[group].items()]  # type: ignore[arg-type]
        nothing = [{"type": "null"}] if key == "restoration" else []
        config[key] = {"description": about, "oneOf": choices + nothing}
    del definitions["Part"]
    return {
        "$schema": DIALECT,
        "title": "semagent configuration",
        **by_root[ConfigFile],
        "$defs": {name: definitions[name] for name in sorted(_used(definitions))},
    }


def as_json(schema: Json) -> str:
    """The text of a schema file."""
    return json.dumps(schema, indent=1) + "\n"


def _options(group: str, name: str) -> type[Options] | None:
    try:
        return registry.options_schema(group, name)
    except ConfigError:  # its software is not installed
        return None


def _part(name: str, options: Json | None) -> Json:
    """A driver or an engine of this name, with its own options."""
    return {
        "type": "object",
        "properties": {"name": {"const": name}, "options": options or {"type": "object"}},
        "required": ["name"],
        "additionalProperties": False,
    }


def _structs(roots: list[type[Options]]) -> dict[str, type]:
    """Every struct that the roots are made of, by name."""
    found: dict[str, type] = {}

    def visit(node: Any) -> None:
        if isinstance(node, msgspec.inspect.StructType):
            whole = f"{node.cls.__module__}.{node.cls.__qualname__}"
            if whole in found:
                return
            # A name that two of them have is written out.
            found[node.cls.__name__] = found[whole] = node.cls
            for field in node.fields:
                visit(field.type)
        for inner in ("type", "types", "item_type", "item_types", "value_type"):
            children = getattr(node, inner, ())
            for child in children if isinstance(children, tuple) else (children,):
                if isinstance(child, msgspec.inspect.Type):
                    visit(child)

    for root in roots:
        visit(msgspec.inspect.type_info(root))
    return found


def _explain(definition: Json, struct: type | None) -> None:
    """Put what the docstring says of each attribute where editors show it."""
    if struct is None:
        return
    about = attributes(struct)
    properties: Json = definition.get("properties", {})
    for key, value in properties.items():
        if key in about and "description" not in value:
            properties[key] = {"description": about[key], **value}
    definition["description"] = inspect.cleandoc(struct.__doc__ or "").partition("\n\n")[0]


def attributes(struct: type) -> dict[str, str]:
    """What the docstrings of a struct and of its bases say of each attribute."""
    said: dict[str, str] = {}
    for each in reversed(struct.__mro__):
        _, _, section = inspect.cleandoc(vars(each).get("__doc__") or "").partition("Attributes:\n")
        for entry in re.findall(r"^    (\w+: .*(?:\n {6,}.*)*)", section, flags=re.MULTILINE):
            key, _, text = entry.partition(": ")
            said[key] = " ".join(text.split()).replace("``", "`")
    return said


def _used(definitions: Json) -> set[str]:
    """Names of the definitions that ConfigFile leads to."""
    used, todo = set(), ["ConfigFile"]
    while todo:
        name = todo.pop()
        if name not in used:
            used.add(name)
            text = msgspec.json.encode(definitions[name]).decode()
            todo += re.findall(r"#/\$defs/([\w.]+)", text)
    return used
