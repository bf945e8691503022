"""Codes of several networks side by side (``MODEL=a+b``), read as if they were one file.

Nothing is stored for it: every network has its own file, under its own key. Rows are joined by the
SHA-256 of the images' bytes, and an image that one network cannot use has no row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backbones.card import safe_name
from ..errors import CacheError
from ..files import digest_of
from ..settings import CodesSettings, as_dict
from .reader import Codes


@dataclass(frozen=True, eq=False)
class JoinedCodes(Codes):
    """Codes of several networks, with the interface of one file.

    A layer is called ``network/layer``. Paths, labels and splits are those of the first file.

    Attributes
    ----------
    asked : CodesSettings
        What was asked for; its `model` names all networks.
    parts : tuple of Codes
        One file per network.
    rows : tuple of int64 (N,) or None
        For each file, its row of every image; None: all of them, as they are.
    """

    asked: CodesSettings
    parts: tuple[Codes, ...]
    rows: tuple[NDArray[np.int64] | None, ...]

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that these codes are read from, one per network."""
        return tuple(part.path for part in self.parts)

    @property
    def name(self) -> str:
        """What results made of these codes are called by; no file has this name."""
        asked = self.asked
        layers = "+".join(asked.layers)
        parts = (
            asked.model,
            layers if len(layers) <= 48 else f"{len(asked.layers)}layers",
            asked.views.replace(":", ""),
            str(self.config["size"]),
            self.fingerprint[:8],
        )
        return "-".join(map(safe_name, parts))

    @cached_property
    def fingerprint(self) -> str:
        """Digest of the fingerprints of all files, 64 hexadecimal digits."""
        return joined_fingerprint([part.fingerprint for part in self.parts])

    @cached_property
    def config(self) -> dict[str, Any]:
        """What made the codes; ``networks`` has the config of each file."""
        return joined_config(self.asked, self.parts)

    @cached_property
    def networks(self) -> dict[str, tuple[str, ...]]:
        """Layers of each network, first to last, by the network's name."""
        return {
            model: tuple(f"{model}/{layer}" for layer in part.layers)
            for model, part in zip(self.asked.models, self.parts, strict=True)
        }

    @property
    def extraction_s(self) -> float:
        """Seconds that stage one took for the rows of all files, over all runs."""
        return sum(part.extraction_s for part in self.parts)

    @property
    def probe(self) -> dict[str, NDArray[np.floating[Any]]]:
        """Codes of the fixed batch, of each layer that has them."""
        return {
            f"{model}/{layer}": codes
            for model, part in zip(self.asked.models, self.parts, strict=True)
            for layer, codes in part.probe.items()
        }

    @cached_property
    def columns_fault(self) -> str:
        """Say that columns of a file are not those that were written; mostly empty."""
        return next((part.columns_fault for part in self.parts if part.columns_fault), "")

    def __len__(self) -> int:
        rows = self.rows[0]
        return len(self.parts[0]) if rows is None else len(rows)

    def __getitem__(self, layer: str) -> NDArray[np.floating[Any]]:
        """Give one layer's codes: mapped, or read where not all rows of its file are taken."""
        for (model, layers), part, rows in zip(
            self.networks.items(), self.parts, self.rows, strict=True
        ):
            if layer in layers:
                block = part[layer.removeprefix(f"{model}/")]
                return block if rows is None else block[rows]
        raise CacheError(
            f"{self.name} has no layer {layer}.",
            expected=", ".join(self.layers),
            todo="LAYERS= takes NETWORK/LAYER; make features makes their codes",
        )

    @cached_property
    def paths(self) -> tuple[str, ...]:
        """Paths relative to the data root, one per row."""
        paths, rows = self.parts[0].paths, self.rows[0]
        return paths if rows is None else tuple(paths[row] for row in rows.tolist())

    @cached_property
    def sha256(self) -> NDArray[np.bytes_]:
        """SHA-256 of each image's bytes, (n_images,) of 64 hexadecimal digits."""
        return self._of_first(self.parts[0].sha256)

    @cached_property
    def labels(self) -> NDArray[np.int32]:
        """Indices into `class_names`, (n_images,)."""
        return self._of_first(self.parts[0].labels)

    @cached_property
    def split(self) -> NDArray[np.str_]:
        """``train``, ``val`` or ``test``, (n_images,)."""
        return self._of_first(self.parts[0].split)

    @property
    def row_digest(self) -> NDArray[np.uint64]:
        """Digest of each row's codes in the first file, (n_images,)."""
        return self._of_first(self.parts[0].row_digest)

    @property
    def extra(self) -> dict[str, NDArray[Any]]:
        """Further columns of the data set, (n_images,) each."""
        return {name: self._of_first(column) for name, column in self.parts[0].extra.items()}

    @cached_property
    def rejects(self) -> dict[str, str]:
        """Images without codes of one network at least: SHA-256 to the reason."""
        return _rejects(self.parts)

    def blocks(self) -> list[tuple[NDArray[np.floating[Any]], NDArray[np.int64] | None]]:
        """Map each layer's codes, with the rows of them that count; None: all, in order."""
        return [
            (part[layer], rows)
            for part, rows in zip(self.parts, self.rows, strict=True)
            for layer in part.layers
        ]

    def check(self) -> None:
        """Refuse codes that are damaged; errors as :meth:`Codes.check`."""
        for part in self.parts:
            part.check()

    @cached_property
    def _damaged(self) -> NDArray[np.int64]:
        found = [
            part.damaged_rows()
            if rows is None
            else np.flatnonzero(np.isin(rows, part.damaged_rows()))
            for part, rows in zip(self.parts, self.rows, strict=True)
        ]
        return np.unique(np.concatenate(found)).astype(np.int64)

    def _of_first(self, column: NDArray[Any]) -> NDArray[Any]:
        return column if self.rows[0] is None else column[self.rows[0]]


def join_codes(asked: CodesSettings, parts: Sequence[Codes]) -> JoinedCodes:
    """Put the codes of several networks side by side.

    Parameters
    ----------
    asked : CodesSettings
        What was asked for; its `model` names all networks.
    parts : sequence of Codes
        One file per network, in that order.

    Raises
    ------
    CacheError
        A file lacks images that another one has.
    """
    first = parts[0]
    bad = np.array(list(_rejects(parts)), "S64")
    wanted = first.sha256[~np.isin(first.sha256, bad)]
    rows = tuple(_rows_of(part, wanted) for part in parts)
    return JoinedCodes(first.contents, asked, tuple(parts), rows)


def joined_fingerprint(fingerprints: Sequence[str]) -> str:
    """Digest of the fingerprints of the networks' codes, in order, 64 hexadecimal digits."""
    return digest_of({"side_by_side": list(fingerprints)})


def joined_config(asked: CodesSettings, parts: Sequence[Codes]) -> dict[str, Any]:
    """Join what made the codes of each network.

    ``size`` is that of all networks, 0 where they differ; ``networks`` has the config of each.
    """
    configs = [part.config for part in parts]
    first = configs[0]
    sizes = {int(config["size"]) for config in configs}
    return {
        "model": asked.model,
        "layers": [
            f"{model}/{layer}"
            for model, config in zip(asked.models, configs, strict=True)
            for layer in config["layers"]
        ],
        "weights_digest": digest_of([config["weights_digest"] for config in configs]),
        "preprocessing": [config["preprocessing"] for config in configs],
        "size": sizes.pop() if len(sizes) == 1 else 0,
        **{key: first[key] for key in ("views", "n_views", "precision", "dtype")},
        "asked": as_dict(asked),
        "networks": configs,
        "fingerprints": [part.fingerprint for part in parts],
    }


def _rejects(parts: Sequence[Codes]) -> dict[str, str]:
    """SHA-256 of the images that a network cannot use, to the first one's reason."""
    return {sha: why for part in reversed(parts) for sha, why in part.rejects.items()}


def _rows_of(codes: Codes, wanted: NDArray[np.bytes_]) -> NDArray[np.int64] | None:
    """Rows of the images in a file; None where they are all of its rows, in order.

    Raises
    ------
    CacheError
        An image has no row.
    """
    held = codes.sha256
    if np.array_equal(held, wanted):
        return None
    order = np.argsort(held, kind="stable")
    at = np.searchsorted(held[order], wanted)
    rows = order[np.minimum(at, max(0, len(held) - 1))] if len(held) else np.zeros(0, np.int64)
    lacking = len(wanted) if not len(held) else int(np.sum(held[rows] != wanted))
    if lacking:
        raise CacheError(
            f"{codes.path} lacks {lacking} images that another network's file has.",
            todo="run `make features` for both networks again",
        )
    return rows.astype(np.int64)
