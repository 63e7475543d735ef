"""Fine-tuning of encoder and restoration together."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from semagent_engines.data.ahead import Ahead, ViewDrafts
from semagent_engines.data.batches import BatchSource, Views
from semagent_engines.model.config import ModelConfig
from semagent_engines.model.network import Restoration, SemModel, build, normalise
from semagent_engines.train.losses import restoration_loss
from semagent_engines.train.validate import judge_views

_BALANCE = 0.02  # weight of the load-balancing loss
_DISTILLATION = 0.5  # weight of the teacher beside the truth
_VALIDATION_BATCHES = 10


class Objective(nn.Module):
    """The model and its losses, so that several workers can wrap it as one module.

    Any other module does that restores as the model does: it is compared with it so.

    Args:
        model: what learns.
        teacher: a trained model, usually a larger one, whose restorations are learned from beside
            the truth (G. Hinton et al., "Distilling the Knowledge in a Neural Network", 2015).
    """

    def __init__(self, model: SemModel, teacher: SemModel | None = None) -> None:
        super().__init__()
        self.model = model
        # In a list, so that it is no part of what is trained, saved and spread over workers.
        self._teacher = [] if teacher is None else [teacher.requires_grad_(False).eval()]
        if isinstance(model, SemModel):
            # They learn from spectra alone: see `measure`.
            model.blur_head.requires_grad_(False)
            model.pair_head.requires_grad_(False)

    def forward(self, views: Views) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and its parts for a batch of degraded images with their truth."""
        return self.loss(self.model.restore(views.pixels), views)

    def loss(self, restored: Restoration, views: Views) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and its parts of what the model made of the views."""
        std = normalise(views.pixels).std
        restoration = restoration_loss(restored.tiles, views.truth, std)
        loss = restoration + _BALANCE * restored.imbalance
        parts = {"restoration": restoration, "imbalance": restored.imbalance}
        for teacher in self._teacher:
            with torch.no_grad():
                taught = teacher.to(views.pixels.device).restore(views.pixels).tiles
            parts["teacher"] = restoration_loss(restored.tiles, taught, std)
            loss = loss + _DISTILLATION * parts["teacher"]
        return loss, parts


class Finetuning:
    """The `Task` of fine-tuning.

    Args:
        views: (count, edge in pixels) of the batches, taken in turn: small ones for variety,
            large ones for the distances that whole tiles have.
        batch: factor of these counts; a GPU wants more at once than a CPU.
        processes: how many draw batches ahead; see `Ahead`.
        teacher: see `Objective`.
    """

    def __init__(
        self,
        config: ModelConfig,
        training: BatchSource,
        validation: BatchSource,
        *,
        views: Sequence[tuple[int, int]] = ((8, 128), (8, 128), (8, 128), (2, 256)),
        batch: int = 1,
        processes: int = 0,
        teacher: SemModel | None = None,
    ) -> None:
        self.objective = Objective(build(config), teacher)
        many = tuple((batch * count, edge_px) for count, edge_px in views)
        self._drafts = Ahead(ViewDrafts(training, many), processes)
        self._validation, self._judged = validation, views[0]

    def batch(self, step: int, device: torch.device) -> tuple[Any, ...]:
        """The views of this step."""
        return (self._drafts[step].to(device).acquire(),)

    def validate(self) -> Mapping[str, float]:
        """Restoration on the validation sources; see `judge_views`."""
        device = next(self.objective.parameters()).device
        views = [
            self._validation.views(step, *self._judged).to(device)
            for step in range(_VALIDATION_BATCHES)
        ]
        return judge_views(self.objective.model, views)
