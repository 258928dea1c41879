"""Image and text networks: from backbone outputs and bags of words to hash values."""

from __future__ import annotations

import keras
import tensorflow as tf

from dsprh_tf.layers import CovariancePooling, FeatureFusion, StripPooling

_PACKAGE = "dsprh_tf"


def torch_uniform():
    """U(-1/sqrt(fan_in), 1/sqrt(fan_in)), PyTorch's default for kernels of linear layers.

    The released code of DJSRH and DSAH starts from it. For layers with more inputs than outputs,
    such as hash layers, it is narrower than Keras' Glorot uniform, so that tanh saturates less at
    first.
    """
    return keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")


def relu_dense(size: int, policy) -> keras.layers.Dense:
    """A dense layer with ReLU, initialised to keep the mean square of its input."""
    return keras.layers.Dense(
        size, activation="relu", kernel_initializer="he_uniform", dtype=policy
    )


@keras.saving.register_keras_serializable(package=_PACKAGE)
class ImageNetwork(keras.layers.Layer):
    """Fused image feature F_I and image hash value H_I (DSPRH sections 3.2 and 3.3).

        f1 = relu(Dense(iSQRT-COV(StripPooling(X)))),  f2 = relu(Dense(iSQRT-COV(X)))
        F_I = w1 l2(f1) + w2 l2(f2) + w3 l2(f3),  H_I = Dense(sqrt(D_I) F_I)

    The factor sqrt(D_I) gives the entries of F_I the size of those of a backbone's feature, for
    which the learning rates were chosen; without it the hash layer learns too slowly (RESULTS.md,
    "Tried once"). A branch of weight 0 is not built: (0, 0, 1) is a hash layer on the backbone's
    feature alone, as in DJSRH and DSAH, and for precomputed embeddings.

    Args:
        bits: length K of the hash value.
        fusion_weights: (w1, w2, w3).
        cov_channels: channels kept before the covariance; None keeps all.
        covariance: False replaces iSQRT-COV by global average pooling (an ablation).
        normalize: False passes f3 to the hash layer as it is; only with weights (0, 0, w3).

    Inputs: a dict with "feature" f3 [batch, D_I] and, where w1 or w2 is not 0, "conv_map" X
    [batch, height, width, channels].
    Outputs: a dict with "fused" F_I [batch, D_I] and "hash" H_I [batch, bits], both float32.
    """

    def __init__(
        self,
        bits,
        fusion_weights=(0.25, 0.25, 0.5),
        cov_channels=128,
        covariance=True,
        normalize=True,
        **kwargs,
    ):
        super().__init__(**kwargs)
        weights = tuple(float(w) for w in fusion_weights)
        if len(weights) != 3 or not all(w >= 0 for w in weights) or not any(weights):
            raise ValueError(
                f"fusion_weights is {weights}, expected three non-negative numbers, not all zero"
            )
        if not normalize and any(weights[:2]):
            raise ValueError(
                f"normalize=False needs fusion weights (0, 0, w3), received {weights}: features of "
                "different scales cannot be added"
            )
        self.bits = bits
        self.fusion_weights = weights
        self.cov_channels = cov_channels
        self.covariance = covariance
        self.normalize = normalize

    @property
    def reads(self) -> tuple[str, ...]:
        """Names of the inputs: the feature, and the convolution map if a branch needs it."""
        return ("feature", "conv_map") if any(self.fusion_weights[:2]) else ("feature",)

    def build(self, input_shape):
        """Creates the branches; `input_shape` is a dict of the inputs' shapes."""
        size = input_shape["feature"][-1]
        policy = self.dtype_policy
        self.branches = []
        if "conv_map" in self.reads and input_shape.get("conv_map") is None:
            raise ValueError(
                "the inputs have no conv_map, which fusion weights "
                f"{self.fusion_weights} need: set them to 0,0,1 for precomputed features"
            )
        for weight, name in zip(self.fusion_weights[:2], ("strip", "plain")):
            if not weight:
                continue
            shape = tuple(input_shape["conv_map"])
            layers = {}
            if name == "strip":
                layers["attention"] = StripPooling(dtype=policy)
            if self.covariance:
                layers["pooling"] = CovariancePooling(self.cov_channels, dtype=policy)
            else:
                layers["pooling"] = keras.layers.GlobalAveragePooling2D(dtype=policy)
            layers["dense"] = keras.layers.Dense(size, activation="relu", dtype=policy)
            for role, layer in layers.items():
                layer.build(shape)
                shape = tuple(layer.compute_output_shape(shape))
                # As attributes: Keras 3 hides layers in lists from tf.train.Checkpoint.
                setattr(self, f"{name}_{role}", layer)
            self.branches.append(list(layers.values()))
        self._scale = size**0.5 if self.normalize else 1.0
        self.fusion = FeatureFusion([w for w in self.fusion_weights if w], dtype=policy)
        self.hash_layer = keras.layers.Dense(
            self.bits, kernel_initializer=torch_uniform(), dtype=policy
        )
        self.hash_layer.build((None, size))
        super().build(input_shape)

    def call(self, inputs, training=None):
        """Fuses the features and projects them to `bits` values."""
        features = []
        for layers in self.branches:
            x = tf.cast(inputs["conv_map"], self.compute_dtype)
            for layer in layers:
                takes_training = isinstance(layer, (StripPooling, CovariancePooling))
                x = layer(x, training=training) if takes_training else layer(x)
            features.append(x)
        if self.fusion_weights[2]:
            features.append(tf.cast(inputs["feature"], self.compute_dtype))
        fused = self.fusion(features) if self.normalize else features[0]
        hashed = self.hash_layer(fused * self._scale)
        return {"fused": tf.cast(fused, tf.float32), "hash": tf.cast(hashed, tf.float32)}

    def compute_output_shape(self, input_shape):
        """Shapes of the outputs."""
        batch, size = input_shape["feature"]
        return {"fused": (batch, size), "hash": (batch, self.bits)}

    def get_config(self):
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "bits": self.bits,
            "fusion_weights": self.fusion_weights,
            "cov_channels": self.cov_channels,
            "covariance": self.covariance,
            "normalize": self.normalize,
        }


@keras.saving.register_keras_serializable(package=_PACKAGE)
class TextNetwork(keras.layers.Layer):
    """Text hash value H_T = Dense(K)(relu(Dense(hidden)(F_T))) from a bag of words F_T.

    Args:
        bits: length K of the hash value.
        hidden: size of the hidden layer (4096 in DJSRH, DSAH and DSPRH).

    Input shape: [batch, D_T]. Output: a dict with "hash" H_T [batch, bits], float32.
    """

    def __init__(self, bits, hidden=4096, **kwargs):
        super().__init__(**kwargs)
        self.bits = bits
        self.hidden = hidden

    def build(self, input_shape):
        """Creates the two dense layers."""
        self.hidden_layer = keras.layers.Dense(
            self.hidden,
            activation="relu",
            kernel_initializer=torch_uniform(),
            dtype=self.dtype_policy,
        )
        self.hash_layer = keras.layers.Dense(
            self.bits, kernel_initializer=torch_uniform(), dtype=self.dtype_policy
        )
        self.hidden_layer.build(input_shape)
        self.hash_layer.build((input_shape[0], self.hidden))
        super().build(input_shape)

    def call(self, inputs, training=None):
        """Projects bags of words to `bits` values."""
        del training  # no layer behaves differently while training
        return {"hash": tf.cast(self.hash_layer(self.hidden_layer(inputs)), tf.float32)}

    def compute_output_shape(self, input_shape):
        """Shape of the output."""
        return {"hash": (input_shape[0], self.bits)}

    def get_config(self):
        """The constructor's arguments."""
        return {**super().get_config(), "bits": self.bits, "hidden": self.hidden}


def plain_networks(bits: int, text_hidden: int) -> tuple[ImageNetwork, TextNetwork]:
    """The networks of DJSRH and DSAH: a hash layer on the backbone's feature as it is.

    Args:
        bits: length K of the hash values.
        text_hidden: size of the text network's hidden layer.
    """
    image = ImageNetwork(bits, fusion_weights=(0.0, 0.0, 1.0), normalize=False)
    return image, TextNetwork(bits, hidden=text_hidden)


def fused_image_network(
    bits: int, sizes: dict, fusion_weights, cov_channels: int, covariance: bool
) -> ImageNetwork:
    """DSPRH's image network; without a convolution map it reads the backbone's feature alone.

    Args:
        bits: length K of the hash value.
        sizes: {"conv_map": (height, width, channels) or None}.
        fusion_weights: (w1, w2, w3); replaced by (0, 0, 1) without a map.
        cov_channels: channels kept before the covariance; 0 keeps all.
        covariance: see `ImageNetwork`.
    """
    if sizes.get("conv_map") is None:
        fusion_weights = (0.0, 0.0, 1.0)
    return ImageNetwork(bits, fusion_weights, cov_channels or None, covariance)


@tf.custom_gradient
def straight_through_sign(x: tf.Tensor):
    """sign(x) with sign(0) = +1, whose gradient is passed on unchanged (Bengio et al., 2013)."""
    return tf.where(x >= 0, tf.ones_like(x), -tf.ones_like(x)), lambda upstream: upstream
