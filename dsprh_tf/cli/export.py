"""Exports both encoders of a run as SavedModels for TensorFlow Serving.

    dsprh export --run_dir=runs/dsprh-coco-64-0 --export_dir=savedmodels/coco-64

Writes EXPORT_DIR/image_encoder/VERSION and text_encoder/VERSION, with warm-up requests and the
server's configuration. A version appears whole or not at all.
"""

from __future__ import annotations

from absl import flags

from dsprh_tf.cli.program import Program
from dsprh_tf.cli.settings import define_run, load_run

FLAGS = flags.FlagValues()
define_run(FLAGS)
_EXPORT_DIR = flags.DEFINE_string(
    "export_dir", None, "Folder of the two encoders.", flag_values=FLAGS
)


def main() -> None:
    """Exports, and says where the encoders are."""
    if not _EXPORT_DIR.value:
        raise ValueError("needs --run_dir=FOLDER and --export_dir=FOLDER")
    run = load_run(FLAGS)
    for name, path in run.export(_EXPORT_DIR.value).items():
        print(f"{name}: {path}")


PROGRAM = Program(__doc__, main, FLAGS)
