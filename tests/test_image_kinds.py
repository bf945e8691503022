"""Kinds of images that people have: encodings of one picture, deep samples, bands, profiles."""

import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from cnn_codes.datasets import images as images_module
from cnn_codes.datasets.colour import changes_colours
from cnn_codes.datasets.emptiness import emptiness
from cnn_codes.datasets.images import decode, limit_pixels, probe, read_file
from cnn_codes.datasets.samples import Reading
from cnn_codes.errors import ImageError
from pictures import encoded, jpeg, photo
from PIL import Image, ImageCms, ImageFilter
from PIL.TiffImagePlugin import ImageFileDirectory_v2


def pixels_of(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB"))


def rgb(pixels: np.ndarray) -> np.ndarray:
    return pixels if pixels.shape[2] == 3 else np.repeat(pixels, 3, axis=2)


def tiff(array: np.ndarray, **options) -> bytes:
    tifffile = pytest.importorskip("tifffile")
    stream = io.BytesIO()
    tifffile.imwrite(stream, array, **options)
    return stream.getvalue()


def png16(array: np.ndarray) -> bytes:
    """Write 16-bit colours, which Pillow cannot."""
    height, width, channels = array.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 3: 2}[channels], 0, 0, 0)
    data = zlib.compress(rows)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


# The same picture in many files


def test_lossless_encodings_of_one_picture_give_the_same_pixels():
    picture = photo(21)
    whole = np.asarray(picture)
    wide = whole.astype(np.uint16) * 257
    tags = ImageFileDirectory_v2()
    tags[274] = 6
    turned = picture.transpose(Image.Transpose.ROTATE_90)
    files = {
        "png": encoded(picture, "PNG"),
        "bmp": encoded(picture, "BMP"),
        "ppm": encoded(picture, "PPM"),
        "tiff": encoded(picture, "TIFF"),
        "lzw": encoded(picture, "TIFF", compression="tiff_lzw"),
        "webp": encoded(picture, "WEBP", lossless=True, exact=True),
        "rgba": encoded(picture.convert("RGBA"), "PNG"),
        "png16": png16(wide),
        "tiff16": tiff(wide, photometric="rgb"),
        "tiff16be": tiff(wide, photometric="rgb", byteorder=">"),
        "planar": tiff(np.moveaxis(wide, 2, 0), photometric="rgb", planarconfig="separate"),
        "turned": encoded(turned, "TIFF", tiffinfo=tags),
        "profile": encoded(
            picture,
            "PNG",
            icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
        ),
    }
    for name, data in files.items():
        assert np.array_equal(rgb(decode(data)), whole), name


def test_greys_of_8_and_16_bits_and_either_polarity_give_the_same_pixels():
    level = np.asarray(photo(22, mode="L"))
    files = {
        "png": encoded(Image.fromarray(level), "PNG"),
        "png16": encoded(Image.fromarray(level.astype(np.uint16) * 257), "PNG"),
        "tiff16": tiff(level.astype(np.uint16) * 257, photometric="minisblack"),
        "inverted8": tiff(255 - level, photometric="miniswhite"),
        "inverted16": tiff(65535 - level.astype(np.uint16) * 257, photometric="miniswhite"),
    }
    for name, data in files.items():
        assert np.array_equal(decode(data)[:, :, 0], level), name


# Colour profiles


def wide_gamut() -> bytes:
    """Make a profile whose red and blue are exchanged: what it does cannot be overlooked."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    n_tags = struct.unpack(">I", profile[128:132])[0]
    at = {profile[132 + 12 * i : 136 + 12 * i].decode(): 132 + 12 * i for i in range(n_tags)}
    red, blue = at["rXYZ"], at["bXYZ"]
    profile[red + 4 : red + 12], profile[blue + 4 : blue + 12] = (
        profile[blue + 4 : blue + 12], profile[red + 4 : red + 12],
    )  # fmt: skip
    return bytes(profile)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_colours_go_through_the_profile_of_the_file(format):
    picture = photo(23)
    exchanged = Image.fromarray(np.ascontiguousarray(np.asarray(picture)[:, :, ::-1]))
    options = {"quality": 95} if format == "JPEG" else {}
    options |= {"lossless": True} if format == "WEBP" else {}
    data = encoded(exchanged, format, icc_profile=wide_gamut(), **options)
    assert probe(data).converted
    gap = np.abs(decode(data).astype(int) - np.asarray(picture))
    assert gap.mean() < (6 if format == "JPEG" else 1.5)
    assert np.abs(np.asarray(exchanged).astype(int) - np.asarray(picture)).mean() > 15


def test_a_profile_that_is_srgb_damaged_or_of_another_space_changes_nothing():
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    for profile in (srgb, lab, b"no profile", b""):
        assert not changes_colours(profile, "RGB")
        data = encoded(photo(24), "PNG", icc_profile=profile)
        assert np.array_equal(decode(data), np.asarray(photo(24)))


# More than 8 bits


def test_twelve_bits_read_by_their_range_equal_their_8_bit_twin():
    level = np.asarray(photo(25, mode="L"))
    twelve = (level.astype(np.uint32) * 4095 // 255).astype(np.uint16)
    reading = Reading((("uint16", 0.0, 4095.0),))
    colours = np.asarray(photo(25)).astype(np.uint32) * 4095 // 255
    assert np.array_equal(
        decode(encoded(Image.fromarray(twelve), "PNG"), reading=reading)[:, :, 0], level
    )
    for data in (
        png16(colours.astype(np.uint16)),
        tiff(colours.astype(np.uint16), photometric="rgb"),
    ):
        pytest.importorskip("imagecodecs")
        assert np.array_equal(decode(data, reading=reading), np.asarray(photo(25)))


@pytest.mark.parametrize("kind", ["int16", "int32", "uint32", "float32", "float64"])
def test_other_types_are_read_by_their_range_and_refused_by_name_without(kind):
    level = np.asarray(photo(26, mode="L"))
    data = tiff((level.astype(float) / 2 + 10).astype(kind), photometric="minisblack")
    assert probe(data).samples == kind
    with pytest.raises(ImageError, match=f"samples are {kind}"):
        decode(data)
    read = decode(data, reading=Reading(((kind, 10.0, 137.5),)))[:, :, 0]
    assert np.abs(read.astype(int) - level).max() <= (0 if kind.startswith("f") else 2)


def test_pixels_that_are_not_numbers_are_refused_with_their_share():
    values = np.zeros((20, 10), np.float32)
    values[:5] = np.nan
    with pytest.raises(ImageError, match=r"25\.0 % of its float32 pixels are NaN"):
        decode(tiff(values, photometric="minisblack"), reading=Reading((("float32", 0.0, 1.0),)))


def test_bands_are_taken_as_asked_and_never_guessed():
    pytest.importorskip("imagecodecs")
    whole = np.asarray(photo(27))
    bands = np.concatenate([whole[:, :, [k % 3]] for k in range(13)], 2)
    for array in (bands, bands.astype(np.uint16) * 257):
        data = tiff(array, photometric="minisblack", planarconfig="contig")
        with pytest.raises(ImageError, match=r"13 bands of uint(8|16); BANDS="):
            decode(data)
        reading = Reading(ranges=(("uint8", 0.0, 255.0),), bands=(4, 5, 6))
        assert np.array_equal(decode(data, reading=reading), whole)
        one = Reading(ranges=(("uint8", 0.0, 255.0),), bands=(2,))
        assert np.array_equal(decode(data, reading=one)[:, :, 0], whole[:, :, 1])
        with pytest.raises(ImageError, match="BANDS=4,5,14 are not all there"):
            decode(data, reading=Reading(bands=(4, 5, 14)))


# Formats of phones and hospitals


def test_heic_and_avif_are_read_whatever_they_are_called():
    pillow_heif = pytest.importorskip("pillow_heif")
    stream = io.BytesIO()
    pillow_heif.from_pillow(photo(28, (120, 90))).save(stream, quality=95)
    whole = np.asarray(photo(28, (120, 90))).astype(int)
    assert np.abs(decode(stream.getvalue()) - whole).mean() < 8
    assert probe(stream.getvalue()).format == "HEIF"
    assert np.abs(decode(encoded(photo(28, (120, 90)), "AVIF")) - whole).mean() < 8


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\0\0\0\x18ftypheic" + b"\0" * 600, "HEIC.*damaged"),
        (b"\0\0\0\x18ftypavif" + b"\0" * 600, "AVIF.*damaged"),
        (b"\xff\x0a" + b"\x12" * 500, "JPEG XL; .*djxl"),
        (b"II*\0\x10\0\0\0CR\2\0" + b"\0" * 500, "camera RAW"),
        (b"\0" * 128 + b"DICM" + b"\0" * 500, "DICOM"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"/annex/objects/SHA256E-s1--0.jpg\n", "git annex get"),
    ],
)
def test_what_cannot_be_read_is_called_what_it_is(data, words):
    with pytest.raises(ImageError, match=words):
        decode(data)


def test_without_the_extra_its_name_is_given(monkeypatch):
    from cnn_codes.datasets import formats

    monkeypatch.setattr(formats.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(images_module, "FORMATS", ("JPEG", "PNG"))
    for data, extra in ((b"\0\0\0\x18ftypheic" + b"\0" * 600, "heic"),):
        with pytest.raises(ImageError, match=rf"pip install 'cnn-codes\[{extra}\]'"):
            decode(data)


def dicom(values: np.ndarray, **more) -> bytes:
    pydicom = pytest.importorskip("pydicom")
    from pydicom.dataset import Dataset, FileMetaDataset

    found = Dataset()
    found.file_meta = FileMetaDataset()
    found.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    found.file_meta.MediaStorageSOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
    found.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    found.Rows, found.Columns = values.shape
    found.BitsAllocated = found.BitsStored = 8 * values.dtype.itemsize
    found.HighBit = found.BitsStored - 1
    found.PixelRepresentation = int(values.dtype.kind == "i")
    found.SamplesPerPixel, found.PhotometricInterpretation = 1, "MONOCHROME2"
    found.PixelData = values.tobytes()
    for name, value in more.items():
        setattr(found, name, value)
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, found, enforce_file_format=True)
    return stream.getvalue()


def test_dicom_goes_through_slope_window_and_polarity():
    level = np.asarray(photo(29, mode="L"))
    stored = (level.astype(np.int16) * 4 + 100).astype(np.int16)
    scale = {"RescaleSlope": 1, "RescaleIntercept": -1100}  # to -1000 .. 20
    window = {"WindowCenter": -489.5, "WindowWidth": 1021}
    data = dicom(stored, **scale, **window)
    assert np.abs(decode(data)[:, :, 0].astype(int) - level).max() <= 1
    inverted = dicom(stored, **scale, **window, PhotometricInterpretation="MONOCHROME1")
    assert np.abs(255 - decode(inverted)[:, :, 0].astype(int) - level).max() <= 1
    assert probe(data).format == "DICOM"
    by_set = decode(dicom(stored, **scale), reading=Reading((("int16", -1000.0, 20.0),)))
    assert np.abs(by_set[:, :, 0].astype(int) - level).max() <= 1
    with pytest.raises(ImageError, match="samples are int16"):
        decode(dicom(stored, **scale))


# Budgets


def test_large_text_and_broken_profiles_are_no_reason_to_lose_the_pixels():
    def with_chunk(data: bytes, kind: bytes, body: bytes) -> bytes:
        chunk = struct.pack(">I", len(body)) + kind + body
        return data[:33] + chunk + struct.pack(">I", zlib.crc32(kind + body)) + data[33:]

    plain, text = encoded(photo(30), "PNG"), b"x" * 3_000_000
    for kind, body in (
        (b"zTXt", b"profile\0\0" + zlib.compress(text)),
        (b"iTXt", b"workflow\0\1\0\0\0" + zlib.compress(text)),
        (b"iCCP", b"Display\0\0" + zlib.compress(text)),
        (b"tEXt", b"Comment\0" + text),
        (b"iCCP", b"broken\0\0not zlib"),
    ):
        assert np.array_equal(decode(with_chunk(plain, kind, body)), np.asarray(photo(30))), kind


def test_a_limit_of_pixels_can_be_raised_and_is_said():
    data = encoded(photo(31, (100, 80)), "PNG")
    try:
        limit_pixels(7_999)
        with pytest.raises(ImageError, match="MAX_PIXELS"):
            decode(data)
        limit_pixels(8_000)
        assert decode(data).shape == (80, 100, 3)
    finally:
        limit_pixels(images_module.MAX_PIXELS)


def test_a_large_photograph_is_read_reduced_where_the_whole_is_over_the_limit():
    data = jpeg(32, (1600, 1200))
    try:
        limit_pixels(400_000)
        with pytest.raises(ImageError, match="absurdly large"):
            decode(data)
        small = decode(data, min_side=100)
    finally:
        limit_pixels(images_module.MAX_PIXELS)
    assert 200 <= min(small.shape[:2]) < 400


def test_a_jpeg_of_thousands_of_scans_is_refused_undecoded():
    data = jpeg(33, (3000, 2000), progressive=True)
    at = data.rfind(b"\xff\xda")
    scan = data[at:-2]
    bomb = data[:-2] + scan[: len(scan)] * 400 + b"\xff\xd9"
    with pytest.raises(ImageError, match="scans of 3000 x 2000 px"):
        decode(bomb)


def test_pages_of_a_tiff_are_counted_without_reading_them():
    pages = [photo(seed, (16, 16), "L") for seed in range(40)]
    data = encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    assert probe(data).n_frames == 40
    assert np.array_equal(decode(data)[:, :, 0], np.asarray(pages[0]))


def test_shortage_of_memory_is_not_called_a_damaged_image():
    program = (
        "import io, resource\n"
        "from PIL import Image\n"
        "from cnn_codes.datasets.images import decode\n"
        "stream = io.BytesIO(); Image.new('RGB', (9000, 9000)).save(stream, 'PNG')\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * 4096\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 150_000_000,) * 2)\n"
        "try:\n    decode(stream.getvalue())\nexcept MemoryError:\n    print('memory')\n"
    )
    if sys.platform != "linux":
        pytest.skip("limits memory as Linux does")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "memory\n", done.stderr


def test_only_regular_files_of_a_sound_size_are_read(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(ImageError, match="pipe"):
        read_file(tmp_path / "pipe.jpg")
    with pytest.raises(ImageError, match="folder"):
        read_file(tmp_path)
    with (tmp_path / "huge.png").open("wb") as stream:
        stream.truncate(3 << 30)
    with pytest.raises(ImageError, match="absurdly large: 3,221,225,472 bytes"):
        read_file(tmp_path / "huge.png")


def test_what_a_damaged_tiff_would_allocate_is_counted_before():
    how = {"tile": (16, 16), "compression": "lzw", "planarconfig": "contig"}
    sound = tiff(np.zeros((64, 64, 5), np.uint16), **how)
    data, bands = bytearray(sound), Reading(bands=(3, 2, 1))
    (first,) = struct.unpack_from("<I", data, 4)
    entries = range(first + 2, first + 2 + 12 * data[first], 12)
    tile_width = next(at for at in entries if struct.unpack_from("<H", data, at) == (322,))
    struct.pack_into("<HII", data, tile_width + 2, 4, 1, 2**31 - 16)
    assert decode(sound, reading=bands).shape == (64, 64, 3)
    with pytest.raises(ImageError, match="absurdly large"):
        decode(bytes(data), reading=bands)


def test_libraries_say_nothing_on_the_terminal():
    pytest.importorskip("tifffile")
    program = (
        "import imagecodecs, numpy as np, tifffile, io\n"
        "from cnn_codes.datasets.images import decode, probe\n"
        "from cnn_codes.errors import ImageError\n"
        "s, bands = io.BytesIO(), np.zeros((8, 8, 7), np.uint8)\n"
        "tifffile.imwrite(s, bands, planarconfig='contig')\n"
        "from PIL import Image\n"
        "def saved(**how):\n"
        "    stream = io.BytesIO(); Image.new('RGB', (60, 50), 'red').save(stream, **how)\n"
        "    data = bytearray(stream.getvalue()); data[len(data) // 2] ^= 255\n"
        "    data[len(data) // 3] ^= 255; return bytes(data)\n"
        "deep = imagecodecs.png_encode(np.arange(7500, dtype=np.uint16).reshape(50, 50, 3))\n"
        "deep = deep[:200] + bytes([deep[200] ^ 1]) + deep[201:]\n"
        "tiffs = [saved(format='TIFF', compression=c) for c in ('tiff_lzw', 'jpeg', 'packbits')]\n"
        "tiffs += [s.getvalue(), s.getvalue()[:-200], b'II*\\0' + b'\\x07' * 500]\n"
        "for data in (deep, *tiffs):\n"
        "    for what in (decode, probe):\n"
        "        try: what(data)\n"
        "        except ImageError: pass\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# Empty pictures


@pytest.mark.parametrize(
    ("picture", "kind"),
    [
        (np.full((50, 60, 3), 1, np.uint8), "black"),
        (np.random.default_rng(0).integers(0, 3, (50, 60, 1), np.uint8), "black"),
        (np.full((50, 60, 3), 255, np.uint8), "white"),
        (np.full((50, 60, 3), (200, 30, 90), np.uint8), "constant"),
        (np.tile(np.uint8([[0], [255]]), (30, 60))[:, :, None], "few-levels"),
        (np.asarray(photo(34, (300, 300)).filter(ImageFilter.GaussianBlur(40))), "blurred"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_empty_pictures_are_told_by_their_kind(picture, kind):
    assert emptiness(picture) == kind


def test_photographs_are_not_empty():
    from sklearn.datasets import load_sample_images

    for image in load_sample_images().images:
        assert emptiness(np.asarray(image)) == ""
        assert emptiness(np.asarray(Image.fromarray(image).convert("L"))[:, :, None]) == ""


def test_images_of_a_small_part_of_16_bits_are_not_called_blank(tmp_path, inside):
    for i in range(12):
        grey = np.asarray(photo(i, mode="L")).astype(np.uint16)
        values = 7000 + grey if i < 10 else np.full_like(grey, 7000)  # thermal, and truly blank
        path = tmp_path / "set" / ("cold", "warm")[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(path)
    done = inside("audit", data=tmp_path / "set")
    assert done.returncode == 0
    assert "12 images are blank" not in done.stdout
    assert "2 images are of one colour" in done.stdout
