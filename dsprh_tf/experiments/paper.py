"""The tables and figures of the DSPRH paper, and the ablations beside them.

| name | in the paper | here |
|---|---|---|
| table2, table3 | all methods on MIRFlickr-25K, on NUS-WIDE | the same comparison on any data |
| table4 | L_All and each of its parts alone | L_1, L_2, L_3 with weight 1, the others 0 |
| figure4 | w3 of the fusion, w1 = w2 = (1 - w3) / 2 | 0, .25, .5, .75, 1 |
| figure5 | alpha, beta and gamma, one at a time | five values around the paper's choice |
| figure6 | precision-recall and precision@k at 128 bits | all methods in one axes |
| ablation_parts | | DSPRH without one of its networks' parts |
| ablation_loss | | DSPRH with other readings of what the paper leaves open |
| ablation_METHOD | | a method without each of the parts that its `ablation` names |

A comparison has the paper's method twice: with the paper's constants (and DSAH's optimizer, as the
paper names none), and with the settings that were chosen here. On the paper's data it has the first
also on the paper's other backbone, if its weights lie beside the given ones.

The text of the paper gives no grid for figures 4 and 5 (it names w3 = .5, .75 and 1, and the
choices alpha = 1, beta = .03, gamma = 1) nor their code length; the grids and 64 bits are ours.

The ablations of DSPRH hold out a part of the training pairs and show, beside the metrics of the
test queries, a score of these pairs that needs neither labels nor queries
(`evaluation.retrieval.neighbour_map`): a setting is chosen by that score. Those of single methods
choose nothing: their first row is the one of the comparison, with its trials.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from dsprh_tf import methods
from dsprh_tf.methods.baselines import BASELINES
from dsprh_tf.methods.dsprh import CHOSEN
from dsprh_tf.settings import effective_settings, is_frozen

FUSION = (0.0, 0.25, 0.5, 0.75, 1.0)  # w3
WEIGHTS = {
    "alpha": (0.1, 0.3, 1.0, 3.0, 10.0),
    "beta": (0.003, 0.01, 0.03, 0.1, 0.3),
    "gamma": (0.1, 0.3, 1.0, 3.0, 10.0),
}
DATASETS = {
    "mirflickr25k": "MIRFlickr-25K",
    "mirflickr25k_mat": "MIRFlickr-25K",
    "nuswide": "NUS-WIDE",
}
"""The paper's data sets: their names here and in the published tables."""

BACKBONES = {"alexnet": "AlexNet", "resnet34": "ResNet34"}
"""The backbones of the paper's method: their names here and in the published tables."""

NAMES = (*(n for n, kind in BASELINES.items() if not kind.only_shared), *methods.METHODS)
"""The methods and baselines that can be compared on any data, in the order of the rows."""


class Row(NamedTuple):
    """A row of a table, or a point of a curve.

    Attributes:
        label: its name in the table or the legend.
        method: name of the method or baseline.
        changed: the settings that make the row.
        parameter: the setting that is swept, "" for tables.
        value: its value.
    """

    label: str
    method: str
    changed: Mapping = {}
    parameter: str = ""
    value: float = math.nan


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A table or figure.

    Attributes:
        title: its subject, for the page.
        bits: the paper's code lengths.
        rows: `plan.Request` -> its `Row`s.
        note: the reading chosen where the paper leaves it open.
        needs_images: whether vectors alone are too little.
    """

    title: str
    bits: tuple[int, ...]
    rows: Callable[..., Iterable[Row]]
    note: str = ""
    needs_images: bool = False

    @property
    def compares(self) -> bool:
        """Whether its rows are the methods and baselines of the request."""
        return self.rows is _comparison


def title(name: str) -> str:
    """A method or baseline as tables show it."""
    kinds = methods.METHODS if name in methods.METHODS else BASELINES
    return kinds[name].title


def is_supervised(name: str) -> bool:
    """Whether a method or baseline learns from labels."""
    return name in methods.METHODS and methods.METHODS[name].supervised


def compared_row(name: str) -> str:
    """The row of a comparison beside which published figures of a method stand."""
    return f"{title(name)}, the paper's constants" if name == methods.PAPER else title(name)


def _comparison(request):
    for method in request.compared():
        if method == methods.PAPER:
            yield from _papers_method(request)
            continue
        mark = " (supervised)" if is_supervised(method) else ""
        yield Row(f"{title(method)}{mark}", method)


def _papers_method(request):
    """The paper's method with its constants, on each of its backbones, and as chosen here."""
    name, row = methods.PAPER, compared_row(methods.PAPER)
    usual, recipe = request.settings(name), methods.METHODS[name].recipes["frozen"]
    # As on the paper's data, where the backbone is trained.
    there = request.dataset if request.dataset in DATASETS else "mirflickr25k"
    printed = effective_settings({"method": name, "dataset": there}).values
    chosen = recipe if is_frozen(usual) else CHOSEN

    def changed(wanted):
        listed = {n: list(v) if isinstance(v, tuple) else v for n, v in wanted.items()}
        return {n: v for n, v in listed.items() if n not in request.given and usual[n] != v}

    constants = changed({n: printed[n] for n in recipe})
    yield Row(row, name, constants)
    if request.other_backbone is not None:
        other, weights = request.other_backbone
        settings = {"backbone": other, "backbone_weights": weights}
        if request.given.get("dropout"):
            settings["dropout"] = 0.0  # given for AlexNet
        yield Row(f"{row}, {BACKBONES[other]}", name, {**constants, **settings})
    yield Row(f"{title(name)}, settings chosen here", name, changed(chosen))


def _losses(request):
    yield Row("L_All", methods.PAPER)
    for row, alone in (("L_1", "alpha"), ("L_2", "beta"), ("L_3", "gamma")):
        yield Row(row, methods.PAPER, {n: float(n == alone) for n in WEIGHTS})


def _fusion(request):
    for w3 in FUSION:
        side = (1 - w3) / 2
        weights = {"fusion_weights": [side, side, w3]}
        yield Row(f"w3 = {w3:g}", methods.PAPER, weights, "w3", w3)


def _weights(request):
    chosen = request.settings(methods.PAPER)
    for name, grid in WEIGHTS.items():
        # The value of the other trials belongs to the curve, but a logarithmic axis has no 0.
        for value in sorted({*grid, *([chosen[name]] if chosen[name] > 0 else [])}):
            changed = {name: float(value)}
            yield Row(f"{name} = {value:g}", methods.PAPER, changed, name, float(value))


def _parts(request):
    w1, w2, w3 = request.settings(methods.PAPER)["fusion_weights"]
    mirflickr = methods.METHODS[methods.PAPER].recipes["mirflickr25k"]
    changes = {
        "without strip pooling": {"fusion_weights": [0.0, w1 + w2, w3]},
        "mean instead of covariance": {"covariance": False},
        "backbone feature alone": {"fusion_weights": [0.0, 0.0, 1.0]},
        "fusion as on MIRFlickr-25K": {"fusion_weights": list(mirflickr["fusion_weights"])},
    }
    yield from _held_out(request, changes)


def _readings(request):
    changes = {
        "no L_2": {"beta": 0.0},
        "L_2 as in the paper": {"beta": 0.03, "margin": 0.001, "related": "pair"},
        "L_2, pairs related": {"beta": 0.3, "margin": 0.3, "related": "pair"},
        "L_2, neighbours related": {"beta": 0.3, "margin": 0.3, "related": "neighbours"},
        "L_2, neighbours, summed": {
            "beta": 1e-4, "margin": 0.3, "related": "neighbours", "triplet_reduction": "sum",
        },
        "no L_3": {"gamma": 0.0},
        "L_3, soft, weight 1": {"gamma": 1.0},
        "L_3, pairs, weight 0.1": {"gamma": 0.1, "pairwise_target": "pair"},
        "L_3, neighbours, weight 0.1": {"gamma": 0.1, "pairwise_target": "neighbours"},
        "L_3, soft, summed": {"gamma": 1e-4, "pairwise_reduction": "sum"},
        "L_1, summed": {"alpha": 1 / 1024, "alignment_reduction": "sum"},  # / 32^2
        "L_R as printed": {"diagonal_target": 1.0, "symmetry_weight": 0.5},
        "L_R as in DSAH": {"diagonal_target": 1.5, "symmetry_weight": 2.0},
        "eta = 1": {"within_weight": 1.0},
        "lambda = 0.9": {"image_weight": 0.9},
        "lambda = 0.5": {"image_weight": 0.5},
        "F_I fused": {"similarity_source": "fused", "related": "pair"},
        "decoders read signs": {"decoder_input": "sign"},
        "SGD": {"optimizer": "sgd", "lr_image": 0.005, "lr_text": 0.005, "weight_decay": 5e-4},
    }  # fmt: skip
    yield from _held_out(request, changes)


def _choices(request):
    changes = {
        "all texts in each batch": {"single_texts": 0.0},
        "single texts in each batch": {"single_texts": 1.0},
        "weights of the last epoch": {"average_from": 1.0},
        "mean from a quarter of the epochs": {"average_from": 0.25},
        "second-order share 0.5": {"second_order": 0.5},
        "second-order share 0.7": {"second_order": 0.7},
        "second-order share 0.9": {"second_order": 0.9},
        "all texts, last epoch, 0.5": {
            "single_texts": 0.0,
            "average_from": 1.0,
            "second_order": 0.5,
        },
    }
    yield from _held_out(request, changes, methods.BEST)


def _held_out(request, changes: dict, method: str = methods.PAPER):
    yield from _ablation(request, method, changes, validation=_HELD_OUT, select="last")


def _own_parts(method: str, request):
    yield from _ablation(request, method, methods.METHODS[method].ablation)


def _ablation(request, method: str, changes: Mapping, **common):
    """The method as it is, then with each of the changes that are one."""
    chosen = request.settings(method)
    yield Row(title(method), method, common)
    for row, changed in changes.items():
        if any(chosen[name] != value for name, value in changed.items()):
            yield Row(row, method, {**common, **changed})


_HELD_OUT = 0.15  # share of the training pairs that an ablation keeps for its choice
_ALL = (16, 32, 64, 128)
_COMPARISON_NOTE = (
    "Table 2 of the paper is on MIRFlickr-25K, Table 3 on NUS-WIDE; the published figures beside "
    "ours are those of the data at hand."
)
_ABLATION_NOTE = (
    f"{_HELD_OUT:.0%} of the training pairs were held out. Validation MAP ranks the other training "
    "pairs for them; relevant are the 5 % nearest by images and texts together. Settings "
    "are chosen by it alone; the test queries stand beside it to be looked at."
)
_PARTS_NOTE = (
    "Each row changes one setting of the first, which is the row of the comparison of methods: it "
    "shares its trials, and no further pairs are held out. The numbers of the test queries are "
    "there to be looked at, not to choose by."
)
EXPERIMENTS = {
    "table2": Experiment("Comparison of methods", _ALL, _comparison, _COMPARISON_NOTE),
    "table3": Experiment("Comparison of methods", _ALL, _comparison, _COMPARISON_NOTE),
    "table4": Experiment("Ablation of the loss", _ALL, _losses,
        "A part alone is the loss L_1, L_2 or L_3 with weight 1; the paper does not say with "
        "which weight it trained them."),
    "figure4": Experiment("Weight w3 of the backbone feature, w1 = w2 = (1 - w3) / 2",
        (64,), _fusion, "The paper's text gives neither grid nor code length: these are ours.",
        needs_images=True),
    "figure5": Experiment("Weights of the loss, one at a time", (64,), _weights,
        "The paper's text gives neither grid nor code length: these are ours, around its choice "
        "alpha = 1, beta = 0.03, gamma = 1."),
    "figure6": Experiment("Precision-recall and precision@k", (128,), _comparison),
    "ablation_parts": Experiment("Parts of the networks", (64,), _parts, _ABLATION_NOTE,
        needs_images=True),
    "ablation_loss": Experiment("Open readings of the loss", (64,), _readings, _ABLATION_NOTE),
    "ablation_plus": Experiment("Choices of DSPRH+", (64,), _choices, _ABLATION_NOTE),
    **{
        f"ablation_{name}": Experiment(f"Parts of {method.title}", (64,),
            functools.partial(_own_parts, name), _PARTS_NOTE,
            needs_images=not method.takes_features)
        for name, method in methods.METHODS.items() if method.ablation
    },
}  # fmt: skip
