"""A network in eight bits: an exported graph quantised with ONNX Runtime's own tools.

Static quantisation in the QDQ form (Jacob et al. 2018, arXiv 1712.05877; Wu et al. 2020, arXiv
2004.09602): weights per channel, activations per tensor. The first eighth of the layers with
weights (at most six) and the last one stay in float32, since early errors are carried on. The
range of an activation is the mean over the calibration images of its smallest and largest value,
so that one extreme image does not widen it. Weights use seven of the eight bits: CPUs without
VNNI instructions would saturate otherwise, and give other codes.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BackboneError, first_line
from ..files import digest_of
from .graph import is_sound, write_graph
from .trusted import read_checked, write_checked

__all__ = [
    "N_CALIBRATION",
    "N_COMPARED",
    "VERSION",
    "Agreement",
    "Calibration",
    "agreement_of",
    "cosines",
    "prepare_quantised",
    "quantise",
    "quantised_path",
]

VERSION = 3  # of what is quantised and how; part of the fingerprint of codes in int8
N_CALIBRATION = 128  # images that set the ranges
N_COMPARED = 64  # further images, on which the codes are compared with float32
_CHUNK = 4
_MOST_FIRST = 6
_LAYERS = ("Conv", "Gemm", "MatMul")
_QUANTISED = [*_LAYERS, "Add", "Mul", "Relu", "Clip", "MaxPool", "AveragePool"]


@dataclass(frozen=True)
class Calibration:
    """The images that the ranges of activations are taken from.

    Attributes
    ----------
    digest : str
        SHA-256 over the digests of the images' bytes; part of the fingerprint.
    images : callable
        Gives the images that set the ranges and those on which the codes are compared, each uint8
        (N, size, size, 3). It is called only where a graph has to be quantised.
    """

    digest: str
    images: Callable[[], tuple[NDArray[np.uint8], NDArray[np.uint8]]]


@dataclass(frozen=True)
class Agreement:
    """Cosines between codes in int8 and in float32, each image's layers side by side.

    Attributes
    ----------
    n : int
        Images, none of which set a range.
    mean, least : float
        -1 to 1.
    """

    n: int
    mean: float
    least: float


def quantise(graph: bytes, images: NDArray[np.uint8]) -> bytes:
    """Quantise an exported graph to eight bits.

    Parameters
    ----------
    graph : bytes
        An ONNX model with one input ``images``, uint8 (B, size, size, 3).
    images : array of shape (N, size, size, 3), uint8
        Calibration images; some 100 that are like those of later use.

    Returns
    -------
    bytes
        The quantised model, with the same input and outputs. Equal input gives equal bytes.

    Raises
    ------
    BackboneError
        There are no images, or ONNX Runtime cannot quantise this graph.
    """
    if not len(images):
        raise BackboneError(
            "There is no image to calibrate the quantised network on.",
            expected="training images that can be read",
            todo="leave PRECISION out",
        )
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with (
        tempfile.TemporaryDirectory(prefix="quantise-") as folder,
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        _quiet(),
    ):
        warnings.simplefilter("ignore")  # numpy's, about ranges of activations that are all zero
        given, prepared, small = (Path(folder) / f"{name}.onnx" for name in ("a", "b", "c"))
        given.write_bytes(graph)
        try:
            quant_pre_process(given, prepared, skip_symbolic_shape=True)
            quantization.quantize_static(
                prepared,
                small,
                _reader(images),
                quant_format=quantization.QuantFormat.QDQ,
                op_types_to_quantize=_QUANTISED,
                nodes_to_exclude=_ends(prepared),
                per_channel=True,
                reduce_range=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                calibrate_method=quantization.CalibrationMethod.MinMax,
                extra_options={"CalibMovingAverage": True},
            )
            return bytes(onnx.load(small).SerializeToString(deterministic=True))
        except Exception as error:  # its exceptions have no common base
            raise BackboneError(
                f"ONNX Runtime cannot quantise this network: {first_line(error)}",
                todo="leave PRECISION out; float32 runs it",
            ) from error


def quantised_path(path: Path, calibration: str) -> Path:
    """Name the quantised twin of an exported graph, for the digest of a calibration."""
    key = digest_of({"version": VERSION, "calibration": calibration})
    return path.with_name(f"{path.stem}-int8-{key[:16]}.onnx")


def prepare_quantised(path: Path, calibration: Calibration) -> Path:
    """Have the quantised twin of an exported graph in the cache, and how near its codes are.

    Parameters
    ----------
    path : Path
        The exported graph.
    calibration : Calibration
        Its images.

    Returns
    -------
    Path
        The quantised graph; :func:`agreement_of` reads the comparison.
    """
    target = quantised_path(path, calibration.digest)
    if is_sound(target):
        return target
    images, others = calibration.images()
    write_graph(target, quantise(path.read_bytes(), images))
    if len(others):
        found = cosines(_codes(path, others), _codes(target, others))
        write_checked(
            target.with_suffix(".agreement.json"),
            {"n": len(found), "mean": float(found.mean()), "least": float(found.min())},
        )
    return target


def agreement_of(target: Path) -> Agreement | None:
    """Read how near the codes of a quantised graph are to float32; None: it was not measured."""
    try:
        return Agreement(**read_checked(target.with_suffix(".agreement.json")))
    except (OSError, ValueError, TypeError):
        return None


def cosines(a: list[NDArray[Any]], b: list[NDArray[Any]]) -> NDArray[np.float64]:
    """Cosine of each image's codes from two networks, the layers side by side: (N,), -1 to 1."""
    x, y = (
        np.concatenate([one.reshape(len(one), -1) for one in codes], axis=1).astype(np.float64)
        for codes in (a, b)
    )
    norms = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    found: NDArray[np.float64] = (x * y).sum(axis=1) / np.maximum(norms, 1e-30)
    return found


def _codes(path: Path, images: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
    """Run a graph over images, one array (N, ...) per layer."""
    from .onnx_engine import OnnxEngine

    engine = OnnxEngine(path, batch=_CHUNK)
    chunks = [engine.run(images[at : at + _CHUNK]) for at in range(0, len(images), _CHUNK)]
    return [np.concatenate(one) for one in zip(*chunks, strict=True)]


def _ends(path: Path) -> list[str]:
    """Name the first layers with weights and the last one, which stay in float32."""
    import onnx

    layers = [node.name for node in onnx.load(path).graph.node if node.op_type in _LAYERS]
    n_first = max(1, min(_MOST_FIRST, len(layers) // 8))
    return [*layers[:n_first], *layers[-1:]]


def _reader(images: NDArray[np.uint8]) -> Any:
    """Give the images one at a time, as ONNX Runtime's calibration asks for them."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._at = iter(images)

        def get_next(self) -> dict[str, Any] | None:
            image = next(self._at, None)
            return None if image is None else {"images": image[None]}

    return Reader()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the quantiser's advice off the terminal."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
