"""Splits that folders, or the beginnings of file names, are called after."""

from __future__ import annotations

import re
from collections import Counter

from ..errors import DataError
from .class_folders import read_classes
from .file_kinds import image_stem
from .file_names import no_folders
from .flat_splits import labels_of_flat
from .folder_reading import EXPECTED, Found, Reader, leave, set_aside, through
from .phrases import few
from .split_words import SPLITS, TRAIN, UNSPLIT, split_in, split_of, splits_of
from .tree import Node
from .words import (
    UNLABELLED,
    nfc,
    words_of,
)

_USUAL = ("train", "training", "val", "valid", "validation", "dev", "test", "testing")


def splits_among(reader: Reader, node: Node) -> dict[str, tuple[int, Node]]:
    """Find the folders of `node` that are splits: by their names, and by holding folders."""
    exact: dict[str, int] = {}
    longer: dict[str, tuple[int, str]] = {}
    meant = splits_of(node.kids())
    for name in node.kids():
        if (split := meant[name]) is not None:
            exact[name] = split
        elif (part := split_in(name)) is not None:
            longer[name] = part
    rests = Counter(rest for _, rest in longer.values())
    named = dict(exact)
    for name, (split, rest) in longer.items():
        others = {s for other, (s, r) in longer.items() if r == rest and other != name}
        if others - {split} or (exact and rest == "" and set(exact.values()) - {split}):
            named[name] = split
        elif rests[rest] == 1 and not exact and set(words_of(name)) & UNLABELLED:
            continue
    if not named or (reader.layout == "classes" and not _only_splits(node, exact)):
        return {}
    labelled = {name for name in named if through(node.folders[name]).kids()}
    flat = set(named) - labelled
    beside = [name for name in node.kids() if name not in named]
    if not labelled and beside and set(named.values()) == {TRAIN}:
        return {}  # a class called train
    several = len(set(named.values())) > 1  # a class may be called test, but train and test?
    if not labelled and beside and not several:
        if not all(set_aside(node, name) for name in beside):
            return {}
    if len(named) == 1 and longer and not exact:
        return {}
    flat_train = [name for name in flat if named[name] == TRAIN]
    if flat_train and labelled:
        raise DataError(
            f"{reader.given}: {few(sorted(flat_train))} holds images directly, in no class "
            f"folders, while {few(sorted(labelled))} has class folders.",
            expected=EXPECTED,
            todo="sort the images into class folders, or write a CSV that names labels and splits",
        )
    found: dict[int, str] = {}
    for name in sorted(labelled):
        if named[name] in found:
            raise DataError(
                f"{found[named[name]]} and {name} in {reader.given} both mean "
                f"{SPLITS[named[name]]}.",
                expected="one folder a split",
                todo="move the images of one into the other, or one of them out of the folder",
            )
        found[named[name]] = name
    return {name: (split, node.folders[name]) for name, split in named.items()}


def _add_flat(reader: Reader, labels: dict[str, str], split: int) -> None:
    cut = len(reader.top.rel) + 1 if reader.top.rel else 0
    for path, label in labels.items():
        reader.found.paths.append(path[cut:])
        reader.found.labels.append(label)
        reader.found.split.append(split)
        reader.found.groups.append("")


def _only_splits(node: Node, exact: dict[str, int]) -> bool:
    """Tell whether all folders are splits that hold folders, whatever LAYOUT says of these."""
    kids = node.kids()
    return TRAIN in exact.values() and set(exact) == set(kids) and len(set(exact.values())) > 1


def split_and_class(reader: Reader, node: Node) -> bool:
    """Read folders that are named after split and class: train_cat, train_dog, test_cat, ..."""
    found: dict[str, tuple[int, str]] = {}
    for name, inner in node.kids().items():
        words = re.split(r"[\s_.-]+", name)
        splits = [split for word in words if (split := split_of(word)) is not None]
        label = "_".join(word for word in words if split_of(word) is None)
        if len(splits) != 1 or not label or not inner.images:
            return False
        found[name] = (splits[0], label)
    known = {label for split, label in found.values() if split == TRAIN}
    others = {label for split, label in found.values() if split != TRAIN}
    if len(known) < 2 or not others or not others <= known or node.images:
        return False
    for name, (split, label) in found.items():
        reader.add(node.folders[name], label, split)
    reader.found.notes.append(
        f"Splits and classes were read from the names of the folders: {few(sorted(found), 4)}."
    )
    return True


def splits_of_names(found: Found) -> None:
    """Use the splits that file names begin or end with, where all do: train_001.jpg, test_001.jpg.

    Where only some do, that is said.
    """
    if set(found.split) != {UNSPLIT}:
        return
    some = found.paths[:: max(1, len(found.paths) // 100)]
    if sum(_split_in_file(path) != UNSPLIT for path in some) * 2 < len(some):
        return
    splits = [_split_in_file(path) for path in found.paths]
    has = [split for split in splits if split != UNSPLIT]
    if len(set(has)) < 2 or TRAIN not in has:
        return
    by_class: dict[str, set[int]] = {}
    for label, split in zip(found.labels, splits, strict=True):
        by_class.setdefault(label, set()).add(split)
    names = few(sorted({SPLITS[split] for split in has}))
    if len(has) == len(splits) and all(TRAIN in one for one in by_class.values()):
        found.split[:] = splits
        found.notes.append(f"Splits were read from the names of the files ({names}).")
    elif len(has) * 2 > len(splits):
        found.notes.append(
            f"{len(has):,} of {len(splits):,} file names say a split ({names}); they were not used."
        )


def _split_in_file(path: str) -> int:
    """Give the split that a file's name begins or ends with, -1 for none."""
    stem = image_stem(path.rpartition("/")[2])
    words = re.split(r"[\s_.-]+|(?<=[^\W\d])(?=\d)", stem)
    ends = [split for one in (words[0], words[-1]) if (split := split_of(one)) is not None]
    return ends[0] if ends else UNSPLIT


def read_splits(reader: Reader, node: Node, splits: dict[str, tuple[int, Node]]) -> None:
    """Read the classes below each split; ask about folders beside them."""
    found = reader.found
    others = [name for name in node.kids() if name not in splits]
    left, mixed = [], []
    for name in others:
        if set_aside(node, name):
            left.append(name)
        else:
            mixed.append(name)
    copy = [name for name in mixed if set(node.folders[name].kids()) >= set(splits)]
    if copy:
        raise DataError(
            f"{reader.given} holds the whole set again in {few(copy)}: it has the same splits "
            f"({few(sorted(splits))}).",
            expected="one copy of the set",
            todo=f"take that one: {reader.command('', node.folders[copy[0]])}; or remove it",
        )
    if mixed:
        raise DataError(
            f"{reader.given} mixes splits ({few(sorted(splits))}) with what look like classes "
            f"({few(sorted(mixed))}).",
            expected="only splits at the top (train, val, test), or only classes",
            todo="move what does not belong there, or write a CSV that names labels and splits; "
            f"if all of them are classes: {reader.command('LAYOUT=classes')}",
        )
    if left:
        leave(reader, [node.folders[name] for name in left])
    names = {SPLITS[split]: name for name, (split, _) in splits.items()}
    if any(name.casefold() not in _USUAL for name in splits):
        found.notes.append(
            "Splits were read from folders: "
            + ", ".join(f"{split} from {name}" for split, name in sorted(names.items()))
            + "."
        )
    beside = [name for name, one in node.folders.items() if not one.n_images]
    if beside:
        found.notes.append(f"Folders beside the splits, without images: {few(beside)}.")
    found.stray += len(node.images)
    train = [inner for split, inner in splits.values() if split == TRAIN]
    known = {nfc(name) for one in train for name in through(one).folders}
    if not known and len(splits) > 0:
        flat = [inner for _, inner in splits.values() if not through(inner).kids()]
        if len(flat) == len(splits):
            raise no_folders(reader, node)
    for split, inner in sorted(splits.values(), key=lambda one: one[0]):
        place = through(inner)
        classes = {nfc(name) for name in place.kids()}
        unlabelled = split != TRAIN and (
            not classes or (len(classes) == 1 and known and not classes & known)
        )
        if unlabelled:
            named = labels_of_flat(inner, node, known) if known else None
            if named is None:
                leave(reader, [inner])
            else:
                _add_flat(reader, named[0], split)
                found.notes.append(
                    f"The classes of {SPLITS[split]} were read from {named[1]}, as its images lie "
                    "in no class folders."
                )
            continue
        found.stray += len(place.images)
        read_classes(reader, place, split)
