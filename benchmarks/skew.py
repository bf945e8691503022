"""What to do about skewed classes, and whether the advice of the audit is right.

Hypothesis: on sets whose largest class is 10 to 60 times the smallest, the setting that ``make
audit`` advises gives a better balanced accuracy (the mean recall of the classes) on a test split
of the same skew than leaving it out, with the SVM and with softmax.

Sets are made of the 8 x 8 digits that scikit-learn brings (the pixels, with noise, stand in for
codes), with one or more classes thinned out. Run: ``python -m benchmarks.skew [SEEDS]``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from cnn_codes.heads import Examples, fit_head
from cnn_codes.results.metrics import measure
from cnn_codes.settings import HeadSettings
from numpy.typing import NDArray

WAYS: dict[str, dict[str, str]] = {
    "as it is": {},
    "CLASS_WEIGHT=balanced": {"class_weight": "balanced"},
    "METRIC=macro_f1": {"metric": "macro_f1"},
    "METRIC=balanced_accuracy": {"metric": "balanced_accuracy"},
    "CLASS_WEIGHT=balanced METRIC=balanced_accuracy": {
        "class_weight": "balanced",
        "metric": "balanced_accuracy",
    },
}
FIGURES = ("accuracy", "balanced_accuracy", "macro_f1")


@dataclass(frozen=True, eq=False)
class Skewed:
    """A set: name, train and test codes (n, 1, D) with their labels (n,)."""

    name: str
    train: Examples
    test_codes: NDArray[np.float32]
    test_labels: NDArray[np.int32]


def _thinned(
    name: str, x: NDArray[np.float32], y: NDArray[np.int64], keep: dict[int, int], seed: int
) -> Skewed:
    """Take so many images of each class, two thirds of them to train, and add noise."""
    random = np.random.default_rng(seed)
    rows = [random.permutation(np.flatnonzero(y == k))[:n] for k, n in keep.items()]
    labels = {k: at for at, k in enumerate(keep)}
    train = np.concatenate([some[: round(len(some) * 2 / 3)] for some in rows])
    test = np.concatenate([some[round(len(some) * 2 / 3) :] for some in rows])
    spread = x.std(axis=0).mean()
    x = (x + random.normal(0, 2.0 * spread, x.shape)).astype(np.float32)
    of = np.array([labels.get(int(k), -1) for k in y], np.int32)
    return Skewed(
        name,
        Examples(x[train][:, None], of[train], np.arange(len(train))),
        x[test][:, None],
        of[test],
    )


def skewed_sets(seed: int = 0) -> Iterator[Skewed]:
    """Give ten sets, 1:10 to 1:60."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    x, y = digits.data.astype(np.float32), digits.target
    for ratio, (rare, usual) in zip((10, 15, 20), ((8, 3), (9, 4), (1, 7)), strict=True):
        keep = {usual: 175, rare: 175 // ratio}
        yield _thinned(f"{usual} against {rare}, 1:{ratio}", x, y, keep, seed)
    for ratio, rare in ((10, (8,)), (20, (8, 9)), (29, (1, 8, 9))):
        keep = {k: 174 // ratio if k in rare else 174 for k in range(10)}
        yield _thinned(f"10 digits, {len(rare)} rare, 1:{ratio}", x, y, keep, seed)
    falling = {k: round(174 * 10 ** (-k / 9)) for k in range(10)}
    yield _thinned("10 digits, falling, 1:10", x, y, falling, seed)
    odd = np.where(y == 8, 1, np.where(y % 2 == 0, 2, 0))
    for ratio, other in ((20, (0,)), (40, (0,)), (60, (0, 2))):
        joined = np.where(odd == 1, 1, np.where(np.isin(odd, other), 0, -1))
        most = int(np.sum(joined == 0))
        keep = {0: most, 1: max(3, most // ratio)}
        yield _thinned(f"8 against {len(other)} kinds, 1:{ratio}", x, joined, keep, seed)


def figures(one: Skewed, method: str, way: dict[str, str], seed: int = 0) -> dict[str, float]:
    """Fit a head with the settings of `way`; give its figures on test."""
    settings = HeadSettings(methods=(method,), folds=3, jobs=1, **way)
    n_classes = int(one.train.labels.max()) + 1
    head = fit_head(method, one.train, None, settings, n_classes=n_classes, seed=seed)
    p = head.predict_proba(one.test_codes)
    found = measure(one.test_labels, p, predicted=head.decide(p))
    return {key: float(found[key]) for key in FIGURES}


def main(seeds: int = 5) -> None:
    """Print a table for each method: mean over seeds of each figure, a line a set."""
    for method in ("svm", "softmax"):
        wins = dict.fromkeys(WAYS, 0)
        print(f"\n### {method}: balanced accuracy / macro-F1\n")
        print("| set | " + " | ".join(WAYS) + " |\n|---" + "|---:" * len(WAYS) + "|")
        many = [list(skewed_sets(seed)) for seed in range(seeds)]
        for at, first in enumerate(many[0]):
            mean = {
                name: np.mean(
                    [
                        [figures(many[s][at], method, way, s)[key] for key in FIGURES[1:]]
                        for s in range(seeds)
                    ],
                    axis=0,
                )
                for name, way in WAYS.items()
            }
            cells = [f"{100 * b:.1f} / {100 * f:.1f}" for b, f in mean.values()]
            print(f"| {first.name} | " + " | ".join(cells) + " |", flush=True)
            for name in WAYS:
                wins[name] += bool(mean[name][0] > mean["as it is"][0])
        print(f"better than as it is: {wins}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
