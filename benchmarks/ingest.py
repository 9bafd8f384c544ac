"""Ingest and query cost per span, from 0.1 to 10 million: `python benchmarks/ingest.py`.

Writes synthetic spools (4 ranks, TP=2 x PP=2, an all-reduce and a layer span in turn), ingests
them in a fresh process, and prints seconds, CPU seconds (of readers too), peak memory and the
time of the view `step_breakdown`, as a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import resource
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness_probe.gzip_file import GzipFile
from harness_probe.spool import blocks
from harness_schemas import spool

HEADS = (
    *("spans", "ingest s", "CPU s", "CPU us a span", "peak MiB", "a reader's MiB"),
    *("database MiB", "step_breakdown s"),
)
EPOCH_NS = 1_800_000_000_000_000_000
A_FLUSH = 2048
"""Records that the recorder flushes at once at most."""


@dataclass(frozen=True)
class Shape:
    """What is simulated."""

    ranks: int = 4
    tp: int = 2
    spans_a_step: int = 160
    seed: int = 0


SHAPE = Shape()


def write_rank(
    folder: Path, rank: int, steps: int, shape: Shape = SHAPE, plain: bool = False
) -> None:
    """One rank's spool: steps of spans, half of them all-reduces, and a unit each.

    `plain`: as it was recorded before spools were compressed.
    """
    spans = shape.spans_a_step
    total = steps * (spans + 1)
    index = np.arange(total) % (spans + 1)
    step = np.arange(total) // (spans + 1)
    is_unit = index == spans
    is_comm = (index % 2 == 1) & ~is_unit
    random = np.random.default_rng(rank + shape.seed * shape.ranks)
    base = 1_000_000_000 + step * 10_000_000
    start = base + np.where(is_unit, 0, index * 60_000) + random.integers(0, 5_000, total)
    start[is_unit] = base[is_unit]
    end = start + np.where(is_unit, 9_900_000, 50_000)
    kind = np.where(
        is_unit, spool.KIND_UNIT, np.where(is_comm, spool.KIND_COLLECTIVE, spool.KIND_SPAN)
    )
    descriptor = np.where(is_unit, 3, np.where(is_comm, 2, 1))
    records = np.full((total, spool.RECORD_WORDS), -1, dtype="<i8")
    records[:, 0] = (spool.RECORD_MARKER << 48) | (kind << 40) | descriptor
    records[:, 1] = np.arange(1, total + 1)
    records[:, 2] = 0
    records[:, 3] = step + 1
    records[:, 4] = start
    records[:, 5] = end
    records[:, 6] = start // 2
    records[:, 7] = end // 2
    records[:, 8] = np.where(is_comm, 16384, -1)
    records[:, 9] = np.where(is_comm, 1 << 32, 0)
    records[:, 10] = np.where(is_comm, step * (spans // 2) + index // 2, -1)
    records[:, 11] = 0
    stem, rare = folder / f"rank-{rank:05d}", meta_lines(rank, shape)
    frequent = "".join(unit_lines(steps)).encode()
    if plain:
        header = spool.MAGIC + struct.pack("<II", spool.RECORD_BYTES, spool.LAYOUT_PLAIN)
        stem.with_suffix(spool.PLAIN_RECORDS).write_bytes(header + records.tobytes())
        stem.with_suffix(spool.META).write_bytes(rare + frequent)
        return
    stem.with_suffix(spool.META).write_bytes(rare)
    header = spool.MAGIC + struct.pack("<II", spool.RECORD_BYTES, spool.LAYOUT_PLANES)
    write_stream(stem.with_suffix(spool.UNITS), [[frequent]])
    flushes = (blocks(records[at : at + A_FLUSH].data.cast("B")) for at in range(0, total, A_FLUSH))
    write_stream(stem.with_suffix(spool.RECORDS), [[header], *flushes])


def write_stream(path: Path, flushes: Iterable[Iterable[bytes]]) -> None:
    """One gzip stream, flushed as the recorder does."""
    stream = GzipFile(path, 1)
    for pieces in flushes:
        stream.append(pieces)
    stream.close()


def meta_lines(rank: int, shape: Shape) -> bytes:
    """Rare lines of one rank's spool."""
    stage = rank // shape.tp
    members = list(range(stage * shape.tp, (stage + 1) * shape.tp))
    rows: list[dict[str, object]] = [
        {
            "t": "start",
            "rank": rank,
            "world_size": shape.ranks,
            "host": "n0",
            "boot_id": "b",
            "pid": rank,
        },
        {"t": "anchor", "mono_ns": 1_000_000_000, "wall_ns": EPOCH_NS, "width_ns": 50},
        {"t": "fact", "stage": stage, "tp_rank": rank % shape.tp},
        {"t": "desc", "id": 1, "name": "layer", "category": "layer", "timeline": "host"},
        {
            "t": "desc",
            "id": 2,
            "name": "all_reduce",
            "category": "comm",
            "op": "all_reduce",
            "dtype": "bfloat16",
            "timeline": "host",
        },
        {"t": "desc", "id": 3, "name": "decode", "category": "unit", "timeline": "host"},
        {"t": "group", "id": 1, "ranks": members, "ordinal": 0},
    ]
    rows.append({"t": "end", "dropped": 0})
    return "".join(map(line_of, rows)).encode()


def unit_lines(steps: int) -> Iterator[str]:
    """A line a step."""
    key = {"phase": "decode", "batch": 0, "microbatch": 0, "repeat": 0, "warmup": False}
    for number in range(1, steps + 1):
        yield line_of({"t": "unit", "id": number, **key, "step": number})


def line_of(row: dict[str, object]) -> str:
    """A line of JSON."""
    return json.dumps(row, separators=(",", ":")) + "\n"


def measure(folder: Path) -> None:
    """Ingest and query; run in a process of its own so that memory is this run's."""
    from harness.ingest import ingest_run
    from harness_analysis.query import query_runs
    from harness_schemas.rundir import RunDir

    begin = time.perf_counter()
    database = ingest_run(RunDir(folder))
    ingest_s = time.perf_counter() - begin
    begin = time.perf_counter()
    query_runs([database], "SELECT sum(comm_wait_ns), count(*) FROM step_breakdown")
    query_s = time.perf_counter() - begin
    own, readers = (
        resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    found = {
        "ingest_s": ingest_s,
        "cpu_s": sum(used.ru_utime + used.ru_stime for used in (own, readers)),
        "query_s": query_s,
        "peak_mib": own.ru_maxrss / 1024,
        "readers_mib": readers.ru_maxrss / 1024,
        "db_mib": database.stat().st_size / 2**20,
    }
    print(json.dumps(found))


def main() -> None:
    """Measure every size and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="100000,1000000,10000000")
    parser.add_argument("--plain", action="store_true", help="spools as they were uncompressed")
    parser.add_argument("--measure", type=Path)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.measure)
        return
    print("| " + " | ".join(HEADS) + " |")
    print("|---:" * len(HEADS) + "|")
    for text in arguments.sizes.split(","):
        size = int(text)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / "bench"
            (folder / "spans").mkdir(parents=True)
            (folder / "run.json").write_text('{"name": "bench", "device": "cpu"}')
            for rank in range(SHAPE.ranks):
                steps = size // SHAPE.ranks // (SHAPE.spans_a_step + 1)
                write_rank(folder / "spans", rank, steps, plain=arguments.plain)
            command = [sys.executable, __file__, "--measure", str(folder)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            got = json.loads(done.stdout.splitlines()[-1])
            print(
                f"| {size:,} | {got['ingest_s']:.2f} | {got['cpu_s']:.2f} "
                f"| {1e6 * got['cpu_s'] / size:.2f} | {got['peak_mib']:.0f} "
                f"| {got['readers_mib']:.0f} | {got['db_mib']:.0f} | {got['query_s']:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
