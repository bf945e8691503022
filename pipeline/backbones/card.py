"""All that later stages need to know of a network and its weights, in one small file.

Looking at a network needs torch, seconds, and perhaps a download; so it is done once, and what
was seen is kept in the cache as JSON. Answering from that file imports neither torch nor timm.
The file's name holds a digest of everything its content depends on, the library versions and,
for a file of weights, its bytes among them.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BackboneError
from ..files import digest_of, sha256_file
from ..progress import Progress, silent
from ..settings import CodesSettings
from .catalog import PACKAGED, is_file, nearest
from .classifier import classifier_of, remember_classifier
from .pooling import PLACE, Tokens, check_pool
from .preprocess import Preprocessing
from .trusted import read_checked, write_checked

if TYPE_CHECKING:
    from torch import nn

    from .network import Survey

_VERSION = 2  # of the card's content


@dataclass(frozen=True)
class Card:
    """What is known of a network with its weights.

    Attributes
    ----------
    model, weights : str
        As they were asked for.
    library, arch : str
        Where the network comes from (``packaged``, ``torchvision``, ``timm``) and its name there.
    origin : str
        Where the weights come from, in words.
    weights_digest : str
        SHA-256 of all parameters and buffers.
    preprocessing : Preprocessing
        What these weights were trained with.
    final : str or None
        Name of the last linear layer.
    layers : dict of str to tuple of int
        Output shapes, without the batch, at the weights' own input size.
    stages : tuple of str
        The ends of the stages, in order.
    pooled_is_final : str or None
        The stage whose mean over all positions is the final layer.
    n_parameters : int
        Of the whole network.
    structure_digest : str
        SHA-256 of what the modules are: classes, settings such as eps, forward passes. Not part
        of any fingerprint; kept with the codes, so that a change of a library can be noticed.
    tokens : Tokens or None
        Of a transformer whose final layer is pooled from tokens.
    refound : bool
        Whether earlier versions took another layer for the last one.
    """

    model: str
    weights: str
    library: str
    arch: str
    origin: str
    weights_digest: str
    preprocessing: Preprocessing
    final: str | None
    layers: dict[str, tuple[int, ...]]
    stages: tuple[str, ...]
    pooled_is_final: str | None
    n_parameters: int
    structure_digest: str = ""
    tokens: Tokens | None = None
    refound: bool = False

    def pooling(self, pool: str) -> str:
        """Turn the setting POOL into the way that codes are made, which the fingerprint has.

        Raises
        ------
        SettingsError
            It is not known.
        BackboneError
            This network has no class token.
        """
        if pool in ("default", "mean"):
            return "patches" if pool == "mean" and self.tokens else "mean"
        if pool in ("cls", "cls+mean"):
            if self.tokens is None or not self.tokens.class_token:
                raise BackboneError(
                    f"POOL={pool}: {self.model} has no class token.",
                    expected="a transformer with one, or POOL=mean, max or grid:K",
                    todo="leave POOL out for the network's own pooling",
                )
            return pool.replace("mean", "patches")
        check_pool(pool)
        return pool

    def resolve(self, layers: tuple[str, ...]) -> tuple[str, ...]:
        """Turn the setting LAYERS into the network's own names, ``final`` kept as it is.

        Raises
        ------
        BackboneError
            The network has no such layer; the nearest names and the stages are given.
        """
        names: list[str] = []
        for layer in layers:
            if layer == "all":
                names += [s for s in self.stages if s != self.pooled_is_final] + ["final"]
            elif layer == "final" or layer in self.layers:
                names.append(layer)
            else:
                raise BackboneError(
                    f"{self.model} has no layer {layer}.",
                    expected=f"final, all, or one of its stages ({', '.join(self.stages)}), or any "
                    "module inside them",
                    todo="near: " + ", ".join(nearest(layer, list(self.layers))),
                )
        return tuple(dict.fromkeys(names))


def safe_name(name: str) -> str:
    """Make `name` fit for a file name on every system."""
    return re.sub(r"[^A-Za-z0-9._+-]+", "_", name)


def load_card(
    settings: CodesSettings,
    *,
    cache: Path,
    seed: int,
    offline: bool,
    progress: Progress = silent,
) -> Card:
    """Look a network up: in the cache if it has been seen before, else by building it.

    Parameters
    ----------
    settings : CodesSettings
        Its `model` and `weights` are used.
    cache : Path
        The cache folder: cards are in ``backbones/``, downloaded weights in ``weights/``.
    seed : int
        Of a random start (``weights="none"``).
    offline : bool
        Fetch nothing.
    progress : Progress
        Shows a download.

    Raises
    ------
    BackboneError
        No such network, or weights that do not fit it.
    DownloadError
        The weights cannot be fetched.
    """
    path = _path(settings, cache, seed)
    try:
        return _from_json(read_checked(path))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass  # not seen before, or damaged: look again
    card, _ = load_network(settings, cache=cache, seed=seed, offline=offline, progress=progress)
    return card


def load_network(
    settings: CodesSettings,
    *,
    cache: Path,
    seed: int,
    offline: bool,
    progress: Progress = silent,
) -> tuple[Card, nn.Module]:
    """Build the network itself (imports torch) and leave its card in the cache.

    Parameters and errors as :func:`load_card`. The network is in eval mode, float32, on the CPU.
    """
    from .catalog import find
    from .digests import state_digest, structure_digest
    from .network import survey
    from .sizes import fit_size
    from .weights import build

    entry = find(settings.model)
    network, preprocessing, origin = build(
        entry,
        settings.weights,
        folder=cache / "weights",
        seed=seed,
        offline=offline,
        progress=progress,
    )
    seen = survey(network, preprocessing.size)
    weights_digest = state_digest(network)
    card = Card(
        model=settings.model,
        weights=settings.weights,
        library=entry.library,
        arch=PACKAGED[entry.name].arch if entry.library == "packaged" else entry.name,
        origin=origin,
        weights_digest=weights_digest,
        preprocessing=preprocessing,
        final=seen.final,
        layers=seen.layers,
        stages=seen.stages,
        pooled_is_final=seen.pooled_is_final,
        n_parameters=sum(p.numel() for p in network.parameters()),
        structure_digest=structure_digest(network),
        tokens=seen.tokens,
        refound=_refound(network, seen),
    )
    path = _path(settings, cache, seed)
    try:
        current = _from_json(read_checked(path)) == card
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        current = False
    if not current:
        write_checked(path, asdict(card))
    if settings.weights != "none":
        last = classifier_of(network, card.final)
        remember_classifier(cache, safe_name(card.model), weights_digest, last)
    if settings.size not in (0, preprocessing.size):
        network = fit_size(network, settings.size)
    return card, network


def _refound(network: nn.Module, seen: Survey) -> bool:
    """Whether a layer of the output's width that is not the last one was once taken for it."""
    if seen.final == PLACE:
        return bool(getattr(network.get_submodule(PLACE), "mistaken", False))
    return seen.final != seen.by_width


def _path(settings: CodesSettings, cache: Path, seed: int) -> Path:
    weights: dict[str, Any] = {"asked": settings.weights}
    file = Path(settings.weights)
    if settings.weights == "none":
        weights["seed"] = seed
    elif is_file(settings.weights) and file.is_file():
        weights = {"file": sha256_file(file)}
    elif settings.model in PACKAGED and settings.weights == "default":
        weights["file"] = sha256_file(PACKAGED[settings.model].path())
    key = digest_of(
        {
            "version": _VERSION,
            "model": settings.model,
            "weights": weights,
            "libraries": {name: version(name) for name in ("torch", "torchvision", "timm")},
        }
    )
    return cache / "backbones" / f"{safe_name(settings.model)}-{key[:16]}.json"


def _from_json(value: dict[str, Any]) -> Card:
    value["preprocessing"] = Preprocessing.from_dict(value["preprocessing"])
    value["layers"] = {name: tuple(shape) for name, shape in value["layers"].items()}
    value["stages"] = tuple(value["stages"])
    if value["tokens"] is not None:
        value["tokens"] = Tokens(**value["tokens"])
    return Card(**value)
