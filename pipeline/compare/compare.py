"""The comparison: every method on every network, on identical splits, and what can be said of it.

Each run is written when it is done, so a comparison that was killed goes on where it was, and
one that is repeated reads what is there. The comparison's own record holds all that a report
needs of it: ``results/<data>/compare-<networks>-<layers>-<views>-seed<seed>.json``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..context import Context
from ..datasets import SPLITS
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
from ..results.measures import Measure, measure_named
from ..results.names import named
from ..results.predictions import Predictions, read_predictions
from ..results.runs import read_record
from ..settings import CompareSettings, as_dict
from .aligned import aligned_predictions
from .entries import entry_of
from .judge import judge_pairs, method_intervals
from .marks import mark
from .runs import Network, groups_of, is_head, run_method, training_of
from .splits import judge_folds, judge_splits, least_variances
from .words import sentences

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
    asked = _asked(context, settings)
    measure = asked.measure
    usual = comparison_name(context, networks, splits=settings.splits, test=settings.test)
    name, subject = named(context, usual)
    path = context.folder / f"{name}.json"
    entries, left_out, warnings = _run_all(context, networks, asked, _earlier(path))
    judge = _judge_split if settings.splits == 1 else _judge_splits
    pairs, n_test = judge(context, entries, asked)
    mark(entries, pairs, measure)
    body: dict[str, Any] = {
        "subject": subject,
        "class_names": list(context.manifest.class_names),
        "models": [network.model for network in networks],
        "seed": context.seed,
        "n_test": n_test,
        "n_splits": settings.splits,
        "n_images": context.manifest.n_images,
        "folds": settings.outer[0],
        "rope": settings.rope / 100,
        "metric": measure.key,
        "test": _test_of(pairs, settings.splits),
        "grouping": context.manifest.grouping,
        "entries": entries,
        "pairs": pairs,
        "left_out": left_out,
        "warnings": warnings,
    }
    body["sentences"] = sentences(body | {"data": context.manifest.name})
    record = framed(
        context, "compare", name, body,
        fingerprint=digest_of([one["fingerprint"] for one in entries]),
        settings=as_dict(settings) | as_dict(context.data),
    )  # fmt: skip
    return write_framed(path, record)


@dataclass(frozen=True, eq=False)
class _Asked:
    """What is compared: the settings, the figure, and the costs that it may need."""

    settings: CompareSettings
    measure: Measure
    costs: NDArray[np.float64] | None


def _run_all(
    context: Context,
    networks: Sequence[Network],
    asked: _Asked,
    earlier: Mapping[tuple[str, str], Mapping[str, Any]],
) -> tuple[list[dict[str, Any]], list[dict[str, str]], list[str]]:
    """Run every method on every network: the entries, what was left out and why, warnings.

    Raises
    ------
    PipelineError
        The first method's own, where no method could be run.
    """
    entries: list[dict[str, Any]] = []
    left_out: list[dict[str, str]] = []
    warnings: dict[str, None] = {}
    failures: list[PipelineError] = []
    with context.progress("methods", len(networks) * len(asked.settings.methods), "runs") as meter:
        for network, method in product(networks, asked.settings.methods):
            try:
                known = earlier.get((method, network.model))
                done = run_method(context, network, method, asked.settings, earlier=known)
                entries.append(entry_of(context, network, method, done, asked.measure))
                warnings |= dict.fromkeys(map(str, done.record["warnings"]))
            except (HeadError, TrainingError, BackboneError, NoSpaceError) as error:
                failures.append(error)
                left_out.append({"method": method, "model": network.model, "why": error.found})
                context.say(f"{method} on {network.model} is left out: {error.found}")
            meter.advance()
    if not entries:
        raise failures[0]
    return entries, left_out, list(warnings)


def _judge_split(
    context: Context, entries: list[dict[str, Any]], asked: _Asked
) -> tuple[list[dict[str, Any]], int]:
    """Test every pair on the one test split, or over its folds; give the pairs, and its images.

    The entries get the intervals of their figures.
    """
    settings, measure, costs = asked.settings, asked.measure, asked.costs
    shared = _aligned(
        [
            [
                read_predictions(context.folder / f"{run}.predictions.csv")
                for run in one.get("repeats") or [one["run"]]
            ]
            for one in entries
        ]
    )
    groups = groups_of(context.manifest, shared[0][0].paths)
    of: dict[str, Any] = {"costs": costs, "groups": groups, "seed": context.seed}
    if settings.outer[0]:
        pairs = judge_folds(
            [one["cv"] for one in entries], [one for (one,) in shared],
            measure=measure, costs=costs, rope=settings.rope / 100, seed=context.seed,
        )  # fmt: skip
    else:
        pairs = judge_pairs(shared, measure=measure, **of)
    for one, ends in zip(entries, method_intervals(shared, **of), strict=True):
        one |= {"ci95": ends, "accuracy_ci95": ends["accuracy"]}
    return pairs, len(shared[0][0].labels)


def _judge_splits(
    context: Context, entries: list[dict[str, Any]], asked: _Asked
) -> tuple[list[dict[str, Any]], int]:
    """Test every pair over the random splits; give the pairs, and the test images of a split."""
    first = read_record(context.folder / f"{entries[0]['run']}.json")["splits"]
    n_test = sum(first["test"].values())
    pairs = judge_splits(
        [one["values"] for one in entries],
        measure=asked.measure,
        n_train=sum(sum(first[key].values()) for key in ("train", "val") if key in first),
        n_test=n_test,
        rope=asked.settings.rope / 100,
        least=_least(context, entries, asked),
    )
    return pairs, n_test


def _asked(context: Context, settings: CompareSettings) -> _Asked:
    """Read what is asked for; refuse a figure that is undefined."""
    from ..heads.costs import asked_costs

    manifest = context.manifest
    measure = measure_named(settings.metric, settings.cost)
    tested = np.unique(manifest.labels[manifest.split == SPLITS.index("test")])
    if measure.key in ("auroc", "average_precision") and len(tested) < 2:
        raise ResultError(
            f"METRIC={settings.metric} is undefined: the test images are all of one class.",
            expected="test images of at least two classes",
            todo="METRIC=accuracy",
        )
    return _Asked(settings, measure, asked_costs(settings.cost, manifest.class_names))


def _test_of(pairs: Sequence[Mapping[str, Any]], splits: int) -> str:
    """Name the test of the pairs; ``seeds`` where any pair has several training seeds."""
    kinds = {str(pair["test"]) for pair in pairs}
    usual = "corrected_t" if splits > 1 else "mcnemar"
    return "seeds" if "seeds" in kinds else kinds.pop() if kinds else usual


def _aligned(found: Sequence[Sequence[Predictions]]) -> list[list[Predictions]]:
    """Reduce the predictions of methods (outer) and seeds (inner) to the images that all have."""
    flat = iter(aligned_predictions([one for seeds in found for one in seeds]))
    return [[next(flat) for _ in seeds] for seeds in found]


def _least(
    context: Context,
    entries: Sequence[Mapping[str, Any]],
    asked: _Asked,
) -> dict[tuple[int, int], float] | None:
    """Variance by the test images of a split for each pair; None without the predictions."""
    by_method = []
    for one in entries:
        below = "" if is_head(one["method"]) else f"/{context.manifest.name}"
        folders = [
            context.folder / (f"split{r + 1}of{asked.settings.splits}{below}" if below else "")
            for r in range(asked.settings.splits)
        ]
        paths = [
            folder / f"{run}.predictions.csv"
            for folder, run in zip(folders, one["runs"], strict=True)
        ]
        if not all(path.is_file() for path in paths):
            return None
        by_method.append([read_predictions(path) for path in paths])
    splits = [aligned_predictions(one) for one in zip(*by_method, strict=True)]
    return least_variances(
        [list(one) for one in zip(*splits, strict=True)],
        measure=asked.measure, costs=asked.costs, seed=context.seed,
    )  # fmt: skip


def comparison_name(
    context: Context, networks: Sequence[Network], *, splits: int = 1, test: str = "split"
) -> str:
    """Name a comparison by what it is of; the methods are not in it, a later one replaces it."""
    first = networks[0].asked
    # Several networks side by side are one entry, and must not be named as two entries are.
    models = "+".join(network.model.replace("+", "_and_") for network in networks)
    if len(models) > _LONGEST:
        models = f"{len(networks)}networks_{digest_of(models)[:6]}"
    parts = ["compare", models, "+".join(first.layers), first.views.replace(":", "")]
    parts += [f"seed{context.seed}"]
    if splits > 1:
        parts.append(f"{splits}splits")
    if test != "split":
        parts.append(test.replace(":", ""))
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
