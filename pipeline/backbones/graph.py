"""A network exported to ONNX: bytes in, codes of the layers out, normalisation inside.

A network is exported once for each input size, with the outputs of all its stages as they are
(``<model>-<key>.full.onnx``). Which takes some ten seconds and torch. What a run needs is cut out
of it with onnx's own tools, and the pooling is added there (:mod:`.cut`); that takes a fraction of
a second and no torch. Both are kept in the cache, named by a digest of everything they depend on,
the versions of the exporting libraries among it, with the SHA-256 of their bytes in a second file.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BackboneError, first_line
from ..files import digest_of, replacing, sha256_file, write_atomic
from ..notation import size
from .card import Card, safe_name
from .preprocess import Preprocessing

if TYPE_CHECKING:
    from torch import nn

_VERSION = 2  # of what is exported and how
_LIBRARIES = ("torch", "torchvision", "timm", "onnx", "onnxscript")
_LIMIT_BYTES = 2**31 - 1  # of a protobuf message


def graph_path(
    card: Card, layers: tuple[str, ...], pool: str, preprocessing: Preprocessing, *, cache: Path
) -> Path:
    """Name the graph of these outputs at this input size, whether it is there or not.

    Parameters
    ----------
    card, layers, preprocessing
        The network, resolved layer names, input size and colours.
    pool : str
        The way that codes are made, from :meth:`cnn_codes.backbones.card.Card.pooling`.
    cache : Path
        The cache folder.
    """
    key = _key(card, preprocessing, layers=layers, pool=pool)
    return cache / "backbones" / f"{safe_name(card.model)}-{key[:16]}.onnx"


def full_path(
    card: Card, layers: tuple[str, ...], preprocessing: Preprocessing, *, cache: Path
) -> Path:
    """Name the export that `layers` can be cut out of.

    It is the same for all stages and the final layer; a layer inside a stage needs one of its own.
    """
    key = _key(card, preprocessing, layers=_taps(card, layers), pool="")
    return cache / "backbones" / f"{safe_name(card.model)}-{key[:16]}.full.onnx"


def _key(card: Card, preprocessing: Preprocessing, *, layers: tuple[str, ...], pool: str) -> str:
    return digest_of(
        {
            "version": _VERSION,
            "weights": card.weights_digest,
            "structure": card.structure_digest,
            "libraries": {name: version(name) for name in _LIBRARIES},
            "arch": [card.library, card.arch],
            "layers": layers,
            "pool": pool,
            "size": preprocessing.size,
            "mean": preprocessing.mean,
            "std": preprocessing.std,
        }
    )


def _taps(card: Card, layers: tuple[str, ...]) -> tuple[str, ...]:
    """List what is tapped at once: all stages, the final layer, and what else was asked for."""
    tokens = ("final@cls", "final@patches") if card.tokens and card.tokens.class_token else ()
    patches = ("final@patches",) if card.tokens and not tokens else ()
    return tuple(dict.fromkeys([*card.stages, "final", *tokens, *patches, *layers]))


def is_sound(path: Path) -> bool:
    """Whether the graph is there and its bytes are those that were written."""
    try:
        return path.with_suffix(".sha256").read_bytes() == sha256_file(path).encode()
    except OSError:
        return False


def prepare_graph(
    card: Card,
    layers: tuple[str, ...],
    pool: str,
    preprocessing: Preprocessing,
    build: Callable[[], nn.Module],
    *,
    cache: Path,
) -> Path:
    """Have the graph of these outputs in the cache: as it is, cut from an export, or exported.

    Parameters
    ----------
    card, layers, pool, preprocessing, cache
        As :func:`graph_path`.
    build : callable
        Builds the network, in eval mode; called only where it has to be exported.

    Returns
    -------
    Path
        The graph, whose bytes are what was written.

    Raises
    ------
    BackboneError
        The exporter cannot express this network, or a layer cannot be pooled so.
    """
    path = graph_path(card, layers, pool, preprocessing, cache=cache)
    if is_sound(path):
        return path
    full = full_path(card, layers, preprocessing, cache=cache)
    if not is_sound(full):
        export_graph(build(), card, layers, preprocessing, full)
    from .cut import cut_graph

    write_graph(path, cut_graph(full, layers, pool, card.tokens))
    return path


def write_graph(path: Path, data: bytes) -> None:
    """Write a graph, completely or not at all, and its SHA-256 after it."""
    with replacing(path) as stream:
        stream.write(data)
    write_atomic(path.with_suffix(".sha256"), sha256_file(path).encode())


def export_graph(
    network: nn.Module,
    card: Card,
    layers: tuple[str, ...],
    preprocessing: Preprocessing,
    path: Path,
) -> None:
    """Export `network`, with all its stages and `layers` tapped, to `path`.

    Raises
    ------
    BackboneError
        The exporter cannot express this network.
    """
    import torch

    from .tapped import Tapped

    size = preprocessing.size
    taps = _taps(card, layers)
    tapped = Tapped(
        network, taps, card.final, "none", preprocessing, tokens=card.tokens, stop_early=False
    ).eval()
    example = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        try:
            program = torch.onnx.export(
                tapped,
                (example,),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("n_images")},),
                input_names=["images"],
                output_names=[f"codes_{i}" for i in range(len(taps))],
                verbose=False,
            )
        except Exception as error:
            raise BackboneError(
                f"{card.model} cannot be exported to ONNX: {first_line(error)}",
                todo="ENGINE=torch runs it without an export",
            ) from error
    assert program is not None
    write_graph(path, _serialised(program.model_proto, taps, card.model))


def _serialised(model: Any, taps: tuple[str, ...], name: str) -> bytes:
    """Turn an exported model into bytes, with the layers' names and without stack traces."""
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in model.graph.value_info:
        del value.metadata_props[:]
    entry = model.metadata_props.add()
    entry.key, entry.value = "layers", json.dumps(list(taps))
    if model.ByteSize() > _LIMIT_BYTES:
        raise BackboneError(
            f"{name} is too large for one ONNX file ({size(model.ByteSize())}; 2.1 GB fit).",
            todo="ENGINE=torch runs it without an export",
        )
    data: bytes = model.SerializeToString()
    return data
