"""Codes for anybody's scikit-learn pipeline: a transformer on images, with a cache behind it.

>>> from sklearn.pipeline import make_pipeline  # doctest: +SKIP
>>> model = make_pipeline(CodesTransformer("efficientnet_lite0"), LogisticRegression())
>>> cross_val_score(model, paths, labels)  # doctest: +SKIP
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin

from ..settings import CodesSettings, MachineSettings
from .items import Item, as_items
from .source import Source, digests_of, open_source


class ImageEstimator(BaseEstimator):  # type: ignore[misc]
    """What estimators on images have in common: the parameters of the codes, and their meaning.

    The parameters are those of :class:`CodesTransformer`.
    """

    def __init__(
        self,
        model: str = "efficientnet_lite0",
        *,
        weights: str = "default",
        layers: str | Sequence[str] = "final",
        pool: str = "default",
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
        cache: str | os.PathLike[str] | None = None,
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

    def _source(self) -> Source:
        """Give what the parameters mean; raises where they mean nothing."""
        layers = self.layers
        return open_source(
            CodesSettings(
                model=self.model,
                weights=self.weights,
                layers=tuple(layers.split(",")) if isinstance(layers, str) else tuple(layers),
                pool=self.pool,
                size=self.size,
                resize=self.resize,
                views=self.views,
                precision=self.precision,
                dtype=self.dtype,
            ),
            MachineSettings(
                device=self.device,
                engine=self.engine,
                extract_batch=self.extract_batch,
                workers=self.workers,
            ),
            cache=self.cache,
            seed=self.seed,
            offline=self.offline,
        )

    def _items(self, X: Any, *, reset: bool) -> list[Item]:
        """List the images of `X`; `reset` is True in ``fit``."""
        return as_items(X)

    def _digests(self, items: list[Item]) -> list[str]:
        return digests_of(items, self.workers)

    def __sklearn_tags__(self) -> Any:
        """Tell scikit-learn that it takes images, not a table of numbers."""
        tags = super().__sklearn_tags__()
        tags.no_validation = True
        tags.input_tags.two_d_array = False
        tags.input_tags.one_d_array = True
        tags.input_tags.string = True
        return tags


class CodesTransformer(TransformerMixin, ImageEstimator):  # type: ignore[misc]
    """Map images to the codes of a frozen network; nothing is fitted.

    Codes are kept in the cache by the bytes of their images, under everything that changes a
    number: in ``<cache>/transformer/``, a file for each network, layers, views and so on. A fold
    of a cross-validation, a second pipeline or another process runs only what is new; several
    processes may ask at once.

    Parameters
    ----------
    model : str
        A torchvision or timm network, by its own name.
    weights, layers, pool, size, resize, views, precision, dtype
        As the settings of the same names; `layers` is a word or a sequence of words, `resize` is
        ``default``, ``crop``, ``stretch`` or ``pad``. Several views are averaged.
    seed : int
        Of random views, and of ``weights="none"``.
    device, engine, extract_batch, workers
        As the settings of the same names: what runs the network.
    cache : path or None
        The cache folder. None: the user's own (``~/.cache/cnn-codes`` on Linux).
    offline : bool
        Fetch nothing.
    """

    def fit(self, X: Any, y: Any = None) -> Self:
        """Check the settings; there is nothing to fit.

        Raises
        ------
        SettingsError, BackboneError, DownloadError
            The network or a setting is not available.
        """
        self._source()
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
        items = self._items(X, reset=False)
        source = self._source()
        if not items:
            return np.empty((0, sum(source.dims())), np.float32)
        return source.mean_codes(items, self._digests(items))

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """Name the D columns: ``final_0``, ``final_1``, and so on."""
        source = self._source()
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
        """Tell scikit-learn that it needs no fit and gives float32 whatever comes in."""
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.transformer_tags.preserves_dtype = []
        return tags
