"""Make a small data set out of photographs that packages bring: nothing is downloaded.

    python docs/tutorials/sets.py photographs photos
    python docs/tutorials/sets.py patients scans
    python docs/tutorials/sets.py odd odd

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
    """Write one small set in ten forms, root/<form>: as data of strangers look."""
    random = np.random.default_rng(2)
    cuts = [(kind, piece(photograph(KINDS[kind]), random)) for kind in ("flower", "temple") * 12]
    for i, (kind, cut) in enumerate(cuts):
        split = "test" if i >= 18 else "train"
        save(cut, root / "01-classes" / kind / f"{i:02}.jpg")
        save(cut, root / "02-splits" / split / kind / f"{i:02}.jpg")
        save(cut, root / "03-other-words" / f"{split}ing_set" / kind / f"{i:02}.jpg")
        for form in ("04-table", "05-semicolons", "06-list", "07-one-hot", "08-no-suffix"):
            save(cut, root / form / "images" / f"{i:02}.jpg")
        save(cut, root / "09-wrapped" / "download" / "data" / kind / f"{i:02}.jpg")
        save(cut, root / "10-wrong-suffix" / kind / f"{i:02}.jpg", "PNG")
    numbered = [(i, kind) for i, (kind, _) in enumerate(cuts)]
    write(root / "04-table" / "labels.csv", "path,label",
          (f"images/{i:02}.jpg,{kind}" for i, kind in numbered))  # fmt: skip
    write(root / "05-semicolons" / "labels.csv", "\ufefffilename;class",
          (f"images/{i:02}.jpg;{kind}" for i, kind in numbered))  # fmt: skip
    write(root / "06-list" / "train.txt", f"images/00.jpg {numbered[0][1]}",
          (f"images/{i:02}.jpg {kind}" for i, kind in numbered[1:18]))  # fmt: skip
    write(root / "06-list" / "test.txt", f"images/18.jpg {numbered[18][1]}",
          (f"images/{i:02}.jpg {kind}" for i, kind in numbered[19:]))  # fmt: skip
    write(root / "07-one-hot" / "labels.csv", "image,flower,temple",
          (f"images/{i:02}.jpg,{int(k == 'flower')},{int(k == 'temple')}"
           for i, k in numbered))  # fmt: skip
    write(root / "08-no-suffix" / "labels.csv", "id,species",
          (f"{i:02},{kind}" for i, kind in numbered))  # fmt: skip


def write(path: Path, first: str, rows) -> None:
    """Write a table or list."""
    path.write_text("\n".join([first, *rows]) + "\n", encoding="utf-8")


def save(image: Image.Image, path: Path, kind: str = "JPEG") -> None:
    """Write an image and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, kind)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=("photographs", "patients", "odd"))
    parser.add_argument("folder", type=Path)
    asked = parser.parse_args()
    if asked.folder.exists():
        sys.exit(f"{asked.folder} exists already. Next: name another folder")
    {"photographs": photographs, "patients": patients, "odd": odd}[asked.kind](asked.folder)
