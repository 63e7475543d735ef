"""The training loop that pretraining and fine-tuning share."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.utils.tensorboard import SummaryWriter

from semagent.errors import UsageError
from semagent_engines.train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from semagent_engines.train.distributed import Place, Spread, spread
from semagent_engines.train.schedule import Budget, learning_rate

Report = Callable[[str], None]

_SAME = ("stage", "validation", "model_sha256", "teacher_sha256", "adapted_from", "adapted_on")
"""What a record has in common with that of the checkpoint a run goes on from."""

_WHOLE = StateDictOptions(full_state_dict=True)


class Task(Protocol):
    """What is trained, on which batches, and how it is judged.

    ``objective`` is a module whose forward pass takes the batch's tensors and returns the loss
    and its parts.
    """

    @property
    def objective(self) -> nn.Module:
        """The module that is trained."""
        ...

    def batch(self, step: int, device: torch.device) -> tuple[Any, ...]:
        """Arguments of the objective for this step; the same for the same step."""
        ...

    def validate(self) -> Mapping[str, float]:
        """Figures of ``objective`` on data that is never trained on."""
        ...


@dataclass(frozen=True)
class Settings:
    """How to train.

    Attributes:
        budget: how long.
        folder: where checkpoint and logs go.
        peak_rate: highest learning rate.
        weight_decay: of AdamW, on matrices only.
        average_decay: of the moving average of the weights.
        clip: largest norm of the gradient.
        save_s: time between checkpoints.
        validate_s: time between validations.
        log_steps: steps between lines of progress.
        spread: how several workers share the model.
    """

    budget: Budget
    folder: Path
    peak_rate: float = 1e-3
    weight_decay: float = 0.02
    average_decay: float = 0.999
    clip: float = 1.0
    save_s: float = 120.0
    validate_s: float = 600.0
    log_steps: int = 50
    spread: Spread = "replicate"


def train(
    task: Task,
    settings: Settings,
    place: Place,
    *,
    config: dict[str, Any],
    record: dict[str, Any],
    report: Report,
) -> Path:
    """Train until the budget is spent, going on from the folder's checkpoint if there is one.

    Returns:
        The path of the last checkpoint.

    Raises:
        UsageError: the checkpoint is of another run: another stage, model or split, or adapted
            on other frames; or not all workers see it.
    """
    objective = task.objective
    path = settings.folder / "checkpoint.pt"
    resumed = load_checkpoint(path) if path.exists() else None
    _check_same_start(path, 0 if resumed is None else resumed.step, place)
    if resumed is not None:
        _check_same_run(path, resumed, config, record)
        objective.load_state_dict(resumed.weights)
    average = objective.state_dict() if resumed is None else resumed.average
    # Whole on every worker, so beside a model that is too large for one device not on it.
    beside = place.device if settings.spread == "replicate" else torch.device("cpu")
    average = {name: value.detach().to(beside, copy=True) for name, value in average.items()}
    spread_out = spread(objective, place, settings.spread)
    optimizer = torch.optim.AdamW(_groups(objective, settings.weight_decay), betas=(0.9, 0.98))
    step, before_s = 0, 0.0
    if resumed is not None:
        step, before_s = resumed.step, resumed.elapsed_s
        if resumed.optimizer:
            set_optimizer_state_dict(objective, optimizer, resumed.optimizer, options=_WHOLE)
        report(f"going on from step {step} after {before_s / 60:.1f} min")
        if settings.budget.progress(step, before_s) >= 1.0:
            report("the budget is used up, nothing is trained; give more steps or minutes")

    writer = SummaryWriter(str(settings.folder / "log")) if place.leads else None
    seed = torch.initial_seed()
    began = time.monotonic()
    saved = validated = logged = 0.0
    logged_step = step
    metrics: dict[str, float] = {}

    def elapsed() -> float:
        return before_s + time.monotonic() - began

    def save() -> None:
        weights = _full_weights(objective)
        state = _optimizer_state(objective, optimizer)
        if place.leads:
            kept = {**record, "metrics": metrics}
            save_checkpoint(
                Checkpoint(config, weights, average, state, step, elapsed(), kept), path
            )

    while (progress := _agreed(settings.budget.progress(step, elapsed()), place)) < 1.0:
        rate = learning_rate(settings.peak_rate, step, progress)
        # Dropout depends on the step, not on where the run began.
        torch.manual_seed(seed + step)
        batch = task.batch(step, place.device)
        parts, descended = _descend(spread_out, batch, optimizer, rate, settings.clip)
        if descended:
            _update_average(average, _full_weights(objective), step, settings.average_decay)
        step += 1
        now = time.monotonic() - began
        if place.leads and (step % settings.log_steps == 0):
            pace = (now - logged) / (step - logged_step)
            logged, logged_step = now, step
            _log(writer, report, step, pace, rate, parts, settings.budget, elapsed())
        if now - validated > settings.validate_s:
            validated = now
            metrics = _validate(task, average, place, writer, report, step)
        if _agreed(float(now - saved > settings.save_s), place) > 0:
            saved = now
            save()
    metrics = _validate(task, average, place, writer, report, step)
    save()
    if writer is not None:
        writer.close()
    return path


def _check_same_start(path: Path, step: int, place: Place) -> None:
    least, most = int(-_agreed(-step, place)), int(_agreed(step, place))
    if least != most:
        raise UsageError(
            f"{path}: the workers go on from steps {least} to {most}, as they do not see "
            "the same checkpoint; name an --output that all machines share, or copy it to all"
        )


def _check_same_run(
    path: Path, found: Checkpoint, config: Mapping[str, Any], record: Mapping[str, Any]
) -> None:
    was, now = _identity(found.config, found.record), _identity(config, record)
    for key in now.keys() | was.keys():
        if was.get(key) != now.get(key):
            raise UsageError(
                f"{path}: is of another run, with {key} {was.get(key)!r} instead of "
                f"{now.get(key)!r}; name another --output, or remove it"
            )


def _identity(config: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
    # Of the sources only the names: how many of their images are usable may change.
    same = {key: record.get(key) for key in _SAME}
    same |= {key: sorted(value) for key, value in same.items() if isinstance(value, dict)}
    return {f"model {key}": value for key, value in config.items()} | same


def _groups(module: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Matrices with weight decay; biases, norms and tokens without."""
    parameters = [value for value in module.parameters() if value.requires_grad]
    return [
        {"params": [value for value in parameters if value.ndim >= 2], "weight_decay": decay},
        {"params": [value for value in parameters if value.ndim < 2], "weight_decay": 0.0},
    ]


def _agreed(value: float, place: Place) -> float:
    """The largest value of all workers, so that they stop and save at the same step."""
    if place.world == 1:
        return value
    shared = torch.tensor(value, device=place.device, dtype=torch.float64)
    torch.distributed.all_reduce(shared, op=torch.distributed.ReduceOp.MAX)
    return float(shared)


def _sharded(objective: nn.Module) -> bool:
    return any(hasattr(value, "full_tensor") for value in objective.parameters())


def _full_weights(objective: nn.Module) -> dict[str, Tensor]:
    """All weights on this process, gathered if they are sharded."""
    if _sharded(objective):
        state = get_model_state_dict(objective, options=_WHOLE)
        return {name: value for name, value in state.items() if isinstance(value, Tensor)}
    return objective.state_dict()


def _optimizer_state(objective: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """By the names of the weights, gathered if they are sharded; empty before the first step."""
    if not optimizer.state:
        return {}
    # Only the leading worker has the room for it, and that beside its device.
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    return dict(get_optimizer_state_dict(objective, optimizer, options=options))


def _descend(
    objective: nn.Module,
    batch: tuple[Any, ...],
    optimizer: torch.optim.Optimizer,
    rate: float,
    clip: float,
) -> tuple[Mapping[str, Tensor], bool]:
    """Go one step down, unless the gradient is not finite.

    Args:
        objective: what is trained.
        batch: its arguments.
        optimizer: of its weights.
        rate: learning rate of this step.
        clip: largest norm of the gradient.

    Returns:
        The parts of the loss, and whether the weights were changed.
    """
    for group in optimizer.param_groups:
        group["lr"] = rate
    loss, parts = objective(*batch)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    finite = bool(torch.isfinite(nn.utils.clip_grad_norm_(objective.parameters(), clip)))
    if finite:
        optimizer.step()
    return parts, finite


@torch.no_grad()
def _update_average(
    average: dict[str, Tensor], weights: dict[str, Tensor], step: int, decay: float
) -> None:
    # Short at first, or the random start would stay in the average for long.
    decay = min(decay, (1 + step) / (10 + step))
    for name, value in average.items():
        value.lerp_(weights[name].to(value.device, value.dtype), 1 - decay)


def _validate(
    task: Task,
    average: dict[str, Tensor],
    place: Place,
    writer: SummaryWriter | None,
    report: Report,
    step: int,
) -> dict[str, float]:
    """Judge the averaged weights on the leading worker, unless they are sharded."""
    if not place.leads:
        return {}
    if _sharded(task.objective):
        report("not validated: the weights are sharded")
        return {}
    trained = {name: value.clone() for name, value in task.objective.state_dict().items()}
    task.objective.load_state_dict(average)
    task.objective.eval()
    with torch.no_grad():
        metrics = dict(task.validate())
    task.objective.train()
    task.objective.load_state_dict(trained)
    if writer is not None:
        for name, value in metrics.items():
            writer.add_scalar(f"validation/{name}", value, step)
    if metrics:
        shown = "  ".join(f"{name} {value:.3f}" for name, value in metrics.items())
        report(f"validation: {shown}")
    return metrics


def _log(
    writer: SummaryWriter | None,
    report: Report,
    step: int,
    pace_s: float,
    rate: float,
    parts: Mapping[str, Tensor],
    budget: Budget,
    elapsed_s: float,
) -> None:
    values = {name: float(value.detach()) for name, value in parts.items()}
    if writer is not None:
        for name, value in values.items():
            writer.add_scalar(f"training/{name}", value, step)
        writer.add_scalar("training/rate", rate, step)
    left = budget.remaining_s(step, elapsed_s)
    minutes = f"{left / 60:.1f} min left" if left is not None else ""
    shown = "  ".join(f"{name} {value:.3f}" for name, value in values.items())
    report(f"step {step}  {pace_s:.2f} s/step  {minutes}  {shown}")
