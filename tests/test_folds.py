"""TEST=cv:K: all images tested out of fold, heads and fine-tuned networks on the same folds."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cnn_codes.compare.repeated import corrected_t
from cnn_codes.compare.splits import judge_folds
from cnn_codes.errors import ResultError, SettingsError
from cnn_codes.predict import Classifier
from cnn_codes.results.predictions import Predictions, read_predictions
from cnn_codes.results.runs import read_record
from cnn_codes.settings import CompareSettings, HeadSettings
from conftest import Inside
from tuning import few_images

SMALL: dict[str, Any] = {
    "model": "test_efficientnet", "weights": "none", "size": 32, "offline": 1, "engine": "torch",
}  # fmt: skip


@pytest.fixture(scope="module")
def images(hotdog: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return few_images(hotdog, tmp_path_factory.mktemp("images") / "few", n_train=16, n_test=8)


def test_a_head_is_tested_on_all_images_and_fitted_to_all(images: Path, inside: Inside) -> None:
    done = inside("svm", data=images, test="cv:4x2", **SMALL)
    assert done.returncode == 0, done.stderr
    folder = inside.cache.parent / "results" / images.name
    (path,) = (p for p in folder.glob("svm-*.json") if not p.name.endswith(".model.json"))
    assert "cv4x2" in path.name
    record, stored = read_record(path), read_predictions(path.with_suffix(".predictions.csv"))
    n = 48
    assert len(stored.paths) == len(set(stored.paths)) == n
    assert record["metrics"]["test"]["n_images"] == n
    assert record["metrics"]["test"]["accuracy"] == np.mean(stored.predicted == stored.labels)
    cv = record["cv"]
    assert (cv["folds"], cv["repeats"]) == (4, 2)
    values = np.array(cv["values"]["accuracy"])
    assert values.shape == (2, 4)
    assert len(cv["chosen"]) == 8
    assert record["metrics"]["test"]["accuracy"] == pytest.approx(values[0].mean(), abs=0.02)
    assert f"{n} images, each tested by a head fitted without its fold (4 folds, 2 times)" in (
        done.stdout
    )
    # The model is fitted to all of them: another than any that was tested.
    model = Classifier.load(path, cache=inside.cache, offline=True)
    again = model.predict_proba([images / one for one in stored.paths])
    assert not np.allclose(again, stored.probabilities, atol=1e-3)
    assert "was there already" in inside("svm", data=images, test="cv:4x2", **SMALL).stdout
    plain = inside("svm", data=images, **SMALL)
    assert plain.returncode == 0
    assert path.is_file()


def test_heads_and_networks_are_tested_on_the_same_folds(images: Path, inside: Inside) -> None:
    settings = {**SMALL, "data": images, "methods": "centroid,svm,finetune", "test": "cv:3"}
    done = inside("compare", **settings)
    assert done.returncode == 0, done.stderr
    folder = inside.cache.parent / "results" / images.name
    (path,) = folder.glob("compare-*.json")
    assert "cv3" in path.name
    record = json.loads(path.read_text(encoding="utf-8"))
    assert record["n_test"] == 48
    tables = {
        one["method"]: read_predictions(folder / f"{one['run']}.predictions.csv")
        for one in record["entries"]
    }
    assert {len(set(one.paths)) for one in tables.values()} == {48}
    held = []
    for number in (1, 2, 3):
        (table,) = (folder / f"fold{number}of3" / images.name).glob("*.predictions.csv")
        held.append(set(read_predictions(table).paths))
    assert sum(map(len, held)) == len(set.union(*held)) == 48
    head = read_record(folder / f"{record['entries'][1]['run']}.json")
    right = dict(
        zip(tables["svm"].paths, tables["svm"].predicted == tables["svm"].labels, strict=True)
    )
    by_fold = [np.mean([right[one] for one in part]) for part in held]
    assert head["cv"]["values"]["accuracy"][0] == pytest.approx(by_fold)
    for pair in record["pairs"]:
        assert pair["test"] == "corrected_t"
        trained = "finetune" in {record["entries"][pair[end]]["method"] for end in "ab"}
        assert pair["n_folds"] == (3 if trained else 9)
    assert "all 48 images, each tested by a fit without its fold (3 folds)" in done.stdout
    assert "3 of 3 runs reused" in inside("compare", **settings).stdout
    trained = folder / f"{record['entries'][2]['run']}.json"
    asked = inside("export", run=trained, out=inside.cache.parent / "out", offline=1)
    assert asked.returncode == 2
    assert "tested out of fold" in asked.stderr
    assert inside("report", **settings, evidence="map").returncode == 0
    (page,) = folder.glob("report-*cv3*.html")
    assert "a network was trained for each fold" in page.read_text(encoding="utf-8")


def _predictions(right: np.ndarray) -> Predictions:
    labels = np.zeros(len(right), np.int32)
    p = np.where(right[:, None], [[0.9, 0.1]], [[0.1, 0.9]])
    return Predictions(tuple(map(str, range(len(right)))), labels, p, ("a", "b"))


def test_folds_are_judged_by_the_corrected_t_test() -> None:
    random = np.random.default_rng(0)
    each = [random.uniform(0.7, 0.9, (2, 4)) for _ in range(3)]
    cvs = [{"folds": 4, "repeats": 2, "values": {"accuracy": one.tolist()}} for one in each]
    cvs[2] |= {"repeats": 1, "values": {"accuracy": each[2][:1].tolist()}}
    found = [_predictions(random.random(100) < 0.8) for _ in range(3)]
    pairs = judge_folds(cvs, found, rope=0.01)
    assert [(one["a"], one["b"], one["n_folds"]) for one in pairs] == [
        (0, 1, 8),
        (0, 2, 4),
        (1, 2, 4),
    ]
    d = (each[0] - each[1]).ravel()
    expected = corrected_t(d, n_train=75, n_test=25, least_variance=0.0)
    if not pairs[0]["floored"]:
        assert pairs[0]["p"] == pytest.approx(expected.p)
    assert pairs[0]["difference"] == pytest.approx(d.mean())
    assert all(one["p_holm"] >= one["p"] for one in pairs)
    cvs[0]["values"] = {"accuracy": [[0.5, None, 0.5, 0.5]] * 2}
    with pytest.raises(ResultError, match="undefined in a fold"):
        judge_folds(cvs, found, rope=0.01)


def test_equally_good_methods_are_told_apart_in_one_of_twenty_at_most() -> None:
    """Ridge regressions on two halves of equally telling features; each fold trains its own."""
    random, wrong, n_sets, n, d = np.random.default_rng(0), 0, 100, 100, 60
    for _ in range(n_sets):
        y = random.integers(0, 2, n) * 2 - 1
        x = random.normal(size=(n, d)) + 0.2 * y[:, None]
        values = np.empty((2, 3, 5))
        first = np.empty((2, n), bool)
        for r in range(3):
            fold = random.permutation(n) % 5
            for k in range(5):
                inside, held = fold != k, fold == k
                for m, of in enumerate((slice(0, d // 2), slice(d // 2, d))):
                    z = x[inside][:, of]
                    w = np.linalg.solve(z.T @ z + np.eye(d // 2), z.T @ y[inside])
                    right = np.sign(x[held][:, of] @ w) == y[held]
                    values[m, r, k] = right.mean()
                    if r == 0:
                        first[m, held] = right
        cvs = [{"folds": 5, "repeats": 3, "values": {"accuracy": one.tolist()}} for one in values]
        (pair,) = judge_folds(cvs, [_predictions(one) for one in first], rope=0.01)
        wrong += pair["p"] <= 0.05
    assert wrong <= 9


@pytest.mark.parametrize("wrong", ["cv", "cv:1", "cv:2", "cv:21", "cv:5x0", "5", "loo", ""])
def test_wrong_folds_are_refused(wrong: str) -> None:
    with pytest.raises(SettingsError, match="TEST"):
        HeadSettings(test=wrong)


def test_folds_and_random_splits_do_not_go_together() -> None:
    with pytest.raises(SettingsError, match="SPLITS=5 and TEST=cv:5"):
        CompareSettings(test="cv:5", splits=5)
    assert HeadSettings(test="cv:5").outer == (5, 3)
    assert HeadSettings(test="cv:10x2").outer == (10, 2)
    assert HeadSettings().outer == (0, 0)


def test_a_small_set_is_told_of_it(images: Path, inside: Inside) -> None:
    done = inside("compare", data=images, methods="centroid,svm", **SMALL)
    assert "TEST=cv:5 would test on all 48 images by nested cross-validation, in place of 16." in (
        done.stdout
    )
