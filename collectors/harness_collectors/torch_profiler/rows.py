"""Rows from what the torch_profiler hook recorded: spans, collectives, anchors, its state."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from harness_collectors.names.classify import KINETO_KINDS, UNKNOWN_KERNEL, classifier
from harness_collectors.names.comm_kernels import describe_kernel
from harness_collectors.reading import arrow
from harness_collectors.torch_profiler.capture import NAME
from harness_collectors.torch_profiler.file import Ints, RankFile, Window, read_file
from harness_schemas.spi import Batch

LAUNCH_SLACK_NS: Final = 5_000
"""How far a launch may lie outside its unit: the error of Kineto's clock (measured: 2 us)."""
_HOST_COMM: Final = ("gloo:", "mpi:", "ucc:")
"""Annotations around collectives that the host itself runs."""
_DEVICE: Final = ("kernel", "memcpy", "memset", "sync")
_KEY_COLUMNS: Final = {
    "batch": pa.int32(),
    "microbatch": pa.int32(),
    "repeat": pa.int32(),
    "phase": pa.string(),
    "step": pa.int32(),
    "warmup": pa.bool_(),
}


def ingest_rank(path: Path) -> Iterator[Batch]:
    """Spans, collectives, clock anchors and the state of one rank's file."""
    file = read_file(path)
    tally = Tally()
    if file.header:
        yield from _anchors(file)  # before the times that rest on them
        for window_id in sorted(file.windows):
            window = WindowRows(file, window_id, tally.next_span)
            tally.next_span += window.size
            yield from window.batches(tally)
    yield _collection(file, tally, path)


@dataclass
class Tally:
    """Running totals over a rank's windows."""

    next_span: int = 1
    events: int = 0
    device_events: int = 0
    expected: int = 0
    kernel_ns: int = 0
    unknown_ns: int = 0
    """Part of `kernel_ns` in kernels that no rule knows."""


class WindowRows:
    """One window's events resolved: kinds, classes, launches, units, monotonic times."""

    def __init__(self, file: RankFile, window_id: int, first_span: int) -> None:
        self.file = file
        self.window = file.windows[window_id]
        self.columns = self.window.columns()
        self.first_span = first_span
        self.rank = int(file.header["rank"])
        self._to_monotonic = _clock_map(self.window.head)
        self.start = self._to_monotonic(self.columns["start"])
        self.kinds, self.categories, self.rules = _classes(file, self.columns)
        self.on_device = np.isin(self.kinds, _DEVICE)
        self.launch = self._launches()
        self.unit = self._units()
        self._mark_own()
        self.kept = self.on_device | self._kept_host()
        self.size = int(self.kept.sum()) + 3

    def _launches(self) -> Ints:
        """Index of the runtime call that launched each device event; -1: none recorded."""
        correlation = self.columns["corr"]
        calls = np.flatnonzero((self.kinds == "runtime") & (correlation > 0))
        calls = calls[np.argsort(correlation[calls], kind="stable")]
        found = np.full(len(correlation), -1, np.int64)
        if len(calls):
            place = np.searchsorted(correlation[calls], correlation)
            place = np.minimum(place, len(calls) - 1)
            same = self.on_device & (correlation > 0) & (correlation[calls][place] == correlation)
            found[same] = calls[place][same]
        return found

    def _units(self) -> Ints:
        """Index of the unit in which each event was launched (host events: began); -1: none."""
        units = self.window.units
        begun = np.array([unit["start_ns"] for unit in units], np.int64)
        ended = np.array([unit["end_ns"] for unit in units], np.int64)
        if not len(begun):
            return np.full(len(self.start), -1, np.int64)
        order = np.argsort(begun, kind="stable")
        moment = np.where(self.launch >= 0, self.start[self.launch], self.start)
        place = np.searchsorted(begun[order], moment + LAUNCH_SLACK_NS, side="right") - 1
        held = (place >= 0) & (moment <= ended[order][place] + LAUNCH_SLACK_NS)
        # Device work whose launch is not on record belongs to no unit: where it ran says nothing.
        held &= ~self.on_device | (self.launch >= 0)
        return np.where(held, order[place], -1)

    def _mark_own(self) -> None:
        """What the hook itself launched while opening or closing is the profiler's own."""
        head = self.window.head
        moment = np.where(self.launch >= 0, self.start[self.launch], self.start)
        before = (moment >= head["opened_ns"]) & (moment <= head["started_ns"])
        after = (moment >= head["stopping_ns"]) & (moment <= head["stopped_ns"])
        own = (self.unit < 0) & (before | after)
        self.categories[own] = "overhead"
        self.rules[own] = "profiler-own"

    def _kept_host(self) -> NDArray[np.bool_]:
        """Host events that become spans: all but operators inside other operators (collectives
        stay, whatever is around them)."""
        keep = ~self.on_device
        ops = np.isin(self.kinds, ("op", "host_op")) & (self.categories != "comm")
        ops = np.flatnonzero(ops)
        thread, start = self.columns["stream"][ops], self.start[ops]
        end = start + self.columns["dur"][ops]
        order = np.lexsort((-end, start, thread))
        keep[ops[order]] = _outermost(thread[order], end[order])
        return keep

    # -- batches ---------------------------------------------------------------------------

    def batches(self, tally: Tally) -> Iterator[Batch]:
        """Spans of the profiler itself, of the events, and communication among them."""
        tally.events += len(self.start)
        tally.device_events += int(self.on_device.sum())
        tally.expected += int(self.window.head["events"])
        kernels = self.kinds == "kernel"
        duration = self.columns["dur"]
        tally.kernel_ns += int(duration[kernels].sum())
        tally.unknown_ns += int(duration[kernels & (self.rules == UNKNOWN_KERNEL)].sum())
        yield self._own_spans()
        rows = np.flatnonzero(self.kept)
        if len(rows):
            yield self._spans(rows)
        comm = rows[np.isin(self.categories[rows], ("comm", "comm_fused")) & self.on_device[rows]]
        if len(comm):
            yield self._collectives(comm)

    def _own_spans(self) -> Batch:
        """The recorded stretch, and what opening and closing it cost."""
        head = self.window.head
        closed = self.window.written_ns or head["stopped_ns"]
        return arrow.batch(
            "spans",
            {
                "rank": [self.rank] * 3,
                "source": [NAME] * 3,
                "timeline": ["host"] * 3,
                "span_id": [self.first_span + offset for offset in range(3)],
                "name": ["torch_profiler.window", "torch_profiler.start", "torch_profiler.stop"],
                "category": ["phase", "overhead", "overhead"],
                "start_ns": [head["opened_ns"], head["opened_ns"], head["stopping_ns"]],
                "end_ns": [head["stopped_ns"], head["started_ns"], closed],
                "perturbed_by": [NAME] * 3,
                "complete": [self.window.written_ns is not None] * 3,
            },
        )

    def _spans(self, rows: Ints) -> Batch:
        device = self.on_device[rows]
        launched = self.launch[rows] >= 0
        correlation = self.columns["corr"][rows]
        return arrow.batch(
            "spans",
            {
                "rank": pa.array(np.full(len(rows), self.rank)),
                **self._keys(rows),
                "span_id": pa.array(self._span_ids()[rows]),
                "source": pa.repeat(NAME, len(rows)),
                "timeline": pa.array(np.where(device, "device", "host")),
                "device": _known(self.columns["device"][rows], device),
                "stream": pa.array(self._streams(rows)),
                "name": _named(self.file.names, self.columns["name"][rows]),
                "category": pa.array(self.categories[rows]),
                "rule": pa.array(self.rules[rows]),
                "start_ns": pa.array(self.start[rows]),
                "end_ns": pa.array(self.start[rows] + self.columns["dur"][rows]),
                "raw_start_ns": pa.array(self.columns["start"][rows]),
                "launch_ns": _known(self.start[self.launch[rows]], launched),
                "correlation": _known(correlation, correlation > 0),
                "complete": pa.repeat(True, len(rows)),
                "attrs": self._attrs(rows, launched),
            },
        )

    def _span_ids(self) -> Ints:
        return self.first_span + 2 + np.cumsum(self.kept)

    def _streams(self, rows: Ints) -> Ints:
        """Stream on the device; on the host the thread, 0 for the main one."""
        stream = self.columns["stream"][rows]
        main = ~self.on_device[rows] & (stream == self.file.header.get("pid"))
        return np.where(main, 0, stream)

    def _keys(self, rows: Ints) -> dict[str, pa.Array]:
        unit = self.unit[rows]
        index = pa.array(unit, mask=unit < 0)
        units = self.window.units
        keys = {
            name: pa.array([each[name] for each in units], kind).take(index)
            for name, kind in _KEY_COLUMNS.items()
        }
        keys["perturbed_by"] = pa.repeat(NAME, len(rows))
        return keys

    def _attrs(self, rows: Ints, launched: NDArray[np.bool_]) -> pa.Array:
        """Device work of a CUDA graph is marked: many kernels share their launch."""
        graph = np.array(["GraphLaunch" in name for name in self.file.names] or [False])
        replayed = launched & graph[self.columns["name"][self.launch[rows]]]
        note = json.dumps({"graph_launch": True})
        return pa.array([note if each else None for each in replayed], pa.string())

    def _collectives(self, rows: Ints) -> Batch:
        names = [self.file.names[code] for code in self.columns["name"][rows]]
        parts = [describe_kernel(name) for name in names]
        launched = self.launch[rows] >= 0
        fused = self.categories[rows] == "comm_fused"
        reasons = ["a kernel that computes and communicates" if both else None for both in fused]
        return arrow.batch(
            "collectives",
            {
                "rank": pa.array(np.full(len(rows), self.rank)),
                **self._keys(rows),
                "span_id": pa.array(self._span_ids()[rows]),
                "source": pa.repeat(NAME, len(rows)),
                "timeline": pa.repeat("device", len(rows)),
                "op": [part.op for part in parts],
                "dtype": [part.dtype for part in parts],
                "enqueue_ns": _known(self.start[self.launch[rows]], launched),
                "start_ns": pa.array(self.start[rows]),
                "end_ns": pa.array(self.start[rows] + self.columns["dur"][rows]),
                "duration_ns": pa.array(self.columns["dur"][rows]),
                "unsplit_reason": reasons,
                "kernel": names,
                "algo": [part.algo for part in parts],
                "proto": [part.proto for part in parts],
            },
        )


def _outermost(thread: Ints, end: Ints) -> NDArray[np.bool_]:
    """Which intervals, sorted by thread, start and falling end, lie in no earlier one."""
    keep = np.ones(len(end), np.bool_)
    last_thread, last_end = None, 0
    for place, (who, finish) in enumerate(zip(thread.tolist(), end.tolist(), strict=True)):
        if who == last_thread and finish <= last_end:
            keep[place] = False
        else:
            last_thread, last_end = who, finish
    return keep


def _kind(activity: str, name: str, on_cpu: bool) -> str:
    if activity == "cpu_op":
        return "op" if on_cpu else "host_op"
    if on_cpu and name.startswith(_HOST_COMM):
        return "op"
    return KINETO_KINDS.get(activity, "annotation")


def _classes(file: RankFile, columns: dict[str, Ints]) -> tuple[NDArray[Any], ...]:
    """Kind, category and rule of every event; each (activity, name) is looked up once."""
    codes = columns["act"] << 32 | columns["name"]
    distinct, inverse = np.unique(codes, return_inverse=True)
    on_cpu = file.header["device"] == "cpu"
    table = np.empty((len(distinct), 3), object)
    for place, code in enumerate(distinct.tolist()):
        name = file.names[code & 0xFFFFFFFF]
        kind = _kind(file.names[code >> 32], name, on_cpu)
        table[place] = (kind, *classifier().classify(name, kind))
    found = table[inverse]
    return found[:, 0], found[:, 1], found[:, 2]


def _clock_map(head: dict[str, Any]) -> Callable[[Ints], Ints]:
    """Kineto's clock to CLOCK_MONOTONIC through the anchors at both ends of the window."""
    if head["clock"] != "unix":
        return lambda times: times
    first, last = head["anchors"][0], head["anchors"][-1]
    offset, change = first[0] - first[1], (last[0] - last[1]) - (first[0] - first[1])
    length = max(last[1] - first[1], 1)

    def convert(times: Ints) -> Ints:
        share = np.clip((times - first[1]) / length, 0.0, 1.0)
        moved: Ints = times + offset + np.rint(share * change).astype(np.int64)
        return moved

    return convert


def _known(values: Ints, valid: NDArray[np.bool_]) -> pa.Array:
    return pa.array(values, mask=~valid)


def _named(names: list[str], codes: Ints) -> pa.Array:
    return pa.array(names, pa.string()).take(pa.array(codes))


def _anchors(file: RankFile) -> Iterator[Batch]:
    anchors = sorted({a for window in file.windows.values() for a in window.head["anchors"]})
    if anchors:
        yield arrow.batch(
            "clock_anchors",
            {
                "source": [NAME] * len(anchors),
                "rank": [file.header["rank"]] * len(anchors),
                "host": [file.header["host"]] * len(anchors),
                "clock_domain": [file.header["boot_id"]] * len(anchors),
                "raw_ns": [anchor[0] for anchor in anchors],
                "wall_ns": [anchor[1] for anchor in anchors],
                "width_ns": [anchor[2] for anchor in anchors],
            },
        )


def _collection(file: RankFile, tally: Tally, path: Path) -> Batch:
    problems = []
    if not file.header:
        problems.append("its first line, which names the rank, is not there")
    if file.torn:
        problems.append("the file is cut")
    if file.header.get("device") == "cuda" and file.windows and not tally.device_events:
        problems.append("no kernels recorded: another profiler may hold CUPTI")
    lost = max(0, tally.expected - tally.events)
    if lost or file.unreadable:
        problems.append(f"{lost} events and {file.unreadable} lines could not be read")
    state = "ok"
    if problems:
        state = "degraded" if tally.events else "failed"
    elif not file.windows:
        state, problems = "skipped", ["no unit of the run lay in the chosen window"]
    return arrow.row(
        "collection",
        collector=NAME,
        host=file.header.get("host"),
        rank=file.header.get("rank"),
        state=state,
        reason="; ".join(problems) or None,
        bytes=path.stat().st_size,
        records=tally.events,
        dropped=sum(window.head["dropped"] for window in file.windows.values()),
        unreadable=lost + file.unreadable,
        detail=json.dumps(_detail(file, tally), sort_keys=True),
    )


def _detail(file: RankFile, tally: Tally) -> dict[str, Any]:
    share = tally.unknown_ns / tally.kernel_ns if tally.kernel_ns else None
    return {
        "torch": file.header.get("torch"),
        "cuda": file.header.get("cuda"),
        "device": file.header.get("device"),
        "detached": file.header.get("detached"),
        "options": file.header.get("options"),
        "prime_ns": [prime["stopped_ns"] - prime["opened_ns"] for prime in file.primes],
        "windows": [_window_detail(file.windows[number]) for number in sorted(file.windows)],
        "unclassified_kernel_share": share,
    }


def _window_detail(window: Window) -> dict[str, Any]:
    head = window.head
    written = window.written_ns
    return {
        "units": len(window.units),
        "events": head["events"],
        "start_ns": head["started_ns"] - head["opened_ns"],
        "stop_ns": head["stopped_ns"] - head["stopping_ns"],
        "write_ns": None if written is None else written - head["stopped_ns"],
    }
