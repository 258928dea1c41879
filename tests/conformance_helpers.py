"""Every layer and every method as a case, and the checks that run in a process of their own."""

from __future__ import annotations

import dataclasses
import inspect

import numpy as np
import tensorflow as tf
from method_helpers import make_batch, prepared, small_model, values

from dsprh_tf import layers, networks
from dsprh_tf.backbones.architectures import PixelScaling
from dsprh_tf.methods import METHODS, hsidhn, sdeh

FEATURE = {"feature": values(4, 6)}
LEVELS = [values(4, 5, seed=seed) for seed in range(3)]
STAGES = {f"stage_{n}": values(4, 5, n + 1, seed=n) for n in (1, 2, 3)}
MAP = {"feature": values(4, 6), "conv_map": values(4, 3, 5, 4, seed=1)}


@dataclasses.dataclass(frozen=True)
class Case:
    """A layer by its class and arguments, inputs of 4 items, and what mixed precision gives."""

    layer: type
    arguments: dict
    inputs: object
    float32_outputs: bool = False

    def make(self):
        return self.layer(**self.arguments)


CASES = [
    Case(layers.StripPooling, {"channels": 2, "momentum": 0.8}, values(4, 4, 6, 3)),
    Case(layers.StripPooling, {"channels": None}, values(4, 4, 6, 3)),
    Case(
        layers.CovariancePooling,
        {"channels": 3, "iterations": 4, "epsilon": 1e-3, "momentum": 0.8},
        values(4, 4, 5, 6),
    ),
    Case(layers.CovariancePooling, {"channels": None}, values(4, 4, 5, 3)),
    Case(
        layers.FeatureFusion,
        {"fusion_weights": (0.25, 0.75)},
        [values(4, 5), values(4, 5, seed=1)],
    ),
    Case(networks.ImageNetwork, {"bits": 8, "cov_channels": 3}, MAP, float32_outputs=True),
    Case(
        networks.ImageNetwork,
        {"bits": 8, "fusion_weights": (0.0, 0.5, 0.0), "covariance": False},
        MAP,
        float32_outputs=True,
    ),
    Case(
        networks.ImageNetwork,
        {"bits": 16, "fusion_weights": (0.0, 0.0, 1.0), "normalize": False},
        FEATURE,
        float32_outputs=True,
    ),
    Case(networks.TextNetwork, {"bits": 8, "hidden": 7}, values(4, 5), float32_outputs=True),
    Case(
        PixelScaling,
        {"scheme": "torchvision"},
        255 * values(4, 3, 3, 3),
        float32_outputs=True,
    ),
    Case(
        PixelScaling,
        {"scheme": "mobilenet_v2"},
        255 * values(4, 3, 3, 3),
        float32_outputs=True,
    ),
    Case(layers.AdaptiveAveragePooling, {"size": 2}, values(4, 5, 3, 2)),
    Case(layers.SeededDropout, {"rate": 0.4, "seed": 3}, values(4, 9)),
    Case(layers.PyramidPooling, {"levels": (1, 3)}, values(4, 5, 3, 2)),
    Case(hsidhn.BilinearInteraction, {"enabled": True}, LEVELS),
    Case(hsidhn.BilinearInteraction, {"enabled": False}, LEVELS),
    Case(
        hsidhn.HierarchicalImageNetwork,
        {"bits": 8, "width": 6, "seed": 2},
        STAGES,
        float32_outputs=True,
    ),
    Case(
        hsidhn.HierarchicalImageNetwork,
        {"bits": 8, "width": 6, "multi_scale": False, "interaction": False},
        STAGES,
        float32_outputs=True,
    ),
    Case(
        hsidhn.HierarchicalTextNetwork,
        {"bits": 8, "hidden": 7, "width": 6},
        values(4, 11),
        float32_outputs=True,
    ),
    Case(
        hsidhn.HierarchicalTextNetwork,
        {"bits": 8, "hidden": 7, "width": 6, "multi_scale": False},
        values(4, 11),
        float32_outputs=True,
    ),
    Case(sdeh.AttentionBlock, {"heads": 2}, values(4, 3, 6)),
    Case(sdeh.SemanticDecomposition, {"labels": 3}, values(4, 5, 6), float32_outputs=True),
    Case(
        sdeh.AttentiveImageNetwork,
        {"bits": 8, "labels": 3, "width": 6, "heads": 2, "seed": 1},
        MAP,
        float32_outputs=True,
    ),
    Case(
        sdeh.AttentiveTextNetwork,
        {"bits": 8, "labels": 3, "hidden": 7, "width": 6, "heads": 2},
        np.round(values(4, 11)),
        float32_outputs=True,
    ),
]


def assert_same(actual, expected, **tolerance):
    actual, expected = tf.nest.flatten(actual), tf.nest.flatten(expected)
    assert len(actual) == len(expected)
    for a, b in zip(actual, expected):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), **tolerance)


def randomise(layer):
    """Every weight random, so that none can be ignored or exchanged; variances positive."""
    rng = np.random.default_rng(5)
    layer.set_weights([rng.uniform(0.1, 0.9, w.shape).astype(w.dtype) for w in layer.get_weights()])


def made(case):
    """A layer with random weights, and its outputs in inference."""
    layer = case.make()
    layer(case.inputs)
    randomise(layer)
    return layer, layer(case.inputs)


def takes_training(layer):
    return "training" in inspect.signature(layer.call).parameters


# Two replicas


def check_layer_on_replicas(strategy, case):
    """Each replica gives what one device gives for its half, and finite gradients."""
    single, _ = made(case)
    halves = [
        tf.nest.map_structure(lambda x, half=half: tf.constant(x[half]), case.inputs)
        for half in (slice(0, 2), slice(2, 4))
    ]
    with strategy.scope():
        layer = case.make()
        layer(halves[0])
        layer.set_weights(single.get_weights())
    inputs = strategy.experimental_distribute_values_from_function(
        lambda context: halves[context.replica_id_in_sync_group]
    )

    def step(x):
        outputs = layer(x)
        with tf.GradientTape() as tape:
            trained = layer(x, training=True) if takes_training(layer) else layer(x)
            loss = sum(tf.reduce_sum(y**2) for y in tf.nest.flatten(trained))
        gradients = tape.gradient(loss, layer.trainable_variables)
        return outputs, [loss, *[tf.convert_to_tensor(g) for g in gradients if g is not None]]

    results = strategy.run(step, args=(inputs,))
    for i, half in enumerate(halves):
        outputs, numbers = tf.nest.map_structure(
            lambda y, i=i: strategy.experimental_local_results(y)[i], results
        )
        assert_same(outputs, single(half), rtol=1e-5, atol=1e-6)
        assert all(np.isfinite(x).all() for x in numbers), case.layer


def check_method_on_replicas(strategy, name):
    """Each replica has the terms and gradients of its half of the batch."""
    with strategy.scope():
        model = small_model(name)
    single = small_model(name)
    batch = prepared(model.method, make_batch(8))
    single.method = model.method  # with what it has prepared
    single.set_weights(model.get_weights())
    halves = [{key: x[part] for key, x in batch.items()} for part in (slice(4), slice(4, 8))]
    inputs = strategy.experimental_distribute_values_from_function(
        lambda context: halves[context.replica_id_in_sync_group]
    )
    results = strategy.run(model.local_gradients, args=(inputs,))
    for i, half in enumerate(halves):
        terms, *gradients = tf.nest.map_structure(
            lambda y, i=i: strategy.experimental_local_results(y)[i], results
        )
        single.set_weights(model.get_weights())  # running means of normalisations
        expected, *local = single.local_gradients(half)
        assert_same(terms, expected, rtol=1e-5, atol=1e-6)
        # The strategy adds up gradients: each replica's is divided by the number of replicas.
        halved = tf.nest.map_structure(lambda x: x / 2, local)
        assert_same(gradients, halved, rtol=1e-4, atol=1e-5)


def check_all_on_replicas():
    """Runs in a process of its own: logical devices are made before TensorFlow starts."""
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    for case in CASES:
        check_layer_on_replicas(strategy, case)
    for name in METHODS:
        check_method_on_replicas(strategy, name)
    print(f"{len(CASES)} layers and {len(METHODS)} methods on two replicas")
