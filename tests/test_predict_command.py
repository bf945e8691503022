"""``predict``: what IMAGES may be, what is written, and what happens to bad images and bad luck."""

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cnn_codes.predict import Outcome
from cnn_codes.predict.inputs import gathered
from cnn_codes.predict.output import Table
from conftest import ROOT
from pictures import damaged, jpeg
from predicting import Workshop


@pytest.fixture(scope="module")
def shop(hotdog: Path, tmp_path_factory: pytest.TempPathFactory, backbones: Path) -> Workshop:
    return Workshop.open(hotdog, tmp_path_factory.mktemp("command"), backbones)


@pytest.fixture(scope="module")
def run(shop: Workshop) -> Path:
    return shop.heads("svm")[0]


@pytest.fixture
def folder(shop: Workshop, tmp_path: Path) -> Path:
    """Give a folder of images in two folders, with some other files."""
    images = tmp_path / "images"
    (images / "a" / "deep").mkdir(parents=True)
    first, second, third = shop.test_images()[:3]
    shutil.copy(first, images / "a" / "one.jpg")
    shutil.copy(second, images / "a" / "deep" / "two.JPG")
    shutil.copy(third, images / "three.jpg")
    (images / "readme.md").write_text("no image")
    (images / ".hidden.jpg").write_bytes(b"")
    return images


def rows(out: Path) -> list[dict[str, str]]:
    data = out.read_bytes().decode("utf-8", "surrogateescape")
    return list(csv.DictReader(io.StringIO(data, newline="")))


def names(images: Path | str) -> list[str]:
    with gathered(str(images)) as inputs:
        assert all(Path(path).is_file() for path in inputs.paths)
        return list(inputs.names)


def test_images_are_a_file_a_folder_a_glob_a_list_a_table_or_an_archive(
    folder: Path, tmp_path: Path
) -> None:
    three = [folder / "a" / "deep" / "two.JPG", folder / "a" / "one.jpg", folder / "three.jpg"]
    assert names(folder / "three.jpg") == [str(folder / "three.jpg")]
    assert sorted(names(folder)) == sorted(map(str, three))
    assert names(f"{folder}/a/*.jpg") == [str(folder / "a" / "one.jpg")]
    assert sorted(names(f"{folder}/**/*.[jJ]*")) == sorted(map(str, three))
    assert sorted(names(f"{folder}/*")) == sorted(map(str, three))  # folders that it names, too

    lines = tmp_path / "list.txt"
    lines.write_text("images/a/one.jpg\r\n\nimages/three.jpg hotdog\n")  # a label may follow
    assert names(lines) == ["images/a/one.jpg", "images/three.jpg"]
    table = tmp_path / "table.csv"
    table.write_text("label;path\n1;images/a/one.jpg\n2;images/three.jpg\n")
    assert names(table) == ["images/a/one.jpg", "images/three.jpg"]

    packed = tmp_path / "packed.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for path in three:
            archive.write(path, path.relative_to(folder))
        archive.writestr("notes.md", "no image")
    with gathered(str(packed)) as inputs:
        assert inputs.names == ("three.jpg", "a/one.jpg", "a/deep/two.JPG")
        assert "1 file is no image" in inputs.remarks[0]
        place = Path(inputs.paths[0])
        assert place.read_bytes() == three[2].read_bytes()
    assert not place.exists()


def test_a_link_back_up_does_not_go_round(folder: Path) -> None:
    (folder / "a" / "again").symlink_to(folder)
    assert len(names(folder)) == 3


def test_nothing_to_predict_is_said(
    shop: Workshop, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "no-path.csv").write_text("subject,label\nx.jpg,1\n")
    for images, said in (
        ("", "IMAGES says which"),
        (tmp_path / "nowhere", "There is nothing at"),
        (tmp_path / "empty", "holds no image"),
        (f"{tmp_path}/*.jpg", "holds no image"),
        (tmp_path / "empty.txt", "names no images"),
        (tmp_path / "no-path.csv", "no column path"),
    ):
        assert shop.predict(images, run) == 2
        assert said in capsys.readouterr().err


def test_csv_has_a_row_an_image_and_a_column_a_class(
    shop: Workshop, run: Path, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "made" / "out.csv"
    assert shop.predict(folder, run, out=out, top=2, nearest=1) == 0
    found = rows(out)
    assert list(found[0]) == [
        "path", "predicted", "status", "reason", "distance", "unlike",
        "top1", "top1_probability", "top2", "top2_probability",
        "nearest1", "nearest1_class", "nearest1_distance", "hotdog", "not-hotdog",
    ]  # fmt: skip
    assert [row["path"] for row in found] == names(folder)
    expected = shop.load(run).predict_proba([row["path"] for row in found])
    for row, probabilities in zip(found, expected, strict=True):
        assert [float(row["hotdog"]), float(row["not-hotdog"])] == probabilities.tolist()
        assert row["predicted"] == row["top1"] == ["hotdog", "not-hotdog"][probabilities.argmax()]
        assert float(row["top1_probability"]) == probabilities.max()
        assert float(row["nearest1_distance"]) == float(row["distance"])
        assert (shop.images / row["nearest1"]).parent.name == row["nearest1_class"]
        assert row["status"] == "ok"


def test_json_lines_say_the_same(
    shop: Workshop, run: Path, folder: Path, tmp_path: Path, capfdbinary: Any
) -> None:
    assert shop.predict(folder, run, out=tmp_path / "out.csv", top=1) == 0
    assert shop.predict(folder, run, out=tmp_path / "out.jsonl", top=1) == 0
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_bytes().splitlines()]
    for row, line in zip(rows(tmp_path / "out.csv"), lines, strict=True):
        assert line["path"] == row["path"]
        assert line["predicted"] == row["predicted"]
        assert {k: repr(v) for k, v in line["probabilities"].items()} == {
            k: row[k] for k in ("hotdog", "not-hotdog")
        }
        assert line["top"][0]["class"] == row["top1"]
        assert repr(line["distance"]) == row["distance"]
        assert line["unlike"] is (row["unlike"] == "1")
    capfdbinary.readouterr()
    assert shop.predict(folder, run, format="jsonl", top=1) == 0
    printed = [json.loads(line) for line in capfdbinary.readouterr().out.splitlines()]
    assert printed == lines


def test_below_the_threshold_no_class_is_named(
    shop: Workshop, run: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shop.predict(folder, run, out=tmp_path / "all.csv", abstain=1) == 0
    for row in rows(tmp_path / "all.csv"):
        assert (row["predicted"], row["status"]) == ("", "abstain")
        assert "is below 1" in row["reason"]
        assert float(row["hotdog"]) + float(row["not-hotdog"]) == pytest.approx(1)
    assert "3 images have no class" in capsys.readouterr().err
    assert shop.predict(folder, run, out=tmp_path / "none.csv", abstain=0.5) == 0
    assert {row["status"] for row in rows(tmp_path / "none.csv")} == {"ok"}


def test_without_the_training_codes_there_are_no_distances(
    shop: Workshop, run: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "backbones").symlink_to(shop.cache / "backbones")
    out = tmp_path / "out.csv"
    assert shop.predict(folder, run, out=out, cache=tmp_path / "cache") == 0
    assert "no distances to the training images" in capsys.readouterr().err
    assert "distance" not in rows(out)[0]
    assert shop.predict(folder, run, out=out, cache=tmp_path / "cache", nearest=1) == 2
    assert "NEAREST=1 needs" in capsys.readouterr().err
    assert shop.predict(folder, run, out=out, unlike=0) == 0
    assert "distance" not in rows(out)[0]


def test_bad_images_have_rows_that_say_so(
    shop: Workshop, run: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = damaged(40)
    for name, data in bad:
        (folder / name).write_bytes(data)
    (folder / "folder.jpg").mkdir()
    os.mkfifo(folder / "pipe.jpg")
    (folder / "nowhere.jpg").symlink_to("gone.jpg")
    out = tmp_path / "out.csv"
    assert shop.predict(folder, run, out=out, top=1) == 0
    found = {Path(row["path"]).name: row for row in rows(out)}
    assert len(found) == 3 + len(bad) + 2
    for name in [*(name for name, _ in bad), "pipe.jpg", "nowhere.jpg"]:
        assert found[name]["status"] == "error", name
        assert found[name]["reason"], name
        assert found[name]["predicted"] == found[name]["hotdog"] == ""
    assert found["one.jpg"]["status"] == "ok"
    assert f"{len(bad) + 2} images cannot be used" in capsys.readouterr().err


def test_all_bad_is_an_error(
    shop: Workshop, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"no")
    out = tmp_path / "out.csv"
    assert shop.predict(tmp_path / "bad.jpg", run, out=out) == 2
    assert "None of the 1 images can be used" in capsys.readouterr().err
    assert rows(out)[0]["status"] == "error"


def test_odd_file_names_come_back_as_they_are(
    shop: Workshop, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = tmp_path / "odd"
    images.mkdir()
    odd = [b"two\nlines.jpg", b"caf\xe9.jpg", b'a,"b".jpg', b"r\r.jpg", "Würstchen.jpg".encode()]
    for number, name in enumerate(odd):
        (images / os.fsdecode(name)).write_bytes(jpeg(number))
    for suffix in ("csv", "jsonl"):
        out = tmp_path / f"out.{suffix}"
        assert shop.predict(images, run, out=out) == 0
        if suffix == "csv":
            paths = [row["path"] for row in rows(out)]
        else:
            paths = [json.loads(line)["path"] for line in out.read_bytes().split(b"\n")[:-1]]
        assert sorted(os.fsencode(Path(path).name) for path in paths) == sorted(odd)


def test_no_cell_is_a_formula(
    shop: Workshop, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evil = "=cmd|' !A0.jpg"
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / evil).write_bytes(jpeg(0))
    monkeypatch.chdir(tmp_path / "in")
    assert shop.predict("*.jpg", run, out=tmp_path / "out.csv") == 0
    (row,) = rows(tmp_path / "out.csv")
    assert row["path"] == f"./{evil}"
    assert Path(row["path"]).is_file()  # still the same file
    assert shop.predict("*.jpg", run, out=tmp_path / "out.jsonl") == 0
    assert json.loads((tmp_path / "out.jsonl").read_text())["path"] == evil

    table = Table(("=1+1", "-1", "+2.5", "@x", "plain"), top=1)
    header = next(csv.reader([table.header().decode()]))
    assert header[-5:] == ["'=1+1", "-1", "+2.5", "'@x", "plain"]
    outcome = Outcome("image 0", np.array([0.6, 0.1, 0.1, 0.1, 0.1]))
    cells = next(csv.reader([table.line(table.row(outcome)).decode()]))
    assert cells[:2] == ["image 0", "'=1+1"]


def test_class_names_never_hide_another_column() -> None:
    table = Table(("path", "status", "\ud800"))
    header = table.header().decode()
    assert header.strip() == "path,predicted,status,reason,class path,class status,\\ud800"


@pytest.mark.parametrize("name", ["one.jpg", "x.zip", "x.model.json", "x.predictions.csv", "a"])
def test_out_never_replaces_what_is_read(
    shop: Workshop, run: Path, folder: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = folder / "a" / name if name != "a" else folder / "a"
    before = out.read_bytes() if out.is_file() else None
    assert shop.predict(folder, run, out=out) == 2
    assert "OUT=" in capsys.readouterr().err
    assert (out.read_bytes() if out.is_file() else None) == before


def test_out_is_neither_the_list_nor_the_record(shop: Workshop, run: Path, folder: Path) -> None:
    listed = folder / "list.csv"
    listed.write_text("path\na/one.jpg\n")
    record = run.read_bytes()
    assert shop.predict(listed, run, out=listed) == 2
    assert shop.predict(listed, run.stem, out=run) == 2
    assert listed.read_text() == "path\na/one.jpg\n"
    assert run.read_bytes() == record


def test_out_may_be_a_device_or_a_link(
    shop: Workshop, run: Path, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "null").symlink_to(os.devnull)
    assert shop.predict(folder, run, out=tmp_path / "null") == 0
    assert Path(os.devnull).is_char_device()
    (tmp_path / "link.csv").symlink_to(tmp_path / "goal.csv")
    assert shop.predict(folder, run, out=tmp_path / "link.csv") == 0
    assert (tmp_path / "link.csv").is_symlink()
    assert len(rows(tmp_path / "goal.csv")) == 3


def test_ctrl_c_leaves_out_as_it_was(
    shop: Workshop, run: Path, folder: Path, tmp_path: Path
) -> None:
    listed = tmp_path / "many.txt"
    listed.write_text("images/three.jpg\n" * 20_000)
    out = tmp_path / "made" / "out.csv"
    out.parent.mkdir()
    out.write_text("what was there")
    command = [
        sys.executable, "-m", "pipeline", "predict", f"IMAGES={listed}", f"RUN={run}",
        f"CACHE={shop.cache}", f"OUT={out}", "OFFLINE=1",
    ]  # fmt: skip
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        for _ in range(600):  # until rows have been written beside it
            if any(one.stat().st_size > 10_000 for one in out.parent.glob(".out.csv.*")):
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "out.csv was not written" in said
    assert "Traceback" not in said
    assert [one.name for one in out.parent.iterdir()] == ["out.csv"]
    assert out.read_text() == "what was there"


def test_make_hands_the_settings_on(shop: Workshop, run: Path, folder: Path) -> None:
    """The Makefile's target is the same command; its list of variables has every setting."""
    written = subprocess.run(
        ["make", "-n", "predict", f"IMAGES={folder}", f"RUN={run}", "TOP=2", "READY=", "PY=python"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "-m pipeline predict" in written
    for given in (f"'IMAGES={folder}'", f"'RUN={run}'", "'TOP=2'"):
        assert given in written
