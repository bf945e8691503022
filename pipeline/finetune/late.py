"""The late layers as a network of their own, which starts from activations at the boundary.

It is the whole network, its parameters shared and called by their own names, in which whatever
runs up to the boundary is passed over. Two ways, the first that gives the whole network's
scores on real images is taken:

- *bypass*: those modules hand on what they are given. No cost; right for networks whose trunk is
  a chain of modules.
- *substitute*: the trunk runs on one blank image and its output is replaced at the boundary. For
  networks that do more between modules, such as vision transformers (class token, positions).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .freeze import Plan

_TOLERANCE = 1e-4  # of the largest score; the arithmetic is the same, so this is generous


def _scores(output: Any) -> Tensor:
    """Take the scores; networks with auxiliary heads give several outputs while training."""
    scores: Tensor = output if isinstance(output, Tensor) else output[0]
    return scores


class Whole(nn.Module):
    """The network on normalised images (B, 3, H, W)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Score images: (B, 3, H, W) to (B, K)."""
        return _scores(self.network(x))

    def release(self) -> None:
        """Leave the network as it was (it was not changed)."""


class Late(nn.Module):
    """The network on activations at the boundary (B, ...), float32.

    Parameters
    ----------
    network : nn.Module
        The whole network; until :meth:`release` it cannot be run on images.
    plan : Plan
        Where the boundary is.
    size : int
        Side of a blank image in pixels: the way is *substitute*; 0: it is *bypass*.
    """

    blank: Tensor

    def __init__(self, network: nn.Module, plan: Plan, size: int = 0) -> None:
        super().__init__()
        assert plan.boundary is not None
        self.network = network
        self.way = "substitute" if size else "bypass"
        self._given: Tensor | None = None
        self._changed: list[tuple[nn.Module, Any]] = []
        self.register_buffer("blank", torch.zeros(1, 3, size, size), persistent=False)
        if size:
            self._replace(network.get_submodule(plan.boundary), lambda *_, **__: self._given)
        else:
            for name in plan.before:
                self._replace(network.get_submodule(name), lambda x, *_, **__: x)

    def _replace(self, module: nn.Module, forward: Any) -> None:
        self._changed.append((module, forward))
        module.forward = forward  # on the instance: the class, and all other modules, keep theirs

    def forward(self, x: Tensor) -> Tensor:
        """Score activations: (B, ...) to (B, K)."""
        if self.way == "bypass":
            return _scores(self.network(x))
        self._given = x
        try:
            return _scores(self.network(self.blank))
        finally:
            self._given = None

    def release(self) -> None:
        """Make the network whole again."""
        for module, _ in self._changed:
            module.__dict__.pop("forward", None)

    def engage(self) -> None:
        """Pass over the trunk again, after :meth:`release`."""
        for module, forward in self._changed:
            module.forward = forward


@torch.no_grad()
def cut(network: nn.Module, plan: Plan, images: Tensor) -> tuple[Late | None, float]:
    """Cut the late layers off, if they then give the whole network's scores.

    Parameters
    ----------
    network : nn.Module
        On the CPU.
    plan : Plan
        With a boundary.
    images : Tensor
        Real images, normalised, (B, 3, H, W), B at least 2.

    Returns
    -------
    late : Late or None
        None where this network cannot be cut there.
    difference : float
        Largest difference of scores, as a share of the largest score; of the last way tried.
    """
    network.eval()
    assert plan.boundary is not None
    seen: list[Tensor] = []
    boundary = network.get_submodule(plan.boundary)
    handle = boundary.register_forward_hook(lambda m, i, output: seen.append(output))
    try:
        expected = _scores(network(images))
    finally:
        handle.remove()
    difference = float("inf")
    if len(seen) != 1 or not isinstance(seen[0], Tensor) or len(seen[0]) != len(images):
        return None, difference
    for size in (0, images.shape[-1]):
        late = Late(network, plan, size)
        try:
            scores = late(seen[0])
            if scores.shape == expected.shape:
                difference = float((scores - expected).abs().max() / expected.abs().max())
            if difference <= _TOLERANCE:
                return late, difference
        except (RuntimeError, ValueError, TypeError, AssertionError, IndexError):
            pass  # shapes that do not go together: this way is not for this network
        late.release()
    return None, difference
