"""Data sets as strangers have them: what is certain is read, what is likely is asked."""

import io
import re
import shlex
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from cnn_codes.backbones.state import read_state
from cnn_codes.backbones.weights import check_numbers
from cnn_codes.datasets.archive import unpack
from cnn_codes.datasets.groups import twins
from cnn_codes.datasets.images import decode, probe
from cnn_codes.datasets.layout import read_layout
from cnn_codes.datasets.samples import Reading
from cnn_codes.errors import BackboneError, DataError, ImageError
from cnn_codes.settings import DataSettings

SPLIT = {0: "train", 1: "val", 2: "test", -1: ""}


def lay(root: Path, names: list[str]) -> Path:
    """Write empty files that have the names of images; the reading looks at names only."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\xff\xd8\xff" + name.encode())
    return root


def several(folders: list[str], n: int = 4, start: int = 0) -> list[str]:
    return [f"{one}/{start + i:03}.jpg" for one in folders for i in range(n)]


def read(root: Path, **ask: str) -> set[tuple[str, str]]:
    """Give the pairs of split and class that were read."""
    listing = read_layout(root, DataSettings(**ask))
    return {(SPLIT[s], label) for s, label in zip(listing.split, listing.labels, strict=True)}


def followed(error: DataError) -> list[dict[str, str]]:
    """Give the settings of the commands that a message names."""
    commands = re.findall(r"make data ([^;]*)", error.todo or "")
    return [
        dict(word.split("=", 1) for word in shlex.split(one) if "=" in word) for one in commands
    ]


TWO_LEVELS = {
    "orders and species": ["Insecta/Lasius", "Insecta/Apis", "Aves/Pica", "Aves/Corvus"],
    "cameras": ["canon/ant", "canon/bee", "nikon/ant", "nikon/bee"],
    "within splits": [
        *("train/insect/ant", "train/insect/bee", "train/food/pie", "train/food/soup"),
        *("test/insect/ant", "test/insect/bee", "test/food/pie", "test/food/soup"),
    ],
}


@pytest.mark.parametrize("folders", TWO_LEVELS.values(), ids=TWO_LEVELS)
def test_which_of_two_levels_are_classes_is_asked_and_both_answers_work(tmp_path, folders):
    root = lay(tmp_path / "set", several(folders, 6))
    with pytest.raises(DataError) as caught:
        read(root)
    answers = followed(caught.value)
    assert [one.get("LAYOUT") for one in answers[:2]] == ["inner", "classes"]
    parts = [folder.split("/") for folder in folders]
    splits = {one[0] if len(one) == 3 else "" for one in parts}
    for one, at in zip(answers[:2], (-1, -2), strict=True):
        found = read(Path(one["DATA"]), layout=one["LAYOUT"])
        assert {label for _, label in found} == {part[at] for part in parts}
        assert {split for split, _ in found} == splits


SPLITS_BY_NAME = {
    "folders of split and class": several(
        ["train_ant", "train_bee", "test_ant", "test_bee", "val-ant", "val-bee"]
    ),
    "Chinese": several(["训练集/ant", "训练集/bee", "测试集/ant", "验证集/ant"]),
    "Portuguese": several(["treino/ant", "treino/bee", "teste/ant", "validação/bee"]),
    "file names": [
        f"{kind}/{part}_{i}.jpg" for kind in ("ant", "bee") for part in ("train", "val", "test")
        for i in range(3)
    ],
}  # fmt: skip


@pytest.mark.parametrize("names", SPLITS_BY_NAME.values(), ids=SPLITS_BY_NAME)
def test_splits_that_names_say_are_used_and_said(tmp_path, names):
    listing = read_layout(lay(tmp_path / "set", names))
    assert set(listing.labels) == {"ant", "bee"}
    assert set(listing.split.tolist()) == {0, 1, 2}
    assert "plits" in " ".join(listing.warnings)


DOUBTS = {
    "two splits and a third folder": (
        ["box_train/a.jpg", "box_test/b.jpg", "query/c.jpg"], "mixes splits"),
    "a folder called images": ([*several(["images", "background"])], "name of a class"),
    "magnifications": (several(["40X/ant", "40X/bee", "100X/ant", "100X/bee"]), "versions"),
    "products that hold splits and masks": (
        several([f"{one}/{part}" for one in ("cup", "nut")
                 for part in ("train/good", "test/good", "ground_truth/bad")]), "holds splits"),
    "classes that differ in writing": (
        several(["train/01", "train/02", "test/1", "test/2"]), "only in writing: '1' from '01'"),
}  # fmt: skip


@pytest.mark.parametrize(("names", "words"), DOUBTS.values(), ids=DOUBTS)
def test_folders_that_are_not_classes_are_asked_about(tmp_path, names, words):
    with pytest.raises(DataError, match=re.escape(words)):
        read(lay(tmp_path / "set", names))


def test_folders_of_numbered_things_are_below_their_classes(tmp_path):
    names = [f"Class_{k}/{i:04}/image.jpg" for k in range(2) for i in range(4)]
    assert read(lay(tmp_path / "set", names)) == {("", "Class_0"), ("", "Class_1")}


def _tiff(values: np.ndarray, **options: object) -> bytes:
    tifffile = pytest.importorskip("tifffile")
    stream = io.BytesIO()
    tifffile.imwrite(stream, values, **options)
    return stream.getvalue()


def test_a_camera_raw_file_is_not_its_thumbnail():
    tifffile = pytest.importorskip("tifffile")
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as file:
        small = np.zeros((20, 30, 3), np.uint8)
        file.write(small, photometric="rgb", subfiletype=1, subifds=1)
        file.write(np.zeros((40, 60), np.uint16), photometric=32803)
    for look in (probe, decode):
        with pytest.raises(ImageError, match="camera RAW"):
            look(stream.getvalue())


def test_colours_of_12_bits_with_a_fourth_band_are_read_by_the_range_of_the_set():
    values = np.random.default_rng(0).integers(0, 4096, (24, 32, 4)).astype(np.uint16)
    data = _tiff(values, photometric="rgb", extrasamples=["unspecified"])
    pixels = decode(data, reading=Reading((("uint16", 0.0, 4095.0),)))
    assert np.abs(pixels - values[:, :, :3] * (255 / 4095)).max() <= 0.5


def test_bands_of_8_bits_need_no_range():
    values = np.random.default_rng(0).integers(0, 256, (24, 32, 5)).astype(np.uint8)
    data = _tiff(values, photometric="minisblack", planarconfig="contig")
    assert np.array_equal(decode(data, reading=Reading(bands=(4, 3, 2))), values[:, :, [3, 2, 1]])


def test_libtiff_says_nothing_on_the_terminal(capfd):
    data = bytearray(_tiff(np.zeros((64, 64, 3), np.uint8), compression="zlib", photometric="rgb"))
    data[len(data) // 2 :] = b"\0" * (len(data) - len(data) // 2)
    with pytest.raises(ImageError):
        decode(bytes(data[: len(data) * 2 // 3]))
    assert capfd.readouterr().err == ""


ANT_BEE = [f"images/{kind}{i:02}.jpg" for kind in "ab" for i in range(6)]


def _rows(line: str) -> str:
    """Write a line for each image: {file}, {stem}, {kind} (a or b), {label}, {i}."""
    lines = []
    for i, path in enumerate(ANT_BEE):
        name = path.partition("/")[2]
        fill = {"path": path, "file": name, "stem": name[:-4], "kind": name[0], "i": i,
                "label": {"a": "ant", "b": "bee"}[name[0]]}  # fmt: skip
        lines.append(line.format(**fill))
    return "\n".join(lines) + "\n"


READ = {
    "records": ("t.json", "[" + _rows('{{"file": "{file}", "label": "{label}"}},')[:-2] + "]"),
    "lines of records": ("t.jsonl", _rows('{{"image": "{stem}", "class": "{label}"}}')),
    "names and labels": ("t.json", "{" + _rows('"{file}": "{label}",')[:-2] + "}"),
    "classes and names": ("t.json", '{"ant": ["' + '", "'.join(ANT_BEE[:6]) + '"], "bee": ["'
                          + '", "'.join(ANT_BEE[6:]) + '"]}'),
    "COCO": ("t.json", '{"categories": [{"id": 1, "name": "ant"}, {"id": 2, "name": "bee"}], '
             '"images": [' + _rows('{{"id": {i}, "file_name": "{file}"}},')[:-2]
             + '], "annotations": ['
             + ", ".join(f'{{"image_id": {i}, "category_id": {1 + i // 6}}}' for i in range(12))
             + "]}"),
    "a report's title": ("t.csv", "Of May;;\n;;\nfile;class;n\n" + _rows("{file};{label};1")),
    "percent signs": ("t.csv", "path,label\n" + _rows("images%2F{file},{label}")),
    "an address of a file": ("t.csv", "path,label\n" + _rows("file:///x/images/{file},{label}")),
    "lists of one": ("t.csv", "file,label\n" + _rows("{file},['{label}']")),
    "yes and no": ("t.csv", "file,ant,bee\n" + _rows("{file},{kind}").replace(",a", ",True,False")
                   .replace(",b", ",False,True")),
    "minus one": ("t.csv", "file,ant,bee\n" + _rows("{file},{kind}").replace(",a", ",1,-1")
                  .replace(",b", ",-1,1")),
    "folders and files": ("t.csv", "folder,file,class\n" + _rows("images,{file},{label}")),
}  # fmt: skip


@pytest.mark.parametrize(("name", "text"), READ.values(), ids=READ)
def test_tables_of_any_writing_are_read(tmp_path, name, text):
    lay(tmp_path, ANT_BEE)
    (tmp_path / name).write_text(text)
    for given in (tmp_path, tmp_path / name):
        listing = read_layout(given)
        found = dict(zip(listing.paths, listing.labels, strict=True))
        assert found == {one: "ant" if "/a" in one else "bee" for one in ANT_BEE}


ASKED = {
    "labels joined by blanks": ("file,label\n" + _rows("{file},{label}") .replace(
        "a00.jpg,ant", "a00.jpg,ant bee"), "several labels"),
    "lists of two": ("file,label\n" + _rows("{file},\"['{label}', 'wing']\""), "several labels"),
    "measurements": ("file,target\n" + _rows("{file},{i}.37"), "measurements, not classes"),
    "columns the wrong way": ("label,path\n" + _rows("{file},{label}"), "column 'label' names"),
    "a quote that is not closed": (
        "path,label\n" + _rows("images/{file},{label}").replace("a02.jpg,", 'a02.jpg,"'),
        "opened in line 4"),
    "a web page": ("<!DOCTYPE html><html>", "a web page"),
    "nothing": ("", "has 0 rows"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "words"), ASKED.values(), ids=ASKED)
def test_tables_that_are_no_list_of_classes_are_answered(tmp_path, text, words):
    lay(tmp_path, ANT_BEE)
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError, match=re.escape(words)):
        read_layout(tmp_path / "t.csv")


@pytest.mark.parametrize("written", ["{i}", "{i}.0"])
def test_numbers_that_lost_their_zeros_are_found_and_said(tmp_path, written):
    names = lay(tmp_path, [f"images/{i:05}.jpg" for i in range(12)])
    labels = ["ant"] * 6 + ["bee"] * 6
    rows = "".join(f"{written.format(i=i)},{labels[i]},{11 - i}\n" for i in range(12))
    (tmp_path / "t.csv").write_text("id,label,rank\n" + rows)
    listing = read_layout(names / "t.csv")
    assert [one for _, one in sorted(zip(listing.paths, listing.labels, strict=True))] == labels
    assert "leading zeros" in " ".join(listing.warnings)


def test_tables_beside_class_folders_give_splits_and_groups(tmp_path):
    names = several(["ant", "bee"], 6)
    lay(tmp_path, names)
    rows = [f"{name},{'test' if '05' in name else 'train'},p{name[-6]}" for name in names]
    (tmp_path / "split.csv").write_text("\n".join(["path,split,patient_id", *rows]))
    listing = read_layout(tmp_path)
    assert {SPLIT[s] for s in listing.split.tolist()} == {"train", "test"}
    assert "patient_id" in listing.extra
    assert "the splits" in " ".join(listing.warnings)


@pytest.mark.parametrize(
    ("name", "text"),
    {
        "train_test_split.txt": "1 0\n2 1\n3 1\n",
        "images.txt": "1 ant/000.jpg\n2 ant/001.jpg\n3 bee/000.jpg\n4 bee/001.jpg\n",
        "meta/train.json": '{"ant": ["ant/000"], "bee": ["bee/000"], "x": ["bee/001"]}',
    }.items(),
)
def test_what_names_splits_or_images_and_is_not_read_is_named(tmp_path, name, text):
    lay(tmp_path, several(["images/ant", "images/bee"]))
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(text)
    assert name in " ".join(read_layout(tmp_path).warnings)


def test_a_column_that_was_asked_for_is_never_passed_over(tmp_path):
    lay(tmp_path, several(["ant", "bee"]))
    with pytest.raises(DataError, match="LABEL_COLUMN=smiling was given"):
        read_layout(tmp_path, DataSettings(label_column="smiling"))


def test_images_in_no_row_are_counted_and_offered(tmp_path):
    lay(tmp_path, [*ANT_BEE, "test/u.jpg", "test/v.jpg"])
    (tmp_path / "train.csv").write_text("file,class\n" + _rows("{file},{label}"))
    said = " ".join(read_layout(tmp_path).warnings)
    assert "2 images are in no row" in said
    assert f"make predict IMAGES={tmp_path}/test" in said


def test_metadata_in_the_folders_of_splits_is_read_as_they_are(tmp_path):
    for split, start in (("train", 0), ("test", 50)):
        names = lay(tmp_path / split, [f"{k}{start + i}.jpg" for k in "ab" for i in range(4)])
        lines = [f"{one.name},{one.name[0]}" for one in names.iterdir()]
        (names / "metadata.csv").write_text("\n".join(["file_name,label", *lines]))
    assert read(tmp_path) == {(s, k) for s in ("train", "test") for k in "ab"}


@pytest.mark.parametrize("same", [True, False])
def test_two_tables_are_used_where_they_agree_and_asked_about_where_not(tmp_path, same):
    lay(tmp_path, ANT_BEE)
    (tmp_path / "a.csv").write_text("file,class\n" + _rows("{file},{label}"))
    other = _rows("{file},{label}") if same else _rows("{file},{kind}")
    (tmp_path / "b.csv").write_text("file,class\n" + other)
    if same:
        assert "same labels" in " ".join(read_layout(tmp_path).warnings)
        return
    with pytest.raises(DataError, match="12 images have different labels") as caught:
        read_layout(tmp_path)
    for answer in followed(caught.value):
        read_layout(Path(answer["DATA"]))


def test_a_picture_in_two_formats_is_one_and_raw_files_next_to_it_are_left_out(tmp_path):
    lay(tmp_path, [f"{k}/{i}.{s}" for k in ("ant", "bee") for i in range(6)
                   for s in ("jpg", "png", "CR2")])  # fmt: skip
    listing = read_layout(tmp_path)
    assert len(listing.paths) == 24
    assert "12 camera RAW files" in " ".join(listing.warnings)
    alike = twins(listing.paths, listing.labels)
    assert len(set(alike)) == 12
    assert twins(["a/1.jpg", "b/1.png", "a/1.jpg"], ["a", "b", "a"]) == ["", "", ""]


NOT_WEIGHTS = {
    "a page": (b"<!DOCTYPE html><html>", "a web page"),
    "Keras": (b"\x89HDF\r\n\x1a\n" + b"\0" * 600, "an HDF5 file"),
    "a pointer": (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    "nothing": (b"", "empty"),
}


@pytest.mark.parametrize(("data", "words"), NOT_WEIGHTS.values(), ids=NOT_WEIGHTS)
def test_files_that_hold_no_weights_are_called_what_they_are(tmp_path, data, words):
    (tmp_path / "own.pth").write_bytes(data)
    with pytest.raises(BackboneError, match=words):
        read_state(tmp_path / "own.pth")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t * float("nan"), "NaN or infinite"),
        (lambda t: t * 0, "all its layers are zero"),
        (lambda t: (t * 100).to(torch.int8), "are int8"),
    ],
)
def test_weights_that_no_network_works_with_are_refused(tmp_path, change, words):
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Linear(4, 2))
    state = {k: change(t) if t.ndim > 1 else t for k, t in network.state_dict().items()}
    with pytest.raises(BackboneError, match=words):
        check_numbers(state, network.state_dict(), "own.pth")
    check_numbers(network.state_dict(), network.state_dict(), "own.pth")


@pytest.mark.parametrize(
    ("names", "command"),
    [
        (["a.zip.001", "a.zip.002"], "cat a.zip.??? > a.zip"),
        (["a.tar.gz.aa", "a.tar.gz.ab"], "cat a.tar.gz.?? > a.tar.gz"),
        (["a.z01", "a.zip"], "zip -s 0 a.zip"),
    ],
)
def test_parts_of_an_archive_are_called_so_with_the_command_that_joins_them(
    tmp_path, names, command
):
    stream = io.BytesIO()
    mode = "w:gz" if "tar" in names[0] else "w"
    kind = tarfile.open(fileobj=stream, mode=mode) if "tar" in names[0] else zipfile.ZipFile(
        stream, mode)  # fmt: skip
    with kind as archive:
        for i in range(50):
            if isinstance(archive, zipfile.ZipFile):
                archive.writestr(f"set/{i}.jpg", np.random.default_rng(i).bytes(300))
            else:
                archive.addfile(tarfile.TarInfo(f"set/{i}.jpg"))
    data = stream.getvalue()
    for name, part in zip(names, (data[: len(data) // 2], data[len(data) // 2 :]), strict=True):
        (tmp_path / name).write_bytes(part)
    with pytest.raises(DataError, match="one part of an archive") as caught:
        unpack(tmp_path / names[0], tmp_path / "out")
    assert command in (caught.value.todo or "")
