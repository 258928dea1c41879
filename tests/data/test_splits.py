import json

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from dsprh_tf.data.dataset import PairDataset
from dsprh_tf.data.splits import PARTS, load_split, make_split, save_split


def dataset(n=200, labels=None, given=None, seed=0, groups=None):
    """Vectors, equal for pairs of one group."""
    rng = np.random.default_rng(seed)
    if labels is not None:
        labels = np.asarray(labels, np.uint8)
        n = len(labels)
    image_features = rng.normal(size=(n, 3))
    return PairDataset(
        name="toy",
        ids=[f"p{i}" for i in range(n)],
        image_features=image_features if groups is None else image_features[groups],
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


# The same image several times


def drawn_as_before(data, queries, train, validation, seed):
    """The split of earlier versions, which knew no groups: an oracle."""

    def draw(candidates, count):
        free, drawn = rng.permutation(candidates), []
        if data.labels is not None:
            share = count // (data.labels.shape[1] + 1)
            for column in range(data.labels.shape[1]):
                most = 2 * share if column == 0 else share
                drawn.append(free[data.labels[free, column] > 0][:most])
                free = free[~np.isin(free, drawn[-1])]
        return np.sort(np.concatenate([*drawn, free[: count - sum(map(len, drawn))]]))

    rng, everything = np.random.default_rng(seed), np.arange(len(data))
    query = draw(everything, queries)
    database = np.setdiff1d(everything, query)
    drawn = draw(database, min(train, len(database)))
    held_out = int(validation) if validation >= 1 else round(validation * len(drawn))
    validation = np.sort(rng.permutation(drawn)[:held_out])
    return query, database, np.setdiff1d(drawn, validation), validation


@st.composite
def draws(draw, repeated=True):
    """A data set with random labels and groups, and the arguments of a split."""
    n = draw(st.integers(4, 60))
    groups = np.arange(n)
    if repeated:
        groups = np.array(draw(st.lists(st.integers(0, n - 1), min_size=n, max_size=n)))
        groups[np.arange(n) < draw(st.integers(0, n - 2))] = draw(st.integers(0, n - 1))
        hypothesis.assume(len(np.unique(groups)) > 1)
    labels = None
    if columns := draw(st.integers(0, 4)):
        labels = np.random.default_rng(draw(st.integers(0, 99))).random((n, columns)) < 0.4
    data = dataset(n, labels, seed=1, groups=groups)
    arguments = {
        "queries": draw(st.integers(1, n - 1)),
        "train": draw(st.integers(1, n + 5)),
        "validation": draw(st.sampled_from([0, 0.1, 0.5])),
        "seed": draw(st.integers(0, 9)),
    }
    return data, groups, arguments


@hypothesis.given(draws(repeated=False))
@hypothesis.settings(max_examples=60, deadline=None)
def test_without_repeated_images_the_split_is_that_of_earlier_versions(case):
    data, _, arguments = case
    split = make_split(data, **arguments)
    for part, expected in zip(PARTS, drawn_as_before(data, **arguments)):
        np.testing.assert_array_equal(getattr(split, part), expected, err_msg=part)
    assert split.notes == ()


@hypothesis.given(draws())
@hypothesis.settings(max_examples=60, deadline=None)
def test_an_image_is_on_one_side(case):
    data, groups, arguments = case
    split = make_split(data, **arguments)
    again = make_split(data, **arguments)
    sizes = np.bincount(groups)
    parts = {part: getattr(split, part) for part in PARTS}
    for part, rows in parts.items():
        np.testing.assert_array_equal(rows, getattr(again, part))
        assert rows.dtype == np.int64 and (np.diff(rows) > 0).all()
    images = {part: set(groups[rows]) for part, rows in parts.items()}
    assert not images["query"] & images["database"]
    assert not images["train"] & images["validation"]
    drawn = np.union1d(split.train, split.validation)
    assert not np.setdiff1d(drawn, split.database).size
    np.testing.assert_array_equal(np.union1d(split.query, split.database), np.arange(len(data)))
    # As many as were asked for, but where all images that are left occur more often than that.
    for rows, candidates, asked in (
        (split.query, np.arange(len(data)), arguments["queries"]),
        (drawn, split.database, min(arguments["train"], len(split.database))),
    ):
        assert (np.bincount(groups[rows], minlength=len(sizes))[groups[rows]]
                == sizes[groups[rows]]).all(), "an image whole or not at all"  # fmt: skip
        of_each = sizes[groups[candidates]]
        assert 0 < len(rows) <= max(asked, of_each.min())
        left = np.setdiff1d(candidates, rows)
        assert len(rows) >= asked or (sizes[groups[left]] > asked - len(rows)).all()
    held_out = round(arguments["validation"] * len(drawn))
    assert len(split.train) and len(split.validation) <= max(
        held_out, sizes[groups[drawn]].min() if held_out else 0
    )
    repeated = sizes[sizes > 1]
    assert len(split.notes) == bool(len(repeated))
    if len(repeated) > 1:
        assert split.notes[0] == (
            f"{len(repeated)} images occur more than once ({repeated.sum()} items); each stands "
            "on one side"
        )


@hypothesis.given(draws(), st.data())
@hypothesis.settings(max_examples=60, deadline=None)
def test_an_image_is_on_one_side_of_a_given_split(case, data):
    drawn, groups, arguments = case
    part_of = np.array(data.draw(st.lists(
        st.sampled_from("qdtn"), min_size=len(drawn), max_size=len(drawn))))  # fmt: skip
    given = {
        "query": np.flatnonzero(part_of == "q"),
        "database": np.flatnonzero((part_of == "d") | (part_of == "t")),
        "train": np.flatnonzero(part_of == "t"),
    }
    if not len(given["train"]):
        del given["train"]
    clean = {
        part: rows[~np.isin(groups[rows], groups[given["query"]])] for part, rows in given.items()
    }
    hypothesis.assume(len(given["query"]) and len(clean["database"]))
    hypothesis.assume(len(clean.get("train", [0])))
    whole = dataset(len(drawn), seed=1, groups=groups, given=given)
    split = make_split(whole, validation=arguments["validation"])
    np.testing.assert_array_equal(split.query, given["query"])
    np.testing.assert_array_equal(split.database, clean["database"])
    both = np.union1d(split.train, split.validation)
    np.testing.assert_array_equal(both, clean.get("train", clean["database"]))
    assert not set(groups[split.train]) & set(groups[split.validation])
    gone = len(given["database"]) - len(clean["database"])
    said = [note for note in split.notes if note.startswith("left out of the given split: ")]
    assert len(said) == bool(gone)
    if gone:
        trained = len(given.get("train", given["database"])) - len(both)
        assert f": {gone} of {len(given['database'])} database pairs" in said[0]
        assert f", {trained} of them for training" in said[0]


def test_five_rows_of_each_image():
    """As in Flickr8k's file with a row for each caption, under ids of their own."""
    groups = np.repeat(np.arange(44), 5)
    split = make_split(dataset(220, groups=groups), queries=50, train=120)
    assert len(np.unique(groups[split.query])) == 10
    assert not np.isin(groups[split.query], groups[split.database]).any()
    assert not np.isin(groups[split.validation], groups[split.train]).any()
    assert [len(getattr(split, part)) for part in PARTS] == [50, 170, 115, 5]
    assert split.notes == ("44 images occur more than once (220 items); each stands on one side",)


def test_an_image_that_stands_for_lost_ones_is_no_query():
    """Downloads hold the same picture for each one that is gone."""
    groups = np.arange(200)
    groups[60:] = 60
    split = make_split(dataset(200, groups=groups), queries=50, train=40)
    assert len(split.query) == 50 and not (groups[split.query] == 60).any()
    assert not (groups[split.train] == 60).any()
    assert split.notes == ("1 image occurs more than once (140 items); each stands on one side",)


def test_few_repeated_images_change_little():
    groups = np.arange(200)
    groups[7] = 3
    split, before = make_split(dataset(200, groups=groups), 50, 60), make_split(dataset(), 50, 60)
    assert len(np.intersect1d(split.query, before.query)) >= 49


def test_rows_of_an_image_share_their_labels():
    """An image of two rows is drawn for a class that one of them has."""
    labels = np.zeros((200, 2), np.uint8)
    labels[:, 1] = 1
    labels[:10] = 1, 0
    groups = np.arange(200)
    groups[100:110] = groups[:10]
    split = make_split(dataset(labels=labels, groups=groups), queries=30, train=60)
    assert np.isin(split.query, np.arange(10)).sum() == 10  # 2 * (30 // 3), in 10 images of two
    assert np.isin(split.query, np.arange(100, 110)).sum() == 10


@pytest.mark.parametrize(
    ("groups", "given", "message"),
    [
        (np.zeros(20, int), None, "toy: all 20 pairs have the same image"),
        (
            np.arange(20) % 10,
            {"query": np.arange(10), "database": np.arange(10, 20)},
            "toy: every database pair of the given split has the image of a query",
        ),
        (
            np.arange(20) % 10,
            {"query": np.arange(5), "database": np.arange(5, 20), "train": np.arange(10, 15)},
            "toy: every training pair of the given split has the image of a query",
        ),
    ],
    ids=["one image", "database", "training"],
)
def test_refused_groups(groups, given, message):
    with pytest.raises(ValueError, match=message) as error:
        make_split(dataset(20, groups=groups, given=given), queries=5)
    assert "\n" not in str(error.value)


def test_one_image_for_training_is_not_held_out():
    groups = np.array([0, 1, 1, 1, 1])
    given = {"query": np.array([0]), "database": np.arange(1, 5)}
    split = make_split(dataset(5, groups=groups, given=given), validation=0.5)
    assert (len(split.train), len(split.validation)) == (4, 0)


def test_given_split_is_used_as_it_stands():
    given = {"query": np.array([5, 1]), "database": np.array([0, 2, 7, 6])}
    split = make_split(dataset(10, given=given), validation=1)
    assert split.query.tolist() == [1, 5]
    assert split.database.tolist() == [0, 2, 6, 7]
    assert sorted([*split.train, *split.validation]) == [0, 2, 6, 7]
    assert len(split.validation) == 1
    given["train"] = np.array([7, 2])
    assert make_split(dataset(10, given=given), validation=0).train.tolist() == [2, 7]


def test_no_queries_all_pairs_train(tmp_path):
    pairs = dataset(20)
    split = make_split(pairs, queries=0, train=99, validation=4)
    assert (len(split.query), len(split.database)) == (0, 20)
    assert (len(split.train), len(split.validation)) == (16, 4)
    save_split(tmp_path / "split.json", split, pairs.ids)
    assert len(load_split(tmp_path / "split.json", pairs).query) == 0


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"queries": 20}, "toy has 20 pairs but 20 queries were asked for"),
        ({"queries": 2000}, "lower the number of queries"),
        ({"queries": -1}, "expected 0 or more"),
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


def saved_by_an_earlier_version(path, data, query, database, train, validation):
    content = {"seed": 0, "fingerprint": data.fingerprint()}
    for part, rows in zip(PARTS, (query, database, train, validation)):
        content[part] = data.ids[list(rows)].tolist()
    path.write_text(json.dumps(content), encoding="utf-8")


def test_a_split_of_an_earlier_version_is_used_as_it_stands(tmp_path):
    path = tmp_path / "split.json"
    groups = np.arange(12)
    groups[[4, 8, 11]] = [0, 1, 9]  # query and training, query and database, both of training
    data = dataset(12, groups=groups)
    parts = [0, 1, 2], range(3, 12), [3, 4, 5, 9], [10, 11]
    saved_by_an_earlier_version(path, data, *parts)
    split = load_split(path, data)
    for part, rows in zip(PARTS, parts):
        assert getattr(split, part).tolist() == list(rows)
    assert split.notes == (
        f"warning: {path} is of an earlier version, and 2 of 3 queries have the image of a "
        "database pair, 1 of a training pair, and 1 of 2 validation pairs of a training pair: "
        "results look better than they are; a new run folder gets a split without this",
    )
    saved_by_an_earlier_version(path, data, [0, 4], [1, 2, 8], [1, 8], [2])
    assert load_split(path, data).notes == ()


def test_a_split_of_now_is_not_looked_through_again(tmp_path, monkeypatch):
    data = dataset(40, groups=np.arange(40) % 20)
    path = tmp_path / "split.json"
    split = make_split(data, queries=6, train=20, validation=4)
    save_split(path, split, data.ids)
    again = dataset(40, groups=np.arange(40) % 20)
    monkeypatch.setattr(PairDataset, "image_groups", None)
    loaded = load_split(path, again)
    assert loaded.notes == () and len(split.notes) == 1
    np.testing.assert_array_equal(loaded.query, split.query)


def test_a_given_database_that_is_not_all_trained_on():
    given = {"query": np.arange(5), "database": np.arange(5, 40)}
    data = dataset(40, given=given)
    split = make_split(data, train=15, validation=3, seed=2, unseen=True)
    check_parts(split, 40, 5, 15, 3)
    assert len(split.database) == 35
    assert make_split(data, train=15, validation=3, seed=2).train.size == 32
    named = dataset(40, given={**given, "train": np.arange(5, 25)})
    some = make_split(named, train=8, validation=0, unseen=True).train
    assert len(some) == 8 and set(some) < set(range(5, 25))
