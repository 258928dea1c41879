"""Backbones: shapes, forward passes against NumPy and PyTorch, weight files, dropout."""

from __future__ import annotations

import logging

import keras
import numpy as np
import pytest
import safetensors.numpy
import tensorflow as tf
from helpers import SHARED

from dsprh_tf.backbones import architectures, torch_files
from dsprh_tf.backbones.architectures import PixelScaling, build_backbone, hold_statistics
from dsprh_tf.backbones.weights import weights_fingerprint
from dsprh_tf.layers import AdaptiveAveragePooling, SeededDropout

MOBILENET = SHARED / "weights" / "mobilenet_v2_1.0_224_no_top.h5"
needs_mobilenet = pytest.mark.skipif(
    not MOBILENET.is_file(), reason=f"{MOBILENET.name} is not in the shared weights folder"
)


# The architectures once more, over exchangeable operations on [batch, channels, height, width].
class NumpyOps:
    @staticmethod
    def conv2d(x, weight, bias=None, stride=1, padding=0):
        x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
        windows = np.lib.stride_tricks.sliding_window_view(x, weight.shape[2:], (2, 3))
        windows = windows[:, :, ::stride, ::stride]  # [batch, in, rows, columns, kh, kw]
        y = np.tensordot(windows, weight, ((1, 4, 5), (1, 2, 3))).transpose(0, 3, 1, 2)
        return y if bias is None else y + bias[:, None, None]

    @staticmethod
    def max_pool2d(x, size, stride, padding=0):
        x = np.pad(
            x, ((0, 0), (0, 0), (padding, padding), (padding, padding)), constant_values=-np.inf
        )
        windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), (2, 3))
        return windows[:, :, ::stride, ::stride].max((4, 5))

    @staticmethod
    def linear(x, weight, bias):
        return x @ weight.T + bias

    @staticmethod
    def batch_norm(x, mean, variance, weight, bias):
        scale = weight / np.sqrt(variance + 1e-5)
        return x * scale[:, None, None] + (bias - mean * scale)[:, None, None]

    @staticmethod
    def relu(x):
        return np.maximum(x, 0)

    @staticmethod
    def pool_to_6(x):
        n = x.shape[2]
        starts, stops = [i * n // 6 for i in range(6)], [-(-(i + 1) * n // 6) for i in range(6)]
        rows = [
            [x[:, :, a:b, c:d].mean((2, 3)) for c, d in zip(starts, stops)]
            for a, b in zip(starts, stops)
        ]
        return np.stack([np.stack(row, -1) for row in rows], -2)


def alexnet_reference(ops, w, x):
    def conv(x, i, **kwargs):
        return ops.relu(ops.conv2d(x, w[f"features.{i}.weight"], w[f"features.{i}.bias"], **kwargs))

    x = ops.max_pool2d(conv(x, 0, stride=4, padding=2), 3, 2)
    x = ops.max_pool2d(conv(x, 3, padding=2), 3, 2)
    conv_map = conv(conv(conv(x, 6, padding=1), 8, padding=1), 10, padding=1)
    x = ops.pool_to_6(ops.max_pool2d(conv_map, 3, 2)).reshape(len(x), -1)
    for i in (1, 4):
        x = ops.relu(ops.linear(x, w[f"classifier.{i}.weight"], w[f"classifier.{i}.bias"]))
    return conv_map, x


def resnet34_reference(ops, w, x):
    def norm(x, name):
        names = ("running_mean", "running_var", "weight", "bias")
        return ops.batch_norm(x, *(w[f"{name}.{n}"] for n in names))

    def conv(x, name, **kwargs):
        return ops.conv2d(x, w[f"{name}.weight"], **kwargs)

    x = ops.relu(norm(conv(x, "conv1", stride=2, padding=3), "bn1"))
    x = ops.max_pool2d(x, 3, 2, 1)
    for layer, blocks in enumerate((3, 4, 6, 3), 1):
        for i in range(blocks):
            name, stride = f"layer{layer}.{i}", 2 if layer > 1 and i == 0 else 1
            y = ops.relu(norm(conv(x, f"{name}.conv1", stride=stride, padding=1), f"{name}.bn1"))
            y = norm(conv(y, f"{name}.conv2", padding=1), f"{name}.bn2")
            if stride == 2:
                x = norm(conv(x, f"{name}.downsample.0", stride=2), f"{name}.downsample.1")
            x = ops.relu(x + y)
    return x, x.mean((2, 3))


def random_conv(rng, *shape):
    values = rng.random(shape, np.float32)  # uniform: drawn three times as fast as normal
    values -= 0.5
    values *= np.float32(np.sqrt(24 / np.prod(shape[1:])))
    return values


def random_norm(rng, name, n):
    return {
        f"{name}.weight": rng.uniform(0.5, 1.0, n).astype(np.float32),
        f"{name}.bias": rng.normal(0, 0.1, n).astype(np.float32),
        f"{name}.running_mean": rng.normal(0, 0.1, n).astype(np.float32),
        f"{name}.running_var": rng.uniform(0.5, 1.5, n).astype(np.float32),
        f"{name}.num_batches_tracked": np.array(7),
    }


def alexnet_state():
    rng = np.random.default_rng(0)
    state = {}
    sizes = {
        0: (64, 3, 11, 11),
        3: (192, 64, 5, 5),
        6: (384, 192, 3, 3),
        8: (256, 384, 3, 3),
        10: (256, 256, 3, 3),
    }
    for i, size in sizes.items():
        state[f"features.{i}.weight"] = random_conv(rng, *size)
        state[f"features.{i}.bias"] = random_conv(rng, size[0])
    for i, size in {1: (4096, 9216), 4: (4096, 4096)}.items():
        state[f"classifier.{i}.weight"] = random_conv(rng, *size)
        state[f"classifier.{i}.bias"] = random_conv(rng, size[0])
    return state


def resnet34_state():
    rng = np.random.default_rng(1)
    state = {"conv1.weight": random_conv(rng, 64, 3, 7, 7), **random_norm(rng, "bn1", 64)}
    inputs = 64
    for layer, (n, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), 1):
        for i in range(blocks):
            name = f"layer{layer}.{i}"
            state[f"{name}.conv1.weight"] = random_conv(rng, n, inputs, 3, 3)
            state[f"{name}.conv2.weight"] = random_conv(rng, n, n, 3, 3)
            state.update(random_norm(rng, f"{name}.bn1", n))
            state.update(random_norm(rng, f"{name}.bn2", n))
            state[f"{name}.bn2.weight"] *= np.float32(0.3)  # else the sums grow with the depth
            if layer > 1 and i == 0:
                state[f"{name}.downsample.0.weight"] = random_conv(rng, n, inputs, 1, 1)
                state.update(random_norm(rng, f"{name}.downsample.1", n))
            inputs = n
    return state


def random_pixels(batch, size):
    return np.random.default_rng(2).integers(0, 256, (batch, size, size, 3)).astype(np.float32)


def torchvision_input(pixels):
    scaled = (pixels / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2), np.float32)


def assert_same(outputs, conv_map, feature):
    conv_map = np.asarray(conv_map).transpose(0, 2, 3, 1)
    np.testing.assert_allclose(outputs["conv_map"].numpy(), conv_map, atol=1e-4, rtol=0)
    np.testing.assert_allclose(outputs["feature"].numpy(), np.asarray(feature), atol=1e-4, rtol=0)
    assert np.ptp(outputs["feature"].numpy()) > 0.1  # else the comparison says nothing


@pytest.fixture(scope="module")
def alexnet(tmp_path_factory):
    """The state_dict and the model that reads it from a file."""
    path = tmp_path_factory.mktemp("weights") / "alexnet.safetensors"
    state = alexnet_state()
    top = {"classifier.6.weight": np.zeros((3, 2), np.float32), "classifier.6.bias": np.zeros(3)}
    safetensors.numpy.save_file({**state, **top}, path)
    model = build_backbone("alexnet", weights=str(path), dropout=0.5)
    path.unlink()  # 230 MB
    return state, model


@pytest.fixture(scope="module")
def resnet34(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "resnet34.npz"
    state = resnet34_state()
    torch_files.write_weights(path, {**state, "fc.bias": np.zeros(5, np.float32)})
    return state, path, build_backbone("resnet34", weights=str(path))


@pytest.fixture(scope="module")
def mobilenet():
    return build_backbone("mobilenet_v2", image_size=64, seed=3)


def test_alexnet_equals_numpy(alexnet):
    state, model = alexnet
    pixels = random_pixels(2, 224)
    outputs = tf.function(model)(pixels)
    assert outputs["conv_map"].shape == (2, 13, 13, 256)
    assert outputs["feature"].shape == (2, 4096)
    assert_same(outputs, *alexnet_reference(NumpyOps, state, torchvision_input(pixels)))


def test_fc6_columns(alexnet):
    state, model = alexnet
    kernel = model.get_layer("classifier_1").weights[0].numpy()
    for c, h, w, out in ((0, 0, 0, 0), (1, 0, 0, 5), (0, 1, 0, 7), (0, 0, 1, 9), (255, 5, 4, 4095)):
        assert (
            kernel[(h * 6 + w) * 256 + c, out]
            == state["classifier.1.weight"][out, c * 36 + h * 6 + w]
        )


def test_resnet34_equals_numpy(resnet34):
    state, _, model = resnet34
    pixels = random_pixels(1, 224)
    outputs = tf.function(model)(pixels)
    assert outputs["conv_map"].shape == (1, 7, 7, 512)
    assert outputs["feature"].shape == (1, 512)
    assert_same(outputs, *resnet34_reference(NumpyOps, state, torchvision_input(pixels)))


def torch_ops(torch):
    functional = torch.nn.functional

    class TorchOps:
        conv2d, max_pool2d = functional.conv2d, functional.max_pool2d
        linear, batch_norm = functional.linear, functional.batch_norm
        relu = functional.relu

        @staticmethod
        def pool_to_6(x):
            return functional.adaptive_avg_pool2d(x, 6)

    return TorchOps


@pytest.mark.parametrize("name", ["alexnet", "resnet34"])
def test_parity_with_pytorch(name, request):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    state, *_, model = request.getfixturevalue(name)
    reference = alexnet_reference if name == "alexnet" else resnet34_reference
    pixels = random_pixels(2, 224)
    tensors = {key: torch.from_numpy(value) for key, value in state.items()}
    with torch.no_grad():
        expected = reference(torch_ops(torch), tensors, torch.from_numpy(torchvision_input(pixels)))
    assert_same(model(pixels), *expected)


def test_adaptive_pooling():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    for n in (1, 4, 6, 7, 13):
        x = np.random.default_rng(n).normal(size=(2, n, n, 3)).astype(np.float32)
        expected = torch.nn.functional.adaptive_avg_pool2d(
            torch.from_numpy(x.transpose(0, 3, 1, 2).copy()), 6
        ).numpy()
        pooled = AdaptiveAveragePooling(6)(x).numpy()
        np.testing.assert_allclose(pooled, expected.transpose(0, 2, 3, 1), atol=1e-6)


@pytest.mark.parametrize("n", [1, 4, 7, 13])
def test_adaptive_pooling_equals_numpy(n):
    x = np.random.default_rng(n).normal(size=(2, n, n, 3)).astype(np.float32)
    expected = NumpyOps.pool_to_6(x.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)
    layer = AdaptiveAveragePooling(6)
    np.testing.assert_allclose(layer(x).numpy(), expected, atol=1e-6)
    assert layer.compute_output_shape(x.shape) == (2, 6, 6, 3)


def test_alexnet_too_small():
    with pytest.raises(ValueError, match="image_size >= 63"):
        build_backbone("alexnet", image_size=62)


def test_dropout_of_alexnet_acts_only_in_training(alexnet):
    _, model = alexnet
    pixels = random_pixels(1, 224)
    still = model(pixels, training=False)["feature"].numpy()
    assert np.array_equal(still, model(pixels, training=False)["feature"].numpy())
    before = weights_fingerprint(model)
    masked = model(pixels, training=True)["feature"].numpy()
    assert not np.allclose(masked, still)
    assert weights_fingerprint(model) == before
    with pytest.raises(ValueError, match="only alexnet has dropout"):
        build_backbone("mobilenet_v2", dropout=0.5, image_size=32)


def test_batch_norm_rests_when_frozen(resnet34):
    _, _, model = resnet34
    pixels = random_pixels(2, 224)
    still = model(pixels, training=False)["feature"].numpy()
    before = weights_fingerprint(model)
    model.trainable = False
    try:
        assert weights_fingerprint(model) == before
        frozen = model(pixels, training=True)["feature"].numpy()
        assert np.array_equal(frozen, still) and weights_fingerprint(model) == before
    finally:
        model.trainable = True
    assert not np.allclose(model(pixels, training=True)["feature"].numpy(), still)
    assert weights_fingerprint(model) != before  # moving statistics


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet34"])
def test_fine_tuning_keeps_the_statistics(name):
    """In training as in use the normalisations are those that came with the weights."""
    model = build_backbone(name, image_size=32)
    kernels = len([v for v in model.trainable_variables if len(v.shape) == 4])
    hold_statistics(model)
    pixels = random_pixels(2, 32)
    before = weights_fingerprint(model)
    still = model(pixels, training=False)["feature"].numpy()
    assert np.array_equal(model(pixels, training=True)["feature"].numpy(), still)
    assert weights_fingerprint(model) == before
    left = model.trainable_variables
    assert len([v for v in left if len(v.shape) == 4]) == kernels
    assert not any("gamma" in v.name or "beta" in v.name for v in left)


def test_weights_of_another_architecture(tmp_path, resnet34):
    state, path, _ = resnet34
    with pytest.raises(
        ValueError,
        match=(
            r"not the weights of alexnet: missing: features\.0\.weight \(64, 3, 11, 11\).* and 9 "
            r"more; "
            r"unexpected: conv1\.weight \(64, 3, 7, 7\).* more$"
        ),
    ) as caught:
        build_backbone("alexnet", weights=str(path), image_size=64)
    assert "\n" not in str(caught.value)

    changed = dict(state)
    changed["conv1.weight"] = np.zeros((64, 3, 5, 5), np.float32)
    torch_files.write_weights(tmp_path / "a.safetensors", changed)
    with pytest.raises(
        ValueError,
        match=r"resnet34: other shape: conv1\.weight \(64, 3, 5, 5\) "
        r"instead of \(64, 3, 7, 7\)$",
    ):
        build_backbone("resnet34", weights=str(tmp_path / "a.safetensors"), image_size=32)

    changed["conv1.weight"] = np.full((64, 3, 7, 7), np.nan, np.float32)
    torch_files.write_weights(tmp_path / "a.safetensors", changed)
    with pytest.raises(ValueError, match=r"conv1\.weight holds NaN"):
        build_backbone("resnet34", weights=str(tmp_path / "a.safetensors"), image_size=32)


def test_ignored_arrays_are_noted(resnet34, caplog):
    _, path, _ = resnet34
    with caplog.at_level(logging.INFO):
        build_backbone("resnet34", weights=str(path), image_size=32)
    assert "37 arrays not needed" in caplog.text


def test_bad_weights_arguments(tmp_path):
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04 cut")
    (tmp_path / "cut.h5").write_bytes(b"not hdf5")
    (tmp_path / "cut.keras").write_bytes(b"not a zip")
    for name, weights, message in (
        ("alexnet", "imagenet", "dsprh convert_weights"),
        ("resnet34", "missing.npz", "no such weight file for resnet34; fetch https://download"),
        ("resnet34", "gone.npz", "--input=resnet34-b627a593.pth --output=gone.npz"),
        ("resnet34", "model.pth", "expected none, imagenet or a .safetensors or .npz file"),
        ("resnet34", str(tmp_path / "cut.npz"), "cannot read weights"),
        ("mobilenet_v2", "model.npz", "expected none, imagenet or a .h5 or .keras file"),
        ("mobilenet_v2", "missing.h5", "no such weight file for mobilenet_v2; imagenet downloads"),
        ("vgg16", str(tmp_path / "cut.h5"), "damaged, or not a Keras weight file"),
        ("vgg16", str(tmp_path / "cut.keras"), "damaged, or not a Keras weight file"),
        ("mobilenetv9", "none", "near: MobileNet"),
    ):
        with pytest.raises(ValueError) as caught:
            build_backbone(name, weights=weights, image_size=32)
        assert message in str(caught.value) and "\n" not in str(caught.value)
    for size in (31, 0, -5, 224.0):
        with pytest.raises(ValueError, match="image_size"):
            build_backbone("resnet34", image_size=size)
    with pytest.raises(ValueError, match="cannot build InceptionV3.*at least 75"):
        build_backbone("inception_v3", image_size=64)


@pytest.mark.parametrize(("name", "expected"), [
    ("mobilenet_v2", ("MobileNetV2", "mobilenet_v2")),
    ("MobileNetV2", ("MobileNetV2", "mobilenet_v2")),
    ("vgg16", ("VGG16", "vgg16")), ("VGG-19", ("VGG19", "vgg19")),
    ("efficientnetb0", ("EfficientNetB0", "efficientnet")),
    ("efficientnet_v2_b0", ("EfficientNetV2B0", "efficientnet_v2")),
    ("resnet50", ("ResNet50", "resnet")), ("resnet50_v2", ("ResNet50V2", "resnet_v2")),
    ("densenet121", ("DenseNet121", "densenet")),
])  # fmt: skip
def test_application_names(name, expected):
    assert architectures._find_application(name) == expected


def test_application_scaling(mobilenet):
    pixels = random_pixels(2, 64)
    outputs = tf.function(mobilenet)(pixels)
    assert outputs["conv_map"].shape == (2, 2, 2, 1280)
    trunk = mobilenet.get_layer(index=2)
    expected = trunk(pixels / 127.5 - 1)[-1].numpy()  # what preprocess_input of MobileNetV2 does
    np.testing.assert_allclose(outputs["conv_map"].numpy(), expected, atol=1e-3)
    np.testing.assert_allclose(outputs["feature"].numpy(), expected.mean((1, 2)), atol=1e-3)
    assert np.isfinite(expected).all() and expected.std() > 0.1


def test_vgg_conv_map_is_before_the_last_pooling():
    outputs = build_backbone("vgg16", image_size=64)(random_pixels(1, 64))
    conv_map = outputs["conv_map"].numpy()
    assert conv_map.shape == (1, 4, 4, 512)
    pooled = conv_map.reshape(1, 2, 2, 2, 2, 512).max((2, 4))
    np.testing.assert_allclose(outputs["feature"].numpy(), pooled.mean((1, 2)), rtol=1e-4)


def grid_means(x, levels=(1, 2, 4)):
    """Means of a map [n, h, w, C] whose sides are multiples of 4 over its grids."""
    n, height, width, channels = x.shape
    grids = [
        x.reshape(n, s, height // s, s, width // s, channels).mean((2, 4)).reshape(n, -1, channels)
        for s in levels
    ]
    return np.concatenate(grids, axis=1)


@pytest.mark.parametrize(("name", "size", "stages"), [
    ("resnet34", 128, ["layer2_3_relu2", "layer3_5_relu2", "layer4_2_relu2"]),
    ("MobileNetV2", 128, ["block_6_expand_relu", "block_13_expand_relu", "out_relu"]),
    ("vgg16", 64, ["block3_conv3", "block4_conv3", "block5_conv3"]),
])  # fmt: skip
def test_pyramid_is_the_means_of_the_last_stages(name, size, stages):
    model = build_backbone(name, image_size=size, seed=1, pyramid=True)
    pixels = random_pixels(2, size)
    outputs = model(pixels)
    trunk, inputs = model, pixels
    if name != "resnet34":
        trunk = model.get_layer(index=2)
        inputs = model.get_layer("pixel_scaling")(pixels)
    maps = keras.Model(trunk.input, [trunk.get_layer(stage).output for stage in stages])(inputs)
    for number, stage in enumerate(maps, start=1):
        expected = grid_means(stage.numpy())
        np.testing.assert_allclose(outputs[f"stage_{number}"], expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(outputs["conv_map"], maps[-1], rtol=1e-5)


def test_pyramid_of_alexnet_and_of_odd_sides():
    model = build_backbone("alexnet", image_size=224, seed=2, pyramid=True)
    outputs = model(random_pixels(1, 224))
    shapes = [tuple(outputs[f"stage_{n}"].shape) for n in (1, 2, 3)]
    assert shapes == [(1, 21, 384), (1, 21, 256), (1, 21, 256)]
    mean = outputs["conv_map"].numpy().mean((1, 2))  # 13 x 13
    np.testing.assert_allclose(outputs["stage_3"][:, 0], mean, rtol=1e-4)
    corner = outputs["conv_map"].numpy()[:, :7, 6:].mean((1, 2))
    np.testing.assert_allclose(outputs["stage_3"][:, 2], corner, rtol=1e-4)


@pytest.mark.parametrize("name", ["resnet34", "MobileNetV2"])
def test_pyramid_changes_no_weight(name):
    plain, pyramid = (build_backbone(name, image_size=64, seed=4, pyramid=p) for p in (0, 1))
    assert weights_fingerprint(plain) == weights_fingerprint(pyramid)


def test_caffe_scaling_swaps_channels():
    pixels = random_pixels(1, 4)
    expected = pixels[..., ::-1] - np.float32([103.939, 116.779, 123.68])
    scaled = PixelScaling("vgg16")(pixels)
    np.testing.assert_allclose(scaled.numpy(), expected, atol=1e-4)


def test_seed_decides_the_weights(mobilenet):
    again = build_backbone("mobilenet_v2", image_size=32, seed=3)
    assert weights_fingerprint(again) == weights_fingerprint(mobilenet)
    first, second = (build_backbone("resnet34", image_size=32, seed=s) for s in (4, 5))
    assert weights_fingerprint(first) != weights_fingerprint(second)
    stem = first.get_layer("conv1").weights[0].numpy()
    assert stem.std() == pytest.approx(np.sqrt(2 / 147), rel=0.05)


@needs_mobilenet
def test_mobilenet_weights(mobilenet, capfd, recwarn):
    model = build_backbone("mobilenet_v2", weights=str(MOBILENET), image_size=96)
    output = capfd.readouterr()
    assert output.out == output.err == "" and not recwarn.list
    plain = keras.applications.MobileNetV2(
        include_top=False, weights=str(MOBILENET), input_shape=(96, 96, 3)
    )
    pixels = random_pixels(1, 96)
    np.testing.assert_allclose(
        model(pixels)["conv_map"].numpy(), plain(pixels / 127.5 - 1).numpy(), atol=1e-4
    )
    assert weights_fingerprint(model) != weights_fingerprint(mobilenet)


@needs_mobilenet
def test_keras_weights_of_another_architecture():
    with pytest.raises(
        ValueError,
        match=r"not the weights of VGG16 \(without its top\): "
        r"missing: block1_conv1/kernel \(3, 3, 3, 64\).*unexpected: Conv1/kernel "
        r".*more$",
    ) as caught:
        build_backbone("vgg16", weights=str(MOBILENET), image_size=32)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".weights.h5", ".keras"])
def test_keras_formats(tmp_path, suffix):
    trunk = keras.applications.VGG16(include_top=False, weights=None, input_shape=(32, 32, 3))
    path = tmp_path / f"trunk{suffix}"
    (trunk.save_weights if suffix == ".weights.h5" else trunk.save)(str(path))
    model = build_backbone("vgg16", weights=str(path), image_size=32)
    assert weights_fingerprint(model) == weights_fingerprint(trunk)
    with pytest.raises(
        ValueError,
        match=r"not the weights of VGG19.*missing: .*conv2d_13/vars/0 "
        r"\(512,\)|missing: .*conv2d_13/vars/0 \(3, 3, 512, 512\)",
    ) as caught:
        build_backbone("vgg19", weights=str(path), image_size=32)
    assert "\n" not in str(caught.value)


def test_mixed_precision_scales_in_float32():
    policy = (
        keras.mixed_precision.global_policy
        if hasattr(keras.mixed_precision, "global_policy")
        else keras.mixed_precision.dtype_policy
    )
    before = policy()
    set_policy = getattr(keras.mixed_precision, "set_global_policy", None) or (
        keras.mixed_precision.set_dtype_policy
    )
    set_policy("mixed_float16")
    try:
        model = build_backbone("resnet34", image_size=32)
    finally:
        set_policy(before)
    assert model.get_layer("pixel_scaling").compute_dtype == "float32"
    outputs = model(random_pixels(1, 32))
    assert outputs["feature"].dtype == tf.float16
    assert np.isfinite(outputs["feature"].numpy()).all()


def test_layers_survive_a_keras_file(tmp_path):
    pixels = keras.Input((8, 8, 3))
    x = PixelScaling()(pixels)
    x = AdaptiveAveragePooling(6)(SeededDropout(0.25, seed=3)(x))
    model = keras.Model(pixels, x)
    model.save(str(tmp_path / "model.keras"))
    again = keras.models.load_model(str(tmp_path / "model.keras"))
    inputs = random_pixels(1, 8)
    np.testing.assert_allclose(again(inputs).numpy(), model(inputs).numpy())
    assert again.layers[2].get_config()["rate"] == 0.25 and again.layers[2].seed == 3


def dropout_mask(layer, shape=(4, 50), training=True):
    return layer(np.ones(shape, np.float32), training=training).numpy()


def test_dropout_masks():
    layer = SeededDropout(0.3, seed=5)
    assert (dropout_mask(layer, training=False) == 1).all()
    first, second = dropout_mask(layer, (100, 100)), dropout_mask(layer, (100, 100))
    assert set(np.unique(first)) == {0, np.float32(1 / 0.7)}
    assert (first == 0).mean() == pytest.approx(0.3, abs=0.02)
    assert (first != second).mean() == pytest.approx(0.42, abs=0.03)  # independent masks
    assert np.array_equal(first, dropout_mask(SeededDropout(0.3, seed=5), (100, 100)))
    assert not np.array_equal(first, dropout_mask(SeededDropout(0.3, seed=6), (100, 100)))
    with pytest.raises(ValueError, match="dropout rate"):
        SeededDropout(1.0)


def test_dropout_resumes_from_a_checkpoint(tmp_path):
    def model():
        inputs = keras.Input((50,))
        return keras.Model(inputs, SeededDropout(0.5, seed=1)(inputs))

    ones = np.ones((4, 50), np.float32)
    whole = model()
    step = tf.function(lambda: whole(ones, training=True))
    step()
    step()
    path = tf.train.Checkpoint(model=whole).save(str(tmp_path / "checkpoint"))
    expected = step().numpy()
    resumed = model()
    tf.train.Checkpoint(model=resumed).restore(path).assert_consumed()
    assert np.array_equal(resumed(ones, training=True).numpy(), expected)
    assert not np.array_equal(model()(ones, training=True).numpy(), expected)


def check_dropout_on_replicas(path):
    """Masks differ from replica to replica and step to step, and a checkpoint has their place."""
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])

    def build():
        with strategy.scope():
            inputs = keras.Input((50,))
            model = keras.Model(inputs, SeededDropout(0.5, seed=1)(inputs))

        @tf.function
        def step():
            masks = strategy.run(lambda: model(tf.ones([4, 50]), training=True))
            return [
                mask.numpy() if hasattr(mask, "numpy") else mask
                for mask in strategy.experimental_local_results(masks)
            ]

        return model, lambda: [np.asarray(mask) for mask in step()]

    model, step = build()
    first, second = step(), step()
    assert not np.array_equal(*first), "replicas share a mask"
    assert not np.array_equal(first[0], second[0]), "steps share a mask"
    path = tf.train.Checkpoint(model=model).save(str(path))
    expected = step()
    resumed, resumed_step = build()
    tf.train.Checkpoint(model=resumed).restore(path).assert_consumed()
    assert all(map(np.array_equal, resumed_step(), expected)), "other masks after restoring"
    print("same masks")
