"""Published runs by name, and what the command line makes of them."""

from pathlib import Path
from typing import Any

import pytest
from cnn_codes.errors import SettingsError
from cnn_codes.finetune import load_recipe, recipe_names
from cnn_codes.finetune.recipe import phases_of
from cnn_codes.results.runs import read_record
from cnn_codes.settings import CodesSettings, FinetuneSettings, HeadSettings, from_mapping
from conftest import Inside
from tuning import few_images

PUBLISHED = (
    "ants-bees-finetune", "ants-bees-frozen", "cats-dogs-two-phase", "codes-linear",
    "food20-frozen", "hotdog-finetune", "hotdog-scratch", "large-dissimilar", "large-similar",
    "small-dissimilar",
)  # fmt: skip


def test_every_published_run_has_its_recipe() -> None:
    assert set(PUBLISHED) <= set(recipe_names())


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_is_made_of_settings_and_says_where_it_is_from(name: str) -> None:
    recipe = load_recipe(name)
    from_mapping(CodesSettings, recipe)
    from_mapping(HeadSettings, {k: v for k, v in recipe.items() if recipe["stage"] == "heads"})
    if recipe["stage"] == "finetune":
        settings = from_mapping(FinetuneSettings, recipe)
        assert settings.recipe == name
        assert phases_of(settings)
        assert recipe["about"]["note"]  # what is otherwise than with the author, or whence it is
    assert {"title", "source", "printed"} <= recipe["about"].keys()


# The table of the published runs, retyped from the publications' own settings.
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hotdog-finetune", {"lr": 0.01, "head_lr": 10.0, "weight_decay": 1e-3, "batch_size": 128,
                             "epochs": 5, "unfreeze": "all", "init": "pretrained"}),
        ("hotdog-scratch", {"lr": 0.1, "init": "random", "batch_size": 128, "epochs": 5}),
        ("food20-frozen", {"optimizer": "adam", "lr": 1e-3, "step_epochs": 5, "step_factor": 0.5,
                           "batch_size": 64, "epochs": 50, "unfreeze": "head"}),
        ("ants-bees-finetune", {"lr": 1e-3, "step_epochs": 7, "step_factor": 0.1, "batch_size": 4,
                                "epochs": 25, "unfreeze": "all", "normalise": "0.5,0.25"}),
        ("ants-bees-frozen", {"unfreeze": "head", "momentum": 0.9, "lr": 1e-3}),
        ("cats-dogs-two-phase", {"optimizer": "rmsprop"}),
    ],
)  # fmt: skip
def test_a_recipe_has_the_published_settings(name: str, expected: dict[str, Any]) -> None:
    recipe = load_recipe(name)
    assert {key: recipe[key] for key in expected} == expected


def test_two_phases_have_a_smaller_rate_in_the_second() -> None:
    first, second = phases_of(from_mapping(FinetuneSettings, load_recipe("cats-dogs-two-phase")))
    assert second.lr < first.lr
    assert (first.unfreeze, second.unfreeze) == ("classifier", "features.24")


def test_unknown_recipes_and_settings_are_answered_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="hotdog-finetune"):
        load_recipe("hotdog-finetuned")
    (tmp_path / "odd.toml").write_text("learning_rate = 1\n")
    with pytest.raises(SettingsError, match="learning_rate is not a setting"):
        load_recipe(str(tmp_path / "odd.toml"))
    (tmp_path / "odd.toml").write_text("fit = 'pad'\n")
    with pytest.raises(SettingsError, match="fit is now resize"):
        load_recipe(str(tmp_path / "odd.toml"))
    (tmp_path / "odd.toml").write_text("lr = 'fast'\n")
    with pytest.raises(SettingsError, match="lr is 'fast'"):
        load_recipe(str(tmp_path / "odd.toml"))
    (tmp_path / "odd.toml").write_text("lr = \n")
    with pytest.raises(SettingsError, match="is not TOML"):
        load_recipe(str(tmp_path / "odd.toml"))


def test_what_is_given_goes_before_the_recipe(hotdog: Path, inside: Inside, tmp_path: Path) -> None:
    data = few_images(hotdog, tmp_path / "few")
    done = inside(
        "finetune", data=data, recipe="hotdog-finetune", model="test_efficientnet", weights="none",
        size=32, epochs=1, batch_size=8, offline=1, engine="torch",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "trained: " in done.stderr
    (path,) = (tmp_path / "results" / "few").glob("finetune-test_efficientnet-*seed0-????????.json")
    record = read_record(path, verify=True)
    settings = record["provenance"]["settings"]
    assert (settings["model"], settings["epochs"], settings["batch_size"]) == (
        "test_efficientnet", 1, 8
    )  # fmt: skip
    assert (settings["lr"], settings["head_lr"], settings["weight_decay"]) == (0.01, 10.0, 1e-3)
    assert any("the epoch was chosen on val" in text for text in record["warnings"])
    assert "Epoch " in done.stdout


def test_a_recipe_of_another_stage_is_answered(inside: Inside, tmp_path: Path) -> None:
    done = inside("svm", data=tmp_path, recipe="hotdog-scratch")
    assert done.returncode == 2
    assert "make finetune RECIPE=hotdog-scratch" in done.stderr
    done = inside("finetune", data=tmp_path, recipe="codes-linear")
    assert done.returncode == 2
    assert "make heads RECIPE=codes-linear" in done.stderr
