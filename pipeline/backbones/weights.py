"""Networks with their weights: published, from a file, or random.

Published weights are downloaded once, into the cache, and checked against the digest that their
publisher puts into their name or headers. A local file is a safetensors file or a state dict; it
is loaded without running any code in it.
"""

from __future__ import annotations

import hashlib
import os
import re
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ..errors import BackboneError, DownloadError, first_line
from ..files import sha256_file
from ..progress import Progress, silent
from .catalog import PACKAGED, Entry, nearest
from .network import survey
from .preprocess import Preprocessing

__all__ = ["build", "state_digest"]

_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
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
    published = weights if weights not in ("none",) and not _is_file(weights) else "default"
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
    network.eval()
    if weights == "none":
        origin = f"random start, seed {seed}"
    elif not fetch:
        _load_state(network, _read_state(Path(weights)), Path(weights), preprocessing.size)
        origin = f"file {Path(weights).name}"
    return network.eval(), preprocessing, origin


def state_digest(network: nn.Module) -> str:
    """SHA-256 of the names, shapes and bytes of everything the network's output depends on."""
    total = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        if name.endswith("num_batches_tracked"):
            continue
        total.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        total.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return total.hexdigest()


def _is_file(weights: str) -> bool:
    return Path(weights).suffix in (".pth", ".pt", ".safetensors", ".bin") or os.sep in weights


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
        _load_state(network, _read_state(packaged.path()), packaged.path(), packaged.size)
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
        _fetch_url(chosen.url, folder / "checkpoints", offline=offline, progress=progress)
        before = torch.hub.get_dir()
        torch.hub.set_dir(str(folder))  # the builder finds the checked file there
        try:
            network = models.get_model(name, weights=chosen)
        finally:
            torch.hub.set_dir(before)
    else:
        extra = {"init_weights": True} if name in ("googlenet", "inception_v3") else {}
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
        path = _fetch_timm(config, folder, offline=offline, progress=progress)
        overlay = {"state_dict": _read_state(path)}
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


def _fetch_url(url: str, folder: Path, *, offline: bool, progress: Progress) -> Path:
    """Fetch a file whose name ends in the first digits of its SHA-256, as torch.hub has it."""
    from ..datasets.download import download

    target = folder / url.rpartition("/")[2]
    found = re.search(r"-([0-9a-f]{8,64})\.", target.name)
    prefix = found.group(1) if found else None
    if target.is_file():
        if prefix is None or sha256_file(target).startswith(prefix):
            return target
        target.unlink()  # damaged since it was fetched
    if offline:
        raise DownloadError(
            f"The weights {target.name} are not here, and OFFLINE=1 forbids to fetch them.",
            todo=f"leave OFFLINE out, or put the file of {url} into {folder}",
        )
    return download(url, target, checksum=prefix, pins=folder / "checksums.json", progress=progress)


def _fetch_timm(config: Any, folder: Path, *, offline: bool, progress: Progress) -> Path:
    if not config.hf_hub_id:
        return _fetch_url(config.url, folder / "timm", offline=offline, progress=progress)
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    last: Exception | None = None
    wanted = [config.hf_hub_filename or "model.safetensors", "pytorch_model.bin"]
    for filename in dict.fromkeys(wanted):
        try:
            path = Path(
                hf_hub_download(
                    config.hf_hub_id,
                    filename,
                    cache_dir=folder / "hub",
                    local_files_only=offline,
                )
            )
        except LocalEntryNotFoundError as error:
            last = error
            break
        except EntryNotFoundError as error:
            last = error
            continue
        except (HfHubHTTPError, OSError) as error:
            last = error
            break
        digest = path.resolve().name  # large files are named by their SHA-256 there
        if re.fullmatch(r"[0-9a-f]{64}", digest) and sha256_file(path) != digest:
            path.resolve().unlink()
            raise DownloadError(
                f"{filename} of {config.hf_hub_id} is not what its SHA-256 says; it was removed.",
                todo="give the same command again",
            )
        return path
    raise DownloadError(
        f"The weights of {config.hf_hub_id} cannot be fetched: {last}",
        todo="leave OFFLINE out" if offline else "look at the network, or give WEIGHTS=<file>",
    )


def _read_state(path: Path) -> dict[str, Tensor]:
    """Read a state dict without running code in it."""
    if not path.is_file():
        raise BackboneError(
            f"There is no weights file {path}.",
            expected="a safetensors file or a state dict (.pth, .pt, .bin)",
            todo="look at the path's spelling",
        )
    try:
        if path.suffix == ".safetensors":
            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise BackboneError(
            f"{path} is no safetensors file: {error}",
            expected="a whole safetensors file",
            todo="fetch or save it again",
        ) from error
    except Exception as error:  # torch raises many kinds, UnpicklingError for code in the file
        raise BackboneError(
            f"{path} cannot be loaded as a state dict: {first_line(error)}",
            expected="tensors only; a file with code in it is not loaded",
            todo="save only the tensors: torch.save(network.state_dict(), path)",
        ) from error
    for key in ("state_dict", "model", "model_state_dict"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise BackboneError(
            f"{path} holds no state dict.",
            expected="a mapping of tensors",
            todo="save only the tensors: torch.save(network.state_dict(), path)",
        )
    return {str(key).removeprefix("module."): value for key, value in state.items()}


def _load_state(network: nn.Module, state: dict[str, Tensor], path: Path, size: int) -> None:
    """Load `state` by name or, where the names differ, by an unbroken agreement of order."""
    own = network.state_dict()
    if state.keys() != own.keys() and [v.shape for v in state.values()] == [
        v.shape for v in own.values()
    ]:
        state = dict(zip(own, state.values(), strict=True))
    final = survey(network, size).final
    key = f"{final}.weight"
    if final and key in state and key in own and state[key].shape != own[key].shape:
        replace_head(network, final, len(state[key]))  # weights of somebody's own classes
        own = network.state_dict()
    missing, unknown = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    shapes = sorted(k for k in own.keys() & state.keys() if own[k].shape != state[k].shape)
    if missing or unknown or shapes:
        raise BackboneError(
            f"{path.name} does not fit this network: {len(missing)} tensors are missing "
            f"({', '.join(missing[:3])}), {len(unknown)} unknown ({', '.join(unknown[:3])}), "
            f"{len(shapes)} of another shape ({', '.join(shapes[:3])}).",
            expected="a state dict of exactly this network",
            todo="check MODEL against the network that the weights were saved from",
        )
    network.load_state_dict(state)


def replace_head(network: nn.Module, final: str, n_classes: int) -> nn.Module:
    """Put a fresh last layer for `n_classes` in the place of the one called `final`."""
    old = network.get_submodule(final)
    bias = old.bias is not None
    new: nn.Module
    if isinstance(old, nn.Conv2d):
        new = nn.Conv2d(old.in_channels, n_classes, 1, bias=bias)
    else:
        assert isinstance(old, nn.Linear)
        new = nn.Linear(old.in_features, n_classes, bias=bias)
    network.set_submodule(final, new)
    return new
