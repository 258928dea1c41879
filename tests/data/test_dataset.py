import os
import shutil

import numpy as np
import pytest
from data_helpers import picture, refuses, write

from dsprh_tf.data import nuswide as nuswide_module
from dsprh_tf.data.coco import load_coco
from dsprh_tf.data.dataset import PairDataset
from dsprh_tf.data.mirflickr import LABELS, load_mirflickr25k
from dsprh_tf.data.nuswide import load_nuswide
from dsprh_tf.data.pairs import load_pairs

LOADERS = [load_coco, load_mirflickr25k, load_nuswide, load_pairs]


def toy(**changes):
    fields = {
        "name": "toy",
        "ids": ["a", "b", "c"],
        "image_features": np.eye(3),
        "texts": ["x", "y", "x y"],
        "labels": np.array([[1, 0], [0, 1], [1, 1]]),
        "label_names": ("l", "m"),
    }
    return PairDataset(**{**fields, **changes})


# PairDataset


def test_dataset_types():
    data = toy()
    assert len(data) == 3
    assert data.labels.dtype == np.uint8
    assert data.image_features.dtype == np.float32
    assert data.ids.dtype.kind == "U"
    assert all(isinstance(text, str) for text in data.texts)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ids": []}, "no pair is left"),
        ({"ids": ["a", "b", "a"]}, "id 'a' occurs 2 times"),
        ({"texts": ["x"]}, "texts has 1 rows, expected 3"),
        ({"texts": None}, "either texts or text_features"),
        ({"image_paths": ["p", "q", "r"]}, "either image_paths or image_features"),
        ({"image_features": np.array([[1], [np.nan], [np.inf]])}, "row 1 .*NaN or infinity"),
        ({"image_features": np.full((3, 1), 1e300)}, "row 0 .*infinity"),
        ({"image_features": np.zeros(3)}, "shape"),
        ({"labels": np.array([[1, 0], [0, 2], [1, 1]])}, "labels row 1"),
        ({"labels": np.array([[1, 0], [0, 0.5], [1, np.nan]])}, "labels row 1"),
        ({"labels": np.ones((3, 3))}, r"shape \(3, 3\), expected .* \[3, 2\]"),
        ({"labels": None}, "2 label_names but no labels"),
        ({"given_split": {"query": [0]}}, "expected query, database"),
        ({"given_split": {"query": [0], "database": [3]}}, "outside the data"),
        ({"given_split": {"query": [], "database": [1]}}, "query part is empty"),
        ({"given_split": {"query": [0], "database": [1, 1]}}, "names a pair twice"),
        ({"given_split": {"query": [0], "database": [0, 1]}}, "both query and database.*'a'"),
        (
            {"given_split": {"query": [0], "database": [1], "train": [2]}},
            "not in the database, first 'c'",
        ),
    ],
)
def test_dataset_refuses(changes, message):
    refuses(message, toy, **changes)


def test_take_maps_the_given_split():
    data = toy(given_split={"query": [0], "database": [1, 2], "train": [2]})
    taken = data.take([2, 0])
    assert taken.ids.tolist() == ["c", "a"]
    assert taken.texts.tolist() == ["x y", "x"]
    np.testing.assert_array_equal(taken.labels, [[1, 1], [1, 0]])
    np.testing.assert_array_equal(taken.image_features, np.eye(3)[[2, 0]])
    assert {key: value.tolist() for key, value in taken.given_split.items()} == {
        "query": [1],
        "database": [0],
        "train": [0],
    }
    assert data.take(np.array([True, False, True])).ids.tolist() == ["a", "c"]


def test_fingerprint_depends_on_content_only(tmp_path):
    assert toy().fingerprint() == toy(notes=("n",)).fingerprint()
    prints = {
        toy(**changes).fingerprint()
        for changes in (
            {},
            {"ids": ["a", "b", "d"]},
            {"texts": ["x", "y", "x z"]},
            {"labels": np.ones((3, 2))},
            {"labels": None, "label_names": ()},
            {"image_features": 2 * np.eye(3)},
        )
    }
    assert len(prints) == 6
    assert all(len(value) == 64 for value in prints)

    for name, size in (("one", 1), ("two", 1), ("three", 2)):
        write(tmp_path / name / "a.jpg", "x" * size)
    paths = [str(tmp_path / name / "a.jpg") for name in ("one", "two", "three")]
    one, two, three = (
        toy(ids=["a"], texts=["x"], labels=None, label_names=(), image_features=None,
            image_paths=[path]).fingerprint() for path in paths
    )  # fmt: skip
    assert one == two != three


# Every loader


@pytest.mark.parametrize("load", LOADERS)
def test_missing_and_empty_folders(tmp_path, load):
    refuses("none does not exist; .*", load, tmp_path / "none")
    (tmp_path / "empty").mkdir()
    refuses("empty is empty; .*(unpack|needs the columns)", load, tmp_path / "empty")
    write(tmp_path / "other" / "notes.txt", "x")
    refuses("(unpack|needs the columns)", load, tmp_path / "other")


# MIRFlickr-25K


def mirflickr(pictures, annotations):
    """Five images: 1 and 4 stay, 2 has no common tag, 3 no label, 5 neither."""
    tags = {1: ["Sky", "rare"], 2: ["rare"], 3: ["sky"], 4: ["été", "nikon d80"], 5: []}
    for number, lines in tags.items():
        picture(pictures / f"im{number}.jpg", number)
        write(pictures / "meta" / "tags" / f"tags{number}.txt", *lines)
    write(pictures / "doc" / "common_tags.txt", "sky 845", "nikond80 20", "rare 19", "été 40")
    labels = {"sky": [1, 4, 9], "water": [4], "animals": [2]}
    for name in LABELS:
        write(annotations / f"{name}.txt", *map(str, labels.get(name, [])))
    write(annotations / "sky_r1.txt", "3")
    write(annotations / "README.txt", "Annotations.")


@pytest.mark.parametrize(
    ("pictures", "annotations"),
    [
        (".", "annotations"),
        ("mirflickr", "mirflickr25k_annotations_v080"),
        ("mirflickr25k", "."),
        ("mirflickr25k/mirflickr", "mirflickr25k/annotations"),
    ],
)
def test_mirflickr(tmp_path, pictures, annotations):
    mirflickr(tmp_path / pictures, tmp_path / annotations)
    data = load_mirflickr25k(tmp_path)
    assert data.name == "mirflickr25k"
    assert data.ids.tolist() == ["im1", "im4"]
    assert data.texts.tolist() == ["sky rare", "été nikond80"]
    assert data.vocabulary == ("sky", "nikond80", "été")
    assert data.label_names == LABELS
    assert len(LABELS) == 24
    named = [{LABELS[i] for i in np.flatnonzero(row)} for row in data.labels]
    assert named == [{"sky"}, {"sky", "water"}]
    assert all(os.path.isfile(path) for path in data.image_paths)
    assert "dropped 2 images without a common tag" in data.notes
    assert "dropped 1 further images without a label" in data.notes
    assert "ignored 1 annotations of images that have no tag file" in data.notes


def test_mirflickr_broken_trees(tmp_path):
    mirflickr(tmp_path / "mirflickr", tmp_path / "annotations")
    (tmp_path / "mirflickr" / "im4.jpg").unlink()
    refuses("im4.jpg does not exist", load_mirflickr25k, tmp_path)
    assert load_mirflickr25k(tmp_path, "skip").ids.tolist() == ["im1"]
    common = tmp_path / "mirflickr" / "doc" / "common_tags.txt"
    write(common, "sky many")
    refuses("common_tags.txt row 1 is 'sky many'", load_mirflickr25k, tmp_path)
    write(common, "sky 3")
    refuses("no tag of 20 or more images", load_mirflickr25k, tmp_path)
    common.unlink()
    refuses("no doc/common_tags.txt; download mirflickr25k.zip", load_mirflickr25k, tmp_path)
    write(common, "sky 845")
    write(tmp_path / "annotations" / "sea.txt", "1", "one")
    refuses("sea.txt row 2 is 'one'", load_mirflickr25k, tmp_path)
    (tmp_path / "annotations" / "sea.txt").unlink()
    refuses("lacks sea.txt of the 24", load_mirflickr25k, tmp_path)
    shutil.rmtree(tmp_path / "annotations")
    refuses("no annotations .*annotations_v080.zip", load_mirflickr25k, tmp_path)


# NUS-WIDE

NUS_NAMES = ["actor\\0001_11.jpg", "actor\\0002_22.jpg", "zoo\\0001_33.jpg", "zoo\\0002_44.jpg"]
NUS_TAGS = {0: [0, 999], 1: [], 2: [5], 3: [1]}


def nuswide(folder, ids=False, pictures="Flickr", flat=False):
    """Four images: the first two concepts are frequent, the 11th (on image 3) is too rare."""
    write(folder / "ImageList" / "Imagelist.txt", *NUS_NAMES)
    rows = np.zeros((4, 1000), int)
    for row, columns in NUS_TAGS.items():
        rows[row, columns] = 1
    lines = ["\t".join(map(str, row)) + "\t" for row in rows]
    if ids:
        lines = [f"{n[-6:-4]}   {line}" for n, line in zip(NUS_NAMES, lines)]
    write(folder / "NUS_WID_Tags" / "AllTags1k.txt", *lines)
    write(folder / "NUS_WID_Tags" / "TagList1k.txt", *(f"Tag{i} " for i in range(1000)))
    labels = {"sky": "1110", "clouds": "1100", **{f"l{i}": "0100" for i in range(8)}}
    labels["zoo"] = "0001"
    for name, column in labels.items():
        write(folder / "Groundtruth" / "AllLabels" / f"Labels_{name}.txt", *column)
    for name in NUS_NAMES:
        parts = name.split("\\")
        picture(folder / pictures / (parts[1] if flat else "/".join(parts)))


@pytest.mark.parametrize(
    "layout",
    [{}, {"ids": True}, {"pictures": "images"}, {"pictures": "images", "flat": True}],
    ids=["official", "with ids", "images folder", "flat"],
)
def test_nuswide(tmp_path, layout):
    nuswide(tmp_path, **layout)
    data = load_nuswide(tmp_path)
    assert data.name == "nuswide"
    assert data.ids.tolist() == ["actor/0001_11", "zoo/0001_33"]
    assert data.texts.tolist() == ["tag0 tag999", "tag5"]
    assert data.vocabulary == tuple(f"tag{i}" for i in range(1000))
    assert data.label_names == ("sky", "clouds", *(f"l{i}" for i in range(8)))
    np.testing.assert_array_equal(data.labels[:, :3], [[1, 1, 0], [1, 0, 0]])
    assert all(os.path.isfile(path) for path in data.image_paths)
    assert "dropped 1 images in none of the 10 concepts" in data.notes
    assert "dropped 1 further images without a tag" in data.notes


def test_nuswide_flat_pictures_and_lost_ones(tmp_path):
    nuswide(tmp_path, pictures="images", flat=True)
    (tmp_path / "images" / "0001_33.jpg").unlink()
    refuses("0001_33.jpg does not exist", load_nuswide, tmp_path)


def test_nuswide_broken_trees(tmp_path):
    nuswide(tmp_path, ids=True)
    tags = tmp_path / "NUS_WID_Tags" / "AllTags1k.txt"
    lines = tags.read_text(encoding="utf-8").splitlines()
    write(tags, *lines[:3])
    refuses("AllTags1k.txt has 3 rows but the image list has 4", load_nuswide, tmp_path)
    write(tags, lines[1], lines[0], *lines[2:])
    refuses("row 1 has the id 22, the image list has actor/0001_11.jpg", load_nuswide, tmp_path)
    write(tags, *lines[:3], lines[3].replace("1", "7"))
    refuses("AllTags1k.txt row 4 is not 1,000 columns of 0 and 1", load_nuswide, tmp_path)
    write(tags, *lines[:3], lines[3].replace("1", "x"))
    refuses("AllTags1k.txt row 4 is not", load_nuswide, tmp_path)
    write(tags, *lines[:2], lines[2][:-8], lines[3])
    refuses("AllTags1k.txt row 3 is not", load_nuswide, tmp_path)
    write(tags, *lines[:2], "33", lines[3])
    refuses("AllTags1k.txt row 3 is not", load_nuswide, tmp_path)
    write(tags, *lines[:2], lines[2].replace("0\t0", "00\t", 1), lines[3])
    refuses("AllTags1k.txt row 3 is not", load_nuswide, tmp_path)
    write(tags, *(line[:200] for line in lines))
    refuses("columns, expected 1,000 of 0 or 1", load_nuswide, tmp_path)
    tags.unlink()
    refuses("no NUS_WID_Tags/AllTags1k.txt; download", load_nuswide, tmp_path)
    write(tags, *lines)
    label = tmp_path / "Groundtruth" / "AllLabels" / "Labels_sky.txt"
    write(label, "1", "0", "2", "0")
    refuses("Labels_sky.txt row 3 is neither", load_nuswide, tmp_path)
    write(label, "1", "0")
    refuses("Labels_sky.txt has 2 rows but", load_nuswide, tmp_path)
    write(label, *"1110")
    write(tmp_path / "NUS_WID_Tags" / "TagList1k.txt", "only")
    refuses("names 1 tags, expected 1,000", load_nuswide, tmp_path)
    write(tmp_path / "NUS_WID_Tags" / "TagList1k.txt", *(f"Tag{i} " for i in range(1000)))
    shutil.rmtree(tmp_path / "Flickr")
    refuses("no images such as Flickr/actor/0001_11.jpg", load_nuswide, tmp_path)


@pytest.mark.parametrize("root", [".", "NUS-WIDE", "NUS_WIDE"])
def test_nuswide_whole_archives(tmp_path, root):
    """What the archives hold beside the files that are read, with Windows line ends."""
    folder = tmp_path / root
    nuswide(folder)
    for rare in range(70):  # 81 concepts in all
        write(folder / "Groundtruth" / "AllLabels" / f"Labels_rare{rare:02}.txt", *"0000")
    for part, column in (("Train", "11"), ("Test", "10")):
        write(folder / "ImageList" / f"{part}Imagelist.txt", *NUS_NAMES[:2])
        write(folder / "Groundtruth" / "TrainTestLabels" / f"Labels_sky_{part}.txt", *column)
        write(folder / "NUS_WID_Tags" / f"{part}_Tags1k.dat", "0 1")
    write(folder / "NUS_WID_Tags" / "AllTags81.txt", *["0 1 " * 40 + "0"] * 4)
    write(folder / "NUS_WID_Tags" / "All_Tags.txt", *(f"{n[-6:-4]} tag0" for n in NUS_NAMES))
    for path in folder.rglob("*.txt"):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    data = load_nuswide(tmp_path)
    assert data.ids.tolist() == ["actor/0001_11", "zoo/0001_33"]
    assert data.texts.tolist() == ["tag0 tag999", "tag5"]
    assert data.label_names[:2] == ("sky", "clouds")
    np.testing.assert_array_equal(data.labels[:, :3], [[1, 1, 0], [1, 0, 0]])
    assert data.notes[1].startswith("the 10 most frequent of 81 concepts: sky, clouds, l0, ")


def test_nuswide_reads_its_tags_in_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(nuswide_module, "_BLOCK_ROWS", 3)
    nuswide(tmp_path, ids=True)
    assert load_nuswide(tmp_path).texts.tolist() == ["tag0 tag999", "tag5"]
    tags = tmp_path / "NUS_WID_Tags" / "AllTags1k.txt"
    lines = tags.read_text(encoding="utf-8").splitlines()
    write(tags, *lines[:3], "45" + lines[3][2:])
    refuses("row 4 has the id 45, the image list has zoo/0002_44.jpg", load_nuswide, tmp_path)
    write(tags, *lines[:3], lines[3].replace("1", "2"))
    refuses("AllTags1k.txt row 4 is not 1,000", load_nuswide, tmp_path)


def test_nuswide_skips_lost_pictures(tmp_path):
    nuswide(tmp_path)
    (tmp_path / "Flickr" / "zoo" / "0001_33.jpg").write_bytes(b"")
    refuses("0001_33.jpg is empty", load_nuswide, tmp_path)
    data = load_nuswide(tmp_path, "skip")
    assert data.ids.tolist() == ["actor/0001_11"]
    assert "dropped 1 of 2 pairs for a bad image:" in data.notes


@pytest.mark.parametrize(
    ("moved", "message"),
    [
        ("ImageList/Imagelist.txt", "no ImageList/Imagelist.txt; download .*ImageList.zip"),
        ("NUS_WID_Tags/TagList1k.txt", "no NUS_WID_Tags/TagList1k.txt; download"),
        ("Groundtruth/AllLabels", "no Groundtruth/AllLabels; download"),
        ("Groundtruth/AllLabels/Labels_l0.txt", None),
        ("Groundtruth/AllLabels/Labels_l*.txt", "has 3 files Labels_.*, expected 81"),
    ],
)
def test_nuswide_lacks_a_part(tmp_path, moved, message):
    nuswide(tmp_path)
    for path in tmp_path.glob(moved):
        path.rename(path.with_name("gone"))
    if message is None:  # a rarer concept moves up
        assert load_nuswide(tmp_path).label_names[-1] == "zoo"
    else:
        refuses(message, load_nuswide, tmp_path)


def test_nuswide_labels_of_minus_one_and_one(tmp_path):
    nuswide(tmp_path)
    expected = load_nuswide(tmp_path)
    for path in (tmp_path / "Groundtruth" / "AllLabels").glob("*.txt"):
        path.write_bytes(path.read_bytes().replace(b"0", b"-1"))
    data = load_nuswide(tmp_path)
    np.testing.assert_array_equal(data.labels, expected.labels)
    assert any("-1 and 1, of which -1 was read as 0" in note for note in data.notes)
    path.write_bytes(path.read_bytes().replace(b"-1", b"0", 1))
    refuses("is neither (0|-1) nor 1", load_nuswide, tmp_path)


def test_nuswide_as_matlab_files(tmp_path):
    (tmp_path / "nus-wide-tc10-iall.mat").write_bytes(b"MATLAB")
    refuses("but nus-wide-tc10-iall.mat: .*mirflickr25k_mat", load_nuswide, tmp_path)


def test_nuswide_wrong_files(tmp_path):
    nuswide(tmp_path)
    tags, label = tmp_path / "NUS_WID_Tags" / "AllTags1k.txt", "Groundtruth/AllLabels/Labels_l1.txt"
    whole = tags.read_text(encoding="utf-8")
    for columns in (81, 500):  # AllTags81.txt, the bag of SIFT words
        write(tags, *[" ".join("0" * columns)] * 4)
        refuses(f"AllTags1k.txt has {columns} columns, expected 1,000", load_nuswide, tmp_path)
    tags.write_bytes(b"")
    refuses("AllTags1k.txt has 0 columns, expected 1,000", load_nuswide, tmp_path)
    write(tags, *whole.splitlines(), whole.splitlines()[0])
    refuses("AllTags1k.txt has 5 rows but the image list has 4", load_nuswide, tmp_path)
    write(tags, *[" ".join("0" * 1000)] * 4)
    refuses("no image has both a tag and a label; download", load_nuswide, tmp_path)
    tags.write_text(whole, encoding="utf-8")
    write(tmp_path / label, *"010")  # TrainTestLabels has fewer rows
    refuses("Labels_l1.txt has 3 rows but the image list has 4", load_nuswide, tmp_path)
    write(tmp_path / label, *"0100")
    write(tmp_path / "ImageList" / "Imagelist.txt", *NUS_NAMES[:2], NUS_NAMES[0], NUS_NAMES[3])
    refuses("id 'actor/0001_11' occurs 2 times", load_nuswide, tmp_path)
