import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cnn_codes.cli import main
from cnn_codes.context import Context
from cnn_codes.errors import HeadError
from cnn_codes.evidence import find_mislabelled
from cnn_codes.evidence.confident import (
    class_thresholds,
    confident_classes,
    label_margin,
    other_class,
)
from cnn_codes.heads import held_out
from cnn_codes.heads.folds import cut_folds
from cnn_codes.settings import DataSettings, LabelsSettings, PlaceSettings
from conftest import SMALL, StageOne
from predicting import REAL

SEEDS = (0, 1, 2)


def some_hotdogs(source: Path, target: Path, n_train: int, n_test: int) -> Path:
    for split, n in (("train", n_train), ("test", n_test)):
        for kind in sorted((source / split).iterdir()):
            folder = target / split / kind.name
            folder.mkdir(parents=True)
            for path in sorted(kind.iterdir())[:n]:
                (folder / path.name).symlink_to(path)
    return target


def listed(manifest, codes, results, *, seed=0, **settings):
    context = Context(
        manifest=manifest, data=DataSettings(seed=seed), places=PlaceSettings(results=str(results))
    )
    return find_mislabelled(context, codes, LabelsSettings(**settings))


def flipped(manifest, seed, share=0.05):
    """Give some images another class: the manifest, and the paths of those images."""
    rng = np.random.default_rng(seed)
    rows = rng.permutation(manifest.n_images)[: round(share * manifest.n_images)]
    labels = manifest.labels.copy()
    labels[rows] = 1 - labels[rows]
    return replace(manifest, labels=labels), {manifest.paths[row] for row in rows.tolist()}


@pytest.fixture(scope="module")
def real(hotdog, backbones, tmp_path_factory):
    """Give the manifest and the codes of 600 photographs by the real network."""
    folder = tmp_path_factory.mktemp("labels")
    backbones.mkdir(exist_ok=True)
    (folder / "cache").mkdir()
    (folder / "cache" / "backbones").symlink_to(backbones)
    stage_one = StageOne(folder / "cache")
    manifest = stage_one.manifest(some_hotdogs(hotdog, folder / "hotdogs", 250, 50))
    return manifest, stage_one(manifest, **REAL).codes


@pytest.fixture
def small(hotdog, stage_one, tmp_path):
    """Give stage one, and a folder of 60 photographs."""
    return stage_one, some_hotdogs(hotdog, tmp_path / "hotdogs", 20, 10)


def found_in_first_tenth(manifest, codes, results, seed):
    wrong, changed = flipped(manifest, seed)
    record = listed(wrong, codes, results, seed=seed, share=0.1)
    assert record["n_listed"] == np.ceil(0.1 * manifest.n_images)
    first = {one["path"] for one in record["images"]}
    return len(first & changed) / len(changed)


def test_most_flipped_labels_are_in_the_first_tenth_listed(real, tmp_path):
    manifest, codes = real
    shares = [found_in_first_tenth(manifest, codes, tmp_path, seed) for seed in SEEDS]
    assert np.mean(shares) >= 0.8
    assert min(shares) >= 0.7  # of 30 images


@pytest.mark.slow
def test_four_of_five_flipped_labels_of_all_hotdogs_are_in_the_first_tenth(real_hotdog, stage_one):
    manifest = stage_one.manifest(real_hotdog)
    codes = stage_one(manifest, **REAL).codes
    for seed in SEEDS:
        assert found_in_first_tenth(manifest, codes, stage_one.cache, seed) >= 0.8


def test_a_flipped_label_is_a_suspect_with_its_true_class_suggested(real, tmp_path):
    manifest, codes = real
    wrong, changed = flipped(manifest, 0)
    record = listed(wrong, codes, tmp_path)
    assert 0 < record["n_suspects"] < 0.1 * manifest.n_images
    suspects = [one for one in record["images"] if one["suspect"]]
    hit = [one for one in suspects if one["path"] in changed]
    assert len(hit) > len(suspects) / 2
    for one in hit:
        assert one["suggested"] == one["path"].split("/")[1] != one["label"]
        assert one["p_suggested"] > one["p_label"]
    scores = [one["score"] for one in record["images"]]
    assert scores == sorted(scores)
    assert str(record["n_suspects"]) in record["sentences"][0]


def test_copies_under_two_labels_come_first_and_are_certain(small, tmp_path):
    stage_one, folder = small
    first = sorted((folder / "train" / "hotdog").iterdir())[0]
    shutil.copy(first, folder / "train" / "not-hotdog" / "copy.jpg")
    manifest = stage_one.manifest(folder)
    record = listed(manifest, stage_one(manifest).codes, tmp_path, share=0.01)
    assert record["n_certain"] == 2
    assert record["n_listed"] == 3  # and as many others as were asked for
    assert [one["certain"] for one in record["images"]] == [True, True, False]
    paths = [f"train/hotdog/{first.name}", "train/not-hotdog/copy.jpg"]
    found = {one["path"]: one for one in record["images"]}
    for path, other in (paths, reversed(paths)):
        assert found[path]["certain"]
        assert found[path]["copies"] == [other]
        assert found[path]["suggested"] == other.split("/")[1]
    assert "2 images have byte-identical copies under another label" in record["sentences"][0]


def test_images_of_equal_bytes_never_judge_each_other():
    rng = np.random.default_rng(0)
    z = np.repeat(rng.standard_normal((100, 1, 300), dtype=np.float32), 2, axis=0)
    labels = np.repeat(rng.integers(0, 2, 100), 2).astype(np.int32)

    def accuracy(groups):
        folds, _ = cut_folds(labels, groups, folds=5, seed=0, class_names=("a", "b"))
        return held_out.held_out(z, labels, folds, method="softmax", n_classes=2).accuracy

    assert accuracy(np.arange(200)) > 0.75  # noise, remembered from the copy
    assert accuracy(np.repeat(np.arange(100), 2)) < 0.65  # noise


def test_the_record_is_taken_where_nothing_changed_and_made_anew_where_something_did(
    small, tmp_path, monkeypatch
):
    stage_one, folder = small
    manifest = stage_one.manifest(folder)
    codes = stage_one(manifest).codes
    made = listed(manifest, codes, tmp_path)
    path = tmp_path / manifest.name / f"{made['name']}.json"
    assert "reused" not in made
    assert path.is_file()
    calls = []
    real = held_out.held_out
    monkeypatch.setattr(
        held_out,
        "held_out",
        lambda *args, **kwargs: calls.append(1) or real(*args, **kwargs),
    )
    again = listed(manifest, codes, tmp_path, jobs=1, top=3)
    assert again.pop("reused")
    assert again == made
    assert not calls
    relabelled, _ = flipped(manifest, 0)
    assert listed(relabelled, codes, tmp_path)["fingerprint"] != made["fingerprint"]
    path.write_text(path.read_text()[:100])
    assert listed(manifest, codes, tmp_path)["images"] == made["images"]
    other = listed(manifest, codes, tmp_path, folds=3)
    assert other["name"] != made["name"]
    assert len(calls) == 3


def test_any_number_of_jobs_gives_the_same_probabilities(small):
    stage_one, folder = small
    manifest = stage_one.manifest(folder)
    codes = stage_one(manifest).codes
    lists = [
        listed(manifest, codes, stage_one.cache / f"results{jobs}", jobs=jobs)["images"]
        for jobs in (1, 2)
    ]
    assert lists[0] == lists[1]


def test_a_class_with_one_image_is_an_error_that_names_it(small, tmp_path):
    stage_one, folder = small
    manifest = stage_one.manifest(folder)
    labels = manifest.labels.copy()
    labels[:] = 0
    labels[np.flatnonzero(manifest.split == 0)[0]] = 1
    with pytest.raises(HeadError, match="not-hotdog has 1 different image"):
        listed(replace(manifest, labels=labels), stage_one(manifest).codes, tmp_path)


def test_the_command_prints_suspects_and_says_where_the_list_is(small, capsys, tmp_path):
    stage_one, folder = small
    named = [f"{k.upper()}={v}" for k, v in SMALL.items()]
    places = [f"DATA={folder}", f"CACHE={stage_one.cache}", f"RESULTS={tmp_path / 'r'}"]
    assert main(["labels", *named, *places, "TOP=2", "SHARE=0.1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["path", "split", "label", "suggested", "p(label)", "p(suggested)"]
    assert len([line for line in lines if "/hotdog/" in line or "/not-hotdog/" in line]) == 2
    assert "4 more in the record" in lines[3]
    assert Path(lines[-1]).is_file()
    assert main(["labels", *named, *places, "SHARE=0"]) == 2


@pytest.mark.parametrize("top", [1, 3])
@pytest.mark.parametrize("n_sets", [0, 1, 5])
def test_contradictions_have_a_block_of_their_own(small, inside, n_sets, top):
    _, folder = small
    for at, path in enumerate(sorted((folder / "train" / "hotdog").iterdir())[:n_sets]):
        shutil.copy(path, folder / "train" / "not-hotdog" / f"copy{at}.jpg")
    if n_sets:
        shutil.copy(path, folder / "test" / "not-hotdog" / "again.jpg")
    done = inside("labels", data=folder, top=top, share=0.2, **SMALL)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    heads = [at for at, line in enumerate(lines) if line.split()[:2] == ["path", "split"]]
    assert len(heads) == 1
    suspects = [line for line in lines[heads[0] + 1 :] if " test " in line or " train " in line]
    assert len([line for line in suspects if "hotdog/" in line]) == top  # as many as asked
    assert not any("copy" in line or "again" in line for line in suspects)
    before = "\n".join(lines[: heads[0]])
    assert ("Contradictions" in before) == bool(n_sets)
    assert before.count("hotdog, not-hotdog") == min(n_sets, top)
    assert ("in the record" in before) == (n_sets > top)
    if n_sets and top >= n_sets:
        assert "again.jpg (not-hotdog)" in before


# Confident learning against its definition, in loops, and against the package.


def cases():
    rng = np.random.default_rng(1)
    for n_classes in (2, 5):
        p = rng.dirichlet(np.ones(n_classes), 200)
        labels = np.array([rng.choice(n_classes, p=row) for row in p])
        labels[:n_classes] = range(n_classes)
        yield p, labels


@pytest.mark.parametrize(("p", "labels"), list(cases()))
def test_thresholds_suspects_and_margins_follow_their_definition(p, labels):
    thresholds = class_thresholds(p, labels)
    confident = confident_classes(p, thresholds)
    for k, threshold in enumerate(thresholds):
        assert threshold == pytest.approx(p[labels == k, k].mean())
    for row, label, found, other, margin in zip(
        p, labels, confident, other_class(p, labels), label_margin(p, labels), strict=True
    ):
        reached = {k: row[k] for k in range(len(row)) if row[k] >= thresholds[k]}
        assert found == (max(reached, key=reached.get) if reached else -1)
        rest = {k: row[k] for k in range(len(row)) if k != label}
        assert other == max(rest, key=rest.get)
        assert margin == pytest.approx((row[label] - max(rest.values()) + 1) / 2)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("p", "labels"), list(cases()))
def test_thresholds_suspects_and_margins_are_those_of_cleanlab(p, labels):
    pytest.importorskip("cleanlab")
    from cleanlab.count import compute_confident_joint, get_confident_thresholds
    from cleanlab.rank import get_label_quality_scores

    thresholds = class_thresholds(p, labels)
    np.testing.assert_allclose(thresholds, get_confident_thresholds(labels, p), atol=1e-5)
    scores = get_label_quality_scores(labels, p, method="normalized_margin")
    np.testing.assert_allclose(label_margin(p, labels), scores, atol=1e-12)
    confident = confident_classes(p, thresholds)
    ours = set(np.flatnonzero((confident >= 0) & (confident != labels)).tolist())
    _, theirs = compute_confident_joint(
        labels, p, calibrate=False, return_indices_of_off_diagonals=True
    )
    assert ours == set(map(int, theirs))


def test_a_class_without_images_reaches_no_threshold():
    p = np.array([[0.1, 0.2, 0.7], [0.3, 0.6, 0.1]])
    thresholds = class_thresholds(p, np.array([0, 1]))
    assert thresholds[2] > 1
    assert confident_classes(p, thresholds).tolist() == [0, 1]
