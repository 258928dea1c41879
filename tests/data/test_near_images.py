"""Images that look alike: copies that were resized or saved again, and what is not one."""

import io

import numpy as np
import pytest
from helpers import SHARED
from PIL import Image, ImageEnhance

from dsprh_tf.data.coco import load_coco
from dsprh_tf.data.dataset import PairDataset
from dsprh_tf.data.near_images import grey_grids, near_notes, near_rows
from dsprh_tf.data.scenes.draw import draw_scene
from dsprh_tf.data.splits import Split

COCO_MINI = SHARED / "data" / "coco-mini"
RESIZED = {"half": 0.5, "double": 2.0, "three quarters": 0.75}
CHANGES = {
    **{f"JPEG {q}": lambda im, q=q: _saved(im, "JPEG", quality=q) for q in (95, 75, 50, 30)},
    **{name: lambda im, f=f: _saved(im.resize((int(im.width * f), int(im.height * f))), "JPEG")
       for name, f in RESIZED.items()},
    "PNG": lambda im: _saved(im, "PNG"),
    "WebP": lambda im: _saved(im, "WEBP", quality=60),
    "square": lambda im: _saved(im.resize((96, 96)), "JPEG"),
    "grey": lambda im: _saved(im.convert("L"), "JPEG"),
    "brighter": lambda im: _saved(ImageEnhance.Brightness(im).enhance(1.15), "JPEG"),
}  # fmt: skip


def _saved(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """16 drawn images as PNG files."""
    folder = tmp_path_factory.mktemp("images")
    for i in range(16):
        draw_scene(3, i, (128, 96)).image.save(folder / f"{i}.png")
    return [str(folder / f"{i}.png") for i in range(16)]


def dataset(paths):
    ids = [f"i{row}" for row in range(len(paths))]
    return PairDataset(name="toy", ids=ids, image_paths=paths, texts=ids)


def split(query, train, validation=()):
    database = np.array([*train, *validation])
    return Split(np.array(query), database, np.array(train), np.array(validation, int), 0, "")


@pytest.mark.parametrize("change", CHANGES)
def test_copies_are_found_and_nothing_else(images, tmp_path, change):
    copies = []
    for path in images[:6]:
        copy = tmp_path / f"{len(copies)}.jpg"
        copy.write_bytes(CHANGES[change](Image.open(path).convert("RGB")))
        copies.append(str(copy))
    left, right = grey_grids(copies), grey_grids(images[3:])
    found, first = near_rows(left, right, np.arange(6), np.arange(100, 113))
    assert found.tolist() == [3, 4, 5]
    assert first == (3, 0)


def test_a_warning_names_the_first_pair(images, tmp_path):
    for i in (2, 5, 9):
        (tmp_path / f"{i}.jpg").write_bytes(CHANGES["JPEG 50"](Image.open(images[i])))
    paths = [*images, *(str(tmp_path / f"{i}.jpg") for i in (2, 5, 9))]
    sides = split([0, 16, 17], [*range(1, 10), 18], validation=range(10, 16))
    assert near_notes(dataset(paths), sides) == [
        "warning: 2 of 3 query images look like one in the database (resized or saved again?), the "
        "first are i16 and i2: the results will look better than they are"
    ]
    sides = split([0], [*range(1, 16)], validation=[16, 17, 18])
    assert near_notes(dataset(paths), sides) == [
        "warning: 3 of 3 validation images look like one in training (resized or saved again?), "
        "the first are i16 and i2: validation will look better than it is"
    ]
    assert near_notes(dataset(paths), split([0, 1], range(2, 16))) == []


def test_equal_images_are_dealt_with_elsewhere(images):
    assert near_notes(dataset([*images, images[4]]), split([16], range(16))) == []


def test_flat_images_say_too_little(tmp_path):
    """Plain colours with the noise of a camera, and walls that are a little brighter at one end."""
    rng, paths = np.random.default_rng(0), []
    ramp = np.linspace(0, 9, 64)[:, None] + np.zeros((48, 64, 3))
    for i in range(8):
        light = ramp if i % 2 else rng.normal(size=(48, 64, 3)).clip(-3, 3)
        paths.append(str(tmp_path / f"{i}.png"))
        Image.fromarray((200 - i + light).astype(np.uint8)).save(paths[-1])
    assert near_notes(dataset(paths), split(range(4), range(4, 8))) == []


def test_an_unreadable_image_is_left_to_others(images, tmp_path):
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert near_notes(dataset([*images, str(tmp_path / "cut.png")]), split([16], range(16))) == []


def test_of_many_images_a_sample_is_compared(images, tmp_path):
    (tmp_path / "c.jpg").write_bytes(CHANGES["JPEG 75"](Image.open(images[0])))
    data = dataset([str(tmp_path / "c.jpg"), *images])
    sides = split([0, 2, 3, 4], [1, *range(5, 17)])
    assert near_notes(data, split(range(1, 5), range(5, 17)), limit=10) == [
        "looked for copies among 4 of 4 queries and 6 of 12 database pairs"
    ]
    assert near_notes(data, split(range(5, 17), range(1, 5)), limit=10) == [
        "looked for copies among 6 of 12 queries and 4 of 4 database pairs"
    ]
    assert near_notes(data, sides, limit=10) == near_notes(data, sides, limit=10)
    lines = near_notes(data, sides, limit=17)
    assert len(lines) == 1 and lines[0].startswith("warning: 1 of 4 query images")


def test_features_have_no_images():
    data = PairDataset(name="f", ids=["a", "b"], image_features=np.eye(2), text_features=np.eye(2))
    assert near_notes(data, split([0], [1])) == []


@pytest.mark.skipif(not COCO_MINI.is_dir(), reason=f"no real images at {COCO_MINI}")
def test_no_two_of_a_thousand_photographs_look_alike():
    paths = load_coco(COCO_MINI).image_paths[:1000]
    grids = grey_grids(paths)
    found, _ = near_rows(grids, grids, np.arange(1000), np.arange(1000))
    assert found.tolist() == []
