"""The proxy between this machine and an address, as the environment names it.

The standard library knows HTTP_PROXY, HTTPS_PROXY and NO_PROXY, not ALL_PROXY, which curl and other
Python clients follow; so one rule stands here for all downloads.
"""

from __future__ import annotations

import os
import urllib.request
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

from ..errors import DownloadError


@dataclass(frozen=True)
class Proxy:
    """A proxy.

    Attributes
    ----------
    address : str
        With user and password, where it has such.
    variable : str
        The variable of the environment that names it; empty where the system does.
    """

    address: str
    variable: str

    def __str__(self) -> str:
        """Name it without user and password."""
        parts = urlsplit(self.address if "//" in self.address else f"//{self.address}")
        shown = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
        where = f" ({self.variable})" if self.variable else ""
        return f"the proxy {shown.removeprefix('//')}{where}"


def proxy_of(url: str) -> Proxy | None:
    """Give the proxy that `url` is fetched through; None for a direct connection."""
    parts = urlsplit(url)
    if not parts.hostname or urllib.request.proxy_bypass(parts.hostname):
        return None
    known = urllib.request.getproxies()
    for scheme in (parts.scheme, "all"):
        if address := known.get(scheme):
            names = (f"{scheme}_proxy", f"{scheme.upper()}_PROXY")
            variable = next((name for name in names if os.environ.get(name)), "")
            return Proxy(address, variable)
    return None


def reach(url: str) -> str:
    """Say how `url` is reached, for messages: its host, and the proxy where there is one."""
    proxy, host = proxy_of(url), urlsplit(url).hostname or url
    return f"{host} through {proxy}" if proxy else host


def open_url(
    request: urllib.request.Request, timeout_s: float, *handlers: urllib.request.BaseHandler
) -> object:
    """Open an address through its proxy, if any; `handlers` are urllib's, such as of redirects.

    Raises
    ------
    DownloadError
        A kind of proxy that the standard library cannot speak to (SOCKS).
    OSError, http.client.HTTPException
        As :func:`urllib.request.urlopen`.
    """
    proxy = proxy_of(request.full_url)
    if proxy is None:
        handler = urllib.request.ProxyHandler({})
    else:
        scheme = urlsplit(proxy.address).scheme if "//" in proxy.address else "http"
        if scheme not in ("http", "https"):
            raise DownloadError(
                f"{request.full_url} is to be fetched through {proxy}, which is of a kind "
                f"({scheme}) that is not supported.",
                expected="an HTTP proxy: HTTPS_PROXY=http://host:port",
                todo="name an HTTP proxy, except this host with NO_PROXY, or fetch the file with "
                "another program and put it where it belongs",
            )
        handler = urllib.request.ProxyHandler({"http": proxy.address, "https": proxy.address})
    return urllib.request.build_opener(handler, *handlers).open(request, timeout=timeout_s)
