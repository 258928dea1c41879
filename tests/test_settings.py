"""Effective settings: a table of every flag file and method, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from absl import flags
from helpers import ROOT

from dsprh_tf import settings
from dsprh_tf.backbones.found_weights import default_weights
from dsprh_tf.cli.settings import define_settings, given_settings, settings_help
from dsprh_tf.methods import METHODS
from dsprh_tf.settings import effective_settings, recorded_settings

# The defaults of every run and of every method. Changed on purpose only: a change here is a change
# of what commands mean.
RUN = {
    "dataset": "pairs", "data_dir": None, "on_bad_image": "error", "on_bad_text": "skip",
    "queries": 2000, "train_pairs": 5000, "on_missing_labels": "error", "validation": 0.05,
    "min_word_pairs": 5, "fold_plurals": False, "max_words": None, "scenes_count": 2000,
    "method": "dsprh", "bits": 64,
    "backbone": "alexnet", "backbone_weights": "none", "image_size": 224, "resize": 256,
    "freeze_backbone": False, "dropout": 0.0, "epochs": 40, "batch_size": 32, "optimizer": "sgd",
    "lr_image": 0.005, "lr_text": 0.005, "lr_schedule": "constant", "momentum": 0.7,
    "nesterov": True, "weight_decay": 0.0005, "augment": True, "select": "validation",
    "devices": "auto", "precision": "float32", "cache": True, "seed": 0, "run_dir": None,
    "overwrite": False, "cache_dir": "cache", "cache_limit_gb": 16.0, "max_to_keep": 1,
    "monitor_every": 1, "accept_odd_data": False,
    "global_batch_size": None, "jit": "auto", "deterministic": None, "other_devices": False,
    "profile": None, "unseen_database": False, "single_texts": 0.0, "average_from": 1.0,
}  # fmt: skip
OWN = {
    "djsrh": {
        "image_weight": 0.9, "second_order": 0.4, "scale": 1.5, "within_weight": 0.1,
        "text_hidden": 4096,
    },
    "dsah": {
        "image_weight": 0.9, "scale": 1.5, "within_weight": 0.1, "diagonal_target": 1.5,
        "symmetry_weight": 2.0, "decoder_input": "tanh", "text_hidden": 4096,
    },
    "dsprh": {
        "fusion_weights": [0.25, 0.25, 0.5], "cov_channels": 128, "covariance": True,
        "text_hidden": 4096, "decoder_input": "tanh", "alpha": 1.0, "beta": 0.03, "gamma": 1.0,
        "image_weight": 0.9, "scale": 1.5, "within_weight": 0.1, "diagonal_target": 1.0,
        "symmetry_weight": 0.5, "similarity_source": "frozen", "related": "pair",
        "pairwise_target": "soft", "neighbour_share": 0.02, "margin": 0.001,
        "alignment_reduction": "mean", "triplet_reduction": "mean", "pairwise_reduction": "mean",
    },
    "dsprh_plus": {
        "fusion_weights": [0.25, 0.25, 0.5], "cov_channels": 128, "covariance": True,
        "text_hidden": 4096, "decoder_input": "tanh", "alpha": 1.0, "beta": 0.1, "gamma": 0.01,
        "image_weight": 0.5, "second_order": 0.7, "neighbours": 20, "target_deviation": 0.35,
        "diagonal_target": 1.5, "diagonal_weight": 0.1, "symmetry_weight": 0.0, "margin": 0.3,
    },
    "hsidhn": {
        "width": 128, "multi_scale": True, "interaction": True, "hash_dropout": 0.0,
        "text_hidden": 1024, "hard_weight": 0.1, "soft_weight": 1.0, "soft_scale": 2.0,
        "quantization_weight": 0.02, "balance_weight": 0.1,
    },
    "sdeh": {
        "width": 128, "heads": 4, "hash_dropout": 0.0, "text_hidden": 1024,
        "similarity_weight": 1.0, "classification_weight": 0.1, "distribution_weight": 0.1,
        "quantization_weight": 0.02, "soft_scale": 2.0,
    },
}  # fmt: skip

# What differs from them: by flag file, by method, and by both.
# All 5,000 pairs train.
_ALEXNET = {
    "backbone_weights": "weights/alexnet.safetensors", "validation": 0.0, "select": "last",
}  # fmt: skip
_RESNET = {
    **_ALEXNET, "backbone": "resnet34", "backbone_weights": "weights/resnet34.safetensors",
}  # fmt: skip
_MIR = {"dataset": "mirflickr25k", "data_dir": "data/mirflickr25k"}
_NUS = {"dataset": "nuswide", "data_dir": "data/nuswide"}
FILES = {
    "mir": {**_ALEXNET, **_MIR},
    "nus": {**_ALEXNET, **_NUS},
    "mir-resnet34": {**_RESNET, **_MIR},
    "nus-resnet34": {**_RESNET, **_NUS},
    "coco": {
        "dataset": "coco", "backbone": "MobileNetV2", "backbone_weights": "imagenet",
        "freeze_backbone": True, "validation": 0.0, "select": "last",
    },
}  # fmt: skip
_ADAMW = {"optimizer": "adamw", "lr_text": 0.001, "weight_decay": 0.01}
TRAINED = {
    "djsrh": {"lr_image": 0.001, "lr_text": 0.01, "momentum": 0.9, "nesterov": False},
    "dsah": {},
    "dsprh": {},
    "dsprh_plus": {},
    "hsidhn": {**_ADAMW, "lr_image": 0.0001, "epochs": 25},
    "sdeh": {**_ADAMW, "lr_image": 0.0001, "epochs": 25},
}
_FUSION = {"fusion_weights": [0.125, 0.125, 0.75]}
FROZEN = {
    "djsrh": TRAINED["djsrh"],
    "dsah": {},
    "dsprh": {
        **_ADAMW, **_FUSION, "lr_image": None, "epochs": 25, "text_hidden": 1024, "beta": 0.3,
        "gamma": 0.01, "diagonal_target": 1.5, "symmetry_weight": 2.0, "related": "neighbours",
        "margin": 0.3,
    },
    "dsprh_plus": {
        **_ADAMW, **_FUSION, "lr_image": None, "text_hidden": 1024, "single_texts": 0.5,
        "average_from": 0.5,
    },
    "hsidhn": {**_ADAMW, "lr_image": 0.001, "width": 256},
    "sdeh": {**_ADAMW, "lr_image": 0.001, "epochs": 25},
}  # fmt: skip
# The paper's constants stand above the recipe of a frozen backbone.
_SAID = {
    "beta": 0.03, "gamma": 1.0, "margin": 0.001, "diagonal_target": 1.0, "symmetry_weight": 0.5,
}  # fmt: skip
BOTH = {
    ("mir", "dsprh"): {"fusion_weights": [0.25, 0.25, 0.5], **_SAID},
    ("mir", "dsprh_plus"): {"fusion_weights": [0.25, 0.25, 0.5]},
    ("nus", "djsrh"): {"image_weight": 0.6},
    ("nus", "dsprh"): {**_FUSION, **_SAID},
    ("nus", "dsprh_plus"): _FUSION,
    ("coco", "dsprh"): {"cov_channels": 64},
    ("coco", "dsprh_plus"): {"cov_channels": 64},
}  # fmt: skip
DEMO = {
    "dataset": "scenes", "data_dir": "data/scenes", "run_dir": "runs/demo", "queries": 200,
    "train_pairs": 1800, "image_size": 160, "resize": 160, "freeze_backbone": True,
    "augment": False, "method": "dsprh_plus", **FROZEN["dsprh_plus"], "image_weight": 0.3,
    "text_hidden": 512, "cov_channels": 64, "epochs": 6,
}  # fmt: skip


@pytest.fixture(autouse=True)
def weights_need_not_exist(monkeypatch):
    monkeypatch.setattr(settings, "check_backbone", lambda *arguments: None)


def from_flags(*arguments):
    """The effective settings of a command line."""
    values = flags.FlagValues()
    define_settings(values)
    assert values(["program", *arguments]) == ["program"]
    return effective_settings(given_settings(values))


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("method", OWN)
@pytest.mark.parametrize("file", FILES)
def test_every_setting_of_each_flag_file_and_method(file, method, frozen):
    frozen = frozen or file == "coco"
    freeze = ["--freeze_backbone"] if frozen else []
    found = from_flags(f"--flagfile={ROOT}/{file}.flags", f"--method={method}", *freeze).values
    recipe = (FROZEN if frozen else TRAINED)[method]
    both = BOTH.get((file.removesuffix("-resnet34"), method), {})
    expected = {**RUN, **OWN[method], **FILES[file], **recipe, **both}
    expected.update(method=method, freeze_backbone=frozen, augment=not frozen)
    # AlexNet's own, with its weights.
    expected["dropout"] = 0.5 if file in ("mir", "nus") and not frozen else 0.0
    assert found == expected


def test_every_setting_of_the_demo():
    assert from_flags(f"--flagfile={ROOT}/demo.flags").values == {
        **RUN, **OWN["dsprh_plus"], **DEMO,
    }  # fmt: skip


def test_the_table_knows_all_methods():
    assert set(OWN) == set(METHODS)
    assert all(set(OWN[name]) == set(METHODS[name].setting_names()) for name in OWN)


@pytest.mark.parametrize("method", OWN)
def test_given_settings_are_above_all_recipes(method):
    found = from_flags(
        f"--method={method}", "--dataset=nuswide", "--freeze_backbone", "--lr_text=0.3",
        "--epochs=2", "--text_hidden=7",
    )  # fmt: skip
    assert (found.values["lr_text"], found.values["epochs"]) == (0.3, 2)
    assert found.values["text_hidden"] == 7
    assert found.reasons["text_hidden"] == "given"


def test_dropout_follows_the_backbone():
    alexnet = {"dataset": "coco", "backbone": "alexnet", "backbone_weights": "a.npz"}
    for given, expected in (
        (alexnet, 0.5),
        ({**alexnet, "backbone": "AlexNet"}, 0.5),
        ({**alexnet, "backbone": "resnet34"}, 0.0),
        ({**alexnet, "backbone_weights": "none"}, 0.0),
        ({**alexnet, "freeze_backbone": True}, 0.0),
        ({**alexnet, "dataset": "features"}, 0.0),
        ({**alexnet, "dropout": 0.0}, 0.0),
        ({**alexnet, "dropout": 0.2}, 0.2),
    ):
        assert effective_settings(given).values["dropout"] == expected, given


def test_reasons_say_where_values_come_from():
    found = effective_settings(
        {"method": "dsprh", "dataset": "nuswide", "freeze_backbone": True, "scale": 2.0}
    )
    assert found.reasons["optimizer"] == "recipe of dsprh, frozen backbone"
    assert found.reasons["beta"] == "recipe of dsprh on nuswide"
    assert found.reasons["scale"] == "given"
    assert "margin" not in found.describe()  # the data set's is the default again
    lines = found.describe().split("\n")
    assert "settings, recipe of dsprh on nuswide: fusion_weights 0.125,0.125,0.75" in lines
    assert lines[-1].startswith("settings, given: ") and "scale 2.0" in lines[-1]
    assert "| beta | 0.03 | recipe of dsprh on nuswide |" in found.markdown()
    assert "| pairwise_target | soft | default |" in found.markdown()


def test_where_things_lie_is_not_shown():
    shown = effective_settings(
        {"dataset": "scenes", "data_dir": "somewhere", "run_dir": "runs/x"}
    ).describe()
    assert shown == "settings, given: dataset scenes"


@pytest.mark.parametrize(
    "given, said",
    [
        ({"heads": 3}, "--heads belongs to sdeh; dsprh has fusion_weights"),
        ({"method": "djsrh", "cov_channels": 3}, "belongs to dsprh, dsprh_plus; djsrh has image_w"),
        ({"cov_chanels": 3}, "unknown setting 'cov_chanels'; near: cov_channels"),
        ({"method": "sdeh", "had": 3}, "unknown setting 'had'"),
        ({"method": "dsprhh"}, "--method is 'dsprhh', expected one of djsrh, dsah"),
        ({"dataset": "coc"}, "--dataset is 'coc', expected one of coco, features"),
        ({"bits": 12}, "bits must be a positive multiple of 8, received 12"),
        ({"epochs": 0}, "--epochs is 0, expected a whole number of at least 1"),
        ({"epochs": 1.5}, "--epochs is 1.5, expected a whole number"),
        ({"epochs": "3"}, "--epochs is '3', expected a whole number"),
        ({"epochs": None}, "--epochs is None, expected a value"),
        ({"lr_text": -0.1}, "--lr_text is -0.1, expected a finite number of at least 0"),
        ({"lr_text": float("nan")}, "--lr_text is nan, expected a finite number"),
        ({"momentum": 1.2}, "--momentum is 1.2, expected a finite number from 0 to 1"),
        ({"nesterov": 1}, "--nesterov is 1, expected True or False"),
        ({"beta": float("inf")}, "--beta is inf, expected a finite number"),
        ({"related": "friends"}, "--related is 'friends', expected one of pair, neighbours"),
        ({"fusion_weights": [0, 0, 0]}, "--fusion_weights is .*, expected 3 numbers from 0"),
        ({"fusion_weights": [0.5, 0.5]}, "--fusion_weights is .*, expected 3 numbers from 0"),
        ({"neighbour_share": 1.0}, "--neighbour_share is 1, expected more than 0 and less"),
        ({"method": "dsprh_plus", "target_deviation": 0.0}, "--target_deviation is 0.0"),
        ({"method": "sdeh", "heads": 0}, "--heads is 0, expected a whole number of at least 1"),
        ({"method": "hsidhn", "hash_dropout": 1.0}, "--hash_dropout is 1.0, expected"),
        ({"related": "neighbours", "similarity_source": "fused"}, "--similarity_source=frozen"),
        ({"image_size": 300}, "--image_size=300 is larger than --resize=256"),
        ({"augment": True, "freeze_backbone": True}, "add --nocache, or drop --augment"),
    ],
)
def test_what_cannot_work_is_refused_before_any_data_is_read(given, said):
    with pytest.raises(ValueError, match=said):
        effective_settings({"dataset": "scenes", **given})


def test_features_are_like_a_frozen_backbone_and_never_augmented():
    found = effective_settings({"dataset": "features", "augment": True, "image_size": 999})
    assert found.values["augment"] is False
    assert found.values["optimizer"] == "adamw"


def test_runs_of_earlier_versions_recorded_the_settings_of_all_methods():
    every = {name: value for own in OWN.values() for name, value in own.items()}
    record = {**every, **RUN, **OWN["djsrh"], "method": "djsrh", "second_order": 0.3}
    found = recorded_settings(record, data_dir="moved", backbone_weights=None)
    assert set(found.values) == {*RUN, *OWN["djsrh"]}
    assert found.values["second_order"] == 0.3
    assert found.values["lr_text"] == RUN["lr_text"]  # not the recipe's: the record is the run
    assert (found.values["data_dir"], found.values["backbone_weights"]) == ("moved", "none")


class TestYourOwnData:
    def test_images(self):
        found = effective_settings({"data_dir": "my/manifest.csv"}, lambda: "w.h5")
        wanted = {
            "method": "dsprh_plus", "backbone": "MobileNetV2", "freeze_backbone": True,
            "backbone_weights": "w.h5", "queries": None, "train_pairs": None,
            "min_word_pairs": None, "fold_plurals": True, "optimizer": "adamw",
        }  # fmt: skip
        assert {name: found.values[name] for name in wanted} == wanted
        assert found.reasons["backbone"] == "your own data"
        assert "MobileNetV2 with the ImageNet weights in w.h5, frozen" in found.describe()

    def test_without_weights_there_is_a_warning(self):
        found = effective_settings({}, lambda: None)
        assert (found.values["backbone"], found.values["freeze_backbone"]) == ("alexnet", False)
        (line,) = found.notes
        assert line.startswith("warning: no ImageNet weights") and "--backbone_weights" in line

    @pytest.mark.parametrize("given", [{"backbone": "resnet34"}, {"dataset": "features"}])
    def test_nothing_is_looked_for_where_it_is_not_wanted(self, given):
        def never():
            raise AssertionError

        found = effective_settings(given, never)
        assert found.notes == ()
        assert found.values["backbone"] == given.get("backbone", "alexnet")

    def test_published_data_sets_keep_their_meaning(self):
        found = effective_settings({"dataset": "mirflickr25k"}).values
        assert (found["method"], found["queries"], found["backbone"]) == ("dsprh", 2000, "alexnet")

    def test_another_method_on_your_own_data(self):
        found = effective_settings({"method": "dsah"}, lambda: "imagenet").values
        assert (found["method"], found["backbone"]) == ("dsah", "MobileNetV2")

    def test_home(self, tmp_path, monkeypatch):
        def home(dataset, data_dir):
            given = {"dataset": dataset, "data_dir": str(data_dir)}
            return Path(effective_settings(given, lambda: None).values["cache_dir"]).parent

        monkeypatch.delenv("DSPRH_HOME", raising=False)
        assert home("pairs", tmp_path) == tmp_path
        assert home("pairs", tmp_path / "manifest.csv") == tmp_path
        assert home("features", "vectors.npz") == Path()
        assert home("coco", tmp_path) == Path()
        monkeypatch.setenv("DSPRH_HOME", str(tmp_path / "home"))
        assert home("pairs", tmp_path) == home("coco", tmp_path) == tmp_path / "home"

    def test_weights_in_the_home_come_first(self, tmp_path, monkeypatch):
        monkeypatch.setenv("DSPRH_HOME", str(tmp_path))
        (tmp_path / "weights").mkdir()
        file = tmp_path / "weights" / "mobilenet_v2_1.0_224_no_top.h5"
        file.touch()
        default_weights.cache_clear()
        assert default_weights() == str(file)
        file.unlink()
        default_weights.cache_clear()
        monkeypatch.setattr("keras.utils.get_file", lambda *_, **__: 1 / 0)
        assert default_weights() is None
        default_weights.cache_clear()


def test_help_shows_the_values_that_a_run_has():
    values = flags.FlagValues()
    define_settings(values)

    def shown(*arguments):
        values.unparse_flags()
        values(["program", *arguments])
        return settings_help(values)

    texts, groups = shown()
    assert texts["method"].endswith("[dsprh_plus]") and texts["optimizer"].endswith("[adamw]")
    named = [name for names in groups.values() for name in names]
    assert sorted(named) == sorted(set(named)) == sorted(values)
    texts, groups = shown("--method=sdeh", "--dataset=coco", "--backbone_weights=nosuch.h5")
    assert texts["heads"].endswith("[4]") and "heads" in groups["settings of sdeh"]
    assert texts["backbone_weights"].endswith("[nosuch.h5]")


def test_flags_have_the_types_of_the_settings():
    given = {"cov_channels": "3", "beta": "2", "fusion_weights": "1,0,2", "related": "labels"}
    typed = (f"--{n}={v}" for n, v in given.items())
    found = from_flags("--method=dsprh", *typed, "--nocovariance").values
    assert [found[name] for name in given] == [3, 2.0, [1.0, 0.0, 2.0], "labels"]
    assert found["covariance"] is False
    with pytest.raises(ValueError, match="--fusion_weights is a,b, expected numbers"):
        from_flags("--fusion_weights=a,b")


def test_help_shows_the_default_of_each_method():
    values = flags.FlagValues()
    groups = define_settings(values)
    assert values["second_order"].help.endswith("[djsrh: 0.4; dsprh_plus: 0.7]")
    assert values["epochs"].help.endswith("[40]")
    named = [name for names in groups.values() for name in names]
    assert sorted(named) == sorted(set(named)) == sorted(values)
