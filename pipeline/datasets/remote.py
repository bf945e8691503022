"""Data sets at an address (``s3://``, ``gs://``, ``hf://``, ``https://``), fetched only once.

What is at the address is listed with the size and ETag of each object. Images, tables, arrays and
tars are fetched into the data root, several at a time, each complete or not at all; the listing is
kept next to them. At the next command the objects are listed again, and only those whose ETag or
size changed are fetched. After that the folder is read like any other, confined: nothing outside of
it is used, whatever a table in it names.

An archive is fetched, unpacked and removed; its ETag, size and SHA-256 are remembered, so that it
is not fetched again while the unpacked folder is there.

Object stores are spoken to through fsspec's file systems, an extra. A single file over https is
fetched by :mod:`.download`, which resumes. Credentials are those that the file systems find by
themselves (environment, ``~/.aws``, a machine's role); none is read or kept here.
"""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from filelock import FileLock

from ..errors import DataError, DownloadError, first_line
from ..files import explained, sync_folder
from ..memory import recall_values, remember_values
from ..notation import size
from ..progress import Progress, silent
from .file_kinds import archive_stem, is_archive, is_image, is_junk
from .names import safe_name
from .phrases import few, plural
from .room import need_room, writing

_KIND = "objects of an address 1"
_THREADS = 16
_MOST_OBJECTS = 50_000_000
_TABLES = (".csv", ".tsv", ".tab", ".txt", ".lst", ".list", ".json", ".jsonl")
_ARRAYS = (".npz", ".h5", ".hdf5", ".parquet", ".arrow", ".feather")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")
_MOST_SPREAD = 100_000

# Scheme, the module that speaks it, what to install, and an address to show.
_STORES = {
    "s3": ("s3fs", "pip install 'cnn-codes[remote]'", "s3://bucket/photos"),
    "gs": ("gcsfs", "pip install gcsfs", "gs://bucket/photos"),
    "gcs": ("gcsfs", "pip install gcsfs", "gcs://bucket/photos"),
    "az": ("adlfs", "pip install adlfs", "az://container/photos"),
    "abfs": ("adlfs", "pip install adlfs", "abfs://container/photos"),
    "hf": ("huggingface_hub", "pip install huggingface_hub", "hf://datasets/owner/name"),
    "http": ("", "", "https://host/photos.tar"),
    "https": ("", "", "https://host/photos.tar"),
}


@dataclass(frozen=True)
class _Object:
    """One object at an address."""

    path: str  # within the address, POSIX
    key: str  # as the store names it
    n_bytes: int  # -1: not said
    etag: str  # or whatever the store changes with the bytes


@dataclass(frozen=True)
class Fetched:
    """Where the objects of an address are now.

    Attributes
    ----------
    path : Path
        A folder, or the one file.
    name : str
        What the data set is called.
    origin : Path
        The file that remembers the address: the identity of the data set.
    notes : tuple of str
        What was fetched.
    """

    path: Path
    name: str
    origin: Path
    notes: tuple[str, ...] = ()


def spread(data: str) -> list[str]:
    """Write out what WebDataset writes in braces: ``a-{000..002}.tar`` → a-000.tar, ...

    Raises
    ------
    DataError
        More than 100,000 names.
    """
    found = _BRACES.search(data)
    if found is None:
        return [data]
    first, last = found.groups()
    numbers = range(int(first), int(last) + 1)
    if not 0 < len(numbers) <= _MOST_SPREAD:
        raise DataError(
            f"DATA={data}: {found[0]} stands for {len(numbers):,} numbers.",
            expected=f"1 to {_MOST_SPREAD:,}, the first one the smaller",
            todo="write them as {000..099}",
        )
    named = (
        f"{data[: found.start()]}{number:0{len(first)}}{data[found.end() :]}" for number in numbers
    )
    return [one for name in named for one in spread(name)]


def fetch_address(
    data: str, data_root: Path, *, offline: bool = False, progress: Progress = silent
) -> Fetched:
    """Bring the folder of an address up to date, and give it.

    Parameters
    ----------
    data : str
        The address: of a file, or of what begins with it; with numbers in braces, of several.
    data_root : Path
        Folder of the data sets.
    offline : bool
        Fetch and ask nothing: what was fetched before is used as it is.

    Raises
    ------
    DownloadError
        Nothing there, not reachable, refused; or not encrypted, except on this machine; or not
        there while `offline`.
    DataError
        A scheme that is not known, or one whose package is not installed; names that lead out of
        the folder.
    NoSpaceError
        The disk has no room.
    """
    scheme = urlsplit(data).scheme.lower()
    _check(data, scheme)
    stem = safe_name(_stem(data))
    digits = hashlib.sha256(data.encode()).hexdigest()[:12]
    folder = data_root / f"{stem}-{digits}"
    index = data_root / ".addresses" / f"{stem}-{digits}.json"
    with writing(folder):
        index.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(index.with_suffix(".lock")):
            return _brought(data, scheme, folder, index, offline, progress)


def _check(data: str, scheme: str) -> None:
    if scheme not in _STORES:
        raise DataError(
            f"DATA={data}: addresses that begin with {scheme}:// are not known.",
            expected="s3://, gs://, az://, hf://datasets/ or https://; or a path",
            todo="fetch it with another program, and point DATA= at the folder",
        )
    module, install, example = _STORES[scheme]
    if not urlsplit(data).netloc or (scheme == "hf" and not urlsplit(data).path.strip("/")):
        raise DataError(
            f"DATA={data} names nothing at {scheme}://.",
            expected="the address of a folder or a file",
            todo=f"for instance DATA={example}",
        )
    if "@" in urlsplit(data).netloc and scheme in ("http", "https"):
        raise DataError(
            "DATA holds a user name or a password, which would be written into results.",
            expected="an address without them",
            todo="fetch the file with another program, and point DATA= at it",
        )
    if scheme == "http" and urlsplit(data).hostname not in _LOOPBACK:
        raise DownloadError(
            f"DATA={data} is not encrypted: anybody on the way could change the images.",
            expected="https://",
            todo=f"DATA=https{data[4:]}, or fetch it yourself and point DATA= at the file",
        )
    if module and importlib.util.find_spec(module) is None:
        raise DataError(
            f"DATA={data}: {scheme}:// needs the package {module}.", expected="it installed",
            todo=install,
        )  # fmt: skip


def _stem(data: str) -> str:
    path = _BRACES.sub("", unquote(urlsplit(data).path)).rstrip("/")
    last = path.rpartition("/")[2] or urlsplit(data).netloc
    return (archive_stem(last) if is_archive(last) else last).rstrip("-_.") or "data"


def _brought(
    data: str, scheme: str, folder: Path, index: Path, offline: bool, progress: Progress
) -> Fetched:
    saved = recall_values(index, _KIND) or {"objects": {}, "unpacked": ""}
    unpacked = folder.parent / saved["unpacked"] if saved["unpacked"] else None
    if offline:
        if saved.get("complete") and (unpacked or folder).exists():
            return _fetched(unpacked or folder, folder, index, saved["objects"])
        raise DownloadError(
            f"{data} was not fetched before, and OFFLINE=1 forbids it.",
            expected=f"the folder {folder}",
            todo="give the command again without OFFLINE=1",
        )
    store: _Store = _Web() if scheme in ("http", "https") else _Bucket(scheme)
    objects = _wanted(store.objects(data), data)
    there = {one.path: [one.n_bytes, one.etag] for one in objects}
    if len(objects) == 1 and is_archive(objects[0].path):
        if unpacked is not None and unpacked.exists() and _same(there, saved["objects"]):
            return _fetched(unpacked, folder, index, there)
    todo = [
        one
        for one in objects
        if not (_same_one(saved["objects"].get(one.path), one) and (folder / one.path).is_file())
    ]
    gone = [path for path in saved["objects"] if path not in there]
    total = sum(max(0, one.n_bytes) for one in todo)
    notes = []
    if todo:
        need_room(folder.parent, total, data)
        notes.append(
            f"{plural(len(todo), 'file', 'files')} ({size(total)}) fetched from {data} into "
            f"{folder}; "
            f"{len(objects) - len(todo):,} were there."
        )
    if todo or gone:
        # First what is stale goes, then the listing is written, then files appear, each complete:
        # whatever file is there after a kill is the one that the listing names.
        for path in [*gone, *(one.path for one in todo)]:
            with explained(folder / path):
                (folder / path).unlink(missing_ok=True)
        remember_values(index, _KIND, {"objects": there, "unpacked": "", "complete": False})
        _fetch_all(store, todo, folder, progress)
    if len(objects) == 1 and is_archive(objects[0].path):
        found = _opened(folder, objects[0], progress)
        if found is not None:
            state = {"objects": there, "unpacked": found.name, "complete": True}
            remember_values(index, _KIND, state)
            (folder / objects[0].path).unlink(missing_ok=True)
            return _fetched(found, folder, index, there, notes)
    remember_values(index, _KIND, {"objects": there, "unpacked": "", "complete": True})
    return _fetched(folder, folder, index, there, notes)


def _fetched(
    where: Path, folder: Path, index: Path, objects: dict[str, Any], notes: Sequence[str] = ()
) -> Fetched:
    """Name what was fetched: the folder, or the only file in it."""
    if where == folder and len(objects) == 1:
        where = folder / next(iter(objects))
    return Fetched(where, folder.name.rpartition("-")[0], index.resolve(), tuple(notes))


def _opened(folder: Path, one: _Object, progress: Progress) -> Path | None:
    """Unpack an archive next to its folder; None for a tar of WebDataset, which is read as it is.

    The folder's name has digits of the archive's SHA-256: changed bytes, another folder.
    """
    from .archive import unpack
    from .shards import is_shard

    archive = folder / one.path
    if is_shard(archive):
        return None
    with archive.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return unpack(archive, folder.parent / f"{folder.name}-{digest[:12]}", progress=progress)


def _same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a == b and all(state[1] for state in a.values())


def _same_one(state: Any, one: _Object) -> bool:
    return bool(one.etag) and state == [one.n_bytes, one.etag]


def _wanted(objects: Iterator[_Object], data: str) -> list[_Object]:
    """Keep what may be part of a data set, and refuse names that lead out of the folder."""
    kept: list[_Object] = []
    others: list[str] = []
    for one in objects:
        parts = one.path.split("/")
        if any(is_junk(part) for part in parts if part not in ("", ".", "..")):
            continue
        if {"", ".", ".."} & {*parts} or "\0" in one.path or "\\" in one.path:
            raise DataError(
                f"{data} holds an object whose name leads out of its folder: {one.path[:200]!r}.",
                expected="names such as cats/1.jpg",
                todo="give the address of a folder without it",
            )
        name = one.path.lower()
        if is_image(name) or is_archive(name) or name.endswith((*_TABLES, *_ARRAYS)):
            kept.append(one)
        else:
            others.append(one.path)
        if len(kept) > _MOST_OBJECTS:
            raise DataError(f"{data} holds more than {_MOST_OBJECTS:,} objects.")
    if not kept:
        raise DownloadError(
            f"{data} holds no images"
            + (f", only {plural(len(others), 'other file', 'other files')}: {few(others, 3)}."
               if others else "."),
            expected="images, a table of them, .tar or .zip archives, .parquet files",
            todo="look at the spelling of the address",
        )  # fmt: skip
    return sorted(kept, key=lambda one: one.path)


def _fetch_all(store: _Store, objects: list[_Object], folder: Path, progress: Progress) -> None:
    """Fetch objects, several at a time."""
    folder.mkdir(parents=True, exist_ok=True)

    def fetch(one: _Object) -> None:
        path = folder / one.path
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            store.fetch(one, path)

    pool = ThreadPoolExecutor(min(_THREADS, len(objects) or 1))
    try:
        with progress("fetching", len(objects), "files") as meter:
            for _ in pool.map(fetch, objects):
                meter.advance()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        sync_folder(folder)


class _Store(Protocol):
    """Lists and fetches objects."""

    def objects(self, data: str) -> Iterator[_Object]:
        """Give what is at an address."""
        ...

    def fetch(self, one: _Object, path: Path) -> None:
        """Fetch one object to a new file, complete or not at all."""
        ...


class _Web:
    """Single files over https: a server does not say what else it has."""

    def objects(self, data: str) -> Iterator[_Object]:
        """Ask for the head of each file."""
        names: set[str] = set()
        for url in spread(data):
            name = unquote(urlsplit(url).path).rpartition("/")[2]
            if not name:
                raise DownloadError(
                    f"DATA={data} is the address of a folder, which a web server does not list.",
                    expected="the address of a file: an archive, a table, a .tar of WebDataset",
                    todo="give the file's address; of several: DATA=https://.../a-{000..009}.tar",
                )
            if name in names:
                raise DataError(f"DATA={data} names {name} twice.", expected="different names")
            names.add(name)
            headers = _head(url)
            length = headers.get("Content-Length", "")
            etag = headers.get("ETag") or headers.get("Last-Modified") or ""
            yield _Object(name, url, int(length) if length.isdigit() else -1, etag)

    def fetch(self, one: _Object, path: Path) -> None:
        """Fetch the file; a part of it that was received is continued."""
        from .download import download

        path.unlink(missing_ok=True)
        download(one.key, path)


def _head(url: str) -> Any:
    from .download import TIMEOUT_S, Redirects
    from .proxy import open_url, reach

    request = urllib.request.Request(url, method="HEAD", headers={"User-Agent": "cnn-codes"})
    try:
        with open_url(request, TIMEOUT_S, Redirects()) as response:  # type: ignore[attr-defined]
            return response.headers
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in (405, 501):  # it has no HEAD: the file is fetched each time
            return {}
        reason: object = f"{error.code} {error.reason}"
    except OSError as error:
        reason = getattr(error, "reason", error)
    raise DownloadError(
        f"{url} could not be fetched from {reach(url)}: {reason}.",
        expected="the file",
        todo="check the address and the network; OFFLINE=1 uses what was fetched before",
    )


class _Bucket:
    """Object stores, through fsspec."""

    def __init__(self, scheme: str) -> None:
        import fsspec

        self.scheme = scheme
        options: dict[str, Any] = {"skip_instance_cache": True, "use_listings_cache": False}
        if scheme == "s3":
            if not (os.environ.get("AWS_ACCESS_KEY_ID") or _has_credentials()):
                options["anon"] = True  # a public bucket
        with _said(f"{scheme}://"):
            self.system = fsspec.filesystem(scheme, **options)

    def objects(self, data: str) -> Iterator[_Object]:
        """List what an address names."""
        for url in spread(data):
            base = self.system._strip_protocol(url).rstrip("/")
            with _said(url):
                found = self._found(base)
            if not found:
                raise DownloadError(
                    f"{url}: there is nothing of this name.",
                    expected="a file, or the beginning of the names of several",
                    todo="look at the spelling of the address",
                )
            for key, info in sorted(found.items()):
                if info.get("type") == "directory":
                    continue
                inside = key[len(base) :].lstrip("/") if key != base else key.rpartition("/")[2]
                yield _Object(inside, key, int(info.get("size") or 0), _etag(info))

    def _found(self, base: str) -> dict[str, Any]:
        found: dict[str, Any] = self.system.find(base, detail=True)
        return found

    def fetch(self, one: _Object, path: Path) -> None:
        """Fetch an object, and check that it has the size that the listing said."""
        part = path.with_name(f".{path.name}.part")
        path.unlink(missing_ok=True)
        with _said(f"{self.scheme}://{one.key}"):
            self.system.get_file(one.key, str(part))
        got = part.stat().st_size
        if got != one.n_bytes:
            part.unlink()
            raise DownloadError(
                f"{self.scheme}://{one.key} has {got:,} bytes; the listing said {one.n_bytes:,}.",
                expected="an object that does not change while it is fetched",
                todo="give the same command again; what was fetched is kept",
            )
        with part.open("rb") as stream:
            os.fsync(stream.fileno())
        part.replace(path)


@contextmanager
def _said(what: str) -> Iterator[None]:
    """Turn what an object store's client raises into an error that says what to do."""
    try:
        yield
    except (DownloadError, DataError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.filename and error.errno == errno.ENOSPC:
            raise  # the disk of this machine
        reason = first_line(error) or type(error).__name__
        refused = isinstance(error, PermissionError) or "credentials" in reason.lower()
        raise DownloadError(
            f"{what} cannot be read: {reason[:300]}.",
            expected="an address that this user may read",
            todo="give credentials as the store's own tools take them (such as AWS_PROFILE), or "
            "look at the address"
            if refused
            else "check the address and the network, and give the same command again; what was "
            "fetched is kept",
        ) from error


def _has_credentials() -> bool:
    """Whether the AWS client library finds credentials: a profile, a role of the machine."""
    import botocore.session

    try:
        return botocore.session.Session().get_credentials() is not None
    except Exception:  # an unreadable profile: said when the bucket is asked
        return True


def _etag(info: dict[str, Any]) -> str:
    """Give what changes with an object's bytes, as its store names it."""
    for name in ("ETag", "etag", "md5Hash", "content_md5", "blob_id", "crc32c", "generation"):
        if info.get(name):
            return str(info[name])
    moment = info.get("LastModified") or info.get("mtime") or info.get("last_modified")
    return str(moment or "")
