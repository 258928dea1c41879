"""What several test files share: programs run in this process, drawn data, a small run."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import runpy
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import dsprh_tf  # noqa: F401 - quietens TensorFlow before its import

# isort: split
import keras
import numpy as np
import pytest
from absl import flags
from PIL import Image

from dsprh_tf.data.dataset import PairDataset
from dsprh_tf.data.scenes import write_scenes
from dsprh_tf.data.text import BagOfWords

SCRIPTS = Path(__file__).parents[1] / "scripts"
# Of scripts/, imported by programs.
MODULES = (
    "common", "encoders", "evaluate", "program", "quiet", "reference", "train_flags"
)  # fmt: skip


@dataclass
class Outcome:
    """How a program ended."""

    code: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """The one line of an error; progress bars before it do not count."""
        assert self.code == 2, (self.code, self.err)
        assert "Traceback" not in self.err
        lines = [line for line in self.err.split("\n") if line.strip() and "\r" not in line]
        assert len(lines) == 1, lines
        return lines[0]


def _forget_programs() -> None:
    """Programs define flags and modules as they start: each run starts from none."""
    for module in list(flags.FLAGS.flags_by_module_dict()):
        if module in MODULES or Path(module).parent == SCRIPTS:
            for flag in flags.FLAGS.get_flags_for_module(module):
                delattr(flags.FLAGS, flag.name)
    for name in MODULES:
        sys.modules.pop(name, None)


def call_program(name: str, *arguments) -> Outcome:
    """Runs scripts/NAME.py in this process: as the command line does, without its start-up."""
    out, err = io.StringIO(), io.StringIO()
    before = sys.argv, list(sys.path), keras.mixed_precision.global_policy()
    sys.argv = [str(SCRIPTS / f"{name}.py"), *map(str, arguments)]
    sys.path.insert(0, str(SCRIPTS))
    _forget_programs()
    code = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        code = end.code or 0
    finally:
        _forget_programs()
        sys.argv, sys.path[:] = before[0], before[1]
        keras.mixed_precision.set_global_policy(before[2])
    gc.collect()  # lets go of the run folder's lock
    return Outcome(code, out.getvalue(), err.getvalue())


def start_program(name: str, *arguments, log: Path, env: dict | None = None) -> subprocess.Popen:
    """Starts scripts/NAME.py as a process of its own that writes stdout and stderr to `log`."""
    command = [sys.executable, str(SCRIPTS / f"{name}.py"), *map(str, arguments)]
    with open(log, "wb") as file:
        return subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, env={**os.environ, **(env or {})}
        )


@pytest.fixture(scope="session")
def program():
    """`program(name, *arguments) -> Outcome`."""
    return call_program


@pytest.fixture(scope="session")
def process():
    """`process(name, *arguments, log=file, env={}) -> subprocess.Popen`."""
    return start_program


@pytest.fixture(scope="session")
def scenes_dir(tmp_path_factory) -> Path:
    """120 drawn pictures with texts and labels, in the layout of `pairs`."""
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, 120, 0, (80, 72))
    return folder


@pytest.fixture(scope="session")
def small_flags(scenes_dir, tmp_path_factory) -> list:
    """Flags of a training run of seconds; later ones overrule them."""
    return [
        "--dataset=pairs",
        f"--data_dir={scenes_dir}",
        "--queries=20",
        "--train_pairs=80",
        "--validation=8",
        "--min_word_pairs=2",
        "--backbone=MobileNet",
        "--image_size=64",
        "--resize=72",
        "--freeze_backbone",
        "--cov_channels=8",
        "--text_hidden=32",
        "--bits=16",
        "--epochs=2",
        "--batch_size=16",
        f"--cache_dir={tmp_path_factory.mktemp('cache')}",
    ]


@pytest.fixture(scope="session")
def trained(small_flags, tmp_path_factory):
    """A finished run: (run folder, what train.py said). Tests must not change it."""
    run_dir = tmp_path_factory.mktemp("runs") / "trained"
    outcome = call_program("train", *small_flags, f"--run_dir={run_dir}")
    assert outcome.code == 0, outcome.err[-2000:]
    return run_dir, outcome


@pytest.fixture(scope="session")
def exported(trained, tmp_path_factory) -> Path:
    """The encoders of the finished run. Tests must not change them."""
    folder = tmp_path_factory.mktemp("savedmodels") / "run"
    outcome = call_program("export", f"--run_dir={trained[0]}", f"--export_dir={folder}")
    assert outcome.code == 0, outcome.err
    return folder


@pytest.fixture(scope="session")
def collection(exported, scenes_dir, tmp_path_factory) -> Path:
    """A folder with a copy of the drawn pictures, `scenes`, and an `index` of them and their texts.

    Tests must leave it as it is.
    """
    folder = tmp_path_factory.mktemp("collection")
    shutil.copytree(scenes_dir, folder / "scenes")
    for part in ("image", "text"):
        outcome = call_program(
            "encode", f"--export_dir={exported}", f"--{part}s={folder}/scenes/manifest.csv",
            f"--out={folder}/{part}", "--on_bad_text=skip",
        )  # fmt: skip
        assert outcome.code == 0, outcome.err
    codes = f"--codes={folder}/image,{folder}/text"
    outcome = call_program("index", "build", codes, f"--index={folder}/index")
    assert outcome.code == 0, outcome.err
    return folder


def killed_at(folder, point: int, change) -> bool:
    """Runs `change` in a child that SIGKILL ends at its `point`-th file operation in a folder.

    Returns:
        Whether it was killed; False once `change` has fewer operations.
    """
    child = os.fork()
    if child == 0:
        left = point

        def die(event, arguments):
            nonlocal left
            if any(str(folder) in str(argument) for argument in arguments):
                left -= 1
                if left <= 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        code = 1
        try:
            sys.addaudithook(die)
            change()
            code = 0
        finally:
            os._exit(code)
    status = os.waitpid(child, 0)[1]
    if not os.WIFSIGNALED(status):
        assert os.WEXITSTATUS(status) == 0
        return False
    assert os.WTERMSIG(status) == signal.SIGKILL
    return True


@pytest.fixture(scope="session")
def killed():
    """`killed(folder, point, change) -> bool`, see `killed_at`."""
    return killed_at


WORDS = ("red", "green", "blue", "dog", "boat", "tree")


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> PairDataset:
    """24 small JPEGs of one colour and some noise, with words and labels."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(7)
    paths, texts = [], []
    labels = np.zeros((24, 3), np.uint8)
    for i in range(24):
        colour = np.full(3, 60)
        colour[i % 3] = 200
        pixels = np.clip(colour + rng.normal(0, 30, (26, 30, 3)), 0, 255).astype(np.uint8)
        path = folder / f"{i:02}.jpg"
        Image.fromarray(pixels).save(path, quality=95)
        paths.append(str(path))
        texts.append(f"{WORDS[i % 3]} {WORDS[3 + (i // 3) % 3]}")
        labels[i, i % 3] = 1
    return PairDataset(
        name="pictures",
        ids=[f"p{i}" for i in range(24)],
        image_paths=paths,
        texts=texts,
        labels=labels,
        label_names=WORDS[:3],
    )


@pytest.fixture(scope="session")
def words() -> BagOfWords:
    """The bag of words of `pictures`."""
    return BagOfWords(WORDS)


@pytest.fixture
def tiny_backbone():
    """`tiny_backbone(seed=0, scale=1.0)`: a trunk for pictures of 16 pixels a side."""

    def build(seed: int = 0, scale: float = 1.0, dropout: float = 0.0) -> keras.Model:
        from dsprh_tf.layers import SeededDropout

        def init(number):
            return keras.initializers.GlorotUniform(seed=seed * 10 + number)

        pixels = keras.Input((16, 16, 3), name="pixels")
        x = keras.layers.Rescaling(scale / 255)(pixels)
        conv_map = keras.layers.Conv2D(
            8, 3, 4, activation="relu", padding="same", kernel_initializer=init(1)
        )(x)
        pooled = keras.layers.GlobalAveragePooling2D()(conv_map)
        feature = keras.layers.Dense(
            12, activation="relu", kernel_initializer=init(2), bias_initializer="ones"
        )(pooled)
        if dropout:
            feature = SeededDropout(dropout, seed=seed)(feature)
        return keras.Model(pixels, {"conv_map": conv_map, "feature": feature}, name="tiny")

    return build


def read_events(run_dir) -> dict:
    """Tag -> list of (step, value) of a run's event files; pictures as PNG bytes."""
    import tensorflow as tf
    from tensorflow.core.util import event_pb2

    found = {}
    for path in sorted(Path(run_dir, "tensorboard").iterdir()):
        for record in tf.data.TFRecordDataset(str(path)):
            event = event_pb2.Event.FromString(record.numpy())
            for value in event.summary.value:
                content = tf.make_ndarray(value.tensor)
                entry = float(content) if content.shape == () else content[2]
                found.setdefault(value.tag, []).append((event.step, entry))
    return found


def read_weights(run_dir) -> dict:
    """Name -> array of everything in a run's last checkpoint."""
    import tensorflow as tf

    reader = tf.train.load_checkpoint(str(Path(run_dir) / "checkpoints"))
    names = sorted(reader.get_variable_to_shape_map())
    return {n: reader.get_tensor(n) for n in names if not n.startswith("_CHECKPOINTABLE")}


@pytest.fixture(scope="session")
def events():
    """`events(run_dir) -> {tag: [(step, value)]}`."""
    return read_events


@pytest.fixture(scope="session")
def weights():
    """`weights(run_dir) -> {name: array}` of the last checkpoint."""
    return read_weights
