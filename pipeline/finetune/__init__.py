"""Stage three: part or all of the network trained on the same splits as the linear heads.

The names are imported at their first use: reading a recipe needs no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .recipe import load_recipe, recipe_names

if TYPE_CHECKING:
    from .checkpoint import load_checkpoint, predict_proba
    from .run import finetune
    from .workers import fine_tuned

__all__ = [
    "fine_tuned",
    "finetune",
    "load_checkpoint",
    "load_recipe",
    "predict_proba",
    "recipe_names",
]

_WHERE = {
    "fine_tuned": "workers",
    "finetune": "run",
    "load_checkpoint": "checkpoint",
    "predict_proba": "checkpoint",
}


def __getattr__(name: str) -> Any:
    """Import what needs torch at its first use."""
    if name in _WHERE:
        from importlib import import_module

        return getattr(import_module(f".{_WHERE[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
