import json

import numpy as np
import pytest

from dsprh_tf.data.dataset import PairDataset
from dsprh_tf.data.splits import load_split, make_split, save_split


def dataset(n=200, labels=None, given=None, seed=0):
    rng = np.random.default_rng(seed)
    if labels is not None:
        labels = np.asarray(labels, np.uint8)
        n = len(labels)
    return PairDataset(
        name="toy",
        ids=[f"p{i}" for i in range(n)],
        image_features=rng.normal(size=(n, 3)),
        text_features=rng.normal(size=(n, 2)),
        labels=labels,
        label_names=() if labels is None else tuple(f"l{i}" for i in range(labels.shape[1])),
        given_split=given,
    )


def check_parts(split, n, queries, train, validation):
    everything = np.arange(n)
    np.testing.assert_array_equal(np.union1d(split.query, split.database), everything)
    assert not np.intersect1d(split.query, split.database).size
    assert not np.intersect1d(split.train, split.validation).size
    assert not np.setdiff1d(np.union1d(split.train, split.validation), split.database).size
    sizes = (len(split.query), len(split.train), len(split.validation))
    assert sizes == (queries, train - validation, validation)
    for part in (split.query, split.database, split.train, split.validation):
        assert part.dtype == np.int64
        assert (np.diff(part) > 0).all()


def test_unlabelled_parts_and_seed():
    data = dataset()
    one = make_split(data, queries=30, train=100, validation=0.1, seed=3)
    check_parts(one, 200, 30, 100, 10)
    assert (one.seed, one.fingerprint) == (3, data.fingerprint())
    same = make_split(data, queries=30, train=100, validation=0.1, seed=3)
    other = make_split(data, queries=30, train=100, validation=0.1, seed=4)
    for part in ("query", "database", "train", "validation"):
        np.testing.assert_array_equal(getattr(one, part), getattr(same, part))
        assert not np.array_equal(getattr(one, part), getattr(other, part))


@pytest.mark.parametrize(("validation", "count"), [(0, 0), (0.25, 25), (1, 1), (40, 40)])
def test_validation_as_fraction_or_number(validation, count):
    split = make_split(dataset(), queries=30, train=100, validation=validation)
    check_parts(split, 200, 30, 100, count)
    whole = make_split(dataset(), queries=30, train=100, validation=0)
    np.testing.assert_array_equal(np.union1d(split.train, split.validation), whole.train)


def test_training_is_at_most_the_database():
    check_parts(make_split(dataset(50), queries=10, validation=0), 50, 10, 40, 0)


def test_class_balance_as_djsrh_draws_it():
    # One label a pair: what each class gives can then be counted exactly.
    column = np.repeat([0, 1, 2, 3], [4000, 2000, 900, 20])
    data = dataset(labels=np.eye(4, dtype=np.uint8)[column])
    split = make_split(data, queries=500, train=1000, validation=0)
    # Shares of 500 // 5: 200, 100, 100, all 20 of the rare class; 80 more at random.
    queries = np.bincount(column[split.query], minlength=4)
    assert queries.sum() == 500
    assert (queries >= [200, 100, 100, 20]).all()
    assert queries[3] == 20
    train = np.bincount(column[split.train], minlength=4)
    assert train.sum() == 1000
    assert (train >= [400, 200, 200, 0]).all()
    assert train[2] < 400  # 900 of 6,920 pairs: balanced draws, not all
    shuffled = make_split(data, queries=500, train=1000, validation=0, seed=1)
    assert not np.array_equal(shuffled.query, split.query)


def test_mirflickr_numbers():
    rng = np.random.default_rng(0)
    labels = np.zeros((12000, 24), np.uint8)
    labels[np.arange(12000), rng.integers(0, 24, 12000)] = 1
    split = make_split(dataset(labels=labels), validation=0)
    queries, train = labels[split.query].sum(axis=0), labels[split.train].sum(axis=0)
    assert queries.tolist() == [160] + [80] * 23
    assert train[1:].min() >= 200


def test_given_split_is_used_as_it_stands():
    given = {"query": np.array([5, 1]), "database": np.array([0, 2, 7, 6])}
    split = make_split(dataset(10, given=given), validation=1)
    assert split.query.tolist() == [1, 5]
    assert split.database.tolist() == [0, 2, 6, 7]
    assert sorted([*split.train, *split.validation]) == [0, 2, 6, 7]
    assert len(split.validation) == 1
    given["train"] = np.array([7, 2])
    assert make_split(dataset(10, given=given), validation=0).train.tolist() == [2, 7]


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"queries": 20}, "toy has 20 pairs but 20 queries were asked for"),
        ({"queries": 2000}, "lower the number of queries"),
        ({"queries": 0}, "expected 1 or more"),
        ({"queries": 5, "validation": 15}, "would take 15 of 15 training pairs"),
        ({"queries": 5, "validation": -1}, "validation is -1"),
    ],
)
def test_refused_numbers(keywords, message):
    with pytest.raises(ValueError, match=message) as error:
        make_split(dataset(20), **keywords)
    assert "\n" not in str(error.value)


def test_save_and_load(tmp_path):
    data = dataset()
    split = make_split(data, queries=30, train=100, seed=7)
    path = tmp_path / "split.json"
    save_split(path, split, data.ids)
    again = load_split(path, data)
    for part in ("query", "database", "train", "validation"):
        np.testing.assert_array_equal(getattr(again, part), getattr(split, part))
        assert getattr(again, part).dtype == np.int64
    assert (again.seed, again.fingerprint) == (7, split.fingerprint)
    assert [p.name for p in tmp_path.iterdir()] == ["split.json"]


def test_load_refuses_other_data_and_broken_files(tmp_path):
    data = dataset()
    path = tmp_path / "split.json"
    save_split(path, make_split(data, queries=30, train=100), data.ids)
    with pytest.raises(ValueError, match="was made for other data"):
        load_split(path, dataset(seed=1))
    with pytest.raises(ValueError, match=r"ids are not in toy, first 'p\d+'"):
        load_split(path, dataset(100))
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["train"]
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ValueError, match="is not a saved split"):
        load_split(path, data)
    with pytest.raises(ValueError, match="cannot be read"):
        load_split(tmp_path / "none.json", data)
