"""Several processes, as torchrun starts them: two on a CPU compute what one does."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cnn_codes.results.runs import read_record
from safetensors.torch import load_file
from tuning import USUAL, few_images

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def images(hotdog: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return few_images(hotdog, tmp_path_factory.mktemp("images") / "few")


def _run(images: Path, cache: Path, results: Path, n: int, **settings: Any) -> dict[str, Any]:
    """Fine-tune in n processes; the record."""
    values = {**USUAL, "data": images, "cache": cache, "results": results, **settings}
    named = [f"{name.upper()}={value}" for name, value in values.items()]
    start = ["-m", "torch.distributed.run", f"--nproc-per-node={n}", "-m"] if n > 1 else ["-m"]
    done = subprocess.run(
        [sys.executable, *start, "pipeline", "finetune", *named],
        cwd=ROOT, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (path,) = (results / images.name).glob("finetune-*64-seed0-????????.json")
    return read_record(path, verify=True)


@pytest.mark.parametrize("trunk", ["cached", "loop"])
def test_two_processes_train_as_one_with_the_same_global_batch(
    images: Path, cache: Path, tmp_path: Path, trunk: str
) -> None:
    settings = {"trunk": trunk, "batch_size": 6, "init": "pretrained"}
    one = _run(images, cache, tmp_path / "one", 1, **settings)
    two = _run(images, cache, tmp_path / "two", 2, **settings)
    assert [row["epoch"] for row in one["curve"]] == [0, 1, 2]
    for a, b in zip(one["curve"], two["curve"], strict=True):
        assert a["epoch"] == b["epoch"]
        for key in ("train_loss", "val_loss", "train_accuracy", "val_accuracy", "lr"):
            if a.get(key) is not None:
                assert b[key] == pytest.approx(a[key], rel=1e-4, abs=1e-6), (key, a["epoch"])
    first, second = (
        load_file(tmp_path / name / images.name / f"{record['run']}.safetensors")
        for name, record in (("one", one), ("two", two))
    )
    for name, tensor in first.items():
        assert (tensor - second[name]).abs().max() <= 1e-4 * max(1.0, float(tensor.abs().max()))
    kept = [
        load_file(tmp_path / name / images.name / f"{record['run']}.train.safetensors")
        for name, record in (("one", one), ("two", two))
    ]
    assert kept[0].keys() == kept[1].keys() == {"codes", "labels", "paths"}
    for name, tensor in kept[0].items():
        assert (tensor.double() - kept[1][name].double()).abs().max() <= 1e-3
    # What the test would not see if nothing had been trained:
    assert one["curve"][-1]["train_loss"] < one["curve"][1]["train_loss"]


def test_only_the_first_process_speaks_and_writes(
    images: Path, cache: Path, tmp_path: Path
) -> None:
    record = _run(images, cache, tmp_path / "results", 2, epochs=1)
    names = sorted(path.name for path in (tmp_path / "results" / images.name).iterdir())
    stem = record["run"]
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
