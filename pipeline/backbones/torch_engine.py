"""PyTorch, for GPUs: channels last, mixed precision where asked, copies during the arithmetic.

On a CPU it is the reference that the other engine is tested against. Every batch is filled up to
the same shape, so that codes do not depend on which images came together.
"""

from __future__ import annotations

import contextlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..errors import DeviceError, first_line
from .pooling import Tokens
from .preprocess import Preprocessing
from .tapped import Tapped


def tensor_of(images: NDArray[np.uint8]) -> Tensor:
    """Give images as a tensor; a copy only where they are not contiguous, or not to be written.

    PyTorch warns of arrays that cannot be written, as decoders give them.
    """
    return torch.from_numpy(np.require(images, requirements=("C", "W")))


class TorchEngine:
    """Runs a tapped network in eager mode.

    Parameters
    ----------
    network : nn.Module
        In eval mode.
    layers, final, pool, preprocessing, tokens
        As :class:`cnn_codes.backbones.tapped.Tapped`.
    device : str
        ``cpu``, ``cuda:N`` or ``mps``.
    mixed : bool
        float16 arithmetic where it is safe (autocast).
    batch : int
        Images per call; 0: 128 on a GPU, 16 on a CPU.
    """

    concurrent = False

    def __init__(
        self,
        network: nn.Module,
        layers: tuple[str, ...],
        final: str | None,
        pool: str,
        preprocessing: Preprocessing,
        *,
        device: str,
        tokens: Tokens | None = None,
        mixed: bool = False,
        batch: int = 0,
    ) -> None:
        self.name = f"torch on {device}"
        self._device = torch.device(device)
        self._mixed = mixed
        self.batch = batch or (16 if device == "cpu" else 128)
        if self._device.type == "cuda":  # float32 means float32: no TF32 behind its back
            torch.backends.cuda.matmul.allow_tf32 = False
            torch.backends.cudnn.allow_tf32 = False
            torch.backends.cudnn.benchmark = False  # the algorithm must not vary between runs
        tapped = Tapped(network, layers, final, pool, preprocessing, tokens=tokens)
        try:
            self._tapped = tapped.eval().to(self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        except (RuntimeError, AssertionError) as error:
            raise DeviceError(
                f"The network cannot be put on {device}: {first_line(error)}",
                todo="DEVICE=cpu runs it here",
            ) from error

    def run(self, images: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """Map (B, size, size, 3) uint8 to one float32 array (B, ...) a layer.

        Raises
        ------
        DeviceError
            The GPU has no memory for this batch; says which one to try.
        """
        n_images = len(images)
        if n_images < self.batch:
            filled = np.zeros((self.batch, *images.shape[1:]), np.uint8)
            filled[:n_images] = images
            images = filled
        x = tensor_of(images)
        if self._device.type == "cuda":
            x = x.pin_memory()
        autocast = (
            torch.autocast(self._device.type, dtype=torch.float16)
            if self._mixed
            else contextlib.nullcontext()
        )
        try:
            with torch.inference_mode(), autocast:
                outputs = self._tapped(x.to(self._device, non_blocking=True))
                return [output[:n_images].cpu().numpy() for output in outputs]
        except torch.OutOfMemoryError as error:
            raise DeviceError(
                f"{self._device} has no memory for {len(images)} images at once.",
                todo=f"EXTRACT_BATCH={max(1, len(images) // 2)}; what was finished is kept",
            ) from error
