"""The base class of a method: settings, recipes, networks, preparation and loss."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any, ClassVar

import keras
import numpy as np

from dsprh_tf import codes


def setting(
    default: Any,
    help: str,  # noqa: A002 - as absl calls it
    choices: Collection[str] = (),
    low: float | None = None,
    high: float | None = None,
) -> Any:
    """A field of a settings class: its default, its help text, and the values that it may have.

    Args:
        default: the default.
        help: one sentence, the text of the command-line flag.
        choices: allowed strings, looked up when a value is checked; () allows any.
        low: smallest allowed number; None for no bound.
        high: largest allowed number; None for no bound.
    """
    metadata = {"help": help, "choices": choices, "low": low, "high": high}
    return dataclasses.field(default=default, metadata=metadata)


def checked(settings) -> None:
    """Checks each field of a settings object against its type, choices and bounds.

    Raises:
        ValueError: a value is not what its field expects.
    """
    for field in dataclasses.fields(settings):
        value, about = getattr(settings, field.name), field.metadata
        if not about:
            raise TypeError(
                f"{type(settings).__name__}.{field.name} is a plain field, expected "
                f"{field.name}: ... = setting(default, help)"
            )
        if value is None:
            if field.default is not None and "None" not in str(field.type):
                raise ValueError(f"--{field.name} is None, expected a value")
            continue
        expected = _expected(field, value)
        if expected:
            several = kind_of(field) == "tuple" and isinstance(value, (tuple, list))
            shown = ",".join(map(str, value)) if several else repr(value)
            raise ValueError(f"--{field.name} is {shown}, expected {expected}")
        if about["choices"] and value not in about["choices"]:
            raise ValueError(
                f"--{field.name} is {value!r}, expected one of {', '.join(about['choices'])}"
            )


def kind_of(field: dataclasses.Field) -> str:
    """The type of a setting: "bool", "int", "float", "str" or "tuple"; None may be allowed too.

    Annotations are strings under `from __future__ import annotations`, and types without it.

    Raises:
        ValueError: another type.
    """
    kind = getattr(field.type, "__name__", str(field.type)).split(" ")[0].split("[")[0]
    if kind not in ("bool", "int", "float", "str", "tuple"):
        raise ValueError(
            f"the setting {field.name} has the type {field.type}, expected bool, int, float, str "
            "or a tuple of floats"
        )
    return kind


def _expected(field: dataclasses.Field, value) -> str | None:
    """Description of the values that a field expects, or None if the value is one of them."""
    low, high = field.metadata["low"], field.metadata["high"]
    kind = kind_of(field)
    if kind == "bool":
        return None if isinstance(value, bool) else "True or False"
    if kind == "str":
        return None if isinstance(value, str) else "a string"
    if kind == "tuple":
        return _expected_weights(field, value)
    number = _is_number(value) and (kind == "float" or value == int(value))
    noun = "a whole number" if kind == "int" else "a finite number"
    if not number:
        return noun
    if (low is not None and value < low) or (high is not None and value > high):
        if low is not None and high is not None:
            return f"{noun} from {low:g} to {high:g}"
        return f"{noun} of at least {low:g}" if low is not None else f"{noun} of at most {high:g}"
    return None


def _expected_weights(field: dataclasses.Field, value) -> str | None:
    count = str(field.type).count("float")
    numbers = isinstance(value, (list, tuple)) and len(value) == count
    if numbers and all(_is_number(x) and x >= 0 for x in value) and any(value):
        return None
    return f"{count} numbers from 0, not all 0, such as 0.25,0.25,0.5"


def _is_number(value) -> bool:
    """Whether a value is a finite number and no bool."""
    try:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return number and math.isfinite(value)
    except OverflowError:  # a whole number beyond all floats
        return False


class Method:
    """Base class of the hashing methods; each is one subclass, in a file of its own.

    | part of a subclass | content |
    |---|---|
    | docstring | the method's name and its paper |
    | `name`, `title` | its name on the command line, and in tables |
    | `supervised` | whether labels of the training pairs enter the loss |
    | `Settings` | a frozen dataclass of `setting`s: names, defaults and help, in one place |
    | `recipes` | settings that replace defaults on an occasion, see below |
    | `networks` | the image network and the text network |
    | `prepare` | what batches hold beside images and texts |
    | `pairwise` | what is computed from it on the host, for the pairs of a batch |
    | `loss`, `weights` | the loss of a batch and its terms; their factors |
    | `ablation` | row of a table -> settings that take one part of the method away |

    `recipes` maps an occasion to settings of the method or of the run (`RunSettings`). Occasions
    are "paper" (every run), "frozen" (a frozen backbone, or given features), and the name of a data
    set. If several of them have a setting, the last one in this order wins; a value that the user
    gives wins over all of them.

    Args:
        bits: code length K, a multiple of 8.
        seed: seed of random draws while training, such as dropout masks.
        **settings: fields of `Settings`.

    Attributes:
        name: name on the command line.
        terms: name of each term of the loss, without the "total" -> what it is, for TensorBoard.
        hardening: whether codes harden by alpha_e while training; False if the loss itself pulls
            them to +-1.
        pyramid: whether the image network reads the last stages of the backbone.
        takes_features: whether image features are enough; False for methods that read maps.
        decoder_input: input of the decoders: "tanh", "sign", or "inert" for signs through which
            no gradient flows; None for a method without decoders.

    Raises:
        ValueError: bits are not a multiple of 8, or a setting is unknown or not what is expected.
    """

    name: ClassVar[str] = ""
    title: ClassVar[str] = ""
    supervised: ClassVar[bool] = False
    terms: ClassVar[Mapping[str, str]] = {}
    hardening: ClassVar[bool] = True
    pyramid: ClassVar[bool] = False
    takes_features: ClassVar[bool] = True
    recipes: ClassVar[Mapping[str, Mapping]] = {}
    ablation: ClassVar[Mapping[str, Mapping]] = {}
    decoder_input: str | None = None

    @dataclasses.dataclass(frozen=True)
    class Settings:
        """The settings of a method that has none."""

    def __init_subclass__(cls, **kwargs):
        """Registers the class, so that saved models of the method can be loaded."""
        super().__init_subclass__(**kwargs)
        keras.saving.register_keras_serializable(package="dsprh_tf")(cls)

    def __init__(self, bits: int = 64, seed: int = 0, **settings):
        codes.check_bits(bits)
        self.bits = int(bits)
        self.seed = int(seed)
        self.refuse_unknown(settings)
        tuples = {k: tuple(v) for k, v in settings.items() if isinstance(v, list)}
        self.settings = self.Settings(**{**settings, **tuples})
        checked(self.settings)

    @classmethod
    def setting_names(cls) -> tuple[str, ...]:
        """Names of the method's settings."""
        return tuple(field.name for field in dataclasses.fields(cls.Settings))

    @classmethod
    def refuse_unknown(cls, names: Iterable[str]) -> None:
        """Refuses names of settings that the method does not have.

        Raises:
            ValueError: there is one; the message suggests similar names.
        """
        own = cls.setting_names()
        for name in names:
            if name not in own:
                near = difflib.get_close_matches(name, own)
                hint = f"; near: {', '.join(near)}" if near else ""
                raise ValueError(
                    f"{cls.name} has no setting {name!r}, it has {', '.join(own) or 'none'}{hint}"
                )

    def networks(self, sizes: Mapping) -> tuple:
        """The image network and the text network, not built yet.

        A network is a layer whose output is a dict with "hash" [batch, bits] and any other outputs
        that the loss reads. The image network names its inputs in an attribute `reads`.

        Args:
            sizes: {"bow": D_T, "feature": D_I, "conv_map": (h, w, C) or None, "stage_1": (21, C_1),
                ..., "labels": L}; stages and labels only if there are any.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no networks")

    def prepare(
        self, features: np.ndarray | None, texts: np.ndarray, labels: np.ndarray | None
    ) -> dict[str, np.ndarray]:
        """Rows that batches hold beside images and texts, computed once before training.

        Args:
            features: [n, D_I] image features of the training pairs by the untouched backbone, or
                None if they are not kept.
            texts: [n, D_T] text features of the training pairs.
            labels: [n, L] labels of the training pairs, or None.

        Returns:
            Name -> [n, ...], one row per training pair; a batch has its rows under these names.
        """
        del features, texts, labels
        return {}

    def pairwise(self, batch: dict) -> dict:
        """The batch with quantities of its pairs in place of rows of `prepare`.

        Batches of a run have gone through it: it runs on the host, beside the training step, and so
        may have operations that XLA cannot compile or that a GPU is slow at.

        Args:
            batch: the rows of one replica's M pairs, without pixels.

        Returns:
            A batch whose new values are [M, M].
        """
        return batch

    def loss(self, batch: Mapping, outputs: Mapping) -> dict:
        """The loss of a batch.

        Args:
            batch: "bow" [M, D_T], "target_feature" [M, D_I], and what `prepare` returned or
                `pairwise` made of it.
            outputs: of `CrossModalHashing.call`.

        Returns:
            A dict of scalars: the `terms`, and "total", which is minimised.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no loss")

    @property
    def weights(self) -> Mapping[str, float]:
        """Term of the loss -> its factor in the total, for TensorBoard; 1 for those not named."""
        return {}

    def get_config(self) -> dict:
        """The constructor's arguments."""
        return {"bits": self.bits, "seed": self.seed, **dataclasses.asdict(self.settings)}

    @classmethod
    def from_config(cls, config: Mapping) -> Method:
        """The method of a `get_config`."""
        return cls(**config)


@dataclasses.dataclass(frozen=True)
class FusionSettings:
    """Settings of the networks that DSPRH and DSPRH+ share (`networks.fused_image_network`)."""

    fusion_weights: tuple[float, float, float] = setting(
        (0.25, 0.25, 0.5),
        "w1,w2,w3 of strip pooling, covariance and backbone feature; 0 leaves a branch out.",
    )
    cov_channels: int = setting(128, "Channels before the covariance; 0 keeps all.", low=0)
    covariance: bool = setting(True, "iSQRT-COV; --nocovariance pools by the mean instead.")
    text_hidden: int = setting(4096, "Hidden size of the text network.", low=1)
    decoder_input: str = setting("tanh", "Input of the decoders.", ("tanh", "sign"))


# Recipes that several methods share.
SGD = {"optimizer": "sgd", "weight_decay": 5e-4, "batch_size": 32, "epochs": 40}
# For networks on a frozen backbone; a backbone trained at this rate would lose what it has learned.
ADAMW = {
    "optimizer": "adamw",
    "lr_image": 0.001,
    "lr_text": 0.001,
    "weight_decay": 0.01,
    "text_hidden": 1024,
    "epochs": 25,
}
# Where the hash layer reads the backbone's feature: see `image_rate`.
ADAMW_ON_FEATURES = {**ADAMW, "lr_image": None}
FINE_TUNING = {**ADAMW, "lr_image": 1e-4}


def image_rate(features: int) -> float:
    """Learning rate of the image side if `lr_image` is None.

    Adam moves every weight by about its rate, whatever the gradient, so an output of the hash
    layer moves in proportion to the number of its inputs. The rate .001 was chosen for 1,280
    inputs; with 5,120 it saturates all codes (RESULTS.md, "Wider features").

    Args:
        features: size of the frozen backbone's feature, which the hash layer reads.
    """
    return 0.001 * min(1.0, 1280 / features)
