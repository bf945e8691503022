"""Which method is the best, and which do not differ significantly from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..results.measures import ALPHA, MEASURES, Measure
from .paired import holm, holm_levels

ACCURACY = MEASURES["accuracy"]


def best_of(entries: Sequence[Mapping[str, Any]], measure: Measure = ACCURACY) -> int:
    """Index of the entry of the best figure; of equals, the one of the lowest log-loss."""
    ranks = [
        (-measure.sign * one[measure.key], one["log_loss"], at) for at, one in enumerate(entries)
    ]
    return min(ranks)[2]


def adjust(pairs: Sequence[dict[str, Any]]) -> None:
    """Add Holm's adjusted p, and the level each p was held to."""
    p = [pair["p"] for pair in pairs]
    for pair, adjusted, level in zip(pairs, holm(p), holm_levels(p), strict=True):
        pair |= {"p_holm": adjusted, "alpha": level}


def mark(
    entries: Sequence[dict[str, Any]],
    pairs: Sequence[Mapping[str, Any]],
    measure: Measure = ACCURACY,
) -> int:
    """Mark the best entry (``best``) and those that do not differ significantly (``alike``).

    Where there was no test, no entry is marked as alike.

    Returns
    -------
    int
        Index of the best.
    """
    best = best_of(entries, measure)
    of_best = {
        pair["a"] + pair["b"] - best: pair["p_holm"]
        for pair in pairs
        if best in (pair["a"], pair["b"])
    }
    for at, entry in enumerate(entries):
        p = of_best.get(at)
        entry["best"] = at == best
        entry["alike"] = at != best and p is not None and p > ALPHA
    return best
