"""Plots of reports: which there are, and that they show what was measured."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pandas as pd
import pytest
from experiment_helpers import CHOSEN, PRINTED, Page, finish, make, request
from PIL import Image

from dsprh_tf.evaluation.plots import CURVES
from dsprh_tf.experiments import plan
from dsprh_tf.experiments.plots import make_plots
from dsprh_tf.experiments.published import published
from dsprh_tf.experiments.results import TITLES, mean_curves, read_trials, summarise


@pytest.mark.parametrize(
    ("name", "plots"),
    [
        ("figure4", ["figure4-16.png", "figure4-32.png"]),
        ("figure5", ["figure5-16.png", "figure5-32.png"]),
        ("figure6", ["curves-16.png", "curves-32.png"]),
    ],
)
def test_figures_have_a_plot_for_each_code_length(tmp_path, name, plots):
    page, _ = make(name, tmp_path, failing=("lsh",))
    assert sorted(path.name for path in page.parent.glob("*.png")) == plots
    assert len(Page(page.read_text()).plots) == 2
    for plot in plots:
        assert f"![{plot}]({plot})" in (page.parent / "report.md").read_text()
        picture = np.asarray(Image.open(page.parent / plot).convert("RGB"))
        assert (picture != 255).any(axis=2).mean() > 0.01, "something is drawn"


def test_plots_show_what_was_measured(tmp_path):
    asked = request(bits=(16,), seeds=(0,))
    entries = plan.plan("figure5", asked)
    for number, trial in enumerate(plan.unique_trials(entries)):
        finish(trial, tmp_path, 0.01 * number)
    results = read_trials(entries, tmp_path)
    summary = summarise(results, published("figure5", "coco"), "alexnet")
    (figure,) = make_plots("figure5", results, summary, pd.DataFrame()).values()
    axes = {(a.get_xlabel(), a.get_title()): a for a in figure.axes}
    beta = axes["beta", "MAP, 16 bits"]
    one = summary[(summary["metric"] == "map") & (summary["direction"] == "text_to_image")]
    means = one.set_index("row")["mean"]
    line = next(c for c in beta.containers if c.get_label() == "text → image").lines[0]
    assert list(line.get_xdata()) == [0.003, 0.01, 0.03, 0.1, 0.3]
    expected = [means[f"beta = {x:g}"] for x in line.get_xdata()]
    np.testing.assert_allclose(list(map(float, line.get_ydata())), expected)
    assert len(axes) == 6


def test_the_bits_plot_has_every_metric_in_both_directions(tmp_path):
    _, summary = make("table2", tmp_path, "mirflickr25k", failing=("lsh",))
    results = pd.DataFrame({"chance": [0.1]})
    (figure,) = make_plots("table2", results, summary, pd.DataFrame()).values()
    panels = {axes.get_title(): axes for axes in figure.axes}
    names = {"MAP@50": "map@50", "MAP": "map", "NDCG@50": "ndcg@50"}
    ways = {"image → text": "image_to_text", "text → image": "text_to_image"}
    assert list(panels) == [f"{name}, {way}" for name in names for way in ways]
    line = summary.set_index(["row", "metric", "direction", "bits"])
    for (name, metric), (way, direction) in itertools.product(names.items(), ways.items()):
        axes = panels[f"{name}, {way}"]
        drawn = {c.get_label(): c.lines[0] for c in axes.containers}
        assert set(drawn) == {"DSAH", PRINTED, CHOSEN}
        for row, curve in drawn.items():
            expected = [line.loc[(row, metric, direction, bits), "mean"] for bits in (16, 32)]
            np.testing.assert_allclose(list(map(float, curve.get_ydata())), expected)
        flat = [list(c.get_ydata()) for c in axes.lines if c.get_linestyle() == ":"]
        flat = [heights for heights in flat if heights]  # without what stands for the legend alone
        assert flat == ([[0.1, 0.1]] if name == "MAP" else [])
    (legend,) = figure.legends
    shown = {text.get_text() for text in legend.get_texts()}
    assert shown == {"DSAH", PRINTED, CHOSEN, "published", "chance 0.100 (MAP)"}


def test_figure6_draws_the_mean_curves_of_all_rows(tmp_path):
    asked = request(bits=(16,), seeds=(0, 1), methods=("lsh", "dsah", "dsprh"))
    entries = plan.plan("figure6", asked)
    for number, trial in enumerate(plan.unique_trials(entries)):
        if trial.method != "lsh":
            finish(trial, tmp_path, 0.01 * number)
    results = read_trials(entries, tmp_path)
    summary = summarise(results, published("figure6", "coco"), "alexnet")
    curves = mean_curves(entries, tmp_path)
    (figure,) = make_plots("figure6", results, summary, curves).values()
    panels = list(itertools.product(CURVES, ("image_to_text", "text_to_image")))
    assert len(figure.axes) == len(panels)
    colours = {}
    for axes, (curve, direction) in zip(figure.axes, panels):
        *lines, chance = axes.lines
        assert [line.get_label() for line in lines] == ["DSAH", PRINTED, CHOSEN]
        assert chance.get_label() == "chance 0.100"
        np.testing.assert_allclose(chance.get_ydata(), 0.1)
        part = curves[(curves["curve"] == curve) & (curves["direction"] == direction)]
        for line in lines:
            expected = part[part["row"] == line.get_label()]
            np.testing.assert_allclose(list(map(float, line.get_xdata())), expected["x"])
            np.testing.assert_allclose(list(map(float, line.get_ydata())), expected["precision"])
            colours.setdefault(line.get_label(), set()).add(line.get_color())
        assert axes.get_ylabel() == {"precision_recall": "precision"}.get(curve, "precision@k")
    assert all(len(used) == 1 for used in colours.values()), "a row has one colour in all axes"
    assert len({frozenset(used) for used in colours.values()}) == 3


@pytest.mark.parametrize(
    ("validation", "metrics"),
    [(None, ("mean map", "mean ndcg@50")), (0.4, ("mean of four", "validation_map"))],
)
def test_an_ablation_shows_validation_pairs_where_there_are_any(tmp_path, validation, metrics):
    asked = request(bits=(64,), seeds=(0, 1))
    entries = plan.plan("ablation_hsidhn", asked)
    for number, trial in enumerate(plan.unique_trials(entries)):
        finish(trial, tmp_path, 0.01 * number)
        if validation is not None:
            path = trial.folder(tmp_path) / "results.json"
            record = json.loads(path.read_text())
            path.write_text(json.dumps({**record, "validation_map": validation + 0.02 * number}))
    results = read_trials(entries, tmp_path)
    nothing = published("ablation_hsidhn", "coco")
    summary = summarise(results, nothing, "alexnet")
    plots = make_plots("ablation_hsidhn", results, summary, pd.DataFrame())
    (figure,) = plots.values()
    assert list(plots) == ["ablation_hsidhn-64.png"]
    rows = list(dict.fromkeys(e.row for e in entries))
    assert rows[0] == "HSIDHN" and len(rows) == 5
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == rows
    assert figure.axes[0].yaxis_inverted(), "the first row on top"
    for axes, metric in zip(figure.axes, metrics):
        means = summary[summary["metric"] == metric].set_index("row")["mean"][rows]
        np.testing.assert_allclose(list(map(float, axes.containers[0].lines[0].get_xdata())), means)
        assert axes.get_title().startswith(TITLES[metric].split(":")[0].split(",")[0])
        assert means.nunique() == 5
