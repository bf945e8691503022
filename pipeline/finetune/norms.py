"""BatchNorm over the batches of all processes, on any device.

torch's own SyncBatchNorm runs on CUDA only. Sums and their gradients go over all processes, so
that several processes compute what one would with the whole batch.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from .freeze import NORMS


class _Sum(torch.autograd.Function):
    """Sum over the processes; so is its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        total = grads[0].clone()
        dist.all_reduce(total)
        return total


def global_norms(network: nn.Module) -> None:
    """Make the network's BatchNorms count over all processes whenever they are in training."""
    for module in network.modules():
        # Not those that are passed over, which have been given another forward already.
        if isinstance(module, NORMS) and "forward" not in module.__dict__:
            usual = type(module).forward
            module.forward = _forward(module, usual)  # type: ignore[method-assign]


def _forward(module: nn.modules.batchnorm._BatchNorm, usual: Any) -> Any:
    def forward(x: Tensor) -> Tensor:
        if not module.training:
            normed: Tensor = usual(module, x)
            return normed
        return _normalised(module, x)

    return forward


def _normalised(module: nn.modules.batchnorm._BatchNorm, x: Tensor) -> Tensor:
    """Normalise (B, C, ...) by mean and variance over all processes (Ioffe and Szegedy 2015).

    Each process's own mean and variance are joined as Chan et al. (1979) do: sums of squares over
    all would lose the digits that they share with the mean.
    """
    axes = [0, *range(2, x.ndim)]
    shape = [1, -1, *[1] * (x.ndim - 2)]
    wide = x.float()
    own_variance, own_mean = torch.var_mean(wide, axes, correction=0)
    n_own = torch.full_like(own_mean[:1], x.numel() // x.shape[1])
    table = x.new_zeros(dist.get_world_size(), 2 * x.shape[1] + 1, dtype=torch.float32)
    own = torch.arange(len(table), device=x.device) == dist.get_rank()
    mine = torch.cat([own_mean, own_variance, n_own])
    table = _Sum.apply(torch.where(own[:, None], mine, table))  # (P, 2 C + 1)
    means, variances = table[:, : x.shape[1]], table[:, x.shape[1] : -1]
    counts = table[:, -1:].detach()
    count = counts.sum()
    mean = (counts * means).sum(0) / count
    variance = (counts * (variances + (means - mean).square())).sum(0) / count
    if module.track_running_stats and module.running_mean is not None:
        assert module.running_var is not None
        assert module.num_batches_tracked is not None
        with torch.no_grad():
            module.num_batches_tracked += 1
            momentum = module.momentum or 1.0 / float(module.num_batches_tracked)
            unbiased = variance * (count / (count - 1).clamp(min=1))
            module.running_mean.lerp_(mean, momentum)
            module.running_var.lerp_(unbiased, momentum)
    normed = (wide - mean.view(shape)) * torch.rsqrt(variance.view(shape) + module.eps)
    if module.affine:
        normed = normed * module.weight.view(shape) + module.bias.view(shape)
    out: Tensor = normed.to(x.dtype)
    for name in ("drop", "act"):  # timm's norms have the activation inside
        after = getattr(module, name, None)
        if isinstance(after, nn.Module):
            out = after(out)
    return out
