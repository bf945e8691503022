import json
import pickle
import struct

import numpy as np
import pytest
from cnn_codes.errors import HeadError
from cnn_codes.heads import Examples, fit_head, load_head, save_head
from cnn_codes.settings import METHODS, HeadSettings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save


def examples(seed=0, n=60, k=3, d=9):
    rng = np.random.default_rng(seed)
    labels = (np.arange(n) % k).astype(np.int32)
    codes = np.random.default_rng(9).normal(size=(k, d))[labels][:, None] + rng.normal(
        size=(n, 2, d)
    )
    return Examples(codes.astype(np.float32), labels, np.arange(n))


HEADS = {}


def head_of(method, k=3):
    if (method, k) not in HEADS:
        names = ["ä", "b/c", "d,e"][:k]
        HEADS[method, k] = fit_head(
            method,
            examples(k=k),
            None,
            HeadSettings(folds=2, jobs=1),
            n_classes=k,
            seed=0,
            class_names=names,
        )
    return HEADS[method, k]


def rewrite(stem, arrays=None, **description):
    """Replace arrays, with a digest that fits, or values of the description."""
    json_path = stem.with_name(stem.name + ".model.json")
    found = json.loads(json_path.read_text())
    if arrays is not None:
        import hashlib

        data = arrays if isinstance(arrays, bytes) else save(arrays)
        stem.with_name(stem.name + ".safetensors").write_bytes(data)
        found["arrays_sha256"] = hashlib.sha256(data).hexdigest()
    found |= description
    json_path.write_text(json.dumps({k: v for k, v in found.items() if v is not ...}))


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("method", METHODS)
def test_loaded_head_predicts_to_the_bit_what_the_saved_one_did(tmp_path, method, k):
    head, test = head_of(method, k), examples(1, k=k)
    meta = {"codes_fingerprint": "ab" * 32, "model": "net", "size": 224}
    files = save_head(tmp_path / "svm-net.v1-224", head, meta)
    assert [path.name for path in files] == [
        "svm-net.v1-224.safetensors",
        "svm-net.v1-224.model.json",
    ]
    for path in (tmp_path / "svm-net.v1-224", *files):
        again, found = load_head(path)
        assert found == meta
        assert np.array_equal(again.predict_proba(test.codes), head.predict_proba(test.codes))
        assert np.array_equal(again.scores(test.codes), head.scores(test.codes))
        for name in ("method", "classes", "views", "temperature_scale", "warnings", "n_classes"):
            assert getattr(again, name) == getattr(head, name), name
        assert again.chosen == head.chosen
        assert again.calibration == head.calibration


def test_no_pickle_is_written(tmp_path):
    for path in save_head(tmp_path / "x", head_of("rbf"), {}):
        with pytest.raises(Exception):  # noqa: B017, PT011 - whatever pickle calls it
            pickle.loads(path.read_bytes())


@pytest.mark.parametrize("suffix", [".safetensors", ".model.json"])
def test_a_missing_file_is_named(tmp_path, suffix):
    save_head(tmp_path / "x", head_of("svm"), {})
    (tmp_path / f"x{suffix}").unlink()
    with pytest.raises(HeadError, match=f"x{suffix}"):
        load_head(tmp_path / "x")


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_arrays_that_were_cut_or_changed_are_refused(tmp_path, data):
    arrays, _ = save_head(tmp_path / "x", head_of("svm"), {})
    whole = arrays.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    cut = data.draw(st.booleans())
    flip = data.draw(st.integers(1, 255))
    arrays.write_bytes(
        whole[:at] if cut else whole[:at] + bytes([whole[at] ^ flip]) + whole[at + 1 :]
    )
    with pytest.raises(HeadError, match="SHA-256"):
        load_head(arrays)


class Mischief:
    def __reduce__(self):
        return (print, ("code ran",))


HOSTILE = {
    "empty": b"",
    "pickle": pickle.dumps(Mischief()),
    "huge header": struct.pack("<Q", 2**63 - 1) + b"{}",
    "header past the end": struct.pack("<Q", 10_000) + b"{}",
    "header no JSON": struct.pack("<Q", 4) + b"{{{{",
    "array past the end": struct.pack("<Q", 64)
    + b'{"mean":{"dtype":"F64","shape":[9],"data_offsets":[0,72]}}'.ljust(64),
    "petabytes": struct.pack("<Q", 96)
    + b'{"mean":{"dtype":"F64","shape":[4000000000000],"data_offsets":[0,32000000000000]}}'.ljust(
        96
    ),
    "unknown type": struct.pack("<Q", 64)
    + b'{"mean":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]}}'.ljust(64)
    + b"\0\0",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_bytes_with_a_fitting_digest_are_refused_and_run_nothing(tmp_path, capfd, name):
    save_head(tmp_path / "x", head_of("svm"), {})
    rewrite(tmp_path / "x", HOSTILE[name])
    with pytest.raises(HeadError, match=r"x\.safetensors"):
        load_head(tmp_path / "x")
    assert "code ran" not in capfd.readouterr().out


def spoilt(name, value):
    def change(arrays):
        arrays[name] = value(arrays[name]) if callable(value) else value
        return {key: array for key, array in arrays.items() if array is not None}

    return change


def with_nan(array):
    array = array.copy()
    array.flat[-1] = np.nan
    return array


@pytest.mark.parametrize(
    ("method", "name", "value"),
    [
        ("svm", "weight", lambda a: a[:, :-1]),
        ("svm", "weight", lambda a: a[:-1]),
        ("svm", "weight", lambda a: a.astype(np.float32)),
        ("svm", "weight", lambda a: a[None]),
        ("svm", "weight", with_nan),
        ("svm", "bias", lambda a: a * np.inf),
        ("svm", "bias", None),
        ("svm", "more", np.zeros(3)),
        ("svm", "mean", lambda a: a[:-1]),
        ("svm", "mean", lambda a: a[:0]),
        ("svm", "scale", lambda a: a * 0),
        ("svm", "scale", lambda a: -a),
        ("knn", "example_labels", lambda a: a + 1),
        ("knn", "example_labels", lambda a: a - 1),
        ("knn", "example_labels", lambda a: a[:-1]),
        ("knn", "examples", with_nan),
        ("rbf", "n_support", lambda a: a + 1),
        ("rbf", "n_support", lambda a: a * np.array([-1, 1, 1], np.int32)),
        ("rbf", "n_support", lambda a: np.array([2**31 - 1, 2**31 - 1, 2], np.int32)),
        ("rbf", "support", lambda a: a[:-1]),
        ("rbf", "dual", lambda a: a[:1]),
        ("rbf", "intercept", lambda a: a[:1]),
    ],
)
def test_arrays_that_make_no_head_are_refused(tmp_path, method, name, value):
    stem = tmp_path / "x"
    save_head(stem, head_of(method), {})
    arrays = spoilt(name, value)(load_file(tmp_path / "x.safetensors"))
    rewrite(stem, {key: np.ascontiguousarray(array) for key, array in arrays.items()})
    with pytest.raises(HeadError, match=r"x\.safetensors"):
        load_head(stem)


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 2},
        {"schema": None},
        {"kind": "network"},
        {"method": "forest"},
        {"method": ["svm"]},
        {"method": "rbf"},
        {"classes": ["a", "b"]},
        {"classes": ["a", "a", "b"]},
        {"classes": ["a"]},
        {"classes": "abc"},
        {"classes": [1, 2, 3]},
        {"views": "some"},
        {"temperature_scale": 0},
        {"temperature_scale": -1.0},
        {"temperature_scale": float("nan")},
        {"temperature_scale": float("inf")},
        {"temperature_scale": 10**400},
        {"temperature_scale": "1"},
        {"parameters": None},
        {"parameters": 3},
        {"calibration": 3},
        {"warnings": 3},
        {"meta": ...},
        {"arrays_sha256": ...},
        {"chosen": [1, 2]},
    ],
)
def test_descriptions_that_make_no_head_are_refused(tmp_path, change):
    stem = tmp_path / "x"
    save_head(stem, head_of("svm"), {})
    rewrite(stem, **change)
    with pytest.raises(HeadError, match=r"x\.(model\.json|safetensors)"):
        load_head(stem)


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("knn", {"k": 0, "metric": "cosine"}),
        ("knn", {"k": 10**6, "metric": "cosine"}),
        ("knn", {"k": 2.5, "metric": "cosine"}),
        ("knn", {"k": True, "metric": "cosine"}),
        ("knn", {"k": 3, "metric": "taxi"}),
        ("knn", {"metric": "cosine"}),
        ("rbf", {"gamma": 0}),
        ("rbf", {"gamma": float("inf")}),
        ("rbf", {}),
    ],
)
def test_parameters_that_prediction_would_stumble_over_are_refused(tmp_path, method, parameters):
    save_head(tmp_path / "x", head_of(method), {})
    rewrite(tmp_path / "x", parameters=parameters)
    with pytest.raises(HeadError, match=r"x\.model\.json"):
        load_head(tmp_path / "x")


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"\xff", b"[" * 200_000, b"null"])
def test_descriptions_that_are_no_json_object_are_refused(tmp_path, data):
    save_head(tmp_path / "x", head_of("svm"), {})
    (tmp_path / "x.model.json").write_bytes(data)
    with pytest.raises(HeadError, match=r"x\.model\.json"):
        load_head(tmp_path / "x")


def test_a_description_too_large_is_not_read(tmp_path):
    save_head(tmp_path / "x", head_of("svm"), {})
    with (tmp_path / "x.model.json").open("wb") as stream:
        stream.truncate(65 * 2**20)  # sparse: takes no room
    with pytest.raises(HeadError, match="larger than 64 MiB"):
        load_head(tmp_path / "x")
