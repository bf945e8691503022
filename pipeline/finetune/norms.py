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

    The running mean, which all processes share, is taken off first: without it the variance would
    be a small difference of large sums.
    """
    axes = [0, *range(2, x.ndim)]
    shape = [1, -1, *[1] * (x.ndim - 2)]
    shift = torch.zeros(x.shape[1], device=x.device)
    if module.running_mean is not None:
        shift = module.running_mean.detach().clone()
    wide = x.float() - shift.view(shape)
    n_own = torch.tensor([float(x.numel() // x.shape[1])], device=x.device)
    sums = _Sum.apply(torch.cat([wide.sum(axes), wide.square().sum(axes), n_own]))
    n_channels = x.shape[1]
    count = sums[-1].detach()
    mean = sums[:n_channels] / count
    variance = (sums[n_channels:-1] / count - mean.square()).clamp(min=0)
    if module.track_running_stats and module.running_mean is not None:
        assert module.running_var is not None
        assert module.num_batches_tracked is not None
        with torch.no_grad():
            module.num_batches_tracked += 1
            momentum = module.momentum or 1.0 / float(module.num_batches_tracked)
            unbiased = variance * (count / (count - 1).clamp(min=1))
            module.running_mean.lerp_(mean + shift, momentum)
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
