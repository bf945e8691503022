"""What is answered when the device has no memory for a batch, and training on a GPU."""

from pathlib import Path

import pytest
import torch
from cnn_codes.errors import DeviceError
from cnn_codes.finetune.train import largest_fitting
from cnn_codes.settings import PlaceSettings
from tuning import Tuning, few_images


@pytest.mark.parametrize(("fits", "expected"), [(100, 32), (32, 32), (31, 16), (5, 4), (1, 1)])
def test_the_largest_batch_that_fits_is_found_by_halving(fits: int, expected: int) -> None:
    tried = []

    def attempt(n: int) -> None:
        tried.append(n)
        if n > fits:
            raise torch.OutOfMemoryError

    assert largest_fitting(64, attempt) == expected
    assert tried == sorted(tried, reverse=True)


def test_where_not_even_one_image_fits_there_is_none() -> None:
    def attempt(n: int) -> None:
        raise torch.OutOfMemoryError

    assert largest_fitting(64, attempt) == 0


@pytest.fixture
def tuning(hotdog: Path, cache: Path, tmp_path: Path) -> Tuning:
    images = few_images(hotdog, tmp_path / "few")
    return Tuning(images, PlaceSettings(cache=str(cache), results=str(tmp_path / "results")))


def test_a_batch_without_memory_is_answered_with_one_that_fits(
    tuning: Tuning, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The one thing that a machine without a GPU cannot bring about: its own refusal of memory.
    from cnn_codes.finetune import train

    usual = train._step

    def scarce(training: object, x: torch.Tensor, *others: object) -> tuple[float, int]:
        if len(x) > 3:
            raise torch.OutOfMemoryError
        return usual(training, x, *others)

    monkeypatch.setattr(train, "_step", scarce)
    with pytest.raises(DeviceError, match="BATCH_SIZE=3") as raised:
        tuning(batch_size=8)
    assert "at most 3 images a step" in str(raised.value)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "mixed"])
@pytest.mark.parametrize("trunk", ["cached", "loop"])
def test_training_on_a_gpu_lowers_the_loss(tuning: Tuning, precision: str, trunk: str) -> None:
    record = tuning(device="cuda", precision=precision, trunk=trunk, epochs=3, init="pretrained")
    losses = [row["train_loss"] for row in record["curve"] if row["epoch"]]
    assert losses[-1] < losses[0]
    assert record["device"].startswith("cuda")
    assert record["peak_memory_bytes"] > 0


@pytest.mark.gpu
def test_a_gpu_trains_as_the_cpu_does(tuning: Tuning) -> None:
    on_gpu = tuning(device="cuda", init="pretrained")
    (tuning.results / f"{on_gpu['run']}.json").unlink()  # else it would be taken for the other's
    on_cpu = tuning(device="cpu", init="pretrained")
    assert (on_gpu["device"], on_cpu["device"]) == ("cuda:0", "cpu")
    for a, b in zip(on_gpu["curve"], on_cpu["curve"], strict=True):
        assert a["val_loss"] == pytest.approx(b["val_loss"], rel=1e-2)
