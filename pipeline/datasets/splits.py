"""Cut splits by seed: stratified, groups together, and independent of the rows' order.

Each group (images of equal bytes, or of one thing) draws a number from its own key and the seed,
and within a stratum the lowest numbers go to test, the next to val, the rest to train. So a
permuted set gets the permuted split, a few images added or removed leave nearly all others where
they were, and cutting test first and val later ends as cutting both at once.

Groups that hold several classes (patients, modules) cannot be cut class by class: in the order of
their numbers, each is taken to test (then to val) where that brings the classes' shares nearer to
those wanted.

A class with fewer groups than there are sides (all its images are copies of one, say) cannot be
cut. It stays in train, and is named; the set is refused only where most classes are like that.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .phrases import few, plural
from .split_words import TEST, TRAIN, VAL

_MOST_MIXED = 0.02  # share of images in groups of several classes that are cut as of the first
_TOTAL_WEIGHT = 2.0  # of the share of the whole set, against those of classes and strata


def cut(
    labels: NDArray[np.integer[Any]],
    groups: NDArray[Any],
    fractions: tuple[float, float, float],
    seed: int,
    *,
    strata: NDArray[np.integer[Any]] | None = None,
    class_names: Sequence[str] | None = None,
    grouping: str = "",
) -> NDArray[np.int8]:
    """Divide images into train, val and test.

    Parameters
    ----------
    labels : array of shape (N,), int
        Class of each image.
    groups : array of shape (N,), int or bytes
        Equal where images must stay on one side. Give ``Manifest.keys``: numbers that somebody
        counted up make the split depend on that count.
    fractions : tuple of three floats that sum to 1
        Shares of train, val, test; a share of 0 leaves that split empty.
    seed : int
        Same seed, same split.
    strata : array of shape (N,), int, optional
        Further property whose shares are to be kept within each class.
    class_names : sequence of str, optional
    grouping : str
        Where the groups come from; empty where they are copies. For the message too.

    Returns
    -------
    array of shape (N,), int8
        Index into ``SPLITS``. Each class, and each stratum in it, has its share but for rounding
        (and for groups that would have to be cut through); the whole set too. No group is on two
        sides. A class in fewer groups than there are splits to fill is in train (:func:`uncut`).

    Raises
    ------
    DataError
        Half of the classes or more, or all but one, lie in fewer groups than there are splits.
    """
    wanted = [side for side, share in zip((TRAIN, VAL, TEST), fractions, strict=True) if share > 0]
    if abs(sum(fractions) - 1) > 1e-9 or min(fractions) < 0 or TRAIN not in wanted:
        raise ValueError(f"fractions {fractions} must be at least 0, sum to 1 and leave a train")
    unique, group = np.unique(groups, return_inverse=True)  # (G,), (N,)
    sizes = np.bincount(group, minlength=len(unique))  # (G,)
    label = _lowest(labels, group, len(unique))  # (G,) contradicting duplicates: the first class
    stratum = np.zeros_like(label) if strata is None else _lowest(strata, group, len(unique))
    n_classes = int(labels.max(initial=-1)) + 1
    draw = _draw(unique, seed)
    mixed = (label != _highest(labels, group, len(unique))) | (
        False if strata is None else stratum != _highest(strata, group, len(unique))
    )
    if sizes[mixed].sum() > _MOST_MIXED * len(labels):
        sides = _cut_mixed(labels, strata, group, draw, fractions, wanted, class_names, grouping)
        return sides[group]
    counts = np.bincount(label, minlength=n_classes)
    _check_sizes(counts, len(wanted), labels, class_names, grouping)

    order = np.lexsort((np.arange(len(unique)), draw, stratum, label))
    images = np.bincount(label, weights=sizes, minlength=n_classes).astype(np.int64)  # (K,)
    side = np.full(len(unique), TRAIN, dtype=np.int8)
    n_test = _shares(images, fractions[TEST])
    n_val = _shares(images, fractions[VAL])
    starts = np.searchsorted(label[order], np.arange(n_classes + 1))
    for one in range(n_classes):
        members = order[starts[one] : starts[one + 1]]
        if len(members) >= len(wanted):
            side[members] = _cut_class(
                sizes[members], stratum[members], int(n_val[one]), int(n_test[one]), wanted
            )
    return side[group]


def cut_val(
    labels: NDArray[np.integer[Any]],
    split: NDArray[np.int8],
    groups: NDArray[Any],
    seed: int,
    *,
    fraction: float = 0.2,
    strata: NDArray[np.integer[Any]] | None = None,
    class_names: Sequence[str] | None = None,
) -> NDArray[np.int8]:
    """Turn `fraction` of the training images into a val; for who must choose an epoch.

    Parameters are those of :func:`cut`; `split` (N,) is the split so far. One that has a val is
    returned as it is. Test rows never move.

    Raises
    ------
    DataError
        Half of the classes or more, or all but one, have a single training image.
    """
    result = split.copy()
    if np.any(split == VAL):
        return result
    rows = np.flatnonzero(split == TRAIN)
    result[rows] = cut(
        labels[rows],
        groups[rows],
        (1 - fraction, fraction, 0.0),
        seed,
        strata=None if strata is None else strata[rows],
        class_names=class_names,
    )
    return result


def resplit(
    labels: NDArray[np.integer[Any]],
    groups: NDArray[Any],
    test_fraction: float,
    seed: int,
    *,
    strata: NDArray[np.integer[Any]] | None = None,
    class_names: Sequence[str] | None = None,
) -> NDArray[np.int8]:
    """Cut the whole set into train and test: one of R random splits, by seeds seed + r.

    Parameters and errors are those of :func:`cut`.
    """
    fractions = (1 - test_fraction, 0.0, test_fraction)
    return cut(labels, groups, fractions, seed, strata=strata, class_names=class_names)


def uncut(
    labels: NDArray[np.integer[Any]], groups: NDArray[Any], n_sides: int
) -> NDArray[np.int64]:
    """Give the classes, sorted, whose images lie in fewer groups than there are sides."""
    member = np.unique(groups, return_inverse=True)[1].astype(np.int64)
    n_classes = int(labels.max(initial=-1)) + 1
    pairs = np.unique(member * n_classes + labels) if n_classes else member
    counts = np.bincount(pairs % max(1, n_classes), minlength=n_classes)
    there = np.bincount(labels, minlength=n_classes) > 0
    return np.flatnonzero(there & (counts < n_sides)).astype(np.int64)


def _lowest(values: NDArray[Any], group: NDArray[np.intp], n_groups: int) -> NDArray[np.int64]:
    lowest = np.full(n_groups, np.iinfo(np.int64).max)
    np.minimum.at(lowest, group, values.astype(np.int64))
    return lowest


def _highest(values: NDArray[Any], group: NDArray[np.intp], n_groups: int) -> NDArray[np.int64]:
    highest = np.full(n_groups, -1)
    np.maximum.at(highest, group, values.astype(np.int64))
    return highest


def _check_sizes(
    counts: NDArray[np.intp],
    needed: int,
    labels: NDArray[Any],
    class_names: Sequence[str] | None,
    grouping: str,
) -> None:
    images = np.bincount(labels, minlength=len(counts))
    small = np.flatnonzero((counts < needed) & (images > 0))
    n_left = int((images > 0).sum()) - len(small)
    if not len(small) or n_left > max(1, len(small)):  # these stay in train, the others are cut
        return
    names = []
    for one in small.tolist():
        name = class_names[one] if class_names else str(one)
        if images[one] >= needed:
            n = int(counts[one])
            what = plural(n, "group", "groups") if grouping else f"{n} different"
            names.append(f"{name} ({images[one]} images, {what})")
        else:
            names.append(f"{name} ({counts[one]})")
    raise DataError(
        f"Too few different images to split: {few(names)}.",
        expected=f"at least {needed} in every class, one for each of the {needed} splits"
        + (f"; images of one group ({grouping}) stay together" if grouping else ""),
        todo="add images of that class, or remove the class"
        + ("; GROUP=none splits without groups" if grouping else ""),
    )


def _shares(images: NDArray[np.int64], fraction: float) -> NDArray[np.int64]:
    """Images per class (K,): each its share rounded up or down, all their sum's share rounded."""
    ends = np.floor(np.cumsum(images) * fraction + 0.5 + 1e-9).astype(np.int64)
    return np.asarray(np.diff(ends, prepend=0))


def _cut_class(
    sizes: NDArray[np.intp], stratum: NDArray[np.int64], n_val: int, n_test: int, wanted: list[int]
) -> NDArray[np.int8]:
    """Sides (M,) of the groups of one class, which come ordered by stratum and draw."""
    total = int(sizes.sum())
    if VAL in wanted:
        n_val = max(n_val, 1)
    if TEST in wanted:
        n_test = max(n_test, 1)
    side = np.full(len(sizes), TRAIN, dtype=np.int8)
    done = done_test = done_val = 0
    for members in np.split(np.arange(len(sizes)), np.flatnonzero(np.diff(stratum)) + 1):
        done += int(sizes[members].sum())
        # Rounded on the running sum, so that the strata's parts add up to the class's.
        test = (2 * done * n_test + total) // (2 * total) - done_test
        val = (2 * done * n_val + total) // (2 * total) - done_val
        done_test += test
        done_val += val
        middles = np.cumsum(sizes[members]) - sizes[members] / 2
        side[members[middles < test + val]] = VAL
        side[members[middles < test]] = TEST
    if any(not np.any(side == one) for one in wanted):  # tiny classes and large groups
        side[:] = TRAIN
        smallest = np.argsort(sizes, kind="stable")
        for one, member in zip(
            [one for one in (TEST, VAL) if one in wanted], smallest, strict=False
        ):
            side[member] = one
    return side


def _cut_mixed(
    labels: NDArray[np.integer[Any]],
    strata: NDArray[np.integer[Any]] | None,
    group: NDArray[np.intp],
    draw: NDArray[np.uint64],
    fractions: tuple[float, float, float],
    wanted: list[int],
    class_names: Sequence[str] | None,
    grouping: str,
) -> NDArray[np.int8]:
    """Sides (G,) of groups that hold several classes, each taken where it improves the shares."""
    n_classes = int(labels.max(initial=-1)) + 1
    stratum = np.zeros_like(labels) if strata is None else strata
    cells, cell = np.unique(np.stack([labels, stratum]), axis=1, return_inverse=True)
    # Number of images a group and cell: sorted pairs, since most groups have few of the cells.
    pair, n_pair = np.unique(group * cells.shape[1] + cell.reshape(-1), return_counts=True)
    ends = np.searchsorted(pair // cells.shape[1], np.arange(len(draw) + 1))
    content = [(pair[a:b] % cells.shape[1], n_pair[a:b]) for a, b in itertools.pairwise(ends)]
    label_of = cells[0]
    classes = [set(label_of[at].tolist()) for at, _ in content]
    _check_sizes(
        np.bincount([one for of in classes for one in of], minlength=n_classes),
        len(wanted),
        labels,
        class_names,
        grouping,
    )
    images = np.bincount(cell.reshape(-1), minlength=cells.shape[1])  # of each cell
    sizes = np.array([count.sum() for _, count in content])
    order = np.lexsort((np.arange(len(draw)), draw))
    side = np.full(len(draw), TRAIN, dtype=np.int8)
    for one in (TEST, VAL):
        if one not in wanted:
            continue
        aim, total = images * fractions[one], len(labels) * fractions[one]
        have, n_have = np.zeros(len(aim)), 0
        for member in order.tolist():
            if side[member] != TRAIN:
                continue
            at, count = content[member]
            n = int(sizes[member])
            change = np.sum(count * (2 * (have[at] - aim[at]) + count) / aim[at])
            change += _TOTAL_WEIGHT * n * (2 * (n_have - total) + n) / total
            if change < 0:
                side[member] = one
                have[at] += count
                n_have += n
    _fill(side, wanted, classes, sizes, draw, n_classes)
    return side


def _fill(
    side: NDArray[np.int8],
    wanted: list[int],
    classes: list[set[int]],
    sizes: NDArray[np.int64],
    draw: NDArray[np.uint64],
    n_classes: int,
) -> None:
    """Give each side a group of each class, as far as that takes no other side its last."""
    have = np.zeros((3, n_classes), dtype=np.int64)  # groups a side and class
    for member, of in enumerate(classes):
        for one in of:
            have[side[member], one] += 1
    order = np.lexsort((draw, sizes)).tolist()
    for goal in (TRAIN, *(one for one in (TEST, VAL) if one in wanted)):
        for missing in np.flatnonzero(have[goal] == 0).tolist():
            if have[goal, missing]:
                continue
            candidates = [m for m in order if missing in classes[m] and side[m] != goal]
            safe = [m for m in candidates if all(have[side[m], one] > 1 for one in classes[m])]
            if not safe and goal != TRAIN:
                continue
            for member in (safe or candidates)[:1]:
                for one in classes[member]:
                    have[side[member], one] -= 1
                    have[goal, one] += 1
                side[member] = goal


def _draw(unique: NDArray[Any], seed: int) -> NDArray[np.uint64]:
    """Draw a number for each group (G,) from its own value and the seed."""
    if unique.dtype.kind == "S":
        width = -(-unique.dtype.itemsize // 8) * 8
        words = (
            np.ascontiguousarray(unique.astype(f"S{width}")).view("<u8").reshape(len(unique), -1)
        )
    else:
        words = unique.astype("<i8").view("<u8").reshape(-1, 1)
    # Not numpy.random: importing it takes as long as all the rest of an unchanged manifest.
    start = int.from_bytes(hashlib.sha256(f"split {seed}".encode()).digest()[:8], "little")
    state = np.full(len(unique), start, dtype=np.uint64)
    for word in words.T:
        state = _mix(state ^ word)
    return state


def _mix(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64 (Steele, Lea, Flood 2014): every bit of the input moves every bit out."""
    state = state + np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
