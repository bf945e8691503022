"""From pixels to a network's input: the geometry is torchvision's, the views are what they say."""

import io
import re
import subprocess
import sys

import numpy as np
import pytest
from cnn_codes.backbones import resize as resize_module
from cnn_codes.backbones.preprocess import Preprocessing, Views, read_views
from cnn_codes.errors import SettingsError
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import encoded, jpeg, photo
from PIL import Image

BASE = Preprocessing(
    size=56,
    crop_ratio=0.875,
    resize="crop",
    interpolation="bicubic",
    mean=(0.5,) * 3,
    std=(0.5,) * 3,
)
CENTER = Views("center", 1)
RESAMPLING = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
}


def png(seed: int, size: tuple[int, int], mode: str = "RGB") -> bytes:
    return encoded(photo(seed, size, mode), "PNG")


def noise(size: tuple[int, int]) -> bytes:
    """Make the hardest picture to resample: every pixel by chance."""
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return encoded(Image.fromarray(pixels), "PNG")


def central(data: bytes, ratio: float) -> tuple[Image.Image, tuple[float, float, float, float]]:
    image = Image.open(io.BytesIO(data)).convert("RGB")
    side = min(image.size) * ratio
    left, top = (image.width - side) / 2, (image.height - side) / 2
    return image, (left, top, left + side, top + side)


def difference(data: bytes, interpolation: str) -> np.ndarray:
    """Tell how far the central crop is from the one that PIL resamples, in levels of 255."""
    image, box = central(data, 0.875)
    expected = np.asarray(image.resize((56, 56), RESAMPLING[interpolation], box=box), int)
    preprocessing = Preprocessing(**{**BASE.__dict__, "interpolation": interpolation})
    return np.abs(read_views(data, preprocessing, CENTER, "")[0] - expected)


@pytest.mark.parametrize("size", [(100, 80), (64, 64), (333, 200), (40, 30)])
def test_the_central_crop_is_resampled_as_pil_does_it(size):
    for interpolation in RESAMPLING:
        assert difference(png(0, size), interpolation).max() <= 2, interpolation
    for interpolation in ("bilinear", "box"):  # without overshoot not even noise tells them apart
        assert difference(noise(size), interpolation).max() <= 1, interpolation
    # With overshoot it does: the one goes over rows first and the other over columns, each
    # clipping to bytes in between.
    for interpolation in ("bicubic", "lanczos"):
        assert difference(noise(size), interpolation).mean() < 1, interpolation


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_the_crop_is_what_torchvision_makes_of_a_photograph(hotdog, interpolation):
    from torchvision.transforms import v2

    preprocessing = Preprocessing(**{**BASE.__dict__, "size": 224, "interpolation": interpolation})
    chain = v2.Compose([v2.Resize(256, v2.InterpolationMode(interpolation)), v2.CenterCrop(224)])
    for path in sorted(hotdog.rglob("*.jpg"))[::300]:
        ours = read_views(path.read_bytes(), preprocessing, CENTER, "")[0]
        theirs = np.asarray(chain(Image.open(path).convert("RGB")), int)
        # torchvision rounds the whole image's size and the crop's place to pixels, we do not.
        assert np.abs(ours - theirs).mean() < 6, path
        assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.985, path


def test_stretching_takes_in_the_whole_image():
    data = png(1, (200, 100))
    view = read_views(data, BASE.adapted(size=0, resize="stretch"), CENTER, "")[0]
    expected = Image.open(io.BytesIO(data)).resize((56, 56), Image.Resampling.BICUBIC)
    assert np.abs(view - np.asarray(expected, int)).max() <= 2


@pytest.mark.parametrize(("size", "inner"), [((200, 100), (56, 28)), ((50, 100), (28, 56))])
def test_padding_keeps_the_aspect_and_fills_with_the_mean_colour(size, inner):
    data = png(2, size)
    view = read_views(data, BASE.adapted(size=0, resize="pad"), CENTER, "")[0]
    left, top = (56 - inner[0]) // 2, (56 - inner[1]) // 2
    small = Image.open(io.BytesIO(data)).resize(inner, Image.Resampling.BICUBIC)
    middle = view[top : top + inner[1], left : left + inner[0]]
    assert np.abs(middle - np.asarray(small, int)).max() <= 2
    outside = np.ones((56, 56), bool)
    outside[top : top + inner[1], left : left + inner[0]] = False
    assert np.all(view[outside] == 128)


@given(
    st.integers(1, 300),
    st.integers(1, 300),
    st.sampled_from(["crop", "stretch", "pad"]),
    st.sampled_from(["center", "flip", "dihedral", "random:3"]),
    st.sampled_from(["RGB", "L"]),
)
@settings(max_examples=60, deadline=None)
def test_an_even_colour_stays_even_whatever_the_shape_and_the_views(
    width, height, resize, views, mode
):
    data = encoded(Image.new(mode, (width, height), 128 if mode == "L" else (128,) * 3), "PNG")
    some = Views.parse(views, 0)
    taken = read_views(data, BASE.adapted(size=0, resize=resize), some, "")
    assert taken.shape == (some.count, 56, 56, 3)
    assert taken.dtype == np.uint8
    assert np.all(taken == 128)


def test_grey_becomes_three_equal_channels():
    view = read_views(png(3, (80, 80), "L"), BASE, CENTER, "")[0]
    assert np.array_equal(view[:, :, 0], view[:, :, 1])
    assert np.array_equal(view[:, :, 0], view[:, :, 2])
    assert view.std() > 10


@pytest.mark.parametrize("resize", ["crop", "stretch", "pad"])
def test_the_first_view_is_the_centre_and_the_second_its_mirror_image(resize):
    data, preprocessing = png(4, (90, 70)), BASE.adapted(size=0, resize=resize)
    center = read_views(data, preprocessing, CENTER, "")[0]
    flip = read_views(data, preprocessing, Views.parse("flip", 0), "")
    dihedral = read_views(data, preprocessing, Views.parse("dihedral", 0), "")
    assert np.array_equal(flip, [center, center[:, ::-1]])
    assert np.array_equal(dihedral[0], center)


def test_the_dihedral_views_are_the_eight_symmetries_of_the_square():
    views = read_views(png(5, (90, 70)), BASE, Views.parse("dihedral", 0), "")
    center = views[0]
    known = {
        turned.tobytes()
        for quarter in range(4)
        for turned in (np.rot90(center, quarter), np.rot90(center, quarter)[::-1])
    }
    assert len(known) == 8
    assert {np.ascontiguousarray(view).tobytes() for view in views} == known


def test_random_crops_depend_on_the_bytes_and_the_seed_and_on_nothing_else():
    data = jpeg(6, (200, 150))
    crops = read_views(data, BASE, Views.parse("random:4", 0), "aa")
    assert crops.shape == (4, 56, 56, 3)
    assert np.array_equal(crops, read_views(data, BASE, Views.parse("random:4", 0), "aa"))
    assert len({crop.tobytes() for crop in crops}) == 4
    for seed, digest in ((1, "aa"), (0, "ab")):
        others = read_views(data, BASE, Views.parse("random:4", seed), digest)
        assert not any(np.array_equal(*pair) for pair in zip(crops, others, strict=True))


def test_more_random_crops_begin_with_the_fewer():
    data = jpeg(7, (200, 150))
    few, many = (read_views(data, BASE, Views.parse(f"random:{k}", 3), "x") for k in (2, 5))
    assert np.array_equal(few, many[:2])


@pytest.mark.parametrize(
    "text", ["", "centre", "random", "random:0", "random:65", "random:-1", "random:x", "flip:2"]
)
def test_unknown_views_are_refused_with_what_there_is(text):
    with pytest.raises(SettingsError, match="dihedral"):
        Views.parse(text, 0)


def test_size_and_resize_change_only_where_they_are_given():
    assert BASE.adapted(size=0, resize="default") == BASE
    assert BASE.adapted(size=99, resize="pad").as_dict() == {
        **BASE.as_dict(),
        "size": 99,
        "fit": "pad",
    }


@given(
    st.integers(8, 400),
    st.integers(8, 400),
    st.sampled_from(["bilinear", "bicubic", "lanczos"]),
    st.sampled_from(["RGB", "L"]),
    st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_pillow_resizes_as_cykooz_does_within_two_levels(width, height, how, mode, seed):
    pytest.importorskip("cykooz_resizer")
    pixels = np.asarray(photo(seed, (width, height), mode)).reshape(height, width, -1)
    side = 0.875 * min(width, height)
    box = ((width - side) / 2, (height - side) / 2, side, side)
    ours = resize_module.resizer()(pixels, box, (56, 56), how)
    theirs = resize_module.by_pillow(pixels, box, (56, 56), how)
    assert ours.shape == theirs.shape
    gap = np.abs(ours.astype(int) - theirs)
    assert gap.max() <= 2
    assert gap.mean() < 0.3


def test_without_the_fast_resizer_pillow_resizes_and_is_named():
    program = (
        "import sys; sys.modules['cykooz_resizer'] = None\n"
        "from cnn_codes.backbones import resize\n"
        "print(resize.resizer_name(), resize.resizer() is resize.by_pillow)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert re.fullmatch(r"pillow [0-9.]+ True\n", done.stdout)


def test_a_resizer_that_cannot_be_loaded_is_an_error_and_not_another_resizer():
    """As where memory is short: Pillow would be up to two levels off, without a word."""
    script = (
        "import importlib.abc, sys\n"
        "class Short(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.startswith('cykooz_resizer'):\n"
        "            raise ImportError('failed to map segment from shared object')\n"
        "sys.meta_path.insert(0, Short())\n"
        "from cnn_codes.backbones import resize\n"
        "print(resize.resizer_name())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "failed to map segment" in done.stderr
    assert "pillow" not in done.stdout
