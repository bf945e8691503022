"""Whether prediction sets hold what they promise, and whether costs fall: over many resplits.

    python -m benchmarks.decisions DATA_ROOT=../shared/data CACHE=cache RESPLITS=200

Hypotheses: (1) over random resplits of ants-bees and digits the sets of ``SET=0.9`` hold the true
class in 90 % of test images, within the binomial band of that many test images; by class as well.
(2) blood-cells, whose images are augmented copies of 250 photographs: the sets fail where groups
are ignored in training and kept in the test, and hold where training knows of them. (3) With
``COST`` and ``THRESHOLD=cost`` the expected cost on ten resplits by group is below that of the most
probable class.

A softmax head, the choice of C by cross-validation included in every resplit. Test: a quarter of
the groups.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from cnn_codes.cli.options import assigned
from cnn_codes.heads import Examples, Head, fit_head
from cnn_codes.heads.rows import rows_of
from cnn_codes.settings import HeadSettings, PlaceSettings
from joblib import Parallel, delayed
from numpy.typing import NDArray

from benchmarks.sets import codes_of, opened

LEVEL, COST_RESPLITS = 0.9, 10


@dataclass(frozen=True, eq=False)
class Set:
    """Codes (N, 1, D), labels (N,) and groups (N,) of a data set."""

    name: str
    codes: NDArray[np.float32]
    labels: NDArray[np.int32]
    groups: NDArray[np.int64]


def sets(places: PlaceSettings) -> Iterator[Set]:
    """Give the sets that are there."""
    for name, group in (("ants-bees", ""), ("blood-cells", "group")):
        if (Path(places.data_root) / name).is_dir():
            context = opened(name, places, group=group)
            codes = codes_of(context)
            rows = rows_of(context.manifest, codes)
            yield Set(name, np.asarray(codes.matrix()), rows.labels, rows.groups)
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    yield Set("digits", x[:, None].astype(np.float32), y.astype(np.int32), np.arange(len(y)))


def cut(one: Set, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cut rows to train and to test on: a quarter of the groups."""
    units = np.unique(one.groups)
    held = np.random.default_rng(seed).permutation(units)[: len(units) // 4]
    test = np.isin(one.groups, held)
    return np.flatnonzero(~test), np.flatnonzero(test)


def fitted(one: Set, rows: NDArray[np.int64], seed: int, grouped: bool, **settings: object) -> Head:
    """Fit a head; without `grouped` each image is taken for a thing of its own."""
    groups = one.groups[rows] if grouped else rows
    return fit_head(
        "softmax", Examples(one.codes[rows], one.labels[rows], groups), None,
        HeadSettings(jobs=1, **settings),  # type: ignore[arg-type]
        n_classes=int(one.labels.max()) + 1, seed=seed,
    )  # fmt: skip


def coverage(one: Set, seed: int, grouped: bool) -> tuple[float, float, float, int]:
    """Give marginal coverage, least coverage of a class, mean size of the sets, test images."""
    train, test = cut(one, seed)
    head = fitted(one, train, seed, grouped, set=LEVEL)
    p, y = head.predict_proba(one.codes[test]), one.labels[test]
    inside, by_class = (head.output.inside(p, conditional=c) for c in (False, True))
    hit, hit_by_class = (s[np.arange(len(y)), y] for s in (inside, by_class))
    classes = [float(hit_by_class[y == k].mean()) for k in np.unique(y)]
    return float(hit.mean()), float(np.mean(classes)), float(inside.sum(axis=1).mean()), len(test)


def cost(one: Set, seed: int, path: Path, costs: NDArray[np.float64]) -> tuple[float, float]:
    """Give the mean cost on test of the most probable class, and of THRESHOLD=cost."""
    train, test = cut(one, seed)
    y, found = one.labels[test], []
    for settings in ({}, {"cost": str(path), "threshold": "cost"}):
        head = fitted(one, train, seed, True, **settings)
        found.append(float(costs[y, head.predict(one.codes[test])].mean()))
    return found[0], found[1]


def _costs(n_classes: int) -> NDArray[np.float64]:
    """Missing the first class costs ten, any other mistake one."""
    costs = np.ones((n_classes, n_classes)) - np.eye(n_classes)
    costs[0, 1:] = 10
    return costs


def main() -> None:
    """Print both tables."""
    names = ("data_root", "cache", "resplits")
    given = dict(
        one.removeprefix("--").replace("-", "_").split("=", 1)
        for one in assigned(sys.argv[1:], names, names)
    )
    n = int(given.pop("resplits", "200"))
    found = list(sets(PlaceSettings(**given)))
    print("| data | training knows of groups | resplits | coverage, % (least resplit) | "
          "by class, % | classes per set | band of one resplit, 95 % | resplits within or above |\n"
          "|---|---|---|---|---|---|---|---|")  # fmt: skip
    for one in found:
        for grouped in (True, False) if one.name == "blood-cells" else (True,):
            rows = np.array(Parallel(2)(delayed(coverage)(one, s, grouped) for s in range(n)))
            width = 1.96 * np.sqrt(LEVEL * (1 - LEVEL) / rows[:, 3])
            held = np.mean(rows[:, 0] >= LEVEL - width)
            print(
                f"| {one.name} | {'yes' if grouped else 'no'} | {n} | "
                f"{100 * rows[:, 0].mean():.1f} ({100 * rows[:, 0].min():.1f}) | "
                f"{100 * rows[:, 1].mean():.1f} | {rows[:, 2].mean():.2f} | "
                f"±{100 * width.mean():.1f} | {100 * held:.0f} % |", flush=True,
            )  # fmt: skip
    print("\n| data | mean cost, most probable class | with THRESHOLD=cost | lower in |\n"
          "|---|---|---|---|")  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        for one in found:
            k = int(one.labels.max()) + 1
            costs, path = _costs(k), Path(folder) / f"{one.name}.csv"
            lines = [",".join(["", *map(str, range(k))])]
            lines += [",".join([str(i), *map(str, row)]) for i, row in enumerate(costs.tolist())]
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")
            each = np.array(
                Parallel(2)(delayed(cost)(one, s, path, costs) for s in range(COST_RESPLITS))
            )
            print(
                f"| {one.name} | {each[:, 0].mean():.3f} | {each[:, 1].mean():.3f} | "
                f"{int((each[:, 1] < each[:, 0]).sum())} of {COST_RESPLITS} |", flush=True,
            )  # fmt: skip


if __name__ == "__main__":
    main()
