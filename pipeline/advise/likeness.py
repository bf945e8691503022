"""How alike a data set is to what the network was trained on, by the network's own answers.

The codes of the last layer are what its classifier reads, so its ImageNet probabilities follow
from the cached codes by one matrix product. Sure answers mean familiar images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from ..backbones.card import load_network, safe_name
from ..backbones.classifier import Classifier, classifier_of, recall_classifier, remember_classifier
from ..compare.runs import Network
from ..context import Context

BLOCK = 1024


@dataclass(frozen=True)
class Familiarity:
    """What the network's own classifier makes of images it has not seen.

    Attributes
    ----------
    confidence : float
        Mean of the highest probability, 1 / Z to 1.
    entropy : float
        Mean entropy of the probabilities as a share of the largest possible, 0 to 1.
    n_source : int
        Z, its own classes.
    """

    confidence: float
    entropy: float
    n_source: int


def source_probabilities(
    context: Context, network: Network, final: NDArray[np.float32]
) -> NDArray[np.float64] | None:
    """Give the network's own probabilities (N, Z) for codes of its last layer (N, D).

    None where it has none: a random start, or a last layer that does not read these codes.
    """
    if network.asked.weights == "none":
        return None
    layer = _classifier(context, network)
    if layer is None or layer[0].shape[1] != final.shape[1]:
        return None
    weight, bias = layer
    out = np.empty((len(final), len(weight)))
    for start in range(0, len(final), BLOCK):
        logits = final[start : start + BLOCK].astype(np.float64) @ weight.T + bias
        out[start : start + BLOCK] = softmax(logits, axis=1)
    return out


def familiarity(source: NDArray[np.float64]) -> Familiarity:
    """Sum up the network's own probabilities (N, Z)."""
    n_source = source.shape[1]
    entropy = -(source * np.log(np.maximum(source, 1e-300))).sum(axis=1)
    return Familiarity(
        confidence=float(source.max(axis=1).mean()),
        entropy=float(entropy.mean() / np.log(n_source)),
        n_source=n_source,
    )


def _classifier(context: Context, network: Network) -> Classifier | None:
    """Weight (Z, D) and bias (Z,) of the network's last layer: remembered, or read now."""
    name, digest = safe_name(network.model), str(network.codes.config["weights_digest"])
    known = recall_classifier(context.cache, name, digest)
    if known is not None:
        return known
    card, built = load_network(network.asked, **context.source)
    if card.weights_digest != digest:
        return None
    found = classifier_of(built, card.final)
    remember_classifier(context.cache, name, digest, found, asked=True)
    return found
