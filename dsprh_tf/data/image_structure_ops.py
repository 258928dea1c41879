"""The rules of `image_structure` as TensorFlow ops, for the exported graph.

Only what the graph must know without Python: orientation, where a JPEG's data end, and what must
be changed or refused in GIF and BMP files for TensorFlow to read them as Pillow does.
"""

from __future__ import annotations

import tensorflow as tf

from dsprh_tf.data import image_structure as structure

# What a marker is, by its second byte. Any other has a segment with a length.
_SEGMENT, _FILL, _STANDALONE, _SCAN, _END = range(5)


def _marker_table() -> list[int]:
    table = [_SEGMENT] * 256
    for code in structure.STANDALONE:
        table[code] = _STANDALONE
    table[0xFF], table[structure.SCAN], table[structure.END] = _FILL, _SCAN, _END
    return table


def occurs(content: tf.Tensor, mark: bytes) -> tf.Tensor:
    """Whether a file (scalar string) has these bytes anywhere, bool scalar."""
    return tf.size(tf.strings.split(content, mark, maxsplit=1)) > 1


def ends(content: tf.Tensor) -> tf.Tensor:
    """Whether a JPEG (scalar string, not empty) ends with its end marker, bool scalar."""
    size = tf.strings.length(content)
    return tf.equal(tf.strings.substr(content, tf.maximum(size - 2, 0), 2), structure.END_OF_IMAGE)


def jpeg_orientation(content: tf.Tensor) -> tf.Tensor:
    """Orientation of a JPEG (scalar string), int64 scalar in 1..8."""
    at = _jpeg_segment(content, "exif")
    length = 256 * _byte(content, at + 2) + _byte(content, at + 3)
    block = _part(content, at + 10, tf.maximum(length - 8, 0))
    return exif_orientation(tf.where(at > 0, block, b""))


def other_orientation(content: tf.Tensor) -> tf.Tensor:
    """Orientation of an image that is no JPEG (scalar string), int64 scalar in 1..8."""

    def png():
        # Without the chunk no walk: a PNG may have thousands of them.
        return tf.cond(
            occurs(content, structure.PNG_EXIF),
            lambda: _chunk(content, 8, structure.PNG_EXIF),
            lambda: b"",
        )

    def webp():
        is_webp = tf.equal(_part(content, 0, 4), b"RIFF") & tf.equal(_part(content, 8, 4), b"WEBP")
        return tf.cond(is_webp, lambda: _chunk(content, 12, structure.WEBP_EXIF), lambda: b"")

    is_png = tf.equal(_part(content, 0, 8), structure.PNG_MARK)
    return exif_orientation(tf.cond(is_png, png, webp))


def exif_orientation(block: tf.Tensor) -> tf.Tensor:
    """`image_structure.exif_orientation` of a block (scalar string), int64 scalar in 1..8."""
    prefixed = tf.equal(tf.strings.substr(block, 0, 6), structure.EXIF_MARK)
    block = tf.cond(prefixed, lambda: tf.strings.substr(block, 6, 2**31 - 1), lambda: block)
    order = tf.strings.substr(block, 0, 4)
    little = tf.equal(order, b"II*\x00")
    known = little | tf.equal(order, b"MM\x00*")
    raw = tf.cast(tf.io.decode_raw(block, tf.uint8), tf.int64)
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
        tf.equal(_number(entries[:, 0:2], little), structure.ORIENTATION_TAG)
        & tf.equal(_number(entries[:, 4:8], little), 1)
        & (tf.equal(kind, structure.SHORT) | tf.equal(kind, structure.LONG))
    )
    values = tf.where(tf.equal(kind, structure.SHORT), short, long)
    value = tf.concat([tf.boolean_mask(values, found), [1]], 0)[0]
    return tf.where(known & (value >= 1) & (value <= 8), value, tf.ones_like(value))


def _number(digits: tf.Tensor, little: tf.Tensor) -> tf.Tensor:
    """Unsigned integers from their bytes, int64 [..., n] -> [...], in the TIFF's byte order."""
    powers = tf.constant([256**i for i in range(digits.shape[-1])], tf.int64)
    return tf.reduce_sum(digits * tf.where(little, powers, powers[::-1]), axis=-1)


def turned(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Image [h, w, 3] that is stored with an orientation (int64 scalar), turned upright."""

    def turn():
        upright = tf.cond(orientation >= 5, lambda: tf.transpose(image, [1, 0, 2]), lambda: image)
        upside_down = tf.reduce_any(tf.equal(orientation, [3, 4, 7, 8]))
        mirrored = tf.reduce_any(tf.equal(orientation, [2, 3, 6, 7]))
        return tf.reverse(upright, tf.boolean_mask([0, 1], tf.stack([upside_down, mirrored])))

    return tf.cond(orientation > 1, turn, lambda: image)


def has_end(content: tf.Tensor) -> tf.Tensor:
    """`image_structure.has_end` of a JPEG (scalar string), bool scalar."""

    def search():
        scan = _jpeg_segment(content, "scan")
        return (scan > 0) & occurs(_part(content, scan), structure.END_OF_IMAGE)

    return tf.cond(ends(content), lambda: True, search)


def without_filling(content: tf.Tensor) -> tf.Tensor:
    """`image_structure.without_filling` of a JPEG (scalar string), scalar string."""
    raw = tf.cast(tf.io.decode_raw(content, tf.uint8), tf.int32)
    size = tf.size(raw)
    end = 1 + tf.reduce_max(tf.where((raw > 0) & (raw < 255), tf.range(size), -1))
    half = tf.cast(tf.equal(raw[-1], 255) & (size > len(structure.JPEG_MARK)), tf.int32)
    return _part(content, 0, tf.where(size - end > structure.LONGEST_RUN, end, size - half))


def has_all_scans(content: tf.Tensor) -> tf.Tensor:
    """`image_structure.has_all_scans` of a JPEG (scalar string), bool scalar."""
    frame, scan = _jpeg_segment(content, "frame"), _jpeg_segment(content, "scan")
    components = _byte(content, frame + 9)
    headers = tf.strings.split(_part(content, scan), bytes([0xFF, structure.SCAN]))[1:]
    headers = tf.strings.substr(tf.strings.join([headers, bytes(16)]), 0, 16)
    headers = tf.cast(tf.reshape(tf.io.decode_raw(headers, tf.uint8), [-1, 16]), tf.int32)
    parts = tf.minimum(headers[:, 2], 4)
    after = tf.gather(headers, (3 + 2 * parts)[:, None] + [0, 1, 2], batch_dims=1)
    last_bit = tf.equal(after[:, 2] % 16, 0)
    held = tf.where(last_bit, tf.maximum(after[:, 1] - after[:, 0] + 1, 0), 0)
    sequential = tf.reduce_any(tf.equal(_byte(content, frame + 1), structure.SEQUENTIAL))
    held = tf.reduce_sum(parts * tf.where(sequential, 64, held))
    return (frame > 0) & (scan > 0) & (components > 0) & (held >= 64 * components)


def gif_as_pillow_reads_it(content: tf.Tensor) -> tf.Tensor:
    """A GIF (scalar string) without the mark of a transparent colour before its first frame.

    TensorFlow reads pixels of that colour as black, and a frame that does not fill the image as
    an image of the frame's size.

    Raises:
        tf.errors.InvalidArgumentError: the first frame does not fill the image.
    """

    def is_extension(at, control):
        return tf.equal(_byte(content, at), ord("!"))

    def skip(at, control):
        is_control = tf.equal(_byte(content, at + 1), 0xF9) & tf.equal(_byte(content, at + 2), 4)
        control = tf.where(is_control & tf.equal(control, 0), at, control)
        (at,) = tf.while_loop(
            lambda at: _byte(content, at) > 0,
            lambda at: [at + 1 + _byte(content, at)],
            [at + 2],
            maximum_iterations=structure.MAX_STEPS,
        )
        return [at + 1, control]

    flags = _byte(content, 10)
    table = tf.where(flags >= 128, 3 * tf.bitwise.left_shift(2, flags % 8), 0)
    at, control = tf.while_loop(
        is_extension, skip, [13 + table, 0], maximum_iterations=structure.MAX_STEPS
    )
    fills = tf.strings.join([b",\0\0\0\0", _part(content, 6, 4)])
    checked = tf.debugging.Assert(
        tf.equal(_part(content, at, 9), fills),
        ["GIF whose first frame does not fill it cannot be decoded here: save it as PNG or JPEG"],
    )
    with tf.control_dependencies([checked] if checked is not None else []):
        return tf.cond(control > 0, lambda: _opaque(content, control + 3), lambda: content)


def _opaque(content: tf.Tensor, at: tf.Tensor) -> tf.Tensor:
    """The GIF with the lowest bit of the byte at a position cleared."""
    even = tf.gather([bytes([value & 0xFE]) for value in range(256)], _byte(content, at))
    return tf.strings.join([_part(content, 0, at), even, _part(content, at + 1)])


def is_plain_bmp(content: tf.Tensor) -> tf.Tensor:
    """Whether a BMP (scalar string) is one that TensorFlow reads rightly, bool scalar.

    It would take the palette indices of others for grey levels, and ignore compression and
    colour masks.
    """
    bits = _byte(content, 28) + 256 * _byte(content, 29)
    method = _part(content, 30, 4)
    masks = bytes.fromhex("0000ff00 00ff0000 ff000000")
    usual_masks = tf.equal(method, b"\3\0\0\0") & tf.equal(_part(content, 54, 12), masks)
    uncompressed = tf.equal(method, bytes(4))
    long_header = (_byte(content, 14) >= 40) & tf.equal(_part(content, 15, 3), bytes(3))
    return long_header & (
        (tf.equal(bits, 24) & uncompressed) | (tf.equal(bits, 32) & (uncompressed | usual_masks))
    )


def _part(content: tf.Tensor, at: tf.Tensor, size: tf.Tensor = 2**31 - 1) -> tf.Tensor:
    """Bytes from a position on, as many as there are."""
    return tf.strings.substr(content, tf.minimum(at, tf.strings.length(content)), size)


def _byte(content: tf.Tensor, at: tf.Tensor) -> tf.Tensor:
    """The byte at a position, int32 scalar; 0 behind the end."""
    padded = tf.strings.join([_part(content, at, 1), b"\0"])
    return tf.cast(tf.io.decode_raw(padded, tf.uint8)[0], tf.int32)


def _jpeg_segment(content: tf.Tensor, wanted: str) -> tf.Tensor:
    """Position of the first segment of a kind before the data of the first scan, or 0.

    Args:
        content: a JPEG, scalar string.
        wanted: "exif", "frame" or "scan".
    """
    size, table = tf.strings.length(content), tf.constant(_marker_table())
    exif = tf.constant([0x4578, 0x6966, 0x0000])  # "Exif" and two zeros, as words
    frames = [0xFF00 + code for code in structure.FRAMES]

    def goes_on(at, going, found):
        return going & (at + 10 <= size)

    def step(at, going, found):
        words = tf.io.decode_raw(tf.strings.substr(content, at, 10), tf.uint16, little_endian=False)
        words = tf.cast(words, tf.int32)
        marker, length = words[0], words[1]
        # Before a marker stands garbage, which libjpeg skips, or a fill byte.
        kind = tf.where(marker < 0xFF00, _FILL, tf.gather(table, marker % 256))
        if wanted == "exif":
            here = tf.equal(marker, 0xFFE1) & (length >= 8) & tf.reduce_all(words[2:] == exif)
        elif wanted == "frame":
            here = tf.reduce_any(tf.equal(marker, frames))
        else:
            here = tf.equal(kind, _SCAN)
        last = (kind >= _SCAN) | (tf.equal(kind, _SEGMENT) & (length < 2))
        steps = tf.where(tf.equal(kind, _SEGMENT), 2 + length, kind)  # a fill byte: 1, a marker: 2
        return [at + steps, going & ~here & ~last, tf.where(here, at, found)]

    _, _, found = tf.while_loop(
        goes_on, step, [2, True, 0], maximum_iterations=structure.MAX_STEPS, parallel_iterations=1
    )
    return found


def _chunk(content: tf.Tensor, at: int, name: bytes) -> tf.Tensor:
    """Data of the first chunk of a name in a PNG (lengths first) or WebP (names first), or b""."""
    png = name == structure.PNG_EXIF
    size = tf.cast(tf.strings.length(content), tf.int64)

    def goes_on(at, going, start, length):
        return going & (at + 8 <= size)

    def step(at, going, start, length):
        head = tf.strings.substr(content, at, 8)
        numbers = tf.cast(tf.io.decode_raw(head, tf.int32, little_endian=not png), tf.int64)
        own = numbers[0 if png else 1]  # 2^31 and more: negative
        found = tf.strings.substr(head, 4 if png else 0, 4)
        last = (own < 0) | tf.equal(found, b"IEND")
        here = tf.equal(found, name) & ~last
        steps = 12 + own if png else 8 + own + own % 2
        return [
            at + steps, going & ~last & ~here, tf.where(here, at + 8, start),
            tf.where(here, own, length),
        ]  # fmt: skip

    zero = tf.zeros([], tf.int64)
    _, _, start, length = tf.while_loop(
        goes_on,
        step,
        [tf.constant(at, tf.int64), True, zero, zero],
        maximum_iterations=structure.MAX_STEPS,
        parallel_iterations=1,
    )
    return tf.strings.substr(content, start, length)
