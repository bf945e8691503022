"""Maps of what speaks for a class: exact where that is promised, and where the object is."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from cnn_codes.backbones.network import survey
from cnn_codes.backbones.preprocess import Preprocessing, Views, take_views
from cnn_codes.backbones.tapped import Tapped
from cnn_codes.cli import main
from cnn_codes.errors import ImageError
from cnn_codes.explain import Explainer
from cnn_codes.explain.explanation import source_box
from cnn_codes.explain.gradients import Differentiated, map_layers
from cnn_codes.explain.regions import combined, layer_contributions, score_gradient, upright
from cnn_codes.heads import load_head
from cnn_codes.settings import MachineSettings, PlaceSettings
from explaining import CLASSES, crops, workshop
from numpy.typing import NDArray
from PIL import Image
from predicting import REAL, Workshop
from sklearn.datasets import load_sample_images
from tuning import Tuning


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, backbones: Path) -> Workshop:
    return workshop(tmp_path_factory.mktemp("explain"), backbones)


# Exporting each variant of the small network would cost more than running it.
BIG = {"size": 128}  # px: at 32 its last map has a single place
TORCH = MachineSettings(engine="torch", device="cpu")


def load(shop: Workshop, run: Path, machine: MachineSettings = TORCH) -> Explainer:
    return Explainer.load(run, cache=shop.cache, machine=machine, offline=True)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"views": "flip"},
        {"views": "dihedral"},
        {"layers": ("all",)},
        {"layers": ("blocks.2",), "pool": "max"},
        {"layers": ("blocks.1", "blocks.2"), "pool": "grid:2", "views": "flip"},
        {"resize": "stretch"},
    ],
)
@pytest.mark.parametrize("method", ["svm", "centroid"])
def test_a_linear_head_s_map_sums_to_the_logit(
    shop: Workshop, method: str, settings: dict[str, Any]
) -> None:
    (run,) = shop.heads(method, engine="torch", **BIG | settings)
    explainer = load(shop, run)
    assert explainer.exact
    cam = settings.get("pool", "mean") == "mean"
    assert explainer.method == ("class activation map" if cam else "gradient x activation")
    images = shop.test_images()[:3]
    classifier = shop.load(run, machine=TORCH)
    for image in images:
        for target in CLASSES:
            found = explainer.explain(image, target=target)
            assert found.classes[found.target] == target
            assert found.map.ndim == 2
            assert found.map.sum() == pytest.approx(found.logit, abs=1e-4)
            assert np.ptp(found.map) > 0
        assert np.allclose(found.probabilities, classifier.predict_proba(image)[0], atol=1e-9)
        both = [explainer.explain(image, target=one).evidence for one in CLASSES]
        assert np.allclose(both[0], -both[1])


def test_the_logit_is_the_head_s_own(shop: Workshop) -> None:
    (run,) = shop.heads("softmax", engine="torch", **BIG)
    found = load(shop, run).explain(shop.test_images()[0])
    head, _ = load_head(run.with_suffix(""))
    odds = np.exp(head.temperature_scale * np.array([found.logit, -found.logit]))
    assert found.probabilities[found.target] == pytest.approx(odds[0] / odds.sum(), abs=1e-6)


@pytest.mark.parametrize("method", ["rbf", "knn"])
def test_other_heads_say_that_their_map_is_a_gradient(shop: Workshop, method: str) -> None:
    (run,) = shop.heads(method, engine="torch", **BIG)
    explainer = load(shop, run)
    found = explainer.explain(shop.test_images()[0])
    assert (found.method, found.exact) == ("gradient x activation", False)
    assert np.isfinite(found.map).all()
    assert np.ptp(found.evidence) > 0


def test_random_views_explain_the_central_one(shop: Workshop) -> None:
    (run,) = shop.heads("ridge", views="random:2", engine="torch", **BIG)
    found = load(shop, run).explain(shop.test_images()[0])
    assert (found.method, found.exact) == ("gradient x activation, central view only", False)


def test_the_gradient_of_an_rbf_svm_is_its_slope(shop: Workshop) -> None:
    (run,) = shop.heads("rbf", engine="torch", **BIG)
    head, _ = load_head(run.with_suffix(""))
    random = np.random.default_rng(0)
    codes = head.mean + head.scale * random.normal(size=head.code_dim)
    gradient = score_gradient(head, codes)
    for _ in range(3):
        way = head.scale * random.normal(size=head.code_dim) * 1e-2
        ends = np.stack([codes + way, codes - way]).astype(np.float32)[:, None]
        slope = np.diff(head.scores(ends), axis=0)[0] / -2
        assert np.allclose(gradient @ way, slope, rtol=0.05, atol=1e-6)


@pytest.mark.parametrize("pool", ["mean", "max", "grid:3"])
def test_contributions_sum_to_the_pooled_product(pool: str) -> None:
    random = np.random.default_rng(0)
    maps = random.normal(size=(4, 7, 5)).astype(np.float32)
    wide = 4 * (9 if ":" in pool else 1)
    gradient = random.normal(size=(2, wide))
    if pool == "mean":
        codes = maps.mean(axis=(1, 2))
    elif pool == "max":
        codes = maps.max(axis=(1, 2))
    else:
        torch = pytest.importorskip("torch")
        codes = torch.nn.functional.adaptive_avg_pool2d(torch.tensor(maps), 3).numpy().ravel()
    found = layer_contributions(maps, gradient, pool)
    assert np.allclose(found.sum(axis=(1, 2)), gradient @ codes, atol=1e-5)
    fine = combined([found, np.ones((2, 14, 14))])
    assert fine.shape == (2, 14, 14)
    assert np.allclose(fine.sum(axis=(1, 2)), gradient @ codes + 196, atol=1e-4)


@pytest.mark.parametrize("kind", ["flip", "dihedral"])
def test_views_are_turned_back(kind: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    same = Preprocessing(8, 1.0, "crop", "nearest", (0.5,) * 3, (0.5,) * 3)
    views = take_views(pixels, same, Views.parse(kind, 0), "")
    for index, view in enumerate(views):
        assert np.array_equal(upright(view.transpose(2, 0, 1), kind, index)[0], pixels[:, :, 0])


def test_the_map_lies_on_the_part_that_the_network_sees() -> None:
    crop = Preprocessing(224, 0.875, "crop", "bicubic", (0.5,) * 3, (0.5,) * 3)
    assert source_box(400, 200, crop) == (112.5, 12.5, 175.0, 175.0)
    assert source_box(400, 200, crop.adapted(size=0, resize="stretch")) == (0, 0, 400, 200)
    assert source_box(400, 200, crop.adapted(size=0, resize="pad")) == (0, -100, 400, 400)


def test_a_fine_tuned_network_is_explained_by_its_gradient(shop: Workshop, tmp_path: Path) -> None:
    places = PlaceSettings(cache=str(shop.cache), results=str(tmp_path / "results"))
    record = Tuning(shop.images, places)(epochs=1, views="flip")
    run = tmp_path / "results" / shop.images.name / f"{record['run']}.json"
    explainer = load(shop, run)
    found = explainer.explain(shop.test_images()[0])
    assert (found.method, found.exact) == ("gradient x activation", False)
    # The last layer is linear on the mean of the last map: what is missing is its bias.
    bias = explainer.classifier.model.build().fc.bias[found.target].item()
    assert found.map.sum() + bias == pytest.approx(found.logit, abs=1e-3)


def noise_with(
    patch: NDArray[np.uint8], random: np.random.Generator, side: int = 256
) -> tuple[NDArray[np.uint8], tuple[int, int, int, int]]:
    """Paste a patch at a random place on noise; give the picture and left, top, right, bottom."""
    picture = random.integers(0, 256, (side, side, 3), np.uint8)
    height, width = patch.shape[:2]
    # Inside the central crop, which is all that the network sees.
    margin = side // 16
    top = int(random.integers(margin, side - margin - height + 1))
    left = int(random.integers(margin, side - margin - width + 1))
    picture[top : top + height, left : left + width] = patch
    return picture, (left, top, left + width, top + height)


def hits(explainer: Explainer, patches: list[NDArray[np.uint8]], target: str, n: int) -> float:
    """Share of `n` pictures of a patch on noise whose map has its peak on the patch."""
    random = np.random.default_rng(0)
    found = 0
    for trial in range(n):
        picture, (left, top, right, bottom) = noise_with(patches[trial % len(patches)], random)
        x, y = explainer.explain(picture, target=target).peak
        found += left <= x <= right and top <= y <= bottom
    return found / n


@pytest.mark.slow
def test_the_peak_lies_on_what_was_pasted(shop: Workshop) -> None:
    (run,) = shop.heads("softmax", **REAL)
    flower = load_sample_images().images[1]
    patches = [flower[y : y + 96, x : x + 96] for x in (240, 300, 340) for y in (120, 180)]
    assert hits(load(shop, run, MachineSettings()), patches, "flower", 200) >= 0.9


@pytest.mark.slow
def test_the_peak_lies_on_the_ant(
    ants_bees: Path, tmp_path_factory: pytest.TempPathFactory, backbones: Path
) -> None:
    folder = tmp_path_factory.mktemp("ants")
    (folder / "cache").mkdir()
    (folder / "cache" / "backbones").symlink_to(backbones)
    ants = Workshop(ants_bees, folder / "cache", folder / "results")
    (run,) = ants.heads("softmax", **REAL)
    patches = []
    for path in sorted((ants_bees / "val" / "ants").iterdir()):
        image = Image.open(path).convert("RGB")
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        square = image.crop((left, top, left + side, top + side))
        patches.append(np.asarray(square.resize((96, 96), Image.Resampling.BICUBIC)))
    assert hits(load(ants, run, MachineSettings()), patches, "ants", 200) >= 0.9


def test_pictures_and_figures(shop: Workshop) -> None:
    (run,) = shop.heads("svm", **BIG)
    found = load(shop, run).explain(crops(1, sides=(150, 300))[0][0], name="a piece")
    picture = found.overlay(100)
    assert max(picture.size) == 100
    heat = found.heat(*picture.size)
    assert heat.shape == picture.size[::-1]
    assert heat.max() > 0.5
    assert found.png()[:4] == b"\x89PNG"
    told = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert told["path"] == "a piece"
    assert told["sum"] == pytest.approx(told["logit"], abs=1e-4)
    assert np.sum(told["map"]) == pytest.approx(told["sum"])


def test_a_bad_image_does_not_end_the_others(shop: Workshop, tmp_path: Path) -> None:
    (run,) = shop.heads("svm", **BIG)
    (tmp_path / "bad.jpg").write_bytes(b"<html>")
    explainer = load(shop, run, MachineSettings())
    given = list(explainer.explain_all([tmp_path / "bad.jpg", shop.test_images()[0]]))
    assert isinstance(given[0][1], ImageError)
    assert given[1][1].map.shape  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="no class 'dog'"):
        explainer.explain(shop.test_images()[0], target="dog")


def test_the_command_writes_pictures_and_json(shop: Workshop, tmp_path: Path) -> None:
    (run,) = shop.heads("svm", **BIG)
    images = tmp_path / "images"
    images.mkdir()
    for name, source in zip(("a.png", "=b c.png"), shop.test_images(), strict=False):
        (images / name).write_bytes(source.read_bytes())
    (images / "bad.png").write_bytes(b"no image")
    out = tmp_path / "out"
    places = [f"CACHE={shop.cache}", f"RESULTS={shop.results}", "OFFLINE=1", f"OUT={out}"]
    assert main(["explain", f"IMAGES={images}", f"RUN={run}", *places]) == 0
    told = json.loads((out / "explanations.json").read_text())
    assert told["exact"]
    assert [Path(row["path"]).name for row in told["images"]] == ["=b c.png", "a.png", "bad.png"]
    assert "error" in told["images"][2]
    for row in told["images"][:2]:
        assert np.sum(row["map"]) == pytest.approx(row["logit"], abs=1e-4)
        with Image.open(out / row["file"]) as picture:
            assert picture.size == (row["width"], row["height"])
    assert {path.name for path in out.iterdir()} == {
        "explanations.json", "1-b_c.png", "2-a.png",
    }  # fmt: skip
    assert main(["explain", f"IMAGES={images / 'bad.png'}", f"RUN={run}", *places]) == 2
    (tmp_path / "file").write_text("")
    wrong = [*places[:-1], f"OUT={tmp_path / 'file'}"]
    assert main(["explain", f"IMAGES={images}", f"RUN={run}", *wrong]) == 2


@pytest.mark.parametrize(("model", "pool", "layer"), [
    ("test_vit", "mean", "blocks.5.norm1"), ("test_vit", "cls", "blocks.5.norm1"),
    ("test_vit", "patches", "norm"), ("test_resnet", "mean", "layer4"),
])  # fmt: skip
def test_regions_count_as_much_as_the_score_moves_with_them(
    model: str, pool: str, layer: str
) -> None:
    """A transformer that reads its class token alone has none behind its last attention."""
    torch.manual_seed(0)
    network = timm.create_model(model, num_classes=3).eval().requires_grad_(False)
    size = 160 if model == "test_vit" else 64
    seen = survey(network, size)
    square = Preprocessing(size, 1.0, "stretch", "bilinear", (0.5,) * 3, (0.5,) * 3)
    tapped = Tapped(
        network, ("final",), seen.final, pool, square, tokens=seen.tokens, stop_early=False
    )
    found = Differentiated(tapped, map_layers(seen), size)
    assert found.layer == layer
    random = np.random.default_rng(0)
    views = random.integers(0, 256, (1, size, size, 3), np.uint8)
    with torch.inference_mode():
        direction = random.normal(size=(1, tapped(torch.from_numpy(views))[0].shape[1]))
    views.setflags(write=False)  # as decoders give them; PyTorch would warn
    (maps,) = found.contributions(views, direction)
    views.setflags(write=True)
    row, column = np.unravel_index(np.abs(maps[0]).argmax(), maps[0].shape)
    scores = []
    for factor in (0.99, 1.01):

        def scaled(module: object, inputs: object, output: torch.Tensor) -> torch.Tensor:
            output = output.clone()
            if output.ndim == 4:
                output[:, :, row, column] *= factor  # noqa: B023
            else:
                n_front = output.shape[1] - maps[0].size
                output[:, n_front + row * maps[0].shape[1] + column] *= factor  # noqa: B023
            return output

        module = network.get_submodule(found.layer)
        hook = module.register_forward_hook(scaled, prepend=True)
        with torch.inference_mode():
            codes = tapped(torch.from_numpy(views))[0].double().numpy()
        hook.remove()
        scores.append(float((codes @ direction[0])[0]))
    slope = (scores[1] - scores[0]) / 0.02
    assert abs(slope - maps[0][row, column]) < 0.02 * abs(slope) + 1e-9
