"""Searches an index, or the database of a run, by text, image, vector, or an item of the index.

    dsprh search --index=indexes/photos --export_dir=savedmodels/coco-64 \\
        --text="a dog on the beach" --image=photo.jpg --show=found.png
    dsprh search --index=indexes/photos --like=5142310871543 --json
    dsprh search --index=indexes/photos --export_dir=savedmodels/coco-64 --text="at night" \\
        --image=photo.jpg --together --less=5142310871543 --offset=10
    dsprh search --index=indexes/clip --export_dir=savedmodels/clip-64 --vector=q.npy --side=text
    dsprh search --run_dir=runs/dsprh-coco-64-0 --export_dir=savedmodels/coco-64 --text="a dog"

Prints the best items of each query, with their similarity in 0..1 and their Hamming distance in
bits. They are ranked by the real values of the query against the bits of the items
(--rank=asymmetric), or by Hamming distance. --text, --image, --like and --vector may be repeated:
each is a query of its own, or all are one with --together. --more and --less move every query
towards some items and away from others. --vector names an array of one or more query vectors, for
encoders of a model that was trained on vectors (--dataset=features); --side says what they are of,
image or text, and so which encoder takes them. --queries names a file of more queries: a .txt with
one text per line, or a manifest (CSV, Parquet, JSONL) with a column text, image (a path relative to
the manifest) or like. A query that cannot be answered, such as a text of unknown words, says so in
its place; the exit code is 3 if none could be answered.

With --hybrid, texts find items by the words of their texts and tags, too, and "found by" says how;
both rankings are joined by their ranks. A text without a known word is answered by words alone.

Tags filter: items have all of the tags that --tag gives, one of those of --any_tag, and none of
those of --no_tag. Each may be repeated, and they may stand together.

In the database of a run, a text finds images and an image finds texts; "*" marks those that share a
label with the query. Without --text and --image, three queries of each kind come from the run's
query split.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from absl import flags

from dsprh_tf.cli.program import Program, quiet_imports
from dsprh_tf.evaluation.contact_sheet import (
    RESULTS_PER_ROW,
    RetrievalItem,
    RetrievalRow,
    contact_sheet,
)
from dsprh_tf.index.answers import answer, as_shown, format_table
from dsprh_tf.index.asymmetric import OVERSAMPLE, RANKS
from dsprh_tf.index.combined import Combined, combined_values
from dsprh_tf.index.database import without_password
from dsprh_tf.index.hybrid import Hybrid
from dsprh_tf.index.interface import MODALITIES, Where
from dsprh_tf.index.items import id_of
from dsprh_tf.index.location import open_index
from dsprh_tf.index.queries import (
    Encoded,
    Query,
    encode_queries,
    query_vectors,
    read_queries,
)
from dsprh_tf.index.sources import path_prefix
from dsprh_tf.serving.suggestions import describe

FLAGS = flags.FlagValues()
_INDEX = flags.DEFINE_string(
    "index", None, "Index to search: a folder, or the address of a database.", flag_values=FLAGS
)
_RUN_DIR = flags.DEFINE_string(
    "run_dir", None, "Run folder whose database to search instead.", flag_values=FLAGS
)
_EXPORT_DIR = flags.DEFINE_string(
    "export_dir", None, "Encoders that the index was built with, or of the run.", flag_values=FLAGS
)
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Where the run's data lies now, if it was moved.", flag_values=FLAGS
)
_TEXT = flags.DEFINE_multi_string("text", [], "Text to search by.", flag_values=FLAGS)
_IMAGE = flags.DEFINE_multi_string("image", [], "Image file to search by.", flag_values=FLAGS)
_LIKE = flags.DEFINE_multi_string(
    "like", [], "Id of an item of the index to search by.", flag_values=FLAGS
)
_VECTOR = flags.DEFINE_multi_string(
    "vector", [], "Array of vectors to search by, one per row.", flag_values=FLAGS
)
_SIDE = flags.DEFINE_enum(
    "side", None, MODALITIES, "What each --vector is of: its encoder.", flag_values=FLAGS
)
_QUERIES = flags.DEFINE_string("queries", None, "File of more queries.", flag_values=FLAGS)
_HYBRID = flags.DEFINE_boolean(
    "hybrid", False, "Find items by the words of their texts and tags as well.", flag_values=FLAGS
)
_TOGETHER = flags.DEFINE_boolean(
    "together", False, "Make one query of all that are given: their sum.", flag_values=FLAGS
)
_MORE = flags.DEFINE_list(
    "more", [], "Ids of items to move each query towards, or to search by.", flag_values=FLAGS
)
_LESS = flags.DEFINE_list(
    "less", [], "Ids of items to move each query away from.", flag_values=FLAGS
)
_SEED = flags.DEFINE_integer(
    "seed", 0, "Seed for drawing queries of a run, if none are given.", flag_values=FLAGS
)
_TOP = flags.DEFINE_integer(
    "top", None, "Results per query; default 10, or 8 for a run.", lower_bound=1, flag_values=FLAGS
)
_OFFSET = flags.DEFINE_integer(
    "offset", 0, "Better results to pass over: 10 shows those after the tenth.", lower_bound=0,
    flag_values=FLAGS,
)  # fmt: skip
_RANK = flags.DEFINE_enum(
    "rank", RANKS[0], RANKS, "By the query's real values, or its bits alone.", flag_values=FLAGS
)
_OVERSAMPLE = flags.DEFINE_integer(
    "oversample", OVERSAMPLE, "Candidates for each result, where not all items are compared.",
    lower_bound=1, flag_values=FLAGS,
)  # fmt: skip
_FIND = flags.DEFINE_enum(
    "find", None, MODALITIES, "Only images, or only texts.", flag_values=FLAGS
)
_TAG = flags.DEFINE_multi_string(
    "tag", [], "Only items with this tag; given several times, with all of them.",
    flag_values=FLAGS,
)  # fmt: skip
_ANY_TAG = flags.DEFINE_multi_string(
    "any_tag", [], "Only items with this tag or another that is given so.", flag_values=FLAGS
)
_NO_TAG = flags.DEFINE_multi_string(
    "no_tag", [], "Only items without this tag, nor another that is given so.", flag_values=FLAGS
)
_PREFIX = flags.DEFINE_string(
    "prefix", None, "Only images whose path begins with this.", flag_values=FLAGS
)
_SHOW = flags.DEFINE_string(
    "show", None, "Contact sheet to write, PNG; RUN_DIR/queries.png of a run.", flag_values=FLAGS
)
_JSON = flags.DEFINE_boolean("json", False, "Print JSON instead of tables.", flag_values=FLAGS)
_VERIFY = flags.DEFINE_boolean(
    "verify", True, "Compare checksums first: a second per gigabyte.", flag_values=FLAGS
)

TOP = 10
SHEET_ROWS = 100  # most queries on a contact sheet, which is 20,000 pixels high then
ONLY_WITH = {
    "--index": (
        "like", "vector", "side", "queries", "together", "more", "less", "hybrid", "offset", "rank",
        "oversample", "find", "tag", "any_tag", "no_tag", "prefix", "json", "verify",
    ),
    "--run_dir": ("data_dir", "seed"),
}  # fmt: skip
GROUPS = {
    "where": ["index", "run_dir", "export_dir", "data_dir"],
    "query": [
        "text", "image", "like", "vector", "side", "queries", "together", "more", "less", "hybrid",
        "seed",
    ],
    "results": [
        "top", "offset", "rank", "oversample", "find", "tag", "any_tag", "no_tag", "prefix", "show",
        "json", "verify",
    ],
}  # fmt: skip


def main() -> int:
    """Searches an index or a run; returns the exit code."""
    if _INDEX.value and _RUN_DIR.value:
        raise ValueError("got both --index and --run_dir, expected one of them")
    if not _INDEX.value and not _RUN_DIR.value:
        raise ValueError("needs --index=FOLDER, built with `dsprh index`, or --run_dir=FOLDER")
    place, other = "--index", "--run_dir"
    if _RUN_DIR.value:
        place, other = other, place
    wrong = [f"--{name}" for name in ONLY_WITH[other] if not FLAGS[name].using_default_value]
    if wrong:
        raise ValueError(f"got {', '.join(wrong)} with {place}, expected only with {other}")
    if _RUN_DIR.value:
        search_run()
        return 0
    return search_index()


def search_index() -> int:
    """Searches an index; returns the exit code, 3 if no query could be answered."""

    @functools.lru_cache(None)
    def encoder_of(kind: str, of_vectors: bool = False):
        with quiet_imports():  # TensorFlow, which --like does not need
            from dsprh_tf.serving.encoder import load_encoder
        encoder = load_encoder(_EXPORT_DIR.value, kind, of_vectors)
        if not encoder.has_values and _RANK.value != "hamming":
            print(f"note: the {kind} encoder in {_EXPORT_DIR.value} gives codes alone: ranked by "
                  "Hamming distance", file=sys.stderr)  # fmt: skip
        return encoder

    if _HYBRID.value and _TOGETHER.value:
        raise ValueError(
            "got --hybrid and --together, expected one of them: words are those of one text"
        )
    if bool(_VECTOR.value) != bool(_SIDE.value):
        raise ValueError("--vector and --side=image or --side=text go together: which encoder")
    vectors: dict[str, np.ndarray] = {}
    for path in _VECTOR.value:
        vectors.update(query_vectors(path, _SIDE.value, encoder_of(_SIDE.value, True).width))
    searches = asked(vectors)
    index = open_index(_INDEX.value, verify=_VERIFY.value)
    where = asked_where()
    if not index.any():
        raise ValueError(
            f"{without_password(_INDEX.value)} is empty: add codes with `dsprh index add`"
        )
    if where and not index.any(where):
        raise ValueError(
            "no item of the index is as --tag, --any_tag, --no_tag, --prefix and --find say"
        )

    def encode(kind: str, values: list[str]):
        def note(text: str, unknown: dict) -> None:
            print(f"note: {text!r}: {describe(unknown)}", file=sys.stderr)

        side = _SIDE.value if kind == "vector" else kind
        encoder = encoder_of(side, kind == "vector")
        name = f"the {side} encoder in {_EXPORT_DIR.value}"
        given = [vectors[value] for value in values] if kind == "vector" else values
        return encode_queries(encoder, index, given, note, name)

    encoded = combined_values(index, searches, encode)
    good = encoded.good
    found: list[list[dict]] = [[] for _ in searches]
    if good:
        query = encoded.codes if _RANK.value == "hamming" else encoded.values
        own = [searches[row].own for row in good]
        answers = answer(index, query[good], _TOP.value or TOP, where, own, _OFFSET.value,
                         _OVERSAMPLE.value)  # fmt: skip
        for row, results in zip(good, answers):
            found[row] = results
    if _HYBRID.value:
        join_words(index, searches, encoded, found, where)
        good = encoded.good
    if good or _JSON.value or len(searches) > 1:
        show(searches, found, encoded.problems)
    gone = sum(result["gone"] for results in found for result in results)
    if gone:
        fix = "remove such items with `dsprh index remove --gone`"
        print(f"note: {gone:,} results are no longer on disk: {fix}", file=sys.stderr)
    if not good:
        (first, *_) = encoded.problems.values()
        count = f"none of {len(searches):,} queries" if len(searches) > 1 else "no query"
        print(f"search: {count} could be answered: {first}", file=sys.stderr)
        return 3
    if encoded.problems:
        count = f"{len(encoded.problems):,} of {len(searches):,} queries"
        print(f"note: {count} could not be answered; each says why in its place", file=sys.stderr)
    if _SHOW.value:
        draw(index, [searches[row] for row in good], [found[row] for row in good])
    return 0


def join_words(
    index, searches: list[Combined], encoded: Encoded, found: list[list[dict]], where: Where
) -> None:
    """Answers texts by codes and words; a text without a known word by words alone."""
    hybrid = Hybrid(index)
    if not hybrid.has_words:
        print("note: no item of the index has a text or tags: codes alone count", file=sys.stderr)
    queries = encoded.codes if _RANK.value == "hamming" else encoded.values
    for row, search in enumerate(searches):
        kinds = [query.kind for query in search.queries]
        if kinds != ["text"]:
            continue
        text = search.queries[0].value
        query = None if row in encoded.problems else queries[row]
        found[row] = hybrid.answer(
            text, query, _TOP.value or TOP, where, search.own, _OFFSET.value, _OVERSAMPLE.value
        )
        if found[row] and encoded.problems.pop(row, None):
            print(
                f"note: {text!r} has no word that the encoder knows: found by the words of texts "
                "and tags alone",
                file=sys.stderr,
            )


def show(searches: list[Combined], found: list[list[dict]], problems: dict[int, str]) -> None:
    """Prints the answers, or in their place why there is none."""
    if _JSON.value:
        answers: list[dict] = [
            {"query": search.as_json, "results": results}
            for search, results in zip(searches, found)
        ]
        for row, problem in problems.items():
            answers[row]["problem"] = problem
        print(json.dumps(answers, ensure_ascii=False, indent=1))
        return
    for row, (search, results) in enumerate(zip(searches, found)):
        text = f"  no answer: {problems[row]}" if row in problems else format_table(results)
        print(f"{search}\n{text}\n")


def asked_where() -> Where:
    """Which items count: the page's `all`, `any` and `none` of tags, and the other filters."""
    any_of = [tuple(_ANY_TAG.value)] if _ANY_TAG.value else []
    tags = (*((tag,) for tag in _TAG.value), *any_of)
    prefix = path_prefix(_PREFIX.value)
    return Where(None, prefix, _FIND.value, tags, tuple(_NO_TAG.value))


def asked(vectors: Iterable[str] = ()) -> list[Combined]:
    """All searches in the order given, those of the file last; one search with --together.

    Args:
        vectors: names of query vectors.
    """
    like = [str(id_of(value, f"--like={value}")) for value in _LIKE.value]
    given = {"text": _TEXT.value, "image": _IMAGE.value, "like": like, "vector": vectors}
    queries = [Query(kind, value) for kind, values in given.items() for value in values]
    if _QUERIES.value:
        queries += read_queries(
            _QUERIES.value, lambda line: print(f"note: {line}", file=sys.stderr)
        )
    more, less = (
        tuple(id_of(value, f"--{name}={value}") for value in ids)
        for name, ids in (("more", _MORE.value), ("less", _LESS.value))
    )
    if not queries and not more:
        raise ValueError(
            "nothing to search by: give --text, --image, --like, --vector, --queries or --more"
        )
    together = _TOGETHER.value or not queries
    parts = [tuple(queries)] if together else [(query,) for query in queries]
    return [Combined(part, more, less) for part in parts]


def draw(index, searches: list[Combined], found: list[list[dict]]) -> None:
    """Writes the contact sheet, and says what is not on it."""
    rows = [
        sheet_row(index, search, results[:RESULTS_PER_ROW])
        for search, results in zip(searches[:SHEET_ROWS], found)
    ]
    contact_sheet(rows, _SHOW.value, ("query", "best first; below: similarity, bits that differ"))
    left_out = []
    if len(searches) > SHEET_ROWS:
        left_out.append(f"the first {SHEET_ROWS} of {len(searches):,} queries")
    if max(map(len, found)) > RESULTS_PER_ROW:
        left_out.append(f"{RESULTS_PER_ROW} results of each")
    note = f" (shows {' and '.join(left_out)})" if left_out else ""
    print(f"contact sheet: {_SHOW.value}{note}", file=sys.stderr)


def sheet_row(index, search: Combined, results: list[dict]) -> RetrievalRow:
    """A search and its results as a row of the contact sheet; one of several parts in words."""
    item: dict = {"text": str(search)}
    if len(search.queries) == 1 and not search.more and not search.less:
        ((kind, value),) = search.queries
        item = {"path" if kind == "image" else "text": value}
        if kind == "like":
            item = index.items_of([int(value)]).to_pylist()[0]
    left = as_shown(item)
    items = [RetrievalItem(**as_shown(r), distance=r["distance"], below=_below(r)) for r in results]
    return RetrievalRow(left.get("image"), left.get("text"), items)


def _below(result: dict) -> str | None:
    """What the contact sheet says of a result."""
    similarity = result.get("similarity")
    return None if similarity is None else f"{similarity:.2f}, {result['distance']}"


def search_run() -> None:
    """Searches the database of a run."""
    if not _EXPORT_DIR.value:
        raise ValueError(f"--run_dir={_RUN_DIR.value} needs --export_dir=FOLDER as well")
    with quiet_imports():
        from dsprh_tf.evaluation import database_search
        from dsprh_tf.run import Run
        from dsprh_tf.serving.encoder import Encoder

    given = {"text": _TEXT.value, "image": _IMAGE.value}
    queries = [
        database_search.DatabaseQuery(kind, value)
        for kind, values in given.items()
        for value in values
    ]
    encoders = {kind: Encoder(_EXPORT_DIR.value, kind) for kind in MODALITIES}
    database_search.check_queries(encoders, queries, _EXPORT_DIR.value)
    run = Run.load(_RUN_DIR.value, data_dir=_DATA_DIR.value)
    dataset, split = run.dataset, run.split
    queries = queries or database_search.draw_queries(dataset, split, _SEED.value)
    answers = database_search.search_database(
        dataset, split.database, encoders, queries, _TOP.value or database_search.TOP
    )
    for found in answers:
        print(f"\n{database_search.format_answer(dataset, found)}")
    out = _SHOW.value or Path(_RUN_DIR.value) / "queries.png"
    contact_sheet([database_search.sheet_row(dataset, found) for found in answers], out)
    print(f"\ncontact sheet: {out}")


PROGRAM = Program(__doc__, main, FLAGS, GROUPS)
