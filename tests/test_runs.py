import json
import sys
import time

import numpy as np
import pytest
from cnn_codes.cli import main
from cnn_codes.compare.side_by_side import side_by_side
from cnn_codes.errors import ResultError, SettingsError
from cnn_codes.results.metrics import measure
from cnn_codes.results.names import run_name
from cnn_codes.results.predictions import Predictions
from cnn_codes.results.runs import build_record, read_record, write_run
from cnn_codes.results.summary import summarise
from cnn_codes.runs import COLUMNS, find, list_runs
from cnn_codes.runs.content import content_of
from conftest import python
from scipy.stats import binomtest

NAMES = ("ants", "bees")


def said(seed, n=120, skill=0.6):
    """Give predictions on images whose labels depend on the data alone."""
    labels = np.random.default_rng(99).integers(0, 2, n).astype(np.int32)
    rng = np.random.default_rng(seed)
    p = rng.dirichlet((1, 1), n) + skill * (labels[:, None] == np.arange(2))
    p /= p.sum(axis=1, keepdims=True)
    return Predictions(tuple(f"test/{i}.jpg" for i in range(n)), labels, p, NAMES)


def a_run(results, method="svm", seed=0, *, data="insects", found=None, **changes):
    """Write a run as heads do; give its record's path."""
    found = found or said(seed)
    layers, model = changes.pop("layers", ["final"]), changes.pop("model", "net")
    test = {name: int(np.sum(found.labels == k)) for k, name in enumerate(NAMES)}
    values = {
        "run": run_name(
            method=method, model=model, layers=layers, views="center", size=224, seed=seed
        ),
        "data": data,
        "method": method,
        "model": model,
        "layers": layers,
        "views": "center",
        "size": 224,
        "seed": seed,
        "class_names": NAMES,
        "splits": {"train": {"ants": 40, "bees": 40}, "test": test},
        "chosen": {"C": 10.0 ** -(seed + 1), "on": "5-fold cross-validation on train"},
        "metrics": {"test": measure(found.labels, found.probabilities)},
        "times_s": {"codes": 12.0, "fit": 1.5 + seed, "predict": 0.1, "total": 14.0},
        "fingerprint": f"{seed:02}" * 32,
        "settings": {"folds": 5, "layers": ["final"], "leaks": "drop"},
        "command": "python -m pipeline svm DATA=insects",
    }
    return write_run(results / data, build_record(**{**values, **changes}), found)


@pytest.fixture
def results(tmp_path):
    """Give a results folder of five runs, a summary, a damaged record and foreign files."""
    folder = tmp_path / "results"
    for seed in (0, 1):
        a_run(folder, "svm", seed)
        a_run(folder, "softmax", seed, model="net_lite")
    a_run(folder, "ridge", 0, data="flowers")
    runs = [
        read_record(folder / "insects" / f"svm-net-final-center-224-seed{k}.json") for k in "01"
    ]
    summary = summarise(runs, run="svm-net-2seeds")
    (folder / "insects" / "svm-net-2seeds.json").write_text(json.dumps(summary))
    (folder / "insects" / "torn.json").write_text('{"schema": 1, "metr')
    old = runs[0] | {"schema": 0}
    (folder / "insects" / "old.json").write_text(json.dumps(old))
    (folder / "insects" / "audit.json").write_text('{"schema": 1, "findings": []}')
    (folder / "insects" / "map-net.json").write_text('{"schema": 1, "kind": "map"}')
    (folder / "insects" / "x.model.json").write_text("{}")
    return folder


def names(listing):
    return [f"{run.columns['data']}/{run.columns['method']}" for run in listing.runs]


def test_every_run_is_listed_and_damaged_records_are_named(results):
    listing = list_runs(results)
    assert listing.n_found == len(listing.runs) == 6
    assert len(listing.damaged) == 2
    assert any("torn.json cannot be read" in text for text in listing.damaged)
    assert any("old.json" in text and "schema" in text for text in listing.damaged)


def test_columns_are_those_of_the_record(results):
    run = find("flowers/ridge", list_runs(results))
    assert tuple(run.columns) == COLUMNS
    figures = run.record["metrics"]["test"]
    for key in ("accuracy", "auroc", "log_loss"):
        assert run.columns[key] == figures[key]
    assert [run.columns["low"], run.columns["high"]] == figures["accuracy_ci95"]
    assert (run.columns["fit_s"], run.columns["C"]) == (1.5, 0.1)
    assert (run.columns["n_images"], run.columns["on"]) == (120, "test")
    assert run.columns["date"] == run.record["provenance"]["date"]
    summary = find("svm-net-2seeds", list_runs(results))
    assert summary.columns["sd"] == summary.record["spread"]["test"]["accuracy"]["sd"]
    assert summary.columns["date"].startswith("20")


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("", 6),
        ("method=svm", 3),
        ("method=svm kind=run", 2),
        ("method!=svm", 3),
        ("model~lite", 2),
        ("fit_s>2", 2 + 0),
        ("fit_s>=2.5", 2),
        ("fit_s<2.5", 4),
        ("accuracy<=1 accuracy>=0", 6),
        ("C=0.1", 3),
        ("chosen.C<0.05", 2),
        ("settings.folds=5", 5),
        ("settings.folds!=5", 1),
        ("test.ece>=0", 6),
        ("settings.layers=final data=flowers", 1),
        ("date>2020-01-01", 6),
        ("date<2020-01-01", 0),
        ("chosen.on='5-fold cross-validation on train' data=flowers", 1),
    ],
)
def test_conditions_choose_runs(results, where, expected):
    listing = list_runs(results, where=where)
    assert len(listing.runs) == expected
    assert listing.n_found == 6


@pytest.mark.parametrize(
    ("where", "word"),
    [
        ("acuracy>1", "acuracy is no column"),
        ("accuracy", "no condition"),
        ("accuracy>", "no condition"),
        ("accuracy>high", "compares a number"),
        ("method='svm", "quotation"),
    ],
)
def test_conditions_that_make_no_sense_are_errors(results, where, word):
    with pytest.raises(SettingsError, match=word):
        list_runs(results, where=where)


def test_runs_are_sorted_by_any_columns_and_missing_values_come_last(results):
    def values(sort, key):
        return [run.columns[key] for run in list_runs(results, sort=sort).runs]

    rising = values("accuracy", "accuracy")
    assert rising == sorted(rising)
    assert values("-accuracy", "accuracy") == rising[::-1]
    for sort in ("C", "-C"):
        assert values(sort, "C")[-1] is None  # the summary chose none of its own
    two = values("data,-fit_s", "data")
    assert two == sorted(two)
    insects = [x for x in values("data,-fit_s", "fit_s")[1:]]
    assert insects == sorted(insects, reverse=True)
    with pytest.raises(SettingsError, match="speed is no column"):
        list_runs(results, sort="-speed")


def test_a_data_set_is_chosen_by_name_or_path(results):
    assert names(list_runs(results, data="flowers")) == ["flowers/ridge"]
    assert names(list_runs(results, data="../data/flowers")) == ["flowers/ridge"]
    assert not list_runs(results, data="flower").runs


def test_a_run_is_found_by_path_name_or_beginning_and_never_by_a_guess(results):
    listing = list_runs(results)
    path = results / "insects" / "svm-net-final-center-224-seed1.json"
    for name in (str(path), path.stem, f"insects/{path.stem}", path.name):
        assert find(name, listing).path == path
    assert find("flowers/r", listing).name.startswith("ridge")
    with pytest.raises(ResultError, match="3 runs are called svm"):
        find("svm", listing)
    with pytest.raises(ResultError, match="no run called tree"):
        find("tree", listing)
    with pytest.raises(ResultError, match="no record of a run"):
        find(str(results / "insects" / "audit.json"), listing)


def test_two_runs_side_by_side_show_what_differs_and_the_paired_test(results):
    listing = list_runs(results)
    a = find("insects/svm-net-final-center-224-seed0", listing)
    b = find("insects/softmax-net_lite-final-center-224-seed1", listing)
    found = side_by_side(a, b)
    settings = dict((name, pair) for name, *pair in found["differences"]["settings"])
    assert settings == {
        "method": ["svm", "softmax"],
        "model": ["net", "net_lite"],
        "seed": [0, 1],
    }
    assert found["equal"]["settings"] >= 5
    assert found["differences"]["chosen"] == [("C", 0.1, 0.01)]
    assert found["differences"]["splits"] == []
    left, right = said(0), said(1)
    hits = [one.probabilities.argmax(axis=1) == one.labels for one in (left, right)]
    only_a, only_b = int(np.sum(hits[0] & ~hits[1])), int(np.sum(hits[1] & ~hits[0]))
    paired = found["paired"]
    assert (paired["only_a"], paired["only_b"], paired["n_shared"]) == (only_a, only_b, 120)
    assert paired["p"] == pytest.approx(binomtest(only_a, only_a + only_b).pvalue)
    assert f"only A is correct on {only_a}" in found["sentences"][0]
    assert ("accuracy", hits[0].mean(), hits[1].mean()) in found["figures"]


def test_runs_that_share_some_test_images_are_compared_on_these(tmp_path):
    whole = said(0)
    part = Predictions(whole.paths[:50], whole.labels[:50], said(1).probabilities[:50], NAMES)
    a_run(tmp_path, "svm")
    a_run(tmp_path, "softmax", found=part)
    listing = list_runs(tmp_path)
    paired = side_by_side(find("svm", listing), find("softmax", listing))["paired"]
    assert (paired["n_shared"], paired["n_a"], paired["n_b"]) == (50, 120, 50)


def test_a_clear_difference_is_said_to_be_one(tmp_path):
    a_run(tmp_path, "svm", found=said(0, skill=5))
    a_run(tmp_path, "softmax", found=said(0, skill=0))
    listing = list_runs(tmp_path)
    texts = side_by_side(find("softmax", listing), find("svm", listing))["sentences"]
    assert texts[1] == "B is significantly more accurate (\u03b1 = 0.05)."


def test_without_shared_images_there_is_no_paired_test_but_a_reason(results):
    listing = list_runs(results)
    svm = find("insects/svm-net-final-center-224-seed0", listing)
    for other, reason in (
        ("flowers/ridge", "different data sets"),
        ("svm-net-2seeds", "sums up 2 runs"),
    ):
        found = side_by_side(svm, find(other, listing))
        assert found["paired"] is None
        assert reason in found["sentences"][0]
    changed = svm.path.with_name(f"{svm.name}.predictions.csv")
    changed.write_text(changed.read_text().replace("test/0.jpg", "test/zero.jpg"))
    other = find("insects/softmax-net_lite-final-center-224-seed0", listing)
    assert "is not the one" in side_by_side(svm, other)["sentences"][0]


def test_an_interrupted_training_is_listed_with_its_val_figures(tmp_path, capsys):
    found = said(3)
    path = a_run(tmp_path, "finetune", 3, found=found)
    record = json.loads(path.read_text())
    record["metrics"] = {"val": record["metrics"]["test"]}
    path.write_text(json.dumps(record))
    a_run(tmp_path, "svm", 0)
    assert {run.columns["on"] for run in list_runs(tmp_path).runs} == {"val", "test"}
    assert main(["runs", f"RESULTS={tmp_path}"]) == 0
    assert " on " in capsys.readouterr().out.splitlines()[0]
    listing = list_runs(tmp_path)
    reason = side_by_side(find("finetune", listing), find("svm", listing))["sentences"][0]
    assert "has not looked at test" in reason


def test_a_thousand_records_are_listed_in_a_second(tmp_path, capsys):
    record = json.loads(a_run(tmp_path, "svm").read_text())
    record["chosen"]["curve"] = [
        {"C": 10.0**-k, "score": 0.1, "per_fold": [0.1] * 5, "accuracy_per_fold": [0.9] * 5}
        for k in range(20)
    ]
    for i in range(1, 1000):
        name = f"svm-net-{i}"
        path = tmp_path / "insects" / f"{name}.json"
        path.write_text(json.dumps(record | {"run": name, "seed": i}))
    took = []
    for _ in range(3):  # other processes share the caches of the cores
        capsys.readouterr()
        began = time.process_time()
        assert main(["runs", f"RESULTS={tmp_path}", "LIMIT=0", "SORT=-accuracy,seed"]) == 0
        took.append(time.process_time() - began)
        if took[-1] < 1:
            break
    assert min(took) < 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "1,000 of 1,000 runs"
    assert len(lines) == 1003


def test_listing_and_comparing_load_neither_torch_nor_scikit_learn(results):
    code = (
        "import sys; from cnn_codes.cli import main;"
        f"assert main(['runs', 'RESULTS={results}']) == 0;"
        f"assert main(['runs', 'RESULTS={results}', 'RUN=insects/svm-net-final-center-224-seed0', "
        "'AGAINST=softmax-net_lite-final-center-224-seed1']) == 0;"
        "bad = {'torch', 'sklearn', 'h5py', 'onnxruntime'} & set(sys.modules);"
        "assert not bad, bad"
    )
    done = python(code)
    assert done.returncode == 0, done.stderr
    assert "McNemar" in done.stdout


def test_the_command_lists_shows_and_compares(results, capsys):
    place = f"RESULTS={results}"
    assert main(["runs", place, "WHERE=method=svm kind=run", "SORT=seed", "LIMIT=1"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[0].split()[:4] == ["data", "method", "model", "layers"]
    assert "2 of 6 runs, 1 of them not shown" in out
    assert err.count("damaged:") == 2
    assert main(["runs", place, "RUN=flowers/ridge"]) == 0
    out = capsys.readouterr().out
    assert "settings.folds" in out
    assert "python -m pipeline svm DATA=insects" in out
    assert main(["runs", place, "RUN=flowers/ridge", "AGAINST=svm-net-2seeds"]) == 0
    assert "No paired test" in capsys.readouterr().out
    assert main(["runs", place, "WHERE=method=tree"]) == 0
    assert "No run of 6 matches." in capsys.readouterr().out


@pytest.mark.parametrize(
    "wrong",
    [
        ["AGAINST=svm"],
        ["EXPORT=excel", "OUT=x"],
        ["EXPORT=mlflow"],
        ["OUT=x"],
        ["LIMIT=-1"],
        ["WHERE=speed>1"],
        ["RUN=nothing"],
        ["RESULTS=/nowhere"],
    ],
)
def test_mistakes_are_answered_with_exit_code_2(results, wrong, capsys):
    assert main(["runs", f"RESULTS={results}", *wrong]) == 2
    assert capsys.readouterr().err.count("error:") == 1


# Export.


def trained(results):
    """Write a run as fine-tuning does, with a curve of two phases."""
    path = a_run(results, "finetune", 4)
    record = json.loads(path.read_text())
    record["curve"] = [
        {"phase": 0, "epoch": 0, "val_loss": 0.9, "val_accuracy": 0.5},
        {"phase": 0, "epoch": 1, "val_loss": 0.6, "val_accuracy": 0.7, "train_loss": 0.5},
        {"phase": 1, "epoch": 0, "val_loss": 0.6, "val_accuracy": 0.7, "train_loss": None},
        {"phase": 1, "epoch": 1, "val_loss": 0.4, "val_accuracy": 0.8, "train_loss": 0.3},
    ]
    record["warnings"] = ["a class is small"]
    path.write_text(json.dumps(record))
    return find(str(path), list_runs(results))


def test_what_is_exported_is_what_the_record_holds(tmp_path):
    run = trained(tmp_path)
    content = content_of(run)
    assert content.parameters["method"] == "finetune"
    assert content.parameters["folds"] == 5
    assert content.parameters["chosen.C"] == run.record["chosen"]["C"]
    assert content.figures["test/accuracy"] == run.record["metrics"]["test"]["accuracy"]
    assert content.figures["time/fit_s"] == 5.5
    assert [step for step, _ in content.curve] == [0, 1, 2, 3]
    assert content.curve[3][1] == {"val_loss": 0.4, "val_accuracy": 0.8, "train_loss": 0.3}
    assert "train_loss" not in content.curve[2][1]
    assert set(content.files) == {".json", ".predictions.csv"}
    assert content.files[".json"] == run.path.resolve().as_uri()
    assert content.digests[".predictions.csv"] in run.record["files"].values()


@pytest.mark.parametrize("tool", ["mlflow", "tensorboard"])
def test_a_tool_that_is_not_installed_is_named_with_what_to_install(
    results, tool, monkeypatch, capsys, tmp_path
):
    for name in [name for name in sys.modules if name.partition(".")[0] == tool]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, tool, None)  # as if it were not there
    out = tmp_path / "out"
    assert main(["runs", f"RESULTS={results}", f"EXPORT={tool}", f"OUT={out}"]) == 2
    told = capsys.readouterr().err
    assert f"EXPORT={tool} needs {tool}" in told
    assert "pip install" in told
    assert not out.exists()


@pytest.mark.filterwarnings("ignore")
def test_tensorboard_reads_back_what_was_exported(tmp_path, capsys):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = trained(tmp_path / "results")
    a_run(tmp_path / "results", "svm")
    out = tmp_path / "board"
    for _ in range(2):  # the second time in place of the first
        assert (
            main(["runs", f"RESULTS={tmp_path / 'results'}", "EXPORT=tensorboard", f"OUT={out}"])
            == 0
        )
    assert "2 runs written" in capsys.readouterr().out
    assert len(list(out.rglob("*tfevents*"))) == 2
    read = EventAccumulator(str(out / "insects" / run.name))
    read.Reload()
    loss = [(one.step, one.value) for one in read.Scalars("epoch/val_loss")]
    assert loss == [(0, pytest.approx(0.9)), (1, pytest.approx(0.6)), (2, pytest.approx(0.6)),
                    (3, pytest.approx(0.4))]  # fmt: skip
    assert [one.step for one in read.Scalars("epoch/train_loss")] == [1, 3]
    accuracy = run.record["metrics"]["test"]["accuracy"]
    assert read.Scalars("test/accuracy")[0].value == pytest.approx(accuracy, rel=1e-6)
    text = read.Tensors("run")[0].tensor_proto.string_val[0].decode()
    assert "a class is small" in text
    assert run.path.resolve().as_uri() in text
    from tensorboard.plugins.hparams import plugin_data_pb2

    data = read.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    start = plugin_data_pb2.HParamsPluginData.FromString(data).session_start_info
    assert start.hparams["method"].string_value == "finetune"
    assert start.hparams["folds"].number_value == 5


@pytest.mark.filterwarnings("ignore")
def test_mlflow_reads_back_what_was_exported(tmp_path, capsys):
    pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    pytest.importorskip("alembic")
    from mlflow.tracking import MlflowClient

    run = trained(tmp_path / "results")
    a_run(tmp_path / "results", "svm")
    out = tmp_path / "ml flow"
    for told in ("2 runs written", "0 runs written to"):
        assert main(["runs", f"RESULTS={tmp_path / 'results'}", "EXPORT=mlflow", f"OUT={out}"]) == 0
        assert told in capsys.readouterr().out
    client = MlflowClient(tracking_uri=f"sqlite:///{out / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("insects")
    found = client.search_runs(
        [experiment.experiment_id], filter_string=f"attributes.run_name = '{run.name}'"
    )
    assert len(found) == 1
    data = found[0].data
    assert found[0].info.status == "FINISHED"
    assert data.metrics["test/accuracy"] == run.record["metrics"]["test"]["accuracy"]
    assert (data.params["method"], data.params["folds"]) == ("finetune", "5")
    assert data.tags["cnn_codes.fingerprint"] == run.record["fingerprint"]
    assert data.tags["artifact.json"] == run.path.resolve().as_uri()
    history = client.get_metric_history(found[0].info.run_id, "epoch/val_loss")
    assert sorted((one.step, one.value) for one in history) == [
        (0, 0.9), (1, 0.6), (2, 0.6), (3, 0.4),
    ]  # fmt: skip
