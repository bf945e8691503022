"""CSV that no spreadsheet evaluates and that is read back exactly: the kind, over every writer."""

import ast
import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from cnn_codes.cells import csv_bytes, csv_rows, plain, plain_path, safe, safe_path
from cnn_codes.datasets.tables import write_table
from cnn_codes.heads.costs import read_costs
from cnn_codes.next.stage import Next, write_next
from cnn_codes.predict.classifier import Outcome
from cnn_codes.predict.output import Table
from cnn_codes.results.predictions import Predictions, read_predictions, write_predictions
from conftest import SMALL
from hypothesis import given
from hypothesis import strategies as st
from pictures import jpeg, write_set

ROOT = Path(__file__).parents[1]
EVIL = (
    "=1+1",
    "+x",
    "-x",
    "@x",
    "\tx",
    "\rx",
    "\nx",
    "'=1+1",
    "''@x",
    " =x",
    "\uff1dx",
    "'",
    "cat",
)
FORMULA = re.compile(r"[\s=+\-@\uff1d\uff0b\uff0d\uff20]")
names = st.text(st.sampled_from("=+-@'\t\r\n ./19ae\uff1d"), max_size=6)


def assert_inert(data: bytes) -> None:
    cells = [c for row in csv.reader(io.StringIO(data.decode(), newline="")) for c in row]
    assert cells
    for cell in cells:
        assert not FORMULA.match(cell) or re.fullmatch(r"[+-]?[0-9.]+(e[+-]?\d+)?", cell), cell


@given(st.one_of(st.text(), names))
def test_what_was_marked_comes_back_and_is_no_formula(text):
    assert plain(safe(text)) == text
    assert plain_path(safe_path(text)) == text
    for one in (safe(text), safe_path(text)):
        assert not FORMULA.match(one) or float(one) == float(text)


@given(st.lists(st.lists(names, min_size=2, max_size=4), min_size=1))
def test_rows_come_back(rows):
    data = csv_bytes(rows, paths=(1,))
    assert csv_rows(data, paths=(1,)) == rows
    assert_inert(data)


def test_no_module_writes_csv_of_its_own():
    for path in (ROOT / "pipeline").rglob("*.py"):
        if path.name != "cells.py":
            for node in ast.walk(ast.parse(path.read_text())):
                name = node.attr if isinstance(node, ast.Attribute) else ""
                assert name not in ("DictWriter", "to_csv", "savetxt", "write_csv"), path
                assert not (name == "writer" and ast.unparse(node) == "csv.writer"), path


def test_predictions_come_back(tmp_path):
    n = len(EVIL)
    paths = tuple(f"{one}.jpg" for one in EVIL)
    made = Predictions(paths, np.arange(n, dtype=np.int32), np.eye(n), EVIL)
    write_predictions(tmp_path / "p.csv", made)
    assert_inert((tmp_path / "p.csv").read_bytes())
    found = read_predictions(tmp_path / "p.csv")
    assert (found.paths, found.class_names) == (paths, EVIL)
    assert np.array_equal(found.labels, made.labels)
    assert np.array_equal(found.probabilities, made.probabilities)


def test_predictions_of_earlier_versions_are_read(tmp_path):
    (tmp_path / "p.csv").write_text("path,label,predicted,=a,@b\n-x.jpg,=a,=a,0.75,0.25\n")
    assert read_predictions(tmp_path / "p.csv").class_names == ("=a", "@b")


def test_rows_of_predict_and_next_are_inert(tmp_path):
    table = Table(EVIL, top=2, limit=1.0, n_nearest=0)
    outcome = Outcome("=x.jpg", np.eye(len(EVIL))[0])
    bad = Outcome("+y.jpg", None, error="=cmd()")
    data = table.header() + table.line(table.row(outcome)) + table.line(table.row(bad))
    assert_inert(data)
    rows = csv_rows(data, paths=(0,))
    assert rows[0][-len(EVIL) :] == list(EVIL)
    assert rows[1][:2] == ["=x.jpg", "=1+1"]
    paths = tuple(f"{one}.jpg" for one in EVIL)
    write_next(Next(paths, EVIL, (0.5,) * len(EVIL), "margin", 9, 9, ()), tmp_path / "n.csv")
    assert_inert((tmp_path / "n.csv").read_bytes())
    assert [row[:2] for row in csv_rows((tmp_path / "n.csv").read_bytes(), paths=(0,))[1:]] == [
        list(one) for one in zip(paths, EVIL, strict=True)
    ]


def test_a_written_table_is_the_same_data_set(tmp_path, stage_one):
    classes = tuple(one for one in EVIL if one != "'")
    data = write_set(tmp_path / "set", 4 * len(classes), classes=classes)
    (data / "-x" / "0002.jpg").rename(data / "-x" / "-0002.jpg")
    made = stage_one.manifest(data)
    write_table(made, data / "labels.csv")
    assert_inert((data / "labels.csv").read_bytes())
    found = stage_one.manifest(data / "labels.csv")
    assert sorted(found.class_names) == sorted(made.class_names) == sorted(classes)
    for manifest in (made, found):
        assert {
            (sha, manifest.class_names[label])
            for sha, label in zip(manifest.sha256.tolist(), manifest.labels, strict=True)
        } == {
            (sha, made.class_names[label])
            for sha, label in zip(made.sha256.tolist(), made.labels, strict=True)
        }


def test_a_line_feed_or_carriage_return_in_quotes_stays(tmp_path, stage_one):
    write_set(tmp_path / "set", 12)
    rows = [(f"{kind}/{i:04}.jpg", f"{kind}\r3") for i, kind in enumerate(["cat", "dog"] * 6)]
    text = "\r\n".join(f'{path},"{label}"' for path, label in [("path", "label"), *rows])
    (tmp_path / "set" / "l.csv").write_bytes(text.encode())
    assert set(stage_one.manifest(tmp_path / "set" / "l.csv").class_names) == {"cat\r3", "dog\r3"}


def test_labels_of_unpacked_arrays_are_marked(tmp_path, stage_one):
    images = np.random.default_rng(0).integers(0, 255, (12, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "a.npz", images=images, labels=np.array(["=a", "-b"] * 6))
    assert set(stage_one.manifest(tmp_path / "a.npz").class_names) == {"=a", "-b"}
    (table,) = tmp_path.rglob("labels.csv")
    assert_inert(table.read_bytes())
    assert {row[1] for row in csv_rows(table.read_bytes())[1:]} == {"=a", "-b"}


@pytest.mark.parametrize("spelled", [lambda one: one, safe])
def test_costs_name_classes_either_way(tmp_path, spelled):
    stream = io.StringIO(newline="")
    csv.writer(stream).writerows(
        [["", *map(spelled, EVIL)]]
        + [[spelled(a), *(str(int(a != b)) for b in EVIL)] for a in EVIL]
    )
    (tmp_path / "c.csv").write_bytes(stream.getvalue().encode())
    assert np.array_equal(read_costs(tmp_path / "c.csv", EVIL), 1 - np.eye(len(EVIL)))


@pytest.mark.slow
def test_a_run_on_such_classes_is_reused_and_predicts(tmp_path, inside, command):
    data = write_set(tmp_path / "set", 60, classes=("=1+1", "@x", "\tx"))
    line = {"data": data, **SMALL}
    done = inside("svm", **line)
    assert done.returncode == 0, done.stderr
    (table,) = (tmp_path / "results").rglob("*.predictions.csv")
    assert_inert(table.read_bytes())
    again = inside("svm", **line)
    assert again.returncode == 0, again.stderr
    (record,) = (p for p in table.parent.glob("svm-*.json") if not p.name.endswith(".model.json"))
    assert json.loads(record.read_text())["class_names"] == list(
        read_predictions(table).class_names
    )
    (tmp_path / "new.jpg").write_bytes(jpeg(7))
    out = tmp_path / "out.csv"
    done = command("predict", images=tmp_path / "new.jpg", run=record, out=out, nearest=1)
    assert done.returncode == 0, done.stderr
    assert_inert(out.read_bytes())
    assert csv_rows(out.read_bytes())[1][1] in ("=1+1", "@x", "\tx")
