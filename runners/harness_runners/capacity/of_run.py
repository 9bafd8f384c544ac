"""The memory that a run's own plan foretells for a rank, kept beside what it then needed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

from harness_runners.capacity.memory import Workload, plan_rank
from harness_runners.capacity.split import Layout
from harness_runners.model.shape import load_shape

if TYPE_CHECKING:
    from harness_runners.plan import RunPlan
    from harness_runners.rank.groups import Place


def memory_plan(plan: RunPlan, place: Place, prompt_lengths: Iterable[int]) -> str:
    """Bytes by part as JSON (column `ranks.memory_plan`), for the longest prompt of the run."""
    generation, longest = plan.generation, max(prompt_lengths, default=1)
    work = Workload(
        batch=generation.batch_size,
        context=longest + generation.new_tokens,
        prompt=longest,
        microbatches=generation.microbatches,
        dtype=plan.dtype,
        kv_dtype=plan.dtype,
        windowed=False,
        device=plan.device,
    )
    layout = Layout(plan.tp, plan.layers)
    rank = plan_rank(load_shape(plan.model.folder), layout, work, place.stage, place.tp_rank)
    return json.dumps({part.name: part.bytes for part in rank.parts})
