"""What a report says: figures anybody can recompute, nothing that a name can break, small files."""

import base64
import csv
import html
import html.parser
import io
import itertools
import json
import math
import re
import shlex
import shutil
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import sklearn.metrics as sk
from cnn_codes.errors import DataError, ResultError, command_line
from cnn_codes.report.sections import title_of
from conftest import ran
from PIL import Image
from reporting import HOSTILE, NAME, Made, make, write_maps
from scipy.stats import beta, binom, norm
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

ROOT = Path(__file__).parents[1]
SECTIONS = [
    "comparison", "cost", "pairs", "curves", "advice", "confusion", "calibration", "operating",
    "map", "mistakes", "labels", "copies", "layers", "training", "scratch", "origin",
]  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Made:
    return make(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def page(made) -> "Page":
    return Page(made.report())


class Page(html.parser.HTMLParser):
    """A page read by the standard library: elements, text, and tables by their names."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.source = text
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.tables: dict[str, list[list[tuple[str, float | None]]]] = {}
        self._stack: list[str] = []
        self._rows: list[list[tuple[str, float | None]]] | None = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        assert len(found) == len(attrs), f"an attribute twice in {tag}"
        self.elements.append((tag, found))
        if tag == "table":
            self._rows = self.tables[found["id"].removeprefix("table-")] = []
        elif tag == "tr" and self._rows is not None:
            self._rows.append([])
        elif tag in ("td", "th") and self._rows is not None:
            value = found.get("data-value")
            self._rows[-1].append(("", None if value is None else float(value)))
        if tag not in ("meta", "br", "hr"):
            self._stack.append(tag)

    def handle_endtag(self, tag):
        assert self._stack.pop() == tag, f"{tag} closes something else"
        if tag == "table":
            self._rows = None

    def handle_data(self, data):
        if self._stack and self._stack[-1] not in ("script", "style"):
            self.text.append(data)
            if self._rows and self._rows[-1] and {"td", "th"} & set(self._stack):
                text, value = self._rows[-1][-1]
                self._rows[-1][-1] = (text + data, value)

    def body(self, name: str) -> list[list[tuple[str, float | None]]]:
        return self.tables[name][1:]

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [found for name, found in self.elements if name == tag]


@pytest.fixture(scope="module")
def predicted(made):
    """Read the predictions of every run with the standard library: nothing of ours."""
    found = {}
    for path in made.folder.glob("*.predictions.csv"):
        with path.open(encoding="utf-8", newline="") as stream:
            header, *rows = csv.reader(stream)
        names = header[3:]
        y = np.array([names.index(row[1]) for row in rows])
        p = np.array([[float(cell) for cell in row[3:]] for row in rows])
        found[path.name.partition("-")[0]] = y, p
    assert len(found) == 4
    return found


def equal_mass_bins(y, p, bins=15):
    """Confidence, accuracy and size of 15 bins of equal mass, image by image, in plain Python."""
    called = [max(range(len(row)), key=lambda k: row[k]) for row in p.tolist()]
    sure = [max(row) for row in p.tolist()]
    right = [float(c == t) for c, t in zip(called, y.tolist(), strict=True)]
    alike = {s: [r for r, other in zip(right, sure, strict=True) if other == s] for s in set(sure)}
    ranked = sorted(sure)
    table = []
    for b, members in itertools.groupby(
        range(len(ranked)), key=lambda i: int((i + 0.5) / len(ranked) * bins)
    ):
        of = [ranked[i] for i in members]
        assert b < bins
        accuracy = [sum(alike[s]) / len(alike[s]) for s in of]
        table.append((sum(of) / len(of), sum(accuracy) / len(of), len(of)))
    return table


def test_every_figure_of_the_table_follows_from_the_predictions(page, predicted):
    rows = page.body("methods")
    assert len(rows) == 4
    for row in rows:
        y, p = predicted[row[0][0].split()[0]]
        called, n = p.argmax(1), len(y)
        hits = int((called == y).sum())
        low, high = proportion_confint(hits, n, method="wilson")
        ece = sum(size * abs(sure - right) for sure, right, size in equal_mass_bins(y, p)) / n
        wanted = [
            sk.accuracy_score(y, called), low, sk.f1_score(y, called, average="macro"),
            sk.roc_auc_score(y, p[:, 1]), sk.log_loss(y, p), ece,
        ]  # fmt: skip
        assert [value for _, value in row[1:7]] == pytest.approx(wanted, abs=1e-9)
        assert row[1][0] == f"{100 * hits / n:.1f}"
        assert row[2][0] == f"{100 * low:.1f} to {100 * high:.1f}"
        assert [text for text, _ in row[3:7]] == [f"{value:.3f}" for value in wanted[2:]]


def test_best_and_level_follow_from_the_predictions(page, predicted):
    marks = {row[0][0].split()[0]: row[0][0].split(maxsplit=1)[1:] for row in page.body("methods")}
    rank = {m: (sk.accuracy_score(y, p.argmax(1)), -sk.log_loss(y, p))
            for m, (y, p) in predicted.items()}  # fmt: skip
    best = max(rank, key=rank.get)
    assert marks[best] == ["best"]
    shown = {
        frozenset((row[0][0], row[1][0])): not row[8][0].startswith("not significant")
        for row in page.body("pairs")
    }
    for method, mark in marks.items():
        if method != best:
            assert mark == (
                [] if shown[frozenset((method, best))] else ["not significantly different"]
            )
    assert {tuple(mark) for mark in marks.values()} == {
        ("best",),
        ("not significantly different",),
        (),
    }


def test_every_figure_of_the_pairs_follows_from_the_predictions(page, predicted):
    rows = page.body("pairs")
    assert len(rows) == 6
    ps, limits = [], {}
    for (a, _), (b, _), *cells in rows:
        right_a, right_b = ((p.argmax(1) == y) for y, p in (predicted[a], predicted[b]))
        table = [[np.sum(right_a & right_b), np.sum(right_a & ~right_b)],
                 [np.sum(~right_a & right_b), np.sum(~right_a & ~right_b)]]  # fmt: skip
        only_a, only_b, n = int(table[0][1]), int(table[1][0]), len(right_a)
        ps.append(mcnemar(table, exact=True).pvalue)
        # Bonett and Price 2012, written out: Wald's interval with one image more in each cell.
        pa, pb = (only_a + 1) / (n + 2), (only_b + 1) / (n + 2)
        half = norm.ppf(0.975) * math.sqrt((pa + pb - (pa - pb) ** 2) / (n + 2))
        values = [value for _, value in cells]
        assert values[:4] == pytest.approx([only_a, only_b, (only_a - only_b) / n, pa - pb - half])
        assert values[4] == pytest.approx(ps[-1])
        differ = only_a + only_b
        limits[a, b] = 1.0 if differ == n else beta.ppf(0.95, differ + 1, n - differ)
    levels = holm_levels(ps)
    for row, level in zip(rows, levels, strict=True):
        # So many images show one point with a power of 80 % at the level of the test that was
        # made and the upper limit of the rate of disagreement; a tenth fewer do not.
        needed, rate = int(row[9][1]), max(limits[row[0][0], row[1][0]], 0.01)
        assert mcnemar_power(needed, rate, alpha=level) >= 0.79
        assert mcnemar_power(int(0.88 * needed), rate, alpha=level) < 0.8
    corrected = multipletests(ps, method="holm")[1]
    assert [row[7][1] for row in rows] == pytest.approx(corrected.tolist())
    for row, p in zip(rows, corrected, strict=True):
        better = row[0][0] if row[4][1] > 0 else row[1][0]
        assert row[8][0] == (f"{better} significantly better" if p <= 0.05 else "not significant")


def holm_levels(ps):
    """Level of each test of Holm's procedure, written out."""
    levels, stopped = {}, None
    for rank, at in enumerate(np.argsort(ps, kind="stable")):
        level = 0.05 / (len(ps) - rank)
        if stopped is None and ps[at] > level:
            stopped = level
        levels[at] = stopped or level
    return [levels[at] for at in range(len(ps))]


def mcnemar_power(n, rate, difference=0.01, alpha=0.05):
    """Power of the exact test, summed over every number of discordant images."""
    m = np.arange(0, n + 1)
    weight = binom.pmf(m, n, rate)
    m, weight = m[weight > 1e-9], weight[weight > 1e-9]
    share = (rate + difference) / (2 * rate)
    critical = binom.ppf(alpha / 2, m, 0.5)
    critical -= 2 * binom.cdf(critical, m, 0.5) > alpha
    power = binom.cdf(critical, m, 1 - share) + binom.cdf(critical, m, share)
    return float((weight * np.where(critical >= 0, power, 0)).sum())


def test_confusions_and_figures_by_class_follow_from_the_predictions(page, predicted):
    for number, method in enumerate(("centroid", "svm", "finetune", "scratch")):
        y, p = predicted[method]
        shown = [[int(text) for text, _ in row[1:]] for row in page.body(f"confusion-{number}")]
        assert shown == sk.confusion_matrix(y, p.argmax(1)).tolist()
    best = next(row[0][0].split()[0] for row in page.body("methods") if "best" in row[0][0])
    y, p = predicted[best]
    scores = sk.precision_recall_fscore_support(y, p.argmax(1), zero_division=0)
    for row, wanted in zip(page.body("classes"), np.stack(scores, 1), strict=True):
        assert [value for _, value in row[1:]] == pytest.approx(wanted.tolist())


def test_bins_and_areas_follow_from_the_predictions(page, predicted):
    bins = page.body("bins")
    for method, (y, p) in predicted.items():
        shown = [[v for _, v in row[1:]] for row in bins if row[0][0] == method]
        wanted = [[s, r, size / len(y)] for s, r, size in equal_mass_bins(y, p)]
        assert np.array(shown) == pytest.approx(np.array(wanted))
    for row in page.body("areas"):
        y, p = predicted[row[0][0].split()[0]]
        wanted = [sk.roc_auc_score(y, p[:, 1]), sk.average_precision_score(y, p[:, 1])]
        assert [value for _, value in row[1:]] == pytest.approx(wanted)


def test_the_verdict_is_the_comparisons_own_and_its_figures_are_true(made, page, predicted):
    text = " ".join(page.text)
    verdict = " ".join(made.comparison["sentences"][:2])
    assert verdict in text
    best = next(row[0][0].split()[0] for row in page.body("methods") if "best" in row[0][0])
    y, p = predicted[best]
    low, high = proportion_confint(int((p.argmax(1) == y).sum()), len(y), method="wilson")
    said = f"{100 * sk.accuracy_score(y, p.argmax(1)):.1f} %"
    assert f"{said} (95 % confidence interval {100 * low:.1f} to {100 * high:.1f})" in verdict


def test_mistakes_are_the_surest_wrong_ones(made, page, predicted):
    best = next(row[0][0].split()[0] for row in page.body("methods") if "best" in row[0][0])
    y, p = predicted[best]
    wrong = np.flatnonzero(p.argmax(1) != y)
    surest = sorted(-p[i].max() for i in wrong)
    section = page.source.partition('id="mistakes"')[2].partition("</section>")[0]
    shown = [float(one) for one in re.findall(r"<b>\w+ ([\d.]+) %</b>", section)]
    assert shown == [float(f"{-100 * one:.1f}") for one in surest][:24]
    assert section.count("wrong by 4 of 4 methods") == sum(
        all(q.argmax(1)[i] != y[i] for _, q in predicted.values()) for i in wrong
    )


def test_maps_of_the_mistakes_lie_on_their_pictures(tmp_path):
    """Each map in its box, its bright region bright, and none of another run's."""
    made = make(tmp_path, train=6, test=12, evidence=False, methods=("centroid", "svm"))
    assert "make report" in (none := made.report()).partition('id="mistakes"')[2]
    assert "EVIDENCE=explain" in html.unescape(none)
    paths = write_maps(made)
    page = Page(made.report())
    drawn = [one for tag, one in page.elements if tag == "image" and "png" in one["href"]]
    assert len(drawn) == len(paths) > 0
    assert "regions speak for the predicted class" in " ".join(page.text)
    sides = next(one["viewbox"] for tag, one in page.elements if one.get("class") == "heat")
    _, _, width, height = map(float, sides.split())
    box = [float(drawn[0][side]) for side in ("x", "y", "width", "height")]
    assert box == pytest.approx([width / 4, height / 8, width / 2, 3 * height / 4], abs=0.01)
    data = base64.b64decode(drawn[0]["href"].partition(",")[2])
    alpha = np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))[..., 3]
    assert alpha[:4, -4:].min() > 150
    assert alpha[16:, :16].max() == 0
    write_maps(made, of="another run")
    assert "data:image/png" not in made.report()


def test_the_gap_to_scratch_follows_from_the_predictions(page, predicted):
    of = {m: sk.accuracy_score(y, p.argmax(1)) for m, (y, p) in predicted.items()}
    text = " ".join(page.text)
    gap = 100 * (of["finetune"] - of["scratch"])
    assert f"Difference: {gap:+.1f} points" in text
    assert f"reaches accuracy {100 * of['finetune']:.1f} %" in text


def test_every_section_is_there_in_order_and_links_lead_to_it(page):
    assert [one["id"] for one in page.all("section")] == SECTIONS
    ids = [one["id"] for _, one in page.elements if one.get("id")]
    assert [name for name, n in Counter(ids).items() if n > 1] == []
    links = [one["href"] for one in page.all("a")]
    assert len(links) == len(SECTIONS) + 1
    assert all(link[1:] in ids for link in links)
    uses = {one["href"][1:] for one in page.all("use")}
    assert uses <= set(ids)


def test_markdown_says_the_same_figures(made, page):
    lines = made.markdown.splitlines()
    for name in ("methods", "pairs", "classes", "areas", "bins"):
        for row in page.body(name):
            alike = " not significantly different"
            cells = [
                text.replace(" best", " (best)").replace(alike, f" ({alike.strip()} from the best)")
                if at == 0 else text for at, (text, _) in enumerate(row)
            ]  # fmt: skip
            line = f"| {' | '.join(cells)} |".replace("<", "\\<")
            assert line in lines, line
    assert [line[3:] for line in lines if line.startswith("## ")] == [
        "".join(one) for one in re.findall(r"<h2[^>]*>([^<]*)</h2>", page.source)
    ]


def test_what_is_missing_is_said_with_the_command_that_makes_it(tmp_path):
    made = make(tmp_path, evidence=False, methods=("centroid", "svm"))
    text = " ".join(Page(made.report()).text)
    for command in ("curve", "advise", "map", "labels", "layers", "audit"):
        assert made.command(command) in text
        assert made.command(command) in made.markdown
    assert made.command("compare", methods="centroid,svm,finetune") in text


@pytest.mark.parametrize(
    ("method", "said"),
    [("softmax", "the highest accuracy of the comparison"),
     ("centroid", "the advice was wrong by more than one point"),
     ("knn", "The advised method is not in this comparison")],
)  # fmt: skip
def test_advice_is_set_beside_what_was_measured(tmp_path, method, said):
    made = make(tmp_path, methods=("centroid", "svm", "softmax"))
    (path,) = made.folder.glob("advise-*.json")
    record = json.loads(path.read_text())
    record["strategy"]["method"] = method
    path.write_text(json.dumps(record))
    accuracy = {one["method"]: one["accuracy"] for one in made.comparison["entries"]}
    assert accuracy["softmax"] == max(accuracy.values()) > accuracy["centroid"] + 0.01
    text = " ".join(Page(made.report()).text)
    assert said in text
    if method == "centroid":
        assert (
            f"{100 * (accuracy['softmax'] - accuracy['centroid']):.1f} points below the best"
            in text
        )


def test_hostile_names_stay_text(tmp_path):
    names = ("<img src=x onerror=alert(1)>", "--> ]]> &lt; | `x` [a](http:b) $y$")
    made = make(tmp_path, names=names, test=10)
    made.comparison["data"] = HOSTILE
    made.comparison["entries"][0]["method"] = HOSTILE
    made.comparison["sentences"][0] = HOSTILE
    made.write(made.comparison)
    page = Page(made.report())
    assert Counter(name for name, _ in page.elements)["script"] == 2
    assert [one.get("type") for one in page.all("script")] == ["application/json", None]
    assert page.all("img") == []
    assert not any(key.startswith("on") for _, one in page.elements for key in one)
    text = "".join(page.text)
    assert text.count(HOSTILE) > 5
    assert all(name in text for name in names)
    data = page.source.partition('id="map-data">')[2].partition("</script>")[0]
    assert json.loads(data)["class_names"] == sorted(names)
    outside = re.sub(r"```sh.*?```|`[^`\n]*`", "", made.markdown, flags=re.DOTALL)
    assert not re.search(r"(?<!\\)<(script|img)", outside)
    assert not re.search(r"(?<!\\)\]\(", outside)


def test_the_page_allows_only_what_is_in_it(page):
    (policy,) = [
        one["content"] for one in page.all("meta")
        if one.get("http-equiv") == "Content-Security-Policy"
    ]  # fmt: skip
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in policy
    assert not any("style" in one for _, one in page.elements), "the policy allows no such"
    addresses = [value for _, one in page.elements for key, value in one.items()
                 if key in ("href", "src", "xlink:href")]  # fmt: skip
    assert all(value.startswith(("#", "data:image/")) for value in addresses)
    assert "@import" not in page.source
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg\b)", page.source)


def test_pictures_are_embedded_once_each(made, page):
    stored = [one["id"] for one in page.all("image")]
    data = json.loads(page.source.partition('id="map-data">')[2].partition("</script>")[0])
    embedded = [*stored, *data["pictures"]]
    assert len(set(embedded)) == len(embedded)
    digests = {f"p{sha[:16].decode()}" for sha in made.manifest.sha256}
    assert len(digests) == made.manifest.n_images - 2  # each class has a leak: the same bytes
    assert set(embedded) == digests
    assert set(data["keys"]) == digests
    for one in page.all("image"):
        kind, _, code = one["href"].partition(",")
        assert kind == "data:image/webp;base64"
        assert base64.b64decode(code, validate=True)[8:12] == b"WEBP"


def test_every_picture_and_chart_has_words(page):
    drawings = [one for one in page.all("svg") if one.get("role") == "img"]
    assert len(drawings) > 20
    assert all(one.get("aria-label") for one in drawings)
    assert all(one.get("role") == "img" or one.get("aria-hidden") for one in page.all("svg"))
    heads = page.all("th")
    assert all(one.get("scope") in ("col", "row") for one in heads)
    assert len(page.all("caption")) == len(page.all("table"))


def test_more_pictures_than_asked_for_are_named_instead(made):
    page = Page(made.report(pictures=3, gallery=2))
    data = json.loads(page.source.partition('id="map-data">')[2].partition("</script>")[0])
    assert len(page.all("image")) + len(data["pictures"]) <= 3
    none = Page(made.report(pictures=0))
    assert none.all("image") == []
    assert "no picture" in " ".join(none.text)


def test_an_image_that_went_away_has_no_picture_and_one_that_changed_is_named(tmp_path):
    made = make(tmp_path)
    paths = sorted((made.manifest.root / "test" / "cat").glob("*.jpg"))
    paths[1].unlink()
    page = Page(made.report())
    data = json.loads(page.source.partition('id="map-data">')[2].partition("</script>")[0])
    assert data["keys"].count("") == 1
    paths[2].write_bytes(paths[2].read_bytes()[:200])
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)  # where pictures are kept
    with pytest.raises(DataError, match=f"{paths[2].name} changed"):
        made.report()


def test_many_classes_are_summed_up(tmp_path):
    names = [f"class {k:02}" for k in range(45)]
    page = Page(make(tmp_path, names=names, train=1, test=3, evidence=False).report())
    assert len(page.body("classes")) == 40
    assert "confusion-0" not in page.tables
    assert page.body("confusions")[0][2][1] >= page.body("confusions")[-1][2][1]
    assert "the 8 of 45 classes with the lowest average precision" in " ".join(page.text)


def test_three_classes_are_drawn_one_against_the_rest(tmp_path):
    made = make(tmp_path, names=("a", "b", "c"))
    page = Page(made.report())
    best = next(one for one in made.comparison["entries"] if one["best"])
    with (made.folder / f"{best['run']}.predictions.csv").open(newline="") as stream:
        header, *rows = csv.reader(stream)
    y = np.array([row[1] for row in rows])
    for row in page.body("areas"):
        name = row[0][0]
        score = np.array([float(one[header.index(name)]) for one in rows])
        wanted = [sk.roc_auc_score(y == name, score), sk.average_precision_score(y == name, score)]
        assert [value for _, value in row[1:]] == pytest.approx(wanted)


def test_repeated_splits_are_told_as_such(tmp_path):
    made = make(tmp_path, splits=3, methods=("centroid", "svm"))
    page = Page(made.report())
    text = " ".join(page.text)
    assert "3 random splits" in text
    assert "Of the first of the 3 random splits" in text
    assert [text for text, _ in page.tables["pairs"][0]][-3:] == [
        "P(worse)", "P(equal)", "P(better)"
    ]  # fmt: skip
    values = [one["values"] for one in made.comparison["entries"]]
    assert [row[1][1] for row in page.body("methods")] == pytest.approx(np.mean(values, 1).tolist())


def test_predictions_that_were_altered_are_refused(tmp_path):
    made = make(tmp_path, evidence=False)
    table = made.folder / "svm-net-final-center-64-seed0.predictions.csv"
    table.write_text(table.read_text().replace("0.9", "0.8"))
    with pytest.raises(ResultError, match="not the one the run wrote") as caught:
        made.report()
    assert caught.value.todo == made.command("compare")


@pytest.mark.parametrize("damage", ["", "{}", '{"schema": 1, "kind": "compare"}', "[1]"])
def test_a_comparison_that_is_none_is_refused(tmp_path, damage):
    made = make(tmp_path, evidence=False, methods=("svm",))
    (made.folder / f"{NAME}.json").write_text(damage)
    with pytest.raises(ResultError, match=f"{NAME}.json cannot be read as a comparison"):
        made.report()


def test_a_record_that_lacks_what_belongs_to_it_is_refused(tmp_path):
    made = make(tmp_path, evidence=False, methods=("svm",))
    made.write({"schema": 1, "kind": "map", "name": "map-net-seed0", "model": "net", "seed": 0})
    with pytest.raises(ResultError, match="lacks projections, images, class_names"):
        made.report()


def test_records_of_another_network_or_seed_are_not_taken(tmp_path):
    made = make(tmp_path, methods=("svm",))
    for name, change in (("layers", {"seed": 1}), ("map", {"model": "other"})):
        path = made.folder / f"{name}-net-seed0.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
    text = " ".join(Page(made.report()).text)
    assert made.command("layers") in text
    assert made.command("map") in text


def test_a_report_of_the_same_records_is_the_same_file(made):
    assert made.report() == made.report()


def test_five_thousand_pictures_stay_under_15_mb(tmp_path):
    # Noise is the worst there is: no picture is larger as a file.
    made = make(tmp_path, train=50, test=2450, methods=("centroid", "svm"), noise=True)
    assert made.manifest.n_images == 5000
    began = time.perf_counter()
    text = made.report()
    first = time.perf_counter() - began
    print(f"{len(text.encode()) / 1e6:.1f} MB in {first:.1f} s")
    assert len(text.encode()) < 15e6
    data = json.loads(text.partition('id="map-data">')[2].partition("</script>")[0])
    stored = re.findall(r'<image id="(p\w+)"', text)
    assert len({*stored, *data["pictures"]}) == 4998  # all but the two leaks' second copies


@pytest.mark.parametrize("name", ["two words", 'it\'s "so" $HOME `x` #1 & ;', "-x=y %"])
def test_commands_run_when_pasted_into_a_shell(tmp_path, name):
    made = make(tmp_path / name, evidence=False, methods=("centroid", "svm"))
    shown = html.unescape(re.findall(r"<code>(make curve [^<]*)</code>", made.report())[0])
    wanted = {
        f"DATA={made.manifest.root}", f"CACHE={made.cache}", f"RESULTS={made.results}"
    }  # fmt: skip
    # The Makefile with a program that only says what it was given, in the place of Python.
    teller = tmp_path / "teller"
    teller.write_text("#!/bin/sh\nprintf '%s\\0' \"$@\"\n")
    teller.chmod(0o755)
    ready = f"PY={teller} READY={teller}"
    line = shown.replace("make ", f"make --no-print-directory -f {ROOT / 'Makefile'} {ready} ", 1)
    done = ran(line, shell=True, check=True)
    assert wanted <= set(done.stdout.split("\0")), done.stdout
    installed = command_line("curve", {"DATA": str(made.manifest.root)}, in_checkout=False)
    assert shlex.split(installed) == ["cnn-codes", "curve", f"DATA={made.manifest.root}"]


def test_commands_of_records_name_the_folders_of_today(tmp_path):
    made = make(tmp_path, methods=("centroid", "svm"))
    (path,) = made.folder.glob("advise-*.json")
    record = json.loads(path.read_text())
    old = "make svm DATA='/gone/my set' LAYERS=all CACHE=/gone/c RESULTS=r"
    record["strategy"]["command"] = old
    record["sentences"] = [f"Take the SVM: {old}"]
    path.write_text(json.dumps(record))
    page = made.report()
    assert "/gone" not in page
    new = made.command("svm").replace("make svm", "").split()
    text = html.unescape(page)
    assert text.count("LAYERS=all") == 2
    assert all(text.count(part) >= 2 for part in new)


@pytest.mark.parametrize(
    ("given", "name", "said"),
    [("hotdog", "hotdog", ("hotdog", "")), ("/x/my photos/", "my-photos", ("my photos", "")),
     ("../ants-bees", "ants-bees-40e9e4", ("ants-bees", "40e9e4")),
     ("set-123456", "set-123456", ("set-123456", "")), ("a.zip", "a-123abc", ("a", "123abc")),
     ("/x/other", "moved", ("moved", ""))],
)  # fmt: skip
def test_the_title_is_the_folders_name(given, name, said):
    assert title_of(given, name) == said
