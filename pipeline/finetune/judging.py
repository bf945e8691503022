"""Whether an epoch is better than another, by what its network says of val."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..heads.calibrate import fit_prior, fit_scale, log_losses
from ..heads.examples import LEAST_VAL
from ..heads.merit import contributions
from ..results.metrics import clustered_error
from ..settings import FinetuneSettings
from .task import Task


def improves(task: Task, scores: Tensor, kept: Tensor) -> bool:
    """Say whether scores of val (n, K) are better than those kept by more than one standard error.

    By METRIC; where that is the accuracy, by the calibrated log-loss. The standard error is of the
    paired differences, clustered by group.
    """
    gains = _merit(task, scores) - _merit(task, kept)  # (n,), or one per block
    groups = task.groups[task.val] if len(gains) == len(task.val) else np.arange(len(gains))
    return float(gains.mean()) > clustered_error(gains, groups)


def _merit(task: Task, scores: Tensor) -> NDArray[np.float64]:
    """Contributions of the images of val to the figure that decides, higher is better."""
    truth = torch.from_numpy(task.labels[task.val])
    scale, losses = calibrated(scores, truth, task.settings.balanced)
    metric = task.settings.metric
    return contributions(
        "log_loss" if metric == "accuracy" else metric,
        scores.numpy(), truth.numpy(), scale=scale, losses=losses, weights=None,
        costs=task.costs, by_cost=task.settings.threshold == "cost",
    )  # fmt: skip


def few_in_val(settings: FinetuneSettings, n_val: int) -> bool:
    """Whether val, of so many images, is too small to show that training beats the probe."""
    by_error = settings.init == "probe" and settings.choose == "one_se"
    return by_error and 0 < n_val < LEAST_VAL


def calibrated(scores: Tensor, truth: Tensor, balanced: bool) -> tuple[float, NDArray[np.float64]]:
    """Fit the temperature (after balanced training the prior too); give it and the log-losses."""
    shift: NDArray[np.float64] | float = 0.0
    if balanced:
        scale, shift = fit_prior(scores.numpy(), truth.numpy())
    else:
        scale = fit_scale(scores.numpy(), truth.numpy())
    return scale, log_losses(scale * scores.numpy() + shift, truth.numpy())
