"""Runs the fuzzer over the readers.

    python tests/fuzz/run.py --seconds=120 --seed=0
    python tests/fuzz/run.py --inputs=500 --target=index --target=codes
    python tests/fuzz/run.py --replay=runs/fuzz/index-1a2b3c4d.zip

Prints a table; the exit code is 1 where an input was a fault: another error than a `ValueError`
that names the file, a crash, a hang, more than 2 GiB, output of a library, a program or a pickle
that was run, a file lost, or something accepted that makes no sense. Such inputs are saved, small,
under --out; move one to tests/fuzz/corpus once it is mended, and the tests replay it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from fuzz import engine  # noqa: E402
from fuzz.targets import TARGETS  # noqa: E402


def main() -> int:
    """Runs a campaign, or replays saved inputs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--inputs", type=float, default=float("inf"), help="of each target")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", action="append", choices=sorted(TARGETS))
    parser.add_argument("--out", type=Path, default=engine.ROOT / "runs" / "fuzz")
    parser.add_argument("--replay", type=Path, nargs="*", default=[])
    options = parser.parse_args()
    if options.seconds == options.inputs and not options.replay:
        options.seconds = 120
    with engine.Campaign(options.seed, options.target or list(TARGETS), options.out) as campaign:
        if options.replay:
            verdicts = [campaign.worker.judge(*engine.load(path)) for path in options.replay]
            for path, verdict in zip(options.replay, verdicts):
                print(f"{path.name}: {verdict['verdict']} {verdict['kind']} {verdict['said']}")
            return int(any(verdict["verdict"] == "fault" for verdict in verdicts))
        campaign.run(options.seconds, options.inputs)
        print(engine.table(campaign.counts))
        return int(any(count.faults for count in campaign.counts.values()))


if __name__ == "__main__":
    sys.exit(main())
