"""Text files of tables and lists: decoded by evidence, cut into rows, within limits."""

from __future__ import annotations

import codecs
import csv
import io
import os
import re
import stat
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from ..errors import DataError
from ..notation import size
from .formats import HEAD_BYTES, pointer, recognise

MAX_BYTES = 512 << 20
MAX_CELL = 4096  # characters of a cell that is kept; longer ones are dropped with their column
_MAX_COLUMNS = 20_000
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
_SEPARATOR = re.compile(r'"?sep=([,;|\t])"?\s*', re.IGNORECASE)
_IMAGE = re.compile(r"(?i)\.(jpe?g|png|tiff?|bmp|gif|webp|dcm|heic)\b")
_ASIAN = ("gb18030", "shift_jis", "big5", "euc_kr")


@dataclass
class Sheet:
    """A table as it stands: rows of trimmed cells.

    Attributes
    ----------
    rows : list of list of str
        All of one length but for those in `ragged`.
    lines : list of int
        The line that each row ends on.
    delimiter : str
        What separates cells.
    encoding : str
        What it was decoded from; empty for UTF-8.
    joiner : str
        What joins several labels in one cell, where that is known.
    """

    rows: list[list[str]]
    lines: list[int]
    delimiter: str
    encoding: str
    joiner: str = ""


def read_bytes(path: Path) -> bytes:
    """Read a regular file of at most ``MAX_BYTES``.

    Raises
    ------
    DataError
        No regular file (a pipe, a device), too large, or not readable.
    """
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        raise _unreadable(path, error) from error
    with os.fdopen(handle, "rb") as stream:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise DataError(
                f"{path} is not a regular file (a pipe or a device).",
                expected="a table or a list file",
                todo="remove it, or write its content to a file",
            )
        if status.st_size > MAX_BYTES:
            raise DataError(
                f"{path} has {size(status.st_size)}.",
                expected=f"a table of at most {size(MAX_BYTES)}",
                todo="keep the columns of path, label and split only",
            )
        try:
            return stream.read(MAX_BYTES + 1)
        except OSError as error:
            raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(
        f"{str(path)[:300]} cannot be read ({error.strerror}).",
        expected="a readable file",
        todo="correct its permissions or its name",
    )


def read_text(path: Path) -> tuple[str, str]:
    """Give the text of a file and its encoding, empty for UTF-8.

    Raises
    ------
    DataError
        It cannot be read, or is no text.
    """
    data = read_bytes(path)
    for mark, name in _BOMS:
        if data.startswith(mark):
            text = data.decode(name, "replace")
            return text.removeprefix("\ufeff"), "" if name == "utf-8-sig" else name
    head = data[:4096]
    is_page = recognise(head[:HEAD_BYTES]) == "an HTML page"
    if what := pointer(data) or ("a web page" if is_page else ""):
        raise DataError(
            f"{path} is not a table but {what}.",
            expected="a table or a list",
            todo="fetch the file again, as git lfs pull or its own page gives it",
        )
    if head.count(0) * 3 >= len(head) > 1:  # UTF-16 without a mark
        name = "utf-16-le" if head[1:2] == b"\0" else "utf-16-be"
        return data.decode(name, "replace"), name
    if b"\0" in head:
        raise DataError(
            f"{path} is no text file.",
            expected="a table or a list in UTF-8",
            todo="export it as CSV in UTF-8",
        )
    try:
        return data.decode("utf-8"), ""
    except UnicodeDecodeError:
        name = best_encoding([data[:1_000_000]])
    return data.decode(name, "replace"), name


def best_encoding(texts: Iterable[bytes]) -> str:
    """Name the encoding that bytes which are no UTF-8 are most likely in.

    Names in Chinese, Japanese or Korean come in runs of two bytes with the high bit; single ones
    among ASCII letters are European.
    """
    texts = list(texts)
    runs: list[bytes] = []
    for text in texts:
        run = bytearray()
        follows = False
        for byte in text:
            if byte >= 0x80 or (follows and byte >= 0x40):
                run.append(byte)
                follows = byte >= 0x80 and not follows
            else:
                if run:
                    runs.append(bytes(run))
                run, follows = bytearray(), False
        if run:
            runs.append(bytes(run))
    paired = sum(len(run) >= 4 and len(run) % 2 == 0 for run in runs)
    if runs and paired * 2 > len(runs):
        scores = {name: _asian(runs, name) for name in _ASIAN}
        best = max(_ASIAN, key=lambda name: scores[name])
        pairs = {run[at : at + 2] for run in runs for at in range(0, len(run), 2)}
        # Hangul have lead bytes B0 to C8, common Chinese characters B0 to D7: five different ones
        # that all fall into the first range are ten times as likely to be Korean.
        if scores["euc_kr"] == 1.0 and len(pairs) >= 5:
            best = "euc_kr"
        if scores[best] > 0.6:
            return best
    high = Counter(byte for text in texts for byte in text if byte >= 0x80)
    # Letters of western languages are at 0xC0 and above in cp1252, at 0x80 to 0xA5 in cp437.
    upper = sum(count for byte, count in high.items() if byte >= 0xC0)
    lower = sum(count for byte, count in high.items() if 0x80 <= byte <= 0xA5)
    return "cp437" if lower > upper else "cp1252"


def _asian(runs: list[bytes], name: str) -> float:
    """Share of characters that are common ones where all runs are decoded as `name`."""
    common = total = 0
    for run in runs[:2000]:
        try:
            text = run.decode(name)
        except UnicodeDecodeError:
            return 0.0
        for char in text:
            total += 1
            code = ord(char)
            if name == "gb18030" and 0x4E00 <= code <= 0x9FFF:
                lead = char.encode("gb18030")[0]
                common += 0xB0 <= lead <= 0xD7  # the 3,755 characters of level 1
            elif name == "gb18030":
                common += 0
            elif name == "big5" and 0x4E00 <= code <= 0x9FFF:
                common += 0xA4 <= char.encode("big5", "replace")[0] <= 0xC6
            elif name == "shift_jis":
                common += 0x3040 <= code <= 0x30FF or 0x4E00 <= code <= 0x9FFF
            elif name == "euc_kr":
                common += 0xAC00 <= code <= 0xD7A3
    share = common / total if total else 0.0
    return share * (0.95 if name == "shift_jis" else 1.0)


def read_sheet(path: Path) -> Sheet:
    """Read a table: any delimiter, line ending and encoding; comments and empty lines left out.

    Raises
    ------
    DataError
        It cannot be read, or not as a table.
    """
    text, encoding = read_text(path)
    stream = io.StringIO(text, newline="")  # a line feed inside quotes stays what it is
    lines = [line.rstrip("\r\n") for line in islice(stream, 200)] or [""]
    said = _SEPARATOR.fullmatch(lines[0])  # a line that spreadsheets write for spreadsheets
    start = int(bool(said))
    while start < len(lines) - 1 and (not lines[start].strip() or _is_comment(lines[start], lines)):
        start += 1
    sample = [line for line in lines[start:] if line.strip()][:100]
    delimiter = said[1] if said else _delimiter(sample)
    quote = "'" if sample and sample[0].startswith("'") else '"'
    rows, numbers = [], []
    stream.seek(0)
    reader = csv.reader(islice(stream, start, None), delimiter=delimiter, quotechar=quote)
    try:
        for cells in reader:
            trimmed = [cell.strip() for cell in cells]
            if not any(trimmed):
                continue
            if len(trimmed) > _MAX_COLUMNS:
                raise DataError(
                    f"{path}, line {reader.line_num + start}, has {len(trimmed):,} cells.",
                    expected=f"at most {_MAX_COLUMNS:,} columns",
                    todo="keep the columns of path, label and split only",
                )
            rows.append(trimmed)
            numbers.append(reader.line_num + start)
    except csv.Error as error:
        raise DataError(
            f"{path}, line {reader.line_num + start}: {error}.",
            expected="a table: cells of at most 131,072 characters, quotes in pairs",
            todo="correct that line, or keep the columns of path, label and split only",
        ) from error
    n_titles = _titles(rows)
    rows, numbers = rows[n_titles:], numbers[n_titles:]
    _check_quotes(path, rows, numbers, delimiter)
    return Sheet(rows, numbers, delimiter, encoding)


def _titles(rows: list[list[str]]) -> int:
    """Count the lines above the header that hold one cell, as reports have them."""
    filled = [sum(map(bool, row)) for row in rows[:200]]
    usual = Counter(filled).most_common(1)[0][0] if filled else 0
    count = 0
    while usual >= 2 and count < min(10, len(filled) - 2) and filled[count] == 1:
        count += 1
    return count


def _check_quotes(path: Path, rows: list[list[str]], numbers: list[int], delimiter: str) -> None:
    """Refuse a quote that was never closed: the lines up to the next one would be one cell."""
    for row, line in zip(rows, numbers, strict=True):
        for cell in row:
            inner = cell.split("\n")[1:]
            if not inner:
                continue
            like = sum(delimiter in one and bool(_IMAGE.search(one)) for one in inner)
            if like >= 2 and like * 2 >= len(inner):
                raise DataError(
                    f"{path}: a quote is opened in line {line - len(inner)} and closed in line "
                    f"{line}: {like} rows between them would be lost in one cell.",
                    expected="quotes in pairs",
                    todo="correct that line",
                )


def _is_comment(line: str, lines: list[str]) -> bool:
    """Tell whether a line that begins with ``#`` is a remark and not a header."""
    if not line.startswith("#"):
        return False
    others = [one for one in lines[1:20] if one.strip() and not one.startswith("#")]
    usual = Counter(one.count(_delimiter([one])) for one in others).most_common(1)
    return not usual or line.count(_delimiter(others)) != usual[0][0]


def _delimiter(sample: list[str]) -> str:
    """Give the delimiter that cuts the lines into the same number of cells, most cells first."""
    best, most = ",", (0.0, 0)
    for delimiter in ",;\t|":
        counts = []
        for line in sample:
            try:
                row = next(csv.reader([line], delimiter=delimiter), [])
            except csv.Error:
                row = []
            counts.append(len(row))
        usual, often = Counter(counts).most_common(1)[0] if counts else (1, 0)
        if usual < 2:
            continue
        score = (often / len(counts), usual)
        if score > most:
            best, most = delimiter, score
    return best
