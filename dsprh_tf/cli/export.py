"""Exports both encoders of a run as SavedModels for TensorFlow Serving.

    dsprh export --run_dir=runs/dsprh-coco-64-0 --export_dir=savedmodels/coco-64

Writes EXPORT_DIR/image_encoder/VERSION and text_encoder/VERSION, with warm-up requests and the
server's configuration. A version appears whole or not at all.
"""

from __future__ import annotations

from absl import flags

from dsprh_tf.cli.program import Program
from dsprh_tf.run import Run

FLAGS = flags.FlagValues()
_RUN_DIR = flags.DEFINE_string("run_dir", None, "Run folder of `dsprh train`.", flag_values=FLAGS)
_EXPORT_DIR = flags.DEFINE_string(
    "export_dir", None, "Folder of the two encoders.", flag_values=FLAGS
)
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Where the data lies now, if it was moved.", flag_values=FLAGS
)
_WEIGHTS = flags.DEFINE_string(
    "backbone_weights", None, "Likewise for the backbone's weights.", flag_values=FLAGS
)


def main() -> None:
    """Exports, and says where the encoders are."""
    if not _RUN_DIR.value or not _EXPORT_DIR.value:
        raise ValueError("needs --run_dir=FOLDER and --export_dir=FOLDER")
    run = Run.load(_RUN_DIR.value, _DATA_DIR.value, _WEIGHTS.value)
    for name, path in run.export(_EXPORT_DIR.value).items():
        print(f"{name}: {path}")


PROGRAM = Program(__doc__, main, FLAGS)
