"""Answers queries in words and in pictures with the exported encoders alone.

    python scripts/query.py --run_dir=runs/dsprh-coco-64-0 --export_dir=savedmodels/coco-64 \\
        --text="a dog on the beach" --image=photo.jpg

Words find pictures and a picture finds words in the run's database. --text and --image may be
given many times; without both, three queries of each kind come from the run's query split. Prints
the 8 nearest items of each query ("*": shares a label with it) and draws them on a contact sheet.
"""

from __future__ import annotations

from pathlib import Path

import common
import numpy as np
import program
from absl import flags
from tqdm import tqdm

from dsprh_tf import codes
from dsprh_tf.data.images import image_bytes, load_image
from dsprh_tf.evaluation.contact_sheet import RetrievalItem, RetrievalRow, contact_sheet
from dsprh_tf.serving.encoder import Encoder

_RUN_DIR = flags.DEFINE_string("run_dir", None, "Run folder of scripts/train.py.")
_EXPORT_DIR = flags.DEFINE_string("export_dir", None, "Folder written by scripts/export.py.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Where the data lies now, if it was moved.")
_TEXT = flags.DEFINE_multi_string("text", [], "Words that look for pictures.")
_IMAGE = flags.DEFINE_multi_string("image", [], "Picture file that looks for words.")
_SEED = flags.DEFINE_integer("seed", 0, "Draws the queries where none are given.")
_OUT = flags.DEFINE_string("out", None, "Contact sheet, PNG; RUN_DIR/queries.png by default.")

TOP, CHUNK, DRAWN = 8, 64, 3


def encode(encoder: Encoder, items, read, title: str) -> np.ndarray:
    """Packed codes of many items, with a progress bar."""
    parts = []
    for start in tqdm(range(0, len(items), CHUNK), title, unit=f"x{CHUNK}"):
        parts.append(encoder.encode([read(item) for item in items[start : start + CHUNK]]))
    return np.concatenate(parts)


def answer(dataset, database, query, query_labels, query_codes, database_codes, words: bool):
    """Prints the nearest items of one query; returns its row of the contact sheet."""
    distances = codes.hamming_distance(query_codes[None], database_codes)[0]
    items = []
    print(f"\n{'words -> pictures' if words else 'picture -> words'}: {query}")
    width = max(len(str(i)) for i in dataset.ids)
    print(f"  {'distance':>8}  {'id':<{width}}    text")
    for near in np.argsort(distances, kind="stable")[:TOP]:
        i = database[near]
        relevant = None if query_labels is None else bool((query_labels & dataset.labels[i]).any())
        text = " ".join(str(dataset.texts[i]).split())
        mark = "*" if relevant else " "
        print(f"  {distances[near]:>8}  {dataset.ids[i]!s:<{width}}  {mark} {text[:70]}")
        shown = {"image": dataset.image_paths[i]} if words else {"text": text}
        items.append(RetrievalItem(distance=int(distances[near]), relevant=relevant, **shown))
    return RetrievalRow(**{"query_text" if words else "query_image": query}, results=items)


def main() -> None:
    if not _RUN_DIR.value or not _EXPORT_DIR.value:
        raise ValueError("needs --run_dir=FOLDER and --export_dir=FOLDER")
    image, text = (Encoder(_EXPORT_DIR.value, kind) for kind in ("image", "text"))
    if image.info["fingerprint"] != text.info["fingerprint"]:
        raise ValueError(f"the encoders in {_EXPORT_DIR.value} are of different models: export")
    if image.info["image_size"] is None or text.info["vocabulary_size"] is None:
        raise ValueError("this export encodes precomputed features: there is nothing to show")
    text.check_words(_TEXT.value)
    for path in _IMAGE.value:
        load_image(path)  # a broken file: its own clear line
    dataset, split = common.load_run_data(_RUN_DIR.value, data_dir=_DATA_DIR.value)
    texts = [(words, None) for words in _TEXT.value]
    images = [(path, None) for path in _IMAGE.value]
    if not texts and not images:
        drawn = np.random.default_rng(_SEED.value).permutation(split.query)[: 2 * DRAWN]
        labels = {i: None if dataset.labels is None else dataset.labels[i] for i in drawn}
        texts = [(str(dataset.texts[i]), labels[i]) for i in drawn[:DRAWN]]
        images = [(str(dataset.image_paths[i]), labels[i]) for i in drawn[DRAWN:]]
    rows = []
    for queries, words in ((texts, True), (images, False)):
        if queries:
            own, other = (text, image) if words else (image, text)
            items = (dataset.image_paths if words else dataset.texts)[split.database]
            found = encode(other, items, image_bytes if words else str, f"database, {other.kind}s")
            asked = own.encode([q if words else image_bytes(q) for q, _ in queries])
            for (query, known), code in zip(queries, asked):
                rows.append(answer(dataset, split.database, query, known, code, found, words))
    out = Path(_OUT.value or Path(_RUN_DIR.value) / "queries.png")
    contact_sheet(rows, out)
    print(f"\ncontact sheet: {out}")


if __name__ == "__main__":
    program.run(main)
