"""How good the advice is: on each set, what it recommends against every strategy tried, on test.

Hypothesis: the strategy that ``make advise`` recommends is within one point of the best one tried
on kinds of sets small and large, like photographs and unlike. The best of several is the
best partly by chance, so the regret is given with the interval of its paired difference.

::

    python -m benchmarks.advise --data-root data --cache cache --results results --sets made \
        --only ants-bees,elpv-600

Fine-tuning is the slow part; runs that are in the results are taken as they are.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from cnn_codes.advise.advise import advise
from cnn_codes.compare.runs import Network, train, training_of
from cnn_codes.context import Context
from cnn_codes.datasets import Manifest, load_manifest
from cnn_codes.files import write_json
from cnn_codes.heads import Examples, fit_head
from cnn_codes.heads.rows import Rows, rows_of
from cnn_codes.progress import Messages
from cnn_codes.results.runs import read_predictions
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
WHOLE = ("hotdog-10-0", "elpv-100-0")  # a whole network takes minutes
SETS = (
    "hotdog", "ants-bees", "elpv-600", "hotdog-10-0", "hotdog-10-1", "hotdog-10-2", "elpv-100-0",
    "elpv-100-1", "elpv-100-2", "hotdog-distorted-300", "ants-bees-shuffled", "digits-60",
)  # fmt: skip


def made(name: str, folder: Path, places: PlaceSettings) -> str:
    """Give what DATA is for a set, making it where it has to be made."""

    def manifest(data: str) -> Manifest:
        return load_manifest(DataSettings(data=data, offline=True), places)

    target, (source, *rest) = folder / name, name.rsplit("-", 2)
    if name in ("hotdog", "ants-bees", "blood-cells", "elpv"):
        return name
    if name == "digits-60":
        whole = manifest(str(digits(folder / "digits")))
        written(whole, subset(whole, train=60), target)
    elif name == "hotdog-distorted-300":
        # 300 of 500 a class: as the figures in advise.md were had
        clean = manifest("hotdog")
        many = written(clean, subset(clean, train=500), folder / "hotdog-distorted", distorted)
        whole = manifest(str(many))
        written(whole, subset(whole, train=300), target)
    elif name == "ants-bees-shuffled":
        clean = manifest("ants-bees")
        written(clean, subset(clean, train=10**6), target, shuffled)
    elif name == "elpv-600":
        whole = manifest("elpv")
        written(whole, subset(whole, train=300, mixed=True), target)
    else:
        number, seed = int(rest[0]), int(rest[1])
        whole = manifest(source)
        mixed = source == "elpv"
        a_class = number // whole.n_classes if mixed else number
        written(whole, subset(whole, train=a_class, mixed=mixed, seed=seed), target)
    return str(target)


def measured(
    data: str, places: PlaceSettings, *, finetune: bool, everything: bool
) -> dict[str, Any]:
    """Advise on one set, then run every strategy and look at test."""
    asked = CodesSettings(layers=("all",))
    context = replace(opened(data, places, asked), messages=Messages(say=print))
    manifest, codes = context.manifest, codes_of(context)
    network = Network(asked, codes)
    advice = advise(context, [network], AdviseSettings())
    rows = rows_of(manifest, codes)
    test = np.flatnonzero((rows.split == TEST) & ~rows.leaks())
    hits = _linear(network, rows, test, manifest)
    if finetune:
        trainings = {name: training_of(name) for name in ("finetune", "late-adapted")}
        if everything:
            trainings["all"] = replace(training_of("finetune"), unfreeze="all")
        hits |= {
            f"trained {one.unfreeze}": _tuned(context, network, one, rows, test)
            for one in trainings.values()
        }
    one = advice["strategy"]
    advised = (
        f"trained {one['unfreeze']}"
        if one["method"] == "finetune"
        else f"{one['strategy']} {one['method']}"
    )
    best = max(hits, key=lambda name: hits[name].mean())
    found = {
        "data": manifest.name,
        "n_train": int(np.sum(rows.split != TEST)),
        "n_test": len(test),
        "case": advice["case"],
        "evidence": advice["evidence"],
        "ranking": advice["ranking"][0],
        "layers": advice["layers"],
        "accuracy": {name: float(one.mean()) for name, one in hits.items()},
        "held_out": {
            f"{one['strategy']} {one['method']}": one["accuracy"] for one in advice["options"]
        },
        "advised": advised,
        "best": best,
    }
    if advised in hits:
        behind = hits[best].astype(float) - hits[advised]
        error = float(behind.std(ddof=1) / np.sqrt(len(behind)))
        mean = float(behind.mean())
        found |= {"regret": mean, "regret_ci95": [mean - 1.96 * error, mean + 1.96 * error]}
    return found


def _linear(
    network: Network, rows: Rows, test: NDArray[np.int64], manifest: Manifest
) -> dict[str, NDArray[np.bool_]]:
    """Fit linear heads on the last, late, all, and each single layer: hits on test."""
    layers = network.codes.layers
    groups = {"last layer": layers[-1:], "late layers": layers[-3:], "all layers": layers}
    groups |= {f"layer {layer}": (layer,) for layer in layers[:-1]}
    train_rows = np.flatnonzero(rows.split != TEST)
    hits = {}
    for name, some in groups.items():
        matrix = network.codes.matrix(some)
        for method in ("svm", "softmax") if not name.startswith("layer ") else ("svm",):
            head = fit_head(
                method,
                Examples(matrix[train_rows], rows.labels[train_rows], rows.groups[train_rows]),
                None,
                HeadSettings(),
                n_classes=manifest.n_classes,
                seed=0,
            )
            hits[f"{name} {method}"] = head.predict(matrix[test]) == rows.labels[test]
    return hits


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
    parser.add_argument("--linear", action="store_true", help="no fine-tuning")
    options = parser.parse_args()
    places = PlaceSettings(
        data_root=options.data_root, cache=options.cache, results=options.results
    )
    path = Path(options.results) / "advise-bench.json"
    found = json.loads(path.read_text()) if path.is_file() else {}
    for name in options.only.split(",") if options.only else SETS:
        data = made(name, Path(options.sets), places)
        found[name] = measured(data, places, finetune=not options.linear, everything=name in WHOLE)
        write_json(path, found)
        one = found[name]
        print(name, one["advised"], one["best"], one.get("regret"), one["accuracy"], flush=True)


if __name__ == "__main__":
    main()
