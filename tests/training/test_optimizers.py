"""Optimizers by name, and their schedule."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from dsprh_tf import compat
from dsprh_tf.training.optimizers import OPTIMIZERS, make_optimizer


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_step(name):
    variable = tf.Variable([1.0, 2.0])
    variables = [keras.Variable([1.0, 2.0])] if compat.KERAS_3 else [variable]
    optimizer = make_optimizer(name, 0.1, weight_decay=0.01)
    compat.build_optimizer(optimizer, variables)
    optimizer.apply_gradients([(tf.constant([1.0, 1.0]), variables[0])])
    assert (np.asarray(variables[0]) < [1.0, 2.0]).all()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_cosine_schedule_falls_from_the_rate_to_zero(name):
    optimizer = make_optimizer(name, 0.5, cosine_steps=4)
    variable = tf.Variable(1.0)
    compat.build_optimizer(optimizer, [variable])
    rates = []
    for _ in range(5):
        rates.append(compat.current_learning_rate(optimizer))
        optimizer.apply_gradients([(tf.constant(0.1), variable)])
    naive = [0.5 * (1 + np.cos(np.pi * step / 4)) / 2 for step in range(5)]
    np.testing.assert_allclose(rates, naive, atol=1e-6)


def test_unknown_optimizer():
    with pytest.raises(ValueError, match="optimizer is 'adam', expected one of sgd, adamw, lamb"):
        make_optimizer("adam", 0.1)
