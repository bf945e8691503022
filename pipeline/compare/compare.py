"""The comparison: every method on every network, on identical splits, and what can be said of it.

Each run is written when it is done, so a comparison that was killed goes on where it was, and
one that is repeated reads what is there. The comparison's own record holds all that a report
needs of it: ``results/<data>/compare-<networks>-<layers>-<views>-seed<seed>.json``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..context import Context
from ..errors import (
    BackboneError,
    HeadError,
    NoSpaceError,
    PipelineError,
    ResultError,
    TrainingError,
)
from ..files import digest_of
from ..results.frame import framed, read_framed, write_framed
from ..results.runs import read_predictions, read_record
from ..settings import CompareSettings, as_dict
from .entries import entry_of
from .judge import aligned_predictions, judge_pairs, judge_splits, mark
from .runs import Network, is_head, run_method, training_of
from .words import sentences

__all__ = ["compare", "comparison_name"]

_LONGEST = 60  # characters of the networks' names in a file name


def compare(
    context: Context, networks: Sequence[Network], settings: CompareSettings
) -> dict[str, Any]:
    """Run every method on every network, or take the runs that are there, and compare them.

    Parameters
    ----------
    context : Context
        The images and the machine.
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
    name = comparison_name(context, networks, splits=settings.splits)
    path = context.folder / f"{name}.json"
    earlier = _earlier(path)
    entries: list[dict[str, Any]] = []
    left_out: list[dict[str, str]] = []
    warnings: dict[str, None] = {}
    failures: list[PipelineError] = []
    with context.progress("methods", len(networks) * len(settings.methods), "runs") as meter:
        for network in networks:
            for method in settings.methods:
                try:
                    known = earlier.get((method, network.model))
                    done = run_method(context, network, method, settings, earlier=known)
                    entries.append(entry_of(context, network, method, done))
                    warnings |= dict.fromkeys(map(str, done.record["warnings"]))
                except (HeadError, TrainingError, BackboneError, NoSpaceError) as error:
                    failures.append(error)
                    left_out.append({"method": method, "model": network.model, "why": error.found})
                    context.say(f"{method} on {network.model} is left out: {error.found}")
                meter.advance()
    if not entries:
        raise failures[0]
    if settings.splits == 1:
        found = [
            read_predictions(context.folder / f"{one['run']}.predictions.csv") for one in entries
        ]
        shared = aligned_predictions(found)
        pairs = judge_pairs([[one] for one in shared], seed=context.seed)
        n_test = len(shared[0].labels)
    else:
        first = read_record(context.folder / f"{entries[0]['run']}.json")["splits"]
        n_train = sum(sum(first[key].values()) for key in ("train", "val") if key in first)
        n_test = sum(first["test"].values())
        pairs = judge_splits(
            [one["values"] for one in entries],
            n_train=n_train,
            n_test=n_test,
            rope=settings.rope / 100,
        )
    mark(entries, pairs)
    body: dict[str, Any] = {
        "class_names": list(context.manifest.class_names),
        "models": [network.model for network in networks],
        "seed": context.seed,
        "n_test": n_test,
        "n_splits": settings.splits,
        "rope": settings.rope / 100,
        "test": "mcnemar" if settings.splits == 1 else "corrected_t",
        "entries": entries,
        "pairs": pairs,
        "left_out": left_out,
        "warnings": list(warnings),
    }
    body["sentences"] = sentences(body | {"data": context.manifest.name})
    record = framed(
        "compare", name, body, data=context.manifest.name,
        fingerprint=digest_of([one["fingerprint"] for one in entries]),
        settings=as_dict(settings) | as_dict(context.data), command=context.command,
    )  # fmt: skip
    return write_framed(path, record)


def comparison_name(context: Context, networks: Sequence[Network], *, splits: int = 1) -> str:
    """Name a comparison by what it is of; the methods are not in it, a later one replaces it."""
    first = networks[0].asked
    models = "+".join(network.model for network in networks)
    if len(models) > _LONGEST:
        models = f"{len(networks)}networks_{digest_of(models)[:6]}"
    parts = ["compare", models, "+".join(first.layers), first.views.replace(":", "")]
    parts += [f"seed{context.seed}"]
    if splits > 1:
        parts.append(f"{splits}splits")
    usual = type(first)(model=first.model, layers=first.layers, views=first.views)
    if first != usual:
        parts.append(digest_of(as_dict(first))[:6])
    return "-".join(re.sub(r"[^A-Za-z0-9._+]+", "_", part) for part in parts)


def _earlier(path: Path) -> dict[tuple[str, str], Mapping[str, Any]]:
    """Give the entries of the comparison that is there, by method and network."""
    try:
        found = read_framed(path)
        return {(one["method"], one["model"]): one for one in found["entries"]}
    except (ResultError, KeyError, TypeError):
        return {}
