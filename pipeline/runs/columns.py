"""The columns of the list of runs, the conditions on them, and their order."""

from __future__ import annotations

import operator
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from ..errors import SettingsError
from ..results.records import FIGURES

Value = str | int | float | None
Condition = Callable[[Mapping[str, Any], Mapping[str, Value]], bool]
Item = TypeVar("Item")

COLUMNS = (
    "run", "kind", "data", "method", "model", "layers", "views", "size", "seed", "on", "n_images",
    *FIGURES, "low", "high", "sd", "codes_s", "fit_s", "predict_s", "parameters", "C", "date",
)  # fmt: skip
_TESTS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq, "!=": operator.ne, ">": operator.gt, ">=": operator.ge,
    "<": operator.lt, "<=": operator.le, "~": lambda found, wanted: wanted in found,
}  # fmt: skip
_CONDITION = re.compile(r"([A-Za-z_][\w.\-]*)(>=|<=|!=|=|>|<|~)(.*)", re.DOTALL)
_SHORT = {"settings": "provenance.settings", "test": "metrics.test", "val": "metrics.val"}


def columns_of(record: Mapping[str, Any], *, date: str = "") -> dict[str, Value]:
    """Give the columns of a record.

    Parameters
    ----------
    record : mapping
        Of kind ``run`` or ``summary``.
    date : str
        Taken where the record has none of its own.

    Returns
    -------
    dict
        A value for each of ``COLUMNS``; None where the record has none. ``on`` is the split
        that the figures are of: test, or, of an interrupted training, val. Shares from 0 to 1,
        log-loss in nats, times in seconds; ``low`` and ``high`` are the ends of the accuracy's
        95 % interval, ``sd`` is its standard deviation over the runs of a summary.
    """
    metrics = record["metrics"]
    on = "test" if "test" in metrics else next(iter(metrics))
    figures = metrics[on]
    low, high = figures.get("accuracy_ci95") or (None, None)
    spread = record.get("spread", {}).get(on, {}).get("accuracy", {})
    times = record["times_s"]
    chosen_c = record["chosen"].get("C")
    return {
        **{key: record[key] for key in ("run", "kind", "data", "method", "model")},
        "layers": str(record.get("unfreeze") or "+".join(map(str, record["layers"]))),
        **{key: record[key] for key in ("views", "size", "seed")},
        "on": on,
        "n_images": sum(record["splits"].get(on, {}).values()) or None,
        **{key: figures[key] for key in FIGURES},
        "low": low,
        "high": high,
        "sd": spread.get("sd"),
        **{f"{key}_s": _number(times.get(key)) for key in ("codes", "fit", "predict")},
        "parameters": _number(record.get("n_parameters")),
        "C": _number(chosen_c),
        "date": str(record.get("provenance", {}).get("date", "") or date),
    }


def _number(value: Any) -> Value:
    return value if isinstance(value, int | float) else None


def conditions(where: str) -> list[Condition]:
    """Read conditions such as ``method=svm accuracy>0.93 model~lite chosen.C<=0.01``.

    Parameters
    ----------
    where : str
        Separated by spaces; a value with spaces stands in quotes. A name without a dot is a
        column; one with dots is a place in the record (``settings.``, ``test.`` and ``val.``
        are short for where these lie).

    Returns
    -------
    list of callable
        Each takes a record and its columns. What a record lacks fulfils ``!=`` alone.

    Raises
    ------
    SettingsError
        No condition, an unknown column, or a number compared with something else.
    """
    try:
        parts = shlex.split(where)
    except ValueError as error:
        raise SettingsError(f"WHERE: {error}.", expected="quotes in pairs") from error
    return [_condition(part) for part in parts]


def _condition(text: str) -> Condition:
    match = _CONDITION.fullmatch(text)
    if match is None or not match[3]:
        raise SettingsError(
            f"WHERE: {text} is no condition.",
            expected="column, = != > >= < <= or ~, and a value, without spaces: accuracy>0.93",
        )
    name, sign, wanted = match.groups()
    known_column(name, "WHERE")

    def holds(record: Mapping[str, Any], columns: Mapping[str, Value]) -> bool:
        found = value_of(name, record, columns)
        if found is None:
            return sign == "!="
        if isinstance(found, bool) or sign == "~" or not isinstance(found, int | float):
            return _TESTS[sign](str(found), wanted)
        try:
            return _TESTS[sign](float(found), float(wanted))
        except ValueError as error:
            raise SettingsError(
                f"WHERE: {text} compares a number with {wanted}.", expected=f"a number: {found:g}"
            ) from error

    return holds


def known_column(name: str, setting: str) -> None:
    """Raise SettingsError unless `name` is a column or a place in the record."""
    if name not in COLUMNS and "." not in name:
        raise SettingsError(
            f"{setting}: {name} is no column.",
            expected=f"one of {', '.join(COLUMNS)}; or a place in the record, such as chosen.C, "
            "settings.folds or test.brier",
        )


def value_of(name: str, record: Mapping[str, Any], columns: Mapping[str, Value]) -> Value:
    """Give a column's value, or what stands at a place in the record; None where nothing does."""
    if name in columns:
        return columns[name]
    first, _, rest = name.partition(".")
    found: Any = record
    for key in f"{_SHORT.get(first, first)}.{rest}".split("."):
        found = found.get(key) if isinstance(found, Mapping) else None
    if isinstance(found, list):
        return "+".join(map(str, found))
    return found if isinstance(found, str | int | float) else None


def ordered(
    items: Sequence[Item],
    sort: str,
    *,
    look: Callable[[Item], tuple[Mapping[str, Any], Mapping[str, Value]]],
) -> list[Item]:
    """Sort by columns: ``data,-accuracy`` by data, and within one by falling accuracy.

    Parameters
    ----------
    items : sequence
    sort : str
        Names as in conditions; what a record lacks stands last, whichever way it is sorted.
    look : callable
        Gives an item's record and columns.
    """
    result = list(items)
    for part in reversed([part.strip() for part in sort.split(",") if part.strip()]):
        name, falling = part.removeprefix("-"), part.startswith("-")
        known_column(name, "SORT")
        values = {id(item): value_of(name, *look(item)) for item in result}
        have = [item for item in result if values[id(item)] is not None]
        lack = [item for item in result if values[id(item)] is None]
        have.sort(key=lambda item, of=values: _key(of[id(item)]), reverse=falling)  # type: ignore[misc]
        result = have + lack
    return result


def _key(value: Value) -> tuple[bool, float, str]:
    """Numbers by size, before texts by letter."""
    if isinstance(value, int | float):
        return False, float(value), ""
    return True, 0.0, str(value)


def flattened(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Bring nested mappings to one level, names joined by dots; lists become text."""
    flat: dict[str, Any] = {}
    for key, one in value.items():
        if isinstance(one, Mapping):
            flat |= flattened(one, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = ", ".join(map(str, one)) if isinstance(one, list) else one
    return flat
