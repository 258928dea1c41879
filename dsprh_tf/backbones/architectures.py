"""Backbones: plain pixels -> maps and a feature; AlexNet, ResNet-34, any keras.applications.

AlexNet and ResNet-34 follow torchvision's layout, so that its ImageNet weights fit: symmetric
explicit padding, batch normalisation with epsilon 1e-5. Their layers carry torchvision's names
with "_" for ".".
"""

from __future__ import annotations

import contextlib
import difflib
import warnings
from pathlib import Path

import keras
import tensorflow as tf

from dsprh_tf.backbones.weights import (
    TORCH_FILES,
    TORCH_TOPS,
    initialise,
    load_keras,
    load_torch,
)
from dsprh_tf.layers import AdaptiveAveragePooling, PyramidPooling, SeededDropout

# ImageNet statistics of RGB in 0..1, as torchvision's models expect them.
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
_KERAS_SUFFIXES = (".h5", ".keras")
_MIN_IMAGE_SIZE = 32
STAGES = 3
"""Number of stages of a pyramid."""


@keras.saving.register_keras_serializable("dsprh_tf")
class PixelScaling(keras.layers.Layer):
    """Pixels (RGB, 0..255) scaled as the weights of a backbone expect them.

    Inside the model, so that every caller hands over plain pixels and no export can forget it.
    Computes in float32 also under mixed precision, as 0..255 does not fit float16 finely.

    Args:
        scheme: "torchvision" (ImageNet mean and standard deviation) or the name of a
            `keras.applications` module, whose `preprocess_input` is used.

    Input and output shape: [batch, height, width, 3].
    """

    def __init__(self, scheme: str = "torchvision", dtype="float32", **kwargs):
        super().__init__(dtype=dtype, **kwargs)
        self.scheme = scheme

    def call(self, inputs):
        """Scales the pixels."""
        if self.scheme == "torchvision":
            return (inputs / 255.0 - tf.constant(_IMAGENET_MEAN)) / tf.constant(_IMAGENET_STD)
        return getattr(keras.applications, self.scheme).preprocess_input(inputs)

    def compute_output_shape(self, input_shape):
        """The input shape."""
        return input_shape

    def get_config(self):
        """The arguments."""
        return {**super().get_config(), "scheme": self.scheme}


def _conv(x, name: str, filters: int, size: int, stride: int = 1, pad: int = 0, bias: bool = True):
    """Convolution with PyTorch's symmetric padding."""
    # At stride 1 "same" pads an odd kernel symmetrically by size // 2; beyond, it would not.
    same = stride == 1 and pad == size // 2
    if pad and not same:
        x = keras.layers.ZeroPadding2D(pad, name=f"{name}_pad")(x)
    return keras.layers.Conv2D(
        filters, size, strides=stride, padding="same" if same else "valid", use_bias=bias,
        kernel_initializer="zeros", name=name,
    )(x)  # fmt: skip


def _alexnet(x, dropout: float, seed: int):
    """AlexNet as torchvision has it: no groups, no local response normalisation."""

    def dense(x, name, number):
        if dropout:
            x = SeededDropout(dropout, seed=seed + number, name=f"{name}_dropout")(x)
        return keras.layers.Dense(4096, activation="relu", kernel_initializer="zeros", name=name)(x)

    relu, pool = keras.layers.ReLU, keras.layers.MaxPooling2D
    x = relu(name="relu1")(_conv(x, "features_0", 64, 11, stride=4, pad=2))
    x = pool(3, 2, name="pool1")(x)
    x = relu(name="relu2")(_conv(x, "features_3", 192, 5, pad=2))
    x = pool(3, 2, name="pool2")(x)
    third = relu(name="relu3")(_conv(x, "features_6", 384, 3, pad=1))
    fourth = relu(name="relu4")(_conv(third, "features_8", 256, 3, pad=1))
    conv_map = relu(name="relu5")(_conv(fourth, "features_10", 256, 3, pad=1))  # 13x13 at 224
    if min(conv_map.shape[1:3]) < 3:
        raise ValueError(
            f"got a conv map of {conv_map.shape[1]}x{conv_map.shape[2]}, too small for AlexNet's "
            "last pooling: use image_size >= 63"
        )
    x = pool(3, 2, name="pool5")(conv_map)
    if tuple(x.shape[1:3]) != (6, 6):
        x = AdaptiveAveragePooling(6, name="avgpool")(x)
    x = keras.layers.Flatten(name="flatten")(x)  # [batch, 9216], HWC order
    x = dense(x, "classifier_1", 0)
    return [third, fourth, conv_map], dense(x, "classifier_4", 1)


def _resnet34(x):
    """ResNet-34 as torchvision has it."""

    def norm(x, name):
        return keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name)(x)

    def block(x, name, filters, stride):
        y = norm(_conv(x, f"{name}_conv1", filters, 3, stride, 1, bias=False), f"{name}_bn1")
        y = keras.layers.ReLU(name=f"{name}_relu1")(y)
        y = norm(_conv(y, f"{name}_conv2", filters, 3, 1, 1, bias=False), f"{name}_bn2")
        if stride != 1:
            x = _conv(x, f"{name}_downsample_0", filters, 1, stride, bias=False)
            x = norm(x, f"{name}_downsample_1")
        return keras.layers.ReLU(name=f"{name}_relu2")(keras.layers.Add(name=f"{name}_add")([x, y]))

    x = norm(_conv(x, "conv1", 64, 7, stride=2, pad=3, bias=False), "bn1")
    x = keras.layers.ReLU(name="relu")(x)
    # PyTorch pads with -inf; after ReLU 0 does the same.
    x = keras.layers.ZeroPadding2D(1, name="maxpool_pad")(x)
    x = keras.layers.MaxPooling2D(3, 2, name="maxpool")(x)
    stages = []
    for stage, (filters, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), start=1):
        for i in range(blocks):
            x = block(x, f"layer{stage}_{i}", filters, 2 if stage > 1 and i == 0 else 1)
        stages.append(x)
    return stages[-STAGES:], keras.layers.GlobalAveragePooling2D(name="avgpool")(x)


@contextlib.contextmanager
def _no_size_warnings():
    """Silences the remark of some applications that their weights were trained at 224."""
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel("ERROR")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*input_shape.*")
            yield
    finally:
        logger.setLevel(level)


def _find_application(name: str) -> tuple[str, str]:
    """Class name and module name of a keras.applications model, in any spelling."""

    modules = [m for m in dir(keras.applications) if m[0].islower()]
    classes = {_plain(c): c for c in dir(keras.applications) if c[0].isupper()}
    wanted = classes.get(_plain(name))
    for module in modules:
        if wanted and hasattr(getattr(keras.applications, module), wanted):
            return wanted, module
    near = difflib.get_close_matches(_plain(name), ["alexnet", "resnet34", *classes], 3, 0.5)
    hint = f"; near: {', '.join(classes.get(n, n) for n in near)}" if near else ""
    raise ValueError(
        f"got the backbone {name!r}, expected alexnet, resnet34 or a model of keras.applications "
        f"such as mobilenet_v2{hint}"
    )


def _application(x, name: str, weights: str, image_size: int, seed: int):
    """A keras.applications model on scaled pixels: its last stages, and its feature."""
    class_name, module = _find_application(name)
    try:
        with _no_size_warnings():
            trunk = getattr(keras.applications, class_name)(
                include_top=False,
                weights="imagenet" if weights == "imagenet" else None,
                input_shape=(image_size, image_size, 3),
            )
    except Exception as error:  # a size too small; no network
        reason = " ".join(str(error).split())
        raise ValueError(f"cannot build {class_name} with weights={weights!r}: {reason}") from error
    if weights == "none":
        initialise(trunk, seed)
    elif weights != "imagenet":
        load_keras(trunk, class_name, Path(weights))
    x = PixelScaling(module, name="pixel_scaling")(x)
    stages = _last_stages(trunk)
    *stages, pooled = keras.Model(trunk.input, [*stages, trunk.output], name=trunk.name)(x)
    return stages, keras.layers.GlobalAveragePooling2D(name="avgpool")(pooled)


def _last_stages(trunk) -> list:
    """The last map of each of the last resolutions; a final pooling (VGG) is no stage."""
    layers = [layer for layer in trunk.layers if not isinstance(layer, keras.layers.ZeroPadding2D)]
    if isinstance(layers[-1], keras.layers.MaxPooling2D):
        layers.pop()
    last = {}
    for layer in layers:
        shape = layer.output.shape
        if len(shape) == 4 and tuple(shape) != tuple(trunk.input.shape):
            last[tuple(shape[1:3])] = layer.output
    smallest = layers[-1].output.shape[1]
    sizes = sorted((size for size in last if size[0] >= smallest), reverse=True)
    return [last[size] for size in sizes[-STAGES:]]


def hold_statistics(backbone) -> None:
    """Batch normalisations of a pretrained backbone keep their statistics, scale and offset.

    For fine-tuning: batches are small, and moving averages that follow slowly (momentum .999 in
    MobileNetV2) would no longer be those of the trained weights, so that a model which fits its
    training pairs encodes everything wrongly.

    Args:
        backbone: of `build_backbone`, after its own `trainable` was set.
    """
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
        elif isinstance(layer, keras.Model):
            hold_statistics(layer)


def check_backbone(name: str, weights: str, image_size: int, dropout: float) -> None:
    """Refuses arguments of `build_backbone` that cannot work, before anything is built.

    Args:
        name: As in `build_backbone`.
        weights: As in `build_backbone`; a file must exist, its content is not looked at.
        image_size: As in `build_backbone`.
        dropout: As in `build_backbone`.

    Raises:
        ValueError: An unknown name or kind of weights, a missing file (the line says where to get
            it), a bad size or dropout.
    """
    plain = _plain(name)
    own = plain in TORCH_TOPS
    if not own:
        _find_application(name)
    if not isinstance(image_size, int) or image_size < _MIN_IMAGE_SIZE:
        raise ValueError(f"got image_size={image_size!r}, expected an integer >= {_MIN_IMAGE_SIZE}")
    if dropout and plain != "alexnet":
        raise ValueError(
            f"got dropout={dropout} for {name}: only alexnet has dropout, leave it out or use 0"
        )
    if weights == "imagenet" and own:
        raise ValueError(
            f"got weights='imagenet' for {plain}: {_converted(plain)} and give the path of the "
            "result"
        )
    if weights not in ("none", "imagenet"):
        suffixes = (".safetensors", ".npz") if own else _KERAS_SUFFIXES
        if Path(weights).suffix not in suffixes:
            fix = "; convert it with `dsprh convert_weights`" if own else ""
            raise ValueError(
                f"{weights}: got these weights for {name}, expected none, imagenet or a "
                f"{' or '.join(suffixes)} file{fix}"
            )
        if not Path(weights).is_file():
            fix = _converted(plain, weights) if own else "imagenet downloads it"
            raise ValueError(f"{weights}: no such weight file for {name}; {fix}")


def _plain(name: str) -> str:
    """A name without the marks by which spellings differ."""
    return name.lower().replace("_", "").replace("-", "")


def own_dropout(name: str, weights: str) -> float:
    """The dropout that a backbone's weights were trained with and are fine-tuned with.

    Args:
        name: As in `build_backbone`.
        weights: As in `build_backbone`.

    Returns:
        .5 for AlexNet with weights, else 0.
    """
    return 0.5 if _plain(name) == "alexnet" and weights != "none" else 0.0


def _converted(name: str, output: str = "FILE.safetensors") -> str:
    """How to get the weights of AlexNet or ResNet-34."""
    return (
        f"fetch https://download.pytorch.org/models/{TORCH_FILES[name]} and convert it with "
        f"`dsprh convert_weights --input={TORCH_FILES[name]} --output={output}` "
        "(scripts/convert_weights.py)"
    )


def build_backbone(
    name: str,
    weights: str = "none",
    image_size: int = 224,
    dropout: float = 0.0,
    seed: int = 0,
    pyramid: bool = False,
) -> keras.Model:
    """A backbone: pixels to a conv map and a feature (f3 of the paper).

    | backbone | conv map | feature |
    |---|---|---|
    | alexnet | conv5 after ReLU, before pool5: 13x13x256 at 224 | fc7 after ReLU: 4096 |
    | resnet34 | the last map: 7x7x512 at 224 | its global average: 512 |
    | keras.applications | the last map without a final pooling | global average of the output |

    With `pyramid` also the last three stages, each averaged over 1, 2 x 2 and 4 x 4 regions: after
    conv3, conv4 and conv5 of alexnet, layer2 to layer4 of resnet34, and the last map of each of
    the last three resolutions of the others.

    Args:
        name: "alexnet", "resnet34", or a keras.applications model ("MobileNetV2",
            "mobilenet_v2", ...).
        weights: "none" (He-normal from the seed), "imagenet" (keras.applications only,
            downloads), or a file: `.safetensors` or `.npz` with torchvision's state_dict for
            alexnet and resnet34, `.h5`, `.weights.h5` or `.keras` for keras.applications.
        image_size: Height and width of the images in pixels.
        dropout: Rate before fc6 and fc7 of AlexNet while training (torchvision's: 0.5).
        seed: Seed of the random weights and of the dropout masks.
        pyramid: Whether "stage_1" to "stage_3" are wanted.

    Returns:
        Functional model: `pixels`, float32 [batch, image_size, image_size, 3], RGB in 0..255
        -> {"conv_map": [batch, h, w, C], "feature": [batch, D]}, and with `pyramid`
        "stage_1" to "stage_3" [batch, 21, channels], the deepest last.

    Raises:
        ValueError: An unknown name, a size too small, weights that are missing, damaged or of
            another architecture (names and shapes listed), dropout for another backbone.

    Example:
        >>> backbone = build_backbone("mobilenet_v2", image_size=96)
        >>> backbone(np.zeros((2, 96, 96, 3), np.float32))["conv_map"].shape
        TensorShape([2, 3, 3, 1280])
    """
    weights = str(weights)
    check_backbone(name, weights, image_size, dropout)
    plain = _plain(name)
    own = plain in TORCH_TOPS
    pixels = keras.Input((image_size, image_size, 3), name="pixels", dtype="float32")
    if own:
        x = PixelScaling("torchvision", name="pixel_scaling")(pixels)
        stages, feature = _alexnet(x, dropout, seed) if plain == "alexnet" else _resnet34(x)
    else:
        stages, feature = _application(pixels, name, weights, image_size, seed)
    outputs = {"conv_map": stages[-1], "feature": feature}
    model = keras.Model(pixels, outputs, name=plain)
    if own and weights == "none":
        initialise(model, seed)
    elif own:
        load_torch(model, plain, Path(weights))
    if not pyramid:
        return model
    if len(stages) < STAGES:
        raise ValueError(f"{name} at {image_size} pixels has {len(stages)} stages, expected 3")
    pooling = PyramidPooling(name="pyramid")
    for number, stage in enumerate(stages, start=1):
        outputs[f"stage_{number}"] = pooling(stage)
    return keras.Model(pixels, outputs, name=plain)
