"""Corrections of a data set: an append-only file of JSON lines, and a layer over the manifest.

The data set's folder is never changed. Each line says of one image who changed what, when, and
its state before and after; the state of an image is what its last line says. A line is on the
disk (fsync) before anybody is told that it was taken, and a line cut short by a crash, which
nobody was told of, is dropped.

>>> log = CorrectionLog(Path("results/hotdog/labels.jsonl"))  # doctest: +SKIP
>>> manifest = corrected(manifest, log.path)  # doctest: +SKIP
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from ..errors import DataError, command_line
from ..files import digest_of, explained, make_folder, sync_folder
from .phrases import few, plural
from .split_words import SPLITS

SCHEMA = 1
_DIGITS = 16  # of a line's digest: 64 bits
ACTIONS = ("label", "confirm", "skip", "exclude", "include", "group", "add", "undo")
_TRAIN = SPLITS.index("train")
M = TypeVar("M")


@dataclass(frozen=True)
class State:
    """What is known of an image.

    Attributes
    ----------
    label : str or None
        Its class; None: not labelled.
    excluded : bool
        Left out of the data set.
    group : str
        Images of one thing share it; empty: as the data set says.
    checked : bool
        A person has looked at the label, and confirmed or set it.
    """

    label: str | None = None
    excluded: bool = False
    group: str = ""
    checked: bool = False


@dataclass(frozen=True)
class Correction:
    """One line: what was done to one image.

    Attributes
    ----------
    path : str
        Relative to the data set's folder; of an image that was added, relative to the file of
        corrections, or absolute.
    sha256 : str
        Digest of the image's bytes. A correction holds for these bytes only.
    what : str
        One of `ACTIONS`.
    who, when : str
        Name, and time in UTC.
    before, after : State
    source : str
        What the image was shown by: ``doubtful``, ``mistakes``, ``random`` and so on.
    added : bool
        Whether the image is not in the data set itself.
    """

    path: str
    sha256: str
    what: str
    before: State
    after: State
    who: str = ""
    when: str = ""
    source: str = ""
    added: bool = False

    def line(self) -> bytes:
        """Spell it as one line of JSON with its digest, its end included."""
        values = {"schema": SCHEMA, **dataclasses.asdict(self)}
        values["digest"] = digest_of(values)[:_DIGITS]
        return json.dumps(values, ensure_ascii=True).encode() + b"\n"


def _parsed(line: bytes) -> Correction:
    values = json.loads(line)
    digest = values.pop("digest", None)  # lines of earlier versions have none
    if digest not in (None, digest_of(values)[:_DIGITS]):
        raise ValueError("it was changed after it was written: its digest is another")
    if values.pop("schema") != SCHEMA:
        raise ValueError("another schema")
    before, after = State(**values.pop("before")), State(**values.pop("after"))
    found = Correction(before=before, after=after, **values)
    for state in (before, after):
        if not isinstance(state.label, str | None) or not isinstance(state.group, str):
            raise ValueError("a label or group that is no text")
        if not isinstance(state.excluded, bool) or not isinstance(state.checked, bool):
            raise ValueError("a flag that is neither true nor false")
    if not isinstance(found.path, str) or not found.path or "\0" in found.path:
        raise ValueError("no path")
    if len(found.sha256) != 64 or found.what not in ACTIONS:
        raise ValueError("no digest, or an unknown action")
    return found


def read_corrections(path: Path) -> list[Correction]:
    """Read a file of corrections; a last line that was cut short is passed over.

    Raises
    ------
    DataError
        The file is missing, cannot be read, or has a damaged line.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"LABELS={path} cannot be read ({error.strerror}).",
            expected="a file of corrections, as make label writes it",
            todo=command_line("label", {"LABELS": str(path)}),
        ) from error
    return _lines(data, path, 1)


def _lines(data: bytes, path: Path, first: int) -> list[Correction]:
    found = []
    for number, line in enumerate(data.split(b"\n")[:-1], start=first):
        try:
            found.append(_parsed(line))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise DataError(
                f"{path}, line {number}, is damaged ({error}).",
                expected="a correction as one line of JSON",
                todo="restore the file from a backup, or remove that line (after a change by hand: "
                "its digest)",
            ) from error
    return found


class CorrectionLog:
    """A file of corrections, written by any number of people and processes at once.

    Parameters
    ----------
    path : Path
        Made with the first correction.

    Attributes
    ----------
    entries : list of Correction
        All that have been read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: list[Correction] = []
        self._offset = 0
        self._lock = FileLock(f"{path}.lock")
        self.refresh()

    def refresh(self) -> list[Correction]:
        """Read what others have written since, and give it.

        Raises
        ------
        DataError
            A damaged line.
        """
        try:
            with self.path.open("rb") as stream:
                stream.seek(self._offset)
                data = stream.read()
        except FileNotFoundError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        new = _lines(whole, self.path, len(self.entries) + 1)
        self._offset += len(whole)
        self.entries += new
        return new

    def append(self, corrections: Sequence[Correction], who: str = "") -> list[Correction]:
        """Write some corrections together; when this returns they are on the disk.

        Returns
        -------
        list of Correction
            What others had written before them, then these, with their time.

        Raises
        ------
        NoSpaceError, CacheError
            They cannot be written; none was.
        """
        now = datetime.now(UTC).isoformat(timespec="microseconds")
        lines = [dataclasses.replace(one, who=who or one.who, when=now) for one in corrections]
        with explained(self.path):
            make_folder(self.path.parent)
            with self._lock:
                others = self.refresh()
                fresh = not self.path.exists()
                with self.path.open("ab") as stream:
                    if stream.tell() > self._offset:  # a line cut short: nobody was told of it
                        stream.truncate(self._offset)
                    try:
                        stream.write(b"".join(one.line() for one in lines))
                        stream.flush()
                        os.fsync(stream.fileno())
                    except OSError:
                        os.truncate(self.path, self._offset)
                        raise
                    self._offset = os.fstat(stream.fileno()).st_size
                if fresh:
                    sync_folder(self.path.parent)
        self.entries += lines
        return [*others, *lines]


def corrected(manifest: M, path: Path) -> M:
    """Lay the corrections of a file over a manifest.

    Labels change, excluded images go, new classes and groups come, and labelled images that were
    added join train. Splits stay as they are without corrections, so that figures before and
    after are of the same test images; only new groups cut them again.

    Parameters
    ----------
    manifest : Manifest
        As :func:`cnn_codes.datasets.load_manifest` gives it without corrections.
    path : Path
        The file.

    Returns
    -------
    Manifest

    Raises
    ------
    DataError
        The file cannot be read, or nothing is left of the data set.
    """
    entries = read_corrections(path)
    found: M = laid_over(manifest, entries, path)
    return found


def laid_over(manifest: Any, entries: Sequence[Correction], path: Path) -> Any:
    """Lay corrections that were read already over a manifest; see :func:`corrected`."""
    last = {(one.path, one.sha256): one for one in entries}
    own = {key: one for key, one in last.items() if not one.added}
    states, unmatched = _matched(manifest, own)
    names = list(manifest.class_names)
    known = {name: k for k, name in enumerate(names)}
    labels = manifest.labels.astype(np.int32, copy=True)
    was_test = manifest.split == SPLITS.index("test")
    excluded = np.zeros(len(labels), dtype=bool)
    groups: dict[int, str] = {}
    n_changed = n_test = 0
    for row, state in states.items():
        excluded[row] = state.excluded
        if state.group:
            groups[row] = state.group
        if state.label is not None and names[labels[row]] != state.label:
            labels[row] = known.setdefault(state.label, len(known))
            n_changed += 1
            n_test += bool(was_test[row])
    added, lost = _added(manifest, [one for one in last.values() if one.added], path.parent)
    for one in added:
        known.setdefault(str(one.after.label), len(known))
    manifest = dataclasses.replace(manifest, labels=labels, class_names=tuple(known))
    kept = np.flatnonzero(~excluded)
    if not len(kept) + len(added):
        raise DataError(f"{path} excludes every image.", expected="at least one that is left")
    place = {int(row): at for at, row in enumerate(kept.tolist())}
    manifest = manifest.take(kept)
    values = {place[row]: group for row, group in groups.items() if row in place}
    for at, one in enumerate(added, start=len(kept)):
        if one.after.group:
            values[at] = one.after.group
    if added:
        manifest = _joined(manifest, added, path.parent, known)
    manifest = _renamed(manifest, sorted(names) == names)
    said = [
        (n_changed, "label was changed", "labels were changed"),
        (int(excluded.sum()), "image was excluded", "images were excluded"),
        (len(added), "image was added", "images were added"),
        (len(values), "image was put into a group", "images were put into groups"),
        (n_test, "of the changed labels is of a test image", "of the changed labels are of test "
         "images"),
    ]  # fmt: skip
    text = ", ".join(plural(n, one, many) for n, one, many in said if n) or "nothing is changed"
    notes = [f"Corrections of {path.name}: {text}."]
    for absent, why in (
        (unmatched, "are of images that are not here, or have other bytes now"),
        (lost, "are of added images whose files are not there, or have other bytes now"),
    ):
        if absent:
            notes.append(f"{len(absent)} corrections of {path.name} {why}: {few(absent)}.")
    manifest = dataclasses.replace(
        manifest,
        notes=(*manifest.notes, *notes),
        warnings=(*manifest.warnings, *notes),
    )
    if values:
        how = " and ".join(filter(None, [manifest.grouping, f"groups of {path.name}"]))
        keys = [key.decode() for key in manifest.keys.tolist()]
        manifest = manifest.with_groups(_linked(keys, values), how)
    if added:
        order = sorted(range(len(manifest.paths)), key=manifest.paths.__getitem__)
        manifest = manifest.take(np.array(order))
    return manifest


def _matched(
    manifest: Any, last: Mapping[tuple[str, str], Correction]
) -> tuple[dict[int, State], list[str]]:
    """Find the rows of corrections: by path and bytes; of images that moved, by their bytes."""
    rows = manifest.row_of
    by_bytes: dict[bytes, list[int]] = {}
    found: dict[int, State] = {}
    moved: list[Correction] = []
    for (path, sha), one in last.items():
        row = rows.get(path)
        if row is not None and manifest.sha256[row] == sha.encode():
            found[row] = one.after
        else:
            moved.append(one)
    if moved:
        for row, digest in enumerate(manifest.sha256.tolist()):
            by_bytes.setdefault(digest, []).append(row)
    unmatched = []
    for one in moved:
        free = [row for row in by_bytes.get(one.sha256.encode(), ()) if row not in found]
        if one.path in rows or not free:
            unmatched.append(one.path)
        for row in free if one.path not in rows else ():
            found[row] = one.after
    return found, unmatched


def _added(
    manifest: Any, entries: Sequence[Correction], folder: Path
) -> tuple[list[Correction], list[str]]:
    """Give the added images that are labelled and kept, as far as their files are there."""
    there = set(zip(manifest.paths, manifest.sha256.tolist(), strict=True))
    found, lost = [], []
    for one in entries:
        if one.after.label is None or one.after.excluded:
            continue
        file = folder / one.path
        try:
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
        except OSError:
            digest = ""
        if digest != one.sha256:
            lost.append(one.path)
        elif (_relative(file, manifest.root), digest.encode()) not in there:
            found.append(one)
    return found, lost


def _relative(file: Path, root: Path) -> str:
    return os.path.relpath(os.path.realpath(file), root).replace(os.sep, "/")


def _joined(
    manifest: Any, added: Sequence[Correction], folder: Path, known: Mapping[str, int]
) -> Any:
    """Add images to train; one whose bytes are in the set already joins their split."""
    n = len(added)
    shas = np.array([one.sha256.encode() for one in added], "S64")
    split_of = dict(zip(manifest.sha256.tolist(), manifest.split.tolist(), strict=True))
    split = np.array([split_of.get(sha, _TRAIN) for sha in shas.tolist()], np.int8)

    def longer(column: NDArray[Any]) -> NDArray[Any]:
        if column.dtype.kind == "f":
            return np.concatenate([column, np.full(n, np.nan, column.dtype)])
        return np.concatenate([column, np.zeros(n, column.dtype)])

    return dataclasses.replace(
        manifest,
        paths=(*manifest.paths, *(_relative(folder / one.path, manifest.root) for one in added)),
        sha256=np.concatenate([manifest.sha256, shas]),
        labels=np.concatenate(
            [manifest.labels, np.array([known[str(one.after.label)] for one in added], np.int32)]
        ),
        split=np.concatenate([manifest.split, split]),
        extra={
            name: np.concatenate([column, np.ones(n)]) if name == "weight" else longer(column)
            for name, column in manifest.extra.items()
        },
        strata=None if manifest.strata is None else longer(manifest.strata),
        group_keys=None
        if manifest.group_keys is None
        else np.concatenate([manifest.group_keys, shas]),
    )


def _renamed(manifest: Any, in_order: bool) -> Any:
    """Drop classes without an image, and bring new ones into order where the others are."""
    names = manifest.class_names
    have = np.bincount(manifest.labels, minlength=len(names)) > 0
    order = [k for k in range(len(names)) if have[k]]
    if in_order:
        order.sort(key=lambda k: names[k])
    index = np.full(len(names), -1, np.int32)
    index[order] = np.arange(len(order))
    return dataclasses.replace(
        manifest,
        class_names=tuple(names[k] for k in order),
        labels=index[manifest.labels].astype(np.int32),
    )


def _linked(keys: Sequence[str], values: Mapping[int, str]) -> list[str]:
    """Join the groups of corrections with those that are there: connected components."""
    parent: dict[str, str] = {}

    def root(one: str) -> str:
        while parent.setdefault(one, one) != one:
            one = parent[one]
        return one

    for row, value in values.items():
        parent[root(f"key {keys[row]}")] = root(f"group {value}")
    return [root(f"key {key}") for key in keys]
