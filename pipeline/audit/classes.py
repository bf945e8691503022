"""What copies, classes and splits give cause to say; from the manifest alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .. import notation
from ..datasets import SPLITS, Manifest
from ..datasets.listing import Remark
from ..datasets.phrases import few, plural
from ..datasets.split_words import TEST, TRAIN, VAL
from .findings import Finding

TINY_CLASS = 10  # images; with fewer, one image more or less moves a recall by over ten points
# On ten sets of 1:10 to 1:60 it raised balanced accuracy on all: benchmarks/skew.md
WEIGH_CLASSES = ", which CLASS_WEIGHT=balanced raises at some cost in accuracy"
IMBALANCE = 10  # times as many training images in the largest class as in the smallest
SHIFT = 0.1  # share of images that would have to change class for two splits to agree

_WEIGH = (
    "they weigh more than others in training (cross-validation keeps copies in one fold)",
    "they count more than once where settings are chosen",
    "they count more than once in the test figure",
)


def followed(warnings: Sequence[str], class_weight: str) -> tuple[str, ...]:
    """Give the warnings without the advice to weight classes, where that is done already."""
    if class_weight != "balanced":
        return tuple(warnings)
    return tuple(
        Remark(one.replace(WEIGH_CLASSES, ""), getattr(one, "kind", "")) for one in warnings
    )


def copy_findings(manifest: Manifest) -> list[Finding]:
    """Say which images are byte-identical: within a split, across splits, across classes."""
    found = [
        _leaks(manifest),
        _val_leaks(manifest),
        _contradictions(manifest),
        *(_within(manifest, split) for split in range(len(SPLITS))),
    ]
    return [finding for finding in found if finding]


def class_findings(manifest: Manifest) -> list[Finding]:
    """Say which classes are absent, tiny or far larger than others, and where splits differ."""
    counts = np.zeros((len(SPLITS), manifest.n_classes), dtype=np.int64)
    np.add.at(counts, (manifest.split, manifest.labels), 1)
    found = [_absent(manifest, counts), _tiny(manifest, counts), _imbalance(manifest, counts)]
    found += [_shifted(manifest, counts, split) for split in (VAL, TEST)]
    return [finding for finding in found if finding]


def _pairs(
    manifest: Manifest,
    rows: NDArray[np.intp],
    others: NDArray[np.intp],
    same: NDArray[np.int64] | None = None,
) -> list[tuple[str, str]]:
    """Pair each of `rows` with the first of `others` of the same bytes (or of the same `same`)."""
    same = manifest.copies if same is None else same
    first: dict[int, int] = {}
    for row in others.tolist():
        first.setdefault(int(same[row]), row)
    return [(manifest.paths[row], manifest.paths[first[int(same[row])]]) for row in rows.tolist()]


def _finding(
    kind: str, is_problem: bool, head: str, pairs: Sequence[tuple[str, ...]], meaning: str
) -> Finding:
    shown = few([" = ".join(pair) for pair in pairs], 3)
    return Finding(
        kind,
        is_problem,
        f"{head}: {shown}; {meaning}.",
        tuple(dict.fromkeys(path for pair in pairs for path in pair)),
        {"pairs": [list(pair) for pair in pairs]},
    )


def _leaks(manifest: Manifest) -> Finding | None:
    rows = np.flatnonzero(manifest.leaks)
    if not len(rows):
        return None
    others = np.flatnonzero(manifest.split != TEST)
    n_test = int(np.sum(manifest.split == TEST))
    if np.all(np.isin(manifest.copies[rows], manifest.copies[others])):
        pairs = _pairs(manifest, rows, others)
        are = "is byte-identical to one" if len(rows) == 1 else "are byte-identical to ones"
    else:
        pairs = _pairs(manifest, rows, others, manifest.groups)
        are = "shares" if len(rows) == 1 else "share"
        are += f" bytes or a group ({manifest.grouping}) with images"
    return _finding(
        "leaks",
        True,
        f"{len(rows):,} of {n_test:,} test images {are} of train or val (leaks)",
        pairs,
        "left out of the test figure unless LEAKS=keep",
    )


def _val_leaks(manifest: Manifest) -> Finding | None:
    if manifest.val_from != "data":
        return None
    train = np.flatnonzero(manifest.split == TRAIN)
    val = np.flatnonzero(manifest.split == VAL)
    rows = val[np.isin(manifest.copies[val], manifest.copies[train])]
    if not len(rows):
        return None
    return _finding(
        "val-leaks",
        True,
        f"{plural(len(rows), 'val image is', 'val images are')} byte-identical to train images",
        _pairs(manifest, rows, train),
        "what is chosen on val is chosen in part on training images",
    )


def _contradictions(manifest: Manifest) -> Finding | None:
    groups = [tuple(manifest.paths[row] for row in rows) for rows in manifest.contradictions]
    if not groups:
        return None
    return _finding(
        "contradictions",
        True,
        f"{plural(len(groups), 'image has', 'images have')} copies in several classes",
        groups,
        "no classifier can be right about all copies: correct the labels, or remove them",
    )


def _within(manifest: Manifest, split: int) -> Finding | None:
    rows = np.flatnonzero(manifest.split == split)
    _, first = np.unique(manifest.copies[rows], return_index=True)
    copies = np.delete(rows, first)
    if not len(copies):
        return None
    name = SPLITS[split]
    return _finding(
        f"copies-in-{name}",
        False,
        f"{plural(len(copies), f'{name} image is a byte-identical copy', f'{name} images are byte-identical copies')} of another there",  # noqa: E501
        _pairs(manifest, copies, rows[np.sort(first)]),
        _WEIGH[split],
    )


def _named(manifest: Manifest, counts: NDArray[np.int64], classes: Sequence[int]) -> str:
    return few([f"{manifest.class_names[k]!r} ({counts[k]:,})" for k in classes])


def _absent(manifest: Manifest, counts: NDArray[np.int64]) -> Finding | None:
    parts = []
    for split in (TRAIN, VAL, TEST):
        lost = [manifest.class_names[k] for k in np.flatnonzero(counts[split] == 0).tolist()]
        if lost and counts[split].any():
            parts.append(f"{SPLITS[split]} lacks {few([repr(name) for name in lost])}")
    if not parts:
        return None
    text = f"Classes without images: {'; '.join(parts)}; no figure there says anything of them."
    return Finding("absent-class", True, text)


def _tiny(manifest: Manifest, counts: NDArray[np.int64]) -> Finding | None:
    parts, details = [], {}
    for split, meaning in (
        (TRAIN, "too few to learn from, or to choose settings on"),
        (TEST, "their recall moves by over ten points with each image"),
    ):
        here = counts[split]
        small = np.flatnonzero((here > 0) & (here < TINY_CLASS)).tolist()
        if small:
            parts.append(f"in {SPLITS[split]} {_named(manifest, here, small)}: {meaning}")
            details[SPLITS[split]] = {manifest.class_names[k]: int(here[k]) for k in small}
    if not parts:
        return None
    text = f"Classes with fewer than {TINY_CLASS} images: {'; '.join(parts)}."
    return Finding("tiny-class", True, text, (), details)


def _imbalance(manifest: Manifest, counts: NDArray[np.int64]) -> Finding | None:
    train = counts[TRAIN]
    large, small = int(train.argmax()), int(train.argmin())
    if train[large] < IMBALANCE * max(1, int(train[small])):
        return None
    share = train[large] / train.sum()
    text = (
        f"Strong class imbalance in train: {_named(manifest, train, [large, small])}; accuracy "
        f"favours large classes (always saying {manifest.class_names[large]!r} is right for "
        f"{notation.share(share, 0)}): look at balanced accuracy, the mean recall of the classes"
        f"{WEIGH_CLASSES}."
    )
    details = {name: int(n) for name, n in zip(manifest.class_names, train, strict=True)}
    return Finding("imbalance", True, text, (), details)


def _shifted(manifest: Manifest, counts: NDArray[np.int64], split: int) -> Finding | None:
    """Compare class shares with train's; differences within chance (chi-squared) are none."""
    here, train = counts[split].astype(float), counts[TRAIN].astype(float)
    if not here.any() or not train.any():
        return None
    both = np.stack([here, train])[:, (here + train) > 0]  # (2, K)
    expected = both.sum(1, keepdims=True) * both.sum(0) / both.sum()
    chi2 = float(((both - expected) ** 2 / expected).sum())
    freedom = both.shape[1] - 1
    moved = float(np.abs(here / here.sum() - train / train.sum()).sum() / 2)
    if moved < SHIFT or chi2 < freedom + 4 * np.sqrt(2 * freedom):  # four standard deviations
        return None
    shares = np.stack([here / here.sum(), train / train.sum()])
    most = np.argsort(-np.abs(shares[0] - shares[1]), kind="stable")[:3].tolist()
    shown = ", ".join(
        f"{manifest.class_names[k]!r} {notation.share(shares[1][k], 0)} of train, "
        f"{notation.share(shares[0][k], 0)} here"
        for k in most
    )
    text = (
        f"The classes of {SPLITS[split]} are mixed otherwise than those of train: {shown}; "
        "probabilities and accuracy depend on the mix, so look at the figures by class."
    )
    return Finding(f"mix-of-{SPLITS[split]}", False, text)
