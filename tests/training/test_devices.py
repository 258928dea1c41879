"""Where training runs: one device, several, several machines."""

from __future__ import annotations

import pytest
import tensorflow as tf

from dsprh_tf import compat
from dsprh_tf.training.devices import make_strategy, shard_of


class TestStrategy:
    @pytest.mark.parametrize("devices", ["gpu", "cpu", "cpu:", "cpu:0", "cpu:two", "gpu:2", ""])
    def test_unknown_devices(self, devices):
        with pytest.raises(ValueError, match=f"--devices is {devices!r}, expected auto or cpu:N"):
            make_strategy(devices)

    def test_one_device_needs_no_strategy(self):
        for devices in ("auto", "cpu:1"):
            strategy = make_strategy(devices)
            assert strategy.num_replicas_in_sync == 1
            assert shard_of(strategy) == (0, 1)

    def test_logical_devices_come_before_tensors(self):
        tf.zeros(1)
        with pytest.raises(ValueError, match="--devices=cpu:2 must be set before TensorFlow st"):
            make_strategy("cpu:2")

    @pytest.mark.skipif(not compat.KERAS_3, reason="Keras 2 trains on several machines")
    def test_several_machines_are_refused_on_keras_3(self, monkeypatch):
        monkeypatch.setenv("TF_CONFIG", '{"cluster": {"worker": ["127.0.0.1:1"]}}')
        with pytest.raises(ValueError, match=r"TF_CONFIG.*install requirements-tfa\.txt") as error:
            make_strategy()
        assert "\n" not in str(error.value)
