"""A chain of calls as one CUDA graph, with a time stamp between every two of them.

The stamps (harness_probe.stamps) tell how long each call took on this rank; the shortest over the
ranks is what the data needed once everybody was there, which is what a run's transfers are
compared with. The whole chain by events around it, launches between the calls included, is what
a program sees that does nothing else.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from harness_probe.graphs import GAUGE_STAMPS, middle_gap
from harness_probe.stamps import ITEM_BYTES, StampError, StampKernel
from harness_runners.bench_calls import Call

LEAD_CYCLES = 400_000
"""The GPU idles so long (0.2 ms) before a round: the host must be ahead of it."""


@dataclass
class Times:
    """What one rank measured: a value a round, and a value a call where calls were told apart."""

    rounds_ns: list[float] = field(default_factory=list)
    calls_ns: list[float] = field(default_factory=list)


def over_ranks(ranks: list[Times], calls: int) -> tuple[list[float], list[float], int]:
    """Values of a group, a chain's time per call, and how many calls they rest on.

    Of a call the shortest over the ranks: whoever came last waited for nobody. Of a chain that
    was timed as a whole the longest: it is over when all ranks have left it.
    """
    chains = [max(times) for times in zip(*(rank.rounds_ns for rank in ranks), strict=True)]
    values = [min(times) for times in zip(*(rank.calls_ns for rank in ranks), strict=True)]
    return values or chains, chains, len(values) or calls * len(chains)


class GraphChain:
    """The chain on one rank. `meet` lets all ranks begin together."""

    def __init__(self, call: Call, calls: int, device: Any, meet: Callable[[Any], Any]) -> None:
        import torch

        self._torch = torch
        self._calls = calls
        self._meet = meet
        self._gate = torch.zeros(1, device=device)
        self._slots = torch.zeros(GAUGE_STAMPS + calls, dtype=torch.int64, device=device)
        self._kernel = self._load()
        self._graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize()
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            for place in range(GAUGE_STAMPS):
                self._stamp(place)
            for number in range(calls):
                call(number)
                self._stamp(GAUGE_STAMPS + number)

    def _load(self) -> StampKernel | None:
        """The kernel, run once: the driver may still have to compile it."""
        try:
            kernel = StampKernel()
            kernel.launch(self._stream(), int(self._slots.data_ptr()))
        except StampError:
            return None
        return kernel

    def _stream(self) -> int:
        return int(self._torch.cuda.current_stream().cuda_stream)

    def _stamp(self, place: int) -> None:
        if self._kernel is not None:
            address = int(self._slots.data_ptr()) + ITEM_BYTES * place
            self._kernel.launch(self._stream(), address)

    def round(self, times: Times) -> float:
        """One replay; adds to `times` and returns its whole time in ns."""
        cuda = self._torch.cuda
        start, end = (cuda.Event(enable_timing=True) for _ in range(2))
        cuda._sleep(LEAD_CYCLES)
        self._meet(self._gate)
        start.record()
        self._graph.replay()
        end.record()
        end.synchronize()
        whole = float(start.elapsed_time(end)) * 1e6
        times.rounds_ns.append(whole / self._calls)
        if self._kernel is not None:
            stamps: list[int] = self._slots.tolist()
            gap = middle_gap(stamps[:GAUGE_STAMPS])
            inside = stamps[GAUGE_STAMPS - 1 :]
            # One hand-over between kernels lies between two stamps in any case.
            times.calls_ns += [
                float(max(0, late - early - gap)) for early, late in itertools.pairwise(inside)
            ]
        return whole
