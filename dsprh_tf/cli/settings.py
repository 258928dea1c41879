"""Flags of runs: made from the settings of runs and methods, and those that name a finished run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from absl import flags

from dsprh_tf.methods.base import kind_of
from dsprh_tf.run import Run
from dsprh_tf.settings import GROUPS, RunSettings, as_text, effective_settings, method_fields


def define_settings(flag_values: flags.FlagValues, leave_out=()) -> dict[str, list[str]]:
    """Defines a flag for each setting of runs and methods.

    No flag has a default of its own: what is not given is decided by `effective_settings`.

    Args:
        flag_values: where to define them.
        leave_out: names of settings that get no flag.

    Returns:
        Title -> names of flags, for `--help`: groups of run settings, then all settings of methods.
    """
    for field in dataclasses.fields(RunSettings):
        if field.name not in leave_out:
            default = "" if field.default is None else f" [{as_text(field.default)}]"
            _define(flag_values, field, _text(field, default))
    groups = {title: [n for n in names if n not in leave_out] for title, names in GROUPS.items()}
    groups["settings of methods, with their defaults"] = []
    for name, fields in method_fields().items():
        field = next(iter(fields.values()))
        texts: dict[str, list[str]] = {}
        for method, own in fields.items():
            texts.setdefault(as_text(own.default), []).append(method)
        defaults = "; ".join(f"{', '.join(methods)}: {text}" for text, methods in texts.items())
        _define(flag_values, field, _text(field, f" [{defaults}]"))
        groups["settings of methods, with their defaults"].append(name)
    return groups


def settings_help(flag_values: flags.FlagValues) -> tuple[dict[str, str], dict[str, list[str]]]:
    """What `--help` says of each setting for the method and the data that are given with it.

    Args:
        flag_values: parsed flags.

    Returns:
        Name -> text with the value that a run would have, and the groups: those of `GROUPS`, the
        settings of the method, and those that only other methods have, with their defaults.
    """
    given = given_settings(flag_values)
    named = given.get("backbone_weights")
    if named is not None:  # a file that need not be there yet
        given["backbone_weights"] = "none"
    effective = effective_settings(given, weights=lambda: "imagenet")
    if named is not None:
        effective.values["backbone_weights"] = named
    method, fields = effective.method, list(dataclasses.fields(RunSettings))
    fields += dataclasses.fields(method.Settings)
    texts = {f.name: _text(f, f" [{as_text(effective.values[f.name])}]") for f in fields}
    groups = {title: list(names) for title, names in GROUPS.items()}
    groups[f"settings of {method.name}"] = list(method.setting_names())
    others = [name for name in method_fields() if name not in texts]
    groups["settings of other methods, with their defaults"] = others
    return texts, groups


def given_settings(flag_values: flags.FlagValues) -> dict:
    """The settings that the user gave, typed or in a flag file: name -> value."""
    names = [*(f.name for f in dataclasses.fields(RunSettings)), *method_fields()]
    found = {}
    for name in names:
        if name in flag_values and flag_values[name].present:
            value = flag_values[name].value
            found[name] = _numbers(name, value) if isinstance(value, list) else value
    return found


def define_run(flag_values: flags.FlagValues) -> None:
    """Defines the flags that name a finished run: run_dir, data_dir and backbone_weights."""
    for name, text in (
        ("run_dir", "Run folder of `dsprh train`."),
        ("data_dir", "Where the data lies now, if it was moved."),
        ("backbone_weights", "Likewise for the backbone's weights."),
    ):
        flags.DEFINE_string(name, None, text, flag_values=flag_values)


def load_run(flag_values: flags.FlagValues) -> Run:
    """The run that the flags of `define_run` name.

    Raises:
        ValueError: none is named, or there is none.
    """
    values = [flag_values[name].value for name in ("run_dir", "data_dir", "backbone_weights")]
    if not values[0]:
        raise ValueError("needs --run_dir=FOLDER, a run folder of `dsprh train`")
    return Run.load(*values)


def _text(field: dataclasses.Field, shown: str) -> str:
    text = f"{field.metadata['help']}{shown}"
    choices = field.metadata["choices"]
    return f"<{'|'.join(choices)}>: {text}" if choices else text


def _define(flag_values: flags.FlagValues, field: dataclasses.Field, text: str) -> None:
    kinds: dict[str, Callable] = {
        "bool": flags.DEFINE_boolean,
        "int": flags.DEFINE_integer,
        "float": flags.DEFINE_float,
        "str": flags.DEFINE_string,
    }
    define = kinds.get(kind_of(field), flags.DEFINE_list)
    define(field.name, None, text, flag_values=flag_values)


def _numbers(name: str, texts: list[str]) -> list[float]:
    try:
        return [float(text) for text in texts]
    except ValueError:
        raise ValueError(
            f"--{name} is {','.join(texts)}, expected numbers, such as 0.25,0.25,0.5"
        ) from None
