"""The last layer, shown to give the output; or none, and the network's pooled features instead.

A network's codes are what its last linear layer is given, and fine-tuning replaces that layer.
So a module is only taken for the last layer where its output *is* the network's output. Networks
with two heads whose scores are averaged (distilled ones), and networks that end in features and
not in scores, have no such layer. They are stripped of their heads, and a place for a last layer,
``pooled``, is added behind their own pooled features.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..errors import BackboneError
from .network import channels_first, survey
from .pooling import PLACE


class PooledFeatures(nn.Module):
    """Stands where a last layer would be, and gives what it is given.

    Parameters
    ----------
    in_features : int
        Numbers in the network's pooled features.
    """

    mistaken: bool = False  # whether the layer of the output's width is not the last one

    def __init__(self, in_features: int) -> None:
        super().__init__()
        self.in_features = in_features

    def forward(self, x: Tensor) -> Tensor:
        """Give the features (B, D) unchanged."""
        return x


@torch.inference_mode()
def settle_last_layer(network: nn.Module, size: int) -> None:
    """See that the network has a last layer, or a place for one behind its pooled features.

    Parameters
    ----------
    network : nn.Module
        In eval mode; changed in place where it has no single last layer.
    size : int
        Side of an input that it takes, in pixels.

    Raises
    ------
    BackboneError
        The network's output is neither scores nor features.
    """
    seen = survey(network, size, classifies=False)
    if seen.final is not None:
        return
    strip = getattr(network, "reset_classifier", None)
    if callable(strip):
        strip(0)
        network.eval()
    device = next((p.device for p in network.parameters()), torch.device("cpu"))
    features = network(torch.zeros(1, 3, size, size, device=device))
    if not isinstance(features, Tensor) or features.ndim not in (2, 3, 4):
        raise BackboneError(
            "This network's output is neither one score for each class nor features.",
            todo="choose a classification network",
        )
    place = PooledFeatures(_flat(features).shape[1])
    place.mistaken = seen.by_width is not None
    network.add_module(PLACE, place)
    network.register_forward_hook(_through_place)


def _through_place(network: nn.Module, inputs: Any, output: Any) -> Any:
    return network.get_submodule(PLACE)(_flat(output))


def _flat(x: Tensor) -> Tensor:
    """Average maps (B, C, H, W) and tokens (B, T, C) over all positions."""
    return x if x.ndim == 2 else channels_first(x).flatten(2).mean(2)
