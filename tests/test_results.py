import csv
import json
import sys

import numpy as np
import pytest
import sklearn.metrics as sk
from cnn_codes.errors import ResultError
from cnn_codes.results.metrics import measure
from cnn_codes.results.names import run_name
from cnn_codes.results.predictions import Predictions, read_predictions, write_predictions
from cnn_codes.results.provenance import machine, versions
from cnn_codes.results.runs import build_record, list_records, read_record, write_run
from cnn_codes.results.summary import summarise
from cnn_codes.results.tables import table
from conftest import python
from hypothesis import given, settings
from hypothesis import strategies as st


def predictions(seed=0, n=50, names=("ants", "bees", "c, d")):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, len(names), n).astype(np.int32)
    p = rng.dirichlet(np.ones(len(names)), n)
    p += 0.5 * (labels[:, None] == np.arange(len(names)))
    p /= p.sum(axis=1, keepdims=True)
    return Predictions(tuple(f"test/a b/{i},é.jpg" for i in range(n)), labels, p, tuple(names))


def record(seed=0, *, method="svm", c=1e-3, found=None, **changes):
    found = found or predictions(seed)
    values = {
        "run": f"{method}-net-seed{seed}",
        "data": "ants-bees",
        "method": method,
        "model": "net.v1",
        "layers": ["final"],
        "views": "center",
        "size": 224,
        "seed": seed,
        "class_names": found.class_names,
        "splits": {"test": {"ants": np.int64(17)}},
        "chosen": {"C": c} if c else {},
        "metrics": {"test": measure(found.labels, found.probabilities)},
        "times_s": {"codes": 1.0, "fit": np.float32(0.5), "predict": 0.1, "total": 1.6},
        "fingerprint": "ab" * 32,
        "settings": {"folds": 5, "layers": ("final",)},
        "command": "python -m pipeline svm",
        "warnings": ["two images could not be read"],
    }
    return build_record(**{**values, **changes})


def test_every_metric_follows_from_the_written_predictions(tmp_path):
    found = predictions()
    path = write_run(tmp_path, record(found=found), found)
    stored = read_record(path, verify=True)["metrics"]["test"]
    # Read with the standard library and measured by scikit-learn: nothing of ours.
    with (tmp_path / "svm-net-seed0.predictions.csv").open(encoding="utf-8", newline="") as stream:
        header, *rows = csv.reader(stream)
    names = header[3:]
    y = [row[1] for row in rows]
    p = np.array([[float(cell) for cell in row[3:]] for row in rows])
    assert stored["accuracy"] == sk.accuracy_score(y, [row[2] for row in rows])
    assert stored["log_loss"] == pytest.approx(sk.log_loss(y, p, labels=names), rel=1e-12)
    assert stored["auroc"] == pytest.approx(sk.roc_auc_score(y, p, multi_class="ovr"), rel=1e-12)
    assert [row[0] for row in rows] == list(found.paths)
    # And by ours, to the bit.
    again = read_predictions(tmp_path / "svm-net-seed0.predictions.csv")
    assert measure(again.labels, again.probabilities) == stored


names_of_things = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], include_characters="\n\t"), min_size=1
)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(names_of_things, min_size=2, max_size=4, unique=True),
    st.lists(names_of_things, min_size=1, max_size=5),
    st.integers(0, 10**6),
)
def test_predictions_come_back_to_the_bit(tmp_path_factory, names, paths, seed):
    path = tmp_path_factory.mktemp("p") / "x.csv"
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(len(names), 0.05), len(paths))
    labels = rng.integers(0, len(names), len(paths)).astype(np.int32)
    write_predictions(path, Predictions(tuple(paths), labels, p, tuple(names)))
    again = read_predictions(path)
    assert (again.probabilities == p).all()
    assert (again.labels == labels).all()
    assert (again.paths, again.class_names) == (tuple(paths), tuple(names))


def test_file_names_that_are_not_utf8_keep_their_bytes(tmp_path):
    odd = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    one = Predictions((odd,), np.array([0], np.int32), np.array([[0.75, 0.25]]), ("a", "b"))
    write_predictions(tmp_path / "x.csv", one)
    assert b"caf\xe9.jpg" in (tmp_path / "x.csv").read_bytes()
    assert read_predictions(tmp_path / "x.csv").paths == (odd,)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "path,label\n",
        "path,label,predicted,a,b\nx,a,b,0.9,0.1\n",
        "path,label,predicted,a,b\nx,z,a,0.9,0.1\n",
        "path,label,predicted,a,b\nx,a,a,0.9\n",
        "path,label,predicted,a,b\nx,a,a,much,0.1\n",
        "path,label,predicted,a,a\nx,a,a,0.9,0.1\n",
    ],
)
def test_a_table_that_is_none_is_refused(tmp_path, text):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(ResultError, match=r"x\.csv"):
        read_predictions(tmp_path / "x.csv")


def test_predictions_that_do_not_belong_together_are_refused():
    p = np.full((2, 2), 0.5)
    with pytest.raises(ResultError):
        Predictions(("a",), np.array([0, 1], np.int32), p, ("a", "b"))
    with pytest.raises(ResultError):
        Predictions(("a", "b"), np.array([0, 2], np.int32), p, ("a", "b"))


def model(stem):
    path = stem.with_name(stem.name + ".safetensors")
    path.write_bytes(b"model")
    return [path]


def test_all_files_of_a_run_take_their_names_together(tmp_path):
    seen = []

    def save(stem):
        seen.append([path.name for path in tmp_path.iterdir() if not path.name.startswith(".")])
        return model(stem)

    path = write_run(tmp_path, record(), predictions(), save_model=save)
    assert seen == [[]]
    names = {"svm-net-seed0.safetensors", "svm-net-seed0.predictions.csv"}
    assert read_record(path, verify=True)["files"].keys() == names
    assert {file.name for file in tmp_path.iterdir()} == {*names, path.name}


def test_a_run_that_fails_or_is_killed_leaves_the_earlier_one(tmp_path):
    def fail(stem):
        raise RuntimeError("killed")

    path = write_run(tmp_path, record(), predictions(), save_model=model)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(RuntimeError):
        write_run(tmp_path, record(), predictions(1), save_model=fail)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    left = tmp_path / f".{path.stem}.new"  # as a kill leaves it, without a record in it
    left.mkdir()
    (left / "svm-net-seed0.safetensors").write_bytes(b"half")
    assert read_record(path, verify=True)["files"]
    assert len(list_records(tmp_path)) == 1
    write_run(tmp_path, record(), predictions(1), save_model=model)
    assert not left.exists()


def test_a_swap_that_was_cut_short_is_completed_by_the_reader(tmp_path):
    other = tmp_path / "other"
    path = write_run(tmp_path, record(), predictions(), save_model=model)
    newer = write_run(other, record(), predictions(1), save_model=model)
    staged = tmp_path / f".{path.stem}.new"
    other.rename(staged)
    (staged / "svm-net-seed0.predictions.csv").rename(tmp_path / "svm-net-seed0.predictions.csv")
    found = read_record(path, verify=True)
    assert found["files"] == read_record(tmp_path / newer.name)["files"]
    assert not staged.exists()


def test_an_edited_figure_is_noticed(tmp_path):
    path = write_run(tmp_path, record(), predictions())
    text = path.read_text()
    accuracy = json.loads(text)["metrics"]["test"]["accuracy"]
    path.write_text(text.replace(f'"accuracy": {accuracy}', '"accuracy": 0.987', 1))
    assert path.read_text() != text
    with pytest.raises(ResultError, match="changed after it was written"):
        read_record(path)


def test_verify_notices_files_changed_or_gone(tmp_path):
    path = write_run(tmp_path, record(), predictions())
    other = tmp_path / "svm-net-seed0.predictions.csv"
    other.write_bytes(other.read_bytes() + b" ")
    read_record(path)
    with pytest.raises(ResultError, match="not the one"):
        read_record(path, verify=True)
    other.unlink()
    with pytest.raises(ResultError, match="missing"):
        read_record(path, verify=True)


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 99},
        {"kind": "poem"},
        {"metrics": {}},
        {"metrics": {"test": {}}},
        {"metrics": {"test": 3}},
        {"layers": "final"},
        {"seed": None},
        {"fingerprint": ...},
    ],
)
def test_records_of_another_form_are_refused(tmp_path, change):
    path = write_run(tmp_path, record(), predictions())
    found = {**json.loads(path.read_text()), **change}
    path.write_text(json.dumps({k: v for k, v in found.items() if v is not ...}))
    with pytest.raises(ResultError) as caught:
        read_record(path)
    assert path.name in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"[]", b"null"])
def test_damaged_records_are_refused(tmp_path, data):
    (tmp_path / "x.json").write_bytes(data)
    with pytest.raises(ResultError):
        read_record(tmp_path / "x.json")


def test_listing_passes_over_foreign_files_and_reports_damaged_ones(tmp_path):
    assert list_records(tmp_path / "nowhere") == []
    for seed in (1, 0):
        write_run(tmp_path / "ants-bees", record(seed), predictions(seed))
    (tmp_path / "bench.json").write_text('{"ratio": 3}')
    (tmp_path / "ants-bees" / "svm.model.json").write_text("{}")
    assert [one["seed"] for one in list_records(tmp_path)] == [0, 1]
    (tmp_path / "z.json").write_text("{")
    with pytest.raises(ResultError):
        list_records(tmp_path)
    errors = []
    assert len(list_records(tmp_path, on_error=errors.append)) == 2
    assert len(errors) == 1


def test_figures_that_are_not_finite_are_not_recorded():
    found = predictions()
    figures = measure(found.labels, found.probabilities)
    with pytest.raises(ResultError, match="log_loss"):
        record(metrics={"test": {**figures, "log_loss": float("nan")}})


def test_provenance_names_no_host_and_no_path(tmp_path):
    import platform
    import socket

    text = json.dumps(machine())
    assert socket.gethostname() not in text
    assert platform.node() not in text
    assert "/" not in text.replace("w/", "")
    assert machine()["cores"] >= 1


def test_versions_are_those_of_the_imported_packages():
    found = versions()
    assert found["numpy"] == np.__version__
    assert found["python"] == sys.version.split()[0]


def test_table_lines_up_and_marks_the_best_run():
    records = [record(0, method="svm"), record(1, method="knn", c=None), record(2, method="rbf")]
    lines = table(records).splitlines()
    assert len(lines) == 4
    best = max(records, key=lambda one: one["metrics"]["test"]["accuracy"])["method"]
    marked = [line for line in lines if line.startswith("*")]
    assert len(marked) == 1
    assert best in marked[0]
    assert "seed" in lines[0]  # the records differ in it
    assert "model" not in lines[0]
    column = lines[0].index("Accuracy, %")
    for line, one in zip(lines[1:], records, strict=True):
        shown = line[column : column + len("Accuracy, %")].strip()
        assert shown == f"{100 * one['metrics']['test']['accuracy']:.1f}"
    assert "1.0e-3" in lines[1]
    assert table([]) == ""


def test_summary_keeps_every_value_with_mean_and_spread(tmp_path):
    runs = [record(seed, c=10.0**-seed) for seed in (1, 2, 3)]
    found = summarise(runs, run="svm-net-3seeds")
    values = [one["metrics"]["test"]["accuracy"] for one in runs]
    spread = found["spread"]["test"]["accuracy"]
    assert spread["values"] == values
    assert spread["mean"] == pytest.approx(np.mean(values))
    assert spread["sd"] == pytest.approx(np.std(values, ddof=1))
    assert (spread["min"], spread["max"]) == (min(values), max(values))
    assert found["metrics"]["test"]["accuracy"] == spread["mean"]
    assert found["runs"] == [one["run"] for one in runs]
    assert "±" in table([found])
    assert "1.0e-3 to 1.0e-1" in table([found])
    (tmp_path / "s.json").write_text(json.dumps(found))
    assert read_record(tmp_path / "s.json") == found


def test_summary_of_one_run_has_no_spread_and_of_unlike_runs_is_refused():
    assert summarise([record()], run="s")["spread"]["test"]["accuracy"]["sd"] is None
    with pytest.raises(ResultError, match="method"):
        summarise([record(), record(method="rbf")], run="s")
    with pytest.raises(ResultError):
        summarise([], run="s")


def test_run_names_are_file_names():
    name = run_name(
        method="svm", model="hf-hub:timm/x y", layers=["a", "b"], views="random:4", size=224, seed=1
    )
    assert name == "svm-hf_hub_timm_x_y-a+b-random_4-224-seed1"


def test_results_import_neither_scikit_learn_nor_torch():
    heavy = "{'sklearn', 'torch', 'scipy'}"
    code = f"import sys, cnn_codes.results.runs; print({heavy} & set(sys.modules))"
    run = python(code, check=True)
    assert run.stdout.strip() == "set()"
