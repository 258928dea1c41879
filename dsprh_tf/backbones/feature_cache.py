"""Outputs of a frozen backbone on disk, computed once for all epochs, runs and sweeps."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from dsprh_tf.backbones.weights import weights_fingerprint
from dsprh_tf.data.files import require_regular
from dsprh_tf.data.pipeline import PairSource


class FeatureCache:
    """Convolution maps and features of a dataset's images, float16, memory-mapped.

    A row is computed the first time that it is asked for and kept under a key of everything that
    it depends on: the data's and the weights' fingerprints and the image size. An interrupted
    computation goes on where it stopped. Files are sparse: rows never asked for take no space.

    Args:
        root: folder of all caches; this one gets a subfolder named by its key.
        source: the images (a `PairSource` without a cache).
        backbone: pixels -> dict of outputs, frozen.
        names: the outputs to keep; "feature" alone is the similarity target of fine-tuning runs.

    Attributes:
        arrays: output -> [N, ...], such as "feature" [N, D_I], read-only float16.
    """

    def __init__(
        self,
        root: str | os.PathLike,
        source: PairSource,
        backbone,
        names: Sequence[str] = ("feature", "conv_map"),
    ):
        shapes = {
            name: (len(source.dataset), *map(int, backbone.output[name].shape[1:]))
            for name in names
        }
        key = {
            "data": source.dataset.fingerprint(),
            "weights": weights_fingerprint(backbone),
            "backbone": backbone.name,
            "image_size": source.image_size,
            "resize": source.resize,
            "shapes": shapes,
        }
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        self.folder = Path(root) / digest[:16]
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(
                f"the cache {self.folder} cannot be made ({error.strerror}): give "
                "--cache_dir=FOLDER, one that can be written, or set DSPRH_HOME"
            ) from error
        self._source = source
        self._run = tf.function(
            lambda pixels: backbone(pixels, training=False), reduce_retracing=True
        )
        self._done_path = self.folder / "done.u1"
        sizes = {name: 2 * int(np.prod(shape, dtype=np.int64)) for name, shape in shapes.items()}
        whole = [self._extend(self.folder / f"{name}.f16", size) for name, size in sizes.items()]
        if not all(whole):  # rows that were marked may be lost
            self._done_path.unlink(missing_ok=True)
        self._extend(self._done_path, len(source.dataset))
        self.arrays = {}
        for name, shape in shapes.items():
            self.arrays[name] = np.memmap(self.folder / f"{name}.f16", np.float16, "r", shape=shape)

    @staticmethod
    def _extend(path: Path, size: int) -> bool:
        """Gives a file its size, with zeros; returns whether it had it."""
        if os.path.lexists(path):
            require_regular(path)  # a pipe would be waited for
        with open(path, "ab") as file:
            whole = os.path.getsize(path) == size
            if not whole:
                file.truncate(size)
        return whole

    def missing(self, indices: np.ndarray) -> np.ndarray:
        """The items that are not there yet, ascending."""
        done = np.fromfile(self._done_path, np.uint8)
        indices = np.unique(indices)
        return indices[done[indices] == 0]

    def size_of(self, items: int) -> int:
        """Bytes that so many items take."""
        row = sum(2 * int(np.prod(a.shape[1:], dtype=np.int64)) for a in self.arrays.values())
        return items * row

    def ensure(self, indices: np.ndarray, batch_size: int = 32, bar: bool = True) -> int:
        """Computes the items that are missing.

        Rows are written with plain writes, not through the map: a full disk is then an error to
        report instead of a bus error, and a row is marked only after its bytes are written.

        Returns:
            The number of items computed.

        Raises:
            ValueError: an output that float16 cannot hold.
            OSError: the disk is full.
        """
        missing = self.missing(indices)
        if not len(missing):
            return 0
        files = {name: open(self.folder / f"{name}.f16", "r+b") for name in self.arrays}  # noqa: SIM115
        done = open(self._done_path, "r+b")  # noqa: SIM115
        shown = tqdm(total=len(missing), desc="frozen backbone", unit="img", disable=not bar)
        try:
            at = 0
            for batch in self._source.batches(missing, batch_size, texts=False):
                pixels = batch["pixels"]
                rows = missing[at : at + len(pixels)]
                # Always so many at once: kernels for other batches round differently, and what is
                # missing depends on when a run was interrupted.
                pixels = tf.pad(pixels, [[0, batch_size - len(rows)], [0, 0], [0, 0], [0, 0]])
                outputs = self._run(pixels)
                for name, file in files.items():
                    self._write(file, name, rows, outputs[name].numpy()[: len(rows)])
                for row in rows:
                    done.seek(row)
                    done.write(b"\x01")
                done.flush()
                at += len(rows)
                shown.update(len(rows))
        finally:
            shown.close()
            for file in (*files.values(), done):
                file.close()
        return len(missing)

    def _write(self, file, name: str, rows: np.ndarray, values: np.ndarray) -> None:
        largest = np.abs(values).max()
        if not largest <= np.finfo(np.float16).max:
            raise ValueError(
                f"the backbone's {name} reaches {largest:.3g}, more than float16 holds "
                f"({np.finfo(np.float16).max:.0f}): train with --nocache"
            )
        for row, value in zip(rows, values.astype(np.float16)):
            file.seek(int(row) * value.nbytes)
            file.write(value.tobytes())
        file.flush()
