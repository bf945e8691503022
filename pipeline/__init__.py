"""Linear classifiers on frozen pretrained networks, honestly compared with fine-tuning."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .codes.reader import open_codes
    from .predict import Classifier, CodesClassifier, CodesTransformer, load_network

__all__ = [
    "Classifier",
    "CodesClassifier",
    "CodesTransformer",
    "__version__",
    "load_network",
    "open_codes",
]
__version__ = "0.1.0"

_WHERE = {
    "Classifier": ".predict.classifier",
    "CodesClassifier": ".predict.estimator",
    "CodesTransformer": ".predict.transformer",
    "load_network": ".predict.network",
    "open_codes": ".codes.reader",
}


def __getattr__(name: str) -> Any:
    """Import each name at its first use, so that importing the package costs nothing."""
    if name in _WHERE:
        return getattr(import_module(_WHERE[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the names that are imported at their first use too."""
    return sorted({*globals(), *__all__})
