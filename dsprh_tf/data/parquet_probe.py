"""The process that reads nested columns of a Parquet file before the program itself does.

    python -I parquet_probe.py < REQUEST

A list of a few bytes in the file may have billions of values once it is decoded, and nothing in the
file says so reliably. Here this costs a process that watches its memory, and one line. It imports
nothing of the package, so that it starts fast and from any folder. `parquet_rows` is its other
side.

The request is JSON: "path", "columns", "rows" of a batch, and "memory", bytes beyond what the
process has at its beginning. Ends with 0 if all could be read, else prints the reason and ends
with 1.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path

from pyarrow import parquet

_PAUSE = 0.01  # seconds between two looks


def _memory() -> int:
    """Bytes of memory that the process has."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _watch(limit: int, size: int) -> None:
    """Ends the process when it has more memory. (With a limit of the system Arrow aborts early.)"""
    while _memory() <= limit:
        time.sleep(_PAUSE)
    print(f"a row takes more than {size // 2**20:,} MiB of memory", flush=True)
    os._exit(1)


def main() -> int:
    """Answers the request on stdin."""
    request = json.load(sys.stdin)
    limits = (_memory() + request["memory"], request["memory"])
    threading.Thread(target=_watch, args=limits, daemon=True).start()
    try:
        with parquet.ParquetFile(request["path"]) as file:
            for batch in file.iter_batches(request["rows"], columns=request["columns"]):
                for column in batch.columns:
                    column.to_pylist()
    except Exception as error:  # pyarrow raises nearly anything on malformed bytes
        print(" ".join(str(error).split())[:200] or type(error).__name__)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
