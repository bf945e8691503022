"""What tells images apart that is not what they show: shifts between splits, and file properties.

Three questions, each answered by a classifier that is cross-validated by group on a sample:
can train and test be told apart by the codes, within classes (a shift)? Can they by the files'
own properties? And do these properties alone tell the classes (a shortcut)? File properties are
size, aspect, bytes, format, colour mode, JPEG quantisation tables and EXIF marks; of the pixels the
mean brightness and the colour of the border, which say where and how a picture was taken.
"""

from __future__ import annotations

import io
import math
import struct
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..datasets import Manifest
from ..datasets.facts import Facts
from ..datasets.phrases import few
from ..datasets.split_words import TEST, TRAIN
from ..notation import number, share
from ..results.metrics import auroc
from .findings import Finding
from .near import mean_code, telling_codes, unit_codes

MOST = 2000  # images of a side that are looked at
LEAST = 30  # images that a side needs
SHIFT = 0.75  # AUROC from which train and test differ; .5: chance
SHORTCUT = 0.5  # share of the way from chance to all classes right that properties alone go
ERRORS = 3.0
FOLDS = 4
_HEAD_BYTES = 200_000  # of a file, with all that is read here but the pixels


def shift_findings(
    manifest: Manifest, facts: Facts, cache: Path | None, *, seed: int = 0
) -> list[Finding]:
    """Say whether train and test can be told apart, by codes and by file properties.

    Without a cache, by file properties alone: where images of one thing are not grouped, codes
    tell the things apart, and so the splits.
    """
    random = np.random.default_rng(seed)
    train, test = (_sample(manifest, facts, side, random) for side in (TRAIN, TEST))
    shared = set(manifest.labels[train].tolist()) & set(manifest.labels[test].tolist())
    train, test = (rows[np.isin(manifest.labels[rows], sorted(shared))] for rows in (train, test))
    if min(len(train), len(test)) < LEAST:
        return []
    rows = np.concatenate([train, test])
    is_test = np.repeat([0, 1], [len(train), len(test)])
    labels, groups = manifest.labels[rows], manifest.groups[rows]
    findings = []
    codes = telling_codes(manifest, cache) if cache else None
    if codes is not None:
        where = {digest: row for row, digest in enumerate(codes.sha256.tolist())}
        has = np.array([digest in where for digest in manifest.sha256[rows].tolist()])
        at = np.array([where[one] for one in manifest.sha256[rows[has]].tolist()], np.int64)
        if min(np.bincount(is_test[has], minlength=2)) >= LEAST:
            unit = unit_codes(codes, at, mean_code(codes, at)).astype(np.float64)
            found = _told(unit, is_test[has], labels[has], groups[has], linear=True)
            findings += _shift(manifest, rows[has], is_test[has], *found, "the codes", "shift")
    table = file_properties(manifest, facts, rows)
    found = _told(table, is_test, labels, groups, linear=False)
    what = "the files' own properties (size, format, JPEG tables, EXIF, brightness, border)"
    return findings + _shift(manifest, rows, is_test, *found, what, "file-shift")


def shortcut_findings(manifest: Manifest, facts: Facts, *, seed: int = 0) -> list[Finding]:
    """Say whether the files' own properties alone tell the classes of train."""
    rows = _sample(manifest, facts, TRAIN, np.random.default_rng(seed))
    counts = np.bincount(manifest.labels[rows], minlength=manifest.n_classes)
    kept = np.flatnonzero(counts >= 2 * FOLDS)
    rows = rows[np.isin(manifest.labels[rows], kept)]
    if len(kept) < 2 or len(rows) < 2 * LEAST:
        return []
    table, labels = file_properties(manifest, facts, rows), manifest.labels[rows]
    called = _held_out(table, labels, manifest.groups[rows], linear=False).argmax(axis=1)
    hit = np.unique(labels)[called] == labels
    recalls = np.array([hit[labels == k].mean() for k in kept])
    errors = np.array([hit[labels == k].std() / math.sqrt(np.sum(labels == k)) for k in kept])
    balanced, chance = float(recalls.mean()), 1 / len(kept)
    error = float(np.sqrt((errors**2).sum()) / len(kept))
    way = (balanced - chance) / (1 - chance)
    if way < SHORTCUT or balanced - ERRORS * error <= chance:
        return []
    telling = _telling(table, labels)
    text = (
        f"The files' own properties tell the classes, whatever the images show: balanced accuracy "
        f"{share(balanced)} in cross-validation on {len(rows):,} training images (chance "
        f"{share(chance)}), most of all by {telling}. A network can learn these instead of "
        "what the images show: collect the classes from the same sources, or store all images "
        "alike (format, size, quality)."
    )
    details = {"balanced_accuracy": balanced, "chance": chance, "error": error}
    return [Finding("shortcut", True, text, (), details)]


_NAMES = ("width", "height", "aspect", "bytes per pixel", "file size", "format", "colour mode",
          "bits", "JPEG tables", "JPEG subsampling", "EXIF marks", "resolution mark",
          "mean brightness", "red of the border", "green of the border",
          "blue of the border")  # fmt: skip


def file_properties(
    manifest: Manifest, facts: Facts, rows: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Properties (n, 16) of the files of some rows; text as numbers in the order of its values."""
    known = facts.rows[rows]
    table = np.zeros((len(rows), len(_NAMES)))
    table[:, 0], table[:, 1] = known["width"], known["height"]
    table[:, 2] = known["width"] / np.maximum(1, known["height"])
    table[:, 5] = np.unique(known["format"], return_inverse=True)[1]
    table[:, 6] = np.unique(known["mode"], return_inverse=True)[1]
    table[:, 7] = known["bits"]
    table[:, 12], table[:, 13:] = known["brightness"], known["border"]
    for i, row in enumerate(rows.tolist()):
        path = manifest.root / manifest.paths[row]
        try:
            n_bytes = path.stat().st_size
            with path.open("rb") as stream:
                head = stream.read(_HEAD_BYTES)
            table[i, 4] = n_bytes
            table[i, 3] = n_bytes / max(1, int(known["width"][i]) * int(known["height"][i]))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with Image.open(io.BytesIO(head)) as image:
                    tables = getattr(image, "quantization", None) or {}
                    table[i, 8] = sum(sum(one) for one in tables.values())
                    layers = getattr(image, "layer", None) or []
                    table[i, 9] = sum(one[1] * one[2] for one in layers)
                    table[i, 10] = len(image.info.get("exif", b""))
                    dpi = image.info.get("dpi", (0, 0))
                    table[i, 11] = float(dpi[0] or 0)
        except (OSError, ValueError, TypeError, LookupError, SyntaxError, struct.error):
            continue  # a header that Pillow does not read has no such property
    return np.nan_to_num(table, posinf=0.0, neginf=0.0)


def _sample(
    manifest: Manifest, facts: Facts, side: int, random: np.random.Generator
) -> NDArray[np.int64]:
    """Draw rows of one split that can be read, one per group of equal bytes."""
    rows = np.flatnonzero((manifest.split == side) & facts.readable)
    rows = rows[np.sort(np.unique(manifest.sha256[rows], return_index=True)[1])]
    chosen: NDArray[np.int64] = np.sort(random.permutation(rows)[:MOST])
    return chosen


def _held_out(
    table: NDArray[np.float64],
    target: NDArray[np.integer],
    groups: NDArray[np.int64],
    *,
    linear: bool,
) -> NDArray[np.float64]:
    """Probabilities (n, classes of target) of each image by models that saw none of its group."""
    from sklearn.ensemble import ExtraTreesClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold

    classes = np.unique(target)
    out = np.full((len(table), len(classes)), 1 / len(classes))
    cutter = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes with fewer groups than folds
        for fit, held in cutter.split(table, target, groups):
            if len(np.unique(target[fit])) < 2:
                continue
            model = (
                LogisticRegression(C=10.0, class_weight="balanced", max_iter=200)
                if linear
                else ExtraTreesClassifier(
                    100, min_samples_leaf=3, class_weight="balanced", random_state=0
                )
            )
            model.fit(table[fit], target[fit])
            at = np.searchsorted(classes, model.classes_)
            out[np.ix_(held, at)] = model.predict_proba(table[held])
    return out


def _told(
    table: NDArray[np.float64],
    is_test: NDArray[np.int64],
    labels: NDArray[np.int32],
    groups: NDArray[np.int64],
    *,
    linear: bool,
) -> tuple[float, float, NDArray[np.float64]]:
    """AUROC within classes of telling test from train, its standard error, and the scores (n,)."""
    score = np.full(len(table), 0.5)
    areas, weights, variances = [], [], []
    for k in np.unique(labels):
        rows = np.flatnonzero(labels == k)
        n = np.bincount(is_test[rows], minlength=2)
        if n.min() < 2 * FOLDS:
            continue
        score[rows] = _held_out(table[rows], is_test[rows], groups[rows], linear=linear)[:, 1]
        two = np.stack([1 - score[rows], score[rows]], axis=1)
        area = float(auroc(is_test[rows], two) or 0.5)
        areas.append(area)
        weights.append(len(rows))
        variances.append(_variance(area, int(n[1]), int(n[0])))
    if not areas:
        return 0.5, 1.0, score
    share = np.array(weights) / sum(weights)
    return (
        float(share @ np.array(areas)),
        float(np.sqrt((share**2) @ np.array(variances))),
        score,
    )


def _variance(area: float, n_positive: int, n_negative: int) -> float:
    """Variance of an AUROC (Hanley and McNeil 1982)."""
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    total = area * (1 - area)
    total += (n_positive - 1) * (q1 - area**2) + (n_negative - 1) * (q2 - area**2)
    return max(total, 1e-6) / (n_positive * n_negative)


def _shift(
    manifest: Manifest,
    rows: NDArray[np.int64],
    is_test: NDArray[np.int64],
    area: float,
    error: float,
    score: NDArray[np.float64],
    what: str,
    kind: str,
) -> list[Finding]:
    if area < SHIFT or area - ERRORS * error <= 0.5:
        return []
    tests = np.flatnonzero(is_test == 1)
    most = rows[tests[np.argsort(-score[tests], kind="stable")]]
    paths = tuple(manifest.paths[row] for row in most.tolist()[:50])
    text = (
        f"Train and test differ: within classes, {what} tell them apart with an AUROC of "
        f"{number(area, 2)} (cross-validated; 0.5 if they came from one source), most of all "
        f"{few(list(paths), 3)}. Cross-validation on train and the test figure then answer "
        "different questions; val cut from train is too optimistic about test. Split again from "
        "the pooled images if one source is meant."
    )
    details = {"auroc": area, "error": error}
    return [Finding(kind, True, text, paths, details)]


def _telling(table: NDArray[np.float64], labels: Sequence[int] | NDArray[np.int32]) -> str:
    """Name the two properties that say most of the classes."""
    from sklearn.ensemble import ExtraTreesClassifier

    model = ExtraTreesClassifier(
        100, min_samples_leaf=3, class_weight="balanced", random_state=0
    ).fit(table, labels)
    order = np.argsort(-model.feature_importances_)[:2]
    return " and ".join(_NAMES[i] for i in order.tolist())
