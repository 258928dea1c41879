"""Writes images' features, bags of words and labels as the vectors that `features` mode takes.

    python benchmarks/coco_features.py --flagfile=coco.flags --data_dir=DATA --out=features.npz
    python scripts/reproduce.py --experiment=table2 --dataset=features --data_dir=features.npz \\
        --queries=300 --train_pairs=1624 --validation=0 --select=last --methods=lsh,dsah,dsprh_plus

All flags of scripts/train.py that choose data and backbone count. Words are those of the run's
training texts. With --regions=2 the image's vector is wider, as those of AlexNet and VGG are: the
means of the last convolution map over 2 x 2 regions, side by side.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np  # noqa: E402
from absl import flags  # noqa: E402

from dsprh_tf.cli.program import Program  # noqa: E402
from dsprh_tf.cli.settings import define_settings, given_settings  # noqa: E402
from dsprh_tf.data.files import write_bytes  # noqa: E402
from dsprh_tf.run_data import RunData  # noqa: E402
from dsprh_tf.run_folder import RunFolder  # noqa: E402
from dsprh_tf.settings import effective_settings  # noqa: E402

FLAGS = flags.FlagValues()
_OUT = flags.DEFINE_string("out", "features.npz", "The file to write.", flag_values=FLAGS)
_REGIONS = flags.DEFINE_integer(
    "regions", 0, "Regions per side; 0: the backbone's own feature.", 0, flag_values=FLAGS
)
_RUN = define_settings(FLAGS)
GROUPS = {
    "output": ["out", "regions", "cache_dir"],
    "data": [*_RUN["data"], "seed"],
    "backbone": ["backbone", "backbone_weights", "image_size", "resize", "freeze_backbone"],
}
_COUNT = {name for names in GROUPS.values() for name in names}


def region_means(maps: np.ndarray, regions: int) -> np.ndarray:
    """Means over regions x regions parts of maps [N, h, w, C]: [N, regions^2 C]."""
    rows = np.array_split(maps, regions, axis=1)
    parts = [part for row in rows for part in np.array_split(row, regions, axis=2)]
    return np.concatenate([part.mean(axis=(1, 2)) for part in parts], axis=1)


def image_vectors(data: RunData, items: np.ndarray) -> np.ndarray:
    """The vectors of all images, float32."""
    if not _REGIONS.value:
        return np.asarray(data.image_features(items), np.float32)
    data.build_backbone()
    cache = data.cache(("feature", "conv_map"))
    cache.ensure(items)
    blocks = np.array_split(cache.arrays["conv_map"], max(1, len(items) // 500))
    return np.concatenate([region_means(np.float32(b), _REGIONS.value) for b in blocks])


def main() -> None:
    given = {name: value for name, value in given_settings(FLAGS).items() if name in _COUNT}
    settings = SimpleNamespace(**effective_settings(given).values)
    data = RunData(settings, RunFolder("."), keep=False)  # nothing is read or written there
    items = np.arange(len(data.dataset))
    print(f"words of {len(data.split.train):,} training texts")  # refuses texts without any
    arrays = {
        "image": image_vectors(data, items),
        "text": data.source.text_features(items).astype(np.float32),
    }
    if data.dataset.labels is not None:
        arrays["labels"] = data.dataset.labels
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    write_bytes(_OUT.value, content.getvalue())
    shapes = ", ".join(f"{name} {list(values.shape)}" for name, values in arrays.items())
    print(f"features: {_OUT.value} ({shapes})")


if __name__ == "__main__":
    program = Program(__doc__, main, FLAGS, GROUPS)
    sys.exit(program.run("coco_features", sys.argv[1:], f"python {sys.argv[0]}"))
