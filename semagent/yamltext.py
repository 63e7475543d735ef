"""Reading YAML that people write into checked values, with the line in every error."""

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec
import yaml
from msgspec import inspect

from semagent.errors import ConfigError
from semagent.options import Options

T = TypeVar("T", bound=Options)


class _Loader(yaml.SafeLoader):
    """Safe YAML, but 1e-6 is a number, a key given twice is an error, and errors name the line."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key, (key_node, _) in zip(keys, node.value, strict=True):
            if keys.count(key) > 1:
                line = key_node.start_mark.line + 1
                raise ConfigError(f"{line}: {key}: this key is given twice")
        return super().construct_mapping(node, deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except ValueError as error:  # looks like a date or a number, and is none
            raise ConfigError(f"{node.start_mark.line + 1}: {error}") from error


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?$|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN)$"),
    list("-+0123456789."),
)
# The rule for integers has to come first again: the one above also fits "3".
for _rules in _Loader.yaml_implicit_resolvers.values():
    _rules.sort(key=lambda rule: rule[0] != "tag:yaml.org,2002:int")


class Source(NamedTuple):
    """A file that was read, and what stands in it."""

    path: Path
    text: str
    raw: Any

    def convert(self, schema: type[T], *under: str) -> T:
        """Check the file, or what stands under a key of it, against ``schema``.

        Raises:
            ConfigError: a key or value is wrong; ``FILE:LINE: KEY:``, the value, and what is
                allowed.
        """
        raw = self.raw
        for key in under:
            raw = raw.get(key, {}) if isinstance(raw, dict) else {}
        try:
            return msgspec.convert(raw, schema)
        except msgspec.ValidationError as error:
            raise ConfigError(self._explain(str(error), schema, under)) from error

    def where(self, *keys: str) -> str:
        """``FILE:LINE: KEY``, for messages about a value that is there."""
        return f"{self.path}{_line(self.text, keys)}: {'.'.join(keys)}"

    def _explain(self, message: str, schema: type[Options], under: Sequence[str]) -> str:
        what, _, at = message.partition(" - at `$")
        inner = [key or int(index) for key, index in re.findall(r"\.(\w+)|\[(\d+)\]", at)]
        allowed = _allowed(schema, inner)
        if unknown := re.match(r"Object contains unknown field `(.*)`", what):
            inner.append(unknown[1])
            near = difflib.get_close_matches(unknown[1], allowed, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            what = f"unknown key{hint} (keys allowed here: {', '.join(allowed)})"
        elif missing := re.match(r"Object missing required field `(.*)`", what):
            what = f"the key {missing[1]} is missing"
        else:
            # Rules over several keys name the one they are about first.
            named = re.match(r"(\w+)\b", what)
            value = _value(self.raw, [*under, *inner])
            if named and named[1] in allowed:
                inner.append(named[1])
                what = what.removeprefix(f"{named[1]}: ")
            elif isinstance(value, str | int | float | None):
                what = f"{value!r}: {what}"
            if what.endswith("'") and "Invalid enum value" in what:
                what += f" (allowed: {', '.join(allowed)})"
        steps = [*under, *inner]
        key = re.sub(r"\.(\d+)", r"[\1]", ".".join(map(str, steps)))
        return f"{self.path}{_line(self.text, steps)}: {f'{key}: ' if key else ''}{what}"


def read_source(path: Path) -> Source:
    """Read a file, without checking more than that it is YAML.

    Raises:
        ConfigError: the file cannot be read, is not YAML, gives a key twice, or a date or number
            in it is none.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: cannot be read: {error}; save it as UTF-8") from error
    try:
        return Source(path, text, yaml.load(text, _Loader))  # noqa: S506 - subclass of the safe one
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {error}") from error
    except ConfigError as error:
        raise ConfigError(f"{path}:{error}") from None


def read_yaml(path: Path, schema: type[T]) -> T:
    """Read a file and check it against ``schema``.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or a key or value is wrong; the
            message names the file, the line and the key.
    """
    return read_source(path).convert(schema)


def _value(raw: Any, steps: Sequence[str | int]) -> Any:
    """What stands there, a list if nothing does."""
    for step in steps:
        try:
            raw = raw[step]
        except (KeyError, IndexError, TypeError):
            return []
    return raw


def _line(text: str, steps: Sequence[str | int]) -> str:
    """``:12`` for the line of the key, as far as it exists."""
    node: Any = yaml.compose(text, _Loader)
    if node is None:
        return ""
    line = node.start_mark.line
    for step in steps:
        if isinstance(step, int) and isinstance(node, yaml.SequenceNode):
            node = node.value[step]
            line = node.start_mark.line
        elif isinstance(node, yaml.MappingNode):
            children = {name.value: (name, value) for name, value in node.value}
            if step not in children:
                break
            name, node = children[step]
            line = name.start_mark.line
        else:
            break
    return f":{line + 1}"


def _allowed(schema: type[Options], steps: Sequence[str | int]) -> list[str]:
    """Keys of the section, or values of the choice, that the steps lead to."""
    node: inspect.Type = inspect.type_info(schema)
    for step in steps:
        node = _inside(node, inspect.StructType, inspect.DictType, inspect.VarTupleType)
        if isinstance(node, inspect.StructType):
            fields = {field.encode_name: field.type for field in node.fields}
            if step not in fields:
                return []
            node = fields[str(step)]
        elif isinstance(node, inspect.DictType):
            node = node.value_type
        elif isinstance(node, inspect.VarTupleType):
            node = node.item_type
        else:
            return []
    node = _inside(node, inspect.StructType, inspect.EnumType, inspect.LiteralType)
    match node:
        case inspect.StructType():
            return [field.encode_name for field in node.fields]
        case inspect.EnumType():
            return [str(each.value) for each in node.cls]
        case inspect.LiteralType():
            return [str(each) for each in node.values]
        case _:
            return []


def _inside(node: inspect.Type, *kinds: type) -> inspect.Type:
    """What an optional type is when it is there; metadata taken away."""
    while isinstance(node, inspect.Metadata):
        node = node.type
    if isinstance(node, inspect.UnionType):
        return next((_inside(each, *kinds) for each in node.types if isinstance(each, kinds)), node)
    return node
