import numpy as np
import pytest
from cnn_codes.advise.transfer import log_me
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.stats import multivariate_normal


def clouds(
    n: int, d: int, *, apart: float, k: int = 3, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    random = np.random.default_rng(seed)
    labels = np.arange(n) % k
    means = random.normal(size=(k, d)) * apart
    return means[labels] + random.normal(size=(n, d)), labels


def plain_evidence(f: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Largest log evidence by the marginal's covariance, written out, and a general optimiser."""

    def minus(log: NDArray[np.float64]) -> float:
        alpha, beta = np.exp(log)
        covariance = np.eye(len(f)) / beta + f @ f.T / alpha
        return -float(multivariate_normal(np.zeros(len(f)), covariance).logpdf(y))

    starts = [(0.0, 0.0), (4.0, 2.0), (8.0, 1.0), (2.0, 5.0)]
    return max(-minimize(minus, start, method="Nelder-Mead").fun for start in starts)


@pytest.mark.parametrize(("n", "d"), [(60, 5), (25, 40)])
def test_log_me_is_the_largest_evidence_of_the_linear_model(n: int, d: int) -> None:
    codes, labels = clouds(n, d, apart=0.6)
    rest = np.linalg.svd(np.ones((1, n)))[2][1:]  # (N - 1, N): orthogonal to a constant
    f, columns = rest @ codes, [rest @ (labels == k) for k in range(3)]
    expected = np.mean([plain_evidence(f, y) / n for y in columns])
    assert log_me(codes, labels) == pytest.approx(expected, abs=2e-4)


def test_log_me_prefers_few_useful_numbers_to_many_useless_ones() -> None:
    codes, labels = clouds(80, 8, apart=1.0)
    noise = np.random.default_rng(1).normal(size=(80, 300)) * 5
    assert log_me(codes, labels) > log_me(np.hstack([codes, noise]), labels)


def test_log_me_of_codes_without_content_is_finite() -> None:
    labels = np.arange(20) % 2
    assert np.isfinite(log_me(np.zeros((20, 4)), labels))
    assert np.isfinite(log_me(labels[:, None].astype(float), labels))  # reached exactly


def test_scores_rise_with_the_distance_of_the_classes() -> None:
    near, labels = clouds(120, 20, apart=0.2)
    far, _ = clouds(120, 20, apart=2.0)
    assert log_me(far, labels) > log_me(near, labels)


def test_scores_do_not_depend_on_the_names_of_the_classes() -> None:
    codes, labels = clouds(60, 10, apart=1.0)
    other = np.array([2, 0, 1])[labels]
    assert log_me(codes, other) == pytest.approx(log_me(codes, labels))
