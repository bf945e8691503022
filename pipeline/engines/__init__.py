"""What runs a frozen network: ONNX Runtime on a CPU, PyTorch on a GPU (or a CPU, if asked).

Engines differ in speed only. Their codes agree with plain ``eval()`` PyTorch to 1e-3 relative,
and do not depend on the batch.
"""

from pipeline.engines.choice import Engine, open_engine

__all__ = ["Engine", "open_engine"]
