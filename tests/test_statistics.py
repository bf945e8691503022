"""The tests of differences, held to scipy, scikit-learn, closed forms and simulation."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats as stats
from cnn_codes.compare.bootstrap import interval, resampled, resamples
from cnn_codes.compare.paired import (
    Discordance,
    _critical,
    difference_interval,
    discordance,
    holm,
    mcnemar,
    power,
    required_images,
)
from cnn_codes.compare.repeated import corrected_t, correlated_posterior, signed_rank
from cnn_codes.errors import ResultError
from cnn_codes.results.metrics import measure
from cnn_codes.results.predictions import Predictions
from hypothesis import given, settings
from hypothesis import strategies as st


@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemar_is_scipys_sign_test(a, b):
    expected = stats.binomtest(a, a + b).pvalue if a + b else 1.0
    assert mcnemar(a, b) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_has_its_published_value():
    # The approval ratings of Agresti 2002, 10.1, as R's exact2x2 documents them.
    assert mcnemar(86, 150) == pytest.approx(3.716e-5, rel=1e-3)
    assert mcnemar(0, 5) == 2 * 0.5**5  # five to none cannot be significant at 5 %
    assert mcnemar(0, 6) == 2 * 0.5**6


def test_mcnemar_errs_as_rarely_as_it_says():
    rng = np.random.default_rng(0)
    m = rng.binomial(300, 0.1, 4000)
    a = rng.binomial(m, 0.5)
    p = [mcnemar(int(x), int(n - x)) for x, n in zip(a, m, strict=True)]
    assert np.mean(np.array(p) <= 0.05) <= 0.055


def test_discordance_counts_what_only_one_called_rightly():
    a = np.array([1, 1, 0, 0, 1], bool)
    b = np.array([1, 0, 1, 0, 0], bool)
    found = discordance(a, b)
    assert (found.only_a, found.only_b, found.n) == (2, 1, 5)
    assert found.rate == 0.6
    assert found.difference == pytest.approx(a.mean() - b.mean())
    with pytest.raises(ResultError):
        discordance(a, b[:3])


def test_holm_has_its_known_values():
    # As R's p.adjust(c(...), "holm") has them.
    assert holm([0.01, 0.02, 0.03, 0.04]) == pytest.approx([0.04, 0.06, 0.06, 0.06])
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_keeps_the_order_and_lies_between_the_raw_and_bonferroni(p):
    adjusted = holm(p)
    assert all(
        one <= two + 1e-12 <= min(1.0, len(p) * one) + 2e-12
        for one, two in zip(p, adjusted, strict=True)
    )
    order = np.argsort(p, kind="stable")
    assert (np.diff(np.array(adjusted)[order]) >= 0).all()
    # Holm's procedure itself: step down, stop at the first that is not rejected.
    rejected = set()
    for rank, at in enumerate(order):
        if p[at] * (len(p) - rank) > 0.05:
            break
        rejected.add(int(at))
    assert {at for at, one in enumerate(adjusted) if one <= 0.05} == rejected


def test_difference_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(1)
    for n, both in ((60, (0.1, 0.04)), (400, (0.05, 0.04)), (1000, (0.02, 0.03))):
        cells = rng.multinomial(n, [*both, 1 - sum(both)], size=3000)
        inside = 0
        for a, b, _ in cells:
            low, high = difference_interval(Discordance(int(a), int(b), n))
            inside += low <= both[0] - both[1] <= high
        assert 0.93 <= inside / len(cells) <= 0.99


@pytest.mark.parametrize("alpha", [0.05, 0.01, 0.0005])
def test_critical_counts_are_those_of_a_plain_search(alpha):
    m = np.arange(0, 400)
    fits = [2 * stats.binom.cdf(np.arange(n // 2 + 1), n, 0.5) <= alpha for n in m]
    plain = [int(one.sum()) - 1 for one in fits]
    assert _critical(m, alpha).tolist() == plain


@pytest.mark.parametrize(
    ("n", "rate", "difference"), [(400, 0.05, 0.03), (1900, 0.023, 0.01), (150, 0.3, 0.1)]
)
def test_power_is_what_simulation_finds(n, rate, difference):
    rng = np.random.default_rng(2)
    m = rng.binomial(n, rate, 6000)
    a = rng.binomial(m, (rate + difference) / (2 * rate))
    found = np.mean([mcnemar(int(x), int(t - x)) <= 0.05 for x, t in zip(a, m, strict=True)])
    assert power(n, rate, difference) == pytest.approx(found, abs=0.02)


def test_required_images_reach_the_power_and_no_more_than_needed():
    for rate, difference in itertools.product((0.01, 0.03, 0.1, 0.4), (0.01, 0.02)):
        if rate < difference:
            continue
        n = required_images(rate, difference)
        assert power(n, rate, difference) >= 0.79
        assert power(int(0.85 * n), rate, difference) < 0.8
        # Connor 1987 approximates the test without its exactness: a little below.
        z = stats.norm.ppf(0.975), stats.norm.ppf(0.8)
        connor = (z[0] * math.sqrt(rate) + z[1] * math.sqrt(rate - difference**2)) ** 2
        assert 0.97 * connor / difference**2 <= n <= 1.35 * connor / difference**2


def test_required_images_grow_with_discordance_and_shrink_with_the_difference():
    by_rate = [required_images(rate) for rate in (0.0, 0.01, 0.02, 0.05, 0.2, 0.6, 1.0)]
    assert by_rate == sorted(by_rate)
    assert by_rate[0] == by_rate[1]  # they cannot differ on fewer images than the difference
    by_difference = [required_images(0.1, d) for d in (0.002, 0.01, 0.05, 0.1)]
    assert by_difference == sorted(by_difference, reverse=True)
    with pytest.raises(ResultError):
        required_images(0.1, 0.0)


def test_corrected_t_is_the_ordinary_one_where_nothing_overlaps():
    d = np.random.default_rng(3).normal(0.01, 0.02, 12)
    plain = stats.ttest_1samp(d, 0)
    found = corrected_t(d, n_train=10**9, n_test=1)
    assert found.t == pytest.approx(plain.statistic, rel=1e-6)
    assert found.p == pytest.approx(plain.pvalue, rel=1e-6)
    low, high = plain.confidence_interval(0.95)
    assert found.ci95 == pytest.approx((low, high), rel=1e-6)


def test_corrected_t_is_nadeau_and_bengios_formula():
    d = np.array([0.02, 0.01, 0.03, -0.01, 0.02])
    found = corrected_t(d, n_train=900, n_test=100)
    t = d.mean() / math.sqrt((1 / 5 + 100 / 900) * d.var(ddof=1))
    assert (found.t, found.df) == (pytest.approx(t), 4)
    assert found.p == pytest.approx(2 * stats.t.sf(abs(t), 4))
    same = corrected_t([0.0] * 5, n_train=9, n_test=1)
    assert (same.p, same.t) == (1.0, 0.0)
    assert corrected_t([0.1] * 5, n_train=9, n_test=1).p == 0.0
    with pytest.raises(ResultError):
        corrected_t([0.1], n_train=9, n_test=1)


def test_corrected_t_errs_less_over_overlapping_splits_than_the_ordinary_one():
    """Two classifiers of equal worth by construction, over random splits of one set."""
    rng = np.random.default_rng(4)
    plain, ours = 0, 0
    for _ in range(300):
        # Each classifier is a random half-plane fitted to the split: nearest means in noise.
        x, y = rng.normal(size=(80, 2)), rng.integers(0, 2, 80)
        d = []
        for _ in range(10):
            order = rng.permutation(80)
            train, test = order[:60], order[60:]
            right = [
                np.mean(
                    (
                        np.abs(x[test, k] - x[train][y[train] == 1, k].mean())
                        < np.abs(x[test, k] - x[train][y[train] == 0, k].mean())
                    )
                    == y[test]
                )
                for k in (0, 1)
            ]
            d.append(right[0] - right[1])
        plain += stats.ttest_1samp(d, 0).pvalue < 0.05
        ours += corrected_t(d, n_train=60, n_test=20).p < 0.05
    assert plain / 300 > 0.12  # what Dietterich warned of
    assert ours / 300 < 0.1


def test_correlated_posterior_is_the_t_test_seen_from_the_other_side():
    d = np.random.default_rng(5).normal(0.01, 0.02, 10)
    found = correlated_posterior(d, n_train=900, n_test=100, rope=0.0)
    t_test = corrected_t(d, n_train=900, n_test=100)
    assert found.worse == pytest.approx(t_test.p / 2)
    assert found.equal == pytest.approx(0, abs=1e-12)
    wide = correlated_posterior(d, n_train=900, n_test=100, rope=1.0)
    assert wide.equal == pytest.approx(1, abs=1e-6)
    flat = correlated_posterior([0.0] * 4, n_train=9, n_test=1, rope=0.01)
    assert (flat.worse, flat.equal, flat.better) == (0, 1, 0)


@pytest.mark.parametrize("prior", [0.5, 1.0])
def test_signed_rank_has_its_closed_form_for_one_difference(prior):
    # One difference beyond the region: the region holds w0^2, w0 ~ Beta(prior, 1), and the right
    # side the rest, or, where (0 + z) / 2 is inside, (1 - w0)^2.
    far = signed_rank([0.5], rope=0.01, prior=prior)
    assert far.better == pytest.approx(0.5 ** (prior / 2), abs=0.01)
    near = signed_rank([0.015], rope=0.01, prior=prior)
    assert near.better == pytest.approx((1 - math.sqrt(0.5)) ** prior, abs=0.01)
    assert far.worse == near.worse == 0


def test_signed_rank_mirrors_and_adds_up():
    d = np.random.default_rng(6).normal(0.01, 0.02, 15)
    one, other = signed_rank(d, rope=0.01), signed_rank(-d, rope=0.01)
    assert one.better == pytest.approx(other.worse, abs=0.01)
    assert one.worse + one.equal + one.better == pytest.approx(1)
    assert signed_rank(d, rope=1.0).equal == 1.0
    assert signed_rank(d, rope=0.0).equal == 0.0


def test_signed_rank_agrees_with_wilcoxons_p_without_a_region():
    # Without a region and prior the posterior probability of 'worse' is close to the one-sided p.
    for seed in range(5):
        d = np.random.default_rng(seed).normal(0.01, 0.02, 30)
        p = stats.wilcoxon(d, alternative="greater").pvalue
        assert signed_rank(d, rope=0.0, prior=1e-6).worse == pytest.approx(p, abs=0.05)


def predictions(k, n=120, seed=0, ties=False):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, k, n).astype(np.int32)
    p = rng.dirichlet(np.ones(k), n) + 0.6 * (labels[:, None] == np.arange(k))
    p /= p.sum(axis=1, keepdims=True)
    if ties:
        p = np.round(p, 1)
        p /= p.sum(axis=1, keepdims=True)
    return Predictions(tuple(map(str, range(n))), labels, p, tuple(f"c{i}" for i in range(k)))


@settings(max_examples=20, deadline=None)
@given(st.sampled_from([2, 3, 7]), st.booleans(), st.integers(0, 99))
def test_resampled_figures_are_those_of_the_repeated_images(k, ties, seed):
    found = predictions(k, seed=seed, ties=ties)
    counts = resamples(len(found.labels), seed=seed)[:5]
    assert (counts.sum(axis=1) == len(found.labels)).all()
    ours = resampled(found, counts)
    for b, row in enumerate(counts):
        again = np.repeat(np.arange(len(row)), row)
        plain = measure(found.labels[again], found.probabilities[again])
        for name, values in ours.items():
            assert values[b] == pytest.approx(plain[name], abs=1e-12)


def test_bootstrap_interval_of_accuracy_is_about_wilsons():
    found = predictions(3, n=600)
    low, high = interval(resampled(found, resamples(600))["accuracy"])
    assert (low, high) == pytest.approx(
        measure(found.labels, found.probabilities)["accuracy_ci95"], abs=0.01
    )
    assert interval(np.array([math.nan])) is None
