"""A run is of its images, labels and classes: none replaces one of others."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from cnn_codes.cli import main
from cnn_codes.datasets.corrections import Correction, State
from cnn_codes.results.frame import write_framed
from cnn_codes.results.names import name_for
from cnn_codes.results.records import SCHEMA
from cnn_codes.results.runs import read_record, result_files
from conftest import SMALL, Inside
from pictures import write_set

SETTINGS = SMALL | {"folds": 2, "jobs": 1}


def written(results: Path) -> dict[str, tuple[str, list[str]]]:
    """Name and classes of every run, by its record's digest; all files are what was written."""
    found = {}
    for path in result_files(results, "*.json"):
        if path.name.endswith(".model.json") or "metrics" not in json.loads(path.read_text()):
            continue
        record = read_record(path, verify=True)
        found[record["digest"]] = (record["run"], record["class_names"])
    return found


def rename(root: Path) -> None:
    (root / "dog").rename(root / "wasp")


def add(root: Path) -> None:
    write_set(root / "more", 2)
    for path in sorted((root / "more").rglob("*.jpg")):
        path.write_bytes(path.read_bytes() + b"\0")
        path.rename(root / path.parent.name / f"new-{path.name}")
    for folder in sorted((root / "more").rglob("*"), reverse=True):
        folder.rmdir()
    (root / "more").rmdir()


def swap(root: Path) -> None:
    (root / "cat" / "0000.jpg").rename(root / "dog" / "swapped.jpg")
    (root / "dog" / "0001.jpg").rename(root / "cat" / "swapped.jpg")


CHANGES = {
    "a class is renamed": (rename, {}),
    "an image is added": (add, {}),
    "labels change": (swap, {}),
    "labels are corrected": (None, {"labels": "corrections.jsonl"}),
    "another column": (None, {"label_column": "animal"}),
}


@pytest.mark.parametrize("stage", ["centroid-and-ridge", "splits"])
@pytest.mark.parametrize("change", CHANGES)
def test_no_run_replaces_one_of_other_data(
    tmp_path: Path, inside: Inside, stage: str, change: str
) -> None:
    root = write_set(tmp_path / "set", 24)
    digest = hashlib.sha256((root / "cat" / "0000.jpg").read_bytes()).hexdigest()
    corrections = tmp_path / "corrections.jsonl"
    states = State("cat"), State("dog", checked=True)
    corrections.write_bytes(Correction("cat/0000.jpg", digest, "label", *states).line())
    data: Path = root
    first: dict[str, Any] = {}
    act, then = CHANGES[change]
    if "label_column" in then:
        data, first = tmp_path / "table.csv", {"label_column": "kind"}
        rows = [
            f"set/{path.relative_to(root)},{path.parent.name},{'bird' if at % 3 else 'fish'}\n"
            for at, path in enumerate(sorted(root.rglob("*.jpg")))
        ]
        data.write_text("file,kind,animal\n" + "".join(rows))
    then = {key: corrections if key == "labels" else value for key, value in then.items()}
    methods = {"methods": "centroid,ridge"} | ({"splits": 2} if stage == "splits" else {})

    def run(**more: Any) -> dict[str, tuple[str, list[str]]]:
        done = inside("heads", data=data, **(SETTINGS | methods | more))
        assert done.returncode == 0, done.stderr
        return written(tmp_path / "results")

    before = run(**first)
    if act is not None:
        act(root)
    after = run(**then)
    assert before.items() <= after.items()
    assert len(after) == 2 * len(before)
    names = [name for name, _ in after.values()]
    assert len(set(names)) == len(names)
    again = run(**then)  # found again, under its longer name
    single = {key for key, (name, _) in after.items() if "splits" not in name}
    assert single <= set(again)
    assert len(again) == len(after)


def test_the_earlier_run_is_found_again_when_the_class_has_its_name_back(
    tmp_path: Path, inside: Inside
) -> None:
    root = write_set(tmp_path / "set", 16)
    settings = SETTINGS | {"methods": "centroid"}
    inside("heads", data=root, **settings)
    rename(root)
    said = inside("heads", data=root, **settings)
    assert "is kept; this is" in said.stderr
    (root / "wasp").rename(root / "dog")
    again = inside("heads", data=root, **settings)
    assert "was there already" in again.stdout
    assert len(written(tmp_path / "results")) == 2


def test_a_trained_network_of_other_classes_is_kept(tmp_path: Path, inside: Inside) -> None:
    root = write_set(tmp_path / "set", 20)
    settings = SMALL | {"epochs": 1, "init": "random", "unfreeze": "all", "batch_size": 4}
    assert inside("finetune", data=root, **settings).returncode == 0
    before = written(tmp_path / "results")
    rename(root)
    assert inside("finetune", data=root, **settings).returncode == 0
    after = written(tmp_path / "results")
    assert len(after) == 2
    assert before.items() <= after.items()


@pytest.mark.parametrize("stage", ["predict", "export", "explain", "runs"])
def test_a_beginning_that_two_runs_have_is_asked_about(
    tmp_path: Path, inside: Inside, stage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_set(tmp_path / "set", 16)
    settings = SETTINGS | {"methods": "centroid"}
    inside("heads", data=root, **settings)
    rename(root)
    inside("heads", data=root, **settings)
    names = sorted(name for name, _ in written(tmp_path / "results").values())
    images = {} if stage in ("export", "runs") else {"images": root / "cat"}
    line = inside.line(stage, run="centroid", **images)
    assert main(line[line.index(stage) :]) == 2
    said = capsys.readouterr().err
    assert "2 runs are called centroid" in said
    for name in names:
        assert name in said


def test_a_record_of_an_earlier_version_is_taken_only_for_the_same_request(tmp_path: Path) -> None:
    record = {
        "schema": 1, "kind": "run", "run": "svm", "data": "d", "method": "svm", "model": "m",
        "layers": ["final"], "views": "none", "size": 32, "seed": 0, "class_names": ["a", "b"],
        "splits": {}, "chosen": {}, "times_s": {}, "fingerprint": "one", "versions": {},
        "warnings": [], "metrics": {"test": {
            "accuracy": 1, "balanced_accuracy": 1, "macro_f1": 1, "auroc": None, "log_loss": 0,
            "brier": 0, "ece": 0}},
    }  # fmt: skip
    asked: dict[str, Any] = {"subject": "0123456789abcdef"}
    assert name_for(tmp_path, "svm", fingerprint="one", **asked) == "svm"
    (tmp_path / "svm.json").write_text(json.dumps(record))
    assert name_for(tmp_path, "svm", fingerprint="one", **asked) == "svm"
    assert name_for(tmp_path, "svm", fingerprint="two", **asked) == "svm-012345"
    (tmp_path / "svm.json").write_text("{")  # damaged: made again in its place
    assert name_for(tmp_path, "svm", fingerprint="two", **asked) == "svm"


DERIVED = {
    "compare": {"methods": "centroid,ridge"},
    "curve": {"methods": "centroid", "sizes": "2,4", "draws": 2},
    "labels": {},
    "layers": {"layers": "all"},
    "map": {},
}


@pytest.mark.slow
def test_no_comparison_curve_or_evidence_replaces_one_of_other_data(
    tmp_path: Path, inside: Inside
) -> None:
    root = write_set(tmp_path / "set", 24)

    def records(kinds: tuple[str, ...] = ("compare", "curve", "mislabelled", "layers", "map")):
        found = {}
        for kind in kinds:
            for path in result_files(tmp_path / "results", f"{kind}-*.json"):
                record = json.loads(path.read_text())
                found[record["digest"]] = (record["name"], record["class_names"])
        return found

    def run() -> None:
        for stage, more in DERIVED.items():
            done = inside(stage, data=root, **(SMALL | {"jobs": 1} | more))
            assert done.returncode == 0, (stage, done.stderr)

    run()
    before = records()
    assert len(before) == len(DERIVED)
    rename(root)
    run()
    after = records()
    assert before.items() <= after.items()
    assert len(after) == 2 * len(before)
    assert inside("report", data=root, **(SMALL | {"jobs": 1, "evidence": "none"})).returncode == 0
    assert records().keys() >= after.keys()
    (root / "wasp").rename(root / "dog")  # and what is found again is of these classes
    run()
    assert records().keys() >= before.keys()


@pytest.mark.parametrize("kind", ["run", "compare"])
def test_a_record_of_any_kind_keeps_its_name_to_itself(tmp_path: Path, kind: str) -> None:
    record = {"schema": SCHEMA, "kind": kind, "subject": "a" * 16, "fingerprint": "f"}
    write_framed(tmp_path / "one.json", record)
    names = [
        name_for(tmp_path, "one", subject=letter * 16, fingerprint="f") for letter in ("a", "b")
    ]
    assert names == ["one", "one-bbbbbb"]
