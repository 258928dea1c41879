"""How long trials will take, and what that rests on."""

from __future__ import annotations

import dataclasses
import json

import pytest
from experiment_helpers import finish, request

from dsprh_tf.experiments import plan
from dsprh_tf.experiments.estimate import BASELINE, FROZEN, TRAINED, estimate, guess
from dsprh_tf.experiments.trial import Trial


def make(method="m", bits=16, seed=0, program="train", pairs=(1000, 3000), **settings) -> Trial:
    whole = {"backbone": "alexnet", "freeze_backbone": True, "dataset": "coco", "epochs": 10}
    whole.update(settings, seed=seed, bits=bits)
    return Trial(program, method, bits, seed, whole, {}, (), pairs)


def finished(out, seconds, trial) -> Trial:
    finish(trial, out)
    (trial.folder(out) / "seconds.json").write_text(json.dumps({"seconds": seconds}))
    return trial


def test_a_guess_is_pairs_times_epochs_at_a_measured_speed():
    steps = 10 * 1000
    assert guess(make()) == pytest.approx(20 + steps / FROZEN["alexnet"])
    assert guess(make(epochs=20)) == pytest.approx(20 + 2 * steps / FROZEN["alexnet"])
    trained = make(freeze_backbone=False)
    assert guess(trained) == pytest.approx(20 + (steps + 1000) / TRAINED["alexnet"])
    resnet = make(freeze_backbone=False, backbone="ResNet34")
    assert guess(resnet) == pytest.approx(20 + (steps + 1000) / TRAINED["resnet34"])
    assert guess(make(program="baseline")) == BASELINE
    # Unknown ones are as slow as the slowest, vectors as heads.
    unknown = make(freeze_backbone=False, backbone="VGG16")
    assert guess(unknown) == pytest.approx(20 + (steps + 1000) / min(TRAINED.values()))
    features = make(freeze_backbone=False, backbone="alexnet", dataset="features")
    assert guess(features) < guess(make(freeze_backbone=False))


def test_what_the_backbone_computes_once_is_counted_once(tmp_path):
    trials = [make(), make(seed=1), make(program="baseline", method="lsh")]
    cache = 3000 / (3 * TRAINED["alexnet"])
    total = sum(map(guess, trials)) + cache
    assert estimate(trials, trials, tmp_path).seconds == pytest.approx(total)
    vectors = [make(dataset="features")]
    assert estimate(vectors, vectors, tmp_path).seconds == pytest.approx(guess(vectors[0]))


def test_finished_trials_tell_how_fast_the_machine_is(tmp_path):
    def left(*trials):
        return estimate(trials, done, tmp_path).seconds / guess(trials[0])

    done = []
    for seed, slower in enumerate((1.0, 3.0, 2.0)):
        done.append(finished(tmp_path, slower * guess(make()), make(seed=seed)))
    done.append(finished(tmp_path, 5.0 * guess(make()), make(bits=32)))
    done.append(finished(tmp_path, 10.0 * guess(make()), make(method="n")))
    trained = make(freeze_backbone=False)
    done.append(finished(tmp_path, 0.5 * guess(trained), trained))
    assert left(make(seed=3)) == pytest.approx(2), "the same method and bits"
    assert left(make(seed=3, epochs=40)) == pytest.approx(2), "with other epochs as well"
    assert left(make(seed=3, bits=64)) == pytest.approx(2.5), "the same method"
    assert left(make(method="k")) == pytest.approx(3), "the same backbone, frozen as well"
    assert left(make(seed=9, freeze_backbone=False)) == pytest.approx(0.5)
    other = make(backbone="resnet34", freeze_backbone=False, pairs=(1000, 0))
    assert left(other) == pytest.approx(2.5), "the same program"
    baseline = make(program="baseline", method="lsh")
    found = estimate([baseline, make(seed=3)], done, tmp_path)
    assert (found.measured, found.trials) == (1, 2)
    assert found.seconds == pytest.approx(BASELINE + 2 * guess(make()))
    assert "1 trials from the finished ones" in found.basis
    assert "1 from pairs x epochs at speeds measured on 2 CPU cores" in found.basis
    done.append(make(seed=5))  # in the plan, but not finished
    assert left(make(seed=3)) == pytest.approx(2)
    assert "nothing is left" in estimate([], done, tmp_path).basis


def test_the_table_of_the_paper_takes_longer_where_the_backbone_is_trained(tmp_path):
    seconds = {}
    for frozen in (True, False):
        for backbone in ("alexnet", "resnet34"):
            given = {"freeze_backbone": frozen, "backbone": backbone}
            asked = dataclasses.replace(request("mirflickr25k", given), pairs=(5000, 20015))
            trials = plan.unique_trials(plan.plan("table2", asked))
            seconds[backbone, frozen] = estimate(trials, trials, tmp_path).seconds
    assert seconds["alexnet", False] > 2 * seconds["alexnet", True]
    assert seconds["resnet34", False] > 2 * seconds["alexnet", False]
