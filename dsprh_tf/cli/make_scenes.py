"""Draws the `scenes` data set: images with captions, noisy tags and labels, from a seed.

    dsprh make_scenes --out=data/scenes --count=2000 --seed=0

The result is a folder with manifest.csv and images/, which is read like a user's own `pairs`.
The same count, seed and size find it finished and reuse it.
"""

from __future__ import annotations

import json

from absl import flags
from tqdm import tqdm

from dsprh_tf.cli.program import Program
from dsprh_tf.data.scenes.draw import write_scenes

FLAGS = flags.FlagValues()
_OUT = flags.DEFINE_string(
    "out", None, "Folder to write: images/, manifest.csv, scenes.json.", flag_values=FLAGS
)
_COUNT = flags.DEFINE_integer("count", 2000, "Number of images, at least 1.", flag_values=FLAGS)
_SEED = flags.DEFINE_integer(
    "seed", 0, "From 0; the same seed gives the same images and texts.", flag_values=FLAGS
)
_SIZE = flags.DEFINE_list(
    "size", ["160", "160"], "Width and height in pixels: 192,144", flag_values=FLAGS
)


def main() -> None:
    """Draws the images, and says what was drawn."""
    if not _OUT.value:
        raise ValueError("got no folder, expected --out=FOLDER; see --help")
    if len(_SIZE.value) != 2 or not all(side.isdigit() for side in _SIZE.value):
        raise ValueError(
            f"--size={','.join(_SIZE.value)}: expected width,height in pixels, such as 160,160"
        )
    size = (int(_SIZE.value[0]), int(_SIZE.value[1]))
    manifest = write_scenes(
        _OUT.value, _COUNT.value, _SEED.value, size, lambda it: tqdm(it, "drawing", unit="img")
    )
    chance = json.loads((manifest.parent / "scenes.json").read_text())["chance"]
    print(
        f"{manifest}: {_COUNT.value} images of {size[0]}x{size[1]} pixels with texts and labels, "
        f"seed {_SEED.value}; a random pair is relevant with chance {chance:.3f}"
    )


PROGRAM = Program(__doc__, main, FLAGS)
