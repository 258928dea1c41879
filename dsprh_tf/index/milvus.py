"""An index in Milvus: a collection with a `BINARY_VECTOR`, searched by HAMMING.

The address is milvus://[user:password@]host:port/collection for a server or a cluster (?secure=true
for TLS, ?timeout=SECONDS), and milvus:///folder/file.db/collection for Milvus Lite, a file that one
process at a time can open.

`flat` is BIN_FLAT, `ivf` is BIN_IVF_FLAT, which Milvus Lite does not have. Consistency is Strong:
whoever asks after a batch was acknowledged sees it. Batches are upserts, so that repeating one
changes nothing. Bits, kind and fingerprint stand in the collection's description. Milvus has no
null in all its forms: an empty string, or the size -1, stands for it.
"""

from __future__ import annotations

import json
import logging
import math
import os
import urllib.parse
import warnings
from collections.abc import Iterator

import grpc
import numpy as np
import pyarrow as pa

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of packages that it imports
    import pymilvus
    from pymilvus import DataType, MilvusClient, MilvusException

from dsprh_tf import codes as binary
from dsprh_tf.index import checks
from dsprh_tf.index.database import FORMAT, Address, Database, stored_schema
from dsprh_tf.index.interface import EVERYTHING, Where

KINDS = {"flat": "BIN_FLAT", "ivf": "BIN_IVF_FLAT"}
_LISTS, _PROBED = 1024, 64  # inverted lists of a segment, and how many of them a search reads
_MOST = 16_384  # results of one query, Milvus's limit
_QUERIES = 64  # of one call
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

# They write errors beside raising them; the second has a level of its own.
for _name in ("pymilvus", "pymilvus.milvus_client"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)


class MilvusIndex(Database):
    """See the module, and `create` and `load`, which make it."""

    @classmethod
    def create(
        cls, location: str, bits: int, fingerprint: str | None, kind: str, overwrite: bool
    ) -> MilvusIndex:
        """An empty index, there at once; `overwrite` drops the one that is there.

        Raises:
            ValueError: a bad address or kind, an index is there already, or the collection is of
                something else.
            OSError: Milvus cannot be reached, or failed.
        """
        binary.check_bits(bits)
        checks.check_kind(kind, tuple(KINDS), "Milvus")
        address, uri, name = _address(location)
        if kind != "flat" and uri.endswith(".db"):
            raise ValueError(f"{address.shown}: Milvus Lite has only --kind=flat")
        about = {"format": FORMAT, "bits": int(bits), "kind": kind, "fingerprint": fingerprint}
        index = cls(address, write=True)
        index._adopt(about)
        index._connect(uri, name)
        if (found := index._describe()) is not None:
            if "format" not in index._read_about(found):
                raise ValueError(
                    f"{address.shown}: the collection is there and is no index; give another name"
                )
            if not overwrite:
                raise ValueError(
                    f"{address.shown} holds an index already: add to it, give another --index, "
                    "or build with --overwrite"
                )
            index._call("drop_collection", name)
        schema = MilvusClient.create_schema(
            auto_id=False, enable_dynamic_field=False, description=json.dumps(about)
        )
        for field, (kind_of, options) in _FIELDS.items():
            options = {"dim": index.bits} if field == "code" else options
            schema.add_field(field, kind_of, **options)
        params = MilvusClient.prepare_index_params()
        params.add_index(
            "code",
            index_type=KINDS[kind],
            metric_type="HAMMING",
            params={"nlist": _LISTS} if kind == "ivf" else {},
        )
        index._call(
            "create_collection",
            name,
            schema=schema,
            index_params=params,
            consistency_level=_STRONG,
        )
        return index

    @classmethod
    def load(cls, location: str, write: bool) -> MilvusIndex:
        """The index at an address.

        Raises:
            ValueError: there is none, or the collection has other fields.
            OSError: Milvus cannot be reached, or failed.
        """
        address, uri, name = _address(location)
        index = cls(address, write)
        if uri.endswith(".db") and not os.path.exists(uri):
            raise ValueError(
                f"{address.shown} holds no index ({uri} does not exist): build one with "
                "scripts/index.py build"
            )
        index._connect(uri, name)
        found = index._describe()
        about = {} if found is None else index._read_about(found)
        if "format" not in about:
            reason = "no such collection" if found is None else "the collection is of another"
            raise ValueError(
                f"{address.shown} holds no index ({reason}): build one with scripts/index.py build"
            )
        index._adopt(about)
        fields = {f["name"]: (f["type"], f["params"].get("dim")) for f in found["fields"]}
        expected = {
            field: (kind_of, index.bits if field == "code" else None)
            for field, (kind_of, _) in _FIELDS.items()
        }
        if fields != expected:
            wrong = sorted(set(fields.items()) ^ set(expected.items()), key=str)[0][0]
            raise ValueError(
                f"{address.shown}: the collection has another schema than an index of "
                f"{index.bits} bits (field {wrong}): build the index again under another name"
            )
        index._call("load_collection", name)
        return index

    # The connection

    def _connect(self, uri: str, name: str) -> None:
        self._name = name
        self._client = None
        parts = self.address.parts
        self._client = self._guarded(
            MilvusClient,
            uri,
            user=urllib.parse.unquote(parts.username or ""),
            password=urllib.parse.unquote(parts.password or ""),
            token=os.environ.get("MILVUS_TOKEN", ""),
            timeout=math.ceil(self.address.timeout),
        )

    def _call(self, method: str, *arguments, **options):
        """A method of the client, with the timeout; what goes wrong is one line."""
        # Whole seconds: given others, the client tries 75 times instead.
        options["timeout"] = math.ceil(self.address.timeout)
        return self._guarded(getattr(self._client, method), *arguments, **options)

    def _guarded(self, function, *arguments, **options):
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
                raise OSError(f"{shown}: no connection to Milvus ({reason})") from error
            raise OSError(
                f"{shown}: Milvus failed, or did not answer within {limit} s ({reason})"
            ) from error

    def _describe(self) -> dict | None:
        if not self._call("has_collection", self._name):
            return None
        return self._call("describe_collection", self._name)

    @staticmethod
    def _read_about(found: dict) -> dict:
        try:
            about = json.loads(found["description"])
        except (KeyError, ValueError):
            return {}
        return about if isinstance(about, dict) else {}

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
        return len(there)

    def commit(self) -> None:
        """Asks Milvus to seal what it holds in memory; what was acknowledged is in its log before.

        Raises:
            OSError: Milvus failed.
        """
        checks.check_writable(self._write)
        self._call("flush", self._name)

    # Questions

    def _fetch(self, ids: np.ndarray, columns: list[str]) -> pa.Table:
        rows = self._query(f"id in {ids.tolist()}", columns)
        return self._as_table(rows, columns)

    def _scan(self, where: Where, column: str | None = None) -> Iterator[pa.Table]:
        columns = ["id"] if column is None else ["id", column]
        pages = self._call(
            "query_iterator",
            self._name,
            batch_size=_PAGE,
            filter=_condition(where),
            output_fields=columns,
            consistency_level=_STRONG,
        )
        while rows := self._guarded(pages.next):
            yield self._as_table(rows, columns)
        pages.close()

    def _nearest(self, query: np.ndarray, k: int, where: Where) -> list[tuple[list, list]]:
        if k > _MOST:
            raise ValueError(f"k is {k:,}, Milvus answers with at most {_MOST:,} items")
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
                filter=_condition(where),
                search_params={"metric_type": "HAMMING", "params": params},
                consistency_level=_STRONG,
            )
            found += [
                ([hit["id"] for hit in hits], [round(hit["distance"]) for hit in hits])
                for hits in answers
            ]
        return found

    def count(self, where: Where = EVERYTHING) -> int:
        """How many items a filter admits."""
        return self._query(_condition(where), ["count(*)"])[0]["count(*)"]

    def any(self, where: Where = EVERYTHING) -> bool:
        """Whether there is an item that a filter admits."""
        return bool(self._query(_condition(where), ["id"], limit=1))

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
        return {"engine": f"Milvus, {KINDS[self.kind]}", "consistency": _STRONG}

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


def _address(location: str) -> tuple[Address, str, str]:
    """An address, what `MilvusClient` connects to, and the name of the collection."""
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
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    scheme = "https" if secure == "true" else "http"
    return address, f"{scheme}://{host}:{parts.port or _PORT}", name


def _condition(where: Where) -> str:
    """A filter in Milvus's language; values are quoted as JSON, which it reads.

    A prefix is a range, since LIKE gives some characters of a path a meaning of their own.
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
    if where.tag is not None:
        parts.append(f'json_contains(tags["all"], {_quoted(where.tag)})')
    return " and ".join(parts)


def _after(prefix: str) -> str:
    """The first string after all that begin with a prefix; "" if there is none."""
    prefix = prefix.rstrip("\U0010ffff")
    if not prefix:
        return ""
    code = ord(prefix[-1]) + 1
    return prefix[:-1] + chr(0xE000 if 0xD800 <= code <= 0xDFFF else code)


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)
