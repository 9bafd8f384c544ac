"""Rows of `collectives` out of Kineto's communication kernels.

The arguments are those of torch's `record_param_comms`. They are absent for CUDA graph replays,
custom all-reduce kernels, coalesced calls and old files; then the host annotation around the
launch and the kernel's name say what they can, and what they cannot stays NULL.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from harness_collectors.kineto.columns import CommLabel
from harness_collectors.names.classify import name_forms
from harness_collectors.names.comm_kernels import describe_kernel
from harness_schemas.vocabulary import group_name

COALESCED: Final = "point-to-point calls of several peers in one kernel"
FUSED: Final = "a kernel that computes and communicates"
NO_GROUP: Final = "process group not recorded"
UNEQUAL: Final = "unequal splits"
UNKNOWN_GROUP: Final = "world?"
DEFAULT_GROUP: Final = "default"

_OPS: Final = (
    ("barrier", "barrier"),
    ("reducescatter", "reduce_scatter"),
    ("allreduce", "all_reduce"),
    ("allgather", "all_gather"),
    ("alltoall", "all_to_all"),
    ("broadcast", "broadcast"),
    ("gather", "gather"),
    ("scatter", "scatter"),
    ("reduce", "reduce"),
)
_EXPERTS = re.compile(r"dispatch|combine", re.IGNORECASE)
_CALL = re.compile(r"(?:nccl|rccl|gloo|mpi|ucc|xccl|hccl):(?P<call>\w+)(?: (?P<peers>.*))?$")
_PEERS = re.compile(r"(?P<left>\d{1,9})(?P<way>->|<-)(?P<right>\d{1,9})$")

_DTYPES: Final = {
    "Bool": ("bool", 1),
    "Byte": ("uint8", 1),
    "Char": ("int8", 1),
    "Short": ("int16", 2),
    "Int": ("int32", 4),
    "Long": ("int64", 8),
    "UInt16": ("uint16", 2),
    "UInt32": ("uint32", 4),
    "UInt64": ("uint64", 8),
    "Half": ("float16", 2),
    "BFloat16": ("bfloat16", 2),
    "Float": ("float32", 4),
    "Double": ("float64", 8),
    "ComplexFloat": ("complex64", 8),
    "ComplexDouble": ("complex128", 16),
    "Float8_e4m3fn": ("float8_e4m3fn", 1),
    "Float8_e5m2": ("float8_e5m2", 1),
    "Float8_e4m3fnuz": ("float8_e4m3fnuz", 1),
    "Float8_e5m2fnuz": ("float8_e5m2fnuz", 1),
}
_SIZES: Final = dict(_DTYPES.values())
"""Traces that Python wrote spell the types as `torch.dtype` does."""


@dataclass(frozen=True)
class Group:
    """A communicator as far as it is known; `ranks` empty: not."""

    name: str | None
    size: int | None
    ranks: tuple[int, ...] = ()
    reason: str | None = None


@dataclass(frozen=True)
class Operation:
    """What a kernel does. `peers`: sender and receiver by their ranks in the group."""

    op: str | None
    peers: tuple[int, int] | None = None
    reason: str | None = None


class Groups:
    """Process groups of one file: of its `distributedInfo`, and of kernels that name others."""

    def __init__(self, info: Any, labels: Iterable[CommLabel] = ()) -> None:
        found = info if isinstance(info, dict) else {}
        self.world_size = _count(found.get("world_size"))
        config = found.get("pg_config")
        self.described = isinstance(config, list) and bool(config)
        listed: dict[str, tuple[int, ...]] = {}
        for entry in config if isinstance(config, list) else []:
            if ranks := self._ranks(entry):
                listed.setdefault(str(entry.get("pg_name")), ranks)
        self._named = self._ordered(listed)
        others: dict[str, tuple[int, ...]] = {}
        for label in labels:
            ranks = _rank_list(label.group_ranks)
            if ranks and label.group_name is not None and label.group_name not in listed:
                others.setdefault(label.group_name, ranks)
        self._seen = self._ordered(others)

    def _ordered(self, ranks_of: Mapping[str, tuple[int, ...]]) -> dict[str, Group]:
        """Groups by their names. torch counts them as they are made, and 0 is the world: a list
        may be in another order, and lack those that were not used."""
        names = list(ranks_of)
        ordinals: Counter[tuple[int, ...]] = Counter()
        if all(name.isdecimal() for name in names):
            names.sort(key=int)
            if "0" not in ranks_of:
                ordinals.update(ranks for ranks in set(ranks_of.values()) if self._are_all(ranks))
        groups = {}
        for name in names:
            ranks = ranks_of[name]
            groups[name] = Group(group_name(ranks, ordinals[ranks]), len(ranks), ranks)
            ordinals[ranks] += 1
        return groups

    def _are_all(self, ranks: tuple[int, ...]) -> bool:
        return len(ranks) == self.world_size and ranks == tuple(range(len(ranks)))

    def _ranks(self, entry: Any) -> tuple[int, ...]:
        if not isinstance(entry, dict):
            return ()
        ranks = entry.get("ranks")
        if isinstance(ranks, list) and all(type(rank) is int for rank in ranks) and ranks:
            return tuple(ranks)
        if written := _rank_list(ranks if isinstance(ranks, str) else None):
            return written  # as on-demand traces have them
        size = _count(entry.get("pg_size"))
        return tuple(range(size)) if size and size == self.world_size and size < 1 << 16 else ()

    def of(self, label: CommLabel) -> Group:
        """The group that a kernel's arguments name."""
        named = self._named.get(label.group_name or "")
        ranks = _rank_list(label.group_ranks)
        if named is not None and (not ranks or ranks == named.ranks):
            return named
        if ranks:
            seen = self._seen.get(label.group_name or "")
            same = seen is not None and seen.ranks == ranks
            return seen if seen and same else Group(group_name(ranks, 0), len(ranks), ranks)
        if label.group_name is None and label.group_ranks is None:
            return self.unlabelled(label.group_size)
        return Group(
            None, label.group_size, reason=f"ranks of process group {label.group_name} not recorded"
        )

    def unlabelled(self, size: int | None = None) -> Group:
        """The group of a kernel that names none: certain only where there is no choice."""
        several = [group for group in self._named.values() if (group.size or 0) > 1]
        choice = {group.ranks for group in several}
        if len(several) == 1:
            return several[0]
        if len(choice) == 1:
            # Which of several communicators of these ranks it was cannot be told.
            ranks = choice.pop()
            return Group(group_name(ranks, "?"), len(ranks), ranks)
        if not self.described and self.world_size:
            ranks = tuple(range(self.world_size)) if self.world_size < 1 << 16 else ()
            return Group(DEFAULT_GROUP, self.world_size, ranks)
        return Group(UNKNOWN_GROUP, size, reason=NO_GROUP)


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 < value < 2**31 else None


def _rank_list(text: str | None) -> tuple[int, ...]:
    """Ranks of `[0, 1]`; empty where the list was shortened or is none."""
    if text is None or not re.fullmatch(r"\[\s*\d{1,9}(?:\s*,\s*\d{1,9})*\s*\]", text):
        return ()
    return tuple(int(number) for number in re.findall(r"\d+", text))


def operation_of_call(annotation: str) -> Operation | None:
    """What `nccl:all_reduce` or `nccl:send 0->1` does; None: it is no communication call."""
    match = _CALL.match(annotation)
    if match is None:
        return None
    call = match["call"]
    if call in ("send", "recv"):
        peers = _PEERS.match(match["peers"] or "")
        if peers is None:
            return Operation(call)
        pair = (int(peers["left"]), int(peers["right"]))
        return Operation(call, pair if peers["way"] == "->" else (pair[1], pair[0]))
    op = canonical_op(call)
    return Operation(op, reason=COALESCED if op is None and "coalesced" in call else None)


def canonical_op(name: str) -> str | None:
    """`allreduce_coalesced`, `_allgather_base`, `AllReduce` ... to the words of the tables."""
    plain = name.replace("_", "").lower()
    if plain in ("send", "recv"):
        return plain
    return next((op for part, op in _OPS if part in plain), None)


def operation_of_kernel(name: str, others_named: bool) -> Operation:
    """What a kernel's name tells. NCCL runs send, recv and all_to_all by the same kernel: it is
    taken for all_to_all only in files that name no collective at all."""
    function = name_forms(name)["function"]
    if "SendRecv" in function:
        return Operation(None, reason=COALESCED) if others_named else Operation("all_to_all")
    op = describe_kernel(name).op
    return Operation("all_to_all" if op is None and _EXPERTS.search(function) else op)


def dtype_of(label: CommLabel) -> tuple[str | None, int | None]:
    """torch's name of the data type, and the bytes of an element."""
    if label.dtype is None:
        return None, None
    return _DTYPES.get(label.dtype) or (label.dtype, _SIZES.get(label.dtype))


def counted_bytes(op: str | None, element: int | None) -> int:
    """Bytes that an element of the message counts for; 0: the size says nothing or is unknown."""
    return 0 if op is None or op == "barrier" else element or 0


def ordinals(keys: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Ordinal of each row among those of its key in the order of time; -1 for key -1.

    NCCL runs the kernels of one communicator one after another, whatever their streams.
    """
    order = np.lexsort((start, keys))
    ordered = keys[order]
    first = np.searchsorted(ordered, ordered, side="left")
    result = np.empty(len(keys), np.int64)
    result[order] = np.arange(len(keys)) - first
    return np.where(keys < 0, -1, result)
