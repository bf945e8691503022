"""Codes on disk, read: arrays, paths, labels and splits, each slice at the price of a slice.

>>> codes = open_codes("cache/hotdog/lite0-final-center-224-5c3f0b1e.h5")  # doctest: +SKIP
>>> codes["final"][:32]  # doctest: +SKIP

``cache/README.md`` specifies the format. Files are immutable: one that is open stays what it
was, even while another run publishes its successor.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import CacheError
from ..files import digest_of
from .format import FORMAT_VERSION, columns_digest, dataset_name, matters, probe_name, row_digests
from .hdf5 import SEAL, Contents, open_file, seal_of

_CHANGED = "its labels, splits, paths, other columns or attributes are not those that were written"
_ATTRIBUTES: dict[str, type] = {
    "format_version": int,
    "fingerprint": str,
    "config": str,
    "complete": bool,
    "class_names": np.ndarray,
    "extraction_s": float,
}
_COLUMNS = {  # kind of each column's dtype, and the column that it is as long as
    "images/label": ("i", "images/label"),
    "images/path": ("S", "images/label"),
    "images/sha256": ("S", "images/label"),
    "images/split": ("S", "images/label"),
    "images/row_digest": ("u", "images/label"),
    "rejects/sha256": ("S", "rejects/sha256"),
    "rejects/path": ("S", "rejects/sha256"),
    "rejects/reason": ("S", "rejects/sha256"),
}


@dataclass(frozen=True, eq=False)
class Codes:
    """A published file of codes.

    Attributes
    ----------
    contents : Contents
        The file behind it.
    """

    contents: Contents

    @property
    def path(self) -> Path:
        """The file."""
        return self.contents.path

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that these codes are read from: here one."""
        return (self.path,)

    @property
    def name(self) -> str:
        """What results made of these codes are called by: the file's name without its suffix."""
        return self.path.stem

    @property
    def networks(self) -> dict[str, tuple[str, ...]]:
        """Layers of each network, first to last, by the network's name: here one network."""
        return {str(self.config["model"]): self.layers}

    @property
    def fingerprint(self) -> str:
        """Digest of everything that changes a code, 64 hexadecimal digits."""
        return str(self.contents.attributes["fingerprint"])

    @cached_property
    def config(self) -> dict[str, Any]:
        """Backbone, weights, layers, views, preprocessing, versions: what made the codes."""
        value: dict[str, Any] = json.loads(self.contents.attributes["config"])
        return value

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes; labels index them."""
        return tuple(name.decode() for name in self.contents.attributes["class_names"].tolist())

    @property
    def extraction_s(self) -> float:
        """Seconds that stage one took for these rows, over all runs."""
        return float(self.contents.attributes["extraction_s"])

    @property
    def decoder(self) -> str:
        """What decoded the images, and so refused some; empty in files of earlier versions."""
        return str(self.contents.attributes.get("decoder", ""))

    @property
    def probe(self) -> dict[str, NDArray[np.floating[Any]]]:
        """Codes (n, D) of a fixed batch by the engine that made these rows, for each layer."""
        return {
            layer: np.asarray(self.contents.array(name))
            for layer in self.layers
            if (name := probe_name(layer)) in self.contents.fields
        }

    @cached_property
    def columns_fault(self) -> str:
        """Say that paths, labels, splits or others are not those that were written; mostly empty.

        Files of earlier versions have no digest of them.
        """
        if SEAL in self.contents.fields:
            seal = self.contents.array(SEAL).tolist()
            if seal != [seal_of(self.contents.mapping, self.contents.fields).encode()]:
                return _CHANGED
        stored = self.contents.attributes.get("columns_digest")
        if stored is None or stored == columns_digest(self._columns(), self.class_names):
            return ""
        return _CHANGED

    def _columns(self) -> dict[str, NDArray[Any]]:
        no_column = ("codes/", "probe/", SEAL)
        names = [name for name in self.contents.fields if not name.startswith(no_column)]
        return {name: self.contents.array(name) for name in names}

    @cached_property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers, in the order they were asked for."""
        return tuple(self.config["layers"])

    def __len__(self) -> int:
        return self.contents.fields["images/label"].shape[0]

    def __getitem__(self, layer: str) -> NDArray[np.floating[Any]]:
        """Map one layer's codes: (n_images, code_dim), or with views (n_images, n_views, ...)."""
        if dataset_name(layer) not in self.contents.fields:
            raise CacheError(
                f"{self.path.name} has no layer {layer}.",
                expected=", ".join(self.layers),
                todo="LAYERS= takes names of layers; make features makes their codes",
            )
        return self.contents.array(dataset_name(layer))

    @cached_property
    def paths(self) -> tuple[str, ...]:
        """Paths relative to the data root, one per row."""
        return tuple(
            path.decode("utf-8", "surrogateescape")
            for path in self.contents.array("images/path").tolist()
        )

    @cached_property
    def sha256(self) -> NDArray[np.bytes_]:
        """SHA-256 of each image's bytes, (n_images,) of 64 hexadecimal digits."""
        return np.asarray(self.contents.array("images/sha256"))

    @cached_property
    def labels(self) -> NDArray[np.int32]:
        """Indices into `class_names`, (n_images,)."""
        return np.asarray(self.contents.array("images/label"))

    @cached_property
    def split(self) -> NDArray[np.str_]:
        """``train``, ``val`` or ``test``, (n_images,)."""
        return np.char.decode(np.asarray(self.contents.array("images/split")), "ascii", "replace")

    @property
    def row_digest(self) -> NDArray[np.uint64]:
        """What :func:`row_digests` gave when the codes were made, (n_images,)."""
        return self.contents.array("images/row_digest")

    @property
    def extra(self) -> dict[str, NDArray[Any]]:
        """Further columns of the data set, (n_images,) each."""
        prefix = "images/extra/"
        return {
            name.removeprefix(prefix): np.asarray(self.contents.array(name))
            for name in self.contents.fields
            if name.startswith(prefix)
        }

    @cached_property
    def rejects(self) -> dict[str, str]:
        """Images without codes: SHA-256 to the reason."""
        shas = self.contents.array("rejects/sha256").tolist()
        reasons = self.contents.array("rejects/reason").tolist()
        return {s.decode(): r.decode() for s, r in zip(shas, reasons, strict=True)}

    def matrix(self, layers: Iterable[str] | None = None) -> NDArray[np.float32]:
        """Read the codes of some layers (default: all) side by side, every row checked.

        Returns
        -------
        array of shape (n_images, n_views, D), float32
            D is the sum of the layers' dimensions.

        Raises
        ------
        CacheError
            Rows do not match their digests; names the first image.
        """
        self.check()
        n = len(self)
        blocks = []
        for layer in layers or self.layers:
            block = self[layer]
            shape = (n, self.config["n_views"], -1) if n else (0, self.config["n_views"], 0)
            blocks.append(np.asarray(block, np.float32).reshape(shape))  # (N, V, D_layer)
        return np.concatenate(blocks, axis=2)

    @property
    def matrix_bytes(self) -> int:
        """Bytes that :meth:`matrix` takes, without reading any code."""
        per_image = sum(int(np.prod(block.shape[1:])) for block, _ in self.blocks())
        return 4 * len(self) * per_image

    def blocks(self) -> list[tuple[NDArray[np.floating[Any]], NDArray[np.int64] | None]]:
        """Map each layer's codes, with the rows of them that count; None: all, in order."""
        return [(self[layer], None) for layer in self.layers]

    def check(self) -> None:
        """Refuse codes that are damaged.

        Raises
        ------
        CacheError
            Rows do not match their digests; names the first image.
        """
        if self.columns_fault:
            raise CacheError(
                f"{self.path}: {self.columns_fault}.",
                todo="remove it and run `make features` again",
            )
        damaged = self.damaged_rows()
        if len(damaged):
            raise CacheError(
                f"{self.path}: the codes of {len(damaged)} images are damaged, the first "
                f"{self.paths[damaged[0]]}.",
                todo="make features makes just those again",
            )

    def damaged_rows(self) -> NDArray[np.int64]:
        """Find the rows whose codes do not match the digest taken when they were made.

        The file is immutable, so it is read once.
        """
        return self._damaged

    @cached_property
    def _damaged(self) -> NDArray[np.int64]:
        stored = self.row_digest
        bad = []
        for start in range(0, len(self), 1024):
            block = [self[layer][start : start + 1024] for layer in self.layers]
            bad.append(np.flatnonzero(row_digests(block) != stored[start : start + 1024]) + start)
            if start // 1024 % 8 == 7:
                self.contents.release()
        return np.concatenate(bad) if bad else np.empty(0, np.int64)


def open_codes(path: str | Path) -> Codes:
    """Open a published file of codes; nothing but its table of contents is read.

    Parameters
    ----------
    path : str or Path
        ``cache/<data>/<model>-<layers>-<views>-<size>-<digest>.h5``.

    Raises
    ------
    CacheError
        No such file, not HDF5, not ours, of a newer format, or cut short.
    """
    contents = open_file(Path(path))
    attributes = contents.attributes
    version = attributes.get("format_version")
    if not all(isinstance(attributes.get(name), kind) for name, kind in _ATTRIBUTES.items()):
        raise CacheError(
            f"{path} is an HDF5 file, but not one of codes that this pipeline wrote.",
            expected=f"root attributes {', '.join(_ATTRIBUTES)}",
            todo="move it away and run `make features` again",
        )
    if version != FORMAT_VERSION or not attributes["complete"]:
        raise CacheError(
            f"{path} is of format {version}; this version reads format {FORMAT_VERSION}.",
            todo="remove it and run `make features` again, or use the version that wrote it",
        )
    codes = Codes(contents)
    fault = _fault(codes)
    if fault:
        raise CacheError(f"{path}: {fault}.", todo="remove it and run `make features` again")
    return codes


def fingerprint_of(path: Path) -> str:
    """Read the fingerprint of a published file; empty where it cannot be read."""
    try:
        return open_codes(path).fingerprint
    except (CacheError, OSError):
        return ""


def _fault(codes: Codes) -> str:
    """Say what a file lacks to be one of codes; empty where it has everything."""
    try:
        config = json.loads(codes.contents.attributes["config"])
        layers, n_views = config["layers"], config["n_views"]
        if not layers or not all(isinstance(layer, str) for layer in layers):
            return "its config names no layers"
        if not isinstance(n_views, int) or n_views < 1:
            return "its config names no number of views"
        if digest_of(matters(config)) != codes.fingerprint:
            return "its config is not what its fingerprint was taken of"
    except (ValueError, TypeError, KeyError, RecursionError):
        return "its config cannot be read"
    fields = codes.contents.fields
    wanted = {dataset_name(layer): ("f", "images/label") for layer in layers} | _COLUMNS
    for name, field in fields.items():
        if name.startswith("probe/") and (field.dtype.kind != "f" or len(field.shape) < 2):
            return f"{name} is of another kind"
    for name, (kind, like) in wanted.items():
        if name not in fields or like not in fields:
            return f"{name} is missing"
        field = fields[name]
        if field.dtype.kind != kind or field.shape[:1] != fields[like].shape[:1]:
            return f"{name} is of another kind, or has another number of rows than {like}"
        if kind == "f":
            views = (n_views,) if n_views > 1 and field.shape[0] else field.shape[1:2]
            if len(field.shape) < 2 or field.shape[1:2] != views:
                return f"{name} has another number of views than the config says"
        elif len(field.shape) != 1:
            return f"{name} is no column"
    return ""
