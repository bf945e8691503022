"""Near-duplicates across splits, by the cached codes.

Two images are candidates where the cosine of their ``final`` codes, less the mean code of the
data set's training images, is at least `THRESHOLD`. Seen with EfficientNet-Lite0:

- strangers: of 800,000 pairs across the splits of hotdog one is above .783, at .894, and it is
  the same photograph twice; of 37,000 of ants-bees none is above .699;
- 120 of their images against altered copies of themselves, share at .85 or above: mirrored, cut
  or shifted by 5 %, brighter or paler 99 to 100 %; saved as JPEG of quality 60, 94 %; halved in
  size, 65 %; cut by 20 %, 54 %; made grey, 3 %.

So what is found is nearly sure, what was altered much is missed. Where the images are all of one
kind (cells of a solar module, frames of a film) codes cannot tell a copy from a neighbour: on
elpv 71 % of the test images have a training image above .85. `Near.is_series` tells that apart.
Either way the test figure is of images that are almost in train, so what is said is the graver the
larger their share is.

Within test, images that are near-copies of one another are not independent trials: the number of
clusters (connected components of the pairs) is what an interval should count.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..codes.reader import Codes, open_codes
from ..datasets import Manifest
from ..datasets.phrases import few
from ..datasets.split_words import TEST, TRAIN, VAL
from ..errors import PipelineError
from ..memory import recall_values, remember_values
from ..notation import number, share
from ..progress import Progress, silent
from .findings import Finding

THRESHOLD = 0.85
GRAVE_SHARE = 0.5  # of the held-out images; from it on, the figure is of near-copies mostly
WITHIN_SHARE = 0.3  # of the test images with a near-copy in test; from it on, a problem
SERIES_SHARE = 0.1  # of the images searched for; above it, likeness is the set's nature
MOST_PAIRS = 1000  # kept, the most alike
_LAYER = "final"
_QUERIES = 1024  # rows per block
_BLOCK_BYTES = 64_000_000  # of normalised codes a block
_KIND = "near-duplicates 3"


@dataclass(frozen=True)
class Near:
    """Pairs of images of different splits whose codes are nearly the same.

    Attributes
    ----------
    key : str
        Digest of what was searched: images, splits, codes' rows.
    codes : str
        Name of the file of codes.
    n_searched, n_found : int
        Test (and given val) images that were searched for, and those that have a pair.
    n_pairs : int
        All pairs.
    pairs : tuple of (str, str, float, bool)
        The most alike: path, path in the other split, cosine in [-1, 1], whether the labels are
        the same.
    n_test, n_twins, n_clusters : int
        Test images, those with a near-copy in test too, and clusters of near-copies, single
        images counted.
    twins : tuple of (str, str)
        Some such pairs.
    """

    key: str
    codes: str
    n_searched: int
    n_found: int
    n_pairs: int
    pairs: tuple[tuple[str, str, float, bool], ...]
    n_test: int = 0
    n_twins: int = 0
    n_clusters: int = 0
    twins: tuple[tuple[str, str], ...] = ()

    @property
    def share(self) -> float:
        """Share of the images searched for that have a pair, 0 to 1."""
        return self.n_found / max(1, self.n_searched)

    @property
    def is_series(self) -> bool:
        """Whether so many images have a near twin that it is the nature of the set."""
        return self.n_found > max(5, SERIES_SHARE * self.n_searched)


def search_cost(manifest: Manifest, cache: Path) -> float:
    """Multiplications that :func:`find_near` takes; 0 where it need not search or cannot."""
    if _recall(manifest, cache):
        return 0.0
    codes = telling_codes(manifest, cache)
    if codes is None:
        return 0.0
    pairs = sum(len(ours) * len(theirs) for ours, theirs in _sides(manifest))
    pairs += int(np.sum(manifest.split == TEST)) ** 2
    return float(pairs * int(codes[_LAYER].shape[-1]))


def find_near(manifest: Manifest, cache: Path, *, progress: Progress = silent) -> Near | None:
    """Search the data set's cached codes for near-duplicates across splits.

    Byte-identical images are not among them. Works in blocks: memory is bounded whatever the
    number of images. What was found is remembered in ``<cache>/<name>/near.json``.

    Parameters
    ----------
    manifest : Manifest
        The images; those without codes are passed over.
    cache : Path
        The cache folder.
    progress : Progress
        Counts comparisons by image.

    Returns
    -------
    Near or None
        None where the cache has no codes of layer ``final`` of this data set.
    """
    remembered = _recall(manifest, cache)
    if remembered:
        return remembered
    codes = telling_codes(manifest, cache)
    if codes is None:
        return None
    order = np.argsort(codes.sha256, kind="stable")
    at = np.searchsorted(codes.sha256, manifest.sha256, sorter=order)
    at = order[np.minimum(at, len(order) - 1)]
    at[codes.sha256[at] != manifest.sha256] = -1  # (N,) row of the codes, or none
    train = np.unique(at[(manifest.split == TRAIN) & (at >= 0)])
    mean = mean_code(codes, train)  # (D,)
    sides = [(ours[at[ours] >= 0], theirs[at[theirs] >= 0]) for ours, theirs in _sides(manifest)]
    found: set[int] = set()
    n_pairs = 0
    best = np.empty((0, 3))  # row, other row, similarity
    with progress("near-duplicates", sum(len(ours) for ours, _ in sides), "images") as meter:
        for ours, theirs in sides:
            for queries in _blocks(ours, _QUERIES):
                unit = unit_codes(codes, at[queries], mean)  # (q, D)
                step = max(256, _BLOCK_BYTES // (4 * unit.shape[1]))
                for others in _blocks(theirs, step):
                    likeness = unit @ unit_codes(codes, at[others], mean).T  # (q, r)
                    i, j = np.nonzero(likeness >= THRESHOLD)
                    hits = np.stack([queries[i], others[j], likeness[i, j]], axis=1)
                    hits = hits[manifest.copies[queries[i]] != manifest.copies[others[j]]]
                    n_pairs += len(hits)
                    found.update(hits[:, 0].astype(int).tolist())
                    best = np.concatenate([best, hits])
                    if len(best) > 4 * MOST_PAIRS:
                        best = best[np.argsort(-best[:, 2], kind="stable")[:MOST_PAIRS]]
                meter.advance(len(queries))
    best = best[np.lexsort((best[:, 1], best[:, 0], -best[:, 2]))[:MOST_PAIRS]]
    test = sides[0][0]
    cluster, twins = _clusters(codes, at, test, mean)
    sizes = np.bincount(cluster)
    near = Near(
        n_test=len(test),
        n_twins=int(sizes[sizes > 1].sum()),
        n_clusters=len(sizes),
        twins=tuple((manifest.paths[a], manifest.paths[b]) for a, b in twins),
        key=_key(manifest),
        codes=codes.path.name,
        n_searched=sum(len(ours) for ours, _ in sides),
        n_found=len(found),
        n_pairs=n_pairs,
        pairs=tuple(
            (
                manifest.paths[int(a)],
                manifest.paths[int(b)],
                round(float(similarity), 4),
                bool(manifest.labels[int(a)] == manifest.labels[int(b)]),
            )
            for a, b, similarity in best.tolist()
        ),
    )
    lacking = manifest.sha256[at < 0]
    if np.isin(lacking, np.array(list(codes.rejects), "S64")).all():
        _remember(manifest, cache, near)  # otherwise more will be known once the codes are there
    return near


def _clusters(
    codes: Codes, at: NDArray[np.int64], rows: NDArray[np.intp], mean: NDArray[np.float32]
) -> tuple[NDArray[np.int64], list[tuple[int, int]]]:
    """Join the rows whose codes are nearly the same; number the clusters, and give some pairs."""
    first, second = [], []
    for ours in _blocks(np.arange(len(rows)), _QUERIES):
        unit = unit_codes(codes, at[rows[ours]], mean)
        for theirs in _blocks(np.arange(len(rows)), _QUERIES):
            if theirs[0] < ours[0]:
                continue
            i, j = np.nonzero(unit @ unit_codes(codes, at[rows[theirs]], mean).T >= THRESHOLD)
            keep = theirs[j] > ours[i]
            first.append(ours[i][keep])
            second.append(theirs[j][keep])
    a, b = (np.concatenate([np.empty(0, np.int64), *some]) for some in (first, second))
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    graph = coo_matrix((np.ones(len(a), bool), (a, b)), shape=(len(rows), len(rows)))
    _, cluster = connected_components(graph, directed=False)
    pairs = zip(rows[a[:5]].tolist(), rows[b[:5]].tolist(), strict=True)
    return cluster.astype(np.int64), list(pairs)


def within_finding(near: Near, grouping: str = "") -> Finding | None:
    """Say how many test images are near-copies of one another; None where none is."""
    if near.n_twins < 2 or near.n_twins <= 0.01 * near.n_test:
        return None
    grave = near.n_twins >= WITHIN_SHARE * near.n_test and not grouping
    shown = few([f"{a} ~ {b}" for a, b in near.twins], 2)
    how = (
        f"Intervals and tests count groups ({grouping})."
        if grouping
        else "Intervals and tests count each image as a trial of its own and are too narrow: add "
        "GROUP (a column, a pattern on the path, or auto), which keeps near-copies together."
    )
    text = (
        f"{near.n_twins:,} of {near.n_test:,} test images are nearly the same as another test "
        f"image, by their codes: the test split holds about {near.n_clusters:,} different images "
        f"({shown}). {how}"
    )
    return Finding("near-copies-in-test", grave, text, (), {"n_clusters": near.n_clusters})


def near_finding(near: Near, grouping: str = "") -> Finding | None:
    """Say what was found; None where nothing was. `grouping` is that of the manifest."""
    if not near.n_found:
        return None
    pairs = near.pairs[:5]
    shown = few([f"{a} ~ {b} ({number(s, 2)})" for a, b, s, _ in pairs], 3 if near.is_series else 5)
    of = f"{near.n_found:,} of {near.n_searched:,} held-out images ({share(near.share, 0)})"
    if near.is_series:
        meaning = (
            f"Groups ({grouping}) are kept on one side of every split; what is alike beyond them "
            "is not."
            if grouping
            else "If these are images of one thing, the test figure is likely to be too high: keep "
            "them together with GROUP (a column, a pattern on the path, or auto)."
        )
        grave = near.share >= GRAVE_SHARE
        head = "Most of the test split is almost in train" if grave else "The images are much alike"
        if grave and not grouping:
            meaning = (
                "The test figure says how well near-copies of training images are recognised, and "
                f"nothing of new ones. {meaning}"
            )
        text = (
            f"{head}: {of} have a training image whose code is nearly theirs, "
            f"most of all {shown}. {meaning}"
        )
    else:
        other = sum(not same for *_, same in near.pairs)
        labels = f" ({other:,} of the pairs with different labels)" if other else ""
        text = (
            f"{of} {'is' if near.n_found == 1 else 'are'} nearly the same as a training image, by "
            f"their codes{labels}: {shown}; such pairs make the test figure too high: "
            "remove what is a copy."
        )
    details = {
        "codes": near.codes,
        "threshold": THRESHOLD,
        "n_pairs": near.n_pairs,
        "pairs": [
            {"path": a, "like": b, "similarity": s, "same_label": same}
            for a, b, s, same in near.pairs
        ],
    }
    paths = tuple(dict.fromkeys(path for a, b, *_ in near.pairs for path in (a, b)))
    return Finding("near-duplicates", not (near.is_series and grouping), text, paths, details)


def _sides(manifest: Manifest) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Rows that are searched for, and those they are searched among; one row per image."""
    groups = manifest.copies

    def rows(mask: NDArray[np.bool_]) -> NDArray[np.intp]:
        chosen = np.flatnonzero(mask)
        return chosen[np.sort(np.unique(groups[chosen], return_index=True)[1])]

    sides = [(rows(manifest.split == TEST), rows(manifest.split != TEST))]
    if manifest.val_from == "data":
        sides.append((rows(manifest.split == VAL), rows(manifest.split == TRAIN)))
    return sides


def telling_codes(manifest: Manifest, cache: Path) -> Codes | None:
    """Open the most telling codes: of most images, of one upright view where there are."""
    ranked = []
    for path in sorted((cache / manifest.name).glob("*.h5")):
        try:
            codes = open_codes(path)
        except PipelineError:
            continue  # `make verify` speaks of it
        config = codes.config
        if _LAYER not in codes.layers or codes[_LAYER].ndim not in (2, 3) or not len(codes):
            continue
        if str(config["weights"]).startswith("random start"):
            continue  # what such a network finds alike says little
        views = ["center", "flip", "dihedral"]
        kind = str(config["views"][0])
        rank = (
            -int(np.isin(manifest.sha256, codes.sha256).sum()),
            config["pool"] != "mean",
            views.index(kind) if kind in views else len(views),
            len(codes.layers),
            path.name,
        )
        ranked.append((rank, codes))
    return min(ranked, key=lambda one: one[0])[1] if ranked else None


def _block(codes: Codes, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Codes of some rows (n, D): of the upright view, or the mean of random ones."""
    layer = codes[_LAYER]
    if layer.ndim == 2:
        return np.asarray(layer[rows], np.float32)
    if codes.config["views"][0] == "random":
        return np.asarray(layer[rows].mean(axis=1, dtype=np.float32), np.float32)
    return np.asarray(layer[rows, 0], np.float32)


def mean_code(codes: Codes, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Mean code (D,) of some rows."""
    total = np.zeros(codes[_LAYER].shape[-1])
    for some in _blocks(rows, max(256, _BLOCK_BYTES // (4 * len(total)))):
        total += _block(codes, some).sum(axis=0, dtype=np.float64)
    return (total / max(1, len(rows))).astype(np.float32)


def unit_codes(
    codes: Codes, rows: NDArray[np.int64], mean: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Give the codes (n, D) of some rows less the mean, at length 1: their products are cosines."""
    centred = _block(codes, rows) - mean
    norm = np.linalg.norm(centred, axis=1, keepdims=True)
    centred /= np.maximum(norm, np.finfo(np.float32).tiny)
    return np.asarray(centred, np.float32)


def _blocks(rows: NDArray[Any], step: int) -> Iterator[NDArray[Any]]:
    for start in range(0, len(rows), step):
        yield rows[start : start + step]


def _key(manifest: Manifest) -> str:
    digest = hashlib.sha256(f"{THRESHOLD} {manifest.val_from}".encode())
    digest.update("\0".join(manifest.paths).encode())
    for column in (manifest.sha256, manifest.split, manifest.labels):
        digest.update(np.ascontiguousarray(column).tobytes())
    return digest.hexdigest()


def _recall(manifest: Manifest, cache: Path) -> Near | None:
    saved = recall_values(cache / manifest.name / "near.json", _KIND)
    if saved is None or saved["key"] != _key(manifest):
        return None
    tuples = {key: tuple(map(tuple, saved[key])) for key in ("pairs", "twins")}
    return Near(**{**saved, **tuples})


def _remember(manifest: Manifest, cache: Path, near: Near) -> None:
    remember_values(cache / manifest.name / "near.json", _KIND, asdict(near))
