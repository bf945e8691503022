"""List files: ``path label`` a line, in the ways that programs write them.

The label is behind the path or before it, between them is a blank, a tab or a comma, there is an
index or a header or none. Which it is, is decided by what names images that are there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ..errors import DataError
from ..settings import DataSettings
from .file_kinds import IMAGE_SUFFIXES
from .listing import Listing
from .named import Row, listing_of
from .phrases import confirming, few, quoted
from .resolve import Index
from .split_words import SPLITS, split_in, split_of
from .texts import read_text
from .tree import Node

LIST_SUFFIXES = (".txt", ".lst", ".list")
_SAMPLE = 400
_WORD = re.compile(
    r"(?i)^(.*?[_-])(trainval|train|training|val|valid|validation|test|testing)([_-].*)?$"
)
_Parsed = tuple[str, str] | None  # path, label
_GLUED = re.compile(r"(?i)(.+?)(list|files?|ids?)")
_SUFFIX = "|".join(sorted(IMAGE_SUFFIXES))
_THEN_LABEL = re.compile(rf"(?i)^(.*?\.(?:{_SUFFIX}))[\s,;]+(.+)$")
_LABEL_THEN = re.compile(rf"(?i)^(\S+?)[\s,;]+(.*\.(?:{_SUFFIX}))$")


def is_list(name: str) -> int | None:
    """Split (index into ``SPLITS``) that a list file's name means; None if it means none."""
    path = Path(name)
    if path.suffix.lower() not in LIST_SUFFIXES:
        return None
    stem = re.sub(r"[\d_.-]+$", "", path.stem)
    split = split_of(path.stem)
    if split is None and (glued := _GLUED.fullmatch(stem)):
        split = split_of(glued[1])
    if split is None and (found := split_in(path.stem)) and found[1] in ("", "list", "file", "id"):
        split = found[0]
    return split


def list_files_in(folder: Path, like: str = "") -> dict[int, Path]:
    """Find ``train.txt``, ``val.txt``, ``test.txt`` (any case, any of the split's names).

    Parameters
    ----------
    folder : Path
        Where they are.
    like : str
        Name of one of them: with others of other numbers (``train1.txt``, ``train2.txt``) only
        those of its number are taken.

    Raises
    ------
    DataError
        Two files mean the same split.
    """
    try:
        names = sorted(one.name for one in os.scandir(folder) if one.is_file())
    except OSError:
        return {}
    files = {name: folder / name for name in names}
    numbers = re.findall(r"\d+", Path(like).stem)
    if numbers:
        same = {n: path for n, path in files.items() if re.findall(r"\d+", path.stem) == numbers}
        files = same if sum(is_list(name) is not None for name in same) > 1 else files
    return chosen(files, str(folder))


def family_of(path: Path) -> dict[int, Path]:
    """Give the lists that differ from one by the word of their split: ``images_variant_train.txt``.

    Returns
    -------
    dict of split to Path
        Empty where the name has no such word, or no other list goes with it.
    """
    found: dict[int, Path] = {}
    mine = _prefix(path.name)
    if mine is None:
        return {}
    both = {_WORD.search(one.stem) for one in path.parent.glob("*.txt")}
    words = {match[2].casefold() for match in both if match and match[1] == mine}
    for one in sorted(path.parent.glob("*.txt")):
        match = _WORD.search(one.stem)
        if match is None or match[1] != mine:
            continue
        if match[2].casefold() == "trainval" and {"train", "val"} <= words:
            continue
        split = split_of(match[2])
        if split is None or split in found:
            return {}
        found[split] = one
    return found if len(found) > 1 and 0 in found else {}


def _prefix(name: str) -> str | None:
    match = _WORD.search(Path(name).stem)
    return match[1] if match and Path(name).suffix.lower() == ".txt" and match[1] else None


def families_in(node: Node) -> list[tuple[str, dict[int, Path]]]:
    """Find lists of labels that are called after splits, with something before: by what is before.

    Lists of names alone are not among the answers, nor are lists of boxes.
    """
    found: dict[str, dict[int, Path]] = {}
    index: Index | None = None
    for one in node.walk():
        place = one.rel[len(node.rel) :].strip("/")
        for name in one.texts if place.count("/") < 2 else ():
            prefix = _prefix(name)
            if prefix is None or is_list(name) is not None or prefix in found:
                continue
            files = family_of(Path(one.path) / name)
            if not files:
                continue
            index = index or Index.of(node, node.path, place, free=False)
            if all(_has_labels(path, index) for path in files.values()):
                found[prefix] = files
    return sorted(found.items())


def _has_labels(path: Path, index: Index) -> bool:
    """Tell whether each of some lines is an image and one word or name, which recurs."""
    lines = [line for _, line in _lines(path)]
    some = lines[:: max(1, len(lines) // _SAMPLE)]
    parts = [line.split(maxsplit=1) for line in some]
    named = [part for part in parts if len(part) == 2 and index.find(part[0]) is not None]
    labels = {part[1] for part in named}
    boxes = sum(bool(re.fullmatch(r"[\d.]+(\s+[\d.]+){3,}", part[1])) for part in named)
    return len(named) * 10 >= len(some) * 9 and 0 < len(labels) <= len(named) and not boxes


def chosen(files: Mapping[str, Path], folder: str) -> dict[int, Path]:
    """Give one list file a split; ``trainval`` gives way where there are train and val.

    Raises
    ------
    DataError
        Two files mean the same split.
    """
    found: dict[int, Path] = {}
    names = {name: split for name in files if (split := is_list(name)) is not None}
    plain = {split for name, split in names.items() if "val" not in name.lower() or split != 0}
    for name, split in sorted(names.items()):
        if split == 0 and "val" in name.lower() and 0 in plain:
            continue
        if split in found:
            both = (found[split].name, name)
            folds = len({re.sub(r"\d", "", one) for one in both}) == 1
            first = next((one for one in sorted(names) if names[one] == 0), both[0])
            raise DataError(
                f"{both[0]} and {name} in {folder} both mean {SPLITS[split]}.",
                expected="one list file a split",
                todo=f"choose one of the folds: make data DATA={quoted(f'{folder}/{first}')}"
                if folds
                else "join them, or rename one",
            )
        found[split] = files[name]
    return found


def _last(line: str) -> _Parsed:
    parts = line.rsplit(maxsplit=1)
    return (parts[0], parts[1]) if len(parts) == 2 else None


def _head(line: str) -> _Parsed:
    parts = line.split(maxsplit=1)
    return (parts[0], parts[1]) if len(parts) == 2 else None


def _first(line: str) -> _Parsed:
    parts = line.split(maxsplit=1)
    return (parts[1], parts[0]) if len(parts) == 2 else None


def _behind(line: str) -> _Parsed:
    match = _THEN_LABEL.match(line)
    return (match[1], match[2]) if match else None


def _before(line: str) -> _Parsed:
    match = _LABEL_THEN.match(line)
    return (match[2], match[1]) if match else None


_PARSERS: tuple[Callable[[str], _Parsed], ...] = (_last, _behind, _head, _first, _before)
_DELIMITERS = ("\t", ",", ";", "|", None)  # None: blanks


def read_lists(
    files: Mapping[int, Path],
    index: Index,
    ask: DataSettings,
    *,
    given: str,
    texts: Mapping[Path, str] | None = None,
) -> Listing:
    """Read list files of one folder.

    Parameters
    ----------
    files : mapping of split (index into ``SPLITS``, or -1 for no split) to list file
    index : Index
        The images that are there.
    given : str
        What the user named as DATA, for commands.

    Raises
    ------
    DataError
        A line without a label, lines of several columns, a path with two labels, files that are
        not there.
    """
    rows: list[Row] = []
    notes: list[str] = []
    for split, path in sorted(files.items()):
        some, note = _rows(path, split, index, ask, given)
        rows += some
        if note and note not in notes:
            notes.append(note)
    source = next(iter(files.values()))
    listing = listing_of(
        rows, (), index, source if len(files) == 1 else source.parent, ask_label=ask.label,
        command=confirming(given, ask),
    )  # fmt: skip
    listing.warnings[:0] = notes
    for split, path in sorted(files.items()):
        if "val" in path.stem.lower() and "train" in path.stem.lower():
            listing.warnings.append(f"{path.name} counts as {SPLITS[split]}.")
    return listing


def _lines(path: Path) -> list[tuple[int, str]]:
    text, _ = read_text(path)
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    lines = [(number, line.strip(" ")) for number, line in enumerate(text.split("\n"), start=1)]
    return [(n, line) for n, line in lines if line.strip() and not line.startswith("#")]


def _share(lines: Sequence[str], parse: Callable[[str], _Parsed], index: Index) -> float:
    """Different images named, for each line: names of files hardly repeat, labels do."""
    return _distinct([got[0] for line in lines if (got := parse(line)) is not None], index) / max(
        len(lines), 1
    )


def _distinct(texts: Sequence[str], index: Index) -> int:
    found = [one for text in texts if (one := index.find(text)) is not None]
    distinct = len(set(found))
    return distinct if distinct * 2 > len(found) else 0


def _rows(
    path: Path, split: int, index: Index, ask: DataSettings, given: str
) -> tuple[list[Row], str]:
    lines = _lines(path)
    step = max(1, len(lines) // _SAMPLE)
    sample = [line for _, line in lines[::step]]
    best: Callable[[str], _Parsed] = _last
    most, note = -1.0, ""
    for parse in _PARSERS:
        if (share := _share(sample, parse, index)) > most + 1e-9:
            best, most = parse, share
    for delimiter in _DELIMITERS:
        found = _cells(sample, delimiter, index, ask, path, given, most)
        if found is not None:
            best, most, note = found
    whole = sum(index.find(line) is not None for line in sample) / len(sample) if sample else 0.0
    if whole > most + 1e-9 and whole >= 0.5:
        return _by_folder(path, split, lines, index, given)
    if lines and len(lines) > 2 and most > 0.5:  # a header names no image, all others do
        got = best(lines[0][1])
        if (got is None or index.find(got[0]) is None) and _is_header(lines[0][1]):
            lines = lines[1:]
    index.n_ambiguous = 0
    rows = []
    for number, line in lines:
        parsed = best(line)
        if parsed is None or not parsed[1]:
            raise DataError(
                f"{path}, line {number}, has no label: {line[:80]!r}.",
                expected="one 'path label' a line",
                todo="correct that line",
            )
        rows.append(Row(parsed[0].strip(), (parsed[1].strip(),), split, f"{path.name}:{number}"))
    return rows, note


def _is_header(line: str) -> bool:
    return bool(re.search(r"(?i)\b(file|filename|path|image|img|name|label|class)\b", line))


def _cells(
    sample: Sequence[str],
    delimiter: str | None,
    index: Index,
    ask: DataSettings,
    path: Path,
    given: str,
    most: float,
) -> tuple[Callable[[str], _Parsed], float, str] | None:
    """Find the columns where lines are cut by `delimiter`; None where that fits no better."""
    cut = [[cell.strip() for cell in line.split(delimiter)] for line in sample]
    if not cut or len({len(cells) for cells in cut}) != 1 or len(cut[0]) < 2:
        return None
    width = len(cut[0])
    shares = [_distinct([row[at] for row in cut], index) / len(cut) for at in range(width)]
    at = max(range(width), key=lambda one: (shares[one], -one))
    if shares[at] <= most + 1e-9 and not (width > 2 and shares[at] >= most - 1e-9 and most > 0.5):
        return None
    others = [one for one in range(width) if one != at]
    if len(others) > 1:
        counted = [
            one for one in others
            if len({row[one] for row in cut}) == len(cut) > 1 and all(r[one].isdigit() for r in cut)
        ]  # fmt: skip
        constant = [one for one in others if len({row[one] for row in cut}) == 1 and len(cut) > 1]
        rest = [one for one in others if one not in counted and one not in constant]
        asked = ask.label_column
        if asked.isdigit() and 1 <= int(asked) <= width:
            rest = [int(asked) - 1]
        if len(rest) != 1 and not asked and len(rest) > 1:
            same = all(len({(row[rest[0]], row[one]) for row in cut})
                       == len({row[rest[0]] for row in cut}) == len({row[one] for row in cut})
                       for one in rest[1:])  # fmt: skip
            names = " ".join(cut[0])
            raise DataError(
                f"{path}: a line has {width} columns ({names[:120]!r}); column {at + 1} names the "
                f"image, and which of the others is the label is not certain"
                f"{' (they say the same here)' if same else ''}.",
                expected="one 'path label' a line",
                todo="name the column of the label: "
                + "; or ".join(
                    confirming(str(path), ask, label_column=str(one + 1)) for one in rest[:3]
                ),
            )
        if not rest:
            return None
        others = rest
    label = others[0]

    def parse(line: str) -> _Parsed:
        cells = [cell.strip() for cell in line.split(delimiter)]
        return (cells[at], cells[label]) if len(cells) == width else None

    note = f"{path.name}: column {at + 1} of {width} names the image, column {label + 1} the label."
    return parse, shares[at], note if width > 2 else ""


def names_in(path: Path, index: Index) -> list[str]:
    """Give the images that a list of names alone means; empty where it is none."""
    lines = [line for _, line in _lines(path)]
    found = [one for line in lines if (one := index.find(line)) is not None]
    return found if len(found) * 10 >= len(lines) * 9 else []


def _by_folder(
    path: Path, split: int, lines: Sequence[tuple[int, str]], index: Index, given: str
) -> tuple[list[Row], str]:
    """Take the label from the folder of each image, where a list names images alone."""
    rows = []
    for number, line in lines:
        found = index.find(line)
        label = os.path.basename(os.path.dirname(found)) if found else "?"  # noqa: PTH119, PTH120
        rows.append(Row(line, (label,), split, f"{path.name}:{number}"))
    if len({row.labels[0] for row in rows} - {"?"}) < 2:
        raise DataError(
            f"{path} names {len(lines):,} images and no labels, such as {few([lines[0][1]])}.",
            expected="one 'path label' a line, or images in class folders",
            todo="add the label behind each path",
        )
    return rows, f"{path.name} names images alone: the label is the name of their folder."
