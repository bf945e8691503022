"""A published file as others read it: the contract's names, and strangers' files refused."""

import json
import re

import h5py
import numpy as np
import pytest
from cnn_codes.codes.format import row_digests, text_column
from cnn_codes.codes.reader import open_codes
from cnn_codes.errors import CacheError
from pictures import write_set


@pytest.fixture
def published(stage_one, tmp_path):
    data = write_set(tmp_path / "pets", 12)
    (data / "dog" / "page.jpg").write_bytes(b"<html>")
    return stage_one(data)


def test_a_published_file_has_labels_names_and_provenance_for_any_reader(published, stage_one):
    codes = published.codes
    manifest = stage_one.manifest(codes.path.parents[2] / "pets")
    assert codes.path == stage_one.cache / "pets" / codes.path.name
    assert re.fullmatch(r"test_efficientnet-final-center-32-[0-9a-f]{8}\.h5", codes.path.name)
    with h5py.File(codes.path, "r") as file:
        final = file["codes/final"]
        assert (final.dtype, final.shape) == (np.float32, (12, 256))
        assert final.chunks is None
        kept = [i for i, path in enumerate(manifest.paths) if "page" not in path]
        paths = [path.decode() for path in file["images/path"][()]]
        assert paths == [manifest.paths[i] for i in kept]
        assert np.array_equal(file["images/sha256"][()], manifest.sha256[kept])
        assert np.issubdtype(file["images/label"].dtype, np.integer)
        names = [name.decode() for name in file.attrs["class_names"]]
        assert names == ["cat", "dog"]
        for path, label in zip(paths, file["images/label"][()], strict=True):
            assert path.startswith(names[label])
        assert set(file["images/split"][()]) == {b"train", b"val", b"test"}
        assert [path.decode() for path in file["rejects/path"][()]] == ["dog/page.jpg"]
        assert b"HTML" in file["rejects/reason"][0]
        assert file.attrs["format_version"] == 1
        assert re.fullmatch("[0-9a-f]{64}", file.attrs["fingerprint"])
        assert file.attrs["complete"]
        config = json.loads(file.attrs["config"])
    assert config["model"] == "test_efficientnet"
    assert config["layers"] == ["final"]
    assert config["size"] == 32
    assert config["precision"] == "float32"
    assert re.fullmatch("[0-9a-f]{64}", config["weights_digest"])
    assert {"views", "preprocessing", "pool", "dtype"} <= config.keys()
    assert {"torch", "timm", "onnxruntime", "numpy"} <= config["versions"].keys()


def test_the_reader_gives_what_is_in_the_file(published):
    codes = open_codes(published.codes.path)
    assert len(codes) == 12
    assert codes.layers == ("final",)
    assert codes.class_names == ("cat", "dog")
    assert codes["final"].shape == (12, 256)
    assert codes.matrix().shape == (12, 1, 256)
    assert np.array_equal(codes.matrix()[:, 0], codes["final"])
    assert {path.split("/")[0] for path in codes.paths} == {"cat", "dog"}
    assert set(codes.rejects.values()) == {"not an image of a known format (it is an HTML page)"}
    assert codes.extraction_s > 0
    with pytest.raises(CacheError, match="no layer blocks"):
        codes["blocks"]


def test_a_slice_is_a_view_of_the_file(published):
    array = open_codes(published.codes.path)["final"]
    assert not array.flags.owndata
    assert not array.flags.writeable


def test_codes_that_are_not_what_was_written_are_named_and_not_given(published):
    path = published.codes.path
    row = 5
    with h5py.File(path, "r+") as file:
        file["codes/final"][row, 7] += 1
    codes = open_codes(path)
    assert codes.damaged_rows().tolist() == [row]
    with pytest.raises(CacheError, match=re.escape(codes.paths[row])):
        codes.matrix()


def test_digests_of_rows_cover_every_layer_and_its_place():
    random = np.random.default_rng(0)
    a, b = (random.normal(size=(4, 3)).astype(np.float32) for _ in range(2))
    digests = row_digests([a, b])
    assert len(set(digests.tolist())) == 4
    assert not np.any(digests == row_digests([b, a]))
    assert np.array_equal(row_digests([a[::-1], b[::-1]]), digests[::-1])


@pytest.mark.parametrize("names", [[], [""], ["é", "日本語", "a" * 300], ["with space", "\udcff"]])
def test_text_columns_keep_any_name(names):
    column = text_column(names)
    assert column.dtype.kind == "S"
    assert [name.decode("utf-8", "surrogateescape") for name in column.tolist()] == names


def remove(name):
    return lambda file: file.__delitem__(name)


def attribute(name, value):
    """Set a root attribute in both places, or take it out of `text` where it is none."""

    def change(file):
        text = json.loads(file.attrs["text"])
        text.pop(name, None)
        if isinstance(value, str):
            text[name] = value
        file.attrs[name] = value
        file.attrs["text"] = np.bytes_(json.dumps(text).encode())

    return change


def other(name, array):
    def change(file):
        del file[name]
        file.create_dataset(name, data=array, dtype=array.dtype)

    return change


def config(**values):
    def change(file):
        changed = json.dumps(json.loads(file.attrs["config"]) | values)
        attribute("config", changed)(file)

    return change


STRANGE = {
    "no codes": remove("codes/final"),
    "no labels": remove("images/label"),
    "no digests": remove("images/row_digest"),
    "no rejects": remove("rejects/sha256"),
    "fewer labels": other("images/label", np.zeros(3, np.int32)),
    "labels that are no integers": other("images/label", np.zeros(12, np.float32)),
    "paths that are numbers": other("images/path", np.zeros(12, np.int64)),
    "codes that are integers": other("codes/final", np.zeros((12, 256), np.int32)),
    "codes without columns": other("codes/final", np.zeros(12, np.float32)),
    "labels in a square": other("images/label", np.zeros((12, 2), np.int32)),
    "a config that is no JSON": attribute("config", "{"),
    "a config that is a number": attribute("config", 3),
    "a config that is a list": attribute("config", "[]"),
    "a config without layers": config(layers=[]),
    "layers that are numbers": config(layers=[1]),
    "no number of views": config(n_views=0),
    "more views than there are": config(n_views=2),
    "a fingerprint that is a number": attribute("fingerprint", 3.5),
    "not complete": attribute("complete", False),
    "complete in a list": attribute("complete", np.ones(3, bool)),
    "a newer format": attribute("format_version", 2),
    "a format in words": attribute("format_version", "one"),
    "class names that are one": attribute("class_names", "cat"),
}


@pytest.mark.parametrize("kind", STRANGE)
def test_a_file_that_is_not_as_ours_is_refused_in_words(published, kind):
    with h5py.File(published.codes.path, "r+") as file:
        STRANGE[kind](file)
    with pytest.raises(CacheError, match=r"test_efficientnet.*\.h5"):
        open_codes(published.codes.path)
