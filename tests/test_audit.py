"""The audit: every kind of defect is found, named and said once; unchanged sets cost nothing."""

import hashlib
import io
import json
import shutil
import struct
import time
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from cnn_codes.audit import audit, header_findings
from cnn_codes.audit import near as near_module
from cnn_codes.audit.classes import class_findings, copy_findings
from cnn_codes.audit.findings import image_findings
from cnn_codes.audit.gallery import COLUMNS, MOST_CLASSES, draw_gallery
from cnn_codes.audit.near import find_near, near_finding, within_finding
from cnn_codes.codes.cache import CacheFile
from cnn_codes.codes.format import MATTERS
from cnn_codes.codes.keys import Key
from cnn_codes.context import Context
from cnn_codes.datasets import Manifest, load_manifest
from cnn_codes.datasets.facts import read_facts
from cnn_codes.datasets.split_words import TEST, TRAIN, VAL
from cnn_codes.errors import DataError
from cnn_codes.files import digest_of
from cnn_codes.settings import DataSettings, PlaceSettings
from conftest import python
from pictures import claiming_png, encoded, jpeg, photo
from PIL import Image


def build(folder: Path, extra: dict[str, bytes] | None = None, n: int = 24) -> Path:
    """Write a sound set of two classes and two splits, and some further files."""
    files = {
        f"{split}/{name}/{i:03}.jpg": jpeg(1000 * s + 100 * k + i)
        for s, split in enumerate(("train", "test"))
        for k, name in enumerate("ab")
        for i in range(n)
    }
    for name, data in (files | (extra or {})).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def load(folder: Path | str, cache: Path, **settings) -> Manifest:
    places = PlaceSettings(data_root=str(cache.parent / "data"), cache=str(cache))
    return load_manifest(DataSettings(data=str(folder), **settings), places)


def found(manifest: Manifest, cache: Path, *, full: bool = True) -> dict:
    findings = image_findings(manifest, read_facts(manifest, cache, full=full))
    findings += copy_findings(manifest) + class_findings(manifest)
    kinds = [one.kind for one in findings]
    assert len(kinds) == len(set(kinds))
    return dict(zip(kinds, findings, strict=True))


def sixteen_bit_rgb_png() -> bytes:
    wide = np.asarray(photo(7)).astype(">u2") * 257
    raw = b"".join(b"\0" + row.tobytes() for row in wide)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 64, 48, 16, 2, 0, 0, 0)
    parts = (b"IHDR", header), (b"IDAT", zlib.compress(raw)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def rotated(seed: int) -> bytes:
    exif = Image.Exif()
    exif[274] = 6
    return jpeg(seed, exif=exif)


def frames(form: str) -> bytes:
    first, *rest = [photo(i) for i in range(3)]
    return encoded(first, form, save_all=True, append_images=rest)


WIDE = Image.fromarray(np.asarray(photo(5, mode="L")).astype(np.uint16) * 257)
DEFECTS = [
    ("unreadable", "x.jpg", b"<html><body>404</body></html>", True),
    ("damaged", "x.jpg", jpeg(5, (200, 200))[:-900], True),
    ("damaged", "x.png", encoded(photo(5, (200, 200)), "PNG")[:-900], True),
    ("absurdly-large", "x.png", claiming_png(11_000, 10_000), True),
    ("misnamed", "x.jpg", encoded(photo(5), "PNG"), False),
    ("animated", "x.gif", frames("GIF"), False),
    ("animated", "x.webp", frames("WEBP"), False),
    ("animated", "x.tif", frames("TIFF"), False),
    ("cmyk", "x.jpg", encoded(photo(5, mode="CMYK"), "JPEG"), False),
    ("16-bit", "x.png", encoded(WIDE, "PNG"), False),
    ("16-bit", "x.png", sixteen_bit_rgb_png(), False),
    ("palette", "x.png", encoded(photo(5).quantize(16), "PNG"), False),
    ("transparent", "x.png", encoded(photo(5, mode="RGBA"), "PNG"), False),
    ("rotated", "x.jpg", rotated(5), False),
    ("tiny", "x.jpg", jpeg(5, (31, 64)), True),
    ("long", "x.jpg", jpeg(5, (330, 80)), False),
    ("odd-format", "x.bmp", encoded(photo(5), "BMP"), True),
]  # fmt: skip


def context_of(manifest, cache, results):
    places = PlaceSettings(cache=str(cache), results=str(results))
    return Context(manifest=manifest, places=places)


@pytest.mark.parametrize(
    ("kind", "name", "data", "is_problem"), DEFECTS, ids=[f"{d[0]}-{d[1]}" for d in DEFECTS]
)
def test_each_defect_is_found_and_named(tmp_path, cache, kind, name, data, is_problem):
    path = f"train/a/{name}"
    finding = found(load(build(tmp_path / "set", {path: data}), cache), cache)[kind]
    assert finding.paths == (path,)
    assert path in finding.text
    assert finding.text.startswith("1 ")
    assert finding.is_problem is is_problem


def test_a_sound_set_has_nothing_to_be_said_of_it(tmp_path, cache):
    manifest = load(build(tmp_path / "set"), cache)
    assert found(manifest, cache) == {}
    assert header_findings(manifest, cache=cache) == []
    report = audit(context_of(manifest, cache, tmp_path / "results"))
    assert report.findings == ()
    assert report.lines()[-1] == "96 images decoded in full: nothing found."


@pytest.mark.parametrize(
    ("size", "kind"), [((32, 64), "tiny"), ((320, 80), "long"), ((80, 320), "long")]
)
def test_sizes_at_the_bound_are_not_reported(tmp_path, cache, size, kind):
    manifest = load(build(tmp_path / "set", {"train/a/x.jpg": jpeg(5, size)}), cache)
    assert kind not in found(manifest, cache)


def test_copies_are_told_apart_by_where_they_are(tmp_path, cache):
    one, two, three, four = (jpeg(seed) for seed in range(9000, 9004))
    copies = {
        "train/a/c1.jpg": one, "test/a/c2.jpg": one,
        "train/a/d1.jpg": two, "train/b/d2.jpg": two,
        "train/b/e1.jpg": three, "train/b/e2.jpg": three, "train/b/e3.jpg": three,
        "val/a/f.jpg": four, "train/a/f.jpg": four, "val/b/g.jpg": jpeg(9005),
    }  # fmt: skip
    manifest = load(build(tmp_path / "set", copies), cache)
    kinds = found(manifest, cache)
    assert kinds["leaks"].details["pairs"] == [["test/a/c2.jpg", "train/a/c1.jpg"]]
    assert kinds["contradictions"].details["pairs"] == [["train/a/d1.jpg", "train/b/d2.jpg"]]
    assert set(kinds["copies-in-train"].paths) >= {f"train/b/e{i}.jpg" for i in (1, 2, 3)}
    assert kinds["copies-in-train"].text.startswith("4 train images")  # val/a/f.jpg too
    assert "val-leaks" not in kinds
    assert "val/a/f.jpg" in " ".join(manifest.warnings)
    assert "copies-in-test" not in kinds


def made_up(labels: list[int], split: list[int], *, names: tuple[str, ...], **changes) -> Manifest:
    n = len(labels)
    digests = [hashlib.sha256(str(i).encode()).hexdigest() for i in range(n)]
    values = {
        "name": "set",
        "root": Path("/nowhere"),
        "paths": tuple(f"{i:06}.jpg" for i in range(n)),
        "sha256": np.array(digests, "S64"),
        "labels": np.array(labels, np.int32),
        "split": np.array(split, np.int8),
        "class_names": names,
    }
    return Manifest(**values | changes)


def mixed(train: tuple[int, ...], test: tuple[int, ...]) -> dict:
    labels = [k for counts in (train, test) for k, n in enumerate(counts) for _ in range(n)]
    split = [TRAIN] * sum(train) + [TEST] * sum(test)
    names = tuple("abcdefgh"[: len(train)])
    return {one.kind: one for one in class_findings(made_up(labels, split, names=names))}


def test_classes_that_are_absent_tiny_or_overwhelmed_are_named():
    assert mixed((100, 100), (50, 50)) == {}
    assert "test lacks 'b'" in mixed((100, 100), (50, 0))["absent-class"].text
    tiny = mixed((100, 9), (50, 10))["tiny-class"]
    assert tiny.details == {"train": {"b": 9}}
    assert "tiny-class" not in mixed((100, 10), (50, 10))
    assert "imbalance" in mixed((100, 10), (50, 10))
    assert "imbalance" not in mixed((99, 10), (50, 10))
    assert "91 %" in mixed((100, 10), (50, 10))["imbalance"].text


def test_splits_are_compared_beyond_chance():
    assert "mix-of-test" in mixed((500, 500), (150, 50))
    assert "mix-of-test" not in mixed((500, 500), (105, 95))
    assert "mix-of-test" not in mixed((500, 500), (7, 3)), "ten images are too few to tell"


@pytest.mark.parametrize(
    ("form", "kind"), [("PNG", "format-by-class"), ("grey", "colour-by-class")]
)
def test_a_property_of_the_files_that_tells_classes_apart_is_a_problem(tmp_path, cache, form, kind):
    def alter(i):
        picture = photo(i)
        return encoded(picture, "PNG") if form == "PNG" else encoded(picture.convert("L"), "JPEG")

    folder = build(tmp_path / "set")
    for path in folder.rglob("b/*.jpg"):
        path.unlink()
    for i in range(48):
        split = ("train", "test")[i % 2]
        suffix = "png" if form == "PNG" else "jpg"
        (folder / split / "b" / f"{i:03}.{suffix}").write_bytes(alter(5000 + i))
    kinds = found(load(folder, cache), cache)
    assert kinds[kind].is_problem
    assert kinds[kind].details["share"] in ({"a": 0.0, "b": 1.0}, {"a": 1.0, "b": 0.0})
    assert "odd-format" not in kinds


# Facts that are remembered


def test_facts_follow_the_bytes_not_the_names(tmp_path, cache):
    folder = build(tmp_path / "set", {"train/a/x.jpg": jpeg(5)[:-300]})
    first = load(folder, cache)
    assert read_facts(first, cache, full=True).n_read == first.n_images
    (folder / "train/a/x.jpg").rename(folder / "train/b/moved.jpg")
    (folder / "train/a/new.jpg").write_bytes(jpeg(77))
    moved = load(folder, cache)
    facts = read_facts(moved, cache, full=True)
    assert facts.n_read == 1
    assert [moved.paths[row] for row in facts.faults] == ["train/b/moved.jpg"]


def test_the_full_audit_adds_what_headers_do_not_show(tmp_path, cache):
    manifest = load(build(tmp_path / "set", {"train/a/x.jpg": jpeg(5)[:-300]}), cache)
    assert read_facts(manifest, cache).faults == {}
    assert len(read_facts(manifest, cache, full=True).faults) == 1
    remembered = read_facts(manifest, cache)
    assert (remembered.n_read, len(remembered.faults)) == (0, 1)


def test_facts_are_the_same_read_or_remembered_and_with_any_number_of_threads(tmp_path, cache):
    manifest = load(build(tmp_path / "set", {f"train/a/{d[1]}": d[2] for d in DEFECTS}), cache)
    fresh = read_facts(manifest, cache, full=True, workers=1)
    again = read_facts(manifest, cache, full=True)
    other = read_facts(manifest, tmp_path / "elsewhere", full=True, workers=5)
    assert again.n_read == 0
    for facts in (again, other):
        assert np.array_equal(facts.rows, fresh.rows)
        assert facts.faults == fresh.faults


@pytest.mark.parametrize("damage", [b"", b"nonsense", "half"])
def test_a_damaged_memory_is_ignored(tmp_path, cache, damage):
    manifest = load(build(tmp_path / "set", n=4), cache)
    sound = read_facts(manifest, cache)
    memory = cache / manifest.name / "facts.npz"
    whole = memory.read_bytes()
    memory.write_bytes(whole[: len(whole) // 2] if damage == "half" else damage)
    again = read_facts(manifest, cache)
    assert again.n_read == manifest.n_images
    assert np.array_equal(again.rows, sound.rows)
    assert read_facts(manifest, cache).n_read == 0


def test_a_cache_that_cannot_be_written_stops_nothing(tmp_path, cache):
    manifest = load(build(tmp_path / "set", n=4), cache)
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")  # a file where the cache's folder should be: no user may write there
    facts = read_facts(manifest, blocked, full=True)
    assert facts.n_read == manifest.n_images
    assert header_findings(manifest, cache=blocked) == header_findings(manifest, cache=cache)


def test_a_file_that_changes_meanwhile_is_not_remembered_under_its_old_digest(tmp_path, cache):
    folder = build(tmp_path / "set", n=4)
    manifest = load(folder, cache)
    (folder / "train/a/000.jpg").write_bytes(jpeg(4711, (10, 10)))
    with pytest.raises(DataError, match="changed while it was being read"):
        read_facts(manifest, cache)
    (folder / "train/a/000.jpg").unlink()
    with pytest.raises(DataError, match="went away"):
        read_facts(manifest, cache)
    build(folder, n=4)
    assert (read_facts(load(folder, cache), cache).rows["width"] == 64).all()


# Near-duplicates


def coded(cache: Path, manifest: Manifest, codes: np.ndarray, **config) -> Path:
    """Publish made-up codes of a manifest's images, as stage one does."""
    n_views = codes.shape[1] if codes.ndim == 3 else 1
    settings = {"layers": ["final"], "n_views": n_views, "weights": "package", "pool": "mean",
                "views": ["center", 1, 0]} | config  # fmt: skip
    path = cache / manifest.name / f"{config.get('name', 'net')}.h5"
    settings = dict.fromkeys(MATTERS, "") | settings
    settings["weights_digest"] = hashlib.sha256(codes.tobytes()).hexdigest()
    file = CacheFile(Key(path, digest_of({name: settings[name] for name in MATTERS}), settings))
    _, first = np.unique(manifest.sha256, return_index=True)
    with file.locked(None):
        names = [manifest.sha256[row].decode() for row in first]
        file.add_part(names, [np.ascontiguousarray(codes[first], np.float32)], {}, 1.0)
        file.publish(manifest, file.known())
    return path


def twins(n_train: int = 300, n_test: int = 60, n_twins: int = 3, dim: int = 64, **changes):
    """Give a manifest and random codes whose first test images nearly are training images."""
    random = np.random.default_rng(0)
    n = n_train + n_test
    manifest = made_up(
        [i % 2 for i in range(n)], [TRAIN] * n_train + [TEST] * n_test, names=("a", "b"), **changes
    )
    codes = random.normal(size=(n, dim)) + 5  # a common offset, as codes after a ReLU have it
    codes[n_train : n_train + n_twins] = codes[:n_twins] + 0.1 * random.normal(size=(n_twins, dim))
    return manifest, codes.astype(np.float32)


@pytest.mark.parametrize("block", [(1024, 64_000_000), (7, 256)])
def test_near_pairs_are_those_of_the_whole_matrix(cache, monkeypatch, block):
    monkeypatch.setattr(near_module, "_QUERIES", block[0])
    monkeypatch.setattr(near_module, "_BLOCK_BYTES", block[1])
    manifest, codes = twins()
    coded(cache, manifest, codes)
    near = find_near(manifest, cache)
    train = manifest.split == TRAIN
    unit = codes - codes[train].mean(axis=0)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    expected = unit[~train] @ unit[train].T
    a, b = np.nonzero(expected >= near_module.THRESHOLD)
    assert len(a) == 3
    assert {(x, y) for x, y, *_ in near.pairs} == {
        (manifest.paths[300 + i], manifest.paths[j]) for i, j in zip(a, b, strict=True)
    }
    for i, j in zip(a, b, strict=True):
        similarity = next(s for x, _, s, _ in near.pairs if x == manifest.paths[300 + i])
        assert similarity == pytest.approx(expected[i, j], abs=1e-3)
    assert (near.n_searched, near.n_found, near.n_pairs) == (60, 3, 3)
    assert near_finding(near).is_problem


def test_memory_of_the_search_does_not_grow_with_the_codes(cache, monkeypatch):
    monkeypatch.setattr(near_module, "_QUERIES", 64)
    monkeypatch.setattr(near_module, "_BLOCK_BYTES", 1_000_000)
    manifest, codes = twins(8000, 500, dim=512)
    coded(cache, manifest, codes)
    manifest.groups  # noqa: B018 (a cached property, not the search's)
    tracemalloc.start()
    try:
        assert find_near(manifest, cache).n_found == 3
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < codes.nbytes / 2


def test_byte_identical_images_are_not_called_near(cache):
    manifest, codes = twins()
    manifest.sha256[300] = manifest.sha256[0]
    codes[300] = codes[0]
    coded(cache, manifest, codes)
    assert find_near(manifest, cache).n_found == 2


@pytest.mark.parametrize("n_twins", [1, 4, 20, 40, 58, 60])
def test_the_larger_the_share_of_near_copies_the_graver_the_words(cache, n_twins):
    manifest, codes = twins(n_twins=n_twins)
    coded(cache, manifest, codes)
    near = find_near(manifest, cache)
    finding = near_finding(near)
    assert near.n_found == n_twins
    assert finding.is_problem
    assert f"{n_twins} of 60 held-out images ({100 * n_twins / 60:.0f} %)" in finding.text
    grave = "nothing of new ones" in finding.text
    assert grave == (n_twins >= 30)
    series = "GROUP" in finding.text
    assert series == (n_twins > 6)
    if n_twins > 6:  # what the groups that were given do not cover is the nature of the images
        assert not near_finding(near, "column patient").is_problem


@pytest.mark.parametrize(("n_patients", "n_frames"), [(8, 6), (30, 2), (58, 1)])
def test_near_copies_within_test_are_counted_as_clusters(cache, n_patients, n_frames):
    random = np.random.default_rng(1)
    n_test = n_patients * n_frames
    manifest, codes = twins(300, n_test, n_twins=0)
    patients = np.repeat(np.arange(n_patients), n_frames)
    noise = 0.1 * random.normal(size=(n_test, codes.shape[1]))
    codes[300:] = codes[300 + patients] + noise.astype(np.float32)
    coded(cache, manifest, codes)
    near = find_near(manifest, cache)
    assert near.n_found == 0
    assert (near.n_test, near.n_clusters) == (n_test, n_patients)
    finding = within_finding(near)
    if n_frames == 1:
        assert finding is None
        return
    assert finding.is_problem
    assert f"about {n_patients} different images" in finding.text
    assert "GROUP" in finding.text
    assert not within_finding(near, "column patient").is_problem
    assert find_near(manifest, cache) == near  # as it is remembered


def test_pairs_are_kept_by_likeness_and_counted_in_full(cache, monkeypatch):
    monkeypatch.setattr(near_module, "MOST_PAIRS", 5)
    manifest, codes = twins(n_twins=40)
    coded(cache, manifest, codes)
    near = find_near(manifest, cache)
    assert (near.n_pairs, len(near.pairs)) == (40, 5)
    kept = [s for *_, s, _ in near.pairs]
    assert kept == sorted(kept, reverse=True)
    monkeypatch.setattr(near_module, "MOST_PAIRS", 1000)
    (cache / "set" / "near.json").unlink()
    assert [pair[:3] for pair in find_near(manifest, cache).pairs[:5]] == [
        p[:3] for p in near.pairs
    ]


def test_a_given_val_is_searched_too_and_a_cut_one_belongs_to_train(cache):
    manifest, codes = twins(val_from="data")
    manifest.split[300:302] = VAL
    coded(cache, manifest, codes)
    assert find_near(manifest, cache).n_found == 3
    cut, _ = twins(val_from="cut")
    cut.split[300:302] = VAL
    assert find_near(cut, cache).n_found == 1


def test_without_telling_codes_nothing_is_claimed(cache):
    manifest, codes = twins()
    assert find_near(manifest, cache) is None
    coded(cache, manifest, codes, weights="random start, seed 0")
    assert find_near(manifest, cache) is None
    coded(cache, manifest, codes, name="other")
    assert find_near(manifest, cache).codes == "other.h5"


def test_of_several_views_the_upright_one_counts(cache):
    manifest, codes = twins()
    views = np.stack([codes, np.random.default_rng(1).normal(size=codes.shape) + 5], axis=1)
    coded(cache, manifest, views, views=["flip", 2, 0])
    assert find_near(manifest, cache).n_found == 3


def test_the_search_is_remembered_until_images_or_splits_change(cache, monkeypatch):
    manifest, codes = twins()
    path = coded(cache, manifest, codes)
    first = find_near(manifest, cache)
    hidden = path.rename(path.with_suffix(".away"))
    assert find_near(manifest, cache) == first
    changed, _ = twins()
    changed.split[0] = TEST
    assert find_near(changed, cache) is None
    hidden.rename(path)
    assert find_near(changed, cache).n_searched == 61


def test_a_search_with_codes_missing_is_not_remembered(cache):
    manifest, codes = twins()
    part, _ = twins(n_test=30)
    coded(cache, part, codes[:330])
    assert find_near(manifest, cache).n_searched == 30
    assert not (cache / "set" / "near.json").exists()


# The whole


def test_header_findings_leave_to_others_what_others_say(tmp_path, cache):
    one = jpeg(9000)
    extra = {"train/a/c.jpg": one, "test/a/c.jpg": one, "train/a/x.jpg": b"nothing"}
    manifest = load(build(tmp_path / "set", extra), cache)
    (said,) = header_findings(manifest, cache=cache)  # the run says what it did about them
    assert said.kind == "leaks"
    audited = audit(context_of(manifest, cache, tmp_path / "results"))
    kinds = [one.kind for one in audited.findings]
    assert {"leaks", "unreadable"} <= set(kinds)
    assert len(set(kinds)) == len(kinds), "each thing is said once"
    assert header_findings(manifest, cache=cache) == [said]


@pytest.mark.parametrize("which", ["set", "class"])
def test_blank_images_are_told_before_a_figure_without_an_audit(tmp_path, cache, which):
    black = io.BytesIO()
    Image.new("RGB", (90, 80)).save(black, "PNG")
    blank = {
        f"{split}/a/{n}.png": black.getvalue() + bytes(n) for n in range(80) for split in ("train",)
    }
    folder = build(tmp_path / "set", blank)
    if which == "set":
        for path in folder.rglob("*.jpg"):
            path.write_bytes(black.getvalue() + path.name.encode() + path.parent.name.encode())
    found = header_findings(load(folder, cache), cache=cache)
    (said,) = [one for one in found if one.kind.startswith("blank")]
    assert said.kind == f"blank-{which}"
    assert "make audit" in said
    assert not [one for one in found if one.kind.startswith("empty")]


def test_the_report_says_where_it_lies_and_lists_in_full(tmp_path, cache):
    tiny = {f"train/a/tiny{i}.jpg": jpeg(600 + i, (20, 20)) for i in range(9)}
    manifest = load(build(tmp_path / "set", tiny), cache)
    report = audit(context_of(manifest, cache, tmp_path / "results"))
    lines = report.lines()
    assert any(line.startswith("problem  9 images are under 32 px") for line in lines)
    assert any(str(report.json_path) in line for line in lines)
    assert any(str(report.picture_path) in line for line in lines)
    assert any("Near-duplicates were not looked for" in line for line in lines)
    saved = json.loads(report.json_path.read_text())
    (finding,) = (one for one in saved["findings"] if one["kind"] == "tiny")
    assert finding["paths"] == sorted(tiny)
    assert finding["details"] == ["20 x 20 px"] * 9
    assert [one["level"] for one in saved["findings"]] == sorted(
        one["level"] for one in saved["findings"]
    )
    with Image.open(report.picture_path) as picture:
        assert picture.format == "PNG"


def test_headers_of_an_unchanged_set_cost_next_to_nothing_and_import_no_torch(tmp_path, cache):
    folder = build(tmp_path / "set", n=30)
    manifest = load(folder, cache)
    header_findings(manifest, cache=cache)
    program = (
        "import sys; from pathlib import Path; from cnn_codes.audit import header_findings;"
        "from cnn_codes.datasets import load_manifest;"
        "from cnn_codes.settings import DataSettings, PlaceSettings;"
        f"places = PlaceSettings(cache={str(cache)!r});"
        f"m = load_manifest(DataSettings(data={str(folder)!r}), places);"
        f"header_findings(m, cache=Path({str(cache)!r}));"
        "print({'torch', 'sklearn', 'matplotlib'} & set(sys.modules))"
    )
    done = python(program, check=True)
    assert done.stdout.strip() == "set()"


def test_header_findings_of_5000_known_images_take_little(cache, monkeypatch):
    from cnn_codes.datasets import facts as facts_module

    n = 5000
    manifest = made_up([i % 20 for i in range(n)], [i // 20 % 5 // 4 * TEST for i in range(n)],
                       names=tuple(f"c{k:02}" for k in range(20)))  # fmt: skip
    rows = np.zeros(n, facts_module._ROW)
    rows["sha256"] = np.sort(manifest.sha256)
    rows["format"], rows["mode"], rows["bits"] = b"JPEG", b"RGB", 8
    rows["width"], rows["height"], rows["n_frames"], rows["orientation"] = 300, 200, 1, 1
    rows["decoded"] = True
    facts_module._remember(cache / "set" / "facts.npz", rows, {})
    took = []
    for _ in range(5):
        start = time.perf_counter()
        assert header_findings(manifest, cache=cache) == []
        took.append(time.perf_counter() - start)
    assert min(took) < 0.15


# The picture


def test_the_picture_has_a_row_a_class_and_is_the_same_each_time(tmp_path, cache):
    manifest = load(build(tmp_path / "set"), cache)
    first = draw_gallery(manifest)
    assert draw_gallery(manifest) == first
    assert draw_gallery(manifest, seed=1) != first
    with Image.open(io.BytesIO(first)) as picture:
        drawn = np.asarray(picture.convert("RGB"))
    means = drawn.reshape(-1, 3)
    assert len(np.unique(means, axis=0)) > 1000, "photographs, not blank cells"


def test_the_picture_shows_the_largest_classes_and_skips_what_cannot_be_read(tmp_path, cache):
    folder = tmp_path / "set"
    for k in range(MOST_CLASSES + 3):
        for i in range(2 if k < 3 else 4):
            for split in ("train", "test"):
                path = folder / split / f"class {k:02} with a name of many words" / f"{i}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(jpeg(100 * k + 10 * i + len(split)))
    manifest = load(folder, cache)
    readable = np.ones(manifest.n_images, dtype=bool)
    readable[manifest.labels == 5] = False
    with Image.open(io.BytesIO(draw_gallery(manifest, readable=readable))) as picture:
        height = picture.height
    two = load(build(tmp_path / "two"), cache)
    with Image.open(io.BytesIO(draw_gallery(two))) as picture:
        row = (height - picture.height) / (MOST_CLASSES - 2)
    assert row == pytest.approx(140)


def test_a_file_that_went_leaves_its_cell_empty(tmp_path, cache):
    folder = build(tmp_path / "set", n=COLUMNS)
    manifest = load(folder, cache)
    whole = draw_gallery(manifest)
    bytes_of = (folder / "train/a/000.jpg").read_bytes()
    (folder / "train/a/000.jpg").unlink()
    assert draw_gallery(manifest) != whole
    (folder / "train/a/000.jpg").write_bytes(bytes_of + b"x")
    with pytest.raises(DataError, match=r"000\.jpg changed"):
        draw_gallery(manifest)


# Real sets


def test_the_placeholder_among_the_ants_is_found(real_ants_bees, cache):
    manifest = load(real_ants_bees, cache)
    (text,) = (t for t in header_findings(manifest, cache=cache) if "another format than the" in t)
    assert "train/ants/imageNotFound.gif (GIF)" in text
    assert found(manifest, cache, full=False)["odd-format"].paths == (
        "train/ants/imageNotFound.gif",
    )


def test_the_leaks_of_hotdog_are_found(real_hotdog, cache):
    manifest = load(real_hotdog, cache)
    leaks = {one.kind: one for one in copy_findings(manifest)}["leaks"]
    pairs = leaks.details["pairs"]
    assert len(pairs) == 8
    for test, train in pairs:
        assert test.startswith("test/")
        assert train.startswith("train/")
        ours, theirs = (real_hotdog / path for path in (test, train))
        assert ours.read_bytes() == theirs.read_bytes()


def test_the_same_photograph_twice_is_found_by_real_codes(tmp_path, real_hotdog, stage_one):
    folder = tmp_path / "set"
    chosen = {"test/not-hotdog/34793.jpg", "train/not-hotdog/92331.jpg"}  # other crop and colours
    for part, n in (("train/hotdog", 20), ("train/not-hotdog", 20), ("test/hotdog", 6),
                    ("test/not-hotdog", 6)):  # fmt: skip
        names = sorted(path.name for path in (real_hotdog / part).iterdir())
        chosen |= {f"{part}/{name}" for name in names[:n]}
    for path in sorted(chosen):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(real_hotdog / path, folder / path)
    first = min((folder / "train/hotdog").iterdir())
    with Image.open(first) as one:
        one.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / "test/hotdog/mirrored.jpg")
    manifest, cache = stage_one.manifest(folder), stage_one.cache
    stage_one(manifest, model="efficientnet_lite0", weights="default", size=0, engine="torch")
    near = find_near(manifest, cache)
    assert {pair[:2] for pair in near.pairs} == {
        ("test/not-hotdog/34793.jpg", "train/not-hotdog/92331.jpg"),
        ("test/hotdog/mirrored.jpg", f"train/hotdog/{first.name}"),
    }
    warnings = header_findings(manifest, cache=cache)
    assert any("34793.jpg ~ train/not-hotdog/92331.jpg" in text for text in warnings)


def test_what_manifest_and_audit_both_notice_stands_once(tmp_path, cache):
    one = jpeg(9000)
    folder = build(tmp_path / "set", {"train/a/c.jpg": one, "train/b/c.jpg": one})
    (folder / "train" / "a" / "empty.jpg").write_bytes(b"")
    manifest = load(folder, cache)
    assert {getattr(text, "kind", "") for text in manifest.warnings} >= {"contradictions"}
    found = header_findings(manifest, cache=cache)
    for kind in ("contradictions", "tiny-class", "absent-class", "left-out"):
        assert sum(text.kind == kind for text in found) <= 1, kind
    assert sum("several classes" in text for text in found) == 1
    audited = audit(context_of(manifest, cache, tmp_path / "results"))
    assert sum("several classes" in finding.text for finding in audited.findings) == 1
