"""Encoding of folders and manifests: what is read, resumed, skipped, and refused."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from helpers import png_header
from index_helpers import HashEncoder, assert_same_folders, write_album, write_image
from PIL import Image

from dsprh_tf.data.images import image_bytes
from dsprh_tf.index import encode_collection
from dsprh_tf.index.code_folder import CodeFolder, CodeWriter
from dsprh_tf.index.encode_collection import _ahead, encode_source
from dsprh_tf.index.items import SCHEMA
from dsprh_tf.index.sources import Source


@pytest.fixture
def album(tmp_path) -> Path:
    """21 images in two folders, and files that are none."""
    return write_album(tmp_path / "album")


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
        encoder, numbers = HashEncoder(), itertools.count()
        both, writing, encoding = threading.Barrier(2), threading.Event(), threading.Event()
        encode, write_part = encoder.encode, writer.write_part

        def encode_with_another(*arguments):
            if next(numbers) < 2:
                both.wait(10)  # raises if the other encoder does not come
            else:
                assert writing.wait(10)
                encoding.set()
            return encode(*arguments)

        def write_while_encoding(*arguments):
            writing.set()
            assert encoding.wait(10)
            return write_part(*arguments)

        encoder.encode, writer.write_part = encode_with_another, write_while_encoding
        encode_source(source, encoder, writer, 4, 4)
        assert next(numbers) > 2


class TestResumed:
    @pytest.fixture
    def whole(self, album, tmp_path):
        run(album, tmp_path / "whole")
        return tmp_path / "whole"

    def test_killed_at_file_operations(self, album, whole, killed, tmp_path):
        """Every change of the folder of codes is a point: parts, merge and moves."""
        out, points = tmp_path / "codes", 0
        for point in itertools.count(1):
            shutil.rmtree(out, ignore_errors=True)
            if not killed(out, point, lambda: run(album, out)):
                break
            points += 1
            run(album, out)
            assert_same_folders(out, whole)
        assert points >= 20

    def test_killed_again_and_again(self, album, whole, killed, tmp_path):
        """One folder, killed at a point that grows: it gets through in the end."""
        out = tmp_path / "codes"
        rng = np.random.default_rng(5)
        for _ in range(20):
            killed(out, int(rng.integers(1, 15)), lambda: run(album, out))
        run(album, out)
        assert_same_folders(out, whole)

    @pytest.mark.parametrize(("end", "part_size"), [(RuntimeError, 8), (KeyboardInterrupt, 2048)])
    def test_nothing_is_encoded_twice(self, album, whole, tmp_path, end, part_size):
        """What ends in the fourth batch costs that one, however large parts may be."""
        fourth = Path(Source(album, "image").items[12].content).read_bytes()

        class Dying(HashEncoder):
            def encode(self, items, batch_size, unknown="error"):
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
        assert_same_folders(out, whole)

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
        monkeypatch.setattr(encode_collection, "_PART_SECONDS", 0)
        run(album, tmp_path / "codes", part_size=2048)
        assert written == [4, 4, 4, 4, 4, 1]
        assert_same_folders(tmp_path / "codes", whole)

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
        write_image(album / "a" / "new.jpg", 50)
        changed = write_image(album / "a" / "02.jpg", 51)
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


class TestImages:
    class Complaining(HashEncoder):
        """As libjpeg does within TensorFlow: it says nothing of the file."""

        def encode(self, items, batch_size, unknown="error"):
            for item in items:
                if b"damaged" in item:
                    os.write(2, b"Corrupt JPEG data: premature end of data segment\n")
            return super().encode(items, batch_size)

    def test_damaged_ones_are_named_and_the_decoders_own_lines_are_not_shown(
        self, album, tmp_path, capfd
    ):
        paths = [album / "a" / "03.jpg", album / "b" / "16.jpg"]
        for number, path in enumerate(paths):
            write_image(path, number, comment=b"damaged")
        done = run(album, tmp_path / "codes", self.Complaining())
        assert done.damaged == tuple(
            f"image {path}: Corrupt JPEG data: premature end of data segment" for path in paths
        )
        assert (done.count, done.skipped) == (23, [])
        assert "Corrupt" not in capfd.readouterr().err
        run(album, tmp_path / "plain")  # codes are those of whole batches
        assert_same_folders(tmp_path / "codes", tmp_path / "plain")

    def test_not_all_of_many_damaged_ones_are_named(self, album, tmp_path, monkeypatch):
        for i in range(9):
            write_image(album / "c" / f"{i}.jpg", i, comment=b"damaged")
        monkeypatch.setattr(encode_collection, "_NAMED", 5)
        done = run(album, tmp_path / "codes", self.Complaining())
        assert (len(done.damaged), done.count) == (5, 30)

    def test_kinds_of_phones_and_animations(self, album, tmp_path):
        pytest.importorskip("pillow_heif").register_heif_opener()
        for kind in ("HEIF", "AVIF", "GIF", "WEBP", "TIFF", "PNG"):
            several = {"save_all": True, "append_images": [Image.new("RGB", (9, 9), "red")]}
            options = {} if kind == "HEIF" else several
            image = Image.new("RGB", (9, 9), "blue")
            image.save(album / "a" / f"x.{kind[:4].lower()}", kind, **options)
        shutil.copy(album / "a" / "00.jpg", album / "a" / "y.jfif")
        encoder = HashEncoder()
        done = run(album, tmp_path / "codes", encoder)
        assert (done.count, done.several) == (28, 5)
        assert all(x.startswith((b"\xff\xd8\xff", b"\x89PNG")) for x in encoder.encoded)

    def test_links(self, album, tmp_path):
        """One that leads nowhere is a bad image; one to an image is an image."""
        (album / "a" / "there.jpg").symlink_to(album / "a" / "00.jpg")
        (album / "a" / "nowhere.jpg").symlink_to(tmp_path / "gone.jpg")
        line = r"nowhere.jpg is a link to a file that does not exist; .*--on_bad_image=skip"
        with pytest.raises(ValueError, match=line):
            run(album, tmp_path / "codes")
        done = run(album, tmp_path / "codes", on_bad="skip")
        assert (done.count, len(done.skipped)) == (22, 1)

    def test_a_jpeg_without_its_end_marker(self, album, tmp_path):
        """Old exports do not read it: they are handed its pixels."""
        path, encoder = album / "a" / "00.jpg", HashEncoder()
        path.write_bytes(path.read_bytes()[:-2])
        done = run(album, tmp_path / "codes", encoder)
        assert (done.count, sum(x.startswith(b"\x89PNG") for x in encoder.encoded)) == (21, 1)
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(ValueError, match="00.jpg is truncated"):
            run(album, tmp_path / "other")


class TestBad:
    @pytest.fixture
    def broken(self, album):
        """Three bad files among the good ones."""
        (album / "a" / "04.jpg").write_bytes((album / "a" / "04.jpg").read_bytes()[:200])
        (album / "b" / "05.jpg").write_bytes(b"")
        (album / "b" / "07.jpg").write_text("no image at all")
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
        last.write_text("no image at all")
        with pytest.raises(ValueError, match=f"{last.name} is no JPEG"):
            run(album, tmp_path / "codes", batch_size=8, part_size=2048)
        second = HashEncoder()
        done = run(album, tmp_path / "codes", second, batch_size=8, part_size=2048, on_bad="skip")
        assert (done.known, done.encoded, len(done.skipped)) == (16, 4, 1)
        assert len(second.encoded) == 4
        run(album, tmp_path / "whole", batch_size=8, on_bad="skip")
        assert_same_folders(tmp_path / "codes", tmp_path / "whole")

    def test_what_is_no_regular_file(self, album, tmp_path):
        """A pipe that nobody writes to would never be read to its end."""
        os.mkfifo(album / "a" / "pipe.jpg")
        with pytest.raises(ValueError, match=r"pipe.jpg is not a .* file; .*on_bad_image=skip"):
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
        write_image(broken / "b" / "05.jpg", 5)
        done = run(broken, tmp_path / "codes", on_bad="skip")
        assert (done.encoded, done.known, done.count, len(done.skipped)) == (1, 18, 19, 2)

    def test_names_lie(self, album, tmp_path):
        """WebP and BMP that are called .jpg, and one that only Pillow reads."""
        for name, kind in (("w.jpg", "WEBP"), ("p.jpg", "BMP")):
            write_image(album / "a" / name, 3, format=kind)
        write_image(album / "a" / "c.jpg", 4, comment=b"only Pillow")
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

    def test_an_image_of_a_manifest_that_does_not_exist(self, album, tmp_path):
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
            with pytest.raises(ValueError, match="part_size is .*no smaller than a batch"):
                run(album, tmp_path / "codes", **options)
        with pytest.raises(ValueError, match="on_bad is 'guess'"):
            run(album, tmp_path / "codes", on_bad="guess")
