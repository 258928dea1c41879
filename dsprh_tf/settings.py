"""The settings of a run: what every run has, and which values are in effect.

`effective_settings` is the only place that decides: the programs and `Run` call it, and nothing
else. The settings of a method stand with the method (`Method.Settings`).
"""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from dsprh_tf.backbones.architectures import check_backbone, own_dropout
from dsprh_tf.backbones.found_weights import DEFAULT_BACKBONE, default_weights
from dsprh_tf.codes import check_bits
from dsprh_tf.data.sources import LOADERS
from dsprh_tf.methods import BEST, METHODS, PAPER
from dsprh_tf.methods.base import Method, checked, setting
from dsprh_tf.training.optimizers import OPTIMIZERS

ON_BAD = ("error", "skip")
NEUTRAL = frozenset(
    {
        "run_dir", "overwrite", "data_dir", "cache_dir", "cache_limit_gb", "max_to_keep",
        "monitor_every", "backbone_weights", "accept_odd_data", "on_bad_text", "jit",
        "deterministic", "other_devices", "profile",
    }
)  # fmt: skip
"""Where things lie, what is shown and what is refused: the same run gives the same weights whatever
these are. (What decides how a step is computed, a run keeps in a file of its own:
`training.devices.Execution`.)"""

UNRECORDED = {
    "fold_plurals": False,
    "global_batch_size": None,
    "alignment_reduction": "mean",
    "single_texts": 0.0,
    "average_from": 1.0,
    "unseen_database": False,
}
"""Settings that runs of earlier versions did not record, and what they did."""


@dataclasses.dataclass(frozen=True)
class RunSettings:
    """The settings of every run, in addition to those of its method."""

    dataset: str = setting(
        "pairs", "Kind of data; pairs and features are your own.", sorted(LOADERS)
    )
    data_dir: str | None = setting(
        None, "Folder of the data (for pairs also a manifest, for features a file)."
    )
    on_bad_image: str = setting("error", "error: stop; skip: leave it out, list it.", ON_BAD)
    on_bad_text: str = setting(
        "skip",
        "Texts without a known word. skip: leave them out, list them, stop if they are more than "
        "half; error: stop at one.",
        ON_BAD,
    )
    queries: int | None = setting(
        2000,
        "Test queries, if the data comes without a split; auto: a tenth, 2,000 at most; 0: none, "
        "all pairs train.",
        low=0,
    )
    train_pairs: int | None = setting(
        5000,
        "Training pairs, if the data comes without a split; auto: all that are no queries.",
        low=1,
    )
    on_missing_labels: str = setting(
        "error",
        "As --on_bad_image, for a training pair without labels (supervised methods).",
        ON_BAD,
    )
    validation: float = setting(
        0.05, "Training pairs held out for validation: a share if below 1, else a number.", low=0
    )
    unseen_database: bool = setting(
        False, "Search only pairs that were not trained on; needs fewer --train_pairs."
    )
    min_word_pairs: int | None = setting(
        5,
        "Keep words in at least this many training texts; auto: 2 below 2,000 of them, 3 below "
        "5,000, else 5.",
        low=1,
    )
    fold_plurals: bool = setting(False, "English plurals and singulars are one word.")
    max_words: int | None = setting(
        None, "Keep only this many words or tags, the most frequent in training texts.", low=1
    )
    scenes_count: int = setting(2000, "Images to draw for --dataset=scenes.", low=1)
    accept_odd_data: bool = setting(
        False, "Go on with data whose labels or texts look as if they were read wrongly."
    )

    method: str = setting(PAPER, "Networks and loss.", METHODS)
    bits: int = setting(64, "Code length, a multiple of 8.")
    backbone: str = setting(
        "alexnet", "alexnet, resnet34 or a keras.applications model (MobileNetV2)."
    )
    backbone_weights: str = setting("none", "none, imagenet (keras.applications only) or a file.")
    image_size: int = setting(224, "Pixels per side that the backbone sees.", low=1)
    resize: int = setting(256, "Short side in pixels before the crop.", low=1)
    freeze_backbone: bool = setting(False, "Train only the layers on top of the backbone.")
    dropout: float | None = setting(
        None,
        "Dropout before AlexNet's fc6 and fc7 while fine-tuning; auto: 0.5 with weights, as "
        "torchvision's were trained, else 0. No other backbone has any.",
    )

    epochs: int = setting(
        40, "Passes over the training pairs; may be more when a run is resumed.", low=1
    )
    batch_size: int = setting(32, "Pairs per step and device.", low=1)
    global_batch_size: int | None = setting(
        None, "Pairs per step on all devices together, instead of --batch_size.", low=1
    )
    optimizer: str = setting("sgd", "Optimizer of both modalities.", OPTIMIZERS)
    lr_image: float | None = setting(
        0.005, "Learning rate of the image side; a recipe's may follow the feature's size.", low=0
    )
    lr_text: float = setting(0.005, "Learning rate of the text network and its decoder.", low=0)
    lr_schedule: str = setting(
        "constant", "cosine: falls to 0 over the run.", ("constant", "cosine")
    )
    momentum: float = setting(0.7, "Momentum of sgd.", low=0, high=1)
    nesterov: bool = setting(True, "Nesterov momentum, for sgd.")
    weight_decay: float = setting(
        5e-4, "L2 in the gradient for sgd, decoupled for adamw and lamb.", low=0
    )
    augment: bool | None = setting(
        None, "Random flip and crop; by default on if the backbone is trained."
    )
    single_texts: float = setting(
        0.0,
        "Share of batches that read one text of each pair, drawn anew, instead of all its texts.",
        low=0,
        high=1,
    )
    average_from: float = setting(
        1.0,
        "Keep the mean of the weights over the epochs after this share of them; 1: no mean.",
        low=0,
        high=1,
    )
    select: str = setting("validation", "Which epoch's weights to keep.", ("validation", "last"))
    devices: str = setting(
        "auto", "auto: all GPUs, or the CPU; gpu:N: the first N GPUs; cpu:N: N logical CPUs."
    )
    other_devices: bool = setting(
        False, "Go on with a run that began on another number of devices, or with other --jit."
    )
    precision: str = setting(
        "float32",
        "Arithmetic of the networks; mixed_bfloat16 for recent GPUs, mixed_float16 for older ones.",
        ("float32", "mixed_bfloat16", "mixed_float16"),
    )
    jit: str = setting(
        "auto",
        "Compile the training step with XLA; auto: where one device trains on features, cached or "
        "given, for 2,000 steps or more.",
        ("auto", "on", "off"),
    )
    deterministic: bool | None = setting(
        None, "The same weights each time, bit for bit, which is slower; auto: on CPU, not on GPU."
    )
    cache: bool = setting(True, "Keep a frozen backbone's outputs on disk.")

    seed: int = setting(0, "Seed of the split, initial weights, batch order and crops.", low=0)
    run_dir: str | None = setting(
        None,
        "Run folder; default runs/METHOD-DATASET-BITS-SEED, in the folder that DSPRH_HOME names or "
        "else beside your own data. Given again: resumes.",
    )
    overwrite: bool = setting(False, "Empty the run folder first.")
    cache_dir: str | None = setting(
        None, "Folder of the cached backbone outputs; default: cache, beside runs."
    )
    cache_limit_gb: float = setting(
        16.0, "Do not keep the whole database's outputs if larger.", low=0
    )
    max_to_keep: int = setting(
        1,
        "Checkpoints kept, beside the best epoch's weights; more than 1: also of a finished run, "
        "which can then go on to more --epochs.",
        low=1,
    )
    profile: str | None = setting(
        None, "START,STOP: steps of the first epoch that TensorBoard's profiler records."
    )
    monitor_every: int = setting(1, "Epochs between evaluations on validation pairs.", low=1)


GROUPS = {
    "data": (
        "dataset", "data_dir", "on_bad_image", "on_bad_text", "on_missing_labels", "queries",
        "train_pairs", "validation", "unseen_database", "min_word_pairs", "fold_plurals",
        "max_words", "scenes_count", "accept_odd_data",
    ),
    "networks": (
        "method", "bits", "backbone", "backbone_weights", "image_size", "resize",
        "freeze_backbone", "dropout",
    ),
    "training": (
        "epochs", "batch_size", "global_batch_size", "optimizer", "lr_image", "lr_text",
        "lr_schedule", "momentum", "nesterov", "weight_decay", "augment", "single_texts",
        "average_from", "select", "devices", "other_devices", "precision", "jit",
        "deterministic", "cache",
    ),
    "run": (
        "seed", "run_dir", "overwrite", "cache_dir", "cache_limit_gb", "max_to_keep",
        "monitor_every", "profile",
    ),
}  # fmt: skip
"""Title -> names of `RunSettings`, the order of `--help`."""

# What other data sets have of their own is fixed by what was published on them.
_YOURS = {"method": BEST, "queries": None, "train_pairs": None, "min_word_pairs": None}
OWN_DATA: dict[str, dict] = {"pairs": {**_YOURS, "fold_plurals": True}, "features": _YOURS}
"""Kind of your own data -> settings that replace defaults there, below the method's recipes."""

_HPARAMS = (
    "method", "dataset", "bits", "seed", "epochs", "batch_size", "optimizer", "lr_image", "lr_text",
)  # fmt: skip

_NAMES = {field.name: field for field in dataclasses.fields(RunSettings)}


@dataclasses.dataclass(frozen=True)
class Effective:
    """The settings that are in effect, and where they come from.

    Attributes:
        values: every setting of the run and of its method -> its value, in JSON types.
        reasons: name -> "given", "your own data", "recipe of METHOD", "recipe of METHOD, frozen
            backbone" or "recipe of METHOD on DATASET", for each setting that one of these sets.
        defaults: name -> the value without them.
        notes: printable lines on what was looked for and not found.
    """

    values: dict
    reasons: dict
    defaults: dict
    notes: tuple[str, ...] = ()

    @property
    def method(self) -> type[Method]:
        """The class of the method."""
        return METHODS[self.values["method"]]

    def own(self) -> dict:
        """The settings that are the method's."""
        return {name: self.values[name] for name in self.method.setting_names()}

    def differences(self) -> dict[str, dict]:
        """Reason -> the settings that differ from the method's defaults, as runs print them.

        Settings that say where things lie are left out.
        """
        found: dict[str, dict] = {}
        for name, reason in self.reasons.items():
            if self.values[name] != self.defaults[name] and name not in NEUTRAL:
                found.setdefault(reason, {})[name] = self.values[name]
        return found

    def hparams(self) -> dict[str, bool | int | float | str]:
        """What TensorBoard's HParams tab shows: the usual settings, and those that differ."""
        names = {*_HPARAMS, *(n for settings in self.differences().values() for n in settings)}
        return {
            name: value if isinstance(value, (bool, int, float)) else as_text(value)
            for name, value in self.values.items()
            if name in names
        }

    def describe(self) -> str:
        """The differences, one line per reason."""
        lines = []
        for reason, settings in self.differences().items():
            shown = ", ".join(f"{name} {as_text(value)}" for name, value in settings.items())
            lines.append(f"settings, {reason}: {shown}")
        lines = lines or [f"settings: the defaults of {self.values['method']}"]
        return "\n".join([*lines, *self.notes])

    def markdown(self) -> str:
        """Every setting with its value and reason, a table for TensorBoard."""
        rows = [
            f"| {name} | {as_text(value)} | {self.reasons.get(name, 'default')} |"
            for name, value in self.values.items()
        ]
        return "\n".join(["| setting | value | from |", "|---|---|---|", *rows])


def as_text(value) -> str:
    """A setting's value as flags have it."""
    if isinstance(value, (list, tuple)):
        return ",".join(map(as_text, value))
    if value is None:
        return "auto"
    return str(value).lower() if isinstance(value, bool) else str(value)


def effective_settings(
    given: Mapping, weights: Callable[[], str | None] | None = None
) -> Effective:
    """The settings of a run, from what the user gave.

    From weak to strong: defaults, those for your own data (`OWN_DATA`), then the method's recipes
    "paper", "frozen" where nothing of the backbone is trained, and that of the data set, then what
    was given. Your own images have a pretrained, frozen backbone where its weights can be had and
    no other was given.

    Args:
        given: name -> value, of `RunSettings` and of the method's settings; "method", "dataset"
            and "freeze_backbone" among them decide what the recipes are.
        weights: looks for the weights of that backbone; None for `default_weights`.

    Raises:
        ValueError: a setting that is unknown or not the method's, or a value that cannot work;
            found before any data is read.
    """
    given = dict(given)
    dataset = given.get("dataset", _NAMES["dataset"].default)
    if not isinstance(dataset, str):
        raise ValueError(f"--dataset is {dataset!r}, expected a name")
    own = dict(OWN_DATA.get(dataset, {}))
    name = given.get("method", own.get("method", PAPER))
    if not isinstance(name, str) or name not in METHODS:
        raise ValueError(f"--method is {name!r}, expected one of {', '.join(METHODS)}")
    method = METHODS[name]
    own["method"] = name
    _refuse_foreign(method, given)
    backbone, notes = _own_backbone(given, dataset, weights or default_weights)
    own.update(backbone)
    defaults = _defaults(method)
    frozen = is_frozen({**defaults, **own, **given})
    occasions = [("paper", f"recipe of {name}")]
    if frozen:
        occasions.append(("frozen", f"recipe of {name}, frozen backbone"))
    occasions.append((dataset, f"recipe of {name} on {dataset}"))
    values, reasons = dict(defaults), {}
    layers = [(reason, method.recipes.get(key, {})) for key, reason in occasions]
    for reason, settings in [("your own data", own), *layers, ("given", given)]:
        for setting_name, value in settings.items():
            values[setting_name] = value
            reasons[setting_name] = reason
    if values["cache_dir"] is None:
        values["cache_dir"] = os.fspath(home_of(values) / "cache")
    values = {n: _plain(v) for n, v in values.items()}
    defaults = {n: _plain(v) for n, v in defaults.items()}
    checked(RunSettings(**{n: values[n] for n in _NAMES}))
    check_bits(values["bits"])
    effective = Effective(values, reasons, defaults, notes)
    method(values["bits"], values["seed"], **effective.own())
    if values["augment"] is None or dataset == "features":
        values["augment"] = not frozen and dataset != "features"
    if values["dropout"] is None:
        trained = not frozen and dataset != "features"
        values["dropout"] = (
            own_dropout(values["backbone"], values["backbone_weights"]) if trained else 0.0
        )
    if dataset != "features":
        _check_images(values, frozen)
    return effective


def _own_backbone(given: Mapping, dataset: str, weights: Callable) -> tuple[dict, tuple[str, ...]]:
    """The backbone of your own images if no other is given, and what is to be said of it."""
    if dataset != "pairs" or "backbone" in given or "backbone_weights" in given:
        return {}, ()
    found = weights()
    if found is None:
        return {}, (
            f"warning: no ImageNet weights of {DEFAULT_BACKBONE} could be found or downloaded: a "
            "random network is trained, which takes long and finds less; put "
            "mobilenet_v2_1.0_224_no_top.h5 into $DSPRH_HOME/weights, or give "
            f"--backbone={DEFAULT_BACKBONE} --backbone_weights=FILE --freeze_backbone",
        )
    settings = {"backbone": DEFAULT_BACKBONE, "backbone_weights": found, "freeze_backbone": True}
    where = "of keras.applications" if found == "imagenet" else f"in {found}"
    return settings, (f"backbone: {DEFAULT_BACKBONE} with the ImageNet weights {where}, frozen",)


def home_of(values: Mapping) -> Path:
    """The folder of `runs` and `cache`: DSPRH_HOME, or that of your own data, or the current one.

    Args:
        values: effective settings, of which "dataset" and "data_dir" count.
    """
    home, data_dir = os.environ.get("DSPRH_HOME"), values["data_dir"]
    if home:
        return Path(home)
    if values["dataset"] not in OWN_DATA or not data_dir:
        return Path()
    return Path(data_dir) if os.path.isdir(data_dir) else Path(data_dir).parent


def recorded_settings(record: Mapping, **changed) -> Effective:
    """The settings of an existing run, from its `flags.json`.

    Runs of earlier versions recorded the settings of all methods; those of others are left out.
    Nobody looked whether their data are odd: that is said now, and refused no more.

    Args:
        record: the content of `flags.json`.
        **changed: settings that override it, where they are not None.

    Raises:
        ValueError: the record names no known method, or as `effective_settings`.
    """
    method = record.get("method")
    if not isinstance(method, str) or method not in METHODS:
        raise ValueError(f"--method is {method!r}, expected one of {', '.join(METHODS)}")
    known = (*_NAMES, *METHODS[method].setting_names())
    record = {"accept_odd_data": True, **UNRECORDED, **record}
    given = {name: record[name] for name in known if name in record}
    given.update({name: value for name, value in changed.items() if value is not None})
    return effective_settings(given)


def is_frozen(settings: Mapping) -> bool:
    """Whether a run trains nothing of the backbone: it is frozen, or features are given."""
    return bool(settings["freeze_backbone"] or settings["dataset"] == "features")


def owners(name: str) -> list[str]:
    """The methods that have a setting."""
    return [key for key, method in METHODS.items() if name in method.setting_names()]


def method_fields() -> dict[str, dict[str, dataclasses.Field]]:
    """Setting -> method -> its field, of all settings of methods, in the order of the methods."""
    found: dict[str, dict[str, dataclasses.Field]] = {}
    for key, method in METHODS.items():
        for field in dataclasses.fields(method.Settings):
            found.setdefault(field.name, {})[key] = field
    return found


def _defaults(method: type[Method]) -> dict:
    own = {field.name: field.default for field in dataclasses.fields(method.Settings)}
    return {**{name: field.default for name, field in _NAMES.items()}, **own}


def _refuse_foreign(method: type[Method], given: Mapping) -> None:
    own = method.setting_names()
    for name in given:
        if name in _NAMES or name in own:
            continue
        if owners(name):
            raise ValueError(
                f"--{name} belongs to {', '.join(owners(name))}; {method.name} has {', '.join(own)}"
            )
        near = difflib.get_close_matches(name, [*own, *_NAMES, *method_fields()])
        hint = f"; near: {', '.join(near)}" if near else ""
        raise ValueError(f"unknown setting {name!r}{hint}")


def _plain(value):
    """JSON types: sequences as lists, paths as strings."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return list(value) if isinstance(value, tuple) else value


def _check_images(values: Mapping, frozen: bool) -> None:
    check_backbone(
        values["backbone"], values["backbone_weights"], values["image_size"], values["dropout"]
    )
    if values["image_size"] > values["resize"]:
        raise ValueError(
            f"--image_size={values['image_size']} is larger than --resize={values['resize']}, the "
            "short side that it is cropped from: raise --resize or lower --image_size"
        )
    if values["augment"] and frozen and values["cache"]:
        raise ValueError(
            "--augment changes images each epoch, and the frozen backbone's outputs are cached: "
            "add --nocache, or drop --augment"
        )
