"""Corrections: nothing acknowledged is lost, and every stage sees them as a layer on the set."""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from cnn_codes.cli import main
from cnn_codes.datasets.corrections import (
    Correction,
    CorrectionLog,
    State,
    corrected,
    read_corrections,
)
from cnn_codes.errors import DataError
from conftest import ROOT, StageOne
from pictures import jpeg, write_set


def change(manifest, row: int, label: str | None = None, **after) -> Correction:
    """Spell a correction of one row of a manifest."""
    before = State(label=manifest.class_names[manifest.labels[row]])
    what = "label" if label else "exclude" if after.get("excluded") else "group"
    values = {"label": label or before.label, "checked": True, **after}
    return Correction(
        manifest.paths[row], manifest.sha256[row].decode(), what, before, State(**values)
    )


@pytest.fixture
def pets(tmp_path, stage_one: StageOne):
    data = write_set(tmp_path / "pets", 60)
    return data, stage_one.manifest(data), CorrectionLog(tmp_path / "labels.jsonl")


def test_what_is_written_is_read_again_by_anybody(tmp_path):
    path = tmp_path / "results" / "pets" / "labels.jsonl"
    one, other = CorrectionLog(path), CorrectionLog(path)
    a = Correction("a.jpg", "0" * 64, "label", State("cat"), State("chat noir ☂", checked=True))
    b = Correction("b.jpg", "1" * 64, "exclude", State("cat"), State("cat", excluded=True))
    assert [e.path for e in one.append([a], "ann")] == ["a.jpg"]
    assert [e.path for e in other.append([b], "bob")] == ["a.jpg", "b.jpg"]  # the second sees it
    assert [e.path for e in one.refresh()] == ["b.jpg"]
    found = read_corrections(path)
    assert found == one.entries == other.entries
    assert [(e.who, e.after) for e in found] == [("ann", a.after), ("bob", b.after)]
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines[0]["before"]["label"] == "cat"
    assert lines[0]["when"].startswith("20")


def test_a_line_cut_short_is_dropped_and_the_next_one_is_sound(tmp_path):
    path = tmp_path / "labels.jsonl"
    log = CorrectionLog(path)
    entry = Correction("a.jpg", "0" * 64, "label", State("cat"), State("dog"))
    log.append([entry])
    with path.open("ab") as stream:
        stream.write(entry.line()[:-20])
    assert len(read_corrections(path)) == 1
    again = CorrectionLog(path)
    again.append([entry])
    assert len(read_corrections(path)) == 2


@pytest.mark.parametrize(
    "line",
    [
        b"nonsense\n",
        b"{}\n",
        b'{"schema": 2}\n',
        b"[1]\n",
        Correction("", "0" * 64, "label", State(), State()).line(),
        Correction("a", "0" * 63, "label", State(), State()).line(),
        Correction("a", "0" * 64, "rob", State(), State()).line(),
        Correction("a", "0" * 64, "label", State(), State()).line().replace(b"null", b"7"),
        Correction("a", "0" * 64, "label", State(), State("cat")).line().replace(b"cat", b"dog"),
        Correction("a", "0" * 64, "group", State(), State(group="g1")).line().replace(b"g1", b"g2"),
    ],
)
def test_a_damaged_line_is_named_not_skipped(tmp_path, line):
    path = tmp_path / "labels.jsonl"
    good = Correction("a.jpg", "0" * 64, "label", State("cat"), State("dog")).line()
    path.write_bytes(good + line + good)
    with pytest.raises(DataError, match="line 2"):
        read_corrections(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_corrections(tmp_path / "none.jsonl")


def test_labels_change_and_the_split_stays(pets):
    _, manifest, log = pets
    log.append(
        [change(manifest, 3, "dog"), change(manifest, 5, "bird"), change(manifest, 7, "dog")]
    )
    log.append([change(manifest, 7, "cat")])
    found = corrected(manifest, log.path)
    assert found.class_names == ("bird", "cat", "dog")
    names = [found.class_names[k] for k in found.labels]
    assert (names[3], names[5], names[7]) == ("dog", "bird", "cat")
    assert found.paths == manifest.paths
    assert np.array_equal(found.split, manifest.split)
    others = [row for row in range(60) if row not in (3, 5, 7)]
    assert [names[row] for row in others] == [
        manifest.class_names[manifest.labels[row]] for row in others
    ]
    assert any("2 labels were changed" in text for text in found.warnings)


def test_excluded_images_go_and_a_class_without_images_goes_with_them(pets):
    _, manifest, log = pets
    cats = np.flatnonzero(manifest.labels == 0)
    log.append([change(manifest, int(row), excluded=True) for row in cats])
    found = corrected(manifest, log.path)
    assert found.class_names == ("dog",)
    assert found.n_images == 60 - len(cats)
    log.append([change(manifest, int(r), excluded=True) for r in np.flatnonzero(manifest.labels)])
    with pytest.raises(DataError, match="excludes every image"):
        corrected(manifest, log.path)


def test_a_correction_holds_for_the_bytes_it_was_made_on(pets, stage_one):
    data, manifest, log = pets
    log.append([change(manifest, 0, "dog"), change(manifest, 1, "dog")])
    (data / manifest.paths[0]).write_bytes(jpeg(777))  # another image under the same name
    (data / manifest.paths[1]).rename(data / "cat" / "moved.jpg")  # the same image elsewhere
    found = stage_one.manifest(data, labels=str(log.path))
    names = dict(zip(found.paths, [found.class_names[k] for k in found.labels], strict=True))
    assert names[manifest.paths[0]] == "cat"
    assert names["cat/moved.jpg"] == "dog"
    assert any("have other bytes now" in text for text in found.warnings)


def test_groups_join_images_and_cut_the_split_again(pets):
    _, manifest, log = pets
    rows = np.flatnonzero(manifest.labels == 0)[:12]
    log.append([change(manifest, int(row), group="one cat") for row in rows])
    found = corrected(manifest, log.path)
    assert len(set(found.groups[rows].tolist())) == 1
    assert len(set(found.split[rows].tolist())) == 1
    assert len(set(found.groups.tolist())) == 60 - 11


def test_added_images_join_train_and_their_codes_alone_are_run(pets, stage_one, tmp_path):
    data, manifest, log = pets
    before = stage_one(manifest)
    folder = tmp_path / "labels.images"
    folder.mkdir()
    import hashlib

    entries = []
    for i, label in enumerate(("dog", "cat", None)):
        content = jpeg(9000 + i)
        (folder / f"{i}.jpg").write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        entries.append(
            Correction(
                f"labels.images/{i}.jpg", digest, "label", State(), State(label, checked=True),
                added=True,
            )
        )  # fmt: skip
    log.append(entries)
    after = stage_one.manifest(data, labels=str(log.path))
    assert after.n_images == 62
    assert list(after.paths) == sorted(after.paths)
    new = [row for row, path in enumerate(after.paths) if path not in manifest.paths]
    assert {after.class_names[after.labels[row]] for row in new} == {"cat", "dog"}
    assert all(after.split[row] == 0 for row in new)
    done = stage_one(after)
    assert (before.n_new, done.n_new, done.n_kept) == (60, 2, 60)
    (folder / "0.jpg").unlink()
    fewer = stage_one.manifest(data, labels=str(log.path))
    assert fewer.n_images == 61
    assert any("files are not there" in text for text in fewer.warnings)


def test_every_stage_takes_the_layer_and_data_writes_the_clean_table(pets, inside, tmp_path):
    data, manifest, log = pets
    log.append([change(manifest, 0, "dog"), change(manifest, 1, excluded=True)])
    out = tmp_path / "clean" / "new.csv"
    done = inside("data", data=data, labels=log.path, out=out)
    assert done.returncode == 0, done.stderr
    assert "59 images of 2 classes" in done.stdout
    with out.open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 59
    assert next(row["label"] for row in rows if row["path"].endswith(manifest.paths[0])) == "dog"
    again = inside("data", data=out)
    assert "59 images of 2 classes" in again.stdout
    missing = inside("data", data=data, labels=tmp_path / "none.jsonl")
    assert missing.returncode == 2
    assert "none.jsonl" in missing.stderr


WRITER = """
import sys
from pathlib import Path
from cnn_codes.datasets.corrections import Correction, CorrectionLog, State
log = CorrectionLog(Path(sys.argv[1]))
start = int(sys.argv[2])
print("ready", flush=True)
for i in range(start, start + 100000):
    one = Correction(f"{i}.jpg", "0" * 64, "label", State("a"), State("b" * (i % 300)))
    log.append([one, one], "me")
    print(i, flush=True)
"""


def killed(path: Path, n_kills: int) -> None:
    """Kill a writer again and again; every correction that it reported must be there."""
    told: set[int] = set()
    start, chance = 0, random.Random(0)
    for _ in range(n_kills):
        child = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(start)],
            cwd=ROOT, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert child.stdout.readline() == "ready\n"
        time.sleep(chance.uniform(0, 0.08))
        os.kill(child.pid, signal.SIGKILL)
        reported = [int(line) for line in child.stdout.read().split("\n") if line.isdecimal()]
        child.stdout.close()
        child.wait()
        told.update(reported)
        start += 1_000_000
    there = [int(one.path.removesuffix(".jpg")) for one in read_corrections(path)]
    assert told <= set(there)
    assert len(told) > n_kills // 4
    assert all(there.count(i) == 2 for i in list(told)[:200])


def test_no_acknowledged_correction_is_lost_by_kill_9(tmp_path):
    killed(tmp_path / "labels.jsonl", 5)


@pytest.mark.slow
def test_no_acknowledged_correction_is_lost_by_100_kills(tmp_path):
    killed(tmp_path / "labels.jsonl", 100)


def test_two_writers_at_once_lose_nothing(tmp_path):
    path = tmp_path / "labels.jsonl"
    children = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER.replace("100000", "40"), str(path), str(1000 * k)],
            cwd=ROOT, stdout=subprocess.DEVNULL,
        )
        for k in range(3)
    ]  # fmt: skip
    assert [child.wait(120) for child in children] == [0, 0, 0]
    there = [one.path for one in read_corrections(path)]
    assert len(there) == 3 * 40 * 2
    assert len(set(there)) == 120


def test_a_full_disk_keeps_what_was_there(tmp_path):
    import resource

    path = tmp_path / "labels.jsonl"
    log = CorrectionLog(path)
    entry = Correction("a.jpg", "0" * 64, "label", State("cat"), State("dog"))
    log.append([entry])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10, limits[1]))
        from cnn_codes.errors import NoSpaceError

        with pytest.raises(NoSpaceError):
            log.append([entry])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert len(read_corrections(path)) == 1
    log.append([entry])
    assert len(read_corrections(path)) == 2


def test_the_page_is_refused_without_its_extra(monkeypatch, capsys):
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "fastapi" else real(name, *a)
    )
    assert main(["label"]) == 2
    assert "[serve]" in capsys.readouterr().err
