"""The points of TensorBoard's Projector tab."""

from __future__ import annotations

import numpy as np
from PIL import Image

from dsprh_tf import codes
from dsprh_tf.data.dataset import PairDataset
from dsprh_tf.data.pairs import load_pairs
from dsprh_tf.evaluation.projector import write_projector
from dsprh_tf.evaluation.retrieval import Encoded


def test_codes_labels_and_thumbnails_stand_in_one_order(scenes_dir, tmp_path):
    dataset = load_pairs(scenes_dir)
    items = np.array([7, 3, 50])
    rng = np.random.default_rng(0)
    image, text = (codes.pack(rng.standard_normal((3, 16))) for _ in range(2))
    write_projector(tmp_path, dataset, items, Encoded(image, text, dataset.labels[items]))
    config = (tmp_path / "projector_config.pbtxt").read_text()
    for name in ("codes.tsv", "metadata.tsv", "sprite.png"):
        assert f'"projector/{name}"' in config
        assert (tmp_path / "projector" / name).is_file()
    points = np.loadtxt(tmp_path / "projector" / "codes.tsv", delimiter="\t")
    np.testing.assert_array_equal(codes.pack(points), np.concatenate([image, text]))
    head, *rows = (tmp_path / "projector" / "metadata.tsv").read_text().splitlines()
    assert head.split("\t") == ["kind", "item", "labels", "text"]
    cells = [row.split("\t") for row in rows]
    assert [cell[:2] for cell in cells] == [
        [kind, str(item)] for kind in ("image", "text") for item in items
    ]
    names = [dataset.label_names[i] for i in np.flatnonzero(dataset.labels[7])]
    assert cells[0][2].split("; ") == cells[3][2].split("; ") == names
    assert " ".join(dataset.texts[7].split()).startswith(cells[0][3])
    sheet = np.asarray(Image.open(tmp_path / "projector" / "sprite.png"))
    assert sheet.shape == (144, 144, 3)  # 3 x 3 tiles of 48 pixels for 6 points
    assert sheet[:48, 96:].std() > 5  # the third image
    assert sheet[48:].std(axis=(0, 1)).max() == 0  # texts have one colour


def test_vectors_have_no_sprite_and_at_most_500_queries(tmp_path):
    values = np.random.default_rng(0).random((600, 4)).astype(np.float32)
    dataset = PairDataset("own", np.arange(600), image_features=values, text_features=values)
    packed = codes.pack(values.repeat(2, axis=1) - 0.5)
    write_projector(tmp_path, dataset, np.arange(600), Encoded(packed, packed, None))
    assert "sprite" not in (tmp_path / "projector_config.pbtxt").read_text()
    assert len((tmp_path / "projector" / "codes.tsv").read_text().splitlines()) == 1000
