"""Writes pictures' features, bags of words and labels as the vectors that `features` mode takes.

    python benchmarks/coco_features.py --flagfile=coco.flags --data_dir=DATA --out=features.npz
    python scripts/reproduce.py --experiment=table2 --dataset=features --data_dir=features.npz \\
        --queries=300 --train_pairs=1624 --validation=0 --select=last --methods=lsh,dsah,dsprh_plus

All flags of scripts/train.py that choose data and backbone count. Words are those of the run's
training texts.
"""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

import common  # noqa: E402
import program  # noqa: E402
import train_flags  # noqa: E402

# isort: split
import numpy as np  # noqa: E402
from absl import flags  # noqa: E402

from dsprh_tf import runs  # noqa: E402
from dsprh_tf.data.files import write_bytes  # noqa: E402

_OUT = flags.DEFINE_string("out", "features.npz", "The file to write.")
GROUPS = {
    "output": ["out", "cache_dir"],
    "data": train_flags.GROUPS["data"],
    "backbone": ["backbone", "backbone_weights", "image_size", "resize", "freeze_backbone"],
}


def main() -> None:
    settings = train_flags.settings()
    with tempfile.TemporaryDirectory() as folder:
        run = common.Run(settings, runs.RunFolder(folder))
        items = np.arange(len(run.dataset))
        arrays = {
            "image": np.asarray(run.image_features(items), np.float32),
            "text": run.source.text_features(items).astype(np.float32),
        }
    if run.dataset.labels is not None:
        arrays["labels"] = run.dataset.labels
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    write_bytes(_OUT.value, content.getvalue())
    shapes = ", ".join(f"{name} {list(values.shape)}" for name, values in arrays.items())
    print(f"features: {_OUT.value} ({shapes})")


if __name__ == "__main__":
    program.run(main, GROUPS)
