"""Fetch one file over HTTP: resumed when cut off, checked before it gets its name.

Written on the standard library: what requests or pooch would add is the connection, and what is
hard here (resuming only the same file, trusting nothing unchecked) they leave to the caller.

Bytes go to a hidden ``.part`` file next to the target, with a note of which file they are the
beginning of (address, ETag, date, length). They are continued only when the server says that it
is still that file; the finished file is flushed, checked, then renamed.

A server is not trusted to end: bytes and time in all are capped, an answer that makes no progress
counts as a failure, and once an address is encrypted no redirect leads away from that. Proxies
are those of the environment (``https_proxy``, ``no_proxy``), as curl has them.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import ssl
import time
import urllib.error
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from filelock import FileLock

from ..errors import DownloadError
from ..files import make_folder, sync_folder, write_atomic
from ..notation import size
from ..progress import Progress, silent
from .proxy import open_url, proxy_of, reach
from .room import need_room, writing

TIMEOUT_S = 10.0  # of a connection, and of each wait for bytes
SILENCE_S = 20.0  # without an answer or a byte, over all tries: then nobody is there
BACKOFF_S = 0.5
_MAX_BACKOFF_S = 30.0
_MAX_FAILURES = 5  # in a row, each without new bytes worth the name
_WORTH_BYTES = 1 << 16
_BLOCK_BYTES = 1 << 18
MOST_BYTES = 500 << 30  # of one file: ImageNet's training images are 138 GB
MOST_S = 48 * 3600.0  # for one file, all tries together: 500 GB at 3 MB/s
_HOPELESS = frozenset({400, 401, 403, 404, 405, 410, 414, 451})


def download(
    url: str,
    target: Path,
    *,
    checksum: str | None = None,
    pins: Path | None = None,
    offline: bool = False,
    progress: Progress = silent,
    most_bytes: int = MOST_BYTES,
    most_s: float = MOST_S,
) -> Path:
    """Fetch `url` to `target`, unless `target` is there.

    Safe to call from several processes at once: the others wait for the first.

    Parameters
    ----------
    url : str
        Address, http or https; https is not left by a redirect.
    target : Path
        Name of the finished file. It never holds anything unfinished or unchecked.
    checksum : str, optional
        ``sha1:<hex>``, ``sha256:<hex>``, or the first 8 or more digits of the SHA-256.
    pins : Path, optional
        JSON file of checksums by address: where `checksum` is not given, or only its first
        digits, the whole SHA-256 of the first download is kept there and demanded of every later
        one.
    offline : bool
        Fetch nothing: raise where `target` is not there.
    most_bytes : int
        A larger file is refused, or given up where the server did not say its length.
    most_s : float
        Seconds for all tries together.

    Returns
    -------
    Path
        `target`.

    Raises
    ------
    DownloadError
        Not there, not reachable after several tries, too large, too slow, or of another checksum.
    NoSpaceError
        The disk has no room for it.
    DataError
        The folder cannot be written.
    """
    if target.exists():
        return target
    if offline:
        raise DownloadError(
            f"{target} is not there, and OFFLINE=1 forbids fetching it.",
            expected=f"the file at {url}",
            todo="give the command again without OFFLINE=1, or put the file there yourself",
        )
    if urlsplit(url).scheme not in ("http", "https"):
        raise DownloadError(f"{url} is no web address.", expected="http://... or https://...")
    with writing(target):
        make_folder(target.parent)
        with FileLock(target.with_name(f".{target.name}.lock")):
            if not target.exists():
                limits = (most_bytes, time.monotonic() + most_s)
                _Fetch(url, target, progress, limits).run(checksum, pins)
    return target


def check_reachable(url: str, *, todo: str) -> None:
    """Ask for the head of a file that another library is to fetch: it may wait without end.

    Parameters
    ----------
    url : str
        Address of the file.
    todo : str
        What to do where nobody answers.

    Raises
    ------
    DownloadError
        Nobody answers, directly or through the proxy; an answer of any kind is one.
    """
    request = urllib.request.Request(url, method="HEAD", headers={"User-Agent": "cnn-codes"})
    try:
        response: Any = open_url(request, TIMEOUT_S)
        response.close()
    except urllib.error.HTTPError as error:
        error.close()  # whoever fetches it says what that means
        if error.code not in (407, 502, 503, 504):
            return
        reason: object = f"{error.code} {error.reason}"
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error) or type(error).__name__
    else:
        return
    raise DownloadError(
        f"{url} could not be fetched from {reach(url)}: {reason}.",
        expected="a connection to that server" + (" or proxy" if proxy_of(url) else ""),
        todo=todo,
    )


@dataclass(frozen=True)
class _Note:
    """Which file a ``.part`` is the beginning of."""

    url: str
    etag: str = ""
    modified: str = ""
    total_bytes: int = -1  # -1: the server did not say

    @property
    def validator(self) -> str:
        """What If-Range may carry: a strong ETag, else the date, else nothing."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.modified


class _Cut(Exception):
    """The connection ended early, or the server asks to come back; try again."""

    def __init__(self, reason: str, wait_s: float = 0.0, *, answered: bool = False) -> None:
        super().__init__(reason)
        self.wait_s = wait_s
        self.answered = answered


class _Fetch:
    """One download: its part file, its note, its tries."""

    def __init__(
        self, url: str, target: Path, progress: Progress, limits: tuple[int, float]
    ) -> None:
        self.url = url
        self.most_bytes, self.until = limits
        self.target = target
        self.part = target.with_name(f".{target.name}.part")
        self.note_path = target.with_name(f".{target.name}.part.json")
        self.progress = progress
        self.resumed = False

    def run(self, checksum: str | None, pins: Path | None) -> None:
        complete = bool(checksum) and (":" in str(checksum) or len(str(checksum)) == 64)
        pinned = pinned_checksum(pins, self.url) if pins and not complete else None
        wanted = pinned or checksum
        self._complete()
        found = _matches(self.part, wanted)
        if wanted and not found and self.resumed:
            self._discard()  # perhaps two files were spliced: once more, from the start
            self._complete()
            found = _matches(self.part, wanted)
        if wanted and not found:
            actual = _checksum(self.part, wanted.partition(":")[0] if ":" in wanted else "sha256")
            self._discard()
            raise DownloadError(
                f"{self.url} has the checksum {actual}; it was not kept.",
                expected=f"{wanted}" + (", that of the first download here" if pinned else ""),
                todo=f"if its publisher changed the file, delete its line from {pins} and try again"
                if pinned
                else "try again; if it stays so, the publisher has changed the file",
            )
        if pins and not complete and not pinned:
            pin_checksum(pins, self.url, _checksum(self.part, "sha256"))
        self.part.replace(self.target)
        sync_folder(self.target.parent)
        self.note_path.unlink(missing_ok=True)

    def _discard(self) -> None:
        self.part.unlink(missing_ok=True)
        self.note_path.unlink(missing_ok=True)
        self.resumed = False

    def _complete(self) -> None:
        """Fetch until the part file is complete, or give up."""
        failures, furthest, silent_s = 0, self._size(), 0.0
        while True:
            self._in_time()
            began, before = time.monotonic(), self._size()
            try:
                return self._attempt()
            except _Cut as error:
                received = self._size()
                failures = 1 if received >= furthest + _WORTH_BYTES else failures + 1
                furthest = max(furthest, received)
                waited = received == before and not error.answered
                silent_s = silent_s + time.monotonic() - began if waited else 0.0
                if failures >= _MAX_FAILURES or silent_s >= SILENCE_S:
                    raise DownloadError(
                        f"{self.url} could not be fetched from {reach(self.url)}: {error} "
                        f"({failures} tries without progress).",
                        expected="a connection to that server"
                        + (" or proxy" if proxy_of(self.url) else ""),
                        todo="check the network"
                        + (" and the proxy" if proxy_of(self.url) else "")
                        + " and give the same command again (what has been received is kept); or "
                        f"fetch {self.url} elsewhere and put it at {self.target}",
                    ) from error
                wait_s = min(BACKOFF_S * 2 ** (failures - 1), _MAX_BACKOFF_S)
                time.sleep(max(wait_s, error.wait_s))

    def _attempt(self) -> None:
        note, start = self._note(), self._size()
        if start and note.total_bytes == start:
            self.resumed = True
            return
        if start and not note.validator:
            start = 0  # nothing would tell that it is still the same file
        response = self._open(note, start)
        if response is None:  # 416, or another file under this address
            self._discard()
            raise _Cut("what the server sent does not continue what was received")
        with response:
            headers = response.headers
            resuming = response.status == 206
            length = self._length(headers)
            total = _total(headers, start + length if length >= 0 else -1) if resuming else length
            if total > self.most_bytes:
                raise self._too_large(f"has {size(total)}")
            if not resuming:
                start = 0
                self._discard()
                note = _Note(
                    self.url, headers.get("ETag", ""), headers.get("Last-Modified", ""), total
                )
                write_atomic(self.note_path, json.dumps(asdict(note)).encode())
            self.resumed = self.resumed or resuming
            if total > 0:
                need_room(self.part.parent, total - start, self.target.name)
            self._receive(response, start, total)

    def _length(self, headers: Any) -> int:
        """Bytes of the body as the server says; -1 where it does not."""
        said = {one.strip() for one in ",".join(headers.get_all("Content-Length", [])).split(",")}
        text = said.pop() if said else ""
        if not text and not said:
            return -1
        if said or not re.fullmatch(r"[0-9]{1,18}", text):
            raise DownloadError(
                f"{self.url}: the server's Content-Length is no number ({text[:60]!r}).",
                expected="the length of the file in bytes",
                todo=f"try again later, or fetch it elsewhere and put it at {self.target}",
            )
        return int(text)

    def _too_large(self, what: str) -> DownloadError:
        self._discard()
        return DownloadError(
            f"{self.url} {what}.",
            expected=f"at most {size(self.most_bytes)}",
            todo=f"if it is right, fetch it yourself and put it at {self.target}",
        )

    def _in_time(self) -> None:
        """Give up where all tries together took too long; what was received is kept."""
        if time.monotonic() > self.until:
            raise DownloadError(
                f"{self.url} took too long: {size(self._size())} were received in the time that "
                "is allowed.",
                expected="a faster connection",
                todo="give the same command again, which continues; or fetch the file yourself "
                f"and put it at {self.target}",
            )

    def _open(self, note: _Note, start: int) -> Any:
        """Open the address at byte `start`; None where the part is no beginning of it."""
        request = urllib.request.Request(
            self.url, headers={"User-Agent": "cnn-codes", "Accept-Encoding": "identity"}
        )
        if start:
            request.add_header("Range", f"bytes={start}-")
            request.add_header("If-Range", note.validator)
        try:
            response: Any = open_url(request, TIMEOUT_S, Redirects())
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 416 and start:
                    return None
                if error.code in _HOPELESS:
                    raise DownloadError(
                        f"{self.url} answers {error.code} ({error.reason}).",
                        expected="the file",
                        todo=f"fetch it elsewhere and put it at {self.target}",
                    ) from error
                after = error.headers.get("Retry-After", "")
                wait_s = min(float(after), 60.0) if after.isdigit() else 0.0
                answer = f"{error.code} {error.reason}"
                raise _Cut(answer, wait_s, answered=True) from error
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            if isinstance(reason, ssl.SSLCertVerificationError):
                raise DownloadError(
                    f"{self.url}: the server's certificate is not accepted ({reason}).",
                    expected="a certificate that this machine trusts",
                    todo="install the missing authority (behind a company's proxy: its own), or "
                    f"fetch the file yourself and put it at {self.target}",
                ) from error
            raise _Cut(str(reason) or type(reason).__name__) from error
        if response.status == 206 and not start:
            response.close()
            raise _Cut("the server sent a part of the file where all of it was asked for")
        if response.status == 206 and not _continues(response.headers, note, start):
            response.close()
            return None
        if response.status not in (200, 206):
            response.close()
            raise _Cut(f"the server answers {response.status} {response.reason}")
        return response

    def _receive(self, response: Any, start: int, total: int) -> None:
        n_bytes = start
        # Unbuffered: what a killed process had received is in the file, and counts.
        with (
            self.progress(self.target.name, max(total, 0), "B") as meter,
            self.part.open("r+b" if start else "wb", buffering=0) as stream,
        ):
            meter.advance(start)
            stream.seek(start)
            while block := _read(response):
                n_bytes += len(block)
                if n_bytes > self.most_bytes:
                    raise self._too_large(f"does not end after {size(self.most_bytes)}")
                stream.write(block)
                meter.advance(len(block))
                self._in_time()
            os.fsync(stream.fileno())
        if 0 <= total and n_bytes < total:
            raise _Cut(f"the connection ended at byte {n_bytes:,} of {total:,}")

    def _size(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _note(self) -> _Note:
        try:
            note = _Note(**json.loads(self.note_path.read_bytes()))
        except (OSError, ValueError, TypeError):
            return _Note(self.url)
        return note if note.url == self.url else _Note(self.url)


class Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects between web addresses; once encrypted, it stays so at every hop."""

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Any:
        """Refuse to leave https, on this hop."""
        before, after = urlsplit(req.full_url), urlsplit(newurl)
        if after.scheme not in ("http", "https") or (before.scheme == "https" != after.scheme):
            raise DownloadError(
                f"{req.full_url} leads to {newurl}, which is "
                + ("no web address." if after.scheme != "http" else "not encrypted."),
                expected="https all the way" if before.scheme == "https" else "a web address",
                todo="give the address that it should lead to, or fetch the file yourself",
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _total(headers: Any, otherwise: int) -> int:
    """Length of the file that a 206 answer is a part of; `otherwise` where it is not said."""
    total = (headers.get("Content-Range") or "").rpartition("/")[2].strip()
    return int(total) if re.fullmatch(r"[0-9]{1,18}", total) else otherwise


def _read(response: Any) -> bytes:
    try:
        block: bytes = response.read1(_BLOCK_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise _Cut(str(error) or type(error).__name__) from error
    return block


def _continues(headers: Any, note: _Note, start: int) -> bool:
    """Tell whether a 206 answer goes on with the file of the note at byte `start`."""
    unit, _, span = (headers.get("Content-Range") or "").partition(" ")
    first, _, rest = span.partition("-")
    total = rest.partition("/")[2]
    if unit != "bytes" or first != str(start):
        return False
    if note.total_bytes >= 0 and total.isdigit() and int(total) != note.total_bytes:
        return False
    return not note.etag or headers.get("ETag", note.etag) == note.etag


def _checksum(path: Path, algorithm: str) -> str:
    with path.open("rb") as stream:
        return f"{algorithm}:{hashlib.file_digest(stream, algorithm).hexdigest()}"


def _matches(path: Path, wanted: str | None) -> bool:
    if wanted is None:
        return False
    algorithm, colon, digits = wanted.lower().partition(":")
    if not colon:
        algorithm, digits = "sha256", algorithm
    if algorithm not in ("sha1", "sha256") or len(digits) < 8:
        raise ValueError(f"{wanted!r}: sha1:<hex>, sha256:<hex> or 8 digits of a SHA-256")
    actual = _checksum(path, algorithm).partition(":")[2]
    return actual.startswith(digits) if not colon else actual == digits


def _read_pins(pins: Path) -> dict[str, str]:
    try:
        table = json.loads(pins.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError:
        table = None
    if not isinstance(table, dict):
        raise DownloadError(
            f"{pins} is damaged.",
            expected="JSON: checksums by address",
            todo="repair it, or delete it: the next download of each file is then trusted again",
        )
    return table


def forget_pin(pins: Path, url: str) -> None:
    """Trust the next download of `url` again: what was pinned is not a complete file."""
    with FileLock(pins.with_name(f".{pins.name}.lock")):
        table = _read_pins(pins)
        if table.pop(url, None):
            _write_pins(pins, table)


def _write_pins(pins: Path, table: dict[str, str]) -> None:
    write_atomic(pins, json.dumps(table, indent=1, sort_keys=True).encode() + b"\n")


def pinned_checksum(pins: Path, url: str) -> str | None:
    """Give what was kept of the first download of `url`; None where nothing was."""
    found = _read_pins(pins).get(url)
    return found if isinstance(found, str) else None


def pin_checksum(pins: Path, url: str, checksum: str) -> None:
    """Keep the checksum of the first download of `url`, to be demanded of later ones."""
    pins.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(pins.with_name(f".{pins.name}.lock")):
        _write_pins(pins, {**_read_pins(pins), url: checksum})
