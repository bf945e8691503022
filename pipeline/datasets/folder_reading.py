"""One reading of a folder: the rows as they are gathered, what is said, what is left out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from ..errors import DataError
from .file_kinds import is_text
from .phrases import few, plural, quoted
from .tree import Node
from .words import (
    GENERIC,
    OUTPUTS,
    THUMBNAILS,
    UNLABELLED,
    annotates,
    nfc,
    words_of,
)

EXPECTED = (
    "root/<class>/<image>, root/<split>/<class>/<image> (train, val, test), list files "
    "(train.txt, val.txt, test.txt), a CSV with path,label[,split], or .npz, .h5, .parquet or "
    ".arrow files"
)


@dataclass
class Found:
    """Rows as they are gathered, and what is to be said."""

    paths: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    split: list[int] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    stray: int = 0


@dataclass
class Reader:
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
    found: Found = field(default_factory=Found)

    def command(self, setting: str, folder: Node | None = None) -> str:
        """Give a command that confirms a reading."""
        data = self.given if folder is None else folder.path
        return f"make data DATA={quoted(data)}" + (f" {setting}" if setting else "")

    def below(self, node: Node) -> list[str]:
        """Paths of all images of `node`, relative to the top."""
        cut = len(self.top.rel) + 1 if self.top.rel else 0
        return [path[cut:] for path in node.paths()]

    def without_masks(self, node: Node) -> list[str]:
        """Paths of the images of a class, but for masks next to them: <class>/images and masks."""
        kids = node.kids()
        masks = [name for name in kids if annotates(name)]
        if not masks or len(masks) == len(kids) or node.images:
            return self.below(node)
        n_masks = sum(kids[name].n_images for name in masks)
        self.found.notes.append(
            f"{plural(n_masks, 'image', 'images')} in {relative(node, self.top)}/"
            f"{few(sorted(masks))} left out as masks or annotations."
        )
        return [path for name, one in kids.items() if name not in masks
                for path in self.below(one)]  # fmt: skip

    def add(self, node: Node, label: str, split: int, group: str = "") -> None:
        """Take all images of `node` as of one class."""
        paths = self.without_masks(node)
        _check_name(label, node)
        if not paths:
            self.found.empty.append(relative(node, self.top))
        self.found.paths += paths
        self.found.labels += [label] * len(paths)
        self.found.split += [split] * len(paths)
        self.found.groups += [group] * len(paths)


def relative(node: Node, top: Node) -> str:
    """Give the path of a folder from `top`."""
    return node.rel[len(top.rel) :].strip("/")


def _check_name(label: str, node: Node) -> None:
    if not is_text(label):
        raise DataError(
            f"The name of the class folder {label.encode('utf-8', 'surrogateescape')!r} is not "
            "UTF-8.",
            expected="names in UTF-8",
            todo="rename the folder",
        )


def through(node: Node) -> Node:
    """Go through folders that hold one folder of images and nothing else."""
    kids = node.kids()
    while len(kids) == 1 and not node.images:
        (name, inner), *_ = kids.items()
        same = nfc(name).casefold() == nfc(node.name).casefold() or set(words_of(name)) <= GENERIC
        if not inner.kids() and not same:
            break
        node, kids = inner, inner.kids()
    return node


def set_aside(node: Node, name: str) -> bool:
    """Tell whether a folder is no class beside splits: unlabelled, outputs, annotations."""
    words = set(words_of(name))
    return bool(words & UNLABELLED) or annotates(name) or is_output(node, name)


def is_output(node: Node, name: str) -> bool:
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


def leave(reader: Reader, nodes: list[Node]) -> None:
    """Leave out folders without labels; those of images are offered to be predicted."""
    for node in nodes:
        words = set(words_of(node.name))
        name = relative(node, reader.top)
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
                f"make predict IMAGES={quoted(through(node).path)} RUN=<run>."
            )
        reader.found.notes.append(what)
