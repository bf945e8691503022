"""A file is an image by its content, whatever its name says, wherever images are given."""

import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest
from cnn_codes.datasets.file_kinds import image_stem
from cnn_codes.datasets.formats import recognise, sniff
from cnn_codes.datasets.layout import read_layout
from cnn_codes.predict.inputs import gathered
from conftest import SMALL, Inside
from pictures import encoded, jpeg, photo

# How the file of the image "i" is called, and what is in it
NAMES = {
    "no suffix": "{}", "query": "{}.jpg?w=640", "large": "{}.jpg_large", "orig": "{}.jpg:orig",
    "upper case": "{}.JPG", "mixed case": "{}.JpEg", "wrong image suffix": "{}.png",
    "text suffix": "{}.txt", "table suffix": "{}.csv", "data suffix": "{}.dat", "program": "{}.php",
    "download": "{}.jpg.part", "number": "{}.1", "backup": "{}.jpg~", "dots": "v1.2_{}",
    "spaces": "my photo {}", "unicode": "蚂蚁{}", "page": "{}.html", "database": "{}.db",
    "pdf": "{}.pdf", "jfif": "{}.jfif", "pjpeg": "{}.pjpeg", "long suffix": "{}.jpeg-large",
}  # fmt: skip


def write(root: Path, pattern: str, n: int = 12) -> Path:
    for i in range(n):
        path = root / ("ants", "bees")[i % 2] / pattern.format(f"i{i}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(i))
    return root


@pytest.mark.parametrize("name", NAMES)
def test_class_folders(tmp_path: Path, name: str) -> None:
    listing = read_layout(write(tmp_path / "set", NAMES[name]))
    assert len(listing.paths) == 12
    assert sorted(set(listing.labels)) == ["ants", "bees"]


@pytest.mark.parametrize("cell", ["stem", "stem.jpg", "name", "folder/stem"])
@pytest.mark.parametrize("name", NAMES)
def test_a_table_that_names_stems(tmp_path: Path, name: str, cell: str) -> None:
    pattern = NAMES[name]
    root = tmp_path / "set"
    write(root / "images", pattern)
    rows = ["image_id,species"]
    for i in range(12):
        file = pattern.format(f"i{i}")
        stem = image_stem(file) if name != "dots" else file
        folder = ("ants", "bees")[i % 2]
        rows.append(
            {
                "stem": stem,
                "stem.jpg": f"{stem}.jpg",
                "name": file,
                "folder/stem": f"{folder}/{stem}",
            }[cell]
            + f",{'odd' if i % 3 else 'even'}"
        )
    (root / "labels.csv").write_text("\n".join(rows) + "\n")
    listing = read_layout(root)
    assert len(listing.paths) == 12
    assert sorted(set(listing.labels)) == ["even", "odd"]


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
@pytest.mark.parametrize("name", ["no suffix", "query", "text suffix", "upper case"])
def test_archives(tmp_path: Path, inside: Inside, name: str, kind: str) -> None:
    root = write(tmp_path / "set", NAMES[name])
    archive = tmp_path / f"set.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(archive, "w") as made:
            for path in sorted(root.rglob("*")):
                made.write(path, path.relative_to(tmp_path))
    else:
        with tarfile.open(archive, "w:gz" if kind.endswith("gz") else "w") as tar:
            tar.add(root, "set")
    shutil.rmtree(root)
    done = inside("data", data=archive)
    assert done.returncode == 0, done.stderr
    assert "12 images of 2 classes" in done.stdout


@pytest.mark.parametrize("name", NAMES)
def test_images_to_predict(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "new"
    for i in range(3):
        folder.mkdir(exist_ok=True)
        (folder / NAMES[name].format(f"i{i}")).write_bytes(jpeg(i))
    files = sorted(str(path) for path in folder.iterdir())
    with gathered(str(folder)) as inputs:
        assert sorted(inputs.paths) == files
    with gathered(f"{folder}/*") as inputs:
        assert sorted(inputs.paths) == files
    with gathered(files[0]) as inputs:
        assert inputs.paths == (files[0],)
    stems = [image_stem(Path(file).name) if name != "dots" else Path(file).name for file in files]
    for table in (tmp_path / "list.csv", tmp_path / "list.txt"):
        lines = ["path"] * (table.suffix == ".csv") + [f"new/{stem}" for stem in stems]
        table.write_text("\n".join(lines) + "\n")
        with gathered(str(table)) as inputs:
            assert sorted(inputs.paths) == files


def test_unlabelled_images_to_label_next(tmp_path: Path, inside: Inside) -> None:
    root = write(tmp_path / "set", "{}")
    for at, name in enumerate(("no suffix", "query", "text suffix", "upper case", "program")):
        (tmp_path / "pool").mkdir(exist_ok=True)
        (tmp_path / "pool" / NAMES[name].format("p")).write_bytes(jpeg(50 + at))
    done = inside("next", data=root, images=tmp_path / "pool", count=9, **SMALL)
    assert done.returncode == 0, done.stderr
    assert "5 of 5 unlabelled images" in done.stdout + done.stderr


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM"])
def test_the_listing_and_the_decoder_name_a_format_alike(tmp_path: Path, format: str) -> None:
    data = encoded(photo(1), format)
    path = tmp_path / "file"
    path.write_bytes(data)
    assert sniff(str(path)) == recognise(data[:512]) == format


@pytest.mark.parametrize(
    "text", [b"BMW, Audi\nand others", b"P1 is a letter", b"path,label\na,b\n", b"", b"%PDF-1.4"]
)
def test_texts_are_no_images(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(text)
    assert sniff(str(path)) == ""
