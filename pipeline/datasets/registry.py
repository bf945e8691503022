"""The data sets known by name, and where the images of a name or path are.

Registered sets are fetched once into the data root; whatever folder of that name is there
already is used as it is.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from ..errors import DataError, DownloadError, PipelineError
from ..progress import Progress, silent
from .elpv import elpv_folder
from .file_kinds import archive_stem, is_archive
from .split_words import split_of


@dataclass(frozen=True, kw_only=True)
class Registered:
    """One known data set.

    Attributes
    ----------
    url : str
        Address of the archive; empty for what an installed package brings.
    checksum : str
        ``sha1:...`` or ``sha256:...``; empty: pinned at the first download.
    n_images, n_classes : int
        As published.
    size_mb : int
        Of the archive, about; 0: not known.
    licence, description : str
        For people.
    """

    name: str
    url: str
    checksum: str = ""
    n_images: int
    n_classes: int
    size_mb: int = 0
    licence: str
    description: str


REGISTRY: Mapping[str, Registered] = MappingProxyType(
    {
        one.name: one
        for one in (
            Registered(
                name="hotdog",
                url="https://d2l-data.s3-accelerate.amazonaws.com/hotdog.zip",
                checksum="sha1:fba480ffa8aa7e0febbb511d181409f899b9baa5",
                n_images=2_800,
                n_classes=2,
                licence="not stated (images from the web, of Dive into Deep Learning)",
                description="hot dogs and other things; 2,000 to train, 800 to test",
            ),
            Registered(
                name="ants-bees",
                url="https://download.pytorch.org/tutorial/hymenoptera_data.zip",
                n_images=398,
                n_classes=2,
                size_mb=47,
                licence="not stated (a part of ImageNet)",
                description="ants and bees of PyTorch's transfer-learning tutorial; train and val",
            ),
            Registered(
                name="flowers",
                url="https://storage.googleapis.com/download.tensorflow.org/example_images/"
                "flower_photos.tgz",
                n_images=3_670,
                n_classes=5,
                size_mb=229,
                licence="CC BY 2.0 (LICENSE.txt in the archive names the photographers)",
                description="daisies, dandelions, roses, sunflowers, tulips; no split",
            ),
            Registered(
                name="cats-dogs",
                url="https://storage.googleapis.com/mledu-datasets/cats_and_dogs_filtered.zip",
                n_images=3_000,
                n_classes=2,
                size_mb=69,
                licence="not stated (from Microsoft's Asirra, by way of Kaggle)",
                description="cats and dogs; 2,000 to train, 1,000 to validate",
            ),
            Registered(
                name="elpv",
                url="",
                n_images=2_624,
                n_classes=2,
                licence="CC BY-NC-SA 4.0",
                description="solar cells in electroluminescence, functional or defective; split "
                "by module (inferred from the order of the files)",
            ),
            Registered(
                name="elpv-cells",
                url="",
                n_images=2_624,
                n_classes=2,
                licence="CC BY-NC-SA 4.0",
                description="the same images split by cell, as the published figures are: cells "
                "of one module on both sides",
            ),
        )
    }
)


_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")  # s3://bucket/photos


@dataclass(frozen=True)
class Source:
    """Where the images of a data set are.

    Attributes
    ----------
    name : str
        Registered name, or what a path would be called.
    registered : bool
        Whether the name is a registered one.
    origin : Path
        What the user named, absolute and without links: its identity.
    path : Path
        What is to be read: a folder, a table or a list file.
    confined : bool
        Whether it came out of an archive: nothing outside of it is used.
    shards : tuple of Path
        Tars of WebDataset, read as they are; empty for all else.
    notes : tuple of str
        What was fetched.
    """

    name: str
    registered: bool
    origin: Path
    path: Path
    confined: bool = False
    shards: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()


_NO_ARCHIVE = frozenset(  # which are zip archives inside
    ".npz .xlsx .xlsm .docx .ods .odt .pptx .numbers .pt .pth".split()
)


def locate(
    data: str, data_root: Path, *, offline: bool = False, progress: Progress = silent
) -> Source:
    """Find the images of a registered name or of a path; fetch and unpack them where needed.

    Parameters
    ----------
    data : str
        A registered name; a path of a folder, archive, table or list file; the name of a folder
        or file in `data_root`; or an address, such as ``s3://bucket/photos``.
    data_root : Path
        Folder of the data sets; archives are unpacked there.
    offline : bool
        Fetch nothing.

    Raises
    ------
    DataError
        Neither a known name nor a path; an archive that cannot be unpacked.
    DownloadError
        A registered set that is not there and cannot be fetched.
    """
    if data in REGISTRY:
        path = fetch(data, data_root, offline=offline, progress=progress)
        return Source(data, True, _real(path), path, confined=True)
    if _ADDRESS.match(data):
        from .remote import fetch_address

        fetched = fetch_address(data, data_root, offline=offline, progress=progress)
        found = _at(fetched.path, data_root, progress)
        return replace(
            found, name=fetched.name, origin=fetched.origin, confined=True, notes=fetched.notes
        )
    given = Path(data).expanduser()
    if not data or not given.exists():
        given = data_root / data
    if not data or not given.exists():
        raise _unknown(data, data_root)
    origin = _real(given)
    for name in REGISTRY:
        if origin == _real(data_root / name):
            return Source(name, True, origin, data_root / name, confined=True)
    return _at(given, data_root, progress)


def _at(given: Path, data_root: Path, progress: Progress) -> Source:
    """Read what a path is, and write out or unpack what is to be."""
    origin = _real(given)
    shown = Path(os.path.abspath(given))  # noqa: PTH100 (a link keeps the name the user gave it)
    if shown.is_dir():
        if arrays := _arrays(shown):
            path = _written_out(arrays, shown.name, data_root, progress)
            return Source(shown.name, False, origin, path, confined=True)
        if shards := _shards(shown):
            return Source(shown.name, False, origin, shown, confined=True, shards=shards)
        return Source(shown.name, False, origin, shown)
    if parts := _array_parts(shown):
        path = _written_out(parts, shown.stem, data_root, progress)
        return Source(shown.stem, False, origin, path, confined=True)
    if shards := _shards(shown):
        return Source(shown.stem, False, origin, shown, confined=True, shards=shards)
    if is_archive(shown.name) or _is_packed(shown):
        path = _unpacked(shown, data_root, progress)
        return Source(archive_stem(shown.name), False, origin, path, confined=True)
    name = shown.stem if split_of(shown.stem) is None else shown.parent.name
    return Source(name, False, origin, shown)


def fetch(
    name: str, data_root: Path, *, offline: bool = False, progress: Progress = silent
) -> Path:
    """Give the folder of a registered data set, fetched and unpacked where it is not there.

    Raises
    ------
    DownloadError
        Not there, and `offline`, unreachable, or not what its checksum says.
    """
    known = REGISTRY[name]
    folder = data_root / name
    if folder.exists():
        return folder
    if not known.url:
        return elpv_folder()
    if offline:
        raise DownloadError(
            f"The data set {name} is not in {data_root}, and OFFLINE=1 forbids fetching it.",
            expected=f"the folder {folder}",
            todo=f"give the command again without OFFLINE=1, or unpack {known.url} there",
        )
    # Here, so that who has the images pays for neither import.
    from .archive import unpack
    from .download import download, forget_pin

    pins = data_root / "pins.json"
    archive = data_root / ".downloads" / known.url.rpartition("/")[2]
    download(
        known.url,
        archive,
        checksum=known.checksum or None,
        pins=pins,
        progress=progress,
    )
    try:
        unpack(archive, folder, progress=progress)
    except PipelineError:
        # Cut off by a server that did not say how long the file is: fetch it again next time.
        archive.unlink(missing_ok=True)
        forget_pin(pins, known.url)
        raise
    archive.unlink(missing_ok=True)
    return folder


def _arrays(folder: Path) -> list[Path]:
    """Find arrays in a folder, where there is no image directly in it or in its first folder."""
    from .arrays import arrays_in

    return arrays_in(folder)


def _array_parts(path: Path) -> list[Path]:
    """Give a file of arrays with those that belong to it; empty where it holds none."""
    from .arrays import is_array, parts_of

    return parts_of(path) if is_array(path) else []


def _shards(path: Path) -> tuple[Path, ...]:
    """Find tars of WebDataset: in a folder without images, or the one that was named."""
    if path.is_file() and path.suffix.lower() != ".tar":
        return ()
    from .shards import is_shard, shards_in

    if path.is_dir():
        return tuple(shards_in(path))
    return (path,) if is_shard(path) else ()


def _written_out(files: list[Path], name: str, data_root: Path, progress: Progress) -> Path:
    from .arrays import unpack_arrays

    return unpack_arrays(files, name, data_root, progress=progress)


def _is_packed(path: Path) -> bool:
    """Tell whether a file of another suffix is an archive by its content."""
    from .archive import archive_kind

    return bool(archive_kind(path)) and path.suffix.lower() not in _NO_ARCHIVE


def _unpacked(archive: Path, data_root: Path, progress: Progress) -> Path:
    """Folder of an archive's content, named by its bytes: changed bytes, another folder."""
    from .digests import hash_files

    stem = archive_stem(archive.name)
    memory = data_root / ".archives" / f"{archive.name}.npz"
    digests = hash_files(archive.parent, [archive.name], memory, progress=progress)
    if digests.faults:
        raise DataError(
            f"The archive {archive} cannot be read: {digests.faults[0]}.",
            expected="a complete .zip or .tar archive",
            todo="fetch it again, or correct its permissions",
        )
    folder = data_root / f"{stem}-{digests.hex[0].decode()[:12]}"
    if not folder.exists():
        from .archive import unpack

        unpack(archive, folder, progress=progress)
    return folder


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _unknown(data: str, data_root: Path) -> DataError:
    here = (
        [one.name for one in data_root.iterdir() if not one.name.startswith(".") and one.is_dir()]
        if data_root.is_dir()
        else []
    )
    names = sorted({*REGISTRY, *here})
    near = difflib.get_close_matches(data.lower(), names, n=3, cutoff=0.5)
    return DataError(
        f"DATA={data} is neither a known data set nor a file or folder.",
        expected=f"one of {', '.join(names)}; or a path to a folder, archive, CSV or list file",
        todo=f"did you mean {' or '.join(near)}?" if near else "look at the path's spelling",
    )
