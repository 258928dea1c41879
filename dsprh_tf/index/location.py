"""Which engine keeps an index, by where it is: a folder, or the address of a database."""

from __future__ import annotations

import re

from dsprh_tf.index.hamming import HammingIndex
from dsprh_tf.index.interface import Index


def open_index(location: str, write: bool = False, verify: bool = True) -> Index:
    """The index at a location.

    Args:
        location: a folder.
        write: whether it will be changed.
        verify: whether to compare checksums, see `HammingIndex.load`.

    Raises:
        ValueError: there is none, or it is broken.
    """
    _check_folder(location)
    return HammingIndex.load(location, write, verify)


def create_index(
    location: str, bits: int, fingerprint: str, kind: str = "flat", overwrite: bool = False
) -> Index:
    """An empty index at a location, there once it is committed.

    Args:
        location: a folder.
        bits: length of a code.
        fingerprint: of the encoders.
        kind: of the search, see `HammingIndex`.
        overwrite: whether it may replace one that is there.

    Raises:
        ValueError: there is one already, or the kind is unknown.
    """
    _check_folder(location)
    return HammingIndex.create(location, bits, fingerprint, kind, overwrite)


def check_encoders(name: str, index: Index, bits: int, fingerprint: str | None) -> None:
    """Compares the encoders of an index with those of codes or queries.

    Args:
        name: what bits and fingerprint are of, the subject of the error line.
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


def _check_folder(location: str) -> None:
    scheme = re.match(r"(\w[\w+.-]*)://", location)
    if scheme:
        raise ValueError(f"--index={location}: no engine for {scheme[1]}://, expected a folder")


def _short(fingerprint: str | None) -> str:
    return "unknown" if fingerprint is None else fingerprint[:12]
