"""ONNX Runtime on a CPU: one session, one core a call, as many calls at once as there are cores.

Measured on two cores with EfficientNet-Lite0: two threads that each read, resize and run their
own images keep both cores busy without waiting for each other, and beat a session of two threads
fed by readers. Results are bit-identical for every batch size and number of threads (tested).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from ..errors import CacheError


class OnnxEngine:
    """Runs an exported graph.

    Parameters
    ----------
    path : Path
        The graph, as :func:`cnn_codes.backbones.graph.export_graph` wrote it.
    batch : int
        Images per call; small batches keep a core's cache warm.
    name : str
        For people.
    """

    concurrent = True

    def __init__(self, path: Path, *, batch: int, name: str = "onnx on cpu") -> None:
        self.name = name
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self.batch = batch
        try:
            self._session = onnxruntime.InferenceSession(
                path, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime's own exceptions have no common base
            raise CacheError(
                f"The exported network {path.name} does not load: {error}",
                todo=f"remove {path}; it will be exported again",
            ) from error

    def run(self, images: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """Map (B, size, size, 3) uint8 to one float32 array (B, ...) a layer."""
        outputs: list[NDArray[np.float32]] = self._session.run(None, {"images": images})
        return outputs
