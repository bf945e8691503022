"""The ways from a layer's maps or tokens to a vector, by their names; needs no torch.

POOL as a user gives it becomes the way that is part of the fingerprint
(:meth:`cnn_codes.backbones.card.Card.pooling`): ``default`` is ``mean`` over all positions for
inner layers and the network's own pooling for the final one. Of a transformer, ``mean`` is the
mean of the patches alone, which is called ``patches`` from there on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import BackboneError, SettingsError

PLACE = "pooled"  # where a network without a single last layer can be given one (:mod:`.last`)
POOLS = ("mean", "max")
TOKEN_POOLS = ("cls", "patches", "cls+patches")


@dataclass(frozen=True)
class Tokens:
    """What a transformer puts before the tokens of the patches.

    Attributes
    ----------
    n_prefix : int
        Tokens before the first patch: class token, distillation token, registers.
    class_token : bool
        Whether the first of them is a class token.
    layer : str
        The layer whose tokens the network pools into its final layer.
    norm : str
        The module that then normalises what was pooled (timm's ``fc_norm``); empty: none.
    """

    n_prefix: int
    class_token: bool
    layer: str
    norm: str


def prefix_of(n_tokens: int, tokens: Tokens) -> int | None:
    """Count the tokens before the patches in a layer of `n_tokens`; None: the grid is no square."""
    for n_prefix in (0, tokens.n_prefix):
        if n_tokens > n_prefix and math.isqrt(n_tokens - n_prefix) ** 2 == n_tokens - n_prefix:
            return n_prefix
    return None


def check_pool(pool: str) -> int:
    """Return K of ``grid:K``, else 0.

    Raises
    ------
    SettingsError
        `pool` is not one of the known ways.
    """
    if pool in (*POOLS, *TOKEN_POOLS, "none"):
        return 0
    kind, _, k = pool.partition(":")
    if kind == "grid" and k.isdigit() and 2 <= int(k) <= 8:
        return int(k)
    raise SettingsError(
        f"POOL={pool} is not known.",
        expected="mean, max, grid:K with K from 2 to 8, cls or cls+mean",
    )


def no_class_token(what: str) -> BackboneError:
    """Answer a POOL that a layer cannot have."""
    return BackboneError(
        f"POOL=cls and cls+mean need a class token; a layer that was asked for gives {what}.",
        expected="layers of a transformer after its class token was added",
        todo="POOL=mean, or other LAYERS",
    )


def bins_of(n: int, k: int) -> NDArray[np.float64]:
    """Averaging weights (k, n) of `k` bins, with the bounds of adaptive pooling."""
    weights = np.zeros((k, n))
    for i in range(k):
        start, stop = i * n // k, math.ceil((i + 1) * n / k)
        weights[i, start:stop] = 1 / (stop - start)
    return weights
