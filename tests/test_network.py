"""What is found inside networks, and what is tapped from them, against plain PyTorch."""

from pathlib import Path

import numpy as np
import pytest
import torch
from cnn_codes.backbones.card import load_card, load_network
from cnn_codes.backbones.catalog import PACKAGED, find, nearest
from cnn_codes.backbones.engine import open_engine
from cnn_codes.backbones.last import settle_last_layer
from cnn_codes.backbones.network import survey
from cnn_codes.backbones.pooling import check_pool
from cnn_codes.backbones.preprocess import Views, read_views
from cnn_codes.backbones.tapped import Tapped
from cnn_codes.errors import BackboneError, SettingsError
from cnn_codes.settings import CodesSettings, MachineSettings
from conftest import SMALL
from pictures import photograph, write_set
from torch import nn
from torch.nn import functional

NETWORKS = [  # of timm and torchvision: convolutions, a pointwise one as last layer, tokens
    "test_efficientnet",
    "test_resnet",
    "test_convnext",
    "test_vit",
    "squeezenet1_1",
    "shufflenet_v2_x0_5",
    "resnet18",
]


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """Give networks with random weights and their cards, each made once."""
    folder, made = tmp_path_factory.mktemp("networks"), {}

    def get(model):
        if model not in made:
            settings = CodesSettings(model=model, weights="none")
            made[model] = load_network(settings, cache=folder, seed=0, offline=True)
        return made[model]

    return get


def watched(network: nn.Module, x: torch.Tensor, names: list[str]) -> dict[str, torch.Tensor]:
    """Run a network as anybody would, and keep what these modules gave."""
    kept: dict[str, torch.Tensor] = {}
    handles = [
        network.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: kept.__setitem__(name, output)
        )
        for name in names
    ]
    with torch.no_grad():
        network.eval()(x)
    for handle in handles:
        handle.remove()
    return kept


@pytest.mark.parametrize("model", NETWORKS)
def test_stages_and_the_final_layer_of_any_network_are_found(seen, model):
    card, network = seen(model)
    assert card.final is not None
    last = network.get_submodule(card.final)
    n_scores = last.out_features if isinstance(last, nn.Linear) else last.out_channels
    assert n_scores == 1000
    assert 3 <= len(card.stages) <= 10
    assert list(card.layers)[-1] == card.final
    places = [list(card.layers).index(stage) for stage in card.stages]
    assert places == sorted(places)
    assert not network.training
    sizes = [shape[-1] for stage in card.stages if len(shape := card.layers[stage]) == 3]
    assert sizes == sorted(sizes, reverse=True)  # resolution only falls


@pytest.mark.parametrize("model", NETWORKS)
def test_all_layers_come_in_one_pass_and_are_what_plain_pytorch_gives(seen, model):
    card, network = seen(model)
    layers = card.resolve(("all",))
    assert layers[-1] == "final"
    assert set(layers[:-1]) == set(card.stages) - {card.pooled_is_final}
    size = card.preprocessing.size
    images = np.random.default_rng(0).integers(0, 256, (3, size, size, 3), np.uint8)
    runs = []
    handle = network.register_forward_pre_hook(lambda *_: runs.append(1))
    codes = dict(zip(layers, tapped(card, network, layers, "mean")(images), strict=True))
    handle.remove()
    assert len(runs) == 1
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in plain_colours(card))
    x = (torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - mean) / std
    outputs = watched(network, x, [*layers[:-1]])
    for layer in layers[:-1]:
        whole = outputs[layer]
        if whole.ndim == 4 and whole.shape[1] == whole.shape[2] != whole.shape[3]:
            whole = whole.permute(0, 3, 1, 2)
        plain = whole.mean((2, 3)) if whole.ndim == 4 else whole.mean(1)
        assert close(codes[layer], plain.numpy()), layer
    # The final layer is what the last linear layer is given: put through it, it gives the scores.
    last = network.get_submodule(card.final)
    with torch.no_grad():
        scores = network(x)
        code = torch.from_numpy(codes["final"])
        if isinstance(last, nn.Linear):
            assert close(last(code).numpy(), scores.numpy())
    assert codes["final"].shape == (3, getattr(last, "in_features", None) or last.in_channels)


def plain_colours(card):
    return card.preprocessing.mean, card.preprocessing.std


def tapped(card, network, layers, pool, **options):
    """Give a function from bytes to the codes of these layers; the network stays as it was."""
    import copy

    module = Tapped(
        copy.deepcopy(network), layers, card.final, pool, card.preprocessing,
        tokens=card.tokens, **options,
    ).eval()  # fmt: skip

    def run(images):
        with torch.inference_mode():
            return [output.numpy() for output in module(torch.from_numpy(images))]

    return run


def close(a: np.ndarray, b: np.ndarray, tolerance: float = 1e-3) -> bool:
    """Compare to a share of the largest value, which is how the engines' tolerance is stated."""
    return a.shape == b.shape and float(np.abs(a - b).max()) <= tolerance * float(np.abs(b).max())


@pytest.mark.parametrize("pool", ["max", "grid:2", "grid:3", "none"])
def test_pooling_is_what_torch_pools(seen, pool):
    card, network = seen("test_resnet")
    layer = card.stages[-1]
    size = 150  # maps of 5 x 5: bins of a grid overlap
    images = np.random.default_rng(1).integers(0, 256, (2, size, size, 3), np.uint8)
    (codes,) = tapped(card, network, (layer,), pool)(images)
    (whole,) = tapped(card, network, (layer,), "none", stop_early=False)(images)
    whole = torch.from_numpy(whole)
    expected = {
        "max": lambda: whole.amax((2, 3)),
        "grid:2": lambda: functional.adaptive_avg_pool2d(whole, 2).flatten(1),
        "grid:3": lambda: functional.adaptive_avg_pool2d(whole, 3).flatten(1),
        "none": lambda: whole,
    }[pool]()
    assert close(codes, expected.numpy(), 1e-6)


@pytest.mark.parametrize("pool", ["", "median", "grid", "grid:1", "grid:9", "grid:x", "grid:-2"])
def test_unknown_pooling_is_refused(pool):
    with pytest.raises(SettingsError, match="POOL="):
        check_pool(pool)


def test_tokens_have_no_grid(seen):
    card, network = seen("test_vit")
    images = np.zeros((1, card.preprocessing.size, card.preprocessing.size, 3), np.uint8)
    with pytest.raises(BackboneError, match="tokens"):
        tapped(card, network, (card.stages[0],), "grid:2")(images)


def test_looking_at_a_network_changes_nothing_in_it(seen):
    _, network = seen("test_efficientnet")
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules())
    network.train()
    survey(network, 64)
    assert network.training
    network.eval()
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert hooks == sum(
        len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules()
    )


def test_a_network_that_is_no_classifier_or_takes_no_such_size_is_answered(seen):
    with pytest.raises(BackboneError, match="not one score for each class"):
        survey(nn.Conv2d(3, 5, 1), 8)
    _, network = seen("squeezenet1_1")
    with pytest.raises(BackboneError, match="8 x 8"):
        survey(network, 8)
    headless = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert survey(headless, 16).final is None  # its output itself is then the final layer


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("resnet81", "resnet18"),
        ("efficientnet-lite0", "efficientnet_lite0"),
        ("ResNet50", "resnet50"),
        ("mobilnet_v3_large", "mobilenet_v3_large"),
        ("timm/resnet5O", "resnet50"),
    ],
)
def test_unknown_networks_answer_with_the_nearest(typed, meant):
    with pytest.raises(BackboneError, match=f"no network called {typed}") as caught:
        find(typed)
    assert meant in caught.value.todo


def test_a_library_may_be_named_where_both_have_the_network():
    assert find("resnet18").library == "torchvision"
    assert find("timm/resnet18").library == "timm"
    assert find("torchvision/resnet18").name == "resnet18"
    assert find("resnet18.a1_in1k").library == "timm"
    assert {find(name).library for name in PACKAGED} == {"packaged"}
    with pytest.raises(BackboneError):
        find("torchvision/test_resnet")  # which timm alone has
    with pytest.raises(BackboneError):
        find("resnet18.no_such_weights")


def test_unknown_layers_answer_with_the_stages_and_the_nearest(seen):
    card, _ = seen("test_efficientnet")
    with pytest.raises(BackboneError, match="no layer blocks9") as caught:
        card.resolve(("blocks9",))
    assert card.stages[0] in caught.value.expected
    assert "blocks" in caught.value.todo
    assert nearest("zzz", ["a", "b"]) == ["a", "b"]


def test_layers_named_twice_come_once_in_the_order_asked_for(seen):
    card, _ = seen("test_efficientnet")
    some = card.stages[0]
    assert card.resolve(("final", some, "final")) == ("final", some)
    assert card.resolve((some, "all"))[0] == some
    assert len(set(card.resolve((some, "all")))) == len(card.resolve((some, "all")))


@pytest.mark.parametrize("model", ["test_resnet", "shufflenet_v2_x0_5"])
def test_all_layers_of_networks_of_both_libraries_reach_the_cache(stage_one, tmp_path, model):
    done = stage_one(
        write_set(tmp_path / "pets", 10), model=model, layers=("all",), size=64, engine="torch"
    )
    card = load_card(
        CodesSettings(model=model, weights="none"), cache=stage_one.cache, seed=0, offline=True
    )
    assert done.codes.layers == card.resolve(("all",))
    assert len(done.codes.layers) >= 3
    for layer in done.codes.layers:
        assert done.codes[layer].shape[0] == 10
        assert np.ptp(done.codes[layer], axis=0).max() > 0  # images differ
    assert done.codes.matrix().shape == (
        10, 1, sum(done.codes[layer].shape[1] for layer in done.codes.layers),
    )  # fmt: skip


def imagenet_classes(paths: list[Path], cache: Path) -> torch.Tensor:
    """Give the most probable ImageNet class of each image by the packaged Lite0, (N,)."""
    card, network = load_network(CodesSettings(), cache=cache, seed=0, offline=True)
    batch = np.concatenate([views_of(path, card.preprocessing) for path in paths])
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in plain_colours(card))
    x = (torch.from_numpy(batch).permute(0, 3, 1, 2) / 255 - mean) / std
    with torch.inference_mode():
        return network(x).argmax(1)


def test_the_lite0_weights_know_a_uniform_and_a_palace(tmp_path):
    """The packaged state dict has other names than timm's network; this is what shows it fits."""
    for name in ("portrait", "china"):
        photograph(name).save(tmp_path / f"{name}.png")
    found = imagenet_classes([tmp_path / "portrait.png", tmp_path / "china.png"], tmp_path)
    assert found[0] in (400, 652)  # "academic gown", "military uniform"
    assert found[1] == 698  # "palace"


def test_the_lite0_weights_know_a_hot_dog(real_hotdog, tmp_path):
    shares = {}
    for kind in ("hotdog", "not-hotdog"):
        paths = sorted((real_hotdog / "test" / kind).iterdir())[::13]
        shares[kind] = float((imagenet_classes(paths, tmp_path) == 934).float().mean())
    assert shares["hotdog"] > 0.8
    assert shares["not-hotdog"] < 0.1


def views_of(path: Path, preprocessing) -> np.ndarray:
    return read_views(path.read_bytes(), preprocessing, Views.parse("center", 0), "")


def parity(images: list[Path], codes: CodesSettings, cache: Path) -> dict[str, float]:
    """Give, a layer, the largest difference of ONNX codes from plain PyTorch over its largest."""
    where = {"cache": cache, "seed": 0, "offline": True}
    card, network = load_network(codes, **where)
    preprocessing = card.preprocessing.adapted(size=codes.size, resize=codes.resize)
    layers = card.resolve(codes.layers)
    pixels = np.concatenate([views_of(path, preprocessing) for path in images])
    engine = open_engine(
        card, layers, preprocessing, codes, MachineSettings(engine="onnx"), **where
    )
    outputs = [engine.run(pixels[i : i + 4]) for i in range(0, len(pixels), 4)]
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in plain_colours(card))
    x = (torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - mean) / std
    names = [card.final if layer == "final" else layer for layer in layers]
    plain: dict[str, torch.Tensor] = {}
    handle = network.get_submodule(card.final).register_forward_pre_hook(
        lambda module, inputs: plain.__setitem__("final", inputs[0])
    )
    plain |= {k: v for k, v in watched(network, x, names).items() if k != card.final}
    handle.remove()
    differences = {}
    for i, layer in enumerate(layers):
        got, reference = np.concatenate([output[i] for output in outputs]), plain[layer]
        if reference.ndim == 4:
            kind, _, k = codes.pool.replace("default", "mean").partition(":")
            pooled = {
                "mean": lambda x, k: x.mean((2, 3)),
                "max": lambda x, k: x.amax((2, 3)),
                "grid": lambda x, k: functional.adaptive_avg_pool2d(x, int(k)).flatten(1),
            }[kind]
            reference = pooled(reference, k)
        expected = reference.numpy()
        assert got.shape == expected.shape
        differences[layer] = float(np.abs(got - expected).max() / np.abs(expected).max())
    return differences


def some_hotdogs(hotdog: Path, n: int) -> list[Path]:
    paths = sorted((hotdog / "test").glob("*/*"))
    return paths[:: len(paths) // n][:n]


def test_onnx_codes_of_real_images_agree_with_plain_pytorch(hotdog, cache):
    """EfficientNet-Lite0's own weights, every stage in one pass."""
    differences = parity(some_hotdogs(hotdog, 16), CodesSettings(layers=("all",)), cache)
    assert len(differences) >= 5
    assert max(differences.values()) < 1e-3, differences


@pytest.mark.parametrize("pool", ["max", "grid:2"])
@pytest.mark.parametrize("model", ["test_efficientnet"])
def test_onnx_codes_agree_under_every_pooling(hotdog, cache, model, pool):
    codes = CodesSettings(**SMALL | {"model": model}, layers=("all",), pool=pool)
    differences = parity(some_hotdogs(hotdog, 16), codes, cache)
    assert max(differences.values()) < 1e-3, differences


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "pool"),
    [("efficientnet_lite0", "max"), ("efficientnet_lite0", "grid:2"), ("resnet18", "mean"),
     ("test_vit", "mean"), ("test_convnext", "max"), ("mobilenet_v3_large", "mean")],
)  # fmt: skip
def test_onnx_codes_agree_for_more_networks(hotdog, cache, model, pool):
    weights = "default" if model in PACKAGED else "none"
    codes = CodesSettings(model=model, weights=weights, layers=("all",), pool=pool)
    differences = parity(some_hotdogs(hotdog, 16), codes, cache)
    assert max(differences.values()) < 1e-3, differences


TWO_HEADS = ["deit_tiny_distilled_patch16_224", "levit_128s", "repvit_m0_9", "efficientvim_m1"]


@pytest.mark.parametrize("model", TWO_HEADS)
def test_two_averaged_heads_are_no_last_layer_and_the_features_before_them_are_the_codes(
    tmp_path, model
):
    """Each head has the width of the output; neither gives it."""
    import timm

    card, network = load_network(
        CodesSettings(model=model, weights="none"), cache=tmp_path, seed=0, offline=True
    )
    assert card.final == "pooled"
    assert list(card.layers)[-1] == "pooled"
    torch.manual_seed(0)
    plain = timm.create_model(model).eval()
    x = torch.rand(2, 3, card.preprocessing.size, card.preprocessing.size)
    with torch.inference_mode():
        expected = plain.forward_head(plain.forward_features(x), pre_logits=True)
        network.load_state_dict({k: v for k, v in plain.state_dict().items()
                                 if k in network.state_dict()})  # fmt: skip
        given = network(x)
    if expected.shape == given.shape:  # where timm says what is before the heads
        assert close(given.numpy(), expected.numpy(), 1e-5)
    assert given.shape == (2, *card.layers["pooled"])
    assert card.refound  # so codes of earlier versions are not taken for these


class Halved(nn.Module):
    """Two heads; one of them is the last layer by its place and its width."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 10, 1))
        self.one, self.two = nn.Linear(10, 10), nn.Linear(10, 10)
        self.way = way

    def forward(self, x):
        x = self.body(x).mean((2, 3))
        if self.way == "sum":
            return self.one(x) + self.two(x)
        if self.way == "scaled":
            return 2 * self.one(x)
        if self.way == "features":
            return x
        if self.way == "beside":  # computed, and not used
            scores = self.one(x)
            self.two(x)
            return scores
        return self.two(torch.relu(self.one(x)))


@pytest.mark.parametrize(
    ("way", "final"),
    [("sum", None), ("scaled", None), ("features", "body.2"), ("beside", "one"), ("chain", "two")],
)
def test_a_last_layer_is_one_whose_output_is_the_networks(way, final):
    """A convolution whose mean is the output is one: replaced, it gives other scores."""
    torch.manual_seed(0)
    network = Halved(way).eval()
    assert survey(network, 16).final == final
    with torch.no_grad():
        for parameter in network.parameters():  # equality of zeros shows nothing
            parameter.zero_()
    assert survey(network, 16).final == final
    settle_last_layer(network, 16)
    assert survey(network, 16).final == (final or "pooled")


@pytest.mark.parametrize("model", ["test_vit", "test_vit2", "test_vit3"])
@pytest.mark.parametrize("pool", ["cls", "mean", "cls+mean"])
def test_tokens_are_pooled_as_asked_and_registers_left_out(seen, model, pool):
    card, network = seen(model)
    n_prefix = network.num_prefix_tokens
    size = card.preprocessing.size
    images = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), np.uint8)
    if "cls" in pool and network.cls_token is None:
        with pytest.raises(BackboneError, match="no class token"):
            card.pooling(pool)
        return
    way = card.pooling(pool)
    inner = card.stages[-1]
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in plain_colours(card))
    x = (torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - mean) / std
    tokens = watched(network, x, [inner])[inner]
    with torch.inference_mode():
        features = network.forward_features(x)

    def plain(tokens, norm):
        parts = {"cls": lambda: tokens[:, 0], "mean": lambda: tokens[:, n_prefix:].mean(1)}
        return torch.cat([norm(parts[one]()) for one in pool.split("+")], 1)

    codes = tapped(card, network, (inner, "final"), way)(images)
    assert close(codes[0], plain(tokens, lambda t: t).numpy())
    with torch.inference_mode():
        assert close(codes[1], plain(features, network.fc_norm).numpy())
    own = {"token": "cls", "avg": "mean"}.get(network.global_pool)
    (default,) = tapped(card, network, ("final",), card.pooling("default"))(images)
    if pool == own:
        assert close(codes[1], default, 1e-5)
    if pool == "cls+mean" or network.cls_token is None:  # both parts in one graph
        engine = open_engine_on(card, network, (inner, "final"), pool)
        for a, b in zip(engine.run(images), codes, strict=True):
            assert close(a, b)


def open_engine_on(card, network, layers, pool, folder=None):
    import copy
    import tempfile

    codes = CodesSettings(model=card.model, weights="none", pool=pool)
    return open_engine(
        card, layers, card.preprocessing, codes, MachineSettings(engine="onnx"),
        cache=Path(folder or tempfile.mkdtemp()), seed=0, offline=True,
        build=lambda: copy.deepcopy(network),
    )  # fmt: skip


def test_a_network_without_a_class_token_says_so(seen):
    card, _ = seen("test_resnet")
    assert card.pooling("default") == card.pooling("mean") == "mean"
    for pool in ("cls", "cls+mean"):
        with pytest.raises(BackboneError, match="no class token") as caught:
            card.pooling(pool)
        assert "POOL" in caught.value.todo
    vit, _ = seen("test_vit")
    assert (vit.pooling("default"), vit.pooling("mean")) == ("mean", "patches")


@pytest.mark.parametrize(
    "model", ["test_vit", "vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224"]
)
def test_a_transformer_takes_another_size_with_its_positions_interpolated(tmp_path, model):
    from timm.layers import resample_abs_pos_embed

    settings = CodesSettings(model=model, weights="none")
    where = {"cache": tmp_path, "seed": 0, "offline": True}
    card, network = load_network(settings, **where)
    size = card.preprocessing.size - 32
    same, smaller = load_network(CodesSettings(model=model, weights="none", size=size), **where)
    assert same == card  # the card is of the network as it was published
    n_prefix = network.num_prefix_tokens
    grid = size // smaller.patch_embed.patch_size[0]
    expected = resample_abs_pos_embed(network.pos_embed, (grid, grid), num_prefix_tokens=n_prefix)
    if network.dynamic_img_size:  # timm's own way of the same, at every call
        assert torch.equal(smaller.pos_embed, network.pos_embed)
    else:
        assert torch.allclose(smaller.pos_embed, expected, atol=1e-6)
    with torch.inference_mode():
        assert smaller(torch.rand(1, 3, size, size)).shape[1] == network(
            torch.rand(1, 3, card.preprocessing.size, card.preprocessing.size)
        ).shape[1]  # fmt: skip
    with pytest.raises(BackboneError, match="7 x 7"):
        load_network(CodesSettings(model=model, weights="none", size=7), **where)
