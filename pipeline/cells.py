"""Cells of CSV that no spreadsheet takes for a formula, and that are read back exactly.

Every CSV of the pipeline is written here. A spreadsheet evaluates a cell that begins with ``=``,
``+``, ``-`` or ``@``, some of them after blanks, and file and class names may be a stranger's. Such
a path gets ``./`` in front, which is the same file; any other such text gets ``'``. Numbers
stay as they are. A text that looks like a marked one already is marked once more, so that taking
one mark away always gives what was written.

See https://owasp.org/www-community/attacks/CSV_Injection
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Iterable, Sequence

_TEXT, _PATH = "'", "./"
# Blanks and control characters too: some programs drop them before they look for a formula.
_START = "[\\s\x00-\x1f=+\\-@\uff1d\uff0b\uff0d\uff20]"
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?")
_UNSAFE = {mark: re.compile(f"({re.escape(mark)})*{_START}") for mark in (_TEXT, _PATH)}
_MARKED = {mark: re.compile(f"({re.escape(mark)})+{_START}") for mark in (_TEXT, _PATH)}


def safe(text: str) -> str:
    """Mark a text that a spreadsheet would take for a formula; :func:`plain` takes the mark away.

    Examples
    --------
    >>> [safe(one) for one in ("cat", "=1+1", "-1.5", "'=1")]
    ['cat', "'=1+1", '-1.5', "''=1"]
    """
    return _marked(text, _TEXT)


def plain(text: str) -> str:
    """Give the text that :func:`safe` was given; a text without a mark stays as it is."""
    return text[len(_TEXT) :] if _MARKED[_TEXT].match(text) else text


def safe_path(path: str) -> str:
    """Mark a path that a spreadsheet would take for a formula; it still names the same file."""
    return _marked(path, _PATH)


def plain_path(path: str) -> str:
    """Give the path that :func:`safe_path` was given."""
    return path[len(_PATH) :] if _MARKED[_PATH].match(path) else path


def _marked(text: str, mark: str) -> str:
    if not _UNSAFE[mark].match(text) or _NUMBER.fullmatch(text):
        return text
    return mark + text


def csv_bytes(rows: Iterable[Sequence[str]], *, paths: Collection[int] = ()) -> bytes:
    """Spell rows as CSV (RFC 4180, UTF-8), every cell marked where it has to be.

    Parameters
    ----------
    rows : iterable of sequence of str
        Cells as they are, not marked.
    paths : collection of int
        Columns of paths, counted from 0.

    Returns
    -------
    bytes
        Names of files that are not UTF-8 keep their bytes.
    """
    stream = io.StringIO(newline="")
    writer = csv.writer(stream)
    for row in rows:
        writer.writerow(
            [safe_path(cell) if at in paths else safe(cell) for at, cell in enumerate(row)]
        )
    try:
        return stream.getvalue().encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half a character, as JSON may have it in a class's name
        return stream.getvalue().encode("utf-8", "backslashreplace")


def csv_rows(data: bytes, *, paths: Collection[int] = ()) -> list[list[str]]:
    """Read what :func:`csv_bytes` wrote.

    Raises
    ------
    ValueError
        It is no CSV in UTF-8.
    """
    try:
        rows = csv.reader(io.StringIO(data.decode("utf-8", "surrogateescape"), newline=""))
        return [
            [plain_path(cell) if at in paths else plain(cell) for at, cell in enumerate(row)]
            for row in rows
        ]
    except csv.Error as error:
        raise ValueError(str(error)) from error
