"""What tests of methods and their losses share: naive arithmetic, small batches, short runs."""

from __future__ import annotations

import csv
import json
import math
import shutil

import numpy as np
import pytest
import tensorflow as tf
from absl.flags import FlagValues
from helpers import call_program, read_notes, read_weights

from dsprh_tf.cli.settings import define_settings, given_settings
from dsprh_tf.methods import METHODS
from dsprh_tf.model import CrossModalHashing
from dsprh_tf.run import Run
from dsprh_tf.serving.encoder import Encoder

# Naive arithmetic


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def values(*shape, seed=0):
    """Non-negative, as features and maps after a ReLU are."""
    return np.random.default_rng(seed).random(shape, np.float32)


def codes(size, bits=6, seed=0):
    """Image and text codes while training."""
    return np.tanh(normal(size, bits, seed=seed)), np.tanh(normal(size, bits, seed=seed + 100))


def cosine(a, b):
    norms = math.sqrt(float(a @ a)) * math.sqrt(float(b @ b))
    return float(a @ b) / norms if norms else 0.0


def cosines(a, b):
    a, b = np.asarray(a, float), np.asarray(b, float)
    return np.array([[cosine(x, y) for y in b] for x in a])


def mse(a, b):
    return np.mean([(x - y) ** 2 for x, y in zip(np.ravel(a), np.ravel(b))])


def unit_rows(x):
    """Rows of length 1; a zero row stays zero."""
    return [row / (np.linalg.norm(row) or 1) for row in np.asarray(x)]


def unit_mean_square(x):
    """Rows of mean square 1; a zero row stays zero."""
    return x / np.sqrt(np.maximum((x**2).mean(axis=-1, keepdims=True), 1e-12))


def close(actual, expected, rel=1e-5):
    assert float(actual) == pytest.approx(float(expected), rel=rel, abs=1e-6)


def naive_triplet(image, text, related, margin, reduction):
    """L_2, one triplet after another."""
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


def naive_pairwise(image, text, target):
    """The entries of L_3."""
    omega = np.asarray(image, float) @ np.asarray(text, float).T / 2
    return np.log1p(np.exp(omega)) - target * omega


def mean_over_pairs(image, text, function):
    """Mean over (II, TT, IT) and all i, j of function(code i, code j, i, j)."""
    found = [
        function(a[i], b[j], i, j)
        for a, b in ((image, image), (text, text), (image, text))
        for i in range(len(a))
        for j in range(len(b))
    ]
    return np.mean(found)


def naive_soft_similarity(image, text, labels, scale):
    """Mean squared error of code cosines against stretched label cosines."""

    def error(a, b, i, j):
        return (scale * cosine(labels[i], labels[j]) - cosine(a, b)) ** 2

    return mean_over_pairs(image, text, error)


# Batches


SIZES = {"bow": 7, "feature": 6, "conv_map": (3, 3, 4), "labels": 3}
SIZES.update({f"stage_{n}": (21, n + 1) for n in (1, 2, 3)})
SMALL = {"cov_channels": 2, "text_hidden": 5, "width": 4, "heads": 2, "neighbours": 3}


def small_method(name, bits=8, **settings):
    """A method with small networks."""
    method = METHODS[name]
    own = {n: v for n, v in SMALL.items() if n in method.setting_names()}
    return method(bits, **{**own, **settings})


def small_model(name, bits=8, **settings):
    return CrossModalHashing(small_method(name, bits, **settings), SIZES)


def make_batch(n=5, seed=0):
    """Inputs of every method's networks, and labels."""
    rng = np.random.default_rng(seed)
    return {
        "feature": tf.constant(rng.random((n, 6)).astype(np.float32)),
        "conv_map": tf.constant(rng.random((n, 3, 3, 4)).astype(np.float32)),
        "bow": tf.constant((rng.random((n, 7)) > 0.5).astype(np.float32)),
        "labels": tf.constant(np.eye(3, dtype=np.float32)[rng.integers(0, 3, n)]),
        **{f"stage_{s}": tf.constant(rng.random((n, 21, s + 1), np.float32)) for s in (1, 2, 3)},
    }


def prepared(method, batch):
    """The batch, as if it were the training set, with what the method prepares."""
    own = method.prepare(*(batch[name].numpy() for name in ("feature", "bow", "labels")))
    return {**batch, **{name: tf.constant(rows) for name, rows in own.items()}}


def loss_batch(size=6, seed=0):
    """A batch with labels and thresholds, and outputs of a model with decoders."""
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


def clustered(n=60, seed=0):
    """Pairs around ten centres: features [n, 12], bags of words [n, 30]."""
    rng = np.random.default_rng(seed)
    which = rng.integers(0, 10, n)
    image = np.abs(rng.normal(size=(10, 12))[which] + 0.3 * rng.normal(size=(n, 12)))
    words = (rng.random((10, 30))[which] + 0.3 * rng.random((n, 30)) > 0.9).astype(np.uint8)
    words[:, 0] = 1
    return image.astype(np.float32), words


def check_small_gradients(method, size, blank):
    """A batch of few or of nothing has finite terms and gradients that do not blow up."""
    batch, outputs = loss_batch(size)
    if blank:
        batch = {name: np.zeros_like(value) for name, value in batch.items()}
        outputs = {name: tf.zeros_like(value) for name, value in outputs.items()}
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        terms = method.loss(batch, outputs)
    for name, value in terms.items():
        assert np.isfinite(value), name
    for gradient in tape.gradient(terms["total"], list(outputs.values())):
        assert gradient is None or np.abs(gradient).max() < 10


def features_flags(folder) -> list:
    """Flags of a training of seconds on 90 vectors of 4 classes, which this writes."""
    rng, classes = np.random.default_rng(0), np.arange(90) % 4
    np.savez(
        folder / "features.npz",
        image=np.float32(rng.normal(size=(4, 16))[classes] + 0.5 * rng.normal(size=(90, 16))),
        text=np.float32(rng.random((90, 12)) < 0.1 + 0.6 * np.eye(4).repeat(3, axis=1)[classes]),
        labels=np.eye(4, dtype=np.uint8)[classes],
    )
    return [
        "--dataset=features", f"--data_dir={folder}/features.npz", "--queries=10",
        "--train_pairs=80", "--validation=8", "--bits=16", "--text_hidden=8", "--epochs=1",
        "--batch_size=16", f"--run_dir={folder}/run",
    ]  # fmt: skip


# Supervised methods


def supervised_codes(seed=0, size=5, bits=8, labels=4):
    """Codes of both sides and labels; the last item has none, two items have the same."""
    rng = np.random.default_rng(seed)
    image, text = (np.tanh(rng.normal(size=(size, bits))).astype(np.float32) for _ in range(2))
    multi_hot = (rng.random((size, labels)) < 0.5).astype(np.float32)
    multi_hot[0] = multi_hot[1] = [1, 0, 1, 0]
    multi_hot[-1] = 0
    return image, text, multi_hot


def supervised_outputs(image, text, labels=4, width=3):
    """Outputs of SDEH's networks, and so of HSIDHN's, around these codes."""
    rng, size = np.random.default_rng(5), len(image)
    found = {}
    for side, code in (("image", image), ("text", text)):
        found[f"{side}_code"] = tf.constant(code)
        found[f"{side}_hash"] = tf.constant(2 * code)
        for name, shape in (
            ("logits", (size, labels)),
            ("decomposed", (size, labels, width)),
            ("semantic", (size, width)),
        ):
            found[f"{side}_{name}"] = tf.constant(rng.normal(size=shape), tf.float32)
    return found


def check_supervised_loss(method, weights, quantization):
    """The total is the weighted sum of the terms, and labels enter it."""
    image, text, labels = supervised_codes()
    terms = method.loss({"labels": tf.constant(labels)}, supervised_outputs(image, text))
    assert set(terms) == {*method.terms, "total"}
    assert float(terms["L_Q"]) == pytest.approx(float(quantization(image, text)), rel=1e-5)
    total = sum(w * float(terms[name]) for w, name in zip(weights, method.terms))
    assert float(terms["total"]) == pytest.approx(total, rel=1e-5)
    other = {"labels": tf.constant(labels[::-1].copy())}
    other = method.loss(other, supervised_outputs(image, text))
    assert float(terms["total"]) != float(other["total"])
    assert type(method).supervised
    assert method.prepare(None, None, labels)["labels"] is labels


def check_degenerate_labels(method, labels):
    """Codes of zeros, and labels that are all the same, give finite terms and gradients."""
    rows = np.zeros((5, 8), np.float32)
    found = {name: tf.Variable(value) for name, value in supervised_outputs(rows, rows).items()}
    with tf.GradientTape() as tape:
        terms = method.loss({"labels": tf.constant(labels, tf.float32)}, found)
    assert all(np.isfinite(value) for value in terms.values())
    for gradient in tape.gradient(terms["total"], list(found.values())):
        assert gradient is None or np.isfinite(tf.convert_to_tensor(gradient)).all()


def own_flags(name, flags) -> list:
    """The flags without those of settings that other methods have and this one lacks."""
    foreign = {setting for method in METHODS.values() for setting in method.setting_names()}
    foreign -= set(METHODS[name].setting_names())
    return [flag for flag in flags if flag.lstrip("-").split("=")[0] not in foreign]


def settings_of(flags) -> dict:
    """The settings that command-line flags give."""
    found = FlagValues()
    define_settings(found)
    found(["program", *flags])
    return given_settings(found)


def manifest_entries(scenes_dir) -> list[dict]:
    """The rows of the drawn images' manifest."""
    with open(scenes_dir / "manifest.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_manifest(path, entries, columns=("image", "text", "labels")):
    """A manifest with some columns of these rows; returns its path."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(entries)
    return path


def check_train_resume_export_and_encode(flags, scenes_dir, tmp_path):
    """A supervised method through the programs: it learns, resumes, and each encoder stands alone.

    Args:
        flags: of the training, without epochs and run folder.
        scenes_dir: the drawn images that it is trained on.
        tmp_path: an empty folder.
    """
    run_dir, other, folder = (tmp_path / name for name in ("run", "other", "export"))
    # --max_to_keep: what seems finished keeps all that going on needs.
    flags = [*flags, "--monitor_every=3", "--select=last", "--max_to_keep=4", "--epochs=6"]
    with pytest.MonkeyPatch.context() as patched:
        # Each epoch is saved, on a machine that is busy with other things too.
        patched.setattr("dsprh_tf.training.checkpoints._LONG", math.inf)
        outcome = call_program("train", *flags, f"--run_dir={run_dir}")
        assert outcome.code == 0, outcome.err[-2000:]
        # As it was after half the epochs, and resumed: the same, masks of the dropout included. In
        # one process sums differ in their last digits by where arrays lie in memory; other masks
        # would move every weight by a hundred times more.
        shutil.copytree(run_dir, other)
        for path in other.glob("checkpoints/*"):
            if not path.name.startswith("ckpt-3."):
                path.unlink()
        Run(other).train()
    record = json.loads((run_dir / "results.json").read_text())
    assert record["image_to_text"]["map"] > 1.2 * record["chance"]
    assert 0 < record["text_to_image"]["ndcg@50"] <= 1
    tags = read_notes(run_dir / "tensorboard")
    assert "validation/map" in tags and "loss/L_Q" in tags and "loss/L_F" not in tags
    assert all(tags.values())
    expected, found = read_weights(run_dir), read_weights(other)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        same = np.array_equal(found[name], value)  # also -inf, the best score where none counts
        assert same or np.abs(found[name] - value).mean() < 2e-5, name
    # Each encoder takes one modality alone.
    assert call_program("export", f"--run_dir={run_dir}", f"--export_dir={folder}").code == 0
    entries = manifest_entries(scenes_dir)[:4]
    images = [(scenes_dir / entry["image"]).read_bytes() for entry in entries]
    for kind, items in (("image", images), ("text", [entry["text"] for entry in entries])):
        encoder = Encoder(folder, kind)
        encoded = encoder.encode(items)
        assert encoded.shape == (4, 2)
        assert kind == "text" or len(np.unique(encoded, axis=0)) > 1
        np.testing.assert_array_equal(encoder.encode(items[1:2]), encoded[1:2])
