"""Where training runs: one device, several, several machines."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import tensorflow as tf

from dsprh_tf.training.devices import Execution, make_strategy, shard_of


class TestStrategy:
    @pytest.mark.parametrize("devices", ["gpu", "cpu", "cpu:", "cpu:0", "cpu:two", "gpu:0", ""])
    def test_unknown_devices(self, devices):
        with pytest.raises(ValueError, match=f"is {devices!r}, expected auto, gpu:N or cpu:N"):
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

    def test_more_gpus_than_there_are(self):
        with pytest.raises(ValueError, match="--devices is gpu:99, but TensorFlow sees"):
            make_strategy("gpu:99")


def settings(**changed):
    plain = {
        "batch_size": 32, "global_batch_size": None, "jit": "auto", "deterministic": None,
        "other_devices": False,
    }  # fmt: skip
    return SimpleNamespace(**{**plain, **changed})


def devices(count):
    return SimpleNamespace(num_replicas_in_sync=count)


class TestExecution:
    @pytest.mark.parametrize(
        "changed, replicas, on_features, expected",
        [
            ({}, 1, True, (1, 32, True, True)),
            ({}, 1, False, (1, 32, False, True)),
            ({}, 2, True, (2, 32, False, True)),
            ({"jit": "on"}, 1, False, (1, 32, True, True)),
            ({"jit": "off", "deterministic": False}, 1, True, (1, 32, False, False)),
            ({"global_batch_size": 48}, 2, True, (2, 24, False, True)),
        ],
    )
    def test_what_is_decided(self, changed, replicas, on_features, expected):
        found = Execution.of(settings(**changed), devices(replicas), 64_000, on_features)
        assert found == Execution(*expected)

    def test_short_runs_are_not_compiled(self):
        assert not Execution.of(settings(), devices(1), 63_999, True).jit

    @pytest.mark.parametrize(
        "changed, said",
        [
            ({"global_batch_size": 33}, "--global_batch_size is 33, expected a multiple of .* 2"),
            ({"global_batch_size": 1}, "--global_batch_size is 1, expected a multiple of .* 2"),
            ({"jit": "on"}, "--jit=on needs one device, and this run has 2"),
        ],
    )
    def test_what_cannot_be(self, changed, said):
        with pytest.raises(ValueError, match=said):
            Execution.of(settings(**changed), devices(2), 64_000, True)

    def test_a_run_goes_on_as_it_began(self):
        began = vars(Execution(1, 32, True, False))
        assert vars(Execution.of(settings(), devices(1), 64_000, True, began)) == began
        assert Execution.of(settings(), devices(1), 64_000, True, {}) == Execution(
            1, 32, False, True
        )

    @pytest.mark.parametrize(
        "changed, replicas, said",
        [
            ({}, 2, r"replicas: was 1, is 2, jit: was True, is False"),
            ({"global_batch_size": 32}, 2, "replicas: was 1, is 2, batch_size: was 32, is 16"),
            ({"jit": "off"}, 1, "jit: was True, is False"),
            ({"deterministic": False}, 1, "deterministic: was True, is False"),
        ],
    )
    def test_other_devices_are_refused_unless_asked_for(self, changed, replicas, said):
        began = vars(Execution(1, 32, True, True))
        with pytest.raises(ValueError, match=f"{said}.*--other_devices"):
            Execution.of(settings(**changed), devices(replicas), 64_000, True, began)
        other = settings(**changed, other_devices=True)
        assert Execution.of(other, devices(replicas), 64_000, True, began).replicas == replicas
