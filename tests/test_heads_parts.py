"""The steps under fit_head: folds, grids, the SVM's path, choosing, calibration."""

import itertools
import tracemalloc

import numpy as np
import pytest
from cnn_codes.errors import HeadError
from cnn_codes.heads import Examples, fit_head
from cnn_codes.heads.calibrate import calibrate, fit_scale, log_losses
from cnn_codes.heads.folds import cut_folds
from cnn_codes.heads.grids import around, axes_of, candidates, widened
from cnn_codes.heads.held_out import HeldOut, held_out, paired_gain
from cnn_codes.heads.linear import LinearPath, class_weights, two_columns
from cnn_codes.heads.paths import PATHS, Part
from cnn_codes.heads.problem import Problem
from cnn_codes.heads.scoring import libsvm_arrays, rbf_scores
from cnn_codes.heads.search import quiet_solvers, search
from cnn_codes.heads.trials import pick
from cnn_codes.progress import silent
from cnn_codes.settings import HeadSettings
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 40)), min_size=1, max_size=120),
    st.integers(2, 5),
    st.integers(0, 5),
)
def test_folds_hold_out_every_row_once_and_part_no_group(rows, wanted, seed):
    labels, groups = np.array(rows).T
    names = ["a", "b", "c"]
    try:
        folds, warned = cut_folds(
            labels.astype(np.int32), groups, folds=wanted, seed=seed, class_names=names, every=True
        )
    except HeadError:
        _, first = np.unique(groups, return_index=True)
        assert np.bincount(labels[first], minlength=3).min() < 2
        return
    assert 2 <= len(folds) <= wanted
    assert bool(warned) == (len(folds) < wanted)
    held = np.concatenate([rows for _, rows in folds])
    assert sorted(held) == list(range(len(labels)))
    for train, held in folds:
        assert len(train) + len(held) == len(labels)
        assert not set(groups[train]) & set(groups[held])
        assert set(labels[train]) == {0, 1, 2}


def test_a_class_of_one_group_is_trained_on_in_every_fold_and_named():
    labels = np.repeat(np.arange(4, dtype=np.int32), 6)
    groups = np.arange(24)
    groups[18:] = 18  # copies
    groups[0] = 18  # one of them has another label too
    folds, (note,) = cut_folds(labels, groups, folds=5, seed=0, class_names=list("abcd"))
    assert "1 class has 1" in note
    assert "d" in note
    never = np.array([0, *range(18, 24)])
    assert sorted(np.concatenate([held for _, held in folds])) == list(range(1, 18))
    for train, held in folds:
        assert set(never) <= set(train)
        assert not set(train) & set(held)
        assert len(train) + len(held) == 24
    with pytest.raises(HeadError, match="class d has 1"):
        cut_folds(labels, groups, folds=5, seed=0, class_names=list("abcd"), every=True)
    groups[6:12] = 6
    with pytest.raises(HeadError, match="has 1"):  # half of the classes
        cut_folds(labels, groups, folds=5, seed=0, class_names=list("abcd"))


def test_folds_are_stratified():
    labels = np.repeat([0, 1, 2], [60, 30, 10]).astype(np.int32)
    folds, _ = cut_folds(labels, np.arange(100), folds=5, seed=3, class_names=["a", "b", "c"])
    for _, held in folds:
        assert list(np.bincount(labels[held])) == [12, 6, 2]


@pytest.mark.parametrize("method", ["svm", "softmax", "ridge", "rbf", "knn"])
@pytest.mark.parametrize("end", [0, -1])
def test_an_end_that_wins_moves_outward_until_its_bound(method, end):
    axes = axes_of(method, n_train=500, code_dim=64)
    seen = 0
    for _ in range(30):
        best = {axis.name: axis.values[end] for axis in axes}
        wider = widened(axes, best)
        for axis in wider:
            assert len(set(axis.values)) == len(axis.values)
        if wider == axes:
            break
        axes, seen = wider, seen + 1
    else:
        pytest.fail("the grid has no bound")
    assert seen >= 1 or (method == "knn" and end == -1)
    for axis in axes:
        if axis.name in ("C", "gamma"):
            steps = np.diff(np.log10(axis.values))
            assert steps == pytest.approx(0.5, abs=1e-4)


def test_a_best_inside_leaves_the_grid_alone():
    axes = axes_of("rbf", n_train=500, code_dim=64)
    best = {axis.name: axis.values[1] for axis in axes}
    assert widened(axes, best) == axes
    assert len(candidates(axes)) == np.prod([len(axis.values) for axis in axes])


@pytest.mark.parametrize("method", ["svm", "rbf", "knn", "centroid"])
def test_a_second_search_starts_near_the_first_and_can_go_as_far(method):
    axes = axes_of(method, n_train=500, code_dim=64)
    for best in candidates(axes):
        near = around(axes, best)
        for axis, whole in zip(near, axes, strict=True):
            assert best[axis.name] in axis.values
            assert len(axis.values) <= 5
            everything = (*axis.values, *axis.beyond_start, *axis.beyond_end)
            assert sorted(everything) == sorted(
                (*whole.values, *whole.beyond_start, *whole.beyond_end)
            )
        if method == "svm":
            outward = widened(near, {"C": near[0].values[-1]})[0].values
            assert np.diff(np.log10(outward)) == pytest.approx(0.5, abs=1e-4)


@pytest.mark.parametrize("n_classes", [2, 5])
@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("method", ["softmax", "ridge", "rbf"])
def test_paths_give_each_settings_own_scores(method, balanced, n_classes):
    x, y = load_digits(n_class=n_classes, return_X_y=True)
    x, y = x[:260].astype(np.float32), y[:260].astype(np.int32)
    grid = candidates(axes_of(method, n_train=160, code_dim=64))[::4]
    weights = class_weights(y[:160], n_classes) if balanced else None
    z = StandardScaler().fit_transform(x[:160])
    held = (x[160:] - x[:160].mean(axis=0)) / np.where(x[:160].std(axis=0), x[:160].std(axis=0), 1)
    if method == "rbf":
        part = Part(z, held.astype(np.float32), y[:160], weights, n_classes)
        scores = PATHS[method](part, grid)
    else:
        fold = (np.arange(160), np.arange(100))
        problem = Problem(method, x[:160, None], y[:160], x[160:, None], y[160:], [fold],
                          n_classes, balanced)  # fmt: skip
        path = LinearPath(problem, jobs=1)
        assert all(path.solve(one["C"]) for one in grid)
        scores = [path.scores(one["C"]) for one in grid]
    for one, found in zip(grid, scores, strict=True):
        model = {
            "softmax": lambda one=one: LogisticRegression(C=one["C"], tol=1e-6, max_iter=9999),
            "ridge": lambda one=one: RidgeClassifier(alpha=1 / (2 * one["C"])),
            "rbf": lambda one=one: SVC(**one, decision_function_shape="ovr", tol=1e-6),
        }[method]()
        model.fit(z.astype(np.float64), y[:160], sample_weight=weights)
        expected = two_columns(model.decision_function(held.astype(np.float64)))
        if method == "rbf" and n_classes > 2:  # ours are no votes: they call as many right
            right = [(scores.argmax(axis=1) == y[160:]).mean() for scores in (found, expected)]
            assert right[0] >= right[1] - 0.03, one
            continue
        close = np.abs(found - expected) < 5e-2 * np.abs(expected).max()
        assert close.mean() > 0.98, one


@pytest.mark.parametrize("n_classes", [2, 3, 7])
def test_rbf_scores_are_the_mean_decision_value_over_the_pairs(n_classes):
    rng = np.random.default_rng(0)
    labels = np.arange(20 * n_classes) % n_classes
    x = (rng.normal(size=(len(labels), 10)) + 0.3 * labels[:, None]).astype(np.float32)
    model = SVC(C=2, gamma=0.1, decision_function_shape="ovo").fit(x.astype(float), labels)
    new = rng.normal(size=(9, 10))
    arrays = libsvm_arrays(model)
    found = rbf_scores(new, x[model.support_], *arrays, gamma=0.1)
    values = model.decision_function(new).reshape(len(new), -1)
    values = -values if n_classes == 2 else values
    expected = np.zeros((len(new), n_classes))
    for column, (i, j) in enumerate(itertools.combinations(range(n_classes), 2)):
        expected[:, i] += values[:, column] / n_classes
        expected[:, j] -= values[:, column] / n_classes
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_the_pairs_of_many_classes_are_never_laid_out():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(300), 3).astype(np.int32)
    means = 4 * rng.normal(size=(300, 16))
    z = (means[labels] + rng.normal(size=(len(labels), 16))).astype(np.float32)
    part = Part(z, z[::-1].copy(), labels, None, 300)
    tracemalloc.start()
    scores = PATHS["rbf"](part, [{"C": 10.0, "gamma": 1 / 16}])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (scores[0].argmax(axis=1) == labels[::-1]).mean() > 0.9
    pairs = 300 * 299 // 2
    assert peak < len(labels) * pairs * 8 / 4, "a quarter of the pairs' values, 323 MB"


def test_least_log_loss_wins_among_those_that_are_not_clearly_less_accurate():
    rng = np.random.default_rng(0)
    good = rng.random(400) < 0.9
    near = good.copy()
    near[:1] = ~near[:1]
    poor = rng.random(400) < 0.6
    assert pick([0.3, 0.2, 0.1], [good, near, poor]) == 1
    assert pick([0.2, 0.2, 0.1], [good, good, poor]) == 0  # equal: the stronger regularisation
    assert pick([0.5, 0.4, 0.1], [poor, poor, good]) == 2


def test_weights_decide_what_accurate_means():
    rare = np.zeros(100, dtype=bool)
    rare[:10] = True
    common_only, rare_too = ~rare, rare | (np.arange(100) < 60)
    weights = np.where(rare, 5.0, 0.5)
    assert pick([0.2, 0.3], [common_only, rare_too]) == 0
    assert pick([0.2, 0.3], [common_only * weights, rare_too * weights]) == 1


class Passing:
    """A fitted classifier whose scores are its input."""

    def __init__(self, n_classes):
        self.classes_ = np.arange(n_classes)


def drawn(seed, n, k, scale):
    rng = np.random.default_rng(seed)
    true = rng.normal(size=(n, k)) * 2
    labels = np.array([rng.choice(k, p=row) for row in softmax(true, axis=1)])
    return true / scale, labels


@pytest.mark.parametrize("k", [2, 4])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 500.0])
def test_scale_is_found_again_whatever_its_size(k, scale):
    scores, labels = drawn(k, 4000, k, scale)
    assert fit_scale(scores, labels) == pytest.approx(scale, rel=0.1)


@pytest.mark.parametrize("k", [2, 4])
def test_scale_is_scikit_learns_temperature(k):
    from sklearn.base import BaseEstimator, ClassifierMixin

    class Scorer(ClassifierMixin, BaseEstimator):
        def fit(self, X, y):
            self.classes_ = np.unique(y)
            return self

        def decision_function(self, X):
            return X[:, 1] if X.shape[1] == 2 else X

        def predict(self, X):
            return X.argmax(axis=1)

    scores, labels = drawn(0, 600, k, 0.3)
    if k == 2:
        scores = np.stack([-scores[:, 1], scores[:, 1]], axis=1)
    frozen = FrozenEstimator(Scorer().fit(scores, labels))
    model = CalibratedClassifierCV(frozen, method="temperature").fit(scores, labels)
    ours = softmax(fit_scale(scores, labels, smoothing=0.0) * scores, axis=1)
    np.testing.assert_allclose(ours, model.predict_proba(scores), atol=1e-5)


def test_scores_that_separate_all_do_not_become_certainty():
    labels = np.arange(40) % 2
    scores = np.where(labels[:, None] == np.arange(2), 1.0, -1.0)
    p = softmax(fit_scale(scores, labels) * scores, axis=1).max()
    assert 0.9 < p < 0.9999


def test_equal_scores_leave_the_scale_alone():
    assert fit_scale(np.zeros((10, 3)), np.arange(10) % 3) == 1.0


def test_calibration_is_measured_on_what_its_scale_has_not_seen():
    scores, labels = drawn(1, 900, 3, 0.2)
    found = calibrate(scores, labels, np.arange(900) % 3)
    assert found.after["log_loss"] < found.before["log_loss"]
    assert found.after["ece"] < found.before["ece"]
    inside = log_losses(found.scale * scores, labels).mean()
    assert found.after["log_loss"] >= inside - 1e-4


def test_log_probabilities_are_left_alone_where_no_scale_helps():
    scores, labels = drawn(2, 60, 3, 1.0)
    best = fit_scale(scores, labels, smoothing=0.0)
    kept = calibrate(best * scores, labels, np.arange(60) % 3, optional=True)
    assert kept.scale == 1.0
    assert kept.after == kept.before
    wrong = calibrate(5 * scores, labels, np.arange(60) % 3, optional=True)
    assert wrong.scale < 0.5


@pytest.mark.parametrize("n_groups", [4, 8, 40])
@pytest.mark.parametrize("n_classes", [2, 3, 7])
def test_groups_that_hold_all_classes_are_cut_and_fitted(n_groups, n_classes):
    """Each session shows every class: the first image of a group says nothing of the others."""
    random = np.random.default_rng(n_groups)
    groups = np.repeat(np.arange(n_groups), 2 * n_classes)
    labels = np.tile(np.arange(n_classes, dtype=np.int32), 2 * n_groups)
    names = tuple("abcdefg"[:n_classes])
    folds, _ = cut_folds(labels, groups, folds=4, seed=0, class_names=names)
    assert len(folds) == 4
    for fit, held in folds:
        assert not set(groups[fit]) & set(groups[held])
        assert set(labels[fit]) == set(labels.tolist())
    codes = random.normal(size=(len(labels), 8)).astype(np.float32)
    codes[np.arange(len(labels)), labels] += 3
    head = fit_head(
        "softmax", Examples(codes[:, None], labels, groups), None, HeadSettings(),
        n_classes=n_classes, seed=0, class_names=names,
    )  # fmt: skip
    assert head.classes == names


def test_out_of_fold_figures_are_not_flattered_by_the_choice_of_c():
    apart, flattered = [], []
    for seed in range(12):
        random = np.random.default_rng(seed)
        z = random.standard_normal((60, 1, 30)).astype(np.float32)
        labels = np.repeat([0, 1], 30).astype(np.int32)
        folds, _ = cut_folds(labels, np.arange(60), folds=5, seed=seed, class_names=("a", "b"))
        found = held_out(z, labels, folds, method="svm", n_classes=2, jobs=1)
        apart.append(found.accuracy)
        axes = axes_of("svm", n_train=48, code_dim=30)
        problem = Problem("svm", z, labels, z, labels, list(folds), 2, balanced=False, views="mean")
        with quiet_solvers():
            same = search(problem, axes, jobs=1, progress=silent)
        flattered.append(max(point["accuracy"] for point in same.curve))
    assert np.mean(apart) < 0.5 + 2 * 0.5 / np.sqrt(60 * 12)  # chance, within two standard errors
    assert np.mean(flattered) > np.mean(apart)


def test_gains_over_another_head_are_clustered_by_group():
    truth, random = np.zeros(200, np.int32), np.random.default_rng(0)
    mistakes = random.random(20) < 0.4  # of whole groups of ten images

    def held(wrong):
        scores = np.where(wrong[:, None], [[0.0, 1.0]], [[1.0, 0.0]])
        rows = np.arange(200)
        return HeldOut(rows, scores, truth, rows % 5, 0.0, 1.0, False, (), 0.0)

    one, other = held(np.zeros(200, bool)), held(np.repeat(mistakes, 10))
    alone = paired_gain(one, other, np.arange(200))[1]
    grouped = paired_gain(one, other, np.repeat(np.arange(20), 10))[1]
    assert np.ptp(grouped) > 2.5 * np.ptp(alone)
