"""Kineto's kept events by columns: names coded once, nested operators left out, times exact."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from operator import attrgetter
from typing import Any, Final, NamedTuple

import numpy as np

from harness_collectors.kineto.events import (
    FLOAT_EXACT_US,
    LARGEST_US,
    LIMIT,
    LONGEST_US,
    Args,
    Event,
    decode_exact,
    exact_nanoseconds,
    integer,
    nanoseconds,
)
from harness_collectors.kineto.kinds import (
    ANNOTATION,
    KERNEL,
    KIND_OF_CAT,
    MEMSET,
    OP,
    RUNTIME,
)
from harness_collectors.kineto.nesting import Nesting
from harness_collectors.kineto.stream import Piece
from harness_collectors.names.classify import Classifier
from harness_collectors.traces.table import Codes, Table
from harness_schemas.units import EARLIEST_WALL_NS

_SHARE: Final = 100
"""Of device work, the part that a process must have to count as one."""
_FRACTION = re.compile(rb'"ts"\s*:\s*"?-?\d+[.eE]')

_name_of, _tid_of, _args_of = attrgetter("name"), attrgetter("tid"), attrgetter("args")
_device_of, _stream_of = attrgetter("device"), attrgetter("stream")
_correlation_of, _graph_of, _bytes_of = map(attrgetter, ("correlation", "graph", "bytes"))


class _KernelNames(Codes[str]):
    """Names of kernels, and which of them communicate."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.communicates: list[bool] = []
        self._classifier = classifier

    def __missing__(self, text: str) -> int:
        code = super().__missing__(text)
        category, _ = self._classifier.classify(text, "kernel")
        self.communicates.append(category in ("comm", "comm_fused"))
        return code


class _Threads(dict[int | str, int]):
    """Thread ids, which old files write as text, to codes; `ids`: the ids by their codes."""

    def __init__(self) -> None:
        super().__init__()
        self._codes: Codes[int] = Codes()

    def __missing__(self, tid: int | str) -> int:
        number = tid if isinstance(tid, int) else _digits(tid)
        code = self[tid] = self._codes[number]
        return code

    @property
    def ids(self) -> np.ndarray:
        """Thread ids by their codes; -1: unknown."""
        return np.array(list(self._codes), np.int64)


def _digits(text: str) -> int:
    found = re.search(r"\d{1,18}", text)
    return int(found[0]) if found else -1


class CommLabel(NamedTuple):
    """What a communication kernel's arguments say apart from sizes; None: not recorded.

    A tuple, since one is made and looked up for every such kernel.
    """

    op: str | None
    dtype: str | None
    group_name: str | None
    group_ranks: str | None
    group_size: int | None
    unequal: bool
    """Parts of the message go to ranks in different sizes."""


@dataclass
class TraceColumns:
    """Every kept event of one file, by columns. Times in ns, `dur` -1: unknown; `thread` is a code
    of `threads.ids`."""

    classifier: Classifier
    events: int = 0
    dropped_times: int = 0
    first_ns: int = LIMIT
    last_ns: int = -LIMIT
    pids: set[int] = field(default_factory=set)
    merged: set[str] = field(default_factory=set)
    """What tools that merge traces put before process ids, as in `[TP00] 4711`."""
    labels: dict[CommLabel, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._cat_codes: Codes[str] = Codes({"": 0})
        self._kinds = np.zeros(1, np.int8)
        self._counts = np.zeros(1, np.int64)
        self.device_names = _KernelNames(self.classifier)
        self.host_names: Codes[str] = Codes()
        self.threads = _Threads()
        self.nesting = Nesting()
        self.device = Table(
            start="i8", dur="i8", name="i4", kind="i1", device="i4", stream="i8",
            correlation="i8", graph="i8", bytes="i8",
        )  # fmt: skip
        self.host = Table(start="i8", dur="i8", name="i4", kind="i1", thread="i4")
        self.calls = Table(row="i4", correlation="i8", owner="i4")
        self._owner_codes: Codes[int | str] = Codes()
        self._working: set[int | str] = set()
        self._events: Counter[int | str] = Counter()
        self._devices: set[int] = set()
        self._places: Counter[int | str] = Counter()
        self.comm = Table(
            row="i8", label="i4", in_elements="i8", out_elements="i8", source="i4", target="i4",
            sequence="i8", channels="i4",
        )  # fmt: skip

    def add(self, piece: Piece[Event]) -> None:
        """Append the events of a piece that are of a kept kind."""
        events = piece.events
        self.events += len(events)
        code_of = self._cat_codes
        codes = np.array(
            [code_of[event.cat] if event.ph == "X" else 0 for event in events], np.intp
        )
        kinds = self._count(codes)
        on_device = (kinds > 0) & (kinds <= MEMSET)
        for mask, add in ((on_device, self._add_device), (kinds > MEMSET, self._add_host)):
            rows = np.flatnonzero(mask)
            if rows.size:
                self._add_timed(add, piece, rows, kinds[rows])

    def _count(self, codes: np.ndarray) -> np.ndarray:
        """Count events by their category; returns their kinds."""
        if len(self._cat_codes) > len(self._kinds):
            new = list(self._cat_codes)[len(self._kinds) :]
            self._kinds = np.concatenate([self._kinds, [KIND_OF_CAT[cat] for cat in new]])
            self._counts = np.concatenate([self._counts, np.zeros(len(new), np.int64)])
        self._counts += np.bincount(codes, minlength=len(self._counts))
        kinds: np.ndarray = self._kinds[codes]
        return kinds

    @property
    def cats(self) -> Counter[str]:
        """Complete events by category; "": events that are no complete ones."""
        counts = zip(self._cat_codes, self._counts.tolist(), strict=True)
        return Counter({cat: count for cat, count in counts if count})

    def _add_timed(
        self, add: Callable[..., None], piece: Piece[Event], rows: np.ndarray, kind: np.ndarray
    ) -> None:
        """Hand on the events of a piece that have a time."""
        kept = [piece.events[row] for row in rows.tolist()]
        start, dur, sound = times_of(piece.text, kept, rows)
        if not sound.all():
            self.dropped_times += int((~sound).sum())
            kept = [kept[index] for index in np.flatnonzero(sound).tolist()]
            kind, start, dur = kind[sound], start[sound], dur[sound]
        if kept:
            self.first_ns = min(self.first_ns, int(start.min()))
            self.last_ns = max(self.last_ns, int((start + np.maximum(dur, 0)).max()))
            add(kept, kind, start, dur)

    def _add_host(
        self, events: list[Event], kind: np.ndarray, start: np.ndarray, dur: np.ndarray
    ) -> None:
        self._note_owners(events, kind)
        thread = _numbers(map(self.threads.__getitem__, map(_tid_of, events)), events)
        keep = self.nesting.keep(kind, start, dur, thread)
        if not keep.all():
            events = [events[index] for index in np.flatnonzero(keep).tolist()]
            kind, start, dur, thread = kind[keep], start[keep], dur[keep], thread[keep]
        calls = np.flatnonzero(kind == RUNTIME)
        if calls.size:
            ids = [events[index].args.correlation for index in calls.tolist()]
            known = np.fromiter(ids, np.int64, len(ids)) > 0  # 0: it launched nothing
            owners = [self._owner_codes[events[index].pid] for index in calls[known].tolist()]
            self.calls.append(
                row=calls[known] + len(self.host),
                correlation=np.fromiter(ids, np.int64, len(ids))[known],
                owner=owners,
            )
        self.host.append(
            start=start,
            dur=dur,
            kind=kind,
            name=_numbers(map(self.host_names.__getitem__, map(_name_of, events)), events),
            thread=thread,
        )

    def add_calls(self, row: np.ndarray, correlation: np.ndarray) -> None:
        """Note which host rows, ascending, launched what."""
        self.calls.append(row=row, correlation=correlation, owner=np.zeros(len(row), np.int32))

    @property
    def owner_names(self) -> list[int | str]:
        """Processes by the codes in `calls`."""
        return list(self._owner_codes)

    @cached_property
    def owners(self) -> list[int]:
        """Processes that launched the device work, ascending; where that is not known, those of
        operators and annotations, else all; single events with a damaged process id do not count.
        Asked for when everything is read."""
        if len(self.pids) > 1 and self._owner_codes:
            launched = np.isin(self.calls["correlation"], self.device["correlation"])
            codes, counts = np.unique(self.calls["owner"][launched], return_counts=True)
            known = self.owner_names
            owners = [known[code] for code in codes[counts >= counts.sum() / _SHARE].tolist()]
            if pids := {pid for pid in owners if isinstance(pid, int)} & self.pids:
                return sorted(pids)
        least = max(2, sum(map(self._events.__getitem__, self.pids)) / _SHARE)
        told = {pid for pid in self.pids if self._events[pid] >= least} or self.pids
        return sorted(told & self._working or told)

    @property
    def merged_places(self) -> list[int | str]:
        """What device work is filed under, where that is of several processes; single events with
        a damaged process id do not count."""
        least = self._places.total() / _SHARE
        places = [
            place
            for place, count in self._places.items()
            if count >= least and place != "" and (isinstance(place, str) or place >= 0)
        ]
        labels = [place for place in places if isinstance(place, str)]
        shifted = [place for place in places if place not in self._devices]
        merged = labels if len(labels) > 1 else places if shifted and len(places) > 1 else []
        return sorted(merged, key=str)

    def _note_owners(self, events: list[Event], kind: np.ndarray) -> None:
        pids = {event.pid for event in events}
        often = {pid: len(events) for pid in pids}
        if len(pids) > 1:
            often = Counter(event.pid for event in events)
        for pid in self._note_labels(pids):
            if pid > 0:
                self.pids.add(pid)
                self._events[pid] += often[pid]
                if pid not in self._working:
                    tells = np.flatnonzero((kind == OP) | (kind == ANNOTATION)).tolist()
                    self._working |= {pid} & {events[row].pid for row in tells}

    def _note_labels(self, pids: set[int | str]) -> set[int]:
        """Note what stands before process ids; returns those that are numbers."""
        for pid in pids:
            if isinstance(pid, str) and (label := pid.rstrip("0123456789").strip()):
                self.merged.add(label)
        return {pid for pid in pids if isinstance(pid, int)}

    def _note_places(self, events: list[Event], device: np.ndarray) -> None:
        """Kineto files device work under its device's number; what merges traces shifts it."""
        for pid, count in Counter(event.pid for event in events).items():
            place = pid if isinstance(pid, int) else pid.rstrip("0123456789").strip()
            self._places[place] += count
            if isinstance(pid, int) and (device == pid).any():
                self._devices.add(pid)

    def _add_device(
        self, events: list[Event], kind: np.ndarray, start: np.ndarray, dur: np.ndarray
    ) -> None:
        args = list(map(_args_of, events))
        names = list(map(self.device_names.__getitem__, map(_name_of, events)))
        communicates = self.device_names.communicates
        self._add_comm(
            [
                (row, args[row])
                for row, (name, code) in enumerate(zip(names, kind.tolist(), strict=True))
                if communicates[name] and code == KERNEL
            ]
        )
        device = _numbers(map(_device_of, args), args)
        for row in np.flatnonzero((device < 0) | (device >= 2**31)).tolist():
            device[row] = _device_without_key(events[row])
        self._note_places(events, device)
        stream = _numbers(map(_stream_of, args), args)
        for row in np.flatnonzero(stream < 0).tolist():
            stream[row] = _stream_without_key(events[row])
        self.device.append(
            start=start,
            dur=dur,
            kind=kind,
            name=names,
            device=device,
            stream=stream,
            correlation=_numbers(map(_correlation_of, args), args),
            graph=_numbers(map(_graph_of, args), args),
            bytes=[n if type(n) is int else integer(n) for n in map(_bytes_of, args)],
        )

    def _add_comm(self, found: list[tuple[int, Args]]) -> None:
        if not found:
            return
        base = len(self.device)
        args = [each for _, each in found]
        self.comm.append(
            row=[base + row for row, _ in found],
            label=[self.labels.setdefault(_label(each), len(self.labels)) for each in args],
            in_elements=[each.in_elements for each in args],
            out_elements=[each.out_elements for each in args],
            source=[_small(each.source) for each in args],
            target=[_small(each.target) for each in args],
            sequence=[each.sequence for each in args],
            channels=[_channels(bytes(each.grid)) for each in args],
        )


def _numbers(values: Iterable[int], like: Sequence[Any]) -> np.ndarray:
    return np.fromiter(values, np.int64, len(like))


def times_of(
    text: bytes, kept: Sequence[Any], chosen: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Starts and durations in ns of events, and which starts are times at all.

    `chosen`: the places of the events in the JSON list `text`.
    """
    ts = np.fromiter(map(attrgetter("ts"), kept), np.float64, len(kept))
    dur = np.fromiter(map(attrgetter("dur"), kept), np.float64, len(kept))
    sound = np.abs(ts) < LARGEST_US
    known = (dur >= 0) & (dur < LONGEST_US)
    start_ns = nanoseconds(np.where(sound, ts, 0.0))
    dur_ns = np.where(known, nanoseconds(np.where(known, dur, 0.0)), -1)
    if sound.any() and np.abs(ts[sound]).max() >= FLOAT_EXACT_US and _FRACTION.search(text):
        exact = decode_exact(text)
        written = [exact_nanoseconds(bytes(exact[index].ts)) for index in chosen.tolist()]
        start_ns = np.array([value or 0 for value in written], np.int64)
        sound = sound & np.array([value is not None for value in written], np.bool_)
    return start_ns, dur_ns, sound & ~_lost(start_ns, dur_ns)


def _lost(start: np.ndarray, dur: np.ndarray) -> np.ndarray:
    """Which events have lost their times (boolean): CUPTI then gives 0, which is decades before
    the others, or before the file's base."""
    lost: np.ndarray = (start <= -EARLIEST_WALL_NS) | ((start == 0) & (dur == 0))
    if start.max() >= EARLIEST_WALL_NS:
        lost |= start < EARLIEST_WALL_NS
    return lost


def _device_without_key(event: Event) -> int:
    """The device of a peer-to-peer copy, which has no `device`; -1: unknown."""
    args = event.args
    for candidate in (args.in_device, args.from_device, event.pid):
        if isinstance(candidate, int) and 0 <= candidate < 2**31:
            return candidate
    return -1


def _stream_without_key(event: Event) -> int:
    return event.tid if isinstance(event.tid, int) else _digits(event.tid)


def _small(value: int) -> int:
    return value if 0 <= value < 2**31 else -1


def _channels(grid: bytes) -> int:
    """NCCL launches one block a channel: the grid's first number."""
    found = re.match(rb"\[\s*(\d{1,6})\s*,\s*1\s*,\s*1\s*\]", grid)
    return int(found[1]) if found else -1


def _label(args: Args) -> CommLabel:
    return CommLabel(
        args.collective,
        args.dtype,
        _text(args.group_name),
        _text(args.group_ranks),
        args.group_size if 0 < args.group_size < 2**31 else None,
        _unequal(args.in_split) or _unequal(args.out_split),
    )


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else str(value)


def _unequal(split: Any) -> bool:
    """Whether a list of split sizes, as text or as JSON, holds different ones."""
    return split not in (None, "[]") and len(set(re.findall(r"\d+", str(split)))) > 1
