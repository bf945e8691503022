"""Exported models agree with the runs that they are made of, anywhere."""

import json
import re
import venv
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from cnn_codes.backbones.preprocess import Preprocessing, Views, take_views
from cnn_codes.cli import main
from cnn_codes.errors import DataError, SettingsError
from cnn_codes.explain import Explainer
from cnn_codes.export import Exported, export_run
from cnn_codes.export.graph import BOOL, UINT8, Graph
from cnn_codes.export.resize import add_resize
from cnn_codes.export.run import session_of
from cnn_codes.predict.items import load_item
from cnn_codes.settings import MachineSettings, PlaceSettings
from conftest import ran
from explaining import crops, workshop
from numpy.typing import NDArray
from onnx import helper
from PIL import Image
from predicting import REAL, Workshop
from tuning import Tuning


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, backbones: Path) -> Workshop:
    return workshop(tmp_path_factory.mktemp("export"), backbones)


def export(shop: Workshop, run: Path, out: Path, **options: Any) -> Exported:
    return export_run(run, out, cache=shop.cache, results=shop.results, offline=True, **options)


def outputs(session: Any, **inputs: NDArray[Any]) -> dict[str, NDArray[Any]]:
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, inputs), strict=True))


def resizer(preprocessing: Preprocessing) -> Any:
    g = Graph("test")
    g.rename(add_resize(g, "image", "prepared", preprocessing), "square")
    size = preprocessing.size
    graph = helper.make_graph(
        g.nodes,
        "test",
        [
            helper.make_tensor_value_info("image", UINT8, ["h", "w", 3]),
            helper.make_tensor_value_info("prepared", BOOL, []),
        ],
        [helper.make_tensor_value_info("square", UINT8, [size, size, 3])],
        [helper.make_tensor("prepared", BOOL, [], [False]), *g.constants],
    )
    opset = [helper.make_opsetid("", 20)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=10)
    onnx.checker.check_model(model)
    return session_of(model.SerializeToString())


@pytest.mark.parametrize("resize", ["crop", "stretch", "pad"])
@pytest.mark.parametrize("filter", ["bicubic", "bilinear", "box", "lanczos", "nearest"])
def test_the_graph_resizes_to_the_very_same_bytes(filter: str, resize: str) -> None:
    preprocessing = Preprocessing(48, 0.875, resize, filter, (0.5, 0.4, 0.3), (0.5, 0.5, 0.5))
    session = resizer(preprocessing)
    random = np.random.default_rng(0)
    sizes = [(1, 1), (1, 7), (3, 150), (48, 48), (49, 47), (299, 299), (700, 500)]
    for height, width in [*sizes, *random.integers(1, 300, (6, 2)).tolist()]:
        pixels = random.integers(0, 256, (height, width, 3), np.uint8)
        expected = take_views(pixels, preprocessing, Views("center", 1), "")[0]
        (found,) = session.run(None, {"image": pixels})
        assert np.array_equal(found, expected), (height, width)
    square = random.integers(0, 256, (48, 48, 3), np.uint8)
    (found,) = session.run(None, {"image": square, "prepared": np.array(True)})
    assert np.array_equal(found, square)


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("softmax", {}),
        ("centroid", {"views": "dihedral"}),
        ("ridge", {"views": "flip", "dtype": "float16", "resize": "pad"}),
        ("knn", {"views": "flip"}),
        ("rbf", {"class_weight": "balanced"}),
        ("svm", {"class_weight": "balanced", "threshold": "recall:0.95:flower"}),
        ("rbf", {"views": "flip", "train_views": "all"}),
        ("svm", {"layers": ("blocks.1", "final")}),
    ],
)
def test_a_head_of_any_kind_agrees_with_the_run(
    shop: Workshop, tmp_path: Path, method: str, settings: dict[str, Any]
) -> None:
    (run,) = shop.heads(method, **settings)
    exported = export(shop, run, tmp_path)
    session = session_of(exported.files[0])
    classifier = shop.load(run)
    model = classifier.model
    pieces, _ = crops(4, seed=9, sides=(20, 400))
    named = classifier.predict(pieces).tolist()
    proba = classifier.predict_proba(pieces)
    for pixels, expected, name in zip(pieces, proba, named, strict=True):
        found = outputs(session, image=pixels)
        assert np.abs(found["probabilities"] - expected).max() < 1e-5
        assert classifier.classes[int(found["class_index"])] == name
        unit = found["codes"]
        assert np.linalg.norm(unit) == pytest.approx(1, abs=1e-5)
        if "evidence" in found:
            logits = found["logits"]
            sums = found["evidence"].sum(axis=(1, 2))
            assert np.allclose(sums, logits - logits.mean(), atol=1e-4)
        if model.preprocessing.resize == "crop":
            view = load_item(pixels).views(model.preprocessing, Views("center", 1))[0]
            found = outputs(session, image=view, prepared=np.array(True))
            assert np.abs(found["probabilities"] - expected).max() < 1e-5
    linear = method not in ("knn", "rbf")
    assert ("evidence" in found) == linear


def test_int8_is_calibrated_on_train_and_compared_on_test(shop: Workshop, tmp_path: Path) -> None:
    (run,) = shop.heads("softmax", resize="pad")
    full = export(shop, run, tmp_path / "float32")
    small = export(shop, run, tmp_path / "int8", precision="int8")
    (said,) = set(small.notes) - set(full.notes)
    found = re.search(
        r"accuracy ([.\d]+) in int8, ([.\d]+) in float32 on the same (\d+) test images; "
        r"difference (-?[.\d]+) points \(95 % CI -?[.\d]+ to -?[.\d]+\)", said,
    )  # fmt: skip
    assert found, said
    assert said.startswith("warning: ") == (float(found[4]) < -0.5)
    assert said in (tmp_path / "int8" / "card.md").read_text(), "the card says it too"
    stored, session = shop.stored(run), session_of(small.files[0])
    assert int(found[3]) == len(stored.paths)
    assert float(found[2]) == pytest.approx(np.mean(stored.predicted == stored.labels), abs=1e-4)
    hits = []
    for path, label in zip(stored.paths, stored.labels.tolist(), strict=True):
        pixels = np.asarray(Image.open(shop.images / path).convert("RGB"))
        hits.append(int(outputs(session, image=pixels)["class_index"]) == label)
    assert float(found[1]) == pytest.approx(np.mean(hits), abs=1e-4)
    kinds = {one.op_type for one in onnx.load(small.files[0]).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
    again = export(shop, run, tmp_path / "again", precision="int8")
    assert again.files[0].read_bytes() == small.files[0].read_bytes()


def test_int8_of_a_run_without_images_or_without_test_images_is_answered(
    shop: Workshop, tmp_path: Path
) -> None:
    (run,) = shop.heads("ridge", test="cv:3")
    found = export(shop, run, tmp_path / "cv", precision="int8")
    assert any("no test images that it was not trained on" in one for one in found.notes)
    (run,) = shop.heads("ridge")
    moved = shop.images.with_name("moved")
    shop.images.rename(moved)
    try:
        with pytest.raises(DataError, match="needs the images of"):
            export(shop, run, tmp_path / "none", precision="int8")
    finally:
        moved.rename(shop.images)
    assert not (tmp_path / "none").exists()


def test_three_classes_of_an_rbf_svm_and_neighbours(
    tmp_path: Path, backbones: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    from explaining import write_crops

    shop = workshop(tmp_path_factory.mktemp("three"), backbones)
    for path in sorted(shop.images.rglob("*.png")):
        if int(path.stem) % 3 == 0:
            target = path.parent.parent / "negative" / path.name
            target.parent.mkdir(exist_ok=True)
            Image.fromarray(255 - np.asarray(Image.open(path))).save(target)
            path.unlink()
    assert write_crops
    for run in shop.heads("rbf", "knn"):
        session = session_of(export(shop, run, tmp_path / run.stem).files[0])
        pieces, _ = crops(5, seed=3, sides=(50, 200))
        for pixels, expected in zip(pieces, shop.load(run).predict_proba(pieces), strict=True):
            found = outputs(session, image=pixels)["probabilities"]
            assert found.shape == (3,)
            assert np.abs(found - expected).max() < 1e-5


def test_equal_runs_give_equal_bytes_without_a_trace_of_the_machine(
    shop: Workshop, tmp_path: Path
) -> None:
    (run,) = shop.heads("svm")
    first = export(shop, run, tmp_path / "one")
    again = export(shop, run, tmp_path / "two")
    for one, other in zip(first.files, again.files, strict=True):
        assert one.read_bytes() == other.read_bytes()
        assert str(shop.cache).encode() not in one.read_bytes()
        assert b"site-packages" not in one.read_bytes()
    model = onnx.load(first.files[0])
    onnx.checker.check_model(model)
    about = {one.key: one.value for one in model.metadata_props}
    assert json.loads(about["classes"]) == ["china", "flower"]
    assert about["run"] == run.stem
    assert about["weights_digest"]


def test_the_card_says_what_the_record_says(shop: Workshop, tmp_path: Path) -> None:
    (run,) = shop.heads("svm")
    card = export(shop, run, tmp_path).folder.joinpath("card.md").read_text()
    test = json.loads(run.read_text())["metrics"]["test"]
    assert f"| accuracy | {test['accuracy']:.4f} |" in card
    assert "| flower | 12 | 4 |" in card
    for heading in ("Use", "Data", "Accuracy", "Calibration", "Limits", "Origin"):
        assert f"\n## {heading}\n" in card


def test_a_fine_tuned_network_agrees(shop: Workshop, tmp_path: Path) -> None:
    places = PlaceSettings(cache=str(shop.cache), results=str(tmp_path / "results"))
    record = Tuning(shop.images, places)(epochs=1, views="flip", size=64)
    run = tmp_path / "results" / shop.images.name / f"{record['run']}.json"
    exported = export(shop, run, tmp_path / "out")
    session = session_of(exported.files[0])
    machine = MachineSettings(engine="torch", device="cpu")
    pieces, _ = crops(2, seed=5, sides=(60, 90))
    expected = shop.load(run, machine=machine).predict_proba(pieces)
    for pixels, one in zip(pieces, expected, strict=True):
        assert np.abs(outputs(session, image=pixels)["probabilities"] - one).max() < 1e-4
    explainer = Explainer(shop.load(run, machine=machine), machine)
    for pixels in pieces:
        found = outputs(session, image=pixels)
        logits, evidence = found["logits"], found["evidence"]
        np.testing.assert_allclose(evidence.sum((1, 2)), logits - logits.mean(), atol=1e-4)
        for at, name in enumerate(record["class_names"]):  # there by gradient x activation
            mine = explainer.explain(pixels, target=name).evidence
            flat = (evidence[at] - mine).ravel()
            np.testing.assert_allclose(flat, flat.mean(), atol=1e-4)  # but for the bias


def test_random_views_are_refused_with_what_to_do(shop: Workshop, tmp_path: Path) -> None:
    (run,) = shop.heads("svm", views="random:2")
    with pytest.raises(SettingsError, match="random crops"):
        export(shop, run, tmp_path)


def test_the_command(shop: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run,) = shop.heads("svm")
    places = [f"CACHE={shop.cache}", f"RESULTS={shop.results}", "OFFLINE=1"]
    assert main(["export", f"RUN={run}", f"OUT={tmp_path / 'out'}", *places]) == 0
    said = capsys.readouterr().out
    assert "model.onnx" in said
    assert "largest difference from make predict" in said
    (tmp_path / "file").write_text("")
    assert main(["export", f"RUN={run}", f"OUT={tmp_path / 'file'}", *places]) == 2


def test_the_script_needs_three_packages(shop: Workshop, tmp_path: Path) -> None:
    """Run it where nothing of this project, of torch or of scikit-learn can be imported."""
    (run,) = shop.heads("svm")
    folder = export(shop, run, tmp_path / "out").folder
    lines = (folder / "predict.py").read_text().splitlines()
    assert len(lines) <= 20
    venv.create(tmp_path / "bare", with_pip=False)
    python = tmp_path / "bare" / "bin" / "python"
    if not python.exists():
        pytest.skip("an environment of another layout")
    site = next((tmp_path / "bare").glob("lib/python*/site-packages"))
    for package in (onnx_runtime := "onnxruntime", "numpy", "PIL", "flatbuffers", "google"):
        link_package(package, site)
    assert onnx_runtime
    images = shop.test_images()[:3]
    done = ran([python, folder / "predict.py", *images])
    assert (done.returncode, done.stderr) == (0, "")
    expected = shop.load(run).predict_proba(images)
    for line, image, one in zip(done.stdout.splitlines(), images, expected, strict=True):
        name, told = line.split("\t")
        assert name == str(image)
        assert list(json.loads(told)) == ["china", "flower"]
        assert np.allclose(list(json.loads(told).values()), one, atol=1e-5)
    absent = ran([python, "-c", "import sklearn"])
    assert "ModuleNotFoundError" in absent.stderr


def link_package(name: str, site: Path) -> None:
    """Let a bare environment have one of this one's packages, with the libraries beside it."""
    import importlib.util

    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        return
    at = Path(next(iter(spec.submodule_search_locations)))
    (site / name).symlink_to(at)
    for libraries in (f"{name}.libs", "pillow.libs"):
        if (at.parent / libraries).is_dir() and not (site / libraries).exists():
            (site / libraries).symlink_to(at.parent / libraries)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["svm", "softmax"])
def test_400_test_images_of_hotdog(
    method: str, real_hotdog: Path, tmp_path: Path, backbones: Path
) -> None:
    from benchmarks.export import MARGIN, PREPARED, RESIZED, agreement

    backbones.mkdir(exist_ok=True)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "backbones").symlink_to(backbones)
    shop = Workshop(real_hotdog, tmp_path / "cache", tmp_path / "results")
    (run,) = shop.heads(method, **REAL)
    session = session_of(export(shop, run, tmp_path / "out").files[0])
    paths = shop.test_images()
    assert len(paths) == 400
    found = agreement(session, shop.load(run), paths)
    assert found["same"][found["margin"] > MARGIN].all()
    assert found["resized"].max() < RESIZED
    assert found["prepared"].max() < PREPARED


def test_openvino_agrees(shop: Workshop, tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    (run,) = shop.heads("softmax")
    exported = export(shop, run, tmp_path, format="openvino")
    assert [path.name for path in exported.files] == ["model.xml", "model.bin", "card.md"]
    # In one process OpenVINO numbers its nodes on, so that only the weights' file is equal.
    again = export(shop, run, tmp_path / "again", format="openvino")
    assert exported.files[1].read_bytes() == again.files[1].read_bytes()
    compiled = openvino.Core().compile_model(
        exported.files[0], "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    pieces, _ = crops(3, seed=4, sides=(40, 300))
    gaps = [
        np.abs(compiled({"image": pixels})["probabilities"] - expected).max()
        for pixels, expected in zip(pieces, shop.load(run).predict_proba(pieces), strict=True)
    ]
    assert np.median(gaps) < 1e-6
    assert max(gaps) < 5e-4  # where a pixel fell to the other side of a half
