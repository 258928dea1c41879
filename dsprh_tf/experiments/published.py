"""Figures printed in papers, to stand beside ours: DSPRH's tables, DJSRH's own, and UCCH's.

The files in published/ call a method by its name in `METHODS` where it is one of them, and as it is
printed otherwise. UCCH's figures (Hu et al., "Unsupervised Contrastive Cross-modal Hashing", TPAMI
2023, tables 1 and 2, with DGCPN as run there) are of VGG-19 features and of all database pairs as
training pairs.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from dsprh_tf.experiments.paper import BACKBONES, DATASETS, compared_row
from dsprh_tf.methods import METHODS

_DIRECTIONS = {"image2text": "image_to_text", "text2image": "text_to_image"}
_FOLDER = Path(__file__).parent / "published"


def published(experiment: str, dataset: str) -> pd.DataFrame:
    """The published figures of an experiment on a data set.

    Args:
        experiment: its name.
        dataset: name of the data here, such as "nuswide".

    Returns:
        Columns row (method or loss), backbone ("" for losses), direction, bits, metric, value;
        empty where there is nothing.
    """
    names = {"table2": ("tables_2_3.csv", "djsrh_own.csv", "ucch.csv"), "table4": ("table_4.csv",)}
    names["table3"] = names["table2"]
    columns = ["row", "backbone", "direction", "bits", "metric", "value"]
    if dataset not in DATASETS or experiment not in names:
        return pd.DataFrame(columns=columns)
    table = pd.concat([pd.read_csv(_FOLDER / name) for name in names[experiment]])
    table = table[table["dataset"] == DATASETS[dataset]]
    table = table.rename(columns={"method": "row", "loss": "row"})
    table["row"] = table["row"].replace({name: compared_row(name) for name in METHODS})
    table["direction"] = table["direction"].map(_DIRECTIONS)
    table["metric"] = table["metric"].str.lower()
    if "backbone" not in table:
        table["backbone"] = ""
    return table[columns].reset_index(drop=True)


def paper_backbone(backbone: str) -> str:
    """A backbone as the published tables call it; AlexNet for those that they do not have."""
    return BACKBONES.get(backbone.lower(), "AlexNet")
