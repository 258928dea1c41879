"""Reports of experiments: one self-contained HTML page, the same as Markdown, and CSVs."""

from __future__ import annotations

import base64
import dataclasses
import html
import itertools
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from dsprh_tf import methods
from dsprh_tf.data.files import write_bytes
from dsprh_tf.evaluation.results import VALIDATION
from dsprh_tf.experiments import paper
from dsprh_tf.experiments.plan import Entry, Request, remarks, unique_trials
from dsprh_tf.experiments.plots import make_plots, png
from dsprh_tf.experiments.published import paper_backbone, published
from dsprh_tf.experiments.results import (
    DIRECTIONS,
    SHOWN,
    TITLES,
    mean_curves,
    read_trials,
    summarise,
)
from dsprh_tf.experiments.sweep import duration

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1d1d1f; max-width: 78rem; margin: 2rem auto;
       padding: 0 1.5rem; }
h1 { font-size: 1.6rem; margin-bottom: .2rem; } h2 { font-size: 1.15rem; margin: 2rem 0 .6rem; }
h3 { font-size: 1rem; margin: 1.4rem 0 .3rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .22rem .6rem; white-space: nowrap; text-align: right; }
th:first-child, td:first-child { text-align: left; }
thead th { font-weight: 600; border-bottom: 1px solid #c4c7cc; }
thead tr:first-child th { border-bottom: 0; text-align: center; }
td.first, th.first { border-left: 1px solid #e3e5e8; }
tbody tr:hover { background: #f3f4f6; }
tr.printed { color: #6e6e73; } td.published { color: #6e6e73; background: #f8f8fa; }
td.best { font-weight: 700; } td.failed { color: #b3261e; }
table.about td { text-align: left; white-space: normal; vertical-align: top; }
table.about td:first-child { color: #6e6e73; white-space: nowrap; }
img { max-width: 100%; } .note { color: #6e6e73; } code { font-size: .9em; }
"""


_ONE_COLUMN = (
    "mean of four", "asymmetric mean of four", "typed map@50", "typed_asymmetric map@50",
    "mean map", "mean ndcg@50", *VALIDATION,
)  # fmt: skip
"""Metrics of both directions together, or of one alone: a column for each code length."""


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of text, with grouped columns.

    Attributes:
        title: the heading above it.
        groups: (label, column labels) from left to right.
        rows: (label, cells, whether all of it is published figures).
        marks: (row, column) -> "best" or "failed".
    """

    title: str
    groups: list[tuple[str, list[str]]]
    rows: list[tuple[str, list[str], bool]]
    marks: dict[tuple[int, int], str] = dataclasses.field(default_factory=dict)

    def html(self) -> str:
        """The table in HTML, its cells with the classes of the page's style sheet."""
        top = "".join(
            f'<th class="first" colspan="{len(columns)}">{html.escape(label)}</th>'
            for label, columns in self.groups
        )
        flat = [(i == 0, column) for _, columns in self.groups for i, column in enumerate(columns)]
        below = "".join(_tag("th", c, "first" if first else "") for first, c in flat)
        lines = [f"<tr><th></th>{top}</tr>", f"<tr><th></th>{below}</tr>", "</thead>", "<tbody>"]
        for r, (label, cells, printed) in enumerate(self.rows):
            row = _tag("td", label)
            for c, (cell, (first, column)) in enumerate(zip(cells, flat)):
                published = "published" if column == "published" else ""
                row += _tag("td", cell, "first" if first else "", published, self.marks.get((r, c)))
            lines.append(f'<tr class="{"printed" if printed else "ours"}">{row}</tr>')
        table = "\n".join(["<table>", "<thead>", *lines, "</tbody>", "</table>"])
        return f'<h3>{html.escape(self.title)}</h3>\n<div class="scroll">{table}</div>'

    def markdown(self) -> str:
        """The table in Markdown; the best value of a column is bold."""
        names = [
            f"{group} {column}".strip() for group, columns in self.groups for column in columns
        ]
        lines = [["", *names], ["---", *("--:" for _ in names)]]
        for r, (label, cells, _) in enumerate(self.rows):
            bold = ["**" if self.marks.get((r, c)) == "best" else "" for c in range(len(cells))]
            lines.append([label, *(f"{b}{cell}{b}" for b, cell in zip(bold, cells))])
        text = "\n".join("| " + " | ".join(c.replace("|", "\\|") for c in s) + " |" for s in lines)
        return f"### {self.title}\n\n{text}"


def write_report(
    name: str, request: Request, entries: Sequence[Entry], out: str | os.PathLike, about: dict
) -> Path:
    """The report of an experiment: report.html, report.md, results.csv, summary.csv, plots.

    Args:
        name: the experiment.
        request: the request that its plan was made for.
        entries: its plan.
        out: the output folder; the report is written to OUT/EXPERIMENT.
        about: facts about data and settings: name -> text.

    Returns:
        Path of the HTML page.

    Raises:
        ValueError: results of another version of the project.
    """
    results = read_trials(entries, out)
    printed = published(name, request.dataset)
    backbone = request.settings(methods.PAPER)["backbone"]
    summary = summarise(results, printed, backbone)
    curves = mean_curves(entries, out)
    tables = make_tables(summary, printed, backbone)
    plots = make_plots(name, results, summary, curves)
    folder = Path(out) / name
    csvs = {"results.csv": results, "summary.csv": summary}
    if name == "figure6":
        csvs["curves.csv"] = curves
    for file, table in csvs.items():
        write_bytes(folder / file, table.to_csv(index=False).encode())
    pngs = {file: png(figure) for file, figure in plots.items()}
    for file, content in pngs.items():
        write_bytes(folder / file, content)
    about = {**about, **_about(results, entries, out)}
    notes = _notes(name, request, entries, printed, backbone)
    failed = results[results["state"] == "failed"].drop_duplicates("trial")
    failures = [f"{row.trial} ({row.row}): {row.reason}" for row in failed.itertuples()]
    title = f"{name} on {request.dataset}: {paper.EXPERIMENTS[name].title}"
    page = _page(title, notes, tables, pngs, failures, about, list(csvs))
    write_bytes(folder / "report.html", page.encode())
    text = _markdown(title, notes, tables, list(pngs), failures, about, list(csvs))
    write_bytes(folder / "report.md", text.encode())
    return folder / "report.html"


def make_tables(summary: pd.DataFrame, printed: pd.DataFrame, backbone: str) -> list[Table]:
    """The tables of a report: each metric that the summary has, and means of several.

    Of a metric with published figures there is a table per direction, in which ours, the
    published one and the difference stand side by side, and the paper's other rows stand below.

    Args:
        summary: of `summarise`.
        printed: of `published`.
        backbone: name of the backbone here.
    """
    bits = list(dict.fromkeys(summary["bits"]))
    tables = []
    for metric in SHOWN:
        part = summary[summary["metric"] == metric]
        there = printed[printed["metric"] == metric]
        if len(there):
            for direction in DIRECTIONS:
                tables.append(_beside(metric, direction, part, there, bits, backbone))
        elif len(part):
            columns = list(itertools.product(DIRECTIONS, bits))
            groups = [(DIRECTIONS[d], [f"{b} bits" for b in bits]) for d in DIRECTIONS]
            tables.append(_plain_table(TITLES[metric], groups, columns, part))
    groups = [("", [f"{b} bits" for b in bits])]
    for metric in _ONE_COLUMN:
        part = summary[summary["metric"] == metric]
        if len(part):
            tables.append(_plain_table(TITLES[metric], groups, [("", b) for b in bits], part))
    return tables


def _beside(metric, direction, part, printed, bits, backbone) -> Table:
    """Ours, published, difference; below, what only the paper has."""
    part = part[part["direction"] == direction]
    printed = printed[printed["direction"] == direction]
    groups = [(f"{b} bits", ["here", "published", "difference"]) for b in bits]
    rows, marks = [], {}
    used: set[str] = set()
    for r, (row, lines) in enumerate(part.groupby("row", sort=False)):
        cells, by_bits = [], lines.set_index("bits")
        for c, line in enumerate(by_bits.loc[b] for b in bits):
            here, failed = _value(line)
            if failed:
                marks[r, 3 * c] = "failed"
            known = math.isfinite(line["published"])
            used.update({row} if known else ())
            gap = f"{line['difference']:+.3f}" if math.isfinite(line["difference"]) else ""
            cells += [here, f"{line['published']:.3f}" if known else "", gap]
        rows.append((row, cells, False))
    marks.update(_best(part, bits, 3))
    own = paper_backbone(backbone)
    for (row, there), lines in printed.groupby(["row", "backbone"], sort=False):
        if f"{row}, {there}" in used:
            continue
        if row in used and (there in (own, "") or own not in set(printed.loc[
                printed["row"] == row, "backbone"])):  # fmt: skip
            continue
        value = lines.set_index("bits")["value"]
        cells = [c for b in bits for c in ("", f"{value[b]:.3f}" if b in value else "–", "")]
        rows.append((f"{row}, {there}" if there not in ("", "-") else row, cells, True))
    return Table(f"{TITLES[metric]}, {DIRECTIONS[direction]}", groups, rows, marks)


def _plain_table(title, groups, columns, part) -> Table:
    """Ours only."""
    rows, marks = [], {}
    for r, (row, lines) in enumerate(part.groupby("row", sort=False)):
        by_column = lines.set_index(["direction", "bits"])
        cells = [_value(by_column.loc[column]) for column in columns]
        marks.update({(r, c): "failed" for c, (_, failed) in enumerate(cells) if failed})
        rows.append((row, [text for text, _ in cells], False))
    for d, direction in enumerate(dict.fromkeys(direction for direction, _ in columns)):
        bits = [b for there, b in columns if there == direction]
        best = _best(part[part["direction"] == direction], bits, 1)
        marks.update({(r, c + d * len(bits)): mark for (r, c), mark in best.items()})
    return Table(title, groups, rows, marks)


def _best(part: pd.DataFrame, bits: list, step: int) -> dict:
    """(row, column) of the highest mean of each code length, among several rows."""
    rows = list(dict.fromkeys(part["row"]))
    marks = {}
    for c, b in enumerate(bits):
        column = part[part["bits"] == b].set_index("row")["mean"].dropna()
        if len(column) > 1:
            marks[rows.index(column.idxmax()), c * step] = "best"
    return marks


def _value(line) -> tuple[str, bool]:
    """Text of a mean with its deviation, and whether all of its trials failed."""
    if not line["done"]:
        return ("failed", True) if line["failed"] else ("–", False)
    text = f"{line['mean']:.3f}"
    if math.isfinite(line["std"]):
        text += f" ± {line['std']:.3f}"
    if line["done"] < line["seeds"]:
        text += f" ({line['done']:.0f} of {line['seeds']:.0f} seeds)"
    return text, False


def _about(results: pd.DataFrame, entries: Sequence[Entry], out) -> dict:
    """Facts about the trials: counts, chance, sizes, versions, time."""
    done = results[results["state"] == "done"]
    trials = results.drop_duplicates("trial")
    counts = trials["state"].value_counts()
    states = ", ".join(f"{counts[s]} {s}" for s in ("done", "failed", "open") if s in counts)
    about = {"Trials": states, "Seeds": ", ".join(map(str, dict.fromkeys(results["seed"])))}
    if len(done):
        low, high = done["chance"].min(), done["chance"].max()
        about["Chance"] = f"{low:.4f}" if high - low < 5e-5 else f"{low:.4f} to {high:.4f}"
        sizes = done[["queries", "database"]].drop_duplicates().astype(int)
        about["Evaluated"] = "; ".join(
            f"{queries:,} queries against {database:,} items"
            for queries, database in sizes.itertuples(index=False)
        )
    versions = []
    for trial in unique_trials(entries):
        path = trial.folder(out) / "versions.json"
        if path.exists():
            packages = json.loads(path.read_text())
            versions.append(", ".join(f"{n} {v}" for n, v in packages.items()))
    about["Versions"] = "; and ".join(dict.fromkeys(versions)) or "not known: nothing has run"
    about["Machine"] = f"{os.cpu_count()} cores"
    spent = done.drop_duplicates("trial")["seconds"]
    about["Time"] = f"{duration(spent.sum())} for the finished trials, one after the other"
    if unknown := (spent == 0).sum():
        about["Time"] += f", {unknown} of unknown time left out"
    return about


def _notes(name, request: Request, entries, printed: pd.DataFrame, backbone: str) -> list[str]:
    notes = ["Numbers are means over the seeds ± one standard deviation. The best of a column is "
             "bold. MAP@50 divides by the hits among the first 50, as the paper does. NDCG@50 is "
             "graded: an item that shares n labels with the query gains 2^n - 1."]  # fmt: skip
    notes += [paper.EXPERIMENTS[name].note] if paper.EXPERIMENTS[name].note else []
    supervised = dict.fromkeys(filter(paper.is_supervised, (e.trial.method for e in entries)))
    if supervised:
        names = ", ".join(map(paper.title, supervised))
        notes.append(f"Supervised, by the labels of the training pairs: {names}.")
    if len(printed):
        there = paper.DATASETS[request.dataset]
        own = paper_backbone(backbone)
        beside = own if own == "AlexNet" else f"{own}, or with AlexNet where there are no others"
        notes.append(
            "Columns named published, grey rows and crosses in plots are figures printed in the "
            f"DSPRH paper for {there} (those of other papers say so); all else was measured "
            f"here. The backbone here is {backbone}, published figures beside ours are with "
            f"{beside}."
        )
    else:
        notes.append("There are no published figures for this: everything was measured here.")
    return notes + remarks({name: entries}, request)


def _page(title, notes, tables, pngs, failures, about, csvs) -> str:
    escape = html.escape
    parts = [f"<h1>{escape(title)}</h1>", *(f'<p class="note">{escape(n)}</p>' for n in notes)]
    if failures:
        parts.append("<h2>Failed trials</h2><p>The same command tries them again.</p><ul>")
        parts += [f"<li><code>{escape(line)}</code></li>" for line in failures]
        parts.append("</ul>")
    for file, content in pngs.items():
        data = base64.b64encode(content).decode()
        parts.append(f'<p><img alt="{escape(file)}" src="data:image/png;base64,{data}"></p>')
    parts += [table.html() for table in tables]
    lines = "".join(f"<tr>{_tag('td', n)}{_tag('td', str(v))}</tr>" for n, v in about.items())
    parts.append(f'<h2>How it was made</h2><table class="about">{lines}</table>')
    files = ", ".join(["report.md", *csvs, *pngs])
    parts.append(f'<p class="note">Beside this page: {escape(files)}.</p>')
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style>'
    body = "\n".join(parts)
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n{body}\n</body></html>\n'


def _markdown(title, notes, tables, pngs, failures, about, csvs) -> str:
    parts = [f"# {title}", *notes]
    if failures:
        parts.append("## Failed trials\n\nThe same command tries them again.")
        parts.append("\n".join(f"- `{line}`" for line in failures))
    parts += [f"![{file}]({file})" for file in pngs]
    parts += [table.markdown() for table in tables]
    parts.append("## How it was made")
    parts.append("\n".join(f"- {name}: {text}" for name, text in about.items()))
    parts.append(f"Beside this page: {', '.join(['report.html', *csvs, *pngs])}.")
    return "\n\n".join(parts) + "\n"


def _tag(name: str, text: str, *classes) -> str:
    named = " ".join(filter(None, classes))
    attribute = f' class="{named}"' if named else ""
    return f"<{name}{attribute}>{html.escape(text)}</{name}>"
