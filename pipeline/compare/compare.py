"""The comparison: every method on every network, on identical splits, and what can be said of it.

Each run is written when it is done, so a comparison that was killed goes on where it was, and
one that is repeated reads what is there. The comparison's own record holds all that a report
needs of it: ``results/<data>/compare-<networks>-<layers>-<views>-seed<seed>.json``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..errors import BackboneError, HeadError, NoSpaceError, PipelineError, TrainingError
from ..files import digest_of, write_json
from ..results.provenance import machine, versions
from ..results.records import plain
from ..results.runs import read_predictions, read_record
from ..settings import CompareSettings, as_dict
from .entries import entry_of
from .judge import aligned_predictions, judge_pairs, judge_splits, mark
from .runs import Job, Network, is_head, run_method, training_of
from .words import sentences

__all__ = ["SCHEMA", "compare", "comparison_name"]

SCHEMA = 1
_LONGEST = 60  # characters of the networks' names in a file name


def compare(job: Job, networks: Sequence[Network], settings: CompareSettings) -> dict[str, Any]:
    """Run every method on every network, or take the runs that are there, and compare them.

    Parameters
    ----------
    job : Job
        The data, the machine, the places; its `splits` and `fit` are those of `settings`.
    networks : sequence of Network
        With their codes, current for the data; at least one.
    settings : CompareSettings
        Methods, splits, and the region of practical equivalence.

    Returns
    -------
    dict
        The record as written: ``schema``, ``kind`` (``compare``), ``name``, ``data``,
        ``entries`` (:func:`cnn_codes.compare.entries.entry_of`, with ``best`` and ``alike``),
        ``pairs`` (:mod:`cnn_codes.compare.judge`), ``test``, ``n_test``, ``n_splits``, ``rope``,
        ``sentences``, ``left_out``, ``warnings``, ``versions``, ``provenance``.

    Raises
    ------
    SettingsError
        An unknown method; nothing has been run by then.
    PipelineError
        The first method's own, where no method could be run.
    """
    for method in settings.methods:
        if not is_head(method):
            training_of(method)  # a misspelt name must not surface after an hour
    name = comparison_name(job, networks)
    path = job.folder / f"{name}.json"
    earlier = _earlier(path)
    entries: list[dict[str, Any]] = []
    left_out: list[dict[str, str]] = []
    warnings: dict[str, None] = {}
    failures: list[PipelineError] = []
    with job.progress("methods", len(networks) * len(settings.methods), "runs") as meter:
        for network in networks:
            for method in settings.methods:
                try:
                    record, asked = run_method(
                        job, network, method, earlier=earlier.get((method, network.model))
                    )
                    entries.append(entry_of(job, network, method, record, asked))
                    warnings |= dict.fromkeys(map(str, record["warnings"]))
                except (HeadError, TrainingError, BackboneError, NoSpaceError) as error:
                    failures.append(error)
                    left_out.append({"method": method, "model": network.model, "why": error.found})
                    job.say(f"{method} on {network.model} is left out: {error.found}")
                meter.advance()
    if not entries:
        raise failures[0]
    if job.splits == 1:
        found = [read_predictions(job.folder / f"{one['run']}.predictions.csv") for one in entries]
        shared = aligned_predictions(found)
        pairs = judge_pairs([[one] for one in shared], seed=job.data.seed)
        n_test = len(shared[0].labels)
    else:
        first = read_record(job.folder / f"{entries[0]['run']}.json")["splits"]
        n_train = sum(sum(first[key].values()) for key in ("train", "val") if key in first)
        n_test = sum(first["test"].values())
        pairs = judge_splits(
            [one["values"] for one in entries],
            n_train=n_train,
            n_test=n_test,
            rope=settings.rope / 100,
        )
    mark(entries, pairs)
    record = {
        "schema": SCHEMA,
        "kind": "compare",
        "name": name,
        "data": job.manifest.name,
        "class_names": list(job.manifest.class_names),
        "models": [network.model for network in networks],
        "seed": job.data.seed,
        "n_test": n_test,
        "n_splits": job.splits,
        "rope": settings.rope / 100,
        "test": "mcnemar" if job.splits == 1 else "corrected_t",
        "entries": entries,
        "pairs": pairs,
        "left_out": left_out,
        "warnings": list(warnings),
        "versions": versions(),
        "provenance": {
            "settings": as_dict(settings) | as_dict(job.data),
            "command": job.command,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine(),
        },
    }
    record["sentences"] = sentences(record)
    whole: dict[str, Any] = plain(record)
    write_json(path, whole)
    return whole


def comparison_name(job: Job, networks: Sequence[Network]) -> str:
    """Name a comparison by what it is of; the methods are not in it, a later one replaces it."""
    first = networks[0].asked
    models = "+".join(network.model for network in networks)
    if len(models) > _LONGEST:
        models = f"{len(networks)}networks_{digest_of(models)[:6]}"
    parts = ["compare", models, "+".join(first.layers), first.views.replace(":", "")]
    parts += [f"seed{job.data.seed}"]
    if job.splits > 1:
        parts.append(f"{job.splits}splits")
    usual = type(first)(model=first.model, layers=first.layers, views=first.views)
    if first != usual:
        parts.append(digest_of(as_dict(first))[:6])
    return "-".join(re.sub(r"[^A-Za-z0-9._+]+", "_", part) for part in parts)


def _earlier(path: Path) -> dict[tuple[str, str], Mapping[str, Any]]:
    """Give the entries of the comparison that is there, by method and network."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {(one["method"], one["model"]): one for one in found["entries"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
