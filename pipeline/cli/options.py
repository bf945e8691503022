"""Command-line options, derived from the settings: ``--data-root X`` and ``DATA_ROOT=X`` alike.

The second form is what the Makefile passes on, so its variables are the settings' names.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterable
from typing import Any

from ..errors import SettingsError
from ..settings import RENAMED, allowed
from ..stages import Stage, nearest_setting


def add_options(parser: argparse.ArgumentParser, stage: Stage) -> None:
    """Add an option for every setting of a stage, as text; the stage reads and checks it.

    Parameters
    ----------
    parser : ArgumentParser
        Of the stage.
    stage : Stage
        Its settings stand in the order of their classes, those a user needs first at the top.
    """
    seen: set[str] = set()
    for cls in stage.takes:
        group = parser.add_argument_group((cls.__doc__ or "").partition("\n")[0].rstrip("."))
        for field in dataclasses.fields(cls):
            if field.name in seen:
                continue
            seen.add(field.name)
            if field.name in stage.fixed:  # taken, so that the stage can answer it
                hidden = f"--{field.name.replace('_', '-')}"
                group.add_argument(hidden, default=argparse.SUPPRESS, help=argparse.SUPPRESS)
                continue
            default = stage.default(field.name)
            shown = ",".join(default) if isinstance(default, tuple) else default
            flag: dict[str, Any] = {"nargs": "?", "const": "1"}
            group.add_argument(
                "--" + field.name.replace("_", "-"),
                dest=field.name,
                default=argparse.SUPPRESS,
                metavar=field.name.upper(),
                help=_help(field, shown),
                **(flag if isinstance(field.default, bool) else {}),
            )


def _help(field: dataclasses.Field[Any], default: Any) -> str:
    """Say what a setting is for, its allowed values and its default."""
    values = allowed(field)
    shown = "none" if default == "" else int(default) if isinstance(default, bool) else default
    text = f"{field.metadata['help']} ({f'{values}; ' if values else ''}default: {shown})"
    return text.replace("%", "%%")


def assigned(arguments: Iterable[str], stage: Iterable[str], known: Iterable[str]) -> list[str]:
    """Turn ``NAME=value`` arguments into options.

    Parameters
    ----------
    arguments : iterable of str
        What stands on the command line behind the stage.
    stage : iterable of str
        Names of the settings that this stage takes.
    known : iterable of str
        Names of all settings; those the stage does not take are passed over, since make hands
        every variable to every stage.

    Raises
    ------
    SettingsError
        A name that no stage knows.
    """
    stage, known = set(stage), set(known)
    options = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not equals or not name.isupper() or argument.startswith("-"):
            _refuse_renamed(argument)
            options.append(argument)
        elif name.lower() in RENAMED:
            _refuse_renamed(argument)
        elif name.lower() in stage:
            options.append(f"--{name.lower().replace('_', '-')}={value}")
        elif name.lower() not in known:
            raise SettingsError(
                f"Unknown setting {name}.",
                expected=", ".join(sorted(stage)).upper(),
                todo=meant(argument, known),
            )
    return options


def _refuse_renamed(argument: str) -> None:
    """Answer the earlier name of a setting, ``FIT=stretch`` or ``--fit=stretch``, with its new one.

    Raises
    ------
    SettingsError
        It is such a name.
    """
    name, equals, value = argument.partition("=")
    option = name.startswith("--")
    old = name.removeprefix("--").replace("-", "_")
    if not (option or (equals and name.isupper())) or old.lower() not in RENAMED:
        return
    new = RENAMED[old.lower()]
    shown = f"--{new.replace('_', '-')}" if option else new.upper()
    raise SettingsError(
        f"{old.upper()} is now {new.upper()}: {shown}{equals}{value}",
        expected="the new name; the values are the same",
        todo=f"give {shown}{equals}{value} in place of {argument}",
    )


def meant(argument: str, known: Iterable[str]) -> str:
    """Say what somebody may have meant by an argument that is none.

    Parameters
    ----------
    argument : str
        ``--veiws``, ``veiws=flip``, ``VEIWS=flip`` or anything else.
    known : iterable of str
        Names of all settings.
    """
    name, equals, value = argument.partition("=")
    plain = name.lstrip("-").replace("-", "_").lower()
    near = nearest_setting(plain, known)
    if not argument.startswith("-") and not equals:
        return f"settings are written NAME=value, such as DATA={argument}"
    if not near:
        return "--help lists the settings of a stage"
    if argument.startswith("-"):
        return f"did you mean --{near.replace('_', '-')}?"
    return f"did you mean {near.upper()}={value}?"
