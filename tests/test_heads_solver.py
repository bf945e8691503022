"""The solver of the linear heads against SciPy's, and what it stands on: blocks, basis, losses."""

import numpy as np
import pytest
from cnn_codes.heads import Examples, fit_head
from cnn_codes.heads.design import Design, moments
from cnn_codes.heads.grids import axes_of, candidates
from cnn_codes.heads.linear import LINEAR, LinearPath, class_weights, fit_linear
from cnn_codes.heads.problem import Problem
from cnn_codes.heads.search import quiet_solvers
from cnn_codes.settings import HeadSettings
from scipy.optimize import minimize
from scipy.special import logsumexp
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def objective(method, z, y, k, C, weights, flat):
    """The stated objective, written down plainly: value and gradient, in float64."""
    n_out = 1 if k == 2 else k
    w = flat.reshape(n_out, -1)
    scores = z @ w[:, :-1].T + w[:, -1]  # (N, J)
    sign = np.where(y == 1, 1, -1)[:, None] if k == 2 else np.where(y[:, None] == range(k), 1, -1)
    if method == "svm":
        slack = np.maximum(0, 1 - sign * scores)
        loss, slope = slack**2, -2 * sign * slack
    elif method == "ridge":
        loss, slope = (scores - sign) ** 2, 2 * (scores - sign)
    elif k == 2:
        loss, slope = np.logaddexp(0, -sign * scores), -sign / (1 + np.exp(sign * scores))
    else:
        total = logsumexp(scores, axis=1, keepdims=True)
        loss = total - scores[np.arange(len(y)), y][:, None]
        slope = np.exp(scores - total) - (sign > 0)
    slope = C * weights[:, None] * slope
    gradient = np.column_stack([w[:, :-1] + slope.T @ z, slope.sum(axis=0)])
    value = (w[:, :-1] ** 2).sum() / 2 + C * (weights[:, None] * loss).sum()
    return value, gradient.ravel()


def skewed(seed=0, n=200, d=30):
    """Two classes, one of them a tenth: the example of the issue that asked for this solver."""
    rng = np.random.default_rng(seed)
    y = (np.arange(n) < n // 10).astype(np.int32)
    return rng.normal(size=(n, d)) + 0.8 * y[:, None], y


def correlated(seed, n, d, k):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, k, n).astype(np.int32)
    z = rng.normal(size=(k, d))[y] + rng.normal(size=(n, d)) @ rng.normal(size=(d, d))
    return z * np.logspace(-3, 3, d) + 1, y


PROBLEMS = {
    "digits": lambda: tuple(part[:300] for part in load_digits(return_X_y=True)),
    "two digits": lambda: load_digits(n_class=2, return_X_y=True),
    "iris": lambda: load_iris(return_X_y=True),
    "wine": lambda: load_wine(return_X_y=True),
    "cancer": lambda: load_breast_cancer(return_X_y=True),
    "skewed": skewed,
    "wide": lambda: correlated(0, 60, 200, 4),
    "wide, two": lambda: correlated(1, 40, 300, 2),
    "tall": lambda: correlated(2, 900, 12, 3),
    "many classes": lambda: correlated(3, 240, 40, 40),
}


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("method", LINEAR)
def test_objective_is_that_of_a_generic_solver(method, name):
    x, y = PROBLEMS[name]()
    codes, y = x.astype(np.float32)[:, None], y.astype(np.int32)
    k, weights = int(y.max()) + 1, class_weights(y, int(y.max()) + 1)
    mean, scale = moments(codes)
    z = (codes[:, 0] - mean) / scale
    design = Design(codes, "mean", mean, scale, dtype=np.float64)
    for C in (1e-4, 1e-2, 1.0):
        weight, bias, converged = fit_linear(method, design, y, weights, C, n_classes=k)
        assert converged
        flat = np.column_stack([weight, bias])
        ours = objective(method, z, y, k, C, weights, 2 * flat[1:] if k == 2 else flat)[0]
        found = minimize(
            lambda w, C=C: objective(method, z, y, k, C, weights, w),
            np.zeros((1 if k == 2 else k) * (z.shape[1] + 1)),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": 20_000, "maxfun": 20_000, "ftol": 1e-13, "gtol": 1e-10},
        )
        assert ours <= found.fun * (1 + 1e-6), (C, ours, found.fun)
        assert ours >= found.fun * (1 - 1e-4), (C, ours, found.fun)  # or the objective is another


@pytest.mark.parametrize("method", LINEAR)
def test_path_minimises_the_same_objective_as_the_final_fit(method):
    x, y = load_digits(return_X_y=True)
    codes, y = x.astype(np.float32)[:, None], y.astype(np.int32)
    folds = list(StratifiedKFold(3, shuffle=True, random_state=0).split(x, y))
    path = LinearPath(Problem(method, codes, y, codes, y, folds, 10, balanced=True), jobs=1)
    mean, scale = moments(codes)
    z = (x - mean) / scale
    for C in (1e-3, 1e-1):
        assert path.solve(C)
        for number, (rows, held) in enumerate(folds):
            design = Design(codes[rows], "mean", mean, scale, dtype=np.float64)
            weights = class_weights(y[rows], 10)
            weight, bias, _ = fit_linear(method, design, y[rows], weights, C, n_classes=10)
            best = np.column_stack([weight, bias])
            solution = path.parts[0].solved[C]
            ours = np.column_stack(
                [path.design.to_codes(solution.weight)[:, number].T, solution.bias[number]]
            )
            values = [
                objective(method, z[rows], y[rows], 10, C, weights, w)[0] for w in (ours, best)
            ]
            assert values[0] <= values[1] * (1 + 2e-3)
            at = np.searchsorted(np.concatenate([h for _, h in folds[: number + 1]]), 0)
            assert at == 0
            start = sum(len(h) for _, h in folds[:number])
            np.testing.assert_allclose(
                path.scores(C)[start : start + len(held)],
                z[held] @ ours[:, :-1].T + ours[:, -1],
                atol=1e-3,
            )


def test_intercept_of_the_svm_is_not_penalised():
    """A tenth positive, 200 images, C = 1e-4: a penalised intercept gave away seven points."""
    x, y = skewed(d=100)
    codes = x.astype(np.float32)[:, None]
    mean, scale = moments(codes)
    design = Design(codes, "mean", mean, scale, dtype=np.float64)
    weight, bias, _ = fit_linear("svm", design, y, None, 1e-4, n_classes=2)
    # With next to no weights the best intercept of the squared hinge is the classes' balance.
    assert bias[1] * 2 == pytest.approx(-0.8, abs=0.05)
    test, truth = skewed(1, n=2000, d=100)
    scores = ((test - mean) / scale) @ weight.T + bias
    assert (scores.argmax(axis=1) == truth).mean() >= 0.9  # the majority's share, at the least


@pytest.mark.parametrize("method", LINEAR)
@pytest.mark.parametrize("share", [0.02, 0.1])
def test_shifting_the_codes_changes_nothing(method, share):
    """No intercept is penalised: whatever stands in for one (a constant number) has no part."""
    x, y = skewed()
    y = (np.arange(200) < 200 * share).astype(np.int32)
    heads = [
        fit_head(
            method,
            Examples(codes.astype(np.float32)[:, None], y, np.arange(200)),
            None,
            HeadSettings(folds=2, jobs=1),
            n_classes=2,
            seed=0,
        )
        for codes in (x, x * 3 + 50)
    ]
    assert heads[0].chosen["C"] == heads[1].chosen["C"]
    np.testing.assert_allclose(heads[0].arrays["bias"], heads[1].arrays["bias"], atol=1e-3)


@pytest.mark.parametrize("method", ["softmax", "svm"])
def test_chosen_c_is_within_one_step_of_an_exact_search(method):
    from cnn_codes.heads.calibrate import fit_scale, log_losses
    from cnn_codes.heads.folds import cut_folds
    from cnn_codes.heads.trials import pick

    for seed in range(2):
        rng = np.random.default_rng(seed)
        x, y = load_digits(return_X_y=True)
        rows = rng.choice(len(y), 240, replace=False)
        x, y = x[rows] + rng.normal(0, 6, (240, 64)), y[rows].astype(np.int32)
        codes = x.astype(np.float32)[:, None]
        settings = HeadSettings(folds=4, jobs=1)
        head = fit_head(
            method, Examples(codes, y, np.arange(240)), None, settings, n_classes=10, seed=seed
        )
        folds, _ = cut_folds(
            y, np.arange(240), folds=4, seed=seed, class_names=[str(n) for n in range(10)]
        )
        tried = [one["C"] for one in candidates(axes_of(method, n_train=180, code_dim=64))]
        losses, hits = [], []
        for C in tried:
            scores = np.empty((240, 10))
            for train, held in folds:  # each fold standardised by its own training part
                mean, scale = moments(codes[train])
                design = Design(codes[train], "mean", mean, scale, dtype=np.float64)
                weight, bias, _ = fit_linear(method, design, y[train], None, C, n_classes=10)
                scores[held] = (codes[held, 0] - mean) / scale @ weight.T + bias
            losses.append(log_losses(scores, y, scale=fit_scale(scores, y)).mean())
            hits.append(scores.argmax(axis=1) == y)
        exact = tried[pick(losses, hits)]
        assert abs(np.log10(head.chosen["C"] / exact)) < 0.51, (seed, exact, head.chosen["C"])


def test_final_softmax_is_scikit_learns_to_six_digits():
    x, y = load_wine(return_X_y=True)
    codes = x.astype(np.float32)[:, None]
    mean, scale = moments(codes)
    design = Design(codes, "mean", mean, scale, dtype=np.float64)
    weight, bias, _ = fit_linear("softmax", design, y.astype(np.int32), None, 0.1, n_classes=3)
    reference = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, tol=1e-8, max_iter=9999))
    reference.fit(x, y)
    np.testing.assert_allclose(weight, reference[-1].coef_, atol=1e-5)
    np.testing.assert_allclose(bias, reference[-1].intercept_, atol=1e-5)


@pytest.mark.parametrize(("n", "d"), [(50, 20), (50, 300), (400, 1600), (1200, 1600)])
def test_basis_is_orthonormal_and_has_the_codes_variance(n, d):
    codes = np.random.default_rng(0).normal(size=(n, 1, d)).astype(np.float32)
    codes[:, :, 1] = 2 * codes[:, :, 0]
    mean, scale = moments(codes)
    design = Design(codes, "mean", mean, scale)
    basis = design.basis
    np.testing.assert_allclose(
        basis.vectors.T @ basis.vectors, np.eye(basis.vectors.shape[1]), atol=2e-4
    )
    outside = basis.rest * (d - len(basis.variance))
    assert basis.variance.sum() + outside == pytest.approx(d, rel=1e-2)
    assert basis.complete == (d <= 1536 or n <= 1024)


@pytest.mark.parametrize("method", LINEAR)
@pytest.mark.parametrize("way", ["mean", "all"])
def test_blocks_from_a_file_give_what_a_matrix_in_memory_gives(method, way, tmp_path, monkeypatch):
    import cnn_codes.heads.design as design_module

    rng = np.random.default_rng(0)
    y = (np.arange(600) % 3).astype(np.int32)
    codes = (rng.normal(size=(3, 40))[y][:, None] + rng.normal(size=(600, 2, 40))).astype(
        np.float16
    )
    np.save(tmp_path / "codes.npy", codes)
    mapped = np.load(tmp_path / "codes.npy", mmap_mode="r")
    settings = HeadSettings(folds=3, jobs=2, train_views=way)

    def fit(array):
        return fit_head(
            method, Examples(array, y, np.arange(600)), None, settings, n_classes=3, seed=0
        )

    whole = fit(codes)
    monkeypatch.setattr(design_module, "CACHED_BYTES", 0)
    monkeypatch.setattr(design_module, "BLOCK_BYTES", 4 * 40 * 64)
    blocks = fit(mapped)
    assert blocks.chosen["C"] == whole.chosen["C"]
    np.testing.assert_allclose(blocks.predict_proba(codes), whole.predict_proba(codes), atol=1e-3)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("views", [1, 3])
def test_moments_are_scikit_learns(dtype, views, monkeypatch):
    import cnn_codes.heads.design as design_module

    monkeypatch.setattr(design_module, "BLOCK_BYTES", 4 * 9 * 64)
    rng = np.random.default_rng(0)
    codes = (rng.normal(size=(500, views, 9)) * 3 + 100).astype(dtype)
    codes[:, :, 2] = 7.1
    for way in ("mean", "all"):
        x = codes.mean(axis=1, dtype=np.float64) if way == "mean" else codes.reshape(-1, 9)
        reference = StandardScaler().fit(x.astype(np.float32).astype(np.float64))
        mean, scale = moments(codes, way)
        np.testing.assert_allclose(mean, reference.mean_, rtol=1e-6)
        np.testing.assert_allclose(scale, reference.scale_, rtol=1e-5)
        assert scale[2] == 1


def test_memory_of_a_large_fit_is_bounded(monkeypatch):
    """Codes larger than what is kept as a copy: no further copy of them is made."""
    import tracemalloc

    import cnn_codes.heads.design as design_module

    monkeypatch.setattr(design_module, "CACHED_BYTES", 2**20)
    d, k, n = 256, 5, 60_000
    rng = np.random.default_rng(0)
    y = (np.arange(n) % k).astype(np.int32)
    codes = rng.standard_normal((n, 1, d), dtype=np.float32)
    codes[:, 0, :k] += 2 * np.eye(k, dtype=np.float32)[y]
    folds = [
        (np.flatnonzero(np.arange(n) % 2 != f), np.flatnonzero(np.arange(n) % 2 == f))
        for f in (0, 1)
    ]
    tracemalloc.start()
    with quiet_solvers():
        path = LinearPath(Problem("softmax", codes, y, codes, y, folds, k), jobs=2)
        path.solve(1e-3)
        assert (path.scores(1e-3).argmax(axis=1) == y[path._rows]).mean() > 0.7
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < codes.nbytes / 2
