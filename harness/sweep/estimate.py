"""GPU-hours of a sweep, before anything is started."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.runs.folders import list_runs
from harness.sweep.folder import cell_run
from harness.sweep.plan import Cell, Item
from harness_schemas.errors import UsageError
from harness_schemas.units import parse_duration_ns

MEASURED = "median of earlier runs"
LIMIT = "launcher.timeout, an upper bound"
UNKNOWN = "unknown"


@dataclass(frozen=True)
class CellEstimate:
    """Seconds that one run of a cell will take, and how that is known."""

    seconds: float | None
    how: str


@dataclass(frozen=True)
class Estimate:
    """What the runs that are left will cost.

    A rank counts as one GPU. On a CPU the same number is rank-hours, so that a budget can be
    tried where there are no GPUs.
    """

    gpu_hours: float | None
    """None: a cell's time is unknown."""
    runs: Mapping[str, int]
    """Runs by how their time is known."""

    def sentence(self) -> str:
        """The estimate and what it rests on."""
        how = "; ".join(f"{count} x {name}" for name, count in self.runs.items())
        total = "unknown" if self.gpu_hours is None else f"{self.gpu_hours:.3g}"
        return f"estimated GPU-hours (ranks x wall time): {total} ({how or 'nothing left'})"


def earlier_walls(root: Path) -> dict[str, float]:
    """Median seconds of the good runs of each cell under `root`, by the cell's key."""
    walls: dict[str, list[float]] = {}
    for run, data in list_runs(root):
        found = cell_run(run.run_id, data)
        key = data.get("cell_key")
        if isinstance(key, str) and found.good and found.wall_s is not None:
            walls.setdefault(key, []).append(found.wall_s)
    return {key: statistics.median(values) for key, values in walls.items()}


def estimate_cell(cell: Cell, walls: Mapping[str, float]) -> CellEstimate:
    """From earlier runs of the same cell, else from its time limit."""
    if cell.key in walls:
        return CellEstimate(walls[cell.key], MEASURED)
    if cell.spec.launcher.timeout is not None:
        return CellEstimate(parse_duration_ns(cell.spec.launcher.timeout) / 1e9, LIMIT)
    return CellEstimate(None, UNKNOWN)


def estimate(items: Sequence[Item], walls: Mapping[str, float]) -> Estimate:
    """Ranks times hours over all runs that are left."""
    total: float | None = 0.0
    runs: dict[str, int] = {}
    for item in items:
        found = estimate_cell(item.cell, walls)
        runs[found.how] = runs.get(found.how, 0) + 1
        if found.seconds is None or total is None:
            total = None
        else:
            total += item.cell.spec.world_size * found.seconds / 3600
    return Estimate(total, runs)


def check_budget(found: Estimate, budget: float | None) -> None:
    """Refuse what costs more than the budget, or what cannot be told to cost less.

    Raises:
        UsageError: it does not fit.
    """
    if budget is None:
        return
    if found.gpu_hours is None:
        raise UsageError(
            "the GPU-hours of this sweep are unknown, so the budget cannot be kept",
            "set launcher.timeout: it bounds every run",
        )
    if found.gpu_hours > budget:
        raise UsageError(
            f"the sweep would take {found.gpu_hours:.3g} GPU-hours, the budget is {budget:g}; "
            "nothing was started",
            "fewer cells or repeats, a shorter launcher.timeout, or a larger --budget-gpuh",
        )
