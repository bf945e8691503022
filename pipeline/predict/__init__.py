"""Predictions for new images, from a run's saved files alone.

>>> from cnn_codes.predict import Classifier  # doctest: +SKIP
>>> Classifier.load("results/hotdog/svm-....json").predict(["a.jpg", "b.png"])  # doctest: +SKIP

With any head or fine-tuned network; the preprocessing and views are those of training. Where the
network's exported graph is at hand, torch is not imported. :class:`CodesTransformer` gives codes
to anybody's scikit-learn pipeline.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .classifier import Classifier, Outcome
from .neighbours import Neighbours

if TYPE_CHECKING:
    from .transformer import CodesTransformer

__all__ = ["Classifier", "CodesTransformer", "Neighbours", "Outcome"]


def __getattr__(name: str) -> Any:
    """Import the transformer, and with it scikit-learn, at its first use."""
    if name == "CodesTransformer":
        from .transformer import CodesTransformer

        return CodesTransformer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
