"""What a batch yielded, after the fact: tokens to every rank, records, completions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import harness_probe as probe
from harness_runners.engines import BatchJob, Generated, UnitRecord
from harness_runners.groups import Place
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
    job: BatchJob, units: Sequence[UnitRecord], lengths: Sequence[int], emits: bool
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
            times = {"device_ns": unit.host_ns, "host_ns": unit.host_ns}
            probe.tokens(counts, first_row=unit.first_row, unit=unit.unit_id, **times)


def record_requests(
    job: BatchJob, units: Sequence[UnitRecord], lengths: Sequence[int], times: tuple[int, int]
) -> None:
    """Write every request of a batch; `times`: when it was known, when its batch began."""
    arrival_ns, start_ns = times
    ends = {(row, unit.step): unit.host_ns for unit in units for row in _rows(unit)}
    for row, request in enumerate(job.requests):
        probe.request(
            request.id,
            batch=job.index,
            repeat=job.repeat,
            warmup=job.warmup,
            perturbed_by=job.perturbed_by,
            prompt_tokens=len(request.tokens),
            output_tokens=lengths[row],
            arrival_ns=arrival_ns,
            start_ns=start_ns,
            first_token_ns=ends[row, 0],
            end_ns=ends[row, lengths[row] - 1],
        )


def _rows(unit: UnitRecord) -> range:
    return range(unit.first_row, unit.first_row + unit.rows)


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
