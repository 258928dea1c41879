"""Plots of reports."""

from __future__ import annotations

import io
import itertools

import pandas as pd
from matplotlib.figure import Figure

from dsprh_tf.evaluation.plots import (
    CHANCE_LINE,
    COLOURS,
    CURVES,
    GREY,
    draw_curves,
    finish,
    legend_below,
    line_styles,
    new_figure,
)
from dsprh_tf.experiments.results import DIRECTIONS, METRICS, SHOWN, TITLES


def make_plots(
    name: str, results: pd.DataFrame, summary: pd.DataFrame, curves: pd.DataFrame
) -> dict[str, Figure]:
    """The plots of a report, file name -> figure; none where nothing has finished.

    Args:
        name: the experiment.
        results: of `results.read_trials`.
        summary: of `results.summarise`.
        curves: of `results.mean_curves`.
    """
    done = summary[summary["done"] > 0]
    if not len(done):
        return {}
    chance = results["chance"].mean()
    styles = dict(zip(dict.fromkeys(summary["row"]), line_styles()))
    plots = {}
    for bits, part in done.groupby("bits"):
        if name == "figure6":
            here = curves[curves["bits"] == bits]
            plots[f"curves-{bits}.png"] = plot_curves(here, bits, chance, styles)
        elif name.startswith("ablation"):
            plots[f"{name}-{bits}.png"] = plot_ablation(part, bits)
        elif name in ("figure4", "figure5"):
            swept = results.drop_duplicates("row")[["row", "parameter", "value"]]
            sweep = part.merge(swept, on="row")
            plots[f"{name}-{bits}.png"] = plot_sweeps(sweep, bits)
        elif bits == done["bits"].iloc[0]:
            plots["bits.png"] = plot_bits(done, chance, styles)
    return plots


def plot_bits(summary: pd.DataFrame, chance: float, styles: dict) -> Figure:
    """Every metric against the code length, all rows in one axes; bars are one deviation.

    Args:
        summary: of `results.summarise`, finished rows only.
        chance: the base rate.
        styles: row -> how its line looks.
    """
    figure = new_figure(11, 10.6)
    grid = figure.subplots(len(SHOWN), len(DIRECTIONS), sharex=True)
    panels = list(itertools.product(SHOWN, DIRECTIONS))
    bits = sorted(set(summary["bits"]))
    for axes, (metric, direction) in zip(grid.flat, panels):
        part = summary[(summary["metric"] == metric) & (summary["direction"] == direction)]
        for row, line in part.groupby("row", sort=False):
            bars, style = line["std"].fillna(0), styles[row]
            axes.errorbar(line["bits"], line["mean"], bars, label=row, capsize=2, **style)
            axes.plot(line["bits"], line["published"], "x", color=style["color"], ms=6)
        axes.set_title(f"{TITLES[metric]}, {DIRECTIONS[direction]}", fontsize=11)
        _log_axis(axes, bits)
        if metric == "map":  # a random ranking has the base rate as its MAP, not as the others
            axes.axhline(chance, **CHANCE_LINE)
        finish(axes)
    for axes in grid[-1]:
        axes.set_xlabel("bits")
    axes.plot([], [], label=f"chance {chance:.3f} (MAP)", **CHANCE_LINE)
    if summary["published"].notna().any():
        axes.plot([], [], "x", color=GREY, label="published")
    legend_below(figure, axes)
    return figure


def plot_ablation(summary: pd.DataFrame, bits: int) -> Figure:
    """The mean of the four metrics and the validation MAP of every row, with one deviation.

    Without validation pairs: the means of both directions of MAP and of NDCG@50.

    Args:
        summary: `results.summarise` of one code length; its first row is the base line.
        bits: the code length.
    """
    rows = list(dict.fromkeys(summary["row"]))
    figure = new_figure(11, 1.6 + 0.3 * len(rows))
    metrics = ("mean map", "mean ndcg@50")
    if "validation_map" in set(summary["metric"]):
        metrics = ("mean of four", "validation_map")
    for axes, metric in zip(figure.subplots(1, 2, sharey=True), metrics):
        part = summary[summary["metric"] == metric].set_index("row").reindex(rows)
        axes.axvline(part["mean"].iloc[0], color=GREY, lw=1, ls=":")
        axes.errorbar(part["mean"], range(len(rows)), xerr=part["std"].fillna(0), fmt="o",
                      color=COLOURS[0], capsize=2)  # fmt: skip
        axes.set_yticks(range(len(rows)), rows)
        axes.set_title(f"{TITLES[metric].split(':')[0].split(',')[0]}, {bits} bits", fontsize=11)
        finish(axes)
    axes.invert_yaxis()
    return figure


def plot_sweeps(sweep: pd.DataFrame, bits: int) -> Figure:
    """Metrics against a swept setting: one axes per metric and setting.

    Args:
        sweep: `results.summarise` of one code length, with columns parameter and value.
        bits: the code length.
    """
    parameters = list(dict.fromkeys(sweep["parameter"]))
    figure = new_figure(4 + 3.2 * len(parameters), 6.6 if len(parameters) > 1 else 3.8)
    shape = (2, len(parameters)) if len(parameters) > 1 else (1, 2)
    grid = figure.subplots(*shape, sharey="row" if len(parameters) > 1 else False, squeeze=False)
    for number, (metric, parameter) in enumerate(itertools.product(METRICS, parameters)):
        axes = grid.flat[number]
        part = sweep[(sweep["metric"] == metric) & (sweep["parameter"] == parameter)]
        part = part.sort_values("value")
        lines = {DIRECTIONS[d]: part[part["direction"] == d] for d in DIRECTIONS}
        both = part.groupby("value", as_index=False)[["mean"]].mean().assign(std=0.0)
        for style, (label, line) in zip(line_styles(), {**lines, "mean of both": both}.items()):
            bars = line["std"].fillna(0)
            axes.errorbar(line["value"], line["mean"], bars, label=label, capsize=2, **style)
        if parameter == "w3":
            axes.set_xticks(sorted(set(part["value"])))
        else:
            _log_axis(axes, sorted(set(part["value"])))
        axes.set_xlabel(parameter)
        axes.set_title(f"{TITLES[metric]}, {bits} bits", fontsize=11)
        axes.tick_params(labelleft=True)
        finish(axes)
    legend_below(figure, axes)
    return figure


def plot_curves(curves: pd.DataFrame, bits: int, chance: float, styles: dict) -> Figure:
    """Precision-recall and precision@k of both directions, all rows in one axes each.

    Args:
        curves: of `results.mean_curves`, of one code length.
        bits: the code length.
        chance: the base rate.
        styles: row -> how its line looks.
    """
    figure = new_figure(11, 8)
    panels = list(itertools.product(CURVES, DIRECTIONS))
    for axes, (curve, direction) in zip(figure.subplots(2, 2, sharey=True).flat, panels):
        part = curves[(curves["curve"] == curve) & (curves["direction"] == direction)]
        by_row = part.groupby("row", sort=False)
        lines = ((row, line["x"], line["precision"], styles[row]) for row, line in by_row)
        draw_curves(axes, curve, lines, chance)
        axes.set_title(f"{DIRECTIONS[direction]}, {bits} bits", fontsize=11)
    legend_below(figure, axes)
    return figure


def png(figure: Figure) -> bytes:
    """A figure as the content of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()


def _log_axis(axes, values: list) -> None:
    """A logarithmic x axis with its ticks at the values."""
    axes.set_xscale("log")
    axes.set_xticks(values, [f"{value:g}" for value in values])
    axes.minorticks_off()
    axes.set_xlim(values[0] / 1.2, values[-1] * 1.2)
