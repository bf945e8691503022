"""Whether the band of an extrapolated learning curve covers the accuracy with all images.

    python -m benchmarks.extrapolate DATA_ROOT=../shared/data CACHE=cache

Hypothesis: from at most a quarter of the training images, the 90 % band of the power law covers
the accuracy measured with all of them in at least 8 of 10 cases, on data sets and heads of
different kinds. The curve has five sizes and ten draws, as ``make curve`` makes them; the test
images are the same throughout. What came out is in ``benchmarks/extrapolate.md``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from cnn_codes.cli.options import assigned
from cnn_codes.curve.crossing import Curve, covariance_of_means
from cnn_codes.curve.power_law import Forecast, extrapolated
from cnn_codes.heads import Examples, fit_head
from cnn_codes.heads.rows import TEST, rows_of
from cnn_codes.results.resampling import resamples
from cnn_codes.settings import HeadSettings, PlaceSettings
from joblib import Parallel, delayed
from numpy.typing import NDArray

from benchmarks.sets import codes_of, opened

METHODS = ("centroid", "knn", "ridge", "softmax")
DRAWS = 10
N_SIZES = 5
SETS = ("hotdog", "ants-bees", "blood-cells", "chest-xray", "elpv")


def sets(
    places: PlaceSettings,
) -> dict[str, tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.bool_]]]:
    """Give codes (N, D), labels (N,) and which images are test images, of each set found."""
    from sklearn.datasets import load_digits

    found = {}
    for name in SETS:
        if name == "elpv" or (Path(places.data_root) / name).is_dir():
            context = opened(name, places)
            codes = codes_of(context)
            rows = rows_of(context.manifest, codes)
            found[name] = np.asarray(codes.matrix())[:, 0], rows.labels, rows.split == TEST
    x, y = load_digits(return_X_y=True)
    test = np.random.default_rng(0).random(len(y)) < 0.4
    found["digits (pixels)"] = x.astype(np.float32), y.astype(np.int32), test
    return found


def _hits(
    method: str, x: NDArray[np.float32], y: NDArray[np.int32], rows: NDArray[np.int64],
    test: NDArray[np.bool_], seed: int,
) -> NDArray[np.bool_]:  # fmt: skip
    head = fit_head(
        method, Examples(x[rows][:, None], y[rows], np.arange(len(rows))), None,
        HeadSettings(jobs=1), n_classes=int(y.max()) + 1, seed=seed,
    )  # fmt: skip
    right: NDArray[np.bool_] = head.predict(x[test][:, None]) == y[test]
    return right


def case(
    method: str, x: NDArray[np.float32], y: NDArray[np.int32], test: NDArray[np.bool_]
) -> tuple[list[int], Curve, float, Forecast]:
    """Measure one curve up to a quarter of the images, and the accuracy with all of them."""
    train = np.flatnonzero(~test)
    counts = np.bincount(y[train])
    most = int(counts.min()) // 4
    sizes = sorted({round(n) for n in np.geomspace(max(4, most / 16), most, N_SIZES)})
    jobs = []
    for draw in range(DRAWS):
        order = np.random.default_rng(draw).permutation(train)
        place = np.empty(len(order), np.int64)
        for k in range(len(counts)):
            place[y[order] == k] = np.arange(counts[k])
        jobs += [delayed(_hits)(method, x, y, np.sort(order[place < n]), test, draw) for n in sizes]
    jobs.append(delayed(_hits)(method, x, y, train, test, 0))
    *found, all_images = Parallel(2)(jobs)
    hits = np.stack(found).reshape(DRAWS, len(sizes), -1)
    curve = Curve.of_hits(hits, resamples(hits.shape[2]))
    covariance = covariance_of_means(curve)
    assert covariance is not None
    full = len(train) / len(counts)
    accuracy = curve.values
    (forecast,) = extrapolated(
        sizes, accuracy.mean(axis=0), covariance, [full],
        one_draw=float(accuracy[:, -1].var(ddof=1)),
    )  # fmt: skip
    return sizes, curve, float(all_images.mean()), forecast


def main() -> None:
    """Print a row of the table for each set and method."""
    names = ("data_root", "cache")
    given = dict(
        one.removeprefix("--").split("=", 1) for one in assigned(sys.argv[1:], names, names)
    )
    places = PlaceSettings(**given)
    covered = []
    print("| data | head | sizes, images per class | accuracy at the last | predicted, 90 % band | "
          "measured with all | covered |\n|---|---|---|---|---|---|---|")  # fmt: skip
    for name, (x, y, test) in sets(places).items():
        for method in METHODS:
            sizes, curve, truth, f = case(method, x, y, test)
            inside = f.low <= truth <= f.high
            covered.append(inside)
            last = curve.values.mean(axis=0)[-1]
            print(
                f"| {name} | {method} | {', '.join(map(str, sizes))} | {100 * last:.1f} | "
                f"{100 * f.mean:.1f} ({100 * f.low:.1f} to {100 * f.high:.1f}) at {f.size:.0f} | "
                f"{100 * truth:.1f} | {'yes' if inside else '**no**'} |",
                flush=True,
            )
    print(f"\n{sum(covered)} of {len(covered)} cases covered.")


if __name__ == "__main__":
    main()
