"""Near-duplicates: groups against a plain loop, on codes that repeat or form chains."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from index_helpers import clustered_codes, image_items, random_codes, repeated_codes

from dsprh_tf.index import duplicates
from dsprh_tf.index.duplicates import described, find_duplicates, near
from dsprh_tf.index.hamming import HammingIndex
from dsprh_tf.index.interface import Where
from dsprh_tf.index.items import id_items, text_items


def by_definition(codes, ids, radius) -> list[list[tuple[int, int]]]:
    """Groups as (id, distance), one code after the other."""
    items: dict[bytes, list[int]] = {}
    for code, name in zip(codes, ids.tolist()):
        items.setdefault(code.tobytes(), []).append(name)
    order = sorted(items, key=lambda code: (-len(items[code]), min(items[code])))
    groups, taken = [], set()
    for first in order:
        if first in taken:
            continue
        group = []
        for code in items:
            bits = np.frombuffer(first, np.uint8) ^ np.frombuffer(code, np.uint8)
            distance = int(np.unpackbits(bits).sum())
            if distance <= radius and code not in taken:
                taken.add(code)
                group += [(distance, name) for name in items[code]]
        if len(group) > 1:
            groups.append([(name, distance) for distance, name in sorted(group)])
    return sorted(groups)


def found(codes, ids, radius):
    groups = near(codes, ids, radius)
    return sorted(list(zip(g.ids.tolist(), g.distances.tolist())) for g in groups)


@pytest.mark.parametrize("radius", [0, 1, 3, 8, 20])
@pytest.mark.parametrize("kind", ["clustered", "repeated", "short", "chain"])
def test_groups_are_those_of_the_definition(kind, radius, monkeypatch):
    """Whatever part of the codes is searched at once."""
    rng = np.random.default_rng(radius)
    if kind == "chain":  # each is one bit beside the one before
        codes = np.packbits(np.arange(64) < np.arange(65)[:, None], axis=1)
    elif kind == "short":
        codes = random_codes(100, 8)
    else:
        codes = clustered_codes(120, 64) if kind == "clustered" else repeated_codes(rng, 120)
    ids = rng.permutation(10 * len(codes))[: len(codes)]
    if radius > codes.shape[1] * 8:
        with pytest.raises(ValueError, match=r"radius is 20, expected 0 to 8, the bits of a code"):
            near(codes, ids, radius)
        return
    wanted = by_definition(codes, ids, radius)
    assert found(codes, ids, radius) == wanted
    for pairs, candidates in ((1, 0), (40 * len(codes), 2)):  # one by one, all; some, by parts
        monkeypatch.setattr(duplicates, "_PAIRS", pairs)
        monkeypatch.setattr(duplicates, "_CANDIDATES", candidates)
        assert found(codes, ids, radius) == wanted


def test_a_chain_does_not_become_one_group():
    codes = np.packbits(np.arange(64) < np.arange(65)[:, None], axis=1)
    ids = np.arange(65)
    groups = near(codes, ids, 4)
    assert [group.ids.tolist() for group in groups][0] == [0, 1, 2, 3, 4]
    assert len(groups) == 13
    # Those that stay are farther than the radius from each other.
    stay = sorted(set(ids.tolist()) - {i for group in groups for i in group.ids[1:].tolist()})
    assert min(np.diff(stay)) > 4


def test_all_items_with_one_code(monkeypatch):
    """Their pairs are never compared, let alone held."""
    monkeypatch.setattr(duplicates, "_engine", None)
    codes = np.repeat(random_codes(1), 100_000, axis=0)
    (group,) = near(codes, np.arange(100_000)[::-1], 3)
    assert group.ids.tolist() == list(range(100_000))
    assert not group.distances.any()


def test_images_and_texts_are_apart():
    """An image and a text with its code are no duplicates, nor are items of unknown kind."""
    code = random_codes(1)
    index = HammingIndex(64)
    index.add(np.repeat(code, 3, axis=0), image_items(3))
    index.add(np.repeat(code, 2, axis=0), text_items(["a", "b"], [1, 2]))
    index.add(np.repeat(code, 2, axis=0), id_items([3, 4]))
    groups = find_duplicates(index, 0)
    assert [group.ids.tolist() for group in groups] == [[0, 10, 20], [1, 2], [3, 4]]
    assert [g.ids.tolist() for g in find_duplicates(index, 0, Where(modality="text"))] == [[1, 2]]
    assert find_duplicates(index, 0, Where(tag="third")) == []  # one has it
    index.remove([20, 3])
    assert [g.ids.tolist() for g in find_duplicates(index, 2)] == [[0, 10], [1, 2]]
    assert find_duplicates(HammingIndex(64), 2) == []


def test_described(monkeypatch):
    """The items of many groups are read together, and belong to theirs."""
    codes = np.repeat(random_codes(20), 3, axis=0)
    index = HammingIndex(64)
    index.add(codes, image_items(60))
    groups = find_duplicates(index, 1)
    assert len(groups) == 20
    for read in (1, 7, 10_000):
        monkeypatch.setattr(duplicates, "_READ", read)
        for most in (None, 2):
            shown = list(described(index, groups, most))
            assert [[r["id"] for r in each] for each in shown] == [
                group.ids[:most].tolist() for group in groups
            ]
            assert shown[3][0][
                "path"
            ] == f"/pictures/{'odd' if groups[3].ids[0] % 20 else 'even'}/" + (
                f"{groups[3].ids[0] // 10}.jpg"
            )
    assert list(described(index, [])) == []


def test_a_table_names_how_many_more():
    index = HammingIndex(64)
    index.add(np.repeat(random_codes(1), 30, axis=0), pa.concat_tables([image_items(30)]))
    (group,) = find_duplicates(index, 0)
    (results,) = described(index, [group], 3)
    lines = duplicates.format_group(1, group, results).split("\n")
    assert lines[0] == "group 1: 30 images"
    assert [line.split()[2] for line in lines[2:5]] == ["0", "10", "20"]
    assert lines[5] == "  and 27 more"
