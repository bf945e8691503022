"""A run's classifier gives, from its saved files alone, what the run itself gave."""

import io
import json
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cnn_codes
import numpy as np
import pytest
from cnn_codes.datasets.file_kinds import is_image
from cnn_codes.errors import BackboneError, CacheError, ImageError, ResultError, SettingsError
from cnn_codes.predict import Classifier
from cnn_codes.settings import METHODS, MachineSettings, PlaceSettings
from conftest import ROOT, SHARED, StageOne
from PIL import Image
from predicting import REAL, Workshop
from tuning import Tuning

# Codes and heads are the same to the bit; the heads' sums of products are not, where BLAS takes
# the images in blocks of other lengths.
ROUNDING = 1e-13


@pytest.fixture(scope="module")
def shop(hotdog: Path, tmp_path_factory: pytest.TempPathFactory, backbones: Path) -> Workshop:
    return Workshop.open(hotdog, tmp_path_factory.mktemp("predict"), backbones)


@pytest.fixture(scope="module")
def real(shop: Workshop) -> dict[str, Path]:
    """Give a run of each method on the codes of EfficientNet-Lite0 with its weights."""
    return dict(zip(METHODS, shop.heads(*METHODS, **REAL), strict=True))


@pytest.fixture(scope="module")
def small(shop: Workshop) -> Path:
    """Give a run on the codes of a small random network."""
    return shop.heads("svm")[0]


@pytest.fixture(scope="module")
def tuned(shop: Workshop) -> Path:
    """Give a fine-tuned network: late layers, trained on a trunk kept as float16; two views."""
    tuning = Tuning(shop.images, PlaceSettings(cache=str(shop.cache), results=str(shop.results)))
    record = tuning(views="flip", epochs=1)
    assert record["phases"][0]["trunk"] == "cached"
    return tuning.results / f"{record['run']}.json"


@pytest.fixture(scope="module")
def larger(shop: Workshop) -> Path:
    """Give a fine-tuned ResNet-18, whose codes lie farther apart than the small network's."""
    tuning = Tuning(shop.images, PlaceSettings(cache=str(shop.cache), results=str(shop.results)))
    record = tuning(model="resnet18", views="flip", epochs=1)
    return tuning.results / f"{record['run']}.json"


@pytest.fixture(scope="module")
def late(shop: Workshop) -> Classifier:
    """Give EfficientNet-Lite0 at 128 px with its last stage fine-tuned."""
    tuning = Tuning(shop.images, PlaceSettings(cache=str(shop.cache), results=str(shop.results)))
    record = tuning(**REAL | {"size": 128, "unfreeze": "blocks.6", "lr": 1e-4, "epochs": 1})
    machine = MachineSettings(engine="torch", device="cpu")
    return shop.load(tuning.results / f"{record['run']}.json", machine=machine)


@pytest.mark.parametrize("method", METHODS)
def test_predictions_of_the_test_images_equal_the_stored_ones(
    shop: Workshop, real: dict[str, Path], method: str
) -> None:
    stored = shop.stored(real[method])
    found = shop.again(real[method])
    np.testing.assert_allclose(found, stored.probabilities, rtol=0, atol=ROUNDING)
    assert np.array_equal(found.argmax(axis=1), stored.predicted)
    assert len(stored.paths) == 12


@pytest.mark.parametrize(
    "settings",
    [
        {"views": "flip"},
        {"views": "random:3", "seed": 5, "engine": "torch"},
        {"views": "dihedral", "train_views": "all", "methods": ("knn",)},
        {"layers": ("all",), "pool": "max", "resize": "pad", "size": 48, "engine": "torch"},
        {"layers": ("final", "blocks.2"), "pool": "grid:2", "dtype": "float16"},
    ],
    ids=lambda settings: "-".join(settings),
)
def test_views_layers_and_pooling_are_those_of_training(
    shop: Workshop, settings: dict[str, Any]
) -> None:
    run = shop.heads(**settings)[0]
    found = shop.again(run, machine=MachineSettings(engine=settings.get("engine", "auto")))
    np.testing.assert_allclose(found, shop.stored(run).probabilities, rtol=0, atol=ROUNDING)


def test_a_fine_tuned_network_predicts_what_it_predicted(shop: Workshop, tuned: Path) -> None:
    stored = shop.stored(tuned).probabilities
    classifier = shop.load(tuned)
    assert classifier.engine == "onnx on cpu"  # exported once, so as fast as stage one
    np.testing.assert_allclose(shop.again(tuned), stored, rtol=0, atol=1e-4)
    eager = shop.again(tuned, machine=MachineSettings(engine="torch", device="cpu"))
    np.testing.assert_allclose(eager, stored, rtol=0, atol=1e-4)


def test_the_saved_files_are_enough(
    shop: Workshop, small: Path, tuned: Path, tmp_path: Path
) -> None:
    for run in (small, tuned):
        for suffix in (".model.json", ".safetensors"):  # not even the record
            shutil.copy(run.with_name(run.stem + suffix), tmp_path)
        paths = [shop.images / path for path in shop.stored(run).paths]
        classifier = Classifier.load(
            tmp_path / f"{run.stem}.safetensors",
            cache=tmp_path / "no-cache",
            machine=MachineSettings(engine="torch", device="cpu"),
            offline=True,
        )
        found = classifier.predict_proba(paths)
        np.testing.assert_allclose(found, shop.stored(run).probabilities, rtol=0, atol=1e-4)
        assert classifier.run == run.stem
        assert classifier.classes == ("hotdog", "not-hotdog")
        with pytest.raises(CacheError, match=r"no file|is missing"):
            classifier.neighbours()


def test_paths_bytes_pil_images_and_arrays_are_the_same_image(
    shop: Workshop, real: dict[str, Path]
) -> None:
    classifier = shop.load(real["svm"])
    path = shop.test_images()[0]
    expected = classifier.predict_proba(path)
    assert expected.shape == (1, 2)
    with Image.open(path) as opened:
        pixels = np.asarray(opened.convert("RGB"))
        assert min(opened.size) < 2 * 224  # a larger JPEG file is decoded at reduced scale
        bare = Image.fromarray(pixels)
        for one in (str(path), path.read_bytes(), opened, opened.copy(), pixels, bare):
            assert np.array_equal(classifier.predict_proba(one), expected), type(one)
            assert np.array_equal(classifier.predict_proba([one, one])[1:], expected), type(one)
    several = np.stack([pixels, pixels[::-1]])
    assert classifier.predict_proba(several).shape == (2, 2)
    assert classifier.predict(path).tolist() == [classifier.classes[int(expected.argmax())]]
    assert classifier.predict(one for one in [path, pixels]).shape == (2,)
    assert classifier.predict([]).shape == (0,)
    assert classifier.predict_proba([]).shape == (0, 2)


def test_grey_arrays_and_transparency_are_read_as_files_are(shop: Workshop, small: Path) -> None:
    classifier = shop.load(small)
    random = np.random.default_rng(0)
    coarse = Image.fromarray(random.integers(0, 256, (6, 8, 4), np.uint8), "RGBA")
    clear = coarse.resize((80, 60), Image.Resampling.BICUBIC)
    for image in (clear, clear.convert("L")):
        stream = io.BytesIO()
        image.save(stream, "PNG")
        pixels = np.asarray(image)
        expected = classifier.predict_proba(stream.getvalue())
        assert np.array_equal(classifier.predict_proba(pixels), expected)
        assert np.array_equal(classifier.predict_proba([image, pixels])[0:1], expected)
    grey = np.asarray(clear.convert("L"))
    expected = classifier.predict_proba(np.repeat(grey[:, :, None], 3, axis=2))
    assert np.array_equal(classifier.predict_proba(grey[:, :, None]), expected)


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((8, 8, 3)),
        np.zeros((8, 8, 2), np.uint8),
        np.zeros((0, 8, 3), np.uint8),
        3,
        None,
        [[1, 2]],
        "nowhere.jpg",
        "zero\0byte.jpg",
        b"",
        "/",
        Image.new("F", (4, 4)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_image_is_refused_in_words(shop: Workshop, small: Path, wrong: Any) -> None:
    with pytest.raises(ImageError):
        shop.load(small).predict(wrong)


def test_an_image_is_predicted_alike_wherever_it_stands(
    shop: Workshop, real: dict[str, Path]
) -> None:
    paths = shop.test_images()
    classifier = shop.load(real["svm"])
    together = classifier.predict_proba(paths)
    alone = np.concatenate([classifier.predict_proba(path) for path in paths])
    assert np.array_equal(together, alone)
    one_thread = shop.load(real["svm"], machine=MachineSettings(workers=1, extract_batch=3))
    assert np.array_equal(one_thread.predict_proba(paths[::-1])[::-1], together)


def test_a_bad_image_does_not_stop_the_others(shop: Workshop, small: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"<html>not found</html>")
    good = shop.test_images()[:2]
    items = [good[0], tmp_path / "bad.jpg", tmp_path / "nowhere.png", good[1]]
    classifier = shop.load(small)
    found = list(classifier.classify(items))
    assert [one.name for one in found] == [str(item) for item in items]
    assert [bool(one.error) for one in found] == [False, True, True, False]
    assert "HTML" in found[1].error
    assert found[1].best == -1
    with pytest.raises(ImageError, match=r"bad\.jpg"):
        classifier.predict(items)


def test_many_images_stream_through_in_bounded_memory(shop: Workshop, small: Path) -> None:
    path, taken = shop.test_images()[0], 0

    def endless() -> Any:
        nonlocal taken
        while True:
            taken += 1
            yield path

    outcomes = shop.load(small).classify(endless())
    for _ in range(300):
        next(outcomes)
    assert taken < 500
    outcomes.close()


def test_training_images_are_their_own_nearest(shop: Workshop, real: dict[str, Path]) -> None:
    classifier = shop.load(real["svm"])
    neighbours = classifier.neighbours()
    train = sorted((shop.images / "train").rglob("*.*"))
    assert len(neighbours.paths) == len(train) == 24
    for path, one in zip(
        train, classifier.classify(train, neighbours=neighbours, n_nearest=3), strict=True
    ):
        assert one.nearest[0].path == path.relative_to(shop.images).as_posix()
        assert one.nearest[0].label == path.parent.name
        assert one.nearest[0].distance == 0
        distances = [near.distance for near in one.nearest]
        assert distances == sorted(distances)
        assert 0 < distances[1] < 2


def test_other_kinds_of_images_are_farther_than_the_training_images(
    shop: Workshop, real: dict[str, Path]
) -> None:
    classifier = shop.load(real["softmax"])
    # Pieces that stand in for real images lie farther apart: there, than four fifths of them.
    neighbours = classifier.neighbours(1.0 if (SHARED / "hotdog").is_dir() else 0.8)
    noise = [np.random.default_rng(seed).integers(0, 256, (64, 64, 3), np.uint8) for seed in (1, 2)]
    far = [o.nearest[0].distance for o in classifier.classify(noise, neighbours=neighbours)]
    near = [
        o.nearest[0].distance
        for o in classifier.classify(shop.test_images(), neighbours=neighbours)
    ]
    assert min(far) > neighbours.limit
    assert np.median(near) < neighbours.limit


def test_a_fine_tuned_network_s_training_images_are_their_own_nearest(
    shop: Workshop, larger: Path
) -> None:
    record = json.loads(larger.read_text())
    n_train = sum(record["splits"]["train"].values())
    for engine in ("onnx", "torch"):
        classifier = shop.load(larger, machine=MachineSettings(engine=engine, device="cpu"))
        neighbours = classifier.neighbours()
        assert len(neighbours.paths) == len(set(neighbours.paths)) == n_train < 24  # val is not
        paths = [shop.images / path for path in neighbours.paths]
        for path, one in zip(
            paths, classifier.classify(paths, neighbours=neighbours, n_nearest=2), strict=True
        ):
            assert one.nearest[0].path == path.relative_to(shop.images).as_posix()
            assert one.nearest[0].label == path.parent.name
            # Trained on a trunk kept as float16, and kept as float16 itself.
            assert one.nearest[0].distance < 2e-3 < 0.05 < one.nearest[1].distance
        found = [one.probabilities for one in classifier.classify(shop.test_images())]
        np.testing.assert_allclose(found, classifier.predict_proba(shop.test_images()), atol=1e-12)


def test_images_of_another_kind_are_unlike_a_fine_tuned_network_s(
    shop: Workshop, late: Classifier, ants_bees: Path
) -> None:
    neighbours = late.neighbours(0.8)  # of 19 images: 99 % would be all of them

    def flagged(images: list[Path]) -> float:
        outcomes = late.classify(images, neighbours=neighbours)
        return float(np.mean([one.nearest[0].distance > neighbours.limit for one in outcomes]))

    insects = sorted(ants_bees.rglob("*.jpg"))[::30]
    assert len(insects) > 10
    assert flagged(insects) > 0.7
    assert flagged(shop.test_images()) < 0.3


def test_the_nearest_training_images_of_a_fine_tuned_network_are_listed(
    shop: Workshop, tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = shop.load(tuned).neighbours().paths
    out = tmp_path / "out.jsonl"
    assert shop.predict(shop.images / "test", tuned, out=out, nearest=2) == 0
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(found) == 12
    for row in found:
        assert type(row["unlike"]) is bool
        assert row["distance"] == row["nearest"][0]["distance"] <= row["nearest"][1]["distance"]
        for near in row["nearest"]:
            assert near["path"] in train
            assert near["class"] == Path(near["path"]).parent.name
    for suffix in (".json", ".model.json", ".safetensors"):  # as of a run of an older version
        shutil.copy(tuned.with_name(tuned.stem + suffix), tmp_path)
    capsys.readouterr()
    assert shop.predict(shop.images / "test", tmp_path / tuned.name, out=out) == 0
    assert "train.safetensors is missing" in capsys.readouterr().err
    assert "unlike" not in json.loads(out.read_text().splitlines()[0])
    assert shop.predict(shop.images / "test", tmp_path / tuned.name, out=out, nearest=1) == 2
    assert "NEAREST=1 needs" in capsys.readouterr().err


def test_a_run_on_a_random_split_has_its_own_training_images(shop: Workshop) -> None:
    shop.heads("centroid", splits=2)
    runs = sorted((shop.results / "few").glob("centroid*split?of2*.model.json"))
    assert len(runs) == 2
    for run in runs:
        record = run.with_name(run.name.replace(".model.json", ".json"))
        neighbours = shop.load(record).neighbours()
        tested = set(shop.stored(record).paths)
        assert len(tested) == 12
        assert not tested & set(neighbours.paths)
        assert len(neighbours.paths) == 24


def test_other_weights_are_refused(shop: Workshop, small: Path, tmp_path: Path) -> None:
    import torch

    network = torch.nn.Linear(2, 2)
    torch.save(network.state_dict(), tmp_path / "other.pth")
    with pytest.raises(BackboneError):
        shop.load(small, weights=str(tmp_path / "other.pth"))
    described = json.loads(small.with_name(f"{small.stem}.model.json").read_text())
    described["meta"]["codes"]["weights"] = "random start, seed 1"
    described["meta"]["codes"]["asked"]["weights"] = "none"
    (tmp_path / f"{small.stem}.model.json").write_text(json.dumps(described))
    shutil.copy(small.with_suffix(".safetensors"), tmp_path)
    with pytest.raises(BackboneError, match="very same weights"):
        shop.load(tmp_path / small.name)


def test_weights_that_moved_are_found_where_they_are_said_to_be(
    shop: Workshop, tmp_path: Path
) -> None:
    import torch
    from cnn_codes.backbones.card import load_network
    from cnn_codes.settings import CodesSettings

    asked = CodesSettings(model="test_efficientnet", weights="none")
    _, network = load_network(asked, cache=shop.cache, seed=3, offline=True)
    before, after = tmp_path / "before.pth", tmp_path / "after.pth"
    torch.save(network.state_dict(), before)
    run = shop.heads("ridge", weights=str(before), engine="torch")[0]
    before.rename(after)
    with pytest.raises(BackboneError, match="no weights file"):
        shop.load(run)
    again = shop.again(run, weights=str(after), machine=MachineSettings(engine="torch"))
    np.testing.assert_allclose(again, shop.stored(run).probabilities, rtol=0, atol=ROUNDING)


def test_a_fine_tuned_network_takes_no_other_weights(shop: Workshop, tuned: Path) -> None:
    with pytest.raises(SettingsError, match="its own weights"):
        shop.load(tuned, weights="x.pth")


def test_a_run_is_found_by_name_and_by_its_beginning(
    shop: Workshop, real: dict[str, Path], small: Path
) -> None:
    def load(run: str) -> str:
        return Classifier.load(run, results=shop.results, cache=shop.cache, offline=True).run

    name = real["ridge"].stem
    assert load(name) == load(f"few/{name}") == load(f"{name}.json") == name
    assert load("rbf-") == real["rbf"].stem
    with pytest.raises(ResultError, match="runs are called svm"):
        load("svm")
    with pytest.raises(ResultError, match="no run called svn") as caught:
        load("svn")
    assert "svm-" in caught.value.expected
    with pytest.raises(ResultError, match="which run"):
        load("")
    for odd in ("..", ".", "/", "\0"):
        with pytest.raises(ResultError):
            load(odd)


def test_a_summary_names_its_runs(shop: Workshop) -> None:
    shop.heads("centroid", splits=2)
    summary = next((shop.results / "few").glob("centroid*2splits*.json"))
    with pytest.raises(ResultError, match="sums up") as caught:
        shop.load(summary)
    assert "split1of2" in caught.value.expected


def test_the_public_names_are_imported_at_their_first_use() -> None:
    code = (
        "import sys, cnn_codes\n"
        "heavy = {'torch', 'sklearn', 'numpy', 'h5py', 'timm'}\n"
        "assert not heavy & set(sys.modules)\n"
        "from cnn_codes import Classifier, open_codes\n"
        "assert not {'torch', 'sklearn', 'timm'} & set(sys.modules)\n"
        "from cnn_codes import CodesTransformer\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    assert {"Classifier", "CodesTransformer", "open_codes"} <= set(dir(cnn_codes))
    with pytest.raises(AttributeError):
        cnn_codes.nothing  # noqa: B018


def test_no_torch_where_the_graph_is_at_hand(shop: Workshop, small: Path, tuned: Path) -> None:
    shop.again(small), shop.again(tuned)  # export what is not there yet
    code = (
        "import sys\n"
        "from cnn_codes import Classifier\n"
        "for run in sys.argv[3:]:\n"
        "    classifier = Classifier.load(run, cache=sys.argv[1], offline=True)\n"
        "    assert len(classifier.predict([sys.argv[2]])) == 1\n"
        "assert not {'torch', 'sklearn', 'timm', 'onnx'} & set(sys.modules)\n"
    )
    image = shop.test_images()[0]
    arguments = [str(one) for one in (shop.cache, image, small, tuned)]
    subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, check=True)


def test_prediction_costs_what_stage_one_costs(
    shop: Workshop, real: dict[str, Path], tmp_path: Path
) -> None:
    """Compare seconds of the processor, in turn: others may share the machine."""
    classifier = shop.load(real["svm"])
    paths = [path for path in sorted(shop.images.rglob("*.*")) if is_image(path.name)]
    ratios = []
    for turn in range(3):
        folder = tmp_path / str(turn)
        folder.mkdir()
        (folder / "backbones").symlink_to(shop.cache / "backbones")
        stage_one = StageOne(folder)
        manifest = stage_one.manifest(shop.images)
        start = time.process_time()
        assert stage_one(manifest, **REAL).n_new == len(paths) == 36
        between = time.process_time()
        assert sum(1 for _ in classifier.classify(paths)) == 36
        ratios.append((time.process_time() - between) / (between - start))
    assert statistics.median(ratios) < 1.2
