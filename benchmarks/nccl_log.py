"""Speed of reading NCCL logs: `python benchmarks/nccl_log.py`.

Writes logs as ranks do, or repeats logs that are given, reads each in a fresh process into
Arrow batches, and prints MB/s, lines/s, rows and peak memory as a Markdown table. Times are of
the process's own CPU, so that a busy machine does not show; wall time stands beside them.
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
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

BYTES_TARGET = 100e6
LINES_TARGET = 1e6
"""Whichever is less: 100 MB/s or a million lines a second."""

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


def startup(rank: int, size: int, serial: int) -> Iterator[str]:
    """What a rank prints while it joins communicators: of all, of its host, of its peers elsewhere.

    The subsystems INIT, ENV, GRAPH and NET of NCCL 2.28, with eight GPUs and adapters a host.
    """
    pid, device = 4000 + rank % 8 + 64 * serial, rank % 8
    prefix = f"gpu-{rank // 8:04d}:{pid}:{pid} [{device}] NCCL INFO "
    yield prefix + f"Bootstrap: Using eth0:10.0.{rank // 2000}.{rank // 8 % 250}<0>"
    yield prefix + "NCCL version 2.28.9+cuda13.0"
    yield prefix + "NCCL_IB_HCA set to mlx5"
    for nic in range(8):
        yield (
            f"{prefix}NET/IB: [{nic}] mlx5_{nic}:uverbs{nic}:1/IB provider=Mlx5 speed=400000 "
            f"context=0x7fc3{address(rank, nic)} pciPath=/sys/devices/pci0000:{nic}a ar=1"
        )
    groups = ((rank, size, 1), (device, 8, 1), (rank // 8, size // 8, 8))
    for number, (place, members, step) in enumerate(groups):
        for part in (before_rings, edges, after_edges):
            yield from (prefix + text for text in part(rank, place, members, step, number))


def address(rank: int, number: int) -> str:
    """Part of an address that no other communicator has."""
    return f"{(rank * 64 + number) * 0x9E3779B1 % (1 << 32):08x}"


def init_line(rank: int, place: int, members: int, number: int) -> str:
    """The line that begins and ends an initialisation."""
    device = rank % 8
    function = "ncclCommSplit" if number else "ncclCommInitRankConfig"
    identity = "commId 0xfeedbeef00000001"
    if number:
        identity = f"parent 0x55d0{address(rank, 0)} splitCount {number} color {device} key 0"
    return (
        f"{function} comm 0x55d0{address(rank, number)} rank {place} nranks {members} "
        f"cudaDev {device} nvmlDev {device} busId {device + 1}b000 {identity} - Init "
    )


def before_rings(rank: int, place: int, members: int, step: int, number: int) -> Iterator[str]:
    """From the plugin to the found graphs."""
    host = f"{rank // 8:x}"
    yield from ("Initialized NET plugin IB", "Assigned NET plugin IB to comm", "Using network IB")
    yield init_line(rank, place, members, number) + "START"
    yield f"Bootstrap timings total 0.0{int(address(rank, number), 16) % 90000 + 10000}"
    for nic in range(8):
        yield f"NET/IB : GPU Direct RDMA Enabled for HCA {nic} 'mlx5_{nic}'"
    yield "=== System : maxBw 48.0 totalBw 480.0 ==="
    for gpu in range(8):
        yield f"+ PCI[48.0] - GPU/{host}-{gpu + 1}b000 ({rank // 8 * 8 + gpu})"
        yield f"              + NVL[480.0] - NVS/{host}"
    gpus = " ".join(f"GPU/{host}-{gpu + 1}b000" for gpu in range(8))
    for pattern in (4, 1):
        yield f"Pattern {pattern}, crossNic 0, nChannels 16, bw 48.0/48.0, type NVL/PIX"
        for channel in range(16):
            yield f"{channel:2d} : NET/{host}-{channel % 8} {gpus} NET/{host}-{channel % 8}"


def edges(rank: int, place: int, members: int, step: int, number: int) -> Iterator[str]:
    """The communicator's rings (its first rank prints them), trees and transports."""
    device = rank % 8
    yield (
        f"comm 0x55d0{address(rank, number)} rank {place} nRanks {members} "
        f"nNodes {max(1, members * step // 8)} localRanks 8 localRank {device} MNNVL 0"
    )
    if not place:
        ring = " ".join(map(str, range(members)))[:900]
        yield from (f"Channel {channel:02d}/16 : {ring}" for channel in range(16))
    tree = f"{place + 1}/-1/-1->{place}->{place - 1}"
    yield "Trees " + " ".join(f"[{channel}] {tree}" for channel in range(16))
    yield "P2P Chunksize set to 131072"
    for distance in (1, members - 1):
        peer, back = (place + distance) % members, (place - distance) % members
        near = step == 1 and peer // 8 == place // 8
        for channel in range(0 if near else 16):
            nic = f"NET/IB/{channel % 8}" + ("/GDRDMA" if channel % 2 else "")
            ends = f"{back}[{device}] -> {place}[{device}]"
            yield f"Channel {channel:02d}/0 : {ends} [receive] via {nic}"
        via = "via P2P/CUMEM" if near else f"[send] via NET/IB/{device}/GDRDMA"
        for channel in range(16):
            yield f"Channel {channel:02d}/0 : {place}[{device}] -> {peer}[{device}] {via}"


def after_edges(rank: int, place: int, members: int, step: int, number: int) -> Iterator[str]:
    """From the connection to the end."""
    yield "Connected all rings, use ring PXN 0 GDR 1"
    yield "Connected all trees"
    yield "threadThresholds 8/8/64 | 512/8/64 | 512 | 512"
    yield (
        f"16 coll channels, 16 collnet channels, {0 if step > 1 else 16} nvls channels, "
        "16 p2p channels, 2 p2p channels per peer"
    )
    yield "CC Off, workFifoBytes 1048576"
    init = init_line(rank, place, members, number)
    yield init + "COMPLETE"
    yield (
        f"Init timings - {init.split()[0]}: rank {place} nranks {members} total 1.53 (kernels 0.24,"
        " alloc 0.99, bootstrap 0.01, allgathers 0.01, topo 0.07, graphs 0.01, connections 0.21,"
        " rest 0.00)"
    )


def write_startups(path: Path, megabytes: int, ranks: int, mixed: bool) -> None:
    """The starts of so many ranks one after the other, or as the ranks print beside each other."""
    draw = random.Random(7)
    left, serial = megabytes * 1_000_000, 0
    with path.open("w") as stream:
        while left > 0:
            sources = [startup(rank, ranks, serial) for rank in range(ranks)]
            while sources and left > 0:
                place = draw.randrange(len(sources)) if mixed else 0
                lines = list(islice(sources[place], draw.randrange(1, 40)))
                if not lines:
                    del sources[place]
                left -= stream.write("".join(line + "\n" for line in lines))
            serial += 1


def repeat(source: Path, target: Path, megabytes: int) -> None:
    """A given log, again and again."""
    opener = gzip.open if source.suffix == ".gz" else open
    with opener(source, "rb") as stream:
        text = stream.read()
    with target.open("wb") as out:
        for _ in range(max(1, megabytes * 1_000_000 // max(len(text), 1))):
            out.write(text)


def read_one(path: Path) -> dict[str, float]:
    """Read a log in this process."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from harness_collectors.nccl_log import COLLECTOR
    from harness_schemas.spi import IngestContext

    pc.sum(pa.array([1]))  # loading libraries is not reading
    wall, cpu, rows, lines = time.perf_counter(), time.process_time(), 0, 0
    for batch in COLLECTOR.ingest([path], IngestContext(path.parent)):
        rows += batch.data.num_rows
        if batch.table == "collection":
            lines = json.loads(batch.data["detail"][0].as_py())["lines"]
    return {
        "cpu_s": time.process_time() - cpu,
        "wall_s": time.perf_counter() - wall,
        "rows": rows,
        "lines": lines,
        "bytes": path.stat().st_size,
        "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def measure(name: str, path: Path) -> str:
    """A row of the table; the last column is the share of the target that was reached."""
    command = [sys.executable, __file__, "--read", str(path)]
    output = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    found = json.loads(output)
    bytes_s, lines_s = found["bytes"] / found["cpu_s"], found["lines"] / found["cpu_s"]
    reached = max(bytes_s / BYTES_TARGET, lines_s / LINES_TARGET)
    return (
        f"| {name} | {found['bytes'] / 1e6:.0f} | {bytes_s / 1e6:.0f} | {lines_s / 1e6:.2f} | "
        f"{found['bytes'] / found['wall_s'] / 1e6:.0f} | {found['rows']:,} | "
        f"{found['rss_mb']:.0f} | {reached:.1f} |"
    )


def main() -> None:
    """Make the logs, read them, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--repeat", type=Path, action="append", default=[], help="a log to repeat")
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.read:
        print(json.dumps(read_one(given.read)))
        return
    print("| log | MB | MB/s | M lines/s | MB/s wall | rows | RSS MB | of target |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "nccl.log"
        write_decode(path, given.megabytes, 0, False)
        print(measure("decode, rank 0 (calls and choices)", path), flush=True)
        write_decode(path, given.megabytes, 1, False)
        print(measure("decode, rank 1 (calls)", path), flush=True)
        write_decode(path, given.megabytes, 1, True)
        print(measure("decode, every address new", path), flush=True)
        write_merged(path, given.megabytes)
        print(measure("eight ranks merged by mpirun", path), flush=True)
        write_decode(path, 4 * given.megabytes, 1, False)
        print(measure("decode, four times as long", path), flush=True)
        write_startups(path, given.megabytes, 512, False)
        print(measure("starts of 512 ranks, one after the other", path), flush=True)
        write_startups(path, given.megabytes, 512, True)
        print(measure("starts of 512 ranks, mixed", path), flush=True)
        for source in given.repeat:
            repeat(source, path, given.megabytes)
            print(measure(source.name, path), flush=True)


if __name__ == "__main__":
    main()
