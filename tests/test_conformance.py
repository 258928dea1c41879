"""What every layer must do: configs, files, graphs, precision, shapes, replicas.

One table of cases; a layer without one fails the first test.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from dsprh_tf import backbones, layers, networks
from dsprh_tf.methods import hsidhn, sdeh

ROOT = Path(__file__).parents[1]


def values(*shape, seed=0):
    """Non-negative, as features and maps after a ReLU are."""
    return np.random.default_rng(seed).random(shape, np.float32)


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
        backbones.PixelScaling,
        {"scheme": "torchvision"},
        255 * values(4, 3, 3, 3),
        float32_outputs=True,
    ),
    Case(
        backbones.PixelScaling,
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
IDS = [f"{case.layer.__name__}{i}" for i, case in enumerate(CASES)]
every_layer = pytest.mark.parametrize("case", CASES, ids=IDS)


def assert_same(actual, expected, **tolerance):
    actual, expected = tf.nest.flatten(actual), tf.nest.flatten(expected)
    assert len(actual) == len(expected)
    for a, b in zip(actual, expected):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), **tolerance)


def made(case):
    """A layer with random weights, and its outputs in inference."""
    layer = case.make()
    layer(case.inputs)
    rng = np.random.default_rng(5)
    layer.set_weights([rng.uniform(0.1, 0.9, w.shape).astype(w.dtype) for w in layer.get_weights()])
    return layer, layer(case.inputs)


def takes_training(layer):
    return "training" in inspect.signature(layer.call).parameters


def registered_classes():
    """Names of all classes of the package that are registered, and of all layers."""
    registered, subclasses = set(), set()
    for path in (ROOT / "dsprh_tf").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ClassDef):
                if any("register_keras_serializable" in ast.dump(d) for d in node.decorator_list):
                    registered.add(node.name)
                if any(ast.unparse(base).endswith("Layer") for base in node.bases):
                    subclasses.add(node.name)
    return registered, subclasses


def test_every_layer_is_registered_and_has_a_case():
    registered, subclasses = registered_classes()
    assert subclasses == registered
    assert registered == {case.layer.__name__ for case in CASES}
    for case in CASES:
        name = keras.saving.get_registered_name(case.layer)
        assert name == f"dsprh_tf>{case.layer.__name__}"


@every_layer
def test_building_creates_every_variable(case):
    """Optimizers and checkpoints are told of the variables before the first call."""
    layer = case.make()
    layer.build(tf.nest.map_structure(lambda x: (None, *x.shape[1:]), case.inputs))
    before = len(layer.weights)
    layer(case.inputs)
    assert len(layer.weights) == before


@every_layer
def test_config_round_trip(case):
    layer, expected = made(case)
    config = layer.get_config()
    names = list(inspect.signature(case.layer.__init__).parameters)
    for name in set(names) - {"self", "kwargs", "dtype"}:
        assert getattr(layer, name) == config[name], name
    for name, value in case.arguments.items():
        assert config[name] == value, name
    assert "name" in config
    clone = case.layer.from_config(config)
    assert clone.get_config() == config
    clone(case.inputs)
    clone.set_weights(layer.get_weights())
    assert_same(clone(case.inputs), expected)


@every_layer
def test_keras_file_round_trip(case, tmp_path):
    inputs = tf.nest.map_structure(lambda x: keras.Input(x.shape[1:]), case.inputs)
    if isinstance(inputs, dict):
        inputs = {k: keras.Input(case.inputs[k].shape[1:], name=k) for k in inputs}
    layer = case.make()
    model = keras.Model(inputs, layer(inputs))
    rng = np.random.default_rng(5)
    layer.set_weights([rng.uniform(0.1, 0.9, w.shape).astype(w.dtype) for w in layer.get_weights()])
    model.save(tmp_path / "model.keras")
    reloaded = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    assert_same(reloaded(case.inputs), model(case.inputs))
    assert_same(model(case.inputs), layer(case.inputs))


@every_layer
def test_checkpoint_round_trip(case, tmp_path):
    layer, expected = made(case)
    path = tf.train.Checkpoint(layer=layer).save(str(tmp_path / "layer"))
    restored = case.make()
    restored(case.inputs)
    tf.train.Checkpoint(layer=restored).restore(path).assert_existing_objects_matched()
    assert_same(restored(case.inputs), expected)


@every_layer
def test_saved_model_gives_the_same(case, tmp_path):
    layer, expected = made(case)
    module = tf.Module()
    module.layer = layer
    signature = tf.nest.map_structure(
        lambda x: tf.TensorSpec([None, *x.shape[1:]], tf.float32), case.inputs
    )
    module.call = tf.function(lambda x: layer(x), input_signature=[signature])
    tf.saved_model.save(module, str(tmp_path))
    reloaded = tf.saved_model.load(str(tmp_path))
    inputs = tf.nest.map_structure(tf.constant, case.inputs)
    assert_same(reloaded.call(inputs), expected, rtol=1e-5, atol=1e-6)
    one = tf.nest.map_structure(lambda x: x[:1], inputs)
    first = tf.nest.map_structure(lambda x: x[:1], expected)
    assert_same(reloaded.call(one), first, rtol=1e-5, atol=1e-6)


@every_layer
def test_graph_equals_eager(case):
    layer, expected = made(case)
    graph = tf.function(layer)
    assert_same(graph(case.inputs), expected, rtol=1e-5, atol=1e-6)
    if takes_training(layer):
        # Both from the same running means of a normalisation, and counter of a dropout.
        weights, counter = layer.get_weights(), getattr(layer, "counter", tf.Variable(0))
        count = counter.numpy()
        eager = layer(case.inputs, training=True)
        layer.set_weights(weights)
        counter.assign(count)
        assert_same(graph(case.inputs, training=True), eager, rtol=1e-4, atol=1e-5)


@pytest.fixture(params=["mixed_bfloat16", "mixed_float16"])
def policy(request):
    keras.mixed_precision.set_global_policy(request.param)
    yield request.param
    keras.mixed_precision.set_global_policy("float32")


@every_layer
def test_mixed_precision(case, policy):
    layer = case.make()
    inputs = tf.nest.map_structure(tf.constant, case.inputs)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = layer(inputs, training=True) if takes_training(layer) else layer(inputs)
        loss = sum(tf.reduce_sum(tf.cast(y, tf.float32) ** 2) for y in tf.nest.flatten(outputs))
    dtype = "float32" if case.float32_outputs else policy.split("_")[1]
    for y in tf.nest.flatten(outputs):
        assert y.dtype == dtype
        assert np.isfinite(tf.cast(y, tf.float32)).all()
    for variable in layer.weights:
        assert tf.as_dtype(variable.dtype) in (tf.float32, tf.int64)
    gradients = tape.gradient(loss, [*tf.nest.flatten(inputs), *layer.trainable_variables])
    # An input may be of no use: weight 0.
    gradients = [tf.convert_to_tensor(g) for g in gradients if g is not None]
    assert gradients
    for gradient in gradients:
        assert np.isfinite(tf.cast(gradient, tf.float32)).all()


@every_layer
@pytest.mark.parametrize("batch", [4, None])
def test_compute_output_shape_is_the_real_shape(case, batch):
    _, outputs = made(case)
    shapes = tf.nest.map_structure(lambda x: (batch, *x.shape[1:]), case.inputs)
    computed = case.make().compute_output_shape(shapes)
    if not isinstance(outputs, dict):
        computed, outputs = {"": computed}, {"": outputs}
    assert {k: tuple(s) for k, s in computed.items()} == {
        k: (batch, *y.shape[1:]) for k, y in outputs.items()
    }


def check_on_replicas(strategy, case):
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


def check_all_on_replicas():
    """Runs in a process of its own: logical devices are made before TensorFlow starts."""
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    for case in CASES:
        check_on_replicas(strategy, case)
    print(f"{len(CASES)} cases on two replicas")


REPLICAS = """
import sys
import dsprh_tf, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
sys.path.insert(0, "tests")
import test_conformance
test_conformance.check_all_on_replicas()
"""


def test_two_replicas():
    result = subprocess.run(
        [sys.executable, "-c", REPLICAS],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert f"{len(CASES)} cases on two replicas" in result.stdout, result.stderr[-3000:]
