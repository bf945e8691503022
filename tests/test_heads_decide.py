"""The metric that matters, decision rules, prediction sets, nested cross-validation, small sets."""

import dataclasses

import numpy as np
import pytest
import sklearn.metrics as sk
from cnn_codes.errors import HeadError
from cnn_codes.heads import Examples, fit_head, load_head, save_head
from cnn_codes.heads.costs import read_costs
from cnn_codes.heads.decide import Rule, choose_offsets, conformal, decide, prediction_sets
from cnn_codes.heads.merit import contributions
from cnn_codes.heads.nested import nested
from cnn_codes.results.calibration import calibration_error
from cnn_codes.results.metrics import average_precision, measure
from cnn_codes.results.predictions import Predictions, read_predictions, write_predictions
from cnn_codes.settings import METRICS, HeadSettings
from scipy.special import softmax


def examples(seed, counts, *, gap=1.0, d=10, copies=1):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts).astype(np.int32)
    centres = gap * np.random.default_rng(9).normal(size=(len(counts), d))
    image = centres[labels] + rng.normal(size=(len(labels), d))
    groups = np.repeat(np.arange(len(labels)), copies)
    image = np.repeat(image, copies, axis=0) + 0.05 * rng.normal(size=(len(groups), d))
    return Examples(image.astype(np.float32)[:, None], np.repeat(labels, copies), groups)


def fit(method, train, val=None, **options):
    settings = HeadSettings(**{"folds": 4, "jobs": 1, **options})
    return fit_head(method, train, val, settings, n_classes=int(train.labels.max()) + 1, seed=0)


@pytest.mark.parametrize("k", [2, 4])
def test_contributions_average_to_scikit_learns_figure(k):
    rng = np.random.default_rng(k)
    labels = np.concatenate([np.arange(k), rng.integers(0, k, 300)])
    scores = rng.normal(size=(len(labels), k)) + 1.5 * np.eye(k)[labels]
    p = softmax(scores, axis=1)
    called, hot = p.argmax(axis=1), np.eye(k)[labels]
    column = p[:, 1] if k == 2 else p
    expected = {
        "accuracy": sk.accuracy_score(labels, called),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, called),
        "macro_f1": sk.f1_score(labels, called, average="macro"),
        "average_precision": sk.average_precision_score(hot[:, 1] if k == 2 else hot, column),
        "auroc": sk.roc_auc_score(labels, column, multi_class="ovr"),
        "log_loss": -sk.log_loss(labels, p),
    }
    losses = -np.log(p[np.arange(len(labels)), labels])
    for metric in METRICS:
        found = contributions(
            metric, scores, labels, scale=1.0, losses=losses, weights=None, costs=None,
            by_cost=False,
        )  # fmt: skip
        assert found.mean() == pytest.approx(expected[metric], abs=1e-9), metric
    figures = measure(labels, p)
    assert figures["average_precision"] == pytest.approx(expected["average_precision"], abs=1e-12)
    costs = rng.random((k, k)) + 1 - 2 * np.eye(k)
    found = contributions(
        "accuracy", scores, labels, scale=1.0, losses=losses, weights=None, costs=costs,
        by_cost=False,
    )  # fmt: skip
    assert -found.mean() == pytest.approx(
        (sk.confusion_matrix(labels, called) * costs).sum() / len(labels)
    )


def test_weighted_average_precision_with_ties_is_scikit_learns():
    rng = np.random.default_rng(0)
    labels, w = rng.integers(0, 2, 200), rng.random(200)
    one = np.round(rng.random(200), 1)
    found = average_precision(labels, np.stack([1 - one, one], axis=1), sample_weight=w)
    assert found == pytest.approx(sk.average_precision_score(labels, one, sample_weight=w))


def test_rare_class_by_average_precision_is_not_the_majority_vote():
    train, test = examples(0, [1000, 20], gap=0.35), examples(1, [2000, 40], gap=0.35)
    head = fit("svm", train, metric="average_precision")
    p = head.predict_proba(test.codes)
    assert average_precision(test.labels, p) > 2 * 40 / 2040
    assert "average_precision" in head.chosen["by"]
    assert all("merit" in point for point in head.chosen["curve"])
    assert "merit" not in fit("svm", train).chosen["curve"][0]


@pytest.mark.parametrize("kind", ["recall", "precision"])
def test_threshold_reaches_what_is_wanted_and_is_kept(kind, tmp_path):
    train, test = examples(0, [400, 100], gap=0.45), examples(1, [4000, 1000], gap=0.45)
    head = fit("softmax", train, threshold=f"{kind}:0.9")
    assert head.output.decision["out_of_fold"][kind] >= 0.9
    figure = {"recall": sk.recall_score, "precision": sk.precision_score}[kind]
    assert figure(test.labels, head.predict(test.codes)) > 0.8
    plain = fit("softmax", train)
    assert figure(test.labels, plain.predict(test.codes)) < figure(
        test.labels, head.predict(test.codes)
    )
    save_head(tmp_path / "x", head, {})
    again, _ = load_head(tmp_path / "x")
    assert np.array_equal(again.predict(test.codes), head.predict(test.codes))
    assert again.output.decision == head.output.decision


@pytest.mark.parametrize("k", [2, 3])
def test_expected_cost_falls(k, tmp_path):
    names = list("abc")[:k]
    costs = np.ones((k, k)) - np.eye(k)
    costs[-1, :-1] = 8.0
    rows = [",".join(["", *names])] + [
        ",".join([name, *map(str, row)]) for name, row in zip(names, costs, strict=True)
    ]
    (tmp_path / "costs.csv").write_text("\n".join(rows))
    gains = []
    for seed in range(4):
        train, test = examples(seed, [150] * k, gap=0.4), examples(100 + seed, [600] * k, gap=0.4)
        settings = HeadSettings(folds=3, jobs=1, cost=str(tmp_path / "costs.csv"), threshold="cost")
        head = fit_head("softmax", train, None, settings, n_classes=k, seed=0, class_names=names)
        p = head.predict_proba(test.codes)
        gains.append(
            costs[test.labels, p.argmax(1)].mean() - costs[test.labels, head.decide(p)].mean()
        )
    assert np.mean(gains) > 0.05
    assert min(gains) > -0.02


def test_offsets_of_least_cost_are_those_of_an_exhaustive_search():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 120)
    p = softmax(rng.normal(size=(120, 2)) + np.eye(2)[labels], axis=1)
    costs = np.array([[0.0, 1.0], [6.0, 0.0]])
    offsets, reached = choose_offsets(Rule("cost"), p, labels, costs)
    limits = np.concatenate([[-1], np.sort(p[:, 1]), [2]])
    best = min(costs[labels, (p[:, 1] > limit).astype(int)].mean() for limit in limits)
    assert reached["cost"] == pytest.approx(best)
    assert costs[labels, decide(p, offsets)].mean() == pytest.approx(best)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("recall", "not a decision rule"), ("recall:2", "not a decision rule"),
        ("f1:0.5", "not a decision rule"), ("cost", "without COST"),
        ("recall:0.9", "which class"), ("recall:0.9:z", "no class z"),
    ],
)  # fmt: skip
def test_thresholds_that_make_no_sense_are_refused(text, match):
    with pytest.raises(HeadError, match=match):
        fit("ridge", examples(0, [20, 20, 20]), threshold=text)


@pytest.mark.parametrize(
    "text",
    ["", "a,b\n1,2", ",a,b\na,0,1", ",a,b\na,0,1\nb,x,0", ",a,b\na,0\nb,1,0", ",a,b\na,1,0\nb,1,0",
     ",a,c\na,0,1\nc,1,0", ",a,b\na,0,inf\nb,1,0"],
)  # fmt: skip
def test_cost_files_that_are_no_matrix_are_refused(text, tmp_path):
    path = tmp_path / "costs.csv"
    path.write_text(text)
    with pytest.raises(HeadError, match=r"costs\.csv"):
        read_costs(path, ["a", "b"])
    with pytest.raises(HeadError, match="missing"):
        read_costs(tmp_path / "missing.csv", ["a", "b"])


def test_cost_rows_may_stand_in_any_order(tmp_path):
    path = tmp_path / "costs.csv"
    path.write_text(",b,a\nb,0,5\na,1,0\n")
    assert read_costs(path, ["a", "b"]).tolist() == [[0, 1], [5, 0]]


@pytest.mark.parametrize("conditional", [False, True])
def test_sets_hold_the_true_class_as_often_as_promised(conditional, tmp_path):
    covered, per_class = [], []
    for seed in range(10):
        train, test = (
            examples(seed, [120, 40, 40], gap=0.5),
            examples(50 + seed, [300, 100, 100], gap=0.5),
        )
        head = fit("ridge", train, set=0.9)
        inside = head.output.inside(head.predict_proba(test.codes), conditional=conditional)
        hit = inside[np.arange(len(inside)), test.labels]
        covered.append(hit.mean())
        per_class.append([hit[test.labels == k].mean() for k in range(3)])
    assert 0.87 < np.mean(covered) < 0.95
    if conditional:
        assert np.mean(per_class, axis=0).min() > 0.86
    save_head(tmp_path / "x", head, {})
    assert load_head(tmp_path / "x")[0].output.sets == head.output.sets


def test_sets_of_copied_images_hold_only_with_groups():
    covered = {}
    for grouped in (False, True):
        hits = []
        for seed in range(6):
            train = examples(seed, [12] * 3, gap=0.35, copies=6, d=40)
            groups = train.groups if grouped else np.arange(train.n_images)
            test = examples(50 + seed, [200] * 3, gap=0.35, d=40)
            head = fit("ridge", dataclasses.replace(train, groups=groups), set=0.9)
            inside = head.output.inside(head.predict_proba(test.codes))
            hits.append(inside[np.arange(len(inside)), test.labels].mean())
        covered[grouped] = np.mean(hits)
    assert covered[False] < 0.8
    assert covered[True] > 0.84


def test_conformal_threshold_is_the_corrected_quantile():
    p = np.stack([np.arange(1, 20) / 20, 1 - np.arange(1, 20) / 20], axis=1)
    found = conformal(p, np.zeros(19, np.int64), 0.9)
    assert found["threshold"] == pytest.approx(2 / 20)  # (19 + 1) * 0.1 = 2: the second smallest
    assert found["class_thresholds"][1] == 0.0
    assert prediction_sets(p, found).any(axis=1).all()


def test_a_head_without_sets_says_so():
    head = fit("ridge", examples(0, [20, 20]))
    with pytest.raises(HeadError, match=r"SET=0\.9"):
        head.output.inside(np.array([[0.5, 0.5]]))


@pytest.mark.parametrize("method", ["softmax", "svm", "ridge"])
def test_balanced_training_gives_probabilities_of_the_datas_own_shares(method):
    train, test = examples(0, [600, 60], gap=0.4), examples(1, [3000, 300], gap=0.4)
    plain, balanced = fit(method, train), fit(method, train, class_weight="balanced")
    figures = [measure(test.labels, head.predict_proba(test.codes)) for head in (plain, balanced)]
    assert figures[1]["log_loss"] < figures[0]["log_loss"] + 0.02
    assert balanced.predict_proba(test.codes)[:, 1].mean() == pytest.approx(1 / 11, abs=0.03)
    recall = [
        (head.predict(test.codes) == test.labels)[test.labels == 1].mean()
        for head in (plain, balanced)
    ]
    assert recall[1] > recall[0] + 0.1  # the decisions are those of balanced training
    weight, bias = balanced.affine()
    logits = balanced.temperature_scale * (test.codes[:, 0] @ weight.T + bias)
    np.testing.assert_allclose(
        softmax(logits, axis=1), balanced.predict_proba(test.codes), atol=1e-6
    )


def test_balanced_weights_do_not_collapse_at_240_to_4():
    for seed in range(3):
        train, test = (
            examples(seed, [240, 4], gap=0.8, d=60),
            examples(70 + seed, [500, 100], gap=0.8, d=60),
        )
        figures = {
            weight: sk.f1_score(
                test.labels,
                fit("svm", train, class_weight=weight).predict(test.codes),
                average="macro",
            )
            for weight in ("none", "balanced")
        }
        assert figures["balanced"] > figures["none"] - 0.05, (seed, figures)
        assert figures["balanced"] > 0.6


def test_one_image_of_a_class_leaves_the_heads_that_choose_nothing():
    train, test = examples(0, [5, 1, 1], gap=3.0), examples(1, [20, 20, 20], gap=3.0)
    for method in ("centroid", "knn"):
        head = fit(method, train)
        assert (head.predict(test.codes) == test.labels).mean() > 0.8
        p = head.predict_proba(test.codes)
        assert p.max() < 1 - 1e-9
        assert any("not calibrated" in text for text in head.warnings)
        with pytest.raises(HeadError, match="SET"):
            fit(method, train, set=0.9)
    for method in ("svm", "softmax", "ridge", "rbf"):
        with pytest.raises(HeadError, match="METHODS=centroid,knn"):
            fit(method, train)


@pytest.mark.parametrize("n", [2, 4])
def test_a_val_of_a_few_images_chooses_nothing(n):
    train = examples(0, [30, 30])
    head = fit("svm", train, examples(1, [n // 2, n // 2]))
    assert head.chosen["on"].startswith("4-fold")
    assert head.chosen == fit("svm", train).chosen
    assert any(f"val has {n} images" in text for text in head.warnings)


def test_nested_predictions_of_permuted_labels_centre_on_chance():
    rng = np.random.default_rng(0)
    real = examples(0, [40, 40], gap=0.6, copies=2)
    accuracies = []
    for _ in range(8):
        mixed = rng.permutation(np.repeat([0, 1], 40)).repeat(2).astype(np.int32)
        found = nested(
            "ridge", dataclasses.replace(real, labels=mixed), HeadSettings(folds=3, jobs=1),
            n_classes=2, seed=0, folds=4,
        )  # fmt: skip
        accuracies.append((found.predicted[0] == mixed).mean())
    assert np.mean(accuracies) == pytest.approx(0.5, abs=0.06)
    found = nested(
        "ridge", real, HeadSettings(folds=3, jobs=1), n_classes=2, seed=0, folds=4, repeats=2
    )
    assert found.probabilities.shape == (2, 160, 2)
    np.testing.assert_allclose(found.probabilities.sum(axis=2), 1)
    assert (found.predicted == real.labels).mean() > 0.8
    assert not np.array_equal(found.parts[0], found.parts[1])
    for parts in found.parts:  # copies stay together
        assert (parts[::2] == parts[1::2]).all()


def test_calibration_error_of_exact_probabilities_lies_in_its_band():
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(40):
        confidence = 1 - rng.beta(1, 12, 392)
        p = np.stack([1 - confidence, confidence], axis=1)
        labels = (rng.random(392) < confidence).astype(np.int64)
        found = calibration_error(labels, p)
        low, high = found["ece_band95"]
        assert low < found["ece_calibrated"] < high
        inside += low <= found["ece"] <= high
    assert inside >= 34
    assert 0.02 < found["ece_calibrated"] < 0.045  # at this n and confidence, of nothing but chance
    wrong = calibration_error(1 - labels, p)
    assert wrong["ece_debiased"] > 0.7
    assert wrong["ece"] > wrong["ece_band95"][1]


def test_predicted_classes_may_come_from_another_rule():
    p = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]])
    labels = np.array([0, 1, 1])
    found = measure(labels, p, predicted=decide(p, np.array([0.0, 2.0])))
    assert found["accuracy"] == 1.0
    assert measure(labels, p)["accuracy"] == pytest.approx(2 / 3)
    assert found["auroc"] == measure(labels, p)["auroc"]


def test_rbf_of_several_classes_has_smooth_probabilities():
    train, test = examples(0, [60, 60, 60], gap=0.8), examples(1, [100, 100, 100], gap=0.8)
    head = fit("rbf", train)
    p = head.predict_proba(test.codes)
    top = np.sort(p.max(axis=1))
    assert len(np.unique(np.round(top, 6))) > 250
    figures = measure(test.labels, p)
    assert (
        figures["log_loss"]
        < measure(test.labels, fit("ridge", train).predict_proba(test.codes))["log_loss"] + 0.1
    )
    assert figures["ece"] < figures["ece_band95"][1] + 0.05


def test_table_of_decided_classes_is_read_as_it_was_written(tmp_path):
    p = np.array([[0.9, 0.1], [0.6, 0.4]])
    for decided, column in ((np.array([0, 1]), "decided"), (None, "predicted")):
        table = Predictions(("x", "y"), np.array([0, 1], np.int32), p, ("a", "b"), decided)
        write_predictions(tmp_path / "x.csv", table)
        assert (tmp_path / "x.csv").read_text().startswith(f"path,label,{column},a,b")
        again = read_predictions(tmp_path / "x.csv")
        assert np.array_equal(again.predicted, table.predicted)
