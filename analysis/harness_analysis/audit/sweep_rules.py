"""Rules for several runs: drift among them, and differences smaller than their disturbance."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import numpy as np

from harness_analysis.audit.claims import BATCH, STRONG, UNKNOWN, Claim, ClaimTable, Value
from harness_analysis.audit.facts import Facts
from harness_analysis.audit.flags import NOTICE, PROBLEM, Flag
from harness_analysis.compare.changes import (
    CONFIGURATION,
    ENVIRONMENT,
    HARDWARE,
    PLACEMENT,
    VERSIONS,
    Recorded,
)
from harness_analysis.compare.samples import BY_NAME, Sample, sample_of, statistic
from harness_schemas.units import format_share

FEWEST_REPEATS = 3
DISTURBING = 0.01
"""Observing that costs less is no matter."""
Cells = Mapping[str, Sequence[Facts]]
Rule = Callable[[Cells], list[Flag]]


def group_studies(runs: Sequence[Facts]) -> list[list[Facts]]:
    """Runs that are to be compared with each other: of one sweep, or, outside sweeps, of the same
    model by the same runner on the same kind of device. What is not known to be, stands alone."""
    found: dict[object, list[Facts]] = {}
    for run in runs:
        row, spec = run.data.row, run.data.spec
        key: object = row.get("sweep_id")
        if key is None:
            model = None if spec is None else json.dumps(spec.get("model"), sort_keys=True)
            key = run.name if spec is None else (model, row.get("runner"), row.get("device"))
        found.setdefault(key, []).append(run)
    return list(found.values())


def group_cells(runs: Sequence[Facts]) -> dict[str, list[Facts]]:
    """Runs by the cell of the sweep; a run without one is a cell of its own."""
    found: dict[str, list[Facts]] = {}
    for run in runs:
        cell = run.data.row.get("cell")
        found.setdefault(run.name if cell is None else f"cell {cell}", []).append(run)
    return found


def drifted_within(cells: Cells) -> list[Flag]:
    """Repeats of one cell must not differ in configuration."""
    found = []
    for cell, runs in cells.items():
        told = _differing(runs, (CONFIGURATION,))
        if told:
            found.append(
                Flag("configuration-drift", PROBLEM, cell, f"its repeats differ in {told}",
                     "run the cell again from one specification")
            )  # fmt: skip
    return found


def drifted_across(cells: Cells) -> list[Flag]:
    """Versions, hardware and environment must not change during a sweep; places should not."""
    runs = [run for members in cells.values() for run in members]
    found = []
    told = _differing(runs, (VERSIONS, HARDWARE, ENVIRONMENT))
    if told:
        found.append(
            Flag("configuration-drift", PROBLEM, f"{len(runs)} runs", f"they differ in {told}",
                 "run all cells in one environment, interleaved")
        )  # fmt: skip
    for cell, members in cells.items():
        moved = _differing(members, (PLACEMENT,))
        if moved:
            found.append(
                Flag("placement-drift", NOTICE, cell, f"its repeats ran on different {moved}",
                     "pin nodes and GPUs, or spread every cell over all of them")
            )  # fmt: skip
    return found


def _differing(runs: Sequence[Facts], groups: Sequence[str]) -> str:
    """Paths of these groups whose values differ among the runs that recorded any, with the
    values; empty: none."""
    recorded = [Recorded.of(run.data) for run in runs]
    paths = dict.fromkeys(key for run in recorded for key in run.facts if key[0] in groups)
    told = []
    for key in paths:
        found = {run.value(*key) for run in recorded}
        values = sorted(value for value in found if value is not None)
        if len(values) > 1:
            told.append(f"{key[1]} ({' | '.join(values[:3])})")
    more = f" and {len(told) - 4} more" if len(told) > 4 else ""
    return ", ".join(told[:4]) + more


def too_few_repeats(cells: Cells) -> list[Flag]:
    """Fewer than three repeats of a cell cannot tell an effect from chance."""
    few = [cell for cell, runs in cells.items() if len(runs) < FEWEST_REPEATS]
    if len(cells) < 2 or not few:
        return []
    return [
        Flag("too-few-samples", NOTICE, f"{len(few)} of {len(cells)} cells",
             f"fewer than {FEWEST_REPEATS} repeats: {', '.join(few[:3])}",
             "repeat every cell, interleaved (harness sweep --repeats 3)")
    ]  # fmt: skip


def disturbance_over_difference(cells: Cells) -> list[Flag]:
    """What observing cost must be smaller than the differences that it is to show."""
    steps = {
        cell: float(np.median(np.concatenate([run.decode_ns for run in runs])))
        for cell, runs in cells.items()
        if all(len(run.decode_ns) for run in runs)
    }
    costs = {cell: _decode_cost(runs) for cell, runs in cells.items()}
    found = []
    names = sorted(steps, key=steps.__getitem__)
    for faster, slower in pairwise(names):
        difference = steps[slower] / steps[faster] - 1
        cost = max(costs[faster], costs[slower])
        if max(difference, DISTURBING) < cost:
            found.append(
                Flag("perturbed", PROBLEM, f"{faster} and {slower}",
                     f"their steps differ by {format_share(difference)}, observing cost "
                     f"{format_share(cost)}",
                     "measure both again with fewer collectors before ranking them")
            )  # fmt: skip
    return found


def _decode_cost(runs: Sequence[Facts]) -> float:
    shares = [
        cost.effect_ns / cost.off_ns
        for run in runs
        for cost in run.costs
        if cost.resolved and cost.phase in ("decode", "mixed")
    ]
    return max(shares, default=0.0)


SWEEP_RULES: Sequence[Rule] = (
    drifted_within,
    drifted_across,
    too_few_repeats,
    disturbance_over_difference,
)


def measured_table(cells: Cells) -> ClaimTable | None:
    """The cells as a table of results, so that the rules for claims judge them too."""
    rows = [claim for cell, runs in cells.items() if (claim := _claim(cell, runs))]
    if len(rows) < 2:
        return None
    gpus = {row.get("gpus") for row in rows}
    batches = {row.get("batch") for row in rows}
    kind = BATCH if len(gpus) == 1 else STRONG if len(batches) == 1 else UNKNOWN
    return ClaimTable("these runs", kind, tuple(rows))


def _claim(cell: str, runs: Sequence[Facts]) -> Claim | None:
    samples = [sample_of(run.data, BY_NAME["tok_per_s"]) for run in runs]
    known = [sample for sample in samples if isinstance(sample, Sample)]
    if not known:
        return None
    row = runs[0].data.row
    values = {
        field: Value(float(row[column]))
        for field, column in (("gpus", "world_size"), ("tp", "tp"), ("pp", "pp"))
        if row.get(column)
    }
    if row.get("batch_size"):
        values["batch"] = Value(float(row["batch_size"]))
    rates = np.array([statistic(sample, "ratio") for sample in known])
    spread = float(rates.std(ddof=1)) if len(rates) > 1 else 0.05 * float(rates.mean())
    values["throughput"] = Value(float(rates.mean()), spread)
    return Claim(cell, values)
