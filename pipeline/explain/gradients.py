"""Gradient x activation at a network's last map, by PyTorch, for what is not linear in a map.

Fine-tuned networks, and networks between whose last map and codes stands more than a pooling. The
last map is the last one whose regions the codes depend on: of a transformer that reads its class
token alone, the patches that its last attention reads, since those behind it are never read.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..backbones.card import load_network
from ..backbones.network import Survey, channels_first, survey
from ..backbones.tapped import Tapped
from ..backbones.torch_engine import tensor_of
from ..errors import BackboneError
from ..predict.models import HeadModel, Model


class Differentiated:
    """A network whose scores are differentiated with respect to its last map.

    Parameters
    ----------
    tapped : Tapped
        Gives the codes, or the scores, that the gradients are of.
    layers : sequence of str
        Modules whose output may be the map, in order of running; the last one of which a region
        counts is taken.
    size : int
        Side of the network's input, in pixels.

    Attributes
    ----------
    layer : str
        The module whose output is the map.

    Raises
    ------
    BackboneError
        No region of any of them counts.
    """

    def __init__(self, tapped: Tapped, layers: Sequence[str], size: int) -> None:
        self._tapped = tapped.eval()
        self._lock = threading.Lock()
        self._seen: list[Tensor] = []
        random = np.random.default_rng(0)
        noise = random.integers(0, 256, (1, size, size, 3), np.uint8)
        with torch.inference_mode():
            n_codes = sum(one[0].numel() for one in tapped(torch.from_numpy(noise)))
        for layer in reversed(layers):
            # Before the taps' own hooks, which else see what came before the leaf.
            hook = tapped.network.get_submodule(layer).register_forward_hook(
                self._note, prepend=True
            )
            (found,) = self.contributions(noise, random.normal(size=(1, n_codes)))
            if found.any():
                self.layer = layer
                return
            hook.remove()
        raise _no_map()

    @classmethod
    def of(cls, model: Model) -> Differentiated:
        """Build it for a run's model.

        Raises
        ------
        BackboneError
            The network has no layer with a map.
        """
        if isinstance(model, HeadModel):
            sized = replace(model.asked, size=model.preprocessing.size)
            _, network = load_network(sized, **model.source)
            layers, final, pool = model.layers, model.card.final, model.pool
            tokens = model.card.tokens
        else:
            network = model.build()
            layers, final, pool, tokens = ("final",), None, "mean", None
        size = model.preprocessing.size
        layers_with_maps = map_layers(survey(network, size))
        for parameter in network.parameters():
            parameter.requires_grad_(False)
        tapped = Tapped(
            network,
            tuple(layers),
            final,
            pool,
            model.preprocessing,
            tokens=tokens,
            stop_early=False,
        )
        return cls(tapped, layers_with_maps, size)

    def _note(self, module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        # A leaf of its own: what comes before it needs no gradient.
        leaf = output.detach().requires_grad_(True)
        self._seen.append(leaf)
        return leaf.clone()  # what follows may change it in place

    def contributions(
        self, views: NDArray[np.uint8], wanted: NDArray[np.float64]
    ) -> list[NDArray[np.float64]]:
        """Give each position's gradient x activation, summed over the channels.

        Parameters
        ----------
        views : uint8 (V, size, size, 3)
            Of one image.
        wanted : float64 (Q, D)
            Q directions in the codes, or in the scores.

        Returns
        -------
        list of float64 (Q, h, w), length V
        """
        with self._lock, torch.enable_grad():
            self._seen.clear()
            outputs = self._tapped(tensor_of(views))
            codes = torch.cat([one.flatten(1) for one in outputs], dim=1).double()  # (V, D)
            (leaf,) = self._seen
            found = []
            for direction in torch.from_numpy(wanted):
                slope = torch.zeros_like(leaf)
                if codes.requires_grad:  # else the codes were taken before the map
                    score = (codes @ direction).sum()
                    (slope,) = torch.autograd.grad(score, leaf, retain_graph=True)
                found.append(_on_a_grid((slope * leaf).detach()))
            self._seen.clear()
        stacked = np.stack(found, axis=1)  # (V, Q, h, w)
        return list(stacked)


def map_layers(seen: Survey) -> list[str]:
    """Name the layers whose output is a map as the stages give them, in order of running.

    Blocks of transformers alone would not do: they begin with a norm, which takes the length of a
    token out, and the gradient times a token is then 0. The norm's own output is among the layers.
    """
    shapes = {seen.layers[name] for name in seen.stages if len(seen.layers[name]) in (2, 3)}
    return [name for name, shape in seen.layers.items() if shape in shapes]


def _no_map() -> BackboneError:
    return BackboneError(
        "This network has no layer with a map, so that no region can be named.",
        todo="make predict gives its probabilities",
    )


def _on_a_grid(product: Tensor) -> NDArray[np.float64]:
    """Sum over the channels: (V, h, w); tokens in front of the square of patches are left out."""
    x = channels_first(product).double().sum(dim=1)
    if x.ndim == 2:  # (V, T)
        side = int(x.shape[1] ** 0.5)
        x = x[:, x.shape[1] - side * side :].reshape(-1, side, side)
    found: NDArray[np.float64] = x.numpy()
    return found
