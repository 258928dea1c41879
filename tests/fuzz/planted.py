"""Readers with faults that are planted: the tests of the fuzzer itself."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from fuzz.target import Target, check


def _sample(content: bytes = b'{"size": 3}'):
    return lambda: [{"x.json": content}]


def _planted(fault):
    """A reader that is in order for the valid file and has a fault for any other."""

    def read(folder: Path) -> None:
        with open(folder / "x.json", "rb") as file:
            if file.read(100) != b'{"size": 3}':
                fault(folder / "x.json")

    return read


def _leak(path: Path) -> None:
    raise KeyError("size")


def _nameless(path: Path) -> None:
    raise ValueError("that is wrong")


def _crash(path: Path) -> None:
    os.kill(os.getpid(), 11)


def _memory(path: Path) -> None:
    np.ones(3 * 2**27)  # 3 GiB


def _run(path: Path) -> None:
    subprocess.run([sys.executable, "--version"], check=True)


class _Code:
    def __reduce__(self):
        return print, ("hello",)


def _unpickle(path: Path) -> None:
    pickle.loads(pickle.dumps(_Code()))


def _noise(path: Path) -> None:
    os.write(2, b"libx: cannot\n")
    raise ValueError(f"{path} is broken")


def _insane(path: Path) -> None:
    check(False, "what cannot be")


def _lost(path: Path) -> None:
    path.write_bytes(b"")
    raise ValueError(f"{path} is broken")


def _slow(path: Path) -> None:
    end = time.process_time() + 0.5
    while time.process_time() < end:
        pass


def _right(path: Path) -> None:
    raise ValueError(f"{path} is broken")


FAULTS = {
    "leak": _leak, "nameless": _nameless, "crash": _crash, "memory": _memory, "run": _run,
    "unpickle": _unpickle, "noise": _noise, "insane": _insane, "lost": _lost, "slow": _slow,
    "right": _right,
}  # fmt: skip
TARGETS = {
    f"planted_{name}": Target(f"planted_{name}", _sample(), _planted(fault), keeps=True)
    for name, fault in FAULTS.items()
}
