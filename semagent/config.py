"""The run configuration: one YAML file that says what is driven, by what, within which limits."""

from pathlib import Path
from typing import Annotated, Any

import msgspec

from semagent import registry
from semagent.control import ControlOptions
from semagent.errors import ConfigError
from semagent.memory import Memory, as_text, load_memory
from semagent.options import Count, Options, Seconds
from semagent.places import ScanOptions
from semagent.safety import Envelope
from semagent.sanity import SanityOptions
from semagent.types import FrameHeader
from semagent.yamltext import read_source

FORMAT = 1
_RELATIVE = "recorded"  # a recorded stack may count its working distances from anywhere

Pause = Annotated[float, msgspec.Meta(ge=0, le=3600)]


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

    frame_timeout_s: Seconds = 120.0
    frame_interval_s: Pause = 0.0
    max_failures: Count = 3

    @property
    def longest_wait_s(self) -> float:
        """How long a frame may be waited for, those that fail before it included."""
        return self.max_failures * self.frame_timeout_s + self.frame_interval_s


class InferOptions(Options, frozen=True, kw_only=True):
    """The infer role.

    Attributes:
        restore: ask the engine for restored frames too.
        max_failures: frames the engine may fail on in a row before the role ends.
        max_busy_s: longest time the engine may take over one frame; beyond it the role counts
            as hung.
        max_restarts: how often the role is started again before the run ends; counts anew once it
            has worked for ten minutes.
    """

    restore: bool = False
    max_failures: Count = 3
    max_busy_s: Seconds = 60.0
    max_restarts: Annotated[int, msgspec.Meta(ge=0)] = 3


class RecordOptions(Options, frozen=True, kw_only=True):
    """The record role.

    Attributes:
        wait_s: how long acquisition waits at a frame boundary for a slow disk before the run
            ends with an error; 0 ends it at once.
        sync: wait for the device after every frame, so that it outlives a power failure too.
    """

    wait_s: Pause = 10.0
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


class ConfigFile(Options, frozen=True, kw_only=True):
    """A whole run, as people write it.

    Attributes:
        semagent: version of this format, 1.
        instrument: what people call the microscope.
        driver: how to reach it.
        engine: what looks at the frames.
        restoration: an engine that restores frames for people to look at, beside the other and
            in a process of its own, so that focusing does not wait for it. It runs along with
            the console.
        safety: the envelope; every limit has to be given.
        control: focusing.
        sanity: when a frame is not fit for use.
        acquire: the acquire role.
        infer: the infer role.
        record: the record role.
        console: the operator's console.
        scan: a tile scan, for ``semagent run --positions``.
        memory: the file in which calibrations and learned optics of the instrument are kept;
            without it, the one beside the configuration, ``NAME.memory.yaml``.
    """

    semagent: int
    instrument: str
    driver: Part
    safety: Envelope
    engine: Part = Part(name="onnxruntime")
    restoration: Part | None = None
    control: ControlOptions = ControlOptions()
    sanity: SanityOptions = SanityOptions()
    acquire: AcquireOptions = AcquireOptions()
    infer: InferOptions = InferOptions()
    record: RecordOptions = RecordOptions()
    console: ConsoleOptions = ConsoleOptions()
    scan: ScanOptions | None = None
    memory: str | None = None


class RunConfig(ConfigFile, frozen=True, kw_only=True):
    """A whole run, with what is remembered of the instrument: a session records what it knew.

    Attributes:
        remembered: what the memory file held when the configuration was loaded.
    """

    remembered: Memory = Memory()

    def half_depth_of(self, header: FrameHeader) -> float:
        """Half the depth of field of a frame in metres, as control takes it."""
        return self.control.scale.half_depth_of(self.remembered.with_angle(header))

    def approach_m(self, header: FrameHeader) -> float:
        """How far moves of focus from above go too far, as control does at these settings."""
        play_m = self.remembered.lens_play_m(header)
        return self.control.autofocus.approach_m(self.half_depth_of(header), play_m)


def load_config(path: Path) -> RunConfig:
    """Read and check a run configuration.

    What is remembered of the instrument is read along with it, see `memory_file`. Relative paths
    in driver and engine options are left as they are written; drivers resolve them against the
    working directory.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or a key or value is wrong; the
            message names the file, the line and the key.
    """
    source = read_source(path)
    config = source.convert(ConfigFile)
    if config.semagent != FORMAT:
        raise ConfigError(
            f"{source.where('semagent')}: {config.semagent} is a format this release does not "
            f"know; it reads {FORMAT}"
        )
    distance_m = config.safety.working_distance_m
    if distance_m is not None and distance_m.min <= 0 and config.driver.name != _RELATIVE:
        raise ConfigError(
            f"{source.where('safety', 'working_distance_m', 'min')}: {distance_m.min:g} m: must be "
            "above 0 m"
        )
    memory = memory_file(path, config.memory)
    written = {**msgspec.structs.asdict(config), "memory": str(memory)}
    return RunConfig(**written, remembered=load_memory(memory))


def check_parts(path: Path, config: RunConfig) -> None:
    """Check the options of driver and engines too, without opening anything.

    A driver or engine of somebody else may keep to itself what it takes; then it says so itself
    when it is opened.

    Raises:
        ConfigError: there is no such driver or engine, or an option is wrong; the message names
            the file, the line and the key.
    """
    source = read_source(path)
    for group, key in (
        (registry.DRIVERS, "driver"),
        (registry.ENGINES, "engine"),
        (registry.ENGINES, "restoration"),
    ):
        part: Part | None = getattr(config, key)
        if part is None:
            continue
        try:
            schema = registry.options_schema(group, part.name)
        except ConfigError as error:
            raise ConfigError(f"{source.where(key, 'name')}: {error}") from error
        if schema is not None:
            source.convert(schema, key, "options")


def memory_file(path: Path, named: str | None) -> Path:
    """Where what is remembered of an instrument is kept.

    It is the file the configuration names, relative to it; without a name the one beside it,
    and for a configuration that ships with semagent one in the working directory.
    """
    if named is not None:
        return path.parent / named
    beside = path.with_suffix(".memory.yaml")
    return Path(beside.name) if path.parent in _shipped_folders() else beside


def save_memory(path: Path, memory: Memory) -> None:
    """Write what is remembered of an instrument: whole, or, if that fails, not at all.

    Raises:
        RecordError: it cannot be written.
    """
    # Here, not above: whoever only reads a configuration needs no library for image files.
    from semagent.session.storage import mapped_errors, write_whole  # noqa: PLC0415

    with mapped_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, as_text(memory).encode(), sync=True)


def _shipped_folders() -> list[Path]:
    return [Path(__file__).parents[1] / "config", Path(__file__).parent / "_config"]


def find_config(name: str) -> Path:
    """The file a user means: a path, or the name of a configuration that ships with semagent.

    Raises:
        ConfigError: neither exists, or the path cannot be looked at.
    """
    path = Path(name)
    try:
        if path.is_file():
            return path
    except OSError as error:
        raise ConfigError(f"{name}: cannot be read ({error.strerror})") from error
    shipped = {file.stem: file for folder in _shipped_folders() for file in folder.glob("*.yaml")}
    if name in shipped:
        return shipped[name]
    raise ConfigError(
        f"{name}: no such file, and no configuration of that name ships with semagent "
        f"(there are: {', '.join(sorted(shipped))})"
    )
