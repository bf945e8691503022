"""From what a table or a list says to the file that it means.

Names come without their folder, without or with another suffix, as absolute paths of another
machine, with backslashes. They are looked up among the images that were found; nothing that a
stranger's table names is opened because it is named.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote

from .file_kinds import image_stem
from .tree import Node
from .words import ANNOTATIONS, nfc, words_of

_MOST_CHARACTERS = 4096
_UPLOADED = re.compile(r"/?data/upload/(?:\d+/)?[0-9a-f]{8}-(.+)")
_NUMBER = re.compile(r"(\d{1,18})(\.0)?")


@dataclass
class Index:
    """The images that names are looked up among.

    Attributes
    ----------
    root : str
        Folder that the found paths are relative to.
    base : str
        Folder of the table, relative to `root`: where its relative paths begin.
    free : bool
        Whether paths outside of `root` may be used (the user gave the list itself).
    least_tail : int
        Folders above the name that must agree where a path is not there as it stands.
    exact : bool
        Whether paths are used only as they stand: most of them are there.
    by_number : bool
        Whether numbers may stand for names with leading zeros.
    """

    root: str
    base: str = ""
    free: bool = False
    paths: set[str] = field(default_factory=set)
    by_name: dict[str, list[str]] = field(default_factory=dict)
    by_stem: dict[str, list[str]] = field(default_factory=dict)
    n_ambiguous: int = 0
    least_tail: int = 0
    exact: bool = False
    by_number: bool = False
    _width: int | None = None

    @classmethod
    def of(cls, node: Node, root: str, base: str, *, free: bool) -> Index:
        """Index the images below `node`, with paths relative to `node`, which is `root`."""
        index = cls(root, base, free)
        cut = len(node.rel) + 1 if node.rel else 0
        for path in node.paths():
            index.add(path[cut:])
        return index

    def add(self, path: str) -> None:
        """Take one image, by its path from the root."""
        self.paths.add(path)
        name = nfc(path.rpartition("/")[2]).casefold()
        self.by_name.setdefault(name, []).append(path)
        for stem in {name, image_stem(name)}:  # a name without suffix may hold dots
            self.by_stem.setdefault(stem, []).append(path)

    def find(self, text: str) -> str | None:
        """Give the path, relative to `root`, of the file that `text` means; None for none."""
        if not 0 < len(text) <= _MOST_CHARACTERS or "\0" in text:
            return None
        for one in _ways(text):
            place = os.path.normpath(f"{self.base}/{one}" if self.base else one)
            if place in self.paths:
                return place
            if os.path.isabs(one) and one.startswith(f"{self.root}/"):  # noqa: PTH117
                one = one[len(self.root) + 1 :]
            plain = os.path.normpath(one)
            if plain in self.paths:
                return plain
            if self.free and self._is_file(one):
                return os.path.relpath(os.path.join(self.root, self.base, one), self.root)  # noqa: PTH118
        if self.exact:
            return None
        for one in _ways(text):
            if (found := self._by_tail(one.replace("\\", "/"))) is not None:
                return found
        return self._by_number(text)

    def _by_number(self, text: str) -> str | None:
        """Give the image of a number that lost its leading zeros: ``12`` or ``12.0``, 00012.jpg.

        Only where the names of all numbered images have as many digits.
        """
        match = _NUMBER.fullmatch(text.strip()) if self.by_number else None
        if match is None:
            return None
        if self._width is None:
            widths = {len(stem) for stem in self.by_stem if stem.isascii() and stem.isdigit()}
            self._width = widths.pop() if len(widths) == 1 else 0
        found = self.by_stem.get(match[1].zfill(self._width)) if self._width else None
        return found[0] if found and len(found) == 1 else None

    def settle(self, texts: Sequence[str]) -> None:
        """Decide from all names of a table whether they are paths or names to be looked up.

        Where half of the paths are there as they stand, the others are missing: a file of the
        same name elsewhere is not what is meant.
        """
        self.exact = True
        there = sum(self.find(text) is not None for text in texts)
        self.exact = there * 2 >= len(texts)
        if self.exact or not texts:
            return
        depths = [self._depth(text) for text in texts]
        found = [depth for depth in depths if depth is not None]
        if found and sum(depth > 0 for depth in found) * 2 > len(found):
            self.least_tail = max(self.least_tail, 1)

    def _depth(self, text: str) -> int | None:
        found = self._by_tail(text.replace("\\", "/"))
        if found is None:
            return None
        parts = [nfc(one).casefold() for one in text.replace("\\", "/").split("/")]
        return _tail(found, parts)

    def _is_file(self, text: str) -> bool:
        return os.path.isfile(os.path.join(self.root, self.base, text))  # noqa: PTH113, PTH118

    def _by_tail(self, text: str) -> str | None:
        parts = [nfc(part).casefold() for part in text.split("/") if part not in ("", ".", "..")]
        if not parts:
            return None
        found = self.by_name.get(parts[-1])
        if not found:
            found = self.by_stem.get(parts[-1]) or self.by_stem.get(image_stem(parts[-1]))
        if not found:
            return None
        scored = [(_tail(path, parts), path) for path in found]
        most = max(score for score, _ in scored)
        if most < self.least_tail:
            return None
        best = [path for score, path in scored if score == most]
        if len(best) > 1:  # a mask of the same name is not what is meant
            best = [path for path in best if not _is_annotation(path)] or best
        if len(best) > 1:
            self.n_ambiguous += 1
            return None
        return best[0]


def _ways(text: str) -> list[str]:
    """Give a path as it stands and, where it may be written for the web or Windows, plainly."""
    ways = [text]
    if "?d=" in text:  # Label Studio's files of its own machine
        ways.append(unquote(text.partition("?d=")[2]))
    if upload := _UPLOADED.match(text):
        ways.append(upload[1])
    if text.startswith("file://"):
        ways.append(re.sub(r"^file://(localhost)?", "", text))
    if "%" in ways[-1]:
        ways.append(unquote(ways[-1]))
    return [*ways, *(one.replace("\\", "/") for one in ways if "\\" in one)]


def _tail(path: str, parts: list[str]) -> int:
    """Folders of `path` above its name that are those of `parts`, counted from the name."""
    folders = [nfc(part).casefold() for part in path.split("/")[:-1]]
    count = 0
    for mine, theirs in zip(reversed(folders), reversed(parts[:-1]), strict=False):
        if mine != theirs:
            break
        count += 1
    return count


def _is_annotation(path: str) -> bool:
    return any(set(words_of(part)) & ANNOTATIONS for part in path.split("/")[:-1])
