"""Plans of the paper's experiments."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from dsprh_tf import methods
from dsprh_tf.data.dataset import PairDataset
from dsprh_tf.experiments import plan
from dsprh_tf.experiments.plan import EXPERIMENTS, NAMES, Request
from dsprh_tf.methods.baselines import REFERENCES

PARTED = {name: method for name, method in methods.METHODS.items() if method.ablation}
DEFAULTS = {
    **{name: getattr(method.objective, name, True)  # of a network: a switch
       for method in PARTED.values() for changed in method.ablation.values() for name in changed},
    "dataset": "coco", "data_dir": None, "backbone": "alexnet", "backbone_weights": "none",
    "alpha": 1.0, "beta": 0.03, "gamma": 1.0, "image_weight": 0.9, "margin": 0.001,
    "fusion_weights": [0.25, 0.25, 0.5], "epochs": 40, "optimizer": "sgd", "cache_dir": "cache",
    "freeze_backbone": False, "validation": 0.05, "select": "validation", "related": "pair",
    "pairwise_target": "soft", "triplet_reduction": "mean", "pairwise_reduction": "mean",
    "diagonal_target": 1.0, "symmetry_weight": 0.5, "within_weight": 0.1, "covariance": True,
    "similarity_source": "frozen", "decoder_input": "tanh", "lr_image": 0.005, "lr_text": 0.005,
    "weight_decay": 5e-4,
}  # fmt: skip
COUNT_FOR_REFERENCES = {"dataset": "coco", "backbone": "alexnet", "shared_space": False}
BITS = (16, 32, 64, 128)


def request(dataset="coco", given=None, **more) -> Request:
    more = {"references": COUNT_FOR_REFERENCES, **more}
    return Request(dataset, DEFAULTS, given or {}, **more)


def settings_of(name, asked, row):
    return next(e.cell.settings for e in plan.plan(name, asked) if e.row == row)


@pytest.mark.parametrize("name", ["table2", "table3"])
def test_a_comparison_has_every_method_and_reference(name):
    entries = plan.plan(name, request())
    assert len(entries) == len(NAMES) * 4 * 3
    assert [e.cell.method for e in entries[: len(NAMES)]] == list(NAMES)
    assert {(e.bits, e.cell.seed) for e in entries} == set(itertools.product(BITS, (0, 1, 2)))
    assert all(e.cell.bits == e.bits for e in entries)
    programs = {e.cell.method: e.cell.program for e in entries}
    assert programs == {n: "reference" if n in REFERENCES else "train" for n in NAMES}
    # Seed by seed: an interrupted sweep leaves whole tables.
    assert [e.cell.seed for e in entries] == sorted(e.cell.seed for e in entries)


SUPERVISED = {n: m.title for n, m in methods.METHODS.items() if m.supervised}
WANT_PICTURES = {n: m.title for n, m in methods.METHODS.items() if m.needs_pictures}


def test_only_rows_of_supervised_methods_are_marked_in_a_comparison():
    assert SUPERVISED and len(SUPERVISED) < len(methods.METHODS)
    rows = {e.cell.method: e.row for e in plan.plan("table2", request())}
    marked = {n: row for n, row in rows.items() if "(" in row and n not in REFERENCES}
    assert marked == {n: f"{title} (supervised)" for n, title in SUPERVISED.items()}


@pytest.mark.parametrize("name", ["table2", "figure6"])
def test_vectors_are_compared_without_the_methods_that_need_pictures(name):
    assert WANT_PICTURES
    asked = request("features", has_images=False)
    plan = plan.plan(name, asked)
    found = list(dict.fromkeys(e.cell.method for e in plan))
    assert found == [n for n in NAMES if n not in WANT_PICTURES]
    (line,) = plan.remarks({name: plan, "table4": []}, asked)
    assert line.startswith(f"without {', '.join(WANT_PICTURES.values())}: pictures are needed")
    assert "features data has vectors only" in line
    # Nothing to say: of another experiment, of pictures, of methods that were asked for.
    assert not plan.remarks({"table4": plan.plan("table4", asked)}, asked)
    assert not plan.remarks({name: plan.plan(name, request())}, request())
    asked = request("features", has_images=False, methods=("lsh", "dsah"))
    assert not plan.remarks({name: plan.plan(name, asked)}, asked)


def test_a_method_that_needs_pictures_is_refused_by_name_on_vectors():
    for name in WANT_PICTURES:
        asked = request("features", has_images=False, methods=("lsh", name))
        with pytest.raises(ValueError, match=f"^{name} cannot be compared on features data"):
            plan.plan("table2", asked)
        assert plan.plan("table4", asked), "which has no such rows"
        assert plan.plan("table2", request(methods=("lsh", name)))


def test_experiments_share_cells():
    asked = request()
    table2, table3, figure6 = (plan.plan(n, asked) for n in ("table2", "table3", "figure6"))
    assert {e.cell.name for e in table2} == {e.cell.name for e in table3}
    assert {e.cell.name for e in figure6} < {e.cell.name for e in table2}
    assert {e.bits for e in figure6} == {128}
    everything = table2 + table3 + figure6 + plan.plan("table4", asked)
    # Of table 4 the whole loss is the row of table 2: only its three parts are new.
    assert len(plan.unique_cells(everything)) == (len(NAMES) + 3) * 4 * 3


def test_the_papers_method_runs_first_since_its_cache_serves_all():
    order = plan.unique_cells(plan.plan("table2", request()))
    assert order[0].method == methods.PAPER
    assert len({c.name for c in order}) == len(order) == len(NAMES) * 12


def test_table4_takes_the_loss_apart():
    asked = request(given={"gamma": 0.01})
    weights = {
        row: [settings_of("table4", asked, row)[n] for n in ("alpha", "beta", "gamma")]
        for row in ("L_All", "L_1", "L_2", "L_3")
    }
    whole = settings_of("table2", asked, methods.METHODS[methods.PAPER].title)
    assert settings_of("table4", asked, "L_All") == whole
    assert weights["L_All"][2] == 0.01
    assert weights["L_1"] == [1, 0, 0]
    assert weights["L_2"] == [0, 1, 0]
    assert weights["L_3"] == [0, 0, 1]


def test_figure4_sweeps_the_fusion():
    entries = plan.plan("figure4", request(seeds=(5,)))
    weights = [e.cell.settings["fusion_weights"] for e in entries]
    assert weights == [
        [0.5, 0.5, 0.0], [0.375, 0.375, 0.25], [0.25, 0.25, 0.5], [0.125, 0.125, 0.75],
        [0.0, 0.0, 1.0],
    ]  # fmt: skip
    assert [e.value for e in entries] == [w[2] for w in weights]
    assert {e.cell.method for e in entries} == {methods.PAPER}
    assert {e.parameter for e in entries} == {"w3"}
    assert "--fusion_weights=0.375,0.375,0.25" in entries[1].cell.command("out", "scripts")


def test_figure5_sweeps_one_weight_at_a_time_through_the_chosen_one():
    entries = plan.plan("figure5", request(given={"gamma": 0.05}, seeds=(0,)))
    chosen = request(given={"gamma": 0.05}).settings(methods.PAPER)
    assert Counter(e.parameter for e in entries) == {"alpha": 5, "beta": 5, "gamma": 6}
    for entry in entries:
        for name in ("alpha", "beta", "gamma"):
            expected = entry.value if name == entry.parameter else chosen[name]
            assert entry.cell.settings[name] == expected
    centre = {e.cell.name for e in entries if e.value == chosen[e.parameter]}
    assert len(centre) == 1, "the chosen weights are one cell of all three curves"


def test_given_bits_and_seeds_count_for_all_experiments():
    for name in EXPERIMENTS:
        entries = plan.plan(name, request(bits=(24,), seeds=(7, 8)))
        assert {(e.bits, e.cell.seed) for e in entries} == {(24, 7), (24, 8)}


@pytest.mark.parametrize(
    ("dataset", "fusion", "parent"),
    [
        ("mirflickr25k", [0.25, 0.25, 0.5], 0.9),
        ("mirflickr25k_mat", [0.25, 0.25, 0.5], 0.9),
        ("nuswide", [0.125, 0.125, 0.75], 0.6),
    ],
)
def test_the_papers_datasets_bring_its_settings(dataset, fusion, parent):
    asked = request(dataset)
    own = settings_of("table2", asked, "DSPRH")
    assert own["fusion_weights"] == fusion
    assert [own[n] for n in ("alpha", "beta", "gamma", "image_weight")] == [1, 0.03, 1, 0.9]
    assert settings_of("table2", asked, "DJSRH")["image_weight"] == parent
    # What the user gives counts more.
    asked = request(dataset, {"beta": 0.5, "image_weight": 0.3})
    assert settings_of("table2", asked, "DSPRH")["beta"] == 0.5
    assert settings_of("table2", asked, "DJSRH")["image_weight"] == 0.3


def test_a_frozen_backbone_has_its_own_recipe():
    paper = methods.METHODS[methods.PAPER]
    for given in ({"freeze_backbone": True}, {"dataset": "features"}):
        asked = request(given.get("dataset", "coco"), given)
        assert asked.settings(methods.PAPER) == {
            **DEFAULTS, **paper.recipe, **paper.frozen, **given,
        }  # fmt: skip
    assert paper.frozen["optimizer"] != DEFAULTS["optimizer"]
    assert request().settings(methods.PAPER)["optimizer"] == DEFAULTS["optimizer"]


@pytest.mark.parametrize("name", ["ablation_parts", "ablation_loss"])
def test_an_ablation_changes_one_thing_and_holds_out_pairs(name):
    asked = request(given={"freeze_backbone": True})
    entries = [e for e in plan.plan(name, asked) if e.cell.seed == 0]
    base = entries[0].cell.settings
    assert entries[0].row == "DSPRH"
    assert base["validation"] > 0.05 and base["select"] == "last"
    assert len({e.row for e in entries}) == len({e.cell.name for e in entries}) == len(entries) > 3
    for entry in entries[1:]:
        changed = {n for n in base if base[n] != entry.cell.settings[n]}
        assert changed, "a row that changes nothing is the first one"
        assert not changed & {"validation", "select", "data", "method", "seed"}


def test_the_ablation_of_a_supervised_method_takes_away_each_named_part():
    entries = plan.plan("ablation_hsidhn", request(seeds=(0,)))
    assert {e.row: e.cell.method for e in entries} == dict.fromkeys(
        ["HSIDHN", "without interaction", "without soft similarity", "without hard similarity",
         "without multi-scale"], "hsidhn",
    )  # fmt: skip
    changes = [
        {n: v for n, v in e.cell.settings.items() if v != entries[0].cell.settings[n]}
        for e in entries
    ]
    assert changes == [
        {}, {"interaction": False}, {"soft_weight": 0}, {"hard_weight": 0},
        {"multi_scale": False},
    ]  # fmt: skip
    assert len({e.cell.name for e in entries}) == 5


def test_every_method_with_parts_has_its_ablation():
    assert set(PARTED) >= set(SUPERVISED)
    for name in methods.METHODS:
        assert (f"ablation_{name}" in EXPERIMENTS) == (name in PARTED)


@pytest.mark.parametrize("name", sorted(PARTED))
def test_an_ablation_of_parts_begins_with_the_row_of_the_comparison(name):
    method, experiment = PARTED[name], f"ablation_{name}"
    asked = request(bits=(64,))
    entries = plan.plan(experiment, asked)
    base = [e.cell.name for e in entries if e.row == method.title]
    assert len(base) == 3  # seeds
    table2 = plan.plan("table2", asked)
    assert base == [e.cell.name for e in table2 if e.cell.method == name], "shared, so all of it"
    assert {e.bits for e in plan.plan(experiment, request())} == {64}
    # A change must be of something that the method reads: a typing error would change nothing.
    reads = {f.name for f in dataclasses.fields(method.objective)} | set(method.network)
    assert {n for changed in method.ablation.values() for n in changed} <= reads
    # What the user has changed already is the first row.
    row, changed = next(iter(method.ablation.items()))
    rows = {e.row for e in plan.plan(experiment, request(given=dict(changed)))}
    assert rows == {method.title, *method.ablation} - {row}
    if method.needs_pictures:
        with pytest.raises(ValueError, match=f"{experiment} .* vectors only"):
            plan.plan(experiment, request("features", has_images=False))


def test_recipes_fill_what_the_user_does_not_give():
    asked = request(given={"epochs": 3})
    for name, method in methods.METHODS.items():
        expected = {**DEFAULTS, **method.recipe, "epochs": 3}
        assert asked.settings(name) == expected
        cell = asked.cell(name, 16, 0)
        # train.py fills in the recipe: the command line needs only what was given.
        assert cell.flags == {"epochs": 3, "max_to_keep": 1}
    plan = plan.plan("table2", asked)
    lines = asked.overruled(plan)
    assert len(lines) == sum("epochs" in m.recipe for m in methods.METHODS.values())
    assert all("epochs 3 instead of" in line for line in lines)
    assert not request().overruled(plan)
    only = asked.overruled(plan.plan("table4", asked))
    assert len(only) == ("epochs" in methods.METHODS[methods.PAPER].recipe)


def test_what_only_says_where_things_lie_makes_no_other_cell():
    def name(method="lsh", given=None, **more):
        return request(given=given, **more).cell(method, 16, 0).name

    for method in ("lsh", methods.PAPER):
        places = {"data_dir": "/elsewhere", "cache_dir": "/tmp", "backbone_weights": "w.h5"}
        assert name(method, places) == name(method)
        assert name(method, {"backbone": "resnet34"}) != name(method)
        assert name(method, marks={"data": "abc"}) != name(method)
    assert name("lsh", {"epochs": 3}) == name("lsh"), "how to train is nothing to a reference"
    assert name("lsh", references={**COUNT_FOR_REFERENCES, "shared_space": True}) != name("lsh")
    flags = request(given={"epochs": 3}).cell("lsh", 16, 0).flags
    assert flags == {"epochs": 3, "shared_space": False}


def _dataset(**labels):
    return PairDataset(
        "features", ["a", "b"], image_features=np.eye(2), text_features=np.eye(2), **labels
    )


def test_data_and_weights_count_by_their_content(tmp_path):
    for path in ("one", "same", "other"):
        (tmp_path / path).write_text("other" if path == "other" else "weights")
    data = _dataset(labels=np.eye(2, dtype=np.uint8), label_names=("x", "y"))
    asked = {n: request().on(data, str(tmp_path / n)) for n in ("one", "same", "other")}
    names = {n: r.cell(methods.PAPER, 16, 0).name for n, r in asked.items()}
    assert names["one"] == names["same"] != names["other"]
    assert request().on(data, "none").marks["weights"] == "none"
    assert not asked["one"].has_images


def test_what_cannot_be_planned_is_refused():
    with pytest.raises(ValueError, match="unknown experiment 'table9', expected some of table2"):
        plan.plan("table9", request())
    with pytest.raises(ValueError, match="unknown method 'dch', expected some of lsh"):
        request(methods=("dch",))
    with pytest.raises(ValueError, match="unknown method ''"):
        request(methods=())
    with pytest.raises(ValueError, match="no seeds, expected at least one"):
        request(seeds=())
    with pytest.raises(ValueError, match="figure4 .* vectors only"):
        plan.plan("figure4", request("features", has_images=False))
    with pytest.raises(ValueError, match="features data has no labels"):
        request("features").on(_dataset(), "none")


def finish(cell, out, shift=0.0, radius=(0, 1, 2)):
    """Results of a cell: MAP@50 .5, MAP .3, NDCG .2, text to image .1 more, all of it + shift."""
    record = {"format": 1, "method": cell.method, "bits": cell.bits, "dataset": "d",
              "seed": cell.seed, "chance": 0.1, "queries": 20, "database": 100}  # fmt: skip
    for number, direction in enumerate(("image_to_text", "text_to_image", "image_to_image",
                                        "text_to_text")):  # fmt: skip
        add = 0.1 * number + shift
        record[direction] = {
            "map": 0.3 + add, "map@50": 0.5 + add, "ndcg@50": 0.2 + add,
            "queries_without_relevant": 0,
            "precision_at_k": {"k": [1, 100], "precision": [0.9 + shift / 10, 0.5]},
            "precision_recall": {
                "radius": list(radius), "recall": [0.1 * (r + 1) + shift for r in radius],
                "precision": [0.8 - 0.2 * r for r in radius],
            },
        }  # fmt: skip
    folder = Path(cell.folder(out))
    folder.mkdir(parents=True, exist_ok=True)
    cell.prepare(out)
    (folder / "results.json").write_text(json.dumps(record))


def fail(cell, out, reason):
    cell.prepare(out)
    (Path(cell.folder(out)) / "failed.json").write_text(json.dumps({"reason": reason}))


def test_the_plan_counts_shared_cells_once(tmp_path):
    asked = request(bits=(16,), seeds=(0,))
    plans = {name: plan.plan(name, asked) for name in ("table2", "figure6", "table4")}
    cells = plan.unique_cells(plans["table2"])
    finish(cells[0], tmp_path)
    (Path(cells[0].folder(tmp_path)) / "seconds.json").write_text('{"seconds": 60}')
    fail(cells[1], tmp_path, "boom")
    text = plan.plan_table(plans, tmp_path)
    lines = [line.split() for line in text.splitlines()]
    left = len(NAMES) - 1
    assert lines[1][:5] == ["table2", str(left + 1), "1", "1", str(left)]
    assert lines[2][:5] == ["figure6", str(left + 1), "1", "1", "0"]
    assert lines[3][:5] == ["table4", "4", "1", "0", "3"]
    assert lines[3][5:] == ["3", "min"]  # three more like the one that took a minute
    assert text.splitlines()[-1].startswith(f"{left + 3} of {left + 4} cells to run, about ")
