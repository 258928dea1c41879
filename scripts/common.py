"""What the programs share of a run: its parts, made from its settings."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import quiet  # noqa: F401 - TensorFlow without its first lines

# isort: split
import keras  # noqa: E402
import numpy as np  # noqa: E402

from dsprh_tf import compat, methods, runs, training  # noqa: E402
from dsprh_tf.backbones import build_backbone, hold_statistics, weights_fingerprint  # noqa: E402
from dsprh_tf.data import (  # noqa: E402
    coco,
    features,
    mirflickr,
    mirflickr_mat,
    nuswide,
    pairs,
    scenes,
    splits,
)
from dsprh_tf.data.dataset import PairDataset  # noqa: E402
from dsprh_tf.data.files import read_json, write_json  # noqa: E402
from dsprh_tf.data.pipeline import PairSource  # noqa: E402
from dsprh_tf.data.splits import Split  # noqa: E402
from dsprh_tf.data.text import BagOfWords  # noqa: E402
from dsprh_tf.trunk_cache import TrunkCache  # noqa: E402

LOADERS = {
    "coco": coco.load_coco,
    "mirflickr25k": mirflickr.load_mirflickr25k,
    "mirflickr25k_mat": mirflickr_mat.load_mirflickr25k_mat,
    "nuswide": nuswide.load_nuswide,
    "pairs": pairs.load_pairs,
    "scenes": pairs.load_pairs,
    "features": lambda path, on_bad_image: features.load_features(path),
}


def load_dataset(settings: SimpleNamespace) -> PairDataset:
    """The dataset that the settings name, with what it read and dropped printed."""
    if not settings.data_dir:
        raise ValueError(f"--dataset={settings.dataset} needs --data_dir=FOLDER")
    folder = settings.data_dir
    if settings.dataset == "scenes":
        folder = scenes.write_scenes(folder, settings.scenes_count, settings.seed).parent
    dataset = LOADERS[settings.dataset](folder, on_bad_image=settings.on_bad_image)
    for note in dataset.notes:
        print(f"data: {note}")
    return dataset


def load_split(settings, folder: runs.RunFolder, dataset: PairDataset) -> Split:
    """The run's split, drawn and saved the first time."""
    path = folder / "split.json"
    if path.exists():
        return splits.load_split(path, dataset)
    split = splits.make_split(
        dataset, settings.queries, settings.train_pairs, settings.validation, settings.seed
    )
    splits.save_split(path, split, dataset.ids)
    return split


def load_words(settings, folder: runs.RunFolder, dataset: PairDataset, split: Split):
    """The run's bag of words, fitted on training texts and saved the first time."""
    if dataset.texts is None:
        return None
    path = folder / "vocabulary.json"
    if path.exists():
        return BagOfWords.load(path)
    if dataset.vocabulary is not None:
        words = BagOfWords(dataset.vocabulary, "lower")
    else:
        texts = dataset.texts[split.train]
        words = BagOfWords.fit(texts, settings.min_word_pairs, max_words=settings.max_words)
    words.save(path)
    return words


def without_unlabelled(settings, dataset: PairDataset, split: Split) -> Split:
    """The split as a method may train on it: a supervised one needs labels of each training pair.

    Raises:
        ValueError: a supervised method without labels, or with training pairs without one.
    """
    if not methods.METHODS[settings.method].supervised:
        return split
    if dataset.labels is None:
        others = ", ".join(name for name, m in methods.METHODS.items() if not m.supervised)
        raise ValueError(
            f"{settings.method} is supervised and {settings.dataset} data has no labels: add a "
            f"labels column, or choose an unsupervised method ({others})"
        )
    bad = split.train[~dataset.labels[split.train].any(axis=1)]
    if not len(bad):
        return split
    if settings.on_missing_labels == "error":
        raise ValueError(
            f"{len(bad):,} of {len(split.train):,} training pairs have no label, the first is item "
            f"{dataset.ids[bad[0]]}, and {settings.method} is supervised: label them, or leave "
            "them out with --on_missing_labels=skip"
        )
    print(
        f"data: {len(bad):,} of {len(split.train):,} training pairs left out of training, they "
        f"have no label; the first is item {dataset.ids[bad[0]]}"
    )
    return dataclasses.replace(split, train=np.setdiff1d(split.train, bad))


def without_unknown_texts(settings, dataset, split: Split, words) -> Split:
    """The split without pairs whose text holds no known word, or a ValueError that names one."""
    if words is None:
        return split
    used = np.unique(np.concatenate([getattr(split, part) for part in splits.PARTS]))
    bad = used[~words.known(dataset.texts[used])]
    if not len(bad):
        return split
    first = f"item {dataset.ids[bad[0]]} ({str(dataset.texts[bad[0]])[:60]!r})"
    if settings.on_bad_text == "error":
        raise ValueError(
            f"the text of {len(bad):,} pairs leaves no known word of the {words.size:,} words in "
            f"at least {settings.min_word_pairs} training texts, the first is {first}: give it "
            "other words, lower --min_word_pairs, or leave them out with --on_bad_text=skip"
        )
    print(f"data: {len(bad):,} pairs dropped, no known word in their text; the first is {first}")
    return Split(
        **{part: np.setdiff1d(getattr(split, part), bad) for part in splits.PARTS},
        seed=split.seed,
        fingerprint=split.fingerprint,
    )


class Run:
    """The parts of a run made from its settings: data, split, words, source, backbone, model."""

    def __init__(self, settings: dict, folder: runs.RunFolder):
        self.settings = s = SimpleNamespace(**settings)
        keras.mixed_precision.set_global_policy(s.precision)
        self.folder = folder
        self.dataset = load_dataset(s)
        drawn = load_split(s, folder, self.dataset)
        self.words = load_words(s, folder, self.dataset, drawn)
        known = without_unknown_texts(s, self.dataset, drawn, self.words)
        self.method = methods.METHODS[s.method]
        self.split = without_unlabelled(s, self.dataset, known)
        self.has_images = self.dataset.image_paths is not None
        if self.method.needs_pictures and not self.has_images:
            raise ValueError(
                f"{s.method} reads maps of a backbone and {s.dataset} data has vectors only: give "
                "data with pictures, or choose another --method"
            )
        size = s.image_size if self.has_images else None
        self.source = PairSource(self.dataset, self.words, size, s.resize)
        self.backbone = None

    def build_backbone(self):
        """The backbone as the run began with it."""
        s = self.settings
        backbone = build_backbone(
            s.backbone, s.backbone_weights, s.image_size, s.dropout, s.seed, self.method.pyramid
        )
        backbone.trainable = not s.freeze_backbone
        if s.backbone_weights != "none" and not s.freeze_backbone:
            hold_statistics(backbone)
        return backbone

    def build(self):
        """The model, not compiled; call it within the strategy's scope."""
        s = self.settings
        compat.zero_state_seed(s.seed)
        sizes = {"bow": self.source.text_size, "conv_map": None}
        if self.dataset.labels is not None:
            sizes["labels"] = self.dataset.labels.shape[1]
        if self.has_images:
            self.backbone = self.build_backbone()
            self._check_backbone()
            for name, output in self.backbone.output.items():
                sizes[name] = tuple(map(int, output.shape[1:]))
            (sizes["feature"],) = sizes["feature"]
        else:
            sizes["feature"] = self.dataset.image_features.shape[1]
        network = {name: getattr(s, name) for name in self.method.network}
        return self.method.build(
            s.bits,
            sizes,
            self.backbone,
            s.image_size if self.has_images else None,
            objective_of(vars(s)),
            s.decoder_input,
            **network,
        )

    def cache(self, names=("feature",)) -> TrunkCache:
        """Outputs of the backbone on disk; ask before training changes the backbone."""
        plain = PairSource(self.dataset, self.words, self.settings.image_size, self.settings.resize)
        return TrunkCache(self.settings.cache_dir, plain, self.backbone, names)

    def image_features(self, items: np.ndarray) -> np.ndarray:
        """Features of the untouched backbone, or those given: [N, D_I] with `items` filled in."""
        if not self.has_images:
            return self.dataset.image_features
        frozen = self.settings.freeze_backbone
        if self.backbone is None or not frozen:
            self.backbone = self.build_backbone()
        if frozen:
            # What a run with maps has left, if it is complete.
            cache = self.cache(("feature", "conv_map"))
            if not len(cache.missing(items)):
                return cache.arrays["feature"]
        cache = self.cache()
        cache.ensure(items)
        return cache.arrays["feature"]

    def restore(self):
        """The trained model: the selected epoch's weights."""
        model = self.build()
        epoch = training.Checkpoints(model, self.folder.path).restore_selected()
        print(f"weights of epoch {epoch} of {self.folder.path}")
        return model

    def _check_backbone(self) -> None:
        """Refuses other backbone weights than the run began with."""
        path = self.folder / "backbone.json"
        mark = {"sha256": weights_fingerprint(self.backbone)}
        if not path.exists():
            write_json(path, mark)
        elif read_json(path, "train the run again") != mark:
            raise ValueError(
                f"the weights in {self.settings.backbone_weights} are not those that the run in "
                f"{self.folder.path} began with: give the same --backbone_weights"
            )


def objective_of(settings: dict):
    """The loss that the settings describe."""
    objective = methods.METHODS[settings["method"]].objective
    names = [field.name for field in dataclasses.fields(objective) if field.name in settings]
    return objective(**{name: settings[name] for name in names})


def load_run(run_dir: str, **changed) -> Run:
    """A trained run; `changed` overrides settings that name places, where not None."""
    folder = runs.RunFolder(run_dir)
    settings = folder.settings()
    settings.update({name: value for name, value in changed.items() if value is not None})
    return Run(settings, folder)


def load_run_data(run_dir: str, **changed) -> tuple[PairDataset, Split]:
    """Dataset and split of a run."""
    loaded = load_run(run_dir, **changed)
    return loaded.dataset, loaded.split
