"""Stage two: linear heads, and a few references, on arrays of codes.

Stands between the codes and the results. Sees arrays only: it imports neither torch nor h5py,
and scikit-learn only where something is fitted, so that loading a head and predicting need
numpy alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .examples import Examples
from .model import Head
from .storage import load_head, save_head

if TYPE_CHECKING:
    from .fit import fit_head

__all__ = ["Examples", "Head", "fit_head", "load_head", "save_head"]


def __getattr__(name: str) -> Any:
    """Import the fitting, and with it scikit-learn, at its first use."""
    if name == "fit_head":
        from .fit import fit_head

        return fit_head
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
