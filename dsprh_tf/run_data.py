"""The data of a run, and the features that the untouched backbone computes from its images."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from functools import cached_property
from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd

from dsprh_tf.backbones.architectures import build_backbone, hold_statistics
from dsprh_tf.backbones.feature_cache import FeatureCache
from dsprh_tf.data import near_images, sanity, splits
from dsprh_tf.data.dataset import PairDataset
from dsprh_tf.data.files import write_bytes
from dsprh_tf.data.pipeline import PairSource
from dsprh_tf.data.single_texts import SingleTexts
from dsprh_tf.data.sources import load_dataset
from dsprh_tf.data.splits import Split
from dsprh_tf.data.text import BagOfWords
from dsprh_tf.methods import METHODS
from dsprh_tf.run_folder import LEFT_OUT, RunFolder

MOST_LEFT_OUT = 0.5
"""A larger share of pairs without a known word is an error: a run on the other pairs would not be
one on these data. Sources of tags leave out some (of MIRFlickr's pictures a fifth has no common
tag), but texts of a wrong column or in several languages, or too few for `min_word_pairs`, leave
out most."""


MOST_QUERIES = 2000
"""Test queries of your own data, unless told otherwise; enough for any method to be compared."""


def least_pairs(texts: int) -> int:
    """The number of training texts that a word must occur in, unless told otherwise.

    A rarer word is learned from too few images; of few texts most words are rare, and a query
    that has none of the known ones is not answered at all (README, "How many captions").
    """
    return 2 if texts < 2000 else 3 if texts < 5000 else 5


def split_sizes(
    dataset: PairDataset, queries: int | None, train_pairs: int | None, unseen: bool = False
) -> tuple[int, int]:
    """How many queries and training pairs a split has, those for validation included.

    Args:
        dataset: the pairs; a split that they come with counts.
        queries: the setting; None for a tenth of the pairs, `MOST_QUERIES` at most.
        train_pairs: the setting; None for all pairs but the queries.
        unseen: the setting `unseen_database`.
    """
    given, pairs = dataset.given_split, len(dataset)
    if given is not None:
        most = len(given.get("train", given["database"]))
        drawn = min(train_pairs, most) if unseen and train_pairs is not None else most
        return len(given["query"]), drawn
    count = min(MOST_QUERIES, max(1, pairs // 10)) if queries is None else queries
    most = max(1, pairs - count)  # `make_split` refuses what cannot be
    return count, most if train_pairs is None else min(train_pairs, most)


class RunData:
    """Data set, split, bag of words, batches and backbone of a run; each made when it is needed.

    Args:
        settings: values of `RunSettings`, as attributes.
        folder: the run folder.
        keep: whether split and words of the folder are read, and written where they are missing;
            otherwise nothing is read or written there.

    Attributes:
        method: the class of the run's method.
        backbone: the last backbone built, or None.
    """

    def __init__(self, settings: SimpleNamespace, folder: RunFolder, keep: bool):
        self.settings = settings
        self.folder = folder
        self.keep = keep
        self.method = METHODS[settings.method]
        self.backbone: keras.Model | None = None

    def kept_in(self, folder: RunFolder) -> RunData:
        """The same data, with split and words of a run folder; they are written where missing."""
        data = RunData(self.settings, folder, keep=True)
        for name in {"dataset", "_new_split", "_new_words"} & set(vars(self)):
            setattr(data, name, getattr(self, name))
        return data

    @cached_property
    def dataset(self) -> PairDataset:
        """The data set; prints what was read and what was dropped."""
        s = self.settings
        return load_dataset(
            s.dataset, s.data_dir, s.on_bad_image, s.scenes_count, s.seed, s.accept_odd_data
        )

    @cached_property
    def _drawn(self) -> Split:
        """The split as it was drawn, before pairs are left out."""
        path = self.folder / "split.json"
        if not (self.keep and path.exists()):
            if self.keep:
                splits.save_split(path, self._new_split, self.dataset.ids)
            return self._new_split
        split = splits.load_split(path, self.dataset)
        self._say(split)
        return split

    @cached_property
    def _new_split(self) -> Split:
        """A split drawn now; prints what is told of it."""
        s = self.settings
        queries, train = split_sizes(self.dataset, s.queries, s.train_pairs, s.unseen_database)
        split = splits.make_split(
            self.dataset, queries, train, s.validation, s.seed, s.unseen_database
        )
        self._say(split)
        for note in near_images.near_notes(self.dataset, split):
            print(f"data: {note}")
        return split

    def _say(self, split: Split) -> None:
        """Prints what is told of a split, and refuses one that looks wrong."""
        lines = sanity.split_lines(self.dataset, split, self.settings.accept_odd_data)
        for line in (*split.notes, *lines):
            print(f"data: {line}")

    @cached_property
    def words(self) -> BagOfWords | None:
        """The bag of words, fitted on training texts; None for features."""
        path = self.folder / "vocabulary.json"
        if self.dataset.texts is None:
            return None
        if self.keep and path.exists():
            return BagOfWords.load(path)
        if self.keep:
            self._new_words.save(path)
        return self._new_words

    @cached_property
    def _new_words(self) -> BagOfWords:
        """A bag of words made now; prints what is told of it."""
        s, dataset = self.settings, self.dataset
        texts = dataset.texts[self._drawn.train]
        if dataset.vocabulary is not None:
            words = BagOfWords.of_tags(dataset.vocabulary, texts, s.max_words)
        else:
            least = self._least_pairs(len(texts))
            words = BagOfWords.fit(texts, least, max_words=s.max_words, plurals=s.fold_plurals)
        for note in words.notes:
            print(f"data: {note}")
        return words

    def _least_pairs(self, texts: int) -> int:
        given = self.settings.min_word_pairs
        return least_pairs(texts) if given is None else given

    @cached_property
    def split(self) -> Split:
        """The split, without pairs that the run cannot use."""
        return self._with_labels(self._with_known_words(self._drawn))

    @property
    def searched(self) -> np.ndarray:
        """The database that test queries search: int64 indices.

        Raises:
            ValueError: only pairs that were not trained on count, and there is none.
        """
        split = self.split
        if not self.settings.unseen_database:
            return split.database
        unseen = np.setdiff1d(split.database, np.concatenate([split.train, split.validation]))
        if not len(unseen):
            raise ValueError(
                f"--unseen_database: all {len(split.database):,} pairs of the database are trained "
                "on or held out for validation: lower --train_pairs"
            )
        return unseen

    def single_texts(self, items: np.ndarray) -> SingleTexts | None:
        """The texts of items one by one, where some pair of the data has several."""
        if self.words is None or self.dataset.text_lists is None:
            return None
        return SingleTexts(self.dataset, self.words, items)

    @property
    def left_out(self) -> int:
        """Number of pairs of the split that the run cannot use."""
        parts = [[getattr(split, p) for p in splits.PARTS] for split in (self._drawn, self.split)]
        drawn, used = (len(np.unique(np.concatenate(part))) for part in parts)
        return drawn - used

    def _with_known_words(self, split: Split) -> Split:
        """The split without pairs whose text has no known word.

        They are counted, and a run lists them in left_out.csv. It is an error if there is one and
        on_bad_text is "error", and for a new run also if they are more than `MOST_LEFT_OUT`.
        """
        if self.words is None:
            return split
        s, dataset = self.settings, self.dataset
        used = np.unique(np.concatenate([getattr(split, part) for part in splits.PARTS]))
        bad = used[~self.words.known(dataset.texts[used])]
        if not len(bad):
            return split
        found = (
            f"{len(bad):,} of {len(used):,} pairs ({len(bad) / len(used):.1%}) have no known word "
            f"in their text, the first is item {dataset.ids[bad[0]]} "
            f"({str(dataset.texts[bad[0]])[:60]!r})"
        )
        known = f"the {self.words.size:,} known words"
        lower = ""
        if dataset.vocabulary is None:
            known += f" are in at least {self._least_pairs(len(self._drawn.train))} training texts"
            lower = ", or lower --min_word_pairs"
        if s.on_bad_text == "error":
            raise ValueError(
                f"{found}; {known}: give them other words{lower}, or leave them out with "
                "--on_bad_text=skip"
            )
        if len(bad) > MOST_LEFT_OUT * len(used) and "_new_words" in vars(self):
            raise ValueError(
                f"{found}; {known}. More than {MOST_LEFT_OUT:.0%} would be left out, as if the "
                f"texts were not read right: look at them{lower}"
            )
        listed = ""
        if self.keep:
            table = pd.DataFrame({"id": dataset.ids[bad], "text": dataset.texts[bad]})
            content = table.to_csv(index=False).encode("utf-8", "replace")
            write_bytes(self.folder / LEFT_OUT, content)
            listed = f"; {self.folder / LEFT_OUT} lists them"
        print(f"data: left out: {found}{listed}")
        parts: dict = {part: np.setdiff1d(getattr(split, part), bad) for part in splits.PARTS}
        return dataclasses.replace(split, **parts)

    def _with_labels(self, split: Split) -> Split:
        """The split as the method may train on it: a supervised one needs labels of every pair."""
        s, dataset = self.settings, self.dataset
        if not self.method.supervised:
            return split
        if dataset.labels is None:
            others = ", ".join(name for name, m in METHODS.items() if not m.supervised)
            raise ValueError(
                f"{s.method} is supervised and {s.dataset} data has no labels: add a labels "
                f"column, or choose an unsupervised method ({others})"
            )
        bad = split.train[~dataset.labels[split.train].any(axis=1)]
        if not len(bad):
            return split
        count, first = f"{len(bad):,} of {len(split.train):,} training pairs", dataset.ids[bad[0]]
        if s.on_missing_labels == "error":
            raise ValueError(
                f"{count} have no label, the first is item {first}, and {s.method} is supervised: "
                "label them, or leave them out with --on_missing_labels=skip"
            )
        print(f"data: {count} left out of training, they have no label; the first is item {first}")
        return dataclasses.replace(split, train=np.setdiff1d(split.train, bad))

    def require_queries(self) -> None:
        """Raises a `ValueError` if the split has no test queries."""
        if not len(self.split.query):
            raise ValueError(
                f"{self.folder.path} has no test queries (--queries=0, all pairs train): there is "
                "nothing to evaluate; export it, or make a run with queries"
            )

    @property
    def has_images(self) -> bool:
        """Whether the data has images; otherwise it has image features."""
        return self.dataset.image_paths is not None

    @cached_property
    def source(self) -> PairSource:
        """Batches of pairs."""
        if not self.method.takes_features and not self.has_images:
            raise ValueError(
                f"{self.settings.method} reads maps of a backbone and {self.settings.dataset} data "
                "has vectors only: give data with images, or choose another --method"
            )
        return self._plain_source()

    def _plain_source(self) -> PairSource:
        size = self.settings.image_size if self.has_images else None
        return PairSource(self.dataset, self.words, size, self.settings.resize)

    def build_backbone(self) -> keras.Model:
        """Builds the backbone as the run began with it, and keeps it as `backbone`."""
        s = self.settings
        with precision(self.settings.precision):
            backbone = build_backbone(
                s.backbone,
                s.backbone_weights,
                s.image_size,
                s.dropout,
                s.seed,
                self.method.pyramid,
            )
        backbone.trainable = not s.freeze_backbone
        if s.backbone_weights != "none" and not s.freeze_backbone:
            hold_statistics(backbone)
        self.backbone = backbone
        return backbone

    def cache(self, names=("feature",)) -> FeatureCache:
        """The on-disk cache of backbone outputs; call it before training changes the backbone."""
        return FeatureCache(self.settings.cache_dir, self._plain_source(), self.backbone, names)

    def image_features(self, items: np.ndarray) -> np.ndarray:
        """Features of the untouched backbone, or those given: [N, D_I] with `items` filled in."""
        if not self.has_images:
            return self.dataset.image_features
        frozen = self.settings.freeze_backbone
        if self.backbone is None or not frozen:
            self.build_backbone()
        if frozen:
            # A run that reads convolution maps has cached the features too: use them if complete.
            cache = self.cache(("feature", "conv_map"))
            if not len(cache.missing(items)):
                return cache.arrays["feature"]
        cache = self.cache()
        cache.ensure(items)
        return cache.arrays["feature"]


@contextlib.contextmanager
def precision(policy: str) -> Iterator[None]:
    """Context in which new layers get a Keras dtype policy, such as "mixed_bfloat16"."""
    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy(policy)
    try:
        yield
    finally:
        keras.mixed_precision.set_global_policy(before)
