"""The order in which unlabelled images are worth labelling.

With few labels a head knows nothing, and what it is unsure of is noise: typical images of regions
that no label covers come first (TypiClust: Hacohen, Dekel and Weinshall 2022, arXiv 2202.02794).
From `ENOUGH` labels a class on, those that the head is least sure of, spread over the space of
codes so that they are not one image fifty times (margin: Scheffer 2001; spread: Citovsky et al.
2021, arXiv 2107.14263).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ENOUGH = 10  # labels of the rarest class, from which the head is asked
_NEIGHBOURS = 20
_POOL = 10  # times as many images of small margin as are wanted, to spread them
_MOST_CLUSTERS = 500
_SAMPLE = 20_000  # images that take part in clustering, of more


def choose_next(
    codes: NDArray[np.floating],
    labelled: NDArray[np.floating],
    counts: NDArray[np.integer],
    probabilities: NDArray[np.float64] | None,
    count: int,
    *,
    seed: int = 0,
) -> tuple[NDArray[np.int64], str]:
    """Choose images to label.

    Parameters
    ----------
    codes : float (N, D)
        Of the unlabelled images.
    labelled : float (M, D)
        Of the labelled ones.
    counts : integer (K,)
        Labelled images of each class; empty where no class is known.
    probabilities : float64 (N, K) or None
        Of the unlabelled images by a head on the labelled ones; None: there is no head.
    count : int
        How many.
    seed : int
        Of the clustering.

    Returns
    -------
    rows : int64 (n,)
        At most `count` of the unlabelled images, in the order worth labelling.
    how : str
        ``typicality`` or ``margin``.
    """
    if probabilities is None or len(counts) < 2 or counts.min() < ENOUGH:
        return by_typicality(codes, labelled, count, seed=seed), "typicality"
    return by_margin(codes, probabilities, count), "margin"


def by_typicality(
    codes: NDArray[np.floating], labelled: NDArray[np.floating], count: int, *, seed: int = 0
) -> NDArray[np.int64]:
    """Choose the most typical image of each of the largest clusters without a label, (n,).

    Parameters, what is returned: as :func:`choose_next`.
    """
    from sklearn.cluster import KMeans, MiniBatchKMeans

    n = len(codes)
    count = min(count, n)
    if not count:
        return np.empty(0, np.int64)
    random = np.random.default_rng(seed)
    some = np.sort(random.permutation(n)[:_SAMPLE])
    both = np.concatenate([_units(labelled, codes.shape[1])[-_SAMPLE:], _units(codes[some])])
    n_labelled = len(both) - len(some)
    k = min(n_labelled + count, _MOST_CLUSTERS, len(both))
    kind = KMeans if k <= 50 else MiniBatchKMeans
    cluster = kind(k, n_init=1, random_state=seed).fit_predict(both)
    covered = np.bincount(cluster[:n_labelled], minlength=k)
    clusters = cluster[n_labelled:]
    sizes = np.bincount(clusters, minlength=k)
    typical = _typicality(both[n_labelled:], clusters)
    order = np.lexsort((-typical, clusters))
    members = {int(c): order[clusters[order] == c].tolist() for c in np.unique(clusters)}
    taken: list[int] = []
    while len(taken) < min(count, len(some)):
        # Fewest labels first, of these the largest; a cluster that gave one counts as labelled.
        best = min((c for c in members if members[c]), key=lambda c: (covered[c], -sizes[c]))
        taken.append(members[best].pop(0))
        covered[best] += 1
    return some[taken]


def by_margin(
    codes: NDArray[np.floating], probabilities: NDArray[np.float64], count: int
) -> NDArray[np.int64]:
    """Choose images of small margin that are far from one another, (n,); the first the smallest.

    Of the ``10 count`` images of smallest margin between the two most probable classes, each next
    one is the farthest from those chosen, its distance weighted by how unsure the head is.
    """
    n = len(codes)
    count = min(count, n)
    if not count:
        return np.empty(0, np.int64)
    top = np.sort(probabilities, axis=1)[:, -2:]
    margin = top[:, 1] - top[:, 0]
    pool = np.argsort(margin, kind="stable")[: min(n, max(_POOL * count, 1))]
    units = _units(codes[pool])
    unsure = 1.0 - margin[pool]
    distance = np.full(len(pool), 2.0)
    chosen: list[int] = []
    for _ in range(count):
        worth = distance * unsure
        worth[chosen] = -1.0
        one = int(worth.argmax())
        chosen.append(one)
        distance = np.minimum(distance, np.linalg.norm(units - units[one], axis=1))
    return pool[chosen].astype(np.int64)


def _units(codes: NDArray[np.floating], d: int = 0) -> NDArray[np.float32]:
    if not len(codes):
        return np.empty((0, d or codes.shape[-1]), np.float32)
    length = np.linalg.norm(codes, axis=1, keepdims=True)
    return np.asarray(codes / np.maximum(length, 1e-12), np.float32)


def _typicality(units: NDArray[np.float32], clusters: NDArray[np.integer]) -> NDArray[np.float64]:
    """Inverse mean distance (N,) to the nearest images of the same cluster."""
    found = np.zeros(len(units))
    for c in np.unique(clusters).tolist():
        rows = np.flatnonzero(clusters == c)
        k = min(_NEIGHBOURS, len(rows) - 1)
        if k < 1:
            continue
        for start in range(0, len(rows), 1024):
            some = rows[start : start + 1024]
            likeness = units[some] @ units[rows].T
            nearest = -np.partition(-likeness, k, axis=1)[:, : k + 1]  # itself is among them
            distances = np.sqrt(np.maximum(0, 2 - 2 * nearest))
            found[some] = 1.0 / np.maximum(distances.sum(axis=1) / k, 1e-6)
    return found
