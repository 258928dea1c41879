"""A nearest-neighbour graph of the training pairs, and the similarity that follows from it."""

from __future__ import annotations

import dataclasses

import faiss
import numpy as np
from scipy import sparse

from dsprh_tf.similarity import (
    deviation_between,
    inverse_document_frequency,
    mean_between,
    unit_rows,
)

EXACT_LIMIT = 20_000  # pairs up to which every pair is compared
_REDUCED = 512  # dimensions that the approximate search keeps; with half of them it misses more
_PROBED = 64  # inverted lists that a search visits
_CANDIDATES = 4  # candidates per neighbour, which are then compared exactly
_WIDTH = 4  # entries of a row at most, in multiples of the neighbours: hubs keep their strongest
_BLOCK_VALUES = 32_000_000  # float32 held at once while comparing: 128 MB
_SAMPLE = 2000  # items over whose pairs similarities are standardised


@dataclasses.dataclass(frozen=True)
class NeighbourGraph:
    """Neighbours of each training pair, and the constants that turn them into similarity targets.

    Two items are similar if their images and texts are (first order), and if they have the same
    neighbours (second order). With S^I the cosines of image features, S^T those of weighted bags
    of words, g_i the unit rows of the graph, and z(.) standardised over pairs of different items:

        F_ij = z(l z(S^I_ij) + (1 - l) z(S^T_ij)),    R_ij = z((1 - w) F_ij + w z(g_i . g_j))

    l and w are the arguments of `build_graph`. The same, as a batch computes it:

        R_ij = first (m S^I_ij + (1 - m) S^T_ij) + second g_i . g_j - offset,   m = image_weight

    Attributes:
        neighbours: int32 [n, width], positions among the n training pairs; -1 fills short rows.
        weights: float32 [n, width], the entries of g_i; 0 where `neighbours` is -1.
        word_weights: float32 [D_T], the inverse document frequency of each word.
        image_weight: m, the images' share among cosines that are not standardised.
        first: factor of the first-order similarity.
        second: factor of the second-order similarity.
        offset: constant that makes the mean of R zero.
        exact: whether every pair was compared.
    """

    neighbours: np.ndarray
    weights: np.ndarray
    word_weights: np.ndarray
    image_weight: float
    first: float
    second: float
    offset: float
    exact: bool


def build_graph(
    image_features: np.ndarray,
    text_features: np.ndarray,
    image_weight: float = 0.5,
    neighbours: int = 20,
    second_order: float = 0.5,
    seed: int = 0,
    exact_limit: int = EXACT_LIMIT,
) -> NeighbourGraph:
    """Builds the graph in blocks; nothing of size n x n is ever held.

    Up to `exact_limit` pairs FAISS compares all of them. Beyond, the joint vectors are reduced to
    512 principal components and searched through inverted lists; the best candidates are then
    compared exactly.

    Args:
        image_features: [n, D_I], any float type, for instance a memory map.
        text_features: [n, D_T] bags of words, or other features.
        image_weight: l, the images' share of the first-order similarity.
        neighbours: entries of a row before symmetrisation, the item itself included.
        second_order: w, the share of common neighbours in R.
        seed: of the sample over which similarities are standardised.
        exact_limit: see above.

    Returns:
        The graph. Two items have an edge if either is among the other's nearest; its weight is
        max(F, 0) before rows are scaled to unit length.

    Raises:
        ValueError: fewer than 3 pairs, weights outside [0, 1], fewer than 2 neighbours.
    """
    n = len(image_features)
    if n < 3:
        raise ValueError(f"there are {n} training pairs, expected at least 3 for a graph")
    for name, value in (("image_weight", image_weight), ("second_order", second_order)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name} is {value}, expected a number in [0, 1]")
    if neighbours < 2:
        raise ValueError(f"neighbours is {neighbours}, expected at least 2, the item included")
    words = inverse_document_frequency(text_features)
    chosen = np.sort(np.random.default_rng(seed).permutation(n)[:_SAMPLE])
    image, text = unit_rows(image_features[chosen]), unit_rows(text_features[chosen] * words)
    balance = image_weight / deviation_between(image @ image.T)
    balance /= balance + (1 - image_weight) / deviation_between(text @ text.T)
    joint = _JointVectors(image_features, text_features, words, balance)
    sample = joint[chosen] @ joint[chosen].T
    mean, deviation = mean_between(sample), deviation_between(sample)
    k = min(neighbours, n)
    exact = n <= exact_limit
    index = _exact_index(joint) if exact else _approximate_index(joint, seed)
    rows = _nearest(joint, index, k, exact, mean, deviation)
    graph = _unit_rows(_fixed_width(rows.maximum(rows.T).tocsr(), _WIDTH * k))
    common = (graph[chosen] @ graph[chosen].T).toarray()
    first = (1 - second_order) / deviation
    second = second_order / deviation_between(common)
    both = first * sample + second * common
    scale = deviation_between(both)
    positions, weights = _padded(graph)
    return NeighbourGraph(
        positions,
        weights,
        words,
        float(balance),
        float(first / scale),
        float(second / scale),
        float(mean_between(both) / scale),
        exact,
    )


class _JointVectors:
    """Rows [sqrt(m) l2(image), sqrt(1 - m) l2(weighted words)], computed when they are read.

    Their inner products are the first-order similarities.
    """

    def __init__(self, image, text, words, image_weight):
        self._image, self._text, self._words = image, text, words
        self._scales = np.sqrt([image_weight, 1 - image_weight]).astype(np.float32)
        self.size = image.shape[1] + text.shape[1]
        self.step = max(1, _BLOCK_VALUES // self.size)

    def __len__(self):
        return len(self._image)

    def __getitem__(self, rows) -> np.ndarray:
        image = unit_rows(self._image[rows]) * self._scales[0]
        return np.concatenate(
            [image, unit_rows(self._text[rows] * self._words) * self._scales[1]], axis=1
        )

    def blocks(self):
        """Yields (rows, vectors) from first to last."""
        for start in range(0, len(self), self.step):
            rows = slice(start, min(start + self.step, len(self)))
            yield rows, self[rows]


def _exact_index(joint: _JointVectors):
    index = faiss.IndexFlatIP(joint.size)
    for _, vectors in joint.blocks():
        index.add(vectors)
    return index


def _approximate_index(joint: _JointVectors, seed: int):
    """An index by L2: of unit vectors the nearest have the largest inner product."""
    lists = int(4 * np.sqrt(len(joint)))
    size = min(_REDUCED, joint.size)
    index = faiss.index_factory(joint.size, f"PCA{size},IVF{lists},Flat", faiss.METRIC_L2)
    inverted = faiss.extract_index_ivf(index)
    inverted.nprobe = _PROBED
    inverted.cp.seed = seed + 1
    count = min(len(joint), 40 * lists)
    chosen = np.sort(np.random.default_rng(seed).permutation(len(joint))[:count])
    index.train(np.concatenate([joint[part] for part in np.array_split(chosen, 16)]))
    for _, vectors in joint.blocks():
        index.add(vectors)
    return index


def _nearest(joint, index, k: int, exact: bool, mean: float, deviation: float):
    """Sparse [n, n]: each row's k nearest, itself first, with max((similarity - mean) / dev, 0)."""
    n = len(joint)
    positions = np.empty((n, k), np.int32)
    values: np.ndarray = np.empty((n, k), np.float32)
    for rows, vectors in joint.blocks():
        own = np.arange(rows.start, rows.stop)
        if exact:
            found_values, found = index.search(vectors, k)
        else:
            _, found = index.search(vectors, min(n, _CANDIDATES * k))
            found_values = _compare(joint, vectors, found)
        # The item itself may rank behind duplicates of it, and must not be missing.
        found_values = np.where(found == own[:, None], np.inf, found_values)
        missing = ~np.isposinf(found_values).any(axis=1)
        found[missing, -1], found_values[missing, -1] = own[missing], np.inf
        order = np.argsort(-found_values, axis=1, kind="stable")[:, :k]
        positions[rows] = np.take_along_axis(found, order, axis=1)
        values[rows] = np.take_along_axis(found_values, order, axis=1)
    values[:, 0] = 1.0
    values = np.where(positions >= 0, np.maximum((values - mean) / deviation, 0), 0)
    starts = np.arange(0, n * k + 1, k)
    rows = sparse.csr_matrix((values.ravel(), np.maximum(positions, 0).ravel(), starts), (n, n))
    rows.sum_duplicates()
    rows.eliminate_zeros()
    return rows


def _compare(joint: _JointVectors, vectors: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Exact inner products of rows with their candidates; -inf where there is no candidate."""
    values = np.empty(found.shape, np.float32)
    step = max(1, _BLOCK_VALUES // (joint.size * found.shape[1]))
    for start in range(0, len(found), step):
        part = np.maximum(found[start : start + step], 0)
        near = joint[part.ravel()].reshape(*part.shape, joint.size)
        values[start : start + step] = (near @ vectors[start : start + step, :, None])[..., 0]
    return np.where(found >= 0, values, -np.inf)


def _fixed_width(rows: sparse.csr_matrix, width: int) -> sparse.csr_matrix:
    """The rows, each with its `width` strongest entries at most."""
    lengths = np.diff(rows.indptr)
    for row in np.flatnonzero(lengths > width):
        entries = slice(rows.indptr[row], rows.indptr[row + 1])
        weak = np.argsort(-rows.data[entries], kind="stable")[width:]
        rows.data[entries.start + weak] = 0
    rows.eliminate_zeros()
    return rows


def _unit_rows(rows: sparse.csr_matrix) -> sparse.csr_matrix:
    norms = np.sqrt(np.asarray(rows.multiply(rows).sum(axis=1)).ravel())
    return sparse.diags(1 / np.maximum(norms, 1e-12)).dot(rows).tocsr().astype(np.float32)


def _padded(rows: sparse.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
    lengths = np.diff(rows.indptr)
    positions = np.full((rows.shape[0], lengths.max()), -1, np.int32)
    weights = np.zeros(positions.shape, np.float32)
    filled = np.arange(positions.shape[1]) < lengths[:, None]
    positions[filled], weights[filled] = rows.indices, rows.data
    return positions, weights
