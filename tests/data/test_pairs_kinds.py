"""Kinds of manifests as people have them: each is read right, or refused in one clear line.

The rows of inputs_table.csv name the public report that a kind was found in.
"""

from __future__ import annotations

import datetime
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from data_helpers import picture
from helpers import SHARED
from pyarrow import parquet

from dsprh_tf.data.pairs import load_pairs

CASES = SHARED / "cases"
OWN = "own"
PANDAS = "https://github.com/pandas-dev/pandas/issues"


@dataclass
class Kind:
    """A kind of manifest.

    `content` is text, bytes or a function that writes the file; `labels` are sets of names by pair,
    `texts` tuples by pair; `note` is in a line of the notes. Or else `refused` matches the error.
    """

    id: str
    source: str
    content: str | bytes | Callable[[Path], Any]
    labels: list | None = None
    texts: list | None = None
    ids: list | None = None
    note: str | list = field(default_factory=list)
    refused: str = ""
    ending: str = "csv"


def rows(*cells, head="image,text,labels") -> str:
    """A CSV of images and texts with these cells of labels."""
    lines = [f"p/{i}.jpg,text {i},{cell}" for i, cell in enumerate(cells)]
    return "\n".join([head, *lines]) + "\n"


def objects(*labels, **more) -> str:
    """JSON lines with these labels."""
    return "\n".join(
        json.dumps({"image": f"p/{i}.jpg", "text": f"text {i}", "labels": value, **more})
        for i, value in enumerate(labels)
    )


def table(**columns) -> Callable[[Path], None]:
    """A Parquet file with an image and a text per row and these columns beside them."""

    def write(path: Path) -> None:
        count = len(next(iter(columns.values())))
        base = {
            "image": [f"p/{i}.jpg" for i in range(count)],
            "text": [f"text {i}" for i in range(count)],
        }
        parquet.write_table(pa.table({**base, **columns}), path)

    return write


def quoted(*cells) -> str:
    return rows(*('"' + cell.replace('"', '""') + '"' for cell in cells))


def frame(**options) -> bytes:
    """What pandas writes of a data frame with lists."""
    stream = io.StringIO()
    data = {
        "image": ["p/0.jpg", "p/1.jpg"], "text": ["a dog", "a cat"],
        "labels": [np.array(["dog", "hot dog"]), np.array(["cat"])],
    }  # fmt: skip
    pd.DataFrame(data).to_csv(stream, **options)
    return stream.getvalue().encode()


def jpeg(seed: int) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, "JPEG")
    return stream.getvalue()


SIMPLE = "image,text\np/0.jpg,a dog\np/1.jpg,a cat\n"
TWO = [("a dog",), ("a cat",)]
DOGS = [{"dog", "grass"}, {"cat"}, {"dog", "cat"}]

KINDS = [
    # Labels: multi-hot lists, class indices, flags
    Kind("multi-hot lists", "cases/labels_multihot.jsonl", objects([0, 1, 0], [1, 0, 0], [0, 0, 1]),
         [{"1"}, {"0"}, {"2"}], note="3 labels: multi-hot lists of 3 values", ending="jsonl"),
    Kind("multi-hot as repr", OWN, quoted("[0, 1, 0]", "[1, 1, 0]"), [{"1"}, {"0", "1"}],
         note="multi-hot lists of 3 values"),
    Kind("multi-hot without commas", "https://github.com/huggingface/datasets/issues/6778",
         rows("[0 1 0]", "[1 1 0]"), [{"1"}, {"0", "1"}], note="multi-hot"),
    Kind("multi-hot floats of NumPy", "https://github.com/huggingface/datasets/issues/6778",
         rows("[0. 1. 0.]", "[1. 0. 1.]"), [{"1"}, {"0", "2"}], note="multi-hot"),
    Kind("multi-hot with blanks", OWN, rows("0 1 0", "1 0 0"), [{"1"}, {"0"}], note="multi-hot"),
    Kind("multi-hot with commas", OWN, quoted("0,1,0", "1,0,0"), [{"1"}, {"0"}], note="multi-hot"),
    Kind("multi-hot with semicolons", OWN, rows("0;1;0", "1;0;0"), [{"1"}, {"0"}],
         note="multi-hot"),
    Kind("multi-hot of booleans", OWN, objects([False, True], [True, True]),
         [{"1"}, {"0", "1"}], note="multi-hot lists of 2 values", ending="jsonl"),
    Kind("multi-hot of -1 and 1", OWN, objects([-1, 1, -1], [1, -1, -1]), [{"1"}, {"0"}],
         note="multi-hot", ending="jsonl"),
    Kind("multi-hot with a row of zeros", OWN, objects([0, 0], [0, 1], None),
         [set(), {"1"}, set()], note="2 pairs have no label", ending="jsonl"),
    Kind("multi-hot of two lengths", OWN, objects([0, 1, 0], [1, 0]),
         refused="row 2: labels are 2 values of 0 and 1, but 3 in manifest.jsonl row 1",
         ending="jsonl"),
    Kind("multi-hot in Parquet", OWN, table(labels=[[0, 1], [1, 0]]), [{"1"}, {"0"}],
         note="multi-hot", ending="parquet"),
    Kind("scores", OWN, objects([0.1, 0.9], [0.7, 0.3]), refused="row 1: labels hold 0.1: scores",
         ending="jsonl"),
    Kind("counts", OWN, objects([0, 2, 0, 1], [3, 0, 0, 1]), refused="row 1: labels hold .*counts",
         ending="jsonl"),
    Kind("categories of several objects", OWN, objects([18, 18, 1], [1]), [{"18", "1"}, {"1"}],
         note="2 labels, whole numbers: class indices", ending="jsonl"),
    Kind("class indices", OWN, rows("3", "1", "3"), [{"3"}, {"1"}, {"3"}],
         note="2 labels, whole numbers: class indices"),
    Kind("class indices in lists of one", OWN, objects([0], [1], [0]), [{"0"}, {"1"}, {"0"}],
         note="class indices", ending="jsonl"),
    Kind("class indices with blanks", OWN, rows("0 4", "2", "4 2"), [{"0", "4"}, {"2"}, {"4", "2"}],
         note="class indices"),
    Kind("1.0 beside 1", "https://github.com/calpaterson/csvbase/issues/11",
         rows("1.0", "1", "2.0"), [{"1"}, {"1"}, {"2"}], note="2 labels"),
    Kind("floats of pandas with a hole", f"{PANDAS}/28335", table(labels=[1.0, None, 2.0]),
         [{"1"}, set(), {"2"}], note="class indices", ending="parquet"),
    Kind("-1 for unlabelled", "https://github.com/huggingface/datasets/issues/5624",
         rows("0", "-1", "1"), [{"0"}, set(), {"1"}], note="-1 was read as no label"),
    Kind("-1 and 1", OWN, rows("-1", "1"), [{"-1"}, {"1"}], note="2 labels"),
    Kind("booleans", OWN, objects(True, False), [{"True"}, {"False"}],
         note="2 labels: False and True are classes", ending="jsonl"),
    Kind("booleans as text", OWN, rows("True", "false", "TRUE"),
         [{"True"}, {"False"}, {"True"}], note="classes"),
    Kind("flags by name", OWN, objects({"dog": 1, "cat": 0}, {"dog": 0, "cat": 1}),
         [{"dog"}, {"cat"}], ending="jsonl"),
    Kind("flags by name as repr", OWN, quoted("{'dog': True, 'cat': False}", "{'cat': True}"),
         [{"dog"}, {"cat"}]),
    Kind("scores by name", OWN, objects({"dog": 0.93, "cat": 0.02}),
         refused="row 1: labels: .* is an object of other kinds", ending="jsonl"),
    Kind("attributes", OWN, objects({"colour": "red"}), refused="row 1: labels: {'colour': 'red'}",
         ending="jsonl"),
    Kind("COCO's categories", OWN, objects([{"id": 18, "name": "dog"}, {"id": 1, "name": "cat"}]),
         [{"dog", "cat"}], ending="jsonl"),
    Kind("label and score", OWN, objects({"label": "dog", "score": 0.98}), [{"dog"}],
         ending="jsonl"),
    Kind("columns of 0 and 1",
         "https://peltarion.com/knowledge-center/documentation/cheat-sheets/"
         "multi-label-image-classification-/-cheat-sheet",
         "image,text,Label_dog,Label_cat\np/0.jpg,a,1,0\np/1.jpg,b,1,1\np/2.jpg,c,0,0\n",
         [{"dog"}, {"dog", "cat"}, set()], note="2 labels, each a column of 0 and 1 (dog, cat)"),
    Kind("columns that only look like labels", OWN,
         "image,text,label_en,label_de\np/0.jpg,a,dog,Hund\np/1.jpg,b,cat,Katze\n", [set(), set()],
         note="columns of labels hold other values than 0 and 1, not read (en, de)"),
    Kind("columns of 0 and 1 without a common name", OWN,
         "image,text,dog,cat\np/0.jpg,a,1,0\n", [set()], note="not read: the column dog, cat"),
    # Labels: lists of names
    Kind("lists of pandas",
         "https://stackoverflow.com/questions/23111990/"
         "pandas-dataframe-stored-list-as-string-how-to-convert-back-to-list",
         quoted("['dog', 'grass']", "['cat']", "['dog', 'cat']"), DOGS, note="3 labels, in lists"),
    Kind("lists of NumPy", "https://github.com/huggingface/datasets/issues/6778",
         frame(index=False), [{"dog", "hot dog"}, {"cat"}]),
    Kind("lists of JSON", "https://github.com/bids-standard/bids-specification/issues/1446",
         quoted('["dog", "grass"]', '["cat"]', '["dog", "cat"]'), DOGS),
    Kind("lists of PostgreSQL", OWN, quoted("{dog,grass}", "{cat}", '{"dog",cat}'), DOGS),
    Kind("lists of bare words", OWN, quoted("[dog, grass]", "[cat]", "[dog, cat]"), DOGS),
    Kind("tuples and sets", OWN, quoted("('dog', 'grass')", "{'cat'}", "('dog', 'cat',)"), DOGS),
    Kind("empty lists", OWN, quoted("['dog']", "[]", "set()"), [{"dog"}, set(), set()]),
    Kind("lists with an apostrophe", OWN, quoted("[\"dog's\", 'a \\'b\\'']"), [{"dog's", "a 'b'"}]),
    Kind("an array of an array", OWN, quoted("array(['dog', 'cat'], dtype=object)"),
         [{"dog", "cat"}]),
    Kind("a list that is cut off", OWN, quoted("['dog', 'gr]"),
         refused="row 2: labels: .* is neither a list nor an object"),
    Kind("lists of lists", OWN, objects([["dog"]]), refused="row 1: labels: .* is a list of lists",
         ending="jsonl"),
    Kind("maps of Parquet", OWN,
         table(labels=pa.array([[("dog", 1), ("cat", 0)]], pa.map_(pa.string(), pa.int8()))),
         [{"dog"}], ending="parquet"),
    Kind("structs of Parquet", OWN, table(labels=[{"dog": 1, "cat": None}]), [{"dog"}],
         ending="parquet"),
    Kind("categories of pandas", OWN,
         table(labels=pa.array(["dog", "cat", "dog"]).dictionary_encode()),
         [{"dog"}, {"cat"}, {"dog"}], ending="parquet"),
    Kind("numbers as categories", OWN, table(labels=pa.array([1, 2, None]).dictionary_encode()),
         [{"1"}, {"2"}, set()], ending="parquet"),
    Kind("labels as bytes", OWN, table(labels=[b"dog;cat"]), [{"dog", "cat"}], ending="parquet"),
    Kind("labels as dates", OWN, table(labels=[datetime.date(2020, 1, 2)]),
         refused="the column labels is of the type date32", ending="parquet"),
    # Labels: separators
    Kind("commas", "cases/labels_comma.csv", quoted("dog,grass", "cat", "dog, cat"), DOGS,
         note="3 labels, separated by a comma"),
    Kind("comma-separated tags", "https://lbsn.vgiscience.org/tutorial/yfcc-introduction",
         quoted("canon,hills", "hills, water"), [{"canon", "hills"}, {"hills", "water"}]),
    Kind("vertical bars", "https://huggingface.co/datasets/sombuck/sample",
         rows("exterior|upshot", "skyline"), [{"exterior", "upshot"}, {"skyline"}],
         note="separated by ; or |"),
    Kind("line breaks in a cell", OWN, quoted("dog\ngrass", "cat", "dog\ncat"), DOGS),
    Kind("commas in names", OWN, quoted("Paris, France;city", "Rome, Italy;city"),
         [{"Paris, France", "city"}, {"Rome, Italy", "city"}]),
    Kind("two separators", OWN, quoted("dog;cat", "dog,cat"),
         refused="row 3: labels are 'dog,cat', separated by a comma, but 'dog;cat' in"),
    Kind("quotes in a cell", OWN, quoted("'dog', 'grass'", "cat", '"dog", "cat"'), DOGS),
    Kind("blanks between words", "https://androidkt.com/multi-label-image-classification-model-in-keras/",
         rows("haze primary", "clear primary", "clear haze"),
         [{"haze primary"}, {"clear primary"}, {"clear haze"}],
         note="was read as one label; if these are several"),
    Kind("names of two words", OWN, rows("hot dog", "cat"), [{"hot dog"}, {"cat"}]),
    Kind("other spellings", OWN, rows("Dog", "dog"), [{"Dog"}, {"dog"}],
         note="1 labels are spelled in several ways"),
    # Labels: none
    Kind("null", "cases/labels_none.jsonl", objects(["dog"], None, [None, "cow"]),
         [{"dog"}, set(), {"cow"}], ending="jsonl"),
    Kind("None as text", f"{PANDAS}/10647", rows("dog", "None", "NA", "nan"),
         [{"dog"}, set(), set(), set()], note="None in 3 cells of labels was read as no label"),
    Kind("NaN in JSON", OWN, objects("dog", float("nan")), [{"dog"}, set()], ending="jsonl"),
    Kind("only empty cells", OWN, rows("", ""), [set(), set()], note="no labels: training works"),
    # Columns
    Kind("caption and label", "cases/label_column.csv",
         "image,caption,label\np/0.jpg,a dog,dog\np/1.jpg,a cat,cat\n", [{"dog"}, {"cat"}], TWO,
         note="text from the column caption, labels from the column label"),
    Kind("file_name and text", "https://huggingface.co/datasets/orgilo/diff",
         "file_name,text\np/0.jpg,a dog\np/1.jpg,a cat\n", texts=TWO,
         note="image from the column file_name"),
    Kind("filepath and title", "https://github.com/google-research/composed_image_retrieval/issues/5",
         "filepath\ttitle\np/0.jpg\ta dog\np/1.jpg\ta cat\n", texts=TWO,
         note=["fields are separated by tabs", "image from the column filepath"]),
    Kind("Image Path and Description", OWN,
         "Image Path,Description\np/0.jpg,a dog\np/1.jpg,a cat\n", texts=TWO,
         note="image from the column Image Path"),
    Kind("tags as text", OWN, "image,tags\np/0.jpg,a dog\np/1.jpg,a cat\n", [set(), set()], TWO,
         note="text from the column tags"),
    Kind("tags as labels", OWN, 'image,text,tags\np/0.jpg,a dog,"dog,pet"\np/1.jpg,a cat,cat\n',
         [{"dog", "pet"}, {"cat"}], TWO, note="labels from the column tags"),
    Kind("two columns for the text", OWN,
         "image,caption,title\np/0.jpg,a dog,x\np/1.jpg,a cat,y\n", texts=TWO,
         note=["text from the column caption", "not read: the column title"]),
    Kind("file_name and filename", OWN, "file_name,filename,text\np/0.jpg,p/0.jpg,a dog\n",
         refused="has the columns 'file_name' and 'filename', which stand for the same"),
    Kind("a column twice", "https://github.com/python/cpython/issues/61739",
         "image,text,Text \np/0.jpg,a dog,b\n", refused="has the columns 'text' and 'Text '"),
    Kind("an index of pandas", "https://github.com/entitize/Fakeddit/issues/4",
         ",Unnamed: 0,image,text\n0,5,p/0.jpg,a dog\n1,6,p/1.jpg,a cat\n", texts=TWO),
    Kind("no header", "https://github.com/pytorch/vision/issues/81",
         "p/0.jpg,a dog\np/1.jpg,a cat\n",
         refused="no column image and no column text .*its first row should name the columns"),
    Kind("no text at all", "https://huggingface.co/datasets/sombuck/sample",
         "id,label\n0001.jpg,aerial\n", refused="no column image and no column text .it has id"),
    # Several texts per image
    Kind("a row per caption", "cases/flickr_captions.csv",
         "image,caption\np/0.jpg,one\np/0.jpg,two\np/1.jpg,three\n",
         texts=[("one", "two"), ("three",)], ids=["p/0.jpg", "p/1.jpg"],
         note="2 pairs with 3 texts: rows of one image are one pair"),
    Kind("a list of captions", "https://fast.hugflare.com/datasets/S3IC/flickr",
         '{"image": "p/0.jpg", "caption": ["one", "two", null]}\n'
         '{"image": "p/1.jpg", "caption": ["three"]}\n',
         texts=[("one", "two"), ("three",)], note="2 pairs with 3 texts", ending="jsonl"),
    Kind("a list of captions in Parquet", "https://github.com/activeloopai/deeplake/issues/2061",
         table(captions=[["one", "two"], ["three"]], text=["x", "y"]),
         texts=[("x",), ("y",)], note="not read: the column captions", ending="parquet"),
    Kind("a list of captions as repr", OWN,
         "filename,raw\np/0.jpg,\"['one', 'two']\"\np/1.jpg,\"[\"\"three\"\"]\"\n",
         texts=[("one", "two"), ("three",)]),
    Kind("sentences of Karpathy", OWN,
         '{"filename": "p/0.jpg", "sentences": [{"raw": "one", "sentid": 1}, {"raw": "two"}]}',
         texts=[("one", "two")], ending="jsonl"),
    Kind("caption_0 and caption_1", "https://fast.hugflare.com/datasets/intro/flickr8k",
         "file_name,caption_0,caption_1\np/0.jpg,one,two\np/1.jpg,three,\n",
         texts=[("one", "two"), ("three",)], note="text from the column caption_0, caption_1"),
    Kind("Flickr8k.token.txt", "https://gitblind.noratr.app/hemangsharma/Image-Captioning-Program",
         "p/0.jpg#0\tone\np/0.jpg#1\ttwo\n\np/1.jpg#0\tthree\n",
         texts=[("one", "two"), ("three",)], note="rows are IMAGE#NUMBER", ending="txt"),
    Kind("a row of Flickr8k.token.txt that is none", OWN, "p/0.jpg#0\tone\np/1.jpg two\n",
         refused="row 2 is not IMAGE#NUMBER", ending="token"),
    Kind("Flickr30k's columns", OWN,
         "image_name| comment_number| comment\np/0.jpg| 0| one\np/0.jpg| 1| two \"x\"\n",
         texts=[("one", 'two "x"')], note="fields are separated by vertical bars"),
    Kind("Flickr30k's broken row", OWN,
         "image_name| comment_number| comment\np/0.jpg| 0| one\np/0.jpg| 4   two\n",
         refused=r"row 3 has another number of fields than the header \(2, not 3\)"),
    Kind("labels of several rows", OWN,
         "image,text,labels\np/0.jpg,one,dog\np/0.jpg,two,cat\n",
         [{"dog", "cat"}], [("one", "two")]),
    Kind("a row twice", OWN, SIMPLE + "p/0.jpg,a dog\n", texts=TWO,
         note="1 rows repeat image and text of another"),
    Kind("rows of one image in two parts", OWN,
         "image,text,split\np/0.jpg,one,query\np/0.jpg,two,train\np/1.jpg,x,train\n",
         refused="row 3: split is 'train', but 'query' in row 2 with the same image"),
    Kind("rows of one image with ids", OWN,
         "id,image,text\n1.0,p/0.jpg,one\n2.0,p/0.jpg,two\n0017,p/1.jpg,three\n",
         texts=[("one",), ("two",), ("three",)], ids=["1", "2", "0017"]),
    Kind("an id of two images", OWN, "id,image,text\n1,p/0.jpg,one\n1.0,p/1.jpg,two\n",
         refused="row 3: id '1' occurs in row 2 already"),
    Kind("an id that lost its digits", f"{PANDAS}/20717",
         "id,image,text\n1.2345678901234567e+18,p/0.jpg,one\n",
         refused="row 2: the id .*lost its last digits as a float"),
    # Dialects
    Kind("semicolons", f"{PANDAS}/40201", SIMPLE.replace(",", ";"), texts=TWO,
         note="fields are separated by semicolons"),
    Kind("a line with the separator", "https://github.com/python/cpython/issues/109644",
         "SEP=;\n" + SIMPLE.replace(",", ";"), texts=TWO),
    Kind("a line of commas before the header",
         "https://huggingface.co/datasets/orgilo/diff/commit/2c91305a0d2472c43c7c0e20ca964701f0d3dc49",
         ",\n" + SIMPLE, texts=TWO),
    Kind("blank lines", OWN, "\n" + SIMPLE.replace("\np/1", "\n\n \np/1") + ",\n\np/9.jpg,x\n",
         refused="manifest.csv row 9: image .*9.jpg does not exist"),
    Kind("rows of separators", OWN, SIMPLE + ",\n,\n", texts=TWO,
         note="2 rows without any value were passed over"),
    Kind("a header in the middle", "https://github.com/alcibiade/pan-discovery/issues/7",
         SIMPLE.replace("p/1", "image,text\np/1"), texts=TWO,
         note="1 rows that repeat the header were passed over"),
    Kind("a byte order mark", "https://github.com/docling-project/docling/issues/4097",
         b"\xef\xbb\xbf" + SIMPLE.encode(), texts=TWO),
    Kind("UTF-16", "https://github.com/HKUDS/Vibe-Trading/pull/865",
         SIMPLE.replace(",", "\t").replace("dog", "Hündin").encode("utf-16"),
         texts=[("a Hündin",), ("a cat",)], note="text is in UTF-16"),
    Kind("UTF-16 without a mark", OWN, SIMPLE.encode("utf-16-le"), texts=TWO, note="UTF-16"),
    Kind("Latin-1", OWN, SIMPLE.replace("dog", "Hündin “x”").encode("cp1252"),
         texts=[("a Hündin “x”",), ("a cat",)], note="Windows-1252 (Latin-1), such as 'Hündin'"),
    Kind("Cyrillic in another encoding", OWN, SIMPLE.replace("dog", "собака").encode("cp1251"),
         refused="manifest.csv row 2 is not text in UTF-8, nor in another encoding"),
    Kind("damaged UTF-8", OWN, SIMPLE.replace("dog", "éé").encode() + b"p/2.jpg,\xc3(\n",
         refused="row 4 is not text in UTF-8"),
    Kind("UTF-8 that ends in a character", OWN, SIMPLE.encode() + "p/2.jpg,é".encode()[:-1],
         refused="row 4 is not text in UTF-8, the file ends in the middle"),
    Kind("bytes of zero", OWN, SIMPLE.replace("dog", "d\0g").encode(), refused="row 2 is not text"),
    Kind("lines as Windows ends them", OWN, SIMPLE.replace("\n", "\r\n"), texts=TWO),
    Kind("lines as old Macs end them", OWN, SIMPLE.replace("\n", "\r"), texts=TWO),
    Kind("backslashes", "https://github.com/abbyy/barcode_detection_benchmark/issues/2",
         SIMPLE.replace("/", "\\"), texts=TWO, ids=["p/0.jpg", "p/1.jpg"],
         note="2 images are spelled with"),
    Kind("commas without quotes", "https://github.com/docarray/docarray/pull/1044",
         "image,text\np/0.jpg,a dog, and a cat\n", refused="row 2 has another number of fields"),
    Kind("a separator at the end", f"{PANDAS}/9295", SIMPLE.replace("dog", "dog,"),
         refused="row 2 has another number of fields than the header .3, not 2."),
    # Quotes
    Kind("an open quote", "cases/unclosed_quote.csv",
         'image,text\np/0.jpg,a dog\np/1.jpg,"a 12 inch ruler\np/2.jpg,a cat\np/3.jpg,a big" bus\n',
         refused="row 3: the quote that opens here is not closed"),
    Kind("an open quote up to the end", "https://github.com/cldf/csvw/issues/52",
         SIMPLE + 'p/2.jpg,"open\np/3.jpg,x\n', refused="row 4: the quote that opens here is not"),
    Kind("an open quote that ends at a line's end", "https://github.com/NVIDIA/cudf/issues/2398",
         'image,text\np/0.jpg,"a 12 inch ruler\np/1.jpg,a cat\np/2.jpg,a 5"\np/3.jpg,x\n',
         refused="row 2: the quote that opens here takes in 2 more rows"),
    Kind("an open quote before the image", OWN,
         'text,image\n"a ruler,p/0.jpg\na cat,p/1.jpg\na 5",p/2.jpg\n', refused="row 2"),
    Kind("an open quote among tabs", f"{PANDAS}/22661",
         'image\ttext\np/0.jpg\t"abc"\np/1.jpg\t"error\np/2.jpg\tx\n',
         refused="row 3: the quote that opens here is not closed"),
    Kind("a quote alone", f"{PANDAS}/22140",
         'image|text\np/0.jpg|"\np/1.jpg|x\n', refused="row 2: the quote that opens here"),
    Kind("a quote that is closed by another", "https://github.com/cldf/csvw/issues/52",
         SIMPLE + 'p/2.jpg,"open”\n', refused="row 4: the quote"),
    Kind("text after a quote", f"{PANDAS}/15910", 'image,text\np/0.jpg,"a" b\n',
         refused="row 2: the quote"),
    Kind("escaped quotes", f"{PANDAS}/56690", 'image,text\np/0.jpg,"a ""12"" inch"\n',
         texts=[('a "12" inch',)]),
    Kind("quotes escaped by backslashes", OWN, 'image,text\np/0.jpg,"a \\"12\\" inch"\n',
         refused="row 2: the quote"),
    Kind("genuine line breaks", OWN,
         'image,text\np/0.jpg,"a dog,\nand a cat, too"\np/1.jpg,a cat\n',
         texts=[("a dog, and a cat, too",), ("a cat",)], note="1 rows have line breaks in a field"),
    Kind("a field of megabytes", "https://github.com/simonw/datasette-lite/issues/84",
         SIMPLE + "p/2.jpg," + "x" * 140_000 + "\n",
         refused="row 4 has a field of more than 131,072 characters"),
    Kind("a text of a book", OWN, SIMPLE + "p/2.jpg," + "x" * 110_000 + "\n",
         refused="row 4: a text has 110,000 characters, expected at most 100,000"),
    # JSON Lines
    Kind("an array in a .jsonl", "https://github.com/hpcaitech/ColossalAI/issues/3658",
         '[\n{"image": "p/0.jpg", "text": "a dog"}\n]\n',
         refused="row 1 is not JSON .the beginning of an array", ending="jsonl"),
    Kind("a whole array in one line", OWN, '[{"image": "p/0.jpg", "text": "a dog"}]',
         refused="row 1 is not a JSON object but an array", ending="jsonl"),
    Kind("a last line that is cut off", "https://github.com/datalad/datalad/issues/4360",
         '{"image": "p/0.jpg", "text": "a dog"}\n{"image": "p/1.j',
         refused="row 2 is not JSON .*it may be cut off", ending="jsonl"),
    Kind("a last line without an end", "https://github.com/datalad/datalad/issues/4360",
         '{"image": "p/0.jpg", "text": "a dog"}\n{"image": "p/1.jpg", "text": "a cat"}', texts=TWO,
         ending="jsonl"),
    Kind("deep nesting", "https://github.com/simplejson/simplejson/issues/334",
         '{"image": "p/0.jpg", "text": ' + "[" * 50_000 + "]" * 50_000 + "}",
         refused="row 1 is nested too deeply|the text is a list of lists", ending="jsonl"),
    Kind("a key twice", "https://github.com/ajschumacher/mergic/issues/38",
         '{"image": "p/0.jpg", "text": "a", "text": "b"}',
         refused="row 1 has the key 'text' twice", ending="jsonl"),
    Kind("a key twice but for case", OWN, '{"image": "p/0.jpg", "text": "a", "Text": "b"}',
         refused="row 1 has the key 'text' twice", ending="jsonl"),
    Kind("a number of thousands of digits", OWN,
         '{"image": "p/0.jpg", "text": "a", "id": ' + "1" * 5000 + "}",
         refused="row 1 is not JSON .*5,000 digits", ending="jsonl"),
    Kind("columns that only later rows have", OWN,
         '{"image": "p/0.jpg", "text": "a"}\n{"image": "p/1.jpg", "text": "b", "label": "dog"}',
         [set(), {"dog"}], ending="jsonl"),
    Kind("UTF-16 in a .jsonl", OWN,
         '{"image": "p/0.jpg", "text": "a dog"}'.encode("utf-16"), texts=[("a dog",)],
         ending="jsonl"),
    Kind("an object as text", OWN, '{"image": "p/0.jpg", "text": {"en": "a"}}',
         refused="row 1: the text is an object with en", ending="jsonl"),
    # Images
    Kind("an address of the web", OWN, "image,text\nhttps://x.org/a.jpg,a dog\n",
         refused="row 2: the image is 'https://x.org/a.jpg', not a file; download"),
    Kind("an image in base64", OWN, "image,text\n" + "iVBORw0KGgo" * 500 + ",a dog\n",
         refused="row 2: the image is .*, a text of 5,500 characters"),
    Kind("images in Parquet",
         "https://github.com/datachain-ai/datachain/pull/375",
         table(image=[{"bytes": jpeg(1), "path": "1.jpg"}, {"bytes": jpeg(2), "path": None}],
               text=["a dog", "a cat"]),
         texts=TWO, note="2 images of the file are in", ending="parquet"),
    Kind("images as bytes", OWN, table(image=[jpeg(1), jpeg(1)], text=["a dog", "a cat"]),
         texts=[("a dog", "a cat")], note="1 pairs with 2 texts", ending="parquet"),
    Kind("paths in an object", OWN,
         table(image=[{"bytes": None, "path": "p/0.jpg"}, {"bytes": None, "path": "p/1.jpg"}],
               text=["a dog", "a cat"]),
         texts=TWO, ids=["p/0.jpg", "p/1.jpg"], ending="parquet"),
    Kind("bytes that are no image", OWN, table(image=[b"no image"]),
         refused="manifest.parquet row 1: image .*bin is no JPEG", ending="parquet"),
    # Parquet
    Kind("a date out of range beside", "https://github.com/apache/arrow/issues/28964",
         table(text=["a dog"], when=pa.array([10**15], pa.timestamp("s"))), texts=[("a dog",)],
         ending="parquet"),
    Kind("an unknown time zone beside", f"{PANDAS}/25423",
         table(text=["a dog"], when=pa.array([1], pa.timestamp("us", "tzutc()"))),
         texts=[("a dog",)], ending="parquet"),
    Kind("a duration beside", "https://github.com/apache/arrow/issues/36392",
         table(text=["a dog"], when=pa.array([2**62], pa.duration("s"))), texts=[("a dog",)],
         ending="parquet"),
    Kind("a date as text", OWN, table(text=pa.array([1], pa.timestamp("us", "tzutc()"))),
         refused="the column text is of the type timestamp", ending="parquet"),
    Kind("a text that is no UTF-8", OWN,
         table(text=pa.array([b"a \xff"]).view(pa.string())),
         refused="rows 1 to 1: text cannot be read|not a Parquet file", ending="parquet"),
    Kind("a long text in Parquet", OWN, table(text=["x" * 500_000]),
         refused="rows 1 to 1: text has a text of 500,000 bytes, expected at most 100,000",
         ending="parquet"),
]  # fmt: skip


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("kinds")
    for i in range(6):
        picture(folder / "p" / f"{i}.jpg", i)
    return folder


def write(folder: Path, kind: Kind) -> Path:
    path = folder / f"manifest.{kind.ending}"
    if callable(kind.content):
        kind.content(path)
    else:
        content = kind.content if isinstance(kind.content, bytes) else kind.content.encode()
        path.write_bytes(content)
    return path


def label_sets(data) -> list:
    if data.labels is None:
        return [set()] * len(data)
    return [{data.label_names[i] for i in np.flatnonzero(row)} for row in data.labels]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.id)
def test_kind(images, tmp_path, kind):
    (tmp_path / "p").symlink_to(images / "p")
    path = write(tmp_path, kind)
    if kind.refused:
        with pytest.raises(ValueError, match=kind.refused) as error:
            load_pairs(path)
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 700
        return
    data = load_pairs(path)
    texts = data.text_lists if data.text_lists is not None else [(text,) for text in data.texts]
    assert data.texts.tolist() == [" ".join(parts) for parts in texts]
    if kind.labels is not None:
        assert label_sets(data) == kind.labels
    if kind.texts is not None:
        assert list(map(tuple, texts)) == kind.texts
    if kind.ids is not None:
        assert data.ids.tolist() == kind.ids
    for note in [kind.note] if isinstance(kind.note, str) else kind.note:
        assert any(note in line for line in data.notes), data.notes
    assert not any("\n" in line for line in data.notes)


def test_ids_of_kinds_are_unique():
    assert len({kind.id for kind in KINDS}) == len(KINDS)


needs_cases = pytest.mark.skipif(not CASES.is_dir(), reason=f"no small inputs at {CASES}")


@needs_cases
@pytest.mark.parametrize(
    ("name", "labels", "texts"),
    [
        ("labels_multihot.jsonl", [{"1"}, {"0"}, {"2"}], None),
        ("labels_repr.csv", DOGS, None),
        ("labels_comma.csv", DOGS, None),
        ("labels_none.jsonl", [{"dog"}, set(), {"cow"}], None),
        ("label_column.csv", [{"dog"}, {"cat"}], ["a dog on grass", "two cats asleep"]),
        (
            "tags_without_space.csv",
            None,
            ["dog,beach,sea", "dog,grass", "beach,sea,sand", "dog,sea"],
        ),
    ],
)
def test_small_inputs(name, labels, texts):
    data = load_pairs(CASES / name)
    if labels is not None:
        assert label_sets(data) == labels
    if texts is not None:
        assert data.texts.tolist() == texts
    assert data.text_lists is None


@needs_cases
def test_small_input_with_captions():
    data = load_pairs(CASES / "flickr_captions.csv")
    assert data.ids.tolist() == [f"p/{i}.jpg" for i in range(4)]
    assert [len(texts) for texts in data.text_lists] == [3, 3, 3, 3]
    assert data.text_lists[1][2] == "third words about 1"
    assert data.texts[1] == "caption one of picture 1 another sentence for 1 third words about 1"


@needs_cases
def test_small_input_with_an_open_quote():
    with pytest.raises(ValueError, match="unclosed_quote.csv row 3: the quote that opens here"):
        load_pairs(CASES / "unclosed_quote.csv")
