"""Runs whole experiments: first their trials, then their reports."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from dsprh_tf.data.dataset import PairDataset
from dsprh_tf.data.files import Lock
from dsprh_tf.experiments.plan import Entry, Request, plan_table, unique_trials
from dsprh_tf.experiments.report import write_report
from dsprh_tf.experiments.sweep import run_trials
from dsprh_tf.settings import as_text


def reproduce(
    plans: Mapping[str, Sequence[Entry]],
    request: Request,
    dataset: PairDataset,
    out: str | os.PathLike,
) -> tuple[list[Path], dict[str, str]]:
    """Runs the trials of experiments that are not finished, and writes the reports.

    Prints the plan and shows a bar. Called again, it goes on where it stopped and tries failed
    trials again.

    Args:
        plans: of `plan.make_plans`.
        request: the request that they were made for.
        dataset: the data; the reports show its notes.
        out: the output folder.

    Returns:
        The pages of the reports, and name -> reason of the trials that failed.

    Raises:
        ValueError: another process works on the folder, or it holds results of another version.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    busy = f"{out} is in use by another process: wait for it, or give another --out"
    with Lock(out / ".lock", busy):
        print(plan_table(plans, out), flush=True)
        failed = run_trials(unique_trials(e for entries in plans.values() for e in entries), out)
        given = " ".join(f"--{name}={as_text(value)}" for name, value in request.given.items())
        about = {"Data": "; ".join(dataset.notes), "Flags given": given or "none"}
        pages = [write_report(name, request, plans[name], out, about) for name in plans]
    return pages, failed
