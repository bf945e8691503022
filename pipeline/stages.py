"""What a stage is: a function of the API, and the settings that it takes.

The settings' classes are the one source: the keyword arguments of the API, the options of the
command line, their types, defaults, allowed values and help all derive from them.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from .errors import SettingsError
from .progress import Messages
from .settings import RENAMED, from_mapping

Settings = TypeVar("Settings")
Answer = TypeVar("Answer")
Run = Callable[["Chosen"], Answer]

_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off", "")
STAGES: dict[str, Stage] = {}


@dataclass(frozen=True)
class Chosen:
    """The settings of one call, checked, by their class; and where the call reports.

    Attributes
    ----------
    settings : mapping
        From each class that the stage takes to its settings.
    messages : Messages
        Progress and messages.
    command : str
        What repeats the call.
    """

    settings: Mapping[type[Any], Any]
    messages: Messages = field(default_factory=Messages)
    command: str = ""

    def __getitem__(self, cls: type[Settings]) -> Settings:
        """Give the settings of one class."""
        found: Settings = self.settings[cls]
        return found

    def replaced(self, *settings: Any) -> Chosen:
        """Give the same call with other settings of their classes."""
        changed = {type(one): one for one in settings}
        return dataclasses.replace(self, settings={**self.settings, **changed})


@dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes
    ----------
    name : str
        As make and the command line have it.
    run : callable
        What does it.
    takes : tuple of types
        The classes of its settings; those a user needs first come first.
    defaults : dict
        Where this stage's default differs from the setting's.
    example : str
        A command, without ``make``.
    fixed : dict
        Settings that this stage sets itself and does not take.
    """

    name: str
    run: Callable[[Chosen], Any]
    takes: tuple[type[Any], ...]
    example: str
    defaults: dict[str, Any] = field(default_factory=dict)
    fixed: dict[str, Any] = field(default_factory=dict)

    @property
    def help(self) -> str:
        """What it does, in a line."""
        return (self.run.__doc__ or "").partition("\n")[0].rstrip(".")

    @property
    def fields(self) -> dict[str, dataclasses.Field[Any]]:
        """Its settings by name; one that several classes have is one setting."""
        found: dict[str, dataclasses.Field[Any]] = {}
        for cls in self.takes:
            for one in dataclasses.fields(cls):
                if one.name not in self.fixed:
                    found.setdefault(one.name, one)
        return found

    def default(self, name: str) -> Any:
        """Give the default of a setting in this stage."""
        return self.defaults.get(name, self.fields[name].default)

    def chosen(self, given: Mapping[str, Any]) -> dict[type[Any], Any]:
        """Check what was given, and fill in the recipe and the defaults.

        Parameters
        ----------
        given : mapping
            Settings by name, as plain values or as text; they override a recipe.

        Raises
        ------
        SettingsError
            An unknown name, a value that cannot be read, or one outside its range.
        """
        fields = self.fields
        for name, value in given.items():
            if name in self.fixed:
                raise SettingsError(
                    f"{self.name} takes no {name.upper()}.",
                    expected=f"make {self.name} without it",
                    todo=f"make heads {name.upper()}={value}",
                )
            if name not in fields:
                raise _unknown(name, given[name], fields)
        values = {name: _read(fields[name], value) for name, value in given.items()}
        if values.get("recipe"):
            values = self._recipe(str(values["recipe"])) | values
        values = self.defaults | values | self.fixed
        return {cls: from_mapping(cls, values) for cls in self.takes}

    def _recipe(self, name: str) -> dict[str, Any]:
        from .finetune import load_recipe

        recipe = load_recipe(name)
        trains = "unfreeze" in self.fields
        if trains != (recipe["stage"] == "finetune"):
            raise SettingsError(
                f"The recipe {name} is not for {self.name}.",
                expected=f"make {'heads' if trains else 'finetune'} RECIPE={name}",
            )
        return {key: value for key, value in recipe.items() if key in self.fields}

    def __call__(self, given: Mapping[str, Any], messages: Messages, command: str) -> Any:
        """Run the stage with what was given; see :func:`stage`."""
        return self.run(Chosen(self.chosen(given), messages, command))


def stage(
    *takes: type[Any], example: str = "", fixed: dict[str, Any] | None = None, **defaults: Any
) -> Callable[[Run[Answer]], Callable[..., Answer]]:
    """Make a stage of a function: its keyword arguments become those of the settings' classes.

    The function is registered in :data:`STAGES` under its name. What it becomes takes the settings
    as keyword arguments, and ``messages`` (:class:`~cnn_codes.progress.Messages`).

    Parameters
    ----------
    *takes : types
        Classes of settings.
    example : str
        A command that shows its use.
    fixed : dict, optional
        Settings of these classes that the stage sets itself and does not take.
    **defaults
        Where a default differs from the setting's.
    """

    def made(run: Run[Answer]) -> Callable[..., Answer]:
        one = Stage(
            run.__name__.rstrip("_").replace("_", "-"), run, takes, example, defaults, fixed or {}
        )
        STAGES[one.name] = one

        @functools.wraps(run)
        def call(*, messages: Messages | None = None, command: str = "", **settings: Any) -> Answer:
            written = ", ".join(f"{name}={value!r}" for name, value in settings.items())
            answer: Answer = one(
                settings, messages or Messages(), command or f"cnn_codes.api.{one.name}({written})"
            )
            return answer

        call.__signature__ = _signature(one)  # type: ignore[attr-defined]
        call.__doc__ = f"{inspect.cleandoc(run.__doc__ or '')}\n\n{_documented(one)}"
        return call

    return made


def _signature(one: Stage) -> inspect.Signature:
    keyword = inspect.Parameter.KEYWORD_ONLY
    names = [inspect.Parameter(name, keyword, default=one.default(name)) for name in one.fields]
    return inspect.Signature([*names, inspect.Parameter("messages", keyword, default=None)])


def _documented(one: Stage) -> str:
    lines = ["Parameters", "----------"]
    for name, setting in one.fields.items():
        kind = (
            "sequence of str"
            if isinstance(setting.default, tuple)
            else type(setting.default).__name__
        )
        lines += [
            f"{name} : {kind}, default {one.default(name)!r}",
            f"    {setting.metadata['help']}.",
        ]
    lines += [
        "messages : Messages, optional",
        "    Where progress and messages go; default: nowhere.",
    ]
    return "\n".join(lines)


def _read(setting: dataclasses.Field[Any], value: Any) -> Any:
    """Bring a value, often text, to the type of a setting; empty text stands for the default.

    Raises
    ------
    SettingsError
        It cannot be one.
    """
    name, default = setting.name, setting.default
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(default, tuple):
        parts = value.split(",") if isinstance(value, str) else value
        return tuple(str(part).strip() for part in parts if str(part).strip())
    if isinstance(default, bool):
        text = str(value).lower()
        if text in _TRUE + _FALSE:
            return text in _TRUE
        raise SettingsError(f"{name}: {str(value)!r} is neither 1 nor 0.", expected="1 or 0")
    if isinstance(default, str):
        return default if value == "" and setting.metadata["choices"] else str(value)
    if value == "":
        return default
    try:
        if isinstance(default, int) and isinstance(value, float) and value != int(value):
            raise ValueError("has decimals")
        kind: type[Any] = type(default)
        return kind(value)
    except (ValueError, TypeError, OverflowError) as error:
        what = "a whole number" if isinstance(default, int) else "a number"
        raise SettingsError(f"{name}: {str(value)!r} is not {what}.", expected=what) from error


def _unknown(name: str, value: Any, known: Iterable[str]) -> SettingsError:
    if name in RENAMED:
        new = RENAMED[name]
        return SettingsError(
            f"{name.upper()} is now {new.upper()}: {new.upper()}={value}",
            expected="the new name; the values are the same",
        )
    near = nearest_setting(name, known)
    return SettingsError(
        f"Unknown setting {name.upper()}.",
        expected=", ".join(sorted(known)).upper(),
        todo=f"did you mean {near.upper()}={value}?" if near else "",
    )


def nearest_setting(name: str, known: Iterable[str]) -> str:
    """Give the known setting most like `name`; empty where none is."""
    return next(iter(difflib.get_close_matches(name, sorted(known), n=1)), "")
