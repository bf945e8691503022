"""Names and paths: what is there is used, what is not is fetched, what is unknown is answered."""

import hashlib
import io
import subprocess
import sys
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType

import pytest
from cnn_codes.datasets import registry as registry_module
from cnn_codes.datasets.elpv import elpv_folder, read_elpv
from cnn_codes.datasets.registry import REGISTRY, Registered, locate
from cnn_codes.errors import DataError, DownloadError
from conftest import needs_elpv


def zipped(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        for name in names:
            opened.writestr(name, name)
    return buffer.getvalue()


def test_what_is_registered_has_an_address_or_a_package():
    assert set(REGISTRY) == {"hotdog", "ants-bees", "flowers", "cats-dogs", "elpv", "elpv-cells"}
    for name, one in REGISTRY.items():
        assert one.name == name
        assert one.url.startswith("https://") or name in ("elpv", "elpv-cells")
        assert one.licence
        if one.checksum:
            algorithm, digits = one.checksum.split(":")
            assert len(digits) == 2 * hashlib.new(algorithm).digest_size


def test_a_folder_of_that_name_is_used_as_it_is(tmp_path):
    (tmp_path / "hotdog").mkdir()
    source = locate("hotdog", tmp_path, offline=False)
    assert (source.name, source.registered, source.path) == ("hotdog", True, tmp_path / "hotdog")
    assert locate(str(tmp_path / "hotdog"), tmp_path) == source


@pytest.mark.parametrize("name", ["hotdog", "ants-bees", "flowers", "cats-dogs"])
def test_offline_nothing_is_fetched(tmp_path, name):
    with pytest.raises(DownloadError, match="OFFLINE=1") as caught:
        locate(name, tmp_path, offline=True)
    assert str(tmp_path / name) in caught.value.expected


@pytest.mark.parametrize(
    ("typed", "meant"), [("hotdg", "hotdog"), ("ants_bees", "ants-bees"), ("FLOWER", "flowers")]
)
def test_unknown_names_answer_with_the_nearest(tmp_path, typed, meant):
    with pytest.raises(DataError) as caught:
        locate(typed, tmp_path)
    assert f"did you mean {meant}" in caught.value.todo
    assert "cats-dogs" in caught.value.expected


def test_a_folder_in_the_data_root_is_known_by_its_name(tmp_path):
    (tmp_path / "mine").mkdir()
    assert locate("mine", tmp_path).path == tmp_path / "mine"
    with pytest.raises(DataError) as caught:
        locate("mien", tmp_path)
    assert "mine" in caught.value.todo


def test_an_empty_name_is_answered(tmp_path):
    with pytest.raises(DataError, match="neither a known data set"):
        locate("", tmp_path)


@needs_elpv
def test_elpv_is_found_without_importing_it():
    before = "elpv_dataset" in sys.modules
    folder = elpv_folder()
    assert ("elpv_dataset" in sys.modules) == before
    listing = read_elpv(folder)
    assert len(listing.paths) == REGISTRY["elpv"].n_images
    assert listing.labels.count("defective") == 821
    cells = dict(zip(listing.paths, zip(*listing.extra.values(), strict=True), strict=True))
    assert cells["images/cell0001.png"] == (1.0, "mono", 1.0, 0)
    assert cells["images/cell0004.png"] == (0.0, "mono", 1.0, 0)
    weight = listing.extra["weight"]
    assert sorted(set(weight.tolist())) == [0.33, 0.67, 1.0]


def test_a_damaged_elpv_table_is_answered(tmp_path):
    (tmp_path / "labels.csv").write_text("images/cell0001.png 1.0\n")
    with pytest.raises(DataError, match="not the table"):
        read_elpv(tmp_path)
    (tmp_path / "labels.csv").write_text("images/cell0001.png 1.0 mono\n")
    with pytest.raises(DataError, match="1 of 1 images of elpv-dataset are not there"):
        read_elpv(tmp_path)


def test_an_archive_is_unpacked_once_and_again_when_its_bytes_change(tmp_path):
    archive, root = tmp_path / "my set.zip", tmp_path / "data"
    archive.write_bytes(first := zipped("top/a/1.jpg", "top/b/2.jpg"))
    source = locate(str(archive), root)
    assert source.name == "my set"
    assert source.path == root / f"my set-{hashlib.sha256(first).hexdigest()[:12]}"
    assert (source.path / "a" / "1.jpg").read_text() == "top/a/1.jpg"
    (source.path / "mark").touch()
    assert (locate(str(archive), root).path / "mark").exists()
    archive.write_bytes(zipped("top/a/1.jpg", "top/b/3.jpg"))
    changed = locate(str(archive), root)
    assert changed.path != source.path
    assert (changed.path / "b" / "3.jpg").exists()
    assert (changed.name, changed.origin) == (source.name, source.origin)


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A registered set, served by a real server: (file that is served, requests so far)."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    (served := tmp_path / "served").mkdir()
    asked: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            asked.append(self.path)

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=served)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        one = Registered(
            name="toy",
            url=f"http://127.0.0.1:{server.server_address[1]}/toy.zip",
            n_images=2,
            n_classes=1,
            licence="ours",
            description="",
        )
        monkeypatch.setattr(registry_module, "REGISTRY", MappingProxyType({"toy": one}))
        yield served / "toy.zip", asked
        server.shutdown()
        thread.join()


def test_a_registered_set_is_fetched_checked_unpacked_and_then_left_alone(tmp_path, toy):
    file, asked = toy
    file.write_bytes(zipped("hymenoptera/train/ants/1.jpg", "hymenoptera/val/ants/2.jpg"))
    root = tmp_path / "data"
    for _ in range(2):
        path = locate("toy", root).path
        assert path == root / "toy"
        assert (path / "val" / "ants" / "2.jpg").exists()
    assert len(asked) == 1
    assert hashlib.sha256(file.read_bytes()).hexdigest() in (root / "pins.json").read_text()
    assert not list((root / ".downloads").glob("*.zip")), "the archive is not kept beside its files"


def test_an_archive_that_came_damaged_is_fetched_again(tmp_path, toy):
    file, asked = toy
    whole = zipped("a/1.jpg", "b/2.jpg")
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="cannot be unpacked"):
        locate("toy", tmp_path / "data")
    file.write_bytes(whole)
    assert (locate("toy", tmp_path / "data").path / "a" / "1.jpg").exists()
    assert len(asked) == 2


def test_without_the_package_elpv_is_answered_with_the_command_that_installs_it(tmp_path):
    code = (
        "import sys, importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'elpv_dataset' else find(name, *a)\n"
        "from cnn_codes.cli import main; sys.exit(main(['data', 'DATA=elpv']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert f"Next: {sys.executable} -m pip install elpv-dataset" in done.stderr
