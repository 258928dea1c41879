"""Plans of the paper's experiments."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from experiment_helpers import CHOSEN, PRINTED, fail, finish, request

from dsprh_tf import methods
from dsprh_tf.cli import baseline as baseline_program
from dsprh_tf.cli import train as train_program
from dsprh_tf.cli.settings import given_settings
from dsprh_tf.data.dataset import PairDataset
from dsprh_tf.experiments import plan
from dsprh_tf.experiments.paper import EXPERIMENTS, NAMES
from dsprh_tf.experiments.trial import PROGRAMS
from dsprh_tf.methods.baselines import BASELINES
from dsprh_tf.settings import NEUTRAL, RunSettings, effective_settings

PARTED = {name: method for name, method in methods.METHODS.items() if method.ablation}
BITS = (16, 32, 64, 128)


def settings_of(name, asked, row):
    return next(e.trial.settings for e in plan.plan(name, asked) if e.row == row)


@pytest.mark.parametrize("name", ["table2", "table3"])
def test_a_comparison_has_every_method_and_baseline(name):
    entries = plan.plan(name, request())
    # The paper's method has two rows.
    names = [n for name in NAMES for n in [name] * (2 if name == methods.PAPER else 1)]
    assert len(entries) == len(names) * 4 * 3
    assert [e.trial.method for e in entries[: len(names)]] == names
    assert {(e.bits, e.trial.seed) for e in entries} == set(itertools.product(BITS, (0, 1, 2)))
    assert all(e.trial.bits == e.bits for e in entries)
    programs = {e.trial.method: e.trial.program for e in entries}
    assert programs == {n: "baseline" if n in BASELINES else "train" for n in NAMES}
    # Seed by seed: an interrupted sweep leaves whole tables.
    assert [e.trial.seed for e in entries] == sorted(e.trial.seed for e in entries)


SUPERVISED = {n: m.title for n, m in methods.METHODS.items() if m.supervised}
WANT_IMAGES = {n: m.title for n, m in methods.METHODS.items() if not m.takes_features}


def test_only_rows_of_supervised_methods_are_marked_in_a_comparison():
    assert SUPERVISED and len(SUPERVISED) < len(methods.METHODS)
    rows = {e.trial.method: e.row for e in plan.plan("table2", request())}
    del rows[methods.PAPER]
    marked = {n: row for n, row in rows.items() if "(" in row and n not in BASELINES}
    assert marked == {n: f"{title} (supervised)" for n, title in SUPERVISED.items()}


@pytest.mark.parametrize("name", ["table2", "figure6"])
def test_vectors_are_compared_without_the_methods_that_need_images(name):
    assert WANT_IMAGES
    asked = request("features", has_images=False)
    entries = plan.plan(name, asked)
    found = list(dict.fromkeys(e.trial.method for e in entries))
    assert found == [n for n in NAMES if n not in WANT_IMAGES]
    assert {e.row for e in entries if e.trial.method == methods.PAPER} == {PRINTED, CHOSEN}
    (line,) = plan.remarks({name: entries, "table4": []}, asked)
    assert line.startswith(f"without {', '.join(WANT_IMAGES.values())}: images are needed")
    assert "features data has vectors only" in line
    # Nothing to say: of another experiment, of images, of methods that were asked for.
    assert not plan.remarks({"table4": plan.plan("table4", asked)}, asked)
    assert not plan.remarks({name: plan.plan(name, request())}, request())
    asked = request("features", has_images=False, methods=("lsh", "dsah"))
    assert not plan.remarks({name: plan.plan(name, asked)}, asked)


def test_a_method_that_needs_images_is_refused_by_name_on_vectors():
    for name in WANT_IMAGES:
        asked = request("features", has_images=False, methods=("lsh", name))
        with pytest.raises(ValueError, match=f"^{name} cannot be compared on features data"):
            plan.plan("table2", asked)
        assert plan.plan("table4", asked), "which has no such rows"
        assert plan.plan("table2", request(methods=("lsh", name)))


def test_experiments_share_trials():
    asked = request()
    table2, table3, figure6 = (plan.plan(n, asked) for n in ("table2", "table3", "figure6"))
    assert {e.trial.name for e in table2} == {e.trial.name for e in table3}
    assert {e.trial.name for e in figure6} < {e.trial.name for e in table2}
    assert {e.bits for e in figure6} == {128}
    everything = table2 + table3 + figure6 + plan.plan("table4", asked)
    # Of table 4 the whole loss is a row of table 2: only its three parts are new.
    assert len(plan.unique_trials(everything)) == (len(NAMES) + 1 + 3) * 4 * 3


def test_the_papers_method_runs_first_since_its_cache_serves_all():
    order = plan.unique_trials(plan.plan("table2", request()))
    assert order[0].method == methods.PAPER
    assert len({c.name for c in order}) == len(order) == (len(NAMES) + 1) * 12


def test_table4_takes_the_loss_apart():
    asked = request(given={"gamma": 0.01})
    weights = {
        row: [settings_of("table4", asked, row)[n] for n in ("alpha", "beta", "gamma")]
        for row in ("L_All", "L_1", "L_2", "L_3")
    }
    whole = settings_of("table2", asked, PRINTED)
    assert settings_of("table4", asked, "L_All") == whole
    assert weights["L_All"][2] == 0.01
    assert weights["L_1"] == [1, 0, 0]
    assert weights["L_2"] == [0, 1, 0]
    assert weights["L_3"] == [0, 0, 1]


def test_figure4_sweeps_the_fusion():
    entries = plan.plan("figure4", request(seeds=(5,)))
    weights = [e.trial.settings["fusion_weights"] for e in entries]
    assert weights == [
        [0.5, 0.5, 0.0], [0.375, 0.375, 0.25], [0.25, 0.25, 0.5], [0.125, 0.125, 0.75],
        [0.0, 0.0, 1.0],
    ]  # fmt: skip
    assert [e.value for e in entries] == [w[2] for w in weights]
    assert {e.trial.method for e in entries} == {methods.PAPER}
    assert {e.parameter for e in entries} == {"w3"}
    assert "--fusion_weights=0.375,0.375,0.25" in entries[1].trial.command("out")


def test_figure5_sweeps_one_weight_at_a_time_through_the_chosen_one():
    entries = plan.plan("figure5", request(given={"gamma": 0.05}, seeds=(0,)))
    chosen = request(given={"gamma": 0.05}).settings(methods.PAPER)
    assert Counter(e.parameter for e in entries) == {"alpha": 5, "beta": 5, "gamma": 6}
    for entry in entries:
        for name in ("alpha", "beta", "gamma"):
            expected = entry.value if name == entry.parameter else chosen[name]
            assert entry.trial.settings[name] == expected
    centre = {e.trial.name for e in entries if e.value == chosen[e.parameter]}
    assert len(centre) == 1, "the chosen weights are one trial of all three curves"


def test_given_bits_and_seeds_count_for_all_experiments():
    for name in EXPERIMENTS:
        entries = plan.plan(name, request(bits=(24,), seeds=(7, 8)))
        assert {(e.bits, e.trial.seed) for e in entries} == {(24, 7), (24, 8)}


@pytest.mark.parametrize("given", [{}, {"freeze_backbone": True}])
@pytest.mark.parametrize(
    ("dataset", "fusion", "parent"),
    [
        ("mirflickr25k", [0.25, 0.25, 0.5], 0.9),
        ("mirflickr25k_mat", [0.25, 0.25, 0.5], 0.9),
        ("nuswide", [0.125, 0.125, 0.75], 0.6),
    ],
)
def test_the_papers_datasets_bring_its_settings(dataset, fusion, parent, given):
    asked = request(dataset, given)
    own = settings_of("table2", asked, PRINTED)
    assert own["fusion_weights"] == fusion
    assert (own["diagonal_target"], own["symmetry_weight"], own["related"]) == (1, 0.5, "pair")
    assert own["optimizer"] == "sgd"
    chosen = settings_of("table2", asked, CHOSEN)
    assert [chosen[n] for n in ("beta", "gamma", "related")] == [0.3, 0.01, "neighbours"]
    assert chosen["optimizer"] == ("adamw" if given else "sgd")
    assert [own[n] for n in ("alpha", "beta", "gamma", "image_weight")] == [1, 0.03, 1, 0.9]
    assert own["margin"] == 0.001
    assert settings_of("table2", asked, "DJSRH")["image_weight"] == parent
    # What the user gives counts more.
    asked = request(dataset, {**given, "beta": 0.5, "image_weight": 0.3})
    assert settings_of("table2", asked, PRINTED)["beta"] == 0.5
    assert settings_of("table2", asked, CHOSEN)["beta"] == 0.5
    assert settings_of("table2", asked, "DJSRH")["image_weight"] == 0.3


def test_the_rows_of_the_papers_method_on_a_frozen_backbone():
    asked = request("coco", {"freeze_backbone": True, "backbone": "MobileNetV2", "epochs": 7})
    printed, chosen = (settings_of("table2", asked, row) for row in (PRINTED, CHOSEN))
    assert chosen == asked.trial(methods.PAPER, 16, 0).settings, "what train does by itself"
    differing = {n: v for n, v in printed.items() if v != chosen[n]}
    assert differing == {
        "fusion_weights": [0.25, 0.25, 0.5], "diagonal_target": 1.0, "symmetry_weight": 0.5,
        "beta": 0.03, "gamma": 1.0, "margin": 0.001, "related": "pair", "optimizer": "sgd",
        "lr_image": 0.005, "lr_text": 0.005, "weight_decay": 5e-4, "text_hidden": 4096,
    }  # fmt: skip


def test_the_papers_method_is_planned_on_both_of_its_backbones(tmp_path):
    given = {"backbone_weights": str(tmp_path / "alexnet.npz"), "backbone": "alexnet"}
    (tmp_path / "alexnet.npz").write_text("a")
    row = f"{PRINTED}, ResNet34"
    asked = request("nuswide", given, marks={"data": "d", "weights": "w"}, seeds=(0,))
    entries = plan.plan("table3", asked)
    assert row not in {e.row for e in entries}
    (line,) = plan.remarks({"table3": entries}, asked)
    assert line.startswith(f"without {row}: there is no {tmp_path}/resnet34.npz")

    (tmp_path / "resnet34.npz").write_text("r")
    for more in ({}, {"dropout": 0.3}):
        asked = request("nuswide", {**given, **more}, marks=asked.marks, seeds=(0,))
        entries = plan.plan("table3", asked)
        assert [e.row for e in entries if e.trial.method == methods.PAPER][:3] == [
            PRINTED, row, CHOSEN,
        ]  # fmt: skip
        first, other = (settings_of("table3", asked, label) for label in (PRINTED, row))
        assert (first["dropout"], other["dropout"]) == (more.get("dropout", 0.5), 0.0)
        differing = {n for n in first if first[n] != other[n]}
        assert differing == {"backbone", "dropout", "weights"}
        assert first["weights"] == "w" and len(other["weights"]) == 64
        trial = next(e.trial for e in entries if e.row == row)
        assert program_settings(trial, tmp_path) == {
            n: v for n, v in trial.settings.items() if n not in asked.marks
        }
    for changed in ({"backbone_weights": "none"}, {"backbone": "MobileNetV2"}):
        with_other = request("nuswide", {**given, **changed})
        assert with_other.other_backbone is None and not with_other.without_backbone()
    there = request(
        "nuswide", {"backbone": "resnet34", "backbone_weights": given["backbone_weights"]}
    )
    assert there.other_backbone == ("alexnet", str(tmp_path / "alexnet.npz"))


def test_a_frozen_backbone_has_its_own_recipe():
    recipe = methods.METHODS[methods.PAPER].recipes["frozen"]
    for dataset, given in (("pairs", {"freeze_backbone": True}), ("features", {})):
        found = request(dataset, given).settings(methods.PAPER)
        for name, value in recipe.items():
            assert found[name] == (list(value) if isinstance(value, tuple) else value)
    assert recipe["optimizer"] != RunSettings.optimizer
    assert request().settings(methods.PAPER)["optimizer"] == RunSettings.optimizer


def program_settings(trial, tmp_path):
    """The settings that the program of a trial computes from its command line, as trials count."""
    program, *flags = trial.command(tmp_path)[len(PROGRAMS) :]
    module = {"train": train_program, "baseline": baseline_program}[program]
    module.FLAGS.unparse_flags()
    module.FLAGS([program, *flags])
    values = effective_settings(given_settings(module.FLAGS)).values
    module.FLAGS.unparse_flags()
    return {name: value for name, value in values.items() if name not in NEUTRAL}


@pytest.mark.parametrize("name", sorted(set(EXPERIMENTS) - {"table3", "figure6"}))
@pytest.mark.parametrize(
    ("dataset", "given"),
    [
        ("coco", {"freeze_backbone": True, "backbone": "MobileNetV2", "validation": 8.0}),
        ("mirflickr25k", {"fusion_weights": [0.25, 0.25, 0.5], "text_hidden": 32}),
        ("nuswide", {"augment": False, "lr_image": 1e-05}),
    ],
)
def test_programs_compute_the_settings_that_name_their_trials(tmp_path, name, dataset, given):
    asked = request(dataset, given, bits=(24,), seeds=(3,))
    for trial in plan.unique_trials(plan.plan(name, asked)):
        found = program_settings(trial, tmp_path)
        if trial.program == "train":
            assert trial.settings == found
            continue
        own = {n: v for n, v in trial.settings.items() if n not in ("method", "shared_space")}
        assert own == {n: found[n] for n in own}
        assert {"bits", "seed", "queries", "backbone"} <= set(own)


@pytest.mark.parametrize("name", ["ablation_parts", "ablation_loss"])
def test_an_ablation_changes_one_thing_and_holds_out_pairs(name):
    asked = request(given={"freeze_backbone": True})
    entries = [e for e in plan.plan(name, asked) if e.trial.seed == 0]
    base = entries[0].trial.settings
    assert entries[0].row == "DSPRH"
    assert base["validation"] > 0.05 and base["select"] == "last"
    assert len({e.row for e in entries}) == len({e.trial.name for e in entries}) == len(entries) > 3
    for entry in entries[1:]:
        changed = {n for n in base if base[n] != entry.trial.settings[n]}
        assert changed, "a row that changes nothing is the first one"
        assert not changed & {"validation", "select", "data", "method", "seed"}


def test_the_ablation_of_a_supervised_method_takes_away_each_named_part():
    entries = plan.plan("ablation_hsidhn", request(seeds=(0,)))
    assert {e.row: e.trial.method for e in entries} == dict.fromkeys(
        ["HSIDHN", "without interaction", "without soft similarity", "without hard similarity",
         "without multi-scale"], "hsidhn",
    )  # fmt: skip
    changes = [
        {n: v for n, v in e.trial.settings.items() if v != entries[0].trial.settings[n]}
        for e in entries
    ]
    assert changes == [
        {}, {"interaction": False}, {"soft_weight": 0}, {"hard_weight": 0},
        {"multi_scale": False},
    ]  # fmt: skip
    assert len({e.trial.name for e in entries}) == 5


def test_every_method_with_parts_has_its_ablation():
    assert set(PARTED) >= set(SUPERVISED)
    for name in methods.METHODS:
        assert (f"ablation_{name}" in EXPERIMENTS) == (name in PARTED)


@pytest.mark.parametrize("name", sorted(PARTED))
def test_an_ablation_of_parts_begins_with_the_row_of_the_comparison(name):
    method, experiment = PARTED[name], f"ablation_{name}"
    asked = request(bits=(64,))
    entries = plan.plan(experiment, asked)
    base = [e.trial.name for e in entries if e.row == method.title]
    assert len(base) == 3  # seeds
    table2 = plan.plan("table2", asked)
    assert base == [e.trial.name for e in table2 if e.trial.method == name], "shared, so all of it"
    assert {e.bits for e in plan.plan(experiment, request())} == {64}
    # A change must be of something that the method reads: a typing error would change nothing.
    reads = set(method.setting_names())
    assert {n for changed in method.ablation.values() for n in changed} <= reads
    # What the user has changed already is the first row.
    row, changed = next(iter(method.ablation.items()))
    rows = {e.row for e in plan.plan(experiment, request(given=dict(changed)))}
    assert rows == {method.title, *method.ablation} - {row}
    if not method.takes_features:
        with pytest.raises(ValueError, match=f"{experiment} .* vectors only"):
            plan.plan(experiment, request("features", has_images=False))


def test_recipes_fill_what_the_user_does_not_give():
    asked = request(given={"epochs": 3})
    for name, method in methods.METHODS.items():
        expected = effective_settings({"method": name, "dataset": "coco", "epochs": 3}).values
        assert asked.settings(name) == expected
        recipe = {**method.recipes["paper"], **method.recipes.get("coco", {}), "epochs": 3}
        assert {n: asked.settings(name)[n] for n in recipe} == recipe
        trial = asked.trial(name, 16, 0)
        # train fills in the recipe: the command line needs only what was given.
        assert trial.flags == {"dataset": "coco", "epochs": 3, "max_to_keep": 1}
    entries = plan.plan("table2", asked)
    lines = plan.remarks({"table2": entries}, asked)
    assert len(lines) == sum("epochs" in m.recipes["paper"] for m in methods.METHODS.values())
    assert all("epochs 3 instead of" in line for line in lines)
    assert not plan.remarks({"table2": entries}, request())
    only = plan.remarks({"table4": plan.plan("table4", asked)}, asked)
    assert len(only) == ("epochs" in methods.METHODS[methods.PAPER].recipes["paper"])


def test_the_recipe_of_the_data_is_overruled_by_name():
    asked = request("nuswide", {"image_weight": 0.9, "freeze_backbone": True, "gamma": 0.5})
    names = ("djsrh", "dsprh", "dsah")
    lines = asked.overruled(names)
    assert lines == [
        "DJSRH runs with other settings: image_weight 0.9 instead of 0.6",
        "DSPRH runs with other settings: gamma 0.5 instead of 1.0",
    ]


def test_given_settings_go_to_the_trials_that_have_them():
    given = {"cov_channels": 8, "text_hidden": 32, "heads": 2, "queries": 9}
    asked = request(given=given)
    plans = plan.make_plans(["table2"], asked)
    for entry in plans["table2"]:
        trial = entry.trial
        own = {"dataset", "queries"}
        if trial.program == "train":
            method = methods.METHODS[trial.method]
            own |= set(given) & set(method.setting_names())
        assert set(trial.flags) & {"dataset", *given} == own
        for name in own - {"dataset"}:
            assert trial.settings[name] == given[name]
        assert set(trial.settings) & set(given) == own - {"dataset"}
    titles = {
        setting: ", ".join(
            m.title for m in methods.METHODS.values() if setting not in m.setting_names()
        )
        for setting in ("cov_channels", "heads")
    }
    assert plan.remarks(plans, asked)[0] == (
        "settings go to the methods that have them: "
        f"--cov_channels not to {titles['cov_channels']}; --heads not to {titles['heads']}"
    )


def test_a_setting_that_no_planned_method_has_is_refused():
    asked = request(given={"heads": 2})
    with pytest.raises(ValueError, match="^--heads belongs to sdeh; planned are dsprh: ") as error:
        plan.make_plans(["table4"], asked)
    assert "\n" not in str(error.value)
    assert plan.make_plans(["table4", "table2"], asked)  # one of them has it
    some = request(given={"heads": 2}, methods=("lsh", "dsah"))
    with pytest.raises(ValueError, match="--heads belongs to sdeh; planned are dsah: .*--methods"):
        plan.make_plans(["table2"], some)
    # As in the program of baselines, what says how to train changes nothing.
    alone = request(given={"heads": 2}, methods=("lsh", "float"))
    assert len(plan.make_plans(["table2"], alone)["table2"]) == 2 * 4 * 3
    with pytest.raises(ValueError, match="unknown setting 'cov_chanels'; near: cov_channels"):
        plan.make_plans(["table2"], request(given={"cov_chanels": 3}))


def test_what_only_says_where_things_lie_makes_no_other_trial(tmp_path):
    weights = tmp_path / "weights.npz"
    weights.touch()

    def name(method="lsh", given=None, **more):
        return request(given=given, **more).trial(method, 16, 0).name

    for method in ("lsh", methods.PAPER):
        places = {"data_dir": "/elsewhere", "cache_dir": "/tmp", "backbone_weights": str(weights)}
        frozen = {"freeze_backbone": True}  # AlexNet is fine-tuned with dropout if it has weights
        assert name(method, {**places, **frozen}) == name(method, frozen)
        assert name(method, {"backbone": "resnet34"}) != name(method)
        assert name(method, marks={"data": "abc"}) != name(method)
    assert name("lsh", {"epochs": 3}) == name("lsh"), "how to train is nothing to a baseline"
    assert name("lsh", {"beta": 3.0}) == name("lsh")
    assert name("lsh", shared_space=True) != name("lsh")
    flags = request(given={"epochs": 3, "data_dir": "d"}).trial("lsh", 16, 0).flags
    assert flags == {"dataset": "coco", "data_dir": "d", "shared_space": False}


def _dataset(**labels):
    return PairDataset(
        "features", ["a", "b"], image_features=np.eye(2), text_features=np.eye(2), **labels
    )


def test_data_and_weights_count_by_their_content(tmp_path):
    for name in ("one", "same", "other"):
        (tmp_path / f"{name}.npz").write_text("other" if name == "other" else "weights")
    data = _dataset(labels=np.eye(2, dtype=np.uint8), label_names=("x", "y"))
    asked = {
        n: request(given={"backbone_weights": str(tmp_path / f"{n}.npz")}).on(data)
        for n in ("one", "same", "other")
    }
    names = {n: r.trial(methods.PAPER, 16, 0).name for n, r in asked.items()}
    assert names["one"] == names["same"] != names["other"]
    assert request().on(data).marks["weights"] == "none"
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
        request("features").on(_dataset())
    with pytest.raises(ValueError, match="^seed is of a single run"):
        request(given={"seed": 3})
    with pytest.raises(ValueError, match="--seeds has -1, expected whole numbers from 0"):
        request(seeds=(0, -1))
    with pytest.raises(ValueError, match="^scenes are drawn anew for each seed"):
        request("scenes")


def test_the_plan_counts_shared_trials_once(tmp_path):
    asked = request(bits=(16,), seeds=(0,))
    plans = {name: plan.plan(name, asked) for name in ("table2", "figure6", "table4")}
    trials = plan.unique_trials(plans["table2"])
    finish(trials[0], tmp_path)
    (Path(trials[0].folder(tmp_path)) / "seconds.json").write_text('{"seconds": 60}')
    fail(trials[1], tmp_path, "boom")
    text = plan.plan_table(plans, tmp_path)
    lines = [line.split() for line in text.splitlines()]
    left = len(NAMES)  # one is done, and the paper's method has two rows
    assert lines[1][:5] == ["table2", str(left + 1), "1", "1", str(left)]
    assert lines[2][:5] == ["figure6", str(left + 1), "1", "1", "0"]
    assert lines[3][:5] == ["table4", "4", "1", "0", "3"]
    assert lines[3][5:] == ["3", "min"]  # three more like the one that took a minute
    assert text.splitlines()[-1].startswith(f"{left + 3} of {left + 4} trials to run, about ")
