"""Reading YAML that people write into checked values, with the line in every error."""

import re
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import yaml

from semagent.errors import ConfigError
from semagent.options import Options

T = TypeVar("T", bound=Options)


class _Loader(yaml.SafeLoader):
    """Safe YAML, but 1e-6 is a number and a key given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key, (key_node, _) in zip(keys, node.value, strict=True):
            if keys.count(key) > 1:
                line = key_node.start_mark.line + 1
                raise ConfigError(f"line {line}: key {key!r} is given twice")
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?$|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN)$"),
    list("-+0123456789."),
)
# The rule for integers has to come first again: the one above also fits "3".
for _rules in _Loader.yaml_implicit_resolvers.values():
    _rules.sort(key=lambda rule: rule[0] != "tag:yaml.org,2002:int")


def read_yaml(path: Path, schema: type[T]) -> T:
    """Read a file and check it against ``schema``.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or a key or value is wrong; the
            message names the file, the line and the key.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    try:
        raw = yaml.load(text, _Loader)  # noqa: S506 - a subclass of the safe loader
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {error}") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    try:
        return msgspec.convert(raw, schema)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path}{_line(text, str(error))}: {error}") from error


def _line(text: str, message: str) -> str:
    """``:12`` for the line the message's ``$.a.b[0]`` path points to, as far as it exists."""
    found = re.search(r"`\$([^`]*)`", message)
    node: Any = yaml.compose(text, _Loader)
    if found is None or node is None:
        return ""
    line = node.start_mark.line
    for key, index in re.findall(r"\.(\w+)|\[(\d+)\]", found.group(1)):
        if index and isinstance(node, yaml.SequenceNode):
            node = node.value[int(index)]
        elif key and isinstance(node, yaml.MappingNode):
            children = {name.value: (name, value) for name, value in node.value}
            if key not in children:
                break
            name, node = children[key]
            line = name.start_mark.line
            continue
        line = node.start_mark.line
    return f":{line + 1}"
