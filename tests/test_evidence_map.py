from dataclasses import replace

import numpy as np
import pytest
from cnn_codes.cli import main
from cnn_codes.context import Context
from cnn_codes.evidence import map as maps
from cnn_codes.evidence import map_codes
from cnn_codes.settings import DataSettings, MapSettings, PlaceSettings
from conftest import SMALL
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA
from sklearn.manifold import trustworthiness
from sklearn.preprocessing import StandardScaler
from tuning import few_images


@pytest.fixture
def data(hotdog, stage_one, tmp_path):
    """Give manifest and codes of 140 photographs."""
    manifest = stage_one.manifest(few_images(hotdog, tmp_path / "few", 50, 20))
    return manifest, stage_one(manifest).codes


@pytest.fixture(autouse=True)
def no_umap(request, monkeypatch):
    """Take t-SNE, whatever is installed, unless the test is one of UMAP."""
    if "umap" not in request.node.name:
        monkeypatch.setattr(maps.importlib.util, "find_spec", lambda name: None)


def mapped(manifest, codes, results, *, seed=0, **settings):
    context = Context(
        manifest=manifest, data=DataSettings(seed=seed), places=PlaceSettings(results=str(results))
    )
    return map_codes(context, codes, MapSettings(**settings))


def test_components_are_those_of_scikit_learn(data, tmp_path):
    manifest, codes = data
    record = mapped(manifest, codes, tmp_path)
    rows = [codes.paths.index(one["path"]) for one in record["images"]]
    z = StandardScaler().fit_transform(codes[codes.layers[-1]][rows].astype(np.float64))
    model = PCA(2, svd_solver="full").fit(z)
    xy = np.array(record["projections"]["pca"]["xy"])
    theirs = model.transform(z)
    for axis in (0, 1):
        sign = np.sign(xy[:, axis] @ theirs[:, axis])
        np.testing.assert_allclose(xy[:, axis], sign * theirs[:, axis], atol=2e-3)
    np.testing.assert_allclose(
        record["projections"]["pca"]["explained"], model.explained_variance_ratio_, rtol=1e-6
    )


def test_neighbours_stay_neighbours_and_a_seed_gives_the_same_map(data, tmp_path):
    manifest, codes = data
    record = mapped(manifest, codes, tmp_path / "a")
    again = mapped(manifest, codes, tmp_path / "b")
    assert record["projections"] == again["projections"]
    rows = [codes.paths.index(one["path"]) for one in record["images"]]
    xy = np.array(record["projections"]["tsne"]["xy"])
    assert xy.shape == (manifest.n_images, 2)
    assert np.isfinite(xy).all()
    z = StandardScaler().fit_transform(codes[codes.layers[-1]][rows].astype(np.float64))
    assert trustworthiness(z, xy, n_neighbors=10) > 0.8  # .5: no better than at random
    assert mapped(manifest, codes, tmp_path / "a", seed=1)["images"] == record["images"]


def test_test_images_come_first_and_the_rest_is_a_stratified_sample(data, tmp_path):
    manifest, codes = data
    record = mapped(manifest, codes, tmp_path, shown=60)
    assert (record["n_shown"], record["n_images"]) == (60, 140)
    splits = [one["split"] for one in record["images"]]
    assert splits == ["test"] * 40 + ["train"] * 20
    labels = [one["label"] for one in record["images"][40:]]
    assert labels.count(0) == labels.count(1) == 10
    other = mapped(manifest, codes, tmp_path, shown=60, seed=1)
    assert other["images"] != record["images"]
    fewer = mapped(manifest, codes, tmp_path, shown=10)
    assert {one["split"] for one in fewer["images"]} == {"test"}
    assert [one["label"] for one in fewer["images"]].count(0) == 5


@given(
    counts=st.lists(st.integers(0, 40), min_size=1, max_size=6).filter(any),
    share=st.floats(0, 1.2),
    seed=st.integers(0, 9),
)
@hypothesis_settings(deadline=None, max_examples=60)
def test_a_stratified_sample_has_every_class_by_its_share(counts, share, seed):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    n = round(share * len(labels))
    drawn = maps.stratified(labels, n, seed)
    assert len(drawn) == len(set(drawn.tolist())) == min(n, len(labels))
    got = np.bincount(labels[drawn], minlength=len(counts))
    wanted = np.array(counts) * len(drawn) / len(labels)
    assert np.abs(got - wanted).max() <= 1


def test_a_map_is_reused_until_a_label_or_the_projection_changes(data, tmp_path, monkeypatch):
    manifest, codes = data
    mapped(manifest, codes, tmp_path)
    assert mapped(manifest, codes, tmp_path)["reused"]
    labels = manifest.labels.copy()
    labels[0] = 1 - labels[0]
    assert "reused" not in mapped(replace(manifest, labels=labels), codes, tmp_path)


@pytest.mark.parametrize("n", [3, 5])
def test_a_handful_of_images_is_placed_too(n):
    z = np.random.default_rng(0).standard_normal((n, 40))
    z -= z.mean(axis=0)
    scores, explained = maps._principal(z, maps.COMPONENTS)
    assert scores.shape == (n, n - 1)
    assert explained.sum() == pytest.approx(1)
    assert np.isfinite(maps._tsne(scores, 0)).all()


def test_images_that_are_all_alike_are_placed_on_one_point():
    scores, explained = maps._principal(np.zeros((12, 8)), maps.COMPONENTS)
    assert not scores.any()
    assert not explained.any()
    assert np.isfinite(maps._tsne(scores, 0)).all()


@pytest.mark.filterwarnings("ignore")
def test_umap_is_taken_where_it_is_installed(data, tmp_path):
    pytest.importorskip("umap")
    manifest, codes = data
    record = mapped(manifest, codes, tmp_path / "a")
    assert set(record["projections"]) == {"pca", "umap"}
    assert mapped(manifest, codes, tmp_path / "b")["projections"] == record["projections"]


def test_the_command_says_what_it_placed(data, stage_one, capsys, tmp_path):
    manifest, _ = data
    named = [f"{k.upper()}={v}" for k, v in SMALL.items()]
    places = [f"DATA={manifest.root}", f"CACHE={stage_one.cache}", f"RESULTS={tmp_path / 'r'}"]
    assert main(["map", *named, *places]) == 0
    assert capsys.readouterr().out.startswith("140 of 140 images by their codes of final")
    assert main(["map", *named, *places, "SHOWN=1"]) == 2
