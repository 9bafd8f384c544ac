"""Launches by a trace's flow events, where the arguments of calls or of device work tell none.

So it is in traces that were stripped of their arguments, and in those that other tools write in
Kineto's form (rocpd). A flow begins at the moment and on the thread of the call, and ends at those
of the work: libkineto/src/output_json.cpp, `ac2g` (`async` up to torch 1.13).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import msgspec
import numpy as np

from harness_collectors.kineto.columns import TraceColumns, times_of
from harness_collectors.kineto.events import Integer
from harness_collectors.kineto.kinds import RUNTIME
from harness_collectors.kineto.stream import Piece

_CATS: Final = frozenset({"ac2g", "async", "async_gpu"})
_Place = tuple[int, int]
"""A moment in ns, and a thread or stream."""


class Flow(msgspec.Struct, gc=False):
    """One end of an arrow. Times in microseconds."""

    ph: str = ""
    cat: str = ""
    id: Integer | str = -1
    tid: Integer | str = -1
    ts: float = float("nan")
    dur: float = -1.0


decode_flows = msgspec.json.Decoder(list[Flow]).decode
decode_flow = msgspec.json.Decoder(Flow).decode


@dataclass
class Flows:
    """The arrows of one file: by their beginning and by their end, the id."""

    begins: dict[_Place, int] = field(default_factory=dict)
    ends: dict[_Place, int] = field(default_factory=dict)

    def add(self, piece: Piece[Flow]) -> None:
        """Take in the arrows of a piece."""
        rows = [
            row
            for row, flow in enumerate(piece.events)
            if flow.ph in ("s", "f") and flow.cat in _CATS
        ]
        if not rows:
            return
        kept = [piece.events[row] for row in rows]
        start, _, sound = times_of(piece.text, kept, np.array(rows))
        for flow, moment, good in zip(kept, start.tolist(), sound.tolist(), strict=True):
            number, thread = _number(flow.id), _number(flow.tid)
            if good and number > 0:
                (self.begins if flow.ph == "s" else self.ends).setdefault((moment, thread), number)

    def bind(self, columns: TraceColumns) -> None:
        """Give calls and device work the ids of the arrows that touch them."""
        host, device = columns.host, columns.device
        if not len(columns.calls):
            rows = np.flatnonzero(host["kind"] == RUNTIME)
            threads = columns.threads.ids[host.at("thread", rows)]
            ids = _found(self.begins, host.at("start", rows), threads)
            columns.add_calls(rows[ids > 0], ids[ids > 0])
        every = slice(None)
        ids = _found(self.ends, device.at("start", every), device.at("stream", every))
        device.replace("correlation", np.where(ids > 0, ids, device.at("correlation", every)))


def are_needed(columns: TraceColumns) -> bool:
    """Whether device work and calls are there, and arguments tell of no pair of them."""
    device = columns.device
    if not len(device) or not columns.cats[""]:
        return False
    told = len(columns.calls) and int(device["correlation"].max()) > 0
    return not told and bool((columns.host["kind"] == RUNTIME).any())


def _found(places: dict[_Place, int], start: np.ndarray, thread: np.ndarray) -> np.ndarray:
    pairs: Iterable[_Place] = zip(start.tolist(), thread.tolist(), strict=True)
    return np.fromiter((places.get(pair, 0) for pair in pairs), np.int64, len(start))


def _number(value: int | str) -> int:
    if isinstance(value, int):
        return value
    return int(value[:18]) if value.isdecimal() else -1
