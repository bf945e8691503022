"""Optimisers, rates by layer and by step, and the weights' moving average."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ..settings import FinetuneSettings
from .freeze import Plan


def optimizer_of(
    network: nn.Module, plan: Plan, settings: FinetuneSettings
) -> torch.optim.Optimizer:
    """Make the optimiser, one group of parameters for each rate.

    The last layer (depth 0) has ``head_lr`` times the rate; a stage of depth d has
    ``layer_decay ** (d - 1)`` times it, so that the last stage has the rate itself.
    """
    parameters = dict(network.named_parameters())
    groups = []
    for depth in sorted(set(plan.depth[name] for name in plan.trained)):
        share = settings.head_lr if depth == 0 else settings.layer_decay ** (depth - 1)
        names = [name for name in plan.trained if plan.depth[name] == depth]
        groups.append(
            {"params": [parameters[n] for n in names], "lr": settings.lr * share, "share": share}
        )
    decay: dict[str, Any] = {"lr": settings.lr, "weight_decay": settings.weight_decay}
    match settings.optimizer:
        case "sgd":
            return torch.optim.SGD(groups, momentum=settings.momentum, **decay)
        case "adam":
            return torch.optim.Adam(groups, **decay)
        case "adamw":
            return torch.optim.AdamW(groups, **decay)
        case "rmsprop":
            return torch.optim.RMSprop(groups, momentum=settings.momentum, **decay)
    raise AssertionError(settings.optimizer)


def factor(settings: FinetuneSettings, epoch: float, n_epochs: int) -> float:
    """Give the rate's factor, 0 to 1, at a moment counted in epochs (3.5: amid the fourth).

    During the warm-up it rises from 0 in a straight line. ``cosine`` falls from then on to 0 at
    the end; ``step`` is multiplied by ``step_factor`` every ``step_epochs`` epochs.
    """
    if epoch < settings.warmup:
        return epoch / settings.warmup
    if settings.schedule == "cosine":
        share = (epoch - settings.warmup) / max(n_epochs - settings.warmup, 1e-9)
        return 0.5 + 0.5 * math.cos(math.pi * min(share, 1.0))
    if settings.schedule == "step":
        return float(settings.step_factor ** (int(epoch) // settings.step_epochs))
    return 1.0


def set_rates(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set each group's rate to its share of `lr`."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["share"]


class Average:
    """Exponential moving average of tensors, kept along with them.

    Early on the decay is smaller, (1 + n) / (10 + n) after n steps, so that the start is
    forgotten soon.

    Parameters
    ----------
    tensors : sequence of Tensor
        Floating-point parameters and buffers, changed in place by training.
    decay : float
        Share of the old average that stays at each step.
    """

    def __init__(self, tensors: Sequence[Tensor], decay: float) -> None:
        self._live = list(tensors)
        self._decay = decay
        self.n_steps = 0
        self.values = [tensor.detach().clone() for tensor in self._live]

    @torch.no_grad()
    def update(self) -> None:
        """Take the tensors' values after a step into the average."""
        decay = min(self._decay, (1 + self.n_steps) / (10 + self.n_steps))
        average: Any = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        average(self.values, self._live, self.n_steps)
        self.n_steps += 1

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the tensors' values and the averages; a second time undoes it."""
        for live, value in zip(self._live, self.values, strict=True):
            kept = live.detach().clone()
            live.copy_(value)
            value.copy_(kept)
