"""Shifts between splits, and classes that the files' properties tell."""

import io
from pathlib import Path

import numpy as np
import pytest
from cnn_codes.audit.shortcuts import shift_findings, shortcut_findings
from cnn_codes.datasets.facts import Facts, read_facts
from cnn_codes.datasets.split_words import TEST, TRAIN
from pictures import jpeg
from PIL import Image, ImageOps
from test_audit import coded, load, made_up


def build(root: Path, quality) -> Path:
    """Write 40 training and 40 test images of each class; quality(split, label, number)."""
    for split in ("train", "test"):
        for label in ("a", "b"):
            folder = root / split / label
            folder.mkdir(parents=True)
            for i in range(40):
                seed = hash((split == "test", label == "b", i)) % 10_000
                data = jpeg(seed, quality=quality(split, label, i))
                (folder / f"{i:03}.jpg").write_bytes(data)
    return root


def mixed(split: str, label: str, number: int) -> int:
    return 60 + 5 * ((7 * number) % 6)


def by_class(split: str, label: str, number: int) -> int:
    return 95 if label == "a" else 75


def by_split(split: str, label: str, number: int) -> int:
    return 95 if split == "train" else 75


@pytest.mark.parametrize(
    ("quality", "kinds"), [(mixed, set()), (by_class, {"shortcut"}), (by_split, {"file-shift"})]
)
def test_what_the_files_tell_is_found_and_nothing_else(tmp_path, cache, quality, kinds):
    manifest = load(build(tmp_path / "set", quality), cache)
    facts = read_facts(manifest, cache)
    found = shift_findings(manifest, facts, cache) + shortcut_findings(manifest, facts)
    assert {one.kind for one in found} == kinds
    assert all(one.is_problem for one in found)
    for one in found:
        assert ("JPEG tables" in one.text) or one.details["auroc"] > 0.95


def test_the_colour_of_the_border_is_a_shortcut(tmp_path, cache):
    for label in ("a", "b"):
        (tmp_path / "set" / "train" / label).mkdir(parents=True)
        for i in range(60):
            with Image.open(io.BytesIO(jpeg(2 * i + (label == "b"), quality=90))) as picture:
                framed = ImageOps.expand(picture.convert("RGB"), 6, (200 * (label == "b"), 90, 90))
            framed.save(tmp_path / "set" / "train" / label / f"{i}.png")
    manifest = load(tmp_path / "set", cache)
    headers = read_facts(manifest, cache)
    assert not headers.rows["brightness"].any(), "no pixel was decoded"
    (found,) = shortcut_findings(manifest, read_facts(manifest, cache, full=True))
    assert found.kind == "shortcut"
    assert "red of the border" in found.text


@pytest.mark.parametrize("shifted", [False, True])
def test_a_shift_of_the_codes_within_classes_is_found(tmp_path, cache, shifted):
    random = np.random.default_rng(1)
    labels = np.arange(400) % 2
    split = np.repeat([TRAIN, TEST], 200)
    manifest = made_up(labels.tolist(), split.tolist(), names=("a", "b"))
    codes = random.normal(size=(400, 16)).astype(np.float32)
    codes[:, 0] += 3 * labels
    codes[:, 1] += 2.5 * shifted * (split == TEST)
    coded(cache, manifest, codes)

    seen = read_facts(load(build(tmp_path / "one", mixed), cache), cache)
    facts = Facts(np.zeros(400, seen.rows.dtype), {}, 0)  # of files that are not there: all alike
    found = shift_findings(manifest, facts, cache)
    assert [one.kind for one in found] == (["shift"] if shifted else [])
    if shifted:
        assert found[0].details["auroc"] > 0.85
        assert all(int(path[:6]) >= 200 for path in found[0].paths)
