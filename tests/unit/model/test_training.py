"""Losses, schedule, checkpoints, and training from the first step to the last."""

import math
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest
import torch

from semagent.errors import ConfigError, InputFileError, UsageError
from semagent_engines.data.batches import BatchSource
from semagent_engines.data.specimen import procedural_specimen
from semagent_engines.export.artefact import _revision, model_of
from semagent_engines.export.cli import main as export_main
from semagent_engines.export.weights import model_of_artefact
from semagent_engines.model.config import ModelConfig
from semagent_engines.model.network import SemModel, build, load_part
from semagent_engines.model.spectrum import FEATURES
from semagent_engines.runtime.artefact import Artefact
from semagent_engines.train import stages
from semagent_engines.train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from semagent_engines.train.cli import main
from semagent_engines.train.distributed import Place
from semagent_engines.train.finetune import Finetuning
from semagent_engines.train.loop import Settings, Task, train
from semagent_engines.train.losses import decibels, gaussian_loss, restoration_loss
from semagent_engines.train.measure import Measuring
from semagent_engines.train.pretrain import MaskedAutoencoder, Pretraining
from semagent_engines.train.schedule import Budget, learning_rate

ALONE = Place(0, 1, torch.device("cpu"))


# -- losses -----------------------------------------------------------------------------------


def test_restoration_loss_does_not_depend_on_contrast() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(3, 1, 16, 16, generator=generator)
    restored = truth + 0.1 * torch.randn(truth.shape, generator=generator)
    std = torch.full((3, 1, 1, 1), 0.2)
    plain = restoration_loss(restored, truth, std)
    faint = restoration_loss(0.1 * restored, 0.1 * truth, 0.1 * std)
    assert float(plain) == pytest.approx(float(faint), abs=1e-4)


def test_halving_the_error_gains_six_decibels() -> None:
    truth = torch.zeros(1, 1, 8, 8)
    gain = decibels(truth + 0.05, truth) - decibels(truth + 0.1, truth)
    assert float(gain) == pytest.approx(6.02, abs=0.01)


def test_gaussian_loss_is_least_at_the_right_deviation() -> None:
    errors = 0.3 * torch.randn(20000, generator=torch.Generator().manual_seed(0))
    # Without the detached weight the minimum is that of the plain likelihood.
    stds = torch.tensor([0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5])
    losses = [
        float(gaussian_loss(errors, torch.full_like(errors, std), torch.zeros_like(errors)) / std)
        for std in stds.tolist()
    ]
    assert losses.index(min(losses)) == 3


# -- artefacts --------------------------------------------------------------------------------


def test_an_artefact_gives_its_model_back(artefact: Artefact, model: SemModel) -> None:
    found = model_of_artefact(artefact)
    with np.load(artefact.golden) as golden, torch.no_grad():
        restored = found.restore(torch.from_numpy(golden["restore/in/pixels"]))
        expected = torch.from_numpy(golden["restore/out/restored"])
    assert torch.allclose(restored.tiles, expected, atol=1e-3)
    assert found.state_dict().keys() == model.state_dict().keys()


@pytest.mark.parametrize("changes", [{"dim": 64}, {"depth": 3}])
def test_graphs_of_another_model_than_the_manifest_says_are_refused(
    artefact: Artefact, changes: dict[str, int]
) -> None:
    manifest = msgspec.structs.replace(artefact.manifest, model=artefact.manifest.model | changes)
    with pytest.raises(ConfigError, match=r"manifest\.json: the graphs are of another `model`"):
        model_of_artefact(Artefact(folder=artefact.folder, manifest=manifest))


# -- schedule ---------------------------------------------------------------------------------


def test_the_budget_that_ends_first_counts() -> None:
    budget = Budget(steps=100, minutes=10)
    assert budget.progress(50, 60) == 0.5
    assert budget.progress(10, 540) == pytest.approx(0.9)
    assert budget.progress(200, 0) == 1.0
    assert budget.remaining_s(0, 0.0) is None
    assert budget.remaining_s(50, 30.0) == pytest.approx(30.0)


def test_a_budget_without_end_is_refused() -> None:
    with pytest.raises(ValueError, match="steps"):
        Budget()


def test_the_rate_rises_then_falls_to_a_hundredth() -> None:
    assert learning_rate(1.0, 0, 0.0) == pytest.approx(1 / 200)
    assert learning_rate(1.0, 199, 0.0) == pytest.approx(1.0)
    assert learning_rate(1.0, 1000, 0.5) == pytest.approx(0.505)
    assert learning_rate(1.0, 1000, 1.0) == pytest.approx(0.01)


# -- checkpoints ------------------------------------------------------------------------------


def test_a_checkpoint_survives_a_round_trip(tmp_path: Path, small: ModelConfig) -> None:
    weights = {"a": torch.arange(3.0)}
    saved = Checkpoint(small.as_dict(), weights, weights, {"state": {}}, 7, 1.5, {"seed": 0})
    save_checkpoint(saved, tmp_path / "deep" / "checkpoint.pt")
    loaded = load_checkpoint(tmp_path / "deep" / "checkpoint.pt")
    assert loaded.step == 7
    assert ModelConfig.from_dict(loaded.config) == small
    assert torch.equal(loaded.weights["a"], weights["a"])
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["checkpoint.pt"]


@pytest.mark.parametrize(
    "content", [None, b"", b"not a checkpoint"], ids=["none", "empty", "other"]
)
def test_what_is_no_checkpoint_is_an_error_that_names_it(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "x.pt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputFileError, match=r"x\.pt"):
        load_checkpoint(path)


@pytest.mark.parametrize("kept", [0.2, 0.5, 0.8, 0.95])
def test_a_checkpoint_that_was_cut_short_is_refused(tmp_path: Path, kept: float) -> None:
    path = tmp_path / "x.pt"
    weights = {"a": torch.zeros(40, 40), "b": torch.zeros(7)}
    save_checkpoint(Checkpoint({}, weights, weights, {}, 7, 1.5, {}), path)
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(InputFileError, match=r"x\.pt: not a checkpoint"):
        load_checkpoint(path)


def test_a_foreign_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save({"weights": torch.zeros(2)}, path)
    with pytest.raises(InputFileError, match=r"x\.pt"):
        load_checkpoint(path)


# -- training ---------------------------------------------------------------------------------


def finetuning(small: ModelConfig, source: BatchSource) -> Finetuning:
    torch.manual_seed(0)
    return Finetuning(small, source, source, views=((2, 128),))


def run(task: Task, folder: Path, steps: int) -> tuple[Checkpoint, list[str]]:
    lines: list[str] = []
    settings = Settings(Budget(steps=steps), folder, peak_rate=2e-3, log_steps=2, save_s=1e9)
    path = train(task, settings, ALONE, config={}, record={"seed": 3}, report=lines.append)
    return load_checkpoint(path), lines


def test_fine_tuning_learns_a_batch_by_heart(small: ModelConfig, procedural: BatchSource) -> None:
    task = finetuning(small, procedural)
    batch = task.batch(0, ALONE.device)
    optimizer = torch.optim.AdamW(task.objective.parameters(), lr=3e-3)
    losses = []
    for _ in range(25):
        loss, _ = task.objective(*batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.5


def test_training_goes_on_where_it_stopped(
    small: ModelConfig, procedural: BatchSource, tmp_path: Path
) -> None:
    first, _ = run(finetuning(small, procedural), tmp_path, 2)
    assert first.step == 2
    second, lines = run(finetuning(small, procedural), tmp_path, 4)
    assert second.step == 4
    assert second.elapsed_s > first.elapsed_s
    assert lines[0].startswith("going on from step 2")
    assert any("left" in line for line in lines)
    metrics = second.record["metrics"]
    assert {"psnr_raw", "psnr", "gain_db"} <= metrics.keys()
    assert all(math.isfinite(value) for value in metrics.values())
    assert list((tmp_path / "log").glob("events*"))


class Interrupted(Finetuning):
    """Ends after two steps, as if the machine had been switched off."""

    def batch(self, step: int, device: torch.device) -> tuple[Any, ...]:
        if step == 2:
            raise InterruptedError
        return super().batch(step, device)


def test_an_interrupted_training_ends_with_the_weights_of_one_that_was_not(
    small: ModelConfig, procedural: BatchSource, tmp_path: Path
) -> None:
    def checkpoint(kind: type[Finetuning], folder: Path) -> Checkpoint:
        # Other weights each time: what a resumed run begins with must not matter.
        task = kind(small, procedural, procedural, views=((2, 128),))
        settings = Settings(Budget(steps=4), folder, peak_rate=0.3, save_s=0.0)
        train(task, settings, ALONE, config={}, record={}, report=lambda line: None)
        return load_checkpoint(folder / "checkpoint.pt")

    torch.manual_seed(0)
    straight = checkpoint(Finetuning, tmp_path / "straight")
    torch.manual_seed(0)
    with pytest.raises(InterruptedError):
        checkpoint(Interrupted, tmp_path / "resumed")
    resumed = checkpoint(Finetuning, tmp_path / "resumed")
    assert resumed.step == straight.step == 4
    for which in ("weights", "average"):
        for name, value in getattr(straight, which).items():
            torch.testing.assert_close(getattr(resumed, which)[name], value, rtol=0, atol=1e-6)


def test_interrupted_heads_end_with_the_weights_of_those_that_were_not(
    small: ModelConfig, procedural: BatchSource, tmp_path: Path
) -> None:
    tuned = build(small).state_dict()

    def checkpoint(last: int, folder: Path) -> Checkpoint:
        class UpTo(Measuring):
            def batch(self, step: int, device: torch.device) -> tuple[Any, ...]:
                if step == last:
                    raise InterruptedError
                return super().batch(step, device)

        torch.manual_seed(0)
        task = UpTo(
            small, procedural, procedural, tuned, pairs=4, per_batch=8, report=lambda line: None
        )
        settings = Settings(Budget(steps=4), folder, peak_rate=0.3, save_s=0.0)
        with suppress(InterruptedError):
            train(task, settings, ALONE, config={}, record={}, report=lambda line: None)
        return load_checkpoint(folder / "checkpoint.pt")

    straight = checkpoint(4, tmp_path / "straight")
    assert checkpoint(2, tmp_path / "resumed").step == 2
    resumed = checkpoint(4, tmp_path / "resumed")
    assert resumed.step == straight.step == 4
    for name, value in straight.weights.items():
        torch.testing.assert_close(resumed.weights[name], value, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"stage": "measure"}, "stage 'finetune' instead of 'measure'"),
        ({"validation": {"axons": 3}}, r"validation \['fibres'\] instead of \['axons'\]"),
        ({"model_sha256": "b"}, "model_sha256 'a' instead of 'b'"),
        ({"adapted_from": "x"}, "adapted_from None instead of 'x'"),
        ({"adapted_on": "x"}, "adapted_on None instead of 'x'"),
    ],
)
def test_the_checkpoint_of_another_run_is_not_gone_on_from(
    changed: dict[str, Any],
    message: str,
    small: ModelConfig,
    procedural: BatchSource,
    tmp_path: Path,
) -> None:
    task = finetuning(small, procedural)
    record = {"stage": "finetune", "validation": {"fibres": 2}, "model_sha256": "a"}
    found = Checkpoint(
        {"name": "small"},
        task.objective.state_dict(),
        task.objective.state_dict(),
        {},
        2,
        1.0,
        {**record, "validation": {"fibres": 3}, "seed": 5},
    )
    save_checkpoint(found, tmp_path / "checkpoint.pt")
    lines: list[str] = []

    def go_on(name: str, changed: dict[str, Any]) -> None:
        settings = Settings(Budget(steps=2), tmp_path)
        values = record | changed
        train(task, settings, ALONE, config={"name": name}, record=values, report=lines.append)

    with pytest.raises(UsageError, match=rf"checkpoint\.pt: is of another run, with {message}"):
        go_on("small", changed)
    with pytest.raises(UsageError, match="model name 'small' instead of 'base'"):
        go_on("base", {})
    go_on("small", {})
    assert any("budget is used up" in line for line in lines)


def test_the_exported_model_is_the_averaged_one(
    small: ModelConfig, procedural: BatchSource, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    task = finetuning(small, procedural)
    settings = Settings(Budget(steps=2), tmp_path, save_s=1e9)
    path = train(task, settings, ALONE, config=small.as_dict(), record={}, report=lambda line: None)
    checkpoint = load_checkpoint(path)
    model = model_of(checkpoint)
    name = "encoder.embed_patch.weight"
    assert torch.equal(model.state_dict()[name], checkpoint.average[f"model.{name}"])
    assert not torch.equal(model.state_dict()[name], checkpoint.weights[f"model.{name}"])


def test_pretraining_hands_its_encoder_to_fine_tuning(
    small: ModelConfig, procedural: BatchSource, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    task = Pretraining(small, procedural, procedural, count=2, edge_px=128)
    checkpoint, _ = run(task, tmp_path, 2)
    start = {
        name: value for name, value in checkpoint.average.items() if name.startswith("encoder.")
    }
    tuned = build(small)
    load_part(tuned, start)
    weight = tuned.encoder.embed_patch.weight
    assert torch.equal(weight, start["encoder.embed_patch.weight"])
    with pytest.raises(ValueError, match="no_such_weight"):
        load_part(tuned, {"no_such_weight": weight})


def test_the_heads_learn_from_spectra_and_leave_the_rest_alone(
    small: ModelConfig, procedural: BatchSource, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    tuned = build(small).state_dict()
    task = Measuring(
        small, procedural, procedural, tuned, pairs=40, per_batch=24, report=lambda line: None
    )
    before, _ = task.objective(*task.batch(0, ALONE.device))
    checkpoint, _ = run(task, tmp_path, 40)
    after, _ = task.objective(*task.batch(0, ALONE.device))
    assert float(after.detach()) < float(before.detach()) - 0.5
    for name, value in tuned.items():
        same = torch.equal(checkpoint.weights[f"model.{name}"], value)
        assert same == name.startswith(("encoder.", "restorer."))
    assert {"log_sigma", "pair", "coverage"} <= checkpoint.record["metrics"].keys()


def test_pairs_come_either_way_round(small: ModelConfig, procedural: BatchSource) -> None:
    tuned = build(small).state_dict()
    task = Measuring(
        small, procedural, procedural, tuned, pairs=4, per_batch=64, report=lambda line: None
    )
    (first, second), (one, other) = (task.batch(step, ALONE.device) for step in (0, 1))
    known = {tuple(row.tolist()) for row in first.covariance}
    assert known == {tuple(row.tolist()) for row in other.covariance}
    assert known != {tuple(row.tolist()) for row in one.covariance}
    assert second.spectra.shape == (64, small.scales, FEATURES)


def test_a_pretraining_is_not_exportable(
    small: ModelConfig, procedural: BatchSource, tmp_path: Path
) -> None:
    task = Pretraining(small, procedural, procedural, count=2, edge_px=128)
    checkpoint, _ = run(task, tmp_path, 1)
    with pytest.raises(InputFileError, match="finetune"):
        model_of(checkpoint)


def test_the_masked_loss_counts_hidden_patches_only(small: ModelConfig) -> None:
    torch.manual_seed(0)
    masked = MaskedAutoencoder(small).eval()
    torch.nn.init.zeros_(masked.paint.weight)
    torch.nn.init.zeros_(masked.paint.bias)
    image = torch.zeros(1, 1, 128, 128)
    # All the structure is in the first patch; seen, it does not count.
    image[..., :16, :16] = torch.rand(16, 16)
    seen_first = torch.arange(64)[None]
    seen_last = torch.arange(63, -1, -1)[None]
    seen, _ = masked(image, seen_first)
    hidden, _ = masked(image, seen_last)
    assert float(hidden.detach()) > float(seen.detach()) + 0.5


# -- the command ------------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A source to train on, one to hold out, and one of which nothing is usable."""
    folder = tmp_path / "data"
    for source, seed in (("alloy", 1), ("fibres", 2), ("soft", 3)):
        (folder / source).mkdir(parents=True)
        grey = (20 + 200 * procedural_specimen(np.random.default_rng(seed), 256)).astype(np.uint8)
        grey = grey.repeat(2, axis=0).repeat(2, axis=1)
        if source == "soft":
            grey = np.asarray(cv2.GaussianBlur(grey, (0, 0), 16.0), np.uint8)
        cv2.imwrite(str(folder / source / "a.png"), grey)
    return folder


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch) -> list[Task]:
    """What the command would train, had its training not been left out."""
    seen: list[Task] = []

    def untrained(task: Task, *args: object, **named: object) -> Path:
        seen.append(task)
        return Path("nowhere")

    monkeypatch.setattr(stages, "train", untrained)
    monkeypatch.setattr(stages, "BatchSource", partial(BatchSource, procedural_count=1))
    return seen


def stage(name: str, data: Path, *rest: str, validation: str = "fibres") -> None:
    output = ["--output", str(data.parent / "out"), "--validation", validation]
    main([name, str(data), *output, "--steps", "1", *rest])


@pytest.mark.parametrize(
    ("name", "option", "value", "message"),
    [
        ("finetune", "--batch", "0", "0 is not 1 or more"),
        ("finetune", "--processes", "-1", "-1 is not 0 or more"),
        ("pretrain", "--seed", "-1", "-1 is not 0 or more"),
        ("pretrain", "--steps", "-3", "-3 is not 1 or more"),
        ("pretrain", "--minutes", "0", "0.0 is not above 0"),
        ("pretrain", "--rate", "nan", "nan is not above 0"),
        ("measure", "--pairs", "0", "0 is not 1 or more"),
        ("adapt", "--seed", "-1", "-1 is not 0 or more"),
        ("adapt", "--steps", "0", "0 is not 1 or more"),
    ],
)
def test_numbers_that_cannot_be_meant_are_refused(
    name: str, option: str, value: str, message: str, tmp_path: Path
) -> None:
    start = [name, str(tmp_path), "--output", str(tmp_path / "out")]
    if name != "adapt":
        start += ["--validation", "a"]
    if name == "measure":
        start += ["--model", "none.pt"]
    with pytest.raises(UsageError, match=f"{name}: {option} {message}"):
        main([*start, "--steps", "1", option, value])
    assert not (tmp_path / "out").exists()


def test_the_heads_have_the_size_of_their_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = ["measure", str(tmp_path), "--output", "out", "--validation", "a", "--model", "none.pt"]
    with pytest.raises(SystemExit):
        main([*start, "--steps", "1", "--preset", "large"])
    assert "unrecognized arguments: --preset large" in capsys.readouterr().err


def test_the_seed_gives_the_weights_a_training_begins_with(data: Path, tasks: list[Task]) -> None:
    for seed in ("5", "5", "6"):
        stage("pretrain", data, "--seed", seed)
    first, same, other = (task.objective.state_dict() for task in tasks)
    assert all(torch.equal(value, same[name]) for name, value in first.items())
    assert not all(torch.equal(value, other[name]) for name, value in first.items())


def test_the_seed_gives_the_batches_of_the_heads(
    small: ModelConfig, procedural: BatchSource
) -> None:
    tuned = build(small).state_dict()
    batches = []
    for seed in (0, 0, 1):
        task = Measuring(
            small, procedural, procedural, tuned, pairs=4, seed=seed, report=lambda line: None
        )
        batches.append(task.batch(0, ALONE.device)[0].spectra)
    assert torch.equal(batches[0], batches[1])
    assert not torch.equal(batches[0], batches[2])


def test_a_validation_without_usable_images_is_refused(data: Path, tasks: list[Task]) -> None:
    with pytest.raises(InputFileError, match="no usable image in the validation sources soft"):
        stage("pretrain", data, validation="soft")
    assert not tasks


def stored(path: Path, config: ModelConfig, name: str) -> Path:
    weights = {f"model.{key}": value for key, value in build(config).state_dict().items()}
    record = {"stage": name, "validation": {"fibres": 1}}
    save_checkpoint(Checkpoint(config.as_dict(), weights, weights, {}, 1, 1.0, record), path)
    return path


def test_a_start_of_another_preset_is_refused(
    data: Path, tasks: list[Task], small: ModelConfig
) -> None:
    start = stored(data.parent / "small.pt", small, "finetune")
    with pytest.raises(InputFileError, match=r"small\.pt: a checkpoint of another preset"):
        stage("finetune", data, "--start", str(start))


def test_a_teacher_is_learned_from_and_left_alone(
    data: Path, tasks: list[Task], small: ModelConfig, tmp_path: Path
) -> None:
    teacher = stored(tmp_path / "teacher.pt", small, "finetune")
    stage("finetune", data)
    stage("finetune", data, "--teacher", str(teacher))
    alone, taught = (task.objective for task in tasks)
    for name, value in alone.state_dict().items():
        assert torch.equal(taught.state_dict()[name], value), name
    batch = tasks[1].batch(0, torch.device("cpu"))
    with torch.no_grad():
        loss, parts = taught(*batch)
        plain, _ = alone(*batch)
    assert float(loss - plain) == pytest.approx(0.5 * float(parts["teacher"]), rel=1e-3)
    path = tmp_path / "another.pt"
    save_checkpoint(Checkpoint(small.as_dict(), {}, {}, {}, 1, 1.0, {}), path)
    with pytest.raises(InputFileError, match=r"another\.pt: a checkpoint of another stage"):
        stage("finetune", data, "--teacher", str(path))


def test_another_teacher_is_not_gone_on_from(
    data: Path, small: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "BatchSource", partial(BatchSource, procedural_count=1))
    stage("finetune", data, "--teacher", str(stored(data.parent / "a.pt", small, "finetune")))
    with pytest.raises(UsageError, match=r"is of another run, with teacher_sha256"):
        stage("finetune", data)


def test_the_heads_of_another_model_are_not_gone_on_from(
    data: Path, small: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "BatchSource", partial(BatchSource, procedural_count=1))
    arguments = ["--pairs", "1", "--model"]
    stage("measure", data, *arguments, str(stored(data.parent / "a.pt", small, "finetune")))
    other = stored(data.parent / "b.pt", small, "finetune")
    with pytest.raises(UsageError, match=r"checkpoint\.pt: is of another run, with model_sha256"):
        stage("measure", data, *arguments, str(other))


@pytest.mark.parametrize("name", ["finetune", "pretrain"])
def test_heads_that_did_not_learn_are_not_exported(
    name: str, data: Path, small: ModelConfig
) -> None:
    checkpoint = stored(data.parent / "x.pt", small, name)
    output = data.parent / "artefact"
    with pytest.raises(InputFileError, match=rf"x\.pt: of the stage {name}, .* measure or adapt"):
        export_main([str(checkpoint), str(output), "--data", str(data)])
    assert not output.exists()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["replicate", "shard"])
def test_two_workers_train_one_model(how: str, tmp_path: Path) -> None:
    script = Path(__file__).parent / "two_workers.py"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", str(script), str(tmp_path), how]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=280
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("same weights") == 2
    assert ("not validated: the weights are sharded" in done.stdout) == (how == "shard")


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_revision_of_installed_code_is_not_that_of_the_repository_around_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    who = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.org")
    for arguments in (("init", "-q"), (*who, "commit", "-q", "--allow-empty", "-m", "theirs")):
        subprocess.run(["git", *arguments], cwd=tmp_path, check=True)  # noqa: S607
    installed = tmp_path / ".venv" / "artefact.py"
    installed.parent.mkdir()
    installed.touch()
    monkeypatch.setattr("semagent_engines.export.artefact.__file__", str(installed))
    assert _revision() == "unknown"
