"""Encodes a folder of images, the rows of a manifest, or vectors, with an exported encoder.

    dsprh encode --export_dir=savedmodels/coco-64 --images=photos --out=codes/photos
    dsprh encode --export_dir=savedmodels/coco-64 --texts=captions.csv --out=codes/captions
    dsprh encode --export_dir=savedmodels/clip-64 --features=images.npy --side=image \\
        --ids=ids.csv --out=codes/images

Writes OUT/codes.npy (packed, uint8), OUT/items.parquet (one row per code: its item) and
OUT/codes.json, for `index`. If it was stopped, the same command resumes; if it was complete, it
encodes what is new or changed and drops what is gone from the source. A broken image is left out
and counted. So is a text without a word that the encoder knows: all such texts have one code, which
finds nothing.

A manifest (CSV, Parquet, JSONL) has a column image or text, and may have id (whole numbers are
kept) and tags or labels (a;b).

--features takes vectors of images or of texts (--side) to the encoders of a model that was trained
on such vectors (--dataset=features): a .npy file, which stays on disk, or .npz, .mat, .h5, .pt,
.safetensors; of several arrays the one named image or text. --ids is a manifest with a row for each
vector, in the same order: id, and as you like image (a path), text (or caption), tags or labels,
which search shows. Without it the ids are the row numbers, from 0; images and texts of one index
need different ids. Every vector is checked first: one that is not finite ends the command.
"""

from __future__ import annotations

import re

from absl import flags

from dsprh_tf.cli.program import Program, quiet_imports
from dsprh_tf.data.images import several_note
from dsprh_tf.index.code_folder import CodeWriter
from dsprh_tf.index.encode_collection import MOST_BAD, Summary, encode_source
from dsprh_tf.index.interface import MODALITIES
from dsprh_tf.index.sources import Source
from dsprh_tf.index.vector_source import VectorSource

FLAGS = flags.FlagValues()
_EXPORT_DIR = flags.DEFINE_string(
    "export_dir", None, "Folder of exported encoders.", flag_values=FLAGS
)
_IMAGES = flags.DEFINE_string(
    "images", None, "Folder of images, or a manifest of them.", flag_values=FLAGS
)
_TEXTS = flags.DEFINE_string("texts", None, "Manifest with the column text.", flag_values=FLAGS)
_FEATURES = flags.DEFINE_string(
    "features", None, "Array of vectors, one row per item, of the --side.", flag_values=FLAGS
)
_SIDE = flags.DEFINE_enum(
    "side", None, MODALITIES, "What --features are vectors of.", flag_values=FLAGS
)
_IDS = flags.DEFINE_string(
    "ids", None, "Manifest of the ids of --features; row numbers by default.", flag_values=FLAGS
)
_OUT = flags.DEFINE_string("out", None, "Folder of the codes.", flag_values=FLAGS)
_SHARD = flags.DEFINE_string(
    "shard", "0/1", "i/n: part i of n, from 0, to share the work of n machines.", flag_values=FLAGS
)
_ON_BAD_IMAGE = flags.DEFINE_enum(
    "on_bad_image", "skip", ["error", "skip"],
    "error ends the run at a broken image or link, skip lists it and goes on; if most are broken, "
    "the program fails at its end.", flag_values=FLAGS,
)  # fmt: skip
_ON_BAD_TEXT = flags.DEFINE_enum(
    "on_bad_text", "skip", ["error", "skip"],
    "The same for texts without a known word.", flag_values=FLAGS,
)  # fmt: skip
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size",
    None,
    "Items per batch; 32 images, 512 texts or 1,024 vectors.",
    flag_values=FLAGS,
)
_PART_SIZE = flags.DEFINE_integer(
    "part_size", 2048, "Items per saved part; a crash loses at most one part.", flag_values=FLAGS
)
_OVERWRITE = flags.DEFINE_boolean(
    "overwrite", False, "Start anew: remove the codes in OUT.", flag_values=FLAGS
)

SHOWN = 5  # skipped items on the screen; codes.json lists all

GROUPS = {
    "collection": ["export_dir", "images", "texts", "shard", "on_bad_image", "on_bad_text"],
    "vectors": ["features", "side", "ids"],
    "codes": ["out", "batch_size", "part_size", "overwrite"],
}


def main() -> None:
    """Encodes a collection."""
    given = [bool(flag.value) for flag in (_IMAGES, _TEXTS, _FEATURES)]
    if not _OUT.value or sum(given) != 1:
        raise ValueError(
            "needs --out=FOLDER, and either --images=FOLDER or --texts=MANIFEST or --features=ARRAY"
        )
    if _FEATURES.value and not _SIDE.value:
        raise ValueError("--features needs --side=image or --side=text: what they are vectors of")
    wrong = ["side", "ids"] if not _FEATURES.value else ["on_bad_image", "on_bad_text"]
    if wrong := [f"--{name}" for name in wrong if not FLAGS[name].using_default_value]:
        where = "without" if not _FEATURES.value else "with"
        raise ValueError(f"got {', '.join(wrong)} {where} --features, where it has no meaning")
    shard = re.fullmatch(r"(\d+)/(\d+)", _SHARD.value)
    if not shard or int(shard[1]) >= int(shard[2]):
        raise ValueError(f"--shard={_SHARD.value}, expected i/n with 0 <= i < n, such as 0/4")
    modality = _SIDE.value or ("image" if _IMAGES.value else "text")
    with quiet_imports():
        from dsprh_tf.serving.encoder import load_encoder
    encoder = load_encoder(_EXPORT_DIR.value, modality, bool(_FEATURES.value))
    part = int(shard[1]), int(shard[2])
    source: Source
    if _FEATURES.value:
        source = VectorSource(_FEATURES.value, modality, encoder.width, _IDS.value, part)
    else:
        source = Source(_IMAGES.value or _TEXTS.value, modality, part)
    for note in source.notes:
        print(f"source: {note}")
    fingerprint = encoder.info["fingerprint"]
    writer = CodeWriter(
        _OUT.value, encoder.bits, fingerprint, modality, source.path, part, _OVERWRITE.value
    )
    on_bad = _ON_BAD_IMAGE.value if modality == "image" else _ON_BAD_TEXT.value
    done = encode_source(source, encoder, writer, _BATCH_SIZE.value, _PART_SIZE.value, on_bad)
    report(done, source)
    print(f"codes: {_OUT.value} ({done.count:,} of {encoder.bits} bits)")
    if len(done.skipped) > MOST_BAD * (done.count + len(done.skipped)):
        if source.content == "image":
            raise ValueError(
                f"more than {MOST_BAD:.0%} of the images of {source.path} cannot be read: look "
                f"at the list. The codes of the others in {_OUT.value} are complete"
            )
        raise ValueError(
            f"more than {MOST_BAD:.0%} of the texts of {source.path} have no word that the "
            f"encoder knows, as if they were of another kind or language than those that it was "
            f"trained on: look at the list. The codes of the others in {_OUT.value} are complete"
        )


def report(done: Summary, source: Source) -> None:
    """Prints what was encoded, and what was not and why."""
    if done.encoded:
        rate = done.encoded / done.seconds
        print(
            f"encoded {done.encoded:,} {source.content}s in {done.seconds:.1f} s: {rate:.1f} per "
            "second"
        )
    if done.known:
        print(f"{done.known:,} were done before")
    if done.gone:
        print(f"{done.gone:,} left out that are gone from {source.path}")
    if done.several:
        print(several_note(done.several))
    if done.damaged:
        print(f"{len(done.damaged):,} images are damaged and were read as far as they go:")
        for line in done.damaged[:SHOWN]:
            print(f"  {line}")
    if done.skipped:
        share = len(done.skipped) / (done.count + len(done.skipped))
        print(
            f"{len(done.skipped):,} skipped ({share:.1%}), all listed in {_OUT.value}/codes.json:"
        )
        for entry in done.skipped[:SHOWN]:
            print(f"  {entry['problem']}")


PROGRAM = Program(__doc__, main, FLAGS, GROUPS)
