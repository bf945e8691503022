"""Several processes, as torchrun starts them: who does what, and sums over all of them.

One process alone is the same with rank 0 of 1: nothing else in the stage asks which it is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from ..errors import SettingsError

__all__ = ["ALONE", "World", "joined"]


@dataclass(frozen=True)
class World:
    """All processes of a run.

    Attributes
    ----------
    rank, size, local : int
        This process, their number, and this one's number on its machine.
    """

    rank: int = 0
    size: int = 1
    local: int = 0
    local_size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes files."""
        return self.rank == 0

    def sum(self, x: Tensor) -> Tensor:
        """Sum a tensor over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(x)
        return x

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.size > 1:
            dist.barrier()

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """Let the first process go through a block before the others: it fills the caches."""
        if not self.first:
            self.wait()
        try:
            yield
        finally:
            if self.first:
                self.wait()


ALONE = World()


@contextmanager
def joined(device: str) -> Iterator[World]:
    """Join the processes that torchrun started; alone without it.

    Raises
    ------
    SettingsError
        The device cannot be shared among processes.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ALONE
        return
    if device == "mps":
        raise SettingsError("Several processes cannot train on mps.", todo="DEVICE=cpu, or one")
    world = World(
        rank=int(os.environ["RANK"]),
        size=size,
        local=int(os.environ.get("LOCAL_RANK", "0")),
        local_size=int(os.environ.get("LOCAL_WORLD_SIZE", str(size))),
    )
    if device.startswith("cuda"):
        torch.cuda.set_device(world.local)
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    try:
        yield world
    finally:
        dist.destroy_process_group()
