"""Weights of backbones: random from a seed, from torchvision's files, from Keras' files.

Loading torchvision's weights turns convolutions OIHW -> HWIO and fc6's columns CHW -> HWC.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import keras
import numpy as np

from dsprh_tf.backbones import h5_probe, torch_files
from dsprh_tf.data.files import require_regular

# torchvision's classifier: the code networks replace it.
TORCH_TOPS = {"alexnet": "classifier.6.", "resnet34": "fc."}
TORCH_FILES = {"alexnet": "alexnet-owt-7be5be79.pth", "resnet34": "resnet34-b627a593.pth"}
"""torchvision's ImageNet weights, in https://download.pytorch.org/models/."""
_TORCH_VARIABLES = {
    keras.layers.Conv2D: ("weight", "bias"),
    keras.layers.Dense: ("weight", "bias"),
    keras.layers.BatchNormalization: ("weight", "bias", "running_mean", "running_var"),
}
_LISTED = 5


def initialise(model, seed: int) -> None:
    """He-normal kernels from one seed, the same on both stacks; biases and norms stay."""
    generator = np.random.default_rng(seed)
    for variable in model.trainable_weights:
        shape = tuple(variable.shape)
        if len(shape) < 2:
            continue
        # Depthwise kernels are [height, width, channels, 1]: each output sees one channel.
        fan_in = np.prod(shape[:2] if len(shape) == 4 and shape[3] == 1 else shape[:-1])
        values = generator.standard_normal(shape, np.float32)
        values *= np.sqrt(2.0 / fan_in, dtype=np.float32)
        variable.assign(values)


def _listing(title: str, items: list[str]) -> str:
    more = f" ... and {len(items) - _LISTED} more" if len(items) > _LISTED else ""
    return f"{title} {', '.join(items[:_LISTED])}{more}" if items else ""


def _differences(expected: dict, found: dict) -> str:
    """One line: the arrays that a weight file lacks, has beyond those, or has in another shape."""

    def named(names, shapes):
        return [f"{name} {tuple(shapes[name])}" for name in names]

    other = [
        f"{name} {tuple(found[name])} instead of {tuple(expected[name])}"
        for name in expected
        if name in found and tuple(found[name]) != tuple(expected[name])
    ]
    parts = (
        _listing("missing:", named([n for n in expected if n not in found], expected)),
        _listing("unexpected:", named([n for n in found if n not in expected], found)),
        _listing("other shape:", other),
    )
    return "; ".join(part for part in parts if part)


def _torch_shape(variable_shape) -> tuple:
    """The shape torchvision gives a variable of ours: kernels put the outputs first."""
    shape = tuple(variable_shape)
    return (shape[3], shape[2], *shape[:2]) if len(shape) == 4 else shape[::-1]


def _from_torch(array: np.ndarray, name: str) -> np.ndarray:
    """A torchvision array in our layout."""
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0)  # OIHW -> HWIO
    if name == "classifier.1.weight":  # fc6 reads a flattened 256x6x6 map: CHW -> HWC
        return array.reshape(-1, 256, 6, 6).transpose(2, 3, 1, 0).reshape(-1, array.shape[0])
    return array.T  # [out, in] -> [in, out]; vectors stay


def load_torch(model, name: str, path: Path) -> None:
    """Puts torchvision's state_dict into AlexNet or ResNet-34."""
    arrays = torch_files.read_weights(path)
    top = TORCH_TOPS[name]
    ignored = [k for k in arrays if k.startswith(top) or k.endswith(".num_batches_tracked")]
    found = {k: v for k, v in arrays.items() if k not in ignored}
    variables = {}
    for layer in model.layers:
        names = _TORCH_VARIABLES.get(type(layer), ())
        # Ours are kernel, bias or gamma, beta, moving mean, moving variance: the same order.
        for suffix, variable in zip(names, layer.weights):
            variables[f"{layer.name.replace('_', '.')}.{suffix}"] = variable
    differences = _differences(
        {k: _torch_shape(v.shape) for k, v in variables.items()},
        {k: v.shape for k, v in found.items()},
    )
    if differences:
        raise ValueError(f"{path}: not the weights of {name}: {differences}")
    for key, variable in variables.items():
        if not np.all(np.isfinite(found[key])):
            raise ValueError(f"{path}: {key} holds NaN or infinite values; fetch the file again")
        variable.assign(_from_torch(found[key].astype(np.float32, copy=False), key))
    if ignored:
        logging.getLogger(__name__).info(
            "%s: %d arrays not needed (classifier, batch counters): %s",
            path, len(ignored), _listing("", ignored).strip(),
        )  # fmt: skip


def _probed(path: Path) -> tuple[dict, bool]:
    """Names and shapes in a Keras weight file, and whether it is of the older `.h5` layout.

    Another process reads all of the file first, since the HDF5 library may crash on a damaged one.

    Raises:
        ValueError: it cannot be read.
    """
    # By the full path: a name may begin with "-".
    program = [sys.executable, "-I", h5_probe.__file__, os.path.abspath(path)]
    ended = subprocess.run(program, stdin=subprocess.DEVNULL, capture_output=True)
    if ended.returncode:
        raise ValueError("the HDF5 library crashes on it, or does not come to an end")
    found = json.loads(ended.stdout)
    if "problem" in found:
        raise ValueError(found["problem"])
    return found["shapes"], found["older"]


def _older_name(layer: str, variable: str) -> str:
    return f"{layer}/{variable.split('/')[-1].split(':')[0]}"


def _keras_differences(model, found: dict, older: bool) -> str:
    if older:
        expected = {
            _older_name(layer.name, v.name): v.shape for layer in model.layers
            for v in layer.weights
        }  # fmt: skip
    else:
        with tempfile.TemporaryDirectory() as folder:
            ours = Path(folder) / "expected.weights.h5"
            model.save_weights(str(ours))
            expected, _ = _probed(ours)
    return _differences(expected, found)


def load_keras(model, name: str, path: Path) -> None:
    """Loads a Keras weight file; on failure says how it differs from the model.

    Of a `.keras` file only the weights are read, so that no code in it runs.

    Raises:
        ValueError: the file is missing, damaged, of another model, or asks for other files.
    """
    require_regular(path)
    try:
        found, older = _probed(path)
    except ValueError as error:
        reason = str(error)[:200]
        raise ValueError(f"{path}: damaged, or not a Keras weight file: {reason}") from error
    try:
        model.load_weights(str(path))
    except Exception as error:  # Keras raises many kinds, some from h5py and zipfile
        reason = " ".join(str(error).split())[:200]
        differences = _keras_differences(model, found, older) or reason
        raise ValueError(
            f"{path}: not the weights of {name} (without its top): {differences}"
        ) from error
    for variable in model.weights:
        if not np.all(np.isfinite(np.asarray(variable))):
            raise ValueError(
                f"{path}: {variable.name} holds NaN or infinite values; fetch the file again"
            )


def weights_fingerprint(model: keras.Model) -> str:
    """The sha256 of a model's weights: their shapes and bytes in order, whatever their names.

    Keys caches of what a frozen backbone computed. Counters (integers) are no weights and are
    left out, so that training calls of a dropout alone change nothing.
    """
    digest = hashlib.sha256()
    for variable in model.weights:
        array = np.ascontiguousarray(variable.numpy())
        if array.dtype.kind != "i":
            digest.update(f"{array.dtype} {array.shape}".encode())
            digest.update(array.reshape(-1).view(np.uint8))
    return digest.hexdigest()
