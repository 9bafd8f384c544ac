"""What ran: device work and host calls of a report as columns, of all processes together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from harness_collectors.nsys.export import Export, load
from harness_collectors.nsys.names import (
    COPY_KINDS,
    MEMORY_KINDS,
    Enumeration,
    Names,
    Strings,
    copy_name,
)
from harness_collectors.nsys.pages import NULL, Ints

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

LATEST_NS: Final = 2**61
"""Times beyond are none; the sum of two such fits 64 bits."""

_SHARED: Final = ("start", "end", "deviceId", "streamId", "correlationId", "globalPid")
_MORE: Final[dict[str, tuple[str, ...]]] = {
    KERNELS: ("demangledName", "shortName", "mangledName", "graphNodeId", "graphId", "gridX"),
    COPIES: ("graphNodeId", "graphId", "bytes", "copyKind", "srcKind", "dstKind"),
    FILLS: ("graphNodeId", "graphId", "bytes"),
    GRAPHS: ("graphId",),
}


def process_of(global_id: Ints) -> Ints:
    """The process in a serialised process or thread id: machine and pid, without the thread."""
    return global_id >> 24


def pid_of(process: int) -> int:
    """The process id proper."""
    return process & 0xFFFFFF


def thread_of(global_id: Ints) -> Ints:
    """The thread id in a serialised thread id."""
    return global_id & 0xFFFFFF


@dataclass
class Device:
    """Device work: `end` below `start` is unknown, other unknown numbers are NULL."""

    start: Ints
    end: Ints
    device: Ints
    stream: Ints
    correlation: Ints
    process: Ints
    kind: Ints
    name: Ints
    node: Ints
    graph: Ints
    bytes: Ints
    blocks: Ints

    def __len__(self) -> int:
        return len(self.start)

    def take(self, rows: Ints) -> Device:
        """Some of the rows."""
        return Device(*(getattr(self, column)[rows] for column in self.__dataclass_fields__))


@dataclass
class Host:
    """Host calls and ranges: `end` below `start` is unknown; `thread` is serialised."""

    start: Ints
    end: Ints
    thread: Ints
    kind: Ints
    name: Ints
    correlation: Ints

    def __len__(self) -> int:
        return len(self.start)

    def take(self, rows: Ints) -> Host:
        """Some of the rows."""
        return Host(*(getattr(self, column)[rows] for column in self.__dataclass_fields__))


@dataclass
class Raw:
    """Columns as stored, before the names behind their ids are known."""

    columns: dict[str, dict[str, Ints]] = field(default_factory=dict)
    name_ids: list[Ints] = field(default_factory=list)

    def add(
        self, export: Export, table: str, names: Sequence[str], name_ids: Sequence[str]
    ) -> None:
        """Load columns of a table, and note which of them name texts."""
        found, _ = load(export, table, (*names, *name_ids))
        self.columns[table] = found
        self.name_ids += [found[name] for name in name_ids]


def read_raw(export: Export) -> Raw:
    """The numbers of every table of work."""
    raw = Raw()
    for table in DEVICE_TABLES:
        more = _MORE[table]
        ids = tuple(name for name in more if name.endswith("Name"))
        raw.add(export, table, _SHARED + tuple(n for n in more if n not in ids), ids)
    spans = ("start", "end", "globalTid")
    raw.add(export, CALLS, (*spans, "correlationId"), ("nameId",))
    for table in (*OVERHEADS, SYSTEM_CALLS):
        raw.add(export, table, spans, ("nameId",))
    return raw


def sound_rows(start: Ints, owner: Ints) -> np.ndarray:
    """Which rows have a time and a process (boolean)."""
    sound: np.ndarray = (np.abs(start) < LATEST_NS) & (start != NULL) & (owner >= 0)
    return sound


def device_work(raw: Raw, export: Export, strings: Strings, names: Names) -> Device:
    """Kernels, copies, fills and whole graphs, one after the other."""
    parts = []
    for kind, table in enumerate(DEVICE_TABLES):
        found = raw.columns[table]
        size = len(found["start"])
        unknown = np.full(size, NULL)
        parts.append(
            Device(
                start=found["start"],
                end=found["end"],
                device=found["deviceId"],
                stream=found["streamId"],
                correlation=found["correlationId"],
                process=process_of(found["globalPid"]),
                kind=np.full(size, kind),
                name=_device_names(table, found, export, strings, names),
                node=found.get("graphNodeId", unknown),
                graph=found.get("graphId", unknown),
                bytes=found.get("bytes", unknown),
                blocks=found.get("gridX", unknown),
            )
        )
    work: Device = _joined(parts)
    return work


def _device_names(
    table: str, found: dict[str, Ints], export: Export, strings: Strings, names: Names
) -> Ints:
    size = len(found["start"])
    if table == KERNELS:
        # The demangled name is the whole one; older or derived exports may have others only.
        ids = found["demangledName"]
        for other in ("shortName", "mangledName"):
            ids = np.where(ids == NULL, found[other], ids)
        codes = strings.codes(ids, names, "kernel")
        return np.where(codes < 0, names.code("kernel"), codes) if size else codes
    if table == COPIES:
        return _copy_names(found, export, names)
    plain = "Memset (Device)" if table == FILLS else "CUDA graph"
    return np.full(size, names.code(plain) if size else 0)


def _copy_names(found: dict[str, Ints], export: Export, names: Names) -> Ints:
    numbers = [np.clip(found[name], -1, 254) + 1 for name in ("copyKind", "srcKind", "dstKind")]
    mixed = numbers[0] << 16 | numbers[1] << 8 | numbers[2]
    distinct, place = np.unique(mixed, return_inverse=True)
    copies, memory = Enumeration(export, COPY_KINDS), Enumeration(export, MEMORY_KINDS)
    codes = [
        names.code(copy_name(copies, memory, *((key >> shift & 255) - 1 for shift in (16, 8, 0))))
        for key in distinct.tolist()
    ]
    found_codes: Ints = np.array(codes or [0], np.int64)[place.reshape(-1)]
    return found_codes


def host_work(raw: Raw, strings: Strings, names: Names) -> Host:
    """CUDA calls, the profiler's own time, and calls that touch files; no ranges."""
    parts = []
    for kind, table in ((RUNTIME, CALLS), *((OVERHEAD, t) for t in OVERHEADS), (IO, SYSTEM_CALLS)):
        found = raw.columns[table]
        size = len(found["start"])
        part = Host(
            found["start"],
            found["end"],
            found["globalTid"],
            np.full(size, kind),
            strings.codes(found["nameId"], names, KINDS[kind]) if size else np.zeros(0, np.int64),
            found.get("correlationId", np.full(size, NULL)),
        )
        if kind == IO and size:
            touches_files = np.array([*(name in FILE_CALLS for name in names), False], np.bool_)
            part = part.take(np.flatnonzero(touches_files[part.name]))
        parts.append(part)
    return joined_hosts(parts)


def _joined(parts: Sequence[Any]) -> Any:
    """Parts of one kind of table, one after the other."""
    kind = type(parts[0])
    columns = kind.__dataclass_fields__
    return kind(*(np.concatenate([getattr(p, name) for p in parts]) for name in columns))


def joined_hosts(parts: Sequence[Host]) -> Host:
    """Host rows one after the other."""
    found: Host = _joined(parts)
    return found


def first_match(keys: Ints, ids: Ints) -> Ints:
    """For each key the first place in `ids` that holds it; -1: none, or the key is NULL."""
    known = np.flatnonzero(ids != NULL)
    found = np.full(len(keys), -1, np.int64)
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
