"""Which device and engine run stage one; what is not there is an error, never replaced."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import DeviceError, SettingsError
from ..progress import Progress, silent
from ..settings import CodesSettings, MachineSettings
from .card import Card, load_network
from .graph import prepare_graph
from .preprocess import JoinedPreprocessing, Preprocessing

if TYPE_CHECKING:
    from torch import nn

    from .quantise import Calibration


class Engine(Protocol):
    """Runs a tapped network on batches of bytes.

    Attributes
    ----------
    name : str
        For people: ``onnx on cpu``.
    batch : int
        Images per call that suit it.
    concurrent : bool
        True: `run` is called from every reading thread, each on its own core. False: from one
        thread, while others read ahead.
    """

    name: str
    batch: int
    concurrent: bool

    def run(self, images: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """Map (B, size, size, 3) uint8 to one array (B, ...) a layer."""
        ...


class JoinedEngine:
    """Runs several networks on the same images, each on its own views.

    Parameters
    ----------
    engines : sequence of Engine
        One per network.
    preprocessing : JoinedPreprocessing
        How the views of all networks stand in one array.
    """

    def __init__(self, engines: Sequence[Engine], preprocessing: JoinedPreprocessing) -> None:
        self._engines = tuple(engines)
        self._preprocessing = preprocessing
        self.name = ", ".join(dict.fromkeys(one.name for one in engines))
        self.batch = min(one.batch for one in engines)
        self.concurrent = all(one.concurrent for one in engines)

    def run(self, images: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """Map (B, P) uint8 to one array (B, ...) per layer, one network after another."""
        views = self._preprocessing.parted(images)
        pairs = zip(self._engines, views, strict=True)
        return [block for engine, own in pairs for block in engine.run(own)]


def run_all(engine: Engine, images: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
    """Map any number of images (N, ...) to one array (N, ...) per layer, a batch at a time."""
    step = max(1, engine.batch)
    chunks = [engine.run(images[at : at + step]) for at in range(0, len(images), step)]
    return [np.concatenate(one) if len(one) > 1 else one[0] for one in zip(*chunks, strict=True)]


def n_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def pick_device(device: str) -> str:
    """Resolve ``auto``, and refuse a device that is not there.

    Raises
    ------
    DeviceError
        The device is not there; says what is.
    """
    n_cuda = _cuda_count()
    has_mps = platform.system() == "Darwin" and platform.machine() == "arm64"
    there = ["cpu", *(f"cuda:{i}" for i in range(n_cuda)), *(["mps"] if has_mps else [])]
    if device == "auto":
        return "cuda:0" if n_cuda else "mps" if has_mps else "cpu"
    wanted = "cuda:0" if device == "cuda" else device
    if wanted not in there:
        raise DeviceError(
            f"DEVICE={device} is not on this machine.",
            expected=f"one of auto, {', '.join(there)}",
            todo="leave DEVICE out to use the best that is there",
        )
    return wanted


def _cuda_count() -> int:
    """Count CUDA devices by asking the driver, without importing torch."""
    names = {"Windows": "nvcuda.dll", "Linux": "libcuda.so.1"}
    try:
        driver = ctypes.CDLL(names[platform.system()])
    except (KeyError, OSError):
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def open_engine(
    card: Card,
    layers: tuple[str, ...],
    preprocessing: Preprocessing,
    codes: CodesSettings,
    machine: MachineSettings,
    *,
    cache: Path,
    seed: int,
    offline: bool,
    progress: Progress = silent,
    build: Callable[[], nn.Module] | None = None,
    calibration: Calibration | None = None,
) -> Engine:
    """Open the engine that the settings ask for, exporting the network where there is need.

    Parameters
    ----------
    card : Card
        The network.
    layers : tuple of str
        Resolved layer names.
    preprocessing : Preprocessing
        Input size and normalisation.
    codes, machine : settings
        Pooling and precision; device, engine and batch.
    cache, seed, offline, progress
        As :func:`cnn_codes.backbones.load_card`.
    build : callable, optional
        Builds the network, in eval mode, where there is need; default: from `codes`. The card's
        weights digest must be of its weights.
    calibration : Calibration, optional
        The images that PRECISION=int8 is calibrated on.

    Raises
    ------
    DeviceError
        The device, or the engine on it, is not available here.
    SettingsError
        The precision is not available with this engine.
    """
    device = pick_device(machine.device)
    kind = machine.engine
    if kind == "auto":
        kind = "onnx" if device == "cpu" else "torch"
    if kind == "onnx" and device != "cpu":
        raise DeviceError(
            f"ENGINE=onnx runs on the CPU, not on {device}.",
            todo="leave ENGINE out, or add DEVICE=cpu",
        )
    if codes.precision == "mixed" and device == "cpu":
        raise SettingsError(
            "PRECISION=mixed needs a GPU; on this machine it would only be slower.",
            todo="leave PRECISION out",
        )
    if codes.precision == "int8":
        _check_int8(kind, device, calibration)
    source: dict[str, Any] = {
        "cache": cache,
        "seed": seed,
        "offline": offline,
        "progress": progress,
    }
    pool = card.pooling(codes.pool)
    sized = replace(codes, size=preprocessing.size)
    make = build or (lambda: load_network(sized, **source)[1])
    if kind == "onnx":
        from .onnx_engine import OnnxEngine

        path = prepare_graph(card, layers, pool, preprocessing, make, cache=cache)
        name = "onnx on cpu"
        if codes.precision == "int8" and calibration is not None:
            from .quantise import prepare_quantised

            path, name = prepare_quantised(path, calibration), "onnx in int8 on cpu"
        return OnnxEngine(path, batch=machine.extract_batch or 4, name=name)
    from .torch_engine import TorchEngine

    return TorchEngine(
        make(),
        layers,
        card.final,
        pool,
        preprocessing,
        tokens=card.tokens,
        device=device,
        mixed=codes.precision == "mixed",
        batch=machine.extract_batch,
    )


def _check_int8(kind: str, device: str, calibration: Calibration | None) -> None:
    """Refuse eight bits where they cannot be had.

    Raises
    ------
    SettingsError
        Another engine than ONNX Runtime on a CPU, or no images to calibrate on.
    """
    if kind != "onnx":
        raise SettingsError(
            f"PRECISION=int8 is not available with ENGINE={kind} on {device}.",
            expected="ONNX Runtime on a CPU",
            todo="add DEVICE=cpu ENGINE=onnx, or leave PRECISION out",
        )
    if calibration is None:
        raise SettingsError(
            "PRECISION=int8 needs a data set with training images to calibrate the network on.",
            todo="leave PRECISION out",
        )
