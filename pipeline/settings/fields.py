"""How settings are declared and checked: the fields of the frozen dataclasses of this folder.

Each field says what it is for and whether it changes bytes (``"bytes"``: part of the fingerprint),
only speed (``"speed"``) or only where things are (``"place"``).
"""

from __future__ import annotations

import dataclasses
import math
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import SettingsError

RENAMED = {"fit": "resize", "batch": "extract_batch"}  # earlier names of settings
INFINITE = math.inf
LARGEST = 2**31 - 1  # of whole numbers: seeds and counts fit into 32 bits everywhere


def setting(
    default: Any,
    help: str,
    *,
    affects: str = "bytes",
    choices: tuple[str, ...] = (),
    low: float = 0,
    high: float | None = None,
    above: float | None = None,
    form: str = "",
    says: str = "",
    later: bool = False,
) -> Any:
    """Declare one field of the settings.

    Parameters
    ----------
    default
        Its default, whose type is that of the setting.
    help : str
        What it is for.
    affects : str
        ``bytes``, ``speed`` or ``place``.
    choices : tuple of str
        The allowed values of a text, or of each part of a list.
    low, high : float
        Smallest and largest number. Without `high`, any finite one (whole numbers: up to
        2**31 - 1).
    above : float
        The number must be larger than this.
    form : str
        Regular expression that a text, or each part of a list, must match.
    says : str
        The allowed values in words, for `form`.
    later : bool
        It came after results had been published: at its default it is not part of fingerprints,
        so that those results stay current.
    """
    return dataclasses.field(
        default=default,
        metadata={
            "help": help,
            "affects": affects,
            "choices": choices,
            "low": low,
            "high": high,
            "above": above,
            "form": form,
            "says": says,
            "later": later,
        },
    )


def allowed(field: dataclasses.Field[Any]) -> str:
    """Say which values a field takes, for messages and help; empty where any text will do."""
    meta: Mapping[str, Any] = field.metadata
    kind: type[Any] = type(field.default)
    if kind is bool:
        return "1 or 0"
    if kind in (int, float):
        what = "a whole number" if kind is int else "a number"
        high = meta["high"]
        if meta["above"] is not None:
            what += f" above {meta['above']:g}"
            return what if high in (None, INFINITE) else f"{what}, at most {high:g}"
        if high in (None, INFINITE):
            return f"{what}, at least {meta['low']:g}"
        return f"{what} from {meta['low']:g} to {_plain(high)}"
    if meta["choices"]:
        return f"{'any' if kind is tuple else 'one'} of {', '.join(filter(None, meta['choices']))}"
    return str(meta["says"])


def _plain(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:g}"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What all settings have in common: every value is checked when they are made."""

    def __post_init__(self) -> None:
        """Refuse values that the fields do not allow.

        Raises
        ------
        SettingsError
            A value of another type, outside its range, or not one of the allowed ones.
        """
        for field in dataclasses.fields(self):
            _check(field, getattr(self, field.name))


def _check(field: dataclasses.Field[Any], value: Any) -> None:
    """Refuse a value that the field does not allow."""
    name: str = field.name.upper()
    kind: type[Any] = type(field.default)
    meta: Mapping[str, Any] = field.metadata
    shown = ",".join(map(str, value)) if isinstance(value, tuple) else value
    wrong = SettingsError(f"{name}={shown} is not allowed.", expected=allowed(field) or "a text")
    if kind in (bool, int, float):
        whole = isinstance(value, int) and not isinstance(value, bool)
        fits = {bool: isinstance(value, bool), int: whole}
        if not fits.get(kind, whole or isinstance(value, float)):
            raise wrong
        if kind is not bool and not _in_range(value, kind, meta):
            raise wrong
        return
    if not isinstance(value, kind) or not all(isinstance(one, str) for one in value):
        raise wrong
    if not value and field.default:
        what = allowed(field) or (
            "at least one, with commas" if kind is tuple else f"such as {field.default}"
        )
        raise SettingsError(f"{name} is empty.", expected=what)
    for one in value if kind is tuple else (value,):
        if "\0" in one:
            raise wrong
        if meta["choices"] and one not in meta["choices"]:
            raise SettingsError(f"{name}={one} is not known.", expected=allowed(field))
        if one and meta["form"] and not re.fullmatch(meta["form"], one):
            raise SettingsError(f"{name}={one} is not known.", expected=meta["says"])


def _in_range(value: float, kind: type, meta: Mapping[str, Any]) -> bool:
    high = meta["high"]
    if high is None:
        high = LARGEST if kind is int else sys.float_info.max
    if meta["above"] is not None and not value > meta["above"]:
        return False
    return bool(meta["low"] <= value <= high)  # False for NaN too


def as_dict(settings: Any, *, affects: str | None = None) -> dict[str, Any]:
    """Give the settings as plain values for JSON, all or those that affect one thing."""
    values = {
        field.name: getattr(settings, field.name)
        for field in dataclasses.fields(settings)
        if affects is None
        or (
            field.metadata["affects"] == affects
            and not (field.metadata["later"] and getattr(settings, field.name) == field.default)
        )
    }
    return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}


def from_mapping(cls: type[Any], values: Mapping[str, Any]) -> Any:
    """Build settings of class `cls` from those of `values` that are its fields.

    Files of earlier versions have settings under their earlier names (`RENAMED`).
    """
    names = {field.name for field in dataclasses.fields(cls)}
    named = {
        RENAMED.get(name, name): tuple(value) if isinstance(value, list) else value
        for name, value in values.items()
    }
    return cls(**{name: value for name, value in named.items() if name in names})
