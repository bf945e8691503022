"""The manifest: every image of a data set with its bytes' digest, its label and its split.

All later stages take their rows from it. It is loaded at each command (0.1 s for 5,000 images
that nobody touched) and never stored, so it cannot be stale.

Images of one group (of equal bytes, or of one thing as ``GROUP=`` says) stay on one side of every
cut. Cut by :attr:`Manifest.keys`; compare by :attr:`Manifest.groups`.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..files import digest_of_arrays
from ..progress import Progress, silent
from ..settings import DataSettings, PlaceSettings
from .adopt import adopt_codes
from .corrections import corrected
from .digests import hash_files
from .elpv import NAMES as ELPV
from .elpv import read_elpv
from .groups import AUTO, group_values, joined, offered, twins
from .layout import read_layout
from .listing import Listing, Remark, class_remarks
from .names import claim_name
from .phrases import few, plural
from .registry import REGISTRY, Source, locate
from .split_words import SPLITS, TEST, TRAIN, UNSPLIT, VAL
from .splits import cut, uncut

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
    group_keys : array of shape (N,), S64, or None
        Equal for images of one group; None: groups are equal bytes.
    grouping : str
        Where groups beyond equal bytes come from (``column patient_id``); empty: there are none.
        ``auto``: they are still to be found, from codes; see :meth:`with_groups`.
    val_from, split_from : str
        Where val comes from (``data``, ``cut``, ``none``) and where the split does (``data``,
        ``cut``).
    cut_fractions : tuple of three floats
        Shares of train, val and test where the split was cut.
    seed : int
        Of the cut.
    rejects : tuple of Reject
        Files that could not be opened, are empty, or whose name is not UTF-8.
    notes : tuple of str
        Those of the warnings that do not depend on the split.
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
    group_keys: NDArray[np.bytes_] | None = None
    grouping: str = ""
    val_from: str = "none"
    split_from: str = "data"
    cut_fractions: tuple[float, float, float] = (0.60, 0.15, 0.25)
    seed: int = 0
    rejects: tuple[Reject, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check that the groups are those of these images."""
        if self.group_keys is not None and len(self.group_keys) != len(self.paths):
            raise ValueError(f"{len(self.group_keys)} groups for {len(self.paths)} images")

    @property
    def n_images(self) -> int:
        """Number of images N."""
        return len(self.paths)

    @property
    def n_classes(self) -> int:
        """Number of classes K."""
        return len(self.class_names)

    @property
    def row_of(self) -> dict[str, int]:
        """Row of each path; made at each call."""
        return {path: row for row, path in enumerate(self.paths)}

    @property
    def keys(self) -> NDArray[np.bytes_]:
        """Key (N,), S64, of each image's group: what cuts draw by, whatever the order of rows."""
        return self.sha256 if self.group_keys is None else self.group_keys

    @cached_property
    def copies(self) -> NDArray[np.int64]:
        """Number (N,) of each image's bytes: equal for byte-identical images, ordered by digest."""
        return np.unique(self.sha256, return_inverse=True)[1].astype(np.int64)

    @cached_property
    def groups(self) -> NDArray[np.int64]:
        """Number (N,) of each image's group, from 0.

        Groups are the connected components of equal bytes and equal ``GROUP``.
        """
        return np.unique(self.keys, return_inverse=True)[1].astype(np.int64)

    def groups_at(self, rows: NDArray[np.integer[Any]]) -> NDArray[np.int64] | None:
        """Group (n,) of each of these rows: what intervals and paired tests count.

        None where no images belong together but those of equal bytes: images are counted then.
        """
        return self.groups[rows] if self.grouping else None

    @property
    def group_fields(self) -> dict[str, str]:
        """What groups add to the fingerprint of all that depends on them; empty: there are none."""
        if not self.grouping:
            return {}
        found = "" if self.group_keys is None else digest_of_arrays(self.group_keys)
        return {"groups": found}

    @cached_property
    def leaks(self) -> NDArray[np.bool_]:
        """Test images (N,) whose group (or bytes) is in train or val too."""
        test = self.split == TEST
        seen = np.zeros(self.groups.max(initial=-1) + 1, dtype=bool)
        seen[self.groups[~test]] = True
        return np.asarray(test & seen[self.groups])

    @cached_property
    def contradictions(self) -> tuple[tuple[int, ...], ...]:
        """Rows of byte-identical images that carry different labels, one tuple an image."""
        n_copies = self.copies.max(initial=-1) + 1
        lowest = np.full(n_copies, self.n_classes)
        highest = np.full(n_copies, -1)
        np.minimum.at(lowest, self.copies, self.labels)
        np.maximum.at(highest, self.copies, self.labels)
        rows = np.flatnonzero((lowest < highest)[self.copies])
        rows = rows[np.argsort(self.copies[rows], kind="stable")]
        ends = np.flatnonzero(np.diff(self.copies[rows])) + 1
        return tuple(tuple(part.tolist()) for part in np.split(rows, ends) if len(part))

    def take(self, rows: NDArray[np.integer[Any]]) -> Manifest:
        """Give the manifest of these rows, in this order, with all else as it is."""
        return replace(
            self,
            paths=tuple(self.paths[row] for row in rows.tolist()),
            sha256=self.sha256[rows],
            labels=self.labels[rows],
            split=self.split[rows],
            extra={name: column[rows] for name, column in self.extra.items()},
            strata=None if self.strata is None else self.strata[rows],
            group_keys=None if self.group_keys is None else self.group_keys[rows],
        )

    def with_groups(self, groups: Sequence[Any] | NDArray[Any], how: str) -> Manifest:
        """Give the manifest with these groups, joined with equal bytes, and its splits cut again.

        A split that came with the data stays, but for validation images whose group is in train.

        Parameters
        ----------
        groups : sequence of length N, of int or str
            Equal for images of one group; negative or empty for an image of its own.
        how : str
            Where they come from, for the record.
        """
        own = self.grouping in ("", AUTO)  # then the keys are of equal bytes or names, no more
        keys = joined(self.keys if own else self.sha256, groups)
        return _settled(replace(self, group_keys=keys, grouping=how))

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
        Threads that hash; 0: one per core.
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
    listing = _read(source, data, data_root, progress)
    listing.warnings += source.notes
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
            todo="repair or remove them, or give the command without STRICT=1 to leave them out",
        )
    adopted = adopt_codes(cache, name, digests.raw)
    if adopted:
        listing.warnings.append(
            f"The codes of {adopted}, which holds the same images, are used: nothing runs again."
        )
    sha256 = digests.hex
    if digests.faults:
        _lost(data.data, listing, digests.faults)
        kept = np.delete(np.arange(len(listing.paths)), list(digests.faults))
        listing, sha256 = listing.take(kept), sha256[kept]
    manifest = _assemble(name, source, listing, sha256, tuple(rejects), data)
    return corrected(manifest, Path(data.labels)) if data.labels else manifest


def _lost(given: str, listing: Listing, faults: Mapping[int, str]) -> None:
    """Refuse a set of which a whole class or split, or half of all files, cannot be read."""
    lost = {listing.labels[row] for row in faults}
    left = {label for row, label in enumerate(listing.labels) if row not in faults}
    gone = sorted(lost - left)
    splits = listing.split.tolist()
    kept = {split for row, split in enumerate(splits) if row not in faults}
    gone += [SPLITS[split] for split in sorted(set(splits) - kept) if split != UNSPLIT]
    if not gone and len(faults) * 2 < len(listing.paths):
        return
    reasons = Counter(reason.partition(" (to ")[0] for reason in faults.values()).most_common()
    what = few([f"{count:,} {reason.partition(':')[0]}" for reason, count in reasons], 3)
    step = reasons[0][0].partition(": ")[2].removesuffix(" fetches it").removesuffix(
        " fetches the file"
    )  # fmt: skip
    raise DataError(
        f"{len(faults):,} of {len(listing.paths):,} files of {given} cannot be used"
        + (f", all of {few(gone)}" if gone and len(faults) < len(listing.paths) else "")
        + f": {what}.",
        expected="files of images",
        todo=f"in that folder: {step}" if step else "fetch the files, or take that class out",
    )


def _read(source: Source, data: DataSettings, data_root: Path, progress: Progress) -> Listing:
    if source.shards:
        from .shards import read_shards

        return read_shards(
            list(source.shards),
            data,
            memory=data_root / ".archives",
            given=data.data,
            progress=progress,
        )
    if source.registered and source.name in ELPV and (source.path / "images").is_dir():
        return read_elpv(source.path, by_module=source.name == ELPV[0])
    listing = read_layout(source.path, data, confined=source.confined, given=data.data)
    if source.confined:
        from .archive import unpacked_note

        notes = unpacked_note(source.path)
        if any("were written out" in note for note in notes):  # the table is our own
            listing.warnings = [one for one in listing.warnings if "from labels.csv" not in one]
        listing.warnings += notes
    return listing


def _assemble(
    name: str,
    source: Source,
    listing: Listing,
    sha256: NDArray[np.bytes_],
    rejects: tuple[Reject, ...],
    data: DataSettings,
) -> Manifest:
    listing.check(source.path)
    names, labels = listing.classes()
    values, grouping, remarks = group_values(listing, data.group)
    notes = [*listing.warnings, *remarks]
    if not data.group and not grouping:
        notes += offered(listing)
    alike = twins(listing.paths, listing.labels)
    keys = sha256
    if any(alike):
        keys = joined(sha256, alike)
        pairs = [name for name, one in zip(listing.paths, alike, strict=True) if one]
        notes.append(
            f"{len(pairs):,} images have the name of another in their folder, with another suffix "
            f"({few(pairs, 3)}): they are taken for the same picture and stay on one side of every "
            "split."
        )
    split, split_from, val_from = listing.split, "data", "none"
    present = set(split.tolist())
    if present == {TRAIN, VAL}:
        split = np.where(split == VAL, TEST, TRAIN).astype(np.int8)
        notes.append("The set has no test split: its val is reported as test.")
    elif present in ({UNSPLIT}, {TRAIN}):
        if present == {TRAIN}:
            notes.append("The set has a train split only: it was cut like one without splits.")
        split_from, val_from = "cut", "cut" if listing.cut_fractions[VAL] else "none"
    elif VAL in present:
        val_from = "data"
    if rejects:
        text = (
            f"{plural(len(rejects), 'file was', 'files were')} left out: "
            f"{few([f'{one.path} ({one.reason})' for one in rejects])}."
        )
        notes.append(Remark(text, "left-out"))
    return _settled(
        Manifest(
            name=name,
            root=Path(os.path.realpath(listing.root)),
            paths=tuple(listing.paths),
            sha256=sha256,
            labels=labels,
            split=split,
            class_names=names,
            extra=MappingProxyType(listing.extra),
            strata=listing.strata,
            group_keys=joined(keys, values)
            if values is not None
            else (keys if any(alike) else None),
            grouping=grouping,
            val_from=val_from,
            split_from=split_from,
            cut_fractions=listing.cut_fractions,
            seed=data.seed,
            rejects=rejects,
            notes=tuple(notes),
        )
    )


def _settled(manifest: Manifest) -> Manifest:
    """Cut the splits that are to be cut, keep groups on one side, and say what is odd."""
    remarks: list[str] = []
    in_train: list[int] = []
    if manifest.split_from == "cut":
        split = cut(
            manifest.labels,
            manifest.keys,
            manifest.cut_fractions,
            manifest.seed,
            strata=manifest.strata,
            class_names=manifest.class_names,
            grouping=manifest.grouping,
        )
        manifest = replace(manifest, split=split)
        n_sides = sum(share > 0 for share in manifest.cut_fractions)
        apart = set(manifest.labels[split != TRAIN].tolist())
        few_groups = uncut(manifest.labels, manifest.keys, n_sides).tolist()
        in_train = [one for one in few_groups if one not in apart]
        remarks += _uncut_remarks(manifest, in_train, n_sides)
    elif manifest.val_from == "data":
        manifest, remarks = _val_apart(manifest)
    remarks += class_remarks(manifest.class_names, manifest.labels, manifest.split, in_train)
    remarks += _remarks(manifest)
    return replace(manifest, warnings=(*manifest.notes, *remarks))


def _uncut_remarks(manifest: Manifest, uncut: Sequence[int], n_sides: int) -> list[str]:
    """Name the classes that cannot be cut: they are learnt, and not measured."""
    if not uncut:
        return []
    named = []
    for one in uncut:
        rows = manifest.labels == one
        n_groups = len(np.unique(manifest.groups[rows]))
        what = plural(n_groups, "group", "groups") if manifest.grouping else f"{n_groups} different"
        images = plural(int(rows.sum()), "image", "images")
        named.append(f"{manifest.class_names[one]!r} ({images}, {what})")
    several = len(uncut) > 1
    return [
        f"{plural(len(uncut), 'class has', 'classes have')} fewer than {n_sides} "
        f"{'groups' if manifest.grouping else 'different images'}, one for each split, and "
        f"{'stay' if several else 'stays'} in train: {few(named)}. No figure says how well "
        f"{'they are' if several else 'it is'} recognised."
    ]


def _val_apart(manifest: Manifest) -> tuple[Manifest, list[str]]:
    """Count validation images whose group is in train as training images: they choose nothing."""
    train, val = manifest.split == TRAIN, manifest.split == VAL
    shared = val & np.isin(manifest.groups, manifest.groups[train])
    if not shared.any():
        return manifest, []
    split = np.where(shared, TRAIN, manifest.split).astype(np.int8)
    left = bool(np.any(split == VAL))
    moved = replace(manifest, split=split, val_from="data" if left else "none")
    what = "are copies or of the group of training images" if manifest.grouping else "are copies"
    first = few([manifest.paths[row] for row in np.flatnonzero(shared)[:6].tolist()])
    return moved, [
        f"{int(shared.sum()):,} of {int(val.sum()):,} validation images {what}"
        f"{'' if manifest.grouping else ' of training images'}; they count as training images, so "
        f"that nothing is chosen on them: {first}."
        + ("" if left else " No validation image is left.")
    ]


def _remarks(manifest: Manifest) -> list[str]:
    remarks: list[str] = []
    leaks = manifest.leaks
    n_leaks = int(leaks.sum())
    if n_leaks:
        test = manifest.split == TEST
        n_copies = int(np.isin(manifest.copies[test], manifest.copies[~test]).sum())
        n_test = int(test.sum())
        if n_copies:
            remarks.append(
                f"{n_copies:,} of {n_test:,} test images are byte-identical to training or "
                "validation images (leaks)."
            )
        if n_leaks > n_copies:
            remarks.append(
                f"{n_leaks - n_copies:,} of {n_test:,} test images are of a group that is in "
                f"training or validation too ({manifest.grouping}; leaks)."
            )
        if n_leaks == n_test:
            remarks.append(
                "No test image is left without LEAKS=keep: every group of the test split is in "
                "training or validation too."
            )
    remarks = [Remark(text, "leaks") for text in remarks]
    if manifest.contradictions:
        examples = [
            " = ".join(manifest.paths[row] for row in rows[:2]) for rows in manifest.contradictions
        ]
        text = (
            f"{plural(len(examples), 'image has', 'images have')} copies in several classes: "
            f"{few(examples, 3)}."
        )
        remarks.append(Remark(text, "contradictions"))
    return remarks
