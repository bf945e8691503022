"""The server: what it answers, whom it lets in, and that nothing a stranger sends ends it."""

import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import ROOT
from pictures import claiming_png, damaged, encoded, jpeg, photo
from threadpoolctl import threadpool_info

pytest.importorskip("fastapi", reason="the extra 'serve' is not installed")

from cnn_codes.errors import SettingsError
from cnn_codes.predict import Classifier
from cnn_codes.serve.models import named_runs
from cnn_codes.serve.running import check_access
from serving import BOUNDARY, Client, Trained, form, serving

KIND = f"multipart/form-data; boundary={BOUNDARY}"
TOKEN = "a-token-of-some-length"


@pytest.fixture(scope="module")
def trained(tmp_path_factory, backbones) -> Trained:
    return Trained.make(tmp_path_factory.mktemp("serve"), backbones)


@pytest.fixture(scope="module")
def client(trained):
    with serving(trained) as one:
        yield one


def images(trained, n=4) -> list[tuple[str, bytes]]:
    paths = sorted(trained.data.rglob("*.jpg"))[:n]
    return [(path.name, path.read_bytes()) for path in paths]


def test_answers_are_those_of_the_classifier(client, trained):
    some = images(trained, 6)
    found = client.predict(*some, query="?nearest=3&top=1").json
    classifier = Classifier.load(trained.runs[0], cache=trained.cache, offline=True)
    wanted = classifier.predict_proba([data for _, data in some])
    assert [one["name"] for one in found["predictions"]] == [name for name, _ in some]
    for one, row in zip(found["predictions"], wanted, strict=True):
        assert [one["probabilities"][name] for name in found["classes"]] == pytest.approx(
            row.tolist(), abs=1e-6
        )
        assert one["predicted"] == found["classes"][int(row.argmax())]
        assert len(one["top"]) == 1
        assert len(one["nearest"]) == 3
    itself = found["predictions"][0]["nearest"][0]
    assert itself["distance"] == pytest.approx(0, abs=1e-4) or itself["distance"] > 0
    picture = client.get(itself["picture"])
    assert (picture.status, picture.headers["content-type"]) == (200, "image/webp")
    assert picture.body[8:12] == b"WEBP"


def test_where_a_class_is_seen_comes_as_a_picture(client, trained):
    _, data = images(trained, 1)[0]
    found = client("POST", "/explain?target=dog", data, Content_Type="image/jpeg")
    assert (found.status, found.headers["content-type"]) == (200, "image/png"), found.body
    assert found.body.startswith(b"\x89PNG")
    assert found.headers["x-method"]
    assert client("POST", "/explain?target=cow", data).status == 404
    assert client("POST", "/explain", b"no picture").status == 415


def test_one_image_as_raw_bytes_and_in_a_form_are_the_same(client, trained):
    name, data = images(trained, 1)[0]
    one = client("POST", "/predict", data, Content_Type="image/jpeg").json["predictions"][0]
    other = client.predict((name, data)).json["predictions"][0]
    assert one["probabilities"] == other["probabilities"]
    assert (one["name"], other["name"]) == ("image", name)


def test_blas_has_one_thread_since_more_would_spin_beside_the_network(client):
    found = [one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"]
    assert set(found) == {1}


def test_a_bad_image_among_good_ones_is_told_in_its_place(client, trained):
    good = images(trained, 2)
    found = client.predict(good[0], ("b.txt", b"no picture"), good[1])
    assert found.status == 200
    assert [one["status"] for one in found.json["predictions"]] == ["ok", "error", "ok"]
    assert "not an image" in found.json["predictions"][1]["error"]


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"hello", 415),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415),
        (b"%PDF-1.7", 415),
        (encoded(photo(1, (32, 32)), "ICO"), 415),
        (claiming_png(20_000, 20_000), 413),
        (claiming_png(9_000, 9_000), 413),  # under Pillow's limit, over the server's
        (jpeg(1)[:200], 422),
        (b"GIF89a" + b"\0" * 20, 422),
        (b"\xff\xd8\xff\xe0" + b"\0" * 100, 415),
    ],
)
def test_what_is_no_image_is_4xx(client, data, status):
    answer = client("POST", "/predict", data, Content_Type="image/jpeg")
    assert answer.status in (status, 415, 422) if status != 413 else answer.status == 413
    assert answer.json["error"]


def test_damaged_files_of_every_kind_are_4xx_and_the_server_goes_on(client, trained):
    files = damaged(64)
    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda one: client.predict(one).status, files))
    assert set(statuses) <= {413, 415, 422}
    assert client.predict(*images(trained, 1)).status == 200


def test_a_polyglot_is_taken_by_its_content_alone(client):
    data = jpeg(5) + b"<script>alert(1)</script>PK\x03\x04"
    answer = client.predict(("../../etc/x.html", data))
    assert answer.headers["content-type"] == "application/json"
    assert answer.json["predictions"][0]["name"] == "x.html"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nothing",
        b"--" + BOUNDARY.encode(),
        form(("a.jpg", b"x"))[:-10],
        form(("a.jpg", b"x")).replace(b"Content-Disposition", b"X"),
        form(("a.jpg", b"x")).replace(b"form-data", b"attachment"),
        form(("a.jpg", b"x")).replace(b'name="images"; ', b""),
        form(("a.jpg", b"x")).replace(b"\r\n", b"\n"),
        form(("a.jpg", b"x")).replace(b"Content-Type", b"\0\0"),
        form(),
        b"\0" * 5000,
    ],
)
def test_malformed_multipart_is_400(client, body):
    answer = client("POST", "/predict", body, Content_Type=KIND)
    assert answer.status == 400
    assert answer.json["error"]


def test_wrong_types_and_parameters_are_4xx(client):
    data = jpeg(1)
    ask = client
    assert ask("POST", "/predict", data, Content_Type="application/json").status == 415
    assert ask("POST", "/predict", data, Content_Type="multipart/form-data").status == 400
    assert ask("POST", "/predict", data, Content_Encoding="gzip").status == 415
    assert ask("POST", "/predict?nearest=99", data).status == 422
    assert ask("POST", "/predict?nearest=x", data).status == 422
    assert ask("POST", "/predict?run=other", data).status == 404
    assert ask("GET", "/predict").status == 405
    assert ask("GET", "/nothing").status == 404
    assert ask("GET", "/picture?path=../../../etc/passwd").status == 404
    assert ask("GET", "/picture?path=/etc/passwd").status == 404
    assert ask("GET", "/picture?path=cat/%00").status == 404
    assert ask("GET", "/static/../app.py").status == 404


def test_limits_of_bytes_parts_files_and_headers(trained):
    with serving(trained, image_bytes=20_000, request_bytes=50_000, files=3, parts=5) as client:
        small, large = jpeg(1), b"\xff\xd8" + b"x" * 30_000
        assert client.predict(*[("a.jpg", small)] * 3).status == 200
        assert client.predict(*[("a.jpg", small)] * 4).status == 413
        assert client.predict(("a.jpg", large)).status == 413
        assert client("POST", "/predict", large).status == 413
        assert client("POST", "/predict", b"x" * 60_000).status == 413
        field = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="n"\r\n\r\n1\r\n'.encode()
        body = field * 6 + form(("a.jpg", small))
        assert client("POST", "/predict", body, Content_Type=KIND).status == 413
        body = field * 2 + form(("a.jpg", small))
        assert client("POST", "/predict", body, Content_Type=KIND).status == 200
        head = form(("a" * 20_000, small))
        assert client("POST", "/predict", head, Content_Type=KIND).status in (400, 413)
        # Chunked, so that no length is announced.
        chunk = b"2000\r\n" + b"x" * 0x2000 + b"\r\n"
        found = client.raw(
            b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
            + chunk * 20
        )
        assert found.startswith(b"HTTP/1.1 413")
        found = client.raw(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 100_000)
        assert found.startswith(b"HTTP/1.1 4")
        assert client.raw(b"nonsense\r\n\r\n").startswith(b"HTTP/1.1 400")


def test_slow_clients_are_answered_408_while_others_are_served(trained):
    with serving(trained, head_s=1.0, body_s=1.5) as client:
        slow = [
            b"GET / HTTP/1.1\r\nHost: lo",
            b"",
            b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nabc",
            b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n",
        ]
        with ThreadPoolExecutor(len(slow)) as pool:
            waiting = [pool.submit(client.raw, data) for data in slow]
            assert client.predict(("a.jpg", jpeg(1))).status == 200
            assert all(one.result().startswith(b"HTTP/1.1 408") for one in waiting)
        drip = socket.create_connection(("127.0.0.1", client.port), timeout=10)
        began = time.monotonic()
        try:
            while time.monotonic() - began < 8:
                drip.sendall(
                    b"X-A: b\r\n" if time.monotonic() - began > 0.2 else b"GET / HTTP/1.1\r\n"
                )
                time.sleep(0.1)
        except OSError:
            pass
        assert time.monotonic() - began < 4
        drip.close()


def test_an_overloaded_server_says_when_to_try_again(trained):
    with serving(trained, waiting=8) as client:
        body = [("a.jpg", jpeg(i, (1500, 1500))) for i in range(4)]
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda _: client.predict(*body), range(32)))
        statuses = {one.status for one in answers}
        assert statuses == {200, 503}
        for one in answers:
            if one.status == 503:
                assert 1 <= int(one.headers["retry-after"]) <= 30
        assert client.hall.admission.n_waiting == 0
        assert client.hall.budget.held == 0
        assert client.predict(("a.jpg", jpeg(1))).status == 200


def test_uploads_never_fill_the_memory(trained):
    with serving(trained, held_bytes=300_000) as client:
        head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 250000\r\n\r\n"
        one = socket.create_connection(("127.0.0.1", client.port))
        one.sendall(head + b"x" * 200_000)
        for _ in range(100):
            if client.hall.budget.held >= 200_000:
                break
            time.sleep(0.02)
        answer = client("POST", "/predict", b"x" * 150_000)
        assert answer.status == 503
        assert answer.headers["retry-after"]
        one.close()
        for _ in range(100):
            if not client.hall.budget.held:
                break
            time.sleep(0.02)
        assert client.predict(("a.jpg", jpeg(1))).status == 200


def test_killed_decoders_lose_no_request(trained):
    """kill -9 of every worker, again and again, under load."""
    ending = threading.Event()
    with serving(trained) as client:
        data = jpeg(3, (400, 300))

        def ask() -> list[int]:
            found = []
            while not ending.is_set():
                found.append(client.predict(("a.jpg", data)).status)
            return found

        with ThreadPoolExecutor(6) as pool:
            asking = [pool.submit(ask) for _ in range(6)]
            killed: set[int] = set()
            for _ in range(200):
                time.sleep(0.2)
                for pid in [one for one in client.hall.decoder.pids if one not in killed][:1]:
                    os.kill(pid, signal.SIGKILL)
                    killed.add(pid)
                if len(killed) == 6:
                    break
            time.sleep(1)
            ending.set()
            statuses = [status for one in asking for status in one.result()]
        assert len(statuses) > 20
        lost = [status for status in statuses if status != 200]
        assert len(lost) <= 2  # an image is tried twice: it takes two kills to lose one
        assert set(lost) <= {422}
        assert client.hall.decoder.n_restarts >= 4
        assert client.predict(("a.jpg", data)).status == 200


def test_an_image_that_takes_too_long_is_refused_and_its_worker_replaced(trained):
    with serving(trained, decode_s=0.001) as client:
        assert client.predict(("a.jpg", jpeg(3, (3000, 3000)))).status == 422
        assert client.hall.decoder.n_restarts >= 1


def test_who_has_no_token_gets_nothing_but_health(trained):
    with serving(trained, token=TOKEN, host="0.0.0.0") as client:
        assert client.get("/healthz").status == 200
        for path in ("/runs", "/metrics", "/openapi.json", "/", "/picture?path=x"):
            assert client.get(path).status == 401
            assert client.get(path, Authorization="Bearer wrong").status == 401
        assert client.predict(("a.jpg", jpeg(1))).status == 401
        assert client.get("/runs", Authorization=f"Bearer {TOKEN}").status == 200
        assert client.predict(("a.jpg", jpeg(1)), Authorization=f"Bearer {TOKEN}").status == 200
        page = client.get("/", Accept="text/html")
        assert (page.status, b'name="token"' in page.body) == (401, True)
        kind = "application/x-www-form-urlencoded"
        assert client("POST", "/login", b"token=wrong", Content_Type=kind).status == 401
        entered = client("POST", "/login", f"token={TOKEN}".encode(), Content_Type=kind)
        cookie = entered.headers["set-cookie"]
        assert entered.status == 303
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert TOKEN not in cookie
        assert client.get("/", Cookie=cookie.partition(";")[0]).status == 200


def test_other_sites_and_other_names_are_refused(client):
    data = jpeg(1)
    assert client.get("/runs", Host="evil.example").status == 403
    assert client("POST", "/predict", data, Origin="http://evil.example").status == 403
    assert client("POST", "/predict", data, Sec_Fetch_Site="cross-site").status == 403
    assert client("POST", "/predict", data, Origin="null").status == 403
    own = f"http://127.0.0.1:{client.port}"
    assert client("POST", "/predict", data, Origin=own).status == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org"])
def test_a_server_that_others_can_reach_needs_a_token(host):
    with pytest.raises(SettingsError, match="TOKEN"):
        check_access(host, "")
    with pytest.raises(SettingsError, match="short"):
        check_access(host, "1234")
    check_access(host, TOKEN)
    for local in ("127.0.0.1", "localhost", "::1", "127.8.0.1"):
        check_access(local, "")


def test_every_answer_forbids_what_a_page_does_not_need(client):
    for path in ("/", "/runs", "/nothing", "/metrics", "/static/page.js"):
        headers = client.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
    page = client.get("/").body.decode()
    assert "http://" not in page.replace("http://HOST:PORT", "")
    assert "https://" not in page


def test_metrics_count_what_was_answered(trained):
    with serving(trained) as client:
        client.predict(*images(trained, 3), ("b.txt", b"no"))
        text = client.get("/metrics").body.decode()
        assert 'cnn_codes_images_total{run="pets",status="ok"} 3.0' in text
        assert 'cnn_codes_images_total{run="pets",status="error"} 1.0' in text
        assert 'cnn_codes_requests_total{path="/predict",status="200"} 1.0' in text
        assert "cnn_codes_ready 1.0" in text
        assert "cnn_codes_waiting_images 0.0" in text


def test_a_changed_run_is_loaded_without_a_restart(tmp_path, backbones):
    trained = Trained.make(tmp_path, backbones)
    path = trained.runs[0]
    name, data = images(trained, 1)[0]
    with serving(trained, watch_s=0.2) as client:
        before = client.predict((name, data)).json["predictions"][0]["probabilities"]
        record = path.with_name(path.name.replace(".model.json", ".json"))
        stash = {p: p.read_bytes() for p in path.parent.glob(record.stem + "*")}
        path.write_text("{}")  # damaged: the old one goes on answering
        time.sleep(1.5)
        now = client.predict((name, data))
        assert now.json["predictions"][0]["probabilities"] == before
        for one, content in stash.items():
            one.write_bytes(content)
        for image in trained.data.glob("cat/000*.jpg"):  # another data set: another head
            image.rename(trained.data / "dog" / f"moved-{image.name}")
        for one in stash:  # else the run of other labels would take another name
            one.unlink()
        trained.train()
        for _ in range(60):
            after = client.predict((name, data))
            assert after.status == 200
            if after.json["predictions"][0]["probabilities"] != before:
                break
            time.sleep(0.25)
        else:
            raise AssertionError("the new run was not loaded")
        text = client.get("/metrics").body
        assert re.search(rb'outcome="failed",run="pets"} [1-9]', text)
        assert b'outcome="loaded",run="pets"}' in text


def test_several_runs_by_name(trained):
    trained.train("softmax")
    svm, softmax = (next(p for p in trained.runs if p.name.startswith(m)) for m in ("svm", "soft"))
    with serving(trained, f"a={svm}", f"b={softmax}") as client:
        assert [one["name"] for one in client.get("/runs").json["runs"]] == ["a", "b"]
        one = images(trained, 1)[0]
        default, first, second = (
            client.predict(one, query=query).json for query in ("", "?run=a", "?run=b")
        )
        assert default == first
        assert second["run"] == "b"
        assert second["predictions"] != first["predictions"]


def test_a_run_of_several_layers_is_served_under_a_name_that_an_address_holds(tmp_path):
    (tmp_path / "x=y").mkdir()
    several, joined = tmp_path / "svm-blocks.1+final-center", tmp_path / "svm-a+b-final"
    equal, spaced = tmp_path / "x=y" / "knn", tmp_path / "my run (1)=c"
    for stem in (several, joined, equal, spaced):
        for suffix in (".model.json", ".safetensors"):
            stem.with_name(f"{stem.name}{suffix}").write_text("{}")
    found = named_runs([f"{several}.json", f"b={joined}.json"], tmp_path)
    assert list(found) == ["svm-blocks.1-final-center", "b"]
    found = named_runs([f"{equal}.json", f"c={equal}.json", str(spaced), "d=x=y/knn"], tmp_path)
    assert list(found) == ["knn", "c", "my-run-1-c", "d"]
    with pytest.raises(SettingsError, match=r"the name a\+b is not allowed"):
        named_runs([f"a+b={joined}.json"], tmp_path)


def test_what_was_accepted_is_answered_before_the_end(trained, tmp_path):
    """SIGTERM under load: every request that was accepted gets its answer; exit code 0."""
    line = [
        sys.executable, "-m", "pipeline", "serve", f"RUN={trained.runs[0]}", "PORT=0",
        f"CACHE={trained.cache}", f"RESULTS={trained.results}", "OFFLINE=1", "WORKERS=1",
    ]  # fmt: skip
    child = subprocess.Popen(line, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        address = child.stderr.readline()
        port = int(address.split("127.0.0.1:")[1].split("/")[0])
        client = Client(port)
        client.until_ready()
        body = form(*[("a.jpg", jpeg(i, (1200, 900))) for i in range(24)])
        head = (
            f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: {KIND}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        ).encode()
        with ThreadPoolExecutor(4) as pool:
            waiting = [pool.submit(client.raw, head + body) for _ in range(4)]
            for _ in range(200):
                text = client.get("/metrics").body.decode()
                if "cnn_codes_waiting_images 96.0" in text:
                    break
                time.sleep(0.01)
            child.send_signal(signal.SIGTERM)
            answers = [one.result() for one in waiting]
        assert all(one.startswith(b"HTTP/1.1 200") for one in answers)
        assert all(one.count(b'"status": "ok"') == 24 for one in answers)
        assert child.wait(30) == 0
    finally:
        child.kill()
        child.wait()
        child.stderr.close()
    assert not Path(f"/proc/{child.pid}").exists()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["RUN=nothing"], "nothing"),
        (["HOST=0.0.0.0"], "TOKEN"),
        (["PORT=99999"], "PORT"),
        (["HOST=203.0.113.7", f"TOKEN={TOKEN}"], "cannot be bound"),
    ],
)
def test_what_cannot_be_served_is_said_at_once(trained, settings, says, capsys):
    from cnn_codes.cli import main

    given = [f"RUN={trained.runs[0]}", f"CACHE={trained.cache}", f"RESULTS={trained.results}"]
    assert main(["serve", *given, "PORT=0", *settings]) == 2
    assert says in capsys.readouterr().err


def test_the_description_matches_what_is_answered(client):
    description = client.get("/openapi.json").json
    assert set(description["paths"]) == {
        "/predict", "/explain", "/runs", "/picture", "/healthz", "/readyz", "/metrics"
    }  # fmt: skip
    predict = description["paths"]["/predict"]["post"]
    assert set(predict["responses"]) >= {"200", "400", "408", "413", "415", "422", "503"}
    assert predict["responses"]["200"]["content"]["application/json"]["example"]["predictions"]


def fuzz(client, n: int, seed: int) -> set[int]:
    """Send `n` bodies made by breaking good ones; give the statuses."""
    import numpy as np

    random = np.random.default_rng(seed)
    whole = [
        (KIND, form(("a.jpg", jpeg(1)), ("b.png", encoded(photo(2), "PNG")))),
        ("image/jpeg", jpeg(3)),
        ("image/png", encoded(photo(4), "PNG")),
        ("image/webp", encoded(photo(5), "WEBP")),
        ("image/gif", encoded(photo(6), "GIF")),
        ("image/tiff", encoded(photo(7), "TIFF")),
        ("image/bmp", encoded(photo(8), "BMP")),
    ]

    def send(one: tuple[str, bytes]) -> int:
        return client("POST", "/predict", one[1], Content_Type=one[0]).status

    def broken() -> tuple[str, bytes]:
        kind, body = whole[random.integers(len(whole))]
        data = bytearray(body)
        for _ in range(random.integers(1, 8)):
            at = int(random.integers(len(data)))
            how = random.integers(4)
            if how == 0:
                data[at] ^= 1 << int(random.integers(8))
            elif how == 1:
                del data[at : at + int(random.integers(1, 200))]
            elif how == 2:
                data[at:at] = bytes(random.integers(0, 256, int(random.integers(1, 50)), np.uint8))
            else:
                data[at : at + 4] = struct.pack(">I", int(random.integers(2**32)))
            data = data or bytearray(b"x")
        return kind, bytes(data)

    with ThreadPoolExecutor(8) as pool:
        return set(pool.map(send, [broken() for _ in range(n)]))


def test_fuzzed_uploads_are_never_5xx(client):
    assert fuzz(client, 300, 0) <= {200, 400, 408, 413, 415, 422, 503}


@pytest.mark.slow
def test_ten_thousand_fuzzed_uploads_are_never_5xx(client, trained):
    before = len(client.hall.decoder.pids)
    assert fuzz(client, 10_000, 1) <= {200, 400, 408, 413, 415, 422, 503}
    assert len(client.hall.decoder.pids) == before
    assert client.predict(*images(trained, 1)).status == 200


def described(client, n_examples: int) -> None:
    """Check every operation against its description, by schemathesis."""
    schemathesis = pytest.importorskip("schemathesis")
    from hypothesis import HealthCheck, Phase, given, settings
    from schemathesis.specs.openapi.checks import positive_data_acceptance

    schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{client.port}/openapi.json")
    for result in schema.get_all_operations():
        operation = result.ok()

        @given(case=operation.as_strategy())
        @settings(
            max_examples=n_examples, deadline=None, database=None, derandomize=True,
            phases=[Phase.generate], suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        def holds(case) -> None:
            response = case.call()
            assert response.status_code < 500 or response.status_code == 503
            # No schema can say that the bytes must be an image.
            case.validate_response(response, excluded_checks=[positive_data_acceptance])

        holds()


def test_schemathesis_finds_nothing(client):
    described(client, 4)


@pytest.mark.slow
def test_schemathesis_finds_nothing_in_a_thousand_examples(client):
    described(client, 1000)


def test_the_help_names_its_settings(capsys):
    from cnn_codes.cli import main

    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    text = capsys.readouterr().out
    for name in ("--run", "--host", "--port", "--token"):
        assert name in text
    assert json.dumps(text)
