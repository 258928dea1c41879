"""Converts PyTorch weights to `.safetensors` or `.npz`; needs no PyTorch and runs no pickled code.

    dsprh convert_weights --input=alexnet-owt-7be5be79.pth \
        --output=weights/alexnet.safetensors

The result serves as `--backbone_weights` of `dsprh train`.
"""

from __future__ import annotations

import os

from absl import flags

from dsprh_tf.backbones import torch_files
from dsprh_tf.cli.program import Program
from dsprh_tf.data.files import file_sha256

FLAGS = flags.FlagValues()
_INPUT = flags.DEFINE_string(
    "input", None, "State_dict to read: .pth, .pt, .safetensors or .npz.", flag_values=FLAGS
)
_OUTPUT = flags.DEFINE_string(
    "output", None, "File to write: .safetensors or .npz.", flag_values=FLAGS
)


def main() -> None:
    """Converts the file, and lists the arrays in it."""
    source, target = _INPUT.value, _OUTPUT.value
    if not source or not target:
        raise ValueError("needs both --input=FILE and --output=FILE")
    if os.path.realpath(source) == os.path.realpath(target):
        raise ValueError(f"--input and --output are the same file, {source}; name another --output")
    arrays = torch_files.read_weights(source)
    torch_files.write_weights(target, arrays)
    width = max((len(name) for name in arrays), default=0)
    for name, array in arrays.items():
        print(f"{name:{width}}  {array.dtype!s:8}  {'x'.join(map(str, array.shape)) or 'scalar'}")
    parameters = sum(array.size for array in arrays.values())
    print(f"{len(arrays)} arrays, {parameters:,} parameters")
    print(f"sha256 {file_sha256(source)}  {source}")
    print(f"sha256 {file_sha256(target)}  {target}")


PROGRAM = Program(__doc__, main, FLAGS)
