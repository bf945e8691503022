"""Where training starts: the network, its new last layer, and the linear head put into it.

Kumar et al. 2022 (arXiv 2202.10054): a random last layer spoils good features in the first
steps; starting it from the fitted linear head (LP-FT) does not, and makes epoch 0 the probe.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from ..backbones.last import PooledFeatures
from ..errors import BackboneError
from ..heads import Head


def new_head(network: nn.Module, final: str | None, n_classes: int, *, seed: int) -> None:
    """Put a new last layer for `n_classes`, with a bias and random by `seed`, into the network.

    Raises
    ------
    BackboneError
        The network has no last linear layer.
    """
    old = network.get_submodule(final) if final else None
    new: nn.Module
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if isinstance(old, nn.Conv2d):
            new = nn.Conv2d(old.in_channels, n_classes, 1)
        elif isinstance(old, nn.Linear | PooledFeatures):
            new = nn.Linear(old.in_features, n_classes)
        else:
            raise BackboneError(
                "This network has no last linear layer to replace.",
                expected="a classification network",
                todo="choose another with MODEL=",
            )
    network.set_submodule(str(final), new)


@torch.no_grad()
def put_head(network: nn.Module, final: str, head: Head) -> None:
    """Make the last layer give the linear head's calibrated scores.

    Standardisation and temperature are folded into weight and bias, so the softmax of the
    network's scores is the head's probabilities (of an SVM: by its hyperplane, scaled). The prior
    correction of balanced training is left out: training goes on balanced, and corrects at its end.
    """
    weight, bias = replace(head, output=replace(head.output, shift=None)).affine()  # (K, D), (K,)
    layer = network.get_submodule(final)
    assert isinstance(layer, nn.Linear | nn.Conv2d)
    assert layer.bias is not None
    scaled = torch.from_numpy(weight * head.temperature_scale)
    layer.weight.copy_(scaled.view(layer.weight.shape))
    layer.bias.copy_(torch.from_numpy(bias * head.temperature_scale))


def renew(network: nn.Module, names: tuple[str, ...], *, seed: int) -> None:
    """Start some modules at random, as their classes do.

    Raises
    ------
    BackboneError
        The network has no such module.
    """
    modules = dict(network.named_modules())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for name in names:
            if not name or name not in modules:
                raise BackboneError(
                    f"FRESH={name}: the network has no such layer.",
                    expected="a layer, as UNFREEZE names them",
                )
            for module in modules[name].modules():
                reset = getattr(module, "reset_parameters", None)
                if callable(reset):
                    reset()
