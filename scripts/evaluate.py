"""Evaluates a trained run on its test queries, in all directions.

    python scripts/evaluate.py --run_dir=runs/dsprh-coco-64-0

Prints the table and writes results.json, results.csv and curves.png into the run folder; with
--ties=average results-average.json and so on beside them, which no report reads.
"""

from __future__ import annotations

import common
import numpy as np
import program
from absl import flags

from dsprh_tf import evaluation, similarity
from dsprh_tf.encoding import PairEncoder

_QUERIES, _DATABASE = 500, 5_000  # validation and training pairs at most in the validation MAP

if __name__ == "__main__":
    _RUN_DIR = flags.DEFINE_string("run_dir", None, "Run folder of scripts/train.py.")
    _DATA_DIR = flags.DEFINE_string("data_dir", None, "Where the data lies now, if it was moved.")
    _WEIGHTS = flags.DEFINE_string("backbone_weights", None, "Likewise for the backbone's weights.")
    _TIES = flags.DEFINE_enum(
        "ties", "stable", ["stable", "average"], "Tied distances: database order, or expectation."
    )


def evaluate_run(run: common.Run, model, ties: str = "stable") -> dict:
    """Encodes queries and database, writes and prints the results; returns the record."""
    s = run.settings
    if run.dataset.labels is None:
        raise ValueError(
            f"{s.dataset} data has no labels, so nothing says which results are relevant: add a "
            "labels column and train again, or search the codes without evaluating them"
        )
    everything = np.concatenate([run.split.query, run.split.database])
    run.source.cache = None
    if run.has_images and s.freeze_backbone and s.cache:
        cache = run.cache(model.image_network.reads)
        if cache.size_of(len(everything)) <= s.cache_limit_gb * 2**30:
            cache.ensure(everything)
            run.source.cache = cache
    encode = PairEncoder(model, run.source)
    results = evaluation.evaluate_directions(
        encode(run.split.query, "encoding queries"),
        encode(run.split.database, "encoding database"),
        ties=ties,
    )
    score = validation_map(run, encode) if len(run.split.validation) else None
    record = evaluation.results_record(s.method, s.bits, s.dataset, s.seed, results, score)
    files = evaluation.write_results(run.folder.path, record)
    print(evaluation.format_table(record))
    print(f"results: {run.folder.path}/{', '.join(files)}")
    return record


def validation_map(run: common.Run, encode: PairEncoder) -> float:
    """How well codes of the validation pairs find near training pairs; no labels, no queries."""
    rng = np.random.default_rng(run.settings.seed)
    drawn = (run.split.validation, _QUERIES), (run.split.train, _DATABASE)
    parts = [np.sort(rng.permutation(items)[:most]) for items, most in drawn]
    images = run.image_features(np.concatenate(parts))
    pairs = [(images[rows], run.source.text_features(rows)) for rows in parts]
    return evaluation.neighbour_map(
        encode(parts[0]), encode(parts[1]), similarity.nearest_by_features(*pairs)
    )


def main() -> None:
    if not _RUN_DIR.value:
        raise ValueError("needs --run_dir=FOLDER, a run folder of scripts/train.py")
    run = common.load_run(
        _RUN_DIR.value, data_dir=_DATA_DIR.value, backbone_weights=_WEIGHTS.value
    )
    evaluate_run(run, run.restore(), _TIES.value)


if __name__ == "__main__":
    program.run(main)
