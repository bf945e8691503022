"""Several processes, as torchrun or a cluster starts them: who does what, and sums over all.

One process alone is the same with rank 0 of 1: nothing else in the stage asks which it is.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import version
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from .. import __version__
from ..errors import ClusterError, SettingsError

T = TypeVar("T")
# The first process may take hours for stage one while the others wait; a process that died is
# noticed by its broken connection and by whoever started it, not by this.
_PATIENCE = timedelta(days=1)


@dataclass(frozen=True)
class World:
    """All processes of a run.

    Attributes
    ----------
    rank, size, local, local_size : int
        This process, their number, and the same of those on its machine.
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

    def whole(self, share: Tensor, n: int) -> Tensor:
        """Join the shares (b, ...) of all processes to the batch (n, ...) they were cut from."""
        if self.size == 1:
            return share
        every = share.new_zeros(n, *share.shape[1:])
        every[self.rank :: self.size] = share
        return self.sum(every)

    def same(self, make: Callable[[], T]) -> T:
        """Give what `make` gave in the first process, where alone it is called."""
        if self.size == 1:
            return make()
        found: list[Any] = [make() if self.first else None]
        dist.broadcast_object_list(found)
        value: T = found[0]
        return value

    def agree(self, value: Any) -> list[Any]:
        """Give the values of all processes where they differ; nothing where they are equal."""
        if self.size == 1:
            return []
        every: list[Any] = [None] * self.size
        dist.all_gather_object(every, value)
        return every if any(one != every[0] for one in every) else []

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
    """Join the processes that torchrun or a cluster started; alone without it.

    Raises
    ------
    SettingsError
        The device cannot be shared among processes.
    ClusterError
        They run different versions.
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
    backend = "nccl" if device.startswith("cuda") else "gloo"
    dist.init_process_group(backend, timeout=_PATIENCE)
    try:
        if differ := world.agree({"cnn-codes": __version__, "torch": version("torch")}):
            raise ClusterError(
                f"The processes run different versions: {differ}.",
                expected="the same packages on every machine",
                todo="install the same packages there, as with a container image",
            )
        yield world
    finally:
        dist.destroy_process_group()
