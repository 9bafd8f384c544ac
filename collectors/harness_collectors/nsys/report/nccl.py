"""What NCCL's own NVTX ranges say: communicators, operations, sizes, peers.

NCCL wraps each call of its API in a range of the domain `NCCL`, with a typed payload where the
report was exported with blobs (`--include-blobs true`). The layout of a payload is given by the
report's own tables; before it stand 32 bytes: domain, schema, size and end, 8 each.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pyarrow as pa

from harness_collectors.nsys.export.layouts import NULL
from harness_collectors.nsys.export.names import Names, Strings
from harness_collectors.nsys.export.tables import Export, load
from harness_collectors.nsys.report.work import RANGES, process_of
from harness_collectors.traces.operations import canonical_op
from harness_schemas.vocabulary import group_name

HEADER_BYTES: Final = 32
_FORMATS: Final = {
    5: "<i", 6: "<I", 7: "<q", 8: "<Q", 9: "<q", 10: "<Q", 15: "<i", 16: "<I", 17: "<q",
    18: "<Q", 22: "<Q",
}  # fmt: skip
"""Types of payload entries (nvToolsExtPayload.h) that hold integers."""
_FIELDS: Final = {
    "nccl communicator id": "comm",
    "no. of ranks": "nranks",
    "rank": "rank",
    "message size [bytes]": "bytes",
    "peer rank": "peer",
    "root": "root",
}
GROUP_START, GROUP_END = "ncclGroupStart", "ncclGroupEnd"
_INIT: Final = ("ncclCommInit", "ncclCommSplit", "ncclCommShrink", "ncclCommGrow")


@dataclass(frozen=True)
class Payload:
    """Fields of one range; None: not among them. `comm` names a communicator on all ranks."""

    comm: int | None = None
    nranks: int | None = None
    rank: int | None = None
    bytes: int | None = None
    peer: int | None = None
    root: int | None = None


NO_PAYLOAD: Final = Payload()


@dataclass(frozen=True)
class Member:
    """A process joined a communicator."""

    process: int
    comm: int
    nranks: int
    rank: int
    at: int


class Schemas:
    """The layouts of a report's payloads, by schema id."""

    def __init__(self, export: Export) -> None:
        ints, texts = load(
            export, "NVTX_PAYLOAD_SCHEMA_ENTRIES", ("schemaId", "type", "offset"), ("name",)
        )
        self._fields: dict[int, list[tuple[str, str, int]]] = {}
        columns = (ints[name].tolist() for name in ("schemaId", "type", "offset"))
        for schema, kind, offset, name in zip(*columns, texts["name"].to_pylist(), strict=True):
            field_name = _FIELDS.get((name or b"").decode("utf-8", "replace").strip().lower())
            if field_name and kind in _FORMATS and (offset == NULL or 0 <= offset < 1 << 16):
                place = HEADER_BYTES + (0 if offset == NULL else offset)
                entry = (field_name, _FORMATS[kind], place)
                if entry not in (known := self._fields.setdefault(schema, [])):
                    known.append(entry)

    def decode(self, blob: bytes | None) -> Payload:
        """The payload of a range; what is not there or does not fit is None."""
        if blob is None or len(blob) < HEADER_BYTES:
            return NO_PAYLOAD
        fields = {}
        for name, kind, place in self._fields.get(struct.unpack_from("<Q", blob, 8)[0], ()):
            if place + struct.calcsize(kind) <= len(blob):
                fields[name] = struct.unpack_from(kind, blob, place)[0]
        return Payload(**fields)


def read_members(export: Export) -> list[Member]:
    """Who joined which communicator, in the order of time; nothing without payloads."""
    if "binaryData" not in export.columns(RANGES):
        return []
    found = []
    for chunk in export.chunks(RANGES, ("start", "textId", "globalTid"), ("text", "binaryData")):
        rows = np.flatnonzero(chunk.texts["binaryData"].is_valid().to_numpy(zero_copy_only=False))
        if not rows.size:
            continue
        strings = Strings(Names())
        ids = strings.note(chunk.ints["textId"][rows])
        strings.fetch(export)
        texts, blobs = (
            chunk.texts[name].take(pa.array(rows)).to_pylist() for name in ("text", "binaryData")
        )
        registered = [strings.texts.get(key, "") for key in ids.tolist()]
        names = [
            text.decode("utf-8", "replace") if text else other
            for text, other in zip(texts, registered, strict=True)
        ]
        processes = process_of(chunk.ints["globalTid"][rows]).tolist()
        starts = chunk.ints["start"][rows].tolist()
        found += list(zip(starts, processes, names, blobs, strict=True))
    return members_of(found, Schemas(export))


def members_of(calls: Iterable[tuple[int, int, str, bytes]], schemas: Schemas) -> list[Member]:
    """Members out of NCCL's ranges (start, process, name, payload), in the order of time."""
    inits = [
        (start, process, schemas.decode(blob))
        for start, process, name, blob in calls
        if name.startswith(_INIT)
    ]
    return [
        Member(process, p.comm, p.nranks, p.rank, start)
        for start, process, p in sorted(inits, key=lambda each: each[0])
        if p.comm is not None and p.nranks and p.rank is not None and 0 <= p.rank < p.nranks
    ]


# -- calls -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Call:
    """A call of NCCL's API that moves data."""

    op: str
    payload: Payload = NO_PAYLOAD


@dataclass
class Calls:
    """Ranges of one thread during which NCCL launches, and the calls that each stands for.

    A call outside a group launches itself; the calls of a group are launched at its end.
    """

    start: list[int] = field(default_factory=list)
    end: list[int] = field(default_factory=list)
    thread: list[int] = field(default_factory=list)
    members: list[tuple[Call, ...]] = field(default_factory=list)


def is_nccl(name: str) -> bool:
    """Whether a range is one of NCCL's."""
    return name.startswith("nccl") and name[4:5].isupper()


def operation_of(name: str) -> str | None:
    """`ncclAllReduce` -> all_reduce; None: the call moves nothing."""
    plain = name.removeprefix("nccl")
    if plain.startswith(("Comm", "Group", "Mem", "Get", "RedOp", "Debug")):
        return None
    return canonical_op("broadcast" if plain == "Bcast" else plain)


def find_calls(rows: Iterable[tuple[int, int, int, str, bytes | None]], schemas: Schemas) -> Calls:
    """Launching ranges out of NCCL's ranges (start, end, thread, name, payload) in the order of
    time."""
    calls = Calls()
    open_: dict[int, list[Call]] = {}
    depth: dict[int, int] = {}
    for start, end, thread, name, blob in rows:
        op = operation_of(name)
        members: tuple[Call, ...] = ()
        if name == GROUP_START:
            depth[thread] = depth.get(thread, 0) + 1
        elif name == GROUP_END:
            depth[thread] = max(0, depth.get(thread, 0) - 1)
            if not depth[thread]:
                members = tuple(open_.pop(thread, ()))
        elif op is not None:
            call = Call(op, schemas.decode(blob))
            if depth.get(thread):
                open_.setdefault(thread, []).append(call)
            else:
                members = (call,)
        if members:
            calls.start.append(start)
            calls.end.append(end)
            calls.thread.append(thread)
            calls.members.append(members)
    return calls


# -- communicators -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Communicator:
    """A communicator: its size, its global ranks in its own order (empty: not all known)."""

    name: str
    nranks: int | None
    ranks: tuple[int, ...] = ()


def communicators(
    members: Sequence[tuple[Member, int | None]],
) -> dict[int, Communicator]:
    """Communicators by id, out of members and the global ranks of their processes.

    Named `[0,1]#0` by ranks and creation ordinal where every member is known, else by id.
    """
    found: dict[int, dict[int, int | None]] = {}
    sizes: dict[int, int] = {}
    for member, rank in members:
        found.setdefault(member.comm, {})[member.rank] = rank
        sizes[member.comm] = member.nranks
    ordinals: dict[tuple[int, ...], int] = {}
    result = {}
    for comm, by_rank in found.items():
        size = sizes[comm]
        ordered = [by_rank.get(place) for place in range(size)] if len(by_rank) == size else []
        ranks = tuple(rank for rank in ordered if rank is not None)
        if len(ranks) == size:
            ordinal = ordinals[ranks] = ordinals.get(ranks, -1) + 1
            name = group_name(ranks, ordinal)
            result[comm] = Communicator(name, size, ranks)
        else:
            result[comm] = Communicator(f"nccl:{comm:#x}", size)
    return result


def world_ranks(members: Sequence[Member]) -> Mapping[int, int]:
    """Global rank by process: its rank in the largest communicator, where all of those agree."""
    largest = max((member.nranks for member in members), default=0)
    if largest < 2:
        return {}
    ranks: dict[int, int] = {}
    for member in members:
        if (
            member.nranks == largest
            and ranks.setdefault(member.process, member.rank) != member.rank
        ):
            return {}
    return ranks if len(set(ranks.values())) == len(ranks) else {}
