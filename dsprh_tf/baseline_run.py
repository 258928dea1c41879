"""Evaluation of a classic baseline on the data, the split and the features of training runs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import SimpleNamespace

import numpy as np

from dsprh_tf.evaluation.encode_pairs import Side, near_map
from dsprh_tf.evaluation.results import Results, read_results, results_record, write_results
from dsprh_tf.evaluation.retrieval import Encoded, evaluate_all, evaluate_own_items
from dsprh_tf.methods import baselines
from dsprh_tf.run_data import RunData
from dsprh_tf.run_folder import RunFolder
from dsprh_tf.settings import GROUPS, NEUTRAL, Effective, effective_settings

SETTINGS = (
    "bits",
    *(name for name in GROUPS["data"] if name != "on_missing_labels"),
    *("backbone", "backbone_weights", "image_size", "resize", "precision"),
    *("seed", "run_dir", "overwrite", "cache_dir"),
)
"""The settings of runs that count for a baseline; the others say how to train."""


def baseline_settings(given: Mapping) -> Effective:
    """The settings of a baseline's run, from what the user gave.

    Args:
        given: name -> value; what does not count for a baseline is left out.

    Raises:
        ValueError: a value that cannot work; found before any data is read.
    """
    counted = {name: value for name, value in given.items() if name in SETTINGS}
    # The backbone is never trained, so that its outputs may come from the cache of frozen runs.
    return effective_settings({**counted, "freeze_backbone": True})


class BaselineRun:
    """A baseline that is fitted on the training pairs of a run and evaluated on its test queries.

    Images are features of the pretrained backbone, texts are bags of words. Split and features are
    those of `Run` with the same settings. All its training pairs are used, with or without labels,
    but for the validation pairs; neither labels nor queries enter the fit.

    Args:
        baseline: one of `baselines.BASELINES`.
        run_dir: the run folder; None for runs/BASELINE-DATASET-BITS-SEED.
        shared_space: image and text features share one space already (CLIP): no CCA; the baseline
            sign needs it.
        **settings: of `SETTINGS`, such as `dataset`, `data_dir`, `bits` and `seed`.

    Attributes:
        folder: the `RunFolder`.
        settings: the settings in effect, as attributes.

    Raises:
        ValueError: an unknown baseline, or a setting that does not count for it or cannot work.

    Example:
        run = BaselineRun("lsh", dataset="features", data_dir="features.npz", bits=64)
        print(run.evaluate())
    """

    def __init__(
        self,
        baseline: str,
        run_dir: str | os.PathLike | None = None,
        shared_space: bool = False,
        **settings,
    ):
        baselines.check_name(baseline, shared_space)
        for name in settings:
            if name not in SETTINGS:
                raise ValueError(
                    f"{name} does not count for a baseline, expected some of {', '.join(SETTINGS)}"
                )
        values = baseline_settings(settings).values
        default = "runs/{}-{dataset}-{bits}-{seed}".format(baseline, **values)
        values["run_dir"] = os.fspath(run_dir or values["run_dir"] or default)
        self.baseline = baseline
        self.shared_space = bool(shared_space)
        self.settings = SimpleNamespace(**values)
        self.folder = RunFolder(values["run_dir"])

    def evaluate(self) -> Results:
        """Results of the test queries; those in the run folder if it is finished.

        Prints the data. Writes results.json, results.csv and curves.png to the run folder.

        Returns:
            The record of `results.json`, a dict that prints as a table.

        Raises:
            ValueError: the folder holds results of other settings or of another version, or the
                baseline cannot be fitted to the data.
        """
        record = self._record()
        if not self.is_finished(record):
            try:
                self.folder.open(record, self.settings.overwrite)
                write_results(self.folder.path, self._fit_and_evaluate())
            finally:
                self.folder.close()
        return read_results(self.folder / "results.json")

    def is_finished(self, record: Mapping) -> bool:
        """Whether the run folder holds results of these settings.

        Args:
            record: the content of flags.json that belongs to them.

        Raises:
            ValueError: it holds results of other settings, or of another version.
        """
        if self.settings.overwrite or not (self.folder / "results.json").exists():
            return False
        read_results(self.folder / "results.json")
        old = self.folder.settings()
        old.setdefault("baseline", old.get("reference"))  # its name in earlier versions
        # Where data and cache lie does not count, which weights does: nothing else would tell here.
        names = [name for name in record if name not in NEUTRAL - {"backbone_weights"}]
        changed = [f"--{n}: was {old.get(n)}" for n in names if old.get(n) != record[n]]
        if changed:
            raise ValueError(
                f"{self.folder.path} holds results of other flags ({', '.join(changed)}): give "
                "another --run_dir, or --overwrite to replace them"
            )
        return True

    def _record(self) -> dict:
        """The content of flags.json."""
        counted = {name: getattr(self.settings, name) for name in SETTINGS}
        return {**counted, "baseline": self.baseline, "shared_space": self.shared_space}

    def _fit_and_evaluate(self) -> Results:
        s, data = self.settings, RunData(self.settings, self.folder, keep=True)
        labels, split = data.dataset.labels, data.split
        data.require_queries()
        images = data.image_features(np.concatenate([split.train, split.query, data.searched]))
        training = images[split.train], data.source.text_features(split.train)
        fitted = baselines.fit(self.baseline, *training, s.bits, s.seed, self.shared_space)

        def encode(indices: np.ndarray) -> Encoded:
            rows = None if labels is None else labels[indices]
            return fitted.encoded(images[indices], data.source.text_features(indices), rows)

        query, database = encode(split.query), encode(data.searched)
        if labels is None:
            results = evaluate_own_items(query, database)
            sides = Side(split.query, query.take), Side(data.searched, database.take)
            results["neighbour_map"] = near_map(*sides, data.source, lambda items: images, s.seed)
        else:
            texts = data.single_texts(split.query)
            typed = None if texts is None else fitted.typed(texts)
            results = evaluate_all(query, database, typed)
        return results_record(self.baseline, s.bits, s.dataset, s.seed, results)
