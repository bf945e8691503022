"""A trained network on disk: ``<run>.safetensors`` (weights) and ``<run>.model.json`` (the rest).

The two hold all that prediction needs: weights, class names, the network's name, its
preprocessing, views and temperature. Loading runs no code of the file's maker: the network is
built by its library from its name, and the tensors must fit it exactly.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from ..backbones.catalog import find
from ..backbones.preprocess import Preprocessing
from ..backbones.sizes import fit_size
from ..backbones.torch_engine import tensor_of
from ..backbones.weights import build, parameter_shapes
from ..files import write_atomic, write_json
from ..heads.output import Output
from .description import SCHEMA, checkpoint_paths, read_description, refusal
from .start import new_head


def save_checkpoint(stem: Path, network: nn.Module, meta: Mapping[str, Any]) -> tuple[Path, Path]:
    """Write a network, completely or not at all; the description last.

    Parameters
    ----------
    stem : Path
        Folder and name without a suffix.
    network : nn.Module
        With its weights.
    meta : mapping
        ``model``, ``final`` (name of the last layer), ``classes``, ``preprocessing``, ``views``,
        the values of an :class:`~cnn_codes.heads.output.Output`, and whatever else is fit for JSON.
    """
    tensors = {n: t.detach().cpu().contiguous() for n, t in network.state_dict().items()}
    tensors = {n: t.clone() for n, t in tensors.items()}  # safetensors refuses shared memory
    data = save(tensors)
    description = {
        **meta,
        "schema": SCHEMA,
        "kind": "network",
        "tensors_sha256": hashlib.sha256(data).hexdigest(),
    }
    weights, json_path = checkpoint_paths(stem)
    write_atomic(weights, data)
    write_json(json_path, description)
    return weights, json_path


def load_checkpoint(path: Path) -> tuple[nn.Module, dict[str, Any]]:
    """Rebuild a network from its two files alone.

    Parameters
    ----------
    path : Path
        Either file, or their common stem.

    Returns
    -------
    network : nn.Module
        In eval mode, float32, on the CPU.
    meta : dict
        The description; ``preprocessing`` as a
        :class:`~cnn_codes.backbones.preprocess.Preprocessing`.

    Raises
    ------
    TrainingError
        A file is missing, damaged, of another schema or another network.
    """
    weights, _ = checkpoint_paths(path)
    meta = read_description(path)
    try:
        data = weights.read_bytes()
        if hashlib.sha256(data).hexdigest() != meta["tensors_sha256"]:
            raise ValueError("it is not the file that the description was written with")
        tensors = load(data)
    except (OSError, ValueError, SafetensorError) as error:
        raise refusal(weights, str(error)) from error
    return _network(weights, str(meta["model"]), meta, tensors), meta


def _network(
    path: Path, model: str, meta: Mapping[str, Any], tensors: dict[str, Tensor]
) -> nn.Module:
    final, n_classes = str(meta["final"]), len(meta["classes"])
    last = tensors.get(f"{final}.weight")
    if last is None or last.shape[:1] != (n_classes,):  # before a layer of that size is made
        raise refusal(path, f"it has no last layer {final} for {n_classes} classes")
    entry = find(model)
    shapes = parameter_shapes(entry) or {}
    needed = sum(n.numel() for name, n in shapes.items() if not name.startswith(f"{final}."))
    given = sum(tensors[name].numel() for name in shapes if name in tensors)
    if 2 * given < needed:  # before the network takes memory; embeddings of positions may differ
        raise refusal(
            path, f"it holds {given:,} of the {needed:,} numbers of {model}, so it is not one"
        )
    network, _, _ = build(entry, "none", folder=path.parent, seed=0, offline=True)
    network = fit_size(network, meta["preprocessing"].size)
    try:
        new_head(network, final, n_classes, seed=0)
    except AttributeError as error:
        raise refusal(path, f"{model} has no layer {final}") from error
    own = network.state_dict()
    wrong = [n for n in own.keys() | tensors.keys() if _differ(own.get(n), tensors.get(n))]
    if wrong:
        raise refusal(
            path, f"{len(wrong)} tensors are not those of {model}, {min(wrong)} among them"
        )
    infinite = [n for n, t in tensors.items() if t.is_floating_point() and not t.isfinite().all()]
    if infinite:
        raise refusal(path, f"{infinite[0]} holds numbers that are not finite")
    network.load_state_dict(tensors)
    return network.eval()


def _differ(a: Tensor | None, b: Tensor | None) -> bool:
    return a is None or b is None or a.shape != b.shape or a.dtype != b.dtype


def name_codes(network: nn.Module, final: str) -> nn.Module:
    """Give what goes into the last layer a name, ``<final>.codes``, by which it can be tapped.

    The network, changed in place, computes what it did: between codes and scores some have more
    than the last layer (SqueezeNet averages behind it), so prediction takes both from it.
    """
    last = network.get_submodule(final)
    named = nn.Sequential(OrderedDict(codes=nn.Identity(), scores=last))
    network.set_submodule(final, named.train(network.training))
    return network


@torch.inference_mode()
def predict_proba(
    network: nn.Module, meta: Mapping[str, Any], views: NDArray[np.uint8]
) -> NDArray[np.float64]:
    """Give the probability of each class.

    Parameters
    ----------
    network, meta
        From :func:`load_checkpoint`.
    views : uint8 (N, V, size, size, 3)
        All views of each image, as :func:`cnn_codes.backbones.preprocess.read_views` gives them.

    Returns
    -------
    float64 (N, K)
        Rows sum to 1.
    """
    preprocessing: Preprocessing = meta["preprocessing"]
    mean = torch.tensor(preprocessing.mean).view(1, 3, 1, 1) * 255
    std = torch.tensor(preprocessing.std).view(1, 3, 1, 1) * 255
    flat = tensor_of(views.reshape(-1, *views.shape[2:])).permute(0, 3, 1, 2)
    scores = torch.cat([network((part.float() - mean) / std) for part in torch.split(flat, 32)])
    mean_scores = scores.double().view(len(views), views.shape[1], -1).mean(1)  # (N, K)
    output: Output = meta["output"]
    return output.probabilities(mean_scores.numpy())
