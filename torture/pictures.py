"""Runs under the interpreter that has Pillow: a small data set, and one sound image of each kind.

Started as a script: ``pictures.py SET KINDS INPUTS``. The last are the other files that a user may
give: an archive, arrays, a table, weights, a recipe, a list of images.
"""

import csv
import sys
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image


def photo(seed: int, size: tuple[int, int] = (48, 36)) -> Image.Image:
    """Make a smooth picture that no other seed gives; odd seeds are darker."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (5, 6, 3)) // (1 + seed % 2)
    return Image.fromarray(coarse.astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)


def main(place: Path, kinds: Path) -> None:
    """Write 28 images of two classes with splits, and the kinds."""
    for split, first, count in (("train", 0, 20), ("test", 100, 8)):
        for i in range(first, first + count):
            folder = place / split / ("dark" if i % 2 else "bright")
            folder.mkdir(parents=True, exist_ok=True)
            suffix = ("jpg", "png", "jpg", "webp")[i % 4]
            photo(i).save(folder / f"{i:03}.{suffix}")
    kinds.mkdir(parents=True)
    image = photo(1000, (90, 70))
    more = {"save_all": True, "append_images": [image.rotate(90)]}
    for name, made, options in (
        ("rgb.jpg", image, {}),
        ("progressive.jpg", image, {"progressive": True}),
        ("grey.jpg", image.convert("L"), {}),
        ("cmyk.jpg", image.convert("CMYK"), {}),
        ("rgb.png", image, {}),
        ("rgba.png", image.convert("RGBA"), {}),
        ("palette.png", image.quantize(32), {}),
        ("two.gif", image.quantize(64), {}),
        ("plain.bmp", image, {}),
        ("palette.bmp", image.quantize(16), {}),
        ("plain.tif", image, {}),
        ("lzw.tif", image, {"compression": "tiff_lzw"}),
        ("jpeg.tif", image, {"compression": "jpeg"}),
        ("lossy.webp", image, {"quality": 70}),
        ("lossless.webp", image, {"lossless": True}),
        ("moving.webp", image, more),
        ("plain.ppm", image, {}),
    ):
        made.save(kinds / name, **options)


def inputs(data: Path, place: Path) -> None:
    """Write the set again as an archive, as arrays and as a table; weights; a recipe; a list."""
    import timm
    import torch
    from safetensors.torch import save_file

    place.mkdir(parents=True)
    paths = sorted(p for p in data.rglob("*.*") if p.is_file())
    with zipfile.ZipFile(place / "set.zip", "w") as archive:
        for path in paths:
            archive.write(path, Path("set") / path.relative_to(data))
    table = [("path", "label", "split")]
    for path in paths:
        table.append((str(path), path.parent.name, path.parent.parent.name))
    other = [table[0], *((path, "dark", split) for path, _, split in table[1:])]
    other[1:9] = table[1:9]
    some = [row[:1] for row in table]
    for name, rows in (("set.csv", table), ("set-2.csv", other), ("list.csv", some)):
        with (place / name).open("w", newline="") as stream:
            csv.writer(stream).writerows(rows)
    arrays = {}
    for split in ("train", "test"):
        some = [path for path in paths if path.parent.parent.name == split]
        arrays[f"{split}_images"] = np.stack(
            [np.asarray(Image.open(p).convert("RGB")) for p in some]
        )
        arrays[f"{split}_labels"] = np.array([int(p.parent.name == "dark") for p in some])
    np.savez_compressed(place / "set.npz", **arrays)
    np.savez(place / "set-2.npz", **{name: one[::-1] for name, one in arrays.items()})
    for name, lr in (("", 0.02), ("-2", 0.03)):
        torch.manual_seed(int(lr * 1000))
        network = timm.create_model("test_resnet")
        save_file(network.state_dict(), place / f"weights{name}.safetensors")
        (place / f"recipe{name}.toml").write_text(
            f'unfreeze = "layer4"\nepochs = 2\nlr = {lr}\nmomentum = 0.85\nbatch_size = 8\n'
            'trunk_views = "center"\nlabel_smoothing = 0.05\n\n[about]\ntitle = "A small one"\n'
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
    inputs(Path(sys.argv[1]), Path(sys.argv[3]))
