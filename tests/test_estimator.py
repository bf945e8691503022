"""CodesClassifier in scikit-learn's own tools, and scikit-learn's checks of both estimators."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cnn_codes import Classifier, CodesClassifier, CodesTransformer, load_network
from cnn_codes.errors import HeadError, ImageError, ResultError, SettingsError
from conftest import SMALL
from numpy.typing import NDArray
from PIL import Image
from sklearn.base import clone
from sklearn.datasets import load_sample_images
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.validation import validate_data
from tuning import Tuning

SETTINGS = {name: value for name, value in SMALL.items() if name != "model"}


def crops(n: int, seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.str_]]:
    """Cut `n` squares each out of scikit-learn's two photographs, by turns."""
    random = np.random.default_rng(seed)
    squares, labels = [], []
    for _ in range(n):
        for name, image in zip(("china", "flower"), load_sample_images().images, strict=True):
            top, left = random.integers(0, 427 - 96), random.integers(0, 640 - 96)
            squares.append(image[top : top + 96, left : left + 96])
            labels.append(name)
    return np.stack(squares), np.array(labels)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("crops")
    for index, (pixels, label) in enumerate(zip(*crops(20), strict=True)):
        Image.fromarray(pixels).save(folder / f"{index:02}-{label}.png")
    return folder


@pytest.fixture
def paths(folder: Path) -> list[str]:
    return sorted(map(str, folder.iterdir()))


@pytest.fixture
def labels(paths: list[str]) -> NDArray[np.str_]:
    return np.array([Path(path).stem.partition("-")[2] for path in paths])


@pytest.fixture
def small(cache: Path) -> CodesClassifier:
    return CodesClassifier(SMALL["model"], cache=cache, folds=2, jobs=1, **SETTINGS)


def test_paths_pictures_and_arrays_give_the_same(
    small: CodesClassifier, paths: list[str], labels: NDArray[np.str_]
) -> None:
    small.fit(paths, labels)
    assert small.classes_.tolist() == ["china", "flower"]
    expected = small.predict_proba(paths)
    assert expected.shape == (40, 2)
    assert np.allclose(expected.sum(axis=1), 1)
    pictures = [Image.open(path) for path in paths]
    for images in (pictures, np.stack([np.asarray(one) for one in pictures]), map(Path, paths)):
        assert np.array_equal(small.predict_proba(images), expected)
    assert small.predict(paths).tolist() == small.classes_[expected.argmax(axis=1)].tolist()
    assert small.score(paths, labels) == np.mean(small.predict(paths) == labels)
    assert small.predict_proba([]).shape == (0, 2)


def test_it_learns_with_the_real_network(
    cache: Path, paths: list[str], labels: NDArray[np.str_]
) -> None:
    model = CodesClassifier(method="svm", cache=cache).fit(paths, labels)
    new, truth = crops(10, seed=1)
    assert model.score(new, truth) >= 0.9
    assert model.head_.method == "svm"


def test_pipelines_folds_searches_and_clones(
    small: CodesClassifier, paths: list[str], labels: NDArray[np.str_]
) -> None:
    pipeline = Pipeline([("classify", small)])
    assert pipeline.fit(paths, labels).score(paths, labels) > 0.5
    scores = cross_val_score(clone(small), paths, labels, cv=2, error_score="raise")
    assert scores.shape == (2,)
    search = GridSearchCV(
        small,
        {"method": ["centroid", "ridge"], "views": ["center", "flip"]},
        cv=2,
        scoring="neg_log_loss",
        error_score="raise",
    ).fit(np.array(paths), labels)
    assert search.best_estimator_.classes_.tolist() == ["china", "flower"]
    assert not hasattr(clone(small), "head_")


@pytest.mark.parametrize("kind", [str, int, bool, object, np.int8])
def test_classes_keep_their_type(
    small: CodesClassifier, paths: list[str], labels: NDArray[np.str_], kind: Any
) -> None:
    flower = labels == "flower"
    y = labels.astype(kind) if kind in (str, object) else flower.astype(kind)
    found = small.fit(paths, y).predict(paths)
    assert found.dtype == np.asarray(y).dtype
    assert set(found.tolist()) <= set(y.tolist())


def test_it_survives_pickling(
    small: CodesClassifier, paths: list[str], labels: NDArray[np.str_]
) -> None:
    expected = small.fit(paths, labels).predict_proba(paths)
    assert np.array_equal(pickle.loads(pickle.dumps(small)).predict_proba(paths), expected)


def test_groups_stay_in_one_fold(
    small: CodesClassifier, paths: list[str], labels: NDArray[np.str_]
) -> None:
    # Each image is there twice, once with its border changed: only groups tell that they belong
    # together. Neighbours then find the twin, unless it is in the same fold.
    pixels = [np.asarray(Image.open(path)) for path in paths]
    twins = [np.ascontiguousarray(one[:, :95]) for one in pixels]
    small.set_params(method="knn")
    small.fit([*pixels, *twins], [*labels, *labels])
    flattered = max(point["accuracy"] for point in small.head_.chosen["curve"] if point["k"] == 1)
    group = np.arange(len(pixels))
    small.fit([*pixels, *twins], [*labels, *labels], groups=[*group, *group])
    honest = max(point["accuracy"] for point in small.head_.chosen["curve"] if point["k"] == 1)
    assert honest < flattered


def test_what_is_wrong_is_said(
    small: CodesClassifier, paths: list[str], labels: NDArray[np.str_], tmp_path: Path
) -> None:
    with pytest.raises(NotFittedError):
        small.predict(paths)
    with pytest.raises(ValueError, match="1 class"):
        small.fit(paths, ["a"] * len(paths))
    with pytest.raises(ValueError, match="inconsistent"):
        small.fit(paths, labels[:-1])
    with pytest.raises(ValueError, match="Unknown label type"):
        small.fit(paths, np.linspace(0, 1, len(paths)))
    with pytest.raises(SettingsError, match="METHODS=tree"):
        clone(small).set_params(method="tree").fit(paths, labels)
    (tmp_path / "bad.jpg").write_bytes(b"<html>")
    with pytest.raises(ImageError, match=r"bad\.jpg"):
        small.fit([*paths, tmp_path / "bad.jpg"], [*labels, "china"])
    with pytest.raises(HeadError):
        small.fit(paths[:2], labels[:2])
    small.fit(paths, labels).set_params(views="flip")
    with pytest.raises(SettingsError, match="changed after fit"):
        small.predict(paths)


class Tables:
    """Reads the rows of a table as pictures, so that scikit-learn's checks can be run.

    The checks make tables of numbers. Each becomes a picture of stripes, one a number; nothing
    else of the estimators is changed.
    """

    def _items(self, X: Any, *, reset: bool) -> list[Any]:
        X = validate_data(self, X, reset=reset, dtype=np.float64)
        stripes = 127.5 * (1 + np.stack([np.tanh(X / 4), np.sin(X), np.sin(3 * X)], axis=-1))
        pictures = np.repeat(stripes.astype(np.uint8)[:, None], 64, axis=1)  # (N, 64, D, 3)
        return list(np.repeat(pictures, 8, axis=2))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()  # type: ignore[misc]
        tags.no_validation = False
        tags.input_tags.two_d_array = True
        tags.input_tags.one_d_array = tags.input_tags.string = False
        return tags


class TableTransformer(Tables, CodesTransformer):
    """Codes of a table's rows."""

    def fit(self, X: Any, y: Any = None) -> Any:
        """Note how wide the table is; the transformer itself does not look at images in fit."""
        self._items(X, reset=True)
        return super().fit(X, y)


class TableClassifier(Tables, CodesClassifier):
    """Classes of a table's rows."""


EXPECTED_FAILED_CHECKS = {
    "TableTransformer": {},
    "TableClassifier": {
        "check_class_weight_classifiers": "CLASS_WEIGHT is none or balanced, not a weight a class",
    },
}
# Reading tables, and what that needs, is all that these two do that the real ones do not:
# validation of numbers (NaN, sparse, complex, one sample, n_features_in_) is scikit-learn's here.


@pytest.fixture
def _user_cache(
    backbones: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.getbasetemp() / "xdg"
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    if not (folder / "cnn-codes").is_dir():
        backbones.mkdir(exist_ok=True)
        (folder / "cnn-codes").mkdir(parents=True)
        (folder / "cnn-codes" / "backbones").symlink_to(backbones)


CHECKS = parametrize_with_checks(
    [
        TableTransformer(SMALL["model"], **SETTINGS),
        TableClassifier(SMALL["model"], folds=2, jobs=1, method="ridge", **SETTINGS),
    ],
    expected_failed_checks=lambda estimator: EXPECTED_FAILED_CHECKS[type(estimator).__name__],
    xfail_strict=True,
)


@pytest.mark.slow
@pytest.mark.usefixtures("_user_cache")
@pytest.mark.filterwarnings("ignore")  # the checks' own, of odd labels and too few images
# A list, since scikit-learn 1.8 gives a generator, which pytest 9.2 warns of.
@pytest.mark.parametrize(CHECKS.args[0], list(CHECKS.args[1]), **CHECKS.kwargs)
def test_scikit_learn_s_checks(estimator: Any, check: Any) -> None:
    check(estimator)


QUICK = (
    "check_estimator_cloneable", "check_estimator_repr", "check_valid_tag_types",
    "check_no_attributes_set_in_init", "check_do_not_raise_errors_in_init_or_set_params",
    "check_mixin_order", "check_parameters_default_constructible", "check_get_params_invariance",
    "check_set_params", "check_estimators_unfitted", "check_requires_y_none",
    "check_estimators_overwrite_params", "check_classifiers_one_label",
    "check_supervised_y_no_nan", "check_estimators_pickle",
)  # fmt: skip


@pytest.mark.parametrize("name", QUICK)
@pytest.mark.usefixtures("_user_cache")
@pytest.mark.filterwarnings("ignore")
def test_scikit_learn_s_quick_checks(name: str) -> None:
    from sklearn.utils import estimator_checks

    classifier = TableClassifier(SMALL["model"], folds=2, jobs=1, method="centroid", **SETTINGS)
    getattr(estimator_checks, name)("TableClassifier", classifier)


def test_a_fine_tuned_network_comes_with_its_preprocessing(
    folder: Path, tmp_path: Path, cache: Path, paths: list[str]
) -> None:
    torch = pytest.importorskip("torch")
    from cnn_codes.settings import MachineSettings, PlaceSettings

    data = tmp_path / "crops"
    for index, path in enumerate(paths):
        part = "test" if index % 4 == 3 else "train"
        label = Path(path).stem.partition("-")[2]
        (data / part / label).mkdir(parents=True, exist_ok=True)
        (data / part / label / Path(path).name).write_bytes(Path(path).read_bytes())
    places = PlaceSettings(cache=str(cache), results=str(tmp_path / "results"))
    record = Tuning(data, places)(epochs=1, views="flip")
    run = tmp_path / "results" / "crops" / f"{record['run']}.json"
    network = load_network(run)
    assert isinstance(network, torch.nn.Module)
    assert not network.training
    assert network.classes == ("china", "flower")
    images = sorted((data / "test").rglob("*.png"))
    machine = MachineSettings(device="cpu", engine="torch")  # no export of this network
    expected = Classifier.load(run, cache=cache, machine=machine).predict_proba(images)
    with torch.inference_mode():
        logits = torch.stack([network(network.preprocessing.views(p)).mean(0) for p in images])
        one = network(network.preprocessing(Image.open(images[0]))[None])
    assert one.shape == (1, 2)
    probabilities = torch.softmax(network.temperature_scale * logits.double(), dim=1).numpy()
    assert np.allclose(probabilities, expected, atol=1e-5)


def test_a_head_has_no_network(tmp_path: Path) -> None:
    (tmp_path / "svm.model.json").write_text('{"kind": "head"}')
    (tmp_path / "svm.safetensors").write_bytes(b"")
    with pytest.raises(ResultError, match="make finetune"):
        load_network(tmp_path / "svm.model.json")
