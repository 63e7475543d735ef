"""The model card that lies in every artefact: what its manifest knows, for people."""

from collections.abc import Iterator
from typing import Any

from semagent_engines.runtime.artefact import Manifest

MODEL_CARD = "MODEL_CARD.md"

PUBLISHED = {
    "axons": "axondeepseg/data_axondeepseg_sem, MIT",
    "bacterial-cellulose": "psobolewskiPhD/SEM_fiber_analysis, MIT",
    "fib-liftout": "DeMarcoLab/fibsem, MIT",
    "microplastics": "BrianLi009/Neural-Network-for-Electron-Micrographs-for-Microplastics, MIT",
    "nanocomposite-agglomerates": "baiyubaiyu, identification of nanocomposites, MIT",
    "nasa-coatings-superalloys": "nasa/pretrained-microscopy-models, MIT",
    "porous-surfaces-128": "Wzl-98/SEM-Super-Resolution, Apache-2.0",
    "shale-bnsreenu": "bnsreenu/python_for_microscopists, MIT",
    "shale-noisy-256": "Jon-GSC/SEM_segmentation, MIT",
}
"""Origin and licence of the sources of the weights that ship, by the name of their folder."""

_CARD = """\
# Model card: {name}

Reads blur and noise of scanning electron micrographs, compares the blur of two frames of one field,
and restores defocused, noisy frames. `manifest.json` has the inputs, the outputs with their units,
the sizes and the whole record of the training. Measurements, and how the preset that ships came
about, are in `docs/model-card.md` of semagent.

## Limits

- Restored frames are for looking at and for focusing. They are derived data: never measure on them
  without the raw frame beside them, and look at the consistency.
- Defocus in training was simulated, on micrographs and on procedural specimens.
- The blur of a single frame carries a bias of the specimen. Compare frames of one field.
- Blurs from {low:g} to {high:g} px were trained; readings outside do not count.
- Tiles have at least {smallest} px on an edge.

## Sources

{sources}

No image is in the artefact.

## Procedure

{stages}

Exported at revision {revision}, with the factors for predicted standard deviations {calibration}.
The restoration in eight bits loses {loss:g} dB.

## Commands

`DATA` is a folder with one sub-folder per source, `ARTEFACT` this folder, `CHECKPOINT` what an
earlier stage left: `finetune` goes on from the last `pretrain` or `finetune`, `measure` takes the
last `finetune`, and is trained again after it. `benchmarks` lies in the repository of semagent.
What the commands of today do otherwise than those that made the preset that ships,
`docs/model-card.md` says.

{commands}
"""

_TRAINED = (
    "`semagent train {stage} DATA --output DIR{preset} --validation {validation} "
    "--steps {steps} --seed {seed}{start}`"
)
_START = {"finetune": " --start CHECKPOINT", "measure": " --model CHECKPOINT"}
_MEASURED = (
    (
        "the artefact, with the factors above",
        "`semagent engine export CHECKPOINT ARTEFACT --data DATA`",
    ),
    (
        "restoration, blur, pairs, rank and time beside classical methods, on sources never seen",
        "`python benchmarks/model.py --data DATA --artefact ARTEFACT`",
    ),
    ("parity and speed of all runtimes", "`semagent engine compare ARTEFACT`"),
    ("time and memory by size of the frame", "`semagent engine bench ARTEFACT`"),
    (
        "restorations of your instrument, from four repeats of one field",
        "`semagent engine quality FRAME... --artefact ARTEFACT`",
    ),
)


def model_card(manifest: Manifest) -> str:
    """The card in Markdown."""
    training = manifest.training
    low, high = manifest.blur_range_px
    card = _CARD.format(
        name=manifest.name,
        low=low,
        high=high,
        smallest=manifest.smallest_tile_px,
        sources=_table(("used for", "source", "images", "origin, licence"), _sources(training)),
        stages=_table(
            ("stage", "steps", "minutes", "seed", "on the validation sources"), _stages(training)
        ),
        revision=manifest.revision,
        calibration=_figures(training["calibration"]),
        loss=training["int8_loss_db"],
        commands=_table(("what", "command"), _commands(manifest)),
    )
    if "adapted_from" in training:
        figures = _figures(training["adaptation"])
        card += f"\nAdapted to one instrument from {training['adapted_from']}: {figures}.\n"
    return card


def _sources(training: dict[str, Any]) -> Iterator[tuple[object, ...]]:
    for use in ("training", "validation"):
        for name, count in training.get(use, {}).items():
            yield use, name, count, PUBLISHED.get(name, "not recorded")


def _stages(training: dict[str, Any]) -> Iterator[tuple[object, ...]]:
    """The stages, first to last."""
    if "before" in training:
        yield from _stages(training["before"])
    if "stage" in training:
        figures = _figures(training.get("metrics", {}))
        yield (*(training.get(key, "") for key in ("stage", "steps", "minutes", "seed")), figures)


def _commands(manifest: Manifest) -> Iterator[tuple[object, ...]]:
    """What each stage was trained with, and what tells the figures."""
    training = manifest.training
    validation = " ".join(training.get("validation", {}))
    for number, (stage, steps, _, seed, _) in enumerate(_stages(training), start=1):
        command = _TRAINED.format(
            stage=stage,
            preset="" if stage == "measure" else f" --preset {manifest.model['name']}",
            validation=validation,
            steps=steps,
            seed=seed,
            start=_START.get(str(stage), "") if number > 1 else "",
        )
        if stage == "adapt":
            command = f"`semagent train adapt FRAMES --output DIR --steps {steps} --seed {seed}`"
        yield f"stage {number}, {stage}", command
    yield from _MEASURED


def _figures(values: dict[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in values.items()
    )


def _table(head: tuple[str, ...], rows: Iterator[tuple[object, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
