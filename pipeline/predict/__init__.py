"""Predictions for new images, from a run's saved files alone.

>>> from cnn_codes.predict import Classifier  # doctest: +SKIP
>>> Classifier.load("results/hotdog/svm-....json").predict(["a.jpg", "b.png"])  # doctest: +SKIP

With any head or fine-tuned network; the preprocessing and views are those of training. Where the
network's exported graph is available, torch is not imported. :class:`CodesTransformer` and
:class:`CodesClassifier` are scikit-learn estimators on images; :func:`load_network` gives a
fine-tuned network to PyTorch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .classifier import Classifier, Outcome
from .neighbours import Neighbours

if TYPE_CHECKING:
    from .estimator import CodesClassifier
    from .network import load_network
    from .transformer import CodesTransformer

__all__ = [
    "Classifier",
    "CodesClassifier",
    "CodesTransformer",
    "Neighbours",
    "Outcome",
    "load_network",
]

_WHERE = {
    "CodesClassifier": "estimator",
    "CodesTransformer": "transformer",
    "load_network": "network",
}


def __getattr__(name: str) -> Any:
    """Import what needs scikit-learn or torch at its first use."""
    if name in _WHERE:
        from importlib import import_module

        return getattr(import_module(f".{_WHERE[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
