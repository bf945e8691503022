"""The columns of a published file of codes: paths, digests, splits, labels, refusals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..datasets import SPLITS, Manifest
from .format import text_column


def columns_of(manifest: Manifest, rejects: Mapping[str, str]) -> dict[str, NDArray[Any]]:
    """Make all columns of a published file but the codes and their digests."""
    bad = np.isin(manifest.sha256, np.array(list(rejects), "S64"))
    rows = np.flatnonzero(~bad)
    return {
        "images/path": text_column(manifest.paths[i] for i in rows.tolist()),
        "images/sha256": manifest.sha256[rows],
        "images/split": np.array(SPLITS, "S5")[manifest.split[rows]],
        "images/label": manifest.labels[rows],
        **{f"images/extra/{k}": _plain(v[rows]) for k, v in manifest.extra.items()},
        **_reject_columns(manifest, rejects, np.flatnonzero(bad)),
    }


def same_column(a: NDArray[Any], b: NDArray[Any]) -> bool:
    """Whether two columns are equal bit for bit, NaN too."""
    return (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())


def _plain(column: NDArray[Any]) -> NDArray[Any]:
    return column if column.dtype.kind in "biuf" else text_column(map(str, column.tolist()))


def _reject_columns(
    manifest: Manifest, rejects: Mapping[str, str], bad: NDArray[np.int64]
) -> dict[str, NDArray[np.bytes_]]:
    """Columns of the images of this manifest that cannot be used, its rows `bad`."""
    digests = [manifest.sha256[i].decode() for i in bad.tolist()]
    return {
        "rejects/path": text_column(manifest.paths[i] for i in bad.tolist()),
        "rejects/sha256": np.array(digests, "S64"),
        "rejects/reason": text_column(rejects[digest] for digest in digests),
    }
