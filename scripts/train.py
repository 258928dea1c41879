"""Trains a cross-modal hashing model and evaluates its test queries once at the end.

    python scripts/train.py --flagfile=mir.flags
    python scripts/train.py --flagfile=coco.flags --data_dir=DATA --bits=32
    python scripts/train.py --dataset=pairs --data_dir=my_pictures/manifest.csv \\
        --backbone=MobileNetV2 --backbone_weights=imagenet --freeze_backbone

The same command on an unfinished run folder goes on from its last epoch.
"""

from __future__ import annotations

import resource
import time

import common
import program
import train_flags

# isort: split
import numpy as np
import tensorflow as tf
from evaluate import evaluate_run

from dsprh_tf import compat, graph, methods, runs, training
from dsprh_tf.monitoring import Monitor
from dsprh_tf.similarity import neighbour_thresholds


def prepare_source(run: common.Run, model) -> None:
    """Computes what batches need beside pictures and words: cache, targets, neighbours."""
    s, source, dataset = run.settings, run.source, run.dataset
    used = np.concatenate([run.split.train, run.split.validation])
    source.keep_texts(used)
    image_features = dataset.image_features
    if run.has_images:
        cache = None
        if s.cache or not s.freeze_backbone:
            # A backbone being trained gives its similarity target once, before it changes.
            cache = run.cache(model.image_network.reads if s.freeze_backbone else ("feature",))
            cache.ensure(used)
            image_features = cache.arrays.get("feature")
        if s.freeze_backbone and s.cache:
            source.cache = cache
        elif not s.freeze_backbone:
            source.targets = image_features
    if (model.objective.needs_neighbours or model.objective.needs_graph) and image_features is None:
        raise ValueError("neighbours need the features of all training pairs: drop --nocache")
    if model.objective.needs_graph:
        use_graph(run, model, image_features)
    if model.objective.needs_neighbours:
        source.extra["neighbour_threshold"] = thresholds = np.zeros(len(dataset), np.float32)
        thresholds[run.split.train] = neighbour_thresholds(
            image_features[run.split.train],
            source.text_features(run.split.train),
            s.image_weight,
            s.neighbour_share,
        )
    if model.objective.needs_labels:
        if dataset.labels is None:
            raise ValueError("related or pairwise_target is labels, but the data has no labels")
        if not run.method.supervised:
            print(f"note: labels enter the loss of {s.method}: a diagnostic, no result of its own")
        source.extra["labels"] = dataset.labels


def use_graph(run: common.Run, model, image_features) -> None:
    """Builds the training pairs' neighbour graph; hands it to the objective and the batches."""
    s, source, train = run.settings, run.source, run.split.train
    started = time.monotonic()
    built = graph.build_graph(
        image_features[train],
        source.text_features(train),
        s.image_weight,
        s.neighbours,
        s.second_order,
        s.seed,
    )
    model.objective = model.objective.fitted(built)
    for name, values in (("graph_neighbours", built.neighbours), ("graph_weights", built.weights)):
        source.extra[name] = np.zeros((len(run.dataset), values.shape[1]), values.dtype)
        source.extra[name][train] = values
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"graph: {len(train):,} pairs, {s.neighbours} neighbours, "
        f"{'exact' if built.exact else 'approximate'}, {time.monotonic() - started:.1f} s, "
        f"memory of the process at most {peak:.1f} GiB"
    )


def main() -> None:
    settings = train_flags.settings()
    strategy = training.make_strategy(settings["devices"])
    worker, workers = training.shard_of(strategy)
    default = "runs/{method}-{dataset}-{bits}-{seed}".format(**settings)
    settings["run_dir"] = settings["run_dir"] or default
    chief_dir = settings["run_dir"]
    if worker:  # Only the chief owns the run folder; the others make their own beside it.
        settings["run_dir"] += f".worker{worker}"
    folder = runs.RunFolder(settings["run_dir"])
    if folder.open(settings, settings["overwrite"]):
        print(f"resuming {folder.path}")
    tf.config.experimental.enable_op_determinism()
    compat.zero_state_seed(settings["seed"])
    run = common.Run(settings, folder)
    s = run.settings
    coupled = s.weight_decay if s.optimizer == "sgd" else 0.0
    with strategy.scope():
        model = run.build()
        steps = len(run.split.train) // (s.batch_size * strategy.num_replicas_in_sync) * s.epochs
        cosine = steps if s.lr_schedule == "cosine" else 0
        rate_image = s.lr_image
        if rate_image is None:
            rate_image = methods.image_rate(model.feature_size)
            print(
                f"learning rate of the image side {rate_image:g}, for features of "
                f"{model.feature_size:,} values"
            )
        optimizers = [
            training.make_optimizer(
                s.optimizer, rate, s.momentum, s.weight_decay, cosine, s.nesterov
            )
            for rate in (rate_image, s.lr_text)
        ]
        model.compile(*optimizers, l2_weight=coupled)
        checkpoints = training.Checkpoints(model, chief_dir, s.max_to_keep, chief=not worker)
    if workers > 1 and run.has_images:
        # A strategy's variables can only be read by all workers at once; a cache is each one's.
        run.backbone = run.build_backbone()
    prepare_source(run, model)
    sizes = ", ".join(f"{len(getattr(run.split, p)):,} {p}" for p in common.splits.PARTS)
    print(f"{s.method}, {s.bits} bits on {s.dataset}: {sizes}; {run.source.text_size:,} words")
    monitor = Monitor(
        run.source,
        run.split.train,
        run.split.validation,
        None if worker else folder / "tensorboard",
        s.monitor_every,
        s.seed,
        s.select == "validation",
        run.method.supervised,
    )
    training.fit(
        model,
        run.source,
        run.split.train,
        checkpoints,
        s.epochs,
        s.batch_size,
        s.seed,
        s.augment,
        monitor,
    )
    if worker:
        return
    if run.dataset.labels is None:
        print("no labels: training is done, evaluation would need them")
    else:
        evaluate_run(run, run.restore())  # a plain model, whatever the strategy
    print(f"run folder: {folder.path}   (tensorboard --logdir {folder.path.parent})")


if __name__ == "__main__":
    program.run(main, train_flags.GROUPS)
