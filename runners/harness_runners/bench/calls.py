"""The calls that `bench collectives` times: each takes its number and uses the next buffer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from harness_runners.bench.plan import SYMMETRIC, Cell

BUFFERS = 4
"""Calls take turns on so many buffers, so that none finds its own output in a cache."""
ALIGN = 256

Call = Callable[[int], None]


def make_call(cell: Cell, group: Any, dtype: str, device: Any, symmetric: Any) -> Call:
    """The call of a cell; `symmetric(bytes)` gives symmetric memory of this group.

    Raises:
        RuntimeError: torch or the devices cannot do it.
    """
    import torch

    kind = getattr(torch, dtype)
    if cell.implementation in SYMMETRIC:
        return _symmetric(cell, group, kind, symmetric)
    items = cell.bytes // kind.itemsize
    whole = [torch.zeros(items, dtype=kind, device=device) for _ in range(BUFFERS)]
    if cell.op == "send_recv":
        return _ping_pong(whole, group)
    if cell.op == "all_reduce":
        return _all_reduce(whole, group)
    count = items // cell.group_size
    parts = [torch.zeros(count, dtype=kind, device=device) for _ in range(BUFFERS)]
    return (
        _gather(parts, whole, group) if cell.op == "all_gather" else _scatter(parts, whole, group)
    )


def _all_reduce(buffers: list[Any], group: Any) -> Call:
    import torch.distributed as dist

    def call(number: int) -> None:
        dist.all_reduce(buffers[number % BUFFERS], group=group)

    return call


def _gather(parts: list[Any], whole: list[Any], group: Any) -> Call:
    import torch.distributed as dist

    def call(number: int) -> None:
        place = number % BUFFERS
        dist.all_gather_into_tensor(whole[place], parts[place], group=group)

    return call


def _scatter(parts: list[Any], whole: list[Any], group: Any) -> Call:
    import torch.distributed as dist

    def call(number: int) -> None:
        place = number % BUFFERS
        dist.reduce_scatter_tensor(parts[place], whole[place], group=group)

    return call


def _ping_pong(buffers: list[Any], group: Any) -> Call:
    """Even calls go from rank 0 to rank 1, odd ones back: none starts before the last is there."""
    import torch.distributed as dist

    rank = dist.get_rank()

    def call(number: int) -> None:
        buffer, source = buffers[number % BUFFERS], number % 2
        if rank == source:
            dist.send(buffer, 1 - source, group=group)
        else:
            dist.recv(buffer, source, group=group)

    return call


def _symmetric(cell: Cell, group: Any, kind: Any, memory: Any) -> Call:
    import torch

    stride = -(-cell.bytes // ALIGN) * ALIGN
    pool, name = memory(stride), group.group_name
    items = cell.bytes // kind.itemsize
    count = max(1, min(BUFFERS, pool.numel() // stride))
    buffers = [pool[k * stride : k * stride + cell.bytes].view(kind) for k in range(count)]
    ops = torch.ops.symm_mem

    def two_shot(number: int) -> None:
        ops.two_shot_all_reduce_(buffers[number % count], "sum", name)

    if cell.implementation == "symm_two_shot":
        return two_shot
    outputs = [torch.empty(items, dtype=kind, device=pool.device) for _ in range(count)]

    def one_shot(number: int) -> None:
        place = number % count
        ops.one_shot_all_reduce_out(buffers[place], "sum", name, outputs[place])

    return one_shot
