"""Simulated kernels of a TP x PP run whose breakdown and causes of lateness are known.

As tests/truth/simulate.py, but what is written are rows as a collector of kernels yields them.
There is one true time; what each rank records is that time through its own device's clock.
Computing overlaps itself (two streams), the start of a copy and the start of a collective, so
only a union of intervals gives the right answer.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from harness_analysis.build.database import build_database
from harness_schemas.spi import Batch
from harness_schemas.tables import BY_NAME, arrow_schema

SOURCE = "torch_profiler"
EPOCH_NS = 1_800_000_000_000_000_000
PARTS = ("compute_ns", "memcpy_ns", "comm_transfer_ns", "comm_wait_ns", "idle_ns")
CAUSES = ("compute", "copy", "gap", "inherited")
TRANSFER_NS = 20_000
TAIL_NS = 5_000
"""Computing goes on for so long after a collective has begun."""


@dataclass(frozen=True)
class Devices:
    """What is simulated. `late_by`: compute, copy, gap (before every collective) or p2p."""

    tp: int = 2
    pp: int = 2
    steps: int = 12
    layers: int = 3
    seed: int = 0
    late_rank: int | None = None
    late_by: str = "compute"
    late_ns: int = 0
    offsets_ns: tuple[int, ...] = (0, 50_000_000, -50_000_000, 7)
    shared_clock: bool = True
    """Round trips between the clocks were recorded; else only wall clocks, 3 ms wrong."""
    perturbed: bool = False

    def last_rank(self) -> int | None:
        """The rank that comes last to its group: of a late message, the one that receives it."""
        if self.late_rank is None or self.late_by != "p2p":
            return self.late_rank
        return self.late_rank + self.tp


@dataclass
class Device:
    """One rank: rows that it would record, and the truth about them."""

    rank: int
    now: int = 0
    unit: tuple[str, int] = ("", 0)
    spans: list[dict[str, object]] = field(default_factory=list)
    collectives: list[dict[str, object]] = field(default_factory=list)
    parts: dict[tuple[str, int], dict[str, int]] = field(default_factory=dict)
    opened: dict[tuple[str, int], int] = field(default_factory=dict)
    since: dict[str, dict[str, int]] = field(default_factory=dict)
    """By group: what it did since it left the group's last collective."""
    hidden: int = 0
    """Computing that goes on from now, already counted."""

    def open(self, phase: str, step: int) -> None:
        self.unit = (phase, step)
        self.parts[self.unit] = dict.fromkeys(PARTS, 0)
        self.opened[self.unit] = self.now

    def spend(self, part: str, cause: str, duration: int) -> None:
        """Let time pass, booked on a part of the unit and on every group's gap."""
        self.parts[self.unit][part] += duration
        for gap in self.since.values():
            gap[cause] += duration
        self.now += duration

    def span(self, category: str, start: int, end: int, stream: int = 7) -> int:
        phase, step = self.unit
        row = {"category": category, "start_ns": start, "end_ns": end, "stream": stream}
        keys = {"phase": phase, "step": step, "batch": 0, "microbatch": 0, "repeat": 0}
        self.spans.append({"span_id": len(self.spans), "name": category, **row, **keys})
        return len(self.spans) - 1

    def compute(self, duration: int) -> None:
        """Two kernels on two streams, the second begun before the first has ended."""
        half = duration // 2
        self.span("compute", self.now, self.now + half)
        self.span("compute", self.now + half // 2, self.now + duration, stream=8)
        self.span("memset", self.now + 10, self.now + 20)
        self.spend("compute_ns", "compute", duration)

    def copy(self, duration: int) -> None:
        """A copy that began under the computing before it."""
        self.span("memcpy", self.now - 3_000, self.now + duration, stream=9)
        self.spend("memcpy_ns", "copy", duration)

    def idle(self, duration: int) -> None:
        self.spend("idle_ns", "gap", duration)

    def communicate(self, end: int, **what: object) -> None:
        """A call until `end`; its last `TRANSFER_NS` move data, some of it under computing."""
        wait = end - TRANSFER_NS - self.now
        shown = max(0, wait - self.hidden)
        moved = TRANSFER_NS - max(0, self.hidden - wait)
        span = self.span("comm", self.now, end)
        row = {"span_id": span, "start_ns": self.now, "end_ns": end, "bytes": 4096, **what}
        self.collectives.append({**self.spans[span], **row, "duration_ns": end - self.now})
        self.spend("compute_ns", "compute", self.hidden)
        self.spend("comm_wait_ns", "inherited", shown)
        self.spend("comm_transfer_ns", "inherited", moved)
        self.hidden = 0


class DeviceRun:
    """Runs the scenario; the truth is in `devices`, `gaps` and `step_ns`."""

    def __init__(self, scenario: Devices) -> None:
        self.s = scenario
        self.devices = [Device(rank) for rank in range(scenario.tp * scenario.pp)]
        self.gaps: dict[tuple[str, int], dict[int, dict[str, int]]] = {}
        """(group, ordinal) of decode -> rank -> what it did since the ordinal before."""
        self.arrivals: dict[tuple[str, int], dict[int, int]] = {}
        self.ordinals: dict[object, int] = {}

    def run(self) -> DeviceRun:
        """Simulate a prefill and the decode steps."""
        for step in range(self.s.steps + 1):
            for device in self.devices:
                device.open("decode" if step else "prefill", step)
            self.forward(step)
        return self

    def forward(self, step: int) -> None:
        s, tp = self.s, self.s.tp
        for stage in range(s.pp):
            members = self.devices[stage * tp : (stage + 1) * tp]
            for layer in range(s.layers):
                for device in members:
                    self.layer(device, step, layer)
                self.all_reduce(members)
            if stage + 1 < s.pp:
                following = self.devices[(stage + 1) * tp : (stage + 2) * tp]
                for sender, receiver in zip(members, following, strict=True):
                    if s.late_ns and sender.rank == s.late_rank and s.late_by == "p2p":
                        sender.compute(s.late_ns)
                    self.message(sender, receiver)
        if s.pp > 1:
            for sender, receiver in zip(self.devices[-tp:], self.devices[:tp], strict=True):
                self.message(sender, receiver)

    def layer(self, device: Device, step: int, layer: int) -> None:
        """Work before a collective. The rank that comes late is otherwise the quickest."""
        s = self.s
        late = device.rank == s.last_rank()
        noise = random.Random(f"{s.seed} {device.rank} {step} {layer}").randint(0, 9_000)
        extra = {s.late_by: s.late_ns} if late else {}
        device.compute((60_000 if late else 70_000) + noise + extra.get("compute", 0))
        device.copy(8_000 + extra.get("copy", 0))
        device.idle(4_000 + extra.get("gap", 0))
        device.compute(20_000)
        # The last kernel outlives the beginning of the collective.
        device.span("compute", device.now - 1_000, device.now + TAIL_NS, stream=8)
        device.hidden = TAIL_NS

    def all_reduce(self, members: list[Device]) -> None:
        ranks = [device.rank for device in members]
        group = f"[{','.join(map(str, ranks))}]#0"
        seq = self._next(group)
        end = max(device.now for device in members) + TRANSFER_NS
        for device in members:
            gap = device.since.pop(group, None)
            if gap is not None and device.unit[0] == "decode":
                self.gaps.setdefault((group, seq), {})[device.rank] = gap
                self.arrivals.setdefault((group, seq), {})[device.rank] = device.now
            what = {"op": "all_reduce", "comm_group": group, "seq": seq, "group_size": len(ranks)}
            device.communicate(end, **what)
            device.since[group] = dict.fromkeys(CAUSES, 0)

    def message(self, sender: Device, receiver: Device) -> None:
        """A rendezvous: both leave a transfer after the later side came."""
        pair = {"src_rank": sender.rank, "dst_rank": receiver.rank}
        seq = self._next((sender.rank, receiver.rank))
        end = max(sender.now, receiver.now) + TRANSFER_NS
        for device, op in ((sender, "send"), (receiver, "recv")):
            device.communicate(end, op=op, comm_group="p2p", seq=seq, group_size=2, **pair)

    def _next(self, key: object) -> int:
        self.ordinals[key] = self.ordinals.get(key, -1) + 1
        return self.ordinals[key]

    # -- truth ---------------------------------------------------------------------------

    def late(self, rank: int, group: str) -> dict[str, float]:
        """Over the collectives that the rank came last to: its gaps beyond its peers' mean."""
        total = dict.fromkeys(CAUSES, 0.0)
        for key, gaps in self.gaps.items():
            arrivals = self.arrivals[key]
            if key[0] == group and arrivals[rank] > max(
                at for other, at in arrivals.items() if other != rank
            ):
                peers = [gap for other, gap in gaps.items() if other != rank]
                for cause in CAUSES:
                    mean = sum(gap[cause] for gap in peers) / len(peers)
                    total[cause] += gaps[rank][cause] - mean
        return total

    def step_ns(self) -> list[int]:
        """The longest window of a rank, of every decode step."""
        steps = list(self.devices[0].opened)[1:]
        return [max(sum(d.parts[unit].values()) for d in self.devices) for unit in steps]

    # -- evidence ------------------------------------------------------------------------

    def batches(self) -> Iterator[Batch]:
        """Rows on each device's own clock, clocks first."""
        yield from self._clocks()
        yield make_batch("ranks", [self._held(device.rank) for device in self.devices])
        for device in self.devices:
            offset = EPOCH_NS + self.s.offsets_ns[device.rank % len(self.s.offsets_ns)]
            marks = {"rank": device.rank, "source": SOURCE, "timeline": "device"}
            marks["perturbed_by"] = SOURCE if self.s.perturbed else None
            for table, rows in (("spans", device.spans), ("collectives", device.collectives)):
                yield make_batch(table, [_shifted(row, offset) | marks for row in rows])

    def _held(self, rank: int) -> dict[str, object]:
        """What a rank is and holds."""
        stage, tp_rank = divmod(rank, self.s.tp)
        first = stage * self.s.layers
        last = first + self.s.layers - 1
        return {"rank": rank, "stage": stage, "tp_rank": tp_rank,
                "first_layer": first, "last_layer": last}  # fmt: skip

    def _clocks(self) -> Iterator[Batch]:
        anchors, trips = [], []
        for device in self.devices:
            offset = self.s.offsets_ns[device.rank % len(self.s.offsets_ns)]
            error = 0 if self.s.shared_clock or device.rank % 2 == 0 else 3_000_000
            clock = {"rank": device.rank, "clock_domain": f"device-{device.rank}"}
            raw = EPOCH_NS + offset
            anchors.append({**clock, "source": SOURCE, "raw_ns": raw, "wall_ns": EPOCH_NS + error})
            times = {"t0_ns": raw, "t3_ns": raw + 600}
            base = EPOCH_NS + self.s.offsets_ns[0]
            times |= {"t1_ns": base + 200, "t2_ns": base + 400}
            trips.append({**clock, "peer": 0, "peer_domain": "device-0", **times})
        yield make_batch("clock_anchors", anchors)
        if self.s.shared_clock:
            yield make_batch("clock_pingpongs", trips[1:])

    def build(self, path: Path) -> Path:
        """The run's database."""
        build_database(path, "simulated", {"pp": self.s.pp, "tp": self.s.tp}, self.batches())
        return path


def _shifted(row: dict[str, object], offset: int) -> dict[str, object]:
    times = {name: int(str(row[name])) + offset for name in ("start_ns", "end_ns")}
    return {**row, **times}


def make_batch(table: str, rows: list[dict[str, object]]) -> Batch:
    """Rows given as dictionaries; columns that none of them has are left out."""
    schema = arrow_schema(BY_NAME[table])
    fields = [field for field in schema if any(field.name in row for row in rows)]
    return Batch(table, pa.Table.from_pylist(rows, schema=pa.schema(fields)))
