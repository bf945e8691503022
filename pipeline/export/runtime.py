"""ONNX Runtime for browsers (onnxruntime-web, MIT), fetched once by npm and held to its digests."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from ..errors import DownloadError
from ..files import write_atomic

VERSION = "1.30.0"
FILES = {
    "ort.wasm.min.js": "faece07e84faa9001f5104bbe4e5c70861d06cb2376a0dea1fa0ad33a67adc81",
    "ort-wasm-simd-threaded.mjs": (
        "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b"
    ),
    "ort-wasm-simd-threaded.wasm": (
        "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2"
    ),
}
_PACKAGE = f"onnxruntime-web@{VERSION}"
_WAIT_S = 600


def web_runtime(cache: Path, *, offline: bool) -> dict[str, bytes]:
    """Give the files of the runtime, fetched by npm where they are not in the cache.

    Parameters
    ----------
    cache : Path
        They are kept in ``<cache>/web/``.
    offline : bool
        Fetch nothing.

    Raises
    ------
    DownloadError
        They are not there and cannot be fetched, or are not those of this version.
    """
    folder = cache / "web" / f"onnxruntime-web-{VERSION}"
    paths = {name: folder / name for name in FILES}
    if not all(path.is_file() for path in paths.values()):
        archive = cache / "web" / f"onnxruntime-web-{VERSION}.tgz"
        if not archive.is_file():
            _fetch(archive, offline)
        _unpack(archive, folder)
    found = {name: path.read_bytes() for name, path in paths.items()}
    for name, data in found.items():
        if hashlib.sha256(data).hexdigest() != FILES[name]:
            raise DownloadError(
                f"{paths[name]} is not the file of onnxruntime-web {VERSION}.",
                expected=f"SHA-256 {FILES[name][:12]}…",
                todo=f"rm -r {folder}; then give the same command again",
            )
    return found


def _fetch(archive: Path, offline: bool) -> None:
    archive.parent.mkdir(parents=True, exist_ok=True)
    by_hand = f"npm pack {_PACKAGE} --pack-destination {archive.parent}"
    npm = shutil.which("npm")
    if offline or npm is None:
        why = "OFFLINE=1 forbids fetching it" if offline else "npm is not installed"
        raise DownloadError(
            f"FORMAT=web needs onnxruntime-web {VERSION}, and {why}.",
            expected=f"{archive}",
            todo=f"where npm and the network are there: {by_hand}",
        )
    with tempfile.TemporaryDirectory(dir=archive.parent) as folder:
        command = [npm, "pack", _PACKAGE, "--silent", "--pack-destination", folder]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_WAIT_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise DownloadError(f"npm cannot be run: {error}", todo=by_hand) from error
        made = Path(folder) / archive.name
        if done.returncode or not made.is_file():
            said = (done.stderr or done.stdout).strip().splitlines()
            raise DownloadError(
                f"npm cannot fetch {_PACKAGE}: {said[-1] if said else 'it says nothing'}",
                todo=by_hand,
            )
        made.replace(archive)


def _unpack(archive: Path, folder: Path) -> None:
    try:
        with tarfile.open(archive) as tar:
            for name in FILES:
                member = tar.extractfile(f"package/dist/{name}")
                if member is None:
                    raise KeyError(name)
                write_atomic(folder / name, member.read())
    except (OSError, KeyError, tarfile.TarError) as error:
        raise DownloadError(
            f"{archive} is not the package onnxruntime-web {VERSION}: {error}",
            todo=f"rm {archive}; then give the same command again",
        ) from error
