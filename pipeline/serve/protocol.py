"""uvicorn's HTTP protocol with limits on what comes before a request: seconds, bytes, connections.

uvicorn waits without end for the head of a first request, and httptools sets no limit to its size.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from .limits import Limits


def limited(limits: Limits) -> type[HttpToolsProtocol]:
    """Give the protocol class with these limits."""

    class Limited(HttpToolsProtocol):
        _timer: asyncio.TimerHandle | None = None
        _head_bytes = 0
        _n_heads = 0
        _in_head = True

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if len(self.connections) > limits.connections:
                self._refuse(503, "Too many connections.", retry_s=1)
                return
            self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            self._unwatch()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if self.transport.is_closing():
                return
            if self._timer is None and self._in_head:  # a further request on the connection
                self._watch()
            n_heads, was_in_head = self._n_heads, self._in_head
            super().data_received(data)
            if was_in_head and n_heads == self._n_heads:  # all of it belongs to one head
                self._head_bytes += len(data)
                if self._head_bytes > limits.head_bytes and not self.transport.is_closing():
                    self._refuse(431, "The head of the request is too large.")

        def on_headers_complete(self) -> None:
            self._unwatch()
            self._in_head = False
            self._n_heads += 1
            self._head_bytes = 0
            super().on_headers_complete()

        def on_message_complete(self) -> None:
            super().on_message_complete()
            self._in_head = True

        def _watch(self) -> None:
            self._timer = self.loop.call_later(limits.head_s, self._late)

        def _unwatch(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _late(self) -> None:
            self._timer = None
            if not self.transport.is_closing():
                self._refuse(408, f"No request within {limits.head_s:g} s.")

        def _refuse(self, status: int, text: str, *, retry_s: int = 0) -> None:
            body = json.dumps({"error": text}).encode()
            retry = f"retry-after: {retry_s}\r\n".encode() if retry_s else b""
            self.transport.write(
                STATUS_LINE[status] + b"content-type: application/json\r\n" + retry
                + b"connection: close\r\ncontent-length: " + str(len(body)).encode()
                + b"\r\n\r\n" + body
            )  # fmt: skip
            self._unwatch()
            self.transport.close()

    return Limited
