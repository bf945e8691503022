"""Linear classifiers on frozen pretrained networks, fine-tuning beside them, honestly compared."""

from __future__ import annotations

from typing import Any

__all__ = ["__version__", "open_codes"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import the reader at its first use, so that importing the package costs nothing."""
    if name == "open_codes":
        from pipeline.codes import open_codes

        return open_codes
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
