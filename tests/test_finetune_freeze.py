"""What UNFREEZE means on real architectures, and the late layers cut off from them."""

from pathlib import Path

import pytest
import torch
from cnn_codes.backbones.card import Card, load_network
from cnn_codes.errors import BackboneError, TrainingError
from cnn_codes.finetune.freeze import Plan, freeze, plan_of, training_mode
from cnn_codes.finetune.late import Late, cut
from cnn_codes.finetune.start import new_head
from cnn_codes.settings import CodesSettings
from torch import nn


def _network(model: str, cache: Path, n_classes: int = 3) -> tuple[Card, nn.Module]:
    settings = CodesSettings(model=model, weights="none")
    card, network = load_network(settings, cache=cache, seed=0, offline=True)
    new_head(network, card.final, n_classes, seed=0)
    return card, network


def _plan(model: str, unfreeze: str, cache: Path, size: int = 64) -> tuple[nn.Module, Plan]:
    card, network = _network(model, cache)
    return network, plan_of(network, card, unfreeze, size=size)


def _tops(plan: Plan) -> set[str]:
    return {name.split(".")[0] for name in plan.trained}


@pytest.mark.parametrize(
    ("unfreeze", "tops", "boundary"),
    [
        ("head", {"fc"}, "avgpool"),
        ("last", {"layer4", "fc"}, "layer3"),
        ("1", {"layer4", "fc"}, "layer3"),
        ("2", {"layer3", "layer4", "fc"}, "layer2"),
        ("layer4", {"layer4", "fc"}, "layer3"),
        ("layer4.1", {"layer4", "fc"}, "layer4.0"),
        ("fc", {"fc"}, "avgpool"),
        ("all", {"conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "fc"}, None),
    ],
)
def test_unfreeze_names_what_comes_after_a_boundary(
    unfreeze: str, tops: set[str], boundary: str | None, cache: Path
) -> None:
    network, plan = _plan("resnet18", unfreeze, cache)
    assert _tops(plan) == tops
    assert plan.boundary == boundary
    assert set(plan.trained) | set(plan.frozen) == {n for n, _ in network.named_parameters()}
    assert not set(plan.trained) & set(plan.frozen)
    if unfreeze == "layer4.1":
        assert not any(name.startswith("layer4.0") for name in plan.trained)


def test_efficientnet_three_stages_are_the_last_two_and_the_head_convolution(cache: Path) -> None:
    _, plan = _plan("efficientnet_lite0", "3", cache)
    assert plan.boundary == "blocks.4"
    assert _tops(plan) == {"blocks", "conv_head", "bn2", "classifier"}
    assert {name.split(".")[1] for name in plan.trained if name.startswith("blocks")} == {"5", "6"}
    assert f"{plan.n_trained:,}" in plan.summary()


def test_depth_counts_stages_from_the_scores(cache: Path) -> None:
    _, plan = _plan("resnet18", "all", cache)
    depths = {name: plan.depth[name] for name in ("fc.weight", "layer4.0.conv1.weight")}
    assert depths == {"fc.weight": 0, "layer4.0.conv1.weight": 1}
    assert plan.depth["layer3.0.conv1.weight"] == 2
    assert plan.depth["conv1.weight"] == max(plan.depth.values())


@pytest.mark.parametrize("unfreeze", ["layer5", "0", "9", "lay4"])
def test_unknown_layers_are_answered_with_the_known_ones(unfreeze: str, cache: Path) -> None:
    with pytest.raises(BackboneError, match="layer4"):
        _plan("resnet18", unfreeze, cache)


def test_nothing_left_to_train_is_an_error(cache: Path) -> None:
    card, network = _network("resnet18", cache)
    network.fc = nn.Flatten()  # type: ignore[assignment]  # a network without parameters at its end
    with pytest.raises(TrainingError, match="nothing to train"):
        plan_of(network, card, "avgpool", size=64)


@pytest.mark.parametrize(
    ("bn", "late_follows", "trunk_follows"),
    [("frozen", True, False), ("eval", False, False), ("update", True, True)],
)
def test_batch_norm_follows_the_data_where_it_should(
    bn: str, late_follows: bool, trunk_follows: bool, cache: Path
) -> None:
    network, plan = _plan("resnet18", "layer4", cache)
    freeze(network, plan)
    before = {n: b.clone() for n, b in network.named_buffers()}
    training_mode(network, plan, bn)
    network(torch.randn(4, 3, 64, 64))
    changed = {n for n, b in network.named_buffers() if not torch.equal(b, before[n])}
    assert any(n.startswith("layer4") for n in changed) == late_follows
    assert any(not n.startswith("layer4") for n in changed) == trunk_follows


@pytest.mark.parametrize(
    ("model", "unfreeze", "way", "size"),
    [
        ("resnet18", "layer4", "bypass", 64),
        ("resnet18", "head", "bypass", 64),
        ("efficientnet_lite0", "3", "bypass", 64),
        ("efficientnet_lite0", "head", "bypass", 64),
        ("mobilenet_v3_small", "last", "bypass", 64),
        ("densenet121", "last", "bypass", 64),
        ("timm/test_convnext", "last", "bypass", 64),
        ("timm/vit_tiny_patch16_224", "blocks.9", "substitute", 224),
    ],
)
def test_late_layers_score_as_the_whole_network(
    model: str, unfreeze: str, way: str, size: int, cache: Path
) -> None:
    network, plan = _plan(model, unfreeze, cache, size)
    network.eval()
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        expected = network(images)
    late, difference = cut(network, plan, images)
    assert late is not None
    assert late.way == way
    assert difference < 1e-5
    late.release()
    with torch.no_grad():
        assert torch.equal(network(images), expected)


def test_late_layers_of_other_activations_differ(cache: Path) -> None:
    network, plan = _plan("resnet18", "layer4", cache)
    late, _ = cut(network, plan, torch.randn(2, 3, 64, 64))
    assert late is not None
    x = torch.randn(3, 256, 4, 4)
    with torch.no_grad():
        assert late(x).shape == (3, 3)
        assert not torch.allclose(late(x), late(2 * x))


def test_a_cut_amid_a_residual_block_is_refused(cache: Path) -> None:
    network, plan = _plan("resnet18", "layer4.1.conv2", cache)
    late, _ = cut(network, plan, torch.randn(2, 3, 64, 64))
    assert late is None
    assert isinstance(network(torch.randn(2, 3, 64, 64)), torch.Tensor)  # left whole


def test_gradients_reach_the_late_layers_alone(cache: Path) -> None:
    network, plan = _plan("resnet18", "layer4", cache)
    freeze(network, plan)
    late = Late(network, plan)
    late(torch.randn(2, 256, 4, 4)).sum().backward()
    with_gradient = {n for n, p in network.named_parameters() if p.grad is not None}
    assert with_gradient == set(plan.trained)
