"""Optimisers, rates by layer and step, the moving average; augmentations by name."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from cnn_codes.backbones.preprocess import Preprocessing
from cnn_codes.errors import SettingsError
from cnn_codes.finetune.augment import NAMES, Augmentation
from cnn_codes.finetune.freeze import Plan
from cnn_codes.finetune.optim import Average, factor, optimizer_of, set_rates
from cnn_codes.settings import FinetuneSettings
from torch import nn


def _plan(network: nn.Module, depth: dict[str, int]) -> Plan:
    return Plan(
        unfreeze="", boundary=None, before=(), trained=tuple(depth), frozen=(),
        active=frozenset(), depth=depth, n_trained=0, n_parameters=0,
    )  # fmt: skip


def test_each_stage_has_its_share_of_the_rate() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    depth = {"2.weight": 0, "2.bias": 0, "1.weight": 1, "1.bias": 1, "0.weight": 2, "0.bias": 2}
    settings = FinetuneSettings(lr=0.1, head_lr=10.0, layer_decay=0.5)
    optimizer = optimizer_of(network, _plan(network, depth), settings)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([1.0, 0.1, 0.05])
    set_rates(optimizer, 0.02)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.2, 0.02, 0.01])
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 6


@pytest.mark.parametrize(
    ("name", "kind"),
    [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW),
     ("rmsprop", torch.optim.RMSprop)],
)  # fmt: skip
def test_optimizers_by_name_lower_a_loss(name: str, kind: type[Any]) -> None:
    torch.manual_seed(0)
    network = nn.Linear(3, 1)
    settings = FinetuneSettings(optimizer=name, lr=0.05, momentum=0.5)
    optimizer = optimizer_of(network, _plan(network, {"weight": 0, "bias": 0}), settings)
    assert type(optimizer) is kind
    x, losses = torch.randn(32, 3), []
    for _ in range(20):
        loss = (network(x) - x.sum(1, keepdim=True)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 2


def test_rates_rise_and_fall_as_the_schedule_says() -> None:
    cosine = FinetuneSettings(schedule="cosine", warmup=2.0)
    assert factor(cosine, 0.0, 10) == 0
    assert factor(cosine, 1.0, 10) == 0.5
    assert factor(cosine, 2.0, 10) == 1
    assert factor(cosine, 6.0, 10) == pytest.approx(0.5)
    assert factor(cosine, 10.0, 10) == pytest.approx(0, abs=1e-12)
    step = FinetuneSettings(schedule="step", step_epochs=7, step_factor=0.1, warmup=0.0)
    assert [factor(step, epoch, 25) for epoch in (0, 6.99, 7, 14)] == pytest.approx(
        [1, 1, 0.1, 0.01]
    )
    assert factor(FinetuneSettings(schedule="constant"), 9.5, 10) == 1


def test_the_average_is_the_exponential_one_and_a_second_swap_undoes_the_first() -> None:
    live = torch.tensor([1.0, -2.0])
    average = Average([live], decay=0.9)
    expected = live.double().clone()
    for n in range(30):
        live.add_(torch.tensor([0.5, 0.25]))
        average.update()
        decay = min(0.9, (1 + n) / (10 + n))
        # The first step takes the value itself.
        expected = live.double() if n == 0 else decay * expected + (1 - decay) * live.double()
    now = live.clone()
    average.swap()
    assert torch.allclose(live.double(), expected, rtol=1e-5)
    assert not torch.allclose(live, now)
    average.swap()
    assert torch.equal(live, now)


SQUARE = Preprocessing(
    size=24,
    crop_ratio=1.0,
    interpolation="bilinear",
    resize="crop",
    mean=(0.5,) * 3,
    std=(0.5,) * 3,
)


def _image() -> torch.Tensor:
    values = np.random.default_rng(0).integers(0, 256, (3, 40, 32), dtype=np.uint8)
    return torch.from_numpy(values)


@pytest.mark.parametrize("name", NAMES)
def test_augmentations_follow_from_the_seed_alone(name: str) -> None:
    number = {"resize": ":24", "rotate": ":30"}.get(name, "")
    names = [name + number] if name == "resize" else ["resize:30", name + number]
    augmentation = Augmentation([*names, "center-crop"], SQUARE)
    state = torch.get_rng_state()
    first = [augmentation(_image(), seed) for seed in range(12)]
    torch.rand(7)
    again = [augmentation(_image(), seed) for seed in range(12)]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert first[0].shape == (3, 24, 24)
    assert first[0].dtype == torch.uint8
    moves = name not in ("resize", "center-crop")
    assert moves == any(not torch.equal(first[0], other) for other in first[1:])
    torch.set_rng_state(state)


def test_a_flip_of_probability_one_flips() -> None:
    image = _image()
    plain = Augmentation(["resize:24"], SQUARE)(image, 0)
    flipped = Augmentation(["resize:24", "hflip:1"], SQUARE)(image, 0)
    assert torch.equal(flipped, plain.flip(-1))
    turned = {Augmentation(["resize:24", "dihedral"], SQUARE)(image, s).sum().item()
              for s in range(20)}  # fmt: skip
    assert turned == {plain.sum().item()}  # no pixel is lost or made


@pytest.mark.parametrize("names", [["sparkle"], ["rotate"], ["hflip:often"]])
def test_unknown_augmentations_are_answered(names: list[str]) -> None:
    with pytest.raises(SettingsError, match="AUGMENT="):
        Augmentation(names, SQUARE)


def test_a_result_of_another_size_is_answered() -> None:
    with pytest.raises(SettingsError, match="30 x 30"):
        Augmentation(["resize:30"], SQUARE)(_image(), 0)


@pytest.mark.parametrize(
    ("name", "value"), [("lr", -1.0), ("layer_decay", 1.5), ("lr", math.nan), ("batch_size", 0)]
)
def test_values_outside_their_ranges_are_answered(name: str, value: float) -> None:
    with pytest.raises(SettingsError, match=name.upper()):
        dataclasses.replace(FinetuneSettings(), **{name: value})


def test_the_error_of_a_mean_counts_groups_not_images():
    from cnn_codes.results.metrics import clustered_error

    rng = np.random.default_rng(0)
    values = rng.normal(size=60)
    alone = np.arange(60)
    expected = values.std(ddof=1) / np.sqrt(60)
    assert clustered_error(values, alone) == pytest.approx(expected)
    copies, groups = np.repeat(values, 5), np.repeat(alone, 5)
    assert clustered_error(copies, groups) == pytest.approx(expected)
    assert clustered_error(copies, np.arange(300)) < 0.5 * expected
    assert clustered_error(values, np.zeros(60, int)) == np.inf
