"""WebDataset: images and their labels in tar files, read where they lie.

A sample is the files of one key in a tar: ``000012.jpg`` and ``000012.cls``. The key is what stands
before the first dot of the name, folders included; what follows is the kind. Labels come from
``.cls`` (a number or a name), from a key of ``.json``, or from ``.txt`` that holds the class's
name. Splits come from the names of the tars. Nothing is unpacked: the images are read at their
places in the tar (:mod:`.packed`).

The format: https://github.com/webdataset/webdataset.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import DataError, first_line
from ..memory import recall_values, remember_values
from ..progress import Progress, silent
from ..settings import DataSettings
from .file_kinds import is_image, is_junk
from .listing import Listing
from .named import column
from .packed import Packed, members_of
from .phrases import few, plural
from .split_words import UNSPLIT, split_in, split_of
from .words import LABELS, key_of

_KIND = "samples of a tar 2"
_LABEL_KINDS = ("cls", "json", "class", "label", "txt", "text")
_MOST_LABEL_BYTES = 1 << 20
_LOOKED_AT = 40  # images of a tar that tell whether it is one of WebDataset
_MOST_CLASS_CHARACTERS = 100
_MOST_TARS = 100_000


def is_shard(path: Path) -> bool:
    """Tell whether a tar holds images with files of their labels next to them.

    Not compressed; most of its first images have a ``.cls``, ``.json`` or ``.txt`` of their key.
    """
    if path.suffix.lower() != ".tar" or not path.is_file():
        return False
    try:
        places = members_of(str(path)).places
    except DataError:
        return False
    images = [name for name in places if is_image(name)][:_LOOKED_AT]
    labelled = [name for name in images if any(f"{_key(name)}.{one}" in places for one in
                                               _LABEL_KINDS)]  # fmt: skip
    return bool(images) and len(labelled) * 2 > len(images)


def shards_in(folder: Path) -> list[Path]:
    """Find the tars of WebDataset in a folder that holds no image file; empty for none.

    Looked at down to two levels; the first tar decides what they are.
    """
    found: list[Path] = []
    for place, folders, files in os.walk(folder):
        level = len(Path(place).relative_to(folder).parts)
        folders[:] = [] if level >= 2 else sorted(name for name in folders if not is_junk(name))
        if any(is_image(name) for name in files):
            return []
        found += [
            Path(place) / name
            for name in sorted(files)
            if name.lower().endswith(".tar") and not is_junk(name)
        ]
    return found[:_MOST_TARS] if found and is_shard(found[0]) else []


def read_shards(
    tars: list[Path],
    ask: DataSettings,
    *,
    memory: Path,
    given: str,
    progress: Progress = silent,
) -> Listing:
    """List the samples of WebDataset tars, with labels, splits and further fields.

    Parameters
    ----------
    tars : list of Path
        In one folder or below it.
    ask : DataSettings
        ``label_column`` names the key of the JSON that is the label.
    memory : Path
        Folder that remembers what is in a tar, as long as its size and date stay.
    given : str
        What the user named as DATA, for messages.

    Raises
    ------
    DataError
        A tar cannot be read, or which field is the label is not certain.
    """
    root = Path(os.path.realpath(tars[0].parent if len(tars) == 1 else _common(tars)))
    rows: list[tuple[str, dict[str, Any], int]] = []
    listing = Listing(root=root, paths=[], labels=[], split=np.empty(0, np.int8))
    n_strange = n_alone = n_again = 0
    with progress("reading shards", len(tars), "files") as meter:
        for tar in tars:
            where = os.path.relpath(os.path.realpath(tar), root).replace(os.sep, "/")
            seen = _samples(tar, memory)
            split = _split(where)
            rows += [(f"{where}/{name}", fields, split) for name, fields in seen.samples]
            n_strange, n_alone = n_strange + seen.strange, n_alone + seen.alone
            n_again += seen.again
            meter.advance()
    if not rows:
        raise DataError(
            f"{given} holds no image with a label.",
            expected="a .cls, .json or .txt of the same name as each image",
            todo="add the labels to the tar files",
        )
    label = _label_field([fields for _, fields, _ in rows], ask.label_column, given)
    kept = [row for row in rows if row[1].get(label) not in (None, "")]
    listing.paths = [path for path, _, _ in kept]
    listing.labels = [_text(fields[label]) for _, fields, _ in kept]
    listing.split = np.array([split for _, _, split in kept], np.int8)
    names = Counter(name for _, fields, _ in kept for name in fields if name != label)
    for name, count in sorted(names.items()):
        if count == len(kept) and name.casefold() not in ("path", "label", "split"):
            values = column([_text(fields[name]) for _, fields, _ in kept])
            if values is not None:
                listing.extra[name] = values
    listing.rejects += [
        (path, f"no label ({label})") for path, fields, _ in rows if fields.get(label) in (None, "")
    ]
    what = plural(len(tars), "tar file", "tar files")
    listing.warnings.append(
        f"WebDataset: {what} read without unpacking; labels from the field {label}."
    )
    if n_alone:
        listing.warnings.append(f"{plural(n_alone, 'image', 'images')} without a label left out.")
    if n_strange:
        listing.warnings.append(
            f"{plural(n_strange, 'member', 'members')} of the tar files are links, devices or have "
            "no sound name, and were left out."
        )
    if n_again:
        listing.warnings.append(
            f"{plural(n_again, 'member', 'members')} of the tar files had the name of an earlier "
            "one, which was not used."
        )
    listing = listing.in_order()
    listing.check(Path(given))
    return listing


def _common(tars: list[Path]) -> str:
    return os.path.commonpath([os.path.realpath(tar.parent) for tar in tars])


def _key(name: str) -> str:
    folder, slash, base = name.rpartition("/")
    return folder + slash + base.partition(".")[0]


def _split(where: str) -> int:
    """Find the split in a tar's name, or in its folder's; UNSPLIT for none."""
    stem = where.rpartition("/")[2].removesuffix(".tar")
    found = split_in(stem)
    if found is not None:
        return found[0]
    for folder in where.split("/")[:-1]:
        if (split := split_of(folder)) is not None:
            return split
    return UNSPLIT


class _Seen(NamedTuple):
    """Name and fields of each image of a tar, and how many members were left out, and why."""

    samples: list[tuple[str, dict[str, Any]]]
    strange: int
    alone: int
    again: int


def _samples(tar: Path, memory: Path) -> _Seen:
    """Look at what is in a tar."""
    real = os.path.realpath(tar)
    status = os.stat(real)  # noqa: PTH116
    kind = f"{_KIND} {status.st_size} {status.st_mtime_ns} {status.st_ino}"
    file = memory / f"{tar.name[:100]}-{_short(real)}.json"
    saved = recall_values(file, kind)
    if saved is not None:
        samples = [(name, fields) for name, fields in saved["samples"]]
        return _Seen(**saved | {"samples": samples})
    members = members_of(real)
    kinds: dict[str, dict[str, str]] = {}
    for name in members.places:
        base = name.rpartition("/")[2]
        key, _, suffix = _key(name), *base.partition(".")[1:]
        kinds.setdefault(key, {})[suffix.lower()] = name
    samples = []
    n_alone = 0
    for key in sorted(kinds):
        files = kinds[key]
        images = sorted(name for name in files.values() if is_image(name))
        if not images:
            continue
        fields: dict[str, Any] = {}
        for suffix in _LABEL_KINDS:
            if suffix in files:
                place = members.places[files[suffix]]
                fields |= _fields(Packed(real, status, *place), suffix, f"{tar}: {files[suffix]}")
        if not fields:
            n_alone += len(images)
            continue
        samples += [(name, fields) for name in images]
    found = _Seen(samples, members.n_strange, n_alone, members.n_again)
    remember_values(file, kind, found._asdict())
    return found


def _short(path: str) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:12]


def _fields(packed: Packed, suffix: str, where: str) -> dict[str, Any]:
    """Read the fields of a file next to an image."""
    if packed.n_bytes > _MOST_LABEL_BYTES:
        raise DataError(
            f"{where} has {packed.n_bytes:,} bytes.",
            expected=f"labels of at most {_MOST_LABEL_BYTES:,} bytes",
            todo="take it out of the tar",
        )
    text = packed.read().decode("utf-8", "replace").strip()
    if suffix != "json":
        return {"cls" if suffix in ("class", "label") else suffix: text}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{where} is not JSON ({first_line(error)}).",
            expected='an object such as {"label": "cat"}',
            todo="write the tar again",
        ) from error
    if not isinstance(value, dict):
        return {"json": _text(value)} if isinstance(value, str | int) else {}
    plain = {str(k): v for k, v in value.items() if isinstance(v, str | int | float | bool)}
    return {name: one for name, one in plain.items() if len(str(one)) <= 1000}


def _text(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _label_field(rows: list[dict[str, Any]], asked: str, given: str) -> str:
    """Choose the field that is the label: the one that was asked for, or the one that is certain.

    Raises
    ------
    DataError
        There is none, or several that might be.
    """
    counts = Counter(name for fields in rows for name in fields)
    if asked:
        if asked in counts:
            return asked
        raise DataError(
            f"LABEL_COLUMN={asked}: no sample of {given} has such a field.",
            expected=f"one of {few(sorted(counts), 12)}",
        )
    if "cls" in counts:
        return "cls"
    named = [name for name in counts if key_of(name) in LABELS]
    named.sort(key=lambda name: LABELS.index(key_of(name)))
    named += [name for name in ("txt", "text", "json") if name in counts]
    for name in named:
        values = {_text(fields[name]) for fields in rows if name in fields}
        few_enough = 1 < len(values) <= max(2, len(rows) // 2)
        if few_enough and max(map(len, values)) <= _MOST_CLASS_CHARACTERS:
            return name
    raise DataError(
        f"{given}: which field of the samples is the label is not certain; there are "
        f"{few(sorted(counts), 12)}.",
        expected="a .cls file next to each image, or a field called label in its .json",
        todo="name it: " + " or ".join(f"LABEL_COLUMN={name}" for name in sorted(counts)[:4]),
    )
