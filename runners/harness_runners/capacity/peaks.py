"""What a device reaches: a copy for its memory, a matrix product for its arithmetic.

All ranks measure at once, so that ranks that share a memory share its bandwidth, as they do in
a step. Off unless `generation.peaks` asks for it; a datasheet's figures are stated otherwise,
and are called so.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import harness_probe as probe
from harness_runners.capacity.hardware import card_of_device

SECONDS = 0.25
"""For each of the two."""
SIZES = {"cuda": (512 << 20, 8192), "cpu": (64 << 20, 768)}
"""Bytes of a buffer, far beyond any cache; rows and columns of the matrices."""
MOST_CALLS = 64


def datasheet(device: Any, dtype: str) -> dict[str, Any]:
    """Facts of a known GPU's datasheet; none for others, nor for a CPU.

    Its arithmetic is that of 16-bit tensor cores: unknown for float32.
    """
    if device.type != "cuda":
        return {}
    import torch

    card = card_of_device(torch.cuda.get_device_name(device))
    if card is None:
        return {}
    return {
        "peak_bytes_per_s": card.bandwidth,
        "peak_flops_per_s": None if dtype == "float32" else card.flops,
        "peak_source": "datasheet",
    }


def measure(device: Any, dtype: str) -> None:
    """Measure and state both peaks; what was allocated is given back."""
    import torch
    import torch.distributed as dist

    dist.barrier()
    num_bytes, size = SIZES[device.type]
    bandwidth = _copy(device, num_bytes)
    flops = _product(device, size, getattr(torch, dtype))
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    probe.fact(peak_bytes_per_s=bandwidth, peak_flops_per_s=flops, peak_source="measured")


def _copy(device: Any, num_bytes: int) -> float:
    """Bytes/s read and written."""
    import torch

    source = torch.ones(num_bytes // 4, device=device)
    target = torch.empty_like(source)
    return 2 * num_bytes / _best(device, lambda: target.copy_(source))


def _product(device: Any, size: int, dtype: Any) -> float:
    """FLOP/s of a square product."""
    import torch

    left = torch.ones((size, size), dtype=dtype, device=device)
    result = torch.empty_like(left)
    return 2 * float(size) ** 3 / _best(device, lambda: torch.matmul(left, left, out=result))


def _best(device: Any, call: Callable[[], Any]) -> float:
    """Seconds of the fastest call within `SECONDS`, at least three calls."""
    call()
    times: list[float] = []
    until = time.monotonic() + SECONDS
    while len(times) < 3 or (time.monotonic() < until and len(times) < MOST_CALLS):
        times.append(_timed(device, call))
    return min(times)


def _timed(device: Any, call: Callable[[], Any]) -> float:
    if device.type == "cpu":
        began = time.perf_counter()
        call()
        return time.perf_counter() - began
    import torch

    events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
    events[0].record()
    call()
    events[1].record()
    events[1].synchronize()
    return float(events[0].elapsed_time(events[1])) / 1e3


def state_memory(device: Any) -> None:
    """State the most that torch's allocator held on a GPU."""
    if device.type == "cuda":
        import torch

        probe.fact(peak_memory_bytes=torch.cuda.max_memory_allocated(device))
