"""The engines against each other and against plain PyTorch; what is not there is an error."""

import copy
import threading

import numpy as np
import pytest
import torch
from cnn_codes.backbones.card import load_network
from cnn_codes.backbones.engine import n_cores, open_engine, pick_device
from cnn_codes.backbones.graph import graph_path, is_sound
from cnn_codes.backbones.tapped import Tapped
from cnn_codes.codes.stream import Stream
from cnn_codes.errors import CacheError, DeviceError, ImageError, SettingsError
from cnn_codes.settings import CodesSettings, MachineSettings
from conftest import SMALL
from torch import nn

gpu = pytest.mark.gpu
SETTINGS = CodesSettings(**SMALL)


@pytest.fixture
def opened(cache):
    """Give a function that opens an engine on the small network."""

    def get(codes=SETTINGS, **machine):
        where = {"cache": cache, "seed": 0, "offline": True}
        card, network = load_network(codes, **where)
        preprocessing = card.preprocessing.adapted(size=codes.size, resize="default")
        layers = card.resolve(codes.layers)
        engine = open_engine(
            card, layers, preprocessing, codes, MachineSettings(**machine), **where
        )
        return engine, card, network

    return get


def noise(n: int, size: int = 32) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, size, size, 3), np.uint8)


def plain(network: nn.Module, card, images: np.ndarray) -> np.ndarray:
    """Give what the last linear layer is handed, in eager PyTorch."""
    mean, std = (
        torch.tensor(v).view(1, 3, 1, 1) for v in (card.preprocessing.mean, card.preprocessing.std)
    )
    kept = []
    network = copy.deepcopy(network).eval()
    network.get_submodule(card.final).register_forward_pre_hook(
        lambda module, inputs: kept.append(inputs[0])
    )
    with torch.no_grad():
        network((torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - mean) / std)
    return kept[0].numpy()


def off_by(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).max() / np.abs(b).max())


@pytest.mark.parametrize("engine", ["onnx", "torch"])
def test_an_engine_gives_what_plain_pytorch_gives(opened, engine):
    images = noise(9)
    runs, card, network = opened(engine=engine, device="cpu")
    (codes,) = runs.run(images)
    assert codes.dtype == np.float32
    assert off_by(codes, plain(network, card, images)) < 1e-3


def test_onnx_codes_are_the_same_bits_whatever_comes_together(opened):
    engine, _, _ = opened()
    images = noise(24)
    (whole,) = engine.run(images)
    for batch in (1, 2, 5, 16):
        parts = [engine.run(images[i : i + batch])[0] for i in range(0, 24, batch)]
        assert np.array_equal(np.concatenate(parts), whole)
    order = np.random.default_rng(1).permutation(24)
    assert np.array_equal(engine.run(images[order])[0], whole[order])


def test_torch_codes_do_not_depend_on_what_fills_the_batch(opened):
    engine, _, _ = opened(engine="torch", device="cpu", extract_batch=8)
    images = noise(8)
    (whole,) = engine.run(images)
    for n in (1, 3, 7):
        (few,) = engine.run(images[:n])
        assert few.shape == (n, whole.shape[1])
        assert np.array_equal(few, whole[:n])


def test_batch_normalisation_never_sees_the_images(opened):
    """Codes taken without eval() depend on the batch, and change the network."""
    engine, _, network = opened(engine="torch", device="cpu", extract_batch=4)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    dark, bright = noise(1), np.full((3, 32, 32, 3), 250, np.uint8)
    (alone,) = engine.run(np.repeat(dark, 4, axis=0))
    (among,) = engine.run(np.concatenate([dark, bright]))
    assert np.array_equal(alone[0], among[0])
    for name, tensor in engine._tapped.network.state_dict().items():
        assert torch.equal(tensor.cpu(), before[name]), name


def test_no_engine_on_a_cpu_takes_mixed_precision_and_onnx_no_gpu(opened, monkeypatch):
    with pytest.raises(SettingsError, match="PRECISION=mixed needs a GPU"):
        opened(CodesSettings(**SMALL, precision="mixed"), device="cpu")
    monkeypatch.setattr("cnn_codes.backbones.engine._cuda_count", lambda: 1)
    with pytest.raises(DeviceError, match="ENGINE=onnx runs on the CPU"):
        opened(engine="onnx")


@pytest.mark.parametrize(
    ("n_cuda", "asked", "given"),
    [(0, "auto", "cpu"), (0, "cpu", "cpu"), (2, "auto", "cuda:0"), (2, "cuda", "cuda:0"),
     (2, "cuda:1", "cuda:1"), (2, "cpu", "cpu"), (0, "cuda", None), (2, "cuda:2", None),
     (0, "", None), (0, "CPU", None), (1, "cuda:-1", None)],
)  # fmt: skip
def test_devices_are_those_that_are_there(monkeypatch, n_cuda, asked, given):
    monkeypatch.setattr("cnn_codes.backbones.engine._cuda_count", lambda: n_cuda)
    monkeypatch.setattr("platform.system", lambda: "Linux")
    if given is not None:
        assert pick_device(asked) == given
        return
    with pytest.raises(DeviceError, match=f"DEVICE={asked} is not") as caught:
        pick_device(asked)
    assert "cpu" in caught.value.expected


def test_cuda_is_counted_as_torch_counts_it():
    """By the driver alone, since importing torch takes seconds."""
    from cnn_codes.backbones.engine import _cuda_count

    assert _cuda_count() == torch.cuda.device_count()
    assert n_cores() >= 1


def test_a_graph_that_is_damaged_is_never_run(tmp_path, opened):
    from cnn_codes.backbones.onnx_engine import OnnxEngine

    path = tmp_path / "net.onnx"
    path.write_bytes(b"half of a graph")
    assert not is_sound(path)
    path.with_suffix(".sha256").write_text("0" * 64)
    assert not is_sound(path)
    with pytest.raises(CacheError, match=r"net\.onnx does not load") as caught:
        OnnxEngine(path, batch=1)
    assert "exported again" in caught.value.todo


def test_a_digest_beside_a_graph_that_is_no_text_is_a_damaged_graph(tmp_path):
    path = tmp_path / "net.onnx"
    path.write_bytes(b"a graph")
    path.with_suffix(".sha256").write_bytes(b"\xff\xfe\x00")
    assert not is_sound(path)


def test_other_layers_and_poolings_are_cut_from_one_export_without_torch(cache, opened):
    """The second engine must not build the network: what would build it raises."""
    codes = CodesSettings(**SMALL)
    _, card, network = opened(codes)
    preprocessing = card.preprocessing.adapted(size=codes.size, resize="default")

    def never():
        raise AssertionError("exported again")

    images = noise(5)
    for layers, pool in (
        (card.stages[:2], "mean"),
        (("final", card.stages[3]), "max"),
        ((card.stages[-1],), "grid:2"),
    ):  # fmt: skip
        asked = CodesSettings(**SMALL, layers=layers, pool=pool)
        engine = open_engine(
            card, layers, preprocessing, asked, MachineSettings(engine="onnx"),
            cache=cache, seed=0, offline=True, build=never,
        )  # fmt: skip
        reference = Tapped(
            copy.deepcopy(network), layers, card.final, card.pooling(pool), preprocessing
        ).eval()
        with torch.inference_mode():
            expected = reference(torch.from_numpy(images))
        for a, b in zip(engine.run(images), expected, strict=True):
            assert off_by(a, b.numpy()) < 1e-3
    with pytest.raises(AssertionError, match="exported again"):
        open_engine(
            card, ("blocks.1.0",), preprocessing, codes, MachineSettings(engine="onnx"),
            cache=cache, seed=0, offline=True, build=never,
        )  # fmt: skip


def test_graphs_of_other_libraries_or_structure_have_other_names(opened, cache, monkeypatch):
    from dataclasses import replace

    from cnn_codes.backbones import graph

    _, card, _ = opened()

    def name(card):
        return graph_path(card, ("final",), "mean", card.preprocessing, cache=cache)

    before = name(card)
    assert name(replace(card, structure_digest="other")) != before
    monkeypatch.setattr(graph, "version", lambda library: "99" if library == "timm" else "1")
    assert name(card) != before


def test_graphs_of_other_outputs_have_other_names(opened, cache):
    _, card, _ = opened()
    names = {
        graph_path(card, layers, pool, preprocessing, cache=cache)
        for layers in (("final",), ("blocks.1", "final"))
        for pool in ("mean", "max")
        for preprocessing in (card.preprocessing, card.preprocessing.adapted(size=48, resize="pad"))
    }
    assert len(names) == 8
    # How an image becomes a square is not in the graph.
    stretched = card.preprocessing.adapted(size=0, resize="stretch")
    paths = [
        graph_path(card, ("final",), "mean", p, cache=cache)
        for p in (card.preprocessing, stretched)
    ]
    assert paths[0] == paths[1]


# On a CUDA GPU: run with `pytest -m gpu`


@pytest.fixture
def images(hotdog):
    """Give 48 real photographs, as Lite0 takes them."""
    from cnn_codes.backbones.preprocess import Preprocessing, Views, read_views

    preprocessing = Preprocessing(224, 0.875, "crop", "bicubic", (0.5,) * 3, (0.5,) * 3)
    paths = sorted((hotdog / "test").glob("*/*"))[::15][:48]
    view = Views.parse("center", 0)
    return np.concatenate([read_views(p.read_bytes(), preprocessing, view, "") for p in paths])


@gpu
@pytest.mark.parametrize("layers", [("final",), ("all",)])
def test_codes_of_the_gpu_agree_with_those_of_the_cpu(opened, images, layers):
    codes = CodesSettings(layers=layers)
    engine, _, _ = opened(codes, device="cuda")
    assert engine.name == "torch on cuda:0"
    on_cpu, _, _ = opened(codes, device="cpu")
    for a, b in zip(engine.run(images), on_cpu.run(images), strict=True):
        assert off_by(a, b) < 1e-3


@gpu
def test_on_the_gpu_weights_and_maps_are_channels_last_and_arithmetic_is_float32(opened, images):
    engine, _, _ = opened(CodesSettings(), device="cuda")
    weights = [
        module.weight
        for module in engine._tapped.network.modules()
        if isinstance(module, nn.Conv2d) and module.weight.shape[1] > 1 < module.weight.shape[2]
    ]
    assert weights
    assert all(w.is_contiguous(memory_format=torch.channels_last) for w in weights)
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32
    layouts, kinds = [], set()

    def watch(module, inputs, output):
        kinds.add(output.dtype)
        if output.ndim == 4 and min(output.shape[1:]) > 1:
            layouts.append(output.is_contiguous(memory_format=torch.channels_last))

    handles = [
        module.register_forward_hook(watch)
        for module in engine._tapped.network.modules()
        if isinstance(module, nn.Conv2d)
    ]
    engine.run(images[:4])
    for handle in handles:
        handle.remove()
    assert len(layouts) > 10
    assert all(layouts)
    assert kinds == {torch.float32}


@gpu
def test_mixed_precision_is_near_and_runs_in_float16(opened, images):
    engine, _, _ = opened(CodesSettings(precision="mixed"), device="cuda")
    whole, _, _ = opened(CodesSettings(), device="cuda")
    kinds = set()
    handles = [
        module.register_forward_hook(lambda m, i, output: kinds.add(output.dtype))
        for module in engine._tapped.network.modules()
        if isinstance(module, nn.Conv2d)
    ]
    (mixed,) = engine.run(images)
    for handle in handles:
        handle.remove()
    assert kinds == {torch.float16}
    assert mixed.dtype == np.float32
    (exact,) = whole.run(images)
    assert 0 < off_by(mixed, exact) < 2e-2
    cosine = (mixed * exact).sum(1) / np.linalg.norm(mixed, axis=1) / np.linalg.norm(exact, axis=1)
    assert cosine.min() > 0.999


@gpu
@pytest.mark.parametrize("precision", ["float32", "mixed"])
def test_codes_of_the_gpu_repeat_and_do_not_depend_on_the_batch(opened, images, precision):
    codes = CodesSettings(precision=precision)
    engine, _, _ = opened(codes, device="cuda", extract_batch=32)
    (whole,) = engine.run(images[:32])
    (again,) = engine.run(images[:32])
    (few,) = engine.run(images[:5])
    assert np.array_equal(whole, again)
    assert np.array_equal(few, whole[:5])
    other, _, _ = opened(codes, device="cuda", extract_batch=8)
    parts = np.concatenate([other.run(images[i : i + 8])[0] for i in range(0, 32, 8)])
    assert off_by(parts, whole) < (1e-3 if precision == "float32" else 2e-2)


@gpu
def test_a_batch_that_the_gpu_has_no_memory_for_is_answered(opened):
    torch.cuda.set_per_process_memory_fraction(0.02)
    try:
        engine, _, _ = opened(CodesSettings(), device="cuda", extract_batch=4096)
        with pytest.raises(DeviceError, match="no memory") as caught:
            engine.run(np.zeros((4096, 224, 224, 3), np.uint8))
        assert "EXTRACT_BATCH=2048" in caught.value.todo
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()


@pytest.mark.parametrize(("n_images", "batch"), [(70, 64), (3, 128), (40, 4), (65, 16)])
def test_all_threads_read_for_an_engine_that_takes_one_batch_at_a_time(opened, n_images, batch):
    engine, _, _ = opened(engine="torch", device="cpu", extract_batch=batch)
    images, n_workers = noise(n_images), 3
    together, of_thread = threading.Barrier(n_workers, timeout=20), threading.local()

    def read(row: int) -> np.ndarray:
        if not hasattr(of_thread, "reads"):
            of_thread.reads = together.wait()  # breaks where one thread reads a whole batch
        if row % 10 == 9:
            raise ImageError(f"{row} is bad")
        return images[row][None]

    stream = Stream(engine, read, n_views=1, workers=n_workers)
    batches = list(stream.batches(range(n_images)))
    assert [len(one.items) + len(one.rejects) for one in batches][:-1] == [batch] * (
        len(batches) - 1
    )
    rows = [row for one in batches for row in one.items]
    assert rows == [row for row in range(n_images) if row % 10 != 9]
    found = np.concatenate([one.blocks[0][:, 0] for one in batches])
    whole = [engine.run(images[rows[i : i + batch]])[0] for i in range(0, len(rows), batch)]
    np.testing.assert_allclose(found, np.concatenate(whole), rtol=1e-5, atol=1e-6)
