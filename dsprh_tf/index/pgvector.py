"""An index in PostgreSQL with pgvector: `bit(n)`, the distance `<~>`, HNSW over `bit_hamming_ops`.

The address is that of libpq: postgresql://user@host:port/database?table=NAME, where NAME may begin
with a schema ("photos.codes"). `timeout` (seconds) is this module's, every other option libpq's.

The table has one row per item; bits, kind and fingerprint of all indexes of a schema are in its
table `dsprh_indexes`. A batch is a transaction of its own. `hnsw` has a second table, of the
distinct codes, with the graph (see `pgvector_codes`). It is made at the first commit, which is
faster than growing it row by row; until then every search is exact. Format 1 of `hnsw` had a graph
of all items: it is searched as it is, and the next commit replaces it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import urllib.parse
import weakref
from collections.abc import Iterator, Sequence

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.compute as pc
from psycopg import sql
from psycopg.rows import dict_row

from dsprh_tf.index import checks, pgvector_words
from dsprh_tf.index.database import Address, Database, stored_schema
from dsprh_tf.index.interface import EVERYTHING, Where
from dsprh_tf.index.items import SCHEMA
from dsprh_tf.index.pgvector_codes import CodeTable

_NEEDED = (0, 8)  # the first pgvector that searches a graph until it has k rows
_PAGE = 10_000  # rows read at a time
_GRACE = 5.0  # seconds after the timeout until the connection to a silent server is closed
_NAME_BYTES = 63  # of an identifier, PostgreSQL's limit
_EF = 128, 1000  # candidates of a search in a graph: at least, and at most in pgvector
_MOST_LEFT = 10_000  # codes of removed items that are kept in memory
_STAGING = sql.Identifier("pg_temp", "dsprh_staging")
_TYPES = {
    "id": "bigint",
    "modality": "text",
    "path": "text",
    "text": "text",
    "size": "bigint",
    "sha256": "bytea",
    "tags": "text[]",
}


class PgvectorIndex(Database):
    """An index in a PostgreSQL table, made by `create` or `load`; see the module.

    Args:
        location: an address.
        write: whether the index may be changed.

    Raises:
        ValueError: it is not the address of a table.
    """

    ENGINE, PLACE, KINDS = "PostgreSQL", "table", ("flat", "hnsw")
    FORMATS = (1, 2)

    def __init__(self, location: str, write: bool):
        super().__init__(_address(location), write)
        self._connection: psycopg.Connection = None
        self._close: weakref.finalize | None = None
        self._hung_up = False  # whether the last call was ended by `_hang_up`
        self._names = tuple(self.address.options["table"].split("."))
        self._table = sql.Identifier(*self._names)
        self._about_table = sql.Identifier(*self._names[:-1], "dsprh_indexes")
        self._left: set[str] = set()  # codes that removed or replaced items had

    @classmethod
    def _format(cls, kind: str) -> int:
        return 2 if kind == "hnsw" else 1

    @property
    def _codes(self) -> CodeTable:
        return CodeTable(self._names, self.bits)

    def _make(self, about: dict, overwrite: bool) -> None:
        self._connect(extension=True)
        with self._talking() as connection, connection.transaction():
            if self._columns():
                self._check_place(self._read_about() is not None, overwrite)
                connection.execute(sql.SQL("DROP TABLE {}").format(self._table))
            if list(self._columns(self._codes.table)) not in ([], ["code"]):
                raise ValueError(
                    f"{self.address.shown}: the table {self._codes.name} exists and is not of an "
                    "index; give another name"
                )
            self._codes.drop(connection)
            columns = sql.SQL(", ").join(
                sql.SQL("{} {} {}").format(
                    sql.Identifier(name),
                    sql.SQL(kind_of),
                    sql.SQL({"id": "PRIMARY KEY"}.get(name, "NOT NULL" if name in
                            ("code", "modality", "tags") else "")),
                )
                for name, kind_of in self._expected().items()
            )  # fmt: skip
            connection.execute(sql.SQL("CREATE TABLE {} ({})").format(self._table, columns))
            connection.execute(sql.SQL("CREATE INDEX ON {} USING gin (tags)").format(self._table))
            pgvector_words.make(connection, self._table)
            connection.execute(
                sql.SQL("CREATE INDEX ON {} USING spgist (path)").format(self._table)
            )
            connection.execute(
                sql.SQL(
                    "CREATE TABLE IF NOT EXISTS {} (name text PRIMARY KEY, format int NOT NULL, "
                    "bits int NOT NULL, kind text NOT NULL, fingerprint text)"
                ).format(self._about_table)
            )
            connection.execute(
                sql.SQL(
                    "INSERT INTO {} VALUES (%s, %s, %s, %s, %s) ON CONFLICT (name) DO UPDATE SET "
                    "format = EXCLUDED.format, bits = EXCLUDED.bits, kind = EXCLUDED.kind, "
                    "fingerprint = EXCLUDED.fingerprint"
                ).format(self._about_table),
                (self._names[-1], *about.values()),
            )

    def _find(self) -> tuple[dict[str, str] | None, dict | None]:
        self._connect(extension=False)
        with self._talking():
            return self._columns() or None, self._read_about()

    # The connection

    def _connect(self, extension: bool) -> None:
        self._connection = None
        with self._talking():
            self._connection = self._open()
            if extension and not self._extension():
                self._install()
            found = self._extension()
        version = tuple(int(part) for part in found.split(".")[:2]) if found else None
        if version is None or version < _NEEDED:
            raise ValueError(
                f"{self.address.shown}: pgvector is {found or 'not there'}, expected 0.8 or newer: "
                "install it on the server, then CREATE EXTENSION vector (or ALTER EXTENSION vector "
                "UPDATE) in the database"
            )

    def _open(self) -> psycopg.Connection:
        options = {k: v for k, v in self.address.options.items() if k != "table"}
        query = urllib.parse.urlencode(options, quote_via=urllib.parse.quote)
        milliseconds = int(1000 * self.address.timeout)
        connection = psycopg.connect(
            urllib.parse.urlunsplit(self.address.parts._replace(query=query)),
            autocommit=True,
            connect_timeout=max(2, int(self.address.timeout)),
            tcp_user_timeout=milliseconds,
            application_name="dsprh_tf",
        )
        if self._close is not None:
            self._close()  # the one before, which broke
        self._close = weakref.finalize(self, connection.close)
        _set(connection, "statement_timeout", milliseconds)
        return connection

    def _extension(self) -> str | None:
        """The version of pgvector in the database."""
        query = "SELECT extversion FROM pg_extension WHERE extname = 'vector'"
        found = self._connection.execute(query).fetchone()
        return found[0] if found else None

    def _install(self) -> None:
        try:
            self._connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        except (psycopg.errors.InsufficientPrivilege, psycopg.NotSupportedError,
                psycopg.errors.UndefinedFile) as error:  # fmt: skip
            raise ValueError(
                f"{self.address.shown}: pgvector is not there and cannot be made ({_line(error)}): "
                "install it on the server, then CREATE EXTENSION vector as its owner"
            ) from error

    @contextlib.contextmanager
    def _talking(self, unlimited: bool = False) -> Iterator[psycopg.Connection]:
        """The connection; errors become one line, and no call takes longer than the timeout.

        A broken connection is opened anew, so that a page outlives a restart of its database.
        """
        self._hung_up = False
        timer = threading.Timer(self.address.timeout + _GRACE, self._hang_up)
        timer.daemon = True
        shown, limit = self.address.shown, f"{self.address.timeout:g}"
        try:
            if self._connection is not None and self._connection.closed:
                self._connection = self._open()
            if self._connection is not None and not unlimited:
                timer.start()
            yield self._connection
        except psycopg.errors.QueryCanceled as error:
            raise OSError(
                f"{shown} did not answer within {limit} s ({_line(error)}); where it needs longer, "
                "give ?timeout=SECONDS in the address"
            ) from error
        except psycopg.ProgrammingError as error:
            if self._connection is None:
                raise ValueError(f"--index={shown} is not an address ({_line(error)})") from error
            raise OSError(f"{shown}: the database failed ({_line(error)})") from error
        except psycopg.DataError as error:
            raise ValueError(f"{shown} cannot hold a value: {_line(error)}") from error
        except psycopg.OperationalError as error:
            silent = f", silent for {limit} s" if self._hung_up else ""
            raise OSError(
                f"{shown}: no connection to the database ({_line(error)}{silent}): start it, or "
                "check the address"
            ) from error
        except psycopg.Error as error:
            raise OSError(f"{shown}: the database failed ({_line(error)})") from error
        finally:
            timer.cancel()

    def _hang_up(self) -> None:
        self._hung_up = True  # before the connection breaks, which the other thread sees at once
        with contextlib.suppress(OSError, psycopg.Error):
            copy = socket.socket(fileno=os.dup(self._connection.fileno()))
            copy.shutdown(socket.SHUT_RDWR)
            copy.close()

    def _read_about(self) -> dict | None:
        exists = self._connection.execute(
            "SELECT to_regclass(%s)", (self._about_table.as_string(self._connection),)
        ).fetchone()[0]
        if exists is None:
            return None
        with self._connection.cursor(row_factory=dict_row) as cursor:
            query = sql.SQL("SELECT * FROM {} WHERE name = %s").format(self._about_table)
            return cursor.execute(query, (self._names[-1],)).fetchone()

    def _columns(self, table: sql.Identifier | None = None) -> dict[str, str]:
        """Columns of the table, or of another, and their types; empty if there is no table."""
        return dict(self._connection.execute(
            "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute "
            "WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
            ((table or self._table).as_string(self._connection),),
        ).fetchall())  # fmt: skip

    def _expected(self) -> dict[str, str]:
        return {**_TYPES, "code": f"bit({self.bits})"}

    # Changes

    def _check_items(self, items: pa.Table) -> None:
        tags = items["tags"].combine_chunks()
        each = pa.array(np.arange(len(items)))
        for name, values, rows in (
            ("path", items["path"].combine_chunks(), each),
            ("text", items["text"].combine_chunks(), each),
            ("a tag", pc.list_flatten(tags), pc.list_parent_indices(tags)),
        ):
            wrong = pc.fill_null(pc.match_substring(values, "\0"), False)
            for item in items["id"].take(rows.filter(wrong)[:1]).to_pylist():
                raise ValueError(
                    f"{name} of item {item} has a zero character, which PostgreSQL cannot hold: "
                    "correct it, or remove the row"
                )

    def _store(self, rows: pa.Table) -> None:
        columns = sql.SQL(", ").join(map(sql.Identifier, self._expected()))
        sets = sql.SQL(", ").join(
            sql.SQL("{0} = EXCLUDED.{0}").format(sql.Identifier(name))
            for name in self._expected()
            if name != "id"
        )
        values = [rows[name].to_pylist() for name in SCHEMA.names]
        values.append(_bit_strings(b"".join(rows["code"].to_pylist()), self.bits))
        with self._talking() as connection, connection.transaction():
            connection.execute(
                sql.SQL(
                    "CREATE TEMP TABLE IF NOT EXISTS dsprh_staging (LIKE {}) ON COMMIT DELETE ROWS"
                ).format(self._table)
            )
            into = sql.SQL("COPY {} ({}) FROM STDIN").format(_STAGING, columns)
            with connection.cursor().copy(into) as copy:
                for row in zip(*values):
                    copy.write_row(row)
            # From here on no other process can make the table of codes.
            connection.execute(sql.SQL("LOCK TABLE {} IN ROW EXCLUSIVE MODE").format(self._table))
            codes = self._codes if self.kind == "hnsw" and self._codes.exists(connection) else None
            left = codes.replaced(connection, _STAGING) if codes else set()
            connection.execute(
                sql.SQL(
                    "INSERT INTO {} ({}) SELECT {} FROM {} ORDER BY id "
                    "ON CONFLICT (id) DO UPDATE SET {}"
                ).format(self._table, columns, columns, _STAGING, sets)
            )
            if codes:
                codes.add(connection, _STAGING)
        self._leave(left)

    def _delete(self, ids: np.ndarray) -> int:
        query = sql.SQL("DELETE FROM {} WHERE id = ANY(%s) RETURNING code").format(self._table)
        with self._talking() as connection:
            rows = connection.execute(query, (ids.tolist(),)).fetchall()
        self._leave({code for (code,) in rows})
        return len(rows)

    def _leave(self, codes: set[str]) -> None:
        """Remembers codes that items no longer have, for `_sweep`."""
        if self.kind != "hnsw":
            return
        self._left |= codes
        if len(self._left) > _MOST_LEFT:
            with self._talking() as connection:
                self._sweep(connection)

    def commit(self) -> None:
        """Builds the graph of `hnsw` if there is none yet, without a timeout.

        Raises:
            OSError: the database failed.
        """
        checks.check_writable(self._write)
        with self._talking(unlimited=True) as connection:
            _set(self._connection, "statement_timeout", 0)
            tables = [self._table]
            if self.kind == "hnsw" and (self._codes.exists(connection) or self.any()):
                if not self._codes.exists(connection):
                    with connection.transaction():
                        self._codes.make(connection)
                        connection.execute(
                            sql.SQL("UPDATE {} SET format = 2 WHERE name = %s").format(
                                self._about_table
                            ),
                            (self._names[-1],),
                        )
                self._sweep(connection)
                tables.append(self._codes.table)
            for table in tables:
                connection.execute(sql.SQL("ANALYZE {}").format(table))
            _set(self._connection, "statement_timeout", int(1000 * self.address.timeout))

    def _sweep(self, connection: psycopg.Connection) -> None:
        """Removes codes that are of no item any more."""
        if self._codes.exists(connection):
            self._codes.sweep(connection, self._left)
        self._left = set()

    # Queries

    def _fetch(self, ids: np.ndarray, columns: list[str]) -> pa.Table:
        query = sql.SQL("SELECT {} FROM {} WHERE id = ANY(%s)").format(
            sql.SQL(", ").join(map(sql.Identifier, columns)), self._table
        )
        with self._talking() as connection:
            rows = connection.execute(query, (ids.tolist(),)).fetchall()
        return self._as_table(rows, columns)

    def _scan(self, where: Where, column: str | None = None) -> Iterator[pa.Table]:
        columns = ["id"] if column is None else ["id", column]
        condition, values = _condition(where)
        query = sql.SQL("SELECT {} FROM {} WHERE {} AND id > %s ORDER BY id LIMIT %s").format(
            sql.SQL(", ").join(map(sql.Identifier, columns)), self._table, condition
        )
        last = -(2**63)
        while True:
            with self._talking() as connection:
                rows = connection.execute(query, (*values, last, _PAGE)).fetchall()
            if rows:
                yield self._as_table(rows, columns)
            if len(rows) < _PAGE:
                return
            last = rows[-1][0]

    def _nearest(self, query: np.ndarray, k: int, where: Where) -> list[tuple[list, list]]:
        graph = self.kind == "hnsw" and not where
        found, tuned, codes = [], None, False
        for code in _bit_strings(np.ascontiguousarray(query).tobytes(), self.bits):
            with self._talking() as connection:
                if graph and connection is not tuned:
                    _set(connection, "hnsw.iterative_scan", "strict_order")
                    _set(connection, "hnsw.ef_search", min(max(_EF[0], 2 * k), _EF[1]))
                    _set(connection, "hnsw.max_scan_tuples", max(20_000, 20 * k))
                    tuned, codes = connection, self._codes.exists(connection)
                rows: list = []
                if codes:
                    rows = self._codes.nearest(connection, code, k)
                elif graph:  # of format 1, or none yet
                    rows = self._ordered(connection, code, k, where, graph=True)
                # A graph finds fewer where its links, or the memory of a scan, end before k items.
                if len(rows) < k:
                    rows = self._ordered(connection, code, k, where, graph=False)
            found.append(([row[0] for row in rows], [row[1] for row in rows]))
        return found

    def _ordered(self, connection, code: str, k: int, where: Where, graph: bool) -> list[tuple]:
        """Up to k ids and distances, read from the table of items in the order of distances."""
        condition, values = _condition(where)
        # Only the bare operator can use a graph; cast to int, the search is exact.
        order = "code <~> {0}" if graph else "(code <~> {0})::int, id"
        bits = sql.SQL("%s::bit({})").format(sql.Literal(self.bits))
        text = sql.SQL(
            f"SELECT id, (code <~> {{0}})::int FROM {{1}} WHERE {{2}} ORDER BY {order} LIMIT %s"
        ).format(bits, self._table, condition)
        return connection.execute(text, (code, *values, code, k)).fetchall()

    def _by_words(self, words: Sequence[str], k: int, where: Where) -> list[int]:
        condition, values = _condition(where)
        with self._talking() as connection:
            return pgvector_words.ranked(connection, self._table, words, k, condition, values)

    def count(self, where: Where = EVERYTHING) -> int:
        """Number of items that a filter admits: reads the whole table."""
        return self._one("SELECT count(*) FROM {} WHERE {}", where)

    def any(self, where: Where = EVERYTHING) -> bool:
        """Whether there is an item that a filter admits."""
        return self._one("SELECT EXISTS (SELECT FROM {} WHERE {})", where)

    def _one(self, text: str, where: Where):
        condition, values = _condition(where)
        with self._talking() as connection:
            query = sql.SQL(text).format(self._table, condition)
            return connection.execute(query, values).fetchone()[0]

    def _about(self) -> dict:
        with self._talking() as connection:
            codes = self._codes if self._codes.exists(connection) else None
            count = codes.count(connection) if codes else None
            server, extension, size, table, of_codes = connection.execute(
                "SELECT current_setting('server_version'), (SELECT extversion FROM pg_extension "
                "WHERE extname = 'vector'), pg_total_relation_size(t), pg_table_size(t), "
                "coalesce(pg_total_relation_size(c), 0) "
                "FROM (SELECT to_regclass(%s) AS t, to_regclass(%s) AS c) s",
                (self._table.as_string(connection), self._codes.table.as_string(connection)),
            ).fetchone()
        return {
            "distinct codes": count,
            "engine": f"PostgreSQL {server}, pgvector {extension}",
            "bytes": size + of_codes,
            "bytes of table": table,
            "bytes of indexes": size - table,
            "bytes of distinct codes and graph": of_codes,
        }

    def _as_table(self, rows: list[tuple], columns: list[str]) -> pa.Table:
        values = {name: [row[i] for row in rows] for i, name in enumerate(columns)}
        if "code" in values:
            digits = np.frombuffer("".join(values["code"]).encode(), np.uint8) - ord("0")
            codes = np.packbits(digits.reshape(-1, self.bits), axis=1)
            values["code"] = [code.tobytes() for code in codes]
        return pa.table(values, stored_schema(self.bits, columns))


def _set(connection: psycopg.Connection, name: str, value) -> None:
    connection.execute("SELECT set_config(%s, %s, false)", (name, str(value)))


def _address(location: str) -> Address:
    address = Address.parse(location)
    table = address.options.get("table", "")
    names = table.split(".")
    if len(names) > 2 or not all(0 < len(n.encode()) <= _NAME_BYTES for n in names):
        raise ValueError(
            f"--index={address.shown}: table is {table!r}, expected ?table=NAME or ?table="
            f"SCHEMA.NAME, each of at most {_NAME_BYTES} bytes"
        )
    return address


def _condition(where: Where) -> tuple[sql.Composable, list]:
    """A filter in SQL, and its values."""
    parts, values = [sql.SQL("true")], []
    for text, value in (
        ("modality = %s", where.modality),
        ("path ^@ %s", where.prefix),
        *(("tags && %s::text[]", list(group)) for group in where.groups),
        ("NOT tags && %s::text[]", list(where.without) or None),
    ):
        if value is not None:
            parts.append(sql.SQL(text))
            values.append(value)
    return sql.SQL(" AND ").join(parts), values


def _bit_strings(packed: bytes, bits: int) -> list[str]:
    """Packed codes as bit strings of PostgreSQL, in the order of `numpy.packbits`."""
    digits = (np.unpackbits(np.frombuffer(packed, np.uint8)) + ord("0")).tobytes().decode()
    return [digits[start : start + bits] for start in range(0, len(digits), bits)]


def _line(error: Exception) -> str:
    """The first line of an error."""
    return (str(error).strip().split("\n") or [""])[0][:300]
