"""The Python API: one function per stage, settings as keywords, answers that show themselves."""

from __future__ import annotations

import hashlib
import inspect
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cnn_codes import api
from cnn_codes.answers import Answer
from cnn_codes.errors import SettingsError
from conftest import ROOT, SMALL, Command
from pictures import write_set

MAKEFILE = (ROOT / "Makefile").read_text()
NOT_STAGES = {
    "help", "setup", "test", "test-fast", "test-long", "check", "bench", "bench-peers",
    "bench-gpu", "docs", "clean", "clean-results", "torture",
}  # fmt: skip


@pytest.fixture
def named(cache: Path, tmp_path: Path) -> dict[str, Any]:
    data = write_set(tmp_path / "pets", 30)
    return SMALL | {"data": data, "cache": cache, "results": tmp_path / "results"}


def test_every_target_that_runs_a_stage_has_a_function_of_its_name() -> None:
    targets = set(re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE).group(1).split())
    assert targets - NOT_STAGES == set(api.STAGES)
    for name, stage in api.STAGES.items():
        function = getattr(api, name.replace("-", "_"), None) or getattr(api, f"{name}_")
        parameters = inspect.signature(function).parameters
        assert list(parameters) == [*stage.fields, "messages"]
        assert function.__name__ in api.__all__
        for setting in stage.fields:
            assert f"\n{setting} : " in function.__doc__


def test_an_answer_has_arrays_figures_a_table_and_a_view(named: dict[str, Any]) -> None:
    codes = api.features(**named).codes
    assert codes["final"].shape[0] == 30
    answer = api.svm(**named, folds=2)
    assert 0 <= answer.metrics["test"]["accuracy"] <= 1
    assert answer.runs[0].is_file()
    table = answer.table()
    assert table.lines[0][1:3] == ("Method", "Accuracy, %")
    assert str(table).splitlines()[0].split()[:2] == ["Method", "Accuracy,"]
    assert "<table>" in answer._repr_html_()
    assert str(answer.runs[0]) in str(answer)
    again = api.svm(**named, folds=2)
    assert again.records[0]["reused"]
    predicted = api.predict(
        images=named["data"], run=answer.runs[0], cache=named["cache"], offline=True
    )
    assert len(predicted.rows) == 30
    assert isinstance(predicted, Answer)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"veiws": "flip"}, "Unknown setting VEIWS"),
        ({"methods": "ridge"}, "svm takes no METHODS"),
        ({"size": "two"}, "'two' is not a whole number"),
        ({"size": 1.5}, "is not a whole number"),
        ({"offline": "maybe"}, "neither 1 nor 0"),
        ({"fit": "stretch"}, "FIT is now RESIZE"),
        ({"recipe": "hotdog-finetune"}, "not for svm"),
    ],
)
def test_a_wrong_setting_is_answered(given: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        api.svm(data="nowhere", **given)


def test_settings_are_plain_values_or_text_and_override_a_recipe() -> None:
    from cnn_codes.settings import CodesSettings, FinetuneSettings

    stage = api.STAGES["finetune"]
    one = stage.chosen({"layers": "a, b", "seed": "", "recipe": "hotdog-finetune", "epochs": "2"})
    other = stage.chosen({"layers": ["a", "b"], "recipe": "hotdog-finetune", "epochs": 2})
    assert one == other
    assert one[CodesSettings].layers == ("a", "b")
    assert one[FinetuneSettings].epochs == 2
    assert one[FinetuneSettings].lr == 0.01  # the recipe's


def _digest(cache: Path, name: str) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (cache / name).glob("*.h5")
    }


# A child is killed once it has said so much, or after so many seconds.
LATER: list[str | float] = [2.0, 4.0, 8.0, "epoch 1"]


@pytest.mark.parametrize("stage", ["curve", "compare"])
@pytest.mark.parametrize(
    "moments", [["epoch 0"], pytest.param(LATER, marks=pytest.mark.slow)], ids=["once", "often"]
)
def test_training_on_a_part_of_the_images_never_changes_the_file_that_a_user_knows(
    named: dict[str, Any], command: Command, stage: str, moments: list[str | float]
) -> None:
    """Killed at any moment, or finished: the published codes stay byte for byte as they were."""
    settings = named | {"methods": "finetune"} | {
        "curve": {"sizes": "4,8", "trained_draws": 1}, "compare": {"splits": 2, "seeds": 1},
    }[stage]  # fmt: skip
    api.features(**named)
    (folder,) = (path.parent for path in named["cache"].glob("*/*.h5"))
    before = _digest(named["cache"], folder.name)
    for moment in moments:
        child = subprocess.Popen(
            command.line(stage, **settings),
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        if isinstance(moment, float):
            time.sleep(moment)
        else:
            assert any(line.startswith(moment) for line in child.stderr), "it ended before"
        child.send_signal(signal.SIGKILL)
        child.communicate()
        now = _digest(named["cache"], folder.name)
        assert {name: now[name] for name in before} == before
    getattr(api, stage)(**settings)
    assert _digest(named["cache"], folder.name) == before
    assert np.any([path.is_file() for path in folder.glob("trunk/*.h5")])
