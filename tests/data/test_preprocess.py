"""Image ops: pixels equal to Pillow's, orientation, cropping, augmentation, broken bytes."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from image_files import encoded, exif, picture, png_chunk
from PIL import Image

from dsprh_tf.data.images import load_image
from dsprh_tf.data.preprocess import augment, decode_image, resize_crop

DECODE = tf.function(decode_image, input_signature=[tf.TensorSpec([], tf.string)])


def translucent(image, mode):
    image = image.convert(mode)
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image


def cmyk():
    bands = [picture().getchannel(i) for i in (0, 1, 2, 1)]
    return Image.merge("CMYK", bands)


def png(width, height, depth, colour, rows):
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
        + png_chunk(b"IDAT", zlib.compress(rows))
        + png_chunk(b"IEND", b"")
    )


def deep_rgb():
    values = np.random.default_rng(1).integers(0, 65536, (9, 7, 3)).astype(">u2")
    return png(7, 9, 16, 2, b"".join(b"\0" + row.tobytes() for row in values))


def deep_grey():
    values = np.random.default_rng(1).integers(0, 65536, (9, 7)).astype(np.uint16)
    return encoded(Image.fromarray(values), "PNG")


KINDS = {
    "jpeg 4:4:4": lambda: encoded(picture(), "JPEG", quality=95, subsampling=0),
    "jpeg 4:2:0": lambda: encoded(picture(), "JPEG", quality=60, subsampling=2),
    "jpeg odd size": lambda: encoded(picture(51, 77), "JPEG"),
    "jpeg progressive": lambda: encoded(picture(), "JPEG", progressive=True),
    "jpeg one row": lambda: encoded(picture(1, 77), "JPEG"),
    "jpeg grey": lambda: encoded(picture().convert("L"), "JPEG"),
    "png rgb": lambda: encoded(picture(), "PNG"),
    "png rgba": lambda: encoded(translucent(picture(), "RGB"), "PNG"),
    "png grey": lambda: encoded(picture().convert("L"), "PNG"),
    "png grey alpha": lambda: encoded(translucent(picture(), "L"), "PNG"),
    "png 1 bit": lambda: encoded(picture().convert("1"), "PNG"),
    "png palette": lambda: encoded(picture().quantize(200), "PNG"),
    "png 4 bit palette": lambda: encoded(picture().quantize(9), "PNG"),
    "png transparent palette": lambda: encoded(picture().quantize(9), "PNG", transparency=3),
    "png transparent colour": lambda: encoded(picture(), "PNG", transparency=(1, 2, 3)),
    "png 16 bit grey": deep_grey,
    "png 16 bit rgb": deep_rgb,
    "gif": lambda: encoded(picture(), "GIF"),
    "gif animated": lambda: encoded(
        picture(), "GIF", save_all=True, append_images=[picture().rotate(180)]
    ),
    "bmp": lambda: encoded(picture(), "BMP"),
    **{
        f"{kind} orientation {i}": lambda kind=kind, i=i: encoded(picture(), kind, exif=exif(i))
        for kind in ("JPEG", "PNG")
        for i in range(1, 9)
    },
}


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_equal_the_python_loader(kind, tmp_path):
    content = KINDS[kind]()
    path = tmp_path / "image"
    path.write_bytes(content)
    image = DECODE(content)
    assert image.dtype == tf.uint8
    np.testing.assert_array_equal(image.numpy(), load_image(path))


def test_cmyk_differs_from_the_python_loader_by_rounding_only(tmp_path):
    content = encoded(cmyk(), "JPEG")
    path = tmp_path / "image"
    path.write_bytes(content)
    image, expected = DECODE(content).numpy().astype(int), load_image(path).astype(int)
    # TensorFlow truncates c * k / 255, Pillow rounds it.
    assert np.abs(image - expected).max() <= 1


def orientation_block(order, entries, offset=8):
    """JPEG with a hand-made EXIF block; `entries` are (tag, type, count, 4 value bytes)."""
    tiff = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", offset)
    tiff += struct.pack(order + "H", len(entries))
    for tag, kind, count, value in entries:
        tiff += struct.pack(order + "HHI", tag, kind, count) + value
    segment = b"Exif\0\0" + tiff
    content = encoded(picture(), "JPEG")
    return content[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + content[2:]


def test_orientation_in_both_byte_orders_and_as_a_long():
    upright = DECODE(encoded(picture(), "JPEG")).numpy()
    for order in "<>":
        short = (0x0112, 3, 1, struct.pack(order + "HH", 6, 0))
        long = (0x0112, 4, 1, struct.pack(order + "I", 6))
        for entry in (short, long):
            turned = DECODE(orientation_block(order, [(0x0100, 3, 1, b"abcd"), entry])).numpy()
            np.testing.assert_array_equal(turned, np.rot90(upright, -1))


@pytest.mark.parametrize(
    "content",
    [
        orientation_block("<", [(0x0112, 3, 1, b"\x09\0\0\0")]),  # 9 is no orientation
        orientation_block("<", [(0x0112, 3, 1, b"\0\0\0\0")]),
        orientation_block("<", [(0x0112, 2, 1, b"\x06\0\0\0")]),  # not a number
        orientation_block("<", [(0x0112, 3, 9, b"\x06\0\0\0")]),  # an array elsewhere
        orientation_block("<", [(0x0112, 3, 1, b"\x06\0\0\0")], offset=0xFFFFFFFF),
        orientation_block("<", [(0x0112, 3, 1, b"\x06\0\0\0")], offset=60_000),
        orientation_block("<", []),
        orientation_block("<", [(0x0112, 3, 1, b"\x06\0\0\0")]).replace(b"II*\0", b"XX*\0"),
        encoded(picture(), "JPEG", exif=b"Exif\0\0"),
        encoded(picture(), "JPEG", exif=b"Exif\0\0II*"),
        encoded(picture(), "JPEG", exif=b"Exif\0\0" + bytes(range(256))),
    ],
)
def test_damaged_exif_is_taken_for_upright(content):
    np.testing.assert_array_equal(
        DECODE(content).numpy(), DECODE(encoded(picture(), "JPEG")).numpy()
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"no image at all", "Unknown image file format"),
        (b"\xff\xd8\xff", "Invalid JPEG"),
        (encoded(picture(), "JPEG")[:900], "Invalid JPEG"),
        (encoded(picture(), "PNG")[:900], "Invalid PNG"),
        (png(60_000, 60_000, 1, 0, b"\0"), "too large"),
        (encoded(picture().quantize(9), "BMP"), "BMP with a palette"),
    ],
)
def test_bad_bytes_are_refused(content, message):
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        DECODE(content)


@pytest.mark.parametrize("shape", [(75, 100), (100, 75), (32, 43), (20, 9), (64, 64), (1, 1)])
def test_resize_crop_is_the_centre_of_the_resized_image(shape):
    image = np.random.default_rng(2).integers(0, 256, (*shape, 3)).astype(np.uint8)
    scaled = [side * 32 // min(shape) for side in shape]
    whole = tf.image.resize(image, scaled, antialias=True).numpy()
    top, left = ((side - 28) // 2 for side in scaled)
    crop = resize_crop(image, size=28, resize=32)
    assert crop.dtype == tf.float32
    np.testing.assert_allclose(crop, whole[top : top + 28, left : left + 28], atol=1e-2)


def test_resize_crop_leaves_an_image_of_the_right_size_untouched():
    image = np.random.default_rng(2).integers(0, 256, (32, 43, 3)).astype(np.uint8)
    np.testing.assert_array_equal(resize_crop(image, 28, 32), image[2:30, 7:35])


@pytest.mark.parametrize("shape", [(1, 20_000), (20_000, 1)])
def test_resize_crop_of_a_line_stays_small(shape):
    # Resized whole, this image would take 15 GB.
    crop = resize_crop(np.full((*shape, 3), 77, np.uint8)).numpy()
    assert crop.shape == (224, 224, 3)
    np.testing.assert_allclose(crop, 77, atol=1e-3)


def test_crop_larger_than_the_resized_image_is_refused():
    with pytest.raises(ValueError, match="crop of 256 pixels"):
        resize_crop(np.zeros((9, 9, 3), np.uint8), size=256, resize=224)


def test_augment_is_a_function_of_the_seed():
    image = np.random.default_rng(3).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    step = tf.function(lambda seed: augment(image, seed, size=28, resize=32))
    first = step(tf.constant([1, 2], tf.int64)).numpy()
    assert first.shape == (28, 28, 3)
    np.testing.assert_array_equal(first, step(tf.constant([1, 2], tf.int64)))
    np.testing.assert_array_equal(first, augment(image, tf.constant([1, 2]), 28, 32))
    assert np.abs(first - step(tf.constant([1, 4], tf.int64)).numpy()).max() > 1


def test_augment_reaches_every_position_and_mirrors_half():
    # The pixel's value is its column, so that the first row of a crop tells where it lies.
    image = np.tile(np.arange(12, dtype=np.uint8)[None, :, None] * 10, [10, 1, 3])
    step = tf.function(lambda seed: augment(image, seed, size=8, resize=10))
    lefts, mirrored = [], 0
    for i in range(200):
        row = step(tf.constant([7, i], tf.int64)).numpy()[0, :, 0] / 10
        mirrored += row[0] > row[-1]
        lefts.append(int(row.min()))
        np.testing.assert_array_equal(np.sort(row), lefts[-1] + np.arange(8))
    assert set(lefts) == {0, 1, 2, 3, 4}
    assert 70 < mirrored < 130
