"""Rows of `spans` and `steps` out of one rank's part of a report, columns at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import pyarrow as pa

from harness_collectors.kineto.recording import HIDDEN
from harness_collectors.kineto.trace import coded, constant, known, texts
from harness_collectors.names.step_marks import SIZE_GROUPS
from harness_collectors.nsys.export.names import UNNAMED_KERNEL
from harness_collectors.nsys.export.pages import NULL, Ints
from harness_collectors.nsys.report.work import GRAPH, IO, KERNEL, KINDS, OP
from harness_collectors.nsys.rows.trace import SOURCE, RankTrace, durations
from harness_collectors.reading.text_evidence import batch
from harness_schemas.spi import Batch

GROUP_ROWS: Final = 122_880
"""Rows that DuckDB stores together: it inserts whole groups at once, a thread each."""
GROUPS: Final = 4
_FIXED_CLASSES: Final = {GRAPH: ("graph", "graph-trace"), IO: ("io", "osrt-file")}
"""Categories and rules of kinds that the table of rules does not know."""
UNTOLD: Final = ("graph", "unnamed-kernel")
"""A kernel whose name is lost computed or communicated: as of a whole graph nobody knows."""


def span_batches(trace: RankTrace) -> Iterator[Batch]:
    """Units, the recorded window, device work, the host's rows, and replays not on record."""
    if trace.units and trace.tells_units:
        yield Batch("spans", _unit_spans(trace))
    if trace.tells_window:
        yield _window(trace)
    classes = _Classes(trace)
    for part in grouped(len(trace.device)):
        yield Batch("spans", pa.concat_tables(_device_spans(trace, classes, rows) for rows in part))
    for part in grouped(len(trace.host_rows)):
        yield Batch("spans", pa.concat_tables(_host_spans(trace, classes, rows) for rows in part))
    if len(trace.hidden_graphs[0]):
        yield Batch("spans", _hidden_graphs(trace))


def _window(trace: RankTrace) -> Batch:
    """The stretch that the report covers: between two of them nothing is known."""
    first, last = trace.bounds or (0, 0)
    row = {
        "rank": trace.rank,
        "span_id": trace.first_window,
        "source": SOURCE,
        "timeline": "host",
        "name": "nsys.window",
        "category": "phase",
        "start_ns": first,
        "end_ns": last,
        "perturbed_by": SOURCE if trace.shared.own_run else None,
        "complete": True,
    }
    return batch("spans", [row])


def _hidden_graphs(trace: RankTrace) -> pa.Table:
    """Each as a graph as a whole, from its launch to the next work that was launched after it:
    when it ran in between is not known, but the device need not have been idle."""
    calls, until = trace.hidden_graphs
    start, size = trace.host.start[calls], len(calls)
    columns = {
        "rank": rank_column(trace, size),
        **trace.key_columns(trace.host_units(calls)),
        "span_id": pa.array(np.arange(size) + trace.first_hidden),
        "source": constant(SOURCE, size),
        "timeline": constant("device", size),
        "name": constant(HIDDEN, size),
        "category": constant("graph", size),
        "rule": constant("graph-not-recorded", size),
        **interval(trace, start, until),
        "launch_ns": pa.array(start + trace.offset_ns),
        "correlation": pa.array(trace.host.correlation[calls]),
    }
    columns["complete"] = pa.array(np.zeros(size, np.bool_))
    return pa.table(columns)


def grouped(size: int) -> Iterator[list[Ints]]:
    """Row numbers, in the portions of one insert, of the groups that it is stored in."""
    groups = [
        np.arange(first, min(first + GROUP_ROWS, size)) for first in range(0, size, GROUP_ROWS)
    ]
    for first in range(0, len(groups), GROUPS):
        yield groups[first : first + GROUPS]


class _Classes:
    """Category and rule of every (kind, name) met, asked for once."""

    def __init__(self, trace: RankTrace) -> None:
        self._shared = trace.shared
        self._on_device = len(trace.device) > 0
        self._pairs: dict[tuple[str, str], int] = {}
        self._table = np.full((len(KINDS), len(self._shared.names) or 1), -1, np.int32)

    def code(self, pair: tuple[str, str]) -> int:
        """The code of a (category, rule)."""
        return self._pairs.setdefault(pair, len(self._pairs))

    def of(self, kind: np.ndarray, name: np.ndarray) -> np.ndarray:
        """Codes of rows."""
        codes: np.ndarray = self._table[kind, name]
        if (codes < 0).any():
            new = codes < 0
            for pair in np.unique(kind[new].astype(np.int64) << 32 | name[new]).tolist():
                what, text = pair >> 32, pair & 0xFFFFFFFF
                self._table[what, text] = self.code(self._classify(what, text))
            codes = self._table[kind, name]
        return codes

    def _classify(self, kind: int, name: int) -> tuple[str, str]:
        if kind == KERNEL and self._shared.names[name] == UNNAMED_KERNEL:
            return UNTOLD
        fixed = _FIXED_CLASSES.get(kind)
        if fixed is not None:
            return fixed
        # Beside a device operators only launch; without one they compute.
        what = "host_op" if kind == OP and self._on_device else KINDS[kind]
        return self._shared.classifier.classify(self._shared.names[name], what)

    def columns(self, codes: np.ndarray) -> dict[str, pa.Array]:
        """`category` and `rule` of rows by their codes."""
        columns = {}
        for place, column in enumerate(("category", "rule")):
            of_pair, values = texts([pair[place] for pair in self._pairs])
            columns[column] = coded(of_pair[codes], values)
        return columns


def _device_spans(trace: RankTrace, classes: _Classes, rows: Ints) -> pa.Table:
    work, size = trace.device.take(rows), len(rows)
    launched, launch_start, _ = trace.launches(rows)
    unit = trace.device_units(rows)
    trace.device_rows_in_units += int((unit >= 0).sum())
    return pa.table(
        {
            "rank": rank_column(trace, size),
            **trace.key_columns(unit),
            "span_id": pa.array(rows + trace.first_device),
            "source": constant(SOURCE, size),
            "timeline": constant("device", size),
            "device": small(work.device),
            "stream": known(work.stream, work.stream >= 0),
            "name": coded(work.name, trace.shared.name_values),
            **classes.columns(classes.of(work.kind, work.name)),
            **interval(trace, work.start, work.end),
            "launch_ns": known(launch_start + trace.offset_ns, launched),
            "correlation": known(work.correlation, work.correlation > 0),
            "graph_id": known(work.graph, work.graph > 0),
            "bytes": known(work.bytes, work.bytes >= 0),
            "attrs": _graph_attrs(trace, rows),
        }
    )


def _graph_attrs(trace: RankTrace, rows: Ints) -> pa.Array:
    """Device work of a CUDA graph says so: few versions give the graph an id."""
    launch = trace.launch[rows]
    replayed = trace.device.replayed[rows]
    if len(trace.host):
        replayed |= (launch >= 0) & trace.shared.graph_calls[trace.host.name[launch]]
    return coded(np.where(replayed, 0, -1), [json.dumps({"graph_launch": True})])


def _host_spans(trace: RankTrace, classes: _Classes, places: Ints) -> pa.Table:
    rows = trace.host_rows[places]
    work, size, unit = trace.host.take(rows), len(rows), trace.host_units(rows)
    codes = classes.of(work.kind, work.name)
    for row, rule in trace.found.phases_within(int(rows[0]), int(rows[-1])):
        codes[np.searchsorted(rows, row)] = classes.code(("phase", rule))
    parent = unit if trace.tells_units else np.full(size, -1)
    return pa.table(
        {
            "rank": rank_column(trace, size),
            **trace.key_columns(unit),
            "span_id": pa.array(places + trace.first_host),
            "parent_id": known(parent + trace.first_unit, parent >= 0),
            "source": constant(SOURCE, size),
            "timeline": constant("host", size),
            "stream": threads(trace, work.thread),
            "name": coded(work.name, trace.shared.name_values),
            **classes.columns(codes),
            **interval(trace, work.start, work.end),
            "correlation": known(work.correlation, work.correlation > 0),
        }
    )


def _unit_spans(trace: RankTrace) -> pa.Table:
    units, size = trace.units, len(trace.units)
    start = np.array([unit.start for unit in units], np.int64)
    end = np.array([NULL if unit.end is None else unit.end for unit in units], np.int64)
    return pa.table(
        {
            "rank": rank_column(trace, size),
            **trace.key_columns(np.arange(size)),
            "span_id": pa.array(np.arange(size) + trace.first_unit),
            "source": constant(SOURCE, size),
            "timeline": constant("host", size),
            "stream": threads(trace, np.array([unit.thread for unit in units])),
            "name": coded(*texts([unit.name for unit in units])),
            "category": constant("unit", size),
            "rule": coded(*texts([unit.mark.rule for unit in units])),
            **interval(trace, start, end),
        }
    )


def step_rows(trace: RankTrace) -> list[dict[str, Any]]:
    """Rows of `steps` for units whose range gives sizes."""
    return [
        {
            "rank": trace.rank,
            "batch": unit.batch,
            "microbatch": unit.mark.microbatch,
            "repeat": unit.mark.repeat,
            "phase": unit.mark.phase,
            "step": unit.step,
            "warmup": unit.mark.warmup,
            **dict(zip(SIZE_GROUPS, unit.mark.sizes, strict=True)),
        }
        for unit in trace.units
        if unit.mark.sizes
    ]


# -- columns -----------------------------------------------------------------------------------


def rank_column(trace: RankTrace, size: int) -> pa.Array:
    """The rank in every row."""
    return pa.repeat(pa.scalar(trace.rank, pa.int32()), size)


def threads(trace: RankTrace, thread: np.ndarray) -> pa.Array:
    """Thread ids, 0 for the process's main thread (on Linux its id is the process's)."""
    return pa.array(np.where(thread == trace.pid, 0, thread).astype(np.int64))


def small(values: np.ndarray) -> pa.Array:
    """Numbers for an INTEGER column; negative ones are unknown."""
    return known(values, values >= 0)


def interval(trace: RankTrace, start: Ints, end: Ints) -> dict[str, pa.Array]:
    """Times of rows; a span without an end is not complete."""
    length = durations(start, end)
    begin = start + trace.offset_ns
    return {
        "start_ns": pa.array(begin),
        "end_ns": known(begin + length, length >= 0),
        "raw_start_ns": pa.array(start),
        "complete": pa.array(length >= 0),
    }
