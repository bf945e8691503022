"""What a training is given: network, rows, settings, device."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..settings import FinetuneSettings
from .batches import Source
from .freeze import Plan
from .late import Late, Whole
from .spread import ALONE, World


@dataclass(frozen=True, eq=False)
class Task:
    """What is trained, on what, and how.

    Attributes
    ----------
    model : Whole or Late
        Takes what `source` prepares; shares its parameters with `network`.
    network, plan
        The whole network, on `device`, and what of it is trained.
    source : Source
        Batches by row.
    labels : int64 (N,)
        Of all rows of the manifest.
    groups : int64 (N,)
        Equal for images of one group, which are not independent.
    train, val : int64 (n,)
        Rows; `val` may be empty: then the last epoch counts.
    n_classes : int
        K.
    settings : FinetuneSettings
        Of this phase.
    seed, phase : int
        Start of everything random.
    device : str
        ``cpu``, ``cuda:N`` or ``mps``.
    costs : float64 (K, K) or None
        From COST.
    mixed : bool
        float16 arithmetic where it is safe, with a scaled loss (CUDA only).
    world : World
        The processes that train together.
    """

    model: Whole | Late
    network: nn.Module
    plan: Plan
    source: Source
    labels: NDArray[np.int64]
    groups: NDArray[np.int64]
    train: NDArray[np.int64]
    val: NDArray[np.int64]
    n_classes: int
    settings: FinetuneSettings
    seed: int
    phase: int = 0
    device: str = "cpu"
    costs: NDArray[np.float64] | None = None
    mixed: bool = False
    world: World = ALONE

    def autocast(self) -> Any:
        """Give a context in which the network runs with this training's precision."""
        if self.mixed:
            return torch.autocast(self.device.partition(":")[0], dtype=torch.float16)
        return contextlib.nullcontext()


def norms_of(settings: FinetuneSettings) -> str:
    """Say what BatchNorm does: batches' own statistics would undo the fit of a probe at once."""
    if settings.bn != "auto":
        return settings.bn
    return "eval" if settings.init == "probe" else "frozen"
