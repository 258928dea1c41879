"""The contract of a method: settings, recipes, configs, a step of training, a new one."""

from __future__ import annotations

import dataclasses
import math
import re

import numpy as np
import pytest
import tensorflow as tf
from absl.flags import FlagValues
from helpers import ROOT
from method_helpers import SIZES, make_batch, prepared, small_method, small_model

from dsprh_tf.cli.settings import define_settings, given_settings
from dsprh_tf.data.sources import LOADERS
from dsprh_tf.methods import METHODS
from dsprh_tf.methods.base import Method, checked, image_rate, kind_of, setting
from dsprh_tf.model import CrossModalHashing
from dsprh_tf.settings import RunSettings, as_text, effective_settings, method_fields
from dsprh_tf.training.optimizers import make_optimizer

every_method = pytest.mark.parametrize("name", METHODS)


def fields(name):
    return dataclasses.fields(METHODS[name].Settings)


# Settings


class Toy(Method):
    """A method with a setting of every kind."""

    name, title = "toy", "Toy"
    terms = {"L": "A loss."}

    @dataclasses.dataclass(frozen=True)
    class Settings:
        """One setting of each kind."""

        flag: bool = setting(True, "A bool.")
        count: int = setting(3, "An int from 1 on.", low=1)
        share: float = setting(0.5, "A float between bounds.", low=0, high=1)
        free: float = setting(-2.0, "A float without bounds.")
        most: float = setting(0.0, "A float with an upper bound.", high=4)
        maybe: float | None = setting(0.1, "A float, or None.")
        unset: int | None = setting(None, "An int, None by default.")
        kind: str = setting("near", "One of three strings.", ("near", "far", "farther"))
        text: str = setting("any", "Any string.")
        weights: tuple[float, float] = setting((0.5, 0.5), "Two weights.")


@pytest.mark.parametrize(
    "given, said",
    [
        ({"flag": 1}, "--flag is 1, expected True or False"),
        ({"flag": "true"}, "--flag is 'true', expected True or False"),
        ({"flag": None}, "--flag is None, expected a value"),
        ({"count": 0}, "--count is 0, expected a whole number of at least 1"),
        ({"count": 2.5}, "--count is 2.5, expected a whole number"),
        ({"count": "3"}, "--count is '3', expected a whole number"),
        ({"count": True}, "--count is True, expected a whole number"),
        ({"count": math.inf}, "--count is inf, expected a whole number"),
        ({"share": 1.1}, "--share is 1.1, expected a finite number from 0 to 1"),
        ({"share": -0.1}, "--share is -0.1, expected a finite number from 0 to 1"),
        ({"share": math.nan}, "--share is nan, expected a finite number"),
        ({"free": math.inf}, "--free is inf, expected a finite number"),
        ({"free": [1.0]}, r"--free is \(1.0,\), expected a finite number"),
        ({"most": 5}, "--most is 5, expected a finite number of at most 4"),
        ({"maybe": "x"}, "--maybe is 'x', expected a finite number"),
        ({"unset": 1.5}, "--unset is 1.5, expected a whole number"),
        ({"kind": "close"}, "--kind is 'close', expected one of near, far, farther"),
        ({"kind": 3}, "--kind is 3, expected a string"),
        ({"text": 3}, "--text is 3, expected a string"),
        ({"weights": (1.0,)}, "--weights is 1.0, expected 2 numbers from 0, not all 0"),
        ({"weights": (0.0, 0.0)}, "--weights is .*, expected 2 numbers from 0, not all 0"),
        ({"weights": (-1.0, 2.0)}, "--weights is .*, expected 2 numbers from 0"),
        ({"weights": (math.nan, 2.0)}, "--weights is .*, expected 2 numbers from 0"),
        ({"weights": ("1", "2")}, "--weights is .*, expected 2 numbers from 0"),
        ({"weights": 0.5}, "--weights is 0.5, expected 2 numbers from 0"),
        ({"weights": "12"}, "--weights is '12', expected 2 numbers from 0"),
        ({"shar": 1.0}, "toy has no setting 'shar', it has flag, count, .*; near: share"),
        ({"xyz": 1.0}, "toy has no setting 'xyz', it has .* weights$"),
    ],
    ids=str,
)
def test_a_value_that_cannot_work_is_named_with_what_was_expected(given, said):
    with pytest.raises(ValueError, match=said) as error:
        Toy(8, **given)
    assert "\n" not in str(error.value)


def test_values_that_work():
    given = {
        "flag": False, "count": 1, "share": 1, "free": -1e9, "most": 4, "maybe": None, "unset": 7,
        "kind": "far", "text": "", "weights": [0, 2],
    }  # fmt: skip
    method = Toy(16, 5, **given)
    assert dataclasses.asdict(method.settings) == {**given, "weights": (0, 2)}
    assert (method.bits, method.seed) == (16, 5)
    assert Toy(8).settings == Toy.Settings()


def test_bits_are_a_multiple_of_8():
    for bits in (0, 12, -8, 8.0, None):
        with pytest.raises(ValueError, match="bits must be a positive multiple of 8, received"):
            Toy(bits)


def test_a_method_without_settings_says_so():
    class Bare(Method):
        name = "bare"

    Bare(8)
    with pytest.raises(ValueError, match="bare has no setting 'width', it has none"):
        Bare(8, width=3)


def test_types_need_not_be_strings_and_others_are_refused():
    """As in a module without `from __future__ import annotations`."""
    types = {
        "flag": bool,
        "count": int,
        "share": float,
        "kind": str,
        "weights": tuple[float, float],
    }
    made = dataclasses.make_dataclass(
        "Made", [(name, kind, setting(None, "Help.")) for name, kind in types.items()]
    )
    found = {field.name: kind_of(field) for field in dataclasses.fields(made)}
    assert found == {**{name: kind.__name__ for name, kind in types.items()}, "weights": "tuple"}
    with pytest.raises(ValueError, match="--count is 1.5, expected a whole number"):
        checked(made(count=1.5))
    other = dataclasses.make_dataclass("Other", [("path", bytes, setting(b"", "Help."))])
    with pytest.raises(ValueError, match="the setting path has the type .*bytes.*, expected bool"):
        checked(other())
    plain = dataclasses.make_dataclass("Plain", [("width", int, 3)])
    with pytest.raises(TypeError, match=r"Plain.width is a plain field, expected .* = setting\("):
        checked(plain())


@every_method
def test_default_settings_are_valid_and_have_help(name):
    method = METHODS[name](64)
    assert method.settings == METHODS[name].Settings()
    for field in fields(name):
        assert kind_of(field) and field.metadata["help"].endswith("."), field.name
    assert method.name == name and method.title


def test_settings_are_flags_of_one_type_that_show_each_default():
    values = FlagValues()
    define_settings(values)
    for name, own in method_fields().items():
        assert len({kind_of(field) for field in own.values()}) == 1, name
        for method, field in own.items():
            shown = re.search(rf"[\[ ]{method}(?:, [^:]*)?: ([^;\]]*)", values[name].help)[1]
            assert shown == as_text(field.default), (name, method)


# Recipes


@every_method
def test_recipes_name_settings_and_occasions_that_exist(name):
    method = METHODS[name]
    known = {field.name for field in dataclasses.fields(RunSettings)} | {*method.setting_names()}
    assert set(method.recipes) <= {"paper", "frozen", *LOADERS}
    for occasion, recipe in method.recipes.items():
        assert set(recipe) <= known, occasion
    for row, changed in method.ablation.items():
        assert set(changed) <= set(method.setting_names()), row
        method(8, **changed)


@every_method
@pytest.mark.parametrize("dataset", ["coco", "mirflickr25k", "nuswide", "features"])
@pytest.mark.parametrize("frozen", [False, True])
def test_recipes_give_settings_that_work(name, dataset, frozen):
    found = effective_settings({"method": name, "dataset": dataset, "freeze_backbone": frozen})
    found.method(found.values["bits"], **found.own())


@pytest.mark.parametrize("features, rate", [(64, 0.001), (1280, 0.001), (2560, 0.0005)])
def test_wide_features_are_learnt_from_in_smaller_steps(features, rate):
    assert image_rate(features) == pytest.approx(rate)


@every_method
def test_the_rate_follows_the_feature_only_where_the_hash_layer_stands_on_it(name):
    frozen = effective_settings({"method": name, "dataset": "coco", "freeze_backbone": True})
    if frozen.values["lr_image"] is None:
        model = small_model(name)
        assert model.image_network.hash_layer.kernel.shape[0] == model.feature_size
    trained = effective_settings({"method": name, "dataset": "coco"})
    assert trained.values["lr_image"] is not None


# Networks and losses


@every_method
def test_every_method_trains_a_step(name):
    model = small_model(name)
    batch = prepared(model.method, make_batch())
    terms, image_gradients, text_gradients = model.local_gradients(batch)
    assert set(terms) == {*model.method.terms, "total"}
    assert all(np.isfinite(value) for value in terms.values())
    for gradients, variables, network in (
        (image_gradients, model.image_variables, model.image_network),
        (text_gradients, model.text_variables, model.text_network),
    ):
        at = next(i for i, v in enumerate(variables) if v is network.hash_layer.kernel)
        assert np.any(gradients[at].numpy())
    assert all(np.isfinite(g.numpy()).all() for g in image_gradients + text_gradients)
    model.compile("adam")
    before = [v.numpy() for v in model.trainable_variables]
    model.train_step(batch)
    moved = [np.any(old != v.numpy()) for old, v in zip(before, model.trainable_variables)]
    assert sum(moved) > len(moved) / 2


@every_method
def test_what_is_prepared_has_a_row_per_pair(name):
    method, batch = small_method(name), make_batch(9)
    rows = prepared(method, batch)
    for key in set(rows) - set(batch) | ({"labels"} if method.supervised else set()):
        assert len(rows[key]) == 9, key
    assert method.supervised == ("labels" in method.prepare(
        *(batch[part].numpy() for part in ("feature", "bow", "labels"))
    ))  # fmt: skip


@every_method
def test_config_round_trip(name):
    changed = {}
    for field in fields(name):
        if kind_of(field) == "bool":
            changed[field.name] = not field.default
        elif kind_of(field) in ("int", "float") and field.metadata["high"] is None:
            changed[field.name] = field.default + 1
    method = METHODS[name](16, 3, **changed)
    config = method.get_config()
    assert config == {**dataclasses.asdict(method.settings), "bits": 16, "seed": 3}
    assert {n: config[n] for n in changed} == changed
    again = METHODS[name].from_config(config)
    assert again.settings == method.settings
    assert again.get_config() == config
    # As files have it: JSON knows no tuples.
    lists = {n: list(v) if isinstance(v, tuple) else v for n, v in config.items()}
    assert METHODS[name].from_config(lists).settings == method.settings


def test_a_method_lacks_what_its_class_does_not_define():
    class Half(Method):
        name = "half"

    method = Half(8)
    with pytest.raises(NotImplementedError, match="Half defines no networks"):
        method.networks(SIZES)
    with pytest.raises(NotImplementedError, match="Half defines no loss"):
        method.loss({}, {})
    with pytest.raises(NotImplementedError, match="Half defines no networks"):
        CrossModalHashing(method, SIZES)
    assert method.prepare(None, np.zeros((3, 2)), None) == {}


# A new one


def test_the_example_of_a_new_method_learns(monkeypatch):
    """The code of BUILD.md, as it stands there."""
    text = (ROOT / "BUILD.md").read_text("utf-8")
    code = re.search(r"^## A new method$.*?```python\n(.*?)```", text, re.DOTALL | re.MULTILINE)[1]
    names = {"__name__": __name__}
    exec(compile(code, "BUILD.md", "exec", dont_inherit=True), names)
    method = names["Contrastive"]
    monkeypatch.setitem(METHODS, method.name, method)

    model = CrossModalHashing(method(16, cov_channels=2, text_hidden=16), SIZES)
    model.compile(*(make_optimizer("adamw", 0.01) for _ in range(2)))
    batch, first = prepared(model.method, make_batch()), None
    step = tf.function(model.local_gradients)
    for _ in range(40):
        terms, image, text = step(batch)
        first = float(terms["total"]) if first is None else first
        model.optimizer.apply_gradients(zip(image, model.image_variables))
        model.text_optimizer.apply_gradients(zip(text, model.text_variables))
    assert first > 1 and float(terms["total"]) < 0.3 * first

    # Its settings are settings of runs, and flags.
    found = effective_settings(
        {"method": "contrastive", "dataset": "coco", "freeze_backbone": True, "temperature": 0.5}
    )
    assert found.values["temperature"] == 0.5
    assert found.values["optimizer"] == "adamw"
    assert found.reasons["optimizer"] == "recipe of contrastive, frozen backbone"
    with pytest.raises(ValueError, match="--temperature is -1.0, expected"):
        effective_settings({"method": "contrastive", "temperature": -1.0})
    with pytest.raises(ValueError, match="--temperature belongs to contrastive; dsprh has"):
        effective_settings({"dataset": "coco", "temperature": 0.5})
    values = FlagValues()
    define_settings(values)
    assert values["temperature"].help.endswith("[contrastive: 0.2]")
    values(["program", "--method=contrastive", "--temperature=0.3"])
    assert given_settings(values) == {"method": "contrastive", "temperature": 0.3}
