"""Reading of manifests and what their columns stand for; kinds of files are in test_pairs_kinds."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from helpers import ROOT
from pyarrow import parquet

from dsprh_tf.data import columns
from dsprh_tf.data.files import read_json, require_regular, text_encoding
from dsprh_tf.data.manifest import Manifest

WANTED = {
    "image": columns.IMAGE,
    "text": columns.TEXT,
    "labels": columns.LABELS,
    "split": columns.SPLIT,
    "id": columns.IMAGE_ID,
}


def find(*names):
    return columns.find_columns(Path("m.csv"), names, WANTED)


def rows_of(path, content, wanted=None):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    manifest = Manifest(path, wanted or {"id": ("id",), "text": ("text",)})
    return [(row, tuple(record.values())) for row, record in manifest.rows()], manifest.notes


class TestColumns:
    @pytest.mark.parametrize(
        ("names", "found"),
        [
            ("image text labels split id", "image text labels split id"),
            ("IMAGE Text ", "IMAGE Text"),
            ("file_name caption", "file_name caption"),
            ("fileName Captions categories", "fileName Captions categories"),
            ("filepath title label image_id", "filepath title label . image_id"),
            ("image_name comment_number comment", "image_name comment"),
            ("img_path sentence class", "img_path sentence class"),
            ("path filename description tags", "path description tags"),
            ("image tags", "image tags"),
            ("image text keywords", "image text keywords"),
            ("image text label labels", "image text labels"),
            ("image path text caption", "image text"),
            ("filename raw sentids split imgid", "filename raw . split imgid"),
            ("image text category_id", "image text category_id"),
            ("x y", ""),
        ],
    )
    def test_names(self, names, found):
        expected = dict(zip(WANTED, found.split()))
        of = {role: name for role, (name,) in find(*names.split(" ")).of.items()}
        assert {role: name.strip() for role, name in of.items()} == {
            role: name for role, name in expected.items() if name != "."
        }

    def test_numbered_texts_and_columns_of_flags(self):
        of = find("image", "caption1", "caption2", "label_dog", "Label: cat", "label_id").of
        assert of["text"] == ("caption1", "caption2")
        assert of["labels"] == ("label_id",)
        of = find("image", "text", "class_dog", "class_cat").of
        assert of["labels"] == ("class_dog", "class_cat")
        assert [columns.label_of(name) for name in ("label_dog", " Label_Hot Dog")] == [
            "dog", "Hot Dog",
        ]  # fmt: skip
        assert "labels" not in find("image", "text", "label_dog").of

    def test_what_is_said(self):
        assert find("image", "text", "labels", "split", "id", "Unnamed: 0", "").notes == []
        assert find("file_name", "text", "width", "height").notes == [
            "image from the column file_name",
            "not read: the column width, height",
        ]
        (note,) = find("image", "text", *(f"column {i}\n{'x' * 99}" for i in range(50))).notes
        assert note.endswith("and 38 more")
        assert "\n" not in note

    @pytest.mark.parametrize(
        "names", [("image", "Image "), ("text", "TEXT"), ("a", "a"), ("image", "text", "x", "x")]
    )
    def test_a_column_twice(self, names):
        with pytest.raises(ValueError, match="m.csv has the columns .* expected different names"):
            find(*names)

    @pytest.mark.parametrize(
        "names",
        [("file_name", "filename"), ("image_path", "Image Path"), ("label_name", "LabelName")],
    )
    def test_two_spellings_of_one_name(self, names):
        with pytest.raises(ValueError, match="which stand for the same; rename the right one to"):
            find(*names)


class TestRows:
    def test_rows_are_counted_as_an_editor_does(self, tmp_path):
        content = '\nid,text\n\n1,a\n2,"b\nc"\n,\n\n3,d\n'
        rows, notes = rows_of(tmp_path / "m.csv", content)
        assert rows == [(4, ("1", "a")), (5, ("2", "b\nc")), (9, ("3", "d"))]
        assert notes == [
            "1 rows have line breaks in a field",
            "1 rows without any value were passed over",
        ]
        rows, _ = rows_of(tmp_path / "m.jsonl", '{"id": 1}\n\n{"text": "a"}\n')
        assert rows == [(1, (1, "")), (3, ("", "a"))]
        parquet.write_table(
            pa.table({"id": range(3000), "text": ["x"] * 3000}), tmp_path / "m.parquet"
        )
        manifest = Manifest(tmp_path / "m.parquet", {"id": ("id",)})
        assert [(row - 1, record["id"]) for row, record in manifest.rows()] == [
            (i, i) for i in range(3000)
        ]

    def test_reading_twice_says_the_same(self, tmp_path):
        (tmp_path / "m.csv").write_text('text;x\n"a\nb";\n;\n')
        manifest = Manifest(tmp_path / "m.csv", {"text": ("text",)})
        first = list(manifest.rows()), manifest.notes
        assert (list(manifest.rows()), manifest.notes) == first
        assert len(first[1]) == 4

    @pytest.mark.parametrize(
        ("content", "separator"),
        [
            ("text\na, b; c\n", None),
            ("text;\na;\n", ";"),
            ("sep=|\nid|text\n1|a\n", "|"),
            ('"sep=;"\nid;text\n1;a\n', ";"),
            ('"id","text"\n1,"a;b"\n', ","),
            ('"id";"text"\n1;"a,b"\n', ";"),
            ("id,text;x\n1,a\n", ","),
            ("a;b;text,c\n1;2;3\n", ";"),
        ],
    )
    def test_separators(self, tmp_path, content, separator):
        path = tmp_path / "m.csv"
        path.write_text(content)
        if separator is None:
            with pytest.raises(ValueError, match="row 2 has another number of fields"):
                list(Manifest(path, {"text": ("text",)}).rows())
            return
        manifest = Manifest(path, {"text": ("text", "textx", "textc")})
        assert manifest._reader.separator == separator

    def test_rows_before_any_header(self, tmp_path):
        with pytest.raises(ValueError, match="m.csv row 150: no row before names the columns"):
            rows_of(tmp_path / "m.csv", "\n" * 149 + "id,text\n")

    def test_a_quote_that_takes_in_rows_without_files_and_numbers(self, tmp_path):
        """Where no cell has a shape of its own, the number of separators decides."""
        with pytest.raises(ValueError, match="m.csv row 3: the quote that opens here takes in 2"):
            rows_of(tmp_path / "m.csv", 'id,text\na,b\nc,"d\ne,f\ng,h"\n')
        assert len(rows_of(tmp_path / "m.csv", 'id,text\na,b\nc,"d\ne\ng,h"\n')[0]) == 2
        assert len(rows_of(tmp_path / "m.csv", 'id,text\n7,b\n8,"d\ne,f\ng,h"\n')[0]) == 2
        with pytest.raises(ValueError, match="m.csv row 3"):
            rows_of(tmp_path / "m.csv", 'id,text\n7,b\n8,"d\n9,f\n10,h"\n')

    def test_the_row_of_a_quote_behind_a_genuine_one(self, tmp_path):
        content = 'id,text,more\n1,"a\nb","open\n2,c,d\n'
        with pytest.raises(ValueError, match="m.csv row 3: the quote that opens here is not"):
            rows_of(tmp_path / "m.csv", content)

    def test_a_long_line_of_json(self, tmp_path):
        with pytest.raises(ValueError, match="m.jsonl row 2 is longer than 16,777,216 characters"):
            rows_of(tmp_path / "m.jsonl", '{"text": "a"}\n{"text": "' + "x" * 2**24 + '"}\n')

    @pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet", "txt", "pdf"])
    def test_pipes_folders_and_missing_files(self, tmp_path, ending):
        path = tmp_path / f"m.{ending}"
        for make in (lambda: None, lambda: os.mkfifo(path)):
            make()
            with pytest.raises(ValueError, match="m.* (cannot be read|is a pipe|is not a .csv)"):
                Manifest(path, WANTED)
        path.unlink()
        path.mkdir()
        with pytest.raises(ValueError, match="m.* (is a folder|is not a .csv)"):
            Manifest(path, WANTED)


class TestParquet:
    def test_only_needed_columns_are_read(self, tmp_path, monkeypatch):
        names = ["text", "text.more", "when"]
        table = pa.table([["a"], ["b"], pa.array([10**15], pa.timestamp("s", "tz?"))], names)
        parquet.write_table(table, tmp_path / "m.parquet")
        manifest = Manifest(tmp_path / "m.parquet", {"text": ("text",)})
        assert [record for _, record in manifest.rows()] == [{"text": "a"}]

    def test_texts_are_right_across_batches_and_groups(self, tmp_path):
        texts = [None if i % 7 == 0 else f"text {i % 5000}" for i in range(20_000)]
        path = tmp_path / "m.parquet"
        parquet.write_table(pa.table({"text": texts}), path, row_group_size=3000)
        found = [record["text"] for _, record in Manifest(path, {"text": ("text",)}).rows()]
        assert found == [text or "" for text in texts]

    @pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()])
    def test_kinds_of_text(self, tmp_path, kind):
        try:
            parquet.write_table(
                pa.table({"text": pa.array(["a", None], kind)}), tmp_path / "m.parquet"
            )
        except pa.ArrowException:
            pytest.skip(f"this pyarrow cannot write {kind}")
        manifest = Manifest(tmp_path / "m.parquet", {"text": ("text",)})
        assert [record["text"] for _, record in manifest.rows()] == ["a", ""]

    def test_memory(self, tmp_path):
        """Texts of 1 MB (2 GB in all), and 200,000 equal rows: in files of kilobytes."""
        schema = pa.schema([("image", pa.string()), ("text", pa.string())])
        with parquet.ParquetWriter(
            tmp_path / "long.parquet", schema, use_dictionary=False, compression="zstd"
        ) as file:
            for _ in range(20):
                file.write_table(pa.table([["p.jpg"] * 100, ["x" * 10**6] * 100], schema=schema))
        many = pa.array(np.zeros(200_000, np.int32))
        table = pa.table({name: pa.array(["x.jpg"]).take(many) for name in schema.names})
        parquet.write_table(table, tmp_path / "many.parquet")
        code = (
            "import sys\n"
            "from dsprh_tf.data.pairs import load_pairs\n"
            "for name in ('long', 'many'):\n"
            "    try:\n"
            "        load_pairs(f'{sys.argv[1]}/{name}.parquet')\n"
            "    except ValueError as error:\n"
            "        print(error)\n"
            # Not ru_maxrss, which begins with the peak of the process that started this one.
            "status = open('/proc/self/status').read()\n"
            "print(int(status.split('VmHWM:')[1].split()[0]) // 1024)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)],
            capture_output=True, text=True, cwd=ROOT, check=True,
        )  # fmt: skip
        lines = done.stdout.splitlines()
        assert "text has a text of 1,000,000 bytes, expected at most 100,000" in lines[0]
        assert "many.parquet row 1: image" in lines[1] and "does not exist" in lines[1]
        assert int(lines[2]) < 1500, "MiB"  # a page of Parquet is 1,024 texts

    def test_images_are_written_once_and_beside_the_file(self, tmp_path):
        contents = [b"\xff\xd8\xff one", b"\x89PNG two", b"\xff\xd8\xff one", b"other"]
        path = tmp_path / "data" / "m.parquet"
        path.parent.mkdir()
        parquet.write_table(pa.table({"image": contents}), path)
        manifest = Manifest(path, {"image": columns.IMAGE})
        found = [record["image"] for _, record in manifest.rows()]
        assert [(path.parent / name).read_bytes() for name in found] == contents
        assert found[0] == f"m.parquet.images/{hashlib.sha256(contents[0]).hexdigest()[:32]}.jpg"
        assert [name.rpartition(".")[2] for name in found] == ["jpg", "png", "jpg", "bin"]
        written = {
            p.name: p.stat().st_mtime_ns for p in (path.parent / "m.parquet.images").iterdir()
        }
        assert len(written) == 3
        list(Manifest(path, {"image": columns.IMAGE}).rows())
        again = {p.name: p.stat().st_mtime_ns for p in (path.parent / "m.parquet.images").iterdir()}
        assert again == written
        # Texts alone need no images.
        parquet.write_table(
            pa.table({"image": contents, "text": list("abcd")}), tmp_path / "t.parquet"
        )
        list(Manifest(tmp_path / "t.parquet", {"text": columns.TEXT}).rows())
        assert not (tmp_path / "t.parquet.images").exists()

    def test_images_that_cannot_be_written(self, tmp_path):
        parquet.write_table(pa.table({"image": [b"x"]}), tmp_path / "m.parquet")
        (tmp_path / "m.parquet.images").write_text("a file")
        with pytest.raises(ValueError, match="m.parquet row 1: the image .* cannot be written to"):
            list(Manifest(tmp_path / "m.parquet", {"image": columns.IMAGE}).rows())


class TestEncodings:
    @pytest.mark.parametrize(
        ("text", "encoding", "found"),
        [
            ("a dog", "ascii", "utf-8"), ("Hündin", "utf-8", "utf-8"),
            ("Hündin", "utf-8-sig", "utf-8-sig"), ("Hündin", "utf-16", "utf-16"),
            ("Hündin", "utf-16-be", "utf-16-be"), ("Hündin", "utf-16-le", "utf-16-le"),
            ("собака", "utf-8", "utf-8"), ("Hündin", "utf-32", "utf-32"), ("", "utf-8", "utf-8"),
            ("Café crème", "latin-1", "cp1252"), ("l’été “x”", "cp1252", "cp1252"),
            ("créée, déçue, été", "latin-1", "cp1252"), ("ÄÖÜ, Öl, Übung", "cp1252", "cp1252"),
        ],
    )  # fmt: skip
    def test_found(self, tmp_path, text, encoding, found):
        path = tmp_path / "a.txt"
        path.write_bytes(f"{text}\nmore\n".encode(encoding) if text else b"")
        name, note = text_encoding(path)
        assert name == found
        assert (note is None) == (found.startswith("utf-8") or found == "utf-32")
        with open(path, encoding=name, newline="") as file:
            assert file.read() == (f"{text}\nmore\n" if text else "")

    @pytest.mark.parametrize(
        ("content", "row"),
        [
            ("a\nсобака".encode("cp1251"), 2), ("a\n狗在草地上".encode("gbk"), 2),
            ("a\n犬は草の上".encode("shift-jis"), 2), ("é".encode() * 5 + b"\n\xe9 \n", 2),
            (b"a\n\nb\0", 3), (b"\xff\xfea\0\n\0\0\xd8\n\0", 2), (b"a\n\x81\n", 2),
            (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(256)), 1),
        ],
    )  # fmt: skip
    def test_refused(self, tmp_path, content, row):
        (tmp_path / "a.txt").write_bytes(content)
        with pytest.raises(ValueError, match=f"a.txt row {row} is not text in"):
            text_encoding(tmp_path / "a.txt")

    def test_blocks(self, tmp_path, monkeypatch):
        from dsprh_tf.data import files

        monkeypatch.setattr(files, "_BLOCK", 7)
        path = tmp_path / "a.txt"
        path.write_bytes("собака\n".encode() * 20 + b"\xff\n")
        with pytest.raises(ValueError, match="a.txt row 21 is not"):
            text_encoding(path)
        path.write_bytes("Hündin\n".encode("cp1252") * 20)
        assert text_encoding(path)[0] == "cp1252"


def test_files_that_are_none(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(ValueError, match="pipe.json is not a file; fix it"):
        read_json(tmp_path / "pipe.json", "fix it")
    (tmp_path / "zero.json").symlink_to("/dev/zero")
    with pytest.raises(ValueError, match="zero.json is not a file; fix it"):
        read_json(tmp_path / "zero.json", "fix it")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match="deep.json is not valid JSON .nested too deeply.; fix it"):
        read_json(tmp_path / "deep.json", "fix it")
    with pytest.raises(ValueError, match="cannot be read .*null byte"):
        require_regular("a\0b")


def test_a_parquet_list_of_few_bytes_and_many_values(tmp_path, monkeypatch):
    """It is refused by a process with limited memory, in one line that names file and column."""
    monkeypatch.setattr("dsprh_tf.data.parquet_rows._MEMORY", 2**27)
    path = tmp_path / "manifest.parquet"
    many = pa.ListArray.from_arrays([0, 2 * 10**7], pa.array(np.zeros(2 * 10**7, bool)))
    parquet.write_table(pa.table({"image": ["a.jpg"], "text": ["a"], "labels": many}), path)
    assert path.stat().st_size < 2 * 10**5
    with pytest.raises(ValueError, match=r"manifest.parquet: labels cannot be read .*128 MiB"):
        list(Manifest(path, {"labels": ("labels",)}).rows())
    few = pa.array([[True, False]])
    parquet.write_table(pa.table({"image": ["a.jpg"], "text": ["a"], "labels": few}), path)
    ((_, record),) = Manifest(path, {"labels": ("labels",)}).rows()
    assert record["labels"] == [True, False]
