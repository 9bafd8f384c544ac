"""A simulated TP x PP run whose breakdown is known, written in the real spool format.

The simulation knows one true clock. Ranks compute for drawn times; a collective ends everywhere
`transfer` after the last of its ranks arrived; a message leaves when both sides are there. What
each rank records is the true time seen through its host's clock (offset and drift), so whatever
ingest finds can be compared with what was put in, to the nanosecond where clocks are shared.
"""

from __future__ import annotations

import json
import random
import struct
from dataclasses import dataclass, field
from pathlib import Path

from harness_schemas import spool

PARTS = ("compute_ns", "comm_transfer_ns", "comm_wait_ns", "io_ns", "unresolved_ns")
EPOCH_NS = 1_800_000_000_000_000_000


@dataclass(frozen=True)
class Clock:
    """A host's clock against the true one."""

    offset_ns: int = 0
    drift_ppb: int = 0
    boot_id: str = "boot-a"

    def read(self, true_ns: int) -> int:
        """What this clock shows at a true time (counted from 0)."""
        return 5_000_000_000 + true_ns + self.offset_ns + true_ns * self.drift_ppb // 1_000_000_000


@dataclass
class Scenario:
    """What is simulated. Delays are added to one rank's computing before every collective."""

    tp: int = 2
    pp: int = 2
    steps: int = 12
    layers_per_stage: int = 3
    seed: int = 0
    clocks: tuple[Clock, ...] = (Clock(),)
    ranks_per_host: int = 64
    late_rank: int | None = None
    late_ns: int = 0
    preempted_ns: int = 0
    transfer_ns: int = 20_000
    pingpong_ns: int = 40_000


@dataclass
class RankWriter:
    """Records of one rank, as the recorder would have written them."""

    rank: int
    clock: Clock
    world_size: int
    host: str
    meta: list[dict[str, object]] = field(default_factory=list)
    records: list[tuple[int, ...]] = field(default_factory=list)
    descriptors: dict[str, int] = field(default_factory=dict)
    groups: dict[tuple[int, ...], int] = field(default_factory=dict)
    ordinals: dict[object, int] = field(default_factory=dict)
    now: int = 0
    cpu: int = 1_000
    unit: int = 0

    def __post_init__(self) -> None:
        self.meta.append(
            {
                "t": "start",
                "version": 1,
                "rank": self.rank,
                "world_size": self.world_size,
                "local_rank": self.rank,
                "host": self.host,
                "pid": 1000 + self.rank,
                "boot_id": self.clock.boot_id,
            }
        )
        self.anchor()

    def anchor(self) -> None:
        """Wall time is the true time plus the epoch, seen without error."""
        self.meta.append(
            {
                "t": "anchor",
                "mono_ns": self.clock.read(self.now),
                "wall_ns": EPOCH_NS + self.now,
                "width_ns": 50,
            }
        )

    def describe(self, name: str, category: str, **fields: object) -> int:
        """Id of a descriptor, defined on first use."""
        found = self.descriptors.get(name)
        if found is None:
            found = self.descriptors[name] = len(self.descriptors) + 1
            line = {"t": "desc", "id": found, "name": name, "category": category}
            self.meta.append({**line, "timeline": "host", **fields})
        return found

    def group(self, ranks: tuple[int, ...]) -> int:
        """Id of a group, defined on first use."""
        found = self.groups.get(ranks)
        if found is None:
            found = self.groups[ranks] = len(self.groups) + 1
            self.meta.append({"t": "group", "id": found, "ranks": list(ranks), "ordinal": 0})
        return found

    def record(
        self,
        kind: int,
        descriptor: int,
        start: int,
        end: int,
        cpu: tuple[int, int],
        num_bytes: int = -1,
        group: int = 0,
        peer: int = -1,
        ordinal: int = -1,
    ) -> None:
        """Append one record; `start` and `end` in true time."""
        head = spool.RECORD_MARKER << 48 | kind << 40 | descriptor
        times = (self.clock.read(start), self.clock.read(end))
        tail = (num_bytes, group << 32 | (peer + 1), ordinal, 0)
        self.records.append((head, len(self.records) + 1, 0, self.unit, *times, *cpu, *tail))

    def write(self, folder: Path) -> None:
        """Write the rank's files."""
        folder.mkdir(parents=True, exist_ok=True)
        stem = f"rank-{self.rank:05d}"
        self.meta.append({"t": "end", "records": len(self.records), "dropped": 0})
        lines = "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in self.meta)
        (folder / f"{stem}.meta.jsonl").write_text(lines)
        body = b"".join(struct.pack("<12q", *record) for record in self.records)
        header = spool.MAGIC + struct.pack("<II", spool.RECORD_BYTES, 0)
        (folder / f"{stem}.spans").write_bytes(header + body)


Truth = dict[tuple[int, str, int | None], dict[str, int]]


class Simulation:
    """Runs a scenario; `truth[(rank, phase, step)]` holds the parts of each unit's window."""

    def __init__(self, scenario: Scenario) -> None:
        self.s = scenario
        self.random = random.Random(scenario.seed)
        world = scenario.tp * scenario.pp
        self.writers = []
        for rank in range(world):
            host = rank // scenario.ranks_per_host
            clock = scenario.clocks[host % len(scenario.clocks)]
            self.writers.append(RankWriter(rank, clock, world, f"node{host}"))
        self.truth: Truth = {}
        self._key: list[tuple[int, str, int | None]] = [(0, "", None)] * world
        self._opened: list[tuple[int, int]] = [(0, 0)] * world

    def run(self) -> Simulation:
        """Simulate loading, one prefill and the decode steps."""
        self._pingpong()
        self._all_ranks("load", None, self._load)
        self._all_ranks("prefill", 0, self._forward)
        for step in range(1, self.s.steps + 1):
            self._all_ranks("decode", step, self._forward)
        self._pingpong()
        return self

    def write(self, folder: Path) -> None:
        """Write the spools of all ranks."""
        for writer in self.writers:
            writer.anchor()
            writer.write(folder)

    # -- units ---------------------------------------------------------------------------

    def _all_ranks(self, phase: str, step: int | None, work: object) -> None:
        for writer in self.writers:
            self._open(writer, phase, step)
        work()  # type: ignore[operator]
        for writer in self.writers:
            self._close(writer, phase)

    def _open(self, writer: RankWriter, phase: str, step: int | None) -> None:
        unit = sum(row["t"] == "unit" for row in writer.meta) + 1
        key = {"phase": phase, "step": step, "batch": 0, "microbatch": 0, "repeat": 0}
        line = {"t": "unit", "id": unit, "start_ns": writer.clock.read(writer.now), **key}
        writer.meta.append({**line, "warmup": False, "perturbed_by": None})
        writer.unit = unit
        self._key[writer.rank] = (writer.rank, phase, step)
        self.truth[self._key[writer.rank]] = dict.fromkeys(PARTS, 0)
        self._opened[writer.rank] = (writer.now, writer.cpu)

    def _close(self, writer: RankWriter, phase: str) -> None:
        start, cpu = self._opened[writer.rank]
        descriptor = writer.describe(phase, "unit")
        writer.record(spool.KIND_UNIT, descriptor, start, writer.now, (cpu, writer.cpu))

    def _add(self, writer: RankWriter, part: str, duration: int) -> None:
        self.truth[self._key[writer.rank]][part] += duration

    # -- work ------------------------------------------------------------------------------

    def compute(self, writer: RankWriter, duration: int, preempted: int = 0) -> None:
        """Compute for `duration` of CPU time, off the CPU for `preempted` besides."""
        writer.now += duration + preempted
        writer.cpu += duration
        self._add(writer, "compute_ns", duration)
        self._add(writer, "unresolved_ns", preempted)

    def collective(self, writers: list[RankWriter], num_bytes: int) -> None:
        """An all-reduce: ends everywhere `transfer` after the last arrival."""
        ranks = tuple(writer.rank for writer in writers)
        last = max(writer.now for writer in writers)
        end = last + self.s.transfer_ns
        for writer in writers:
            self._add(writer, "comm_wait_ns", last - writer.now)
            self._add(writer, "comm_transfer_ns", self.s.transfer_ns)
            self._communicate(
                writer, "all_reduce", writer.now, end, num_bytes, writer.group(ranks), -1, ranks
            )
            writer.now = end

    def message(self, sender: RankWriter, receiver: RankWriter, num_bytes: int) -> None:
        """A rendezvous: both leave `transfer` after the later side came."""
        last = max(sender.now, receiver.now)
        end = last + self.s.transfer_ns
        for writer, op, peer in ((sender, "send", receiver), (receiver, "recv", sender)):
            self._add(writer, "comm_wait_ns", last - writer.now)
            self._add(writer, "comm_transfer_ns", self.s.transfer_ns)
            group = writer.group(tuple(range(len(self.writers))))
            key = (op, peer.rank)
            self._communicate(writer, op, writer.now, end, num_bytes, group, peer.rank, key)
            writer.now = end

    def _communicate(
        self,
        writer: RankWriter,
        op: str,
        start: int,
        end: int,
        num_bytes: int,
        group: int,
        peer: int,
        key: object,
    ) -> None:
        ordinal = writer.ordinals[key] = writer.ordinals.get(key, -1) + 1
        kind = spool.KIND_P2P if peer >= 0 else spool.KIND_COLLECTIVE
        descriptor = writer.describe(op, "comm", op=op, dtype="float32")
        cpu = (writer.cpu, writer.cpu + 1_000)
        writer.cpu += 1_000
        writer.record(kind, descriptor, start, end, cpu, num_bytes, group, peer, ordinal)

    def _load(self) -> None:
        for writer in self.writers:
            self.compute(writer, self.random.randint(10_000, 900_000))
            duration = self.random.randint(50_000, 500_000)
            start, writer.now = writer.now, writer.now + duration
            cpu = (writer.cpu, writer.cpu + duration // 3)
            writer.cpu = cpu[1]
            self._add(writer, "io_ns", duration)
            descriptor = writer.describe("read", "io", op="read")
            writer.record(spool.KIND_IO, descriptor, start, writer.now, cpu, 4096)

    def _forward(self) -> None:
        tp = self.s.tp
        for stage in range(self.s.pp):
            members = self.writers[stage * tp : (stage + 1) * tp]
            for _ in range(self.s.layers_per_stage):
                for writer in members:
                    late = self.s.late_ns if writer.rank == self.s.late_rank else 0
                    noise = self.random.randint(100_000, 110_000)
                    self.compute(writer, noise + late, self.s.preempted_ns)
                if tp > 1:
                    self.collective(members, 4096)
            if stage + 1 < self.s.pp:
                following = self.writers[(stage + 1) * tp : (stage + 2) * tp]
                for sender, receiver in zip(members, following, strict=True):
                    self.message(sender, receiver, 8192)
        if self.s.pp > 1:
            for sender, receiver in zip(self.writers[-tp:], self.writers[:tp], strict=True):
                self.message(sender, receiver, 8)

    def _pingpong(self) -> None:
        """Round trips between rank 0 and the first rank of every other clock."""
        first = self.writers[0]
        seen = {first.clock.boot_id}
        for peer in self.writers:
            if peer.clock.boot_id in seen:
                continue
            seen.add(peer.clock.boot_id)
            for _ in range(20):
                there = self.s.pingpong_ns // 2 + self.random.randint(0, 2_000)
                back = self.s.pingpong_ns // 2 + self.random.randint(0, 2_000)
                t0 = max(first.now, peer.now)
                t1, t2, t3 = t0 + there, t0 + there + 3_000, t0 + there + 3_000 + back
                first.meta.append(
                    {
                        "t": "clock",
                        "peer": peer.rank,
                        "t0": first.clock.read(t0),
                        "t1": peer.clock.read(t1),
                        "t2": peer.clock.read(t2),
                        "t3": first.clock.read(t3),
                    }
                )
                first.now = peer.now = t3
