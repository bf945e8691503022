"""The settings each method tries, from the strongest regularisation to the weakest, and more.

Where the best setting lies at an end of its axis, the axis goes on beyond it, up to a bound.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from .paths import Candidate

HALF_DECADES = 2  # steps a factor of 10
MORE = 2  # steps added at an end that wins


@dataclass(frozen=True)
class Axis:
    """One setting's values.

    Attributes
    ----------
    name : str
        ``C``, ``gamma``, ``k`` or ``metric``.
    values : tuple
        Tried now; from the strongest regularisation to the weakest.
    beyond_start, beyond_end : tuple
        What may be tried further at either end, nearest first.
    """

    name: str
    values: tuple[Any, ...]
    beyond_start: tuple[Any, ...] = ()
    beyond_end: tuple[Any, ...] = ()


def _log_axis(name: str, first: float, last: float, low: float, high: float, unit: float) -> Axis:
    """Half decades from `first` to `last`, bounded by `low` and `high`: exponents of 10."""

    def powers(start: float, stop: float) -> tuple[float, ...]:
        count = round((stop - start) * HALF_DECADES) + 1
        exact = (10.0 ** (start + step / HALF_DECADES) for step in range(max(0, count)))
        return tuple(float(f"{value * unit:.6g}") for value in exact)

    step = 1 / HALF_DECADES
    return Axis(
        name,
        powers(first, last),
        tuple(reversed(powers(low, first - step))),
        powers(last + step, high),
    )


def axes_of(method: str, *, n_train: int, code_dim: int) -> tuple[Axis, ...]:
    """Give the axes of a method's grid.

    Parameters
    ----------
    method : str
        One of ``cnn_codes.settings.METHODS``.
    n_train : int
        Examples that the largest training part has: no more neighbours can vote.
    code_dim : int
        The gamma of ``rbf`` is in units of 1 / code_dim, at which standardised codes are on
        average some distance of 2 / gamma apart.
    """
    if method in ("svm", "ridge"):
        return (_log_axis("C", -5, -1, -8, 4, 1.0),)
    if method == "softmax":
        return (_log_axis("C", -4, 0, -7, 5, 1.0),)
    if method == "rbf":
        return (
            _log_axis("C", -0.5, 1.5, -3, 5, 1.0),
            _log_axis("gamma", -1.5, 0.5, -4, 2, 1 / code_dim),
        )
    if method == "knn":
        steps = [1, 3, 5, 9, 15, 25, 41, 65, 101, 165, 265, 425]
        ks = [k for k in steps if k <= n_train] or [1]
        begun = [k for k in ks if k <= 41]
        return (
            Axis("k", tuple(reversed(begun)), tuple(k for k in ks if k > 41)),
            Axis("metric", ("cosine", "euclidean")),
        )
    return ()


def candidates(axes: Sequence[Axis]) -> list[Candidate]:
    """All combinations of the axes' values; the first axis varies slowest."""
    grid: list[Candidate] = [{}]
    for axis in axes:
        grid = [{**one, axis.name: value} for one in grid for value in axis.values]
    return grid


def widened(axes: Sequence[Axis], best: Candidate) -> tuple[Axis, ...]:
    """Continue each axis at the end where `best` lies; equal axes where it lies inside."""
    return tuple(_continued(axis, best) for axis in axes)


def tested(axis: Axis, values: Collection[Any]) -> Axis:
    """Keep the values of an axis that were tested; those left out at its ends lie beyond."""
    at = [number for number, value in enumerate(axis.values) if value in values]
    low, high = at[0], at[-1] + 1
    return Axis(
        axis.name,
        axis.values[low:high],
        (*reversed(axis.values[:low]), *axis.beyond_start),
        (*axis.values[high:], *axis.beyond_end),
    )


def around(axes: Sequence[Axis], best: Candidate) -> tuple[Axis, ...]:
    """Keep two values to either side of `best` on each axis; the others lie beyond its ends.

    For a second search on a larger form of the same problem: what is far from the first one's
    best is tried only if the best moves there.
    """
    near = []
    for axis in axes:
        if axis.name == "metric":  # no scale, so nothing lies near
            near.append(axis)
            continue
        values = (*reversed(axis.beyond_start), *axis.values, *axis.beyond_end)
        at = values.index(best[axis.name])
        low, high = max(0, at - 2), at + 3
        near.append(Axis(axis.name, values[low:high], tuple(reversed(values[:low])), values[high:]))
    return tuple(near)


def _continued(axis: Axis, best: Candidate) -> Axis:
    first, last = axis.values[0], axis.values[-1]
    before: tuple[Any, ...] = axis.beyond_start[:MORE] if best[axis.name] == first else ()
    after: tuple[Any, ...] = axis.beyond_end[:MORE] if best[axis.name] == last else ()
    return Axis(
        axis.name,
        (*reversed(before), *axis.values, *after),
        axis.beyond_start[len(before) :],
        axis.beyond_end[len(after) :],
    )
