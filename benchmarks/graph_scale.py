"""Time, memory and recall of the training graph at 5,000 and 180,000 pairs.

    python benchmarks/graph_scale.py

Draws pairs from a mixture of topics (1,280 image values, 1,000 words, about 10 words per text),
builds the neighbour graph of dsprh_plus as training does and compares the neighbours of a sample
of pairs with those found by comparing all. One process per size, so that each peak is its own.
Stops with exit code 1 where the memory passes --limit_gib.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from dsprh_tf import neighbour_graph  # noqa: E402
from dsprh_tf.similarity import unit_rows  # noqa: E402

TOPICS, IMAGE, WORDS = 500, 1280, 1000


def draw(pairs: int, seed: int):
    """Image features float16 [n, 1280] and bags of words uint8 [n, 1000] of two topics each."""
    rng = np.random.default_rng(seed)
    centres = rng.gamma(0.5, size=(TOPICS, IMAGE)).astype(np.float32)
    spoken = rng.dirichlet(np.full(WORDS, 0.02), TOPICS)
    image, text = np.empty((pairs, IMAGE), np.float16), np.zeros((pairs, WORDS), np.uint8)
    for start in range(0, pairs, 10_000):
        rows = slice(start, min(start + 10_000, pairs))
        topics = rng.integers(0, TOPICS, (rows.stop - rows.start, 2))
        noise = rng.gamma(0.5, size=(len(topics), IMAGE))
        image[rows] = centres[topics].mean(axis=1) + 0.7 * noise
        chance = 1 - (1 - spoken[topics].mean(axis=1)) ** 10
        text[rows] = rng.random(chance.shape) < chance
    return image, text


def recall(built: neighbour_graph.NeighbourGraph, image, text, neighbours: int, seed: int) -> float:
    """Share of the true nearest that the graph holds, over 200 pairs."""
    rows = np.sort(np.random.default_rng(seed).permutation(len(image))[:200])
    # The balance of the two similarities as the graph has it.
    weights = np.sqrt([built.image_weight, 1 - built.image_weight]).astype(np.float32)

    def joint(part):
        words = unit_rows(text[part] * built.word_weights)
        return np.concatenate([unit_rows(image[part]) * weights[0], words * weights[1]], axis=1)

    query, found = joint(rows), []
    blocks = [slice(i, i + 20_000) for i in range(0, len(image), 20_000)]
    similar = np.concatenate([query @ joint(block).T for block in blocks], axis=1)
    nearest = np.argpartition(-similar, neighbours, axis=1)[:, :neighbours]
    for row, best in zip(rows, nearest):
        held = np.append(built.neighbours[row][built.weights[row] > 0], row)
        found.append(np.isin(best, held).mean())
    return float(np.mean(found))


def measure(pairs: int, neighbours: int, seed: int) -> None:
    image, text = draw(pairs, seed)
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, time.monotonic()
    built = neighbour_graph.build_graph(image, text, neighbours=neighbours, seed=seed)
    seconds, peak = time.monotonic() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"{pairs},{neighbours},{'exact' if built.exact else 'approximate'},{seconds:.1f},"
        f"{before:.2f},{peak / 2**20:.2f},{recall(built, image, text, neighbours, seed):.3f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, nargs="+", default=[5_000, 180_000])
    parser.add_argument("--neighbours", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit_gib", type=float, default=4.0)
    parser.add_argument("--out", default=str(ROOT / "benchmarks/results/graph_scale.csv"))
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        measure(arguments.one, arguments.neighbours, arguments.seed)
        return
    header = "pairs,neighbours,search,seconds,GiB before,GiB at most,recall"
    lines = [header]
    for pairs in arguments.pairs:
        command = [sys.executable, __file__, f"--one={pairs}", f"--seed={arguments.seed}"]
        command += [f"--neighbours={arguments.neighbours}"]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        lines.append(done.stdout.strip())
        print(" | ".join(f"{n} {v}" for n, v in zip(header.split(","), lines[-1].split(","))))
    Path(arguments.out).write_text("\n".join(lines) + "\n")
    print(f"one row per size: {arguments.out}")
    sys.exit(any(float(line.split(",")[5]) > arguments.limit_gib for line in lines[1:]))


if __name__ == "__main__":
    main()
