"""One Kineto file, resolved: the launch and the unit of every row."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

import numpy as np
import pyarrow as pa

from harness_collectors.kineto.columns import TraceColumns
from harness_collectors.kineto.comm import Groups
from harness_collectors.kineto.kinds import KERNEL
from harness_collectors.kineto.nesting import nested_rows
from harness_collectors.traces.columns import known, ranks
from harness_collectors.traces.hidden_graphs import launches_kernel, next_work, replays_graph
from harness_collectors.traces.keys import UnitKeys
from harness_collectors.traces.table import Table
from harness_collectors.traces.units import FoundUnits, UnitNumbers, unit_intervals

SOURCE: Final = "torch_profiler"
BATCH_ROWS: Final = 1 << 16
_ONE_KERNEL: Final = re.compile(r"hip(?:Ext)?(?:Module)?LaunchKernel")


@dataclass
class Numbering:
    """What goes on from file to file of one rank: span ids, ordinals of collectives and of units,
    the clock."""

    next_span: int = 1
    next_seq: dict[str, int] = field(default_factory=dict)
    units: UnitNumbers = field(default_factory=UnitNumbers)
    anchored: bool = False
    """The rank's clock has been described, or times without a description have been given."""

    def take(self, number: int) -> int:
        """The first of some span ids that nobody else has."""
        first = self.next_span
        self.next_span += number
        return first


@dataclass
class TraceFile:
    """One file, read: its columns and what they were resolved to.

    `offset_ns` is added to every raw time (the file's base); `cut`: the file lost its end.
    Columns of derived values are made a batch at a time: a file may hold 20 million rows.
    """

    columns: TraceColumns
    found: FoundUnits
    groups: Groups
    rank: int | None
    offset_ns: int
    cut: bool
    numbering: Numbering
    device_rows_in_units: int = 0

    def __post_init__(self) -> None:
        columns = self.columns
        self.device_names = list(columns.device_names)
        self.host_names = list(columns.host_names)
        self.units = self.found.units
        self.has_device = len(columns.device) > 0
        self.launch = _find_launches(columns.device["correlation"], columns.calls)
        self._doubt_shared_launches()
        self._intervals = unit_intervals(self.units)
        self._left_out = np.array(self.found.rows, np.int64)
        if columns.nesting.unordered:
            self._left_out = np.union1d(self._left_out, nested_rows(columns.host))
        # Span ids: units, then device rows, then host rows, in the order of the file.
        self.first_unit = self.numbering.next_span
        self.first_device = self.first_unit + len(self.units)
        self._first_host = self.first_device + len(columns.device)
        self.numbering.next_span = self._first_host + len(columns.host) - len(self._left_out)

    def _doubt_shared_launches(self) -> None:
        """Of several kernels on one plain launch all but the first lose it.

        ROCm's profiler hands the kernels of two launches to one of them (kineto pull request
        1416): whose the others are is not known. Replays of graphs do have many.
        """
        named = np.array([bool(_ONE_KERNEL.match(name)) for name in self.host_names], np.bool_)
        if not named.any():
            return
        device = self.columns.device
        rows = np.flatnonzero((self.launch >= 0) & (device["kind"] == KERNEL))
        rows = rows[named[self.columns.host.at("name", self.launch[rows])]]
        rows = rows[np.lexsort((device.at("start", rows), self.launch[rows]))]
        launch = self.launch[rows]
        self.launch[rows[1:][launch[1:] == launch[:-1]]] = -1

    def drop_device(self) -> None:
        """Forget device work, once it has been told: the largest files fill the memory."""
        for table in (self.columns.device, self.columns.comm):
            table.clear()
        self.launch = self.launch[:0].copy()

    def launches(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For device rows: is the launch known, its raw time, its thread."""
        launch = self.launch[rows]
        host = self.columns.host
        if not len(host):
            return np.zeros(len(rows), np.bool_), np.zeros(len(rows), np.int64), launch
        return launch >= 0, host.at("start", launch), host.at("thread", launch)

    def device_units(self, rows: np.ndarray) -> np.ndarray:
        """Index of the unit that launched each device row; -1: none."""
        known_launch, start, thread = self.launches(rows)
        return np.where(known_launch, self._intervals.locate(start, thread), -1)

    def host_units(self, rows: np.ndarray) -> np.ndarray:
        """Index of the unit in which each host row began; -1: none."""
        host = self.columns.host
        return self._intervals.locate(host.at("start", rows), host.at("thread", rows))

    def host_rows(self, first: int, last: int) -> np.ndarray:
        """Rows in a range that become spans: no annotation that became a unit, and no operator
        inside another."""
        last = min(last, len(self.columns.host))
        keep = np.ones(last - first, np.bool_)
        low, high = np.searchsorted(self._left_out, (first, last))
        keep[self._left_out[low:high] - first] = False
        return np.flatnonzero(keep) + first

    def host_span_ids(self, rows: np.ndarray) -> np.ndarray:
        """Span ids of host rows."""
        return rows - np.searchsorted(self._left_out, rows) + self._first_host

    @cached_property
    def keys(self) -> UnitKeys:
        """The keys of work of the units."""
        return UnitKeys(self.units)

    @cached_property
    def coded_device_names(self) -> pa.Array:
        """Names of device activities by their codes."""
        return pa.array(self.device_names, pa.string())

    @cached_property
    def coded_host_names(self) -> pa.Array:
        """Names of host activities by their codes."""
        return pa.array(self.host_names, pa.string())

    @cached_property
    def launches_graph(self) -> np.ndarray:
        """Which host names are calls that replay a CUDA graph (boolean, by code)."""
        return np.array([replays_graph(name) for name in self.host_names], np.bool_)

    @cached_property
    def has_kernels(self) -> bool:
        """Whether any kernel is on record: some keep the copies only."""
        return bool((self.columns.device["kind"] == KERNEL).any())

    @cached_property
    def hidden_graphs(self) -> tuple[np.ndarray, np.ndarray]:
        """Replays, and without any kernels launches, that launched nothing on record although
        later work is: their host rows, and when that work began."""
        calls, columns = self.columns.calls, self.columns
        rows = calls.at("row", slice(None))
        hides = self.launches_graph
        if not self.has_kernels:
            plain = [launches_kernel(name) for name in self.host_names]
            hides = hides | np.array(plain, np.bool_)
        replays = hides[columns.host.at("name", rows)] if len(rows) else rows > 0
        ids = calls.at("correlation", slice(None))[replays]
        rows = rows[replays][~np.isin(ids, columns.device.at("correlation", slice(None)))]
        if not rows.size:
            return rows, rows
        known, launch, _ = self.launches(np.arange(len(columns.device)))
        start = columns.device.at("start", slice(None))
        until = next_work(columns.host.at("start", rows), launch[known], start[known])
        return rows[until >= 0], until[until >= 0]

    @property
    def bounds(self) -> tuple[int, int] | None:
        """Earliest start and latest end of the events, in ns; None: there are none."""
        columns = self.columns
        if columns.first_ns > columns.last_ns:
            return None
        return columns.first_ns + self.offset_ns, columns.last_ns + self.offset_ns

    @property
    def main_device(self) -> int | None:
        """The device with most of the work; None: there is none."""
        devices, counts = np.unique(self.columns.device["device"], return_counts=True)
        named = devices >= 0
        return int(devices[named][counts[named].argmax()]) if named.any() else None

    @property
    def device_count(self) -> int:
        """Devices that ran kernels; a copy between two names both."""
        device = self.columns.device
        used = np.unique(device["device"][device["kind"] == KERNEL])
        return int((used >= 0).sum())

    def kernel_share(self, rule: str) -> float | None:
        """Share of the kernels' summed time that one rule classified; None: no kernels."""
        device = self.columns.device
        length = np.where(device["kind"] == KERNEL, np.maximum(device["dur"], 0), 0)
        total = int(length.sum())
        if not total:
            return None
        classify = self.columns.classifier.classify
        matched = np.array([classify(name)[1] == rule for name in self.device_names], np.bool_)
        return round(int(length[matched[device["name"]]].sum()) / total, 6)


def key_columns(trace: TraceFile, unit: np.ndarray) -> dict[str, pa.Array]:
    """The rank, and the keys of work of rows, given the index of their unit (-1: none)."""
    return {"rank": ranks(trace.rank, len(unit)), **trace.keys.columns(unit)}


def interval(trace: TraceFile, start: np.ndarray, dur: np.ndarray) -> dict[str, pa.Array]:
    """Times of rows; a span without an end is not complete."""
    begin = start + trace.offset_ns
    times = pa.array(begin)
    return {
        "start_ns": times,
        "raw_start_ns": times,
        "end_ns": known(begin + dur, dur >= 0),
        "complete": pa.array(dur >= 0),
    }


def _find_launches(correlation: np.ndarray, calls: Table) -> np.ndarray:
    """Host row (int32) of the CUDA call that launched each device row; -1: not in the file.

    Correlation ids are unique in a process; where two calls share one, the first counts.
    """
    ids, rows = calls["correlation"], calls["row"]
    if not len(ids):
        return np.full(len(correlation), -1, np.int32)
    if not np.all(ids[1:] > ids[:-1]):
        order = np.argsort(ids, kind="stable")
        ids, rows = ids[order], rows[order]
    place = np.minimum(np.searchsorted(ids, correlation), len(ids) - 1)
    return np.where((correlation > 0) & (ids[place] == correlation), rows[place], -1)
