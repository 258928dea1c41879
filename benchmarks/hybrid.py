"""What `search --hybrid` finds: codes alone, words alone, and both joined, on a COCO run.

    python scripts/train.py --flagfile=coco.flags --method=dsprh_plus --data_dir=COCO
    python scripts/export.py --run_dir=RUN --export_dir=DIR
    python benchmarks/hybrid.py --run_dir=RUN --export_dir=DIR

The database: the images of the run's database, each with one of its captions as its text. The
queries: every caption of the images that were held out, and single words that people type (those of
first_hour.py). An item is relevant to a caption if it shares a label with the caption's image, and
to a word if it has the label that the word means. Codes rank by the query's real values, ties in
random order; MAP is of all items, those that have no word of the query being no results of "words".
"known" is the share of the queries with a word that the encoder knows: codes answer none of the
others.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np  # noqa: E402
import pyarrow as pa  # noqa: E402
from absl import flags  # noqa: E402
from first_hour import WORDS  # noqa: E402

from dsprh_tf.cli.program import Program  # noqa: E402
from dsprh_tf.data.images import image_bytes  # noqa: E402
from dsprh_tf.index.asymmetric import rank  # noqa: E402
from dsprh_tf.index.hamming import HammingIndex  # noqa: E402
from dsprh_tf.index.hybrid import joined  # noqa: E402
from dsprh_tf.index.items import SCHEMA  # noqa: E402
from dsprh_tf.index.words import FolderWords, words_of  # noqa: E402

FLAGS = flags.FlagValues()
_RUN_DIR = flags.DEFINE_string("run_dir", None, "The run.", flag_values=FLAGS)
_EXPORT_DIR = flags.DEFINE_string("export_dir", None, "Its exported encoders.", flag_values=FLAGS)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Its data, if moved.", flag_values=FLAGS)
_SEED = flags.DEFINE_integer("seed", 0, "Seed for the order of items.", flag_values=FLAGS)

TOP, BATCH = 10, 64


def precision(ranking: list[int], relevant: set[int]) -> float:
    """P@10; a list that is shorter has misses at its end."""
    return sum(name in relevant for name in ranking[:TOP]) / TOP


def average_precision(ranking: list[int], relevant: set[int]) -> float:
    """Mean of the precision at each relevant item; at those that are not found it is 0."""
    hits, total = 0, 0.0
    for place, name in enumerate(ranking, 1):
        if name in relevant:
            hits += 1
            total += hits / place
    return total / max(1, len(relevant))


def measure(index, words, text_encoder, queries: list[tuple[str, set[int]]]) -> dict[str, list]:
    """Way of ranking -> [P@10, MAP], means over the queries that have relevant items."""
    queries = [(text, relevant) for text, relevant in queries if relevant]
    texts = [text for text, _ in queries]
    known = text_encoder.known_words(texts)
    values = text_encoder.encode_values(texts, unknown="allow")
    by_codes = rank(index, values, len(index)).ids.tolist()
    found: dict[str, list] = {"codes": [], "words": [], "both": []}
    for (text, relevant), ranking, is_known in zip(queries, by_codes, known):
        both = [ranking if is_known else [], words.by_words(words_of(text), len(index)).tolist()]
        for name, ids in zip(found, (*both, joined(*both))):
            found[name].append([precision(ids, relevant), average_precision(ids, relevant)])
    return {
        "queries": len(queries),
        "known": float(np.mean(np.asarray(known) > 0)),
        **{name: np.mean(values, axis=0) for name, values in found.items()},
    }


def main() -> None:
    """Prints the table."""
    if not _RUN_DIR.value or not _EXPORT_DIR.value:
        raise ValueError("needs --run_dir and --export_dir")
    from dsprh_tf.run import Run
    from dsprh_tf.serving.encoder import Encoder

    run = Run.load(_RUN_DIR.value, data_dir=_DATA_DIR.value)
    dataset, split = run.dataset, run.split
    image, text = (Encoder(_EXPORT_DIR.value, kind) for kind in ("image", "text"))
    rows = np.asarray(split.database)
    codes = np.concatenate([
        image.encode([image_bytes(path) for path in dataset.image_paths[rows[at : at + BATCH]]])
        for at in range(0, len(rows), BATCH)
    ])  # fmt: skip
    ids = np.random.default_rng(_SEED.value).permutation(len(rows))
    nothing = [None] * len(rows)
    columns = {
        "id": ids, "modality": ["image"] * len(rows), "path": dataset.image_paths[rows].tolist(),
        "text": [dataset.text_lists[row][0] for row in rows], "size": nothing, "sha256": nothing,
        "tags": [[]] * len(rows),
    }  # fmt: skip
    index = HammingIndex(image.bits)
    index.add(codes, pa.table(columns, SCHEMA))
    words = FolderWords(index)
    labels = dataset.labels[rows].astype(bool)
    captions = [
        (caption, set(ids[(labels & dataset.labels[row].astype(bool)).any(axis=1)].tolist()))
        for row in np.asarray(split.query) for caption in dataset.text_lists[row]
    ]  # fmt: skip
    of_label = dict(zip(dataset.label_names, labels.T))
    single = [(word, set(ids[of_label[label]].tolist())) for word, label in WORDS.items()]
    print(f"{len(rows):,} images, {image.bits} bits; P@10 and MAP")
    print(f"{'':<10}{'number':>8}{'known':>7}" + "".join(
        f"{name:>16}" for name in ("codes", "words", "both")))  # fmt: skip
    for name, queries in {"captions": captions, "words": single}.items():
        found = measure(index, words, text, queries)
        numbers = "".join(
            f"{found[way][0]:>9.3f}{found[way][1]:>7.3f}" for way in ("codes", "words", "both")
        )
        print(f"{name:<10}{found['queries']:>8,}{found['known']:>7.2f}{numbers}", flush=True)


if __name__ == "__main__":
    sys.exit(Program(__doc__, main, FLAGS).run("hybrid", sys.argv[1:], f"python {sys.argv[0]}"))
