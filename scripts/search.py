"""Searches an index by words, by a picture, or by one of its items.

    python scripts/search.py --index=indexes/photos --export_dir=savedmodels/coco-64 \\
        --text="a dog on the beach" --image=photo.jpg --show=found.png
    python scripts/search.py --index=indexes/photos --like=5142310871543 --json

--text, --image and --like may be given many times, and --queries names a file of more: a .txt with
a text a line, or a manifest (CSV, Parquet, JSONL) with a column text, image or like. Prints the
nearest items of each query with their Hamming distances in bits.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import program
from absl import flags

from dsprh_tf.data.files import read_lines
from dsprh_tf.data.images import load_image
from dsprh_tf.data.pairs import read_rows
from dsprh_tf.index.answers import answer, format_table
from dsprh_tf.index.database import without_password
from dsprh_tf.index.interface import MODALITIES, Where
from dsprh_tf.index.location import open_index
from dsprh_tf.index.sources import path_prefix
from dsprh_tf.sheets import RESULTS_PER_ROW, RetrievalItem, RetrievalRow, contact_sheet

_INDEX = flags.DEFINE_string("index", None, "What scripts/index.py built: a folder, or an address.")
_EXPORT_DIR = flags.DEFINE_string("export_dir", None, "The encoders that the index was built with.")
_TEXT = flags.DEFINE_multi_string("text", [], "Words to search by.")
_IMAGE = flags.DEFINE_multi_string("image", [], "Picture file to search by.")
_LIKE = flags.DEFINE_multi_string("like", [], "Id of an item of the index to search by.")
_QUERIES = flags.DEFINE_string("queries", None, "File of more queries.")
_TOP = flags.DEFINE_integer("top", 10, "Results a query.", lower_bound=1)
_FIND = flags.DEFINE_enum("find", None, MODALITIES, "Only pictures, or only texts.")
_TAG = flags.DEFINE_string("tag", None, "Only items with this tag.")
_PREFIX = flags.DEFINE_string("prefix", None, "Only pictures whose path begins like this.")
_SHOW = flags.DEFINE_string("show", None, "Contact sheet to write, PNG.")
_JSON = flags.DEFINE_boolean("json", False, "Print JSON instead of tables.")
_VERIFY = flags.DEFINE_boolean("verify", True, "Compare checksums first, a second a gigabyte.")

GROUPS = {
    "query": ["index", "export_dir", "text", "image", "like", "queries"],
    "results": ["top", "find", "tag", "prefix", "show", "json", "verify"],
}


def asked() -> list[tuple[str, str]]:
    """All queries as (kind, value), in the order given, those of the file last."""
    given = {"text": _TEXT.value, "image": _IMAGE.value, "like": _LIKE.value}
    queries = [(kind, value) for kind, values in given.items() for value in values]
    if _QUERIES.value and _QUERIES.value.endswith(".txt"):
        queries += [("text", line) for line in read_lines(Path(_QUERIES.value)) if line.strip()]
    elif _QUERIES.value:
        for row, record in read_rows(_QUERIES.value):
            found = [(kind, str(record[kind])) for kind in given if str(record.get(kind, ""))]
            if len(found) != 1:
                raise ValueError(
                    f"{_QUERIES.value} row {row}: expected one of text, image and like, found "
                    f"{' and '.join(kind for kind, _ in found) or 'none'}"
                )
            queries += found
    if not queries:
        raise ValueError("nothing to search by: give --text, --image, --like or --queries")
    return queries


def encode(index, queries: list[tuple[str, str]]) -> np.ndarray:
    """Codes of the queries, uint8 [queries, bits / 8]."""
    codes = np.zeros((len(queries), index.bits // 8), np.uint8)
    for kind in dict.fromkeys(kind for kind, _ in queries):
        rows = [row for row, query in enumerate(queries) if query[0] == kind]
        values = [queries[row][1] for row in rows]
        if kind == "like":
            wrong = [value for value in values if not value.isdecimal() or int(value) >= 2**63]
            if wrong:
                raise ValueError(f"--like={wrong[0]}, expected the id of an item")
            codes[rows] = index.codes_of([int(value) for value in values])
        else:
            import encoders  # TensorFlow, which --like does without

            codes[rows] = encoders.encode_queries(_EXPORT_DIR.value, index, kind, values)
    return codes


def shown(item: dict) -> dict:
    """A query or a result as the contact sheet takes it: a picture, or words."""
    if item.get("path") is None:
        return {"text": item["text"]}
    try:
        return {"image": load_image(item["path"])}
    except ValueError:  # gone or broken
        return {"text": f"cannot be read: {Path(item['path']).name}"}


def sheet_row(index, kind: str, value: str, results: list[dict]) -> RetrievalRow:
    """A query and its results as a row of the contact sheet."""
    item = {"text": value} if kind == "text" else {"path": value}
    if kind == "like":
        item = index.items_of([int(value)]).to_pylist()[0]
    query = shown(item)
    items = [RetrievalItem(**shown(r), distance=r["distance"]) for r in results[:RESULTS_PER_ROW]]
    return RetrievalRow(query.get("image"), query.get("text"), items)


def main() -> None:
    if not _INDEX.value:
        raise ValueError("needs --index=FOLDER, built with scripts/index.py")
    queries = asked()
    index = open_index(_INDEX.value, verify=_VERIFY.value)
    where = Where(_TAG.value, path_prefix(_PREFIX.value), _FIND.value)
    if not index.any():
        shown_index = without_password(_INDEX.value)
        raise ValueError(f"{shown_index} is empty: add codes with scripts/index.py add")
    if where and not index.any(where):
        raise ValueError("no item of the index has this --tag, --prefix and --find")
    codes = encode(index, queries)
    own = [int(value) if kind == "like" else None for kind, value in queries]
    found = answer(index, codes, _TOP.value, where, own)
    if _JSON.value:
        answers = [{"query": {k: v}, "results": r} for (k, v), r in zip(queries, found)]
        print(json.dumps(answers, ensure_ascii=False, indent=1))
    else:
        for (kind, value), results in zip(queries, found):
            print(f"{kind}: {value}\n{format_table(results)}\n")
    gone = sum(result["gone"] for results in found for result in results)
    if gone:
        fix = "remove such items with scripts/index.py remove --gone"
        print(f"note: {gone:,} results are no longer on disk: {fix}", file=sys.stderr)
    if _SHOW.value:
        rows = [sheet_row(index, *query, results) for query, results in zip(queries, found)]
        contact_sheet(rows, _SHOW.value)
        print(f"contact sheet: {_SHOW.value}", file=sys.stderr)


if __name__ == "__main__":
    program.run(main, GROUPS)
