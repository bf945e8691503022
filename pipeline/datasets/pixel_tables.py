"""Tables whose cells are pixels: a label and 784 columns, or one column of numbers with blanks.

As Kaggle has MNIST and its relatives, and FER2013: ``emotion,pixels,Usage``.
"""

from __future__ import annotations

import csv
import itertools
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from .problem import Problem
from .split_words import split_of
from .words import LABELS, key_of

_HEAD_CHARACTERS = 1 << 18
_FEWEST = 64  # pixels
_CLEARER = 4  # times fewer different values, or times farther from the next column
_LONGEST_CELL = 1 << 24
_PIXEL = re.compile(r"(p|px|pix|pixel|pixels)?[ _.-]?\d+|\d+x\d+")
_USAGE = {"publictest": "val", "privatetest": "test"}  # of FER2013


def is_pixel_table(path: Path) -> bool:
    """Tell by its first lines whether a table holds pixels."""
    try:
        with _opened(path) as stream:
            head = stream.read(_HEAD_CHARACTERS)
    except (OSError, UnicodeDecodeError):
        return False
    lines = head.split("\n")
    if len(lines) < 2 or len(lines[0]) > _HEAD_CHARACTERS // 2:
        return False
    try:
        return _layout(lines[0], lines[1]) is not None
    except (csv.Error, StopIteration):
        return False


def _opened(path: Path) -> IO[str]:
    return path.open(encoding="utf-8-sig", newline="")


def _cells(line: str) -> list[str]:
    csv.field_size_limit(_LONGEST_CELL)
    return [cell.strip() for cell in next(csv.reader([line.rstrip("\r\n")]))]


def _layout(first: str, second: str) -> dict[str, Any] | None:
    """Find where label, split and pixels are; None where the lines hold no pixels."""
    cells, body = _cells(first), _cells(second)
    keys = [key_of(cell) for cell in cells]
    if "pixels" in keys:
        at = keys.index("pixels")
        if len(body) == len(cells) and _shape(len(body[at].split())) is not None:
            if all(one.isdigit() for one in body[at].split()):
                others = [one for one in range(len(cells)) if one != at]
                return {"column": at, "keys": keys, "header": True, "named": True,
                        "others": others, **_roles(keys, others)}  # fmt: skip
        return None
    if len(cells) <= _FEWEST or len(body) != len(cells):
        return None
    numeric = sum(bool(re.fullmatch(r"-?\d+(\.\d+)?", cell)) for cell in body)
    if numeric < len(body) - 2:
        return None
    header = not all(map(_is_number, cells)) or cells[1:4] == ["0.1", "0.2", "0.3"]
    if header and not all(map(_is_number, cells)):
        pixels = [at for at, cell in enumerate(cells) if _PIXEL.fullmatch(cell.casefold())]
        others = [at for at in range(len(cells)) if at not in set(pixels)]
        if _shape(len(pixels)) is None or len(others) > 3:
            return None
        plain = all(cells[at].isdigit() for at in pixels)  # columns of anything may be numbered
        if plain and not all(_is_pixel(body[at]) and body[at].isdigit() for at in pixels):
            return None
        return {"pixels": pixels, "keys": keys, "header": True, "named": True, "others": others,
                **_roles(keys, others)}  # fmt: skip
    if _shape(len(cells)) is not None and _shape(len(cells) - 1) is None:
        return None  # pixels without labels and without names: nothing says that they are pixels
    if _shape(len(cells) - 1) is None or not all(map(_is_pixel, body)):
        return None
    return {"keys": keys, "header": header, "named": False, "split": -1}


def _is_number(cell: str) -> bool:
    return bool(re.fullmatch(r"-?\d+(\.\d+)?", cell))


def _is_pixel(cell: str) -> bool:
    return _is_number(cell) and 0 <= float(cell) <= 255


def _roles(keys: list[str], free: list[int]) -> dict[str, int]:
    split = next((at for at in free if keys[at] in ("usage", "split", "set")), -1)
    ranked = sorted(
        (LABELS.index(keys[at]), at) for at in free if keys[at] in LABELS and at != split
    )
    label = ranked[0][1] if ranked else -1
    rest = [at for at in free if at != split]
    if label < 0 and len(rest) == 1:
        (label,) = rest
    return {"label": label, "split": split}


def _shape(n: int) -> tuple[int, ...] | None:
    """Give the shape of a square picture of `n` numbers; None where there is none."""
    if n < _FEWEST:
        return None
    side = math.isqrt(n)
    if side * side == n:
        return (side, side)
    side = math.isqrt(n // 3)
    return (side, side, 3) if side * side * 3 == n else None


@dataclass
class Pixels:
    """The pictures of one table.

    Attributes
    ----------
    pictures : array of shape (N, H, W) or (N, H, W, 3)
        As stored.
    columns : dict of str to list of str
        All other columns, by their names in lower case.
    label : str
        The column of labels; empty where which it is, is not certain.
    split : list of str
        The split of each row, empty for none.
    """

    pictures: NDArray[Any]
    columns: dict[str, list[str]]
    label: str
    split: list[str]


def read_pixels(path: Path, notes: list[str]) -> Pixels:
    """Read a table of pixels.

    Raises
    ------
    Problem
        Rows of other lengths, words of splits that are not known, or no names of columns and
        nothing that tells the labels from the pixels.
    """
    with _opened(path) as stream:
        first = stream.readline()
        second = stream.readline()
        layout = _layout(first, second)
        assert layout is not None
        if not layout["named"]:
            layout |= _by_ends(path, len(layout["keys"]), skip=layout["header"])
        lines = itertools.chain([] if layout["header"] else [first], [second], stream)
        rows = list(_rows(lines, layout, path))
    values = np.array([row[0] for row in rows])
    shape = _shape(values.shape[1])
    assert shape is not None
    pictures, how = _pictures(values, shape)
    size = " x ".join(map(str, pictures.shape[1:]))
    notes.append(f"{path.name}: a row of pixels is a picture of {size}{how}.")
    split_at, label_at = layout["split"], layout["label"]
    names = {at: layout["keys"][at] or f"column{at + 1}" if layout["named"] else f"column{at + 1}"
             for at in layout["others"]}  # fmt: skip
    columns = {
        name: [_label(row[1][number]) for row in rows]
        for number, (at, name) in enumerate(names.items())
        if at != split_at
    }
    splits = [_split(row[1][layout["others"].index(split_at)]) for row in rows] if (
        split_at >= 0) else [""] * len(rows)  # fmt: skip
    return Pixels(pictures, columns, names.get(label_at, ""), splits)


def _by_ends(path: Path, n_columns: int, *, skip: bool) -> dict[str, Any]:
    """Tell whether the first or the last column has the labels, of columns without names.

    MNIST's tables begin with them, UCI's end with them. Labels are not all the same, and they
    repeat more often than pixels do, or differ more from the next column than a pixel does.
    """
    at = [0, 1, n_columns - 2, n_columns - 1]
    with _opened(path) as stream:
        lines = (line for line in itertools.islice(stream, int(skip), None) if line.strip())
        try:
            cells = np.array([[float(row[i]) for i in at] for row in map(_cells, lines)])
        except (ValueError, IndexError, csv.Error) as error:
            raise Problem(
                f"{path.name} has lines that are not like the first one",
                "numbers from 0 to 255 in every column of pixels",
                "correct them, or remove them",
            ) from error
    counts = [len(np.unique(cells[:, end])) for end in (0, 3)]
    jumps = [float(np.abs(cells[:, end] - cells[:, by]).mean()) for end, by in ((0, 1), (3, 2))]
    for one, other in ((0, 1), (1, 0)):
        alone = counts[other] == 1
        repeats = counts[one] * _CLEARER <= counts[other]
        differs = counts[one] < counts[other] and jumps[one] > _CLEARER * jumps[other]
        if counts[one] > 1 and (alone or repeats or differs):
            label = at[3 * one]
            pixels = [i for i in range(n_columns) if i != label]
            return {"pixels": pixels, "others": [label], "label": label}
    raise Problem(
        f"{path.name} has no names of columns, and its first column ({counts[0]:,} different "
        f"values) or its last one ({counts[1]:,}) may be the labels",
        "a first line that names them: label,pixel0,pixel1,... or pixel0,pixel1,...,label",
        "add that line",
    )


def _rows(
    lines: Iterator[str], layout: dict[str, Any], path: Path
) -> Iterator[tuple[NDArray[Any], list[str]]]:
    n_pixels = -1
    for number, line in enumerate(lines, start=1 + layout["header"]):
        if not line.strip():
            continue
        try:
            cells = _cells(line)
            if "column" in layout:
                pixels = np.array(cells[layout["column"]].split(), np.float32)
            else:
                pixels = np.array([cells[at] for at in layout["pixels"]], np.float32)
            others = [cells[at] for at in layout["others"]]
        except (ValueError, IndexError, csv.Error) as error:
            raise Problem(
                f"{path.name}, line {number}, is not like the first ones",
                "numbers from 0 to 255 in every column of pixels",
                "correct that line, or remove it",
            ) from error
        if n_pixels not in (-1, len(pixels)):
            raise Problem(
                f"{path.name}, line {number}, has {len(pixels):,} pixels; the first has "
                f"{n_pixels:,}",
                "pictures of one size",
                "correct that line, or remove it",
            )
        n_pixels = len(pixels)
        whole = pixels.astype(np.uint8)
        yield (whole if np.array_equal(whole, pixels) else pixels), others


def _split(word: str) -> str:
    plain = re.sub(r"[\W_]", "", word.casefold())
    if plain in _USAGE:
        return _USAGE[plain]
    found = split_of(word)
    if found is None:
        raise Problem(
            f"the split {word[:40]!r} is not known", "train, val or test", "correct that column"
        )
    return ("train", "val", "test")[found]


def _label(cell: str) -> str:
    return cell[:-2] if re.fullmatch(r"-?\d+\.0", cell) else cell


def _pictures(values: NDArray[Any], shape: tuple[int, ...]) -> tuple[NDArray[Any], str]:
    """Bring rows to pictures; colours are pixel by pixel or plane by plane, as is smoother."""
    if len(shape) == 2:
        return values.reshape(-1, *shape), ""
    pixelwise = values.reshape(-1, *shape)
    planar = values.reshape(-1, 3, *shape[:2]).transpose(0, 2, 3, 1)
    rough = [float(np.abs(np.diff(one[:200].astype(float), axis=2)).mean())
             for one in (pixelwise, planar)]  # fmt: skip
    if rough[1] < rough[0]:
        return planar, " (red, then green, then blue)"
    return pixelwise, " (red, green and blue of each pixel)"
