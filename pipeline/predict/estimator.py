"""A classifier of images as scikit-learn has them: stages one and two behind fit and predict.

>>> from sklearn.model_selection import cross_val_score  # doctest: +SKIP
>>> cross_val_score(CodesClassifier(method="svm"), paths, labels)  # doctest: +SKIP
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.base import ClassifierMixin
from sklearn.utils import check_consistent_length, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from ..errors import SettingsError
from ..heads import Examples, fit_head
from ..settings import HeadSettings
from .transformer import ImageEstimator


class CodesClassifier(ClassifierMixin, ImageEstimator):  # type: ignore[misc]
    """Classify images with a head on the codes of a frozen network.

    ``fit`` takes the codes of the images (from the cache where they are known, as
    :class:`CodesTransformer` does), chooses the head's setting by cross-validation, calibrates
    its probabilities on the out-of-fold scores and fits it to all images.

    Parameters
    ----------
    model : str
        A torchvision or timm network, by its own name.
    method : str
        The head: ``softmax``, ``svm``, ``ridge``, ``centroid``, ``knn`` or ``rbf``.
    weights, layers, pool, size, resize, views, precision, dtype
        As the settings of the same names; `layers` is a word or a sequence of words, `resize` is
        ``default``, ``crop``, ``stretch`` or ``pad``.
    folds, class_weight, train_views, jobs
        As the settings of the same names; ``class_weight=None`` is ``"none"``.
    seed : int
        Of the folds, of random views, and of ``weights="none"``.
    device, engine, extract_batch, workers
        As the settings of the same names: what runs the network.
    cache : path or None
        The cache folder. None: the user's own (``~/.cache/cnn-codes`` on Linux).
    offline : bool
        Fetch nothing.

    Attributes
    ----------
    classes_ : array (K,)
        The classes, sorted.
    head_ : Head
        The fitted head: its arrays, the chosen setting with the whole curve, the calibration.
    """

    def __init__(
        self,
        model: str = "efficientnet_lite0",
        *,
        method: str = "softmax",
        weights: str = "default",
        layers: str | Sequence[str] = "final",
        pool: str = "default",
        size: int = 0,
        resize: str = "default",
        views: str = "center",
        precision: str = "float32",
        dtype: str = "float32",
        folds: int = 5,
        class_weight: str | None = None,
        train_views: str = "mean",
        seed: int = 0,
        jobs: int = 0,
        device: str = "auto",
        engine: str = "auto",
        extract_batch: int = 0,
        workers: int = 0,
        cache: str | os.PathLike[str] | None = None,
        offline: bool = False,
    ) -> None:
        super().__init__(
            model, weights=weights, layers=layers, pool=pool, size=size, resize=resize,
            views=views, precision=precision, dtype=dtype, seed=seed, device=device,
            engine=engine, extract_batch=extract_batch, workers=workers, cache=cache,
            offline=offline,
        )  # fmt: skip
        self.method = method
        self.folds = folds
        self.class_weight = class_weight
        self.train_views = train_views
        self.jobs = jobs

    def fit(self, X: Any, y: Any, groups: Any = None) -> Self:
        """Fit the head to the codes of labelled images.

        Parameters
        ----------
        X : Images
            N paths, encoded bytes, PIL images or uint8 arrays, in any sequence.
        y : array-like (N,)
            Their classes: strings, numbers or booleans, at least two different ones.
        groups : array-like (N,), optional
            Images of one thing have the same group: the cross-validation that chooses the
            setting keeps them in one fold. Images of equal bytes always stay together.

        Raises
        ------
        ValueError
            `y` does not name one class for each image, or names only one class.
        ImageError
            An image cannot be used; names it.
        HeadError
            A class has too few images.
        """
        settings = HeadSettings(
            methods=(self.method,),
            folds=self.folds,
            class_weight=self.class_weight or "none",
            train_views=self.train_views,
            jobs=self.jobs,
        )
        source = self._source()
        if y is None:
            raise ValueError(
                f"{type(self).__name__} requires y to be passed, but the target y is None."
            )
        items = self._items(X, reset=True)
        y = column_or_1d(y, warn=True)
        check_consistent_length(items, y)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y has {len(self.classes_)} class; a classifier needs at least two.")
        digests = self._digests(items)
        head = fit_head(
            self.method,
            Examples(
                codes=source.codes(items, digests),
                labels=labels.astype(np.int32),
                groups=_groups(digests, groups),
            ),
            None,
            settings,
            n_classes=len(self.classes_),
            seed=self.seed,
            class_names=[str(name) for name in self.classes_.tolist()],
        )
        for text in head.warnings:
            warnings.warn(text, UserWarning, stacklevel=2)
        self.head_ = head
        self._codes_fingerprint = source.fingerprint
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Give the calibrated probability of each class.

        Parameters
        ----------
        X : Images
            N paths, encoded bytes, PIL images or uint8 arrays, in any sequence.

        Returns
        -------
        float64 (N, K)
            In the order of ``classes_``; rows sum to 1.

        Raises
        ------
        NotFittedError
            ``fit`` comes first.
        SettingsError
            A parameter of the codes was changed after ``fit``.
        ImageError
            An image cannot be used; names it.
        """
        check_is_fitted(self, "head_")
        items = self._items(X, reset=False)
        source = self._source()
        if source.fingerprint != self._codes_fingerprint:
            raise SettingsError(
                "The parameters of the codes were changed after fit.",
                expected="the network, layers and views that the head was fitted on",
                todo="call fit again",
            )
        if not items:
            return np.empty((0, len(self.classes_)))
        return self.head_.predict_proba(source.codes(items, self._digests(items)))

    def predict(self, X: Any) -> NDArray[Any]:
        """Give the predicted class of each image, (N,); see :meth:`predict_proba`.

        The most probable one; with ``class_weight="balanced"``, the one that balanced training
        favours, while the probabilities stay those of the data's own class shares.
        """
        probabilities = self.predict_proba(X)
        best = self.head_.decide(probabilities)
        found: NDArray[Any] = self.classes_[best]
        return found


def _groups(digests: list[str], groups: Any) -> NDArray[np.int64]:
    """Give images of equal bytes, or of one group, the same number, (N,)."""
    _, same = np.unique(np.array(digests), return_inverse=True)
    if groups is None:
        return same.astype(np.int64)
    groups = column_or_1d(groups)
    check_consistent_length(digests, groups)
    _, given = np.unique(groups, return_inverse=True)
    n_same = int(same.max()) + 1
    links = coo_array(
        (np.ones(len(same)), (same, n_same + given)),
        shape=(n_same + len(groups), n_same + len(groups)),
    )
    _, together = connected_components(links, directed=False)
    found: NDArray[np.int64] = together[same].astype(np.int64)
    return found
