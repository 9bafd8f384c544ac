"""The plan of a sweep: a line a cell, and whether it fits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from harness.planning.tables import Plan, gib
from harness.sections import Section
from harness.setup.specfile import problems_of
from harness.sweep.plan import Cell, plan_sweep
from harness_runners.capacity.memory import worst_rank
from harness_runners.capacity.steptime import decode_floor
from harness_schemas.errors import SpecError
from harness_schemas.spec.sweep import SweepSpec

Planned = tuple[Cell, Plan]
COLUMNS = ("cell", "gpus", "needs_gib", "fits", "step_ms", "tok_per_s")


def sweep_cells(data: dict[str, Any], path: Path) -> tuple[Cell, ...]:
    """The cells of a specification with a table [sweep].

    Raises:
        SpecError, UsageError: as `harness sweep` says them.
    """
    data = dict(data)
    try:
        sweep = SweepSpec.model_validate(data.pop("sweep"))
    except ValidationError as error:
        problems = [(f"sweep.{key}", text) for key, text in problems_of(error, SweepSpec)]
        raise SpecError(str(path), problems) from None
    return plan_sweep(data, sweep, path).cells


def needs(plan: Plan) -> int:
    """Bytes of the rank that needs most."""
    return worst_rank(plan.request.shape, plan.layout, plan.request.work).bytes


def cells_section(planned: Sequence[Planned]) -> Section:
    """A row a cell: what its worst rank needs, and the floor of its step."""
    rows = []
    for cell, plan in planned:
        request, card = plan.request, plan.request.card
        fits = step = rate = None
        if card is not None:
            floor = decode_floor(request.shape, plan.layout, request.work, card, request.links)
            fits = needs(plan) <= card.memory_bytes
            step, rate = round(floor.ns / 1e6, 4), round(floor.tokens_per_s)
        rows.append((cell.label, cell.spec.world_size, gib(needs(plan)), fits, step, rate))
    notes = ["below: the cell that needs most of a GPU"]
    return Section("cells", f"The {len(rows)} cells of the sweep", COLUMNS, rows, notes)
