"""The numbers of finished trials, and the published figures beside them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from experiment_helpers import PRINTED, fail, finish, request

from dsprh_tf.experiments import plan
from dsprh_tf.experiments.published import published
from dsprh_tf.experiments.results import mean_curves, read_trials, summarise


def test_results_become_means_and_deviations(tmp_path):
    asked = request("mirflickr25k", bits=(16,), seeds=(0, 1, 2), methods=("lsh", "dsprh", "dsah"))
    entries = plan.plan("table2", asked)
    for entry in entries:
        if entry.trial.method == "lsh" or entry.trial.seed == 2:
            continue
        finish(entry.trial, tmp_path, 0.02 * entry.trial.seed)
    fail(entries[0].trial, tmp_path, "boom")
    results = read_trials(entries, tmp_path)
    states = results.drop_duplicates("trial").groupby("state")["trial"].count()
    assert states.to_dict() == {"done": 6, "failed": 1, "open": 5}
    assert results.loc[results["state"] == "failed", "reason"].tolist() == ["boom"]
    assert len(results[results["state"] == "done"]) == 6 * 4

    printed = published("table2", "mirflickr25k")
    summary = summarise(results, printed, "alexnet")
    line = summary.set_index(["row", "direction", "metric"]).loc
    got = line[PRINTED, "text_to_image", "map@50"]
    assert got["mean"] == pytest.approx(0.61)
    assert got["std"] == pytest.approx(0.02 / math.sqrt(2))  # .60 and .62
    assert (got["done"], got["seeds"], got["failed"]) == (2, 3, 0)
    assert got["published"] == 0.878
    assert got["difference"] == pytest.approx(0.61 - 0.878)
    graded = line[PRINTED, "text_to_image", "ndcg@50"]
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
    printed = published("table2", "nuswide")
    results = read_trials(entries, tmp_path)
    for backbone, own in (("alexnet", 0.636), ("resnet34", 0.661), ("MobileNetV2", 0.636)):
        summary = summarise(results, printed, backbone)
        value = summary.set_index(["row", "direction", "metric"])["published"]
        assert value[PRINTED, "image_to_text", "map"] == own
        assert value["DSAH", "image_to_text", "map"] == 0.587  # only published with AlexNet


def test_nothing_finished_is_a_table_too(tmp_path):
    entries = plan.plan("table4", request(seeds=(0,)))
    results = read_trials(entries, tmp_path)
    assert set(results["state"]) == {"open"}
    summary = summarise(results, published("table4", "coco"), "alexnet")
    assert len(summary) == 4 * 4 * 9
    assert summary["mean"].isna().all()
    assert mean_curves(entries, tmp_path).empty


def test_curves_are_averaged_at_the_radii_of_all_seeds(tmp_path):
    asked = request(bits=(16,), seeds=(0, 1), methods=("dsah",))
    entries = plan.plan("figure6", asked)
    finish(entries[0].trial, tmp_path, 0.0, radius=(0, 1, 2))
    finish(entries[1].trial, tmp_path, 0.1, radius=(1, 2, 3))
    curves = mean_curves(entries, tmp_path)
    recall = curves[(curves["curve"] == "precision_recall")
                    & (curves["direction"] == "image_to_text")]  # fmt: skip
    np.testing.assert_allclose(recall["x"], [0.25, 0.35])
    np.testing.assert_allclose(recall["precision"], [0.6, 0.4])
    ranks = curves[(curves["curve"] == "precision_at_k")
                   & (curves["direction"] == "text_to_image")]  # fmt: skip
    assert ranks["x"].tolist() == [1, 100]
    np.testing.assert_allclose(ranks["precision"], [0.905, 0.5])
