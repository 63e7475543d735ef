"""What the arguments of ``semagent train`` start."""

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from semagent.errors import InputFileError
from semagent_engines.data.batches import BatchSource
from semagent_engines.data.instrument import read_pairs
from semagent_engines.data.sources import read_sources, split_sources
from semagent_engines.export.weights import model_of_artefact
from semagent_engines.model.config import ModelConfig, preset
from semagent_engines.model.network import SemModel, build, load_part
from semagent_engines.runtime.artefact import file_hash, open_artefact
from semagent_engines.train.adapt import adapt, read_session
from semagent_engines.train.checkpoint import load_checkpoint
from semagent_engines.train.distributed import join
from semagent_engines.train.finetune import Finetuning
from semagent_engines.train.loop import Report, Settings, Task, train
from semagent_engines.train.measure import Measuring
from semagent_engines.train.pretrain import Pretraining
from semagent_engines.train.schedule import Budget


def run(arguments: argparse.Namespace) -> None:
    """Carry out a stage.

    Args:
        arguments: of the command line, their numbers checked.

    Raises:
        UsageError: data or checkpoint cannot be used.
    """
    if arguments.stage == "adapt":
        _adapt(arguments)
        return
    with join() as place:
        # The same on all workers, which begin with the same weights.
        torch.manual_seed(arguments.seed)

        def report(line: str) -> None:
            if place.leads:
                _say(line)

        sources = read_sources(arguments.data)
        chosen, held_out = split_sources(sources, arguments.validation)
        for source in sources:
            role = "validation" if source in held_out else "training"
            report(f"{source.name}: {len(source.images)} for {role}, {source.refused} refused")
        training = BatchSource(chosen, seed=arguments.seed, rank=place.rank)
        validation = BatchSource(held_out, seed=1, procedural_share=0.0, flat_share=0.0)
        if arguments.stage == "pretrain":
            task, config, origin = _pretraining(arguments, training, validation)
        elif arguments.stage == "finetune":
            task, config, origin = _finetuning(arguments, training, validation)
        else:
            task, config, origin = _measuring(arguments, training, validation, place.device, report)
        record = {
            "before": {},
            "stage": arguments.stage,
            "seed": arguments.seed,
            "workers": place.world,
            "batch": arguments.batch,
            "training": {source.name: len(source.images) for source in chosen},
            "validation": {source.name: len(source.images) for source in held_out},
            **origin,
        }
        settings = Settings(
            budget=Budget(arguments.steps, arguments.minutes),
            folder=arguments.output,
            peak_rate=arguments.rate,
            spread="shard" if arguments.shard else "replicate",
        )
        path = train(task, settings, place, config=config.as_dict(), record=record, report=report)
        report(f"written: {path}")


Begun = tuple[Task, ModelConfig, dict[str, Any]]
"""What is trained, of which size, and what its record says of what it began with."""


def _pretraining(
    arguments: argparse.Namespace, training: BatchSource, validation: BatchSource
) -> Begun:
    config = preset(arguments.preset)
    task = Pretraining(
        config, training, validation, batch=arguments.batch, processes=arguments.processes
    )
    return task, config, {}


def _finetuning(
    arguments: argparse.Namespace, training: BatchSource, validation: BatchSource
) -> Begun:
    config = preset(arguments.preset)
    task = Finetuning(
        config,
        training,
        validation,
        batch=arguments.batch,
        processes=arguments.processes,
        teacher=_teacher(arguments.teacher) if arguments.teacher else None,
    )
    if arguments.start:
        _load_start(task, arguments.start)
    taught = {"teacher_sha256": file_hash(arguments.teacher)} if arguments.teacher else {}
    return task, config, taught


def _measuring(
    arguments: argparse.Namespace,
    training: BatchSource,
    validation: BatchSource,
    device: torch.device,
    report: Report,
) -> Begun:
    tuned = load_checkpoint(arguments.model)
    config = ModelConfig.from_dict(tuned.config)
    task = Measuring(
        config,
        training,
        validation,
        _averaged(arguments.model, "model."),
        pairs=arguments.pairs,
        seed=arguments.seed,
        batch=arguments.batch,
        device=device,
        processes=arguments.processes,
        report=report,
    )
    before = {**tuned.record, "steps": tuned.step, "minutes": tuned.elapsed_s / 60}
    return task, config, {"before": before, "model_sha256": file_hash(arguments.model)}


def _adapt(arguments: argparse.Namespace) -> None:
    minutes = 5.0 if arguments.steps is None and arguments.minutes is None else arguments.minutes
    settings = Settings(
        budget=Budget(arguments.steps, minutes),
        folder=arguments.output,
        peak_rate=arguments.rate,
        average_decay=0.99,
    )
    artefact = open_artefact(arguments.artefact)
    pairs = read_pairs(arguments.pairs) if arguments.pairs else ()
    arguments.output.mkdir(parents=True, exist_ok=True)
    session = read_session(model_of_artefact(artefact), arguments.frames, arguments.output, pairs)
    for fields, use in ((session.learned, "to adapt on"), (session.held_out, "held out")):
        _say(f"{len(fields)} fields {use}, {sum(map(len, fields))} frames in focus")
    with join() as place:
        verdict, folder = adapt(
            artefact,
            session,
            settings,
            place,
            seed=arguments.seed,
            report=_say,
        )
    then, now = verdict.consistency
    _say(
        f"{verdict.fields} held-out fields: {verdict.gain_db:+.3f} ± {verdict.error_db:.3f} dB, "
        f"consistency {then:.2f} before, {now:.2f} after"
    )
    if folder is None:
        _say("not surely better than before: the old weights stay, and no artefact was written")
    else:
        _say(f"written: {folder}; use it as `restore --artefact` or the engine's option `artefact`")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _load_start(task: Finetuning, path: Path) -> None:
    """Begin with a whole model's weights, or with those of a pretrained encoder.

    Raises:
        InputFileError: the checkpoint is of another preset.
    """
    if load_checkpoint(path).record.get("stage") == "pretrain":
        weights = {f"encoder.{name}": value for name, value in _averaged(path, "encoder.").items()}
    else:
        weights = _averaged(path, "model.")
    try:
        load_part(task.objective.model, weights)
    except ValueError as error:
        raise InputFileError(f"{path}: a checkpoint of another preset: {error}") from error


def _teacher(path: Path) -> SemModel:
    """The model of a checkpoint, to learn from.

    Raises:
        InputFileError: it is none, or one of another stage.
    """
    with torch.random.fork_rng():  # the student begins with the weights it would have without
        teacher = build(ModelConfig.from_dict(load_checkpoint(path).config))
    load_part(teacher, _averaged(path, "model."))
    return teacher


def _averaged(path: Path, prefix: str) -> dict[str, Tensor]:
    """The averaged weights below ``prefix`` in a checkpoint.

    Raises:
        InputFileError: it holds none; it is of another stage.
    """
    average = load_checkpoint(path).average
    weights = {
        name.removeprefix(prefix): value
        for name, value in average.items()
        if name.startswith(prefix)
    }
    if not weights:
        raise InputFileError(f"{path}: a checkpoint of another stage: no weights of {prefix}*")
    return weights
