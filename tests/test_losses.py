"""Losses against naive NumPy loops, with no triplet, huge inputs and zero rows; the objective."""

from __future__ import annotations

import dataclasses
import math
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from dsprh_tf import losses, similarity
from dsprh_tf.compat import KERAS_3
from dsprh_tf.losses import DSPRHObjective
from dsprh_tf.networks import straight_through_sign


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def codes(size, bits=6, seed=0):
    return np.tanh(normal(size, bits, seed=seed)), np.tanh(normal(size, bits, seed=seed + 100))


def cosine(a, b):
    norms = math.sqrt(float(a @ a)) * math.sqrt(float(b @ b))
    return float(a @ b) / norms if norms else 0.0


def cosines(a, b):
    return np.array([[cosine(x.astype(float), y.astype(float)) for y in b] for x in a])


def mse(a, b):
    return np.mean([(x - y) ** 2 for x, y in zip(np.ravel(a), np.ravel(b))])


def close(actual, expected, rel=1e-5):
    assert float(actual) == pytest.approx(float(expected), rel=rel, abs=1e-6)


# Similarities


def test_similarities_equal_the_naive_loop():
    a, b = normal(4, 5), normal(3, 5, seed=1)
    a[1] = 0  # a zero row has cosine 0 with everything
    np.testing.assert_allclose(losses.cosine_matrix(a, b), cosines(a, b), atol=1e-6)
    features = np.abs(a)
    s = losses.feature_similarity(features)
    np.testing.assert_allclose(s, 2 * cosines(features, features) - 1, atol=1e-6)
    assert float(s[1, 1]) == -1
    other = normal(4, 4, seed=2)
    joint = losses.joint_similarity(s, other, 0.9)
    for i in range(4):
        for j in range(4):
            close(joint[i, j], 0.9 * s[i, j] + 0.1 * other[i, j])


def test_shared_labels_equal_the_naive_loop():
    labels = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 1], [0, 0, 0]], np.uint8)
    expected = [[bool((x & y).any()) for y in labels] for x in labels]
    np.testing.assert_array_equal(losses.shared_labels(labels), expected)


# L_F, L_R, L_W


def test_reconstruction_loss_crosses_modalities_and_stops_gradients_into_targets():
    text_from_image, image_from_text = tf.Variable(normal(3, 4)), tf.Variable(normal(3, 5, seed=1))
    text, image = tf.Variable(normal(3, 4, seed=2)), tf.Variable(normal(3, 5, seed=3))
    text[2].assign(tf.zeros(4))
    with tf.GradientTape() as tape:
        loss = losses.reconstruction_loss(text_from_image, image_from_text, text, image)
    unit = [
        [row / (np.linalg.norm(row) or 1) for row in target.numpy()] for target in (text, image)
    ]
    close(loss, mse(text_from_image.numpy(), unit[0]) + mse(image_from_text.numpy(), unit[1]))
    gradients = tape.gradient(loss, [text_from_image, image_from_text, text, image])
    assert gradients[2] is None
    assert gradients[3] is None
    np.testing.assert_allclose(gradients[0], 2 * (text_from_image - unit[0]) / 12, rtol=1e-5)


@pytest.mark.parametrize("target, weight", [(1.0, 0.5), (1.5, 2.0)])
def test_ranking_loss_equals_the_naive_loop(target, weight):
    s = normal(4, 4)
    expected = np.mean([(target - s[i, i]) ** 2 for i in range(4)])
    expected += weight * np.mean(
        [(s[i, j] - s[j, i]) ** 2 for i in range(4) for j in range(4)]
    )
    close(losses.ranking_loss(tf.constant(s), target, weight), expected)


def test_similarity_loss_equals_the_naive_loop():
    ii, tt, it, s_i, s_t, joint = (normal(4, 4, seed=s) for s in range(6))
    expected = 0.1 * (mse(1.5 * s_i, ii) + mse(1.5 * s_t, tt))
    expected += sum(mse(1.5 * joint, s) for s in (ii, tt, it))
    close(losses.similarity_loss(ii, tt, it, s_i, s_t, joint, 1.5, 0.1), expected)


# L_2


def naive_triplet(image, text, related, margin, reduction):
    total = 0.0
    for anchors, others, positive in ((image, text, related), (text, image, related.T)):
        hinges = []
        for i, anchor in enumerate(anchors):
            for j, near in enumerate(others):
                for k, far in enumerate(others):
                    if positive[i, j] and not positive[i, k]:
                        hinge = cosine(anchor, far) - cosine(anchor, near) + margin
                        hinges.append(max(hinge, 0.0))
        if hinges:
            total += sum(hinges) if reduction == "sum" else np.mean(hinges)
    return total


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("margin", [0.001, 0.4])
@pytest.mark.parametrize("mask", ["pair", "symmetric", "asymmetric", "sparse"])
def test_triplet_loss_equals_the_naive_loop(mask, margin, reduction):
    image, text = codes(6)
    rng = np.random.default_rng(3)
    related = {
        "pair": np.eye(6, dtype=bool),
        "symmetric": np.add.outer(np.arange(6), np.arange(6)) % 3 == 0,
        "asymmetric": rng.random((6, 6)) < 0.4,
        "sparse": np.arange(36).reshape(6, 6) == 8,
    }[mask]
    loss = losses.cosine_triplet_loss(image, text, tf.constant(related), margin, reduction)
    close(loss, naive_triplet(image, text, related, margin, reduction))


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("size, value", [(1, True), (4, True), (4, False)])
def test_triplet_loss_without_a_valid_triplet_is_zero(size, value, reduction):
    image, text = (tf.Variable(c) for c in codes(size))
    related = tf.fill([size, size], value)
    with tf.GradientTape() as tape:
        loss = losses.cosine_triplet_loss(image, text, related, 0.1, reduction)
    assert float(loss) == 0
    for gradient in tape.gradient(loss, [image, text]):
        np.testing.assert_array_equal(gradient, np.zeros_like(image))


def test_triplet_loss_survives_zero_rows():
    image, text = codes(4)
    image[0] = 0
    text[2] = 0
    image, text, related = tf.Variable(image), tf.Variable(text), np.eye(4, dtype=bool)
    with tf.GradientTape() as tape:
        loss = losses.cosine_triplet_loss(image, text, related, 0.2)
    close(loss, naive_triplet(image.numpy(), text.numpy(), related, 0.2, "mean"))
    for gradient in tape.gradient(loss, [image, text]):
        assert np.abs(gradient).max() < 10


# L_3


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_pairwise_loss_equals_the_naive_loop(reduction):
    image, text = codes(5)
    target = np.random.default_rng(1).random((5, 5)).astype(np.float32)
    values = []
    for i in range(5):
        for j in range(5):
            omega = 0.5 * sum(float(x) * float(y) for x, y in zip(image[i], text[j]))
            values.append(math.log(1 + math.exp(omega)) - target[i, j] * omega)
    expected = sum(values) if reduction == "sum" else np.mean(values)
    close(losses.pairwise_loss(image, text, target, reduction), expected)


def test_pairwise_loss_does_not_overflow():
    image = tf.Variable([[3e4], [-3e4]])  # omega up to 4.5e8
    with tf.GradientTape() as tape:
        loss = losses.pairwise_loss(image, tf.constant([[3e4], [3e4]]), tf.constant([[0.0, 0.5],
                                                                                    [0.0, 1.0]]))
    # omega = +-4.5e8; softplus is omega or 0.
    close(loss, (4.5e8 + 0.5 * 4.5e8 + 0 + 4.5e8) / 4)
    assert np.isfinite(tape.gradient(loss, image)).all()


# Independent oracles


def test_losses_equal_those_of_keras_where_it_has_them():
    image, text = codes(5)
    target = np.random.default_rng(1).random((5, 5)).astype(np.float32)
    omega = image @ text.T / 2
    oracle = keras.losses.BinaryCrossentropy(from_logits=True)(target, omega)
    close(losses.pairwise_loss(image, text, target), oracle)
    oracle = keras.losses.CosineSimilarity(reduction="sum")(image, text)
    close(-tf.linalg.trace(losses.cosine_matrix(image, text)), oracle)
    close(losses.mean_squared_error(image, text), keras.losses.MeanSquaredError()(image, text))


@pytest.mark.skipif(KERAS_3, reason="TensorFlow Addons does not run beside Keras 3")
def test_losses_equal_those_of_tensorflow_addons():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tensorflow_addons as tfa
    image, _ = codes(5)
    distance = tfa.losses.metric_learning.angular_distance(tf.constant(image))
    np.testing.assert_allclose(1 - losses.cosine_matrix(image, image), distance, atol=1e-6)
    # Addons mines the hardest triplets of one set. Two pairs whose images are opposite, and
    # whose texts are, have only those triplets that cross modalities: four, two a direction.
    image = np.array([[1, 0.1, 0], [-1, 0.1, 0]], np.float32)
    text = np.array([[0.3, 1, 0.2], [-0.1, -1, 0.6]], np.float32)
    for margin in (0.001, 0.5, 2.0):
        oracle = tfa.losses.TripletHardLoss(margin, distance_metric="angular")(
            tf.constant([0, 1, 0, 1]), np.concatenate([image, text])
        )
        ours = losses.cosine_triplet_loss(image, text, np.eye(2, dtype=bool), margin)
        assert margin < 0.01 or float(ours) > 0
        close(ours, 2 * oracle)


# The straight-through sign


def test_straight_through_sign():
    x = tf.Variable([-2.0, -0.0, 0.0, 0.3])
    upstream = tf.constant([1.0, -2.0, 3.0, 0.5])
    with tf.GradientTape() as tape:
        y = straight_through_sign(x)
    np.testing.assert_array_equal(y, [-1, 1, 1, 1])
    np.testing.assert_array_equal(tape.gradient(y, x, output_gradients=upstream), upstream)


# Neighbour thresholds


def naive_neighbours(image, text, weight, count):
    """bool [n, n]: row i marks the `count` others of largest S~."""
    joint = weight * (2 * cosines(image, image) - 1) + (1 - weight) * (2 * cosines(text, text) - 1)
    near = np.zeros(joint.shape, bool)
    for i in range(len(joint)):
        others = [j for j in range(len(joint)) if j != i]
        near[i, sorted(others, key=lambda j: -joint[i, j])[:count]] = True  # noqa: B023
    return joint, near


@pytest.mark.parametrize("share, count", [(0.01, 1), (0.1, 3), (0.5, 14), (0.999, 28)])
@pytest.mark.parametrize("block", [29, 100, 10**6])
def test_neighbour_thresholds_equal_the_naive_loop(share, count, block, monkeypatch):
    monkeypatch.setattr(similarity, "_BLOCK_VALUES", block)
    image, text = normal(29, 7), np.abs(normal(29, 5, seed=1))
    thresholds = similarity.neighbour_thresholds(image, text, 0.9, share)
    joint, near = naive_neighbours(image, text, 0.9, count)
    np.fill_diagonal(joint, -np.inf)
    assert thresholds.dtype == np.float32
    np.testing.assert_array_equal(joint >= thresholds[:, None], near)


def test_all_nearest_neighbours_are_found_again_in_a_batch():
    # The batch computes S~ with other rounding than the thresholds: none may fall out.
    image, text = np.abs(normal(64, 40)), (normal(64, 30, seed=1) > 0).astype(np.float32)
    thresholds = similarity.neighbour_thresholds(image, text, 0.9, 0.01)
    _, near = naive_neighbours(image, text, 0.9, 1)
    objective = DSPRHObjective(related="neighbours")
    rng = np.random.default_rng(2)
    for _ in range(5):
        rows = rng.permutation(64)[:50]
        joint = losses.joint_similarity(
            losses.feature_similarity(image[rows]), losses.feature_similarity(text[rows]), 0.9
        )
        batch = {"neighbour_threshold": tf.constant(thresholds[rows])}
        related = objective._related("neighbours", batch, joint)
        expected = near[np.ix_(rows, rows)]
        np.testing.assert_array_equal(related, expected | expected.T | np.eye(50, dtype=bool))


@pytest.mark.parametrize("size, share, message", [
    (5, 0.0, "neighbour share is 0.0, expected a number between 0 and 1"),
    (5, 1.0, "neighbour share is 1.0"),
    (5, float("nan"), "neighbour share is nan"),
    (1, 0.5, "there are 1 training pairs, expected at least 2"),
])  # fmt: skip
def test_neighbour_thresholds_refuse_bad_input(size, share, message):
    with pytest.raises(ValueError, match=message):
        similarity.neighbour_thresholds(np.ones((size, 2)), np.ones((size, 2)), 0.9, share)


# The objective


def make_batch(size=6, seed=0):
    """A batch and outputs of a model, with labels and thresholds."""
    rng = np.random.default_rng(seed)
    image_code, text_code = codes(size, 8, seed=seed)
    batch = {
        "bow": (rng.random((size, 10)) < 0.3).astype(np.float32),
        "target_feature": rng.random((size, 7), np.float32),
        "labels": (rng.random((size, 4)) < 0.3).astype(np.uint8),
        "neighbour_threshold": np.full(size, 0.1, np.float32),
    }
    batch["bow"][0] = 0  # no known word
    outputs = {
        "image_fused": rng.random((size, 7), np.float32),
        "image_code": image_code,
        "text_code": text_code,
        "text_from_image": normal(size, 10, seed=seed + 7),
        "image_from_text": normal(size, 7, seed=seed + 8),
    }
    return batch, {name: tf.constant(value) for name, value in outputs.items()}


def naive_objective(o, batch, outputs):
    """All terms from the definitions of this file; related and targets as they are named."""
    outputs = {name: value.numpy() for name, value in outputs.items()}
    image, text = outputs["image_code"], outputs["text_code"]
    source = batch["target_feature"] if o.similarity_source == "frozen" else outputs["image_fused"]
    s_i = 2 * cosines(source, source) - 1
    s_t = 2 * cosines(batch["bow"], batch["bow"]) - 1
    joint = o.image_weight * s_i + (1 - o.image_weight) * s_t
    ii, tt, it = cosines(image, image), cosines(text, text), cosines(image, text)
    size = len(image)
    masks = {name: np.eye(size, dtype=bool) for name in ("pair", "neighbours", "labels")}
    for i in range(size):
        for j in range(size):
            threshold = batch["neighbour_threshold"]
            if joint[i, j] >= threshold[i] or joint[j, i] >= threshold[j]:
                masks["neighbours"][i, j] = True
            if (batch["labels"][i] & batch["labels"][j]).any():
                masks["labels"][i, j] = True
    masks["soft"] = np.clip((joint + 1) / 2, 0, 1)

    def unit(x):
        return [row / (np.linalg.norm(row) or 1) for row in x]

    terms = {
        "L_F": mse(outputs["text_from_image"], unit(batch["bow"]))
        + mse(outputs["image_from_text"], unit(outputs["image_fused"])),
        "L_R": np.mean((o.diagonal_target - np.diag(it)) ** 2)
        + o.symmetry_weight * mse(it, it.T),
        "L_W": o.within_weight * (mse(o.scale * s_i, ii) + mse(o.scale * s_t, tt))
        + sum(mse(o.scale * joint, s) for s in (ii, tt, it)),
        "L_2": naive_triplet(image, text, masks[o.related], o.margin, o.triplet_reduction),
    }
    omega = image.astype(float) @ text.T / 2
    values = np.log1p(np.exp(omega)) - masks[o.pairwise_target] * omega
    terms["L_3"] = values.mean() if o.pairwise_reduction == "mean" else values.sum()
    terms["total"] = (
        o.alpha * (terms["L_F"] + terms["L_R"] + terms["L_W"])
        + o.beta * terms["L_2"]
        + o.gamma * terms["L_3"]
    )
    return terms


FLAGS = {
    "alpha": 0.4,
    "beta": 0.9,
    "gamma": 0.2,
    "image_weight": 0.5,
    "scale": 1.2,
    "within_weight": 0.7,
    "diagonal_target": 1.5,
    "symmetry_weight": 2.0,
    "similarity_source": "fused",
    "related": "labels",
    "pairwise_target": "pair",
    "margin": 0.3,
    "triplet_reduction": "sum",
    "pairwise_reduction": "sum",
}


def test_every_flag_has_a_case():
    assert set(FLAGS) == {field.name for field in dataclasses.fields(DSPRHObjective)}


@pytest.mark.parametrize(
    "flags",
    [
        {},
        *({name: value} for name, value in FLAGS.items()),
        {"related": "neighbours"},
        {"pairwise_target": "neighbours"},
        {"pairwise_target": "labels"},
        FLAGS,
    ],
    ids=str,
)
def test_the_objective_equals_the_naive_loop_and_each_flag_has_an_effect(flags):
    batch, outputs = make_batch()
    objective = DSPRHObjective(**flags)
    terms = objective(batch, outputs)
    expected = naive_objective(objective, batch, outputs)
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        close(terms[name], value)
    default = DSPRHObjective()(batch, outputs)
    changed = [n for n in terms if float(terms[n]) != pytest.approx(float(default[n]), rel=1e-3)]
    assert changed or not flags


def test_embeddings_with_negative_entries_have_targets_of_at_least_zero():
    batch, outputs = make_batch()
    batch["target_feature"] = normal(6, 7, seed=3)
    expected = naive_objective(DSPRHObjective(), batch, outputs)
    assert (cosines(batch["target_feature"], batch["target_feature"]) < -0.2).any()
    for name, value in DSPRHObjective()(batch, outputs).items():
        close(value, expected[name])


def test_a_method_needs_labels_or_neighbours_only_if_asked():
    batch, outputs = make_batch()
    bare = {name: batch[name] for name in ("bow", "target_feature")}
    for objective in (DSPRHObjective(), DSPRHObjective(pairwise_target="pair")):
        assert not objective.needs_labels
        assert not objective.needs_neighbours
        objective(bare, outputs)
    assert DSPRHObjective(related="labels").needs_labels
    assert DSPRHObjective(pairwise_target="labels").needs_labels
    assert DSPRHObjective(pairwise_target="neighbours").needs_neighbours
    fused = DSPRHObjective(similarity_source="fused")
    fused({"bow": batch["bow"]}, outputs)


@pytest.mark.parametrize("flags", [{}, FLAGS], ids=["default", "other"])
def test_a_batch_of_one_and_blank_pairs_have_small_gradients(flags):
    for size, blank in ((1, False), (1, True), (3, True)):
        batch, outputs = make_batch(size)
        if blank:
            batch = {name: np.zeros_like(value) for name, value in batch.items()}
            outputs = {name: tf.zeros_like(value) for name, value in outputs.items()}
        with tf.GradientTape() as tape:
            tape.watch(outputs)
            terms = DSPRHObjective(**flags)(batch, outputs)
        for name, value in terms.items():
            assert np.isfinite(value), name
        for gradient in tape.gradient(terms["total"], list(outputs.values())):
            assert gradient is None or np.abs(gradient).max() < 10


@pytest.mark.parametrize("source", ["frozen", "fused"])
def test_no_gradient_flows_into_similarity_targets(source):
    batch, outputs = make_batch()
    batch = {**batch, "target_feature": tf.constant(batch["target_feature"])}
    with tf.GradientTape() as tape:
        tape.watch([batch["target_feature"], outputs["image_fused"], outputs["image_code"]])
        total = DSPRHObjective(similarity_source=source)(batch, outputs)["total"]
    target, fused, code = tape.gradient(
        total, [batch["target_feature"], outputs["image_fused"], outputs["image_code"]]
    )
    assert target is None
    assert fused is None
    assert np.abs(code).max() > 0


@pytest.mark.parametrize(
    "flags, message",
    [
        ({"related": "near"}, "related is 'near', expected one of pair, neighbours, labels"),
        ({"pairwise_target": "hard"}, "pairwise_target is 'hard', expected one of soft, neigh"),
        ({"similarity_source": "live"}, "similarity_source is 'live', expected one of frozen"),
        ({"triplet_reduction": "max"}, "triplet_reduction is 'max', expected one of mean, sum"),
        ({"pairwise_reduction": ""}, "pairwise_reduction is '', expected one of mean, sum"),
        ({"image_weight": 1.1}, r"image_weight is 1.1, expected a number in \[0, 1\]"),
        ({"image_weight": float("nan")}, "image_weight is nan"),
        (
            {"related": "neighbours", "similarity_source": "fused"},
            "neighbours are found once, .* use similarity_source='frozen'",
        ),
        ({"pairwise_target": "neighbours", "similarity_source": "fused"}, "found once"),
    ],
)
def test_unknown_choices_are_refused_in_one_line(flags, message):
    with pytest.raises(ValueError, match=message) as error:
        DSPRHObjective(**flags)
    assert "\n" not in str(error.value)
