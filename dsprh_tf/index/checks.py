"""Checks that all engines share, so that each refuses in the same words."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from dsprh_tf import codes as binary

_BLOCK = 2**16  # rows


def checked_codes(name: str, codes: np.ndarray, bits: int) -> np.ndarray:
    """Codes of an index's length, packed: uint8 [n, bits / 8].

    Args:
        name: the subject of the error line.
        codes: uint8 [n, bits / 8]; or [n, bits] of any type of 0 and 1, or of -1 and 1. The width
            tells which it is.
        bits: code length of the index.

    Raises:
        ValueError: the codes are of another type or length, or other numbers.
    """
    codes = np.asarray(codes)
    if codes.ndim == 2 and codes.shape[1] == bits and codes.dtype.kind in "biuf":
        longer = codes.dtype == np.uint8 and codes.max(initial=0) > 1  # packed ones of 8 bits each
        if not longer:
            parts = [codes[i : i + _BLOCK] for i in range(0, max(1, len(codes)), _BLOCK)]
            return np.concatenate([_packed_signs(name, part) for part in parts])
    codes = binary.check_packed(name, codes)
    if codes.shape[1] * 8 != bits:
        raise ValueError(
            f"{name} have {codes.shape[1] * 8} bits, the index has {bits}: encode with "
            "the encoders that the index was built with"
        )
    return codes


def _packed_signs(name: str, signs: np.ndarray) -> np.ndarray:
    """The codes of an array of 0 and 1, or of -1 and 1, packed."""
    is_set = signs == 1
    if not ((is_set | (signs == 0)).all() or (is_set | (signs == -1)).all()):
        odd = signs[~(is_set | (signs == 0) | (signs == -1))]
        found = f"received {odd[0]!s:.20}" if len(odd) else "received both 0 and -1"
        raise ValueError(
            f"{name} of {signs.shape[1]} columns must be 0 and 1, or -1 and 1, {found}; the signs "
            "of real numbers are codes.pack(numbers), or numbers >= 0"
        )
    return np.packbits(is_set, axis=1)


def check_kind(kind: str, kinds: tuple[str, ...], engine: str = "") -> None:
    """Refuses a kind of search that an engine does not have; `engine` says which one it is."""
    if kind not in kinds:
        of = f" of {engine}" if engine else ""
        raise ValueError(f"kind{of} is {kind!r}, expected one of {', '.join(kinds)}")


def check_free(shown: str, overwrite: bool) -> None:
    """Refuses to build where an index is, unless it may be replaced."""
    if not overwrite:
        raise ValueError(
            f"{shown} holds an index already: add to it, give another --index, or build with "
            "--overwrite"
        )


def check_modalities(old: pa.Table, new: pa.Table) -> None:
    """Refuses items that would replace items of another modality, row by row."""
    pairs = zip(new["id"].to_pylist(), old["modality"].to_pylist(), new["modality"].to_pylist())
    for name, before, after in pairs:
        if before != after:
            raise ValueError(
                f"id {name} is of modality {before or 'unknown'} in the index and "
                f"{after or 'unknown'} among the new items: give images and texts different ids, "
                "or keep them in two indexes"
            )


def check_search(k: int, empty: bool) -> None:
    """Refuses a search for fewer than one result, or in an empty index."""
    if k < 1:
        raise ValueError(f"k is {k}, expected at least 1")
    if empty:
        raise ValueError("the index is empty: add items first (`dsprh index add`)")


def check_writable(writable: bool) -> None:
    """Refuses changes to an index that was opened for reading."""
    if not writable:
        raise ValueError("the index was loaded for reading: load it with write=True")


def check_found(ids: np.ndarray, found: np.ndarray) -> None:
    """Refuses ids (int64 [n]) that are not in the index (bool [n])."""
    if not found.all():
        raise ValueError(f"no item of the index has the id {ids[~found][0]}")
