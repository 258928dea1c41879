"""Plots of curves: precision-recall and precision@k."""

from __future__ import annotations

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Colours that colour-blind readers tell apart; dashes show a curve that lies on the other one.
CURVE_STYLES = {
    "image_to_text": {"color": "#0072b2", "lw": 1.8},
    "text_to_image": {"color": "#d55e00", "lw": 1.8, "ls": (0, (5, 2))},
}


def plot_curves(record: dict) -> Figure:
    """Precision-recall and precision@k of the two cross-modal directions, with the chance line.

    Args:
        record: What `results_record` returned.

    Returns:
        A figure with an Agg canvas: save it, or draw it into TensorBoard.
    """
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title(record, with_chance=False), fontsize=11)
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
    reach = "among the first ranks" if is_cosine(record) else "within a Hamming radius"
    recall_axes.set(xlim=(0, 1.02), xlabel="recall", ylabel="precision", title=reach)
    last = record["image_to_text"]["precision_at_k"]["k"][-1]
    rank_axes.set(xlim=(0, last * 1.02), xlabel="k", title="among the first k results")
    rank_axes.xaxis.set_major_formatter("{x:,.0f}")
    rank_axes.tick_params(labelleft=True)
    rank_axes.legend(frameon=False)
    return figure


def is_cosine(record: dict) -> bool:
    """Whether the results are those of embeddings."""
    return "rank" in record["image_to_text"]["precision_recall"]


def title(record: dict, with_chance: bool = True) -> str:
    """Title of a table or plot: what the results are of."""
    size = f"{record['bits']} {'dimensions' if is_cosine(record) else 'bits'}"
    title = (
        f"{record['method']} on {record['dataset']}, {size}, seed {record['seed']}: "
        f"{record['queries']:,} queries, {record['database']:,} database items"
    )
    if record.get("ties") == "average":
        title += ", ties averaged"
    return f"{title}, chance {record['chance']:.4f}" if with_chance else title
