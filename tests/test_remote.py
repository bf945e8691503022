"""Data sets at an address, against servers on 127.0.0.1: an object store, a web server."""

import functools
import threading
import warnings
import zipfile
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cnn_codes.datasets import load_manifest
from cnn_codes.datasets.remote import fetch_address, spread
from cnn_codes.errors import DataError, DownloadError
from cnn_codes.settings import DataSettings, PlaceSettings
from pictures import jpeg, write_set
from test_shards import samples, write_tar


class Files(SimpleHTTPRequestHandler):
    """A folder, with ETags of the bytes; what was asked is kept."""

    asked: list[str]

    def log_message(self, *args) -> None:
        pass

    def end_headers(self) -> None:
        path = Path(self.translate_path(self.path))
        if path.is_file():
            self.send_header("ETag", f'"{hash(path.read_bytes()):x}"')
        super().end_headers()

    def do_GET(self) -> None:
        type(self).asked.append(self.path)
        super().do_GET()


@pytest.fixture
def web(tmp_path) -> Iterator[tuple[str, Path, list[str]]]:
    """Serve a folder: its address, the folder, and the GET requests."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = type("Handler", (Files,), {"asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=folder))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", folder, handler.asked
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def load(tmp_path):
    """Load a manifest whose data root and cache are folders of the test."""
    places = PlaceSettings(data_root=str(tmp_path / "root"), cache=str(tmp_path / "cache"))
    return lambda data, **more: load_manifest(DataSettings(data=str(data), **more), places)


def zipped(folder: Path, path: Path) -> None:
    with zipfile.ZipFile(path, "w") as opened:
        for file in sorted(folder.rglob("*.jpg")):
            opened.write(file, file.relative_to(folder).as_posix())


def test_an_archive_is_fetched_once_and_again_when_its_etag_changes(tmp_path, web, load):
    address, served, asked = web
    zipped(write_set(tmp_path / "files", 12), served / "pets.zip")
    first = load(f"{address}/pets.zip")
    assert (first.name, first.n_images, asked) == ("pets", 12, ["/pets.zip"])
    assert any("fetched from" in note for note in first.warnings)
    again = load(f"{address}/pets.zip")
    assert again.paths == first.paths
    assert len(asked) == 1
    assert not list((tmp_path / "root").rglob("*.zip"))
    zipped(write_set(tmp_path / "files", 20), served / "pets.zip")
    assert load(f"{address}/pets.zip").n_images == 20
    assert load(f"{address}/pets.zip").name == "pets"
    assert len(asked) == 2
    assert load(f"{address}/pets.zip", offline=True).n_images == 20


def test_shards_with_numbers_in_braces_are_read_as_they_are(tmp_path, web, load):
    address, served, asked = web
    for i in range(3):
        write_tar(served / f"train-{i:03}.tar", samples(range(8 * i, 8 * i + 8)))
    data = f"{address}/train-{{000..002}}.tar"
    manifest = load(data)
    assert (manifest.n_images, len(asked)) == (24, 3)
    assert not list((tmp_path / "root").rglob("*.jpg"))
    write_tar(served / "train-001.tar", samples(range(100, 108)))
    assert load(data).n_images == 24
    assert asked[3:] == ["/train-001.tar"]
    assert len(spread("a-{08..11}.tar")) == 4


def test_parquet_with_image_bytes(tmp_path, web, load):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    address, served, _ = web
    images = [{"bytes": jpeg(i), "path": f"{i}.jpg"} for i in range(12)]
    table = pa.table({"image": images, "label": [("cat", "dog")[i % 2] for i in range(12)]})
    parquet.write_table(table, served / "pets.parquet")
    manifest = load(f"{address}/pets.parquet")
    assert (manifest.n_images, manifest.class_names) == (12, ("cat", "dog"))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("http://example.com/a.zip", "not encrypted"),
        ("https://me:secret@example.com/a.zip", "password"),
        ("ftp://example.com/a.zip", "ftp://"),
        ("s3://", "names nothing"),
        ("hf://datasets/", "names nothing"),
        ("https:///a.tar", "names nothing"),
        ("http://127.0.0.1:9/photos/", "address of a folder"),
        ("http://127.0.0.1:9/a.zip", "could not be fetched"),
    ],
)
def test_addresses_that_are_refused(tmp_path, data, says):
    with pytest.raises((DataError, DownloadError), match=says) as caught:
        fetch_address(data, tmp_path)
    assert "secret" not in str(caught.value)


def test_a_missing_file_and_offline_are_said(tmp_path, web):
    address, _, _ = web
    with pytest.raises(DownloadError, match="404"):
        fetch_address(f"{address}/nothing.zip", tmp_path)
    with pytest.raises(DownloadError, match="OFFLINE=1"):
        fetch_address(f"{address}/nothing.zip", tmp_path, offline=True)


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    """Give the address of an object store on this machine."""
    pytest.importorskip("s3fs", reason="pip install 'cnn-codes[remote]'")
    server_module = pytest.importorskip("moto.server", reason="pip install 'moto[server]'")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(store, monkeypatch):
    """Give an empty bucket, by its client; the environment leads to the store."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": store,
        "AWS_CONFIG_FILE": "/nowhere",
        "AWS_SHARED_CREDENTIALS_FILE": "/nowhere",
    }.items():
        monkeypatch.setenv(name, value)
    import boto3

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # boto3's own
        client = boto3.client("s3")
        client.create_bucket(Bucket="photos")
    yield client
    for one in client.list_objects_v2(Bucket="photos").get("Contents", []):
        client.delete_object(Bucket="photos", Key=one["Key"])
    client.delete_bucket(Bucket="photos")


def put(client, folder: Path, prefix: str = "") -> None:
    for file in sorted(folder.rglob("*.*")):
        key = prefix + file.relative_to(folder).as_posix()
        client.put_object(Bucket="photos", Key=key, Body=file.read_bytes())


def fetched(monkeypatch) -> list[str]:
    """Note every object that is fetched from now on."""
    import s3fs

    seen: list[str] = []
    plain = s3fs.S3FileSystem.get_file

    def noted(self, key, *more, **named):
        seen.append(key)
        return plain(self, key, *more, **named)

    monkeypatch.setattr(s3fs.S3FileSystem, "get_file", noted)
    return seen


def test_a_bucket_is_fetched_once_and_follows_its_objects(tmp_path, bucket, load, monkeypatch):
    folder = write_set(tmp_path / "files", 12)
    put(bucket, folder, "pets/")
    bucket.put_object(Bucket="photos", Key="pets/notes.docx", Body=b"no image")
    bucket.put_object(Bucket="photos", Key="other/cat/1.jpg", Body=jpeg(50))
    seen = fetched(monkeypatch)
    first = load("s3://photos/pets")
    assert (first.name, first.n_images, len(seen)) == ("pets", 12, 12)
    assert sorted(first.sha256.tolist()) == sorted(load(folder).sha256.tolist())
    assert load("s3://photos/pets").paths == first.paths
    assert len(seen) == 12
    bucket.put_object(Bucket="photos", Key="pets/cat/0000.jpg", Body=jpeg(99))
    bucket.delete_object(Bucket="photos", Key="pets/dog/0001.jpg")
    changed = load("s3://photos/pets")
    assert (changed.n_images, seen[12:]) == (11, ["photos/pets/cat/0000.jpg"])
    assert load("s3://photos/pets", offline=True).paths == changed.paths
    assert len(seen) == 13


@pytest.mark.slow
def test_what_was_fetched_before_an_error_is_not_fetched_again(tmp_path, bucket, load, monkeypatch):
    import s3fs

    put(bucket, write_set(tmp_path / "files", 12), "pets/")
    seen = fetched(monkeypatch)
    noted = s3fs.S3FileSystem.get_file

    def breaks(self, key, *more, **named):
        if key.endswith("0009.jpg"):
            raise ConnectionError("the cable was pulled")
        return noted(self, key, *more, **named)

    monkeypatch.setattr(s3fs.S3FileSystem, "get_file", breaks)
    with pytest.raises(DownloadError, match="the cable was pulled"):
        load("s3://photos/pets")
    monkeypatch.setattr(s3fs.S3FileSystem, "get_file", noted)
    with pytest.raises(DownloadError, match="OFFLINE=1"):
        load("s3://photos/pets", offline=True)
    assert load("s3://photos/pets").n_images == 12
    assert len(seen) == len(set(seen)) == 12


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["shards", "archive"])
def test_tars_in_a_bucket(tmp_path, bucket, load, monkeypatch, kind):
    if kind == "shards":
        for i in range(2):
            write_tar(tmp_path / "s" / f"train-{i}.tar", samples(range(8 * i, 8 * i + 8)))
    else:
        (tmp_path / "s").mkdir()
        zipped(write_set(tmp_path / "files", 16), tmp_path / "s" / "a.zip")
    put(bucket, tmp_path / "s", "set/")
    seen = fetched(monkeypatch)
    address = "s3://photos/set" + ("" if kind == "shards" else "/a.zip")
    assert load(address).n_images == 16
    n_fetched = len(seen)
    assert load(address).n_images == 16
    assert len(seen) == n_fetched


@pytest.mark.slow
def test_names_that_lead_out_of_the_folder_are_refused(tmp_path, bucket, load):
    bucket.put_object(Bucket="photos", Key="pets/../../out.jpg", Body=jpeg(1))
    bucket.put_object(Bucket="photos", Key="pets/cat/1.jpg", Body=jpeg(2))
    with pytest.raises(DataError, match="leads out"):
        load("s3://photos/pets")
    assert not list(tmp_path.rglob("out.jpg"))


@pytest.mark.slow
def test_a_bucket_that_is_not_there(tmp_path, bucket, load):
    with pytest.raises(DownloadError, match="s3://nobody/has"):
        load("s3://nobody/has")
