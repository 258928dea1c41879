"""The numbers of finished cells, and the published figures beside them."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from test_experiments import fail, finish, request

from dsprh_tf.experiments import plan, results


def test_published_figures_are_those_of_the_paper():
    table = results.published("table2", "mirflickr25k")
    key = ["row", "backbone", "metric", "direction", "bits"]
    assert not table.duplicated(key).any()
    value = table.set_index(key)["value"].sort_index()
    # Read off the paper's tables, not off the file.
    assert value["DSPRH", "AlexNet", "map", "image_to_text", 16] == 0.733
    assert value["DSPRH", "ResNet34", "map@50", "text_to_image", 128] == 0.924
    assert value["DJSRH", "AlexNet", "map@50", "image_to_text", 16] == 0.776
    assert value["DSAH", "AlexNet", "map", "text_to_image", 64] == 0.699
    assert value["SSAH", "CNN-F", "map@50", "image_to_text", 64] == 0.800
    assert ("SRCH", "VGG16", "map", "image_to_text", 128) not in value
    own = value["DJSRH (its own paper)", "AlexNet", "map@50"]
    assert own["image_to_text"].tolist() == [0.810, 0.843, 0.862, 0.876]
    assert own["text_to_image"].tolist() == [0.786, 0.822, 0.835, 0.847]
    pd.testing.assert_frame_equal(results.published("table3", "mirflickr25k_mat"), table)


def test_published_figures_of_nus_wide_and_of_the_ablation():
    value = results.published("table2", "nuswide").set_index(
        ["row", "backbone", "metric", "direction", "bits"]
    )["value"]
    assert value["DSPRH", "AlexNet", "map@50", "text_to_image", 32] == 0.776
    assert value["DSAH", "AlexNet", "map@50", "text_to_image", 32] == 0.777
    assert not any(row.startswith("DJSRH (") for row in value.index.get_level_values(0))
    for dataset, expected in (("mirflickr25k", 0.648), ("nuswide", 0.713)):
        table = results.published("table4", dataset)
        assert len(table) == 4 * 4 * 4
        value = table.set_index(["row", "metric", "direction", "bits"])["value"]
        assert value["L_2", "map@50", "text_to_image", 16] == expected
        whole = results.published("table2", dataset)
        whole = whole[(whole["row"] == "DSPRH") & (whole["backbone"] == "AlexNet")]
        for line in whole.itertuples():
            assert value["L_All", line.metric, line.direction, line.bits] == line.value


@pytest.mark.parametrize(
    ("name", "dataset"), [("table2", "coco"), ("figure4", "nuswide"), ("figure6", "mirflickr25k")]
)
def test_nothing_is_published_for_other_data_or_figures(name, dataset):
    assert results.published(name, dataset).empty


def test_results_become_means_and_deviations(tmp_path):
    asked = request("mirflickr25k", bits=(16,), seeds=(0, 1, 2), methods=("lsh", "dsprh", "dsah"))
    entries = plan.plan("table2", asked)
    for entry in entries:
        if entry.cell.method == "lsh" or entry.cell.seed == 2:
            continue
        finish(entry.cell, tmp_path, 0.02 * entry.cell.seed)
    fail(entries[0].cell, tmp_path, "boom")
    results = results.read_results(entries, tmp_path)
    states = results.drop_duplicates("cell").groupby("state")["cell"].count()
    assert states.to_dict() == {"done": 4, "failed": 1, "open": 4}
    assert results.loc[results["state"] == "failed", "reason"].tolist() == ["boom"]
    assert len(results[results["state"] == "done"]) == 4 * 4

    printed = results.published("table2", "mirflickr25k")
    summary = results.summarise(results, printed, "alexnet")
    line = summary.set_index(["row", "direction", "metric"]).loc
    got = line["DSPRH", "text_to_image", "map@50"]
    assert got["mean"] == pytest.approx(0.61)
    assert got["std"] == pytest.approx(0.02 / math.sqrt(2))  # .60 and .62
    assert (got["done"], got["seeds"], got["failed"]) == (2, 3, 0)
    assert got["published"] == 0.878
    assert got["difference"] == pytest.approx(0.61 - 0.878)
    graded = line["DSPRH", "text_to_image", "ndcg@50"]
    assert graded["mean"] == pytest.approx(0.31)
    assert graded["std"] == pytest.approx(0.02 / math.sqrt(2))
    assert math.isnan(graded["published"]) and math.isnan(graded["difference"])
    four = line["DSAH", "", "mean of four"]  # of MAP and MAP@50: NDCG is none of them
    assert four["mean"] == pytest.approx((0.5 + 0.3 + 0.6 + 0.4) / 4 + 0.01)
    assert four["std"] == pytest.approx(0.02 / math.sqrt(2))
    for metric, mean in (("mean map", 0.35), ("mean ndcg@50", 0.25)):
        both = line["DSAH", "", metric]
        assert both["mean"] == pytest.approx(mean + 0.01)
        assert both["std"] == pytest.approx(0.02 / math.sqrt(2))
        assert both["done"] == 2
    lost = line["LSH", "image_to_text", "map"]
    assert math.isnan(lost["mean"])
    assert (lost["done"], lost["failed"]) == (0, 1)


def test_a_row_stands_beside_the_published_one_with_its_backbone(tmp_path):
    asked = request("nuswide", bits=(32,), seeds=(0,), methods=("dsprh", "dsah"))
    entries = plan.plan("table2", asked)
    printed = results.published("table2", "nuswide")
    results = results.read_results(entries, tmp_path)
    for backbone, own in (("alexnet", 0.636), ("resnet34", 0.661), ("MobileNetV2", 0.636)):
        summary = results.summarise(results, printed, backbone)
        value = summary.set_index(["row", "direction", "metric"])["published"]
        assert value["DSPRH", "image_to_text", "map"] == own
        assert value["DSAH", "image_to_text", "map"] == 0.587  # only published with AlexNet


def test_nothing_finished_is_a_table_too(tmp_path):
    entries = plan.plan("table4", request(seeds=(0,)))
    results = results.read_results(entries, tmp_path)
    assert set(results["state"]) == {"open"}
    summary = results.summarise(results, results.published("table4", "coco"), "alexnet")
    assert len(summary) == 4 * 4 * 9
    assert summary["mean"].isna().all()
    assert results.mean_curves(entries, tmp_path).empty


def test_curves_are_averaged_at_the_radii_of_all_seeds(tmp_path):
    asked = request(bits=(16,), seeds=(0, 1), methods=("dsprh",))
    entries = plan.plan("figure6", asked)
    finish(entries[0].cell, tmp_path, 0.0, radius=(0, 1, 2))
    finish(entries[1].cell, tmp_path, 0.1, radius=(1, 2, 3))
    curves = results.mean_curves(entries, tmp_path)
    recall = curves[(curves["curve"] == "precision_recall")
                    & (curves["direction"] == "image_to_text")]  # fmt: skip
    np.testing.assert_allclose(recall["x"], [0.25, 0.35])
    np.testing.assert_allclose(recall["precision"], [0.6, 0.4])
    ranks = curves[(curves["curve"] == "precision_at_k")
                   & (curves["direction"] == "text_to_image")]  # fmt: skip
    assert ranks["x"].tolist() == [1, 100]
    np.testing.assert_allclose(ranks["precision"], [0.905, 0.5])
