"""The words of an index in PostgreSQL, by its own full text search.

Texts are read with the configuration `simple`, which fits all languages: lower case, no stems. Tags
are found by the words of a query and by runs of up to three of them, in the usual spellings.
PostgreSQL's ranking knows nothing of how rare a word is, so items are ordered by the weights of
`words.weights`. New indexes have an index over the texts; an older one is read as a whole, unless

    CREATE INDEX ON photos USING gin (to_tsvector('simple', left(text, 100000)))
        WHERE text IS NOT NULL
"""

from __future__ import annotations

from collections.abc import Sequence

import psycopg
from psycopg import sql

from dsprh_tf.index.words import tags_with, weights

_VECTOR = "to_tsvector('simple', left(text, 100000))"  # longer ones are an error of PostgreSQL's
_HAS = f"(text IS NOT NULL AND {_VECTOR} @@ plainto_tsquery('simple', %s) OR tags && %s::text[])"


def make(connection: psycopg.Connection, table: sql.Identifier) -> None:
    """Makes the index over the texts of a table."""
    text = f"CREATE INDEX ON {{}} USING gin ({_VECTOR}) WHERE text IS NOT NULL"
    connection.execute(sql.SQL(text).format(table))


def ranked(
    connection: psycopg.Connection,
    table: sql.Identifier,
    words: Sequence[str],
    k: int,
    condition: sql.Composable,
    values: Sequence,
) -> list[int]:
    """Ids of the items with some words, as `Database.by_words`.

    Args:
        connection: to the database.
        table: the table of items.
        words: as of `by_words`.
        k: as of `by_words`.
        condition: which items count, in SQL.
        values: values of the condition.
    """

    def count(which: str, given: Sequence = ()) -> int:
        query = sql.SQL(f"SELECT count(*) FROM {{}} WHERE {which}").format(table)
        return connection.execute(query, given or None).fetchone()[0]

    asked = {word: [word, tags_with(word, words)] for word in words}
    counts = {word: count(_HAS, given) for word, given in asked.items()}
    chosen = weights(counts, count("text IS NOT NULL OR cardinality(tags) > 0"))
    if not chosen:
        return []
    given = [value for word in chosen for value in asked[word]]
    score = " + ".join(f"{_HAS}::int * %s::float8" for _ in chosen)
    weighted = [value for word, weight in chosen.items() for value in (*asked[word], weight)]
    query = sql.SQL(
        f"SELECT id FROM {{}} WHERE ({' OR '.join(_HAS for _ in chosen)}) AND {{}} "
        f"ORDER BY {score} DESC, id LIMIT %s"
    ).format(table, condition)
    rows = connection.execute(query, (*given, *values, *weighted, k)).fetchall()
    return [row[0] for row in rows]
