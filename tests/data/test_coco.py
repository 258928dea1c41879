"""COCO's annotations, as they are published and as converters write them."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
from data_helpers import picture, refuses
from helpers import SHARED

from dsprh_tf.data.coco import load_coco

COCO_MINI = SHARED / "data" / "coco-mini"


def coco_part(folder, part, images, captions, instances, categories):
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    shared = {"images": [{"id": i, "file_name": f"{i:012}.jpg"} for i in images]}
    content = {
        "captions": {"annotations": [{"image_id": i, "caption": c} for i, c in captions]},
        "instances": {
            "annotations": [{"image_id": i, "category_id": c} for i, c in instances],
            "categories": [{"id": c, "name": n} for c, n in categories],
        },
    }
    for kind, rest in content.items():
        path = folder / "annotations" / f"{kind}_{part}.json"
        path.write_text(json.dumps({**shared, **rest}), encoding="utf-8")
    for i in images:
        picture(folder / part / f"{i:012}.jpg", i)


CATEGORIES = [(7, "train"), (3, "car"), (90, "dog")]


@pytest.fixture
def coco(tmp_path):
    coco_part(
        tmp_path, "val2017", [5, 2, 8, 9],
        [(5, "A car. "), (2, "a dog\nruns"), (5, "the car"), (8, "nothing")],
        [(5, 3), (5, 3), (2, 90), (2, 3), (9, 7), (2, 55)], CATEGORIES,
    )  # fmt: skip
    return tmp_path


def test_coco(coco):
    data = load_coco(coco)
    assert data.name == "coco"
    assert data.ids.tolist() == ["5", "2"]  # 8 has no label, 9 no caption
    assert data.texts.tolist() == ["A car. the car", "a dog runs"]
    assert data.label_names == ("car", "train", "dog")
    np.testing.assert_array_equal(data.labels, [[1, 0, 0], [1, 0, 1]])
    assert all(os.path.isfile(path) for path in data.image_paths)
    assert data.given_split is None
    assert data.vocabulary is None
    assert "dropped 1 images without a label" in data.notes
    assert "dropped 1 further images without a caption" in data.notes


def test_coco_merges_parts_and_skips_those_without_images(coco):
    coco_part(coco, "train2014", [5, 11], [(5, "again"), (11, "dog")], [(11, 90)], CATEGORIES)
    coco_part(coco, "train2017", [77], [(77, "a")], [(77, 3)], [(7, "train"), (1, "person")])
    shutil.rmtree(coco / "train2017")
    data = load_coco(coco)
    assert sorted(data.ids) == ["11", "2"]  # 5 belongs to train2014, where it has no label
    assert any(note.startswith("train2017: left out") for note in data.notes)
    assert "val2017: dropped 1 images that an earlier part has" in data.notes
    assert data.label_names == ("car", "train", "dog")


def test_coco_given_split(coco):
    path = coco / "splits.json"
    path.write_text(json.dumps({"query": [2, 8], "database": [5]}), encoding="utf-8")
    data = load_coco(coco)
    assert {key: value.tolist() for key, value in data.given_split.items()} == {
        "query": [1],
        "database": [0],
    }
    assert any("dropped 1 query ids" in note for note in data.notes)
    path.write_text(json.dumps({"query": [5]}), encoding="utf-8")
    assert load_coco(coco).given_split["database"].tolist() == [1]
    path.write_text(json.dumps({"test": [5]}), encoding="utf-8")
    refuses("splits.json has no list 'query'", load_coco, coco)


def test_coco_bad_images(coco):
    (coco / "val2017" / "000000000005.jpg").write_bytes(b"")
    refuses("000000000005.jpg is empty", load_coco, coco)
    data = load_coco(coco, "skip")
    assert data.ids.tolist() == ["2"]
    assert "dropped 1 of 2 pairs for a bad image:" in data.notes
    assert "000000000005.jpg is empty" in data.notes[-1]
    (coco / "val2017" / "000000000002.jpg").unlink()
    refuses("none of the 2 images can be read", load_coco, coco, "skip")


def test_coco_broken_files(coco):
    captions = coco / "annotations" / "captions_val2017.json"
    content = captions.read_text(encoding="utf-8")
    captions.write_text(content[:-20], encoding="utf-8")
    refuses("captions_val2017.json is not valid JSON", load_coco, coco)
    captions.write_text('{"images": []}', encoding="utf-8")
    refuses("captions_val2017.json has no key 'annotations'", load_coco, coco)
    captions.write_text('{"images": [{"id": 1}], "annotations": []}', encoding="utf-8")
    refuses("lacks the field 'file_name'", load_coco, coco)
    captions.unlink()
    refuses("no pair of captions.*annotations_trainval2017.zip", load_coco, coco)
    captions.write_text(content, encoding="utf-8")
    shutil.rmtree(coco / "val2017")
    refuses("no image folder.*val2017.zip", load_coco, coco)


@pytest.mark.skipif(not COCO_MINI.is_dir(), reason=f"no real pictures at {COCO_MINI}")
def test_coco_mini():
    data = load_coco(COCO_MINI)
    assert len(data) == 1924
    assert len(data.given_split["query"]) == 300
    np.testing.assert_array_equal(data.given_split["database"], data.given_split["train"])
    assert len(data.given_split["database"]) == 1624
    assert data.labels.any(axis=1).all()
    assert "person" not in data.label_names


class TestWhatConvertersWrite:
    @pytest.fixture
    def change(self, coco):
        """`change(kind, edit)` edits one of the two files; returns the folder."""

        def change(kind, edit):
            path = coco / "annotations" / f"{kind}_val2017.json"
            content = json.loads(path.read_text(encoding="utf-8"))
            edit(content)
            path.write_text(json.dumps(content), encoding="utf-8")
            return coco

        return change

    def test_text_lists(self, coco):
        data = load_coco(coco)
        assert data.text_lists.tolist() == [("A car.", "the car"), ("a dog runs",)]

    def test_null_captions(self, change):
        def edit(content):
            content["annotations"][2]["caption"] = None
            content["annotations"][3]["caption"] = " "

        data = load_coco(change("captions", edit))
        assert data.texts.tolist() == ["A car.", "a dog runs"]
        assert "val2017: dropped 2 captions that are null or empty" in data.notes
        assert data.text_lists is None

    def test_null_captions_of_the_small_input(self, coco):
        path = SHARED / "cases" / "coco_captions.json"
        if not path.is_file():
            pytest.skip(f"no {path}")
        for kind in ("captions", "instances"):
            (coco / "annotations" / f"{kind}_val2017.json").unlink()
        shutil.copy(path, coco / "annotations" / "captions_val2017.json")
        instances = {
            "images": [{"id": 1}, {"id": 2}],
            "annotations": [{"image_id": 1, "category_id": 3}, {"image_id": 2, "category_id": 3}],
            "categories": [{"id": 3, "name": "dog"}],
        }
        (coco / "annotations" / "instances_val2017.json").write_text(json.dumps(instances))
        for i in range(2):
            picture(coco / "val2017" / f"{i}.jpg", i)
        data = load_coco(coco)
        assert data.ids.tolist() == ["1"]
        assert data.texts.tolist() == ["a dog"]
        assert "val2017: dropped 2 captions that are null or empty" in data.notes
        assert "dropped 1 further images without a caption" in data.notes

    @pytest.mark.parametrize("spell", [str, float, lambda key: f"{key}.0"])
    def test_ids_of_other_types(self, coco, change, spell):
        def edit(content):
            for annotation in content["annotations"]:
                annotation["image_id"] = spell(annotation["image_id"])

        expected = load_coco(coco)
        data = load_coco(change("captions", edit))
        assert data.ids.tolist() == ["5", "2"]
        assert data.fingerprint() == expected.fingerprint()

    def test_categories_as_text(self, coco, change):
        def edit(content):
            for category in content["categories"]:
                category["id"] = str(category["id"])

        expected = load_coco(coco)
        data = load_coco(change("instances", edit))
        assert data.label_names == ("car", "train", "dog")
        assert data.fingerprint() == expected.fingerprint()

    def test_two_categories_of_one_name(self, change):
        folder = change("instances", lambda c: c["categories"].append({"id": 55, "name": "car"}))
        data = load_coco(folder)
        assert data.label_names == ("car", "train", "dog")
        np.testing.assert_array_equal(data.labels, [[1, 0, 0], [1, 0, 1]])
        assert "1 names have several categories, such as 'car': one label" in data.notes

    def test_one_category_of_two_names(self, change):
        folder = change("instances", lambda c: c["categories"].append({"id": 3, "name": "cat"}))
        refuses("the category 3 is 'car' and 'cat'", load_coco, folder)

    def test_categories_that_are_not_listed(self, coco, change):
        assert (
            "dropped 1 labels of categories that are not listed, such as '55'"
            in load_coco(coco).notes
        )
        folder = change("instances", lambda c: c.update(categories=[]))
        refuses(
            "no image has both a label .*6 labels of categories that are not listed.*annotations/",
            load_coco,
            folder,
        )

    def test_a_category_without_a_name(self, change):
        folder = change("instances", lambda c: c["categories"].append({"id": 4, "name": None}))
        refuses("category 4 has the name None", load_coco, folder)

    def test_annotations_of_images_that_are_not_listed(self, change):
        strange = {"image_id": 77, "caption": "a ghost"}
        data = load_coco(change("captions", lambda c: c["annotations"].append(strange)))
        assert "val2017: dropped 1 annotations of images that are not listed" in data.notes

    def test_an_id_of_two_images(self, change):
        again = {"id": "5", "file_name": "other.jpg"}
        folder = change("captions", lambda c: c["images"].append(again))
        refuses("the image id 5 is of .*5.jpg' and .*other.jpg'", load_coco, folder)

    def test_an_image_without_an_id(self, change):
        folder = change(
            "captions", lambda c: c["images"].append({"id": None, "file_name": "x.jpg"})
        )
        refuses("has the id null", load_coco, folder)

    def test_an_image_without_a_file(self, coco):
        (coco / "val2017" / "000000000005.jpg").unlink()
        refuses("image .*000000000005.jpg does not exist", load_coco, coco)
        assert load_coco(coco, "skip").ids.tolist() == ["2"]

    def test_names_with_backslashes(self, coco, change):
        (coco / "val2017" / "a").mkdir()
        for path in list((coco / "val2017").glob("*.jpg")):
            path.rename(path.parent / "a" / path.name)

        def edit(content):
            for image in content["images"]:
                image["file_name"] = "a\\" + image["file_name"]

        assert load_coco(change("captions", edit)).ids.tolist() == ["5", "2"]

    def test_ids_of_the_given_split(self, coco):
        path = coco / "splits.json"
        path.write_text(json.dumps({"query": [2.0], "database": ["5"]}), encoding="utf-8")
        data = load_coco(coco)
        assert [data.given_split[part].tolist() for part in ("query", "database")] == [[1], [0]]
        path.write_text(json.dumps({"query": [[2]], "database": 5}), encoding="utf-8")
        refuses("splits.json: query is no list of ids", load_coco, coco)

    def test_deep_nesting(self, coco):
        path = coco / "annotations" / "captions_val2017.json"
        path.write_text("[" * 200_000, encoding="utf-8")
        refuses("captions_val2017.json is not valid JSON .nested too deeply", load_coco, coco)
