"""Make a small data set out of photographs that packages bring: nothing is downloaded.

    python docs/tutorials/sets.py photographs photos
    python docs/tutorials/sets.py patients scans
    python docs/tutorials/sets.py odd odd
    python docs/tutorials/sets.py mislabelled garden

The pieces are cut from the two photographs of scikit-learn and the portrait of matplotlib.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from pictures import photograph, piece

KINDS = {"flower": "flower", "temple": "china", "portrait": "portrait"}


def photographs(root: Path) -> None:
    """Write three classes of 40 pieces each: root/<class>/*.jpg."""
    random = np.random.default_rng(0)
    for kind, source in KINDS.items():
        image = photograph(source)
        for i in range(40):
            save(piece(image, random), root / kind / f"{i:02}.jpg")


def patients(root: Path) -> None:
    """Write 24 patients with 5 images each, and a table ``scans.csv``: path, label, patient.

    The images of a patient have one tint, and a patient has one label: a classifier can learn the
    patients instead of the labels.
    """
    random = np.random.default_rng(1)
    rows = ["path,label,patient"]
    for patient in range(24):
        label = ("sound", "ill")[patient % 2]
        image = photograph(("china", "flower")[random.integers(2)])
        tint = random.uniform(0.4, 1.0, 3)
        for i in range(5):
            cut = np.asarray(piece(image, random)) * tint
            name = f"p{patient:02}/{i}.jpg"
            save(Image.fromarray(cut.astype(np.uint8)), root / name)
            rows.append(f"{name},{label},p{patient:02}")
    (root / "scans.csv").write_text("\n".join(rows) + "\n")


def odd(root: Path) -> None:
    """Write one small set in ten situations, root/<situation>: as data of strangers look."""
    random = np.random.default_rng(2)
    kinds = ("flower", "temple") * 12
    cuts = [(i, kind, piece(photograph(KINDS[kind]), random)) for i, kind in enumerate(kinds)]
    for i, kind, cut in cuts:
        split = "test" if i >= 18 else "train"
        save(cut, root / "01-words" / f"{split}ing_set" / kind / f"{i:02}.jpg")
        save(cut, root / "02-parts" / f"images_part_{i % 2 + 1}" / f"IMG_{i:02}.jpg")
        save(cut, root / "03-leavings" / "download" / kind / f"{i:02}.jpg")
        for junk in ("@eaDir", ".ipynb_checkpoints", "#recycle"):
            small = cut.resize((40, 40))
            save(small, root / "03-leavings" / "download" / kind / junk / f"{i:02}.jpg")
        for situation in ("04-spreadsheet", "05-one-hot", "07-list"):
            save(cut, root / situation / "images" / f"{i:02}.jpg")
        web = (f"{i:02}.jpg?w=640", f"{i:02}.jpg_large", f"{i:02}")[i % 3]
        save(cut, root / "06-web" / kind / web, "PNG" if i % 4 == 0 else "JPEG")
        save(cut, root / "08-versions" / "color" / kind / f"{i:02}.jpg")
        save(cut.convert("L"), root / "08-versions" / "grayscale" / kind / f"{i:02}.jpg")
        dark = np.asarray(cut.convert("L")).astype(np.uint16) * 16  # 12 bits in files of 16
        save(Image.fromarray(dark), root / "09-twelve-bits" / kind / f"{i:02}.png", "PNG")
    write(root / "02-parts" / "metadata.csv", "lesion,image_id,dx",
          (f"L{i // 4 * 2 + i % 2},IMG_{i:02},{kind}" for i, kind, _ in cuts))  # fmt: skip
    write(root / "04-spreadsheet" / "labels.csv", "\ufefffilename;class",
          (f"images/{i:02}.jpg;{kind}" for i, kind, _ in cuts))  # fmt: skip
    write(root / "05-one-hot" / "labels.csv", "image,flower,temple",
          (f"{i:02},{('1.0,0.0', '0.0,1.0')[i % 2]}" for i, _, _ in cuts))  # fmt: skip
    lines = [f"images/{i:02}.jpg {kind}" for i, kind, _ in cuts]
    write(root / "07-list" / "train.txt", lines[0], lines[1:18])
    write(root / "07-list" / "test.txt", lines[18], lines[19:])
    arrays = np.stack([np.asarray(cut.resize((64, 64))) for _, _, cut in cuts])
    (root / "10-array").mkdir()
    np.savez(
        root / "10-array" / "set.npz",
        train_images=arrays[:18], train_labels=np.arange(18) % 2,
        test_images=arrays[18:], test_labels=np.arange(18, 24) % 2,
    )  # fmt: skip


def mislabelled(root: Path) -> None:
    """Write root/{train,test}/{flower,temple}/<truth>-<number>.jpg; 6 of 120 in the wrong folder.

    The name says what is shown, so that a reader can check; the label is the folder.
    """
    random = np.random.default_rng(3)
    for split, count, wrong in (("train", 60, 3), ("test", 30, 0)):
        for kind, other in (("flower", "temple"), ("temple", "flower")):
            image = photograph(KINDS[kind])
            for i in range(count):
                folder = other if i >= count - wrong else kind
                save(piece(image, random), root / split / folder / f"{kind}-{i:02}.jpg")


def write(path: Path, first: str, rows) -> None:
    """Write a table or list."""
    path.write_text("\n".join([first, *rows]) + "\n", encoding="utf-8")


def save(image: Image.Image, path: Path, kind: str = "JPEG") -> None:
    """Write an image and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, kind)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=("photographs", "patients", "odd", "mislabelled"))
    parser.add_argument("folder", type=Path)
    asked = parser.parse_args()
    if asked.folder.exists():
        sys.exit(f"{asked.folder} exists already. Next: name another folder")
    makers = (photographs, patients, odd, mislabelled)
    {one.__name__: one for one in makers}[asked.kind](asked.folder)
