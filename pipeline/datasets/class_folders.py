"""Which folders are classes: after all that they could be instead.

Masks have the names of other images; versions of the same pictures hold the same class folders; a
thing (a patient) holds class folders that recur under others; parts of a download are numbered.
"""

from __future__ import annotations

import re
from collections import Counter

from ..errors import DataError
from .file_kinds import image_stem
from .file_names import likely_names, no_folders, texts_of
from .folder_reading import EXPECTED, Reader, is_output, leave, relative, through
from .formats import extra_for, is_flat
from .phrases import few
from .split_words import TRAIN, UNSPLIT, split_of, splits_of
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

_COPY = re.compile(
    r"(?i)(.+?)(?: - (?:copy|kopie|copie|copia)(?: ?\(\d+\))?| copy(?: \d+)?| ?\(\d+\))"
)
_DATE = re.compile(r"(19|20)\d\d[-_. ]?(0\d|1[0-2])([-_. ]?[0-3]\d)?")
_MOST = 0.6  # share of the outer folders under which an inner name must recur


def read_classes(reader: Reader, node: Node, split: int) -> None:
    """Read the folders of `node` as classes, after all that they could be instead."""
    kids = node.kids()
    if reader.layout != "classes":
        kids = _without_others(reader, node, kids)
        if kids and split == UNSPLIT:
            if len(kids) == 1 and len(kids) < len(node.kids()) and not node.images:
                (inner,) = kids.values()
                if not inner.kids():
                    raise no_folders(reader, inner)
                read_classes(reader, through(inner), split)
                return
        if kids and reader.layout == "inner":
            _inner(reader, node, split)
            return
        if kids and _nested(reader, node, kids, split):
            return
        _doubt_depth(reader, kids)
        _doubt_names(reader, kids)
        _doubt_copies(reader, kids)
        _doubt_dates(reader, kids)
    for name, inner in node.folders.items():
        if name in kids or not inner.n_images:
            foreign = sum((one.foreign for one in inner.walk()), start=Counter[str]())
            if not inner.n_images and foreign:
                (kind, count), *_ = foreign.most_common(1)
                raise DataError(
                    f"{relative(inner, reader.top)}: all {count:,} images are {kind}, which this "
                    "installation does not read.",
                    expected="images of every class that can be read",
                    todo=f"{extra_for(kind)}; or move that folder out of the set",
                )
            reader.add(inner, name, split)


def _doubt_depth(reader: Reader, kids: dict[str, Node]) -> None:
    """Ask which folders are the classes, where those at the top hold others with own names."""
    deeper = {}
    for name, one in kids.items():
        names = [] if one.images else [k for k in through(one).kids() if not annotates(k)]
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


def _doubt_names(reader: Reader, kids: dict[str, Node]) -> None:
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


def _doubt_dates(reader: Reader, kids: dict[str, Node]) -> None:
    """Ask about folders that are called after dates, as cameras and imports make them."""
    if len(kids) > 1 and all(_DATE.fullmatch(name) for name in kids):
        raise DataError(
            f"{reader.given}: the folders {few(sorted(kids), 3)} are dates, which are hardly "
            "classes.",
            expected="one folder a class, or a table that names the labels of the images",
            todo="sort the images into one folder a class, or write a CSV with path,label; or, if "
            f"they are the classes: {reader.command('LAYOUT=classes')}",
        )


def _doubt_copies(reader: Reader, kids: dict[str, Node]) -> None:
    """Ask about folders that are called copies of others: ``dog - Copy``, ``dog (1)``."""
    copies = [name for name in kids if (found := _COPY.fullmatch(name)) and found[1] in kids]
    if copies:
        raise DataError(
            f"{reader.given}: {few(sorted(copies))} is called a copy of another class folder.",
            expected="each class in one folder: copies of an image would be in train and in test",
            todo=f"move {few(sorted(copies))} out of the folder; or, if these are classes: "
            f"{reader.command('LAYOUT=classes')}",
        )


def _without_others(reader: Reader, node: Node, kids: dict[str, Node]) -> dict[str, Node]:
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
        elif is_output(node, name) and any(one.images for one in kids.values()):
            left.append(inner)
    if left and len(left) < len(kids):
        leave(reader, left)
        for inner in left:
            said = set(words_of(inner.name)) & (UNLABELLED | OUTPUTS | THUMBNAILS)
            if not said and not annotates(inner.name):
                reader.found.notes[-1] = (
                    f"{relative(inner, reader.top)} holds masks of other images and was left out."
                )
        return {name: inner for name, inner in kids.items() if inner not in left}
    return kids


def _stems(node: Node) -> set[str]:
    return {image_stem(name) for one in node.walk() for name in one.images}


def _are_masks(node: Node) -> bool:
    """Look at the headers of up to five pictures."""
    paths = [f"{one.path}/{name}" for one in node.walk() for name in one.images][:5]
    return bool(paths) and all(is_flat(path) for path in paths)


def _nested(reader: Reader, node: Node, kids: dict[str, Node], split: int) -> bool:
    """Read folders that are not classes, where that is certain; tell whether they were."""
    if len(kids) >= 2 and all(_is_part(name) for name in kids):
        inner = {nfc(name) for one in kids.values() for name in through(one).kids()}
        if inner and all(through(one).kids() for one in kids.values()):
            for one in kids.values():
                for name, deeper in through(one).kids().items():
                    reader.add(deeper, name, split)
            reader.found.notes.append(f"{few(list(kids))} are parts of one set, not classes.")
            return True
        raise DataError(
            f"{reader.given}: {few(list(kids))} look like parts of one set, not like classes"
            f"{texts_of(node)}.",
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
            f"({len(kids)} of them), not like classes{texts_of(node)}.",
            expected="class folders, or a table that names the labels of the images",
            todo="write a CSV with path,label; or, if they are the classes: "
            + reader.command("LAYOUT=classes"),
        )
    outer = {name: one for name, one in kids.items() if not one.images}
    if len(outer) < 2 or len(outer) < _MOST * len(kids):
        return False
    inner_of = {name: [nfc(k) for k in through(one).kids() or one.kids()]
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
    images = [key for key in inner_names if not annotates(key)]
    if images and all(set(words_of(key)) <= GENERIC and words_of(key) for key in images):
        return False  # <class>/images/...
    raw = [key for one in outer.values() for key in one.kids()]
    if len(outer) == len(kids) and _splits_inside(reader, outer):
        return True
    if TRAIN in map(split_of, raw) and all(split_of(k) is not None or annotates(k) for k in raw):
        raise DataError(
            f"{reader.given}: each of {few(names)} holds splits ({few(sorted(set(raw)))}).",
            expected="one set: splits that hold class folders",
            todo="choose one: "
            + "; or ".join(reader.command("", outer[name]) for name in names[:2]),
        )
    versions = all(map(is_version, names)) or any(set(words_of(one)) & VARIANTS for one in names)
    if versions or _same_pictures(outer):
        raise DataError(
            f"{reader.given}: {few(names)} hold the same class folders ({few(inner_names)}) and "
            "look like versions of the same pictures.",
            expected="one version: copies of a picture would be in train and in test",
            todo="choose one: "
            + "; or ".join(reader.command("", outer[name]) for name in names[:3]),
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


def _if_named(reader: Reader, node: Node) -> str:
    """Offer to read the classes from the beginnings of the names, where these recur."""
    found = likely_names([name for one in node.walk() for name in one.images])
    if not found:
        return ""
    return f"if the names begin with the class ({few(sorted(found), 3)}): " + (
        reader.command("LAYOUT=names") + "; or "
    )


def _splits_inside(reader: Reader, outer: dict[str, Node]) -> bool:
    """Read <class>/<split>/<images>, where each class has a train; tell whether it is that."""
    for one in outer.values():
        meant = splits_of(one.kids())
        if TRAIN not in meant.values() or None in meant.values():
            return False
        if any(through(inner).kids() for inner in one.kids().values()):
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


def _inner(reader: Reader, node: Node, split: int) -> None:
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
