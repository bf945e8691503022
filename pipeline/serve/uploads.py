"""Image files out of a request's body, within limits: multipart or raw, read as it arrives.

Nothing is written to disk, and a file's name is only ever shown. A body that is malformed, too
large or too slow is answered at once, and its connection closed.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from .limits import Limits, Refused

_MULTIPART, _RAW = "multipart/form-data", "application/octet-stream"
_EXPECTED = f"{_MULTIPART} with one or more files, or the bytes of one image ({_RAW}, image/*)"
_NAME_CHARACTERS = 200


@dataclass(frozen=True)
class Upload:
    """One image file: its name as the client gave it, shortened, and its bytes."""

    name: str
    data: bytes


class Budget:
    """Bytes of uploads in memory, over all requests.

    Parameters
    ----------
    most : int
        Bytes.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.held = 0

    def take(self, n_bytes: int) -> None:
        """Hold more bytes.

        Raises
        ------
        Refused
            503: other requests hold too many.
        """
        if self.held + n_bytes > self._most:
            raise Refused(
                503, "Overloaded: uploads fill the memory set aside for them.",
                todo="try again in 2 s", retry_s=2,
            )  # fmt: skip
        self.held += n_bytes

    @contextmanager
    def released(self) -> Iterator[Held]:
        """Give what counts one request's bytes, and release them at the end of the block."""
        held = Held(self)
        try:
            yield held
        finally:
            self.held -= held.n_bytes


class Held:
    """Counts the bytes of one request."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.n_bytes = 0

    def take(self, n_bytes: int) -> None:
        """Hold more bytes; raises as :meth:`Budget.take`."""
        self._budget.take(n_bytes)
        self.n_bytes += n_bytes


async def read_uploads(
    headers: Any, chunks: AsyncIterator[bytes], limits: Limits, held: Held
) -> list[Upload]:
    """Read the images of a request.

    Parameters
    ----------
    headers : mapping
        Of the request, case-insensitive.
    chunks : async iterator of bytes
        Its body.
    limits : Limits
        Bytes, files, parts, seconds.
    held : counter of bytes
        From :meth:`Budget.released`.

    Returns
    -------
    list of Upload
        At least one.

    Raises
    ------
    Refused
        400 (malformed, no image), 408 (too slow), 413 (too large, too many), 415 (of another
        type), 503 (no memory for it now).
    """
    length = headers.get("content-length", "")
    if length.isdecimal() and int(length[:20]) > limits.request_bytes:
        raise _too_large(f"The body is of {int(length[:20]):,} bytes.", limits.request_bytes)
    if headers.get("content-encoding", "identity").strip().lower() not in ("identity", ""):
        raise Refused(415, "The body is compressed.", expected="a body as it is")
    given = headers.get("content-type", "")
    kind, options = parse_options_header(given)
    media = kind.decode("latin-1").lower()
    try:
        async with asyncio.timeout(limits.body_s):
            if media == _MULTIPART:
                boundary = options.get(b"boundary", b"")
                if not re.fullmatch(rb"[ -~]{0,69}[!-~]", boundary):
                    raise Refused(400, "The body has no boundary.", expected=_EXPECTED)
                return await _multipart(boundary, _bounded(chunks, limits, held), limits)
            if media in ("", _RAW) or media.startswith("image/"):
                return [await _raw(_bounded(chunks, limits, held), limits)]
    except TimeoutError:
        raise Refused(
            408, f"The body did not arrive within {limits.body_s:g} s.",
            expected="a client that sends what it announces",
        ) from None  # fmt: skip
    raise Refused(415, f"A body of type {given[:80]!r}.", expected=_EXPECTED)


async def _bounded(
    chunks: AsyncIterator[bytes], limits: Limits, held: Held
) -> AsyncIterator[bytes]:
    async for chunk in chunks:
        held.take(len(chunk))
        if held.n_bytes > limits.request_bytes:
            raise _too_large("The body is too large.", limits.request_bytes)
        yield chunk


def _too_large(found: str, most: int) -> Refused:
    return Refused(413, found, expected=f"at most {most:,} bytes")


async def _raw(chunks: AsyncIterator[bytes], limits: Limits) -> Upload:
    data = bytearray()
    async for chunk in chunks:
        data += chunk
        if len(data) > limits.image_bytes:
            raise _too_large("The image is too large.", limits.image_bytes)
    if not data:
        raise Refused(400, "The body is empty.", expected=_EXPECTED)
    return Upload("image", bytes(data))


async def _multipart(boundary: bytes, chunks: AsyncIterator[bytes], limits: Limits) -> list[Upload]:
    form = _Form(limits)
    parser = MultipartParser(boundary, form.callbacks())  # type: ignore[arg-type]
    try:
        async for chunk in chunks:
            parser.write(chunk)
        parser.finalize()
    except MultipartParseError as error:
        raise Refused(400, f"The body is malformed: {error}.", expected=_EXPECTED) from error
    if not form.complete:
        raise Refused(400, "The body ends before its last boundary.", expected=_EXPECTED)
    if not form.uploads:
        raise Refused(400, "The body has no file.", expected=_EXPECTED)
    return form.uploads


class _Form:
    """Collects the files of a multipart body; other fields are read over."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._n_parts = 0
        self._n_header_bytes = 0
        self._field = self._value = b""
        self._headers: dict[bytes, bytes] = {}
        self._name: str | None = None
        self._data = bytearray()
        self.uploads: list[Upload] = []
        self.complete = False

    def callbacks(self) -> dict[str, Any]:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._on_field,
            "on_header_value": self._on_value,
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers_finished,
            "on_part_data": self._on_data,
            "on_part_end": self._end,
            "on_end": self._on_end,
        }

    def _begin(self) -> None:
        self._n_parts += 1
        if self._n_parts > self._limits.parts:
            raise Refused(
                413, "The body has too many parts.", expected=f"at most {self._limits.parts}"
            )
        self._headers, self._n_header_bytes, self._data = {}, 0, bytearray()

    def _header_bytes(self, n_bytes: int) -> None:
        self._n_header_bytes += n_bytes
        if self._n_header_bytes > self._limits.part_header_bytes:
            raise _too_large("The headers of a part are too large.", self._limits.part_header_bytes)

    def _on_field(self, data: bytes, start: int, end: int) -> None:
        self._header_bytes(end - start)
        self._field += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._header_bytes(end - start)
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        self._headers.setdefault(self._field.lower(), self._value)
        self._field = self._value = b""

    def _on_headers_finished(self) -> None:
        kind, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        if kind != b"form-data" or b"name" not in options:
            raise Refused(
                400, "A part has no name.", expected='Content-Disposition: form-data; name="images"'
            )
        self._name = None
        if b"filename" in options or b"filename*" in options:
            if len(self.uploads) >= self._limits.files:
                raise Refused(
                    413, "The body has too many files.", expected=f"at most {self._limits.files}"
                )
            given = options.get(b"filename", b"").decode("utf-8", "replace")
            self._name = _shown(given) or f"image {len(self.uploads) + 1}"

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        if self._name is None:
            return
        self._data += data[start:end]
        if len(self._data) > self._limits.image_bytes:
            raise _too_large(f"{self._name} is too large.", self._limits.image_bytes)

    def _end(self) -> None:
        if self._name is not None:
            self.uploads.append(Upload(self._name, bytes(self._data)))
        self._data = bytearray()

    def _on_end(self) -> None:
        self.complete = True


def _shown(name: str) -> str:
    """Give the last part of a client's file name, without what cannot be shown."""
    last = re.split(r"[/\\]", name)[-1]
    return "".join(c for c in last if c.isprintable())[:_NAME_CHARACTERS].strip()
