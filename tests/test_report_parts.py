"""The parts of a report: curves, small pictures, drawings rewritten for a page, escaping."""

import io
import json
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import sklearn.metrics as sk
from cnn_codes.cli import main
from cnn_codes.datasets import load_manifest
from cnn_codes.errors import DataError
from cnn_codes.heads import linear
from cnn_codes.notation import duration, p_equals, p_value, signed, size
from cnn_codes.report import charts, maps, pictures
from cnn_codes.report.blocks import Cell, Column, Report, Section, Table, Text
from cnn_codes.report.markdown import as_markdown
from cnn_codes.report.markup import Html, data_block, joined, tag
from cnn_codes.report.numbers import (
    average_precision,
    precision_recall,
    roc,
)
from cnn_codes.report.pictures import LARGE_PX, make_thumbnails
from cnn_codes.report.svg import rewritten, theme
from cnn_codes.results.measures import MEASURES
from cnn_codes.results.predictions import Predictions
from cnn_codes.settings import DataSettings, PlaceSettings
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import write_set
from PIL import Image
from reporting import make

scores = st.lists(
    st.tuples(st.booleans(), st.integers(0, 6)), min_size=2, max_size=40
).filter(lambda rows: len({positive for positive, _ in rows}) == 2)  # fmt: skip


@settings(deadline=None, max_examples=50)
@given(scores)
def test_curves_and_areas_equal_scikit_learns(rows):
    positive = np.array([one for one, _ in rows])
    score = np.array([two for _, two in rows]) / 6
    x, y = roc(positive, score)
    fpr, tpr, _ = sk.roc_curve(positive, score, drop_intermediate=False)
    assert np.interp(fpr, x, y) == pytest.approx(np.interp(fpr, fpr, tpr))
    assert np.trapezoid(y, x) == pytest.approx(sk.roc_auc_score(positive, score))
    assert average_precision(positive, score) == pytest.approx(
        sk.average_precision_score(positive, score)
    )
    recall, precision = precision_recall(positive, score)
    wanted, found, _ = sk.precision_recall_curve(positive, score)
    assert recall[1:].tolist() == pytest.approx(found[:-1][::-1].tolist())
    assert precision[1:].tolist() == pytest.approx(wanted[:-1][::-1].tolist())


def test_mistakes_come_surest_first_and_ties_by_path():
    p = np.array([[0.9, 0.1], [0.3, 0.7], [0.8, 0.2], [0.2, 0.8], [0.2, 0.8]])
    found = Predictions(
        ("e", "d", "c", "b", "a"), np.array([1, 1, 1, 0, 0], np.int32), p, ("x", "y")
    )
    assert found.most_confident_errors() == [0, 4, 3, 2]


@pytest.mark.parametrize(
    ("value", "said"),
    [(0, "0 s"), (0.004, "4 ms"), (2.34, "2.3 s"), (61, "61 s"), (600, "10 min"), (7200, "2.0 h"),
     (None, "\N{EN DASH}")],
)  # fmt: skip
def test_seconds_are_said_as_one_would(value, said):
    assert duration(value) == said


def test_small_numbers_keep_their_meaning():
    assert p_value(0.0009) == "< 0.001"
    assert p_value(0.05) == "0.050"
    assert p_equals(0.0009) == "p < 0.001"
    assert p_equals(1) == "p = 1.000"
    assert [size(n) for n in (0, 999, 1500, 14_200_000, 250e6, 2.14e9)] == [
        "0 B", "999 B", "1.5 kB", "14.2 MB", "250 MB", "2.1 GB"
    ]  # fmt: skip
    assert signed(-0.04) == "0.0"
    assert signed(-1.25) == "\N{MINUS SIGN}1.2"
    assert signed(3, plus=False) == "3.0"


@settings(deadline=None, max_examples=50)
@given(st.text())
def test_no_text_becomes_markup(text):
    page = tag("p", text, title=text)
    root = ET.fromstring(page)
    assert len(root) == 0
    clean = re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]", "�", text)
    assert (root.text or "").replace("\n", "") == re.sub(r"\r\n?|\n", "", clean)


@settings(deadline=None, max_examples=50)
@given(st.recursive(st.text() | st.integers(), st.lists))
def test_data_cannot_end_its_element(value):
    import json

    block = data_block(value, name="x")
    inner = block.removeprefix('<script type="application/json" id="x">').removesuffix("</script>")
    assert "<" not in inner
    assert json.loads(inner) == value


def test_attributes_are_left_out_or_bare():
    assert tag("a", "x", href=None, hidden=True, class_="c", aria_label='"') == (
        '<a hidden class="c" aria-label="&quot;">x</a>'
    )
    assert joined(Html("<b>"), "<b>", None, ["&"]) == "<b>&lt;b&gt;&amp;"


@settings(deadline=None, max_examples=50)
@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30))
def test_markdown_tables_keep_their_columns(text):
    table = Table(text, [Column(text), Column("b")], [[Cell(text, code=True), Cell(text)]], "k")
    report = Report(text, [text], [], [(text, text)], [Section("s", text, [Text(text), table])])
    lines = as_markdown(report).splitlines()
    rows = [line for line in lines if re.match(r"\| .* \|$", line)]
    assert len(rows) == 3
    assert {len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) for row in rows} == {3}
    assert [line for line in lines if line.startswith("## ")]


def test_a_drawing_takes_the_pages_colours_and_keeps_its_text():
    with theme():
        spots = [charts.Spot("<&> $x$", 3.0, 0.9, 0.8, 0.95, "best"), charts.Spot("b", 90, 0.5)]
        chart = charts.figure_by_cost(
            spots, MEASURES["accuracy"], key="cost", interval="95 % interval"
        )
    root = ET.fromstring(chart.svg)
    texts = ["".join(one.itertext()) for one in root.iter("text")]
    assert "<&> $x$" in texts
    assert "accuracy, %" in texts
    assert "style" not in {name for one in root.iter() for name in one.attrib}
    colours = {one.get(name) for one in root.iter() for name in ("fill", "stroke")} - {None}
    assert {"var(--accent)", "var(--muted)"} <= colours
    assert all(one == "none" or one.startswith(("var(", "url(")) for one in colours), colours
    ids = [one.get("id") for one in root.iter() if one.get("id")]
    assert all(one.startswith("cost-") for one in ids)


def test_points_of_a_map_carry_the_number_of_their_image():
    xy = np.random.default_rng(0).normal(size=(30, 2))
    labels = np.arange(30) % 3
    with theme():
        chart = maps.projection(xy, labels, ["a", "b", "c"], key="m", title="t", caption="")
    points = {
        int(one.get("data-i")): (float(one.get("x")), -float(one.get("y")))
        for one in ET.fromstring(chart.svg).iter("use")
    }
    assert sorted(points) == list(range(30))
    drawn = np.array([points[i] for i in range(30)])
    for axis in (0, 1):  # the drawing keeps every image's place
        assert np.corrcoef(drawn[:, axis], xy[:, axis])[0, 1] > 0.9999


@pytest.mark.parametrize("n", [1, 2, 7])
def test_labels_never_touch_and_stay_within(n):
    values = list(np.random.default_rng(n).uniform(94, 96, n))
    places = charts._spread(values, (90.0, 100.0), height_px=266)
    gaps = np.diff(sorted(places))
    assert (gaps >= 16 * 10 / 266 - 1e-9).all()
    assert 90 <= min(places) <= max(places) <= 100 + 1e-9
    assert np.argsort(places).tolist() == np.argsort(values).tolist()


def test_a_figure_without_axes_is_drawn():
    with theme():
        figure = charts.new_figure(100, 100, left=1, right=1)
        assert rewritten(figure, key="k", alt="nothing").startswith("<svg")


@pytest.fixture
def manifest(tmp_path):
    root = write_set(tmp_path / "data", 12, size=(400, 300))
    return load_manifest(DataSettings(data=str(root)), PlaceSettings(cache=str(tmp_path / "cache")))


def test_pictures_are_as_large_as_asked_and_remembered(manifest, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    large, small = manifest.paths[:2], manifest.paths
    found = make_thumbnails(manifest, large, small, cache=cache)
    assert set(found) == set(manifest.paths)
    for path, one in found.items():
        image = Image.open(io.BytesIO(one.data))
        assert image.format == "WEBP"
        assert image.size == (one.width, one.height)
        assert max(image.size) == (LARGE_PX if path in large else 112)
        assert image.size[0] / image.size[1] == pytest.approx(4 / 3, abs=0.02)
    monkeypatch.setattr(pictures, "_make", lambda *args: pytest.fail("made again"))
    again = make_thumbnails(manifest, large, small, cache=cache)
    assert {path: one.data for path, one in again.items()} == {
        path: one.data for path, one in found.items()
    }


def test_a_damaged_memory_of_pictures_is_ignored(manifest, tmp_path):
    cache = tmp_path / "cache"
    found = make_thumbnails(manifest, manifest.paths, (), cache=cache)
    memory = cache / manifest.name / "pictures.npz"
    memory.write_bytes(memory.read_bytes()[:300])
    assert make_thumbnails(manifest, manifest.paths, (), cache=cache).keys() == found.keys()


def test_a_picture_of_other_bytes_is_refused(manifest, tmp_path):
    one = manifest.root / manifest.paths[0]
    one.write_bytes((manifest.root / manifest.paths[1]).read_bytes())
    with pytest.raises(DataError, match=f"{re.escape(str(one))} changed"):
        make_thumbnails(manifest, manifest.paths, (), cache=tmp_path / "cache")


def test_each_picture_keeps_to_its_share_of_the_budget(tmp_path, monkeypatch):
    made = make(tmp_path, train=4, test=6, evidence=False, noise=True)
    paths = made.manifest.paths
    monkeypatch.setattr(pictures, "BUDGET_BYTES", 1500 * len(paths))
    found = make_thumbnails(made.manifest, (), paths, cache=tmp_path / "c")
    assert max(len(one.data) for one in found.values()) <= 1500
    assert len({one.key for one in found.values()}) == len(paths) - 2


def test_paths_that_are_not_in_the_set_have_no_picture(manifest, tmp_path):
    assert make_thumbnails(manifest, ["../x.jpg"], ["y"], cache=tmp_path / "cache") == {}


@pytest.fixture
def small_run(tmp_path, cache):
    """Give the arguments of a run on made-up pictures with the smallest network, by the CLI."""
    root = write_set(tmp_path / "mine", 90, size=(64, 48))
    return [
        f"DATA={root}", f"CACHE={cache}", f"RESULTS={tmp_path / 'results'}", "OFFLINE=1",
        "MODEL=test_efficientnet", "WEIGHTS=none", "SIZE=32", "METHODS=centroid,softmax",
    ]  # fmt: skip


def test_the_command_makes_what_is_missing_and_then_reads_it(small_run, tmp_path, capsys):
    evidence = "EVIDENCE=audit,labels,map,explain"
    assert main(["report", *small_run, evidence]) == 0
    html, markdown = (line.partition(" (")[0] for line in capsys.readouterr().out.splitlines())
    text = (tmp_path / html).read_text()
    assert html.endswith(".html")
    assert markdown.endswith(".md")
    for key in ("curve", "advise", "layers"):
        assert f"make {key} DATA=" in text
    for key in ("map", "labels", "audit"):
        assert f"make {key} DATA=" not in text
    (maps,) = (tmp_path / "results").rglob("explained-*.json")
    found = json.loads(maps.read_text())
    assert text.count("data:image/png") == len(found["images"]) > 0
    for one in found["images"]:  # the whole image is seen, but for what the crop leaves out
        left, top, width, height = one["box"]
        assert (2 * left + width, 2 * top + height) == pytest.approx((1, 1))
        assert max(map(max, one["evidence"])) > 0
    records = {path: path.stat().st_mtime_ns for path in (tmp_path / "results").rglob("*.json")}
    # Without METHODS the comparison keeps the methods it has, and nothing is run again.
    assert main(["report", *small_run[:-1], evidence]) == 0
    now = {path: path.stat().st_mtime_ns for path in (tmp_path / "results").rglob("*.json")}
    changed = [path.name for path in now if now[path] != records.get(path)]
    assert all(name.startswith("compare-") for name in changed)
    assert "METHODS=centroid,softmax" in (tmp_path / html).read_text()


def test_what_takes_minutes_of_fitting_is_left_out_and_said(small_run, capsys, monkeypatch):
    monkeypatch.setattr(linear, "LARGE", 1)
    evidence = "EVIDENCE=labels,layers,map"
    assert main(["report", *small_run, evidence]) == 0
    told = capsys.readouterr().err
    assert "left out: labels, layers. On 90 images of 2 classes each" in told
    command = next(line for line in told.splitlines() if "left out" in line)
    assert f"make labels {small_run[0]}" in command
    assert main(["labels", *small_run[:-1]]) == 0
    capsys.readouterr()
    assert main(["report", *small_run, evidence]) == 0
    assert "left out: layers." in capsys.readouterr().err


def test_the_command_answers_mistakes(small_run, capsys):
    assert main(["report", *small_run, "EVIDENCE=tea"]) == 2
    assert "EVIDENCE=tea is not known" in capsys.readouterr().err
    assert main(["report", *small_run, "GALLERY=-1"]) == 2
    assert "GALLERY=-1 is not allowed" in capsys.readouterr().err
