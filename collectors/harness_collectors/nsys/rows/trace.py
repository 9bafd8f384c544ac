"""One rank's part of a report, resolved: the launch and the unit of every row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

import numpy as np
import pyarrow as pa

from harness_collectors.names.classify import Classifier
from harness_collectors.names.step_marks import StepMarks
from harness_collectors.nsys.export.layouts import NULL, Ints
from harness_collectors.nsys.report.nccl import Communicator, Schemas
from harness_collectors.nsys.report.survey import Seat
from harness_collectors.nsys.report.work import (
    ANNOTATION,
    GRAPH,
    KERNEL,
    OP,
    RUNTIME,
    Device,
    Host,
    first_match,
    pid_of,
)
from harness_collectors.traces.columns import coded, ranks
from harness_collectors.traces.hidden_graphs import launches_kernel, next_work, replays_graph
from harness_collectors.traces.keys import UnitKeys
from harness_collectors.traces.table import Table
from harness_collectors.traces.units import (
    FoundUnits,
    Intervals,
    UnitNumbers,
    find_units,
    unit_intervals,
)

SOURCE: Final = "nsys"


@dataclass
class Numbering:
    """What goes on from report to report of one rank: span ids, ordinals of collectives and of
    units."""

    next_span: int = 1
    next_seq: dict[str, int] = field(default_factory=dict)
    units: UnitNumbers = field(default_factory=UnitNumbers)


@dataclass
class Shared:
    """What the ranks of one report have in common."""

    names: list[str]
    classifier: Classifier
    marks: StepMarks
    schemas: Schemas
    comms: dict[int, Communicator]
    own_run: bool
    """The report is of a run of ours: the recorder describes its units and groups."""
    several: bool = False
    """It is one of several reports, perhaps of one process: what each covers is told."""

    @cached_property
    def name_values(self) -> pa.Array:
        """The names as an Arrow array, for coded columns."""
        return pa.array(self.names, pa.string())

    @cached_property
    def marked(self) -> np.ndarray:
        """Which names mark units of work (boolean, by code)."""
        return np.array([self.marks.find(name) is not None for name in self.names], np.bool_)

    @cached_property
    def graph_calls(self) -> np.ndarray:
        """Which names are calls that replay a CUDA graph (boolean, by code)."""
        return np.array([replays_graph(name) for name in self.names], np.bool_)

    @cached_property
    def kernel_calls(self) -> np.ndarray:
        """Which names are calls that launch a kernel (boolean, by code)."""
        return np.array([launches_kernel(name) for name in self.names], np.bool_)


class RankTrace:
    """Device work and host rows of one process (or of one device of it).

    Host rows hold the CUDA calls first, so that a launch is a row of them. `payloads`: what
    NCCL's ranges carry, by host row. `offset_ns` is added to the report's times.
    """

    def __init__(
        self,
        shared: Shared,
        seat: Seat,
        device: Device,
        host: Host,
        payloads: Mapping[int, bytes],
        offset_ns: int,
        numbering: Numbering,
    ) -> None:
        self.shared = shared
        self.rank = seat.rank
        self.pid = pid_of(seat.process)
        self.owns_host = seat.owns_host
        mine = None if seat.device is None else np.flatnonzero(device.device == seat.device)
        self.device = device if mine is None else device.take(mine)
        self.host = host
        self.payloads = payloads
        self.offset_ns = offset_ns
        self.numbering = numbering
        self.launch = self._find_launches()
        self.found = self._find_units()
        self.units = self.found.units
        self._intervals = unit_intervals(self.units)
        self.host_rows = self._kept_host()
        self.first_unit = numbering.next_span
        self.tells_units = seat.owns_host and not shared.own_run
        told = shared.own_run or shared.several
        self.tells_window = seat.owns_host and told and self.bounds is not None
        self.first_window = self.first_unit + (len(self.units) if self.tells_units else 0)
        self.first_device = self.first_window + int(self.tells_window)
        self.first_host = self.first_device + len(self.device)
        self.first_hidden = self.first_host + len(self.host_rows)
        numbering.next_span = self.first_hidden + len(self.hidden_graphs[0])
        self.device_rows_in_units = 0

    # -- resolving -----------------------------------------------------------------------------

    def _find_launches(self) -> Ints:
        """Host row of the CUDA call that launched each device row; -1: not in the report."""
        calls = int((self.host.kind == RUNTIME).sum())
        return first_match(self.device.correlation, self.host.correlation[:calls])

    def _find_units(self) -> FoundUnits:
        host = self.host
        is_range = (host.kind == ANNOTATION) | (host.kind == OP)
        rows = np.flatnonzero(is_range & self.shared.marked[host.name])
        table = Table(start="i8", dur="i8", name="i4", thread="i8")
        table.append(
            start=host.start[rows],
            dur=durations(host.start[rows], host.end[rows]),
            name=host.name[rows],
            thread=host.thread[rows],
        )
        found = find_units(
            table, np.arange(len(rows)), self.shared.names, self.shared.marks, self.numbering.units
        )
        return FoundUnits(
            found.units,
            [int(rows[row]) for row in found.rows],
            [(int(rows[row]), rule) for row, rule in found.phases],
        )

    def _kept_host(self) -> Ints:
        """Rows that become spans: no range that became a unit, no operator inside another."""
        if not self.owns_host:
            return np.zeros(0, np.int64)
        keep = np.ones(len(self.host), np.bool_)
        keep[np.array(self.found.rows, np.int64)] = self.shared.own_run
        ops = np.flatnonzero(self.host.kind == OP)
        start, end = self.host.start[ops], self.host.end[ops]
        end = np.where(end == NULL, start, end)
        keep[ops[nested(self.host.thread[ops], start, end)]] = False
        return np.flatnonzero(keep)

    def launches(self, rows: Ints) -> tuple[np.ndarray, Ints, Ints]:
        """For device rows: is the launch known, its time, its thread."""
        launch = self.launch[rows]
        if not len(self.host):
            return launch >= 0, np.zeros(len(rows), np.int64), launch
        return launch >= 0, self.host.start[launch], self.host.thread[launch]

    def device_units(self, rows: Ints) -> Ints:
        """Index of the unit that launched each device row; -1: none."""
        known, start, thread = self.launches(rows)
        return np.where(known, self._intervals.locate(start, thread), -1)

    def host_units(self, rows: Ints) -> Ints:
        """Index of the unit in which each host row began; -1: none."""
        return self._intervals.locate(self.host.start[rows], self.host.thread[rows])

    def intervals(self, rows: Ints) -> Intervals:
        """Host rows as intervals of their threads; an open one lasts."""
        end = self.host.end[rows]
        last = np.where(end == NULL, np.iinfo(np.int64).max, end)
        return Intervals(self.host.start[rows], last, self.host.thread[rows])

    # -- facts ---------------------------------------------------------------------------------

    @property
    def bounds(self) -> tuple[int, int] | None:
        """Earliest start and latest end of the rows; None: there are none."""
        starts = [part.start for part in (self.device, self.host) if len(part)]
        if not starts:
            return None
        ends = [part.end[part.end != NULL] for part in (self.device, self.host)]
        first = min(int(start.min()) for start in starts)
        last = max([int(end.max()) for end in ends if end.size], default=first)
        return first + self.offset_ns, max(first, last) + self.offset_ns

    @property
    def main_device(self) -> int | None:
        """The device with most of the work; None: there is none."""
        known = self.device.device[self.device.device >= 0]
        devices, counts = np.unique(known, return_counts=True)
        return int(devices[counts.argmax()]) if devices.size else None

    @property
    def whole_graphs(self) -> int:
        """CUDA graphs recorded as a whole: what ran inside them is not known."""
        return int((self.device.kind == GRAPH).sum())

    @cached_property
    def has_kernels(self) -> bool:
        """Whether any kernel or graph is on record: exports may leave out tables."""
        return bool(np.isin(self.device.kind, (KERNEL, GRAPH)).any())

    @cached_property
    def graph_launches(self) -> Ints:
        """Rows of calls that replayed a CUDA graph, or without any kernels launched one, and
        launched nothing that the report shows."""
        hides = self.shared.graph_calls
        if not self.has_kernels:
            hides = hides | self.shared.kernel_calls
        calls = np.flatnonzero((self.host.kind == RUNTIME) & hides[self.host.name])
        return calls[~np.isin(calls, self.launch)]

    @cached_property
    def hidden_graphs(self) -> tuple[Ints, Ints]:
        """Those of them that later work follows, and when that work began."""
        calls = self.graph_launches if self.owns_host else np.zeros(0, np.int64)
        if not calls.size:
            return calls, calls
        known, launch, _ = self.launches(np.arange(len(self.device)))
        until = next_work(self.host.start[calls], launch[known], self.device.start[known])
        return calls[until >= 0], until[until >= 0]

    def kernel_time(self, rule: str) -> tuple[int, int]:
        """Time in kernels, summed, and the part of it that one rule classified."""
        work = self.device
        length = np.maximum(durations(work.start, work.end), 0) * (work.kind == KERNEL)
        classify = self.shared.classifier.classify
        names = np.unique(work.name[work.kind == KERNEL]).tolist()
        matched = [name for name in names if classify(self.shared.names[name])[1] == rule]
        return int(length.sum()), int(length[np.isin(work.name, matched)].sum())

    # -- keys ----------------------------------------------------------------------------------

    @cached_property
    def _keys(self) -> UnitKeys:
        return UnitKeys(self.units)

    def key_columns(self, unit: Ints) -> dict[str, pa.Array]:
        """The rank, and the keys of work of rows, given the index of their unit (-1: none)."""
        perturbed = np.where(self.shared.own_run & (unit >= 0), 0, -1)
        return {
            "rank": ranks(self.rank, len(unit)),
            **self._keys.columns(unit),
            "perturbed_by": coded(perturbed, [SOURCE]),
        }


def durations(start: Ints, end: Ints) -> Ints:
    """Lengths of intervals; -1 where the end is unknown or before the start."""
    return np.where((end == NULL) | (end < start), -1, end - start)


def nested(thread: Ints, start: Ints, end: Ints) -> np.ndarray:
    """Which intervals lie in another one of their thread (boolean)."""
    order = np.lexsort((-end, start, thread))
    owner, finish = thread[order], end[order]
    result = np.zeros(len(order), np.bool_)
    edges = np.flatnonzero(np.diff(owner)) + 1
    for rows, ends in zip(np.split(order, edges), np.split(finish, edges), strict=True):
        result[rows[1:]] = ends[1:] <= np.maximum.accumulate(ends)[:-1]
    return result
