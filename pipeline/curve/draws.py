"""Draws of few labelled images per class from the training images, each within the next larger.

A draw puts the different images of each class in an order; its first n are the draw of size n.
So a larger size only adds images, and two sizes of a draw differ by nothing else. Images of equal
bytes count once and come along together: a copy is no further label. With GROUP whole groups come
one after the other: who labels n images labels those of few patients, not one of each. The order
keeps the shares of the strata in every beginning of it, and depends on bytes and seed, not on the
order of rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, SettingsError

SERIES = (1, 2, 5)  # times powers of ten
SMALLEST = 5
APART = 1.2  # the last size of the series lies at least so far below all images


@dataclass(frozen=True, eq=False)
class Pool:
    """The different images that can be drawn, G of them, each with all its rows.

    Attributes
    ----------
    rows : int64 (N,)
        Training rows of the codes, byte-identical ones included.
    group : int64 (N,)
        Which of the different images each row is, 0 to G - 1, ordered by digest.
    sha256 : S64 (G,)
        Digests.
    labels : int32 (G,)
        Their classes; of copies that lie in several, the first.
    strata : int32 (G,)
        What draws are stratified by besides the class.
    things : int64 (G,)
        Equal for images of one group; of its own for each where there are no groups.
    """

    rows: NDArray[np.int64]
    group: NDArray[np.int64]
    sha256: NDArray[np.bytes_]
    labels: NDArray[np.int32]
    strata: NDArray[np.int32]
    things: NDArray[np.int64]

    def counts(self, n_classes: int) -> NDArray[np.int64]:
        """Different images per class (K,)."""
        return np.bincount(self.labels, minlength=n_classes).astype(np.int64)


@dataclass(frozen=True, eq=False)
class Draw:
    """One draw: all sizes of it.

    Attributes
    ----------
    number : int
        From 0.
    place : int64 (G,)
        Place of each different image in the order of its class, from 0.
    """

    number: int
    place: NDArray[np.int64]

    def rows(self, pool: Pool, size: int) -> NDArray[np.int64]:
        """Rows (n,) of the first `size` different images of each class, in increasing order."""
        rows: NDArray[np.int64] = pool.rows[(self.place < size)[pool.group]]
        return rows


def pool_of(
    rows: NDArray[np.int64],
    sha256: NDArray[np.bytes_],
    labels: NDArray[np.int32],
    strata: NDArray[np.int32] | None,
    things: NDArray[np.int64],
) -> Pool:
    """Gather the different images among `rows` (N,) of columns of all M rows.

    Parameters
    ----------
    rows : int64 (N,)
        Which rows may be drawn.
    sha256, labels, strata, things : (M,)
        Of all rows; `things` are the groups of the manifest, equal for equal bytes.
    """
    unique, first, group = np.unique(sha256[rows], return_index=True, return_inverse=True)
    n_groups = len(unique)
    return Pool(
        rows=rows,
        group=group.astype(np.int64),
        sha256=unique,
        labels=_lowest(labels[rows], group, n_groups),
        strata=np.zeros(n_groups, np.int32)
        if strata is None
        else _lowest(strata[rows], group, n_groups),
        things=things[rows][first],
    )


def _lowest(values: NDArray[np.int32], group: NDArray[np.intp], n_groups: int) -> NDArray[np.int32]:
    lowest = np.full(n_groups, np.iinfo(np.int32).max, np.int32)
    np.minimum.at(lowest, group, values)
    return lowest


def drawn(pool: Pool, number: int, *, seed: int) -> Draw:
    """Make draw `number`: an order of the different images of each class."""
    text = f"draw {number} {seed} ".encode()
    chance = np.array(
        [
            int.from_bytes(hashlib.sha256(text + digest).digest()[:8], "little")
            for digest in pool.sha256.tolist()
        ],
        np.uint64,
    )
    _, thing = np.unique(pool.things, return_inverse=True)
    turn = np.full(len(thing), np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(turn, thing, chance)
    turn = turn[thing]  # (G,): when an image's group comes
    place = np.empty(len(chance), np.int64)
    for k in np.unique(pool.labels):
        members = np.flatnonzero(pool.labels == k)
        due = np.empty(len(members))
        for stratum in np.unique(pool.strata[members]):
            inside = np.flatnonzero(pool.strata[members] == stratum)
            some = members[inside]
            # Each stratum's images spread evenly over the class; where by chance, once a stratum.
            start = int(chance[some].min()) / 2**64
            due[inside[np.lexsort((chance[some], turn[some]))]] = (
                np.arange(len(some)) + start
            ) / len(some)
        place[members[np.lexsort((chance[members], due))]] = np.arange(len(members))
    return Draw(number, place)


def sizes_of(asked: Sequence[str], counts: NDArray[np.int64], names: Sequence[str]) -> list[int]:
    """Turn the setting SIZES into images per class, increasing.

    Parameters
    ----------
    asked : sequence of str
        Counts, ``all``, or ``auto``: 5, 10, 20, 50, ... and all.
    counts : int64 (K,)
        Different training images per class.
    names : sequence of str
        Class names.

    Returns
    -------
    list of int
        The last may be the size of the largest class, by which all images are meant. A size
        above that is that one.

    Raises
    ------
    SettingsError
        Not counts; below 2, from which nothing could be chosen by cross-validation.
    DataError
        A class has fewer than 2 different images.
    """
    fewest, most = int(counts.min()), int(counts.max())
    if fewest < 2:
        name = names[int(counts.argmin())]
        raise DataError(
            f"The class {name} has {fewest or 'no'} different training image"
            f"{'' if fewest == 1 else 's'}.",
            expected="at least 2 per class, and many more for a learning curve",
            todo="add images of it, or leave the class out",
        )
    sizes = set()
    for one in asked:
        if one == "auto":
            series = [s * 10**e for e in range(7) for s in SERIES]
            sizes |= {s for s in series if SMALLEST <= s and s * APART <= most} | {most}
        elif one == "all":
            sizes.add(most)
        elif one.isdigit() and int(one) >= 2:
            sizes.add(min(int(one), most))
        else:
            raise SettingsError(
                f"SIZES={one}.", expected="images per class, each at least 2, or 'auto' or 'all'"
            )
    if not sizes:
        raise SettingsError("SIZES is empty.", expected="images per class, or 'auto'")
    return sorted(sizes)
