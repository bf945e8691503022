"""Published weights, fetched once, into the cache, and checked.

A publisher puts a digest into a file's name or headers. The whole SHA-256 of the first use is kept
with the files, and every later use must have it.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from ..errors import CacheError, DownloadError
from ..files import sha256_file
from ..notation import duration
from ..notation import size as size_of
from ..progress import Progress

_HUB_TIMEOUT_S = 10.0
_PINS = "checksums.json"
_MOST_BYTES = 50 << 30  # of weights: no network of the catalogue has 10 GB
_MOST_S = 12 * 3600.0
T = TypeVar("T")


def fetch_url(url: str, folder: Path, *, offline: bool, progress: Progress) -> Path:
    """Fetch a file whose name ends in the first digits of its SHA-256, as torch.hub has it.

    Eight digits are too few against somebody who means harm, so the whole SHA-256 is kept in
    ``checksums.json`` after the first use, and demanded of every later one.
    """
    from ..datasets.download import download, pin_checksum, pinned_checksum

    target, pins = folder / url.rpartition("/")[2], folder / _PINS
    found = re.search(r"-([0-9a-f]{8,64})\.", target.name)
    prefix = found.group(1) if found else None
    if target.is_file():
        digest, pinned = sha256_file(target), pinned_checksum(pins, url)
        if digest.startswith(prefix or "") and pinned in (None, f"sha256:{digest}"):
            if pinned is None:
                _keep(pin_checksum, pins, url, f"sha256:{digest}")
            return target
        target.unlink()  # damaged since it was fetched
    if offline:
        raise DownloadError(
            f"The weights {target.name} are not here, and OFFLINE=1 forbids to fetch them.",
            todo=f"leave OFFLINE out, or put the file of {url} into {folder}",
        )
    return download(
        url,
        target,
        checksum=prefix,
        pins=pins,
        progress=progress,
        most_bytes=_MOST_BYTES,
        most_s=_MOST_S,
    )


def _keep(pin: Callable[[Path, str, str], None], pins: Path, key: str, value: str) -> None:
    """Pin a checksum; in a cache that cannot be written there is nothing to pin it in."""
    with contextlib.suppress(CacheError, OSError):
        pin(pins, key, value)


def fetch_timm(config: Any, folder: Path, *, offline: bool, progress: Progress) -> Path:
    """Fetch the weights of a pretrained configuration of timm, from the hub or a plain address.

    Raises
    ------
    DownloadError
        They are not here and cannot be fetched, or are not what their digest says.
    """
    if not config.hf_hub_id:
        return fetch_url(config.url, folder / "timm", offline=offline, progress=progress)
    from huggingface_hub import hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    last: Exception | None = None
    first = config.hf_hub_filename or "model.safetensors"
    url = hf_hub_url(config.hf_hub_id, first)
    by_hand = f"fetch {url} elsewhere and give WEIGHTS=<that file>"
    for filename in dict.fromkeys((first, "pytorch_model.bin")):
        try:
            return _from_hub(config.hf_hub_id, filename, folder / "hub", offline=offline)
        except LocalEntryNotFoundError as error:
            last = error
            break
        except EntryNotFoundError as error:
            last = error
            continue
        except (HfHubHTTPError, OSError) as error:
            last = error
            break
    if offline:
        raise DownloadError(
            f"The weights of {config.hf_hub_id} are not in {folder / 'hub'}, and OFFLINE=1 forbids "
            "fetching them.",
            expected=f"the file at {url}",
            todo=f"leave OFFLINE out; or {by_hand}",
        )
    raise DownloadError(
        f"The weights of {config.hf_hub_id} cannot be fetched: {str(last).splitlines()[0][:300]}",
        expected="a connection to the hub",
        todo=f"check the network and give the command again; or {by_hand}",
    )


def _from_hub(repo: str, filename: str, folder: Path, *, offline: bool) -> Path:
    """Fetch a file of a repository of Hugging Face: that of the first use, ever after.

    The commit and the SHA-256 of the first use are kept in ``checksums.json``; later ones, on
    this machine or with a copy of its cache, ask for that commit and demand these bytes.

    Raises
    ------
    DownloadError
        The file is too large, or is not what its SHA-256 says.
    huggingface_hub.errors.HfHubHTTPError, OSError
        It cannot be fetched, or is not there.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub import try_to_load_from_cache as kept

    from ..datasets.download import check_reachable, pin_checksum, pinned_checksum

    pins, key = folder / _PINS, f"{repo}/{filename}"
    digest, _, revision = (pinned_checksum(pins, key) or "").partition("@")
    commit = revision or None
    there = kept(repo, filename, cache_dir=folder, revision=commit)
    if not offline and not isinstance(there, str):
        url = hf_hub_url(repo, filename)  # the hub's own client waits and tries for minutes
        check_reachable(
            url,
            todo=f"check the network and give the command again; or fetch {url} elsewhere and give "
            "WEIGHTS=<that file>",
        )
        there_url = hf_hub_url(repo, filename, revision=commit)
        n_bytes = _within(_MOST_S, there_url, lambda: get_hf_file_metadata(there_url)).size or 0
        if n_bytes > _MOST_BYTES:
            raise DownloadError(
                f"{filename} of {repo} has {size_of(n_bytes)}.",
                expected=f"weights of at most {size_of(_MOST_BYTES)}",
                todo="fetch the file yourself and give WEIGHTS=<file>",
            )

    def fetched() -> Path:
        return Path(
            hf_hub_download(
                repo,
                filename,
                cache_dir=folder,
                revision=commit,
                local_files_only=offline or isinstance(there, str),
                etag_timeout=_HUB_TIMEOUT_S,
            )
        )

    path = _within(_MOST_S, f"{filename} of {repo}", fetched)
    found = sha256_file(path)
    named = path.resolve().name  # large files are named by their SHA-256 there
    wanted = digest or (named if re.fullmatch(r"[0-9a-f]{64}", named) else found)
    if found != wanted:
        path.resolve().unlink()
        raise DownloadError(
            f"{filename} of {repo} is not what its SHA-256 says; it was removed.",
            expected=f"{wanted}" + (", that of the first use here" if digest else ""),
            todo="give the same command again",
        )
    if not digest:
        parts = path.parts
        at = parts[parts.index("snapshots") + 1] if "snapshots" in parts else ""
        _keep(pin_checksum, pins, key, f"{found}@{at}")
    return path


def _within(seconds: float, what: str, call: Callable[[], T]) -> T:
    """Give what `call` gives, or an error after some seconds.

    The hub's client limits each read, not their sum. A thread that is given up ends with the
    process, and what it has fetched is not kept as complete.

    Raises
    ------
    DownloadError
        The time is over.
    """
    found: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            found.append(call())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not found:
        raise DownloadError(
            f"{what} was not fetched within {duration(seconds)}.",
            expected="a connection that is faster",
            todo="give the same command again; or fetch the file elsewhere and give WEIGHTS=<file>",
        )
    return found[0]
