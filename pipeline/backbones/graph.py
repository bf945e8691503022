"""A network exported to ONNX: bytes in, codes of the layers out, normalisation inside.

Exporting takes some ten seconds and torch; so the graph is kept in the cache, named by a digest
of everything it depends on, with the SHA-256 of its bytes beside it. Running it needs neither
torch nor the network's library.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import BackboneError, first_line
from ..files import digest_of, replacing, sha256_file, write_atomic
from .card import Card, safe_name
from .preprocess import Preprocessing

if TYPE_CHECKING:
    from torch import nn

__all__ = ["export_graph", "graph_path", "is_sound"]

_VERSION = 1  # of what is exported and how


def graph_path(
    card: Card, layers: tuple[str, ...], pool: str, preprocessing: Preprocessing, *, cache: Path
) -> Path:
    """Name the graph of these outputs at this input size, whether it is there or not."""
    key = digest_of(
        {
            "version": _VERSION,
            "weights": card.weights_digest,
            "arch": [card.library, card.arch],
            "layers": layers,
            "pool": pool,
            "size": preprocessing.size,
            "mean": preprocessing.mean,
            "std": preprocessing.std,
        }
    )
    return cache / "backbones" / f"{safe_name(card.model)}-{key[:16]}.onnx"


def is_sound(path: Path) -> bool:
    """Whether the graph is there and its bytes are those that were written."""
    try:
        return path.with_suffix(".sha256").read_text() == sha256_file(path)
    except OSError:
        return False


def export_graph(
    network: nn.Module,
    card: Card,
    layers: tuple[str, ...],
    pool: str,
    preprocessing: Preprocessing,
    path: Path,
) -> None:
    """Export the tapped `network` to `path`.

    Raises
    ------
    BackboneError
        The exporter cannot express this network.
    """
    import torch

    from .network import Tapped

    size = preprocessing.size
    tapped = Tapped(network, layers, card.final, pool, preprocessing, stop_early=False).eval()
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
                output_names=[f"codes_{i}" for i in range(len(layers))],
                verbose=False,
            )
        except Exception as error:
            raise BackboneError(
                f"{card.model} cannot be exported to ONNX: {first_line(error)}",
                todo="ENGINE=torch runs it without an export",
            ) from error
    assert program is not None
    with replacing(path) as stream:
        stream.write(program.model_proto.SerializeToString())
    write_atomic(path.with_suffix(".sha256"), sha256_file(path).encode())
