"""Optimizers by name."""

from __future__ import annotations

import keras

from dsprh_tf import compat

OPTIMIZERS = ("sgd", "adamw", "lamb")


def make_optimizer(
    name: str,
    learning_rate: float,
    momentum: float = 0.7,
    weight_decay: float = 0.0,
    cosine_steps: int = 0,
    nesterov: bool = True,
):
    """An optimizer of one modality.

    Args:
        name: "sgd", "adamw" or "lamb".
        learning_rate: step size.
        momentum: of SGD.
        weight_decay: decoupled, for adamw and lamb. SGD's is a gradient term of the model
            (`CrossModalHashing.compile`), as in the parents' recipes.
        cosine_steps: the learning rate falls to 0 along half a cosine over so many steps; 0
            keeps it constant.
        nesterov: of SGD.
    """
    if cosine_steps:
        learning_rate = keras.optimizers.schedules.CosineDecay(learning_rate, cosine_steps)
    if name == "sgd":
        return keras.optimizers.SGD(learning_rate, momentum=momentum, nesterov=nesterov)
    if name == "adamw":
        return keras.optimizers.AdamW(learning_rate, weight_decay=weight_decay)
    if name == "lamb":
        return compat.lamb(learning_rate, weight_decay)
    raise ValueError(f"optimizer is {name!r}, expected one of {', '.join(OPTIMIZERS)}")
