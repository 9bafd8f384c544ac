"""The decode loop of one rank: micro-batches in turn, stage by stage, tokens fed back.

Step k of a micro-batch on a stage: take the activation (first stage: the token of step k - 1),
run the stage's layers, pass the result on. Every stage runs the same (step, micro-batch) order,
and whatever a stage takes was sent by an earlier entry of that order: nothing can deadlock.
The host needs no token: sampling, positions and the end of a sequence stay on the device.
Every TP rank talks to its own counterpart, so that TP ranks have equal work.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch

from harness_runners.engines import BatchJob, Generated, OpenUnit, UnitRecord
from harness_runners.engines.kv_cache import StageCache
from harness_runners.engines.positions import Positions
from harness_runners.engines.sampling import Sampler
from harness_runners.engines.stage import Stage
from harness_runners.engines.wire import Wire
from harness_runners.groups import Groups, Place
from harness_runners.inject import Injector

STOP_CHECK_STEPS = 8
"""So often the host asks the device whether all rows have ended: each time is a synchronisation."""


def pad_left(rows: Sequence[Sequence[int]], fill: int) -> tuple[list[list[int]], list[int]]:
    """Rows of equal length and the padding before each."""
    longest = max(len(row) for row in rows)
    pads = [longest - len(row) for row in rows]
    return [[fill] * pad + list(row) for row, pad in zip(rows, pads, strict=True)], pads


def divide(count: int, parts: int) -> list[range]:
    """Rows 0 ... count - 1 in at most `parts` runs whose lengths differ by one at most."""
    parts = min(parts, count)
    ends = [count * (part + 1) // parts for part in range(parts)]
    return [range(first, end) for first, end in zip([0, *ends], ends, strict=False)]


class MicroBatch:
    """The state of one micro-batch on one rank."""

    def __init__(
        self, index: int, rows: range, tokens: torch.Tensor, pad: torch.Tensor, sampler: Sampler
    ) -> None:
        self.index = index
        self.rows = rows
        self.prompt = tokens
        self.pad = pad
        self.sampler = sampler
        self.done = False
        self.logits: list[torch.Tensor] = []
        prompt_slots = tokens.shape[1]
        self.num_slots = prompt_slots + sampler.new_tokens
        self._prompt_slots = torch.arange(prompt_slots, device=tokens.device)
        self._next_slot = torch.tensor([prompt_slots], device=tokens.device)

    def positions(self, step: int) -> Positions:
        """Where this step's tokens stand; a decode step advances the slot on the device."""
        if step == 0:
            return Positions(self._prompt_slots, self.pad, self.num_slots)
        slots = self._next_slot.clone()
        self._next_slot += 1
        return Positions(slots, self.pad, self.num_slots)

    def source_shape(self, step: int, hidden: int) -> tuple[int, int, int]:
        """Shape of the activation that a later stage takes."""
        return (len(self.rows), self.prompt.shape[1] if step == 0 else 1, hidden)


class Pipeline:
    """Runs batches through the stages. Built once a rank."""

    def __init__(
        self, stage: Stage, place: Place, groups: Groups, new_tokens: int, injector: Injector
    ) -> None:
        self.stage = stage
        self._new_tokens = new_tokens
        self._injector = injector
        weight = next(stage.model.parameters())
        self._hidden = int(stage.model.config.hidden_size)
        self._dtype, self._device = weight.dtype, weight.device
        piped = place.pp > 1
        before, after = place.peer(place.stage - 1), place.peer(place.stage + 1)
        self._inward = Wire(before, groups.pipe) if piped and not place.is_first else None
        self._onward = Wire(after, groups.pipe) if piped and not place.is_last else None
        self._tokens_in = Wire(before, groups.feedback) if piped and place.is_first else None
        self._tokens_out = Wire(after, groups.feedback) if piped and place.is_last else None

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def run(
        self,
        job: BatchJob,
        microbatches: Sequence[MicroBatch],
        caches: Sequence[StageCache],
        open_unit: OpenUnit,
        stoppable: bool,
    ) -> Generated:
        """Decode all micro-batches to their end; `Generated.tokens` is left to the caller."""
        units: list[UnitRecord] = []
        for microbatch in microbatches:
            self._expect(microbatch, 0, stoppable)
        for step in range(self._new_tokens):
            phase = "prefill" if step == 0 else "decode"
            for microbatch, cache in zip(microbatches, caches, strict=True):
                if microbatch.done:
                    continue
                with open_unit(phase, job, microbatch.index, step) as unit_id:
                    done_ns = self._advance(job, microbatch, cache, step, stoppable)
                if not microbatch.done:
                    rows = microbatch.rows
                    units.append(
                        UnitRecord(unit_id, microbatch.index, step, rows.start, len(rows), done_ns)
                    )
        return Generated(None, units, [microbatch.logits for microbatch in microbatches])

    def _advance(
        self, job: BatchJob, microbatch: MicroBatch, cache: StageCache, step: int, stoppable: bool
    ) -> int:
        """One step of a micro-batch; returns when the stage's result was there (host clock)."""
        if self._tokens_in is not None and step > 0:
            microbatch.sampler.told(self._tokens_in.take())
        stopped = stoppable and self._is_check(step) and self._all_ended(microbatch)
        source = self._take(microbatch, step, stopped)
        if stopped:
            microbatch.done = True
            if self._onward is not None:
                self._onward.send(source)  # its receive is posted already; nobody reads it
            return time.monotonic_ns()
        self._injector.before_step()
        positions = microbatch.positions(step)
        cache.write_at(positions.slots)
        result = self.stage.forward(source, positions, cache, self._injector.layer)
        if self.stage.is_last:
            if job.keep_logits:
                microbatch.logits.append(result)
            result = microbatch.sampler.sample(result)
        done_ns = time.monotonic_ns()
        self._pass_on(microbatch, result, step)
        self._expect(microbatch, step + 1, stoppable)
        return done_ns

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

    def _pass_on(self, microbatch: MicroBatch, result: torch.Tensor, step: int) -> None:
        if self._onward is not None:
            self._onward.send(result.contiguous())
        elif self._tokens_out is not None and step + 1 < self._new_tokens:
            self._tokens_out.send(result)

    def _expect(self, microbatch: MicroBatch, step: int, stoppable: bool) -> None:
        """Post the receives of a step, in the order in which the peer will send."""
        if step >= self._new_tokens:
            return
        if self._inward is not None:
            if stoppable and self._is_check(step):
                self._inward.expect(torch.zeros(1, dtype=torch.long, device=self._device))
            shape = microbatch.source_shape(step, self._hidden)
            self._inward.expect(torch.empty(shape, dtype=self._dtype, device=self._device))
        elif self._tokens_in is not None and step > 0:
            self._tokens_in.expect(
                torch.empty(len(microbatch.rows), dtype=torch.long, device=self._device)
            )

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
