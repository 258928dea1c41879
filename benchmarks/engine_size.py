"""Bytes per item on disk by engine, measured by building each: the sizing of BUILD.md.

    .venv-engines/bin/python benchmarks/engine_size.py --items=100000  # of make test-engines

Items as in an encoded folder of photographs (paths of 36 bytes, sha256, no tags), random codes of
64 and 128 bits. On disk: all that the engine stores, codes, items and indexes, after a checkpoint.
Milvus Lite is SQLite underneath: a cluster, whose formats are others, needs other space. Rates are
of one client on this machine.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks"), str(ROOT / "tests")]

import engine_servers  # noqa: E402
import numpy as np  # noqa: E402
from index_speed import image_items  # noqa: E402

from dsprh_tf.index.location import create_index, open_index  # noqa: E402


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def measure(name: str, location: str, kind: str, codes, items, query, size) -> None:
    """Builds an index and prints its size; `size` is its folder, or a function that asks for it."""
    start = time.perf_counter()
    index = create_index(location, codes.shape[1] * 8, "size", kind, overwrite=True)
    index.add(codes, items)
    index.commit()
    seconds = time.perf_counter() - start
    times = []
    for one in query:
        start = time.perf_counter()
        index.search(one[None], 10)
        times.append(time.perf_counter() - start)
    parts = {"disk": size_of(size)} if isinstance(size, Path) else size()
    start = f"{name:<18}{codes.shape[1] * 8:>5}"
    for what, value in parts.items():
        print(f"{start}  {what:<28}{value / len(codes):>9.1f}", flush=True)
    rate, search = len(codes) / seconds, 1e3 * np.median(times)
    print(f"{start}  stored {rate:,.0f} items/s, a search {search:.1f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--bits", default="64,128")
    parser.add_argument("--engines", default="faiss,pgvector,milvus")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    items = image_items(rng, args.items)
    print(f"{args.items:,} items\n{'engine':<18}{'bits':>5}  {'what':<28}{'bytes/item':>9}")
    for bits in map(int, args.bits.split(",")):
        codes = rng.integers(0, 256, (args.items, bits // 8), np.uint8)
        query = rng.integers(0, 256, (20, bits // 8), np.uint8)
        for engine in args.engines.split(","):
            if why := engine_servers.missing(engine):
                sys.exit(why)
            if engine == "faiss":
                for kind in ("flat", "hnsw"):
                    with tempfile.TemporaryDirectory() as folder:
                        place = Path(folder)
                        measure(f"faiss {kind}", folder, kind, codes, items, query, place)
            elif engine == "pgvector":
                run_postgres(codes, items, query)
            else:
                server = engine_servers.Milvus()
                try:
                    server.start()
                    place, folder = server.address("sized"), server.folder
                    measure("milvus lite flat", place, "flat", codes, items, query, folder)
                finally:
                    server.stop()


def run_postgres(codes, items, query) -> None:
    server = engine_servers.Postgres()
    try:
        server.start()
        place = server.address("sized", 600)

        def size() -> dict:
            with server.connect() as connection:
                connection.execute("VACUUM sized")
                parts = connection.execute(
                    "SELECT t.relname || ' ' || a.amname, sum(pg_relation_size(i.indexrelid)) "
                    "FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
                    "JOIN pg_am a ON a.oid = c.relam JOIN pg_class t ON t.oid = i.indrelid "
                    "WHERE t.relname IN ('sized', 'dsprh_codes_sized') GROUP BY 1 ORDER BY 1"
                ).fetchall()
            stats = open_index(place).stats()
            indexes = {f"index {name}": int(value) for name, value in parts}
            return {"disk": stats["bytes"], "table": stats["bytes of table"], **indexes}

        for kind in ("flat", "hnsw"):
            measure(f"pgvector {kind}", place, kind, codes, items, query, size)
    finally:
        server.stop()


if __name__ == "__main__":
    main()
