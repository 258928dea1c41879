"""Brings finished reports of scripts/reproduce.py into RESULTS.md.

    python benchmarks/results_page.py table2=runs/reproduce/coco/table2 ...

Copies summary.csv of each report to benchmarks/results/NAME.csv and the plots that RESULTS.md shows
to docs/, and writes the tables between the lines `<!-- NAME -->` and `<!-- end NAME -->` of
RESULTS.md anew from all CSVs that it names.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import pandas as pd  # noqa: E402

from dsprh_tf.experiments import report  # noqa: E402
from dsprh_tf.experiments.published import published  # noqa: E402

RESULTS = ROOT / "benchmarks/results"
_BLOCK = re.compile(r"<!-- (?!end )(\w+) -->\n.*?<!-- end \1 -->", re.DOTALL)


def read(path: Path) -> pd.DataFrame:
    """A summary; its direction is "" where a number is of both."""
    return pd.read_csv(path).fillna({"direction": ""})


def tables(name: str) -> str:
    """The tables of benchmarks/results/NAME.csv in Markdown."""
    summary = read(RESULTS / f"{name}.csv")
    nothing = published(name, "coco")
    made = report.make_tables(summary, nothing, "MobileNetV2")
    return "\n\n".join(table.markdown() for table in made)


def filled(page: str) -> str:
    """RESULTS.md with the tables of all blocks."""

    def block(match):
        name = match[1]
        return f"<!-- {name} -->\n\n{tables(name)}\n\n<!-- end {name} -->"

    return _BLOCK.sub(block, page)


def main() -> None:
    path = ROOT / "RESULTS.md"
    page = path.read_text("utf-8")
    for argument in sys.argv[1:]:
        if "=" not in argument:
            sys.exit(f"got {argument!r}, expected NAME=FOLDER of a report")
        name, _, folder = argument.partition("=")
        summary = read(Path(folder) / "summary.csv")
        summary.to_csv(RESULTS / f"{name}.csv", index=False, float_format="%.5f")
        for plot in Path(folder).glob("*.png"):
            shown = f"docs/{name}-{plot.name}"
            if f"({shown})" in page:
                (ROOT / shown).write_bytes(plot.read_bytes())
    path.write_text(filled(page), "utf-8")
    print(f"results: {path}, {RESULTS}")


if __name__ == "__main__":
    main()
