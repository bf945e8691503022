from dataclasses import replace

import numpy as np
import pytest
from cnn_codes.cli import main
from cnn_codes.context import Context
from cnn_codes.evidence import probe_layers
from cnn_codes.heads.folds import cut_folds
from cnn_codes.heads.grids import axes_of
from cnn_codes.heads.problem import Problem
from cnn_codes.heads.search import quiet_solvers, search
from cnn_codes.progress import silent
from cnn_codes.settings import LayersSettings, PlaceSettings
from conftest import SMALL, StageOne, python
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tuning import few_images


@pytest.fixture(scope="module")
def folder(hotdog, backbones, tmp_path_factory):
    """Give a folder with 80 photographs, a cache and results."""
    folder = tmp_path_factory.mktemp("layers")
    backbones.mkdir(exist_ok=True)
    (folder / "cache").mkdir()
    (folder / "cache" / "backbones").symlink_to(backbones)
    few_images(hotdog, folder / "few", 30, 10)
    return folder


@pytest.fixture(scope="module")
def data(folder):
    """Give manifest and codes of all layers of the photographs."""
    stage_one = StageOne(folder / "cache")
    manifest = stage_one.manifest(folder / "few")
    return manifest, stage_one(manifest, layers=("all",)).codes


@pytest.fixture(scope="module")
def made(data, folder):
    """Give the record of a softmax head for each layer."""
    return probed(*data, folder / "results", jobs=1)


def probed(manifest, codes, results, **settings):
    context = Context(manifest=manifest, places=PlaceSettings(results=str(results)))
    return probe_layers(context, codes, LayersSettings(**settings))


def test_every_layer_is_probed_in_the_order_of_the_network(data, made):
    _, codes = data
    record = made
    assert [one["layer"] for one in record["layers"]] == list(codes.layers)
    assert [one["code_dim"] for one in record["layers"]] == [
        codes[layer].shape[-1] for layer in codes.layers
    ]
    depths = [one["depth"] for one in record["layers"]]
    assert (depths[0], depths[-1]) == (0, 1)
    assert depths == sorted(depths)
    top = max(one["accuracy"] for one in record["layers"])
    best = next(one for one in record["layers"] if one["layer"] == record["best"])
    assert best["accuracy"] == top
    assert record["n_train"] == 60
    assert record["best"] in record["sentences"][0]


def test_figures_are_those_of_scikit_learn_on_the_same_folds(data):
    manifest, codes = data
    train = codes.split == "train"
    labels = codes.labels[train]
    folds, _ = cut_folds(
        labels, manifest.groups[train], folds=5, seed=0, class_names=manifest.class_names
    )
    layer = codes.layers[-1]
    block = codes.matrix([layer])[train]
    problem = Problem(
        "softmax", block, labels, block, labels, folds, 2, balanced=False, views="mean"
    )
    with quiet_solvers():
        axes = axes_of("softmax", n_train=48, code_dim=block.shape[2])
        found = search(problem, axes, jobs=1, progress=silent, apart=True)
    z = codes[layer][train].astype(np.float64)
    tried = [one["C"] for one in found.curve]
    hits = np.empty((len(tried), len(labels)), bool)  # by scikit-learn
    for rows, held in folds:
        for at, c in enumerate(tried):
            model = make_pipeline(
                StandardScaler(), LogisticRegression(C=c, tol=1e-6, max_iter=5000)
            )
            model.fit(z[rows], labels[rows])
            hits[at, held] = model.predict(z[held]) == labels[held]
    for at, point in enumerate(found.curve):
        assert point["accuracy"] == pytest.approx(hits[at].mean(), abs=1 / 60 + 1e-9)  # an image
    # Each fold's scores are of one candidate; the other folds' images chose it, not its own.
    assert found.apart is not None
    right = found.apart.argmax(axis=1) == labels[found.rows]
    for part, (_, held) in enumerate(folds):
        others = np.setdiff1d(np.arange(len(labels)), held)
        able = hits[:, others].mean(axis=1) >= hits[:, others].mean(axis=1).max() - 0.15
        of_able = hits[np.ix_(np.flatnonzero(able), held)].sum(axis=1)
        got = right[found.parts == part].sum()
        assert of_able.min() - 1 <= got <= of_able.max() + 1


def test_the_test_split_does_not_enter_and_any_number_of_jobs_gives_the_same(data, made, tmp_path):
    manifest, codes = data
    labels = manifest.labels.copy()
    test = manifest.split == 2
    labels[test] = 1 - labels[test]
    other = probed(replace(manifest, labels=labels), codes, tmp_path, jobs=2)
    assert "reused" not in other
    assert other["fingerprint"] != made["fingerprint"]
    assert other["layers"] == made["layers"]


def test_a_record_is_reused_and_another_head_has_its_own(data, made, folder):
    manifest, codes = data
    again = probed(manifest, codes, folder / "results", jobs=2)
    assert again.pop("reused")
    assert again == made
    svm = probed(manifest, codes, folder / "results", probe="svm")
    assert svm["method"] == "svm"
    assert svm["name"] != made["name"]


def test_the_command_marks_the_best_layer(made, folder, capsys):
    named = [f"{k.upper()}={v}" for k, v in SMALL.items()]
    places = [f"DATA={folder / 'few'}", f"CACHE={folder / 'cache'}"]
    places.append(f"RESULTS={folder / 'results'}")
    assert main(["layers", *named, *places]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("*")] == [made["best"]]
    assert lines[-1].endswith("(was there already)")
    assert main(["layers", *named, *places, "FOLDS=1"]) == 2


def test_taking_what_is_there_loads_no_scikit_learn(made, folder):
    code = (
        "import sys; from cnn_codes.cli import main; code = main(sys.argv[1:]); "
        "assert code == 0 and not {'sklearn', 'torch'} & set(sys.modules)"
    )
    named = [f"{k.upper()}={v}" for k, v in SMALL.items()]
    places = [f"{name.upper()}={folder / name}" for name in ("cache", "results")]
    done = python(code, "layers", f"DATA={folder / 'few'}", *named, *places)
    assert done.returncode == 0, done.stderr
    assert "(was there already)" in done.stdout
