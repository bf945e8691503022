"""Images through a network, in order: threads that read, and the engine on them or behind them.

With an engine that is concurrent (ONNX Runtime on a CPU) each thread reads some images and runs
them on its own core, so no core ever waits for another; else one thread feeds the engine while all
others read the next batches, each a part of one. A bounded number of images is on its way, so
memory does not grow with their number. Stage one and prediction both stand on this.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..backbones.engine import Engine, n_cores, run_all
from ..errors import ImageError, NoMemoryError

T = TypeVar("T")


@dataclass(eq=False)
class Batch(Generic[T]):
    """Some images that went through together.

    Attributes
    ----------
    items : list of T
        Those that could be read, in order.
    blocks : list of array (n, V, ...)
        What the network gave for them, one array per layer; empty where `items` is.
    rejects : list of (T, str)
        Those that could not, and why.
    """

    items: list[T] = field(default_factory=list)
    blocks: list[NDArray[Any]] = field(default_factory=list)
    rejects: list[tuple[T, str]] = field(default_factory=list)
    pixels: NDArray[np.uint8] | None = None  # (n, V, size, size, 3), until they have been run


class Stream(Generic[T]):
    """Reads and runs images.

    Parameters
    ----------
    engine : Engine
        What runs them.
    read : callable
        Gives the views (V, size, size, 3), uint8, of an item; called from several threads. An
        ImageError makes the item a reject; any other error ends the stream, shortage of memory
        as a NoMemoryError.
    n_views : int
        V.
    workers : int
        Threads; 0: one per core.
    store : callable, optional
        Brings what the network gave for some images (n, V, ...) to how it is to be kept.
    """

    def __init__(
        self,
        engine: Engine,
        read: Callable[[T], NDArray[np.uint8]],
        *,
        n_views: int,
        workers: int = 0,
        store: Callable[[NDArray[np.float32]], NDArray[Any]] = lambda block: block,
    ) -> None:
        self._engine = engine
        self._read = read
        self._workers = workers or n_cores()
        self._store = store
        self._together = max(1, engine.batch // n_views)  # images in a batch of views
        self._n_tasks = 1 if engine.concurrent else min(self._workers, self._together)
        self._ahead = max(3, math.ceil((2 * self._workers + 2) / self._n_tasks))  # batches read

    def batches(self, items: Iterable[T]) -> Iterator[Batch[T]]:
        """Give finished batches, in the order of the items."""
        waiting: deque[list[Future[Batch[T]]]] = deque()
        left = iter(items)
        with ThreadPoolExecutor(self._workers, thread_name_prefix="images") as pool:
            try:
                while some := list(islice(left, self._together)):
                    step = math.ceil(len(some) / self._n_tasks)
                    tasks = [some[i : i + step] for i in range(0, len(some), step)]
                    waiting.append([pool.submit(self._start, items) for items in tasks])
                    if len(waiting) >= self._ahead:
                        yield self._finished(waiting.popleft())
                while waiting:
                    yield self._finished(waiting.popleft())
            finally:
                for futures in waiting:
                    for future in futures:
                        future.cancel()

    def _start(self, items: list[T]) -> Batch[T]:
        """Read some images; with a concurrent engine, run them too."""
        batch: Batch[T] = Batch()
        pixels = []
        for item in items:
            try:
                pixels.append(self._read(item))
            except ImageError as error:
                batch.rejects.append((item, error.found))
            except MemoryError as error:
                raise NoMemoryError(
                    "There was no memory left to decode an image; nothing is wrong with the image.",
                    expected="some hundred MB for each thread that reads images",
                    todo="WORKERS=1, or end other programs; what was finished is kept",
                ) from error
            else:
                batch.items.append(item)
        if pixels:
            batch.pixels = np.stack(pixels)
            if self._engine.concurrent:
                self._run(batch)
        return batch

    def _finished(self, futures: list[Future[Batch[T]]]) -> Batch[T]:
        """Join the parts of a batch; run it, unless that was done where it was read."""
        parts = [future.result() for future in futures]
        if len(parts) == 1:
            batch = parts[0]
        else:
            read = [part.pixels for part in parts if part.pixels is not None]
            batch = Batch(
                [item for part in parts for item in part.items],
                rejects=[one for part in parts for one in part.rejects],
                pixels=np.concatenate(read) if read else None,
            )
        if batch.pixels is not None:
            self._run(batch)
        return batch

    def _run(self, batch: Batch[T]) -> None:
        """Put a batch's pixels through the network."""
        pixels = batch.pixels
        assert pixels is not None
        n, v = pixels.shape[:2]
        flat = pixels.reshape(n * v, *pixels.shape[2:])
        for block in run_all(self._engine, flat):
            batch.blocks.append(self._store(block.reshape(n, v, *block.shape[1:])))
        batch.pixels = None
