"""How far a run is against its plan, and how long it may still take."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness_schemas.errors import HarnessError
from harness_schemas.rundir import RunDir

if TYPE_CHECKING:
    from harness.status.snapshot import RankNow
    from harness_runners.engines import BatchJob

FEWEST_STEPS = 4
"""Of fewer steps the rate is no guess."""
GENERATES = ("prefill", "decode", "mixed")


@dataclass(frozen=True)
class Progress:
    """Steps of the slowest rank out of those planned, at most, since prompts may end early.

    `batch`: the one it is in, from 1. `left_ns`: at the rate so far, None where it is not known.
    """

    done: int
    planned: int
    batch: int
    batches: int
    left_ns: int | None = None

    @property
    def share(self) -> float:
        """Of the planned steps."""
        return min(1.0, self.done / self.planned) if self.planned else 0.0


def read_progress(run: RunDir, ranks: Sequence[RankNow], now_ns: int) -> Progress | None:
    """How far the slowest rank is; None where there is no plan, or no rank generates yet."""
    asked = next((r.files.facts.get("planned_requests") for r in ranks if r.files.facts), None)
    if not isinstance(asked, int) or not 0 < asked <= 1_000_000:
        return None
    with contextlib.suppress(HarnessError, ImportError):
        jobs, steps = _jobs(run, asked)
        places = [_place(rank.files.unit, jobs, steps) for rank in ranks if not rank.state.ended]
        known = [place for place in places if place is not None]
        if not known or steps <= 0:
            return None
        done = min(known)
        left = _left(ranks, done, len(jobs) * steps, now_ns)
        return Progress(done, len(jobs) * steps, min(done // steps + 1, len(jobs)), len(jobs), left)
    return None


def _jobs(run: RunDir, requests: int) -> tuple[list[tuple[int, int]], int]:
    """(batch, repeat) of every batch in order, and the steps of each; `RunPlan` knows both."""
    from harness_runners.plan import RunPlan
    from harness_runners.prompts import Request
    from harness_runners.rank.worker import make_jobs

    plan = RunPlan.read(run.plan_json)
    jobs: Sequence[BatchJob] = list(make_jobs(plan, [Request("", ())] * requests))
    return [(job.index, job.repeat) for job in jobs], plan.generation.new_tokens


def _place(unit: Mapping[str, Any], jobs: Sequence[tuple[int, int]], steps: int) -> int | None:
    """Steps that a rank has done, by the unit it is in."""
    place = (unit.get("batch"), unit.get("repeat"))
    if place not in jobs:
        return None
    before = jobs.index(place) * steps
    step = unit.get("step")
    if unit.get("phase") not in GENERATES:
        return before + steps
    return before + step if isinstance(step, int) and 0 <= step < steps else before


def _left(ranks: Sequence[RankNow], done: int, planned: int, now_ns: int) -> int | None:
    first = [rank.first_step_ns for rank in ranks if rank.first_step_ns is not None]
    if done < FEWEST_STEPS or not first:
        return None
    return round((now_ns - min(first)) / done * (planned - done))
