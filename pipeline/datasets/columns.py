"""The columns of a table: which names the files, which the class, which the split.

A column of files is known by what it holds (names of images that are there), a column of classes
by its usual names. Where two columns would do, the user is asked.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..errors import DataError
from ..settings import DataSettings
from .phrases import few, quoted
from .resolve import Index
from .split_words import TEST, TRAIN, VAL, split_of, splits_of
from .texts import Sheet
from .words import LABELS, PATHS, SPLIT_COLUMNS, key_of

_SAMPLE = 500
_MOST_PARTS = 6
_FOLDERS = frozenset("folder dir directory subdir subfolder ordner dossier carpeta".split())
TRUE = {"true", "1", "1.0", "yes", "t", "y"}
_FALSE = {"false", "0", "0.0", "no", "f", "n", ""}
_NOT = _FALSE | {"-1", "-1.0"}  # of a column for one class


@dataclass
class Roles:
    """What the columns of a table are.

    Attributes
    ----------
    header : list of str
        Names of the columns, in lower case; ``column1`` and so on where there is no header.
    start : int
        First row of data.
    path, label, split : int
        Columns; -1 for none.
    flags : dict of int to int
        Columns of yes and no that say whether a row is of a split: column → split.
    one_hot : list of int
        One column per class.
    explicit : bool
        Whether the header has the very names path and label.
    share : float
        Share of the rows (0 to 1) whose file is there.
    notes : list of str
        What was taken for what.
    form : str
        What a set of known files was taken for; empty for a table of its own.
    """

    header: list[str]
    start: int
    path: int = -1
    label: int = -1
    split: int = -1
    flags: dict[int, int] = field(default_factory=dict)
    one_hot: list[int] = field(default_factory=list)
    explicit: bool = False
    share: float = 0.0
    candidates: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    form: str = ""
    words: dict[str, int | None] = field(default_factory=dict)
    n_ambiguous: int = 0
    by_number: bool = False

    @property
    def labelled(self) -> bool:
        """Whether it is certain where the labels are."""
        return self.label >= 0 or bool(self.one_hot)


def roles_of(sheet: Sheet, index: Index, ask: DataSettings) -> Roles:
    """Find the columns of files, labels and splits; those that are not found are -1."""
    rows = sheet.rows
    width = Counter(len(row) for row in rows).most_common(1)[0][0] if rows else 0
    first = rows[0] if rows else []
    named = {key_of(cell) for cell in first}
    has_header = bool(named & {*PATHS, *LABELS, *SPLIT_COLUMNS}) or not any(
        index.find(cell) for cell in first
    )
    if has_header:
        header = [cell.casefold() for cell in first]
    else:
        header = [f"column{number + 1}" for number in range(width)]
    roles = Roles([name or f"column{at + 1}" for at, name in enumerate(header)], int(has_header))
    keys = [key_of(name) for name in (first if has_header else roles.header)]
    body = [row for row in rows[roles.start :] if len(row) == len(header)]
    step = max(1, len(body) // _SAMPLE)
    sample = body[::step][: 2 * _SAMPLE]
    if has_header and {"path", "label"} <= set(keys):
        roles.explicit = True
        roles.path, roles.label = keys.index("path"), keys.index("label")
    if not sample:
        return roles
    wanted_path = asked_column(ask.path_column, roles) if ask.path_column else None
    index.by_number = False
    path, roles.share = _path_column(sample, keys, index, wanted_path)
    if not roles.share and not index.n_ambiguous:
        index.by_number = True  # of columns that are called after files, and nothing else fits
        usual = [at for at, key in enumerate(keys) if key in PATHS and at != wanted_path]
        for at in [wanted_path] if wanted_path is not None else usual:
            path, roles.share = _path_column(sample, keys, index, at)
            if roles.share:
                break
        roles.by_number = index.by_number = bool(roles.share)
    if roles.explicit and not ask.path_column and path not in (-1, roles.path):
        if roles.share > 0.5 and not any(index.find(row[roles.path]) for row in sample[:50]):
            raise DataError(
                f"The column {roles.header[path]!r} names images that are there, and the column "
                f"{roles.header[roles.path]!r} does not.",
                expected="file names in the column path, classes in the column label",
                todo=f"correct the first line, or add PATH_COLUMN={path + 1} "
                f"LABEL_COLUMN={roles.path + 1}",
            )
    if not roles.explicit or ask.path_column:
        roles.path = path
    roles.n_ambiguous, index.n_ambiguous = index.n_ambiguous, 0
    if roles.share < 0.5 and not roles.explicit and not ask.path_column:
        _folder_and_file(body, keys, index, roles)
    if roles.path < 0:
        return roles
    _split_columns(body, keys, roles, ask.split_column)
    if ask.label_column:
        roles.label = asked_column(ask.label_column, roles)
        return roles
    _label_columns(body, keys, roles)
    return roles


def asked_column(wanted: str, roles: Roles, setting: str = "LABEL_COLUMN or PATH_COLUMN") -> int:
    """Give the column that the user named, or numbered from 1.

    Raises
    ------
    DataError
        There is none of that name.
    """
    keys = [key_of(name) for name in roles.header]
    if wanted.casefold() in roles.header:
        return roles.header.index(wanted.casefold())
    if key_of(wanted) in keys:
        return keys.index(key_of(wanted))
    if wanted.isdigit() and 1 <= int(wanted) <= len(roles.header):
        return int(wanted) - 1
    raise DataError(
        f"There is no column {wanted!r}; there are {few(roles.header, 12)}.",
        expected="the name of a column, or its number from 1",
        todo=f"correct {setting}",
    )


def _path_column(
    sample: Sequence[Sequence[str]], keys: list[str], index: Index, wanted: int | None
) -> tuple[int, float]:
    """Column whose cells are names of images that are there, and the share of those that are."""
    best, most = -1, (0.0, 0)
    for at, key in enumerate(keys):
        if wanted is not None and at != wanted:
            continue
        cells = [row[at] for row in sample]
        rank = len(PATHS) - PATHS.index(key) if key in PATHS else 0
        if len(set(cells)) * 2 < len(cells) and not rank:
            continue  # names of files hardly repeat
        share = sum(index.find(cell) is not None for cell in cells) / len(cells)
        if share and (share, rank) > most:
            best, most = at, (share, rank)
    return best, most[0]


def _folder_and_file(
    body: Sequence[list[str]], keys: list[str], index: Index, roles: Roles
) -> None:
    """Join a column of folders and one of files where together they name images that are there."""
    files = [at for at, key in enumerate(keys) if key in PATHS]
    folders = [at for at, key in enumerate(keys) if set(key.split("_")) & _FOLDERS]
    some = body[:: max(1, len(body) // 100)]
    for at in folders:
        for other in files:
            if at == other:
                continue
            found = sum(index.find(f"{row[at]}/{row[other]}") is not None for row in some)
            index.n_ambiguous = 0
            if found * 2 > len(some):
                for row in body:
                    row[other] = f"{row[at]}/{row[other]}"
                roles.path, roles.share, roles.n_ambiguous = other, found / len(some), 0
                roles.notes.append(f"folders from the column {roles.header[at]}")
                return


def _split_columns(
    body: Sequence[Sequence[str]], keys: list[str], roles: Roles, wanted: str
) -> None:
    if wanted:
        _asked_split(body, roles, wanted)
        return
    known: dict[str, int | None] = {}
    for at, key in enumerate(keys):
        if at == roles.path:
            continue
        cells = {row[at].casefold() for row in body}
        if key == "split":
            roles.split = at
        elif roles.split < 0 and all(split_of(cell) is not None for cell in cells):
            if key in SPLIT_COLUMNS or key == "dataset" or roles.start == 0 or len(cells) > 1:
                roles.split = at
                roles.notes.append(f"splits from the column {roles.header[at]}")
        elif (flag := _flag(key)) is not None and cells <= TRUE | _FALSE and len(cells) > 1:
            roles.flags[at] = flag
        elif (
            roles.split < 0
            and key in SPLIT_COLUMNS
            and key != "fold"
            and (
                _are_parts(cells)
                or (len(cells) <= 6 and any(split_of(cell) is not None for cell in cells))
            )
        ):
            roles.split = at
            count = Counter(row[at].removesuffix(".0") for row in body)
            if (
                key == "partition"
                and set(count) == {"0", "1", "2"}
                and count["0"] == max(count.values())
            ):
                numbers = dict(zip("012", (TRAIN, VAL, TEST), strict=True))
                known = {row[at]: numbers[row[at].removesuffix(".0")] for row in body}
                roles.notes.append(
                    f"splits from the column {roles.header[at]} (0 train, 1 val, 2 test, as CelebA "
                    "has them)"
                )
        elif key in SPLIT_COLUMNS and len(cells) > 1:
            one = next((cell for cell in sorted(cells) if cell), "")
            setting = quoted(f"SPLIT_COLUMN={roles.header[at]}:test={one}")
            roles.notes.append(
                f"the column {roles.header[at]} looks like a split or folds, with words that are "
                f"not known ({few(sorted(cells), 4)}), and is not used; to test on one of them: "
                f"{setting}"
            )
    if roles.split >= 0:
        roles.flags = {}
        roles.words = known or splits_of({row[roles.split] for row in body})
    for at in roles.flags:
        roles.notes.append(f"splits from the column {roles.header[at]}")


def _are_parts(cells: set[str]) -> bool:
    """Tell whether cells seem to be parts of a set: two or three numbers, or some known words."""
    values = {cell.removesuffix(".0") for cell in cells}
    if len(values) in (2, 3) and values <= {"0", "1", "2", "3"}:
        return True
    return len(values) <= _MOST_PARTS and any(split_of(cell) is not None for cell in cells)


def _asked_split(body: Sequence[Sequence[str]], roles: Roles, wanted: str) -> None:
    """Use the column of the splits that the user named, with the meaning of its words."""
    name, _, words = wanted.partition(":")
    if name.casefold() == "none":
        return
    roles.split = asked_column(name, roles, "SPLIT_COLUMN")
    values = {row[roles.split] for row in body}
    roles.words = splits_of(values)
    roles.notes.append(f"splits from the column {roles.header[roles.split]}")
    if not words:
        return
    meant: dict[str, int] = {}
    for part in words.split(","):
        left, equals, right = (one.strip() for one in part.partition("="))
        split = split_of(left)
        if not equals or split is None:
            raise DataError(
                f"SPLIT_COLUMN={wanted}: {part!r} is not known.",
                expected="a column, and what its words mean: NAME:train=0,val=1,test=2",
                todo="correct SPLIT_COLUMN",
            )
        meant[right.casefold()] = split
    plain = {value: value.casefold() for value in values}
    plain = {value: one if one in meant else one.removesuffix(".0") for value, one in plain.items()}
    rest = TRAIN if TRAIN not in meant.values() else None
    usual = roles.words
    roles.words = {
        value: meant.get(one, rest if usual[value] is None else usual[value])
        for value, one in plain.items()
    }
    strange = sorted(set(meant) - set(plain.values()))
    if strange:
        raise DataError(
            f"SPLIT_COLUMN={wanted}: the column {name} has no {strange[0]!r}; it has "
            f"{few(sorted(values), 6)}.",
            expected="words of that column",
            todo="correct SPLIT_COLUMN",
        )
    roles.notes[-1] += f" ({words})"


def _is_flag(cells: set[str]) -> bool:
    return len(cells) == 2 and bool(cells & TRUE) and cells <= TRUE | _NOT


def _flag(key: str) -> int | None:
    """Give the split that a column of yes and no is for: ``is_valid``, ``in_train``."""
    words = [one for one in key.split("_") if one not in ("is", "in", "for", "set", "flag", "use")]
    return split_of(words[0]) if len(words) == 1 else None


def _label_columns(body: Sequence[Sequence[str]], keys: list[str], roles: Roles) -> None:
    free = [at for at in range(len(keys)) if at not in (roles.path, roles.split, *roles.flags)]
    ranked = sorted((LABELS.index(keys[at]), at) for at in free if keys[at] in LABELS)
    if ranked:
        telling = [at for _, at in ranked if len({row[at] for row in body}) > 1] or [ranked[0][1]]
        if keys[telling[0]] == "label" or len(telling) == 1:
            roles.label = telling[0]
            others = [roles.header[at] for at in telling[1:]]
        else:
            same = [at for at in telling[1:] if _equivalent(body, telling[0], at)]
            if len(same) == len(telling) - 1:  # numbers and names of the same classes
                words = [at for at in telling if not all(_number(row[at]) for row in body)]
                roles.label = (words or telling)[0]
                others = []
            else:
                roles.candidates = telling
                return
        if others:
            roles.notes.append(f"other columns that could be labels: {few(others)}")
        return
    flags = [at for at in free if {row[at] for row in body} <= {"0", "1", "0.0", "1.0"}]
    if len(flags) >= 2:
        sums = [sum(float(row[at]) for at in flags) for row in body]
        if sum(one == 1 for one in sums) * 2 >= len(sums) or len(flags) >= 3:
            roles.one_hot = flags
            return
    flags = [at for at in free if _is_flag({row[at].casefold() for row in body})]
    ones = [sum(row[at].casefold() in TRUE for at in flags) for row in body]
    if len(flags) >= 2 and set(ones) == {1}:
        roles.one_hot = flags
        return
    n = len(body)
    roles.candidates = [
        at
        for at in free
        if keys[at] and 2 <= len({row[at] for row in body}) <= max(2, n // 2) and keys[at] != ""
    ]
    if roles.start == 0 and len(roles.candidates) == 1:
        roles.label = roles.candidates[0]


def _number(cell: str) -> bool:
    return bool(re.fullmatch(r"-?\d+(\.\d+)?", cell))


def _equivalent(body: Sequence[Sequence[str]], one: int, other: int) -> bool:
    pairs = {(row[one], row[other]) for row in body}
    return len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
