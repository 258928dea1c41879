"""The flags of the training program; they are the settings of a run."""

from __future__ import annotations

import math

from absl import flags
from common import LOADERS, objective_of

from dsprh_tf import losses, methods, supervised_losses, training
from dsprh_tf.backbones import check_backbone
from dsprh_tf.codes import check_bits
from dsprh_tf.layers import FeatureFusion

_B, _E, _F = flags.DEFINE_boolean, flags.DEFINE_enum, flags.DEFINE_float
_I, _S = flags.DEFINE_integer, flags.DEFINE_string

_E("dataset", "pairs", sorted(LOADERS), "Kind of data: " + ", ".join(sorted(LOADERS)) + ".")
_S("data_dir", None, "Folder of the data (for pairs also a manifest, for features a file).")
_E("on_bad_image", "error", ["error", "skip"], "error: stop; skip: leave it out, list it.")
_E("on_bad_text", "error", ["error", "skip"], "The same for a text without a known word.")
_I("queries", 2000, "Test queries, where the data brings no split.", 1)
_I("train_pairs", 5000, "Training pairs, where the data brings no split.", 1)
_E("on_missing_labels", "error", ["error", "skip"], "The same for a training pair without a label "
   "(supervised methods).")  # fmt: skip
_F("validation", 0.05, "Share (or number, from 1) of the training pairs kept for validation.", 0.0)
_I("min_word_pairs", 5, "A word must occur in so many training texts.", 1)
_I("max_words", None, "Keep only so many of the most frequent words.", 1)
_I("scenes_count", 2000, "Pictures to draw for --dataset=scenes.", 1)

_E("method", "dsprh", sorted(methods.METHODS), "Networks and loss.")
_I("bits", 64, "Code length, a multiple of 8.")
_S("backbone", "alexnet", "alexnet, resnet34 or a keras.applications model (MobileNetV2).")
_S("backbone_weights", "none", "none, imagenet (keras.applications only) or a file.")
_I("image_size", 224, "Pixels a side that the backbone sees.", 1)
_I("resize", 256, "Short side in pixels before the crop.", 1)
_B("freeze_backbone", False, "Train only what stands on the backbone.")
_F("dropout", 0.0, "Rate before AlexNet's fc6 and fc7 while fine-tuning (torchvision: 0.5).")
flags.DEFINE_list("fusion_weights", ["0.25", "0.25", "0.5"], "w1,w2,w3 of strip pooling, "
                  "covariance and backbone feature; 0 leaves a branch out.")  # fmt: skip
_I("cov_channels", 128, "Channels before the covariance; 0 keeps all.", 0)
_B("covariance", True, "iSQRT-COV; --nocovariance pools by the mean instead.")
_I("text_hidden", 4096, "Hidden size of the text network.", 1)
_I("width", 128, "Values of a level (hsidhn) or token (sdeh).", 1)
_B("multi_scale", True, "hsidhn: pyramid and windows; --nomulti_scale: means and words alone.")
_B("interaction", True, "hsidhn: bilinear interaction of neighbouring levels, both ways.")
_I("heads", 4, "Heads of sdeh's self-attention; --width is a multiple of them.", 1)
_F("hash_dropout", 0.0, "Rate before the hash layer (hsidhn, sdeh).", 0.0, 1.0)
_E("decoder_input", "tanh", ["tanh", "sign"], "What the decoders read (dsah: sign is inert).")

_O = losses.DSPRHObjective
_F("alpha", _O.alpha, "Weight of L_1 = L_F + L_R + L_W.")
_F("beta", _O.beta, "Weight of the cosine triplet loss L_2.")
_F("gamma", _O.gamma, "Weight of the pairwise loss L_3.")
_F("image_weight", _O.image_weight, "lambda: share of image similarity in the joint one.")
_F("scale", _O.scale, "k: how far similarities are stretched.")
_F("within_weight", _O.within_weight, "eta: weight of the single modalities in L_W.")
_F("diagonal_target", _O.diagonal_target, "t of L_R (DSAH: 1.5).")
_F("diagonal_weight", 0.1, "Weight of L_R's first term (dsprh_plus; 1 elsewhere).")
_F("symmetry_weight", _O.symmetry_weight, "Weight of L_R's second term (DSAH: 2).")
_E("similarity_source", _O.similarity_source, ["frozen", "fused"], "F_I of the similarity.")
_E("related", _O.related, losses.RELATED, "What is related in L_2.")
_E("pairwise_target", _O.pairwise_target, losses.PAIRWISE_TARGETS, "s_ij of L_3.")
_F("neighbour_share", 0.02, "Share of the training set that neighbours means.", 0.0, 1.0)
_F("second_order", 0.5, "w: share of second-order similarity (djsrh, dsprh_plus).", 0.0, 1.0)
_I("neighbours", 20, "Neighbours of an item in the training graph (dsprh_plus).", 2)
_F("target_deviation", 0.35, "Standard deviation of the graph's targets (dsprh_plus).", 0.0)
_F("margin", _O.margin, "nu of L_2.")
_E("triplet_reduction", _O.triplet_reduction, losses.REDUCTIONS, "Of L_2.")
_E("pairwise_reduction", _O.pairwise_reduction, losses.REDUCTIONS, "Of L_3.")
_H, _Q = supervised_losses.HSIDHNObjective, supervised_losses.SDEHObjective
_F("hard_weight", _H.hard_weight, "Weight of the pairwise likelihood of a shared label (hsidhn).")
_F("soft_weight", _H.soft_weight, "Weight of the squared error on the labels' cosine (hsidhn).")
_F("soft_scale", _H.soft_scale, "Stretches label cosines as targets (hsidhn, sdeh).")
_F("quantization_weight", _H.quantization_weight, "Distance to binary codes (hsidhn, sdeh).")
_F("similarity_weight", _Q.similarity_weight, "Weight of the labels' cosine in L_S (sdeh).")
_F("classification_weight", _Q.classification_weight, "Weight of the cross entropy (sdeh).")
_F("distribution_weight", _Q.distribution_weight, "MMD and alignment of modalities (sdeh).")
_F("balance_weight", _H.balance_weight, "Weight of bits that are not +1 half the time (hsidhn).")

_I("epochs", 40, "Passes over the training pairs.", 1)
_I("batch_size", 32, "Pairs a step and device.", 1)
_E("optimizer", "sgd", training.OPTIMIZERS, "sgd is Nesterov, as in DSAH.")
_F("lr_image", 0.005, "Learning rate of the image side; a recipe's may depend on features.", 0.0)
_F("lr_text", 0.005, "Learning rate of text network and its decoder.", 0.0)
_E("lr_schedule", "constant", ["constant", "cosine"], "cosine: falls to 0 over the run.")
_F("momentum", 0.7, "Of sgd.", 0.0, 1.0)
_B("nesterov", True, "Of sgd.")
_F("weight_decay", 5e-4, "L2 in the gradient for sgd, decoupled for adamw and lamb.", 0.0)
_B("augment", None, "Random flip and crop; by default when the backbone is trained.")
_E("select", "validation", ["validation", "last"], "Which epoch's weights to keep.")
_S("devices", "auto", "auto: all GPUs, or the CPU; cpu:N: N logical CPUs.")
_E("precision", "float32", ["float32", "mixed_bfloat16"], "Arithmetic of the networks.")
_B("cache", True, "Keep a frozen backbone's outputs on disk.")

_I("seed", 0, "Of split, weights, order and crops.", 0)
_S("run_dir", None, "Run folder; default runs/METHOD-DATASET-BITS-SEED. Given again: resumes.")
_B("overwrite", False, "Empty the run folder first.")
_S("cache_dir", "cache", "Folder of the cached backbone outputs.")
_F("cache_limit_gb", 16.0, "Do not keep the whole database's outputs if larger.", 0.0)
_I("max_to_keep", 3, "Checkpoints kept.", 1)
_I("monitor_every", 1, "Epochs between two looks at the validation pairs.", 1)

GROUPS = {
    "data": ["dataset", "data_dir", "on_bad_image", "on_bad_text", "on_missing_labels", "queries",
             "train_pairs", "validation", "min_word_pairs", "max_words", "scenes_count"],
    "networks": ["method", "bits", "backbone", "backbone_weights", "image_size", "resize",
                 "freeze_backbone", "dropout", "fusion_weights", "cov_channels", "covariance",
                 "text_hidden", "decoder_input", "width", "multi_scale", "interaction",
                 "heads", "hash_dropout"],
    "loss": ["alpha", "beta", "gamma", "image_weight", "scale", "within_weight",
             "diagonal_target", "diagonal_weight", "symmetry_weight", "similarity_source",
             "related", "pairwise_target", "neighbour_share", "second_order", "neighbours",
             "target_deviation", "margin", "triplet_reduction", "pairwise_reduction",
             "hard_weight", "soft_weight", "soft_scale", "quantization_weight", "balance_weight",
             "similarity_weight", "classification_weight", "distribution_weight"],
    "training": ["epochs", "batch_size", "optimizer", "lr_image", "lr_text", "lr_schedule",
                 "momentum", "nesterov", "weight_decay", "augment", "select", "devices",
                 "precision", "cache"],
    "run": ["seed", "run_dir", "overwrite", "cache_dir", "cache_limit_gb", "max_to_keep",
            "monitor_every"],
}  # fmt: skip


def settings() -> dict:
    """Every setting by name, in JSON types, checked as far as no data is needed.

    What the user did not give is the method's recipe, and else the flag's default.

    Raises:
        ValueError: a value that cannot work; found before any data is read.
    """
    values = {name: flags.FLAGS[name].value for names in GROUPS.values() for name in names}
    frozen = methods.is_frozen(values)
    for name, value in methods.METHODS[values["method"]].settings(frozen).items():
        if not flags.FLAGS[name].present:
            values[name] = value
    for name, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"--{name} is {value}, expected a finite number")
    check_bits(values["bits"])
    if values["hash_dropout"] == 1:
        raise ValueError("--hash_dropout is 1, expected less: nothing would reach the hash layer")
    if not 0 < values["neighbour_share"] < 1:
        raise ValueError(
            f"--neighbour_share is {values['neighbour_share']:g}, expected more than 0 and less "
            "than 1"
        )
    values["fusion_weights"] = _fusion_weights([str(w) for w in values["fusion_weights"]])
    objective_of(values)
    if values["augment"] is None:
        values["augment"] = not frozen
    if values["dataset"] == "features":
        values["augment"] = False
        return values
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
            "--augment changes pictures each epoch, and the frozen backbone's outputs are cached: "
            "add --nocache, or drop --augment"
        )
    return values


def _fusion_weights(texts: list) -> list:
    given = ",".join(texts)
    try:
        weights = [float(text) for text in texts]
        FeatureFusion(weights)
    except ValueError:
        weights = []
    if len(weights) != 3 or not all(map(math.isfinite, weights)):
        raise ValueError(
            f"--fusion_weights is {given}, expected three numbers from 0, not all 0, such as "
            "0.25,0.25,0.5"
        )
    return weights
