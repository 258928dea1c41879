"""The devices of a training run: one device, several GPUs, several machines."""

from __future__ import annotations

import dataclasses
import os

import tensorflow as tf

_WORTH_COMPILING = 2000  # steps, from which on XLA saves more time than it takes to compile


def make_strategy(devices: str = "auto") -> tf.distribute.Strategy:
    """Chooses where training runs. Call it before any tensor is made.

    Args:
        devices: "auto" for all visible GPUs (or the one CPU), "gpu:N" for the first N of them,
            "cpu:N" for N logical CPUs, which shows on any machine what N GPUs would do.

    Returns:
        `MirroredStrategy`, the default strategy for one device, or
        `MultiWorkerMirroredStrategy` where the TF_CONFIG environment variable is set.

    Raises:
        ValueError: an unknown value, more GPUs than there are, or TensorFlow has started.
    """
    kind, _, count = devices.partition(":")
    counted = kind in ("cpu", "gpu") and count.isdigit() and int(count) > 0
    if devices != "auto" and not counted:
        raise ValueError(
            f"--devices is {devices!r}, expected auto, gpu:N or cpu:N with N of 1 or more"
        )
    gpus = tf.config.list_physical_devices("GPU")
    try:
        if kind == "gpu":
            if int(count) > len(gpus):
                raise ValueError(f"--devices is {devices}, but TensorFlow sees {len(gpus)} GPUs")
            gpus = gpus[: int(count)]
            tf.config.set_visible_devices(gpus, "GPU")
        elif kind == "cpu":
            gpus = []
            tf.config.set_visible_devices(gpus, "GPU")
            if int(count) > 1:
                tf.config.set_logical_device_configuration(
                    tf.config.list_physical_devices("CPU")[0],
                    [tf.config.LogicalDeviceConfiguration()] * int(count),
                )
    except RuntimeError as error:
        raise ValueError(f"--devices={devices} must be set before TensorFlow starts") from error
    if os.environ.get("TF_CONFIG"):
        return tf.distribute.MultiWorkerMirroredStrategy()
    if kind == "cpu" and int(count) > 1:
        return tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(int(count))])
    return tf.distribute.MirroredStrategy() if len(gpus) > 1 else tf.distribute.get_strategy()


@dataclasses.dataclass(frozen=True)
class Execution:
    """How the steps of a run are computed: beside the settings, what decides its weights.

    Attributes:
        replicas: devices that train together.
        batch_size: pairs per step and device.
        jit: whether XLA compiles the step.
        deterministic: whether the same run gives the same weights bit for bit.
    """

    replicas: int
    batch_size: int
    jit: bool
    deterministic: bool

    @classmethod
    def of(
        cls, settings, strategy, pairs: int, on_features: bool, known: dict | None = None
    ) -> Execution:
        """Decides what is left to "auto".

        Args:
            settings: object with `batch_size`, `global_batch_size`, `jit`, `deterministic` and
                `other_devices`.
            strategy: of the run.
            pairs: that are trained on in all epochs together.
            on_features: whether batches have features, and no pixels.
            known: the `vars` with which an unfinished run began; {} if that is not known.

        Raises:
            ValueError: the batch cannot be divided, XLA is asked for on several devices, or the
                run began otherwise.
        """
        replicas, batch_size = strategy.num_replicas_in_sync, settings.batch_size
        if settings.global_batch_size is not None:
            batch_size, rest = divmod(settings.global_batch_size, replicas)
            if rest or not batch_size:
                raise ValueError(
                    f"--global_batch_size is {settings.global_batch_size}, expected a multiple of "
                    f"the number of devices, {replicas}"
                )
        if settings.jit == "on" and replicas > 1:
            raise ValueError(
                f"--jit=on needs one device, and this run has {replicas}: leave it out, or give "
                "--devices=gpu:1"
            )
        long = pairs // (batch_size * replicas) >= _WORTH_COMPILING
        jit = settings.jit == "on" or (
            settings.jit == "auto" and replicas == 1 and on_features and long
        )
        deterministic = settings.deterministic
        if deterministic is None:
            deterministic = not tf.config.get_visible_devices("GPU")
        found = cls(replicas, batch_size, jit, deterministic)
        if known is None or settings.other_devices:
            return found
        known = known or {"jit": False, "deterministic": True}  # as in earlier versions
        if settings.jit == "auto" and replicas == 1:
            found = dataclasses.replace(found, jit=known["jit"])
        if settings.deterministic is None:
            found = dataclasses.replace(found, deterministic=known["deterministic"])
        changed = [
            f"{name}: was {value}, is {vars(found)[name]}"
            for name, value in known.items()
            if vars(found)[name] != value
        ]
        if changed:
            raise ValueError(
                f"this run began with other devices ({', '.join(changed)}), which gives other "
                "weights: train it where it began (--devices=gpu:N), or add --other_devices"
            )
        return found

    def describe(self) -> str:
        """One line for people."""
        devices = f"{self.replicas} devices" if self.replicas > 1 else "one device"
        return (
            f"{self.batch_size * self.replicas} pairs per step on {devices}"
            + (", compiled with XLA" if self.jit else "")
            + ("" if self.deterministic else ", not deterministic")
        )


def shard_of(strategy: tf.distribute.Strategy) -> tuple[int, int]:
    """(worker, workers) of this process."""
    resolver = getattr(strategy, "cluster_resolver", None)
    if resolver is None or not os.environ.get("TF_CONFIG"):
        return 0, 1
    return resolver.task_id, len(resolver.cluster_spec().as_dict()["worker"])
