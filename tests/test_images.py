"""Image files as hostile input: what decodes, how, and what is refused in words."""

import contextlib
import io
import re
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from cnn_codes.datasets import load_manifest
from cnn_codes.datasets.facts import read_facts
from cnn_codes.datasets.images import decode, probe
from cnn_codes.errors import ImageError
from cnn_codes.settings import DataSettings, PlaceSettings
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import claiming_png, damaged, encoded, jpeg, photo, write_set
from PIL import Image, ImageOps


def pil(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def rgb(pixels: np.ndarray) -> np.ndarray:
    return pixels if pixels.shape[2] == 3 else np.repeat(pixels, 3, axis=2)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1"])
@pytest.mark.parametrize("format", ["PNG", "BMP", "GIF", "TIFF"])
def test_lossless_formats_decode_as_pil_decodes_them(format, mode):
    data = encoded(photo(1, mode=mode), format)
    pixels = decode(data)
    assert pixels.dtype == np.uint8
    assert pixels.shape[:2] == (48, 64)
    assert pixels.shape[2] in (1, 3)
    assert np.array_equal(rgb(pixels), pil(data))


@pytest.mark.parametrize(("format", "options"), [("WEBP", {"lossless": True}), ("PPM", {})])
def test_webp_and_ppm_decode_as_pil_decodes_them(format, options):
    data = encoded(photo(2), format, **options)
    assert np.array_equal(decode(data), pil(data))


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_decodes_within_one_level_of_pil(subsampling, progressive):
    data = jpeg(3, (123, 77), subsampling=subsampling, progressive=progressive)
    assert np.abs(decode(data).astype(int) - pil(data)).max() <= 1


def test_photographs_decode_within_one_level_of_pil(hotdog, ants_bees):
    paths = sorted(hotdog.rglob("*.jpg"))[::150] + sorted(ants_bees.rglob("*.jpg"))[::40]
    assert len(paths) > 20
    for path in paths:
        data = path.read_bytes()
        if probe(data).converted:  # through its colour profile: tested below
            continue
        with Image.open(path) as image:
            expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        assert np.abs(rgb(decode(data)).astype(int) - expected).max() <= 1, path


def test_grey_jpeg_has_one_channel():
    data = encoded(photo(4, mode="L"), "JPEG")
    assert decode(data).shape == (48, 64, 1)
    assert np.abs(rgb(decode(data)).astype(int) - pil(data)).max() <= 1


def test_cmyk_jpeg_is_converted():
    data = encoded(photo(5, mode="CMYK"), "JPEG")
    assert probe(data).mode == "CMYK"
    assert np.array_equal(decode(data), pil(data))


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_and_not_clipped(format):
    wide = np.arange(0, 65536, 257, dtype=np.uint16).reshape(16, 16)
    pixels = decode(encoded(Image.fromarray(wide), format))
    assert np.array_equal(pixels[:, :, 0].ravel(), np.arange(256))


def test_transparency_is_laid_over_white():
    image = photo(6).convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    pixels = decode(encoded(image, "PNG"))
    alpha = np.asarray(image)[:, :, 3:] / 255
    expected = np.asarray(image)[:, :, :3] * alpha + 255 * (1 - alpha)
    assert np.abs(pixels - expected).max() <= 1.5


def test_a_transparent_palette_is_laid_over_white():
    image = Image.new("P", (4, 4), 0)
    image.putpalette([0, 0, 0, 200, 10, 20])
    image.putpixel((1, 1), 1)
    pixels = decode(encoded(image, "PNG", transparency=0))
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert pixels[1, 1].tolist() == [200, 10, 20]


@pytest.mark.parametrize(
    ("image", "kind"),
    [(Image.new("F", (8, 8), 0.5), "float32"), (Image.new("I", (8, 8), 1 << 20), "int32")],
)
def test_samples_without_a_known_range_are_refused_by_their_type(image, kind):
    with pytest.raises(ImageError, match=f"samples are {kind}.*RANGE=MIN,MAX"):
        decode(encoded(image, "TIFF"))


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_as_pil_applies_it(orientation, format):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(photo(7), format, exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    assert probe(data).orientation == orientation
    assert np.abs(decode(data).astype(int) - expected).max() <= 1


@pytest.mark.parametrize("value", [0, 9, 77])
def test_an_orientation_that_means_nothing_is_upright(value):
    exif = Image.Exif()
    exif[0x0112] = value
    data = encoded(photo(8), "PNG", exif=exif)
    assert np.array_equal(decode(data), pil(data))


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_an_animation_the_first_frame_is_read(format):
    first, *others = (photo(seed) for seed in (9, 10, 11))
    options = {"lossless": True} if format == "WEBP" else {}
    data = encoded(first, format, save_all=True, append_images=others, **options)
    assert probe(data).n_frames == (2 if format == "GIF" else 3)  # of a GIF, 2 is several
    assert np.array_equal(rgb(decode(data)), pil(data))


@given(st.integers(1, 900), st.integers(1, 900), st.integers(1, 200), st.sampled_from(["RGB", "L"]))
@settings(max_examples=40, deadline=None)
def test_reduced_decoding_never_goes_below_twice_the_side(width, height, side, mode):
    data = encoded(photo(12, (width, height), mode), "JPEG")
    whole, small = decode(data), decode(data, min_side=side)
    assert min(small.shape[:2]) >= min(2 * side, min(whole.shape[:2]))
    assert small.shape[0] <= height
    assert small.shape[1] <= width
    assert abs(small.shape[0] * width - small.shape[1] * height) <= max(width, height) * 2


def test_reduced_decoding_shows_the_same_picture():
    data = jpeg(13, (800, 600))
    small = decode(data, min_side=100)
    assert min(small.shape[:2]) < 600
    size = small.shape[1::-1]
    expected = np.asarray(Image.fromarray(decode(data)).resize(size, Image.Resampling.BOX))
    assert np.abs(small.astype(int) - expected).mean() < 1


def test_a_bomb_is_refused_undecoded():
    tracemalloc.start()
    with pytest.raises(ImageError, match="absurdly large"):
        decode(claiming_png(14_000, 14_000))
    with pytest.raises(ImageError, match="absurdly large"):
        decode(claiming_png(10_001, 10_000))
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF"])
def test_a_truncated_file_is_refused_wherever_it_ends(format):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8))
    data = encoded(image, format)
    for share in np.linspace(0, 0.97, 30):
        with pytest.raises(ImageError):
            decode(data[: int(len(data) * share)])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "0 bytes"),
        (b"<!DOCTYPE html><html>", "HTML"),
        (b"  <HTML>", "HTML"),
        (b"<svg xmlns=''/>", "SVG"),
        (b"%PDF-1.7", "PDF"),
        (b"PK\x03\x04rest", "zip"),
        (b"\x01\x02\x03", "01 02 03"),
    ],
)
def test_what_is_no_image_is_told_by_what_it_is(data, words):
    with pytest.raises(ImageError, match=words):
        decode(data)


def test_formats_beyond_the_list_are_not_opened():
    for format in ("ICO", "PCX", "TGA", "SGI", "EPS"):
        with pytest.raises(ImageError, match="known format"):
            decode(encoded(photo(14, (32, 32)), format))


def test_every_damaged_file_is_refused_twice_in_the_same_words():
    for name, data in damaged(200):
        reasons = set()
        for _ in range(2):
            with pytest.raises(ImageError) as caught:
                decode(data)
            reasons.add(caught.value.found)
        assert len(reasons) == 1, (name, reasons)  # no address in memory, no time


def tiff_with(tag: int, values: bytes, compression: str | None = None) -> bytes:
    """A TIFF of which one tag has another value, 4 bytes little-endian or a word in the entry."""
    data = bytearray(encoded(photo(16, (90, 70)), "TIFF", compression=compression))
    at = int.from_bytes(data[4:8], "little")
    entries = [at + 2 + 12 * n for n in range(int.from_bytes(data[at : at + 2], "little"))]
    entry = next(e for e in entries if int.from_bytes(data[e : e + 2], "little") == tag)
    place = entry + 8
    if tag == 258:  # three words elsewhere
        place = int.from_bytes(data[entry + 8 : entry + 12], "little")
    data[place : place + len(values)] = values
    return bytes(data)


HARMED = {
    "height of a TIFF": tiff_with(257, b"\xff\xff\xff\x7f"),
    "height of a TIFF beyond 31 bits": tiff_with(257, b"\x06\x00\x00\xff"),
    "height of a TIFF without its strips": tiff_with(257, b"\x46\x01\x00\x00"),
    "bits of a TIFF": tiff_with(258, b"\x72\xe2"),
    "samples of a TIFF": tiff_with(277, b"\xff\x7f"),
    "end of a PNG's header": encoded(photo(16, (90, 70)), "PNG")[:33] + b"\0\0 7IDAT",
    "size of a JPEG": re.sub(
        b"(\xff\xc0\x00\x11\x08).{4}", b"\\1\xff\xff\xff\xff", jpeg(16, (90, 70)), flags=re.DOTALL
    ),
    "size of a JPEG in print colours": re.sub(
        b"(\xff\xc0\x00.\x08).{4}", b"\\1\xff\xff\xff\xff",
        encoded(photo(16, (90, 70)).convert("CMYK"), "JPEG"), flags=re.DOTALL,
    ),
}  # fmt: skip


def test_damage_to_images_is_a_reason_to_leave_them_out_and_never_ends_the_set(tmp_path):
    folder = write_set(tmp_path / "set", 8)
    for number, (what, data) in enumerate(HARMED.items()):
        suffix = "tif" if "TIFF" in what else "png" if "PNG" in what else "jpg"
        (folder / "cat" / f"x{number}.{suffix}").write_bytes(data)
    places = PlaceSettings(cache=str(tmp_path / "cache"))
    manifest = load_manifest(DataSettings(data=str(folder)), places)
    facts = read_facts(manifest, tmp_path / "cache", full=True)
    assert {manifest.paths[row][:5] for row in facts.faults} == {"cat/x"}
    assert len(facts.faults) == len(HARMED)
    for what, data in HARMED.items():
        for way in ({}, {"min_side": 16}):
            with pytest.raises(ImageError):
                pytest.fail(f"{what}: {decode(data, **way).shape}")


@given(st.data())
@settings(max_examples=400, deadline=None)
def test_flipped_bits_give_pixels_or_an_image_error_and_nothing_else(data):
    format = data.draw(st.sampled_from(["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF"]))
    file = bytearray(encoded(photo(15, (40, 30)), format))
    for _ in range(data.draw(st.integers(1, 8))):
        file[data.draw(st.integers(0, len(file) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        pixels = decode(bytes(file), min_side=10)
    except ImageError:
        pass
    else:
        assert pixels.dtype == np.uint8
        assert pixels.ndim == 3
        assert pixels.shape[2] in (1, 3)
        assert pixels.flags.c_contiguous


@given(st.binary(max_size=300))
@settings(max_examples=100, deadline=None)
def test_any_bytes_give_pixels_or_an_image_error(data):
    for start in (b"", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"II*\0"):
        with contextlib.suppress(ImageError):
            assert decode(start + data).dtype == np.uint8


def test_threads_decode_as_one_does():
    files = [jpeg(seed, (300, 200)) for seed in range(20)]
    alone = [decode(data, min_side=40) for data in files]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            together = pool.map(lambda data: decode(data, min_side=40), files)
            assert all(np.array_equal(*pair) for pair in zip(alone, together, strict=True))


def test_a_header_says_what_is_in_the_file():
    facts = probe(jpeg(16, (321, 123)))
    assert (facts.format, facts.width, facts.height) == ("JPEG", 321, 123)
    assert (facts.mode, facts.n_frames, facts.orientation) == ("RGB", 1, 1)
    assert not facts.transparent
    assert probe(encoded(photo(17).convert("RGBA"), "PNG")).transparent


def test_images_of_a_manifest_are_never_read_without_their_digest():
    """Whatever is computed of an image vouches for its digest: every reading goes through it."""
    seen = 0
    for path in sorted((Path(__file__).parents[1] / "pipeline").rglob("*.py")):
        if path.name == "shortcuts.py":
            continue  # what files are like as files: their sizes, times and headers
        text = path.read_text()
        for found in re.finditer(r"\b(read_file|read_bytes|open)\(", text):
            around = text[max(0, found.start() - 120) : found.end() + 120]
            if "manifest.paths[" not in around:
                continue
            seen += 1
            assert "checked(" in around, f"{path}: {around}"
    assert seen >= 1


@pytest.mark.parametrize("text", ["Insufficient memory (case 4)", "Memory allocation failure"])
def test_a_jpeg_for_which_memory_is_short_is_an_error_and_not_decoded_otherwise(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """Pillow decodes at full size where libjpeg-turbo was to reduce: other pixels."""

    def short(*args: object, **options: object) -> None:
        raise ValueError(text)

    data = encoded(photo(0, (640, 480)), "JPEG")
    monkeypatch.setattr("cnn_codes.datasets.images.simplejpeg.decode_jpeg", short)
    with pytest.raises(MemoryError, match="emory"):
        decode(data, min_side=64)
