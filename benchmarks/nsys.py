"""Reading nsys exports: rows per second and peak memory, `python benchmarks/nsys.py [EXPORT...]`.

Without an export a synthetic one is written (`--rows`, default 5 million): two ranks, operators
of `emit_nvtx` nested as in real exports, launches, kernels, copies, decode steps; the tables in
the proportions of two real exports (NVTX 60 %, CUDA calls 25 %, kernels 12 %, copies 3 %). Rows
are those of the export's event tables. Each reader runs in a process of its own and is timed
from an imported interpreter to the last row; CPU seconds hold imports too.
"""

from __future__ import annotations

import argparse
import json
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

EVENTS = ("NVTX_EVENTS", "CUPTI_ACTIVITY_KIND_RUNTIME", "CUPTI_ACTIVITY_KIND_KERNEL",
          "CUPTI_ACTIVITY_KIND_MEMCPY", "CUPTI_ACTIVITY_KIND_SYNCHRONIZATION")  # fmt: skip
ROWS_A_GROUP = 5 + 2 + 1 + 0.25 + 0.05
GROUPS_A_STEP = 1000
GROUP_NS = 40_000
FIRST_NS = 60_000_000_000
_PID = "(281477392629760 + (i % 2) * 16777216)"
_TID = f"({_PID} + 144 + i % 2)"
_AT = f"({FIRST_NS} + (i / 2) * {GROUP_NS})"
_SPANS = """start INTEGER NOT NULL, end INTEGER, eventType INTEGER NOT NULL, rangeId INTEGER,
    category INTEGER, color INTEGER, text TEXT, globalTid INTEGER, endGlobalTid INTEGER,
    textId INTEGER, domainId INTEGER, uint64Value INTEGER, int64Value INTEGER, doubleValue REAL,
    uint32Value INTEGER, int32Value INTEGER, floatValue REAL, jsonTextId INTEGER, jsonText TEXT,
    binaryData TEXT"""
_CALL = """start INTEGER NOT NULL, end INTEGER NOT NULL, eventClass INTEGER NOT NULL,
    globalTid INTEGER, correlationId INTEGER, nameId INTEGER NOT NULL, returnValue INTEGER NOT NULL,
    callchainId INTEGER"""
_KERNEL = """start INTEGER NOT NULL, end INTEGER NOT NULL, deviceId INTEGER, contextId INTEGER,
    greenContextId INTEGER, streamId INTEGER, correlationId INTEGER, globalPid INTEGER,
    demangledName INTEGER, shortName INTEGER, mangledName INTEGER, launchType INTEGER,
    cacheConfig INTEGER, registersPerThread INTEGER, gridX INTEGER, gridY INTEGER, gridZ INTEGER,
    blockX INTEGER, blockY INTEGER, blockZ INTEGER, staticSharedMemory INTEGER,
    dynamicSharedMemory INTEGER, localMemoryPerThread INTEGER, localMemoryTotal INTEGER,
    gridId INTEGER, sharedMemoryExecuted INTEGER, graphNodeId INTEGER, graphId INTEGER,
    clusterX INTEGER, clusterY INTEGER, clusterZ INTEGER, tensorSizeMinusOneElements TEXT"""
_COPY = """start INTEGER NOT NULL, end INTEGER NOT NULL, deviceId INTEGER, contextId INTEGER,
    streamId INTEGER, correlationId INTEGER, globalPid INTEGER, bytes INTEGER, copyKind INTEGER,
    srcKind INTEGER, dstKind INTEGER, graphNodeId INTEGER"""
_SYNC = """start INTEGER NOT NULL, end INTEGER NOT NULL, deviceId INTEGER, contextId INTEGER,
    streamId INTEGER, correlationId INTEGER, globalPid INTEGER, syncType INTEGER, eventId INTEGER"""


def write_synthetic(path: Path, rows: int) -> None:
    """Write an export of about `rows` events."""
    groups = round(rows / ROWS_A_GROUP)
    with sqlite3.connect(path) as con:
        con.execute("PRAGMA journal_mode = off")
        con.execute("PRAGMA synchronous = off")
        for table, columns in zip(EVENTS, (_SPANS, _CALL, _KERNEL, _COPY, _SYNC), strict=True):
            con.execute(f"CREATE TABLE {table} ({columns})")
        con.execute("CREATE TABLE StringIds (id INTEGER NOT NULL PRIMARY KEY, value TEXT NOT NULL)")
        con.execute("CREATE TABLE TARGET_INFO_SESSION_START_TIME (utcEpochNs INTEGER)")
        con.execute("INSERT INTO TARGET_INFO_SESSION_START_TIME VALUES (1790857026000000000)")
        con.executemany("INSERT INTO StringIds VALUES (?, ?)", _texts())
        for table, count, values in _tables(groups):
            _fill(con, table, count, values)
    con.close()


def _texts() -> list[tuple[int, str]]:
    kernels = [f"void at::native::elementwise_kernel_{n}<float>(int, float*)" for n in range(200)]
    kernels[0] = "ncclDevKernel_AllReduce_Sum_bf16_RING_LL(ncclDevKernelArgsStorage<4096ul>)"
    calls = ["cudaLaunchKernel_v7000", "cudaStreamIsCapturing_v10000", "cudaMemcpyAsync_v3020"]
    return list(enumerate([*kernels, *calls], 1000))


def _tables(groups: int) -> list[tuple[str, int, dict[str, str]]]:
    """Table, rows, and what its columns are in row i: an SQL expression."""
    ranges, calls, kernels, copies, waits = EVENTS
    device = {"deviceId": "i % 2", "contextId": "1 + i % 2", "streamId": "7", "globalPid": _PID}
    op = {"eventType": "59", "globalTid": _TID, "domainId": "0"}
    inner = [
        (
            ranges,
            groups,
            op
            | {
                "start": f"{_AT} + {1000 * depth}",
                "end": f"{_AT} + {30_000 - 1000 * depth}",
                "text": f"'aten::op_{depth}' || (i / 2 % 50) || ', op_id = ' || (i * 5 + {depth})",
            },
        )
        for depth in range(5)
    ]
    steps = {
        "start": f"{FIRST_NS} - 500 + (i / 2) * {GROUPS_A_STEP * GROUP_NS}",
        "end": f"{FIRST_NS} - 600 + (i / 2 + 1) * {GROUPS_A_STEP * GROUP_NS}",
        "text": "'decode_step_' || (i / 2)",
    }
    launch = {"eventClass": "0", "globalTid": _TID, "returnValue": "0"}
    launch |= {"start": f"{_AT} + 6000", "end": f"{_AT} + 10000", "correlationId": "2000000 + i"}
    other = {"start": f"{_AT} + 12000", "end": f"{_AT} + 12400", "correlationId": "0"}
    copy = {"start": f"{_AT} * 1 + 35000", "end": f"{_AT} + 36000", "bytes": "4096 + i"}
    return [
        *inner,
        (ranges, 2 * max(1, groups // 2 // GROUPS_A_STEP), op | steps),
        (calls, groups, launch | {"nameId": "1200"}),
        (calls, groups, launch | other | {"nameId": "1201"}),
        (
            kernels,
            groups,
            device
            | {
                "start": f"{_AT} + 20000",
                "end": f"{_AT} + 28000 + i % 1000",
                "correlationId": "2000000 + i",
                "demangledName": "1000 + (i / 2) % 200",
                "shortName": "1000 + (i / 2) % 200",
                "gridX": "24",
                "tensorSizeMinusOneElements": "'[]'",
            },
        ),
        (copies, groups // 4, device | copy | {"copyKind": "1", "correlationId": "2000000 + i"}),
        (waits, groups // 20, device | {"start": _AT, "end": f"{_AT} + 9", "syncType": "3"}),
    ]


def _fill(con: sqlite3.Connection, table: str, count: int, values: dict[str, str]) -> None:
    names = ", ".join(f'"{name}"' for name in values)
    con.execute(
        f"WITH RECURSIVE r(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM r WHERE i + 1 < {count}) "
        f"INSERT INTO {table} ({names}) SELECT {', '.join(values.values())} FROM r"
    )


def count_rows(path: Path) -> int:
    """Rows of the event tables."""
    with sqlite3.connect(path) as con:
        present = {name for (name,) in con.execute("SELECT name FROM sqlite_master")}
        counts = [f"(SELECT count(*) FROM {table})" for table in EVENTS if table in present]
        (total,) = con.execute(f"SELECT {' + '.join(counts)}").fetchone()
    con.close()
    return int(total)


# -- the readers, each in a process of its own ---------------------------------------------------


def read_rows(path: Path) -> None:
    """The floor: sqlite3, a row at a time, the columns that the reader takes."""
    with sqlite3.connect(path) as con:
        for table, columns in (
            ("NVTX_EVENTS", "start, end, eventType, textId, globalTid, text"),
            ("CUPTI_ACTIVITY_KIND_RUNTIME", "start, end, globalTid, correlationId, nameId"),
            ("CUPTI_ACTIVITY_KIND_KERNEL", "start, end, deviceId, streamId, correlationId, "
             "globalPid, demangledName, graphNodeId, graphId, gridX"),
            ("CUPTI_ACTIVITY_KIND_MEMCPY", "start, end, deviceId, streamId, correlationId, "
             "globalPid, bytes, copyKind, srcKind, dstKind"),
        ):  # fmt: skip
            for _ in con.execute(f"SELECT {columns} FROM {table}"):
                pass
    con.close()


def read_into_arrow(path: Path) -> None:
    """Arrow batches of resolved rows, not kept."""
    from harness_collectors.nsys import COLLECTOR
    from harness_schemas.spi import IngestContext

    for _ in COLLECTOR.ingest([path], IngestContext(path.parent)):
        pass


def read_into_tables(path: Path) -> None:
    """The rows in a DuckDB file."""
    from harness.ingest.ahead import ahead
    from harness_analysis.store.writer import Writer
    from harness_collectors.nsys import COLLECTOR
    from harness_schemas.spi import IngestContext

    with (
        tempfile.TemporaryDirectory() as folder,
        ahead(COLLECTOR.ingest([path], IngestContext(path.parent))) as batches,
        Writer(Path(folder) / "rows.duckdb", "rows") as writer,
    ):
        with writer.transaction():
            for batch in batches:
                writer.add(batch.table, batch.data)
        writer.finish()


def read_into_database(path: Path) -> None:
    """The finished DuckDB file: matched, divided, with its views."""
    from harness.ingest import ingest_paths

    with tempfile.TemporaryDirectory() as folder:
        ingest_paths([path], Path(folder) / "report.duckdb")


READERS: dict[str, Callable[[Path], None]] = {
    "sqlite3, row by row": read_rows,
    "harness, Arrow": read_into_arrow,
    "harness, rows in DuckDB": read_into_tables,
    "harness, finished database": read_into_database,
}
_IMPORTS = (
    "harness_collectors.nsys.ingest",
    "harness_analysis.build.database",
    "harness.ingest",
    "duckdb",
)


def child(reader: str, path: Path) -> None:
    """Read once; the last line of stdout is the result."""
    import importlib

    for name in _IMPORTS:
        importlib.import_module(name)
    begin = time.perf_counter()
    READERS[reader](path)
    seconds = time.perf_counter() - begin
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu = used.ru_utime + used.ru_stime
    print(json.dumps({"seconds": seconds, "cpu": cpu, "peak": used.ru_maxrss}))


def measure(reader: str, path: Path, repeat: int) -> dict[str, float]:
    """The quickest of `repeat` processes."""
    results = []
    for _ in range(repeat):
        command = [sys.executable, __file__, "--child", reader, str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{reader} failed:\n{done.stderr[-2000:]}")
        results.append(json.loads(done.stdout.splitlines()[-1]))
    return min(results, key=lambda result: result["seconds"])


def report(path: Path, repeat: int) -> None:
    """One table an export."""
    rows = count_rows(path)
    print(f"\n{path.name}, {rows:,} events, {path.stat().st_size / 1e6:,.0f} MB\n")
    print("| reader | s | CPU s | rows/s | peak MiB |")
    print("|---|---|---|---|---|")
    for reader in READERS:
        result = measure(reader, path, repeat)
        seconds, peak = result["seconds"], result["peak"] / 1024
        times = f"{seconds:.2f} | {result['cpu']:.2f} | {rows / seconds:,.0f}"
        print(f"| {reader} | {times} | {peak:,.0f} |", flush=True)


def main() -> None:
    """Parse arguments and print a Markdown table for each export."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("exports", nargs="*", type=Path, help="SQLite exports, not gzipped")
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given.child[0], Path(given.child[1]))
        return
    for path in given.exports:
        report(path, given.repeat)
    if not given.exports:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "synthetic.sqlite"
            write_synthetic(path, given.rows)
            report(path, given.repeat)


if __name__ == "__main__":
    main()
