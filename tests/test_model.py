"""The model: codes, decoders, training steps, what they leave alone, and replicas."""

from __future__ import annotations

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import ROOT
from method_helpers import make_batch as small_batch
from method_helpers import prepared, small_model

from dsprh_tf import compat
from dsprh_tf.methods import DSAH, DSPRH, METHODS, SDEH, DSPRHPlus
from dsprh_tf.model import CrossModalHashing

SIZES = {"bow": 12, "feature": 5, "conv_map": (3, 4, 4)}


def make_backbone():
    pixels = keras.Input((6, 8, 3))
    x = keras.layers.Conv2D(4, 3, strides=2, padding="same", activation="relu")(pixels / 255.0)
    x = keras.layers.BatchNormalization(momentum=0.5)(x)
    feature = keras.layers.Dense(5, activation="relu")(keras.layers.Flatten()(x))
    return keras.Model(pixels, {"conv_map": x, "feature": feature})


def make_model(backbone=False, bits=8, sizes=SIZES, **settings):
    keras.utils.set_random_seed(7)
    trunk = make_backbone() if backbone else None
    method = DSPRH(bits, **{"cov_channels": 3, "text_hidden": 10, **settings})
    return CrossModalHashing(method, sizes, trunk, 8 if backbone else None)


def make_batch(size=8, pixels=False, seed=0):
    rng = np.random.default_rng(seed)
    batch = {"bow": (rng.random((size, 12)) < 0.3).astype(np.float32)}
    if pixels:
        batch["pixels"] = 255 * rng.random((size, 6, 8, 3), np.float32)
        batch["target_feature"] = rng.random((size, 5), np.float32)
    else:
        batch["feature"] = rng.random((size, 5), np.float32)
        batch["conv_map"] = rng.random((size, 3, 4, 4), np.float32)
    return {name: tf.constant(value) for name, value in batch.items()}


def sgd(rate=0.05):
    return keras.optimizers.SGD(rate)


def copies(variables):
    return [v.numpy() for v in variables]


def states(model):
    """Everything that training changes, running means of normalisations included."""
    parts = (model.image_network, model.text_network, model.image_decoder, model.text_decoder)
    return [v for part in parts for v in part.weights]


def changed(before, variables):
    return [not np.array_equal(old, new) for old, new in zip(before, copies(variables))]


# Codes


@pytest.mark.parametrize("epoch", [0, 3])
def test_codes_are_tanh_of_alpha_times_the_hash_value(epoch):
    model, batch = make_model(), make_batch()
    model.epoch_variable.assign(epoch)
    outputs = model(batch)
    alpha = np.sqrt(1 + epoch)
    assert float(model.alpha) == pytest.approx(alpha)
    for side in ("image", "text"):
        expected = np.tanh(alpha * outputs[f"{side}_hash"].numpy())
        np.testing.assert_allclose(outputs[f"{side}_code"], expected, rtol=1e-5)
    np.testing.assert_array_equal(model.encode_image(batch), outputs["image_hash"])
    np.testing.assert_array_equal(model.encode_text(batch["bow"]), outputs["text_hash"])
    assert (model.bits, model.text_size, model.feature_size) == (8, 12, 5)


def test_pixels_give_the_codes_of_their_features():
    model, batch = make_model(backbone=True), make_batch(pixels=True)
    computed = model.backbone(batch["pixels"], training=False)
    expected = model.encode_image(computed)
    np.testing.assert_allclose(model.encode_image({"pixels": batch["pixels"]}), expected, rtol=1e-5)
    outputs = model(batch)
    np.testing.assert_allclose(outputs["image_hash"], expected, rtol=1e-5)
    np.testing.assert_allclose(outputs["feature"], computed["feature"], rtol=1e-5)


def test_bags_of_words_may_be_bytes():
    model, batch = make_model(), make_batch()
    np.testing.assert_array_equal(
        model.encode_text(tf.cast(batch["bow"], tf.uint8)), model.encode_text(batch["bow"])
    )


# Decoders


@pytest.mark.parametrize("decoder_input", ["tanh", "sign"])
def test_decoders_read_the_code_of_the_other_side(decoder_input):
    model, batch = make_model(decoder_input=decoder_input), make_batch()
    with tf.GradientTape() as tape:
        outputs = model(batch)
        loss = tf.reduce_sum(outputs["text_from_image"] ** 2)
    for name, decoder, side in (
        ("text_from_image", model.image_decoder, "image"),
        ("image_from_text", model.text_decoder, "text"),
    ):
        code = outputs[f"{side}_code"].numpy()
        code = np.where(code >= 0, 1, -1) if decoder_input == "sign" else code
        kernel, bias = decoder.get_weights()
        np.testing.assert_allclose(outputs[name], code @ kernel + bias, rtol=1e-4, atol=1e-5)
    # Through sign as well a gradient reaches the image network, and none the text network.
    hash_layers = [model.image_network.hash_layer.kernel, model.text_network.hash_layer.kernel]
    image, text = tape.gradient(loss, hash_layers)
    assert np.abs(image).max() > 0
    assert text is None


# Training


def test_a_training_step_decreases_the_loss():
    model, batch = make_model(fusion_weights=(0, 0.5, 0.5)), make_batch()
    model.compile(sgd(), sgd())
    first = model.test_step(batch)
    assert list(first) == list(model.terms)
    for metric in model.metrics:
        metric.reset_state()
    for _ in range(15):
        model.train_step(batch)
    for metric in model.metrics:
        metric.reset_state()
    assert float(model.test_step(batch)["loss"]) < 0.95 * float(first["loss"])
    for name in model.terms:
        assert np.isfinite(float(first[name]))


def test_the_tracked_terms_are_running_means_and_testing_changes_no_weight():
    model, batches = make_model(), [make_batch(seed=s) for s in range(2)]
    model.compile(sgd(), sgd())
    before = copies(states(model))
    expected = [model.method.loss({**b, "target_feature": b["feature"]}, model(b)) for b in batches]
    for batch in batches:
        means = model.test_step(batch)
    for name in model.terms:
        term = "total" if name == "loss" else name
        mean = np.mean([float(terms[term]) for terms in expected])
        assert float(means[name]) == pytest.approx(mean, rel=1e-5)
    assert not any(changed(before, states(model)))


def test_similarity_targets_come_from_the_target_feature_if_there_is_one():
    model, batch = make_model(), make_batch()
    model.compile(sgd(), sgd())
    own = model.local_gradients(batch)[0]
    same = model.local_gradients({**batch, "target_feature": batch["feature"]})[0]
    other = model.local_gradients({**batch, "target_feature": batch["feature"][::-1]})[0]
    assert float(own["total"]) == float(same["total"])
    assert float(own["L_W"]) != pytest.approx(float(other["L_W"]), rel=1e-3)


def test_the_loss_reads_all_texts_where_the_network_reads_one():
    model, batch = make_model(), make_batch()
    model.compile(sgd(), sgd())
    one = batch["bow"] * (np.arange(batch["bow"].shape[1]) % 2)
    found = model.local_gradients({**batch, "bow": one, "target_bow": batch["bow"]})[0]
    outputs = model({**batch, "bow": one}, training=True)
    expected = model.method.loss({**batch, "target_feature": batch["feature"]}, outputs)
    assert float(found["total"]) == pytest.approx(float(expected["total"]), rel=1e-5)
    alone = model.local_gradients({**batch, "bow": one})[0]
    assert float(found["total"]) != pytest.approx(float(alone["total"]), rel=1e-3)


@pytest.mark.parametrize("trainable", [False, True])
def test_a_frozen_backbone_is_left_alone(trainable):
    model, batch = make_model(backbone=True), make_batch(pixels=True)
    model.backbone.trainable = trainable
    model.compile(sgd(), sgd())
    before = copies(model.backbone.weights)
    assert len(before) == 2 + 4 + 2
    model.train_step(batch)
    ours = {id(v) for v in model.image_variables}
    for variable in model.backbone.trainable_variables:
        assert id(variable) in ours
    # Unfrozen, everything changes, the running means of its normalisation included.
    assert all(changed(before, model.backbone.weights)) == trainable
    assert any(changed(before, model.backbone.weights)) == trainable


def test_image_and_text_variables_are_all_that_is_trainable():
    model = make_model(backbone=True)
    ours = [id(v) for v in model.image_variables + model.text_variables]
    assert len(set(ours)) == len(ours)
    assert set(ours) == {id(v) for v in model.trainable_variables}
    assert len(model.text_variables) == 2 + 2 + 2


@pytest.mark.parametrize("image_rate, text_rate", [(0.1, 0.0), (0.0, 0.1)])
def test_each_modality_has_its_own_optimizer(image_rate, text_rate):
    model, batch = make_model(), make_batch()
    model.compile(sgd(image_rate), sgd(text_rate))
    image, text = copies(model.image_variables), copies(model.text_variables)
    model.train_step(batch)
    assert any(changed(image, model.image_variables)) == (image_rate > 0)
    assert any(changed(text, model.text_variables)) == (text_rate > 0)


def test_l2_weight_adds_its_part_of_each_variable_to_the_gradient():
    model, batch = make_model(), make_batch()
    model.compile(sgd(), sgd())
    _, image, text = model.local_gradients(batch)
    model.compile(sgd(), sgd(), l2_weight=0.3)
    _, image_l2, text_l2 = model.local_gradients(batch)
    variables = model.image_variables + model.text_variables
    assert len(variables) == len(image_l2 + text_l2)
    for plain, decayed, variable in zip(image + text, image_l2 + text_l2, variables):
        np.testing.assert_allclose(decayed, plain + 0.3 * variable, rtol=1e-5, atol=1e-7)


def test_gradients_are_those_of_the_total():
    model, batch = make_model(alpha=0.5, beta=2.0), make_batch()
    batch["bow"] += 1.0  # no text without words, whose first code is 0, where cosines jump
    model.compile(sgd(), sgd())
    terms, image, text = model.local_gradients(batch)
    total = 0.5 * (terms["L_F"] + terms["L_R"] + terms["L_W"]) + 2 * terms["L_2"] + terms["L_3"]
    assert float(terms["total"]) == pytest.approx(float(total), rel=1e-6)
    # Against finite differences, but for the variables that the stopped F_I depends on.
    gradients = dict(zip([id(v) for v in model.image_variables + model.text_variables],
                         image + text))  # fmt: skip
    variables = model.text_variables + model.image_network.hash_layer.trainable_variables
    variables += model.image_decoder.trainable_variables
    rng = np.random.default_rng(0)
    directions = [rng.standard_normal(v.shape).astype(np.float32) for v in variables]
    slope = sum(np.sum(gradients[id(v)] * d) for v, d in zip(variables, directions))
    start, values = copies(variables), []
    for step in (1e-3, -1e-3):
        for variable, value, direction in zip(variables, start, directions):
            variable.assign(value + step * direction)
        values.append(float(model.local_gradients(batch)[0]["total"]))
    assert (values[0] - values[1]) / 2e-3 == pytest.approx(slope, rel=0.03)


def test_a_text_without_words_does_not_blow_up_the_first_step():
    # Its hash value is exactly 0 before training, where a cosine has no slope.
    model, batch = make_model(), make_batch()
    batch["bow"] *= tf.cast(tf.range(8) != 3, tf.float32)[:, None]
    model.compile(sgd(), sgd())
    assert not model.encode_text(batch["bow"])[3].numpy().any()
    _, image, text = model.local_gradients(batch)
    assert max(np.abs(g).max() for g in image + text) < 10


@pytest.mark.parametrize("decay", [0.0, 0.01])
def test_lamb_trains(decay):
    model, batch = make_model(fusion_weights=(0, 0, 1)), make_batch()
    optimizers = [compat.lamb(0.02, decay) for _ in range(2)]
    model.compile(*optimizers)
    compat.build_optimizer(optimizers[0], model.image_variables)
    compat.build_optimizer(optimizers[1], model.text_variables)
    before = copies(model.image_variables + model.text_variables)
    first = float(model.test_step(batch)["loss"])
    for _ in range(5):
        model.train_step(batch)
    for metric in model.metrics:
        metric.reset_state()
    assert float(model.test_step(batch)["loss"]) < first
    after = model.image_variables + model.text_variables
    # Biases start at 0, where LAMB's trust ratio is 1.
    assert sum(changed(before, after)) > 0.8 * len(after)
    assert all(np.isfinite(v).all() for v in copies(after))


def test_fit_runs_and_hands_out_the_terms():
    model = make_model(fusion_weights=(0, 0, 1))
    model.compile(sgd(), sgd())
    data = tf.data.Dataset.from_tensor_slices(make_batch()).batch(4)
    history = model.fit(data, epochs=2, verbose=0, shuffle=False).history
    assert set(model.terms) <= set(history)
    assert len(history["loss"]) == 2


# Other inputs, bad arguments


def test_features_without_maps_train():
    sizes = {"bow": 12, "feature": 5, "conv_map": None}
    model, batch = make_model(sizes=sizes), make_batch()
    del batch["conv_map"]
    model.compile(sgd(), sgd())
    assert model.image_network.fusion_weights == (0, 0, 1)
    assert np.isfinite(float(model.train_step(batch)["loss"]))


def test_mixed_precision_trains_in_float32_outside_the_layers():
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        model, batch = make_model(backbone=True), make_batch(pixels=True)
        del batch["target_feature"]
        model.compile(sgd(), sgd())
        outputs = model(batch)
        assert {y.dtype for y in outputs.values()} == {tf.float32}
        assert np.isfinite(float(model.train_step(batch)["loss"]))
    finally:
        keras.mixed_precision.set_global_policy("float32")


@pytest.fixture
def policy():
    """Sets the dtype policy of new layers."""
    yield keras.mixed_precision.set_global_policy
    keras.mixed_precision.set_global_policy("float32")


def moved(model, batch, steps):
    """How far each side's variables move in so many steps, as one vector per side."""
    sides = model.image_variables, model.text_variables
    before = [copies(side) for side in sides]
    for _ in range(steps):
        model.train_step(batch)
    return [
        np.concatenate([(new - old).ravel() for old, new in zip(olds, copies(side))])
        for olds, side in zip(before, sides)
    ]


@pytest.mark.parametrize("l2_weight", [0.0, 0.1])
def test_mixed_float16_follows_float32(policy, l2_weight):
    """Five steps with losses so small that float16 gradients would be 0 without a scale."""
    small = {"alpha": 1e-5, "beta": 1e-5, "gamma": 1e-5}
    paths = []
    for name in ("float32", "mixed_float16"):
        policy(name)
        model = make_model(**small)
        model.compile(sgd(1e3), sgd(1e3), l2_weight * 1e-5)
        paths.append(moved(model, make_batch(), 5))
    for expected, found in zip(*paths):
        assert np.linalg.norm(expected) > 1e-3
        assert np.linalg.norm(found - expected) < 0.05 * np.linalg.norm(expected)


def test_both_sides_leave_out_a_step_that_overflows(policy):
    policy("mixed_float16")
    model, batch = make_model(), make_batch()
    scaled = keras.mixed_precision.LossScaleOptimizer
    model.compile(scaled(sgd(), initial_scale=2.0**100))
    for side in moved(model, batch, 1):
        np.testing.assert_array_equal(side, np.zeros_like(side))
    for optimizer in (model.optimizer, model.text_optimizer):
        assert float(compat.loss_scale(optimizer)) == 2.0**99
    model.compile(sgd(), sgd())
    assert all(np.abs(side).max() > 0 for side in moved(model, batch, 10))


@pytest.mark.parametrize("name", METHODS)
def test_the_total_is_the_weighted_sum_of_the_terms(name):
    model = small_model(name)
    model.compile(sgd(), sgd())
    terms, image, text = model.local_gradients(prepared(model.method, small_batch(8)))
    assert set(model.method.weights) <= set(model.method.terms)
    expected = sum(
        model.method.weights.get(term, 1.0) * float(terms[term]) for term in model.method.terms
    )
    assert float(terms["total"]) == pytest.approx(expected, rel=1e-5)
    model.train_step(prepared(model.method, small_batch(8)))
    for side, gradients in (("image", image), ("text", text)):
        norm = np.sqrt(sum(np.sum(np.square(g)) for g in gradients))
        assert model.gradient_norms()[side] == pytest.approx(norm, rel=1e-4)


@pytest.mark.parametrize("name", METHODS)
def test_a_step_compiled_by_xla_is_the_same(name):
    """Up to rounding: this is what --jit=auto turns on where batches have features."""
    moves = []
    for jit in (False, True):
        keras.utils.set_random_seed(7)
        model = small_model(name)
        model.compile(sgd(), sgd(), 0.01)
        variables = model.image_variables + model.text_variables
        batch = model.method.pairwise(prepared(model.method, small_batch(8)))
        step, before = tf.function(model.train_step, jit_compile=jit), copies(variables)
        step(batch)  # after which a unit at 0 may be on or off by rounding
        moves.append([new - old for old, new in zip(before, copies(variables))])
        assert model.first_not_finite() is None
    for plain, compiled in zip(*moves):
        np.testing.assert_allclose(compiled, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bits", [0, 12, -8, 8.0])
def test_bits_are_a_multiple_of_8(bits):
    with pytest.raises(ValueError, match="bits must be a positive multiple of 8, received"):
        METHODS["dsprh"](bits)


def test_an_unknown_decoder_input_is_refused():
    class Soft(DSAH):
        decoder_input = "soft"

    with pytest.raises(ValueError, match="is 'soft', expected one of tanh, sign, inert"):
        CrossModalHashing(Soft(8, text_hidden=4), SIZES)


@pytest.mark.parametrize(
    "sizes, said",
    [
        ({"bow": 12}, "sizes has no feature, expected"),
        ({}, "sizes has no bow and no feature, expected"),
        ({"bow": 12, "feature": 5}, "sizes has no 'conv_map', which the image network of sdeh"),
    ],
)
def test_missing_sizes_are_named(sizes, said):
    with pytest.raises(ValueError, match=said):
        CrossModalHashing(SDEH(8, width=4, heads=2), {**sizes, "labels": 3})


def test_wrong_inputs_get_a_sentence():
    model, batch = make_model(), make_batch()
    with pytest.raises(ValueError, match="inputs are a ndarray, expected a dict with feature"):
        model.encode_image(np.zeros((2, 5), np.float32))
    with pytest.raises(ValueError, match="the batch has feature, expected also conv_map"):
        model.encode_image({"feature": batch["feature"]})
    with pytest.raises(ValueError, match="the batch has pixels, and the model has no backbone"):
        model.encode_image({"pixels": np.zeros((2, 8, 8, 3), np.float32)})
    with pytest.raises(ValueError, match="a batch is a tuple, expected a dict"):
        model.test_step((batch["feature"], batch["bow"]))
    with pytest.raises(ValueError, match="the loss is the method's: leave it out"):
        model.compile("adam", loss="mse")
    plus = CrossModalHashing(DSPRHPlus(8, text_hidden=4), {"bow": 12, "feature": 5})
    with pytest.raises(ValueError, match="knows no graph yet: call prepare"):
        plus.test_step({"feature": batch["feature"], "bow": batch["bow"]})


def test_labels_may_be_bytes():
    sizes = {**SIZES, "labels": 3}
    model = CrossModalHashing(SDEH(8, width=4, heads=2, text_hidden=6), sizes)
    batch = make_batch()
    labels = np.eye(3)[np.arange(8) % 3]
    losses = [
        float(model.test_step({**batch, "labels": tf.constant(labels, dtype)})["loss"])
        for dtype in (tf.float32, tf.uint8)
    ]
    assert losses[0] == pytest.approx(losses[1])


# A good Keras citizen


def dataset(seed=0, size=16):
    return tf.data.Dataset.from_tensor_slices(make_batch(size, seed=seed)).batch(8)


def test_compile_takes_a_name_or_one_optimizer_per_modality():
    model = make_model(fusion_weights=(0, 0, 1))
    model.compile("adam")
    assert model.optimizer is not model.text_optimizer
    assert type(model.optimizer) is type(model.text_optimizer)
    model.fit(dataset(), verbose=0)
    model.compile("adam", "sgd")
    assert type(model.text_optimizer) is type(keras.optimizers.get("sgd"))
    model.fit(dataset(), verbose=0)
    model.compile(keras.optimizers.SGD(0.25, momentum=0.5))
    assert compat.current_learning_rate(model.text_optimizer) == 0.25
    assert model.text_optimizer.get_config()["momentum"] == 0.5


class Alphas(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(round(float(self.model.alpha) ** 2))


def test_fit_hardens_the_codes_by_itself():
    model, alphas = make_model(fusion_weights=(0, 0, 1)), Alphas()
    model.compile("sgd")
    model.fit(dataset(), epochs=2, verbose=0, callbacks=[alphas])
    model.fit(dataset(), initial_epoch=2, epochs=3, verbose=0, callbacks=(alphas,))
    model.fit(dataset(), initial_epoch=3, epochs=4, verbose=0, callbacks=alphas)
    assert alphas.seen == [1, 1, 2, 2, 3, 3, 4, 4]


def test_a_method_that_does_not_harden_keeps_alpha():
    sizes = {**SIZES, "labels": 3}
    model = CrossModalHashing(SDEH(8, width=4, heads=2, text_hidden=6), sizes)
    model.epoch_variable.assign(5.0)
    assert float(model.alpha) == 1.0


def test_callbacks_of_keras_see_loss_and_val_loss(tmp_path):
    model = make_model(fusion_weights=(0, 0, 1))
    model.compile(keras.optimizers.SGD(0.1), keras.optimizers.SGD(0.4))
    callbacks = [
        keras.callbacks.EarlyStopping("val_loss", patience=2, min_delta=100.0),
        keras.callbacks.ReduceLROnPlateau("val_loss", factor=0.5, patience=1, min_delta=100.0),
        keras.callbacks.ModelCheckpoint(str(tmp_path / "{epoch}.keras"), monitor="val_loss"),
    ]
    history = model.fit(
        dataset(), validation_data=dataset(1), epochs=9, verbose=0, callbacks=callbacks
    ).history
    assert {"loss", "val_loss", "L_F", "val_L_2"} <= set(history)
    assert len(history["loss"]) == 3  # stopped early
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1.keras", "2.keras", "3.keras"]
    # Reduced after the second epoch: both sides by the same factor, at the next epoch's begin.
    assert compat.current_learning_rate(model.optimizer) == pytest.approx(0.025)
    assert compat.current_learning_rate(model.text_optimizer) == pytest.approx(0.2)


RELOAD = """
import sys
import dsprh_tf, keras, numpy as np, tensorflow as tf
import dsprh_tf.methods, dsprh_tf.model
model = keras.models.load_model(sys.argv[1])
inputs = dict(np.load(sys.argv[2]))
outputs = {"image": model.encode_image(inputs), "text": model.encode_text(inputs["bow"])}
np.savez(sys.argv[3], **{name: np.asarray(value) for name, value in outputs.items()})
data = tf.data.Dataset.from_tensor_slices(inputs).batch(4)
print("loss", model.fit(data, epochs=1, verbose=0).history["loss"])
"""


@pytest.mark.slow
def test_a_saved_model_gives_equal_codes_in_a_new_process(tmp_path):
    model, batch = make_model(backbone=True), make_batch(pixels=True)
    model.compile(keras.optimizers.Adam(0.01), "sgd", l2_weight=0.1)
    model.fit(tf.data.Dataset.from_tensor_slices(batch).batch(4), epochs=2, verbose=0)
    model.save(tmp_path / "model.keras")
    np.savez(tmp_path / "in.npz", **batch)
    files = [str(tmp_path / name) for name in ("model.keras", "in.npz", "out.npz")]
    result = subprocess.run(
        [sys.executable, "-c", RELOAD, *files],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert "loss [" in result.stdout, result.stderr[-3000:]
    found = np.load(tmp_path / "out.npz")
    np.testing.assert_array_equal(found["image"], model.encode_image(batch))
    np.testing.assert_array_equal(found["text"], model.encode_text(batch["bow"]))


@pytest.mark.parametrize("name", METHODS)
def test_every_method_survives_saving(name, tmp_path):
    sizes = {**SIZES, "labels": 3, **{f"stage_{n}": (21, n + 1) for n in (1, 2, 3)}}
    small = {"text_hidden": 6, "cov_channels": 3, "width": 4, "heads": 2}
    method = METHODS[name]
    settings = {k: v for k, v in small.items() if k in method.setting_names()}
    model = CrossModalHashing(method(8, seed=3, **settings), sizes)
    model.compile("adam", "sgd")
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.method.get_config() == model.method.get_config()
    assert type(again.text_optimizer) is type(model.text_optimizer)
    batch = make_batch()
    batch.update({f"stage_{n}": tf.random.uniform((8, 21, n + 1), seed=n) for n in (1, 2, 3)})
    np.testing.assert_array_equal(again.encode_image(batch), model.encode_image(batch))
    np.testing.assert_array_equal(again.encode_text(batch["bow"]), model.encode_text(batch["bow"]))


def test_the_summary_names_the_parts():
    lines = []
    make_model().summary(print_fn=lambda line, **_: lines.append(line))
    text = "\n".join(lines)
    for part in ("image_network", "text_network", "image_decoder", "text_decoder"):
        assert part in text


# Replicas


def check_replicas():
    """A step on two replicas is the mean of their local gradients, one after the other."""
    batch, rate, decay = make_batch(size=12), 0.1, 0.02
    halves = [{name: x[part] for name, x in batch.items()} for part in (slice(6), slice(6, 12))]
    networks = {"fusion_weights": (0, 0.5, 0.5)}  # one branch: half the time to trace
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        model = make_model(**networks)
        model.compile(sgd(rate), sgd(rate), l2_weight=decay)
    single = make_model(**networks)
    single.compile(sgd(rate), sgd(rate), l2_weight=decay)
    local, running = [], []
    for part in (*halves, batch):
        for source, target in zip(states(model), states(single)):
            target.assign(source.numpy())
        local.append(single.local_gradients(part))
        running.append(copies(single.image_network.non_trainable_variables))
    variables = model.image_variables + model.text_variables
    before = copies(variables)
    data = tf.data.Dataset.from_tensor_slices(batch).batch(12)
    history = model.fit(data, verbose=0, shuffle=False).history
    assert strategy.num_replicas_in_sync == 2
    for name in model.terms:
        term = "total" if name == "loss" else name
        mean = np.mean([float(terms[term]) for terms, _, _ in local[:2]])
        np.testing.assert_allclose(history[name][-1], mean, rtol=1e-5, err_msg=name)
    gradients = [image + text for _, image, text in local]
    distances = []
    for variable, old, first, second, both in zip(variables, before, *gradients):
        new, mean = variable.numpy(), (first.numpy() + second.numpy()) / 2
        np.testing.assert_allclose(new, old - rate * mean, rtol=1e-5, atol=1e-7)
        distances.append(np.abs(mean - both.numpy()).max())
    for variable, first, second, _ in zip(model.image_network.non_trainable_variables, *running):
        expected = first if compat.KERAS_3 else (first + second) / 2
        np.testing.assert_allclose(variable.numpy(), expected, rtol=1e-5, atol=1e-7)
        assert np.abs(first - second).max() > 1e-4
    # Pairs across replicas are not compared: it is not the gradient of the whole batch.
    assert max(distances) > 1e-3
    print("the mean of two replicas:", len(distances), "variables")
