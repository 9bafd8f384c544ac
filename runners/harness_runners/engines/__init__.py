"""What an engine must offer, and what it is given. One file an engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from harness_runners.prompts import Request


@dataclass(frozen=True)
class BatchJob:
    """One batch to generate. `keep_logits`: keep every step's float32 logits (last stage)."""

    index: int
    repeat: int
    requests: Sequence[Request]
    warmup: bool = False
    perturbed_by: str | None = None
    keep_logits: bool = False


@dataclass(frozen=True)
class UnitRecord:
    """A unit that a rank has run: its id in the spool and when its work was done."""

    unit_id: int
    microbatch: int
    step: int
    first_row: int
    rows: int
    host_ns: int


@dataclass
class Generated:
    """What a batch yielded on this rank.

    `tokens`: int64 [rows, new_tokens], the same on every rank; after the end of a sequence
    filled up. `logits`: per micro-batch a list of float32 [rows, vocabulary], one a step.
    """

    tokens: Any
    units: list[UnitRecord] = field(default_factory=list)
    logits: list[list[Any]] = field(default_factory=list)


OpenUnit = Callable[[str, BatchJob, int, int, str | None], AbstractContextManager[int]]
"""`open_unit(phase, job, microbatch, step, perturbed_by)` begins a unit and yields its id."""


class Engine(Protocol):
    """Runs a model on this rank as part of the world. Every rank makes the same calls."""

    def load(self) -> None:
        """Build this rank's part of the model and read its weights."""

    def reserve(self, jobs: Sequence[BatchJob]) -> None:
        """Allocate what these jobs need at most."""

    def generate(self, job: BatchJob, open_unit: OpenUnit) -> Generated:
        """Decode a batch greedily."""

    def close(self) -> None:
        """Free everything; idempotent."""
