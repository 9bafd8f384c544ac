"""What a pipeline's stages show: who waits for whom, and which stage takes longer than its share.

Stages work in turn, so a stage is not late to a collective: the others' wait for it is there in
the best of runs. A stage is named when it is busy for longer than the weights and layers it holds
explain, by the other stages' measure, in most steps and at a material cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from harness_analysis.findings.finding import Finding, percent, steady
from harness_schemas.units import format_ns

if TYPE_CHECKING:
    import duckdb

EXCESS_SHARE = 0.25
"""A stage is named when it takes this much longer than its share of the work explains: weights
and layers tell what a stage has to do to about a tenth, sampling left aside."""
CAUSES = {
    "compute_ns": "it computes longer",
    "memcpy_ns": "it copies memory",
    "idle_ns": "its device waits for launches (bound by its host)",
    "unresolved_ns": "neither on a CPU nor communicating",
}
"""Parts of a window that are a stage's own, and what more of them means."""

_UNITS = f"""
SELECT coalesce(repeat, 0) AS repeat, coalesce(batch, 0) AS batch,
  coalesce(microbatch, 0) AS microbatch, step, k.stage,
  any_value(k.last_layer - k.first_layer + 1) AS layers,
  any_value(k.step_weight_bytes) AS weights,
  max(window_ns) AS window_ns, min(window_ns - comm_wait_ns) AS busy_ns,
  CASE WHEN count(DISTINCT b.rank) = 1 THEN any_value(b.rank) END AS only_rank,
  {", ".join(f"arg_min(coalesce({p}, 0), window_ns - comm_wait_ns) AS {p}" for p in CAUSES)}
FROM step_breakdown b JOIN ranks k USING (run_id, rank)
WHERE phase = 'decode' AND b.complete AND NOT coalesce(warmup, false)
  AND (perturbed_by IS NOT NULL) = ? AND window_ns > 0 AND step IS NOT NULL
  AND comm_wait_ns IS NOT NULL AND coalesce(comm_unsplit_ns, 0) <= 0.01 * window_ns
  AND k.stage IS NOT NULL
GROUP BY ALL
"""
"""One row a stage and unit. What a late rank takes beyond its peers is told of that rank."""


def pipeline_findings(con: duckdb.DuckDBPyConnection) -> list[Finding]:
    """Findings of kind `pipeline` and `stage`; none without a pipeline."""
    return [*_slow_stage(con), *_bubbles(con)]


# -- a stage that takes longer than its share --------------------------------------------------


@dataclass(frozen=True)
class Stages:
    """Steps that all stages show. Arrays of shape [steps, stages], nanoseconds."""

    busy: np.ndarray
    window: np.ndarray
    parts: dict[str, np.ndarray]
    layers: np.ndarray
    weights: np.ndarray
    ranks: list[int | None]
    """Of each stage: its rank where it has one only."""


def _slow_stage(con: duckdb.DuckDBPyConnection) -> list[Finding]:
    row = con.execute("SELECT max(pp), max(coalesce(microbatches, 1)) FROM runs").fetchone()
    if row is None or (row[0] or 1) < 2:
        return []
    for perturbed in (False, True):
        stages = _load(con, int(row[0]), perturbed)
        if stages is not None:
            return _name(stages, one_in_flight=row[1] == 1, perturbed=perturbed)
    return []


def _load(con: duckdb.DuckDBPyConnection, count: int, perturbed: bool) -> Stages | None:
    """None: the evidence does not show every stage, or not what it holds."""
    found = con.execute(
        f"""
        WITH units AS ({_UNITS}), shown AS (
          SELECT *, count(*) OVER (PARTITION BY repeat, batch, microbatch, step) AS stages
          FROM units)
        SELECT * FROM shown WHERE stages = ? ORDER BY repeat, batch, microbatch, step, stage
        """,
        [perturbed, count],
    ).fetchnumpy()
    if len(found["stage"]) == 0:
        return None
    numbers = [name for name in found if name != "repeat"]
    grid = {name: np.ma.filled(found[name].astype(float), np.nan) for name in numbers}
    grid = {name: values.reshape(-1, count) for name, values in grid.items()}
    layers, weights = grid["layers"][0], grid["weights"][0]
    if not (layers > 0).all():
        return None
    known = bool((weights > 0).all())
    return Stages(
        grid["busy_ns"],
        grid["window_ns"],
        {part: grid[part] for part in CAUSES},
        layers,
        weights if known else layers,
        [None if np.isnan(rank) else int(rank) for rank in grid["only_rank"][0]],
    )


def expected_ns(busy: np.ndarray, stage: int, work: Sequence[np.ndarray]) -> np.ndarray:
    """What `stage` would take at the others' pace: for each measure of work, the longest.

    `busy`: [steps, stages]; `work`: arrays of shape [stages]. Shape [steps].
    """
    others = np.arange(busy.shape[1]) != stage
    paces = [busy[:, others].sum(axis=1) / w[others].sum() * w[stage] for w in work]
    longest: np.ndarray = np.max(paces, axis=0)
    return longest


def _name(stages: Stages, one_in_flight: bool, perturbed: bool) -> list[Finding]:
    work = (stages.layers, stages.weights)
    found = []
    for stage in range(len(stages.layers)):
        expected = expected_ns(stages.busy, stage, work)
        excess = stages.busy[:, stage] - expected
        step = stages.window.max(axis=1)
        material = np.median(excess) > EXCESS_SHARE * np.median(expected)
        share = float(excess.sum() / step.sum())
        if not material or not steady(excess, share):
            continue
        found.append(_stage_finding(stages, stage, expected, one_in_flight, share, perturbed))
    return found


def _stage_finding(
    stages: Stages,
    stage: int,
    expected: np.ndarray,
    one_in_flight: bool,
    share: float,
    perturbed: bool,
) -> Finding:
    busy, step = stages.busy[:, stage], stages.window.max(axis=1)
    excess = busy - expected
    rank = stages.ranks[stage]
    who = f"stage {stage}" if rank is None else f"stage {stage} (rank {rank})"
    text = (
        f"{who} is busy {format_ns(float(np.median(busy)))} of each decode step, "
        f"{format_ns(float(np.median(excess)))} longer than its layers and weights explain at the "
        f"pace of {other_stages(stage, len(stages.layers))}, {percent(share)} of decode"
    )
    cause = _cause(stages, stage, float(np.median(excess)))
    if cause:
        text += f"; {cause}"
    if one_in_flight:
        without, now = float(np.median(step - excess)), float(np.median(step))
        text += (
            f"; without it a decode step would take about {format_ns(without)} "
            f"instead of {format_ns(now)}"
        )
    if perturbed:
        text += " (units slowed by observing them: no others show it)"
    total = int(excess.sum())
    return Finding("problem", "stage", text, rank, "decode", value_ns=total, share=share)


def _cause(stages: Stages, stage: int, excess_ns: float) -> str | None:
    """The part of the window that is at least half of the excess, in words."""
    work = (stages.layers, stages.weights)
    more = {
        part: float(np.median(values[:, stage] - expected_ns(values, stage, work)))
        for part, values in stages.parts.items()
    }
    part = max(more, key=lambda name: more[name])
    return CAUSES[part] if more[part] >= excess_ns / 2 else None


# -- waiting for the other stages ---------------------------------------------------------------


def _bubbles(con: duckdb.DuckDBPyConnection) -> list[Finding]:
    rows = con.execute(
        """
        SELECT stage, phase, avg(wait_share), any_value(floor_share), avg(p2p_wait_ns),
          any_value(r.pp), any_value(r.microbatches)
        FROM pipeline_bubbles b JOIN runs r USING (run_id)
        WHERE phase = 'decode' AND stage IS NOT NULL AND wait_share IS NOT NULL
        GROUP BY stage, phase ORDER BY avg(wait_share) DESC LIMIT 1
        """
    ).fetchall()
    found = []
    for stage, phase, share, floor, wait_ns, stages, microbatches in rows:
        others = other_stages(int(stage), int(stages))
        in_flight = "one batch" if (microbatches or 1) == 1 else f"{microbatches} micro-batches"
        text = f"stage {stage} waits {percent(share)} of {phase} for {others}"
        if floor is not None:
            text += f"; {percent(floor)} is the floor of {stages} stages with {in_flight} in flight"
        high = floor is not None and share > floor + 0.1
        found.append(
            Finding(
                "notice" if high else "info",
                "pipeline",
                text,
                phase=phase,
                value_ns=int(wait_ns),
                share=share,
                floor_share=floor,
            )
        )
    return found


def other_stages(stage: int, stages: int) -> str:
    """The stages beside this one, in words."""
    return f"stage {1 - stage}" if stages == 2 else "the other stages"
