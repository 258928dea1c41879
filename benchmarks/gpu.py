"""Training steps and encoding by precision and XLA, beside PyTorch where it is installed.

    python benchmarks/gpu.py
    python benchmarks/gpu.py --cases=mir-dsah,torch-dsah --precision=float32 --jit=off --steps=10

mir-dsprh, mir-dsah: fine-tuning AlexNet with the settings of mir.flags. coco-dsprh_plus: heads on
cached features of MobileNetV2, as in coco.flags. encode: pixels to codes with mir.flags' network.
torch-dsah: the networks, loss and optimizer of mir-dsah in PyTorch, with its second pass for the
similarity target. Batches are drawn and stay on the device, so reading images is not measured.
Each row is measured in a process of its own, which takes the first GPU, or else the CPU: a line
says so. Milliseconds are the median of --rounds rounds of --steps steps.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

CASES = ("mir-dsprh", "mir-dsah", "coco-dsprh_plus", "encode", "torch-dsah")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
DATA = {  # what effective settings need to know, and the number of words
    "mir": ({"dataset": "mirflickr25k", "backbone": "alexnet", "dropout": 0.5}, 1386),
    "coco": ({"dataset": "coco", "backbone": "MobileNetV2", "freeze_backbone": True}, 910),
}


def rounds_of(run, args) -> list[float]:
    """Seconds per step of each round; `run(n)` computes n steps and waits for them."""
    run(2)  # traces and compiles
    seconds = []
    for _ in range(args.rounds):
        start = time.perf_counter()
        run(args.steps)
        seconds.append((time.perf_counter() - start) / args.steps)
    return seconds


def tensorflow_case(args) -> dict:
    """Measures a case with this package."""
    import dsprh_tf  # noqa: F401 - before TensorFlow

    # isort: split
    import numpy as np
    import tensorflow as tf

    from dsprh_tf.backbones.architectures import build_backbone
    from dsprh_tf.model import CrossModalHashing
    from dsprh_tf.run_data import precision
    from dsprh_tf.settings import effective_settings
    from dsprh_tf.training.optimizers import make_optimizer

    data, _, method = args.case.partition("-")
    encode = data == "encode"
    given, words = DATA["mir" if encode else data]
    effective = effective_settings({**given, "method": method or "dsprh"})
    s, rng = effective.values, np.random.default_rng(0)
    with precision(args.precision):
        trunk = build_backbone(s["backbone"], "none", 224, s["dropout"], 0, False)
        trunk.trainable = not s["freeze_backbone"]
        shapes = {name: tuple(map(int, x.shape[1:])) for name, x in trunk.output.items()}
        sizes = {**shapes, "bow": words, "feature": shapes["feature"][0]}
        hashing = effective.method(s["bits"], 0, **effective.own())
        model = CrossModalHashing(hashing, sizes, trunk, 224)
    size = args.batch or (64 if encode else s["batch_size"])
    bow = (rng.random((500, words)) < 0.01).astype(np.float32)
    features = rng.random((500, sizes["feature"]), np.float32)
    batch = {"bow": bow[:size], "target_feature": features[:size]}
    rows = hashing.prepare(features, bow, None)
    if s["freeze_backbone"]:
        cached = {name: rng.random((size, *shape), np.float32) for name, shape in shapes.items()}
        batch = {**batch, **cached}
    else:
        batch["pixels"] = 255 * rng.random((size, 224, 224, 3), np.float32)
    batch.update({name: values[:size] for name, values in rows.items()})
    batch = hashing.pairwise({name: tf.constant(values) for name, values in batch.items()})
    image, text = (
        make_optimizer(s["optimizer"], 1e-4, s["momentum"], s["weight_decay"]) for _ in range(2)
    )
    model.compile(image, text, s["weight_decay"] if s["optimizer"] == "sgd" else 0.0)
    step = model.encode_image if encode else model.train_step
    if args.jit == "on":
        step = tf.function(step, jit_compile=True)

    @tf.function
    def steps(count):
        result = tf.zeros([])
        for _ in tf.range(count):
            found = step(batch)
            result += tf.reduce_sum(found) if encode else found["loss"]
        return result

    seconds = rounds_of(lambda count: steps(tf.constant(count)).numpy(), args)
    gpu = bool(tf.config.list_physical_devices("GPU"))
    peak = tf.config.experimental.get_memory_info("GPU:0")["peak"] / 2**30 if gpu else None
    return {"seconds": seconds, "batch": size, "gpu": gpu, "peak": peak}


def torch_case(args) -> dict:
    """Measures DSAH with AlexNet in PyTorch."""
    import torch
    from torch import nn
    from torch.nn import functional

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)

    def conv(inputs, outputs, size, stride=1, padding=0):
        return nn.Conv2d(inputs, outputs, size, stride, padding), nn.ReLU()

    trunk = nn.Sequential(
        *conv(3, 64, 11, 4, 2), nn.MaxPool2d(3, 2), *conv(64, 192, 5, 1, 2), nn.MaxPool2d(3, 2),
        *conv(192, 384, 3, 1, 1), *conv(384, 256, 3, 1, 1), *conv(256, 256, 3, 1, 1),
        nn.MaxPool2d(3, 2), nn.Flatten(), nn.Dropout(), nn.Linear(9216, 4096), nn.ReLU(),
        nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(),
    )  # fmt: skip
    bits, words = 64, DATA["mir"][1]
    head, image_decoder = nn.Linear(4096, bits), nn.Linear(bits, words)
    text = nn.Sequential(nn.Linear(words, 4096), nn.ReLU(), nn.Linear(4096, bits))
    text_decoder = nn.Linear(bits, 4096)
    parts = nn.ModuleList([trunk, head, image_decoder, text, text_decoder]).to(device)
    optimizer = torch.optim.SGD(
        parts.parameters(), 1e-4, momentum=0.7, nesterov=True, weight_decay=5e-4
    )
    size = args.batch or 32
    pixels = torch.rand(size, 3, 224, 224, device=device)
    bow = (torch.rand(size, words, device=device) < 0.01).float()
    kind = {"mixed_bfloat16": torch.bfloat16, "mixed_float16": torch.float16}.get(args.precision)

    def unit(x):
        return functional.normalize(x, dim=1)

    def step():
        with torch.autocast(device, kind or torch.bfloat16, enabled=kind is not None):
            with torch.no_grad():
                target = trunk.eval()(pixels)
            trunk.train()
            feature = trunk(pixels)
            image_code, text_code = torch.tanh(head(feature)), torch.tanh(text(bow))
            from_image, from_text = image_decoder(image_code), text_decoder(text_code)
        target, feature, image_code, text_code, from_image, from_text = (
            x.float() for x in (target, feature, image_code, text_code, from_image, from_text)
        )
        b_i, b_t, f_i, f_t = map(unit, (image_code, text_code, target, bow))
        s_i, s_t = 2 * f_i @ f_i.T - 1, 2 * f_t @ f_t.T - 1
        joint = 0.9 * s_i + 0.1 * s_t
        ii, tt, it = b_i @ b_i.T, b_t @ b_t.T, b_i @ b_t.T
        mse = functional.mse_loss
        loss = mse(from_image, f_t) + mse(from_text, unit(feature).detach())
        loss += (1.5 - it.diagonal()).square().mean() + 2 * mse(it, it.T)
        loss += 0.1 * (mse(ii, 1.5 * s_i) + mse(tt, 1.5 * s_t))
        loss += sum(mse(x, 1.5 * joint) for x in (ii, tt, it))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    compiled = torch.compile(step) if args.jit == "on" else step

    def run(count):
        for _ in range(count):
            loss = compiled()
        loss.item()

    seconds = rounds_of(run, args)
    gpu = device == "cuda"
    peak = torch.cuda.max_memory_allocated() / 2**30 if gpu else None
    return {"seconds": seconds, "batch": size, "gpu": gpu, "peak": peak}


def parse(arguments=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", default=",".join(CASES), help="with commas between")
    parser.add_argument("--precision", default=",".join(PRECISIONS), help="with commas between")
    parser.add_argument("--jit", default="off,on", help="off, on")
    parser.add_argument("--batch", type=int, help="pairs per step; default the recipe's")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)  # in this process
    return parser.parse_args(arguments)


def main() -> None:
    args = parse()
    if args.case:
        case = torch_case if args.case.startswith("torch") else tensorflow_case
        print(json.dumps(case(args)))
        return
    print(f"{'':<17}{'':<16}{'XLA':<5}{'batch':>6}{'ms':>9}{'images/s':>10}{'GiB':>7}{'':>7}")
    first: dict = {}
    for case in args.cases.split(","):
        for precision in args.precision.split(","):
            for jit in args.jit.split(","):
                command = [f"--case={case}", f"--precision={precision}", f"--jit={jit}"]
                command += [f"--steps={args.steps}", f"--rounds={args.rounds}"]
                command += [f"--batch={args.batch}"] if args.batch else []
                child = subprocess.run(
                    [sys.executable, __file__, *command], capture_output=True, text=True
                )
                head = f"{case:<17}{precision:<16}{jit:<5}"
                if child.returncode:
                    print(head, child.stderr.strip().splitlines()[-1][:60])
                    continue
                found = json.loads(child.stdout.splitlines()[-1])
                milliseconds = 1000 * statistics.median(found["seconds"])
                rate = 1000 * found["batch"] / milliseconds
                ratio = rate / first.setdefault(case, rate)
                memory = "CPU" if found["peak"] is None else f"{found['peak']:.1f}"
                print(
                    f"{head}{found['batch']:>6}{milliseconds:>9.1f}{rate:>10.0f}{memory:>7}"
                    f"{ratio:>6.2f}x",
                    flush=True,
                )
    print("the last column: images/s beside the first row of the same case")
    print("CPU: no GPU was found, these are times of the processor")


if __name__ == "__main__":
    main()
