"""How many labels flipped on purpose stand in the first tenth of the list of suspects.

    python -m benchmarks.mislabelled DATA_ROOT=../shared/data CACHE=cache

Hypothesis: on hotdog with 5 % of the labels flipped, at least 80 % of those flipped are among
the first 10 % listed. Compared on the same held-out probabilities: the margin of confident
learning (what ``make labels`` uses), the same less the class thresholds, and the probability of
the label alone. What came out stands in ``benchmarks/mislabelled.md``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from cnn_codes.evidence.confident import class_thresholds, label_margin
from cnn_codes.heads.folds import cut_folds
from cnn_codes.heads.held_out import held_out
from cnn_codes.heads.rows import rows_of
from cnn_codes.settings import PlaceSettings
from numpy.typing import NDArray

from benchmarks.sets import codes_of, opened

SEEDS = 10
LISTED = 0.1


def flipped(
    labels: NDArray[np.int32], n_classes: int, share: float, seed: int
) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """Give `share` of the labels another class at random: new labels, and which were changed."""
    rng = np.random.default_rng(seed)
    changed = np.zeros(len(labels), dtype=bool)
    changed[rng.permutation(len(labels))[: round(share * len(labels))]] = True
    new = labels.copy()
    new[changed] = (new[changed] + rng.integers(1, n_classes, changed.sum())) % n_classes
    return new, changed


def found(score: NDArray[np.float64], changed: NDArray[np.bool_]) -> float:
    """Share of the changed labels among the tenth of the images with the lowest score."""
    first = np.argsort(score, kind="stable")[: int(np.ceil(LISTED * len(score)))]
    return float(changed[first].sum() / changed.sum())


def measure(
    codes: NDArray[np.float32],
    labels: NDArray[np.int32],
    groups: NDArray[np.int64],
    n_classes: int,
    share: float,
) -> NDArray[np.float64]:
    """Flip, judge and rank with each seed: found shares, (SEEDS, 3 scores)."""
    rows = []
    for seed in range(SEEDS):
        new, changed = flipped(labels, n_classes, share, seed)
        names = tuple(map(str, range(n_classes)))
        folds, _ = cut_folds(new, groups, folds=5, seed=seed, class_names=names)
        p = held_out(codes, new, folds, method="softmax", n_classes=n_classes).probabilities()
        own = p[np.arange(len(new)), new]
        less = p - class_thresholds(p, new)
        scores = (label_margin(p, new), label_margin(less, new), own)
        rows.append([found(score, changed) for score in scores])
    return np.array(rows)


def main() -> None:
    """Measure on the photographs, and on ten classes of digits."""
    given = {k.lower(): v for k, v in (part.split("=", 1) for part in sys.argv[1:])}
    places = PlaceSettings(
        data_root=given.get("data_root", "data"), cache=given.get("cache", "cache")
    )
    problems = []
    for name in ("hotdog", "ants-bees"):
        if not (Path(places.data_root) / name).is_dir():
            continue
        context = opened(name, places)
        manifest, codes = context.manifest, codes_of(context)
        rows = rows_of(manifest, codes)
        problems.append((name, codes.matrix(), rows.labels, rows.groups, manifest.n_classes))
    from sklearn.datasets import load_digits

    digits = load_digits()
    z = digits.data.astype(np.float32)[:, None]
    problems.append(("digits", z, digits.target.astype(np.int32), np.arange(len(z)), 10))
    print("data       flipped  margin (mean, least)  less thresholds  p(label)")
    for name, z, labels, groups, n_classes in problems:
        for share in (0.02, 0.05, 0.08):
            table = measure(z, labels, groups, n_classes, share)
            mean, least = table.mean(axis=0), table.min(axis=0)
            shown = "  ".join(f"{m:.3f}, {low:.3f}" for m, low in zip(mean, least, strict=True))
            print(f"{name:10} {share:6.0%}   {shown}", flush=True)


if __name__ == "__main__":
    main()
