"""Several runs of one method summed up: over random splits, or over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import ResultError
from .records import FIGURES, MORE_FIGURES, check_record, plain


def summarise(records: Sequence[Mapping[str, Any]], *, run: str) -> dict[str, Any]:
    """Sum up one method over random splits or seeds: mean, spread, and every single value.

    Parameters
    ----------
    records : sequence of mapping
        Runs of one method, network, layers and views on one data set; at least one.
    run : str
        The summary's own name.

    Returns
    -------
    dict
        A record of kind ``summary``. ``metrics["test"][figure]`` is the mean, so that a table
        can show it with single runs; ``spread["test"][figure]`` has mean, sd (of a sample;
        None for a single run), min, max and ``values`` in the order of ``runs``. The interval
        is left out: runs on overlapping images are not independent.
    """
    if not records:
        raise ResultError("There are no runs to sum up.", expected="at least one record")
    first = records[0]
    same = ("data", "method", "model", "layers", "views", "size", "class_names")
    for record in records:
        if off := [key for key in same if record[key] != first[key]]:
            raise ResultError(
                f"{record['run']} differs from {first['run']} in {', '.join(off)}.",
                expected="runs that differ in seed or split only",
            )
    spread: dict[str, Any] = {}
    more = [key for key in MORE_FIGURES if all(key in one["metrics"]["test"] for one in records)]
    for key in (*FIGURES, *more):
        values = [record["metrics"]["test"][key] for record in records]
        known = [value for value in values if value is not None]
        spread[key] = {**_spread(known), "values": values}
    times = {
        key: statistics.fmean(record["times_s"][key] for record in records)
        for key in first["times_s"]
        if all(isinstance(record["times_s"].get(key), int | float) for record in records)
    }
    summary = {
        **{key: first[key] for key in ("schema", *same, "seed", "splits", "versions")},
        "kind": "summary",
        "run": run,
        "runs": [record["run"] for record in records],
        "seeds": [record["seed"] for record in records],
        "chosen": {"each": [record["chosen"] for record in records]},
        "metrics": {"test": {key: spread[key]["mean"] for key in spread}},
        "spread": {"test": spread},
        "times_s": times,
        "fingerprint": first["fingerprint"],
        "fingerprints": [record["fingerprint"] for record in records],
        "warnings": sorted({str(text) for record in records for text in record["warnings"]}),
    }
    whole: dict[str, Any] = plain(summary)
    check_record(whole, name=f"The summary {run}")
    return whole


def _spread(values: Sequence[float]) -> dict[str, float | None]:
    if not values:
        return {"mean": None, "sd": None, "min": None, "max": None}
    return {
        "mean": statistics.fmean(values),
        "sd": statistics.stdev(values) if len(values) > 1 else None,
        "min": min(values),
        "max": max(values),
    }
