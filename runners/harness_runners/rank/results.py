"""What a batch yielded, after the fact: tokens to every rank, records, completions."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import harness_probe as probe
from harness_runners.check.logits_store import LogitsStore, Sample
from harness_runners.engines import BatchJob, Generated, UnitRecord
from harness_runners.model.config import eos_tokens
from harness_runners.plan import RunPlan
from harness_runners.rank.groups import Place
from harness_runners.rank.units import Units
from harness_schemas.errors import HarnessError


def share_tokens(generated: Generated, place: Place) -> list[list[int]]:
    """The tokens [rows, new_tokens] that the last stage sampled, on every rank.

    Raises:
        HarnessError: TP ranks of the last stage sampled different tokens.
    """
    import torch
    import torch.distributed as dist

    shared = generated.tokens.clone()
    dist.broadcast(shared, place.peer(place.pp - 1) - place.tp_rank)
    if place.is_last and not torch.equal(shared, generated.tokens):
        raise HarnessError("the ranks of the last stage sampled different tokens")
    return [[int(token) for token in row] for row in shared.tolist()]


def completion_length(tokens: Sequence[int], eos: Sequence[int], ran: int) -> int:
    """Tokens of a completion, up to and with the end of sequence, of `ran` steps."""
    for index, token in enumerate(tokens[:ran]):
        if token in eos:
            return index + 1
    return min(len(tokens), ran)


def record_steps(
    job: BatchJob,
    units: Sequence[UnitRecord],
    lengths: Sequence[int],
    emits: bool,
    all_there_ns: int | None = None,
) -> None:
    """Write the engine's view of every unit, and on one rank (`emits`) the tokens of each."""
    for unit in units:
        rows = range(unit.first_row, unit.first_row + unit.rows)
        counts = [int(unit.step < lengths[row]) for row in rows]
        prompts = [len(job.requests[row].tokens) for row in rows]
        probe.step_info(
            batch_size=sum(counts),
            padded_batch=unit.rows,
            prefill_tokens=sum(prompts) if unit.step == 0 else 0,
            decode_tokens=sum(counts) if unit.step else 0,
            kv_tokens=sum(prompts) + unit.rows * unit.step,
            unit=unit.unit_id,
        )
        if emits:
            # A GPU's host runs ahead: its tokens are there when the batch is (host), or when the
            # unit ends on the device's own timeline, which ingest knows.
            here = unit.host_ns if all_there_ns is None else all_there_ns
            times = {"device_ns": None if all_there_ns else here, "host_ns": here}
            probe.tokens(counts, first_row=unit.first_row, unit=unit.unit_id, **times)


def token_times(units: Sequence[UnitRecord], row: int, length: int) -> tuple[int, int]:
    """When a row's first and last token were there, on CLOCK_MONOTONIC."""
    ends = {
        unit.step: unit.host_ns
        for unit in units
        if unit.first_row <= row < unit.first_row + unit.rows
    }
    return ends[0], ends[length - 1]


def record_requests(
    job: BatchJob,
    lengths: Sequence[int],
    times: Sequence[tuple[int, int]],
    arrival_ns: int,
    start_ns: int,
) -> None:
    """Write every request of a batch: known at `arrival_ns`, handed to the engine at `start_ns`."""
    for request, length, (first, end) in zip(job.requests, lengths, times, strict=True):
        probe.request(
            request.id,
            batch=job.index,
            repeat=job.repeat,
            warmup=job.warmup,
            perturbed_by=job.perturbed_by,
            prompt_tokens=len(request.tokens),
            output_tokens=length,
            arrival_ns=arrival_ns,
            start_ns=start_ns,
            first_token_ns=first,
            end_ns=end,
        )


class Completions:
    """Appends completions as JSON lines: id, batch, repeat, prompt_tokens, tokens, text."""

    def __init__(self, path: Path, tokenizer: Any) -> None:
        self._path = path
        self._tokenizer = tokenizer

    def add(self, job: BatchJob, tokens: Sequence[Sequence[int]], lengths: Sequence[int]) -> None:
        """Append a batch.

        Raises:
            HarnessError: the file cannot be written.
        """
        lines = []
        for request, row, length in zip(job.requests, tokens, lengths, strict=True):
            record = {
                "id": request.id,
                "batch": job.index,
                "repeat": job.repeat,
                "prompt_tokens": len(request.tokens),
                "tokens": list(row[:length]),
                "text": self._tokenizer.decode(row[:length], skip_special_tokens=True),
            }
            lines.append(json.dumps(record, ensure_ascii=False) + "\n")
        data = "".join(lines).encode()
        try:
            with probe.io("write", self._path, len(data)), self._path.open("ab") as stream:
                stream.write(data)
        except OSError as error:
            raise HarnessError(
                f"cannot write {self._path}: {error.strerror or error}",
                "free space or choose another place with --output",
            ) from None


class Writer:
    """Finishes batches: every rank learns the tokens; the speaking rank (the last stage's
    first) writes down what the whole world knows: tokens, requests, completions, logits."""

    def __init__(self, plan: RunPlan, place: Place, units: Units, tokenizer: Any) -> None:
        self._place = place
        self._units = units
        self._speaks = place.is_last and place.tp_rank == 0
        self._eos = eos_tokens(Path(plan.model.folder)) if plan.generation.stop_at_eos else ()
        name = f"rank-{place.rank:05d}.jsonl"
        self._completions = Completions(plan.run.completions / name, tokenizer)
        self._logits = LogitsStore(plan.run)
        self._arrivals: dict[int, int] = {}
        self._started = 0

    def begin(self, job: BatchJob) -> None:
        """A batch is handed to the engine. All prompts of a repeat arrive with its first batch."""
        probe.batch(job.index, [request.id for request in job.requests], repeat=job.repeat)
        self._started = time.monotonic_ns()
        self._arrivals.setdefault(job.repeat, self._started)

    def finish(self, job: BatchJob, generated: Generated) -> None:
        """Share a batch's tokens and record what it was."""
        tokens = share_tokens(generated, self._place)
        ran = max(unit.step for unit in generated.units) + 1
        lengths = [completion_length(row, self._eos, ran) for row in tokens]
        on_gpu = generated.tokens.is_cuda
        # `share_tokens` has waited for the device: what it did can be read without another wait.
        probe.resolve_device(idle=True)
        record_steps(
            job, generated.units, lengths, self._speaks, time.monotonic_ns() if on_gpu else None
        )
        if not self._speaks:
            return
        times = [token_times(generated.units, row, n) for row, n in enumerate(lengths)]
        arrived = self._arrivals[job.repeat]
        record_requests(job, lengths, times, arrived, self._started)
        self._trace(job, generated.units, times)
        if job.keep_logits:
            self._keep_logits(job, generated, tokens, lengths)
        elif not job.warmup and job.perturbed_by is None:
            self._completions.add(job, tokens, lengths)

    def _trace(
        self, job: BatchJob, units: Sequence[UnitRecord], times: Sequence[tuple[int, int]]
    ) -> None:
        """The batch's phases and requests as OpenTelemetry spans."""
        telemetry = self._units.telemetry
        if telemetry is None:
            return
        keys = {"batch": job.index, "repeat": job.repeat}
        filled = max(unit.host_ns for unit in units if unit.step == 0)
        telemetry.add("prefill", self._started, filled, **keys)
        telemetry.add("decode", filled, max(unit.host_ns for unit in units), **keys)
        for request, (first, end) in zip(job.requests, times, strict=True):
            telemetry.add(
                "request",
                self._started,
                end,
                request_id=request.id,
                time_to_first_token_ns=first - self._started,
                **keys,
            )

    def _keep_logits(
        self,
        job: BatchJob,
        generated: Generated,
        tokens: Sequence[Sequence[int]],
        lengths: Sequence[int],
    ) -> None:
        """Write each prompt's logits, one row a token."""
        first = 0
        for steps in generated.logits:
            logits = [step.cpu().numpy() for step in steps]
            for row in range(len(logits[0])):
                request, length = job.requests[first + row], lengths[first + row]
                kept = np.stack([step[row] for step in logits[:length]])
                chosen = tuple(tokens[first + row][:length])
                self._logits.add(Sample(request.id, request.tokens, chosen, kept))
            first += len(logits[0])
