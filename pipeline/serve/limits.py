"""What a server takes from strangers: sizes, counts, times; beyond them it answers 4xx or 503."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of one server.

    Attributes
    ----------
    image_bytes, request_bytes : int
        Largest image file, and largest body of a request.
    pixels : int
        Largest width x height that is decoded.
    files, parts : int
        Most images, and most parts of any kind, in a multipart body.
    part_header_bytes, head_bytes : int
        Headers of one part; request line and headers of a request.
    head_s, body_s, decode_s : float
        Seconds in which a request's head, its body, and the decoding of an image must be done.
    waiting : int
        Most images that are accepted and not answered yet, over all requests.
    held_bytes : int
        Most bytes of uploads in memory, over all requests.
    connections : int
        Most open connections.
    watch_s : float
        Seconds between looks at the runs' files.
    """

    image_bytes: int = 32_000_000
    request_bytes: int = 128_000_000
    pixels: int = 50_000_000
    files: int = 64
    parts: int = 128
    part_header_bytes: int = 8192
    head_bytes: int = 32_768
    head_s: float = 10.0
    body_s: float = 30.0
    decode_s: float = 10.0
    waiting: int = 256
    held_bytes: int = 256_000_000
    connections: int = 512
    watch_s: float = 2.0


class Refused(Exception):
    """A request, or an image, that is answered with an error status.

    Parameters
    ----------
    status : int
        HTTP status, 4xx or 503.
    found, expected, todo : str
        As in :class:`cnn_codes.errors.PipelineError`.
    retry_s : int
        Seconds for Retry-After; 0: none.
    """

    def __init__(
        self, status: int, found: str, *, expected: str = "", todo: str = "", retry_s: int = 0
    ) -> None:
        super().__init__(found)
        self.status = status
        self.found = found
        self.expected = expected
        self.todo = todo
        self.retry_s = retry_s
        self.closes = False  # whether the connection ends with it, the rest of a body unread

    def body(self) -> dict[str, str]:
        """Give the JSON of the answer."""
        named = {"error": self.found, "expected": self.expected, "next": self.todo}
        return {name: text for name, text in named.items() if text}
