"""Several processes, as torchrun starts them: two on a CPU compute what one does."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import torch.distributed as dist
from cnn_codes.cli import main
from cnn_codes.errors import TrainingError
from cnn_codes.finetune.feasible import check_batches
from cnn_codes.finetune.freeze import Plan
from cnn_codes.finetune.norms import _normalised
from cnn_codes.results.runs import read_record
from safetensors.torch import load_file
from tuning import USUAL, few_images

ROOT = Path(__file__).parents[1]
BOTH: dict[str, Any] = {"batch_size": 6, "init": "pretrained"}
RUNS: dict[str, dict[str, Any]] = {
    "cached": BOTH | {"trunk": "cached"},
    "loop": BOTH | {"trunk": "loop"},
    "mixed": BOTH | {"trunk": "loop", "bn": "update", "mixup": 0.4},
    "probe": {"epochs": 1},
    "dropout": BOTH | {"model": "squeezenet1_1", "unfreeze": "last", "epochs": 1},
}

# The commands one after the other, as each process that torchrun starts runs them: libraries are
# loaded once. Each meets at a port of its own.
COMMANDS = """
import json, os, sys
from cnn_codes.cli import main
os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "False"
for port, arguments in json.loads(sys.argv[1]):
    os.environ["MASTER_PORT"] = str(port)
    if code := main(arguments):
        sys.exit(code)
"""


def _ports(n: int) -> list[int]:
    """Find ports that nothing uses."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@pytest.fixture(scope="module")
def images(hotdog: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return few_images(hotdog, tmp_path_factory.mktemp("images") / "few")


@contextmanager
def one_process() -> Iterator[None]:
    """Be a group of one process."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


def _arguments(images: Path, cache: Path, results: Path, **settings: Any) -> list[str]:
    values = {**USUAL, "data": images, "cache": cache, "results": results, **settings}
    return ["finetune", *(f"{name.upper()}={value}" for name, value in values.items())]


def _record(folder: Path) -> dict[str, Any]:
    (path,) = folder.glob("finetune-*64-seed0-????????.json")
    return read_record(path, verify=True)


@pytest.fixture(scope="module")
def two(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fine-tune in two processes with each of the settings; where the folders of results are."""
    folder = tmp_path_factory.mktemp("two")
    lines = [
        _arguments(images, folder / "cache", folder / name, **settings)
        for name, settings in RUNS.items()
    ]
    (folder / "commands.py").write_text(COMMANDS)
    start = ["-m", "torch.distributed.run", "--nproc-per-node=2", str(folder / "commands.py")]
    done = subprocess.run(
        [sys.executable, *start, json.dumps([*zip(_ports(len(lines)), lines, strict=True)])],
        cwd=ROOT, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (folder / "said.txt").write_text(done.stdout)
    return folder


@pytest.mark.parametrize("name", ["cached", "loop", "mixed"])
def test_two_processes_train_as_one_with_the_same_global_batch(
    images: Path, two: Path, tmp_path: Path, name: str
) -> None:
    assert main(_arguments(images, two / "cache", tmp_path / "one", **RUNS[name])) == 0
    folders = (tmp_path / "one" / images.name, two / name / images.name)
    records = one, other = [_record(folder) for folder in folders]
    assert [row["epoch"] for row in one["curve"]] == [0, 1, 2]
    assert (one["processes"], other["processes"]) == (1, 2)
    assert not any("dropout" in text for text in other["warnings"])
    for a, b in zip(one["curve"], other["curve"], strict=True):
        assert a["epoch"] == b["epoch"]
        for key in ("train_loss", "val_loss", "train_accuracy", "val_accuracy", "lr"):
            if a.get(key) is not None:
                assert b[key] == pytest.approx(a[key], rel=1e-4, abs=1e-6), (key, a["epoch"])
    first, second = (
        load_file(folder / f"{record['run']}.safetensors")
        for folder, record in zip(folders, records, strict=True)
    )
    for name, tensor in first.items():
        assert (tensor - second[name]).abs().max() <= 1e-4 * max(1.0, float(tensor.abs().max()))
    kept = [
        load_file(folder / f"{record['run']}.train.safetensors")
        for folder, record in zip(folders, records, strict=True)
    ]
    assert kept[0].keys() == kept[1].keys() == {"codes", "labels", "paths"}
    for name, tensor in kept[0].items():
        assert (tensor.double() - kept[1][name].double()).abs().max() <= 1e-3
    # What the test would not see if nothing had been trained:
    assert one["curve"][-1]["train_loss"] < one["curve"][1]["train_loss"]


def test_only_the_first_process_speaks_and_writes(images: Path, two: Path) -> None:
    folder = two / "probe" / images.name
    stem = _record(folder)["run"]
    names = sorted(path.name for path in folder.iterdir())
    assert names == sorted(
        f"{stem}{suffix}"
        for suffix in (
            ".json",
            ".model.json",
            ".safetensors",
            ".train.safetensors",
            ".predictions.csv",
            ".curve.svg",
        )
    )
    said = (two / "said.txt").read_text()
    assert said.count(f"{stem}.json") == 1
    assert said.lower().count("macro-f1") == len(RUNS)


def test_dropout_drawn_by_each_process_is_said(images: Path, two: Path) -> None:
    (warning,) = [w for w in _record(two / "dropout" / images.name)["warnings"] if "dropout" in w]
    assert "Each of 2 processes drew its own dropout" in warning


def test_a_batch_that_is_too_small_for_the_processes_is_refused() -> None:
    network, plan = torch.nn.Identity(), cast(Plan, None)  # neither is looked at
    sizes = {"size": 64, "n_images": 24, "batch_size": 2}
    check_batches(network, plan, "eval", **sizes, n_processes=2)
    with pytest.raises(TrainingError, match=r"2 images .* shared by 3 processes") as caught:
        check_batches(network, plan, "eval", **sizes, n_processes=3)
    assert "WORKERS=" in str(caught.value.todo)


def test_statistics_of_a_channel_far_from_zero_are_those_of_torch() -> None:
    torch.manual_seed(0)
    x = 100 + torch.randn(16, 3, 4, 4) * 0.5
    ours, exact = torch.nn.BatchNorm2d(3).train(), torch.nn.BatchNorm2d(3).double().train()
    with one_process():
        assert torch.allclose(_normalised(ours, x).double(), exact(x.double()), atol=1e-4)
    assert torch.allclose(ours.running_mean.double(), exact.running_mean)
    assert torch.allclose(ours.running_var.double(), exact.running_var, rtol=1e-4)
