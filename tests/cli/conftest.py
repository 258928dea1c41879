"""Fixtures of the tests of `encode`, `index` and `search`."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from dsprh_tf.index.code_folder import CodeFolder


@pytest.fixture
def copy(collection, tmp_path) -> Path:
    """A copy of the collection's index, which a test may change."""
    shutil.copytree(collection / "index", tmp_path / "index")
    return tmp_path / "index"


@pytest.fixture(scope="module")
def everything(collection):
    """(codes, items): all that the collection's index holds."""
    folders = [CodeFolder(collection / part) for part in ("image", "text")]
    items = [item for folder in folders for item in folder.items().to_pylist()]
    return np.concatenate([folder.codes for folder in folders]), items
