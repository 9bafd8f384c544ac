"""What ranks print while they start, as NCCL 2.4 to 2.30 and RCCL spell it, for `nccl_log.py`."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

GPUS = 8
"""On a host, each with a network adapter."""


@dataclass(frozen=True)
class Dialect:
    """How a version prints."""

    banner: str
    """Printed by every rank from 2.22 on, by rank 0 before."""
    edge: str
    """Up to the ranks; `{c}` is the channel."""
    near: str
    identity: str
    """What an init line holds behind the device."""
    starts: bool = True
    """Whether the beginning of an initialisation is printed."""
    names: bool = True
    """Whether init lines name the function, and times are printed."""
    counts: bool = True
    """Whether init lines number the splits of a communicator."""
    rccl: bool = False


OLD = "busId {bus}000"
NEW = "nvmlDev {device} busId {bus}b000 {id}"
DIALECTS = {
    "2.4": Dialect(
        "NCCL version 2.4.8+cuda10.1", "Ring {c:02d} :", "P2P/IPC", "nvmlDev {device}", False, False
    ),
    "2.10": Dialect(
        "NCCL version 2.10.3+cuda11.3", "Channel {c:02d} :", "P2P/IPC/read", OLD, False, False
    ),
    "2.18": Dialect(
        "NCCL version 2.18.5+cuda12.1",
        "Channel {c:02d}/0 :",
        "P2P/CUMEM/read",
        NEW,
        True,
        False,
        False,
    ),
    "2.22": Dialect(
        "NCCL version 2.22.3+cuda12.5", "Channel {c:02d}/0 :", "P2P/CUMEM/read", NEW, counts=False
    ),
    "2.28": Dialect("NCCL version 2.28.9+cuda13.0", "Channel {c:02d}/0 :", "P2P/CUMEM", NEW),
    "2.30": Dialect("NCCL version 2.30.3+cuda13.2", "Channel {c:02d}/1 :", "P2P/CUMEM/CE", NEW),
    "rccl": Dialect(
        "RCCL version : 2.27.7-HEAD:0d2c4fd",
        "Channel {c:02d}/0 :",
        "P2P/direct pointer",
        NEW,
        rccl=True,
    ),
}


@dataclass(frozen=True)
class Job:
    """A job that starts: its version, how many ranks, and what it prints beside the usual."""

    version: str = "2.28"
    ranks: int = 512
    detail: str = ""
    """`all`: what all subsystems print; `trace`: what a build with traces does."""

    @property
    def dialect(self) -> Dialect:
        """How its version prints."""
        return DIALECTS[self.version]


@dataclass(frozen=True)
class Place:
    """A rank's place in a communicator."""

    rank: int
    place: int
    members: int
    step: int
    number: int
    serial: int
    """Which start of the job it is."""

    @property
    def device(self) -> int:
        """Its GPU."""
        return self.rank % GPUS

    @property
    def comm(self) -> str:
        """The communicator's address, which no other has."""
        return f"0x55d0{address(self.rank, self.number)}"


def address(rank: int, number: int) -> str:
    """Part of an address that no other communicator has."""
    return f"{(rank * 64 + number) * 0x9E3779B1 % (1 << 32):08x}"


def startup(job: Job, rank: int, serial: int) -> Iterator[str]:
    """What a rank prints while it joins communicators: of all, of its host, of its peers elsewhere.

    The subsystems INIT, ENV, GRAPH and NET, with eight GPUs and adapters a host.
    """
    pid, device = 4000 + rank % GPUS + 64 * serial, rank % GPUS
    prefix = f"gpu-{rank // GPUS:04d}:{pid}:{pid} [{device}] NCCL INFO "
    yield prefix + f"Bootstrap: Using eth0:10.0.{rank // 2000}.{rank // GPUS % 250}<0>"
    if job.dialect.names or not rank:
        yield prefix + job.dialect.banner
    yield prefix + "NCCL_IB_HCA set to mlx5"
    for nic in range(GPUS):
        yield (
            f"{prefix}NET/IB: [{nic}] mlx5_{nic}:uverbs{nic}:1/IB provider=Mlx5 speed=400000 "
            f"context=0x7fc3{address(rank, nic)} pciPath=/sys/devices/pci0000:{nic}a ar=1"
        )
    groups = [Place(rank, rank, job.ranks, 1, 0, serial), Place(rank, device, GPUS, 1, 1, serial)]
    if job.ranks > GPUS:
        groups.append(Place(rank, rank // GPUS, job.ranks // GPUS, GPUS, 2, serial))
    traced = prefix.replace(" NCCL INFO ", " {:.6f} graph/search.cc:{} NCCL TRACE ")
    for at in groups:
        for part in (before_rings, graphs, edges, after_edges):
            yield from (prefix + text for text in part(job, at))
            if job.detail == "all":
                yield from (prefix + text for text in subsystems(at))
            if job.detail == "trace":
                yield from (
                    traced.format(1e6 + line * 3.75 + rank, 900 + line) + f"Trying GPU {line} -> 3"
                    for line in range(40)
                )


def init_line(job: Job, at: Place) -> str:
    """The line that begins and ends an initialisation, without its event."""
    identity = f"commId 0xfeedbeef{at.serial:08x}"
    if at.number:
        count = f"splitCount {at.number} " if job.dialect.counts else ""
        color = at.rank // GPUS if at.number == 1 else at.device
        identity = f"parent 0x55d0{address(at.rank, 0)} {count}color {color} key 0"
    said = job.dialect.identity.format(device=at.device, bus=at.device + 1, id=identity)
    line = f"comm {at.comm} rank {at.place} nranks {at.members} cudaDev {at.device} {said} - Init "
    return f"{function(job, at)} {line}" if job.dialect.names else line


def function(job: Job, at: Place) -> str:
    """What the application called."""
    name = "ncclCommSplit" if at.number else "ncclCommInitRankConfig"
    return name + "_impl" if job.dialect.rccl else name


def before_rings(job: Job, at: Place) -> Iterator[str]:
    """From the plugin to the adapters."""
    yield from ("Initialized NET plugin IB", "Assigned NET plugin IB to comm", "Using network IB")
    if job.dialect.starts:
        yield init_line(job, at) + "START"
    yield f"Bootstrap timings total 0.0{int(address(at.rank, at.number), 16) % 90000 + 10000}"
    for nic in range(GPUS):
        yield f"NET/IB : GPU Direct RDMA Enabled for HCA {nic} 'mlx5_{nic}'"


def graphs(job: Job, at: Place) -> Iterator[str]:
    """The machine and the graphs that were found in it."""
    host = f"{at.rank // GPUS:x}"
    yield "=== System : maxBw 48.0 totalBw 480.0 ==="
    for gpu in range(GPUS):
        yield f"+ PCI[48.0] - GPU/{host}-{gpu + 1}b000 ({at.rank // GPUS * GPUS + gpu})"
        yield f"              + NVL[480.0] - NVS/{host}"
    gpus = " ".join(f"GPU/{host}-{gpu + 1}b000" for gpu in range(GPUS))
    for pattern in (4, 1):
        yield f"Pattern {pattern}, crossNic 0, nChannels 16, bw 48.0/48.0, type NVL/PIX"
        for channel in range(16):
            yield f"{channel:2d} : NET/{host}-{channel % 8} {gpus} NET/{host}-{channel % 8}"


def edges(job: Job, at: Place) -> Iterator[str]:
    """The communicator's rings (its first rank prints them), trees and transports."""
    if job.dialect.starts and not job.dialect.rccl:
        yield (
            f"comm {at.comm} rank {at.place} nRanks {at.members} "
            f"nNodes {max(1, at.members * at.step // GPUS)} localRanks 8 localRank {at.device} "
            "MNNVL 0"
        )
    if not at.place:
        ring = " ".join(map(str, range(at.members)))[:900]
        yield from (f"Channel {channel:02d}/16 : {ring}" for channel in range(16))
    tree = f"{at.place + 1}/-1/-1->{at.place}->{at.place - 1}"
    yield "Trees " + " ".join(f"[{channel}] {tree}" for channel in range(16))
    yield "P2P Chunksize set to 131072"
    for distance in (1, at.members - 1):
        yield from _to_peer(job, at, distance)


def _to_peer(job: Job, at: Place, distance: int) -> Iterator[str]:
    peer, back = (at.place + distance) % at.members, (at.place - distance) % at.members
    near, device = at.step == 1 and peer // GPUS == at.place // GPUS, at.device
    behind = f" comm {at.comm} nRanks {at.members:02d}" if job.dialect.rccl else ""
    for c in range(0 if near else 16):
        nic = f"NET/IB/{c % 8}" + ("/GDRDMA" if c % 2 else "")
        ends = f"{back}[{device}] -> {at.place}[{device}]"
        yield f"{job.dialect.edge.format(c=c)} {ends} [receive] via {nic}{behind}"
    via = f"via {job.dialect.near}" if near else f"[send] via NET/IB/{device}/GDRDMA"
    for c in range(16):
        ends = f"{at.place}[{device}] -> {peer}[{device}]"
        yield f"{job.dialect.edge.format(c=c)} {ends} {via}{behind}"


def after_edges(job: Job, at: Place) -> Iterator[str]:
    """From the connection to the end."""
    yield "Connected all rings, use ring PXN 0 GDR 1"
    yield "Connected all trees"
    yield "threadThresholds 8/8/64 | 512/8/64 | 512 | 512"
    if job.dialect.rccl:
        yield (
            f"comm:{at.comm}, nRanks:{at.members}, nNodes:1, coll channels:16 collnet channels:16, "
            "nvls channels:0, p2p channels:16, p2p channels per peer:2"
        )
    else:
        yield (
            f"16 coll channels, 16 collnet channels, {0 if at.step > 1 else 16} nvls channels, "
            "16 p2p channels, 2 p2p channels per peer"
        )
    yield "CC Off, workFifoBytes 1048576"
    yield init_line(job, at) + "COMPLETE"
    if job.dialect.names:
        yield (
            f"Init timings - {function(job, at)}: rank {at.place} nranks {at.members} total 1.53 "
            "(kernels 0.24, alloc 0.99, bootstrap 0.01, allgathers 0.01, topo 0.07, graphs 0.01, "
            "connections 0.21, rest 0.00)"
        )


def subsystems(at: Place) -> Iterator[str]:
    """What NCCL_DEBUG_SUBSYS=ALL adds: proxies and memory; nearly every line its own."""
    for number in range(24):
        pointer = f"0x7fc3{address(at.rank + 7, number + at.number)}"
        yield f"New proxy send connection {number} from local rank {at.device}, transport 2"
        yield f"Connected to proxy localRank {number % GPUS} -> connection {pointer}"
        yield f"Mem Realloc old size {number * 64}, new size {number * 64 + 64} pointer {pointer}"
        yield f"init.cc:1798 Cuda Host Alloc Size {number * 8} pointer {pointer}"
        yield f"transport/net.cc:{700 + number} Cuda Alloc Size 2097152 pointer {pointer}"


def as_printed(line: str) -> str:
    """Nothing before it."""
    return line


def _clock(number: int) -> str:
    return (
        f"2026-03-07T10:{number // 60_000 % 60:02d}:{number // 1000 % 60:02d}.{number % 1000:03d}"
    )


def prefixes() -> dict[str, Callable[[str], str]]:
    """What may stand before NCCL's lines, by what puts it there. They count lines."""
    numbers = iter(range(1 << 40))

    def rank(line: str) -> int:
        return int(line[4:8]) * GPUS + int(line.partition("[")[2][0])

    return {
        "none": as_printed,
        "own stamps": lambda line: f"[17000{next(numbers) // 10000:05d}.123456] {line}",
        "srun -l": lambda line: f"{rank(line):3d}: {line}",
        "mpirun": lambda line: f"[1,{rank(line)}]<stdout>:{line}",
        "torchrun": lambda line: f"[default{line.partition('[')[2][0]}]:{line}",
        "ray": lambda line: f"\x1b[36m(Worker pid={rank(line)}, ip=10.0.0.1)\x1b[0m {line}",
        "vllm": lambda line: f"(VllmWorker rank={rank(line)} pid={1000 + rank(line)}) {line}",
        "time": lambda line: f"{_clock(next(numbers))[11:]} {line}",
        "kubernetes": lambda line: f"{_clock(next(numbers))}123456Z stdout F {line}",
        "docker": lambda line: json.dumps(
            {"log": line + "\n", "stream": "stdout", "time": _clock(next(numbers)) + "Z"},
            separators=(",", ":"),
        ),
    }


def write_starts(
    path: Path, megabytes: float, job: Job, prefix: str = "none", mixed: bool = False
) -> None:
    """The starts of the job's ranks one after the other, or beside each other; again until full."""
    draw, put = random.Random(7), prefixes()[prefix]
    left, serial = megabytes * 1e6, 0
    with path.open("w") as stream:
        while left > 0:
            sources = [startup(job, rank, serial) for rank in range(job.ranks)]
            while sources and left > 0:
                place = draw.randrange(len(sources)) if mixed else 0
                lines = list(islice(sources[place], draw.randrange(1, 40)))
                if not lines:
                    del sources[place]
                left -= stream.write("".join(put(line) + "\n" for line in lines))
            serial += 1


def write_files(folder: Path, megabytes: float, job: Job) -> None:
    """The same, a file a process, as `nccl.%h.%p.log` gives."""
    folder.mkdir()
    left, serial = megabytes * 1e6, 0
    while left > 0:
        for rank in range(job.ranks):
            lines = "".join(line + "\n" for line in startup(job, rank, serial))
            (folder / f"nccl.{rank // GPUS:04d}.{serial}.{rank % GPUS}.log").write_text(lines)
            left -= len(lines)
            if left <= 0:
                return
        serial += 1
