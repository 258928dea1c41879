"""Layers, methods, dropout and training steps on two replicas, in one process with two devices."""

from __future__ import annotations

import subprocess
import sys

import pytest
from conformance_helpers import CASES
from helpers import ROOT

from dsprh_tf.methods import METHODS

pytestmark = pytest.mark.slow

CHECKS = """
import importlib.util, sys, traceback
import dsprh_tf, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
sys.path[:0] = ["tests", "."]

def module(path):
    spec = importlib.util.spec_from_file_location(path.replace("/", "_"), path)
    found = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found

for path, name, *arguments in (
    ("tests/conformance_helpers.py", "check_all_on_replicas"),
    ("tests/test_model.py", "check_replicas"),
    ("tests/backbones/test_architectures.py", "check_dropout_on_replicas", sys.argv[1]),
):
    try:
        getattr(module(path), name)(*arguments)
    except Exception:
        traceback.print_exc()
"""


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """The process that runs all checks."""
    path = tmp_path_factory.mktemp("replicas") / "checkpoint"
    return subprocess.run(
        [sys.executable, "-c", CHECKS, str(path)],
        cwd=ROOT, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    "said",
    [
        f"{len(CASES)} layers and {len(METHODS)} methods on two replicas",
        "the mean of two replicas: 15 variables",  # one step of training
        "same masks",  # of dropout, after restoring
    ],
)
def test_on_two_replicas(ended, said):
    assert said in ended.stdout, ended.stderr[-6000:]
