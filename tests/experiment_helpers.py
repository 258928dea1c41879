"""What tests of experiments share: requests, trials that are finished or failed, pages."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

from dsprh_tf.experiments import plan, report
from dsprh_tf.experiments.plan import Request
from dsprh_tf.experiments.published import published
from dsprh_tf.experiments.results import read_trials, summarise

METHODS = ("lsh", "dsah", "dsprh")
PRINTED, CHOSEN = "DSPRH, the paper's constants", "DSPRH, settings chosen here"  # its two rows


def request(dataset="coco", given=None, **more) -> Request:
    """A request on a data set, with given settings."""
    return Request({"dataset": dataset, **(given or {})}, **more)


def finish(trial, out, shift=0.0, radius=(0, 1, 2)):
    """Results of a trial: MAP@50 .5, MAP .3, NDCG .2, text to image .1 more, all of it + shift."""
    record = {"format": 1, "method": trial.method, "bits": trial.bits, "dataset": "d",
              "seed": trial.seed, "ties": "stable", "chance": 0.1, "queries": 20,
              "database": 100}  # fmt: skip
    for number, direction in enumerate(("image_to_text", "text_to_image", "image_to_image",
                                        "text_to_text")):  # fmt: skip
        add = 0.1 * number + shift
        record[direction] = {
            "map": 0.3 + add, "map@50": 0.5 + add, "ndcg@50": 0.2 + add,
            "queries_without_relevant": 0,
            "precision_at_k": {"k": [1, 100], "precision": [0.9 + shift / 10, 0.5]},
            "precision_recall": {
                "radius": list(radius), "recall": [0.1 * (r + 1) + shift for r in radius],
                "precision": [0.8 - 0.2 * r for r in radius],
            },
        }  # fmt: skip
    folder = Path(trial.folder(out))
    folder.mkdir(parents=True, exist_ok=True)
    trial.prepare(out)
    (folder / "results.json").write_text(json.dumps(record))


def fail(trial, out, reason):
    """A trial that failed when it was last tried."""
    trial.prepare(out)
    (Path(trial.folder(out)) / "failed.json").write_text(json.dumps({"reason": reason}))


def make(name, out, dataset="coco", bits=(16, 32), skip=(), failing=(), given=None):
    """The page of a report, and the summary that it shows."""
    asked = request(dataset, given, bits=bits, seeds=(0, 1), methods=METHODS)
    entries = plan.plan(name, asked)
    for number, trial in enumerate(plan.unique_trials(entries)):
        if trial.method in failing:
            fail(trial, out, "train: no <room> | left")
        elif trial.method not in skip:
            finish(trial, out, 0.01 * number)
            (trial.folder(out) / "versions.json").write_text('{"python": "3.9", "numpy": "1.26"}')
            (trial.folder(out) / "seconds.json").write_text('{"seconds": 60}')
    page = report.write_report(name, asked, entries, out, {"Data": "8 pairs", "Flags given": "-"})
    return page, summarise(read_trials(entries, out), published(name, dataset), "alexnet")


class Page(HTMLParser):
    """Tables, plots and links of a page; fails where elements do not nest."""

    EMPTY = ("meta", "img")

    def __init__(self, text):
        super().__init__()
        self.open, self.tables, self.plots, self.outside = [], [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.outside += [v for n, v in attributes.items() if n in ("href", "src")]
        if tag == "img":
            self.plots.append(attributes["src"])
        if tag not in self.EMPTY:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append(["", attributes.get("class", "")])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.tables[-1][-1][-1][0] += data
