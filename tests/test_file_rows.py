"""Heads on codes that stay on disk: read in blocks, equal to the ones in memory, memory flat."""

import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import cnn_codes.heads.design as design_module
import cnn_codes.heads.examples as examples_module
import cnn_codes.heads.room as room_module
import cnn_codes.heads.run as run_module
import numpy as np
import pytest
from cnn_codes.backbones.preprocess import Preprocessing
from cnn_codes.codes.cache import CacheFile
from cnn_codes.codes.format import MATTERS
from cnn_codes.codes.joined import join_codes
from cnn_codes.codes.keys import Key
from cnn_codes.codes.reader import Codes, open_codes
from cnn_codes.context import Context
from cnn_codes.datasets import Manifest
from cnn_codes.errors import HeadError
from cnn_codes.files import digest_of
from cnn_codes.heads.examples import take
from cnn_codes.heads.file_rows import FileRows
from cnn_codes.heads.linear import LinearPath
from cnn_codes.heads.problem import Problem
from cnn_codes.heads.run import fit_heads
from cnn_codes.progress import Messages
from cnn_codes.results.predictions import read_predictions
from cnn_codes.settings import CodesSettings, HeadSettings, PlaceSettings, as_dict
from conftest import ROOT, ran
from numpy.typing import NDArray


def drawn(n: int, d: int, k: int, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Draw codes (n, d) of k classes."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(n) % k).astype(np.int32)
    centres = rng.normal(size=(k, d)).astype(np.float32) / 4
    return centres[labels] + rng.standard_normal((n, d), np.float32), labels


def images(labels: NDArray[np.int32]) -> Manifest:
    """Make a manifest of images that nobody has to look at; every fifth is test."""
    n = len(labels)
    shas = [hashlib.sha256(str(i).encode()).hexdigest().encode() for i in range(n)]
    return Manifest(
        name="large", root=Path("/nowhere"), paths=tuple(f"{i:07}.jpg" for i in range(n)),
        sha256=np.array(shas, "S64"), labels=labels,
        split=np.where(np.arange(n) % 5 == 4, 2, 0).astype(np.int8),
        class_names=tuple(f"class {k}" for k in range(int(labels.max()) + 1)),
    )  # fmt: skip


def published(
    cache: Path, manifest: Manifest, layers: dict[str, NDArray[np.float32]], model: str = "made"
) -> Codes:
    """Write a file of codes as stage one does."""
    square = Preprocessing(32, 1.0, "stretch", "bilinear", (0.5,) * 3, (0.5,) * 3)
    asked = CodesSettings(model=model, layers=tuple(layers), dtype="float16")
    config = {
        "backbone": ["made", model], "weights_digest": "0" * 64, "layers": list(layers),
        "pool": "mean", "views": ["center", 1, 0], "preprocessing": square.as_dict(),
        "precision": "float32", "dtype": "float16", "model": model, "size": 32, "n_views": 1,
        "asked": as_dict(asked), "weights": "made",
    }  # fmt: skip
    fingerprint = digest_of({name: config[name] for name in MATTERS})
    file = CacheFile(Key(cache / manifest.name / f"{model}.h5", fingerprint, config))
    blocks = [np.ascontiguousarray(block, np.float16) for block in layers.values()]
    with file.locked(None):
        file.add_part([sha.decode() for sha in manifest.sha256.tolist()], blocks, {}, 1.0)
        return file.publish(manifest, file.known())


def context(folder: Path, manifest: Manifest, said: list[str]) -> Context:
    places = PlaceSettings(cache=str(folder / "cache"), results=str(folder / "results"))
    return Context(manifest=manifest, places=places, messages=Messages(say=said.append))


def test_rows_on_disk_are_indexed_as_an_array_is(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = []
    for name, dtype, shape in (("a", np.float16, (50, 3, 4)), ("b", np.float32, (50, 3, 2, 2))):
        np.save(tmp_path / f"{name}.npy", rng.normal(size=shape).astype(dtype))
        arrays.append(np.load(tmp_path / f"{name}.npy", mmap_mode="r"))
    whole = np.concatenate([arrays[0], arrays[1].reshape(50, 3, 4)], axis=2).astype(np.float32)
    rows = FileRows(arrays, 3)
    assert (rows.shape, rows.ndim, rows.dtype, len(rows)) == ((50, 3, 8), 3, np.float32, 50)
    assert FileRows(arrays[:1], 3).dtype == np.float16
    some = rng.permutation(50)[:20]
    mask = rng.random(50) < 0.5
    for index in (slice(3, 9), slice(None), slice(48, 90), some):
        assert np.array_equal(rows[index], whole[index])
    part = take(rows, some)
    assert isinstance(part, FileRows)
    assert np.array_equal(np.asarray(part), whole[some])
    assert np.array_equal(take(part, np.arange(5)[::-1])[:], whole[some][:5][::-1])
    assert np.array_equal(take(rows, mask)[:], whole[mask])
    assert np.array_equal(take(whole, mask), whole[mask])
    assert isinstance(take(arrays[0], some), FileRows)  # a memory map is not copied either
    nested = FileRows([take(rows, some), FileRows(arrays[:1], 3, some)], 3)
    assert np.array_equal(nested[2:7], np.concatenate([whole[some], whole[some][..., :4]], 2)[2:7])
    rows.release()
    assert np.array_equal(rows[:], whole)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")
def test_rows_far_apart_leave_no_pages_behind(tmp_path: Path) -> None:
    """The system maps what lies around a row too: the basis of a set takes one row in hundreds."""
    np.save(tmp_path / "codes.npy", np.zeros((100_000, 1280), np.float16))
    rows = FileRows([np.load(tmp_path / "codes.npy", mmap_mode="r")], 1)

    def mapped() -> float:
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("RssFile")).split()[1]) / 1024

    before, most = mapped(), 0.0
    for block in np.array_split(np.linspace(0, len(rows) - 1, 4096).astype(int), 40):
        rows[block]
        most = max(most, mapped() - before)
    assert most < 64  # MiB; 240 where only the bytes asked for are counted


@pytest.mark.parametrize(
    ("test", "methods"), [("split", ("softmax", "svm", "ridge")), ("cv:3", ("svm",))]
)
def test_heads_leave_codes_on_disk_that_are_too_large_for_memory(
    test: str, methods: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes, labels = drawn(400, 24, 3)
    manifest = images(labels)
    file = published(tmp_path / "cache", manifest, {"first": codes[:, :10], "last": codes[:, 10:]})
    settings = HeadSettings(methods=methods, folds=3, jobs=1, test=test)

    def fitted(folder: Path, said: list[str]) -> list[tuple[float, NDArray[np.float64]]]:
        of = context(folder, manifest, said)
        records = fit_heads(of, file, settings)
        paths = [of.folder / f"{one['run']}.predictions.csv" for one in records]
        found = [read_predictions(path).probabilities for path in paths]
        return [(one["chosen"]["C"], p) for one, p in zip(records, found, strict=True)]

    said: list[str] = []
    inside = fitted(tmp_path / "inside", said)
    assert not said
    monkeypatch.setattr(run_module, "available_bytes", lambda: 50_000.0)
    monkeypatch.setattr(design_module, "CACHED_BYTES", 0)
    monkeypatch.setattr(design_module, "BLOCK_BYTES", 4 * 24 * 64)
    monkeypatch.setattr(Codes, "matrix", None)  # whoever reads them all fails
    outside = fitted(tmp_path / "outside", said)
    assert len(said) == len(methods)
    assert said[0] == (
        "The codes take 38.4 kB as float32, more than 40 % of the 50.0 kB of memory that are free: "
        "they are read from disk in blocks."
    )
    for (c, p), (other_c, other_p) in zip(inside, outside, strict=True):
        assert c == other_c
        np.testing.assert_allclose(p, other_p, atol=1e-3)

    with pytest.raises(HeadError, match="knn needs them in memory") as caught:
        fit_heads(context(tmp_path, manifest, []), file, replace(settings, methods=("knn",)))
    assert "METHODS=svm,softmax,ridge" in caught.value.todo


def test_several_networks_stay_on_disk_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes, labels = drawn(200, 12, 2)
    manifest = images(labels)
    parts = [
        published(tmp_path / "cache", manifest, {"final": codes[:, :8]}, "one"),
        published(tmp_path / "cache", manifest, {"final": codes[:, 8:]}, "two"),
    ]
    both = join_codes(CodesSettings(model="one+two", dtype="float16"), parts)
    assert both.matrix_bytes == both.matrix().nbytes == 4 * 200 * 12
    settings = HeadSettings(methods=("svm",), folds=3, jobs=1)
    (inside,) = fit_heads(context(tmp_path / "inside", manifest, []), both, settings)
    monkeypatch.setattr(run_module, "available_bytes", lambda: 0.0)
    (outside,) = fit_heads(context(tmp_path / "outside", manifest, []), both, settings)
    for key in ("accuracy", "log_loss"):
        assert outside["metrics"]["test"][key] == pytest.approx(inside["metrics"]["test"][key])


def test_free_memory_is_the_least_that_the_system_and_the_group_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert room_module.available_bytes() > 0
    group = tmp_path / "outer" / "inner"
    group.mkdir(parents=True)
    for folder, limit in ((group, "max"), (group.parent, "1000000")):
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text("700000\n")
        (folder / "memory.stat").write_text("anon 600000\ninactive_file 50000\n")
    (tmp_path / "groups").write_text("0::/outer/inner\n")
    (tmp_path / "facts").write_text("MemTotal: 9000 kB\nMemAvailable:    4000 kB\n")
    monkeypatch.setattr(room_module, "_GROUP_ROOT", tmp_path)
    monkeypatch.setattr(room_module, "_GROUPS", tmp_path / "groups")
    monkeypatch.setattr(room_module, "_MEMINFO", tmp_path / "facts")
    assert room_module.available_bytes() == 350_000
    (group.parent / "memory.max").write_text("max\n")
    assert room_module.available_bytes() == 4_096_000
    (tmp_path / "facts").unlink()
    assert room_module.available_bytes() > 1e8  # half of the machine's


CHILD = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
import cnn_codes.heads.run as run
import cnn_codes.heads.fit, cnn_codes.heads.search
from cnn_codes.codes.reader import open_codes
from cnn_codes.settings import HeadSettings
from test_file_rows import context, drawn, images
folder, free = Path(sys.argv[1]), float(sys.argv[2])
codes = open_codes(folder / "cache/large/made.h5")
run.available_bytes = lambda: free
said = []
of = context(folder / f"{free}", images(codes.labels.copy()), said)
def peak():  # of this process: ru_maxrss begins at that of the process that started it
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
before = peak()
(record,) = run.fit_heads(of, codes, HeadSettings(methods=("softmax",), folds=2, jobs=1))
print(json.dumps([peak() - before, said, str(of.folder / record["run"])]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")
def test_memory_is_flat_where_codes_stay_on_disk(tmp_path: Path) -> None:
    """40,000 x 1,280: 205 MB as float32, which a fit in memory holds about twice."""
    codes, labels = drawn(40_000, 1280, 2)
    published(tmp_path / "cache", images(labels), {"final": codes})
    del codes

    def child(free: float) -> tuple[int, list[str], NDArray[np.float64]]:
        line = [sys.executable, "-c", CHILD, str(tmp_path), str(free), str(ROOT / "tests")]
        done = ran(line, timeout=1200)
        assert done.returncode == 0, done.stderr
        n_bytes, said, run = json.loads(done.stdout)
        return n_bytes, said, read_predictions(Path(f"{run}.predictions.csv")).probabilities

    inside, said, p = child(1e12)
    assert not said
    outside, said, other = child(1e6)
    assert len(said) == 1
    np.testing.assert_allclose(other, p, atol=1e-3)
    # Libraries are in both. Seen: 661 MB in memory, 250 to 330 MB from disk.
    assert inside > 500e6
    assert outside < 400e6
    assert open_codes(tmp_path / "cache" / "large" / "made.h5").layers == ("final",)


@pytest.mark.parametrize("method", ["svm", "softmax", "ridge"])
def test_a_part_of_large_codes_is_read_where_it_lies_to_the_same_bits(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes, labels = drawn(900, 24, 3)
    held = np.arange(0, 900, 5)
    fold = (np.setdiff1d(np.arange(900), held), held)
    found = []
    for most in (2**30, 0):
        monkeypatch.setattr(examples_module, "COPIED_BYTES", most)
        problem = Problem(method, codes[:, None], labels, codes[:, None], labels, [fold], 3)
        path = LinearPath(problem, jobs=2)
        assert isinstance(path.design.codes, FileRows) == (most == 0)
        assert path.solve(0.01)
        found.append(path.scores(0.01))
    assert np.array_equal(*found)
