"""Codes by the bytes of their images, kept between calls, in whatever order those come.

The parts and the published file are those of stage one (:class:`.cache.CacheFile`), with
no data set behind them: the published file holds every image that was ever asked for. New rows
stay in parts until there are many, so that asking for images singly does not write the whole file
again each time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .cache import CacheFile
from .format import row_digests
from .keys import Key
from .known import Known
from .parts import read_part
from .reader import open_codes

_FEW_PARTS, _MOST_PARTS = 8, 64


class CodeStore:
    """Rows of codes under one fingerprint.

    Parameters
    ----------
    key : Key
        Which file, and what its codes depend on.
    """

    def __init__(self, key: Key) -> None:
        self._key = key
        self._file = CacheFile(key)

    def get(
        self, sha256: Sequence[str], make: Callable[[list[int], CacheFile], None]
    ) -> list[NDArray[Any]]:
        """Give the codes of images, making those that are not there.

        Parameters
        ----------
        sha256 : sequence of str, length n
            Digests of the images.
        make : callable
            Is given the places of the images without a row, each digest once, and adds their rows
            to the file as parts. What it raises is raised; the parts it added are kept.

        Returns
        -------
        list of array (n, [V,] D)
            One a layer.
        """
        wanted = np.array(list(sha256), "S64")
        if self._key.path.exists():  # published files never change: no lock to read one
            codes = open_codes(self._key.path)
            if codes.fingerprint == self._key.fingerprint:
                at = _find(codes.sha256, wanted)
                if (at >= 0).all():
                    blocks = [np.asarray(codes[layer][at]) for layer in codes.layers]
                    if (row_digests(blocks) == codes.row_digest[at]).all():
                        return blocks
        with self._file.locked(lambda holder: None):
            known = self._file.known()
            _, first = np.unique(wanted, return_index=True)
            missing = np.sort(first[~np.isin(wanted[first], known.sha256())])
            if len(missing):
                make(missing.tolist(), self._file)
                known = self._file.known()
            if _is_worth_publishing(known):
                self._file.publish(known.manifest(), known)
                known = self._file.known()
            return self._read(known, wanted)

    def _read(self, known: Known, wanted: NDArray[np.bytes_]) -> list[NDArray[Any]]:
        blocks: list[NDArray[Any]] = []
        left = np.ones(len(wanted), bool)
        for source in known.sources:
            at = _find(source.sha256, wanted)
            take = left & (at >= 0)
            if not take.any():
                continue
            rows = _rows_of(source.path, source.is_part, len(self._file.layers))
            for number, one in enumerate(rows):
                if len(blocks) <= number:
                    blocks.append(np.empty((len(wanted), *one.shape[1:]), one.dtype))
                blocks[number][take] = one[at[take]]
            left &= ~take
        assert not left.any(), "make() did not make what it was asked for"
        return blocks


def _is_worth_publishing(known: Known) -> bool:
    """Whether to write the whole file again: what it costs must stay in proportion to its gain."""
    n_parts = sum(source.is_part for source in known.sources)
    n_new = sum(len(source.sha256) for source in known.sources if source.is_part)
    n_all = sum(len(source.sha256) for source in known.sources)
    return n_parts > _MOST_PARTS or (n_parts > _FEW_PARTS and n_new > n_all / 8)


def _rows_of(path: Path, is_part: bool, n_layers: int) -> list[NDArray[Any]]:
    if is_part:
        arrays, _ = read_part(path)
        return [arrays[f"codes/{number}"] for number in range(n_layers)]
    codes = open_codes(path)
    return [codes[layer] for layer in codes.layers]


def _find(have: NDArray[np.bytes_], wanted: NDArray[np.bytes_]) -> NDArray[np.int64]:
    """Row of `have` with each wanted digest; -1 where there is none."""
    if not len(have):
        return np.full(len(wanted), -1)
    order = np.argsort(have, kind="stable")
    place = np.minimum(np.searchsorted(have, wanted, sorter=order), len(have) - 1)
    at: NDArray[np.int64] = np.where(have[order[place]] == wanted, order[place], -1)
    return at
