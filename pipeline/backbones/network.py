"""What a network has inside: its layers, stages, last layer and tokens.

Works on any network that maps a batch of images to scores: modules are found by running it once
and watching, not by knowing its class.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import BackboneError, first_line
from .pooling import PLACE, Tokens, prefix_of

_MANY = 10  # more stages than this are thinned to one per resolution
_PREFIX_NAMES = ("cls_token", "class_token", "dist_token", "reg_token", "register_tokens")


@dataclass(frozen=True)
class Survey:
    """What one forward pass showed.

    Attributes
    ----------
    final : str or None
        Name of the last linear layer (or the 1 x 1 convolution that takes its place), which was
        shown to give the network's output; or of the place for one behind the network's pooled
        features. None for a network without either, whose output itself then is the final layer.
    layers : dict of str to tuple of int
        Output shape, without the batch, of every module that ran once, in order of running.
    stages : tuple of str
        The ends of the network's stages, in order.
    pooled_is_final : str or None
        The stage whose mean over all positions is the final layer, if there is one.
    by_width : str or None
        The layer that has the output's width and comes last, which is mostly, and not always,
        the last layer.
    tokens : Tokens or None
        Of a transformer whose final layer is pooled from tokens.
    """

    final: str | None
    layers: dict[str, tuple[int, ...]]
    stages: tuple[str, ...]
    pooled_is_final: str | None
    by_width: str | None = None
    tokens: Tokens | None = None


@torch.inference_mode()
def survey(network: nn.Module, size: int, *, classifies: bool = True) -> Survey:
    """Run `network` once on an image of noise of `size` x `size` px and note what ran.

    Parameters
    ----------
    network : nn.Module
        Any network; it is not changed.
    size : int
        Side of the input, in pixels.
    classifies : bool
        Refuse a network whose output is not (B, K).

    Raises
    ------
    BackboneError
        The network does not take this input size.
    """
    ran: list[tuple[str, tuple[int, ...]]] = []
    means: dict[str, Tensor] = {}  # over all positions; of what stands before the last layer
    inputs_of: dict[str, Tensor] = {}
    outputs: dict[str, Tensor] = {}  # of linear layers
    handles = []

    def watch(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.ndim >= 2:
                ran.append((name, tuple(output.shape[1:])))
                if _is_map(tuple(output.shape[1:])):
                    means[name] = channels_first(output).flatten(2).mean(2)
                if inputs and isinstance(inputs[0], Tensor):
                    inputs_of[name] = inputs[0]
                if _is_linear(module):
                    outputs[name] = output.clone()  # an activation may change it in place

        return hook

    for name, module in network.named_modules():
        if name:
            handles.append(module.register_forward_hook(watch(name)))
    was_training = network.training
    network.eval()
    try:
        noise = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
        output = network(noise)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise BackboneError(
            f"This network does not take images of {size} x {size} px: " + first_line(error),
            todo="leave SIZE out, or choose another",
        ) from error
    finally:
        for handle in handles:
            handle.remove()
        network.train(was_training)
    if not isinstance(output, Tensor) or (classifies and output.ndim != 2):
        raise BackboneError(
            "This network's output is not one score for each class.",
            todo="choose a classification network",
        )
    counts: dict[str, int] = {}
    for name, _ in ran:
        counts[name] = counts.get(name, 0) + 1
    layers = {name: shape for name, shape in ran if counts[name] == 1}
    by_width = _by_width(network, layers, output.shape[1])
    final = PLACE if PLACE in layers else None
    for name in reversed(layers):
        if final is None and _gives(network, name, outputs.get(name), output, noise):
            final = name
    if final is not None:  # what runs after it is no layer to take codes from
        order = list(layers)
        layers = {name: layers[name] for name in order[: order.index(final) + 1]}
    stages = tuple(name for name in _stages(network, layers) if name != final)
    codes = inputs_of[final] if final else output
    codes = codes.flatten(2).mean(2) if codes.ndim == 4 else codes
    same = [
        name
        for name in stages
        if means[name].shape == codes.shape and torch.allclose(means[name], codes, atol=1e-5)
    ]
    tokens = _tokens(network, layers, codes.shape[-1]) if codes.ndim == 2 else None
    return Survey(final, layers, stages, same[-1] if same else None, by_width, tokens)


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or (
        isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1)
    )


def _by_width(network: nn.Module, layers: dict[str, tuple[int, ...]], n_scores: int) -> str | None:
    for name in reversed(layers):
        module = network.get_submodule(name)
        shape = layers[name]
        if (isinstance(module, nn.Linear) and shape == (n_scores,)) or (
            isinstance(module, nn.Conv2d) and _is_linear(module) and shape[0] == n_scores
        ):
            return name
    return None


def _gives(
    network: nn.Module, name: str, value: Tensor | None, output: Tensor, noise: Tensor
) -> bool:
    """Whether a linear layer's output is the network's: as it is, or averaged over positions.

    Where the output is the same number throughout (layers that start at zero), equality shows
    nothing: the outputs of all linear layers are then replaced by noise, and this layer's must be
    what comes out. (Of a sum of two heads that are zero, replacing one alone would show it.)
    """
    if value is None or value.shape[:2] != output.shape or value.ndim not in (2, 4):
        return False
    if not _comes_out(value, output):
        return False
    if output.shape[1] > 1 and float(output.std()) > 0:
        return True
    generator = torch.Generator().manual_seed(1)
    replaced: dict[nn.Module, Tensor] = {}

    def replace(module: nn.Module, _: Any, given: Tensor) -> Tensor:
        replaced[module] = torch.rand(given.shape, generator=generator).to(given) + 1
        return replaced[module]

    handles = [m.register_forward_hook(replace) for m in network.modules() if _is_linear(m)]
    try:
        output = network(noise)
        return _comes_out(replaced[network.get_submodule(name)], output)
    finally:
        for handle in handles:
            handle.remove()


def _comes_out(value: Tensor, output: Tensor) -> bool:
    if value.ndim == 2 or value[0, 0].numel() == 1:
        return torch.equal(value.flatten(1), output)
    means = (value.flatten(2).mean(2), value.relu().flatten(2).mean(2))  # SqueezeNet: of positives
    return any(torch.allclose(mean, output, rtol=1e-4, atol=1e-6) for mean in means)


def _tokens(network: nn.Module, layers: dict[str, tuple[int, ...]], dim: int) -> Tokens | None:
    """Find the tokens that are pooled into codes of `dim` numbers, and what stands before them."""
    found = [n for n, shape in layers.items() if len(shape) == 2 and shape[1] == dim]
    found = [n for n in found if layers[n][0] > 1 and not n.startswith(("attn_pool", "head"))]
    found = [n for n in found if not any(part.isdigit() for part in n.split("."))]
    if not found:
        return None
    prefixes = {
        name.rpartition(".")[2]: parameter.shape[-2]
        for name, parameter in network.named_parameters()
        if name.rpartition(".")[2] in _PREFIX_NAMES and parameter.ndim >= 2
    }
    n_prefix = int(getattr(network, "num_prefix_tokens", sum(prefixes.values())))
    norm = getattr(network, "fc_norm", nn.Identity())
    tokens = Tokens(
        n_prefix=n_prefix,
        class_token=n_prefix > 0 and bool(prefixes.keys() & {"cls_token", "class_token"}),
        layer=found[-1],
        norm="" if isinstance(norm, nn.Identity) else "fc_norm",
    )
    return tokens if prefix_of(layers[tokens.layer][0], tokens) is not None else None


def _stages(network: nn.Module, layers: dict[str, tuple[int, ...]]) -> tuple[str, ...]:
    """Name the ends of the stages: where resolution or width change, at the level of blocks."""
    maps = [n for n in _blocks(network, layers, "") if n in layers and _is_map(layers[n])]
    ends = _last_of_runs(maps, [_chw(layers[n]) for n in maps])
    if len(ends) > _MANY:
        ends = _last_of_runs(ends, [_chw(layers[n])[1:] for n in ends])
    if len(ends) < 3 <= len(maps):  # a transformer: equal shapes throughout, so quarters
        ends = [maps[math.ceil(len(maps) * q / 4) - 1] for q in (1, 2, 3, 4)]
    return tuple(dict.fromkeys(ends))


def _blocks(network: nn.Module, layers: dict[str, tuple[int, ...]], outer: str) -> list[str]:
    """List the modules at the level of blocks, in order.

    A module is opened when it only holds others (and never ran itself), when it is nearly the
    whole network, or when, at the top or as its larger half, it is a sequence in which the shape
    of the maps changes.
    """
    total = sum(p.numel() for p in network.parameters()) or 1
    names = []
    for child, module in network.get_submodule(outer).named_children():
        name = f"{outer}.{child}" if outer else child
        share = sum(p.numel() for p in module.parameters()) / total
        inner = [f"{name}.{n}" for n, _ in module.named_children()]
        shapes = {layers[n] for n in inner if n in layers and _is_map(layers[n])}
        changes = isinstance(module, nn.Sequential) and len(shapes) > 1
        if inner and (
            name not in layers or share > 0.8 or (changes and (not outer or share > 0.5))
        ):
            names += _blocks(network, layers, name)
        else:
            names.append(name)
    return names


def _is_map(shape: tuple[int, ...]) -> bool:
    """Whether an output is a map (C, H, W) above 1 x 1, or tokens (T, C)."""
    return (len(shape) == 3 and max(shape[:2]) > 1 < max(shape[1:])) or (
        len(shape) == 2 and shape[0] > 1
    )


def _chw(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Give a map's shape channels first, as :func:`channels_first` gives the map."""
    if len(shape) == 3 and shape[0] == shape[1] != shape[2]:
        return (shape[2], shape[0], shape[1])
    return shape


def channels_first(x: Tensor) -> Tensor:
    """Bring maps (B, H, W, C), as Swin has them, and tokens (B, T, C) to channels first."""
    if x.ndim == 4 and x.shape[1] == x.shape[2] != x.shape[3]:
        return x.permute(0, 3, 1, 2)
    return x.transpose(1, 2) if x.ndim == 3 else x


def _last_of_runs(names: list[str], keys: list[tuple[int, ...]]) -> list[str]:
    return [name for i, name in enumerate(names) if i + 1 == len(names) or keys[i + 1] != keys[i]]
