"""What ran: device work and host calls of a report as columns, a process at a time.

Tables are read in pieces, and each piece is split by process at once: a report of a whole node
holds millions of rows, and every further copy of them costs as much as reading.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from harness_collectors.nsys.export.layouts import NULL, Ints
from harness_collectors.nsys.export.names import (
    COPY_KINDS,
    MEMORY_KINDS,
    Enumeration,
    Names,
    Strings,
    copy_name,
)
from harness_collectors.nsys.export.pages import Chunk
from harness_collectors.nsys.export.tables import Export, large_chunks

KERNELS: Final = "CUPTI_ACTIVITY_KIND_KERNEL"
COPIES: Final = "CUPTI_ACTIVITY_KIND_MEMCPY"
FILLS: Final = "CUPTI_ACTIVITY_KIND_MEMSET"
GRAPHS: Final = "CUPTI_ACTIVITY_KIND_GRAPH_TRACE"
CALLS: Final = "CUPTI_ACTIVITY_KIND_RUNTIME"
RANGES: Final = "NVTX_EVENTS"
SYSTEM_CALLS: Final = "OSRT_API"
OVERHEADS: Final = ("PROFILER_OVERHEAD", "CUPTI_ACTIVITY_KIND_OVERHEAD")
DEVICE_TABLES: Final = (KERNELS, COPIES, FILLS, GRAPHS)

KINDS: Final = (
    "kernel", "memcpy", "memset", "graph", "runtime", "overhead", "annotation", "op", "io",
)  # fmt: skip
"""Kinds of rows; their places in this tuple are their codes. `graph`: a whole CUDA graph."""
KERNEL, MEMCPY, MEMSET, GRAPH, RUNTIME, OVERHEAD, ANNOTATION, OP, IO = range(len(KINDS))

FILE_CALLS: Final = frozenset(
    {
        "read", "pread", "pread64", "readv", "preadv", "preadv2", "preadv64", "fread",
        "write", "pwrite", "pwrite64", "writev", "pwritev", "pwritev2", "pwritev64", "fwrite",
        "open", "open64", "openat", "openat64", "fopen", "fopen64", "close", "fclose",
        "fsync", "fdatasync", "sync_file_range", "msync", "fflush", "sendfile", "sendfile64",
        "copy_file_range", "io_submit", "io_getevents",
    }
)  # fmt: skip
"""Calls of the C library that read or write files (pipes and sockets among them)."""

DEVICE_OWNER: Final = "globalPid"
NOBODY, LOST = -1, -2
"""Stand for a process that is not known, and for rows that cannot be used."""
LATEST_NS: Final = 2**61
"""Times beyond are none; the sum of two such fits 64 bits."""
_SMALL: Final = np.iinfo(np.int32).max

_SHARED: Final = ("start", "end", "deviceId", "streamId", "correlationId", "globalPid")
_KERNEL_NAMES: Final = ("demangledName", "shortName", "mangledName")
_MORE: Final[Mapping[str, tuple[str, ...]]] = {
    KERNELS: (*_KERNEL_NAMES, "graphNodeId", "graphId", "gridX"),
    COPIES: ("graphNodeId", "graphId", "bytes", "copyKind", "srcKind", "dstKind"),
    FILLS: ("graphNodeId", "graphId", "bytes"),
    GRAPHS: ("graphId",),
}


_CALL_COLUMNS: Final = ("start", "end", "globalTid", "correlationId", "nameId")


@dataclass
class Device:
    """Device work of one process. `end` NULL: unknown; other numbers are negative then."""

    start: Ints
    end: Ints
    correlation: Ints
    bytes: Ints
    graph: Ints
    stream: Ints
    device: np.ndarray
    blocks: np.ndarray
    name: np.ndarray
    kind: np.ndarray
    replayed: np.ndarray
    """It is a node of a CUDA graph, or a whole one (boolean)."""

    def __len__(self) -> int:
        return len(self.start)

    def take(self, rows: Ints) -> Device:
        """Some of the rows."""
        return Device(*(getattr(self, column)[rows] for column in self.__dataclass_fields__))


@dataclass
class Host:
    """Host calls and ranges of one process. `end` NULL: unknown."""

    start: Ints
    end: Ints
    correlation: Ints
    thread: np.ndarray
    name: np.ndarray
    kind: np.ndarray

    def __len__(self) -> int:
        return len(self.start)

    def take(self, rows: Ints) -> Host:
        """Some of the rows."""
        return Host(*(getattr(self, column)[rows] for column in self.__dataclass_fields__))


def process_of(global_id: Ints) -> Ints:
    """The process in a serialised process or thread id: machine and pid, without the thread."""
    return global_id >> 24


def pid_of(process: int) -> int:
    """The process id proper."""
    return process & 0xFFFFFF


def thread_of(global_id: Ints) -> Ints:
    """The thread id in a serialised thread id."""
    return global_id & 0xFFFFFF


# -- reading -----------------------------------------------------------------------------------


@dataclass
class Raw:
    """Pieces of columns by process. Their names are ids of texts until `Strings` has those.

    `dropped`: rows without a time or a process.
    """

    device: dict[int, list[Device]] = field(default_factory=dict)
    host: dict[int, list[Host]] = field(default_factory=dict)
    dropped: int = 0

    def split(self, chunk: Chunk, owner: str) -> Iterable[tuple[int, Any]]:
        """Processes of a piece, and their rows of it; of device work NOBODY too."""
        start, process = chunk.ints["start"], process_of(chunk.ints[owner])
        sound = (start < LATEST_NS) & (start > -LATEST_NS)
        if owner == DEVICE_OWNER:
            # CUPTI's 0 stands for a time that it lost: it would lie long before all others.
            sound &= (start != 0) | (chunk.ints["end"] != 0)
        else:
            sound &= process >= 0
        if not sound.all() or (process < 0).any():
            self.dropped += int((~sound).sum())
            process = np.where(sound, np.maximum(process, NOBODY), LOST)
        owners = distinct(process)
        for each in owners:
            if each != LOST:
                yield each, slice(None) if len(owners) == 1 else np.flatnonzero(process == each)

    def settle(self) -> None:
        """Give device work without a process to the only one that can have launched it."""
        parts = self.device.pop(NOBODY, [])
        if not parts:
            return
        calling = {p for p, rows in self.host.items() if any(RUNTIME in r.kind for r in rows)}
        known = calling | set(self.device)
        if len(known) == 1:
            self.device.setdefault(known.pop(), []).extend(parts)
        else:
            self.dropped += sum(map(len, parts))


def read_device(raw: Raw, export: Export, strings: Strings, names: Names) -> None:
    """Read kernels, copies, fills and whole graphs."""
    copies, memory = Enumeration(export, COPY_KINDS), Enumeration(export, MEMORY_KINDS)
    for kind, table in enumerate(DEVICE_TABLES):
        for chunk in large_chunks(export, table, (*_SHARED, *_MORE[table])):
            if kind == KERNEL:
                name = strings.note(_first_known([chunk.ints[n] for n in _KERNEL_NAMES]))
            elif kind == MEMCPY:
                name = ~_copy_names(chunk, copies, memory, names)
            else:
                plain = "Memset (Device)" if kind == MEMSET else "CUDA graph"
                name = np.full(chunk.size, ~names.code(plain))
            work = _device_rows(chunk, kind, name)
            for process, rows in raw.split(chunk, DEVICE_OWNER):
                raw.device.setdefault(process, []).append(work.take(rows))


def _device_rows(chunk: Chunk, kind: int, name: Ints) -> Device:
    ints, size = chunk.ints, chunk.size
    unknown = np.full(size, -1)
    graph = ints.get("graphId", unknown)
    return Device(
        start=ints["start"],
        end=bounded(ints["end"]),
        correlation=ints["correlationId"],
        bytes=ints.get("bytes", unknown),
        graph=graph,
        stream=ints["streamId"],
        device=narrow(ints["deviceId"]),
        blocks=narrow(ints.get("gridX", unknown)),
        name=name,
        kind=np.full(size, kind, np.int8),
        replayed=(ints.get("graphNodeId", unknown) > 0) | (kind == GRAPH),
    )


def _first_known(columns: Sequence[Ints]) -> Ints:
    """The first column that is not NULL: the demangled name is the whole one, and derived
    exports may have others only."""
    found = columns[0]
    for column in columns[1:]:
        if (found == NULL).any():
            found = np.where(found == NULL, column, found)
    return found


def _copy_names(chunk: Chunk, copies: Enumeration, memory: Enumeration, names: Names) -> Ints:
    numbers = [np.clip(chunk.ints[n], -1, 254) + 1 for n in ("copyKind", "srcKind", "dstKind")]
    mixed = numbers[0] << 16 | numbers[1] << 8 | numbers[2]
    result = np.empty(chunk.size, np.int64)
    for key in distinct(mixed):
        parts = ((key >> shift & 255) - 1 for shift in (16, 8, 0))
        result[mixed == key] = names.code(copy_name(copies, memory, *parts))
    return result


def read_host(raw: Raw, export: Export, strings: Strings) -> None:
    """Read CUDA calls, the profiler's own time, and calls of the system."""
    for kind, table in ((RUNTIME, CALLS), *((OVERHEAD, t) for t in OVERHEADS), (IO, SYSTEM_CALLS)):
        for chunk in large_chunks(export, table, _CALL_COLUMNS):
            name = strings.note(chunk.ints["nameId"])
            rows_of = host_rows(chunk, np.full(chunk.size, kind, np.int8), name)
            for process, rows in raw.split(chunk, "globalTid"):
                raw.host.setdefault(process, []).append(rows_of.take(rows))


def host_rows(chunk: Chunk, kind: np.ndarray, name: Ints) -> Host:
    """Host rows of a piece."""
    return Host(
        start=chunk.ints["start"],
        end=bounded(chunk.ints["end"]),
        correlation=chunk.ints.get("correlationId", np.full(chunk.size, NULL)),
        thread=thread_of(chunk.ints["globalTid"]).astype(np.int32),
        name=name,
        kind=kind,
    )


def bounded(end: Ints) -> Ints:
    """Ends, NULL where they are no times."""
    known = (end < LATEST_NS) & (end > -LATEST_NS)
    return end if known.all() else np.where(known, end, NULL)


def narrow(values: Ints) -> np.ndarray:
    """Numbers in half the space; -1 where they are unknown or do not fit."""
    fits = (values >= 0) & (values <= _SMALL)
    return (values if fits.all() else np.where(fits, values, -1)).astype(np.int32)


# -- resolving ---------------------------------------------------------------------------------


def device_of(raw: Raw, process: int, strings: Strings) -> Device:
    """All device work of a process, with its names."""
    work: Device = _joined(raw.device.get(process, []), Device)
    work.name = strings.codes(work.name, "kernel")
    return work


def host_of(raw: Raw, process: int, strings: Strings, names: Names) -> Host:
    """All host rows of a process, with their names; of system calls those that touch files."""
    work: Host = _joined(raw.host.get(process, []), Host)
    work.kind[(work.kind == ANNOTATION) & strings.operators(work.name)] = OP
    work.name = strings.codes(work.name, "call")
    touches_files = np.array([*(name in FILE_CALLS for name in names), False], np.bool_)
    dropped = (work.kind == IO) & ~touches_files[work.name]
    return work.take(np.flatnonzero(~dropped)) if dropped.any() else work


def _joined(parts: Sequence[Any], kind: type[Any]) -> Any:
    """Pieces of columns, one after the other."""
    columns = kind.__dataclass_fields__
    if not parts:
        return kind(*(np.zeros(0, np.int64) for _ in columns))
    return kind(*(np.concatenate([getattr(p, name) for p in parts]) for name in columns))


def first_match(keys: Ints, ids: Ints) -> np.ndarray:
    """For each key the first place in `ids` that holds it; -1: none, or the key is NULL."""
    known = np.flatnonzero(ids != NULL)
    found = np.full(len(keys), -1, np.int32)
    asked = np.flatnonzero(keys != NULL)
    if not known.size or not asked.size:
        return found
    low, high = int(ids[known].min()), int(ids[known].max())
    if high - low < 8 * (len(known) + len(asked)) + 4096:
        table = np.full(high - low + 1, -1, np.int32)
        table[ids[known[::-1]] - low] = known[::-1]
        inside = asked[(keys[asked] >= low) & (keys[asked] <= high)]
        found[inside] = table[keys[inside] - low]
        return found
    order = known[np.argsort(ids[known], kind="stable")]
    place = np.minimum(np.searchsorted(ids[order], keys[asked]), len(order) - 1)
    found[asked] = np.where(ids[order[place]] == keys[asked], order[place], -1)
    return found


def distinct(values: Ints) -> list[int]:
    """The different values, ascending; quick where there are few, as of processes."""
    found: list[int] = []
    rest = values
    while rest.size and len(found) < 64:
        found.append(int(rest[0]))
        rest = rest[rest != rest[0]]
    return sorted(found) if not rest.size else np.unique(values).tolist()
