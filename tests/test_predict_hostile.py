"""A run, or images, from a stranger: refused in words, and nothing outside is read or written."""

import copy
import json
import pickle
import shutil
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cnn_codes.errors import CacheError, HeadError, ImageError, PipelineError, TrainingError
from cnn_codes.files import sha256_file
from cnn_codes.predict import Classifier
from cnn_codes.results.frame import sealed
from cnn_codes.settings import MachineSettings, PlaceSettings
from predicting import Workshop
from safetensors.numpy import load_file, save
from tuning import Tuning

GONE = object()
STRANGE = (
    GONE, None, True, -1, 0, 3.5, 10**30, 1e308, 10**9, "", "x", "../../../../etc/passwd", "\0",
    "9" * 4000, [], {}, [1], ["a", "a"], {"a": 1}, [[[]]],
)  # fmt: skip
# What prediction does not look at, and what would only export a graph or look up a name again.
PASSED_OVER = {
    "chosen", "calibration", "warnings", "times_s", "versions", "provenance", "metrics", "curve",
    "phases", "mean", "std", "model", "arrays", "size", "asked",
}  # fmt: skip


@pytest.fixture(scope="module")
def shop(hotdog: Path, tmp_path_factory: pytest.TempPathFactory, backbones: Path) -> Workshop:
    return Workshop.open(hotdog, tmp_path_factory.mktemp("hostile"), backbones)


@pytest.fixture(scope="module")
def head(shop: Workshop) -> Path:
    run = shop.heads("knn", views="flip")[0]
    shop.again(run)  # its network is exported
    return run


@pytest.fixture(scope="module")
def network(shop: Workshop) -> Path:
    tuning = Tuning(shop.images, PlaceSettings(cache=str(shop.cache), results=str(shop.results)))
    record = tuning(model="test_efficientnet", size=32, unfreeze="all", epochs=1)
    run = tuning.results / f"{record['run']}.json"
    np.testing.assert_allclose(shop.again(run), shop.stored(run).probabilities, rtol=0, atol=1e-5)
    return run


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """List the paths to every value in a document, of lists the first."""
    if set(path) & PASSED_OVER:
        return
    yield path
    inside = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(
        value, list
    ) else ()  # fmt: skip
    for key, one in inside:
        yield from places(one, (*path, key))


def changed(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    document = copy.deepcopy(document)
    at = document
    for key in path[:-1]:
        at = at[key]
    if value is GONE:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return document


@pytest.mark.parametrize("suffix", [".model.json", ".json"])
@pytest.mark.parametrize("kind", ["head", "network"])
def test_an_edited_description_is_refused_or_harmless(
    shop: Workshop, tmp_path: Path, kind: str, suffix: str, request: pytest.FixtureRequest
) -> None:
    run: Path = request.getfixturevalue(kind)
    for other in (".model.json", ".safetensors", ".json", ".predictions.csv"):
        if other != ".json" or suffix == ".json":  # its digests would refuse any edit at once
            shutil.copy(run.with_name(run.stem + other), tmp_path)
    target = tmp_path / (run.stem + suffix)
    document = json.loads(target.read_text())
    image, refused, n = shop.test_images()[0], 0, 0
    for number, path in enumerate(places(document)):
        for value in STRANGE[number % 7 :: 7]:  # a seventh of all pairs; all of them take minutes
            if value is GONE and not path:
                continue
            target.write_text(json.dumps(changed(document, path, value)))
            n += 1
            try:
                classifier = Classifier.load(target, cache=shop.cache, offline=True)
                found = classifier.predict_proba(image)
                assert found.shape == (1, len(classifier.classes))
                assert np.isfinite(found).all()
                classifier.neighbours()
            except PipelineError:
                refused += 1
    assert n > 50
    assert refused > n / 4


@pytest.mark.parametrize(
    ("word", "value"),
    [
        (word, value)
        for word in ("model", "weights", "layers", "views", "pool", "precision")
        for value in (None, 7, "../../x", "9" * 300, ["a", 1], {"a": 1})
        if word != "model" or not isinstance(value, str)  # to look a name up takes seconds
    ],
)
def test_edited_settings_of_the_codes_are_refused(
    shop: Workshop, head: Path, tmp_path: Path, word: str, value: Any
) -> None:
    shutil.copy(head.with_suffix(".safetensors"), tmp_path)
    target = tmp_path / f"{head.stem}.model.json"
    document = json.loads(head.with_name(target.name).read_text())
    target.write_text(json.dumps(changed(document, ("meta", "codes", "asked", word), value)))
    try:
        Classifier.load(target, cache=shop.cache, offline=True).predict_proba(shop.test_images()[0])
    except PipelineError:
        return
    assert word in ("views", "layers", "pool")  # what counts is what they were resolved to


@pytest.mark.parametrize("kind", ["head", "network"])
@pytest.mark.parametrize("what", ["pickle", "empty", "shape", "infinite", "name", "dtype"])
def test_other_arrays_are_refused(
    shop: Workshop, tmp_path: Path, kind: str, what: str, request: pytest.FixtureRequest
) -> None:
    run: Path = request.getfixturevalue(kind)
    arrays = load_file(run.with_suffix(".safetensors"))
    name = "mean" if kind == "head" else "classifier.weight"
    if what == "shape":
        arrays[name] = arrays[name][..., :-1].copy()
    elif what == "infinite":
        arrays[name] = np.full_like(arrays[name], np.nan)
    elif what == "name":
        arrays["../" + name] = arrays.pop(name)
    elif what == "dtype":
        arrays[name] = arrays[name].astype(np.float16)
    data = save(arrays)
    if what == "pickle":
        data = pickle.dumps(arrays)
    elif what == "empty":
        data = b""
    (tmp_path / f"{run.stem}.safetensors").write_bytes(data)
    described = json.loads(run.with_name(f"{run.stem}.model.json").read_text())
    digest = "arrays_sha256" if kind == "head" else "tensors_sha256"
    described[digest] = sha256_file(tmp_path / f"{run.stem}.safetensors")  # a stranger can, too
    (tmp_path / f"{run.stem}.model.json").write_text(json.dumps(described))
    with pytest.raises(HeadError if kind == "head" else TrainingError):
        Classifier.load(
            tmp_path / run.name,
            cache=shop.cache,
            machine=MachineSettings(engine="torch", device="cpu"),
            offline=True,
        )


@pytest.mark.parametrize(
    "what",
    [
        "pickle", "empty", "cut", "code_dim", "no rows", "infinite", "dtype", "axes", "label",
        "fewer labels", "fewer paths", "an array more", "an array less", "another network",
        "schema", "no metadata",
    ],
)  # fmt: skip
def test_other_training_codes_are_refused(
    shop: Workshop, network: Path, tmp_path: Path, what: str
) -> None:
    for suffix in (".model.json", ".safetensors"):
        shutil.copy(network.with_name(network.stem + suffix), tmp_path)
    source = network.with_name(f"{network.stem}.train.safetensors")
    arrays = load_file(source)
    about = {"schema": "1", "network": sha256_file(network.with_suffix(".safetensors"))}
    target = tmp_path / source.name
    target.write_bytes(save(arrays, about))
    classifier = Classifier.load(tmp_path / network.name, cache=shop.cache, offline=True)
    assert classifier.neighbours().units.shape == arrays["codes"].shape  # all is well so far
    codes = arrays["codes"]
    if what == "code_dim":
        arrays["codes"] = codes[:, :-1].copy()
    elif what == "no rows":
        arrays = {name: array[:0].copy() for name, array in arrays.items()}
    elif what == "infinite":
        codes[0, 0] = np.nan
    elif what == "dtype":
        arrays["codes"] = codes.astype(np.float64)
    elif what == "axes":
        arrays["codes"] = codes[None].copy()
    elif what == "label":
        arrays["labels"][-1] = 2
    elif what == "fewer labels":
        arrays["labels"] = arrays["labels"][1:].copy()
    elif what == "fewer paths":
        arrays["paths"] = arrays["paths"][-5:].copy()
    elif what == "an array more":
        arrays["../more"] = codes
    elif what == "an array less":
        del arrays["labels"]
    elif what == "another network":
        about["network"] = "0" * 64
    elif what == "schema":
        about["schema"] = "2"
    elif what == "no metadata":
        about = {}
    data = save(arrays, about)
    if what == "pickle":
        data = pickle.dumps(arrays)
    elif what == "empty":
        data = b""
    elif what == "cut":
        data = data[:-1]
    target.write_bytes(data)
    with pytest.raises(CacheError, match=r"train\.safetensors cannot be used"):
        classifier.neighbours()
    image = shop.test_images()[0]
    assert np.isfinite(classifier.predict_proba(image)).all()  # it predicts all the same


def test_training_codes_of_another_run_are_refused_by_the_record(
    shop: Workshop, network: Path, tmp_path: Path
) -> None:
    for suffix in (".json", ".model.json", ".safetensors", ".train.safetensors"):
        shutil.copy(network.with_name(network.stem + suffix), tmp_path)
    path = tmp_path / f"{network.stem}.train.safetensors"
    classifier = shop.load(path)  # any file of the run names it
    assert classifier.run == network.stem
    classifier.neighbours()
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(CacheError, match="not the one that the run was written with"):
        classifier.neighbours()


def test_a_data_set_s_name_leads_nowhere_else(shop: Workshop, head: Path, tmp_path: Path) -> None:
    for suffix in (".model.json", ".safetensors", ".predictions.csv"):
        shutil.copy(head.with_name(head.stem + suffix), tmp_path)
    record = json.loads(head.read_text())
    for name in ("../../few", "/few", str(shop.cache / "few"), ""):
        (tmp_path / head.name).write_text(json.dumps(sealed(record | {"data": name})))
        classifier = Classifier.load(tmp_path / head.name, cache=shop.cache / "far", offline=True,
                                     machine=MachineSettings(engine="torch"))  # fmt: skip
        with pytest.raises(PipelineError, match="far"):  # looked for below the cache
            classifier.neighbours()


def test_an_archive_cannot_write_outside(
    shop: Workshop, head: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = shop.test_images()[0]
    for name in ("../evil.jpg", "/evil.jpg", "a/../../evil.jpg", "..\\evil.jpg", "C:\\e.jpg"):
        packed = tmp_path / "slip.zip"
        with zipfile.ZipFile(packed, "w") as archive:
            archive.write(image, "good.jpg")
            archive.writestr(name, image.read_bytes())
        assert shop.predict(packed, head) == 2
        assert "leads out of the folder" in capsys.readouterr().err
    with zipfile.ZipFile(packed, "w") as archive:
        archive.write(image, "good.jpg")
        link = zipfile.ZipInfo("link.jpg")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, str(image))
    assert shop.predict(packed, head) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["slip.zip"]


def test_a_list_cannot_make_it_read_for_ever(shop: Workshop, head: Path, tmp_path: Path) -> None:
    huge = tmp_path / "huge.jpg"
    with huge.open("wb") as stream:
        stream.truncate(1 << 40)  # bytes that take no room
    listed = tmp_path / "list.txt"
    listed.write_text(f"/dev/zero\n{huge}\n/proc/self/mem\n{tmp_path}\n{shop.test_images()[0]}\n")
    assert shop.predict(listed, head, out=tmp_path / "out.jsonl") == 0
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["status"] for row in found] == ["error"] * 4 + ["ok"]
    with pytest.raises(ImageError, match="absurdly large"):
        shop.load(head).predict(huge)
