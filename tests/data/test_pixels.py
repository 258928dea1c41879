"""One picture for training and the exported graph, whatever kind of file it comes in.

`load_image` is what trains, `decode_image` is in the exported graph, and `served_image` is what the
graph is handed.
"""

from __future__ import annotations

import io
import os
import re
import struct

import numpy as np
import pytest
import tensorflow as tf
from fuzz import pixels as fuzz
from image_files import (
    encoded,
    exif,
    join_jpeg,
    join_png,
    jpeg_segments,
    picture,
    png_chunk,
    png_chunks,
    segment,
    upright,
)  # fmt: skip
from PIL import Image

from dsprh_tf.data import image_kinds, image_reader, image_structure
from dsprh_tf.data.decoder_lines import DecoderLines
from dsprh_tf.data.images import (
    check_images,
    checked_bytes,
    load_image,
    load_small,
    served_image,
)  # fmt: skip
from dsprh_tf.data.preprocess import decode_image

GRAPH = tf.function(decode_image, input_signature=[tf.TensorSpec([], tf.string)])
HEIF = pytest.importorskip("pillow_heif", reason="the extra heif is not installed")

RGB = picture()
PIXELS = np.asarray(RGB)
TIFF_BLOCK = exif(6).tobytes()[6:]  # without "Exif"
EXIF = b"Exif\0\0" + TIFF_BLOCK
XMP = (
    b"<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:RDF xmlns:rdf='http://www.w3.org/1999/02/22-rdf-"
    b"syntax-ns#'><rdf:Description xmlns:tiff='http://ns.adobe.com/tiff/1.0/' "
    b'tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
)
XMP_SEGMENT = b"http://ns.adobe.com/xap/1.0/\0" + XMP
APP1, APP2, APP13, COMMENT = 0xE1, 0xE2, 0xED, 0xFE


def jpeg(*before, at=1, extra=b"") -> bytes:
    """A JPEG with segments (code, data), or bytes, after its first `at` ones."""
    segments, rest = jpeg_segments(encoded(RGB, "JPEG"))
    head = b"\xff\xd8" + b"".join(segment(*one) for one in segments[:at])
    new = b"".join(one if isinstance(one, bytes) else segment(*one) for one in before)
    return head + new + b"".join(segment(*one) for one in segments[at:]) + rest + extra


def png(*chunks, at=1, extra=b"") -> bytes:
    """A PNG with chunks (name, data) after its first `at` ones."""
    parts = png_chunks(encoded(RGB, "PNG"))
    at = at if at >= 0 else len(parts) + at
    return join_png([*parts[:at], *chunks, *parts[at:]]) + extra


def webp(chunk: bytes, data: bytes, flag: int) -> bytes:
    """A WebP with a chunk after its pixels."""
    plain = encoded(RGB, "WEBP", lossless=True)[12:]
    size = b"".join(struct.pack("<I", n - 1)[:3] for n in RGB.size)
    extended = b"VP8X" + struct.pack("<I", 10) + bytes([flag, 0, 0, 0]) + size
    last = chunk + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
    body = b"WEBP" + extended + plain + last
    return b"RIFF" + struct.pack("<I", len(body)) + body


def block(order: str, *entries, offset: int = 8, mark: bytes | None = None) -> bytes:
    """A TIFF block; entries are (tag, type, count, 4 bytes)."""
    head = mark or {"<": b"II*\0", ">": b"MM\0*"}[order]
    head += struct.pack(order + "IH", offset, len(entries))
    return head + b"".join(struct.pack(order + "HHI", *e[:3]) + e[3] for e in entries)


def entry(order: str, value: int, kind: int = 3, count: int = 1) -> tuple:
    return 0x0112, kind, count, struct.pack(order + ("HH" if kind == 3 else "I"), *(
        (value, 0) if kind == 3 else (value,)))  # fmt: skip


def jpeg_of(tiff: bytes) -> bytes:
    return jpeg((APP1, b"Exif\0\0" + tiff))


def raw_profile(data: bytes, name: bytes) -> bytes:
    """EXIF in a text chunk, as ImageMagick wrote it."""
    lines = data.hex().encode()
    return b"Raw profile type " + name + b"\0\n" + name + b"\n%8d\n" % len(data) + lines + b"\n"


MPF = b"MPF\0" + block("<")

# name -> (file, its orientation)
ORIENTED = {
    "jpeg: exif first": (jpeg((APP1, EXIF), at=0), 6),
    "jpeg: exif after jfif": (jpeg((APP1, EXIF)), 6),
    "jpeg: exif after icc": (jpeg((APP2, b"ICC_PROFILE\0\1\1" + bytes(300)), (APP1, EXIF)), 6),
    "jpeg: exif after 200 KB of icc": (
        jpeg(*[(APP2, b"ICC_PROFILE\0\1\4" + bytes(50_000))] * 4, (APP1, EXIF)), 6),
    "jpeg: exif after xmp": (jpeg((APP1, XMP_SEGMENT), (APP1, EXIF)), 6),
    "jpeg: exif after a comment": (jpeg((COMMENT, b"made by hand"), (APP1, EXIF)), 6),
    "jpeg: exif after photoshop's": (jpeg((APP13, b"Photoshop 3.0\0"), (APP1, EXIF)), 6),
    "jpeg: exif before the scan": (jpeg((APP1, EXIF), at=-1), 6),
    "jpeg: exif after fill bytes": (jpeg(b"\xff" * 7, (APP1, EXIF)), 6),
    "jpeg: exif after an empty segment": (jpeg((0xE5, b""), (APP1, EXIF)), 6),
    "jpeg: exif after garbage": (jpeg(b"\0\1\2garbage\xff\0", (APP1, EXIF)), 6),
    "jpeg: exif after the image": (jpeg(extra=segment(APP1, EXIF)), 1),
    "jpeg: exif in a trailer of another jpeg": (jpeg(extra=jpeg((APP1, EXIF))), 1),
    "jpeg: first of two": (jpeg((APP1, exif(8).tobytes()), (APP1, EXIF)), 8),
    "jpeg: first of two is damaged": (jpeg((APP1, b"Exif\0\0II"), (APP1, EXIF)), 1),
    "jpeg: xmp alone": (jpeg((APP1, XMP_SEGMENT)), 1),
    "jpeg: exif says 1, xmp says 6": (jpeg((APP1, exif(1).tobytes()), (APP1, XMP_SEGMENT)), 1),
    "jpeg: a comment like exif": (jpeg((COMMENT, EXIF)), 1),
    "jpeg: a comment that holds a segment": (jpeg((COMMENT, segment(APP1, EXIF))), 1),
    "jpeg: a comment like exif, then exif": (jpeg((COMMENT, EXIF), (APP1, exif(3).tobytes())), 3),
    "jpeg: an icc profile like exif": (jpeg((APP2, b"ICC_PROFILE\0\1\1" + EXIF)), 1),
    "jpeg: exif in app13": (jpeg((APP13, EXIF)), 1),
    "jpeg: a thumbnail with exif": (jpeg((APP1, b"JFXX\0\x10" + jpeg((APP1, EXIF)))), 1),
    "jpeg: exif without its two zeros": (jpeg((APP1, b"Exif\0\1" + TIFF_BLOCK)), 1),
    "jpeg: several pictures (mpo)": (jpeg((APP1, EXIF), (APP2, MPF)), 6),
    "jpeg: intel order": (jpeg_of(block("<", entry("<", 6))), 6),
    "jpeg: motorola order": (jpeg_of(block(">", entry(">", 6))), 6),
    "jpeg: long": (jpeg_of(block(">", entry(">", 6, kind=4))), 6),
    "jpeg: byte": (jpeg_of(block("<", entry("<", 6, kind=1))), 1),
    "jpeg: count 2": (jpeg_of(block("<", entry("<", 6, count=2))), 1),
    "jpeg: orientation 0": (jpeg_of(block("<", entry("<", 0))), 1),
    "jpeg: orientation 9": (jpeg_of(block("<", entry("<", 9))), 1),
    "jpeg: offset outside": (jpeg_of(block("<", entry("<", 6), offset=60_000)), 1),
    "jpeg: no order": (jpeg_of(block("<", entry("<", 6), mark=b"XX*\0")), 1),
    "jpeg: block cut in the entry": (jpeg_of(block("<", entry("<", 6))[:-6]), 1),
    "jpeg: exif twice before the block": (jpeg((APP1, b"Exif\0\0" + EXIF)), 6),
    "png: chunk before the pixels": (png((b"eXIf", TIFF_BLOCK)), 6),
    "png: chunk after the pixels": (png((b"eXIf", TIFF_BLOCK), at=-1), 6),
    "png: chunk between the pixels": (
        join_png([png_chunks(png())[0], (b"IDAT", png_chunks(png())[1][1]),
                  (b"eXIf", TIFF_BLOCK), (b"IEND", b"")]), 6),
    "png: chunk with exif before it": (png((b"eXIf", EXIF)), 6),
    "png: chunk after the end": (png(extra=png_chunk(b"eXIf", TIFF_BLOCK)), 1),
    "png: first of two chunks": (
        png((b"eXIf", exif(8).tobytes()[6:]), (b"eXIf", TIFF_BLOCK)), 8),
    "png: checksum of the chunk is wrong": (
        png((b"eXIf", TIFF_BLOCK), at=-1).replace(
            png_chunk(b"eXIf", TIFF_BLOCK)[-4:], b"\1\2\3\4"), 6),
    "png: raw profile exif": (png((b"tEXt", raw_profile(EXIF, b"exif"))), 1),
    "png: raw profile app1": (png((b"tEXt", raw_profile(EXIF, b"APP1"))), 1),
    "png: text like exif": (png((b"tEXt", b"Comment\0eXIf" + TIFF_BLOCK)), 1),
    "png: xmp alone": (png((b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP)), 1),
    "gif: a comment like exif": (encoded(RGB, "GIF", comment=b"eXIf" + TIFF_BLOCK), 1),
    "webp: exif": (webp(b"EXIF", TIFF_BLOCK, 8), 6),
    "webp: exif with its mark": (webp(b"EXIF", EXIF, 8), 6),
    "webp: xmp alone": (webp(b"XMP ", XMP, 4), 1),
    "tiff: tag": (encoded(RGB, "TIFF", tiffinfo={0x0112: 6}), 6),
    "tiff: xmp alone": (encoded(RGB, "TIFF", tiffinfo={700: XMP}), 1),
}  # fmt: skip


def read_by_graph(content: bytes) -> np.ndarray | None:
    """What the graph reads of a file, or None."""
    with DecoderLines():
        try:
            return GRAPH(content).numpy()
        except tf.errors.InvalidArgumentError:
            return None


@pytest.fixture
def read_twice(tmp_path):
    """`read_twice(content) -> pixels`: read as it trains and as it is served, which must agree."""

    def read(content: bytes) -> np.ndarray:
        path = tmp_path / "image"
        path.write_bytes(content)
        trained = load_image(path)
        np.testing.assert_array_equal(read_by_graph(served_image(path).content), trained)
        as_it_is = read_by_graph(content)
        if as_it_is is not None:
            np.testing.assert_array_equal(as_it_is, trained)
        np.testing.assert_array_equal(read_by_graph(checked_bytes(content, "it")), trained)
        return trained

    return read


def stored(content: bytes) -> np.ndarray:
    """Pixels of a file as they are stored, by Pillow alone."""
    with Image.open(io.BytesIO(content)) as image:
        if image.format == "TIFF":  # Pillow turns it
            image.tag_v2[0x0112] = 1
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("name", ORIENTED)
def test_orientation(name, read_twice):
    content, orientation = ORIENTED[name]
    plain = PIXELS if name.startswith(("png", "tiff", "webp")) else None
    if plain is None:
        plain = stored(encoded(RGB, name[:4].strip(":").upper()))
    np.testing.assert_array_equal(read_twice(content), upright(plain, orientation))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_all_orientations(kind, orientation, read_twice):
    options = {"lossless": True} if kind == "WEBP" else {}
    plain = stored(encoded(RGB, kind, **options))
    found = read_twice(encoded(RGB, kind, exif=exif(orientation), **options))
    np.testing.assert_array_equal(found, upright(plain, orientation))


def test_the_search_for_the_block_is_bounded(read_twice):
    """After so many segments no camera writes it, and a search would take long."""
    plain = read_twice(jpeg())
    for steps, orientation in ((9_990, 6), (10_010, 1)):
        found = read_twice(jpeg(*[(COMMENT, b"")] * steps, (APP1, EXIF)))
        np.testing.assert_array_equal(found, upright(plain, orientation))


# The end of a JPEG


def without_end(content: bytes) -> bytes:
    assert content.endswith(b"\xff\xd9")
    return content[:-2]


ENDED = {
    "baseline": encoded(RGB, "JPEG", quality=90),
    "4:4:4": encoded(RGB, "JPEG", subsampling=0),
    "grey": encoded(RGB.convert("L"), "JPEG"),
    "progressive": encoded(RGB, "JPEG", progressive=True),
    "progressive grey": encoded(RGB.convert("L"), "JPEG", progressive=True),
    "restart markers": encoded(RGB, "JPEG", restart_marker_blocks=2),
    "optimized tables": encoded(RGB, "JPEG", optimize=True, quality=30),
    "exif": encoded(RGB, "JPEG", exif=exif(6)),
    "thumbnail": encoded(RGB, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\0\0" + encoded(RGB, "JPEG")),
}


@pytest.mark.parametrize("name", ENDED)
@pytest.mark.parametrize(
    "tail", [b"", b"\xff", b"\0" * 3, b"\0" * 100, b"\xff" * 100, b"a camera's own data" * 9]
)
def test_a_jpeg_may_lack_its_end_marker(name, tail, tmp_path, read_twice):
    content = ENDED[name]
    found = read_twice(without_end(content) + tail)
    np.testing.assert_array_equal(found, read_twice(content))
    assert read_by_graph(without_end(content) + tail) is not None
    assert check_images([str(tmp_path / "image")], "skip").keep.all()


@pytest.mark.parametrize("name", ENDED)
def test_a_jpeg_without_some_bytes_is_bad_on_both_sides(name, tmp_path):
    whole, path = without_end(ENDED[name]), tmp_path / "cut.jpg"
    scan = len(jpeg_segments(whole)[1])
    for cut in [*range(1, 9), *np.random.default_rng(0).integers(9, scan, 8).tolist()]:
        content = whole[:-cut]
        path.write_bytes(content)
        keep, problems, _ = check_images([str(path)], "skip")
        assert (read_by_graph(content) is not None) == keep.all(), cut
        if cut == 1 and keep.all():  # the byte had nothing but the bits that fill up the last one
            continue
        assert not keep.any(), cut
        assert re.search("cut.jpg (is truncated|cannot be read)", problems[0])
        with pytest.raises(ValueError, match="it (is truncated|cannot be read)"):
            checked_bytes(content, "it")
        with pytest.raises(ValueError, match="cut.jpg (is truncated|cannot be read)"):
            served_image(path)


@pytest.mark.parametrize("name", ["restart markers", "grey", "progressive"])
def test_no_cut_is_taken_for_whole(name):
    """Wherever a JPEG breaks off, at a restart marker too."""
    whole = without_end(ENDED[name])
    for cut in range(2, len(jpeg_segments(whole)[1])):
        with pytest.raises(Exception, match="truncated|broken|no JPEG|cannot identify"):
            image_reader.read(io.BytesIO(whole[:-cut]))


@pytest.mark.parametrize("name", ["baseline", "progressive", "restart markers"])
@pytest.mark.parametrize("filling", [b"\0", b"\xff", b"\xff\0"])
def test_a_jpeg_that_was_filled_up_is_bad_on_both_sides(name, filling):
    """A download that broke off often keeps the length of the whole, or is padded to a block."""
    whole = without_end(ENDED[name])
    scan = len(jpeg_segments(whole)[1])
    for cut in (2, 7, scan // 3, scan - 9):
        content = whole[:-cut] + filling * max(5, cut + 2)
        assert read_by_graph(content) is None, cut
        with pytest.raises(ValueError, match="it (is truncated|cannot be read)"):
            checked_bytes(content, "it")


def test_a_progressive_jpeg_without_its_last_scans_is_bad():
    content = ENDED["progressive"]
    scans = [at for at in range(len(content)) if content[at : at + 2] == b"\xff\xda"]
    for at in scans[1:]:
        at = content.rfind(b"\xff\xc4", 0, at) if content[at - 1 : at] != b"\xff" else at
        assert read_by_graph(content[:at]) is None
        with pytest.raises(ValueError, match="it is truncated"):
            checked_bytes(content[:at], "it")


# Colours


@pytest.mark.parametrize("adobe", [True, False])
def test_cmyk_is_inverted_where_adobe_says_so(adobe, tmp_path):
    bands = [RGB.getchannel(i) for i in (0, 1, 2, 1)]
    segments, rest = jpeg_segments(encoded(Image.merge("CMYK", bands), "JPEG", quality=95))
    kept = [one for one in segments if adobe or one[0] != 0xEE]
    assert len(kept) == len(segments) - (not adobe)
    content = join_jpeg(kept, rest)
    path = tmp_path / "image"
    path.write_bytes(content)
    trained, served = load_image(path).astype(int), read_by_graph(content).astype(int)
    assert np.abs(trained - served).max() <= 1  # TensorFlow truncates c * k / 255, Pillow rounds


def gif(**options) -> bytes:
    return encoded(RGB.quantize(15), "GIF", **options)


def test_the_transparent_colour_of_a_gif_is_dropped(read_twice):
    opaque = read_twice(gif())
    assert opaque.any(axis=2).all()
    for transparent in range(15):
        content = gif(transparency=transparent, comment=b"x" * 700)
        assert read_by_graph(content) is not None
        np.testing.assert_array_equal(read_twice(content), opaque)


def test_a_gif_whose_first_frame_is_smaller_is_not_for_the_graph(read_twice):
    content = bytearray(gif())
    content[6:10] = struct.pack("<HH", 50, 40)  # the screen
    assert read_by_graph(bytes(content)) is None
    assert read_twice(bytes(content)).shape == (40, 50, 3)


@pytest.mark.parametrize(
    ("image", "graph"),
    [(RGB, True), (RGB.convert("RGBA"), True), (RGB.convert("L"), False),
     (RGB.quantize(9), False), (RGB.convert("1"), False)],
)  # fmt: skip
def test_bmp(image, graph, read_twice):
    content = encoded(image, "BMP")
    assert (read_by_graph(content) is not None) == graph
    assert read_twice(content).shape == PIXELS.shape


@pytest.mark.parametrize(
    ("at", "value"), [(30, 1), (30, 4), (14, 12), (28, 16)], ids=["rle", "jpeg", "os/2", "16 bits"]
)
def test_a_bmp_that_is_not_what_it_seems_is_not_for_the_graph(at, value):
    content = bytearray(encoded(RGB, "BMP"))
    content[at] = value
    assert read_by_graph(bytes(content)) is None


def test_bmp_with_colour_masks(read_twice):
    """As GIMP and Windows write 32 bits; other masks than the usual ones are not for the graph."""
    y, x = PIXELS.shape[:2]
    rows = np.concatenate([PIXELS[::-1, :, ::-1], np.zeros((y, x, 1), np.uint8)], 2).tobytes()

    def content(masks: bytes) -> bytes:
        header = struct.pack("<IiiHHIIiiII", 40, x, y, 1, 32, 3, len(rows), 0, 0, 0, 0)
        start = 14 + len(header) + len(masks)
        return b"BM" + struct.pack("<IHHI", start + len(rows), 0, 0, start) + header + masks + rows

    usual = content(bytes.fromhex("0000ff0000ff0000ff000000"))
    assert read_by_graph(usual) is not None
    np.testing.assert_array_equal(read_twice(usual), PIXELS)
    shifted = content(bytes.fromhex("000000ff0000ff0000ff0000"))
    assert read_by_graph(shifted) is None
    assert read_twice(shifted).shape == PIXELS.shape


# HEIC and AVIF


SMOOTH = Image.merge(
    "RGB", [Image.linear_gradient("L").rotate(angle).resize((48, 32)) for angle in (0, 90, 180)]
)


def heic(orientation: int | None = None, image: Image.Image = RGB) -> bytes:
    HEIF.register_heif_opener()
    options = {} if orientation is None else {"exif": exif(orientation).tobytes()}
    return encoded(image, "HEIF", quality=95, **options)


def avif(orientation: int | None = None, image: Image.Image = RGB) -> bytes:
    options = {} if orientation is None else {"exif": exif(orientation)}
    return encoded(image, "AVIF", quality=95, **options)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("make", [heic, avif])
def test_heic_and_avif_are_turned_once(make, orientation, read_twice):
    """Both plugins write the orientation as a property of the container, beside the EXIF block."""
    content = make(orientation, SMOOTH)
    assert (b"irot" in content or b"imir" in content) == (orientation > 1)
    found, wanted = read_twice(content).astype(int), upright(np.asarray(SMOOTH), orientation)
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).mean() < 5


@pytest.mark.parametrize("kind", ["HEIF", "AVIF"])
def test_exif_alone_does_not_turn_heic_and_avif(kind, read_twice):
    """The standards say so: the container's properties hold."""
    block = Image.Exif()
    block[0x0113] = 6  # what plugins would turn into such a property has the tag before it
    content, tag = encoded(SMOOTH, kind, exif=block.tobytes()), b"\x01\x13\0\3"
    assert content.count(tag) == 1
    turned = content.replace(tag, b"\x01\x12\0\3")
    np.testing.assert_array_equal(read_twice(turned), read_twice(content))
    assert read_twice(turned).shape == (32, 48, 3)


@pytest.mark.parametrize("make", [heic, avif])
def test_the_graph_refuses_heic_and_avif_by_name(make):
    with pytest.raises(tf.errors.InvalidArgumentError, match="HEIC, AVIF and others cannot be"):
        GRAPH(make())


@pytest.mark.parametrize("make", [heic, avif])
def test_heic_and_avif_have_the_limits_of_all(make, tmp_path, monkeypatch):
    loaded = []
    monkeypatch.setattr("PIL.AvifImagePlugin.AvifImageFile.load", loaded.append)
    monkeypatch.setattr("pillow_heif.as_plugin._LibHeifImageFile.load", loaded.append)
    content = make()
    with pytest.raises(ValueError, match="it is too large .38 x 29 pixels; at most 1,000"):
        checked_bytes(content, "it", max_pixels=1000)
    assert not loaded
    path = tmp_path / "broken"
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="broken (cannot be read|is truncated|is no JPEG)"):
        load_image(path)


LACKS = {
    "HEIF": (heic, 'of the kind HEIC, which needs pillow-heif: pip install "dsprh_tf[heif]"'),
    "AVIF": (avif, "of the kind AVIF, which needs a Pillow that reads AVIF: pip install --upgr"),
}


@pytest.fixture(params=LACKS)
def lacking(request, monkeypatch):
    """The reader of a kind is missing: (a file, what the line says)."""
    make, line = LACKS[request.param]
    content = make()
    found = image_kinds.importlib.util.find_spec
    monkeypatch.setattr(
        image_kinds.importlib.util, "find_spec", lambda n: None if "heif" in n else found(n)
    )
    monkeypatch.setattr(image_kinds.features, "check", lambda name: name != "avif")
    return content, line


def test_what_lacks_is_named_with_the_fix(lacking, tmp_path):
    content, line = lacking
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    for read in (load_image, served_image, lambda path: load_small(path, 9)):
        with pytest.raises(ValueError, match=re.escape(f"a.jpg is {line}")):
            read(path)
    with pytest.raises(ValueError, match=re.escape(f"it is {line}")):
        checked_bytes(content, "it")
    _, (problem,), _ = check_images([str(path)], "skip")
    assert line in problem


def test_the_plugin_is_loaded_for_its_files_alone():
    """`import pillow_heif` takes time, and changes Pillow for the whole process."""
    import subprocess
    import sys

    code = (
        "import io, sys\n"
        "from dsprh_tf.data import image_reader\n"
        "for content in (sys.stdin.buffer.read(int(n)) for n in sys.argv[1:]):\n"
        "    image_reader.read(io.BytesIO(content))\n"
        "    print('pillow_heif' in sys.modules)\n"
    )
    contents = [encoded(RGB, kind) for kind in image_kinds.ALWAYS] + [avif(), heic()]
    done = subprocess.run(
        [sys.executable, "-c", code, *(str(len(content)) for content in contents)],
        input=b"".join(contents), capture_output=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == [b"False"] * 7 + [b"True"]


# Kinds


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (encoded(RGB, "JPEG"), "JPEG"), (encoded(RGB, "PNG"), "PNG"), (encoded(RGB, "GIF"), "GIF"),
        (encoded(RGB, "BMP"), "BMP"), (encoded(RGB, "WEBP"), "WEBP"),
        (encoded(RGB, "TIFF"), "TIFF"), (heic(), "HEIF"), (avif(), "AVIF"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "HEIF"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf", "AVIF"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isomavif", None),  # a film
        (b"\0\0\0\x18ftypcrx \0\0\0\x01crx isom", None),  # a camera's raw image
        (b"BM is how this text begins, and no more", None), (b"RIFF\0\0\0\0WAVE", None),
        (b"%PDF-1.7", None), (b"<svg", None), (b"", None), (b"\xff\xd8", None),
    ],
)  # fmt: skip
def test_kind_by_content(head, kind):
    assert image_kinds.kind_of(head[:32]) == kind


def test_names_do_not_matter(tmp_path, read_twice):
    for name, content in (("a.png", heic()), ("b.heic", encoded(RGB, "JPEG")), ("c", avif())):
        (tmp_path / name).write_bytes(content)
        assert load_image(tmp_path / name).shape == PIXELS.shape
    assert check_images(sorted(map(str, tmp_path.iterdir()))).keep.all()


# Animations and pages

FRAMES = [RGB, RGB.rotate(180), RGB.rotate(90)]
SEVERAL = {
    kind: encoded(RGB, kind, save_all=True, append_images=FRAMES[1:], **options)
    for kind, options in (
        ("GIF", {}), ("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {}), ("AVIF", {}),
    )
}  # fmt: skip


@pytest.mark.parametrize("kind", SEVERAL)
def test_the_first_frame_is_read_and_said_once(kind, tmp_path, read_twice):
    single = encoded(RGB, kind, **({"lossless": True} if kind == "WEBP" else {}))
    found, expected = read_twice(SEVERAL[kind]), read_twice(single)
    assert np.abs(found.astype(int) - expected).mean() < (8 if kind == "AVIF" else 1e-9)
    for name, content in (("a", SEVERAL[kind]), ("b", SEVERAL[kind]), ("c", single)):
        (tmp_path / name).write_bytes(content)
    paths = [str(tmp_path / name) for name in "abc"]
    assert check_images(paths).notes == [
        "2 animated images (or files of several pages): the first frame is read"
    ]
    assert [served_image(path).several for path in paths] == [True, True, False]


def test_a_camera_picture_with_a_preview_is_no_animation(tmp_path):
    content = encoded(RGB, "MPO", save_all=True, append_images=[RGB.resize((9, 6))])
    (tmp_path / "a.jpg").write_bytes(content)
    assert check_images([str(tmp_path / "a.jpg")]).notes == []


# Files that are none


def test_what_is_no_regular_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "link.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (tmp_path / "device.jpg").symlink_to("/dev/zero")
    (tmp_path / "circle.jpg").symlink_to(tmp_path / "circle.jpg")
    wanted = {
        "pipe.jpg": "pipe.jpg is not a regular file",
        "folder.jpg": "folder.jpg is not a regular file",
        "link.jpg": "link.jpg is a link to a file that does not exist",
        "device.jpg": "device.jpg is not a regular file",
        "circle.jpg": "circle.jpg cannot be read",
    }
    paths = [str(tmp_path / name) for name in wanted]
    keep, problems, _ = check_images(paths, "skip")
    assert not keep.any()
    for path, problem, line in zip(paths, problems, wanted.values()):
        assert line in problem
        for read in (load_image, served_image):
            with pytest.raises(ValueError, match=line):
                read(path)


# What Pillow is stricter with than TensorFlow


@pytest.mark.parametrize(
    "content",
    [
        png((b"acTL", b"\0\0"), at=1),
        png((b"zTXt", b"name\0\x09data"), at=1),
        png((b"pHYs", b"\0"), at=1),
        jpeg((0xEE, b"Adobe\0")),
        jpeg(b"\xff\x01"),
    ],
    ids=["short acTL", "unknown compression of text", "short pHYs", "short adobe", "TEM"],
)
def test_what_the_graph_reads_is_read_in_training(content, read_twice):
    assert read_by_graph(content) is not None
    assert read_twice(content).shape == PIXELS.shape


def test_without_tensorflow_pillow_decides(monkeypatch, tmp_path):
    import sys

    (tmp_path / "a.png").write_bytes(png((b"acTL", b"\0\0"), at=1))
    monkeypatch.setitem(sys.modules, "dsprh_tf.data.preprocess", None)
    with pytest.raises(ValueError, match=r"a\.png is (truncated|no JPEG)"):
        load_image(tmp_path / "a.png")


def test_the_second_reader_has_the_same_limits():
    content = bytearray(encoded(RGB, "PNG"))
    content[16:20] = struct.pack(">I", 40_000)
    for limit, message in ((10**9, "cannot be read|is truncated|is no JPEG"), (10**6, "too large")):
        with pytest.raises(ValueError, match=message):
            checked_bytes(bytes(content), "it", max_pixels=limit)


@pytest.mark.parametrize(
    "content",
    [
        *(encoded(RGB, kind) for kind in ("JPEG", "PNG", "GIF", "BMP", "WEBP")),
        encoded(RGB, "JPEG", progressive=True, exif=exif(6)),
        encoded(RGB, "WEBP", lossless=True),
        encoded(RGB, "WEBP", exif=exif(6)),
    ],
)
def test_size_by_the_header(content):
    assert image_structure.image_size(io.BytesIO(content)) == RGB.size


def test_a_saved_graph_has_the_same_rules(tmp_path):
    """As in an export: loaded, without this package's functions."""

    class Decoder(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
        def decode(self, contents):
            sizes = tf.map_fn(
                lambda content: tf.reduce_sum(tf.cast(decode_image(content), tf.int64), [0, 1]),
                contents, fn_output_signature=tf.TensorSpec([3], tf.int64),
            )  # fmt: skip
            return {"sum": sizes}

    tf.saved_model.save(Decoder(), str(tmp_path / "saved"))
    loaded = tf.saved_model.load(str(tmp_path / "saved"))
    contents = [jpeg((APP2, b"x" * 500), (APP1, EXIF)), without_end(ENDED["progressive"]),
                gif(transparency=3), encoded(RGB, "BMP"), png((b"eXIf", TIFF_BLOCK), at=-1),
                encoded(RGB, "JPEG"), encoded(RGB, "PNG")]  # fmt: skip
    sums = [image_reader.read(io.BytesIO(one)).pixels.sum((0, 1), np.int64) for one in contents]
    found = loaded.signatures["serving_default"](contents=tf.constant(contents))["sum"]
    np.testing.assert_array_equal(found, sums)


@pytest.mark.parametrize("count", [120, pytest.param(700, marks=pytest.mark.slow)])
def test_damaged_files_are_read_alike_or_refused(count):
    """`python tests/fuzz/pixels.py` has many more."""
    counts, faults = fuzz.campaign(count, seed=count)
    assert not faults
    for kind, found in counts.items():  # not every TensorFlow reads WebP
        assert found["both refuse"] >= 5 and found["equal"] + found["converted"] >= 5, kind
