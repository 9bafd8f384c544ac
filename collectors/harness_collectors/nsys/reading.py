"""From one report to batches: read once, split by rank, resolved, and its state told."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import numpy as np
import pyarrow as pa

from harness_collectors.classify import UNKNOWN_KERNEL, classifier
from harness_collectors.nsys import nccl, ranges, work
from harness_collectors.nsys.collectives import collective_batches
from harness_collectors.nsys.export import Export
from harness_collectors.nsys.names import Names, Strings
from harness_collectors.nsys.pages import NULL
from harness_collectors.nsys.rows import span_batches, step_rows
from harness_collectors.nsys.sources import NAME, Source
from harness_collectors.nsys.survey import Gpu, Seat, Seats, Survey, rows_of
from harness_collectors.nsys.trace import SOURCE, Numbering, RankTrace, Shared
from harness_collectors.step_marks import step_marks
from harness_collectors.text_evidence import batch
from harness_schemas.spi import Batch

_Rows = TypeVar("_Rows", work.Device, work.Host)
_SHARED_FACTS: Final = ("nsys", "schema", "driver", "cuda_driver", "cpu", "os", "graph_mode")


@dataclass(frozen=True)
class Setting:
    """What a report is read with: what others said, and what goes on from report to report."""

    comms: dict[int, nccl.Communicator]
    numberings: dict[int | None, Numbering]
    own_run: bool


@dataclass
class Content:
    """All rows of a report. `dropped`: rows without a time or a process."""

    device: work.Device
    host: work.Host
    payload: pa.Array
    names: list[str]
    clocks: list[ranges.ClockMark]
    dropped: int
    strings: int


@dataclass(frozen=True)
class Clock:
    """How the report's times become those of its rows: `offset_ns` is added."""

    domain: str
    offset_ns: int
    anchors: tuple[tuple[int, int], ...]
    """Moments on the rows' clock, and Unix time."""


def read_content(export: Export) -> Content:
    """Every row of a report, names resolved."""
    names = Names()
    raw = work.read_raw(export)
    raw_ranges = ranges.read_raw(export, names)
    ids = np.concatenate([*raw.name_ids, raw_ranges.columns["textId"]])
    strings = Strings(export, ids)
    device = work.device_work(raw, export, strings, names)
    calls = work.host_work(raw, strings, names)
    found = ranges.resolve(raw_ranges, export, strings, names)
    sound = [
        work.sound_rows(part.start, owner)
        for part, owner in (
            (device, device.process),
            (calls, calls.thread),
            (found.host, found.host.thread),
        )
    ]
    kept = [np.flatnonzero(each) for each in sound]
    host = work.joined_hosts([calls.take(kept[1]), found.host.take(kept[2])])
    return Content(
        _bounded(device.take(kept[0])),
        _bounded(host),
        found.payload.take(pa.array(kept[2])),
        list(names),
        found.clocks,
        sum(int((~each).sum()) for each in sound),
        len(strings),
    )


def _bounded(rows: _Rows) -> _Rows:
    rows.end = np.where(np.abs(rows.end) < work.LATEST_NS, rows.end, NULL)
    return rows


def batches(
    source: Source, export: Export, found: Survey, seats: Seats, setting: Setting
) -> Iterator[Batch]:
    """Rows of one report: clocks, ranks, spans, communication, and its state last."""
    content = read_content(export)
    host = source.host or found.host
    clock = _clock(source, found, content, host)
    shared = Shared(
        content.names, classifier(), step_marks(), nccl.Schemas(export), setting.comms,
        setting.own_run,
    )  # fmt: skip
    traces = [_trace(shared, seat, content, clock, setting) for seat in seats.seats]
    present = [trace for trace in traces if trace.bounds is not None]
    yield from _anchors(present, clock, host)
    if not setting.own_run:  # there the recorder says more about its ranks
        yield from _ranks(present, clock, host, found)
    for trace in traces:
        yield from span_batches(trace)
        yield from collective_batches(trace)
        steps = step_rows(trace)
        if steps:
            yield batch("steps", steps)
    yield _collection(source, export, found, seats, content, traces, host)


def _trace(
    shared: Shared, seat: Seat, content: Content, clock: Clock, setting: Setting
) -> RankTrace:
    rows = rows_of(seat, content.device.process, content.device.device)
    of_host = work.process_of(content.host.thread) == seat.process
    first_range = len(content.host) - len(content.payload)
    kept = np.flatnonzero(of_host)
    return RankTrace(
        shared=shared,
        seat=seat,
        device=content.device.take(rows),
        host=content.host.take(kept),
        payload=content.payload.take(pa.array(kept[kept >= first_range] - first_range)),
        offset_ns=clock.offset_ns,
        numbering=setting.numberings.setdefault(seat.rank, Numbering()),
    )


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


def _collection(
    source: Source,
    export: Export,
    found: Survey,
    seats: Seats,
    content: Content,
    traces: list[RankTrace],
    host: str | None,
) -> Batch:
    records = len(content.device) + len(content.host)
    problems = _problems(export, found, content, traces)
    notes = []
    if len(seats.seats) > 1 and seats.known_by == "the order of processes":
        notes = ["ranks are numbered in the order of processes: the report does not name them"]
    state = "degraded" if problems else "ok"
    if not records:
        state, problems = "failed", problems or ["it holds no events"]
    row = {
        "collector": NAME,
        "host": host,
        "rank": traces[0].rank if len(traces) == 1 else None,
        "state": state,
        "reason": "; ".join(problems + notes) or None,
        "bytes": source.size,
        "records": records,
        "unreadable": export.lost + content.dropped,
        "detail": json.dumps(_detail(source, found, seats, content, traces), sort_keys=True),
    }
    return batch("collection", [row])


def _problems(
    export: Export, found: Survey, content: Content, traces: list[RankTrace]
) -> list[str]:
    problems = []
    if export.lost:
        problems.append(f"the file is torn: {export.lost} pages or rows of it are lost")
    if content.dropped:
        problems.append(f"{content.dropped} events have no time or no process")
    if found.epoch_ns is None and not content.clocks:
        problems.append("the session's start is not recorded: its times fit no other file's")
    if not content.strings and (len(content.device) or len(content.host)):
        problems.append("the table of texts is missing: names are unknown")
    problems += _graph_problems(traces)
    if "Cuda" in found.facts.get("traced", "").split("+") and not len(content.device):
        problems.append("CUDA was traced, but no device work is on record")
    return problems + [f"nsys: {text}" for text in found.errors]


def _graph_problems(traces: list[RankTrace]) -> list[str]:
    """Work inside CUDA graphs that the report does not show."""
    whole = sum(trace.whole_graphs for trace in traces)
    if whole:
        return [
            f"{whole} CUDA graphs are recorded as a whole: the kernels inside are not known "
            "(record with --cuda-graph-trace=node)"
        ]
    launched = sum(trace.graph_launches for trace in traces)
    if launched:
        return [
            f"{launched} launches of CUDA graphs show no device work (record with "
            "--cuda-graph-trace=node)"
        ]
    return []


def _detail(
    source: Source, found: Survey, seats: Seats, content: Content, traces: list[RankTrace]
) -> dict[str, Any]:
    counts: Counter[str] = Counter()
    for part in (content.device, content.host):
        kinds, numbers = np.unique(part.kind, return_counts=True)
        for kind, number in zip(kinds.tolist(), numbers.tolist(), strict=True):
            counts[work.KINDS[kind]] += number
    devices = sum(len(trace.device) for trace in traces)
    gpus = {gpu.name for gpu in found.gpus.values() if gpu.name}
    return {
        "file": source.name,
        "activities": dict(sorted(counts.items())),
        "ranks": {str(t.pid): t.rank for t in traces},
        "ranks_from": seats.known_by,
        "units": sum(len(trace.units) for trace in traces if trace.owns_host),
        "device_rows": devices,
        "device_rows_launched": sum(int((trace.launch >= 0).sum()) for trace in traces),
        "device_rows_in_units": sum(trace.device_rows_in_units for trace in traces),
        "gpus": sorted(gpus),
        "unclassified_share": _share(traces, UNKNOWN_KERNEL),
        **{key: found.facts[key] for key in _SHARED_FACTS if key in found.facts},
    }


def _share(traces: list[RankTrace], rule: str) -> float | None:
    """Share of the kernels' summed time that one rule classified; None: no kernels."""
    total = matched = 0
    for trace in traces:
        kernels, by_rule = trace.kernel_time(rule)
        total, matched = total + kernels, matched + by_rule
    return round(matched / total, 6) if total else None
