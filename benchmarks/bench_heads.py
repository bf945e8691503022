"""Hypothesis: choosing C along one warm-started path a fold beats a hand-written grid search.

The rival is what everybody writes: ``GridSearchCV(make_pipeline(StandardScaler(), LinearSVC()))``
over the same values of C, with the same number of folds and jobs. Ours additionally calibrates,
widens the grid where its end wins (its extra values count against us) and fits in float32 until
the last fit, which is LinearSVC's own. Aim: a ratio of 3; no slower than 1 is the limit.

Used by ``make bench``; alone: ``python benchmarks/bench_heads.py CODES.npz`` with arrays ``codes``
(N, V, D) and ``labels`` (N,), and, where there is one, ``split``, of which ``train`` is taken.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import joblib
import numpy as np
from cnn_codes.heads import Examples, fit_head
from cnn_codes.heads.grids import axes_of
from cnn_codes.settings import HeadSettings
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

FOLDS = 3


def bench_svm(
    codes: NDArray[np.float32], labels: NDArray[np.int32], *, jobs: int = 0, repeats: int = 3
) -> dict[str, Any]:
    """Time our SVM and the hand-written one in turn; the ratio is of the medians.

    Parameters
    ----------
    codes : float32 (N, V, D)
        Training codes; of several views the first is used.
    labels : int32 (N,)
    jobs : int
        Of both; 0: one a core.
    repeats : int
        Rounds; each runs both.

    Returns
    -------
    dict
        ``ours_s``, ``rival_s`` (medians), ``rival_dual_s`` (the rival told ``dual=True``, which
        is not LinearSVC's default), ``ratio``, ``ratio_dual``, ``C`` of both, ``jobs``, ``n``.
    """
    codes = np.ascontiguousarray(codes[:, :1], dtype=np.float32)
    n_images, _, code_dim = codes.shape
    labels = labels.astype(np.int32)
    n_jobs = jobs or joblib.cpu_count()
    train = Examples(codes, labels, np.arange(n_images))
    settings = HeadSettings(folds=FOLDS, jobs=jobs)
    (axis,) = axes_of("svm", n_train=n_images, code_dim=code_dim)
    n_classes = int(labels.max()) + 1

    def ours() -> Any:
        return fit_head("svm", train, None, settings, n_classes=n_classes, seed=0)

    def rival(**options: Any) -> Any:
        model = make_pipeline(StandardScaler(), LinearSVC(random_state=0, **options))
        grid = GridSearchCV(model, {"linearsvc__C": axis.values}, cv=FOLDS, n_jobs=n_jobs)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return grid.fit(codes[:, 0], labels)

    ours(), rival()  # start the workers and load the libraries outside the clock
    times: dict[str, list[float]] = {"ours_s": [], "rival_s": [], "rival_dual_s": []}
    found: dict[str, Any] = {}
    runs: dict[str, Callable[[], Any]] = {
        "ours_s": ours,
        "rival_s": rival,
        "rival_dual_s": lambda: rival(dual=True),
    }
    for _ in range(repeats):
        for name, run in runs.items():
            started = time.perf_counter()
            found[name] = run()
            times[name].append(time.perf_counter() - started)
    medians = {name: float(np.median(values)) for name, values in times.items()}
    return {
        **medians,
        "ratio": medians["rival_s"] / medians["ours_s"],
        "ratio_dual": medians["rival_dual_s"] / medians["ours_s"],
        "C": {
            "ours": found["ours_s"].chosen["C"],
            "rival": found["rival_s"].best_params_["linearsvc__C"],
        },
        "grid": list(axis.values),
        "folds": FOLDS,
        "jobs": n_jobs,
        "n": [n_images, code_dim],
    }


if __name__ == "__main__":
    stored = np.load(sys.argv[1])
    rows = stored["split"] == "train" if "split" in stored else slice(None)
    print(bench_svm(stored["codes"][rows], stored["labels"][rows]))
