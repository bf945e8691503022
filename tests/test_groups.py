"""Groups: from columns, paths, folders and equal bytes; on one side of every cut."""

import csv
import hashlib
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from cnn_codes.cli import main
from cnn_codes.compare import words
from cnn_codes.compare.flips import accuracy_difference, flip_interval, group_sums, sign_flip
from cnn_codes.compare.seeds import seeded_accuracy
from cnn_codes.compare.side_by_side import side_by_side
from cnn_codes.datasets import Manifest, load_manifest
from cnn_codes.datasets.groups import joined
from cnn_codes.datasets.split_words import TEST, TRAIN, VAL
from cnn_codes.datasets.splits import cut, cut_val, resplit
from cnn_codes.errors import DataError, HeadError, SettingsError
from cnn_codes.heads.folds import cut_folds
from cnn_codes.results import resampling
from cnn_codes.results.bootstrap import accuracy_interval, figure_intervals
from cnn_codes.results.measures import measure_named
from cnn_codes.results.metrics import wilson_interval
from cnn_codes.results.predictions import read_predictions
from cnn_codes.results.resampling import resamples
from cnn_codes.runs import list_runs
from cnn_codes.settings import DataSettings, PlaceSettings
from conftest import needs_elpv
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pictures import jpeg

SHARED = Path(__file__).parents[1].parent / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason=f"{SHARED} is not there")


@pytest.fixture
def places(tmp_path) -> PlaceSettings:
    return PlaceSettings(data_root=str(tmp_path / "data"), cache=str(tmp_path / "cache"))


def put(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def load(data, places, **further) -> Manifest:
    return load_manifest(DataSettings(data=str(data), **further), places)


def digests(numbers) -> np.ndarray:
    return np.array([hashlib.sha256(b"%d" % n).hexdigest() for n in numbers], dtype="S64")


def table(root: Path, n: int = 60, per: int = 5, **columns) -> Path:
    """Write a table of `n` images in two classes, `per` of a patient, of one class each."""
    root.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        put(root, {f"img/{i:03}.jpg": b"%d" % i})
    with (root / "labels.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "label", "Patient ID", *columns])
        for i in range(n):
            label = "ab"[i // per % 2]
            further = [column[i] for column in columns.values()]
            writer.writerow([f"img/{i:03}.jpg", label, f"P{i // per}", *further])
    return root


def crosses(groups: np.ndarray, split: np.ndarray) -> bool:
    return any(len(np.unique(split[groups == one])) > 1 for one in np.unique(groups))


# --- cuts


@st.composite
def grouped(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Labels, keys of groups of any size and mixture, strata, a seed."""
    n, n_groups = draw(st.integers(30, 200)), draw(st.integers(6, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    group = rng.integers(0, n_groups, n)
    n_classes = draw(st.integers(2, 4))
    if draw(st.booleans()):  # groups of one class
        labels = (group % n_classes).astype(np.int32)
    else:
        labels = rng.integers(0, n_classes, n).astype(np.int32)
    keys = joined(digests(range(n)), [f"g{one}" for one in group])
    strata = rng.integers(0, 3, n).astype(np.int32)
    return labels, keys, strata, draw(st.integers(0, 99))


@given(grouped(), st.sampled_from([(0.6, 0.15, 0.25), (0.75, 0.0, 0.25), (0.8, 0.2, 0.0)]))
@settings(max_examples=80, deadline=None)
def test_no_cut_of_any_kind_puts_a_group_on_two_sides(case, fractions):
    labels, keys, strata, seed = case
    try:
        split = cut(labels, keys, fractions, seed, strata=strata)
        later = cut_val(labels, np.where(split == VAL, TRAIN, split).astype(np.int8), keys, seed)
        again = resplit(labels, keys, 0.25, seed + 1)
    except DataError:  # a class in too few groups
        assume(False)
    for one in (split, later, again):
        assert not crosses(keys, one)
        assert len(np.unique(labels[one == TRAIN])) == len(np.unique(labels))
    assert set(split.tolist()) == {
        side for side, share in zip((TRAIN, VAL, TEST), fractions, strict=True) if share
    }
    order = np.random.default_rng(seed).permutation(len(labels))
    np.testing.assert_array_equal(
        cut(labels[order], keys[order], fractions, seed, strata=strata[order]), split[order]
    )
    numbers = np.unique(keys, return_inverse=True)[1].astype(np.int64)
    names = [str(k) for k in range(labels.max() + 1)]
    try:
        folds, _ = cut_folds(labels, numbers, folds=3, seed=seed, class_names=names)
    except HeadError:
        folds = []
    for train, held in folds:
        assert not set(numbers[train]) & set(numbers[held])


def test_mixed_groups_get_their_shares_about_and_differ_by_seed():
    rng = np.random.default_rng(0)
    group = rng.integers(0, 200, 4000)
    labels = (rng.random(4000) < rng.random(200)[group]).astype(np.int32)
    keys = joined(digests(range(4000)), group)
    splits = [resplit(labels, keys, 0.25, seed) for seed in range(20)]
    for split in splits:
        assert abs(np.mean(split == TEST) - 0.25) < 0.02
        for label in range(2):
            assert abs(np.mean(split[labels == label] == TEST) - 0.25) < 0.05
    assert len({split.tobytes() for split in splits}) == 20
    often = np.mean([split == TEST for split in splits], axis=0)
    assert often.max() < 0.9, "some group is nearly always in test"


def test_a_class_in_one_group_cannot_be_split_and_the_message_says_so():
    labels = np.repeat(np.arange(2, dtype=np.int32), 20)
    keys = joined(digests(range(40)), ["one"] * 20 + [""] * 20)
    with pytest.raises(DataError, match=r"b \(20 images, 1 group\)") as caught:
        cut(labels, keys, (0.75, 0, 0.25), 0, class_names=["b", "c"], grouping="GROUP=column")
    assert "GROUP=none" in str(caught.value)


# --- joining


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(-1, 8)), min_size=1, max_size=40))
@settings(max_examples=80, deadline=None)
def test_groups_are_the_connected_components_of_bytes_and_values(rows):
    images, values = zip(*rows, strict=True)
    keys = joined(digests(images), values)
    together = [{i} for i in range(len(rows))]
    for i, j in itertools.combinations(range(len(rows)), 2):
        if images[i] == images[j] or values[i] == values[j] >= 0:
            merged = together[i] | together[j]
            for member in merged:
                together[member] = merged
    for i, j in itertools.combinations(range(len(rows)), 2):
        assert (keys[i] == keys[j]) == (j in together[i])
    order = np.random.default_rng(0).permutation(len(rows))
    np.testing.assert_array_equal(
        joined(digests(np.array(images)[order]), np.array(values)[order]), keys[order]
    )


# --- where groups come from


def test_a_column_is_a_group_in_any_case_and_its_need_is_offered(tmp_path, places):
    root = table(tmp_path / "set")
    plain = load(root, places)
    [offer] = [one for one in plain.warnings if "GROUP=" in one]
    assert "GROUP='patient id'" in offer
    for name in ("patient id", "Patient ID"):
        manifest = load(root, places, group=name)
        assert manifest.grouping == "column patient id"
        assert len(set(manifest.groups)) == 12
        assert not crosses(manifest.groups, manifest.split)
        assert not [one for one in manifest.warnings if "GROUP=" in one]
    np.testing.assert_array_equal(plain.groups, plain.copies)
    assert plain.group_fields != manifest.group_fields


def test_a_pattern_groups_by_its_whole_match_or_by_the_group_named_group(tmp_path, places):
    root = put(
        tmp_path / "set",
        {f"{c}/p{i // 4}_{c}_{i}.jpg": b"%s%d" % (c.encode(), i) for c in "ab" for i in range(40)},
    )
    assert len(set(load(root, places, group=r"p\d+_(a|b)").groups)) == 20
    assert len(set(load(root, places, group=r"(?P<group>p\d+)_(a|b)").groups)) == 10
    manifest = load(root, places, group=r"p[0-4]_")
    assert len(set(manifest.groups)) == 5 + 40
    assert "40 images of 80 have no group" in " ".join(manifest.warnings)
    with pytest.raises(SettingsError, match="regular expression"):
        load(root, places, group="p(")
    with pytest.raises(DataError, match="matches none of 80 paths"):
        load(root, places, group="patiend")
    assert "changes nothing" in " ".join(load(root, places, group=r"[^/]+$").warnings)


def test_a_misspelt_column_is_answered_with_the_one_that_was_meant(tmp_path, places):
    with pytest.raises(DataError, match="GROUP=patient id"):
        load(table(tmp_path / "set"), places, group="patient_id")


@pytest.mark.parametrize("place", ["{c}/p{p}/{i}.jpg", "{split}/{c}/p{p}/{i}.jpg"])
def test_parent_is_the_folder_below_the_class_and_is_offered(tmp_path, places, place):
    files = {}
    for number, c in enumerate("ab"):
        for i in range(40):
            p = number * 10 + i // 4
            split = "test" if i >= 28 else "train"
            files[place.format(c=c, p=p, i=i, split=split)] = b"%s%d" % (c.encode(), i)
    root = put(tmp_path / "set", files)
    assert "add GROUP=parent" in " ".join(load(root, places).warnings)
    manifest = load(root, places, group="parent")
    assert len(set(manifest.groups)) == 20
    assert not crosses(manifest.groups, manifest.split)
    with pytest.raises(DataError, match="GROUP=parent"):
        load(put(tmp_path / "flat", {f"{c}/{i}.jpg": b"%d" % i for c in "ab" for i in range(9)}),
             places, group="parent")  # fmt: skip


def test_groups_found_later_cut_the_split_again(tmp_path, places):
    manifest = load(table(tmp_path / "set"), places, group="auto")
    assert manifest.grouping == "auto"
    assert manifest.group_keys is None
    pairs = np.arange(60) // 2
    found = manifest.with_groups(pairs, "near-duplicate codes")
    assert found.grouping == "near-duplicate codes"
    assert not crosses(pairs, found.split)
    assert crosses(pairs, manifest.split)
    np.testing.assert_array_equal(found.sha256, manifest.sha256)
    part = found.take(np.arange(10))
    assert len(set(part.groups)) == 5
    assert part.extra["patient id"].tolist() == found.extra["patient id"][:10].tolist()


# --- leaks, val


def splits_of(n: int, first: int = 40, second: int = 50) -> list[str]:
    return ["train" if i < first else "val" if i < second else "test" for i in range(n)]


def test_a_test_image_whose_group_is_in_train_is_a_leak(tmp_path, places):
    split = ["train" if i < 42 else "test" for i in range(60)]
    root = table(tmp_path / "set", split=split)
    assert not load(root, places).leaks.any()
    manifest = load(root, places, group="patient id")
    assert np.flatnonzero(manifest.leaks).tolist() == [42, 43, 44]
    assert "3 of 18 test images are of a group" in " ".join(manifest.warnings)
    np.testing.assert_array_equal(manifest.split, load(root, places).split)


def test_val_images_whose_group_is_in_train_choose_nothing(tmp_path, places):
    root = table(tmp_path / "set", split=splits_of(60, first=42, second=50))
    assert np.sum(load(root, places).split == VAL) == 8
    manifest = load(root, places, group="patient id")
    assert np.flatnonzero(manifest.split == VAL).tolist() == [45, 46, 47, 48, 49]
    assert manifest.val_from == "data"
    assert "3 of 8 validation images" in " ".join(manifest.warnings)


def test_copies_of_train_in_val_choose_nothing_and_an_empty_val_is_none(tmp_path, places):
    files = {f"{s}/{c}/{i}.jpg": f"{c}{i}".encode() for s in ("train", "val") for c in "ab"
             for i in range(6)}  # fmt: skip
    files |= {f"test/{c}/{i}.jpg": f"t{c}{i}".encode() for c in "ab" for i in range(6)}
    manifest = load(put(tmp_path / "set", files), places)
    assert manifest.val_from == "none"
    assert not np.any(manifest.split == VAL)
    assert "No validation image is left" in " ".join(manifest.warnings)


def test_contradictions_are_of_bytes_not_of_groups(tmp_path, places):
    root = table(tmp_path / "set", per=7)
    manifest = load(root, places, group="none").with_groups(np.arange(60) // 20, "thirds")
    assert manifest.contradictions == ()


# --- elpv


@needs_elpv
def test_elpv_has_44_modules_and_is_split_by_them(places):
    manifest = load("elpv", places)
    modules, kinds = manifest.extra["module"], manifest.extra["type"]
    per_kind = {kind: len(np.unique(modules[kinds == kind])) for kind in ("mono", "poly")}
    assert per_kind == {"mono": 18, "poly": 26}
    assert all(48 <= np.sum(modules == one) <= 72 for one in range(44))
    assert not crosses(modules, manifest.split)
    assert "inferred from the order of the files" in manifest.grouping
    for seed in range(5):
        split = load("elpv", places, seed=seed).split
        assert abs(np.mean(split == TEST) - 0.25) < 0.04
        assert abs(manifest.labels[split == TEST].mean() - manifest.labels.mean()) < 0.16


@needs_elpv
def test_elpv_by_cell_is_there_by_name_and_by_setting(places):
    by_cell, without = load("elpv-cells", places), load("elpv", places, group="none")
    assert (by_cell.name, by_cell.grouping, without.grouping) == ("elpv-cells", "", "")
    np.testing.assert_array_equal(by_cell.split, without.split)
    assert crosses(by_cell.extra["module"], by_cell.split)


# --- real sets


@needs_shared
def test_blood_cells_and_chest_xray_are_grouped(places):
    blood = load(SHARED / "blood-cells", places, group="group")
    assert len(set(blood.groups)) == 308
    assert not blood.leaks.any()
    assert "GROUP=group" in " ".join(load(SHARED / "blood-cells", places).warnings)
    pattern = r"person\d+_(bacteria|virus)|(NORMAL2-)?IM-\d+"
    chest = load(SHARED / "chest-xray", places, group=pattern)
    assert not [one for one in chest.warnings if "have no group" in one]


def patients(root, n_test):
    """Write four images each of ten patients to train on and `n_test` to test on."""
    for i in range(40 + 4 * n_test):
        split, patient = ("train", i // 4) if i < 40 else ("test", i // 4)
        path = root / split / ("cat", "dog")[patient % 2] / f"p{patient}_{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(i, (64, 48)))
    return root


@pytest.mark.parametrize("stage", ["svm", "finetune", "compare"])
def test_the_interval_of_every_stage_counts_groups(stage, tmp_path, cache):
    root = patients(tmp_path / "mine", 5)
    line = [stage, f"DATA={root}", r"GROUP=p\d+", f"CACHE={cache}", "OFFLINE=1",
            f"RESULTS={tmp_path / 'results'}", "MODEL=test_efficientnet", "WEIGHTS=none",
            "SIZE=32"]  # fmt: skip
    line += {"svm": [], "finetune": ["EPOCHS=1"], "compare": ["METHODS=svm,centroid"]}[stage]
    assert main(line) == 0
    manifest = load_manifest(
        DataSettings(data=str(root), group=r"p\d+"), PlaceSettings(cache=str(cache))
    )
    group = dict(zip(manifest.paths, manifest.groups.tolist(), strict=True))
    (file,) = (tmp_path / "results").rglob(f"{'svm' if stage == 'compare' else stage}-*.pre*.csv")
    found = read_predictions(file)
    hits = found.predicted == found.labels
    of = np.array([group[path] for path in found.paths])
    assert len(set(of.tolist())) == 5
    expected = accuracy_interval(hits, groups=of)
    record = json.loads(file.with_name(file.name.replace(".predictions.csv", ".json")).read_text())
    tested = record["metrics"]["test"]
    assert tested["accuracy_ci95"] == pytest.approx(expected)
    assert tested["n_groups"] == 5
    if stage == "compare":
        (compared,) = (tmp_path / "results").rglob("compare-*.json")
        entries = json.loads(compared.read_text())["entries"]
        (svm,) = (one for one in entries if one["method"] == "svm")
        assert svm["accuracy_ci95"] == pytest.approx(expected)


@pytest.fixture
def _fewer_samples(monkeypatch):
    """Draw 400 resamples, as of large sets, in place of 2,000: intervals a little less steady."""
    monkeypatch.setattr(resampling, "SAMPLES", resampling.LEAST_SAMPLES)


@pytest.mark.usefixtures("_fewer_samples")
def test_an_interval_over_groups_is_no_shorter_than_over_images():
    rng = np.random.default_rng(0)
    for _ in range(50):
        groups = rng.integers(0, rng.integers(2, 12), 40)
        hits = rng.random(40) < rng.random()
        (low, high), (inner_low, inner_high) = (
            accuracy_interval(hits, groups=groups), accuracy_interval(hits)
        )  # fmt: skip
        assert 0 <= low <= inner_low <= inner_high <= high <= 1
    assert accuracy_interval(hits, groups=np.zeros(40, int)) == (0.0, 1.0)


def test_two_runs_side_by_side_are_tested_over_groups(tmp_path, cache):
    root = patients(tmp_path / "mine", 8)
    line = [f"DATA={root}", r"GROUP=p\d+", f"CACHE={cache}", "OFFLINE=1",
            f"RESULTS={tmp_path / 'results'}", "MODEL=test_efficientnet", "WEIGHTS=none",
            "SIZE=32"]  # fmt: skip
    assert main(["heads", *line, "METHODS=svm,centroid"]) == 0
    a, b = sorted(list_runs(tmp_path / "results").runs, key=lambda run: run.columns["method"])
    found = side_by_side(a, b)
    one, other = (run.predictions() for run in (a, b))
    groups = np.array([path.split("/")[-1].split("_")[0] for path in one.paths])
    hits = [p.predicted == p.labels for p in (one, other)]
    p, ends = accuracy_difference(hits[0], hits[1], groups)
    sums, sizes = group_sums(hits[0].astype(np.int64) - hits[1], groups)
    assert p == sign_flip(sums)
    assert ends[0] <= flip_interval(sums, sizes)[0] <= flip_interval(sums, sizes)[1] <= ends[1]
    assert found["paired"]["p"] == p
    assert found["paired"]["difference_ci95"] == ends
    assert found["paired"]["n_groups"] == 8
    assert "sign-flip test over 8 groups" in found["sentences"][0]


def test_where_all_images_are_right_a_group_counts_as_one():
    groups = np.repeat(np.arange(5), 100)
    every, none = (accuracy_interval(np.full(500, hit), groups=groups) for hit in (True, False))
    assert every == pytest.approx(wilson_interval(5, 5))
    assert none == pytest.approx(wilson_interval(0, 5))


@pytest.mark.usefixtures("_fewer_samples")
def test_intervals_over_few_groups_cover():
    rng, covered = np.random.default_rng(0), []
    for _ in range(120):
        n_groups = rng.integers(2, 5)
        sizes, rates = rng.integers(5, 60, n_groups), rng.beta(17, 3, n_groups)
        groups = np.repeat(np.arange(n_groups), sizes)
        labels = np.arange(len(groups)) % 2
        hits = rng.random(len(groups)) < rates[groups]
        called = np.where(hits, labels, 1 - labels)
        p = np.where(called[:, None] == np.arange(2), 0.8, 0.2)
        seeds = rng.random((3, len(groups))) < rates[groups]
        counts = resamples(len(groups), groups=groups)
        every = figure_intervals(labels, p, groups=groups) | {
            "seeds": seeded_accuracy(seeds, counts, groups=groups)
        }
        keys = ("accuracy", "balanced_accuracy", "auroc", "seeds")
        covered.append([every[key][0] <= 0.85 <= every[key][1] for key in keys])
    # .95 of 120 has a standard error of .02; resamples alone gave .87
    assert (np.mean(covered, axis=0) > 0.9).all(), np.mean(covered, axis=0)


def test_what_groups_cannot_say_is_not_said():
    """With three seeds as with one: one group, and groups of which all images are right."""
    one, five = np.zeros(100, int), np.repeat(np.arange(5), 20)
    mixed, right = np.arange(300).reshape(3, 100) % 3 > 0, np.ones((3, 100), bool)
    counts = resamples(100, groups=five)
    assert seeded_accuracy(mixed, resamples(100, groups=one), groups=one) == (0.0, 1.0)
    assert seeded_accuracy(right, counts, groups=five)[0] < 0.75
    assert seeded_accuracy(right, resamples(100), groups=None)[0] > 0.9


def test_a_bootstrap_over_groups_is_called_so():
    pairs = [{"test": "bootstrap", "n_groups": 6}, {"test": "seeds", "n_groups": 6}]
    assert words.tests_made(pairs) == (
        "bootstrap over groups and bootstrap over seeds and groups, 6 groups"
    )
    assert words.tests_made([{"test": "bootstrap"}]) == "bootstrap over images"


@pytest.mark.parametrize(
    ("mean", "says"),
    [
        (0.031, "whose accuracy is better by 3.1 points"),
        (-0.031, "whose accuracy is, on average over the folds, worse by 3.1 points"),
    ],
)
def test_a_cheaper_method_that_is_better_over_the_folds_is_not_said_to_be_worse(mean, says):
    entries = [{"times_s": {"codes": 1.0, "fit": fit}} for fit in (2.0, 0.1)]
    pair = {"a": 0, "b": 1, "difference": mean, "ci95": [mean - 0.12, mean + 0.12]}
    found = words._Found(
        record={"entries": entries}, names=["svm", "centroid"], best=0, alike=[1], behind=[],
        of_best={1: pair}, measure=measure_named("accuracy"),
    )  # fmt: skip
    (text,) = words._cost(found)
    assert f"{says} (95 % confidence interval \u22128.9 to 15.1)." in text
