import io
import re

import numpy as np
import pytest
from helpers import png_header
from PIL import Image

from dsprh_tf.data.image_reader import MAX_SIDE
from dsprh_tf.data.images import check_images, checked_bytes, image_bytes, load_image

RGB = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


def one_line(error):
    assert "\n" not in str(error.value)
    return str(error.value)


def test_rgb_is_exact_and_writable(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "a.png")
    pixels = load_image(tmp_path / "a.png")
    np.testing.assert_array_equal(pixels, RGB)
    assert pixels.dtype == np.uint8
    assert pixels.flags.writeable


def test_transparency_is_dropped(tmp_path):
    alpha = np.full((6, 9, 1), 7, np.uint8)
    Image.fromarray(np.concatenate([RGB, alpha], 2)).save(tmp_path / "rgba.png")
    np.testing.assert_array_equal(load_image(tmp_path / "rgba.png"), RGB)
    grey = RGB[:, :, 0]
    Image.fromarray(np.stack([grey, alpha[:, :, 0]], 2), "LA").save(tmp_path / "la.png")
    np.testing.assert_array_equal(load_image(tmp_path / "la.png"), np.stack([grey] * 3, 2))


@pytest.mark.parametrize("transparency", [None, 1, b"\x00\x10\xff"])
def test_palette(tmp_path, transparency):
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    image.putpalette([255, 0, 0, 0, 200, 0, 1, 2, 3])
    options = {} if transparency is None else {"transparency": transparency}
    image.save(tmp_path / "p.png", **options)
    expected = [[[255, 0, 0], [0, 200, 0], [1, 2, 3]]]
    np.testing.assert_array_equal(load_image(tmp_path / "p.png"), expected)


def test_bilevel_and_grey(tmp_path):
    bits = np.array([[True, False, True]])
    Image.fromarray(bits).save(tmp_path / "1.png")
    np.testing.assert_array_equal(load_image(tmp_path / "1.png")[:, :, 1], [[255, 0, 255]])
    Image.fromarray(RGB[:, :, 0]).save(tmp_path / "l.png")
    np.testing.assert_array_equal(load_image(tmp_path / "l.png"), np.stack([RGB[:, :, 0]] * 3, 2))


def test_cmyk_jpeg(tmp_path):
    Image.new("CMYK", (16, 8), (0, 255, 255, 0)).save(tmp_path / "c.jpg", quality=95)
    pixels = load_image(tmp_path / "c.jpg").astype(int)
    assert pixels.shape == (8, 16, 3)
    assert abs(pixels - [255, 0, 0]).max() < 6


@pytest.mark.parametrize("kind", ["png", "tif"])
def test_16_bit_grey_keeps_its_high_byte(tmp_path, kind):
    deep = np.array([[0, 255, 256, 0x1234, 0xFFFF]], np.uint16)
    path = tmp_path / f"deep.{kind}"
    Image.fromarray(deep).save(path)
    np.testing.assert_array_equal(load_image(path)[:, :, 2], [[0, 0, 1, 0x12, 0xFF]])


def test_32_bit_integers_and_floats(tmp_path):
    Image.fromarray(np.array([[0, 0xFFFF, 256]], np.int32)).save(tmp_path / "i.tif")
    np.testing.assert_array_equal(load_image(tmp_path / "i.tif")[:, :, 0], [[0, 255, 1]])
    Image.fromarray(np.array([[0, 2**31 - 1, 2**30]], np.int32)).save(tmp_path / "big.tif")
    np.testing.assert_array_equal(load_image(tmp_path / "big.tif")[:, :, 0], [[0, 255, 128]])
    Image.fromarray(np.array([[0, 1, 0.5]], np.float32)).save(tmp_path / "f.tif")
    np.testing.assert_array_equal(load_image(tmp_path / "f.tif")[:, :, 0], [[0, 255, 127]])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, orientation):
    upright = {
        1: RGB, 2: RGB[:, ::-1], 3: RGB[::-1, ::-1], 4: RGB[::-1],
        5: RGB.swapaxes(0, 1), 6: np.rot90(RGB, -1), 7: RGB[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(RGB),
    }  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(RGB).save(tmp_path / "e.png", exif=exif)
    np.testing.assert_array_equal(load_image(tmp_path / "e.png"), upright[orientation])


@pytest.fixture
def bad_files(tmp_path):
    """Name -> what its line must say."""
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "JPEG")
    jpeg = buffer.getvalue()
    Image.fromarray(noise).save(tmp_path / "whole.png")
    png = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "whole.png").unlink()
    contents = {
        "empty.jpg": b"",
        "words.jpg": b"not a picture, but long enough for a header" * 5,
        "half.jpg": jpeg[: len(jpeg) // 2],
        "padded.jpg": jpeg[: len(jpeg) // 2] + b"\0" * 100,
        "half.png": png[: len(png) // 2],
        "head.jpg": jpeg[:10],
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    Image.fromarray(noise).save(tmp_path / "half.bmp")
    (tmp_path / "half.bmp").write_bytes((tmp_path / "half.bmp").read_bytes()[:5000])
    Image.new("1", (60_000, 2)).save(tmp_path / "wide.png")
    Image.new("1", (14_000, 14_000)).save(tmp_path / "bomb.png")
    return {
        "missing.jpg": "does not exist",
        "empty.jpg": r"is empty \(0 bytes\)",
        "words.jpg": "is no JPEG, PNG, GIF, BMP, WebP, TIFF, HEIC or AVIF file",
        "head.jpg": "is truncated",
        "half.jpg": "is truncated",
        "padded.jpg": "image .*padded.jpg (is truncated|cannot be read)",
        "half.png": "is truncated|cannot be read",
        "half.bmp": "is truncated",
        "wide.png": rf"too large \(60000 x 2 pixels; .* {MAX_SIDE:,} per side",
        "bomb.png": "too large .*decompression bomb",
    }


def test_bad_files_are_named_by_load_and_check(tmp_path, bad_files):
    Image.fromarray(RGB).save(tmp_path / "good.png")
    names = ["good.png", *bad_files]
    paths = [str(tmp_path / name) for name in names]
    where = [f"manifest.csv row {row}" for row in range(2, len(names) + 2)]
    keep, problems, _ = check_images(paths, "skip", where)
    assert keep.tolist() == [True] + [False] * len(bad_files)
    for row, (name, message), problem in zip(where[1:], bad_files.items(), problems):
        with pytest.raises(ValueError, match=message) as error:
            load_image(tmp_path / name, row)
        for line in (one_line(error), problem):
            assert line.startswith(f"{row}: image {tmp_path / name} ")
            assert re.search(message, line)
            assert line.endswith("restore the file, or leave it out with --on_bad_image=skip")
    with pytest.raises(ValueError, match=rf"^{where[1]}.*\(9 more files are bad\)$"):
        check_images(paths, "error", where)
    with pytest.raises(ValueError, match="^row 17: image"):
        load_image(tmp_path / "empty.jpg", 17)


@pytest.mark.parametrize(
    ("kind", "reader"),
    [("EPS", "EpsImagePlugin.Ghostscript"), ("ICO", "IcoImagePlugin.IcoFile")],
)
def test_other_kinds_are_refused_unread(tmp_path, monkeypatch, kind, reader):
    """Pillow would run a program on the one, and decode the other before its size is known."""
    path, read = tmp_path / "a.png", []
    Image.new("RGB", (64, 64)).save(path, kind)
    monkeypatch.setattr(f"PIL.{reader}", lambda *_, **__: read.append(kind))
    with pytest.raises(ValueError, match="it is no JPEG, PNG, GIF, .*, HEIC or AVIF file"):
        checked_bytes(path.read_bytes(), "it", max_pixels=100)
    with pytest.raises(ValueError, match="a.png is no JPEG, PNG, GIF, .*, HEIC or AVIF file"):
        load_image(path)
    assert read == []


def test_the_pictures_of_a_camera(tmp_path):
    """Several in one file (MPO), of which the first counts."""
    path = tmp_path / "a.jpg"
    Image.new("RGB", (9, 6), "red").save(
        path, "MPO", save_all=True, append_images=[Image.new("RGB", (3, 3))]
    )
    assert load_image(path).shape == (6, 9, 3)
    assert image_bytes(path) == checked_bytes(path.read_bytes(), "it") == path.read_bytes()


@pytest.mark.parametrize(("width", "height"), [(15_000, 15_000), (60_000, 1)])
def test_what_is_taken_as_it_is_has_its_size_checked(tmp_path, width, height):
    path = tmp_path / "a.png"
    path.write_bytes(png_header(width, height))
    with pytest.raises(ValueError, match=f"a.png is too large .*{width}|a.png is too large .*bomb"):
        image_bytes(path)
    path.write_bytes(png_header(40, 30))
    assert image_bytes(path) == png_header(40, 30)


def test_good_files_of_any_ending_pass(tmp_path):
    picture = Image.fromarray(RGB)
    for kind in ("jpg", "png", "gif", "bmp", "tif", "webp"):
        picture.save(tmp_path / f"a.{kind}")
    for tail in (b"\0" * 3000, b"camera maker's own data" * 10):
        path = tmp_path / f"tail{len(tail)}.jpg"
        path.write_bytes((tmp_path / "a.jpg").read_bytes() + tail)
    paths = sorted(map(str, tmp_path.iterdir()))
    keep, problems, _ = check_images(paths)
    assert keep.tolist() == [True] * 8
    assert problems == []
    for path in paths:
        assert load_image(path).shape == (6, 9, 3)


def test_the_thumbnail_of_a_truncated_jpeg_does_not_hide_it(tmp_path):
    thumbnail = io.BytesIO()
    Image.fromarray(RGB).save(thumbnail, "JPEG")
    path = tmp_path / "t.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, exif=b"Exif\0\0" + thumbnail.getvalue())
    whole = path.read_bytes()
    assert check_images([str(path)], "skip")[0].all()
    path.write_bytes(whole[: len(whole) - 200])
    assert not check_images([str(path)], "skip")[0].any()


def test_empty_list_and_unknown_choice():
    keep, problems, _ = check_images([])
    assert (keep.shape, keep.dtype, problems) == ((0,), bool, [])
    with pytest.raises(ValueError, match="'ignore', expected 'error' or 'skip'"):
        check_images([], "ignore")
