"""Networks with their weights: published, from a file, or random.

Published weights are downloaded once, into the cache, and checked against the digest that their
publisher puts into their name or headers. A local file is a safetensors file or a state dict
(:mod:`.state`, :mod:`.matching`); it is loaded without running any code in it.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import BackboneError
from ..progress import Progress, silent
from .catalog import PACKAGED, Entry, is_file, nearest
from .hub import fetch_timm, fetch_url
from .last import PooledFeatures, settle_last_layer
from .matching import match
from .network import survey
from .preprocess import Preprocessing
from .state import read_state

_SLOW_STARTS = ("googlenet", "inception_v3")  # which want to be told whether to draw numbers
_INTERPOLATIONS = ("nearest", "box", "bilinear", "bicubic", "lanczos")


def build(
    entry: Entry,
    weights: str,
    *,
    folder: Path,
    seed: int,
    offline: bool,
    progress: Progress = silent,
) -> tuple[nn.Module, Preprocessing, str]:
    """Build the network with the weights that were asked for.

    Parameters
    ----------
    entry : Entry
        Which network.
    weights : str
        ``default``, ``none``, the name of a published set, or a file's path.
    folder : Path
        Where downloaded weights are kept.
    seed : int
        Of the random start, for ``none``.
    offline : bool
        Fetch nothing.
    progress : Progress
        Shows the download.

    Returns
    -------
    network : nn.Module
        In eval mode, float32, on the CPU.
    preprocessing : Preprocessing
        What these weights were trained with (for a file or a random start: what the network's
        published weights were).
    origin : str
        Where the weights come from, in words.

    Raises
    ------
    BackboneError
        No such published weights; the file is not a state dict of this network.
    DownloadError
        The weights cannot be fetched, or are not what their digest says.
    """
    from_file = is_file(weights)
    if from_file:
        check_file(entry, Path(weights))
    published = "default" if weights == "none" or from_file else weights
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"timm|torchvision")
        torch.manual_seed(seed)
        fetch = weights == published
        options: dict[str, Any] = {
            "folder": folder,
            "fetch": fetch,
            "offline": offline,
            "progress": progress,
        }
        maker = {"packaged": _packaged, "torchvision": _torchvision, "timm": _timm}[entry.library]
        network, preprocessing, origin = maker(entry.name, published, **options)
    settle_last_layer(network.eval(), preprocessing.size)
    if weights == "none":
        origin = f"random start, seed {seed}"
    elif not fetch:
        notes = _load_file(network, Path(weights), preprocessing.size)
        origin = f"file {Path(weights).name}" + (f" ({'; '.join(notes)})" if notes else "")
    return network.eval(), preprocessing, origin


def check_file(entry: Entry, path: Path) -> None:
    """Refuse a file of far fewer numbers than the network has, before the network takes memory.

    Raises
    ------
    BackboneError
        The file has less than a tenth of the network's parameters, or cannot be read.
    """
    given = max(sum(t.numel() for t in some.values()) for some in read_state(path).values())
    shapes = parameter_shapes(entry)
    if shapes is None:
        return
    needed = sum(shape.numel() for shape in shapes.values())
    if given < needed / 10:
        raise BackboneError(
            f"{path.name} holds {given:,} numbers; {entry.name} has {needed:,}.",
            expected="the weights of this network",
            todo="set MODEL to the network that these weights were saved from",
        )


def parameter_shapes(entry: Entry) -> dict[str, torch.Size] | None:
    """Shapes of a network's tensors by name, without memory for them.

    None where the library cannot build this network without its numbers.
    """
    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            network = _unfilled(entry)
    except (RuntimeError, NotImplementedError, ValueError, TypeError):
        return None
    return {name: tensor.shape for name, tensor in network.state_dict().items()}


def _unfilled(entry: Entry) -> nn.Module:
    network: nn.Module
    if entry.library == "torchvision":
        from torchvision import models

        extra = {"init_weights": False} if entry.name in _SLOW_STARTS else {}
        network = models.get_model(entry.name, weights=None, **extra)
    else:
        import timm

        arch = PACKAGED[entry.name].arch if entry.library == "packaged" else entry.name
        network = timm.create_model(arch, pretrained=False)
    return network


def _packaged(
    name: str, published: str, *, folder: Path, fetch: bool, offline: bool, progress: Progress
) -> tuple[nn.Module, Preprocessing, str]:
    import timm

    packaged = PACKAGED[name]
    if published != "default":
        raise BackboneError(
            f"{name} has no weights called {published}.",
            expected="default, none, or a file",
            todo="leave WEIGHTS out for the usual ones",
        )
    network: nn.Module = timm.create_model(packaged.arch)
    if fetch:
        _load_file(network.eval(), packaged.path(), packaged.size)
    preprocessing = Preprocessing(
        size=packaged.size,
        crop_ratio=0.875,
        resize="crop",
        interpolation="bicubic",
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    )
    return network, preprocessing, f"package {packaged.package}"


def _torchvision(
    name: str, published: str, *, folder: Path, fetch: bool, offline: bool, progress: Progress
) -> tuple[nn.Module, Preprocessing, str]:
    from torchvision import models

    choices = models.get_model_weights(name)
    names = [choice.name for choice in choices]
    if published != "default" and published not in names:
        raise BackboneError(
            f"torchvision has no weights of {name} called {published}.",
            expected=", ".join(["default", *names]),
            todo="leave WEIGHTS out for the usual ones",
        )
    chosen = choices.DEFAULT if published == "default" else choices[published]
    if fetch:
        fetch_url(chosen.url, folder / "checkpoints", offline=offline, progress=progress)
        before = torch.hub.get_dir()
        torch.hub.set_dir(str(folder))  # the builder finds the checked file there
        try:
            network = models.get_model(name, weights=chosen)
        finally:
            torch.hub.set_dir(before)
    else:
        extra = {"init_weights": True} if name in _SLOW_STARTS else {}
        network = models.get_model(name, weights=None, **extra)
    preset = chosen.transforms()
    preprocessing = Preprocessing(
        size=preset.crop_size[0],
        crop_ratio=min(1.0, preset.crop_size[0] / preset.resize_size[0]),
        resize="crop",
        interpolation=_interpolation(preset.interpolation.value),
        mean=tuple(preset.mean),
        std=tuple(preset.std),
    )
    return network, preprocessing, f"torchvision {chosen}"


def _timm(
    name: str, published: str, *, folder: Path, fetch: bool, offline: bool, progress: Progress
) -> tuple[nn.Module, Preprocessing, str]:
    import timm
    from timm.data.config import resolve_model_data_config

    arch, _, tag = name.partition(".")
    tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{arch}.*")]
    if published not in ("default", *tags) or (tag and tag not in tags):
        raise BackboneError(
            f"timm has no weights of {arch} called {published if published != 'default' else tag}.",
            expected=", ".join(["default", *nearest(published, tags)]) if tags else "none",
            todo="" if tags else "WEIGHTS=none starts it at random",
        )
    full = f"{arch}.{published}" if published != "default" else name
    config = timm.get_pretrained_cfg(full, allow_unregistered=True)
    if fetch:
        if config is None or not config.has_weights:
            raise BackboneError(
                f"timm has no published weights of {full}.",
                todo="WEIGHTS=none starts it at random; WEIGHTS=<file> takes your own",
            )
        path = fetch_timm(config, folder, offline=offline, progress=progress)
        overlay = {"state_dict": max(read_state(path).values(), key=len)}
        network = timm.create_model(full, pretrained=True, pretrained_cfg_overlay=overlay)
    else:
        network = timm.create_model(full, pretrained=False)
    data = resolve_model_data_config(network)
    preprocessing = Preprocessing(
        size=data["input_size"][-1],
        crop_ratio=min(1.0, data["crop_pct"]),
        resize={"center": "crop", "squash": "stretch", "border": "pad"}[data["crop_mode"]],
        interpolation=_interpolation(data["interpolation"]),
        mean=tuple(data["mean"]),
        std=tuple(data["std"]),
    )
    return network, preprocessing, f"timm {full}"


def _interpolation(name: str) -> str:
    return name if name in _INTERPOLATIONS else "bicubic"  # timm's "random" among the rest


def _load_file(network: nn.Module, path: Path, size: int) -> tuple[str, ...]:
    """Load a file's weights into the network; give notes on what differs."""
    own = network.state_dict()
    final = survey(network, size).final
    found = match(read_state(path), own, final, file=path.name)
    check_numbers(found.tensors, own, path.name)
    weight = own.get(f"{final}.weight")
    if final and found.n_classes and weight is not None and found.n_classes != len(weight):
        replace_head(network, final, found.n_classes)  # weights of somebody's own classes
        own = network.state_dict()
    state = {**own, **found.tensors}
    if not found.n_classes:  # no chance in the digest of weights that have no head
        state |= {k: torch.zeros_like(v) for k, v in own.items() if k.startswith(f"{final}.")}
    network.load_state_dict(state)
    return found.notes


def check_numbers(tensors: Mapping[str, Any], own: Mapping[str, Any], file: str) -> None:
    """Refuse weights that no network could work with, though their names and shapes fit.

    Raises
    ------
    BackboneError
        Whole numbers in the place of floats (quantised weights without their scales), numbers that
        are not finite, or zeros in every layer.
    """
    floats = {k: t for k, t in tensors.items() if k in own and own[k].is_floating_point()}
    whole = [name for name, tensor in floats.items() if not tensor.is_floating_point()]
    broken = [k for k, t in floats.items() if k not in whole and not bool(t.isfinite().all())]
    layers = [tensor for tensor in floats.values() if tensor.ndim > 1]
    if whole:
        kinds = str(floats[whole[0]].dtype).removeprefix("torch.")
        what = f"{len(whole)} of its tensors are {kinds}, such as {whole[0]}"
    elif broken:
        what = f"{len(broken)} of its tensors hold NaN or infinite numbers, such as {broken[0]}"
    elif layers and not any(bool(tensor.any()) for tensor in layers):
        what = "all its layers are zero"
    else:
        return
    raise BackboneError(
        f"{file} cannot be used: {what}.",
        expected="trained weights as floating-point numbers",
        todo="take an earlier checkpoint, or save the weights again before they are quantised",
    )


def replace_head(network: nn.Module, final: str, n_classes: int) -> nn.Module:
    """Put a new last layer for `n_classes` in the place of the one called `final`.

    It has a bias where the old one has; where the network had no last layer, it has one.

    Raises
    ------
    BackboneError
        The layer called `final` is not linear.
    """
    old = network.get_submodule(final)
    new: nn.Module
    if isinstance(old, nn.Conv2d):
        new = nn.Conv2d(old.in_channels, n_classes, 1, bias=old.bias is not None)
    elif isinstance(old, nn.Linear):
        new = nn.Linear(old.in_features, n_classes, bias=old.bias is not None)
    elif isinstance(old, PooledFeatures):
        new = nn.Linear(old.in_features, n_classes)
    else:
        raise BackboneError(
            f"The layer {final} is not a linear layer, so it cannot be replaced.",
            expected="the network's last linear layer",
        )
    network.set_submodule(final, new)
    return new
