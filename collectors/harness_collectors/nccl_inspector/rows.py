"""Inspector's records as rows of `collectives`."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from harness_collectors.nccl_inspector.state import UNKNOWN, Kind, Records
from harness_collectors.nccl_log.beforehand import planned_world, recorded_ranks
from harness_collectors.nccl_log.evidence.state import Comm, LogFile
from harness_collectors.nccl_log.tables.resolve import Resolution, resolve
from harness_collectors.reading.text_evidence import batch
from harness_schemas.spi import Batch, IngestContext

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

SOURCE: Final = "nccl_inspector"
UNTIMED: Final = "durations without points in time: the dump was not verbose"
CHUNK_ROWS: Final = 1 << 17
_POINT_TO_POINT: Final = ("send", "recv")
_HOST_CLOCK_NS: Final = 1_000
"""Inspector's clock is the wall's, in microseconds."""


def all_batches(records: Records, context: IngestContext) -> Iterator[Batch]:
    """Clocks, collectives and the state of the collection."""
    evidence = records.evidence
    resolution = resolve(evidence, recorded_ranks(context.root), planned_world(context.run))
    anchors = _anchor_rows(records)
    if anchors:
        yield batch("clock_anchors", anchors)
    gaps = 0
    if records.kind:
        table = _Table(records)
        for start in range(0, len(records.kind), CHUNK_ROWS):
            yield Batch("collectives", table.rows(start, start + CHUNK_ROWS))
        gaps = table.gaps
    if evidence.files:
        rows = [_collection_row(file, records, resolution, gaps) for file in evidence.files]
        yield batch("collection", rows)


def _anchor_rows(records: Records) -> list[dict[str, Any]]:
    """The clock of the traces is the wall clock; there is none without a trace."""
    first: dict[Comm, int] = {}
    kinds = list(records.kinds)
    for index, end in zip(records.kind, records.end_ns, strict=True):
        if end != UNKNOWN:
            first.setdefault(kinds[index].comm, end)
    ranks = {comm.global_rank: (comm, end) for comm, end in reversed(first.items())}
    return [
        {
            "source": SOURCE,
            "rank": rank,
            "host": comm.process.host,
            "raw_ns": end,
            "wall_ns": end,
            "width_ns": _HOST_CLOCK_NS,
        }
        for rank, (comm, end) in sorted(ranks.items(), key=str)
        if rank is not None
    ]


class _Table:
    """Columns by kind, and the sequence numbers, which need all records of a kind at once."""

    def __init__(self, records: Records) -> None:
        import numpy as np

        self._kinds = list(records.kinds)
        self._kind = np.frombuffer(records.kind, "i4")
        self._bytes = np.frombuffer(records.bytes, "i8")
        self._duration = np.frombuffer(records.duration_ns, "i8")
        self._end = np.frombuffer(records.end_ns, "i8")
        sn = np.frombuffer(records.sn, "i8")
        self.gaps = _gaps(self._kinds, self._kind, sn)
        self._seq = _sequence(self._kinds, self._kind, sn)
        self._columns = self._shared()

    def _shared(self) -> dict[str, pa.Array]:
        import pyarrow as pa

        kinds = self._kinds
        ends = [_ends(kind) for kind in kinds]
        on_device = [kind.timing == "kernel_gpu" for kind in kinds]
        return {
            "rank": pa.array([kind.comm.global_rank for kind in kinds], pa.int32()),
            "source": pa.array([SOURCE] * len(kinds), pa.string()),
            "timeline": pa.array(["device" if gpu else "host" for gpu in on_device], pa.string()),
            "comm_group": pa.array([kind.comm.group for kind in kinds], pa.string()),
            "op": pa.array([kind.op for kind in kinds], pa.string()),
            "src_rank": pa.array([source for source, _ in ends], pa.int32()),
            "dst_rank": pa.array([target for _, target in ends], pa.int32()),
            "group_size": pa.array([kind.comm.nranks for kind in kinds], pa.int32()),
            "algo": pa.array([kind.algo for kind in kinds], pa.string()),
            "proto": pa.array([kind.proto for kind in kinds], pa.string()),
        }

    def rows(self, start: int, end: int) -> pa.Table:
        """Rows of the records from `start` to before `end`."""
        import numpy as np
        import pyarrow as pa

        place = slice(start, end)
        taken = {name: c.take(pa.array(self._kind[place])) for name, c in self._columns.items()}
        ends, duration, seq = self._end[place], self._duration[place], self._seq[place]
        untimed = ends == UNKNOWN
        taken["bytes"] = pa.array(self._bytes[place])
        taken["seq"] = pa.array(seq, mask=seq == UNKNOWN)
        taken["duration_ns"] = pa.array(duration)
        taken["start_ns"] = pa.array(ends - duration, mask=untimed)
        taken["end_ns"] = pa.array(ends, mask=untimed)
        reason = pa.array([UNTIMED]).take(pa.array(np.zeros(len(ends), np.int8), mask=~untimed))
        taken["unsplit_reason"] = reason
        return pa.table(taken)


def _ends(kind: Kind) -> tuple[int | None, int | None]:
    members = kind.comm.members
    if kind.op not in _POINT_TO_POINT or members is None or not 0 <= kind.peer < len(members):
        return None, None
    own, peer = kind.comm.global_rank, members[kind.peer]
    return (own, peer) if kind.op == "send" else (peer, own)


def _counters(kinds: list[Kind]) -> list[tuple[int, str]]:
    """NCCL numbers the operations of a communicator, each sort by itself."""
    return [(kind.comm.order, kind.op) for kind in kinds]


def _gaps(kinds: list[Kind], kind: np.ndarray, sn: np.ndarray) -> int:
    """Numbers that are missing between the first and the last of each sequence."""
    import numpy as np

    missing = 0
    for members in _by_counter(kinds).values():
        numbers = np.unique(sn[np.isin(kind, members)])
        missing += int(numbers[-1] - numbers[0]) + 1 - len(numbers)
    return missing


def _by_counter(kinds: list[Kind]) -> dict[tuple[int, str], list[int]]:
    found: dict[tuple[int, str], list[int]] = defaultdict(list)
    for index, counter in enumerate(_counters(kinds)):
        found[counter].append(index)
    return found


def _sequence(kinds: list[Kind], kind: np.ndarray, sn: np.ndarray) -> np.ndarray:
    """Ordinals that ranks share.

    Numbers of a group with several sorts of operation are interleaved, so that they differ.
    Point-to-point numbers count all peers; within a pair they are counted anew, which takes
    that none is missing.
    """
    import numpy as np

    sorts: dict[object, set[str]] = defaultdict(set)
    for one in kinds:
        if one.op not in _POINT_TO_POINT:
            sorts[one.comm.group or one.comm.order].add(one.op)
    sequence = np.full(len(sn), UNKNOWN, np.int64)
    for (_, op), members in _by_counter(kinds).items():
        own = np.isin(kind, members)
        comm = kinds[members[0]].comm
        if op in _POINT_TO_POINT:
            _count_pairs(sequence, kind, sn, members)
            continue
        names = sorted(sorts[comm.group or comm.order])
        within = sn[own] < (1 << 56)
        sequence[own] = np.where(within, sn[own] * len(names) + names.index(op), UNKNOWN)
    return sequence


def _count_pairs(
    sequence: np.ndarray, kind: np.ndarray, sn: np.ndarray, members: list[int]
) -> None:
    import numpy as np

    numbers = np.unique(sn[np.isin(kind, members)])
    if numbers[0] > 1 or int(numbers[-1] - numbers[0]) + 1 != len(numbers):
        return  # some are missing, and to which peer they went is not known
    for member in members:
        at = np.flatnonzero(kind == member)
        sequence[at[np.argsort(sn[at], kind="stable")]] = np.arange(len(at))


def _collection_row(
    file: LogFile, records: Records, resolution: Resolution, gaps: int
) -> dict[str, Any]:
    unreadable = file.unreadable + file.intake.overlong
    problems = [file.intake.ended] if file.intake.ended else []
    if unreadable:
        problems.append(f"{unreadable} records cut or not of the format")
    if file.dropped:
        problems.append(
            f"Inspector overwrote {file.dropped} records before they were dumped (a larger ring "
            "or a shorter interval keeps them)"
        )
    state = "degraded" if problems else "ok"
    if not file.records:
        state, problems = "failed", problems or ["it holds no record"]
    hosts = {process.host for process in file.processes} - {None}
    detail = {
        "file": file.name,
        "formats": dict(records.formats.get(file.name, {})),
        "numbers_missing": gaps,
        "ranks_from": resolution.rank_source.get(file.folder),
    }
    return {
        "collector": SOURCE,
        "host": next(iter(hosts)) if len(hosts) == 1 else None,
        "state": state,
        "reason": f"{file.name}: {', '.join(problems)}" if problems else None,
        "bytes": file.intake.stored_bytes,
        "records": file.records,
        "dropped": file.dropped,
        "unreadable": unreadable,
        "detail": json.dumps(detail, sort_keys=True),
    }
