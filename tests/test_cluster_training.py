"""Fine-tuning on a local Ray of two workers: as one process trains, whatever is killed."""

import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from cnn_codes.cluster.connection import Node
from cnn_codes.cluster.gang import Gang, _environments, _Location
from cnn_codes.errors import ClusterError
from cnn_codes.finetune.workers import _Plan, _work
from cnn_codes.results.runs import read_record
from safetensors.torch import load_file
from spreading import Spread, needs_ray
from tuning import USUAL, few_images

slow = pytest.mark.slow
SETTINGS: dict[str, Any] = USUAL | {
    "unfreeze": "all",
    "init": "pretrained",
    "bn": "update",
    "epochs": 12,
    "lr": 5e-4,
    "augment": "hflip",
    "choose": "last",
}


def test_processes_fit_onto_machines():
    four, eight = Node(4, 0), Node(8, 0)
    assert Gang.on([four], 0, gpu=False, most=8) == Gang(4, 1, 0)
    assert Gang.on([four], 2, gpu=False, most=8) == Gang(2, 2, 0)
    assert Gang.on([four], 9, gpu=False, most=8) == Gang(4, 1, 0)
    assert Gang.on([four, eight], 0, gpu=False, most=3) == Gang(3, 4, 0)
    assert Gang.on([Node(3, 0), Node(5, 0)], 4, gpu=False, most=8) == Gang(4, 1, 0)
    assert Gang.on([Node(8, 4), eight], 0, gpu=True, most=8) == Gang(4, 2, 1)
    assert Gang.on([Node(8, 4), Node(4, 1)], 8, gpu=True, most=8) == Gang(5, 2, 1)
    assert Gang.on([], 0, gpu=True, most=8) == Gang(1, 1, 1)


def test_processes_are_told_what_torchrun_tells():
    locations = [_Location("a", "10.0.0.1", 5000, ("0",)), _Location("a", "10.0.0.1", 5001, ("3",))]
    locations += [_Location("b", "10.0.0.2", 5002, ("1",))]
    found = _environments(locations)
    assert [one["RANK"] for one in found] == ["0", "1", "2"]
    assert [one["LOCAL_RANK"] for one in found] == ["0", "1", "0"]
    assert [one["LOCAL_WORLD_SIZE"] for one in found] == ["2", "2", "1"]
    assert {one["WORLD_SIZE"] for one in found} == {"3"}
    assert {(one["MASTER_ADDR"], one["MASTER_PORT"]) for one in found} == {("10.0.0.1", "5000")}
    assert [one["CUDA_VISIBLE_DEVICES"] for one in found] == ["0,3", "0,3", "1"]


def test_a_worker_that_does_not_see_the_results_says_so(tmp_path):
    plan = _Plan(None, None, None, tmp_path / "mark", waits=True)  # the mark is looked at first
    with pytest.raises(ClusterError, match="does not see") as caught:
        _work(print, plan)
    assert "RESULTS=" in str(caught.value.todo)


@pytest.fixture(scope="module")
def images(hotdog: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return few_images(hotdog, tmp_path_factory.mktemp("images") / "few", n_train=40)


class Training(Spread):
    """``finetune`` on a Ray of two workers, and what it leaves."""

    def __init__(self, images: Path, folder: Path, **settings: Any) -> None:
        self.results = folder / "results" / images.name
        places = {"data": images, "cache": folder / "cache", "results": folder / "results"}
        super().__init__("finetune", **{**SETTINGS, **places, **settings})

    def state(self) -> float:
        """When the state was written last; 0: there is none."""
        return max((one.stat().st_mtime for one in self.results.glob(".*.state")), default=0.0)

    def wait_for_epoch(self, after: float) -> None:
        while self.process.poll() is None and self.state() <= after:
            time.sleep(0.02)

    def left(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Give the record and the network's tensors."""
        (path,) = self.results.glob("finetune-*64-seed0-????????.json")
        record = read_record(path, verify=True)
        assert not [*self.results.glob(".*")], "something is left over"
        return record, load_file(path.parent / f"{record['run']}.safetensors")


def same(one: Training, other: Training, tolerance: float) -> None:
    (a, first), (b, second) = one.left(), other.left()
    assert [row["epoch"] for row in a["curve"]] == [row["epoch"] for row in b["curve"]]
    for x, y in zip(a["curve"], b["curve"], strict=True):
        for key in ("train_loss", "val_loss"):
            if x.get(key) is not None:
                assert y[key] == pytest.approx(x[key], rel=tolerance, abs=tolerance)
    for name, tensor in first.items():
        difference = (tensor.double() - second[name].double()).abs().max()
        assert difference <= 10 * tolerance * max(1.0, float(tensor.abs().max())), name


@pytest.fixture(scope="module")
def undisturbed(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Training:
    run = Training(images, tmp_path_factory.mktemp("undisturbed"))
    assert "2 Ray workers on 1 machine, each with 1 core" in run.end()
    return run


@needs_ray
@slow
@pytest.mark.timeout(300)
def test_two_workers_train_as_one_process(images: Path, undisturbed: Training, tmp_path: Path):
    # Two epochs: rounding, 2e-9 of the loss at the start, is tenfold after each further one.
    short = {"epochs": 2, "schedule": "constant", "warmup": 0}
    alone = Training(images, tmp_path / "alone", cluster="", **short)
    alone.end()
    spread = Training(images, tmp_path / "spread", **short)
    spread.end()
    same(alone, spread, 1e-5)
    records = alone.left()[0], spread.left()[0]
    assert [one["processes"] for one in records] == [1, 2]
    losses = [row["train_loss"] for row in undisturbed.left()[0]["curve"][1:]]
    assert losses[-1] < 0.97 * losses[0], "nothing was learnt, so nothing was shown"


@needs_ray
@slow
@pytest.mark.timeout(900)
def test_workers_killed_in_training_lose_nothing(
    images: Path, undisturbed: Training, tmp_path: Path
):
    choice = random.Random(0)
    run = Training(images, tmp_path)
    killed, last = 0, 0.0
    while killed < 5 and run.process.poll() is None:
        run.wait_for_epoch(last)
        time.sleep(choice.uniform(0, 0.3))
        last = run.state()
        if workers := run.workers():
            os.kill(choice.choice(workers).pid, signal.SIGKILL)
            killed += 1
    out = run.end()
    assert killed >= 3
    assert out.count("all start again from what is written") >= 3
    assert "continued after epoch" in out
    same(undisturbed, run, 0.0)


@needs_ray
@slow
@pytest.mark.timeout(900)
def test_drivers_killed_in_training_lose_nothing(
    images: Path, undisturbed: Training, tmp_path: Path
):
    last = 0.0
    for _ in range(3):
        run = Training(images, tmp_path)
        run.wait_for_epoch(last)
        last = run.state()
        workers = run.workers()
        run.process.kill()
        run.process.communicate()
        psutil.wait_procs(workers, timeout=30)
        assert run.state(), "the state was lost"
    run = Training(images, tmp_path)
    assert "continued after epoch" in run.end()
    same(undisturbed, run, 0.0)


@needs_ray
@slow
def test_what_a_worker_refuses_is_said_as_everywhere(images: Path, tmp_path: Path):
    run = Training(images, tmp_path, batch_size=1)
    out, _ = run.process.communicate(timeout=200)
    assert run.process.returncode == 2
    assert "cannot be shared by 2 processes" in out
    assert "Traceback" not in out
