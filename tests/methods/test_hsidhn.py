"""HSIDHN: its losses and networks against naive NumPy, its ablations, its runs, missing labels."""

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
    mean_over_pairs,
    mse,
    naive_soft_similarity,
    own_flags,
    settings_of,
    small_model,
    supervised_codes,
    supervised_outputs,
    unit_mean_square,
    values,
    write_manifest,
)

from dsprh_tf.methods import HSIDHN
from dsprh_tf.methods.hsidhn import (
    BilinearInteraction,
    HierarchicalImageNetwork,
    HierarchicalTextNetwork,
    balance_loss,
    hard_similarity_loss,
)
from dsprh_tf.run import Run

# The loss


def test_hard_similarity_equals_the_naive_computation():
    image, text, labels = supervised_codes()

    def likelihood(a, b, i, j):
        odds = 6.0 * (cosine(a, b) - 0.1)
        probability = 1 / (1 + np.exp(-odds))
        return -np.log(probability if labels[i] @ labels[j] > 0 else 1 - probability)

    found = hard_similarity_loss(image, text, labels, steepness=6.0, threshold=0.1)
    assert float(found) == pytest.approx(mean_over_pairs(image, text, likelihood), rel=1e-4)


def test_balance():
    even = np.float32([[1, 1], [-1, -1]])
    constant = np.ones((2, 2), np.float32)
    assert float(balance_loss(even, even)) == 0
    assert float(balance_loss(constant, constant)) == 1
    assert float(balance_loss(even, constant)) == 0.5


WEIGHTS = {
    "hard_weight": 0.2,
    "soft_weight": 0.7,
    "quantization_weight": 0.3,
    "balance_weight": 0.4,
}


def test_the_total_is_the_weighted_sum_of_the_terms_and_labels_enter_it():
    def quantization(image, text):
        """Each code has signs of its own."""
        return (mse(image, np.sign(image)) + mse(text, np.sign(text))) / 2

    method = HSIDHN(8, **WEIGHTS, soft_scale=1.2)
    assert tuple(method.terms) == ("L_hard", "L_soft", "L_Q", "L_B")
    check_supervised_loss(method, WEIGHTS.values(), quantization)
    image, text, labels = supervised_codes()
    terms = method.loss({"labels": tf.constant(labels)}, supervised_outputs(image, text))
    close(terms["L_hard"], hard_similarity_loss(image, text, labels))
    close(terms["L_soft"], naive_soft_similarity(image, text, labels, 1.2), rel=1e-4)
    close(terms["L_B"], balance_loss(image, text))


@pytest.mark.parametrize("labels", [np.zeros((5, 4)), np.ones((5, 4))], ids=["none", "all"])
def test_degenerate_batches_are_finite_with_their_gradients(labels):
    check_degenerate_labels(HSIDHN(8, **WEIGHTS, soft_scale=1.2), labels)


# Networks

STAGES = {f"stage_{n}": values(3, 21, n + 1, seed=n) for n in (1, 2, 3)}
BOW = (values(3, 11) < 0.4).astype(np.float32)


def test_interaction_equals_the_naive_chains():
    levels = [values(2, 4, seed=seed) for seed in range(3)]
    layer = BilinearInteraction()
    found = layer(levels).numpy()
    f = [unit_mean_square(level) for level in levels]
    blocks = list(f)
    for way, order in (("up", f), ("down", f[::-1])):
        chain = order[0]
        for step in (1, 2):
            left = chain @ getattr(layer, f"{way}_{step}_chain").get_weights()[0]
            right = order[step] @ getattr(layer, f"{way}_{step}_level").get_weights()[0]
            chain = unit_mean_square(left * right)
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
    x = unit_mean_square(np.mean(windows, axis=0))
    levels = []
    for n in (1, 2, 3):
        kernel, bias = getattr(network, f"hidden_{n}").get_weights()
        x = np.maximum(x @ kernel + bias, 0)
        kernel, bias = getattr(network, f"project_{n}").get_weights()
        levels.append(np.maximum(x @ kernel + bias, 0))
    joined = network.bilinear(levels).numpy()
    kernel, bias = network.hash_layer.get_weights()
    np.testing.assert_allclose(network(BOW)["hash"], joined @ kernel + bias, rtol=1e-3, atol=1e-5)


def test_hash_dropout_acts_while_training_alone():
    network = HierarchicalImageNetwork(8, width=5, hash_dropout=0.5, seed=3)
    first = network(STAGES)["hash"].numpy()
    np.testing.assert_array_equal(first, network(STAGES, training=False)["hash"])
    assert not np.allclose(first, network(STAGES, training=True)["hash"])


def test_settings_reach_both_networks():
    settings = {"width": 6, "multi_scale": False, "interaction": False, "hash_dropout": 0.25}
    image, text = HSIDHN(16, 9, text_hidden=7, **settings).networks({})
    for network in (image, text):
        assert {name: getattr(network, name) for name in settings} == settings
        assert (network.bits, network.seed) == (16, 9)
    assert text.hidden == 7


def test_nothing_is_decoded_and_codes_do_not_harden():
    model = small_model("hsidhn")
    model.epoch_variable.assign(8.0)
    outputs = model(make_batch())
    np.testing.assert_allclose(outputs["image_code"], np.tanh(outputs["image_hash"]), rtol=1e-5)
    assert "text_from_image" not in outputs


# Runs

SMALL = ["--width=16", "--optimizer=adamw", "--lr_image=0.003", "--lr_text=0.003"]


@pytest.fixture
def run_flags(small_flags):
    return [*own_flags("hsidhn", small_flags), *SMALL, "--method=hsidhn"]


@pytest.mark.slow
def test_train_resume_export_and_encode(run_flags, scenes_dir, tmp_path):
    flags = [*run_flags, "--hash_dropout=0.2"]
    check_train_resume_export_and_encode(flags, scenes_dir, tmp_path)


@pytest.fixture
def partly_labelled(scenes_dir):
    """A manifest whose first 30 rows have no label."""
    entries = manifest_entries(scenes_dir)
    for entry in entries[:30]:
        entry["labels"] = ""
    return write_manifest(scenes_dir / "partly.csv", entries)


def test_training_pairs_without_a_label_are_refused(
    program, small_flags, run_flags, partly_labelled, tmp_path
):
    flags = [*run_flags, f"--data_dir={partly_labelled}", f"--run_dir={tmp_path / 'run'}"]
    line = program("train", *flags).line
    assert "of 72 training pairs have no label, the first is item" in line
    assert "leave them out with --on_missing_labels=skip" in line
    # An unsupervised method trains on all of them.
    settings = settings_of([*small_flags, f"--data_dir={partly_labelled}"])
    assert len(Run(tmp_path / "all", **settings).split.train) == 72


@pytest.mark.slow
def test_a_trained_backbone_learns_from_the_pairs_with_a_label(
    program, run_flags, partly_labelled, tmp_path
):
    flags = [*run_flags, f"--data_dir={partly_labelled}", "--on_missing_labels=skip"]
    flags += ["--nofreeze_backbone", "--image_size=32", "--resize=40", "--epochs=1"]
    outcome = program("train", *flags, f"--run_dir={tmp_path / 'run'}")
    assert outcome.code == 0, outcome.err[-2000:]
    assert (tmp_path / "run" / "results.json").exists()
    (note,) = [x for x in outcome.out.splitlines() if "left out of training" in x]
    left_out = int(note.split()[1])
    assert 0 < left_out <= 30
    assert f"{72 - left_out} train" in outcome.out


def test_vectors_are_refused(program, tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "vectors.npz"
    labels = np.eye(3, dtype=np.uint8)[np.arange(60) % 3]
    np.savez(path, image=rng.random((60, 5)), text=rng.random((60, 4)), labels=labels)
    line = program(
        "train", "--dataset=features", f"--data_dir={path}", "--queries=12", "--train_pairs=40",
        "--bits=16", "--method=hsidhn", f"--run_dir={tmp_path / 'run'}",
    ).line  # fmt: skip
    assert "hsidhn reads maps of a backbone and features data has vectors only" in line
