"""A published file of codes made from rows that are all there, and put in place in one step."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..datasets import Manifest
from ..datasets.images import decoder_version
from ..errors import CacheError
from ..files import need_space, publishing
from .columns import columns_of
from .format import FORMAT_VERSION, columns_digest, dataset_name, probe_name, text_column
from .hdf5 import SEAL, lay_out
from .keys import Key
from .known import Known, Source
from .rows import match_rows, put_seal, write_rows


class Publication:
    """The file of a manifest that is about to be published.

    Parameters
    ----------
    key : Key
        Its name and fingerprint.
    manifest : Manifest
        Its readable images become the rows, in its order.
    known : Known
        Holds every one of them.
    probe : mapping of str to array
        Layer to codes of the fixed batch; empty: those of the rows.

    Attributes
    ----------
    sha256 : S64 (n,)
        Digests of the images that have a row.

    Raises
    ------
    CacheError
        Rows are missing.
    """

    def __init__(
        self, key: Key, manifest: Manifest, known: Known, probe: Mapping[str, NDArray[Any]]
    ) -> None:
        self._key, self._known = key, known
        self._layers = tuple(key.config["layers"])
        self._class_names = manifest.class_names
        self._columns = columns_of(manifest, known.rejects)
        self._probe = probe or next((s.probe for s in known.sources if s.probe), {})
        self.sha256 = self._columns["images/sha256"]
        self._seconds = 0.0
        self._matches = self._matched()

    def _matched(self) -> list[tuple[Source, NDArray[np.int64], NDArray[np.int64]]]:
        """Find each row: sources, with rows of the source and where in the file they go."""
        order = np.argsort(self.sha256, kind="stable")  # to find the rows of a source's images
        filled, matches = np.zeros(len(self.sha256), bool), []
        for source in self._known.sources:
            at, rows = match_rows(source.sha256, self.sha256, order, filled)
            filled[rows] = True
            self._seconds += source.seconds * len(np.unique(at)) / max(1, len(source.sha256))
            if len(at):
                matches.append((source, at, rows))
        if not filled.all():
            raise CacheError(f"{np.sum(~filled)} rows are missing; run it again.")
        return matches

    def write(self, before_swap: Callable[[], None]) -> None:
        """Write the file, and put it in the place of its predecessor.

        Parameters
        ----------
        before_swap : callable
            Called when the new file is complete, while the predecessor is still in place.

        Raises
        ------
        NoSpaceError
            The disk is full.
        """
        layout, n = self._layout(), len(self.sha256)
        columns = self._columns | {"images/row_digest": np.zeros(n, np.uint64)}
        for source, at, rows in self._matches:
            columns["images/row_digest"][rows] = source.read(self._layers)[1][at]
        attributes = {
            "columns_digest": columns_digest(columns, self._class_names),
            "decoder": decoder_version(),
            "format_version": FORMAT_VERSION,
            "fingerprint": self._key.fingerprint,
            "config": json.dumps(self._key.config, sort_keys=True, allow_nan=False),
            "class_names": text_column(self._class_names),
            "extraction_s": self._seconds,
            "complete": True,
        }
        path = self._key.path
        n_bytes = sum(int(np.prod(s, dtype=np.int64)) * d.itemsize for s, d in layout.values())
        need_space(path.parent, n_bytes + 1_000_000, f"Publishing {path.name}")
        with publishing(path) as temporary:
            fields = lay_out(temporary, layout, attributes)
            with temporary.open("r+b") as stream:
                handle = stream.fileno()
                for name, column in columns.items():
                    write_rows(handle, fields[name], np.arange(len(column)), column)
                for source, at, rows in self._matches:
                    blocks, _ = source.read(self._layers)
                    for layer, block in zip(self._layers, blocks, strict=True):
                        write_rows(handle, fields[dataset_name(layer)], rows, block, at)
                for layer, codes in self._probe.items():
                    where = fields[probe_name(layer)]
                    write_rows(handle, where, np.arange(len(codes)), codes)
                stream.flush()
                put_seal(handle, fields)
                os.fsync(handle)
            before_swap()

    def _layout(self) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
        """Shape and dtype of each data set of the file, in its order."""
        n = len(self.sha256)
        layout = {name: (column.shape, column.dtype) for name, column in self._columns.items()}
        layout["images/row_digest"] = ((n,), np.dtype(np.uint64))
        for layer, (shape, dtype) in zip(
            self._layers, self._known.row_shapes(self._layers), strict=True
        ):
            layout[dataset_name(layer)] = ((n, *shape), dtype)
        layout[SEAL] = ((1,), np.dtype("S64"))
        for layer, codes in self._probe.items():
            layout[probe_name(layer)] = (codes.shape, codes.dtype)
        return layout
