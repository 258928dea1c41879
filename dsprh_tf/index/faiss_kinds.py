"""Kinds of search over codes: exact, or through one of FAISS's approximate indexes.

An engine knows rows 0..n-1 of codes and no ids; rows are only ever added at the end, since FAISS
can remove none from a graph or a hash table.
"""

from __future__ import annotations

import os
from typing import Any

import faiss
import numpy as np
from tqdm import tqdm

KINDS = ("flat", "hnsw", "ivf", "hash")
SMALLEST = 1000  # rows below which the exact search is as fast as any other
_GROWTH = 4  # an engine tuned to n rows is built anew at 4 n
_CHUNK = 65536  # rows added at once, between two steps of the progress bar
_HNSW_LINKS = 32
_HNSW_BUILD, _HNSW_SEARCH = 100, 128  # candidates that are kept while building, and searching
_IVF_SHARE = 16  # a search reads one list in 16
_IVF_TRAINING = 64  # codes per list that the centres are learnt from
_HASHES, _FLIPS = 4, 2
_COUNTED, _COUNTED_BYTES = 512, 2**19  # results of a query; bytes of codes, of 64 times as much


def search_exact(codes: np.ndarray, query: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The nearest rows by exact search, with the kernel of FAISS's `IndexBinaryFlat`.

    The codes are not copied and may be a memory map.

    Args:
        codes: uint8 [n, bits / 8].
        query: uint8 [nq, bits / 8].
        k: results per query.

    Returns:
        Distances int32 [nq, min(k, n)], ascending, and rows int64 of that shape.
    """
    if not len(codes):
        return np.zeros((len(query), 0), np.int32), np.zeros((len(query), 0), np.int64)
    query, codes, k = np.ascontiguousarray(query), np.ascontiguousarray(codes), min(k, len(codes))
    # Many results are counted faster by distance than kept in a heap, at 8 bytes per bit for each.
    counted = k >= _COUNTED and len(query) * k * codes.shape[1] <= _COUNTED_BYTES
    return faiss.knn_hamming(query, codes, k, variant="mc" if counted else "hc")


def build(kind: str, codes: np.ndarray, seed: int = 0):
    """An engine over codes, with settings that fit their number; None for the exact search.

    Args:
        kind: one of `KINDS`.
        codes: uint8 [n, bits / 8].
        seed: draws the codes that inverted lists are learnt from.

    Returns:
        A FAISS index of n rows; None for "flat", and below `SMALLEST` rows.
    """
    rows, bits = len(codes), codes.shape[1] * 8
    if kind == "flat" or rows < SMALLEST:
        return None
    engine: Any
    if kind == "hnsw":
        engine = faiss.IndexBinaryHNSW(bits, _HNSW_LINKS)
        engine.hnsw.efConstruction = _HNSW_BUILD
    elif kind == "ivf":
        lists = int(min(4 * rows**0.5, rows // 39))
        centres: Any = faiss.IndexBinaryFlat(bits)
        engine = faiss.IndexBinaryIVF(centres, bits, lists)
        engine.own_fields = True
        centres.this.disown()
        engine.nprobe = -(-lists // _IVF_SHARE)
        engine.cp.seed = seed + 1
        engine.cp.min_points_per_centroid = 1  # enough of them are given; FAISS would warn
        chosen = np.random.default_rng(seed).permutation(rows)[: lists * _IVF_TRAINING]
        engine.train(codes[np.sort(chosen)])
    else:
        # So many bits that a bucket holds about one code.
        engine = faiss.IndexBinaryMultiHash(
            bits, _HASHES, min(bits // _HASHES, max(1, round(np.log2(rows))))
        )
        engine.nflip = min(_FLIPS, engine.b)
    add(engine, codes)
    return engine


def grown(kind: str, engine, built_rows: int, rows: int) -> bool:
    """Whether an engine has to be built anew to fit `rows` rows."""
    if kind == "flat" or rows < SMALLEST:
        return False
    return engine is None or (kind != "hnsw" and rows >= _GROWTH * built_rows)


def add(engine, codes: np.ndarray) -> None:
    """Appends rows to an engine, with a progress bar after 2 seconds."""
    bar = tqdm(total=len(codes), desc="indexing", unit="item", delay=2)
    for start in range(0, len(codes), _CHUNK):
        chunk = np.ascontiguousarray(codes[start : start + _CHUNK])
        engine.add(chunk)
        bar.update(len(chunk))
    bar.close()


def search(engine, query: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """As `search_exact`, approximately; a row is -1 where the engine found fewer than k."""
    if isinstance(engine, faiss.IndexBinaryHNSW):
        engine.hnsw.efSearch = max(_HNSW_SEARCH, 2 * k)
    return engine.search(np.ascontiguousarray(query), k)


def write(engine, path: str | os.PathLike) -> None:
    """Writes an engine in FAISS's own format.

    Raises:
        OSError: the file cannot be written.
    """
    try:
        faiss.write_index_binary(engine, os.fspath(path))
    except RuntimeError as error:
        raise OSError(f"{path} cannot be written ({_reason(error)})") from error


def read(kind: str, path: str | os.PathLike, memory_map: bool = True):
    """Reads an engine, memory-mapped where FAISS supports it.

    The inverted lists of "ivf" are mapped by every FAISS, the other kinds by FAISS 1.11 and newer.

    Args:
        kind: one of `KINDS`.
        path: the file.
        memory_map: False for an engine to which rows will be added.

    Raises:
        ValueError: FAISS cannot read the file.
    """
    flags = 0
    if memory_map:
        flags = faiss.IO_FLAG_MMAP if kind == "ivf" else getattr(faiss, "IO_FLAG_MMAP_IFC", 0)
    try:
        return faiss.read_index_binary(os.fspath(path), flags)
    except RuntimeError as error:
        raise ValueError(f"{path} cannot be read by FAISS ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    """The last part of a FAISS message, without the C++ function and file before it."""
    return " ".join(str(error).split()).rsplit(": ", 1)[-1][:200]
