"""Plots of precision-recall and precision@k, and how all plots of the project look."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dsprh_tf.evaluation.retrieval import CROSS_MODAL

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Okabe and Ito's, which colour-blind readers tell apart."""

GREY = "0.35"
CHANCE_LINE: dict = {"color": GREY, "ls": ":", "lw": 1.5}
"""Style of the line at the base rate."""

CURVES = ("precision_recall", "precision_at_k")
_DASHES = ("-", (0, (5, 2)), (0, (1, 1.2)), (0, (6, 2, 1, 2)))  # for curves that lie on others


def plot_curves(record: Mapping) -> Figure:
    """Precision-recall and precision@k of the two cross-modal directions, with the chance line.

    Of data without labels: recall@k of each query's own text or image.

    Args:
        record: The content of a `results.json`.

    Returns:
        A figure with an Agg canvas: save it, or draw it into TensorBoard.
    """
    if "compared_by" in record:
        return _plot_own_items(record)
    figure = new_figure(10, 4.4)
    figure.suptitle(title(record, with_chance=False), fontsize=11)
    axes = figure.subplots(1, 2, sharey=True)
    reach = "among the first ranks" if is_cosine(record) else "within a Hamming radius"
    for panel, curve, text in zip(axes, CURVES, (reach, "among the first k results")):
        styles = zip(COLOURS, _DASHES)
        lines = [
            (
                direction.replace("_to_", " → "),
                record[direction][curve]["recall" if curve == "precision_recall" else "k"],
                record[direction][curve]["precision"],
                {"color": colour, "ls": dash, "lw": 1.8},
            )
            for direction, (colour, dash) in zip(CROSS_MODAL, styles)
        ]
        draw_curves(panel, curve, lines, record["chance"])
        panel.set_title(text)
    axes[1].set_ylabel("")  # the other one's
    axes[1].legend(frameon=False)
    return figure


def _plot_own_items(record: Mapping) -> Figure:
    figure = new_figure(7, 4.4)
    figure.suptitle(title(record, with_chance=False), fontsize=11)
    axes = figure.subplots()
    size = record["queries"] + record["database"]
    for direction, colour, dash in zip(CROSS_MODAL, COLOURS, _DASHES):
        curve = record[direction]["recall_at_k"]
        text = (
            f"{direction.replace('_to_', ' → ')}, median rank {record[direction]['median_rank']:g}"
        )
        axes.plot(curve["k"], curve["recall"], label=text, color=colour, ls=dash, marker="o", ms=4)
    axes.plot(curve["k"], [k / size for k in curve["k"]], label="chance", **CHANCE_LINE)
    axes.set(xscale="log", xlabel="k", ylabel="recall@k of the own text or image", ylim=(0, 1.02))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.legend(frameon=False)
    finish(axes)
    return figure


def draw_curves(
    axes: Axes, curve: str, lines: Iterable[tuple[str, Sequence, Sequence, Mapping]], chance: float
) -> None:
    """Curves of one kind in one axes, with the chance line.

    Args:
        axes: Where to draw.
        curve: One of `CURVES`.
        lines: (label, recall or k, precision, style of the line), ...
        chance: The base rate.
    """
    last = 0.0
    for label, x, precision, style in lines:
        markers = {"marker": "o", "ms": 3} if curve == "precision_recall" else {"marker": ""}
        axes.plot(x, precision, label=label, **{**style, **markers})
        last = max(last, *x)
    axes.axhline(chance, label=f"chance {chance:.3f}", **CHANCE_LINE)
    axes.set_ylim(0, 1.02)
    if curve == "precision_recall":
        axes.set(xlim=(0, 1.02), xlabel="recall", ylabel="precision")
    else:
        axes.set(xlim=(0, last * 1.02), xlabel="k", ylabel="precision@k")
        axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.tick_params(labelleft=True)
    finish(axes)


def new_figure(width: float, height: float) -> Figure:
    """A figure of so many inches that needs no screen."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def line_styles() -> Iterator[dict]:
    """Different lines without end: colours first, then dashes."""
    for dash in itertools.cycle(_DASHES):
        for colour in COLOURS:
            yield {"color": colour, "ls": dash, "lw": 1.7, "marker": "o", "ms": 4}


def finish(axes: Axes) -> None:
    """A pale grid behind the lines, and no frame above and on the right."""
    axes.grid(color="0.9", lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def legend_below(figure: Figure, axes: Axes) -> None:
    """One legend for all axes of a figure, made from one of them."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 5),
                  frameon=False, handlelength=3.5)  # long enough for dashes  # fmt: skip


def is_cosine(record: Mapping) -> bool:
    """Whether the results are those of embeddings."""
    if "compared_by" in record:
        return record["compared_by"] == "cosine"
    return "rank" in record["image_to_text"]["precision_recall"]


def title(record: Mapping, with_chance: bool = True) -> str:
    """Title of a table or plot: method, data, code length, seed and counts."""
    size = f"{record['bits']} {'dimensions' if is_cosine(record) else 'bits'}"
    title = (
        f"{record['method']} on {record['dataset']}, {size}, seed {record['seed']}: "
        f"{record['queries']:,} queries, {record['database']:,} database items"
    )
    if record.get("ties") == "average":
        title += ", ties averaged"
    return f"{title}, chance {record['chance']:.4f}" if with_chance else title
