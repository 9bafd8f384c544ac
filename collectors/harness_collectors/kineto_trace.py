"""One Kineto file, resolved: the launch and the unit of every row; and helpers for columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pyarrow as pa

from harness_collectors.kineto_comm import Groups
from harness_collectors.kineto_events import KERNEL, OP, TraceColumns
from harness_collectors.kineto_units import (
    FoundUnits,
    find_launches,
    outermost,
    unit_intervals,
)

SOURCE: Final = "torch_profiler"


@dataclass
class Numbering:
    """What goes on from file to file of one rank: span ids and ordinals of collectives."""

    next_span: int = 1
    next_seq: dict[str, int] = field(default_factory=dict)


@dataclass
class TraceFile:
    """One file, read: its columns and what they were resolved to.

    `offset_ns` is added to every raw time (the file's base); `cut`: the file lost its end.
    """

    columns: TraceColumns
    found: FoundUnits
    groups: Groups
    rank: int | None
    offset_ns: int
    cut: bool
    numbering: Numbering

    def __post_init__(self) -> None:
        columns = self.columns
        self.device_names = list(columns.device_names)
        self.host_names = list(columns.host_names)
        self.units = self.found.units
        self.has_device = len(columns.device) > 0
        intervals = unit_intervals(self.units)
        host, device = columns.host, columns.device
        self.launch = find_launches(device["correlation"], host)
        self.launched = self.launch >= 0
        self.launch_start = host["start"][self.launch] if len(host) else self.launch
        thread = host["thread"][self.launch] if len(host) else self.launch
        located = intervals.locate(self.launch_start, thread)
        self.device_unit = np.where(self.launched, located, -1)
        self.host_rows = self._kept_host_rows()
        self.host_unit = intervals.locate(
            host["start"][self.host_rows], host["thread"][self.host_rows]
        )
        # Span ids: units, then device rows, then host rows, in the order of the file.
        self.first_unit = self.numbering.next_span
        self.first_device = self.first_unit + len(self.units)
        self.first_host = self.first_device + len(device)
        self.numbering.next_span = self.first_host + len(self.host_rows)

    def _kept_host_rows(self) -> np.ndarray:
        """All but annotations that became units and operators inside other operators."""
        host = self.columns.host
        keep = np.ones(len(host), np.bool_)
        if self.found.rows:
            keep[np.fromiter(self.found.rows, np.int64)] = False
        ops = np.flatnonzero(host["kind"] == OP)
        if ops.size:
            keep[ops] = outermost(host["start"][ops], host["dur"][ops], host["thread"][ops])
        return np.flatnonzero(keep)

    @property
    def bounds(self) -> tuple[int, int] | None:
        """Earliest start and latest end of the kept rows, in ns; None: there are none."""
        tables = [table for table in (self.columns.device, self.columns.host) if len(table)]
        if not tables:
            return None
        first = min(int(table["start"].min()) for table in tables)
        last = max(int((table["start"] + np.maximum(table["dur"], 0)).max()) for table in tables)
        return first + self.offset_ns, last + self.offset_ns

    @property
    def main_device(self) -> int | None:
        """The device with most of the work; None: there is none."""
        devices, counts = np.unique(self.columns.device["device"], return_counts=True)
        known_device = devices >= 0
        if not known_device.any():
            return None
        return int(devices[known_device][counts[known_device].argmax()])

    def kernel_share(self, rule: str) -> float | None:
        """Share of the kernels' summed time that one rule classified; None: no kernels."""
        device = self.columns.device
        kernels = device["kind"] == KERNEL
        length = np.where(kernels, np.maximum(device["dur"], 0), 0)
        total = int(length.sum())
        if not total:
            return None
        classify = self.columns.classifier.classify
        matched = np.array([classify(name)[1] == rule for name in self.device_names], np.bool_)
        return round(int(length[matched[device["name"]]].sum()) / total, 6)


# -- columns ---------------------------------------------------------------------------------


def coded(codes: np.ndarray, values: Sequence[str]) -> pa.DictionaryArray:
    """A text column out of codes; -1 is NULL."""
    indices = pa.array(codes.astype(np.int32), mask=codes < 0)
    return pa.DictionaryArray.from_arrays(indices, pa.array(values, pa.string()))


def known(values: np.ndarray, valid: np.ndarray, kind: pa.DataType | None = None) -> pa.Array:
    """Numbers, NULL where not `valid`."""
    return pa.array(values, mask=~valid, type=kind)


def constant(value: Any, size: int, kind: pa.DataType) -> pa.Array:
    """One value in every row."""
    return pa.repeat(pa.scalar(value, kind), size)


def key_columns(trace: TraceFile, unit: np.ndarray) -> dict[str, pa.Array]:
    """The keys of work of rows, given the index of their unit (-1: none)."""
    units = trace.units
    index = pa.array(unit, mask=unit < 0)

    def taken(values: list[Any], kind: pa.DataType) -> pa.Array:
        return pa.array(values, kind).take(index)

    phases = [each.mark.phase for each in units]
    distinct = sorted({phase for phase in phases if phase is not None})
    codes = np.array([-1 if p is None else distinct.index(p) for p in phases] or [-1], np.int32)
    return {
        "batch": taken([each.batch for each in units], pa.int32()),
        "microbatch": taken([each.mark.microbatch for each in units], pa.int32()),
        "repeat": taken([each.mark.repeat for each in units], pa.int32()),
        "phase": coded(np.where(unit >= 0, codes[unit], -1), distinct),
        "step": taken([each.step for each in units], pa.int32()),
        "warmup": taken([each.mark.warmup for each in units], pa.bool_()),
    }


def common(trace: TraceFile, size: int, timeline: str) -> dict[str, pa.Array]:
    text = pa.dictionary(pa.int32(), pa.string())
    return {
        "rank": constant(trace.rank, size, pa.int32()),
        "source": constant(SOURCE, size, pa.string()).dictionary_encode().cast(text),
        "timeline": constant(timeline, size, pa.string()).dictionary_encode().cast(text),
    }


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
