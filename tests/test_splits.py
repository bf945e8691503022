"""Splits: stratified, by bytes and seed alone, duplicates together."""

import hashlib

import numpy as np
import pytest
from cnn_codes.datasets.split_words import TEST, TRAIN, VAL
from cnn_codes.datasets.splits import cut, cut_val, resplit, uncut
from cnn_codes.errors import DataError
from hypothesis import given, settings
from hypothesis import strategies as st

FRACTIONS = (0.60, 0.15, 0.25)


def digests(n: int, *, first: int = 0) -> np.ndarray:
    return np.array(
        [hashlib.sha256(b"%d" % (first + i)).hexdigest() for i in range(n)], dtype="S64"
    )


@st.composite
def labelled(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int]:
    sizes = draw(st.lists(st.integers(3, 60), min_size=2, max_size=6))
    labels = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
    return labels, digests(len(labels), first=draw(st.integers(0, 10**6))), draw(st.integers(0, 99))


@given(labelled())
@settings(max_examples=60, deadline=None)
def test_every_class_and_the_whole_have_their_share_but_for_rounding(case):
    labels, groups, seed = case
    split = cut(labels, groups, FRACTIONS, seed)
    for side, share in ((VAL, 0.15), (TEST, 0.25)):
        for one in np.unique(labels):
            n = np.sum(labels == one)
            got = np.sum((labels == one) & (split == side))
            assert got >= 1
            assert abs(got - share * n) < 1 or got == 1
        if np.bincount(labels).min() >= 14:  # no class had to be given its one image
            assert abs(np.sum(split == side) - share * len(labels)) <= 0.5 + 1e-9


@given(labelled(), st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_permuted_rows_get_the_permuted_split(case, order_seed):
    labels, groups, seed = case
    groups = groups.copy()
    groups[1::7] = groups[0::7][: len(groups[1::7])]  # some duplicates
    order = np.random.default_rng(order_seed).permutation(len(labels))
    try:
        split = cut(labels, groups, FRACTIONS, seed)
    except DataError:
        with pytest.raises(DataError):
            cut(labels[order], groups[order], FRACTIONS, seed)
        return
    np.testing.assert_array_equal(cut(labels[order], groups[order], FRACTIONS, seed), split[order])


@given(labelled(), st.integers(2, 4))
@settings(max_examples=40, deadline=None)
def test_byte_identical_images_stay_on_one_side(case, copies):
    labels, groups, seed = case
    labels, groups = np.tile(labels, copies), np.tile(groups, copies)
    split = cut(labels, groups, FRACTIONS, seed)
    for one in np.unique(groups):
        assert len(set(split[groups == one].tolist())) == 1
    assert set(split.tolist()) == {TRAIN, VAL, TEST}


def test_copies_with_contradicting_labels_stay_on_one_side():
    labels = np.array([0] * 20 + [1] * 20, dtype=np.int32)
    groups = digests(40)
    groups[20:25] = groups[0:5]
    for seed in range(20):
        split = cut(labels, groups, FRACTIONS, seed)
        np.testing.assert_array_equal(split[20:25], split[0:5])


def test_a_large_group_in_a_tiny_class_empties_no_side():
    labels = np.repeat(np.arange(2, dtype=np.int32), [12, 30])
    groups = np.concatenate([digests(3)[[0] * 10 + [1, 2]], digests(30, first=100)])
    for seed in range(20):
        assert set(cut(labels, groups, FRACTIONS, seed)[:12].tolist()) == {TRAIN, VAL, TEST}


def test_strata_keep_their_shares_within_a_class():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 4000).astype(np.int32)
    strata = rng.integers(0, 5, 4000).astype(np.int32)
    split = cut(labels, digests(4000), (0.75, 0.0, 0.25), 3, strata=strata)
    for label in range(2):
        for stratum in range(5):
            here = (labels == label) & (strata == stratum)
            assert abs(np.sum(split[here] == TEST) - 0.25 * here.sum()) < 1.5
    assert abs(np.sum(split == TEST) - 1000) <= 1
    assert not np.any(split == VAL)


def test_seeds_differ_and_one_seed_repeats():
    labels, groups = np.repeat(np.arange(2, dtype=np.int32), 100), digests(200)
    splits = [cut(labels, groups, FRACTIONS, seed) for seed in range(20)]
    assert len({split.tobytes() for split in splits}) == 20
    np.testing.assert_array_equal(cut(labels, groups, FRACTIONS, 7), splits[7])
    often = np.mean([split == TEST for split in splits], axis=0)
    assert often.max() < 0.8, "some image is nearly always in test: the draw is not random"


def test_each_image_is_drawn_equally_often():
    labels, groups = np.zeros(40, dtype=np.int32), digests(40)
    n_test = sum(resplit(labels, groups, 0.25, seed) == TEST for seed in range(2000))
    assert abs(n_test - 500).max() < 5 * np.sqrt(2000 * 0.25 * 0.75)


def test_a_few_new_images_leave_the_others_where_they_were():
    labels, groups = np.repeat(np.arange(4, dtype=np.int32), 500), digests(2000)
    before = cut(labels, groups, FRACTIONS, 0)
    more = np.concatenate([labels, np.array([0, 1, 2], dtype=np.int32)])
    after = cut(more, np.concatenate([groups, digests(3, first=5000)]), FRACTIONS, 0)[:2000]
    assert np.sum(before != after) <= 16


def test_val_cut_later_equals_val_cut_at_once():
    labels, groups = np.repeat(np.arange(2, dtype=np.int32), 400), digests(800)
    later = cut_val(labels, cut(labels, groups, (0.75, 0, 0.25), 5), groups, 5, fraction=0.2)
    np.testing.assert_array_equal(later, cut(labels, groups, FRACTIONS, 5))


def test_cut_val_takes_from_train_only_and_leaves_a_given_val():
    labels, groups = np.repeat(np.arange(2, dtype=np.int32), 50), digests(100)
    split = np.where(np.arange(100) % 4 == 0, TEST, TRAIN).astype(np.int8)
    result = cut_val(labels, split, groups, 0)
    np.testing.assert_array_equal(result == TEST, split == TEST)
    assert np.sum(result == VAL) == 15
    np.testing.assert_array_equal(cut_val(labels, result, groups, 1), result)


def test_the_smallest_class_that_can_be_split_is_and_the_next_smaller_is_named():
    groups = digests(23)
    labels = np.array([0] * 20 + [1] * 3, dtype=np.int32)
    split = cut(labels, groups, FRACTIONS, 0)
    assert sorted(split[20:].tolist()) == [TRAIN, VAL, TEST]
    with pytest.raises(DataError, match=r"bees \(2\)") as caught:
        cut(labels[:22], groups[:22], FRACTIONS, 0, class_names=("ants", "bees"))
    assert "at least 3" in caught.value.expected


def test_many_copies_of_two_images_are_too_few_different_ones():
    labels = np.array([0] * 20 + [1] * 20, dtype=np.int32)
    groups = digests(40)
    groups[20:] = np.repeat(groups[20:22], 10)
    with pytest.raises(DataError, match="Too few different images"):
        cut(labels, groups, FRACTIONS, 0)


@pytest.mark.parametrize("fractions", [(0.5, 0.2, 0.2), (0.0, 0.5, 0.5), (1.2, -0.2, 0.0)])
def test_impossible_fractions_are_refused(fractions):
    with pytest.raises(ValueError, match="sum to 1"):
        cut(np.zeros(9, dtype=np.int32), digests(9), fractions, 0)


def test_a_class_that_cannot_be_cut_stays_in_train_and_the_others_are_cut():
    labels = np.repeat(np.arange(4, dtype=np.int32), 6)
    groups = digests(24)
    groups[18:] = groups[18]  # six equal images
    split = cut(labels, groups, FRACTIONS, 0)
    assert (split[18:] == TRAIN).all()
    for one in range(3):
        assert set(split[labels == one].tolist()) == {TRAIN, VAL, TEST}
    assert uncut(labels, groups, 3).tolist() == [3]
    groups[12:18] = groups[12]  # half of the classes: such a set is refused
    with pytest.raises(DataError, match="Too few different images"):
        cut(labels, groups, FRACTIONS, 0)
