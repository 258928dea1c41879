"""What several test files share: programs run in this process, drawn data, a small run."""

from __future__ import annotations

import fcntl
import gc
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers import call_program, killed_at, read_events, read_weights, start_program
from PIL import Image

import dsprh_tf  # noqa: F401 - quietens TensorFlow before its import
from dsprh_tf.data.dataset import PairDataset

# What imports TensorFlow is imported where it is used: of the processes of `pytest -n`, the one
# that only hands out the tests does without.
os.environ["COLUMNS"] = "200"  # progress bars in one line, however tests are run

TRAINED = {"trained", "exported", "collection", "embedded", "process"}
"""Fixtures that train a run or start a process."""


def pytest_collection_modifyitems(items):
    """Marks as slow what needs a trained run, and what slow_tests.txt lists."""
    lines = (Path(__file__).parent / "slow_tests.txt").read_text().splitlines()
    listed = {line for line in lines if line and line[0] != "#"}
    for item in items:
        if TRAINED.intersection(item.fixturenames) or item.nodeid.split("[")[0] in listed:
            item.add_marker("slow")


@pytest.hookimpl(hookwrapper=True)
def pytest_collection():
    """Sets aside what the imports made: a full garbage collection of it takes .3 s, each time."""
    gc.disable()
    yield
    gc.enable()
    gc.freeze()


def pytest_sessionfinish():
    """Hypothesis may be imported now, and looks for owners of what it registers."""
    gc.unfreeze()


@pytest.fixture(scope="session")
def program():
    """`program(name, *arguments) -> Outcome`."""
    return call_program


@pytest.fixture(scope="session")
def process():
    """`process(name, *arguments, log=file, env={}) -> subprocess.Popen`."""
    return start_program


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """`shared(name, make) -> folder` that `make(folder)` fills, once for all testing processes."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent

    def get(name: str, make) -> Path:
        folder = base / f"shared-{name}"
        with open(f"{folder}.lock", "a+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not os.path.getsize(lock.name):  # nobody has made it, or whoever tried has failed
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                make(folder)
                lock.write("made")
        return folder

    return get


@pytest.fixture(scope="session")
def scenes_dir(shared) -> Path:
    """120 drawn images with texts and labels, in the layout of `pairs`."""
    from dsprh_tf.data.scenes.draw import write_scenes

    return shared("scenes", lambda folder: write_scenes(folder, 120, 0, (80, 72)))


@pytest.fixture(scope="session")
def small_flags(scenes_dir, tmp_path_factory) -> list:
    """Flags of a training run of seconds; later ones overrule them."""
    return [
        "--dataset=pairs",
        "--method=dsprh",
        "--nofold_plurals",
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
def trained(small_flags, shared):
    """A finished run: (run folder, what train.py said). Tests must not change it."""

    def make(folder):
        outcome = call_program("train", *small_flags, f"--run_dir={folder}/trained")
        assert outcome.code == 0, outcome.err[-2000:]
        (folder / "outcome").write_bytes(pickle.dumps(outcome))

    folder = shared("run", make)
    return folder / "trained", pickle.loads((folder / "outcome").read_bytes())


@pytest.fixture(scope="session")
def exported(trained, shared):
    """The encoders of the finished run. Tests must not change them.

    TensorFlow loads each of them once: it takes a second or two, and what it gives never changes.
    """
    import tensorflow as tf

    def make(folder):
        outcome = call_program("export", f"--run_dir={trained[0]}", f"--export_dir={folder}")
        assert outcome.code == 0, outcome.err

    folder = shared("encoders", make)
    load, loaded = tf.saved_model.load, {}

    def load_once(path, *arguments, **options):
        if folder not in Path(path).parents:
            return load(path, *arguments, **options)
        if path not in loaded:
            loaded[path] = load(path, *arguments, **options)
        return loaded[path]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(tf.saved_model, "load", load_once)
        yield folder


@pytest.fixture(scope="session")
def collection(exported, scenes_dir, shared) -> Path:
    """A folder with a copy of the drawn images, `scenes`, and an `index` of them and their texts.

    Tests must leave it as it is.
    """

    def make(folder):
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

    return shared("collection", make)


@pytest.fixture(scope="session")
def killed():
    """`killed(folder, point, change) -> bool`, see `killed_at`."""
    return killed_at


WORDS = ("red", "green", "blue", "dog", "boat", "tree")


@pytest.fixture(scope="session")
def pairs(tmp_path_factory) -> PairDataset:
    """24 small JPEGs of one colour and some noise, with texts and labels."""
    folder = tmp_path_factory.mktemp("pairs")
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
        name="pairs",
        ids=[f"p{i}" for i in range(24)],
        image_paths=paths,
        texts=texts,
        labels=labels,
        label_names=WORDS[:3],
    )


@pytest.fixture(scope="session")
def bag_of_words():
    """The bag of words of `pairs`: a `BagOfWords`."""
    from dsprh_tf.data.text import BagOfWords

    return BagOfWords(WORDS)


@pytest.fixture
def tiny_backbone():
    """`tiny_backbone(seed=0, scale=1.0)`: a backbone for images of 16 pixels per side."""

    import keras

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


@pytest.fixture(scope="session")
def events():
    """`events(run_dir) -> {tag: [(step, value)]}`."""
    return read_events


@pytest.fixture(scope="session")
def weights():
    """`weights(run_dir) -> {name: array}` of the last checkpoint."""
    return read_weights
