"""iSQRT-COV here and in PyTorch: forward and backward, one process, the same threads and weights.

    python benchmarks/covariance_pooling_speed.py --threads=2

Batch 32, 13x13x256 -> 1x1 convolution to 128, batch normalisation in training mode, ReLU,
covariance, 5 Newton-Schulz steps, upper triangle (8,256 numbers); gradients of the input and of
all weights. Runs of the two alternate, each after an unmeasured one; medians are compared. Both
must first agree on output and gradient. PyTorch runs eagerly, as its users do, in its default
layout and in channels_last; the ratio is to the faster one. Without PyTorch only our time is shown.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

# PyTorch's threads otherwise spin while they wait, which ruins its times on a busy machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

BATCH, SIZE, CHANNELS, REDUCED, ITERATIONS, EPSILON = 32, 13, 256, 128, 5, 1e-5


def tensorflow_step(pixels, cotangent, threads):
    """The step as a compiled function, and the reduction's kernel that it uses."""
    import dsprh_tf  # noqa: F401  (silences TensorFlow's log)
    import tensorflow as tf  # isort: skip

    from dsprh_tf.layers import CovariancePooling

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    layer = CovariancePooling(REDUCED, iterations=ITERATIONS, epsilon=EPSILON)
    x, upstream = tf.constant(pixels), tf.constant(cotangent)
    layer(x)

    @tf.function
    def step(x, upstream):
        with tf.GradientTape() as tape:
            tape.watch(x)
            pooled = layer(x, training=True)
        gradients = tape.gradient(pooled, [x, *layer.trainable_weights], output_gradients=upstream)
        return pooled, gradients

    def run():
        pooled, gradients = step(x, upstream)
        return pooled.numpy(), gradients[0].numpy()

    kernel = next(w for w in layer.trainable_weights if len(w.shape) == 4)
    return run, kernel.numpy(), tf.__version__


def pytorch_step(torch, pixels, cotangent, kernel, channels_last):
    """The same step in PyTorch."""
    functional = torch.nn.functional
    layout = torch.channels_last if channels_last else torch.contiguous_format
    x = torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()).contiguous(memory_format=layout)
    weight = torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy())
    gamma, beta = torch.ones(REDUCED), torch.zeros(REDUCED)
    leaves = [x, weight, gamma, beta]
    for leaf in leaves:
        leaf.requires_grad_(True)
    mean, variance = torch.zeros(REDUCED), torch.ones(REDUCED)
    upstream, identity = torch.from_numpy(cotangent), torch.eye(REDUCED)
    rows, columns = torch.triu_indices(REDUCED, REDUCED).unbind()
    flat = rows * REDUCED + columns

    def run():
        y = functional.conv2d(x, weight)
        y = functional.batch_norm(y, mean, variance, gamma, beta, True, 0.1, 1e-5).relu()
        y = y.flatten(2)  # [batch, channels, positions]
        y = y - y.mean(2, keepdim=True)
        covariance = y @ y.transpose(1, 2) / y.shape[2] + EPSILON * identity
        trace = covariance.diagonal(dim1=1, dim2=2).sum(1)[:, None, None]
        a = covariance / trace
        t = 0.5 * (3 * identity - a)
        root, inverse = a @ t, t
        for _ in range(ITERATIONS - 2):
            t = 0.5 * (3 * identity - inverse @ root)
            root, inverse = root @ t, t @ inverse
        root = 0.5 * root @ (3 * identity - inverse @ root) * trace.sqrt()
        pooled = root.flatten(1).index_select(1, flat)
        gradients = torch.autograd.grad(pooled, leaves, upstream)
        return pooled.detach().numpy(), gradients[0].numpy().transpose(0, 2, 3, 1)

    return run


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--runs", type=int, default=20)
    options = parser.parse_args()
    generator = np.random.default_rng(0)
    pixels = np.maximum(generator.standard_normal((BATCH, SIZE, SIZE, CHANNELS)), 0)
    pixels = pixels.astype(np.float32)
    cotangent = generator.standard_normal((BATCH, REDUCED * (REDUCED + 1) // 2)).astype(np.float32)

    run, kernel, version = tensorflow_step(pixels, cotangent, options.threads)
    steps = {f"dsprh_tf, TensorFlow {version}": run}
    try:
        import torch
    except ImportError:
        print("PyTorch is not installed: no comparison (pip install torch==2.13.0)")
    else:
        torch.set_num_threads(options.threads)
        for layout in ("default layout", "channels_last"):
            steps[f"PyTorch {torch.__version__}, {layout}"] = pytorch_step(
                torch, pixels, cotangent, kernel, layout == "channels_last"
            )

    reference = None
    for name, run in steps.items():
        results = run()
        reference = reference or results
        for ours, theirs in zip(reference, results):
            error = np.abs(ours - theirs).max() / np.abs(ours).max()
            if error > 1e-3:
                raise SystemExit(f"{name} computes something else: relative error {error:.1e}")

    seconds = {name: [] for name in steps}
    for _ in range(options.runs):
        for name, run in steps.items():
            run()
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    load = os.getloadavg()[0]
    print(f"{options.threads} threads, median of {options.runs} runs, load {load:.1f}")
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    for name, median in medians.items():
        print(f"{name:40} {1000 * median:7.1f} ms   (fastest {1000 * min(seconds[name]):.1f})")
    ours, *others = medians.values()
    if others:
        fastest, *other_fastest = (min(times) for times in seconds.values())
        print(
            f"ratio to the faster PyTorch: {ours / min(others):.2f} by medians, "
            f"{fastest / min(other_fastest):.2f} by fastest runs"
        )


if __name__ == "__main__":
    main()
