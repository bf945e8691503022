"""Calls of one function on a cluster, with arrays that all of them share put there once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from ..errors import PipelineError

R = TypeVar("R")
_RETRIES = 5  # of a call whose worker died


def spread_tasks(
    function: Callable[..., R],
    shared: Sequence[Any],
    calls: Sequence[tuple[Any, ...]],
    *,
    cores: int = 1,
) -> Iterator[tuple[int, R]]:
    """Call ``function(*shared, *call)`` for each call; give the results as they are finished.

    A call whose worker died is made again, up to five times. Within a :func:`connected` block.

    Parameters
    ----------
    function : callable
        Found by its name on every machine.
    shared : sequence
        Put into Ray's store once; arrays are mapped from there, read-only, not copied.
    calls : sequence of tuple
        Further arguments of each call.
    cores : int
        That each call takes.

    Yields
    ------
    int, result
        The call's place in `calls`, and what the function gave.

    Raises
    ------
    Exception
        What a call raised.
    """
    import ray

    remote = ray.remote(num_cpus=cores, max_retries=_RETRIES)(_guarded)
    kept = [ray.put(one) for one in shared]
    waiting = {remote.remote(function, *kept, *call): at for at, call in enumerate(calls)}
    try:
        while waiting:
            ready, _ = ray.wait(list(waiting), num_returns=1)
            for ref in ready:
                result = ray.get(ref)
                if isinstance(result, PipelineError):
                    raise result
                yield waiting.pop(ref), result
    finally:
        for ref in waiting:
            ray.cancel(ref, force=True)


def _guarded(function: Callable[..., R], *arguments: Any) -> R | PipelineError:
    """Call the function; give an error that the user can resolve instead of raising it."""
    try:
        return function(*arguments)
    except PipelineError as error:
        return error
