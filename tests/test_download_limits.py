"""Servers that never end, lie or lead astray: the limits of a download."""

import hashlib
import json
import os
import shutil
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cnn_codes.backbones.hub import _within, fetch_url
from cnn_codes.datasets import download as download_module
from cnn_codes.datasets.download import download
from cnn_codes.errors import DownloadError
from cnn_codes.progress import silent

DATA = bytes(range(256)) * 1000
BLOCK = b"x" * 100_000


class Handler(BaseHTTPRequestHandler):
    """Answers as the test's own function does."""

    def log_message(self, *args) -> None:
        pass

    def do_GET(self) -> None:
        self.server.asked.append((self.path, dict(self.headers)))
        self.server.answer(self)
        self.close_connection = True

    do_HEAD = do_GET

    def give(self, code: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address) -> None:
        pass  # the client hung up: a test wants it so


@contextmanager
def serving(answer: Callable[[Handler], None], tls: ssl.SSLContext | None = None):
    server = Server(("127.0.0.1", 0), Handler)
    server.answer, server.asked = answer, []
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    server.url = f"http{'s' if tls else ''}://127.0.0.1:{server.server_address[1]}/a.zip"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def quick(monkeypatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download_module, "BACKOFF_S", 0.001)


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


@pytest.mark.parametrize("said", ["many", "-5", "1e6", "9" * 5000, "10, 20", "0x10", "12 bytes"])
def test_a_length_that_is_no_number_is_named(tmp_path, said):
    with serving(lambda one: one.give(200, DATA, Content_Length=said)) as server:
        with pytest.raises(DownloadError, match="Content-Length is no number") as found:
            download(server.url, tmp_path / "a.zip")
    assert len(str(found.value)) < 1000
    assert "a.zip" not in left(tmp_path)


def test_a_length_said_twice_alike_is_one(tmp_path):
    said = f"{len(DATA)}, {len(DATA)}"
    with serving(lambda one: one.give(200, DATA, Content_Length=said)) as server:
        assert download(server.url, tmp_path / "a.zip").read_bytes() == DATA


def test_a_file_that_says_too_much_is_refused_before_its_first_byte(tmp_path):
    with serving(lambda one: one.give(200, DATA, Content_Length=str(len(DATA)))) as server:
        with pytest.raises(DownloadError, match=r"has 256.0 kB|has 250 KiB|has "):
            download(server.url, tmp_path / "a.zip", most_bytes=len(DATA) - 1)
        assert left(tmp_path) == []
        download(server.url, tmp_path / "a.zip", most_bytes=len(DATA))


def endless(one: Handler) -> None:
    one.send_response(200)
    one.end_headers()
    for _ in range(1000):
        one.wfile.write(BLOCK)


def test_a_body_that_never_ends_is_given_up_at_the_cap(tmp_path):
    with serving(endless) as server:
        with pytest.raises(DownloadError, match="does not end"):
            download(server.url, tmp_path / "a.zip", most_bytes=1_000_000)
    assert left(tmp_path) == []


def test_a_trickle_is_given_up_in_time_and_kept(tmp_path):
    def trickle(one: Handler) -> None:
        one.send_response(200)
        one.send_header("ETag", '"a"')
        one.end_headers()
        for _ in range(1000):
            one.wfile.write(b"x")
            time.sleep(0.01)

    began = time.monotonic()
    with serving(trickle) as server, pytest.raises(DownloadError, match="took too long"):
        download(server.url, tmp_path / "a.zip", most_s=0.5)
    assert time.monotonic() - began < 5
    assert (tmp_path / ".a.zip.part").stat().st_size > 0


def parts(total: str, n_bytes: int) -> Callable[[Handler], None]:
    """Answer every request with a further part of a file that never ends."""

    def answer(one: Handler) -> None:
        asked = one.headers.get("Range", "").removeprefix("bytes=").rstrip("-")
        start = int(asked or 0)
        one.give(
            206 if asked or total == "unasked" else 200,
            BLOCK[:n_bytes],
            ETag='"a"',
            Content_Range=f"bytes {start}-{start + n_bytes - 1}/{total}",
            Content_Length=str(n_bytes if asked else n_bytes + 1),
        )

    return answer


@pytest.mark.parametrize("total", ["999999999999", "*", "unasked", "none"])
@pytest.mark.parametrize("n_bytes", [100_000, 10, 0])
def test_answers_of_206_without_end_end(tmp_path, total, n_bytes):
    with serving(parts(total, n_bytes)) as server:
        try:
            download(server.url, tmp_path / "a.zip", most_bytes=2_000_000, most_s=20)
        except DownloadError:
            assert "a.zip" not in left(tmp_path)
        else:  # nothing said how long it is: what came is what there is
            assert total in ("*", "none")
        assert len(server.asked) < 60


def test_a_part_that_ends_early_is_asked_for_further(tmp_path):
    def answer(one: Handler) -> None:
        start = int(one.headers.get("Range", "bytes=0-")[6:-1])
        end = min(start + 70_000, len(DATA))
        if start:
            where = f"bytes {start}-{end - 1}/{len(DATA)}"
            one.give(
                206, DATA[start:end], ETag='"a"', Content_Range=where,
                Content_Length=str(end - start),
            )  # fmt: skip
        else:
            one.give(200, DATA[:end], ETag='"a"', Content_Length=str(len(DATA)))

    with serving(answer) as server:
        assert download(server.url, tmp_path / "a.zip").read_bytes() == DATA
        assert len(server.asked) == 4


@pytest.fixture(scope="module")
def tls(tmp_path_factory) -> Iterator[tuple[ssl.SSLContext, Path]]:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
         "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", folder / "key.pem",
         "-out", folder / "cert.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context, folder / "cert.pem"


def test_no_hop_leaves_https(tmp_path, tls, monkeypatch):
    context, certificate = tls
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    ours = str(len(DATA))
    with serving(lambda one: one.give(200, DATA, Content_Length=ours), context) as last:
        to_last = serving(lambda one: one.give(302, Location=last.url, Content_Length="0"))
        with to_last as plain:
            assert download(plain.url, tmp_path / "plain.zip").read_bytes() == DATA  # http, https
            back = serving(
                lambda one: one.give(302, Location=plain.url, Content_Length="0"), context
            )
            with back as first:  # https, http, https: the last address alone looks sound
                with pytest.raises(DownloadError, match="not encrypted"):
                    download(first.url, tmp_path / "a.zip")
        assert len(plain.asked) == 1
    assert left(tmp_path) == ["plain.zip"]


def test_proxies_of_the_environment_are_used(tmp_path, monkeypatch):
    with serving(lambda one: one.give(200, DATA, Content_Length=str(len(DATA)))) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.removesuffix("/a.zip"))
        monkeypatch.setenv("no_proxy", "localhost")
        download("http://data.example/set.zip", tmp_path / "a.zip")
        ((path, _),) = proxy.asked
        assert path == "http://data.example/set.zip"


def test_eight_digits_become_all_after_the_first_use(tmp_path):
    digest = hashlib.sha256(DATA).hexdigest()
    with serving(lambda one: one.give(200, DATA, Content_Length=str(len(DATA)))) as server:
        url = server.url.replace("a.zip", f"net-{digest[:8]}.pth")
        path = fetch_url(url, tmp_path, offline=False, progress=silent)
        pins = json.loads((tmp_path / "checksums.json").read_text())
        assert pins == {url: f"sha256:{digest}"}
        (tmp_path / "checksums.json").write_text(
            json.dumps({url: "sha256:" + digest[:8] + "0" * 56})
        )
        with pytest.raises(DownloadError, match="that of the first download here"):
            fetch_url(url, tmp_path, offline=False, progress=silent)
        assert not path.exists()
        (tmp_path / "checksums.json").unlink()
        path.write_bytes(DATA)  # of an earlier version, which kept eight digits
        fetch_url(url, tmp_path, offline=True, progress=silent)
        assert json.loads((tmp_path / "checksums.json").read_text()) == pins


def test_a_client_without_an_end_of_its_own_is_given_up():
    with pytest.raises(DownloadError, match="not fetched within 50 ms"):
        _within(0.05, "net", lambda: time.sleep(5))
    with pytest.raises(FileNotFoundError, match="net"):
        _within(5, "net", lambda: Path("/nowhere/net").stat())
    assert _within(5, "net", lambda: 7) == 7


HUB = """
import os, sys
from pathlib import Path
from cnn_codes.backbones import hub
from cnn_codes.backbones.hub import _from_hub
from cnn_codes.errors import PipelineError
hub._MOST_S = float(os.environ["MOST_S"])
try:
    print(_from_hub("some/net", "model.safetensors", Path(sys.argv[1]), offline=False))
except PipelineError as error:
    print("REFUSED", error)
"""


@pytest.mark.slow  # five processes that load torch
def test_hugging_face_stays_at_the_commit_of_the_first_use(tmp_path):
    served = {"main": ("a" * 40, b"first"), "a" * 40: ("a" * 40, b"first")}
    told = {"size": 0, "slow": 0}

    def answer(one: Handler) -> None:
        revision = one.path.split("/resolve/")[1].split("/")[0]
        commit, data = served[revision]
        if told["slow"] and one.command == "GET":
            one.send_response(200)
            one.send_header("Content-Length", "1000")
            one.end_headers()
            for _ in range(1000):
                one.wfile.write(b"x")
                time.sleep(0.1)
        digest = hashlib.sha256(data).hexdigest()
        one.give(
            200, data, Content_Length=str(told["size"] or len(data)), ETag=f'"{digest}"',
            X_Linked_ETag=f'"{digest}"', X_Repo_Commit=commit,
            X_Linked_Size=str(told["size"] or len(data)),
        )  # fmt: skip

    def fetch(folder: Path) -> str:
        env = os.environ | {"HF_ENDPOINT": server.url.removesuffix("/a.zip"),
                            "HF_HUB_DISABLE_XET": "1",
                            "MOST_S": "2" if told["slow"] else "300"}  # fmt: skip
        line = [sys.executable, "-c", HUB, str(folder)]
        done = subprocess.run(line, capture_output=True, text=True, env=env, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    with serving(answer) as server:
        told["size"] = 60 << 30
        assert "REFUSED model.safetensors of some/net has 6" in fetch(tmp_path / "large")
        told["size"] = 0
        told["slow"] = 1
        assert "was not fetched within 2.0 s" in fetch(tmp_path / "slow")
        told["slow"] = 0
        assert Path(fetch(tmp_path / "hub")).read_bytes() == b"first"
        pins = (tmp_path / "hub" / "checksums.json").read_text()
        served["main"] = ("b" * 40, b"second")
        (tmp_path / "new").mkdir()
        (tmp_path / "new" / "checksums.json").write_text(pins)
        assert Path(fetch(tmp_path / "new")).read_bytes() == b"first"
        shutil.rmtree(tmp_path / "new" / "models--some--net")
        served["a" * 40] = ("a" * 40, b"forged")
        assert "REFUSED" in fetch(tmp_path / "new")
