"""Cut splits by seed: stratified, duplicates together, and independent of the rows' order.

Each group of byte-identical images draws a number from its own bytes and the seed, and within a
stratum the lowest numbers go to test, the next to val, the rest to train. So a permuted set gets
the permuted split, a few images added or removed leave nearly all others where they were, and
cutting test first and val later ends as cutting both at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .listing import TEST, TRAIN, VAL, few

__all__ = ["cut", "cut_val", "resplit"]


def cut(
    labels: NDArray[np.integer[Any]],
    groups: NDArray[Any],
    fractions: tuple[float, float, float],
    seed: int,
    *,
    strata: NDArray[np.integer[Any]] | None = None,
    class_names: Sequence[str] | None = None,
) -> NDArray[np.int8]:
    """Divide images into train, val and test.

    Parameters
    ----------
    labels : array of shape (N,), int
        Class of each image.
    groups : array of shape (N,), int or bytes
        Equal where images must stay on one side. Give the SHA-256 of the images' bytes: numbers
        counted up by somebody else make the split depend on that count.
    fractions : tuple of three floats that sum to 1
        Shares of train, val, test; a share of 0 leaves that split empty.
    seed : int
        Same seed, same split.
    strata : array of shape (N,), int, optional
        Further property whose shares are to be kept within each class.
    class_names : sequence of str, optional
        For the message.

    Returns
    -------
    array of shape (N,), int8
        Index into ``SPLITS``. Each class, and each stratum in it, has its share but for rounding
        (and for groups that would have to be cut through); the whole set too.

    Raises
    ------
    DataError
        A class has fewer different images than there are splits to fill.
    """
    wanted = [side for side, share in zip((TRAIN, VAL, TEST), fractions, strict=True) if share > 0]
    if abs(sum(fractions) - 1) > 1e-9 or min(fractions) < 0 or TRAIN not in wanted:
        raise ValueError(f"fractions {fractions} must be at least 0, sum to 1 and leave a train")
    unique, group = np.unique(groups, return_inverse=True)  # (G,), (N,)
    sizes = np.bincount(group, minlength=len(unique))  # (G,)
    label = _lowest(labels, group, len(unique))  # (G,) contradicting duplicates: the first class
    stratum = np.zeros_like(label) if strata is None else _lowest(strata, group, len(unique))
    n_classes = int(labels.max(initial=-1)) + 1
    _check_sizes(np.bincount(label, minlength=n_classes), len(wanted), labels, class_names)

    order = np.lexsort((np.arange(len(unique)), _draw(unique, seed), stratum, label))
    images = np.bincount(label, weights=sizes, minlength=n_classes).astype(np.int64)  # (K,)
    side = np.full(len(unique), TRAIN, dtype=np.int8)
    n_test = _shares(images, fractions[TEST])
    n_val = _shares(images, fractions[VAL])
    starts = np.searchsorted(label[order], np.arange(n_classes + 1))
    for one in range(n_classes):
        members = order[starts[one] : starts[one + 1]]
        if len(members):
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
        A class has a single training image.
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
    """Cut the whole set anew into train and test: one of R random splits, by seeds seed + r.

    Parameters and errors are those of :func:`cut`.
    """
    fractions = (1 - test_fraction, 0.0, test_fraction)
    return cut(labels, groups, fractions, seed, strata=strata, class_names=class_names)


def _lowest(values: NDArray[Any], group: NDArray[np.intp], n_groups: int) -> NDArray[np.int64]:
    lowest = np.full(n_groups, np.iinfo(np.int64).max)
    np.minimum.at(lowest, group, values.astype(np.int64))
    return lowest


def _check_sizes(
    counts: NDArray[np.intp],
    needed: int,
    labels: NDArray[Any],
    class_names: Sequence[str] | None,
) -> None:
    small = np.flatnonzero((counts < needed) & (np.bincount(labels, minlength=len(counts)) > 0))
    if len(small):
        names = [
            f"{class_names[one] if class_names else one!s} ({counts[one]})"
            for one in small.tolist()
        ]
        raise DataError(
            f"Too few different images to be split: {few(names)}.",
            expected=f"at least {needed} in every class, one for each of the {needed} splits",
            todo="add images of that class, or take the class out",
        )


def _shares(images: NDArray[np.int64], fraction: float) -> NDArray[np.int64]:
    """Images a class (K,): each its share rounded up or down, all their sum's share rounded."""
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
