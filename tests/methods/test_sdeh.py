"""SDEH: its losses and networks against naive NumPy, its runs, data without labels."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from method_helpers import (
    check_degenerate_labels,
    check_supervised_loss,
    check_train_resume_export_and_encode,
    close,
    cosine,
    make_batch,
    manifest_entries,
    mse,
    naive_soft_similarity,
    own_flags,
    small_model,
    supervised_codes,
    supervised_outputs,
    unit_mean_square,
    values,
    write_manifest,
)

from dsprh_tf.methods import SDEH
from dsprh_tf.methods.sdeh import (
    AttentionBlock,
    AttentiveImageNetwork,
    AttentiveTextNetwork,
    SemanticDecomposition,
    alignment_loss,
    classification_loss,
    maximum_mean_discrepancy,
    quantization_loss,
)

M, L, D = 5, 4, 3

# The loss


def test_quantization_is_the_distance_to_a_code_that_is_not_moved():
    image, text, _ = supervised_codes()
    code = tf.Variable(np.sign(image + text))
    with tf.GradientTape() as tape:
        found = quantization_loss(image, text, code)
    assert float(found) == pytest.approx((mse(image, code) + mse(text, code)) / 2, rel=1e-5)
    gradient = tape.gradient(found, code)
    assert gradient is None or not np.any(gradient)
    assert float(quantization_loss(code, code, code)) == 0


def test_classification_equals_the_naive_computation():
    rng = np.random.default_rng(1)
    logits, labels = rng.normal(size=(M, L)).astype(np.float32), supervised_codes()[2]
    p = 1 / (1 + np.exp(-logits))
    expected = -(labels * np.log(p) + (1 - labels) * np.log(1 - p)).sum(axis=1).mean()
    assert float(classification_loss(logits, labels)) == pytest.approx(expected, rel=1e-5)


def test_alignment_looks_at_present_labels_alone():
    rng = np.random.default_rng(2)
    image, text = (rng.normal(size=(M, L, D)).astype(np.float32) for _ in range(2))
    labels = supervised_codes()[2]
    present = [(i, j) for i in range(M) for j in range(L) if labels[i, j]]
    expected = np.mean([1 - cosine(image[i, j], text[i, j]) for i, j in present])
    assert float(alignment_loss(image, text, labels)) == pytest.approx(expected, rel=1e-5)
    assert float(alignment_loss(image, text, 0 * labels)) == 0
    assert float(alignment_loss(image, 3 * image, labels)) == pytest.approx(0, abs=1e-5)


def test_mmd_equals_the_naive_computation():
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(M, D)), rng.normal(1.0, size=(M, D))
    both = np.concatenate([a, b])
    width = np.mean([np.sum((x - y) ** 2) for x in both for y in both])

    def kernel(x, y):
        factors = (0.25, 0.5, 1, 2, 4)
        return np.mean([np.exp(-np.sum((x - y) ** 2) / (f * width)) for f in factors])

    def mean(rows, others):
        return np.mean([kernel(x, y) for x in rows for y in others])

    expected = mean(a, a) + mean(b, b) - 2 * mean(a, b)
    found = maximum_mean_discrepancy(tf.constant(a, tf.float32), tf.constant(b, tf.float32))
    assert float(found) == pytest.approx(expected, rel=1e-3)


def test_mmd_is_zero_for_the_same_rows_in_any_order_and_finite_for_one_point():
    a = np.random.default_rng(4).normal(size=(M, D)).astype(np.float32)
    assert float(maximum_mean_discrepancy(a, a[::-1])) == pytest.approx(0, abs=1e-6)
    point = tf.Variable(tf.ones([2, D]))
    with tf.GradientTape() as tape:
        found = maximum_mean_discrepancy(point, point)
    assert float(found) == pytest.approx(0, abs=1e-6)
    assert np.isfinite(tf.convert_to_tensor(tape.gradient(found, point))).all()


WEIGHTS = {
    "similarity_weight": 0.7,
    "classification_weight": 0.2,
    "distribution_weight": 0.3,
    "quantization_weight": 0.4,
}


def test_the_total_is_the_weighted_sum_of_the_terms_and_labels_enter_it():
    def quantization(image, text):
        """Both codes have the signs of their sum."""
        return quantization_loss(image, text, np.sign(image + text))

    method = SDEH(8, **WEIGHTS, soft_scale=1.2)
    assert tuple(method.terms) == ("L_S", "L_C", "L_D", "L_Q")
    check_supervised_loss(method, WEIGHTS.values(), quantization)
    image, text, labels = supervised_codes()
    outputs = supervised_outputs(image, text)
    terms = method.loss({"labels": tf.constant(labels)}, outputs)
    close(terms["L_S"], naive_soft_similarity(image, text, labels, 1.2), rel=1e-4)
    both = [[outputs[f"{side}_{name}"] for side in ("image", "text")]
            for name in ("logits", "semantic", "decomposed")]  # fmt: skip
    close(terms["L_C"], sum(float(classification_loss(x, labels)) for x in both[0]) / 2)
    aligned = float(alignment_loss(*both[2], labels))
    close(terms["L_D"], float(maximum_mean_discrepancy(*both[1])) + aligned)


@pytest.mark.parametrize("labels", [np.zeros((M, L)), np.ones((M, L))], ids=["none", "all"])
def test_degenerate_batches_are_finite_with_their_gradients(labels):
    check_degenerate_labels(SDEH(8, **WEIGHTS, soft_scale=1.2), labels)


# Networks

BOW = (values(3, 11) < 0.4).astype(np.float32)


def test_decomposition_equals_the_naive_attention():
    tokens = values(2, 4, 6)
    layer = SemanticDecomposition(3)
    found = layer(tokens)
    prototypes, classifiers = layer.prototypes.numpy(), layer.classifiers.numpy()
    keys = tokens @ layer.key.get_weights()[0]
    kernel, bias = layer.value.get_weights()
    contents = tokens @ kernel + bias
    for item in range(2):
        total = 0
        for label in range(3):
            scores = keys[item] @ prototypes[label] / np.sqrt(6)
            weights = np.exp(scores) / np.exp(scores).sum()
            feature = weights @ contents[item]
            logit = feature @ classifiers[label] + layer.bias.numpy()[label]
            np.testing.assert_allclose(found["decomposed"][item, label], feature, rtol=1e-4)
            assert float(found["logits"][item, label]) == pytest.approx(float(logit), rel=1e-4)
            total = total + feature / (1 + np.exp(-logit))
        np.testing.assert_allclose(found["semantic"][item], unit_mean_square(total), rtol=1e-3)


def test_absent_tokens_change_nothing():
    tokens, present = values(2, 4, 6), tf.constant([[True, True, False, False]] * 2)
    other = tokens.copy()
    other[:, 2:] = 9
    block, decomposition = AttentionBlock(2), SemanticDecomposition(3)
    np.testing.assert_allclose(
        block(tokens, present=present)[:, :3], block(other, present=present)[:, :3], rtol=1e-4
    )
    assert not np.allclose(block(tokens)[:, :3], block(other)[:, :3])
    first, second = (decomposition(x, present=present) for x in (tokens, other))
    np.testing.assert_allclose(first["logits"], second["logits"], rtol=1e-5)


def test_a_text_is_the_set_of_its_words():
    """Attention sees embeddings of present words; a text of none has a finite code."""
    network = AttentiveTextNetwork(8, 3, hidden=5, width=6, heads=2)
    hashed = network(np.concatenate([BOW, np.zeros((1, 11), np.float32)]))["hash"].numpy()
    assert np.isfinite(hashed).all()
    absent = int(np.flatnonzero(BOW[0] == 0)[0])
    table = network.embeddings.numpy()
    table[absent] += np.arange(6)
    network.embeddings.assign(table)
    np.testing.assert_allclose(network(BOW[:1])["hash"], hashed[:1], rtol=1e-4, atol=1e-5)


def test_attention_of_a_text_sees_the_first_64_words():
    network = AttentiveTextNetwork(8, 3, hidden=5, width=6, heads=2)
    before = network(np.ones((1, 80), np.float32))["logits"].numpy()
    for word, same in ((70, True), (63, False)):
        table = network.embeddings.numpy()
        table[word] += np.arange(6)
        network.embeddings.assign(table)
        after = network(np.ones((1, 80), np.float32))["logits"].numpy()
        assert np.allclose(before, after) == same


def test_positions_of_the_map_matter():
    network = AttentiveImageNetwork(8, 3, width=6, heads=2)
    inputs = {"feature": values(2, 5), "conv_map": values(2, 3, 4, 7)}
    network(inputs)
    network.position.assign(values(12, 6, seed=4))
    flipped = {**inputs, "conv_map": inputs["conv_map"][:, :, ::-1]}
    assert not np.allclose(network(inputs)["hash"], network(flipped)["hash"])


def test_width_is_a_multiple_of_the_heads():
    with pytest.raises(ValueError, match="width is 6, expected a multiple of the 4 heads"):
        AttentionBlock(4).build((None, None, 6))


def test_settings_reach_both_networks():
    settings = {"width": 6, "heads": 3, "hash_dropout": 0.25}
    image, text = SDEH(16, 9, text_hidden=7, **settings).networks({"labels": 5})
    for network in (image, text):
        assert {name: getattr(network, name) for name in settings} == settings
        assert (network.bits, network.seed, network.labels) == (16, 9, 5)
    assert text.hidden == 7


def test_the_networks_need_the_number_of_labels():
    with pytest.raises(ValueError, match="sizes has no 'labels', which sdeh needs"):
        SDEH(8).networks({"bow": 7, "feature": 6})


def test_nothing_is_decoded_and_codes_do_not_harden():
    model = small_model("sdeh")
    model.epoch_variable.assign(8.0)
    outputs = model(make_batch())
    np.testing.assert_allclose(outputs["image_code"], np.tanh(outputs["image_hash"]), rtol=1e-5)
    assert "text_from_image" not in outputs


# Runs

SMALL = ["--width=16", "--heads=2", "--optimizer=adamw", "--lr_image=0.003", "--lr_text=0.003"]


@pytest.fixture
def run_flags(small_flags):
    return [*own_flags("sdeh", small_flags), *SMALL, "--method=sdeh"]


@pytest.mark.slow
def test_train_resume_export_and_encode(run_flags, scenes_dir, tmp_path):
    flags = [*run_flags, "--hash_dropout=0.2"]
    check_train_resume_export_and_encode(flags, scenes_dir, tmp_path)


def test_data_without_labels_are_refused(program, run_flags, scenes_dir, tmp_path):
    path = write_manifest(
        scenes_dir / "nolabels.csv", manifest_entries(scenes_dir), ("image", "text")
    )
    flags = [*run_flags, f"--data_dir={path}", f"--run_dir={tmp_path / 'run'}"]
    line = program("train", *flags).line
    assert "sdeh is supervised and pairs data has no labels: add a labels column" in line
    assert "djsrh, dsah, dsprh, dsprh_plus" in line
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_width_that_heads_do_not_divide_is_refused(program, run_flags, tmp_path):
    flags = [*run_flags, "--heads=4", "--width=30", f"--run_dir={tmp_path / 'run'}"]
    assert "width is 30, expected a multiple of the 4 heads" in program("train", *flags).line
