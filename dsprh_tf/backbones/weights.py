"""Weights of backbones: random from a seed, from torchvision's files, from Keras' files.

Loading torchvision's weights turns convolutions OIHW -> HWIO and fc6's columns CHW -> HWC.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

from dsprh_tf.backbones import torch_files
from dsprh_tf.data.files import require_regular

# torchvision's classifier: the code networks replace it.
TORCH_TOPS = {"alexnet": "classifier.6.", "resnet34": "fc."}
_TORCH_VARIABLES = {
    keras.layers.Conv2D: ("weight", "bias"),
    keras.layers.Dense: ("weight", "bias"),
    keras.layers.BatchNormalization: ("weight", "bias", "running_mean", "running_var"),
}
_LISTED = 5
_PACKED = 20  # most bytes of values that one byte of a file may stand for


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


def _h5_shapes(path: Path) -> tuple[dict, bool]:
    """Names and shapes in a Keras weight file, and whether it is of the older `.h5` layout."""
    shapes = {}
    with _opened_h5(path) as file:
        root = file.get("model_weights", file)
        older = "layer_names" in root.attrs
        if older:
            for layer in root.values():
                for name in layer.attrs["weight_names"]:
                    name = name.decode() if isinstance(name, bytes) else name
                    shapes[_older_name(layer.name.split("/")[-1], name)] = layer[name].shape
        else:
            root.visititems(
                lambda name, item: shapes.update({name: item.shape})
                if isinstance(item, h5py.Dataset) else None
            )  # fmt: skip
    return shapes, older


def _older_name(layer: str, variable: str) -> str:
    return f"{layer}/{variable.split('/')[-1].split(':')[0]}"


def _keras_differences(model, path: Path) -> str:
    found, older = _h5_shapes(path)
    if older:
        expected = {
            _older_name(layer.name, v.name): v.shape for layer in model.layers
            for v in layer.weights
        }  # fmt: skip
    else:
        with tempfile.TemporaryDirectory() as folder:
            ours = Path(folder) / "expected.weights.h5"
            model.save_weights(str(ours))
            expected, _ = _h5_shapes(ours)
    return _differences(expected, found)


def load_keras(model, name: str, path: Path) -> None:
    """Loads a Keras weight file; on failure says how it differs from the model.

    Of a `.keras` file only the weights are read, so that no code in it runs.

    Raises:
        ValueError: the file is missing, damaged, of another model, or asks for other files.
    """
    require_regular(path)
    try:
        _check_h5(path)
        model.load_weights(str(path))
    except Exception as error:  # Keras raises many kinds, some from h5py and zipfile
        reason = " ".join(str(error).split())
        try:
            differences = _keras_differences(model, path)
        except Exception:
            raise ValueError(
                f"{path}: damaged, or not a Keras weight file: {reason[:200]}"
            ) from error
        raise ValueError(
            f"{path}: not the weights of {name} (without its top): {differences or reason[:200]}"
        ) from error
    for variable in model.weights:
        if not np.all(np.isfinite(np.asarray(variable))):
            raise ValueError(
                f"{path}: {variable.name} holds NaN or infinite values; fetch the file again"
            )


def _check_h5(path: Path) -> None:
    """Refuses HDF5 that leads elsewhere, or declares far more values than the file can hold."""
    declared = 0

    def look(group) -> None:
        nonlocal declared
        for name in group:
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise ValueError(f"{name} is a link, which no weight file needs")
            item = group[name]
            if isinstance(item, h5py.Group):
                look(item)
                continue
            if item.external or item.is_virtual:
                raise ValueError(f"the values of {name} are in another file")
            declared += item.nbytes

    size = path.stat().st_size
    with _opened_h5(path) as file:
        look(file)
    if declared > _PACKED * size + 2**20:
        raise ValueError(f"{declared:,} bytes of values are declared in a file of {size:,} bytes")


@contextlib.contextmanager
def _opened_h5(path: Path) -> Iterator[h5py.File]:
    """The HDF5 file of weights, also within a `.keras` archive."""
    source: Any = path
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            entry = archive.getinfo("model.weights.h5")
            if entry.file_size > _PACKED * max(entry.compress_size, 2**20):
                raise ValueError(f"weights of {entry.file_size:,} bytes are declared")
            source = io.BytesIO(archive.read(entry))
    with h5py.File(source, "r") as file:
        yield file


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
