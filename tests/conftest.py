"""What several test files share: programs run in this process, drawn data, a small run."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import dsprh_tf  # noqa: F401 - quietens TensorFlow before its import

os.environ["COLUMNS"] = "200"  # progress bars in one line, however tests are run

# isort: split
import keras
import numpy as np
import pytest
from helpers import call_program, killed_at, read_events, read_weights, start_program
from PIL import Image

from dsprh_tf.data.dataset import PairDataset
from dsprh_tf.data.scenes.draw import write_scenes
from dsprh_tf.data.text import BagOfWords

TRAINED = {"trained", "exported", "collection", "embedded", "process"}
"""Fixtures that train a run or start a process."""


def pytest_collection_modifyitems(items):
    """Marks as slow what needs a trained run, and what slow_tests.txt lists."""
    lines = (Path(__file__).parent / "slow_tests.txt").read_text().splitlines()
    listed = {line for line in lines if line and line[0] != "#"}
    for item in items:
        if TRAINED.intersection(item.fixturenames) or item.nodeid.split("[")[0] in listed:
            item.add_marker("slow")


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
    """120 drawn images with texts and labels, in the layout of `pairs`."""
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, 120, 0, (80, 72))
    return folder


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
    """A folder with a copy of the drawn images, `scenes`, and an `index` of them and their texts.

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
def bag_of_words() -> BagOfWords:
    """The bag of words of `pairs`."""
    return BagOfWords(WORDS)


@pytest.fixture
def tiny_backbone():
    """`tiny_backbone(seed=0, scale=1.0)`: a backbone for images of 16 pixels per side."""

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
