"""A network in eight bits: an exported graph quantised with ONNX Runtime's own tools.

Static quantisation in the QDQ form (Jacob et al. 2018, arXiv 1712.05877; Wu et al. 2020, arXiv
2004.09602): weights per channel, activations per tensor. The range of an activation is the mean
over the calibration images of its smallest and largest value, so that one extreme image does not
widen it. The first layers with weights stay in float32, since early errors are carried on, and so
does a last matrix product, which is mostly a classifier.

Weights take all eight bits where this CPU sums products of bytes exactly (VNNI instructions, ARM),
and seven elsewhere, where such sums saturate; fewer early layers need float32 then. Which it is
belongs to the fingerprint of the codes. What was measured: ``benchmarks/int8.md``.
"""

from __future__ import annotations

import contextlib
import functools
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

VERSION = 4  # of what is quantised and how; part of the fingerprint of codes in int8
N_CALIBRATION = 128  # images that set the ranges
N_COMPARED = 64  # further images, on which the codes are compared with float32
_CHUNK = 4
_FIRST = {8: 3, 7: 6}  # layers that stay in float32, at most an eighth, by the bits of the weights
_PORTABLE = 7
_BITS = "cnn_codes.weight_bits"
_LAYERS = ("Conv", "Gemm", "MatMul")
_QUANTISED = [*_LAYERS, "Add", "Mul", "Relu", "Clip", "MaxPool", "AveragePool"]


@dataclass(frozen=True)
class Calibration:
    """The images that the ranges of activations are taken from.

    Attributes
    ----------
    digest : str
        SHA-256 over the digests of the images' bytes and the bits of a weight here; part of the
        fingerprint.
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


@functools.cache
def weight_bits() -> int:
    """Bits of a weight that ONNX Runtime uses exactly on this CPU: 8, or 7 where sums saturate."""
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    n = 64
    weights = numpy_helper.from_array(np.full((n, 16), 127, np.int8), "weights")
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["bytes", "weights"], ["sums"])],
        "saturation",
        [helper.make_tensor_value_info("bytes", TensorProto.UINT8, [1, n])],
        [helper.make_tensor_value_info("sums", TensorProto.INT32, [1, 16])],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = onnx.IR_VERSION_2023_5_5  # of opset 17's time, which every runtime reads
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (sums,) = session.run(None, {"bytes": np.full((1, n), 255, np.uint8)})
    return 8 if np.all(sums == 255 * 127 * n) else _PORTABLE


def weight_bits_of(graph: Any) -> int:
    """Read how many bits the weights of a quantised graph (a ``ModelProto``) take."""
    known = {one.key: one.value for one in graph.metadata_props}
    return int(known.get(_BITS, _PORTABLE))


def quantise(graph: bytes, images: NDArray[np.uint8], bits: int = _PORTABLE) -> bytes:
    """Quantise an exported graph to eight bits.

    Parameters
    ----------
    graph : bytes
        An ONNX model with one input ``images``, uint8 (B, size, size, 3).
    images : array of shape (N, size, size, 3), uint8
        Calibration images; some 100 that are like those of later use.
    bits : int
        Of the weights: 7, which every CPU runs alike, or 8 (:func:`weight_bits`).

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
                nodes_to_exclude=_ends(prepared, _FIRST[bits]),
                per_channel=True,
                reduce_range=bits == _PORTABLE,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                calibrate_method=quantization.CalibrationMethod.MinMax,
                extra_options={"CalibMovingAverage": True},
            )
            found = onnx.load(small)
            found.metadata_props.add(key=_BITS, value=str(bits))
            return bytes(found.SerializeToString(deterministic=True))
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

    Raises
    ------
    BackboneError
        It cannot be quantised, or was for another CPU.
    """
    target = quantised_path(path, calibration.digest)
    if is_sound(target):
        _check_cpu(target)
        return target
    images, others = calibration.images()
    write_graph(target, quantise(path.read_bytes(), images, weight_bits()))
    if len(others):
        found = cosines(_codes(path, others), _codes(target, others))
        write_checked(
            target.with_suffix(".agreement.json"),
            {"n": len(found), "mean": float(found.mean()), "least": float(found.min())},
        )
    return target


def _check_cpu(path: Path) -> None:
    """Refuse a graph whose sums would saturate here: its codes would be others, without a word."""
    import onnx

    bits = weight_bits_of(onnx.load(path))
    if bits > weight_bits():
        raise BackboneError(
            f"{path} was quantised on a CPU that sums products of bytes exactly; this one "
            "saturates, and would give other codes.",
            expected="a CPU with VNNI instructions, or of ARM",
            todo="make the codes and the run again here, or leave PRECISION out",
        )


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


def _ends(path: Path, most: int) -> list[str]:
    """Name what stays in float32: the first layers with weights, and a last matrix product."""
    import onnx

    layers = [node for node in onnx.load(path).graph.node if node.op_type in _LAYERS]
    n_first = max(1, min(most, len(layers) // 8))
    kept = [*layers[:n_first], *(one for one in layers[-1:] if one.op_type != "Conv")]
    return [node.name for node in kept]


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
