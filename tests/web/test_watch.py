"""Changes of an index that the page takes up."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from dsprh_tf.index.hamming import HammingIndex
from dsprh_tf.web.watch import Watch


@pytest.fixture
def folder(tmp_path):
    index = HammingIndex(16)
    index.add(np.zeros((5, 2), np.uint8))
    index.save(tmp_path / "index")
    return tmp_path / "index"


def test_a_folder(folder, tmp_path):
    watch = Watch(str(folder))
    index = watch.open()
    assert not watch.changed(index)
    writer = HammingIndex.load(folder, write=True)
    writer.remove([0])
    assert not watch.changed(index)  # not before the commit
    writer.commit()
    assert watch.changed(index)
    assert not watch.changed(index)  # said once
    assert (len(index), len(watch.open())) == (5, 4)
    folder.rename(tmp_path / "away")
    assert not watch.changed(index)  # unmounted for now
    (tmp_path / "away").rename(folder)
    assert not watch.changed(index)


def test_another_index_in_its_place(folder, tmp_path):
    watch = Watch(str(folder))
    index = watch.open()
    other = HammingIndex(16)
    other.add(np.zeros((5, 2), np.uint8))
    other.save(tmp_path / "other")
    shutil.rmtree(folder)
    (tmp_path / "other").rename(folder)
    assert watch.changed(index)


def test_a_database():
    class Live(list):
        pass

    watch = Watch("postgresql://nowhere/x?table=t")
    live = Live([1, 2])
    watch._state = len(live)
    assert watch.database
    assert watch.every > 5
    assert not watch.changed(live)
    live.append(3)
    assert watch.changed(live)
    assert not watch.changed(live)
