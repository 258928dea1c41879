"""The run folder: its settings, resuming, and who may work on it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf
from helpers import ROOT

from dsprh_tf.run_folder import RunFolder


class TestRunFolder:
    SETTINGS = {"bits": 16, "lr_image": 0.1, "data_dir": "here", "fusion_weights": [0.0, 0.0, 1.0]}

    def begun(self, path):
        """A run with a checkpoint."""
        RunFolder(path).open(self.SETTINGS)
        (path / "checkpoints").mkdir()
        (path / "checkpoints" / "ckpt-1.index").touch()
        return path

    def test_settings_come_back(self, tmp_path):
        folder = RunFolder(tmp_path / "a" / "b")
        assert folder.open(self.SETTINGS) is False
        assert folder.settings() == self.SETTINGS
        versions = json.loads((tmp_path / "a" / "b" / "versions.json").read_text())
        assert versions["tensorflow"] == tf.__version__

    def test_same_flags_resume_wherever_the_data_lie(self, tmp_path):
        self.begun(tmp_path)
        assert RunFolder(tmp_path).open({**self.SETTINGS, "data_dir": "there"}) is True

    def test_other_flags_are_named(self, tmp_path):
        self.begun(tmp_path)
        changed = {**self.SETTINGS, "bits": 32, "lr_image": 0.2}
        with pytest.raises(
            ValueError, match=r"--bits: was 16, is 32, --lr_image: was 0.1, is 0.2.*--overwrite"
        ):
            RunFolder(tmp_path).open(changed)
        assert RunFolder(tmp_path).settings() == self.SETTINGS

    @pytest.mark.parametrize(
        ("changed", "epochs_done", "whole", "said"),
        [
            ({}, 1, True, None),
            ({}, 2, True, None),
            ({}, 2, False, "is finished, and only the weights that count .*--max_to_keep=2"),
            ({"lr_schedule": "cosine"}, 1, True, "with --lr_schedule=cosine the rates depend"),
            ({"select": "validation"}, 1, True, None),
            ({"select": "validation"}, 2, True, r"looked at out of turn \(--monitor_every=3\)"),
        ],
    )
    def test_more_epochs(self, tmp_path, monkeypatch, changed, epochs_done, whole, said):
        monkeypatch.setattr("dsprh_tf.run_folder.can_go_on", lambda path: whole)
        settings = {
            **self.SETTINGS, "lr_schedule": "constant", "epochs": 2, "select": "last",
            "monitor_every": 3, **changed,
        }  # fmt: skip
        RunFolder(tmp_path).open(settings)
        (tmp_path / "checkpoints").mkdir()
        (tmp_path / "checkpoints" / f"ckpt-{epochs_done}.index").touch()
        (tmp_path / "results.json").write_text("{}")
        more = {**settings, "epochs": 5, "data_dir": "there"}
        with pytest.raises(ValueError, match="--bits: was 16, is 32"):
            RunFolder(tmp_path).open({**more, "bits": 32})
        if said:
            with pytest.raises(ValueError, match=f"was 2, is 5.*{said}.*--overwrite") as error:
                RunFolder(tmp_path).open(more)
            assert "\n" not in str(error.value)
            assert RunFolder(tmp_path).settings() == settings
            assert (tmp_path / "results.json").exists()
            return
        assert RunFolder(tmp_path).open(more) is True
        assert RunFolder(tmp_path).settings() == {**settings, "epochs": 5}
        assert not (tmp_path / "results.json").exists(), "of two epochs"
        with pytest.raises(ValueError, match="--epochs: was 5, is 2"):
            RunFolder(tmp_path).open(settings)

    def test_a_run_without_a_checkpoint_does_not_occupy_its_folder(self, tmp_path):
        RunFolder(tmp_path).open(self.SETTINGS)
        (tmp_path / "split.json").write_text("{}")
        changed = {**self.SETTINGS, "bits": 32}
        assert RunFolder(tmp_path).open(changed) is False
        assert RunFolder(tmp_path).settings() == changed
        assert not (tmp_path / "split.json").exists()

    def overwrite(self, path):
        """A run folder whose run is being replaced."""
        folder = RunFolder(path)
        assert folder.open({**self.SETTINGS, "bits": 32}, overwrite=True) is False
        return folder

    @staticmethod
    def content(path):
        return {p.name: p.read_bytes() for p in path.rglob("*") if p.is_file()}

    def test_overwrite_keeps_the_former_run_until_there_is_a_checkpoint(self, tmp_path):
        self.begun(tmp_path)
        (tmp_path / "results.json").write_text("{}")
        before = self.content(tmp_path)
        folder = self.overwrite(tmp_path)
        assert not (tmp_path / "checkpoints").exists()
        assert folder.settings()["bits"] == 32
        folder.close()  # as after an error
        assert self.content(tmp_path) == before
        folder = self.overwrite(tmp_path)
        (tmp_path / "checkpoints").mkdir()
        (tmp_path / "checkpoints" / "ckpt-1.index").touch()
        folder.close()
        assert RunFolder(tmp_path).settings()["bits"] == 32
        assert not (tmp_path / "results.json").exists() and not (tmp_path / ".previous").exists()

    @pytest.mark.parametrize("stop", range(9))
    def test_overwrite_killed_at_any_change_of_the_folder(self, tmp_path, monkeypatch, stop):
        self.begun(tmp_path)
        (tmp_path / "results.json").write_text("{}")
        before = self.content(tmp_path)
        calls = []

        def limited(function):
            def call(*arguments, **named):
                if len(calls) >= stop:
                    raise InterruptedError("killed")
                calls.append(function)
                return function(*arguments, **named)

            return call

        with monkeypatch.context() as patch:
            for name in ("rename", "mkdir", "unlink", "rmdir"):
                patch.setattr(Path, name, limited(getattr(Path, name)))
            folder = RunFolder(tmp_path)
            with contextlib.suppress(InterruptedError):
                folder.open({**self.SETTINGS, "bits": 32}, overwrite=True)
                folder.close()
            if folder._lock is not None:
                folder._lock.release()
        folder = RunFolder(tmp_path)
        assert folder.settings() == self.SETTINGS
        assert folder.open(self.SETTINGS) is True
        folder.close()
        assert self.content(tmp_path) == before

    def test_checkpoints_without_flags(self, tmp_path):
        self.begun(tmp_path)
        (tmp_path / "flags.json").unlink()
        with pytest.raises(ValueError, match="holds checkpoints but no flags.json"):
            RunFolder(tmp_path).open(self.SETTINGS)

    def test_not_a_run_folder(self, tmp_path):
        with pytest.raises(ValueError, match="is not a run folder.*check --run_dir"):
            RunFolder(tmp_path).settings()

    def test_a_second_process_is_refused(self, tmp_path):
        holder = RunFolder(tmp_path)
        holder.open(self.SETTINGS)
        code = (
            "from dsprh_tf.run_folder import RunFolder\n"
            f"try: RunFolder({str(tmp_path)!r}).open({{}})\n"
            "except ValueError as error: print(error)\n"
        )
        found = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
        ).stdout
        assert "is in use by another process: wait for it" in found
        assert holder.settings() == self.SETTINGS
        del holder
        assert RunFolder(tmp_path).open(self.SETTINGS) is False  # the lock went with its holder
