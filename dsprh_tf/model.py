"""The trainable system: two encoders, two decoders, and the training step that joins them."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import tensorflow as tf

from dsprh_tf import compat
from dsprh_tf.networks import straight_through_sign

DECODER_INPUTS = ("tanh", "sign", "inert")
_STEPS_PER_NORM = 16


@keras.saving.register_keras_serializable(package="dsprh_tf")
class CrossModalHashing(keras.Model):
    """Image and text encoders trained to agree on short binary codes.

    Codes while training are B = tanh(alpha_e H) with alpha_e = sqrt(1 + epoch), which hardens to
    sign(H) as epochs pass, as in DJSRH (ICCV 2019); DSPRH writes B = Cod(H) (Eq. 3 and 6) and
    leaves Cod open. `fit` keeps count of the epochs by itself. Each code is decoded (DSPRH Eq. 4
    and 7) to the other modality's feature, the target of Eq. 8, if the method decodes.

    Batches are dicts. Images come as "pixels" [batch, height, width, 3] in 0..255, which run
    through `backbone`, or, without a backbone pass, as "feature" [batch, D_I] and what else the
    image network reads, such as "conv_map" [batch, h, w, C]. Texts come as "bow" [batch, D_T].
    "target_feature" [batch, D_I] is the untouched backbone's feature for similarity targets;
    with a frozen backbone it may be left out. "target_bow" [batch, D_T], where there is one, takes
    the place of "bow" in the loss: all texts of a pair, of which "bow" has one. What
    `Method.prepare` returns comes under its names.

    Under `tf.distribute` every term is computed over one replica's part of the batch, and each
    replica's loss is divided by the number of replicas: as the strategy adds gradients up, the
    step uses the mean over replicas of the gradient of the local loss. That is not the gradient
    over the whole batch, since pairs across replicas are not compared.
    Running means of batch normalisation are those of the first replica under Keras 3, and the
    mean over replicas under Keras 2; training does not read them.

    To load a saved model import `dsprh_tf.methods` first, or the module of the method.

    Args:
        method: a `Method`, which brings the networks and the loss.
        sizes: dict with "bow" D_T, "feature" D_I and shapes of other inputs ("conv_map").
        backbone: pixels -> dict of inputs, or None for precomputed features.
        image_size: pixels per side that the backbone takes; None without a backbone.

    Raises:
        ValueError: sizes are missing.

    Example:
        model = CrossModalHashing(DSPRHPlus(bits=64), {"bow": 1000, "feature": 512})
        model.compile("adam")
    """

    def __init__(self, method, sizes, backbone=None, image_size=None, **kwargs):
        super().__init__(**kwargs)
        missing = [name for name in ("bow", "feature") if not sizes.get(name)]
        if missing:
            raise ValueError(
                f"sizes has no {' and no '.join(missing)}, expected {{'bow': size of the text "
                "feature, 'feature': size of the image feature}, and the shapes of the other inputs"
            )
        self.method = method
        self.sizes = dict(sizes)
        self.backbone = backbone
        self.image_size = image_size
        self.image_network, self.text_network = method.networks(self.sizes)
        self.image_decoder = self.text_decoder = None
        if method.decoder_input is not None:
            if method.decoder_input not in DECODER_INPUTS:
                raise ValueError(
                    f"decoder_input is {method.decoder_input!r}, expected one of "
                    f"{', '.join(DECODER_INPUTS)}"
                )
            self.image_decoder, self.text_decoder = (
                keras.layers.Dense(sizes[size], dtype="float32", name=f"{side}_decoder")
                for side, size in (("image", "bow"), ("text", "feature"))
            )
        self.epoch_variable = self._counter(0.0, "epoch")
        self.step_variable = self._counter(tf.constant(0, tf.int64), "step")
        self.not_finite_variable = self._counter(-tf.ones(len(self.terms), tf.int64), "not_finite")
        self.norms_variable = self._counter(tf.zeros(2), "gradient_norms")
        self.trackers = {name: keras.metrics.Mean(name=name) for name in self.terms}
        self.text_optimizer = None
        self.l2_weight = 0.0
        self._build_parts()

    @staticmethod
    def _counter(value, name):
        return tf.Variable(
            value, False, name=name, aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA
        )

    def _build_parts(self):
        shapes = {"feature": (None, self.sizes["feature"])}
        for name in self.image_network.reads:
            if name == "feature":
                continue
            if self.sizes.get(name) is None:
                raise ValueError(
                    f"sizes has no {name!r}, which the image network of {self.method.name} reads: "
                    "give its shape, or settings that do without it"
                )
            shapes[name] = (None, *self.sizes[name])
        self.image_network.build(shapes)
        self.text_network.build((None, self.sizes["bow"]))
        if self.image_decoder is not None:
            self.image_decoder.build((None, self.bits))
            self.text_decoder.build((None, self.bits))
        self.built = True

    def get_config(self):
        """The constructor's arguments, backbone and method included."""
        serialize = keras.saving.serialize_keras_object
        return {
            "name": self.name,
            "method": serialize(self.method),
            "sizes": self.sizes,
            "backbone": None if self.backbone is None else serialize(self.backbone),
            "image_size": self.image_size,
        }

    @classmethod
    def from_config(cls, config):
        """The model of a `get_config`, with new weights."""
        deserialize = keras.saving.deserialize_keras_object
        parts = {
            name: deserialize(config[name])
            for name in ("method", "backbone")
            if isinstance(config[name], dict)
        }
        sizes = {
            name: tuple(size) if isinstance(size, (list, tuple)) else size
            for name, size in config["sizes"].items()
        }
        return cls(**{**config, **parts, "sizes": sizes})

    @property
    def parts(self) -> dict:
        """The trained layers other than the backbone, by name."""
        names = ("image_network", "text_network", "image_decoder", "text_decoder")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    @property
    def terms(self) -> tuple[str, ...]:
        """Names under which `fit` reports the loss's terms, "loss" for their total last."""
        return (*self.method.terms, "loss")

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
        return tf.sqrt(1.0 + self.epoch_variable) if self.method.hardening else tf.constant(1.0)

    def image_inputs(self, batch: dict, training=False) -> dict:
        """Inputs of the image network, from the batch or from the backbone."""
        reads = self.image_network.reads
        if not isinstance(batch, Mapping):
            raise ValueError(
                f"image inputs are a {type(batch).__name__}, expected a dict with "
                f"{'pixels, or with ' if self.backbone is not None else ''}{', '.join(reads)}"
            )
        if "pixels" in batch:
            if self.backbone is None:
                raise ValueError(
                    "the batch has pixels, and the model has no backbone: give features"
                )
            batch = self.backbone(batch["pixels"], training=training)
        missing = [name for name in reads if name not in batch]
        if missing:
            raise ValueError(
                f"the batch has {', '.join(batch) or 'nothing'}, expected also {', '.join(missing)}"
                + ("" if self.backbone is None else ", or pixels")
            )
        return {name: batch[name] for name in reads}

    def encode_image(self, inputs: dict, training=False) -> tf.Tensor:
        """Hash values H_I [batch, bits] of {"pixels"} or of what the image network reads."""
        return self.image_network(self.image_inputs(inputs, training), training=training)["hash"]

    def encode_text(self, bow: tf.Tensor, training=False) -> tf.Tensor:
        """Hash values H_T [batch, bits] of bags of words [batch, D_T]."""
        return self._text(bow, training)["hash"]

    def _text(self, bow, training):
        return self.text_network(tf.cast(bow, tf.float32), training=training)

    def call(self, inputs, training=None):
        """Runs both encoders, and both decoders where the method has them.

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
        if self.image_decoder is not None:
            codes = (self._bottleneck(outputs[f"{side}_code"]) for side in networks)
            decoders = (self.image_decoder, self.text_decoder)
            for name, decoder, code in zip(("text_from_image", "image_from_text"), decoders, codes):
                outputs[name] = decoder(code)
        return outputs

    def _bottleneck(self, code):
        """The decoders' input: the code, or its signs."""
        if self.method.decoder_input == "tanh":
            return code
        signs = straight_through_sign(code)
        return tf.stop_gradient(signs) if self.method.decoder_input == "inert" else signs

    def compile(self, optimizer="adam", text_optimizer=None, l2_weight=0.0, **kwargs):
        """Sets one optimizer per modality.

        Callbacks that change the rate of `model.optimizer`, such as `ReduceLROnPlateau`, change
        that of the text side by the same factor.

        Args:
            optimizer: for the backbone, image network and its decoder: a Keras optimizer or the
                name of one.
            text_optimizer: for the text network and its decoder; None for a copy of the other.
            l2_weight: each variable times this is added to its gradient (weight decay as in the SGD
                recipes of DJSRH and DSAH; AdamW and LAMB have their own decay).
            **kwargs: of `keras.Model.compile`.

        Raises:
            ValueError: a `loss`, which is the method's.
        """
        if kwargs.pop("loss", None) is not None:
            raise ValueError("compile received a loss, but the loss is the method's: leave it out")
        kwargs.setdefault("jit_compile", False)
        super().compile(optimizer=keras.optimizers.get(optimizer), **kwargs)
        if text_optimizer is None:
            image = self.optimizer
            text_optimizer = type(image).from_config(image.get_config())
        # Keras scales the loss of the optimizer that it knows of under mixed_float16.
        text_optimizer = keras.optimizers.get(text_optimizer)
        self.text_optimizer = compat.scaled_like(self.optimizer, text_optimizer)
        self.l2_weight = float(l2_weight)
        compat.build_optimizer(self.optimizer, self.image_variables)
        compat.build_optimizer(self.text_optimizer, self.text_variables)

    def get_compile_config(self):
        """The arguments of `compile`, for saving."""
        if self.text_optimizer is None:
            return None
        serialize = keras.saving.serialize_keras_object
        return {
            "optimizer": serialize(self.optimizer),
            "text_optimizer": serialize(self.text_optimizer),
            "l2_weight": self.l2_weight,
        }

    def compile_from_config(self, config):
        """Compiles as `get_compile_config` says."""
        deserialize = keras.saving.deserialize_keras_object
        self.compile(
            deserialize(config["optimizer"]),
            deserialize(config["text_optimizer"]),
            config["l2_weight"],
        )

    def fit(self, x=None, *, callbacks=None, **kwargs):
        """`keras.Model.fit` on batches as above; the codes harden epoch by epoch."""
        if isinstance(callbacks, keras.callbacks.CallbackList):
            callbacks = callbacks.callbacks
        if not isinstance(callbacks, (list, tuple)):
            callbacks = [] if callbacks is None else [callbacks]
        if isinstance(x, tf.data.Dataset):
            kwargs.setdefault("shuffle", False)  # Keras warns that it cannot shuffle a dataset
        compat.keep_metric_means(self)
        return super().fit(x, callbacks=[*callbacks, _FollowEpochs()], **kwargs)

    @property
    def metrics(self):
        """One running mean per term; Keras resets them each epoch."""
        return list(self.trackers.values())

    def _terms(self, batch, training):
        if not isinstance(batch, Mapping):
            raise ValueError(f"a batch is a {type(batch).__name__}, expected a dict of tensors")
        outputs = self(batch, training=training)
        batch = dict(batch)
        if "target_bow" in batch:
            batch["bow"] = batch.pop("target_bow")
        for name in ("bow", "labels"):
            if name in batch:
                batch[name] = tf.cast(batch[name], tf.float32)
        if "target_feature" not in batch and "feature" in outputs:
            batch["target_feature"] = tf.stop_gradient(outputs["feature"])
        return self.method.loss(batch, outputs)

    def _track(self, terms):
        for name, tracker in self.trackers.items():
            tracker.update_state(terms["total" if name == "loss" else name])
        return {name: tracker.result() for name, tracker in self.trackers.items()}

    def local_gradients(self, batch) -> tuple:
        """Gradients of one replica's loss divided by the number of replicas.

        Under mixed_float16 the loss is multiplied by the optimizers' scale while gradients are
        computed, which keeps small ones from becoming 0, and the gradients are divided by it.

        Returns:
            (terms, image gradients, text gradients), in the order of `image_variables` and
            `text_variables`.
        """
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        scale = compat.loss_scale(getattr(self, "optimizer", None))  # none before `compile`
        with tf.GradientTape() as tape:
            terms = self._terms(batch, training=True)
            loss = terms["total"] / replicas
            if scale is not None:
                loss *= scale
        image, text = self.image_variables, self.text_variables
        gradients = [  # A variable that no term reads has no gradient.
            tf.zeros(v.shape, v.dtype) if g is None else tf.convert_to_tensor(g)
            for g, v in zip(tape.gradient(loss, image + text), image + text)
        ]
        if scale is not None:
            gradients = _all_or_none([g / scale for g in gradients])
        gradients = (
            [g + self.l2_weight / replicas * v for g, v in zip(gradients, image + text)]
            if self.l2_weight
            else gradients
        )
        return terms, gradients[: len(image)], gradients[len(image) :]

    def train_step(self, data):
        """One step of both optimizers on a batch; returns the terms' running means."""
        terms, image_gradients, text_gradients = self.local_gradients(data)
        self._look_at(image_gradients, text_gradients)
        compat.apply_gradients(self.optimizer, image_gradients, self.image_variables)
        compat.apply_gradients(self.text_optimizer, text_gradients, self.text_variables)
        means = self._track(terms)
        bad = ~tf.math.is_finite(tf.stack([means[name] for name in self.terms]))
        known = self.not_finite_variable
        known.assign(tf.where(bad & (known < 0), self.step_variable, known))
        self.step_variable.assign_add(1)
        return means

    def _look_at(self, *gradients) -> None:
        """Keeps the norms of some steps' gradients: of each step they would take time."""
        found = tf.cond(
            self.step_variable % _STEPS_PER_NORM == 0,
            lambda: tf.stack([tf.linalg.global_norm(side) for side in gradients]),
            lambda: tf.identity(self.norms_variable),
        )
        self.norms_variable.assign(found)

    def gradient_norms(self) -> dict[str, float]:
        """Norms of the last gradients looked at, of the "image" and the "text" side."""
        return dict(zip(("image", "text"), map(float, self.norms_variable.numpy())))

    def first_not_finite(self) -> tuple[str, int] | None:
        """(term, step of the epoch from 1) where a loss first became infinite or NaN, or None."""
        steps = self.not_finite_variable.numpy()
        bad = [(step, order) for order, step in enumerate(steps) if step >= 0]
        if not bad:
            return None
        step, order = min(bad)
        return self.terms[order], int(step) + 1

    def begin_epoch(self, epoch: int) -> None:
        """Hardens the codes for this epoch (from 0), and begins its means anew."""
        self.epoch_variable.assign(float(epoch))
        self.step_variable.assign(0)
        self.not_finite_variable.assign(-tf.ones_like(self.not_finite_variable))
        for tracker in self.trackers.values():
            tracker.reset_state()

    def means(self) -> dict[str, float]:
        """The terms' means over the steps of this epoch so far, over all replicas."""
        return {name: float(tracker.result()) for name, tracker in self.trackers.items()}

    def test_step(self, data):
        """Computes the terms of a batch without an update; returns their running means."""
        return self._track(self._terms(data, training=False))


class _FollowEpochs(keras.callbacks.Callback):
    """Hardens the codes (alpha_e), and lets the text side's rate follow the image side's.

    The last callback of a fit: it sees what others have set.
    """

    def __init__(self):
        super().__init__()
        self._rate = None

    def on_epoch_begin(self, epoch, logs=None):
        self.model.begin_epoch(epoch)
        optimizers = self.model.optimizer, self.model.text_optimizer
        if not all(map(compat.has_fixed_rate, optimizers)):
            return
        image, text = optimizers
        rate = compat.current_learning_rate(image)
        if self._rate and rate != self._rate:
            text.learning_rate = compat.current_learning_rate(text) * rate / self._rate
        self._rate = rate


def _all_or_none(gradients: list) -> list:
    """The gradients, all of them NaN if one is not finite on any replica.

    So both optimizers leave out the same steps on all replicas, and their scales stay equal.
    """
    finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(g)) for g in gradients])
    broken = tf.where(finite, 0.0, 1.0)
    context = tf.distribute.get_replica_context()
    if context is not None and context.num_replicas_in_sync > 1:
        broken = context.all_reduce(tf.distribute.ReduceOp.SUM, broken)
    nothing = tf.where(broken > 0, float("nan"), 0.0)
    return [g + tf.cast(nothing, g.dtype) for g in gradients]


def _variables(*parts) -> list:
    return [v for part in parts if part is not None for v in part.trainable_variables]
