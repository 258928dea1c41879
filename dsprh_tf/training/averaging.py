"""The mean of a model's weights over the later epochs."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import keras
import tensorflow as tf

_BATCHES = 16  # over which batch statistics are taken anew


class WeightAverage:
    """Mean of the weights at the ends of the later epochs (Izmailov et al., "Averaging weights
    leads to wider optima and better generalization", UAI 2018).

    Training goes on with its own weights; the mean is what is looked at, kept and used. Running
    means and variances of batch normalisation are taken anew with it, on some batches.

    Args:
        model: a `CrossModalHashing`, made within the strategy's scope, as this is.
        first: the epoch (from 0) at whose end the mean begins.

    Attributes:
        count: number of epochs in the mean; 0 before it begins.
    """

    def __init__(self, model, first: int):
        self._model, self._first = model, first
        self._weights = [*model.image_variables, *model.text_variables]
        self._layers = _normalisations(model)
        self._statistics = [
            v for layer in self._layers for v in (layer.moving_mean, layer.moving_variance)
        ]
        self._changed = [*self._weights, *self._statistics]
        self.count = tf.Variable(0, False, dtype=tf.int64, name="averaged_epochs")
        self._means = [_copy(v) for v in self._weights]
        self._estimates = [_copy(v) for v in self._statistics]

    @property
    def variables(self) -> list[tf.Variable]:
        """What a checkpoint holds of it."""
        return [self.count, *self._means, *self._estimates]

    @property
    def begun(self) -> bool:
        """Whether there is a mean."""
        return int(self.count.numpy()) > 0

    def add(self, epoch: int, batches: tf.data.Dataset) -> None:
        """Takes note of the weights at the end of an epoch.

        Args:
            epoch: its number, from 0. In a run that goes on to more epochs than it was begun with,
                the mean may begin anew.
            batches: of training, whole ones; some are read if there is batch normalisation.
        """
        if epoch <= self._first:
            self.count.assign(0)
        if epoch < self._first:
            return
        self.count.assign_add(1)
        count = float(self.count.numpy())
        for mean, weight in zip(self._means, self._weights):
            value = tf.convert_to_tensor(weight)
            mean.assign(value if count == 1 else mean + (value - mean) / count)
        if self._layers:
            with self.in_model():
                self._estimate(batches)
                for estimate, statistic in zip(self._estimates, self._statistics):
                    estimate.assign(tf.convert_to_tensor(statistic))

    def _estimate(self, batches: tf.data.Dataset) -> None:
        """Batch statistics with the mean of the weights, each batch counting alike."""
        momenta = [layer.momentum for layer in self._layers]
        try:
            for number, batch in enumerate(batches.take(_BATCHES)):
                for layer in self._layers:
                    layer.momentum = number / (number + 1)
                self._model.encode_image(batch, training=True)
        finally:
            for layer, momentum in zip(self._layers, momenta):
                layer.momentum = momentum

    @contextlib.contextmanager
    def in_model(self) -> Iterator[None]:
        """Context in which the model has the mean, if there is one."""
        if not self.begun:
            yield
            return
        before = [tf.identity(tf.convert_to_tensor(v)) for v in self._changed]
        try:
            self.put()
            yield
        finally:
            for variable, value in zip(self._changed, before):
                variable.assign(value)

    def put(self) -> None:
        """Gives the mean to the model for good, if there is one."""
        if self.begun:
            for variable, value in zip(self._changed, [*self._means, *self._estimates]):
                variable.assign(tf.convert_to_tensor(value))


def first_averaged(average_from: float, epochs: int) -> int | None:
    """The first epoch (from 0) of the mean; None for none.

    Args:
        average_from: share of the epochs before it.
        epochs: of the whole run.
    """
    first = math.floor(average_from * epochs)
    return first if first < epochs else None


def _copy(variable) -> tf.Variable:
    return tf.Variable(tf.zeros(variable.shape, variable.dtype), False)


def _normalisations(model) -> list:
    """The layers whose batch statistics training changes."""
    parts = [model.image_network, model.text_network]
    if model.backbone is not None and model.backbone.trainable:
        parts.append(model.backbone)
    found = [layer for part in parts for layer in part._flatten_layers()]
    kind = keras.layers.BatchNormalization
    return [layer for layer in found if isinstance(layer, kind) and layer.trainable]
