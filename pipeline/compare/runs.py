"""One method on one network, run or taken from the results: the one seam to heads and training.

A method is a head of stage two, ``finetune`` (the late layers, as stage three does it by
default), ``scratch`` (the whole network from a random start), or a recipe's name. Every one is
run on the same splits and writes the same records, so the comparison need not know which it was.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import __version__
from ..codes.reader import Codes
from ..context import Context
from ..datasets import SPLITS, Manifest
from ..errors import SettingsError
from ..files import digest_of
from ..heads.costs import asked_costs
from ..heads.rows import redrawn, rows_of
from ..heads.run import fit_heads
from ..results.figures import figures_of
from ..results.frame import write_framed
from ..results.names import named
from ..results.predictions import Predictions, read_predictions
from ..results.runs import build_record, known_run, read_record, write_run
from ..results.summary import summarise
from ..settings import (
    METHODS,
    CodesSettings,
    CompareSettings,
    FinetuneSettings,
    FitSettings,
    HeadSettings,
    as_dict,
    from_mapping,
)

TRAIN, TEST = SPLITS.index("train"), SPLITS.index("test")
SCRATCH = "hotdog-scratch"  # the recipe behind the method 'scratch'


@dataclass(frozen=True, eq=False)
class Network:
    """A network that is compared: what was asked for, and its codes of this data set."""

    asked: CodesSettings
    codes: Codes

    @property
    def model(self) -> str:
        """Its name."""
        return self.asked.model

    @property
    def seconds_per_image(self) -> float:
        """What stage one took for an image, from the file to its codes."""
        return self.codes.extraction_s / max(1, len(self.codes))


@dataclass(frozen=True, eq=False)
class Done:
    """A method that has been run on a network.

    Attributes
    ----------
    record : dict
        Of the run, or, with several splits, of their summary; ``reused`` is set where nothing had
        to be run.
    asked : str
        Digest of all that was asked for.
    first : Path
        The record of the (first split's) run.
    """

    record: dict[str, Any]
    asked: str
    first: Path


def is_head(method: str) -> bool:
    """Whether it is a head of stage two, which trains no layer of the network."""
    return method in METHODS


def head_settings(fit: FitSettings, method: str, *, splits: int = 1) -> HeadSettings:
    """Give the settings of stage two for one method."""
    settings: HeadSettings = from_mapping(
        HeadSettings, vars(fit) | {"methods": (method,), "splits": splits, "seeds": 1}
    )
    return settings


def training_of(method: str, fit: FitSettings | None = None) -> FinetuneSettings:
    """Give the settings of a method that trains the network.

    Parameters
    ----------
    method : str
        ``finetune``, ``scratch`` or a recipe.
    fit : FitSettings, optional
        Its METRIC, COST and CLASS_WEIGHT are those of the training too.

    Raises
    ------
    SettingsError
        No head, not ``finetune`` or ``scratch``, and no recipe of that name.
    """
    shared = {key: getattr(fit, key) for key in ("metric", "cost", "class_weight")} if fit else {}
    if method == "finetune":
        return FinetuneSettings(**shared)
    from ..finetune import load_recipe, recipe_names

    name = SCRATCH if method == "scratch" else method
    if name not in recipe_names():
        known = [*METHODS, "finetune", "scratch", *recipe_names()]
        near = difflib.get_close_matches(method, known, n=1)
        raise SettingsError(
            f"METHODS: unknown method {method}.",
            expected=", ".join(known),
            todo=f"METHODS={near[0]}" if near else "",
        )
    recipe = load_recipe(name)
    if recipe["stage"] != "finetune":
        raise SettingsError(
            f"METHODS: the recipe {method} trains heads.",
            todo=f"METHODS={','.join(recipe.get('methods', METHODS))}",
        )
    settings: FinetuneSettings = from_mapping(FinetuneSettings, recipe | shared)
    return settings


def run_method(
    context: Context,
    network: Network,
    method: str,
    settings: CompareSettings,
    *,
    earlier: Mapping[str, Any] | None = None,
) -> Done:
    """Run one method on one network, or find that it was run before.

    Parameters
    ----------
    context, network
        What to run it on.
    method : str
        See the module's text.
    settings : CompareSettings
        How heads are fitted, and on how many random splits.
    earlier : mapping, optional
        The entry of this method and network in an earlier comparison: where it was asked the
        same, its run is taken without building the network to find that out.
    """
    context = replace(context, codes=network.asked)
    splits, (folds, _) = settings.splits, settings.outer
    if is_head(method):
        (record,) = fit_heads(
            context, network.codes, head_settings(settings, method, splits=splits)
        )
        name = record["run"] if splits == 1 else record["runs"][0]
        return Done(record, str(record["fingerprint"]), context.folder / f"{name}.json")
    training = training_of(method, settings)
    asked = _asked(context, network, training, settings)
    known = _known(context, earlier, asked)
    if folds:
        record = known or _by_folds(context, network, training, folds)
        return Done(record, asked, context.folder / f"{record['run']}.json")
    if splits == 1:
        record = known or _repeated(context, training, settings.seeds)
        return Done(record, asked, context.folder / f"{record['run']}.json")
    folders = [f"split{r + 1}of{splits}" for r in range(splits)]
    if known is None:
        drawn = zip(folders, _drawn(context, network, splits), strict=True)
        runs = [
            train(context, replace(training, repeat=r), split, below=folder)
            for r, (folder, split) in enumerate(drawn)
        ]
        usual = f"{runs[0]['run']}-{splits}splits"
        name, subject = named(context, usual, fingerprint=str(runs[0]["fingerprint"]))
        summary = summarise(runs, run=name) | {"subject": subject}
        write_framed(context.folder / f"{name}.json", summary)
        known = summary | {"reused": all(run.get("reused") for run in runs)}
    first = context.folder / folders[0] / context.manifest.name / f"{known['runs'][0]}.json"
    return Done(known, asked, first)


def train(
    context: Context,
    training: FinetuneSettings,
    split: NDArray[np.int8] | None = None,
    *,
    below: str = "",
) -> dict[str, Any]:
    """Train the network: stage three, as its own command would have it.

    Parameters
    ----------
    split : int8 (N,) or None
        As :func:`cnn_codes.finetune.finetune`.
    below : str
        Folder of the results, in that of the data set; empty: that one itself.
    """
    from ..finetune import fine_tuned

    if below:
        places = replace(context.places, results=str(context.folder / below))
        context = replace(context, places=places)
    record: dict[str, Any] = fine_tuned(context, training, split)
    return record


def _repeated(context: Context, training: FinetuneSettings, seeds: int) -> dict[str, Any]:
    """Train with several seeds; the first run's record with the means of all in its figures."""
    runs = []
    for r in range(seeds):
        if seeds > 1:
            context.say(f"training seed {r + 1} of {seeds}")
        runs.append(train(context, replace(training, repeat=r)))
    return _mean_of(runs)


def _mean_of(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Give the first record with the mean figures and times of all, and the names of all."""
    if len(runs) == 1:
        return runs[0]
    summary = summarise(runs, run=runs[0]["run"])
    first = runs[0]
    test = first["metrics"]["test"] | summary["metrics"]["test"]
    return first | {
        "metrics": first["metrics"] | {"test": test},
        "times_s": summary["times_s"],
        "warnings": summary["warnings"],
        "repeats": summary["runs"],
        "fingerprints": summary["fingerprints"],
        "spread": summary["spread"],
        "reused": all(one.get("reused") for one in runs),
    }


def _by_folds(
    context: Context, network: Network, training: FinetuneSettings, folds: int
) -> dict[str, Any]:
    """Train without each of the heads' outer folds in turn; a record of all images' predictions.

    It has no model: the networks of the folds lie in folders of their own.
    """
    from ..heads.nested import outer_folds  # and with it scikit-learn

    manifest, rows = context.manifest, rows_of(context.manifest, network.codes)
    outer, _ = outer_folds(
        rows.labels, rows.groups, folds=folds, seed=context.seed, names=manifest.class_names
    )
    runs, tables = [], []
    for number, (inside, held) in enumerate(outer):
        context.say(f"fold {number + 1} of {len(outer)}")
        split = rows.split_of(inside, held, manifest.n_images)
        below = f"fold{number + 1}of{len(outer)}"
        record = train(context, replace(training, repeat=number), split, below=below)
        runs.append(record)
        place = context.folder / below / manifest.name
        tables.append(read_predictions(place / f"{record['run']}.predictions.csv"))
    found = _joined(manifest, tables)
    tested = figures_of(
        found.labels, found.probabilities, predicted=found.predicted,
        costs=asked_costs(training.cost, manifest.class_names), groups=found.groups,
        seed=context.seed,
    )  # fmt: skip
    counts = {name: int(np.sum(found.labels == k)) for k, name in enumerate(manifest.class_names)}
    first, summary = runs[0], summarise(runs, run=runs[0]["run"])
    keys = [key for key, value in tested.items() if isinstance(value, float)]
    fields = ("data", "method", "model", "layers", "views", "size", "seed", "class_names")
    fingerprint = digest_of([one["fingerprint"] for one in runs])
    name, subject = named(context, f"{first['run']}-cv{len(outer)}", fingerprint=fingerprint)
    there = known_run(context.folder / f"{name}.json", fingerprint)
    if there is not None:
        return there
    record = build_record(
        **{key: first[key] for key in fields},
        run=name,
        splits={"train": counts, "test": counts},
        chosen={"each": [one["chosen"] for one in runs]},
        metrics={"test": tested},
        times_s=summary["times_s"],
        fingerprint=fingerprint,
        warnings=summary["warnings"],
        settings=first["provenance"]["settings"],
        command=context.command,
        extra={
            "subject": subject,
            "unfreeze": training.unfreeze,
            "n_parameters": first["n_parameters"],
            "n_network_parameters": first["n_network_parameters"],
            "cv": {
                "folds": len(outer),
                "repeats": 1,
                "values": {
                    key: [[one["metrics"]["test"].get(key) for one in runs]] for key in keys
                },
            },
        },
    )
    return read_record(write_run(context.folder, record, found))


def _joined(manifest: Manifest, tables: Sequence[Predictions]) -> Predictions:
    """Put the predictions of the folds into one table: every image is in one of them."""
    paths = tuple(path for one in tables for path in one.paths)
    by_threshold = any(one.decided is not None for one in tables)
    return Predictions(
        paths,
        np.concatenate([one.labels for one in tables]),
        np.concatenate([one.probabilities for one in tables]),
        manifest.class_names,
        np.concatenate([one.predicted for one in tables]) if by_threshold else None,
        groups_of(manifest, paths),
    )


def _asked(
    context: Context, network: Network, training: FinetuneSettings, settings: CompareSettings
) -> str:
    """Digest of what a training depends on, without building the network."""
    manifest = context.manifest
    config = network.codes.config
    return digest_of(
        {
            "version": __version__,
            "weights": config["weights_digest"],
            "preprocessing": config["preprocessing"],
            "codes": as_dict(network.asked),
            "settings": as_dict(training),
            "data": as_dict(context.data, affects="bytes"),
            "classes": manifest.class_names,
            "images": digest_of(manifest.sha256.tobytes().hex()),
            "labels": manifest.labels.tolist(),
            "split": manifest.split.tolist(),
            "splits": settings.splits,
            "seeds": settings.seeds,
            "test": settings.test,
        }
        | manifest.group_fields
    )


def _known(
    context: Context, earlier: Mapping[str, Any] | None, asked: str
) -> dict[str, Any] | None:
    """Give the run of an earlier comparison if it was asked the same and is still what it was."""
    if earlier is None or earlier.get("asked") != asked or "run" not in earlier:
        return None
    names = earlier.get("repeats") or [earlier["run"]]
    prints = earlier.get("fingerprints") or [earlier.get("fingerprint")]
    found = []
    for name, fingerprint in zip(names, prints, strict=True):
        record = known_run(context.folder / f"{name}.json", str(fingerprint))
        if record is None:
            return None
        found.append(record)
    return _mean_of(found)


def _drawn(context: Context, network: Network, splits: int) -> Iterator[NDArray[np.int8]]:
    """Give the splits (N,) of each random cut, the very ones of the heads; -1: rejected images."""
    rows = rows_of(context.manifest, network.codes)
    for r in range(splits):
        split = np.full(context.manifest.n_images, -1, np.int8)
        split[rows.at] = redrawn(rows, context.manifest, context.seed + r).split
        yield split


def groups_of(manifest: Manifest, paths: Sequence[str]) -> NDArray[np.int64] | None:
    """Give the group of each test image, or None where the data set has no groups."""
    if not manifest.grouping:
        return None
    row_of = manifest.row_of
    return manifest.groups_at(np.array([row_of[path] for path in paths], np.int64))
