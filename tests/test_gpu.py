"""What a GPU alone can show; skipped without one. `make gpu` runs it."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not tf.config.list_physical_devices("GPU"), reason="no GPU is visible"),
]


def ran(outcome):
    assert outcome.code == 0, outcome.err[-2000:]
    return outcome


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("frozen", [True, False])
def test_train_resume_export_and_encode(
    program, small_flags, scenes_dir, tmp_path, precision, frozen
):
    run_dir = tmp_path / "run"
    flags = [*small_flags, f"--run_dir={run_dir}", f"--precision={precision}", "--max_to_keep=2"]
    flags += [] if frozen else ["--nofreeze_backbone", "--fusion_weights=0,0.5,0.5"]
    ran(program("train", *flags, "--epochs=1"))
    outcome = ran(program("train", *flags))
    assert "resuming" in outcome.out
    ran(program("export", f"--run_dir={run_dir}", f"--export_dir={tmp_path / 'export'}"))
    ran(
        program(
            "encode", f"--export_dir={tmp_path / 'export'}", f"--images={scenes_dir}/manifest.csv",
            f"--out={tmp_path / 'codes'}",
        )
    )  # fmt: skip


def test_a_deterministic_run_repeats_itself(program, small_flags, weights, tmp_path):
    found = []
    for name in ("one", "two"):
        flags = [*small_flags, f"--run_dir={tmp_path / name}", "--deterministic"]
        ran(program("train", *flags))
        found.append(weights(tmp_path / name))
    for name, value in found[0].items():
        np.testing.assert_array_equal(value, found[1][name], err_msg=name)


def test_trials_find_the_gpu_free(program, small_flags, tmp_path):
    flags = [f for f in small_flags if not f.startswith(("--bits", "--method"))]
    outcome = ran(
        program(
            "reproduce", *flags, "--experiment=table2", "--methods=dsah,dsprh", "--bits=16",
            "--seeds=0", f"--out={tmp_path / 'out'}",
        )
    )  # fmt: skip
    assert "failed" not in outcome.out
