"""Downloads, against a real server of ours that behaves as badly as real ones."""

import hashlib
import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cnn_codes.datasets import download as download_module
from cnn_codes.datasets.download import download
from cnn_codes.errors import DataError, DownloadError, NoSpaceError

DATA = random.Random(0).randbytes(700_000)
OTHER = random.Random(1).randbytes(700_000)
SHA256 = "sha256:" + hashlib.sha256(DATA).hexdigest()
SHA1 = "sha1:" + hashlib.sha1(DATA).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves `data`; what goes wrong is set on it, and what it was asked is kept."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.data = DATA
        self.etag = '"one"'
        self.modified = ""
        self.cut_after = 0  # bytes of the body after which the connection ends; 0: never
        self.cuts = 10**9  # how often
        self.ranges = True  # honour Range
        self.if_range = True  # honour If-Range
        self.length = True  # say Content-Length
        self.answers: list[int] = []  # status codes to give first
        self.delay_s = 0.0  # a block of 16 kB
        self.redirect = ""
        self.asked: list[str] = []  # the Range of every request
        self.url = f"http://127.0.0.1:{self.server_address[1]}/set.zip"

    def handle_error(self, request, client_address) -> None:
        pass  # the client hung up: a test wants it so


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *args) -> None:
        pass

    def do_GET(self) -> None:
        server = self.server
        asked = self.headers.get("Range", "")
        server.asked.append(asked)
        if server.answers and (code := server.answers.pop(0)) != 200:
            self.send_response(code)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if server.redirect:
            self.send_response(302)
            self.send_header("Location", server.redirect)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        data, start = server.data, 0
        same = self.headers.get("If-Range") in (server.etag, server.modified)
        if asked and server.ranges and (same or not server.if_range):
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(data):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(data)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        else:
            self.send_response(200)
        if server.etag:
            self.send_header("ETag", server.etag)
        if server.modified:
            self.send_header("Last-Modified", server.modified)
        if server.length:
            self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        body = data[start:]
        if server.cut_after and server.cuts > 0:
            server.cuts -= 1
            body = body[: server.cut_after]
        for at in range(0, len(body), 16_384):
            self.wfile.write(body[at : at + 16_384])
            self.wfile.flush()
            time.sleep(server.delay_s)
        self.close_connection = True


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download_module, "BACKOFF_S", 0.001)
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


class Count:
    """A progress that adds up what it is told."""

    def __init__(self) -> None:
        self.totals: list[int] = []
        self.done = 0

    def __call__(self, label, total, unit):
        assert unit == "B"
        self.totals.append(total)
        self.done = 0
        return self

    def advance(self, n=1):
        self.done += n

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        pass


def hidden(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.endswith(".lock")}


@pytest.mark.parametrize("checksum", [None, SHA256, SHA1, SHA256.removeprefix("sha256:")[:8]])
def test_the_file_arrives_whole_with_progress_in_bytes(server, tmp_path, checksum):
    count = Count()
    target = download(server.url, tmp_path / "new" / "set.zip", checksum=checksum, progress=count)
    assert target.read_bytes() == DATA
    assert count.totals == [len(DATA)]
    assert count.done == len(DATA)
    assert hidden(tmp_path / "new") == {"set.zip"}


def test_a_file_that_is_there_is_not_asked_for(server, tmp_path):
    (tmp_path / "set.zip").write_bytes(b"mine")
    assert download(server.url, tmp_path / "set.zip").read_bytes() == b"mine"
    assert server.asked == []


def test_offline_asks_for_nothing(server, tmp_path):
    with pytest.raises(DownloadError, match="OFFLINE=1"):
        download(server.url, tmp_path / "set.zip", offline=True)
    assert server.asked == []


def test_a_server_that_does_not_say_the_length_is_read_to_its_end(server, tmp_path):
    server.length = False
    download(server.url, tmp_path / "set.zip", checksum=SHA256)
    assert (tmp_path / "set.zip").read_bytes() == DATA


def test_cut_connections_are_continued_where_they_ended(server, tmp_path):
    server.cut_after = 150_000
    count = Count()
    download(server.url, tmp_path / "set.zip", checksum=SHA256, progress=count)
    assert (tmp_path / "set.zip").read_bytes() == DATA
    assert server.asked == ["", *(f"bytes={n}-" for n in (150_000, 300_000, 450_000, 600_000))]
    assert count.done == len(DATA)


def test_a_date_serves_where_there_is_no_strong_etag(server, tmp_path):
    server.cut_after, server.etag = 400_000, 'W/"weak"'
    server.modified = "Mon, 02 Nov 2026 10:00:00 GMT"
    download(server.url, tmp_path / "set.zip", checksum=SHA256)
    assert server.asked == ["", "bytes=400000-"]


def test_a_server_that_ignores_ranges_is_asked_from_the_start(server, tmp_path):
    server.cut_after, server.cuts, server.ranges = 300_000, 2, False
    download(server.url, tmp_path / "set.zip", checksum=SHA256)
    assert (tmp_path / "set.zip").read_bytes() == DATA
    assert len(server.asked) == 3


def test_without_any_mark_of_the_file_nothing_is_spliced(server, tmp_path):
    server.cut_after, server.cuts, server.etag = 300_000, 1, ""
    download(server.url, tmp_path / "set.zip")
    assert (tmp_path / "set.zip").read_bytes() == DATA
    assert server.asked == ["", ""]


@pytest.mark.parametrize("honest", [True, False])
def test_a_file_that_changed_between_two_tries_starts_anew(server, tmp_path, honest):
    """With If-Range honoured, and on a server that ignores it but names another ETag."""
    server.cut_after, server.cuts = 300_000, 10**9
    with pytest.raises(KeyboardInterrupt):
        download(server.url, tmp_path / "set.zip", progress=_Interrupt())
    server.data, server.etag, server.if_range, server.cut_after = OTHER, '"two"', honest, 0
    download(server.url, tmp_path / "set.zip")
    assert (tmp_path / "set.zip").read_bytes() == OTHER


class _Interrupt(Count):
    """Ctrl-C once 200 kB have come."""

    def advance(self, n=1):
        super().advance(n)
        if self.done > 200_000:
            raise KeyboardInterrupt


def test_two_spliced_files_are_caught_by_the_checksum_and_fetched_anew(server, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        download(server.url, tmp_path / "set.zip", progress=_Interrupt())
    part = tmp_path / ".set.zip.part"
    part.write_bytes(bytes(len(part.read_bytes())))
    download(server.url, tmp_path / "set.zip", checksum=SHA256)
    assert (tmp_path / "set.zip").read_bytes() == DATA
    assert server.asked[-1] == ""


def test_a_part_longer_than_the_file_starts_anew(server, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        download(server.url, tmp_path / "set.zip", progress=_Interrupt())
    (tmp_path / ".set.zip.part").write_bytes(bytes(len(DATA) + 5))
    download(server.url, tmp_path / "set.zip", checksum=SHA256)
    assert (tmp_path / "set.zip").read_bytes() == DATA


def test_a_part_of_another_address_is_not_continued(server, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        download(server.url, tmp_path / "set.zip", progress=_Interrupt())
    download(server.url + "?other", tmp_path / "set.zip", checksum=SHA256)
    assert server.asked == ["", ""]


@pytest.mark.parametrize("wanted", ["sha256:" + "0" * 64, "sha1:" + "1" * 40, "deadbeef"])
def test_a_wrong_checksum_names_both_and_keeps_nothing(server, tmp_path, wanted):
    with pytest.raises(DownloadError) as caught:
        download(server.url, tmp_path / "set.zip", checksum=wanted)
    actual = SHA1 if wanted.startswith("sha1") else SHA256
    assert actual in caught.value.found
    assert wanted in caught.value.expected
    assert hidden(tmp_path) == set()


def test_a_checksum_that_was_not_known_is_pinned_and_demanded(server, tmp_path):
    pins = tmp_path / "pins.json"
    download(server.url, tmp_path / "a.zip", pins=pins)
    download(server.url + "?2", tmp_path / "b.zip", pins=pins)
    assert json.loads(pins.read_text()) == {server.url: SHA256, server.url + "?2": SHA256}
    server.data = OTHER
    (tmp_path / "a.zip").unlink()
    with pytest.raises(DownloadError) as caught:
        download(server.url, tmp_path / "a.zip", pins=pins)
    assert SHA256 in caught.value.expected
    assert str(pins) in caught.value.todo
    assert not (tmp_path / "a.zip").exists()
    pins.write_text("{broken")
    with pytest.raises(DownloadError, match="damaged"):
        download(server.url, tmp_path / "a.zip", pins=pins)


@pytest.mark.parametrize("code", [404, 403, 410])
def test_what_is_not_there_is_not_asked_for_twice(server, tmp_path, code):
    server.answers = [code]
    with pytest.raises(DownloadError, match=f"answers {code}"):
        download(server.url, tmp_path / "set.zip")
    assert len(server.asked) == 1


@pytest.mark.parametrize("code", [500, 503, 429])
def test_a_server_in_trouble_is_asked_again(server, tmp_path, code):
    server.answers = [code, code]
    download(server.url, tmp_path / "set.zip", checksum=SHA256)
    assert len(server.asked) == 3


@pytest.mark.parametrize("trouble", ["500", "cut", "416", "nobody"])
def test_tries_without_progress_are_bounded(server, tmp_path, trouble):
    url = server.url
    if trouble == "cut":
        server.cut_after, server.cuts = 1000, 10**9
    elif trouble == "nobody":
        url = "http://127.0.0.1:9/set.zip"  # the discard port: refused
    else:
        server.answers = [int(trouble)] * 100
    with pytest.raises(DownloadError, match="5 tries without progress"):
        download(url, tmp_path / "set.zip")
    assert len(server.asked) <= 6


def test_a_silent_server_times_out(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download_module, "TIMEOUT_S", 0.05)
    server.delay_s = 0.3
    with pytest.raises(DownloadError, match="timed out"):
        download(server.url, tmp_path / "set.zip")


def test_other_schemes_are_refused(tmp_path):
    with pytest.raises(DownloadError, match="no web address"):
        download((tmp_path / "x").as_uri(), tmp_path / "set.zip")


def test_a_redirect_to_no_web_address_is_refused(server, tmp_path):
    server.redirect = "ftp://127.0.0.1/x"
    with pytest.raises(DownloadError):
        download(server.url, tmp_path / "set.zip")
    server.redirect = "file:///etc/passwd"
    with pytest.raises(DownloadError):
        download(server.url, tmp_path / "set.zip")
    assert hidden(tmp_path) == set()


def test_room_is_checked_before_the_first_byte(server, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("U", (), {"free": 1000})())
    with pytest.raises(NoSpaceError, match=r"set\.zip needs"):
        download(server.url, tmp_path / "set.zip")
    assert not (tmp_path / ".set.zip.part").exists()


def test_a_folder_that_cannot_be_made_is_answered(server, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError, match="in the way"):
        download(server.url, tmp_path / "file" / "set.zip")


FETCH = (
    "import sys\nfrom pathlib import Path\nfrom cnn_codes.datasets.download import download\n"
    "download(sys.argv[1], Path(sys.argv[2]))\n"
)


def fetching(server: Server, target: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", FETCH, server.url, target])


def test_killed_and_continued_it_is_the_same_file(server, tmp_path):
    server.delay_s = 0.02
    process = fetching(server, tmp_path / "set.zip")
    part = tmp_path / ".set.zip.part"
    while not part.exists() or part.stat().st_size < 200_000:
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    size = part.stat().st_size
    assert not (tmp_path / "set.zip").exists()
    server.delay_s = 0
    download(server.url, tmp_path / "set.zip", checksum=SHA256)
    assert server.asked == ["", f"bytes={size}-"]


def test_of_two_processes_one_fetches_and_both_have_it(server, tmp_path):
    server.delay_s = 0.01
    both = [fetching(server, tmp_path / "set.zip") for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert (tmp_path / "set.zip").read_bytes() == DATA
    assert server.asked == [""]
