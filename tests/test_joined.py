"""``MODEL=a+b``: several networks' codes side by side, in every stage that takes codes."""

import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cnn_codes import api
from cnn_codes.backbones.preprocess import (
    JoinedPreprocessing,
    Preprocessing,
    Views,
    preprocessing_from,
    read_views,
)
from cnn_codes.codes.joined import join_codes
from cnn_codes.codes.reader import Codes
from cnn_codes.errors import BackboneError, CacheError, HeadError, SettingsError
from cnn_codes.predict.loading import load_model
from cnn_codes.predict.runs import find_run
from cnn_codes.serve.decoding import answer
from cnn_codes.settings import CodesSettings, MachineSettings
from conftest import SMALL, StageOne
from pictures import jpeg, write_set
from predicting import Workshop

A, B = str(SMALL["model"]), "test_resnet"
BOTH = f"{A}+{B}"


@pytest.fixture(scope="module")
def shop(hotdog: Path, tmp_path_factory: pytest.TempPathFactory, backbones: Path) -> Workshop:
    return Workshop.open(hotdog, tmp_path_factory.mktemp("joined"), backbones)


@pytest.fixture(scope="module")
def run(shop: Workshop) -> Path:
    return shop.heads("softmax", model=BOTH)[0]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"model": "a+"}, "a name is empty"),
        ({"model": "+"}, "a name is empty"),
        ({"model": "a+a"}, "a is there twice"),
        ({"model": "a+b+a"}, "a is there twice"),
        ({"model": "a+b", "weights": "some.pth"}, "are of one network"),
        ({"model": "a+b", "weights": "IMAGENET1K_V2"}, "are of one network"),
        ({"model": "a+b", "layers": ("layer4",)}, "does not say of which network"),
        ({"model": "a+b", "layers": ("a/layer4",)}, "names no layer of b"),
    ],
)
def test_settings_that_fit_no_networks_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words) as caught:
        CodesSettings(**settings)
    assert caught.value.expected
    assert caught.value.todo


def test_each_network_is_asked_for_its_own_layers() -> None:
    asked = CodesSettings(model="x/a+b", layers=("final", "x/a/blocks.1", "b/layer4"), size=64)
    first, second = asked.of_each()
    assert (first.model, first.layers) == ("x/a", ("final", "blocks.1"))
    assert (second.model, second.layers) == ("b", ("final", "layer4"))
    assert {first.size, second.size} == {64}
    alone = CodesSettings(model="a", layers=("layer4",))
    assert alone.of_each() == (alone,)


def test_unknown_and_equal_networks_are_named_before_any_runs(
    stage_one: StageOne, tmp_path: Path
) -> None:
    data = write_set(tmp_path / "pets", 8)
    with pytest.raises(BackboneError, match="nonsense"):
        stage_one(data, model=f"{A}+nonsense")
    with pytest.raises(BackboneError, match="no layer nowhere"):
        stage_one(data, model=BOTH, layers=(f"{A}/final", f"{B}/nowhere"))
    with pytest.raises(BackboneError, match="same network"):
        stage_one(data, model=f"{A}+timm/{A}")
    assert not list(stage_one.cache.glob("pets/**/*.h5"))


def test_codes_are_those_of_the_networks_side_by_side(stage_one: StageOne, tmp_path: Path) -> None:
    data = write_set(tmp_path / "pets", 12)
    (data / "cat" / "bad.jpg").write_bytes(b"no picture")
    (data / "dog" / "copy.jpg").write_bytes(jpeg(0))  # the same bytes under another name
    other = stage_one(data, model=B)
    done = stage_one(data, model=BOTH)  # one of the two is there
    assert {model: part.n_new for model, part in done.parts.items()} == {A: 13, B: 0}
    alone = {model: stage_one(data, model=model) for model in (A, B)}
    assert alone[A].n_new == alone[B].n_new == 0
    files = sorted(stage_one.cache.rglob("*.h5"))
    assert stage_one(data, model=BOTH).n_new == 0
    assert sorted(stage_one.cache.rglob("*.h5")) == files

    codes, first, second = done.codes, alone[A].codes, alone[B].codes
    assert second.fingerprint == other.codes.fingerprint
    assert codes.files == (first.path, second.path)
    assert codes.layers == (f"{A}/final", f"{B}/final")
    sides = np.concatenate([first.matrix(), second.matrix()], axis=2)
    assert codes.matrix().tobytes() == sides.tobytes()
    assert codes.matrix([f"{B}/final"]).tobytes() == second.matrix().tobytes()
    assert (codes.paths, codes.rejects) == (first.paths, first.rejects)
    assert len(done.rejects) == 1
    assert codes.labels.tolist() == first.labels.tolist()
    turned = stage_one(data, model=f"{B}+{A}").codes  # the columns stand in another order
    assert len({one.fingerprint for one in (codes, turned, first, second)}) == 4
    assert codes.fingerprint == stage_one(data, model=BOTH).codes.fingerprint
    with pytest.raises(CacheError, match="no layer final"):
        codes["final"]


@dataclass(frozen=True, eq=False)
class Refusing(Codes):
    """A file of codes of a decoder that refused an image more."""

    refused: str = ""

    @cached_property
    def rejects(self) -> dict[str, str]:
        return {self.refused: "truncated"}


def test_rows_are_joined_by_their_bytes_and_a_reject_of_either_is_one(
    stage_one: StageOne, tmp_path: Path
) -> None:
    data = write_set(tmp_path / "pets", 10)
    manifest = stage_one.manifest(data)
    order = np.array([7, 2, 9, 4, 0, 1, 3, 6, 8])  # another order, and without row 5
    whole = stage_one(manifest, model=A).codes
    other = stage_one(replace(manifest.take(order), name="other"), model=B).codes
    asked = CodesSettings(model=BOTH, weights="none", size=32)
    with pytest.raises(CacheError, match="lacks 1 images"):
        join_codes(asked, [whole, other])
    refusing = Refusing(other.contents, manifest.sha256[5].decode())
    codes = join_codes(asked, [whole, refusing])
    kept = np.delete(np.arange(10), 5)
    assert codes.sha256.tolist() == manifest.sha256[kept].tolist()
    assert codes.paths == tuple(manifest.paths[i] for i in kept)
    assert list(codes.rejects) == [manifest.sha256[5].decode()]
    at = np.argsort(order)  # row of each kept image in the other file
    assert np.array_equal(codes[f"{B}/final"], other["final"][at])
    assert np.array_equal(codes.matrix()[:, 0, : whole["final"].shape[1]], whole["final"][kept])
    assert not len(codes.damaged_rows())


def test_a_stored_run_predicts_what_it_stored(shop: Workshop, run: Path) -> None:
    record = json.loads(run.read_text())
    assert BOTH in run.name
    assert record["model"] == BOTH
    assert [one["model"] for one in record["networks"]] == [A, B]
    assert np.abs(shop.again(run) - shop.stored(run).probabilities).max() < 1e-9
    classifier = shop.load(run)
    path = shop.images / shop.stored(run).paths[0]
    near = classifier.neighbours()
    (outcome,) = classifier.classify([path], neighbours=near, n_nearest=2)
    assert len(outcome.nearest) == 2
    trained = shop.images / near.paths[0]
    (known,) = classifier.classify([trained], neighbours=near)
    assert known.nearest[0].distance < 1e-5

    assert (
        json.loads(shop.heads("softmax", model=BOTH)[0].read_text()) == record
    )  # not fitted again
    # The views of both networks in one array, as a server has them.
    views = Views("center", 1)
    pixels = read_views(path.read_bytes(), classifier.preprocessing, views, "")
    assert pixels.shape == classifier.views_shape
    (scored,) = classifier.score(pixels[None])
    assert np.allclose(scored.probabilities, outcome.probabilities, atol=1e-9)
    with pytest.raises(SettingsError, match="are of one network"):
        shop.load(run, weights="none")


def test_a_description_that_names_networks_wrongly_is_refused(
    shop: Workshop, run: Path, tmp_path: Path
) -> None:
    for suffix in (".model.json", ".safetensors"):
        source = run.with_name(run.stem + suffix)
        (tmp_path / source.name).write_bytes(source.read_bytes())
    description = tmp_path / f"{run.stem}.model.json"
    told = json.loads(description.read_text())

    def loaded(**codes: Any) -> None:
        changed = told["meta"] | {"codes": told["meta"]["codes"] | codes}
        description.write_text(json.dumps(told | {"meta": changed}))
        load_model(
            find_run(description, tmp_path),
            cache=shop.cache,
            machine=MachineSettings(),
            offline=True,
        )

    networks = told["meta"]["codes"]["networks"]
    prints = told["meta"]["codes"]["fingerprints"]
    loaded()
    for wrong in (
        {"networks": {}},
        {"networks": networks[:1], "fingerprints": prints[:1]},
        {"networks": networks[::-1], "fingerprints": prints[::-1]},
        {"networks": [networks[0]] * 2, "fingerprints": [prints[0]] * 2},
        {"networks": [1, 2]},
        {"fingerprints": []},
    ):
        with pytest.raises(HeadError, match="does not say what its codes are"):
            loaded(**wrong)


def test_what_takes_one_network_refuses_several_in_one_sentence(
    shop: Workshop, run: Path, tmp_path: Path
) -> None:
    places = {"cache": str(shop.cache), "results": str(shop.results)}
    calls: list[tuple[str, dict[str, Any], str]] = [
        ("finetune", {"model": BOTH}, "fine-tuning takes one"),
        ("demo", {"model": BOTH}, "takes one"),
        ("advise", {"model": BOTH}, "takes one"),
        ("advise", {"models": (A, BOTH)}, "takes one"),
        ("curve", {"model": BOTH, "methods": ("svm", "finetune")}, "takes one"),
        ("compare", {"models": (A, BOTH), "methods": ("finetune",)}, "takes one"),
    ]
    for stage, settings, words in calls:
        with pytest.raises(BackboneError, match=words) as caught:
            getattr(api, stage)(**settings | places | {"data": "nowhere"})
        assert caught.value.todo.startswith(("make", "cnn-codes"))
    images = str(shop.test_images()[0])
    with pytest.raises(BackboneError, match="an explanation takes a run on one network"):
        api.explain(run=str(run), images=images, **places)
    with pytest.raises(BackboneError, match="export takes a run on one network"):
        api.export(run=str(run), out=str(tmp_path / "out"), **places)


def test_preprocessing_of_several_sizes_is_one_array_and_comes_apart_again() -> None:
    small = Preprocessing(24, 0.9, "crop", "bilinear", (0.5,) * 3, (0.5,) * 3)
    large = replace(small, size=40, resize="pad", interpolation="bicubic")
    both = JoinedPreprocessing.of([small, large])
    data, views = jpeg(3), Views("flip", 2)
    pixels = read_views(data, both, views, "")
    assert pixels.shape == (2, *both.shape) == (2, 3 * (24 * 24 + 40 * 40))
    for part, own in zip((small, large), both.parted(pixels), strict=True):
        assert np.array_equal(own, read_views(data, part, views, ""))
    assert preprocessing_from(json.loads(json.dumps(both.as_dict()))) == both
    # As a decoding worker of the server answers it.
    head = {
        "do": "views",
        "preprocessing": both.as_dict(),
        "views": ("flip", 2, 0),
        "pixels": 10**6,
    }
    told, body = answer(head, data)
    assert tuple(told["shape"]) == pixels.shape
    assert bytes(body) == pixels.tobytes()
