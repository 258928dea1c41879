"""The settings of a run: what every run has, and which values are in effect.

`effective_settings` is the only place that decides: the programs and `Run` call it, and nothing
else. The settings of a method stand with the method (`Method.Settings`).
"""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Mapping

from dsprh_tf.backbones.architectures import check_backbone
from dsprh_tf.codes import check_bits
from dsprh_tf.data.sources import LOADERS
from dsprh_tf.methods import METHODS, PAPER
from dsprh_tf.methods.base import Method, checked, setting
from dsprh_tf.training.optimizers import OPTIMIZERS

ON_BAD = ("error", "skip")
NEUTRAL = frozenset(
    {
        "run_dir", "overwrite", "data_dir", "cache_dir", "cache_limit_gb", "max_to_keep",
        "monitor_every", "backbone_weights", "accept_odd_data", "on_bad_text",
    }
)  # fmt: skip
"""Where things lie, what is shown and what is refused: the same run gives the same weights whatever
these are."""


@dataclasses.dataclass(frozen=True)
class RunSettings:
    """The settings of every run, in addition to those of its method."""

    dataset: str = setting("pairs", "Kind of data.", sorted(LOADERS))
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
    queries: int = setting(2000, "Test queries, if the data comes without a split.", low=1)
    train_pairs: int = setting(5000, "Training pairs, if the data comes without a split.", low=1)
    on_missing_labels: str = setting(
        "error",
        "As --on_bad_image, for a training pair without labels (supervised methods).",
        ON_BAD,
    )
    validation: float = setting(
        0.05, "Training pairs held out for validation: a share if below 1, else a number.", low=0
    )
    min_word_pairs: int = setting(5, "Keep words in at least this many training texts.", low=1)
    max_words: int | None = setting(None, "Keep only this many words, the most frequent.", low=1)
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
    dropout: float = setting(
        0.0, "Dropout before AlexNet's fc6 and fc7 while fine-tuning (torchvision: 0.5)."
    )

    epochs: int = setting(40, "Passes over the training pairs.", low=1)
    batch_size: int = setting(32, "Pairs per step and device.", low=1)
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
    select: str = setting("validation", "Which epoch's weights to keep.", ("validation", "last"))
    devices: str = setting("auto", "auto: all GPUs, or the CPU; cpu:N: N logical CPUs.")
    precision: str = setting(
        "float32", "Arithmetic of the networks.", ("float32", "mixed_bfloat16")
    )
    cache: bool = setting(True, "Keep a frozen backbone's outputs on disk.")

    seed: int = setting(0, "Seed of the split, initial weights, batch order and crops.", low=0)
    run_dir: str | None = setting(
        None, "Run folder; default runs/METHOD-DATASET-BITS-SEED. Given again: resumes."
    )
    overwrite: bool = setting(False, "Empty the run folder first.")
    cache_dir: str = setting("cache", "Folder of the cached backbone outputs.")
    cache_limit_gb: float = setting(
        16.0, "Do not keep the whole database's outputs if larger.", low=0
    )
    max_to_keep: int = setting(1, "Checkpoints kept, beside the best epoch's weights.", low=1)
    monitor_every: int = setting(1, "Epochs between evaluations on validation pairs.", low=1)


GROUPS = {
    "data": (
        "dataset", "data_dir", "on_bad_image", "on_bad_text", "on_missing_labels", "queries",
        "train_pairs", "validation", "min_word_pairs", "max_words", "scenes_count",
        "accept_odd_data",
    ),
    "networks": (
        "method", "bits", "backbone", "backbone_weights", "image_size", "resize",
        "freeze_backbone", "dropout",
    ),
    "training": (
        "epochs", "batch_size", "optimizer", "lr_image", "lr_text", "lr_schedule", "momentum",
        "nesterov", "weight_decay", "augment", "select", "devices", "precision", "cache",
    ),
    "run": (
        "seed", "run_dir", "overwrite", "cache_dir", "cache_limit_gb", "max_to_keep",
        "monitor_every",
    ),
}  # fmt: skip
"""Title -> names of `RunSettings`, the order of `--help`."""

_NAMES = {field.name: field for field in dataclasses.fields(RunSettings)}


@dataclasses.dataclass(frozen=True)
class Effective:
    """The settings that are in effect, and where they come from.

    Attributes:
        values: every setting of the run and of its method -> its value, in JSON types.
        reasons: name -> "given", "recipe of METHOD", "recipe of METHOD, frozen backbone" or
            "recipe of METHOD on DATASET", for each setting that one of these sets.
        defaults: name -> the value without them.
    """

    values: dict
    reasons: dict
    defaults: dict

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

    def describe(self) -> str:
        """The differences, one line per reason."""
        lines = []
        for reason, settings in self.differences().items():
            shown = ", ".join(f"{name} {as_text(value)}" for name, value in settings.items())
            lines.append(f"settings, {reason}: {shown}")
        return "\n".join(lines) or f"settings: the defaults of {self.values['method']}"

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


def effective_settings(given: Mapping) -> Effective:
    """The settings of a run, from what the user gave.

    From weak to strong: defaults, then the method's recipes "paper", "frozen" where nothing of the
    backbone is trained, and that of the data set, then what was given.

    Args:
        given: name -> value, of `RunSettings` and of the method's settings; "method", "dataset"
            and "freeze_backbone" among them decide what the recipes are.

    Raises:
        ValueError: a setting that is unknown or not the method's, or a value that cannot work;
            found before any data is read.
    """
    given = dict(given)
    name = given.get("method", PAPER)
    if not isinstance(name, str) or name not in METHODS:
        raise ValueError(f"--method is {name!r}, expected one of {', '.join(METHODS)}")
    method = METHODS[name]
    _refuse_foreign(method, given)
    dataset = given.get("dataset", _NAMES["dataset"].default)
    if not isinstance(dataset, str):
        raise ValueError(f"--dataset is {dataset!r}, expected a name")
    frozen = is_frozen({**_defaults(method), **given})
    occasions = [("paper", f"recipe of {name}")]
    if frozen:
        occasions.append(("frozen", f"recipe of {name}, frozen backbone"))
    occasions.append((dataset, f"recipe of {name} on {dataset}"))
    defaults = _defaults(method)
    values, reasons = dict(defaults), {}
    layers = [(reason, method.recipes.get(key, {})) for key, reason in occasions]
    for reason, settings in [*layers, ("given", given)]:
        for setting_name, value in settings.items():
            values[setting_name] = value
            reasons[setting_name] = reason
    values = {n: _plain(v) for n, v in values.items()}
    defaults = {n: _plain(v) for n, v in defaults.items()}
    checked(RunSettings(**{n: values[n] for n in _NAMES}))
    check_bits(values["bits"])
    effective = Effective(values, reasons, defaults)
    method(values["bits"], values["seed"], **effective.own())
    if values["augment"] is None or dataset == "features":
        values["augment"] = not frozen and dataset != "features"
    if dataset != "features":
        _check_images(values, frozen)
    return effective


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
    given = {"accept_odd_data": True}
    given.update({name: record[name] for name in known if name in record})
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
