"""METRIC and COST decide on the best method, the tests, the epoch and the curve; CLASS_WEIGHT,
THRESHOLD and SET hold for fine-tuned networks as for heads. Held to scikit-learn."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.metrics as sk
from cnn_codes.compare.aligned import aligned_predictions
from cnn_codes.compare.judge import judge_pairs, method_intervals
from cnn_codes.compare.marks import best_of
from cnn_codes.compare.splits import judge_splits, least_variances
from cnn_codes.curve.pieces import Pieces
from cnn_codes.errors import HeadError
from cnn_codes.predict import Classifier
from cnn_codes.predict.output import Table
from cnn_codes.results import resampling
from cnn_codes.results.measures import MEASURES
from cnn_codes.results.predictions import Predictions, read_predictions
from cnn_codes.settings import METRICS, PlaceSettings
from conftest import Inside
from tuning import Tuning, few_images

SMALL: dict[str, Any] = {
    "model": "test_efficientnet", "weights": "none", "size": 32, "offline": 1, "engine": "torch",
}  # fmt: skip
COSTS = np.array([[0.0, 1.0], [5.0, 0.0]])


def two(n: int, seed: int, *, share: float = 0.3, noise: float = 1.0) -> list[Predictions]:
    """Two equally good methods on the same images."""
    random = np.random.default_rng(seed)
    labels = (random.random(n) < share).astype(np.int32)
    labels[:2] = (0, 1)
    ease = random.normal(0, 1, n) + 1.5 * (labels - 0.5)
    out = []
    for _ in range(2):
        p = 1 / (1 + np.exp(-(ease + noise * random.normal(0, 1, n))))
        out.append(
            Predictions(tuple(map(str, range(n))), labels, np.stack([1 - p, p], 1), ("a", "b"))
        )
    return out


def sklearns(key: str, one: Predictions) -> float:
    called, p, y = one.predicted, one.probabilities, one.labels
    found = {
        "accuracy": lambda: sk.accuracy_score(y, called),
        "balanced_accuracy": lambda: sk.balanced_accuracy_score(y, called),
        "macro_f1": lambda: sk.f1_score(y, called, average="macro"),
        "average_precision": lambda: sk.average_precision_score(y, p[:, 1]),
        "auroc": lambda: sk.roc_auc_score(y, p[:, 1]),
        "log_loss": lambda: sk.log_loss(y, p),
        "cost": lambda: COSTS[y, called].mean(),
    }[key]()
    return float(found)


@pytest.mark.parametrize("key", [*METRICS, "cost"])
def test_differences_are_of_the_figure_and_positive_where_the_first_is_better(key: str) -> None:
    good, bad = two(150, 1, noise=0.2)[0], two(150, 1, noise=3.0)[1]
    measure = MEASURES[key]
    (pair,) = judge_pairs([[good], [bad]], measure=measure, costs=COSTS)
    expected = measure.sign * (sklearns(key, good) - sklearns(key, bad))
    assert pair["difference"] == pytest.approx(expected)
    assert pair["difference"] > 0
    low, high = pair["ci95"]
    assert low <= pair["difference"] <= high
    assert pair["test"] == ("mcnemar" if key == "accuracy" else "bootstrap")
    assert (pair["images_for_one_point"] is None) == (key != "accuracy")
    (mirrored,) = judge_pairs([[bad], [good]], measure=measure, costs=COSTS)
    assert mirrored["difference"] == pytest.approx(-expected)
    assert mirrored["p"] == pytest.approx(pair["p"], abs=0.01)
    ends = method_intervals([[good], [bad]], costs=COSTS)
    for one, limits in zip((good, bad), ends, strict=True):
        assert limits[key][0] <= sklearns(key, one) <= limits[key][1]
    entries = [{"log_loss": 0.1, key: sklearns(key, one)} | {} for one in (good, bad)]
    entries[0]["log_loss"], entries[1]["log_loss"] = (
        sklearns("log_loss", one) for one in (good, bad)
    )
    assert best_of(entries, measure) == 0


@pytest.mark.parametrize(
    ("key", "grouped"),
    [
        ("macro_f1", False),
        ("log_loss", True),
        *(
            pytest.param(key, grouped, marks=pytest.mark.slow)
            for key in ("balanced_accuracy", "macro_f1", "auroc", "log_loss", "cost")
            for grouped in (False, True)
        ),
    ],
)
def test_equally_good_methods_are_told_apart_in_one_of_twenty_at_most(
    key: str, grouped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resampling, "SAMPLES", 400)
    wrong, n = 0, 60
    for seed in range(n):
        found = two(40 if grouped else 120, seed)
        groups = None
        if grouped:  # three photographs of each thing, on which both methods answer alike
            groups = np.repeat(np.arange(40), 3)
            found = [
                Predictions(
                    tuple(map(str, range(120))), one.labels[groups], one.probabilities[groups],
                    one.class_names,
                )
                for one in found
            ]  # fmt: skip
        (pair,) = judge_pairs(
            [[one] for one in found], measure=MEASURES[key], costs=COSTS, groups=groups, seed=seed
        )
        wrong += pair["p"] <= 0.05
    assert wrong <= 6  # of 60; more than 6 have a probability below 4 % at a size of 5 %


def test_several_seeds_are_part_of_the_test() -> None:
    one, other = two(150, 3)
    seeds = [replace(other, probabilities=two(150, s)[1].probabilities) for s in (4, 5, 6)]
    (pair,) = judge_pairs([[one], seeds], measure=MEASURES["macro_f1"])
    assert pair["test"] == "seeds"
    assert 0 < pair["seed_share"] <= 1
    mean = np.mean([sklearns("macro_f1", each) for each in seeds])
    assert pair["difference"] == pytest.approx(sklearns("macro_f1", one) - mean)


def test_decided_classes_count_where_a_rule_made_them() -> None:
    """The interval, the hits and the difference are of what was decided, not of the largest p."""
    one, other = two(200, 7)
    ruled = replace(one, decided=(one.probabilities[:, 1] > 0.1).astype(np.int64))
    assert aligned_predictions([ruled, other])[0].decided is not None
    shared = [[each] for each in aligned_predictions([ruled, other])]
    (pair,) = judge_pairs(shared)
    assert pair["difference"] == pytest.approx(
        np.mean(ruled.decided == ruled.labels) - np.mean(other.predicted == other.labels)
    )
    for ends, (each,) in zip(method_intervals(shared), shared, strict=True):
        accuracy = np.mean(each.predicted == each.labels)
        assert ends["accuracy"][0] <= accuracy <= ends["accuracy"][1]
        assert ends["macro_f1"][0] <= sklearns("macro_f1", each) <= ends["macro_f1"][1]


def test_splits_are_judged_by_the_figure_with_its_own_least_variance() -> None:
    splits = [two(100, s) for s in range(4)]
    found = [[pair[m] for pair in splits] for m in range(2)]
    measure = MEASURES["log_loss"]
    least = least_variances(found, measure=measure)
    assert least[0, 1] > 0
    values = [[sklearns("log_loss", one) for one in each] for each in found]
    (pair,) = judge_splits(values, measure=measure, n_train=300, n_test=100, rope=0.01, least=least)
    assert pair["difference"] == pytest.approx(np.mean(values[1]) - np.mean(values[0]))


@pytest.fixture(scope="module")
def images(hotdog: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a skewed set: of the second class a third as many images to train on."""
    data = few_images(hotdog, tmp_path_factory.mktemp("images") / "few", n_train=24, n_test=20)
    second = sorted((data / "train").iterdir())[1]
    for path in sorted(second.iterdir())[8:]:
        path.unlink()
    return data


@pytest.fixture
def costs(images: Path, tmp_path: Path) -> Path:
    a, b = sorted(path.name for path in (images / "train").iterdir())
    path = tmp_path / "costs.csv"
    path.write_text(f",{a},{b}\n{a},0,1\n{b},5,0\n", encoding="utf-8")
    return path


def compared(inside: Inside, data: Path) -> dict[str, Any]:
    (path,) = (inside.cache.parent / "results" / data.name).glob("compare-*.json")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize(
    "key", ["macro_f1", "cost", pytest.param("average_precision", marks=pytest.mark.slow)]
)
def test_a_comparison_goes_by_the_figure_that_was_asked_for(
    key: str, images: Path, costs: Path, inside: Inside
) -> None:
    asked = {"cost": costs} if key == "cost" else {"metric": key}
    done = inside(
        "compare", methods="centroid,svm,finetune", data=images, seeds=2, **asked, **SMALL
    )
    assert done.returncode == 0, done.stderr
    record = compared(inside, images)
    measure = MEASURES[key]
    folder = inside.cache.parent / "results" / images.name
    values = []
    for one in record["entries"]:
        runs = one.get("repeats") or [one["run"]]
        tables = [read_predictions(folder / f"{run}.predictions.csv") for run in runs]
        values.append(np.mean([sklearns(key, table) for table in tables]))
        assert one[key] == pytest.approx(values[-1])
        assert one["ci95"][key][0] <= one[key] <= one["ci95"][key][1]
    best = int(np.argmax(measure.sign * np.array(values)))
    assert [one["best"] for one in record["entries"]].index(True) == best or (
        np.sum(np.isclose(values, values[best])) > 1
    )
    for pair in record["pairs"]:
        expected = measure.sign * (values[pair["a"]] - values[pair["b"]])
        assert pair["difference"] == pytest.approx(expected)
    lines = done.stdout.splitlines()
    assert lines[0].split("  ")[0].strip() in ("", "Method")
    assert measure.title in lines[0]
    assert f"* {measure.extreme} {measure.word}; ~ not significantly different" in done.stdout
    assert f"the {measure.extreme}" in record["sentences"][0]
    assert measure.word in record["sentences"][0]
    again = inside(
        "compare", methods="centroid,svm,finetune", data=images, seeds=2, **asked, **SMALL
    )
    assert "3 of 3 runs reused" in again.stdout


def test_random_splits_are_compared_by_the_figure(images: Path, inside: Inside) -> None:
    done = inside("compare", methods="centroid,svm", splits=3, metric="log_loss", data=images,
                  **SMALL)  # fmt: skip
    assert done.returncode == 0, done.stderr
    record = compared(inside, images)
    folder = inside.cache.parent / "results" / images.name
    for one in record["entries"]:
        found = [read_predictions(folder / f"{run}.predictions.csv") for run in one["runs"]]
        assert one["values"] == pytest.approx([sklearns("log_loss", each) for each in found])
    assert "lowest mean log-loss over 3 random splits" in record["sentences"][0]
    assert "points" not in " ".join(record["sentences"])


def test_the_table_of_heads_marks_the_best_by_the_figure(images: Path, inside: Inside) -> None:
    done = inside("heads", methods="centroid,svm,knn", metric="average_precision", data=images,
                  **SMALL)  # fmt: skip
    assert done.returncode == 0, done.stderr
    header, *rows = done.stdout.splitlines()
    assert "Average precision" in header
    folder = inside.cache.parent / "results" / images.name
    values = {}
    for path in folder.glob("*.predictions.csv"):
        values[path.name.partition("-")[0]] = sklearns("average_precision", read_predictions(path))
    (marked,) = (row.split()[1] for row in rows if row.startswith("*"))
    assert values[marked] == max(values.values())


def test_a_figure_that_test_cannot_give_is_refused_before_anything_runs(
    images: Path, inside: Inside, tmp_path: Path
) -> None:
    import shutil

    data = tmp_path / "one-class-test"
    shutil.copytree(images, data)
    shutil.rmtree(sorted((data / "test").iterdir())[1])
    done = inside("compare", methods="centroid,svm", metric="auroc", data=data, **SMALL)
    assert done.returncode == 2
    assert "METRIC=auroc is undefined" in done.stderr


@pytest.mark.parametrize("key", ["auroc", "cost", pytest.param("macro_f1", marks=pytest.mark.slow)])
def test_the_curve_is_one_of_the_figure(
    key: str, images: Path, costs: Path, inside: Inside
) -> None:
    asked = {"cost": costs} if key == "cost" else {"metric": key}
    done = inside("curve", methods="centroid,svm", sizes="4,8", draws=5, data=images, **asked,
                  **SMALL)  # fmt: skip
    assert done.returncode == 0, done.stderr
    folder = inside.cache.parent / "results" / images.name
    (path,) = folder.glob("curve-*.json")
    record = json.loads(path.read_text(encoding="utf-8"))
    assert record["metric"] == key
    pieces = Pieces(next(folder.glob("curve-*.pieces.jsonl")))._found.values()
    labels = np.repeat([0, 1], 20)
    names = ("a", "b")
    values = sorted(
        sklearns(key, Predictions(tuple(map(str, range(len(labels)))), labels.astype(np.int32),
                                  piece.table(2), names, piece.classes().astype(np.int64)))
        for piece in pieces
    )  # fmt: skip
    found = sorted(
        value for one in record["methods"].values() for size in one["values"] for value in size
    )
    assert found == pytest.approx(values, abs=1e-6)
    assert MEASURES[key].title in done.stdout
    if key == "cost":
        assert all(one["forecast"] is None for one in record["methods"].values())


@pytest.fixture
def tune(images: Path, tmp_path: Path) -> Tuning:
    return Tuning(images, PlaceSettings(cache=str(tmp_path / "c"), results=str(tmp_path / "r")))


def test_balanced_training_gives_probabilities_of_the_data_s_shares(tune: Tuning) -> None:
    record = tune(class_weight="balanced")
    description = json.loads((tune.results / f"{record['run']}.model.json").read_text())
    shift, offsets = np.array(description["shift"]), np.array(description["offsets"])
    assert shift[0] > shift[1]  # the first class has three times the images
    assert offsets == pytest.approx(-shift)
    assert record["calibration"]["method"] == "temperature and prior correction"
    stored = read_predictions(tune.results / f"{record['run']}.predictions.csv")
    logits = np.log(stored.probabilities) + offsets
    assert np.array_equal(stored.predicted, logits.argmax(axis=1))
    model = Classifier.load(
        tune.results / f"{record['run']}.json", cache=tune.places.cache, offline=True
    )
    paths = [tune.data / path for path in stored.paths]
    # The trunk's cache is float16.
    np.testing.assert_allclose(model.predict_proba(paths), stored.probabilities, atol=5e-3)
    names = np.array(stored.class_names)
    certain = np.abs(np.diff(logits, axis=1)[:, 0]) > 2e-2
    assert np.array_equal(model.predict(paths)[certain], names[stored.predicted][certain])
    plain = tune()
    assert plain["fingerprint"] != record["fingerprint"]
    assert json.loads((tune.results / f"{plain['run']}.model.json").read_text())["shift"] is None


@pytest.mark.parametrize("settings", [{"balance": "weights"}, {"balance": "sampling"}])
def test_balanced_losses_are_corrected_too(tune: Tuning, settings: dict[str, Any]) -> None:
    record = tune(choose="last", **settings)
    assert record["calibration"]["method"] == "temperature and prior correction"


def test_thresholds_and_sets_of_a_network_are_kept_and_used(tune: Tuning) -> None:
    name = sorted(path.name for path in (tune.data / "train").iterdir())[1]
    record = tune(threshold=f"recall:0.9:{name}", set=0.8, val_fraction=0.4)
    assert record["decision"]["out_of_fold"]["recall"] >= 0.9
    assert record["sets"]["level"] == 0.8
    threshold = record["sets"]["threshold"]
    stored = read_predictions(tune.results / f"{record['run']}.predictions.csv")
    model = Classifier.load(
        tune.results / f"{record['run']}.json", cache=tune.places.cache, offline=True
    )
    table = Table(model.classes, sets=True)
    columns = next(csv.reader([table.header().decode()]))
    description = json.loads((tune.results / f"{record['run']}.model.json").read_text())
    offsets = np.array(description["offsets"])
    outcomes = list(model.classify([tune.data / path for path in stored.paths]))
    for expected, outcome in zip(stored.probabilities, outcomes, strict=True):
        p = outcome.probabilities
        assert p is not None
        assert p == pytest.approx(expected, abs=5e-3)  # the trunk's cache is float16
        line = table.line(table.row(outcome)).decode()
        row = dict(zip(columns, next(csv.reader([line])), strict=True))
        within = [n for k, n in enumerate(model.classes) if p[k] >= threshold or k == p.argmax()]
        assert row["set"].split("|") == within
        assert row["predicted"] == model.classes[int((np.log(p) + offsets).argmax())]
    logits = np.log(stored.probabilities) + offsets
    assert np.array_equal(stored.predicted, logits.argmax(axis=1))


def test_a_rule_that_cannot_be_is_refused_before_training(tune: Tuning) -> None:
    with pytest.raises(HeadError, match="no class zebra"):
        tune(threshold="recall:0.9:zebra")
    with pytest.raises(HeadError, match="COST"):
        tune(threshold="cost")
    assert not list(tune.results.glob("*")) if tune.results.exists() else True


@pytest.mark.parametrize(
    "metric",
    ["auroc", *(pytest.param(one, marks=pytest.mark.slow) for one in ("macro_f1", "log_loss"))],
)
def test_the_epoch_is_chosen_by_the_figure(tune: Tuning, metric: str) -> None:
    record = tune(metric=metric, choose="one_se", epochs=3, val_fraction=0.4)
    word = MEASURES[metric].word
    assert record["chosen"]["by"] == f"{word} better by more than one standard error"
