"""What a recording does not show: the time between two of them, and replays without kernels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import pyarrow as pa

from harness_collectors.kineto.trace import SOURCE, TraceFile, interval, key_columns
from harness_collectors.reading.text_evidence import batch
from harness_collectors.traces.columns import constant
from harness_collectors.traces.hidden_graphs import HIDDEN, UNSEEN
from harness_schemas.spi import Batch

WINDOW: Final = "torch_profiler.window"


def window_batches(trace: TraceFile) -> Iterator[Batch]:
    """The stretch that a file covers: between those of one rank nothing is known."""
    if trace.bounds is None:
        return
    first, last = trace.bounds
    row = {
        "rank": trace.rank,
        "span_id": trace.numbering.take(1),
        "source": SOURCE,
        "timeline": "host",
        "name": WINDOW,
        "category": "phase",
        "start_ns": first,
        "end_ns": last,
        "complete": not trace.cut,
    }
    yield batch("spans", [row])


def hidden_batches(trace: TraceFile) -> Iterator[Batch]:
    """Replays of CUDA graphs whose work is not on record.

    Each is a graph as a whole, from its launch to the next work that was launched after it: when
    it ran in between is not known, but the device need not have been idle.
    """
    calls, until = trace.hidden_graphs
    if not len(calls):
        return
    start, size = trace.columns.host.at("start", calls), len(calls)
    columns = {
        **key_columns(trace, trace.host_units(calls)),
        "span_id": pa.array(np.arange(size) + trace.numbering.take(size)),
        "source": constant(SOURCE, size),
        "timeline": constant("device", size),
        "name": constant(HIDDEN if trace.has_kernels else UNSEEN, size),
        "category": constant("graph", size),
        "rule": constant("graph-not-recorded", size),
        **interval(trace, start, until - start),
        "launch_ns": pa.array(start + trace.offset_ns),
    }
    columns["complete"] = pa.array(np.zeros(size, np.bool_))
    yield Batch("spans", pa.table(columns))
