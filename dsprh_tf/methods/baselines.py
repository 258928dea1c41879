"""Classic baselines beside the learned methods: fitted on training pairs, without labels.

| name | shows | between the modalities | within one modality |
|---|---|---|---|
| `lsh` | signs of a random rotation | rotated canonical space | rotated features |
| `cca_itq` | a shallow learned hash | canonical space, ITQ rotation | the same code |
| `float` | the price of hashing: cosine | canonical space | the features |
| `sign` | signs of embeddings as they are | the embeddings | the same code |

Image and text features have different widths and meanings, so they are compared in a common
space: the first `bits` canonical directions of the training pairs (`canonical_directions`). With
`float`, `lsh` and `cca_itq` of as many dimensions as bits, each differs from the one before in
one step: random signs, then learned ones. Within one modality no such space is needed, and
LSH is usually applied to the features themselves; so `lsh` and `float` give each item a second
code (embedding) of its plain features there. `cca_itq` has one code for all directions.

Where both encoders of an embedding share a space already (CLIP, SigLIP), `shared_space` leaves CCA
out: `float` compares the embeddings, `lsh` rotates them, both with one code in all directions, and
`cca_itq` becomes PCA + ITQ of both modalities' embeddings.

Only there is `sign` defined: one bit per dimension, so the code is as long as the embedding, and
nothing is fitted, centred or rotated. With fewer or more bits it would be `lsh`, the signs of a
random rotation, which is centred, too. That matters where embeddings have a mean far from zero, as
CLIP's have: such a dimension has the same sign in nearly every item, and its bit tells nothing.

All rows are divided by their l2 norm first, then centred by their modality's training mean (but
for features compared by cosine, which are taken as they are).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy.linalg

from dsprh_tf import codes
from dsprh_tf.data.single_texts import SingleTexts
from dsprh_tf.evaluation.retrieval import Encoded, TypedQueries
from dsprh_tf.similarity import unit_rows

RIDGE = 1.0
"""Added to the diagonal of both covariances, relative to their mean variance.

This and `POWER` were chosen by `benchmarks/baseline_choices.py` on held-out training pairs of
COCO, with neither labels nor test queries.
"""

POWER = 2.0
"""Canonical directions are scaled by their correlation to this power before cosines are taken.

Gong et al. ("A multi-view embedding space", IJCV 2014) use 4.
"""

_NOISE = 1e-6  # correlations below are rounding errors
_BLOCK_BYTES = 64 * 2**20


@dataclass(frozen=True, eq=False)
class Projection:
    """`(x / |x| - mean) @ matrix` of each row; without a matrix, rows as they are.

    Attributes:
        mean: float32 `[D]`, or None.
        matrix: float32 `[D, K]`, or None.
    """

    mean: np.ndarray | None = None
    matrix: np.ndarray | None = None

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Values of the rows of `[n, D]`, in blocks: floating `[n, K]` (or `[n, D]`).

        Raises:
            ValueError: the features have another width than those of the fit.
        """
        if self.matrix is None:
            features = np.asarray(features)
            return features if features.dtype.kind == "f" else features.astype(np.float32)
        if features.ndim != 2 or features.shape[1] != len(self.matrix):
            raise ValueError(
                f"features have shape {list(features.shape)}, expected [n, {len(self.matrix)}] as "
                "in the training pairs: encode with the features that it was fitted on"
            )
        values = np.empty((len(features), self.matrix.shape[1]), np.float32)
        for rows in _blocks(features):
            values[rows] = (unit_rows(features[rows]) - self.mean) @ self.matrix
        return values

    def then(self, matrix: np.ndarray) -> Projection:
        """This projection, followed by a linear map `[K, L]`."""
        return Projection(self.mean, (self.matrix @ matrix).astype(np.float32))


@dataclass(frozen=True, eq=False)
class Baseline:
    """A fitted baseline.

    Attributes:
        binary: whether signs of the values are codes; otherwise values are compared by cosine.
        image: projection of image features for comparison with texts.
        text: projection of text features for comparison with images.
        image_within: projection of image features among each other; None: `image`.
        text_within: projection of text features among each other; None: `text`.
    """

    binary: bool
    image: Projection
    text: Projection
    image_within: Projection | None = None
    text_within: Projection | None = None

    def encode(self, image_features, text_features) -> tuple[np.ndarray, np.ndarray]:
        """Values that compare across the modalities.

        Args:
            image_features: `[n, D_I]`.
            text_features: `[m, D_T]`.

        Returns:
            Two floating arrays `[n, K]` and `[m, K]`: signs are the codes if `binary`.
        """
        return self.image(image_features), self.text(text_features)

    def encoded(self, image_features, text_features, labels) -> Encoded:
        """Codes or embeddings as `evaluate_directions` takes them, within each modality too.

        Args:
            image_features: `[n, D_I]`.
            text_features: `[n, D_T]` of the same items.
            labels: `[n, labels]` of 0 and 1, or None.
        """
        values = [
            projection and projection(features)
            for projection, features in (
                (self.image, image_features),
                (self.text, text_features),
                (self.image_within, image_features),
                (self.text_within, text_features),
            )
        ]
        if not self.binary:
            return Encoded(*values[:2], labels, *values[2:])
        soft, packed = (
            [None if v is None else make(v) for v in values] for make in (codes.soften, codes.pack)
        )
        return Encoded(*packed[:2], labels, *packed[2:], Encoded(*soft[:2], labels, *soft[2:]))

    def typed(self, texts: SingleTexts) -> TypedQueries:
        """Single texts of queries."""
        values = self.text(texts.rows.toarray())
        if not self.binary:
            return TypedQueries(texts.owner, values, None, texts.left_out)
        return TypedQueries(texts.owner, codes.pack(values), codes.soften(values), texts.left_out)


def fit(
    name: str,
    image_features: np.ndarray,
    text_features: np.ndarray,
    bits: int,
    seed: int,
    shared_space: bool = False,
) -> Baseline:
    """A baseline fitted on training pairs.

    Bits above the rank of the canonical space (at most the smaller of D_I, D_T and pairs - 1) are
    refused by `cca_itq`, whose rotation gives one bit per dimension. `lsh` draws more hyperplanes
    in the dimensions that there are, and `float` has as many dimensions as there are.

    Args:
        name: One of `BASELINES`.
        image_features: `[n, D_I]` of the training pairs.
        text_features: `[n, D_T]`, row i the partner of image i.
        bits: Code length; of `float`, the largest number of dimensions.
        seed: Of random rotations.
        shared_space: Whether image and text features share one space (CLIP): CCA is left out;
            `sign` needs it.

    Returns:
        The fitted baseline.

    Raises:
        ValueError: an unknown name; bits that are no multiple of 8 or too many; features that are
            no pairs of rows, not finite, all alike, or without any correlation; with
            `shared_space`, different widths; with `sign`, other bits than dimensions.
    """
    check_name(name, shared_space)
    codes.check_bits(bits)
    image, text = np.asarray(image_features), np.asarray(text_features)
    if image.ndim != 2 or text.ndim != 2 or len(image) != len(text) or len(image) < 2:
        raise ValueError(
            f"training features are {list(image.shape)} and {list(text.shape)}, expected [n, D_I] "
            "and [n, D_T] of at least 2 pairs"
        )
    if shared_space and image.shape[1] != text.shape[1]:
        raise ValueError(
            f"image features have {image.shape[1]} dimensions and text features {text.shape[1]}, "
            "so they cannot share a space: leave --shared_space out"
        )
    for kind, features in (("image", image), ("text", text)):
        for rows in _blocks(features):
            bad = ~np.isfinite(features[rows]).all(axis=1)
            if bad.any():
                row = rows.start + int(bad.argmax())
                raise ValueError(
                    f"{kind} features hold nan or inf in training row {row}, expected finite "
                    "numbers: mend or drop that pair"
                )
    return BASELINES[name].fit(image, text, bits, seed, shared_space)


def check_name(name: str, shared_space: bool) -> None:
    """Refuses an unknown baseline, and one of a shared space where there is none."""
    if name not in BASELINES:
        raise ValueError(f"baseline is {name!r}, expected one of {', '.join(sorted(BASELINES))}")
    if BASELINES[name].only_shared and not shared_space:
        raise ValueError(
            f"the baseline {name} compares image and text embeddings as they are: give "
            "--shared_space if they share a space (CLIP), or take lsh"
        )


def _lsh(image, text, bits, seed, shared_space) -> Baseline:
    rng = np.random.default_rng(seed)
    means = _mean(image), _mean(text)
    if shared_space:
        planes = random_hyperplanes(image.shape[1], bits, rng).astype(np.float32)
        return Baseline(True, *(Projection(mean, planes) for mean in means))
    space = canonical_space(image, text, bits)
    planes = random_hyperplanes(space[0].matrix.shape[1], bits, rng)
    within = [
        Projection(mean, random_hyperplanes(len(mean), bits, rng).astype(np.float32))
        for mean in means
    ]
    return Baseline(True, *(side.then(planes) for side in space), *within)


def _cca_itq(image, text, bits, seed, shared_space) -> Baseline:
    space = (_principal_space if shared_space else canonical_space)(image, text, bits)
    rank = space[0].matrix.shape[1]
    if rank < bits:
        raise ValueError(
            f"cca_itq makes one bit per dimension, and {len(image):,} training pairs of "
            f"{image.shape[1]}-D image and {text.shape[1]}-D text features span {rank}, fewer than "
            f"{bits} bits: take fewer bits or the baseline lsh"
        )
    values = np.concatenate([unit_rows(space[0](image)), unit_rows(space[1](text))])
    rotation = itq_rotation(values, seed)
    return Baseline(True, *(side.then(rotation) for side in space))


def _float(image, text, bits, seed, shared_space) -> Baseline:
    if shared_space:
        return Baseline(False, Projection(), Projection())
    return Baseline(False, *canonical_space(image, text, bits), Projection(), Projection())


def _sign(image, text, bits, seed, shared_space) -> Baseline:
    width = image.shape[1]
    if bits != width:
        raise ValueError(
            f"sign makes one bit per dimension and the embeddings have {width}, received {bits} "
            f"bits: give --bits={width}, or take the baseline lsh, the sign of a random rotation"
        )
    for kind, features in (("image", image), ("text", text)):
        if not ((features.min(axis=0) < 0) & (features.max(axis=0) >= 0)).any():
            raise ValueError(
                f"each dimension of the {kind} embeddings has one sign in all training pairs, so "
                "all codes would be the same: take the baseline lsh, which centres them"
            )
    return Baseline(True, Projection(), Projection())


class BaselineKind(NamedTuple):
    """A baseline that can be fitted.

    Attributes:
        title: its name in tables.
        fit: the function that fits it.
        only_shared: whether it is defined in a shared space alone.
    """

    title: str
    fit: Callable[..., Baseline]
    only_shared: bool = False


BASELINES = {
    "lsh": BaselineKind("LSH", _lsh),
    "cca_itq": BaselineKind("CCA + ITQ", _cca_itq),
    "float": BaselineKind("not hashed (cosine)", _float),
    "sign": BaselineKind("sign of the embedding", _sign, only_shared=True),
}
"""The baselines by name, in the order of the tables."""


def random_hyperplanes(dimensions: int, bits: int, rng: np.random.Generator) -> np.ndarray:
    """Normals of random hyperplanes through the origin.

    Each is uniform on the sphere, so that two vectors at an angle of a get the same bit with
    probability 1 - a / pi (Charikar, "Similarity estimation techniques from rounding algorithms",
    STOC 2002). They are orthogonal to each other within groups of at most `dimensions`, which
    lowers the variance (Ji et al., "Super-bit locality-sensitive hashing", NIPS 2012) and makes
    up to `dimensions` bits the first axes of a random rotation.

    Args:
        dimensions: Of the vectors.
        bits: Number of hyperplanes, any.
        rng: Random generator.

    Returns:
        float64 `[dimensions, bits]` with columns of length 1.
    """
    groups = []
    for start in range(0, bits, dimensions):
        group = rng.standard_normal((dimensions, min(dimensions, bits - start)))
        q, r = np.linalg.qr(group)
        groups.append(q * np.sign(np.diagonal(r)))  # the sign makes it uniform
    return np.concatenate(groups, axis=1)


def itq_rotation(values: np.ndarray, seed: int, iterations: int = 50) -> np.ndarray:
    """Rotation R that brings values near their signs: least `|sign(V R) - V R|`, alternating.

    Gong and Lazebnik, "Iterative quantization: a Procrustean approach to learning binary codes",
    CVPR 2011. FAISS has it as `ITQMatrix`, but its training (1.8 and 1.15) transposes V once too
    often, and what it returns is no nearer to the signs than a random rotation.

    Args:
        values: `[n, K]`, centred.
        seed: Of the rotation to start from.
        iterations: Alternations of signs and rotation; the paper's 50.

    Returns:
        float64 `[K, K]`, orthogonal; codes are `sign(values @ R)`.
    """
    size = values.shape[1]
    rotation = random_hyperplanes(size, size, np.random.default_rng(seed))
    for _ in range(iterations):
        signs = np.where(values @ rotation >= 0, 1.0, -1.0)
        u, _, vt = scipy.linalg.svd(values.T @ signs)
        rotation = u @ vt  # the best for these signs (orthogonal Procrustes problem)
    return rotation


def canonical_directions(
    image_covariance: np.ndarray,
    text_covariance: np.ndarray,
    cross_covariance: np.ndarray,
    ridge: float = RIDGE,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Canonical correlation analysis with a ridge (Hotelling 1936; Vinod 1976).

    With C' = C + ridge * mean(diag C) * I and Cholesky factors C' = L Lᵀ, the singular vectors U, V
    of L_I⁻¹ C_IT L_T⁻ᵀ give the directions A = L_I⁻ᵀ U and B = L_T⁻ᵀ V: the pairs of directions
    along which both modalities correlate most, each of variance 1 under C' and uncorrelated with
    the ones before it.

    Args:
        image_covariance: float64 `[D_I, D_I]`.
        text_covariance: float64 `[D_T, D_T]`.
        cross_covariance: float64 `[D_I, D_T]`.
        ridge: Regularisation relative to the mean variance; 0 for none.

    Returns:
        A `[D_I, r]`, B `[D_T, r]` and the correlations `[r]`, falling, r = min(D_I, D_T).

    Raises:
        ValueError: a modality without variance, or a singular covariance without a ridge.
    """
    factors = []
    for kind, covariance in (("image", image_covariance), ("text", text_covariance)):
        variance = np.trace(covariance) / len(covariance)
        if not variance > 0:
            raise ValueError(f"the {kind} features of all training pairs are alike: check the data")
        try:
            shrunk = covariance + ridge * variance * np.eye(len(covariance))
            factors.append(scipy.linalg.cholesky(shrunk, lower=True))
        except scipy.linalg.LinAlgError as error:
            raise ValueError(
                f"the covariance of the {kind} features is singular: give a ridge above {ridge}"
            ) from error
    left, right = factors
    white = scipy.linalg.solve_triangular(left, cross_covariance, lower=True)
    white = scipy.linalg.solve_triangular(right, white.T, lower=True).T
    u, correlations, vt = scipy.linalg.svd(white, full_matrices=False)
    a = scipy.linalg.solve_triangular(left, u, lower=True, trans="T")
    b = scipy.linalg.solve_triangular(right, vt.T, lower=True, trans="T")
    return a, b, correlations


def canonical_space(
    image_features: np.ndarray,
    text_features: np.ndarray,
    dimensions: int,
    ridge: float = RIDGE,
    power: float = POWER,
) -> tuple[Projection, Projection]:
    """A space of both modalities: the first canonical directions, scaled by their correlations.

    Args:
        image_features: `[n, D_I]` of the training pairs.
        text_features: `[n, D_T]`, row i the partner of image i.
        dimensions: How many directions, at most; directions without correlation are left out.
        ridge: Of `canonical_directions`.
        power: Each direction is scaled by its correlation to this power.

    Returns:
        The projections of image and of text features.

    Raises:
        ValueError: features of a modality that are all alike, or no correlation at all.
    """
    image, text = image_features, text_features
    means = _mean(image), _mean(text)
    widths = image.shape[1], text.shape[1]
    ii, tt, it = (np.zeros(shape) for shape in ((widths[0],) * 2, (widths[1],) * 2, widths))
    for rows in _blocks(image, text):
        x, y = unit_rows(image[rows]) - means[0], unit_rows(text[rows]) - means[1]
        ii += x.T @ x
        tt += y.T @ y
        it += x.T @ y
    a, b, correlations = canonical_directions(*(c / len(image) for c in (ii, tt, it)), ridge)
    rank = min(dimensions, int((correlations > _NOISE).sum()))
    if not rank:
        raise ValueError(
            "the image and text features of the training pairs do not correlate at all: check "
            "that row i of one belongs to row i of the other"
        )
    scale = correlations[:rank] ** power
    return tuple(
        Projection(mean, (axes[:, :rank] * scale).astype(np.float32))
        for mean, axes in zip(means, (a, b))
    )


def _principal_space(image, text, dimensions) -> tuple[Projection, Projection]:
    """The first principal axes of both modalities' features, which share a space."""
    means = _mean(image), _mean(text)
    covariance = np.zeros((image.shape[1],) * 2)
    for features, mean in zip((image, text), means):
        for rows in _blocks(features):
            x = unit_rows(features[rows]) - mean
            covariance += x.T @ x
    variances, axes = scipy.linalg.eigh(covariance / (2 * len(image)))
    variances, axes = variances[::-1], axes[:, ::-1]
    rank = min(dimensions, int((variances > _NOISE * variances[0]).sum()))
    axes = axes[:, :rank].astype(np.float32)
    return tuple(Projection(mean, axes) for mean in means)


def _mean(features: np.ndarray) -> np.ndarray:
    """Mean of the unit rows, float32 `[D]`."""
    total = sum(unit_rows(features[rows]).sum(axis=0, dtype=float) for rows in _blocks(features))
    return (total / len(features)).astype(np.float32)


def _blocks(*arrays: np.ndarray) -> Iterator[slice]:
    """Rows to take at a time: all of NUS-WIDE's as float32 would be 3 GB."""
    rows = len(arrays[0])
    step = max(1, _BLOCK_BYTES // (4 * max(1, *(array.shape[1] for array in arrays))))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))
