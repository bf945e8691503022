"""Networks ranked for a data set without training them, and how well that foretells results."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..results.records import SCHEMA
from ..results.runs import list_records

SCORES = ("log_me", "probe")  # the first one ranks
TRAINED = ("finetune", "scratch")


def order(entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Sort the networks by the first of the scores, the best first; those without one come last."""
    return sorted(
        (dict(one) for one in entries),
        key=lambda one: -math.inf if one[SCORES[0]] is None else one[SCORES[0]],
        reverse=True,
    )


def measured_of(folder: Path, entry: Mapping[str, Any]) -> dict[str, float]:
    """Find test accuracies of one network among the runs of this data set, by method.

    Parameters
    ----------
    folder : Path
        ``results/<data>``.
    entry : mapping
        Its ``model``, ``weights``, ``views``, ``size`` and ``seed``: those of the runs.

    Returns
    -------
    dict of str to float
        Heads on the last layer by their method, fine-tuning by method and what was trained; of
        several runs of one kind the newest.
    """
    found: dict[str, tuple[str, float]] = {}
    for record in list_records(folder, on_error=lambda error: None):
        asked = record.get("provenance", {}).get("settings", {})
        same = (
            record["schema"] == SCHEMA
            and record["kind"] == "run"
            and not record.get("interrupted")
            and "test" in record["metrics"]
            and asked.get("weights", "default") == entry["weights"]
            and all(record[key] == entry[key] for key in ("model", "views", "size", "seed"))
        )
        trained = record["method"] in TRAINED
        if not same or not (trained or record["layers"] == ["final"]):
            continue
        what = f"{record['method']} {record.get('unfreeze')}" if trained else record["method"]
        date = str(record["provenance"].get("date", ""))
        if what not in found or date > found[what][0]:
            found[what] = (date, float(record["metrics"]["test"]["accuracy"]))
    return {what: accuracy for what, (_, accuracy) in sorted(found.items())}


def agreement(entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Measure how well each score orders the networks as their test accuracy does.

    Parameters
    ----------
    entries : sequence of mapping
        Each with the scores by name (None: it has none) and ``measured``.

    Returns
    -------
    list of dict
        For each method that at least two networks were run with and each score: ``method``,
        ``score``, ``n_networks``, ``kendall`` and ``weighted`` (tau, -1 to 1; None where all
        are equal). Weighted: pairs at the top count more (Vigna 2015), since the ranking is for
        choosing one.
    """
    from scipy.stats import kendalltau, weightedtau

    out = []
    for method in sorted({method for one in entries for method in one["measured"]}):
        for score in SCORES:
            pairs = [
                (one[score], one["measured"][method])
                for one in entries
                if one[score] is not None and method in one["measured"]
            ]
            if len(pairs) < 2:
                continue
            x, y = zip(*pairs, strict=True)
            varied = len(set(x)) > 1 and len(set(y)) > 1
            out.append(
                {
                    "method": method,
                    "score": score,
                    "n_networks": len(pairs),
                    "kendall": float(kendalltau(x, y).statistic) if varied else None,
                    "weighted": float(weightedtau(x, y).statistic) if varied else None,
                }
            )
    return out
