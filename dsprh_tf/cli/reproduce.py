"""Reproduces tables and figures of the DSPRH paper: trains all their trials and writes reports.

A trial is one training and evaluation, with one set of settings and one seed.

    dsprh reproduce --experiment=table2 --flagfile=mir.flags
    dsprh reproduce --experiment=table2,table4,figure6 --flagfile=coco.flags \\
        --data_dir=DATA --bits=16,64 --seeds=0,1,2
    dsprh reproduce --experiment=figure5 --flagfile=nus.flags --dry_run

table2, table3   all methods and baselines, 16 to 128 bits (the paper's on MIRFlickr, NUS-WIDE);
                 those that learn from labels are marked as supervised; the paper's method is in two
                 rows, with the paper's constants (on the paper's data on both of its backbones, if
                 weights/resnet34.safetensors lies beside the given weights) and as chosen here
table4           the paper's method with all of its loss, and with L_1, L_2, L_3 alone
figure4          the same over w3 of the fusion, w1 = w2
figure5          the same over alpha, beta and gamma, one at a time
figure6          precision-recall and precision@k of all methods at 128 bits
ablation_parts, ablation_loss   the paper's method with other parts and other readings of its loss
ablation_METHOD  METHOD without each of its parts

Any data with labels will do; published figures stand beside ours where the data are the paper's.
Flags of `dsprh train`, also in a flag file, go to every trial that has such a setting and overrule
the methods' recipes; those of a single run (bits, seed, method, run_dir, overwrite) are ignored in
a flag file. The same command resumes where it stopped, and retries failed trials. A finished trial
keeps the weights that count. Times are estimated from pairs x epochs and the finished trials.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from absl import flags

from dsprh_tf.cli.program import Program
from dsprh_tf.cli.settings import define_settings, given_settings
from dsprh_tf.data.sources import load_dataset
from dsprh_tf.experiments import plan
from dsprh_tf.experiments.paper import EXPERIMENTS, NAMES
from dsprh_tf.experiments.reproduce import reproduce
from dsprh_tf.settings import RunSettings

FLAGS = flags.FlagValues()
_EXPERIMENT = flags.DEFINE_list("experiment", None, ", ".join(EXPERIMENTS) + ".", flag_values=FLAGS)
_BITS = flags.DEFINE_list("bits", None, "Code lengths; default the paper's.", flag_values=FLAGS)
_SEEDS = flags.DEFINE_list(
    "seeds",
    ["0", "1", "2"],
    "Seeds; tables show the mean and deviation over them.",
    flag_values=FLAGS,
)
_METHODS = flags.DEFINE_list(
    "methods", None, "Methods of table2, table3, figure6; by default those that suit the data of "
    f"{', '.join(NAMES)}.", flag_values=FLAGS,
)  # fmt: skip
_OUT = flags.DEFINE_string(
    "out", None, "Output folder; default runs/reproduce/DATASET.", flag_values=FLAGS
)
_SHARED_SPACE = flags.DEFINE_boolean(
    "shared_space", False, "As in `dsprh baseline`.", flag_values=FLAGS
)
_DRY_RUN = flags.DEFINE_boolean("dry_run", False, "Print the plan and stop.", flag_values=FLAGS)

_RUN = define_settings(FLAGS, leave_out=("bits",))
GROUPS = {
    "experiment": ["experiment", "bits", "seeds", "methods", "out", "shared_space", "dry_run"],
    **{title: [n for n in names if n not in plan.SINGLE] for title, names in _RUN.items()},
}


def request_of_flags() -> plan.Request:
    """The request that the flags describe."""
    typed = PROGRAM.typed
    for name in plan.SINGLE:
        if name in typed and name != "bits":
            raise ValueError(f"--{name} is of a single run: give --methods, --seeds or --out")
    # A flag file's bits are of a single run as well.
    bits = _numbers("bits", _BITS.value) if "bits" in typed else ()
    seeds = _numbers("seeds", _SEEDS.value)
    names = None if _METHODS.value is None else tuple(dict.fromkeys(_METHODS.value))
    given = {n: v for n, v in given_settings(FLAGS).items() if n not in plan.SINGLE}
    return plan.Request(given, bits, seeds, names, _SHARED_SPACE.value)


def main() -> int:
    """Plans, runs and reports; the exit code is 1 where a trial failed."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends the running trial as well
    request, names = request_of_flags(), _EXPERIMENT.value or [""]
    plan.make_plans(names, request)  # a wrong name or setting costs no reading of the data
    data_dir, on_bad_image, accept_odd = (
        request.given.get(name, getattr(RunSettings, name))
        for name in ("data_dir", "on_bad_image", "accept_odd_data")
    )
    dataset = load_dataset(request.dataset, data_dir, on_bad_image, accept_odd=accept_odd)
    request = request.on(dataset)
    plans = plan.make_plans(names, request)
    for line in plan.remarks(plans, request):
        print(f"note: {line}")
    out = Path(_OUT.value or f"runs/reproduce/{request.dataset}")
    if _DRY_RUN.value:
        print(plan.plan_table(plans, out))
        return 0
    pages, failed = reproduce(plans, request, dataset, out)
    if failed:
        print(f"failed: {', '.join(failed)}; the reports say why, the same command tries again")
    print(f"reports: {', '.join(map(str, pages))}   (tensorboard --logdir {out}/tensorboard)")
    return 1 if failed else 0


def _numbers(name: str, texts: list) -> tuple:
    """Whole numbers of a list flag, without repetitions."""
    try:
        return tuple(dict.fromkeys(int(text) for text in texts))
    except ValueError:
        raise ValueError(f"--{name} is {','.join(texts)}, expected whole numbers") from None


PROGRAM = Program(__doc__, main, FLAGS, GROUPS, hidden=plan.SINGLE)
