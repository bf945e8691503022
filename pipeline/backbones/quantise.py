"""A network's graph in 8-bit whole numbers: static quantisation by ONNX Runtime's own tool.

Weights are rounded per channel, activations by the range that all but a few of their values
keep on calibration images (percentile calibration: single extreme values would otherwise make
the steps coarse for all). The first convolution, which sees the pixels, and the last one, whose
output is the codes, stay in float32: there an error costs most, and the time is small.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from ..errors import BackboneError, first_line

__all__ = ["quantise"]

PERCENTILE = 99.99
_KINDS = ("Conv", "Gemm", "MatMul", "Add")
_LAYERS = ("Conv", "Gemm", "MatMul")


def quantise(graph: onnx.ModelProto, images: Sequence[NDArray[np.uint8]]) -> onnx.ModelProto:
    """Quantise a network's graph.

    Parameters
    ----------
    graph : ModelProto
        Of one input, uint8 (B, size, size, 3), as
        :func:`cnn_codes.backbones.graph.export_graph` writes it.
    images : sequence of uint8 (size, size, 3)
        Training images as the network sees them, for the ranges of the activations; some 32 to
        128 of all classes.

    Returns
    -------
    ModelProto
        With the same inputs and outputs; convolutions and products are bracketed by
        QuantizeLinear and DequantizeLinear. Equal inputs give equal bytes.

    Raises
    ------
    BackboneError
        There are no images, or the network cannot be quantised.
    """
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    if not len(images):
        raise BackboneError(
            "There are no images to calibrate with.", expected="some 32 to 128 training images"
        )
    name = graph.graph.input[0].name

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        """Hands the images on, one at a time."""

        def __init__(self) -> None:
            self._left: Iterator[NDArray[np.uint8]] = iter(images)

        def get_next(self) -> dict[str, Any] | None:
            one = next(self._left, None)
            return None if one is None else {name: np.ascontiguousarray(one)[None]}

    with tempfile.TemporaryDirectory(prefix="cnn-codes-") as folder:
        given, ready, made = (Path(folder) / f"{step}.onnx" for step in ("given", "ready", "made"))
        onnx.save(graph, given)
        try:
            quant_pre_process(str(given), str(ready), skip_symbolic_shape=True)
            quantize_static(
                str(ready),
                str(made),
                Reader(),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(_KINDS),
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=_ends(onnx.load(ready)),
                calibrate_method=CalibrationMethod.Percentile,
                extra_options={"CalibPercentile": PERCENTILE},
            )
        except Exception as error:  # the tool's own exceptions have no common base
            raise BackboneError(
                f"The network cannot be quantised: {first_line(error)}",
                todo="leave PRECISION out: float32",
            ) from error
        return onnx.load(made)


def _ends(graph: onnx.ModelProto) -> list[str]:
    """Name the first and the last layer, and every node that computes no part of an image.

    Sums and products of sizes, which exporters leave behind, are whole numbers already.
    """
    layers = [node.name for node in graph.graph.node if node.op_type in _LAYERS]
    known = {one.name: one.type.tensor_type.elem_type for one in graph.graph.value_info}
    whole = [
        node.name
        for node in graph.graph.node
        if node.op_type in _KINDS
        and known.get(node.output[0], onnx.TensorProto.FLOAT) != onnx.TensorProto.FLOAT
    ]
    return [*dict.fromkeys([*layers[:1], *layers[-1:], *whole])]
