"""Networks in int8: near to float32, calibrated on the data set's own training images."""

import re
from dataclasses import replace

import numpy as np
import onnx
import pytest
from cnn_codes.backbones import quantise as quantisation
from cnn_codes.backbones.onnx_engine import OnnxEngine
from cnn_codes.backbones.preprocess import Preprocessing
from cnn_codes.backbones.quantise import cosines, quantise, weight_bits, weight_bits_of
from cnn_codes.codes import calibration as calibrating
from cnn_codes.codes.calibration import calibration_of
from cnn_codes.codes.extract import extract
from cnn_codes.compare.precision import precision_effect
from cnn_codes.errors import BackboneError, SettingsError
from cnn_codes.export import export_run
from cnn_codes.finetune import finetune
from cnn_codes.heads.run import fit_heads
from cnn_codes.predict import Classifier
from cnn_codes.settings import FinetuneSettings, HeadSettings, MachineSettings
from onnx import numpy_helper
from pictures import write_set

LAYERS = ("Conv", "Gemm", "MatMul")


def test_codes_in_int8_are_near_and_their_network_is_calibrated_on_training_images(
    stage_one, tmp_path
):
    data = write_set(tmp_path / "pets", 12)
    exact, done = stage_one(data), stage_one(data, precision="int8")
    assert done.codes.fingerprint != exact.codes.fingerprint
    assert "int8" in done.engine
    assert any("cosine between codes in int8 and in float32" in note for note in done.notes)
    order = [exact.codes.paths.index(path) for path in done.codes.paths]
    near = cosines([done.codes["final"]], [exact.codes["final"][order]])
    assert 0.9 < near.mean() < 0.9999999
    again = stage_one(data, precision="int8")
    assert again.n_new == 0
    assert any("cosine" in note for note in again.notes)
    (path,) = (stage_one.cache / "backbones").glob("*-int8-*.onnx")
    graph = onnx.load(path)
    kinds = {node.output[0]: node.op_type for node in graph.graph.node}
    fed = [
        kinds.get(node.input[1]) == "DequantizeLinear"
        for node in graph.graph.node
        if node.op_type in LAYERS
    ]
    assert not fed[0]
    assert sum(fed) > len(fed) / 2
    assert weight_bits_of(graph) == weight_bits()
    pixels = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
    engine = OnnxEngine(path, batch=4)  # codes do not depend on which images come together
    parts = np.concatenate([engine.run(pixels[i : i + 2])[0] for i in range(0, 5, 2)])
    assert np.array_equal(parts, engine.run(pixels)[0])
    plain = path.with_name(path.name.partition("-int8-")[0] + ".onnx").read_bytes()
    assert quantise(plain, pixels) == quantise(plain, pixels)
    assert quantise(plain, pixels) != quantise(plain, pixels // 2)
    coarse, fine = (onnx.load_from_string(quantise(plain, pixels, bits)) for bits in (7, 8))
    assert (weight_bits_of(coarse), weight_bits_of(fine)) == (7, 8)
    assert max(_largest(coarse)) <= 64 < 127 <= max(_largest(fine))


def test_eight_bits_that_do_not_suit_a_network_are_advised_against(stage_one, tmp_path):
    done = stage_one(write_set(tmp_path / "pets", 12), precision="int8", model="test_vit", size=160)
    (said,) = [note for note in done.notes if "cosine" in note]
    mean = float(re.search(r"is ([.\d]+) on average", said)[1])
    assert ("leave PRECISION out" in said) == (mean < 0.95)
    assert mean < 0.95, "a transformer of random weights"


def _largest(graph: onnx.ModelProto) -> list[int]:
    """Largest size of each quantised weight."""
    values = (numpy_helper.to_array(one) for one in graph.graph.initializer)
    return [int(np.abs(one.astype(int)).max()) for one in values if one.dtype == np.int8]


def test_a_graph_for_exact_sums_is_refused_where_they_saturate(stage_one, tmp_path, monkeypatch):
    data = write_set(tmp_path / "pets", 12)
    monkeypatch.setattr(quantisation, "weight_bits", lambda: 8)  # as on a CPU with VNNI
    monkeypatch.setattr(calibrating, "weight_bits", lambda: 8)
    made = stage_one(data, precision="int8")
    context = stage_one.context(stage_one.manifest(data), precision="int8", results=tmp_path / "r")
    (record,) = fit_heads(context, made.codes, HeadSettings(methods=("ridge",), folds=2))
    path = context.folder / f"{record['run']}.json"
    card = export_run(path, tmp_path / "out", cache=stage_one.cache).folder / "card.md"
    assert "without VNNI" in card.read_text()
    monkeypatch.setattr(
        quantisation, "weight_bits", lambda: 7
    )  # the cache is moved to an older one
    monkeypatch.setattr(calibrating, "weight_bits", lambda: 7)
    with pytest.raises(BackboneError, match="this one saturates"):
        Classifier.load(path, cache=stage_one.cache, machine=MachineSettings(engine="onnx"))
    assert stage_one(data, precision="int8").codes.fingerprint != made.codes.fingerprint


def test_calibration_takes_training_images_by_their_bytes_alone(stage_one, tmp_path):
    manifest = stage_one.manifest(write_set(tmp_path / "pets", 12))
    context = stage_one.context(manifest)
    size = extract(context).codes.config["preprocessing"]
    preprocessing = Preprocessing.from_dict(size)
    chosen = calibration_of(manifest, preprocessing)
    shuffled = manifest.take(np.random.default_rng(0).permutation(manifest.n_images))
    assert calibration_of(shuffled, preprocessing).digest == chosen.digest
    train = np.flatnonzero(manifest.split == 0)
    ranges, others = chosen.images()
    assert len(ranges) + len(others) == len(np.unique(manifest.sha256[train]))
    fewer = manifest.take(np.delete(np.arange(manifest.n_images), train[0]))
    assert calibration_of(fewer, preprocessing).digest != chosen.digest
    with pytest.raises(SettingsError, match="calibrated on training images"):
        calibration_of(manifest.take(np.flatnonzero(manifest.split == 2)), preprocessing)


def test_a_head_on_codes_in_int8_predicts_and_is_compared_with_float32(stage_one, tmp_path):
    data = write_set(tmp_path / "pets", 12)
    manifest = stage_one.manifest(data)
    settings = HeadSettings(methods=("ridge",), folds=2)
    results = tmp_path / "results"
    small = stage_one.context(manifest, precision="int8", results=results)
    (record,) = fit_heads(small, extract(small).codes, settings)
    said = precision_effect(small.folder, record, "make ridge")
    assert "make ridge makes it" in said
    full = replace(small, codes=replace(small.codes, precision="float32"))
    fit_heads(full, extract(full).codes, settings)
    said = precision_effect(small.folder, record, "make ridge")
    found = re.search(r"accuracy ([.\d]+) in int8, ([.\d]+) in float32 on the same (\d+)", said)
    assert found
    assert float(found[1]) == pytest.approx(record["metrics"]["test"]["accuracy"], abs=1e-4)
    path = small.folder / f"{record['run']}.json"
    first = next(i for i, split in enumerate(manifest.split.tolist()) if split == 2)
    machine = MachineSettings(device="cpu", engine="onnx")
    loaded = Classifier.load(path, cache=stage_one.cache, machine=machine)
    kept = (small.folder / f"{record['run']}.predictions.csv").read_text().splitlines()
    line = next(one for one in kept if one.startswith(manifest.paths[first]))
    proba = loaded.predict_proba(manifest.root / manifest.paths[first])[0]
    assert np.allclose(proba, [float(cell) for cell in line.split(",")[3:]], atol=1e-6)
    exported = export_run(path, tmp_path / "out", cache=stage_one.cache)
    assert exported.difference < 1e-5, "the very network in int8 that made the codes"
    assert "int8" in (tmp_path / "out" / "card.md").read_text()
    for file in (stage_one.cache / "backbones").glob("*-int8-*.onnx"):
        file.unlink()
    with pytest.raises(SettingsError, match="its quantised graph is not in this cache"):
        Classifier.load(path, cache=stage_one.cache, machine=machine)


def test_int8_is_refused_where_it_cannot_be_had(stage_one, tmp_path):
    data = write_set(tmp_path / "pets", 8)
    with pytest.raises(SettingsError, match="int8 is not available with ENGINE=torch"):
        stage_one(data, precision="int8", engine="torch")
    context = stage_one.context(stage_one.manifest(data), precision="int8")
    with pytest.raises(SettingsError, match="int8 is not available for fine-tuning"):
        finetune(context, FinetuneSettings())
    with pytest.raises(BackboneError, match="no image to calibrate"):
        quantise(b"", np.empty((0, 32, 32, 3), np.uint8))
