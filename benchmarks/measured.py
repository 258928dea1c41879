"""Programs run as processes of their own: their time, memory, disk and output."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclasses.dataclass
class Measured:
    """Outcome of a program.

    Attributes:
        seconds: by the clock.
        cpu: seconds of all cores.
        memory: bytes at most.
        disk: bytes that the watched folder took at most.
        lines: (seconds since the start, line of the output) of all lines.
    """

    seconds: float
    cpu: float
    memory: int
    disk: int
    lines: list[tuple[float, str]]

    @property
    def said(self) -> str:
        """The output."""
        return "\n".join(line for _, line in self.lines)


def measured(command: Sequence[str], watched: str | os.PathLike | None = None) -> Measured:
    """Runs a program from the checkout's folder; ends this one with its last words if it fails.

    Args:
        command: as for `subprocess`.
        watched: a folder whose size is looked at again and again.
    """
    disk, done = [0], threading.Event()

    def watch() -> None:
        while watched is not None and not done.wait(0.3):
            disk[0] = max(disk[0], size_of(watched))

    began = time.perf_counter()
    child = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    watcher = threading.Thread(target=watch)
    watcher.start()
    lines = [(time.perf_counter() - began, line.rstrip("\n")) for line in child.stdout]
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - began
    child.returncode = os.waitstatus_to_exitcode(status)
    done.set()
    watcher.join()
    outcome = Measured(
        seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, disk[0], lines
    )
    if child.returncode:
        sys.exit(f"{' '.join(command)} failed: {outcome.said[-2000:]}")
    return outcome


def program(name: str, *arguments: object) -> list[str]:
    """The command `python scripts/NAME.py ARGUMENTS`."""
    return [sys.executable, "-u", f"scripts/{name}.py", *map(str, arguments)]


def size_of(folder: str | os.PathLike) -> int:
    """Bytes that a folder takes on disk; holes in files take none."""
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                total += 512 * os.lstat(os.path.join(path, name)).st_blocks
            except FileNotFoundError:  # removed meanwhile
                continue
    return total
