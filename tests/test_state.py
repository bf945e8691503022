"""State dicts as training frameworks leave them: read without running code, matched by name."""

import argparse
import re
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from cnn_codes.backbones.card import load_network
from cnn_codes.errors import BackboneError
from cnn_codes.settings import CodesSettings
from safetensors.torch import save_file
from torch import nn

MODEL = "test_efficientnet"
HEAD = "classifier"


def load(folder: Path, weights: object, model: str = MODEL):
    settings = CodesSettings(model=model, weights=str(weights))
    return load_network(settings, cache=folder, seed=0, offline=True)


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> dict[str, torch.Tensor]:
    """Give the tensors of a network of the small kind, with 7 classes of its own."""
    settings = CodesSettings(model=MODEL, weights="none")
    _, network = load_network(settings, cache=tmp_path_factory.mktemp("own"), seed=3, offline=True)
    with torch.no_grad():  # not what a random start gives: BatchNorm has seen images
        for name, tensor in network.state_dict().items():
            if name.endswith(("running_mean", "running_var")):
                tensor.add_(torch.rand(tensor.shape))
    tensors = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    for part in ("weight", "bias"):
        tensors[f"{HEAD}.{part}"] = tensors[f"{HEAD}.{part}"][:7].clone()
    return tensors


def under(prefix: str, tensors: dict) -> dict:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def trunk(tensors: dict) -> dict:
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(HEAD)}


def noise(tensors: dict) -> dict:
    return {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}


def in_sequence(tensors: dict) -> dict:
    """An own head: Sequential(Dropout, Linear) in the place of the last layer."""
    return {name.replace(f"{HEAD}.", f"{HEAD}.1."): tensor for name, tensor in tensors.items()}


def two_layers(tensors: dict) -> dict:
    more = {f"{HEAD}.0.weight": torch.rand(64, 256), f"{HEAD}.0.bias": torch.rand(64),
            f"{HEAD}.3.weight": torch.rand(7, 64), f"{HEAD}.3.bias": torch.rand(7)}  # fmt: skip
    return trunk(tensors) | more


def inner_compiled(tensors: dict) -> dict:
    return {name.replace("blocks.", "blocks._orig_mod."): t for name, t in tensors.items()}


# How it is saved; what is saved; classes of the head that is used (0: none); what is said.
FOUND = {
    "plain": (lambda t: t, 7, ["head of 7 classes"]),
    "module": (lambda t: under("module.", t), 7, ["prefix module."]),
    "model": (lambda t: under("model.", t), 7, ["prefix model."]),
    "compiled": (lambda t: under("_orig_mod.", t), 7, []),
    "ddp compiled": (lambda t: under("module._orig_mod.", t), 7, ["prefix module."]),
    "part compiled": (inner_compiled, 7, []),
    "backbone": (lambda t: under("backbone.", trunk(t)), 0, ["prefix backbone.", "without a head"]),
    "encoder": (lambda t: under("encoder.", trunk(t)), 0, ["prefix encoder."]),
    "teacher": (lambda t: under("student.", noise(t)) | under("teacher.", t), 7,
                ["prefix teacher.", "other weights in it that fit too: prefix student."]),
    "deep prefix": (lambda t: under("model.net.backbone.", t), 7, ["prefix model.net.backbone."]),
    "headless": (trunk, 0, [f"without a head: {HEAD}.weight"]),
    "sequence": (in_sequence, 7, [f"head from {HEAD}.1"]),
    "two layers": (two_layers, 0, [f"its head is not used: {HEAD}.0.weight"]),
    "loss": (lambda t: under("model.", t) | {"criterion.weight": torch.ones(7)}, 7,
             ["not used: criterion.weight"]),
    "state_dict": (lambda t: {"state_dict": t, "epoch": 3}, 7, ["its state_dict"]),
    "model key": (lambda t: {"model": t, "optimizer": {"state": {}}, "args": None}, 7,
                  ["its model"]),
    "net": (lambda t: {"net": t, "acc": 91.2}, 7, ["its net"]),
    "average": (lambda t: {"state_dict": noise(t), "model_ema": t}, 7,
                ["its model_ema", "other weights in it that fit too: its state_dict"]),
    "timm": (lambda t: {"epoch": 1, "arch": MODEL, "state_dict": t, "state_dict_ema": t,
                        "version": 2}, 7, ["its state_dict"]),
    "lightning": (lambda t: {"epoch": 3, "global_step": 99, "pytorch-lightning_version": "2.4.0",
                             "state_dict": under("model.", t), "hyper_parameters": {"lr": 1e-3}},
                  7, ["its state_dict, prefix model."]),
    "averaged model": (lambda t: {"n_averaged": torch.tensor(5), **under("module.", t)}, 7, []),
    "nested": (lambda t: {"checkpoint": {"weights": {"model": t}}}, 7,
               ["its checkpoint.weights.model"]),
    "no counters": (lambda t: {k: v for k, v in t.items() if "num_batches" not in k}, 7, []),
    "half precision": (lambda t: {k: v.half() if v.is_floating_point() else v
                                  for k, v in t.items()}, 7, []),
    "ordered": (lambda t: OrderedDict(state_dict=OrderedDict(under("module.", t))), 7, []),
    "own wrapper": (lambda t: under("0.", trunk(t)) | {"2.weight": torch.rand(7, 256)}, 0,
                    ["prefix 0.", "not used: 2.weight"]),
}  # fmt: skip


@pytest.mark.parametrize("kind", FOUND)
def test_weights_are_read_however_they_were_saved(tmp_path, own, kind):
    save, n_classes, said = FOUND[kind]
    path = tmp_path / "own.ckpt"
    torch.save(save(own), path)
    card, network = load(tmp_path / "cache", path)
    state = network.state_dict()
    for name, tensor in trunk(own).items():
        if not name.endswith("num_batches_tracked"):
            close = 1e-2 if kind == "half precision" else 0
            assert torch.allclose(state[name], tensor, rtol=close, atol=close), name
    if n_classes:
        assert state[f"{HEAD}.weight"].shape == (7, 256)
        assert torch.allclose(state[f"{HEAD}.weight"], own[f"{HEAD}.weight"], rtol=1e-2, atol=1e-2)
    else:
        assert not state[f"{HEAD}.weight"].any()  # nothing random stands in for it
    assert card.origin.startswith("file own.ckpt")
    for words in said:
        assert words in card.origin


def test_safetensors_and_torch_files_of_the_same_weights_give_the_same_digest(tmp_path, own):
    save_file(under("model.", own), tmp_path / "a.safetensors")
    torch.save({"net": own}, tmp_path / "b.pth.tar")
    torch.save(own, tmp_path / "c.pt")
    digests = {
        load(tmp_path / "cache", tmp_path / name)[0].weights_digest
        for name in ("a.safetensors", "b.pth.tar", "c.pt")
    }
    assert len(digests) == 1


def test_codes_of_one_trunk_are_the_same_whatever_head_stands_on_it(tmp_path, own):
    codes = []
    for kind in ("plain", "headless", "sequence", "backbone", "two layers"):
        torch.save(FOUND[kind][0](own), tmp_path / f"{kind}.pth")
        _, network = load(tmp_path / "cache", tmp_path / f"{kind}.pth")
        kept: list[torch.Tensor] = []
        network.get_submodule(HEAD).register_forward_pre_hook(lambda m, i, k=kept: k.append(i[0]))
        with torch.inference_mode():
            network(torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
        codes.append(kept[0])
    assert all(torch.equal(codes[0], other) for other in codes[1:])


def test_a_file_in_the_working_folder_is_a_file_whatever_its_name(tmp_path, own, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(own, tmp_path / "last.ckpt")
    torch.save(own, tmp_path / "best_model")
    assert load(tmp_path / "cache", "last.ckpt")[0].origin.startswith("file last.ckpt")
    assert load(tmp_path / "cache", "best_model")[0].origin.startswith("file best_model")
    with pytest.raises(BackboneError, match=r"no weights file other\.ckpt"):
        load(tmp_path / "cache", "other.ckpt")


def test_a_checkpoint_that_names_code_is_refused_with_the_line_that_saves_the_tensors(
    tmp_path, own
):
    path = tmp_path / "namespace.ckpt"
    torch.save({"state_dict": own, "hyper_parameters": argparse.Namespace(lr=1e-3)}, path)
    with pytest.raises(BackboneError, match=r"argparse\.Namespace") as caught:
        load(tmp_path / "cache", path)
    assert "torch.save(" in caught.value.todo


def test_what_does_not_fit_is_named_not_counted(tmp_path, own):
    some = next(name for name in own if own[name].ndim == 4)
    lost = {k: v for k, v in own.items() if k != some}
    renamed = {k.replace("conv_head", "last_conv"): v for k, v in own.items()}
    renamed |= {"extra.weight": torch.ones(3)}
    odd = own | {some: torch.zeros(1, 2, 3, 4)}
    for tensors, words in (
        (under("model.", lost), [re.escape(some), "is not in the file", "prefix model."]),
        (renamed, ["conv_head.weight", "last_conv.weight", "are not in the network"]),
        (odd, [re.escape(some), re.escape("(1, 2, 3, 4)"), "of other shapes"]),
    ):
        torch.save(tensors, tmp_path / "odd.pth")
        with pytest.raises(BackboneError) as caught:
            load(tmp_path / "cache", tmp_path / "odd.pth")
        for word in words:
            assert re.search(word, caught.value.found), (word, caught.value.found)
        assert "MODEL" in caught.value.todo


def test_tensors_that_could_change_places_unseen_are_not_matched_by_order(tmp_path, own):
    """Weight and bias of a BatchNorm have one shape: in another order they would be swapped."""
    swapped: dict[str, torch.Tensor] = {}
    names = list(own)
    for i, name in enumerate(names):
        if name.endswith("bn1.weight"):
            bias = name.replace("weight", "bias")
            swapped |= {f"x.{i}.bias": own[bias], f"x.{i}.weight": own[name]}
        elif not name.endswith("bn1.bias"):
            swapped[f"x.{i}.{name.rpartition('.')[2]}"] = own[name]
    torch.save(swapped, tmp_path / "other.pth")
    with pytest.raises(BackboneError, match="does not fit"):
        load(tmp_path / "cache", tmp_path / "other.pth")
    in_order = {f"x.{i}.{n.rpartition('.')[2]}": own[n] for i, n in enumerate(names)}
    torch.save(in_order, tmp_path / "other.pth")
    card, network = load(tmp_path / "cache", tmp_path / "other.pth")
    assert "names matched by order" in card.origin
    assert torch.equal(network.state_dict()["bn2.weight"], own["bn2.weight"])


def test_a_small_file_of_a_huge_network_is_refused_before_it_takes_memory(tmp_path):
    torch.save({"a.weight": torch.zeros(100, 10)}, tmp_path / "small.pth")
    began = _resident_bytes()
    with pytest.raises(BackboneError, match=r"small\.pth holds 1,000 numbers"):
        load(tmp_path / "cache", tmp_path / "small.pth", "vit_huge_patch14_224")
    assert _resident_bytes() - began < 500e6  # the network has 2.5 GB


def _resident_bytes() -> float:
    import psutil

    return float(psutil.Process().memory_info().rss)


def test_two_headed_networks_take_their_file_without_either_head(tmp_path):
    import timm

    torch.manual_seed(5)
    plain: nn.Module = timm.create_model("levit_128s")
    torch.save(plain.state_dict(), tmp_path / "levit.pth")
    card, network = load(tmp_path / "cache", tmp_path / "levit.pth", "levit_128s")
    assert card.final == "pooled"
    assert "not used: head.* (6 tensors), head_dist.* (6 tensors)" in card.origin
    state = network.state_dict()
    assert all(torch.equal(state[n], t) for n, t in plain.state_dict().items() if n in state)
