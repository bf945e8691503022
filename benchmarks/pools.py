"""Which pooling suits small defects: judged on train alone, for ``make heads POOL=...``.

    python -m benchmarks.pools CACHE=cache

elpv, all layers, 8 dihedral views, stretched: for each pooling and head the accuracy and the
calibrated log-loss of the cross-validation by which the head's setting is chosen, mean over the
train parts of five random splits (those of ``SPLITS=5``). Test images are in no figure.
"""

from __future__ import annotations

import statistics
import sys
from dataclasses import replace

import numpy as np
from cnn_codes.heads import Examples, fit_head
from cnn_codes.heads.rows import redrawn, rows_of
from cnn_codes.settings import (
    CodesSettings,
    HeadSettings,
    PlaceSettings,
)

from benchmarks.sets import codes_of, opened

POOLS, METHODS, SPLITS, TEST = ("mean", "max"), ("svm", "softmax", "rbf"), 5, 2


def main() -> None:
    """Print a line for each pooling and head."""
    given = dict(part.split("=", 1) for part in sys.argv[1:])
    places = PlaceSettings(cache=given.get("CACHE", "cache"))
    whole = opened("elpv", places)
    manifest = whole.manifest
    for pool in POOLS:
        asked = CodesSettings(layers=("all",), views="dihedral", resize="stretch", pool=pool)
        codes = codes_of(replace(whole, codes=asked))
        matrix, rows = codes.matrix(), rows_of(manifest, codes)
        for method in METHODS:
            accuracy, log_loss = [], []
            for seed in range(SPLITS):
                train = np.flatnonzero(redrawn(rows, manifest, seed).split != TEST)
                head = fit_head(
                    method,
                    Examples(matrix[train], rows.labels[train], rows.groups[train]),
                    None,
                    HeadSettings(),
                    n_classes=manifest.n_classes,
                    seed=seed,
                )
                chosen = head.chosen
                point = next(p for p in chosen["curve"] if p["score"] == chosen["score"])
                accuracy.append(point["accuracy"])
                log_loss.append(chosen["score"])
            print(
                f"{pool:5s} {method:8s} accuracy {statistics.fmean(accuracy):.4f}  "
                f"log-loss {statistics.fmean(log_loss):.4f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
