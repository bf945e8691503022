"""Who may ask: the token, the Host and Origin of a request, and what every answer forbids.

A page from elsewhere can make a browser send requests to 127.0.0.1. Requests whose Host is not
this server's own name (DNS rebinding), and changes whose Origin is another, are refused.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

COOKIE = "cnn-codes-token"
POLICY = (
    "default-src 'none'; img-src 'self' blob: data:; media-src blob:; style-src 'self'; "
    "script-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
_HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(self), microphone=(), geolocation=()"),
)
_LOCAL = ("127.0.0.1", "localhost", "::1")
_OPEN = ("/healthz", "/readyz")  # for whoever watches the server: they say nothing of it
_MOST_FORM_BYTES = 4096


class Guard:
    """ASGI middleware.

    Parameters
    ----------
    app : ASGI application
    host : str
        What the server is bound to.
    token : str
        Empty: none is asked for.
    """

    def __init__(self, app: Any, *, host: str, token: str) -> None:
        self._app = app
        self._names = (*_LOCAL, host) if host in _LOCAL else ()
        self._token = token
        self._cookie = hashlib.sha256(f"cookie {token}".encode()).hexdigest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass the request on."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def answered(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                there = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"], *(one for one in _HEADERS if one[0] not in there)
                ]  # fmt: skip
            await send(message)

        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        if self._foreign(scope, headers):
            await _problem(
                answered, 403, "This request comes from another site, or under another name.",
                "a request from this server's own page, or from a program",
            )  # fmt: skip
        elif not self._token or scope["path"] in _OPEN or self._knows(headers):
            await self._app(scope, receive, answered)
        elif scope["path"] == "/login" and scope["method"] == "POST":
            await self._login(receive, answered)
        elif scope["path"] == "/static/page.css" and scope["method"] == "GET":
            await self._app(scope, receive, answered)  # of the form that asks for the token
        elif "text/html" in headers.get(b"accept", "") and scope["method"] == "GET":
            await _answer(answered, 401, _FORM, "text/html; charset=utf-8")
        else:
            await _problem(
                answered, 401, "The token is missing or wrong.", "Authorization: Bearer TOKEN",
                headers=[(b"www-authenticate", b"Bearer")],
            )  # fmt: skip

    def _foreign(self, scope: Scope, headers: dict[bytes, str]) -> bool:
        host = headers.get(b"host", "")
        if self._names and _name(host) not in self._names:
            return True
        if scope["method"] in ("GET", "HEAD", "OPTIONS"):
            return False
        origin = headers.get(b"origin")
        if origin is not None:
            return urlsplit(origin).netloc.lower() != host.lower()
        return headers.get(b"sec-fetch-site", "none") not in ("none", "same-origin")

    def _knows(self, headers: dict[bytes, str]) -> bool:
        scheme, _, given = headers.get(b"authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return _same(given.strip(), self._token)
        try:
            cookies = SimpleCookie(headers.get(b"cookie", ""))
        except CookieError:
            return False
        return COOKIE in cookies and _same(cookies[COOKIE].value, self._cookie)

    async def _login(self, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more and len(body) <= _MOST_FORM_BYTES:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
        given = parse_qs(body[:_MOST_FORM_BYTES].decode("utf-8", "replace")).get("token", [""])[0]
        if more or not _same(given.strip(), self._token):
            form = _FORM.replace("<!--wrong-->", '<p role="alert">That is not the token.</p>')
            await _answer(send, 401, form, "text/html; charset=utf-8")
            return
        cookie = f"{COOKIE}={self._cookie}; Path=/; HttpOnly; SameSite=Strict; Max-Age=2592000"
        await _answer(
            send, 303, "", "text/plain", [(b"location", b"/"), (b"set-cookie", cookie.encode())]
        )


def _name(host: str) -> str:
    """Give the name in a Host header, without its port."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())


async def _answer(
    send: Send, status: int, text: str, kind: str, headers: list[tuple[bytes, bytes]] | None = None
) -> None:
    body = text.encode()
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [
                (b"content-type", kind.encode()),
                (b"content-length", str(len(body)).encode()),
                (b"cache-control", b"no-store"),
                *(headers or []),
            ],
        }
    )
    await send({"type": "http.response.body", "body": body})


async def _problem(
    send: Send,
    status: int,
    found: str,
    expected: str,
    headers: list[tuple[bytes, bytes]] | None = None,
) -> None:
    text = json.dumps({"error": found, "expected": expected})
    await _answer(
        send, status, text, "application/json", [(b"connection", b"close"), *(headers or [])]
    )


_FORM = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Token</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="stylesheet" href="/static/page.css"></head>
<body><main class="page narrow"><header><h1>Token</h1></header>
<!--wrong-->
<form method="post" action="/login"><p><label for="token">The token that the server was started
with (TOKEN=)</label></p>
<p><input id="token" name="token" type="password" autocomplete="current-password" required
autofocus> <button>Open</button></p></form></main></body></html>
"""
