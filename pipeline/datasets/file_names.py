"""Classes from the beginnings of file names, once the user confirmed it: ``cat.0.jpg``."""

from __future__ import annotations

import re
from collections import Counter

from ..errors import DataError
from .file_kinds import image_stem
from .folder_reading import EXPECTED, Reader, leave, through
from .phrases import few, plural, quoted
from .split_words import TEST, TRAIN, UNSPLIT, split_in, split_of, split_said
from .tree import Node

_STEM = re.compile(r"^(.*?)[\s._-]*\(?\d+\)?$")
_FIRST_NUMBER = re.compile(r"^(\d+)[\s._-]+\d+$")


def texts_of(node: Node) -> str:
    """Name texts that lie beside the images, as the end of a sentence."""
    names = [name for one in node.walk() for name in one.texts]
    return f"; beside them are {few(names, 4)}" if names else ""


def _prefixes(names: list[str]) -> Counter[str]:
    """Count what stands before the number in file names: ``cat.0.jpg`` → cat."""
    counts: Counter[str] = Counter()
    for name in names:
        stem = image_stem(name)
        match = _FIRST_NUMBER.match(stem) or _STEM.match(stem)
        if match and match[1]:
            counts[match[1]] += 1
    return counts


def likely_names(names: list[str]) -> Counter[str] | None:
    """Count the images of each beginning of a name; None where these are hardly classes."""
    counts = _prefixes(names)
    if len(counts) < 2 or sum(counts.values()) < 0.9 * len(names):
        return None
    if len(counts) > len(names) / 2 or sum(n < 2 for n in counts.values()) > len(counts) / 2:
        return None
    return counts


def by_names(reader: Reader, node: Node) -> None:
    """Take the classes from the beginning of file names, as the user confirmed."""
    found = reader.found
    train = [one for name, one in node.kids().items() if split_of(name) == TRAIN]
    parts = [(one, split_in(one.name)) for one in node.kids().values()]
    if not node.images and train:
        known = set(_prefixes(train[0].images))
        for one, part in parts:
            split = split_of(one.name)
            split = split if split is not None else part[0] if part else None
            if split is None or (split != TRAIN and not set(_prefixes(one.images)) & known):
                leave(reader, [one])
            else:
                _add_by_name(reader, one, split)
        return
    _add_by_name(reader, node, UNSPLIT)
    if not found.paths:
        raise no_folders(reader, node)


def _add_by_name(reader: Reader, node: Node, split: int) -> None:
    found = reader.found
    without = []
    for path in reader.below(node):
        stem = image_stem(path.rpartition("/")[2])
        match = _FIRST_NUMBER.match(stem) or _STEM.match(stem)
        if not match or not match[1]:
            without.append(path)
            continue
        found.paths.append(path)
        found.labels.append(match[1])
        found.split.append(split)
        found.groups.append("")
    if without:
        found.notes.append(
            f"{plural(len(without), 'image has', 'images have')} no class in the name and were "
            f"left out: {few(without, 3)}."
        )


def no_folders(reader: Reader, node: Node) -> DataError:
    """Say that there are no class folders, and what the file names suggest."""
    place = node
    for name, inner in node.kids().items():
        if split_of(name) == TRAIN or (not node.images and len(node.kids()) == 1):
            place = through(inner)
    names = [name for one in place.walk() for name in one.images]
    likely = likely_names(names)
    flat = [name for name, inner in node.kids().items() if inner.images]
    where = f" ({few(flat)} hold images directly)" if flat and node is not place else ""
    found = (
        f"{reader.given} holds {plural(node.n_images, 'image', 'images')} but no class "
        f"folders{where}"
    )
    if likely:
        shown = few([f"{name} {count:,}" for name, count in likely.most_common()])
        test = [inner for name, inner in node.kids().items() if split_said(name) == TEST]
        return DataError(
            f"{found}; names begin with {len(likely)} words: {shown}.",
            expected=EXPECTED,
            todo=f"if these are the classes: {reader.command('LAYOUT=names')}"
            + (
                f"; {test[0].name} is for make predict IMAGES={quoted(test[0].path)}"
                if test
                else ""
            ),
        )
    return DataError(
        f"{found}{texts_of(node)}.",
        expected=EXPECTED,
        todo="sort the images into one folder a class, or write a CSV that names their labels",
    )
