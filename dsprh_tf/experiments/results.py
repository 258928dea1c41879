"""Results of an experiment's trials, averaged over seeds, beside the published figures."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Sequence

import numpy as np
import pandas as pd

from dsprh_tf.evaluation.results import VALIDATION, scalar_table
from dsprh_tf.evaluation.retrieval import CROSS_MODAL
from dsprh_tf.experiments.plan import Entry
from dsprh_tf.experiments.published import paper_backbone

METRICS = ("map@50", "map")  # the paper's, and those of "mean of four"
SHOWN = (*METRICS, "ndcg@50")
TITLES = {
    "map@50": "MAP@50",
    "map": "MAP",
    "ndcg@50": "NDCG@50",
    "mean of four": "Mean of the four: MAP@50 and MAP in both directions",
    "asymmetric mean of four": "The same by asymmetric distance",
    "typed map@50": "One text as the query: MAP@50, text → image",
    "typed_asymmetric map@50": "One text as the query: MAP@50, text → image, asymmetric distance",
    "mean map": "Mean of MAP in both directions",
    "mean ndcg@50": "Mean of NDCG@50 in both directions",
    "validation_map": "Validation MAP, without labels or test queries",
    "typed_validation_map": "Validation MAP of single texts, without labels or test queries",
    "validation_mrr": "Validation: mean reciprocal rank of each pair's own image and text",
    "typed_validation_mrr": "Validation: mean reciprocal rank of each single text's own image",
}
# Those between the modalities, as pages show them.
DIRECTIONS = {name: name.replace("_to_", " → ") for name in CROSS_MODAL}


def read_trials(entries: Sequence[Entry], out: str | os.PathLike) -> pd.DataFrame:
    """The state and the numbers of a plan's trials.

    Args:
        entries: the plan.
        out: the output folder.

    Returns:
        One row per entry, way to search and direction (one per entry without results): row, bits,
        parameter, value, trial, method, seed, seconds, state ("done", "failed" or "open"), reason,
        searched ("" or one of `results.VARIANTS`), direction, and one column per metric that is a
        number.

    Raises:
        ValueError: results of another version of the project.
    """
    rows = []
    for entry in entries:
        trial, record = entry.trial, entry.trial.record(out)
        head = {
            "row": entry.row, "bits": entry.bits, "parameter": entry.parameter,
            "value": entry.value, "trial": trial.name, "method": trial.method, "seed": trial.seed,
            "seconds": trial.seconds(out),
        }  # fmt: skip
        if record is not None:
            numbers = scalar_table(record).drop(columns=["method", "bits", "dataset", "seed"])
            done = {**head, "state": "done", "reason": ""}
            rows += [{**done, **line} for line in numbers.to_dict("records")]
        else:
            reason = trial.failure(out)
            rows.append({**head, "state": "failed" if reason else "open", "reason": reason or ""})
    columns = ["searched", "direction", "chance", "queries", "database", *VALIDATION, *SHOWN]
    return pd.DataFrame(rows).reindex(columns=[*rows[0], *(c for c in columns if c not in rows[0])])


def summarise(results: pd.DataFrame, printed: pd.DataFrame, backbone: str) -> pd.DataFrame:
    """Mean and standard deviation over seeds, beside what was printed.

    Args:
        results: of `read_trials`.
        printed: of `published`.
        backbone: name of the backbone here: a row is set beside the printed one with it, else
            beside that with AlexNet, the paper's main one; a row that names its backbone beside
            that one.

    Returns:
        Columns row, bits, direction, metric, mean, std (NaN below 2 seeds), done, seeds, failed,
        published, difference. Directions are the two cross-modal ones and, under direction "", as
        metric "mean of four" the mean of their MAP and MAP@50 per seed ("asymmetric mean of four":
        by asymmetric distance), "mean map" and "mean ndcg@50" the means of both directions,
        "typed map@50" and "typed_asymmetric map@50" of single texts, and the scores of
        `VALIDATION`.
    """
    known: dict[tuple, float] = {}
    for wanted in ("", "AlexNet", paper_backbone(backbone)):  # the last that there is counts
        lines = printed[printed["backbone"] == wanted]
        known.update(_by_place(lines, lines["row"]))
    known.update(_by_place(printed, printed["row"] + ", " + printed["backbone"]))
    rows = []
    for (row, bits), group in results.groupby(["row", "bits"], sort=False):
        counts = {"row": row, "bits": bits, "seeds": group["seed"].nunique(),
                  "failed": group.loc[group["state"] == "failed", "seed"].nunique()}  # fmt: skip
        between = group[group["direction"].isin(list(DIRECTIONS))]
        cross = between[between["searched"] == ""]
        samples = {
            (direction, metric): cross.loc[cross["direction"] == direction, metric]
            for metric, direction in itertools.product(SHOWN, DIRECTIONS)
        }
        by_seed = cross.groupby("seed")
        samples["", "mean of four"] = by_seed[list(METRICS)].mean().mean(axis=1)
        for searched, lines in between[between["searched"] != ""].groupby("searched"):
            if searched == "asymmetric":
                mean = lines.groupby("seed")[list(METRICS)].mean().mean(axis=1)
                samples["", "asymmetric mean of four"] = mean
            else:
                samples["", f"{searched} map@50"] = lines.groupby("seed")["map@50"].first()
        for metric in ("map", "ndcg@50"):
            samples["", f"mean {metric}"] = by_seed[metric].mean()
        for name in VALIDATION:
            if group[name].notna().any():
                samples["", name] = by_seed[name].first()
        for (direction, metric), values in samples.items():
            values = values.to_numpy(float)
            mean = values.mean() if len(values) else np.nan
            std = values.std(ddof=1) if len(values) > 1 else np.nan
            there = known.get((row, bits, direction, metric), math.nan)
            rows.append({**counts, "direction": direction, "metric": metric, "mean": mean,
                         "std": std, "done": len(values), "published": there,
                         "difference": mean - there})  # fmt: skip
    return pd.DataFrame(rows)


def _by_place(lines: pd.DataFrame, rows: pd.Series) -> dict[tuple, float]:
    """(row, bits, direction, metric) -> value."""
    return dict(zip(zip(rows, lines["bits"], lines["direction"], lines["metric"]), lines["value"]))


def mean_curves(entries: Sequence[Entry], out: str | os.PathLike) -> pd.DataFrame:
    """Curves of the finished trials, averaged over seeds point by point.

    Points are the same Hamming radius, or rank where there are no codes; a point that not all
    seeds have is left out.

    Args:
        entries: the plan.
        out: the output folder.

    Returns:
        Columns row, bits, direction, curve ("precision_recall" or "precision_at_k"), x, precision.
    """
    points = []
    for entry in entries:
        record = entry.trial.record(out) or {}
        for direction, curve in itertools.product(
            DIRECTIONS, ("precision_recall", "precision_at_k")
        ):
            if direction not in record:
                continue
            values = record[direction][curve]
            x = values["recall" if curve == "precision_recall" else "k"]
            at = values.get("radius") or values.get("rank") or x
            head = (entry.row, entry.bits, direction, curve, entry.trial.seed)
            points += [(*head, *p) for p in zip(at, x, values["precision"])]
    keys = ["row", "bits", "direction", "curve"]
    table = pd.DataFrame(points, columns=[*keys, "seed", "point", "x", "precision"])
    seeds = table.groupby(keys)["seed"].transform("nunique")
    held = table.groupby([*keys, "point"])["seed"].transform("nunique")
    mean = table[held == seeds].groupby([*keys, "point"], sort=False)[["x", "precision"]].mean()
    return mean.reset_index().drop(columns="point")
