"""What every reader of a published form gives: one table, its columns, the files it came from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from ...errors import DataError
from ...settings import DataSettings
from ..columns import Roles, asked_column
from ..phrases import few
from ..texts import Sheet, read_bytes, read_text
from ..tree import Node

_DEEPEST = 4
MOST_XML_BYTES = 64 << 20


@dataclass
class Form:
    """A table that was joined from files of known names.

    Attributes
    ----------
    source : Path
        The file that names the labels.
    sheet, roles
        The table and its columns.
    files : list of str
        Names of all files that it was joined from.
    """

    source: Path
    sheet: Sheet
    roles: Roles
    files: list[str]


def form_of(
    source: Path,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    files: Sequence[str],
    ask: DataSettings,
    *,
    name: str,
    label: int = 1,
) -> Form:
    """Make a form of rows: the file first, the class in column `label`, the split in ``split``.

    Parameters
    ----------
    source : Path
        The file that names the labels.
    header : sequence of str
        Names of the columns.
    rows : sequence of sequence of str
        Several labels of one image are joined by ``Sheet.joiner``.
    files : sequence of str
        Names of all files that were joined.
    name : str
        What the set was taken for.
    label : int
        -1 where the user is to say which column it is.
    """
    if "split" in header and not any(row[list(header).index("split")] for row in rows):
        at = list(header).index("split")
        header = [*header[:at], *header[at + 1 :]]
        rows = [[*row[:at], *row[at + 1 :]] for row in rows]
    names = [one.casefold() for one in header]
    roles = Roles(names, 1, path=0, label=label, share=1.0)
    if "split" in names:
        roles.split = names.index("split")
        roles.words = {"train": 0, "val": 1, "test": 2}
    if ask.label_column:
        roles.label = asked_column(ask.label_column, roles)
    elif label < 0:
        roles.candidates = [at for at in range(1, len(names)) if at != roles.split]
    roles.form = f"{name}, from {few(list(files), 6)}"
    cells = [list(header), *(list(row) for row in rows)]
    sheet = Sheet(cells, list(range(len(cells))), "", "", joiner="\x1f")
    return Form(source, sheet, roles, list(files))


def texts_named(node: Node, names: Sequence[str]) -> Iterator[tuple[Node, dict[str, Path]]]:
    """Give each folder, a few levels down, that holds texts of these names, whatever the case."""
    for one in node.walk():
        if one.rel[len(node.rel) :].strip("/").count("/") >= _DEEPEST or not one.texts:
            continue
        held = {text.casefold(): text for text in one.texts}
        found = {name: Path(one.path) / held[name] for name in names if name in held}
        if found:
            yield one, found


def lines_of(path: Path) -> list[str]:
    """Give the lines of a text that are not empty, without blanks around them.

    Raises
    ------
    DataError
        It cannot be read, or is no text.
    """
    return [line.strip() for line in read_text(path)[0].splitlines() if line.strip()]


def texts_of(node: Node, suffix: str) -> Iterator[tuple[str, str, Path]]:
    """Give each text of a suffix: its folder from `node`, its name without suffix, its path."""
    for one in node.walk():
        for name in one.texts:
            if name.lower().endswith(suffix):
                folder = one.rel[len(node.rel) :].strip("/")
                yield folder, name[: -len(suffix)], Path(one.path) / name


def xml_of(path: Path) -> ElementTree.Element | None:
    """Give the root of an XML file; None where it is none, or too large.

    Names that stand for other text (entities) are refused: a stranger's may have no end.
    """
    try:
        data = read_bytes(path)
        plain = data.replace(b"\0", b"")  # of UTF-16 too
        if len(data) > MOST_XML_BYTES or b"<!ENTITY" in plain or b"<!DOCTYPE" in plain:
            return None
        return ElementTree.fromstring(data)
    except (DataError, ElementTree.ParseError, ValueError):
        return None


def pairs_of(path: Path) -> dict[str, str]:
    """Give the first word of each line, and the rest: ``7 001.Albatross/a.jpg``.

    Raises
    ------
    DataError
        It cannot be read, or is no text.
    """
    pairs = (line.split(maxsplit=1) for line in lines_of(path))
    return {pair[0]: pair[1].strip() for pair in pairs if len(pair) == 2}
