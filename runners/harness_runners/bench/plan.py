"""What `bench collectives` measures, and what it calls a result. Imports no torch.

Sizes follow nccl-tests: the buffer of an all-reduce, the gathered output of an all-gather, the
scattered input of a reduce-scatter, the message of a send (its doc/PERFORMANCE.md).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

from harness_runners.bench.times import Found
from harness_schemas.errors import UsageError

FORMAT = "harness.floors"
"""Value of the key `format` in a file of floors."""
VERSION = 1
OPS = ("all_reduce", "all_gather", "reduce_scatter", "send_recv")
SYMMETRIC = ("symm_one_shot", "symm_two_shot")
"""All-reduces over peer memory (torch.ops.symm_mem), without NVLink multicast."""
DEFAULT_SIZES = "1KiB:64MiB"
ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
PAIR = 2
"""Ranks of a send and its receive, whatever group they belong to."""

_SIZE = re.compile(r"(\d+)\s*(|B|KiB|MiB|GiB)", re.IGNORECASE)
_UNITS = {"": 1, "b": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}


@dataclass(frozen=True)
class Cell:
    """One thing measured: an operation of so many bytes over the first `group_size` ranks."""

    op: str
    implementation: str
    bytes: int
    group_size: int


@dataclass(frozen=True)
class Issued:
    """A size that a run issues."""

    op: str
    bytes: int
    group_size: int


@dataclass(frozen=True)
class BenchPlan:
    """What all ranks measure, in the same order. `output`: the file that rank 0 writes."""

    output: str
    ops: tuple[str, ...] = OPS
    sizes: tuple[int, ...] = ()
    groups: tuple[int, ...] = ()
    issued: tuple[Issued, ...] = ()
    dtype: str = "float32"
    device: str = "cpu"

    def cells(self) -> list[Cell]:
        """Every cell once, smallest first within an operation and implementation."""
        wanted = {(i.op, i.bytes, i.group_size) for i in self.issued if i.op in self.ops}
        for op in self.ops:
            groups = {PAIR} if op == "send_recv" else set(self.groups)
            wanted |= {(op, size, group) for size in self.sizes for group in groups}
        found = {
            Cell(op, implementation, whole_bytes(op, size, group, self.dtype), group)
            for op, size, group in wanted
            if PAIR <= group <= max(self.groups)
            for implementation in implementations(op, self.device)
        }
        order = {name: place for place, name in enumerate(OPS)}
        return sorted(found, key=lambda c: (order[c.op], c.group_size, c.implementation, c.bytes))

    def write(self, path: Path) -> None:
        """Write it as JSON for the ranks."""
        path.write_bytes(msgspec.json.encode(asdict(self)))

    @classmethod
    def read(cls, path: Path) -> BenchPlan:
        """What `write` wrote."""
        return msgspec.json.decode(path.read_bytes(), type=cls)


def implementations(op: str, device: str) -> tuple[str, ...]:
    """Who can do `op` on a device."""
    if device == "cpu":
        return ("gloo",)
    return ("nccl", *SYMMETRIC) if op == "all_reduce" else ("nccl",)


def whole_bytes(op: str, size: int, group_size: int, dtype: str) -> int:
    """The next smaller size that splits into equal, whole items over the ranks; at least one."""
    ranks = group_size if op in ("all_gather", "reduce_scatter") else 1
    item = ITEM_BYTES[dtype] * ranks
    return max(item, size - size % item)


def bus_factor(op: str, group_size: int) -> float:
    """Bus bandwidth over algorithm bandwidth (nccl-tests, doc/PERFORMANCE.md).

    all_reduce 2(n-1)/n; all_gather and reduce_scatter (n-1)/n; send and receive 1.
    """
    if op == "all_reduce":
        return 2 * (group_size - 1) / group_size
    return (group_size - 1) / group_size if op in ("all_gather", "reduce_scatter") else 1.0


def result_row(cell: Cell, dtype: str, found: Found) -> dict[str, Any]:
    """A row of results.

    algbw = bytes / time and busbw = algbw * `bus_factor`, at the median, in 1e9 bytes/s.
    """
    p10, p50, p90 = (percentile(found.times_ns, share) for share in (0.1, 0.5, 0.9))
    bandwidth = cell.bytes / p50 if p50 > 0 else 0.0
    return {
        "op": cell.op,
        "implementation": cell.implementation,
        "dtype": dtype,
        "bytes": cell.bytes,
        "group_size": cell.group_size,
        "calls": found.calls,
        "p10_us": round(p10 / 1e3, 3),
        "p50_us": round(p50 / 1e3, 3),
        "p90_us": round(p90 / 1e3, 3),
        "stamps_us": _median_us(found.stamps_ns),
        "warm_us": _median_us(found.warm_ns),
        "warm_stamps_us": _median_us(found.warm_stamps_ns),
        "chain_us": _median_us(found.chain_ns),
        "algbw_gb_s": round(bandwidth, 4),
        "busbw_gb_s": round(bandwidth * bus_factor(cell.op, cell.group_size), 4),
    }


def _median_us(values_ns: Sequence[float]) -> float | None:
    return round(percentile(values_ns, 0.5) / 1e3, 3) if values_ns else None


def percentile(values: Sequence[float], share: float) -> float:
    """Linear interpolation between order statistics."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def parse_sizes(text: str) -> tuple[int, ...]:
    """`1KiB:64MiB` (doubling) or `4096,1MiB`, in bytes; empty text: none.

    Raises:
        UsageError: it is neither.
    """
    try:
        return tuple(size for part in text.split(",") if part.strip() for size in _range(part))
    except ValueError as error:
        raise UsageError(f"--sizes: {error}", "as in 1KiB:64MiB, or 4096,1MiB") from None


def _range(part: str) -> Iterator[int]:
    first, colon, last = part.partition(":")
    size, end = _bytes(first), _bytes(last if colon else first)
    if not 0 < size <= end:
        raise ValueError(f"{part.strip()!r} holds no size")
    while size <= end:
        yield size
        size *= 2


def _bytes(text: str) -> int:
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text.strip()!r} is not a size")
    return int(match[1]) * _UNITS[match[2].lower()]
