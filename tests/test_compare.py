"""The comparison: identical splits, one table, sentences that follow from the numbers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cnn_codes.compare.marks import best_of, mark
from cnn_codes.compare.splits import judge_splits
from cnn_codes.compare.tables import comparison_table
from cnn_codes.compare.words import sentences
from cnn_codes.results.predictions import read_predictions
from cnn_codes.results.runs import read_record
from conftest import Inside
from tuning import few_images

SMALL: dict[str, Any] = {
    "model": "test_efficientnet", "weights": "none", "size": 32, "offline": 1, "engine": "torch",
}  # fmt: skip


@pytest.fixture(scope="module")
def images(hotdog: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return few_images(hotdog, tmp_path_factory.mktemp("images") / "few", n_train=24, n_test=20)


def _record(inside: Inside, data: Path) -> dict[str, Any]:
    (path,) = (inside.cache.parent / "results" / data.name).glob("compare-*.json")
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return record


def test_every_method_is_measured_on_the_same_images_and_reused(
    images: Path, inside: Inside
) -> None:
    settings = {**SMALL, "methods": "centroid,svm,finetune", "data": images}
    done = inside("compare", **settings)
    assert done.returncode == 0, done.stderr
    record = _record(inside, images)
    assert [one["method"] for one in record["entries"]] == ["centroid", "svm", "finetune"]
    folder = inside.cache.parent / "results" / images.name
    tables = [read_predictions(folder / f"{one['run']}.predictions.csv")
              for one in record["entries"]]  # fmt: skip
    assert len({tuple(sorted(table.paths)) for table in tables}) == 1
    for one, table in zip(record["entries"], tables, strict=True):
        assert one["accuracy"] == np.mean(table.predicted == table.labels)
        assert one["disk_bytes"] > 0
        assert one["images_per_s"] > 0
        assert one["n_trained"] <= one["n_network"]
        assert {"codes", "fit", "predict"} <= one["times_s"].keys()
    assert sum(one["best"] for one in record["entries"]) == 1
    # The discordant images, counted anew from the files that anybody has.
    first, second = (table.predicted == table.labels for table in tables[:2])
    order = [tables[1].paths.index(path) for path in tables[0].paths]
    pair = next(p for p in record["pairs"] if (p["a"], p["b"]) == (0, 1))
    assert pair["only_a"] == int(np.sum(first & ~second[order]))
    assert pair["only_b"] == int(np.sum(~first & second[order]))
    for text in record["sentences"]:
        assert text in done.stdout
    again = inside("compare", **settings)
    assert again.returncode == 0, again.stderr
    assert "3 of 3 runs reused" in again.stdout
    assert [one["run"] for one in _record(inside, images)["entries"]] == [
        one["run"] for one in record["entries"]
    ]


def test_a_comparison_that_was_cut_off_goes_on(images: Path, inside: Inside) -> None:
    settings = {**SMALL, "data": images}
    one = inside("compare", methods="svm", **settings)
    assert one.returncode == 0, one.stderr
    folder = inside.cache.parent / "results" / images.name
    (path,) = (p for p in folder.glob("svm-*.json") if not p.name.endswith(".model.json"))
    before = path.stat().st_mtime_ns
    for left in folder.glob("compare-*"):
        left.unlink()  # as if it had been killed before its own record was written
    more = inside("compare", methods="svm,softmax", **settings)
    assert more.returncode == 0, more.stderr
    assert "1 of 2 runs reused" in more.stdout
    assert path.stat().st_mtime_ns == before


def test_random_splits_are_judged_by_tests_that_know_of_their_overlap(
    images: Path, inside: Inside
) -> None:
    done = inside("compare", methods="centroid,svm", splits=3, data=images, **SMALL)
    assert done.returncode == 0, done.stderr
    record = _record(inside, images)
    assert record["test"] == "corrected_t"
    for one in record["entries"]:
        assert len(one["values"]) == 3
        folder = inside.cache.parent / "results" / images.name
        values = [read_record(folder / f"{run}.json")["metrics"]["test"]["accuracy"]
                  for run in one["runs"]]  # fmt: skip
        assert one["values"] == values
    (pair,) = record["pairs"]
    assert sum(pair["posterior"].values()) == pytest.approx(1)
    assert "random splits" in done.stdout


def test_a_misspelt_method_is_answered_before_anything_runs(images: Path, inside: Inside) -> None:
    done = inside("compare", methods="svm,finetuned", data=images, **SMALL)
    assert done.returncode == 2
    assert "unknown method finetuned" in done.stderr
    assert "Next: METHODS=finetune" in done.stderr
    assert not (inside.cache.parent / "results" / images.name).exists()


def _entry(method: str, accuracy: float, **values: Any) -> dict[str, Any]:
    return {
        "method": method, "model": "net", "accuracy": accuracy, "accuracy_ci95": [0.8, 0.95],
        "macro_f1": accuracy, "auroc": accuracy, "log_loss": 0.3, "ece": 0.02,
        "times_s": {"codes": 10.0, "fit": 1.0, "predict": 0.1}, "images_per_s": 100.0,
        "disk_bytes": 10**6, "n_trained": 2562, "n_network": 10**6, "n_test": 400, **values,
    }  # fmt: skip


def _pair(a: int, b: int, difference: float, p: float) -> dict[str, Any]:
    return {
        "a": a, "b": b, "difference": difference, "ci95": [difference - 0.01, difference + 0.01],
        "p": p, "p_holm": p, "images_for_one_point": 1900, "only_a": 5, "only_b": 3,
        "macro_f1_ci95": None, "auroc_ci95": None, "log_loss_ci95": None, "test": "mcnemar",
        "alpha": 0.05, "at_most": {"a": 0.031, "b": 0.012}, "seed_share": None, "n_groups": None,
    }  # fmt: skip


def _judged(entries: list[dict[str, Any]], pairs: list[dict[str, Any]]) -> dict[str, Any]:
    mark(entries, pairs)
    return {"entries": entries, "pairs": pairs, "n_test": 400, "n_splits": 1, "rope": 0.01}


def test_no_significant_difference_comes_with_a_bound_and_what_would_be_needed() -> None:
    entries = [_entry("svm", 0.93), _entry("finetune", 0.94, log_loss=0.2)]
    said = " ".join(sentences(_judged(entries, [_pair(0, 1, -0.01, 0.6)])))
    assert "svm is not significantly different from the best (exact McNemar, \u03b1 = 0.05" in said
    assert "svm at most 3.1 points worse (95 % confidence)" in said
    assert "about 1,900 test images are needed; there are 400" in said
    assert "better than" not in said
    assert [one["alike"] for one in entries] == [True, False]


def test_words_say_that_a_difference_is_significant() -> None:
    entries = [_entry("svm", 0.80), _entry("finetune", 0.94)]
    record = _judged(entries, [_pair(0, 1, -0.14, 1e-6)])
    said = " ".join(sentences(record))
    assert "It is significantly better than svm" in said
    assert "p < 0.001" in said
    assert "Significantly worse: svm by 14.0 points (13.0 to 15.0)" in said
    assert "not significantly" not in said
    assert [one["alike"] for one in entries] == [False, False]
    table = comparison_table(record).splitlines()
    assert len(table) == 3
    assert table[2].startswith("*")
    assert not table[1].startswith(("*", "~"))


def test_another_figure_is_only_named_where_its_adjusted_interval_excludes_0() -> None:
    entries = [_entry("svm", 0.94, auroc=0.9), _entry("finetune", 0.93, auroc=0.99)]
    pair = _pair(0, 1, 0.01, 0.6)
    record = _judged(entries, [pair])
    assert not any("AUROC" in text for text in sentences(record))
    record["pairs"] = [pair | {"auroc_ci95": [-0.14, -0.02]}]
    (said,) = (text for text in sentences(record) if "AUROC" in text)
    assert "finetune is significantly better (0.990 against 0.900" in said
    assert "adjusted for 1 pair and 3 figures" in said
    lower = [one | {"log_loss": loss} for one, loss in zip(entries, (0.3, 0.1), strict=True)]
    record = _judged(lower, [pair | {"log_loss_ci95": [0.1, 0.3]}])
    assert any("By log-loss, finetune" in text for text in sentences(record))


def test_the_seeds_share_is_said() -> None:
    entries = [_entry("svm", 0.93), _entry("finetune", 0.94)]
    pair = _pair(0, 1, -0.01, 0.6) | {"test": "seeds", "seed_share": 0.27}
    said = " ".join(sentences(_judged(entries, [pair])))
    assert "bootstrap over seeds and images" in said
    assert "due to the training seeds: 27 % (svm)" in said


def test_two_splits_are_not_tested_and_the_sentence_says_so() -> None:
    entries = [_entry(m, a, accuracy_ci95=None, accuracy_sd=0.01, values=[a, a])
               for m, a in (("svm", 0.93), ("finetune", 0.94))]  # fmt: skip
    values = [one["values"] for one in entries]
    pairs = judge_splits(values, n_train=300, n_test=100, rope=0.01)
    record = _judged(entries, pairs) | {"n_splits": 2}
    said = " ".join(sentences(record))
    assert "No test is made: 2 splits" in said
    assert "SPLITS=10" in said
    assert "significant" not in said
    assert "100 %" not in said
    table = comparison_table(record)
    assert "SD (binomial SE)" in table
    assert "1.0 (1.2)" in table


def test_of_equally_accurate_methods_the_lower_log_loss_is_best() -> None:
    assert best_of([_entry("a", 0.9, log_loss=0.4), _entry("b", 0.9, log_loss=0.3)]) == 1
