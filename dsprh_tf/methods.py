"""Methods by name: which networks and which objective. The only place that knows the names."""

from __future__ import annotations

from dsprh_tf import codes
from dsprh_tf.losses import DSPRHObjective
from dsprh_tf.model import CrossModalHashing
from dsprh_tf.networks import ImageNetwork, TextNetwork


def dsprh(
    bits: int,
    sizes: dict,
    backbone=None,
    image_size: int | None = None,
    objective: DSPRHObjective | None = None,
    decoder_input: str = "tanh",
    **network,
) -> CrossModalHashing:
    """Deep Semantic-Preserving Reconstruction Hashing (Cheng et al., Entropy 2020).

    Args:
        bits: code length, a multiple of 8.
        sizes: {"bow": D_T, "feature": D_I, "conv_map": (h, w, C) or None}.
        backbone: pixels -> {"conv_map", "feature"}; None for precomputed features.
        image_size: pixels a side that the backbone takes.
        objective: the composite loss; the paper's by default.
        decoder_input: what the decoders read, "tanh" or "sign".
        **network: `fusion_weights`, `cov_channels`, `covariance` of `ImageNetwork`, and
            `text_hidden`, the text network's hidden size.

    Raises:
        ValueError: for bits that are no positive multiple of 8.
    """
    codes.check_bits(bits)
    text_hidden = network.pop("text_hidden", 4096)
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


METHODS = {"dsprh": dsprh}
