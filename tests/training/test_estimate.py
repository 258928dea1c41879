"""What a run says that it will take: true, and without an effect on the run."""

from __future__ import annotations

import re

import numpy as np
import pytest
import tensorflow as tf
from helpers import read_weights

import dsprh_tf.run
from dsprh_tf.data.pipeline import PairSource
from dsprh_tf.methods import DSPRH
from dsprh_tf.model import CrossModalHashing
from dsprh_tf.run import Run
from dsprh_tf.training import estimate
from dsprh_tf.training.checkpoints import model_parts
from dsprh_tf.training.optimizers import make_optimizer


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """Settings of a run of 30 epochs with 3 steps each, long enough for its time to be said."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("features") / "features.npz"
    image, text = rng.normal(size=(2, 90, 64)).astype(np.float32)
    np.savez(path, image=image, text=text)
    return {
        "dataset": "features", "data_dir": str(path), "queries": 20, "train_pairs": 64,
        "validation": 8.0, "bits": 16, "text_hidden": 256, "epochs": 30, "batch_size": 16,
        "monitor_every": 10,
    }  # fmt: skip


def states(optimizer):
    """The variables of an optimizer, which Addons' have as a method."""
    found = optimizer.variables
    return list(found() if callable(found) else found)


def weights_of(run):
    run.train()
    weights = read_weights(run.folder.path)
    # How often a run is saved depends on how long that takes.
    return {name: array for name, array in weights.items() if "save_counter" not in name}


def assert_same(ours, theirs):
    assert set(ours) == set(theirs) and len(ours) > 10
    for name, array in ours.items():
        np.testing.assert_array_equal(array, theirs[name], err_msg=name)


def test_weights_are_those_of_a_run_without_an_estimate(features, tmp_path, monkeypatch, capsys):
    def run(name):  # the graph of dsprh_plus is a constant of a compiled step
        return Run(tmp_path / name, method="dsprh_plus", max_to_keep=2, **features)

    with_estimate = weights_of(run("with"))
    assert "epochs " in re.search(r"this run takes about .* \((.*)\),", capsys.readouterr().out)[1]
    with monkeypatch.context() as patch:
        nothing = estimate.Estimate({}, 0, {}, 0)
        patch.setattr(dsprh_tf.run, "estimate_run", lambda *_: nothing)
        assert_same(with_estimate, weights_of(run("without")))

    interrupted = run("interrupted")
    with monkeypatch.context() as patch:
        after = dsprh_tf.run.Monitor.on_epoch_end

        def stop(self, epoch, logs=None):
            if epoch == 3:
                raise KeyboardInterrupt
            after(self, epoch, logs)

        patch.setattr(dsprh_tf.run.Monitor, "on_epoch_end", stop)
        with pytest.raises(KeyboardInterrupt):
            interrupted.train()
    assert_same(with_estimate, weights_of(run("interrupted")))
    assert re.search(r"resuming(.|\n)*this run takes about .*2\d epochs", capsys.readouterr().out)


def test_the_disk_that_it_says_is_taken(features, tmp_path, monkeypatch):
    said = []
    original = estimate.estimate_run
    monkeypatch.setattr(
        dsprh_tf.run, "estimate_run", lambda *given: said.append(original(*given)) or said[0]
    )
    run = Run(tmp_path / "run", **{**features, "text_hidden": 4096})
    run.train()
    size = sum(path.stat().st_size for path in run.folder.path.rglob("*"))
    assert said[0].disk == pytest.approx(size, rel=0.1)
    assert said[0].while_training > 3 * said[0].disk  # checkpoints hold the optimizers, too


@pytest.mark.parametrize("jit", [False, True])
def test_a_step_that_is_tried_changes_nothing(pairs, bag_of_words, tiny_backbone, jit):
    method = DSPRH(16, fusion_weights=(0, 0.5, 0.5), cov_channels=4, text_hidden=8)
    model = CrossModalHashing(
        method,
        {"bow": bag_of_words.size, "feature": 12, "conv_map": (4, 4, 8)},
        tiny_backbone(),
        16,
    )
    model.compile(make_optimizer("adamw", 0.1), make_optimizer("adamw", 0.1))
    parts = [model_parts(model), *map(states, (model.optimizer, model.text_optimizer))]
    variables = tf.nest.flatten(parts)
    before = [np.array(variable) for variable in variables]
    source = PairSource(pairs, bag_of_words, 16, 20)
    start, step, pair = estimate._try_step(model, source, np.arange(6), jit)
    assert start > step > 0 and pair > 0
    for variable, value in zip(variables, before):
        np.testing.assert_array_equal(np.array(variable), value)


@pytest.mark.parametrize(
    "seconds, memory, shown",
    [
        ({}, 2**30, "about 1.0 GB of memory, 30 MB of disk (90 MB until it is finished)"),
        ({"a": 40, "b": 0.2}, 2**29, "about 40 s (a 40 s), 512 MB of memory"),
        ({"a": 100, "b": 1000}, 2**29, "about 18 min (a 1.7 min, b 17 min), 512 MB"),
        ({"a": 20_000}, 2**36, "about 5.6 h (a 5.6 h), 64 GB"),
    ],
)
def test_the_lines(seconds, memory, shown, tmp_path):
    places = {"weights": (tmp_path, 10 * 2**20), "cache": (tmp_path / "c", 20 * 2**20)}
    said = estimate.Estimate(seconds, memory, places, 90 * 2**20).describe()
    assert shown in said
    assert f"it writes: weights {tmp_path} (10 MB); cache {tmp_path}/c (20 MB)" in said
