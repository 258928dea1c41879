"""The devices of a training run: one device, several GPUs, several machines."""

from __future__ import annotations

import os

import keras
import tensorflow as tf

from dsprh_tf import compat


def make_strategy(devices: str = "auto") -> tf.distribute.Strategy:
    """Chooses where training runs. Call it before any tensor is made.

    Args:
        devices: "auto" for all visible GPUs (or the one CPU), "cpu:N" for N logical CPUs, which
            shows on any machine what N GPUs would do.

    Returns:
        `MirroredStrategy`, the default strategy for one device, or
        `MultiWorkerMirroredStrategy` where the TF_CONFIG environment variable is set.

    Raises:
        ValueError: an unknown value; TF_CONFIG under Keras 3.
    """
    kind, _, count = devices.partition(":")
    if devices != "auto" and not (kind == "cpu" and count.isdigit() and int(count) > 0):
        raise ValueError(f"--devices is {devices!r}, expected auto or cpu:N with N of 1 or more")
    if os.environ.get("TF_CONFIG"):
        if compat.KERAS_3:
            raise ValueError(
                f"TF_CONFIG is set, and Keras {keras.__version__} cannot train on several machines:"
                " install requirements-tfa.txt, or unset TF_CONFIG to train on this one"
            )
        return tf.distribute.MultiWorkerMirroredStrategy()
    if devices == "auto":
        if len(tf.config.list_physical_devices("GPU")) > 1:
            return tf.distribute.MirroredStrategy()
        return tf.distribute.get_strategy()
    if int(count) == 1:
        return tf.distribute.get_strategy()
    cpu = tf.config.list_physical_devices("CPU")[0]
    try:
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * int(count)
        )
    except RuntimeError as error:
        raise ValueError(f"--devices={devices} must be set before TensorFlow starts") from error
    return tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(int(count))])


def shard_of(strategy: tf.distribute.Strategy) -> tuple[int, int]:
    """(worker, workers) of this process."""
    resolver = getattr(strategy, "cluster_resolver", None)
    if resolver is None or not os.environ.get("TF_CONFIG"):
        return 0, 1
    return resolver.task_id, len(resolver.cluster_spec().as_dict()["worker"])
