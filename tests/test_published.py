"""Data sets in the form in which they were published: read as they are, or asked about."""

import gzip
import json
import struct
from pathlib import Path

import numpy as np
import pytest
from cnn_codes.datasets import load_manifest
from cnn_codes.datasets.images import decode
from cnn_codes.datasets.layout import read_layout
from cnn_codes.errors import DataError
from cnn_codes.settings import DataSettings, PlaceSettings
from test_found_data import SPLIT, followed, lay, read

KINDS = ("ant", "bee", "cat")


def text(root: Path, name: str, lines: list[str]) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text("\n".join(lines) + "\n")


def rows(root: Path, **ask: str) -> dict[str, tuple[str, str]]:
    """Give split and class of each image, by its path."""
    listing = read_layout(root, DataSettings(**ask))
    found = zip(listing.split.tolist(), listing.labels, strict=True)
    return {p: (SPLIT[s], label) for p, (s, label) in zip(listing.paths, found, strict=True)}


def birds(root: Path, *, flat: bool) -> dict[str, tuple[str, str]]:
    """Lay out a set as CUB-200-2011 is; give what it says of each image."""
    expected = {}
    texts: dict[str, list[str]] = {"images": [], "image_class_labels": [], "train_test_split": []}
    for n in range(18):
        kind, train = n % 3, n < 12
        name = f"x{n}.jpg" if flat else f"{kind + 1:03}.{KINDS[kind]}/x{n}.jpg"
        expected[f"images/{name}"] = ("train" if train else "test", f"{kind + 1:03}.{KINDS[kind]}")
        texts["images"].append(f"{n + 1} {name}")
        texts["image_class_labels"].append(f"{n + 1} {kind + 1}")
        texts["train_test_split"].append(f"{n + 1} {int(train)}")
    for name, lines in texts.items():
        text(root, f"{name}.txt", lines)
    text(root, "classes.txt", [f"{k + 1} {k + 1:03}.{kind}" for k, kind in enumerate(KINDS)])
    text(root, "bounding_boxes.txt", [f"{n + 1} 1.0 2.0 3.0 4.0" for n in range(18)])
    lay(root, list(expected))
    return expected


@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("wrapped", [True, False])
def test_texts_by_number_are_joined(tmp_path, flat, wrapped):
    root = tmp_path / "set" / "CUB_200_2011" if wrapped else tmp_path / "set"
    expected = birds(root, flat=flat)
    found = rows(tmp_path / "set")
    assert {path.removeprefix("CUB_200_2011/"): one for path, one in found.items()} == expected


def faces(root: Path) -> dict[str, tuple[str, str]]:
    """Lay out a set as CelebA is; give the split and Smiling of each image."""
    expected, attributes, parts = {}, [], []
    for n in range(1, 25):
        part = 0 if n < 15 else 1 if n < 20 else 2
        expected[f"{n:06}.jpg"] = (("train", "val", "test")[part], "1" if n % 2 else "-1")
        attributes.append(f"{n:06}.jpg {1 if n % 2 else -1}  {1 if n % 3 else -1}")
        parts.append(f"{n:06}.jpg {part}")
    text(root, "Anno/list_attr_celeba.txt", ["24", "Smiling Male ", *attributes])
    text(root, "Eval/list_eval_partition.txt", parts)
    lay(root, [f"Img/img_align_celeba/{name}" for name in expected])
    return {f"Img/img_align_celeba/{name}": one for name, one in expected.items()}


def test_attributes_are_asked_about_and_the_answer_has_the_splits_of_the_set(tmp_path):
    expected = faces(tmp_path)
    for given in (tmp_path, tmp_path / "Anno" / "list_attr_celeba.txt"):
        with pytest.raises(DataError, match="which column is the label is not certain") as caught:
            read(given)
        answer = followed(caught.value)[0]
        assert answer["LABEL_COLUMN"] == "smiling"
        assert rows(Path(answer["DATA"]), label_column="smiling") == expected


def test_a_table_of_attributes_takes_the_splits_of_the_table_beside_it(tmp_path):
    names = [f"img/img/{n:06}.jpg" for n in range(24)]
    lay(tmp_path, names)
    text(tmp_path, "list_attr.csv", ["image_id,Smiling,Male", *(
        f"{n:06}.jpg,{1 if n % 2 else -1},{1 if n % 3 else -1}" for n in range(24))])  # fmt: skip
    text(tmp_path, "list_eval_partition.csv", ["image_id,partition", *(
        f"{n:06}.jpg,{0 if n < 16 else 1 if n < 20 else 2}" for n in range(24))])  # fmt: skip
    for given in (tmp_path, tmp_path / "list_attr.csv"):
        splits = {split for split, _ in rows(given, label_column="Smiling").values()}
        assert splits == {"train", "val", "test"}


def voc(root: Path, *, lists: bool) -> None:
    names = [f"2008_{n:06}" for n in range(18)]
    lay(root, [f"JPEGImages/{name}.jpg" for name in names])
    lay(root, [f"SegmentationClass/{name}.png" for name in names[:9]])
    shows = {name: [KINDS[n % 3], *(["cat"] if n % 6 == 0 else [])] for n, name in enumerate(names)}
    for name, kinds in shows.items():
        marks = "".join(
            f"<object><name>{kind}</name><part><name>head</name></part></object>" for kind in kinds
        )
        text(root, f"Annotations/{name}.xml", [f"<annotation>{marks}</annotation>"])
    main = root / "ImageSets" / "Main"
    for split, some in (("train", names[:12]), ("val", names[12:]), ("trainval", names)):
        text(main, f"{split}.txt", some)
        for kind in KINDS if lists else ():
            text(main, f"{kind}_{split}.txt", [
                f"{name} {' 1' if kind in shows[name] else '-1'}" for name in some])  # fmt: skip


@pytest.mark.parametrize("lists", [True, False])
def test_pascal_voc_is_asked_about_several_labels_and_every_answer_works(tmp_path, lists):
    voc(tmp_path / "VOCdevkit" / "VOC2012", lists=lists)
    with pytest.raises(DataError, match=r"3 of 18 rows .* have several labels"):
        read(tmp_path)
    assert len(rows(tmp_path, label="drop")) == 15
    found = rows(tmp_path, label="first")
    assert {split for split, _ in found.values()} == {"train", "val"}
    assert {label for _, label in found.values()} == set(KINDS)
    assert "cat+ant" in {x for _, x in rows(tmp_path, label="combine").values()} or (
        "ant+cat" in {x for _, x in rows(tmp_path, label="combine").values()})  # fmt: skip


def test_an_entity_in_an_annotation_is_not_expanded(tmp_path):
    lay(tmp_path, [f"{n}.jpg" for n in range(6)])
    for n in range(6):
        text(tmp_path, f"{n}.xml", ['<!DOCTYPE a [<!ENTITY x "ant">]>',
             "<annotation><object><name>&x;</name></object></annotation>"])  # fmt: skip
    with pytest.raises(DataError, match="no class folders"):
        read(tmp_path)


MARKED = {
    "Pascal VOC beside the images": lambda n, kind: (
        f"train/{n}.xml", f"<annotation><object><name>{kind}</name></object></annotation>"),
    "YOLO beside folders of images": lambda n, kind: (
        f"labels/train/{n}.txt", f"{KINDS.index(kind)} 0.5 0.5 0.1 0.1\n{KINDS.index(kind)} "
        "0.2 0.2 1e-1 0.1"),
    "LabelMe": lambda n, kind: (
        f"train/{n}.json", f'{{"shapes": [{{"label": "{kind}"}}], "imagePath": "x"}}'),
}  # fmt: skip


@pytest.mark.parametrize("form", MARKED.values(), ids=MARKED)
@pytest.mark.parametrize("names", ["[ant, bee, cat]", "\n  0: ant\n  1: bee\n  2: cat"])
def test_marked_objects_of_one_class_an_image_are_its_label(tmp_path, form, names):
    yolo = form(0, "ant")[0].startswith("labels")
    folder = "images/train" if yolo else "train"
    expected = {}
    for n in range(12):
        kind = KINDS[n % 3]
        text(tmp_path, form(n, kind)[0], [form(n, kind)[1]])
        expected[f"{folder}/{n}.jpg"] = ("", kind)
    lay(tmp_path, list(expected))
    text(tmp_path, "data.yaml", ["nc: 3", f"names: {names}"])
    assert rows(tmp_path) == expected


@pytest.mark.parametrize(
    "names", ["{1: bee, 0: ant, 4: cat}", "\n  4: cat\n  0: ant # six legs\n  1: 'bee'",
              "[ant, bee, two, three, cat] # all"]
)  # fmt: skip
def test_names_of_yolo_belong_to_their_numbers(tmp_path, names):
    numbers = [0, 1, 4]
    for n in range(12):
        text(tmp_path, f"labels/{n}.txt", [f"{numbers[n % 3]} 0.5 0.5 0.1 0.1"])
    lay(tmp_path, [f"images/{n}.jpg" for n in range(12)])
    text(tmp_path, "data.yaml", ["nc: 5", f"names: {names}"])
    assert rows(tmp_path) == {f"images/{n}.jpg": ("", KINDS[n % 3]) for n in range(12)}


def test_an_empty_line_among_names_has_a_number_too(tmp_path):
    for n in range(12):
        text(tmp_path, f"labels/{n}.txt", [f"{n % 2 * 2} 0.5 0.5 0.1 0.1"])
    lay(tmp_path, [f"images/{n}.jpg" for n in range(12)])
    text(tmp_path, "obj.names", ["ant", "", "bee", ""])
    assert {label for _, label in rows(tmp_path).values()} == {"ant", "bee"}


def test_a_yaml_that_refers_to_itself_ends_nothing(tmp_path):
    for n in range(12):
        text(tmp_path, f"labels/{n}.txt", [f"{n % 2} 0.5 0.5 0.1 0.1"])
    lay(tmp_path, [f"images/{n}.jpg" for n in range(12)])
    text(tmp_path, "data.yaml", ["names: &a [ant, *a]", "x: !!python/object:os.system {}"])
    assert {label for _, label in rows(tmp_path).values()} == {"0", "1"}


def test_tags_of_cvat_are_labels(tmp_path):
    lay(tmp_path, [f"images/{n}.jpg" for n in range(12)])
    text(tmp_path, "annotations.xml", ["<annotations>", *(
        f'<image id="{n}" name="{n}.jpg"><tag label="{KINDS[n % 3]}"/></image>' for n in range(12)),
        "</annotations>"])  # fmt: skip
    assert {label for _, label in rows(tmp_path).values()} == set(KINDS)


def matlab(path: Path, **values: object) -> None:
    scipy_io = pytest.importorskip("scipy.io")
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy_io.savemat(path, values, do_compression=True)


def test_vectors_of_numbered_images_are_labels_and_splits(tmp_path):
    lay(tmp_path, [f"jpg/image_{n:05}.jpg" for n in range(1, 19)])
    matlab(tmp_path / "imagelabels.mat", labels=np.array([[n % 3 + 1 for n in range(18)]]))
    matlab(tmp_path / "setid.mat", trnid=np.arange(1, 10), valid=np.arange(10, 13),
           tstid=np.arange(13, 19))  # fmt: skip
    found = rows(tmp_path)
    assert found["jpg/image_00001.jpg"] == ("train", "1")
    assert found["jpg/image_00012.jpg"] == ("val", "3")
    assert found["jpg/image_00018.jpg"] == ("test", "3")


def test_records_of_files_and_classes_take_their_names(tmp_path):
    records = np.zeros((1, 18), dtype=[("relative_im_path", "O"), ("class", "O"), ("test", "O")])
    for n in range(18):
        records[0, n] = (f"car_ims/{n:06}.jpg", n % 3 + 1, int(n > 11))
    lay(tmp_path, [f"car_ims/{n:06}.jpg" for n in range(18)])
    names = np.array(["Audi A4", "Fiat 500", "Opel"], dtype=object)
    matlab(tmp_path / "cars_annos.mat", annotations=records, class_names=names)
    found = rows(tmp_path)
    assert found["car_ims/000004.jpg"] == ("train", "Fiat 500")
    assert found["car_ims/000014.jpg"] == ("test", "Opel")


def test_two_splits_whose_names_are_the_same_are_told_apart_by_their_folders(tmp_path):
    for split, start in (("train", 0), ("test", 1)):
        names = [f"{n:05}.jpg" for n in range(12)]
        lay(tmp_path, [f"cars_{split}/{name}" for name in names])
        labels = [KINDS[(n + start) % 3] for n in range(12)]
        text(tmp_path, f"{split}.csv", ["file,class", *(
            f"{name},{label}" for name, label in zip(names, labels, strict=True))])  # fmt: skip
    found = rows(tmp_path)
    assert len(found) == 24
    assert found["cars_train/00000.jpg"] == ("train", "ant")
    assert found["cars_test/00000.jpg"] == ("test", "bee")


SPLIT_WORDS = {
    "numbers": ("split", ["0", "1", "2"], {"train", "val", "test"}),
    "words of a benchmark": ("set", ["query", "gallery", "train"], None),
    "two numbers": ("subset", ["1", "2"], {"train", "test"}),
}


@pytest.mark.parametrize(("name", "words", "splits"), SPLIT_WORDS.values(), ids=SPLIT_WORDS)
@pytest.mark.parametrize("beside", [True, False])
def test_words_of_splits_that_are_not_known_are_asked_about(tmp_path, name, words, splits, beside):
    paths = [f"{kind}/{n}.jpg" for kind in KINDS for n in range(9)]
    lay(tmp_path, paths)
    label = "" if beside else ",label"
    text(tmp_path, "t.csv", [f"file,{name}{label}", *(
        f"{path},{words[n % len(words)]}" + ("" if beside else f",{path[:3]}")
        for n, path in enumerate(paths))])  # fmt: skip
    with pytest.raises(DataError, match=r"looks like the splits|means? no split") as caught:
        read(tmp_path)
    first, second = followed(caught.value)
    found = {split for split, _ in rows(tmp_path, split_column=first["SPLIT_COLUMN"]).values()}
    assert found == splits if splits else found >= {"train", "test"}
    without = rows(tmp_path, split_column=second["SPLIT_COLUMN"])
    assert {split for split, _ in without.values()} == {""}


def test_one_fold_can_be_the_test(tmp_path):
    paths = [f"{kind}/{n}.jpg" for kind in KINDS for n in range(10)]
    lay(tmp_path, paths)
    text(tmp_path, "t.csv", ["path,label,fold", *(
        f"{path},{path[:3]},{n % 5}" for n, path in enumerate(paths))])  # fmt: skip
    assert "SPLIT_COLUMN=fold:test=0" in " ".join(read_layout(tmp_path / "t.csv").warnings)
    found = rows(tmp_path / "t.csv", split_column="fold:test=4")
    assert sum(split == "test" for split, _ in found.values()) == 6


def test_a_flat_val_takes_its_classes_from_the_text_in_it(tmp_path):
    for kind in KINDS:
        lay(tmp_path, [f"train/{kind}/images/{kind}_{n}.jpg" for n in range(6)])
        text(
            tmp_path,
            f"train/{kind}/{kind}_boxes.txt",
            [f"{kind}_{n}.jpg 0 0 9 9" for n in range(6)],
        )
    lay(tmp_path, [f"val/images/val_{n}.jpg" for n in range(9)])
    text(
        tmp_path,
        "val/val_annotations.txt",
        [f"val_{n}.jpg {KINDS[n % 3]} 0 0 9 9" for n in range(9)],
    )
    found = rows(tmp_path)
    assert len(found) == 27
    assert found["val/images/val_4.jpg"] == ("val", "bee")


def test_classes_that_are_one_number_take_no_numbers_from_a_text(tmp_path):
    lay(tmp_path, [f"train/{k}/{k}_{n}.jpg" for k in ("1", "01", "2") for n in range(6)])
    lay(tmp_path, [f"test/t{n}.jpg" for n in range(6)])
    text(tmp_path, "test/gt.csv", ["name,class", *(f"t{n}.jpg,{('001', '2')[n % 2]}"
                                                   for n in range(6))])  # fmt: skip
    with pytest.raises(DataError, match="one of the two"):
        read(tmp_path)


def test_a_flat_test_takes_its_classes_from_a_table_of_numbers(tmp_path):
    for k in range(3):
        lay(tmp_path, [f"Final_Training/Images/{k:05}/{n}.ppm" for n in range(6)])
    lay(tmp_path, [f"Final_Test/Images/{n:05}.ppm" for n in range(9)])
    text(tmp_path, "GT-final_test.csv", ["Filename;Width;ClassId", *(
        f"{n:05}.ppm;2;{n % 3}" for n in range(9))])  # fmt: skip
    found = rows(tmp_path)
    assert found["Final_Test/Images/00004.ppm"] == ("test", "00001")
    assert {split for split, _ in found.values()} == {"train", "test"}


def aircraft(root: Path) -> None:
    names = [f"{n:07}" for n in range(18)]
    kinds = ["Boeing 707-320", "A300B4", "F/A-18"]
    lay(root, [f"data/images/{name}.jpg" for name in names])
    for split, some in (("train", range(9)), ("val", range(9, 12)), ("test", range(12, 18)),
                        ("trainval", range(12))):  # fmt: skip
        text(root, f"data/images_{split}.txt", [names[n] for n in some])
        for what, cut in (("variant", 1), ("family", 2)):
            text(root, f"data/images_{what}_{split}.txt",
                 [f"{names[n]} {kinds[n % 3 // cut]}" for n in some])  # fmt: skip


def test_lists_of_several_kinds_of_labels_are_asked_about_and_names_have_blanks(tmp_path):
    aircraft(tmp_path)
    with pytest.raises(DataError, match="lists of 2 kinds of labels") as caught:
        read(tmp_path)
    found = rows(Path(followed(caught.value)[1]["DATA"]))
    assert found["images/0000000.jpg"] == ("train", "Boeing 707-320")
    assert {split for split, _ in found.values()} == {"train", "val", "test"}


def test_each_list_decides_whether_its_names_are_paths(tmp_path):
    lay(tmp_path, [f"data/{kind}/{n}.jpg" for kind in KINDS for n in range(6)])
    lay(tmp_path, [f"held/set_val_{n}.jpg" for n in range(6)])
    text(tmp_path, "set_train.txt", [
        f"/{kind}/{n}.jpg {k}" for k, kind in enumerate(KINDS) for n in range(6)])  # fmt: skip
    text(tmp_path, "set_val.txt", [f"set_val_{n}.jpg {n % 3}" for n in range(6)])
    found = rows(tmp_path)
    assert len(found) == 24
    assert found["held/set_val_4.jpg"] == ("val", "1")


def test_masks_next_to_a_list_are_not_its_images(tmp_path):
    names = [f"{kind}_{n}" for kind in KINDS for n in range(6)]
    lay(tmp_path, [f"images/{name}.jpg" for name in names])
    lay(tmp_path, [f"annotations/trimaps/{name}.png" for name in names])
    text(tmp_path, "annotations/trainval.txt", [f"{name} {name[:3]}" for name in names])
    for given in (tmp_path, tmp_path / "annotations" / "trainval.txt"):
        assert all("images/" in path for path in rows(given))


def test_labels_that_are_denied_are_no_labels(tmp_path):
    lay(tmp_path, [f"train/{n:016x}.jpg" for n in range(12)])
    text(tmp_path, "train-annotations-human-imagelabels.csv", [
        "ImageID,Source,LabelName,Confidence", *(
            f"{n:016x},verification,/m/0{k},{int(n % 2 == k)}"
            for n in range(12) for k in (1, 0))])  # fmt: skip
    text(tmp_path, "class-descriptions.csv", ["/m/00,Cat", "/m/01,Dog"])
    assert rows(tmp_path)[f"train/{5:016x}.jpg"] == ("", "Dog")
    assert "12 rows of confidence 0" in " ".join(read_layout(tmp_path).warnings)


def test_prediction_strings_are_classes(tmp_path):
    for split in ("train", "val"):
        lay(tmp_path, [f"Data/{split}/{split}_{n}.jpg" for n in range(9)])
        said = [f"{split}_{n},{f'{KINDS[n % 3]} 1 2 3 4 ' * 2}" for n in range(9)]
        text(tmp_path, f"LOC_{split}_solution.csv", ["ImageId,PredictionString", *said])
    assert rows(tmp_path)["Data/val/val_4.jpg"] == ("val", "bee")


def exported(form: str, n: int, kind: str) -> object:
    """Give what a labelling tool writes of one image, ``a<n>.jpg``."""
    if form == "Label Studio":
        return {"id": n, "data": {"image": f"/data/upload/1/1a2b3c4d-a{n}.jpg"}, "annotations": [
            {"result": [{"value": {"choices": [kind]}, "type": "choices"}]}]}  # fmt: skip
    if form == "Label Studio, short":
        return {"id": n, "image": f"/data/local-files/?d=images/a{n}.jpg", "choice": kind}
    if form == "CreateML":
        return {"image": f"a{n}.jpg", "annotations": [{"label": kind, "coordinates": {"x": 1}}]}
    if form == "VIA":
        return {"filename": f"a{n}.jpg", "regions": [{"region_attributes": {"type": kind}}]}
    return {"file_name": f"a{n}.jpg", "objects": {"bbox": [[1, 2, 3, 4]], "categories": [kind]}}


@pytest.mark.parametrize(
    "form", ["Label Studio", "Label Studio, short", "CreateML", "VIA", "Hugging Face"]
)
def test_exports_of_labelling_tools_are_read(tmp_path, form):
    lay(tmp_path, [f"images/a{n}.jpg" for n in range(12)])
    said = [exported(form, n, KINDS[n % 3]) for n in range(12)]
    text(tmp_path, "export.json", [json.dumps(said)])
    assert rows(tmp_path) == {f"images/a{n}.jpg": ("", KINDS[n % 3]) for n in range(12)}


def test_annotations_in_the_folder_of_each_split_are_read(tmp_path):
    for split, start in (("train", 0), ("valid", 50)):
        names = [f"{start + n}.jpg" for n in range(9)]
        lay(tmp_path, [f"{split}/{name}" for name in names])
        held = {
            "images": [{"id": n, "file_name": name} for n, name in enumerate(names)],
            "annotations": [{"image_id": n, "category_id": n % 3} for n in range(9)],
            "categories": [{"id": k, "name": kind} for k, kind in enumerate(KINDS)],
        }
        text(tmp_path, f"{split}/_annotations.coco.json", [json.dumps(held)])
    found = rows(tmp_path)
    assert found["train/4.jpg"] == ("train", "bee")
    assert found["valid/54.jpg"] == ("val", "bee")


def test_labels_joined_by_a_bar_are_several_though_they_occur_once(tmp_path):
    lay(tmp_path, [f"{n}.png" for n in range(12)])
    text(
        tmp_path,
        "t.csv",
        [
            "Image Index,Finding Labels",
            *(f"{n}.png,{('None', 'Mass')[n % 2]}{'|Edema' if n == 5 else ''}" for n in range(12)),
        ],
    )
    with pytest.raises(DataError, match="1 of 12 rows"):
        read(tmp_path)
    assert "5.png" not in rows(tmp_path, label="drop")


@pytest.mark.parametrize("name", ["bee - Copy", "bee (1)", "bee copy 2", "bee - Kopie"])
def test_a_folder_called_a_copy_of_a_class_is_asked_about(tmp_path, name):
    lay(tmp_path, [f"{kind}/{n}.jpg" for kind in ("ant", "bee", name) for n in range(6)])
    with pytest.raises(DataError, match="is called a copy") as caught:
        read(tmp_path)
    assert len(read(tmp_path, layout=followed(caught.value)[0]["LAYOUT"])) == 3


@pytest.mark.parametrize("folder", ["Catalog Previews.lrdata", "CaptureOne/Cache", ".thumbnails"])
def test_previews_that_programs_keep_are_no_images(tmp_path, folder):
    lay(tmp_path, [f"{kind}/{n}.jpg" for kind in KINDS for n in range(6)])
    lay(tmp_path, [f"{kind}/{folder}/{n}.jpg" for kind in KINDS for n in range(2)])
    assert len(rows(tmp_path)) == 18


def test_masks_in_each_class_folder_are_left_out_and_counted(tmp_path):
    lay(tmp_path, [f"{kind}/{part}/{n}.png" for kind in KINDS for part in ("images", "masks")
                   for n in range(6)])  # fmt: skip
    listing = read_layout(tmp_path)
    assert len(listing.paths) == 18
    assert all("/images/" in path for path in listing.paths)
    assert "6 images in ant/masks left out" in " ".join(listing.warnings)


def test_folders_that_are_dates_are_asked_about(tmp_path):
    lay(tmp_path, [f"2023-01-{day:02}/{n}.jpg" for day in (1, 2, 3) for n in range(6)])
    with pytest.raises(DataError, match="are dates"):
        read(tmp_path)
    assert len(read(tmp_path, layout="classes")) == 3


def test_names_in_one_folder_that_begin_with_words_are_offered_as_classes(tmp_path):
    lay(tmp_path, [f"imgs/{kind}_{n}.png" for kind in KINDS for n in range(8)])
    with pytest.raises(DataError, match="begin with 3 words") as caught:
        read(tmp_path)
    answer = followed(caught.value)[0]
    assert {label for _, label in read(Path(answer["DATA"]), layout=answer["LAYOUT"])} == set(KINDS)


# --- arrays


def pictures(n: int, side: int, colours: bool) -> tuple[np.ndarray, np.ndarray]:
    """Give pictures whose directions can be told: neither transposed nor with planes mixed up."""
    rows_, columns = np.mgrid[:side, :side] * (255 // side)
    grey = np.stack([np.clip(rows_ + 3 * k, 0, 255) for k in range(n)]).astype(np.uint8)
    labels = np.arange(n) % 3
    if not colours:
        return grey, labels
    other = np.broadcast_to(columns, grey.shape)
    return np.stack([grey, other, 255 - other], -1).astype(np.uint8), labels


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("border", [False, True])
def test_labels_of_pixels_without_names_are_at_the_end_that_repeats(tmp_path, last, border):
    values, labels = pictures(48, 8, colours=False)
    if border:
        values[:, 0], values[:, -1] = 0, 0
    columns = [values.reshape(48, -1), labels[:, None]] if last else [
        labels[:, None], values.reshape(48, -1)]  # fmt: skip
    lines = [",".join(map(str, row)) for row in np.hstack(columns).tolist()]
    text(tmp_path, "set/digits.csv", lines)
    manifest = load_manifest(
        DataSettings(data=str(tmp_path / "set" / "digits.csv")),
        PlaceSettings(data_root=str(tmp_path / "data"), cache=str(tmp_path / "cache")),
    )
    for at, path in enumerate(manifest.paths):
        n = int(Path(path).stem)
        assert manifest.class_names[manifest.labels[at]] == str(labels[n])
        pixels = decode((manifest.root / path).read_bytes())
        assert np.array_equal(pixels[:, :, 0], values[n])


def test_pixels_without_names_that_either_end_may_label_are_asked_about(tmp_path):
    ends = np.arange(48)[:, None] % 3
    middle = np.random.default_rng(0).integers(0, 256, (48, 63))
    lines = [",".join(map(str, row)) for row in np.hstack([ends, middle, ends]).tolist()]
    text(tmp_path, "set/digits.csv", lines)
    with pytest.raises(DataError, match=r"no names of columns.*may be the labels"):
        load_manifest(
            DataSettings(data=str(tmp_path / "set" / "digits.csv")),
            PlaceSettings(data_root=str(tmp_path / "data"), cache=str(tmp_path / "cache")),
        )


def idx(values: np.ndarray) -> bytes:
    head = b"\0\0\x08" + bytes([values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
    return head + values.astype(np.uint8).tobytes()


def mnist(root: Path, pack: bool, *, upright: bool = True, before: str = "") -> None:
    values, labels = pictures(24, 28, False)
    stored = values if upright else values.transpose(0, 2, 1)
    for split, some in (("train", slice(0, 18)), ("t10k" if not before else "test", slice(18, 24))):
        for role, one in (("images-idx3", stored), ("labels-idx1", labels)):
            name = f"{before}{split}-{role}-ubyte"
            data = idx(one[some])
            (root / (f"{name}.gz" if pack else name)).write_bytes(
                gzip.compress(data) if pack else data)  # fmt: skip


def cifar(root: Path, n_labels: int) -> None:
    values, labels = pictures(24, 32, True)
    packed = np.concatenate([
        *([np.zeros((24, 1), np.uint8)] if n_labels == 2 else []),
        labels[:, None].astype(np.uint8), values.transpose(0, 3, 1, 2).reshape(24, -1),
    ], axis=1)  # fmt: skip
    names = ("data_batch_1", "data_batch_2", "test_batch") if n_labels == 1 else ("train", "test")
    for name, part in zip(names, np.array_split(packed, len(names)), strict=True):
        (root / f"{name}.bin").write_bytes(part.tobytes())
    text(root, "batches.meta.txt" if n_labels == 1 else "fine_label_names.txt", list(KINDS))


def stl(root: Path) -> None:
    values, labels = pictures(24, 96, True)
    for split, some in (("train", slice(0, 18)), ("test", slice(18, 24))):
        (root / f"{split}_X.bin").write_bytes(values[some].transpose(0, 3, 2, 1).tobytes())
        (root / f"{split}_y.bin").write_bytes((labels[some] + 1).astype(np.uint8).tobytes())
    text(root, "class_names.txt", list(KINDS))


def pixel_rows(values: np.ndarray, labels: np.ndarray) -> list[str]:
    return [",".join(map(str, [label, *one.ravel().tolist()]))
            for one, label in zip(values, labels, strict=True)]  # fmt: skip


def csv_by_split(root: Path, *, header: bool, colours: bool = False) -> None:
    values, labels = pictures(24, 28, colours)
    n = values[0].size
    first = [",".join(["label", *(f"pixel{i}" for i in range(n))])] if header else []
    text(root, "x_train.csv", [*first, *pixel_rows(values[:18], labels[:18])])
    text(root, "x_test.csv", [*first, *pixel_rows(values[18:], labels[18:])])


def fer(root: Path) -> None:
    values, labels = pictures(24, 48, False)
    usage = ["Training"] * 12 + ["PublicTest"] * 6 + ["PrivateTest"] * 6
    text(root, "fer2013.csv", ["emotion,pixels,Usage", *(
        f"{label},{' '.join(map(str, one.ravel().tolist()))},{part}"
        for one, label, part in zip(values, labels, usage, strict=True))])  # fmt: skip


def svhn(root: Path) -> None:
    values, _ = pictures(24, 32, True)
    for split, some in (("train", slice(0, 14)), ("test", slice(14, 24))):
        labels = np.arange(len(range(24)[some])) % 10 + 1
        matlab(root / f"{split}_32x32.mat", X=np.moveaxis(values[some], 0, -1), y=labels[:, None])


def numpy_pair(root: Path) -> None:
    values, labels = pictures(24, 28, True)
    np.save(root / "X.npy", values / 255)
    np.save(root / "Y.npy", np.eye(3)[labels])


def numpy_by_class(root: Path) -> None:
    values, _ = pictures(24, 28, False)
    for k, kind in enumerate(KINDS):
        np.save(root / f"full_numpy_bitmap_{kind}.npy", values[k::3].reshape(8, -1))


ARRAYS = {
    "MNIST": (lambda root: mnist(root, False), {"train", "test"}, "0 1 2", False),
    "MNIST, packed": (lambda root: mnist(root, True), {"train", "test"}, "0 1 2", False),
    "EMNIST": (lambda root: mnist(root, True, upright=False, before="emnist-letters-"),
               {"train", "test"}, "0 1 2", False),
    "CIFAR-10": (lambda root: cifar(root, 1), {"train", "test"}, "ant bee cat", True),
    "CIFAR-100": (lambda root: cifar(root, 2), {"train", "test"}, "ant bee cat", True),
    "STL-10": (stl, {"train", "test"}, "ant bee cat", True),
    "SVHN": (svhn, {"train", "test"}, "0 1 2 3 4 5 6 7 8 9", True),
    "pixels": (lambda root: csv_by_split(root, header=True), {"train", "test"}, "0 1 2", False),
    "pixels of colours": (lambda root: csv_by_split(root, header=True, colours=True),
                          {"train", "test"}, "0 1 2", True),
    "pixels without a header": (lambda root: csv_by_split(root, header=False), {"train", "test"},
                                "0 1 2", False),
    "FER2013": (fer, {"train", "val", "test"}, "0 1 2", False),
    "NumPy, two files": (numpy_pair, {"train", "val", "test"}, "0 1 2", True),
    "NumPy, a file a class": (numpy_by_class, {"train", "val", "test"}, "ant bee cat", False),
}  # fmt: skip


def manifest_of(tmp_path: Path, root: Path, **ask: str):
    places = PlaceSettings(cache=str(tmp_path / "cache"), data_root=str(tmp_path / "data"))
    return load_manifest(DataSettings(data=str(root), **ask), places)


@pytest.mark.parametrize(("write", "splits", "names", "colours"), ARRAYS.values(), ids=ARRAYS)
def test_arrays_of_any_form_are_pictures_the_right_way_up(tmp_path, write, splits, names, colours):
    root = tmp_path / "set"
    root.mkdir()
    write(root)
    manifest = manifest_of(tmp_path, root)
    assert set(manifest.counts()) == splits
    assert list(manifest.class_names) == names.split()
    assert manifest.n_images == 24
    first = decode((manifest.root / manifest.paths[0]).read_bytes()).astype(int)
    down, right = first[-1, 0] - first[0, 0], first[0, -1] - first[0, 0]
    assert down[0] > 100
    assert abs(right[0]) <= 2
    if colours:
        assert right[1] > 100
        assert right[2] < -100


def test_which_column_of_a_table_of_pixels_is_the_label_is_asked(tmp_path):
    values, labels = pictures(24, 48, False)
    text(tmp_path, "age_gender.csv", ["age,gender,pixels", *(
        f"{label},{label % 2},{' '.join(map(str, one.ravel().tolist()))}"
        for one, label in zip(values, labels, strict=True))])  # fmt: skip
    with pytest.raises(DataError, match="which column is the label is not certain") as caught:
        manifest_of(tmp_path, tmp_path / "age_gender.csv")
    answer = followed(caught.value)[1]
    found = manifest_of(tmp_path, Path(answer["DATA"]), label_column=answer["LABEL_COLUMN"])
    assert list(found.class_names) == ["0", "1"]


def test_pixels_without_labels_are_left_out_and_said(tmp_path):
    root = tmp_path / "set"
    root.mkdir()
    csv_by_split(root, header=True)
    bare = [",".join(line.split(",")[1:]) for line in (root / "x_test.csv").read_text().split()]
    text(root, "x_test.csv", bare)
    manifest = manifest_of(tmp_path, root)
    assert manifest.n_images == 18
    assert "x_test holds pixels without a column of labels" in " ".join(manifest.warnings)
    with pytest.raises(DataError, match="without a column of labels"):
        manifest_of(tmp_path, root / "x_test.csv")


@pytest.mark.parametrize("damage", ["cut", "grown"])
def test_a_damaged_idx_file_is_an_answer(tmp_path, damage):
    root = tmp_path / "set"
    root.mkdir()
    mnist(root, False)
    path = root / "train-images-idx3-ubyte"
    data = path.read_bytes()
    grown = data[:4] + struct.pack(">3I", 2**31, 2**31, 28) + data[16:]
    path.write_bytes(data[:-100] if damage == "cut" else grown)
    with pytest.raises(DataError, match=r"cut short|unpacks to"):
        manifest_of(tmp_path, root)
