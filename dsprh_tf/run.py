"""A run as an object: data, split and method become a trained, evaluated, exported model."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import tensorflow as tf

from dsprh_tf.backbones.weights import weights_fingerprint
from dsprh_tf.data import splits
from dsprh_tf.data.dataset import PairDataset
from dsprh_tf.data.files import read_json, write_json
from dsprh_tf.data.images import image_bytes
from dsprh_tf.data.splits import Split
from dsprh_tf.evaluation.encode_pairs import PairEncoder, Side, near_map, validation_scores
from dsprh_tf.evaluation.projector import write_projector
from dsprh_tf.evaluation.results import Results, results_record, write_results
from dsprh_tf.evaluation.retrieval import evaluate_all, evaluate_own_items
from dsprh_tf.methods.base import image_rate
from dsprh_tf.model import CrossModalHashing
from dsprh_tf.run_data import RunData, precision
from dsprh_tf.run_folder import RunFolder
from dsprh_tf.serving.export import export_encoders
from dsprh_tf.settings import Effective, effective_settings, home_of, recorded_settings
from dsprh_tf.training.averaging import WeightAverage, first_averaged
from dsprh_tf.training.checkpoints import Checkpoints
from dsprh_tf.training.devices import Execution, make_strategy, shard_of
from dsprh_tf.training.estimate import estimate_run
from dsprh_tf.training.fit import fit
from dsprh_tf.training.optimizers import make_optimizer
from dsprh_tf.training.tensorboard import Monitor


class Run:
    """Training, evaluation and export of one model, kept in a run folder.

    The same settings give the same weights here and through `dsprh train`, bit for bit on CPU.
    Nothing is read or written before it is needed; `train` on an unfinished folder goes on from
    its last epoch.

    Args:
        run_dir: the run folder; None for runs/METHOD-DATASET-BITS-SEED in `settings.home_of`.
            Without any settings, the existing run in this folder.
        **settings: fields of `RunSettings` and of the method's `Settings`, such as `method`,
            `dataset`, `data_dir` and `bits`. `dsprh train --help` lists them all.

    Attributes:
        folder: the `RunFolder`.
        data: the `RunData`.
        is_chief: False in the other workers of a cluster, once `train` has begun.
        effective: the `Effective` settings.
        settings: their values, as attributes.

    Raises:
        ValueError: a setting that is unknown, not the method's, or cannot work.

    Example:
        run = Run("runs/mine", method="dsprh_plus", dataset="features", data_dir="features.npz")
        run.train()
        print(run.evaluate())
        run.export("savedmodels/mine")
    """

    def __init__(self, run_dir: str | os.PathLike | None = None, **settings):
        if run_dir is not None and not settings:
            self._begin(_recorded(run_dir), run_dir, opened=True)
            return
        if run_dir is not None:
            settings["run_dir"] = os.fspath(run_dir)
        effective = effective_settings(settings)
        if effective.values["run_dir"] is None:
            name = "{method}-{dataset}-{bits}-{seed}".format(**effective.values)
            effective.values["run_dir"] = os.fspath(home_of(effective.values) / "runs" / name)
        self._begin(effective, effective.values["run_dir"], opened=False)

    @classmethod
    def load(
        cls,
        run_dir: str | os.PathLike,
        data_dir: str | None = None,
        backbone_weights: str | None = None,
    ) -> Run:
        """Opens an existing run.

        Args:
            run_dir: its folder.
            data_dir: where its data lies now, if it was moved.
            backbone_weights: likewise for the backbone's weights.

        Raises:
            ValueError: the folder holds no run.
        """
        run = cls.__new__(cls)
        changed = {"data_dir": data_dir, "backbone_weights": backbone_weights}
        run._begin(_recorded(run_dir, **changed), run_dir, opened=True)
        return run

    def _begin(self, effective: Effective, run_dir, opened: bool) -> None:
        self.effective = effective
        self.settings = SimpleNamespace(**effective.values)
        self.folder = RunFolder(run_dir)
        self.is_chief = True
        self.data = RunData(self.settings, self.folder, keep=opened)
        # By `train` on one device: evaluation and export need no second model.
        self._trained: tuple[CrossModalHashing, Checkpoints] | None = None

    @property
    def dataset(self) -> PairDataset:
        """The data set; prints what was read and what was dropped."""
        return self.data.dataset

    @property
    def split(self) -> Split:
        """Queries, database, training and validation pairs, without those that cannot be used."""
        return self.data.split

    def build(self) -> CrossModalHashing:
        """The model, not compiled; call it within the strategy's scope."""
        s = self.settings
        keras.utils.set_random_seed(s.seed)
        sizes: dict = {"bow": self.data.source.text_size, "conv_map": None}
        if self.data.dataset.labels is not None:
            sizes["labels"] = self.data.dataset.labels.shape[1]
        backbone = None
        if self.data.has_images:
            backbone = self.data.build_backbone()
            self._check_backbone(backbone)
            for name, output in backbone.output.items():
                sizes[name] = tuple(map(int, output.shape[1:]))
            (sizes["feature"],) = sizes["feature"]
        else:
            sizes["feature"] = self.data.dataset.image_features.shape[1]
        method = self.effective.method(s.bits, s.seed, **self.effective.own())
        with precision(s.precision):
            return CrossModalHashing(
                method, sizes, backbone, s.image_size if self.data.has_images else None
            )

    def _check_backbone(self, backbone) -> None:
        """Raises a `ValueError` if the backbone's weights are not those that the run began with."""
        path = self.folder / "backbone.json"
        mark = {"sha256": weights_fingerprint(backbone)}
        if not path.exists():
            write_json(path, mark)
        elif read_json(path, "train the run again") != mark:
            raise ValueError(
                f"the weights in {self.settings.backbone_weights} are not those that the run in "
                f"{self.folder.path} began with: give the same --backbone_weights"
            )

    # Training

    def train(self) -> None:
        """Trains up to the last epoch, going on from the last checkpoint of the folder.

        Prints the settings that differ from the method's defaults and why, the data, and progress.

        Raises:
            ValueError: the folder belongs to a run with other settings, or what the data, the
                losses or the disk refuse.
        """
        s = self.settings
        strategy = make_strategy(s.devices)
        worker, workers = shard_of(strategy)
        chief = self.folder
        self.is_chief = not worker
        if worker:  # Only the chief owns the run folder; the others make their own beside it.
            self.folder = RunFolder(f"{chief.path}.worker{worker}")
        record = {**vars(s), "run_dir": str(self.folder.path)}
        if s.overwrite:
            _ = self.data.dataset  # found missing or broken before the former run is moved aside
        try:
            resumed = self.folder.open(record, s.overwrite)
            if resumed:
                print(f"resuming {self.folder.path}")
            self._train(strategy, chief, worker, workers, resumed)
        finally:
            self.folder.close()

    def _train(self, strategy, chief, worker: int, workers: int, resumed: bool) -> None:
        s = self.settings
        self.data = self.data.kept_in(self.folder)
        print(self.effective.describe())
        execution = self._execution(strategy, resumed)
        if execution.deterministic:
            tf.config.experimental.enable_op_determinism()
        keras.utils.set_random_seed(s.seed)
        with strategy.scope():
            model = self._compiled(execution)
            average = self._average(model)
            checkpoints = Checkpoints(
                model,
                chief.path,
                s.max_to_keep,
                not worker,
                self.folder.drop_previous,
                each=workers > 1,
                average=average,
            )
        if workers > 1 and self.data.has_images:
            # All workers must read a strategy's variables together, but each has its own cache.
            self.data.build_backbone()
        if strategy.num_replicas_in_sync == 1:
            self._trained = model, checkpoints
        split, source = self.data.split, self.data.source
        counts = ", ".join(f"{len(getattr(split, part)):,} {part}" for part in splits.PARTS)
        left_out = f", {self.data.left_out:,} left out" if self.data.left_out else ""
        what = "numbers for a text" if self.data.words is None else "words"
        print(
            f"{s.method}, {s.bits} bits on {s.dataset}: {counts}{left_out}; "
            f"{source.text_size:,} {what}"
        )
        print(execution.describe())
        if len(split.query):
            _ = self.data.searched  # found to be empty before the training, not after
        monitor = Monitor(
            source,
            split.train,
            split.validation,
            None if worker else self.folder / "tensorboard",
            s.monitor_every,
            s.seed,
            s.select == "validation",
            self.effective.method.supervised,
            self.effective.markdown(),
            self.effective.hparams(),
        )
        monitor.set_model(model)
        batch_size = execution.batch_size
        self._prepare(model, execution, checkpoints, None if worker else monitor)
        fit(
            model, source, split.train, checkpoints, s.epochs, batch_size, s.seed, s.augment,
            monitor, execution.jit, self._profile(batch_size * execution.replicas),
            s.single_texts, average,
        )  # fmt: skip

    def _average(self, model: CrossModalHashing) -> WeightAverage | None:
        """The mean of the weights that the run keeps, if it does; within the strategy's scope."""
        first = first_averaged(self.settings.average_from, self.settings.epochs)
        return None if first is None else WeightAverage(model, first)

    def _profile(self, together: int) -> tuple[int, int, str] | None:
        """What `--profile` asks for, as `fit` takes it; `together` pairs make a step."""
        value, steps = self.settings.profile, len(self.data.split.train) // together
        if value is None:
            return None
        parts = value.split(",")
        if len(parts) == 2 and all(part.isdecimal() for part in parts):
            start, stop = map(int, parts)
            if start < stop <= steps:
                return start, stop, str(self.folder / "tensorboard")
        raise ValueError(
            f"--profile is {value!r}, expected START,STOP with START below STOP and at most "
            f"{steps} steps, such as 10,20"
        )

    def _execution(self, strategy, resumed: bool) -> Execution:
        """How steps are computed: decided when a run begins, and kept in its folder."""
        s, path, known = self.settings, self.folder / "execution.json", None
        on_features = not self.data.has_images or (s.freeze_backbone and s.cache)
        if resumed:
            known = read_json(path, "train the run again") if path.exists() else {}
        pairs = len(self.data.split.train) * s.epochs
        execution = Execution.of(s, strategy, pairs, on_features, known)
        write_json(path, vars(execution))
        return execution

    def _compiled(self, execution: Execution) -> CrossModalHashing:
        s, train = self.settings, self.data.split.train  # refuses data before networks are built
        model = self.build()
        steps = len(train) // (execution.batch_size * execution.replicas) * s.epochs
        cosine = steps if s.lr_schedule == "cosine" else 0
        rate_image = s.lr_image
        if rate_image is None:
            rate_image = image_rate(model.feature_size)
            print(
                f"learning rate of the image side {rate_image:g}, for features of "
                f"{model.feature_size:,} values"
            )
        image, text = (
            make_optimizer(s.optimizer, rate, s.momentum, s.weight_decay, cosine, s.nesterov)
            for rate in (rate_image, s.lr_text)
        )
        model.compile(image, text, s.weight_decay if s.optimizer == "sgd" else 0.0)
        return model

    def _prepare(
        self, model: CrossModalHashing, execution: Execution, checkpoints, monitor: Monitor | None
    ) -> None:
        """Adds to batches the cache, the similarity targets, and the rows of `Method.prepare`.

        Prints what the run will take, if there is a monitor and something left to train.
        """
        s, source, train = self.settings, self.data.source, self.data.split.train
        used = np.concatenate([train, self.data.split.validation])
        source.keep_texts(used)
        features, cache = self.data.dataset.image_features, None
        if self.data.has_images:
            features = None
            if s.cache or not s.freeze_backbone:
                # A backbone being trained gives its similarity target once, before it changes.
                reads = model.image_network.reads if s.freeze_backbone else ("feature",)
                cache = self.data.cache(reads)
                features = cache.arrays.get("feature")
                if s.freeze_backbone:
                    source.cache = cache
                else:
                    source.targets = features
        if monitor is not None and checkpoints.finished_epochs < s.epochs:
            estimate = estimate_run(
                s, execution.batch_size, self.folder.path, self.data.split, self.data.searched,
                source, cache, model, checkpoints, monitor,
                lambda items: self._add_rows(model, features, items), execution.jit,
            )  # fmt: skip
            print(estimate.describe(), flush=True)
        if cache is not None:
            cache.ensure(used)
        self._add_rows(model, features, train)

    def _add_rows(self, model: CrossModalHashing, features, items: np.ndarray) -> None:
        """Adds to batches of some training items the rows of `Method.prepare`."""
        source, dataset = self.data.source, self.data.dataset
        own = model.method.prepare(
            None if features is None else features[items],
            source.text_features(items),
            None if dataset.labels is None else dataset.labels[items],
        )
        source.pairwise = model.method.pairwise
        for name, rows in own.items():
            source.extra[name] = np.zeros((len(dataset), *rows.shape[1:]), rows.dtype)
            source.extra[name][items] = rows

    # Evaluation and export

    def restore(self) -> CrossModalHashing:
        """The trained model: the selected epoch's weights."""
        if not self.data.keep:
            self.folder.check(vars(self.settings))
            self.data = self.data.kept_in(self.folder)
        if self._trained is None:
            model = self.build()
            average = self._average(model)
            checkpoints = Checkpoints(model, self.folder.path, average=average)
        else:
            model, checkpoints = self._trained
        epoch = checkpoints.restore_selected()
        print(f"weights of epoch {epoch} of {self.folder.path}")
        return model

    def evaluate(self, ties: str = "stable") -> Results:
        """Metrics of the test queries in all directions; written to the run folder.

        Data without labels get those of `own_items` in both directions between modalities, and a
        MAP with the nearest pairs by features as relevant.

        Args:
            ties: "stable" (tied distances in database order) or "average"; the latter goes to
                files of its own.

        Returns:
            The record of `results.json`, a dict that prints as a table.

        Raises:
            ValueError: the run is not trained, or it has no test queries.
        """
        s = self.settings
        self.data.require_queries()
        model = self.restore()
        searched = self.data.searched
        everything = np.concatenate([self.data.split.query, searched])
        self.data.source.cache = None
        if self.data.has_images and s.freeze_backbone and s.cache:
            cache = self.data.cache(model.image_network.reads)
            if cache.size_of(len(everything)) <= s.cache_limit_gb * 2**30:
                cache.ensure(everything)
                self.data.source.cache = cache
        encode = PairEncoder(model, self.data.source)
        split, features = self.data.split, self.data.image_features
        query = encode.queries(split.query, "encoding queries")
        database = encode(searched, "encoding database")
        if query.labels is None:
            results = evaluate_own_items(query, database, ties)
            sides = Side(split.query, query.take), Side(searched, database.take)
            results["neighbour_map"] = near_map(*sides, self.data.source, features, s.seed)
        else:
            texts = self.data.single_texts(split.query)
            typed = None if texts is None else encode.typed(texts)
            results = evaluate_all(query, database, typed, ties)
        scores = {}
        if len(split.validation):
            scores = validation_scores(encode, split, features, s.seed, self.data.single_texts)
        record = results_record(s.method, s.bits, s.dataset, s.seed, results, scores)
        write_results(self.folder.path, record)
        write_projector(
            self.folder / "tensorboard", self.data.dataset, self.data.split.query, query
        )
        return record

    def export(self, export_dir: str | os.PathLike) -> dict[str, Path]:
        """Writes both encoders for TensorFlow Serving; returns their paths.

        Args:
            export_dir: folder that receives image_encoder/VERSION and text_encoder/VERSION.
        """
        model = self.restore()
        data, samples = self.data.dataset, self.data.split.train[:4]
        images: list[bytes] = []
        if self.data.has_images:
            images = [image_bytes(path) for path in data.image_paths[samples]]
        texts = [] if self.data.words is None else [str(text) for text in data.texts[samples]]
        return export_encoders(
            model,
            export_dir,
            self.data.words,
            images,
            texts,
            self.settings.resize,
            self.settings.method,
        )


def _recorded(run_dir: str | os.PathLike, **changed) -> Effective:
    """The settings of the run in a folder, with those that are given and not None."""
    folder = RunFolder(run_dir)
    record = folder.settings()
    try:
        return recorded_settings(record, **changed)
    except ValueError as error:
        if any(value is not None for value in changed.values()):
            raise
        raise ValueError(f"{folder / 'flags.json'}: {error}") from error
