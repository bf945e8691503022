"""From an image to its codes as they are stored: what every process does alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..backbones.preprocess import read_views
from ..datasets.images import read_as
from ..errors import BackboneError, ImageError
from .cache import CacheFile
from .keys import Spec
from .stream import Batch

T = TypeVar("T")


@dataclass(frozen=True)
class Work:
    """What is to be made of each image.

    Attributes
    ----------
    root : Path
        Folder that paths are relative to.
    spec : Spec
        What its codes are.
    """

    root: Path
    spec: Spec

    def read(self, path: str, digest: str) -> NDArray[np.uint8]:
        """Read the views (V, size, size, 3) of an image that has this SHA-256."""
        data = read_as(self.root / path, digest)
        return read_views(data, self.spec.preprocessing, self.spec.views, digest)

    def stored(self, block: NDArray[np.float32]) -> NDArray[Any]:
        """Bring codes (n, V, ...) to how they are stored, refusing what that would spoil."""
        stored = as_stored(block, self.spec.asked.dtype)
        return stored[:, 0] if self.spec.views.count == 1 else stored


def as_stored(block: NDArray[np.float32], dtype: str) -> NDArray[Any]:
    """Bring codes to the type that they are stored in.

    Raises
    ------
    BackboneError
        That would spoil them: they are not finite, or too large.
    """
    with np.errstate(over="ignore"):
        stored = block.astype(dtype, copy=False)
    if not np.isfinite(stored).all():
        raise BackboneError(
            f"The network gave codes that are not finite as {dtype}.",
            todo="DTYPE=float32 and PRECISION=float32, or other weights",
        )
    return stored


def write_batches(
    file: CacheFile, batches: Sequence[Batch[T]], digest: Callable[[T], str], seconds: float
) -> str:
    """Write what was made of some batches as one part; give the part's name."""
    shas = [digest(item) for batch in batches for item in batch.items]
    columns = zip(*(batch.blocks for batch in batches if batch.items), strict=True)
    blocks = [np.concatenate(column) for column in columns]
    rejects = {digest(item): why for batch in batches for item, why in batch.rejects}
    return file.add_part(shas, blocks, rejects, seconds)


def row_bytes(batch: Batch[T]) -> int:
    """Bytes of one image's codes, all layers together; 0 where nothing was read."""
    return sum(block.nbytes // len(block) for block in batch.blocks)


def refused(path: str, reason: str) -> ImageError:
    """Make the error of STRICT=1."""
    return ImageError(
        f"{path}: {reason}.",
        expected="readable images only, since STRICT=1",
        todo="repair or remove it, or leave STRICT out: bad images are then skipped and named",
    )
