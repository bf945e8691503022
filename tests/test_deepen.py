"""Deeper layers tried where the first training helped, kept only where val says so."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cnn_codes.finetune.recipe import deeper_of
from cnn_codes.results.predictions import read_predictions
from cnn_codes.settings import FinetuneSettings, PlaceSettings
from PIL import Image
from sklearn.datasets import load_digits
from tuning import Tuning

# The trunk sees one view, the rate is small: the first training improves on the probe a little.
WAY: dict[str, Any] = {
    "unfreeze": "last", "init": "probe", "choose": "one_se", "optimizer": "adamw", "lr": 3e-5,
    "bn": "auto", "batch_size": 16, "trunk_views": "center", "val_fraction": 0.3,
}  # fmt: skip


@pytest.fixture(scope="module")
def tuning(tmp_path_factory: pytest.TempPathFactory) -> Tuning:
    """Give four digits, 70 images of each to train on and 30 to test on."""
    folder, found = tmp_path_factory.mktemp("deepen"), load_digits()
    for digit in (3, 5, 8, 9):
        for number, row in enumerate(np.flatnonzero(found.target == digit)[:100].tolist()):
            below = folder / "digits" / ("train" if number < 70 else "test") / str(digit)
            below.mkdir(parents=True, exist_ok=True)
            picture = Image.fromarray((found.images[row] * 15).astype(np.uint8))
            picture.resize((48, 48)).save(below / f"{number}.png")
    places = PlaceSettings(cache=str(folder / "cache"), results=str(folder / "results"))
    return Tuning(folder / "digits", places)


def test_deeper_layers_are_kept_where_val_is_better(tuning):
    record = tuning(**WAY, epochs=10, refit=True)
    deeper = record["chosen"]["deeper"]
    assert deeper["kept"]
    assert (record["unfreeze"], len(record["phases"])) == ("3", 2)
    assert record["chosen"]["epochs"][1] == deeper["epoch"] == record["chosen"]["epoch"] > 0
    first = [row for row in record["curve"] if row["phase"] == 0]
    least = min(row["val_calibrated_loss"] for row in first)
    assert deeper["val_calibrated_loss"] < least
    shallow = tuning(**WAY, epochs=10, refit=True, deepen=False)
    assert "deeper" not in shallow["chosen"]
    assert record["metrics"]["test"]["log_loss"] < shallow["metrics"]["test"]["log_loss"]


def test_what_is_no_better_leaves_the_first_training_as_it_was_and_a_killed_one_goes_on(tuning):
    stopped = False

    def say(text: str) -> None:
        nonlocal stopped
        tuning.said.append(text)
        if "are tried too" in text:
            stopped = True
        elif stopped and text.startswith("epoch 1"):
            stopped = False
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tuning(**WAY, epochs=3, say=say)
    place = tuning.results / "digits" if (tuning.results / "digits").is_dir() else tuning.results
    (left,) = place.glob("*.interrupted.predictions.csv")
    interrupted = read_predictions(left)
    shallow = tuning(**WAY, epochs=3, deepen=False)
    record = tuning(**WAY, epochs=3)
    assert any(text.startswith("continued after epoch 1") for text in tuning.said)
    assert not record["chosen"]["deeper"]["kept"]
    assert (record["unfreeze"], len(record["phases"])) == ("last", 1)
    assert record["chosen"]["epochs"] == shallow["chosen"]["epochs"]
    tables = [
        read_predictions(place / f"{one['run']}.predictions.csv") for one in (record, shallow)
    ]
    np.testing.assert_array_equal(*(one.probabilities for one in tables))
    assert len(interrupted.paths) == 84, "val, by the first training"
    assert not list(Path(place).glob("*.interrupted.*"))


@pytest.mark.parametrize(
    "other",
    [
        {"deepen": False}, {"unfreeze": "head"}, {"unfreeze": "all"}, {"init": "pretrained"},
        {"choose": "last"}, {"recipe": "late-adapted"}, {"tune": 3}, {"phases": ("epochs=1",)},
    ],
)  # fmt: skip
def test_only_the_default_training_goes_deeper(other):
    assert deeper_of(FinetuneSettings(**other)) is None
    found = deeper_of(FinetuneSettings(epochs=4, metric="auroc"))
    assert found is not None
    assert (found.epochs, found.metric, found.unfreeze, found.init) == (
        4,
        "auroc",
        "3",
        "pretrained",
    )
