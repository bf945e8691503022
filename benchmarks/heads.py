"""Hypothesis: one whitened solver for all folds chooses and fits a linear head in seconds.

The rivals are scikit-learn's own searches over the same grid, standardised inside the folds:
``LogisticRegressionCV`` for softmax and ``GridSearchCV(LinearSVC(dual=True))`` for the SVM. Ours
widens its grid where an end wins, leaves it where it has plainly passed the best, and calibrates;
all of that counts against it. Each case runs in a process of its own, which reports its peak
memory (the codes included) and its seconds; a rival that is not done after ``--limit`` seconds is
ended and counted at the limit.

    python -m benchmarks.heads 5000x1280x100 --rivals      # images x code_dim x classes
    python -m benchmarks.heads 50000x1280x10 200000x1280x100 6000x1280x1000
    python -m benchmarks.heads 1000000x1280x10 --file FOLDER      # float16 codes on disk

The codes are drawn: class means in 64 shared directions, noise of a spectrum that falls as
1/rank, negative numbers cut off, as behind a ReLU. `--codes FILE.npz` (arrays ``codes`` (N, V, D)
and ``labels`` (N,)) takes real ones instead.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from cnn_codes.heads import Examples, fit_head
from cnn_codes.heads.file_rows import FileRows
from cnn_codes.heads.grids import axes_of
from cnn_codes.settings import HeadSettings
from numpy.typing import NDArray

FOLDS = 5
TEST = 2000


def drawn(
    n: int, d: int, k: int, *, gap: float, file: Path | None = None
) -> tuple[NDArray[Any], NDArray[np.int32]]:
    """Draw codes (n, 1, d) of `k` classes; float32 in memory, or float16 in a file, mapped."""
    rng = np.random.default_rng(0)
    labels = (np.arange(n) % k).astype(np.int32)
    shared = rng.normal(size=(64, d)).astype(np.float32) / 8
    centres = gap * rng.normal(size=(k, 64)).astype(np.float32)
    turn = np.linalg.qr(rng.normal(size=(d, d)).astype(np.float32))[0]
    turn *= 5 * np.arange(1, d + 1, dtype=np.float32)[:, None] ** -0.5
    codes: Any
    if file is None:
        codes = np.empty((n, 1, d), np.float32)
    else:
        codes = np.lib.format.open_memmap(file, mode="w+", dtype=np.float16, shape=(n, 1, d))
    for start in range(0, n, 8192):
        rows = slice(start, min(n, start + 8192))
        count = rows.stop - start
        z = (centres[labels[rows]] + rng.standard_normal((count, 64), np.float32)) @ shared
        z += rng.standard_normal((count, d), np.float32) @ turn
        codes[rows, 0] = np.maximum(z + 0.2, 0)
    if file is not None:
        codes.flush()
        del codes
        codes = np.load(file, mmap_mode="r")
        Path("/proc/self/clear_refs").write_text("5")  # the peak is to be that of the fit
    return codes, labels


def peak_mib() -> float:
    """Give the largest resident memory of this process since it was last reset."""
    status = Path("/proc/self/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) / 1024


def ours(method: str, codes: Any, labels: NDArray[np.int32], jobs: int) -> Any:
    """Fit by this project."""
    settings = HeadSettings(folds=FOLDS, jobs=jobs)
    train = Examples(codes, labels, np.arange(len(labels)))
    head = fit_head(method, train, None, settings, n_classes=int(labels.max()) + 1, seed=0)
    return head.predict, head.chosen["C"], len(head.chosen["curve"])


def theirs(method: str, codes: Any, labels: NDArray[np.int32], jobs: int) -> Any:
    """Fit by scikit-learn, over the values of C that we begin with."""
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    (axis,) = axes_of(method, n_train=len(labels), code_dim=codes.shape[2])
    x = codes[:, 0].astype(np.float32, copy=False)
    model: Any
    if method == "softmax":
        model = make_pipeline(
            StandardScaler(),
            LogisticRegressionCV(
                Cs=axis.values, cv=FOLDS, n_jobs=jobs, l1_ratios=(0,), scoring="accuracy",
                max_iter=1000, use_legacy_attributes=False,
            ),
        )  # fmt: skip
        model.fit(x, labels)
        chosen = float(np.ravel(model[-1].C_)[0])
    else:
        svm = make_pipeline(StandardScaler(), LinearSVC(dual=True, random_state=0))
        model = GridSearchCV(svm, {"linearsvc__C": axis.values}, cv=FOLDS, n_jobs=jobs)
        model.fit(x, labels)
        chosen = model.best_params_["linearsvc__C"]
    return (lambda c: model.predict(c[:, 0])), chosen, len(axis.values)


def case(options: argparse.Namespace) -> dict[str, Any]:
    """Run one method on one set of codes in this process."""
    if options.codes:
        stored = np.load(options.codes)
        codes, labels = stored["codes"][:, :1], stored["labels"].astype(np.int32)
        order = np.random.default_rng(0).permutation(len(labels))
        codes, labels = codes[order], labels[order]
    else:
        n, d, k = map(int, options.sizes[0].split("x"))
        file = options.file / f"{options.sizes[0]}.npy" if options.file else None
        codes, labels = drawn(n + TEST, d, k, gap=options.gap, file=file)
    split = len(labels) - (TEST if not options.codes else len(labels) // 5)
    run = ours if options.who == "ours" else theirs
    train: Any = codes[:split]
    if isinstance(codes, np.memmap):  # as heads read codes that do not fit into memory
        train = FileRows([codes], n_views=1, rows=np.arange(split))
    began, cpu = time.perf_counter(), time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        predict, chosen, tried = run(options.method, train, labels[:split], options.jobs)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    right = float(np.mean(predict(np.asarray(codes[split:])) == labels[split:]))
    size = codes[:split].nbytes / 2**20
    peak = peak_mib()
    return {
        "seconds": round(seconds, 1), "cpu_s": round(cpu, 1), "C": chosen, "tried": tried,
        "accuracy": round(right, 4), "codes_mib": round(size), "peak_mib": round(peak),
    }  # fmt: skip


def main() -> None:
    """Run every case in a process of its own and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("sizes", nargs="*", default=["5000x1280x10", "5000x1280x100"])
    parser.add_argument("--methods", nargs="+", default=["softmax", "svm"])
    parser.add_argument("--rivals", action="store_true")
    parser.add_argument("--jobs", type=int, default=joblib.cpu_count())
    parser.add_argument("--limit", type=float, default=900.0, help="seconds a case may take")
    parser.add_argument("--gap", type=float, default=0.3, help="distance of the classes")
    parser.add_argument("--file", type=Path, help="folder: draw the codes into a file there")
    parser.add_argument("--codes", type=Path, help="an .npz with codes and labels")
    parser.add_argument("--who", choices=("ours", "scikit-learn"), help=argparse.SUPPRESS)
    parser.add_argument("--method", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.who:
        print(json.dumps(case(options)))
        return
    print("| codes | method | by | seconds | C (tried) | accuracy | codes MiB | peak MiB |")
    print("|---|---|---|---|---|---|---|---|")
    for sizes in options.sizes if not options.codes else [options.codes.name]:
        for method in options.methods:
            for who in ("ours", "scikit-learn") if options.rivals else ("ours",):
                command = [sys.executable, "-m", "benchmarks.heads"]
                command += [] if options.codes else [sizes]
                command += ["--who", who, "--method", method, "--jobs", str(options.jobs)]
                command += ["--gap", str(options.gap)]
                for name in ("file", "codes"):
                    if getattr(options, name):
                        command += [f"--{name}", str(getattr(options, name))]
                try:
                    done = subprocess.run(
                        command, capture_output=True, text=True, timeout=options.limit, check=True
                    )
                except subprocess.TimeoutExpired:
                    print(f"| {sizes} | {method} | {who} | > {options.limit:.0f} | | | | |")
                    continue
                f = json.loads(done.stdout)
                print(
                    f"| {sizes} | {method} | {who} | {f['seconds']} | {f['C']:.3g} ({f['tried']}) "
                    f"| {f['accuracy']} | {f['codes_mib']} | {f['peak_mib']} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
