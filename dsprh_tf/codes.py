"""Binary codes: sign convention, bit packing, Hamming distance and asymmetric similarity.

A hash value `h` becomes the bit `sign(h)`, with `sign(0) = +1`. Eight bits share one byte in the
order of `numpy.packbits`: the first bit is the most significant one of byte 0, and a set bit
stands for +1. Every part of the system that writes or reads codes goes through this file.
"""

from __future__ import annotations

import numpy as np

MOST_BITS = 2**16
"""Longest codes; codes of more than some thousand bits are of no use."""

_BLOCK = 2**15  # codes that are compared at a time: they stay in the cache


def check_bits(bits: int) -> None:
    """Checks a code length: codes fill whole bytes.

    Args:
        bits: Length of a code.

    Raises:
        ValueError: If `bits` is not a positive multiple of 8, or absurd.
    """
    if isinstance(bits, bool) or not isinstance(bits, (int, np.integer)) or bits < 8 or bits % 8:
        raise ValueError(
            f"bits must be a positive multiple of 8, received {bits!r}; use for example 64"
        )
    if bits > MOST_BITS:
        raise ValueError(f"bits must be at most {MOST_BITS:,}, received {str(bits)[:40]}")


def check_packed(name: str, packed: np.ndarray) -> np.ndarray:
    """Checks that an array holds packed codes.

    Args:
        name: Name of the array in the error message.
        packed: uint8 `[n, bits / 8]`.

    Returns:
        The array itself.

    Raises:
        ValueError: If the array is not two-dimensional uint8 with at least one byte per code.
    """
    packed = np.asarray(packed)
    if packed.dtype != np.uint8 or packed.ndim != 2 or packed.shape[1] == 0:
        raise ValueError(
            f"{name} must be packed codes, uint8 [n, bits / 8], received {packed.dtype} "
            f"{list(packed.shape)}; make them with codes.pack"
        )
    return packed


def pack(h: np.ndarray) -> np.ndarray:
    """Packed binary codes of real hash values.

    Args:
        h: Numbers `[n, bits]`; `h >= 0` becomes +1 and `h < 0` becomes -1.

    Returns:
        uint8 `[n, bits / 8]`.

    Raises:
        ValueError: If `h` is not two-dimensional, is not finite, or has a width that is not a
            multiple of 8.
    """
    h = np.asarray(h)
    if h.ndim != 2:
        raise ValueError(f"hash values must be [n, bits], received shape {list(h.shape)}")
    check_bits(h.shape[1])
    finite = np.isfinite(h).all(axis=1)
    if not finite.all():
        raise ValueError(
            f"hash values must be finite, received nan or inf in row {int(np.argmin(finite))}; "
            "check the weights of the network"
        )
    return np.packbits(h >= 0, axis=1)


def unpack(packed: np.ndarray) -> np.ndarray:
    """Signs of packed codes, the inverse of `pack`.

    Args:
        packed: uint8 `[n, bits / 8]`.

    Returns:
        int8 `[n, bits]` of -1 and +1.

    Raises:
        ValueError: If `packed` does not hold packed codes.
    """
    signs = np.unpackbits(check_packed("packed", packed), axis=1).view(np.int8)
    signs *= 2
    signs -= 1
    return signs


def to_words(packed: np.ndarray) -> np.ndarray:
    """Packed bits as 64-bit words, the layout that `count_pairs` reads.

    Args:
        packed: uint8 `[n, bytes]`.

    Returns:
        uint64 `[ceil(bytes / 8), n]`, filled up with zero bits.
    """
    padded = np.ascontiguousarray(np.pad(packed, ((0, 0), (0, -packed.shape[1] % 8))))
    return np.ascontiguousarray(padded.view(np.uint64).T)


def count_pairs(operation: np.ufunc, query: np.ndarray, database: np.ndarray) -> np.ndarray:
    """Number of set bits of `operation(query, database)` for all pairs.

    `numpy.bitwise_xor` gives Hamming distances, `numpy.bitwise_and` the number of common bits. A
    matrix product of signs would give the same, but the threads of BLAS slow down next to the
    threads of a caller and on a busy machine.

    Args:
        operation: A bitwise function of two arrays.
        query: uint64 `[words, nq]` of `to_words`.
        database: uint64 `[words, nd]` of `to_words`.

    Returns:
        `[nq, nd]` in the smallest unsigned type that holds every count.
    """
    words, rows = query.shape
    counts = np.zeros((rows, database.shape[1]), np.min_scalar_type(64 * words))
    for row in range(rows):  # row by row, so that a row stays in the cache
        for word in range(words):
            counts[row] += _count_bits(operation(query[word, row], database[word]))
    return counts


def _count_bits_by_shifts(words: np.ndarray) -> np.ndarray:
    """Set bits of each uint64 word: adds neighbours of 1, 2 and 4 bits, then all bytes at once."""
    ones, pairs, nibbles, low_bytes = (
        np.uint64(0x0101010101010101 * byte) for byte in (0x55, 0x33, 0x0F, 0x01)
    )
    words = words - (words >> np.uint64(1) & ones)
    words = (words & pairs) + (words >> np.uint64(2) & pairs)
    words = words + (words >> np.uint64(4)) & nibbles
    return (words * low_bytes >> np.uint64(56)).astype(np.uint8)


_count_bits = getattr(np, "bitwise_count", _count_bits_by_shifts)  # NumPy 2 has it built in


def hamming_distance(query: np.ndarray, database: np.ndarray) -> np.ndarray:
    """Hamming distance between all pairs of packed codes, in bits.

    Args:
        query: uint8 `[nq, bits / 8]`.
        database: uint8 `[nd, bits / 8]`.

    Returns:
        uint16 `[nq, nd]`.

    Raises:
        ValueError: If the arrays are not packed codes of one width.
    """
    check_same_width(query, database)
    counts = count_pairs(np.bitwise_xor, to_words(query), to_words(database))
    return counts.astype(np.uint16)


def check_same_width(query: np.ndarray, database: np.ndarray) -> None:
    """Checks that two arrays hold packed codes of one width.

    Args:
        query: uint8 `[nq, bits / 8]`.
        database: uint8 `[nd, bits / 8]`.

    Raises:
        ValueError: If one is not packed, or the widths differ.
    """
    query = check_packed("query codes", query)
    database = check_packed("database codes", database)
    if query.shape[1] != database.shape[1]:
        raise ValueError(
            f"query and database codes must have one width, received {query.shape[1] * 8} and "
            f"{database.shape[1] * 8} bits; encode both with the same model"
        )


def soften(h: np.ndarray) -> np.ndarray:
    """Values of queries for asymmetric ranking, from their hash values.

    A hash value near 0 says little of its bit; `tanh` keeps the large ones from counting more than
    they should. In units of a row's own mean, so that neither the scale of a network nor how far
    its training hardened it matters:

        q = tanh(h / mean |h|)

    Args:
        h: Hash values `[n, bits]`, before the sign.

    Returns:
        float32 `[n, bits]` in (-1, 1); a row of zeros stays one.

    Raises:
        ValueError: As `pack`.
    """
    pack(h)  # checks them
    h = np.asarray(h, np.float64)
    scale = np.abs(h).mean(axis=1, keepdims=True)
    return np.tanh(h / np.where(scale > 0, scale, 1)).astype(np.float32)


def asymmetric_similarity(values: np.ndarray, packed: np.ndarray) -> np.ndarray:
    """Similarity of real values and packed codes b of -1 and +1, for all pairs.

        (1 + q.b / sum |q|) / 2

    It is 1 where every bit of a code has the sign of its value, 0 where none has, and .5 for values
    that are all 0. Of values -1 and +1 it is 1 - Hamming distance / bits. Each byte of a code
    selects one of 256 sums, and a code's sums are added in a fixed order: equal codes have equal
    similarities, whatever stands beside them.

    Args:
        values: Numbers `[nq, bits]`, of `soften` or sums of such.
        packed: uint8 `[nd, bits / 8]`.

    Returns:
        float32 `[nq, nd]` in 0..1.

    Raises:
        ValueError: If `packed` does not hold packed codes, or the values are not finite or of
            another width.
    """
    check_same_width(pack(values), packed)
    values = np.asarray(values, np.float64)
    largest = np.abs(values).max(axis=1, keepdims=True)
    values = values / np.where(largest > 0, largest, 1)
    signs = unpack(np.arange(256, dtype=np.uint8)[:, np.newaxis])  # [256, 8]
    tables = np.zeros((len(values), packed.shape[1], 256))
    for bit in range(8):
        tables += values[:, bit::8, np.newaxis] * signs[:, bit]
    tables = tables.astype(np.float32)
    # The highest sum of each byte, added as those of a code are: no rounding exceeds it.
    total = np.add.accumulate(tables.max(axis=2), axis=1)[:, -1]
    total[total == 0] = 1
    found = np.empty((len(values), len(packed)), np.float32)
    for start in range(0, len(packed), _BLOCK):
        rows = packed[start : start + _BLOCK].T.astype(np.intp)
        for query, table in enumerate(tables):
            sums = found[query, start : start + _BLOCK]
            np.take(table[0], rows[0], out=sums, mode="clip")
            for byte in range(1, len(rows)):
                sums += table[byte].take(rows[byte], mode="clip")
            sums /= total[query]
    return (1 + found) / 2
