"""The manifest: every image of a data set with its bytes' digest, its label and its split.

All later stages take their rows from it. It is loaded anew at each command (0.1 s for 5,000
images that nobody touched) and never stored, so it cannot be stale.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..progress import Progress, silent
from ..settings import DataSettings, PlaceSettings
from .digests import hash_files
from .elpv import read_elpv
from .layout import read_layout
from .listing import SPLITS, TEST, TRAIN, UNSPLIT, VAL, Listing, few, plural
from .names import claim_name
from .registry import REGISTRY, Source, locate
from .splits import cut

__all__ = ["SPLITS", "Manifest", "Reject", "load_manifest"]


@dataclass(frozen=True)
class Reject:
    """A file that was left out: its path, as far as it can be written, and why."""

    path: str
    reason: str


@dataclass(frozen=True, eq=False, kw_only=True)
class Manifest:
    """Images, labels and splits of a data set of N images and K classes.

    Attributes
    ----------
    name : str
        Names the folder under the cache and under the results.
    root : Path
        Absolute; paths are relative to it.
    paths : tuple of str, length N
        POSIX, UTF-8, sorted. A path outside `root` (from a list file) begins with ``..``.
    sha256 : array of shape (N,), S64
        Lower-case hexadecimal digits of the digest of the file's bytes.
    labels : array of shape (N,), int32
        Index into `class_names`.
    split : array of shape (N,), int8
        Index into ``SPLITS``.
    class_names : tuple of str, length K
        Sorted; for elpv functional, defective.
    extra : mapping of str to array of shape (N,)
        Further columns that came with the images.
    strata : array of shape (N,), int32, or None
        What splits are stratified by besides the class.
    val_from, split_from : str
        Where val comes from (``data``, ``cut``, ``none``) and where the split does (``data``,
        ``cut``).
    rejects : tuple of Reject
        Files that could not be opened, are empty, or whose name is not UTF-8.
    warnings : tuple of str
        What belongs into every result of this set.
    """

    name: str
    root: Path
    paths: tuple[str, ...]
    sha256: NDArray[np.bytes_]
    labels: NDArray[np.int32]
    split: NDArray[np.int8]
    class_names: tuple[str, ...]
    extra: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    strata: NDArray[np.int32] | None = None
    val_from: str = "none"
    split_from: str = "data"
    rejects: tuple[Reject, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def n_images(self) -> int:
        """Number of images N."""
        return len(self.paths)

    @property
    def n_classes(self) -> int:
        """Number of classes K."""
        return len(self.class_names)

    @cached_property
    def groups(self) -> NDArray[np.int64]:
        """Number (N,) of each image's bytes: equal for byte-identical images, ordered by digest."""
        return np.unique(self.sha256, return_inverse=True)[1].astype(np.int64)

    @cached_property
    def leaks(self) -> NDArray[np.bool_]:
        """Test images (N,) whose bytes are in train or val too."""
        test = self.split == TEST
        seen = np.zeros(self.groups.max(initial=-1) + 1, dtype=bool)
        seen[self.groups[~test]] = True
        return np.asarray(test & seen[self.groups])

    @cached_property
    def contradictions(self) -> tuple[tuple[int, ...], ...]:
        """Rows of byte-identical images that carry different labels, one tuple a group."""
        n_groups = self.groups.max(initial=-1) + 1
        lowest = np.full(n_groups, self.n_classes)
        highest = np.full(n_groups, -1)
        np.minimum.at(lowest, self.groups, self.labels)
        np.maximum.at(highest, self.groups, self.labels)
        return tuple(
            tuple(np.flatnonzero(self.groups == one).tolist())
            for one in np.flatnonzero(lowest < highest)
        )

    def counts(self) -> dict[str, dict[str, int]]:
        """Images by split and class; splits without images are left out."""
        table = np.zeros((len(SPLITS), self.n_classes), dtype=np.int64)
        np.add.at(table, (self.split, self.labels), 1)
        return {
            SPLITS[split]: dict(zip(self.class_names, row.tolist(), strict=True))
            for split, row in enumerate(table)
            if row.any()
        }


def load_manifest(
    data: DataSettings,
    places: PlaceSettings,
    *,
    workers: int = 0,
    rehash: bool = False,
    progress: Progress = silent,
) -> Manifest:
    """Find a data set, fetch it where needed, and list, hash and split its images.

    Parameters
    ----------
    data : DataSettings
        Which data set; the seed of its split; whether to fetch and whether to be strict.
    places : PlaceSettings
        The data root, and the cache, which remembers digests.
    workers : int
        Threads that hash; 0: one a core.
    rehash : bool
        Read every file, whatever is remembered of it.

    Raises
    ------
    DataError
        The data set cannot be read as one; see :mod:`cnn_codes.datasets.layout`. With
        ``data.strict`` also: a file that cannot be opened or is empty.
    DownloadError
        It is not there and cannot be fetched.
    """
    data_root, cache = Path(places.data_root), Path(places.cache)
    source = locate(data.data, data_root, offline=data.offline, progress=progress)
    listing = _read(source)
    name = (
        source.name
        if source.registered
        else claim_name(source.name, source.origin, cache, taken=REGISTRY)
    )
    digests = hash_files(
        listing.root,
        listing.paths,
        cache / name / "digests.npz",
        workers=workers,
        rehash=rehash,
        progress=progress,
    )
    rejects = [Reject(*one) for one in listing.rejects]
    rejects += [Reject(listing.paths[row], reason) for row, reason in digests.faults.items()]
    if rejects and data.strict:
        raise DataError(
            f"{plural(len(rejects), 'file', 'files')} of {data.data} cannot be used: "
            f"{few([f'{one.path} ({one.reason})' for one in rejects])}.",
            expected="with STRICT=1, only files that can be read",
            todo="mend or remove them, or give the command without STRICT=1 to leave them out",
        )
    sha256 = digests.hex
    if digests.faults:
        kept = np.delete(np.arange(len(listing.paths)), list(digests.faults))
        listing, sha256 = listing.take(kept), sha256[kept]
    return _assemble(name, source, listing, sha256, tuple(rejects), data.seed)


def _read(source: Source) -> Listing:
    if source.registered and source.name == "elpv" and (source.path / "images").is_dir():
        return read_elpv(source.path)
    return read_layout(source.path)


def _assemble(
    name: str,
    source: Source,
    listing: Listing,
    sha256: NDArray[np.bytes_],
    rejects: tuple[Reject, ...],
    seed: int,
) -> Manifest:
    listing.check(source.path)
    names, labels = listing.classes()
    warnings = list(listing.warnings)
    split_from, val_from = "data", "none"
    present = set(listing.split.tolist())
    if present == {TRAIN, VAL}:
        listing.split = np.where(listing.split == VAL, TEST, TRAIN).astype(np.int8)
        warnings.append("The set has no test split: its val is reported as test.")
    elif present in ({UNSPLIT}, {TRAIN}):
        if present == {TRAIN}:
            warnings.append("The set has a train split only: it was cut like one without splits.")
        fractions = listing.cut_fractions
        listing.split = cut(
            labels, sha256, fractions, seed, strata=listing.strata, class_names=names
        )
        split_from, val_from = "cut", "cut" if fractions[VAL] else "none"
    elif VAL in present:
        val_from = "data"
    if rejects:
        warnings.append(
            f"{plural(len(rejects), 'file was', 'files were')} left out: "
            f"{few([f'{one.path} ({one.reason})' for one in rejects])}."
        )
    manifest = Manifest(
        name=name,
        root=Path(os.path.realpath(listing.root)),
        paths=tuple(listing.paths),
        sha256=sha256,
        labels=labels,
        split=listing.split,
        class_names=names,
        extra=MappingProxyType(listing.extra),
        strata=listing.strata,
        val_from=val_from,
        split_from=split_from,
        rejects=rejects,
        warnings=(),
    )
    warnings += listing.remarks() + _remarks(manifest)
    object.__setattr__(manifest, "warnings", tuple(warnings))
    return manifest


def _remarks(manifest: Manifest) -> list[str]:
    remarks = []
    n_leaks = int(manifest.leaks.sum())
    if n_leaks:
        n_test = int(np.sum(manifest.split == TEST))
        remarks.append(
            f"{n_leaks:,} of {n_test:,} test images are byte-identical to training or validation "
            "images (leaks)."
        )
    if manifest.contradictions:
        examples = [
            " = ".join(manifest.paths[row] for row in rows[:2]) for rows in manifest.contradictions
        ]
        remarks.append(
            f"{plural(len(examples), 'image has', 'images have')} copies in several classes: "
            f"{few(examples, 3)}."
        )
    return remarks
