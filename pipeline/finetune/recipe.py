"""Published runs by name: ``recipes/<name>.toml``, each a table of settings.

A recipe holds settings only, by their own names, and a table ``about`` for people. Whatever the
user gives goes before it.
"""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from typing import Any

from ..backbones.catalog import nearest
from ..errors import SettingsError
from ..settings import RENAMED, CodesSettings, FinetuneSettings, HeadSettings

_INSTALLED = Path(__file__).with_name("recipes")  # where pyproject.toml puts the folder in a wheel
FOLDER = _INSTALLED if _INSTALLED.is_dir() else Path(__file__).parents[2] / "recipes"
_EXTRA = ("about", "stage")


def recipe_names() -> list[str]:
    """Names of all recipes."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load_recipe(name: str) -> dict[str, Any]:
    """Read a recipe: its settings by name, as the settings' classes take them.

    Besides settings of the codes, of fine-tuning or of the heads the mapping has ``stage``
    (``finetune`` or ``heads``: which stage runs it) and ``about`` (title, source and note, for
    people; ``note`` is for the result's warnings).

    Parameters
    ----------
    name : str
        Without the ending ``.toml``; or the path of a recipe file.

    Raises
    ------
    SettingsError
        No such recipe, not TOML, or a setting in it that no stage has.
    """
    path = Path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"
    if not path.is_file():
        names = recipe_names()
        near = f"near: {', '.join(nearest(name, names, 3))}" if names else ""
        raise SettingsError(
            f"There is no recipe {name}.", expected=f"one of {', '.join(names)}", todo=near
        )
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path.name} is not TOML: {error}.") from error
    known = {
        f.name: f
        for cls in (CodesSettings, FinetuneSettings, HeadSettings)
        for f in dataclasses.fields(cls)
    }
    recipe: dict[str, Any] = {"stage": "finetune", "about": {}}
    for key, value in found.items():
        if key in _EXTRA:
            recipe[key] = value
        elif key in known:
            recipe[key] = _fit(path.name, known[key], value)
        elif key in RENAMED:
            raise SettingsError(
                f"{path.name}: {key} is now {RENAMED[key]}.",
                expected=f"{RENAMED[key]} = {value!r}",
                todo=f"rename {key} to {RENAMED[key]} in {path}",
            )
        else:
            raise SettingsError(
                f"{path.name}: {key} is not a setting.",
                expected="settings of the codes, the heads or of fine-tuning",
                todo="near: " + ", ".join(nearest(key, list(known), 3)),
            )
    if recipe["stage"] == "finetune":
        recipe["recipe"] = path.stem
    return recipe


def _fit(where: str, field: dataclasses.Field[Any], value: Any) -> Any:
    """Bring a value of the file to the type of the setting's default."""
    kind = type(field.default)
    if kind is tuple and isinstance(value, list) and all(isinstance(v, str) for v in value):
        return tuple(value)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise SettingsError(
            f"{where}: {field.name} is {value!r}.", expected=f"a value such as {field.default!r}"
        )
    return value


def phases_of(settings: FinetuneSettings) -> list[FinetuneSettings]:
    """Give the settings of each phase; a run without PHASES is its one phase.

    Raises
    ------
    SettingsError
        A phase is not ``name=value name=value``, or changes what all phases share.
    """
    plain = dataclasses.replace(settings, phases=())
    shared = {"recipe", "phases", "init", "probe", "refit", "tune", "val_fraction", "normalise"}
    fields = {f.name: f for f in dataclasses.fields(settings) if f.name not in shared}
    phases = []
    for text in settings.phases:
        changes: dict[str, Any] = {}
        for part in text.split():
            name, equals, value = part.partition("=")
            if not equals or name not in fields:
                raise SettingsError(
                    f"PHASES: {part!r} in {text!r}.",
                    expected="name=value name=value, of " + ", ".join(fields),
                )
            kind: Any = type(fields[name].default)
            try:
                changes[name] = tuple(value.split("+")) if kind is tuple else kind(value)
            except ValueError as error:
                raise SettingsError(
                    f"PHASES: {part!r} is no {kind.__name__}.", expected="a value of that type"
                ) from error
        phases.append(dataclasses.replace(plain, **changes))
    return phases or [plain]


def deeper_of(settings: FinetuneSettings) -> FinetuneSettings | None:
    """Give the training that DEEPEN tries after that of `settings`; None where it tries none.

    The recipe late-adapted from where the first training ended: three stages, statistics that
    follow the data, a new last layer. Its epoch is the one of the lowest calibrated loss.
    """
    default = settings.unfreeze == "last" and settings.init == "probe"
    own_way = settings.recipe or settings.phases or settings.tune or settings.fresh
    if not (settings.deepen and default and settings.choose == "one_se") or own_way:
        return None
    recipe = load_recipe("late-adapted")
    names = {field.name for field in dataclasses.fields(settings)} - {"recipe", "epochs"}
    changes = {name: value for name, value in recipe.items() if name in names}
    return dataclasses.replace(settings, **changes, choose="loss")
