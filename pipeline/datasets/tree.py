"""What lies in a folder and below it: each real folder once, regular files only, within limits.

Links are followed, but after all real folders: a link to a folder that was visited already (above,
beside, or by another link) is passed over and named, so that loops end and a set of links cannot
grow without limit. What systems leave is no part of the set.
"""

from __future__ import annotations

import heapq
import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import DataError
from .file_kinds import is_image, is_junk
from .formats import OTHERS, PLACEHOLDER, sniff

MAX_DEPTH = 64
MAX_FOLDERS = 1_000_000
MAX_FILES = 50_000_000
_MOST_SNIFFED = 2_000_000  # files whose first bytes are read, about 30 µs each
_LABEL_FILES = tuple(
    ".csv .tsv .tab .txt .lst .list .dat .json .jsonl .ndjson .xml .mat .yaml .yml .names".split()
)
_ARRAYS = (".npz", ".npy", ".h5", ".hdf5", ".parquet", ".arrow", ".feather", ".pkl", ".pickle")


@dataclass
class Node:
    """One folder.

    Attributes
    ----------
    name, path : str
        Its name, and where it is.
    rel : str
        Path from the root of the tree; empty for the root.
    folders : dict of str to Node
        Folders in it, by name, sorted.
    images : list of str
        Names of images directly in it.
    texts : list of str
        Names of files that may name labels.
    arrays : list of str
        Names of files of arrays and tables of images.
    others : Counter of str
        Other files, by suffix.
    foreign : Counter of str
        Images of formats that are not read, by format.
    n_images : int
        Images in it and below.
    """

    name: str
    path: str
    rel: str
    folders: dict[str, Node] = field(default_factory=dict)
    images: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    arrays: list[str] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    foreign: Counter[str] = field(default_factory=Counter)
    n_images: int = 0

    def join(self, name: str) -> str:
        """Path of `name` in this folder, from the root of the tree."""
        return f"{self.rel}/{name}" if self.rel else name

    def kids(self) -> dict[str, Node]:
        """Folders in it that hold images, at whatever depth."""
        return {name: node for name, node in self.folders.items() if node.n_images}

    def walk(self) -> Iterator[Node]:
        """Give this folder and all below it."""
        yield self
        for node in self.folders.values():
            yield from node.walk()

    def paths(self) -> list[str]:
        """Paths of all images in it and below, from the root of the tree."""
        return [node.join(name) for node in self.walk() for name in node.images]


@dataclass
class Tree:
    """A folder that was walked.

    Attributes
    ----------
    root : Node
        The folder.
    repeated : list of str
        Links to folders that were visited already.
    foreign : Counter of str
        Images of formats that are not read, by format.
    odd : list of str
        Images told by their content alone, whatever the suffix.
    """

    root: Node
    repeated: list[str] = field(default_factory=list)
    foreign: Counter[str] = field(default_factory=Counter)
    odd: list[str] = field(default_factory=list)
    n_sniffed: int = 0


def scan(folder: Path) -> Tree:
    """Walk `folder`.

    Raises
    ------
    DataError
        A folder that cannot be read, nested too deep, or too many.
    """
    top = os.path.realpath(folder)
    root = Node(name=folder.name, path=top, rel="")
    tree = Tree(root)
    seen: set[tuple[int, int]] = set()
    counted = [0, 0]
    links: list[tuple[str, int, Node, str, str, int]] = []  # a heap: by path
    waiting: list[tuple[Node, int]] = [(root, 0)]
    status = _stat(top)
    seen.add((status.st_dev, status.st_ino))
    while waiting or links:
        if not waiting:
            _, _, above, name, path, depth = heapq.heappop(links)
            try:
                status = os.stat(path)  # noqa: PTH116
            except OSError:
                continue
            here = (status.st_dev, status.st_ino)
            if here in seen:
                tree.repeated.append(above.join(name))
                continue
            seen.add(here)
            node = above.folders[name] = Node(name, path, above.join(name))
            waiting.append((node, depth))
        node, depth = waiting.pop()
        for name, path, status in _look(node, tree, links, depth, counted):
            here = (status.st_dev, status.st_ino)
            if here in seen:
                tree.repeated.append(node.join(name))
                continue
            seen.add(here)
            child = node.folders[name] = Node(name, path, node.join(name))
            waiting.append((child, depth + 1))
    _settle(root)
    return tree


def _settle(root: Node) -> None:
    order = list(root.walk())
    for node in reversed(order):
        node.folders = dict(sorted(node.folders.items()))
        node.images.sort()
        node.n_images = len(node.images) + sum(one.n_images for one in node.folders.values())


def _stat(path: str) -> os.stat_result:
    try:
        return os.stat(path)  # noqa: PTH116
    except OSError as error:
        raise _unreadable(path, error) from error


def _look(
    node: Node,
    tree: Tree,
    links: list[tuple[str, int, Node, str, str, int]],
    depth: int,
    counted: list[int],
) -> Iterator[tuple[str, str, os.stat_result]]:
    """Sort what lies directly in `node`; give its real folders."""
    if depth > MAX_DEPTH:
        raise DataError(
            f"{node.path[:200]}... is nested more than {MAX_DEPTH} folders deep.",
            expected="class folders, a few levels below DATA",
            todo="point DATA= at the folder that holds the class folders",
        )
    folders = []
    try:
        with os.scandir(node.path) as entries:
            for entry in entries:
                counted[0] += 1
                if is_junk(entry.name):
                    if entry.name.endswith(".icloud"):
                        tree.foreign[PLACEHOLDER] += 1
                        node.foreign[PLACEHOLDER] += 1
                    continue
                link = entry.is_symlink()
                if _is_folder(entry):
                    counted[1] += 1
                    if link:
                        name = node.join(entry.name)
                        one = (name, counted[1], node, entry.name, entry.path, depth + 1)
                        heapq.heappush(links, one)
                    else:
                        folders.append((entry.name, entry.path, entry.stat()))
                else:
                    _sort_file(entry, node, tree)
    except OSError as error:
        raise _unreadable(node.path, error) from error
    if counted[1] > MAX_FOLDERS or counted[0] > MAX_FILES:
        raise DataError(
            f"{tree.root.path} holds more than {MAX_FOLDERS:,} folders or {MAX_FILES:,} files.",
            expected="a data set",
            todo="point DATA= at the folder that holds the class folders",
        )
    yield from folders


def _sort_file(entry: os.DirEntry[str], node: Node, tree: Tree) -> None:
    name = entry.name
    if is_image(name):
        node.images.append(name)
        return
    suffix = _suffix(name)
    if not _is_regular(entry):
        node.others["no regular file"] += 1
        return
    if suffix in _ARRAYS:
        node.arrays.append(name)
        return
    if tree.n_sniffed < _MOST_SNIFFED:
        tree.n_sniffed += 1
        kind = sniff(entry.path)
        if kind in OTHERS:
            tree.foreign[kind] += 1
            node.foreign[kind] += 1
            return
        if kind:
            node.images.append(name)
            tree.odd.append(node.join(name))
            return
    if suffix in _LABEL_FILES:
        node.texts.append(name)
        return
    node.others[suffix] += 1


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _is_regular(entry: os.DirEntry[str]) -> bool:
    try:
        return stat.S_ISREG(entry.stat().st_mode)
    except OSError:
        return False


def _suffix(name: str) -> str:
    stem, dot, suffix = name.rpartition(".")
    return f".{suffix.lower()}" if dot and stem else "no suffix"


def _unreadable(path: str, error: OSError) -> DataError:
    return DataError(
        f"The folder {path[:300]} cannot be read ({error.strerror}).",
        expected="a folder this user may read",
        todo="correct its permissions, or point DATA= at another folder",
    )
