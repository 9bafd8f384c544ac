"""A stage's decode step as two CUDA graphs: a clean one, and one with timing events inside.

Captured once for every shape of micro-batch, with its collectives. What changes from step to
step (tokens, slots, the end of sequences) lives in tensors that the graph reads and writes in
place; point-to-point calls stay outside, around the replay.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import torch

import harness_probe as probe

if TYPE_CHECKING:
    from harness_runners.engines.microbatch import MicroBatch
    from harness_runners.engines.stage import Stage
    from harness_runners.rank.inject import Injector

WARMUP_STEPS = 3
"""Eager steps before a capture: libraries and communicators initialise themselves in them."""


class StepGraph:
    """The captured decode step of one micro-batch. `source`: where a later stage receives."""

    def __init__(
        self,
        stage: Stage,
        microbatch: MicroBatch,
        injector: Injector,
        told: bool,
        source: torch.Tensor | None,
        instrument: bool,
    ) -> None:
        self._stage = stage
        self._microbatch = microbatch
        self._injector = injector
        device = microbatch.pad.device
        self.token_in = torch.zeros_like(microbatch.pad) if told else None
        self.source = source
        self._result: dict[bool, torch.Tensor] = {}
        self._graphs: dict[bool, Any] = {}
        self._marks: dict[bool, Any] = {}
        stream = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            for _ in range(WARMUP_STEPS):
                self._step()
        torch.cuda.current_stream(device).wait_stream(stream)
        torch.cuda.synchronize(device)
        pool = torch.cuda.graph_pool_handle()
        for instrumented in (False, True) if instrument else (False,):
            self._capture(instrumented, pool)
        microbatch.begin(microbatch.prompt, microbatch.pad)

    def _step(self) -> torch.Tensor:
        microbatch, stage = self._microbatch, self._stage
        if self.token_in is not None:
            microbatch.sampler.told(self.token_in)
        self._injector.device_step()
        source = microbatch.sampler.last_token() if self.source is None else self.source
        positions = microbatch.positions(1)
        microbatch.cache.write_at(positions.slots)
        result = stage.forward(source, positions, microbatch.cache, self._injector.layer)
        return microbatch.sampler.sample(result) if stage.is_last else result

    def _capture(self, instrumented: bool, pool: Any) -> None:
        marks = probe.graph_marks(instrumented)
        graph = torch.cuda.CUDAGraph()
        # Other threads (samplers, NCCL's watchdog) may call CUDA while this one captures.
        capture = torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local")
        with capture, marks.capture() if marks is not None else contextlib.nullcontext():
            self._result[instrumented] = self._step()
        self._graphs[instrumented] = graph
        self._marks[instrumented] = marks

    def close(self) -> None:
        """Free the graphs: a communicator cannot be destroyed while a graph holds its kernels."""
        for graph in self._graphs.values():
            graph.reset()
        self._graphs.clear()
        self._result.clear()

    def replay(self, instrumented: bool) -> torch.Tensor:
        """Run the step; the result is overwritten by the next replay."""
        instrumented = instrumented and True in self._graphs and not probe.is_quiet()
        marks = self._marks[instrumented]
        with marks.replay() if marks is not None else contextlib.nullcontext():
            self._graphs[instrumented].replay()
        return self._result[instrumented]
