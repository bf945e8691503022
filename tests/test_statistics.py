"""The tests of differences, held to scipy, scikit-learn, closed forms and simulation."""

import itertools
import math
from unittest import mock

import numpy as np
import pytest
import scipy.stats as stats
from cnn_codes.compare.flips import flip_interval, group_sums, sign_flip
from cnn_codes.compare.judge import judge_pairs
from cnn_codes.compare.marks import mark
from cnn_codes.compare.paired import (
    Discordance,
    _critical,
    difference_interval,
    discordance,
    holm,
    holm_levels,
    mcnemar,
    power,
    rate_limit,
    required_images,
    split_variance,
)
from cnn_codes.compare.repeated import corrected_t, correlated_posterior, signed_rank
from cnn_codes.compare.seeds import rescaled_seeds, seeded_difference
from cnn_codes.compare.splits import judge_splits, least_variances
from cnn_codes.errors import ResultError
from cnn_codes.results import resampling
from cnn_codes.results.bootstrap import figure_intervals, interval, simultaneous
from cnn_codes.results.metrics import measure
from cnn_codes.results.predictions import Predictions
from cnn_codes.results.resampling import FIGURES, resampled, resamples
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint


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


def test_discordance_counts_what_only_one_classified_correctly():
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
    found = corrected_t(d, n_train=10**12, n_test=10**4)
    assert not found.floored
    assert found.t == pytest.approx(plain.statistic, rel=1e-6)
    assert found.p == pytest.approx(plain.pvalue, rel=1e-6)
    low, high = plain.confidence_interval(0.95)
    assert found.ci95 == pytest.approx((low, high), rel=1e-6)


def test_corrected_t_is_nadeau_and_bengios_formula():
    d = np.array([0.02, 0.01, 0.03, -0.01, 0.02])
    found = corrected_t(d, n_train=900, n_test=100, least_variance=1e-6)
    t = d.mean() / math.sqrt((1 / 5 + 100 / 900) * d.var(ddof=1))
    assert (found.t, found.df) == (pytest.approx(t), 4)
    assert found.p == pytest.approx(2 * stats.t.sf(abs(t), 4))
    same = corrected_t([0.0] * 5, n_train=900, n_test=100)
    assert (same.p, same.t) == (1.0, 0.0)


def test_equal_differences_do_not_make_a_difference_certain():
    # One image of 100 on each of three splits: once t was infinite and p was 0.
    found = corrected_t([0.01] * 3, n_train=300, n_test=100)
    assert found.floored
    assert math.isfinite(found.t)
    assert found.p > 0.2
    assert found.ci95[0] < 0 < found.ci95[1]
    posterior = correlated_posterior([0.01] * 3, n_train=300, n_test=100, rope=0.005)
    assert 0.01 < posterior.worse < posterior.better < 0.99
    # The floor is the McNemar variance of a split; more disagreement, a higher floor.
    more = split_variance(Discordance(20, 19, 100))
    wide = corrected_t([0.01] * 3, n_train=300, n_test=100, least_variance=more)
    assert wide.error == pytest.approx(math.sqrt((1 / 3 + 1 / 3) * more))
    assert wide.p > found.p


@pytest.mark.parametrize("n_splits", [1, 2])
def test_fewer_than_three_splits_are_not_tested(n_splits):
    with pytest.raises(ResultError, match="Differences of shape"):
        corrected_t([0.1] * n_splits, n_train=9, n_test=1)
    values = [[0.9] * n_splits, [0.8] * n_splits]
    (pair,) = judge_splits(values, n_train=300, n_test=100, rope=0.01)
    assert pair["test"] == "none"
    assert pair["p"] is pair["p_holm"] is pair["ci95"] is pair["posterior"] is None
    assert pair["difference"] == pytest.approx(0.1)
    entries = [{"accuracy": 0.9, "log_loss": 1.0}, {"accuracy": 0.8, "log_loss": 1.0}]
    mark(entries, [pair])
    assert entries[0]["best"]
    assert not entries[1]["alike"]  # nothing was tested, so nothing is called equal


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
    flat = correlated_posterior([0.0] * 4, n_train=9000, n_test=1000, rope=0.01)
    assert flat.equal > 0.99
    assert flat.worse == pytest.approx(flat.better)


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
    ours = resampled(found.labels, found.probabilities, counts)
    for b, row in enumerate(counts):
        again = np.repeat(np.arange(len(row)), row)
        plain = measure(found.labels[again], found.probabilities[again])
        for name in set(FIGURES) & plain.keys():
            assert ours[name][b] == pytest.approx(plain[name], abs=1e-12)
        true, p = found.labels[again], found.probabilities[again]
        columns = [1] if k == 2 else [c for c in range(k) if (true == c).any()]
        precision = np.mean([average_precision_score(true == c, p[:, c]) for c in columns])
        assert ours["average_precision"][b] == pytest.approx(precision, abs=1e-12)


@pytest.mark.parametrize(("n", "k"), [(40, 5), (90, 30)])
def test_areas_of_many_classes_are_those_of_each_class_by_itself(n, k, monkeypatch):
    rng = np.random.default_rng(n)
    y, p = rng.integers(0, k, n), rng.random((n, k)).round(1) + 0.05  # many equal scores
    p /= p.sum(axis=1, keepdims=True)
    counts = resamples(n, n_classes=k)[:50]
    found = resampled(y, p, counts)
    monkeypatch.setattr(resampling, "BLOCK_CELLS", 7 * n)
    blocks = resampled(y, p, counts)
    monkeypatch.setattr(resampling, "FEW_PER_CLASS", 0)
    each = resampled(y, p, counts)
    for key in found:
        np.testing.assert_allclose(found[key], each[key], rtol=1e-12)
        np.testing.assert_allclose(blocks[key], each[key], rtol=1e-12)


def test_bootstrap_interval_of_accuracy_is_about_wilsons():
    found = predictions(3, n=600)
    values = resampled(found.labels, found.probabilities, resamples(600))["accuracy"]
    low, high = interval("accuracy", values, n_units=600)
    assert (low, high) == pytest.approx(
        measure(found.labels, found.probabilities)["accuracy_ci95"], abs=0.01
    )
    assert interval("accuracy", np.array([math.nan]), n_units=600) is None
    assert interval("accuracy", np.array([0.5, 0.6]), n_units=1) is None


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_that_of_statsmodels(a, b):
    if a + b:
        theirs = statsmodels_mcnemar([[5, a], [b, 5]], exact=True).pvalue
        assert mcnemar(a, b) == pytest.approx(theirs, rel=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_levels_decide_as_the_adjusted_p_do(p):
    levels = holm_levels(p)
    with mock.patch("gc.collect"):  # which statsmodels calls each time, for a second here
        rejected = multipletests(p, 0.05, "holm")[0].tolist()
    assert [one <= level for one, level in zip(p, levels, strict=True)] == rejected
    assert min(levels) >= 0.05 / len(p) - 1e-15
    assert max(levels) <= 0.05


@given(st.integers(0, 50), st.integers(0, 50), st.integers(1, 300))
def test_the_limit_of_the_rate_is_clopper_and_pearsons(a, b, rest):
    n = a + b + rest
    theirs = proportion_confint(a + b, n, alpha=0.1, method="beta")[1]
    assert rate_limit(Discordance(a, b, n)) == pytest.approx(theirs, rel=1e-9)
    assert rate_limit(Discordance(a, b + rest, n)) <= 1.0


def test_four_discordant_images_do_not_promise_a_small_test_set():
    # A rate read off 4 of 400 images gave 1,000 images; its upper limit is 2.3 %.
    found = Discordance(3, 1, 400)
    assert required_images(rate_limit(found), alpha=0.05 / 21) > 2.5 * required_images(found.rate)


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=11), st.integers(1, 5))
def test_sign_flip_is_the_enumeration_of_all_signs(d, scale):
    d = np.array(d)
    signs = np.array(list(itertools.product((-1, 1), repeat=len(d))))
    expected = np.mean(np.abs(signs @ d) >= abs(d.sum()))
    assert sign_flip(d) == pytest.approx(expected, abs=1e-12)
    assert sign_flip(d * scale / 7.0) == pytest.approx(expected, abs=1e-12)  # real-valued


def test_sign_flip_is_scipys_permutation_test():
    rng = np.random.default_rng(0)
    for d in (rng.normal(0.3, 1, 12), rng.normal(0.3, 1, 60), rng.integers(-5, 9, 60)):
        theirs = stats.permutation_test(
            (d,), np.sum, permutation_type="samples", n_resamples=19_999, rng=1
        )
        error = 4 * math.sqrt(theirs.pvalue * (1 - theirs.pvalue) / 19_999) + 1e-4
        assert sign_flip(d) == pytest.approx(theirs.pvalue, abs=2 * error)


@given(st.integers(0, 40), st.integers(0, 40))
def test_sign_flip_of_groups_of_one_image_is_mcnemar(a, b):
    d = np.repeat([1, -1, 0], [a, b, 5])
    assert sign_flip(d) == pytest.approx(mcnemar(a, b), rel=1e-9)
    sums, sizes = group_sums(d, np.arange(len(d)))
    assert sign_flip(sums) == sign_flip(group_sums(d, None)[0])
    assert (sizes == 1).all()


def test_too_few_groups_exclude_nothing():
    assert sign_flip(np.full(5, 7)) > 0.05
    assert flip_interval(np.full(5, 7), np.full(5, 10)) == (-1.0, 1.0)
    low, high = flip_interval(np.full(8, 7), np.full(8, 10))
    assert (low, high) == (0.7, 0.7)
    with pytest.raises(ResultError, match="one group per image"):
        group_sums(np.ones(3), np.ones(4))


def _grouped_hits(rng, n_groups, sizes=(1, 30), spread=1.2):
    """Two methods that are equally good, whose errors vary by group: hits and group ids."""
    each = rng.integers(*sizes, n_groups)
    groups = np.repeat(np.arange(n_groups), each)
    ease = 1.2 + rng.normal(0, spread, n_groups)  # what is hard about a group, for both
    own = rng.normal(0, 0.8, (2, n_groups))  # and for one of them
    chance = 1 / (1 + np.exp(-(ease + own)))[:, groups]
    return rng.random((2, len(groups))) < chance, groups


def _sizes_of_the_tests(n_groups, repeats, *, cover=False):
    rng = np.random.default_rng(n_groups)
    ours, naive, covered = 0, 0, 0
    for _ in range(repeats):
        hits, groups = _grouped_hits(rng, n_groups)
        sums, sizes = group_sums(hits[0].astype(int) - hits[1], groups)
        ours += sign_flip(sums) <= 0.05
        split = discordance(*hits)
        naive += mcnemar(split.only_a, split.only_b) <= 0.05
        if cover:
            low, high = flip_interval(sums, sizes)
            covered += low <= 0 <= high
    return ours / repeats, naive / repeats, covered / repeats


@pytest.mark.parametrize("n_groups", [20, 50, 200])
def test_sign_flip_over_groups_errs_as_rarely_as_it_says(n_groups):
    ours, naive, _ = _sizes_of_the_tests(n_groups, 200)
    assert ours <= stats.binom.ppf(0.999, 200, 0.05) / 200
    assert naive > 0.1  # what ignoring the groups does


@pytest.mark.slow
@pytest.mark.parametrize("n_groups", [20, 50, 200])
def test_sign_flip_over_groups_has_size_five_percent(n_groups):
    ours, _, covered = _sizes_of_the_tests(n_groups, 2000, cover=True)
    assert ours <= stats.binom.ppf(0.99, 2000, 0.05) / 2000
    assert covered >= 1 - stats.binom.ppf(0.99, 2000, 0.05) / 2000


def test_the_sign_flip_test_has_power_where_the_difference_is_real():
    rng = np.random.default_rng(5)
    found = []
    for _ in range(100):
        hits, groups = _grouped_hits(rng, 100)
        better = hits[0] | (rng.random(len(groups)) < 0.3)
        found.append(sign_flip(group_sums(better.astype(int) - hits[1], groups)[0]) <= 0.05)
    assert np.mean(found) > 0.8


def test_groups_are_resampled_as_one():
    groups = np.random.default_rng(0).integers(0, 9, 50)
    counts = resamples(50, groups=groups)
    for group in range(9):
        assert (np.ptp(counts[:, groups == group], axis=1) == 0).all()
    assert len(np.unique(counts.sum(axis=1))) > 1
    single = resamples(50, groups=np.arange(50))
    assert np.array_equal(single, resamples(50))


@pytest.mark.parametrize("n_groups", [20, pytest.param(60, marks=pytest.mark.slow)])
def test_group_intervals_cover_as_often_as_they_say(n_groups):
    rng = np.random.default_rng(n_groups)
    inside, plain, repeats = dict.fromkeys(FIGURES, 0), 0, 2 * n_groups
    y, p, _ = _scored(rng, 6000)
    truth = {key: v[0] for key, v in resampled(y, p, np.ones((1, len(y)), np.int32)).items()}
    for _ in range(repeats):
        y, p, groups = _scored(rng, n_groups)
        found = figure_intervals(y, p, groups=groups)
        for name, ends in found.items():
            inside[name] += ends is not None and ends[0] <= truth[name] <= ends[1]
        low, high = measure(y, p)["accuracy_ci95"]
        plain += low <= truth["accuracy"] <= high
    worst = stats.binom.ppf(0.001, repeats, 0.9) / repeats
    assert min(inside.values()) / repeats >= worst, inside
    assert plain / repeats < 0.85  # Wilson's interval takes the images as independent


def _scored(rng, n_groups):
    """Labels, probabilities and groups of two classes; scores share an error within a group."""
    each = rng.integers(1, 25, n_groups)
    groups = np.repeat(np.arange(n_groups), each)
    y = np.repeat(rng.integers(0, 2, n_groups), each)
    y = np.where(rng.random(len(y)) < 0.3, 1 - y, y)
    score = 2.2 * (y - 0.5) + rng.normal(0, 1.2, n_groups)[groups] + rng.normal(0, 1, len(y))
    p = 1 / (1 + np.exp(-score))
    return y, np.stack([1 - p, p], axis=1), groups


def test_an_interval_that_says_nothing_is_not_given():
    y = np.repeat([0, 1], 20)
    p = np.stack([1.0 - y, y], axis=1) * 0.9 + 0.05
    found = figure_intervals(y, p)
    assert found["auroc"] is None  # 1 in every resample
    low, high = found["accuracy"]
    assert low < 0.95
    assert high == 1.0
    assert figure_intervals(y, p, groups=np.zeros(40))["accuracy"] == (0.0, 1.0)


def test_simultaneous_intervals_hold_together():
    rng = np.random.default_rng(8)
    together, alone, repeats = 0, 0, 300
    for _ in range(repeats):
        x = rng.normal(size=(80, 12))
        means = x.mean(axis=0)
        weights = rng.multinomial(80, np.full(80, 1 / 80), 400) / 80
        drawn = weights @ x
        found = simultaneous(
            {str(k): means[k] for k in range(12)},
            {str(k): drawn[:, k] for k in range(12)},
            n_units=80,
        )
        together += all(low <= 0 <= high for low, high in found.values())
        low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
        alone += bool(np.all((low <= 0) & (high >= 0)))
    assert together / repeats >= 0.91
    assert alone / repeats < 0.75
    nothing = simultaneous({"a": math.nan}, {"a": np.array([math.nan, 1.0])}, n_units=9)
    assert nothing == {"a": None}


def _seeds(rng, n=300, n_seeds=3, wobble=0.35):
    """Hits of one head and of a training whose seeds differ, equally good on average."""
    ease = rng.normal(1.2, 1.5, n)
    head = rng.random((1, n)) < 1 / (1 + np.exp(-(ease + rng.normal(0, 0.7, n))))
    shift = rng.normal(0, wobble, n_seeds)[:, None]
    noise = rng.normal(0, 0.7, (n_seeds, n))
    return head, rng.random((n_seeds, n)) < 1 / (1 + np.exp(-(ease + shift + noise)))


def _size_over_seeds(repeats, n):
    rng = np.random.default_rng(n)
    ours, one_seed, counts = 0, 0, resamples(n)[:400]
    for _ in range(repeats):
        head, trained = _seeds(rng, n)
        ours += seeded_difference(head, trained, counts).p <= 0.05
        split = discordance(head[0], trained[0])
        one_seed += mcnemar(split.only_a, split.only_b) <= 0.05
    return ours / repeats, one_seed / repeats


def test_a_test_over_seeds_errs_less_than_one_on_one_seed():
    ours, one_seed = _size_over_seeds(100, 600)
    assert ours <= stats.binom.ppf(0.999, 100, 0.05) / 100
    assert one_seed > ours


@pytest.mark.slow
def test_the_test_over_seeds_has_size_five_percent():
    for n in (100, 600, 2000):
        ours, one_seed = _size_over_seeds(1000, n)
        assert ours <= stats.binom.ppf(0.99, 1000, 0.05) / 1000
        assert one_seed > 0.07


def test_the_seeds_share_of_the_variance_is_theirs():
    rng = np.random.default_rng(0)
    head, _ = _seeds(rng)
    same = np.repeat(head, 3, axis=0)
    counts = resamples(300)
    equal = seeded_difference(head, same, counts)
    assert (equal.difference, equal.p, equal.seed_share) == (0, 1, 0)
    shares = []
    for wobble in (0.01, 1.0):
        _, trained = _seeds(np.random.default_rng(1), wobble=wobble)
        shares.append(seeded_difference(head, trained, counts).seed_share)
    assert shares[0] < 0.3 < shares[1]
    # The variance of a mean over seeds, as the formula has it.
    found = rescaled_seeds(3, 200_000)
    assert found.sum(axis=1) == pytest.approx(np.ones(200_000))
    x = np.array([0.1, 0.5, 0.3])
    assert (found @ x).var() == pytest.approx(x.var(ddof=1) / 3, rel=0.02)
    with pytest.raises(ResultError, match="seeds, images"):
        seeded_difference(head, trained[:, :5], counts)


def test_three_discordant_images_are_not_significant_over_seeds_either():
    head = np.ones((1, 400), bool)
    trained = np.ones((3, 400), bool)
    trained[:, :3] = False
    assert seeded_difference(head, trained, resamples(400)).p >= 0.25


def test_pairs_are_tested_by_what_their_data_call_for():
    one, two = predictions(3, n=200, seed=1), predictions(3, n=200, seed=2)
    two = Predictions(one.paths, one.labels, two.probabilities, one.class_names)
    (pair,) = judge_pairs([[one], [two]])
    hits = one.predicted == one.labels, two.predicted == two.labels
    split = discordance(*hits)
    assert pair["test"] == "mcnemar"
    assert pair["p"] == pair["p_holm"] == mcnemar(split.only_a, split.only_b)
    assert (pair["alpha"], pair["seed_share"], pair["n_groups"]) == (0.05, None, None)
    low, high = difference_interval(split, level=0.9)
    assert pair["at_most"] == {"a": max(0.0, -low), "b": max(0.0, high)}
    groups = np.arange(200) // 8
    (grouped,) = judge_pairs([[one], [two]], groups=groups)
    assert grouped["test"] == "sign_flip"
    assert grouped["n_groups"] == 25
    assert grouped["ci95"][0] <= pair["ci95"][0]
    assert grouped["ci95"][1] >= pair["ci95"][1]
    three = [
        Predictions(one.paths, one.labels, predictions(3, n=200, seed=s).probabilities,
                    one.class_names)
        for s in (2, 3, 4)
    ]  # fmt: skip
    (seeded,) = judge_pairs([[one], three])
    assert seeded["test"] == "seeds"
    assert seeded["n_seeds"] == [1, 3]
    assert 0 <= seeded["seed_share"] <= 1
    several = judge_pairs([[one], [two], three])
    assert len(several) == 3
    assert all(p["p_holm"] >= p["p"] for p in several)
    assert all(p["alpha"] in (0.05 / 3, 0.05 / 2, 0.05) for p in several)


def test_least_variances_are_those_of_the_splits():
    one = [predictions(3, n=100, seed=s) for s in (1, 2, 3)]
    other = [
        Predictions(a.paths, a.labels, predictions(3, n=100, seed=9 + s).probabilities,
                    a.class_names)
        for s, a in enumerate(one)
    ]  # fmt: skip
    expected = [
        split_variance(discordance(a.predicted == a.labels, b.predicted == b.labels))
        for a, b in zip(one, other, strict=True)
    ]
    assert least_variances([one, other]) == {(0, 1): pytest.approx(np.mean(expected))}
