"""Speed of reading NCCL logs: `python benchmarks/nccl_log.py`.

Writes logs as ranks do, or repeats logs that are given, reads each in fresh processes into
Arrow batches, and prints MB/s, lines/s, rows and peak memory as a Markdown table. Times are of
the CPU, of all processes that read, so that a busy machine does not show; wall time stands beside
them. Memory is that of the process that joins what `--jobs` others have read.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from nccl_starts import DIALECTS, Job, prefixes, startup, write_files, write_starts

BYTES_TARGET = 100e6
LINES_TARGET = 1e6
"""Whichever is less: 100 MB/s or a million lines a second."""

READ = ("log", "MB", "MB/s", "M lines/s", "MB/s wall", "rows", "RSS MB", "of target")
FINISHED = ("log", "MB", "s", "CPU s", "MB/s", "calls", "database MB")

PREFIX = "node{host}:{pid}:{pid} [0] NCCL INFO "
INIT = "ncclCommInitRankConfig comm {comm} rank {rank} nranks {size} cudaDev 0 nvmlDev 0 busId 60"


def header(rank: int, size: int, prefix: str) -> list[str]:
    """The lines of an initialisation, with a transport line for each channel."""
    comm = f"0x55d0a000{rank:04x}"
    init = INIT.format(comm=comm, rank=rank, size=size) + " commId 0xfeedbeef - Init "
    lines = ["NCCL version 2.28.9+cuda13.0", init + "START"]
    lines += [f"Channel {c:02d}/24 : " + " ".join(map(str, range(size))) for c in range(24)]
    lines += ["24 coll channels, 24 collnet channels, 0 nvls channels, 32 p2p channels, "
              "32 p2p channels per peer", init + "COMPLETE"]  # fmt: skip
    peer = (rank + 1) % size
    lines += [f"Channel {c:02d}/0 : {rank}[0] -> {peer}[0] via P2P/CUMEM" for c in range(24)]
    return [prefix + line for line in lines]


def decode_lines(rank: int, size: int, random_buffers: bool) -> Iterator[str]:
    """Calls of decode steps without end; rank 0 prints what was chosen after each."""
    prefix = PREFIX.format(host=rank // 8, pid=4000 + rank)
    yield from header(rank, size, prefix)
    comm = f"0x55d0a000{rank:04x}"
    draw = random.Random(rank)
    buffers = [0x7FA670000000 + 512 * i for i in range(64)]
    tail = f"datatype 9 op 0 root 0 comm {comm} [nranks={size}] stream (nil)"
    while True:
        buffer = draw.getrandbits(46) if random_buffers else draw.choice(buffers)
        count = 3200 if draw.random() < 0.95 else 32000
        yield (
            f"{prefix}AllReduce: opCount {draw.randrange(4096):x} sendbuff {buffer:#x} "
            f"recvbuff {buffer:#x} count {count} {tail}"
        )
        if rank == 0:
            choice = "Algo RING proto LL channel{Lo..Hi}={0..0}"
            yield f"{prefix}AllReduce: {2 * count} Bytes -> {choice}"


def write_decode(path: Path, megabytes: int, rank: int, random_buffers: bool) -> None:
    """A log of one rank of eight, about so large."""
    left = megabytes * 1_000_000
    with path.open("w") as stream:
        for line in decode_lines(rank, 8, random_buffers):
            stream.write(line + "\n")
            left -= len(line) + 1
            if left <= 0:
                return


def write_merged(path: Path, megabytes: int) -> None:
    """The output of eight ranks in one file, as mpirun merges it."""
    left = megabytes * 1_000_000
    sources = [decode_lines(rank, 8, False) for rank in range(8)]
    with path.open("w") as stream:
        while left > 0:
            for rank, source in enumerate(sources):
                line = f"[1,{rank}]<stdout>:{next(source)}\n"
                stream.write(line)
                left -= len(line)


def repeat(source: Path, target: Path, megabytes: int) -> None:
    """A given log, again and again."""
    opener = gzip.open if source.suffix == ".gz" else open
    with opener(source, "rb") as stream:
        text = stream.read()
    with target.open("wb") as out:
        for _ in range(max(1, megabytes * 1_000_000 // max(len(text), 1))):
            out.write(text)


def read_one(path: Path, jobs: int) -> dict[str, float]:
    """Read a log, or a folder of logs, in this process, or with the help of so many others."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    with tempfile.TemporaryDirectory() as folder:  # loading libraries is not reading
        small = Path(folder) / "nccl.log"
        small.write_text("".join(line + "\n" for line in startup(Job(ranks=8), 0, 0)))
        read([small], 1)
    wall, cpu = time.perf_counter(), cpu_seconds()
    rows, lines = read(files, jobs)
    return {
        "cpu_s": cpu_seconds() - cpu,
        "wall_s": time.perf_counter() - wall,
        "rows": rows,
        "lines": lines,
        "bytes": bytes_of(path),
        "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def cpu_seconds() -> float:
    """Of this process and of those that it waited for."""
    used = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


def read(files: list[Path], jobs: int) -> tuple[int, int]:
    """Rows and lines."""
    from harness.ingest import read_all
    from harness.ingest.parts import Task, in_pieces
    from harness.ingest.progress import Watch
    from harness_schemas.spi import IngestContext, Part

    tasks = [Task("nccl_log", Part(tuple(files)), sum(file.stat().st_size for file in files))]
    if jobs > 1:
        tasks = in_pieces(tasks)
    rows = lines = 0
    with tempfile.TemporaryDirectory() as folder:
        context = IngestContext(files[0].parent)
        for batch in read_all(tasks, context, jobs, Path(folder) / "parts", Watch()):
            rows += batch.data.num_rows
            if batch.table == "collection":
                details = map(json.loads, batch.data["detail"].to_pylist())
                lines = sum(detail["lines"] for detail in details)
    return rows, lines


def finished(name: str, path: Path, times: int, jobs: int) -> str:
    """A row of the table of `--finished`: a whole `harness ingest`, the best of so many."""
    walls, cpus = [], []
    database = path.with_suffix(".duckdb")
    for _ in range(times):
        database.unlink(missing_ok=True)
        command = [sys.executable, "-m", "harness", "ingest", str(path), "-o", str(database)]
        wall, cpu = time.perf_counter(), cpu_seconds()
        subprocess.run([*command, "-j", str(jobs)], capture_output=True, check=True)
        walls.append(time.perf_counter() - wall)
        cpus.append(cpu_seconds() - cpu)
    size, rows = bytes_of(path), count_calls(database)
    return (
        f"| {name} | {size / 1e6:.0f} | {min(walls):.2f} | {min(cpus):.2f} | "
        f"{size / min(walls) / 1e6:.0f} | {rows:,} | {database.stat().st_size / 1e6:.0f} |"
    )


def bytes_of(path: Path) -> int:
    """Of a log, or of a folder of logs."""
    return sum(file.stat().st_size for file in (path.iterdir() if path.is_dir() else [path]))


def count_calls(database: Path) -> int:
    """Rows of `collectives`."""
    from harness_analysis.store import open_database

    with open_database(database) as con:
        (rows,) = con.execute("SELECT count(*) FROM collectives").fetchone() or (0,)
    return int(rows)


def measure(name: str, path: Path, times: int, jobs: int) -> str:
    """A row of the table, of the best of so many readings; the last column: share of the target."""
    command = [sys.executable, __file__, "--read", str(path), "--jobs", str(jobs)]
    outputs = [
        subprocess.run(command, capture_output=True, check=True, text=True).stdout
        for _ in range(times)
    ]
    found = min(map(json.loads, outputs), key=lambda one: one["cpu_s"])
    bytes_s, lines_s = found["bytes"] / found["cpu_s"], found["lines"] / found["cpu_s"]
    reached = max(bytes_s / BYTES_TARGET, lines_s / LINES_TARGET)
    return (
        f"| {name} | {found['bytes'] / 1e6:.0f} | {bytes_s / 1e6:.0f} | {lines_s / 1e6:.2f} | "
        f"{found['bytes'] / found['wall_s'] / 1e6:.0f} | {found['rows']:,} | "
        f"{found['rss_mb']:.0f} | {reached:.2f} |"
    )


def mixes(megabytes: int) -> Iterator[tuple[str, Callable[[Path], None]]]:
    """What logs hold, by name, and what writes one to a path."""
    yield "decode, rank 0 (calls and choices)", lambda p: write_decode(p, megabytes, 0, False)
    yield "decode, rank 1 (calls)", lambda p: write_decode(p, megabytes, 1, False)
    yield "decode, every address new", lambda p: write_decode(p, megabytes, 1, True)
    yield "eight ranks merged by mpirun", lambda p: write_merged(p, megabytes)
    for ranks in (8, 64, 512, 1024):
        job = Job(ranks=ranks)
        yield f"starts of {ranks} ranks", partial(write_starts, megabytes=megabytes, job=job)
        mixed = partial(write_starts, megabytes=megabytes, job=job, mixed=True)
        yield f"starts of {ranks} ranks, mixed", mixed
    for ranks in (8, 512):
        job = Job(ranks=ranks)
        yield f"a file a rank, {ranks}", partial(write_files, megabytes=megabytes, job=job)
    others = [(f"mixed, {version}", Job(version), "none") for version in DIALECTS]
    others += [(f"mixed, detail {d}", Job(detail=d), "none") for d in ("all", "trace")]
    others += [(f"mixed, behind {name}", Job(), name) for name in prefixes() if name != "none"]
    for name, job, prefix in others:
        yield (
            name,
            partial(write_starts, megabytes=megabytes, job=job, prefix=prefix, mixed=True),
        )


def main() -> None:
    """Make the logs, read them, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--times", type=int, default=1, help="readings of each; the best counts")
    parser.add_argument("--jobs", type=int, default=1, help="processes that read")
    parser.add_argument("--finished", action="store_true", help="time `harness ingest` instead")
    parser.add_argument("--only", default="", help="mixes whose names hold this")
    parser.add_argument("--repeat", type=Path, action="append", default=[], help="a log to repeat")
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.read:
        print(json.dumps(read_one(given.read, given.jobs)))
        return
    row = finished if given.finished else measure
    heads = FINISHED if given.finished else READ
    print("| " + " | ".join(heads) + " |\n" + "|---" * len(heads) + "|")
    todo = list(mixes(given.megabytes))
    todo += [(s.name, partial(repeat, s, megabytes=given.megabytes)) for s in given.repeat]
    for name, write in todo:
        if given.only in name:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "nccl.log"
                write(path)
                print(row(name, path, given.times, given.jobs), flush=True)


if __name__ == "__main__":
    main()
