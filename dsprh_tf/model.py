"""The trainable system: two encoders, two decoders, and the training step that joins them."""

from __future__ import annotations

import keras
import tensorflow as tf

from dsprh_tf.networks import straight_through_sign

TERMS = ("L_F", "L_R", "L_W", "L_2", "L_3", "total")
DECODER_INPUTS = ("tanh", "sign", "inert")


class CrossModalHashing(keras.Model):
    """Image and text encoders trained to agree on short binary codes.

    Codes while training are B = tanh(alpha_e H) with alpha_e = sqrt(1 + epoch), which hardens to
    sign(H) as epochs pass (DSPRH Eq. 6 and 7). Each code is decoded to the other modality's
    feature (the twin bottleneck of Eq. 8).

    Batches are dicts. Images come as "pixels" [batch, height, width, 3] in 0..255, which run
    through `backbone`, or, without a backbone pass, as "feature" [batch, D_I] and, where the
    image network needs it, "conv_map" [batch, h, w, C]. Texts come as "bow" [batch, D_T].
    "target_feature" [batch, D_I] is the untouched backbone's feature for similarity targets;
    with a frozen backbone it may be left out.

    Under `tf.distribute` every term is computed over one replica's part of the batch, and each
    replica's loss is divided by the number of replicas: as the strategy adds gradients up, the
    step uses the mean over replicas of the gradient of the local loss. That is not the gradient
    over the whole batch, since pairs across replicas are not compared.
    Running means of batch normalisation are those of the first replica under Keras 3, and the
    mean over replicas under Keras 2; training does not read them.

    Args:
        image_network: layer from {"feature", "conv_map"} to (F_I, H_I).
        text_network: layer from bag of words to H_T.
        objective: callable (batch, outputs) -> dict of scalar terms with "total".
        sizes: dict with "bow" D_T, "feature" D_I and, if needed, "conv_map" (h, w, C).
        backbone: pixels -> {"conv_map", "feature"}, or None for precomputed features.
        image_size: pixels a side that the backbone takes; None without a backbone.
        decoder_input: "tanh" feeds B to the decoders, "sign" its sign with a straight-through
            gradient, "inert" its sign without any: the decoders learn, the encoders do not.
    """

    def __init__(
        self,
        image_network,
        text_network,
        objective,
        sizes,
        backbone=None,
        image_size=None,
        decoder_input="tanh",
        **kwargs,
    ):
        super().__init__(**kwargs)
        if decoder_input not in DECODER_INPUTS:
            raise ValueError(
                f"decoder_input is {decoder_input!r}, expected one of {', '.join(DECODER_INPUTS)}"
            )
        self.backbone = backbone
        self.image_network = image_network
        self.text_network = text_network
        self.image_decoder = keras.layers.Dense(sizes["bow"], dtype="float32")
        self.text_decoder = keras.layers.Dense(sizes["feature"], dtype="float32")
        self.objective = objective
        self.sizes = dict(sizes)
        self.image_size = image_size
        self.decoder_input = decoder_input
        self.epoch_variable = tf.Variable(
            0.0,
            trainable=False,
            name="epoch",
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        )
        self.trackers = {name: keras.metrics.Mean(name=name) for name in TERMS}
        self.l2_weight = 0.0
        self._build_parts()

    def _build_parts(self):
        shapes = {"feature": (None, self.sizes["feature"])}
        if self.sizes.get("conv_map") is not None:
            shapes["conv_map"] = (None, *self.sizes["conv_map"])
        self.image_network.build(shapes)
        self.text_network.build((None, self.sizes["bow"]))
        self.image_decoder.build((None, self.bits))
        self.text_decoder.build((None, self.bits))
        self.built = True

    @property
    def bits(self) -> int:
        """Length of the codes."""
        return self.image_network.bits

    @property
    def text_size(self) -> int:
        """Size D_T of the bag of words."""
        return self.sizes["bow"]

    @property
    def feature_size(self) -> int:
        """Size D_I of the backbone's feature."""
        return self.sizes["feature"]

    @property
    def image_variables(self) -> list:
        """Trainable variables of the image side: backbone, image network, its decoder."""
        parts = [self.backbone] if self.backbone is not None else []
        parts += [self.image_network, self.image_decoder]
        return [v for part in parts for v in part.trainable_variables]

    @property
    def text_variables(self) -> list:
        """Trainable variables of the text side: text network and its decoder."""
        parts = (self.text_network, self.text_decoder)
        return [v for part in parts for v in part.trainable_variables]

    @property
    def alpha(self) -> tf.Tensor:
        """alpha_e = sqrt(1 + epoch)."""
        return tf.sqrt(1.0 + self.epoch_variable)

    def image_inputs(self, batch: dict, training=False) -> dict:
        """What the image network takes: as it is in the batch, or from the backbone."""
        if "pixels" in batch:
            batch = self.backbone(batch["pixels"], training=training)
        names = ("conv_map", "feature") if self.image_network.needs_map else ("feature",)
        return {name: batch[name] for name in names}

    def encode_image(self, inputs: dict, training=False) -> tf.Tensor:
        """Hash values H_I [batch, bits] of {"pixels"} or {"feature", "conv_map"}."""
        _, hashed = self.image_network(self.image_inputs(inputs, training), training=training)
        return hashed

    def encode_text(self, bow: tf.Tensor, training=False) -> tf.Tensor:
        """Hash values H_T [batch, bits] of bags of words [batch, D_T]."""
        del training  # No layer of the text network behaves differently while training.
        return self.text_network(tf.cast(bow, tf.float32))

    def call(self, inputs, training=None):
        """Runs both encoders and both decoders.

        Returns:
            A dict: "fused" F_I, "image_hash", "text_hash", "image_code", "text_code"
            [batch, bits], "text_from_image" [batch, D_T], "image_from_text" [batch, D_I].
        """
        image = self.image_inputs(inputs, training)
        fused, image_hash = self.image_network(image, training=training)
        text_hash = self.encode_text(inputs["bow"])
        image_code = tf.tanh(self.alpha * image_hash)
        text_code = tf.tanh(self.alpha * text_hash)
        return {
            "feature": tf.cast(image["feature"], tf.float32),
            "fused": fused,
            "image_hash": image_hash,
            "text_hash": text_hash,
            "image_code": image_code,
            "text_code": text_code,
            "text_from_image": self.image_decoder(self._bottleneck(image_code)),
            "image_from_text": self.text_decoder(self._bottleneck(text_code)),
        }

    def _bottleneck(self, code):
        """What the decoders read."""
        if self.decoder_input == "tanh":
            return code
        signs = straight_through_sign(code)
        return tf.stop_gradient(signs) if self.decoder_input == "inert" else signs

    def compile(self, image_optimizer, text_optimizer, l2_weight=0.0, **kwargs):
        """Sets one optimizer a modality.

        Args:
            image_optimizer: for the backbone, image network and its decoder.
            text_optimizer: for the text network and its decoder.
            l2_weight: added to each gradient times its variable (weight decay as SGD in the
                parents' recipes has it; AdamW and LAMB decay by themselves).
            **kwargs: of `keras.Model.compile`.
        """
        super().compile(optimizer=image_optimizer, jit_compile=False, **kwargs)
        self.text_optimizer = text_optimizer
        self.l2_weight = l2_weight

    @property
    def metrics(self):
        """One running mean a term; Keras resets them each epoch."""
        return [self.trackers[name] for name in TERMS]

    def _terms(self, batch, training):
        outputs = self(batch, training=training)
        if "target_feature" not in batch:
            batch = {**batch, "target_feature": tf.stop_gradient(outputs["feature"])}
        return self.objective(batch, outputs)

    def _track(self, terms):
        for name in TERMS:
            self.trackers[name].update_state(terms.get(name, 0.0))
        return {name: self.trackers[name].result() for name in TERMS}

    def local_gradients(self, batch) -> tuple:
        """Gradients of one replica's loss divided by the number of replicas.

        Returns:
            (terms, image gradients, text gradients), in the order of `image_variables` and
            `text_variables`.
        """
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        with tf.GradientTape() as tape:
            terms = self._terms(batch, training=True)
            loss = terms["total"] / replicas
        image, text = self.image_variables, self.text_variables
        gradients = [  # A decoder that no term reads has none.
            tf.zeros(v.shape, v.dtype) if g is None else g
            for g, v in zip(tape.gradient(loss, image + text), image + text)
        ]
        gradients = [
            g + self.l2_weight / replicas * v for g, v in zip(gradients, image + text)
        ] if self.l2_weight else gradients
        return terms, gradients[: len(image)], gradients[len(image) :]

    def train_step(self, data):
        """One step of both optimizers on a batch; returns the terms' running means."""
        terms, image_gradients, text_gradients = self.local_gradients(data)
        self.optimizer.apply_gradients(zip(image_gradients, self.image_variables))
        self.text_optimizer.apply_gradients(zip(text_gradients, self.text_variables))
        return self._track(terms)

    def test_step(self, data):
        """The terms of a batch without a step; returns their running means."""
        return self._track(self._terms(data, training=False))
