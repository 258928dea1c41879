"""Memory and time of the cosine triplet loss L_2 and its gradient at several batch sizes.

    python benchmarks/triplet_memory.py --batch=32,256,512,700

Each size runs in a process of its own. `one block` compares all triplets of the batch at once, as
automatic differentiation over the whole tensor does; `blocks` is what training uses.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))


def measure(size: int, bits: int, blocks: bool) -> None:
    """Prints the memory that one step adds to the process, in MiB, and its time, in ms."""
    import numpy as np

    import dsprh_tf  # noqa: F401 - quietens TensorFlow before its import

    # isort: split
    import tensorflow as tf

    from dsprh_tf import losses
    from dsprh_tf.training.estimate import peak_memory

    if not blocks:
        losses._BLOCK_TRIPLETS = size**3
    codes = np.random.default_rng(0).standard_normal((2, size, bits), np.float32)

    @tf.function
    def step(image, text):
        with tf.GradientTape() as tape:
            tape.watch([image, text])
            loss = losses.cosine_triplet_loss(image, text, tf.eye(size) > 0, 0.3)
        return tape.gradient(loss, [image, text])

    image, text = map(tf.constant, codes)
    tf.matmul(image, text, transpose_b=True).numpy()  # TensorFlow's own memory comes first
    before = peak_memory()
    step(image, text)
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        for gradient in step(image, text):
            gradient.numpy()
        seconds.append(time.perf_counter() - start)
    print(f"{(peak_memory() - before) / 2**20:.0f} {min(seconds) * 1000:.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", default="32,256,512,700", help="sizes, with commas between")
    parser.add_argument("--bits", type=int, default=64)
    parser.add_argument("--one", choices=("one block", "blocks"), help="measure one size here")
    args = parser.parse_args()
    sizes = [int(size) for size in args.batch.split(",")]
    if args.one:
        measure(sizes[0], args.bits, args.one == "blocks")
        return
    print(f"{'batch':>6}{'':>4}{'memory, MiB':>14}{'ms':>9}")
    for size in sizes:
        for kind in ("one block", "blocks"):
            command = (f"--batch={size}", f"--bits={args.bits}", f"--one={kind}")
            found = subprocess.run(
                [sys.executable, __file__, *command], capture_output=True, text=True, check=True
            )
            memory, milliseconds = found.stdout.split()
            print(f"{size:>6}  {kind:<10}{memory:>8}{milliseconds:>9}")


if __name__ == "__main__":
    main()
