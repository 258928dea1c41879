"""The program `sync`: the plan on the screen, a sync without encoders, and what is refused."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time

import pytest
from helpers import ROOT
from index_helpers import HashEncoder, write_image

from dsprh_tf.index import sync
from dsprh_tf.index.hamming import HammingIndex


@pytest.fixture
def photos(tmp_path):
    """A folder of 8 images and an index of it, `index` beside it."""
    for i in range(8):
        write_image(tmp_path / "photos" / f"{i}.png", i)
    encoder = HashEncoder()
    encoder.info = {"fingerprint": "abc"}
    index = HammingIndex.create(tmp_path / "index", 64, "abc")
    plans = sync.Collection(str(tmp_path / "photos")).plans(index)
    sync.apply(index, tmp_path / "index", plans, lambda _: encoder)
    index._lock.release()
    return tmp_path / "photos"


def test_a_dry_run_and_a_run(program, photos):
    flags = (str(photos), f"--index={photos.parent}/index")
    write_image(photos / "new.png", 100)
    (photos / "1.png").rename(photos / "one.png")
    (photos / "2.png").unlink()
    shutil.copy(photos / "3.png", photos / "three.png")
    before = (photos.parent / "index" / "index.json").read_bytes()
    outcome = program("sync", *flags, "--dry_run")
    assert outcome.code == 0, outcome.err
    line = "images: 1 new, 0 changed, 1 moved, 1 gone, 1 equal to another, 6 as before"
    assert line in outcome.out
    for named in (f"new: {photos}/new.png", f"moved: {photos}/1.png -> {photos}/one.png",
                  f"gone: {photos}/2.png", f"equal: {photos}/three.png"):  # fmt: skip
        assert named in outcome.out
    assert (photos.parent / "index" / "index.json").read_bytes() == before
    assert "needs --export_dir=FOLDER" in program("sync", *flags).line
    (photos / "new.png").unlink()
    outcome = program("sync", *flags)  # nothing is left to encode: without encoders
    assert outcome.code == 0, outcome.err
    assert "(7 items, 0 encoded)" in outcome.out
    program("index", "undo", flags[1])
    assert len(HammingIndex.load(photos.parent / "index")) == 8


def test_tensorflow_is_left_alone_where_nothing_is_to_encode(photos):
    (photos / "1.png").rename(photos / "one.png")
    script = (
        "import sys; from dsprh_tf.cli.program import load\n"
        "code = load('sync').run('sync', sys.argv[1:], 'dsprh sync')\n"
        "sys.exit(code or ('tensorflow' in sys.modules and 'TensorFlow was imported'))"
    )
    command = [sys.executable, "-c", script, str(photos), f"--index={photos.parent}/index"]
    outcome = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stderr
    assert "1 moved" in outcome.stdout


def test_watch(photos, process):
    log, index = photos.parent / "log", photos.parent / "index"
    with process("sync", f"--index={index}", "--watch=0.2", str(photos), log=log) as running:
        try:
            said = _until(log, "0 encoded")
            photos.rename(photos.parent / "away")
            said = _until(log, "waiting: ")
            assert "does not exist" in said
            (photos.parent / "away").rename(photos)
            (photos / "1.png").rename(photos / "one.png")
            said = _until(log, "1 moved")
        finally:
            running.terminate()


def _until(log, wanted, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        said = log.read_text()
        if wanted in said:
            return said
        time.sleep(0.1)
    raise AssertionError(f"no {wanted!r} in {log.read_text()!r}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "needs a folder of images and --index=FOLDER"),
        (["photos"], "needs a folder of images and --index=FOLDER"),
        (["photos", "more", "--index=x"], "got 'more', expected only --flag=value"),
        (["photos", "--index=milvus://h:1/x"], "--index is a database, expected a folder"),
        (["photos", "--index=x", "--dry_run", "--watch=1"], "got --dry_run and --watch"),
        (["nowhere", "--index=x"], "nowhere does not exist"),
    ],
)
def test_bad_commands(program, arguments, message):
    assert message in program("sync", *arguments).line


def test_it_is_a_command_of_index_too(program):
    """With its own flags, and its own --help."""
    outcome = program("index", "sync", "nosuch", "--index=nosuch", "--dry_run")
    assert outcome.code == 2 and outcome.err.startswith("sync: ")
    outcome = program("index", "sync", "--help")
    assert outcome.code == 0 and "index sync photos --index=indexes/photos" in outcome.out
