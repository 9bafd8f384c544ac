"""The decode loop of one rank: micro-batches in turn, stage by stage, tokens fed back.

Step k of a micro-batch on a stage: take the activation (first stage: the token of step k - 1),
run the stage's layers, pass the result on. Every stage runs the same (step, micro-batch) order,
and whatever a stage takes was sent by an earlier entry of that order: nothing can deadlock.
The host needs no token: sampling, positions and the end of a sequence stay on the device.
Every TP rank talks to its own counterpart, so that TP ranks have equal work.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import torch

from harness_runners.engines import BatchJob, Generated, OpenUnit, UnitRecord
from harness_runners.engines.microbatch import MicroBatch
from harness_runners.engines.stage import Stage
from harness_runners.engines.step_graph import StepGraph
from harness_runners.engines.wire import Wire
from harness_runners.rank.groups import Groups, Place
from harness_runners.rank.inject import Injector

STOP_CHECK_STEPS = 8
"""So often the host asks the device whether all rows have ended: each time is a synchronisation."""


RUN_AHEAD_STEPS = 4
"""So far may the host launch ahead of a GPU. More would hide nothing more, and the events of an
instrumented graph are overwritten by its next replay."""

INSTRUMENTED = "graph_events"
"""What perturbs a decode step whose graph has timing events inside."""


class Pipeline:
    """Runs batches through the stages. Built once a rank."""

    def __init__(
        self,
        stage: Stage,
        place: Place,
        groups: Groups,
        new_tokens: int,
        instrument_every: int,
        injector: Injector,
    ) -> None:
        self.stage = stage
        self._new_tokens = new_tokens
        self._instrument_every = instrument_every
        self._injector = injector
        weight = next(stage.model.parameters())
        self._hidden = int(stage.model.config.hidden_size)
        self._dtype, self._device = weight.dtype, weight.device
        piped = place.pp > 1
        before, after = place.peer(place.stage - 1), place.peer(place.stage + 1)
        gpu = self._device.type == "cuda"
        self._inward = Wire(before, groups.pipe, gpu) if piped and not place.is_first else None
        self._onward = Wire(after, groups.pipe, gpu) if piped and not place.is_last else None
        self._tokens_in = Wire(before, groups.feedback, gpu) if piped and place.is_first else None
        self._tokens_out = Wire(after, groups.feedback, gpu) if piped and place.is_last else None
        self._launched: deque[Any] = deque()

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def capture(self, microbatch: MicroBatch) -> None:
        """Capture the decode step of micro-batches of this shape. All ranks do so together."""
        source = None
        if self._inward is not None:
            shape = microbatch.source_shape(1, self._hidden)
            source = torch.zeros(shape, dtype=self._dtype, device=self._device)
        told = self._tokens_in is not None
        instrument = self._instrument_every > 0
        microbatch.graph = StepGraph(
            self.stage, microbatch, self._injector, told, source, instrument
        )

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def run(
        self,
        job: BatchJob,
        microbatches: Sequence[MicroBatch],
        open_unit: OpenUnit,
        stoppable: bool,
    ) -> Generated:
        """Decode all micro-batches to their end; `Generated.tokens` is left to the caller."""
        units: list[UnitRecord] = []
        for microbatch in microbatches:
            self._expect(microbatch, 0, stoppable)
        for step in range(self._new_tokens):
            phase = "prefill" if step == 0 else "decode"
            for microbatch in microbatches:
                if microbatch.done:
                    continue
                marked = INSTRUMENTED if self._is_instrumented(microbatch, step) else None
                with open_unit(phase, job, microbatch.index, step, marked) as unit_id:
                    done_ns = self._advance(job, microbatch, step, stoppable)
                    self._pace(len(microbatches))
                if not microbatch.done:
                    rows = microbatch.rows
                    units.append(
                        UnitRecord(unit_id, microbatch.index, step, rows.start, len(rows), done_ns)
                    )
        for wire in (self._onward, self._tokens_out):
            if wire is not None:
                wire.finish()
        return Generated(None, units, [microbatch.logits for microbatch in microbatches])

    def _pace(self, in_flight: int) -> None:
        """Wait for what was launched some steps ago, so that the host does not run away."""
        if self._device.type != "cuda":
            return
        event = torch.cuda.Event()
        event.record()
        self._launched.append(event)
        if len(self._launched) > RUN_AHEAD_STEPS * in_flight:
            self._launched.popleft().synchronize()

    def _is_instrumented(self, microbatch: MicroBatch, step: int) -> bool:
        if microbatch.graph is None or step == 0 or self._instrument_every == 0:
            return False
        return step % self._instrument_every == 0

    def _advance(self, job: BatchJob, microbatch: MicroBatch, step: int, stoppable: bool) -> int:
        """One step of a micro-batch; returns when the stage's result was there (host clock)."""
        graph = microbatch.graph if step > 0 else None
        if self._tokens_in is not None and step > 0:
            token = self._tokens_in.take()
            if graph is None:
                microbatch.sampler.told(token)
        stopped = stoppable and self._is_check(step) and self._all_ended(microbatch)
        source = self._take(microbatch, step, stopped)
        if stopped:
            microbatch.done = True
            if self._onward is not None:
                self._onward.send(source)  # its receive is announced already; nobody reads it
            return time.monotonic_ns()
        self._injector.host_step()
        if graph is not None and not job.keep_logits:
            result = graph.replay(self._is_instrumented(microbatch, step))
        else:
            result = self._forward(job, microbatch, source, step)
        done_ns = time.monotonic_ns()
        self._pass_on(result, step)
        self._expect(microbatch, step + 1, stoppable)
        return done_ns

    def _forward(
        self, job: BatchJob, microbatch: MicroBatch, source: torch.Tensor, step: int
    ) -> torch.Tensor:
        """An eager step: prefill, every step without a graph, and those whose logits are kept."""
        graph = microbatch.graph if step > 0 else None
        if graph is not None and graph.token_in is not None:
            microbatch.sampler.told(graph.token_in)
            source = microbatch.sampler.last_token()
        self._injector.device_step()
        positions = microbatch.positions(step)
        microbatch.cache.write_at(positions.slots)
        result = self.stage.forward(source, positions, microbatch.cache, self._injector.layer)
        if not self.stage.is_last:
            return result
        if job.keep_logits:
            microbatch.logits.append(result)
        return microbatch.sampler.sample(result)

    def _take(self, microbatch: MicroBatch, step: int, stopped: bool) -> torch.Tensor:
        """The stage's input: tokens [b, q] on the first stage, hidden states elsewhere."""
        if self._inward is not None:
            return self._inward.take()
        if step == 0:
            return microbatch.prompt
        if stopped:
            shape = microbatch.source_shape(step, self._hidden)
            return torch.zeros(shape, dtype=self._dtype, device=self._device)
        return microbatch.sampler.last_token()

    def _pass_on(self, result: torch.Tensor, step: int) -> None:
        if self._onward is not None:
            self._onward.send(result.contiguous())
        elif self._tokens_out is not None and step + 1 < self._new_tokens:
            self._tokens_out.send(result)

    def _expect(self, microbatch: MicroBatch, step: int, stoppable: bool) -> None:
        """Announce the receives of a step, in the order in which the peer will send."""
        if step >= self._new_tokens:
            return
        graph = microbatch.graph if step > 0 else None
        if self._inward is not None:
            if stoppable and self._is_check(step):
                self._inward.expect(torch.zeros(1, dtype=torch.long, device=self._device))
            source = graph.source if graph is not None else None
            if source is None:
                shape = microbatch.source_shape(step, self._hidden)
                source = torch.empty(shape, dtype=self._dtype, device=self._device)
            self._inward.expect(source)
        elif self._tokens_in is not None and step > 0:
            token = graph.token_in if graph is not None else None
            if token is None:
                token = torch.empty(len(microbatch.rows), dtype=torch.long, device=self._device)
            self._tokens_in.expect(token)

    @staticmethod
    def _is_check(step: int) -> bool:
        return step > 0 and step % STOP_CHECK_STEPS == 0

    def _all_ended(self, microbatch: MicroBatch) -> bool:
        """Whether every row has ended: the first stage finds out and tells the next one."""
        inward = self._inward
        flag = microbatch.sampler.all_ended() if inward is None else inward.take()
        if self._onward is not None:
            self._onward.send(flag)
        return bool(flag.item())
