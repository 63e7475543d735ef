"""The run configuration: one YAML file that says what is driven, by what, within which limits."""

import re
from pathlib import Path
from typing import Annotated, Any

import msgspec
import yaml

from semagent.control import ControlOptions
from semagent.errors import ConfigError
from semagent.options import Options
from semagent.safety import Envelope
from semagent.sanity import SanityOptions

FORMAT = 1


class Part(Options, frozen=True, kw_only=True):
    """A driver or an engine by name, with its own options."""

    name: str
    options: dict[str, Any] = msgspec.field(default_factory=dict)


class AcquireOptions(Options, frozen=True, kw_only=True):
    """The acquire role.

    Attributes:
        frame_timeout_s: longest time a frame may take.
        frame_interval_s: shortest time from the start of one frame to the next.
        max_failures: acquisitions that may fail in a row before the run ends.
    """

    frame_timeout_s: float = 120.0
    frame_interval_s: float = 0.0
    max_failures: int = 3


class InferOptions(Options, frozen=True, kw_only=True):
    """The infer role.

    Attributes:
        restore: ask the engine for restored frames too.
        max_failures: frames the engine may fail on in a row before the role ends.
        max_busy_s: longest time the engine may take over one frame; beyond it the role counts
            as hung.
        max_restarts: how often the role is started again before the run ends.
    """

    restore: bool = False
    max_failures: int = 3
    max_busy_s: float = 60.0
    max_restarts: int = 3


class RecordOptions(Options, frozen=True, kw_only=True):
    """The record role.

    Attributes:
        wait_s: how long acquisition waits at a frame boundary for a slow disk before the run
            ends with an error; 0 ends it at once.
        sync: wait for the device after every frame, so that it outlives a power failure too.
    """

    wait_s: float = 10.0
    sync: bool = True


class ConsoleOptions(Options, frozen=True, kw_only=True):
    """The operator's console, a web page.

    Attributes:
        host: address it listens on. Anything but loopback needs a certificate.
        port: where; ``None`` takes 8642, or any free one if that is taken.
        certificate: PEM file for TLS, with the whole chain.
        key: PEM file with the certificate's private key.
        names: names, with the port where it is not the usual one, under which browsers reach
            the console through a reverse proxy or TLS, e.g. ``sem3.example.org``; any other
            name is turned away.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] | None = None
    certificate: str | None = None
    key: str | None = None
    names: tuple[str, ...] = ()


class RunConfig(Options, frozen=True, kw_only=True):
    """A whole run.

    Attributes:
        semagent: version of this format, 1.
        instrument: what people call the microscope.
        driver: how to reach it.
        engine: what looks at the frames.
        safety: the envelope; every limit has to be given.
        control: focusing.
        sanity: when a frame is not fit for use.
        acquire: the acquire role.
        infer: the infer role.
        record: the record role.
        console: the operator's console.
    """

    semagent: int
    instrument: str
    driver: Part
    safety: Envelope
    engine: Part = Part(name="sharpness")
    control: ControlOptions = ControlOptions()
    sanity: SanityOptions = SanityOptions()
    acquire: AcquireOptions = AcquireOptions()
    infer: InferOptions = InferOptions()
    record: RecordOptions = RecordOptions()
    console: ConsoleOptions = ConsoleOptions()


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


def load_config(path: Path) -> RunConfig:
    """Read and check a run configuration.

    Relative paths in driver and engine options are left as they are written; drivers resolve
    them against the working directory.

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
        config = msgspec.convert(raw, RunConfig)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path}{_line(text, str(error))}: {error}") from error
    if config.semagent != FORMAT:
        raise ConfigError(
            f"{path}: semagent: {config.semagent} is a format this release does not know; "
            f"it reads {FORMAT}"
        )
    return config


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


def find_config(name: str) -> Path:
    """The file a user means: a path, or the name of a configuration that ships with semagent.

    Raises:
        ConfigError: neither exists.
    """
    path = Path(name)
    if path.is_file():
        return path
    folders = [Path(__file__).parents[1] / "config", Path(__file__).parent / "_config"]
    shipped = {file.stem: file for folder in folders for file in folder.glob("*.yaml")}
    if name in shipped:
        return shipped[name]
    raise ConfigError(
        f"{name}: no such file, and no configuration of that name ships with semagent "
        f"(there are: {', '.join(sorted(shipped))})"
    )
