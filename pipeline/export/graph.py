"""ONNX graphs written node by node, with names that are the same every time."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike
from onnx import TensorProto, helper, numpy_helper

__all__ = ["BOOL", "DOUBLE", "FLOAT", "INT64", "UINT8", "Graph"]

FLOAT, DOUBLE, UINT8 = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.UINT8
INT64, BOOL = TensorProto.INT64, TensorProto.BOOL


class Graph:
    """Nodes and constants under construction; a value is known by its name.

    Parameters
    ----------
    prefix : str
        In front of every name, so that graphs can be joined.
    """

    def __init__(self, prefix: str) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._prefix = prefix
        self._count = 0
        self._known: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    def __call__(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node of one output and give the output's name."""
        return self.several(kind, 1, *inputs, **attributes)[0]

    def several(self, kind: str, n_outputs: int, *inputs: str, **attributes: Any) -> list[str]:
        """Add a node of several outputs."""
        outputs = [self._name(kind) for _ in range(n_outputs)]
        self.nodes.append(
            helper.make_node(kind, list(inputs), outputs, name=outputs[0], **attributes)
        )
        return outputs

    def rename(self, value: str, name: str) -> None:
        """Give a value a name of its own: that of an output."""
        self.nodes.append(helper.make_node("Identity", [value], [name], name=name))

    def constant(self, value: ArrayLike, dtype: Any = np.float64) -> str:
        """Add a constant, equal ones once."""
        array = np.asarray(value, dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._known:
            self._known[key] = self._name("constant")
            self.constants.append(numpy_helper.from_array(array.copy(), self._known[key]))
        return self._known[key]

    def ints(self, *values: int) -> str:
        """Add a constant vector of whole numbers."""
        return self.constant(values, np.int64)

    def cast(self, value: str, to: int) -> str:
        """Convert to another type."""
        return self("Cast", value, to=to)

    def total(self, value: str, axis: int, kind: str = "ReduceSum") -> str:
        """Reduce one axis, which stays with length 1."""
        return self(kind, value, self.ints(axis), keepdims=1)

    def _name(self, kind: str) -> str:
        self._count += 1
        return f"{self._prefix}_{kind.lower()}_{self._count}"
