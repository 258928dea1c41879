"""Brings finished reports of scripts/reproduce.py into RESULTS.md.

    python benchmarks/results_page.py table2=runs/reproduce/coco/table2 ...

Copies summary.csv and the plots of each report to benchmarks/results/NAME.csv and docs/, and
writes the tables between the lines `<!-- NAME -->` and `<!-- end NAME -->` of RESULTS.md anew
from all CSVs that it names.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import pandas as pd  # noqa: E402

from dsprh_tf import experiments, reports  # noqa: E402

RESULTS = ROOT / "benchmarks/results"
_BLOCK = re.compile(r"<!-- (?!end )(\w+) -->\n.*?<!-- end \1 -->", re.DOTALL)


def tables(name: str) -> str:
    """The tables of benchmarks/results/NAME.csv in Markdown."""
    summary = pd.read_csv(RESULTS / f"{name}.csv", keep_default_na=False, na_values=["NaN"])
    nothing = experiments.published(name, "coco")
    made = reports.make_tables(summary, nothing, "MobileNetV2")
    return "\n\n".join(table.markdown() for table in made)


def filled(page: str) -> str:
    """RESULTS.md with the tables of all blocks."""

    def block(match):
        name = match[1]
        return f"<!-- {name} -->\n\n{tables(name)}\n\n<!-- end {name} -->"

    return _BLOCK.sub(block, page)


def main() -> None:
    for argument in sys.argv[1:]:
        name, _, folder = argument.partition("=")
        summary = pd.read_csv(Path(folder) / "summary.csv")
        summary.to_csv(RESULTS / f"{name}.csv", index=False, float_format="%.5f", na_rep="NaN")
        for plot in Path(folder).glob("*.png"):
            (ROOT / "docs" / f"{name}-{plot.name}").write_bytes(plot.read_bytes())
    path = ROOT / "RESULTS.md"
    path.write_text(filled(path.read_text("utf-8")), "utf-8")
    print(f"results: {path}, {RESULTS}")


if __name__ == "__main__":
    main()
