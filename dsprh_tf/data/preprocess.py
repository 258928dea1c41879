"""From image bytes to network pixels as TensorFlow ops.

Training, evaluation and the exported graphs all run these functions, so that a served image
becomes exactly the pixels that the network has seen.
"""

from __future__ import annotations

import tensorflow as tf

_HEAD_BYTES = 65536  # An APP1 segment is at most this long; longer heads are not searched.
_ORIENTATION_TAG = 0x0112
_SHORT, _LONG = 3, 4  # TIFF field types in which writers store the orientation


def _number(digits: tf.Tensor, little: tf.Tensor) -> tf.Tensor:
    """Unsigned integers from their bytes, int64 [..., n] -> [...], in the TIFF's byte order."""
    powers = tf.constant([256**i for i in range(digits.shape[-1])], tf.int64)
    return tf.reduce_sum(digits * tf.where(little, powers, powers[::-1]), axis=-1)


def _tiff_orientation(tiff: tf.Tensor) -> tf.Tensor:
    """Orientation 1..8 in IFD0 of a TIFF block (scalar string); 1 where it is absent or broken."""
    order = tf.strings.substr(tiff, 0, 4)
    little = tf.equal(order, b"II*\x00")
    known = little | tf.equal(order, b"MM\x00*")
    raw = tf.cast(tf.io.decode_raw(tiff, tf.uint8), tf.int64)
    raw = tf.concat([raw, tf.zeros([16], tf.int64)], 0)  # so that short blocks can be read
    size = tf.size(raw, out_type=tf.int64)
    # A damaged offset points anywhere: the directory is then read as empty.
    start = tf.minimum(_number(tf.ensure_shape(raw[4:8], [4]), little), size - 2)
    count = _number(tf.ensure_shape(raw[start : start + 2], [2]), little)
    count = tf.minimum(count, (size - start - 2) // 12)
    entries = tf.reshape(raw[start + 2 : start + 2 + 12 * count], [-1, 12])
    kind = _number(entries[:, 2:4], little)
    short, long = _number(entries[:, 8:10], little), _number(entries[:, 8:12], little)
    found = (
        tf.equal(_number(entries[:, 0:2], little), _ORIENTATION_TAG)
        & tf.equal(_number(entries[:, 4:8], little), 1)
        & (tf.equal(kind, _SHORT) | tf.equal(kind, _LONG))
    )
    values = tf.where(tf.equal(kind, _SHORT), short, long)
    value = tf.concat([tf.boolean_mask(values, found), [1]], 0)[0]
    return tf.where(known & (value >= 1) & (value <= 8), value, tf.ones_like(value))


def _orient(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Image [h, w, 3] stored with an EXIF orientation, turned upright."""
    image = tf.cond(orientation >= 5, lambda: tf.transpose(image, [1, 0, 2]), lambda: image)
    upside_down = tf.reduce_any(tf.equal(orientation, [3, 4, 7, 8]))
    mirrored = tf.reduce_any(tf.equal(orientation, [2, 3, 6, 7]))
    return tf.reverse(image, tf.boolean_mask([0, 1], tf.stack([upside_down, mirrored])))


def _apply_exif(image: tf.Tensor, image_bytes: tf.Tensor, marker: bytes) -> tf.Tensor:
    """Image turned upright by the EXIF block that follows `marker` within the first 64 KiB."""
    head = tf.strings.substr(image_bytes, 0, _HEAD_BYTES)
    parts = tf.strings.split(head, marker, maxsplit=1)
    return tf.cond(
        tf.size(parts) > 1,
        lambda: _orient(image, _tiff_orientation(parts[1])),
        lambda: image,
    )


def _decode_other(image_bytes: tf.Tensor) -> tf.Tensor:
    """Image [h, w, 3] from PNG, GIF or BMP (and WebP where this TensorFlow reads it)."""

    def bits_per_pixel():
        return tf.io.decode_raw(tf.strings.substr(image_bytes, 28, 1), tf.uint8)[0]

    # TensorFlow would silently take the palette indices of a BMP for grey levels.
    is_bmp = tf.equal(tf.strings.substr(image_bytes, 0, 2), b"BM")
    bits = tf.cond(is_bmp, bits_per_pixel, lambda: tf.constant(24, tf.uint8))
    readable = tf.debugging.Assert(
        bits > 8, ["BMP with a palette cannot be decoded here: save it as PNG or JPEG"]
    )
    with tf.control_dependencies([readable] if readable is not None else []):
        return tf.io.decode_image(image_bytes, channels=3, expand_animations=False)


def decode_image(image_bytes: tf.Tensor) -> tf.Tensor:
    """RGB image from an encoded file, upright.

    JPEG is decoded with libjpeg's accurate integer transform, whose pixels equal Pillow's; CMYK
    and grey become RGB, the EXIF orientation is applied. PNG of every colour type (palette, grey,
    16 bit by its high byte, alpha dropped), the first frame of GIF, and BMP without a palette are
    read too.

    Args:
        image_bytes: scalar string, the content of an image file.

    Returns:
        uint8 [height, width, 3].

    Raises:
        tf.errors.InvalidArgumentError: the bytes are not an image, are truncated, or announce
            more than 2^29 values (a decompression bomb).
    """

    def jpeg():
        image = tf.io.decode_jpeg(image_bytes, channels=3, dct_method="INTEGER_ACCURATE")
        return _apply_exif(image, image_bytes, b"Exif\x00\x00")

    def other():
        return _apply_exif(_decode_other(image_bytes), image_bytes, b"eXIf")

    is_jpeg = tf.equal(tf.strings.substr(image_bytes, 0, 3), b"\xff\xd8\xff")
    return tf.ensure_shape(tf.cond(is_jpeg, jpeg, other), [None, None, 3])


def _scaled_size(image: tf.Tensor, size: int, resize: int) -> tf.Tensor:
    """Height and width, int32 [2], after the short side has become `resize`."""
    if not 0 < size <= resize:
        raise ValueError(
            f"the crop of {size} pixels must be positive and no larger than the resized short "
            f"side of {resize}: lower the image size or raise `resize`"
        )
    extent = tf.shape(image)[:2]
    return extent * resize // tf.reduce_min(extent)


def _scaled_rows(image: tf.Tensor, size: int, scale: tf.Tensor, offset: tf.Tensor) -> tf.Tensor:
    """Rows `offset`..`offset + size` of the vertically scaled image, transposed: [w, size, 3].

    A row counts as one pixel of many channels, which the op adds up in long vectors: a third
    faster than resizing both axes at once, with the same result.
    """
    extent = tf.shape(image)
    rows = tf.raw_ops.ScaleAndTranslate(
        images=tf.reshape(image, [1, extent[0], 1, extent[1] * 3]),
        size=[size, 1],
        scale=tf.stack([scale, 1.0]),
        translation=tf.stack([-tf.cast(offset, tf.float32), 0.0]),
        kernel_type="triangle",
        antialias=True,
    )
    return tf.transpose(tf.reshape(rows, [size, extent[1], 3]), [1, 0, 2])


def _scale_and_crop(image: tf.Tensor, scaled: tf.Tensor, offset: tf.Tensor, size: int):
    """Window [size, size, 3] at `offset` of the image resized to `scaled`, float32.

    Only the window is computed: a 1 x 5,000 image would be 256 x 1,280,000 when resized whole.
    """
    extent = tf.shape(image)[:2]

    def crop():
        window = image[offset[0] : offset[0] + size, offset[1] : offset[1] + size]
        return tf.cast(window, tf.float32)

    def scale():
        factor = tf.cast(scaled / extent, tf.float32)
        columns = _scaled_rows(image, size, factor[0], offset[0])
        return _scaled_rows(columns, size, factor[1], offset[1])

    window = tf.cond(tf.reduce_all(tf.equal(scaled, extent)), crop, scale)
    return tf.ensure_shape(window, [size, size, 3])


def resize_crop(image: tf.Tensor, size: int = 224, resize: int = 256) -> tf.Tensor:
    """Centre crop of the image whose short side was resized (bilinear, antialiased).

    Args:
        image: uint8 [height, width, 3], any size from 1 x 1.
        size: side of the crop in pixels.
        resize: short side after resizing; an image that already has it is only cropped.

    Returns:
        float32 [size, size, 3] in 0..255.

    Raises:
        ValueError: `size` is not in 1..`resize`.
    """
    image = tf.convert_to_tensor(image)
    scaled = _scaled_size(image, size, resize)
    return _scale_and_crop(image, scaled, (scaled - size) // 2, size)


def augment(image: tf.Tensor, seed: tf.Tensor, size: int = 224, resize: int = 256) -> tf.Tensor:
    """Random crop of the resized image, mirrored in half of the cases: a function of the seed.

    Args:
        image: uint8 [height, width, 3].
        seed: int32 or int64 [2]; the same seed gives the same pixels.
        size: side of the crop in pixels.
        resize: short side after resizing.

    Returns:
        float32 [size, size, 3] in 0..255.

    Raises:
        ValueError: `size` is not in 1..`resize`.
    """
    image = tf.convert_to_tensor(image)
    scaled = _scaled_size(image, size, resize)
    draw = tf.random.stateless_uniform([3], seed)
    room = scaled - size
    offset = tf.cast(draw[:2] * tf.cast(room + 1, tf.float32), tf.int32)
    # Rounding can lift a draw just below 1 onto the first position outside.
    window = _scale_and_crop(image, scaled, tf.minimum(offset, room), size)
    return tf.cond(draw[2] < 0.5, lambda: window[:, ::-1], lambda: window)
