"""The trainable system: two encoders, two decoders, and the training step that joins them."""

from __future__ import annotations

import keras
import tensorflow as tf

from dsprh_tf.networks import straight_through_sign

DECODER_INPUTS = ("tanh", "sign", "inert")


class CrossModalHashing(keras.Model):
    """Image and text encoders trained to agree on short binary codes.

    A network is a layer whose outputs are a dict with "hash" [batch, bits] and whatever else its
    objective reads. An image network names its inputs in `reads`.

    Codes while training are B = tanh(alpha_e H) with alpha_e = sqrt(1 + epoch), which hardens to
    sign(H) as epochs pass (DSPRH Eq. 6 and 7). Each code is decoded to the other modality's
    feature (the twin bottleneck of Eq. 8), if the objective reads that.

    Batches are dicts. Images come as "pixels" [batch, height, width, 3] in 0..255, which run
    through `backbone`, or, without a backbone pass, as "feature" [batch, D_I] and what else the
    image network reads, such as "conv_map" [batch, h, w, C]. Texts come as "bow" [batch, D_T].
    "target_feature" [batch, D_I] is the untouched backbone's feature for similarity targets;
    with a frozen backbone it may be left out.

    Under `tf.distribute` every term is computed over one replica's part of the batch, and each
    replica's loss is divided by the number of replicas: as the strategy adds gradients up, the
    step uses the mean over replicas of the gradient of the local loss. That is not the gradient
    over the whole batch, since pairs across replicas are not compared.
    Running means of batch normalisation are those of the first replica under Keras 3, and the
    mean over replicas under Keras 2; training does not read them.

    Args:
        image_network: layer from a dict of its inputs to "hash" H_I and "fused" F_I, if any.
        text_network: layer from bag of words to "hash" H_T.
        objective: callable (batch, outputs) -> dict of scalars, its `terms` and "total".
        sizes: dict with "bow" D_T, "feature" D_I and shapes of other inputs ("conv_map").
        backbone: pixels -> dict of inputs, or None for precomputed features.
        image_size: pixels a side that the backbone takes; None without a backbone.
        decoder_input: "tanh" feeds B to the decoders, "sign" its sign with a straight-through
            gradient, "inert" its sign without any: the decoders learn, the encoders do not.
        hardening: False keeps alpha at 1, for objectives that pull codes to +-1 themselves.
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
        hardening=True,
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
        self.image_decoder = self.text_decoder = None
        if objective.needs_decoders:
            self.image_decoder = keras.layers.Dense(sizes["bow"], dtype="float32")
            self.text_decoder = keras.layers.Dense(sizes["feature"], dtype="float32")
        self.objective = objective
        self.sizes = dict(sizes)
        self.image_size = image_size
        self.decoder_input = decoder_input
        self.hardening = hardening
        self.epoch_variable = tf.Variable(
            0.0,
            trainable=False,
            name="epoch",
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        )
        self.trackers = {name: keras.metrics.Mean(name=name) for name in self.terms}
        self.l2_weight = 0.0
        self._build_parts()

    def _build_parts(self):
        shapes = {"feature": (None, self.sizes["feature"])}
        for name in self.image_network.reads:
            if name != "feature" and self.sizes.get(name) is not None:
                shapes[name] = (None, *self.sizes[name])
        self.image_network.build(shapes)
        self.text_network.build((None, self.sizes["bow"]))
        if self.objective.needs_decoders:
            self.image_decoder.build((None, self.bits))
            self.text_decoder.build((None, self.bits))
        self.built = True

    @property
    def parts(self) -> dict:
        """What is trained beside the backbone, by name."""
        names = ("image_network", "text_network", "image_decoder", "text_decoder")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    @property
    def terms(self) -> tuple[str, ...]:
        """Names of the loss's terms, the "total" last."""
        return (*self.objective.terms, "total")

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
        return _variables(self.backbone, self.image_network, self.image_decoder)

    @property
    def text_variables(self) -> list:
        """Trainable variables of the text side: text network and its decoder."""
        return _variables(self.text_network, self.text_decoder)

    @property
    def alpha(self) -> tf.Tensor:
        """alpha_e = sqrt(1 + epoch), or 1 without hardening."""
        return tf.sqrt(1.0 + self.epoch_variable) if self.hardening else tf.constant(1.0)

    def image_inputs(self, batch: dict, training=False) -> dict:
        """What the image network takes: as it is in the batch, or from the backbone."""
        if "pixels" in batch:
            batch = self.backbone(batch["pixels"], training=training)
        return {name: batch[name] for name in self.image_network.reads}

    def encode_image(self, inputs: dict, training=False) -> tf.Tensor:
        """Hash values H_I [batch, bits] of {"pixels"} or of what the image network reads."""
        return self.image_network(self.image_inputs(inputs, training), training=training)["hash"]

    def encode_text(self, bow: tf.Tensor, training=False) -> tf.Tensor:
        """Hash values H_T [batch, bits] of bags of words [batch, D_T]."""
        return self._text(bow, training)["hash"]

    def _text(self, bow, training):
        return self.text_network(tf.cast(bow, tf.float32), training=training)

    def call(self, inputs, training=None):
        """Runs both encoders, and both decoders where the objective reads them.

        Returns:
            A dict: "image_code", "text_code" [batch, bits]; the networks' outputs under
            "image_..." and "text_..." ("image_hash", "image_fused", ...); "feature" [batch, D_I]
            as the image network read it; "text_from_image" [batch, D_T] and "image_from_text"
            [batch, D_I] from the decoders.
        """
        image = self.image_inputs(inputs, training)
        networks = {
            "image": self.image_network(image, training=training),
            "text": self._text(inputs["bow"], training),
        }
        outputs = {f"{side}_{k}": v for side, found in networks.items() for k, v in found.items()}
        for side, found in networks.items():
            outputs[f"{side}_code"] = tf.tanh(self.alpha * found["hash"])
        if "feature" in image:
            outputs["feature"] = tf.cast(image["feature"], tf.float32)
        if self.objective.needs_decoders:
            codes = (self._bottleneck(outputs[f"{side}_code"]) for side in networks)
            decoders = (self.image_decoder, self.text_decoder)
            for name, decoder, code in zip(("text_from_image", "image_from_text"), decoders, codes):
                outputs[name] = decoder(code)
        return outputs

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
        return list(self.trackers.values())

    def _terms(self, batch, training):
        outputs = self(batch, training=training)
        if "target_feature" not in batch and "feature" in outputs:
            batch = {**batch, "target_feature": tf.stop_gradient(outputs["feature"])}
        return self.objective(batch, outputs)

    def _track(self, terms):
        for name, tracker in self.trackers.items():
            tracker.update_state(terms[name])
        return {name: tracker.result() for name, tracker in self.trackers.items()}

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
        gradients = [  # What no term reads has none: a loss may be switched off.
            tf.zeros(v.shape, v.dtype) if g is None else tf.convert_to_tensor(g)
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


def _variables(*parts) -> list:
    return [v for part in parts if part is not None for v in part.trainable_variables]
