"""Helpers of several test files: programs in this process or their own, kills, readers."""

from __future__ import annotations

import contextlib
import gc
import io
import itertools
import os
import signal
import struct
import subprocess
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"


@dataclass
class Outcome:
    """How a program ended."""

    code: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """The one line of an error; progress bars before it do not count."""
        return self._line(2)

    @property
    def unanswered(self) -> str:
        """The one line of a search that could answer no query."""
        return self._line(3)

    def _line(self, code: int) -> str:
        assert self.code == code, (self.code, self.err)
        assert "Traceback" not in self.err
        lines = [line for line in self.err.split("\n") if line.strip() and "\r" not in line]
        assert len(lines) == 1, lines
        return lines[0]


_calls = itertools.count(1)


def call_program(name: str, *arguments) -> Outcome:
    """Runs `dsprh NAME` in this process: as the command line does, without its start-up."""
    from dsprh_tf.cli.program import load

    program = load(name)
    out, err = io.StringIO(), io.StringIO()
    if next(_calls) % 25 == 0:
        gc.unfreeze()
        gc.collect()
    gc.freeze()  # what was there before: the collection below takes a third of a second with it
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = program.run(name, list(map(str, arguments)), f"dsprh {name}")
    gc.collect()  # lets go of the run folder's lock
    return Outcome(code, out.getvalue(), err.getvalue())


def start_program(name: str, *arguments, log: Path, env: dict | None = None) -> subprocess.Popen:
    """Starts `dsprh NAME` as a process of its own that writes stdout and stderr to `log`."""
    command = [sys.executable, "-m", "dsprh_tf.cli", name, *map(str, arguments)]
    with open(log, "wb") as file:
        return subprocess.Popen(
            command,
            stdout=file,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env={**os.environ, **(env or {})},
        )


_CHANGES = {"os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink",
            "os.truncate"}  # fmt: skip


def _changes_the_disk(event: str, arguments: tuple) -> bool:
    """Whether an audit event precedes a change of the disk; a kill at others leaves the same."""
    if event != "open":
        return event in _CHANGES
    return bool(arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC))


def killed_at(folder, point: int, change) -> bool:
    """Runs `change` in a child that SIGKILL ends before its `point`-th change within a folder.

    Returns:
        Whether it was killed; False once `change` makes fewer changes.
    """
    child = os.fork()
    if child == 0:
        left = point

        def die(event, arguments):
            nonlocal left
            if not _changes_the_disk(event, arguments):
                return
            if any(str(folder) in str(argument) for argument in arguments):
                left -= 1
                if left <= 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        code = 1
        try:
            sys.addaudithook(die)
            change()
            code = 0
        finally:
            os._exit(code)
    status = os.waitpid(child, 0)[1]
    if not os.WIFSIGNALED(status):
        assert os.WEXITSTATUS(status) == 0
        return False
    assert os.WTERMSIG(status) == signal.SIGKILL
    return True


def png_header(width: int, height: int) -> bytes:
    """A PNG that announces a size and ends where the pixels would begin."""
    data = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", len(data)) + b"IHDR" + data
    chunk += struct.pack(">I", zlib.crc32(b"IHDR" + data))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 1000) + b"IDAT"


def read_events(run_dir) -> dict:
    """Tag -> list of (step, value) of a run's event files; images as PNG bytes."""
    import tensorflow as tf

    found = {}
    for step, value in _summaries(Path(run_dir, "tensorboard")):
        content = tf.make_ndarray(value.tensor)
        is_image = value.metadata.plugin_data.plugin_name == "images"
        entry = content[2] if is_image else content.item() if content.shape == () else content
        found.setdefault(value.tag, []).append((step, entry))
    return found


def read_notes(folder) -> dict:
    """Tag -> what TensorBoard says of it: all scalars, images, histograms of a folder."""
    found = {}
    for _, value in _summaries(folder):
        if value.metadata.plugin_data.plugin_name in ("scalars", "images", "histograms"):
            found.setdefault(value.tag, value.metadata.summary_description)
    return found


def _summaries(folder):
    """(step, summary value) of all event files in a folder."""
    import tensorflow as tf
    from tensorflow.core.util import event_pb2

    for path in sorted(Path(folder).glob("events*")):
        for record in tf.data.TFRecordDataset(str(path)):
            event = event_pb2.Event.FromString(record.numpy())
            for value in event.summary.value:
                yield event.step, value


def read_weights(run_dir) -> dict:
    """Name -> array of everything in a run's last checkpoint, and what only the best one has."""
    import tensorflow as tf

    found: dict = {}
    for kind in ("best", "checkpoints"):
        if not any((Path(run_dir) / kind).glob("*.index")):
            continue
        reader = tf.train.load_checkpoint(str(Path(run_dir) / kind))
        names = sorted(reader.get_variable_to_shape_map())
        # How often was saved depends on how long it took.
        kept = [n for n in names if not n.startswith(("_CHECKPOINTABLE", "save_counter"))]
        found.update({name: reader.get_tensor(name) for name in kept})
    return found
