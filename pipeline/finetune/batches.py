"""What training reads: rows of the trunk's cache, or images decoded and augmented.

Both give batches by row of the manifest and by a number drawn for each image, which alone
decides its view or its augmentation. So one process or four, two readers or none, give the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..backbones.preprocess import Preprocessing, Views, read_views
from ..codes.reader import Codes
from ..datasets import Manifest
from ..datasets.images import decode, read_as
from ..datasets.samples import Reading
from ..errors import CacheError, ImageError, PipelineError
from ..progress import Progress
from .augment import Augmentation

Draw = tuple[NDArray[np.int64], NDArray[np.int64]]  # rows (B,) and their random numbers (B,)


class Source(Protocol):
    """Where batches come from."""

    def training(self, draws: Sequence[Draw]) -> Iterator[Tensor]:
        """Give one batch (B, ...) for each draw."""
        ...

    def evaluation(self, rows: NDArray[np.int64], batch: int) -> Iterator[Tensor]:
        """Give batches (B, V, ...) of all evaluation views of `rows`, in order."""
        ...

    def prepare(self, x: Tensor) -> Tensor:
        """Bring a batch (B, ...), on its device, to what the network takes (float32)."""
        ...


class Trunk:
    """Cached activations at the boundary.

    Parameters
    ----------
    manifest : Manifest
        Its rows are what batches are asked by.
    train, evaluate : Codes
        Files with the views to train on and those to evaluate on; rows are found by digest.
    layer : str
        The boundary.

    Raises
    ------
    CacheError
        Rows are damaged.
    """

    def __init__(self, manifest: Manifest, train: Codes, evaluate: Codes, layer: str) -> None:
        self._train, self._train_at = _map(manifest, train, layer)
        self._evaluate, self._evaluate_at = _map(manifest, evaluate, layer)

    def training(self, draws: Sequence[Draw]) -> Iterator[Tensor]:
        """Give one random view of each image: (B, ...) float16."""
        n_views = self._train.shape[1]
        for rows, numbers in draws:
            yield _gather(self._train, self._train_at[rows], numbers % n_views)

    def evaluation(self, rows: NDArray[np.int64], batch: int) -> Iterator[Tensor]:
        """Give all views: (B, V, ...) float16."""
        for start in range(0, len(rows), batch):
            at = self._evaluate_at[rows[start : start + batch]]
            yield _gather(self._evaluate, at, None)

    def prepare(self, x: Tensor) -> Tensor:
        """Bring activations to float32."""
        return x.float()


def _map(
    manifest: Manifest, codes: Codes, layer: str
) -> tuple[NDArray[np.floating[Any]], NDArray[np.int64]]:
    """Map a layer as (n, V, ...), and find the row of each image of the manifest (-1: none)."""
    damaged = codes.damaged_rows()
    if len(damaged):
        raise CacheError(
            f"{codes.path}: {len(damaged)} images' activations are damaged.",
            todo="remove the file; the same command makes it again",
        )
    array = codes[layer]
    if codes.config["n_views"] == 1:
        array = array[:, None]
    order = np.argsort(codes.sha256, kind="stable")
    at = np.searchsorted(codes.sha256, manifest.sha256, sorter=order)
    at = order[np.minimum(at, len(order) - 1)]
    return array, np.where(codes.sha256[at] == manifest.sha256, at, -1)


def _gather(
    array: NDArray[np.floating[Any]], at: NDArray[np.int64], views: NDArray[np.int64] | None
) -> Tensor:
    if np.any(at < 0):
        raise CacheError("An image has no row in the trunk's cache.")  # rejects never get here
    return torch.from_numpy(np.ascontiguousarray(array[at] if views is None else array[at, views]))


class Images:
    """Images read from their files at every step.

    Parameters
    ----------
    manifest : Manifest
        Where the files are.
    preprocessing : Preprocessing
        Size, geometry, mean and standard deviation.
    views : Views
        Those of evaluation.
    augmentation : Augmentation or None
        Of training images; None: the first evaluation view.
    trunk_views : Views or None
        Instead of an augmentation: one of these, at random, as the trunk's cache has them.
    readers : int
        Processes that read ahead; 0: none, reading alternates with training. Beside training on
        a CPU they take its cores.
    pin : bool
        Copy batches to memory that a GPU can read by itself.
    """

    def __init__(
        self,
        manifest: Manifest,
        preprocessing: Preprocessing,
        views: Views,
        *,
        augmentation: Augmentation | None = None,
        trunk_views: Views | None = None,
        readers: int = 0,
        pin: bool = False,
    ) -> None:
        self._train = _Reader(manifest, preprocessing, trunk_views or views, augmentation)
        self._train.one = True
        self._evaluate = _Reader(manifest, preprocessing, views, None)
        self._options: dict[str, Any] = {"num_workers": readers, "pin_memory": pin}
        mean, std = torch.tensor(preprocessing.mean), torch.tensor(preprocessing.std)
        self._mean, self._std = mean.view(1, 3, 1, 1) * 255, std.view(1, 3, 1, 1) * 255

    def training(self, draws: Sequence[Draw]) -> Iterator[Tensor]:
        """Give augmented images: (B, 3, size, size) uint8."""
        yield from self._load(
            self._train, [list(zip(*map(np.ndarray.tolist, d), strict=True)) for d in draws]
        )

    def evaluation(self, rows: NDArray[np.int64], batch: int) -> Iterator[Tensor]:
        """Give all views: (B, V, 3, size, size) uint8."""
        every = [(row, 0) for row in rows.tolist()]
        yield from self._load(
            self._evaluate, [every[i : i + batch] for i in range(0, len(every), batch)]
        )

    def _load(self, reader: _Reader, batches: list[list[tuple[int, int]]]) -> Iterator[Tensor]:
        loader = DataLoader(reader, batch_sampler=batches, collate_fn=_stacked, **self._options)
        for batch in loader:
            if isinstance(batch, PipelineError):
                raise batch
            yield batch

    def prepare(self, x: Tensor) -> Tensor:
        """Normalise (B, 3, size, size) uint8 to float32."""
        return (x.float() - self._mean.to(x.device)) / self._std.to(x.device)


def _stacked(items: list[Tensor | PipelineError]) -> Tensor | PipelineError:
    """Stack the images of a batch; where one could not be used, give the reason instead."""
    tensors = []
    for one in items:
        if isinstance(one, PipelineError):
            return one
        tensors.append(one)
    return torch.stack(tensors)


class _Reader(Dataset["Tensor | PipelineError"]):
    """Reads one image by its row and the number drawn for it.

    What is wrong with an image is returned, not raised: a process that reads ahead would wrap
    the error and lose what to do next.
    """

    one = False  # a single view, without the axis V

    def __init__(
        self,
        manifest: Manifest,
        preprocessing: Preprocessing,
        views: Views,
        augmentation: Augmentation | None,
    ) -> None:
        self._root, self._paths, self._sha256 = manifest.root, manifest.paths, manifest.sha256
        self._preprocessing, self._views = preprocessing, views
        self._augmentation = augmentation

    def __getitem__(self, item: tuple[int, int]) -> Tensor | PipelineError:
        try:
            return self._read(*item)
        except PipelineError as error:
            return error

    def _read(self, row: int, number: int) -> Tensor:
        path, digest = self._root / self._paths[row], self._sha256[row].decode()
        data = read_as(path, digest)
        if self._augmentation is not None and self._augmentation.whole:
            pixels = decode(
                data, min_side=self._preprocessing.size, reading=self._preprocessing.reading
            )
            if pixels.shape[2] == 1:
                pixels = np.repeat(pixels, 3, axis=2)
            image = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)
            return self._augmentation(image, number)
        views = read_views(data, self._preprocessing, self._views, digest)  # (V, S, S, 3)
        if not self.one:
            return torch.from_numpy(np.ascontiguousarray(views.transpose(0, 3, 1, 2)))
        which = 0 if self._augmentation is not None else number % len(views)
        image = torch.from_numpy(np.array(views[which])).permute(2, 0, 1)
        image = image.contiguous()
        return image if self._augmentation is None else self._augmentation(image, number)


def unreadable(
    manifest: Manifest, reading: Reading, workers: int, progress: Progress
) -> dict[str, str]:
    """Find the images that cannot be decoded: digest to reason.

    Raises
    ------
    DataError
        An image went away or changed since the manifest was made.
    """

    def check(row: int) -> str:
        try:
            data = read_as(manifest.root / manifest.paths[row], manifest.sha256[row])
            decode(data, reading=reading)
        except ImageError as error:
            return str(error)
        return ""

    bad = {}
    with ThreadPoolExecutor(workers) as pool, progress("check", manifest.n_images, "images") as bar:
        for row, reason in enumerate(pool.map(check, range(manifest.n_images))):
            bar.advance()
            if reason:
                bad[manifest.sha256[row].decode()] = reason
    return bad
