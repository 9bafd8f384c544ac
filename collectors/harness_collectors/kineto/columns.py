"""Kineto's kept events by columns: names coded once, nested operators left out, times exact."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np

from harness_collectors.classify import KINETO_KINDS, Classifier
from harness_collectors.kineto.events import (
    FLOAT_EXACT_US,
    LARGEST_US,
    LIMIT,
    Args,
    Event,
    decode_exact,
    exact_nanoseconds,
    integer,
    nanoseconds,
)
from harness_collectors.kineto.stream import Piece

K = TypeVar("K")

_FRACTION = re.compile(rb'"ts"\s*:\s*"?-?\d+[.eE]')

KINDS: Final = ("", "kernel", "memcpy", "memset", "runtime", "op", "annotation", "overhead")
KERNEL, MEMCPY, MEMSET, RUNTIME, OP, ANNOTATION, OVERHEAD = range(1, 8)
"""Codes of kinds in the column `kind`; 0 is what is not kept."""
_OTHER_CATS: Final = {
    "cpu_op": "op",
    "Operator": "op",
    "xpu_runtime": "runtime",
    "xpu_driver": "runtime",
    "mtia_runtime": "runtime",
    "privateuse1_runtime": "runtime",
    "privateuse1_driver": "runtime",
}
_NOT_KEPT: Final = frozenset({"gpu_user_annotation"})
"""Copies of host annotations stretched over the device: work is attributed by its launch."""

_name_of, _tid_of, _args_of = attrgetter("name"), attrgetter("tid"), attrgetter("args")
_device_of, _stream_of = attrgetter("device"), attrgetter("stream")
_correlation_of, _graph_of, _bytes_of = map(attrgetter, ("correlation", "graph", "bytes"))


class Codes(dict[K, int]):
    """Values to codes, which count up in the order of first appearance."""

    def __missing__(self, value: K) -> int:
        code = self[value] = len(self)
        return code


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


class _Kinds(dict[str, int]):
    def __missing__(self, cat: str) -> int:
        return 0


_KIND_OF_CAT: Final = _Kinds(
    {
        cat: KINDS.index(kind)
        for cat, kind in {**KINETO_KINDS, **_OTHER_CATS}.items()
        if kind in KINDS and cat not in _NOT_KEPT
    }
)


class Nesting:
    """Finds operators inside other operators of their thread, chunk by chunk.

    That is enough where a file lists each operator before those inside it, as all but the oldest
    do; `unordered` says that this one does not.
    """

    def __init__(self) -> None:
        self.unordered = False
        self._last: dict[int, tuple[int, int]] = {}

    def keep(
        self, kind: np.ndarray, start: np.ndarray, dur: np.ndarray, thread: np.ndarray
    ) -> np.ndarray:
        """Which rows are no operator inside another one (boolean)."""
        result = np.ones(len(kind), np.bool_)
        ops = np.flatnonzero(kind == OP)
        owners = set(thread[ops].tolist())
        for owner in owners:
            mine = ops if len(owners) == 1 else ops[thread[ops] == owner]
            result[mine] = ~self._inside(owner, start[mine], dur[mine])
        return result

    def _inside(self, owner: int, start: np.ndarray, dur: np.ndarray) -> np.ndarray:
        end = start + np.maximum(dur, 0)
        first, last = self._last.get(owner, (-LIMIT, -LIMIT))
        step = np.diff(start)
        ordered = not (step < 0).any() and not ((step == 0) & (np.diff(end) > 0)).any()
        self.unordered |= not ordered or bool(start[0] < first)
        inside = _reached(end) if ordered else _is_inside(start, end)
        inside |= (start >= first) & (end <= last)
        longest = int(end.argmax())
        if end[longest] > last:
            self._last[owner] = (int(start[longest]), int(end[longest]))
        return inside


def _is_inside(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Which intervals lie in another one (boolean); of equal ones all but the first."""
    order = np.lexsort((-end, start))
    result = np.empty(len(start), np.bool_)
    result[order] = _reached(end[order])
    return result


def _reached(end: np.ndarray) -> np.ndarray:
    """The same for intervals in the order of their starts: what ends before the latest end of
    those that began earlier lies inside one of them."""
    result = np.zeros(len(end), np.bool_)
    result[1:] = end[1:] <= np.maximum.accumulate(end)[:-1]
    return result


def nested_rows(host: Table) -> np.ndarray:
    """Rows of operators inside other operators, whatever the file's order."""
    ops = np.flatnonzero(host["kind"] == OP)
    thread = host["thread"][ops]
    parts = []
    for owner in np.unique(thread).tolist():
        mine = ops[thread == owner]
        start = host.at("start", mine)
        parts.append(mine[_is_inside(start, start + np.maximum(host.at("dur", mine), 0))])
    return np.concatenate(parts) if parts else ops


_LIMITS: Final = tuple((np.dtype(f"i{width}"), 1 << (8 * width - 1)) for width in (1, 2, 4, 8))
"""Integers by their width, and what is one too much for them."""


class Table:
    """Columns that grow in place: chunks are appended to plain bytes and viewed as arrays.

    A column of integers is as narrow as its values allow: a file may hold twenty million rows.
    Those of `WIDE` are not, so that sums with them fit.
    """

    WIDE: Final = frozenset({"start"})

    def __init__(self, **dtypes: str) -> None:
        self._dtypes = {name: np.dtype(code) for name, code in dtypes.items()}
        self._stored = {
            name: dtype if name in self.WIDE else np.dtype(np.int8)
            for name, dtype in self._dtypes.items()
        }
        self._data = {name: bytearray() for name in dtypes}

    def append(self, **columns: Iterable[Any]) -> None:
        """Add rows: one array or list a column, all of one length."""
        for name, values in columns.items():
            array = np.ascontiguousarray(values, self._dtypes[name])
            if array.size:
                self._widen(name, array)
                self._data[name] += array.astype(self._stored[name]).tobytes()

    def _widen(self, name: str, array: np.ndarray) -> None:
        """Make room for values of a column."""
        if name in self.WIDE:
            return
        stored, low, high = self._stored[name], int(array.min()), int(array.max())
        wanted = next(dtype for dtype, limit in _LIMITS if -limit <= low and high < limit)
        if wanted.itemsize > stored.itemsize:
            self._stored[name] = wanted
            self._data[name] = bytearray(np.frombuffer(self._data[name], stored).astype(wanted))

    def clear(self) -> None:
        """Let go of all rows."""
        self._data = {name: bytearray() for name in self._data}

    def __getitem__(self, name: str) -> np.ndarray:
        """A whole column as it is stored: sums of two such may not fit, see `at`."""
        return np.frombuffer(self._data[name], self._stored[name])

    def at(self, name: str, rows: np.ndarray | slice) -> np.ndarray:
        """Some rows of a column, as wide as declared."""
        return self[name][rows].astype(self._dtypes[name])

    def __len__(self) -> int:
        name, dtype = next(iter(self._stored.items()))
        return len(self._data[name]) // dtype.itemsize


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
        self.calls = Table(row="i4", correlation="i8")
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
            self._kinds = np.concatenate([self._kinds, [_KIND_OF_CAT[cat] for cat in new]])
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
        start, dur, sound = _times(piece.text, kept, rows)
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
        self._note_owners({event.pid for event in events})
        thread = _numbers(map(self.threads.__getitem__, map(_tid_of, events)), events)
        keep = self.nesting.keep(kind, start, dur, thread)
        if not keep.all():
            events = [events[index] for index in np.flatnonzero(keep).tolist()]
            kind, start, dur, thread = kind[keep], start[keep], dur[keep], thread[keep]
        calls = np.flatnonzero(kind == RUNTIME)
        if calls.size:
            ids = [events[index].args.correlation for index in calls.tolist()]
            known = np.fromiter(ids, np.int64, len(ids)) > 0  # 0: it launched nothing
            self.calls.append(
                row=calls[known] + len(self.host),
                correlation=np.fromiter(ids, np.int64, len(ids))[known],
            )
        self.host.append(
            start=start,
            dur=dur,
            kind=kind,
            name=_numbers(map(self.host_names.__getitem__, map(_name_of, events)), events),
            thread=thread,
        )

    def _note_owners(self, pids: set[int | str]) -> None:
        for pid in pids:
            if isinstance(pid, int):
                self.pids.update([pid] if pid > 0 else [])
            elif label := pid.rstrip("0123456789").strip():
                self.merged.add(label)

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


def _times(
    text: bytes, kept: list[Event], chosen: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Starts and durations in ns of events, and which starts are times at all.

    `chosen`: the places of the events in the JSON list `text`.
    """
    ts = np.fromiter(map(attrgetter("ts"), kept), np.float64, len(kept))
    dur = np.fromiter(map(attrgetter("dur"), kept), np.float64, len(kept))
    sound = np.abs(ts) < LARGEST_US
    known = (dur >= 0) & (dur < LARGEST_US)
    start_ns = nanoseconds(np.where(sound, ts, 0.0))
    dur_ns = np.where(known, nanoseconds(np.where(known, dur, 0.0)), -1)
    if sound.any() and np.abs(ts[sound]).max() >= FLOAT_EXACT_US and _FRACTION.search(text):
        exact = decode_exact(text)
        written = [exact_nanoseconds(bytes(exact[index].ts)) for index in chosen.tolist()]
        start_ns = np.array([value or 0 for value in written], np.int64)
        sound = sound & np.array([value is not None for value in written], np.bool_)
    return start_ns, dur_ns, sound


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
