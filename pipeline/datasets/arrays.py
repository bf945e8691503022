"""Images in arrays and tables: ``.npz``, ``.h5``, ``.parquet``, ``.arrow``. Not written yet."""

from __future__ import annotations

from pathlib import Path

from ..errors import DataError
from .listing import few

__all__ = ["ARRAY_SUFFIXES", "array_problem"]

ARRAY_SUFFIXES = (".npz", ".h5", ".hdf5", ".parquet", ".arrow", ".feather")


def array_problem(path: Path, arrays: list[str]) -> DataError:
    """Say what arrays there are."""
    return DataError(f"{path} holds arrays: {few(arrays)}.", expected="images", todo="")
