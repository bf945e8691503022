"""How good the advice is: on each set, what it recommends against every option, on test.

Hypothesis: on sets that no rule was made on, the strategy that ``make advise`` recommends is within
one point of the best option on at least five of six, within two on all; and the accuracy that it
expects is within three points of the one measured. The best of several is the best partly by
chance, so the regret is given with the interval of its paired difference (over groups, where there
are groups).

::

    python -m benchmarks.advise --data-root data --cache cache --results results --sets made \
        --only blood-cells,digits

Every option that advice names is run as it says, on all of train: linear heads on one, three and
all layers, and the trainings of its trials. Runs that are in the results are taken as they are.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from cnn_codes.advise.advise import advise
from cnn_codes.advise.trial import trials
from cnn_codes.compare.flips import accuracy_difference
from cnn_codes.compare.runs import Network, train
from cnn_codes.context import Context
from cnn_codes.datasets import Manifest, load_manifest
from cnn_codes.files import write_json
from cnn_codes.heads import Examples, fit_head
from cnn_codes.heads.rows import Rows, rows_of
from cnn_codes.progress import Messages
from cnn_codes.results.predictions import read_predictions
from cnn_codes.settings import (
    AdviseSettings,
    CodesSettings,
    DataSettings,
    FinetuneSettings,
    HeadSettings,
    PlaceSettings,
)
from numpy.typing import NDArray

from benchmarks.degraded import digits, distorted, shuffled, subset, written
from benchmarks.sets import codes_of, opened

TEST = 2
SETS = (
    "blood-cells", "chest-xray", "elpv", "digits", "ants-bees-distorted", "hotdog-shuffled-300",
)  # fmt: skip
GROUPS = {
    "blood-cells": "group",
    "chest-xray": r"person\d+_(bacteria|virus)|(NORMAL2-)?IM-\d+",
}


def made(name: str, folder: Path, places: PlaceSettings) -> str:
    """Give what DATA is for a set, making it where it has to be made."""

    def manifest(data: str) -> Manifest:
        return load_manifest(DataSettings(data=data, offline=True), places)

    target = folder / name
    if name == "digits":
        return str(digits(target))
    if name == "ants-bees-distorted":
        whole = manifest("ants-bees")
        written(whole, subset(whole, train=10**6), target, distorted)
    elif name == "hotdog-shuffled-300":
        whole = manifest("hotdog")
        written(whole, subset(whole, train=300), target, shuffled)
    else:
        return name
    return str(target)


def measured(data: str, name: str, places: PlaceSettings) -> dict[str, Any]:
    """Advise on one set, then run every option and look at test."""
    asked = CodesSettings(layers=("all",))
    context = opened(data, places, asked, group=GROUPS.get(name, ""))
    context = replace(context, messages=Messages(say=print))
    manifest, codes = context.manifest, codes_of(context)
    network = Network(asked, codes)
    advice = advise(context, [network], AdviseSettings())
    rows = rows_of(manifest, codes)
    test = np.flatnonzero((rows.split == TEST) & ~rows.leaks())
    ways = dict(trials())
    hits, options = {}, {}
    for one in advice["options"]:
        label = f"{one['strategy']} {one['method']}"
        options[label] = one
        if one["method"] == "finetune":
            hits[label] = _tuned(context, network, ways[one["strategy"]], rows, test)
        else:
            hits[label] = _linear(network, one, rows, test, manifest)
        print(f"{name}: {label}: {hits[label].mean():.4f}", flush=True)
    advised = f"{advice['strategy']['strategy']} {advice['strategy']['method']}"
    best = max(hits, key=lambda label: hits[label].mean())
    groups = manifest.groups_at(rows.at[test])
    behind = hits[best].astype(float) - hits[advised]
    interval = (0.0, 0.0)
    if best != advised:
        _, interval = accuracy_difference(hits[best], hits[advised], groups, seed=0)
    return {
        "data": manifest.name,
        "n_train": int(np.sum(rows.split != TEST)),
        "n_test": len(test),
        "case": advice["case_name"],
        "accuracy": {label: float(one.mean()) for label, one in hits.items()},
        "held_out": {label: one["accuracy"] for label, one in options.items()},
        "gain_points": {label: one["gain_points"] for label, one in options.items()},
        "p": {label: one["p"] for label, one in options.items()},
        "advised": advised,
        "expected": options[advised]["accuracy"],
        "best": best,
        "regret": float(behind.mean()),
        "regret_ci95": list(interval),
    }


def _linear(
    network: Network,
    option: dict[str, Any],
    rows: Rows,
    test: NDArray[np.int64],
    manifest: Manifest,
) -> NDArray[np.bool_]:
    """Fit a head on all of train, as the option says: hits on test."""
    matrix = network.codes.matrix(tuple(option["layers"]))
    fitted = np.flatnonzero(rows.split != TEST)
    head = fit_head(
        option["method"],
        Examples(matrix[fitted], rows.labels[fitted], rows.groups[fitted]),
        None,
        HeadSettings(),
        n_classes=manifest.n_classes,
        seed=0,
    )
    right: NDArray[np.bool_] = head.predict(matrix[test]) == rows.labels[test]
    return right


def _tuned(
    context: Context,
    network: Network,
    training: FinetuneSettings,
    rows: Rows,
    test: NDArray[np.int64],
) -> NDArray[np.bool_]:
    """Train as asked, or take the very same training where it is there: hits on test."""
    final = replace(context, codes=replace(network.asked, layers=("final",)))
    record = train(final, training)
    called = read_predictions(context.folder / f"{record['run']}.predictions.csv")
    right = dict(zip(called.paths, called.predicted == called.labels, strict=True))
    return np.array([right[rows.paths[row]] for row in test.tolist()])


def main() -> None:
    """Measure the sets asked for (default: all) and write results/advise-bench.json."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.advise", description=__doc__)
    for name in ("data-root", "cache", "results"):
        parser.add_argument(f"--{name}", default=name.removesuffix("-root"))
    parser.add_argument("--sets", default="made", help="folder for the sets that are made")
    parser.add_argument("--only", default="", help="names with commas")
    options = parser.parse_args()
    places = PlaceSettings(
        data_root=options.data_root, cache=options.cache, results=options.results
    )
    path = Path(options.results) / "advise-bench.json"
    found = json.loads(path.read_text()) if path.is_file() else {}
    for name in options.only.split(",") if options.only else SETS:
        data = made(name, Path(options.sets), places)
        found[name] = measured(data, name, places)
        write_json(path, found)
        one = found[name]
        print(name, one["advised"], one["best"], one["regret"], one["expected"], flush=True)


if __name__ == "__main__":
    main()
