"""The part of an exported network that a run needs, cut out with onnx's own tools, and pooled.

The export has the outputs of the layers as they are: maps (B, C, H, W) or (B, H, W, C), tokens
(B, T, C), vectors. What does not lead to the layers that are asked for is left out, and nodes that
pool are added: the same arithmetic as :class:`cnn_codes.backbones.tapped.Tapped`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.utils import Extractor

from ..errors import BackboneError, CacheError
from .pooling import TOKEN_POOLS, Tokens, bins_of, check_pool, no_class_token, prefix_of


def cut_graph(full: Path, layers: tuple[str, ...], pool: str, tokens: Tokens | None) -> bytes:
    """Cut the graph of some layers out of an export, and pool their outputs.

    Parameters
    ----------
    full : Path
        From :func:`cnn_codes.backbones.graph.export_graph`.
    layers : tuple of str
        Resolved names, tapped in the export.
    pool : str
        From :meth:`cnn_codes.backbones.card.Card.pooling`.
    tokens : Tokens or None
        From the network's card.

    Returns
    -------
    bytes
        An ONNX model: ``images`` (B, size, size, 3) uint8 to one float32 output a layer, in order.

    Raises
    ------
    BackboneError
        A layer cannot be pooled so.
    CacheError
        The export is not one of this version's.
    """
    model = onnx.load(full)
    try:
        (names,) = (json.loads(p.value) for p in model.metadata_props if p.key == "layers")
        taps = {layer: _sources(layer, pool, tokens) for layer in layers}
        wanted = list(dict.fromkeys(name for sources in taps.values() for name in sources))
        values = {name: f"codes_{names.index(name)}" for name in wanted}
        part = Extractor(model).extract_model(["images"], list(values.values()))
    except (ValueError, KeyError, TypeError) as error:
        raise CacheError(
            f"The exported network {full.name} cannot be used: {error}.",
            todo=f"remove {full}; it will be exported again",
        ) from error
    shapes = {
        one.name: [dim.dim_value for dim in one.type.tensor_type.shape.dim]
        for one in part.graph.output
    }
    del part.graph.output[:]
    adder = _Adder(part.graph)
    for i, layer in enumerate(layers):
        sources = [values[name] for name in taps[layer]]
        if len(sources) > 1:
            result, rank = adder.node("Concat", sources, axis=1), 2
        else:
            result, rank = _pooled(adder, sources[0], shapes[sources[0]], pool, tokens)
        output = f"layer_{i}"
        part.graph.node.append(helper.make_node("Identity", [result], [output]))
        dims = ["n_images", *(f"{output}_{axis}" for axis in range(1, rank))]
        part.graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, dims))
    part.graph.name = "codes"
    data: bytes = part.SerializeToString()
    return data


def _sources(layer: str, pool: str, tokens: Tokens | None) -> list[str]:
    """Name the export's outputs that a layer's codes are made from."""
    if layer == "final" and pool in TOKEN_POOLS and tokens is not None:
        return [f"final@{one}" for one in pool.split("+")]
    return [layer]


class _Adder:
    """Adds nodes and constants with names of their own to a graph."""

    def __init__(self, graph: Any) -> None:
        self._graph = graph
        self._n = 0

    def _name(self) -> str:
        self._n += 1
        return f"pooling_{self._n}"

    def constant(self, value: NDArray[Any]) -> str:
        name = self._name()
        self._graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    def ints(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def node(self, kind: str, inputs: list[str], **attributes: Any) -> str:
        name = self._name()
        self._graph.node.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name


def _pooled(
    add: _Adder, x: str, shape: list[int], pool: str, tokens: Tokens | None
) -> tuple[str, int]:
    """Add the pooling of one output of `shape` (B, ...); give the result and its rank."""
    if pool == "none" or len(shape) == 2:
        return x, len(shape)
    if pool in TOKEN_POOLS:
        if len(shape) == 3:
            assert tokens is not None
            return _of_tokens(add, x, shape[1], pool, tokens), 2
        if pool != "patches":
            raise no_class_token("maps")
        pool = "mean"
    grid = check_pool(pool)
    if len(shape) == 4 and shape[1] == shape[2] != shape[3]:
        x = add.node("Transpose", [x], perm=[0, 3, 1, 2])
        shape = [shape[0], shape[3], shape[1], shape[2]]
    elif len(shape) == 3:
        if grid:
            raise BackboneError(
                "grid pooling needs maps; this layer gives tokens.",
                expected="layers whose output is a map",
                todo="POOL=mean or POOL=max, or other LAYERS",
            )
        x = add.node("Transpose", [x], perm=[0, 2, 1])
    if grid:
        rows = add.constant(bins_of(shape[2], grid).astype(np.float32))  # (K, H)
        columns = add.constant(bins_of(shape[3], grid).T.astype(np.float32))  # (W, K)
        binned = add.node("MatMul", [add.node("MatMul", [rows, x]), columns])  # (B, C, K, K)
        return add.node("Flatten", [binned], axis=1), 2
    if len(shape) == 4:
        x = add.node("Reshape", [x, add.ints(0, 0, -1)])  # (B, C, H * W)
    kind = "ReduceMax" if pool == "max" else "ReduceMean"
    return add.node(kind, [x, add.ints(2)], keepdims=0), 2


def _of_tokens(add: _Adder, x: str, n_tokens: int, pool: str, tokens: Tokens) -> str:
    """Add the pooling of tokens (B, T, C), as the network's own is done in torch."""
    n_prefix = prefix_of(n_tokens, tokens)
    if n_prefix is None:
        raise no_class_token(f"{n_tokens} tokens, which are not a square grid")
    parts = []
    if pool.startswith("cls"):
        if not n_prefix or not tokens.class_token:
            raise no_class_token("tokens of patches alone")
        parts.append(add.node("Gather", [x, add.constant(np.array(0, np.int64))], axis=1))
    if pool.endswith("patches"):
        patches = add.node(
            "Slice", [x, add.ints(n_prefix), add.ints(n_tokens), add.ints(1), add.ints(1)]
        )
        parts.append(add.node("ReduceMean", [patches, add.ints(1)], keepdims=0))
    return parts[0] if len(parts) == 1 else add.node("Concat", parts, axis=1)
