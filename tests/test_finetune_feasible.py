"""What cannot be trained is refused before anything is trained, with the step that works."""

import re
from pathlib import Path

import pytest
import torch
from cnn_codes.cli import main
from cnn_codes.errors import TrainingError
from cnn_codes.finetune.feasible import check_size, smallest_batch
from conftest import SMALL, Inside
from pictures import write_set

TRAIN = SMALL | {"init": "random", "unfreeze": "all", "epochs": 1, "refit": 0}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_set(tmp_path / "set", 20)


REFUSED = {
    "batch of one, statistics updated": {"batch_size": 1, "bn": "update"},
    "batch of one, trained layers' statistics": {"batch_size": 1, "bn": "frozen"},
    "batch of one, default": {"batch_size": 1},
    "batch of one from the weights": {"batch_size": 1, "init": "pretrained", "bn": "update"},
    "batch of one after the probe": {"batch_size": 1, "init": "probe", "bn": "update"},
    "nearly all of train in val": {"val_fraction": 0.95},
    "no step": {"batch_size": 0},
}


@pytest.mark.parametrize("case", REFUSED)
def test_it_is_refused_in_three_parts(images: Path, inside: Inside, case: str) -> None:
    done = inside("finetune", data=images, **(TRAIN | REFUSED[case]))
    assert done.returncode == 2, done.stderr[-500:]
    assert "Traceback" not in done.stderr
    assert re.search(r"error: .+\nExpected: .+", done.stderr)


@pytest.mark.parametrize("way", ["BN=eval", "BATCH_SIZE"])
def test_the_advice_works(images: Path, inside: Inside, way: str) -> None:
    line = inside.line("finetune", data=images, **(TRAIN | {"batch_size": 1}))
    done = inside("finetune", data=images, **(TRAIN | {"batch_size": 1}))
    advised = re.search(rf"{way}(=\d+)?", done.stderr.partition("Next: ")[2])
    assert advised is not None
    assert main([*line[line.index("finetune") :], advised[0]]) == 0


def test_a_batch_of_one_is_trained_where_it_can_be(images: Path, inside: Inside) -> None:
    done = inside("finetune", data=images, **(TRAIN | {"batch_size": 1, "size": 64}))
    assert done.returncode == 0, done.stderr[-500:]


@pytest.mark.parametrize(
    ("n", "batch", "least"), [(33, 32, 16), (3, 2, 1), (1, 32, 1), (64, 32, 32), (5, 1, 1)]
)
def test_batches_are_cut_evenly(n: int, batch: int, least: int) -> None:
    assert smallest_batch(n, batch) == least


def test_a_size_that_a_network_cannot_take_is_named_with_one_that_it_can() -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 7), torch.nn.Conv2d(4, 4, 7))
    check_size(network, 13, model="two", usual=32)
    with pytest.raises(TrainingError, match="cannot take images of 12 x 12 px") as caught:
        check_size(network, 12, model="two", usual=32, command="make finetune DATA=x")
    assert caught.value.todo == "make finetune DATA=x SIZE=32"
