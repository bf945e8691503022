"""What a network in training says of images, in eval mode: their scores, and their codes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .task import Task

_EVALUATION_ROWS = 64  # activations of a batch, all its views and layers together


def score(task: Task, rows: NDArray[np.int64]) -> Tensor:
    """Score rows, in eval mode, the mean over the evaluation views: (n, K) float64 on the CPU."""
    return _evaluated(task, rows, task.model, task.n_classes, torch.float64)


def codes_of(task: Task, rows: NDArray[np.int64], final: str) -> Tensor:
    """Give what goes into the last layer, of rows as :func:`score` evaluates them.

    Parameters
    ----------
    final : str
        Name of the last layer.

    Returns
    -------
    float32 (n, D), on the CPU
        Means over the evaluation views, and over the positions of a map.
    """
    last = task.network.get_submodule(final)
    assert isinstance(last, nn.Linear | nn.Conv2d)
    seen: list[Tensor] = []

    def run(x: Tensor) -> Tensor:
        task.model(x)
        into = seen.pop()
        return into.flatten(2).mean(2) if into.ndim == 4 else into

    handle = last.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    try:
        return _evaluated(task, rows, run, last.weight.shape[1], torch.float32)
    finally:
        handle.remove()


@torch.no_grad()
def _evaluated(
    task: Task,
    rows: NDArray[np.int64],
    run: Callable[[Tensor], Tensor],
    width: int,
    dtype: torch.dtype,
) -> Tensor:
    """Put rows through `run` in eval mode, shared by the processes: means over views (n, width)."""
    task.network.eval()
    world = task.world
    mine = np.arange(len(rows))[world.rank :: world.size]
    found = torch.zeros(len(rows), width, dtype=dtype)
    start = 0
    for x in task.source.evaluation(rows[mine], _EVALUATION_ROWS):
        x = x.to(task.device, non_blocking=True)
        flat = task.source.prepare(x.flatten(0, 1))  # (B V, ...)
        with task.autocast():
            out = torch.cat([run(part) for part in torch.split(flat, _EVALUATION_ROWS)])
        mean = out.cpu().double().view(*x.shape[:2], -1).mean(1)  # (B, width); mps has no float64
        found[torch.from_numpy(mine[start : start + len(x)])] = mean.to(dtype)
        start += len(x)
    return world.sum(found.to(task.device)).cpu() if world.size > 1 else found
