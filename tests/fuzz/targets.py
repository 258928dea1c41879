"""All readers that are fuzzed, by name."""

from __future__ import annotations

from fuzz import planted, targets_arrays, targets_data, targets_index, targets_models

TARGETS = {
    target.name: target
    for module in (targets_data, targets_arrays, targets_models, targets_index)
    for target in module.TARGETS
}
ALL = {**TARGETS, **planted.TARGETS}
