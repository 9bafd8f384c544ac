"""Files that hold the traces of several processes, and how their events are told apart.

Tools that merge traces put a label before every process id (SGLang: `[TP00] 4711`), or add an
offset to process ids and correlations (TraceFuse); rocpd writes all processes of a node. The
device's work is filed under the device, so that its launch says whose it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec
import numpy as np

from harness_collectors.kineto.columns import TraceColumns
from harness_collectors.kineto.events import Event
from harness_collectors.kineto.kinds import KIND_OF_CAT, MEMSET
from harness_collectors.kineto.stream import Piece

Key = int | str
_TOLERATED: Final = 100
"""Of device work, one part in so many may be of a launch that several processes share."""


@dataclass(frozen=True)
class Division:
    """The processes of a file. `launched`: whose a correlation id is; None: not asked for."""

    keys: tuple[Key, ...]
    launched: Mapping[int, Key] | None = None
    members: frozenset[Key] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "members", frozenset(self.keys))

    def pieces(self, piece: Piece[Event]) -> Iterator[tuple[Key, Piece[Event]]]:
        """What of a piece is whose; what is nobody's is left out."""
        rows: dict[Key, list[int]] = {}
        for row, event in enumerate(piece.events):
            if event.ph == "X" and (key := self._owner(event)) in self.members:
                rows.setdefault(key, []).append(row)
        texts = msgspec.json.decode(piece.text, type=list[msgspec.Raw]) if rows else []
        for key, mine in rows.items():
            text = b"[" + b",".join(bytes(texts[row]) for row in mine) + b"]"
            yield key, Piece([piece.events[row] for row in mine], text)

    def _owner(self, event: Event) -> Key:
        if isinstance(event.pid, str):
            return label_of(event.pid)
        if self.launched is not None and 0 < KIND_OF_CAT[event.cat] <= MEMSET:
            return self.launched.get(event.args.correlation, "")
        return event.pid


def label_of(pid: str) -> str:
    """What a tool put before a process id."""
    return pid.rstrip("0123456789").strip()


def processes(columns: TraceColumns) -> tuple[Key, ...]:
    """The processes whose work a file merges, in order; at most one: it is of one."""
    signs = (sorted(columns.merged), columns.owners, columns.merged_places)
    return next((tuple(each) for each in signs if len(each) > 1), ())


def division(columns: TraceColumns) -> Division | None:
    """How a merged file is divided; None: it cannot be, or is not merged."""
    keys = processes(columns)
    if len(keys) < 2:
        return None
    if all(isinstance(key, str) for key in keys) or not len(columns.device):
        return Division(keys)
    if not len(columns.calls):
        return Division(keys) if keys == tuple(columns.merged_places) else None
    launched = _launched(columns)
    return None if launched is None else Division(keys, launched)


def _launched(columns: TraceColumns) -> dict[int, Key] | None:
    """The process of every correlation id; None where too many are those of several."""
    ids, owners = columns.calls.at("correlation", slice(None)), columns.calls["owner"]
    pairs = np.unique(np.stack([ids, owners.astype(np.int64)]), axis=1)
    shared = pairs[0][1:][pairs[0][1:] == pairs[0][:-1]]
    work = columns.device["correlation"]
    if int(np.isin(work, shared).sum()) * _TOLERATED > len(work):
        return None
    single = ~np.isin(pairs[0], shared)
    names = columns.owner_names
    return {
        number: names[code]
        for number, code in zip(pairs[0][single].tolist(), pairs[1][single].tolist(), strict=True)
    }
