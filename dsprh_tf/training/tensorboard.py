"""The records of a run for TensorBoard, and the score by which its best epoch is chosen."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from PIL import Image
from tensorboard.plugins.hparams import api as hp

from dsprh_tf import codes, compat
from dsprh_tf.evaluation.contact_sheet import RetrievalItem, RetrievalRow, draw_contact_sheet
from dsprh_tf.evaluation.encode_pairs import PairEncoder
from dsprh_tf.evaluation.own_items import pair_reciprocal_rank
from dsprh_tf.evaluation.plots import plot_curves
from dsprh_tf.evaluation.results import OWN, results_record
from dsprh_tf.evaluation.retrieval import (
    CROSS_MODAL,
    Encoded,
    evaluate_directions,
    evaluate_own_items,
)
from dsprh_tf.metrics import evaluate
from dsprh_tf.training.curve_notes import curve_note, notes_page

_DATABASE = 1000  # training pairs that validation queries are searched in
_SHOWN = 4  # queries of the contact sheet
_CLASSES = 100  # labels whose average precision is shown


def code_balance(packed: np.ndarray) -> float:
    """Mean over bits of |mean sign|: 0 if each bit is +1 for half the items, 1 if constant."""
    return float(np.abs(codes.unpack(packed).mean(axis=0)).mean())


def bit_correlation(packed: np.ndarray) -> float:
    """Mean |correlation| of two different bits over the items; a constant bit counts as 0."""
    bits = codes.unpack(packed).astype(np.float64)
    bits -= bits.mean(axis=0)
    bits /= np.maximum(np.sqrt((bits**2).sum(axis=0)), 1e-12)
    correlation = np.abs(bits.T @ bits)
    size = len(correlation)
    return float((correlation.sum() - np.trace(correlation)) / (size * (size - 1)))


class Monitor(keras.callbacks.Callback):
    """Writes an epoch's terms, code statistics, validation metrics and images to TensorBoard.

    Validation pairs were taken out of the training pairs; the test queries are never touched.
    Labels, where there are any, are shown (validation MAP@50; else recall and median rank of each
    pair's own partner among validation and training pairs) but choose nothing: the selection
    score is the mean reciprocal rank of each validation pair's own partner, which needs none. A
    supervised method is chosen by what it learns, the mean MAP of both directions.

    Args:
        source: a `PairSource`.
        train: indices of the training pairs; up to 1,000 of them are the validation database.
        validation: indices of the validation pairs; may be empty.
        log_dir: folder of the event files; None writes none (other workers of a cluster).
        every: epochs between two evaluations; the last epoch is always evaluated.
        seed: of the draw of database and shown queries.
        select: whether the selection score is put into the logs, so that the best epoch is kept.
        supervised: whether labels may choose.
        settings: Markdown with the settings of the run; "" for none.
        hparams: name -> value, for the HParams tab.
    """

    def __init__(
        self,
        source,
        train,
        validation,
        log_dir,
        every: int = 1,
        seed: int = 0,
        select: bool = True,
        supervised: bool = False,
        settings: str = "",
        hparams: Mapping | None = None,
    ):
        super().__init__()
        rng = np.random.default_rng(seed)
        count = min(_DATABASE, len(train))
        self._database = np.sort(rng.choice(train, count, replace=False))
        self._validation = validation
        self._source = source
        self._every = every
        self._select = select
        self._supervised = supervised
        self._seed = seed
        self._writer = tf.summary.create_file_writer(str(log_dir)) if log_dir else None
        self._encoder = None
        self._encoded: tuple[Encoded, Encoded] | None = None
        self._settings = settings
        self._noted: set[str] = set()
        self._hparams = hparams or {}
        self._hparams_id = Path(log_dir).parent.name if log_dir else ""

    @property
    def pairs(self) -> int:
        """Number of pairs that an evaluation encodes."""
        return len(self._database) + len(self._validation)

    def try_figures(self) -> tuple[float, int]:
        """Seconds that an evaluation takes beside encoding, and bytes that it writes.

        Tried on codes that were drawn; nothing is written.
        """
        if not len(self._validation):
            return 0.0, 0
        rng, labels = np.random.default_rng(self._seed), self._source.dataset.labels
        bits = self.model.bits

        def drawn(items: np.ndarray) -> Encoded:
            image, text = rng.integers(0, 256, (2, len(items), bits // 8)).astype(np.uint8)
            return Encoded(image, text, None if labels is None else labels[items])

        query, database = drawn(self._validation), drawn(self._database)
        for _ in range(2):  # the first time loads the font
            figures: dict = {}
            began = time.perf_counter()
            self._compare(query, database, {}, figures, {})
            images = [tf.io.encode_png(image).numpy() for image in figures.values()]
            seconds = time.perf_counter() - began
        return seconds, sum(map(len, images))

    def on_train_begin(self, logs=None):
        """Writes the settings as text, and to the HParams tab."""
        if self._writer is None:
            return
        with self._writer.as_default(step=0):
            if self._settings:
                tf.summary.text("settings", self._settings)
            if self._hparams:
                hp.hparams(dict(self._hparams), trial_id=self._hparams_id)

    def on_epoch_end(self, epoch, logs=None):
        """Evaluates the codes of this epoch if it is due, and writes everything."""
        last = epoch + 1 == self.params["epochs"]
        names = {name: "total" if name == "loss" else name for name in self.model.terms}
        scalars = {f"loss/{shown}": float(logs[name]) for name, shown in names.items()}
        weights = self.model.method.weights
        for name in self.model.method.terms:
            if (weight := weights.get(name, 1.0)) != 1.0:
                scalars[f"weighted/{name}"] = weight * scalars[f"loss/{name}"]
        for side, norm in self.model.gradient_norms().items():
            scalars[f"training/gradient_norm_{side}"] = norm
        scalars["training/images_per_second"] = logs.get("images/s", 0.0)
        scalars["training/alpha"] = float(self.model.alpha)
        for side, optimizer in (
            ("image", self.model.optimizer),
            ("text", self.model.text_optimizer),
        ):
            scalars[f"training/learning_rate_{side}"] = compat.current_learning_rate(optimizer)
        figures: dict[str, np.ndarray] = {}
        values: dict[str, np.ndarray] = {}
        if last or (epoch + 1) % self._every == 0:
            self._look(scalars, figures, values, logs)
        if last:
            scalars.update(self._per_class())
        if self._writer is not None:
            with self._writer.as_default(step=epoch + 1):
                for name, value in scalars.items():
                    tf.summary.scalar(name, value, description=self._note(name))
                for name, numbers in values.items():
                    tf.summary.histogram(name, numbers, description=self._note(name))
                for name, image in figures.items():
                    tf.summary.image(name, image[None], description=self._note(name))
                if last:  # all tags are there
                    shown = [*scalars, *values, *figures]
                    tf.summary.text("curves", notes_page(shown, self.model.method.terms))
            self._writer.flush()

    def _note(self, tag: str) -> str | None:
        """What is said of a tag, with the first of its values: TensorBoard reads no other."""
        if tag in self._noted:
            return None
        self._noted.add(tag)
        return curve_note(tag, self.model.method.terms)

    def _look(self, scalars: dict, figures: dict, values: dict, logs: dict) -> None:
        if self._encoder is None:
            self._encoder = PairEncoder(self.model, self._source)
        hashes = self._encoder.hash_values(self._database)
        database = self._encoder.packed(self._database, *hashes)
        for side, hash_values in zip(("image", "text"), hashes):
            packed = database.side(side)
            values[f"codes/values_{side}"] = np.tanh(float(self.model.alpha) * hash_values)
            scalars[f"codes/balance_{side}"] = code_balance(packed)
            scalars[f"codes/bit_correlation_{side}"] = bit_correlation(packed)
        if not len(self._validation):
            return
        query = self._encoder(self._validation)
        self._encoded = query, database
        self._compare(query, database, scalars, figures, logs)

    def _per_class(self) -> dict[str, float]:
        """MAP of the validation pairs of each label, where only this label makes others relevant.

        At most that of 100 labels, the most frequent, as a mean of both directions.
        """
        if self._writer is None or self._encoded is None or self._encoded[0].labels is None:
            return {}
        query, database = self._encoded
        found = {}
        for label in np.argsort(-query.labels.sum(axis=0, dtype=int), kind="stable")[:_CLASSES]:
            rows = np.flatnonzero(query.labels[:, label])
            if not len(rows):
                break
            relevant = query.labels[rows][:, [label]], database.labels[:, [label]]
            both = [
                evaluate(query.side(one)[rows], database.side(other), *relevant)["map"]
                for one, other in (("image", "text"), ("text", "image"))
            ]
            name = self._source.dataset.label_names[label]
            found[f"per_class/{name}"] = float(np.mean(both))
        return found

    def _compare(
        self, query: Encoded, database: Encoded, scalars: dict, figures: dict, logs: dict
    ) -> None:
        """What validation pairs find among the others."""
        score = pair_reciprocal_rank(query.image_codes, query.text_codes)
        scalars["validation/pair_reciprocal_rank"] = score
        results = None
        if query.labels is not None and (self._supervised or self._writer is not None):
            results = evaluate_directions(query, database)
        if self._supervised:
            score = float(np.mean([results[d]["map"] for d in CROSS_MODAL]))
            scalars["validation/map"] = score
        if self._select:
            logs["selection_score"] = score
        if self._writer is None:
            return
        shown, figure = ("map@50",), "validation/precision_recall"
        if results is None:
            results = evaluate_own_items(query, database)
            shown, figure = OWN, "validation/recall"
        for direction in CROSS_MODAL:
            for name in shown:
                scalars[f"validation/{name}_{direction}"] = results[direction][name]
        record = results_record(
            "validation", self.model.bits, self._source.dataset.name, self._seed, results
        )
        figures[figure] = _as_array(record)
        if self._source.dataset.image_paths is not None:
            figures["validation/retrieval"] = self._contact_sheet(query, database)

    def _contact_sheet(self, query: Encoded, database: Encoded) -> np.ndarray:
        """uint8 [height, width, 3]: texts beside the training images that they find."""
        dataset = self._source.dataset
        shown = min(_SHOWN, len(self._validation))
        distance = codes.hamming_distance(query.text_codes[:shown], database.image_codes)
        rows = []
        for i in range(shown):
            items = []
            for j in np.argsort(distance[i], kind="stable")[:8]:
                relevant = None
                if dataset.labels is not None:
                    relevant = bool((query.labels[i] & database.labels[j]).any())
                items.append(
                    RetrievalItem(
                        image=dataset.image_paths[self._database[j]],
                        text=None,
                        distance=int(distance[i, j]),
                        relevant=relevant,
                    )
                )
            text = str(dataset.texts[self._validation[i]])
            rows.append(RetrievalRow(query_image=None, query_text=text, results=items))
        return np.asarray(draw_contact_sheet(rows).convert("RGB"))


def _as_array(record: dict) -> np.ndarray:
    """The curves as uint8 [height, width, 3]."""
    buffer = io.BytesIO()
    plot_curves(record).savefig(buffer, format="png", dpi=80)
    return np.asarray(Image.open(buffer).convert("RGB"))
