"""The experiments of the DSPRH paper: which cells each has.

| name | in the paper | here |
|---|---|---|
| table2, table3 | all methods on MIRFlickr-25K, on NUS-WIDE | the same comparison on any data |
| table4 | L_All and each of its parts alone | L_1, L_2, L_3 with weight 1, the others 0 |
| figure4 | w3 of the fusion, w1 = w2 = (1 - w3) / 2 | 0, .25, .5, .75, 1 |
| figure5 | alpha, beta and gamma, one at a time | five values around the paper's choice |
| figure6 | precision-recall and precision@k at 128 bits | all methods in one axes |
| ablation_parts | | DSPRH without one of its networks' parts |
| ablation_loss | | DSPRH with other readings of what the paper leaves open |
| ablation_METHOD | | a method without each of the parts that its entry in `METHODS` names |

The text of the paper gives no grid for figures 4 and 5 (it names w3 = .5, .75 and 1, and the
choices alpha = 1, beta = .03, gamma = 1) nor their code length; the grids and 64 bits are ours.

The ablations of DSPRH hold out a part of the training pairs and show, beside the metrics of the
test queries, a score of these pairs that needs neither labels nor queries
(`evaluation.neighbour_map`): a setting is chosen by that score. Those of single methods choose
nothing: their first row is the one of the comparison, with its cells.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from dsprh_tf import methods
from dsprh_tf.data.dataset import PairDataset
from dsprh_tf.experiments import sweep
from dsprh_tf.experiments.sweep import Cell
from dsprh_tf.methods.baselines import REFERENCES
from dsprh_tf.run_folder import NEUTRAL

FUSION = (0.0, 0.25, 0.5, 0.75, 1.0)  # w3
WEIGHTS = {
    "alpha": (0.1, 0.3, 1.0, 3.0, 10.0),
    "beta": (0.003, 0.01, 0.03, 0.1, 0.3),
    "gamma": (0.1, 0.3, 1.0, 3.0, 10.0),
}
# What the paper says of its method, and where DJSRH's differs by dataset, by their titles.
_SAID = {"alpha": 1.0, "beta": 0.03, "gamma": 1.0, "image_weight": 0.9, "margin": 0.001}
_MIRFLICKR = {
    "DSPRH": {**_SAID, "fusion_weights": [0.25, 0.25, 0.5]},
    "DJSRH": {"image_weight": 0.9},
}
_NUSWIDE = {
    "DSPRH": {**_SAID, "fusion_weights": [0.125, 0.125, 0.75]},
    "DJSRH": {"image_weight": 0.6},
}
# The paper's datasets: their names in the published tables, and the settings that they bring.
PAPER_DATA = {
    "mirflickr25k": ("MIRFlickr-25K", _MIRFLICKR),
    "mirflickr25k_mat": ("MIRFlickr-25K", _MIRFLICKR),
    "nuswide": ("NUS-WIDE", _NUSWIDE),
}
_REFERENCES = {"lsh": "LSH", "cca_itq": "CCA + ITQ", "float": "not hashed (cosine)"}
NAMES = (*REFERENCES, *methods.METHODS)  # what a comparison can hold, in the order of its rows


@dataclasses.dataclass(frozen=True)
class Request:
    """What a plan is made for.

    Attributes:
        dataset: name of the data.
        defaults: every setting of the training program with its default.
        given: the settings that the user gave, for every cell.
        bits: code lengths; () for those of the paper.
        seeds: the seeds, at least one.
        methods: names of methods and references, in the order of the tables; None for all that
            the data can have.
        references: the settings that count for references -> their values where none is given.
        marks: what else determines results: fingerprints of data and weights.
        has_images: False for precomputed features.
    """

    dataset: str
    defaults: dict
    given: dict
    bits: tuple[int, ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2)
    methods: tuple[str, ...] | None = None
    references: dict = dataclasses.field(default_factory=dict)
    marks: dict = dataclasses.field(default_factory=dict)
    has_images: bool = True

    def __post_init__(self):
        for name in () if self.methods is None else self.methods or ("",):
            if name not in NAMES:
                raise ValueError(f"unknown method {name!r}, expected some of {', '.join(NAMES)}")
        if not self.seeds:
            raise ValueError("no seeds, expected at least one, such as 0")

    def on(self, dataset: PairDataset, weights: str) -> Request:
        """This request, with what the data determine.

        Args:
            dataset: the data.
            weights: `--backbone_weights`; a file counts by its content, so that it can move.

        Raises:
            ValueError: the data have no labels.
        """
        if dataset.labels is None:
            raise ValueError(
                f"{self.dataset} data has no labels, so nothing says which results are relevant: "
                "an experiment needs a labels column"
            )
        if Path(weights).is_file():
            weights = hashlib.sha256(Path(weights).read_bytes()).hexdigest()
        marks = {"data": dataset.fingerprint(), "weights": weights}
        has_images = dataset.image_features is None
        return dataclasses.replace(self, marks=marks, has_images=has_images)

    def settings(self, method: str, **changed) -> dict:
        """Every setting of a method's cell: default, recipe, paper, given, then `changed`."""
        _, papers = PAPER_DATA.get(self.dataset, ("", {}))
        said = papers.get(title(method), {})
        return {**self.defaults, **self.recipe(method), **said, **self.given, **changed}

    def compared(self) -> tuple[str, ...]:
        """The methods and references of a comparison, in the order of its rows.

        Raises:
            ValueError: one that was asked for by its name needs pictures, and there are none.
        """
        unfit = self._unfit()
        if self.methods is None:
            return tuple(name for name in NAMES if name not in unfit)
        asked = [name for name in self.methods if name in unfit]
        if asked:
            raise ValueError(
                f"{', '.join(asked)} cannot be compared on {self.dataset} data: it has vectors "
                "only, and pictures are needed; leave it out of --methods, or give other data"
            )
        return self.methods

    def left_out(self) -> list[str]:
        """A line that names the methods of which the data rule out a comparison, if any."""
        if self.methods is not None or not self._unfit():
            return []
        names = ", ".join(map(title, self._unfit()))
        return [f"without {names}: pictures are needed, and {self.dataset} data has vectors only"]

    def _unfit(self) -> tuple[str, ...]:
        """The methods that need pictures, where there are none."""
        wanting = (name for name, m in methods.METHODS.items() if m.needs_pictures)
        return () if self.has_images else tuple(wanting)

    def recipe(self, method: str) -> dict:
        """A method's own settings for the backbone at hand; none of a reference."""
        if method not in methods.METHODS:
            return {}
        frozen = methods.is_frozen({**self.defaults, **self.given, "dataset": self.dataset})
        return methods.METHODS[method].settings(frozen)

    def cell(self, method: str, bits: int, seed: int, **changed) -> Cell:
        """The cell of a method or reference, with `changed` settings."""
        if method in REFERENCES:
            counts = {n: self.given.get(n, value) for n, value in self.references.items()}
            only = {n: value for n, value in self.references.items() if n not in self.defaults}
            return self._cell("reference", method, bits, seed, counts, {**self.given, **only})
        settings = self.settings(method, **changed)
        plain = {**self.defaults, **self.recipe(method)}
        own = {n: v for n, v in settings.items() if n in self.given or v != plain[n]}
        # A sweep is some hundred cells: each keeps the checkpoint that it goes on from.
        own = {"max_to_keep": 1, **own}
        return self._cell("train", method, bits, seed, settings, own)

    def overruled(self, entries: Iterable[Entry]) -> list[str]:
        """A line for each method of a plan whose recipe the given settings change."""
        lines = []
        for name in dict.fromkeys(entry.cell.method for entry in entries):
            recipe = self.recipe(name)
            changes = [
                f"{n} {v} instead of {'auto' if recipe[n] is None else recipe[n]}"
                for n, v in self.given.items()
                if n in recipe and v != recipe[n]
            ]
            if changes:
                lines.append(f"{title(name)} runs with other settings: {', '.join(changes)}")
        return lines

    def _cell(self, program, method, bits, seed, settings, own) -> Cell:
        names = ("method", "bits", "seed")
        result = {n: v for n, v in settings.items() if n not in NEUTRAL and n not in names}
        result.update(self.marks, method=method, bits=bits, seed=seed)
        flags = {n: v for n, v in own.items() if n not in names}
        changed = [n for n, v in result.items() if n in self.defaults and v != self.defaults[n]]
        return Cell(program, method, bits, seed, result, flags, tuple(sorted(changed)))


@dataclasses.dataclass(frozen=True)
class Entry:
    """A place in a table or plot, and the cell that fills it.

    Attributes:
        row: label of the row.
        bits: the column, a code length.
        cell: the cell.
        parameter: the setting that is swept, "" for tables.
        value: its value.
    """

    row: str
    bits: int
    cell: Cell
    parameter: str = ""
    value: float = math.nan


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A table or figure of the paper.

    Attributes:
        title: what it shows.
        bits: the paper's code lengths.
        rows: request -> (row label, method, changed settings, swept setting, its value), ...
        note: how it was read where the paper leaves it open.
        needs_pictures: whether vectors alone are too little.
    """

    title: str
    bits: tuple[int, ...]
    rows: object
    note: str = ""
    needs_pictures: bool = False


def plan(name: str, request: Request) -> list[Entry]:
    """The entries of an experiment, seed by seed, so that each seed gives a whole table.

    Raises:
        ValueError: an unknown experiment, or one that the data cannot have.
    """
    if name not in EXPERIMENTS:
        raise ValueError(f"unknown experiment {name!r}, expected some of {', '.join(EXPERIMENTS)}")
    experiment = EXPERIMENTS[name]
    if experiment.needs_pictures and not request.has_images:
        raise ValueError(
            f"{name} is about networks that read pictures, and {request.dataset} data has vectors "
            "only: choose another experiment, or data with pictures"
        )
    rows = list(experiment.rows(request))
    return [
        Entry(row, bits, request.cell(method, bits, seed, **changed), parameter, value)
        for seed, bits in itertools.product(request.seeds, request.bits or experiment.bits)
        for row, method, changed, parameter, value in rows
    ]


def remarks(plans: dict[str, list[Entry]], request: Request) -> list[str]:
    """What readers of plans must know: methods that are left out, recipes that were overruled.

    Args:
        plans: experiment -> its entries.
        request: what they were made for.
    """
    comparing = any(EXPERIMENTS[name].rows is _comparison for name in plans)
    left_out = request.left_out() if comparing else []
    return left_out + request.overruled(itertools.chain(*plans.values()))


def unique_cells(entries: Iterable[Entry]) -> list[Cell]:
    """The cells of entries, each once, in the order to run them.

    One of the paper's method comes first: its networks read maps and feature of a frozen backbone,
    so that what it leaves in the cache can serve all others but those that read its stages.
    """
    found = list({entry.cell.name: entry.cell for entry in entries}.values())
    first = [cell for cell in found if cell.method == methods.PAPER][:1]
    return first + [cell for cell in found if cell not in first]


def plan_table(plans: dict[str, list[Entry]], out: str) -> str:
    """What will run, for the screen: a line per experiment, and the sum of all.

    Args:
        plans: experiment -> its entries; a cell that several share counts for the first.
        out: the output folder.

    Raises:
        ValueError: results of another version of the project.
    """
    rows, to_run = [], {}
    every = unique_cells(itertools.chain(*plans.values()))
    for name, entries in plans.items():
        own = unique_cells(entries)
        left = [cell for cell in own if cell.record(out) is None]
        new = [cell for cell in left if cell.name not in to_run]
        to_run.update({cell.name: cell for cell in new})
        failed = sum(cell.failure(out) is not None for cell in left)
        about = sweep.duration(sweep.remaining(new, every, out))
        rows.append([name, len(own), len(own) - len(left), failed, len(new), about])
    header = ["experiment", "cells", "done", "failed before", "to run", "takes about"]
    total = sweep.duration(sweep.remaining(list(to_run.values()), every, out))
    table = pd.DataFrame(rows, columns=header).to_string(index=False)
    return f"{table}\n{len(to_run)} of {len(every)} cells to run, about {total}, in {out}"


def title(method: str) -> str:
    """The name of a method or reference as tables show it."""
    return methods.METHODS[method].title if method in methods.METHODS else _REFERENCES[method]


def is_supervised(method: str) -> bool:
    """Whether a method or reference learns from labels."""
    return method in methods.METHODS and methods.METHODS[method].supervised


def _comparison(request: Request):
    for method in request.compared():
        row = f"{title(method)} (supervised)" if is_supervised(method) else title(method)
        yield row, method, {}, "", math.nan


def _losses(request: Request):
    yield "L_All", methods.PAPER, {}, "", math.nan
    for row, alone in (("L_1", "alpha"), ("L_2", "beta"), ("L_3", "gamma")):
        yield row, methods.PAPER, {n: float(n == alone) for n in WEIGHTS}, "", math.nan


def _fusion(request: Request):
    for w3 in FUSION:
        side = (1 - w3) / 2
        yield f"w3 = {w3:g}", methods.PAPER, {"fusion_weights": [side, side, w3]}, "w3", w3


def _weights(request: Request):
    chosen = request.settings(methods.PAPER)
    for name, grid in WEIGHTS.items():
        # The value of the other cells belongs to the curve, but a logarithmic axis has no 0.
        for value in sorted({*grid, *([chosen[name]] if chosen[name] > 0 else [])}):
            yield f"{name} = {value:g}", methods.PAPER, {name: float(value)}, name, float(value)


def _parts(request: Request):
    w1, w2, w3 = request.settings(methods.PAPER)["fusion_weights"]
    changes = {
        "without strip pooling": {"fusion_weights": [0.0, w1 + w2, w3]},
        "mean instead of covariance": {"covariance": False},
        "backbone feature alone": {"fusion_weights": [0.0, 0.0, 1.0]},
        "fusion as on MIRFlickr-25K": {"fusion_weights": _MIRFLICKR["DSPRH"]["fusion_weights"]},
    }
    yield from _held_out(request, changes)


def _readings(request: Request):
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


def _held_out(request: Request, changes: dict):
    yield from _ablation(request, methods.PAPER, changes, validation=_HELD_OUT, select="last")


def _own_parts(method: str, request: Request):
    yield from _ablation(request, method, methods.METHODS[method].ablation)


def _ablation(request: Request, method: str, changes: Mapping, **common):
    """The method as it is, then with each of the changes that are one."""
    chosen = request.settings(method)
    yield methods.METHODS[method].title, method, common, "", math.nan
    for row, changed in changes.items():
        if any(chosen[name] != value for name, value in changed.items()):
            yield row, method, {**common, **changed}, "", math.nan


_HELD_OUT = 0.15  # share of the training pairs that an ablation keeps for its choice
_ALL = (16, 32, 64, 128)
_ABLATION_NOTE = (
    f"{_HELD_OUT:.0%} of the training pairs were held out. Validation MAP ranks the other training "
    "pairs for them; relevant are the 5 % nearest by pictures and words together. Settings "
    "are chosen by it alone; the test queries stand beside it to be looked at."
)
_PARTS_NOTE = (
    "Each row changes one setting of the first, which is the row of the comparison of methods: it "
    "shares its cells, and no further pairs are held out. The numbers of the test queries are "
    "there to be looked at, not to choose by."
)
EXPERIMENTS = {
    "table2": Experiment("Comparison of methods", _ALL, _comparison,
        "Table 2 of the paper is on MIRFlickr-25K, Table 3 on NUS-WIDE; the published figures "
        "beside ours are those of the data at hand."),
    "table3": Experiment("Comparison of methods", _ALL, _comparison,
        "Table 2 of the paper is on MIRFlickr-25K, Table 3 on NUS-WIDE; the published figures "
        "beside ours are those of the data at hand."),
    "table4": Experiment("Ablation of the loss", _ALL, _losses,
        "A part alone is the loss L_1, L_2 or L_3 with weight 1; the paper does not say with "
        "which weight it trained them."),
    "figure4": Experiment("Weight w3 of the backbone feature, w1 = w2 = (1 - w3) / 2",
        (64,), _fusion, "The paper's text gives neither grid nor code length: these are ours.",
        needs_pictures=True),
    "figure5": Experiment("Weights of the loss, one at a time", (64,), _weights,
        "The paper's text gives neither grid nor code length: these are ours, around its choice "
        "alpha = 1, beta = 0.03, gamma = 1."),
    "figure6": Experiment("Precision-recall and precision@k", (128,), _comparison),
    "ablation_parts": Experiment("Parts of the networks", (64,), _parts, _ABLATION_NOTE,
        needs_pictures=True),
    "ablation_loss": Experiment("Open readings of the loss", (64,), _readings, _ABLATION_NOTE),
    **{
        f"ablation_{name}": Experiment(f"Parts of {method.title}", (64,),
            functools.partial(_own_parts, name), _PARTS_NOTE, method.needs_pictures)
        for name, method in methods.METHODS.items() if method.ablation
    },
}  # fmt: skip
