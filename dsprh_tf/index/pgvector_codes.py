"""The distinct codes of an index of kind `hnsw` in PostgreSQL: a table of its own, with the graph.

A graph over the items would lose what stands beside many equal codes (see `distinct`). The table
`dsprh_codes_NAME` has each code once and its graph; the table of items has an index of (code, id).
A search goes through the graph and reads the items of each code, and looks up those with the
query's own code, which are found whatever the graph.

Both tables are changed in one transaction. Codes whose items are gone stay until the commit that
follows, and are harmless meanwhile. They may only be removed while nobody stores items, which could
have the same code: a batch holds the table's lock from its first code on.
"""

from __future__ import annotations

import hashlib

import psycopg
from psycopg import sql

PREFIX = "dsprh_codes_"
_NAME_BYTES = 63  # of an identifier, PostgreSQL's limit
_SWEPT = 1000  # codes that are looked at in one transaction, which keeps others from storing


class CodeTable:
    """The table of distinct codes of an index.

    All methods but `exists` and `drop` need that the table exists, or make it. Transactions are
    the caller's.

    Attributes:
        name: name of the table, without its schema.
        table: the same as SQL, after its schema.

    Args:
        names: name of the table of items, perhaps after its schema.
        bits: length of a code.
    """

    def __init__(self, names: tuple[str, ...], bits: int):
        name = PREFIX + names[-1]
        if len(name.encode()) > _NAME_BYTES:
            name = PREFIX + hashlib.sha256(names[-1].encode()).hexdigest()[:32]
        self.name, self._schema = name, names[:-1]
        self.table, self._items = sql.Identifier(*names[:-1], name), sql.Identifier(*names)
        self._bits = bits
        self._literal = sql.SQL("%s::bit({})").format(sql.Literal(bits))

    def exists(self, connection: psycopg.Connection) -> bool:
        """Whether there is such a table: not before the first commit, nor in older indexes."""
        name = self.table.as_string(connection)
        return connection.execute("SELECT to_regclass(%s)", (name,)).fetchone()[0] is not None

    def drop(self, connection: psycopg.Connection) -> None:
        """Removes the table, if there is one."""
        self._run(connection, "DROP TABLE IF EXISTS {codes}")

    def make(self, connection: psycopg.Connection) -> None:
        """Makes the table with its graph from the items, unless there is one.

        A graph of the items, which older indexes have, is dropped. Nobody can store items until
        the transaction ends.
        """
        self._run(connection, "LOCK TABLE {items} IN SHARE ROW EXCLUSIVE MODE")
        if self.exists(connection):
            return  # another process was faster
        for text in (
            "CREATE TABLE {codes} (code bit({bits}) NOT NULL)",
            "INSERT INTO {codes} SELECT DISTINCT code FROM {items}",
            "ALTER TABLE {codes} ADD PRIMARY KEY (code)",
            "CREATE INDEX ON {codes} USING hnsw (code bit_hamming_ops)",
            "CREATE INDEX ON {items} (code, id)",
        ):
            self._run(connection, text)
        graphs = connection.execute(
            "SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
            "JOIN pg_am a ON a.oid = c.relam WHERE i.indrelid = to_regclass(%s) "
            "AND a.amname = 'hnsw'",
            (self._items.as_string(connection),),
        ).fetchall()
        for (name,) in graphs:
            self._run(connection, "DROP INDEX {graph}", graph=sql.Identifier(*self._schema, name))

    def replaced(self, connection: psycopg.Connection, staging: sql.Identifier) -> set[str]:
        """Codes of the items that rows of `staging` will replace by others."""
        found = self._run(
            connection,
            "SELECT old.code FROM {items} old JOIN {staging} new USING (id) "
            "WHERE old.code <> new.code",
            staging=staging,
        )
        return {row[0] for row in found.fetchall()}

    def add(self, connection: psycopg.Connection, staging: sql.Identifier) -> None:
        """Adds the codes of `staging`, in one order, so that two processes never lock each other.

        Of the transaction that stores their items, after these.
        """
        self._run(
            connection,
            "INSERT INTO {codes} SELECT DISTINCT code FROM {staging} ORDER BY code "
            "ON CONFLICT DO NOTHING",
            staging=staging,
        )

    def sweep(self, connection: psycopg.Connection, codes: set[str]) -> None:
        """Removes those of some codes that no item has any more, in transactions of its own."""
        left = sorted(codes)
        for start in range(0, len(left), _SWEPT):
            with connection.transaction():
                # Waits for those who are storing, and sees their items then.
                self._run(connection, "LOCK TABLE {codes} IN SHARE ROW EXCLUSIVE MODE")
                self._run(
                    connection,
                    "DELETE FROM {codes} c WHERE code = ANY(%s::bit({bits})[]) "
                    "AND NOT EXISTS (SELECT FROM {items} WHERE code = c.code)",
                    (left[start : start + _SWEPT],),
                )

    def nearest(self, connection: psycopg.Connection, code: str, k: int) -> list[tuple[int, int]]:
        """Up to k ids and distances: items with the same code, and those that the graph finds."""
        found = self._run(
            connection,
            "(SELECT id, 0 FROM {items} WHERE code = {query} ORDER BY id LIMIT %s) UNION ALL "
            # The scan of the graph goes on until there are k items.
            "(SELECT i.id, (c.code <~> {query})::int FROM {codes} c CROSS JOIN LATERAL "
            "(SELECT id FROM {items} WHERE code = c.code ORDER BY id LIMIT %s) i "
            "ORDER BY c.code <~> {query} LIMIT %s)",
            (code, k, code, k, code, k),
        )
        both = sorted(set(found.fetchall()), key=lambda row: (row[1], row[0]))
        return both[:k]

    def count(self, connection: psycopg.Connection) -> int:
        """Number of codes: reads the whole table."""
        return self._run(connection, "SELECT count(*) FROM {codes}").fetchone()[0]

    def _run(self, connection: psycopg.Connection, text: str, values=(), **names) -> psycopg.Cursor:
        query = sql.SQL(text).format(
            codes=self.table,
            items=self._items,
            bits=sql.Literal(self._bits),
            query=self._literal,
            **names,
        )
        return connection.execute(query, values or None)
