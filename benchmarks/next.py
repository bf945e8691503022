"""Which images to label next, against random picks: accuracy as labels are bought.

Hypothesis: typicality below ten labels a class and spread margins above reach a higher area under
the curve of test accuracy against labels than random picks do, on two of three data sets, and
are nowhere worse by more than chance.

Every draw holds a random pool of training images (80 %), starts with no label, and buys in
rounds. Both ways are judged by the same softmax head (C = 0.01) on the data set's own test split.
Ten draws, paired: the same pool.

    python -m benchmarks.next [hotdog] [blood-cells] [elpv]
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

ROUNDS = (10, 20, 40, 80, 160, 320)
DRAWS = 10
GROUPS = {"blood-cells": "group"}


def load(data: str, places: dict[str, str]) -> tuple[Any, ...]:
    """Codes, labels and split of a data set."""
    from cnn_codes.heads.examples import mean_view
    from cnn_codes.settings import PlaceSettings

    from benchmarks.sets import codes_of, opened

    context = opened(data, PlaceSettings(**places), group=GROUPS.get(data, ""))
    manifest, codes = context.manifest, codes_of(context)
    kept = ~np.isin(manifest.sha256, np.array(list(codes.rejects), "S64"))
    manifest = manifest.take(np.flatnonzero(kept))
    test = (manifest.split == 2) & ~manifest.leaks
    return mean_view(codes.matrix()), manifest.labels, manifest.split != 2, test


def curve(
    codes: Any, labels: Any, pool: Any, test: Any, n_classes: int, pick: Callable[..., Any]
) -> list[float]:
    """Test accuracy after each round of buying labels."""
    from cnn_codes.next.judged import probabilities

    bought = np.empty(0, np.int64)
    found = []
    for total in ROUNDS:
        rest = np.setdiff1d(pool, bought)
        bought = np.concatenate([bought, pick(rest, bought, total - len(bought))])
        p = probabilities(codes[bought], labels[bought], codes[test], n_classes)
        found.append(float((p.argmax(axis=1) == labels[test]).mean()))
    return found


def main() -> None:
    """Print a table of both ways, and the paired difference of the areas."""
    places = {"data_root": "../shared/data", "cache": "cache"}
    named = [one.split("=", 1) for one in sys.argv[1:] if "=" in one]
    places |= {name.lower(): value for name, value in named}
    print("| data | way | " + " | ".join(map(str, ROUNDS)) + " | area |")
    print("|---|---|" + "---|" * (len(ROUNDS) + 1))
    sets = [one for one in sys.argv[1:] if "=" not in one]
    for data in sets or ["hotdog", "blood-cells", "elpv"]:
        compare(data, *load(data, places))


def compare(data: str, codes: Any, labels: Any, train: Any, test: Any) -> None:
    """Print the rows of one data set."""
    from cnn_codes.next.judged import probabilities
    from cnn_codes.next.order import choose_next

    n_classes = int(labels.max()) + 1

    def chosen(rest: Any, bought: Any, n: int, draw: int) -> Any:
        present = np.unique(labels[bought])
        p = None
        if len(present) > 1:
            p = probabilities(codes[bought], labels[bought], codes[rest], n_classes)
        # Classes that nobody has met yet are not known to exist.
        counts = np.bincount(labels[bought], minlength=n_classes)[present]
        rows, _ = choose_next(codes[rest], codes[bought], counts, p, n, seed=draw)
        return rest[rows]

    def drawn(rest: Any, bought: Any, n: int, draw: int) -> Any:
        return np.random.default_rng((draw, n)).permutation(rest)[:n]

    area = {}
    for name, pick in (("next", chosen), ("random", drawn)):
        curves = []
        for draw in range(DRAWS):
            pool = np.random.default_rng(draw).permutation(np.flatnonzero(train))
            pool = np.sort(pool[: round(0.8 * len(pool))])
            one = partial(pick, draw=draw)
            curves.append(curve(codes, labels, pool, np.flatnonzero(test), n_classes, one))
        x = np.log(ROUNDS)
        areas = np.trapezoid(np.array(curves), x, axis=1) / (x[-1] - x[0])
        area[name] = areas
        mean = " | ".join(f".{round(1000 * one):03d}" for one in np.mean(curves, axis=0))
        print(f"| {data} | {name} | {mean} | .{round(1000 * areas.mean()):03d} |", flush=True)
    gain = 100 * (area["next"] - area["random"])
    error = gain.std(ddof=1) / np.sqrt(DRAWS)
    print(
        f"| {data} | gain in area | {gain.mean():+.2f} points, standard error {error:.2f}, "
        f"better in {int((gain > 0).sum())} of {DRAWS} |" + " |" * len(ROUNDS), flush=True,
    )  # fmt: skip


if __name__ == "__main__":
    main()
