"""Codes in anybody's scikit-learn pipeline, and the cache behind them."""

import pickle
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cnn_codes import CodesTransformer
from cnn_codes.backbones.onnx_engine import OnnxEngine
from cnn_codes.codes.agreement import probe_pixels
from cnn_codes.codes.reader import open_codes
from cnn_codes.errors import BackboneError, ImageError, SettingsError
from cnn_codes.predict.source import user_cache
from conftest import SMALL, StageOne
from numpy.typing import NDArray
from PIL import Image
from predicting import REAL
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks
from tuning import few_images

CHECKS = (
    "check_do_not_raise_errors_in_init_or_set_param", "check_estimator_cloneable",
    "check_estimator_repr", "check_estimator_tags_renamed", "check_estimators_fit_returns_self",
    "check_estimators_overwrite_params", "check_estimators_unfitted", "check_fit_check_is_fitted",
    "check_get_params_invariance", "check_mixin_order", "check_no_attributes_set_in_init",
    "check_parameters_default_constructible", "check_requires_y_none", "check_set_output_transform",
    "check_set_params", "check_transformer_get_feature_names_out", "check_valid_tag_types",
)  # fmt: skip


@pytest.fixture(scope="module")
def images(hotdog: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return few_images(hotdog, tmp_path_factory.mktemp("transformer") / "few")


@pytest.fixture
def paths(images: Path) -> list[str]:
    return sorted(map(str, (images / "train").rglob("*.*")))


@pytest.fixture
def labels(paths: list[str]) -> NDArray[np.str_]:
    return np.array([Path(path).parent.name for path in paths])


@pytest.fixture
def small(cache: Path) -> CodesTransformer:
    """Give a transformer with a small random network."""
    settings = {k: v for k, v in SMALL.items() if k != "model"}
    return CodesTransformer(SMALL["model"], cache=cache, **settings)


class Counter:
    """Counts the images that go through the network; the fixed batch of a cache is none."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.n, run, lock = 0, OnnxEngine.run, threading.Lock()

        def counted(engine: OnnxEngine, pixels: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
            fixed = np.array_equal(pixels, probe_pixels(pixels.shape[1]))
            with lock:
                self.n += 0 if fixed else len(pixels)
            return run(engine, pixels)

        monkeypatch.setattr(OnnxEngine, "run", counted)


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> Counter:
    return Counter(monkeypatch)


def test_a_pipeline_on_paths_with_the_real_network(
    cache: Path, paths: list[str], labels: NDArray[np.str_], images: Path, stage_one: StageOne
) -> None:
    model = make_pipeline(CodesTransformer("efficientnet_lite0", cache=cache), LogisticRegression())
    model.fit(paths, labels)
    tests = sorted((images / "test").rglob("*.*"))
    assert model.score(tests, [path.parent.name for path in tests]) > 0.6  # of 12 images, by 24
    codes = stage_one(images, **REAL).codes  # stage one's own, to the bit
    rows = [codes.paths.index(Path(path).relative_to(images).as_posix()) for path in paths]
    assert np.array_equal(model[0].transform(paths), codes["final"][rows])


def test_what_was_transformed_does_not_run_again(
    small: CodesTransformer, paths: list[str], count: Counter
) -> None:
    first = small.fit_transform(paths)
    assert count.n == len(paths) == 24
    assert np.array_equal(small.transform(paths), first)
    assert np.array_equal(clone(small).transform(paths[::-1]), first[::-1])
    assert np.array_equal(small.transform([paths[3]] * 3), first[[3, 3, 3]])
    small.set_output(transform="pandas")
    frame = small.transform(paths)
    assert np.array_equal(frame.to_numpy(), first)
    assert count.n == 24


def test_only_new_images_run(small: CodesTransformer, paths: list[str], count: Counter) -> None:
    small.transform(paths[:10])
    codes = small.transform(paths)
    assert count.n == 24
    assert np.array_equal(codes[:10], small.transform(paths[:10]))
    assert small.set_params(views="flip").transform(paths[:2]).shape == codes[:2].shape
    assert count.n == 28  # two views each, and of other settings nothing is taken


def test_images_asked_for_singly_end_in_one_file(
    small: CodesTransformer, paths: list[str], count: Counter, cache: Path
) -> None:
    single = np.concatenate([small.transform(path) for path in paths])
    (file,) = (cache / "transformer").glob("*.h5")
    parts = list((cache / "transformer").glob("*.parts/*.part"))
    assert len(open_codes(file)) > 16
    assert len(parts) <= 8
    assert np.array_equal(small.transform(paths), single)
    assert count.n == 24


def test_a_damaged_row_is_made_again(
    small: CodesTransformer, paths: list[str], count: Counter, cache: Path
) -> None:
    codes = np.concatenate([small.transform(path) for path in paths])
    (file,) = (cache / "transformer").glob("*.h5")
    where = open_codes(file).contents.fields["codes/final"].offset
    data = bytearray(file.read_bytes())
    data[where + 2] ^= 0x40
    file.write_bytes(data)
    assert np.array_equal(small.transform(paths), codes)
    assert count.n == 25


def test_grid_search_over_the_network_s_settings(
    small: CodesTransformer, paths: list[str], labels: NDArray[np.str_], count: Counter
) -> None:
    search = GridSearchCV(
        make_pipeline(small, LogisticRegression()),
        {"codestransformer__views": ["center", "flip"], "logisticregression__C": [0.01, 1.0]},
        cv=3,
        error_score="raise",
    )
    search.fit(paths, labels)
    assert len(search.cv_results_["mean_test_score"]) == 4
    assert count.n == 24 + 48  # each image once a setting, over 13 fits
    again = cross_val_score(make_pipeline(small, LogisticRegression()), np.array(paths), labels)
    assert again.shape == (5,)
    assert count.n == 24 + 48


def test_threads_and_processes_may_ask_at_once(
    small: CodesTransformer, paths: list[str], count: Counter
) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda one: one.transform(paths), [clone(small) for _ in range(4)]))
    assert count.n == 24
    assert all(np.array_equal(one, found[0]) for one in found)


def test_any_form_of_image_and_of_sequence(small: CodesTransformer, paths: list[str]) -> None:
    pandas = pytest.importorskip("pandas")
    expected = small.transform(paths[:3])
    for several in (
        np.array(paths[:3]),
        np.array(paths[:3], dtype=object),
        pandas.Series(paths[:3]),
        pandas.DataFrame({"image": paths[:3]}),
        [Path(path) for path in paths[:3]],
        [Path(path).read_bytes() for path in paths[:3]],
        (path for path in paths[:3]),
    ):
        assert np.array_equal(small.transform(several), expected), type(several)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 40, 50, 3), np.uint8)
    codes = small.transform(pixels)
    assert np.array_equal(small.transform([Image.fromarray(one) for one in pixels]), codes)
    assert small.transform([]).shape == (0, expected.shape[1])


def test_columns_are_named_by_layer(small: CodesTransformer, paths: list[str]) -> None:
    pandas = pytest.importorskip("pandas")
    small.set_params(layers=("blocks.2", "final")).set_output(transform="pandas")
    index = pandas.Index(list("xyz"))
    frame = small.fit_transform(pandas.DataFrame({"image": paths[:3]}, index=index))
    names = small.get_feature_names_out()
    assert list(frame.columns) == list(names)
    assert frame.index.equals(index)
    assert names[0] == "blocks.2_0"
    assert names[-1].startswith("final_")
    assert len(names) == frame.shape[1]


@pytest.mark.parametrize("check", CHECKS)
def test_scikit_learn_s_own_checks(
    check: str, small: CodesTransformer, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run those that do not insist on a table of numbers."""
    run = getattr(estimator_checks, check, None) or getattr(estimator_checks, f"{check}s")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run("CodesTransformer", small)


def test_it_is_cloned_pickled_and_shown_by_its_parameters(
    small: CodesTransformer, paths: list[str]
) -> None:
    small.set_params(layers=["final"], views="flip")
    for twin in (clone(small), pickle.loads(pickle.dumps(small))):
        assert twin.get_params() == small.get_params()
        assert np.array_equal(twin.transform(paths[:2]), small.transform(paths[:2]))
    assert "views='flip'" in repr(small)


def test_a_bad_image_is_named_and_the_good_ones_are_kept(
    small: CodesTransformer, paths: list[str], tmp_path: Path, count: Counter
) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"<html>")
    with pytest.raises(ImageError, match=r"bad\.jpg.*HTML"):
        small.transform([*paths, tmp_path / "bad.jpg"])
    assert small.transform(paths).shape[0] == count.n == 24
    with pytest.raises(ImageError, match=r"nowhere\.jpg"):
        small.transform(["nowhere.jpg"])
    with pytest.raises(ImageError, match="holds no images"):
        small.transform(np.zeros(3))


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"model": "resnet81"}, BackboneError),
        ({"layers": "blocks.99"}, BackboneError),
        ({"views": "all"}, SettingsError),
        ({"resize": "round"}, SettingsError),
        ({"extract_batch": -1}, SettingsError),
    ],
)
def test_wrong_settings_are_refused_at_fit(
    small: CodesTransformer, wrong: dict[str, Any], error: type[Exception]
) -> None:
    small.set_params(**wrong)  # stored as they are, as scikit-learn wants it
    with pytest.raises(error):
        small.fit(["a.jpg"])


def test_the_default_cache_is_the_user_s_and_nothing_is_made_in_the_current_folder(
    backbones: Path, paths: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, here = tmp_path / "home", tmp_path / "here"
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    here.mkdir()
    monkeypatch.chdir(here)
    cache = user_cache()
    cache.mkdir(parents=True)
    assert cache.is_relative_to(home)
    (cache / "backbones").symlink_to(backbones)
    transformer = CodesTransformer(
        "test_efficientnet", weights="none", size=32, engine="torch", device="cpu"
    )
    assert np.array_equal(transformer.transform(paths[:2]), transformer.transform(paths[:2]))
    assert list(here.iterdir()) == []
    assert list((cache / "transformer").iterdir())
    transformer.set_params(cache="named").transform(paths[:2])
    assert [path.name for path in here.iterdir()] == ["named"]


def test_no_session_is_opened_again(
    small: CodesTransformer, paths: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, start = [], OnnxEngine.__init__

    def counted(engine: OnnxEngine, path: Path, **options: Any) -> None:
        opened.append(path)
        start(engine, path, **options)

    monkeypatch.setattr(OnnxEngine, "__init__", counted)
    for path in paths[:4]:
        small.transform(path)
        clone(small).fit([path]).transform([path])
    assert len(opened) == 1
    small.set_params(size=48).transform(paths[:1])
    assert len(opened) == 2
