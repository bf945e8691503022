"""A pool of worker processes that do chunks of work, and may die at any moment.

Ray's core actors, under our own rule of what is done when one dies. Ray Data would run the same
actors; but its retries give no say in what a chunk is that killed its worker: it runs the same
chunk again without end, or fails the job, where here the chunk is halved until the one image is
found that does it, and what the dead worker had finished is not run again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from ..errors import ClusterError, NoMemoryError, PipelineError

T = TypeVar("T")
_DEATHS = 3  # of its worker, after which a chunk is halved
_START_DEATHS = 10  # of workers in turn that did nothing yet
GIVEN_UP = f"{_DEATHS} worker processes that read it alone were killed, perhaps for lack of memory"


@dataclass(eq=False)
class Chunk(Generic[T]):
    """Some items that are done together.

    Attributes
    ----------
    number : int
        Its place among all chunks.
    items : list of T
        What is to be done.
    deaths : int
        Workers that died over it.
    """

    number: int
    items: list[T]
    deaths: int = 0


@dataclass(eq=False)
class _Worker:
    """A worker and what it does now: one thing, so that it is known over what it died."""

    actor: Any
    ref: Any = None
    chunk: Chunk[Any] | None = None  # None: it greets


class Pool(Generic[T]):
    """Worker processes on a cluster.

    Parameters
    ----------
    cls : type
        Of the workers. ``greet()`` is called once in each: what it gives is passed to `greeted`.
        ``work(number, items)`` does a chunk. Both give a :class:`PipelineError` instead of raising
        it. The constructor only stores.
    arguments : tuple
        Of the constructor; put into Ray's store once.
    n : int
        Workers.
    cores, gpus : float
        That each of them takes.
    greeted : callable
        Told what a new worker's ``greet`` gave, from the second on too; may raise.
    died : callable
        Told of a chunk whose worker died; gives the items that are still to be done.
    given_up : callable
        Told of an item over which `_DEATHS` workers died with nothing else in their chunk.
    """

    def __init__(
        self,
        cls: type[Any],
        arguments: tuple[Any, ...],
        *,
        n: int,
        cores: float = 1,
        gpus: float = 0,
        greeted: Callable[[Any], None] = lambda _: None,
        died: Callable[[Chunk[T]], list[T]] = lambda chunk: chunk.items,
        given_up: Callable[[T], None],
    ) -> None:
        import ray

        self._ray = ray
        remote = ray.remote(num_cpus=cores, num_gpus=gpus, max_restarts=0, max_task_retries=0)
        self._make = remote(cls).remote
        self._arguments = [ray.put(one) for one in arguments]
        self._n = n
        self._greeted, self._died, self._given_up = greeted, died, given_up
        self._workers: list[_Worker] = []
        self._start_deaths = 0
        self.n_deaths = 0

    def run(self, chunks: Iterable[Chunk[T]]) -> Iterator[tuple[Chunk[T], Any]]:
        """Do all chunks; give each with what ``work`` gave, as they are finished.

        Raises
        ------
        PipelineError
            That a worker gave.
        ClusterError
            No worker can be started.
        """
        left = iter(chunks)
        again: deque[Chunk[T]] = deque()
        self._workers = []
        try:
            while True:
                self._feed(left, again)
                refs = {one.ref: one for one in self._workers if one.ref is not None}
                if not refs:
                    return
                ready, _ = self._ray.wait(list(refs), num_returns=1, timeout=10)
                for ref in ready:
                    worker = refs[ref]
                    try:
                        value = self._ray.get(ref)
                    except self._ray.exceptions.OutOfMemoryError as error:
                        raise NoMemoryError(
                            "Ray ended a worker because its machine had no memory left.",
                            expected="about 1 GB for each worker",
                            todo="WORKERS=1, or machines with more memory; what was finished is "
                            "kept",
                        ) from error
                    except self._ray.exceptions.RayActorError as error:
                        self._lost(worker, error, again)
                        continue
                    if isinstance(value, PipelineError):
                        raise value
                    chunk, worker.ref, worker.chunk = worker.chunk, None, None
                    self._start_deaths = 0
                    if chunk is None:
                        self._greeted(value)
                    else:
                        yield chunk, value
        finally:
            for worker in self._workers:
                self._ray.kill(worker.actor)
            self._workers = []

    def _feed(self, left: Iterator[Chunk[T]], again: deque[Chunk[T]]) -> None:
        """Give every idle worker a chunk, and start those that are wanted."""
        for worker in self._workers:
            if worker.ref is None and _one_more(left, again):
                worker.chunk = again.popleft()
                worker.ref = worker.actor.work.remote(worker.chunk.number, worker.chunk.items)
        while len(self._workers) < self._n and _one_more(left, again):
            worker = _Worker(self._make(*self._arguments))
            worker.ref = worker.actor.greet.remote()
            self._workers.append(worker)

    def _lost(self, worker: _Worker, error: Exception, again: deque[Chunk[T]]) -> None:
        """Take back the chunks of a worker that died."""
        self._workers.remove(worker)
        self.n_deaths += 1
        chunk = worker.chunk
        if chunk is not None:
            chunk.deaths += 1
            chunk.items = self._died(chunk)
            again.extendleft(self._halved(chunk))
            return
        self._start_deaths += 1
        if self._start_deaths >= _START_DEATHS:
            raise ClusterError(
                f"{_START_DEATHS} workers in turn died as they started: "
                f"{str(error).strip().splitlines()[0][:200]}",
                expected="the same packages on every machine of the cluster",
                todo="look at Ray's log (ray logs), or leave CLUSTER out",
            ) from error

    def _halved(self, chunk: Chunk[T]) -> list[Chunk[T]]:
        """Give a chunk back, in two halves where it killed too many workers."""
        if chunk.deaths < _DEATHS or not chunk.items:
            return [chunk]
        if len(chunk.items) == 1:
            self._given_up(chunk.items[0])
            return [Chunk(chunk.number, [])]
        half = len(chunk.items) // 2
        parts = (chunk.items[half:], chunk.items[:half])
        return [Chunk(chunk.number, part, deaths=1) for part in parts]


def _one_more(left: Iterator[Chunk[T]], again: deque[Chunk[T]]) -> bool:
    """Whether there is a chunk to do; it then stands first in `again`."""
    if not again and (chunk := next(left, None)) is not None:
        again.append(chunk)
    return bool(again)
