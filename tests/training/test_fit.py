"""Training: checkpoints, resuming, and the ways in which it may stop."""

from __future__ import annotations

import contextlib
import json
import math
import os
import resource
import socket
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import ROOT

from dsprh_tf.data.pipeline import PairSource
from dsprh_tf.methods import DSPRH
from dsprh_tf.model import CrossModalHashing
from dsprh_tf.training.checkpoints import Checkpoints
from dsprh_tf.training.fit import fit as fit_model
from dsprh_tf.training.optimizers import make_optimizer

SIZES = {"bow": 6, "feature": 12, "conv_map": (4, 4, 8)}
TRAIN = np.arange(24)
BATCH = 6  # four steps per epoch


@pytest.fixture(autouse=True)
def deterministic(monkeypatch):
    """As `Run.train` sets it before it makes a model; each epoch is saved, slow or not."""
    monkeypatch.setattr("dsprh_tf.training.checkpoints._LONG", math.inf)
    tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(0)


@pytest.fixture
def source(pairs, bag_of_words):
    return PairSource(pairs, bag_of_words, 16, 20)


def make_model(backbone, rate=0.01, text_hidden=8):
    keras.utils.set_random_seed(0)
    method = DSPRH(16, fusion_weights=(0, 0.5, 0.5), cov_channels=4, text_hidden=text_hidden)
    model = CrossModalHashing(method, SIZES, backbone, 16)
    model.compile(make_optimizer("sgd", rate), make_optimizer("sgd", rate))
    return model


def fit(model, source, folder, epochs, **changed):
    checkpoints = Checkpoints(model, folder, changed.pop("max_to_keep", 3))
    first = fit_model(model, source, TRAIN, checkpoints, epochs, BATCH, 0, **changed)
    return checkpoints, first


def frozen(backbone):
    backbone.trainable = False
    return backbone


class TestResume:
    def test_resumed_weights_are_those_of_the_whole_run(
        self, source, tiny_backbone, weights, tmp_path
    ):
        """Fine-tuned, with dropout, crops and momentum: all that a checkpoint must carry."""

        def run(folder, epochs):
            model = make_model(tiny_backbone(dropout=0.3))
            return fit(model, source, folder, epochs, augmented=True)

        run(tmp_path / "whole", 3)
        run(tmp_path / "parts", 1)
        _, first = run(tmp_path / "parts", 3)
        assert first == 1
        whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
        assert whole.keys() == parts.keys()
        assert any(name.startswith("backbone/") for name in whole)
        for name in whole:
            np.testing.assert_array_equal(whole[name], parts[name], err_msg=name)

    def test_every_trained_variable_is_in_the_checkpoint(self, source, tiny_backbone, tmp_path):
        model = make_model(tiny_backbone())
        fit(model, source, tmp_path, 1)
        other = make_model(tiny_backbone(seed=5))
        for variable in other.image_variables + other.text_variables:
            variable.assign(tf.zeros(variable.shape))
        Checkpoints(other, tmp_path).restore_selected()
        for part in ("backbone", "image_network", "text_network", "image_decoder", "text_decoder"):
            for a, b in zip(getattr(model, part).weights, getattr(other, part).weights):
                np.testing.assert_array_equal(a, b)

    def test_a_finished_run_is_left_alone(self, source, tiny_backbone, tmp_path):
        fit(make_model(frozen(tiny_backbone())), source, tmp_path, 2)
        before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
        _, first = fit(make_model(frozen(tiny_backbone())), source, tmp_path, 2)
        assert first == 2
        assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before

    def test_checkpoint_of_another_model(self, tiny_backbone, tmp_path):
        Checkpoints(make_model(tiny_backbone()), tmp_path).save(0, None)
        other = make_model(tiny_backbone(), text_hidden=9)
        with pytest.raises(ValueError, match="ckpt-1 is damaged or of another model") as error:
            Checkpoints(other, tmp_path).resume()
        assert "\n" not in str(error.value)

    def test_damaged_checkpoint(self, tiny_backbone, tmp_path):
        model = make_model(tiny_backbone())
        Checkpoints(model, tmp_path).save(0, None)
        data = tmp_path / "checkpoints" / "ckpt-1.data-00000-of-00001"
        data.write_bytes(data.read_bytes()[:100])
        with pytest.raises(ValueError, match="ckpt-1 is damaged or of another model"):
            Checkpoints(model, tmp_path).resume()

    def test_no_checkpoint(self, tiny_backbone, tmp_path):
        checkpoints = Checkpoints(make_model(tiny_backbone()), tmp_path)
        assert checkpoints.resume() == 0
        with pytest.raises(ValueError, match="holds no checkpoint: train the run first"):
            checkpoints.restore_selected()


class TestSelection:
    def save(self, model, folder, scores, **changed):
        checkpoints = Checkpoints(model, folder, **changed)
        for epoch, score in enumerate(scores):
            model.epoch_variable.assign(float(epoch))  # a weight that tells the epochs apart
            checkpoints.save(epoch, score)
        return checkpoints

    @pytest.mark.parametrize(
        ("scores", "epoch"), [([0.1, 0.5, 0.3], 2), ([0.5, 0.5, 0.1], 1), ([None, None], 2)]
    )
    def test_best_epoch_or_else_the_last(self, tiny_backbone, tmp_path, scores, epoch):
        model = make_model(tiny_backbone())
        checkpoints = self.save(model, tmp_path, scores)
        assert checkpoints.restore_selected() == epoch
        assert float(model.epoch_variable.numpy()) == epoch - 1

    def test_best_score_survives_resuming(self, tiny_backbone, tmp_path):
        model = make_model(tiny_backbone())
        self.save(model, tmp_path, [0.9, 0.2])
        checkpoints = Checkpoints(model, tmp_path)
        checkpoints.resume()
        checkpoints.save(2, 0.5)
        assert checkpoints.restore_selected() == 1

    def test_max_to_keep_and_the_best_beside(self, tiny_backbone, tmp_path):
        self.save(make_model(tiny_backbone()), tmp_path, [0.9, 0.1, 0.2, 0.3], max_to_keep=2)
        kept = sorted(path.name for path in (tmp_path / "checkpoints").glob("*.index"))
        assert kept == ["ckpt-3.index", "ckpt-4.index"]
        assert [p.name for p in (tmp_path / "best").glob("*.index")] == ["ckpt-1.index"]
        keys = [name for name, _ in tf.train.list_variables(str(tmp_path / "best" / "ckpt-1"))]
        assert keys and not any("optimizer" in key for key in keys)

    def test_where_saving_takes_long_epochs_wait(self, tiny_backbone, tmp_path, monkeypatch):
        """The best of them is kept in memory until then."""
        monkeypatch.setattr("dsprh_tf.training.checkpoints._LONG", -1)
        monkeypatch.setattr("dsprh_tf.training.checkpoints._APART", 1e9)
        model = make_model(tiny_backbone())
        checkpoints = self.save(model, tmp_path, [0.1, 0.9, 0.5])
        assert checkpoints.latest.endswith("ckpt-1")
        assert Checkpoints(model, tmp_path).restore_selected() == 1
        checkpoints.epoch.assign(3)
        model.epoch_variable.assign(3.0)
        checkpoints.save(3, 0.3, last=True)
        assert model.epoch_variable.numpy() == 3
        assert Checkpoints(model, tmp_path).restore_selected() == 2
        assert model.epoch_variable.numpy() == 1

    @pytest.mark.parametrize("scores", [[0.9, 0.1], [None, None]])
    def test_a_finished_run_keeps_the_weights_that_count(self, tiny_backbone, tmp_path, scores):
        model = make_model(tiny_backbone())
        checkpoints = self.save(model, tmp_path, scores)
        checkpoints.save(2, scores[1], last=True)
        names = {
            path.parent.name: [n for n, _ in tf.train.list_variables(str(path.with_suffix("")))]
            for path in tmp_path.glob("*/*.index")
        }
        with_weights = [kind for kind, keys in names.items() if any("text" in k for k in keys)]
        assert with_weights == (["best"] if scores[0] else ["checkpoints"])
        assert not any("optimizer" in key for keys in names.values() for key in keys)
        again = Checkpoints(model, tmp_path)
        assert again.resume(3) == 3
        assert again.restore_selected() == (1 if scores[0] else 3)

    def test_what_a_kill_while_saving_left_is_removed(self, tiny_backbone, tmp_path):
        model = make_model(tiny_backbone())
        self.save(model, tmp_path, [0.9])
        for kind in ("checkpoints", "best"):
            (tmp_path / kind / "ckpt-2_temp").mkdir()
            (tmp_path / kind / "ckpt-2_temp" / "part").touch()
        assert Checkpoints(model, tmp_path).resume() == 1
        assert not list(tmp_path.glob("*/*_temp"))


class TestStops:
    def test_non_finite_loss_names_term_step_and_last_good_checkpoint(
        self, source, tiny_backbone, weights, tmp_path
    ):
        source.targets = np.random.default_rng(0).random((24, 12)).astype(np.float32)
        fit(make_model(frozen(tiny_backbone())), source, tmp_path, 1)
        before = weights(tmp_path)
        source.targets[9] = np.nan
        order = np.random.default_rng([0, 1]).permutation(TRAIN)
        step = int(np.flatnonzero(order == 9)[0]) // BATCH + 1
        message = f"L_W became infinite or NaN in step {step} of epoch 2: .*point is .*/ckpt-1$"
        with pytest.raises(ValueError, match=message):
            fit(make_model(frozen(tiny_backbone())), source, tmp_path, 3)
        after = weights(tmp_path)
        assert after.keys() == before.keys()
        for name in before:
            np.testing.assert_array_equal(before[name], after[name])

    def test_first_step(self, source, tiny_backbone, tmp_path):
        source.targets = np.full((24, 12), np.inf, np.float32)
        with pytest.raises(ValueError, match="step 1 of epoch 1.*checkpoint is none yet"):
            fit(make_model(frozen(tiny_backbone())), source, tmp_path, 1)
        assert not (tmp_path / "checkpoints").exists()

    def test_infinite_weights_of_the_last_step_are_not_saved(self, source, tiny_backbone, tmp_path):
        model = make_model(frozen(tiny_backbone()), rate=1e38)
        checkpoints = Checkpoints(model, tmp_path)
        with pytest.raises(ValueError, match="weights of .* became infinite or NaN in the last"):
            fit_model(model, source, TRAIN, checkpoints, 2, len(TRAIN), 0)
        assert checkpoints.latest is None

    def test_full_disk_keeps_the_last_good_checkpoint(self, tiny_backbone, weights, tmp_path):
        checkpoints = Checkpoints(make_model(tiny_backbone()), tmp_path)
        checkpoints.save(0, 0.5)
        before = weights(tmp_path)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2048, hard))
        try:
            with pytest.raises(ValueError, match="checkpoint of epoch 2 could not be wr") as error:
                checkpoints.save(1, 0.9)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        message = str(error.value)
        assert message.endswith(f"the last good one is {tmp_path}/checkpoints/ckpt-1")
        assert "\n" not in message
        after = weights(tmp_path)
        for name in before:
            np.testing.assert_array_equal(before[name], after[name])
        again = Checkpoints(make_model(tiny_backbone()), tmp_path)
        assert again.restore_selected() == 1
        assert again.resume() == 1
        again.save(1, 0.9)  # with space again
        assert again.latest.endswith("ckpt-2")


# One process per point of (bar, number), killed as soon as a bar of that name has come so far: at
# the same point on any machine, which looking at the output from outside would miss now and then.
# They are forks of a process that has imported TensorFlow but not yet used it.
KILLER = """
import json, os, signal, sys
from tqdm import tqdm
from dsprh_tf.cli.program import load
from dsprh_tf.training import estimate

estimate._FIRST = estimate._TIMED = 1  # images whose features are computed without a bar
points, flags = json.loads(sys.argv[1]), sys.argv[2:]
program, update = load("train"), tqdm.update

def update_and_die(self, n=1):
    update(self, n)
    if not self.disable and self.desc.startswith(bar) and self.n >= point:
        os.kill(os.getpid(), signal.SIGKILL)

for bar, point in points:
    child = os.fork()
    if not child:
        tqdm.update = update_and_die
        os._exit(program.run("train", flags, "dsprh train"))
    status = os.waitpid(child, 0)[1]
    if not os.WIFSIGNALED(status) or os.WTERMSIG(status) != signal.SIGKILL:
        sys.exit(f"status {status} instead of a kill at {bar} {point}")
"""


def train_and_kill(points: list, *flags, env=None) -> None:
    """Runs `dsprh train` once per point, each time until SIGKILL ends it there."""
    command = [sys.executable, "-c", KILLER, json.dumps(points), *flags]
    ended = subprocess.run(
        command, capture_output=True, text=True, errors="replace", cwd=ROOT, env=env
    )
    assert ended.returncode == 0, ended.stderr[-2000:]


def assert_same_weights(whole: dict, other: dict, **tolerance) -> None:
    assert whole.keys() == other.keys()
    for name in whole:
        if tolerance and whole[name].dtype.kind == "f":
            np.testing.assert_allclose(other[name], whole[name], err_msg=name, **tolerance)
        else:
            np.testing.assert_array_equal(whole[name], other[name], err_msg=name)


FINE_TUNED = [
    "--nofreeze_backbone", "--fusion_weights=0,0,1", "--image_size=32", "--resize=40",
    "--epochs=2", "--monitor_every=2",
]  # fmt: skip


@pytest.mark.slow
class TestKilled:
    """Runs killed with SIGKILL and started again end as the uninterrupted run does."""

    def check(self, program, weights, whole, flags, points, tmp_path):
        run_dir = tmp_path / "killed"
        flags = [*flags, f"--run_dir={run_dir}", f"--cache_dir={tmp_path / 'cache'}"]
        train_and_kill(points, *flags)
        assert not (run_dir / "results.json").exists()
        last = program("train", *flags)
        assert last.code == 0, last.err[-2000:]
        assert "resuming" in last.out
        assert "epoch 1:" not in last.err
        assert_same_weights(weights(whole), weights(run_dir))
        assert (run_dir / "results.json").read_bytes() == (whole / "results.json").read_bytes()

    def test_frozen_and_cached(self, program, small_flags, weights, trained, tmp_path):
        # In the backbone's first pass, in the first epoch, in the second after a whole checkpoint.
        points = [("frozen backbone", 1), ("epoch 1", 2), ("epoch 2", 7)]
        self.check(program, weights, trained[0], small_flags, points, tmp_path)

    def test_fine_tuned_and_augmented(self, program, small_flags, weights, tmp_path):
        flags = [*small_flags, *FINE_TUNED]
        directories = [f"--run_dir={tmp_path / 'whole'}", f"--cache_dir={tmp_path / 'other'}"]
        whole = program("train", *flags, *directories)
        assert whole.code == 0, whole.err[-2000:]
        self.check(program, weights, tmp_path / "whole", flags, [("epoch 2", 6)], tmp_path)


# Half of the batch for each of two.
SMALL_BATCHES = [
    "--batch_size=8", "--fusion_weights=0,0.5,0.5", "--monitor_every=2", "--lr_schedule=cosine",
]  # fmt: skip


@pytest.fixture(scope="module")
def on_two_devices(small_flags, tmp_path_factory):
    """A run with --devices=cpu:2, started as in README but from another folder: (folder, log)."""
    folder = tmp_path_factory.mktemp("devices")
    flags = [*small_flags, *SMALL_BATCHES, "--devices=cpu:2", "--run_dir=run", "--cache_dir=cache"]
    (folder / "two.flags").write_text("\n".join(flags))
    ended = subprocess.run(
        [sys.executable, ROOT / "scripts" / "train.py", "--flagfile=two.flags"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        cwd=folder,
        env={k: v for k, v in os.environ.items() if not k.startswith("PYTHON")},
    )
    assert ended.returncode == 0, ended.stdout[-2000:]
    return folder / "run", ended.stdout


@pytest.mark.slow
def test_two_devices_train(on_two_devices, events, trained):
    run_dir, said = on_two_devices
    assert "Traceback" not in said
    assert "WARNING" not in said
    record = json.loads((run_dir / "results.json").read_text())
    assert 0 < record["image_to_text"]["map"] <= 1
    # The reported terms are means over replicas, so of the size that one device reports.
    one, two = events(trained[0]), events(run_dir)
    for term in ("L_R", "L_W", "total"):
        ratio = two[f"loss/{term}"][0][1] / one[f"loss/{term}"][0][1]
        assert 0.7 < ratio < 1.4, term
    # The rate has fallen to 0 at the end, whatever the number of devices.
    rates = [rate for _, rate in two["training/learning_rate_text"]]
    assert rates == pytest.approx([0.0005, 0], abs=1e-7)


@pytest.mark.slow
def test_two_workers_get_the_losses_of_two_devices(
    process, small_flags, on_two_devices, events, weights, tmp_path
):
    """Also where a worker was killed in the second epoch, and all are started again."""
    flags = [
        *small_flags, *SMALL_BATCHES, f"--run_dir={tmp_path / 'run'}",
        f"--cache_dir={tmp_path / 'cache'}",
    ]  # fmt: skip
    logs = [tmp_path / "log0", tmp_path / "log1"]
    first, second = clusters()
    chief = process("train", *flags, log=logs[0], env={"TF_CONFIG": first[0]})
    try:
        train_and_kill([("epoch 2", 1)], *flags, env={**os.environ, "TF_CONFIG": first[1]})
    finally:
        chief.kill()
        chief.wait()
    assert (tmp_path / "run" / "checkpoints" / "ckpt-1.index").exists()
    assert not (tmp_path / "run" / "results.json").exists()
    running = [
        process("train", *flags, log=log, env={"TF_CONFIG": config})
        for log, config in zip(logs, second)
    ]
    try:
        codes = [one.wait(timeout=180) for one in running]
    finally:
        for one in running:
            one.kill()
    said = [log.read_text() for log in logs]
    assert codes == [0, 0], "\n".join(text[-2000:] for text in said)
    assert "resuming" in said[0]
    alone, _ = on_two_devices
    one, two = events(alone), events(tmp_path / "run")
    for tag in [tag for tag in one if tag.startswith("loss/")]:
        np.testing.assert_allclose(one[tag][-1], two[tag][-1], rtol=1e-5, err_msg=tag)
    assert_same_weights(weights(alone), weights(tmp_path / "run"), atol=1e-5)
    # Only the chief keeps checkpoints and results; split and words are the same for both.
    chief, other = tmp_path / "run", tmp_path / "run.worker1"
    assert (chief / "results.json").exists()
    assert not (other / "checkpoints").exists()
    for name in ("split.json", "vocabulary.json", "backbone.json"):
        assert (chief / name).read_bytes() == (other / name).read_bytes()


def clusters() -> list:
    """TF_CONFIG of two workers on this machine, for two clusters one after the other."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(4)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        workers = [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]
    return [
        [
            json.dumps({"cluster": {"worker": pair}, "task": {"type": "worker", "index": index}})
            for index in range(2)
        ]
        for pair in (workers[:2], workers[2:])
    ]
