"""Every method by name. A method takes a trial and returns its outcome."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from focusing import measures, searches
from focusing.correlation import Heuristic
from focusing.mapfost import mapfost
from focusing.ours import Ours
from focusing.outcome import Outcome
from focusing.trials import EXPERIMENTS, Fields, Trial

Run = Callable[[Trial], Outcome]


@dataclass(frozen=True, slots=True)
class Method:
    """A method that can be run.

    Attributes:
        name: how it is called in the tables.
        experiments: what it takes part in.
        make: makes it ready; slow where a network has to be loaded or trained.
    """

    name: str
    experiments: tuple[str, ...]
    make: Callable[[], Run]


@dataclass(frozen=True, slots=True)
class Context:
    """What methods may need to get ready: the data, a cache, and settings of semagent itself."""

    data: Path
    cache: Path
    engine: str
    control: dict[str, Any]

    def training_fields(self) -> Fields:
        """Micrographs for calibration and training: never those of the published figures."""
        return Fields(self.data, "train", self.cache)


PEERS = ("focus", "noise", "featureless")
SEARCHES = (*PEERS, "beads")


def methods(context: Context) -> dict[str, Method]:
    """All methods, by the name that selects them on the command line."""
    electrons, camera = measures.standard_deviation, measures.tenengrad_variance
    searched = {
        "oughtafocus": ("Brent, edges (OughtaFocus)", measures.edges, searches.brent, SEARCHES),
        "odemis": ("Odemis, binary", electrons, searches.binary, PEERS),
        "odemis-camera": ("Odemis, binary", camera, searches.binary, ("beads",)),
    }
    for key, name, find in (
        ("golden", "golden section", searches.golden_section),
        ("brent", "Brent", searches.brent),
        ("coarse-to-fine", "coarse to fine", searches.coarse_to_fine),
    ):
        for suffix, measure in (("", "Vollath F4"), ("-smoothed", "smoothed Tenengrad")):
            score = measures.classical(measure)
            searched[f"{key}{suffix}"] = (f"{name}, {measure}", score, find, SEARCHES)
    for measure in measures.CLASSICAL:
        key, score = measure.lower().replace(" ", "-"), measures.classical(measure)
        searched[f"sweep-{key}"] = (f"sweep, {measure}", score, searches.sweep, SEARCHES)
    found = {
        "ours": Method(
            "semagent",
            EXPERIMENTS,
            lambda: Ours("semagent", context.engine, context.control),
        ),
        "heuristic": Method(
            "SBEMimage heuristic", PEERS, lambda: Heuristic(context.training_fields())
        ),
        "two-frame": Method("two-frame network", PEERS, lambda: _regression(context)),
        "mapfost": Method("MAPFoSt", PEERS, lambda: mapfost),
    }
    for key, (name, score, find, experiments) in searched.items():
        search = searches.Search(name, score, find, from_below=find is searches.sweep)
        found[key] = Method(name, experiments, lambda search=search: search)
    return found


def names() -> list[str]:
    """All methods, as they are called in the tables."""
    known = methods(Context(data=Path(), cache=Path(), engine="", control={}))
    return list(dict.fromkeys(method.name for method in known.values()))


def _regression(context: Context) -> Run:
    from focusing.regression import Regression  # noqa: PLC0415 - torch is heavy

    return Regression(context.training_fields(), context.cache)
