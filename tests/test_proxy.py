"""Nobody at the other end: an error within half a minute that names the proxy and the file."""

import re
import socket
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import cnn_codes.datasets.download as download_module
import pytest
from cnn_codes.backbones.hub import fetch_timm, fetch_url
from cnn_codes.datasets.download import check_reachable, download
from cnn_codes.datasets.proxy import open_url, proxy_of, reach
from cnn_codes.datasets.registry import locate
from cnn_codes.errors import DownloadError
from conftest import Inside

VARIABLES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
ADDRESS = "https://example.invalid/weights/net-0123456789ab.pth"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setattr(download_module, "TIMEOUT_S", 0.2)
    monkeypatch.setattr(download_module, "SILENCE_S", 0.5)
    monkeypatch.setattr(download_module, "BACKOFF_S", 0.01)


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Give a port that takes connections and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(50)
        yield int(server.getsockname()[1])


@pytest.fixture(params=["closed", "silent"])
def dead(request: pytest.FixtureRequest, silent_port: int) -> str:
    port = closed_port() if request.param == "closed" else silent_port
    return f"http://user:secret@127.0.0.1:{port}"


def hub(folder: Path) -> Path:
    config = SimpleNamespace(hf_hub_id="timm/resnet10t.c3_in1k", hf_hub_filename=None, url="")
    return fetch_timm(config, folder, offline=False, progress=lambda *_: None)


SOURCES = {
    "a file": lambda folder: download(ADDRESS, folder / "net.pth"),
    "torchvision": lambda folder: fetch_url(
        ADDRESS, folder, offline=False, progress=download_module.silent
    ),
    "the hub": hub,
    "a data set": lambda folder: locate("hotdog", folder, offline=False),
}


@pytest.mark.parametrize("variable", VARIABLES)
@pytest.mark.parametrize("source", SOURCES)
def test_a_dead_proxy_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dead: str, source: str, variable: str
) -> None:
    monkeypatch.setenv(variable, dead)
    if source == "a data set":
        monkeypatch.setenv("HTTP_PROXY" if variable.isupper() else "http_proxy", dead)
    began = time.monotonic()
    with pytest.raises(DownloadError) as caught:
        SOURCES[source](tmp_path)
    assert time.monotonic() - began < 10
    said = f"{caught.value.found} {caught.value.todo}"
    assert f"the proxy http://{dead.partition('@')[2]} (" in said
    assert "secret" not in said
    assert re.search(r"put it at|put the file|WEIGHTS=<that file>", said)
    assert "https://" in caught.value.todo or "http://" in caught.value.todo


def test_an_address_without_a_proxy_is_named_by_itself(tmp_path: Path, silent_port: int) -> None:
    url = f"http://127.0.0.1:{silent_port}/set.zip"
    with pytest.raises(DownloadError) as caught:
        download(url, tmp_path / "set.zip")
    assert url in caught.value.found
    assert "proxy" not in str(caught.value)
    assert str(tmp_path / "set.zip") in caught.value.todo


def test_hosts_of_no_proxy_are_reached_directly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    assert proxy_of(ADDRESS) is not None
    monkeypatch.setenv("NO_PROXY", "example.invalid,localhost")
    assert proxy_of(ADDRESS) is None
    assert reach(ADDRESS) == "example.invalid"
    monkeypatch.setenv("NO_PROXY", "*")
    assert proxy_of("https://elsewhere.invalid/x") is None


def test_a_kind_of_proxy_that_is_not_spoken_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5h://127.0.0.1:1080")
    with pytest.raises(DownloadError, match="socks5h"):
        open_url(urllib.request.Request(ADDRESS), 1)


def test_a_tunnel_that_is_refused_is_no_answer_of_the_server(
    monkeypatch: pytest.MonkeyPatch, dead: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", dead)
    with pytest.raises(DownloadError, match=r"through the proxy http://127"):
        check_reachable(ADDRESS, todo="put it there")


def test_offline_asks_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: Inside
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    done = inside("features", data="hotdog", offline=1)
    assert done.returncode == 2
    assert "OFFLINE=1" in done.stderr
    config = SimpleNamespace(hf_hub_id="timm/none", hf_hub_filename=None, url="")
    with pytest.raises(DownloadError, match="OFFLINE=1"):
        fetch_timm(config, tmp_path, offline=True, progress=lambda *_: None)


@pytest.mark.slow
def test_half_a_minute_is_enough_with_the_usual_patience(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, silent_port: int
) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{silent_port}")
    for source in ("torchvision", "the hub"):
        began = time.monotonic()
        with pytest.raises(DownloadError):
            SOURCES[source](tmp_path)
        assert time.monotonic() - began < 30
