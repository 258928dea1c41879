"""Searches an index by words, by a picture, or by one of its items.

    python scripts/search.py --index=indexes/photos --export_dir=savedmodels/coco-64 \\
        --text="a dog on the beach" --image=photo.jpg --show=found.png
    python scripts/search.py --index=indexes/photos --like=5142310871543 --json

--text, --image and --like may be given many times, and --queries names a file of more: a .txt with
a text a line, or a manifest (CSV, Parquet, JSONL) with a column text, image (a path relative to the
manifest) or like. Prints the nearest items of each query with their Hamming distances in bits.
"""

from __future__ import annotations

import json
import sys

import program
from absl import flags

from dsprh_tf.evaluation.contact_sheet import (
    RESULTS_PER_ROW,
    RetrievalItem,
    RetrievalRow,
    contact_sheet,
)
from dsprh_tf.index.answers import answer, as_shown, format_table
from dsprh_tf.index.database import without_password
from dsprh_tf.index.interface import MODALITIES, Where
from dsprh_tf.index.location import open_index
from dsprh_tf.index.queries import Query, check_id, query_codes, read_queries
from dsprh_tf.index.sources import path_prefix

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

SHEET_ROWS = 100  # queries on a contact sheet: a picture of 20,000 pixels

GROUPS = {
    "query": ["index", "export_dir", "text", "image", "like", "queries"],
    "results": ["top", "find", "tag", "prefix", "show", "json", "verify"],
}


def asked() -> list[Query]:
    """All queries in the order given, those of the file last."""
    given = {"text": _TEXT.value, "image": _IMAGE.value, "like": _LIKE.value}
    queries = [Query(kind, value) for kind, values in given.items() for value in values]
    for value in _LIKE.value:
        check_id(value, f"--like={value}")
    if _QUERIES.value:
        queries += read_queries(_QUERIES.value)
    if not queries:
        raise ValueError("nothing to search by: give --text, --image, --like or --queries")
    return queries


def sheet_row(index, query: Query, results: list[dict]) -> RetrievalRow:
    """A query and its results as a row of the contact sheet."""
    item = {"text": query.value} if query.kind == "text" else {"path": query.value}
    if query.kind == "like":
        item = index.items_of([int(query.value)]).to_pylist()[0]
    left = as_shown(item)
    items = [RetrievalItem(**as_shown(r), distance=r["distance"]) for r in results]
    return RetrievalRow(left.get("image"), left.get("text"), items)


def draw(index, queries: list[Query], found: list[list[dict]]) -> None:
    """Writes the contact sheet, and says what is not on it."""
    rows = [
        sheet_row(index, query, results[:RESULTS_PER_ROW])
        for query, results in zip(queries[:SHEET_ROWS], found)
    ]
    contact_sheet(rows, _SHOW.value)
    left_out = []
    if len(queries) > SHEET_ROWS:
        left_out.append(f"the first {SHEET_ROWS} of {len(queries):,} queries")
    if max(map(len, found)) > RESULTS_PER_ROW:
        left_out.append(f"{RESULTS_PER_ROW} results of each")
    note = f" (shows {' and '.join(left_out)})" if left_out else ""
    print(f"contact sheet: {_SHOW.value}{note}", file=sys.stderr)


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

    def encode(kind: str, values: list[str]):
        import encoders  # TensorFlow, which --like does without

        return encoders.encode_queries(_EXPORT_DIR.value, index, kind, values)

    codes = query_codes(index, queries, encode)
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
        draw(index, queries, found)


if __name__ == "__main__":
    program.run(main, GROUPS)
