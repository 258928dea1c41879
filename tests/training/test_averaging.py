"""The mean of the weights over the later epochs."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from dsprh_tf.data.pipeline import PairSource
from dsprh_tf.methods import DSPRH
from dsprh_tf.model import CrossModalHashing
from dsprh_tf.training.averaging import WeightAverage, first_averaged
from dsprh_tf.training.checkpoints import Checkpoints, model_parts
from dsprh_tf.training.fit import fit
from dsprh_tf.training.optimizers import make_optimizer

SIZES = {"bow": 6, "feature": 12, "conv_map": (4, 4, 8)}
TRAIN = np.arange(24)


@pytest.fixture(autouse=True)
def deterministic(monkeypatch):
    monkeypatch.setattr("dsprh_tf.training.checkpoints._LONG", math.inf)
    tf.config.experimental.enable_op_determinism()


@pytest.fixture
def source(pairs, bag_of_words):
    return PairSource(pairs, bag_of_words, 16, 20)


def make_model(backbone):
    """With batch normalisation in its covariance branch, and in its backbone."""
    keras.utils.set_random_seed(0)
    method = DSPRH(16, fusion_weights=(0, 0.5, 0.5), cov_channels=4, text_hidden=8)
    model = CrossModalHashing(method, SIZES, backbone, 16)
    model.compile(make_optimizer("sgd", 0.01), make_optimizer("sgd", 0.01))
    return model


class Spy:
    """A monitor that notes the weights that it is shown, and those of the model behind them."""

    def __init__(self, scores=()):
        self.seen, self.scores = [], scores

    def set_model(self, model):
        self.model = model

    set_params = on_train_begin = lambda self, *_: None

    def on_epoch_end(self, epoch, logs):
        self.seen.append(values(self.model))
        if self.scores:
            logs["selection_score"] = self.scores[epoch]


def values(model):
    return {
        f"{part}/{i}": v.numpy()
        for part, variables in model_parts(model).items()
        if part != "alpha_epoch"
        for i, v in enumerate(tf.nest.flatten(variables))
    }


def train(model, source, folder, epochs, first, spy=None, **changed):
    average = None if first is None else WeightAverage(model, first)
    checkpoints = Checkpoints(model, folder, changed.pop("max_to_keep", 1), average=average)
    fit(model, source, TRAIN, checkpoints, epochs, 6, 0, monitor=spy, average=average, **changed)
    return checkpoints


def trained_names(model):
    """Names in `values` of what gradients change."""
    own = {id(v) for v in model.image_variables + model.text_variables}
    own |= {id(getattr(v, "_value", v)) for v in model.image_variables + model.text_variables}
    return {
        f"{part}/{i}"
        for part, variables in model_parts(model).items()
        for i, v in enumerate(tf.nest.flatten(variables))
        if id(v) in own
    }


def test_the_mean_is_that_of_the_epochs(source, tiny_backbone, tmp_path):
    """Beside a run without it, whose weights after each epoch are noted."""
    plain, averaged = Spy(), Spy()
    model = make_model(tiny_backbone())
    train(model, source, tmp_path / "plain", 4, None, plain)
    other = make_model(tiny_backbone())
    train(other, source, tmp_path / "averaged", 4, 1, averaged)
    names = trained_names(model)
    assert len(names) > 8
    for name, value in averaged.seen[0].items():
        np.testing.assert_array_equal(value, plain.seen[0][name])
    for name in names:
        for epoch in (1, 2, 3):
            mean = np.mean([plain.seen[e][name] for e in range(1, epoch + 1)], axis=0)
            np.testing.assert_allclose(averaged.seen[epoch][name], mean, atol=1e-6)
        assert not np.array_equal(averaged.seen[3][name], plain.seen[3][name])
        np.testing.assert_array_equal(values(other)[name], plain.seen[3][name])  # trains on
    restored = make_model(tiny_backbone(seed=3))
    Checkpoints(restored, tmp_path / "averaged", average=WeightAverage(restored, 1)) \
        .restore_selected()  # fmt: skip
    for name, value in values(restored).items():
        np.testing.assert_array_equal(value, averaged.seen[3][name], err_msg=name)


def test_batch_statistics_are_those_of_the_mean(source, tiny_backbone, tmp_path):
    """The covariance branch, by hand: its convolution with the mean's weights, over the batches."""
    backbone = tiny_backbone()
    backbone.trainable = False
    model, spy = make_model(backbone), Spy()
    train(model, source, tmp_path, 3, 1, spy)
    restored = make_model(backbone)
    Checkpoints(restored, tmp_path).restore_selected()
    pooling = restored.image_network.plain_pooling
    layers = pooling._flatten_layers()
    (norm,) = (x for x in layers if isinstance(x, keras.layers.BatchNormalization))
    kernel = next(v for v in pooling.weights if len(v.shape) == 4)
    means, variances = [], []
    for batch in source.training_batches(TRAIN, 6, 0, range(1)):
        maps = backbone(batch["pixels"])["conv_map"].numpy()
        reduced = maps.reshape(-1, maps.shape[-1]) @ np.array(kernel).reshape(maps.shape[-1], -1)
        means.append(reduced.mean(axis=0))
        variances.append(reduced.var(axis=0))
    np.testing.assert_allclose(np.array(norm.moving_mean), np.mean(means, axis=0), atol=1e-5)
    np.testing.assert_allclose(
        np.array(norm.moving_variance), np.mean(variances, axis=0), rtol=0.25
    )  # Keras 2 corrects for the number of values
    momenta = [layer.momentum for layer in model.image_network.plain_pooling._flatten_layers()
               if isinstance(layer, keras.layers.BatchNormalization)]  # fmt: skip
    assert momenta == [norm.momentum]


_BEST_IS_THIRD = (0.1, 0.2, 0.9, 0.3)


@pytest.mark.parametrize(("scores", "stop"), [((), 1), ((), 3), (_BEST_IS_THIRD, 2)])
def test_a_resumed_run_ends_as_the_whole_one(source, tiny_backbone, tmp_path, scores, stop):
    def run(folder, epochs, last):
        """As if killed after `epochs` of `last`: that the run ends is not known to it."""
        spy, model = Spy(scores), make_model(tiny_backbone())
        average = WeightAverage(model, 1)
        checkpoints = Checkpoints(model, folder, average=average)
        if epochs < last:
            save = checkpoints.save
            checkpoints.save = lambda epoch, score, end: save(epoch, score, False)
        fit(model, source, TRAIN, checkpoints, epochs, 6, 0, monitor=spy, average=average)

    run(tmp_path / "whole", 4, 4)
    run(tmp_path / "parts", stop, 4)
    run(tmp_path / "parts", 4, 4)
    found = []
    for folder in ("whole", "parts"):
        model = make_model(tiny_backbone(seed=7))
        epoch = Checkpoints(model, tmp_path / folder, average=WeightAverage(model, 1)) \
            .restore_selected()  # fmt: skip
        found.append(values(model))
        assert epoch == (3 if scores else 4)
    for name, value in found[0].items():
        np.testing.assert_array_equal(value, found[1][name], err_msg=name)


def test_an_unfinished_run_is_looked_at_with_its_mean(source, tiny_backbone, tmp_path):
    spy, model = Spy(), make_model(tiny_backbone())
    train(model, source, tmp_path, 3, 1, spy, max_to_keep=2)
    other = make_model(tiny_backbone(seed=2))
    Checkpoints(other, tmp_path, average=WeightAverage(other, 1)).restore_selected()
    for name, value in values(other).items():
        np.testing.assert_array_equal(value, spy.seen[2][name], err_msg=name)


def test_a_run_that_goes_on_begins_its_mean_later(source, tiny_backbone, tmp_path):
    """What was averaged before the new beginning no longer counts."""
    model = make_model(tiny_backbone())
    train(model, source, tmp_path / "parts", 2, 1, max_to_keep=2)
    train(make_model(tiny_backbone()), source, tmp_path / "parts", 4, 2, max_to_keep=2)
    spy = Spy()
    train(make_model(tiny_backbone()), source, tmp_path / "whole", 4, 2, spy)
    other = make_model(tiny_backbone(seed=2))
    Checkpoints(other, tmp_path / "parts", average=WeightAverage(other, 2)).restore_selected()
    for name, value in values(other).items():
        np.testing.assert_array_equal(value, spy.seen[3][name], err_msg=name)


@pytest.mark.parametrize(
    ("share", "epochs", "first"),
    [(1.0, 40, None), (0.5, 40, 20), (0.5, 1, 0), (0.0, 3, 0), (0.99, 10, 9), (0.75, 5, 3)],
)
def test_where_the_mean_begins(share, epochs, first):
    assert first_averaged(share, epochs) == first
