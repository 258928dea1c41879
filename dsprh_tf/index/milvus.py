"""An index in Milvus: a collection with a `BINARY_VECTOR`, searched by HAMMING.

The address is milvus://[user:password@]host:port/collection for a server or a cluster (?secure=true
for TLS, ?timeout=SECONDS), and milvus:///folder/file.db/collection for Milvus Lite, a file that one
process at a time can open.

`flat` is BIN_FLAT, `ivf` is BIN_IVF_FLAT, which Milvus Lite does not have. Consistency is Strong: a
query sees every batch that was acknowledged before. Batches are upserts, so that repeating one
changes nothing. Bits, kind and fingerprint are in the collection's description. Not every form of
Milvus has null: an empty string, or the size -1, stands for it.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import os
import urllib.parse
import warnings
from collections.abc import Iterator, Sequence

import grpc
import numpy as np
import pyarrow as pa

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # from packages that it imports
    import pymilvus
    from pymilvus import DataType, MilvusClient, MilvusException

from dsprh_tf.index import checks
from dsprh_tf.index.database import Address, Database, stored_schema
from dsprh_tf.index.interface import EVERYTHING, Where
from dsprh_tf.index.words import tags_with, weights, words_of

_INDEXES = {"flat": "BIN_FLAT", "ivf": "BIN_IVF_FLAT"}
_LISTS, _PROBED = 1024, 64  # inverted lists per segment, and those that a search reads
_QUERIES = 64  # of one call
_LEFT_OUT = 100_000  # items that a filter may name: 2 MB of an expression
_PAGE = 1000  # rows read at a time
_TEXT_BYTES = 65_535  # of a string, Milvus's limit
_PORT = 19530
_STRONG = "Strong"
_FIELDS = {
    "id": (DataType.INT64, {"is_primary": True}),
    "code": (DataType.BINARY_VECTOR, {}),
    "modality": (DataType.VARCHAR, {"max_length": 8}),
    "path": (DataType.VARCHAR, {"max_length": _TEXT_BYTES}),
    "text": (DataType.VARCHAR, {"max_length": _TEXT_BYTES}),
    "size": (DataType.INT64, {}),
    "sha256": (DataType.VARCHAR, {"max_length": 64}),
    "tags": (DataType.JSON, {}),  # {"all": [...]}; arrays of strings fail in Milvus Lite
}

# They log errors and raise them as well; the second has a level of its own.
for _name in ("pymilvus", "pymilvus.milvus_client"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)


class MilvusIndex(Database):
    """An index in a Milvus collection, made by `create` or `load`; see the module.

    Args:
        location: an address.
        write: whether the index may be changed.

    Raises:
        ValueError: it is not the address of a collection.
    """

    ENGINE, PLACE, KINDS = "Milvus", "collection", tuple(_INDEXES)
    MOST = 16_384

    def __init__(self, location: str, write: bool):
        address, self._uri, self._name = _address(location)
        super().__init__(address, write)

    def _make(self, about: dict, overwrite: bool) -> None:
        if self.kind != "flat" and self._uri.endswith(".db"):
            raise ValueError(f"{self.address.shown}: Milvus Lite has only --kind=flat")
        self._connect()
        if (found := self._describe()) is not None:
            self._check_place(_about_of(found) is not None, overwrite)
            self._call("drop_collection", self._name)
        schema = MilvusClient.create_schema(
            auto_id=False, enable_dynamic_field=False, description=json.dumps(about)
        )
        for field, (kind_of, options) in _FIELDS.items():
            options = {"dim": self.bits} if field == "code" else options
            schema.add_field(field, kind_of, **options)
        params = MilvusClient.prepare_index_params()
        params.add_index(
            "code",
            index_type=_INDEXES[self.kind],
            metric_type="HAMMING",
            params={"nlist": _LISTS} if self.kind == "ivf" else {},
        )
        self._call(
            "create_collection",
            self._name,
            schema=schema,
            index_params=params,
            consistency_level=_STRONG,
        )

    def _find(self) -> tuple[dict[str, str] | None, dict | None]:
        if self._uri.endswith(".db") and not os.path.exists(self._uri):
            return None, None  # connecting would make it
        self._connect()
        found = self._describe()
        if found is None:
            return None, None
        fields = {f["name"]: _type(f["type"], f["params"].get("dim")) for f in found["fields"]}
        about = _about_of(found)
        if about is not None:
            self._call("load_collection", self._name)
        return fields, about

    def _expected(self) -> dict[str, str]:
        return {
            field: _type(kind_of, self.bits if field == "code" else None)
            for field, (kind_of, _) in _FIELDS.items()
        }

    # The connection

    def _connect(self) -> None:
        self._client = None
        parts = self.address.parts
        self._client = self._guarded(
            MilvusClient,
            self._uri,
            user=urllib.parse.unquote(parts.username or ""),
            password=urllib.parse.unquote(parts.password or ""),
            token=os.environ.get("MILVUS_TOKEN", ""),
            timeout=math.ceil(self.address.timeout),
        )

    def _call(self, method: str, *arguments, **options):
        """Calls a method of the client with the timeout; see `_guarded`."""
        # In whole seconds: with others, the client tries 75 times instead.
        options["timeout"] = math.ceil(self.address.timeout)
        return self._guarded(getattr(self._client, method), *arguments, **options)

    def _guarded(self, function, *arguments, **options):
        """Calls a function; errors of Milvus become a ValueError or OSError of one line."""
        shown, limit = self.address.shown, f"{self.address.timeout:g}"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return function(*arguments, **options)
        except grpc.RpcError as error:
            raise OSError(
                f"{shown}: Milvus did not answer within {limit} s ({error.code().name}); start it, "
                "or give ?timeout=SECONDS in the address"
            ) from error
        except MilvusException as error:
            reason = " ".join(str(error.message).split())[:300]
            if isinstance(error, pymilvus.exceptions.ParamError):
                raise ValueError(f"{shown}: {reason}") from error
            if self._client is None or "connect" in reason.lower():
                raise OSError(
                    f"{shown}: no connection to Milvus ({reason}): start it, or check the address"
                ) from error
            raise OSError(
                f"{shown}: Milvus failed, or did not answer within {limit} s ({reason})"
            ) from error

    def _describe(self) -> dict | None:
        if not self._call("has_collection", self._name):
            return None
        return self._call("describe_collection", self._name)

    # Changes

    def _check_items(self, items: pa.Table) -> None:
        for row, item in enumerate(items.select(["id", "path", "text"]).to_pylist()):
            for name in ("path", "text"):
                size = len((item[name] or "").encode("utf-8"))
                if size > _TEXT_BYTES:
                    raise ValueError(
                        f"{name} of item {item['id']} (row {row}) has {size:,} bytes, Milvus holds "
                        f"at most {_TEXT_BYTES:,}: shorten it, or remove the row"
                    )

    def _store(self, rows: pa.Table) -> None:
        data = rows.to_pylist()
        for row in data:
            row["path"], row["text"] = row["path"] or "", row["text"] or ""
            row["size"] = -1 if row["size"] is None else row["size"]
            row["sha256"] = (row["sha256"] or b"").hex()
            row["tags"] = {"all": row["tags"]}
        self._call("upsert", self._name, data)

    def _delete(self, ids: np.ndarray) -> int:
        there = self._fetch(ids, ["id"])["id"].to_pylist()
        if there:
            self._call("delete", self._name, ids=there)
        return len(set(there))

    def commit(self) -> None:
        """Asks Milvus to seal what it holds in memory; acknowledged batches are in its log anyway.

        Raises:
            OSError: Milvus failed.
        """
        checks.check_writable(self._write)
        self._call("flush", self._name)

    # Queries

    def _fetch(self, ids: np.ndarray, columns: list[str]) -> pa.Table:
        rows = self._query(f"id in {ids.tolist()}", columns)
        return self._as_table(rows, columns)

    def _scan(self, where: Where, column: str | None = None) -> Iterator[pa.Table]:
        columns = ["id"] if column is None else ["id", column]
        pages = self._call(
            "query_iterator",
            self._name,
            batch_size=_PAGE,
            filter=self._condition(where),
            output_fields=columns,
            consistency_level=_STRONG,
        )
        while rows := self._guarded(pages.next):
            yield self._as_table(rows, columns)
        pages.close()

    def _nearest(self, query: np.ndarray, k: int, where: Where) -> list[tuple[list, list]]:
        if k > self.MOST:
            raise ValueError(f"k is {k:,}, Milvus answers with at most {self.MOST:,} items")
        params = {}
        if self.kind == "ivf":
            params["nprobe"] = _LISTS if where else _PROBED
        found = []
        for start in range(0, len(query), _QUERIES):
            answers = self._call(
                "search",
                self._name,
                data=[code.tobytes() for code in query[start : start + _QUERIES]],
                anns_field="code",
                limit=k,
                filter=self._condition(where),
                search_params={"metric_type": "HAMMING", "params": params},
                consistency_level=_STRONG,
            )
            found += [
                ([hit["id"] for hit in hits], [round(hit["distance"]) for hit in hits])
                for hits in answers
            ]
        return found

    def _by_words(self, words: Sequence[str], k: int, where: Where) -> list[int]:
        """By expressions: of each word at most 16,384 items are looked at, Milvus's limit."""
        condition = self._condition(where)
        found: dict[str, list[int]] = {}
        for word in words:
            tags = tags_with(word, words)
            parts = [f'json_contains_any(tags["all"], [{", ".join(map(_quoted, tags))}])']
            for spelled in dict.fromkeys((word, word.upper(), word.capitalize())):
                parts.append(f"text like {_quoted(f'%{spelled}%')}")
            either = " and ".join(filter(None, [condition, f"({' or '.join(parts)})"]))
            columns = ["id", "text", "size", "path", "sha256", "tags"]
            rows = self._as_table(
                self._query(either, columns, limit=self.MOST), columns
            ).to_pylist()
            # A part of a longer word is no match.
            found[word] = [
                row["id"] for row in rows
                if word in words_of(row["text"] or "", None) or set(tags).intersection(row["tags"])
            ]  # fmt: skip
        total = self._query('text != ""', ["count(*)"])[0]["count(*)"]
        matched = {name for names in found.values() for name in names}
        chosen = weights({w: len(names) for w, names in found.items()}, max(total, len(matched)))
        scores: dict[int, float] = dict.fromkeys(matched, 0.0)
        for word, weight in chosen.items():
            for name in found[word]:
                scores[name] += weight
        return [n for n in sorted(scores, key=lambda n: (-scores[n], n)) if scores[n] > 0][:k]

    def count(self, where: Where = EVERYTHING) -> int:
        """Number of items that a filter admits."""
        return self._query(self._condition(where), ["count(*)"])[0]["count(*)"]

    def any(self, where: Where = EVERYTHING) -> bool:
        """Whether there is an item that a filter admits."""
        return bool(self._query(self._condition(where), ["id"], limit=1))

    def _condition(self, where: Where) -> str:
        """A filter as a Milvus expression.

        Items without some tags are all but those with one of them: Milvus Lite negates nothing
        but a list of ids.

        Raises:
            ValueError: too many items have one of those tags.
        """
        if not where.without:
            return _condition(where)
        out = self.ids_where(Where(tags=(where.without,)))
        if len(out) > _LEFT_OUT:
            raise ValueError(
                f"{len(out):,} items have one of the tags {', '.join(where.without)}, expected at "
                f"most {_LEFT_OUT:,} to leave out in Milvus: name rarer ones"
            )
        rest = _condition(dataclasses.replace(where, without=()))
        return " and ".join(filter(None, [rest, f"id not in {out.tolist()}" if len(out) else ""]))

    def _query(self, condition: str, columns: list[str], **options) -> list[dict]:
        return self._call(
            "query",
            self._name,
            filter=condition,
            output_fields=columns,
            consistency_level=_STRONG,
            **options,
        )

    def _about(self) -> dict:
        return {"engine": f"Milvus, {_INDEXES[self.kind]}", "consistency": _STRONG}

    def _as_table(self, rows, columns: list[str]) -> pa.Table:
        values = {name: [row[name] for row in rows] for name in columns}
        if "code" in values:
            values["code"] = [code[0] for code in values["code"]]
        if "size" in values:
            values["path"], values["text"] = (
                [value or None for value in values[name]] for name in ("path", "text")
            )
            values["size"] = [None if size < 0 else size for size in values["size"]]
            values["sha256"] = [bytes.fromhex(value) or None for value in values["sha256"]]
            values["tags"] = [
                (json.loads(tags) if isinstance(tags, str) else tags)["all"]
                for tags in values["tags"]
            ]
        return pa.table(values, stored_schema(self.bits, columns))


def _about_of(found: dict) -> dict | None:
    """The `about` in a collection's description; None if the collection is not an index."""
    try:
        about = json.loads(found["description"])
    except (KeyError, ValueError):
        return None
    return about if isinstance(about, dict) and "format" in about else None


def _type(kind_of: DataType, bits: int | None) -> str:
    return DataType(kind_of).name + (f"({bits})" if bits else "")


def _address(location: str) -> tuple[Address, str, str]:
    """An address, the URI for `MilvusClient`, and the name of the collection."""
    address = Address.parse(location)
    parts = address.parts
    folder, _, name = parts.path.rpartition("/")
    secure = address.options.get("secure", "false")
    unknown = set(address.options) - {"secure"}
    if unknown or secure not in ("true", "false"):
        wrong = f"{min(unknown)}" if unknown else f"secure={secure}"
        raise ValueError(
            f"--index={address.shown}: option {wrong} is unknown, expected timeout=SECONDS or "
            "secure=true"
        )
    file = urllib.parse.unquote(folder)
    lite = not parts.netloc
    if not name.isidentifier() or not name.isascii() or (lite and not file.endswith(".db")) or (
        not lite and (folder or not parts.hostname)
    ):  # fmt: skip
        raise ValueError(
            f"--index={address.shown}: expected milvus://host:port/collection or "
            "milvus:///folder/file.db/collection, the collection of letters, digits and _"
        )
    if lite:
        return address, file, name
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    scheme = "https" if secure == "true" else "http"
    return address, f"{scheme}://{host}:{parts.port or _PORT}", name


def _condition(where: Where) -> str:
    """A filter as a Milvus expression, with values quoted as JSON.

    A prefix becomes a range, since LIKE gives some characters of a path a special meaning.
    """
    parts = []
    if where.modality is not None:
        parts.append(f"modality == {_quoted(where.modality)}")
    if where.prefix:
        parts.append(f"path >= {_quoted(where.prefix)}")
        if after := _after(where.prefix):
            parts.append(f"path < {_quoted(after)}")
    elif where.prefix is not None:
        parts.append('path != ""')
    parts += [f'json_contains_any(tags["all"], [{", ".join(map(_quoted, group))}])'
              for group in where.groups]  # fmt: skip
    return " and ".join(parts)


def _after(prefix: str) -> str:
    """The first string after all strings with a prefix; "" if there is none."""
    prefix = prefix.rstrip("\U0010ffff")
    if not prefix:
        return ""
    code = ord(prefix[-1]) + 1
    return prefix[:-1] + chr(0xE000 if 0xD800 <= code <= 0xDFFF else code)


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)
