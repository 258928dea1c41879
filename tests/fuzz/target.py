"""A reader to fuzz: valid inputs, the call that reads one, and what must hold of the answer."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from fuzz.mutators import Change, Files

# A reader may start a program of its own to be safe from crashes of a library.
CHILD = frozenset(
    {"subprocess.Popen", "os.posix_spawn", "os.fork", "pickle.find_class", "os.exec", "socket.bind",
     "socket.connect"}
)  # fmt: skip


class Insane(Exception):
    """An input that was accepted and gave what cannot be."""


def check(condition, message: str) -> None:
    """An oracle: raises `Insane` where something that was read is not as it must be."""
    if not condition:
        raise Insane(message)


class Target(NamedTuple):
    """A reader.

    Attributes:
        name: its name on the command line.
        samples: makes valid inputs, small ones; the same each time.
        read: reads an input. It returns where the input is accepted and raises `ValueError` where
            it is refused; `check` says what an accepted one must fulfil.
        kinds: ending of a file -> changes that know the format, beside `mutators.KINDS`.
        seal: makes the checksums of a changed input right, so that what lies behind is read.
        generate: makes an input from nothing, valid or not.
        generated: share of inputs that `generate` makes.
        fixed: endings of files that are never changed.
        allowed: of the forbidden events (`worker.Watch`), those that the reader may cause.
        keeps: whether a refusal must leave every file as it was.
    """

    name: str
    samples: Callable[[], list[Files]]
    read: Callable[[Path], object]
    kinds: dict[str, tuple[Change, ...]] = {}
    seal: Callable[[Files], Files] | None = None
    generate: Callable[[random.Random], Files] | None = None
    generated: float = 0.2
    fixed: tuple[str, ...] = ()
    allowed: frozenset = frozenset()
    keeps: bool = False


def npy(array) -> bytes:
    """The bytes of a .npy file."""
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def npz(**arrays) -> bytes:
    """The bytes of an .npz file."""
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def picture(seed: int, kind: str = "JPEG", size=(7, 5), mode: str = "RGB", **options) -> bytes:
    """The bytes of a small image of noise."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    image = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3)).astype(np.uint8))
    out = io.BytesIO()
    image.convert(mode).save(out, kind, **options)
    return out.getvalue()
