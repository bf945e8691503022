"""HDF5: what we write is plain, and what others wrote is refused unless it is as plain."""

import json
import os
import random
import textwrap
from pathlib import Path

import h5py
import numpy as np
import pytest
from cnn_codes.codes.hdf5 import lay_out, open_file, pack, unpack
from cnn_codes.errors import CacheError
from conftest import python
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

ARRAYS = {
    "codes/final": np.arange(12, dtype=np.float32).reshape(3, 4),
    "images/path": np.array([b"a", b"bb", b"ccc"]),
}
ATTRIBUTES = {"fingerprint": "f" * 64, "n": 3, "x": 1.5, "complete": True}


def written(path: Path) -> Path:
    layout = {name: (array.shape, array.dtype) for name, array in ARRAYS.items()}
    fields = lay_out(path, layout, ATTRIBUTES)
    with path.open("r+b") as stream:
        for name, field in fields.items():
            os.pwrite(stream.fileno(), ARRAYS[name].tobytes(), field.offset)
    return path


@given(
    st.dictionaries(
        st.sampled_from(["a", "b/c", "b/d", "e/f/g"]),
        hnp.arrays(
            st.sampled_from([np.float32, np.float16, np.int32, np.uint64, np.dtype("S5")]),
            hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=5),
        ),
    )
)
@settings(max_examples=30, deadline=None)
def test_what_is_packed_is_unpacked(arrays):
    back, attributes = unpack(pack(arrays, ATTRIBUTES))
    assert attributes == ATTRIBUTES
    assert back.keys() == arrays.keys()
    for name, array in arrays.items():
        assert back[name].dtype == array.dtype
        assert back[name].shape == array.shape
        assert back[name].tobytes() == array.tobytes()


def test_what_is_laid_out_and_filled_is_read_by_any_hdf5_library(tmp_path):
    path = written(tmp_path / "a.h5")
    with h5py.File(path, "r") as file:
        for name, array in ARRAYS.items():
            assert np.array_equal(file[name][()], array)
            assert file[name].chunks is None
            assert file[name].compression is None
            assert not file[name].is_virtual
        attributes = dict(file.attrs)
        assert json.loads(attributes.pop("text")) == {"fingerprint": "f" * 64}
        assert attributes == ATTRIBUTES
        assert isinstance(attributes["fingerprint"], str)
    contents = open_file(path)
    assert contents.attributes == ATTRIBUTES
    for name, array in ARRAYS.items():
        assert np.array_equal(contents.array(name), array)


def test_arrays_are_mapped_and_cannot_be_written(tmp_path):
    array = open_file(written(tmp_path / "a.h5")).array("codes/final")
    assert not array.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1


def test_an_open_file_stays_what_it_was_when_another_takes_its_name(tmp_path):
    path = written(tmp_path / "a.h5")
    contents = open_file(path)
    (tmp_path / "b.h5").write_bytes(bytes(path.stat().st_size))
    (tmp_path / "b.h5").replace(path)
    assert np.array_equal(contents.array("codes/final"), ARRAYS["codes/final"])


def test_attributes_may_be_larger_than_64_kib(tmp_path):
    names = np.array([f"class {i:060}".encode() for i in range(3000)])
    lay_out(
        tmp_path / "a.h5", {"x": ((1,), np.int32)}, {"class_names": names, "config": "x" * 99_999}
    )
    back = open_file(tmp_path / "a.h5").attributes
    assert np.array_equal(back["class_names"], names)
    assert back["config"] == "x" * 99_999


def external(file: h5py.File) -> None:
    secret = Path(file.filename).with_name("secret")
    secret.write_bytes(bytes(800))
    file.create_dataset("x", (100,), "f8", external=[(str(secret), 0, 800)])


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((10,), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "x", shape=(10,))
    file.create_virtual_dataset("x", layout)


def pointing(file: h5py.File) -> None:
    file["x"] = np.zeros(3, np.float32)
    file.create_dataset(
        "y", data=np.array([file["x"].ref], dtype=h5py.ref_dtype), dtype=h5py.ref_dtype
    )


def cyclic(file: h5py.File) -> None:
    groups = [file.create_group(f"g{i}") for i in range(12)]
    for outer in groups:  # 12 ** depth paths
        for i, inner in enumerate(groups):
            outer[f"h{i}"] = inner


FOREIGN = {
    "external": external,
    "virtual": virtual,
    "references": pointing,
    "groups that hold each other": cyclic,
    "chunked": lambda file: file.create_dataset("x", data=np.zeros(9, "f4"), chunks=(3,)),
    "resizable": lambda file: file.create_dataset("x", (9,), "f4", maxshape=(None,)),
    "compressed": lambda file: file.create_dataset("x", data=np.zeros(9, "f4"), compression="gzip"),
    "variable-length": lambda file: file.create_dataset(
        "x", data=["a", "bb"], dtype=h5py.string_dtype()
    ),
    "compound": lambda file: file.create_dataset("x", data=np.zeros(2, "i4,f4"), dtype="i4,f4"),
    "soft link": lambda file: file.__setitem__("x", h5py.SoftLink("/y")),
    "external link": lambda file: file.__setitem__("x", h5py.ExternalLink("b.h5", "/y")),
    "named type": lambda file: file.__setitem__("x", np.dtype("f4")),
    "51 GB claimed": lambda file: file.create_dataset(
        "x", (12_750_000_000,), "f4", track_times=False
    ),
    "text that ours do not read": lambda file: file.attrs.__setitem__("x", "variable length"),
    "odd attribute": lambda file: file.attrs.create("x", file.ref, dtype=h5py.ref_dtype),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_anything_but_plain_data_is_refused(tmp_path, kind):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        FOREIGN[kind](file)
    with pytest.raises(CacheError) as caught:
        open_file(tmp_path / "a.h5")
    assert "a.h5" in str(caught.value)
    assert "Next:" in str(caught.value)
    with pytest.raises(CacheError):
        unpack((tmp_path / "a.h5").read_bytes())


@pytest.mark.parametrize("data", [b"", b"no HDF5\n", b"\x89HDF\r\n\x1a\n", b"PK\x03\x04"])
def test_what_is_no_hdf5_file_is_refused(tmp_path, data):
    (tmp_path / "a.h5").write_bytes(data)
    with pytest.raises(CacheError, match=r"a\.h5"):
        open_file(tmp_path / "a.h5")
    with pytest.raises(CacheError):
        unpack(data)


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(CacheError, match="no file"):
        open_file(tmp_path / "a.h5")


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(CacheError):
        open_file(tmp_path)


def test_a_file_cut_short_anywhere_is_refused(tmp_path):
    whole = written(tmp_path / "a.h5").read_bytes()
    for length in np.linspace(0, len(whole) - 1, 40).astype(int):
        (tmp_path / "b.h5").write_bytes(whole[:length])
        with pytest.raises(CacheError):
            open_file(tmp_path / "b.h5")
        with pytest.raises(CacheError):
            unpack(whole[:length])


def flipped(data: bytearray, random: random.Random) -> None:
    for _ in range(random.randint(1, 3)):
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)


def torn(data: bytearray, random: random.Random) -> None:
    """Blank a run of bytes, as half a download and a bad disk do."""
    start = random.randrange(len(data))
    stop = min(len(data), start + random.choice([8, 64, 512, 4096]))
    data[start:stop] = bytes(stop - start)


def heap_torn(data: bytearray, random: random.Random) -> None:
    """Blank what text of variable length lies in; reading that text hangs inside the library."""
    start = data.find(b"GCOL") + random.choice([16, 24, 32, 100])
    data[start : start + 64] = bytes(64)


@pytest.mark.parametrize("kind", [flipped, torn, heap_torn])
@pytest.mark.parametrize("times", [100, pytest.param(400, marks=pytest.mark.slow)])
def test_damage_is_refused_or_harmless_and_never_crashes_or_hangs(tmp_path, kind, times):
    """In a child: what a damaged file does inside the library is not always an exception."""
    path = written(tmp_path / "a.h5")
    code = """
        import random, sys
        from pathlib import Path
        sys.path.insert(0, "tests")
        import test_hdf5
        from cnn_codes.errors import CacheError
        from cnn_codes.codes.hdf5 import open_file, unpack
        damage = getattr(test_hdf5, sys.argv[2])
        source = Path(sys.argv[1])
        whole, damaged = source.read_bytes(), source.with_name("b.h5")
        assert b"GCOL" in whole
        moments, refused = random.Random(0), 0
        for _ in range(int(sys.argv[3])):
            data = bytearray(whole)
            damage(data, moments)
            damaged.write_bytes(data)
            for read in (lambda: open_file(damaged), lambda: unpack(bytes(data))):
                try:
                    read()
                except CacheError:
                    refused += 1
        print(refused)
        """
    child = python(textwrap.dedent(code), str(path), kind.__name__, str(times))
    assert (child.returncode, child.stderr) == (0, "")
    assert int(child.stdout) > times // 4 or kind is heap_torn
