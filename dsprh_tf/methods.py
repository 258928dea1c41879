"""Methods by name: which networks and which objective. The only place that knows the names.

A new method is one function that builds its model, an objective, and an entry in `METHODS`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from dsprh_tf import codes
from dsprh_tf.attention import AttentiveImageNetwork, AttentiveTextNetwork
from dsprh_tf.hierarchical import HierarchicalImageNetwork, HierarchicalTextNetwork
from dsprh_tf.losses import DJSRHObjective, DSPRHObjective, GraphObjective
from dsprh_tf.model import CrossModalHashing
from dsprh_tf.networks import ImageNetwork, TextNetwork
from dsprh_tf.supervised_losses import HSIDHNObjective, SDEHObjective


def dsprh(
    bits: int,
    sizes: dict,
    backbone=None,
    image_size: int | None = None,
    objective=None,
    decoder_input: str = "tanh",
    **network,
) -> CrossModalHashing:
    """Deep Semantic-Preserving Reconstruction Hashing (Cheng et al., Entropy 2020).

    Args:
        bits: code length, a multiple of 8.
        sizes: {"bow": D_T, "feature": D_I, "conv_map": (h, w, C) or None}.
        backbone: pixels -> {"conv_map", "feature"}; None for precomputed features.
        image_size: pixels a side that the backbone takes.
        objective: the composite loss; `DSPRHObjective()` by default.
        decoder_input: what the decoders read, "tanh" or "sign".
        **network: `fusion_weights`, `cov_channels`, `covariance` of `ImageNetwork`, and
            `text_hidden`, the text network's hidden size.

    Raises:
        ValueError: for bits that are no positive multiple of 8.
    """
    codes.check_bits(bits)
    text_hidden = network.pop("text_hidden", 4096)
    network["cov_channels"] = network.get("cov_channels", 128) or None  # 0 keeps all
    if sizes.get("conv_map") is None:
        network["fusion_weights"] = (0.0, 0.0, 1.0)
    return CrossModalHashing(
        ImageNetwork(bits, **network),
        TextNetwork(bits, hidden=text_hidden),
        objective or DSPRHObjective(),
        sizes,
        backbone=backbone,
        image_size=image_size,
        decoder_input=decoder_input,
    )


def djsrh(
    bits: int,
    sizes: dict,
    backbone=None,
    image_size: int | None = None,
    objective=None,
    decoder_input: str = "tanh",
    **network,
) -> CrossModalHashing:
    """Deep Joint-Semantics Reconstructing Hashing (Su et al., ICCV 2019).

    The hash layer stands on the backbone's feature as it is; nothing is decoded. Arguments as of
    `dsprh`, of which those of the pooling branches have no effect.
    """
    return _on_plain_feature(
        bits, sizes, backbone, image_size, objective or DJSRHObjective(), decoder_input, network
    )


def dsah(
    bits: int,
    sizes: dict,
    backbone=None,
    image_size: int | None = None,
    objective=None,
    decoder_input: str = "tanh",
    **network,
) -> CrossModalHashing:
    """Deep Semantic-Alignment Hashing (Yang et al., ICMR 2020).

    Its loss is DSPRH's L_1 with t = 1.5 and weight 2 in L_R. As released its decoders read
    sign(B), through which no gradient reaches the encoders: `decoder_input="sign"` keeps that.
    Arguments as of `dsprh`, of which those of the pooling branches have no effect.
    """
    if objective is None:
        objective = DSPRHObjective(beta=0.0, gamma=0.0, diagonal_target=1.5, symmetry_weight=2.0)
    inert = "inert" if decoder_input == "sign" else decoder_input
    return _on_plain_feature(bits, sizes, backbone, image_size, objective, inert, network)


def dsprh_plus(
    bits: int,
    sizes: dict,
    backbone=None,
    image_size: int | None = None,
    objective=None,
    decoder_input: str = "tanh",
    **network,
) -> CrossModalHashing:
    """DSPRH's networks with this project's similarity: a neighbour graph of the training set.

    Arguments as of `dsprh`; `GraphObjective` says what differs. Training needs
    `dsprh_tf.graph.build_graph` and `objective.fitted(graph)`.
    """
    objective = objective or GraphObjective()
    return dsprh(bits, sizes, backbone, image_size, objective, decoder_input, **network)


def _on_plain_feature(bits, sizes, backbone, image_size, objective, decoder_input, network):
    codes.check_bits(bits)
    return CrossModalHashing(
        ImageNetwork(bits, fusion_weights=(0.0, 0.0, 1.0), normalize=False),
        TextNetwork(bits, hidden=network.get("text_hidden", 4096)),
        objective,
        sizes,
        backbone=backbone,
        image_size=image_size,
        decoder_input=decoder_input,
    )


def hsidhn(
    bits: int,
    sizes: dict,
    backbone=None,
    image_size: int | None = None,
    objective=None,
    decoder_input: str = "tanh",
    **network,
) -> CrossModalHashing:
    """Hierarchical Semantic Interaction-based Deep Hashing (Chen et al., PeerJ CS 2021).

    Supervised; a reconstruction from its abstract, see `dsprh_tf.hierarchical`. Needs the stages
    of the backbone; nothing is decoded, and codes harden by their own loss, not by alpha_e.

    Args:
        bits: code length, a multiple of 8.
        sizes: {"bow": D_T, "feature": D_I, "stage_1": (21, C_1), ...}.
        backbone: as of `dsprh`, with its pyramid.
        image_size: as of `dsprh`.
        objective: `HSIDHNObjective()` by default.
        decoder_input: has no effect.
        **network: `width`, `multi_scale`, `interaction`, `hash_dropout` and `seed` of both
            networks, and `text_hidden`.

    Raises:
        ValueError: for bits that are no positive multiple of 8.
    """
    codes.check_bits(bits)
    text_hidden = network.pop("text_hidden", 1024)
    return CrossModalHashing(
        HierarchicalImageNetwork(bits, **network),
        HierarchicalTextNetwork(bits, hidden=text_hidden, **network),
        objective or HSIDHNObjective(),
        sizes,
        backbone=backbone,
        image_size=image_size,
        hardening=False,
    )


def sdeh(
    bits: int,
    sizes: dict,
    backbone=None,
    image_size: int | None = None,
    objective=None,
    decoder_input: str = "tanh",
    **network,
) -> CrossModalHashing:
    """Semantic Decomposition and Enhancement Hashing (Fei et al., Pattern Recognition 2025).

    Supervised; a reconstruction from its abstract, see `dsprh_tf.attention`. Nothing is decoded,
    and codes harden by their own loss, not by alpha_e.

    Args:
        bits: code length, a multiple of 8.
        sizes: {"bow": D_T, "feature": D_I, "conv_map": (h, w, C), "labels": L}.
        backbone: as of `dsprh`.
        image_size: as of `dsprh`.
        objective: `SDEHObjective()` by default.
        decoder_input: has no effect.
        **network: `width`, `heads`, `hash_dropout` and `seed` of both networks, `text_hidden`.

    Raises:
        ValueError: for bits that are no positive multiple of 8.
    """
    codes.check_bits(bits)
    text_hidden = network.pop("text_hidden", 1024)
    return CrossModalHashing(
        AttentiveImageNetwork(bits, sizes["labels"], **network),
        AttentiveTextNetwork(bits, sizes["labels"], hidden=text_hidden, **network),
        objective or SDEHObjective(),
        sizes,
        backbone=backbone,
        image_size=image_size,
        hardening=False,
    )


@dataclasses.dataclass(frozen=True)
class Method:
    """What the programs know of a method.

    Attributes:
        title: as papers write it.
        build: the function that makes its model.
        objective: the dataclass of its loss; its fields are settings of the same names.
        recipe: setting -> value where the user gives none, instead of the general default.
        frozen: the same, and stronger, where the backbone is frozen or features are given.
        network: names of the settings that `build` takes beside bits, objective and decoder_input.
        supervised: whether labels of the training pairs enter the loss.
        pyramid: whether the networks read the backbone's last stages (`build_backbone`).
        needs_pictures: whether vectors alone (`features` data) are too little.
        ablation: row -> the settings that take one part of it away: an experiment of its own.
    """

    title: str
    build: Callable
    objective: type
    recipe: Mapping = dataclasses.field(default_factory=dict)
    frozen: Mapping = dataclasses.field(default_factory=dict)
    network: tuple[str, ...] = ("fusion_weights", "cov_channels", "covariance", "text_hidden")
    supervised: bool = False
    pyramid: bool = False
    needs_pictures: bool = False
    ablation: Mapping[str, Mapping] = dataclasses.field(default_factory=dict)

    def settings(self, frozen: bool) -> dict:
        """The recipe for a frozen or a trained backbone."""
        return {**self.recipe, **(self.frozen if frozen else {})}


def is_frozen(settings: Mapping) -> bool:
    """Whether a run trains nothing of the backbone: it is frozen, or features are given."""
    return settings["freeze_backbone"] or settings["dataset"] == "features"


def image_rate(features: int) -> float:
    """Learning rate of the image side where the recipe leaves it open (`lr_image` None).

    Adam moves every weight by about its rate, whatever the gradient, so an output of the hash
    layer moves in proportion to the number of its inputs. The rate .001 was chosen for 1,280; at
    5,120 it saturates all codes (RESULTS.md, "Wider features").

    Args:
        features: values of a frozen backbone's feature, on which the hash layer stands.
    """
    return 0.001 * min(1.0, 1280 / features)


_SGD = {"optimizer": "sgd", "weight_decay": 5e-4, "batch_size": 32, "epochs": 40}
_PARENTS = {**_SGD, "text_hidden": 4096, "image_weight": 0.9, "within_weight": 0.1, "scale": 1.5}
# What stands on a frozen backbone; a backbone that is trained would forget at this rate.
_ADAMW = {
    "optimizer": "adamw", "lr_image": 0.001, "lr_text": 0.001, "weight_decay": 0.01,
    "text_hidden": 1024, "epochs": 25,
}  # fmt: skip
# Where the hash layer stands on the backbone's feature: see `image_rate`.
_ADAMW_ON_FEATURES = {**_ADAMW, "lr_image": None}
_FINE_TUNING = {**_ADAMW, "lr_image": 1e-4}

METHODS = {
    "djsrh": Method(
        "DJSRH",
        djsrh,
        DJSRHObjective,
        {
            **_PARENTS, "momentum": 0.9, "nesterov": False, "lr_image": 0.001, "lr_text": 0.01,
            "second_order": 0.4,
        },
    ),
    "dsah": Method(
        "DSAH",
        dsah,
        DSPRHObjective,
        {
            **_PARENTS, "momentum": 0.7, "nesterov": True, "lr_image": 0.005, "lr_text": 0.005,
            "beta": 0.0, "gamma": 0.0, "diagonal_target": 1.5, "symmetry_weight": 2.0,
        },
    ),
    "dsprh": Method(
        "DSPRH",
        dsprh,
        DSPRHObjective,
        # Chosen on validation pairs without labels (RESULTS.md); the paper's own is the default.
        frozen={
            **_ADAMW_ON_FEATURES, "fusion_weights": [0.125, 0.125, 0.75], "diagonal_target": 1.5,
            "symmetry_weight": 2.0, "beta": 0.3, "margin": 0.3, "related": "neighbours",
            "gamma": 0.01,
        },
    ),
    "dsprh_plus": Method(
        "DSPRH+",
        dsprh_plus,
        GraphObjective,
        {
            "image_weight": 0.5, "diagonal_target": 1.5, "symmetry_weight": 0.0, "beta": 0.1,
            "margin": 0.3, "gamma": 0.01,
        },
        {**_ADAMW_ON_FEATURES, "fusion_weights": [0.125, 0.125, 0.75], "epochs": 40},
    ),
    # Chosen on labels of held-out training pairs (RESULTS.md); with a trained backbone untried.
    "hsidhn": Method(
        "HSIDHN",
        hsidhn,
        HSIDHNObjective,
        _FINE_TUNING,
        {**_ADAMW, "epochs": 40, "width": 256},
        network=("width", "multi_scale", "interaction", "hash_dropout", "text_hidden", "seed"),
        supervised=True,
        pyramid=True,
        needs_pictures=True,
        ablation={
            "without interaction": {"interaction": False},
            "without soft similarity": {"soft_weight": 0.0},
            "without hard similarity": {"hard_weight": 0.0},
            "without multi-scale": {"multi_scale": False},
        },
    ),
    "sdeh": Method(
        "SDEH",
        sdeh,
        SDEHObjective,
        _FINE_TUNING,
        _ADAMW,
        network=("width", "heads", "hash_dropout", "text_hidden", "seed"),
        supervised=True,
        needs_pictures=True,
        ablation={
            "without similarity loss": {"similarity_weight": 0.0},
            "without classification": {"classification_weight": 0.0},
            "without distribution loss": {"distribution_weight": 0.0},
            "without quantisation": {"quantization_weight": 0.0},
        },
    ),
}  # fmt: skip
PAPER = "dsprh"
"""The method that the paper's ablations are of."""
