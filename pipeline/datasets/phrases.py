"""How messages write lists, counts and settings."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from ..settings import DataSettings

_SAID = ("layout", "label", "label_column", "path_column", "split_column")


def few(names: Sequence[str], limit: int = 5) -> str:
    """Join the first names with commas and say how many more there are."""
    more = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {more:,} more" if more > 0 else "")


def plural(count: int, one: str, many: str) -> str:
    """Give the count with the word that fits it."""
    return f"{count:,} {one if count == 1 else many}"


def nature(ignored: Counter[str]) -> str:
    """Describe ignored files by suffix: ``.txt 2, .py 1``."""
    return few([f"{suffix} {count:,}" for suffix, count in ignored.most_common()])


def confirming(given: str, ask: DataSettings, **changed: str) -> str:
    """Write the command that confirms a reading, with what the user has said already.

    Parameters
    ----------
    given : str
        DATA.
    ask : DataSettings
        What was said.
    **changed : str
        Settings in its place, by their names.
    """
    said = {name: getattr(ask, name) for name in _SAID} | changed
    words = [f"{name.upper()}={quoted(str(one))}" for name, one in said.items() if one]
    words = [word for word in words if word != "LAYOUT=auto"]
    return " ".join([f"make data DATA={quoted(given)}", *words])


def quoted(text: str) -> str:
    """Write a value as it can be pasted behind ``make data NAME=``."""
    if re.fullmatch(r"[\w@%+=:,./-]+", text, re.ASCII):
        return text
    return "'" + text.replace("$", "$$").replace("'", "'\\''") + "'"
