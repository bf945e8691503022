"""Fine-tuning against the probe it starts from, over resplits.

    python -m benchmarks.protocol DATA_ROOT=../shared/data CACHE=cache RESULTS=results MADE=made \
        RESPLITS=5 SEEDS=3 ONLY=ants-bees,blood-cells METHOD=late-adapted EPOCHS=5

Hypothesis: on no set is the default of ``make finetune`` more than .5 points below the probe (a
softmax head on the same images, val included), and on at least two of the sets that are unlike
photographs (elpv by module, blood-cells, digits-60) it gains 2 points or more. Resplits are by
group where there are groups. First figure: the paired log-loss per test image, then the accuracy;
standard errors over images, clustered by group, within a resplit, and over the resplits.

METHOD names ``finetune`` (the default) or a recipe, and every setting of fine-tuning may be given
over it. A run is kept when it is done; the same command goes on where it was.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from cnn_codes.cli.options import assigned
from cnn_codes.compare.runs import train, training_of
from cnn_codes.context import Context
from cnn_codes.files import digest_of
from cnn_codes.heads import Examples, fit_head
from cnn_codes.heads.rows import TEST, TRAIN, Rows, redrawn, rows_of
from cnn_codes.results.metrics import clustered_error
from cnn_codes.results.predictions import read_predictions
from cnn_codes.settings import FinetuneSettings, HeadSettings, PlaceSettings
from numpy.typing import NDArray

from benchmarks.advise import made
from benchmarks.sets import codes_of, opened

SETS = ("hotdog-10-0", "digits-60", "ants-bees", "blood-cells", "elpv", "hotdog")
GROUPS = {"blood-cells": "group"}


def compared(
    context: Context,
    matrix: NDArray[np.float32],
    rows: Rows,
    settings: FinetuneSettings,
    seed: int,
) -> dict[str, float]:
    """Train and fit on one resplit; paired differences on its test images, trained less probe."""
    split = np.full(context.manifest.n_images, -1, np.int8)
    split[rows.at] = rows.split
    below = f"protocol-{digest_of(rows.split.tolist())[:12]}"
    training = replace(settings, repeat=seed)
    began = time.perf_counter()
    record = train(context, training, split, below=below)
    place = context.folder / below / context.manifest.name
    found = read_predictions(place / f"{record['run']}.predictions.csv")
    inside, test = rows.split == TRAIN, np.flatnonzero(rows.split == TEST)
    head = fit_head(
        "softmax", Examples(matrix[inside], rows.labels[inside], rows.groups[inside]), None,
        HeadSettings(), n_classes=context.manifest.n_classes, seed=context.seed,
    )  # fmt: skip
    at = {rows.paths[i]: i for i in test.tolist()}
    order = np.array([at[path] for path in found.paths])
    p, y = head.predict_proba(matrix[order]), rows.labels[order]
    own, seconds = np.arange(len(y)), time.perf_counter() - began
    losses = -np.log(found.probabilities[own, y]) + np.log(p[own, y])
    hits = (found.predicted == y).astype(float) - (p.argmax(axis=1) == y)
    groups = rows.groups[order]
    return {
        "epoch": record["chosen"]["epoch"],
        "probe": float((p.argmax(axis=1) == y).mean()),
        "log_loss": float(losses.mean()),
        "log_loss_se": clustered_error(losses, groups),
        "accuracy": float(hits.mean()),
        "accuracy_se": clustered_error(hits, groups),
        "n_test": len(y),
        "seconds": round(seconds),
    }


def main() -> None:
    """Print a row per set; every run is a line of protocol.jsonl beside the results."""
    names = ("data_root", "cache", "results", "made", "resplits", "seeds", "only")
    own = [field.name for field in fields(FinetuneSettings)]
    names, known = (*names, "method"), (*names, "method", *own)
    pairs = (one.removeprefix("--").split("=", 1) for one in assigned(sys.argv[1:], known, known))
    given: dict[str, Any] = {name.replace("-", "_"): value for name, value in pairs}
    method, changed = given.pop("method", "finetune"), {k: given.pop(k) for k in own if k in given}
    typed = {k: type(getattr(FinetuneSettings(), k))(v) for k, v in changed.items()}
    training = replace(training_of(method), **typed)
    label = " ".join([method, *(f"{key}={value}" for key, value in sorted(changed.items()))])
    n_resplits, n_seeds = int(given.pop("resplits", 5)), int(given.pop("seeds", 3))
    wanted = str(given.pop("only", ",".join(SETS))).split(",")
    folder = Path(given.pop("made", "made"))
    places = PlaceSettings(**given)
    log = Path(places.results) / "protocol.jsonl"
    log.parent.mkdir(parents=True, exist_ok=True)
    lines = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
    found = [one for one in map(json.loads, lines) if one["method"] == label]
    done = {(one["set"], one["resplit"], one["seed"]): one for one in found}
    print("| data | resplits x seeds | probe, % | accuracy less probe's, points (least) | "
          "log-loss less probe's | trained at all |\n|---|---|---|---|---|---|")  # fmt: skip
    for name in wanted:
        folder.mkdir(parents=True, exist_ok=True)
        context = opened(made(name, folder, places), places, group=GROUPS.get(name, ""))
        codes = codes_of(context)
        matrix, rows = codes.matrix(), rows_of(context.manifest, codes)
        for resplit in range(n_resplits):
            drawn = redrawn(rows, context.manifest, context.seed + resplit)
            for seed in range(n_seeds):
                if (name, resplit, seed) in done:
                    continue
                row = {"method": label, "set": name, "resplit": resplit, "seed": seed}
                row |= compared(context, matrix, drawn, training, seed)
                done[name, resplit, seed] = row
                with log.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps(row) + "\n")
                print(json.dumps(row), file=sys.stderr, flush=True)
        some = [one for (of, *_), one in done.items() if of == name]
        gain = 100 * np.array([one["accuracy"] for one in some])
        loss = np.array([one["log_loss"] for one in some])
        error = gain.std(ddof=1) / np.sqrt(len(gain)) if len(gain) > 1 else np.nan
        probe = 100 * np.mean([one["probe"] for one in some])
        print(
            f"| {name} | {n_resplits} x {n_seeds} | {probe:.1f} | {gain.mean():+.1f} ± {error:.1f} "
            f"({gain.min():+.1f}) | {loss.mean():+.3f} | "
            f"{sum(one['epoch'] > 0 for one in some)} of {len(some)} |", flush=True,
        )  # fmt: skip


if __name__ == "__main__":
    main()
