"""Settings: every value of every class is checked when it is made, before any work."""

import argparse
import dataclasses
import math
from typing import Any

import cnn_codes.settings as settings_module
import pytest
from cnn_codes.cli import STAGES, main
from cnn_codes.cli.options import add_options
from cnn_codes.errors import SettingsError
from cnn_codes.settings import LARGEST, allowed
from hypothesis import given
from hypothesis import strategies as st
from pictures import write_set

CLASSES = [
    one for name in settings_module.__all__
    if name.endswith("Settings") and dataclasses.is_dataclass(one := getattr(settings_module, name))
]  # fmt: skip
FIELDS = [(cls, field) for cls in CLASSES for field in dataclasses.fields(cls)]
NAMES = [f"{cls.__name__}.{field.name}" for cls, field in FIELDS]


def wrong_values(field: dataclasses.Field[Any]) -> list[Any]:
    """Values that a field cannot have: of another type, out of range, unknown, empty."""
    kind, meta = type(field.default), field.metadata
    if kind is bool:
        return [2, "yes", None]
    if kind in (int, float):
        values: list[Any] = [-1, -1e-9 if kind is float else -LARGEST, "three", None, math.nan]
        values += [True] if kind is int else []
        values += [0.5, LARGEST + 1, 10**20] if kind is int else []
        if meta["high"] is not None and math.isfinite(meta["high"]):
            values += [math.inf, kind(meta["high"] + 1)]
        elif kind is float and meta["high"] is None:
            values += [math.inf]
        values += [kind(meta["low"]) - 1]
        return values + ([kind(meta["above"])] if meta["above"] is not None else [])
    bad = [3, None, "nul\0" if kind is str else ("nul\0",)]
    if kind is tuple:
        bad += ["svm", [1], (1,)]
    if field.default:
        bad += [kind()]
    if meta["choices"] or meta["form"]:
        bad += ["drpo" if kind is str else ("drpo",), " " if kind is str else ("auto", " ")]
    return bad


@pytest.mark.parametrize(("cls", "field"), FIELDS, ids=NAMES)
def test_every_wrong_value_is_refused_by_name(cls: Any, field: Any) -> None:
    for value in wrong_values(field):
        with pytest.raises(SettingsError) as caught:
            cls(**{field.name: value})
        assert caught.value.found.startswith(field.name.upper()), value
        assert caught.value.expected, value


@pytest.mark.parametrize(("cls", "field"), FIELDS, ids=NAMES)
def test_the_default_and_the_limits_are_allowed(cls: Any, field: Any) -> None:
    meta, kind = field.metadata, type(field.default)
    cls(**{field.name: field.default})
    values: list[Any] = (
        list(meta["choices"]) if kind is str else [(one,) for one in meta["choices"]]
    )
    if kind in (int, float) and meta["above"] is None:
        values.append(kind(meta["low"]))
    if kind in (int, float) and meta["high"] is not None:
        values.append(kind(meta["high"]))
    needs = {"export": {"out": "x"}, "against": {"run": "x"}}
    for value in values:
        cls(**{field.name: value} | (needs.get(field.name, {}) if value else {}))


@pytest.mark.parametrize("name", sorted(STAGES))
def test_the_help_shows_the_allowed_values_of_every_setting(name: str, capsys: Any) -> None:
    with pytest.raises(SystemExit):
        main([name, "--help"])
    shown = " ".join(capsys.readouterr().out.split()).replace("- ", "-")
    for cls, field in FIELDS:
        fixed = field.name in STAGES[name].fixed
        if cls in STAGES[name].takes and field.metadata["choices"] and not fixed:
            for choice in filter(None, field.metadata["choices"]):
                assert choice in shown, field.name


@pytest.mark.parametrize(
    "setting",
    ["LEAKS=dorp", "SEED=-1", "SEED=99999999999999999999", "METHODS=", "METHODS=,", "DATA=",
     "CACHE=", "RESULTS=", "SIZE=-1", "SIZE=99999", "JOBS=-1", "VIEWS=random:0", "POOL=grid:99",
     "DEVICE=gpu", "FOLDS=1", "FOLDS=nan"],
)  # fmt: skip
def test_a_wrong_value_on_the_command_line_ends_with_exit_code_2(
    setting: str, capsys: Any, tmp_path: Any, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["svm", setting]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert setting.partition("=")[0].lower() in err.lower()
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir())  # before any work


@pytest.mark.parametrize(
    ("stage", "given", "says"),
    [
        ("svm", "THRESHOLD=recall:0.9", "Next: THRESHOLD='recall:0.9:wild cat'\n"),
        ("finetune", "THRESHOLD=recall:0.9:fox", "there is no class fox"),
        ("compare", "COST=costs.csv", "costs.csv"),
        ("softmax", "THRESHOLD=cost", "without COST"),
        ("compare", "METHODS=svm,finetun", "Next: METHODS=finetune\n"),
        ("curve", "METHODS=elpv-lat", "Next: METHODS=elpv-late\n"),
        ("report", "METHODS=svn", "unknown method svn"),
    ],
)
def test_decisions_and_methods_that_cannot_be_are_refused_before_any_network_runs(
    stage: str, given: str, says: str, capsys: Any, tmp_path: Any, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    write_set(tmp_path / "pets", 12, classes=("cat", "dog", "wild cat"), size=(32, 24))
    (tmp_path / "costs.csv").write_text(",cat,dog\ncat,0,1\ndog,1,0\n")
    assert main([stage, "DATA=pets", given]) == 2
    assert says in capsys.readouterr().err
    assert not list(tmp_path.rglob("backbones"))


@given(st.text(max_size=12))
def test_any_text_is_taken_or_refused_as_a_settings_error(text: str) -> None:
    for cls, field in FIELDS:
        kind = type(field.default)
        if kind in (str, tuple):
            try:
                cls(**{field.name: text if kind is str else (text,)})
            except SettingsError:
                pass


def test_the_help_of_a_field_names_its_values() -> None:
    parser = argparse.ArgumentParser()
    add_options(parser, STAGES["finetune"])
    text = " ".join(parser.format_help().split())
    assert "one of drop, keep; default: drop" in text
    assert "learning-rate (LR) schedule" in text
    by_name = {f.name: f for f in dataclasses.fields(settings_module.FinetuneSettings)}
    assert allowed(by_name["val_fraction"]) == "a number from 0.01 to 0.9"
    assert allowed(by_name["lr"]) == "a number, at least 0"
