"""Published figures: read off the paper, and under the titles of the methods here."""

from __future__ import annotations

import pandas as pd
import pytest
from experiment_helpers import PRINTED

from dsprh_tf.experiments.published import published
from dsprh_tf.methods import METHODS, PAPER


def test_published_figures_are_those_of_the_paper():
    table = published("table2", "mirflickr25k")
    key = ["row", "backbone", "metric", "direction", "bits"]
    assert not table.duplicated(key).any()
    value = table.set_index(key)["value"].sort_index()
    # Read off the paper's tables, not off the file.
    assert value[PRINTED, "AlexNet", "map", "image_to_text", 16] == 0.733
    assert value[PRINTED, "ResNet34", "map@50", "text_to_image", 128] == 0.924
    assert value["DJSRH", "AlexNet", "map@50", "image_to_text", 16] == 0.776
    assert value["DSAH", "AlexNet", "map", "text_to_image", 64] == 0.699
    assert value["SSAH", "CNN-F", "map@50", "image_to_text", 64] == 0.800
    assert ("SRCH", "VGG16", "map", "image_to_text", 128) not in value
    own = value["DJSRH (its own paper)", "AlexNet", "map@50"]
    assert own["image_to_text"].tolist() == [0.810, 0.843, 0.862, 0.876]
    assert own["text_to_image"].tolist() == [0.786, 0.822, 0.835, 0.847]
    later = value["UCCH (its own paper)", "VGG-19", "map"]
    assert later["image_to_text"].tolist() == [0.739, 0.744, 0.754, 0.760]
    assert value["DGCPN (UCCH's paper)", "VGG-19", "map", "text_to_image", 64] == 0.725
    pd.testing.assert_frame_equal(published("table3", "mirflickr25k_mat"), table)


def test_published_figures_of_nus_wide_and_of_the_ablation():
    value = published("table2", "nuswide").set_index(
        ["row", "backbone", "metric", "direction", "bits"]
    )["value"]
    assert value[PRINTED, "AlexNet", "map@50", "text_to_image", 32] == 0.776
    assert value["DSAH", "AlexNet", "map@50", "text_to_image", 32] == 0.777
    assert not any(row.startswith("DJSRH (") for row in value.index.get_level_values(0))
    for dataset, expected in (("mirflickr25k", 0.648), ("nuswide", 0.713)):
        table = published("table4", dataset)
        assert len(table) == 4 * 4 * 4
        value = table.set_index(["row", "metric", "direction", "bits"])["value"]
        assert value["L_2", "map@50", "text_to_image", 16] == expected
        whole = published("table2", dataset)
        whole = whole[(whole["row"] == PRINTED) & (whole["backbone"] == "AlexNet")]
        for line in whole.itertuples():
            assert value["L_All", line.metric, line.direction, line.bits] == line.value


@pytest.mark.parametrize(
    ("name", "dataset"), [("table2", "coco"), ("figure4", "nuswide"), ("figure6", "mirflickr25k")]
)
def test_nothing_is_published_for_other_data_or_figures(name, dataset):
    assert published(name, dataset).empty


def test_figures_follow_the_titles_of_the_methods(monkeypatch):
    monkeypatch.setattr(METHODS[PAPER], "title", "Ours")
    rows = set(published("table2", "nuswide")["row"])
    assert "Ours, the paper's constants" in rows and PRINTED not in rows
