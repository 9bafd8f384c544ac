"""What makes a message between two GPUs longer than its floor, when nobody is late.

    python -m torch.distributed.run --nproc-per-node 2 -m benchmarks.gpu.messages

Three tables of NCCL messages by their kernels (the shorter side of each: whoever came last waited
for nobody), us. What the sender's GPU did before; how long nothing had been sent; and what was
recorded on the sender's other stream while its kernel ran. Of the silence there are two more
rows without a profiler, by events around the message. Takes 45 s; needs two GPUs of one host.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch.profiler import ProfilerActivity, profile

SIZES = (8, 6400)
"""Bytes of a token that goes back, and of an OpenLLaMA-3B activation that goes forward."""
SILENCES_MS = (0, 10, 30, 40, 60, 100)
MESSAGES, WARMUP = 24, 4
LEAD_CYCLES = 800_000
"""The GPU idles so long (0.4 ms) before a message: the host must be ahead of it."""

Work = Callable[[], None]


class Messages:
    """One of two ranks: messages go to and fro, each behind some work of its sender."""

    def __init__(self) -> None:
        self.rank = int(os.environ["RANK"])
        self._device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(self._device)
        dist.init_process_group("cpu:gloo,cuda:nccl")
        # One communicator a direction, as the runner has them.
        self._ways = [dist.new_group([0, 1]) for _ in range(2)]
        self._both = dist.new_group([0, 1])
        self._meeting = torch.zeros(1)
        make = {"dtype": torch.uint8, "device": self._device}
        self._buffers = {size: torch.zeros(size, **make) for size in SIZES}
        cache = torch.cuda.get_device_properties(self._device).L2_cache_size
        self._swept = torch.zeros(2 * cache, **make)
        self._matrix = torch.randn(4096, 4096, device=self._device, dtype=torch.bfloat16)
        self._rows = torch.randn(64, 32000, device=self._device)
        self._small = torch.zeros(64, device=self._device)
        self._events = [torch.cuda.Event(enable_timing=True) for _ in range(8)]
        for event in self._events:
            event.record()

    def read(self) -> None:
        """Read so much that the cache holds nothing else, as a stage's weights do."""
        self._swept.view(torch.int64).sum()

    def sweep(self) -> None:
        """The same by writing: what the cache holds must be written back first."""
        self._swept.add_(1)

    def kernels(self) -> None:
        """Many kernels of different code, then the reading."""
        self._matrix[:1] @ self._matrix
        self._matrix[:64] @ self._matrix
        for act in (torch.softmax, torch.sort, torch.cumsum, torch.argmax):
            act(self._rows, -1)
        torch.nn.functional.layer_norm(self._rows, (32000,))
        self.read()

    def events(self, count: int) -> Work:
        """Timing events a moment later, on the stream that does not send."""

        def record() -> None:
            torch.cuda._sleep(2000)
            for event in self._events[:count]:
                event.record()

        return record

    def launches(self) -> None:
        """Two small kernels where `events` records."""
        torch.cuda._sleep(2000)
        self._small.add_(1)
        self._small.add_(1)

    def meet(self) -> None:
        """Both hosts and GPUs are here, and nothing is on its way."""
        torch.cuda.synchronize()
        dist.all_reduce(self._meeting)

    def chain(self, size: int, before: Work, beside: Work, receiver_too: bool) -> list[float]:
        """Messages one after the other; us of each."""
        sent = None
        with _profile() as profiler:
            self.meet()
            for number in range(WARMUP + MESSAGES):
                if self.rank == number % 2 or receiver_too:
                    before()
                if self.rank != number % 2:
                    self._take(number, size)
                    continue
                if sent is not None:
                    sent.wait()
                sent = dist.isend(self._buffers[size], 1 - self.rank, group=self._ways[number % 2])
                beside()
            torch.cuda.synchronize()
        return self._shorter(_lengths(profiler, "SendRecv"))[WARMUP:]

    def _take(self, number: int, size: int) -> None:
        dist.recv(self._buffers[size], 1 - self.rank, group=self._ways[number % 2])

    def after_silence(self, size: int, silence_ms: float, profiled: bool) -> list[float]:
        """Messages with nothing sent for a while before each; us of each."""
        pairs = []
        with _profile() if profiled else contextlib.nullcontext() as profiler:
            for number in range(2 + MESSAGES):
                self._keep_silent(silence_ms)
                pair = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
                if self.rank == number % 2:
                    torch.cuda._sleep(LEAD_CYCLES)
                    pair[0].record()
                    group = self._ways[number % 2]
                    dist.isend(self._buffers[size], 1 - self.rank, group=group).wait()
                else:
                    pair[0].record()
                    self._take(number, size)
                pair[1].record()
                pairs.append(pair)
            torch.cuda.synchronize()
        if profiled:
            return self._shorter(_lengths(profiler, "SendRecv"))[2:]
        return self._shorter([1e3 * start.elapsed_time(end) for start, end in pairs])[2:]

    def reduces(self, size: int, before: Work) -> list[float]:
        """All-reduces one after the other, each behind some work of both; us of each."""
        with _profile() as profiler:
            self.meet()
            torch.cuda._sleep(LEAD_CYCLES)
            for _ in range(WARMUP + MESSAGES):
                before()
                dist.all_reduce(self._buffers[size], group=self._both)
            torch.cuda.synchronize()
        return self._shorter(_lengths(profiler, "AllReduce"))[WARMUP:]

    def reduce_after_silence(self, size: int, silence_ms: float) -> list[float]:
        """All-reduces with nothing sent for a while before each; us of each."""
        with _profile() as profiler:
            for _ in range(2 + MESSAGES):
                self._keep_silent(silence_ms)
                torch.cuda._sleep(LEAD_CYCLES)
                dist.all_reduce(self._buffers[size], group=self._both)
            torch.cuda.synchronize()
        return self._shorter(_lengths(profiler, "AllReduce"))[2:]

    def _keep_silent(self, silence_ms: float) -> None:
        self.meet()
        time.sleep(silence_ms / 1e3)
        self.meet()

    def _shorter(self, mine_us: list[float]) -> list[float]:
        """Of each message the shorter of its two ends."""
        ends: list[Any] = [None, None]
        dist.all_gather_object(ends, mine_us)
        return [min(pair) for pair in zip(*ends, strict=True)]


def _profile() -> Any:
    return profile(activities=[ProfilerActivity.CUDA])


def _lengths(profiler: Any, word: str) -> list[float]:
    """Device kernels whose name holds `word`, in the order of their starts; us."""
    found = [
        (event.start_ns(), event.duration_ns() / 1e3)
        for event in profiler.profiler.kineto_results.events()
        if word in event.name() and event.device_type() != torch.autograd.DeviceType.CPU
    ]
    return [length for _, length in sorted(found)]


def tables(bench: Messages) -> Iterator[str]:
    """The three tables, line by line; every rank must go through them."""

    def nothing() -> None:
        pass

    for size in SIZES:  # libraries and communicators initialise themselves
        bench.chain(size, bench.kernels, nothing, receiver_too=True)
        bench.reduce_after_silence(size, 0)
    yield from _head("what came before")
    for name, before, too in (
        ("nothing", nothing, False),
        ("the sender's cache read through", bench.read, False),
        ("the sender's cache written through", bench.sweep, False),
        ("other kernels at the sender, cache read through", bench.kernels, False),
        ("the same at both, who come together", bench.kernels, True),
    ):
        for size in SIZES:
            yield _line(name, size, bench.chain(size, before, nothing, too))
    for name, before in (
        ("nothing", nothing),
        ("both caches read through", bench.read),
        ("both caches written through", bench.sweep),
        ("other kernels, both caches read through", bench.kernels),
    ):
        yield _line(f"all-reduce, {name}", SIZES[1], bench.reduces(SIZES[1], before))
    yield from _head("recorded at the sender meanwhile")
    for name, beside in (
        ("nothing", nothing),
        ("two timing events", bench.events(2)),
        ("four timing events", bench.events(4)),
        ("two small kernels", bench.launches),
    ):
        for size in SIZES:
            yield _line(name, size, bench.chain(size, bench.kernels, beside, receiver_too=False))
    yield from _head("silence before")
    for silence_ms in SILENCES_MS:
        for size in SIZES:
            yield _line(f"{silence_ms} ms", size, bench.after_silence(size, silence_ms, True))
        length = bench.reduce_after_silence(SIZES[1], silence_ms)
        yield _line(f"{silence_ms} ms, all-reduce", SIZES[1], length)
    yield _line("60 ms, by events", SIZES[1], bench.after_silence(SIZES[1], 60, False))
    yield _line("0 ms, by events", SIZES[1], bench.after_silence(SIZES[1], 0, False))


def _head(name: str) -> Iterator[str]:
    yield f"\n| {name} | bytes | p10 | p50 | p90 | most |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: |"


def _line(name: str, size: int, lengths_us: list[float]) -> str:
    ordered = sorted(lengths_us)
    shares = [ordered[int(share * (len(ordered) - 1))] for share in (0.1, 0.5, 0.9, 1.0)]
    return f"| {name} | {size} | {' | '.join(f'{length:.1f}' for length in shares)} |"


def main() -> None:
    """Rank 0 prints."""
    bench = Messages()
    for line in tables(bench):
        if bench.rank == 0:
            print(line, flush=True)
    bench.meet()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
