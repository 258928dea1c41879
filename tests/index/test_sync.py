"""Syncs of an index with images and captions: what is found, what is kept, kills, and the guard."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from index_helpers import HashEncoder, write_image

from dsprh_tf.index import folder, sync, sync_plan
from dsprh_tf.index.answers import answer, format_table
from dsprh_tf.index.code_folder import CodeFolder, CodeWriter
from dsprh_tf.index.encode_collection import encode_source
from dsprh_tf.index.hamming import HammingIndex
from dsprh_tf.index.interface import Where
from dsprh_tf.index.sources import Source
from dsprh_tf.web.collection import Collection
from dsprh_tf.web.watch import Watch


class Encoder(HashEncoder):
    info = {"fingerprint": "abc"}


class Photos:
    """12 images in two folders, three captions, and an index that was synced with them."""

    def __init__(self, root: Path):
        self.root, self.photos, self.index = root, root / "photos", root / "index"
        self.captions, self.tags = root / "captions.csv", None
        for i in range(12):
            write_image(self.path(i), i)
        self.captions.write_text("text,tags\nknown dog,pet\nknown cat,pet\nknown tree,\n")
        self.encoder = Encoder()

    def path(self, i: int) -> Path:
        return self.photos / "ab"[i % 2] / f"{i:02}.png"

    def plans(self, yes=False):
        collection = sync.Collection(str(self.photos), str(self.captions), self.tags)
        there = (self.index / "index.json").exists()
        self.open = (
            HammingIndex.load(self.index, write=True)
            if there
            else HammingIndex.create(self.index, 64, "abc")
        )
        return collection.plans(self.open, yes)

    def close(self):
        self.open._lock.release()

    def sync(self, yes=False):
        """The plans, after they were carried out."""
        self.encoder.encoded.clear()
        try:
            plans = self.plans(yes)
            self.done = sync.apply(self.open, self.index, plans, lambda _: self.encoder, yes)
        finally:
            self.close()
        return plans

    def items(self) -> dict:
        """Path or text of every item -> (id, tags)."""
        index = HammingIndex.load(self.index)
        rows = index.items_of(index.ids_where()).to_pylist()
        return {row["path"] or row["text"]: (row["id"], row["tags"]) for row in rows}


@pytest.fixture
def photos(tmp_path):
    photos = Photos(tmp_path)
    photos.sync()
    return photos


def test_the_first_time(photos):
    assert len(photos.items()) == 15
    assert photos.done.encoded == 15 and not (photos.index / ".sync").exists()
    before = (photos.index / "index.json").read_bytes()
    images, texts = photos.sync()
    assert not images.changes and not texts.changes and not photos.encoder.encoded
    assert (photos.index / "index.json").read_bytes() == before


def test_unchanged_files_are_not_read(photos, monkeypatch):
    read = []
    sha256 = sync_plan.file_sha256
    monkeypatch.setattr(sync_plan, "file_sha256", lambda p: read.append(str(p)) or sha256(p))
    photos.sync()
    assert not read
    os.utime(photos.path(3), ns=(1, 1))
    images, _ = photos.sync()
    assert read == [str(photos.path(3))] and not images.changes
    photos.sync()
    assert len(read) == 1


def test_the_short_way_of_an_unchanged_folder_is_the_long_one(photos, monkeypatch):
    shutil.copy(photos.path(3), photos.photos / "a" / "zz.png")
    (photos.photos / "broken.png").write_bytes(b"no image")
    photos.sync()
    found = []
    for short in (True, False):
        if not short:
            monkeypatch.setattr(sync_plan, "_as_before", lambda *_: None)
        images = photos.plans()[0]
        photos.close()
        assert images.same is short and not images.changes
        found.append(
            {k: v for k, v in vars(images).items() if k not in ("source", "files", "same")}
        )
    assert found[0] == found[1]
    assert (found[0]["bad"], found[0]["total"], len(found[0]["equal"])) == (1, 12, 1)


@pytest.mark.parametrize("change", ["tagged", "touched", "renamed", "added", "removed", "dropped"])
def test_the_short_way_is_not_taken_once_something_has_changed(photos, change):
    photos.sync()
    assert photos.plans()[0].same
    if change == "dropped":  # from the index, by other means
        photos.open.remove(photos.open.ids_where(Where(modality="image"))[:1])
        photos.open.commit()
    photos.close()
    if change == "tagged":
        photos.tags = str(photos.root / "tags.csv")
        Path(photos.tags).write_text(f"image,tags\n{photos.path(0)},new\n")
    elif change == "touched":
        os.utime(photos.path(0), (1, 1))
    elif change == "renamed":
        photos.path(0).rename(photos.path(0).with_name("other.png"))
    elif change == "added":
        write_image(photos.photos / "new.png", 99)
    elif change == "removed":
        photos.path(0).unlink()
    images = photos.plans()[0]
    photos.close()
    assert not images.same
    assert images.changes is (change != "touched")


def test_new_changed_moved_and_gone(photos):
    before = photos.items()
    write_image(photos.photos / "new.png", 100)
    write_image(photos.path(1), 101)
    photos.path(2).rename(photos.photos / "renamed.png")
    photos.path(4).unlink()
    images, _ = photos.sync()
    assert (images.new, images.changed) == ([str(photos.photos / "new.png")], [str(photos.path(1))])
    assert images.moved == [(str(photos.path(2)), str(photos.photos / "renamed.png"))]
    assert images.gone == [str(photos.path(4))]
    assert len(photos.encoder.encoded) == 2
    after = photos.items()
    assert after[str(photos.photos / "renamed.png")] == before[str(photos.path(2))]
    assert after[str(photos.path(1))] == before[str(photos.path(1))]
    assert not {str(photos.path(2)), str(photos.path(4))} & set(after)
    assert photos.path(1).read_bytes() in photos.encoder.encoded
    assert not any(plan.changes for plan in photos.sync())


def test_names_that_change_places(photos):
    before = photos.items()
    a, b = photos.path(1), photos.path(3)
    a.rename(photos.root / "aside")
    b.rename(a)
    (photos.root / "aside").rename(b)
    images, _ = photos.sync()
    assert len(images.moved) == 2 and not photos.encoder.encoded
    after = photos.items()
    assert (after[str(a)], after[str(b)]) == (before[str(b)], before[str(a)])


def test_a_new_file_under_the_name_of_a_moved_one(photos):
    before = photos.items()[str(photos.path(1))][0]
    photos.path(1).rename(photos.photos / "moved.png")
    write_image(photos.path(1), 77)
    images, _ = photos.sync()
    assert (len(images.new), len(images.moved), len(images.gone)) == (1, 1, 0)
    after = photos.items()
    assert after[str(photos.photos / "moved.png")][0] == before != after[str(photos.path(1))][0]
    assert not any(plan.changes for plan in photos.sync())


def test_equal_files_are_one_item_with_all_paths(photos):
    copies = [photos.photos / f"copy{i}.png" for i in range(2)]
    for copy in copies:
        shutil.copy(photos.path(5), copy)
    images, _ = photos.sync()
    assert len(images.equal) == 2
    assert not photos.encoder.encoded and len(photos.items()) == 15
    index = HammingIndex.load(photos.index)
    number = photos.items()[str(photos.path(5))][0]
    (found,) = answer(index, index.codes_of([number]), 1, Where(modality="image"))
    paths = {str(photos.path(5)), *map(str, copies)}
    assert set(found[0]["paths"]) == paths
    assert all(path in format_table(found) for path in paths)
    photos.path(5).unlink()  # the item lives on under another path
    images, _ = photos.sync()
    assert len(images.moved) == 1 and not images.gone
    assert number in {each for each, _ in photos.items().values()}


def test_texts_that_stay_since_they_are_of_no_known_source_are_counted(photos):
    """A text of `dsprh encode` that is deleted from the manifest is not known to be its own."""
    index = HammingIndex.load(photos.index, write=True)
    index.know_files(None)
    index.commit()
    index._lock.release()
    photos.captions.write_text("text\nknown dog\n")
    _, texts = photos.plans()
    photos.close()
    assert (texts.total, texts.others) == (0, 2) and not texts.gone


def test_captions(photos):
    before = photos.items()
    photos.captions.write_text("text,tags\nknown dog,animal\nknown bird,pet\nunknwn,\n")
    _, texts = photos.sync()
    assert texts.new == ["known bird", "unknwn"] and sorted(texts.gone) == [
        "known cat",
        "known tree",
    ]
    assert photos.encoder.encoded == [b"known bird"]
    after = photos.items()
    assert after["known dog"] == (before["known dog"][0], ["animal"])
    assert not {"known cat", "known tree", "unknwn"} & set(after)
    assert len(photos.done.problems) == 1
    _, texts = photos.sync()
    assert texts.bad == 1 and not texts.changes


def test_a_caption_with_an_id_of_its_own(photos):
    photos.captions.write_text("id,text\n7,known dog\n8,known cat\n9,known tree\n")
    photos.sync(yes=True)
    photos.captions.write_text("id,text\n7,known dog\n8,known lion\n9,known tree\n")
    _, texts = photos.sync()
    assert texts.changed == ["known lion"] and photos.items()["known lion"][0] == 8
    assert photos.encoder.encoded == [b"known lion"]


def test_tags_of_a_manifest(photos):
    photos.tags = photos.root / "tags.csv"
    photos.tags.write_text("image,tags\nphotos/b/01.png,sea;sun\n")
    images, _ = photos.sync()
    assert images.tagged == 1 and not photos.encoder.encoded
    assert photos.items()[str(photos.path(1))][1] == ["sea", "sun"]
    photos.tags = None
    photos.sync()  # without the manifest they stay
    assert photos.items()[str(photos.path(1))][1] == ["sea", "sun"]


def test_broken_files_and_links(photos):
    (photos.photos / "broken.png").write_bytes(b"\x89PNG broken")
    (photos.photos / "link.png").symlink_to("nowhere.png")
    photos.sync()
    assert len(photos.done.problems) == 2 and len(photos.items()) == 15
    images, _ = photos.sync()
    assert images.bad == 2 and not images.changes
    write_image(photos.photos / "nowhere.png", 50)
    photos.sync()
    assert len(photos.items()) == 16
    write_image(photos.photos / "broken.png", 51)
    photos.sync()
    assert len(photos.items()) == 17
    photos.path(1).write_bytes(b"\x89PNG broken")  # its former content is not there any more
    photos.sync()
    assert str(photos.path(1)) not in photos.items()


def test_an_index_of_codes_is_taken_over(tmp_path):
    photos = Photos(tmp_path)
    shutil.copy(photos.path(0), photos.photos / "copy.png")
    source = Source(photos.photos, "image")
    writer = CodeWriter(tmp_path / "codes", 64, "abc", "image", source.path)
    encode_source(source, photos.encoder, writer)
    codes = CodeFolder(tmp_path / "codes")
    index = HammingIndex(64, fingerprint="abc")
    index.add(codes.codes, codes.items())
    index.add(np.zeros((1, 8), np.uint8), [5])  # of another origin: it stays
    index.save(photos.index)
    index._lock.release()
    images, _ = photos.sync()
    assert not images.todo and len(images.gone_ids) == 1 and not images.gone
    assert len(HammingIndex.load(photos.index)) == 12 + 3 + 1


class TestGuard:
    def test_missing_or_empty(self, photos):
        away = photos.root / "away"
        photos.photos.rename(away)
        with pytest.raises(ValueError, match="does not exist"):
            photos.sync()
        photos.photos.mkdir()
        with pytest.raises(ValueError, match="has no images"):
            photos.sync()
        assert len(photos.items()) == 15
        photos.sync(yes=True)
        assert len(photos.items()) == 3
        folder.undo(photos.index)
        assert len(photos.items()) == 15

    def test_a_share(self, photos):
        for i in range(5):
            photos.path(i).unlink()
        photos.sync()
        assert len(photos.items()) == 10
        for i in range(5, 11):
            photos.path(i).unlink()
        with pytest.raises(ValueError, match="6 of 7 items of .* are gone.*--yes"):
            photos.sync()
        assert len(photos.items()) == 10

    def test_other_encoders(self, photos):
        write_image(photos.photos / "new.png", 100)
        photos.encoder.info = {"fingerprint": "other"}
        with pytest.raises(ValueError, match="of other encoders"):
            photos.sync()


def test_killed_at_each_change_of_the_disk(tmp_path, killed):
    """The former content or the new one, and once more gives the new one."""
    photos = Photos(tmp_path)
    photos.sync()
    former = photos.items()
    shutil.copytree(photos.index, tmp_path / "former")
    write_image(photos.photos / "new.png", 100)
    write_image(photos.path(1), 101)
    photos.path(2).rename(photos.photos / "renamed.png")
    photos.path(4).unlink()
    photos.captions.write_text("text\nknown dog\nknown bird\n")
    photos.sync()
    wanted, point, dead = photos.items(), 0, True
    while dead:
        point += 1
        shutil.rmtree(photos.index)
        shutil.copytree(tmp_path / "former", photos.index)
        dead = killed(photos.index, point, photos.sync)
        assert photos.items() in (former, wanted), point
        photos.sync()
        assert photos.items() == wanted
        assert not (photos.index / ".sync").exists()
    assert point > 20


def test_the_page_takes_it_up(photos):
    watch = Watch(str(photos.index))
    index = watch.open()
    write_image(photos.photos / "new.png", 100)
    assert not watch.changed(index)
    photos.sync()
    assert watch.changed(index)
    assert Collection(watch.open(), "photos").counts["images"] == 13
