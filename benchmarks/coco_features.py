"""Writes pictures' features, bags of words and labels as the vectors that `features` mode takes.

    python benchmarks/coco_features.py --flagfile=coco.flags --data_dir=DATA --out=features.npz
    python scripts/reproduce.py --experiment=table2 --dataset=features --data_dir=features.npz \\
        --queries=300 --train_pairs=1624 --validation=0 --select=last --methods=lsh,dsah,dsprh_plus

All flags of scripts/train.py that choose data and backbone count. Words are those of the run's
training texts. With --regions=2 the picture's vector is wider, as those of AlexNet and VGG are: the
means of the last convolution map over 2 x 2 regions, side by side.
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

from dsprh_tf import run_folder  # noqa: E402
from dsprh_tf.data.files import write_bytes  # noqa: E402

_OUT = flags.DEFINE_string("out", "features.npz", "The file to write.")
_REGIONS = flags.DEFINE_integer("regions", 0, "Regions a side; 0: the backbone's own feature.", 0)
GROUPS = {
    "output": ["out", "regions", "cache_dir"],
    "data": train_flags.GROUPS["data"],
    "backbone": ["backbone", "backbone_weights", "image_size", "resize", "freeze_backbone"],
}


def region_means(maps: np.ndarray, regions: int) -> np.ndarray:
    """Means over regions x regions parts of maps [N, h, w, C]: [N, regions^2 C]."""
    rows = np.array_split(maps, regions, axis=1)
    parts = [part for row in rows for part in np.array_split(row, regions, axis=2)]
    return np.concatenate([part.mean(axis=(1, 2)) for part in parts], axis=1)


def picture_features(run: common.Run, items: np.ndarray) -> np.ndarray:
    """The vectors of all pictures, float32."""
    if not _REGIONS.value:
        return np.asarray(run.image_features(items), np.float32)
    run.backbone = run.build_backbone()
    cache = run.cache(("feature", "conv_map"))
    cache.ensure(items)
    blocks = np.array_split(cache.arrays["conv_map"], max(1, len(items) // 500))
    return np.concatenate([region_means(np.float32(b), _REGIONS.value) for b in blocks])


def main() -> None:
    settings = train_flags.settings()
    with tempfile.TemporaryDirectory() as folder:
        run = common.Run(settings, run_folder.RunFolder(folder))
        items = np.arange(len(run.dataset))
        arrays = {
            "image": picture_features(run, items),
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
