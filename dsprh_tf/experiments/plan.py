"""Plans of experiments: which trials fill which places, and with which settings."""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from dsprh_tf import baseline_run, methods
from dsprh_tf.data.dataset import PairDataset
from dsprh_tf.data.files import file_sha256
from dsprh_tf.experiments import sweep
from dsprh_tf.experiments.estimate import estimate
from dsprh_tf.experiments.paper import (
    BACKBONES,
    DATASETS,
    EXPERIMENTS,
    NAMES,
    compared_row,
    title,
)
from dsprh_tf.experiments.trial import Trial
from dsprh_tf.methods.baselines import BASELINES
from dsprh_tf.run_data import split_sizes
from dsprh_tf.settings import (
    NEUTRAL,
    Effective,
    RunSettings,
    as_text,
    effective_settings,
    owners,
)

SINGLE = ("method", "bits", "seed", "run_dir", "overwrite")
"""Settings of a single run: a plan has its own methods, code lengths, seeds and folders."""

_RUN_SETTINGS = {field.name for field in dataclasses.fields(RunSettings)}


@dataclasses.dataclass(frozen=True)
class Request:
    """The data, settings, code lengths and seeds that a plan is made for.

    Attributes:
        given: the settings that the user gave, for all trials, without those of a `SINGLE` run. A
            trial takes those that it has.
        bits: code lengths; () for those of the paper.
        seeds: the seeds, at least one.
        methods: names of methods and baselines, in the order of the tables; None for all that
            the data can have.
        shared_space: as of `BaselineRun`.
        marks: fingerprints of data and weights, which determine results as well.
        has_images: False for precomputed features.
        pairs: how many train and how many there are; 0 before the data are known.
    """

    given: Mapping
    bits: tuple[int, ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2)
    methods: tuple[str, ...] | None = None
    shared_space: bool = False
    marks: Mapping = dataclasses.field(default_factory=dict)
    has_images: bool = True
    pairs: tuple[int, int] = (0, 0)

    def __post_init__(self):
        for name in () if self.methods is None else self.methods or ("",):
            if name not in NAMES:
                raise ValueError(f"unknown method {name!r}, expected some of {', '.join(NAMES)}")
        if not self.seeds:
            raise ValueError("no seeds, expected at least one, such as 0")
        if min(self.seeds) < 0:
            raise ValueError(f"--seeds has {min(self.seeds)}, expected whole numbers from 0")
        if self.dataset == "scenes":
            raise ValueError(
                "scenes are drawn anew for each seed: draw them once with `dsprh make_scenes` and "
                "give --dataset=pairs --data_dir=FOLDER"
            )
        for name in SINGLE:
            if name in self.given:
                raise ValueError(f"{name} is of a single run, expected settings of all trials")

    @property
    def dataset(self) -> str:
        """Name of the data."""
        return self.given.get("dataset", RunSettings.dataset)

    def on(self, dataset: PairDataset) -> Request:
        """This request, with what the data determine.

        Args:
            dataset: the data.

        Raises:
            ValueError: the data have no labels.
        """
        if dataset.labels is None:
            raise ValueError(
                f"{self.dataset} data has no labels, so nothing says which results are relevant: "
                "an experiment needs a labels column"
            )
        marks = {"data": dataset.fingerprint(), "weights": _weights_mark(self._weights)}
        values = self.settings(methods.PAPER)
        _, training = split_sizes(
            dataset, values["queries"], values["train_pairs"], values["unseen_database"]
        )
        return dataclasses.replace(
            self,
            marks=marks,
            has_images=dataset.image_features is None,
            pairs=(training, len(dataset)),
        )

    @property
    def _weights(self) -> str:
        return self.given.get("backbone_weights", RunSettings.backbone_weights)

    @property
    def other_backbone(self) -> tuple[str, str] | None:
        """The paper's other backbone and its weights, on the paper's data, if the file is there."""
        wanted = self._wanted_backbone()
        return wanted if wanted is not None and Path(wanted[1]).is_file() else None

    def without_backbone(self) -> list[str]:
        """A line that says which row of a comparison lacks its weights, if one does."""
        wanted = self._wanted_backbone()
        if (
            wanted is None
            or self.other_backbone is not None
            or methods.PAPER not in self.compared()
        ):
            return []
        row = f"{compared_row(methods.PAPER)}, {BACKBONES[wanted[0]]}"
        return [f"without {row}: there is no {wanted[1]} (BUILD.md, Weights)"]

    def _wanted_backbone(self) -> tuple[str, str] | None:
        """The paper's other backbone, and where its weights would lie: beside the given ones."""
        here = self.given.get("backbone", RunSettings.backbone)
        weights = Path(self._weights)
        if not (self.dataset in DATASETS and here in BACKBONES and weights.suffix):
            return None
        (other,) = set(BACKBONES) - {here}
        return other, str(weights.with_name(other + weights.suffix))

    def settings(self, method: str, **changed) -> dict:
        """The settings in effect for a method, with `changed` ones: name -> value."""
        return self._effective(method, changed).values

    def trial(self, name: str, bits: int, seed: int, **changed) -> Trial:
        """The trial of a method or baseline, with `changed` settings."""
        single = {"bits": bits, "seed": seed}
        if name in BASELINES:
            effective = baseline_run.baseline_settings({**self.given, **single})
            counting = baseline_run.SETTINGS
            own = {"method": name, "shared_space": self.shared_space}
            flags = {n: v for n, v in self.given.items() if n in counting}
            flags["shared_space"] = self.shared_space
        else:
            effective = self._effective(name, {**changed, **single})
            counting, own = tuple(effective.values), {}
            # A sweep is some hundred trials: each keeps the checkpoint that it goes on from.
            flags = {"max_to_keep": 1, **self._given_to(name), **changed}
        marks = dict(self.marks)
        if marks and "backbone_weights" in changed:
            marks["weights"] = _weights_mark(changed["backbone_weights"])
        result = {n: effective.values[n] for n in counting if n not in NEUTRAL}
        differing = [n for n, value in result.items() if value != effective.defaults[n]]
        return Trial(
            "baseline" if name in BASELINES else "train",
            name,
            bits,
            seed,
            {**result, **own, **marks},
            flags,
            tuple(sorted(differing)),
            self.pairs,
        )

    def compared(self) -> tuple[str, ...]:
        """The methods and baselines of a comparison, in the order of its rows.

        Raises:
            ValueError: one that was asked for by its name needs images, and there are none.
        """
        unfit = self._unfit()
        if self.methods is None:
            return tuple(name for name in NAMES if name not in unfit)
        asked = [name for name in self.methods if name in unfit]
        if asked:
            raise ValueError(
                f"{', '.join(asked)} cannot be compared on {self.dataset} data: it has vectors "
                "only, and images are needed; leave it out of --methods, or give other data"
            )
        return self.methods

    def left_out(self) -> list[str]:
        """A line that names the methods of which the data rule out a comparison, if any."""
        if self.methods is not None or not self._unfit():
            return []
        names = ", ".join(map(title, self._unfit()))
        return [f"without {names}: images are needed, and {self.dataset} data has vectors only"]

    def not_applied(self, names: Iterable[str]) -> list[str]:
        """A line that says which given settings some of these methods do not have, if any."""
        found = []
        for setting in self.given:
            without = [title(name) for name in names if setting not in self._given_to(name)]
            if without:
                found.append(f"--{setting} not to {', '.join(without)}")
        return [f"settings go to the methods that have them: {'; '.join(found)}"] if found else []

    def overruled(self, names: Iterable[str]) -> list[str]:
        """A line for each of these methods whose recipe the given settings change."""
        lines = []
        for name in names:
            values = self.settings(name)
            occasion = {n: self.given[n] for n in ("dataset", "freeze_backbone") if n in self.given}
            recipe = effective_settings({**occasion, "method": name})
            changes = [
                f"{n} {as_text(values[n])} instead of {as_text(recipe.values[n])}"
                for n in self.given
                if recipe.reasons.get(n, "given") != "given" and values[n] != recipe.values[n]
            ]
            if changes:
                lines.append(f"{title(name)} runs with other settings: {', '.join(changes)}")
        return lines

    def _unfit(self) -> tuple[str, ...]:
        """The methods that need images, where there are none."""
        wanting = (name for name, m in methods.METHODS.items() if not m.takes_features)
        return () if self.has_images else tuple(wanting)

    def _given_to(self, method: str) -> dict:
        """The given settings, without those that belong to other methods alone."""
        own = methods.METHODS[method].setting_names()
        others = {n for n in self.given if n not in (*_RUN_SETTINGS, *own) and owners(n)}
        return {n: value for n, value in self.given.items() if n not in others}

    def _effective(self, method: str, changed: Mapping) -> Effective:
        return effective_settings({**self._given_to(method), "method": method, **changed})


@dataclasses.dataclass(frozen=True)
class Entry:
    """A place in a table or plot, and the trial that fills it.

    Attributes:
        row: label of the row.
        bits: the column, a code length.
        trial: the trial.
        parameter: the setting that is swept, "" for tables.
        value: its value.
    """

    row: str
    bits: int
    trial: Trial
    parameter: str = ""
    value: float = math.nan


def plan(name: str, request: Request) -> list[Entry]:
    """The entries of an experiment, seed by seed, so that each seed gives a whole table.

    Raises:
        ValueError: an unknown experiment, one that the data cannot have, or settings that cannot
            work.
    """
    if name not in EXPERIMENTS:
        raise ValueError(f"unknown experiment {name!r}, expected some of {', '.join(EXPERIMENTS)}")
    experiment = EXPERIMENTS[name]
    if experiment.needs_images and not request.has_images:
        raise ValueError(
            f"{name} is about networks that read images, and {request.dataset} data has vectors "
            "only: choose another experiment, or data with images"
        )
    rows = list(experiment.rows(request))
    return [
        Entry(
            row.label,
            bits,
            request.trial(row.method, bits, seed, **row.changed),
            row.parameter,
            row.value,
        )
        for seed, bits in itertools.product(request.seeds, request.bits or experiment.bits)
        for row in rows
    ]


def make_plans(names: Sequence[str], request: Request) -> dict[str, list[Entry]]:
    """The plans of several experiments: name -> its entries.

    Raises:
        ValueError: as `plan`; or a given setting that no method of the plans has.
    """
    plans = {name: plan(name, request) for name in names}
    planned = _methods(itertools.chain(*plans.values()))
    for setting in request.given:
        theirs = owners(setting)
        if setting in _RUN_SETTINGS or not planned or set(theirs) & set(planned):
            continue
        raise ValueError(
            f"--{setting} belongs to {', '.join(theirs)}; planned are {', '.join(planned)}: leave "
            "it out, or compare one that has it (--methods)"
        )
    return plans


def remarks(plans: Mapping[str, Sequence[Entry]], request: Request) -> list[str]:
    """Notes for readers of plans: methods left out, settings not applied, recipes overruled.

    Args:
        plans: experiment -> its entries.
        request: the request that they were made for.
    """
    comparing = any(EXPERIMENTS[name].compares for name in plans)
    left_out = [*request.left_out(), *request.without_backbone()] if comparing else []
    planned = _methods(itertools.chain(*plans.values()))
    return [*left_out, *request.not_applied(planned), *request.overruled(planned)]


def unique_trials(entries: Iterable[Entry]) -> list[Trial]:
    """The trials of entries, each once, in the order to run them.

    One of the paper's method comes first: its networks read maps and feature of a frozen backbone,
    so that what it leaves in the cache can serve all others but those that read its stages.
    """
    found = list({entry.trial.name: entry.trial for entry in entries}.values())
    first = [trial for trial in found if trial.method == methods.PAPER][:1]
    return first + [trial for trial in found if trial not in first]


def plan_table(plans: Mapping[str, Sequence[Entry]], out: str | os.PathLike) -> str:
    """The trials that will run, for the screen: a line per experiment, and the sum of all.

    Args:
        plans: experiment -> its entries; a trial that several share counts for the first.
        out: the output folder.

    Raises:
        ValueError: results of another version of the project.
    """
    rows, to_run = [], {}
    every = unique_trials(itertools.chain(*plans.values()))
    for name, entries in plans.items():
        own = unique_trials(entries)
        left = [trial for trial in own if trial.record(out) is None]
        new = [trial for trial in left if trial.name not in to_run]
        to_run.update({trial.name: trial for trial in new})
        failed = sum(trial.failure(out) is not None for trial in left)
        about = sweep.duration(estimate(new, every, out).seconds)
        rows.append([name, len(own), len(own) - len(left), failed, len(new), about])
    header = ["experiment", "trials", "done", "failed before", "to run", "takes about"]
    total = estimate(list(to_run.values()), every, out)
    table = pd.DataFrame(rows, columns=header).to_string(index=False)
    about = f"about {sweep.duration(total.seconds)}, in {out}"
    return f"{table}\n{total.basis}\n{len(to_run)} of {len(every)} trials to run, {about}"


def _weights_mark(weights: str) -> str:
    """A weight file by its content, so that it can move; else its name."""
    return file_sha256(weights) if Path(weights).is_file() else weights


def _methods(entries: Iterable[Entry]) -> tuple[str, ...]:
    """The methods among the trials, without baselines."""
    names = dict.fromkeys(entry.trial.method for entry in entries)
    return tuple(name for name in names if name in methods.METHODS)
