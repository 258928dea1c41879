"""The fuzzer: changes valid files, has a worker read them, and keeps what should not happen."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import random
import re
import select
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from fuzz import mutators
from fuzz.mutators import Files, Special
from fuzz.targets import ALL

ROOT = Path(__file__).parents[2]
CORPUS = Path(__file__).with_name("corpus")
CPU_SECONDS = 10.0
WALL_SECONDS = 30.0  # for one input, on a machine that is busy with other things
_START_SECONDS = 300.0  # for imports and valid inputs
_POOL = 150  # inputs that gave a new answer and are changed further
_DATE = (2020, 1, 1, 0, 0, 0)


class Worker:
    """A process that reads inputs, started again where one ended it.

    Args:
        folder: an empty folder to work in.
        most: seconds of CPU that an input may take.
    """

    def __init__(self, folder: Path, most: float = CPU_SECONDS):
        self._folder, self._most = folder, most
        self._errors = folder / "errors.txt"
        self._process: subprocess.Popen | None = None
        self._warmed: set[str] = set()  # targets, in this process
        self._samples: dict[str, list[Files]] = {}

    def samples(self, target: str) -> list[Files]:
        """The valid inputs of a target."""
        if target not in self._samples:
            folder = self._samples_folder(target)
            reply = self._ask({"target": target, "samples": str(folder)}, _START_SECONDS)
            if "count" not in reply:
                raise RuntimeError(f"{target} has no samples: {reply['said']}")
            self._samples[target] = [mutators.read(path) for path in sorted(folder.iterdir())]
        return self._samples[target]

    def _samples_folder(self, target: str) -> Path:
        return self._folder / f"{target}-samples"

    def judge(self, target: str, files: Files) -> dict:
        """The verdict on an input."""
        self.samples(target)
        folder = self._folder / "input"
        request = {"target": target, "input": str(folder)}
        for _ in range(2):  # on a machine that is busy, once may be chance
            reply = self._warm(target)
            if reply["verdict"] == "warm":
                shutil.rmtree(folder, ignore_errors=True)
                mutators.write(folder, files)
                reply = self._ask(request, WALL_SECONDS)
            if reply["kind"] != "hang":
                break
        if reply["verdict"] == "broken":
            raise RuntimeError(f"{target}: {reply['said']}")
        return reply

    def _warm(self, target: str) -> dict:
        """Reads the valid inputs once in each process: what is imported then counts for none."""
        if target in self._warmed and self._process is not None:
            return {"verdict": "warm"}
        samples = str(self._samples_folder(target))
        reply = self._ask({"target": target, "warm": samples}, _START_SECONDS)
        if reply["verdict"] == "warm":
            self._warmed.add(target)
        return reply

    def close(self) -> None:
        """Ends the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _ask(self, request: dict, seconds: float) -> dict:
        if self._process is None:
            self._start()
        process = self._process
        process.stdin.write(json.dumps(request).encode() + b"\n")
        process.stdin.flush()
        if not select.select([process.stdout], [], [], seconds)[0]:
            self.close()
            return _fault("hang", f"no answer in {seconds:.0f} s")
        line = process.stdout.readline()
        if line:
            return json.loads(line)
        code = process.wait()
        process.communicate()  # closes its pipes
        with open(self._errors, "rb") as file:
            file.seek(max(0, self._errors.stat().st_size - 1500))
            said = file.read().decode("utf-8", "replace")
        self._process = None
        return _fault("crash", f"the process ended with {code}: {said}")

    def _start(self) -> None:
        path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
        threads = {
            "OMP_NUM_THREADS": "1",
            "TF_NUM_INTRAOP_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
        }
        self._errors.write_bytes(b"")
        self._warmed = set()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "fuzz.worker", str(self._errors), str(self._most)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            cwd=self._folder,
            env={**os.environ, **threads, "PYTHONPATH": path, "PYTHONFAULTHANDLER": "1"},
        )


def _fault(kind: str, said: str) -> dict:
    return {"verdict": "fault", "kind": kind, "said": said, "at": "", "seconds": 0.0, "memory": 0}


@dataclass
class Count:
    """Numbers of one target."""

    inputs: int = 0
    accepted: int = 0
    refused: int = 0
    faults: Counter = field(default_factory=Counter)
    seconds: float = 0.0
    memory: int = 0


class Campaign:
    """Inputs for some targets from one seed; the same seed and code give the same inputs.

    Args:
        seed: decides every input.
        names: targets.
        out: folder for inputs that are faults.
        say: prints a line.
        worker: reads the inputs; without one the campaign starts its own, and ends it.
    """

    def __init__(
        self, seed: int, names: list[str], out: Path | None, say=print, worker: Worker | None = None
    ):
        self.seed, self.out, self.say = seed, out, say
        self.counts = {name: Count() for name in names}
        self._temporary = tempfile.TemporaryDirectory(prefix="dsprh_fuzz_")
        self.worker = worker or Worker(Path(self._temporary.name))
        self._own_worker = worker is None
        self._pools: dict[str, list[Files]] = {}
        self._known: dict[str, set[str]] = {name: set() for name in names}

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self._own_worker:
            self.worker.close()
        self._temporary.cleanup()

    def run(self, seconds: float = float("inf"), inputs: float = float("inf")) -> None:
        """Goes round the targets until a time has passed or each has had so many inputs."""
        end = time.monotonic() + seconds
        left = dict(self.counts)
        while left and time.monotonic() < end:
            for name, count in list(left.items()):
                begun = time.monotonic()
                # A second each, so that slow targets do not take all of the time.
                while time.monotonic() < min(end, begun + 1.0) and count.inputs < inputs:
                    self._one(name, count)
                if count.inputs >= inputs:
                    del left[name]
                if time.monotonic() >= end:
                    break

    def _one(self, name: str, count: Count) -> None:
        number = count.inputs
        files = self.input(name, number)
        verdict = self.worker.judge(name, files)
        count.inputs += 1
        count.seconds += verdict["seconds"]
        count.memory = max(count.memory, verdict["memory"])
        mark = signature(verdict)
        if verdict["verdict"] != "fault":
            setattr(count, verdict["verdict"], getattr(count, verdict["verdict"]) + 1)
        else:
            count.faults[mark] += 1
            if count.faults[mark] == 1:
                self._keep(name, number, files, verdict)
        if mark not in self._known[name] and len(self._known[name]) < _POOL:
            self._known[name].add(mark)
            if verdict["verdict"] != "fault" and _size(files) < 2**21:
                self._pools[name].append(files)

    def input(self, name: str, number: int) -> Files:
        """The input of a number: of a valid one, or of one that was answered in a new way."""
        target = ALL[name]
        rng = random.Random(f"{self.seed}/{name}/{number}")
        samples = self.worker.samples(name)
        pool = self._pools.setdefault(name, [])
        if target.generate is not None and rng.random() < target.generated:
            with contextlib.suppress(Exception):  # what a library will not write
                return target.generate(rng)
        files = rng.choice(pool if pool and rng.random() < 0.3 else samples)
        others = [c for f in samples for c in f.values() if isinstance(c, bytes)]
        files = mutators.change(rng, files, others, target.kinds, target.fixed)
        if target.seal is not None and rng.random() < 0.7:
            with contextlib.suppress(Exception):  # what was changed may not be there any more
                files = target.seal(files)
        return files

    def _keep(self, name: str, number: int, files: Files, verdict: dict) -> None:
        said = " ".join(verdict["said"].split())
        self.say(f"{name} input {number}: {verdict['kind']}: {said[:600]}")
        if self.out is None:
            return
        small = self.minimised(name, files, signature(verdict))
        about = {"target": name, "seed": self.seed, "number": number, "kind": verdict["kind"],
                 "said": said[:300]}  # fmt: skip
        path = self.out / f"{name}-{_digest(small)}.zip"
        save(path, small, about)
        self.say(f"  saved as {path} ({path.stat().st_size:,} bytes)")

    def minimised(self, name: str, files: Files, mark: str, runs: int = 60) -> Files:
        """An input with the same fault that is nearer to a valid one, and smaller."""
        if mark.startswith("fault hang"):
            return files
        left = [runs]

        def still(candidate: Files) -> bool:
            left[0] -= 1
            return left[0] >= 0 and signature(self.worker.judge(name, candidate)) == mark

        samples = self.worker.samples(name)
        base = max(samples, key=lambda s: sum(files.get(n) == c for n, c in s.items()))
        for file in list(files):
            without = {n: c for n, c in files.items() if n != file}
            valid = {**files, file: base[file]} if file in base else without
            if files.get(file) != base.get(file) and still(valid):
                files = valid
            elif file not in base and still(without):
                files = without
        for file, content in list(files.items()):
            if not isinstance(content, bytes) or content == base.get(file):
                continue
            step = len(content) // 2
            while step >= 1 and left[0] > 0:
                at = 0
                while at < len(content) and left[0] > 0:
                    shorter = content[:at] + content[at + step :]
                    if still({**files, file: shorter}):
                        content = shorter
                        files = {**files, file: content}
                    else:
                        at += step
                step //= 4
        return files


def signature(verdict: dict) -> str:
    """A verdict without numbers and names: equal ones are taken for the same answer."""
    said = verdict["said"].split(" | ")[0]
    said = re.sub(r"'[^']*'|\"[^\"]*\"|\([^)]*\)|\S*/\S*|[^\x20-\x7e]", "*", said)
    said = re.sub(r"\d[\d,.]*|0x[0-9a-f]+", "#", said)[:120]
    if verdict["verdict"] == "fault":
        where = verdict["at"] or said
        return f"fault {verdict['kind']} {where}"
    return f"{verdict['verdict']} {said}"


def save(path: Path, files: Files, about: dict) -> None:
    """Writes an input as one zip file, the same bytes for the same input."""
    path.parent.mkdir(parents=True, exist_ok=True)
    special = {name: list(c) for name, c in files.items() if isinstance(c, Special)}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        head = json.dumps({**about, "special": special}, indent=1)
        archive.writestr(zipfile.ZipInfo("about.json", _DATE), head, zipfile.ZIP_DEFLATED)
        for name, content in sorted(files.items()):
            if isinstance(content, bytes):
                entry = zipfile.ZipInfo(f"input/{name}", _DATE)
                archive.writestr(entry, content, zipfile.ZIP_DEFLATED)


def load(path: Path) -> tuple[str, Files]:
    """Target and input of a file that `save` wrote."""
    with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as archive:
        about = json.loads(archive.read("about.json"))
        files: Files = {
            name[len("input/") :]: archive.read(name)
            for name in archive.namelist()
            if name.startswith("input/")
        }
    files.update({name: Special(*content) for name, content in about["special"].items()})
    return about["target"], files


def _digest(files: Files) -> str:
    digest = hashlib.sha256()
    for name, content in sorted(files.items()):
        digest.update(repr((name, content)).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:8]


def _size(files: Files) -> int:
    return sum(len(content) for content in files.values() if isinstance(content, bytes))


def table(counts: dict[str, Count]) -> str:
    """The numbers of a campaign for the screen."""
    head = ("target", "inputs", "accepted", "refused", "faults", "kinds", "CPU s", "MiB")
    rows = [
        (name, c.inputs, c.accepted, c.refused, sum(c.faults.values()), len(c.faults),
         round(c.seconds), round(c.memory / 2**20))
        for name, c in counts.items()
    ]  # fmt: skip
    sums = [sum(row[i] for row in rows) for i in range(1, 7)]
    rows.append(("sum", *sums, max((row[7] for row in rows), default=0)))
    lines = [f"{head[0]:22}" + "".join(f"{h:>10}" for h in head[1:])]
    lines += [f"{row[0]:22}" + "".join(f"{cell:>10,}" for cell in row[1:]) for row in rows]
    return "\n".join(lines)
