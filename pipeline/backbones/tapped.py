"""A network with its layers tapped: bytes in, the pooled outputs of some of its layers out."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..errors import BackboneError
from .network import channels_first
from .pooling import TOKEN_POOLS, Tokens, check_pool, no_class_token, prefix_of
from .preprocess import Preprocessing


class _Enough(Exception):
    """Every layer that was asked for has been seen."""


class Tapped(nn.Module):
    """A network that takes bytes and gives the pooled outputs of some of its layers.

    Parameters
    ----------
    network : nn.Module
        The network, in eval mode.
    layers : tuple of str
        ``final`` or names from the survey.
    final : str or None
        From the survey.
    pool : str
        ``mean`` (over all positions), ``max``, ``grid:K``, ``none`` (the activations as they
        are), or of tokens: ``cls``, ``patches`` (their mean), ``cls+patches``.
    preprocessing : Preprocessing
        Its mean and std are applied here.
    tokens : Tokens or None
        From the survey; needed for the last three ways.
    stop_early : bool
        Leave the network when the last layer has been seen (not for export).
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        layers: tuple[str, ...],
        final: str | None,
        pool: str,
        preprocessing: Preprocessing,
        *,
        tokens: Tokens | None = None,
        stop_early: bool = True,
    ) -> None:
        super().__init__()
        self.network = network
        self.layers = layers
        self._tokens = tokens
        self._grid = check_pool(pool)
        self._pool = pool
        self._stop_early = stop_early
        self._seen: list[tuple[str, Tensor]] = []  # in order of running
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(1, 3, 1, 1) * 255)
        self.register_buffer("std", torch.tensor(preprocessing.std).view(1, 3, 1, 1) * 255)
        self._ways = dict(_way(layer, pool, tokens) for layer in layers)
        taps = {tap: None for tap, _, _ in self._ways.values()}
        self._output_is_final = final is None and "final" in taps
        seen, wanted = self._seen, len(taps)

        def note(name: str, value: Tensor) -> None:
            seen.append((name, value))
            if stop_early and len(seen) == wanted:
                raise _Enough

        for layer in taps:
            if layer == "final":
                if final is not None:
                    network.get_submodule(final).register_forward_pre_hook(
                        lambda module, inputs: note("final", inputs[0])
                    )
            else:
                network.get_submodule(layer).register_forward_hook(
                    lambda module, inputs, output, layer=layer: note(layer, output)
                )

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Map images (B, size, size, 3) uint8 to one (B, D) float32 a layer, in their order."""
        self._seen.clear()
        x = (images.permute(0, 3, 1, 2).float() - self.mean) / self.std  # (B, 3, H, W)
        try:
            output = self.network(x)
            if self._output_is_final:
                self._seen.append(("final", output))
        except _Enough:
            pass
        seen = dict(self._seen)
        self._seen.clear()
        return tuple(self._codes(seen, layer).float() for layer in self.layers)

    def _codes(self, seen: dict[str, Tensor], layer: str) -> Tensor:
        tap, pool, norm = self._ways[layer]
        if not norm:
            return self._pooled(seen[tap], pool)
        parts = [self._pooled(seen[tap], one) for one in pool.split("+")]
        return torch.cat([self.network.get_submodule(norm)(part) for part in parts], dim=1)

    def _pooled(self, x: Tensor, pool: str) -> Tensor:
        if pool == "none" or x.ndim == 2:
            return x
        if pool in TOKEN_POOLS:
            if x.ndim == 3:
                assert self._tokens is not None
                return pooled_tokens(x, pool, self._tokens)
            if pool != "patches":
                raise no_class_token("maps")
            pool = "mean"
        x = channels_first(x)  # (B, C, H, W) or (B, C, T)
        if self._grid:
            if x.ndim == 3:
                raise BackboneError(
                    "grid pooling needs maps; this layer gives tokens.",
                    expected="layers whose output is a map",
                    todo="POOL=mean or POOL=max, or other LAYERS",
                )
            rows, columns = _bins(x.shape[2], self._grid, x), _bins(x.shape[3], self._grid, x)
            return torch.einsum("bchw,ih,jw->bcij", x, rows, columns).flatten(1)
        x = x.flatten(2)
        return x.amax(2) if pool == "max" else x.mean(2)


def _way(layer: str, pool: str, tokens: Tokens | None) -> tuple[str, tuple[str, str, str]]:
    """Say how a layer's codes are made: which layer is tapped, the pooling, the norm after it.

    ``final@POOL`` are codes pooled by POOL from the tokens that the network's final layer is
    pooled from.
    """
    name, _, own = layer.partition("@")
    if name == "final" and not own and pool in TOKEN_POOLS:
        own = pool
    if name == "final" and own:
        assert tokens is not None
        return layer, (tokens.layer, own, tokens.norm)
    return layer, (layer, pool, "")


def pooled_tokens(x: Tensor, pool: str, tokens: Tokens) -> Tensor:
    """Pool tokens (B, T, C): the class token, the mean of the patches, or both side by side.

    Raises
    ------
    BackboneError
        This layer's tokens have no class token, or are no square grid.
    """
    n_prefix = prefix_of(x.shape[1], tokens)
    if n_prefix is None:
        raise no_class_token(f"{x.shape[1]} tokens, which are not a square grid")
    parts = []
    if pool.startswith("cls"):
        if not n_prefix or not tokens.class_token:
            raise no_class_token("tokens of patches alone")
        parts.append(x[:, 0])
    if pool.endswith("patches"):
        parts.append(x[:, n_prefix:].mean(1))
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _bins(n: int, k: int, like: Tensor) -> Tensor:
    """Averaging weights (k, n) of `k` bins, bounds as adaptive pooling has them."""
    weights = torch.zeros(k, n)
    for i in range(k):
        start, stop = i * n // k, math.ceil((i + 1) * n / k)
        weights[i, start:stop] = 1 / (stop - start)
    return weights.to(like)
