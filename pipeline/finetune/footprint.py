"""How much memory a training batch takes on the CPU, said before the system ends the process.

A GPU reports that its memory is used up. On the CPU, Linux kills the process, without a word.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import DeviceError
from ..heads.room import available_bytes
from ..notation import size
from .freeze import training_mode
from .task import Task, norms_of

_SURE = 2.0  # times what is free; operations in place can halve what is kept


def bytes_per_image(model: nn.Module, x: Tensor) -> float:
    """Bytes that the forward pass keeps for the backward pass, for each image of `x` (B, ...).

    The storages of all tensors that autograd saves, each counted once, without parameters and
    buffers. Batch statistics and the random state are left as they were.
    """
    own = {one.untyped_storage().data_ptr() for one in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    before = [(one, one.detach().clone()) for one in model.buffers()]
    hooks: Any = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with torch.random.fork_rng(devices=[]), hooks:
        scores = model(x)
    del scores
    with torch.no_grad():
        for buffer, value in before:
            buffer.copy_(value)
    return sum(kept.values()) / len(x)


def check_room(task: Task, side: int, say: Callable[[str], None]) -> None:
    """Compare what a training batch takes with the memory that is free.

    Parameters
    ----------
    task : Task
        Whose images go through the whole network.
    side : int
        Pixels of an image's side.
    say : callable
        Told where a batch may not fit.

    Raises
    ------
    DeviceError
        It takes more than twice what is free.
    """
    if task.device != "cpu":
        return
    modes = [(module, module.training) for module in task.network.modules()]
    training_mode(task.network, task.plan, norms_of(task.settings))
    x = torch.zeros(2, 3, side, side).contiguous(memory_format=torch.channels_last)
    each, free = bytes_per_image(task.model, x), available_bytes()
    for module, mode in modes:
        module.training = mode
    needed = each * task.settings.batch_size
    if needed <= free:
        return
    fits = int(0.8 * free / each)
    found = (
        f"A training batch of {task.settings.batch_size} images takes about {size(int(needed))} of "
        f"memory, and {size(int(free))} are free."
    )
    if needed <= _SURE * free:
        say(
            f"warning: {found} The system may end this process; what it has finished is kept. "
            f"BATCH_SIZE={max(1, fits)} fits."
        )
        return
    raise DeviceError(
        found,
        expected=f"at most {fits} images a step" if fits else "more memory, or a smaller network",
        todo=f"BATCH_SIZE={fits}" if fits else "a smaller SIZE, or UNFREEZE less",
    )
