"""The rows that are there under one fingerprint: in the published file and in the parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..datasets import Manifest
from ..errors import CacheError
from .parts import read_part
from .reader import Codes, open_codes

_NONE = np.empty(0, "S64")


@dataclass(frozen=True, eq=False)
class Source:
    """Rows that are there: a part or the published file, and the bytes they belong to."""

    path: Path
    sha256: NDArray[np.bytes_]  # (n,) S64; b"" where the row is damaged
    is_part: bool
    seconds: float  # that its rows took
    probe: dict[str, NDArray[Any]] = field(default_factory=dict)  # layer to codes of a fixed batch
    inherited: bool = False  # from a file under the predecessor of the fingerprint

    @classmethod
    def of(cls, codes: Codes) -> Source:
        """Give the rows of a published file, without those that do not match their digests."""
        sha256 = codes.sha256.copy()
        sha256[codes.damaged_rows()] = b""
        return cls(codes.path, sha256, is_part=False, seconds=codes.extraction_s, probe=codes.probe)

    def read(self, layers: Sequence[str]) -> tuple[list[NDArray[Any]], NDArray[np.uint64]]:
        """Give the codes (n, ...) of each layer, and the digests (n,) of the rows."""
        if self.is_part:
            arrays, _ = read_part(self.path)
            return [arrays[f"codes/{i}"] for i in range(len(layers))], arrays["row_digest"]
        codes = open_codes(self.path)
        return [codes[layer] for layer in layers], codes.row_digest


@dataclass(eq=False)
class Known:
    """What a cache file and its parts hold under one fingerprint.

    Attributes
    ----------
    sources : list
        Parts and the published file.
    rejects : dict of str to str
        SHA-256 of images that the decoders here cannot use, to the reason.
    notes : list of str
        What was found wrong, and what was done about it.
    """

    sources: list[Source] = field(default_factory=list)
    rejects: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def sha256(self) -> NDArray[np.bytes_]:
        """Sorted digests (n,) of all images that have a row."""
        return np.unique(np.concatenate([_NONE, *(source.sha256 for source in self.sources)]))

    def manifest(self) -> Manifest:
        """List every image that has a row, as a data set of one class without splits."""
        sha256 = self.sha256()
        sha256 = sha256[sha256 != b""]  # damaged rows
        zeros = np.zeros(len(sha256))
        return Manifest(
            name="all",
            root=Path("/"),
            paths=tuple(digest.decode() for digest in sha256.tolist()),
            sha256=sha256,
            labels=zeros.astype(np.int32),
            split=zeros.astype(np.int8),
            class_names=("image",),
        )

    def missing(self, manifest: Manifest) -> NDArray[np.int64]:
        """Rows of the manifest to run: one for each image without a row, in order."""
        _, first = np.unique(manifest.sha256, return_index=True)
        rejects = np.array(list(self.rejects), "S64")
        done = np.isin(manifest.sha256[first], np.concatenate([self.sha256(), rejects]))
        return np.sort(first[~done])

    def row(self, digest: str, layers: Sequence[str]) -> list[NDArray[Any]]:
        """Give the codes (1, ...) of one image, which has a row, for each layer."""
        for source in self.sources:
            at = np.flatnonzero(source.sha256 == digest.encode())
            if len(at):
                return [block[at[:1]] for block in source.read(layers)[0]]
        raise CacheError(f"There is no row of {digest}.")

    def row_shapes(self, layers: Sequence[str]) -> list[tuple[tuple[int, ...], np.dtype[Any]]]:
        """Shape and dtype of one row, for each layer."""
        for source in self.sources:
            if len(source.sha256):
                blocks, _ = source.read(layers)
                return [(block.shape[1:], block.dtype) for block in blocks]
        return [((0,), np.dtype(np.float32)) for _ in layers]
