"""Every method by name. A method takes a trial and returns one or more outcomes."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from focusing.ours import Ours
from focusing.outcome import Outcome
from focusing.trials import Trial

Run = Callable[[Trial], list[Outcome]]


@dataclass(frozen=True, slots=True)
class Method:
    """One or more methods that are run together, because they share their frames.

    Attributes:
        names: as they are called in the tables.
        experiments: what they take part in.
        make: makes it ready; slow where a network has to be loaded or trained.
    """

    names: tuple[str, ...]
    experiments: tuple[str, ...]
    make: Callable[[], Run]


@dataclass(frozen=True, slots=True)
class Context:
    """What methods may need to get ready: the data, a cache, and settings of semagent itself."""

    data: Path
    cache: Path
    engine: str
    control: dict[str, Any]


def methods(context: Context) -> dict[str, Method]:
    """All methods, by the name that selects them on the command line."""
    return {
        "ours": Method(
            ("ours",),
            ("focus", "noise", "featureless", "hold"),
            lambda: Ours("ours", context.engine, context.control),
        ),
    }
