import csv
import json
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from helpers import ROOT
from PIL import Image

from dsprh_tf.data.pairs import load_pairs
from dsprh_tf.data.scenes import draw
from dsprh_tf.data.scenes.objects import COLOURS, KINDS
from dsprh_tf.data.scenes.places import PLACES

SCRIPT = ROOT / "scripts" / "make_scenes.py"
SIZE = (64, 48)


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def rows(manifest):
    with open(manifest, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def many():
    return [draw.draw_scene(3, index, (96, 96)) for index in range(400)]


def test_layout_and_the_pairs_loader_agree(tmp_path):
    manifest = draw.write_scenes(tmp_path / "made" / "scenes", 12, 5, SIZE)
    assert manifest == tmp_path / "made" / "scenes" / "manifest.csv"
    table = rows(manifest)
    assert list(table[0]) == ["id", "image", "text", "labels"]
    assert [row["image"] for row in table] == [f"images/{i:06d}.jpg" for i in range(12)]
    for row in table:
        with Image.open(manifest.parent / row["image"]) as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", SIZE)
    dataset = load_pairs(manifest)
    assert list(dataset.ids) == [row["id"] for row in table]
    assert set(dataset.label_names) <= set(draw.LABELS)
    for row, marks in zip(table, dataset.labels):
        named = {name for name, mark in zip(dataset.label_names, marks) if mark}
        assert named == set(row["labels"].split(";"))


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        draw.write_scenes(tmp_path / name, 8, seed, SIZE)
    first, second, other = (contents(tmp_path / name) for name in "abc")
    assert first == second
    pictures = [name for name in first if name.startswith("images")]
    assert all(first[name] != other[name] for name in pictures)
    draw.write_scenes(tmp_path / "longer", 10, 0, SIZE)
    longer = contents(tmp_path / "longer")
    assert all(first[name] == longer[name] for name in pictures)


def test_a_random_pair_is_relevant_in_10_to_20_percent(many):
    sets = [scene.labels for scene in many]
    naive = np.mean([bool(set(a) & set(b)) for i, a in enumerate(sets) for b in sets[:i]])
    assert draw.relevant_share(sets) == pytest.approx(naive)
    assert 0.10 <= naive <= 0.20


def test_relevant_share_of_few_pictures():
    assert draw.relevant_share([]) == 0
    assert draw.relevant_share([("beach",)]) == 0
    assert draw.relevant_share([("beach",), ("beach", "boat"), ("city",)]) == pytest.approx(1 / 3)


def test_labels_are_known_and_all_families_occur(many):
    assert len(set(draw.LABELS)) == len(draw.LABELS)
    counts = Counter(label for scene in many for label in scene.labels)
    assert set(counts) <= set(draw.LABELS)
    assert len(counts) > 0.9 * len(draw.LABELS)
    for scene in many:
        assert len(set(scene.labels) & set(PLACES)) == 1
        assert len(set(scene.labels) & set(KINDS)) <= 2
        assert len(set(scene.labels) & set(COLOURS)) <= 1


def test_words_go_with_labels_but_not_perfectly(many):
    for label in ("beach", "underwater", "kitchen", "space", "tree", "fish"):
        with_label = [label in scene.labels for scene in many]
        places, nouns = draw._PLACE_PHRASES, draw._NOUNS
        words = {phrase.split()[-1] for phrase in (places.get(label) or nouns[label])}
        named = [any(w in scene.text for w in words) for scene in many]
        inside = np.mean([n for n, w in zip(named, with_label) if w])
        outside = np.mean([n for n, w in zip(named, with_label) if not w])
        assert inside > 0.7 > 0.35 > outside
    texts = [scene.text.split() for scene in many]
    assert sum("nikon" in words for words in texts) > 5
    assert min(len(words) for words in texts) >= 4


def test_pictures_show_their_place(many):
    """Mean colour of the upper and the lower half alone finds the place far above chance."""
    features = np.array(
        [np.asarray(scene.image.resize((1, 2), Image.Resampling.BOX)).ravel() for scene in many]
    ).astype(np.float32)
    names = np.array([next(iter(set(scene.labels) & set(PLACES))) for scene in many])
    distances = np.square(features[:, None] - features[None]).sum(-1)
    np.fill_diagonal(distances, np.inf)
    assert np.mean(names[distances.argmin(1)] == names) > 4 / len(PLACES)


def test_finished_scenes_are_reused_and_others_replaced(tmp_path):
    folder = tmp_path / "scenes"
    manifest = draw.write_scenes(folder, 4, 0, SIZE)
    before = manifest.stat().st_mtime_ns
    drawn = []

    def progress(pictures):
        drawn.append(len(pictures))
        return pictures

    draw.write_scenes(folder, 4, 0, SIZE, progress)
    assert drawn == []
    assert manifest.stat().st_mtime_ns == before
    for arguments in ((5, 0, SIZE), (5, 1, SIZE), (5, 1, (48, 48))):
        draw.write_scenes(folder, *arguments, progress)
    assert drawn == [5, 5, 5]
    assert len(rows(manifest)) == 5
    assert 0 <= json.loads((folder / "scenes.json").read_text())["chance"] <= 1


@pytest.mark.parametrize("damage", ["missing", "cut", "no manifest", "broken record", "not a dict"])
def test_half_written_scenes_are_drawn_again(tmp_path, damage):
    folder = tmp_path / "scenes"
    draw.write_scenes(folder, 4, 0, SIZE)
    whole = contents(folder)
    picture = folder / "images" / "000002.jpg"
    if damage == "missing":
        picture.unlink()
    elif damage == "cut":
        picture.write_bytes(picture.read_bytes()[:50])
    elif damage == "no manifest":
        (folder / "manifest.csv").unlink()
    else:
        (folder / "scenes.json").write_text('{"count": 4,' if damage == "broken record" else "[]")
    draw.write_scenes(folder, 4, 0, SIZE)
    assert contents(folder) == whole


def test_what_an_interrupted_run_leaves_is_no_scenes_folder(tmp_path):
    folder = tmp_path / "scenes"

    def stop(pictures):
        for index in pictures:
            if index == 3:
                raise KeyboardInterrupt
            yield index

    with pytest.raises(KeyboardInterrupt):
        draw.write_scenes(folder, 50, 0, SIZE, stop)
    assert list(tmp_path.iterdir()) == []
    leftover = tmp_path / ".scenes.partial" / "images"  # what kill -9 leaves
    leftover.mkdir(parents=True)
    (leftover / "999999.jpg").write_bytes(b"half")
    draw.write_scenes(folder, 3, 0, SIZE)
    assert [path.name for path in tmp_path.iterdir()] == ["scenes"]
    assert len(list((folder / "images").iterdir())) == 3


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match=r"thesis\.tex.*new or empty folder"):
        draw.write_scenes(tmp_path, 3, 0, SIZE)
    own = tmp_path / "own"  # a user's own pairs, without our record
    (own / "images").mkdir(parents=True)
    (own / "manifest.csv").write_text("image,text\n")
    with pytest.raises(ValueError, match="new or empty folder"):
        draw.write_scenes(own, 3, 0, SIZE)
    with pytest.raises(ValueError, match="new or empty folder"):
        draw.write_scenes(tmp_path / "thesis.tex", 3, 0, SIZE)
    assert (own / "manifest.csv").read_text() == "image,text\n"
    (tmp_path / "empty").mkdir()
    assert draw.write_scenes(tmp_path / "empty", 1, 0, SIZE).exists()


@pytest.mark.parametrize(
    "arguments", [(0, 0, SIZE), (3, -1, SIZE), (3, 0, (8, 64)), (3, 0, (64, 5000)), (3, 0, (64,))]
)
def test_bad_arguments_are_named(tmp_path, arguments):
    with pytest.raises(ValueError, match="expected"):
        draw.write_scenes(tmp_path / "scenes", *arguments)
    assert list(tmp_path.iterdir()) == []


def run(*arguments):
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, timeout=60
    )


def test_script(tmp_path):
    out = tmp_path / "scenes"
    done = run(f"--out={out}", "--count=5", "--seed=7", "--size=64,48")
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert str(out / "manifest.csv") in line
    assert "5 images" in line
    assert "chance 0." in line
    assert len(rows(out / "manifest.csv")) == 5


@pytest.mark.parametrize(
    "arguments", [["--count=5"], ["--out={out}", "--size=64"], ["--out={out}", "--count=0"]]
)
def test_script_says_what_is_wrong_in_one_line(tmp_path, arguments):
    failed = run(*(argument.format(out=tmp_path / "scenes") for argument in arguments))
    assert failed.returncode == 2
    assert len(failed.stderr.splitlines()) == 1
    assert "expected" in failed.stderr
