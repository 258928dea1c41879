"""What every layer and every method must do: configs, files, graphs, precision, shapes, replicas.

One table of cases (`conformance_helpers.py`); a layer without one fails the first test.
"""

from __future__ import annotations

import ast
import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf
from conformance_helpers import CASES, assert_same, made, randomise, takes_training
from helpers import ROOT
from method_helpers import make_batch, prepared, small_method, small_model

from dsprh_tf.methods import METHODS

IDS = [f"{case.layer.__name__}{i}" for i, case in enumerate(CASES)]
every_layer = pytest.mark.parametrize("case", CASES, ids=IDS)
every_method = pytest.mark.parametrize("name", METHODS)


def registered_classes():
    """Names of all classes of the package that are registered, and of all layers."""
    registered, subclasses = set(), set()
    for path in (ROOT / "dsprh_tf").rglob("*.py"):
        text = path.read_text("utf-8")
        for node in ast.walk(ast.parse(text)) if "Layer" in text or "keras" in text else ():
            if isinstance(node, ast.ClassDef):
                if any("register_keras_serializable" in ast.dump(d) for d in node.decorator_list):
                    registered.add(node.name)
                if any(ast.unparse(base).endswith("Layer") for base in node.bases):
                    subclasses.add(node.name)
    return registered, subclasses


def test_every_layer_is_registered_and_has_a_case():
    registered, subclasses = registered_classes()
    registered.remove("CrossModalHashing")  # the model, which has methods for cases
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
    randomise(layer)
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


# Methods


@every_method
def test_every_method_is_registered(name):
    assert keras.saving.get_registered_name(METHODS[name]) == f"dsprh_tf>{METHODS[name].__name__}"


@every_method
def test_methods_survive_serialization(name):
    method = small_method(name, 16, seed=3)
    config = keras.saving.serialize_keras_object(method)
    again = keras.saving.deserialize_keras_object(config)
    assert type(again) is type(method)
    assert again.get_config() == method.get_config()


@every_method
def test_building_a_model_creates_every_variable(name):
    """Optimizers and checkpoints are told of the variables before the first step."""
    model = small_model(name)
    before = len(model.weights), len(model.trainable_variables)
    model(make_batch(), training=True)
    assert (len(model.weights), len(model.trainable_variables)) == before


@every_method
def test_a_reloaded_model_gives_the_same_codes_and_losses(name, tmp_path):
    model = small_model(name)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras", compile=False)
    batch = prepared(model.method, make_batch())
    prepared(again.method, make_batch())
    assert_same(again(batch), model(batch))
    assert_same(again.local_gradients(batch), model.local_gradients(batch))


@every_method
def test_a_saved_model_of_both_encoders_gives_the_same(name, tmp_path):
    model, batch = small_model(name), make_batch()
    inputs = {key: batch[key] for key in model.image_network.reads}
    module = tf.Module()
    module.networks = [model.image_network, model.text_network]
    image = {key: tf.TensorSpec([None, *x.shape[1:]], tf.float32) for key, x in inputs.items()}
    text = tf.TensorSpec([None, batch["bow"].shape[1]], tf.float32)
    module.image = tf.function(lambda x: model.encode_image(x), input_signature=[image])
    module.text = tf.function(lambda x: model.encode_text(x), input_signature=[text])
    tf.saved_model.save(module, str(tmp_path))
    reloaded = tf.saved_model.load(str(tmp_path))
    tolerance = {"rtol": 1e-4, "atol": 1e-5}
    assert_same(reloaded.image(inputs), model.encode_image(inputs), **tolerance)
    assert_same(reloaded.text(batch["bow"]), model.encode_text(batch["bow"]), **tolerance)
    one = {key: x[:1] for key, x in inputs.items()}
    assert_same(reloaded.image(one), model.encode_image(inputs)[:1], **tolerance)


@every_method
def test_the_loss_and_its_gradients_in_a_graph_equal_those_in_eager_mode(name):
    model = small_model(name)
    batch = prepared(model.method, make_batch())
    weights = model.get_weights()
    eager = model.local_gradients(batch)
    model.set_weights(weights)  # running means of normalisations
    graph = tf.function(model.local_gradients)(batch)
    assert_same(graph, eager, rtol=1e-4, atol=1e-5)


@every_method
def test_mixed_precision_trains_with_a_loss_in_float32(name, policy):
    model = small_model(name)
    assert model.image_network.compute_dtype == policy.split("_")[1]
    batch = prepared(model.method, make_batch())
    assert {y.dtype for y in model(batch).values()} == {tf.float32}
    terms, image, text = model.local_gradients(batch)
    assert all(value.dtype == tf.float32 and np.isfinite(value) for value in terms.values())
    assert all(np.isfinite(gradient).all() for gradient in image + text)
