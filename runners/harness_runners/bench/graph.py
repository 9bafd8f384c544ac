"""Chains of calls as CUDA graphs: how long a call takes, three ways.

Two chains hold the same calls. Before every call of the cold one a pass over a buffer larger than
the cache throws out what the call before left there, as a model's weights do between the
collectives of a step; in the warm one it is all still there. What a run's transfers take lies
between the two. Of both
- kernels: torch.profiler over some replays; what transfers by kernel evidence are compared with;
- stamps (harness_probe.stamps) around every call, with the hand-over to and from its kernel; what
  transfers by time stamps inside a run's graphs are compared with.
A third chain without stamps and passes is timed by events: what a program sees that does nothing
else, and what nccl-tests report.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from harness_probe.graphs import GAUGE_STAMPS, middle_gap
from harness_probe.stamps import ITEM_BYTES, StampError, StampKernel
from harness_runners.bench.calls import Call
from harness_runners.bench.times import Kernel, Times, by_call

LEAD_CYCLES = 400_000
"""The GPU idles so long (0.2 ms) before a round: the host must be ahead of it."""
CACHE_FACTOR = 2
"""The buffer of the passes, in sizes of the device's cache."""
PROFILED_ROUNDS = 3


class GraphChain:
    """The chains on one rank. `meet` lets all ranks begin together."""

    def __init__(self, call: Call, calls: int, device: Any, meet: Callable[[Any], Any]) -> None:
        import torch

        self._torch = torch
        self._calls = calls
        self._meet = meet
        self._gate = torch.zeros(1, device=device)
        cache = torch.cuda.get_device_properties(device).L2_cache_size
        self._sweep = torch.zeros(CACHE_FACTOR * cache, dtype=torch.uint8, device=device)
        self._slots = torch.zeros(GAUGE_STAMPS + 2 * calls, dtype=torch.int64, device=device)
        self._kernel = self._load()
        self._bare = self._capture(call, stamped=False, swept=False)
        self._warm = self._capture(call, stamped=True, swept=False)
        self._cold = self._capture(call, stamped=True, swept=True)

    def _load(self) -> StampKernel | None:
        """The kernel, run once: the driver may still have to compile it."""
        try:
            kernel = StampKernel()
            kernel.launch(self._stream(), int(self._slots.data_ptr()))
        except StampError:
            return None
        return kernel

    def _capture(self, call: Call, stamped: bool, swept: bool) -> Any:
        cuda = self._torch.cuda
        graph = cuda.CUDAGraph()
        self._sweep.add_(1)
        cuda.synchronize()
        with cuda.graph(graph, capture_error_mode="thread_local"):
            if stamped:
                for place in range(GAUGE_STAMPS):
                    self._stamp(place)
            for number in range(self._calls):
                if swept:
                    self._sweep.add_(1)
                if stamped:
                    self._stamp(GAUGE_STAMPS + 2 * number)
                call(number)
                if stamped:
                    self._stamp(GAUGE_STAMPS + 2 * number + 1)
        return graph

    def _stream(self) -> int:
        return int(self._torch.cuda.current_stream().cuda_stream)

    def _stamp(self, place: int) -> None:
        if self._kernel is not None:
            address = int(self._slots.data_ptr()) + ITEM_BYTES * place
            self._kernel.launch(self._stream(), address)

    def _start(self) -> None:
        self._torch.cuda._sleep(LEAD_CYCLES)
        self._meet(self._gate)

    def round(self, times: Times) -> float:
        """One replay of each chain; adds to `times` and returns how long they took in ns."""
        chain = self._replay(self._bare)
        times.rounds_ns.append(chain / self._calls)
        warm = self._replay(self._warm, times.warm_stamps_ns)
        cold = self._replay(self._cold, times.stamps_ns)
        return chain + warm + cold

    def _replay(self, graph: Any, stamps_ns: list[float] | None = None) -> float:
        """How long one replay took in ns; what its stamps say of every call goes to `stamps_ns`."""
        start, end = (self._torch.cuda.Event(enable_timing=True) for _ in range(2))
        self._start()
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        if self._kernel is not None and stamps_ns is not None:
            stamps: list[int] = self._slots.tolist()
            # One hand-over between kernels lies between two stamps in any case.
            gap = middle_gap(stamps[:GAUGE_STAMPS])
            pairs = zip(stamps[GAUGE_STAMPS::2], stamps[GAUGE_STAMPS + 1 :: 2], strict=True)
            stamps_ns += [float(max(0, late - early - gap)) for early, late in pairs]
        return float(start.elapsed_time(end)) * 1e6

    def profile(self, times: Times) -> None:
        """Durations of the calls' kernels over some more replays, where they can be recorded."""
        times.warm_kernels_ns = by_call(self._profiled(self._warm), self._calls)
        times.kernels_ns = by_call(self._profiled(self._cold), self._calls)

    def _profiled(self, graph: Any) -> list[Kernel]:
        from torch.profiler import ProfilerActivity, profile

        with profile(activities=[ProfilerActivity.CUDA]) as profiler:
            for _ in range(PROFILED_ROUNDS):
                self._start()
                graph.replay()
                self._torch.cuda.synchronize()
        return [
            Kernel(event.correlation_id(), event.start_ns(), event.duration_ns(), event.name())
            for event in profiler.profiler.kineto_results.events()
            if event.device_type() != self._torch.autograd.DeviceType.CPU
        ]
