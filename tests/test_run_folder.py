"""The run folder: its settings, resuming, and who may work on it."""

from __future__ import annotations

import json
import subprocess
import sys

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

    def test_a_run_without_a_checkpoint_does_not_occupy_its_folder(self, tmp_path):
        RunFolder(tmp_path).open(self.SETTINGS)
        (tmp_path / "split.json").write_text("{}")
        changed = {**self.SETTINGS, "bits": 32}
        assert RunFolder(tmp_path).open(changed) is False
        assert RunFolder(tmp_path).settings() == changed
        assert not (tmp_path / "split.json").exists()

    def test_overwrite_empties(self, tmp_path):
        self.begun(tmp_path)
        changed = {**self.SETTINGS, "bits": 32}
        assert RunFolder(tmp_path).open(changed, overwrite=True) is False
        assert not (tmp_path / "checkpoints").exists()
        assert RunFolder(tmp_path).settings() == changed

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
