"""Several dumps of one rank: at a timeout and at the end, or of another attempt of the job."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Row = dict[str, Any]
Pending = tuple[Row, Row]
_Times = Mapping[tuple[Any, ...], int]


@dataclass
class Dump:
    """One rank's dump, and what came of it."""

    name: str
    rank: int | None
    groups: Mapping[str, tuple[str, tuple[int, ...]]]
    """Label and global ranks by the process group's name."""
    last_completed: Mapping[str, int]
    entries: list[Any]
    latest_ns: int = 0
    coalesces: bool = False
    """Whether it holds batches of sends and receives."""
    rows: list[Row] = field(default_factory=list)
    pending: list[Pending] = field(default_factory=list)
    """Rows that were not seen to end, each with its event."""
    unreadable: int = 0
    states: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Share:
    """What of a dump is told: of a call that several dumps show, one row."""

    dump: Dump
    rows: list[Row]
    pending: list[Pending]


def shares(dumps: Sequence[Dump]) -> Iterator[Share]:
    """The dumps of one rank, the oldest first.

    A call counts where it is seen to have ended; one that no dump sees end counts in the first:
    that is the one of the hang.
    """
    ordered = sorted(dumps, key=lambda dump: (dump.latest_ns, dump.states["completed"], dump.name))
    waiting = [{id(row) for row, _ in dump.pending} for dump in ordered]
    ended = {
        _call(row)
        for dump, open_rows in zip(ordered, waiting, strict=True)
        for row in dump.rows
        if id(row) not in open_rows
    }
    told: set[tuple[Any, ...]] = set()
    for dump, open_rows in zip(ordered, waiting, strict=True):
        rows = [
            row
            for row in dump.rows
            if (call := _call(row)) not in told and (id(row) not in open_rows or call not in ended)
        ]
        kept = {id(row) for row in rows}
        told |= {_call(row) for row in rows}
        yield Share(dump, rows, [pair for pair in dump.pending if id(pair[0]) in kept])


def _call(row: Row) -> tuple[Any, ...]:
    names = ("comm_group", "op", "src_rank", "dst_rank", "seq", "enqueue_ns")
    return tuple(row[name] for name in names)


def other_attempts(
    paths: Sequence[Path],
    rank_of: Callable[[Path], int | None],
    read: Callable[[Path], Dump | None],
) -> set[Path]:
    """Dumps of earlier attempts of a job: in another folder the same rank issued the same
    collectives at other moments. Of these folders the one with the latest call counts."""
    places: dict[int, dict[Path, list[Path]]] = {}
    for path in paths:
        rank = rank_of(path)
        if rank is not None:
            places.setdefault(rank, {}).setdefault(path.parent, []).append(path)
    old: set[Path] = set()
    for folders in places.values():
        if len(folders) > 1:
            old |= _older(folders, read)
    return {path for path in paths if path.parent in old}


def _older(
    folders: Mapping[Path, Sequence[Path]], read: Callable[[Path], Dump | None]
) -> set[Path]:
    issued: dict[Path, _Times] = {}
    latest: dict[Path, int] = {}
    for folder, paths in folders.items():
        dumps = [dump for path in paths if (dump := read(path)) is not None]
        issued[folder] = {
            (row["comm_group"], row["op"], row["seq"]): row["enqueue_ns"]
            for dump in dumps
            for row in dump.rows
            if row["seq"] is not None and row["src_rank"] is None and row["dst_rank"] is None
        }
        latest[folder] = max((dump.latest_ns for dump in dumps), default=0)
    newest = max(sorted(folders), key=lambda folder: latest[folder])
    return {folder for folder in folders if _differ(issued[folder], issued[newest])}


def _differ(one: _Times, other: _Times) -> bool:
    return any(other.get(call, moment) != moment for call, moment in one.items())
