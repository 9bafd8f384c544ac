"""NCCL's calls as rows of `collectives`, in bounded chunks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from harness_collectors.nccl_log.evidence.call_log import NO_CHOICE
from harness_collectors.nccl_log.evidence.state import CallKind, Comm, Evidence
from harness_collectors.nccl_log.grammar.lines import SCALED_OPS
from harness_collectors.nccl_log.tables.resolve import Resolution
from harness_schemas.spi import Batch

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

CHUNK_ROWS: Final = 1 << 17
POINT_TO_POINT: Final = ("send", "recv")
NOT_TIMED: Final = "the log prints calls, not intervals"
_UNKNOWN: Final = -1


def call_batches(evidence: Evidence, resolution: Resolution, source: str) -> Iterator[Batch]:
    """Rows of the calls that are believed. They have no start: a call is printed, not timed."""
    if not evidence.kinds:
        return
    table = _KindTable(evidence, resolution, source)
    for chunk in evidence.calls.chunks():
        for start in range(0, len(chunk[0]), CHUNK_ROWS):
            piece = [column[start : start + CHUNK_ROWS] for column in chunk]
            believed = table.believed[piece[0]]
            kinds, counts, choices, times = (column[believed] for column in piece)
            if len(kinds):
                yield Batch("collectives", table.rows(kinds, counts, choices, times))


def _ends(kind: CallKind) -> tuple[int | None, int | None]:
    """Global ranks of sender and receiver; of a rooted operation only the root's. NULL: unknown."""
    comm = kind.comm
    if comm.members is None or kind.root >= len(comm.members):
        return None, None
    root, own = comm.members[kind.root], comm.global_rank
    return {
        "send": (own, root),
        "recv": (root, own),
        "broadcast": (root, None),
        "scatter": (root, None),
        "reduce": (None, root),
        "gather": (None, root),
    }.get(kind.op, (None, None))


@lru_cache(maxsize=4096)
def _transport(comm: Comm, op: str, root: int) -> str | None:
    """The transports of the edges that such a call may use, joined by `+`."""
    ends = {"send": (comm.rank, root), "recv": (root, comm.rank)}.get(op)
    names = {
        transport_class(via)
        for (conn, source, target), via, _ in comm.group_edges or ()
        if ((source, target) == ends if ends else conn == "0" and comm.rank in (source, target))
    }
    return "+".join(sorted(names)) or None


def transport_of(kind: CallKind) -> str | None:
    """The transports that a call of this kind may use; NULL: no edge of it was printed."""
    root = kind.root if kind.op in POINT_TO_POINT else 0
    return _transport(kind.comm, kind.op if kind.op in POINT_TO_POINT else "", root)


def transport_class(via: str) -> str:
    """`P2P/CUMEM/read` -> P2P, `NET/IB/GDRDMA` -> NET/IB."""
    if via == "direct shared memory":
        return "SHM"
    parts = via.split("/")
    return "/".join(parts[:2]) if parts[0] == "NET" else parts[0]


class _KindTable:
    """What calls of one kind have in common, as columns to take rows from."""

    def __init__(self, evidence: Evidence, resolution: Resolution, source: str) -> None:
        import numpy as np

        kinds = evidence.kinds
        self.believed = np.array([n not in resolution.rejected for n in range(len(kinds))])
        self._columns = self._shared_columns(kinds, source)
        self._choices = self._choice_columns(evidence)
        self._factor = np.array([_bytes_factor(kind) for kind in kinds], dtype=np.int64)
        self._counter = np.array(self._counters(kinds), dtype=np.int64)
        self._next: dict[int, int] = {}

    @staticmethod
    def _shared_columns(kinds: list[CallKind], source: str) -> dict[str, pa.Array]:
        import pyarrow as pa

        ends = [_ends(kind) for kind in kinds]
        return {
            "rank": pa.array([kind.comm.global_rank for kind in kinds], pa.int32()),
            "source": pa.array([source] * len(kinds), pa.string()),
            "timeline": pa.array(["host"] * len(kinds), pa.string()),
            "comm_group": pa.array([kind.comm.group for kind in kinds], pa.string()),
            "op": pa.array([kind.op for kind in kinds], pa.string()),
            "src_rank": pa.array([source for source, _ in ends], pa.int32()),
            "dst_rank": pa.array([target for _, target in ends], pa.int32()),
            "dtype": pa.array([kind.dtype for kind in kinds], pa.string()),
            "group_size": pa.array([kind.nranks for kind in kinds], pa.int32()),
            "transport": pa.array([transport_of(kind) for kind in kinds], pa.string()),
            "unsplit_reason": pa.array([NOT_TIMED] * len(kinds), pa.string()),
        }

    @staticmethod
    def _choice_columns(evidence: Evidence) -> dict[str, pa.Array]:
        """Columns of the choices, with a last row of NULLs that NO_CHOICE (-1) takes."""
        import pyarrow as pa

        choices = [*evidence.choices, None]
        return {
            "algo": pa.array([c.algo if c else None for c in choices], pa.string()),
            "proto": pa.array([c.proto if c else None for c in choices], pa.string()),
            "channels": pa.array([c.channels if c else None for c in choices], pa.int32()),
        }

    @staticmethod
    def _counters(kinds: list[CallKind]) -> list[int]:
        """Which sequence a kind counts in: its communicator's, or its pair of ranks."""
        numbers: dict[Any, int] = defaultdict(lambda: len(numbers))
        counters = []
        for kind in kinds:
            key: Any = ("comm", kind.comm.order)
            if kind.op in POINT_TO_POINT:
                key = (kind.op, *_ends(kind))
                if None in key:
                    key = (kind.op, kind.comm.order, kind.root)
            counters.append(numbers[key] if _is_counted(kind.comm) else _UNKNOWN)
        return counters

    def rows(
        self, kinds: np.ndarray, counts: np.ndarray, choices: np.ndarray, times: np.ndarray
    ) -> pa.Table:
        """Rows of calls, in order."""
        import pyarrow as pa

        taken = {name: column.take(pa.array(kinds)) for name, column in self._columns.items()}
        picked = choices.copy()
        picked[picked == NO_CHOICE] = len(self._choices["algo"]) - 1
        for name, column in self._choices.items():
            taken[name] = column.take(pa.array(picked))
        factor = self._factor[kinds]
        seq = self._sequence(self._counter[kinds])
        taken["bytes"] = pa.array(counts * factor, mask=(factor < 0) | _overflows(counts, factor))
        taken["seq"] = pa.array(seq, mask=seq < 0)
        taken["enqueue_ns"] = pa.array(times, mask=times < 0)
        return pa.table(taken)

    def _sequence(self, counters: np.ndarray) -> np.ndarray:
        """Ordinals within each counter, going on from the chunk before."""
        import numpy as np

        order = np.argsort(counters, kind="stable")
        ordered = counters[order]
        found, starts, sizes = np.unique(ordered, return_index=True, return_counts=True)
        offsets = np.array([self._next.get(int(c), 0) for c in found], dtype=np.int64)
        within = np.arange(len(ordered)) - np.repeat(starts - offsets, sizes)
        for counter, offset, size in zip(found, offsets, sizes, strict=True):
            self._next[int(counter)] = int(offset + size)
        sequence = np.empty(len(counters), dtype=np.int64)
        sequence[order] = np.where(ordered < 0, -1, within)
        return sequence


def _is_counted(comm: Comm) -> bool:
    """Whether all calls of this communicator are in one sequence: an address with init lines."""
    process = comm.process
    others = any(other.seen_init for other in process.all_comms)
    return comm.seen_init or (not others and process.host is not None)


def _bytes_factor(kind: CallKind) -> int:
    """Bytes of the message per element of the count, by the convention of nccl-tests."""
    return kind.element_bytes * (kind.nranks if kind.op in SCALED_OPS else 1)


def _overflows(counts: np.ndarray, factor: np.ndarray) -> np.ndarray:
    import numpy as np

    too_large: np.ndarray = counts > np.iinfo(np.int64).max // np.maximum(factor, 1)
    return too_large
