"""From image bytes to network pixels as TensorFlow ops.

Training, evaluation and the exported graphs all run these functions, so that a served image
becomes exactly the pixels that the network has seen.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from dsprh_tf.data import image_structure as structure
from dsprh_tf.data import image_structure_ops as ops


def _require(condition: tf.Tensor, message: str, image: Callable[[], tf.Tensor]) -> tf.Tensor:
    """The image, once the condition is found to hold."""
    checked = tf.debugging.Assert(condition, [message])
    with tf.control_dependencies([checked] if checked is not None else []):
        return image()


def _decode_jpeg(content: tf.Tensor) -> tf.Tensor:
    return tf.io.decode_jpeg(content, channels=3, dct_method="INTEGER_ACCURATE")


def _decode(content: tf.Tensor) -> tf.Tensor:
    return tf.io.decode_image(content, channels=3, expand_animations=False)


def _decode_open_jpeg(content: tf.Tensor) -> tf.Tensor:
    """Image [h, w, 3] from a JPEG without an end marker, which must not lack anything else.

    Nothing is missing if the pixels are the same whatever follows.
    """
    content = ops.without_filling(content)
    tails = [tail + structure.END_OF_IMAGE for tail in structure.TAILS]
    first, *others = [_decode_jpeg(tf.strings.join([content, tail])) for tail in tails]
    same = [tf.reduce_all(tf.equal(first, other)) for other in others]
    whole = tf.reduce_all(tf.stack([*same, ops.has_all_scans(content)]))
    message = "Invalid JPEG data: the end is missing"
    return _require(whole, message, lambda: tf.identity(first))


def _decode_other(content: tf.Tensor) -> tf.Tensor:
    """Image [h, w, 3] from PNG, GIF or BMP (and WebP where this TensorFlow reads it)."""

    def bmp():
        message = "BMP with a palette or compression cannot be decoded here: save it as PNG or JPEG"
        return _require(ops.is_plain_bmp(content), message, lambda: _decode(content))

    def webp_or_none():
        size = tf.strings.length(content)
        webp = tf.equal(tf.strings.substr(content, tf.minimum(8, size), 4), b"WEBP")
        message = (
            "Unknown image file format: TIFF, HEIC, AVIF and others cannot be decoded here, save "
            "it as PNG or JPEG"
        )
        # An empty string has a message of its own.
        return _require(webp | tf.equal(size, 0), message, lambda: _decode(content))

    head = tf.strings.substr(content, 0, 4)
    is_bmp = tf.equal(tf.strings.substr(content, 0, 2), b"BM")
    return tf.cond(
        tf.equal(head, structure.PNG_MARK[:4]),
        lambda: _decode(content),
        lambda: tf.cond(
            tf.equal(head, b"GIF8"),
            lambda: _decode(ops.gif_as_pillow_reads_it(content)),
            lambda: tf.cond(is_bmp, bmp, webp_or_none),
        ),
    )


def decode_image(image_bytes: tf.Tensor) -> tf.Tensor:
    """RGB image from an encoded file, upright.

    JPEG is decoded with libjpeg's accurate integer transform, whose pixels equal Pillow's; CMYK
    and grey become RGB. PNG of every colour type (palette, grey, 16 bit by its high byte, alpha
    dropped), the first frame of GIF, and BMP without a palette are read too. The orientation is
    applied as `image_structure` defines it.

    A JPEG without an end marker is read if nothing else is missing; zeros or FF in the place of its
    end are no data.

    Args:
        image_bytes: scalar string, the content of an image file.

    Returns:
        uint8 [height, width, 3].

    Raises:
        tf.errors.InvalidArgumentError: the bytes are not such an image, are truncated, or
            announce more than 2^29 values (a decompression bomb).
    """
    # Nearly all images are decoded by one op. Whatever else there is stands in a function that is
    # not inlined: TensorFlow walks through the ops of an inlined branch that is not taken too.
    head = tf.strings.substr(image_bytes, 0, 3)
    plain_jpeg = tf.equal(head, structure.JPEG_MARK) & ops.ends(image_bytes)
    plain_jpeg &= ~ops.occurs(image_bytes, structure.EXIF_MARK)

    def other():
        plain_png = tf.equal(head, structure.PNG_MARK[:3])
        plain_png &= ~ops.occurs(image_bytes, structure.PNG_EXIF)
        return tf.cond(plain_png, lambda: _decode(image_bytes), lambda: _decode_any(image_bytes))

    image = tf.cond(plain_jpeg, lambda: _decode_jpeg(image_bytes), other)
    return tf.ensure_shape(image, [None, None, 3])


def decode_now(content: bytes) -> np.ndarray | None:
    """`decode_image` outside of a graph, op by op, also from within `tf.numpy_function`.

    Args:
        content: the content of an image file.

    Returns:
        uint8 [height, width, 3], or None if `decode_image` refuses the file.
    """
    try:
        with tf.device("/CPU:0"):
            return _decode_any.python_function(tf.constant(content)).numpy()
    except tf.errors.OpError:
        return None


@tf.function(
    input_signature=[tf.TensorSpec([], tf.string)],
    experimental_attributes={"_noinline": True},
    autograph=False,
)
def _decode_any(content: tf.Tensor) -> tf.Tensor:
    """Image [h, w, 3] from any file that `decode_image` reads, upright."""

    def jpeg():
        image = tf.cond(
            ops.has_end(content),
            lambda: _decode_jpeg(content),
            lambda: _decode_open_jpeg(content),
        )
        return ops.turned(image, ops.jpeg_orientation(content))

    def other():
        return ops.turned(_decode_other(content), ops.other_orientation(content))

    is_jpeg = tf.equal(tf.strings.substr(content, 0, 3), structure.JPEG_MARK)
    return tf.cond(is_jpeg, jpeg, other)


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
