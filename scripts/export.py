"""Exports both encoders of a run as SavedModels for TensorFlow Serving.

    python scripts/export.py --run_dir=runs/dsprh-coco-64-0 --export_dir=savedmodels/coco-64

Writes EXPORT_DIR/image_encoder/VERSION and text_encoder/VERSION, with warm-up requests and the
server's configuration. A version appears whole or not at all.
"""

from __future__ import annotations

import common
import program
from absl import flags

from dsprh_tf.data.images import image_bytes
from dsprh_tf.export import export_encoders

_RUN_DIR = flags.DEFINE_string("run_dir", None, "Run folder of scripts/train.py.")
_EXPORT_DIR = flags.DEFINE_string("export_dir", None, "Folder of the two encoders.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Where the data lies now, if it was moved.")
_WEIGHTS = flags.DEFINE_string("backbone_weights", None, "Likewise for the backbone's weights.")


def main() -> None:
    if not _RUN_DIR.value or not _EXPORT_DIR.value:
        raise ValueError("needs --run_dir=FOLDER and --export_dir=FOLDER")
    run = common.load_run(
        _RUN_DIR.value, data_dir=_DATA_DIR.value, backbone_weights=_WEIGHTS.value
    )
    samples = run.split.train[:4]
    images = ()
    if run.has_images:
        images = [image_bytes(path) for path in run.dataset.image_paths[samples]]
    texts = () if run.words is None else [str(text) for text in run.dataset.texts[samples]]
    paths = export_encoders(
        run.restore(),
        _EXPORT_DIR.value,
        run.words,
        images,
        texts,
        run.settings.resize,
        run.settings.method,
    )
    for name, path in paths.items():
        print(f"{name}: {path}")


if __name__ == "__main__":
    program.run(main)
