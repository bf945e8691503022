import re
from itertools import combinations

import numpy as np
import pytest
from cnn_codes.errors import HeadError
from cnn_codes.heads import Examples, fit_head
from cnn_codes.heads.folds import cut_folds
from cnn_codes.heads.held_out import held_out
from cnn_codes.settings import METHODS, HeadSettings
from conftest import python
from scipy.optimize import minimize
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import load_digits
from sklearn.feature_selection import VarianceThreshold
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC

AFFINE = ("svm", "softmax", "ridge", "centroid")


def problem(seed=0, n=120, k=3, d=12, v=1, gap=1.0, counts=None, noise=1.0):
    """Gaussian classes; views are the same image with noise; one number is constant."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(k), counts) if counts else np.arange(n) % k
    centres = np.random.default_rng(99).normal(size=(k, d)) * gap
    image = centres[labels] + rng.normal(size=(len(labels), d))
    codes = image[:, None] + noise * (v > 1) * rng.normal(size=(len(labels), v, d))
    codes = codes * np.linspace(0.1, 30, d) + 5
    codes[:, :, 0] = 2.5
    return Examples(
        codes.astype(np.float32), labels.astype(np.int32), np.arange(len(labels), dtype=np.int64)
    )


def digits(k=10):
    found = load_digits(n_class=k)
    codes = found.data[:, None].astype(np.float32)
    order = np.random.default_rng(0).permutation(len(codes))
    train, test = np.split(order, [2 * len(order) // 3])
    parts = [
        Examples(codes[rows], found.target[rows].astype(np.int32), rows.astype(np.int64))
        for rows in (train, test)
    ]
    return parts[0], parts[1]


def fit(method, train, val=None, *, seed=0, k=None, **options):
    options = {"folds": 3, "jobs": 1, **options}
    n_classes = k or int(train.labels.max()) + 1
    return fit_head(method, train, val, HeadSettings(**options), n_classes=n_classes, seed=seed)


def as_stored(z):
    return z.astype(np.float32).astype(np.float64)


class SquaredHinge(ClassifierMixin, BaseEstimator):
    """LinearSVC's loss, its intercept not penalised, minimised by SciPy."""

    def __init__(self, C):
        self.C = C

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        several = self.classes_[1:] if len(self.classes_) == 2 else self.classes_
        self.weights_ = np.stack([self._one(X, np.where(y == k, 1, -1)) for k in several])
        return self

    def _one(self, x, sign):
        def value(w):
            slack = np.maximum(0, 1 - sign * (x @ w[:-1] + w[-1]))
            pull = -2 * self.C * sign * slack
            gradient = np.append(w[:-1] + pull @ x, pull.sum())
            return w[:-1] @ w[:-1] / 2 + self.C * slack @ slack, gradient

        options = {"maxiter": 20_000, "maxfun": 20_000, "ftol": 1e-15, "gtol": 1e-9}
        return minimize(
            value, np.zeros(x.shape[1] + 1), jac=True, method="L-BFGS-B", options=options
        ).x

    def decision_function(self, X):
        values = X @ self.weights_[:, :-1].T + self.weights_[:, -1]
        return values[:, 0] if len(self.weights_) == 1 else values

    def predict(self, X):
        values = self.decision_function(X)
        best = (values > 0).astype(int) if values.ndim == 1 else values.argmax(axis=1)
        return self.classes_[best]


def scikit_learns(head):
    """The same method and setting, written as anybody would."""
    c = head.chosen
    model = {
        "svm": lambda: SquaredHinge(c["C"]),
        "softmax": lambda: LogisticRegression(C=c["C"], tol=1e-9, max_iter=10_000),
        "ridge": lambda: RidgeClassifier(alpha=1 / (2 * c["C"])),
        "centroid": NearestCentroid,
        "knn": lambda: KNeighborsClassifier(c["k"], metric=c["metric"]),
        "rbf": lambda: SVC(C=c["C"], gamma=c["gamma"], decision_function_shape="ovo"),
    }[head.method]()
    return make_pipeline(StandardScaler(), model)


@pytest.mark.parametrize("k", [2, 10])
@pytest.mark.parametrize("method", METHODS)
def test_head_is_scikit_learns_estimator_at_the_chosen_setting(method, k):
    train, test = digits(k)
    head = fit(method, train, folds=2)
    reference = scikit_learns(head)
    if method == "rbf":  # libsvm stops early: only the same input gives the same solution
        reference.steps.insert(1, ("as_stored", FunctionTransformer(as_stored)))
    if method == "centroid":  # it warns of constant numbers
        reference.steps.insert(0, ("varying", VarianceThreshold()))
    reference.fit(train.codes[:, 0].astype(np.float64), train.labels)
    x = test.codes[:, 0].astype(np.float64)
    scores = head.scores(test.codes)
    assert scores.shape == (len(x), k)
    if method == "knn":
        share = reference.predict_proba(x)
        expected = np.log((share * head.parameters["k"] + 1 / k) / (head.parameters["k"] + 1))
        # Rounding may swap neighbours that are equally far; nowhere else may the votes differ.
        assert (np.abs(scores - expected).max(axis=1) < 1e-5).mean() > 0.99
    elif method == "centroid":
        assert (head.predict(test.codes) == reference.predict(x)).all()
    else:
        value = reference.decision_function(x)
        expected = np.stack([-value / 2, value / 2], axis=1) if k == 2 else value
        if method == "rbf" and k > 2:  # the mean over a class's pairs, in place of their votes
            expected = np.zeros_like(scores)
            for column, (i, j) in enumerate(combinations(range(k), 2)):
                expected[:, i] += value[:, column] / k
                expected[:, j] -= value[:, column] / k
        close = np.abs(scores - expected) <= 1e-5 * np.abs(expected).max()
        assert close.mean() == 1
        same = (head.predict(test.codes) == reference.predict(x)).mean()
        assert same > (0.97 if method == "rbf" else 0.998)  # the mean of pairs against their votes
    if method == "softmax":
        plain = scores - scores.max(axis=1, keepdims=True)
        odds = np.exp(plain)
        np.testing.assert_allclose(
            odds / odds.sum(axis=1, keepdims=True), reference.predict_proba(x), atol=1e-5
        )
    # And it is a classifier that works.
    assert (head.predict(test.codes) == test.labels).mean() > (
        0.75 if method == "centroid" else 0.9
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("v", [1, 4])
def test_predictions_are_the_most_probable_class_and_rows_sum_to_one(method, v):
    train, test = problem(v=v), problem(1, v=v)
    for views in ("mean", "all"):
        head = fit(method, train, train_views=views)
        p = head.predict_proba(test.codes)
        np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-12)
        assert (p >= 0).all()
        assert (head.predict(test.codes) == p.argmax(axis=1)).all()
        # A positive scale keeps the order that the scores have.
        assert (p.argmax(axis=1) == head.scores(test.codes).argmax(axis=1)).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("views", ["mean", "all"])
def test_number_of_jobs_changes_no_bit(method, views):
    train = problem(v=3, n=90)
    heads = [fit(method, train, jobs=jobs, folds=4, train_views=views) for jobs in (1, 2, 3)]
    for other in heads[1:]:
        assert other.chosen == heads[0].chosen
        assert other.temperature_scale == heads[0].temperature_scale
        for name, array in heads[0].arrays.items():
            assert np.array_equal(other.arrays[name], array), name


def test_seeds_change_the_folds():
    train = problem(n=90, gap=0.4)
    curves = [fit("svm", train, seed=seed).chosen["curve"] for seed in (0, 0, 1)]
    assert curves[0] == curves[1] != curves[2]


@pytest.mark.parametrize("method", AFFINE)
@pytest.mark.parametrize("k", [2, 4])
def test_affine_form_for_raw_codes_gives_the_same_scores_and_probabilities(method, k):
    train, test = problem(k=k, v=2), problem(1, k=k, v=2)
    head = fit(method, train, train_views="all")
    weight, bias = head.affine()
    assert weight.shape == (k, train.code_dim)
    assert bias.shape == (k,)
    scores = test.codes.astype(np.float64).mean(axis=1) @ weight.T + bias
    np.testing.assert_allclose(scores, head.scores(test.codes), atol=1e-6 * np.abs(scores).max())
    odds = np.exp(head.temperature_scale * scores)
    np.testing.assert_allclose(
        odds / odds.sum(axis=1, keepdims=True), head.predict_proba(test.codes), atol=1e-6
    )


@pytest.mark.parametrize("method", ["knn", "rbf"])
def test_heads_that_are_not_linear_have_no_affine_form(method):
    with pytest.raises(HeadError, match="not linear"):
        fit(method, problem()).affine()


@pytest.mark.parametrize("method", METHODS)
def test_order_of_views_is_immaterial(method):
    train, test = problem(v=4), problem(1, v=4)
    head = fit(method, train, train_views="all")
    np.testing.assert_allclose(
        head.scores(test.codes), head.scores(test.codes[:, ::-1]), atol=1e-5, rtol=1e-6
    )


def test_averaging_views_beats_one_noisy_view():
    train, test = problem(v=8, noise=3.0, n=240), problem(1, v=8, noise=3.0, n=600)
    one = Examples(train.codes[:, :1], train.labels, train.groups)
    single = (fit("svm", one).predict(test.codes[:, :1]) == test.labels).mean()
    for views in ("mean", "all", "both"):
        head = fit("svm", train, train_views=views)
        assert (head.predict(test.codes) == test.labels).mean() > single + 0.05, views


def test_both_ways_of_using_views_are_tried_and_the_curve_names_them():
    head = fit("softmax", problem(v=3, n=60), train_views="both")
    assert {point["views"] for point in head.chosen["curve"]} == {"mean", "all"}
    assert head.chosen["train_views"] == head.views


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_codes_may_be_a_memory_map_of_either_type(tmp_path, dtype):
    train = problem(v=2)
    codes = np.lib.format.open_memmap(
        tmp_path / "codes.npy", mode="w+", dtype=dtype, shape=train.codes.shape
    )
    codes[:] = train.codes
    mapped = np.load(tmp_path / "codes.npy", mmap_mode="r")
    head = fit("softmax", Examples(mapped, train.labels, train.groups))
    plain = fit("softmax", Examples(np.array(mapped), train.labels, train.groups))
    assert np.array_equal(head.predict_proba(mapped), plain.predict_proba(np.array(mapped)))


def test_constant_numbers_neither_fail_nor_count():
    train, test = problem(), problem(1)
    head = fit("svm", train)
    assert head.scale[0] == 1
    moved = test.codes.copy()
    moved[:, :, 0] = 2.5
    assert np.array_equal(head.scores(moved), head.scores(test.codes))
    assert np.isfinite(head.predict_proba(test.codes)).all()


def test_val_chooses_where_there_is_one_and_is_not_trained_on():
    train, val = problem(n=90), problem(1, n=60)
    head = fit("svm", train, val)
    assert head.chosen["on"] == "val"
    other = Examples(val.codes, val.labels[::-1].copy(), val.groups)
    misled = fit("svm", train, other)
    assert misled.chosen["curve"] != head.chosen["curve"]
    for one in (head, misled):  # whatever val says, the head is that of train at its C
        reference = scikit_learns(one).fit(train.codes[:, 0].astype(np.float64), train.labels)
        np.testing.assert_allclose(
            one.scores(val.codes), reference.decision_function(val.codes[:, 0]), atol=1e-4
        )


def test_rare_classes_weigh_as_much_when_asked():
    train = problem(counts=[150, 12], k=2, gap=0.35)
    test = problem(1, counts=[300, 300], k=2, gap=0.35)
    for method in ("svm", "softmax", "ridge", "rbf"):
        recall = {
            weight: (
                fit(method, train, class_weight=weight).predict(test.codes)[test.labels == 1] == 1
            ).mean()
            for weight in ("none", "balanced")
        }
        assert recall["balanced"] > recall["none"] + 0.1, method
    assert any("no effect" in text for text in fit("knn", train, class_weight="balanced").warnings)


def test_class_weights_are_scikit_learns_in_the_path_too():
    train = problem(counts=[90, 20], k=2, gap=0.5)
    head = fit("softmax", train, class_weight="balanced")
    reference = make_pipeline(
        StandardScaler(),
        LogisticRegression(C=head.chosen["C"], class_weight="balanced", tol=1e-6, max_iter=9999),
    ).fit(train.codes[:, 0].astype(np.float64), train.labels)
    np.testing.assert_allclose(
        head.scores(train.codes)[:, 1] * 2,
        reference.decision_function(train.codes[:, 0].astype(np.float64)),
        atol=1e-3,
    )


def test_fewer_folds_where_a_class_is_small_and_it_is_said():
    head = fit("svm", problem(counts=[30, 30, 3]), folds=5)
    assert head.chosen["folds"] == 3
    assert any("3 folds instead of 5" in text for text in head.warnings)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"counts": [20, 1, 1]}, "class 1 has 1 different image"),
        ({"counts": [20, 0, 20]}, "no image of 1"),
        ({"counts": [20, 0, 0], "k": 3}, "no image of 1, 2"),
    ],
)
def test_classes_that_cannot_be_learned_are_named(change, match):
    with pytest.raises(HeadError, match=match):
        fit("svm", problem(**change), k=3)


def test_copies_of_one_image_are_no_two_images():
    train = problem(counts=[20, 20, 4])
    groups = train.groups.copy()
    groups[-4:] = groups[-1]
    head = fit("svm", Examples(train.codes, train.labels, groups))
    assert any("1 class has 1" in text and "Nothing was chosen" in text for text in head.warnings)
    assert head.n_classes == 3
    assert head.chosen["folds"] > 1
    groups[:20] = groups[0]  # and most classes cannot be held out
    with pytest.raises(HeadError, match="different"):
        fit("svm", Examples(train.codes, train.labels, groups))


def test_a_large_problem_is_chosen_on_one_fold_and_predicts_alike(monkeypatch):
    import cnn_codes.heads.linear as linear

    train, images = problem(k=5, n=200), problem(1, k=5, n=200).codes
    usual = {method: fit(method, train) for method in ("svm", "softmax", "rbf")}
    monkeypatch.setattr(linear, "LARGE", 1)
    for method, head in usual.items():
        large = fit(method, train)
        assert large.chosen["folds"] == 1
        assert re.fullmatch(r"one fold of train \(6\d images held out\)", large.chosen["on"])
        assert large.calibration["on"].startswith("scores of one fold")
        assert {len(point["per_fold"]) for point in large.chosen["curve"]} == {1}
        same = large.predict_proba(images).argmax(axis=1) == head.predict_proba(images).argmax(1)
        assert same.mean() >= 0.9
    folds, _ = cut_folds(train.labels, train.groups, folds=5, seed=0, class_names=list("abcde"))
    held = held_out(train.codes, train.labels, folds, method="softmax", n_classes=5, jobs=1)
    assert held.rows.tolist() == list(range(200))
    assert held.accuracy > 0.5


def test_one_example_of_a_class_will_do_where_val_chooses():
    head = fit("svm", problem(counts=[20, 20, 1]), problem(1))
    assert head.n_classes == 3


def test_names_of_classes_stand_in_messages_and_in_the_head():
    names = ["ants", "bees", "wasps"]
    settings = HeadSettings(jobs=1)
    head = fit_head("centroid", problem(), None, settings, n_classes=3, seed=0, class_names=names)
    assert head.classes == tuple(names)
    with pytest.raises(HeadError, match="bees"):
        fit_head(
            "svm", problem(counts=[9, 1, 1]), None, settings, n_classes=3, seed=0, class_names=names
        )


def test_what_does_not_fit_is_refused():
    train = problem()
    bad = train.codes.copy()
    bad[7, 0, 3] = np.nan
    with pytest.raises(HeadError, match="row 7"):
        fit("svm", Examples(bad, train.labels, train.groups))
    with pytest.raises(HeadError, match="different names"):
        fit("svm", train, k=1)
    with pytest.raises(HeadError, match="run from 0 to 2"):
        fit("svm", train, k=2)
    with pytest.raises(HeadError, match="val have 7 numbers"):
        fit("svm", train, Examples(train.codes[:, :, :7], train.labels, train.groups))
    with pytest.raises(HeadError, match="val have 2 views"):
        fit("svm", train, problem(v=2))
    with pytest.raises(HeadError, match="not known"):
        fit("forest", train)
    for codes in (train.codes[:, 0], train.codes.astype(np.float64), train.codes[:5]):
        with pytest.raises(HeadError):
            Examples(codes, train.labels, train.groups)
    head = fit("centroid", train)
    for codes in (train.codes[:, :, :5], train.codes[:, 0], bad):
        with pytest.raises(HeadError):
            head.scores(codes)


def test_no_rows_give_no_predictions():
    train = problem()
    head = fit("svm", train)
    assert head.predict_proba(train.codes[:0]).shape == (0, 3)


def test_curve_holds_every_value_tried_with_its_folds():
    head = fit("svm", problem(gap=0.5), folds=4)
    curve = head.chosen["curve"]
    tried = [point["C"] for point in curve]
    assert tried == sorted(set(tried))
    assert len(curve) >= 4
    for point in curve:
        assert len(point["per_fold"]) == len(point["accuracy_per_fold"]) == 4
        assert point["accuracy"] == pytest.approx(np.mean(point["accuracy_per_fold"]))
    at = tried.index(head.chosen["C"])
    assert curve[at]["score"] == head.chosen["score"]


def test_grid_grows_where_its_end_wins():
    # Tiny gaps need all the regularisation there is; the first grid begins at 1e-5.
    head = fit("svm", problem(gap=0.02, n=60, d=40, noise=0))
    tried = [point["C"] for point in head.chosen["curve"]]
    best = head.chosen["C"]
    assert min(tried) < 1e-5 or max(tried) > 1e-1 or tried[0] < best < tried[-1]
    inside = tried[0] < best < tried[-1]
    bounded = best in (1e-8, 1e4)
    assert inside or bounded


def test_non_convergence_is_told(monkeypatch):
    import cnn_codes.heads.linear as linear

    with monkeypatch.context() as patch:
        patch.setattr(linear, "MAX_PASSES", 2)
        for method in ("svm", "softmax"):
            head = fit(method, digits(3)[0], folds=2)
            for text in ("did not converge at the chosen setting", "while its setting was chosen"):
                assert text in " ".join(head.warnings), (method, head.chosen["C"])
    assert not fit("svm", digits(3)[0]).warnings


def test_loading_and_predicting_import_no_scikit_learn():
    code = (
        "import sys; from cnn_codes.heads import Head, load_head, Examples;"
        "print({'sklearn', 'scipy', 'torch', 'h5py'} & set(sys.modules))"
    )
    run = python(code, check=True)
    assert run.stdout.strip() == "set()"
    code = "import sys, cnn_codes.heads.fit; print({'torch', 'h5py'} & set(sys.modules))"
    run = python(code, check=True)
    assert run.stdout.strip() == "set()"
