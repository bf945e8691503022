"""Whether a training can be run at all, found before anything is trained.

BatchNorm takes mean and variance of a channel over the batch and the positions of its map; of a
single value it has none (Ioffe and Szegedy 2015, and torch's own check). That depends on the size
of the input, on the network's strides and on the smallest batch, so one pass of zeros with the
very modes of training tells; buffers are copies, so it changes nothing.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.func import functional_call

from ..errors import TrainingError
from .freeze import NORMS, Plan, training_mode


def smallest_batch(n_images: int, batch_size: int) -> int:
    """Images of the smallest batch of an epoch; batches are cut as evenly as can be."""
    return n_images // math.ceil(n_images / batch_size)


def check_size(network: nn.Module, size: int, *, model: str, usual: int, command: str = "") -> None:
    """Refuse an input that is too small, or of a wrong size, for the network.

    Parameters
    ----------
    network : nn.Module
        On the CPU.
    size, usual : int
        Side of the input, and that of the weights, in pixels.
    model, command : str
        For the message.

    Raises
    ------
    TrainingError
        The network cannot take it.
    """
    was_training = network.training
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(1, 3, size, size))
    except (RuntimeError, ValueError, AssertionError) as error:
        raise TrainingError(
            f"{model} cannot take images of {size} x {size} px: {str(error).splitlines()[0][:200]}"
            ".",
            expected=f"a size that fits its layers; its weights were trained at {usual}",
            todo=f"{command} SIZE={usual}".strip(),
        ) from error
    finally:
        network.train(was_training)


def check_batches(
    network: nn.Module, plan: Plan, bn: str, *, size: int, n_images: int, batch_size: int,
    n_processes: int = 1, command: str = "",
) -> None:  # fmt: skip
    """Refuse a batch of one image where BatchNorm would have one value of a channel.

    And one that does not have an image for each process.

    Parameters
    ----------
    network : nn.Module
        On the CPU.
    plan : Plan
        What is trained.
    bn : str
        ``frozen``, ``eval`` or ``update``.
    size : int
        Side of the input, in pixels.
    n_images, batch_size : int
        Training images, and those of a step.
    n_processes : int
        That share each batch.
    command : str
        The command that was given.

    Raises
    ------
    TrainingError
        Some BatchNorm in training mode would take its statistics of one value, or there are more
        processes than images in a batch.
    """
    if smallest_batch(n_images, batch_size) < n_processes:
        raise TrainingError(
            f"A training batch of {smallest_batch(n_images, batch_size)} images "
            f"(BATCH_SIZE={batch_size}, {n_images} training images) cannot be shared by "
            f"{n_processes} processes.",
            expected="one image or more for each process, in every batch",
            todo="fewer processes (WORKERS=, or --nproc-per-node=), or a larger BATCH_SIZE",
        )
    if smallest_batch(n_images, batch_size) > 1:
        return
    modes = {name: module.training for name, module in network.named_modules()}
    where: list[tuple[str, tuple[int, ...]]] = []
    hooks = [
        module.register_forward_pre_hook(
            lambda m, inputs, n=name: (
                where.append((n, tuple(inputs[0].shape)))
                if m.training and inputs[0].numel() == inputs[0].shape[1]
                else None
            )
        )
        for name, module in network.named_modules()
        if isinstance(module, NORMS)
    ]
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    try:
        training_mode(network, plan, bn)
        with torch.no_grad():
            functional_call(network, buffers, (torch.zeros(1, 3, size, size),))
    except ValueError:
        if not where:
            raise
    finally:
        for hook in hooks:
            hook.remove()
        for name, module in network.named_modules():
            module.training = modes[name]
    if not where:
        return
    layer, shape = where[0]
    fitting = next((one for one in range(2, n_images + 1) if smallest_batch(n_images, one) > 1), 0)
    ways = ["BN=eval"] + ([f"BATCH_SIZE={fitting}"] if fitting else [])
    raise TrainingError(
        f"A training batch of one image (BATCH_SIZE={batch_size}, {n_images} training images) "
        f"gives BatchNorm {layer} one value in each channel at SIZE={size} "
        f"({' x '.join(map(str, shape[1:]))}): it has no statistics to take.",
        expected="two images or more in every batch, or BatchNorm with the statistics of the "
        "weights (BN=eval)",
        todo=" or ".join(f"{command} {way}".strip() for way in ways),
    )
