"""HSIDHN's and SDEH's networks: what they compute, what an ablation takes away."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from dsprh_tf.layers import PyramidPooling
from dsprh_tf.methods.hsidhn import (
    BilinearInteraction,
    HierarchicalImageNetwork,
    HierarchicalTextNetwork,
)
from dsprh_tf.methods.sdeh import (
    AttentionBlock,
    AttentiveImageNetwork,
    AttentiveTextNetwork,
    SemanticDecomposition,
)


def values(*shape, seed=0):
    return np.random.default_rng(seed).random(shape, np.float32)


def unit(x):
    """Rows of mean square 1."""
    return x / np.sqrt(np.maximum((x**2).mean(axis=-1, keepdims=True), 1e-12))


STAGES = {f"stage_{n}": values(3, 21, n + 1, seed=n) for n in (1, 2, 3)}
BOW = (values(3, 11) < 0.4).astype(np.float32)


# HSIDHN


def test_pyramid_pooling_is_the_mean_of_each_region():
    x = values(2, 8, 4, 3)
    expected = [x.mean((1, 2))]
    expected += [x[:, 4 * r : 4 * r + 4, 2 * c : 2 * c + 2].mean((1, 2)) for r in (0, 1)
                 for c in (0, 1)]  # fmt: skip
    found = PyramidPooling((1, 2))(x)
    np.testing.assert_allclose(found, np.stack(expected, axis=1), rtol=1e-5)
    with pytest.raises(ValueError, match="levels is \\(0,\\), expected regions per side"):
        PyramidPooling((0,))


def test_interaction_equals_the_naive_chains():
    levels = [values(2, 4, seed=seed) for seed in range(3)]
    layer = BilinearInteraction()
    found = layer(levels).numpy()
    f = [unit(level) for level in levels]
    blocks = list(f)
    for way, order in (("up", f), ("down", f[::-1])):
        chain = order[0]
        for step in (1, 2):
            left = chain @ getattr(layer, f"{way}_{step}_chain").get_weights()[0]
            right = order[step] @ getattr(layer, f"{way}_{step}_level").get_weights()[0]
            chain = unit(left * right)
            blocks.append(chain)
    np.testing.assert_allclose(found, np.concatenate(blocks, axis=1), rtol=1e-4, atol=1e-5)
    alone = BilinearInteraction(enabled=False)
    np.testing.assert_allclose(alone(levels), np.concatenate(f, axis=1), rtol=1e-5)
    assert not alone.weights


def test_without_multi_scale_only_the_mean_of_a_stage_counts():
    changed = {name: stage.copy() for name, stage in STAGES.items()}
    for stage in changed.values():
        stage[:, 1:] = stage[:, 1:][:, ::-1] ** 2  # the first region, the mean, stays
    for multi_scale in (True, False):
        network = HierarchicalImageNetwork(8, width=5, multi_scale=multi_scale)
        same = np.allclose(network(STAGES)["hash"], network(changed)["hash"])
        assert same == (not multi_scale)


def test_text_windows_are_means_side_by_side():
    network = HierarchicalTextNetwork(8, hidden=6, width=5)
    network(BOW)
    np.testing.assert_allclose(network.fuse.get_weights()[0], np.full((4, 1), 0.25))
    padded = np.pad(BOW, [(0, 0), (0, 5)])  # to a multiple of 8
    windows = [
        np.repeat(padded.reshape(3, -1, n).mean(axis=-1), n, axis=-1)[:, :11] for n in (1, 2, 4, 8)
    ]
    # The last windows are cut off by the end of the vocabulary, so that zeros fill them.
    x = unit(np.mean(windows, axis=0))
    levels = []
    for n in (1, 2, 3):
        for layer in (getattr(network, f"hidden_{n}"),):
            x = np.maximum(x @ layer.get_weights()[0] + layer.get_weights()[1], 0)
        project = getattr(network, f"project_{n}")
        levels.append(np.maximum(x @ project.get_weights()[0] + project.get_weights()[1], 0))
    joined = network.bilinear(levels).numpy()
    kernel, bias = network.hash_layer.get_weights()
    np.testing.assert_allclose(network(BOW)["hash"], joined @ kernel + bias, rtol=1e-3, atol=1e-5)


def test_hash_dropout_acts_while_training_alone():
    network = HierarchicalImageNetwork(8, width=5, hash_dropout=0.5, seed=3)
    first = network(STAGES)["hash"].numpy()
    np.testing.assert_array_equal(first, network(STAGES, training=False)["hash"])
    assert not np.allclose(first, network(STAGES, training=True)["hash"])


# SDEH


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
        np.testing.assert_allclose(found["semantic"][item], unit(total), rtol=1e-3)


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
    network(np.ones((1, 80), np.float32))
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
