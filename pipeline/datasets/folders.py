"""Folders as classes, splits and things: what each of them is, by evidence.

Folders are not classes because they are folders. Splits have their words; parts of a download are
numbered; masks have the names of other images; versions of the same pictures hold the same class
folders; a thing (a patient) holds class folders that recur under others. What cannot be decided
is asked, with the command that answers.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import DataError
from .formats import extra_for, is_flat
from .listing import (
    SPLITS,
    TEST,
    TRAIN,
    UNSPLIT,
    Listing,
    few,
    image_stem,
    is_text,
    plural,
    split_in,
    split_of,
    splits_of,
)
from .tables import quoted
from .tree import Node
from .words import (
    ANNOTATIONS,
    GENERIC,
    NO_CLASS,
    OUTPUTS,
    PARTS,
    THINGS,
    THUMBNAILS,
    UNLABELLED,
    VARIANTS,
    annotates,
    is_numbered,
    is_version,
    nfc,
    words_of,
)

__all__ = ["EXPECTED", "read_folders"]

EXPECTED = (
    "root/<class>/<image>, root/<split>/<class>/<image> (train, val, test), list files "
    "(train.txt, val.txt, test.txt), a CSV with path,label[,split], or .npz, .h5, .parquet or "
    ".arrow files"
)
_MOST = 0.6  # share of the outer folders under which an inner name must recur
_USUAL = ("train", "training", "val", "valid", "validation", "dev", "test", "testing")
_STEM = re.compile(r"^(.*?)[\s._-]*\(?\d+\)?$")
_FIRST_NUMBER = re.compile(r"^(\d+)[\s._-]+\d+$")


@dataclass
class _Found:
    """Rows as they are gathered, and what is to be said."""

    paths: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    split: list[int] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    stray: int = 0


@dataclass
class _Reader:
    """One reading of one folder.

    Attributes
    ----------
    top : Node
        The folder; paths are relative to it.
    layout : str
        ``LAYOUT=``.
    given : str
        What the user named as DATA.
    """

    top: Node
    layout: str
    given: str
    found: _Found = field(default_factory=_Found)

    def command(self, setting: str, folder: Node | None = None) -> str:
        """Give a command that confirms a reading."""
        data = self.given if folder is None else folder.path
        return f"make data DATA={quoted(data)}" + (f" {setting}" if setting else "")

    def below(self, node: Node) -> list[str]:
        """Paths of all images of `node`, relative to the top."""
        cut = len(self.top.rel) + 1 if self.top.rel else 0
        return [path[cut:] for path in node.paths()]

    def add(self, node: Node, label: str, split: int, group: str = "") -> None:
        """Take all images of `node` as of one class."""
        paths = self.below(node)
        _check_name(label, node)
        if not paths:
            self.found.empty.append(_rel(node, self.top))
        self.found.paths += paths
        self.found.labels += [label] * len(paths)
        self.found.split += [split] * len(paths)
        self.found.groups += [group] * len(paths)


def _rel(node: Node, top: Node) -> str:
    return node.rel[len(top.rel) :].strip("/")


def _check_name(label: str, node: Node) -> None:
    if not is_text(label):
        raise DataError(
            f"The name of the class folder {label.encode('utf-8', 'surrogateescape')!r} is not "
            "UTF-8.",
            expected="names in UTF-8",
            todo="rename the folder",
        )


def read_folders(node: Node, ask: object, *, given: str) -> Listing:
    """Read classes and splits from the folders below `node`.

    Parameters
    ----------
    node : Node
        The folder, past what wraps it.
    ask : DataSettings
        Its ``layout``.
    given : str
        What the user named as DATA, for commands.

    Raises
    ------
    DataError
        Folders that are not classes, or that could be read in several ways.
    """
    reader = _Reader(node, str(ask.layout), given)  # type: ignore[attr-defined]
    found = reader.found
    if reader.layout == "names":
        _by_names(reader, node)
    else:
        both = reader.layout == "auto" and _split_and_class(reader, node)
        splits = {} if both else _splits(reader, node)
        if splits:
            _read_splits(reader, node, splits)
        elif not both:
            found.stray += len(node.images)
            _classes(reader, node, UNSPLIT)
    _splits_of_names(found)
    listing = Listing(
        root=Path(node.path),
        paths=found.paths,
        labels=[nfc(label) for label in found.labels],
        split=np.array(found.split, dtype=np.int8),
        by_folder=True,
    )
    above = set(found.groups)
    if len(above) > 1 and len(above) < len(SPLITS) and UNSPLIT in found.split:
        found.notes.append(
            f"{few(sorted(above))}, above the classes, are too few to be kept apart: images of "
            "each are in every split."
        )
    elif any(found.groups):
        listing.groups = found.groups
        listing.groups_from = "the folders above the class folders"
    listing.warnings += _alike(found.labels) + found.notes
    if not listing.paths and found.stray:
        raise _no_folders(reader, node)
    if found.empty:
        listing.warnings.append(f"Empty class folders: {few(found.empty)}.")
    if found.stray:
        listing.warnings.append(
            f"{plural(found.stray, 'image lies', 'images lie')} in no class folder and were "
            "ignored."
        )
    return listing


def _alike(labels: list[str]) -> list[str]:
    """Name classes whose names look the same, written in two ways."""
    ways: dict[str, set[str]] = {}
    for label in set(labels):
        ways.setdefault(nfc(label), set()).add(label)
    return [
        f"{name!r} is written in {len(of)} ways that look the same (composed and decomposed "
        "letters); they are one class."
        for name, of in sorted(ways.items())
        if len(of) > 1
    ]


# --- splits


def _splits(reader: _Reader, node: Node) -> dict[str, tuple[int, Node]]:
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
    labelled = {name for name in named if _through(node.folders[name]).kids()}
    flat = set(named) - labelled
    beside = [name for name in node.kids() if name not in named]
    if not labelled and beside and set(named.values()) == {TRAIN}:
        return {}  # a class called train
    several = len(set(named.values())) > 1  # a class may be called test, but train and test?
    if not labelled and beside and not several:
        if not all(_set_aside(node, name) for name in beside):
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


def _only_splits(node: Node, exact: dict[str, int]) -> bool:
    """Tell whether all folders are splits that hold folders, whatever LAYOUT says of these."""
    kids = node.kids()
    return TRAIN in exact.values() and set(exact) == set(kids) and len(set(exact.values())) > 1


def _split_and_class(reader: _Reader, node: Node) -> bool:
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


def _splits_of_names(found: _Found) -> None:
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


def _through(node: Node) -> Node:
    """Go through folders that hold one folder of images and nothing else."""
    kids = node.kids()
    while len(kids) == 1 and not node.images:
        (name, inner), *_ = kids.items()
        same = nfc(name).casefold() == nfc(node.name).casefold() or set(words_of(name)) <= GENERIC
        if not inner.kids() and not same:
            break
        node, kids = inner, inner.kids()
    return node


def _set_aside(node: Node, name: str) -> bool:
    """Tell whether a folder is no class beside splits: unlabelled, outputs, annotations."""
    words = set(words_of(name))
    return bool(words & UNLABELLED) or annotates(name) or _is_output(node, name)


def _is_output(node: Node, name: str) -> bool:
    """Tell whether a folder is what a tool left: by its name or its files, with no image in it."""
    inner = node.folders[name]
    if inner.images:
        return False
    if name.casefold() in OUTPUTS or set(words_of(name)) <= {"run", "exp", "experiment"}:
        return bool(words_of(name))
    suffixes = Counter[str]()
    for one in inner.walk():
        suffixes.update(one.others)
    return any(suffix in suffixes for suffix in (".pt", ".pth", ".ckpt", ".onnx", ".safetensors"))


def _read_splits(reader: _Reader, node: Node, splits: dict[str, tuple[int, Node]]) -> None:
    found = reader.found
    others = [name for name in node.kids() if name not in splits]
    left, mixed = [], []
    for name in others:
        if _set_aside(node, name):
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
        _leave(reader, [node.folders[name] for name in left])
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
    known = {nfc(name) for one in train for name in _through(one).folders}
    if not known and len(splits) > 0:
        flat = [inner for _, inner in splits.values() if not _through(inner).kids()]
        if len(flat) == len(splits):
            raise _no_folders(reader, node)
    for split, inner in sorted(splits.values(), key=lambda one: one[0]):
        place = _through(inner)
        classes = {nfc(name) for name in place.kids()}
        unlabelled = split != TRAIN and (
            not classes or (len(classes) == 1 and known and not classes & known)
        )
        if unlabelled:
            _leave(reader, [inner])
            continue
        found.stray += len(place.images)
        _classes(reader, place, split)


def _leave(reader: _Reader, nodes: list[Node]) -> None:
    """Leave out folders without labels; those of images are offered to be predicted."""
    for node in nodes:
        words = set(words_of(node.name))
        name = _rel(node, reader.top)
        if words & THUMBNAILS:
            what = f"{name} holds thumbnails of the images and was left out."
        elif annotates(node.name):
            what = f"{name} holds masks or annotations and was left out."
        elif node.name.casefold() in OUTPUTS or (not node.images and words & {"run", "runs"}):
            what = f"{name} holds what a tool left and was left out."
        else:
            images = plural(node.n_images, "image", "images")
            what = (
                f"{name} holds {images} without labels, which were left out; to predict them: "
                f"make predict IMAGES={quoted(_through(node).path)} RUN=<run>."
            )
        reader.found.notes.append(what)


# --- classes


def _classes(reader: _Reader, node: Node, split: int) -> None:
    """Read the folders of `node` as classes, after all that they could be instead."""
    kids = node.kids()
    if reader.layout != "classes":
        kids = _without_others(reader, node, kids)
        if kids and split == UNSPLIT:
            if len(kids) == 1 and len(kids) < len(node.kids()) and not node.images:
                (inner,) = kids.values()
                if not inner.kids():
                    raise _no_folders(reader, inner)
                _classes(reader, _through(inner), split)
                return
        if kids and reader.layout == "inner":
            _inner(reader, node, split)
            return
        if kids and _nested(reader, node, kids, split):
            return
        _doubt_depth(reader, kids)
        _doubt_names(reader, kids)
    for name, inner in node.folders.items():
        if name in kids or not inner.n_images:
            foreign = sum((one.foreign for one in inner.walk()), start=Counter[str]())
            if not inner.n_images and foreign:
                (kind, count), *_ = foreign.most_common(1)
                raise DataError(
                    f"{_rel(inner, reader.top)}: all {count:,} images are {kind}, which this "
                    "installation does not read.",
                    expected="images of every class that can be read",
                    todo=f"{extra_for(kind)}; or move that folder out of the set",
                )
            reader.add(inner, name, split)


def _doubt_depth(reader: _Reader, kids: dict[str, Node]) -> None:
    """Ask which folders are the classes, where those at the top hold others with own names."""
    deeper = {}
    for name, one in kids.items():
        names = [] if one.images else list(_through(one).kids())
        if len(names) > 1 and not all(is_numbered(k) or _is_one_thing(k) for k in names):
            if not all(split_of(k) is not None or set(words_of(k)) <= GENERIC for k in names):
                deeper[name] = [leaf.name for leaf in _leaves(one)]
    if not deeper or len(deeper) * 2 < len(kids):
        return
    leaves = sorted({leaf for one in deeper.values() for leaf in one})
    raise DataError(
        f"{reader.given}: the folders {few(list(kids), 3)} hold others ({few(leaves, 4)}); which "
        "of them are the classes is not certain.",
        expected="class folders that hold images, or folders of numbered things",
        todo=f"if {few(leaves, 2)} are the classes: {reader.command('LAYOUT=inner')}; if "
        f"{few(list(kids), 2)} are: {reader.command('LAYOUT=classes')}",
    )


def _doubt_names(reader: _Reader, kids: dict[str, Node]) -> None:
    """Ask whether a folder called images or data is a class."""
    odd = [name for name in kids if words_of(name) and set(words_of(name)) <= NO_CLASS]
    if not odd or len(kids) < 2 or any(any(c.isdigit() for c in name) for name in odd):
        return
    raise DataError(
        f"{reader.given} holds the folders {few(sorted(kids), 4)}; {few(odd)} does not look like "
        "the name of a class.",
        expected=EXPECTED,
        todo=f"if these folders are the classes: {reader.command('LAYOUT=classes')}; else point "
        f"DATA= at the folder that holds the class folders, or write a CSV with path,label",
    )


def _without_others(reader: _Reader, node: Node, kids: dict[str, Node]) -> dict[str, Node]:
    """Take out folders that are not classes: annotations, masks, outputs, unlabelled images."""
    left: list[Node] = []
    stems = {name: _stems(inner) for name, inner in kids.items()} if len(kids) <= 50 else {}
    for name, inner in kids.items():
        words = set(words_of(name))
        others = {stem for other, some in stems.items() if other != name for stem in some}
        mine = stems.get(name, set())
        shared = len(mine & others) / max(len(mine), 1)
        again = {nfc(one).casefold() for one in inner.kids()}
        beside = {nfc(one).casefold() for one in kids if one != name and not kids[one].kids()}
        if words & THUMBNAILS and (shared >= 0.5 or (again and again <= beside)):
            left.append(inner)
        elif len(again) > 1 and again <= beside and not inner.images:
            raise DataError(
                f"{reader.given}: {name} holds folders of the same names as the classes next to it "
                f"({few(sorted(inner.kids()))}): another version of the images, or a copy.",
                expected="one version: copies of an image would be in train and in test",
                todo=f"move {name} out of the folder; or take it alone: "
                f"{reader.command('', inner)}; or, if it is a class: "
                f"{reader.command('LAYOUT=classes')}",
            )
        elif (
            annotates(name)
            and (shared >= 0.5 or words <= ANNOTATIONS or "".join(words_of(name)) in ANNOTATIONS)
        ) or (
            shared >= 0.8
            and len(mine) > 2
            and not words & VARIANTS
            and not all(stem.isdigit() for stem in mine)
            and _are_masks(inner)
        ):
            left.append(inner)
        elif len(kids) > 2 and words & UNLABELLED:
            left.append(inner)
        elif _is_output(node, name) and any(one.images for one in kids.values()):
            left.append(inner)
    if left and len(left) < len(kids):
        _leave(reader, left)
        for inner in left:
            said = set(words_of(inner.name)) & (UNLABELLED | OUTPUTS | THUMBNAILS)
            if not said and not annotates(inner.name):
                reader.found.notes[-1] = (
                    f"{_rel(inner, reader.top)} holds masks of other images and was left out."
                )
        return {name: inner for name, inner in kids.items() if inner not in left}
    return kids


def _stems(node: Node) -> set[str]:
    return {image_stem(name) for one in node.walk() for name in one.images}


def _are_masks(node: Node) -> bool:
    """Look at the headers of up to five pictures."""
    paths = [f"{one.path}/{name}" for one in node.walk() for name in one.images][:5]
    return bool(paths) and all(is_flat(path) for path in paths)


def _nested(reader: _Reader, node: Node, kids: dict[str, Node], split: int) -> bool:
    """Read folders that are not classes, where that is certain; tell whether they were."""
    if len(kids) >= 2 and all(_is_part(name) for name in kids):
        inner = {nfc(name) for one in kids.values() for name in _through(one).kids()}
        if inner and all(_through(one).kids() for one in kids.values()):
            for one in kids.values():
                for name, deeper in _through(one).kids().items():
                    reader.add(deeper, name, split)
            reader.found.notes.append(f"{few(list(kids))} are parts of one set, not classes.")
            return True
        raise DataError(
            f"{reader.given}: {few(list(kids))} look like parts of one set, not like classes"
            f"{_texts_of(node)}.",
            expected="class folders, or a table or list that names the labels of their images",
            todo=_if_named(reader, node)
            + "write a CSV with path,label; or, if they are classes: "
            + reader.command("LAYOUT=classes"),
        )
    if (
        len(kids) >= 2
        and all(_is_thing(name) for name in kids)
        and not any(one.kids() for one in kids.values())
    ):
        raise DataError(
            f"{reader.given}: {few(list(kids), 4)} look like one folder for each thing "
            f"({len(kids)} of them), not like classes{_texts_of(node)}.",
            expected="class folders, or a table that names the labels of the images",
            todo="write a CSV with path,label; or, if they are the classes: "
            + reader.command("LAYOUT=classes"),
        )
    outer = {name: one for name, one in kids.items() if not one.images}
    if len(outer) < 2 or len(outer) < _MOST * len(kids):
        return False
    inner_of = {name: [nfc(k) for k in _through(one).kids() or one.kids()]
                for name, one in outer.items()}  # fmt: skip
    counts = Counter(key.casefold() for names in inner_of.values() for key in set(names))
    if not counts:
        return False
    recurring = {key for key, n in counts.items() if n >= 2}
    covered = sum(
        all(key.casefold() in recurring for key in names) for names in inner_of.values() if names
    )
    if covered < _MOST * len(outer) or len(counts) > max(2, len(outer)) * 20:
        return False
    names = list(outer)
    inner_names = sorted({key for keys in inner_of.values() for key in keys})
    if all(set(words_of(key)) <= GENERIC and words_of(key) for key in inner_names):
        return False  # <class>/images/...
    raw = [key for one in outer.values() for key in one.kids()]
    if len(outer) == len(kids) and _splits_inside(reader, outer):
        return True
    if TRAIN in map(split_of, raw) and all(split_of(k) is not None or annotates(k) for k in raw):
        raise DataError(
            f"{reader.given}: each of {few(names)} holds splits ({few(sorted(set(raw)))}).",
            expected="one set: splits that hold class folders",
            todo="choose one: "
            + " or ".join(reader.command("", outer[name]) for name in names[:2]),
        )
    versions = all(map(is_version, names)) or any(set(words_of(one)) & VARIANTS for one in names)
    if versions or _same_pictures(outer):
        raise DataError(
            f"{reader.given}: {few(names)} hold the same class folders ({few(inner_names)}) and "
            "look like versions of the same pictures.",
            expected="one version: copies of a picture would be in train and in test",
            todo="choose one: "
            + " or ".join(reader.command("", outer[name]) for name in names[:3]),
        )
    outer_numbered = sum(_is_thing(name) or is_numbered(name) for name in names) >= 0.8 * len(names)
    inner_numbered = sum(is_numbered(name) for name in inner_names) >= 0.8 * len(inner_names)
    classes = all(set(words_of(name)) & {"class", "klasse", "label", "category"} for name in names)
    if inner_numbered and (classes or not outer_numbered):
        return False  # <class>/<patient>/...
    if outer_numbered and not inner_numbered:
        _inner(reader, node, split)
        reader.found.notes.append(
            f"{few(names, 3)} hold the class folders {few(inner_names)}: those are the "
            f"classes, and the {len(names)} folders above them are groups."
        )
        return True
    raise DataError(
        f"{reader.given}: {few(names)} hold the same folders ({few(inner_names)}); which of "
        "them are the classes is not certain.",
        expected="class folders at the top, or splits (train, val, test) that hold them",
        todo=f"if {few(inner_names, 2)} are the classes: {reader.command('LAYOUT=inner')}; if "
        f"{few(names, 2)} are: {reader.command('LAYOUT=classes')}"
        + (f"; if {few(names, 2)} are splits: name them train and test" if split < 0 else ""),
    )


def _if_named(reader: _Reader, node: Node) -> str:
    """Offer to read the classes from the beginnings of the names, where these recur."""
    found = _likely_names([name for one in node.walk() for name in one.images])
    if not found:
        return ""
    return f"if the names begin with the class ({few(sorted(found), 3)}): " + (
        reader.command("LAYOUT=names") + "; or "
    )


def _splits_inside(reader: _Reader, outer: dict[str, Node]) -> bool:
    """Read <class>/<split>/<images>, where each class has a train; tell whether it is that."""
    for one in outer.values():
        meant = splits_of(one.kids())
        if TRAIN not in meant.values() or None in meant.values():
            return False
        if any(_through(inner).kids() for inner in one.kids().values()):
            return False
    words: set[str] = set()
    for name, one in outer.items():
        for word, split in splits_of(one.kids()).items():
            reader.add(one.kids()[word], name, TRAIN if split is None else split)
            words.add(word)
    reader.found.notes.append(
        f"Splits were read from the folders inside the classes: {few(sorted(words))}."
    )
    return True


def _inner(reader: _Reader, node: Node, split: int) -> None:
    """Read the folders that hold images as classes, and those above them as groups.

    The folders above are groups only where they share classes: a class that lies in one of them
    could not be on two sides of a split.
    """
    leaves = [
        (leaf, outer_name) for outer_name, outer in node.kids().items() for leaf in _leaves(outer)
    ]
    above: dict[str, set[str]] = {}
    for leaf, outer_name in leaves:
        above.setdefault(nfc(leaf.name), set()).add(outer_name)
    shared = any(len(names) > 1 for names in above.values())
    for leaf, outer_name in leaves:
        reader.add(leaf, leaf.name, split, outer_name if shared and split == UNSPLIT else "")
    reader.found.stray += len(node.images)


def _leaves(node: Node) -> list[Node]:
    """Give the folders that are classes at the lowest level: not images/, nor one per thing."""
    kids = node.kids()
    if not kids or node.images or all(_is_one_thing(name) for name in kids):
        return [node]
    if len(kids) == 1 and set(words_of(next(iter(kids)))) <= GENERIC:
        return [node]
    return [leaf for inner in kids.values() for leaf in _leaves(inner)]


def _is_one_thing(name: str) -> bool:
    return _is_thing(name) or (is_numbered(name) and not words_of(name)) or is_version(name)


def _is_part(name: str) -> bool:
    return (
        bool(re.search(r"\d", name))
        and bool(set(words_of(name)) & PARTS)
        and not (set(words_of(name)) & {"class"})
    )


def _is_thing(name: str) -> bool:
    return any(char.isdigit() for char in name) and bool(
        {word.removesuffix("s") for word in words_of(name)} & THINGS
    )


def _same_pictures(outer: dict[str, Node]) -> bool:
    """Tell whether most pictures of one folder have a namesake in another, in the same class."""
    seen: list[set[str]] = []
    for one in outer.values():
        cut = len(one.rel) + 1
        stems = {path[cut:].rpartition(".")[0].casefold() for path in one.paths()}
        last = {stem.rpartition("/")[2] for stem in stems}
        if all(stem.isdigit() for stem in last) or len(last) * 2 <= len(stems):
            stems = set()  # numbers say nothing, nor does image.jpg in every folder
        seen.append(stems)
    first = seen[0]
    return bool(first) and any(len(first & other) > 0.5 * len(first) for other in seen[1:])


def _texts_of(node: Node) -> str:
    names = [name for one in node.walk() for name in one.texts]
    return f"; beside them are {few(names, 4)}" if names else ""


# --- names


def _prefixes(names: list[str]) -> Counter[str]:
    """Count what stands before the number in file names: ``cat.0.jpg`` → cat."""
    counts: Counter[str] = Counter()
    for name in names:
        stem = image_stem(name)
        match = _FIRST_NUMBER.match(stem) or _STEM.match(stem)
        if match and match[1]:
            counts[match[1]] += 1
    return counts


def _likely_names(names: list[str]) -> Counter[str] | None:
    counts = _prefixes(names)
    if len(counts) < 2 or sum(counts.values()) < 0.9 * len(names):
        return None
    if len(counts) > len(names) / 2 or sum(n < 2 for n in counts.values()) > len(counts) / 2:
        return None
    return counts


def _by_names(reader: _Reader, node: Node) -> None:
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
                _leave(reader, [one])
            else:
                _add_by_name(reader, one, split)
        return
    _add_by_name(reader, node, UNSPLIT)
    if not found.paths:
        raise _no_folders(reader, node)


def _add_by_name(reader: _Reader, node: Node, split: int) -> None:
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


def _no_folders(reader: _Reader, node: Node) -> DataError:
    """Say that there are no class folders, and what the file names suggest."""
    place = node
    for name, inner in node.kids().items():
        if split_of(name) == TRAIN or (not node.images and len(node.kids()) == 1):
            place = _through(inner)
    names = [name for one in place.walk() for name in one.images]
    likely = _likely_names(names)
    flat = [name for name, inner in node.kids().items() if inner.images]
    where = f" ({few(flat)} hold images directly)" if flat and node is not place else ""
    found = (
        f"{reader.given} holds {plural(node.n_images, 'image', 'images')} but no class "
        f"folders{where}"
    )
    if likely:
        shown = few([f"{name} {count:,}" for name, count in likely.most_common()])
        test = [inner for name, inner in node.kids().items()
                if split_of(name) == TEST or (split_in(name) or (0,))[0] == TEST]  # fmt: skip
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
        f"{found}{_texts_of(node)}.",
        expected=EXPECTED,
        todo="sort the images into one folder a class, or write a CSV that names their labels",
    )
