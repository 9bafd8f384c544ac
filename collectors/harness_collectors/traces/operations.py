"""What names of communication calls and kernels say, in the words of the tables."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import numpy as np

from harness_collectors.names.classify import name_forms
from harness_collectors.names.comm_kernels import describe_kernel

COALESCED: Final = "point-to-point calls of several peers in one kernel"
FUSED: Final = "a kernel that computes and communicates"
NO_GROUP: Final = "process group not recorded"
UNEQUAL: Final = "unequal splits"
UNKNOWN_GROUP: Final = "world?"

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


@dataclass(frozen=True)
class Operation:
    """What a kernel does. `peers`: sender and receiver by their ranks in the group."""

    op: str | None
    peers: tuple[int, int] | None = None
    reason: str | None = None


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
