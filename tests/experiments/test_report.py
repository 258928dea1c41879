"""Reports: the page is whole and self-contained, and holds the numbers and failures."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from experiment_helpers import CHOSEN, METHODS, PRINTED, Page, fail, finish, make, request
from PIL import Image

from dsprh_tf import methods
from dsprh_tf.experiments import plan, report
from dsprh_tf.experiments.published import published


def test_the_page_holds_the_means_of_every_row(tmp_path):
    page, summary = make("table2", tmp_path)
    assert page == tmp_path / "table2" / "report.html"
    assert not list(page.parent.glob(".*")), "no temporary file is left"
    found = Page(page.read_text())
    # MAP@50, MAP, NDCG@50, the means of four, of MAP and of NDCG@50, how it was made.
    assert len(found.tables) == 7
    line = summary.set_index(["row", "metric", "direction", "bits"])
    for number, metric in enumerate(("map@50", "map", "ndcg@50")):
        header = [text for text, _ in found.tables[number][1]]
        assert header == ["", *("16 bits", "32 bits") * 2]
        for row in found.tables[number][2:]:
            label, *cells = [text for text, _ in row]
            columns = [(d, b) for d in ("image_to_text", "text_to_image") for b in (16, 32)]
            for cell, column in zip(cells, columns):
                value = line.loc[(label, metric, *column)]
                assert cell == f"{value['mean']:.3f} ± {value['std']:.3f}"
    # The best of each column, and nothing else, is marked.
    rows = [[(text, style) for text, style in row[1:]] for row in found.tables[0][2:]]
    for column in range(4):
        values = [float(row[column][0].split()[0]) for row in rows]
        assert [("best" in row[column][1]) for row in rows] == [v == max(values) for v in values]


def test_the_page_is_self_contained_and_says_how_it_was_made(tmp_path):
    page, _ = make("table2", tmp_path, given={"epochs": 3})
    found = Page(page.read_text())
    assert found.outside == found.plots, "nothing is loaded from elsewhere"
    for name, source in zip(["bits.png"], found.plots):
        content = base64.b64decode(source.split("base64,")[1])
        assert content == (page.parent / name).read_bytes()
        assert Image.open(io.BytesIO(content)).size[0] > 1000
    about = {row[0][0]: row[1][0] for row in found.tables[-1]}
    assert about["Data"] == "8 pairs"
    assert about["Trials"] == "16 done"
    assert about["Seeds"] == "0, 1"
    assert about["Chance"] == "0.1000"
    assert about["Evaluated"] == "20 queries against 100 items"
    assert about["Versions"] == "python 3.9, numpy 1.26"
    assert "cores" in about["Machine"]
    assert about["Time"].startswith("16 min")
    text = page.read_text()
    assert "There are no published figures" in text
    assert "DSAH runs with other settings: epochs 3 instead of" in text


def test_failed_trials_are_shown_with_their_reason(tmp_path):
    page, _ = make("table2", tmp_path, failing=("dsah",), skip=("lsh",))
    text = page.read_text()
    assert "train: no &lt;room&gt; | left" in text
    assert "<room>" not in text
    found = Page(text)
    by_row = {row[0][0]: row[1:] for row in found.tables[0][2:]}
    assert by_row["DSAH"] == [["failed", s] for s in ("first failed", "failed") * 2]
    assert [text for text, _ in by_row["LSH"]] == ["–"] * 4
    assert "8 done, 4 failed, 4 open" in str(found.tables[-1])
    markdown = (page.parent / "report.md").read_text()
    assert markdown.count("train: no <room> | left") == 4  # two code lengths, two seeds
    assert "| DSAH | failed |" in markdown


def test_supervised_rows_say_what_they_are(tmp_path):
    name, title = next((n, m.title) for n, m in methods.METHODS.items() if m.supervised)
    for names, marked in ((("dsah", name), True), (("dsah",), False)):
        asked = request(bits=(16,), seeds=(0,), methods=names)
        entries = plan.plan("table2", asked)
        for trial in plan.unique_trials(entries):
            finish(trial, tmp_path)
        page = report.write_report("table2", asked, entries, tmp_path, {}).read_text()
        assert (f"<td>{title} (supervised)</td>" in page) == marked
        assert (f"Supervised, by the labels of the training pairs: {title}." in page) == marked
        assert "DSAH (supervised)" not in page


def test_a_report_on_vectors_names_what_it_leaves_out(tmp_path):
    asked = request("features", bits=(16,), seeds=(0,), has_images=False)
    for name, told in (("table2", True), ("table4", False)):
        page = report.write_report(name, asked, plan.plan(name, asked), tmp_path, {})
        assert ("images are needed" in page.read_text()) == told


def test_a_mean_of_fewer_seeds_says_so(tmp_path):
    asked = request(bits=(16,), seeds=(0, 1, 2), methods=("dsah",))
    entries = plan.plan("table2", asked)
    finish(entries[0].trial, tmp_path)
    fail(entries[1].trial, tmp_path, "boom")
    page = report.write_report("table2", asked, entries, tmp_path, {})
    assert "| DSAH | 0.500 (1 of 3 seeds) |" in (page.parent / "report.md").read_text()


def test_published_figures_stand_beside_ours(tmp_path):
    page, summary = make("table2", tmp_path, "mirflickr25k", bits=(16, 128), skip=("lsh",))
    found = Page(page.read_text())
    # Two metrics in two directions, NDCG of both, three means, how it was made.
    assert len(found.tables) == 9
    first = found.tables[0]
    assert [text for text, _ in first[0]] == ["", "16 bits", "128 bits"]
    assert [text for text, _ in first[1]] == ["", *("here", "published", "difference") * 2]
    rows = {row[0][0]: [text for text, _ in row[1:]] for row in first[2:]}
    line = summary.set_index(["row", "metric", "direction", "bits"])["mean"]
    here = line[PRINTED, "map@50", "image_to_text", 128]
    assert rows[PRINTED][4:] == ["0.929", f"{here - 0.929:+.3f}"]
    assert rows[PRINTED][3].startswith(f"{here:.3f} ± ")
    assert rows["LSH"] == ["–", "", ""] * 2
    # What only the paper has: other methods, its second backbone, DJSRH's own figures.
    assert rows["SSAH, VGG19"] == ["", "0.797", "", "", "–", ""]
    assert rows[f"{PRINTED}, ResNet34"][1] == "0.932"
    assert rows["DJSRH (its own paper), AlexNet"][1] == "0.810"
    assert rows["DJSRH, AlexNet"][1] == "0.776", "not measured here: among the paper's rows"
    assert f"{PRINTED}, AlexNet" not in rows, "ours stand beside it already"
    assert "figures printed in the DSPRH paper for MIRFlickr-25K" in page.read_text()
    published = [style for text, style in first[2][1:]][1]
    assert published == "published"
    # Nobody printed NDCG: no columns or rows that would be empty.
    graded = found.tables[4]
    assert [text for text, _ in graded[0]] == ["", "image → text", "text → image"]
    assert [text for text, _ in graded[1]] == ["", *("16 bits", "128 bits") * 2]
    assert [row[0][0] for row in graded[2:]] == ["LSH", "DSAH", PRINTED, CHOSEN]


@pytest.mark.parametrize(
    ("backbone", "beside", "below"),
    [("alexnet", "0.733", f"{PRINTED}, ResNet34"), ("resnet34", "0.762", f"{PRINTED}, AlexNet")],
)
def test_ours_stand_beside_the_same_backbone(tmp_path, backbone, beside, below):
    page, _ = make("table2", tmp_path, "mirflickr25k", (16,), given={"backbone": backbone})
    table = Page(page.read_text()).tables[2]
    rows = {row[0][0]: [text for text, _ in row[1:]] for row in table[2:]}
    assert rows[PRINTED][1] == beside
    assert below in rows
    assert rows[CHOSEN][1] == "", "the paper's figures are of its own settings"
    assert rows["DSAH"][1] == "0.684"  # published with AlexNet only
    assert "DSAH, AlexNet" not in rows


def test_the_ablation_of_the_loss(tmp_path):
    page, _ = make("table4", tmp_path, "nuswide", bits=(16,))
    table = Page(page.read_text()).tables[0]
    rows = {row[0][0]: [text for text, _ in row[1:]] for row in table[2:]}
    assert {name: cells[1] for name, cells in rows.items()} == {
        "L_All": "0.791", "L_1": "0.762", "L_2": "0.740", "L_3": "0.774",
    }  # fmt: skip


def test_csvs_hold_every_number(tmp_path):
    page, summary = make("figure6", tmp_path, failing=("dsah",))
    table = pd.read_csv(page.parent / "summary.csv")
    np.testing.assert_allclose(table["mean"], summary["mean"])
    results = pd.read_csv(page.parent / "results.csv")
    assert set(results["state"]) == {"done", "failed"}
    assert {"map", "map@50", "ndcg@50", "seconds", "reason", "seed"} <= set(results)
    assert len(results[results["state"] == "done"]) == 3 * 2 * 2 * 4
    curves = pd.read_csv(page.parent / "curves.csv")
    assert set(curves["curve"]) == {"precision_recall", "precision_at_k"}
    assert set(curves["row"]) == {"LSH", PRINTED, CHOSEN}


def test_nothing_finished_makes_a_report_all_the_same(tmp_path):
    page, _ = make("figure6", tmp_path, failing=METHODS)
    assert not Page(page.read_text()).plots
    assert "not known: nothing has run" in page.read_text()


def test_markdown_and_page_show_the_same_tables(tmp_path):
    page, _ = make("table2", tmp_path, "nuswide")
    markdown = (page.parent / "report.md").read_text()
    lines = [re.split(r" ?\| ?", line)[1:-1] for line in markdown.splitlines() if line[:1] == "|"]
    shown = [[c.strip("*") for c in line] for line in lines if "---" not in line]
    of_page = [
        [text for text, _ in row]
        for table in Page(page.read_text()).tables[:-1]
        for row in table[2:]
    ]
    assert [line for line in shown if line[0]] == of_page


def test_summaries_without_a_metric_have_no_table_of_it(tmp_path):
    _, summary = make("table2", tmp_path)
    nothing = published("table2", "coco")

    def titles(summary):
        made = report.make_tables(summary, nothing, "alexnet")
        return [table.title.split(":")[0] for table in made]

    means = ["Mean of the four", *(f"Mean of {m} in both directions" for m in ("MAP", "NDCG@50"))]
    assert titles(summary) == ["MAP@50", "MAP", "NDCG@50", *means]
    before = summary[~summary["metric"].isin(["ndcg@50", "mean map", "mean ndcg@50"])]
    assert titles(before) == ["MAP@50", "MAP", "Mean of the four"]


def test_a_summary_becomes_a_block_of_the_results_page(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import results_page

    page, summary = make("table2", tmp_path)
    monkeypatch.setattr(results_page, "RESULTS", tmp_path)
    (tmp_path / "mine.csv").write_bytes((page.parent / "summary.csv").read_bytes())
    block = results_page.filled("<!-- mine -->\nold\n<!-- end mine -->")
    assert "old" not in block
    graded = block.split("### NDCG@50")[1].split("###")[0]
    one = summary[(summary["metric"] == "ndcg@50") & (summary["row"] == "DSAH")]
    for mean in one["mean"]:
        assert f"{mean:.3f}" in graded
    tables = page.with_name("report.md").read_text().split("### ", 1)[1].split("\n## ")[0]
    assert tables.strip() in block, "the page shows the tables of the report"
