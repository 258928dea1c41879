"""docs/tutorial.md: its commands run in order, and say and show what stands there."""

from __future__ import annotations

import re

import numpy as np
import pytest
from browser_helpers import CHROMIUM, DRIVER
from helpers import ROOT
from PIL import Image
from tutorial import PAGE, Tutorial, as_shown

from dsprh_tf.evaluation.results import read_results


def test_every_command_and_picture(tmp_path):
    work, drawn = tmp_path / "work", tmp_path / "pictures"
    work.mkdir()
    browser = CHROMIUM and DRIVER
    text = Tutorial(work, drawn if browser else None).run()
    # It has learnt: chance is .16.
    (path,) = work.glob("photos/runs/*/results.json")
    record = read_results(path)
    assert min(record[way]["map@50"] for way in ("image_to_text", "text_to_image")) > 0.6
    # The same page but for numbers and results, and the same pictures but for their content.
    assert len(text.splitlines()) == len(PAGE.read_text("utf-8").splitlines())
    names = re.findall(r"!\[[^]]*\]\((.+?)\)", text)
    assert len(names) > 5
    for name in names if browser else ():
        with Image.open(drawn / name) as new, Image.open(ROOT / "docs" / name) as kept:
            assert new.size == kept.size and np.asarray(new).std() > 10, name


def test_what_is_shown_is_what_was_said():
    said = "read 12 rows\n  3  beach\nnote: a\nnote: b\ndone in 1.5 s\n"
    assert as_shown("", said) == said
    assert as_shown("read 9 rows\n...\nnote: b\n", said) == "read 12 rows\n...\nnote: b\n"
    assert as_shown("   7  desert\n", said) == "  3  beach\n"  # rows of results differ
    for wrong in ("wrote 12 rows\n", "note: b\nnote: a\n", "note: a\nnote: a\n"):
        with pytest.raises(AssertionError, match="the tutorial shows"):
            as_shown(wrong, said)
