"""Codes of folders and manifests: what is read, resumed, skipped, and refused."""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from test_bad_input import png_header

from dsprh_tf.data.images import image_bytes
from dsprh_tf.index.code_folder import CodeFolder, CodeWriter
from dsprh_tf.index.encode_collection import _ahead, encode_source
from dsprh_tf.index.items import SCHEMA, stable_id
from dsprh_tf.index.sources import Source, path_prefix

SCRIPTS = Path(__file__).parents[1] / "scripts"


class HashEncoder:
    """Codes that depend on the item and on the whole batch that it is encoded in.

    Real encoders may round a sum differently in another batch; here every code would show it.
    """

    bits = 64

    def __init__(self):
        self.encoded = []

    def encode(self, items, batch_size):
        assert batch_size >= len(items)
        contents = [item if isinstance(item, bytes) else item.encode() for item in items]
        for content in contents:
            if content.startswith((b"\xff\xd8", b"\x89PNG")):
                try:
                    Image.open(io.BytesIO(content)).load()
                except Exception as error:
                    raise ValueError(f"item cannot be encoded: {error}") from error
                if b"only Pillow" in content:
                    raise ValueError("item cannot be encoded")
        self.encoded += contents
        whole = hashlib.sha256(b"".join(contents)).digest()[:2]
        rows = [hashlib.sha256(content).digest()[:6] + whole for content in contents]
        return np.frombuffer(b"".join(rows), np.uint8).reshape(len(rows), 8)

    def known_words(self, texts):
        return np.array(["known" in text for text in texts], int)


def picture(path, seed=0, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.fixture
def album(tmp_path) -> Path:
    """21 pictures in two folders, and files that are none."""
    folder = tmp_path / "album"
    for i in range(21):
        picture(folder / ("b" if i % 2 else "a") / f"{i:02}.jpg", i)
    (folder / "notes.txt").write_text("no picture")
    (folder / "a" / ".hidden.jpg").write_text("no picture")
    picture(folder / ".cache" / "x.jpg")
    return folder


def run(source, out, encoder=None, fingerprint="abc", overwrite=False, shard=(0, 1), **options):
    """One whole encoding run; its summary."""
    modality = "image" if os.path.isdir(source) else "text"
    source = source if isinstance(source, Source) else Source(source, modality, shard)
    writer = CodeWriter(out, 64, fingerprint, modality, source.path, shard, overwrite)
    try:
        options = {"batch_size": 4, "part_size": 8, **options}
        return encode_source(source, encoder or HashEncoder(), writer, **options)
    finally:
        writer._lock.release()


def content(out):
    """Everything that counts of a folder of codes."""
    folder = CodeFolder(out)
    return folder.codes.tobytes(), folder.items().to_pylist(), folder.skipped


def assert_same(a, b):
    assert content(a) == content(b)
    for out in (a, b):
        assert set(os.listdir(out)) == {"codes.npy", "items.parquet", "codes.json", ".lock"}


class TestSource:
    def test_folder(self, album):
        source = Source(album, "image")
        paths = [item.content for item in source.items]
        wanted = [album / "a" / f"{i:02}.jpg" for i in range(0, 21, 2)]
        wanted += [album / "b" / f"{i:02}.jpg" for i in range(1, 21, 2)]
        assert paths == [str(path) for path in wanted]
        assert [item.id for item in source.items] == [stable_id("image", p) for p in paths]
        assert source.notes == ["2 files that are hidden or no pictures were passed over"]

    def test_linked_folders_are_counted(self, album):
        (album / "a" / "again").symlink_to(album, target_is_directory=True)
        (album / "c").symlink_to(album / "b", target_is_directory=True)
        (album / ".hidden").symlink_to(album / "b", target_is_directory=True)
        source = Source(album, "image")
        assert len(source.items) == 21
        assert source.notes[1:] == [
            "2 linked folders were not followed: encode each as a source of its own"
        ]

    def test_relative_paths_become_absolute(self, album, monkeypatch):
        monkeypatch.chdir(album.parent)
        assert Source("album", "image").items == Source(album, "image").items
        assert path_prefix("album/a/") == str(album / "a") + "/"
        assert path_prefix("album/a") == str(album / "a")
        assert path_prefix(None) is None

    ROWS = (
        {"image": "a.jpg", "text": "a  known dog", "id": "7", "tags": "x;y"},
        {"image": "../b.jpg", "text": "known cat", "id": "0012", "tags": ""},
        {"image": "/c.jpg", "text": "known cow", "id": "", "tags": "z"},
    )

    @pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
    def test_manifest(self, tmp_path, kind):
        path = tmp_path / f"data.{kind}"
        table = pd.DataFrame(self.ROWS)
        if kind == "csv":
            table.to_csv(path, index=False)
        elif kind == "jsonl":
            table.to_json(path, orient="records", lines=True)
        else:
            table.to_parquet(path)
        texts = Source(path, "text").items
        assert [item.content for item in texts] == ["a known dog", "known cat", "known cow"]
        # Whole numbers are kept; "0012" is a name, and without an id the content is.
        ids = [7, stable_id("text", "0012"), stable_id("text", "known cow")]
        assert [item.id for item in texts] == ids
        assert [item.tags for item in texts] == [("x", "y"), (), ("z",)]
        assert [item.row for item in texts] == ([2, 3, 4] if kind == "csv" else [1, 2, 3])
        images = Source(path, "image").items
        wanted = [str(tmp_path / "a.jpg"), str(tmp_path.parent / "b.jpg"), "/c.jpg"]
        assert [item.content for item in images] == wanted

    def test_labels_serve_as_tags(self, tmp_path):
        (tmp_path / "m.csv").write_text("text,labels\nknown,a;b\n")
        assert Source(tmp_path / "m.csv", "text").items[0].tags == ("a", "b")

    def test_rows_that_repeat(self, tmp_path):
        (tmp_path / "m.csv").write_text("text,tags\nred,a\nblue,b\nred,c\nred,a\n")
        source = Source(tmp_path / "m.csv", "text")
        assert [(item.content, item.tags) for item in source.items] == [
            ("red", ("a", "c")), ("blue", ("b",)),
        ]  # fmt: skip
        assert source.notes == ["2 rows that repeat another were taken together with it"]

    @pytest.mark.parametrize("parts", [2, 3])
    def test_shards_share_everything(self, album, parts):
        whole = Source(album, "image").items
        shards = [Source(album, "image", (i, parts)).items for i in range(parts)]
        assert sorted(itertools.chain(*shards)) == sorted(whole)
        assert all(shards)
        # A new picture moves no other one to another machine.
        picture(album / "a" / "new.jpg", 99)
        again = [Source(album, "image", (i, parts)).items for i in range(parts)]
        for old, new in zip(shards, again):
            assert set(old) <= set(new)

    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            ("id,text\n5,red\n5,blue\n", "row 3: its id 5 is that of row 2 already"),
            ("id,text\n5,\n", "row 2: text is empty"),
            ("id,words\n5,red\n", "row 2 has no column text .it has id, words."),
            ("text\n", "has no texts"),
            ("id,text\n9223372036854775808,red\n", "row 2: id 9223372036854775808 is too large"),
            ("id,text\n1,a,b\n", "row 2 has another number of fields"),
        ],
    )
    def test_bad_rows(self, tmp_path, rows, message):
        (tmp_path / "m.csv").write_text(rows)
        with pytest.raises(ValueError, match=message):
            Source(tmp_path / "m.csv", "text")

    def test_bad_sources(self, tmp_path):
        with pytest.raises(ValueError, match="expected a folder or a manifest"):
            Source(tmp_path / "nowhere", "image")
        with pytest.raises(ValueError, match="expected a manifest"):
            Source(tmp_path, "text")
        (tmp_path / "notes.txt").write_text("words")
        with pytest.raises(ValueError, match=r"has no pictures \(1 files that are hidden"):
            Source(tmp_path, "image")
        with pytest.raises(ValueError, match="is not a .csv, .parquet or .jsonl file"):
            Source(tmp_path / "notes.txt", "text")


class TestContent:
    def test_codes_and_items(self, album, tmp_path):
        encoder = HashEncoder()
        done = run(album, tmp_path / "codes", encoder)
        assert (done.encoded, done.known, done.gone, done.count) == (21, 0, 0, 21)
        items = Source(album, "image").items
        files = [image_bytes(item.content) for item in items]
        expected = [
            HashEncoder().encode(files[i : i + 4], 4) for i in range(0, 21, 4)
        ]  # the batches of the source's order
        folder = CodeFolder(tmp_path / "codes")
        np.testing.assert_array_equal(folder.codes, np.concatenate(expected))
        np.testing.assert_array_equal(np.load(tmp_path / "codes" / "codes.npy"), folder.codes)
        assert folder.items().schema.equals(SCHEMA)
        for row, item, file in zip(folder.items().to_pylist(), items, files):
            assert row == {
                "id": item.id, "modality": "image", "path": item.content, "text": None,
                "size": len(file), "sha256": hashlib.sha256(file).digest(), "tags": [],
            }  # fmt: skip

    def test_texts(self, tmp_path):
        (tmp_path / "m.csv").write_text("text,tags\nknown  dog,a\nknown cät,\n")
        run(tmp_path / "m.csv", tmp_path / "codes")
        rows = CodeFolder(tmp_path / "codes").items().to_pylist()
        assert [row["text"] for row in rows] == ["known dog", "known cät"]
        assert [row["size"] for row in rows] == [9, 10]
        assert rows[1]["sha256"] == hashlib.sha256("known cät".encode()).digest()
        assert [row["tags"] for row in rows] == [["a"], []]

    def test_reading_runs_ahead_by_a_bounded_number(self):
        """However long the source is, only so many items are in memory."""
        from concurrent.futures import ThreadPoolExecutor

        running, most, lock = 0, 0, threading.Lock()

        def taken():
            nonlocal running, most
            for i in range(200):
                with lock:
                    running += 1
                    most = max(most, running)
                yield i

        with ThreadPoolExecutor(4) as pool:
            found = []
            for value in _ahead(pool, lambda x: x * x, taken(), 10):
                found.append(value)
                with lock:
                    running -= 1
        assert found == [i * i for i in range(200)]
        assert most <= 11

    def test_encoding_and_writing_overlap(self, album, tmp_path):
        """While a part is written, the encoders are at work."""
        source = Source(album, "image")
        writer = CodeWriter(tmp_path / "codes", 64, "abc", "image", source.path)
        encoder, spans = HashEncoder(), {"encode": [], "write": []}

        def timed(kind, function, seconds):
            def call(*arguments):
                start = time.perf_counter()
                time.sleep(seconds)
                result = function(*arguments)
                spans[kind].append((start, time.perf_counter()))
                return result

            return call

        encoder.encode = timed("encode", encoder.encode, 0.05)
        writer.write_part = timed("write", writer.write_part, 0.05)
        encode_source(source, encoder, writer, 4, 4)
        overlaps = sum(a < d and c < b for a, b in spans["write"] for c, d in spans["encode"])
        assert overlaps >= 3
        together = sum(
            a < d and c < b
            for (a, b), (c, d) in itertools.combinations(spans["encode"], 2)
        )
        assert together >= 2


class TestResumed:
    @pytest.fixture
    def whole(self, album, tmp_path):
        run(album, tmp_path / "whole")
        return tmp_path / "whole"

    def test_killed_at_file_operations(self, album, whole, killed, tmp_path):
        """Every third operation in the folder of codes is a point: parts, merge and moves."""
        out, points = tmp_path / "codes", 0
        for point in itertools.count(1, 3):
            shutil.rmtree(out, ignore_errors=True)
            if not killed(out, point, lambda: run(album, out)):
                break
            points += 1
            run(album, out)
            assert_same(out, whole)
        assert points >= 20

    def test_killed_again_and_again(self, album, whole, killed, tmp_path):
        """One folder, killed at a point that grows: it gets through in the end."""
        out = tmp_path / "codes"
        rng = np.random.default_rng(5)
        for _ in range(20):
            killed(out, int(rng.integers(1, 40)), lambda: run(album, out))
        run(album, out)
        assert_same(out, whole)

    @pytest.mark.parametrize(
        ("end", "part_size"), [(RuntimeError, 8), (KeyboardInterrupt, 2048)]
    )
    def test_nothing_is_encoded_twice(self, album, whole, tmp_path, end, part_size):
        """What ends in the fourth batch costs that one, however large parts may be."""
        fourth = Path(Source(album, "image").items[12].content).read_bytes()

        class Dying(HashEncoder):
            def encode(self, items, batch_size):
                if fourth in items:
                    raise end
                return super().encode(items, batch_size)

        out, first, second = tmp_path / "codes", Dying(), HashEncoder()
        with pytest.raises(end):
            run(album, out, first, part_size=part_size)
        with pytest.raises(ValueError, match="its encoding has not ended"):
            CodeFolder(out)
        done = run(album, out, second, part_size=part_size)
        assert done.known == 12
        assert len(second.encoded) == done.encoded == 9
        assert_same(out, whole)

    def test_a_write_that_fails_is_not_tried_again(self, album, tmp_path, monkeypatch):
        tried = []

        def fail(self, rows):
            tried.append(len(rows))
            raise OSError("disk full")

        monkeypatch.setattr(CodeWriter, "write_part", fail)
        with pytest.raises(OSError, match="disk full"):
            run(album, tmp_path / "codes")
        assert tried == [8]

    def test_parts_are_written_in_time(self, album, whole, tmp_path, monkeypatch):
        """A slow encoder does not fill a part for long: then the batches so far are one."""
        written, write_part = [], CodeWriter.write_part

        def write(self, rows):
            written.append(len(rows))
            write_part(self, rows)

        monkeypatch.setattr(CodeWriter, "write_part", write)
        monkeypatch.setattr(encoding, "_PART_SECONDS", 0)
        run(album, tmp_path / "codes", part_size=2048)
        assert written == [4, 4, 4, 4, 4, 1]
        assert_same(tmp_path / "codes", whole)

    def test_a_finished_run_changes_nothing(self, album, whole):
        before = {p: p.read_bytes() for p in whole.iterdir()}
        encoder = HashEncoder()
        done = run(album, whole, encoder)
        assert (done.encoded, done.known, done.count) == (0, 21, 21)
        assert not encoder.encoded
        assert {p: p.read_bytes() for p in whole.iterdir()} == before

    def test_what_changed_is_encoded(self, album, whole):
        before = CodeFolder(whole).items().to_pylist()
        codes = dict(zip((row["path"] for row in before), np.array(CodeFolder(whole).codes)))
        picture(album / "a" / "new.jpg", 50)
        changed = picture(album / "a" / "02.jpg", 51)
        os.utime(changed, ns=(1, 1))
        (album / "b" / "03.jpg").unlink()
        encoder = HashEncoder()
        done = run(album, whole, encoder)
        assert (done.encoded, done.known, done.gone, done.count) == (2, 19, 1, 21)
        after = CodeFolder(whole)
        paths = [row["path"] for row in after.items().to_pylist()]
        wanted = {str(p) for p in album.rglob("[!.]*.jpg") if ".cache" not in str(p)}
        assert set(paths) == wanted
        for path, row, code in zip(paths, after.items().to_pylist(), after.codes):
            assert row["sha256"] == hashlib.sha256(Path(path).read_bytes()).digest()
            if path not in (str(changed), str(album / "a" / "new.jpg")):
                np.testing.assert_array_equal(code, codes[path])
        fresh = HashEncoder().encode([changed.read_bytes(), (album / "a/new.jpg").read_bytes()], 2)
        now = dict(zip(paths, after.codes))
        np.testing.assert_array_equal(now[str(changed)], fresh[0])

    def test_other_tags_are_taken_up(self, tmp_path):
        for tags in ("a", "b"):
            (tmp_path / "m.csv").write_text(f"text,tags\nknown,{tags}\n")
            run(tmp_path / "m.csv", tmp_path / "codes")
        assert CodeFolder(tmp_path / "codes").items()["tags"].to_pylist() == [["b"]]

    @pytest.mark.parametrize("finished", [True, False])
    def test_other_codes_are_refused(self, album, whole, finished):
        if not finished:
            (whole / "codes.json").unlink()
            (whole / ".parts").mkdir()
            about = {"bits": 64, "fingerprint": "abc", "modality": "image",
                     "source": str(album), "shard": [0, 1]}  # fmt: skip
            (whole / ".parts" / "about.json").write_text(json.dumps(about))
        with pytest.raises(ValueError, match="codes of another fingerprint: abc, now it is xyz"):
            run(album, whole, fingerprint="xyz")
        with pytest.raises(ValueError, match="codes of another source"):
            run(album / "a", whole)
        with pytest.raises(ValueError, match="codes of another shard"):
            run(album, whole, shard=(0, 2))
        run(album / "a", whole, fingerprint="xyz", overwrite=True)
        assert len(CodeFolder(whole)) == 11
        assert CodeFolder(whole).fingerprint == "xyz"

    def test_one_writer(self, album, whole):
        writer = CodeWriter(whole, 64, "abc", "image", album)
        with pytest.raises(ValueError, match="being written by another process"):
            run(album, whole)
        del writer


class TestBad:
    @pytest.fixture
    def broken(self, album):
        """Three bad files among the good ones."""
        (album / "a" / "04.jpg").write_bytes((album / "a" / "04.jpg").read_bytes()[:200])
        (album / "b" / "05.jpg").write_bytes(b"")
        (album / "b" / "07.jpg").write_text("no picture at all")
        return album

    def test_refused(self, broken, tmp_path):
        with pytest.raises(ValueError, match="04.jpg is truncated"):
            run(broken, tmp_path / "codes")

    def test_skipped_and_listed(self, broken, tmp_path):
        done = run(broken, tmp_path / "codes", on_bad="skip")
        assert (done.encoded, done.count, len(done.skipped)) == (18, 18, 3)
        names = [Path(entry["item"]).name for entry in done.skipped]
        assert names == ["04.jpg", "05.jpg", "07.jpg"]
        problems = [entry["problem"] for entry in done.skipped]
        for problem, part in zip(problems, ("truncated", "is empty", "is no JPEG")):
            assert part in problem
        assert CodeFolder(tmp_path / "codes").skipped == done.skipped

    def test_what_came_before_a_bad_one_is_kept(self, album, tmp_path):
        last = Path(Source(album, "image").items[-1].content)
        last.write_text("no picture at all")
        with pytest.raises(ValueError, match=f"{last.name} is no JPEG"):
            run(album, tmp_path / "codes", batch_size=8, part_size=2048)
        second = HashEncoder()
        done = run(album, tmp_path / "codes", second, batch_size=8, part_size=2048, on_bad="skip")
        assert (done.known, done.encoded, len(done.skipped)) == (16, 4, 1)
        assert len(second.encoded) == 4
        run(album, tmp_path / "whole", batch_size=8, on_bad="skip")
        assert_same(tmp_path / "codes", tmp_path / "whole")

    def test_what_is_no_regular_file(self, album, tmp_path):
        """A pipe that nobody writes to would never be read to its end."""
        os.mkfifo(album / "a" / "pipe.jpg")
        with pytest.raises(ValueError, match=r"pipe.jpg is no regular file; .*on_bad_image=skip"):
            run(album, tmp_path / "codes")
        done = run(album, tmp_path / "codes", on_bad="skip")
        assert (done.count, len(done.skipped)) == (21, 1)

    def test_a_bomb(self, album, tmp_path):
        (album / "a" / "bomb.png").write_bytes(png_header(15_000, 15_000))
        encoder = HashEncoder()
        done = run(album, tmp_path / "codes", encoder, on_bad="skip")
        assert "bomb.png is too large" in done.skipped[0]["problem"]
        assert len(encoder.encoded) == done.count == 21

    def test_good_neighbours_are_encoded_as_a_batch_without_the_bad(self, broken, tmp_path):
        run(broken, tmp_path / "codes", on_bad="skip")
        folder = CodeFolder(tmp_path / "codes")
        batch = [broken / "a" / f"{i:02}.jpg" for i in (0, 2, 6)]
        expected = HashEncoder().encode([path.read_bytes() for path in batch], 3)
        np.testing.assert_array_equal(folder.codes[:3], expected)

    def test_repaired_ones_are_encoded_by_the_next_run(self, broken, tmp_path):
        run(broken, tmp_path / "codes", on_bad="skip")
        picture(broken / "b" / "05.jpg", 5)
        done = run(broken, tmp_path / "codes", on_bad="skip")
        assert (done.encoded, done.known, done.count, len(done.skipped)) == (1, 18, 19, 2)

    def test_names_lie(self, album, tmp_path):
        """WebP and BMP that are called .jpg, and one that only Pillow reads."""
        for name, kind in (("w.jpg", "WEBP"), ("p.jpg", "BMP")):
            picture(album / "a" / name, 3, format=kind)
        picture(album / "a" / "c.jpg", 4, comment=b"only Pillow")
        encoder = HashEncoder()
        done = run(album, tmp_path / "codes", encoder)
        assert done.count == 24
        assert all(x.startswith((b"\xff\xd8\xff", b"\x89PNG")) for x in encoder.encoded)

    def test_a_name_that_is_no_utf8(self, album, tmp_path):
        name = os.fsencode(album) + b"/a/\xff.jpg"
        shutil.copy(album / "a" / "00.jpg", name)
        with pytest.raises(ValueError, match="a name that is not UTF-8; rename it"):
            run(album, tmp_path / "codes")
        done = run(album, tmp_path / "codes", on_bad="skip")
        assert (done.count, len(done.skipped)) == (21, 1)

    def test_a_picture_of_a_manifest_that_does_not_exist(self, album, tmp_path):
        (album / "m.csv").write_text("image\na/00.jpg\na/gone.jpg\n")
        source = Source(album / "m.csv", "image")
        writer = CodeWriter(tmp_path / "codes", 64, "abc", "image", source.path)
        with pytest.raises(ValueError, match="m.csv row 3: image .*gone.jpg does not exist; "):
            encode_source(source, HashEncoder(), writer)

    def test_texts_without_a_known_word(self, tmp_path):
        (tmp_path / "m.csv").write_text("text\nknown dog\nxyzzy\n")
        with pytest.raises(ValueError, match="row 3: text 'xyzzy' has no word of the vocabulary"):
            run(tmp_path / "m.csv", tmp_path / "codes")
        done = run(tmp_path / "m.csv", tmp_path / "codes", on_bad="skip")
        assert (done.count, [s["item"] for s in done.skipped]) == (1, ["xyzzy"])

    def test_sizes(self, album, tmp_path):
        for options in ({"batch_size": 8, "part_size": 4}, {"batch_size": -1}):
            with pytest.raises(ValueError, match="no smaller part than batch"):
                run(album, tmp_path / "codes", **options)
        with pytest.raises(ValueError, match="on_bad is 'guess'"):
            run(album, tmp_path / "codes", on_bad="guess")

    @pytest.mark.parametrize("name", ["codes.npy", "items.parquet", "codes.json"])
    @pytest.mark.parametrize("damage", ["missing", "truncated", "altered"])
    def test_damaged_codes(self, album, tmp_path, name, damage):
        run(album, tmp_path / "codes")
        path = tmp_path / "codes" / name
        data = bytearray(path.read_bytes())
        if damage == "missing":
            path.unlink()
        else:
            if name == "codes.json":
                data = data.replace(b'"format": 1', b'"format": 9')
            data[len(data) // 2] ^= 1
            path.write_bytes(data[: len(data) // 2] if damage == "truncated" else data)
        with pytest.raises(ValueError, match="encode again with scripts/encode.py"):
            CodeFolder(tmp_path / "codes")


# Runs a program until its bar of that name stands at a number, where SIGKILL ends it.
KILLER = """
import os, runpy, signal, sys
from tqdm import tqdm

point, *sys.argv = sys.argv[1:]
update = tqdm.update

def update_and_die(self, n=1):
    update(self, n)
    if self.desc.startswith("encoding") and self.n >= int(point):
        os.kill(os.getpid(), signal.SIGKILL)

tqdm.update = update_and_die
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


class TestProgram:
    @pytest.fixture(scope="class")
    def encoded(self, program, exported, scenes_dir, tmp_path_factory):
        out = tmp_path_factory.mktemp("codes") / "images"
        outcome = program("encode", f"--export_dir={exported}", f"--images={scenes_dir}/images",
                          f"--out={out}", "--batch_size=16", "--part_size=48")  # fmt: skip
        assert outcome.code == 0, outcome.err
        return out, outcome

    def test_pictures(self, encoded, exported, scenes_dir):
        from dsprh_tf.serving.encoder import Encoder

        out, said = encoded
        folder = CodeFolder(out)
        paths = sorted(str(path) for path in (scenes_dir / "images").iterdir())
        assert folder.items()["path"].to_pylist() == paths
        encoder = Encoder(exported, "image")
        expected = encoder.encode([Path(path).read_bytes() for path in paths], 16)
        np.testing.assert_array_equal(folder.codes, expected)
        assert folder.fingerprint == encoder.info["fingerprint"]
        assert "encoded 120 images in" in said.out
        assert f"codes: {out} (120 of 16 bits)" in said.out
        assert "encoding: 100%" in said.err

    def test_texts(self, program, exported, scenes_dir, tmp_path):
        from dsprh_tf.serving.encoder import Encoder

        manifest = scenes_dir / "manifest.csv"
        outcome = program("encode", f"--export_dir={exported}", f"--texts={manifest}",
                          f"--out={tmp_path}", "--on_bad_text=skip")  # fmt: skip
        assert outcome.code == 0, outcome.err
        with open(manifest, newline="", encoding="utf-8") as file:
            texts = [" ".join(row["text"].split()) for row in csv.DictReader(file)]
        texts = list(dict.fromkeys(texts))
        folder = CodeFolder(tmp_path)
        kept = folder.items()["text"].to_pylist()
        encoder = Encoder(exported, "text")
        assert kept == [t for t, known in zip(texts, encoder.known_words(texts)) if known]
        np.testing.assert_array_equal(folder.codes, encoder.encode(kept, 512))
        assert all(folder.items()["tags"].to_pylist())

    def test_killed_and_started_again(self, encoded, program, exported, scenes_dir, tmp_path):
        out = tmp_path / "codes"
        flags = [f"--export_dir={exported}", f"--images={scenes_dir}/images", f"--out={out}",
                 "--batch_size=16", "--part_size=48"]  # fmt: skip
        script = str(SCRIPTS / "encode.py")
        command = [sys.executable, "-c", KILLER, "80", script, *flags]
        ended = subprocess.run(command, capture_output=True, text=True, errors="replace")
        assert ended.returncode == -signal.SIGKILL, ended.stderr[-2000:]
        outcome = program("encode", *flags)
        assert outcome.code == 0, outcome.err
        assert "48 were done before" in outcome.out
        assert_same(out, encoded[0])

    def test_broken_pictures(self, program, exported, encoded, scenes_dir, tmp_path):
        folder = tmp_path / "images"
        shutil.copytree(scenes_dir / "images", folder)
        first, second, *_ = sorted(folder.iterdir())
        first.write_bytes(first.read_bytes()[:1000])
        picture(second, 1, format="WEBP")
        flags = ["encode", f"--export_dir={exported}", f"--images={folder}",
                 f"--out={tmp_path}/codes", "--batch_size=16", "--part_size=48"]  # fmt: skip
        line = program(*flags).line
        assert line.startswith("encode: image ")
        assert f"{first} is truncated" in line
        outcome = program(*flags, "--on_bad_image=skip")
        assert outcome.code == 0, outcome.err
        assert "1 skipped, all listed in" in outcome.out
        assert f"{first} is truncated" in outcome.out
        codes = CodeFolder(tmp_path / "codes").codes
        np.testing.assert_array_equal(codes[15:], CodeFolder(encoded[0]).codes[16:])
        assert len(codes) == 119

    @pytest.mark.parametrize(
        ("flags", "message"),
        [
            ([], "needs --out=FOLDER, and either --images=FOLDER or --texts=MANIFEST"),
            (["--images=a", "--texts=b", "--out=c"], "either --images=FOLDER or --texts"),
            (["--images=a", "--out=c", "--shard=2/2"], "--shard=2/2, expected i/n with 0 <= i < n"),
            (["--images=a", "--out=c", "--shard=1"], "--shard=1, expected i/n"),
            (["--images=a", "--out=c"], "needs --export_dir=FOLDER"),
            (["--images=a", "--out=c", "--export_dir=gone"], "no exported image encoder in gone"),
            (["build"], "got 'build', expected only --flag=value"),
        ],
    )
    def test_flags(self, program, flags, message):
        line = program("encode", *flags).line
        assert line.startswith("encode: ")
        assert message in line

    def test_other_encoders(self, program, exported, scenes_dir, encoded, tmp_path):
        shutil.copytree(exported, tmp_path / "export")
        (path,) = (tmp_path / "export" / "image_encoder").glob("*/assets.extra/encoder.json")
        path.write_text(path.read_text().replace('"fingerprint": "', '"fingerprint": "0'))
        shutil.copytree(encoded[0], tmp_path / "codes")
        outcome = program("encode", f"--export_dir={tmp_path}/export",
                          f"--images={scenes_dir}/images", f"--out={tmp_path}/codes")  # fmt: skip
        assert "holds codes of another fingerprint" in outcome.line
