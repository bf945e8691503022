"""Dynamic batching: images of all requests meet in one queue, and go through the network together.

A batch is what waits when the network is free: at low load one image, which is answered at once;
at high load a full batch. Nothing waits for a timer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from .limits import Refused

T = TypeVar("T")
R = TypeVar("R")


class Admission:
    """Counts the images that were accepted and not answered; refuses those beyond a limit.

    Parameters
    ----------
    most : int
        Images.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._rate = 20.0  # images per second, a running mean
        self._last = time.monotonic()
        self.n_waiting = 0

    def enter(self, n_images: int) -> None:
        """Accept some images.

        Raises
        ------
        Refused
            503 with Retry-After: as many as are allowed wait already.
        """
        if self.n_waiting + n_images > self._most:
            raise self.overload()
        self.n_waiting += n_images

    def leave(self, n_images: int) -> None:
        """Take note that some images were answered, or given up."""
        self.n_waiting -= n_images
        now = time.monotonic()
        if n_images and now > self._last:
            rate = n_images / (now - self._last)
            self._rate += 0.02 * (min(rate, 10_000) - self._rate)
            self._last = now

    def overload(self) -> Refused:
        """Give the answer of an overloaded server, with the seconds that the queue will take."""
        retry_s = max(1, min(30, round(self.n_waiting / max(self._rate, 1.0))))
        return Refused(
            503, f"Overloaded: {self.n_waiting} images wait.",
            expected=f"at most {self._most}", todo=f"try again in {retry_s} s", retry_s=retry_s,
        )  # fmt: skip


@dataclass(eq=False)
class _Waiting(Generic[T, R]):
    item: T
    future: asyncio.Future[R]


class Batcher(Generic[T, R]):
    """Runs items in batches, in threads.

    Parameters
    ----------
    run : callable
        Maps a sequence of items to as many results; called from `n_threads` threads.
    n_threads : int
        Batches at once.
    most : int
        Items a batch.
    observe : callable, optional
        Told the size of each batch and its seconds.
    """

    def __init__(
        self,
        run: Callable[[Sequence[T]], Sequence[R]],
        *,
        n_threads: int,
        most: int,
        observe: Callable[[int, float], None] = lambda size, seconds: None,
    ) -> None:
        self._run = run
        self._most = most
        self._observe = observe
        self._queue: asyncio.Queue[_Waiting[T, R] | None] = asyncio.Queue()
        self._pool = ThreadPoolExecutor(n_threads, thread_name_prefix="network")
        self._tasks = [
            asyncio.get_running_loop().create_task(self._loop()) for _ in range(n_threads)
        ]

    async def submit(self, item: T) -> R:
        """Run one item with whatever else waits.

        Raises
        ------
        Exception
            What the run of its batch raised.
        """
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait(_Waiting(item, future))
        return await future

    async def close(self) -> None:
        """Finish what was submitted, then end."""
        for _ in self._tasks:
            self._queue.put_nowait(None)
        await asyncio.gather(*self._tasks)
        self._pool.shutdown(wait=True)

    async def _loop(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            first = await self._queue.get()
            if first is None:
                return
            batch = [first]
            while len(batch) < self._most and not self._queue.empty():
                one = self._queue.get_nowait()
                if one is None:  # for another loop, or for the next turn of this one
                    self._queue.put_nowait(None)
                    break
                batch.append(one)
            batch = [one for one in batch if not one.future.done()]  # the client went away
            if not batch:
                continue
            began = time.perf_counter()
            try:
                results: Sequence[Any] = await loop.run_in_executor(
                    self._pool, self._run, [one.item for one in batch]
                )
            except Exception as error:
                for one in batch:
                    if not one.future.done():
                        one.future.set_exception(error)
                continue
            self._observe(len(batch), time.perf_counter() - began)
            for one, result in zip(batch, results, strict=True):
                if not one.future.done():
                    one.future.set_result(result)
