"""Results of four directions and their files."""

from __future__ import annotations

import copy
import itertools
import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dsprh_tf import codes, metrics
from dsprh_tf.evaluation import results
from dsprh_tf.evaluation.own_items import evaluate_own
from dsprh_tf.evaluation.plots import COLOURS, line_styles, plot_curves
from dsprh_tf.evaluation.results import (
    format_table,
    read_results,
    results_record,
    write_results,
)
from dsprh_tf.evaluation.retrieval import (
    CROSS_MODAL,
    DIRECTIONS,
    Encoded,
    TypedQueries,
    evaluate_all,
    evaluate_directions,
    evaluate_own_items,
    typed_neighbour_map,
)


def encoded(seed, rows, labels=True):
    rng = np.random.default_rng(seed)
    return Encoded(
        codes.pack(rng.standard_normal((rows, 16))),
        codes.pack(rng.standard_normal((rows, 16))),
        (rng.random((rows, 4)) < 0.3).astype(np.uint8) if labels else None,
    )


@pytest.fixture(scope="module")
def record():
    found = evaluate_directions(encoded(0, 9), encoded(1, 120))
    return results_record("dsprh", 16, "coco", 3, found)


def test_each_direction_compares_its_own_codes():
    query, database = encoded(0, 9), encoded(1, 40)
    found = evaluate_directions(query, database, at=7, ties="average")
    expected = {
        "image_to_text": (query.image_codes, database.text_codes),
        "text_to_image": (query.text_codes, database.image_codes),
        "image_to_image": (query.image_codes, database.image_codes),
        "text_to_text": (query.text_codes, database.text_codes),
    }
    for direction, pair in expected.items():
        assert found[direction] == metrics.evaluate(
            *pair, query.labels, database.labels, at=7, ties="average"
        )
    assert found["chance"] == metrics.chance(query.labels, database.labels)
    assert (found["queries"], found["database"]) == (9, 40)


@pytest.mark.parametrize("missing", ["query", "database"])
def test_without_labels_evaluation_is_refused(missing):
    with pytest.raises(ValueError, match="^evaluation needs labels: ") as error:
        evaluate_directions(
            encoded(0, 3, labels=missing != "query"), encoded(1, 5, labels=missing != "database")
        )
    assert "\n" not in str(error.value)


def floats(seed, rows):
    """Embeddings in a shared space, and others of another width within each modality."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((rows, 4)) < 0.3).astype(np.uint8)
    widths = (8, 8, 12, 5)
    image, text, image_within, text_within = (rng.standard_normal((rows, w)) for w in widths)
    return Encoded(image, text, labels, image_within.astype(np.float16), text_within)


@pytest.fixture(scope="module")
def cosine_record():
    found = evaluate_directions(floats(0, 9), floats(1, 120))
    return results_record("float", 8, "coco", 3, found)


def test_embeddings_are_compared_by_cosine_and_within_by_their_own():
    query, database = floats(0, 9), floats(1, 40)
    found = evaluate_directions(query, database, at=7)
    expected = {
        "image_to_text": (query.image_codes, database.text_codes),
        "text_to_image": (query.text_codes, database.image_codes),
        "image_to_image": (query.image_within, database.image_within),
        "text_to_text": (query.text_within, database.text_within),
    }
    for direction, pair in expected.items():
        assert found[direction] == metrics.evaluate_cosine(
            *pair, query.labels, database.labels, at=7
        )


def test_codes_within_a_modality_may_be_others():
    def with_within(base, seed):
        other = encoded(seed, len(base.labels))
        return Encoded(base.image_codes, base.text_codes, base.labels, other.image_codes)

    query, database = with_within(encoded(0, 9), 5), with_within(encoded(1, 40), 6)
    found = evaluate_directions(query, database)
    labels = query.labels, database.labels
    for direction, pair in {
        "image_to_image": (query.image_within, database.image_within),
        "text_to_text": (query.text_codes, database.text_codes),
        "image_to_text": (query.image_codes, database.text_codes),
    }.items():
        assert found[direction] == metrics.evaluate(*pair, *labels)


def test_embeddings_have_no_averaged_ties_and_no_codes_beside_them():
    with pytest.raises(ValueError, match="ties is 'average', but embeddings"):
        evaluate_directions(floats(0, 3), floats(1, 5), ties="average")
    with pytest.raises(ValueError, match="must be packed codes"):
        evaluate_directions(encoded(0, 3), floats(1, 5))


def soft(seed, rows):
    """Codes with the real values under them."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((2, rows, 16))
    labels = (rng.random((rows, 4)) < 0.3).astype(np.uint8)
    real = Encoded(*map(codes.soften, values), labels)
    return Encoded(*map(codes.pack, values), labels, soft=real)


def naive_map(values, packed, labels, database_labels):
    """MAP by falling inner product, ties in the order of the database."""
    signs, total = codes.unpack(packed), 0.0
    for value, own in zip(values, labels):
        products = [sum(float(v) * int(b) for v, b in zip(value, row)) for row in signs]
        order = sorted(range(len(signs)), key=lambda j: (-round(products[j], 6), j))
        hits, found = 0, 0.0
        for rank, j in enumerate(order, 1):
            if (own & database_labels[j]).any():
                hits += 1
                found += hits / rank
        total += found / max(hits, 1)
    return total / len(values)


@pytest.fixture(scope="module")
def every_way():
    query, database = soft(0, 9), soft(1, 60)
    rng = np.random.default_rng(2)
    values = rng.standard_normal((20, 16))
    owner = np.sort(rng.integers(0, 9, 20))
    typed = TypedQueries(owner, codes.pack(values), codes.soften(values), 3)
    found = evaluate_all(query, database, typed, ties="average")
    return query, database, typed, found


def test_asymmetric_distance_ranks_by_the_inner_product(every_way):
    query, database, _, found = every_way
    assert list(found["asymmetric"]) == list(DIRECTIONS)
    for direction in DIRECTIONS:
        source, target = direction.split("_to_")
        sides = query.soft.side(source), database.side(target)
        expected = naive_map(*sides, query.labels, database.labels)
        assert found["asymmetric"][direction]["map"] == pytest.approx(expected)
    plain = evaluate_directions(query, database, ties="average")
    assert {name: found[name] for name in plain} == plain


def test_single_texts_are_queries_with_the_labels_of_their_item(every_way):
    query, database, typed, found = every_way
    labels = query.labels[typed.owner], database.labels
    expected = metrics.evaluate(typed.text_codes, database.image_codes, *labels, ties="average")
    assert found["typed"] == {"text_to_image": expected}
    expected = naive_map(typed.soft, database.image_codes, *labels)
    assert found["typed_asymmetric"]["text_to_image"]["map"] == pytest.approx(expected)


def test_single_texts_without_labels(every_way):
    """Each text of a pair finds what is near to the pair."""
    _, database, typed, _ = every_way
    near = np.random.default_rng(5).random((9, 60)) < 0.2
    distance = codes.hamming_distance(typed.text_codes, database.image_codes)
    total = 0.0
    for owner, row in zip(typed.owner, distance):
        order = sorted(range(60), key=lambda j: (row[j], j))
        ranks = [rank for rank, j in enumerate(order, 1) if near[owner, j]]
        total += np.mean([(i + 1) / rank for i, rank in enumerate(ranks)])
    assert typed_neighbour_map(typed, database, near) == pytest.approx(total / len(distance))


def test_every_way_to_search_is_in_the_files(every_way, tmp_path):
    record = results_record("dsprh_plus", 16, "coco", 0, every_way[-1])
    write_results(tmp_path, record)
    assert read_results(tmp_path / "results-average.json") == record
    table = pd.read_csv(tmp_path / "results-average.csv", keep_default_na=False)
    counts = table["searched"].value_counts().to_dict()
    assert counts == {"": 4, "asymmetric": 4, "typed": 1, "typed_asymmetric": 1}
    (row,) = table[table["searched"] == "typed_asymmetric"].to_dict("records")
    assert float(row["map"]) == pytest.approx(record["typed_asymmetric"]["text_to_image"]["map"])
    text = format_table(record)
    assert "\ntext -> image, one text, asymmetric" in text
    assert "one text: 3 texts without a known word are left out" in text


@pytest.mark.parametrize("damage", [
    lambda record: record.update(asymmetric=3),
    lambda record: record.update(typed={"text_to_image": {"map": 0.5}}),
    lambda record: record["typed"].update(elsewhere=record["image_to_text"]),
    lambda record: record["asymmetric"]["text_to_image"].update(map="high"),
    lambda record: record.update(typed_left_out="none"),
])  # fmt: skip
def test_damaged_records_of_other_ways_are_refused(every_way, tmp_path, damage):
    record = copy.deepcopy(results_record("dsprh_plus", 16, "coco", 0, every_way[-1]))
    damage(record)
    (tmp_path / "results.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match="results.json is damaged"):
        read_results(tmp_path / "results.json")


def test_files_table_and_curves_of_embeddings(cosine_record, tmp_path):
    write_results(tmp_path, cosine_record)
    assert read_results(tmp_path / "results.json") == cosine_record
    table = pd.read_csv(tmp_path / "results.csv")
    assert list(table["direction"]) == list(DIRECTIONS)
    assert "precision@radius2" not in table
    lines = format_table(cosine_record).split("\n")
    assert lines[0].startswith("float on coco, 8 dimensions, seed 3")
    assert "P@radius" not in lines[1]
    assert len({len(line) for line in lines[1:6]}) == 1
    recall_axes, _ = plot_curves(cosine_record).axes
    assert recall_axes.get_title() == "among the first ranks"
    curve = cosine_record["text_to_image"]["precision_recall"]
    np.testing.assert_allclose(recall_axes.lines[1].get_xdata(), curve["recall"])
    assert (curve["rank"][-1], curve["recall"][-1]) == (120, 1)


def test_record_holds_what_readers_of_results_rely_on(record):
    head = ("dsprh", 16, "coco", 3, 9, 120)
    names = ("method", "bits", "dataset", "seed", "queries", "database")
    assert tuple(record[name] for name in names) == head
    for direction in ("image_to_text", "text_to_image"):
        assert {"map", "map@50", "map@50_min_r"} <= record[direction].keys()


def test_written_files_give_the_record_back(record, tmp_path):
    run_dir = tmp_path / "runs" / "one"
    write_results(run_dir, record)
    write_results(run_dir, record)  # replaces
    assert sorted(path.name for path in run_dir.iterdir()) == [
        "curves.png",
        "results.csv",
        "results.json",
    ]
    assert json.loads((run_dir / "results.json").read_text()) == record
    assert read_results(run_dir / "results.json") == record
    assert next(iter(record)) == "format"
    table = pd.read_csv(run_dir / "results.csv")
    assert list(table["direction"]) == list(DIRECTIONS)
    for _, row in table.iterrows():
        assert row["map@50"] == pytest.approx(record[row["direction"]]["map@50"])
        assert (row["bits"], row["database"]) == (16, 120)
        assert row["chance"] == pytest.approx(record["chance"])
    with Image.open(run_dir / "curves.png") as image:
        assert image.size[0] > image.size[1] > 400


def test_results_that_are_not_finite_are_not_written(record, tmp_path):
    broken = copy.deepcopy(record)
    broken["text_to_image"]["map"] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        write_results(tmp_path, broken)
    assert not any(tmp_path.iterdir())


def test_a_failing_write_keeps_the_old_file(record, tmp_path, monkeypatch):
    write_results(tmp_path, record)
    old = (tmp_path / "results.csv").read_bytes()

    def fill_disk(self, path, index):
        with open(path, "w") as file:
            file.write("half a line")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_csv", fill_disk)
    with pytest.raises(OSError, match="No space left"):
        write_results(tmp_path, record)
    assert (tmp_path / "results.csv").read_bytes() == old
    assert len(list(tmp_path.iterdir())) == 3


def test_results_json_is_the_last_file_written(record, tmp_path, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(results, "plot_curves", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_results(tmp_path, record)
    assert [path.name for path in tmp_path.iterdir()] == ["results.csv"]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"format": 2}, "results file of another version: its format is 2, expected 1"),
        ({"format": "1"}, "results file of another version: its format is '1', expected 1"),
        (None, "results file of another version: its format is None, expected 1"),
        ([], "results file of another version: its format is None, expected 1"),
        ("{", "is not valid JSON"),
    ],
)
def test_results_of_another_version_are_refused_by_name(record, change, message, tmp_path):
    path = tmp_path / "old.json"
    content = {k: v for k, v in record.items() if k != "format"}
    if isinstance(change, dict):
        content.update(change)
    elif change is not None:
        content = change
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ValueError, match=message) as error:
        read_results(path)
    assert str(error.value).startswith(str(path))
    assert "evaluate the run again" in str(error.value)


def test_table_is_aligned_and_names_chance(record):
    lines = format_table(record).split("\n")
    assert f"chance {record['chance']:.4f}" in lines[0]
    assert "9 queries, 120 database items" in lines[0]
    assert lines[1].split()[:2] == ["MAP", "MAP@50"]
    assert lines[2].startswith("image -> text")
    assert f"{record['image_to_text']['map@50']:.4f}" in lines[2]
    assert len({len(line) for line in lines[1:6]}) == 1


def test_table_counts_queries_without_relevant_items(record):
    sparse = copy.deepcopy(record)
    sparse["image_to_text"]["queries_without_relevant"] = 2
    assert "2 queries have no relevant item" in format_table(sparse)


def test_line_styles_differ_in_colour_or_dashes():
    styles = list(itertools.islice(line_styles(), 4 * len(COLOURS)))
    assert len({(style["color"], str(style["ls"])) for style in styles}) == len(styles)
    assert [style["color"] for style in styles[: len(COLOURS)]] == list(COLOURS)


def test_curves_show_both_directions_and_chance(record):
    for axes in plot_curves(record).axes:
        labels = [line.get_label() for line in axes.lines]
        assert labels == ["image → text", "text → image", f"chance {record['chance']:.3f}"]
        assert list(axes.lines[2].get_ydata()) == [record["chance"]] * 2
    ranks = record["text_to_image"]["precision_at_k"]
    np.testing.assert_allclose(axes.lines[1].get_ydata(), ranks["precision"])


@pytest.fixture(scope="module")
def own_record():
    """Of data without labels."""
    found = evaluate_own_items(encoded(0, 9, labels=False), encoded(1, 120, labels=False))
    return results_record(
        "dsprh", 16, "pairs", 3, {**found, "neighbour_map": 0.25}, {"validation_map": 0.5}
    )


def test_without_labels_the_gallery_is_all_items():
    query, database = encoded(0, 9, labels=False), encoded(1, 40, labels=False)
    found = evaluate_own_items(query, database)
    gallery = np.concatenate([query.text_codes, database.text_codes])
    assert found["image_to_text"] == evaluate_own(query.image_codes, gallery)
    assert found["chance"] == 1 / 49 and found["compared_by"] == "hamming"


def test_without_labels_files_and_table(own_record, tmp_path):
    assert write_results(tmp_path, own_record) == ["results.json", "results.csv", "curves.png"]
    assert read_results(tmp_path / "results.json") == own_record
    table = pd.read_csv(tmp_path / "results.csv")
    assert list(table["direction"]) == list(CROSS_MODAL)
    assert table["recall@10"][0] == pytest.approx(own_record["image_to_text"]["recall@10"])
    Image.open(tmp_path / "curves.png").verify()
    lines = format_table(own_record).split("\n")
    assert lines[1].split() == ["recall@1", "recall@5", "recall@10", "median", "rank"]
    assert "among all 129 items" in lines[4] and "relevant 0.2500" in lines[4]
    assert "MAP 0.5000" in lines[5]
    (axes,) = plot_curves(own_record).axes
    own = own_record["text_to_image"]["recall_at_k"]
    np.testing.assert_allclose(axes.lines[1].get_ydata(), own["recall"])


@pytest.mark.parametrize(
    "change, message",
    [
        ({"neighbour_map": "high"}, "neighbour_map is 'high'"),
        ({"compared_by": "eye"}, "compared_by is 'eye'"),
        ({"text_to_image": {"recall@1": 0.5}}, "text_to_image lacks numbers"),
    ],
)
def test_without_labels_damage_is_named(own_record, change, message, tmp_path):
    (tmp_path / "results.json").write_text(json.dumps({**own_record, **change}))
    with pytest.raises(ValueError, match=message):
        read_results(tmp_path / "results.json")
