"""The only module that touches HDF5: arrays in, arrays out, nothing resizable, nothing lost.

A file is never grown in place: appending, ``libver='latest'``, chunks and variable-length strings
all lost rows, or could not be opened again, when a process was killed or a disk was full. What
held in hundreds of kills is what is here: files made in memory and written by plain I/O, the
large ones as an empty skeleton of contiguous, early-allocated datasets whose bytes are then
written at their offsets. HDF5 itself never writes to a disk. What is read back is checked to be
of that kind, so a foreign file can neither claim more than it holds nor point to another one.
"""

from __future__ import annotations

import hashlib
import io
import json
import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ..errors import CacheError

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_MOST_OBJECTS = 10_000  # of a file that is opened; ours have a few dozen
# What h5py raises on damaged files; AttributeError and TypeError for types it has no words for.
_FAULTS = (OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError)
_TEXT = "text"  # attribute: all text attributes once more, as JSON of fixed length
SEAL = "seal"  # dataset: a digest of everything but the codes
_KINDS = "biufS"  # numbers and fixed-length bytes; no objects, no references


@dataclass(frozen=True)
class Field:
    """Where one dataset's bytes lie: shape, dtype and offset in the file."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int

    @property
    def n_bytes(self) -> int:
        """Size in bytes."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


@dataclass(frozen=True)
class Contents:
    """What is in a file: root attributes, and where each dataset lies.

    Attributes
    ----------
    path : Path
        The file's name when it was opened.
    mapping : mmap
        The file itself; stays what it was, even when another takes its name.
    attributes : dict
        Root attributes: str, bytes, int, float, bool, or arrays of numbers or fixed-length bytes.
    fields : dict of str to Field
        By full name, ``images/path``.
    """

    path: Path
    mapping: mmap.mmap
    attributes: dict[str, Any]
    fields: dict[str, Field]

    def array(self, name: str) -> NDArray[Any]:
        """Map a dataset into memory, read-only: a slice costs a slice."""
        field = self.fields[name]
        if self.mapping.size() < len(self.mapping):  # reading it would end the process (SIGBUS)
            raise CacheError(
                f"{self.path} was cut short while it was open: {self.mapping.size():,} of "
                f"{len(self.mapping):,} bytes are left.",
                expected="published files are replaced, never changed",
                todo="find what changed it (a copy onto it, a full disk), remove it, and run "
                "`make features` again",
            )
        if field.n_bytes == 0:
            return np.empty(field.shape, field.dtype)
        count = int(np.prod(field.shape, dtype=np.int64))
        flat: NDArray[Any] = np.frombuffer(self.mapping, field.dtype, count, field.offset)
        return flat.reshape(field.shape)

    def release(self) -> None:
        """Let the system drop the pages that were read, so that memory stays flat."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self.mapping.madvise(mmap.MADV_DONTNEED)


def pack(arrays: Mapping[str, NDArray[Any]], attributes: Mapping[str, Any]) -> bytes:
    """Make a whole HDF5 file in memory.

    Parameters
    ----------
    arrays : mapping of str to array
        Numbers or fixed-length bytes.
    attributes : mapping
        Root attributes.
    """
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array, dtype=array.dtype, track_times=False)
        _put(file.attrs, attributes)
    return buffer.getvalue()


def unpack(data: bytes) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Read a file that :func:`pack` made.

    Raises
    ------
    CacheError
        Not such a file, or damaged.
    """
    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            fields, attributes = _survey(file, len(data))
            return {name: file[name][()] for name in fields}, attributes
    except _FAULTS as error:
        raise CacheError(f"damaged HDF5: {error}") from error


def lay_out(
    path: Path, shapes: Mapping[str, tuple[tuple[int, ...], Any]], attributes: Mapping[str, Any]
) -> dict[str, Field]:
    """Write the skeleton of a file: every dataset contiguous and allocated, no data yet.

    Parameters
    ----------
    path : Path
        A temporary name; nothing is there yet.
    shapes : mapping of str to (shape, dtype)
        The datasets.
    attributes : mapping
        Root attributes.

    Returns
    -------
    dict of str to Field
        Where to write the bytes.
    """
    skeleton = _Sparse()
    # v108: attributes over 64 KiB
    with h5py.File(skeleton, "w", libver=("v108", "v110")) as file:
        for name, (shape, dtype) in shapes.items():
            creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            creation.set_layout(h5py.h5d.CONTIGUOUS)
            creation.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
            creation.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
            creation.set_obj_track_times(False)
            links = h5py.h5p.create(h5py.h5p.LINK_CREATE)
            links.set_create_intermediate_group(True)
            h5py.h5d.create(
                file.id,
                name.encode(),
                h5py.h5t.py_create(np.dtype(dtype), logical=True),
                h5py.h5s.create_simple(shape),
                dcpl=creation,
                lcpl=links,
            )
        _put(file.attrs, attributes)
    skeleton.save(path)
    with h5py.File(path, "r", locking=False) as file:
        fields, _ = _survey(file, path.stat().st_size)
    return fields


class _Sparse(io.RawIOBase):
    """A file in memory of which only the pages that were written take room.

    HDF5 makes its skeletons here, since it does not recover from a disk that is full: an error
    of its own file driver leaves files half closed, and the process crashes at its end.
    """

    _PAGE_BYTES = 4096

    def __init__(self) -> None:
        self._pages: dict[int, bytearray] = {}
        self._size = 0
        self._at = 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def truncate(self, size: int | None = None) -> int:
        self._size = self._at if size is None else size
        return self._size

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        for start, page, within in self._runs(len(view)):
            whole = self._pages.setdefault(page, bytearray(self._PAGE_BYTES))
            whole[within] = view[start : start + within.stop - within.start]
        self._at += len(view)
        self._size = max(self._size, self._at)
        return len(view)

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        n_bytes = max(0, min(len(view), self._size - self._at))
        empty = bytes(self._PAGE_BYTES)
        for start, page, within in self._runs(n_bytes):
            some = self._pages.get(page, empty)[within]
            view[start : start + len(some)] = some
        self._at += n_bytes
        return n_bytes

    def _runs(self, n_bytes: int) -> Iterator[tuple[int, int, slice]]:
        """Split the next `n_bytes` at pages: (start in the data, page, slice of the page)."""
        start = 0
        while start < n_bytes:
            page, first = divmod(self._at + start, self._PAGE_BYTES)
            last = min(self._PAGE_BYTES, first + n_bytes - start)
            yield start, page, slice(first, last)
            start += last - first

    def save(self, path: Path) -> None:
        """Write it to `path`; what was never written is a hole."""
        with path.open("wb") as stream:
            stream.truncate(self._size)
            for page, data in sorted(self._pages.items()):
                start = page * self._PAGE_BYTES
                stream.seek(start)
                stream.write(data[: self._size - start])


def open_file(path: Path) -> Contents:
    """Read a file's attributes and where its datasets lie; its data is not touched.

    Raises
    ------
    CacheError
        No HDF5 file, half of one, or one with anything that ours do not have.
    """
    try:
        with path.open("rb") as stream:
            if stream.read(len(_SIGNATURE)) != _SIGNATURE:
                raise CacheError(
                    f"{path} is no HDF5 file.",
                    expected="a complete file that this pipeline wrote",
                    todo="remove it, or move it away, and run `make features` again",
                )
            mapping = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
            with h5py.File(stream, "r") as file:
                fields, attributes = _survey(file, len(mapping))
            if (end := _end_of(mapping)) != len(mapping):
                raise ValueError(f"it has {len(mapping):,} bytes, and should have {end:,}")
    except MemoryError as error:
        raise CacheError(
            f"{path} cannot be read: there is no memory left.",
            expected="a file that this pipeline wrote, and memory to open it",
            todo="end other programs, and give the same command again",
        ) from error
    except FileNotFoundError as error:
        raise CacheError(
            f"There is no file {path}.",
            expected="a file of codes: cache/<data>/<name>.h5",
            todo="make features makes it",
        ) from error
    except _FAULTS as error:
        raise CacheError(
            f"{path} cannot be read as HDF5: {error}",
            expected="a complete file that this pipeline wrote",
            todo="remove it, or move it away, and run `make features` again",
        ) from error
    return Contents(path, mapping, attributes, fields)


def seal_of(data: mmap.mmap, fields: Mapping[str, Field]) -> str:
    """SHA-256 over a file's bytes, but for the codes and the dataset `SEAL`, which holds it.

    Columns, attributes, probe and HDF5's own structures are covered. Rows of codes have their own
    digests.

    Parameters
    ----------
    data : mmap
        The file.
    fields : mapping of str to Field
        Its datasets.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    total = hashlib.sha256()
    at = 0
    passed = [
        field for name, field in fields.items()
        if field.n_bytes and (name == SEAL or name.startswith("codes/"))
    ]  # fmt: skip
    with memoryview(data) as view:
        for field in sorted(passed, key=lambda one: one.offset):
            total.update(view[at : max(at, field.offset)])
            at = max(at, field.offset + field.n_bytes)
        total.update(view[at:])
    return total.hexdigest()


def _end_of(mapping: mmap.mmap) -> int:
    """Where the file ends by its own superblock (HDF5 file format 3.0, II.A): nothing follows."""
    at = 40 if mapping[8] < 2 else 28
    return int.from_bytes(mapping[at : at + 8], "little")


def _survey(file: h5py.File, size: int) -> tuple[dict[str, Field], dict[str, Any]]:
    """List datasets and attributes, refusing everything but plain, contiguous, internal data."""
    fields: dict[str, Field] = {}
    groups: list[tuple[str, h5py.Group]] = [("", file)]
    n_objects = 0
    while groups:
        prefix, group = groups.pop()
        for name in group:
            full = f"{prefix}{name}"
            n_objects += 1
            if n_objects > _MOST_OBJECTS:  # groups may hold each other, so depth alone is no bound
                raise ValueError("too many objects")
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise ValueError(f"{full} is a link")
            item = group[name]
            if isinstance(item, h5py.Group):
                if full.count("/") > 8:
                    raise ValueError("groups too deep")
                groups.append((full + "/", item))
                continue
            fields[full] = _field(full, item, size)
    return fields, _get(file.attrs)


def _field(name: str, dataset: h5py.Dataset, size: int) -> Field:
    if not isinstance(dataset, h5py.Dataset):
        raise ValueError(f"{name} is no dataset")
    creation = dataset.id.get_create_plist()
    if (
        dataset.dtype.kind not in _KINDS
        or creation.get_layout() != h5py.h5d.CONTIGUOUS
        or creation.get_nfilters()
        or creation.get_external_count()
    ):
        raise ValueError(f"{name} is not a plain contiguous dataset of numbers or bytes")
    offset = dataset.id.get_offset()
    field = Field(dataset.shape, dataset.dtype, offset if offset is not None else 0)
    if field.n_bytes and (offset is None or offset + field.n_bytes > size):
        raise ValueError(f"{name} claims more bytes than the file has")
    return field


def _put(attributes: h5py.AttributeManager, values: Mapping[str, Any]) -> None:
    """Set attributes, text twice: of variable length for others, of fixed length for ourselves.

    h5py gives text of variable length as str and of fixed length as bytes, so others want the
    former. But reading one whose bytes are torn (zeros in HDF5's global heap) hangs inside the
    library, so :func:`_get` never does; it takes all text from one attribute of fixed length.
    """
    text = {name: value for name, value in values.items() if isinstance(value, str)}
    for name, value in values.items():
        attributes[name] = value
    whole = json.dumps(text, sort_keys=True).encode()
    dtype = h5py.string_dtype("utf-8", len(whole))
    attributes.create(_TEXT, np.array(whole, dtype=dtype), dtype=dtype)


def _get(attributes: h5py.AttributeManager) -> dict[str, Any]:
    """Read the attributes whose types alone say that reading them is harmless; refuse others."""
    found: dict[str, Any] = {}
    loose: set[str] = set()
    for name in attributes:
        dtype = attributes.get_id(name).dtype
        text = h5py.check_string_dtype(dtype)
        if text is not None and text.length is None:
            loose.add(name)
            continue
        if dtype.kind not in _KINDS:
            raise ValueError(f"attribute {name} is of a kind that ours never are")
        value = attributes[name]
        if isinstance(value, bytes):
            utf8 = text is not None and text.encoding == "utf-8"
            found[name] = value.decode() if utf8 else bytes(value)
        else:
            found[name] = value.item() if isinstance(value, np.generic) else value
    text_of = json.loads(found.pop(_TEXT, "{}"))
    if not isinstance(text_of, dict) or not loose <= text_of.keys():
        raise ValueError(f"attributes {', '.join(sorted(loose))} are not in the attribute {_TEXT}")
    return found | text_of
