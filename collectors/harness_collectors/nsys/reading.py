"""From one report to batches: read once, split by rank, resolved, and its state told."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from harness_collectors.names.classify import UNKNOWN_KERNEL, classifier
from harness_collectors.names.step_marks import step_marks
from harness_collectors.nsys.export.names import Names, Strings
from harness_collectors.nsys.export.sources import NAME, Source
from harness_collectors.nsys.export.tables import Export
from harness_collectors.nsys.report import nccl, ranges, work
from harness_collectors.nsys.report.survey import BY_ORDER, Gpu, Seats, Survey
from harness_collectors.nsys.rows.collectives import collective_batches
from harness_collectors.nsys.rows.spans import span_batches
from harness_collectors.nsys.rows.trace import SOURCE, Numbering, RankTrace, Shared
from harness_collectors.reading.text_evidence import batch
from harness_collectors.traces.keys import step_rows
from harness_schemas.spi import Batch

_SHARED_FACTS: Final = ("nsys", "schema", "driver", "cuda_driver", "cpu", "os", "graph_mode")
_ORDER_NOTE: Final = "ranks are numbered in the order of processes: the report does not name them"
_GRAPH_HINT: Final = "the kernels inside are not known (record with --cuda-graph-trace=node)"


@dataclass(frozen=True)
class Setting:
    """What a report is read with: what others said, and what goes on from report to report."""

    comms: dict[int, nccl.Communicator]
    numberings: dict[int | None, Numbering]
    own_run: bool
    several: bool = False


@dataclass
class Content:
    """All rows of a report, by process."""

    raw: work.Raw
    strings: Strings
    names: Names
    payloads: ranges.Payloads
    clocks: list[ranges.ClockMark]

    @property
    def device_rows(self) -> int:
        """Rows of device work, of all processes."""
        return sum(len(part) for parts in self.raw.device.values() for part in parts)

    def devices(self) -> dict[int, list[int]]:
        """Devices of each process that has device work."""
        found = {}
        for process, parts in self.raw.device.items():
            used = {d for part in parts for d in work.distinct(part.device) if d >= 0}
            found[process] = sorted(used)
        return found

    def members(self, schemas: nccl.Schemas) -> list[nccl.Member]:
        """Who joined which of NCCL's communicators."""
        calls = self.payloads.calls
        codes = self.strings.codes(np.array([name for _, _, name, _ in calls], np.int64), "call")
        listed = list(self.names)
        named = [
            (start, process, listed[code], blob)
            for (start, process, _, blob), code in zip(calls, codes.tolist(), strict=True)
        ]
        return nccl.members_of(named, schemas)


@dataclass(frozen=True)
class Clock:
    """How the report's times become those of its rows: `offset_ns` is added."""

    domain: str
    offset_ns: int
    anchors: tuple[tuple[int, int], ...]
    """Moments on the rows' clock, and Unix time."""


def read_content(export: Export) -> Content:
    """Every row of a report, and the texts that name them."""
    names, raw = Names(), work.Raw()
    strings = Strings(names)
    work.read_device(raw, export, strings, names)
    work.read_host(raw, export, strings)
    payloads, marks = ranges.read_ranges(raw, export, strings, names)
    raw.settle()
    strings.fetch(export)
    clocks = ranges.clock_marks(marks, strings, names)
    return Content(raw, strings, names, payloads, clocks)


def batches(
    source: Source, export: Export, content: Content, found: Survey, seats: Seats, setting: Setting
) -> Iterator[Batch]:
    """Rows of one report: clocks, ranks, spans, communication, and its state last."""
    host = source.host or found.host
    clock = _clock(source, found, content, host)
    state = State(source, export, found, seats, content, host)
    parts = {process: _part(content, process) for process in {seat.process for seat in seats.seats}}
    shared = Shared(
        list(content.names), classifier(), step_marks(), nccl.Schemas(export), setting.comms,
        setting.own_run, setting.several,
    )  # fmt: skip
    traces = []
    for seat in seats.seats:
        numbering = setting.numberings.setdefault(seat.rank, Numbering())
        traces.append(RankTrace(shared, seat, *parts[seat.process], clock.offset_ns, numbering))
    del parts
    present = [trace for trace in traces if trace.bounds is not None]
    yield from _anchors(present, clock, host)
    if not setting.own_run:  # there the recorder says more about its ranks
        yield from _ranks(present, clock, host, found)
    while traces:
        trace = traces.pop(0)  # let go of, once told
        yield from span_batches(trace)
        yield from collective_batches(trace)
        steps = step_rows(trace.rank, trace.units)
        if steps:
            yield batch("steps", steps)
        state.add(trace)
    yield state.batch()


def _part(content: Content, process: int) -> tuple[work.Device, work.Host, dict[int, bytes]]:
    device = work.device_of(content.raw, process, content.strings)
    host = work.host_of(content.raw, process, content.strings, content.names)
    content.raw.device.pop(process, None)
    content.raw.host.pop(process, None)
    first = len(host) - content.payloads.counted.get(process, 0)
    blobs = content.payloads.rows.get(process, {})
    return device, host, {first + place: blob for place, blob in blobs.items()}


# -- clock and ranks ---------------------------------------------------------------------------


def _clock(source: Source, found: Survey, content: Content, host: str | None) -> Clock:
    """The host's monotonic clock, where the program marked it in the report; else Unix time.

    A mark is written after the clock was read: the one that waited least is right.
    """
    marks = content.clocks
    if marks:
        best = max(marks, key=lambda mark: mark.monotonic_ns - mark.start)
        anchors = tuple((mark.monotonic_ns, mark.wall_ns) for mark in marks)
        return Clock(best.boot_id, best.monotonic_ns - best.start, anchors)
    name = f"nsys:{host or '?'}:{source.name}"
    if found.epoch_ns is None:
        return Clock(name, 0, ())
    return Clock(name, found.epoch_ns, ((found.epoch_ns, found.epoch_ns),))


def _anchors(traces: list[RankTrace], clock: Clock, host: str | None) -> Iterator[Batch]:
    rows = [
        {
            "source": SOURCE,
            "rank": trace.rank,
            "host": host,
            "clock_domain": clock.domain,
            "raw_ns": raw,
            "wall_ns": wall,
        }
        for trace in traces
        for raw, wall in clock.anchors
    ]
    if rows:
        yield batch("clock_anchors", rows)


def _ranks(
    traces: list[RankTrace], clock: Clock, host: str | None, found: Survey
) -> Iterator[Batch]:
    rows = []
    for trace in traces:
        device, bounds = trace.main_device, trace.bounds
        gpu = Gpu(None, None, None)
        for pid in (trace.pid, -1):
            gpu = found.gpus.get((pid, -1 if device is None else device), gpu)
        rows.append(
            {
                "rank": trace.rank,
                "host": host,
                "pid": trace.pid,
                "clock_domain": clock.domain,
                "device": None if device is None else f"cuda:{device}",
                "gpu_uuid": gpu.uuid,
                "pci": gpu.pci,
                "last_record_ns": bounds[1] if bounds else None,
            }
        )
    if rows:
        yield batch("ranks", rows)


# -- state -------------------------------------------------------------------------------------


class State:
    """How a report fared: filled while its ranks are told, a row of `collection` in the end."""

    def __init__(
        self,
        source: Source,
        export: Export,
        found: Survey,
        seats: Seats,
        content: Content,
        host: str | None,
    ) -> None:
        self._source = source
        self._export = export
        self._found = found
        self._seats = seats
        self._content = content
        self._host = host
        self._any_device = content.device_rows > 0
        self._counts: Counter[str] = Counter()
        self._sums: Counter[str] = Counter()
        self._ranks: dict[str, int | None] = {}

    def add(self, trace: RankTrace) -> None:
        """Count what one rank had."""
        parts = (trace.device, trace.host) if trace.owns_host else (trace.device,)
        for part in parts:
            for kind, number in enumerate(np.bincount(part.kind, minlength=len(work.KINDS))):
                self._counts[work.KINDS[kind]] += int(number)
        kernel_ns, unknown_ns = trace.kernel_time(UNKNOWN_KERNEL)
        hidden = trace.host.name[trace.graph_launches] if trace.owns_host else ()
        graphs = int(trace.shared.graph_calls[hidden].sum()) if len(hidden) else 0
        self._sums.update(
            units=len(trace.units) if trace.owns_host else 0,
            device_rows=len(trace.device),
            device_rows_launched=int((trace.launch >= 0).sum()),
            device_rows_in_units=trace.device_rows_in_units,
            whole_graphs=trace.whole_graphs,
            empty_graphs=graphs,
            unseen_kernels=len(hidden) - graphs,
            kernel_ns=kernel_ns,
            unknown_ns=unknown_ns,
        )
        self._ranks[str(trace.pid)] = trace.rank

    def batch(self) -> Batch:
        """The row of `collection`."""
        problems, records = self._problems(), sum(self._counts.values())
        notes = [_ORDER_NOTE] if self._seats.known_by == BY_ORDER else []
        state = "degraded" if problems else "ok"
        if not records:
            state, problems = "failed", problems or ["it holds no events"]
        ranks = list(self._ranks.values())
        row = {
            "collector": NAME,
            "host": self._host,
            "rank": ranks[0] if len(ranks) == 1 else None,
            "state": state,
            "reason": "; ".join(problems + notes) or None,
            "bytes": self._source.size,
            "records": records,
            "unreadable": self._export.lost + self._content.raw.dropped,
            "detail": json.dumps(self._detail(), sort_keys=True),
        }
        return batch("collection", [row])

    def _problems(self) -> list[str]:
        problems = []
        dropped = self._content.raw.dropped
        if self._export.lost:
            problems.append(f"the file is torn: {self._export.lost} pages or rows of it are lost")
        if dropped:
            problems.append(f"{dropped} events have no time or no process")
        if self._found.epoch_ns is None and not self._content.clocks:
            problems.append("the session's start is not recorded: its times fit no other file's")
        if not self._content.strings.texts and self._counts["kernel"] + self._counts["runtime"]:
            problems.append("the table of texts is missing: names are unknown")
        problems += self._graph_problems()
        traced = self._found.facts.get("traced", "").split("+")
        if "Cuda" in traced and not self._any_device:
            problems.append("CUDA was traced, but no device work is on record")
        return problems + [f"nsys: {text}" for text in self._found.errors]

    def _graph_problems(self) -> list[str]:
        """Work inside CUDA graphs that the report does not show."""
        whole, empty = self._sums["whole_graphs"], self._sums["empty_graphs"]
        if whole:
            return [f"{whole} CUDA graphs are recorded as a whole: {_GRAPH_HINT}"]
        if empty:
            return [f"{empty} launches of CUDA graphs show no device work: {_GRAPH_HINT}"]
        if unseen := self._sums["unseen_kernels"]:
            return [f"{unseen} launches and no kernel: their table was not exported, or not traced"]
        return []

    def _detail(self) -> dict[str, Any]:
        sums, facts = self._sums, self._found.facts
        kernel_ns = sums["kernel_ns"]
        return {
            "file": self._source.name,
            "activities": {kind: n for kind, n in sorted(self._counts.items()) if n},
            "ranks": self._ranks,
            "ranks_from": self._seats.known_by,
            "units": sums["units"],
            "device_rows": sums["device_rows"],
            "device_rows_launched": sums["device_rows_launched"],
            "device_rows_in_units": sums["device_rows_in_units"],
            "gpus": sorted({gpu.name for gpu in self._found.gpus.values() if gpu.name}),
            "unclassified_share": round(sums["unknown_ns"] / kernel_ns, 6) if kernel_ns else None,
            **{key: facts[key] for key in _SHARED_FACTS if key in facts},
        }
