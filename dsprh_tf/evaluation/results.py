"""The results of an evaluation: their record, their files, their table."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from dsprh_tf.data.files import read_json, replacing, write_json
from dsprh_tf.evaluation.own_items import RECALL_AT
from dsprh_tf.evaluation.plots import plot_curves, title
from dsprh_tf.evaluation.retrieval import CROSS_MODAL, DIRECTIONS

RESULTS_FORMAT = 1
"""Version of `results.json`, its first entry; a change that old readers misread raises it."""


class Results(dict):
    """The record of an evaluation, the content of `results.json`; it prints as a table."""

    def __str__(self):
        return format_table(self)


def results_record(
    method: str,
    bits: int,
    dataset: str,
    seed: int,
    results: dict,
    validation: Mapping[str, float] | None = None,
) -> Results:
    """Results with the method, bits, data set and seed of the run: the content of `results.json`.

    Args:
        method: Name of the method.
        bits: Code length.
        dataset: Name of the dataset.
        seed: Seed of split and training.
        results: What `evaluate_all` returned; for data without labels, what
            `evaluate_own_items` returned and `"neighbour_map"`.
        validation: What `validation_scores` returned for validation pairs, if there are any.

    Returns:
        One dictionary that opens with `"format"`; `metrics.evaluate`'s dictionaries stand under the
        directions' names, and those of `VARIANTS` under the directions' names there.
    """
    head = {"format": RESULTS_FORMAT, "method": method, "bits": int(bits), "dataset": dataset}
    head["seed"] = int(seed)
    counts = {name: results[name] for name in ("ties", "chance", "queries", "database")}
    counts |= {name: results[name] for name in _SOMETIMES if name in results}
    counts |= validation or {}
    names = (*directions(results), *(name for name in VARIANTS if name in results))
    return Results({**head, **counts, **{name: results[name] for name in names}})


def directions(record: Mapping) -> tuple[str, ...]:
    """The directions of a record: all four; without labels the two between modalities."""
    return CROSS_MODAL if "compared_by" in record else DIRECTIONS


def results_files(ties: str = "stable") -> list[str]:
    """Names of the files of one evaluation; with averaged ties they end in `-average`."""
    end = "" if ties == "stable" else f"-{ties}"
    return [f"results{end}.json", f"results{end}.csv", f"curves{end}.png"]


def write_results(run_dir: str | os.PathLike, record: dict) -> list[str]:
    """Files of one evaluation: `results.json`, `results.csv` and `curves.png`.

    With averaged ties their names end in `-average`, since the two do not compare.
    Each is written under a temporary name and then renamed, so that a reader never sees half of
    one; `results.json` comes last: if it exists, so do the others. The CSV has one row per
    direction and one column per number.

    Args:
        run_dir: Folder, made if it is missing.
        record: What `results_record` returned.

    Returns:
        The files' names.

    Raises:
        ValueError: If a number is not finite; nothing is written then.
    """
    try:
        json.dumps(record, allow_nan=False)
    except ValueError as error:
        raise ValueError(
            f"results hold a number that is not finite ({error}); nothing was written"
        ) from error
    run_dir = Path(run_dir)
    run_dir.mkdir(parents=True, exist_ok=True)
    names = results_files(record["ties"])
    with replacing(run_dir / names[1]) as path:
        scalar_table(record).to_csv(path, index=False)
    with replacing(run_dir / names[2]) as path:
        plot_curves(record).savefig(path, format="png", dpi=150)
    write_json(run_dir / names[0], record)
    return names


def read_results(path: str | os.PathLike) -> Results:
    """The record of a `results.json`.

    Args:
        path: The file.

    Returns:
        What `results_record` returned.

    Raises:
        ValueError: If the file is missing, broken, or not of this version's format.
    """
    fix = "evaluate the run again"
    record = read_json(path, fix)
    found = record.get("format") if isinstance(record, dict) else None
    if type(found) is not int or found != RESULTS_FORMAT:
        raise ValueError(
            f"{path} is a results file of another version: its format is {found!r}, expected "
            f"{RESULTS_FORMAT}; {fix}"
        )
    problem = _problem(record)
    if problem:
        raise ValueError(f"{path} is damaged, {problem}; {fix}")
    return Results(record)


def _problem(record: dict) -> str | None:
    """The first field of a record that is not as `results_record` made it, with its value."""
    kinds = {
        "method": str, "bits": int, "dataset": str, "seed": int, "ties": str, "chance": float,
        "queries": int, "database": int,
    }  # fmt: skip
    for name, kind in kinds.items():
        value = record.get(name)
        if not (_is_number(value, kind) if kind is not str else isinstance(value, str)):
            return f"{name} is {str(value)[:40]!r}"
    if not _is_number(record.get("typed_left_out", 0), int):
        return f"typed_left_out is {str(record['typed_left_out'])[:40]!r}"
    for name in (*VALIDATION, "neighbour_map"):
        if not _is_number(record.get(name, 0), float):
            return f"{name} is {str(record[name])[:40]!r}"
    labelled = "compared_by" not in record
    if not labelled and record["compared_by"] not in ("hamming", "cosine"):
        return f"compared_by is {str(record['compared_by'])[:40]!r}"
    needed, curves = (_NEEDED, _CURVES) if labelled else (OWN, _OWN_CURVES)
    for direction in directions(record):
        problem = _problem_of(direction, record.get(direction), needed, curves)
        if problem:
            return problem
        if set(record[direction]) != set(record[DIRECTIONS[0]]):
            return f"{direction} has other numbers than {DIRECTIONS[0]}"
    for name in VARIANTS:
        entries = record.get(name, {})
        if not isinstance(entries, dict) or not set(entries) <= set(DIRECTIONS):
            return f"{name} is {str(entries)[:40]!r}"
        for direction, entry in entries.items():
            problem = _problem_of(f"{name} {direction}", entry, needed, curves)
            if problem:
                return problem
    return None


def _problem_of(where: str, entry, needed, curves: Mapping) -> str | None:
    """The same of one direction."""
    if not isinstance(entry, dict) or not {*needed, *curves} <= set(entry):
        return f"{where} lacks numbers"
    for name, value in entry.items():
        if not (_is_curve(value) if isinstance(value, dict) else _is_number(value, float)):
            return f"{where} has {name} {str(value)[:40]!r}"
        if isinstance(value, dict) is not (name in curves):
            return f"{where} has {name} {str(value)[:40]!r}"
    for curve, (x, y) in curves.items():
        if not {x, y} <= set(entry[curve]):
            return f"{where} has a {curve} without {x}"
    return None


VALIDATION = (
    "validation_map", "typed_validation_map", "validation_mrr", "typed_validation_mrr",
)  # fmt: skip
"""The scores of `encode_pairs.validation_scores`."""

VARIANTS = {
    "asymmetric": "asymmetric",
    "typed": "one text",
    "typed_asymmetric": "one text, asymmetric",
}
"""Other ways to search: entry of a record -> what the table calls it. Where it is there, it has
directions as the record itself."""

_CURVES = {"precision_recall": ("recall", "precision"), "precision_at_k": ("k", "precision")}
_NEEDED = ("map", "queries_without_relevant")
_SOMETIMES = ("compared_by", "neighbour_map", "typed_left_out")
OWN = (*(f"recall@{k}" for k in RECALL_AT), "median_rank")
"""The numbers of a direction where there are no labels."""
_OWN_CURVES = {"recall_at_k": ("k", "recall")}


def _is_number(value, kind: type) -> bool:
    kinds = (int,) if kind is int else (int, float)
    # NaN compares false; no share and no count comes near the bound.
    return type(value) in kinds and abs(value) < 2**53


def _is_curve(value: dict) -> bool:
    """Whether these are lists of numbers of one length."""
    lists = list(value.values())
    return (
        bool(lists)
        and all(isinstance(numbers, list) for numbers in lists)
        and len(set(map(len, lists))) == 1
        and all(_is_number(number, float) for numbers in lists for number in numbers)
    )


def scalar_table(record: dict) -> pd.DataFrame:
    """Every single number of a record: one row per direction.

    Args:
        record: What `results_record` returned.

    Returns:
        Columns method, bits, dataset, seed, ties, chance, queries, database, searched ("" or one
        of `VARIANTS`), direction, and one per metric that is a number; the curves are left to
        `results.json`.
    """
    left = ("format", *DIRECTIONS, *VARIANTS)
    shared = {name: v for name, v in record.items() if name not in left}
    rows = [
        {
            **shared,
            "searched": searched,
            "direction": direction,
            **{name: v for name, v in entry.items() if not isinstance(v, dict)},
        }
        for searched, direction, entry in _entries(record)
    ]
    return pd.DataFrame(rows)


def _entries(record: Mapping) -> list[tuple[str, str, dict]]:
    """(variant or "", direction, its numbers) of all that a record has."""
    found = [("", direction, record[direction]) for direction in directions(record)]
    for name in VARIANTS:
        found += [(name, direction, entry) for direction, entry in record.get(name, {}).items()]
    return found


def format_table(record: dict) -> str:
    """Results as aligned text for the screen, chance in the title.

    Args:
        record: What `results_record` returned.

    Returns:
        Several lines without a newline at the end.
    """
    names = [name for name, value in record["image_to_text"].items() if isinstance(value, float)]
    headers = [
        name.replace("map", "MAP")
        .replace("ndcg", "NDCG")
        .replace("_min_r", " /min(R,rel)")
        .replace("precision@radius2", "P@radius<=2")
        .replace("median_rank", "median rank")
        for name in names
    ]
    labels = [
        direction.replace("_to_", " -> ") + (f", {VARIANTS[searched]}" if searched else "")
        for searched, direction, _ in _entries(record)
    ]
    width = max(16, *map(len, labels))
    lines = [title(record), f"{'':<{width}}" + "".join(f"  {header:>8}" for header in headers)]
    for label, (_, _, entry) in zip(labels, _entries(record)):
        cells = [
            f"  {entry[name]:>{max(8, len(header))}.4f}"
            if name in entry
            else f"  {'':>{max(8, len(header))}}"
            for name, header in zip(names, headers)
        ]
        lines.append(f"{label:<{width}}" + "".join(cells).rstrip())
    if "neighbour_map" in record:
        lines.append(
            "no labels: recall and median rank of each query's own text or image among all "
            f"{record['queries'] + record['database']:,} items; MAP with the 5 % nearest by "
            f"features as relevant {record['neighbour_map']:.4f}"
        )
    unanswerable = record["image_to_text"].get("queries_without_relevant")
    if unanswerable:
        lines.append(f"{unanswerable:,} queries have no relevant item; they count 0")
    if record.get("typed_left_out"):
        count = record["typed_left_out"]
        lines.append(f"one text: {count:,} texts without a known word are left out")
    if "validation_map" in record:
        value = record["validation_map"]
        typed = [record.get(f"typed_validation_{name}") for name in ("map", "mrr")]
        near, own = (f" ({one:.4f} of single texts)" if one is not None else "" for one in typed)
        lines.append(
            f"validation pairs: MAP {value:.4f}{near} with near pairs as relevant, no labels"
        )
        if "validation_mrr" in record:
            rank = record["validation_mrr"]
            lines.append(f"validation pairs: reciprocal rank of their own {rank:.4f}{own}")
    return "\n".join(lines)
