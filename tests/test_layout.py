"""Layouts: every known one is read, every mistake is answered."""

import os
from pathlib import Path

import pytest
from cnn_codes.datasets.layout import read_layout
from cnn_codes.datasets.split_words import SPLITS
from cnn_codes.errors import DataError
from cnn_codes.settings import DataSettings


def put(root: Path, *paths: str) -> Path:
    for path in paths:
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.encode())
    return root


def rows(listing):
    names = [SPLITS[one] if one >= 0 else "" for one in listing.split.tolist()]
    return list(zip(listing.paths, listing.labels, names, strict=True))


def test_class_folders_without_a_split(tmp_path):
    put(tmp_path, "dog/b.jpg", "cat/a.png", "cat/deep/er/c.JPEG")
    assert rows(read_layout(tmp_path)) == [
        ("cat/a.png", "cat", ""),
        ("cat/deep/er/c.JPEG", "cat", ""),
        ("dog/b.jpg", "dog", ""),
    ]


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (("train", "test"), ("train", "test")),
        (("Training", "VALID", "testing"), ("train", "val", "test")),
        (("train", "validation"), ("train", "val")),
    ],
)
def test_split_folders_by_any_of_their_names(tmp_path, names, splits):
    for name in names:
        put(tmp_path, f"{name}/ants/1.jpg", f"{name}/bees/2.jpg")
    assert {split for _, _, split in rows(read_layout(tmp_path))} == set(splits)


def test_a_class_called_train_is_a_class(tmp_path):
    put(tmp_path, "bus/1.jpg", "train/1.jpg", "plane/1.jpg")
    listing = read_layout(tmp_path)
    assert set(listing.labels) == {"bus", "train", "plane"}
    assert set(listing.split.tolist()) == {-1}


@pytest.mark.parametrize("below", ["", "top/", "top/deeper/"])
@pytest.mark.parametrize("kind", ["classes", "splits", "lists", "table"])
def test_wrapping_folders_are_passed_through(tmp_path, below, kind):
    put(tmp_path, ".DS_Store", "__MACOSX/top/._x.jpg")
    prefix = "train/" if kind == "splits" else ""
    put(tmp_path / below, f"{prefix}a/1.jpg", f"{prefix}b/2.jpg")
    if kind == "lists":
        (tmp_path / below / "train.txt").write_text("a/1.jpg x\nb/2.jpg y\n")
    if kind == "table":
        (tmp_path / below / "t.csv").write_text("path,label\na/1.jpg,x\nb/2.jpg,y\n")
    listing = read_layout(tmp_path)
    assert listing.root == (tmp_path / below).resolve()
    assert listing.paths == [f"{prefix}a/1.jpg", f"{prefix}b/2.jpg"]
    assert listing.labels == (["a", "b"] if kind in ("classes", "splits") else ["x", "y"])


def test_list_files_take_the_label_after_the_last_space(tmp_path):
    put(tmp_path, "my images/a 1.jpg", "b.jpg", "über/ç.png", "d.jpg")
    (tmp_path / "train.txt").write_text("my images/a 1.jpg 0\n\nb.jpg\t1\r\n", encoding="utf-8")
    (tmp_path / "Test.txt").write_text(
        f"\ufeffüber/ç.png   1\n{tmp_path}/d.jpg 0", encoding="utf-8"
    )
    expected = [
        ("b.jpg", "1", "train"),
        ("d.jpg", "0", "test"),
        ("my images/a 1.jpg", "0", "train"),
        ("über/ç.png", "1", "test"),
    ]
    assert rows(read_layout(tmp_path)) == expected
    assert rows(read_layout(tmp_path / "train.txt")) == expected


def test_a_list_file_of_another_name_has_no_split(tmp_path):
    put(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / "all.txt").write_text("a.jpg x\nb.jpg y\n")
    assert rows(read_layout(tmp_path / "all.txt")) == [("a.jpg", "x", ""), ("b.jpg", "y", "")]


def test_paths_outside_the_list_s_folder_still_open(tmp_path):
    put(tmp_path, "images/a.jpg", "images/b.jpg")
    lists = tmp_path / "lists" / "deep"
    lists.mkdir(parents=True)
    link = tmp_path / "link"
    link.symlink_to(lists)
    (lists / "all.txt").write_text(f"{tmp_path}/images/a.jpg x\n../../images/b.jpg y\n")
    listing = read_layout(link / "all.txt")
    assert [(listing.root / path).read_text() for path in listing.paths] == [
        "images/a.jpg",
        "images/b.jpg",
    ]


def test_a_list_made_on_windows(tmp_path):
    put(tmp_path, "img/a.jpg", "img/b.jpg")
    (tmp_path / "train.txt").write_text("img\\a.jpg 0\r\nimg\\b.jpg 1\r\n")
    assert read_layout(tmp_path).paths == ["img/a.jpg", "img/b.jpg"]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_table_keeps_further_columns(tmp_path, delimiter):
    put(tmp_path, "a b.jpg", "c,d;e.jpg")
    lines = [
        ["Label", " path ", "SPLIT", "age", "weight", "site"],
        ["x y", "a b.jpg", "train", "3", "1.5", "north"],
        ["z", '"c,d;e.jpg"', "validation", "-4", "2", ""],
    ]
    text = "\ufeff" + "\n".join(delimiter.join(line) for line in lines)
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match="val has 1 class that train lacks: 'z'"):
        read_layout(tmp_path)
    (tmp_path / "t.csv").write_text(text.replace("validation", "train"), encoding="utf-8")
    listing = read_layout(tmp_path / "t.csv")
    assert rows(listing) == [("a b.jpg", "x y", "train"), ("c,d;e.jpg", "z", "train")]
    assert listing.extra["age"].tolist() == [3, -4]
    assert listing.extra["age"].dtype.kind == "i"
    assert listing.extra["weight"].tolist() == [1.5, 2.0]
    assert listing.extra["site"].tolist() == ["north", ""]


def test_rows_come_sorted_and_extra_columns_with_them(tmp_path):
    names = [f"{i}.jpg" for i in (5, 3, 9, 1)]
    put(tmp_path, *names)
    lines = [f"{name},{'ab'[i % 2]},{name[0]}" for i, name in enumerate(names)]
    (tmp_path / "t.csv").write_text("path,label,number\n" + "\n".join(lines))
    listing = read_layout(tmp_path)
    assert listing.paths == sorted(names)
    assert listing.extra["number"].tolist() == [1, 3, 5, 9]


def test_what_is_no_image_is_counted_and_junk_is_not(tmp_path):
    put(tmp_path, "a/1.jpg", "b/1.gif", "a/notes.txt", "LICENSE", "b/x.py", "b/.hidden.jpg")
    put(tmp_path, "a/Thumbs.db", "__MACOSX/a/1.jpg", "stray.png", ".git/a/1.jpg", "a/.jpg")
    listing = read_layout(tmp_path)
    assert listing.paths == ["a/1.jpg", "b/1.gif"]
    text = "\n".join(listing.warnings)
    assert "3 files are no images and were ignored" in text
    assert "1 image lies in no class folder" in text


def test_links_to_folders_are_followed_and_loops_end(tmp_path):
    real = put(tmp_path / "elsewhere", "1.jpg", "2.jpg")
    root = put(tmp_path / "set", "a/1.jpg", "b/0.jpg")
    (root / "b" / "more").symlink_to(real)
    (root / "a" / "loop").symlink_to(root)
    (root / "a" / "self").symlink_to(root / "a" / "self")
    paths = read_layout(root).paths
    assert "b/more/2.jpg" in paths
    assert not any(path.startswith("a/loop/a") for path in paths)
    assert len(paths) == len(set(paths))


def test_names_that_are_not_utf8_are_rejected_by_name(tmp_path):
    put(tmp_path, "a/1.jpg", "b/1.jpg")
    (tmp_path / "a" / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"x")
    listing = read_layout(tmp_path)
    assert listing.paths == ["a/1.jpg", "b/1.jpg"]
    assert [path for path, _ in listing.rejects] == ["a/caf\\udce9.jpg"]
    os.rename(tmp_path / "b", tmp_path / os.fsdecode(b"b\xff"))  # noqa: PTH104
    with pytest.raises(DataError, match="not UTF-8"):
        read_layout(tmp_path)


def test_splits_under_longer_names_are_splits_and_said(tmp_path):
    for top in ("training_set", "test_set"):
        put(tmp_path, f"{top}/{top}/cats/1.jpg", f"{top}/{top}/dogs/1.jpg")
    listing = read_layout(tmp_path)
    assert set(listing.labels) == {"cats", "dogs"}
    assert set(listing.split.tolist()) == {0, 2}
    assert "train from training_set" in " ".join(listing.warnings)


def test_an_unlabelled_test_is_left_out_and_offered_for_prediction(tmp_path):
    put(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "test/1.jpg")
    listing = read_layout(tmp_path)
    assert listing.paths == ["train/a/1.jpg", "train/b/1.jpg"]
    assert f"make predict IMAGES={tmp_path}/test" in " ".join(listing.warnings)


def test_an_empty_class_folder_is_a_warning(tmp_path):
    put(tmp_path, "a/1.jpg", "b/1.jpg")
    (tmp_path / "c").mkdir()
    assert "Empty class folders: c." in read_layout(tmp_path).warnings


def test_labels_named_by_a_file_win_over_folders_and_say_so(tmp_path):
    put(tmp_path, "north/1.jpg", "south/2.jpg")
    (tmp_path / "t.csv").write_text("path,label\nnorth/1.jpg,x\nsouth/2.jpg,y\n")
    listing = read_layout(tmp_path)
    assert listing.labels == ["x", "y"]
    assert "Labels were read from t.csv" in listing.warnings[0]


def test_a_table_of_something_else_is_no_layout(tmp_path):
    put(tmp_path, "a/1.jpg", "b/1.jpg")
    (tmp_path / "results.csv").write_text("model,accuracy\nx,0.9\n")
    assert read_layout(tmp_path).labels == ["a", "b"]


MISTAKES = {
    "an empty folder": ([], {}, "holds no images"),
    "one class": (["a/1.jpg", "a/2.jpg"], {}, "one class only: 'a'"),
    "images without class folders": (["1.jpg", "2.jpg"], {}, "2 images but no class folders"),
    "a class in test that train lacks": (
        ["train/a/1.jpg", "train/b/1.jpg", "test/a/1.jpg", "test/c/1.jpg"],
        {},
        "test has 1 class that train lacks: 'c'",
    ),
    "splits and classes": (
        ["train/a/1.jpg", "train/b/1.jpg", "cats/1.jpg"],
        {},
        "mixes splits (train) with what look like classes (cats)",
    ),
    "unlabelled train": (
        ["train/1.jpg", "test/a/1.jpg", "test/b/1.jpg"],
        {},
        "train holds images directly",
    ),
    "only a test": (["test/a/1.jpg", "test/b/1.jpg"], {}, "no training images, only test"),
    "two folders for one split": (
        ["train/a/1.jpg", "train/b/1.jpg", "val/a/1.jpg", "valid/a/1.jpg"],
        {},
        "val and valid in",
    ),
    "files that are not there": (
        ["0.jpg"],
        {"train.txt": "".join(f"{i}.jpg {i % 2}\n" for i in range(8))},
        "7 of 8 files named by",
    ),
    "a line without a label": (
        ["a.jpg", "b.jpg"],
        {"train.txt": "a.jpg x\nb.jpg\n"},
        "line 2, has no label: 'b.jpg'",
    ),
    "two labels": (
        ["a.jpg", "b.jpg"],
        {"train.txt": "a.jpg x\nb.jpg y\n", "test.txt": "a.jpg y\n"},
        "1 row of",
    ),
    "columns missing": (
        ["a.jpg"],
        {"given.csv": "subject,class\na1,x\n"},
        "no column names images that are there",
    ),
    "a column twice": (
        ["a.jpg"],
        {"given.csv": "path,label,label\na.jpg,x,y\n"},
        "has 'label' twice",
    ),
    "an empty label": (
        ["a.jpg", "b.jpg"],
        {"given.csv": "path,label\na.jpg,x\nb.jpg, \n"},
        "given.csv:3",
    ),
    "an unknown split": (
        ["a.jpg", "b.jpg"],
        {"given.csv": "path,label,split\na.jpg,x,train\nb.jpg,y,unseen\n"},
        "its 'unseen' means no split",
    ),
    "a split for some": (
        ["a.jpg", "b.jpg"],
        {"given.csv": "path,label,split\na.jpg,x,train\nb.jpg,y,\n"},
        "1 of 2 images have no split",
    ),
    "too few cells": (
        ["a.jpg"],
        {"given.csv": "path,label\na.jpg\n"},
        "given.csv:2 has 1 cell",
    ),
    "two tables": (
        ["a.jpg"],
        {"x.csv": "path,label\na.jpg,x\n", "y.csv": "path,label\na.jpg,y\n"},
        "several files that name labels: x.csv, y.csv",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_answered(tmp_path, mistake):
    images, texts, message = MISTAKES[mistake]
    put(tmp_path, *images)
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    given = tmp_path / "given.csv" if "given.csv" in texts else tmp_path
    with pytest.raises(DataError) as caught:
        read_layout(given)
    assert message in caught.value.found
    assert caught.value.expected


def test_of_many_missing_files_the_first_five_are_named(tmp_path):
    (tmp_path / "train.txt").write_text("".join(f"{i}.jpg {i % 2}\n" for i in range(20)))
    with pytest.raises(DataError, match=r"4\.jpg \(train\.txt:5\) and 15 more"):
        read_layout(tmp_path)


@pytest.mark.parametrize(
    ("encoding", "names"),
    [
        ("latin-1", ("Käfer", "Fêtes")),
        ("cp1252", ("naïve", "coöp")),
        ("gb18030", ("蚂蚁", "蜜蜂")),
        ("utf-16", ("Käfer", "蜜蜂")),
        ("utf-8-sig", ("Käfer", "蜜蜂")),
    ],
)
def test_a_table_in_another_encoding_is_read_and_the_encoding_said(tmp_path, encoding, names):
    put(tmp_path, "a.jpg", "b.jpg")
    text = f"path,label\na.jpg,{names[0]}\nb.jpg,{names[1]}\n"
    (tmp_path / "t.csv").write_bytes(text.encode(encoding))
    listing = read_layout(tmp_path / "t.csv")
    assert listing.labels == list(names)
    said = " ".join(listing.warnings)
    assert ("decoded as" in said) == (encoding != "utf-8-sig")


def test_a_file_of_another_kind_is_answered(tmp_path):
    put(tmp_path, "a.h5")
    with pytest.raises(DataError, match="holds no data set"):
        read_layout(tmp_path / "a.h5")


# --- what was found by trying further forms


def test_thumbnails_beside_the_classes_are_no_class(tmp_path):
    names = {f"{kind}/{n}.jpg" for kind in ("ants", "bees") for n in range(3)}
    root = put(tmp_path / "set", *names, *(f"thumbnails/{name}" for name in names))
    listing = read_layout(root)
    assert set(listing.labels) == {"ants", "bees"}
    assert any("thumbnails" in text and "left out" in text for text in listing.warnings)
    (root / "thumbnails").rename(root / "small")
    with pytest.raises(DataError, match="another version of the images") as caught:
        read_layout(root)
    assert "LAYOUT=classes" in str(caught.value)


def test_splits_inside_the_classes_are_used(tmp_path):
    parts = [("ants", "train"), ("ants", "test"), ("bees", "train"), ("bees", "test")]
    files = {f"{k}/{s}/{n}.jpg" for k, s in parts for n in range(3)}
    listing = read_layout(put(tmp_path / "set", *files))
    assert set(zip(listing.labels, (SPLITS[one] for one in listing.split), strict=True)) == {*parts}
    assert any("inside the classes" in text for text in listing.warnings)


@pytest.mark.parametrize(
    "words", [("train", "dev", "eval"), ("Trainingsdaten", "val", "Testdaten")]
)
@pytest.mark.parametrize("form", ["folders", "table"])
def test_three_words_are_three_splits(tmp_path, words, form):
    lines, files = ["image,label,subset"], []
    for at, word in enumerate(words):
        for kind in ("ants", "bees"):
            name = f"{kind}{at}.jpg"
            files.append(f"{word}/{kind}/{name}" if form == "folders" else f"img/{name}")
            lines.append(f"{name},{kind},{word}")
    root = put(tmp_path / "set", *files)
    if form == "table":
        (root / "labels.csv").write_text("\n".join(lines) + "\n")
    listing = read_layout(root)
    assert sorted(listing.split.tolist()) == [0, 0, 1, 1, 2, 2]


def test_a_table_of_a_spreadsheet_that_names_its_separator(tmp_path):
    root = put(tmp_path / "set", *(f"bilder/{n}.jpg" for n in range(4)))
    lines = ["sep=;", '"Dateiname";"Klasse"']
    lines += [f'"bilder/{n}.jpg";"{("groß", "klein, rot")[n % 2]}"' for n in range(4)]
    (root / "Etiketten.csv").write_text("\r\n".join(lines), encoding="cp1252")
    assert set(read_layout(root).labels) == {"groß", "klein, rot"}


def test_names_of_classes_in_numbered_parts_are_offered(tmp_path):
    files = {f"batch{n % 3}/{('ant', 'bee')[n % 2]}_{n:02}.jpg" for n in range(12)}
    root = put(tmp_path / "set", *files)
    with pytest.raises(DataError, match="parts of one set") as caught:
        read_layout(root)
    assert "LAYOUT=names" in str(caught.value)
    assert set(read_layout(root, DataSettings(layout="names")).labels) == {"ant", "bee"}
