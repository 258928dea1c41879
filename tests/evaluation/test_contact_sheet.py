"""Contact sheets: the place of everything, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from dsprh_tf.evaluation import contact_sheet
from dsprh_tf.evaluation.contact_sheet import RetrievalItem, RetrievalRow

GREEN, GREY = (26, 152, 80), (196, 199, 204)


def test_contact_sheet_shows_images_texts_and_relevance(tmp_path):
    red = np.zeros((40, 60, 3), np.uint8)
    red[..., 0] = 255
    grey_file = tmp_path / "grey.png"
    Image.fromarray(np.full((30, 20), 90, np.uint8)).save(grey_file)
    rows = [
        RetrievalRow(
            query_text="a red thing",
            results=[
                RetrievalItem(image=red, distance=0, relevant=True),
                RetrievalItem(image=str(grey_file), distance=7, relevant=False),
                RetrievalItem(image=red, distance=9),
            ],
        ),
        RetrievalRow(
            query_image=red,
            results=[RetrievalItem(text="words " * 300, distance=1)] * 12,
        ),
        RetrievalRow(query_image=grey_file),
    ]
    path = tmp_path / "new" / "sheet.png"
    contact_sheet.contact_sheet(rows, path)
    assert [file.name for file in path.parent.iterdir()] == ["sheet.png"]
    with Image.open(path) as image:
        sheet = np.asarray(image)
    tile, step = contact_sheet.TILE, contact_sheet.TILE + contact_sheet.GAP
    top = contact_sheet.MARGIN + contact_sheet.HEADER
    left = contact_sheet.MARGIN + tile + contact_sheet.QUERY_GAP
    assert sheet.shape[1] == left + 8 * step - contact_sheet.GAP + contact_sheet.MARGIN
    corners = [tuple(sheet[top, left + rank * step]) for rank in range(3)]
    assert corners == [GREEN, GREY, (255, 0, 0)]
    centres = [tuple(sheet[top + tile // 2, left + tile // 2 + rank * step]) for rank in range(3)]
    assert centres == [(255, 0, 0), (90, 90, 90), (255, 0, 0)]
    query_words = sheet[top : top + tile, contact_sheet.MARGIN : contact_sheet.MARGIN + tile]
    assert query_words.min() < 60  # ink
    distance = sheet[top + tile : top + tile + contact_sheet.CAPTION, left : left + tile]
    assert distance.min() < 160


def test_long_words_are_cut_to_the_width():
    tile = np.asarray(contact_sheet.draw_contact_sheet([RetrievalRow(query_text="x" * 500)]))
    words = tile[:, : contact_sheet.MARGIN + 3]
    below = words[contact_sheet.MARGIN + contact_sheet.HEADER :]
    assert below.min() > 200  # no ink left of the padding


def test_unusable_sheets_are_refused(tmp_path):
    path = tmp_path / "sheet.png"
    with pytest.raises(ValueError, match="at least one row"):
        contact_sheet.contact_sheet([], path)
    with pytest.raises(ValueError, match="image or a text"):
        contact_sheet.contact_sheet([RetrievalRow()], path)
    with pytest.raises(ValueError, match="uint8 .*float64"):
        contact_sheet.contact_sheet([RetrievalRow(query_image=np.zeros((4, 4, 3)))], path)
    with pytest.raises(ValueError, match="absent.jpg"):
        contact_sheet.contact_sheet([RetrievalRow(query_image=tmp_path / "absent.jpg")], path)
    assert not any(tmp_path.iterdir())
