"""The program `encode`: images and texts, kills, broken files, and what is refused."""

from __future__ import annotations

import csv
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT
from index_helpers import assert_same_folders, write_image

from dsprh_tf.index.code_folder import CodeFolder
from dsprh_tf.serving.encoder import Encoder

# Runs a program until its bar of that name stands at a number, where SIGKILL ends it.
KILLER = """
import os, runpy, signal, sys
from tqdm import tqdm

point, *sys.argv = sys.argv[1:]
update = tqdm.update

def update_and_die(self, n=1):
    update(self, n)
    if self.desc.startswith("encoding") and self.n >= int(point):
        os.kill(os.getpid(), signal.SIGKILL)

tqdm.update = update_and_die
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def encoded(program, exported, scenes_dir, tmp_path_factory):
    out = tmp_path_factory.mktemp("codes") / "images"
    outcome = program("encode", f"--export_dir={exported}", f"--images={scenes_dir}/images",
                      f"--out={out}", "--batch_size=16", "--part_size=48")  # fmt: skip
    assert outcome.code == 0, outcome.err
    return out, outcome


def test_images(encoded, exported, scenes_dir):
    out, said = encoded
    folder = CodeFolder(out)
    paths = sorted(str(path) for path in (scenes_dir / "images").iterdir())
    assert folder.items()["path"].to_pylist() == paths
    encoder = Encoder(exported, "image")
    expected = encoder.encode([Path(path).read_bytes() for path in paths], 16)
    np.testing.assert_array_equal(folder.codes, expected)
    assert folder.fingerprint == encoder.info["fingerprint"]
    assert "encoded 120 images in" in said.out
    assert f"codes: {out} (120 of 16 bits)" in said.out
    assert "encoding: 100%" in said.err


def test_texts(program, exported, scenes_dir, tmp_path):
    manifest = scenes_dir / "manifest.csv"
    outcome = program("encode", f"--export_dir={exported}", f"--texts={manifest}",
                      f"--out={tmp_path}", "--on_bad_text=skip")  # fmt: skip
    assert outcome.code == 0, outcome.err
    with open(manifest, newline="", encoding="utf-8") as file:
        texts = [" ".join(row["text"].split()) for row in csv.DictReader(file)]
    texts = list(dict.fromkeys(texts))
    folder = CodeFolder(tmp_path)
    kept = folder.items()["text"].to_pylist()
    encoder = Encoder(exported, "text")
    assert kept == [t for t, known in zip(texts, encoder.known_words(texts)) if known]
    np.testing.assert_array_equal(folder.codes, encoder.encode(kept, 512))
    assert all(folder.items()["tags"].to_pylist())


def test_killed_and_started_again(encoded, program, exported, scenes_dir, tmp_path):
    out = tmp_path / "codes"
    flags = [f"--export_dir={exported}", f"--images={scenes_dir}/images", f"--out={out}",
             "--batch_size=16", "--part_size=48"]  # fmt: skip
    script = str(ROOT / "scripts" / "encode.py")
    command = [sys.executable, "-c", KILLER, "80", script, *flags]
    ended = subprocess.run(command, capture_output=True, text=True, errors="replace")
    assert ended.returncode == -signal.SIGKILL, ended.stderr[-2000:]
    outcome = program("encode", *flags)
    assert outcome.code == 0, outcome.err
    assert "48 were done before" in outcome.out
    assert_same_folders(out, encoded[0])


def test_broken_images(program, exported, encoded, scenes_dir, tmp_path):
    folder = tmp_path / "images"
    shutil.copytree(scenes_dir / "images", folder)
    first, second, *_ = sorted(folder.iterdir())
    first.write_bytes(first.read_bytes()[:1000])
    write_image(second, 1, format="WEBP")
    flags = ["encode", f"--export_dir={exported}", f"--images={folder}",
             f"--out={tmp_path}/codes", "--batch_size=16", "--part_size=48"]  # fmt: skip
    line = program(*flags, "--on_bad_image=error").line
    assert line.startswith("encode: image ")
    assert f"{first} is truncated" in line
    outcome = program(*flags)
    assert outcome.code == 0, outcome.err
    assert "1 skipped (0.8%), all listed in" in outcome.out
    assert f"{first} is truncated" in outcome.out
    codes = CodeFolder(tmp_path / "codes").codes
    np.testing.assert_array_equal(codes[15:], CodeFolder(encoded[0]).codes[16:])
    assert len(codes) == 119


def test_mostly_broken_images(program, exported, scenes_dir, tmp_path):
    """Broken files and a link to nowhere are counted; with more than half of them it fails."""
    folder = tmp_path / "images"
    folder.mkdir()
    first = min((scenes_dir / "images").iterdir())
    shutil.copy(first, folder / "good.jpg")
    (folder / "link.jpg").symlink_to("nowhere.jpg")
    flags = ["encode", f"--export_dir={exported}", f"--images={folder}", f"--out={tmp_path}/codes"]
    outcome = program(*flags)
    assert outcome.code == 0, outcome.err
    assert "1 skipped (50.0%)" in outcome.out and "link.jpg is a link to a file" in outcome.out
    (folder / "broken.jpg").write_bytes(b"broken")
    assert "more than 50% of the images" in program(*flags).line
    assert len(CodeFolder(tmp_path / "codes").codes) == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "needs --out=FOLDER, and either --images=FOLDER or --texts=MANIFEST or --features"),
        (["--features=a.npy", "--out=b"], "--features needs --side=image or --side=text"),
        (["--texts=a", "--out=b", "--side=text"], "got --side without --features, where it has no"),
        (["--images=a", "--texts=b", "--out=c"], "either --images=FOLDER or --texts"),
        (["--images=a", "--out=c", "--shard=2/2"], "--shard=2/2, expected i/n with 0 <= i < n"),
        (["--images=a", "--out=c", "--shard=1"], "--shard=1, expected i/n"),
        (["--images=a", "--out=c"], "needs --export_dir=FOLDER"),
        (["--images=a", "--out=c", "--export_dir=gone"], "no exported image encoder in gone"),
        (["build"], "got 'build', expected only --flag=value"),
    ],
)
def test_flags(program, flags, message):
    line = program("encode", *flags).line
    assert line.startswith("encode: ")
    assert message in line


def test_vectors_for_encoders_of_texts(program, exported, tmp_path):
    np.save(tmp_path / "v.npy", np.ones((2, 4)))
    line = program("encode", f"--export_dir={exported}", f"--features={tmp_path}/v.npy",
                   "--side=text", f"--out={tmp_path}/codes").line  # fmt: skip
    assert "takes texts, not vectors: give texts, or export a run with --dataset=features" in line


def test_other_encoders(program, exported, scenes_dir, encoded, tmp_path):
    shutil.copytree(exported, tmp_path / "export")
    (path,) = (tmp_path / "export" / "image_encoder").glob("*/assets.extra/encoder.json")
    path.write_text(path.read_text().replace('"fingerprint": "', '"fingerprint": "0'))
    shutil.copytree(encoded[0], tmp_path / "codes")
    outcome = program("encode", f"--export_dir={tmp_path}/export",
                      f"--images={scenes_dir}/images", f"--out={tmp_path}/codes")  # fmt: skip
    assert "holds codes of another fingerprint" in outcome.line
