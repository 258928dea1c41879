"""Runs tables and figures of the DSPRH paper: trains all their cells and writes reports.

    python scripts/reproduce.py --experiment=table2 --flagfile=mir.flags
    python scripts/reproduce.py --experiment=table2,table4,figure6 --flagfile=coco.flags \\
        --data_dir=DATA --bits=16,64 --seeds=0,1,2
    python scripts/reproduce.py --experiment=figure5 --flagfile=nus.flags --dry_run

table2, table3   all methods and references, 16 to 128 bits (the paper's on MIRFlickr, NUS-WIDE);
                 those that learn from labels are marked as supervised
table4           the paper's method with all of its loss, and with L_1, L_2, L_3 alone
figure4          the same over w3 of the fusion, w1 = w2
figure5          the same over alpha, beta and gamma, one at a time
figure6          precision-recall and precision@k of all methods at 128 bits
ablation_parts, ablation_loss   the paper's method with other parts and other readings of its loss
ablation_METHOD  METHOD without each of its parts

Any data with labels will do; published figures stand beside ours where the data are the paper's.
All flags of scripts/train.py, also in a flag file, go to every cell and overrule the methods'
recipes; those of a single run (bits, seed, method, run_dir, overwrite) do not count in a flag
file. The same command goes on where it stopped, and tries failed cells again. A cell keeps the
last checkpoint (--max_to_keep for more), and the best where there are validation pairs.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import common
import program
import reference
import train_flags

# isort: split
from absl import flags

from dsprh_tf.codes import check_bits
from dsprh_tf.data.files import Lock
from dsprh_tf.experiments import plan, report, sweep

_EXPERIMENT = flags.DEFINE_list("experiment", None, ", ".join(plan.EXPERIMENTS) + ".")
_BITS = flags.DEFINE_list("bits", None, "Code lengths; default the paper's.", allow_override=True)
_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "Tables show their mean and deviation.")
_METHODS = flags.DEFINE_list("methods", None, "Of table2, table3 and figure6; by default those "
                             f"that the data can have of {', '.join(plan.NAMES)}.")
_OUT = flags.DEFINE_string("out", None, "Output folder; default runs/reproduce/DATASET.")
_SHARED_SPACE = flags.DEFINE_boolean("shared_space", False, "As in scripts/reference.py.")
_DRY_RUN = flags.DEFINE_boolean("dry_run", False, "Print the plan and stop.")

SINGLE = ("method", "bits", "seed", "run_dir", "overwrite")
GROUPS = {
    "experiment": ["experiment", "bits", "seeds", "methods", "out", "shared_space", "dry_run"],
    **{title: [n for n in names if n not in SINGLE] for title, names in train_flags.GROUPS.items()},
}


def request_of_flags() -> tuple[plan.Request, SimpleNamespace]:
    """What the flags ask for, and the settings of a run that loads its data."""
    typed = {a.lstrip("-").split("=")[0] for a in sys.argv[1:] if a.startswith("-")}
    for name in sorted(typed & set(SINGLE) - {"bits"}):
        raise ValueError(f"--{name} is of a single run: give --methods, --seeds or --out instead")
    bits = _numbers("bits", _BITS.value) if "bits" in typed else ()
    for length in bits:
        check_bits(length)
    known = {n: flags.FLAGS[n] for names in train_flags.GROUPS.values() for n in names}
    given = {n: f.value for n, f in known.items() if f.present and n not in SINGLE}
    defaults = {n: f.default for n, f in known.items() if n not in SINGLE}
    flags.FLAGS["bits"].value = 64  # the list of this program is no setting of a run
    settings = train_flags.settings()  # refuses what no run could work with
    for values in (given, defaults):
        if "fusion_weights" in values:
            values["fusion_weights"] = [float(weight) for weight in values["fusion_weights"]]
    if settings["dataset"] == "scenes":
        raise ValueError(
            "scenes are drawn anew for each seed: draw them once with scripts/make_scenes.py and "
            "give --dataset=pairs --data_dir=FOLDER"
        )
    counts = {n: defaults[n] for names in reference.GROUPS.values() for n in names if n in defaults}
    counts["shared_space"] = _SHARED_SPACE.value
    seeds = _numbers("seeds", _SEEDS.value)
    if min(seeds, default=0) < 0:
        raise ValueError(f"--seeds has {min(seeds)}, expected whole numbers from 0")
    names = None if _METHODS.value is None else tuple(dict.fromkeys(_METHODS.value))
    request = plan.Request(
        settings["dataset"], defaults, given, bits, seeds, names, references=counts
    )
    return request, SimpleNamespace(**settings)


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends the running cell as well
    request, settings = request_of_flags()
    names = _EXPERIMENT.value or [""]
    for name in names:
        plan.plan(name, request)  # a wrong name costs no reading of the data
    dataset = common.load_dataset(settings)
    request = request.on(dataset, settings.backbone_weights)
    plans = {name: plan.plan(name, request) for name in names}
    entries = sum(plans.values(), [])
    for line in plan.remarks(plans, request):
        print(f"note: {line}")
    out = Path(_OUT.value or f"runs/reproduce/{request.dataset}")
    if _DRY_RUN.value:
        print(plan.plan_table(plans, out))
        return
    out.mkdir(parents=True, exist_ok=True)
    busy = f"{out} is in use by another process: wait for it, or give another --out"
    with Lock(out / ".lock", busy):
        print(plan.plan_table(plans, out), flush=True)
        failed = sweep.run_cells(plan.unique_cells(entries), out, Path(__file__).parent)
        given = " ".join(f"--{n}={v}" for n, v in request.given.items())
        about = {"Data": "; ".join(dataset.notes), "Flags given": given or "none"}
        pages = [report.write_report(n, request, plan, out, about) for n, plan in plans.items()]
    if failed:
        print(f"failed: {', '.join(failed)}; the reports say why, the same command tries again")
    print(f"reports: {', '.join(map(str, pages))}   (tensorboard --logdir {out}/tensorboard)")
    sys.exit(1 if failed else 0)


def _numbers(name: str, texts: list) -> tuple:
    """Whole numbers of a list flag, without repetitions."""
    try:
        return tuple(dict.fromkeys(int(text) for text in texts))
    except ValueError:
        raise ValueError(f"--{name} is {','.join(texts)}, expected whole numbers") from None


if __name__ == "__main__":
    program.run(main, GROUPS)
