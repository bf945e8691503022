"""The codes in two dimensions: which images lie together.

Principal components always; in addition UMAP where ``umap-learn`` is installed, else t-SNE. A
picture of neighbourhoods, not a measurement: distances between far groups mean little in UMAP
and t-SNE.
"""

from __future__ import annotations

import importlib.util
import warnings as python_warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..codes.reader import Codes
from ..context import Context
from ..datasets import SPLITS
from ..notation import share
from ..settings import MapSettings
from .record import Request

VERSION = 1
TEST = SPLITS.index("test")
COMPONENTS = 50  # what t-SNE and UMAP start from: less noise, and an eighth of the time
DIGITS = 3
PERPLEXITY = 30.0
ITERATIONS = 500  # 1,000 keep no more neighbours (10 nearest, hotdog: .934 and .935 of them)
NEIGHBOURS = 15


def map_codes(context: Context, codes: Codes, settings: MapSettings) -> dict[str, Any]:
    """Place the images in two dimensions by the codes of the last layer, or take what is there.

    Parameters
    ----------
    context : Context
        The images; its seed cuts the folds or draws the sample.
    codes : Codes
        Current for the images.
    settings : MapSettings
        How many images at most.

    Returns
    -------
    dict
        ``layer`` (of several networks, the last of each); ``images``, each with ``path``,
        ``split``, ``label`` (index into ``class_names``); ``projections``: ``pca`` with ``xy``
        ([x, y] an image) and ``explained`` (share of the variance of the standardised codes on
        each axis), and ``umap`` or ``tsne`` with ``xy``; ``n_images``, ``n_shown``; ``reused``
        where it was there. Of each pair of axes the second projection is the one for reading
        neighbourhoods.
    """
    second = "umap" if importlib.util.find_spec("umap") else "tsne"
    request = Request("map", VERSION, context, codes, settings, extra=second)
    known = request.known()
    if known is not None:
        return known
    rows, last = request.rows, [layers[-1] for layers in codes.networks.values()]
    shown = _shown(rows.split, rows.labels, settings.shown, context.seed)
    z = _standardised(codes.matrix(last)[shown].mean(axis=1, dtype=np.float64))  # (n, D)
    with context.progress("map", 2, "projections") as meter:
        components, explained = _principal(z, COMPONENTS)
        meter.advance()
        xy = (_umap if second == "umap" else _tsne)(components, context.seed)
        meter.advance()
    projections = {
        "pca": {"xy": _rounded(components[:, :2]), "explained": explained[:2].tolist()},
        second: {"xy": _rounded(xy)},
    }
    layer = ", ".join(last)
    body = {
        "layer": layer,
        "n_images": len(rows.labels),
        "n_shown": len(shown),
        "projections": projections,
        "images": [
            {
                "path": rows.paths[row],
                "split": SPLITS[rows.split[row]],
                "label": int(rows.labels[row]),
            }
            for row in shown.tolist()
        ],
        "warnings": [],
        "sentences": [
            f"{len(shown):,} of {len(rows.labels):,} images by their codes of {layer}: the first "
            f"two principal components explain {share(float(explained[:2].sum()), 0)} of the "
            "variance; "
            f"{'UMAP' if second == 'umap' else 't-SNE'} shows who is whose neighbour, not how far "
            "groups are apart."
        ],
    }
    return request.write(body)


def stratified(labels: NDArray[np.integer], n: int, seed: int) -> NDArray[np.int64]:
    """Draw `n` of the images, every class by its share: their positions, increasing.

    Parameters
    ----------
    labels : integer (N,)
    n : int
        With at least N, all are drawn.
    seed : int
    """
    if n >= len(labels):
        return np.arange(len(labels))
    order = np.random.default_rng(seed).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]  # shuffled within each class
    counts = np.bincount(labels)
    quota = counts * n / len(labels)
    take = np.floor(quota).astype(np.int64)
    take[np.argsort(take - quota, kind="stable")[: n - take.sum()]] += 1  # largest remainders
    begins = np.repeat(np.cumsum(counts) - counts, counts)
    drawn: NDArray[np.int64] = np.sort(order[np.arange(len(labels)) - begins < take[labels[order]]])
    return drawn


def _shown(
    split: NDArray[np.int8], labels: NDArray[np.int32], most: int, seed: int
) -> NDArray[np.int64]:
    """Rows to show: those of test first, then a sample of the others, `most` in all."""
    test, others = np.flatnonzero(split == TEST), np.flatnonzero(split != TEST)
    test = test[stratified(labels[test], most, seed)]
    others = others[stratified(labels[others], most - len(test), seed)]
    return np.concatenate([test, others])


def _standardised(codes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bring every number to mean 0 and variance 1, as the heads do; constant ones to 0."""
    scale = codes.std(axis=0)
    z: NDArray[np.float64] = (codes - codes.mean(axis=0)) / np.where(scale > 0, scale, 1.0)
    return z


def _principal(
    z: NDArray[np.float64], n_components: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Principal components of centred `z` (N, D): scores (N, n) and shares of the variance (n,).

    By the smaller of the two products, and with the sign by which the largest score of each
    component is positive, so that a picture does not flip from one machine to the next.
    """
    n, d = z.shape
    count = min(n_components, n - 1, d)
    if d <= n:
        values, vectors = np.linalg.eigh(z.T @ z)
        scores = z @ vectors[:, ::-1][:, :count]
    else:
        values, vectors = np.linalg.eigh(z @ z.T)
        values = np.maximum(values, 0.0)
        scores = vectors[:, ::-1][:, :count] * np.sqrt(values[::-1][:count])
    total = float((z * z).sum()) or 1.0
    largest = np.abs(scores).argmax(axis=0)
    scores = scores * np.where(scores[largest, np.arange(count)] < 0, -1.0, 1.0)
    if count < 2:  # two images, or a single number: the second axis is empty
        scores = np.pad(scores, ((0, 0), (0, 2 - count)))
    explained = np.pad(np.maximum(values[::-1][:count], 0.0) / total, (0, max(0, 2 - count)))
    return scores, explained


def _tsne(components: NDArray[np.float64], seed: int) -> NDArray[np.floating[Any]]:
    """Place by t-SNE (van der Maaten 2008), from the first two components (Kobak 2019)."""
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    n = len(components)
    start = components[:, :2] / (components[:, 0].std() or 1.0) * 1e-4
    model = TSNE(
        perplexity=min(PERPLEXITY, max(1.0, (n - 1) / 3)),
        init=start.astype(np.float32),
        random_state=seed,
        max_iter=ITERATIONS,
    )
    # One thread: the order of its sums, and with it the picture, would follow their number.
    with threadpool_limits(1):
        xy: NDArray[np.floating[Any]] = model.fit_transform(components.astype(np.float32))
    return xy


def _umap(components: NDArray[np.float64], seed: int) -> NDArray[np.floating[Any]]:
    """Place by UMAP (McInnes 2018); with a seed it runs on one thread."""
    from umap import UMAP

    neighbours = min(NEIGHBOURS, max(2, len(components) - 1))
    with python_warnings.catch_warnings():
        python_warnings.simplefilter("ignore")  # that a seed means one thread
        model = UMAP(n_neighbors=neighbours, random_state=seed, n_jobs=1)
        xy: NDArray[np.floating[Any]] = model.fit_transform(components.astype(np.float32))
    return xy


def _rounded(xy: NDArray[np.floating[Any]]) -> list[list[float]]:
    rounded: list[list[float]] = np.round(xy.astype(np.float64), DIGITS).tolist()
    return rounded
