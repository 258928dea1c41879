"""The process that reads inputs: a crash, a hang or a gigabyte costs it alone, and one line.

    python -m fuzz.worker ERRORS SECONDS

It answers lines of JSON on stdin with lines of JSON on stdout: {"target", "samples": folder} writes
the valid inputs of a target, {"target", "warm": folder} reads them without a verdict, and
{"target", "input": folder} reads one and returns a verdict. What any library prints goes to the
file ERRORS; an input that takes more than SECONDS of CPU is a fault.
"""

from __future__ import annotations

import contextlib
import json
import logging as python_logging
import os
import resource
import shutil
import sys
import time
import traceback
from pathlib import Path

from fuzz.target import Insane

MEMORY = 2 * 2**30  # bytes beyond what the process has when it is warm
# What no reader has a reason for: programs, code of pickles, connections.
_FORBIDDEN = {
    "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "subprocess.Popen",
    "socket.connect", "socket.bind", "pickle.find_class", "marshal.load",
}  # fmt: skip
_WRITES = {"os.remove", "os.rename", "os.rmdir", "os.truncate", "shutil.rmtree", "os.mkdir"}


class Watch:
    """Forbidden events while an input is read, from Python's audit hook."""

    def __init__(self):
        self.on = False
        self.allowed: frozenset = frozenset()
        self.within: tuple[str, ...] = ()
        self.seen: list[str] = []
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments) -> None:
        if not self.on:
            return
        if event in _FORBIDDEN and event not in self.allowed:
            self.seen.append(f"{event} {str(arguments)[:200]}")
        elif event in _WRITES or event == "open":
            path = arguments[0]
            if event == "open":
                flags = arguments[2] or 0
                if not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                    return
            if isinstance(path, (str, bytes)):
                path = os.path.abspath(os.fsdecode(path))
                # "/tmp" itself is opened for files that have no name.
                if not f"{path}/".startswith((*self.within, "/dev/")):
                    self.seen.append(f"{event} {path}")


def _status(name: str) -> int:
    """A number of kilobytes of /proc/self/status, in bytes."""
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


def _limit_memory() -> None:
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (_status("VmSize") + MEMORY, hard))


def _unlimited() -> None:
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


def _chain(error: BaseException | None):
    while error is not None:
        yield error
        hidden = error.__suppress_context__
        error = error.__cause__ or (None if hidden else error.__context__)


def _at(error: BaseException) -> str:
    """The last place in this project, for telling faults apart."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "dsprh_tf" in f.filename]
    return f"{Path(frames[-1].filename).name}:{frames[-1].name}" if frames else ""


def _content(folder: Path) -> dict:
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = os.readlink(path)
        elif path.is_file():
            found[name] = path.read_bytes() if path.stat().st_size < 2**24 else path.stat().st_size
    return found


def judge(target, folder: Path, watch: Watch, errors: Path, most: float) -> dict:
    """The verdict on one input: "accepted", "refused" or "fault", and what was said."""
    before = _content(folder) if target.keeps else None
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    base = _status("VmRSS")
    noise = errors.stat().st_size
    begun = time.process_time()
    watch.seen, watch.allowed = [], target.allowed
    watch.within = (f"{folder.parent}/", "/tmp/", f"{os.environ.get('TMPDIR', '/tmp')}/")
    verdict, kind, said, at = "accepted", "", "", ""
    watch.on = True
    try:
        target.read(folder)
    except Insane as error:
        verdict, kind, said = "fault", "insane", str(error)
    except ValueError as error:
        verdict, said, at = "refused", str(error), _at(error)
        if type(error) is not ValueError:
            verdict, kind = "fault", f"leaked {type(error).__name__}"
        # A list may name images anywhere.
        elif not any(n in said for n in ("image /", folder.name, *_names(folder))):
            verdict, kind = "fault", "names no file"
        elif any(isinstance(e, MemoryError) for e in _chain(error)):
            verdict, kind = "fault", "memory"
    except MemoryError as error:
        verdict, kind, said, at = "fault", "memory", repr(error), _at(error)
    except Exception as error:
        verdict, kind, said, at = "fault", f"raised {type(error).__name__}", str(error), _at(error)
        said = f"{said[:400]} | {traceback.format_exc()[-1500:]}"
    finally:
        watch.on = False
    sys.stderr.flush()
    seconds = time.process_time() - begun
    used = _status("VmHWM") - base
    if verdict != "fault":
        if watch.seen:
            verdict, kind, said = "fault", "forbidden", "; ".join(watch.seen[:3])
        elif seconds > most:
            verdict, kind, said = "fault", "slow", f"{seconds:.1f} s; {said}"
        elif before is not None and verdict == "refused":
            after = _content(folder)
            kept = set(after.values())  # also under another name
            changed = [name for name, content in before.items() if content not in kept]
            if changed:
                verdict, kind, said = "fault", "lost", f"{', '.join(changed[:5])}; {said}"
        if verdict != "fault" and errors.stat().st_size > noise:
            with open(errors, "rb") as file:
                file.seek(noise)
                text = file.read(4000).decode("utf-8", "replace")
            lines = [line for line in text.split("\n") if line.strip() and "\r" not in line]
            if lines:
                verdict, kind, said = "fault", "noise", "\n".join(lines)
    return {"verdict": verdict, "kind": kind, "said": said[:3000], "at": at, "seconds": seconds,
            "memory": used}  # fmt: skip


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*")]


def main() -> None:
    """Answers requests until stdin ends."""
    errors = Path(sys.argv[1])
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    requests = os.fdopen(os.dup(0), "r", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    from absl import logging
    from fuzz import mutators
    from fuzz.targets import ALL

    import dsprh_tf  # noqa: F401 - quietens TensorFlow before its import

    # As programs have it.
    logging.set_verbosity("error")
    python_logging.getLogger("tensorflow").setLevel("ERROR")
    watch = Watch()
    for line in requests:
        request = json.loads(line)
        target = ALL[request["target"]]
        try:
            if "samples" in request:
                _unlimited()
                folder = Path(request["samples"])
                for number, files in enumerate(target.samples()):
                    mutators.write(folder / str(number), files)
                reply = {"count": number + 1}
            elif "warm" in request:
                _unlimited()
                copy = Path(request["warm"]).with_name("warm")
                for sample in sorted(Path(request["warm"]).iterdir()):
                    shutil.rmtree(copy, ignore_errors=True)
                    target.read(shutil.copytree(sample, copy))
                reply = {"verdict": "warm", "kind": ""}
            else:
                _limit_memory()
                reply = judge(target, Path(request["input"]), watch, errors, float(sys.argv[2]))
        except Exception:
            reply = {"verdict": "broken", "kind": "harness", "said": traceback.format_exc()}
        print(json.dumps(reply), file=replies, flush=True)


if __name__ == "__main__":
    main()
