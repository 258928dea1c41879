"""Bad input to the programs: exit code 2 and one line that names what, where and the fix."""

from __future__ import annotations

import contextlib
import csv
import json
import resource
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
from helpers import ROOT, png_header

from dsprh_tf import __version__
from dsprh_tf.backbones.architectures import build_backbone
from dsprh_tf.cli.program import PROGRAMS, main


def assert_line(outcome, *parts) -> None:
    """One line on stderr and nothing else but finished bars; the run has not begun."""
    line = outcome.line
    for part in parts:
        assert part in line, (part, line)


@pytest.fixture
def refused(program, small_flags, tmp_path):
    """`refused(*flags)`: how train.py refuses these flags, and that it leaves no checkpoint."""

    def run(*changes):
        outcome = program("train", *small_flags, f"--run_dir={tmp_path / 'run'}", *changes)
        assert not (tmp_path / "run" / "checkpoints").exists()
        return outcome

    return run


@pytest.fixture
def manifest(scenes_dir, tmp_path):
    """`manifest(change)`: a copy of the drawn data whose rows (dicts) `change` may edit."""
    folder = tmp_path / "data"

    def make(change=lambda rows: rows, columns=("image", "text", "labels")):
        shutil.copytree(scenes_dir, folder, dirs_exist_ok=True)
        with open(scenes_dir / "manifest.csv", newline="", encoding="utf-8") as file:
            rows = [{c: row[c] for c in columns} for row in csv.DictReader(file)]
        rows = change(rows) or rows
        with open(folder / "manifest.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
        return folder

    return make


class TestFlags:
    """Found before any data are read: the data folder of these tests does not exist."""

    @pytest.mark.parametrize(
        ("flags", "parts"),
        [
            (["--bits=12"], ["bits must be a positive multiple of 8, received 12"]),
            (["--bits=0"], ["bits must be a positive multiple of 8, received 0"]),
            (["--bits=many"], ["--bits=many"]),
            (["--dataset=imagenet"], ["--dataset is 'imagenet'", "coco, features, mirflickr25k"]),
            (["--method=dcmh"], ["--method is 'dcmh'", "dsprh"]),
            (["--optimizer=adam"], ["--optimizer is 'adam'", "sgd, adamw, lamb"]),
            (["--related=friends"], ["--related is 'friends'", "pair, neighbours, labels"]),
            (["--on_bad_image=guess"], ["--on_bad_image is 'guess'", "error, skip"]),
            (["--precision=float8"], ["--precision is 'float8'", "float32, mixed_bfloat16"]),
            (["--devices=tpu"], ["--devices is 'tpu', expected auto, gpu:N or cpu:N"]),
            (["--colour=red"], ["colour"]),
            (["--bit=16"], ["bit"]),
            (["stray"], ["got 'stray', expected only --flag=value"]),
            (["--flagfile=nowhere.flags"], ["nowhere.flags"]),
            (["--epochs=0"], ["--epochs is 0, expected a whole number of at least 1"]),
            (["--batch_size=-1"], ["--batch_size is -1, expected a whole number of at least 1"]),
            (["--lr_image=-0.1"], ["--lr_image is -0.1, expected a finite number of at least 0"]),
            (["--lr_text=nan"], ["--lr_text is nan, expected a finite number"]),
            (["--image_weight=2"], ["--image_weight is 2.0, expected a finite number from 0 to 1"]),
            (["--fusion_weights=1,2"], ["--fusion_weights is 1.0,2.0, expected 3 numbers"]),
            (["--fusion_weights=a,b,c"], ["--fusion_weights is a,b,c, expected numbers"]),
            (["--fusion_weights=0,0,0"], ["--fusion_weights is 0.0,0.0,0.0", "not all 0"]),
            (["--fusion_weights=1,-1,1"], ["--fusion_weights is 1.0,-1.0,1.0"]),
            (["--neighbour_share=1"], ["--neighbour_share is 1, expected more than 0"]),
            (["--heads=3"], ["--heads belongs to sdeh; dsprh has"]),
            (["--cov_chanels=3"], ["cov_chanels", "Did you mean: cov_channels"]),
            (["--neighbour_share=0"], ["--neighbour_share is 0, expected more than 0"]),
            (["--image_size=96"], ["--image_size=96 is larger than --resize=72"]),
            (["--backbone=mobilnet"], ["'mobilnet'", "near: MobileNet"]),
            (["--backbone_weights=gone.h5"], ["gone.h5: no such weight file for MobileNet"]),
            (["--dropout=0.5"], ["dropout=0.5 for MobileNet: only alexnet"]),
            (["--augment"], ["--augment changes images", "--nocache"]),
            (
                ["--related=neighbours", "--similarity_source=fused"],
                ["use --similarity_source=frozen"],
            ),
        ],
        ids=lambda value: ",".join(value)[:40],
    )
    def test_value(self, refused, tmp_path, flags, parts):
        assert_line(refused("--data_dir=/nonexistent", *flags), "train: ", *parts)
        assert not (tmp_path / "run").exists()

    def test_as_a_process(self, tmp_path):
        """What the operating system sees: one line on stderr, exit code 2."""
        found = subprocess.run(
            [
                sys.executable,
                ROOT / "scripts" / "train.py",
                "--bits=12",
                f"--run_dir={tmp_path / 'run'}",
            ],
            capture_output=True,
            text=True,
        )
        assert found.returncode == 2
        assert found.stdout == ""
        assert found.stderr == (
            "train: bits must be a positive multiple of 8, received 12; use for example 64\n"
        )

    @pytest.mark.parametrize(
        ("name", "flags", "part"),
        [
            ("evaluate", [], "needs --run_dir=FOLDER"),
            ("evaluate", ["--run_dir=nowhere"], "nowhere is not a run folder"),
            ("evaluate", ["--ties=random"], "--ties=random"),
            ("export", ["--run_dir=a"], "needs --run_dir=FOLDER and --export_dir=FOLDER"),
            ("export", ["--run_dir=nowhere", "--export_dir=b"], "nowhere is not a run folder"),
            ("search", ["--run_dir=a"], "--run_dir=a needs --export_dir=FOLDER"),
            ("search", ["--run_dir=a", "--export_dir=nowhere"], "no exported image encoder in now"),
            ("search", ["--run_dir=a", "--tops=3"], "tops"),
        ],
    )
    def test_other_programs(self, program, name, flags, part):
        assert_line(program(name, *flags), f"{name}: ", part)


class TestData:
    def test_no_data_folder(self, refused):
        assert_line(refused("--data_dir="), "--dataset=pairs needs --data_dir=FOLDER")

    def test_missing_data_folder(self, refused, tmp_path):
        missing = tmp_path / "missing"
        for dataset in ("pairs", "coco", "mirflickr25k", "nuswide", "features"):
            outcome = refused(f"--data_dir={missing}", f"--dataset={dataset}")
            assert_line(outcome, f"{missing} does not exist")
            assert len(outcome.line) > len(str(missing)) + 60  # and what to put there

    def test_empty_data_folder(self, refused, tmp_path):
        empty = tmp_path / "empty"
        empty.mkdir()
        for dataset in ("pairs", "coco", "mirflickr25k", "nuswide"):
            assert_line(refused(f"--data_dir={empty}", f"--dataset={dataset}"), f"{empty} is empty")

    def test_manifest_without_a_column(self, refused, manifest):
        folder = manifest(columns=("image", "labels"))
        assert_line(
            refused(f"--data_dir={folder}"), "manifest.csv has no column text (it has image, labels"
        )

    @pytest.mark.parametrize(
        ("content", "problem"),
        [
            (None, "does not exist"),
            (b"", "is empty (0 bytes)"),
            ("half", "is truncated"),
            (b"This is no picture.", "is no JPEG, PNG, GIF, BMP, WebP, TIFF, HEIC or AVIF"),
            (png_header(60_000, 40), "is too large (60000 x 40 pixels"),
        ],
        ids=["missing", "empty", "truncated", "not an image", "60,000 pixels wide"],
    )
    def test_bad_image(self, refused, manifest, content, problem):
        folder = manifest()
        with open(folder / "manifest.csv", newline="", encoding="utf-8") as file:
            name = list(csv.DictReader(file))[4]["image"]
        path = folder / name
        if content is None:
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[:700] if content == "half" else content)
        outcome = refused(f"--data_dir={folder}")
        assert_line(outcome, "manifest.csv row 6: image ", name, problem, "on_bad_image=skip")

    def test_text_without_a_known_word(self, refused, manifest):
        def change(rows):
            rows[7]["text"] = "zyxwv"

        flags = f"--data_dir={manifest(change)}", "--queries=10", "--train_pairs=110"
        assert_line(
            refused(*flags, "--on_bad_text=error"),
            "1 of 120 pairs (0.8%) have no known word in their text, the first is item",
            "('zyxwv')",
            "--on_bad_text=skip",
        )

    def test_more_than_half_of_the_texts_without_a_known_word(self, refused, manifest):
        def change(rows):
            for number, row in enumerate(rows):
                if number % 5 < 3:
                    row["text"] = f"x{number:04}"

        assert_line(
            refused(f"--data_dir={manifest(change)}", "--accept_odd_data"),
            "pairs (6",
            "More than 50% would be left out",
            "look at them, or lower --min_word_pairs",
        )

    def test_bad_pairs_may_be_skipped_counted_and_listed(self, program, small_flags, manifest):
        def change(rows):
            rows[7]["text"] = "zyxwv"

        folder = manifest(change)
        names = sorted(path.name for path in (folder / "images").iterdir())[:2]
        (folder / "images" / names[0]).unlink()
        (folder / "images" / names[1]).write_bytes(b"")
        outcome = program(
            "train", *small_flags, f"--data_dir={folder}", "--on_bad_image=skip", "--epochs=1",
            "--fusion_weights=0,0,1", "--queries=10", "--train_pairs=108",
            f"--run_dir={folder / 'run'}",
        )  # fmt: skip
        assert outcome.code == 0, outcome.err
        assert "dropped 2 of 120 pairs for a bad image" in outcome.out
        for name, problem in zip(names, ("does not exist", "is empty")):
            lines = [one for one in outcome.out.split("\n") if name in one]
            assert len(lines) == 1
            assert problem in lines[0]
        (line,) = [one for one in outcome.out.split("\n") if "left out: " in one]
        assert "left out: 1 of 118 pairs (0.8%) have no known word in their text" in line
        assert f"('zyxwv'); {folder / 'run' / 'left_out.csv'} lists them" in line
        listed = (folder / "run" / "left_out.csv").read_text().split("\n")
        assert [row.split(",")[-1] for row in listed] == ["text", "zyxwv", ""]
        record = json.loads((folder / "run" / "results.json").read_text())
        assert record["queries"] + record["database"] == 117

    def test_no_word_at_all(self, refused):
        assert_line(refused("--min_word_pairs=1000"), "no word occurs in 1000 or more of the 72")

    def test_fewer_pairs_than_queries(self, refused):
        assert_line(
            refused("--queries=120"), "has 120 pairs but 120 queries", "lower the number of queries"
        )

    def test_fewer_pairs_than_a_batch(self, refused):
        assert_line(
            refused("--batch_size=73"), "72 training pairs, fewer than a batch of 73", "lower --bat"
        )

    @pytest.mark.parametrize(
        ("change", "parts"),
        [
            ({"labels": np.eye(3)[np.arange(29) % 3]}, ["labels are [29, 3], expected [30, L]"]),
            ({"labels": np.full((30, 3), 2)}, ["labels row 0", "expected only 0 and 1"]),
            ({"labels": np.arange(30) / 2}, ["labels row 1", "expected a class index"]),
            ({"image": np.where(np.arange(30)[:, None] == 4, np.nan, np.ones((30, 4)))},
             ["image row 4", "NaN, infinity"]),
            ({"text": np.where(np.arange(30)[:, None] == 9, -np.inf, np.ones((30, 4)))},
             ["text row 9", "NaN, infinity"]),
            ({"text": np.ones((31, 4))}, ["image is [30, 4] and text is [31, 4]"]),
        ],
        ids=["label rows", "label values", "label shape", "nan", "-inf", "rows"],
    )  # fmt: skip
    def test_features(self, refused, tmp_path, change, parts):
        path = tmp_path / "vectors.npz"
        arrays = {"image": np.ones((30, 4)), "text": np.ones((30, 4)), **change}
        np.savez(path, **arrays)
        outcome = refused(f"--data_dir={path}", "--dataset=features", "--queries=5")
        assert_line(outcome, "vectors.npz", *parts)


class TestWeights:
    def test_of_another_architecture(self, refused, tmp_path):
        path = tmp_path / "other.weights.h5"
        keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]).save_weights(str(path))
        outcome = refused(f"--backbone_weights={path}")
        assert_line(outcome, "other.weights.h5: not the weights of MobileNet", "(4, 3)")

    def test_of_another_torch_architecture(self, refused, tmp_path):
        from safetensors.numpy import save_file

        path = tmp_path / "other.safetensors"
        save_file({"features.0.weight": np.zeros((8, 3, 3, 3), np.float32)}, path)
        outcome = refused(f"--backbone_weights={path}", "--backbone=alexnet")
        assert_line(
            outcome, "other.safetensors: not the weights of alexnet", "features.0.weight",
            "8, 3, 3, 3",
        )  # fmt: skip

    def test_changed_since_the_run_began(self, program, trained, tmp_path):
        run_dir = tmp_path / "run"
        shutil.copytree(trained[0], run_dir)
        backbone = build_backbone("MobileNet", image_size=64, seed=1)
        trunk = next(layer for layer in backbone.layers if isinstance(layer, keras.Model))
        trunk.save_weights(str(tmp_path / "others.weights.h5"))
        outcome = program(
            "evaluate", f"--run_dir={run_dir}",
            f"--backbone_weights={tmp_path / 'others.weights.h5'}",
        )  # fmt: skip
        assert_line(outcome, "others.weights.h5 are not those that the run in", "began with")


class TestRun:
    def test_other_flags_on_resume(self, program, small_flags, trained, tmp_path):
        run_dir = tmp_path / "run"
        shutil.copytree(trained[0], run_dir)
        before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
        outcome = program("train", *small_flags, "--bits=32", f"--run_dir={run_dir}")
        assert_line(outcome, "--bits: was 16, is 32", "give the same flags", "--overwrite")
        assert {path: path.read_bytes() for path in before} == before

    def test_overwrite_keeps_the_former_run_if_the_new_one_cannot_begin(
        self, program, small_flags, trained, tmp_path
    ):
        run_dir = tmp_path / "run"
        shutil.copytree(trained[0], run_dir)
        before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
        flags = [*small_flags, "--overwrite", f"--run_dir={run_dir}"]
        assert_line(program("train", *flags, "--data_dir=nosuch.csv"), "nosuch.csv")
        assert {path: path.read_bytes() for path in before} == before
        # Found only once the folder is open.
        assert_line(program("train", *flags, "--queries=4000"), "4,000 queries were asked for")
        assert {path: path.read_bytes() for path in before} == before

    def test_a_mistake_does_not_occupy_the_run_folder(self, program, vector_flags):
        """The corrected command works: the refused one has begun nothing."""
        assert_line(program("train", *vector_flags, "--queries=40"), "40 queries were asked for")
        outcome = program("train", *vector_flags)
        assert outcome.code == 0, outcome.err

    def test_diverging_run(self, program, vector_flags):
        outcome = program("train", *vector_flags, "--lr_image=1e30", "--lr_text=1e30")
        assert_line(outcome, "train: ", "became ", "of epoch 1: lower the learning rate")

    def test_full_disk_while_writing_a_checkpoint(self, program, vector_flags):
        flags = [*vector_flags, "--text_hidden=4096"]
        with no_file_beyond(200_000):
            outcome = program("train", *flags)
        assert_line(
            outcome, "checkpoint of epoch 1 could not be written", "free some disk space",
            "last good one is none",
        )  # fmt: skip
        assert program("train", *flags).code == 0  # with space again

    def test_full_disk_while_exporting(self, program, trained, tmp_path):
        with no_file_beyond(200_000):
            outcome = program("export", f"--run_dir={trained[0]}", f"--export_dir={tmp_path}")
        assert_line(outcome, "export: the export to", "failed and nothing was published")
        assert not list(tmp_path.glob("*_encoder/*"))


@contextlib.contextmanager
def no_file_beyond(size: int):
    """A disk that is full, as far as files of this process beyond so many bytes go."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def vector_flags(tmp_path):
    """A training run of a second, on precomputed features of 40 pairs."""
    rng = np.random.default_rng(0)
    path = tmp_path / "vectors.npz"
    labels = np.eye(2, dtype=np.uint8)[np.arange(40) % 2]
    np.savez(path, image=rng.random((40, 6)), text=rng.random((40, 5)), labels=labels)
    return [
        "--dataset=features", f"--data_dir={path}", "--queries=8", "--train_pairs=30", "--bits=16",
        "--text_hidden=16", "--epochs=1", "--batch_size=8", f"--run_dir={tmp_path / 'run'}",
    ]  # fmt: skip


class TestDispatch:
    """The program `dsprh` itself."""

    def run(self, monkeypatch, capsys, *arguments):
        monkeypatch.setattr(sys, "argv", ["dsprh", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, capsys.readouterr()

    def test_an_unknown_program_is_one_line(self, monkeypatch, capsys):
        code, said = self.run(monkeypatch, capsys, "nosuch")
        assert code == 2 and said.out == ""
        assert said.err.startswith("dsprh: got 'nosuch', expected one of train, evaluate")

    @pytest.mark.parametrize("arguments", [(), ("--help",), ("help",)])
    def test_help_lists_all_programs(self, monkeypatch, capsys, arguments):
        code, said = self.run(monkeypatch, capsys, *arguments)
        assert code == 0
        assert all(f"  {name} " in said.out for name in PROGRAMS)

    def test_version_and_a_program(self, monkeypatch, capsys):
        code, said = self.run(monkeypatch, capsys, "--version")
        assert (code, said.out) == (0, f"{__version__}\n")
        code, said = self.run(monkeypatch, capsys, "make_scenes")
        assert code == 2 and said.err.startswith("make_scenes: got no folder")
