"""Inspector's records as compact columns: read once, resolved when all are known."""

from __future__ import annotations

import itertools
import re
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec

from harness_collectors.nccl_log.evidence.state import MAX_THINGS, Comm, Evidence, LogFile
from harness_collectors.nccl_log.grammar.lines import OPS, SCALED_OPS
from harness_collectors.nccl_log.pages.stream import Intake

UNKNOWN: Final = -1
_MAX_OBJECT: Final = 1 << 20
_SAME_SIZE: Final = 0.02
"""How far a size may lie from what the printed bandwidth says: that is rounded, times too."""

Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 62)]
Rank = Annotated[int, msgspec.Meta(ge=0, lt=1 << 24)]
Microseconds = Annotated[float, msgspec.Meta(ge=0, le=float(1 << 52))]
"""Whole ones in NCCL's own plugin; fractions in plugins made after it."""


class Header(msgspec.Struct):
    """Whose record: `id` is NCCL's commId; plugins made after it may leave it out."""

    rank: Rank
    n_ranks: Rank
    id: Annotated[str, msgspec.Meta(max_length=64)] = ""


class Metadata(msgspec.Struct):
    """The process that wrote it."""

    hostname: Annotated[str, msgspec.Meta(max_length=256)] | None = None
    pid: Count | None = None
    inspector_output_format_version: Annotated[str, msgspec.Meta(max_length=32)] | None = None


class KernelTimes(msgspec.Struct):
    """When the host saw a channel's kernel stop, Unix microseconds."""

    kernel_stop_ts: Count = 0


class Trace(msgspec.Struct):
    """Times of one operation, where the dump is verbose."""

    kernel_events: list[KernelTimes] = []


class Collective(msgspec.Struct):
    """`coll_perf`."""

    coll: str
    coll_sn: Count
    coll_msg_size_bytes: Count
    coll_exec_time_us: Microseconds
    coll_timing_source: str | None = None
    coll_algobw_gbs: float | None = None
    coll_algo: str | None = None
    coll_proto: str | None = None
    event_trace_ts: Trace | None = None


class PointToPoint(msgspec.Struct):
    """`p2p_perf`."""

    p2p: str
    p2p_sn: Count
    p2p_peer: Rank
    p2p_msg_size_bytes: Count
    p2p_exec_time_us: Microseconds
    p2p_timing_source: str | None = None
    event_trace_ts: Trace | None = None


class DumpStats(msgspec.Struct):
    """From v4.2 on: how many records were overwritten before they were written out."""

    coll_dropped_since_last_dump: Count = 0
    p2p_dropped_since_last_dump: Count = 0


class Record(msgspec.Struct):
    """One object; from v4.3 on header and metadata stand only with `dump_stats`.

    What a header and metadata hold may also stand in the object itself, as agents flatten it.
    """

    header: Header | None = None
    metadata: Metadata | None = None
    coll_perf: Collective | None = None
    p2p_perf: PointToPoint | None = None
    dump_stats: DumpStats | None = None
    proxy_trace: dict[str, Any] | None = None
    id: Annotated[str, msgspec.Meta(max_length=64)] = ""
    rank: Rank | None = None
    n_ranks: Rank | None = None
    hostname: Annotated[str, msgspec.Meta(max_length=256)] | None = None
    pid: Count | None = None


_SEAM: Final = re.compile(
    rb"(?<=\})\s*,?\s*(?=\{\"(?:header|metadata|coll_perf|p2p_perf|dump_stats)\")"
)
"""Where one record ends and the next begins; no object within a record follows another."""
_DECODER: Final = msgspec.json.Decoder(Record)


@dataclass(frozen=True)
class Kind:
    """What records that differ in size and time only have in common."""

    comm: Comm
    op: str
    peer: int
    timing: str | None
    algo: str | None
    proto: str | None


@dataclass
class Records:
    """All records: a row is a kind and five numbers, 44 bytes."""

    evidence: Evidence = field(default_factory=Evidence)
    kinds: dict[Kind, int] = field(default_factory=dict)
    kind: array[int] = field(default_factory=lambda: array("i"))
    sn: array[int] = field(default_factory=lambda: array("q"))
    bytes: array[int] = field(default_factory=lambda: array("q"))
    duration_ns: array[int] = field(default_factory=lambda: array("q"))
    end_ns: array[int] = field(default_factory=lambda: array("q"))
    formats: dict[str, Counter[str]] = field(default_factory=dict)
    """Output format versions by file."""

    def add(self, kind: Kind, sn: int, size: int, exec_us: float, trace: Trace | None) -> bool:
        """Keep a record; False: too many kinds."""
        index = self.kinds.get(kind)
        if index is None:
            if len(self.kinds) >= MAX_THINGS:
                return False
            index = self.kinds[kind] = len(self.kinds)
        stops = [times.kernel_stop_ts for times in trace.kernel_events] if trace else []
        self.kind.append(index)
        self.sn.append(sn)
        self.bytes.append(size)
        self.duration_ns.append(round(exec_us * 1_000))
        self.end_ns.append(min(max(stops), 1 << 52) * 1_000 if any(stops) else UNKNOWN)
        return True


def read_file(records: Records, path: Path, root: Path) -> None:
    """Read one file; never raises for what it holds."""
    from harness_collectors.nccl_log.beforehand import relative_name

    intake = Intake(path)
    name, folder = relative_name(path, root), str(path.parent)
    file = LogFile(name, folder, intake, is_structured=True)
    records.evidence.files.append(file)
    context: tuple[Header, Metadata] | None = None
    for record in (each for text in objects(intake) for each in _decoded(text)):
        if record is None:
            file.unreadable += 1
            continue
        if record.header is not None:
            context = (record.header, record.metadata or Metadata())
        elif record.rank is not None and record.n_ranks is not None:
            context = (
                Header(record.rank, record.n_ranks, record.id),
                Metadata(record.hostname, record.pid),
            )
        if record.proxy_trace is None:
            _keep(records, file, record, context)


def _decode(text: bytes | None) -> Record | None:
    if text is None:
        return None
    try:
        return _DECODER.decode(text)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None


def _decoded(text: bytes | None) -> Iterator[Record | None]:
    """The record, or the records of a line whose ends of lines were lost on the way."""
    record = _decode(text)
    if record is not None or text is None or _SEAM.search(text) is None:
        yield record
        return
    for part in _SEAM.split(text):
        yield _decode(part)


def objects(intake: Intake) -> Iterator[bytes | None]:
    """The objects of a file, a line each or laid out over lines; None: a piece of one."""
    pending = bytearray()
    for line in _lines(intake):
        if line[:1] == b"{" and pending:
            pending.clear()  # the one before was cut
            yield None
        if not pending and line[:1] == b"{" and line.rstrip()[-1:] == b"}" and len(line) > 1:
            yield line
        elif pending or line[:1] == b"{":
            pending += line
            if line[:1] == b"}" or len(pending) > _MAX_OBJECT:
                yield bytes(pending) if line[:1] == b"}" else None
                pending.clear()
        elif line.strip():
            yield None
    if pending:
        yield None


def _lines(intake: Intake) -> Iterator[bytes]:
    """Lines; of a list of objects (`jq -s` makes one of them) without what makes it a list."""
    lines = (line for block in intake.blocks() for line in block.splitlines())
    first = next((line.lstrip() for line in lines if line.strip()), b"")
    if not first.startswith(b"["):
        yield first
        yield from lines
        return
    indent = None
    for line in itertools.chain((first[1:],), lines):
        if indent is None:
            if not line.strip():
                continue
            indent = len(line) - len(line.lstrip())
        bare = line.strip() if line[:indent].strip() else line[indent:].rstrip()
        if bare[:1] in (b"{", b"}") and bare.endswith((b"},", b"}]")):
            bare = bare[:-1]
        if bare != b"]":
            yield bare


def _keep(
    records: Records, file: LogFile, record: Record, context: tuple[Header, Metadata] | None
) -> None:
    if record.dump_stats is not None:
        stats = record.dump_stats
        file.dropped += stats.coll_dropped_since_last_dump + stats.p2p_dropped_since_last_dump
    body = record.coll_perf or record.p2p_perf
    if body is None:
        file.unreadable += record.dump_stats is None
        return
    comm = _comm(records, file, context) if context else None
    name = body.coll if isinstance(body, Collective) else body.p2p
    if comm is None or name not in OPS:
        file.unreadable += 1
        return
    if isinstance(body, Collective):
        op = OPS[name]
        algo, proto = _known(body.coll_algo), _known(body.coll_proto)
        kind = Kind(comm, op, UNKNOWN, body.coll_timing_source, algo, proto)
        size = _message_bytes(op, body, comm.get("nranks") or 1)
        kept = records.add(kind, body.coll_sn, size, body.coll_exec_time_us, body.event_trace_ts)
    else:
        kind = Kind(comm, OPS[name], body.p2p_peer, body.p2p_timing_source, None, None)
        size, exec_us = body.p2p_msg_size_bytes, body.p2p_exec_time_us
        kept = records.add(kind, body.p2p_sn, size, exec_us, body.event_trace_ts)
    file.records += kept
    file.dropped += not kept


def _comm(records: Records, file: LogFile, context: tuple[Header, Metadata]) -> Comm | None:
    """The communicator of a record, as a process's own."""
    header, metadata = context
    evidence = records.evidence
    host = metadata.hostname.partition(".")[0] if metadata.hostname else None
    process = evidence.process(file, host, metadata.pid)
    if process is None or header.rank >= header.n_ranks:
        return None
    # A process may hold several ranks, each on its own device.
    key = f"{header.id}/{header.rank}"
    comm = process.comms.get(key)
    if comm is None:
        comm = evidence.new_comm(process, key)
        if comm is None:
            return None
        comm.seen_init = True
        if header.id:
            comm.says("commId", header.id)
        comm.says("rank", header.rank)
        comm.says("nranks", header.n_ranks)
    elif comm.get("nranks") != header.n_ranks:
        return None
    version = metadata.inspector_output_format_version
    if version:
        records.formats.setdefault(file.name, Counter())[version] += 1
    return comm


def _known(name: str | None) -> str | None:
    return None if name in (None, "", "unknown") else name[:64].upper()


def _message_bytes(op: str, body: Collective, nranks: int) -> int:
    """The message by the convention of nccl-tests: of gathered ones Inspector gives a share.

    Its bandwidth is that of the whole message, so it tells which of the two a size is.
    """
    share = body.coll_msg_size_bytes
    if op not in SCALED_OPS:
        return share
    if body.coll_algobw_gbs and body.coll_exec_time_us:
        moved = body.coll_algobw_gbs * 1e3 * body.coll_exec_time_us
        if abs(moved - share) <= _SAME_SIZE * share:
            return share
    return min(share * nranks, 1 << 62)
