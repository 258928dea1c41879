"""From codes of queries and database to results: metrics, tables, plots."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dsprh_tf import metrics
from dsprh_tf.data.files import read_json, write_json

RESULTS_FORMAT = 1
"""Version of `results.json`, its first entry; a change that old readers misread raises it."""

DIRECTIONS = ("image_to_text", "text_to_image", "image_to_image", "text_to_text")
CROSS_MODAL = DIRECTIONS[:2]
"""Those between the modalities."""

# Colours that colour-blind readers tell apart; dashes show a curve that lies on the other one.
CURVE_STYLES = {
    "image_to_text": {"color": "#0072b2", "lw": 1.8},
    "text_to_image": {"color": "#d55e00", "lw": 1.8, "ls": (0, (5, 2))},
}


@dataclass(frozen=True)
class Encoded:
    """Codes or embeddings of both modalities of the same items, with their labels.

    uint8 arrays are packed codes `[n, bits / 8]`, compared by Hamming distance; floating arrays
    are embeddings `[n, D]`, compared by cosine.

    Attributes:
        image_codes: Codes or embeddings of the images.
        text_codes: Codes or embeddings of the texts.
        labels: `[n, labels]` of 0 and 1, or None where the dataset has none.
        image_within: What images are compared by among each other; None: `image_codes`.
        text_within: What texts are compared by among each other; None: `text_codes`.
    """

    image_codes: np.ndarray
    text_codes: np.ndarray
    labels: np.ndarray | None
    image_within: np.ndarray | None = None
    text_within: np.ndarray | None = None

    def side(self, modality: str, within: bool = False) -> np.ndarray:
        """What a modality is compared by.

        Args:
            modality: `"image"` or `"text"`.
            within: For comparison with the same modality.
        """
        own = getattr(self, f"{modality}_within") if within else None
        return getattr(self, f"{modality}_codes") if own is None else own


def evaluate_directions(
    query: Encoded, database: Encoded, at: int = 50, ties: str = "stable"
) -> dict:
    """Metrics of all four directions of retrieval, with the base rate beside them.

    Within one modality a query never finds itself, since queries are not in the database.

    Args:
        query: The queries.
        database: The items that are ranked.
        at: Cut-off of the metrics that have one.
        ties: How tied distances are read, see `dsprh_tf.metrics`; of embeddings always "stable".

    Returns:
        `{"image_to_text": ..., "text_to_image": ..., "image_to_image": ..., "text_to_text": ...}`
        as `metrics.evaluate` (of embeddings: `metrics.evaluate_cosine`) gives them, and
        `"ties"`, `"chance"`, `"queries"`, `"database"`.

    Raises:
        ValueError: If labels are missing, codes and labels do not fit each other, or tied
            distances of embeddings shall be averaged.
    """
    if query.labels is None or database.labels is None:
        raise ValueError(
            "evaluation needs labels: without them nothing says which results are relevant; add "
            "a labels column to the dataset, or leave evaluation out"
        )
    results = {}
    for direction in DIRECTIONS:
        source, target = direction.split("_to_")
        pair = query.side(source, source == target), database.side(target, source == target)
        if all(side.dtype.kind == "f" for side in pair):
            if ties != "stable":
                raise ValueError(
                    f"ties is {ties!r}, but embeddings are ranked by cosine, where ties are rare "
                    "and keep the order of the database: use 'stable'"
                )
            results[direction] = metrics.evaluate_cosine(*pair, query.labels, database.labels, at)
        else:
            results[direction] = metrics.evaluate(*pair, query.labels, database.labels, at, ties)
    return {
        **results,
        "ties": ties,
        "chance": metrics.chance(query.labels, database.labels),
        "queries": len(query.labels),
        "database": len(database.labels),
    }


def neighbour_map(query: Encoded, database: Encoded, near: np.ndarray) -> float:
    """MAP with neighbours instead of labels, mean of both cross-modal directions.

    Args:
        query: codes of held-out pairs.
        database: codes of training pairs.
        near: bool [queries, database], such as `similarity.nearest_by_features` gives.
    """
    # Item j carries the numbers of the queries that it is near to as its labels.
    labels = np.eye(len(near), dtype=np.uint8), near.T.astype(np.uint8)
    pairs = ((query.image_codes, database.text_codes), (query.text_codes, database.image_codes))
    return float(np.mean([metrics.evaluate(*pair, *labels)["map"] for pair in pairs]))


def results_record(
    method: str,
    bits: int,
    dataset: str,
    seed: int,
    results: dict,
    validation_map: float | None = None,
) -> dict:
    """Results together with what they are results of: the content of `results.json`.

    Args:
        method: Name of the method.
        bits: Code length.
        dataset: Name of the dataset.
        seed: Seed of split and training.
        results: What `evaluate_directions` returned.
        validation_map: What `neighbour_map` returned for validation pairs, if there are any.

    Returns:
        One flat dictionary that opens with `"format"`; `metrics.evaluate`'s dictionaries stand
        under the directions' names.
    """
    head = {"format": RESULTS_FORMAT, "method": method, "bits": int(bits), "dataset": dataset}
    head["seed"] = int(seed)
    counts = {name: results[name] for name in ("ties", "chance", "queries", "database")}
    if validation_map is not None:
        counts["validation_map"] = validation_map
    return {**head, **counts, **{name: results[name] for name in DIRECTIONS}}


def write_results(run_dir: str | os.PathLike, record: dict) -> list[str]:
    """Files of one evaluation: `results.json`, `results.csv` and `curves.png`.

    With averaged ties their names end in `-average`, since the two do not compare.
    Each is written under a temporary name and then renamed, so that a reader never sees half of
    one; `results.json` comes last, so that where it is, all are. The CSV has one row per direction
    and one column per number.

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
    end = "" if record["ties"] == "stable" else f"-{record['ties']}"
    names = [f"results{end}.json", f"results{end}.csv", f"curves{end}.png"]
    with _replacing(run_dir / names[1]) as path:
        scalar_table(record).to_csv(path, index=False)
    with _replacing(run_dir / names[2]) as path:
        plot_curves(record).savefig(path, format="png", dpi=150)
    write_json(run_dir / names[0], record)
    return names


def read_results(path: str | os.PathLike) -> dict:
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
    if found != RESULTS_FORMAT:
        raise ValueError(
            f"{path} is a results file of another version: its format is {found!r}, expected "
            f"{RESULTS_FORMAT}; {fix}"
        )
    return record


def scalar_table(record: dict) -> pd.DataFrame:
    """Every single number of a record: one row per direction.

    Args:
        record: What `results_record` returned.

    Returns:
        Columns method, bits, dataset, seed, ties, chance, queries, database, direction, and one per
        metric that is a number; the curves are left to `results.json`.
    """
    shared = {name: v for name, v in record.items() if name not in ("format", *DIRECTIONS)}
    rows = [
        {
            **shared,
            "direction": direction,
            **{name: v for name, v in record[direction].items() if not isinstance(v, dict)},
        }
        for direction in DIRECTIONS
    ]
    return pd.DataFrame(rows)


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
        for name in names
    ]
    lines = [_title(record), f"{'':<16}" + "".join(f"  {header:>8}" for header in headers)]
    for direction in DIRECTIONS:
        cells = [
            f"  {record[direction][name]:>{max(8, len(header))}.4f}"
            for name, header in zip(names, headers)
        ]
        lines.append(f"{direction.replace('_to_', ' -> '):<16}" + "".join(cells))
    unanswerable = record["image_to_text"]["queries_without_relevant"]
    if unanswerable:
        lines.append(f"{unanswerable:,} queries have no relevant item; they count 0")
    if "validation_map" in record:
        value = record["validation_map"]
        lines.append(f"validation pairs: MAP {value:.4f} with near pairs as relevant, no labels")
    return "\n".join(lines)


def plot_curves(record: dict) -> Figure:
    """Precision-recall and precision@k of the two cross-modal directions, with the chance line.

    Args:
        record: What `results_record` returned.

    Returns:
        A figure with an Agg canvas: save it, or draw it into TensorBoard.
    """
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(_title(record, with_chance=False), fontsize=11)
    recall_axes, rank_axes = figure.subplots(1, 2, sharey=True)
    for direction, style in CURVE_STYLES.items():
        label = direction.replace("_to_", " → ")
        curve = record[direction]["precision_recall"]
        recall_axes.plot(
            curve["recall"], curve["precision"], label=label, marker="o", markersize=3, **style
        )
        ranks = record[direction]["precision_at_k"]
        rank_axes.plot(ranks["k"], ranks["precision"], label=label, **style)
    for axes in (recall_axes, rank_axes):
        axes.axhline(
            record["chance"], color="0.35", ls=":", lw=1.5, label=f"chance {record['chance']:.3f}"
        )
        axes.set_ylim(0, 1.02)
        axes.grid(color="0.9", lw=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    reach = "among the first ranks" if _is_cosine(record) else "within a Hamming radius"
    recall_axes.set(xlim=(0, 1.02), xlabel="recall", ylabel="precision", title=reach)
    last = record["image_to_text"]["precision_at_k"]["k"][-1]
    rank_axes.set(xlim=(0, last * 1.02), xlabel="k", title="among the first k results")
    rank_axes.xaxis.set_major_formatter("{x:,.0f}")
    rank_axes.tick_params(labelleft=True)
    rank_axes.legend(frameon=False)
    return figure


def _is_cosine(record: dict) -> bool:
    """Whether the results are those of embeddings."""
    return "rank" in record["image_to_text"]["precision_recall"]


def _title(record: dict, with_chance: bool = True) -> str:
    size = f"{record['bits']} {'dimensions' if _is_cosine(record) else 'bits'}"
    title = (
        f"{record['method']} on {record['dataset']}, {size}, seed {record['seed']}: "
        f"{record['queries']:,} queries, {record['database']:,} database items"
    )
    if record.get("ties") == "average":
        title += ", ties averaged"
    return f"{title}, chance {record['chance']:.4f}" if with_chance else title


@contextmanager
def _replacing(path: Path) -> Iterator[str]:
    """A temporary name in the same folder that becomes `path` when the block ends well."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        yield temporary
        os.chmod(temporary, 0o644)  # mkstemp makes files that only their owner can read
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
