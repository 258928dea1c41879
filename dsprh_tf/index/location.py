"""The engine of an index, found by its location: a folder, or the address of a database."""

from __future__ import annotations

import os
import re
import urllib.parse

from dsprh_tf.index.database import without_password
from dsprh_tf.index.hamming import HammingIndex
from dsprh_tf.index.interface import Index


def open_index(location: str, write: bool = False, verify: bool = True) -> Index:
    """The index at a location.

    Args:
        location: a folder, or an address as in `milvus` and `pgvector`.
        write: whether the index will be changed.
        verify: whether to compare checksums, see `HammingIndex.load`.

    Raises:
        ValueError: there is no index, it is broken, or the engine's packages are missing.
        OSError: the database cannot be reached.
    """
    engine = _database(location)
    if engine is not None:
        return engine.load(location, write)
    return HammingIndex.load(location, write, verify)


def create_index(
    location: str, bits: int, fingerprint: str, kind: str = "flat", overwrite: bool = False
) -> Index:
    """An empty index at a location: in a folder once it is committed, in a database at once.

    Args:
        location: a folder, or an address.
        bits: length of a code.
        fingerprint: of the encoders.
        kind: kind of search, see `HammingIndex` and each engine.
        overwrite: whether it may replace an index that is there.

    Raises:
        ValueError: there is an index already, the kind is unknown, or packages are missing.
        OSError: the database cannot be reached.
    """
    engine = _database(location)
    if engine is not None:
        return engine.create(location, bits, fingerprint, kind, overwrite)
    return HammingIndex.create(location, bits, fingerprint, kind, overwrite)


def check_encoders(name: str, index: Index, bits: int, fingerprint: str | None) -> None:
    """Compares the encoders of an index with those of codes or queries.

    Args:
        name: owner of `bits` and `fingerprint`, the subject of the error line.
        index: the index.
        bits: length of the other codes.
        fingerprint: of the other encoders.

    Raises:
        ValueError: they differ, so that distances would mean nothing.
    """
    if bits != index.bits:
        raise ValueError(
            f"{name} makes codes of {bits} bits, the index was built with {index.bits}: use the "
            "encoders that the index was built with, or build it again"
        )
    if fingerprint != index.fingerprint:
        raise ValueError(
            f"{name} is of other encoders than the index (fingerprint {_short(fingerprint)}, the "
            f"index has {_short(index.fingerprint)}): their codes cannot be compared; use the "
            "encoders that the index was built with, or encode and build again"
        )


def short_name(location: str) -> str:
    """Name of the index at a location for a title: its folder, collection or table."""
    if "://" not in location:
        return os.path.basename(os.path.abspath(location))
    parts = urllib.parse.urlsplit(location)
    table = dict(urllib.parse.parse_qsl(parts.query)).get("table")
    return table or parts.path.rpartition("/")[2]


def _database(location: str):
    """The class of a database's index, whose packages are imported only then; None for a folder."""
    scheme = re.match(r"(\w[\w+.-]*)://", location)
    if not scheme:
        return None
    name, shown = scheme[1], without_password(location)
    try:
        if name == "milvus":
            from dsprh_tf.index.milvus import MilvusIndex

            return MilvusIndex
        if name in ("postgresql", "postgres"):
            from dsprh_tf.index.pgvector import PgvectorIndex

            return PgvectorIndex
    except ImportError as error:
        file = f"requirements-{'milvus' if name == 'milvus' else 'pgvector'}.txt"
        raise ValueError(
            f"--index={shown}: the client of {name} is not installed ({error}); pip install -r "
            f"{file}"
        ) from error
    raise ValueError(
        f"--index={shown}: no engine for {name}://, expected a folder, "
        "milvus://host:port/collection or postgresql://user@host:port/database?table=NAME"
    )


def _short(fingerprint: str | None) -> str:
    return "unknown" if fingerprint is None else fingerprint[:12]
