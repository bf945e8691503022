"""What is trained and what stays frozen: from a setting's word to parameters by name.

The network is run once on noise, watched; what ran after the boundary is trained, what ran
before it is frozen. So the same words work for every network, whatever its modules are called.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import nn

from ..backbones.card import Card
from ..backbones.catalog import nearest
from ..errors import BackboneError, TrainingError

NORMS = (nn.modules.batchnorm._BatchNorm,)


@dataclass(frozen=True, eq=False)
class Plan:
    """Which parameters are trained, and where the frozen part ends.

    Attributes
    ----------
    unfreeze : str
        As it was asked for.
    boundary : str or None
        The module whose output the late layers start from; None: nothing before them is frozen.
    before : tuple of str
        The outermost modules that run up to the boundary, itself included, and not again later.
    trained, frozen : tuple of str
        Names of parameters.
    active : frozenset of str
        Modules that belong to the trained part, or hold some of it.
    depth : dict of str to int
        Stages between each trained parameter and the scores: 0 for the last layer.
    n_trained, n_parameters : int
        Numbers in the trained parameters, and in all.
    """

    unfreeze: str
    boundary: str | None
    before: tuple[str, ...]
    trained: tuple[str, ...]
    frozen: tuple[str, ...]
    active: frozenset[str]
    depth: dict[str, int]
    n_trained: int
    n_parameters: int

    def summary(self) -> str:
        """Say in a line what is trained."""
        modules = dict.fromkeys(name.rpartition(".")[0] for name in self.trained)
        tops = dict.fromkeys(".".join(name.split(".")[:2]) for name in modules)
        names = list(tops)
        shown = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
        after = f", frozen up to {self.boundary}" if self.boundary else ""
        return f"trained: {self.n_trained:,} of {self.n_parameters:,} parameters ({shown}){after}"


@dataclass
class _Watch:
    """When each module first started, and every time it started or ended, by a running count."""

    clock: int = 0
    starts: dict[str, list[int]] = field(default_factory=dict)
    ends: dict[str, list[int]] = field(default_factory=dict)

    def note(self, where: dict[str, list[int]], name: str) -> None:
        self.clock += 1
        where.setdefault(name, []).append(self.clock)


def _watch(network: nn.Module, size: int) -> _Watch:
    watch = _Watch()
    handles = []
    for name, module in network.named_modules():
        handles += [
            module.register_forward_pre_hook(lambda *_, n=name: watch.note(watch.starts, n)),
            module.register_forward_hook(lambda *_, n=name: watch.note(watch.ends, n)),
        ]
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad():
            network(torch.zeros(1, 3, size, size))
    finally:
        for handle in handles:
            handle.remove()
        network.train(was_training)
    return watch


def plan_of(network: nn.Module, card: Card, unfreeze: str, *, size: int) -> Plan:
    """Work out what `unfreeze` means for this network.

    Parameters
    ----------
    network : nn.Module
        With its new last layer.
    card : Card
        Its stages and the name of its last layer.
    unfreeze : str
        ``head``, ``last``, a number of stages, a layer's name, or ``all``.
    size : int
        Side of the input, in pixels.

    Raises
    ------
    BackboneError
        The network has no such layer or fewer stages; nearest names are given.
    TrainingError
        Nothing would be left to train.
    """
    watch = _watch(network, size)
    stage_ends = [watch.ends[name][-1] for name in card.stages if name in watch.ends]
    cut = _cut(network, card, watch, unfreeze)  # what starts from then on is trained
    first = {name: times[0] for name, times in watch.starts.items()}
    done = [(times[0], name) for name, times in watch.ends.items() if times[0] < cut]
    boundary = max(done)[1] if done else None
    before = {n for _, n in done if watch.starts[n][-1] < cut}
    outermost = tuple(n for n in before if n.rpartition(".")[0] not in before or "." not in n)
    trained, frozen, depth = [], [], {}
    for name, _ in network.named_parameters():
        owner = name.rpartition(".")[0]
        if first.get(owner, -1) >= cut or cut == 0:
            trained.append(name)
            depth[name] = sum(end > first.get(owner, 0) for end in stage_ends)
            if owner != card.final:
                depth[name] = max(1, depth[name])
        else:
            frozen.append(name)
    if cut == 0:  # heads off the main path never ran, and get no gradient
        idle = [name for name in trained if name.rpartition(".")[0] not in first]
        trained = [name for name in trained if name not in set(idle)]
        frozen += idle
    if not trained:
        raise TrainingError(
            f"UNFREEZE={unfreeze} leaves nothing to train in {card.model}.",
            expected="a layer with parameters, or one before such a layer",
            todo="UNFREEZE=head trains the last layer only",
        )
    sizes = {name: p.numel() for name, p in network.named_parameters()}
    active = frozenset(n for n, ends in watch.ends.items() if ends[-1] >= cut)
    return Plan(
        unfreeze=unfreeze,
        boundary=boundary,
        before=outermost,
        trained=tuple(trained),
        frozen=tuple(frozen),
        active=active,
        depth=depth,
        n_trained=sum(sizes[name] for name in trained),
        n_parameters=sum(sizes.values()),
    )


def _cut(network: nn.Module, card: Card, watch: _Watch, unfreeze: str) -> int:
    """Give the count at which the trained part begins; 0: with the network."""
    if unfreeze == "all":
        return 0
    if unfreeze == "last" or unfreeze.isdigit():
        n = 1 if unfreeze == "last" else int(unfreeze)
        if not 1 <= n <= len(card.stages):
            raise BackboneError(
                f"UNFREEZE={unfreeze}: {card.model} has {len(card.stages)} stages "
                f"({', '.join(card.stages)}).",
                expected=f"1 to {len(card.stages)}, or 'all'",
            )
        return 0 if n == len(card.stages) else watch.ends[card.stages[-n - 1]][-1] + 1
    name = card.final if unfreeze == "head" else unfreeze
    if name is None:
        raise BackboneError(
            f"{card.model} has no last linear layer.", todo="UNFREEZE=all, or another network"
        )
    if not name or name not in watch.starts:
        ran = [n for n in watch.starts if n]
        raise BackboneError(
            f"UNFREEZE={unfreeze}: {card.model} has no such layer.",
            expected=f"head, last, all, 1 to {len(card.stages)}, one of its stages "
            f"({', '.join(card.stages)}), or any module inside them",
            todo="near: " + ", ".join(nearest(unfreeze, ran)),
        )
    return watch.starts[name][0]


def freeze(network: nn.Module, plan: Plan) -> None:
    """Give gradients to the trained parameters and to no other."""
    trained = set(plan.trained)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name in trained)
        parameter.grad = None


def training_mode(network: nn.Module, plan: Plan, bn: str) -> None:
    """Put the trained part into training mode and leave the frozen part in eval.

    Parameters
    ----------
    bn : str
        ``frozen``: the BatchNorms of the trained part follow the data. ``eval``: none does.
        ``update``: all do, those of the frozen part too.
    """
    for name, module in network.named_modules():
        on = name in plan.active
        if isinstance(module, NORMS):
            on = {"frozen": on, "eval": False, "update": True}[bn]
        module.training = on  # not train(): that would reach the children
