"""The last layer of a pretrained network: what it reads off the codes of the layer ``final``.

Reading it means building the network, some seconds. It is remembered in the cache whenever a
network is built, under the digest of all weights, so it cannot be of others.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..memory import recall_arrays, remember_arrays

if TYPE_CHECKING:
    from torch import nn

_KIND = "classifier 1"
_MOST_BYTES = 32_000_000  # that are written without being asked for

Classifier = tuple[NDArray[np.float64], NDArray[np.float64]]


def classifier_of(network: nn.Module, layer: str | None) -> Classifier:
    """Give the weight (Z, D) and bias (Z,) of a network's last layer; Z is 0 where it has none.

    Parameters
    ----------
    network : torch.nn.Module
        The network.
    layer : str or None
        Its last layer, as its card names it; None, or a layer without a weight, where it gives
        features and has no classes of its own.
    """
    state: dict[str, Any] = {}
    if layer is not None:
        last = network.get_submodule(layer)
        state = {name: p.detach().numpy() for name, p in last.named_parameters()}
    if "weight" not in state:
        return np.empty((0, 0)), np.empty(0)
    weight = state["weight"].reshape(len(state["weight"]), -1).astype(np.float64)
    bias = state["bias"].astype(np.float64) if "bias" in state else np.zeros(len(weight))
    return weight, bias


def recall_classifier(cache: Path, name: str, weights_digest: str) -> Classifier | None:
    """Give what the cache remembers of a network's last layer; None where it does not.

    Parameters
    ----------
    cache : Path
        The cache folder.
    name, weights_digest : str
        The network, as files are named after it, and the digest of all its weights.
    """
    saved = recall_arrays(_path(cache, name, weights_digest), _KIND)
    if saved is None:
        return None
    return saved["weight"].astype(np.float64), saved["bias"].astype(np.float64)


def remember_classifier(
    cache: Path, name: str, weights_digest: str, found: Classifier, *, asked: bool = False
) -> None:
    """Remember a network's last layer; a very large one only where it was `asked` for."""
    path = _path(cache, name, weights_digest)
    weight, bias = (one.astype(np.float32) for one in found)  # as the network has them
    if path.exists() and not asked:
        return
    if asked or weight.nbytes <= _MOST_BYTES:
        remember_arrays(path, _KIND, {"weight": weight, "bias": bias})


def _path(cache: Path, name: str, weights_digest: str) -> Path:
    digest = hashlib.sha256(weights_digest.encode()).hexdigest()[:16]
    return cache / "backbones" / f"{name}-{digest}.classifier.npz"
