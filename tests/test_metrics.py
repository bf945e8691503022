import math

import numpy as np
import pytest
import sklearn.metrics as sk
from cnn_codes.errors import ResultError
from cnn_codes.results.calibration import calibration_bins, expected_calibration_error
from cnn_codes.results.metrics import measure, wilson_interval
from hypothesis import given, settings
from hypothesis import strategies as st


def draw(seed, n=200, k=3, sharp=2.0):
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(k), rng.integers(0, k, n - k)])
    logits = rng.normal(size=(n, k)) + sharp * (labels[:, None] == np.arange(k))
    odds = np.exp(logits)
    return labels, odds / odds.sum(axis=1, keepdims=True), rng


@pytest.mark.parametrize("k", [2, 3, 7])
@pytest.mark.parametrize("weighted", [False, True])
def test_figures_equal_scikit_learns(k, weighted):
    labels, p, rng = draw(k, k=k)
    w = rng.random(len(labels)) if weighted else None
    predicted = p.argmax(axis=1)
    found = measure(labels, p, sample_weight=w)
    score = p[:, 1] if k == 2 else p
    expected = {
        "accuracy": sk.accuracy_score(labels, predicted, sample_weight=w),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, predicted, sample_weight=w),
        "macro_f1": sk.f1_score(labels, predicted, average="macro", sample_weight=w),
        "log_loss": sk.log_loss(labels, p, sample_weight=w),
        "brier": sk.brier_score_loss(labels, p, sample_weight=w, scale_by_half=True),
        "auroc": sk.roc_auc_score(labels, score, multi_class="ovr", sample_weight=w),
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-12), name
    rows = sk.precision_recall_fscore_support(labels, predicted, sample_weight=w)
    for name, row in zip(("precision", "recall", "f1", "support"), rows, strict=True):
        assert [one[name] for one in found["per_class"]] == pytest.approx(list(row)), name
    confusion = sk.confusion_matrix(labels, predicted, sample_weight=w)
    np.testing.assert_allclose(found["confusion"], confusion)


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    # 81 of 263 is Newcombe's example (1998); the others follow from the formula by hand.
    [
        (81, 263, 0.2553, 0.3662),
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (5, 10, 0.2366, 0.7634),
    ],
)
def test_wilson_reference_values(hits, n, low, high):
    assert wilson_interval(hits, n) == pytest.approx((low, high), abs=1e-4)


@given(st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_ends_solve_its_equation_and_enclose_the_rate(case):
    hits, n = case
    low, high = wilson_interval(hits, n)
    assert 0 <= low <= hits / n <= high <= 1
    for end in (low, high):
        # (rate - p)^2 = z^2 p (1 - p) / n defines both ends.
        assert (hits / n - end) ** 2 == pytest.approx(
            1.959963984540054**2 * end * (1 - end) / n, abs=1e-9
        )


def test_wilson_refuses_more_hits_than_trials():
    with pytest.raises(ResultError):
        wilson_interval(3, 2)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(2, 5), st.booleans())
def test_order_of_images_is_immaterial_and_figures_stay_in_range(seed, n, k, ties):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, k, n)
    p = rng.dirichlet(np.ones(k), n)
    if ties:
        p = np.round(p * 4) + 1
        p /= p.sum(axis=1, keepdims=True)
    found = measure(labels, p)
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "brier", "ece"):
        assert -1e-12 <= found[name] <= 1 + 1e-12, name
    low, high = found["accuracy_ci95"]
    assert low <= found["accuracy"] <= high
    assert found["auroc"] is None or 0 <= found["auroc"] <= 1
    assert math.isfinite(found["log_loss"])
    assert np.sum(found["confusion"]) == n
    order = rng.permutation(n)
    again = measure(labels[order], p[order])
    for name in ("accuracy", "macro_f1", "auroc", "log_loss", "brier", "ece"):
        assert again[name] == pytest.approx(found[name], abs=1e-9), name


@given(st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_weight_of_two_equals_the_image_twice(seed):
    labels, p, rng = draw(seed, n=40)
    w = rng.integers(1, 4, len(labels))
    weighted = measure(labels, p, sample_weight=w)
    repeated = measure(np.repeat(labels, w), np.repeat(p, w, axis=0))
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "auroc", "log_loss", "brier"):
        assert weighted[name] == pytest.approx(repeated[name], abs=1e-9), name


def test_classes_that_do_not_occur_leave_figures_defined():
    labels, p, _ = draw(0, k=4)
    found = measure(np.zeros_like(labels), p)
    assert found["auroc"] is None
    assert found["balanced_accuracy"] == found["accuracy"]
    assert found["per_class"][3]["recall"] == 0
    some = labels < 3
    found = measure(labels[some], p[some])
    parts = [sk.roc_auc_score(labels[some] == k, p[some, k]) for k in range(3)]
    assert found["auroc"] == pytest.approx(np.mean(parts))


def test_ece_is_zero_for_probabilities_that_keep_their_word():
    # 100 images at 0.8, of which exactly 80 are right: in any order, ties share their accuracy.
    p = np.tile([0.8, 0.2], (100, 1))
    labels = np.array([1] * 20 + [0] * 80)
    assert expected_calibration_error(labels, p) == pytest.approx(0, abs=1e-12)
    assert expected_calibration_error(1 - labels, p) == pytest.approx(0.6)


def test_ece_equals_its_definition_on_distinct_confidences():
    labels, p, _ = draw(5, n=150, k=3)
    order = np.argsort(p.max(axis=1))
    expected = 0.0
    for part in np.split(order, 15):  # 150 images: 15 bins of exactly 10
        confidence = p[part].max(axis=1).mean()
        expected += abs(confidence - (p[part].argmax(axis=1) == labels[part]).mean()) / 15
    assert expected_calibration_error(labels, p) == pytest.approx(expected)
    bins = calibration_bins(labels, p)
    assert bins.shape == (15, 3)
    assert bins[:, 2] == pytest.approx(1 / 15)
    assert (np.diff(bins[:, 0]) > 0).all()


@pytest.mark.parametrize(
    ("labels", "p", "w"),
    [
        ([0, 1], [[0.5, 0.5]], None),
        ([], np.empty((0, 2)), None),
        ([2], [[0.5, 0.5]], None),
        ([-1], [[0.5, 0.5]], None),
        ([0.0], [[0.5, 0.5]], None),
        ([0], [[0.9, 0.3]], None),
        ([0], [[1.2, -0.2]], None),
        ([0], [[np.nan, 1.0]], None),
        ([0], [[1.0]], None),
        ([0], [[0.5, 0.5]], [-1.0]),
        ([0], [[0.5, 0.5]], [0.0]),
        ([0], [[0.5, 0.5]], [1.0, 1.0]),
    ],
)
def test_what_is_no_prediction_is_refused(labels, p, w):
    with pytest.raises(ResultError):
        measure(labels, p, sample_weight=w)
