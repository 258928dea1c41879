"""Encodes a folder of pictures, or the rows of a manifest, with an exported encoder.

    python scripts/encode.py --export_dir=savedmodels/coco-64 --images=photos --out=codes/photos
    python scripts/encode.py --export_dir=savedmodels/coco-64 --texts=captions.csv --out=codes/words

Writes OUT/codes.npy (packed, uint8), OUT/items.parquet (what each row is of) and OUT/codes.json,
which scripts/index.py reads. The same command goes on where it was stopped; later it encodes what
is new or changed, and leaves out what is gone from the source. A manifest (CSV, Parquet, JSONL)
has a column image or text, and may have id (whole numbers are kept) and tags or labels (a;b).
"""

from __future__ import annotations

import re

import encoders
import program
from absl import flags

from dsprh_tf.index.code_folder import CodeWriter
from dsprh_tf.index.encode_collection import encode_source
from dsprh_tf.index.sources import Source

_EXPORT_DIR = flags.DEFINE_string("export_dir", None, "Folder written by scripts/export.py.")
_IMAGES = flags.DEFINE_string("images", None, "Folder of pictures, or a manifest of them.")
_TEXTS = flags.DEFINE_string("texts", None, "Manifest with the column text.")
_OUT = flags.DEFINE_string("out", None, "Folder of the codes.")
_SHARD = flags.DEFINE_string("shard", "0/1", "i/n: part i of n, from 0, for n machines.")
_ON_BAD_IMAGE = flags.DEFINE_enum(
    "on_bad_image", "error", ["error", "skip"], "Broken pictures end the run, or are listed."
)
_ON_BAD_TEXT = flags.DEFINE_enum(
    "on_bad_text", "error", ["error", "skip"], "The same for texts without a known word."
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", None, "Items at once; 32 pictures or 512 texts.")
_PART_SIZE = flags.DEFINE_integer("part_size", 2048, "Items that a crash can cost at most.")
_OVERWRITE = flags.DEFINE_boolean("overwrite", False, "Start anew, whatever OUT holds.")

SHOWN = 5  # skipped items on the screen; codes.json lists all


def main() -> None:
    if not _OUT.value or bool(_IMAGES.value) == bool(_TEXTS.value):
        raise ValueError("needs --out=FOLDER, and either --images=FOLDER or --texts=MANIFEST")
    shard = re.fullmatch(r"(\d+)/(\d+)", _SHARD.value)
    if not shard or int(shard[1]) >= int(shard[2]):
        raise ValueError(f"--shard={_SHARD.value}, expected i/n with 0 <= i < n, such as 0/4")
    modality = "image" if _IMAGES.value else "text"
    encoder = encoders.load_encoder(_EXPORT_DIR.value, modality)
    part = int(shard[1]), int(shard[2])
    source = Source(_IMAGES.value or _TEXTS.value, modality, part)
    for note in source.notes:
        print(f"source: {note}")
    fingerprint = encoder.info["fingerprint"]
    writer = CodeWriter(
        _OUT.value, encoder.bits, fingerprint, modality, source.path, part, _OVERWRITE.value
    )
    on_bad = _ON_BAD_IMAGE.value if modality == "image" else _ON_BAD_TEXT.value
    done = encode_source(source, encoder, writer, _BATCH_SIZE.value, _PART_SIZE.value, on_bad)
    if done.encoded:
        rate = done.encoded / done.seconds
        print(f"encoded {done.encoded:,} {modality}s in {done.seconds:.1f} s: {rate:.1f} a second")
    if done.known:
        print(f"{done.known:,} were done before")
    if done.gone:
        print(f"{done.gone:,} left out that are gone from {source.path}")
    if done.skipped:
        print(f"{len(done.skipped):,} skipped, all listed in {_OUT.value}/codes.json:")
        for entry in done.skipped[:SHOWN]:
            print(f"  {entry['problem']}")
    print(f"codes: {_OUT.value} ({done.count:,} of {encoder.bits} bits)")


if __name__ == "__main__":
    program.run(main)
