"""Breaks lines of losses, layers, schedules and recipes one by one, and checks that tests fail.

    python tests/mutation_check.py            # all of them, some minutes
    python tests/mutation_check.py ranking    # those whose name holds a word

Works on a copy of the tree in a temporary folder. Exits with 1 if a mutation survives the tests
named with it: then the suite does not see that line.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
COPIED = ("dsprh_tf", "tests", "scripts", "examples", "benchmarks")


class Mutation(NamedTuple):
    """A line to break.

    Attributes:
        name: what it breaks.
        file: below the root.
        old: text that occurs once in the file.
        new: what takes its place.
        tests: files of the suite that must fail.
    """

    name: str
    file: str
    old: str
    new: str
    tests: str


L, Y, M = "dsprh_tf/losses.py", "dsprh_tf/layers.py", "dsprh_tf/model.py"
LOSSES, LAYERS, SETTINGS = "tests/test_losses.py", "tests/test_layers.py", "tests/test_settings.py"
MUTATIONS = [
    # Losses
    Mutation("feature similarity", L, "2.0 * cosine_matrix(features, features) - 1.0",
             "cosine_matrix(features, features)", LOSSES),
    Mutation("joint similarity", L, "+ (1.0 - image_weight) * text", "+ image_weight * text",
             LOSSES),
    Mutation("L_1: sums", L,
             'tf.reduce_mean(errors) if reduction == "mean" else tf.reduce_sum(errors)',
             "tf.reduce_mean(errors)", "tests/methods/test_dsprh.py"),
    Mutation("more epochs: the rates", "dsprh_tf/run_folder.py",
             'if new["lr_schedule"] != "constant":', "if False:", "tests/test_run_folder.py"),
    Mutation("ranking: symmetry", L, "diagonal + symmetry_weight *", "diagonal + 0.5 *", LOSSES),
    Mutation("similarity: eta", L, "return within_weight * within + across",
             "return within + across", LOSSES),
    Mutation("reconstruction: the other side", L,
             "image_target = tf.stop_gradient(l2_normalize(image_feature))",
             "image_target = l2_normalize(image_feature)", LOSSES),
    Mutation("triplet: margin", L, "near[:, :, None] + margin", "near[:, :, None] - margin",
             LOSSES),
    Mutation("triplet: both ways", L,
             "one_way(cosines, related) + one_way(tf.transpose(cosines), tf.transpose(related))",
             "2.0 * one_way(cosines, related)", LOSSES),
    Mutation("pairwise: half", L, "omega = 0.5 * tf.matmul", "omega = tf.matmul", LOSSES),
    Mutation("soft similarity: scale", L, "target = scale * label_similarity(labels)",
             "target = label_similarity(labels)", "tests/methods"),
    Mutation("hard similarity: threshold", "dsprh_tf/methods/hsidhn.py",
             "(cosine_matrix(a, b) - threshold)", "cosine_matrix(a, b)",
             "tests/methods/test_hsidhn.py"),
    Mutation("MMD: within", "dsprh_tf/methods/sdeh.py", "return within - 2.0 * tf.reduce_mean",
             "return within - tf.reduce_mean", "tests/methods/test_sdeh.py"),
    Mutation("DJSRH: second order", "dsprh_tf/methods/djsrh.py",
             "+ s.second_order * second)", "+ second)", "tests/methods/test_djsrh.py"),
    Mutation("DSPRH: neighbours", "dsprh_tf/methods/dsprh.py",
             'near = joint >= batch["neighbour_threshold"][:, None]',
             'near = joint < batch["neighbour_threshold"][:, None]', "tests/methods/test_dsprh.py"),
    Mutation("DSPRH+: bound of the target", "dsprh_tf/methods/dsprh_plus.py",
             "near = (target > 2 * s.target_deviation)", "near = (target > s.target_deviation)",
             "tests/methods/test_dsprh_plus.py"),
    # Layers
    Mutation("zero rows", Y, "tf.where(square > 1e-12, inverse, 0.0)", "inverse", LAYERS),
    Mutation("strip pooling: three taps", Y, "padded[:, :-2], strip, padded[:, 2:]",
             "padded[:, 2:], strip, padded[:, :-2]", LAYERS),
    Mutation("covariance: the mean removed", Y,
             "        x -= tf.reduce_mean(x, axis=1, keepdims=True)\n", "", LAYERS),
    Mutation("covariance: trace", Y, "self.iterations) * tf.sqrt(trace)", "self.iterations)",
             LAYERS),
    Mutation("Newton-Schulz: steps", Y, "for _ in range(iterations - 2):",
             "for _ in range(iterations - 3):", LAYERS),
    Mutation("dropout: rate", Y, "tf.random.stateless_uniform(tf.shape(inputs), key) >= self.rate",
             "tf.random.stateless_uniform(tf.shape(inputs), key) < self.rate", LAYERS),
    # Schedules
    Mutation("hardening: alpha", M, "tf.sqrt(1.0 + self.epoch_variable)",
             "tf.sqrt(2.0 + self.epoch_variable)", "tests/test_model.py"),
    Mutation("hardening: epochs", M, "self.epoch_variable.assign(float(epoch))",
             "self.epoch_variable.assign(0.0)", "tests/test_model.py"),
    Mutation("the text side's rate", M, "compat.current_learning_rate(text) * rate / self._rate",
             "rate", "tests/test_model.py"),
    Mutation("cosine decay", "dsprh_tf/run.py", "cosine = steps if", "cosine = 2 * steps if",
             "tests/training"),
    Mutation("mean of weights", "dsprh_tf/training/averaging.py", "(value - mean) / count",
             "(value - mean) / 2", "tests/training/test_averaging.py"),
    Mutation("statistics of the mean", "dsprh_tf/training/averaging.py", "number / (number + 1)",
             "0.99", "tests/training/test_averaging.py"),
    Mutation("single texts", "dsprh_tf/data/single_texts.py",
             "draws % (self._starts[place + 1] - first)", "0 * draws",
             "tests/data/test_single_texts.py"),
    Mutation("targets of single texts", "dsprh_tf/model.py",
             'batch["bow"] = batch.pop("target_bow")', 'batch.pop("target_bow")',
             "tests/test_model.py"),
    Mutation("image rate", "dsprh_tf/methods/base.py", "min(1.0, 1280 / features)", "1.0",
             "tests/methods/test_base.py"),
    # Recipes
    Mutation("recipe: frozen DSPRH", "dsprh_tf/methods/dsprh.py", '"beta": 0.3,', '"beta": 0.2,',
             SETTINGS),
    Mutation("recipe: DJSRH on NUS-WIDE", "dsprh_tf/methods/djsrh.py",
             '"nuswide": {"image_weight": 0.6}', '"nuswide": {"image_weight": 0.9}', SETTINGS),
    Mutation("recipe: SGD", "dsprh_tf/methods/base.py", '"weight_decay": 5e-4',
             '"weight_decay": 5e-3', SETTINGS),
    Mutation("recipe: the data set above the frozen one", "dsprh_tf/settings.py",
             'occasions.append((dataset, f"recipe of {name} on {dataset}"))',
             'occasions.insert(1, (dataset, f"recipe of {name} on {dataset}"))', SETTINGS),
    Mutation("flag file: NUS-WIDE's pairs", "nus.flags", "--train_pairs=5000", "--train_pairs=50",
             SETTINGS),
]  # fmt: skip


def survives(mutation: Mutation, folder: Path) -> bool:
    """Whether the tests pass with the mutation in a copy of the tree."""
    path = folder / mutation.file
    text = path.read_text("utf-8")
    if text.count(mutation.old) != 1:
        raise ValueError(
            f"{mutation.name}: {mutation.file} has {mutation.old!r} {text.count(mutation.old)} "
            "times, expected once: bring the mutation up to date"
        )
    path.write_text(text.replace(mutation.old, mutation.new), "utf-8")
    try:
        return passes([mutation.tests], folder)
    finally:
        path.write_text(text, "utf-8")


def passes(tests: list[str], folder: Path) -> bool:
    """Whether all of the tests pass."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    return subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode == 0


def main() -> int:
    """Runs the mutations whose name holds a word of the command line, all without one."""
    chosen = [m for m in MUTATIONS if all(word in m.name for word in sys.argv[1:])]
    survivors = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in COPIED:
            if (ROOT / name).exists():
                shutil.copytree(ROOT / name, folder / name)
        for path in ROOT.iterdir():
            if path.is_file():
                shutil.copy(path, folder)
        if not passes(sorted({m.tests for m in chosen}), folder):
            print("the tests fail without any mutation: mend them first")
            return 2
        for number, mutation in enumerate(chosen, start=1):
            survived = survives(mutation, folder)
            survivors += [mutation.name] if survived else []
            state = "SURVIVED" if survived else "caught"
            print(f"{number:>3} of {len(chosen)}  {state:<8}  {mutation.name}", flush=True)
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} mutations caught")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
