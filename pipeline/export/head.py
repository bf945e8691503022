"""A head inside the graph: codes to calibrated probabilities, in float64 as numpy has them."""

from __future__ import annotations

import numpy as np

from ..errors import HeadError
from ..heads import Head
from ..heads.model import AFFINE_METHODS
from ..heads.output import Output
from ..heads.scoring import kernel_weights
from ..notation import size
from .graph import DOUBLE, FLOAT, Graph

_TINY = 1e-300  # least probability whose logarithm is taken
LIMIT_BYTES = 64 * 2**20  # of stored examples or support vectors


def add_scores(g: Graph, codes: str, head: Head) -> str:
    """Add a head's scores.

    Parameters
    ----------
    g : Graph
        Where the nodes go.
    codes : str
        float32 (R, D): the mean of the views, or each view.
    head : Head
        Of any method.

    Returns
    -------
    str
        float64 (R, K).

    Raises
    ------
    HeadError
        A head of neighbours or support vectors too large for one file.
    """
    wide = g.cast(codes, DOUBLE)
    z = g("Div", g("Sub", wide, g.constant(head.mean)), g.constant(head.scale))
    if head.method in AFFINE_METHODS:
        product = g("MatMul", z, g.constant(head.arrays["weight"].T.copy()))
        return g("Add", product, g.constant(head.arrays["bias"]))
    name = "examples" if head.method == "knn" else "support"
    stored = head.arrays[name]
    if stored.nbytes > LIMIT_BYTES:
        raise HeadError(
            f"The head of method {head.method} keeps {len(stored):,} examples "
            f"({size(stored.nbytes)}), which is too large for one file.",
            expected=f"at most {size(LIMIT_BYTES)}",
            todo="export a run of make svm or make softmax",
        )
    z = g.cast(g.cast(z, FLOAT), DOUBLE)  # rounded as in training
    kept = g.constant(stored, np.float32)
    return _neighbours(g, z, kept, head) if head.method == "knn" else _rbf(g, z, kept, head)


def _distances(g: Graph, z: str, stored: str) -> str:
    """Squared distances (R, M) of rows and stored examples, at least 0."""
    product = g("MatMul", z, g("Transpose", stored, perm=[1, 0]))
    own = g.total(g("Mul", z, z), 1)  # (R, 1)
    other = g("Transpose", g.total(g("Mul", stored, stored), 1), perm=[1, 0])  # (1, M)
    total = g("Add", g("Sub", own, g("Mul", product, g.constant(2.0))), other)
    return g("Max", total, g.constant(0.0))


def _directions(g: Graph, z: str) -> str:
    length = g("Sqrt", g.total(g("Mul", z, z), 1))
    zero = g("Equal", length, g.constant(0.0))
    return g("Div", z, g("Where", zero, g.constant(1.0), length))


def _neighbours(g: Graph, z: str, kept: str, head: Head) -> str:
    stored = g.cast(kept, DOUBLE)
    if head.parameters["metric"] == "cosine":
        z, stored = _directions(g, z), _directions(g, stored)
    k = int(head.parameters["k"])
    distances = _distances(g, z, stored)
    _, near = g.several("TopK", 2, distances, g.ints(k), axis=1, largest=0, sorted=1)
    votes = g("Gather", g.constant(head.arrays["example_labels"], np.int64), near)  # (R, k)
    classes = g.constant(np.arange(head.n_classes), np.int64)  # (K,)
    hits = g("Equal", g("Unsqueeze", votes, g.ints(2)), classes)  # (R, k, K)
    counts = g("ReduceSum", g.cast(hits, DOUBLE), g.ints(1), keepdims=0)  # (R, K)
    smoothed = g("Add", counts, g.constant(1.0 / head.n_classes))
    return g("Log", g("Div", smoothed, g.constant(k + 1.0)))


def _rbf(g: Graph, z: str, kept: str, head: Head) -> str:
    gamma = float(head.parameters["gamma"])
    distances = _distances(g, z, g.cast(kept, DOUBLE))
    kernel = g("Exp", g("Mul", distances, g.constant(-gamma)))  # (R, M)
    held = head.arrays
    weight, bias = kernel_weights(held["dual"], held["intercept"], held["n_support"])
    return g("Add", g("MatMul", kernel, g.constant(weight)), g.constant(bias))  # (R, K)


def add_probabilities(g: Graph, scores: str, output: Output) -> str:
    """Add the calibrated probabilities, float64 (1, K), of scores float64 (1, K)."""
    logits = g("Mul", scores, g.constant(output.temperature_scale))
    if output.shift is not None:
        logits = g("Add", logits, g.constant(output.shift))
    return g("Softmax", logits, axis=1)


def add_decision(g: Graph, probabilities: str, output: Output) -> str:
    """Add the predicted class, int64, of probabilities float64 (K,), by the model's offsets."""
    values = probabilities
    if output.offsets is not None:
        least = g.constant(_TINY)
        values = g("Add", g("Log", g("Max", probabilities, least)), g.constant(output.offsets))
    return g("ArgMax", values, axis=0, keepdims=0)
