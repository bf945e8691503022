"""Archives as they come and as strangers make them: read, or one sentence; never a traceback."""

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import time
import zipfile
import zlib
from pathlib import Path

import pytest
from cnn_codes.datasets import load_manifest
from cnn_codes.datasets.archive import unpack
from cnn_codes.errors import DataError
from cnn_codes.settings import DataSettings, PlaceSettings


@pytest.fixture
def places(tmp_path) -> PlaceSettings:
    return PlaceSettings(data_root=str(tmp_path / "data"), cache=str(tmp_path / "cache"))


def load(path: Path, places: PlaceSettings, **further):
    return load_manifest(DataSettings(data=str(path), **further), places)


def zipped(names: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as out:
        for name, data in names.items():
            out.writestr(name, data)
    return stream.getvalue()


def tarred(names: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as out:
        for name, data in names.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            out.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def pictures(prefix: str = "", n: int = 8) -> dict[str, bytes]:
    return {f"{prefix}{c}/{i}.jpg": f"{prefix}{c}{i}".encode() * 50 for c in ("ants", "bees")
            for i in range(n)}  # fmt: skip


PACKED = {
    "set.tar.gz": lambda: gzip.compress(tarred(pictures())),
    "set.tar.bz2": lambda: bz2.compress(tarred(pictures())),
    "set.tar.xz": lambda: lzma.compress(tarred(pictures())),
    "set.tar": lambda: tarred(pictures()),
    "set.zip": lambda: zipped(pictures()),
    "bzip2.zip": lambda: zipped(pictures(), zipfile.ZIP_BZIP2),
    "lzma.zip": lambda: zipped(pictures(), zipfile.ZIP_LZMA),
}


@pytest.mark.parametrize("name", PACKED)
def test_a_damaged_archive_of_any_compression_is_one_sentence(tmp_path, places, name):
    whole = PACKED[name]()
    assert load(_put(tmp_path / "whole" / name, whole), places).n_images == 16
    stem, dot, suffix = name.partition(".")
    for number, at in enumerate(range(12, len(whole) - 20, max(1, len(whole) // 12))):
        for kind, data in (
            ("cut", whole[:at]),
            ("flip", whole[:at] + bytes(b ^ 0x5A for b in whole[at : at + 8]) + whole[at + 8 :]),
        ):
            path = _put(tmp_path / f"{stem}{number}{kind}{dot}{suffix}", data)
            target = tmp_path / "out" / path.name
            try:
                unpack(path, target)
                answered = True
            except DataError as error:
                answered = bool(error.expected) and not target.exists()
            assert answered


def _put(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("suffix", ["zip", "bin", "rar", ""])
def test_an_archive_is_known_by_its_content(tmp_path, places, suffix):
    path = _put(tmp_path / f"photos.{suffix}".rstrip("."), zipped(pictures()))
    assert load(path, places).n_images == 16


@pytest.mark.parametrize(
    ("head", "name"),
    [(b"Rar!\x1a\x07\x01\0", "RAR"), (b"7z\xbc\xaf\x27\x1c\0\4", "7-Zip"),
     (b"\x28\xb5\x2f\xfd", "Zstandard")],
)  # fmt: skip
@pytest.mark.parametrize("suffix", ["zip", "rar", "7z", "tar.gz"])
def test_archives_that_are_not_read_are_called_what_they_are(tmp_path, places, head, name, suffix):
    with pytest.raises(DataError, match=f"a {name} archive") as caught:
        load(_put(tmp_path / f"photos.{suffix}", head + b"\0" * 300), places)
    assert "unpack it" in caught.value.todo


def test_deflate64_is_named_with_the_program_that_makes_it(tmp_path, places):
    data = bytearray(zipped(pictures()))
    for magic, offset in ((b"PK\3\4", 8), (b"PK\1\2", 10)):
        at = data.find(magic)
        while at >= 0:
            data[at + offset : at + offset + 2] = struct.pack("<H", 9)
            at = data.find(magic, at + 4)
    with pytest.raises(DataError, match="Deflate64, as Windows Explorer"):
        load(_put(tmp_path / "windows.zip", bytes(data)), places)


@pytest.mark.parametrize(
    ("encoding", "names"),
    [
        ("gbk", ("蚂蚁", "蜜蜂")),
        ("shift_jis", ("アリの写真", "ミツバチ")),
        ("euc_kr", ("개미사진", "꿀벌")),
        ("cp437", ("Käfer", "Ameisenbär")),
        ("utf-8", ("Käfer", "蜜蜂")),
    ],
)
def test_names_of_another_encoding_are_read_by_evidence(tmp_path, places, encoding, names):
    data = zipped({f"{mark}/{i}.jpg": f"{mark}{i}".encode() for mark in ("QAQA", "QBQB")
                   for i in range(8)}, zipfile.ZIP_STORED)  # fmt: skip
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        for info in old.infolist():
            mark, _, rest = info.filename.partition("/")
            raw = names[mark == "QBQB"].encode(encoding) + b"/" + rest.encode()
            new.writestr(_Raw(raw), old.read(info))
    manifest = load(_put(tmp_path / "set.zip", out.getvalue()), places)
    assert set(manifest.class_names) == set(names)
    said = " ".join(manifest.warnings)
    assert ("not UTF-8" in said) == (encoding != "utf-8")


class _Raw(zipfile.ZipInfo):
    """A member whose name is written as these very bytes, not flagged as UTF-8."""

    def __init__(self, raw: bytes) -> None:
        super().__init__(raw.decode("cp437"))

    def _encodeFilenameFlags(self):
        return self.filename.encode("cp437"), self.flag_bits


def test_a_name_flagged_utf8_that_is_none_is_one_sentence(tmp_path):
    data = zipped({"é/1.jpg": b"x"}).replace("é".encode(), b"\xff\xfe")
    with pytest.raises(DataError):
        unpack(_put(tmp_path / "set.zip", data), tmp_path / "out")


def test_archives_in_an_archive_are_unpacked_once(tmp_path, places):
    inner = {f"{split}.zip": zipped(pictures(n=n)) for split, n in (("train", 8), ("test", 4))}
    inner["test.zip"] = zipped({f"{c}/{i}.jpg": f"t{c}{i}".encode() for c in ("ants", "bees")
                                for i in range(4)})  # fmt: skip
    manifest = load(_put(tmp_path / "kaggle.zip", zipped(inner)), places)
    assert {name: sum(of.values()) for name, of in manifest.counts().items()} == {
        "train": 16,
        "test": 8,
    }
    assert "train.zip in the archive was unpacked too" in " ".join(manifest.warnings)


def test_a_long_name_that_would_fill_the_memory_is_refused_at_its_header(tmp_path):
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 1 << 30
    packed = zlib.compressobj(9, zlib.DEFLATED, 31)
    data = packed.compress(header.tobuf(tarfile.GNU_FORMAT))
    block = b"a" * (1 << 20)
    for _ in range(64):
        data += packed.compress(block)
    path = _put(tmp_path / "bomb.tar.gz", data + packed.flush())
    began = time.perf_counter()
    with pytest.raises(DataError, match="header of 1,073,741,824 bytes"):
        unpack(path, tmp_path / "out")
    assert time.perf_counter() - began < 5


def test_what_is_left_out_counts_against_the_bomb_limit(tmp_path, monkeypatch):
    monkeypatch.setattr("cnn_codes.datasets.archive.FREE_BYTES", 1 << 20)
    junk = tarred({"a/.hidden": bytes(50 << 20)})
    for number, data in enumerate((gzip.compress(junk), bz2.compress(junk + bytes(50 << 20)))):
        path = _put(tmp_path / f"bomb{number}.tar.{('gz', 'bz2')[number]}", data)
        with pytest.raises(DataError, match="100 times"):
            unpack(path, tmp_path / "out")


@pytest.mark.parametrize("name", ["x" * 256 + ".jpg", "é" * 130 + ".jpg", "a/" * 1100 + "b.jpg"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_names_that_no_disk_takes_are_refused(tmp_path, name, kind):
    data = (zipped if kind == "zip" else tarred)({name: b"x"})
    with pytest.raises(DataError, match=r"255 bytes|folders deep"):
        unpack(_put(tmp_path / f"set.{kind}", data), tmp_path / "out")


def test_a_table_in_an_archive_names_nothing_outside_of_it(tmp_path, places):
    secret = _put(tmp_path / "secret.jpg", b"private")
    rows = "".join(f"{path},{path.split('/')[0]}\n" for path in pictures())
    for number, name in enumerate((str(secret), "../../secret.jpg", "../data/../secret.jpg")):
        text = f"path,label\n{rows}{name},ants\n"
        data = zipped({**pictures(), "labels.csv": text.encode()})
        manifest = load(_put(tmp_path / f"set{number}.zip", data), places)
        assert manifest.n_images == 16
        assert not [path for path in manifest.paths if ".." in path or "secret" in path]
        assert name in " ".join(manifest.warnings)
    (tmp_path / "lists").mkdir()
    data = zipped({"train.txt": f"{secret} 0\n../../secret.jpg 1\n".encode()})
    with pytest.raises(DataError):
        load(_put(tmp_path / "lists.zip", data), places)


def test_links_of_links_of_folders_end(tmp_path, places):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as out:
        for path, content in pictures("l0/").items():
            info = tarfile.TarInfo(path)
            info.size = len(content)
            out.addfile(info, io.BytesIO(content))
        for level in range(1, 30):
            for side in "xy":
                info = tarfile.TarInfo(f"l{level}/{side}")
                info.type, info.linkname = tarfile.SYMTYPE, f"../l{level - 1}"
                out.addfile(info)
    path = _put(tmp_path / "links.tar.gz", stream.getvalue())
    began = time.perf_counter()
    assert load(path, places).n_images == 16
    assert time.perf_counter() - began < 10


def test_every_file_is_on_the_disk_before_the_folder_has_its_name(tmp_path, monkeypatch):
    flushed, renamed = [], []
    import os

    real_sync, real_replace = os.fsync, Path.replace

    def sync(handle):
        flushed.append(str(Path(f"/proc/self/fd/{handle}").readlink()))
        real_sync(handle)

    def replace(self, target):
        renamed.append(list(flushed))
        return real_replace(self, target)

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("needs /proc")
    monkeypatch.setattr("cnn_codes.datasets.archive.os.fsync", sync)
    monkeypatch.setattr(Path, "replace", replace)
    unpack(_put(tmp_path / "set.zip", zipped(pictures())), tmp_path / "out")
    assert sum(path.endswith(".jpg") for path in renamed[0]) == 16
