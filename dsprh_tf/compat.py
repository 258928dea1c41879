"""Differences between the two supported stacks, Keras 3 and Keras 2."""

from __future__ import annotations

import keras
import tensorflow as tf

KERAS_3 = keras.__version__.startswith("3.")


def lamb(learning_rate: float, weight_decay: float):
    """Builds a LAMB optimizer (You et al., 2020): Keras 3's own, TensorFlow Addons' on Keras 2.

    Args:
        learning_rate: learning rate.
        weight_decay: decoupled weight decay, 0 for none.
    """
    if KERAS_3:
        return keras.optimizers.Lamb(learning_rate, weight_decay=weight_decay or None)
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Addons announces its end of life on import.
        import tensorflow_addons as tfa
    return tfa.optimizers.LAMB(learning_rate, weight_decay=weight_decay)


def scaled_like(optimizer, other):
    """The other optimizer, in a `LossScaleOptimizer` if the first one is in one."""
    scaled = hasattr(optimizer, "inner_optimizer") and not hasattr(other, "inner_optimizer")
    return keras.mixed_precision.LossScaleOptimizer(other) if scaled else other


def loss_scale(optimizer):
    """The factor of the loss under mixed_float16, float32 []; None for other optimizers."""
    if not hasattr(optimizer, "inner_optimizer"):
        return None
    return tf.convert_to_tensor(optimizer.dynamic_scale if KERAS_3 else optimizer.loss_scale)


def apply_gradients(optimizer, gradients, variables) -> None:
    """One step; a `LossScaleOptimizer` leaves it out where a gradient is not finite."""
    scale = loss_scale(optimizer)
    if scale is not None:
        gradients = [gradient * scale for gradient in gradients]
        if not KERAS_3:  # Keras 3's divides by itself
            gradients = optimizer.get_unscaled_gradients(gradients)
            optimizer.get_scaled_loss(scale)  # without this call it warns
    optimizer.apply_gradients(zip(gradients, variables))


def current_learning_rate(optimizer) -> float:
    """Learning rate of the next step, also if it follows a schedule."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    # Keras 2's public attribute is the rate of the last step, the private one the schedule.
    rate = getattr(optimizer, "_learning_rate", optimizer.learning_rate)
    return float(tf.convert_to_tensor(rate(optimizer.iterations) if callable(rate) else rate))


def has_fixed_rate(optimizer) -> bool:
    """Whether the learning rate is a number, which can be set, and not a schedule."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    # Keras 2's public attribute is the rate of the last step, the private one the schedule.
    return not callable(getattr(optimizer, "_learning_rate", optimizer.learning_rate))


def build_optimizer(optimizer, variables) -> None:
    """Creates the optimizer's slots now, so that a checkpoint can be restored into them."""
    if hasattr(optimizer, "build"):
        optimizer.build(variables)
    else:  # Addons' optimizers are of Keras' legacy kind.
        optimizer._create_all_weights(variables)


def build_attention(layer, shape: tuple) -> None:
    """Creates the variables of a MultiHeadAttention, for self-attention over such tokens."""
    if KERAS_3:
        layer.build(shape, shape)
        return
    layer._build_from_signature(query=tf.TensorShape(shape), value=tf.TensorShape(shape))
    for part in (layer._query_dense, layer._key_dense, layer._value_dense):
        part.build(shape)  # the first call would be too late for an optimizer that is built before
    layer._output_dense.build((*shape[:2], layer._num_heads, layer._value_dim))


def keep_metric_means(model) -> None:
    """Makes `fit` report the metrics of one replica under a strategy.

    Keras 2 would add up the replicas' results, which are equal.
    """
    if not KERAS_3:
        model.distribute_reduction_method = "first"


def checkpoint_variables(layer) -> list[tf.Variable]:
    """Every TensorFlow variable of a layer or model, in a fixed order.

    Keras 3 hides layers in lists and in functional models from `tf.train.Checkpoint`, so a
    checkpoint is given the variables themselves.
    """
    if not KERAS_3:
        return list(layer.weights)
    # Layers keep counters as plain tf.Variables, which are not among the weights in Keras 3.
    counters = [
        value
        for part in layer._flatten_layers()
        for _, value in sorted(vars(part).items())
        if isinstance(value, tf.Variable)
    ]
    return [weight._value for weight in layer.weights] + counters
