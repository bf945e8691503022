"""Codes for anybody's scikit-learn pipeline: a transformer on images, with a cache behind it.

>>> from sklearn.pipeline import make_pipeline  # doctest: +SKIP
>>> model = make_pipeline(CodesTransformer("efficientnet_lite0"), LogisticRegression())
>>> cross_val_score(model, paths, labels)  # doctest: +SKIP
"""

from __future__ import annotations

import atexit
import functools
import os
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin

from ..backbones import load_card
from ..backbones.card import Card
from ..backbones.engine import n_cores, open_engine
from ..backbones.preprocess import Preprocessing, Views
from ..codes.cache import CacheFile
from ..codes.extract import as_stored
from ..codes.keys import Key, codes_key
from ..codes.store import CodeStore
from ..codes.stream import Batch, Stream
from ..errors import DataError, ImageError
from ..heads.examples import mean_view
from ..settings import CodesSettings, MachineSettings
from .items import Item, as_items, load_item, name_of

__all__ = ["CodesTransformer"]

_FOLDER = "transformer"  # in the cache
_DIMS: dict[str, list[int]] = {}  # fingerprint of the codes to the numbers of each layer


class CodesTransformer(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Map images to the codes of a frozen network; nothing is fitted.

    Codes are kept in the cache by the bytes of their images, under everything that changes a
    number: in ``<cache>/transformer/``, a file for each network, layers, views and so on. A fold
    of a cross-validation, a second pipeline or another process runs only what is new; several
    processes may ask at once.

    Parameters
    ----------
    model : str
        A torchvision or timm network, by its own name.
    weights, layers, pool, size, views, precision, dtype
        As the settings of the same names (:class:`cnn_codes.settings.CodesSettings`); `layers` is
        a word or a sequence of words. Several views are averaged.
    resize : str
        From image to square, the setting RESIZE: ``default``, ``crop``, ``stretch`` or ``pad``.
    seed : int
        Of random views, and of ``weights="none"``.
    device, engine, extract_batch, workers
        As :class:`cnn_codes.settings.MachineSettings`.
    cache : path or None
        The cache folder. None: a temporary one, for the life of this process.
    offline : bool
        Fetch nothing.
    """

    def __init__(
        self,
        model: str = "efficientnet_lite0",
        *,
        weights: str = "default",
        layers: str | Sequence[str] = "final",
        pool: str = "mean",
        size: int = 0,
        resize: str = "default",
        views: str = "center",
        precision: str = "float32",
        dtype: str = "float32",
        seed: int = 0,
        device: str = "auto",
        engine: str = "auto",
        extract_batch: int = 0,
        workers: int = 0,
        cache: str | os.PathLike[str] | None = "cache",
        offline: bool = False,
    ) -> None:
        self.model = model
        self.weights = weights
        self.layers = layers
        self.pool = pool
        self.size = size
        self.resize = resize
        self.views = views
        self.precision = precision
        self.dtype = dtype
        self.seed = seed
        self.device = device
        self.engine = engine
        self.extract_batch = extract_batch
        self.workers = workers
        self.cache = cache
        self.offline = offline

    def fit(self, X: Any, y: Any = None) -> Self:
        """Check the settings; there is nothing to fit.

        Raises
        ------
        SettingsError, BackboneError, DownloadError
            The network or a setting is not to be had.
        """
        _Source(self)
        return self

    def transform(self, X: Any) -> NDArray[np.float32]:
        """Give the codes of images.

        Parameters
        ----------
        X : Images
            N paths, encoded bytes, PIL images or uint8 arrays, in any sequence.

        Returns
        -------
        float32 (N, D)
            Layers side by side, views averaged.

        Raises
        ------
        ImageError
            An image cannot be used; names it. What was finished is kept.
        """
        items = as_items(X)
        source = _Source(self)
        if not items:
            return np.empty((0, sum(source.dims())), np.float32)
        return source.codes(items)

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """Name the D columns: ``final_0``, ``final_1``, and so on."""
        source = _Source(self)
        names = [
            f"{layer}_{i}"
            for layer, dim in zip(source.layers, source.dims(), strict=True)
            for i in range(dim)
        ]
        return np.array(names, dtype=object)

    def __sklearn_is_fitted__(self) -> bool:
        """Nothing is fitted, so it always is."""
        return True

    def __sklearn_tags__(self) -> Any:
        """Tell scikit-learn that it takes images and needs no fit."""
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.no_validation = True
        tags.input_tags.two_d_array = False
        tags.input_tags.one_d_array = True
        tags.input_tags.string = True
        return tags


@functools.cache
def _own_cache() -> Path:
    """Give a folder that goes with this process."""
    folder = tempfile.TemporaryDirectory(prefix="cnn-codes-")
    atexit.register(folder.cleanup)
    return Path(folder.name)


class _Source:
    """What a transformer's settings mean: network, reading, file."""

    def __init__(self, owner: CodesTransformer) -> None:
        layers = owner.layers
        self._codes = CodesSettings(
            model=owner.model,
            weights=owner.weights,
            layers=tuple(layers.split(",")) if isinstance(layers, str) else tuple(layers),
            pool=owner.pool,
            size=owner.size,
            resize=owner.resize,
            views=owner.views,
            precision=owner.precision,
            dtype=owner.dtype,
        )
        self._machine = MachineSettings(
            device=owner.device,
            engine=owner.engine,
            extract_batch=owner.extract_batch,
            workers=owner.workers,
        )
        cache = _own_cache() if owner.cache is None else Path(owner.cache)
        self._source: dict[str, Any] = {
            "cache": cache,
            "seed": owner.seed,
            "offline": owner.offline,
        }
        self._card: Card = load_card(self._codes, **self._source)
        self.layers = self._card.resolve(self._codes.layers)
        self._preprocessing: Preprocessing = self._card.preprocessing.adapted(
            size=owner.size, resize=owner.resize
        )
        self._views = Views.parse(owner.views, owner.seed)
        self._key: Key = codes_key(
            _FOLDER, self._card, self.layers, self._preprocessing, self._views, self._codes,
            cache=cache,
        )  # fmt: skip

    def codes(self, items: list[Item]) -> NDArray[np.float32]:
        """Codes (N, D) of some images, N at least 1."""
        with ThreadPoolExecutor(self._machine.workers or n_cores()) as pool:
            digests = list(pool.map(_digest, items, range(len(items))))

        def make(missing: list[int], file: CacheFile) -> None:
            self._make(items, digests, missing, file)

        shape = (len(items), self._views.count, -1)
        blocks = [block.reshape(shape) for block in CodeStore(self._key).get(digests, make)]
        _DIMS[self._key.fingerprint] = [block.shape[2] for block in blocks]
        return np.concatenate([mean_view(block) for block in blocks], axis=1)

    def dims(self) -> list[int]:
        """Numbers that each layer gives an image: known from its codes, or by running a black one.

        They are kept for the life of the process, since naming the columns needs them each time.
        """
        known = _DIMS.get(self._key.fingerprint)
        if known is None:
            size = self._preprocessing.size
            black = np.zeros((1, size, size, 3), np.uint8)
            known = [int(np.prod(block.shape[1:])) for block in self._engine().run(black)]
            _DIMS[self._key.fingerprint] = known
        return known

    def _engine(self) -> Any:
        return open_engine(
            self._card, self.layers, self._preprocessing, self._codes, self._machine, **self._source
        )

    def _make(
        self, items: list[Item], digests: list[str], missing: list[int], file: CacheFile
    ) -> None:
        """Run some of the images and add their rows to the file."""

        def read(index: int) -> NDArray[np.uint8]:
            loaded = load_item(items[index])
            if loaded.digest != digests[index]:
                raise DataError(
                    f"{name_of(items[index], index)} changed while it was being read.",
                    todo="do it again",
                )
            return loaded.views(self._preprocessing, self._views)

        def store(block: NDArray[np.float32]) -> NDArray[Any]:
            stored = as_stored(block, self._codes.dtype)
            return stored[:, 0] if self._views.count == 1 else stored

        began = time.perf_counter()
        pending: list[Batch[int]] = []

        def write() -> None:
            nonlocal began
            columns = zip(*(batch.blocks for batch in pending), strict=True)
            blocks = [np.concatenate(column) for column in columns]
            shas = [digests[index] for batch in pending for index in batch.items]
            pending.clear()
            now = time.perf_counter()
            file.add_part(shas, blocks, {}, now - began)
            began = now

        stream = Stream(
            self._engine(),
            read,
            n_views=self._views.count,
            workers=self._machine.workers,
            store=store,
        )
        try:
            for batch in stream.batches(missing):
                if batch.items:
                    pending.append(batch)
                for index, reason in batch.rejects:
                    raise _refused(items[index], index, reason)
                n_rows = sum(len(one.items) for one in pending)
                n_bytes = sum(block.nbytes for one in pending for block in one.blocks)
                if file.fills_a_part(n_rows, n_bytes):
                    write()
        finally:
            if pending:
                write()


def _digest(item: Item, index: int) -> str:
    try:
        return load_item(item).digest
    except ImageError as error:
        raise _refused(item, index, error.found) from error


def _refused(item: Item, index: int, reason: str) -> ImageError:
    return ImageError(
        f"{name_of(item, index)}: {reason}.",
        expected="images that can be read",
        todo="mend it or take it out; what was finished is kept",
    )
