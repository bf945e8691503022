"""Several processes, as torchrun starts them: two on a CPU compute what one does."""

import json
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from cnn_codes.cli import main
from cnn_codes.results.runs import read_record
from safetensors.torch import load_file
from tuning import USUAL, few_images

ROOT = Path(__file__).parents[1]
BOTH: dict[str, Any] = {"batch_size": 6, "init": "pretrained"}
RUNS: dict[str, dict[str, Any]] = {
    "cached": BOTH | {"trunk": "cached"},
    "loop": BOTH | {"trunk": "loop"},
    "probe": {"epochs": 1},
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


@pytest.mark.parametrize("trunk", ["cached", "loop"])
def test_two_processes_train_as_one_with_the_same_global_batch(
    images: Path, two: Path, tmp_path: Path, trunk: str
) -> None:
    assert main(_arguments(images, two / "cache", tmp_path / "one", **RUNS[trunk])) == 0
    folders = (tmp_path / "one" / images.name, two / trunk / images.name)
    records = one, other = [_record(folder) for folder in folders]
    assert [row["epoch"] for row in one["curve"]] == [0, 1, 2]
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
